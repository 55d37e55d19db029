//! A prefix tree over byte strings.

/// Finds which of a set of byte strings begin another.
#[derive(Default)]
pub(super) struct Trie {
    /// The root first; empty as long as nothing was inserted.
    nodes: Vec<Node>,
}

#[derive(Default)]
struct Node {
    /// Sorted by byte.
    children: Vec<(u8, u32)>,
    value: Option<u32>,
}

impl Trie {
    pub(super) fn insert(&mut self, key: &[u8], value: u32) {
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        let mut node = 0;
        for &byte in key {
            let created = self.nodes.len() as u32;
            let children = &mut self.nodes[node].children;
            node = match children.binary_search_by_key(&byte, |&(byte, _)| byte) {
                Ok(index) => children[index].1 as usize,
                Err(index) => {
                    children.insert(index, (byte, created));
                    self.nodes.push(Node::default());
                    created as usize
                }
            };
        }
        self.nodes[node].value = Some(value);
    }

    /// The keys that begin `text`, shortest first, as (length in bytes, value).
    pub(super) fn prefixes<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = (usize, u32)> + 'a {
        let mut node = self.nodes.first();
        let mut depth = 0;
        std::iter::from_fn(move || {
            loop {
                let current = node?;
                let child = text.get(depth).and_then(|&byte| {
                    let found = current.children.binary_search_by_key(&byte, |&(byte, _)| byte).ok()?;
                    Some(&self.nodes[current.children[found].1 as usize])
                });
                node = child;
                depth += 1;
                if let Some(value) = child?.value {
                    return Some((depth, value));
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_come_shortest_first() {
        let mut trie = Trie::default();
        assert_eq!(trie.prefixes(b"ab").next(), None);
        for (value, key) in ["a", "abc", "abd", "b"].iter().enumerate() {
            trie.insert(key.as_bytes(), value as u32);
        }
        let prefixes = |text: &str| trie.prefixes(text.as_bytes()).collect::<Vec<_>>();
        assert_eq!(prefixes("abcd"), [(1, 0), (3, 1)]);
        assert_eq!(prefixes("ab"), [(1, 0)]);
        assert_eq!(prefixes("c"), []);
        assert_eq!(prefixes(""), []);
    }
}

//! The texts of a vocabulary, each stored once and found by id or by text.
//!
//! In:     texts, in the order of their ids.
//! Out:    a text's id, an id's text.
//! Holds:  texts are unique; a vocabulary of 150,000 tokens takes about 3 MB.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
};

use hashbrown::HashTable;

#[derive(Default)]
pub(super) struct Texts {
    /// All texts, one after the other, and where each ends.
    joined: String,
    ends: Vec<u32>,
    /// Ids by the hash of their text.
    ids: HashTable<u32>,
}

impl Texts {
    pub(super) fn with_capacity(texts: usize) -> Self {
        Self { joined: String::new(), ends: Vec::with_capacity(texts), ids: HashTable::with_capacity(texts) }
    }

    /// Adds a text under the next id; if it is there already, nothing is added and its id is the error.
    ///
    /// Panics if all texts together reach 4 GiB, which the bound on metadata excludes.
    pub(super) fn push(&mut self, text: &str) -> Result<(), u32> {
        if let Some(id) = self.id(text) {
            return Err(id);
        }
        let id = self.ends.len() as u32;
        self.joined.push_str(text);
        self.ends.push(u32::try_from(self.joined.len()).expect("metadata is bounded"));
        let Self { joined, ends, ids } = self;
        ids.insert_unique(hash(text), id, |&id| hash(text_of(joined, ends, id)));
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn id(&self, text: &str) -> Option<u32> {
        self.ids.find(hash(text), |&id| self.get(id) == text).copied()
    }

    /// Panics if the id does not exist.
    pub(super) fn get(&self, id: u32) -> &str {
        text_of(&self.joined, &self.ends, id)
    }

    /// The texts in the order of their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len() as u32).map(|id| self.get(id))
    }
}

fn text_of<'a>(joined: &'a str, ends: &[u32], id: u32) -> &'a str {
    let id = id as usize;
    let start = id.checked_sub(1).map_or(0, |previous| ends[previous]);
    &joined[start as usize..ends[id] as usize]
}

/// Does not differ between processes; tables are only looked up, never walked.
fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_text_is_found_under_its_first_id(all in prop::collection::vec("[a-c]{0,3}|\\PC{0,2}", 0..200)) {
            let mut texts = Texts::with_capacity(1);
            let mut expected: Vec<&str> = Vec::new();
            for text in &all {
                match expected.iter().position(|known| known == text) {
                    Some(id) => prop_assert_eq!(texts.push(text), Err(id as u32)),
                    None => {
                        prop_assert_eq!(texts.push(text), Ok(()));
                        expected.push(text);
                    }
                }
            }
            prop_assert_eq!(texts.iter().collect::<Vec<_>>(), expected.clone());
            for (id, text) in (0..).zip(expected) {
                prop_assert_eq!((texts.get(id), texts.id(text)), (text, Some(id)));
            }
            prop_assert_eq!(texts.id("not among them"), None);
        }
    }
}

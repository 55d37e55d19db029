//! Nearest: what somebody who mistyped a name probably meant.
//!
//! In:     a name, and the names there are.
//! Out:    the closest, if it is close enough to be worth saying.
//! Touches: nothing.
//! Holds:  work is bounded however long the name is.
//! Absent: acting on the guess. A guess is only ever told.

/// Names longer than this are not compared.
const CHARACTERS_MAX: usize = 128;

/// The closest of `known` to `name` by edits, letter case aside; `None` if none is close.
pub(crate) fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let name: Vec<char> = name.chars().take(CHARACTERS_MAX + 1).flat_map(char::to_lowercase).collect();
    if name.len() > CHARACTERS_MAX {
        return None;
    }
    let scored = known.filter_map(|candidate| {
        let other: Vec<char> = candidate.chars().flat_map(char::to_lowercase).collect();
        let close = (name.len().max(other.len()) / 3).max(1);
        let distance = if other.len() > CHARACTERS_MAX { usize::MAX } else { edits(&name, &other) };
        // A name cut short, as `qwen3` for `qwen3-0.6b`, is close too.
        let prefix = name.len() >= 3 && other.starts_with(&name);
        (distance <= close || prefix).then_some((distance, candidate))
    });
    scored.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

/// Levenshtein's distance.
fn edits(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expected: Option<&str>) {
        let known = ["qwen3-0.6b", "llama-3.2-1b", "shakespeare"];
        assert_eq!(nearest(name, known.into_iter()), expected, "{name}");
    }

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        check("qwen3-0.6B", Some("qwen3-0.6b"));
        check("qwen3", Some("qwen3-0.6b"));
        check("shakespear", Some("shakespeare"));
        check("lama-3.2-1b", Some("llama-3.2-1b"));
        check("gpt-5", None);
        check("", None);
        check(&"x".repeat(10_000), None);
    }
}

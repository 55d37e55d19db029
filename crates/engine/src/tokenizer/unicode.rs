//! Character classes, as the pre-tokenizers need them.

use super::unicode_table::RUNS;

/// `\p{L}`
pub(super) const LETTER: u8 = 1;
/// `\p{N}`
pub(super) const NUMBER: u8 = 1 << 1;
/// `\p{P}`
pub(super) const PUNCTUATION: u8 = 1 << 2;
/// `\p{S}`
pub(super) const SYMBOL: u8 = 1 << 3;
/// `\p{M}`
pub(super) const MARK: u8 = 1 << 4;
/// `\p{Z}`
pub(super) const SEPARATOR: u8 = 1 << 5;
/// `\p{Cc}`, `\p{Cf}`, `\p{Co}`
pub(super) const CONTROL: u8 = 1 << 6;
/// `\s`, the White_Space property; stands beside the category.
pub(super) const SPACE: u8 = 1 << 7;
/// `\p{Cn}`: no category.
pub(super) const UNASSIGNED: u8 = 0;

/// The category of a character, and whether it is white space.
pub(super) fn class(character: char) -> u8 {
    let code = u32::from(character);
    let run = RUNS.partition_point(|&(start, _)| start <= code);
    // The first run begins at 0, so some run begins at or before every character.
    RUNS[run - 1].1 | if is_space(character) { SPACE } else { 0 }
}

/// The White_Space property.
fn is_space(character: char) -> bool {
    matches!(
        character,
        '\t'..='\r' | ' ' | '\u{85}' | '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{2028}' | '\u{2029}'
            | '\u{202f}' | '\u{205f}' | '\u{3000}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_agrees_with_regex_syntax() {
        let classes = [
            (r"\p{L}", LETTER),
            (r"\p{N}", NUMBER),
            (r"\p{P}", PUNCTUATION),
            (r"\p{S}", SYMBOL),
            (r"\p{M}", MARK),
            (r"\p{Z}", SEPARATOR),
            (r"[\p{Cc}\p{Cf}\p{Co}]", CONTROL),
            (r"\s", SPACE),
        ];
        let all: String = (0..=u32::from(char::MAX)).filter_map(char::from_u32).collect();
        for (pattern, bit) in classes {
            let found: Vec<char> = all.chars().filter(|&character| class(character) & bit != 0).collect();
            let pattern = fancy_regex::Regex::new(pattern).unwrap();
            let expected: Vec<char> = pattern
                .find_iter(&all)
                .map(|found| found.unwrap().as_str().chars().next().unwrap())
                .collect();
            assert_eq!(found, expected, "bit {bit:#b}");
        }
    }
}

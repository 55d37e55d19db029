//! Texts: changing case, lines, numbers written out.
//!
//! In:     texts.
//! Out:    texts, places in them, numbers.
//! Touches: nothing.
//! Holds:  J-5.10, J-5.11: case is that of the Unicode version the rules name; a test holds the library to it.
//! Absent: title case as a case of its own: upper case stands for it.

use crate::lexer::is_space;

/// A line, by the bytes where it starts, where its text ends and where its line end does.
pub(crate) struct Line {
    pub(crate) start: usize,
    pub(crate) text: usize,
    pub(crate) end: usize,
}

/// The lines of a text, as Python's `splitlines` has them (J-5.11).
pub(crate) fn lines(text: &str) -> impl Iterator<Item = Line> {
    let mut start = 0;
    std::iter::from_fn(move || {
        if start == text.len() {
            return None;
        }
        let rest = &text[start..];
        let bytes = rest.find(is_line_end).unwrap_or(rest.len());
        let end = match rest[bytes..].chars().next() {
            None => 0,
            Some('\r') if rest[bytes + 1..].starts_with('\n') => 2,
            Some(character) => character.len_utf8(),
        };
        let line = Line { start, text: start + bytes, end: start + bytes + end };
        start = line.end;
        Some(line)
    })
}

fn is_line_end(character: char) -> bool {
    matches!(character, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// The first character in upper case, the others in lower case.
pub(crate) fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    let Some(first) = characters.next() else { return String::new() };
    let mut out: String = first.to_uppercase().collect();
    // Whether a sigma ends a word depends on what precedes it.
    let lower = text.to_lowercase();
    let skipped: usize = first.to_lowercase().map(char::len_utf8).sum();
    out.push_str(&lower[skipped..]);
    out
}

/// Words with a capital each, as jinja2's filter `title` has it: they begin behind whitespace and `-({[<`.
pub(crate) fn titled_words(text: &str) -> String {
    let parts = |character: char| is_space(character) || matches!(character, '-' | '(' | '{' | '[' | '<');
    let mut out = String::new();
    for word in text.split_inclusive(parts) {
        out.push_str(&capitalized(word));
    }
    out
}

/// Words with a capital each, as Python's `str.title` has it: they begin at a letter behind what is none.
pub(crate) fn titled_letters(text: &str) -> String {
    let mut out = String::new();
    let mut within = false;
    for character in text.chars() {
        if within {
            out.extend(character.to_lowercase());
        } else {
            out.extend(character.to_uppercase());
        }
        within = is_cased(character);
    }
    out
}

/// Whether a character has an upper or a lower case.
pub(crate) fn is_cased(character: char) -> bool {
    character.is_lowercase() || character.is_uppercase() || !character.to_lowercase().eq([character])
}

/// An integer as Python's `int` reads it, in ASCII digits.
pub(crate) fn int(text: &str) -> Option<i64> {
    plain_digits(text).and_then(|digits| digits.parse().ok())
}

/// A finite float as Python's `float` reads it, in ASCII digits.
pub(crate) fn float(text: &str) -> Option<f64> {
    let digits = plain_digits(text)?;
    // Neither `inf` nor `nan`.
    if digits.bytes().any(|byte| byte.is_ascii_alphabetic() && !matches!(byte, b'e' | b'E')) {
        return None;
    }
    digits.parse().ok().filter(|value: &f64| value.is_finite())
}

/// Without the space around it, and without single underscores between digits.
fn plain_digits(text: &str) -> Option<String> {
    let text = text.trim_matches(is_space);
    // No number that is in range is longer.
    if text.len() > 4096 {
        return None;
    }
    let bytes = text.as_bytes();
    let digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
    let between = |at: usize| digit(at.checked_sub(1)) && digit(Some(at + 1));
    let sound = bytes.iter().enumerate().all(|(at, byte)| *byte != b'_' || between(at));
    sound.then(|| text.replace('_', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_letters() {
        assert_eq!(titled_words("hello wORLD (it's) a-b"), "Hello World (It's) A-B");
        assert_eq!(titled_letters("hello wORLD (it's) 3rd"), "Hello World (It'S) 3Rd");
        assert_eq!(capitalized("élAN ΣΑΣ"), "Élan σας");
        assert_eq!(capitalized(""), "");
    }

    #[test]
    fn numbers() {
        assert_eq!(int(" +1_000\n"), Some(1000));
        assert_eq!(int("1__0"), None);
        assert_eq!(int("9223372036854775808"), None);
        assert_eq!(float("1e3"), Some(1000.0));
        assert_eq!((float("inf"), float("nan"), float("1e999"), float("")), (None, None, None, None));
    }

    /// J-5.10: whoever moves to another version of Unicode changes what prompts are, and sees it here.
    #[test]
    fn the_case_of_every_character_is_that_of_the_rules() {
        assert_eq!(char::UNICODE_VERSION, (17, 0, 0));
    }
}

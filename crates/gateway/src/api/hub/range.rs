//! Range: which bytes of a file a request wants.
//!
//! In:     the `range` header, the file's size. Out: the bytes; or that there are none such.
//! Touches: nothing.
//! Holds:  what is returned is not empty and lies within the file.
//! Absent: several ranges in one answer. Who wants them asks for each.
//!
//! Source: RFC 9110, 14.1.2 and 14.2.

use std::ops::Range;

/// None if all of the file is wanted. Err says what is wrong with what is.
///
/// A unit that is not bytes is ignored, as the RFC has it. Panics if the file is empty.
pub(super) fn parse(header: &str, file_bytes: u64) -> Result<Option<Range<u64>>, &'static str> {
    assert!(file_bytes > 0, "a file has bytes");
    let Some((unit, set)) = header.split_once('=') else { return Err("is no range") };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Ok(None);
    }
    if set.contains(',') {
        return Err("asks for several ranges; ask for each by itself");
    }
    let Some((first, last)) = set.trim().split_once('-') else { return Err("is no range") };
    let range = match (number(first)?, number(last)?) {
        (None, None) => return Err("is no range"),
        (None, Some(last)) => file_bytes.saturating_sub(last)..file_bytes,
        (Some(first), None) => first..file_bytes,
        (Some(first), Some(last)) if first > last => return Err("ends before it begins"),
        (Some(first), Some(last)) => first..file_bytes.min(last.saturating_add(1)),
    };
    if range.is_empty() { Err("lies outside the file") } else { Ok(Some(range)) }
}

/// A number that is too large for any file is one beyond all of them.
fn number(digits: &str) -> Result<Option<u64>, &'static str> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("is no range");
    }
    Ok((!digits.is_empty()).then(|| digits.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_has_them() {
        for (header, expected) in [
            ("bytes=0-0", Ok(Some(0..1))),
            ("bytes=0-", Ok(Some(0..100))),
            ("bytes=99-", Ok(Some(99..100))),
            ("bytes=10-19", Ok(Some(10..20))),
            ("Bytes = 10-19", Ok(Some(10..20))),
            ("bytes=90-1000", Ok(Some(90..100))),
            ("bytes=90-99999999999999999999999", Ok(Some(90..100))),
            ("bytes=-1", Ok(Some(99..100))),
            ("bytes=-1000", Ok(Some(0..100))),
            ("items=0-1", Ok(None)),
            ("bytes=100-", Err("lies outside the file")),
            ("bytes=18446744073709551615-", Err("lies outside the file")),
            ("bytes=99999999999999999999999-", Err("lies outside the file")),
            ("bytes=-0", Err("lies outside the file")),
            ("bytes=20-10", Err("ends before it begins")),
            ("bytes=0-1,5-6", Err("asks for several ranges; ask for each by itself")),
            ("bytes=-", Err("is no range")),
            ("bytes=", Err("is no range")),
            ("bytes=a-b", Err("is no range")),
            ("bytes=+1-2", Err("is no range")),
            ("bytes=1--2", Err("is no range")),
            ("bytes", Err("is no range")),
            ("", Err("is no range")),
        ] {
            assert_eq!(parse(header, 100), expected, "{header}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_lies_within_the_file(
            header in "(bytes=)?[0-9]{0,21}-?[0-9]{0,21}|\\PC{0,12}",
            file_bytes in 1u64..,
        ) {
            if let Ok(Some(range)) = parse(&header, file_bytes) {
                prop_assert!(range.start < range.end && range.end <= file_bytes);
            }
        }
    }
}

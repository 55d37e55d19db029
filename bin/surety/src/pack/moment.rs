//! Moments, as people and scripts write them.
//!
//! In:     `2026-11-01`, `2026-11-01T10:00:00Z`, `now`, or a span before now (`24h`, `7d`). Out: Unix milliseconds; RFC 3339 in UTC.
//! Touches: nothing.

use serde::{Serialize, Serializer};

use crate::span::Span;

/// Unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// What `text` means at `now`.
    pub fn read(text: &str, now: Moment) -> Result<Moment, String> {
        if text == "now" {
            return Ok(now);
        }
        if let Ok(Span(span)) = text.parse() {
            return Ok(Moment(now.0.saturating_sub(span.as_millis() as u64)));
        }
        parse(text).ok_or_else(|| {
            format!("`{text}` is no moment; write it like 2026-11-01, 2026-11-01T10:00:00Z, 24h (ago) or now")
        })
    }
}

/// A date, or a date and a time in UTC.
fn parse(text: &str) -> Option<Moment> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, time.strip_suffix('Z')?),
        None => (text, "00:00:00"),
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days_of = |month: u64| match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let valid = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_of(month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !valid {
        return None;
    }
    let leaps_before = |year: u64| (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400;
    let days = (year - 1970) * 365 + leaps_before(year) - leaps_before(1970)
        + (1..month).map(days_of).sum::<u64>()
        + (day - 1);
    Some(Moment((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000))
}

/// Three numbers of so many digits.
fn numbers(text: &str, between: char, digits: [usize; 3]) -> Option<[u64; 3]> {
    let mut parts = text.split(between);
    let mut found = [0; 3];
    for (number, digits) in found.iter_mut().zip(digits) {
        let part = parts.next()?;
        let right = part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit());
        *number = right.then(|| part.parse().ok()).flatten()?;
    }
    parts.next().is_none().then_some(found)
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Down to the second it is in.
        f.write_str(&surety_gateway::utc(self.0 / 1000 * 1000))
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn moments_are_read_or_refused() {
        let now = Moment(1_000_000_000);
        for (text, ms) in [
            ("1970-01-01", 0),
            ("2000-02-29T23:59:59Z", 951_868_799_000),
            ("2026-11-22T11:00:00Z", 1_795_345_200_000),
            ("now", now.0),
            ("10s", now.0 - 10_000),
            ("366d", 0),
        ] {
            assert_eq!(Moment::read(text, now), Ok(Moment(ms)), "{text}");
        }
        for wrong in [
            "",
            "yesterday",
            "2026-2-1",
            "2026-02-30",
            "2100-02-29",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00",
        ] {
            assert!(Moment::read(wrong, now).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(seconds in 0_u64..253_402_300_800) {
            let moment = Moment(seconds * 1000);
            prop_assert_eq!(Moment::read(&moment.to_string(), Moment(0)), Ok(moment));
        }

        #[test]
        fn arbitrary_texts_never_panic(text in ".{0,40}") {
            let _ = Moment::read(&text, Moment(0));
        }
    }
}

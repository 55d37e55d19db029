//! Spans of time as people write them: `90s`, `10m`, `2h`, `1d`.

use std::{str::FromStr, time::Duration};

/// The longest: a year.
const SECONDS_MAX: u64 = 366 * 86_400;

/// A span of time, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no span of time; write it like 90s, 10m, 2h or 1d");
        let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
        let unit = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(wrong()),
        };
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
        match seconds {
            Some(seconds @ ..=SECONDS_MAX) => Ok(Self(Duration::from_secs(seconds))),
            _ => Err(format!("`{text}` is longer than a year")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_or_refused() {
        for (text, seconds) in [("0s", 0), ("90s", 90), ("10m", 600), ("2h", 7_200), ("366d", SECONDS_MAX)] {
            assert_eq!(text.parse(), Ok(Span(Duration::from_secs(seconds))), "{text}");
        }
        for wrong in ["", "s", "10", "1w", "-1s", "1.5h", "367d", "99999999999999999999d", "1µ", "µ"] {
            assert!(wrong.parse::<Span>().is_err(), "{wrong}");
        }
    }
}

//! Time: moments as texts.
//!
//! In:     milliseconds or nanoseconds since 1970. Out: RFC 3339, in UTC.
//! Touches: nothing.

use surety_types::CivilDate;

const NANOSECONDS: u128 = 1_000_000_000;

/// A moment by its milliseconds, which are left out.
pub(crate) fn rfc3339(unix_ms: u64) -> String {
    format!("{}Z", second(unix_ms))
}

/// A moment by its nanoseconds.
pub(crate) fn rfc3339_nanoseconds(unix_ns: u128) -> String {
    let ms = u64::try_from(unix_ns / 1_000_000).unwrap_or(u64::MAX);
    format!("{}.{:09}Z", second(ms), unix_ns % NANOSECONDS)
}

fn second(unix_ms: u64) -> String {
    let CivilDate { year, month, day } = CivilDate::from_unix_ms(unix_ms);
    let second = unix_ms / 1000 % 86_400;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_the_rule_has_it() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_868_799_999), "2000-02-29T23:59:59Z");
        assert_eq!(rfc3339_nanoseconds(951_868_799_000_000_012), "2000-02-29T23:59:59.000000012Z");
    }
}

//! Amounts of money as people write and read them: credits, with a decimal point.
//!
//! In:     text such as `0.25`; whole numbers of a smaller unit.
//! Out:    the other. Exact: digits that the unit cannot hold are refused, none is rounded away.
//! Touches: nothing.

use std::str::FromStr;

use alloy_primitives::U256;
use surety_types::{Amount, Price};

const WEI_DIGITS: usize = 18;
const MICRO_DIGITS: usize = 6;

/// Credits, in wei.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credits(pub U256);

/// What a million tokens cost, in credits: of the prompt, of a cached prompt, of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenPrice(pub Price);

impl FromStr for Credits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        decimal(text, WEI_DIGITS).map(|wei| Self(U256::from(wei)))
    }
}

impl FromStr for TokenPrice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split('/').map(|part| decimal(part, MICRO_DIGITS).map(Amount));
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        let [prompt, cached, output] = parts[..] else {
            return Err("three numbers are needed: PROMPT/CACHED/OUTPUT".into());
        };
        Ok(Self(Price { prompt, cached, output }))
    }
}

/// A decimal number as a whole number of its `digits`-th decimal place.
fn decimal(text: &str, digits: usize) -> Result<u128, String> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return Err(format!("`{text}` is no amount of credits"));
    }
    if fraction.len() > digits {
        return Err(format!("`{text}` has more than {digits} decimals"));
    }
    let padded = format!("{whole}{fraction:0<digits$}");
    padded.parse().map_err(|_| format!("`{text}` is too much"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_exactly_or_refused() {
        let wei = |text: &str| text.parse::<Credits>().map(|credits| credits.0);
        assert_eq!(wei("1"), Ok(U256::from(10u64.pow(18))));
        assert_eq!(wei("0.000000000000000001"), Ok(U256::from(1)));
        assert_eq!(wei("12.5"), Ok(U256::from(12_500_000_000_000_000_000u64)));
        for wrong in ["", ".5", "-1", "1e3", "1.2.3", "0.0000000000000000001", "1_000", &"9".repeat(40)] {
            assert!(wei(wrong).is_err(), "{wrong}");
        }
        let price: TokenPrice = "0.1/0.01/0.4".parse().unwrap();
        let expected = Price { prompt: Amount(100_000), cached: Amount(10_000), output: Amount(400_000) };
        assert_eq!(price.0, expected);
        assert!("0.1/0.4".parse::<TokenPrice>().is_err());
        assert!("0.0000001/0/0".parse::<TokenPrice>().is_err());
    }
}

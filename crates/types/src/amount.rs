//! Money: whole micro-credits, checked arithmetic, no floats.

use std::{fmt, str::FromStr};

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use serde::{Serialize, Serializer};

use crate::codec::{Invalid, integer};

/// An amount of money in micro-credits. Shown as a decimal integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Amount(pub u128);

impl Amount {
    /// Nothing.
    pub const ZERO: Amount = Amount(0);

    /// The sum, unless it overflows.
    pub fn checked_add(self, other: Amount) -> Option<Amount> {
        self.0.checked_add(other.0).map(Amount)
    }

    /// The difference, unless it would be negative.
    pub fn checked_sub(self, other: Amount) -> Option<Amount> {
        self.0.checked_sub(other.0).map(Amount)
    }

    /// `count` times this, unless it overflows.
    pub fn checked_mul(self, count: u64) -> Option<Amount> {
        self.0.checked_mul(u128::from(count)).map(Amount)
    }
}

/// What a million tokens cost, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Price {
    /// A million prompt tokens that had to be computed.
    #[n(0)]
    pub prompt: Amount,
    /// A million prompt tokens found in a cache.
    #[n(1)]
    pub cached: Amount,
    /// A million output tokens.
    #[n(2)]
    pub output: Amount,
}

impl Price {
    /// Free of charge.
    pub const ZERO: Price = Price { prompt: Amount(0), cached: Amount(0), output: Amount(0) };

    /// Whether no kind of token costs more than under `ceiling`.
    pub fn within(&self, ceiling: &Price) -> bool {
        self.prompt <= ceiling.prompt && self.cached <= ceiling.cached && self.output <= ceiling.output
    }

    /// So many hundredths of it, each kind rounded up to a whole micro-credit. None if that cannot be reckoned with.
    pub fn percent(&self, percent: u8) -> Option<Price> {
        let part = |amount: Amount| Some(Amount(amount.checked_mul(percent.into())?.0.div_ceil(100)));
        Some(Price { prompt: part(self.prompt)?, cached: part(self.cached)?, output: part(self.output)? })
    }

    /// What an answer costs: the exact sum over token kinds, rounded up once to a whole micro-credit.
    ///
    /// `prompt_tokens` counts all of the prompt, `cached_tokens` the part of it that was cached.
    pub fn charge(
        &self,
        prompt_tokens: u32,
        cached_tokens: u32,
        output_tokens: u32,
    ) -> Result<Amount, Invalid> {
        let computed = prompt_tokens
            .checked_sub(cached_tokens)
            .ok_or_else(|| Invalid::new("cached_tokens", "exceeds `prompt_tokens`"))?;
        let sum = [(self.prompt, computed), (self.cached, cached_tokens), (self.output, output_tokens)]
            .into_iter()
            .try_fold(Amount::ZERO, |sum, (price, tokens)| {
                price.checked_mul(tokens.into()).and_then(|cost| sum.checked_add(cost))
            })
            .ok_or_else(|| Invalid::new("price", "overflows when charged"))?;
        Ok(Amount(sum.0.div_ceil(1_000_000)))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Amount {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Amount)
    }
}

/// A decimal string: a JSON number would lose digits in most readers.
impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<C> Encode<C> for Amount {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, c: &mut C) -> Result<(), encode::Error<W::Error>> {
        integer::encode(&self.0, e, c)
    }
}

impl<'b, C> Decode<'b, C> for Amount {
    fn decode(d: &mut Decoder<'b>, c: &mut C) -> Result<Self, decode::Error> {
        integer::decode(d, c).map(Amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_is_rounded_up_once() {
        let price = Price { prompt: Amount(400_000), cached: Amount(100_000), output: Amount(1_000_000) };
        let check = |prompt, cached, output, expected| {
            assert_eq!(price.charge(prompt, cached, output), Ok(Amount(expected)));
        };
        check(0, 0, 0, 0);
        check(1, 0, 0, 1);
        check(2, 0, 0, 1);
        check(3, 1, 1, 2); // 0.8 + 0.1 + 1.0
        check(10, 10, 0, 1);
        assert_eq!(price.charge(1, 2, 0).unwrap_err().field, "cached_tokens");
        let dear = Price { prompt: Amount(u128::MAX), ..Price::ZERO };
        assert_eq!(dear.charge(2, 0, 0).unwrap_err().field, "price");
    }

    #[test]
    fn a_part_of_a_price_is_rounded_up() {
        let price = Price { prompt: Amount(400_001), cached: Amount(1), output: Amount(0) };
        let half = Price { prompt: Amount(200_001), cached: Amount(1), output: Amount(0) };
        assert_eq!((price.percent(50), price.percent(100)), (Some(half), Some(price)));
        assert_eq!(Price { output: Amount(u128::MAX), ..price }.percent(2), None);
    }

    #[test]
    fn large_amounts_are_bignums() {
        for value in [0, 23, u128::from(u64::MAX), u128::from(u64::MAX) + 1, u128::MAX] {
            let bytes = minicbor::to_vec(Amount(value)).unwrap();
            assert_eq!(minicbor::decode::<Amount>(&bytes).unwrap(), Amount(value));
        }
        assert_eq!(minicbor::to_vec(Amount(1 << 64)).unwrap(), [0xc2, 0x49, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        // Tag 3 (negative), and 17 bytes.
        assert!(minicbor::decode::<Amount>(&[0xc3, 0x41, 1]).is_err());
        let mut long = vec![0xc2, 0x51];
        long.extend([1; 17]);
        assert!(minicbor::decode::<Amount>(&long).is_err());
    }
}

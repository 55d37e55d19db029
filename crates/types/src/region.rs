//! Region: where a worker says that it is. Its word, which nobody checks; but under its signature.

use std::{fmt, str::FromStr};

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use serde::{Serialize, Serializer};

use crate::codec::Invalid;

/// The bytes of a region, at most.
pub const MAX_REGION_BYTES: usize = 32;

/// A claimed region: words of lower-case letters and digits, from the widest to the narrowest, with hyphens between them
/// (`eu`, `eu-de`, `us-east-1`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region(String);

impl Region {
    /// The region, if the text is one.
    pub fn new(text: impl Into<String>) -> Result<Self, Invalid> {
        let text = text.into();
        let word = |word: &str| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        if text.len() > MAX_REGION_BYTES || !text.split('-').all(word) {
            return Err(Invalid::new(
                "region",
                format!(
                    "must be at most {MAX_REGION_BYTES} bytes: words of lower-case letters and digits with hyphens between \
                     them, as in eu-de"
                ),
            ));
        }
        Ok(Region(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the other, or a part of it by its name: `eu-de` is within `eu`, `europe` is not.
    pub fn is_within(&self, wider: &Region) -> bool {
        self.0.strip_prefix(&wider.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }
}

impl FromStr for Region {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Region::new(text)
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Region {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<C> Encode<C> for Region {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.str(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Region {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let position = d.position();
        let text = d.str()?;
        // A text that is too long is not copied.
        let text = if text.len() > MAX_REGION_BYTES { "" } else { text };
        Region::new(text).map_err(|_| decode::Error::message("a text that is no region").at(position))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_region_is_words_with_hyphens_between_them() {
        let longest = "a".repeat(MAX_REGION_BYTES);
        for text in ["eu", "eu-de", "us-east-1", "7", longest.as_str()] {
            assert_eq!(Region::new(text).expect(text).as_str(), text);
        }
        let longer = "a".repeat(MAX_REGION_BYTES + 1);
        for text in ["", "-", "eu-", "-eu", "eu--de", "EU", "eu de", "é", "eu_de", longer.as_str()] {
            assert_eq!(Region::new(text).expect_err(text).field, "region");
        }
    }

    #[test]
    fn a_part_is_within_the_whole_and_not_the_other_way_round() {
        let within = |narrow: &str, wide: &str| {
            Region::new(narrow).expect(narrow).is_within(&Region::new(wide).expect(wide))
        };
        assert!(within("eu", "eu") && within("eu-de", "eu") && within("eu-de-1", "eu-de"));
        assert!(!within("eu", "eu-de") && !within("europe", "eu") && !within("us-eu", "eu"));
    }

    proptest! {
        #[test]
        fn any_text_is_a_region_that_prints_the_same_or_none(text in "[a-zA-Z0-9 é-]{0,40}") {
            if let Ok(region) = Region::new(text.as_str()) {
                prop_assert_eq!(region.to_string(), text);
                prop_assert_eq!(minicbor::decode::<Region>(&minicbor::to_vec(&region).unwrap()).unwrap(), region);
            }
        }

        #[test]
        fn any_bytes_are_a_region_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..50)) {
            if let Ok(region) = minicbor::decode::<Region>(&bytes) {
                prop_assert!(region.as_str().len() <= MAX_REGION_BYTES);
            }
        }
    }
}

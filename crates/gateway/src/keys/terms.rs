//! Terms: what a key may do, as whoever makes it says; and how keys look from outside.
//!
//! In:     words of a command, rows of the store. Out: the same, checked.
//! Touches: the system's random source, for new secrets.
//! Holds:  a secret is 256 random bits, and only its digest is kept; every list and text is bounded.
//! Absent: what a key has spent (`account`), where it is kept (`store`).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use surety_types::{Amount, Digest, Price};

/// What every secret begins with.
pub(crate) const SECRET_PREFIX: &str = "sk-surety-";
const SECRET_BYTES: usize = 32;
const DOMAIN: &str = "surety 2026 api key";
const NAME_BYTES_MAX: usize = 64;
const MODELS_MAX: usize = 64;
const MODEL_BYTES_MAX: usize = 256;
/// Of a sum in micro-credits: far above all that there is, far below where sums overflow.
const MICRO_MAX: u128 = 1 << 96;

/// Micro-credits; in JSON a decimal text, since a number would lose digits in most readers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Micro(pub u128);

impl fmt::Display for Micro {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl FromStr for Micro {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Micro)
    }
}

impl Serialize for Micro {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Micro {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| de::Error::custom("an amount is a decimal text"))
    }
}

/// Micro-credits per million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPrice {
    /// Of the prompt.
    pub prompt: Micro,
    /// Of the part of the prompt that was cached.
    pub cached: Micro,
    /// Of the output.
    pub output: Micro,
}

impl From<Price> for KeyPrice {
    fn from(price: Price) -> Self {
        KeyPrice {
            prompt: Micro(price.prompt.0),
            cached: Micro(price.cached.0),
            output: Micro(price.output.0),
        }
    }
}

impl KeyPrice {
    /// As workers state it.
    pub fn price(&self) -> Price {
        Price { prompt: Amount(self.prompt.0), cached: Amount(self.cached.0), output: Amount(self.output.0) }
    }
}

/// What a key may do. What is absent is not bounded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyTerms {
    /// What it is called; no two have one name.
    pub name: String,
    /// Micro-credits in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Micro>,
    /// Requests per minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpm: Option<u32>,
    /// Tokens per minute, of prompts and answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpm: Option<u32>,
    /// Only these, by served name or by id; any if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// Unix milliseconds from which on it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// Dearer workers are not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_price: Option<KeyPrice>,
}

/// What is wrong with terms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TermsError {
    /// A name that could not be typed.
    #[error("a key's name has 1 to {NAME_BYTES_MAX} letters, digits, dots, dashes and underscores")]
    Name,
    /// Nothing could be asked.
    #[error("{0} of a key must be at least 1, or be left out")]
    Zero(&'static str),
    /// More than there can be.
    #[error("{0} of a key is more than there can ever be")]
    TooMuch(&'static str),
    /// Too many models, or one without a name.
    #[error("a key names at most {MODELS_MAX} models, each by 1 to {MODEL_BYTES_MAX} bytes")]
    Models,
}

impl KeyTerms {
    /// A key that may do anything.
    pub fn named(name: impl Into<String>) -> KeyTerms {
        KeyTerms {
            name: name.into(),
            budget: None,
            rpm: None,
            tpm: None,
            models: Vec::new(),
            expires_ms: None,
            max_price: None,
        }
    }

    /// Finds the first thing that is wrong.
    pub fn check(&self) -> Result<(), TermsError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !(1..=NAME_BYTES_MAX).contains(&self.name.len()) || !self.name.bytes().all(plain) {
            return Err(TermsError::Name);
        }
        if self.rpm == Some(0) {
            return Err(TermsError::Zero("the requests per minute"));
        }
        if self.tpm == Some(0) {
            return Err(TermsError::Zero("the tokens per minute"));
        }
        if self.budget.is_some_and(|budget| budget.0 > MICRO_MAX) {
            return Err(TermsError::TooMuch("the budget"));
        }
        if let Some(price) = &self.max_price
            && [price.prompt, price.cached, price.output].iter().any(|price| price.0 > MICRO_MAX)
        {
            return Err(TermsError::TooMuch("the price"));
        }
        let sound = |model: &String| (1..=MODEL_BYTES_MAX).contains(&model.len());
        if self.models.len() > MODELS_MAX || !self.models.iter().all(sound) {
            return Err(TermsError::Models);
        }
        Ok(())
    }

    /// Whether it may ask for a model that goes by any of these names.
    pub(crate) fn admits_model(&self, names: &[&str]) -> bool {
        self.models.is_empty() || self.models.iter().any(|model| names.contains(&model.as_str()))
    }
}

/// A key as whoever runs the gateway sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyReport {
    /// What it may do.
    #[serde(flatten)]
    pub terms: KeyTerms,
    /// `active`, `expired` or `revoked`.
    pub state: String,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Unix milliseconds, if it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_ms: Option<u64>,
    /// Micro-credits paid in, beside the budget.
    #[serde(default)]
    pub bought: Micro,
    /// Micro-credits charged.
    pub used: Micro,
    /// Micro-credits set aside for answers under way.
    pub reserved: Micro,
    /// Micro-credits of the budget and what was bought that are neither used nor reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Micro>,
    /// Answers it was charged for, or given for nothing.
    pub requests: u64,
}

/// A new secret, and what is kept of it.
pub(super) fn new_secret() -> Result<(String, Digest), getrandom::Error> {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes)?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let secret = format!("{SECRET_PREFIX}{digits}");
    let digest = digest(&secret);
    Ok((secret, digest))
}

/// What is kept of a secret.
pub(super) fn digest(secret: &str) -> Digest {
    Digest::of(DOMAIN, secret.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_256_bits_and_never_alike() {
        let (first, second) = (new_secret().expect("random"), new_secret().expect("random"));
        assert_ne!(first.0, second.0);
        assert_eq!(first.0.len(), SECRET_PREFIX.len() + 64);
        assert_eq!(digest(&first.0), first.1);
        assert!(!first.1.to_string().contains(&first.0[SECRET_PREFIX.len()..]));
    }

    #[test]
    fn terms_are_bounded() {
        let sound = KeyTerms::named("a.b-c_1");
        assert_eq!(sound.check(), Ok(()));
        for name in ["", "a b", "é", "a/b", &"a".repeat(65)] {
            assert_eq!(KeyTerms::named(name).check(), Err(TermsError::Name), "{name}");
        }
        assert!(KeyTerms { rpm: Some(0), ..sound.clone() }.check().is_err());
        assert!(KeyTerms { tpm: Some(0), ..sound.clone() }.check().is_err());
        assert!(KeyTerms { budget: Some(Micro(u128::MAX)), ..sound.clone() }.check().is_err());
        assert!(KeyTerms { models: vec![String::new()], ..sound.clone() }.check().is_err());
        assert!(KeyTerms { models: vec!["a".into(); 65], ..sound }.check().is_err());
    }

    #[test]
    fn terms_survive_json() {
        let terms = KeyTerms {
            budget: Some(Micro(u128::from(u64::MAX) + 5)),
            max_price: Some(KeyPrice { prompt: Micro(1), cached: Micro(2), output: Micro(3) }),
            ..KeyTerms::named("mine")
        };
        let text = serde_json::to_string(&terms).expect("JSON");
        assert_eq!(serde_json::from_str::<KeyTerms>(&text).expect("terms"), terms);
        assert!(serde_json::from_str::<KeyTerms>(r#"{"name":"a","bugdet":"1"}"#).is_err());
    }
}

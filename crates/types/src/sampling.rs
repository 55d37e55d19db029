//! Sampling parameters, exactly as they are applied.

use minicbor::{Decode, Encode};
use serde::{Serialize, Serializer};

use crate::codec::{Invalid, at_most};
use crate::digest::Digest;

/// Logit biases in one order, at most.
pub const MAX_LOGIT_BIASES: usize = 1024;

/// How tokens are drawn. Every field is what the worker applies, defaults already filled in.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Sampling {
    /// 0 … 2; 0 takes the greatest logit.
    #[cbor(n(0), with = "crate::codec::bits")]
    #[serde(serialize_with = "decimal")]
    pub temperature: f32,
    /// The k greatest only; 0 is off.
    #[n(1)]
    pub top_k: u32,
    /// 0 … 1; 1 is off.
    #[cbor(n(2), with = "crate::codec::bits")]
    #[serde(serialize_with = "decimal")]
    pub top_p: f32,
    /// 0 … 1; 0 is off.
    #[cbor(n(3), with = "crate::codec::bits")]
    #[serde(serialize_with = "decimal")]
    pub min_p: f32,
    /// 0.01 … 10; 1 is off.
    #[cbor(n(4), with = "crate::codec::bits")]
    #[serde(serialize_with = "decimal")]
    pub repetition_penalty: f32,
    /// −2 … 2; 0 is off.
    #[cbor(n(5), with = "crate::codec::bits")]
    #[serde(serialize_with = "decimal")]
    pub presence_penalty: f32,
    /// −2 … 2; 0 is off.
    #[cbor(n(6), with = "crate::codec::bits")]
    #[serde(serialize_with = "decimal")]
    pub frequency_penalty: f32,
    /// (token id, −100 … 100), ids strictly increasing.
    #[cbor(n(7), with = "crate::codec::biases")]
    #[serde(serialize_with = "decimal_pairs")]
    pub logit_bias: Vec<(u32, f32)>,
    /// Of the grammar that the answer keeps to (G-1); the request has the grammar.
    #[n(8)]
    pub grammar: Option<Digest>,
}

/// the 64 random bits under a seed for the token at `position`; the prompt's first token has position 0.
pub fn random(seed: &[u8; 32], position: u64) -> u64 {
    let hash = blake3::keyed_hash(seed, &position.to_le_bytes());
    u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

/// Everything off: temperature 1, the model's own distribution.
impl Default for Sampling {
    fn default() -> Self {
        Sampling {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            grammar: None,
        }
    }
}

impl Sampling {
    /// Whether every parameter is finite and in its range; the error names the first that is not.
    pub fn check(&self) -> Result<(), Invalid> {
        // A NaN is in no range.
        let range = |field, value: f32, low: f32, high: f32| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(Invalid::new(field, format!("is {value}; it must be from {low} to {high}")))
            }
        };
        range("temperature", self.temperature, 0.0, 2.0)?;
        range("top_p", self.top_p, 0.0, 1.0)?;
        range("min_p", self.min_p, 0.0, 1.0)?;
        range("repetition_penalty", self.repetition_penalty, 0.01, 10.0)?;
        range("presence_penalty", self.presence_penalty, -2.0, 2.0)?;
        range("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        at_most("logit_bias", "entries", self.logit_bias.len(), MAX_LOGIT_BIASES)?;
        for (_, bias) in &self.logit_bias {
            range("logit_bias", *bias, -100.0, 100.0)?;
        }
        if !self.logit_bias.windows(2).all(|pair| pair[0].0 < pair[1].0) {
            return Err(Invalid::new("logit_bias", "must name each token once, in increasing order of id"));
        }
        Ok(())
    }
}

// In views a float is its shortest decimal as a string, so that one value has one spelling.
fn decimal<S: Serializer>(value: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn decimal_pairs<S: Serializer>(pairs: &[(u32, f32)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(pairs.iter().map(|(token, bias)| (token, bias.to_string())))
}

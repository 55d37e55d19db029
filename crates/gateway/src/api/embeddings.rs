//! Embeddings: vectors, in OpenAI's words.
//!
//! In:     the bytes of vectors, as receipts commit to them. Out: one document; which models give which vectors.
//! Touches: nothing.
//! Holds:  a number is written so that reading it gives the same 32 bits back.
//! Absent: computing them, and checking them against receipts (`client`).

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::Serialize;
use surety_types::{Pooling, TokenLogprob, Vectors as Makes};
use utoipa::ToSchema;

use super::{
    ask::{Ask, Form},
    reply::event,
    shapes::{SuretyNote, Usage},
    wording::{Heading, Wording},
};
use crate::{
    error::{ApiError, Code},
    route::Resolved,
};

/// How a model makes vectors.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EmbeddingNote {
    /// Numbers of a vector.
    pub dimensions: u32,
    /// `last`, `mean` or `first`: the positions of the text whose states are pooled.
    pub pooling: &'static str,
    /// Whether `dimensions` may ask for fewer.
    pub may_be_cut: bool,
}

/// Vectors, in the order of the inputs.
#[derive(Debug, Serialize, ToSchema)]
pub struct EmbeddingList<'a> {
    /// `list`.
    pub object: &'static str,
    /// One for each input.
    pub data: Vec<EmbeddingItem>,
    /// The name of the model.
    pub model: &'a str,
    /// Tokens of the inputs.
    pub usage: EmbeddingUsage,
    /// Who computed them.
    pub surety: SuretyNote,
}

/// One vector.
#[derive(Debug, Serialize, ToSchema)]
pub struct EmbeddingItem {
    /// `embedding`.
    pub object: &'static str,
    /// From 0.
    pub index: usize,
    /// Of length one.
    pub embedding: EmbeddingNumbers,
}

/// The numbers of a vector.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum EmbeddingNumbers {
    /// As JSON numbers.
    Float(Vec<f32>),
    /// As binary32, little-endian, in base64.
    Base64(String),
}

/// How many tokens the inputs had.
#[derive(Debug, Serialize, ToSchema)]
pub struct EmbeddingUsage {
    /// Tokens of the inputs.
    pub prompt_tokens: u64,
    /// The same.
    pub total_tokens: u64,
}

impl EmbeddingNote {
    pub(crate) fn of(makes: Makes, dimensions: u32) -> Self {
        let pooling = match makes.pooling {
            Pooling::Last => "last",
            Pooling::Mean => "mean",
            Pooling::First => "first",
        };
        Self { dimensions, pooling, may_be_cut: makes.may_be_cut }
    }
}

/// What can be refused of a wish for vectors once the model is known.
pub(super) fn fits(ask: &Ask, model: &Resolved) -> Result<(), ApiError> {
    let Form::Embedding { wanted, .. } = ask.form else { return Ok(()) };
    let name = &model.name;
    let Some(makes) = model.vectors else {
        let message = format!(
            "\"{name}\" gives no vectors. GET /v1/models lists those that do: their `surety.embeddings` is not null."
        );
        return Err(ApiError::invalid("model", message));
    };
    let width = model.width;
    match wanted.dimensions {
        Some(asked) if asked > width => {
            let message = format!(
                "`dimensions` is {asked}; vectors of \"{name}\" have {width}. Ask for at most that, or leave it out."
            );
            Err(ApiError::invalid("dimensions", message))
        }
        Some(asked) if asked < width && !makes.may_be_cut => {
            let message = format!(
                "`dimensions` is {asked}, and \"{name}\" was not made for vectors: the first {asked} of its {width} numbers \
                 mean nothing alone. Leave it out."
            );
            Err(ApiError::new(Code::UnsupportedParameter, message).with_param("dimensions"))
        }
        _ => Ok(()),
    }
}

/// Vectors on their way into a document.
#[derive(Debug)]
pub(super) struct Vectors {
    heading: Heading,
    base64: bool,
    vectors: Vec<Vec<u8>>,
}

impl Vectors {
    pub(super) fn new(heading: Heading, answers: usize, base64: bool) -> Self {
        Self { heading, base64, vectors: vec![Vec::new(); answers] }
    }

    fn numbers(&self, bytes: &[u8]) -> EmbeddingNumbers {
        if self.base64 {
            return EmbeddingNumbers::Base64(BASE64_STANDARD.encode(bytes));
        }
        let (words, _) = bytes.as_chunks::<4>();
        EmbeddingNumbers::Float(words.iter().map(|word| f32::from_le_bytes(*word)).collect())
    }
}

impl Wording for Vectors {
    fn prompt(&mut self, _: usize, _: &[TokenLogprob], _: usize) {}

    fn output(&mut self, _: usize, _: &str, _: &[TokenLogprob]) {}

    fn vector(&mut self, index: usize, bytes: &[u8]) {
        self.vectors[index] = bytes.to_vec();
    }

    fn news(&self) -> Option<usize> {
        None
    }

    fn pending_bytes(&self) -> usize {
        0
    }

    fn events(&mut self, _: usize) -> Option<Bytes> {
        None
    }

    fn finish(&mut self, _: usize, _: &'static str, _: Option<(Usage, SuretyNote)>) -> Bytes {
        // There is no parameter by which a stream could be asked for.
        Bytes::new()
    }

    fn failed(&self, failure: &ApiError) -> Bytes {
        let mut events = Vec::new();
        event(&mut events, &failure.body(&self.heading.request));
        Bytes::from(events)
    }

    fn document(self: Box<Self>, _: &[&'static str], usage: Usage, surety: SuretyNote) -> Bytes {
        let items = self.vectors.iter().enumerate().map(|(index, bytes)| EmbeddingItem {
            object: "embedding",
            index,
            embedding: self.numbers(bytes),
        });
        let list = EmbeddingList {
            object: "list",
            data: items.collect(),
            model: &self.heading.model,
            usage: EmbeddingUsage { prompt_tokens: usage.prompt_tokens, total_tokens: usage.prompt_tokens },
            surety,
        };
        Bytes::from(serde_json::to_vec(&list).expect("a list is JSON"))
    }
}

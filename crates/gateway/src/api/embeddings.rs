//! Embeddings: vectors, in OpenAI's words and in Ollama's.
//!
//! In:     the bytes of vectors, as receipts commit to them. Out: one document; which models give which vectors.
//! Touches: nothing.
//! Holds:  a number is written so that reading it gives the same 32 bits back.
//! Absent: computing them, and checking them against receipts (`client`).

use std::time::{Duration, Instant};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::Serialize;
use surety_types::{Pooling, TokenLogprob, Vectors as Makes};
use utoipa::ToSchema;

use super::{
    ask::{Ask, Form, Manner},
    ollama::shapes::{OllamaEmbed, OllamaEmbedding},
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
    /// As the caller wrote it.
    asked: String,
    manner: Manner,
    accepted: Instant,
    vectors: Vec<Vec<u8>>,
}

impl Vectors {
    /// A worker has accepted just now.
    pub(super) fn new(heading: Heading, ask: &Ask, manner: Manner) -> Self {
        let vectors = vec![Vec::new(); ask.answers()];
        Self { heading, asked: ask.model.clone(), manner, accepted: Instant::now(), vectors }
    }

    fn items(&self) -> Vec<EmbeddingItem> {
        let embedding = |bytes: &Vec<u8>| match self.manner {
            Manner::Base64 => EmbeddingNumbers::Base64(BASE64_STANDARD.encode(bytes)),
            _ => EmbeddingNumbers::Float(numbers(bytes)),
        };
        let vectors = self.vectors.iter().enumerate();
        vectors
            .map(|(index, bytes)| EmbeddingItem { object: "embedding", index, embedding: embedding(bytes) })
            .collect()
    }
}

fn numbers(bytes: &[u8]) -> Vec<f32> {
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().map(|word| f32::from_le_bytes(*word)).collect()
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
        let prompt_tokens = usage.prompt_tokens;
        let json = match self.manner {
            Manner::Float | Manner::Base64 => serde_json::to_vec(&EmbeddingList {
                object: "list",
                data: self.items(),
                model: &self.heading.model,
                usage: EmbeddingUsage { prompt_tokens, total_tokens: prompt_tokens },
                surety,
            }),
            Manner::Ollama { began } => serde_json::to_vec(&OllamaEmbed {
                model: &self.asked,
                embeddings: self.vectors.iter().map(|bytes| numbers(bytes)).collect(),
                total_duration: Some(nanoseconds(began.elapsed())),
                load_duration: Some(nanoseconds(self.accepted.duration_since(began))),
                prompt_eval_count: Some(prompt_tokens),
                surety: Some(surety),
            }),
            Manner::OllamaOne => serde_json::to_vec(&OllamaEmbedding {
                embedding: self.vectors.first().map_or_else(Vec::new, |bytes| numbers(bytes)),
                surety: Some(surety),
            }),
        };
        Bytes::from(json.expect("vectors are JSON"))
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

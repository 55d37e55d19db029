//! The forward pass of `llama`, `qwen2` and `qwen3`, one token of one sequence at a time.
//!
//! In:     the bytes of a GGUF file; token ids.
//! Out:    state vectors, logits, the state digest; or why a sequence or a model ends.
//! Touches: nothing.
//! Holds:  a [`Session`] computes position after position, each from the positions before it.
//! Absent: tokenizer, templates, batches. Sampling is `sample`.

use std::fmt;

use crate::attention::attention_head;
use crate::bits::{f16_to_f32, f32_to_f16};
use crate::gguf::{self, Gguf, GgufError, Tensor, Value};
use crate::ops;
use crate::rotary::{Pairs, Parameters, Rotary, Scaling, rotate};
use crate::weights;
use crate::{NonFinite, assert_float_control, check_finite};

/// A model, its matrices borrowed from the file's bytes.
#[derive(Clone, Debug)]
pub struct Model<'a> {
    /// `llama`, `qwen2` or `qwen3`.
    pub architecture: String,
    /// Positions a sequence may have.
    pub context: usize,
    /// Values of the residual row.
    pub width: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Values of a head.
    pub head_dim: usize,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// The rotary frequencies.
    pub rotary: Rotary,
    pairs: Pairs,
    eps: f32,
    embedding: Tensor<'a>,
    layers: Vec<Layer<'a>>,
    output_norm: Vec<f32>,
    output: Matrix<'a>,
}

/// A weight matrix and its bias, if it has one.
#[derive(Clone, Debug)]
struct Matrix<'a> {
    weight: Tensor<'a>,
    bias: Option<Vec<f32>>,
}

#[derive(Clone, Debug)]
struct Layer<'a> {
    attn_norm: Vec<f32>,
    q: Matrix<'a>,
    k: Matrix<'a>,
    v: Matrix<'a>,
    q_norm: Option<Vec<f32>>,
    k_norm: Option<Vec<f32>>,
    attn_output: Matrix<'a>,
    ffn_norm: Vec<f32>,
    gate: Matrix<'a>,
    up: Matrix<'a>,
    down: Matrix<'a>,
}

/// Why a token cannot be pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushError {
    ///
    NonFinite(NonFinite),
    /// The sequence has as many positions as the model's context.
    ContextFull,
    /// The vocabulary has no such token.
    UnknownToken(u32),
}

impl fmt::Display for PushError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PushError::NonFinite(cause) => cause.fmt(out),
            PushError::ContextFull => write!(out, "the sequence fills the model's context"),
            PushError::UnknownToken(token) => write!(out, "token {token} is not in the vocabulary"),
        }
    }
}

impl std::error::Error for PushError {}

impl From<NonFinite> for PushError {
    fn from(cause: NonFinite) -> PushError {
        PushError::NonFinite(cause)
    }
}

impl<'a> Model<'a> {
    /// Reads a model and checks its shapes.
    pub fn open(file: &'a [u8]) -> Result<Model<'a>, GgufError> {
        let file = gguf::read(file)?;
        let architecture = match file.metadata.get("general.architecture") {
            Some(Value::Text(name)) => String::from_utf8_lossy(name).into_owned(),
            other => return Err(GgufError(format!("general.architecture is {other:?}"))),
        };
        let pairs = match architecture.as_str() {
            "llama" => Pairs::Neighbours,
            "qwen2" | "qwen3" => Pairs::Halves,
            other => return Err(GgufError(format!("architecture {other} is not llama, qwen2 or qwen3"))),
        };
        let metadata = Metadata { file: &file, architecture: &architecture };
        let layer_count = metadata.count("block_count", None)?;
        let context = metadata.count("context_length", None)?;
        let width = metadata.count("embedding_length", None)?;
        let feed_forward = metadata.count("feed_forward_length", None)?;
        let heads = metadata.count("attention.head_count", None)?;
        let kv_heads = metadata.count("attention.head_count_kv", Some(heads))?;
        let head_dim = metadata.count("attention.key_length", Some(width / heads))?;
        metadata.expect("attention.value_length", head_dim)?;
        metadata.expect("rope.dimension_count", head_dim)?;
        let eps = metadata.float("attention.layer_norm_rms_epsilon", None)? as f32;
        if !heads.is_multiple_of(kv_heads) || !head_dim.is_multiple_of(16) || !width.is_multiple_of(32) {
            let reason = format!("{heads} heads of {head_dim}, {kv_heads} kv heads, width {width}");
            return Err(GgufError(reason));
        }

        let tensors = Tensors { file: &file };
        let embedding = tensors.required("token_embd.weight")?;
        let vocabulary = embedding.rows;
        let embedding = shaped("token_embd.weight", embedding, width, vocabulary)?;
        let mut layers = Vec::new();
        for index in 0..layer_count {
            let name = |part: &str| format!("blk.{index}.{part}");
            layers.push(Layer {
                attn_norm: tensors.vector(&name("attn_norm.weight"), width)?,
                q: tensors.matrix(&name("attn_q"), width, heads * head_dim)?,
                k: tensors.matrix(&name("attn_k"), width, kv_heads * head_dim)?,
                v: tensors.matrix(&name("attn_v"), width, kv_heads * head_dim)?,
                q_norm: tensors.optional_vector(&name("attn_q_norm.weight"), head_dim)?,
                k_norm: tensors.optional_vector(&name("attn_k_norm.weight"), head_dim)?,
                attn_output: tensors.matrix(&name("attn_output"), heads * head_dim, width)?,
                ffn_norm: tensors.vector(&name("ffn_norm.weight"), width)?,
                gate: tensors.matrix(&name("ffn_gate"), width, feed_forward)?,
                up: tensors.matrix(&name("ffn_up"), width, feed_forward)?,
                down: tensors.matrix(&name("ffn_down"), feed_forward, width)?,
            });
        }
        let output_norm = tensors.vector("output_norm.weight", width)?;
        let output = if file.tensors.contains_key("output.weight") {
            tensors.matrix("output", width, vocabulary)?
        } else {
            Matrix { weight: embedding.clone(), bias: None }
        };

        let factors = tensors.optional_vector("rope_freqs.weight", head_dim / 2)?;
        let scaling = metadata.scaling(context)?;
        if factors.is_some() && matches!(scaling, Scaling::Yarn { .. }) {
            return Err(GgufError("YaRN together with rope_freqs is not in A-5.2".into()));
        }
        let base = metadata.float("rope.freq_base", Some(10000.0))?;
        if base.is_nan() || base <= 1.0 {
            return Err(GgufError(format!("rope.freq_base is {base}")));
        }
        let rotary = Rotary::new(&Parameters { head_dim, base, scaling, factors });
        Ok(Model {
            architecture,
            context,
            width,
            heads,
            kv_heads,
            head_dim,
            vocabulary,
            rotary,
            pairs,
            eps,
            embedding,
            layers,
            output_norm,
            output,
        })
    }

    /// An empty sequence.
    pub fn session(&self) -> Session<'_> {
        assert_float_control();
        let no_positions = vec![Vec::new(); self.kv_heads];
        let cache = LayerCache { keys: no_positions.clone(), values: no_positions };
        Session { model: self, position: 0, caches: vec![cache; self.layers.len()] }
    }

    /// the logits of a state vector.
    pub fn logits(&self, state: &[f32]) -> Result<Vec<f32>, NonFinite> {
        let logits = self.output.times(state)?;
        check_finite("a logit", &logits)?;
        Ok(logits)
    }

    /// The state vectors of every position of a sequence.
    pub fn run(&self, tokens: &[u32]) -> Result<Vec<Vec<f32>>, PushError> {
        let mut session = self.session();
        tokens.iter().map(|&token| session.push(token)).collect()
    }
}

/// the digest of the state vectors whose logits were sampled, in order.
pub fn state_digest<S: AsRef<[f32]>>(states: &[S]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for value in states.iter().flat_map(|state| state.as_ref()) {
        hasher.update(&value.to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// One sequence on its way through a model.
#[derive(Clone, Debug)]
pub struct Session<'a> {
    model: &'a Model<'a>,
    position: usize,
    caches: Vec<LayerCache>,
}

/// The keys and values of one layer: for each kv head, one binary16 row per position.
#[derive(Clone, Debug)]
struct LayerCache {
    keys: Vec<Vec<Vec<u16>>>,
    values: Vec<Vec<Vec<u16>>>,
}

impl Session<'_> {
    /// Positions pushed so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// takes the token at the next position and returns that position's state vector, which has
    /// checked only once it enters the product of [`Model::logits`]. After an error the sequence is at its end.
    pub fn push(&mut self, token: u32) -> Result<Vec<f32>, PushError> {
        let model = self.model;
        if token as usize >= model.vocabulary {
            return Err(PushError::UnknownToken(token));
        }
        if self.position >= model.context {
            return Err(PushError::ContextFull);
        }
        let (cosines, sines) = model.rotary.row(self.position);
        let embedding = &model.embedding;
        let mut x = ops::embedding_row(embedding.format, embedding.row(token as usize));
        for (layer, cache) in model.layers.iter().zip(&mut self.caches) {
            let n = ops::rms_norm(&x, &layer.attn_norm, model.eps);
            let o = model.attention(layer, cache, &n, &cosines, &sines)?;
            x = ops::add(&x, &layer.attn_output.times(&o)?);
            let n = ops::rms_norm(&x, &layer.ffn_norm, model.eps);
            let gated = ops::silu_mul(&layer.gate.times(&n)?, &layer.up.times(&n)?);
            x = ops::add(&x, &layer.down.times(&gated)?);
        }
        self.position += 1;
        Ok(ops::rms_norm(&x, &model.output_norm, model.eps))
    }
}

impl Model<'_> {
    /// A-6 for one position: stores its key and value, and attends with every query head.
    fn attention(
        &self,
        layer: &Layer<'_>,
        cache: &mut LayerCache,
        n: &[f32],
        cosines: &[f32],
        sines: &[f32],
    ) -> Result<Vec<f32>, NonFinite> {
        // norm if any, then rotary, head by head.
        let turn = |row: Vec<f32>, norm: &Option<Vec<f32>>| -> Vec<Vec<f32>> {
            let heads = row.chunks_exact(self.head_dim).map(|head| match norm {
                Some(weight) => ops::rms_norm(head, weight, self.eps),
                None => head.to_vec(),
            });
            heads.map(|head| rotate(&head, self.pairs, cosines, sines)).collect()
        };
        let q = turn(layer.q.times(n)?, &layer.q_norm);
        let k = turn(layer.k.times(n)?, &layer.k_norm);
        let v = layer.v.times(n)?;
        for head in &q {
            check_finite("a query", head)?;
        }
        for (index, (key, value)) in k.iter().zip(v.chunks_exact(self.head_dim)).enumerate() {
            cache.keys[index].push(stored("a key", key)?);
            cache.values[index].push(stored("a value", value)?);
        }
        let mut out = Vec::new();
        for (j, q) in q.iter().enumerate() {
            let kv_head = j / (self.heads / self.kv_heads);
            out.extend(attention_head(q, &cache.keys[kv_head], &cache.values[kv_head])?);
        }
        Ok(out)
    }
}

/// a key or value rounded to binary16, and checked as says, after rounding.
fn stored(place: &'static str, row: &[f32]) -> Result<Vec<u16>, NonFinite> {
    let halves: Vec<u16> = row.iter().map(|&value| f32_to_f16(value)).collect();
    let widened: Vec<f32> = halves.iter().map(|&half| f16_to_f32(half)).collect();
    check_finite(place, &widened)?;
    Ok(halves)
}

impl Matrix<'_> {
    /// A-3, with the bias of.
    fn times(&self, x: &[f32]) -> Result<Vec<f32>, NonFinite> {
        let out = ops::matmul(self.weight.format, self.weight.bytes, x)?;
        Ok(match &self.bias {
            None => out,
            Some(bias) => ops::add(&out, bias),
        })
    }
}

/// Numbers of the metadata, below the architecture's name.
struct Metadata<'a> {
    file: &'a Gguf<'a>,
    architecture: &'a str,
}

impl Metadata<'_> {
    fn get(&self, key: &str) -> Option<Value<'_>> {
        self.file.metadata.get(&format!("{}.{key}", self.architecture)).copied()
    }

    /// A count from 1 to 2³¹.
    fn count(&self, key: &str, default: Option<usize>) -> Result<usize, GgufError> {
        match (self.get(key), default) {
            (Some(Value::Integer(count)), _) if (1..=1 << 31).contains(&count) => Ok(count as usize),
            (None, Some(default)) if default > 0 => Ok(default),
            (other, _) => Err(GgufError(format!("{}.{key} is {other:?}", self.architecture))),
        }
    }

    /// A count which, if it is there, must have this value.
    fn expect(&self, key: &str, expected: usize) -> Result<(), GgufError> {
        match self.count(key, Some(expected))? {
            count if count == expected => Ok(()),
            count => Err(GgufError(format!("{}.{key} is {count}, not {expected}", self.architecture))),
        }
    }

    fn float(&self, key: &str, default: Option<f64>) -> Result<f64, GgufError> {
        match (self.get(key), default) {
            (Some(Value::Float(value)), _) if value.is_finite() => Ok(value),
            (None, Some(default)) => Ok(default),
            (other, _) => Err(GgufError(format!("{}.{key} is {other:?}", self.architecture))),
        }
    }

    /// A positive number.
    fn positive(&self, key: &str, default: Option<f64>) -> Result<f64, GgufError> {
        match self.float(key, default)? {
            value if value > 0.0 => Ok(value),
            value => Err(GgufError(format!("{}.{key} is {value}", self.architecture))),
        }
    }

    /// what `rope.scaling.type` says, with llama.cpp's defaults for what YaRN leaves out.
    fn scaling(&self, context: usize) -> Result<Scaling, GgufError> {
        match self.get("rope.scaling.type") {
            None | Some(Value::Text(b"none")) => Ok(Scaling::None),
            Some(Value::Text(b"linear")) => {
                Ok(Scaling::Linear { factor: self.positive("rope.scaling.factor", None)? })
            }
            Some(Value::Text(b"yarn")) => Ok(Scaling::Yarn {
                factor: self.positive("rope.scaling.factor", None)?,
                original_context: self.count("rope.scaling.original_context_length", Some(context))? as f64,
                beta_fast: self.positive("rope.scaling.yarn_beta_fast", Some(32.0))?,
                beta_slow: self.positive("rope.scaling.yarn_beta_slow", Some(1.0))?,
                attention_factor: self.positive("rope.scaling.attn_factor", Some(1.0))?,
            }),
            other => Err(GgufError(format!("{}.rope.scaling.type is {other:?}", self.architecture))),
        }
    }
}

/// Tensors by name, with their shapes checked.
struct Tensors<'f, 'a> {
    file: &'f Gguf<'a>,
}

impl<'a> Tensors<'_, 'a> {
    fn required(&self, name: &str) -> Result<Tensor<'a>, GgufError> {
        self.file.tensors.get(name).cloned().ok_or_else(|| GgufError(format!("tensor {name} is missing")))
    }

    fn vector(&self, name: &str, length: usize) -> Result<Vec<f32>, GgufError> {
        let tensor = shaped(name, self.required(name)?, length, 1)?;
        Ok(weights::values(tensor.format, tensor.bytes))
    }

    fn optional_vector(&self, name: &str, length: usize) -> Result<Option<Vec<f32>>, GgufError> {
        if self.file.tensors.contains_key(name) { self.vector(name, length).map(Some) } else { Ok(None) }
    }

    /// `name.weight`, and `name.bias` if there is one.
    fn matrix(&self, name: &str, columns: usize, rows: usize) -> Result<Matrix<'a>, GgufError> {
        let weight_name = format!("{name}.weight");
        let weight = shaped(&weight_name, self.required(&weight_name)?, columns, rows)?;
        if !columns.is_multiple_of(32) {
            return Err(GgufError(format!(
                "tensor {weight_name} has {columns} columns, not a multiple of 32"
            )));
        }
        Ok(Matrix { weight, bias: self.optional_vector(&format!("{name}.bias"), rows)? })
    }
}

/// The tensor, if it has this shape.
fn shaped<'a>(name: &str, tensor: Tensor<'a>, columns: usize, rows: usize) -> Result<Tensor<'a>, GgufError> {
    if (tensor.columns, tensor.rows) == (columns, rows) {
        return Ok(tensor);
    }
    Err(GgufError(format!("tensor {name} is {} × {}, not {columns} × {rows}", tensor.columns, tensor.rows)))
}

#[cfg(test)]
mod tests;

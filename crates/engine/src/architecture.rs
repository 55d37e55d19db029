//! The numbers of a model: read from GGUF metadata once, checked, and trusted from then on.
//!
//! In:     GGUF metadata and the shapes of its tensors.
//! Out:    an `Architecture`, or the one thing that is wrong and what would be right.
//! Touches: nothing.
//! Holds:  every number is inside the bounds below; every shape the forward pass relies on follows from them.
//! Absent: the weights themselves (`image`, `model`) and what is computed with them (`forward`).

use surety_kernels::{RotaryPairs, RotaryParameters, Scaling};

use crate::gguf::{Gguf, GgufError};

/// The families of models this engine computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama 2, 3 and models of the same shape; rotary pairs are interleaved.
    Llama,
    /// Qwen 2 and 2.5: biases on q, k, v.
    Qwen2,
    /// Qwen 3: RMS norms on the heads of q and k.
    Qwen3,
}

impl Family {
    /// Every family, in the order errors list them.
    pub const ALL: [Family; 3] = [Family::Llama, Family::Qwen2, Family::Qwen3];

    /// The value of `general.architecture`.
    pub fn name(self) -> &'static str {
        match self {
            Family::Llama => "llama",
            Family::Qwen2 => "qwen2",
            Family::Qwen3 => "qwen3",
        }
    }

    /// Which elements of a head rotate together.
    pub fn rotary_pairs(self) -> RotaryPairs {
        match self {
            Family::Llama => RotaryPairs::Interleaved,
            Family::Qwen2 | Family::Qwen3 => RotaryPairs::Halves,
        }
    }
}

/// Bounds on what a file may ask for. They exist so that no product below overflows and no
/// allocation is decided by a hostile file.
const LAYERS_MAX: u32 = 512;
const WIDTH_MAX: u32 = 65_536;
const HEADS_MAX: u32 = 1_024;
const HEAD_DIM_MAX: u32 = 256;
const FEED_FORWARD_MAX: u32 = 524_288;
const VOCABULARY_MAX: u32 = 1 << 22;
const CONTEXT_MAX: u32 = 1 << 20;

/// The shape of a model. All counts are of elements unless their name says otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// Which forward pass.
    pub family: Family,
    /// Transformer layers.
    pub layers: u32,
    /// Width of the residual stream.
    pub width: u32,
    /// Query heads.
    pub heads: u32,
    /// Key/value heads; divides `heads`.
    pub kv_heads: u32,
    /// Elements of one head.
    pub head_dim: u32,
    /// Width of the feed-forward layer.
    pub feed_forward: u32,
    /// Rows of the embedding and of the output matrix.
    pub vocabulary: u32,
    /// Positions the model was made for.
    pub context: u32,
    /// Epsilon of every RMS norm.
    pub norm_epsilon: f32,
    /// Base of the rotary frequencies.
    pub rotary_base: f64,
    /// Scaling of the rotary frequencies.
    pub rotary_scaling: Scaling,
}

/// Why a file's metadata describes no model this engine computes.
#[derive(Debug, thiserror::Error)]
pub enum ArchitectureError {
    /// A key is missing or has the wrong type.
    #[error("the metadata of the model is incomplete")]
    Metadata(#[from] GgufError),
    /// `general.architecture` names a family this engine does not compute.
    #[error("unknown architecture \"{name}\"; supported: llama, qwen2, qwen3")]
    Unknown {
        /// What the file says.
        name: String,
    },
    /// A feature of a known family that this engine does not compute.
    #[error("{architecture} with {feature} is not supported")]
    Unsupported {
        /// The family.
        architecture: &'static str,
        /// The feature, with its value.
        feature: String,
    },
    /// A number is outside its bounds.
    #[error("{key} is {value}; it must be {must}")]
    OutOfBounds {
        /// The metadata key.
        key: String,
        /// What the file says.
        value: String,
        /// The bound.
        must: String,
    },
}

impl Architecture {
    /// Reads and checks the numbers of a model.
    ///
    /// # Errors
    /// `ArchitectureError` names the key, the value found and what it must be.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, ArchitectureError> {
        let name = gguf.string("general.architecture")?;
        let family = Family::ALL
            .into_iter()
            .find(|family| family.name() == name)
            .ok_or_else(|| ArchitectureError::Unknown { name: name.to_owned() })?;
        let read = Reader { gguf, family };

        let layers = read.bounded("block_count", 1, LAYERS_MAX)?;
        let width = read.bounded("embedding_length", 32, WIDTH_MAX)?;
        let heads = read.bounded("attention.head_count", 1, HEADS_MAX)?;
        let kv_heads = match read.optional("attention.head_count_kv")? {
            Some(_) => read.bounded("attention.head_count_kv", 1, HEADS_MAX)?,
            None => heads,
        };
        let head_dim = match read.optional("attention.key_length")? {
            Some(_) => read.bounded("attention.key_length", 32, HEAD_DIM_MAX)?,
            None => width / heads,
        };
        let feed_forward = read.bounded("feed_forward_length", 32, FEED_FORWARD_MAX)?;
        let context = read.bounded("context_length", 1, CONTEXT_MAX)?;

        read.require("embedding_length", width, width % 32 == 0, "a multiple of 32")?;
        read.require("feed_forward_length", feed_forward, feed_forward % 32 == 0, "a multiple of 32")?;
        let divides = heads % kv_heads == 0;
        read.require("attention.head_count_kv", kv_heads, divides, &format!("a divisor of {heads} heads"))?;
        let whole_head = head_dim % 32 == 0 && (32..=HEAD_DIM_MAX).contains(&head_dim);
        read.require("attention.key_length", head_dim, whole_head, "a multiple of 32 from 32 to 256")?;
        for key in ["attention.value_length", "rope.dimension_count"] {
            if let Some(value) = read.optional(key)? {
                read.require(key, value, value == head_dim, &format!("the head's {head_dim}"))?;
            }
        }
        for key in ["expert_count", "attention.sliding_window"] {
            if let Some(value) = read.optional(key)?.filter(|&value| value > 0) {
                return Err(read.unsupported(format!("{key} = {value}")));
            }
        }

        let vocabulary =
            gguf.tensor("token_embd.weight").and_then(|tensor| tensor.dims.get(1).copied()).unwrap_or(0);
        let vocabulary = u32::try_from(vocabulary)
            .ok()
            .filter(|&rows| (1..=VOCABULARY_MAX).contains(&rows))
            .ok_or(ArchitectureError::OutOfBounds {
                key: "token_embd.weight rows".into(),
                value: vocabulary.to_string(),
                must: format!("from 1 to {VOCABULARY_MAX}"),
            })?;

        let epsilon_key = read.key("attention.layer_norm_rms_epsilon");
        let norm_epsilon = gguf.f32(&epsilon_key)?;
        if !(norm_epsilon.is_finite() && norm_epsilon > 0.0) {
            return Err(ArchitectureError::OutOfBounds {
                key: epsilon_key,
                value: norm_epsilon.to_string(),
                must: "a positive number".into(),
            });
        }
        let rotary_base = f64::from(gguf.optional_f32(&read.key("rope.freq_base"))?.unwrap_or(10_000.0));
        if !(rotary_base.is_finite() && rotary_base > 1.0) {
            return Err(ArchitectureError::OutOfBounds {
                key: read.key("rope.freq_base"),
                value: rotary_base.to_string(),
                must: "greater than 1".into(),
            });
        }
        let rotary_scaling = read.rotary_scaling(context)?;

        Ok(Self {
            family,
            layers,
            width,
            heads,
            kv_heads,
            head_dim,
            feed_forward,
            vocabulary,
            context,
            norm_epsilon,
            rotary_base,
            rotary_scaling,
        })
    }

    /// Elements of all query heads of one position.
    pub fn query_width(&self) -> usize {
        self.heads as usize * self.head_dim as usize
    }

    /// Elements of all key (or value) heads of one position.
    pub fn kv_width(&self) -> usize {
        self.kv_heads as usize * self.head_dim as usize
    }

    /// What the rotary tables are made from, with the per-frequency factors a file may carry.
    /// `positions` rows are kept in memory.
    pub fn rotary_parameters(&self, positions: usize, factors: Option<Vec<f32>>) -> RotaryParameters {
        RotaryParameters {
            head_dim: self.head_dim as usize,
            base: self.rotary_base,
            context: self.context as usize,
            positions,
            scaling: self.rotary_scaling,
            factors,
        }
    }
}

/// Reads the keys of one family.
struct Reader<'a> {
    gguf: &'a Gguf,
    family: Family,
}

impl Reader<'_> {
    fn key(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.family.name())
    }

    fn optional(&self, suffix: &str) -> Result<Option<u32>, ArchitectureError> {
        Ok(self.gguf.optional_u32(&self.key(suffix))?)
    }

    fn bounded(&self, suffix: &str, min: u32, max: u32) -> Result<u32, ArchitectureError> {
        let value = self.gguf.u32(&self.key(suffix))?;
        self.require(suffix, value, (min..=max).contains(&value), &format!("from {min} to {max}"))?;
        Ok(value)
    }

    fn require(&self, suffix: &str, value: u32, holds: bool, must: &str) -> Result<(), ArchitectureError> {
        if holds {
            return Ok(());
        }
        Err(ArchitectureError::OutOfBounds {
            key: self.key(suffix),
            value: value.to_string(),
            must: must.to_owned(),
        })
    }

    fn unsupported(&self, feature: String) -> ArchitectureError {
        ArchitectureError::Unsupported { architecture: self.family.name(), feature }
    }

    ///
    fn rotary_scaling(&self, context: u32) -> Result<Scaling, ArchitectureError> {
        let kind_key = self.key("rope.scaling.type");
        let kind = self.gguf.optional_string(&kind_key)?;
        let number = |suffix: &str| -> Result<Option<f64>, ArchitectureError> {
            let value = self.gguf.optional_f32(&self.key(suffix))?.map(f64::from);
            match value {
                Some(value) if !(value.is_finite() && value > 0.0) => Err(ArchitectureError::OutOfBounds {
                    key: self.key(suffix),
                    value: value.to_string(),
                    must: "a positive number".into(),
                }),
                value => Ok(value),
            }
        };
        match kind {
            None | Some("none") => Ok(Scaling::None),
            Some("linear") => Ok(Scaling::Linear(number("rope.scaling.factor")?.unwrap_or(1.0))),
            Some("yarn") => Ok(Scaling::Yarn {
                factor: number("rope.scaling.factor")?.unwrap_or(1.0),
                original_context: self
                    .optional("rope.scaling.original_context_length")?
                    .map_or(f64::from(context), f64::from),
                beta_fast: number("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                beta_slow: number("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                attention_factor: number("rope.scaling.attn_factor")?.unwrap_or(1.0),
            }),
            Some(other) => Err(self.unsupported(format!("rope.scaling.type = {other}"))),
        }
    }
}

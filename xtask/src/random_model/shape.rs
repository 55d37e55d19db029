//! Shapes and formats of real models.
//!
//! In:     names as typed by a person.
//! Out:    sizes; the encoding of each tensor; Llama 3's rotary factors.
//! Holds:  the numbers are those of the published models; the tiny shapes keep every property of
//!         theirs that changes the code path, in a few hundred kilobytes.

use std::f64::consts::PI;
use std::str::FromStr;

use super::vocabulary::{CHATML, Dialect, LLAMA3};
use crate::gguf::TensorType;

/// The models that can be imitated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Qwen3 0.6B.
    Qwen3_0_6B,
    /// Llama 3.2 1B.
    Llama3_2_1B,
    /// Query and key norms; heads wider than their share of the residual stream.
    TinyQwen3,
    /// Biases on queries, keys and values; a head's size left to be derived.
    TinyQwen2,
    /// Grouped heads of 64 elements; rotary factors.
    TinyLlama,
}

impl Shape {
    /// All of them.
    pub const ALL: [Shape; 5] =
        [Shape::Qwen3_0_6B, Shape::Llama3_2_1B, Shape::TinyQwen3, Shape::TinyQwen2, Shape::TinyLlama];

    /// The name a person types.
    pub fn name(self) -> &'static str {
        match self {
            Shape::Qwen3_0_6B => "qwen3-0.6b",
            Shape::Llama3_2_1B => "llama-3.2-1b",
            Shape::TinyQwen3 => "tiny-qwen3",
            Shape::TinyQwen2 => "tiny-qwen2",
            Shape::TinyLlama => "tiny-llama",
        }
    }

    pub(super) fn sizes(self) -> Sizes {
        match self {
            Shape::Qwen3_0_6B => Sizes {
                architecture: Architecture::Qwen3,
                layers: 28,
                width: 1_024,
                heads: 16,
                kv_heads: 8,
                head_dim: 128,
                feed_forward: 3_072,
                vocabulary: 151_936,
                context_len: 40_960,
                rope_base: 1e6,
                norm_epsilon: 1e-6,
            },
            Shape::Llama3_2_1B => Sizes {
                architecture: Architecture::Llama,
                layers: 16,
                width: 2_048,
                heads: 32,
                kv_heads: 8,
                head_dim: 64,
                feed_forward: 8_192,
                vocabulary: 128_256,
                context_len: 131_072,
                rope_base: 5e5,
                norm_epsilon: 1e-5,
            },
            Shape::TinyQwen3 => Sizes {
                architecture: Architecture::Qwen3,
                layers: 3,
                width: 256,
                heads: 4,
                kv_heads: 2,
                head_dim: 128,
                feed_forward: 512,
                vocabulary: 512,
                context_len: 4_096,
                rope_base: 1e6,
                norm_epsilon: 1e-6,
            },
            Shape::TinyQwen2 => Sizes {
                architecture: Architecture::Qwen2,
                layers: 2,
                width: 256,
                heads: 4,
                kv_heads: 2,
                head_dim: 64,
                feed_forward: 512,
                vocabulary: 512,
                context_len: 4_096,
                rope_base: 1e6,
                norm_epsilon: 1e-6,
            },
            Shape::TinyLlama => Sizes {
                architecture: Architecture::Llama,
                layers: 4,
                width: 256,
                heads: 4,
                kv_heads: 1,
                head_dim: 64,
                feed_forward: 768,
                vocabulary: 512,
                context_len: 4_096,
                rope_base: 5e5,
                norm_epsilon: 1e-5,
            },
        }
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(name: &str) -> Result<Shape, String> {
        let names = || Shape::ALL.map(Shape::name).join(", ");
        let found = Shape::ALL.into_iter().find(|shape| shape.name() == name);
        found.ok_or_else(|| format!("no shape is called `{name}`; there are {}", names()))
    }
}

/// The family a model belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Architecture {
    Llama,
    Qwen2,
    Qwen3,
}

impl Architecture {
    pub(super) fn name(self) -> &'static str {
        match self {
            Architecture::Llama => "llama",
            Architecture::Qwen2 => "qwen2",
            Architecture::Qwen3 => "qwen3",
        }
    }

    pub(super) fn dialect(self) -> &'static Dialect {
        match self {
            Architecture::Llama => &LLAMA3,
            Architecture::Qwen2 | Architecture::Qwen3 => &CHATML,
        }
    }
}

/// The sizes of a model. Input embedding and output matrix are one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub architecture: Architecture,
    pub layers: usize,
    pub width: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub feed_forward: usize,
    pub vocabulary: usize,
    pub context_len: usize,
    pub rope_base: f32,
    pub norm_epsilon: f32,
}

impl Sizes {
    /// What Llama 3 divides each rotary frequency by, as llama.cpp's converter stores it.
    ///
    /// [head_dim / 2]. Fast pairs stay, slow ones turn 32 times slower, those between are blended.
    /// Source: Llama 3.1's reference code, `apply_scaling`, with Llama 3.2's factor.
    pub(super) fn rope_factors(&self) -> Vec<f32> {
        const FACTOR: f64 = 32.0;
        const LOW: f64 = 1.0;
        const HIGH: f64 = 4.0;
        const ORIGINAL_CONTEXT: f64 = 8_192.0;
        let factor = |pair: usize| {
            let frequency = f64::from(self.rope_base).powf(-2.0 * pair as f64 / self.head_dim as f64);
            let wavelength = 2.0 * PI / frequency;
            if wavelength < ORIGINAL_CONTEXT / HIGH {
                1.0
            } else if wavelength > ORIGINAL_CONTEXT / LOW {
                FACTOR
            } else {
                let smooth = (ORIGINAL_CONTEXT / wavelength - LOW) / (HIGH - LOW);
                1.0 / ((1.0 - smooth) / FACTOR + smooth)
            }
        };
        (0..self.head_dim / 2).map(|pair| factor(pair) as f32).collect()
    }
}

/// What a matrix is for, as far as its encoding depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Embedding and output matrix in one.
    Embedding,
    AttentionValue {
        layer: usize,
    },
    FeedForwardDown {
        layer: usize,
    },
    Other,
}

/// How the matrices of a file are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// All in Q8_0.
    Q8_0,
    /// Q4_0, the embedding in Q6_K.
    Q4_0,
    /// llama.cpp's mix of Q4_K and Q6_K.
    Q4KM,
    /// All in binary16.
    F16,
    /// All in bfloat16.
    BF16,
    /// All in binary32.
    F32,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 6] =
        [Format::Q8_0, Format::Q4_0, Format::Q4KM, Format::F16, Format::BF16, Format::F32];

    /// The name a person types.
    pub fn name(self) -> &'static str {
        match self {
            Format::Q8_0 => "q8_0",
            Format::Q4_0 => "q4_0",
            Format::Q4KM => "q4_k_m",
            Format::F16 => "f16",
            Format::BF16 => "bf16",
            Format::F32 => "f32",
        }
    }

    /// `general.file_type`, as llama.cpp numbers it.
    pub(super) fn file_type(self) -> u32 {
        match self {
            Format::F32 => 0,
            Format::F16 => 1,
            Format::Q4_0 => 2,
            Format::Q8_0 => 7,
            Format::Q4KM => 15,
            Format::BF16 => 32,
        }
    }

    /// The encoding llama.cpp's quantiser gives a matrix (`llama_tensor_get_type`).
    pub(super) fn tensor_type(self, role: Role, layers: usize) -> TensorType {
        let more_bits = |layer: usize| {
            let eighth = layers / 8;
            layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
        };
        match (self, role) {
            (Format::F32, _) => TensorType::F32,
            (Format::F16, _) => TensorType::F16,
            (Format::BF16, _) => TensorType::BF16,
            (Format::Q8_0, _) => TensorType::Q8_0,
            (Format::Q4_0 | Format::Q4KM, Role::Embedding) => TensorType::Q6K,
            (Format::Q4_0, _) => TensorType::Q4_0,
            (Format::Q4KM, Role::AttentionValue { layer } | Role::FeedForwardDown { layer })
                if more_bits(layer) =>
            {
                TensorType::Q6K
            }
            (Format::Q4KM, _) => TensorType::Q4K,
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Format, String> {
        let names = || Format::ALL.map(Format::name).join(", ");
        let found = Format::ALL.into_iter().find(|format| format.name() == name);
        found.ok_or_else(|| format!("no format is called `{name}`; there are {}", names()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotary_factors_run_from_one_to_thirty_two() {
        let factors = Shape::Llama3_2_1B.sizes().rope_factors();
        assert_eq!((factors.len(), factors[0], factors[31]), (32, 1.0, 32.0));
        assert!(factors.is_sorted());
        let blended = factors.iter().filter(|factor| **factor > 1.0 && **factor < 32.0).count();
        assert_eq!(blended, 3);
    }

    #[test]
    fn names_read_back() {
        for shape in Shape::ALL {
            assert_eq!(shape.name().parse(), Ok(shape));
        }
        for format in Format::ALL {
            assert_eq!(format.name().parse(), Ok(format));
        }
        assert!("qwen3".parse::<Shape>().unwrap_err().contains("tiny-qwen3"));
    }
}

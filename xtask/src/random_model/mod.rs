//! Models of real shapes with random weights.
//!
//! In:     a shape, a format and a seed.
//! Out:    a GGUF file that this project and llama.cpp both load: right sizes, right metadata, a
//!         synthetic vocabulary of the right length, a chat template. It says nothing sensible.
//! Touches: the sink; a few megabytes of memory, whatever the model's size.
//! Holds:  the same three arguments give the same bytes, for any number of threads.
//! Absent: downloads. Equality and speed need the shapes of real models, not their weights.

mod shape;

mod vocabulary;

pub use shape::{Format, Shape};

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::thread;

use crate::gguf::{Header, TensorSpec, Value, quantize_row};
use crate::rng::Rng;
use shape::{Architecture, Role, Sizes};

/// Rows are made in this many batches at a time, each on a thread of its own.
const THREADS: usize = 2;
/// Elements of a batch, rounded up to whole rows.
const BATCH_ELEMENTS: usize = 1 << 20;

/// Kinds of token, as GGUF numbers them.
const TOKEN_NORMAL: i32 = 1;
const TOKEN_CONTROL: i32 = 3;

/// What a random model is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Sizes, architecture and vocabulary.
    pub shape: Shape,
    /// How the matrices are encoded.
    pub format: Format,
    /// Names the weights.
    pub seed: u64,
}

/// Writes the model to a file.
pub fn run(settings: &Settings, path: &Path) -> io::Result<()> {
    write(settings, BufWriter::with_capacity(1 << 20, File::create(path)?))?;
    Ok(())
}

/// The model as bytes; meant for the tiny shapes.
pub fn bytes(settings: &Settings) -> Vec<u8> {
    write(settings, Vec::new()).expect("memory takes every write")
}

/// Writes the model and gives the sink back.
pub fn write<W: Write>(settings: &Settings, sink: W) -> io::Result<W> {
    let sizes = settings.shape.sizes();
    let tensors = tensors(&sizes, settings.format);
    let mut header = header(settings, &sizes);
    tensors.iter().for_each(|(spec, _)| header.tensor(spec.clone()));
    let mut body = header.begin(sink)?;
    let mut batches: [Vec<u8>; THREADS] = Default::default();
    for (index, (spec, fill)) in tensors.iter().enumerate() {
        let key = [settings.seed, index as u64];
        let batch_rows = BATCH_ELEMENTS.div_ceil(spec.columns);
        for from in (0..spec.rows).step_by(batch_rows * THREADS) {
            thread::scope(|scope| {
                for (nth, batch) in batches.iter_mut().enumerate() {
                    let from = (from + nth * batch_rows).min(spec.rows);
                    let rows = from..(from + batch_rows).min(spec.rows);
                    scope.spawn(move || {
                        batch.clear();
                        let mut row = vec![0.0; spec.columns];
                        for index in rows {
                            fill.row(&mut Rng::keyed(&[key[0], key[1], index as u64]), &mut row);
                            quantize_row(spec.kind, &row, batch);
                        }
                    });
                }
            });
            for batch in batches.iter().filter(|batch| !batch.is_empty()) {
                body.write(batch)?;
            }
        }
    }
    body.finish()
}

/// Where the values of a tensor come from.
#[derive(Clone, Debug)]
enum Fill {
    /// Around 0 with this deviation.
    Around0(f32),
    /// Around 1 with a deviation of 0.1, as norms are.
    Around1,
    /// These values.
    Given(Vec<f32>),
}

impl Fill {
    fn row(&self, rng: &mut Rng, row: &mut [f32]) {
        match self {
            Fill::Around0(deviation) => row.iter_mut().for_each(|value| *value = deviation * rng.bell()),
            Fill::Around1 => row.iter_mut().for_each(|value| *value = 1.0 + 0.1 * rng.bell()),
            Fill::Given(values) => row.copy_from_slice(values),
        }
    }
}

/// Every tensor, in the order of the file.
fn tensors(sizes: &Sizes, format: Format) -> Vec<(TensorSpec, Fill)> {
    let mut tensors = Vec::new();
    let matrix = |name: String, role: Role, rows: usize, columns: usize, gain: f32| {
        let kind = format.tensor_type(role, sizes.layers);
        let deviation = gain / (columns as f32).sqrt();
        (TensorSpec::matrix(name, rows, columns, kind), Fill::Around0(deviation))
    };
    let norm = |name: String, length: usize| (TensorSpec::vector(name, length), Fill::Around1);
    let bias = |name: String, length: usize| (TensorSpec::vector(name, length), Fill::Around0(0.5));

    let (width, feed_forward) = (sizes.width, sizes.feed_forward);
    let (query_width, kv_width) = (sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim);
    tensors.push(matrix("token_embd.weight".into(), Role::Embedding, sizes.vocabulary, width, 1.0));
    tensors.push(norm("output_norm.weight".into(), width));
    if sizes.architecture == Architecture::Llama {
        let factors = sizes.rope_factors();
        tensors.push((TensorSpec::vector("rope_freqs.weight", factors.len()), Fill::Given(factors)));
    }
    for layer in 0..sizes.layers {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let (value, down) = (Role::AttentionValue { layer }, Role::FeedForwardDown { layer });
        tensors.push(norm(name("attn_norm.weight"), width));
        tensors.push(matrix(name("attn_q.weight"), Role::Other, query_width, width, 1.5));
        tensors.push(matrix(name("attn_k.weight"), Role::Other, kv_width, width, 1.5));
        tensors.push(matrix(name("attn_v.weight"), value, kv_width, width, 1.0));
        tensors.push(matrix(name("attn_output.weight"), Role::Other, width, query_width, 1.0));
        match sizes.architecture {
            Architecture::Llama => {}
            Architecture::Qwen2 => {
                tensors.push(bias(name("attn_q.bias"), query_width));
                tensors.push(bias(name("attn_k.bias"), kv_width));
                tensors.push(bias(name("attn_v.bias"), kv_width));
            }
            Architecture::Qwen3 => {
                tensors.push(norm(name("attn_q_norm.weight"), sizes.head_dim));
                tensors.push(norm(name("attn_k_norm.weight"), sizes.head_dim));
            }
        }
        tensors.push(norm(name("ffn_norm.weight"), width));
        tensors.push(matrix(name("ffn_gate.weight"), Role::Other, feed_forward, width, 1.0));
        tensors.push(matrix(name("ffn_up.weight"), Role::Other, feed_forward, width, 1.0));
        tensors.push(matrix(name("ffn_down.weight"), down, width, feed_forward, 1.0));
    }
    tensors
}

fn header(settings: &Settings, sizes: &Sizes) -> Header {
    let architecture = sizes.architecture.name();
    let mut header = Header::new(architecture);
    header.set("general.name", format!("{} with random weights", settings.shape.name()).as_str());
    header.set("general.description", "Random weights, for tests and measurements.");
    header.set("general.file_type", settings.format.file_type());
    header.set("general.quantization_version", 2);

    let mut set = |key: &str, value: Value| header.set(format!("{architecture}.{key}"), value);
    let count = |count: usize| Value::U32(u32::try_from(count).expect("sizes fit 32 bits"));
    set("vocab_size", count(sizes.vocabulary));
    set("context_length", count(sizes.context_len));
    set("embedding_length", count(sizes.width));
    set("block_count", count(sizes.layers));
    set("feed_forward_length", count(sizes.feed_forward));
    set("attention.head_count", count(sizes.heads));
    set("attention.head_count_kv", count(sizes.kv_heads));
    set("attention.layer_norm_rms_epsilon", sizes.norm_epsilon.into());
    set("rope.freq_base", sizes.rope_base.into());
    // Files of real Qwen2 models leave the head's size to be derived.
    if sizes.architecture != Architecture::Qwen2 {
        set("attention.key_length", count(sizes.head_dim));
        set("attention.value_length", count(sizes.head_dim));
    }
    if sizes.architecture == Architecture::Llama {
        set("rope.dimension_count", count(sizes.head_dim));
    }

    let dialect = sizes.architecture.dialect();
    let tokens = vocabulary::tokens(dialect, sizes.vocabulary);
    let id = |token: &str| {
        let at = tokens.iter().position(|other| other == token).expect("a token of the vocabulary");
        Value::U32(at as u32)
    };
    let mut set = |key: &str, value: Value| header.set(format!("tokenizer.{key}"), value);
    set("ggml.model", "gpt2".into());
    set("ggml.pre", dialect.pre_tokenizer.into());
    set("ggml.bos_token_id", id(dialect.bos));
    set("ggml.eos_token_id", id(dialect.eos));
    set("ggml.add_bos_token", dialect.add_bos.into());
    let normal = tokens.len() - dialect.controls.len();
    let kind = |id| if id < normal { TOKEN_NORMAL } else { TOKEN_CONTROL };
    set("ggml.token_type", Value::i32s((0..tokens.len()).map(kind)));
    set("ggml.merges", Value::strings(vocabulary::merges()));
    set("chat_template", dialect.chat_template.into());
    set("ggml.tokens", Value::strings(tokens));
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::TensorType;
    use std::collections::HashSet;

    #[test]
    fn tiny_files_have_the_size_their_tensors_ask_for() {
        for shape in [Shape::TinyLlama, Shape::TinyQwen2, Shape::TinyQwen3] {
            for format in Format::ALL {
                let settings = Settings { shape, format, seed: 3 };
                let tensors = tensors(&shape.sizes(), format);
                let mut header = header(&settings, &shape.sizes());
                tensors.iter().for_each(|(spec, _)| header.tensor(spec.clone()));
                let data: u64 = tensors.iter().map(|(spec, _)| spec.size().next_multiple_of(32)).sum();
                assert_eq!(bytes(&settings).len(), header.encode().len() + data as usize);
            }
        }
    }

    #[test]
    fn bytes_follow_the_seed() {
        let bytes = |seed| bytes(&Settings { shape: Shape::TinyLlama, format: Format::Q8_0, seed });
        assert_eq!(bytes(1), bytes(1));
        assert_ne!(bytes(1), bytes(2));
    }

    #[test]
    fn names_are_distinct_and_weights_random() {
        for shape in Shape::ALL {
            let tensors = tensors(&shape.sizes(), Format::Q4KM);
            let names: HashSet<&str> = tensors.iter().map(|(spec, _)| spec.name.as_str()).collect();
            assert_eq!(names.len(), tensors.len());
            let mut row = [0.0; 64];
            tensors[0].1.row(&mut Rng::keyed(&[1]), &mut row);
            assert!(row.windows(2).all(|pair| pair[0] != pair[1]));
        }
    }

    #[test]
    fn q4_k_m_mixes_as_llama_cpp_does() {
        let of = |shape: Shape| tensors(&shape.sizes(), Format::Q4KM);
        let six = |shape| {
            let six = of(shape).into_iter().filter(|(spec, _)| spec.kind == TensorType::Q6K);
            six.map(|(spec, _)| spec.name).collect::<Vec<_>>()
        };
        assert_eq!(
            six(Shape::TinyLlama),
            [
                "token_embd.weight",
                "blk.2.attn_v.weight",
                "blk.2.ffn_down.weight",
                "blk.3.attn_v.weight",
                "blk.3.ffn_down.weight"
            ]
        );
        // Of 28 layers: 0–2, then every third from 5, then 24–27.
        let layers: Vec<String> = [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 24, 25, 26, 27]
            .iter()
            .map(|layer| format!("blk.{layer}.attn_v.weight"))
            .collect();
        let values = six(Shape::Qwen3_0_6B).into_iter().filter(|name| name.ends_with("attn_v.weight"));
        assert_eq!(values.collect::<Vec<_>>(), layers);
    }
}

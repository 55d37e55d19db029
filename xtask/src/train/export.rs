//! The trained network as a GGUF file, and as that file's weights decode.
//!
//! In:     parameters, shape, vocabulary, and the figures the description states.
//! Out:    matrices in Q8_0, norms in F32, and every key llama.cpp asks of the `llama` architecture.
//! Holds:  what was evaluated as quantised is what the file decodes to.

use std::io::{self, Write};
use std::ops::Range;

use super::network::{NORM_EPSILON, ROPE_BASE, Ranges, Shape};
use super::vocabulary::Vocabulary;
use crate::gguf::{Header, TensorSpec, TensorType, Value, dequantize_row, quantize_row};

/// Conversations as scenes.
const CHAT_TEMPLATE: &str = include_str!("chat_template.jinja");

/// `general.file_type` of a file mostly in Q8_0.
const FILE_TYPE_Q8_0: u32 = 7;
/// Kinds of token, as GGUF numbers them.
const TOKEN_NORMAL: i32 = 1;
const TOKEN_CONTROL: i32 = 3;

/// What the file says of itself.
#[derive(Clone, Debug)]
pub struct Card<'a> {
    /// `general.name`.
    pub name: &'a str,
    /// `general.description`.
    pub description: &'a str,
    /// `llama.context_length`.
    pub context_len: u32,
}

/// The parameters after a round trip through the file's encoding.
pub fn quantised(parameters: &[f32], shape: &Shape) -> Vec<f32> {
    let mut decoded = parameters.to_vec();
    let mut bytes = Vec::new();
    for (range, columns) in Ranges::of(shape).matrices(shape) {
        for row in decoded[range].chunks_exact_mut(columns) {
            bytes.clear();
            quantize_row(TensorType::Q8_0, row, &mut bytes);
            dequantize_row(TensorType::Q8_0, &bytes, row);
        }
    }
    decoded
}

/// Writes the file.
pub fn write<W: Write>(
    sink: W,
    parameters: &[f32],
    shape: &Shape,
    vocabulary: &Vocabulary,
    card: &Card<'_>,
) -> io::Result<W> {
    let mut header = header(shape, vocabulary, card);
    let tensors = tensors(shape);
    for (spec, _) in &tensors {
        header.tensor(spec.clone());
    }
    let mut body = header.begin(sink)?;
    let mut bytes = Vec::new();
    for (spec, range) in tensors {
        assert_eq!(range.len(), spec.rows * spec.columns, "{}", spec.name);
        bytes.clear();
        let rows = parameters[range].chunks_exact(spec.columns);
        rows.for_each(|row| quantize_row(spec.kind, row, &mut bytes));
        body.write(&bytes)?;
    }
    body.finish()
}

fn header(shape: &Shape, vocabulary: &Vocabulary, card: &Card<'_>) -> Header {
    let mut header = Header::new("llama");
    let mut set = |key: &str, value: Value| header.set(key, value);
    set("general.name", card.name.into());
    set("general.description", card.description.into());
    set("general.license", "MIT OR Apache-2.0".into());
    set("general.file_type", FILE_TYPE_Q8_0.into());
    set("general.quantization_version", 2.into());
    set("llama.vocab_size", (vocabulary.size() as u32).into());
    set("llama.context_length", card.context_len.into());
    set("llama.embedding_length", (shape.width as u32).into());
    set("llama.block_count", (shape.layers as u32).into());
    set("llama.feed_forward_length", (shape.feed_forward as u32).into());
    set("llama.attention.head_count", (shape.heads as u32).into());
    set("llama.attention.head_count_kv", (shape.kv_heads as u32).into());
    set("llama.attention.key_length", (shape.head_dim as u32).into());
    set("llama.attention.value_length", (shape.head_dim as u32).into());
    set("llama.attention.layer_norm_rms_epsilon", NORM_EPSILON.into());
    set("llama.rope.dimension_count", (shape.head_dim as u32).into());
    set("llama.rope.freq_base", ROPE_BASE.into());
    set("tokenizer.ggml.model", "gpt2".into());
    set("tokenizer.ggml.pre", "gpt-2".into());
    set("tokenizer.ggml.tokens", Value::strings(vocabulary.spelled_tokens()));
    let kind = |id| if id == vocabulary.end() { TOKEN_CONTROL } else { TOKEN_NORMAL };
    set("tokenizer.ggml.token_type", Value::i32s((0..vocabulary.size() as u32).map(kind)));
    set("tokenizer.ggml.merges", Value::strings(vocabulary.spelled_merges()));
    set("tokenizer.ggml.bos_token_id", vocabulary.end().into());
    set("tokenizer.ggml.eos_token_id", vocabulary.end().into());
    set("tokenizer.ggml.eot_token_id", vocabulary.end().into());
    set("tokenizer.ggml.add_bos_token", false.into());
    set("tokenizer.chat_template", CHAT_TEMPLATE.into());
    header
}

/// The file's tensors, each with the parameters it holds.
fn tensors(shape: &Shape) -> Vec<(TensorSpec, Range<usize>)> {
    let ranges = Ranges::of(shape);
    let mut tensors = Vec::new();
    let mut matrix = |name: String, range: Range<usize>, columns: usize| {
        let rows = range.len() / columns;
        tensors.push((TensorSpec::matrix(name, rows, columns, TensorType::Q8_0), range));
    };
    matrix("token_embd.weight".into(), ranges.embedding, shape.width);
    for (index, layer) in ranges.layers.iter().enumerate() {
        let name = |part: &str| format!("blk.{index}.{part}.weight");
        let keys = layer.qkv.start + shape.query_width() * shape.width;
        let values = keys + shape.kv_width() * shape.width;
        let up = layer.gate_up.start + shape.feed_forward * shape.width;
        matrix(name("attn_q"), layer.qkv.start..keys, shape.width);
        matrix(name("attn_k"), keys..values, shape.width);
        matrix(name("attn_v"), values..layer.qkv.end, shape.width);
        matrix(name("attn_output"), layer.attention_output.clone(), shape.query_width());
        matrix(name("ffn_gate"), layer.gate_up.start..up, shape.width);
        matrix(name("ffn_up"), up..layer.gate_up.end, shape.width);
        matrix(name("ffn_down"), layer.down.clone(), shape.feed_forward);
    }
    let mut vector = |name: String, range: Range<usize>| {
        tensors.push((TensorSpec::vector(name, range.len()), range));
    };
    for (index, layer) in ranges.layers.into_iter().enumerate() {
        vector(format!("blk.{index}.attn_norm.weight"), layer.attention_norm);
        vector(format!("blk.{index}.ffn_norm.weight"), layer.feed_forward_norm);
    }
    vector("output_norm.weight".into(), ranges.output_norm);
    tensors
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        vocabulary: 260,
        width: 32,
        layers: 2,
        heads: 2,
        kv_heads: 1,
        head_dim: 32,
        feed_forward: 64,
    };

    #[test]
    fn every_parameter_is_written_once() {
        let mut ranges: Vec<Range<usize>> = tensors(&SHAPE).into_iter().map(|(_, range)| range).collect();
        ranges.sort_by_key(|range| range.start);
        assert_eq!(ranges[0].start, 0);
        assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert_eq!(ranges.last().unwrap().end, Ranges::of(&SHAPE).count());
    }

    #[test]
    fn the_file_has_the_size_its_tensors_ask_for() {
        let vocabulary = Vocabulary::learn(&["aab aab aab cab"], SHAPE.vocabulary);
        let parameters = super::super::network::initial_parameters(&SHAPE, 1);
        let card = Card { name: "test", description: "a test", context_len: 64 };
        let file = write(Vec::new(), &parameters, &SHAPE, &vocabulary, &card).unwrap();
        let data: u64 = tensors(&SHAPE).iter().map(|(spec, _)| spec.size().next_multiple_of(32)).sum();
        assert!(file.len() as u64 > data && file.len().is_multiple_of(32));
        let largest = parameters.iter().zip(quantised(&parameters, &SHAPE)).map(|(a, b)| (a - b).abs());
        assert!(largest.fold(0.0, f32::max) < 0.01);
    }

    /// Renders without and with the generation prompt.
    fn check(messages: minijinja::Value, expected: &str) {
        for (add_generation_prompt, prompt) in [(false, ""), (true, "MENENIUS:\n")] {
            let messages = &messages;
            let context = minijinja::context! { messages, add_generation_prompt, bos_token => "<|end|>" };
            let scene = minijinja::Environment::new().render_str(CHAT_TEMPLATE, context).unwrap();
            assert_eq!(scene, format!("{expected}{prompt}"));
        }
    }

    #[test]
    fn conversations_become_scenes() {
        use minijinja::context;
        let message = |role: &str, content: &str| context! { role, content };
        check(minijinja::Value::from(Vec::<()>::new()), "<|end|>");
        check(vec![message("user", "Good morrow. ")].into(), "<|end|>First Citizen:\nGood morrow.<|end|>");
        let scene = vec![
            message("system", "A street."),
            message("developer", "Enter citizens."),
            message("user", "One\n\ntwo"),
            message("assistant", "Three."),
            message("tool", "Four."),
            context! { role => "assistant", content => (), tool_calls => vec![1] },
            context! { role => "user", content => vec![context! { type => "text", text => "Five." }] },
            message("critic", "Six."),
        ];
        let expected = [
            "",
            "Chorus:\nA street.",
            "Chorus:\nEnter citizens.",
            "First Citizen:\nOne\ntwo",
            "MENENIUS:\nThree.",
            "Messenger:\nFour.",
            "First Citizen:\nFive.",
            "Chorus:\nSix.",
            "",
        ];
        check(scene.into(), &expected.join("<|end|>"));
    }
}

//! Synthetic byte-level vocabularies.
//!
//! In:     a dialect (how a family marks its turns) and a length.
//! Out:    tokens, merges, control tokens, a chat template.
//! Holds:  ids 0–255 are the bytes, so any text can be spelled; then the tokens of the merges; then
//!         filler words, all distinct; the control tokens come last.

use crate::byte_alphabet::{bytes_in_order, spell};

/// How a family of models marks its turns.
#[derive(Debug)]
pub(super) struct Dialect {
    /// `tokenizer.ggml.pre`.
    pub pre_tokenizer: &'static str,
    /// The control tokens, last in the vocabulary.
    pub controls: &'static [&'static str],
    pub bos: &'static str,
    pub eos: &'static str,
    pub add_bos: bool,
    pub chat_template: &'static str,
}

/// As the Qwen family.
pub(super) const CHATML: Dialect = Dialect {
    pre_tokenizer: "qwen2",
    controls: &["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    bos: "<|endoftext|>",
    eos: "<|im_end|>",
    add_bos: false,
    chat_template: concat!(
        "{%- for message in messages -%}",
        "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}",
        "{%- endfor -%}",
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}",
    ),
};

/// As Llama 3.
pub(super) const LLAMA3: Dialect = Dialect {
    pre_tokenizer: "llama-bpe",
    controls: &[
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    ],
    bos: "<|begin_of_text|>",
    eos: "<|eot_id|>",
    add_bos: true,
    chat_template: concat!(
        "{{- bos_token -}}",
        "{%- for message in messages -%}",
        "{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' -}}",
        "{{- message.content | trim + '<|eot_id|>' -}}",
        "{%- endfor -%}",
        "{%- if add_generation_prompt -%}",
        "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}",
        "{%- endif -%}",
    ),
};

/// Each pair's parts are bytes or results of earlier pairs.
const MERGES: [(&str, &str); 10] = [
    ("Ġ", "t"),
    ("h", "e"),
    ("Ġt", "he"),
    ("i", "n"),
    ("e", "r"),
    ("n", "d"),
    ("Ġ", "a"),
    ("Ġa", "nd"),
    ("o", "u"),
    ("in", "g"),
];

/// The merges as GGUF wants them.
pub(super) fn merges() -> Vec<String> {
    MERGES.iter().map(|(left, right)| format!("{left} {right}")).collect()
}

/// `count` distinct tokens.
pub(super) fn tokens(dialect: &Dialect, count: usize) -> Vec<String> {
    let fillers = count - 256 - MERGES.len() - dialect.controls.len();
    let bytes = bytes_in_order().map(|byte| spell(&[byte]));
    let merged = MERGES.iter().map(|(left, right)| format!("{left}{right}"));
    let controls = dialect.controls.iter().map(|token| (*token).to_owned());
    bytes.chain(merged).chain((0..fillers).map(filler)).chain(controls).collect()
}

/// A word of three syllables after a space: `Ġbababa`, `Ġbabace`, …
fn filler(index: usize) -> String {
    const CONSONANTS: &[u8; 20] = b"bcdfghjklmnpqrstvwxz";
    const VOWELS: &[u8; 5] = b"aeiou";
    assert!(index < 1_000_000, "three syllables go no further");
    let syllable = |number: usize| [char::from(CONSONANTS[number / 5 % 20]), char::from(VOWELS[number % 5])];
    let syllables = [index / 10_000, index / 100, index].into_iter().flat_map(syllable);
    std::iter::once('Ġ').chain(syllables).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn tokens_are_distinct_and_merges_valid() {
        for (dialect, count) in [(&CHATML, 151_936), (&LLAMA3, 128_256), (&LLAMA3, 512)] {
            let tokens = tokens(dialect, count);
            let distinct: HashSet<&str> = tokens.iter().map(String::as_str).collect();
            assert_eq!((tokens.len(), distinct.len()), (count, count));
            for (left, right) in MERGES {
                let parts = [left.to_owned(), right.to_owned(), format!("{left}{right}")];
                assert!(parts.iter().all(|part| distinct.contains(part.as_str())), "{left} {right}");
            }
            assert!(distinct.contains(dialect.bos) && distinct.contains(dialect.eos));
        }
    }
}

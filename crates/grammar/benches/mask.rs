//! How long a mask takes over the vocabulary of a model in use, by where the answer stands.
//!
//! The ceiling is one visit of each node of the tree of tokens: some 400,000 for 150,000 tokens.

use std::hint::black_box;
use std::time::Instant;

use surety_grammar::{Grammar, Vocabulary, json_object, json_schema};

const TOKENS: usize = 150_000;
const TURNS: u32 = 20;

fn main() {
    // Words of two to nine letters, half of them after a space, and all bytes.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |count: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % count
    };
    let mut tokens: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    while tokens.len() < TOKENS {
        let mut word: Vec<u8> = if below(2) == 0 { vec![b' '] } else { Vec::new() };
        let letters = 2 + below(8);
        word.extend((0..letters).map(|_| b"etaoinshrdlucmfwypvbgkjqxz"[below(26).min(below(26))]));
        if below(12) == 0 {
            word.extend([&b"\":"[..], b"\",", b"}", b"\n"][below(4)]);
        }
        tokens.push(word);
    }
    let start = Instant::now();
    let vocabulary = Vocabulary::new(tokens.iter().map(|token| Some(&token[..])).chain([None]));
    println!("vocabulary/tokens={TOKENS}: {} µs", start.elapsed().as_micros());
    let schema = r#"{"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer"},
        "tags":{"type":"array","items":{"enum":["a","b","c"]}}},"required":["name","age","tags"],"additionalProperties":false}"#;
    let schema = json_schema(schema).expect("a schema");
    let start = Instant::now();
    for _ in 0..TURNS {
        black_box(Grammar::compile(&schema).expect("a grammar"));
    }
    println!("compile/bytes={}: {} µs", schema.len(), start.elapsed().as_micros() / u128::from(TURNS));
    let object = json_object();
    for (name, source, before) in [
        ("start", &schema, ""),
        ("name of a property", &schema, r#"{""#),
        ("inside a string", &schema, r#"{"name":"Ann"#),
        ("integer", &schema, r#"{"name":"Ann","age":4"#),
        ("any object, inside a string", &object, r#"{"a":{"b":["c"#),
        ("any object, a value", &object, r#"{"a":"#),
    ] {
        let grammar = Grammar::compile(source).expect("a grammar");
        let state = grammar.advance_all(&grammar.start(), before.as_bytes());
        let start = Instant::now();
        let mut permitted = 0;
        for _ in 0..TURNS {
            permitted = black_box(vocabulary.mask(&grammar, &state)).count();
        }
        let micros = start.elapsed().as_micros() / u128::from(TURNS);
        println!("mask/{name}: {micros} µs, {permitted} permitted");
    }
}

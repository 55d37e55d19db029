//! Answers made by drawing among the permitted tokens at random: whatever is drawn, what comes out meets the schema.

mod common;

use std::collections::BTreeMap;

use common::{Random, document, meets};
use serde_json::Value;
use surety_grammar::{Form, Grammar, Mask, State, Vocabulary, forms, json_object, json_schema};

/// All bytes, and pieces as a tokenizer has them: pieces of characters among them.
fn pieces() -> Vec<Vec<u8>> {
    let longer = [
        "\": ",
        "\",",
        "{\"",
        "\"}",
        "}]",
        "},",
        " true",
        "false",
        "null",
        "ull}",
        "[[",
        "]]",
        ": [",
        "12",
        "000",
        "-1",
        "e+",
        "0.",
        "red",
        "rou",
        "ge\"",
        "name\":",
        "\"a\"",
        "\\u",
        "\\n",
        "\\\"",
        "größe",
        "ключ",
        "the ",
        "\n",
        ", ",
        "\", \"",
        "\u{1f999}",
    ];
    let mut pieces: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    pieces.extend(longer.iter().map(|piece| piece.as_bytes().to_vec()));
    pieces.extend([vec![0xf0, 0x9f], vec![0xa6, 0x99, b'"'], vec![b'"', 0xe2], vec![0x82, 0xac], Vec::new()]);
    pieces
}

struct Sampler {
    pieces: Vec<Vec<u8>>,
    vocabulary: Vocabulary,
    end: u32,
}

impl Sampler {
    fn new() -> Sampler {
        let pieces = pieces();
        let end = pieces.len() as u32;
        let tokens = pieces.iter().map(|piece| Some(piece.as_slice())).chain([None]);
        let vocabulary = Vocabulary::new(tokens);
        Sampler { vocabulary, end, pieces }
    }

    /// An answer, drawn at random. After `patience` tokens what closes is preferred where it may come.
    fn answer(
        &self,
        grammar: &Grammar,
        random: &mut Random,
        patience: usize,
        seen: &mut BTreeMap<State, Mask>,
    ) -> Vec<u8> {
        let mut state = grammar.start();
        let mut bytes = Vec::new();
        for count in 0.. {
            assert!(count < 20_000, "it comes to an end");
            let mask = seen.entry(state.clone()).or_insert_with(|| self.vocabulary.mask(grammar, &state));
            let all: Vec<u32> = (0..=self.end).filter(|token| mask.permits(*token)).collect();
            assert!(!all.is_empty(), "no dead end after {:?}", String::from_utf8_lossy(&bytes));
            assert_eq!(mask.permits(self.end), grammar.is_complete(&state));
            let closing = *b"\"}]n0".iter().find(|byte| mask.permits(u32::from(**byte))).unwrap_or(&0);
            let token = match (count > patience, closing) {
                (true, _) if mask.permits(self.end) => self.end,
                (true, 1..) => u32::from(closing),
                _ => all[random.below(all.len())],
            };
            if token == self.end {
                break;
            }
            let piece = &self.pieces[token as usize];
            let next = grammar.advance_all(&state, piece);
            assert!(!next.is_dead(), "what is permitted may come");
            assert_eq!(grammar.state_of(&next.to_words()), next, "a state survives its words");
            (state, _) = (next, bytes.extend(piece));
        }
        bytes
    }
}

#[test]
fn no_answer_violates_its_schema() {
    let sampler = Sampler::new();
    let mut random = Random(0x5eed);
    let (mut answers, mut refused, mut bytes) = (0, 0, 0);
    while answers < 10_000 {
        let schema = document(&mut random);
        let text = schema.to_string();
        let grammar = match json_schema(&text) {
            Ok(source) => Grammar::compile(&source).expect("it was compiled before"),
            Err(surety_grammar::GrammarError::Endless(_)) => {
                refused += 1;
                continue;
            }
            Err(error) => panic!("{error}: {text}"),
        };
        sampler.vocabulary.check(&grammar).expect("all bytes are there");
        let mut seen = BTreeMap::new();
        for _ in 0..25 {
            let patience = random.below(60);
            let answer = sampler.answer(&grammar, &mut random, patience, &mut seen);
            let value: Value = serde_json::from_slice(&answer)
                .unwrap_or_else(|error| panic!("{error}: {} by {text}", String::from_utf8_lossy(&answer)));
            assert!(meets(&schema, &schema, &value), "{value} does not meet {text}");
            answers += 1;
            bytes += answer.len();
        }
    }
    assert!(refused < answers / 100, "{refused} schemas that nothing finite meets");
    assert!(bytes > 20 * answers, "{bytes} bytes: the answers are not trivial");
}

#[test]
fn any_object_is_an_object() {
    let sampler = Sampler::new();
    let grammar = Grammar::compile(&json_object()).expect("a grammar");
    let mut random = Random(7);
    let mut seen = BTreeMap::new();
    for _ in 0..300 {
        let patience = random.below(200);
        let answer = sampler.answer(&grammar, &mut random, patience, &mut seen);
        let value: Value = serde_json::from_slice(&answer).expect("JSON");
        assert!(value.is_object(), "{value}");
    }
}

#[test]
fn a_mask_is_what_the_tokens_bytes_say() {
    let sampler = Sampler::new();
    let mut random = Random(99);
    for _ in 0..40 {
        let Ok(source) = json_schema(&document(&mut random).to_string()) else { continue };
        let grammar = Grammar::compile(&source).expect("a grammar");
        let mut state = grammar.start();
        for _ in 0..40 {
            let mask = sampler.vocabulary.mask(&grammar, &state);
            for (token, piece) in (0..).zip(&sampler.pieces) {
                let may = !piece.is_empty() && !grammar.advance_all(&state, piece).is_dead();
                assert_eq!(mask.permits(token), may, "{:?}", String::from_utf8_lossy(piece));
            }
            let all: Vec<u32> = (0..sampler.end).filter(|token| mask.permits(*token)).collect();
            assert_eq!(mask.count(), all.len() as u32 + u32::from(grammar.is_complete(&state)));
            if all.is_empty() {
                break;
            }
            state = grammar.advance_all(&state, &sampler.pieces[all[random.below(all.len())] as usize]);
        }
    }
}

#[test]
fn forms_stand_between_their_texts() {
    let call = |name, schema| Form { prefix: name, schema, suffix: ")" };
    let source = forms(
        &[
            call("add(", r#"{"type":"array","items":{"type":"integer"},"minItems":2,"maxItems":2}"#),
            call("all(", r#"{"type":"boolean"}"#),
        ],
        3,
        "; ",
    )
    .expect("a grammar");
    let grammar = Grammar::compile(&source).expect("a grammar");
    let whole = |text: &str| grammar.is_complete(&grammar.advance_all(&grammar.start(), text.as_bytes()));
    assert!(whole("add([1, 2])") && whole("all(true); add([3,4]); all(false)"));
    for other in [
        "",
        "add([1])",
        "all(true",
        "all(1)",
        "all(true);",
        "all(true); all(true); all(true); all(true)",
        "al(true)",
    ] {
        assert!(!whole(other), "{other}");
    }
}

#[test]
fn a_vocabulary_without_a_byte_is_refused() {
    let grammar =
        Grammar::compile(&json_schema(r#"{"type":"integer"}"#).expect("a grammar")).expect("a grammar");
    let all: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte]).collect();
    let of = |missing: u8| {
        Vocabulary::new(
            all.iter().map(|piece| if piece[0] == missing { None } else { Some(piece.as_slice()) }),
        )
    };
    assert_eq!(of(b'7').check(&grammar).map_err(|missing| missing.0), Err(b'7'));
    assert!(of(b'"').check(&grammar).is_ok());
}

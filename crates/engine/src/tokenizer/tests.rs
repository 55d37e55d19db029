use proptest::prelude::*;

use super::*;
use crate::gguf::build::Build;
use crate::gguf::{Array, Value};

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const BYTE: i32 = 6;

/// A byte-level vocabulary: the 256 bytes, the results of `merges`, then `special`.
fn byte_level(pre: &str, merges: &[&str], special: &[(&str, i32)]) -> Build {
    let mut tokens: Vec<(String, i32)> =
        (0..=255).map(|byte| (vocabulary::byte_character(byte).to_string(), NORMAL)).collect();
    tokens.extend(merges.iter().map(|merge| (merge.replacen(' ', "", 1), NORMAL)));
    tokens.extend(special.iter().map(|&(text, kind)| (text.to_owned(), kind)));
    with_tokens("gpt2", &tokens)
        .string("tokenizer.ggml.pre", pre)
        .strings("tokenizer.ggml.merges", merges.iter().copied())
}

fn with_tokens(model: &str, tokens: &[(String, i32)]) -> Build {
    Build::new()
        .string("tokenizer.ggml.model", model)
        .strings("tokenizer.ggml.tokens", tokens.iter().map(|(text, _)| text.as_str()))
        .set("tokenizer.ggml.token_type", types(tokens.iter().map(|&(_, kind)| kind).collect()))
}

fn types(types: Vec<i32>) -> Value {
    Value::Array(Array::I32(types))
}

fn tokenizer(build: &Build) -> Tokenizer {
    built(build).unwrap()
}

fn built(build: &Build) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::from_gguf(&Gguf::parse(&build.bytes()).unwrap())
}

/// The tokens of `text`, spelled out.
fn spelled(tokenizer: &Tokenizer, text: &str, special: Special) -> Vec<String> {
    let ids = tokenizer.encode(text, special);
    ids.iter().map(|&id| String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned()).collect()
}

fn check(tokenizer: &Tokenizer, text: &str, special: Special, expected: &[&str]) {
    assert_eq!(spelled(tokenizer, text, special), expected, "{text:?} {special:?}");
}

fn small_bpe() -> Tokenizer {
    let merges = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "l d"];
    let special = [("<|start|>x", CONTROL), ("<|end_of_text|>", CONTROL), ("<pad>", USER_DEFINED)];
    let build = byte_level("gpt-2", &merges, &special);
    let ends = 256 + merges.len() as u32 + 1;
    tokenizer(&build.set("tokenizer.ggml.eos_token_id", Value::U32(ends)))
}

/// Pieces of a SentencePiece vocabulary with their scores, after the unknown token, BOS, EOS and all bytes.
fn sentence_piece(pieces: &[(&str, f32)], special: &[(&str, i32)]) -> Build {
    let mut tokens: Vec<(String, i32)> =
        vec![("<unk>".into(), UNKNOWN), ("<s>".into(), CONTROL), ("</s>".into(), CONTROL)];
    tokens.extend((0..=255u8).map(|byte| (format!("<0x{byte:02X}>"), BYTE)));
    let mut scores = vec![0.0; tokens.len()];
    tokens.extend(pieces.iter().map(|&(text, _)| (text.to_owned(), NORMAL)));
    scores.extend(pieces.iter().map(|&(_, score)| score));
    tokens.extend(special.iter().map(|&(text, kind)| (text.to_owned(), kind)));
    scores.extend(special.iter().map(|_| 0.0));
    with_tokens("llama", &tokens).set("tokenizer.ggml.scores", Value::Array(Array::F32(scores)))
}

fn small_sentence_piece() -> Tokenizer {
    let pieces = [
        ("▁", -1.0),
        ("h", -2.0),
        ("i", -2.0),
        ("hi", -3.0),
        ("▁hi", -4.0),
        ("▁h", -2.5),
        ("t", -2.0),
        ("hit", -3.1),
    ];
    tokenizer(&sentence_piece(&pieces, &[("<user>", USER_DEFINED), ("<|turn|>", CONTROL)]))
}

#[test]
fn merges_follow_their_ranks() {
    let tokenizer = small_bpe();
    check(&tokenizer, "hello world", Special::PLAIN, &["hello", " wor", "ld"]);
    check(&tokenizer, "helo", Special::PLAIN, &["he", "l", "o"]);
    check(&tokenizer, "llll", Special::PLAIN, &["ll", "ll"]);
    check(&tokenizer, "lllll", Special::PLAIN, &["ll", "ll", "l"]);
    check(&tokenizer, "", Special::PLAIN, &[]);
    let euro: Vec<u32> = tokenizer.encode("€", Special::PLAIN);
    assert_eq!(tokenizer.decode_bytes(&euro), "€".as_bytes());
    assert_eq!(euro.len(), 3);
}

#[test]
fn special_tokens_are_found_only_where_they_may_be() {
    let tokenizer = small_bpe();
    let text = "hell<|end_of_text|>o<pad>";
    check(&tokenizer, text, Special::TEMPLATE, &["hell", "<|end_of_text|>", "o", "<pad>"]);
    let plain = spelled(&tokenizer, text, Special::PLAIN);
    assert!(!plain.contains(&"<|end_of_text|>".to_owned()));
    assert_eq!(plain.last().unwrap(), "<pad>", "user-defined tokens are always found");
    let end = tokenizer.token_id("<|end_of_text|>").unwrap();
    assert!(tokenizer.is_end_of_generation(end) && tokenizer.is_control(end));
    assert_eq!(tokenizer.text_bytes(end), b"");
    assert_eq!(tokenizer.token_bytes(end), b"<|end_of_text|>");
    assert_eq!(tokenizer.token_bytes(1_000_000), b"");
}

#[test]
fn longer_special_tokens_win_then_lower_ids() {
    let special = [("ab", CONTROL), ("bcd", CONTROL), ("dx", CONTROL), ("xx", USER_DEFINED)];
    let tokenizer = tokenizer(&byte_level("gpt-2", &["a a"], &special));
    check(&tokenizer, "abcd", Special::TEMPLATE, &["a", "bcd"]);
    check(&tokenizer, "abdxx", Special::TEMPLATE, &["ab", "dx", "x"]);
    check(&tokenizer, "xxxxx", Special::TEMPLATE, &["xx", "xx", "x"]);
    check(&tokenizer, "abdxx", Special::PLAIN, &["a", "b", "d", "xx"]);
}

#[test]
fn bounds_are_added_as_the_metadata_says() {
    let build = || byte_level("gpt-2", &["a a"], &[("<s>", CONTROL), ("</s>", CONTROL)]);
    let ids = |build: Build| {
        build
            .set("tokenizer.ggml.bos_token_id", Value::U32(257))
            .set("tokenizer.ggml.eos_token_id", Value::U32(258))
    };
    check(&tokenizer(&ids(build())), "aa", Special::PLAIN_WITH_BOUNDS, &["aa"]);
    let with = ids(build())
        .set("tokenizer.ggml.add_bos_token", Value::Bool(true))
        .set("tokenizer.ggml.add_eos_token", Value::Bool(true));
    check(&tokenizer(&with), "aa", Special::PLAIN_WITH_BOUNDS, &["<s>", "aa", "</s>"]);
    check(&tokenizer(&with), "", Special::PLAIN_WITH_BOUNDS, &["<s>", "</s>"]);
    check(&tokenizer(&with), "aa", Special::TEMPLATE, &["aa"]);
    let none = build().set("tokenizer.ggml.add_bos_token", Value::Bool(true));
    assert!(matches!(built(&none), Err(TokenizerError::MissingSpecial { name: "BOS" })));
    // Llama 3 vocabularies begin with BOS unless told otherwise.
    let llama3 = byte_level("llama-bpe", &["a a"], &[("<s>", CONTROL)])
        .set("tokenizer.ggml.bos_token_id", Value::U32(257));
    check(&tokenizer(&llama3), "aa", Special::PLAIN_WITH_BOUNDS, &["<s>", "aa"]);
}

#[test]
fn whole_pieces_may_skip_merging() {
    // "abc" is a token no merge leads to.
    let special = [("abc", NORMAL), ("<s>", CONTROL)];
    let build = |pre| byte_level(pre, &["b c"], &special).set("tokenizer.ggml.bos_token_id", Value::U32(258));
    check(&tokenizer(&build("llama-bpe")), "abc", Special::PLAIN, &["abc"]);
    check(&tokenizer(&build("gpt-2")), "abc", Special::PLAIN, &["a", "bc"]);
}

#[test]
fn merges_need_not_lead_to_tokens() {
    let tokens: Vec<(String, i32)> =
        ["a", "b", "c", "abc", "?"].iter().map(|text| (text.to_string(), NORMAL)).collect();
    let build = |unknown: u32| {
        with_tokens("gpt2", &tokens)
            .string("tokenizer.ggml.pre", "gpt-2")
            .strings("tokenizer.ggml.merges", ["a b", "ab c"])
            .set("tokenizer.ggml.unknown_token_id", Value::U32(unknown))
    };
    let with_unknown = tokenizer(&build(4));
    check(&with_unknown, "abc", Special::PLAIN, &["abc"]);
    check(&with_unknown, "abab", Special::PLAIN, &["a", "b", "a", "b"]);
    check(&with_unknown, "axb", Special::PLAIN, &["a", "?", "b"]);
    check(&tokenizer(&build(u32::MAX)), "axb", Special::PLAIN, &["a", "b"]);
}

#[test]
fn sentence_piece_merges_by_score() {
    let tokenizer = small_sentence_piece();
    check(&tokenizer, "hi", Special::PLAIN, &[" hi"]);
    // "▁h" scores higher than "hi" and "hit", so it comes first, and "hit" cannot come any more.
    check(&tokenizer, "hit", Special::PLAIN, &[" hi", "t"]);
    check(&tokenizer, "thit", Special::PLAIN, &[" ", "t", "hit"]);
    check(&tokenizer, "hi hi", Special::PLAIN, &[" hi", " hi"]);
    check(&tokenizer, "", Special::PLAIN_WITH_BOUNDS, &["<s>"]);
    check(&tokenizer, "hi", Special::PLAIN_WITH_BOUNDS, &["<s>", " hi"]);
    // A space is prefixed at the start and after special tokens.
    check(&tokenizer, "hi<user>hi", Special::PLAIN, &[" hi", "<user>", " hi"]);
    check(&tokenizer, "<|turn|>hi", Special::TEMPLATE, &["<|turn|>", " hi"]);
    let euro = tokenizer.encode("€", Special::PLAIN);
    assert_eq!(tokenizer.decode_bytes(&euro), " €".as_bytes());
    assert_eq!(tokenizer.token_id("</s>").map(|id| tokenizer.is_end_of_generation(id)), Some(true));
}

#[test]
fn sentence_piece_options_are_read() {
    let pieces = [("▁", -1.0), ("h", -2.0), ("▁h", -2.5)];
    let without = sentence_piece(&pieces, &[]).set("tokenizer.ggml.add_space_prefix", Value::Bool(false));
    check(&tokenizer(&without), "h h", Special::PLAIN, &["h", " h"]);
    let nan = sentence_piece(&[("x", f32::NAN)], &[]);
    assert!(matches!(built(&nan), Err(TokenizerError::Score { id: 259 })));
    // Without byte tokens a character that is no token is the unknown token, once.
    let tokens: Vec<(String, i32)> = [("<unk>", UNKNOWN), ("▁", NORMAL), ("h", NORMAL)]
        .map(|(text, kind)| (text.to_owned(), kind))
        .to_vec();
    let bare = with_tokens("llama", &tokens).set("tokenizer.ggml.add_bos_token", Value::Bool(false));
    assert_eq!(tokenizer(&bare).encode("h€h", Special::PLAIN), [1, 2, 0, 2]);
}

#[test]
fn phi_3_special_tokens_swallow_white_space() {
    let special = [("<|user|>", CONTROL)];
    let phi =
        |name| tokenizer(&sentence_piece(&[("▁", -1.0), ("h", -2.0)], &special).string("general.name", name));
    check(&phi("Phi3"), "<|user|> \n h", Special::TEMPLATE, &["<|user|>", " ", "h"]);
    check(&phi("Other"), "<|user|> h", Special::TEMPLATE, &["<|user|>", " ", " ", "h"]);
}

#[test]
fn word_piece_takes_the_longest_pieces() {
    let texts = ["[UNK]", "[CLS]", "[SEP]", "▁play", "ing", "▁,", "▁e", "s", "▁中", "▁pl", "ay"];
    let tokens: Vec<(String, i32)> = texts
        .iter()
        .map(|text| (text.to_string(), if text.starts_with('[') { CONTROL } else { NORMAL }))
        .collect();
    let tokenizer = tokenizer(
        &with_tokens("bert", &tokens)
            .set("tokenizer.ggml.unknown_token_id", Value::U32(0))
            .set("tokenizer.ggml.bos_token_id", Value::U32(1))
            .set("tokenizer.ggml.seperator_token_id", Value::U32(2)),
    );
    check(&tokenizer, "Playing, Plays", Special::PLAIN, &[" play", "ing", " ,", " play", "s"]);
    check(&tokenizer, "És中", Special::PLAIN, &[" e", "s", " 中"]);
    check(&tokenizer, "play xyz", Special::PLAIN_WITH_BOUNDS, &["[CLS]", " play", "[UNK]", "[SEP]"]);
    check(&tokenizer, " \0\u{200d}\n", Special::PLAIN, &[]);
}

#[test]
fn ends_of_generation_are_told_by_role_and_name() {
    let special = [
        ("<|im_end|>", NORMAL),
        ("<|fim_pad|>", CONTROL),
        ("<|file_sep|>", CONTROL),
        ("<|im_start|>", CONTROL),
        ("</s>", CONTROL),
        ("stop", CONTROL),
    ];
    let build = byte_level("qwen2", &["a a"], &special).set("tokenizer.ggml.eos_token_id", Value::U32(262));
    let tokenizer = tokenizer(&build);
    let ends: Vec<&[u8]> =
        tokenizer.ends_of_generation().iter().map(|&id| tokenizer.token_bytes(id)).collect();
    assert_eq!(ends, [&b"<|im_end|>"[..], b"<|fim_pad|>", b"<|file_sep|>", b"</s>", b"stop"]);
    assert!(tokenizer.is_control(257), "<|im_end|> is a control token whatever its type says");
}

#[test]
fn harmony_keeps_its_message_ends() {
    let special =
        [("<|end|>", CONTROL), ("<|return|>", CONTROL), ("<|call|>", CONTROL), ("<|channel|>", CONTROL)];
    let tokenizer = tokenizer(&byte_level("gpt-4o", &["a a"], &special));
    let ends: Vec<&[u8]> =
        tokenizer.ends_of_generation().iter().map(|&id| tokenizer.token_bytes(id)).collect();
    assert_eq!(ends, [&b"<|return|>"[..], b"<|call|>"]);
    assert_eq!(tokenizer.text_bytes(tokenizer.token_id("<|channel|>").unwrap()), b"<|channel|>");
}

#[test]
fn bad_vocabularies_are_refused_by_name() {
    let base = || byte_level("gpt-2", &["a a"], &[]);
    let refused = |build: Build| built(&build).unwrap_err().to_string();
    assert!(
        refused(Build::new().string("tokenizer.ggml.model", "t5"))
            .starts_with("tokenizer \"t5\" is not supported")
    );
    let pre = refused(byte_level("nonesuch", &["a a"], &[]));
    assert!(pre.contains("\"nonesuch\"") && pre.contains("llama-bpe"), "{pre}");
    let twice = refused(byte_level("gpt-2", &["a a"], &[("x", NORMAL)]));
    assert_eq!(twice, "tokens 120 and 257 are both \"x\"");
    for bad in ["ab", "a ", " "] {
        let tokens: Vec<(String, i32)> = vec![("a".into(), NORMAL)];
        let build = with_tokens("gpt2", &tokens).strings("tokenizer.ggml.merges", [bad]);
        assert!(matches!(built(&build), Err(TokenizerError::Merge { index: 0, .. })), "{bad:?}");
    }
    assert_eq!(
        refused(base().set("tokenizer.ggml.eos_token_id", Value::U32(257))),
        "tokenizer.ggml.eos_token_id is 257, but the vocabulary has 257 tokens"
    );
    let long = "x".repeat(TOKEN_BYTES_MAX + 1);
    assert!(refused(byte_level("gpt-2", &["a a"], &[(&long, NORMAL)])).contains("is 4097 bytes long"));
    assert!(refused(sentence_piece(&[], &[("<0xG1>", BYTE)])).contains("marked as a byte"));
    let none = Build::new().string("tokenizer.ggml.model", "gpt2").strings("tokenizer.ggml.tokens", []);
    assert!(matches!(built(&none), Err(TokenizerError::Size { count: 0 })));
    let short = Build::new()
        .string("tokenizer.ggml.model", "llama")
        .strings("tokenizer.ggml.tokens", ["a", "b"])
        .set("tokenizer.ggml.token_type", types(vec![1]));
    assert!(matches!(built(&short), Err(TokenizerError::Length { found: 1, tokens: 2, .. })));
}

#[test]
fn descriptions_differ_where_behaviour_does() {
    let describe = |build: &Build| {
        let mut bytes = Vec::new();
        tokenizer(build).describe(&mut |part| bytes.extend_from_slice(part));
        bytes
    };
    let base = describe(&byte_level("gpt-2", &["a a", "b b"], &[("<s>", CONTROL)]));
    assert_eq!(base, describe(&byte_level("phi-2", &["a a", "b b"], &[("<s>", CONTROL)])), "one family");
    let others = [
        byte_level("qwen2", &["a a", "b b"], &[("<s>", CONTROL)]),
        byte_level("gpt-2", &["b b", "a a"], &[("<s>", CONTROL)]),
        byte_level("gpt-2", &["a a", "b b"], &[("<s>", NORMAL)]),
        byte_level("gpt-2", &["a a", "b b"], &[("<t>", CONTROL)]),
        byte_level("gpt-2", &["a a", "b b"], &[("<s>", CONTROL)])
            .set("tokenizer.ggml.eos_token_id", Value::U32(1)),
        sentence_piece(&[("a", -1.0)], &[]),
        sentence_piece(&[("a", -2.0)], &[]),
        sentence_piece(&[("a", -1.0)], &[]).set("tokenizer.ggml.add_space_prefix", Value::Bool(false)),
    ];
    let mut all: Vec<Vec<u8>> = others.iter().map(describe).collect();
    all.push(base);
    let unique: std::collections::BTreeSet<&Vec<u8>> = all.iter().collect();
    assert_eq!(unique.len(), all.len());
}

/// Long runs and repetitions, on which a careless implementation takes quadratic time.
#[test]
fn repetitive_text_takes_no_longer_than_other_text() {
    let size = 1 << 18;
    let merges = ["a a", "aa aa", "aaaa aaaa", "Ġ Ġ", "ĠĠ ĠĠ"];
    let spaces = ["  ", "   ", "    ", "     ", "      ", "<|x|>", "<|xy|>"].map(|text| (text, USER_DEFINED));
    let pieces = [("a", -1.0), ("aa", -2.0), ("aaaa", -3.0), ("▁", -1.0), ("▁▁", -2.0), ("▁a", -4.0)];
    let texts = ["a", " ", "<", "<|x|>", "aA", "a ", "\n ", "\u{e9}", "1", "'s", "中A"]
        .map(|unit| unit.repeat(size / unit.len()));
    let started = std::time::Instant::now();
    let mut tokenizers: Vec<Tokenizer> = split::PreTokenizer::names()
        .filter(|name| split::PreTokenizer::named(name).unwrap().family == *name)
        .map(|pre| {
            tokenizer(&byte_level(pre, &merges, &spaces).set("tokenizer.ggml.bos_token_id", Value::U32(0)))
        })
        .collect();
    tokenizers.push(tokenizer(&sentence_piece(&pieces, &spaces)));
    for tokenizer in &tokenizers {
        for text in &texts {
            let ids = tokenizer.encode(text, Special::TEMPLATE);
            assert!(!ids.is_empty());
        }
    }
    let each = started.elapsed() / (tokenizers.len() * texts.len()) as u32;
    // Quadratic time would be minutes. The bound leaves room for slow machines and unoptimised builds.
    assert!(each.as_secs() < 10, "{each:?} for a text of {size} bytes");
}

proptest! {
    #[test]
    fn byte_level_text_survives_the_round_trip(text in ".{0,60}", pre in 0usize..18) {
        let names: Vec<&str> = split::PreTokenizer::names().collect();
        let merges = ["h e", "Ġ Ġ", "Ã ©", "Ġ t", "l l"];
        let build = byte_level(names[pre * names.len() / 18], &merges, &[("<|x|>", USER_DEFINED)])
            .set("tokenizer.ggml.bos_token_id", Value::U32(0));
        let tokenizer = tokenizer(&build);
        let ids = tokenizer.encode(&text, Special::PLAIN);
        prop_assert_eq!(String::from_utf8(tokenizer.decode_bytes(&ids)).unwrap(), text);
    }

    #[test]
    fn sentence_piece_text_survives_the_round_trip(text in "[a-z hit€\n中]{0,60}") {
        let tokenizer = small_sentence_piece();
        let ids = tokenizer.encode(&text, Special::PLAIN);
        let expected = if text.is_empty() { text } else { format!(" {text}") };
        prop_assert_eq!(String::from_utf8(tokenizer.decode_bytes(&ids)).unwrap(), expected);
    }

    #[test]
    fn merging_agrees_with_the_definition(text in "[abc]{1,40}", order in Just((0..9).collect::<Vec<_>>()).prop_shuffle()) {
        let all = ["a a", "a b", "b c", "aa b", "c c", "b b", "ab ab", "bc c", "ca b"];
        let merges: Vec<&str> = order.iter().map(|&index: &usize| all[index]).collect();
        let tokenizer = tokenizer(&byte_level("gpt-2", &merges, &[]));
        // The definition: the lowest rank first, the leftmost of equal ones.
        let mut symbols: Vec<String> = text.chars().map(String::from).collect();
        while let Some((_, place)) = symbols
            .windows(2)
            .enumerate()
            .filter_map(|(place, pair)| {
                let rank = merges.iter().position(|merge| *merge == format!("{} {}", pair[0], pair[1]))?;
                Some((rank, place))
            })
            .min()
        {
            let right = symbols.remove(place + 1);
            symbols[place] += &right;
        }
        prop_assert_eq!(spelled(&tokenizer, &text, Special::PLAIN), symbols);
    }

    #[test]
    fn damaged_files_never_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        kind in 0usize..3,
    ) {
        let build = match kind {
            0 => byte_level("gpt-2", &["a a", "b b"], &[("<s>", CONTROL)]),
            1 => sentence_piece(&[("a", -1.0), ("▁a", -2.0)], &[("<x>", CONTROL)]),
            _ => with_tokens("bert", &[("a".into(), NORMAL), ("▁b".into(), NORMAL)]),
        };
        let mut bytes = build.bytes();
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Ok(tokenizer) = Gguf::parse(&bytes).map_err(TokenizerError::from).and_then(|gguf| Tokenizer::from_gguf(&gguf)) {
            let ids = tokenizer.encode("a b<s> aa", Special { parse: true, add: true });
            tokenizer.decode_bytes(&ids);
        }
    }
}

#[test]
fn only_vocabularies_whose_ids_spell_their_texts_say_so() {
    let merges = ["h e", "Ġ w"];
    assert!(small_bpe().spells_prompts());
    assert!(!small_sentence_piece().spells_prompts());
    // A token that nothing becomes may spell nothing; one that text becomes may not.
    let unused = byte_level("gpt-2", &merges, &[("[PAD1]", 5)]);
    assert!(tokenizer(&unused).spells_prompts());
    let byte = |byte| (vocabulary::byte_character(byte).to_string(), NORMAL);
    let mut tokens: Vec<(String, i32)> = (0..=255).map(byte).collect();
    tokens.push(("he".into(), 5));
    let merged = with_tokens("gpt2", &tokens).string("tokenizer.ggml.pre", "gpt-2");
    assert!(!tokenizer(&merged.strings("tokenizer.ggml.merges", merges)).spells_prompts());
    // White space that a token swallows.
    let phi = byte_level("gpt-2", &merges, &[("<|end|>", CONTROL)]).string("general.name", "Phi-3 mini");
    assert!(!tokenizer(&phi).spells_prompts());
    // A byte that is no token.
    let tokens: Vec<(String, i32)> =
        (1..=255).map(|byte| (vocabulary::byte_character(byte).to_string(), NORMAL)).collect();
    let lacking = with_tokens("gpt2", &tokens).string("tokenizer.ggml.pre", "gpt-2");
    assert!(!tokenizer(&lacking.strings("tokenizer.ggml.merges", merges)).spells_prompts());
}

proptest! {
    #[test]
    fn ids_of_such_a_vocabulary_spell_every_text(
        text in prop::collection::vec(
            prop_oneof![".{0,6}", Just("<|start|>x".to_owned()), Just("<pad>".into()), Just(" world".into())],
            0..6,
        ),
        parse: bool,
    ) {
        let (tokenizer, text) = (small_bpe(), text.concat());
        let ids = tokenizer.encode(&text, Special { parse, add: false });
        let spelling = tokenizer.spelling().expect("short");
        let pieces = ids.iter().map(|id| spelling.bytes(spelling.piece(*id).expect("an id")));
        prop_assert_eq!(pieces.flatten().copied().collect::<Vec<u8>>(), text.as_bytes());
    }
}

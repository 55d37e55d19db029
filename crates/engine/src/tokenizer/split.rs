//! Pre-tokenizers: the cuts a byte-level BPE vocabulary expects in its text before merging.
//!
//! In:     the name from `tokenizer.ggml.pre`; text.
//! Out:    the ends of the pieces.
//! Touches: nothing.
//! Holds:  time and memory are linear in the text, whatever the text; each stage cuts exactly where its regular
//!         expression would (tests compare the two).
//! Absent: merging (`bpe`), special tokens (`partition`).
//!
//! Vocabularies define their cuts as regular expressions tried in turn: what a stage matches, and what lies
//! between its matches, are the pieces the next stage cuts further. The expressions stand beside the code
//! that does their work, in the form llama.cpp gives them. They are few and regular enough to write out, and
//! so need no backtracking and no bound on it.

use std::sync::LazyLock;

use super::unicode::{LETTER, MARK, NUMBER, PUNCTUATION, SPACE, SYMBOL, class};

/// How one vocabulary family cuts text, and what else its name implies.
#[derive(Clone, Copy)]
pub(super) struct PreTokenizer {
    /// The family's name, the first of the names that select it.
    pub(super) family: &'static str,
    stages: &'static [Stage],
    /// A piece that is a token is not merged, but taken whole.
    pub(super) ignore_merges: bool,
    /// Whether texts begin with the BOS token if the metadata does not say.
    pub(super) add_bos: bool,
}

#[derive(Clone, Copy)]
enum Stage {
    /// Cuts out every match: the function gives the length of the match that begins at an index, 0 for none.
    Matches(fn(Chars<'_>, usize) -> usize),
    /// `\s+$`
    TrailingSpace,
}

/// Names in `tokenizer.ggml.pre`, each with the family it selects.
static FAMILIES: &[(&[&str], PreTokenizer)] = &[
    (
        &["default"],
        PreTokenizer::new(
            "default",
            &[
                Stage::Matches(default_symbols),
                Stage::Matches(gpt2),
                Stage::Matches(numbers),
                Stage::Matches(digits_3),
            ],
        ),
    ),
    (
        &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
            "exaone4",
            "gigachat",
            "a.x-4.0",
            "mellum",
        ],
        PreTokenizer::new("gpt-2", &[Stage::Matches(gpt2)]),
    ),
    (
        &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
        PreTokenizer {
            ignore_merges: true,
            add_bos: true,
            ..PreTokenizer::new("llama-bpe", &[Stage::Matches(llama3)])
        },
    ),
    (&["dbrx", "smaug-bpe", "chatglm-bpe"], PreTokenizer::new("dbrx", &[Stage::Matches(llama3)])),
    (
        &["glm4", "glm5"],
        PreTokenizer { ignore_merges: true, ..PreTokenizer::new("glm4", &[Stage::Matches(llama3)]) },
    ),
    (
        &[
            "qwen2",
            "deepseek-r1-qwen",
            "kormo",
            "f2llmv2",
            "megrez",
            "stablelm2",
            "hunyuan",
            "solar-open",
            "grok-2",
            "bailingmoe",
            "bailingmoe2",
            "llada-moe",
        ],
        PreTokenizer::new("qwen2", &[Stage::Matches(qwen2)]),
    ),
    (&["qwen35"], PreTokenizer::new("qwen35", &[Stage::Matches(qwen35)])),
    (&["seed-coder"], PreTokenizer::new("seed-coder", &[Stage::Matches(seed_coder)])),
    (
        &["deepseek-llm"],
        PreTokenizer::new(
            "deepseek-llm",
            &[
                Stage::Matches(newline),
                Stage::Matches(deepseek_letters),
                Stage::Matches(deepseek_punctuation),
                Stage::TrailingSpace,
                Stage::Matches(deepseek_cjk),
                Stage::Matches(numbers),
            ],
        ),
    ),
    (
        &["deepseek-coder"],
        PreTokenizer::new(
            "deepseek-coder",
            &[
                Stage::Matches(newline),
                Stage::Matches(spaced_letters),
                Stage::Matches(spaced_punctuation),
                Stage::Matches(deepseek_cjk),
                Stage::Matches(number),
            ],
        ),
    ),
    (
        &["deepseek-v3", "hunyuan-dense", "hy_v4", "joyai-llm"],
        PreTokenizer::new(
            "deepseek-v3",
            &[Stage::Matches(numbers_3), Stage::Matches(deepseek_v3_cjk), Stage::Matches(deepseek_v3)],
        ),
    ),
    (
        &["falcon"],
        PreTokenizer::new(
            "falcon",
            &[Stage::Matches(falcon_symbols), Stage::Matches(gpt2), Stage::Matches(digits_3)],
        ),
    ),
    (
        &["starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"],
        PreTokenizer::new("starcoder", &[Stage::Matches(number), Stage::Matches(gpt2)]),
    ),
    (
        &["tekken"],
        PreTokenizer {
            ignore_merges: true,
            add_bos: true,
            ..PreTokenizer::new("tekken", &[Stage::Matches(tekken)])
        },
    ),
    (
        &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"],
        PreTokenizer::new("gpt-4o", &[Stage::Matches(gpt4o)]),
    ),
    (&["poro-chat", "bloom", "gpt3-finnish"], PreTokenizer::new("poro-chat", &[Stage::Matches(poro)])),
    (&["viking"], PreTokenizer::new("viking", &[Stage::Matches(poro), Stage::Matches(number)])),
];

impl PreTokenizer {
    const fn new(family: &'static str, stages: &'static [Stage]) -> Self {
        Self { family, stages, ignore_merges: false, add_bos: false }
    }

    /// The family a name selects.
    pub(super) fn named(name: &str) -> Option<Self> {
        FAMILIES.iter().find(|(names, _)| names.contains(&name)).map(|&(_, family)| family)
    }

    /// Every name that selects a family.
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        FAMILIES.iter().flat_map(|(names, _)| names.iter().copied())
    }

    /// Cuts `text`: the byte offsets at which the pieces end, in order.
    pub(super) fn split(&self, text: &str) -> Vec<usize> {
        let chars: Vec<char> = text.chars().collect();
        let classes: Vec<u8> = chars.iter().map(|&character| class(character)).collect();
        let mut ends = vec![chars.len()];
        let mut finer = Vec::new();
        for stage in self.stages {
            let mut start = 0;
            for &end in &ends {
                let piece = Chars { chars: &chars[start..end], classes: &classes[start..end] };
                stage.cut(piece, start, &mut finer);
                start = end;
            }
            std::mem::swap(&mut ends, &mut finer);
            finer.clear();
        }
        let (mut bytes, mut start) = (0, 0);
        for end in &mut ends {
            bytes += chars[start..*end].iter().map(|character| character.len_utf8()).sum::<usize>();
            start = *end;
            *end = bytes;
        }
        ends
    }
}

impl Stage {
    /// Cuts one piece that begins at `start`, appending the ends.
    fn cut(self, piece: Chars<'_>, start: usize, ends: &mut Vec<usize>) {
        let length = piece.chars.len();
        // Where the last piece appended ends.
        let mut done = 0;
        let mut append = |end: usize| {
            if end > done {
                ends.push(start + end);
                done = end;
            }
        };
        match self {
            Stage::TrailingSpace => {
                let trailing = piece.classes.iter().rev().take_while(|&&class| class & SPACE != 0).count();
                append(length - trailing);
            }
            Stage::Matches(match_at) => {
                let mut at = 0;
                while at < length {
                    let matched = match_at(piece, at);
                    if matched > 0 {
                        append(at);
                        append(at + matched);
                    }
                    at += matched.max(1);
                }
            }
        }
        append(length);
    }
}

/// The characters of one piece and their classes. What lies outside the piece does not exist for its matches.
#[derive(Clone, Copy)]
struct Chars<'a> {
    chars: &'a [char],
    classes: &'a [u8],
}

impl Chars<'_> {
    fn at(&self, index: usize) -> Option<char> {
        self.chars.get(index).copied()
    }

    /// Whether the character at `index` exists and is of one of the classes in `mask`.
    fn is(&self, index: usize, mask: u8) -> bool {
        self.classes.get(index).is_some_and(|class| class & mask != 0)
    }

    /// How many characters from `index` on are of the classes in `mask`.
    fn run(&self, index: usize, mask: u8) -> usize {
        self.classes.iter().skip(index).take_while(|&&class| class & mask != 0).count()
    }

    /// How many characters from `index` on are of none of the classes in `mask`.
    fn run_without(&self, index: usize, mask: u8) -> usize {
        self.classes.iter().skip(index).take_while(|&&class| class & mask == 0).count()
    }

    /// How many characters from `index` on satisfy `predicate`.
    fn run_where(&self, index: usize, predicate: impl Fn(char) -> bool) -> usize {
        self.chars.iter().skip(index).take_while(|&&character| predicate(character)).count()
    }

    /// 1 if there is a space at `index`, else 0: the ` ?` that opens many expressions.
    fn space(&self, index: usize) -> usize {
        usize::from(self.at(index) == Some(' '))
    }
}

/// `tail` after `lead` characters, or nothing if there is no tail.
fn after(lead: usize, tail: usize) -> usize {
    if tail == 0 { 0 } else { lead + tail }
}

/// The first match there is.
macro_rules! first_of {
    ($($matched:expr,)*) => {{
        $(let matched: usize = $matched; if matched > 0 { return matched; })*
        0
    }};
}

/// `'s|'t|'re|'ve|'m|'ll|'d`
fn contraction(chars: Chars<'_>, at: usize) -> usize {
    apostrophe(chars, at, |character| character)
}

/// `'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]`
fn contraction_any_case(chars: Chars<'_>, at: usize) -> usize {
    apostrophe(chars, at, |character| character.to_ascii_lowercase())
}

fn apostrophe(chars: Chars<'_>, at: usize, fold: fn(char) -> char) -> usize {
    if chars.at(at) != Some('\'') {
        return 0;
    }
    match (chars.at(at + 1).map(fold), chars.at(at + 2).map(fold)) {
        (Some('s' | 't' | 'm' | 'd'), _) => 2,
        (Some('r' | 'v'), Some('e')) | (Some('l'), Some('l')) => 3,
        _ => 0,
    }
}

/// `\s+(?!\S)`: white space up to the end, or all but its last character.
fn space_before_space(chars: Chars<'_>, at: usize) -> usize {
    let spaces = chars.run(at, SPACE);
    if at + spaces == chars.chars.len() { spaces } else { spaces.saturating_sub(1) }
}

/// `\s*[\r\n]+`: white space up to its last line break.
fn space_to_newline(chars: Chars<'_>, at: usize) -> usize {
    let spaces = &chars.chars[at..at + chars.run(at, SPACE)];
    spaces.iter().rposition(|character| matches!(character, '\r' | '\n')).map_or(0, |last| last + 1)
}

/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)`
fn gpt2(chars: Chars<'_>, at: usize) -> usize {
    let space = chars.space(at);
    first_of! {
        contraction(chars, at),
        after(space, chars.run(at + space, LETTER)),
        after(space, chars.run(at + space, NUMBER)),
        after(space, chars.run_without(at + space, SPACE | LETTER | NUMBER)),
        space_before_space(chars, at),
    }
}

/// `C|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`, where C is a
/// contraction in any case
fn llama3(chars: Chars<'_>, at: usize) -> usize {
    first_of! {
        contraction_any_case(chars, at),
        led_word(chars, at, LETTER, LETTER | NUMBER),
        numbers_3(chars, at),
        symbols_and_breaks(chars, at, SPACE | LETTER | NUMBER, &['\r', '\n']),
        space_to_newline(chars, at),
        space_before_space(chars, at),
        chars.run(at, SPACE),
    }
}

/// As `llama3`, with `\p{N}`.
fn qwen2(chars: Chars<'_>, at: usize) -> usize {
    first_of! {
        contraction_any_case(chars, at),
        led_word(chars, at, LETTER, LETTER | NUMBER),
        number(chars, at),
        symbols_and_breaks(chars, at, SPACE | LETTER | NUMBER, &['\r', '\n']),
        space_to_newline(chars, at),
        space_before_space(chars, at),
        chars.run(at, SPACE),
    }
}

/// As `qwen2`, with `[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+` and ` ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*`.
fn qwen35(chars: Chars<'_>, at: usize) -> usize {
    first_of! {
        contraction_any_case(chars, at),
        led_word(chars, at, LETTER | MARK, LETTER | NUMBER),
        number(chars, at),
        symbols_and_breaks(chars, at, SPACE | LETTER | MARK | NUMBER, &['\r', '\n']),
        space_to_newline(chars, at),
        space_before_space(chars, at),
        chars.run(at, SPACE),
    }
}

/// As `qwen2`, with ` ?[^\s\p{L}\p{N}\r\n]+`.
fn seed_coder(chars: Chars<'_>, at: usize) -> usize {
    first_of! {
        contraction_any_case(chars, at),
        led_word(chars, at, LETTER, LETTER | NUMBER),
        number(chars, at),
        symbols_and_breaks(chars, at, SPACE | LETTER | NUMBER, &[]),
        space_to_newline(chars, at),
        space_before_space(chars, at),
        chars.run(at, SPACE),
    }
}

/// `[^\r\n B]?[W]+`: characters of the classes `word`, after at most one character that is no line break and
/// none of the classes `barred`.
fn led_word(chars: Chars<'_>, at: usize, word: u8, barred: u8) -> usize {
    match chars.run(at, word) {
        0 if matches!(chars.at(at), Some('\r' | '\n')) || chars.is(at, barred) => 0,
        0 => after(1, chars.run(at + 1, word)),
        // A mark may be both leader and word; either way the match is the run.
        run => run,
    }
}

/// ` ?[^N]+[T]*`: characters of none of the classes `barred`, then any of the characters `tail`.
fn symbols_and_breaks(chars: Chars<'_>, at: usize, barred: u8, tail: &[char]) -> usize {
    let space = chars.space(at);
    match after(space, chars.run_without(at + space, barred)) {
        0 => 0,
        symbols => symbols + chars.run_where(at + symbols, |character| tail.contains(&character)),
    }
}

/// `[^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))*((?=[\p{L}])([^A-Z]))+` or else
/// `[^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))+((?=[\p{L}])([^A-Z]))*`
fn cased_word(chars: Chars<'_>, at: usize) -> usize {
    let barred = matches!(chars.at(at), Some('\r' | '\n')) || chars.is(at, LETTER | NUMBER);
    let lead = usize::from(!barred);
    let letters = |from: usize, counts: fn(char) -> bool| {
        let pairs = chars.chars.iter().zip(chars.classes).skip(from);
        pairs.take_while(|&(&character, class)| class & LETTER != 0 && counts(character)).count()
    };
    let start = at + lead;
    let capitals = letters(start, |character| !character.is_ascii_lowercase());
    let smalls = letters(start + capitals, |character| !character.is_ascii_uppercase());
    if smalls > 0 {
        return lead + capitals + smalls;
    }
    // Letters that are neither a-z nor A-Z count as both: the last of them ends the first form.
    let mut capital_letters = chars.chars.iter().skip(start).take(capitals);
    let last_small = capital_letters.rposition(|character| !character.is_ascii_uppercase());
    after(lead, last_small.map_or(capitals, |last| last + 1))
}

/// `W|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`, where W is a `cased_word`
fn tekken(chars: Chars<'_>, at: usize) -> usize {
    first_of! {
        cased_word(chars, at),
        number(chars, at),
        symbols_and_breaks(chars, at, SPACE | LETTER | NUMBER, &['\r', '\n', '/']),
        space_to_newline(chars, at),
        space_before_space(chars, at),
        chars.run(at, SPACE),
    }
}

/// As `tekken`, with a contraction in any case after the word, and `\p{N}{1,3}`.
fn gpt4o(chars: Chars<'_>, at: usize) -> usize {
    let word = cased_word(chars, at);
    first_of! {
        after(contraction_any_case(chars, at + word), word),
        numbers_3(chars, at),
        symbols_and_breaks(chars, at, SPACE | LETTER | NUMBER, &['\r', '\n', '/']),
        space_to_newline(chars, at),
        space_before_space(chars, at),
        chars.run(at, SPACE),
    }
}

/// `[\r\n]`
fn newline(chars: Chars<'_>, at: usize) -> usize {
    usize::from(matches!(chars.at(at), Some('\r' | '\n')))
}

/// `\p{N}`
fn number(chars: Chars<'_>, at: usize) -> usize {
    usize::from(chars.is(at, NUMBER))
}

/// `\p{N}+`
fn numbers(chars: Chars<'_>, at: usize) -> usize {
    chars.run(at, NUMBER)
}

/// `\p{N}{1,3}`
fn numbers_3(chars: Chars<'_>, at: usize) -> usize {
    // Not the whole run: a match must not cost more than it consumes.
    (0..3).take_while(|offset| chars.is(at + offset, NUMBER)).count()
}

/// `[0-9][0-9][0-9]`
fn digits_3(chars: Chars<'_>, at: usize) -> usize {
    let digit = |offset| chars.at(at + offset).is_some_and(|character| character.is_ascii_digit());
    if digit(0) && digit(1) && digit(2) { 3 } else { 0 }
}

/// `[\p{P}\$\+<=>\^~\|]+`
fn default_symbols(chars: Chars<'_>, at: usize) -> usize {
    punctuation_or(chars, at, &['$', '+', '<', '=', '>', '^', '~', '|'])
}

/// ``[\p{P}\$\+<=>\^~\|`]+``
fn falcon_symbols(chars: Chars<'_>, at: usize) -> usize {
    punctuation_or(chars, at, &['$', '+', '<', '=', '>', '^', '~', '|', '`'])
}

fn punctuation_or(chars: Chars<'_>, at: usize, others: &[char]) -> usize {
    let pairs = chars.chars.iter().zip(chars.classes).skip(at);
    pairs.take_while(|&(character, class)| class & PUNCTUATION != 0 || others.contains(character)).count()
}

/// `\s?\p{L}+`
fn spaced_letters(chars: Chars<'_>, at: usize) -> usize {
    let space = usize::from(chars.is(at, SPACE));
    after(space, chars.run(at + space, LETTER))
}

/// `\s?\p{P}+`
fn spaced_punctuation(chars: Chars<'_>, at: usize) -> usize {
    let space = usize::from(chars.is(at, SPACE));
    after(space, chars.run(at + space, PUNCTUATION))
}

/// `\s?[A-Za-zµÀ-Ö…]+`
fn deepseek_letters(chars: Chars<'_>, at: usize) -> usize {
    spaced_in(chars, at, &DEEPSEEK_LETTERS)
}

/// `\s?[!-/:-~！-／：-～‘-‟、-。]+`
fn deepseek_punctuation(chars: Chars<'_>, at: usize) -> usize {
    spaced_in(chars, at, &DEEPSEEK_PUNCTUATION)
}

fn spaced_in(chars: Chars<'_>, at: usize, ranges: &[(char, char)]) -> usize {
    let space = usize::from(chars.is(at, SPACE));
    after(space, chars.run_where(at + space, |character| contains(ranges, character)))
}

/// `[一-龥ࠀ-一가-퟿]+`
fn deepseek_cjk(chars: Chars<'_>, at: usize) -> usize {
    chars.run_where(at, |character| matches!(character, '\u{800}'..='\u{9fa5}' | '\u{ac00}'..='\u{d7ff}'))
}

/// `[一-龥぀-ゟ゠-ヿ]+`
fn deepseek_v3_cjk(chars: Chars<'_>, at: usize) -> usize {
    chars.run_where(at, |character| matches!(character, '\u{4e00}'..='\u{9fa5}' | '\u{3040}'..='\u{30ff}'))
}

/// `A[A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`, where A is
/// an ASCII punctuation character or symbol
fn deepseek_v3(chars: Chars<'_>, at: usize) -> usize {
    let symbol = chars.at(at).is_some_and(|character| character.is_ascii_punctuation());
    let space = chars.space(at);
    let symbols = after(space, chars.run(at + space, PUNCTUATION | SYMBOL));
    first_of! {
        if symbol { after(1, chars.run_where(at + 1, |character| character.is_ascii_alphabetic())) } else { 0 },
        led_word(chars, at, LETTER | MARK, LETTER | PUNCTUATION | SYMBOL),
        after(newlines_from(chars, at + symbols), symbols),
        space_to_newline(chars, at),
        space_before_space(chars, at),
        chars.run(at, SPACE),
    }
}

/// `[\r\n]*`
fn newlines_from(chars: Chars<'_>, at: usize) -> usize {
    chars.run_where(at, |character| matches!(character, '\r' | '\n'))
}

/// ` ?[^(\s|.,!?…。，、।۔،)]+`
fn poro(chars: Chars<'_>, at: usize) -> usize {
    const BARRED: &str = "(|.,!?…。，、।۔،)";
    let space = chars.space(at);
    let pairs = chars.chars.iter().zip(chars.classes).skip(at + space);
    after(
        space,
        pairs.take_while(|&(&character, class)| class & SPACE == 0 && !BARRED.contains(character)).count(),
    )
}

fn contains(ranges: &[(char, char)], character: char) -> bool {
    let after = ranges.partition_point(|&(first, _)| first <= character);
    after.checked_sub(1).is_some_and(|index| character <= ranges[index].1)
}

/// The ranges of a character class as it is written between brackets, without escapes, in ascending order.
fn ranges(class: &str) -> Vec<(char, char)> {
    let mut rest = class.chars();
    let mut ranges = Vec::new();
    while let Some(first) = rest.next() {
        let mut ahead = rest.clone();
        let last = match (ahead.next(), ahead.next()) {
            (Some('-'), Some(last)) => {
                rest = ahead;
                last
            }
            _ => first,
        };
        ranges.push((first, last));
    }
    ranges
}

/// The cased letters of the vocabulary's own definition.
static DEEPSEEK_LETTERS: LazyLock<Vec<(char, char)>> = LazyLock::new(|| ranges(DEEPSEEK_LETTER_CLASS));
static DEEPSEEK_PUNCTUATION: LazyLock<Vec<(char, char)>> =
    LazyLock::new(|| ranges(DEEPSEEK_PUNCTUATION_CLASS));

const DEEPSEEK_PUNCTUATION_CLASS: &str = "!-/:-~‘-‟、-。！-／：-～";
const DEEPSEEK_LETTER_CLASS: &str = concat!(
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-Ֆ",
    "Ⴀ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼ",
    "ℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃",
);

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;

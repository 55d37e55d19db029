use fancy_regex::Regex;
use proptest::prelude::*;

use super::*;

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";
const ANY_CASE: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])";
const CASED: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))*((?=[\p{L}])([^A-Z]))+C|",
    r"[^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))+((?=[\p{L}])([^A-Z]))*C",
);
const SPACES: &str = r"\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK_CJK: &str = "[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+";

/// The regular expressions of each family, one per stage.
fn expressions(family: &str) -> Vec<String> {
    let own = |expressions: &[&str]| expressions.iter().map(|&expression| expression.to_owned()).collect();
    let word = r"[^\r\n\p{L}\p{N}]?\p{L}+";
    let symbols = r" ?[^\s\p{L}\p{N}]+[\r\n]*";
    match family {
        "default" => own(&[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
        "gpt-2" => own(&[GPT2]),
        "llama-bpe" | "dbrx" | "glm4" => {
            vec![format!(r"{ANY_CASE}|{word}|\p{{N}}{{1,3}}|{symbols}|{SPACES}")]
        }
        "qwen2" => vec![format!(r"{ANY_CASE}|{word}|\p{{N}}|{symbols}|{SPACES}")],
        "qwen35" => vec![format!(
            r"{ANY_CASE}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{SPACES}"
        )],
        "seed-coder" => vec![format!(r"{ANY_CASE}|{word}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{SPACES}")],
        "deepseek-llm" => {
            let letters = format!(r"\s?[{DEEPSEEK_LETTER_CLASS}]+");
            let punctuation = r"\s?[!-/:-~！-／：-～‘-‟、-。]+";
            own(&[r"[\r\n]", &letters, punctuation, r"\s+$", DEEPSEEK_CJK, r"\p{N}+"])
        }
        "deepseek-coder" => own(&[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_CJK, r"\p{N}"]),
        "deepseek-v3" => own(&[
            r"\p{N}{1,3}",
            "[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+",
            concat!(
                r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"##,
                r" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            ),
        ]),
        "falcon" => own(&[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"]),
        "starcoder" => own(&[r"\p{N}", GPT2]),
        "tekken" => {
            vec![format!(r"{}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{SPACES}", CASED.replace('C', ""))]
        }
        "gpt-4o" => {
            let cased = CASED.replace('C', &format!("{ANY_CASE}?"));
            vec![format!(r"{cased}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{SPACES}")]
        }
        "poro-chat" => own(&[r" ?[^(\s|.,!?…。，、।۔،)]+"]),
        "viking" => own(&[r" ?[^(\s|.,!?…。，、।۔،)]+", r"\p{N}"]),
        other => panic!("no expressions written down for {other}"),
    }
}

/// Cuts `text` as the regular expressions say.
fn split_by_expressions(expressions: &[Regex], text: &str) -> Vec<usize> {
    let mut ends = vec![text.len()];
    for expression in expressions {
        let (mut finer, mut start) = (Vec::new(), 0);
        for end in ends {
            let mut done = start;
            for found in expression.find_iter(&text[start..end]) {
                let found = found.unwrap();
                let range = start + found.start()..start + found.end();
                finer.extend([range.start, range.end].into_iter().filter(|&cut| cut > done));
                done = range.end;
            }
            finer.extend((done < end).then_some(end));
            finer.dedup();
            start = end;
        }
        ends = finer;
    }
    ends
}

/// The expressions of every family, compiled once.
static COMPILED: LazyLock<Vec<(&PreTokenizer, Vec<Regex>)>> = LazyLock::new(|| {
    let compile = |expression: &String| Regex::new(expression).unwrap();
    families().map(|family| (family, expressions(family.family).iter().map(compile).collect())).collect()
});

fn check(family: &PreTokenizer, expressions: &[Regex], text: &str) {
    let expected = if text.is_empty() { vec![] } else { split_by_expressions(expressions, text) };
    let found: Vec<usize> = family.split(text).into_iter().filter(|&end| end > 0).collect();
    assert_eq!(pieces(text, &found), pieces(text, &expected), "{} of {text:?}", family.family);
}

fn pieces<'a>(text: &'a str, ends: &[usize]) -> Vec<&'a str> {
    let starts = std::iter::once(&0).chain(ends);
    starts.zip(ends).map(|(&start, &end)| &text[start..end]).collect()
}

/// Text made of what the expressions distinguish.
fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        3 => "[a-z]{1,3}",
        2 => "[A-Z]{1,2}",
        3 => "[ ]{1,3}",
        2 => "[\n\r\t\u{b}\u{a0}\u{3000}\u{85}]{1,2}",
        2 => "[0-9]{1,5}",
        2 => "'(s|S|t|re|RE|Ve|ll|lL|m|d|x|l|)",
        2 => "[!-/:-@\\[-`{-~]{1,3}",
        1 => "[äßéñçøƻʔªº]{1,2}",
        1 => "[одинΑΩ]{1,2}",
        1 => "[中文字かなカナ한국어ࠀ]{1,2}",
        1 => "[٣४Ⅷ½²]{1,2}",
        1 => "[\u{301}\u{93f}\u{20dd}]{1,2}",
        1 => "[…。，、।۔،“”—『～‘‟]{1,2}",
        1 => "[🦙🚀€£©]{1,2}",
        1 => "[\0\u{200d}\u{fe0f}\u{fffd}\u{378}\u{e000}]{1,2}",
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(part, 0..14).prop_map(|parts| parts.concat())
}

fn families() -> impl Iterator<Item = &'static PreTokenizer> {
    FAMILIES.iter().map(|(_, family)| family)
}

#[test]
fn names_select_families_and_unknown_ones_none() {
    assert_eq!(PreTokenizer::named("llama3").unwrap().family, "llama-bpe");
    assert_eq!(PreTokenizer::named("phi-2").unwrap().family, "gpt-2");
    assert!(PreTokenizer::named("no-such").is_none());
    let names: Vec<&str> = PreTokenizer::names().collect();
    let unique: std::collections::BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(names.len(), unique.len());
    families().for_each(|family| assert!(names.contains(&family.family)));
}

#[test]
fn ranges_are_ascending() {
    for class in [DEEPSEEK_LETTER_CLASS, DEEPSEEK_PUNCTUATION_CLASS] {
        assert!(ranges(class).windows(2).all(|pair| pair[0].1 < pair[1].0));
    }
}

#[test]
fn known_texts_are_cut_as_the_expressions_say() {
    let texts = [
        "",
        " ",
        "  ",
        "a",
        "Hello world",
        "I'll don't WE'VE it'S 'x",
        "  leading",
        "trailing  ",
        "a\n\n b",
        "\r\n \n",
        "x = 1234567;",
        "ABCdef GHI",
        "中A中",
        "AbCdE's",
        "\t\tif (a<=b) {}\n",
        "3.14 ½ ²",
        "é\u{301}e\u{301}",
        "..., !!!",
        "a\u{3000}。b",
        " \u{85}x",
        "https://a.b/c?d=e",
        "a/\n/",
        "()|.,",
    ];
    for (family, expressions) in COMPILED.iter() {
        texts.iter().for_each(|text| check(family, expressions, text));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn every_family_cuts_as_its_expressions_say(text in text()) {
        COMPILED.iter().for_each(|(family, expressions)| check(family, expressions, &text));
    }
}

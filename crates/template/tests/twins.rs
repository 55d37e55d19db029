//! Two voices: this crate and minijinja give the same bytes, or both refuse.
//!
//! Known to differ, and kept out of what is compared: what `language.rs` lists; `\x1c` … `\x1f`, whitespace in Python only;
//! `\r` in a template; negative steps of slices beyond `[::-1]`, rests of negative numbers, places `find` gives, which minijinja
//! counts otherwise than Python; variables set in one turn of a loop, or within what `set` captures, which
//! minijinja keeps for what follows.

mod common;

use common::corpus::CORPUS;
use common::{LIMITS, message, minijinja, render, variables};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use surety_template::Variables;
use surety_types::Message;

fn content() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-zA-Z ]{0,8}",
        1 => "\\PC{0,6}",
        2 => proptest::sample::select(vec![
            "\n", "\t", "  ", "\n\n", "\u{a0}", "\u{2028}", "\u{3000}", "'", "\"", "\\", "\\n", "{{", "%}", "{#", "\u{e9}", "\u{1F600}",
            "\u{200d}", "<think>", "</think>\n", "<tool_response>", "</tool_response>", "/think", "/no_think", "</s>", "[INST]", "&<>",
        ]).prop_map(String::from),
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn messages() -> impl Strategy<Value = Vec<Message>> {
    let role = prop_oneof![
        6 => Just(None),
        1 => proptest::sample::select(vec!["system", "developer", "user", "assistant", "tool", "narrator"]).prop_map(Some),
    ];
    (any::<bool>(), proptest::collection::vec((role, content()), 1..7)).prop_map(|(system, parts)| {
        let turn = |index: usize| match (index, system) {
            (0, true) => "system",
            (index, system) if index % 2 == usize::from(system) => "user",
            _ => "assistant",
        };
        let parts = parts.into_iter().enumerate();
        parts.map(|(index, (role, content))| message(role.unwrap_or(turn(index)), &content)).collect()
    })
}

/// Whether both voices say the same; the text, if there is one.
fn compare(source: &str, variables: &Variables<'_>) -> Result<Option<String>, TestCaseError> {
    let ours = render(source, variables, &LIMITS);
    let theirs = minijinja(source, variables);
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => {
            prop_assert_eq!(&ours.text, &theirs, "{}", source);
            Ok(Some(theirs))
        }
        (Err(_), Err(_)) => Ok(None),
        (ours, theirs) => Err(TestCaseError::fail(format!("{source}\nours: {ours:?}\ntheirs: {theirs:?}"))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn the_corpus_renders_alike(messages in messages(), add_generation_prompt: bool) {
        let variables = Variables { add_generation_prompt, ..variables(&messages) };
        for (_, source) in CORPUS {
            compare(source, &variables)?;
        }
    }

    #[test]
    fn templates_of_the_grammar_render_alike(source in template(), messages in messages()) {
        compare(&source, &variables(&messages))?;
    }
}

/// None of the templates refuses a plain conversation.
#[test]
fn the_corpus_renders() {
    let plain = [
        message("user", " Hi "),
        message("assistant", "<think>\nhm\n</think>\n\nHello."),
        message("user", "Why?"),
    ];
    for (name, source) in CORPUS {
        let text = compare(source, &variables(&plain)).unwrap();
        assert!(text.is_some_and(|text| text.contains("Hi") && text.contains("Why?")), "{name}");
    }
}

/// Most templates of the grammar say something: what is compared is not that both refuse.
#[test]
fn the_grammar_renders() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let messages = [message("user", "a,b"), message("assistant", " Hello\n")];
    let mut rendered = 0;
    for _ in 0..100 {
        let source = template().new_tree(&mut runner).unwrap().current();
        rendered += usize::from(compare(&source, &variables(&messages)).unwrap().is_some());
    }
    assert!(rendered > 80, "{rendered}");
}

fn text_literal() -> impl Strategy<Value = String> {
    proptest::sample::select(vec![
        "''",
        "'a'",
        "\"b c\"",
        "' d '",
        "'e\\nf'",
        "'\u{e9}\u{1F600}'",
        "'it\\'s'",
        "'a,b,c'",
        "'\\n'",
        "'aXbXc'",
        "'{{ % }}'",
    ])
    .prop_map(String::from)
}

fn text_leaf() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => text_literal(),
        2 => proptest::sample::select(vec![
            "messages[0].content", "messages[-1]['content']", "messages[0]['role']", "bos_token", "s", "t", "(messages[0].nosuch | default('u'))",
        ]).prop_map(String::from),
    ]
}

/// Expressions of a text.
fn text() -> impl Strategy<Value = String> {
    text_leaf().prop_recursive(3, 24, 3, |text| {
        let other = text.clone();
        let bound = -4..6_i32;
        prop_oneof![
            (text.clone(), other.clone()).prop_map(|(a, b)| format!("({a} + {b})")),
            (text.clone(), other.clone()).prop_map(|(a, b)| format!("{a} ~ {b}")),
            (text.clone(), proptest::sample::select(vec!["upper", "lower", "trim", "string"]))
                .prop_map(|(a, filter)| format!("({a}) | {filter}")),
            (
                text.clone(),
                proptest::sample::select(vec![
                    "strip()",
                    "lstrip()",
                    "rstrip('a \\n')",
                    "lower()",
                    "upper()",
                    "split(',')[0]",
                    "replace('a', 'bb')"
                ])
            )
                .prop_map(|(a, method)| format!("({a}).{method}")),
            (text.clone(), bound.clone(), bound).prop_map(|(a, from, to)| format!("({a})[{from}:{to}]")),
            text.clone().prop_map(|a| format!("('.' ~ {a})[::-1]")),
            (text.clone(), truth(text.clone().boxed()), other.clone())
                .prop_map(|(a, b, c)| format!("({a} if {b} else {c})")),
            (list(text.clone().boxed()), text_literal()).prop_map(|(list, d)| format!("{list} | join({d})")),
            (text.clone(), other).prop_map(|(a, b)| format!("({a}) | default({b}, true)")),
            (text.clone(), text_literal()).prop_map(|(a, b)| format!("({a}) | replace('b', {b})")),
        ]
        .prop_map(|expression| format!("({expression})"))
    })
}

fn number(text: BoxedStrategy<String>) -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        (-3..20_i32).prop_map(|value| value.to_string()),
        text.prop_map(|text| format!("({text}) | length")),
        Just("messages | length".to_owned()),
        Just("n".to_owned()),
    ];
    let operator = proptest::sample::select(vec!["+", "-", "*"]);
    let plain = (leaf.clone(), operator, leaf.clone())
        .prop_map(|(a, operator, b)| format!("(({a}) {operator} ({b}))"));
    let divided = (leaf, proptest::sample::select(vec!["//", "%"]), 1..5_i32)
        .prop_map(|(a, operator, b)| format!("((({a}) * ({a})) {operator} {b})"));
    prop_oneof![3 => plain, 1 => divided]
}

fn truth(text: BoxedStrategy<String>) -> impl Strategy<Value = String> {
    let comparison = proptest::sample::select(vec!["==", "!="]);
    let order = proptest::sample::select(vec!["<", ">=", "=="]);
    let test =
        proptest::sample::select(vec!["defined", "string", "none", "not defined", "mapping", "not string"]);
    let leaf = prop_oneof![
        (text.clone(), comparison, text.clone())
            .prop_map(|(a, comparison, b)| format!("({a}) {comparison} ({b})")),
        (number(text.clone()), order, 0..9_i32).prop_map(|(a, order, b)| format!("{a} {order} {b}")),
        (text_literal(), text.clone()).prop_map(|(a, b)| format!("{a} in ({b})")),
        (text.clone(), test).prop_map(|(a, test)| format!("({a}) is {test}")),
        (text, text_literal()).prop_map(|(a, b)| format!("({a}).startswith({b})")),
        Just("loop is defined".to_owned()),
        Just("add_generation_prompt".to_owned()),
    ];
    let connective = proptest::sample::select(vec!["and", "or", "and not", "or not"]);
    (leaf.clone(), connective, leaf).prop_map(|(a, connective, b)| format!("({a} {connective} {b})"))
}

fn list(text: BoxedStrategy<String>) -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::collection::vec(text.clone(), 0..3).prop_map(|items| format!("[{}]", items.join(", "))),
        text.prop_map(|text| format!("(({text}).split(','))")),
        Just("(messages | map(attribute='role') | list)".to_owned()),
        Just(
            "(messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list)".to_owned()
        ),
        Just("(range(3) | list)".to_owned()),
    ]
}

fn block(inside: &str, (before, after): (&str, &str)) -> String {
    format!("{{%{before} {inside} {after}%}}")
}

/// Templates that say a little of everything.
fn template() -> impl Strategy<Value = String> {
    let trims = || {
        let trim = || proptest::sample::select(vec!["", "", "-", "+"]);
        (trim(), trim())
    };
    let data = proptest::sample::select(vec![
        "a",
        "\n",
        "  ",
        "\n  ",
        "  \n",
        "b\n\n",
        " c ",
        "\t",
        "{",
        "}",
        "%",
        "{ {",
        "\n{# note #}\n",
        "  {#- note -#}  ",
        "\n\n {# n #}",
    ])
    .prop_map(String::from);
    let print = (
        prop_oneof![text().boxed(), number(text().boxed()).boxed(), truth(text().boxed()).boxed()],
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(inner, before, after)| {
            format!("{{{{{} {inner} {}}}}}", if before { "-" } else { "" }, if after { "-" } else { "" })
        });
    let set = (text(), trims(), proptest::sample::select(vec!["s", "t"]))
        .prop_map(|(text, trims, name)| block(&format!("set {name} = {text}"), trims));
    let piece = prop_oneof![3 => data, 3 => print, 1 => set];
    let body = proptest::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat());
    let statements = body.prop_recursive(3, 24, 4, move |inner| {
        let pair = || (trims(), trims());
        prop_oneof![
            (truth(text().boxed()), inner.clone(), inner.clone(), pair()).prop_map(
                |(condition, then, otherwise, (a, b))| {
                    format!(
                        "{}{then}{}{otherwise}{}",
                        block(&format!("if {condition}"), a),
                        block("else", b),
                        block("endif", a)
                    )
                }
            ),
            (list(text().boxed()), text(), inner.clone(), pair()).prop_map(|(list, text, inner, (a, b))| {
                // Set anew in each turn: see above.
                format!(
                    "{}{}{}{inner}{{{{ loop.index }}}}{{{{ item }}}}{}",
                    block(&format!("for item in {list}"), a),
                    block(&format!("set s = {text}"), b),
                    block("set t = 'in'", b),
                    block("endfor", b)
                )
            }),
            (inner.clone(), pair()).prop_map(|(inner, (a, b))| format!(
                // Set anew behind it: see above.
                "{}{inner}{}{{{{ captured }}}}{}{}",
                block("set captured", a),
                block("endset", b),
                block("set s = 'out'", a),
                block("set t = ' Out '", b)
            )),
            (inner.clone(), inner).prop_map(|(a, b)| a + &b),
        ]
    });
    statements.prop_map(|body| format!("{{% set s = 'one' %}}{{% set t = ' Two ' %}}{{% set n = 3 %}}{body}"))
}

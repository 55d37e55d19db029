//! The language, case by case: `vectors/jinja2.json` holds templates and what Python's jinja2 3.1.6 makes of them in the
//! environment of `transformers`, `null` where it refuses. Where the rules differ from it on purpose, `DIFFERENCES` says so.

mod common;

use common::{DATE, LIMITS, conversation, render, variables};
use surety_template::{Limit, Limits, TemplateError, Variables};
use surety_types::Message;

const VECTORS: &str = include_str!("vectors/jinja2.json");

fn messages() -> Vec<Message> {
    conversation(&[("system", "Be brief."), ("user", " Hi "), ("assistant", "Hello."), ("user", "Why?")])
}

fn text(source: &str) -> Option<String> {
    render(source, &variables(&messages()), &LIMITS).ok().map(|rendered| rendered.text)
}

#[test]
fn templates_render_as_in_python() {
    let vectors: Vec<(String, Option<String>)> = serde_json::from_str(VECTORS).unwrap();
    assert!(vectors.len() > 500 && vectors.iter().filter(|(_, text)| text.is_none()).count() > 50);
    for (source, expected) in vectors {
        assert_eq!(text(&source), expected, "{source}");
    }
}

/// J-7: what these rules answer where jinja2 answers otherwise.
const DIFFERENCES: &[(&str, Option<&str>)] = &[
    // Integers have 64 bits, floats are finite, powers whole.
    ("{{ 10**20 }}", None),
    ("{{ 9223372036854775807 + 1 }}", None),
    ("{{ -9223372036854775807 - 2 }}", None),
    ("{{ 2**-1 }}", None),
    ("{{ 2.0**2 }}", None),
    ("{{ 1e308 * 10 }}", None),
    // Pairs are lists.
    ("{{ {'a': 1}.items() }}", Some("[['a', 1]]")),
    ("{{ (1, 2) }}", Some("[1, 2]")),
    ("{{ [] == () }}", Some("True")),
    // What is chosen or mapped is a list at once.
    ("{{ [1, 0] | select }}", Some("[1]")),
    ("{{ 1 if [] | select else 2 }}", Some("2")),
    // An attribute is never a method.
    ("{{ 'a'.upper }}", Some("")),
    ("{{ {'get': 5}.get }}", Some("5")),
    // What has no text that means anything.
    ("{{ range }}", None),
    ("{{ namespace(a=1) }}", None),
    ("{% for i in [1] %}{{ loop }}{% endfor %}", None),
    // jinja2 computes constants otherwise than variables.
    ("{{ none[1:] }}", None),
    ("{{ {'a': 1}[1:] }}", None),
    // Not in the language.
    ("{{ 'a %s' % 1 }}", None),
    ("{{ '{}'.format(1) }}", None),
    ("{{ [1] < [2] }}", None),
    ("{% for i in [1] recursive %}{% endfor %}", None),
    ("{% block a %}{% endblock %}", None),
    ("{{ 'a' | escape }}", None),
    ("{{ f(*[1]) }}", None),
    ("{{ \u{e9} }}", None),
    ("{{ '\\ud83d' }}", None),
    ("{{ 'a' * true }}", None),
    ("{{ '\u{663}' | int }}", Some("0")),
];

#[test]
fn differences_are_these() {
    for (source, expected) in DIFFERENCES {
        assert_eq!(text(source).as_deref(), *expected, "{source}");
    }
}

#[test]
fn without_a_day_there_is_no_clock() {
    let messages = messages();
    let without = Variables { date: None, ..variables(&messages) };
    let source =
        "{{ strftime_now is defined }}{% if strftime_now is defined %}{{ strftime_now('%d') }}{% endif %}";
    assert_eq!(render(source, &without, &LIMITS).unwrap().text, "False");
    assert!(matches!(
        render("{{ strftime_now('%d') }}", &without, &LIMITS),
        Err(TemplateError::Operation { line: 1, .. })
    ));
    let never = Variables { date: Some(surety_types::CivilDate { month: 0, ..DATE }), ..without };
    assert!(matches!(
        render("{{ strftime_now('%B') }}", &never, &LIMITS),
        Err(TemplateError::Operation { .. })
    ));
    assert!(render("{{ strftime_now('%Q') }}", &variables(&messages), &LIMITS).is_err());
}

/// Whoever serves a model renders for many at once.
#[test]
fn templates_are_shared_among_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<surety_template::Template>();
}

#[test]
fn names_of_speakers_are_in_messages() {
    let mut messages = messages();
    messages[1].name = Some("Ann".into());
    let source = "{% for m in messages %}{{ m.name | default('-') }}{{ m | length }}{% endfor %}";
    assert_eq!(render(source, &variables(&messages), &LIMITS).unwrap().text, "-2Ann3-2-2");
}

#[test]
fn errors_say_what_and_where() {
    let error = |source: &str| render(source, &variables(&messages()), &LIMITS).unwrap_err();
    let raised = error("\n\n{{ raise_exception('System role not supported') }}");
    assert_eq!(raised.to_string(), "System role not supported (line 3 of the template)");
    assert!(matches!(raised, TemplateError::Raised { line: 3, .. }));
    assert_eq!(
        error("\n{{ a.b }}").to_string(),
        "a is undefined, so that it has no b (line 2 of the template)"
    );
    assert_eq!(error("{{ 'a' | nosuch }}").to_string(), "there is no filter nosuch (line 1 of the template)");
    assert_eq!(error("{{ 'a' is nosuch }}").to_string(), "there is no test nosuch (line 1 of the template)");
    assert_eq!(
        error("{{ 'a'.nosuch() }}").to_string(),
        "a text has no method nosuch (line 1 of the template)"
    );
    assert!(matches!(error("a\n{% nosuch %}"), TemplateError::Syntax { line: 2, .. }));
    assert!(matches!(error("{% if 1 %}\n\n"), TemplateError::Syntax { line: 2, .. }));
    // What is never reached may be unknown: templates know tools that requests have not.
    assert_eq!(text("{% if tools %}{{ tools | nosuch }}{% endif %}a").as_deref(), Some("a"));
}

#[test]
fn steps_and_bytes_are_counted() {
    let messages = messages();
    let source = "{% for m in messages %}{{ m.role ~ m.content }}{% endfor %}";
    let rendered = render(source, &variables(&messages), &LIMITS).unwrap();
    assert_eq!(rendered.steps, 124);
    let just = Limits { steps: rendered.steps, ..LIMITS };
    assert!(render(source, &variables(&messages), &just).is_ok());
    let short = Limits { steps: rendered.steps - 1, ..LIMITS };
    let refused = render(source, &variables(&messages), &short).unwrap_err();
    assert!(matches!(refused, TemplateError::Limit { limit: Limit::Steps, allowed: 123, .. }), "{refused}");
    let small = Limits { bytes: 3000, ..LIMITS };
    let refused = render(source, &variables(&messages), &small).unwrap_err();
    assert!(matches!(refused, TemplateError::Limit { limit: Limit::Bytes, .. }), "{refused}");
    // Longer contents take more.
    let long = conversation(&[("user", &"x".repeat(64 * 100))]);
    assert!(render("{{ messages[0].content }}", &variables(&long), &LIMITS).unwrap().steps > 200);
}

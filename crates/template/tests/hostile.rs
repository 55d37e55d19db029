//! Templates written to exhaust, to overflow or to confuse whoever renders them: each is refused within the limits.

mod common;

use common::corpus::CORPUS;
use common::{LIMITS, message, render, variables};
use proptest::prelude::*;
use surety_template::{Limit, Limits, Template, TemplateError};

fn refused(source: &str) -> TemplateError {
    refused_within(source, &LIMITS)
}

fn refused_within(source: &str, limits: &Limits) -> TemplateError {
    let messages = [message("user", "Hi")];
    match render(source, &variables(&messages), limits) {
        Ok(rendered) => {
            panic!("{source}: rendered to {} bytes in {} steps", rendered.text.len(), rendered.steps)
        }
        Err(error) => error,
    }
}

fn limit(error: &TemplateError) -> Option<Limit> {
    match error {
        TemplateError::Limit { limit, .. } => Some(*limit),
        _ => None,
    }
}

#[test]
fn what_grows_without_end_is_cut_off() {
    let growing = [
        "{% set ns = namespace(a='x') %}{% for i in range(40) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}",
        "{% set ns = namespace(a='x') %}{% for i in range(99) %}{% set ns.a = ns.a + ns.a %}{% endfor %}",
        "{% set ns = namespace(a=[0]) %}{% for i in range(99) %}{% set ns.a = ns.a + ns.a %}{% endfor %}",
        "{% set ns = namespace(a='xx') %}{% for i in range(99) %}{% set ns.a = ns.a | replace('x', ns.a) %}{% endfor %}",
        "{% set ns = namespace(a='x') %}{% for i in range(99) %}{% set ns.a = ns.a.join([ns.a, ns.a, ns.a]) %}{% endfor %}",
        "{{ 'x' * 10000000000 }}",
        "{{ 'x' * 9223372036854775807 }}",
        "{{ 9223372036854775807 * 'xyz' }}",
        "{{ [0] * 10**9 }}",
        "{{ [0, 1] * 9223372036854775807 }}",
        "{{ ('x' * 100000) | replace('', 'y' * 100000) }}",
        "{{ ('ab' * 10000).replace('a', 'b' * 100000) }}",
        "{{ range(100000) | map('string') | map('upper') | list | tojson(indent=9000000) }}",
        "{{ [1] | tojson(indent=9223372036854775807) }}",
        "{{ 'a\\nb' | indent(9223372036854775807) }}",
        "{% for i in range(100000) %}{% set ns = namespace(a=i) %}{% endfor %}",
        "{% for i in range(100000) %}{% macro f() %}{% endmacro %}{% endfor %}",
        "{% for i in range(100) %}{% for j in 'x' * 99999 %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{{ 'xxxxxxxxxxxxxxxx' * 1000 }}{% endfor %}",
        "{{ ('x' * 1000000)[::-1][::-1] }}",
        "{% set x = 'x' * 1000000 %}{{ [x, x, x, x, x, x] | tojson }}",
        "{{ ('x,' * 100000).split(',') }}",
        "{{ ('\\n' * 100000).splitlines() }}",
    ];
    for source in growing {
        let error = refused(source);
        assert_eq!(limit(&error), Some(Limit::Bytes), "{source}: {error}");
    }
}

#[test]
fn what_takes_without_end_is_cut_off() {
    let endless = [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(14) }}",
        // One text, read again and again.
        "{% set x = 'x' * 1000000 %}{% for a in range(1000) %}{{ x.count('y') }}{% endfor %}",
        "{% set x = 'x' * 1000000 %}{% for a in range(1000) %}{{ 'y' in x }}{% endfor %}",
        "{% set x = 'x' * 1000000 %}{% for a in range(1000) %}{{ x | length }}{% endfor %}",
        "{% set x = 'x' * 1000000 %}{% set y = 'x' * 1000000 %}{% for a in range(1000) %}{{ x == y }}{% endfor %}",
        "{% set x = 'x' * 1000000 %}{% for a in range(1000) %}{{ x[-1] }}{% endfor %}",
        "{% set x = '1' * 1000000 %}{% for a in range(1000) %}{{ x | int }}{{ x | float }}{% endfor %}",
        // Few lists that say much.
        "{% set ns = namespace(a=[0]) %}{% set ns.b = [0] %}{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}\
         {% set ns.b = [ns.b, ns.b] %}{% endfor %}{{ ns.a == ns.b }}",
        "{% set x = range(3000) | list %}{% for a in x %}{{ -1 in x }}{% endfor %}",
        "{{ range(3000) | unique | list | length }}",
    ];
    for source in endless {
        let error = refused_within(source, &Limits { bytes: 256 << 20, ..LIMITS });
        assert_eq!(limit(&error), Some(Limit::Steps), "{source}: {error}");
    }
}

#[test]
fn what_is_shared_is_not_endless_when_printed() {
    let doubling =
        "{% set ns = namespace(a=['x']) %}{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}";
    for end in ["{{ ns.a }}", "{{ ns.a | tojson }}", "{{ ns.a | join }}", "{{ ns.a | string | length }}"] {
        let error = refused(&format!("{doubling}{end}"));
        assert!(matches!(limit(&error), Some(Limit::Steps | Limit::Bytes)), "{end}: {error}");
    }
}

#[test]
fn what_nests_too_deep_is_refused() {
    let deep = [
        format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000)),
        format!("{{{{ {}1{} }}}}", "[".repeat(5000), "]".repeat(5000)),
        format!("{{{{ {}1 }}}}", "- ".repeat(5000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(5000)),
        format!("{{{{ 1{} }}}}", " + 1".repeat(5000)),
        format!("{{{{ a{} }}}}", ".a".repeat(5000)),
        format!("{{{{ a{} }}}}", " | upper".repeat(5000)),
        format!("{{{{ 1{} }}}}", " if 1 else 1".repeat(5000)),
        format!("{{{{ 1{} }}}}", " and 1".repeat(5000)),
        format!("{{{{ a{} }}}}", "()".repeat(5000)),
        format!("{}{}", "{% if 1 %}".repeat(5000), "{% endif %}".repeat(5000)),
        format!("{}{}", "{% for a in [1] %}".repeat(5000), "{% endfor %}".repeat(5000)),
        format!("{{% set {}a{} = 1 %}}", "(".repeat(5000), ")".repeat(5000)),
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".into(),
        "{% macro f() %}{% call f() %}{% endcall %}{% endmacro %}{{ f() }}".into(),
        "{% set ns = namespace(a=[]) %}{% for i in range(9999) %}{% set ns.a = [ns.a] %}{% endfor %}".into(),
        "{% set ns = namespace(a={}) %}{% for i in range(9999) %}{% set ns.a = {'a': ns.a} %}{% endfor %}".into(),
        "{% set ns = namespace(a=0) %}{% for i in range(9999) %}{% for x in [ns.a] %}{% set ns.a = loop %}{% endfor %}{% endfor %}".into(),
    ];
    for source in &deep {
        let error = refused(source);
        assert_eq!(limit(&error), Some(Limit::Depth), "{}: {error}", &source[..60]);
    }
    // Many beside one another are not deep.
    let wide = format!(
        "{{% if 0 %}}{}{{% endif %}}{{{{ [{}] | length }}}}",
        "{% elif 0 %}".repeat(5000),
        "1,".repeat(5000)
    );
    let messages = [message("user", "Hi")];
    assert_eq!(render(&wide, &variables(&messages), &LIMITS).unwrap().text, "5000");
}

/// A little stack is enough for whatever the limits allow.
#[test]
fn the_deepest_needs_little_stack() {
    let deepest = || {
        let depth = LIMITS.depth as usize;
        let templates = [
            format!("{{{{ {}1{} }}}}", "[".repeat(depth - 2), "]".repeat(depth - 2)),
            format!("{{{{ {}1{} }}}}", "(".repeat(depth / 2), ") | string".repeat(depth / 2)),
            "{% macro f(n) %}{% for i in [1] %}{% if n %}{{ ([f(n - 1) | upper] | join) ~ 'a' }}{% endif %}{% endfor %}{% endmacro %}\
             {{ f(9) }}"
                .into(),
            "{% macro f(n) %}{% filter upper %}{% call(x) g(n) %}{{ f(n - 1) if n else x }}{% endcall %}{% endfilter %}{% endmacro %}\
             {% macro g(n) %}{{ caller(n) }}{% endmacro %}{{ f(12) }}"
                .into(),
            "{% set ns = namespace(a=[]) %}{% for i in range(198) %}{% set ns.a = [ns.a] %}{% endfor %}{{ ns.a }}{{ ns.a | tojson }}\
             {{ ns.a == [ns.a][0] }}"
                .into(),
        ];
        for source in &templates {
            let rendered = render(source, &variables(&[]), &LIMITS);
            assert!(rendered.is_ok(), "{source}: {rendered:?}");
        }
        let endless = "{% macro f() %}{% for i in [1] %}{{ ([f() | upper] | join) ~ 'a' }}{% endfor %}{% endmacro %}{{ f() }}";
        assert_eq!(limit(&refused(endless)), Some(Limit::Depth));
    };
    std::thread::Builder::new().stack_size(1 << 20).spawn(deepest).unwrap().join().unwrap();
}

#[test]
fn numbers_do_not_overflow() {
    let wrong = [
        "{{ 9223372036854775807 + 1 }}",
        "{{ 9223372036854775807 * 2 }}",
        "{{ -9223372036854775807 - 2 }}",
        "{{ -(-9223372036854775807 - 1) }}",
        "{{ (-9223372036854775807 - 1) // -1 }}",
        "{{ (-9223372036854775807 - 1) | abs }}",
        "{{ 2 ** 64 }}",
        "{{ 2 ** 9223372036854775807 }}",
        "{{ 1 // 0 }}",
        "{{ 1 % 0 }}",
        "{{ 1 / 0 }}",
        "{{ 1e308 * 1e308 }}",
        "{{ 1e300 | int }}",
        "{{ range(0, 9223372036854775807) }}",
        "{{ range(-9223372036854775807, 9223372036854775807, 1) }}",
        "{{ range(100001) }}",
        "{{ 'abc'[::0] }}",
    ];
    for source in wrong {
        assert!(matches!(refused(source), TemplateError::Operation { .. }), "{source}");
    }
    let messages = [message("user", "Hi")];
    let sound = [
        ("{{ (-9223372036854775807 - 1) % -1 }}", "0"),
        ("{{ 'abc'[::9223372036854775807] }}", "a"),
        ("{{ 'abc'[::-9223372036854775807] }}", "c"),
        ("{{ 'abc'[-9223372036854775807 - 1:9223372036854775807] }}", "abc"),
        ("{{ [1, 2][(-9223372036854775807 - 1)] }}", ""),
        ("{{ 'abc'[(-9223372036854775807 - 1)] }}", ""),
        ("{{ range(9223372036854775806, 9223372036854775807)[0] }}", "9223372036854775806"),
        ("{{ range(-9223372036854775807, 9223372036854775807, 9223372036854775807) | length }}", "2"),
        ("{{ ''  * 9223372036854775807 }}", ""),
        ("{{ [] * 9223372036854775807 }}", "[]"),
        ("{{ 'a,b'.split(',', -9223372036854775807) | length }}", "2"),
        ("{{ 'aa'.replace('a', 'b', 9223372036854775807) }}", "bb"),
    ];
    for (source, expected) in sound {
        assert_eq!(render(source, &variables(&messages), &LIMITS).unwrap().text, expected, "{source}");
    }
}

#[test]
fn sources_are_bounded() {
    let small = Limits { source_bytes: 10, ..LIMITS };
    assert_eq!(limit(&Template::parse("0123456789a", &small).unwrap_err()), Some(Limit::SourceBytes));
    let few = Limits { lexemes: 9, ..LIMITS };
    assert!(Template::parse("{{ a }}{{ b }}", &few).is_ok());
    assert_eq!(limit(&Template::parse("{{ a }}{{ b }}{{ c }}", &few).unwrap_err()), Some(Limit::Lexemes));
}

/// A template that holds every kind of thing, to be damaged.
const EVERYTHING: &str = "{% set ns = namespace(a=1, b=[1, 'x', {'k': none}]) %}{% macro m(a, b='d', c=none) %}{{ a ~ b }}{{ caller is defined }}\
    {% endmacro %}{% for i, j in {'a': 1, 'b': 2}.items() if j %}{{ loop.cycle('p', 'q') }}{% if i == 'a' %}{% continue %}{% elif not j %}{% break %}\
    {% else %}{{ m(i, c=j) }}{% endif %}{% set ns.a = ns.a + j * 2 // 1 % 7 - -1 %}{% else %}none{% endfor %}{% call m(1) %}x{% endcall %}\
    {% set t %} text {{ ns.b | tojson(indent=1) }}{% endset %}{{ t | trim | replace('x', \"y\") | upper }}{{ messages[::-1][0].content[1:5:2] }}\
    {% filter lower %}ABC{% endfilter %}{% with q = 1.5e3 %}{{ q / 2 if q is number else q ** 2 }}{% endwith %}{# c #}{% raw %}{{ r }}{% endraw %}\
    {{ 'a' in 'abc' and 1 < 2 <= 3 or not true }}{{ ['b', 'a'] | sort | join(',') }}{{ 'a b'.split()[-1].title() }}{{ '%' ~ strftime_now('%d') }}";

#[test]
fn everything_renders() {
    let messages = [message("user", "Hello there")];
    let text = render(EVERYTHING, &variables(&messages), &LIMITS).unwrap().text;
    assert!(text.starts_with('p') && text.ends_with("a,bB%04"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_text_is_a_template_or_an_error(source in "\\PC{0,200}") {
        let _ = render(&source, &variables(&[message("user", "Hi")]), &LIMITS);
    }

    #[test]
    fn any_tag_is_a_template_or_an_error(inner in "[a-z0-9 .,'\"()\\[\\]{}|+*/~<=>!:_%-]{0,60}", mark in 0..2_usize) {
        let source = ["{{ I }}", "{% I %}"][mark].replace('I', &inner);
        let _ = render(&source, &variables(&[message("user", "Hi")]), &LIMITS);
    }

    #[test]
    fn damaged_templates_are_templates_or_errors(
        which in 0..=CORPUS.len(),
        damages in proptest::collection::vec((any::<prop::sample::Index>(), 0..6_usize, any::<prop::sample::Index>()), 1..6),
        content in "\\PC{0,20}",
    ) {
        let mut source: Vec<char> = CORPUS.get(which).map_or(EVERYTHING, |(_, source)| source).chars().collect();
        for (at, damage, other) in damages {
            let (at, other) = (at.index(source.len()), other.index(source.len()));
            match damage {
                0 => { source.remove(at); }
                1 => source[at] = source[other],
                2 => source.insert(at, source[other]),
                3 => source.swap(at, other),
                4 => { let piece: Vec<char> = source[at.min(other)..at.max(other)].iter().take(40).copied().collect(); source.splice(at..at, piece); }
                _ => { let end = (at + 10).min(source.len()); source.drain(at..end); }
            }
            if source.is_empty() { source.push('x'); }
        }
        let source: String = source.into_iter().collect();
        let messages = [message("system", &content), message("user", "Hi"), message("assistant", &content), message("user", "Why?")];
        let _ = render(&source, &variables(&messages), &LIMITS);
    }
}

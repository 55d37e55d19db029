//! Tools and calls, as requests carry them: JSON that becomes values, within the limits (J-1.3, J-1.5).

mod common;

use common::{LIMITS, message, render, variables};
use surety_template::{Limit, Limits, TemplateError, Variables};
use surety_types::{Message, ToolCall};

fn shown(source: &str, tools: &[&str], limits: &Limits) -> Result<String, TemplateError> {
    let messages = [message("user", "Hi")];
    let tools: Vec<String> = tools.iter().map(|tool| (*tool).to_owned()).collect();
    let variables = Variables { tools: &tools, ..variables(&messages) };
    render(source, &variables, limits).map(|rendered| rendered.text)
}

#[test]
fn json_becomes_values_in_its_order() {
    let check = |source: &str, tools: &[&str], expected: &str| {
        assert_eq!(shown(source, tools, &LIMITS).unwrap(), expected, "{source}");
    };
    check("{{ tools is none }}{{ tools }}", &[], "TrueNone");
    check(
        "{% for tool in tools %}{{ tool|tojson }};{% endfor %}",
        &["{\"b\":1,\"a\":[]}", "{}"],
        "{\"b\": 1, \"a\": []};{};",
    );
    check(
        "{{ tools[0]|tojson }}",
        &[r#"{"a":-0,"b":1.0,"c":1e3,"d":2E-7,"e":true,"f":null}"#],
        r#"{"a": 0, "b": 1.0, "c": 1000.0, "d": 2e-07, "e": true, "f": null}"#,
    );
    check("{{ tools[0] }}", &[r#"{"a":{"b":["\u00e9",-2.50]}}"#], "{'a': {'b': ['é', -2.5]}}");
    // Of equal names the first keeps its place, the last its value.
    check("{{ tools[0]|tojson }}", &[r#"{"a":1,"b":2,"a":3}"#], r#"{"a": 3, "b": 2}"#);
    check("{{ tools[0].a.b[1].c is integer }}", &[r#"{"a":{"b":[0,{"c":7}]}}"#], "True");
}

#[test]
fn calls_are_mappings_of_id_type_and_function() {
    let call = ToolCall { id: "c1".into(), name: "find".into(), arguments: r#"{"z":1,"a":"é"}"#.into() };
    let messages = [
        Message { tool_calls: vec![call], ..message("assistant", "") },
        Message { tool_call_id: Some("c1".into()), name: Some("find".into()), ..message("tool", "4") },
    ];
    let text = render("{{ messages|tojson }}", &variables(&messages), &LIMITS).unwrap().text;
    let expected = concat!(
        r#"[{"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "type": "function", "#,
        r#""function": {"name": "find", "arguments": {"z": 1, "a": "é"}}}]}, "#,
        r#"{"role": "tool", "content": "4", "name": "find", "tool_call_id": "c1"}]"#,
    );
    assert_eq!(text, expected);
}

#[test]
fn what_tools_take_is_counted_and_what_is_no_json_is_refused() {
    let refused = |tool: &str, limits: &Limits| shown("", &[tool], limits).unwrap_err();
    for tool in ["", "{", "{\"a\": 1}", "{\"a\":1e999}", "{}{}"] {
        assert!(matches!(refused(tool, &LIMITS), TemplateError::Operation { .. }), "{tool}");
    }
    let names: Vec<String> = (0..4000).map(|name| format!("\"{name}\":0")).collect();
    let wide = format!("{{{}}}", names.join(","));
    let limit = |error: TemplateError| match error {
        TemplateError::Limit { limit, .. } => Some(limit),
        _ => None,
    };
    // Each name is compared with those before it.
    assert_eq!(limit(refused(&wide, &LIMITS)), Some(Limit::Steps));
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20));
    assert_eq!(limit(refused(&long, &Limits { bytes: 1 << 20, ..LIMITS })), Some(Limit::Bytes));
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(60), "]".repeat(60));
    assert_eq!(limit(refused(&deep, &Limits { depth: 50, ..LIMITS })), Some(Limit::Depth));
    assert!(shown("", &[&deep], &LIMITS).is_ok());
}

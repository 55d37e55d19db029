use proptest::prelude::*;

use std::sync::Arc;

use surety_types::ToolCall;

use super::*;
use crate::route::preferences::Sort;

const TODAY: CivilDate = CivilDate { year: 2026, month: 11, day: 20 };

fn chat(members: &str) -> Result<Ask, ApiError> {
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}]{members}}}"#);
    Ask::parse(&body, Route::Chat, TODAY)
}

fn completion(members: &str) -> Result<Ask, ApiError> {
    Ask::parse(&format!(r#"{{"model":"m"{members}}}"#), Route::Completions, TODAY)
}

fn check_refused(result: Result<Ask, ApiError>, code: Code, param: &str, words: &str) {
    let error = result.expect_err(param);
    assert_eq!((error.code(), error.param()), (code, Some(param)), "{}", error.message());
    assert!(error.message().contains(words), "{} lacks {words}", error.message());
}

#[test]
fn what_is_absent_has_openai_s_default() {
    let ask = chat("").expect("a plain chat");
    assert_eq!(ask.sampling, Sampling::default());
    assert_eq!((ask.choices, ask.seed, ask.max_output_tokens), (1, Seed::Nonce, None));
    assert!(!ask.stream && !ask.include_usage && !ask.ignore_end);
    assert_eq!(ask.requests[0].date, Some(TODAY));
    let ask = completion(r#","prompt":"x""#).expect("a plain completion");
    assert_eq!(ask.max_output_tokens, Some(16));
    assert_eq!(ask.requests[0].date, None);
}

#[test]
fn every_parameter_is_read() {
    let ask = chat(
        r#","temperature":0.5,"top_p":0.25,"top_k":40,"min_p":0.125,"repetition_penalty":1.5,
           "presence_penalty":-2,"frequency_penalty":2,"logit_bias":{"7":-100,"3":1.5},"seed":-9007199254740991,
           "stop":["a","b"],"n":3,"ignore_eos":true,"logprobs":true,"top_logprobs":5,"stream":true,
           "max_completion_tokens":9,"stream_options":{"include_usage":true,"include_obfuscation":false},
           "surety":{"date":"2024-02-29","worker":"0123abcd","deadline_ms":5000},"provider":{"sort":"price"}"#,
    )
    .expect("all of them");
    let sampling = Sampling {
        temperature: 0.5,
        top_k: 40,
        top_p: 0.25,
        min_p: 0.125,
        repetition_penalty: 1.5,
        presence_penalty: -2.0,
        frequency_penalty: 2.0,
        logit_bias: vec![(3, 1.5), (7, -100.0)],
        grammar: None,
    };
    assert_eq!(ask.sampling, sampling);
    assert_eq!(ask.seed, Seed::Caller(-9_007_199_254_740_991));
    assert_eq!((ask.choices, ask.max_output_tokens), (3, Some(9)));
    assert!(ask.stream && ask.include_usage && ask.ignore_end);
    assert_eq!(ask.preferences.worker, Some(Name::parse("0123abcd").expect("a name")));
    assert_eq!((ask.preferences.sort, ask.deadline_ms), (Some(Sort::Price), Some(5000)));
    let request = &ask.requests[0];
    assert_eq!(request.stop, ["a", "b"]);
    assert_eq!(request.logprobs, Some(5));
    assert_eq!(request.date, Some(CivilDate { year: 2024, month: 2, day: 29 }));
}

#[test]
fn the_turns_of_a_conversation_begin_alike() {
    let ask = |messages: &str| {
        Ask::parse(&format!(r#"{{"model":"m","messages":[{messages}]}}"#), Route::Chat, TODAY)
            .expect("a chat")
            .affinity()
    };
    let system = format!(r#"{{"role":"system","content":"{}"}}"#, "be brief ".repeat(200));
    let turn = |text: &str| format!(r#"{system},{{"role":"user","content":"{text}"}}"#);
    assert_eq!(ask(&turn("one")), ask(&turn("two")));
    assert_ne!(ask(r#"{"role":"user","content":"one"}"#), ask(r#"{"role":"user","content":"two"}"#));
    let tokens = |members| completion(members).expect("a completion").affinity();
    assert_ne!(tokens(r#","prompt":[1,2]"#), tokens(r#","prompt":[1,3]"#));
}

#[test]
fn roles_and_contents_are_those_of_templates() {
    let ask = Ask::parse(
        r#"{"model":"m","messages":[
            {"role":"developer","content":[{"type":"text","text":"be "},{"type":"text","text":"brief"}],"name":"dev"},
            {"role":"assistant","content":"ok","refusal":null,"tool_calls":[],"annotations":[],"provider_specific_fields":{"refusal":null}},
            {"role":"function","content":"4","name":"add"}]}"#,
        Route::Chat,
        TODAY,
    )
    .expect("three messages");
    let Prompt::Chat { messages, .. } = &ask.requests[0].prompt else { panic!("not a chat") };
    let flat: Vec<_> =
        messages.iter().map(|m| (m.role.as_str(), m.content.as_str(), m.name.as_deref())).collect();
    let expected =
        [("system", "be brief", Some("dev")), ("assistant", "ok", None), ("tool", "4", Some("add"))];
    assert_eq!(flat, expected);
}

#[test]
fn prompts_come_in_four_shapes() {
    let prompts = |members| -> Vec<Prompt> {
        completion(members).expect(members).requests.into_iter().map(|request| request.prompt).collect()
    };
    let text = |text: &str| Prompt::Text(text.to_owned());
    assert_eq!(prompts(r#","prompt":"a""#), [text("a")]);
    assert_eq!(prompts(r#","prompt":["a","b"]"#), [text("a"), text("b")]);
    assert_eq!(prompts(r#","prompt":[1,2]"#), [Prompt::Tokens(vec![1, 2])]);
    assert_eq!(prompts(r#","prompt":[[1],[2,3]]"#), [Prompt::Tokens(vec![1]), Prompt::Tokens(vec![2, 3])]);
}

#[test]
fn echo_scores_the_prompt_where_it_must() {
    let scored = |members| completion(members).expect(members).requests[0].prompt_logprobs;
    assert_eq!(scored(r#","prompt":"a","echo":true"#), None);
    assert_eq!(scored(r#","prompt":"a","echo":true,"logprobs":1,"max_tokens":0"#), Some(1));
    assert_eq!(scored(r#","prompt":[1],"echo":true"#), Some(0));
    assert_eq!(scored(r#","prompt":[1],"logprobs":3"#), None);
}

#[test]
fn values_out_of_range_are_refused_by_name() {
    use Code::InvalidParam;
    for (members, param, words) in [
        (r#","temperature":2.1"#, "temperature", "between 0 and 2"),
        (r#","temperature":"hot""#, "temperature", "a number"),
        (r#","top_p":-0.1"#, "top_p", "between 0 and 1"),
        (r#","min_p":2"#, "min_p", "between 0 and 1"),
        (r#","top_k":-2"#, "top_k", "between -1"),
        (r#","repetition_penalty":0"#, "repetition_penalty", "between 0.01 and 10"),
        (r#","presence_penalty":3"#, "presence_penalty", "between -2 and 2"),
        (r#","frequency_penalty":-3"#, "frequency_penalty", "between -2 and 2"),
        (r#","n":0"#, "n", "between 1 and 16"),
        (r#","n":17"#, "n", "between 1 and 16"),
        (r#","n":1.5"#, "n", "without a fraction"),
        (r#","seed":9223372036854775808"#, "seed", "between"),
        (r#","seed":1e3"#, "seed", "without a fraction"),
        (r#","max_tokens":0"#, "max_tokens", "between 1"),
        (r#","max_tokens":1,"max_completion_tokens":2"#, "max_tokens", "two names"),
        (r#","top_logprobs":2"#, "top_logprobs", "needs `logprobs: true`"),
        (r#","logprobs":true,"top_logprobs":21"#, "top_logprobs", "between 0 and 20"),
        (r#","logprobs":1"#, "logprobs", "true or false"),
        (r#","logit_bias":{"foo":0}"#, "logit_bias.foo", "not a token id"),
        (r#","logit_bias":{"-1":0}"#, "logit_bias.-1", "not a token id"),
        (r#","logit_bias":{"01":0}"#, "logit_bias.01", "not a token id"),
        (r#","logit_bias":{"1":101}"#, "logit_bias.1", "between -100 and 100"),
        (r#","logit_bias":[]"#, "logit_bias", "an object"),
        (r#","stop":"""#, "stop", "1 to 256"),
        (r#","stop":7"#, "stop", "a text or a list of texts"),
        (r#","stop":["1","2","3","4","5","6","7","8","9","a","b","c","d","e","f","g","h"]"#, "stop", "16"),
        (r#","stream":"yes""#, "stream", "true or false"),
        (r#","surety":{"date":"2026-2-3"}"#, "surety.date", "YYYY-MM-DD"),
        (r#","surety":{"date":"2026-02-30"}"#, "date", "no day"),
        (r#","surety":{"worker":"abc"}"#, "surety.worker", "8 to 64"),
        (r#","surety":{"worker":"0x01234567"}"#, "surety.worker", "of a worker's key"),
        (r#","provider":{"order":["Azure"]}"#, "provider.order[0]", "names nobody"),
        (r#","surety":{"deadline_ms":1}"#, "surety.deadline_ms", "between 1000"),
    ] {
        check_refused(chat(members), InvalidParam, param, words);
    }
    for (members, param, words) in [
        (r#","prompt":"a","max_tokens":0"#, "max_tokens", "echo"),
        (r#","prompt":[]"#, "prompt", "empty list"),
        (r#","prompt":[[1],[]]"#, "prompt[1]", "empty list"),
        (r#","prompt":[1,"a"]"#, "prompt[1]", "token id"),
        (r#","prompt":["a",1]"#, "prompt[1]", "a string"),
        (r#","prompt":[-1]"#, "prompt[0]", "token id"),
        (r#","prompt":null"#, "prompt", "missing"),
        (r#","prompt":{}"#, "prompt", "a text"),
        (r#","prompt":"a","logprobs":true"#, "logprobs", "an integer"),
    ] {
        check_refused(completion(members), InvalidParam, param, words);
    }
}

#[test]
fn messages_are_refused_by_their_place() {
    let messages =
        |messages: &str| Ask::parse(&format!(r#"{{"model":"m","messages":{messages}}}"#), Route::Chat, TODAY);
    use Code::{InvalidParam, UnknownParameter, UnsupportedParameter};
    check_refused(messages("[]"), InvalidParam, "messages", "empty");
    check_refused(messages("{}"), InvalidParam, "messages", "a list");
    check_refused(messages("[3]"), InvalidParam, "messages[0]", "an object");
    check_refused(messages(r#"[{"content":"x"}]"#), InvalidParam, "messages[0].role", "missing");
    check_refused(messages(r#"[{"role":"god","content":"x"}]"#), InvalidParam, "messages[0].role", "`user`");
    check_refused(messages(r#"[{"role":"user"}]"#), InvalidParam, "messages[0].content", "missing");
    check_refused(
        messages(r#"[{"role":"user","content":"\ud800"}]"#),
        InvalidParam,
        "messages[0].content",
        "cannot be read",
    );
    check_refused(
        messages(r#"[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]"#),
        UnsupportedParameter,
        "messages[0].content[0].type",
        "image_url",
    );
    for (call, param, words) in [
        ("{}", "messages[0].tool_calls[0].id", "missing"),
        (r#"{"id":"a"}"#, "messages[0].tool_calls[0].function", "missing"),
        (r#"{"id":"a","function":{}}"#, "messages[0].tool_calls[0].function.name", "missing"),
        (
            r#"{"id":"a","function":{"name":"f","arguments":"[]"}}"#,
            "messages[0].tool_calls[0].function.arguments",
            "must be an object",
        ),
        (
            r#"{"id":"a","function":{"name":"f","arguments":"{\"a\":1e999}"}}"#,
            "messages[0].tool_calls[0].function.arguments",
            "not finite",
        ),
        (
            r#"{"id":"a","function":{"name":"f","arguments":{}}}"#,
            "messages[0].tool_calls[0].function.arguments",
            "string",
        ),
    ] {
        let message = format!(r#"[{{"role":"assistant","content":null,"tool_calls":[{call}]}}]"#);
        check_refused(messages(&message), InvalidParam, param, words);
    }
    check_refused(
        messages(r#"[{"role":"assistant","tool_calls":[{"id":"a","type":"custom"}]}]"#),
        UnsupportedParameter,
        "messages[0].tool_calls[0].type",
        "Only \"function\"",
    );
    check_refused(
        messages(r#"[{"role":"user","content":"x","tool_calls":[{}]}]"#),
        UnknownParameter,
        "messages[0].tool_calls",
        "tool_calls",
    );
    check_refused(
        messages(r#"[{"role":"user","contents":"x","content":"y"}]"#),
        UnknownParameter,
        "messages[0].contents",
        "Did you mean `content`?",
    );
}

#[test]
fn a_format_is_in_the_request_and_named_in_the_order() {
    let ask = chat(r#","response_format":{"type":"json_object"},"n":2"#).expect("a format");
    let grammar = ask.requests[0].grammar.as_deref().expect("in the request");
    assert_eq!(ask.sampling.grammar, Some(Request::grammar_digest(grammar)));
    assert_eq!(chat(r#","response_format":{"type":"text"}"#).expect("text").sampling.grammar, None);
    let both = chat(r#","response_format":{"type":"json_object"},"ignore_eos":true"#);
    check_refused(both, Code::InvalidParam, "ignore_eos", "response_format");
}

#[test]
fn what_would_change_the_answer_is_refused_unless_it_asks_for_nothing() {
    use Code::UnsupportedParameter;
    for members in [
        r#","tools":[]"#,
        r#","tools":[{"type":"function"}],"tool_choice":"none""#,
        r#","tool_choice":"auto""#,
        r#","functions":[{"name":"f"}],"function_call":"none""#,
        r#","response_format":{"type":"text"}"#,
        r#","modalities":["text"]"#,
        r#","audio":null"#,
    ] {
        assert!(chat(members).is_ok(), "{members}");
    }
    for (members, param) in [
        (r#","tools":[{"type":"web_search"}]"#, "tools[0].type"),
        (
            r#","tools":[{"type":"function","function":{"name":"f","strict":true}}]"#,
            "tools[0].function.strict",
        ),
        (r#","modalities":["text","audio"]"#, "modalities"),
        (r#","audio":{"voice":"alloy"}"#, "audio"),
        (r#","web_search_options":{}"#, "web_search_options"),
    ] {
        check_refused(chat(members), UnsupportedParameter, param, "supported here");
    }
    for (members, param) in [(r#","suffix":"z""#, "suffix"), (r#","best_of":4"#, "best_of")] {
        check_refused(
            completion(&format!(r#","prompt":"a"{members}"#)),
            UnsupportedParameter,
            param,
            "supported here",
        );
    }
    assert!(completion(r#","prompt":"a","n":2,"best_of":2"#).is_ok());
}

#[test]
fn tools_and_calls_are_carried_as_they_are_written() {
    let ask = Ask::parse(
        r#"{"model":"m","tools":[
              {"function": {"parameters": {"type": "object", "b": 1.0, "a": [ ]}, "name": "find"}, "type": "function"},
              {"type":"function","function":{"name":"ask","description":"a \"b\"","strict":false}}],
            "tool_choice":"auto","parallel_tool_calls":false,"messages":[
              {"role":"user","content":"x"},
              {"role":"assistant","content":null,"tool_calls":[
                {"id":"c1","type":"function","index":0,"function":{"name":"find","arguments":"{ \"b\": 2, \"a\" : 1 }"}},
                {"id":"c2","type":"function","function":{"name":"ask","arguments":""}}]},
              {"role":"tool","tool_call_id":"c2","content":"4"}]}"#,
        Route::Chat,
        TODAY,
    )
    .expect("a chat with tools");
    let names: Arc<[String]> = ["find".to_owned(), "ask".to_owned()].into();
    assert_eq!(ask.tools, Some(Tools { names, most: 1, older: false, forced: None }));
    assert_eq!(ask.shows_tools(), Some("tools"));
    assert!(!ask.goes_on());
    let Prompt::Chat { messages, tools } = &ask.requests[0].prompt else { panic!("not a chat") };
    assert_eq!(
        tools[0],
        r#"{"function":{"parameters":{"type":"object","b":1.0,"a":[]},"name":"find"},"type":"function"}"#
    );
    let calls = [
        ToolCall { id: "c1".into(), name: "find".into(), arguments: r#"{"b":2,"a":1}"#.into() },
        ToolCall { id: "c2".into(), name: "ask".into(), arguments: "{}".into() },
    ];
    assert_eq!((messages[1].content.as_str(), &messages[1].tool_calls[..]), ("", &calls[..]));
    assert_eq!(messages[2].tool_call_id.as_deref(), Some("c2"));
}

#[test]
fn a_call_that_must_come_is_what_the_answer_is_held_to() {
    let held = |members: &str, format| {
        let mut ask = chat(&format!(
            r#","tools":[{{"type":"function","function":{{"name":"f","strict":true,"parameters":{{"type": "object", "properties": {{"a": {{"type":"null"}}}}}}}}}},
               {{"type":"function","function":{{"name":"g"}}}}],{members}"#
        ))
        .expect(members);
        ask.hold_to_calls(Some(format)).expect(members);
        let grammar = ask.requests[0].grammar.clone().expect("a grammar");
        assert_eq!(ask.sampling.grammar, Some(Request::grammar_digest(&grammar)));
        (grammar, ask.tools.expect("tools"))
    };
    let named = r#""tool_choice":{"type":"function","function":{"name":"g"}}"#;
    let (grammar, tools) = held(named, CallFormat::Mistral);
    let expected = r#"{"forms":[{"prefix":"[{\"name\": \"g\", \"arguments\": ","schema":{"type":"object","properties":{}},"suffix":"}]"}],"most":1,"separator":"\n"}"#;
    assert_eq!((grammar.as_str(), &tools.names[..]), (expected, &["g".to_owned()][..]));
    let (grammar, tools) = held(r#""tool_choice":"required""#, CallFormat::Hermes);
    assert!(
        grammar.contains(r#"<tool_call>\n{\"name\": \"f\", "#) && grammar.contains(r#""most":16"#),
        "{grammar}"
    );
    assert_eq!(tools.names.len(), 2);
    let (grammar, _) = held(r#""tool_choice":"required","parallel_tool_calls":false"#, CallFormat::Llama);
    assert!(grammar.contains("parameters\\\": ") && grammar.contains(r#""most":1,"#), "{grammar}");

    let refused = |members: &str| {
        let mut ask = chat(members).expect(members);
        ask.hold_to_calls(Some(CallFormat::Hermes)).map(|()| ask)
    };
    let forced = r#","tool_choice":"required","tools":[{"type":"function","function":{"name":"f""#;
    let parameters = r#""parameters":{"type":"string","pattern":"x"}"#;
    let pattern = format!(r#"{forced},"strict":true,{parameters}}}}}]"#);
    check_refused(refused(&pattern), Code::UnsupportedParameter, "tools", "`pattern`");
    // Nobody asked for it to be kept to.
    refused(&format!(r#"{forced},{parameters}}}}}]"#)).expect("the rest is applied");
    let both = format!(r#"{forced}}}}}],"response_format":{{"type":"json_object"}}"#);
    check_refused(refused(&both), Code::InvalidParam, "tool_choice", "form");
    check_refused(chat(r#","tool_choice":"required""#), Code::InvalidParam, "tool_choice", "no `tools`");
}

#[test]
fn functions_are_tools_of_the_older_form() {
    let ask = Ask::parse(
        r#"{"model":"m","functions":[{"name":"find","parameters":{}}],"messages":[
              {"role":"assistant","content":null,"function_call":{"name":"find","arguments":"{}"}},
              {"role":"function","name":"find","content":"4"}]}"#,
        Route::Chat,
        TODAY,
    )
    .expect("a chat with functions");
    assert_eq!(
        ask.tools,
        Some(Tools { names: ["find".to_owned()].into(), most: 1, older: true, forced: None })
    );
    assert_eq!(ask.shows_tools(), Some("functions"));
    let Prompt::Chat { messages, tools } = &ask.requests[0].prompt else { panic!("not a chat") };
    assert_eq!(tools[..], [r#"{"type":"function","function":{"name":"find","parameters":{}}}"#]);
    assert_eq!(messages[0].tool_calls[0].id, "call00000");
    assert_eq!(messages[1].tool_call_id.as_deref(), Some("call00000"));
}

#[test]
fn tools_are_refused_by_their_place() {
    use Code::InvalidParam;
    let function = |function: &str| format!(r#","tools":[{{"type":"function","function":{function}}}]"#);
    let deep = format!(r#"{{"name":"f","parameters":{{"a":{}{}}}}}"#, "[".repeat(64), "]".repeat(64));
    let long = format!(r#"{{"name":"f","description":"{}"}}"#, "x".repeat(64 << 10));
    for (members, param, words) in [
        (r#","tools":[{"type":"function"}]"#.to_owned(), "tools[0].function", "missing"),
        (r#","tools":[{"function":{"name":"f"}}]"#.to_owned(), "tools[0].type", "missing"),
        (function("{}"), "tools[0].function.name", "missing"),
        (function(r#"{"name":"a b"}"#), "tools[0].function.name", "letters, digits"),
        (function(r#"{"name":"f","parameters":[]}"#), "tools[0].function.parameters", "JSON Schema"),
        (function(&deep), "tools[0]", "64 levels"),
        (function(&long), "tools[0]", "At most 65536"),
        (function(r#"{"name":"f","parameters":{"a":99999999999999999999}}"#), "tools[0]", "64 bits"),
        (
            format!("{},\"functions\":[{{\"name\":\"g\"}}]", function(r#"{"name":"f"}"#)),
            "functions",
            "older form",
        ),
        (format!("{},\"tool_choice\":\"always\"", function(r#"{"name":"f"}"#)), "tool_choice", "none, auto"),
        (
            r#","tools":[],"tool_choice":{"type":"function","function":{"name":"g"}}"#.to_owned(),
            "tool_choice",
            "none of `tools`",
        ),
        (r#","functions":[{"name":"f"},{"name":"f"}]"#.to_owned(), "functions[1]", "Name each once"),
    ] {
        check_refused(chat(&members), InvalidParam, param, words);
    }
    check_refused(
        chat(&function(r#"{"name":"f","parameter":{}}"#)),
        Code::UnknownParameter,
        "tools[0].function.parameter",
        "Did you mean `parameters`?",
    );
}

#[test]
fn sizes_are_refused_with_numbers() {
    let long = "x".repeat(10 << 20);
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{long}"}}]}}"#);
    let error = Ask::parse(&body, Route::Chat, TODAY).expect_err("10 MiB");
    assert_eq!(error.code(), Code::PayloadTooLarge);
    assert!(error.message().contains("10485760 bytes") && error.message().contains("8388608"));

    let long = "x".repeat(3 << 20);
    let body = format!(r#"{{"model":"m","prompt":"{long}","n":16}}"#);
    let error = Ask::parse(&body, Route::Completions, TODAY).expect_err("3 MiB times 16");
    assert_eq!(error.code(), Code::PayloadTooLarge);

    let long = "x".repeat(257);
    let body = format!(r#"{{"model":"{long}","prompt":"x"}}"#);
    check_refused(Ask::parse(&body, Route::Completions, TODAY), Code::InvalidParam, "model", "257 bytes");

    let many = vec!["\"a\""; 20].join(",");
    check_refused(
        completion(&format!(r#","prompt":[{many}],"n":16"#)),
        Code::InvalidParam,
        "prompt",
        "320 answers",
    );
}

#[test]
fn every_taken_parameter_is_named_when_its_value_is_nonsense() {
    for route in [Route::Chat, Route::Completions, Route::Embeddings] {
        for parameter in table::PARAMETERS.iter().filter(|parameter| parameter.is_on(route)) {
            let nonsense = r#"{"no such member":[{}]}"#;
            let subject = match route {
                Route::Chat => r#""messages":[{"role":"user","content":"hi"}]"#,
                Route::Embeddings => r#""input":"hi""#,
                _ => r#""prompt":"hi""#,
            };
            let body = match parameter.name {
                "model" => format!("{{{subject},\"model\":{nonsense}}}"),
                "messages" | "prompt" | "input" => {
                    format!("{{\"model\":\"m\",\"{}\":{nonsense}}}", parameter.name)
                }
                name => format!("{{\"model\":\"m\",{subject},\"{name}\":{nonsense}}}"),
            };
            let result = Ask::parse(&body, route, TODAY);
            if parameter.treatment == table::Treatment::Ignored && parameter.is_on(route) {
                assert!(result.is_ok(), "{body}");
            } else {
                let error = result.expect_err(&body);
                let named = error.param().expect("a parameter").starts_with(parameter.name);
                assert!(named, "{body}: {:?}", error.param());
            }
        }
    }
}

/// Any JSON value, biased towards the words and numbers that parameters are made of.
fn value() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::{Value, json};
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3i64..20).prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        ".{0,8}".prop_map(Value::from),
        prop_oneof![Just("user"), Just("text"), Just("none"), Just("auto"), Just("m")].prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        let name = prop_oneof![
            ".{0,6}",
            (0..table::PARAMETERS.len()).prop_map(|index| table::PARAMETERS[index].name.to_owned()),
            prop_oneof![Just("role"), Just("content"), Just("type"), Just("7")].prop_map(str::to_owned),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map(name, inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_json_is_read_or_refused_as_the_caller_s_fault(
        members in prop::collection::hash_map(0..table::PARAMETERS.len(), value(), 0..8),
        whole in value(),
        chat in any::<bool>(),
    ) {
        let route = if chat { Route::Chat } else { Route::Completions };
        let mut body = serde_json::json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
        if !chat {
            body = serde_json::json!({"model": "m", "prompt": "x"});
        }
        for (index, value) in members {
            body[table::PARAMETERS[index].name] = value;
        }
        for body in [body, whole] {
            match Ask::parse(&body.to_string(), route, TODAY) {
                Ok(ask) => {
                    prop_assert!(ask.sampling.check().is_ok());
                    prop_assert!(ask.requests.iter().all(|request| request.check().is_ok()));
                }
                Err(error) => prop_assert!(error.code().status().is_client_error(), "{}", error.message()),
            }
        }
    }
}

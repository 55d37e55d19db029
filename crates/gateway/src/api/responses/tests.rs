use proptest::prelude::*;
use serde_json::{Value, json};
use surety_types::CallFormat;

use super::{
    items::{Place, item_id},
    record::Status,
    shapes::InputMessage,
    *,
};
use crate::api::shapes::{SuretyNote, Usage};

fn head(body: Value) -> Arc<Head> {
    let body = body.to_string();
    let asked = Asked::parse(&body).expect("a body");
    let (model, model_id) = ("tiny".to_owned(), "ab".repeat(32));
    Arc::new(Head {
        id: RequestId::of_bits(7),
        body,
        asked,
        model,
        model_id,
        calls: Some(CallFormat::Hermes),
        nonce: [3; 32],
        tenant: 7,
        received_ms: 5_500,
    })
}

fn transcript(background: bool) -> Transcript {
    Transcript::new(head(
        json!({"model": "tiny", "input": "hi", "background": background, "metadata": {"a": "b"}}),
    ))
}

/// One in which functions may be called.
fn calling(background: bool) -> Transcript {
    let tools = ["find", "ask"].map(|name| json!({"type": "function", "name": name}));
    Transcript::new(head(json!({"model": "tiny", "input": "hi", "background": background, "tools": tools})))
}

const CALL: &str = "<tool_call>{\"name\": \"find\", \"arguments\": {\"a\": [1,  2]}}</tool_call>";

fn end(status: Status) -> End {
    let failure = ApiError::new(Code::WorkerLost, "The worker was lost.");
    match status {
        Status::Failed => End::failed(&failure, RequestId::of_bits(7), 9_000),
        Status::Cancelled => End::cancelled(9_000),
        whole => {
            let reason = if whole == Status::Completed { "stop" } else { "length" };
            let note = SuretyNote {
                request_id: "req".to_owned(),
                receipt: None,
                model: "m".to_owned(),
                tier: "exact",
                workers: vec!["w".to_owned()],
                verification: "not-requested",
                checked_by: Vec::new(),
                handovers: 0,
                waits: Vec::new(),
                cost: "0".to_owned(),
                checked: Vec::new(),
                not_checked: Vec::new(),
                tool_calls: None,
                note: None,
            };
            let usage = Usage { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5, ..Usage::default() };
            End::told(reason, 9_000, usage, &note)
        }
    }
}

/// All events there are, each with its number.
fn events(transcript: &Transcript) -> Vec<String> {
    (0..transcript.events())
        .map(|number| {
            let mut out = Vec::new();
            transcript.event(number, &mut out);
            String::from_utf8(out).expect("text")
        })
        .collect()
}

fn data(event: &str) -> Value {
    let (kind, data) =
        event.strip_prefix("event: ").and_then(|event| event.split_once("\ndata: ")).expect("an event");
    let data: Value = serde_json::from_str(data.strip_suffix("\n\n").expect("an end")).expect("JSON");
    assert_eq!(data["type"], kind);
    data
}

fn kinds(transcript: &Transcript) -> Vec<String> {
    let all = events(transcript).into_iter().map(|event| data(&event));
    all.map(|event| event["type"].as_str().expect("a type").trim_start_matches("response.").to_owned())
        .collect()
}

#[test]
fn events_come_in_openai_s_order() {
    let mut response = transcript(false);
    assert_eq!(kinds(&response), ["created"]);
    response.begin();
    assert_eq!(kinds(&response), ["created", "in_progress"]);
    response.hear("Hello");
    let begun = [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
    ];
    assert_eq!(kinds(&response), begun);
    response.hear("!");
    assert_eq!(kinds(&response), begun, "what is no whole piece waits");
    response.end_with(end(Status::Completed));
    let ended =
        ["output_text.delta", "output_text.done", "content_part.done", "output_item.done", "completed"];
    assert_eq!(kinds(&response), [&begun[..], &ended[..]].concat());

    let mut queued = transcript(true);
    assert_eq!(kinds(&queued), ["created", "queued"]);
    queued.end_with(end(Status::Failed));
    assert_eq!(kinds(&queued), ["created", "queued", "in_progress", "failed"]);
    let all: Vec<Value> = events(&queued).iter().map(|event| data(event)).collect();
    let statuses: Vec<&Value> = all.iter().map(|event| &event["response"]["status"]).collect();
    assert_eq!(statuses, ["queued", "queued", "in_progress", "failed"]);
    let error = &all[3]["response"]["error"];
    assert_eq!((&error["code"], &error["surety_code"]), (&json!("server_error"), &json!("worker_lost")));
    assert!(all[3]["response"].get("surety").is_none() && all[0]["response"]["error"].is_null());

    let mut silent = transcript(false);
    silent.begin();
    silent.end_with(end(Status::Incomplete));
    let rest = [
        "output_item.added",
        "content_part.added",
        "output_text.done",
        "content_part.done",
        "output_item.done",
    ];
    assert_eq!(kinds(&silent), [&begun[..2], &rest[..], &["incomplete"]].concat());
    let last = data(events(&silent).last().expect("an end"));
    assert_eq!(last["response"]["incomplete_details"]["reason"], "max_output_tokens");
    assert_eq!(last["response"]["output"][0]["status"], "incomplete");

    let mut cancelled = transcript(false);
    cancelled.hear("Hello");
    cancelled.begin();
    cancelled.end_with(end(Status::Cancelled));
    assert_eq!(kinds(&cancelled), [&begun[..], &["incomplete"]].concat());
    let last = data(events(&cancelled).last().expect("an end"));
    assert_eq!(
        (&last["response"]["status"], &last["response"]["incomplete_details"]),
        (&json!("cancelled"), &Value::Null)
    );
    assert_eq!(last["response"]["output"][0]["content"][0]["text"], "Hello");
}

#[test]
fn calls_are_items_beside_what_is_said() {
    let mut response = calling(false);
    response.begin();
    response.hear(&format!("Hello\n{CALL}\n{CALL}\nand"));
    response.end_with(end(Status::Completed));
    let message = ["output_item.added", "content_part.added", "output_text.delta", "output_text.delta"];
    let call = [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ];
    let over = ["output_text.done", "content_part.done", "output_item.done"];
    let all =
        [&["created", "in_progress"], &message[..], &over, &call, &call, &message, &over, &["completed"]];
    assert_eq!(kinds(&response), all.concat());
    let all: Vec<Value> = events(&response).iter().map(|event| data(event)).collect();
    let id = "fc_00000000000000000000000000000007_0001";
    let arguments = "{\"a\": [1,  2]}";
    let item = |status: &str, arguments: &str| {
        json!({"id": id, "type": "function_call", "status": status, "call_id": "call_000000000000000000000000",
            "name": "find", "arguments": arguments})
    };
    let of_call: Vec<&Value> = all.iter().filter(|event| event["output_index"] == 1).collect();
    assert_eq!(of_call[0]["item"], item("in_progress", ""));
    assert_eq!((&of_call[1]["item_id"], &of_call[1]["delta"]), (&json!(id), &json!(arguments)));
    assert_eq!((&of_call[2]["name"], &of_call[2]["arguments"]), (&json!("find"), &json!(arguments)));
    assert_eq!(of_call[3]["item"], item("completed", arguments));
    let output = &all.last().expect("an end")["response"]["output"];
    let kinds: Vec<&Value> = output.as_array().expect("items").iter().map(|item| &item["type"]).collect();
    assert_eq!(kinds, ["message", "function_call", "function_call", "message"]);
    assert_eq!(output[0]["id"], "msg_00000000000000000000000000000007");
    assert_eq!(
        (&output[0]["content"][0]["text"], &output[3]["content"][0]["text"]),
        (&json!("Hello"), &json!("and"))
    );
    assert_eq!(
        (&output[1], &output[2]["call_id"]),
        (&of_call[3]["item"], &json!("call_000000000000000000000001"))
    );
    let document: Value = serde_json::from_slice(&response.document()).expect("JSON");
    assert_eq!((&document["output"], &document["tools"][0]["name"]), (output, &json!("find")));

    // Calls alone leave no message; one that was cut off is text.
    let mut alone = calling(false);
    alone.begin();
    alone.hear(CALL);
    alone.hear(&CALL[..20]);
    alone.end_with(end(Status::Incomplete));
    let document: Value = serde_json::from_slice(&alone.document()).expect("JSON");
    assert_eq!(
        (&document["output"][0]["type"], &document["output"][0]["status"]),
        (&json!("function_call"), &json!("completed"))
    );
    assert_eq!(document["output"][1]["content"][0]["text"], CALL[..20]);
    assert_eq!(document["output"][1]["status"], "incomplete");
    assert_eq!(document["output"][2], Value::Null);
}

#[test]
fn a_document_has_what_strict_clients_require() {
    let mut response = transcript(false);
    response.begin();
    response.hear("Hello");
    response.end_with(end(Status::Completed));
    let document: Value = serde_json::from_slice(&response.document()).expect("JSON");
    assert_eq!(document["id"], "resp_00000000000000000000000000000007");
    assert_eq!((&document["object"], &document["status"]), (&json!("response"), &json!("completed")));
    assert_eq!((&document["created_at"], &document["completed_at"]), (&json!(5), &json!(9)));
    assert_eq!(document["metadata"], json!({"a": "b"}));
    assert_eq!((&document["tools"], &document["parallel_tool_calls"]), (&json!([]), &json!(true)));
    let usage = json!({
        "input_tokens": 3, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 2, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 5,
    });
    assert_eq!(document["usage"], usage);
    let text = json!({"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []});
    let id = "msg_00000000000000000000000000000007";
    let message =
        json!({"id": id, "type": "message", "status": "completed", "role": "assistant", "content": [text]});
    assert_eq!(document["output"], json!([message]));
    assert_eq!(document["surety"]["workers"], json!(["w"]));
}

#[test]
fn a_page_begins_behind_an_item() {
    let items: Vec<InputItem> = (0..5)
        .map(|index| {
            InputItem::Message(InputMessage {
                id: item_id("msg", RequestId::of_bits(1), Place::Input(index)),
                kind: "message",
                status: "completed",
                role: "user",
                content: Vec::new(),
            })
        })
        .collect();
    let ids: Vec<String> = items.iter().map(|item| item.id().to_owned()).collect();
    let check = |query: &str, expected: &[usize], has_more: bool| {
        let uri = format!("/v1/responses/x/input_items?{query}").parse().expect("an address");
        let page = Page::parse(&uri).expect(query).of(items.clone()).expect(query);
        let found: Vec<&str> = page.data.iter().map(InputItem::id).collect();
        assert_eq!(found, expected.iter().map(|index| &ids[*index]).collect::<Vec<_>>(), "{query}");
        assert_eq!(page.has_more, has_more, "{query}");
        assert_eq!(page.first_id, found.first().copied().unwrap_or_default());
        assert_eq!(page.last_id, found.last().copied().unwrap_or_default());
    };
    check("", &[4, 3, 2, 1, 0], false);
    check("order=asc&limit=2&include%5B%5D=reasoning.encrypted_content", &[0, 1], true);
    check(&format!("order=asc&limit=2&after={}", ids[2]), &[3, 4], false);
    check(&format!("after={}", ids[0]), &[], false);
    let refused = |query: &str| {
        let uri = format!("/?{query}").parse().expect("an address");
        Page::parse(&uri).and_then(|page| page.of(items.clone())).expect_err(query).code()
    };
    for query in ["limit=0", "limit=101", "limit=x", "order=up", "after=msg_9", "include=message.output_text"]
    {
        assert_eq!(refused(query), Code::InvalidParam, "{query}");
    }
    assert_eq!(refused("lmit=3"), Code::UnknownParameter);
}

#[test]
fn a_query_says_how_a_response_is_wanted() {
    let parse =
        |query: &str| Retrieve::parse(&format!("/v1/responses/x?{query}").parse().expect("an address"));
    assert_eq!(parse("").expect("nothing"), Retrieve::default());
    let wanted = Retrieve { stream: true, starting_after: Some(42) };
    assert_eq!(parse("stream=true&starting_after=42&include_obfuscation=false").expect("all"), wanted);
    for query in [
        "stream=1",
        "starting_after=4",
        "stream=true&starting_after=-1",
        "stream=true&starting_after=99999999999",
    ] {
        assert_eq!(parse(query).expect_err(query).code(), Code::InvalidParam, "{query}");
    }
    assert_eq!(parse("strem=true").expect_err("a typo").code(), Code::UnknownParameter);
}

/// A text in pieces, divided anywhere.
fn divided<'a>(text: &'a str, cuts: &[prop::sample::Index]) -> Vec<&'a str> {
    let mut at: Vec<usize> =
        cuts.iter().map(|cut| text.floor_char_boundary(cut.index(text.len() + 1))).collect();
    at.extend([0, text.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

fn any_status() -> impl Strategy<Value = Status> {
    prop::sample::select(vec![Status::Completed, Status::Incomplete, Status::Failed, Status::Cancelled])
}

proptest! {
    #[test]
    fn numbers_follow_from_the_text_alone(
        words in prop::collection::vec(prop_oneof![4 => "[a-zé日🦀 <]{0,9}".boxed(), 1 => Just(CALL.to_owned()).boxed()], 0..12),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        background in any::<bool>(),
        calls in any::<bool>(),
        status in any_status(),
    ) {
        let transcript = |background| if calls { calling(background) } else { transcript(background) };
        let text = words.concat();
        let mut whole = transcript(background);
        whole.begin();
        whole.hear(&text);
        whole.end_with(end(status));
        let expected = events(&whole);
        // However it came: what is said so far is how the whole begins.
        let mut pieces = transcript(background);
        pieces.begin();
        for piece in divided(&text, &cuts) {
            pieces.hear(piece);
            let so_far = events(&pieces);
            prop_assert_eq!(&so_far[..], &expected[..so_far.len()]);
            prop_assert!(!pieces.is_last(so_far.len() as u64));
        }
        pieces.end_with(end(status));
        prop_assert_eq!(&events(&pieces), &expected);
        // And when it was kept meanwhile.
        let kept = Transcript::parse(whole.head.id, &whole.to_bytes(None)).expect("a record");
        prop_assert_eq!(&events(&kept), &expected);

        let all: Vec<Value> = expected.iter().map(|event| data(event)).collect();
        let numbers: Vec<u64> = all.iter().filter_map(|event| event["sequence_number"].as_u64()).collect();
        prop_assert_eq!(numbers, (0..all.len() as u64).collect::<Vec<_>>());
        let said: String = all.iter().filter_map(|event| event["delta"].as_str()).collect();
        if !calls {
            prop_assert_eq!(&said, &text);
        }
        let output = &all.last().expect("an end")["response"]["output"];
        let parts = output.as_array().expect("items").iter().map(|item| match item["type"].as_str() {
            Some("function_call") => item["arguments"].as_str().expect("arguments"),
            _ => item["content"][0]["text"].as_str().expect("a text"),
        });
        prop_assert_eq!(parts.collect::<String>(), said);
        let ends: Vec<usize> = (0..all.len()).filter(|number| whole.is_last(*number as u64)).collect();
        prop_assert_eq!(ends, [all.len() - 1]);
        // Whoever has seen more than there is hears of the end, behind what it has seen.
        let mut out = Vec::new();
        whole.event(1_000_000, &mut out);
        let beyond = data(&String::from_utf8(out).expect("text"));
        prop_assert_eq!(&beyond["sequence_number"], 1_000_000);
        prop_assert_eq!(&beyond["response"], &all.last().expect("an end")["response"]);
    }

    #[test]
    fn arbitrary_bytes_are_no_record_or_a_sound_one(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Transcript::parse(RequestId::of_bits(1), &bytes).is_err());
    }

    #[test]
    fn a_damaged_record_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut whole = transcript(true);
        whole.hear("Hello wörld");
        whole.end_with(end(Status::Completed));
        let mut bytes = whole.to_bytes(None);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(read) = Transcript::parse(RequestId::of_bits(1), &bytes) {
            let _ = (events(&read), read.document());
        }
    }
}

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{record::Status, *};
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
        .map(|index| InputItem {
            id: ask::item_id(RequestId::of_bits(1), Some(index)),
            kind: "message",
            status: "completed",
            role: "user",
            content: Vec::new(),
        })
        .collect();
    let ids: Vec<String> = items.iter().map(|item| item.id.clone()).collect();
    let check = |query: &str, expected: &[usize], has_more: bool| {
        let uri = format!("/v1/responses/x/input_items?{query}").parse().expect("an address");
        let page = Page::parse(&uri).expect(query).of(items.clone()).expect(query);
        let found: Vec<&String> = page.data.iter().map(|item| &item.id).collect();
        assert_eq!(found, expected.iter().map(|index| &ids[*index]).collect::<Vec<_>>(), "{query}");
        assert_eq!(page.has_more, has_more, "{query}");
        assert_eq!(page.first_id, found.first().map_or("", |id| id.as_str()));
        assert_eq!(page.last_id, found.last().map_or("", |id| id.as_str()));
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

fn any_status() -> impl Strategy<Value = Status> {
    prop::sample::select(vec![Status::Completed, Status::Incomplete, Status::Failed, Status::Cancelled])
}

proptest! {
    #[test]
    fn numbers_follow_from_the_text_alone(
        words in prop::collection::vec("[a-zé日🦀 ]{0,9}", 0..12),
        background in any::<bool>(),
        status in any_status(),
    ) {
        let text = words.concat();
        let mut whole = transcript(background);
        whole.begin();
        whole.hear(&text);
        whole.end_with(end(status));
        let expected = events(&whole);
        // However it came: what is said so far is how the whole begins.
        let mut pieces = transcript(background);
        pieces.begin();
        for word in &words {
            pieces.hear(word);
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
        prop_assert_eq!(&said, &text);
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

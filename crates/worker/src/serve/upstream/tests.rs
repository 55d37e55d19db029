//! What a stranger may send, cut in every way; what it is asked; what its failures are called.

use proptest::prelude::*;
use reqwest::StatusCode;
use surety_types::{FailureCode, FinishReason};

use super::{
    UpstreamKey,
    failure::{Failure, Redacting, of_status},
    reader::{EVENT_BYTES_MAX, Names, Reader, Said},
    tally::Tally,
};

const NAMES: Names<'_> =
    Names { model: "m", answers_as: Some("other"), redacting: Redacting(Some("sk-secret")) };

/// Reads bytes in pieces of so many.
fn read(bytes: &[u8], piece: usize) -> (Vec<Said>, Result<(), Failure>) {
    let (mut reader, mut said) = (Reader::new(NAMES), Vec::new());
    for piece in bytes.chunks(piece.max(1)) {
        if let Err(failure) = reader.push(piece, &mut said) {
            return (said, Err(failure));
        }
    }
    let ended = reader.end(&mut said);
    (said, ended)
}

#[test]
fn an_answer_is_text_an_end_and_a_count() {
    let stream = concat!(
        ": queued\r\n\r\n",
        "event: message\nid: 1\ndata: {\"model\":\"m-2026\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",",
        "\"content\":\"\"}}]}\n\n",
        "data:{\"choices\":[{\"delta\":{\"content\":\"Hé\"}}],\n",
        "data: \"usage\":null}\n\n",
        "data: {\"choices\":[{\"text\":\"llo\"}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\n",
        "data: [DONE]",
    );
    let expected = [
        Said::Text("Hé".to_owned()),
        Said::Text("llo".to_owned()),
        Said::Finish(FinishReason::Length),
        Said::Usage { prompt_tokens: 7, output_tokens: 2 },
        Said::Done,
    ];
    for piece in [1, 2, 3, 7, 64, 4096] {
        let (said, ended) = read(stream.as_bytes(), piece);
        assert_eq!((said.as_slice(), ended), (expected.as_slice(), Ok(())), "in pieces of {piece}");
    }
}

#[test]
fn what_is_no_answer_says_what_it_is() {
    let check = |stream: &str, expected: &str| {
        let (_, ended) = read(stream.as_bytes(), 5);
        let failure = ended.expect_err(stream);
        assert_eq!(failure.code, FailureCode::Internal, "{stream}");
        assert!(failure.message.contains(expected), "{}", failure.message);
        assert!(!failure.message.contains("sk-secret"), "{}", failure.message);
    };
    let choice = |choice: &str| format!("data: {{\"choices\":[{choice}]}}\n\n");
    check("<html>\n", "no server-sent event");
    check("data: {\n\n", "no chunk");
    check("data: [1]\n\n", "no chunk");
    check("data: {\"model\":\"gpt-sk-secret\"}\n\n", "answers as \"gpt-[key]\", not as \"m\"");
    check("data: {\"model\":\"m2\"}\n\n", "answers as \"m2\"");
    check("data: {\"error\":{\"message\":\"no sk-secret\"}}\n\n", "in mid-answer: \"no [key]\"");
    check(&choice("{\"index\":1}"), "beside the one");
    check(&choice("{\"delta\":{\"tool_calls\":[{}]}}"), "tools that it was not shown");
    check(&choice("{\"finish_reason\":\"content_filter\"}"), "withheld the rest");
    check(&choice("{\"finish_reason\":\"sk-secret\"}"), "unknown here, \"[key]\"");
    check(&choice("{\"finish_reason\":\"stop\"},{\"finish_reason\":\"stop\"}"), "second end");
    check(&choice("{\"finish_reason\":\"stop\"},{\"delta\":{\"content\":\"x\"}}"), "text after the end");
    check(&format!("data: {}\n", "x".repeat(EVENT_BYTES_MAX)), "more than 1048576 bytes");
    check(&"data: x\n".repeat(EVENT_BYTES_MAX / 2 + 1), "more than 1048576 bytes");
    assert_eq!(read(b"data: {\"model\":\"other:latest\"}\n\n", 9).1, Ok(()), "as which it may answer");
}

#[test]
fn statuses_are_failures_of_whose_they_are() {
    let check = |status: u16, body: &str, code: FailureCode, expected: &str| {
        let status = StatusCode::from_u16(status).unwrap();
        let failure = of_status(Redacting(Some("sk-secret")), status, body.as_bytes());
        assert_eq!(failure.code, code, "{status}");
        assert!(failure.message.contains(expected), "{}", failure.message);
        assert!(!failure.message.contains("secret"), "{}", failure.message);
    };
    let named = r#"{"error":{"message":"`top_k` is unknown\nto sk-secret","code":"bad"}}"#;
    check(400, named, FailureCode::BadRequest, "\"`top_k` is unknown to [key]\"");
    let long = r#"{"error":{"message":"too long","code":"context_length_exceeded"}}"#;
    check(400, long, FailureCode::ContextLengthExceeded, "too long");
    let long = r#"{"object":"error","message":"This model's maximum context length is 9 tokens."}"#;
    check(400, long, FailureCode::ContextLengthExceeded, "9 tokens");
    check(401, named, FailureCode::Internal, "does not accept the operator's key");
    check(402, "", FailureCode::Internal, "used up");
    check(404, "", FailureCode::Internal, "does not have the model");
    check(429, named, FailureCode::Overloaded, "overloaded");
    check(503, "", FailureCode::Overloaded, "overloaded");
    check(302, "", FailureCode::Internal, "points elsewhere");
    check(500, "not JSON, sk-secret", FailureCode::Internal, "failed (500 Internal Server Error)");
    check(
        500,
        r#"{"error":"out of secrets"}"#.replace("secrets", "memory").as_str(),
        FailureCode::Internal,
        "out of memory",
    );
}

#[test]
fn a_key_is_visible_and_shown_nowhere() {
    let key = UpstreamKey::new(" sk-secret\n").expect("a key");
    assert_eq!(format!("{key:?}"), "UpstreamKey(…)");
    assert_eq!(key.header().to_str().unwrap(), "Bearer sk-secret");
    assert_eq!(format!("{:?}", key.header()), "Sensitive");
    for bad in ["", "  ", "a b", "ä", "a\nb"] {
        assert_eq!(UpstreamKey::new(bad), None, "{bad:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_are_read_otherwise_for_how_they_are_cut(
        lines in prop::collection::vec(
            prop_oneof![
                Just("data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}".to_owned()),
                Just("data: {\"choices\":[{\"finish_reason\":\"stop\"}]}".to_owned()),
                Just("data: [DONE]".to_owned()),
                Just(String::new()),
                Just(": c\r".to_owned()),
                "data: \\PC{0,12}",
                "\\PC{0,12}",
            ], 0..12),
        noise in prop::collection::vec(any::<u8>(), 0..8),
        piece in 1usize..40,
    ) {
        let mut bytes = lines.join("\n").into_bytes();
        bytes.extend(noise);
        prop_assert_eq!(read(&bytes, piece), read(&bytes, usize::MAX));
    }

    #[test]
    fn a_count_never_falls_or_passes_the_limit(
        limit in 1u32..50, pieces in prop::collection::vec(1usize..9_000, 0..40), told in 0u32..80,
    ) {
        let mut tally = Tally::new(limit);
        let (mut sum, mut bytes) = (0, 0);
        for (index, length) in pieces.iter().enumerate() {
            let Ok(more) = tally.take(&"x".repeat(*length)) else {
                prop_assert!(bytes + length > 4096 * limit as usize);
                return Ok(());
            };
            (sum, bytes) = (sum + more, bytes + length);
            prop_assert!(sum >= 1 && sum <= limit && bytes <= 4096 * sum as usize);
            let spelled = bytes.div_ceil(4096);
            prop_assert!(sum as usize <= (index + 1).max(spelled) && sum as usize <= bytes.div_ceil(4));
        }
        sum += tally.told(told);
        prop_assert_eq!(sum, tally.counted());
        prop_assert!(sum <= limit && sum >= told.min(limit));
    }
}

//! Lines: the requests of a batch, one JSON object a line.
//!
//! In:     the text of a file, the path all its requests go to.
//! Out:    each request's name and body, or what is wrong with which line.
//! Touches: nothing.
//! Holds:  names are unique; lines are counted from 1, blank ones included, as editors show them.
//! Absent: what the bodies say. That is `ask`.

use std::{borrow::Cow, collections::HashSet};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::store::Problem;
use crate::api::parameters::Route;

/// Requests in one batch.
pub(super) const LINES_MAX: usize = 50_000;
/// Bytes of a request's name.
const CUSTOM_ID_BYTES_MAX: usize = 512;
/// Faults that are told of one file.
const PROBLEMS_MAX: usize = 100;

/// The paths whose requests may be in a batch.
pub(super) const ENDPOINTS: [(&str, Route); 3] = [
    ("/v1/chat/completions", Route::Chat),
    ("/v1/completions", Route::Completions),
    ("/v1/embeddings", Route::Embeddings),
];

/// One request.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) custom_id: Cow<'a, str>,
    pub(super) body: &'a str,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    #[serde(borrow)]
    custom_id: Cow<'a, str>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    url: Cow<'a, str>,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// The lines that are not blank, with their numbers.
pub(super) fn numbered(text: &str) -> impl Iterator<Item = (u64, &str)> {
    (1..).zip(text.split('\n')).filter(|(_, line)| !line.trim().is_empty())
}

/// Reads one line of a batch for `endpoint`.
pub(super) fn read<'a>(line: &'a str, endpoint: &str) -> Result<Line<'a>, Problem> {
    let problem = |code: &str, param: Option<&str>, message: String| Problem {
        code: code.to_owned(),
        line: None,
        message,
        param: param.map(str::to_owned),
    };
    let written: Written<'_> = serde_json::from_str(line).map_err(|error| {
        // What serde says of a line may quote it, but only the names of its members.
        let message = format!(
            "The line is not a request: {error}. It must be one JSON object of `custom_id`, `method`, `url` and `body`."
        );
        problem("invalid_json_line", None, message)
    })?;
    let length = written.custom_id.len();
    if !(1..=CUSTOM_ID_BYTES_MAX).contains(&length) {
        let message = format!("`custom_id` takes {length} bytes. It takes 1 to {CUSTOM_ID_BYTES_MAX}.");
        return Err(problem("invalid_custom_id", Some("custom_id"), message));
    }
    if written.method != "POST" {
        return Err(problem("invalid_method", Some("method"), "`method` must be \"POST\".".to_owned()));
    }
    if written.url != endpoint {
        let message = format!("`url` must be \"{endpoint}\", the batch's `endpoint`.");
        return Err(problem("mismatched_endpoint", Some("url"), message));
    }
    if !written.body.get().starts_with('{') {
        return Err(problem("invalid_body", Some("body"), "`body` must be an object.".to_owned()));
    }
    Ok(Line { custom_id: written.custom_id, body: written.body.get() })
}

/// How many requests a file holds, if each of its lines is one.
pub(super) fn check(bytes: &[u8], endpoint: &str) -> Result<u64, Vec<Problem>> {
    let whole = |code: &str, message: String| {
        vec![Problem { code: code.to_owned(), line: None, message, param: Some("input_file_id".to_owned()) }]
    };
    let text = str::from_utf8(bytes).map_err(|error| {
        let message = format!("The file is not UTF-8: byte {} begins no character.", error.valid_up_to());
        whole("invalid_utf8", message)
    })?;
    let (mut names, mut problems, mut count) = (HashSet::new(), Vec::new(), 0_u64);
    for (number, line) in numbered(text) {
        count += 1;
        if count > LINES_MAX as u64 {
            return Err(whole("too_many_lines", format!("The file holds more than {LINES_MAX} requests.")));
        }
        let problem = match read(line, endpoint) {
            Err(problem) => problem,
            Ok(line) if names.insert(line.custom_id.clone()) => continue,
            Ok(_) => Problem {
                code: "duplicate_custom_id".to_owned(),
                line: None,
                message: "An earlier line has the same `custom_id`.".to_owned(),
                param: Some("custom_id".to_owned()),
            },
        };
        problems.push(Problem { line: Some(number), ..problem });
        if problems.len() == PROBLEMS_MAX {
            break;
        }
    }
    match (problems.is_empty(), count) {
        (false, _) => Err(problems),
        (true, 0) => Err(whole("empty_file", "The file holds no request.".to_owned())),
        (true, count) => Ok(count),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHAT: &str = "/v1/chat/completions";

    fn line(id: &str) -> String {
        format!(r#"{{"custom_id":"{id}","method":"POST","url":"{CHAT}","body":{{"model":"m"}}}}"#)
    }

    fn faults(text: &str) -> Vec<(String, Option<u64>)> {
        let problems = check(text.as_bytes(), CHAT).expect_err("faults");
        problems.into_iter().map(|problem| (problem.code, problem.line)).collect()
    }

    #[test]
    fn blank_lines_and_returns_are_passed_over() {
        let text = format!("{}\r\n\n{}\n\n", line("a"), line("b"));
        assert_eq!(check(text.as_bytes(), CHAT).expect("two"), 2);
        let numbers: Vec<u64> = numbered(&text).map(|(number, _)| number).collect();
        assert_eq!(numbers, [1, 3]);
        assert_eq!(read(&line("a"), CHAT).expect("a line").body, r#"{"model":"m"}"#);
    }

    #[test]
    fn each_fault_is_told_with_its_line() {
        let text = [
            line("a"),
            "[]".to_owned(),
            line("a"),
            line(""),
            line("b").replace("POST", "GET"),
            line("c").replace("chat/", ""),
            line("d").replace(r#"{"model":"m"}"#, "3"),
            line("e").replace("method", "methods"),
        ]
        .join("\n");
        let expected = [
            ("invalid_json_line", 2),
            ("duplicate_custom_id", 3),
            ("invalid_custom_id", 4),
            ("invalid_method", 5),
            ("mismatched_endpoint", 6),
            ("invalid_body", 7),
            ("invalid_json_line", 8),
        ];
        let expected: Vec<_> =
            expected.into_iter().map(|(code, line)| (code.to_owned(), Some(line))).collect();
        assert_eq!(faults(&text), expected);
        assert_eq!(faults("\n \n"), [("empty_file".to_owned(), None)]);
        assert_eq!(check(b"\xff", CHAT).expect_err("no text")[0].code, "invalid_utf8");
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(check(&bytes, CHAT).is_err());
        }

        #[test]
        fn a_changed_line_is_read_or_refused(at in 0usize..120, byte in any::<u8>()) {
            let mut bytes = line("name").into_bytes();
            let at = at.min(bytes.len() - 1);
            bytes[at] = byte;
            match check(&bytes, CHAT) {
                Ok(count) => prop_assert!((1..=2).contains(&count)),
                Err(problems) => prop_assert!(!problems.is_empty()),
            }
        }
    }
}

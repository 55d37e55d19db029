//! Lasting: what goes on by itself while its caller is gone: responses in the background, and batches.
//!
//! In:     a mark. Out: what of it must be found in the books, once it has ended.
//! Touches: the gateway.
//! Absent: what is answered while its caller waits (`operations`).

use std::collections::BTreeMap;
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use super::client::{Call, Came, Reply};
use super::operations::{Callers, Charged, Key, Kind, PATIENCE, PAUSE, mark};
use crate::rng::Rng;

impl Callers {
    pub fn background(&self, key: &Key, mark: &str, number: usize, rng: &mut Rng) {
        let body = json!({ "model": self.model, "input": format!("{mark} Speak, I charge thee!"), "background": true,
            "max_output_tokens": 20 + rng.below(100) });
        let call =
            Call::post("/v1/responses", &key.secret, &body).with("idempotency-key", format!("b{number}"));
        self.expect(mark, Charged::OnceAtMost);
        let id =
            self.until_answered(&call).filter(|reply| reply.status == 200).and_then(|reply| reply.json());
        let Some(id) = id.and_then(|json| Some(json["id"].as_str()?.to_owned())) else {
            return self.fail(format!("{mark}: no response began in the background"));
        };
        let again = self.until_answered(&call).and_then(|reply| reply.json());
        if again.as_ref().is_none_or(|again| again["id"] != id.as_str()) {
            self.fail(format!("{mark}: its name was answered with {id}, and then with {again:?}"));
        }
        self.note(Kind::Background, "begun");
        self.seen().responses.push((key.clone(), id, mark.to_owned()));
    }

    pub fn batch(&self, key: &Key, number: usize, rng: &mut Rng) {
        let lines = 2 + rng.below(4);
        let line = |line: usize| {
            let mark = mark(number, line);
            self.expect(&mark, Charged::OnceAtMost);
            let body = json!({ "model": self.model, "max_tokens": 4 + rng.below(40),
                "messages": [{ "role": "user", "content": format!("{mark} To be, or not to be?") }] });
            let line =
                json!({ "custom_id": mark, "method": "POST", "url": "/v1/chat/completions", "body": body });
            format!("{line}\n")
        };
        let content: String = (1..=lines).map(line).collect();
        let file = self.until_answered(&Call::file(&key.secret, &content)).and_then(|reply| reply.json());
        let Some(file) = file.and_then(|file| Some(file["id"].as_str()?.to_owned())) else {
            return self.fail(format!("operation {number}: its file was not taken"));
        };
        let body =
            json!({ "input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h" });
        let call =
            Call::post("/v1/batches", &key.secret, &body).with("idempotency-key", format!("l{number}"));
        let (first, again) = (self.until_answered(&call), self.until_answered(&call));
        let id = |reply: Option<Reply>| Some(reply?.json()?["id"].as_str()?.to_owned());
        match (id(first), id(again)) {
            (Some(first), Some(again)) if first == again => {
                self.note(Kind::Batch, "begun");
                self.seen().batches.push((key.clone(), first, content));
            }
            other => self.fail(format!("operation {number}: its batch is {other:?}")),
        }
    }

    /// Waits until everything that goes on by itself has ended, and judges how.
    pub fn finish(&self) {
        let (batches, responses) = {
            let mut seen = self.seen();
            (std::mem::take(&mut seen.batches), std::mem::take(&mut seen.responses))
        };
        for (key, id, mark) in responses {
            let path = format!("/v1/responses/{id}");
            let ended = self.until(&key, &path, |response| {
                ["completed", "incomplete", "failed", "cancelled"]
                    .contains(&response["status"].as_str().unwrap_or(""))
            });
            let Some(response) = ended else {
                self.fail(format!("{mark}: the response {id} did not end"));
                continue;
            };
            let status = response["status"].as_str().unwrap_or_default().to_owned();
            if ["completed", "incomplete"].contains(&status.as_str()) {
                self.expect(&mark, Charged::Once);
            }
            self.note(Kind::Background, status);
        }
        for (key, id, content) in batches {
            let ended = self.until(&key, &format!("/v1/batches/{id}"), |batch| {
                ["completed", "failed", "expired", "cancelled"]
                    .contains(&batch["status"].as_str().unwrap_or(""))
            });
            let Some(batch) = ended else {
                self.fail(format!("the batch {id} did not end"));
                continue;
            };
            self.judge_batch(&key, &id, &batch, &content);
        }
    }

    /// Every line has one result.
    fn judge_batch(&self, key: &Key, id: &str, batch: &Value, content: &str) {
        let mut results: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for file in ["output_file_id", "error_file_id"].iter().filter_map(|file| batch[*file].as_str()) {
            let call = Call::get(&format!("/v1/files/{file}/content"), &key.secret);
            let text = self.until_read(&call).map(|reply| reply.body).unwrap_or_default();
            for line in text.lines() {
                let line: Value = serde_json::from_str(line).unwrap_or_default();
                let of = line["custom_id"].as_str().unwrap_or_default().to_owned();
                results.entry(of).or_default().push(line);
            }
        }
        for line in content.lines() {
            let line: Value = serde_json::from_str(line).expect("it was written above");
            let mark = line["custom_id"].as_str().expect("it was written above");
            let results = results.remove(mark).unwrap_or_default();
            match &results[..] {
                [result] if result["response"]["status_code"] == 200 => {
                    self.expect(mark, Charged::Once);
                    self.note(Kind::Batch, "line whole");
                }
                [result] => {
                    let code = &result["error"]["code"];
                    let code = code.as_str().or(result["response"]["body"]["error"]["code"].as_str());
                    self.note(Kind::Batch, format!("line {}", code.unwrap_or("failed")));
                }
                results => self.fail(format!("{mark} of {id} has {} results", results.len())),
            }
        }
        if !results.is_empty() {
            self.fail(format!("{id} has results of nothing that was asked: {:?}", results.keys()));
        }
    }

    /// Looks until something holds.
    fn until(&self, key: &Key, path: &str, holds: impl Fn(&Value) -> bool) -> Option<Value> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(json) = self.until_read(&Call::get(path, &key.secret))?.json()
                && holds(&json)
            {
                return Some(json);
            }
            thread::sleep(PAUSE);
        }
        None
    }

    fn until_read(&self, call: &Call) -> Option<Reply> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            match call.make(&self.host) {
                Came::Answer(reply) if reply.status == 200 => return Some(reply),
                Came::Answer(reply) if reply.status < 500 => return None,
                _ => thread::sleep(PAUSE),
            }
        }
        None
    }
}

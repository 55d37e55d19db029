//! Operations: what callers do with a gateway that may be killed under them.
//!
//! In:     a number, whose operation is drawn from the seed. Out: what of it must be found in the books, and what was not as
//!         it should be.
//! Touches: the gateway; its keys, through the binary.
//! Holds:  the same seed and number ask the same thing; what came of it depends on when the gateway was killed.
//! Absent: killing (the room), adding up (`books`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::client::{Call, Came, Reply};
use super::payer::Payer;
use crate::kill_matrix::network;
use crate::rng::Rng;

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(300);
pub const PAUSE: Duration = Duration::from_millis(250);
/// Keys that are there from the beginning, and stay.
pub const KEYS: usize = 4;
/// What the poor key may spend, in credits: less than one answer costs.
pub const POOR_BUDGET: &str = "0.000001";
/// Who pays by the request.
pub const PAYERS: usize = 4;
/// Statuses after which asking again may help.
const AGAIN: [u16; 6] = [408, 425, 429, 500, 502, 503];

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An answer as a document, asked once.
    Document,
    /// An answer as a stream, asked once.
    Stream,
    /// An answer that its reader leaves.
    Dropped,
    /// A request with a name of its own, sent until it is answered, and then again.
    Repeated,
    /// A request that a library sends again.
    Counted,
    /// A stream that its reader leaves, and goes on with.
    GoneOn,
    /// A response that is made in the background.
    Background,
    /// A vector.
    Embedding,
    /// What cannot be answered.
    Refused,
    /// What its key cannot pay.
    Poor,
    /// Many requests in a file.
    Batch,
    /// A key that is made, used, and perhaps revoked.
    NewKey,
    /// A request that pays for itself.
    Paid,
    /// A request with a key whose credits are bought.
    Prepaid,
}

/// Of a hundred operations, about so many.
const SHARES: [(Kind, usize); 14] = [
    (Kind::Document, 18),
    (Kind::Stream, 15),
    (Kind::Dropped, 12),
    (Kind::Repeated, 15),
    (Kind::Counted, 7),
    (Kind::GoneOn, 5),
    (Kind::Background, 4),
    (Kind::Embedding, 4),
    (Kind::Refused, 4),
    (Kind::Poor, 3),
    (Kind::Batch, 2),
    (Kind::NewKey, 1),
    (Kind::Paid, 7),
    (Kind::Prepaid, 3),
];

/// How often something may be charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charged {
    /// It was answered.
    Once,
    /// It may have been.
    OnceAtMost,
    /// It was refused.
    Never,
}

/// A key, and its secret.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its name.
    pub name: String,
    /// What is shown.
    pub secret: String,
}

/// What the callers share.
#[derive(Debug)]
pub struct Callers {
    pub binary: PathBuf,
    pub data_dir: PathBuf,
    /// `IP:PORT` of the gateway.
    pub host: String,
    pub model: String,
    /// Whether the model gives vectors.
    pub embeds: bool,
    pub seed: u64,
    /// Those that stay.
    pub keys: Vec<Key>,
    /// One that can pay for nothing.
    pub poor: Key,
    /// One whose credits are bought.
    pub prepaid: Key,
    pub payers: Vec<Payer>,
    pub seen: Mutex<Seen>,
}

/// What came of the operations.
#[derive(Debug, Default)]
pub struct Seen {
    /// By kind and outcome.
    pub outcomes: BTreeMap<(Kind, String), usize>,
    /// By the mark in its prompt.
    pub marks: BTreeMap<String, Charged>,
    /// Names of all keys.
    pub keys: Vec<String>,
    /// Batches and responses that go on: whose, which.
    pub batches: Vec<(Key, String, String)>,
    pub responses: Vec<(Key, String, String)>,
    /// What was not as it should be.
    pub failures: Vec<String>,
}

impl Kind {
    fn draw(rng: &mut Rng) -> Kind {
        let mut at = rng.below(SHARES.iter().map(|(_, share)| share).sum());
        for (kind, share) in SHARES {
            match at.checked_sub(share) {
                Some(rest) => at = rest,
                None => return kind,
            }
        }
        unreachable!("the shares are summed up above")
    }
}

/// What a prompt is found by in the books.
pub fn mark(number: usize, line: usize) -> String {
    format!("<{number}.{line}>")
}

/// The marks in a text.
pub fn marks(text: &str) -> impl Iterator<Item = &str> {
    text.split('<').skip(1).filter_map(|rest| rest.split_once('>')).map(|(mark, _)| mark).filter(|mark| {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        mark.split_once('.').is_some_and(|(number, line)| digits(number) && digits(line))
    })
}

impl Callers {
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("nobody panics while holding it")
    }

    pub fn note(&self, kind: Kind, outcome: impl Into<String>) {
        *self.seen().outcomes.entry((kind, outcome.into())).or_default() += 1;
    }

    pub fn expect(&self, mark: &str, charged: Charged) {
        self.seen().marks.insert(mark.to_owned(), charged);
    }

    pub fn fail(&self, failure: String) {
        eprintln!("{failure}");
        self.seen().failures.push(failure);
    }

    /// Does the operation with this number.
    pub fn perform(&self, number: usize) {
        let mut rng = Rng::keyed(&[self.seed, 3, number as u64]);
        let mut kind = Kind::draw(&mut rng);
        if kind == Kind::Embedding && !self.embeds {
            kind = Kind::Document;
        }
        let key = &self.keys[rng.below(self.keys.len())];
        let mark = mark(number, 0);
        match kind {
            Kind::Document | Kind::Stream => self.ask(kind, key, &mark, &mut rng),
            Kind::Dropped => {
                self.expect(&mark, Charged::OnceAtMost);
                let (stream, leave_after) = (rng.chance(0.6), Some(1 + rng.below(2000)));
                let call = Call { leave_after, ..self.question(&key.secret, &mark, stream, &mut rng) };
                self.note(kind, outcome(&call.make(&self.host)));
            }
            Kind::Repeated => self.repeat(key, &mark, &mut rng),
            Kind::Counted => self.count(key, &mark, &mut rng),
            Kind::Background => self.background(key, &mark, number, &mut rng),
            Kind::Embedding => {
                let body = json!({ "model": self.model, "input": format!("{mark} what the sea says") });
                self.settle(kind, &mark, &Call::post("/v1/embeddings", &key.secret, &body));
            }
            Kind::Refused => {
                self.expect(&mark, Charged::Never);
                let mut body =
                    json!({ "model": self.model, "messages": [{ "role": "user", "content": mark }] });
                match rng.below(3) {
                    0 => body["model"] = json!("no-such-model"),
                    1 => body["temperature"] = json!(99),
                    _ => body["no_such_parameter"] = json!(true),
                }
                let call = Call::post("/v1/chat/completions", &key.secret, &body);
                let came = call.make(&self.host);
                if matches!(&came, Came::Answer(reply) if reply.is_whole()) {
                    self.fail(format!("operation {number} was answered, and should be refused: {body}"));
                }
                self.note(kind, outcome(&came));
            }
            Kind::Poor => {
                self.expect(&mark, Charged::Never);
                let came =
                    self.question(&self.poor.secret, &mark, rng.chance(0.5), &mut rng).make(&self.host);
                if matches!(&came, Came::Answer(reply) if reply.is_whole()) {
                    self.fail(format!("operation {number} was answered, and its key cannot pay it"));
                }
                self.note(kind, outcome(&came));
            }
            Kind::Batch => self.batch(key, number, &mut rng),
            Kind::NewKey => self.new_key(number, &mark, &mut rng),
            Kind::GoneOn => self.go_on(key, &mark, &mut rng),
            Kind::Paid => self.pay(&mark, &mut rng),
            Kind::Prepaid => self.prepaid(&mark, &mut rng),
        }
    }

    /// A question of some form.
    pub fn question(&self, secret: &str, mark: &str, stream: bool, rng: &mut Rng) -> Call {
        let line = format!("{mark} What news from the court? ({})", rng.below(1 << 20));
        let (max_tokens, sampled) = (4 + rng.below(60), rng.chance(0.5));
        let messages = json!([{ "role": "user", "content": line }]);
        let mut body =
            json!({ "model": self.model, "stream": stream, "temperature": if sampled { 0.9 } else { 0.0 } });
        let path = match rng.below(6) {
            0 => {
                body["prompt"] = json!(line);
                "/v1/completions"
            }
            1 => {
                body["messages"] = messages;
                "/v1/messages"
            }
            // Responses are kept for a key.
            2 if !secret.is_empty() => {
                body["input"] = json!(line);
                "/v1/responses"
            }
            _ => {
                body["messages"] = messages;
                if rng.chance(0.2) {
                    body["n"] = json!(2);
                }
                "/v1/chat/completions"
            }
        };
        body[if path == "/v1/responses" { "max_output_tokens" } else { "max_tokens" }] = json!(max_tokens);
        Call::post(path, secret, &body)
    }

    fn ask(&self, kind: Kind, key: &Key, mark: &str, rng: &mut Rng) {
        let call = self.question(&key.secret, mark, kind == Kind::Stream, rng);
        self.settle(kind, mark, &call);
    }

    /// Asks once, and knows from what came what must be found.
    fn settle(&self, kind: Kind, mark: &str, call: &Call) {
        let came = call.make(&self.host);
        let whole = matches!(&came, Came::Answer(reply) if reply.is_whole());
        self.expect(mark, if whole { Charged::Once } else { Charged::OnceAtMost });
        self.note(kind, outcome(&came));
    }

    /// Asks until there is an answer, or an error that stays.
    pub fn until_answered(&self, call: &Call) -> Option<Reply> {
        let until = Instant::now() + PATIENCE;
        loop {
            match call.make(&self.host) {
                Came::Answer(reply) if reply.is_whole() => return Some(reply),
                Came::Answer(reply) => {
                    let code = reply.error_code().unwrap_or_default();
                    // A gateway that has just begun has not heard its workers yet; an error within a stream has status 200.
                    let soon =
                        AGAIN.contains(&reply.status) || code == "model_unknown" || reply.status == 200;
                    if !soon || Instant::now() > until {
                        return Some(reply);
                    }
                }
                Came::Left(_) | Came::Lost if Instant::now() > until => return None,
                Came::Left(_) | Came::Lost => {}
            }
            thread::sleep(PAUSE);
        }
    }

    fn repeat(&self, key: &Key, mark: &str, rng: &mut Rng) {
        let stream = rng.chance(0.5);
        let call = self.question(&key.secret, mark, stream, rng).with("idempotency-key", mark);
        for _ in 0..rng.below(3) {
            let leave_after = Some(1 + rng.below(1500));
            let _ = Call { leave_after, ..call.clone() }.make(&self.host);
        }
        self.expect(mark, Charged::OnceAtMost);
        let Some(reply) = self.until_answered(&call) else {
            return self.fail(format!("{mark}: nothing was answered for {} s", PATIENCE.as_secs()));
        };
        if !reply.is_whole() {
            let code = reply.error_code().unwrap_or_default();
            if code == "answered_before" {
                self.expect(mark, Charged::Once);
            }
            return self.note(Kind::Repeated, format!("{} {code}", reply.status));
        }
        self.expect(mark, Charged::Once);
        self.note(Kind::Repeated, "whole");
        for _ in 0..rng.below(3) {
            match self.until_answered(&call) {
                Some(again) if again.body == reply.body && again.request_id == reply.request_id => {
                    self.note(Kind::Repeated, "the same again");
                }
                again => {
                    self.fail(format!(
                        "{mark}: its name was answered with {reply:?}, and then with {again:?}"
                    ));
                }
            }
        }
    }

    fn count(&self, key: &Key, mark: &str, rng: &mut Rng) {
        let stream = rng.chance(0.5);
        let call = self.question(&key.secret, mark, stream, rng);
        let counted = |count: usize| call.clone().with("x-stainless-retry-count", count.to_string());
        self.expect(mark, Charged::OnceAtMost);
        let first = Call { leave_after: Some(1 + rng.below(600)), ..counted(0) }.make(&self.host);
        let until = Instant::now() + PATIENCE;
        let mut came = first;
        for count in 1.. {
            came = match came {
                Came::Answer(reply) if reply.is_whole() => {
                    self.expect(mark, Charged::Once);
                    return self.note(Kind::Counted, "whole");
                }
                Came::Answer(reply) if !AGAIN.contains(&reply.status) && reply.status != 404 => {
                    let code = reply.error_code().unwrap_or_default();
                    return self.note(Kind::Counted, format!("{} {code}", reply.status));
                }
                _ if Instant::now() > until => {
                    return self.fail(format!("{mark}: nothing was answered for {} s", PATIENCE.as_secs()));
                }
                _ => {
                    thread::sleep(PAUSE);
                    counted(count).make(&self.host)
                }
            };
        }
    }

    fn go_on(&self, key: &Key, mark: &str, rng: &mut Rng) {
        let body = json!({ "model": self.model, "stream": true, "max_tokens": 150 + rng.below(250), "ignore_eos": true,
            "messages": [{ "role": "user", "content": format!("{mark} What news from Rome?") }] });
        let call = Call::post("/v1/chat/completions", &key.secret, &body);
        self.expect(mark, Charged::OnceAtMost);
        let left = Call { leave_after: Some(8000 + rng.below(30_000)), ..call.clone() }.make(&self.host);
        let Came::Left(text) = left else { return self.note(Kind::GoneOn, outcome(&left)) };
        let Some(last) = text.split("\nid: req_").skip(1).filter_map(|rest| rest.split_once('\n')).last()
        else {
            return self.note(Kind::GoneOn, "left before its beginning was kept");
        };
        let rest = self.until_answered(&call.with("last-event-id", format!("req_{}", last.0.trim())));
        match rest {
            Some(reply) if reply.is_whole() => {
                self.expect(mark, Charged::Once);
                self.note(Kind::GoneOn, "whole");
            }
            Some(reply) => {
                let code = reply.error_code().unwrap_or_default();
                self.note(Kind::GoneOn, format!("{} {code}", reply.status));
            }
            None => self.fail(format!("{mark}: nothing was answered for {} s", PATIENCE.as_secs())),
        }
    }

    fn new_key(&self, number: usize, mark: &str, rng: &mut Rng) {
        let made = (0..20).find_map(|attempt| self.make_key(&format!("made-{number}-{attempt}"), None));
        let Some(key) = made else {
            return self.fail(format!("operation {number}: no key was made"));
        };
        self.ask(Kind::NewKey, &key, mark, rng);
        if !rng.chance(0.5) {
            return;
        }
        let until = Instant::now() + PATIENCE;
        while network::told(&self.binary, &self.data_dir, &["apikey", "revoke", &key.name]).is_err() {
            if Instant::now() > until {
                return self.fail(format!("the key {} was not revoked", key.name));
            }
            thread::sleep(PAUSE);
        }
        let body =
            json!({ "model": self.model, "messages": [{ "role": "user", "content": "Who goes there?" }] });
        match Call::post("/v1/chat/completions", &key.secret, &body).make(&self.host) {
            Came::Answer(reply) if reply.status != 401 => {
                self.fail(format!("the key {} was revoked, and is answered with {}", key.name, reply.status));
            }
            came => self.note(Kind::NewKey, format!("revoked: {}", outcome(&came))),
        }
    }

    /// Makes a key; none if it may or may not be there.
    pub fn make_key(&self, name: &str, budget: Option<&str>) -> Option<Key> {
        let made = make_key(&self.binary, &self.data_dir, name, budget);
        self.seen().keys.push(name.to_owned());
        if made.is_none() {
            thread::sleep(PAUSE);
        }
        made
    }
}

/// Makes a key; none if it may or may not be there.
pub fn make_key(
    binary: &std::path::Path,
    data_dir: &std::path::Path,
    name: &str,
    budget: Option<&str>,
) -> Option<Key> {
    let mut args = vec!["apikey", "create", name];
    args.extend(budget.iter().flat_map(|budget| ["--budget", budget]));
    let made = network::told(binary, data_dir, &args).ok()?;
    Some(Key { name: name.to_owned(), secret: made["secret"].as_str()?.to_owned() })
}

pub fn outcome(came: &Came) -> String {
    match came {
        Came::Answer(reply) if reply.is_whole() => "whole".to_owned(),
        Came::Answer(reply) => format!("{} {}", reply.status, reply.error_code().unwrap_or_default()),
        Came::Left(_) => "left".to_owned(),
        Came::Lost => "lost".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_in_any_text() {
        let text = format!("a < b {} c <1> <x.2> {}", mark(12, 0), mark(3, 4));
        assert_eq!(marks(&text).collect::<Vec<_>>(), ["12.0", "3.4"]);
    }

    #[test]
    fn every_kind_is_drawn() {
        let drawn: std::collections::BTreeSet<Kind> =
            (0..1000).map(|number| Kind::draw(&mut Rng::keyed(&[1, 3, number]))).collect();
        assert_eq!(drawn.len(), SHARES.len());
    }
}

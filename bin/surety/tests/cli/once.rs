//! What is asked once, of a gateway that is killed in the middle of it and afterwards.

use std::{
    collections::BTreeMap,
    io::{BufReader, Read},
    net::TcpStream,
    path::Path,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    http::{exchange, question, request_id, said},
    process::{Up, assert_status, json as json_of, run, wait},
};

/// Requests beside the one that is struck: alone it might be over before anything of it is on the disk.
const CROWD: usize = 16;
const CHAT: &str = "/v1/chat/completions";

/// `surety up`, whose gateway is killed.
struct Site<'a> {
    dir: &'a Path,
    up: Up,
    gateway: Pid,
    kills: usize,
}

/// Head and body of an answer that is all there.
type Answer = (String, String);

impl Site<'_> {
    /// What came of a request: nothing unless all of it came.
    fn ask(&self, key: &str, name: &str, body: &Value) -> Option<Answer> {
        let mut text = String::new();
        self.begin(key, name, body)?.read_to_string(&mut text).ok()?;
        whole(&text)
    }

    fn begin(&self, key: &str, name: &str, body: &Value) -> Option<BufReader<TcpStream>> {
        let headers = format!("authorization: Bearer {key}\r\nidempotency-key: {name}\r\n");
        exchange(self.up.base_url().strip_suffix("/v1").unwrap(), CHAT, body, &headers).ok()
    }

    /// The answer, as soon as a gateway is there that knows a worker; or that it cannot be told again.
    fn until_told(&self, key: &str, name: &str, body: &Value) -> Answer {
        let mut answer = None;
        let mut told = || {
            answer = self.ask(key, name, body).filter(|(head, _)| is_answer(head) || head.contains(" 409 "));
            answer.is_some()
        };
        wait(&mut told, "an answer");
        answer.unwrap()
    }

    fn until_answered(&self, key: &str, name: &str, body: &Value) -> Answer {
        let answer = self.until_told(key, name, body);
        assert!(is_answer(&answer.0), "{answer:?}");
        answer
    }

    /// Kills the gateway.
    fn kill(&mut self) {
        kill_process(self.gateway, Signal::KILL).unwrap();
        self.kills += 1;
    }

    /// Waits until `up` has begun another.
    fn until_again(&mut self) {
        self.gateway = self.up.until_again("the gateway", self.kills);
    }

    /// How often each request is in a key's usage.
    fn usage(&self, key: &str) -> BTreeMap<String, usize> {
        let told = run(self.dir, &["apikey", "usage", key, "--json"]);
        assert_status(&told, 0);
        let mut rows = BTreeMap::new();
        for page in serde_json::Deserializer::from_slice(&told.stdout).into_iter::<Value>() {
            for row in page.unwrap()["generations"].as_array().unwrap() {
                *rows.entry(row["id"].as_str().unwrap().to_owned()).or_default() += 1;
            }
        }
        rows
    }
}

/// An answer, if all of it came: its head in small letters, and its body as it was sent.
fn whole(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let is_stream = head.contains("text/event-stream");
    let ended = match head.contains("content-length") {
        true => body.ends_with('}'),
        false => body.ends_with("0\r\n\r\n") && (!is_stream || body.contains("[DONE]")),
    };
    ended.then(|| (head.to_ascii_lowercase(), body.to_owned()))
}

fn is_answer(head: &str) -> bool {
    head.starts_with("http/1.1 200")
}

/// The request of whose receipt an error says that it has the answer.
fn named_in(body: &str) -> String {
    let (_, rest) = body.split_once("/v1/receipts/").unwrap();
    rest.chars().take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_').collect()
}

/// The text that an answer says, told in chunks or as a document.
fn content((head, body): &Answer) -> String {
    if head.contains("text/event-stream") {
        return said(body);
    }
    let json = &body[body.find('{').unwrap()..=body.rfind('}').unwrap()];
    let json: Value = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {body}"));
    json["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_asked_once_is_answered_once_although_the_gateway_is_killed() {
    let data_dir = tempfile::tempdir().unwrap();
    let dir = data_dir.path();
    let up = Up::start(dir, &["--workers", "1", "--threads", "1", "--validators", "1"]);
    let gateway = up.pids()[0];
    let mut site = Site { dir, up, gateway, kills: 0 };
    let [mine, other] = ["mine", "other"].map(|name| {
        let made = run(dir, &["apikey", "create", name, "--json"]);
        assert_status(&made, 0);
        json_of(&made)["secret"].as_str().unwrap().to_owned()
    });
    let mut long = question(800);
    long["ignore_eos"] = json!(true);
    let undisturbed = site.until_answered(&mine, "undisturbed", &long);
    let mut answered = vec![request_id(&undisturbed.0)];
    for stream in [false, true] {
        long["stream"] = json!(stream);
        let (name, told) = (0..10)
            .find_map(|attempt| {
                let name = format!("{stream}-{attempt}");
                let crowd: Vec<_> = (0..CROWD)
                    .filter_map(|number| site.begin(&other, &format!("{name}-{number}"), &long))
                    .map(|mut other| thread::spawn(move || drop(other.read_to_end(&mut Vec::new()))))
                    .collect();
                let mut struck = site.begin(&mine, &name, &long).unwrap();
                let reader = thread::spawn(move || {
                    let mut text = String::new();
                    let _ = struck.read_to_string(&mut text);
                    text
                });
                thread::sleep(Duration::from_millis(700));
                site.kill();
                let came = whole(&reader.join().unwrap()).filter(|(head, _)| is_answer(head));
                crowd.into_iter().for_each(|other| other.join().unwrap());
                site.until_again();
                let told = site.until_told(&mine, &name, &long);
                if !is_answer(&told.0) {
                    // It was struck between its receipt and its last bytes.
                    assert!(told.1.contains("answered_before"), "{told:?}");
                    answered.push(named_in(&told.1));
                    return None;
                }
                if let Some((head, _)) = came {
                    answered.push(request_id(&head));
                    return None;
                }
                Some((name, told))
            })
            .expect("an answer that the kill struck");
        assert_eq!(content(&told), content(&undisturbed));
        let id = request_id(&told.0);
        for _ in 0..2 {
            let again = site.until_answered(&mine, &name, &long);
            assert_eq!((request_id(&again.0), content(&again)), (id.clone(), content(&told)));
            site.kill();
            site.until_again();
        }
        let mut another = long.clone();
        another["max_tokens"] = json!(3);
        let (head, body) = site.ask(&mine, &name, &another).unwrap();
        assert!(head.starts_with("http/1.1 409") && body.contains("idempotency_mismatch"), "{head}{body}");
        // The name is its key's own.
        let theirs = site.until_answered(&other, &name, &long);
        assert_ne!(request_id(&theirs.0), id);
        assert_eq!(content(&theirs), content(&told));
        answered.push(id);
    }
    answered.sort();
    let usage = site.usage("mine");
    assert_eq!(usage.keys().cloned().collect::<Vec<_>>(), answered);
    assert!(usage.values().all(|count| *count == 1), "{usage:?}");
}

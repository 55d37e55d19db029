//! `surety apikey`: with a gateway and without one, and after it was killed.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Stdio},
};

use serde_json::{Value, json};

use crate::process::{assert_status, assert_stderr, json as json_of, run, surety};

/// A gateway whose one worker is not there.
struct Gateway {
    child: Child,
    address: String,
}

impl Gateway {
    fn start(dir: &Path) -> Gateway {
        let worker = format!("{}@127.0.0.1:9", "1".repeat(64));
        let mut command = surety(dir);
        command.args(["gateway", "run", "--listen", "127.0.0.1:0", "--json", "--worker", &worker]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        Gateway { child, address: ready["address"].as_str().unwrap().to_owned() }
    }

    /// The status of an answer to this key.
    fn status(&self, path: &str, key: &str) -> u16 {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx-api-key: {key}\r\n\r\n"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn keys_are_made_shown_once_and_revoked_at_once() {
    let data_dir = tempfile::tempdir().unwrap();
    let dir = data_dir.path();
    let list = || json_of(&run(dir, &["apikey", "list", "--json"]))["keys"].clone();
    assert_eq!(list(), json!([]));

    // Without a gateway.
    let args =
        ["apikey", "create", "mine", "--budget", "2.5", "--rpm", "60", "--models", "a,b", "--expires", "30d"];
    let made = run(dir, &[&args[..], &["--max-price", "1/0.5/4", "--json"]].concat());
    assert_status(&made, 0);
    let made = json_of(&made);
    let mine = made["secret"].as_str().unwrap();
    assert!(mine.starts_with("sk-surety-") && mine.len() == 74);
    let key = &made["key"];
    assert_eq!(
        (&key["budget"], &key["left"], &key["rpm"]),
        (&json!("2500000"), &json!("2500000"), &json!(60))
    );
    assert_eq!((&key["models"], &key["max_price"]["cached"]), (&json!(["a", "b"]), &json!("500000")));
    assert_eq!(list(), json!([key]));
    let again = run(dir, &["apikey", "create", "mine"]);
    assert_status(&again, 1);
    assert_stderr(&again, "choose another name");
    for wrong in
        [&["--budget", "0.0000001"][..], &["--rpm", "0"], &["--expires", "soon"], &["--budget", "-1"]]
    {
        assert!(!run(dir, &[&["apikey", "create", "x"], wrong].concat()).status.success(), "{wrong:?}");
    }

    // With one: it knows the key, and learns of others at once.
    let mut gateway = Gateway::start(dir);
    assert_eq!((gateway.status("/health", ""), gateway.status("/v1/models", "")), (200, 401));
    assert_eq!(gateway.status("/v1/models", mine), 200);
    let other = run(dir, &["apikey", "create", "other"]);
    assert_status(&other, 0);
    assert_stderr(&other, "it is shown this once");
    let other = String::from_utf8(other.stdout).unwrap().trim().to_owned();
    assert_eq!(gateway.status("/v1/models", &other), 200);
    assert_status(&run(dir, &["apikey", "revoke", "mine"]), 0);
    assert_eq!((gateway.status("/v1/models", mine), gateway.status("/v1/models", &other)), (401, 200));
    let unknown = run(dir, &["apikey", "show", "nobody"]);
    assert_status(&unknown, 1);
    assert_stderr(&unknown, "there are: mine, other");
    assert_eq!(json_of(&run(dir, &["apikey", "usage", "other", "--json"]))["total"]["requests"], 0);

    // Killed, and started again: what it left in the way is taken over.
    gateway.kill();
    assert_eq!(list()[0]["state"], "revoked");
    let gateway = Gateway::start(dir);
    assert_eq!((gateway.status("/v1/models", mine), gateway.status("/v1/models", &other)), (401, 200));
    assert_eq!(json_of(&run(dir, &["apikey", "show", "other", "--json"]))["state"], "active");
    let table = run(dir, &["apikey", "usage", "other", "--csv"]);
    assert_status(&table, 0);
    assert!(String::from_utf8(table.stdout).unwrap().starts_with("id,key,model,status,"));
}

//! What a gateway tells of a real ledger, thing by thing: blocks, transactions by name, accounts, what a text names.

use serde_json::{Value, json};

use crate::{
    http::get,
    join::Role,
    look::{prepare, start},
    process::{assert_status, json as json_of, run},
};

#[test]
fn a_gateway_tells_what_is_on_the_ledger_and_what_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    prepare(dir, &[]);
    let alone = start(dir);
    let title = "later <script>";
    let propose =
        ["gov", "propose", "parameter", "timelock_s=60", "--title", title, "--json", "--account", "operator"];
    assert_status(&run(dir, &[&propose[..], &["--rpc-url", &alone.rpc]].concat()), 0);
    let shown = run(dir, &["key", "show", "operator", "--json"]);
    let operator = json_of(&shown)["address"].as_str().unwrap().to_owned();

    let genesis = dir.join("genesis-given.json");
    let gateway = ["gateway", "run", "--listen", "127.0.0.1:0", "--genesis", genesis.to_str().unwrap()];
    let gateway =
        Role::start(dir, &[&gateway[..], &["--rpc-url", &alone.rpc, "--account", "purse"]].concat());
    let base_url = gateway.ready["base_url"].as_str().unwrap();
    let asked = |path: &str| {
        let (head, body) = get(base_url, &format!("/network/{path}"));
        (head[9..12].parse::<u16>().unwrap(), body)
    };
    let told = |path: &str| {
        let (status, body) = asked(path);
        assert_eq!(status, 200, "{path}: {body}");
        body
    };

    // All blocks, back to the first: one of them holds the proposal.
    let mut page = told("blocks?count=50");
    let mut busy = Vec::new();
    loop {
        let blocks = page["blocks"].as_array().unwrap();
        assert!(blocks.iter().all(|block| block["proven"] == true), "{page}");
        busy.extend(blocks.iter().filter(|block| block["gas_used"] != 0).cloned());
        if page["more"] == false {
            break;
        }
        page = told(&format!("blocks?before={}", blocks.last().unwrap()["number"]));
    }
    let entries = busy.iter().flat_map(|block| {
        let whole = told(&format!("blocks/{}", block["number"]));
        assert_eq!((&whole["hash"], &whole["transactions"]), (&block["hash"], &block["transactions"]));
        assert_eq!(told(&format!("blocks/{}", block["hash"].as_str().unwrap()))["number"], block["number"]);
        whole["entries"].as_array().unwrap().clone()
    });
    let entries: Vec<Value> = entries.collect();
    let proposal = entries.iter().find(|entry| entry["function"] == "proposeParameters");
    let proposal = proposal.unwrap_or_else(|| panic!("no proposal in {entries:?}"));
    let hash = proposal["hash"].as_str().unwrap();
    let whole = told(&format!("transactions/{hash}"));
    assert_eq!(
        (&whole["module"], &whole["success"], &whole["proven"]),
        (&json!("governance"), &json!(true), &json!(true))
    );
    assert_eq!(whole["from"], operator.as_str());
    let arguments = whole["arguments"].as_array().unwrap();
    let argument = |name: &str| arguments.iter().find(|field| field["name"] == name).unwrap();
    assert_eq!(argument("title")["value"], title);
    assert_eq!(argument("changes")["fields"][0]["fields"][1]["value"], "60");
    assert!(
        whole["events"].as_array().unwrap().iter().all(|event| event["module"] == "governance"),
        "{whole}"
    );

    let account = told(&format!("accounts/{operator}"));
    assert_eq!((&account["given_why"], &account["nonce"]), (&json!("the operator's fees"), &json!(1)));
    assert!(account["validator"]["key"].is_string() && account["operator"].is_null(), "{account}");
    assert_eq!(told("disputes")["count"], 0);

    // What a text names.
    let found = |query: &str| {
        let found = told(&format!("find?q={query}"))["found"].clone();
        let one = |one: &Value| format!("{} {}", one["kind"].as_str().unwrap(), one["id"].as_str().unwrap());
        found.as_array().unwrap().iter().map(one).collect::<Vec<_>>()
    };
    assert_eq!(found(hash), [format!("transaction {hash}")]);
    assert_eq!(found("1"), ["block 1"]);
    assert_eq!(found(&operator.to_lowercase()), [format!("account {operator}")]);
    assert_eq!(
        found("req_00000000000000000000000000000001"),
        ["request req_00000000000000000000000000000001"]
    );
    for nothing in
        ["18446744073709551615", "18446744073709551616", "nobody", "%3Cb%3E", &"1".repeat(64), "%00"]
    {
        assert_eq!(found(nothing), Vec::<String>::new(), "{nothing}");
        assert!(!told(&format!("find?q={nothing}"))["looked"].as_array().unwrap().is_empty());
    }

    // What is none, and what is not there.
    let none = "0".repeat(64);
    for (path, status, code) in [
        ("blocks/18446744073709551615".to_owned(), 404, "not_found"),
        ("blocks/18446744073709551616".to_owned(), 400, "invalid_param"),
        ("blocks/-1".to_owned(), 400, "invalid_param"),
        ("blocks/latest".to_owned(), 400, "invalid_param"),
        (format!("blocks/0x{none}"), 404, "not_found"),
        ("blocks?before=x".to_owned(), 400, "invalid_param"),
        ("blocks?count=0".to_owned(), 400, "invalid_param"),
        ("blocks?count=51".to_owned(), 400, "invalid_param"),
        (format!("transactions/0x{none}"), 404, "not_found"),
        ("transactions/0x12".to_owned(), 400, "invalid_param"),
        ("accounts/0x12".to_owned(), 400, "invalid_param"),
        ("disputes/1".to_owned(), 404, "not_found"),
        ("disputes/18446744073709551615".to_owned(), 404, "not_found"),
        ("disputes/x".to_owned(), 400, "invalid_param"),
        ("find?q=".to_owned(), 400, "invalid_param"),
        (format!("find?q={}", "a".repeat(201)), 400, "invalid_param"),
    ] {
        let (found, body) = asked(&path);
        assert_eq!((found, body["error"]["code"].as_str()), (status, Some(code)), "{path}: {body}");
    }
}

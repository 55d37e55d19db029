//! `surety up` with its ledger: requests are paid, whoever dies, and what is claimed is what was charged.

use std::io::Read;

use alloy_primitives::{Address, U256};
use alloy_sol_types::SolCall;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use surety_types::abi::{IChannels, IReceipts, IStaking, address};

use crate::{
    http::{ask, post_to, question},
    process::{Up, assert_status, json as json_of, run, wait},
};

/// What a view of a module answers, as any wallet would ask.
fn view<C: SolCall>(up: &Up, to: Address, call: &C) -> C::Return {
    let data = alloy_primitives::hex::encode_prefixed(call.abi_encode());
    let answer = rpc(up, "eth_call", json!([{ "to": to, "data": data }, "latest"]));
    let bytes = alloy_primitives::hex::decode(answer.as_str().unwrap()).unwrap();
    C::abi_decode_returns(&bytes).unwrap()
}

fn rpc(up: &Up, method: &str, params: Value) -> Value {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let mut text = String::new();
    post_to(up.ready["rpc_url"].as_str().unwrap(), "/", &body).read_to_string(&mut text).unwrap();
    let (_, answer) = text.split_once("\r\n\r\n").unwrap();
    let mut answer: Value = serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(answer.get("error").is_none(), "{answer}");
    answer["result"].take()
}

/// Micro-credits that an answer cost.
fn cost(head: &str) -> u128 {
    let line = head.lines().find_map(|line| line.strip_prefix("x-surety-cost: ")).unwrap();
    line.trim().parse().unwrap()
}

#[test]
fn requests_are_paid_and_what_is_claimed_is_what_was_charged() {
    let data_dir = tempfile::tempdir().unwrap();
    let dir = data_dir.path();
    let mut up = Up::start(dir, &["--workers", "1"]);
    let shown = run(dir, &["key", "show", "worker-1-operator", "--json"]);
    assert_status(&shown, 0);
    let operator: Address = json_of(&shown)["address"].as_str().unwrap().parse().unwrap();
    let bonded = view(&up, address::STAKING, &IStaking::bondedToCall { operator });
    assert_eq!(bonded, U256::from(100u128 * 10u128.pow(18)), "the worker bonds by itself");

    let mut charged = 0;
    for tokens in [5, 150, 300] {
        let (head, _) = ask(&up.base_url(), &question(tokens));
        let cost = cost(&head);
        assert!(cost > 0, "{head}");
        charged += cost;
    }
    // Neither a gateway nor a worker that dies loses what was promised, or promises it twice.
    for (role, name) in [(0, "the gateway"), (1, "worker 1"), (2, "validator 1")] {
        kill_process(up.pids()[role], Signal::KILL).unwrap();
        up.wait_for(&format!("{name} runs again"));
        let mut paid = None;
        wait(
            || {
                paid = crate::http::try_ask(&up.base_url(), &question(20));
                paid.is_some()
            },
            "an answer afterwards",
        );
        charged += cost(&paid.unwrap());
    }

    let receivers = IChannels::receiversCall { receiver: operator, token: Address::ZERO };
    let posted = IReceipts::postedByCall { operator };
    for _ in 0..3 {
        if view(&up, address::RECEIPTS, &posted).count > 0 {
            break;
        }
        wait(
            || view(&up, address::RECEIPTS, &posted).count > 0,
            "the root of the epoch's receipts is posted",
        );
    }
    up.signal(Signal::TERM);
    assert_eq!(up.wait(), Some(0), "{}", up.stderr.lock().unwrap());

    // What was owed is claimed before everything stops, and the ledger is there when it starts again.
    let up = Up::start(dir, &["--workers", "1"]);
    let paid = view(&up, address::CHANNELS, &receivers);
    let wei = charged * 10u128.pow(12);
    assert_eq!((paid.totalClaimed, paid.totalSettled), (wei, wei));
    let (head, _) = ask(&up.base_url(), &question(5));
    assert!(cost(&head) > 0);
}

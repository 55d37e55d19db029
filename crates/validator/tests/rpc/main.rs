//! JSON-RPC over real sockets, against a chain whose law is the real one.

mod devnet;
mod http;

use std::time::Duration;

use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, Bytes, TxKind, U256, hex};
use alloy_signer::SignerSync;
use alloy_signer_local::PrivateKeySigner;
use alloy_sol_types::SolCall;
use devnet::{CHAIN_ID, Devnet, key};
use http::{ask, exchange, refused};
use serde_json::{Value, json};
use surety_types::abi::{IStaking, address::STAKING};
use surety_validator::rpc::RpcLimits;

const GWEI: u128 = 1_000_000_000;

fn transaction(nonce: u64) -> TxEip1559 {
    TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: 100_000,
        max_fee_per_gas: 2 * GWEI,
        max_priority_fee_per_gas: 0,
        to: TxKind::Call(Address::repeat_byte(0xaa)),
        value: U256::from(5),
        access_list: Default::default(),
        input: Bytes::new(),
    }
}

fn signed(key: &PrivateKeySigner, transaction: TxEip1559) -> Value {
    let signature = key.sign_hash_sync(&transaction.signature_hash()).expect("signed");
    let envelope: TxEnvelope = transaction.into_signed(signature).into();
    json!(hex::encode_prefixed(envelope.encoded_2718()))
}

fn bond(nonce: u64, amount: u64) -> TxEip1559 {
    let input = IStaking::bondCall {}.abi_encode().into();
    TxEip1559 {
        to: TxKind::Call(STAKING),
        value: U256::from(amount),
        input,
        gas_limit: 1_000_000,
        ..transaction(nonce)
    }
}

#[tokio::test]
async fn a_transfer_is_sent_included_and_found_again() {
    let chain = Devnet::new().await;
    let server = chain.serve(RpcLimits::default()).await;
    let at = server.address();
    assert_eq!(ask(at, "eth_chainId", json!([])).await, json!("0x15b38"));
    assert_eq!(ask(at, "net_version", json!([])).await, json!("88888"));
    assert_eq!(ask(at, "eth_syncing", json!([])).await, json!(false));
    assert_eq!(ask(at, "eth_gasPrice", json!([])).await, json!("0x3b9aca00"));
    assert_eq!(ask(at, "eth_maxPriorityFeePerGas", json!([])).await, json!("0x0"));
    let sender = key(0).address();
    let hash = ask(at, "eth_sendRawTransaction", json!([signed(&key(0), transaction(0))])).await;
    assert_eq!(chain.gossiped.lock().expect("no panic").len(), 1, "peers hear of it");
    assert_eq!(ask(at, "eth_getTransactionCount", json!([sender, "pending"])).await, json!("0x1"));
    assert_eq!(ask(at, "eth_getTransactionCount", json!([sender, "latest"])).await, json!("0x0"));
    let waiting = ask(at, "eth_getTransactionByHash", json!([hash])).await;
    assert_eq!((&waiting["blockNumber"], &waiting["from"]), (&Value::Null, &json!(sender)));
    assert_eq!(ask(at, "eth_getTransactionReceipt", json!([hash])).await, Value::Null);
    assert_eq!(ask(at, "txpool_status", json!([])).await, json!({ "pending": "0x1", "queued": "0x0" }));

    chain.produce().await;
    assert_eq!(ask(at, "eth_blockNumber", json!([])).await, json!("0x1"));
    let receipt = ask(at, "eth_getTransactionReceipt", json!([hash])).await;
    for (name, expected) in [
        ("status", json!("0x1")),
        ("blockNumber", json!("0x1")),
        ("transactionIndex", json!("0x0")),
        ("gasUsed", json!("0x5208")),
        ("cumulativeGasUsed", json!("0x5208")),
        ("effectiveGasPrice", json!("0x3b9aca00")),
        ("type", json!("0x2")),
        ("from", json!(sender)),
        ("contractAddress", Value::Null),
        ("logs", json!([])),
    ] {
        assert_eq!(receipt[name], expected, "{name}: {receipt}");
    }
    let block = ask(at, "eth_getBlockByNumber", json!(["latest", true])).await;
    assert_eq!((&block["hash"], &block["transactions"][0]["hash"]), (&receipt["blockHash"], &hash));
    assert_eq!(block["baseFeePerGas"], json!("0x3b9aca00"));
    let by_hash = ask(at, "eth_getBlockByHash", json!([block["hash"], false])).await;
    assert_eq!((&by_hash["transactions"], &by_hash["number"]), (&json!([hash]), &json!("0x1")));
    assert_eq!(ask(at, "eth_getTransactionByHash", json!([hash])).await, block["transactions"][0]);
    for method in ["eth_getTransactionByBlockNumberAndIndex", "eth_getTransactionByBlockHashAndIndex"] {
        let which = if method.contains("Hash") { block["hash"].clone() } else { json!("0x1") };
        assert_eq!(ask(at, method, json!([which, "0x0"])).await["hash"], hash);
        assert_eq!(ask(at, method, json!([which, "0x1"])).await, Value::Null);
    }
    assert_eq!(ask(at, "eth_getBlockTransactionCountByNumber", json!(["0x1"])).await, json!("0x1"));
    assert_eq!(ask(at, "eth_getBlockReceipts", json!(["0x1"])).await, json!([receipt]));
    assert_eq!(ask(at, "eth_getBalance", json!([Address::repeat_byte(0xaa), "latest"])).await, json!("0x5"));
    assert_eq!(ask(at, "eth_getBlockByNumber", json!(["0x2", false])).await, Value::Null);
    let history = ask(at, "eth_feeHistory", json!(["0x5", "latest", [50.0]])).await;
    assert_eq!(history["oldestBlock"], json!("0x0"));
    assert_eq!(history["baseFeePerGas"].as_array().map(Vec::len), Some(3));
    assert_eq!(history["reward"], json!([["0x0"], ["0x0"]]));
    server.stop().await;
}

#[tokio::test]
async fn a_module_is_called_its_events_are_found_and_its_refusals_told() {
    let chain = Devnet::new().await;
    let server = chain.serve(RpcLimits::default()).await;
    let at = server.address();
    for nonce in 0..3 {
        ask(at, "eth_sendRawTransaction", json!([signed(&key(0), bond(nonce, 1_000 + nonce))])).await;
        chain.produce().await;
    }
    let logs = ask(at, "eth_getLogs", json!([{ "address": STAKING, "fromBlock": "0x0" }])).await;
    assert_eq!(logs.as_array().map(Vec::len), Some(3), "{logs}");
    let topic = &logs[0]["topics"][0];
    let one =
        ask(at, "eth_getLogs", json!([{ "topics": [topic], "fromBlock": "0x2", "toBlock": "0x2" }])).await;
    assert_eq!(one.as_array().map(Vec::len), Some(1));
    let by_hash = ask(at, "eth_getLogs", json!([{ "blockHash": one[0]["blockHash"] }])).await;
    assert_eq!(by_hash, one);
    let nothing = ask(at, "eth_getLogs", json!([{ "address": Address::ZERO, "fromBlock": "0x0" }])).await;
    assert_eq!(nothing, json!([]));

    let sender = key(0).address();
    let data =
        hex::encode_prefixed(IStaking::bondedOfCall { operator: sender, delegator: sender }.abi_encode());
    let bonded = ask(at, "eth_call", json!([{ "to": STAKING, "data": data }, "latest"])).await;
    assert_eq!(bonded, json!(hex::encode_prefixed(U256::from(3_003).to_be_bytes::<32>())));
    let gas = ask(
        at,
        "eth_estimateGas",
        json!([{ "from": sender, "to": Address::repeat_byte(0xaa), "value": "0x1" }]),
    )
    .await;
    assert_eq!(gas, json!("0x5208"));

    // A refusal carries the reason in words and as data.
    let data = hex::encode_prefixed(IStaking::withdrawCall { operator: Address::ZERO }.abi_encode());
    let error =
        refused(at, "eth_call", json!([{ "from": sender, "to": STAKING, "data": data }, "latest"])).await;
    assert_eq!(error["code"], json!(3), "{error}");
    assert!(
        error["message"].as_str().is_some_and(|message| message.starts_with("execution reverted: ")),
        "{error}"
    );
    assert!(error["data"].as_str().is_some_and(|data| data.starts_with("0x08c379a0")), "{error}");
    let same = refused(at, "eth_estimateGas", json!([{ "from": sender, "to": STAKING, "data": data }])).await;
    assert_eq!(same, error);
    assert!(ask(at, "eth_getCode", json!([STAKING, "latest"])).await == json!("0xfe"));
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_answered_is_refused_with_its_reason() {
    let chain = Devnet::new().await;
    let server = chain.serve(RpcLimits::default()).await;
    let at = server.address();
    for _ in 0..3 {
        chain.produce().await;
    }
    let sender = key(0).address();
    let other_chain = signed(&key(0), TxEip1559 { chain_id: 1, ..transaction(0) });
    let cheap = signed(&key(0), TxEip1559 { max_fee_per_gas: 1, ..transaction(0) });
    let poor = signed(&key(9), transaction(0));
    let ahead = signed(&key(0), transaction(5_000));
    for (method, params, code, words) in [
        ("eth_sendRawTransaction", json!([other_chain]), -32000, "invalid chain id for signer"),
        ("eth_sendRawTransaction", json!([cheap]), -32000, "max fee per gas less than block base fee"),
        ("eth_sendRawTransaction", json!([poor]), -32000, "insufficient funds for gas * price + value"),
        ("eth_sendRawTransaction", json!([ahead]), -32000, "nonce too high"),
        ("eth_sendRawTransaction", json!(["0x02"]), -32000, "typed transaction cannot be decoded"),
        ("eth_sendRawTransaction", json!(["zz"]), -32602, "the transaction is missing or invalid"),
        ("eth_sendRawTransaction", json!([]), -32602, "the transaction is missing or invalid"),
        ("eth_getBalance", json!([sender, "0x1"]), -32000, "historical state is not available: block 1"),
        ("eth_getBalance", json!([sender, "earliest"]), -32000, "historical state is not available"),
        (
            "eth_call",
            json!([{ "to": sender }, "latest", { sender.to_string(): {} }]),
            -32602,
            "state overrides",
        ),
        ("eth_call", json!([{ "data": "0xfe" }, "latest"]), -32000, "invalid opcode"),
        ("eth_call", json!([{ "to": sender, "gas": "0x10" }, "latest"]), -32000, ""),
        ("eth_getLogs", json!([{ "fromBlock": "0x3", "toBlock": "0x1" }]), -32602, "invalid block range"),
        ("eth_getLogs", json!([{ "blockHash": U256::ZERO }]), -32602, "the filter is missing or invalid"),
        ("eth_getStorageAt", json!([sender, "0xzz", "latest"]), -32602, "slot is not"),
        ("eth_feeHistory", json!(["0x1", "latest", [70.0, 10.0]]), -32602, "reward percentiles"),
        ("eth_feeHistory", json!(["0x1", "0x99"]), -32000, "request beyond head block"),
        ("eth_getProof", json!([sender, [], "latest"]), -32601, "Method not found"),
        ("surety_proof", json!([{}]), -32602, "nothing is to be proved"),
        ("surety_epoch", json!([7]), -32001, "of epoch 7 no record is kept here"),
        ("surety_certificate", json!([3]), -32001, "there is no certificate yet"),
    ] {
        let error = refused(at, method, params.clone()).await;
        assert_eq!(error["code"], json!(code), "{method} {params}: {error}");
        assert!(
            error["message"].as_str().is_some_and(|told| told.contains(words)),
            "{method} {params}: {error}"
        );
    }
    ask(at, "eth_sendRawTransaction", json!([signed(&key(0), transaction(0))])).await;
    let twice = refused(at, "eth_sendRawTransaction", json!([signed(&key(0), transaction(0))])).await;
    assert_eq!(twice["message"], json!("already known"));
    let same_nonce = TxEip1559 { value: U256::from(6), ..transaction(0) };
    let twice = refused(at, "eth_sendRawTransaction", json!([signed(&key(0), same_nonce)])).await;
    assert!(
        twice["message"].as_str().is_some_and(|told| told.starts_with("replacement transaction underpriced"))
    );
    server.stop().await;
}

#[tokio::test]
async fn the_ledgers_own_views_are_served() {
    let chain = Devnet::new().await;
    let server = chain.serve(RpcLimits::default()).await;
    let at = server.address();
    for _ in 0..2 {
        chain.produce().await;
    }
    let status = ask(at, "surety_status", json!([])).await;
    assert_eq!(
        (&status["number"], &status["indexed"], &status["duty"]),
        (&json!(2), &json!(2), &json!("voting"))
    );
    let params = ask(at, "surety_params", json!([])).await;
    assert_eq!(params["params"]["minimum_gas_price"], json!("1000000000"));
    let set = ask(at, "surety_validators", json!([])).await;
    assert_eq!(set["members"][0]["operator"], json!(Address::repeat_byte(0x99)));
    // Block 1 is final through block 2's certificate.
    let certificate = ask(at, "surety_certificate", json!([1])).await;
    assert_eq!(certificate["headers"].as_array().map(Vec::len), Some(2));
    assert_eq!(certificate["certificate"], json!(hex::encode_prefixed("signed")));
    let proof = ask(
        at,
        "surety_proof",
        json!([{ "accounts": [STAKING], "slots": [{ "address": STAKING, "slot": "0x1" }] }]),
    )
    .await;
    assert_eq!((&proof["number"], proof["proofs"].as_array().map(Vec::len)), (&json!(2), Some(2)));
    assert_eq!(ask(at, "surety_upgrade", json!([])).await, Value::Null);
    server.stop().await;
}

#[tokio::test]
async fn bombs_are_defused() {
    let chain = Devnet::new().await;
    let limits = RpcLimits {
        request_bytes_max: 10_000,
        batch_max: 3,
        connections_max: 4,
        header_timeout: Duration::from_millis(300),
        ..RpcLimits::default()
    };
    let server = chain.serve(limits).await;
    let at = server.address();
    let post = |body: String| async move {
        exchange(at, "POST", "/", &[("content-type", "application/json")], &body).await
    };

    let (status, _) = post(format!("[{}]", "1".repeat(20_000))).await;
    assert_eq!(status, 413);
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_blockNumber", "params": [] });
    let (_, three) = post(json!([call, call, call]).to_string()).await;
    assert_eq!(three.matches("\"result\"").count(), 3, "{three}");
    let (_, four) = post(json!([call, call, call, call]).to_string()).await;
    assert!(four.contains("-32010"), "{four}");
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"eth_call","params":[{}{}]}}"#,
        "[".repeat(2_000),
        "]".repeat(2_000)
    );
    let (_, told) = post(deep).await;
    assert!(told.contains("-32700") || told.contains("-32602"), "{told}");
    for garbage in ["", "{", "null", "[]", "\u{0}", r#"{"jsonrpc":"1.0"}"#] {
        let (_, told) = post(garbage.to_owned()).await;
        assert!(told.contains("error") || told.is_empty(), "{garbage:?}: {told}");
    }

    // Who says nothing is let go, and makes room.
    let silent: Vec<_> = futures::future::join_all((0..4).map(|_| tokio::net::TcpStream::connect(at))).await;
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    assert_eq!(ask(at, "eth_blockNumber", json!([])).await, json!("0x0"));
    drop(silent);
    server.stop().await;
}

#[tokio::test]
async fn strangers_pages_and_names_are_kept_out() {
    let chain = Devnet::new().await;
    let server = chain.serve(RpcLimits::default()).await;
    let at = server.address();
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_blockNumber", "params": [] }).to_string();
    let kind = ("content-type", "application/json");
    for (headers, status) in [
        (vec![kind, ("host", "evil.example")], 403),
        (vec![kind, ("host", "node.example:8545")], 200),
        (vec![kind, ("host", "[::1]:8545")], 200),
        (vec![kind, ("host", "localhost")], 200),
        (vec![kind, ("origin", "https://evil.example")], 403),
        (vec![kind, ("origin", "https://wallet.example")], 200),
        (vec![("content-type", "text/plain")], 415),
    ] {
        let (told, answer) = exchange(at, "POST", "/", &headers, &body).await;
        assert_eq!(told, status, "{headers:?}: {answer}");
    }
    assert_eq!(exchange(at, "OPTIONS", "/", &[("origin", "https://wallet.example")], "").await.0, 204);
    assert_eq!(exchange(at, "GET", "/health", &[], "").await, (200, "ok\n".to_owned()));
    let (status, metrics) = exchange(at, "GET", "/metrics", &[], "").await;
    assert_eq!(status, 200);
    for line in
        ["surety_validator_rpc_requests_total{method=\"eth_blockNumber\",outcome=\"answered\"} 4", "# EOF"]
    {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    assert_eq!(metrics.matches("# EOF").count(), 1);
    server.stop().await;
}

/// For `tests/ledger`: a chain to talk to, until standard input closes.
#[tokio::test]
#[ignore = "serves until standard input closes"]
async fn serve() {
    let chain = Devnet::new().await;
    let server = chain.serve(RpcLimits::default()).await;
    chain.keep_producing(Duration::from_millis(250));
    let secret = hex::encode_prefixed(key(0).to_bytes());
    println!(
        "\n{}",
        json!({ "ready": true, "rpc_url": format!("http://{}", server.address()), "key": secret })
    );
    let mut line = String::new();
    tokio::task::spawn_blocking(move || std::io::stdin().read_line(&mut line))
        .await
        .expect("no panic")
        .expect("a line");
    server.stop().await;
}

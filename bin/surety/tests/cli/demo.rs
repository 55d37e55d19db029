//! Liars, from the outside: real processes and a real ledger, from the question to the verdict.

use std::process::Command;

use serde_json::Value;

/// Runs the show for one kind of lie; what it ends with.
fn shown(kind: &str) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_surety"))
        .args(["demo", "liar", "--tokens", "24", "--json", "--kind", kind])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{kind}: {told}");
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let wei = |name: &str| result[name].as_str().unwrap().parse::<u128>().unwrap();
    assert_eq!((result["kind"].as_str(), result["convicted"].as_bool()), (Some(kind), Some(true)), "{told}");
    assert!(wei("paid") > 0 && wei("refund") == 2 * wei("paid"), "the payer is refunded: {result}");
    assert!(wei("stake_after") < wei("stake_before"), "the bond shrinks: {result}");
    let explanation = &result["explanation"];
    assert_eq!(explanation["accountable"], "worker", "{explanation}");
    for who in ["worker", "operator"] {
        assert_eq!(explanation[who], result[who], "{explanation}");
    }
    assert!(
        explanation["verdict"].as_str().unwrap().contains(result["reason"].as_str().unwrap()),
        "{explanation}"
    );
    result
}

#[test]
fn a_worker_with_other_weights_is_convicted_and_its_payer_refunded() {
    let result = shown("requantised");
    assert_eq!(result["reason"], "the worker's word is not what the arithmetic gives");
    assert!(result["leaf_bytes"].as_u64().unwrap() <= 16 << 10, "{result}");
    assert!(result["messages"].as_u64().unwrap() <= 9, "{result}");
}

#[test]
fn a_worker_that_samples_otherwise_is_convicted_by_its_own_trace() {
    assert_eq!(shown("temperature")["reason"], "the worker's own trace is not the receipt's");
}

#[test]
fn a_worker_that_stops_early_is_convicted_at_once() {
    assert_eq!(shown("early-stop")["reason"], "the answer was stopped, and not by the model");
}

#[test]
fn a_worker_that_edits_the_text_is_convicted_by_what_its_tokens_spell() {
    let result = shown("edited");
    assert_eq!(result["reason"], "the worker's own trace is not the receipt's");
    assert!(result["messages"].as_u64().unwrap() <= 2, "the opening and the claim: {result}");
}

#[test]
fn a_worker_that_adds_to_the_prompt_is_made_to_show_it_and_convicted() {
    assert_eq!(shown("injected")["reason"], "the worker's own trace is not the receipt's");
}

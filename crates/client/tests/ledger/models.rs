//! Models on the ledger: published, named, offered; and a node that lies about a manifest.

use alloy_primitives::B256;
use serde_json::{Value, json};
use surety_chain::worker_proof_message;
use surety_client::{
    Account, account_on,
    channel::ModuleCall,
    ledger::Ledger,
    models::{FindError, Naming, dispute_leaf_bytes, naming, publication},
};
use surety_types::{
    Digest, FileDigest, FormatSummary, Manifest, ModelId, SecretKey,
    abi::{IOperators, IStaking, Module},
};

use crate::{
    liar::{Liar, altered},
    node::{Node, credits, wallet},
};

fn manifest(context: u32) -> Manifest {
    Manifest {
        name: "sample".into(),
        files: vec![FileDigest {
            name: "sample.gguf".into(),
            bytes: 5_000,
            blake3: Digest([context as u8; 32]),
        }],
        architecture: "llama".into(),
        layers: 1,
        width: 64,
        heads: 2,
        kv_heads: 1,
        head_dim: 32,
        feed_forward: 128,
        vocabulary: 100,
        context,
        formats: vec![FormatSummary { name: "F32".into(), tensors: 3, bytes: 12 }],
        tokenizer_digest: Digest([4; 32]),
        template_digest: None,
        arithmetic: 1,
        rotary_digest: Digest([5; 32]),
        plan: Some(Digest([6; 32])),
        claims: None,
    }
}

fn word(id: ModelId) -> B256 {
    B256::from(id.0.0)
}

async fn send(account: &dyn Account, call: Option<ModuleCall>) {
    account.send(vec![call.expect("something is missing")]).await.unwrap();
}

fn free(naming: Naming) -> Option<ModuleCall> {
    match naming {
        Naming::Free(call) | Naming::Elsewhere(_, call) => Some(call),
        Naming::Points | Naming::Taken(_) => None,
    }
}

/// An operator that offers a model with one worker at this address.
async fn offer(account: &dyn Account, worker: &SecretKey, endpoint: &str, id: ModelId) {
    let proof = worker.sign(&worker_proof_message(account.chain_id(), account.address(), &worker.public()));
    let key = B256::from(worker.public().0);
    let add = IOperators::addWorkerCall { key, endpoint: endpoint.into(), proof: proof.to_vec().into() };
    let register = IOperators::registerCall { name: "an operator".into(), url: String::new() };
    let prices = IOperators::offerCall { model: word(id), promptPrice: 1, cachedPrice: 1, outputPrice: 1 };
    for call in [
        ModuleCall::paying(Module::Staking, &IStaking::bondCall {}, credits(1_000)),
        ModuleCall::new(Module::Operators, &register),
        ModuleCall::new(Module::Operators, &add),
        ModuleCall::new(Module::Operators, &prices),
    ] {
        account.send(vec![call]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_published_named_found_and_offered() {
    let node = Node::start().await;
    let ledger = node.ledger(&[&node.url]);
    let [one, two] = [1, 2].map(|number| account_on(ledger.clone(), wallet(number)));
    let (first, second) = (manifest(64), manifest(65));
    let (id, other) = (first.id(), second.id());
    assert_eq!(ledger.model(id).await.unwrap(), None);
    assert_eq!(ledger.manifest(id).await.unwrap(), None);
    assert!(matches!(ledger.model_named("sample", None).await, Err(FindError::Unknown(_))));
    assert!(matches!(ledger.model_named("No name", None).await, Err(FindError::Unknown(_))));

    let leaf = dispute_leaf_bytes(&*one, &first).await.unwrap();
    send(&*one, publication(&*one, &first).await.unwrap()).await;
    assert_eq!(publication(&*two, &first).await.unwrap(), None, "once");
    let admitted = ledger.model(id).await.unwrap().unwrap();
    assert_eq!((admitted.publisher, admitted.dispute_leaf_bytes), (one.address(), leaf));
    assert_eq!(ledger.manifest(id).await.unwrap(), Some(first.clone()));

    send(&*one, free(naming(&*one, "sample", id).await.unwrap())).await;
    assert_eq!(naming(&*two, "sample", id).await.unwrap(), Naming::Points);
    send(&*two, publication(&*two, &second).await.unwrap()).await;
    assert_eq!(naming(&*two, "sample", other).await.unwrap(), Naming::Taken(one.address()));
    assert!(
        matches!(naming(&*one, "sample", other).await.unwrap(), Naming::Elsewhere(before, _) if before == id)
    );
    assert!(naming(&*one, "No name", id).await.unwrap_err().refused);

    // Every way to say which.
    let digits = id.0.to_string();
    assert_eq!(ledger.model_named("sample", Some(&digits[..6])).await.unwrap(), id);
    let pinned = ledger.model_named("sample", Some(&other.0.to_string()[..6])).await;
    assert!(matches!(pinned, Err(FindError::Pinned { found, .. }) if found == id));
    let of_file = first.files[0].blake3.to_string();
    for text in [&digits, &digits[..10], &of_file, &of_file[..12]] {
        assert_eq!(ledger.model_with_digits(text).await.unwrap(), id, "{text}");
    }
    assert!(matches!(ledger.model_with_digits(&"0".repeat(64)).await, Err(FindError::Unknown(_))));
    assert!(matches!(ledger.model_with_digits("").await, Err(FindError::Ambiguous { .. })));

    // A manifest is any node's word: another one under the same event is not believed.
    let liar = Liar::before(&node.url).await;
    liar.set(altered(|method, _, answer| {
        if method == "eth_getLogs" {
            let data = answer[0]["data"].as_str().unwrap().replace("73616d706c65", "73616d706c66");
            answer[0]["data"] = data.into();
        }
    }));
    let lied_to: Ledger = node.ledger(&[&liar.url]);
    assert_eq!(lied_to.manifest(id).await.unwrap(), None);
    for nonsense in [json!({}), json!([1, {}, null]), Value::Null] {
        liar.set(altered(move |method, _, answer| {
            if method == "eth_getLogs" {
                *answer = nonsense.clone();
            }
        }));
        assert_eq!(lied_to.manifest(id).await.unwrap_or(None), None);
    }

    // Who offers it is proven; one that retires is not listed any more.
    assert!(ledger.offering(id).await.unwrap().1.is_empty());
    let keys = [7, 8].map(|seed| SecretKey::from_bytes(&[seed; 32]));
    offer(&*one, &keys[0], "192.0.2.1:4433", id).await;
    offer(&*two, &keys[1], "192.0.2.2:4433", id).await;
    let (_, offering) = ledger.offering(id).await.unwrap();
    let listed: Vec<_> = offering.iter().map(|by| (by.operator, by.key, by.endpoint.as_str())).collect();
    assert_eq!(
        listed,
        [
            (one.address(), keys[0].public(), "192.0.2.1:4433"),
            (two.address(), keys[1].public(), "192.0.2.2:4433"),
        ]
    );
    assert!(ledger.offering(other).await.unwrap().1.is_empty());
    let retire = IOperators::retireWorkerCall { key: B256::from(keys[0].public().0) };
    one.send(vec![ModuleCall::new(Module::Operators, &retire)]).await.unwrap();
    let (_, offering) = ledger.offering(id).await.unwrap();
    assert_eq!(offering.iter().map(|by| by.operator).collect::<Vec<_>>(), [two.address()]);
    node.stop().await;
}

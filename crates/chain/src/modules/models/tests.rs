//! Models, their admission and their names.

use alloy_primitives::{B256, Bytes, U256};
use alloy_sol_types::SolCall;
use surety_types::{
    Canonical as _,
    abi::{IModels, Module},
};

pub(crate) use super::leaf::tests::manifest;
use crate::testing::{Chain, address};

fn call<C: SolCall>(chain: &mut Chain, who: u64, call: C) -> Result<C::Return, String> {
    chain.try_call(who, Module::Models, U256::ZERO, call)
}

fn publish(chain: &mut Chain, bytes: Vec<u8>) -> Result<B256, String> {
    call(chain, 4, IModels::publishCall { manifest: Bytes::from(bytes) })
}

fn refused<T: std::fmt::Debug>(result: Result<T, String>, expected: &str) {
    let reason = result.expect_err("refused");
    assert!(reason.starts_with(&format!("models: {expected}")), "{reason}");
}

#[test]
fn a_model_is_published_once_under_its_digest() {
    let mut chain = Chain::new();
    let manifest = manifest();
    let id = publish(&mut chain, manifest.to_cbor()).expect("published");
    assert_eq!(id.0, *manifest.id().0.as_bytes());
    refused(publish(&mut chain, manifest.to_cbor()), "the model is published");
    let model = chain.view(Module::Models, IModels::modelCall { id });
    assert_eq!((model.publisher, model.height, model.arithmetic), (address(4), 1, 1));
    assert!(model.disputable);
    assert_eq!(model.disputeLeafBytes, super::dispute_leaf_bytes(&manifest).expect("computable"));
    assert_eq!(chain.view(Module::Models, IModels::modelsCall { offset: 0 }), [id]);
    assert_eq!(chain.view(Module::Models, IModels::modelCountCall {}), 1);
}

#[test]
fn what_cannot_be_judged_is_not_admitted() {
    let mut chain = Chain::new();
    refused(publish(&mut chain, Vec::new()), "not a canonical manifest");
    refused(publish(&mut chain, vec![0xa0]), "not a canonical manifest");
    let mut trailing = manifest().to_cbor();
    trailing.push(0);
    refused(publish(&mut chain, trailing), "not a canonical manifest");
    let mut wide = manifest();
    wide.vocabulary = 1 << 20;
    refused(publish(&mut chain, wide.to_cbor()), "not admitted: a dispute could need a leaf of");
    let mut unknown = manifest();
    unknown.formats[1].name = "Q9_9".into();
    refused(publish(&mut chain, unknown.to_cbor()), "not admitted: the arithmetic knows no format Q9_9");
    let mut unplanned = self::manifest();
    unplanned.plan = None;
    refused(publish(&mut chain, unplanned.to_cbor()), "not admitted: a model in one file has a plan");
    assert_eq!(chain.view(Module::Models, IModels::modelCountCall {}), 0);
}

#[test]
fn names_are_moved_by_their_holders_and_remember() {
    let mut chain = Chain::new();
    let first = publish(&mut chain, manifest().to_cbor()).expect("published");
    let mut other = manifest();
    other.layers = 29;
    let second = publish(&mut chain, other.to_cbor()).expect("published");
    let set = |name: &str, id: B256| IModels::setNameCall { name: name.into(), id };
    refused(call(&mut chain, 4, set("qwen3-0.6b", B256::ZERO)), "the model is not published");
    for bad in ["", "Qwen", "-qwen", "q wen", "qwén", &"q".repeat(65)] {
        refused(call(&mut chain, 4, set(bad, first)), "a name is 1 to 64 of");
    }
    call(&mut chain, 4, set("qwen3-0.6b", first)).expect("named");
    refused(call(&mut chain, 5, set("qwen3-0.6b", second)), "the name is not the caller's");
    call(&mut chain, 4, set("qwen3-0.6b", second)).expect("moved");
    let resolved = chain.view(Module::Models, IModels::resolveCall { name: "qwen3-0.6b".into() });
    assert_eq!((resolved.holder, resolved.id, resolved.version), (address(4), second, 2));
    let history = IModels::nameHistoryCall { name: "qwen3-0.6b".into(), version: 1 };
    let history = chain.view(Module::Models, history);
    assert_eq!(history.id, first);
    assert!(history.height > 0 && history.height < resolved.height);

    let give = |to: u64| IModels::transferNameCall { name: "qwen3-0.6b".into(), to: address(to) };
    refused(call(&mut chain, 5, give(5)), "the name is not the caller's");
    call(&mut chain, 4, give(5)).expect("given");
    refused(call(&mut chain, 4, set("qwen3-0.6b", first)), "the name is not the caller's");
    call(&mut chain, 5, set("qwen3-0.6b", first)).expect("moved");
    let nobodys = IModels::transferNameCall { name: "free".into(), to: address(5) };
    refused(call(&mut chain, 5, nobodys), "the name is not the caller's");
    let free = chain.view(Module::Models, IModels::resolveCall { name: "free".into() });
    assert!(free.holder.is_zero() && free.version == 0);
}

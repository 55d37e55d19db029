//! `surety_*`: what an Ethereum node has no words for.
//!
//! Out:    headers, certificates and proofs as `consensus` writes them, so that whoever asks can check instead of trust.

use alloy_primitives::{Address, B256, Bytes, U256};
use jsonrpsee::{RpcModule, core::RegisterMethodError, types::ErrorObjectOwned};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use surety_chain::{PARAMETERS, StateKey, ValidatorSet};

use super::{
    Services,
    error::{Answer, invalid_params, limit, not_found, pruned, told},
    params::{Arguments, Quantity},
};
use crate::{indexes::Snapshot, ledger::Duty};

/// Headers between a block and the certificate that covers it.
const HEADERS_MAX: u64 = 256;
/// Keys in one request for proofs.
const KEYS_MAX: usize = 64;

/// Adds the methods.
pub(super) fn register(module: &mut RpcModule<Services>) -> Result<(), RegisterMethodError> {
    module.register_method("surety_status", |_, services, _| status(services))?;
    // Where the modules live and how they are called, as libraries read it.
    module.register_method("surety_abi", |_, _, _| surety_types::abi::json())?;
    module.register_async_method("surety_params", |_, services, _| async move {
        let (tip, params) = told(services.view.params().await)?;
        // As decimal text: most readers of JSON lose digits of larger numbers.
        let values: Map<String, Value> = PARAMETERS
            .iter()
            .enumerate()
            .filter_map(|(index, parameter)| {
                Some((parameter.name.to_owned(), params.value(index)?.to_string().into()))
            })
            .collect();
        Ok::<_, ErrorObjectOwned>(json!({ "number": tip.number, "params": values }))
    })?;
    module.register_async_method("surety_validators", |params, services, _| async move {
        let epoch: Option<Quantity> = Arguments::of(&params).optional("the epoch")?;
        let epoch = epoch.map_or_else(|| services.view.ledger().status().epoch, |Quantity(epoch)| epoch);
        let (_, set) = told(services.view.validator_set(epoch).await)?;
        let set =
            set.ok_or_else(|| not_found(format!("the state does not hold the validators of epoch {epoch}")))?;
        Ok::<_, ErrorObjectOwned>(validators(&set))
    })?;
    module.register_async_method("surety_upgrade", |_, services, _| async move {
        let (_, plan) = told(services.view.upgrade_plan().await)?;
        Ok::<_, ErrorObjectOwned>(plan.map(|plan| {
            json!({
                "height": plan.height, "version": plan.version, "source_revision": plan.source_revision,
                "binary_hashes": plan.binary_hashes,
            })
        }))
    })?;
    module.register_async_method("surety_certificate", |params, services, _| async move {
        let Quantity(number) = Arguments::of(&params).needed("the height")?;
        services.reading(move |snapshot| certificate(snapshot, number)).await
    })?;
    module.register_async_method("surety_epoch", |params, services, _| async move {
        let Quantity(epoch) = Arguments::of(&params).needed("the epoch")?;
        let record = told(services.view.ledger().epoch(epoch).await)?;
        let record = record.ok_or_else(|| not_found(format!("of epoch {epoch} no record is kept here")))?;
        Ok::<_, ErrorObjectOwned>(json!({ "header": record.header, "certificate": record.certificate }))
    })?;
    module.register_async_method("surety_proof", |params, services, _| async move {
        let wanted: Wanted = Arguments::of(&params).needed("what is to be proved")?;
        let keys = wanted.keys()?;
        let proved = told(services.view.ledger().prove(keys.clone()).await)?;
        let proofs: Vec<Value> = keys
            .iter()
            .zip(&proved.proofs)
            .map(|(key, proof)| json!({ "key": B256::from(key.0), "proof": proof }))
            .collect();
        Ok::<_, ErrorObjectOwned>(
            json!({ "number": proved.number, "header": proved.header, "proofs": proofs }),
        )
    })?;
    Ok(())
}

/// What is to be proved.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    #[serde(default)]
    accounts: Vec<Address>,
    #[serde(default)]
    slots: Vec<Slot>,
    #[serde(default)]
    keys: Vec<B256>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Slot {
    address: Address,
    slot: U256,
}

impl Wanted {
    fn keys(&self) -> Answer<Vec<StateKey>> {
        let accounts = self.accounts.iter().map(StateKey::account);
        let slots = self.slots.iter().map(|slot| StateKey::slot(&slot.address, &slot.slot));
        let keys: Vec<StateKey> =
            accounts.chain(slots).chain(self.keys.iter().map(|key| StateKey(key.0))).collect();
        match keys.len() {
            0 => Err(invalid_params("nothing is to be proved: name accounts, slots or keys")),
            1..=KEYS_MAX => Ok(keys),
            count => Err(limit(format!("{count} keys are to be proved, limit {KEYS_MAX}"))),
        }
    }
}

fn status(services: &Services) -> Value {
    let status = services.view.ledger().status();
    let (duty, why) = match status.duty {
        Duty::Voting => ("voting", None),
        Duty::Observing { why } => ("observing", Some(why)),
        Duty::Syncing { .. } => ("syncing", None),
    };
    let size = services.pool.size();
    json!({
        "version": crate::SOFTWARE, "chain_id": services.view.spec().chain_id, "genesis": services.genesis,
        "number": status.number, "indexed": services.indexes.tip(), "epoch": status.epoch, "view": status.view,
        "duty": duty, "why": why, "peers": status.peers,
        "pool": { "executable": size.executable, "queued": size.queued, "bytes": size.bytes },
    })
}

fn validators(set: &ValidatorSet) -> Value {
    let members: Vec<Value> = set
        .members
        .iter()
        .map(|member| json!({ "key": member.key, "operator": member.operator, "stake": member.stake.to_string() }))
        .collect();
    json!({ "epoch": set.epoch, "members": members })
}

/// The headers from a block to the next one that has a certificate, and that certificate: each header names the one
/// before by its digest, so the certificate covers them all.
fn certificate(snapshot: &Snapshot, number: u64) -> Answer<Value> {
    let earliest = told(snapshot.earliest())?.unwrap_or(0);
    if number < earliest {
        return Err(pruned(number, earliest));
    }
    let mut headers: Vec<Bytes> = Vec::new();
    for height in number..number.saturating_add(HEADERS_MAX) {
        let Some(header) = told(snapshot.header(height))? else { break };
        headers.push(header.encoded);
        let certificate = told(snapshot.certificate(height))?.filter(|certificate| !certificate.is_empty());
        if let Some(certificate) = certificate {
            return Ok(
                json!({ "number": number, "headers": headers, "certificate": Bytes::from(certificate) }),
            );
        }
    }
    Err(not_found(format!("there is no certificate yet that covers block {number}")))
}

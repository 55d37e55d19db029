//! Candidates: who stands as a validator, under which key, and who may not.

use alloy_primitives::{Address, B256, U256};
use surety_types::{
    PublicKey,
    abi::{IStaking, address::STAKING},
};

use super::{bonded_to, pools, slot, tag};
use crate::{
    crypto::is_sound_key,
    host::{GAS_ED25519, Host, Outcome, Slot, refuse, require},
};

/// Operators that stand as validators at a time. When all places are taken, more stake takes the place of the least.
pub(super) const CANDIDATES_MAX: u64 = 256;

/// That an operator was slashed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slash {
    /// Of the conflicting votes: what began to leave before it is not touched.
    pub(super) epoch: u64,
    /// Share that was forfeited.
    pub(super) bps: u64,
}

/// What a validator's or worker's key signs when it is registered.
fn proof_message(what: &str, chain_id: u64, operator: Address, key: &B256) -> Vec<u8> {
    let mut message = format!("surety {what} key v1").into_bytes();
    message.extend(chain_id.to_be_bytes());
    message.extend(operator);
    message.extend(key);
    message
}

/// What a validator's key signs to be registered by an operator.
pub fn validator_proof_message(chain_id: u64, operator: Address, key: &PublicKey) -> Vec<u8> {
    proof_message("validator", chain_id, operator, &key.0.into())
}

/// What a worker's key signs to be registered by an operator.
pub fn worker_proof_message(chain_id: u64, operator: Address, key: &PublicKey) -> Vec<u8> {
    proof_message("worker", chain_id, operator, &key.0.into())
}

/// Refuses a key that its operator cannot be shown to hold.
pub(crate) fn require_proof(
    host: &mut dyn Host,
    what: &'static str,
    operator: Address,
    key: &B256,
    proof: &[u8],
) -> Outcome<()> {
    host.charge(GAS_ED25519)?;
    let Ok(signature) = <&[u8; 64]>::try_from(proof) else {
        return refuse("the proof is not 64 bytes");
    };
    let message = proof_message(what, host.surroundings().chain_id, operator, key);
    require(is_sound_key(&key.0), "the key is no sound ed25519 key")?;
    require(PublicKey(key.0).verifies(&message, signature), "the proof is not the key's signature")
}

fn key_slot(operator: Address) -> Slot {
    slot(tag::KEY, &[operator.as_slice()])
}

fn place_slot(operator: Address) -> Slot {
    slot(tag::CANDIDATE_PLACE, &[operator.as_slice()])
}

pub(super) fn slash_of(host: &mut dyn Host, operator: Address) -> Outcome<Option<Slash>> {
    let [slashed, epoch, bps, _] = host.load_quarters(slot(tag::SLASHED, &[operator.as_slice()]))?;
    Ok((slashed != 0).then_some(Slash { epoch, bps }))
}

pub(super) fn is_slashed(host: &mut dyn Host, operator: Address) -> Outcome<bool> {
    slash_of(host, operator).map(|slash| slash.is_some())
}

pub(super) fn store_slash(host: &mut dyn Host, operator: Address, slash: Slash) -> Outcome<()> {
    host.store_quarters(slot(tag::SLASHED, &[operator.as_slice()]), [1, slash.epoch, slash.bps, 0])
}

/// Whose a validator key is or was; zero if nobody's.
pub(super) fn operator_of(host: &mut dyn Host, key: &B256) -> Outcome<Address> {
    host.load_address(slot(tag::KEY_OPERATOR, &[key.as_slice()]))
}

pub(super) fn key_of(host: &mut dyn Host, operator: Address) -> Outcome<B256> {
    host.load_word(key_slot(operator))
}

pub(super) fn jailed_until(host: &mut dyn Host, operator: Address) -> Outcome<u64> {
    host.load_u64(slot(tag::JAILED_UNTIL, &[operator.as_slice()]))
}

pub(super) fn store_jailed_until(host: &mut dyn Host, operator: Address, until_s: u64) -> Outcome<()> {
    host.store_u64(slot(tag::JAILED_UNTIL, &[operator.as_slice()]), until_s)
}

pub(super) fn all(host: &mut dyn Host) -> Outcome<Vec<Address>> {
    let list = host.page(slot(tag::CANDIDATES, &[]), 0, CANDIDATES_MAX)?;
    Ok(list.into_iter().map(|word| Address::from_word(word.into())).collect())
}

pub(super) fn validator_of(host: &mut dyn Host, operator: Address) -> Outcome<IStaking::Validator> {
    let standing = host.load_u64(place_slot(operator))? != 0;
    let key = key_of(host, operator)?;
    Ok(IStaking::Validator {
        key: if standing { key } else { B256::ZERO },
        bonded: bonded_to(host, operator)?,
        ownBonded: pools::bonded_of(host, operator, operator)?,
        jailedUntil: jailed_until(host, operator)?,
        slashed: is_slashed(host, operator)?,
    })
}

/// Stands under a key, or changes it.
pub(super) fn register(host: &mut dyn Host, operator: Address, key: B256, proof: &[u8]) -> Outcome<()> {
    require_proof(host, "validator", operator, &key, proof)?;
    enter(host, operator, key)
}

/// The registration of a validator at genesis, which needs no proof.
pub(crate) fn register_at_genesis(host: &mut dyn Host, operator: Address, key: B256) -> Outcome<()> {
    enter(host, operator, key)
}

fn enter(host: &mut dyn Host, operator: Address, key: B256) -> Outcome<()> {
    require(!is_slashed(host, operator)?, "the operator was slashed")?;
    let holder = operator_of(host, &key)?;
    require(holder.is_zero() || holder == operator, "the key is another operator's")?;
    let bonded = bonded_to(host, operator)?;
    require(
        bonded >= U256::from(host.params().validator_stake_min),
        "less than the validator's minimum is bonded",
    )?;
    host.store_address(slot(tag::KEY_OPERATOR, &[key.as_slice()]), operator)?;
    host.store_word(key_slot(operator), key)?;
    if host.load_u64(place_slot(operator))? == 0 {
        if host.load_u64(slot(tag::CANDIDATES, &[]))? >= CANDIDATES_MAX {
            displace(host, bonded)?;
        }
        let place = host.push(slot(tag::CANDIDATES, &[]), operator.into_word().into())?;
        host.store_u64(place_slot(operator), place + 1)?;
    }
    host.emit(STAKING, &IStaking::ValidatorRegistered { operator, key })
}

/// Makes room for someone with more stake than the candidate with the least.
fn displace(host: &mut dyn Host, bonded: U256) -> Outcome<()> {
    let mut least: Option<(U256, Address)> = None;
    for operator in all(host)? {
        let candidate = (bonded_to(host, operator)?, operator);
        if least.is_none_or(|least| candidate < least) {
            least = Some(candidate);
        }
    }
    match least {
        Some((stake, operator)) if stake < bonded => leave(host, operator),
        _ => refuse("every place is taken by someone with as much stake"),
    }
}

/// Takes an operator off the list, if it is on it.
pub(super) fn leave(host: &mut dyn Host, operator: Address) -> Outcome<()> {
    let place = host.load_u64(place_slot(operator))?;
    let Some(index) = place.checked_sub(1) else { return Ok(()) };
    if let Some(moved) = host.swap_remove(slot(tag::CANDIDATES, &[]), index)? {
        host.store_u64(place_slot(Address::from_word(moved.into())), place)?;
    }
    host.store_u64(place_slot(operator), 0)?;
    host.emit(STAKING, &IStaking::ValidatorRetired { operator })
}

pub(super) fn retire(host: &mut dyn Host, operator: Address) -> Outcome<()> {
    require(host.load_u64(place_slot(operator))? != 0, "the caller does not stand as a validator")?;
    leave(host, operator)
}

pub(super) fn unjail(host: &mut dyn Host, operator: Address) -> Outcome<()> {
    let until_s = jailed_until(host, operator)?;
    require(until_s != 0, "the caller is not in jail")?;
    require(host.surroundings().timestamp_s >= until_s, "the time in jail is not over")?;
    store_jailed_until(host, operator, 0)?;
    host.emit(STAKING, &IStaking::Unjailed { operator })
}

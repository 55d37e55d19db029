//! Operators: who runs workers, under which keys, for what price.
//!
//! In:     registrations, worker keys with proof of possession, offers.
//! Out:    what anyone may look up: whose key it is, where the worker is reached, what a model costs there.
//! Touches: its own storage.
//! Holds:  a worker key belongs to one operator for ever and stays answerable after it retired; a new key shows that its
//!         operator holds it; whoever registers workers or offers models has the worker's minimum stake; while an operator's
//!         workers are in jail none of them is in service, and nothing but time ends it.
//! Absent: what workers did (`receipts`), stake (`staking`).

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::SolCall as _;
use surety_types::abi::{IOperators, address::OPERATORS};

use super::{Call, PAGE, decode, models, staking, takes_no_value};
use crate::host::{Host, Outcome, Slot, checked, require};

mod tag {
    /// The list of operators.
    pub(super) const OPERATORS: u8 = 1;
    /// Of an operator: height of its registration.
    pub(super) const REGISTERED: u8 = 2;
    pub(super) const NAME: u8 = 3;
    pub(super) const URL: u8 = 4;
    /// Of an operator: the list of its worker keys.
    pub(super) const WORKERS: u8 = 5;
    /// Of a worker key: its operator.
    pub(super) const WORKER_OPERATOR: u8 = 6;
    /// Of a worker key: heights at which it was added and retired.
    pub(super) const WORKER_HEIGHTS: u8 = 7;
    pub(super) const WORKER_ENDPOINT: u8 = 8;
    /// Of an operator: the list of models it offers.
    pub(super) const OFFERS: u8 = 9;
    /// Of an operator and a model: place in that list, from one.
    pub(super) const OFFER_PLACE: u8 = 10;
    /// Of an operator and a model: prices, two slots.
    pub(super) const OFFER: u8 = 11;
    /// Of a model: the list of all that ever offered it: the epoch in which they first did, then who.
    pub(super) const OFFERERS: u8 = 12;
    /// Of an operator and a model: place in that list, from one; the epoch after the one since which it offers it, zero
    /// while it does not.
    pub(super) const OFFERER: u8 = 13;
    /// Of an operator: until when its workers are in jail.
    pub(super) const JAILED_UNTIL: u8 = 14;
}

/// Bytes of a name, a page's address and an endpoint.
const NAME_BYTES_MAX: usize = 64;
const URL_BYTES_MAX: usize = 256;
const ENDPOINT_BYTES_MAX: usize = 256;
/// Keys one operator ever registers.
const WORKERS_MAX: u64 = 4_096;
/// Models one operator offers.
const OFFERS_MAX: u64 = 256;

fn slot(tag: u8, keys: &[&[u8]]) -> Slot {
    Slot::new(OPERATORS, tag, keys)
}

/// Refuses whoever is no operator.
pub(crate) fn require_registered(host: &mut dyn Host, operator: Address) -> Outcome<()> {
    require(is_registered(host, operator)?, "the caller is no registered operator")
}

pub(crate) fn require_stake(host: &mut dyn Host, operator: Address) -> Outcome<()> {
    let bonded = staking::bonded_to(host, operator)?;
    require(bonded >= U256::from(host.params().worker_stake_min), "less than the worker's minimum is bonded")
}

fn require_text(text: &str, bytes_max: usize, reason: &'static str) -> Outcome<()> {
    require(text.len() <= bytes_max && !text.chars().any(char::is_control), reason)
}

pub(super) fn call(host: &mut dyn Host, call: &Call<'_>) -> Outcome<Vec<u8>> {
    use IOperators::IOperatorsCalls as Calls;
    takes_no_value(call)?;
    let caller = call.caller;
    match decode::<Calls>(call)? {
        Calls::register(register) => register_operator(host, caller, register).map(|()| Vec::new()),
        Calls::addWorker(add) => {
            add_worker(host, caller, add.key, add.endpoint, &add.proof).map(|()| Vec::new())
        }
        Calls::setEndpoint(set) => {
            require_text(&set.endpoint, ENDPOINT_BYTES_MAX, "the endpoint is too long or not plain text")?;
            in_service(host, caller, &set.key)?;
            host.store_bytes(slot(tag::WORKER_ENDPOINT, &[set.key.as_slice()]), set.endpoint.as_bytes())?;
            let event =
                IOperators::WorkerEndpointChanged { operator: caller, key: set.key, endpoint: set.endpoint };
            host.emit(OPERATORS, &event)?;
            Ok(Vec::new())
        }
        Calls::rotateWorker(rotate) => {
            retire_worker(host, caller, rotate.retired)?;
            add_worker(host, caller, rotate.key, rotate.endpoint, &rotate.proof).map(|()| Vec::new())
        }
        Calls::retireWorker(retire) => retire_worker(host, caller, retire.key).map(|()| Vec::new()),
        Calls::offer(offer) => make_offer(host, caller, &offer).map(|()| Vec::new()),
        Calls::withdrawOffer(withdraw) => withdraw_offer(host, caller, withdraw.model).map(|()| Vec::new()),
        Calls::operatorOf(get) => {
            let operator = operator_of(host, get.account)?;
            Ok(IOperators::operatorOfCall::abi_encode_returns(&operator))
        }
        Calls::jailedUntil(get) => {
            let until = host.load_u64(jail_slot(get.operator))?;
            Ok(IOperators::jailedUntilCall::abi_encode_returns(&until))
        }
        Calls::worker(get) => Ok(IOperators::workerCall::abi_encode_returns(&worker(host, get.key)?)),
        Calls::operatorCount(_) => {
            let count = host.load_u64(slot(tag::OPERATORS, &[]))?;
            Ok(IOperators::operatorCountCall::abi_encode_returns(&count))
        }
        Calls::operators(get) => {
            let page = host.page(slot(tag::OPERATORS, &[]), get.offset, PAGE)?;
            let accounts = page.into_iter().map(|word| Address::from_word(word.into())).collect();
            Ok(IOperators::operatorsCall::abi_encode_returns(&accounts))
        }
        Calls::workersOf(get) => {
            let mut workers = Vec::new();
            for key in host.page(slot(tag::WORKERS, &[get.operator.as_slice()]), get.offset, PAGE)? {
                workers.push(worker(host, key.into())?);
            }
            Ok(IOperators::workersOfCall::abi_encode_returns(&workers))
        }
        Calls::offersOf(get) => {
            let mut offers = Vec::new();
            for model in host.page(slot(tag::OFFERS, &[get.operator.as_slice()]), get.offset, PAGE)? {
                let model = B256::from(model);
                let at = slot(tag::OFFER, &[get.operator.as_slice(), model.as_slice()]);
                let (prompt, cached) = host.load_halves(at)?;
                let (output, _) = host.load_halves(at.after(1))?;
                offers.push(IOperators::Offer {
                    model,
                    promptPrice: prompt,
                    cachedPrice: cached,
                    outputPrice: output,
                });
            }
            Ok(IOperators::offersOfCall::abi_encode_returns(&offers))
        }
    }
}

fn register_operator(
    host: &mut dyn Host,
    operator: Address,
    register: IOperators::registerCall,
) -> Outcome<()> {
    require_stake(host, operator)?;
    require(!register.name.trim().is_empty(), "an operator has a name")?;
    require_text(&register.name, NAME_BYTES_MAX, "the name is too long or not plain text")?;
    require_text(&register.url, URL_BYTES_MAX, "the url is too long or not plain text")?;
    let registered = slot(tag::REGISTERED, &[operator.as_slice()]);
    if host.load_u64(registered)? == 0 {
        host.store_u64(registered, host.surroundings().number.max(1))?;
        host.push(slot(tag::OPERATORS, &[]), operator.into_word().into())?;
    }
    host.store_bytes(slot(tag::NAME, &[operator.as_slice()]), register.name.as_bytes())?;
    host.store_bytes(slot(tag::URL, &[operator.as_slice()]), register.url.as_bytes())?;
    let event = IOperators::OperatorRegistered { operator, name: register.name, url: register.url };
    host.emit(OPERATORS, &event)
}

fn operator_of(host: &mut dyn Host, operator: Address) -> Outcome<IOperators::Operator> {
    let key = operator.as_slice();
    Ok(IOperators::Operator {
        name: host.load_text(slot(tag::NAME, &[key]), NAME_BYTES_MAX)?,
        url: host.load_text(slot(tag::URL, &[key]), URL_BYTES_MAX)?,
        height: host.load_u64(slot(tag::REGISTERED, &[key]))?,
        workers: host.load_u64(slot(tag::WORKERS, &[key]))?,
        offers: host.load_u64(slot(tag::OFFERS, &[key]))?,
    })
}

fn worker(host: &mut dyn Host, key: B256) -> Outcome<IOperators::Worker> {
    let operator = host.load_address(slot(tag::WORKER_OPERATOR, &[key.as_slice()]))?;
    let [_, _, added_height, retired_height] =
        host.load_quarters(slot(tag::WORKER_HEIGHTS, &[key.as_slice()]))?;
    let endpoint = host.load_text(slot(tag::WORKER_ENDPOINT, &[key.as_slice()]), ENDPOINT_BYTES_MAX)?;
    Ok(IOperators::Worker {
        key,
        operator,
        endpoint,
        addedHeight: added_height,
        retiredHeight: retired_height,
    })
}

fn add_worker(
    host: &mut dyn Host,
    operator: Address,
    key: B256,
    endpoint: String,
    proof: &[u8],
) -> Outcome<()> {
    require_registered(host, operator)?;
    require_stake(host, operator)?;
    require_text(&endpoint, ENDPOINT_BYTES_MAX, "the endpoint is too long or not plain text")?;
    let at = slot(tag::WORKER_OPERATOR, &[key.as_slice()]);
    require(host.load(at)?.is_zero(), "the key was registered before")?;
    staking::require_proof(host, "worker", operator, &key, proof)?;
    host.store_address(at, operator)?;
    let height = host.surroundings().number.max(1);
    host.store_quarters(slot(tag::WORKER_HEIGHTS, &[key.as_slice()]), [0, 0, height, 0])?;
    host.store_bytes(slot(tag::WORKER_ENDPOINT, &[key.as_slice()]), endpoint.as_bytes())?;
    let place = host.push(slot(tag::WORKERS, &[operator.as_slice()]), key.into())?;
    require(place < WORKERS_MAX, "the operator has registered too many keys")?;
    host.emit(OPERATORS, &IOperators::WorkerAdded { operator, key, endpoint })
}

/// Whose a worker's key is, in service or not; zero if nobody's.
pub(crate) fn holder(host: &mut dyn Host, key: &B256) -> Outcome<Address> {
    host.load_address(slot(tag::WORKER_OPERATOR, &[key.as_slice()]))
}

/// On a stage (`replay`): whose a key is.
pub(crate) fn stage(host: &mut dyn Host, key: &B256, operator: Address) -> Outcome<()> {
    host.store_address(slot(tag::WORKER_OPERATOR, &[key.as_slice()]), operator)
}

fn jail_slot(operator: Address) -> Slot {
    slot(tag::JAILED_UNTIL, &[operator.as_slice()])
}

/// Takes an operator's workers out of service for a time; a longer one that is under way stands.
pub(crate) fn jail(host: &mut dyn Host, operator: Address, seconds: u64) -> Outcome<()> {
    let before = host.load_u64(jail_slot(operator))?;
    let until = host.surroundings().timestamp_s.saturating_add(seconds).max(before);
    host.store_u64(jail_slot(operator), until)?;
    host.emit(OPERATORS, &IOperators::WorkersJailed { operator, until })
}

/// Refuses a key that is not the operator's or not in service; the height since which it is.
pub(crate) fn in_service(host: &mut dyn Host, operator: Address, key: &B256) -> Outcome<u64> {
    let added = not_retired(host, operator, key)?;
    require(!is_jailed(host, operator)?, "the operator's workers are in jail")?;
    Ok(added)
}

/// Refuses a key that is not the operator's or is retired; the height at which it was added.
fn not_retired(host: &mut dyn Host, operator: Address, key: &B256) -> Outcome<u64> {
    let holder = host.load_address(slot(tag::WORKER_OPERATOR, &[key.as_slice()]))?;
    require(holder == operator && !holder.is_zero(), "the key is not the caller's")?;
    let [_, _, added, retired] = host.load_quarters(slot(tag::WORKER_HEIGHTS, &[key.as_slice()]))?;
    require(retired == 0, "the key is retired")?;
    Ok(added)
}

fn retire_worker(host: &mut dyn Host, operator: Address, key: B256) -> Outcome<()> {
    let added = not_retired(host, operator, &key)?;
    let height = host.surroundings().number.max(1);
    host.store_quarters(slot(tag::WORKER_HEIGHTS, &[key.as_slice()]), [0, 0, added, height])?;
    host.emit(OPERATORS, &IOperators::WorkerRetired { operator, key })
}

fn make_offer(host: &mut dyn Host, operator: Address, offer: &IOperators::offerCall) -> Outcome<()> {
    require_registered(host, operator)?;
    require_stake(host, operator)?;
    require(models::is_published(host, &offer.model)?, "the model is not published")?;
    // D-2.1: nobody is paid for what nobody can prove false.
    let free = [offer.promptPrice, offer.cachedPrice, offer.outputPrice] == [0; 3];
    require(
        free || models::is_disputable(host, &offer.model)?,
        "what the model says cannot be disputed: it is offered for nothing",
    )?;
    let keys: [&[u8]; 2] = [operator.as_slice(), offer.model.as_slice()];
    let place = slot(tag::OFFER_PLACE, &keys);
    if host.load_u64(place)? == 0 {
        let index = host.push(slot(tag::OFFERS, &[operator.as_slice()]), offer.model.into())?;
        require(index < OFFERS_MAX, "the operator offers too many models")?;
        host.store_u64(place, index + 1)?;
    }
    note_offerer(host, operator, &offer.model)?;
    let at = slot(tag::OFFER, &keys);
    host.store_halves(at, offer.promptPrice, offer.cachedPrice)?;
    host.store_halves(at.after(1), offer.outputPrice, 0)?;
    let event = IOperators::Offered {
        operator,
        model: offer.model,
        promptPrice: offer.promptPrice,
        cachedPrice: offer.cachedPrice,
        outputPrice: offer.outputPrice,
    };
    host.emit(OPERATORS, &event)
}

/// Notes that an operator offers a model from this epoch on. The list of a model's offerers only grows, in the order of
/// epochs, so that who can be drawn from it by an epoch's beacon is settled before the beacon is known.
fn note_offerer(host: &mut dyn Host, operator: Address, model: &B256) -> Outcome<()> {
    let at = slot(tag::OFFERER, &[operator.as_slice(), model.as_slice()]);
    let [_, _, listed, since] = host.load_quarters(at)?;
    if since != 0 {
        return Ok(());
    }
    let now = host.surroundings().epoch;
    let place = if listed == 0 {
        let mut word = [0; 32];
        word[4..12].copy_from_slice(&now.to_be_bytes());
        word[12..].copy_from_slice(operator.as_slice());
        host.push(slot(tag::OFFERERS, &[model.as_slice()]), U256::from_be_bytes(word))? + 1
    } else {
        listed
    };
    host.store_quarters(at, [0, 0, place, checked(now.checked_add(1))?])
}

/// The first epoch in which the offerer at `index` of a model's list offered it, and who it is.
pub(crate) fn offerer(host: &mut dyn Host, model: &B256, index: u64) -> Outcome<(u64, Address)> {
    let list = slot(tag::OFFERERS, &[model.as_slice()]);
    let word = host.load_word(list.after(index.saturating_add(1)))?;
    let mut epoch = [0; 8];
    epoch.copy_from_slice(&word[4..12]);
    Ok((u64::from_be_bytes(epoch), Address::from_slice(&word[12..])))
}

/// How many of a model's offerers had offered it before an epoch began.
pub(crate) fn offerers_before(host: &mut dyn Host, model: &B256, epoch: u64) -> Outcome<u64> {
    let (mut before, mut after) = (0, host.load_u64(slot(tag::OFFERERS, &[model.as_slice()]))?);
    while before < after {
        let middle = before + (after - before) / 2;
        if offerer(host, model, middle)?.0 < epoch {
            before = middle + 1;
        } else {
            after = middle;
        }
    }
    Ok(before)
}

/// Whether an operator's workers are in jail.
pub(crate) fn is_jailed(host: &mut dyn Host, operator: Address) -> Outcome<bool> {
    let until = host.load_u64(jail_slot(operator))?;
    Ok(host.surroundings().timestamp_s < until)
}

/// The key under which an operator serves a model that it has offered since before an epoch, with stake then and now and
/// out of jail; none if it does not.
pub(crate) fn serves_since_before(
    host: &mut dyn Host,
    operator: Address,
    model: &B256,
    epoch: u64,
) -> Outcome<Option<B256>> {
    let at = slot(tag::OFFERER, &[operator.as_slice(), model.as_slice()]);
    let [_, _, _, since] = host.load_quarters(at)?;
    if since == 0 || since > epoch {
        return Ok(None);
    }
    let least = U256::from(host.params().worker_stake_min);
    let staked = staking::bonded_to(host, operator)?.min(staking::bonded_before(host, operator, epoch)?);
    if staked < least || is_jailed(host, operator)? {
        return Ok(None);
    }
    // An account has one worker in service: the newest.
    let workers = slot(tag::WORKERS, &[operator.as_slice()]);
    let count = host.load_u64(workers)?;
    if count == 0 {
        return Ok(None);
    }
    let key = host.load_word(workers.after(count))?;
    let [_, _, _, retired] = host.load_quarters(slot(tag::WORKER_HEIGHTS, &[key.as_slice()]))?;
    Ok((retired == 0).then_some(key))
}

/// Whether an account is a registered operator.
pub(crate) fn is_registered(host: &mut dyn Host, operator: Address) -> Outcome<bool> {
    Ok(host.load_u64(slot(tag::REGISTERED, &[operator.as_slice()]))? != 0)
}

fn withdraw_offer(host: &mut dyn Host, operator: Address, model: B256) -> Outcome<()> {
    let place_of = |model: &B256| slot(tag::OFFER_PLACE, &[operator.as_slice(), model.as_slice()]);
    let place = host.load_u64(place_of(&model))?;
    require(place != 0, "the model is not offered")?;
    if let Some(moved) = host.swap_remove(slot(tag::OFFERS, &[operator.as_slice()]), place - 1)? {
        host.store_u64(place_of(&moved.into()), place)?;
    }
    host.store_u64(place_of(&model), 0)?;
    let offerer = slot(tag::OFFERER, &[operator.as_slice(), model.as_slice()]);
    let [_, _, listed, _] = host.load_quarters(offerer)?;
    host.store_quarters(offerer, [0, 0, listed, 0])?;
    let at = slot(tag::OFFER, &[operator.as_slice(), model.as_slice()]);
    host.store(at, U256::ZERO)?;
    host.store(at.after(1), U256::ZERO)?;
    host.emit(OPERATORS, &IOperators::OfferWithdrawn { operator, model })
}

#[cfg(test)]
mod tests;

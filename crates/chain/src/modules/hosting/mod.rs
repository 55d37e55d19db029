//! Hosting: who keeps the files of which model, shown by audits, paid from what others gave for it.
//!
//! In:     manifests of published models; money for their hosting; pins; openings of the chunks that were drawn.
//! Out:    challenges that everyone computes alike; payments to who opened them; a record of who did and who did not.
//! Touches: its own storage and balance; reads of operators, staking and models.
//! Holds:  its balance is the sum of the pools; a pin is proven at most once in an epoch, with chunks that were not known
//!         when the epoch before ended; no more pins of a model are paid in an epoch than are wanted, and never more
//!         than the pool's part for that epoch; what was not proven in time is missed, though nobody says so.
//! Absent: serving files (`blobs`). A proof shows that its sender could produce the bytes in the epoch, not that it keeps
//!         a copy of its own: two operators may share a disk.
//!
//! Misses. They are counted, not written: every epoch after the one a pin is of, in which it was not proven, is missed. So
//! nothing runs through all pins at an epoch's end.
//!
//! Detection. A challenge draws N = `hosting_chunks` of a model's chunks, each uniformly and independently of the others
//! (all of them if there are no more). A holder that lacks the fraction f of the chunks fails a challenge with
//! probability 1 − (1 − f)ᴺ, and one of k challenges with 1 − (1 − f)ᴺᵏ: with N = 8 and f = 1 %, 7.7 % in one epoch, 95 % in
//! 38, 99.9999 % in 172; with f = 10 %, 57 % in one and 97 % in four. Missing half of the file is seen at once but for one in 256.
//!
//! Bias. A holder in league with whoever chooses among t variants of a beacon (`beacon`) passes with probability
//! 1 − (1 − (1 − f)ᴺ)ᵗ, for all its pins together if it needs all. With s of n validators that is so in s/n of the
//! epochs: over k epochs the detection is at least 1 − (1 − f)^(Nk(1 − s/n)).
//!
//! Money. What is given to a pool is not refunded: it is paid to holders, `hosting_payout_ppm` of the pool in every epoch in
//! which anybody proves, divided by `hosting_replicas`, one part to each of the first so many. Parts that nobody earned
//! stay in the pool, and so does less than a wei for each.

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_sol_types::SolCall as _;
use surety_proof::opening::{FILE_BYTES_MAX, check_opening, chunk_count};
use surety_types::{
    Canonical as _, Digest, Manifest,
    abi::{IHosting, address::HOSTING},
};

use super::{Call, PAGE, beacon, decode, models, operators, takes_no_value};
use crate::host::{GAS_HASH, GAS_HASH_WORD, Host, Outcome, Slot, checked, refuse, require};

mod tag {
    /// Of a model: files, chunks.
    pub(super) const FACTS: u8 = 1;
    /// Of a model and a number: a file's digest and size, two slots.
    pub(super) const FILE: u8 = 2;
    /// Of a model: what was given and is not paid.
    pub(super) const POOL: u8 = 3;
    /// Of a model: the list of operators that pin it.
    pub(super) const PINS: u8 = 4;
    /// Of a model and an operator: place in that list, from one.
    pub(super) const PIN_PLACE: u8 = 5;
    /// Of a model and an operator: worker; since, accounted, proven, missed. Stays when the pin is taken back.
    pub(super) const PIN: u8 = 6;
    /// Of a model: pins to pay in an epoch, that epoch, pins paid in it; then the part of each.
    pub(super) const PAYING: u8 = 7;
    // 8 is the beacons' (`beacon`).
}

/// The whole of a pool, in the unit of `hosting_payout_ppm`.
const WHOLE_PPM: u64 = 1_000_000;
/// Gas of hashing 32 bytes with BLAKE3 is that of Keccak-256; a step of a path hashes two values.
const GAS_STEP: u64 = GAS_HASH + 2 * GAS_HASH_WORD;

fn slot(tag: u8, keys: &[&[u8]]) -> Slot {
    Slot::new(HOSTING, tag, keys)
}

/// A listed model.
#[derive(Debug, Clone, Copy)]
struct Facts {
    files: u64,
    chunks: u64,
}

fn facts(host: &mut dyn Host, model: &B256) -> Outcome<Facts> {
    let [files, chunks, _, _] = host.load_quarters(slot(tag::FACTS, &[model.as_slice()]))?;
    Ok(Facts { files, chunks })
}

fn listed(host: &mut dyn Host, model: &B256) -> Outcome<Facts> {
    let facts = facts(host, model)?;
    require(facts.files != 0, "the model is not listed")?;
    Ok(facts)
}

fn file(host: &mut dyn Host, model: &B256, number: u64) -> Outcome<IHosting::File> {
    let at = slot(tag::FILE, &[model.as_slice(), &number.to_be_bytes()]);
    Ok(IHosting::File { digest: host.load_word(at)?, bytes_: host.load_u64(at.after(1))? })
}

fn files(host: &mut dyn Host, model: &B256, count: u64) -> Outcome<Vec<IHosting::File>> {
    (0..count).map(|number| file(host, model, number)).collect()
}

fn pool(host: &mut dyn Host, model: &B256) -> Outcome<U256> {
    host.load(slot(tag::POOL, &[model.as_slice()]))
}

/// A pin as it is stored.
#[derive(Debug, Clone, Copy)]
struct Pin {
    /// Zero if there is none now.
    worker: B256,
    since: u64,
    /// The last epoch whose outcome is in `proven` and `missed`.
    accounted: u64,
    proven: u64,
    missed: u64,
}

impl Pin {
    fn is_there(&self) -> bool {
        !self.worker.is_zero()
    }

    /// Missed by an epoch, not counting the epoch itself, which may still be proven.
    fn missed_before(&self, epoch: u64) -> u64 {
        self.missed.saturating_add(epoch.saturating_sub(self.accounted.saturating_add(1)))
    }

    fn shown(&self, operator: Address, now: u64) -> IHosting::Pin {
        let there = self.is_there();
        IHosting::Pin {
            operator,
            worker: self.worker,
            since: if there { self.since } else { 0 },
            lastProven: if self.accounted > self.since { self.accounted } else { 0 },
            proven: self.proven,
            missed: if there { self.missed_before(now) } else { self.missed },
        }
    }
}

fn pin_slot(model: &B256, operator: Address) -> Slot {
    slot(tag::PIN, &[model.as_slice(), operator.as_slice()])
}

fn load_pin(host: &mut dyn Host, model: &B256, operator: Address) -> Outcome<Pin> {
    let at = pin_slot(model, operator);
    let worker = host.load_word(at)?;
    let [since, accounted, proven, missed] = host.load_quarters(at.after(1))?;
    Ok(Pin { worker, since, accounted, proven, missed })
}

fn store_pin(host: &mut dyn Host, model: &B256, operator: Address, pin: &Pin) -> Outcome<()> {
    let at = pin_slot(model, operator);
    host.store_word(at, pin.worker)?;
    host.store_quarters(at.after(1), [pin.since, pin.accounted, pin.proven, pin.missed])
}

fn place_slot(model: &B256, operator: Address) -> Slot {
    slot(tag::PIN_PLACE, &[model.as_slice(), operator.as_slice()])
}

pub(super) fn call(host: &mut dyn Host, call: &Call<'_>) -> Outcome<Vec<u8>> {
    use IHosting::IHostingCalls as Calls;
    let decoded = decode::<Calls>(call)?;
    if !matches!(decoded, Calls::fund(_)) {
        takes_no_value(call)?;
    }
    match decoded {
        Calls::list(list) => {
            let model = list_model(host, &list.manifest)?;
            Ok(IHosting::listCall::abi_encode_returns(&model))
        }
        Calls::fund(fund) => give(host, call, fund.model).map(|()| Vec::new()),
        Calls::pin(pin) => make_pin(host, call.caller, pin.model, pin.worker).map(|()| Vec::new()),
        Calls::unpin(unpin) => take_back(host, call.caller, unpin.model).map(|()| Vec::new()),
        Calls::prove(prove) => {
            let paid = prove_pin(host, &prove)?;
            Ok(IHosting::proveCall::abi_encode_returns(&paid))
        }
        Calls::hosted(get) => {
            let Facts { files, chunks } = facts(host, &get.model)?;
            let paying = paying(host, &get.model)?;
            let hosted = IHosting::Hosted {
                files,
                chunks,
                pool: pool(host, &get.model)?,
                pins: host.load_u64(slot(tag::PINS, &[get.model.as_slice()]))?,
                share: if paying.paid < paying.replicas { paying.share } else { U256::ZERO },
                paid: paying.paid,
            };
            Ok(IHosting::hostedCall::abi_encode_returns(&hosted))
        }
        Calls::filesOf(get) => {
            let Facts { files: count, .. } = facts(host, &get.model)?;
            Ok(IHosting::filesOfCall::abi_encode_returns(&files(host, &get.model, count)?))
        }
        Calls::pinsOf(get) => {
            let now = host.surroundings().epoch;
            let mut pins = Vec::new();
            for word in host.page(slot(tag::PINS, &[get.model.as_slice()]), get.offset, PAGE)? {
                let operator = Address::from_word(word.into());
                pins.push(load_pin(host, &get.model, operator)?.shown(operator, now));
            }
            Ok(IHosting::pinsOfCall::abi_encode_returns(&pins))
        }
        Calls::pinOf(get) => {
            let now = host.surroundings().epoch;
            let pin = load_pin(host, &get.model, get.operator)?.shown(get.operator, now);
            Ok(IHosting::pinOfCall::abi_encode_returns(&pin))
        }
        Calls::beacon(_) => {
            let epoch = host.surroundings().epoch;
            let beacon = IHosting::beaconReturn { epoch, beacon_: beacon::of(host, epoch)? };
            Ok(IHosting::beaconCall::abi_encode_returns(&beacon))
        }
        Calls::challenge(get) => {
            let epoch = host.surroundings().epoch;
            let pin = load_pin(host, &get.model, get.operator)?;
            let chunks = if pin.is_there() && pin.since < epoch {
                let facts = listed(host, &get.model)?;
                let files = files(host, &get.model, facts.files)?;
                draw(host, &get.model, &pin.worker, facts.chunks, &files)?
            } else {
                Vec::new()
            };
            Ok(IHosting::challengeCall::abi_encode_returns(&IHosting::challengeReturn { epoch, chunks }))
        }
    }
}

/// Notes the files of a published model.
fn list_model(host: &mut dyn Host, bytes: &[u8]) -> Outcome<B256> {
    // Decoding, encoding again to compare, and hashing; as admission charges.
    host.charge(4 * GAS_HASH_WORD * bytes.len().div_ceil(32) as u64)?;
    let manifest = match Manifest::from_cbor(bytes) {
        Ok(manifest) => manifest,
        Err(error) => return refuse(format!("not a canonical manifest: {error}")),
    };
    let model = B256::from(*manifest.id().0.as_bytes());
    require(models::is_published(host, &model)?, "the model is not published")?;
    require(facts(host, &model)?.files == 0, "the model is listed")?;
    let mut chunks = 0_u64;
    for (number, file) in manifest.files.iter().enumerate() {
        require(file.bytes <= FILE_BYTES_MAX, "a file is too large to be audited")?;
        chunks = checked(chunks.checked_add(chunk_count(file.bytes)))?;
        let at = slot(tag::FILE, &[model.as_slice(), &(number as u64).to_be_bytes()]);
        host.store_word(at, B256::from(file.blake3.0))?;
        host.store_u64(at.after(1), file.bytes)?;
    }
    let files = manifest.files.len() as u64;
    host.store_quarters(slot(tag::FACTS, &[model.as_slice()]), [files, chunks, 0, 0])?;
    host.emit(HOSTING, &IHosting::Listed { model, files, chunks })?;
    Ok(model)
}

/// Adds value that has arrived to a pool.
fn give(host: &mut dyn Host, call: &Call<'_>, model: B256) -> Outcome<()> {
    require(!call.value.is_zero(), "nothing was sent")?;
    listed(host, &model)?;
    let pool = checked(pool(host, &model)?.checked_add(call.value))?;
    host.store(slot(tag::POOL, &[model.as_slice()]), pool)?;
    host.emit(HOSTING, &IHosting::Funded { model, from: call.caller, amount: call.value, pool })
}

fn make_pin(host: &mut dyn Host, operator: Address, model: B256, worker: B256) -> Outcome<()> {
    listed(host, &model)?;
    operators::require_stake(host, operator)?;
    operators::in_service(host, operator, &worker)?;
    let before = load_pin(host, &model, operator)?;
    require(!before.is_there(), "the caller pins the model already")?;
    let now = host.surroundings().epoch;
    store_pin(host, &model, operator, &Pin { worker, since: now, accounted: now, ..before })?;
    let place = host.push(slot(tag::PINS, &[model.as_slice()]), operator.into_word().into())?;
    host.store_u64(place_slot(&model, operator), place + 1)?;
    host.emit(HOSTING, &IHosting::Pinned { model, operator, worker })
}

fn take_back(host: &mut dyn Host, operator: Address, model: B256) -> Outcome<()> {
    let pin = load_pin(host, &model, operator)?;
    require(pin.is_there(), "the caller does not pin the model")?;
    let now = host.surroundings().epoch;
    // The current epoch's challenge is known: who leaves it unanswered has missed it.
    let missed = pin.missed_before(now.saturating_add(1));
    let left = Pin { worker: B256::ZERO, missed, ..pin };
    store_pin(host, &model, operator, &left)?;
    let place = host.load_u64(place_slot(&model, operator))?;
    let index = checked(place.checked_sub(1))?;
    if let Some(moved) = host.swap_remove(slot(tag::PINS, &[model.as_slice()]), index)? {
        host.store_u64(place_slot(&model, Address::from_word(moved.into())), place)?;
    }
    host.store_u64(place_slot(&model, operator), 0)?;
    host.emit(HOSTING, &IHosting::Unpinned { model, operator, proven: pin.proven, missed })
}

/// The chunks of the current epoch's challenge to a worker.
///
/// Each is keccak256(beacon ‖ model ‖ worker ‖ number: u64) modulo the chunks of all files, in their order; integers
/// are big-endian. A chunk can be drawn twice, and is opened twice then. Where there are no more chunks than are drawn, all of
/// them are.
fn draw(
    host: &mut dyn Host,
    model: &B256,
    worker: &B256,
    chunks: u64,
    files: &[IHosting::File],
) -> Outcome<Vec<IHosting::Chunk>> {
    let epoch = host.surroundings().epoch;
    let beacon = beacon::of(host, epoch)?;
    let count = host.params().hosting_chunks;
    let place = |mut index: u64| {
        for (number, file) in files.iter().enumerate() {
            let here = chunk_count(file.bytes_);
            if index < here {
                return Ok(IHosting::Chunk { file: number as u64, index });
            }
            index -= here;
        }
        refuse("the model has fewer chunks")
    };
    if chunks <= count {
        return (0..chunks).map(place).collect();
    }
    let mut drawn = Vec::new();
    let mut bytes = [0; 104];
    bytes[..32].copy_from_slice(beacon.as_slice());
    bytes[32..64].copy_from_slice(model.as_slice());
    bytes[64..96].copy_from_slice(worker.as_slice());
    for number in 0..count {
        host.charge(GAS_HASH + 4 * GAS_HASH_WORD)?;
        bytes[96..].copy_from_slice(&number.to_be_bytes());
        let index = U256::from_be_bytes(keccak256(bytes).0) % U256::from(chunks);
        drawn.push(place(index.saturating_to())?);
    }
    Ok(drawn)
}

/// What a model pays in an epoch.
#[derive(Debug, Clone, Copy)]
struct Paying {
    replicas: u64,
    paid: u64,
    share: U256,
}

/// What a model pays in the current epoch: as it was settled with the first proof, or as it would be settled now.
fn paying(host: &mut dyn Host, model: &B256) -> Outcome<Paying> {
    let at = slot(tag::PAYING, &[model.as_slice()]);
    let [replicas, _, epoch, paid] = host.load_quarters(at)?;
    if replicas != 0 && epoch == host.surroundings().epoch {
        return Ok(Paying { replicas, paid, share: host.load(at.after(1))? });
    }
    let (replicas, ppm) = (host.params().hosting_replicas, host.params().hosting_payout_ppm);
    let part = checked(pool(host, model)?.checked_mul(U256::from(ppm)))? / U256::from(WHOLE_PPM);
    let share = checked(part.checked_div(U256::from(replicas)))?;
    Ok(Paying { replicas, paid: 0, share })
}

fn prove_pin(host: &mut dyn Host, prove: &IHosting::proveCall) -> Outcome<U256> {
    let (model, operator) = (prove.model, prove.operator);
    let now = host.surroundings().epoch;
    require(prove.epoch == now, "the challenge is not of the current epoch")?;
    let facts = listed(host, &model)?;
    let mut pin = load_pin(host, &model, operator)?;
    require(pin.is_there(), "the operator does not pin the model")?;
    require(pin.since < now, "the pin is challenged from the next epoch on")?;
    require(pin.accounted < now, "the pin is proven in this epoch")?;
    operators::require_stake(host, operator)?;
    operators::in_service(host, operator, &pin.worker)?;
    let files = files(host, &model, facts.files)?;
    let chunks = draw(host, &model, &pin.worker, facts.chunks, &files)?;
    require(prove.openings.len() == chunks.len(), "one opening is needed for each chunk of the challenge")?;
    for (chunk, opening) in chunks.iter().zip(&prove.openings) {
        let words = opening.data.len().div_ceil(32) as u64;
        let steps = opening.siblings.len() as u64;
        host.charge(GAS_HASH + GAS_HASH_WORD * words + GAS_STEP * steps)?;
        let file = &files[chunk.file as usize];
        let siblings: Vec<[u8; 32]> = opening.siblings.iter().map(|value| value.0).collect();
        let digest = Digest(file.digest.0);
        if let Err(error) = check_opening(&digest, file.bytes_, chunk.index, &opening.data, &siblings) {
            return refuse(format!("chunk {} of file {} is not proven: {error}", chunk.index, chunk.file));
        }
    }
    pin.missed = pin.missed_before(now);
    pin.proven = checked(pin.proven.checked_add(1))?;
    pin.accounted = now;
    store_pin(host, &model, operator, &pin)?;

    let Paying { replicas, paid, share } = paying(host, &model)?;
    let earned = if paid < replicas { share } else { U256::ZERO };
    let at = slot(tag::PAYING, &[model.as_slice()]);
    host.store(at.after(1), share)?;
    host.store_quarters(at, [replicas, 0, now, paid.saturating_add(u64::from(paid < replicas))])?;
    if !earned.is_zero() {
        let left = checked(pool(host, &model)?.checked_sub(earned))?;
        host.store(slot(tag::POOL, &[model.as_slice()]), left)?;
        host.pay(HOSTING, operator, earned)?;
    }
    host.emit(HOSTING, &IHosting::Proven { model, operator, epoch: now, paid: earned })?;
    Ok(earned)
}

#[cfg(test)]
mod tests;

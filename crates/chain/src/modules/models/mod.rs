//! Models: manifests admitted to the network, and the names people call them by.
//!
//! In:     manifests as canonical CBOR; names.
//! Out:    ids, events that carry the manifests, what every name points at and ever pointed at.
//! Touches: its own storage.
//! Holds:  an id is the digest of its manifest; no model is admitted whose disputes could need too large a leaf, nor one in
//!         a single file without a plan; what cannot be disputed is marked; a name is moved by its holder only, and every
//!         move is kept with its height.
//! Absent: the manifest itself in state: the event has it, and whoever has the id can check it.

mod leaf;

use alloy_primitives::{Address, B256};
use alloy_sol_types::SolCall as _;
use surety_types::{
    Canonical as _, Manifest,
    abi::{IModels, address::MODELS},
};

use super::{Call, PAGE, decode, takes_no_value};
use crate::host::{GAS_HASH_WORD, Host, Outcome, Slot, checked, refuse, require};

pub use leaf::{LeafError, dispute_leaf_bytes};

mod tag {
    /// The list of models.
    pub(super) const MODELS: u8 = 1;
    /// Of a model: publisher.
    pub(super) const PUBLISHER: u8 = 2;
    /// Of a model: height, arithmetic version, leaf bytes, whether it can be disputed.
    pub(super) const FACTS: u8 = 3;
    /// Of a name's hash: holder.
    pub(super) const HOLDER: u8 = 4;
    /// Of a name's hash: versions so far.
    pub(super) const VERSIONS: u8 = 5;
    /// Of a name's hash and a version: model, then height.
    pub(super) const VERSION: u8 = 6;
}

/// Bytes of a name.
const NAME_BYTES_MAX: usize = 64;

fn slot(tag: u8, keys: &[&[u8]]) -> Slot {
    Slot::new(MODELS, tag, keys)
}

pub(crate) fn is_published(host: &mut dyn Host, id: &B256) -> Outcome<bool> {
    Ok(host.load_quarters(slot(tag::FACTS, &[id.as_slice()]))?[0] != 0)
}

/// Whether what a published model says can be disputed.
pub(crate) fn is_disputable(host: &mut dyn Host, id: &B256) -> Outcome<bool> {
    Ok(host.load_quarters(slot(tag::FACTS, &[id.as_slice()]))?[3] != 0)
}

/// Whether the judge can open what a manifest names: one file, by a plan (D-2.1).
fn is_judged(manifest: &Manifest) -> bool {
    manifest.files.len() == 1 && manifest.plan.is_some()
}

pub(super) fn call(host: &mut dyn Host, call: &Call<'_>) -> Outcome<Vec<u8>> {
    use IModels::IModelsCalls as Calls;
    takes_no_value(call)?;
    match decode::<Calls>(call)? {
        Calls::publish(publish) => {
            let (manifest, leaf_bytes) = admit(host, &publish.manifest)?;
            let id = B256::from(*manifest.id().0.as_bytes());
            require(!is_published(host, &id)?, "the model is published")?;
            host.push(slot(tag::MODELS, &[]), id.into())?;
            host.store_address(slot(tag::PUBLISHER, &[id.as_slice()]), call.caller)?;
            let height = host.surroundings().number.max(1);
            let disputable = is_judged(&manifest);
            let facts = [height, manifest.arithmetic.into(), leaf_bytes, disputable.into()];
            host.store_quarters(slot(tag::FACTS, &[id.as_slice()]), facts)?;
            let event = IModels::Published {
                id,
                publisher: call.caller,
                disputeLeafBytes: leaf_bytes,
                manifest: publish.manifest,
            };
            host.emit(MODELS, &event)?;
            Ok(IModels::publishCall::abi_encode_returns(&id))
        }
        Calls::setName(set) => set_name(host, call.caller, set).map(|()| Vec::new()),
        Calls::transferName(transfer) => {
            let hash = name_hash(host, &transfer.name)?;
            let at = slot(tag::HOLDER, &[hash.as_slice()]);
            let holder = host.load_address(at)?;
            require(!holder.is_zero() && holder == call.caller, "the name is not the caller's")?;
            require(!transfer.to.is_zero(), "a name goes to someone")?;
            host.store_address(at, transfer.to)?;
            let event = IModels::NameTransferred { name: transfer.name, from: holder, to: transfer.to };
            host.emit(MODELS, &event)?;
            Ok(Vec::new())
        }
        Calls::model(get) => {
            let publisher = host.load_address(slot(tag::PUBLISHER, &[get.id.as_slice()]))?;
            let [height, arithmetic, leaf_bytes, disputable] =
                host.load_quarters(slot(tag::FACTS, &[get.id.as_slice()]))?;
            let model = IModels::Model {
                publisher,
                height,
                arithmetic: u32::try_from(arithmetic).unwrap_or(u32::MAX),
                disputeLeafBytes: leaf_bytes,
                disputable: disputable != 0,
            };
            Ok(IModels::modelCall::abi_encode_returns(&model))
        }
        Calls::modelCount(_) => {
            let count = host.load_u64(slot(tag::MODELS, &[]))?;
            Ok(IModels::modelCountCall::abi_encode_returns(&count))
        }
        Calls::models(get) => {
            let page = host.page(slot(tag::MODELS, &[]), get.offset, PAGE)?;
            Ok(IModels::modelsCall::abi_encode_returns(&page.into_iter().map(B256::from).collect()))
        }
        Calls::resolve(get) => {
            let hash = name_hash(host, &get.name)?;
            let holder = host.load_address(slot(tag::HOLDER, &[hash.as_slice()]))?;
            let version = host.load_u64(slot(tag::VERSIONS, &[hash.as_slice()]))?;
            let (id, height) = version_of(host, &hash, version)?;
            Ok(IModels::resolveCall::abi_encode_returns(&IModels::Name { holder, id, height, version }))
        }
        Calls::nameHistory(get) => {
            let hash = name_hash(host, &get.name)?;
            let (id, height) = version_of(host, &hash, get.version)?;
            let history = IModels::nameHistoryReturn { id, height };
            Ok(IModels::nameHistoryCall::abi_encode_returns(&history))
        }
        Calls::disputeLeafBytes(get) => {
            let (_, leaf_bytes) = admit(host, &get.manifest)?;
            Ok(IModels::disputeLeafBytesCall::abi_encode_returns(&leaf_bytes))
        }
    }
}

/// Reads a manifest and computes its worst leaf; refuses what may not be admitted.
fn admit(host: &mut dyn Host, bytes: &[u8]) -> Outcome<(Manifest, u64)> {
    // Decoding, encoding again to compare, and hashing.
    host.charge(4 * GAS_HASH_WORD * bytes.len().div_ceil(32) as u64)?;
    let manifest = match Manifest::from_cbor(bytes) {
        Ok(manifest) => manifest,
        Err(error) => return refuse(format!("not a canonical manifest: {error}")),
    };
    let leaf_bytes = match dispute_leaf_bytes(&manifest) {
        Ok(leaf_bytes) => leaf_bytes,
        Err(error) => return refuse(format!("not admitted: {error}")),
    };
    let most = host.params().dispute_leaf_bytes_max;
    if leaf_bytes > most {
        return refuse(format!(
            "not admitted: a dispute could need a leaf of {leaf_bytes} bytes; at most {most} are judged"
        ));
    }
    Ok((manifest, leaf_bytes))
}

/// The hash a name is stored under. Names are lower-case letters, digits, `.`, `-`, `_`, `/`, beginning with a letter or
/// digit, so that no two of them look alike.
fn name_hash(host: &mut dyn Host, name: &str) -> Outcome<B256> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let sound = name.len() <= NAME_BYTES_MAX
        && name.bytes().next().is_some_and(plain)
        && name.bytes().all(|byte| plain(byte) || b".-_/".contains(&byte));
    require(sound, "a name is 1 to 64 of a-z 0-9 . - _ / and begins with a letter or digit")?;
    host.keccak(name.as_bytes())
}

fn version_of(host: &mut dyn Host, name_hash: &B256, version: u64) -> Outcome<(B256, u64)> {
    let at = slot(tag::VERSION, &[name_hash.as_slice(), &version.to_be_bytes()]);
    Ok((host.load_word(at)?, host.load_u64(at.after(1))?))
}

fn set_name(host: &mut dyn Host, caller: Address, set: IModels::setNameCall) -> Outcome<()> {
    require(is_published(host, &set.id)?, "the model is not published")?;
    let hash = name_hash(host, &set.name)?;
    let holder_slot = slot(tag::HOLDER, &[hash.as_slice()]);
    let holder = host.load_address(holder_slot)?;
    if holder.is_zero() {
        host.store_address(holder_slot, caller)?;
    } else {
        require(holder == caller, "the name is not the caller's")?;
    }
    let versions_slot = slot(tag::VERSIONS, &[hash.as_slice()]);
    let version = checked(host.load_u64(versions_slot)?.checked_add(1))?;
    host.store_u64(versions_slot, version)?;
    let at = slot(tag::VERSION, &[hash.as_slice(), &version.to_be_bytes()]);
    host.store_word(at, set.id)?;
    host.store_u64(at.after(1), host.surroundings().number)?;
    host.emit(MODELS, &IModels::NameChanged { name: set.name, id: set.id, owner_: caller, version })
}

#[cfg(test)]
pub(crate) mod tests;

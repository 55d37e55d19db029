//! What is believed, and why: headers by certificates, certificates by validator sets, sets from genesis on.
//!
//! In:     bytes that nobody vouches for.
//! Out:    final headers and proven values; or what is not so.
//! Touches: nothing.
//! Holds:  a header is final only if two thirds of its epoch's validators signed it or a descendant; a set of validators
//!         is known only if the set before it signed it over; a value stands only as proven against a final header.
//! Absent: fetching (`nodes`). Validators of epochs long past who sold their keys: whoever follows the ledger from genesis
//!         believes two thirds of each set, one after the other.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use alloy_primitives::{B256, Bytes};
use surety_chain::{Genesis, ReadCache, StateKey};
use surety_consensus::{
    Certificate, Chain, EpochRecord, GenesisChainError, Header, StateProof, ValidatorSet,
};

use super::{
    Tip,
    error::{Fault, Lie},
    nodes::garbage,
};

/// Headers from a block to its certificate, at most; what nodes keep to.
const HEADERS_MAX: usize = 256;
/// Sets kept at once: of the latest epochs.
const SETS_MAX: usize = 64;

/// Who signs, epoch by epoch.
pub(crate) struct Trust {
    chain: Chain,
    sets: Mutex<BTreeMap<u64, Arc<ValidatorSet>>>,
}

impl Trust {
    /// Begins with the validators whom genesis names.
    pub(crate) fn of_genesis(genesis: &Genesis) -> Result<Self, GenesisChainError> {
        let chain = Chain::without_state(genesis)?;
        let sets = BTreeMap::from([(chain.first_epoch(), Arc::new(chain.validators.clone()))]);
        Ok(Self { chain, sets: Mutex::new(sets) })
    }

    /// The digest of the genesis document.
    pub(crate) fn genesis(&self) -> B256 {
        B256::from(self.chain.document.0)
    }

    fn sets(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<ValidatorSet>>> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The latest epoch whose validators are known.
    pub(crate) fn latest_epoch(&self) -> u64 {
        self.sets().last_key_value().map_or(self.chain.first_epoch(), |(epoch, _)| *epoch)
    }

    /// The validators of an epoch, if they are known.
    pub(crate) fn set(&self, epoch: u64) -> Option<Arc<ValidatorSet>> {
        self.sets().get(&epoch).cloned()
    }

    /// Learns the next epoch's validators from its record.
    pub(crate) fn learn(&self, epoch: u64, header: &Bytes, certificate: &Bytes) -> Result<(), Fault> {
        const METHOD: &str = "surety_epoch";
        let record = EpochRecord {
            header: Header::from_bytes(header.0.clone()).map_err(|why| garbage(METHOD, why))?,
            certificate: Certificate::from_bytes(certificate.0.clone())
                .map_err(|why| garbage(METHOD, why))?,
        };
        let Some(before) = epoch.checked_sub(1).and_then(|before| self.set(before)) else {
            return Err(garbage(METHOD, format!("the epoch before {epoch} is not known")));
        };
        self.check_epoch(&record.header)?;
        let next = record.verify(&self.chain.namespace, &before).map_err(|why| Lie::Epoch { epoch, why })?;
        let mut sets = self.sets();
        sets.insert(epoch, Arc::new(next.clone()));
        while sets.len() > SETS_MAX {
            sets.pop_first();
        }
        Ok(())
    }

    fn check_epoch(&self, header: &Header) -> Result<(), Lie> {
        let (number, epoch) = (header.number, header.epoch());
        if number < self.chain.first || self.chain.epoch_of(number) != epoch {
            return Err(Lie::EpochOf { number, epoch });
        }
        Ok(())
    }

    /// Reads headers that each name the one before, the first of height `number`.
    pub(crate) fn headers(&self, number: u64, encoded: &[Bytes]) -> Result<Vec<Header>, Fault> {
        const METHOD: &str = "surety_certificate";
        if encoded.is_empty() || encoded.len() > HEADERS_MAX {
            return Err(garbage(METHOD, format!("{} headers", encoded.len())));
        }
        let read = |bytes: &Bytes| Header::from_bytes(bytes.0.clone()).map_err(|why| garbage(METHOD, why));
        let headers = encoded.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        if headers[0].number != number {
            return Err(Lie::Headers(headers[0].number).into());
        }
        for header in &headers {
            self.check_epoch(header)?;
        }
        for pair in headers.windows(2) {
            let follows = pair[1].parent_hash() == pair[0].hash()
                && pair[0].number.checked_add(1) == Some(pair[1].number);
            if !follows {
                return Err(Lie::Headers(pair[1].number).into());
            }
        }
        Ok(headers)
    }

    /// Whether a certificate makes the last of `headers`, and so all of them, final. Its epoch's validators must be known.
    pub(crate) fn finality(&self, headers: &[Header], certificate: &Bytes) -> Result<(), Fault> {
        const METHOD: &str = "surety_certificate";
        let last = headers.last().ok_or_else(|| garbage(METHOD, "no headers"))?;
        let certificate =
            Certificate::from_bytes(certificate.0.clone()).map_err(|why| garbage(METHOD, why))?;
        if certificate.block_hash() != last.hash() {
            return Err(Lie::OtherBlock(last.number).into());
        }
        let Some(set) = self.set(last.epoch()) else {
            return Err(garbage(METHOD, format!("the validators of epoch {} are not known", last.epoch())));
        };
        let number = last.number;
        certificate.verify(&self.chain.namespace, &set).map_err(|why| Lie::Certificate { number, why })?;
        Ok(())
    }
}

/// Checks proofs against a header, and keeps what they show. `proofs` are in the order of `keys`.
pub(crate) fn values(
    header: &Header,
    keys: &[StateKey],
    proofs: &[Bytes],
    into: &mut ReadCache,
) -> Result<(), Fault> {
    const METHOD: &str = "surety_proof";
    if proofs.len() != keys.len() {
        return Err(garbage(METHOD, format!("{} proofs of {} values", proofs.len(), keys.len())));
    }
    for (key, proof) in keys.iter().zip(proofs) {
        let proof = StateProof::from_bytes(proof.0.clone()).map_err(|why| garbage(METHOD, why))?;
        let value = proof
            .verify(&header.state_root, key)
            .map_err(|_| Lie::Proof { key: *key, number: header.number })?;
        into.0.insert(*key, value.map(<[u8]>::to_vec));
    }
    Ok(())
}

/// What answers depend on of a header.
pub(crate) fn tip_of(header: &Header) -> Tip {
    Tip {
        number: header.number,
        timestamp_ms: header.timestamp_ms,
        epoch: header.epoch(),
        view: header.view(),
        hash: B256::from(header.hash().0),
        state_root: B256::from(header.state_root.0),
    }
}

//! Models on the ledger: what a name means, what a model is made of, who offers it; and putting them there.
//!
//! In:     names, digits of ids, manifests; an account, where something is to be put there.
//! Out:    ids, manifests and offers; the calls that are missing.
//! Touches: the ledger.
//! Holds:  what a name means and who offers a model is proven; a manifest is any node's word, and counts only if its digest
//!         is the id; lists are bounded.
//! Absent: whether who offers a model has its file (`blobs` audits that), sending.

use alloy_primitives::{Address, B256, Log};
use alloy_sol_types::SolEvent;
use serde_json::{Value, json};
use surety_types::{
    Canonical as _, Digest, Manifest, ModelId, PublicKey,
    abi::{IModels, Module, address::MODELS},
};

use crate::{
    channel::{Account, AccountError, ModuleCall, view},
    ledger::{
        Ledger, LedgerError, Tip, Viewed,
        survey::{MODELS_MAX, SurveyedOperator, pages},
    },
};

/// A model that the ledger has admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// Its identity.
    pub id: ModelId,
    /// Who published it.
    pub publisher: Address,
    /// In which block.
    pub height: u64,
    /// The worst leaf of a dispute about it.
    pub dispute_leaf_bytes: u64,
}

/// A worker whose operator offers a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offering {
    /// Who answers for it.
    pub operator: Address,
    /// As it calls itself.
    pub operator_name: String,
    /// The worker's key.
    pub key: PublicKey,
    /// Where it is, as the operator wrote it: check it with [`crate::Reach`].
    pub endpoint: String,
}

/// Why a model is not found.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The ledger is of no use.
    #[error("the ledger cannot be asked about models")]
    Ledger(#[from] LedgerError),
    /// Nothing there is called so.
    #[error("the ledger knows no model {0}")]
    Unknown(String),
    /// The name means another.
    #[error("{name} is {found} on the ledger, not blake3:{pin}…")]
    Pinned {
        /// The name.
        name: String,
        /// The digits that were asked for.
        pin: String,
        /// What it means.
        found: ModelId,
    },
    /// Several models fit.
    #[error("blake3:{digits} fits several models: {}", listed(found))]
    Ambiguous {
        /// The digits that were asked for.
        digits: String,
        /// What fits.
        found: Vec<ModelId>,
    },
}

impl FindError {
    /// What to do about it, if anything.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            // Its own hint is found behind it.
            Self::Ledger(_) => None,
            Self::Unknown(_) => Some(
                "`surety status` lists the models on the ledger; a file that is not on it is pulled by its whole \
                 BLAKE3, with --from",
            ),
            Self::Pinned { .. } => Some("the name was moved; ask by the id alone, or without it"),
            Self::Ambiguous { .. } => Some("give more digits"),
        }
    }
}

fn listed(ids: &[ModelId]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn digits_of(id: &ModelId) -> String {
    id.0.to_string()
}

impl Ledger {
    /// The model that a name means now. With a pin, lower-case hexadecimal digits, its id must begin with those.
    pub async fn model_named(&self, name: &str, pin: Option<&str>) -> Result<ModelId, FindError> {
        let unknown = || FindError::Unknown(name.to_owned());
        let resolve = IModels::resolveCall { name: name.to_owned() };
        let found = match self.view(MODELS, &resolve).await {
            Ok(found) => found.value,
            // What cannot be a name there is none.
            Err(LedgerError::Reverted { .. }) => return Err(unknown()),
            Err(error) => return Err(error.into()),
        };
        if found.holder.is_zero() {
            return Err(unknown());
        }
        let found = ModelId(Digest(found.id.0));
        match pin {
            Some(pin) if !digits_of(&found).starts_with(pin) => {
                Err(FindError::Pinned { name: name.to_owned(), pin: pin.to_owned(), found })
            }
            _ => Ok(found),
        }
    }

    /// The model whose id, or else the id of the model one of whose files' BLAKE3, begins with these digits.
    pub async fn model_with_digits(&self, digits: &str) -> Result<ModelId, FindError> {
        let ids = self.models().await?;
        let mut found: Vec<ModelId> =
            ids.iter().copied().filter(|id| digits_of(id).starts_with(digits)).collect();
        if found.is_empty() {
            for id in ids {
                let manifest = self.manifest(id).await?;
                let files = manifest.into_iter().flat_map(|manifest| manifest.files);
                if files.into_iter().any(|file| file.blake3.to_string().starts_with(digits)) {
                    found.push(id);
                }
            }
        }
        match found.as_slice() {
            [] => Err(FindError::Unknown(format!("blake3:{digits}"))),
            [id] => Ok(*id),
            _ => Err(FindError::Ambiguous { digits: digits.to_owned(), found }),
        }
    }

    /// Admitted models, at most [`MODELS_MAX`].
    pub async fn models(&self) -> Result<Vec<ModelId>, LedgerError> {
        let ids = self
            .views(|views| pages(MODELS_MAX, |offset| views.call(MODELS, &IModels::modelsCall { offset })));
        Ok(ids.await?.value.into_iter().map(|id| ModelId(Digest(id.0))).collect())
    }

    /// A model, if it is admitted.
    pub async fn model(&self, id: ModelId) -> Result<Option<Admitted>, LedgerError> {
        let model = self.view(MODELS, &IModels::modelCall { id: word(id) }).await?.value;
        let admitted = Admitted {
            id,
            publisher: model.publisher,
            height: model.height,
            dispute_leaf_bytes: model.disputeLeafBytes,
        };
        Ok((model.height != 0).then_some(admitted))
    }

    /// What a model is made of, if it is admitted and a node still has the event that says so.
    pub async fn manifest(&self, id: ModelId) -> Result<Option<Manifest>, LedgerError> {
        let Some(admitted) = self.model(id).await? else { return Ok(None) };
        let block = format!("{:#x}", admitted.height);
        let topics = [IModels::Published::SIGNATURE_HASH, word(id)];
        let filter = json!([{ "address": MODELS, "topics": topics, "fromBlock": block, "toBlock": block }]);
        let logs = match self.unverified("eth_getLogs", filter).await? {
            Value::Array(logs) => logs,
            _ => return Ok(None),
        };
        let manifest = |log: Value| {
            let log: alloy_rpc_types_eth::Log = serde_json::from_value(log).ok()?;
            manifest_in(&log.inner, id)
        };
        Ok(logs.into_iter().find_map(manifest))
    }

    /// The workers in service whose operators offer a model, and as of which block.
    pub async fn offering(&self, id: ModelId) -> Result<(Tip, Vec<Offering>), LedgerError> {
        let Viewed { tip, value: operators } = self.operators().await?;
        let offers =
            |operator: &SurveyedOperator| operator.offers.iter().any(|offer| offer.model == word(id));
        let workers = operators.into_iter().filter(offers).flat_map(|operator| {
            let SurveyedOperator { account, name, workers, .. } = operator;
            workers.into_iter().map(move |(key, endpoint)| Offering {
                operator: account,
                operator_name: name.clone(),
                key: PublicKey(key.0),
                endpoint,
            })
        });
        Ok((tip, workers.collect()))
    }
}

/// The manifest that an event carries, if it is this model's.
fn manifest_in(log: &Log, id: ModelId) -> Option<Manifest> {
    let event = IModels::Published::decode_log(log).ok()?;
    let manifest = Manifest::from_cbor(&event.data.manifest).ok()?;
    (log.address == MODELS && manifest.id() == id).then_some(manifest)
}

fn word(id: ModelId) -> B256 {
    B256::from(id.0.0)
}

/// The call that has a manifest admitted; none if it is.
pub async fn publication(
    account: &dyn Account,
    manifest: &Manifest,
) -> Result<Option<ModuleCall>, AccountError> {
    let known = view(account, Module::Models, &IModels::modelCall { id: word(manifest.id()) }).await?;
    let publish = IModels::publishCall { manifest: manifest.to_cbor().into() };
    Ok((known.height == 0).then(|| ModuleCall::new(Module::Models, &publish)))
}

/// How a name stands towards a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Naming {
    /// It points there.
    Points,
    /// It is nobody's: this call takes it.
    Free(ModuleCall),
    /// It is the account's own and points at another model: this call moves it.
    Elsewhere(ModelId, ModuleCall),
    /// It is somebody else's.
    Taken(Address),
}

/// How a name stands towards a model, for this account. What cannot be a name the ledger refuses.
pub async fn naming(account: &dyn Account, name: &str, id: ModelId) -> Result<Naming, AccountError> {
    let resolved = view(account, Module::Models, &IModels::resolveCall { name: name.to_owned() }).await?;
    let set = IModels::setNameCall { name: name.to_owned(), id: word(id) };
    let call = ModuleCall::new(Module::Models, &set);
    Ok(if resolved.holder.is_zero() {
        Naming::Free(call)
    } else if resolved.id == word(id) {
        Naming::Points
    } else if resolved.holder == account.address() {
        Naming::Elsewhere(ModelId(Digest(resolved.id.0)), call)
    } else {
        Naming::Taken(resolved.holder)
    })
}

/// The worst leaf of a dispute about a model, as admission computes it; the ledger refuses what it does not admit.
pub async fn dispute_leaf_bytes(account: &dyn Account, manifest: &Manifest) -> Result<u64, AccountError> {
    let call = IModels::disputeLeafBytesCall { manifest: manifest.to_cbor().into() };
    view(account, Module::Models, &call).await
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{Bytes, LogData};
    use surety_types::{FileDigest, FormatSummary, abi::address::OPERATORS};

    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            name: "sample".into(),
            files: vec![FileDigest { name: "sample.gguf".into(), bytes: 5, blake3: Digest([3; 32]) }],
            architecture: "llama".into(),
            layers: 1,
            width: 64,
            heads: 2,
            kv_heads: 1,
            head_dim: 32,
            feed_forward: 128,
            vocabulary: 100,
            context: 64,
            formats: vec![FormatSummary { name: "F32".into(), tensors: 3, bytes: 12 }],
            tokenizer_digest: Digest([4; 32]),
            template_digest: None,
            arithmetic: 1,
            rotary_digest: Digest([5; 32]),
            plan: None,
            claims: None,
        }
    }

    fn log(id: ModelId, bytes: Vec<u8>) -> Log {
        let event = IModels::Published {
            id: word(id),
            publisher: Address::ZERO,
            disputeLeafBytes: 1,
            manifest: Bytes::from(bytes),
        };
        Log { address: MODELS, data: event.encode_log_data() }
    }

    #[test]
    fn a_nodes_manifest_counts_only_if_it_is_the_models() {
        let id = manifest().id();
        assert_eq!(manifest_in(&log(id, manifest().to_cbor()), id), Some(manifest()));
        let other = Manifest { context: 65, ..manifest() };
        assert_eq!(manifest_in(&log(id, other.to_cbor()), id), None);
        let mut longer = manifest().to_cbor();
        longer.push(0);
        assert_eq!(manifest_in(&log(id, longer), id), None);
        assert_eq!(manifest_in(&log(id, vec![0xff; 40]), id), None);
        let elsewhere = Log { address: OPERATORS, ..log(id, manifest().to_cbor()) };
        assert_eq!(manifest_in(&elsewhere, id), None);
        let rubbish = Log { address: MODELS, data: LogData::new_unchecked(vec![], Bytes::from(vec![1; 9])) };
        assert_eq!(manifest_in(&rubbish, id), None);
    }
}

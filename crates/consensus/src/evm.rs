//! The law of the real chain: `surety_chain` as consensus asks for it.
//!
//! In:     blocks as consensus places them; the running binary's version.
//! Out:    the chain's results, and a stop where the chain goes on with another binary.
//! Touches: nothing.
//! Holds:  no block is executed by a version the chain did not choose for it.
//! Absent: every rule of execution.

use crate::{
    Built, Chain, ChainError, Digest, Effects, Evidence, Law, LawError, Member, Place, Step, ValidatorSet,
    VoteKind, public_key, public_key_bytes,
};
use alloy_primitives::B256;
use bytes::Bytes;
use std::sync::Arc;
use surety_chain::{
    BlockInput, ChainSpec, Executed, Execution, ExecutionError, Exported, Genesis, GenesisError, Header,
    Recovered, RegenesisError, StateKey, StateReader, StateValue, genesis_writes, regenesis_writes,
};

/// The chain's law, as one binary applies it.
#[derive(Clone, Debug)]
pub struct EvmLaw {
    spec: ChainSpec,
    version: String,
    binary: Option<B256>,
}

impl EvmLaw {
    /// The law of a chain for software that calls itself `version`, and whose SHA-256 is `binary` where that is known.
    pub fn new(spec: ChainSpec, version: impl Into<String>, binary: Option<B256>) -> Self {
        Self { spec, version: version.into(), binary }
    }

    /// Refuses a block that belongs to another version.
    fn check_version(&self, reader: &dyn StateReader, number: u64) -> Result<Step<()>, LawError> {
        match surety_chain::upgrade_plan(reader).map_err(law_error)? {
            Execution::Needs(keys) => Ok(Step::Needs(keys)),
            Execution::Done(plan) => match *plan {
                Some(plan) => plan
                    .check(number, &self.version, self.binary.as_ref())
                    .map(Step::Done)
                    .map_err(|needed| LawError::Upgrade(needed.to_string())),
                None => Ok(Step::Done(())),
            },
        }
    }
}

fn header(place: &Place) -> Header {
    Header {
        number: place.number,
        timestamp_ms: place.timestamp_ms,
        epoch: place.epoch,
        view: place.view,
        parent_hash: B256::from(place.parent.0),
        beacon: B256::from(place.beacon.0),
        proposer: place.proposer,
        missed: place.missed.clone(),
    }
}

fn law_error(error: ExecutionError) -> LawError {
    match error {
        ExecutionError::Invalid(invalid) => LawError::Invalid(chain_of(&invalid)),
        corrupt @ ExecutionError::Corrupt { .. } => LawError::Corrupt(chain_of(&corrupt)),
    }
}

/// An error with its causes, for a log line.
fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn step<T>(execution: Execution<T>) -> Step<T> {
    match execution {
        Execution::Needs(keys) => Step::Needs(keys),
        Execution::Done(done) => Step::Done(*done),
    }
}

impl Law for EvmLaw {
    type Transaction = Recovered;
    type Outcome = Executed;

    fn decode(&self, bytes: &[u8]) -> Result<Recovered, LawError> {
        Recovered::decode(bytes).map_err(|error| LawError::Invalid(chain_of(&error)))
    }

    fn encoded(&self, transaction: &Recovered) -> Bytes {
        Bytes::copy_from_slice(transaction.bytes())
    }

    fn hints(&self, place: &Place, transactions: &[Recovered]) -> Vec<StateKey> {
        surety_chain::hints(&self.spec, &header(place), transactions)
    }

    fn execute(
        &self,
        reader: &dyn StateReader,
        place: &Place,
        transactions: &[Recovered],
    ) -> Result<Step<Executed>, LawError> {
        if let Step::Needs(keys) = self.check_version(reader, place.number)? {
            return Ok(Step::Needs(keys));
        }
        let block = BlockInput { header: &header(place), transactions };
        surety_chain::execute(&self.spec, reader, &block).map(step).map_err(law_error)
    }

    fn build(
        &self,
        reader: &dyn StateReader,
        place: &Place,
        candidates: &[Recovered],
        bytes_max: usize,
    ) -> Result<Step<Built<Executed>>, LawError> {
        if let Step::Needs(keys) = self.check_version(reader, place.number)? {
            return Ok(Step::Needs(keys));
        }
        let built = surety_chain::build(&self.spec, reader, &header(place), candidates, bytes_max)
            .map_err(law_error)?;
        Ok(match built {
            Execution::Needs(keys) => Step::Needs(keys),
            Execution::Done(built) => Step::Done(Built { chosen: built.chosen, outcome: built.executed }),
        })
    }

    fn effects<'a>(&self, outcome: &'a Executed) -> Effects<'a> {
        Effects {
            writes: &outcome.writes,
            transactions_root: outcome.transactions_root.0,
            receipts_root: outcome.receipts_root.0,
            gas_used: outcome.gas_used,
            next_validators: outcome.next_validators.as_ref().map(|set| {
                validators(set).expect("the staking module elects a set of keys that have signed")
            }),
        }
    }
}

/// A set of the chain as consensus keeps it; none if it is no set or a key is no key.
fn validators(set: &surety_chain::ValidatorSet) -> Option<ValidatorSet> {
    let members = set
        .members
        .iter()
        .map(|member| {
            Some(Member {
                key: public_key(&member.key.0)?,
                operator: member.operator.into_array(),
                stake: member.stake.to_be_bytes(),
            })
        })
        .collect::<Option<Vec<_>>>()?;
    ValidatorSet::new(set.epoch, members).ok()
}

/// Why a genesis begins no chain.
#[derive(Debug, thiserror::Error)]
pub enum GenesisChainError {
    /// The document does not hold.
    #[error("the genesis document does not hold")]
    Genesis(#[from] GenesisError),
    /// The state it goes on from does not hold.
    #[error("the exported state does not hold")]
    Export(#[from] RegenesisError),
    /// Its validators form no set.
    #[error("the genesis validators form no set")]
    Validators,
    /// The chain cannot begin so.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

impl Chain {
    /// The chain a genesis document begins.
    pub fn of_genesis(genesis: &Genesis) -> Result<Self, GenesisChainError> {
        Self::beginning_with(genesis, genesis_writes(genesis)?)
    }

    /// The chain a genesis document begins that goes on from an exported state.
    pub fn of_export(genesis: &Genesis, exported: &Exported) -> Result<Self, GenesisChainError> {
        Self::beginning_with(genesis, regenesis_writes(genesis, exported)?)
    }

    /// As much of a chain as one must know who only verifies: everything but its first state.
    pub fn without_state(genesis: &Genesis) -> Result<Self, GenesisChainError> {
        Self::beginning_with(genesis, Vec::new())
    }

    fn beginning_with(
        genesis: &Genesis,
        mut writes: Vec<(StateKey, StateValue)>,
    ) -> Result<Self, GenesisChainError> {
        writes.sort_by_key(|(key, _)| *key);
        let chain = Self {
            document: Digest::from(genesis.digest()?.0),
            namespace: genesis.spec().vote_namespace(),
            timestamp_ms: genesis.timestamp_ms,
            epoch_blocks: genesis.epoch_blocks,
            first: genesis.first_block(),
            validators: validators(&genesis.validator_set()).ok_or(GenesisChainError::Validators)?,
            writes: Arc::new(writes),
        };
        chain.check()?;
        Ok(chain)
    }
}

impl Evidence {
    /// The guilty key and its votes, as the staking module takes them.
    pub fn for_staking(&self) -> ([u8; 32], surety_chain::SignedVote, surety_chain::SignedVote) {
        let vote = |vote: &crate::SignedVote| surety_chain::SignedVote {
            kind: match vote.kind {
                VoteKind::Notarize => surety_chain::VoteKind::Notarize,
                VoteKind::Nullify => surety_chain::VoteKind::Nullify,
                VoteKind::Finalize => surety_chain::VoteKind::Finalize,
            },
            message: vote.message.clone(),
            signature: vote.signature,
        };
        (public_key_bytes(&self.key), vote(&self.first), vote(&self.second))
    }
}

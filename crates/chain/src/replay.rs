//! Replay: a dispute once more, from its bundle alone, by the code that judged it.
//!
//! In:     a bundle from a stranger.
//! Out:    each move and what it showed; the verdict; or where the bundle does not hold.
//! Touches: nothing. No ledger is asked: the moves are played on an empty one, whose worker is the operator's that the bundle
//!         names.
//! Holds:  D-8: the verdict is computed by the very module that the ledger runs; a move whose signature, papers, turn, time
//!         or openings do not hold ends the replay; what the ledger is said to have recorded must be what comes out.
//!         Nothing in a bundle makes it panic, and the work is bounded by the gas that each move may cost.
//! Absent: whether the ledger recorded it: who has a node asks it (`client`). Amounts that depend on the operator's stake.
//!
//! Taken from the bundle, and only to be had from the ledger: that the worker's key is the operator's, when each block was,
//! which parameters held, how many challengers had lost before.

use std::{cell::RefCell, collections::BTreeMap};

use alloy_consensus::Transaction as _;
use alloy_primitives::{Address, LogData, TxKind, U256};
use alloy_sol_types::{SolCall as _, SolInterface as _};
use surety_proof::dispute::{Game, Leaf, Node, PlanHeader, Statement, Weighed, opening::CHUNK_BYTES, weigh};
use surety_types::{
    Bundle, BundleMove, BundleParameter, Canonical as _, Manifest, Order, Receipt, Signed,
    abi::{
        IDisputes::{self, IDisputesCalls, Papers},
        Module,
        address::DISPUTES,
    },
};

use crate::{
    host::{Host, Outcome, Slot, Stop, Surroundings},
    modules::{self, Call, disputes, operators},
    params::{PARAMETERS, Params, ParamsError},
    transaction::{Recovered, TransactionError},
};

/// Why a bundle does not show what it is said to show.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// What the ledger recorded cannot be read.
    #[error("what the ledger recorded cannot be read")]
    Recorded,
    /// This software knows no such parameter.
    #[error("this software knows no parameter {0:?}")]
    Parameter(String),
    /// No ledger has such parameters.
    #[error("no ledger has the parameters of the bundle")]
    Parameters(#[source] ParamsError),
    /// A move is no transaction.
    #[error("move {index} is no transaction")]
    Transaction {
        /// Which, from one on.
        index: usize,
        /// Why not.
        #[source]
        source: TransactionError,
    },
    /// A move is something else.
    #[error("move {index} {problem}")]
    Move {
        /// Which, from one on.
        index: usize,
        /// What it is.
        problem: &'static str,
    },
    /// The rules refuse a move.
    #[error("move {index} does not hold: {reason}")]
    Refused {
        /// Which, from one on.
        index: usize,
        /// In the ledger's words.
        reason: String,
    },
    /// It ended because another dispute about the same answer convicted.
    #[error("it ended because other evidence convicted the answer: nothing was judged in it")]
    Overtaken,
    /// What comes out is not what the ledger is said to have recorded.
    #[error("the {field} that comes out is {found}; the bundle says that the ledger recorded {recorded}")]
    Differs {
        /// Which.
        field: &'static str,
        /// By the moves.
        found: String,
        /// By the bundle.
        recorded: String,
    },
}

impl ReplayError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            ReplayError::Parameter(_) => "the bundle is of a newer ledger: use newer software",
            ReplayError::Refused { .. } | ReplayError::Differs { .. } => {
                "the bundle shows nothing; if a node gave it, ask another: `surety dispute replay ID`"
            }
            ReplayError::Overtaken => "replay the dispute that convicted: `surety dispute list` shows it",
            _ => "this is no dispute that a ledger has seen",
        }
    }
}

/// A dispute, played again.
#[derive(Debug, Clone, PartialEq)]
pub struct Replayed {
    /// Every move, in order.
    pub steps: Vec<ReplayedMove>,
    /// What comes out, as the ledger would keep it; amounts that depend on stake and channels are zero.
    pub dispute: IDisputes::Dispute,
}

/// A move, and what it showed.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayedMove {
    /// Height of its block.
    pub number: u64,
    /// Time of its block, Unix milliseconds.
    pub timestamp_ms: u64,
    /// Who signed it.
    pub sender: Address,
    /// The function that was called, by its name.
    pub function: &'static str,
    /// What it showed.
    pub shown: Shown,
    /// The part of the trace that is in question after it, in kilobytes; none where there is no game.
    pub node: Option<Node>,
    /// The word that was judged by it, with everything that it was computed from.
    pub weighed: Option<Box<Weighed>>,
}

/// What a move showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// Papers of an answer with a trace of so many words.
    Papers {
        /// The words.
        words: u64,
    },
    /// A node of the trace, in so many parts, or so many bytes if it was small enough.
    Division {
        /// Parts.
        nodes: usize,
        /// Bytes.
        bytes: usize,
    },
    /// The first part that differs, of so many kilobytes.
    Pick {
        /// Kilobytes.
        chunks: u64,
    },
    /// A word and all it is computed from.
    Word {
        /// Its place in the trace.
        word: u64,
        /// What kind of word it is.
        kind: &'static str,
        /// What the worker's trace has there, and what the arithmetic gives; none where they are the same.
        lie: Option<(u32, u32)>,
    },
    /// That the other side's time was over.
    Time,
    /// What convicts by itself, or by the trace as a whole: the ledger's rule of that name.
    Proof,
}

/// The parameters of a ledger as a bundle has them.
#[must_use]
pub fn bundled_parameters(params: &Params) -> Vec<BundleParameter> {
    let values = PARAMETERS.iter().enumerate();
    let pair = |(index, parameter): (usize, &crate::Parameter)| BundleParameter {
        name: parameter.name.to_owned(),
        value: params.value(index).unwrap_or_default(),
    };
    values.map(pair).collect()
}

fn params(bundle: &Bundle) -> Result<Params, ReplayError> {
    let defaults = Params::default();
    let mut values: Vec<u128> =
        (0..PARAMETERS.len()).map(|index| defaults.value(index).unwrap_or_default()).collect();
    for BundleParameter { name, value } in &bundle.parameters {
        let index = PARAMETERS.iter().position(|parameter| parameter.name == name);
        let place = index.and_then(|index| values.get_mut(index));
        *place.ok_or_else(|| ReplayError::Parameter(name.clone()))? = *value;
    }
    let params = Params::from_values(|index| values.get(index).copied().unwrap_or_default());
    params.check().map_err(ReplayError::Parameters)?;
    Ok(params)
}

/// Plays a dispute again, and compares what comes out with what the ledger is said to have recorded (D-8.3).
///
/// # Errors
/// `ReplayError` if a move does not hold, or something else comes out.
pub fn replay(bundle: &Bundle) -> Result<Replayed, ReplayError> {
    let recorded = IDisputes::disputesCall::abi_decode_returns_validate(&bundle.recorded)
        .map_err(|_| ReplayError::Recorded)?;
    if recorded.state == disputes::OVERTAKEN {
        return Err(ReplayError::Overtaken);
    }
    let mut stage = Stage::new(bundle.chain_id, params(bundle)?);
    let set = operators::stage(&mut stage, &recorded.worker, recorded.operator)
        .and_then(|()| disputes::stage(&mut stage, bundle.id, &recorded, bundle.lost_before));
    set.map_err(|_| ReplayError::Recorded)?;
    let mut steps: Vec<ReplayedMove> = Vec::with_capacity(bundle.moves.len());
    for (index, made) in (1..).zip(&bundle.moves) {
        if steps
            .last()
            .is_some_and(|last| (last.number, last.timestamp_ms) > (made.number, made.timestamp_ms))
        {
            return Err(ReplayError::Move { index, problem: "is older than the one before it" });
        }
        steps.push(stage.play(bundle, index, made)?);
    }
    let dispute = disputes::shown(&mut stage, bundle.id).map_err(|_| ReplayError::Recorded)?;
    compare(&dispute, &recorded)?;
    Ok(Replayed { steps, dispute })
}

/// D-8.3: the fields that follow from the moves. Payee, payments and what is owed depend on stake and channels.
fn compare(found: &IDisputes::Dispute, recorded: &IDisputes::Dispute) -> Result<(), ReplayError> {
    let fields = [
        ("order", found.order.to_string(), recorded.order.to_string()),
        ("receipt", found.receipt.to_string(), recorded.receipt.to_string()),
        ("worker", found.worker.to_string(), recorded.worker.to_string()),
        ("operator", found.operator.to_string(), recorded.operator.to_string()),
        ("challenger", found.challenger.to_string(), recorded.challenger.to_string()),
        ("verdict", found.state.to_string(), recorded.state.to_string()),
        ("turn", found.turn.to_string(), recorded.turn.to_string()),
        ("length of the trace", found.words.to_string(), recorded.words.to_string()),
        ("time of the opening", found.openedAt.to_string(), recorded.openedAt.to_string()),
        ("time of the next move", found.moveUntil.to_string(), recorded.moveUntil.to_string()),
        ("count of moves", found.moves.to_string(), recorded.moves.to_string()),
        ("bond", found.bond.to_string(), recorded.bond.to_string()),
        ("cost of a defence", found.defence.to_string(), recorded.defence.to_string()),
    ];
    match fields.into_iter().find(|(_, found, recorded)| found != recorded) {
        Some((field, found, recorded)) => Err(ReplayError::Differs { field, found, recorded }),
        None => Ok(()),
    }
}

/// An empty ledger on which a dispute is played: its storage, where it stands, the gas of the move under way.
struct Stage {
    surroundings: Surroundings,
    slots: BTreeMap<(Address, U256), U256>,
    gas_used: u64,
}

impl Stage {
    fn new(chain_id: u64, params: Params) -> Stage {
        let surroundings = Surroundings {
            chain_id,
            number: 0,
            timestamp_s: 0,
            epoch: 0,
            params,
            proposer: Address::ZERO,
            vote_namespace: Vec::new(),
            signers: RefCell::default(),
        };
        Stage { surroundings, slots: BTreeMap::new(), gas_used: 0 }
    }

    fn play(
        &mut self,
        bundle: &Bundle,
        index: usize,
        made: &BundleMove,
    ) -> Result<ReplayedMove, ReplayError> {
        let transaction = Recovered::decode(&made.transaction)
            .map_err(|source| ReplayError::Transaction { index, source })?;
        let (envelope, sender) = (transaction.envelope(), transaction.sender());
        let wrong = |problem| Err(ReplayError::Move { index, problem });
        if envelope.chain_id() != Some(bundle.chain_id) {
            return wrong("is of another chain");
        }
        if envelope.kind() != TxKind::Call(DISPUTES) {
            return wrong("is no call of the disputes");
        }
        let refused = |stop| {
            let reason = match stop {
                Stop::OutOfGas => "it takes more gas than a transaction has".to_owned(),
                Stop::Refused(reason) => reason.into_owned(),
            };
            ReplayError::Refused { index, reason }
        };
        self.gas_used = 0;
        self.surroundings.number = made.number;
        self.surroundings.timestamp_s = made.timestamp_ms / 1_000;
        let before = disputes::game(self, bundle.id).ok();
        let call = Call { caller: sender, value: envelope.value(), data: envelope.input() };
        modules::run(Module::Disputes, self, &call).map_err(refused)?;
        let Ok(decoded) = IDisputesCalls::abi_decode(envelope.input()) else {
            return wrong("is no call of the disputes");
        };
        let after = disputes::game(self, bundle.id).ok();
        let weighed = match &decoded {
            IDisputesCalls::leaf(leaf) => before.and_then(|game| weighed(&leaf.papers, &game, &leaf.leaf_)),
            _ => None,
        };
        let (function, shown) = shown(&decoded, weighed.as_ref(), after.as_ref());
        Ok(ReplayedMove {
            number: made.number,
            timestamp_ms: made.timestamp_ms,
            sender,
            function,
            shown,
            node: after.map(|game| game.node()),
            weighed: weighed.map(Box::new),
        })
    }
}

/// What a move that holds has shown.
fn shown(call: &IDisputesCalls, weighed: Option<&Weighed>, after: Option<&Game>) -> (&'static str, Shown) {
    use IDisputesCalls as Calls;
    let name = |signature: &'static str| signature.split('(').next().unwrap_or(signature);
    let division = |nodes: usize, bytes: usize| Shown::Division { nodes, bytes };
    let shown = match call {
        Calls::open(_) => Shown::Papers { words: after.map_or(0, |game| game.tree().bytes() / 4) },
        Calls::root(root) => division(root.nodes.len(), root.data.len()),
        Calls::divide(divide) => division(divide.nodes.len(), divide.data.len()),
        Calls::pick(_) => Shown::Pick { chunks: after.map_or(0, |game| game.node().chunks) },
        Calls::leaf(_) => weighed.map_or(Shown::Proof, |weighed| Shown::Word {
            word: weighed.word,
            kind: weighed.coordinate.kind(),
            lie: (weighed.claimed != weighed.computed).then_some((weighed.claimed, weighed.computed)),
        }),
        Calls::timeOut(_) => Shown::Time,
        _ => Shown::Proof,
    };
    let selector = call.selector();
    let signature = IDisputesCalls::signature_by_selector(selector).unwrap_or("unknown");
    (name(signature), shown)
}

/// What a leaf shows: the ledger has taken it already.
fn weighed(papers: &Papers, game: &Game, leaf: &[u8]) -> Option<Weighed> {
    let (order, _) = Signed::<Order>::peek_value(&papers.order).ok()?;
    let (receipt, _) = Signed::<Receipt>::peek_value(&papers.receipt).ok()?;
    let manifest = Manifest::from_cbor(&papers.manifest).ok()?;
    let first = <&[u8; CHUNK_BYTES as usize]>::try_from(papers.plan.as_ref()).ok()?;
    let header = PlanHeader::parse(first).ok()?;
    let statement = Statement::new(&manifest, &header, &order, &receipt).ok()?;
    weigh(&statement, game, &Leaf::from_cbor(leaf).ok()?).ok()
}

impl Host for Stage {
    fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }

    fn charge(&mut self, gas: u64) -> Outcome<()> {
        self.gas_used = self.gas_used.saturating_add(gas);
        match self.gas_used > self.surroundings.params.transaction_gas_max {
            true => Err(Stop::OutOfGas),
            false => Ok(()),
        }
    }

    fn load(&mut self, slot: Slot) -> Outcome<U256> {
        Ok(self.slots.get(&(slot.module, slot.key)).copied().unwrap_or_default())
    }

    fn store(&mut self, slot: Slot, value: U256) -> Outcome<()> {
        self.slots.insert((slot.module, slot.key), value);
        Ok(())
    }

    fn pay(&mut self, _: Address, _: Address, _: U256) -> Outcome<()> {
        Ok(())
    }

    fn balance(&mut self, _: Address) -> Outcome<U256> {
        Ok(U256::ZERO)
    }

    fn log(&mut self, _: Address, _: LogData) -> Outcome<()> {
        Ok(())
    }
}

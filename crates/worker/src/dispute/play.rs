//! Play: one side's moves, until the ledger has its verdict.
//!
//! In:     a dispute on the ledger; one side's trace.
//! Out:    that side's moves, and what came of them.
//! Touches: the ledger.
//! Holds:  the next move is a function of what the ledger says and of the trace: whoever starts again goes on where it was.
//! Absent: opening a dispute (`accuse`).

use std::time::Duration;

use alloy_primitives::{B256, Bytes, U256};
use alloy_sol_types::SolEvent as _;
use surety_client::{
    Account, AccountError,
    channel::{ModuleCall, view},
    ledger::rechecked::Verdict,
};
use surety_proof::dispute::{
    Division, Game, Turn,
    game::{Answer, answer, division},
    opening::{CHUNK_BYTES, Node},
    rules::{RuleError, Source},
};
use surety_types::{
    Canonical as _, Digest,
    abi::{IDisputes, Module},
    digest::domain,
};
use tokio::time::sleep;

use super::case::Prepared;

/// Between two looks at a dispute in which the other side is to move.
const LOOK_INTERVAL: Duration = Duration::from_millis(400);
/// The turn of a worker that is asked for the prompt's ids (`IDisputes.Dispute.turn`).
const IDS_TURN: u8 = 5;

/// Whose moves are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The worker's, with what opens its state commitment.
    Worker {
        /// The salt of the receipt.
        salt: [u8; 32],
    },
    /// The challenger's.
    Challenger,
}

/// A move of this side, as it is made; for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// The prompt's ids, which the challenger did not know.
    Ids {
        /// Bytes sent.
        bytes: usize,
    },
    /// The first division: of so many nodes or bytes.
    Root {
        /// Bytes sent.
        bytes: usize,
    },
    /// A node was picked.
    Pick {
        /// Chunks that are still in dispute.
        chunks: u64,
    },
    /// The node in dispute was divided.
    Divide {
        /// Bytes sent.
        bytes: usize,
    },
    /// The word was shown in which the traces differ.
    Leaf {
        /// Where in the trace.
        word: u64,
        /// What kind of word it is.
        kind: &'static str,
        /// Bytes shown for it.
        bytes: usize,
    },
    /// The traces are the same, and not the receipt's.
    Claim,
    /// The other side let its time pass.
    TimeOut,
}

/// Why a dispute cannot be played on.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// The ledger is of no use.
    #[error("the ledger does not take part")]
    Ledger(#[from] AccountError),
    /// There is no such dispute.
    #[error("the ledger knows no dispute {0}")]
    Unknown(u64),
    /// The ledger's game is none.
    #[error("the state of dispute {0} cannot be read")]
    Game(u64),
    /// Nothing differs.
    #[error(
        "this side's trace is the worker's, and the receipt says what it says: there is nothing to contest"
    )]
    NothingDiffers,
    /// The leaf cannot be made.
    #[error("the leaf cannot be made")]
    Leaf(#[from] RuleError),
}

/// Plays one side of a dispute to its end. `report` is told each move once it is on the ledger.
///
/// # Errors
/// `PlayError` if it cannot go on; started again, it goes on from where the ledger stands.
pub async fn play(
    account: &dyn Account,
    id: u64,
    side: Side,
    case: &Prepared,
    report: &mut (dyn FnMut(Move) + Send),
) -> Result<Verdict, PlayError> {
    let table = Table { account, id, case };
    loop {
        let dispute = view(account, Module::Disputes, &IDisputes::disputesCall { id }).await?;
        match dispute.state {
            0 => return Err(PlayError::Unknown(id)),
            1 => {}
            state => return Ok(Verdict { state }),
        }
        let is_own =
            matches!((side, dispute.turn), (Side::Worker { .. }, 1 | 3 | 5) | (Side::Challenger, 2 | 4));
        if !is_own {
            if account.moment().await?.timestamp_ms / 1_000 > dispute.moveUntil {
                table.send(ModuleCall::new(Module::Disputes, &IDisputes::timeOutCall { id })).await?;
                report(Move::TimeOut);
            } else {
                sleep(LOOK_INTERVAL).await;
            }
            continue;
        }
        if dispute.turn == IDS_TURN {
            report(table.show_ids().await?);
            continue;
        }
        let (game, state_digest) = table.game().await?;
        let made = match side {
            Side::Worker { salt } => table.divide(&game, salt).await?,
            Side::Challenger => table.challenge(&game, state_digest, &dispute).await?,
        };
        match made {
            Some(made) => report(made),
            // A node has not caught up with what the ledger proves.
            None => sleep(LOOK_INTERVAL).await,
        }
    }
}

/// Waits until the worker has shown the prompt's ids. `None` if the dispute ended without them.
///
/// # Errors
/// `PlayError` if the ledger does not say.
pub async fn shown_ids(
    account: &dyn Account,
    id: u64,
    prompt_digest: &Digest,
) -> Result<Option<Vec<u32>>, PlayError> {
    loop {
        let dispute = view(account, Module::Disputes, &IDisputes::disputesCall { id }).await?;
        if dispute.state != 1 {
            return Ok(None);
        }
        if dispute.turn != IDS_TURN {
            let topics = vec![IDisputes::IdsShown::SIGNATURE_HASH, B256::from(U256::from(id))];
            let logs = account.logs(Module::Disputes, topics).await?;
            let shown = logs.iter().filter_map(|log| IDisputes::IdsShown::decode_log_data(&log.data).ok());
            let own = |ids: &Bytes| Digest::of(domain::PROMPT_IDS, ids) == *prompt_digest;
            if let Some(ids) = shown.map(|shown| shown.ids).find(own) {
                return Ok(Some(ids.as_chunks().0.iter().map(|id| u32::from_le_bytes(*id)).collect()));
            }
        } else if account.moment().await?.timestamp_ms / 1_000 > dispute.moveUntil {
            let call = IDisputes::timeOutCall { id };
            account.send(vec![ModuleCall::new(Module::Disputes, &call)]).await?;
        }
        sleep(LOOK_INTERVAL).await;
    }
}

/// How a dispute that is over ended.
///
/// # Errors
/// `PlayError` if the ledger does not say.
pub async fn verdict(account: &dyn Account, id: u64) -> Result<Verdict, PlayError> {
    let dispute = view(account, Module::Disputes, &IDisputes::disputesCall { id }).await?;
    Ok(Verdict { state: dispute.state })
}

struct Table<'a> {
    account: &'a dyn Account,
    id: u64,
    case: &'a Prepared,
}

impl Table<'_> {
    async fn send(&self, call: ModuleCall) -> Result<(), AccountError> {
        self.account.send(vec![call]).await
    }

    async fn game(&self) -> Result<(Game, B256), PlayError> {
        let game = view(self.account, Module::Disputes, &IDisputes::gameOfCall { id: self.id }).await?;
        let read = Game::from_bytes(&game.game).ok_or(PlayError::Game(self.id))?;
        Ok((read, game.stateDigest))
    }

    /// The worker's move: the ids of its prompt.
    async fn show_ids(&self) -> Result<Move, PlayError> {
        let ids: Vec<u8> = self.case.given_ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let bytes = ids.len();
        let call = IDisputes::showIdsCall { id: self.id, papers: self.case.papers.clone(), ids: ids.into() };
        self.send(ModuleCall::new(Module::Disputes, &call)).await?;
        Ok(Move::Ids { bytes })
    }

    /// The worker's move: the root or a division.
    async fn divide(&self, game: &Game, salt: [u8; 32]) -> Result<Option<Move>, PlayError> {
        let id = self.id;
        let (nodes, data) = match division(self.case.trace.hashed(), game.node()) {
            Division::Nodes(nodes) => (nodes.into_iter().map(B256::from).collect(), Vec::new()),
            Division::Bytes(bytes) => (Vec::new(), bytes),
        };
        let nodes: Vec<B256> = nodes;
        let bytes = 32 * nodes.len() + data.len();
        if game.turn() == Turn::Root {
            let state_digest = B256::from(self.case.state_digest());
            let call = IDisputes::rootCall {
                id,
                salt: salt.into(),
                stateDigest: state_digest,
                nodes,
                data: data.into(),
            };
            self.send(ModuleCall::new(Module::Disputes, &call)).await?;
            return Ok(Some(Move::Root { bytes }));
        }
        let call = IDisputes::divideCall { id, nodes, data: data.into() };
        self.send(ModuleCall::new(Module::Disputes, &call)).await?;
        Ok(Some(Move::Divide { bytes }))
    }

    /// The challenger's move: a pick, the leaf, or a claim. `None` if the worker's division cannot be had yet.
    async fn challenge(
        &self,
        game: &Game,
        state_digest: B256,
        dispute: &IDisputes::Dispute,
    ) -> Result<Option<Move>, PlayError> {
        let Some(theirs) = self.division(game).await? else { return Ok(None) };
        let trace = self.case.trace.hashed();
        match answer(trace, game.node(), &theirs) {
            Answer::Pick { index, value, siblings } => {
                let siblings = siblings.into_iter().map(B256::from).collect();
                let call = IDisputes::pickCall { id: self.id, index, value: value.into(), siblings };
                self.send(ModuleCall::new(Module::Disputes, &call)).await?;
                let (game, _) = self.game().await?;
                Ok(Some(Move::Pick { chunks: game.node().chunks }))
            }
            Answer::Word(word) => {
                let Division::Bytes(bytes) = theirs else { return Err(PlayError::Game(self.id)) };
                let Prepared { rules, strings, trace, papers, .. } = self.case;
                let leaf = trace.leaf(rules, strings, game, &bytes, word)?;
                let kind =
                    rules.layout().coordinate(word).map_or("none", |(coordinate, _)| coordinate.kind());
                let shown = leaf.shown_bytes();
                let call =
                    IDisputes::leafCall { id: self.id, papers: papers.clone(), leaf_: leaf.to_cbor().into() };
                self.send(ModuleCall::new(Module::Disputes, &call)).await?;
                Ok(Some(Move::Leaf { word, kind, bytes: shown }))
            }
            Answer::Same if game.node() == game.tree().root() => {
                let call = self.claim(state_digest).ok_or(PlayError::NothingDiffers)?;
                self.send(call).await?;
                Ok(Some(Move::Claim))
            }
            Answer::Same => {
                tracing::warn!(
                    dispute = self.id,
                    moves = dispute.moves,
                    "a division has another value than its nodes"
                );
                Err(PlayError::NothingDiffers)
            }
        }
    }

    /// What shows that the trace, on which both agree, is not the receipt's (D-5.6, D-7).
    fn claim(&self, state_digest: B256) -> Option<ModuleCall> {
        let Prepared { rules, trace, strings, output_ids, papers, .. } = self.case;
        let chunk = |word: u64| Node { first: 4 * word / CHUNK_BYTES, chunks: 1 };
        let root = trace.hashed().tree().root();
        let layout = rules.layout();
        let differs = |(index, id): &(u64, u32)| trace.word(layout.sampled_at(*index)) != Some(*id);
        if let Some((index, _)) = (0..).zip(output_ids.iter().copied()).find(differs) {
            let trace = trace.hashed().open(root, chunk(layout.sampled_at(index)));
            let ids = strings.open(Source::Output, chunk(index))?;
            let call = IDisputes::claimOutputCall {
                id: self.id,
                papers: papers.clone(),
                index: index as u32,
                trace: opening(trace),
                ids: opening(ids),
            };
            return Some(ModuleCall::new(Module::Disputes, &call));
        }
        if B256::from(self.case.state_digest()) != state_digest {
            let at = layout.state_digest_at();
            let (first, last) = (chunk(at).first, chunk(at + 7).first);
            let trace = trace.hashed().open(root, Node { first, chunks: last - first + 1 });
            let call =
                IDisputes::claimStateCall { id: self.id, papers: papers.clone(), trace: opening(trace) };
            return Some(ModuleCall::new(Module::Disputes, &call));
        }
        if let Some(claim) = &self.case.prompt_claim {
            let call = IDisputes::claimPromptCall {
                id: self.id,
                papers: papers.clone(),
                request: self.case.request.clone().into(),
                template: self.case.shown_template().into(),
                claim: claim.to_cbor().into(),
            };
            return Some(ModuleCall::new(Module::Disputes, &call));
        }
        let call = IDisputes::claimTextCall {
            id: self.id,
            papers: papers.clone(),
            request: self.case.request.clone().into(),
            claim: self.case.text_claim.as_ref()?.to_cbor().into(),
        };
        Some(ModuleCall::new(Module::Disputes, &call))
    }

    /// The worker's last division, as a node tells it, if it is one of the node in dispute.
    async fn division(&self, game: &Game) -> Result<Option<Division>, PlayError> {
        let topics = vec![IDisputes::Divided::SIGNATURE_HASH, B256::from(U256::from(self.id))];
        let logs = self.account.logs(Module::Disputes, topics).await?;
        let divisions = logs.iter().rev().filter_map(|log| {
            let IDisputes::Divided { nodes, data, .. } =
                IDisputes::Divided::decode_log_data(&log.data).ok()?;
            Some(match data.is_empty() {
                true => Division::Nodes(nodes.into_iter().map(|node| node.0).collect()),
                false => Division::Bytes(data.to_vec()),
            })
        });
        Ok(divisions.into_iter().find(|division| game.is_of_node(division)))
    }
}

/// An opening of consecutive chunks, as the ledger takes them.
pub(super) fn opening(opening: surety_proof::dispute::Opening) -> IDisputes::Opening {
    let surety_proof::dispute::Opening { runs, siblings } = opening;
    let (first, data) = runs.into_iter().next().map(|run| (run.first, run.bytes)).unwrap_or_default();
    IDisputes::Opening { first, data: data.into(), siblings: siblings.into() }
}

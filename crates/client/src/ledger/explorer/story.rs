//! A dispute as its story: what was accused, each move, down to the one word, and what it cost whom.
//!
//! In:     the number of a dispute. Out: what the ledger recorded; its moves from their blocks; the judged word with what it was computed
//!         from.
//! Touches: the network, through the ledger.
//! Holds:  the record is proven. The moves are transactions that both sides signed, and are played again by the ledger's own rules
//!         (`chain::replay`): what is told of them is what comes out, or it is said that it does not. Lists are bounded.
//! Absent: words for people beside the place of a word in the model.

use alloy_consensus::Transaction as _;
use alloy_primitives::{U256, hex};
use alloy_sol_types::{SolEvent as _, SolInterface as _};
use serde::Serialize;
use surety_chain::{Replayed, ReplayedMove, Shown, replay};
use surety_proof::dispute::{Operand, Source, Weighed};
use surety_types::{
    Digest, PublicKey, Receipt, Signed,
    abi::{
        IDisputes::{self, IDisputesCalls as Calls},
        address::DISPUTES,
    },
};
use tokio::task::spawn_blocking;

use super::{
    super::{Ledger, LedgerError, Viewed, bundle::Made, error::Fault, rechecked::Verdict},
    words::{Reading, place, reading},
};

/// Values of one operand that are shown.
const VALUES_MAX: usize = 1_024;
/// Words of a kilobyte of a trace.
const CHUNK_WORDS: u64 = 256;

/// The latest disputes.
#[derive(Clone, Debug, Serialize)]
pub struct DisputePage {
    /// The block it is as of, or a few later.
    pub number: u64,
    /// How many there were, listed or not.
    pub count: u64,
    /// The newest first.
    pub disputes: Vec<DisputeRow>,
}

/// A dispute as the ledger has it. Amounts are wei, as decimal text.
#[derive(Clone, Debug, Serialize)]
pub struct DisputeRow {
    /// Its number.
    pub id: u64,
    /// As `IDisputes` numbers states.
    pub state: u8,
    /// The state in words.
    pub said: &'static str,
    /// Whether it goes on.
    pub is_open: bool,
    /// Whether the worker was convicted in it.
    pub is_convicted: bool,
    /// Whose move it is: `worker` or `challenger`.
    pub turn: Option<&'static str>,
    /// Which move: `root`, `pick`, `division`, `leaf`, `ids`.
    pub awaited: Option<&'static str>,
    /// Until when, Unix seconds: who is silent loses.
    pub move_until: Option<u64>,
    /// Who answers for the worker.
    pub operator: String,
    /// The worker's key.
    pub worker: String,
    /// Who accuses.
    pub challenger: String,
    /// By digest.
    pub order: String,
    /// By digest.
    pub receipt: String,
    /// Words of the answer's trace; zero if what was shown needed none.
    pub words: u64,
    /// Moves of the challenger.
    pub moves: u64,
    /// Unix seconds.
    pub opened_at: u64,
    /// What the challenger put up.
    pub bond: String,
    /// What was paid for the answer.
    pub paid: String,
    /// What of the refund waits for its payer.
    pub owed: String,
}

/// A dispute's story.
#[derive(Clone, Debug, Serialize)]
pub struct Story {
    /// The block that the record is as of.
    pub number: u64,
    /// The record, proven.
    pub dispute: DisputeRow,
    /// The answer that is contested, as the worker signed for it; null if that cannot be read.
    pub answer: Option<AnswerView>,
    /// The moves.
    pub steps: Vec<Step>,
    /// Whether all blocks of the moves are proven; else that they are in these is a node's word.
    pub blocks_proven: bool,
    /// Whether the moves, played again by the ledger's rules, give what it recorded.
    pub replayed: bool,
    /// Why not, if they do not.
    pub replay_failure: Option<String>,
    /// The word that was judged, as the judge computed it again here.
    pub leaf: Option<LeafView>,
    /// What the verdict cost whom.
    pub money: Vec<Money>,
}

/// An answer that is contested.
#[derive(Clone, Debug, Serialize)]
pub struct AnswerView {
    /// The model's id.
    pub model: String,
    /// Tokens given.
    pub prompt_tokens: u32,
    /// Tokens put out.
    pub output_tokens: u32,
}

/// A move.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Its block.
    pub block: u64,
    /// Its block's time.
    pub timestamp_ms: u64,
    /// Its transaction.
    pub transaction: String,
    /// Who signed it.
    pub sender: String,
    /// `challenger`, `worker` or `anyone`.
    pub by: &'static str,
    /// The function that was called.
    pub function: &'static str,
    /// Which token or part its arguments name.
    pub index: Option<u64>,
    /// Parts that it shows of the trace.
    pub nodes: Option<u64>,
    /// Bytes that it shows of the trace.
    pub bytes: Option<u64>,
    /// The first word that is in question after it.
    pub first_word: Option<u64>,
    /// How many words are.
    pub words_left: Option<u64>,
}

/// The word that was judged.
#[derive(Clone, Debug, Serialize)]
pub struct LeafView {
    /// Which word of the trace.
    pub word: u64,
    /// Its kind, as `docs/spec/dispute.md` names it (D-6).
    pub kind: &'static str,
    /// Which operation of the model, where.
    pub place: String,
    /// `float`, `integer` or `bits`.
    pub reading: &'static str,
    /// What the worker's trace has.
    pub claimed: Number,
    /// What the arithmetic gives.
    pub computed: Number,
    /// Whether they are not the same.
    pub lied: bool,
    /// What it was computed from, as it was opened.
    pub operands: Vec<OperandView>,
}

/// A word of 32 bits.
#[derive(Clone, Debug, Serialize)]
pub struct Number {
    /// In hexadecimal.
    pub bits: String,
    /// As what it stands for.
    pub value: String,
}

/// Values that a word was computed from.
#[derive(Clone, Debug, Serialize)]
pub struct OperandView {
    /// `trace`, `weights`, `rotary`, `ids` or `spelling`.
    pub of: &'static str,
    /// What the first one is.
    pub what: String,
    /// `float`, `integer` or `bits`.
    pub reading: &'static str,
    /// How many there are.
    pub count: u64,
    /// The first ones.
    pub values: Vec<String>,
}

/// Credits that went from one to another by a verdict.
#[derive(Clone, Debug, Serialize)]
pub struct Money {
    /// `stake` of the operator, or `bond` of the challenger.
    pub from: &'static str,
    /// `payer`, `challenger`, `operator` or `validators`.
    pub to: &'static str,
    /// `refund`, `costs`, `bounty`, `defence`, `forfeited` or `returned`.
    pub why: &'static str,
    /// In wei.
    pub amount: String,
}

impl Ledger {
    /// The latest disputes.
    ///
    /// # Errors
    /// If no node proves them.
    pub async fn dispute_page(&self) -> Result<DisputePage, LedgerError> {
        let number = self.tip().await?.number;
        let found = self.disputes().await?;
        let disputes = found.latest.iter().map(|(id, dispute)| row(*id, dispute)).collect();
        Ok(DisputePage { number, count: found.count, disputes })
    }

    /// The story of a dispute; none if the ledger knows no such dispute.
    ///
    /// # Errors
    /// If no node answers with what holds.
    pub async fn dispute_story(&self, id: u64) -> Result<Option<Story>, LedgerError> {
        let Viewed { tip, value: dispute } = self.view(DISPUTES, &IDisputes::disputesCall { id }).await?;
        if dispute.state == 0 {
            return Ok(None);
        }
        let known = self.known_dispute(id, tip.number, dispute).await?;
        let mut round = self.0.nodes.round();
        while let Some(node) = round.next() {
            match self.0.moves_at(node, &known).await {
                Ok(made) => {
                    round.answered();
                    let bundle = known.bundle(&made);
                    // It computes for a moment.
                    let replayed = spawn_blocking(move || replay(&bundle)).await;
                    let replayed = replayed
                        .map_err(|why| why.to_string())
                        .and_then(|replayed| replayed.map_err(|why| why.to_string()));
                    return Ok(Some(story(id, tip.number, &known.dispute, &made, replayed)));
                }
                // What a node keeps no more is no fault of it.
                Err(fault @ Fault::Refused { .. }) => round.refused(fault),
                Err(fault) => round.failed(fault),
            }
        }
        Err(round.exhausted())
    }
}

fn row(id: u64, dispute: &IDisputes::Dispute) -> DisputeRow {
    let verdict = Verdict { state: dispute.state };
    let is_open = dispute.state == 1;
    let (turn, awaited) = match dispute.turn {
        _ if !is_open => (None, None),
        1 => (Some("worker"), Some("root")),
        2 => (Some("challenger"), Some("pick")),
        3 => (Some("worker"), Some("division")),
        4 => (Some("challenger"), Some("leaf")),
        5 => (Some("worker"), Some("ids")),
        _ => (None, None),
    };
    DisputeRow {
        id,
        state: dispute.state,
        said: verdict.reason(),
        is_open,
        is_convicted: (2..=7).contains(&dispute.state),
        turn,
        awaited,
        move_until: is_open.then_some(dispute.moveUntil),
        operator: dispute.operator.to_string(),
        worker: PublicKey(dispute.worker.0).to_string(),
        challenger: dispute.challenger.to_string(),
        order: Digest(dispute.order.0).to_string(),
        receipt: Digest(dispute.receipt.0).to_string(),
        words: dispute.words,
        moves: dispute.moves,
        opened_at: dispute.openedAt,
        bond: dispute.bond.to_string(),
        paid: dispute.paid.to_string(),
        owed: dispute.owed.to_string(),
    }
}

fn story(
    id: u64,
    number: u64,
    dispute: &IDisputes::Dispute,
    made: &[Made],
    replayed: Result<Replayed, String>,
) -> Story {
    let (played, replay_failure) = match replayed {
        Ok(replayed) => (replayed.steps, None),
        Err(why) => (Vec::new(), Some(why)),
    };
    let weighed = played.iter().find_map(|step| step.weighed.as_deref());
    let leaf = weighed.map(leaf);
    let steps = made.iter().enumerate().map(|(index, made)| step(made, played.get(index), dispute)).collect();
    Story {
        number,
        dispute: row(id, dispute),
        answer: made.first().and_then(answer),
        steps,
        blocks_proven: made.iter().all(|made| made.proven),
        replayed: replay_failure.is_none(),
        replay_failure,
        leaf,
        money: made.iter().flat_map(|made| money(made, dispute)).collect(),
    }
}

fn answer(opening: &Made) -> Option<AnswerView> {
    let receipt = match Calls::abi_decode(opening.entry.transaction.input()).ok()? {
        Calls::open(call) => call.papers.receipt,
        Calls::openAsking(call) => call.papers.receipt,
        Calls::pastEnd(call) => call.papers.receipt,
        Calls::falseStop(call) => call.papers.receipt,
        Calls::twoAnswers(call) => call.first,
        _ => return None,
    };
    let (receipt, _) = Signed::<Receipt>::peek_value(&receipt).ok()?;
    Some(AnswerView {
        model: receipt.model.to_string(),
        prompt_tokens: receipt.prompt_tokens,
        output_tokens: receipt.output_tokens,
    })
}

fn step(made: &Made, played: Option<&ReplayedMove>, dispute: &IDisputes::Dispute) -> Step {
    let transaction = &made.entry.transaction;
    let call = Calls::abi_decode(transaction.input()).ok();
    let signature = call.as_ref().and_then(|call| Calls::signature_by_selector(call.selector()));
    let index = match &call {
        Some(Calls::pick(pick)) => Some(u64::from(pick.index)),
        Some(Calls::claimOutput(claim)) => Some(u64::from(claim.index)),
        Some(Calls::pastEnd(past)) => Some(u64::from(past.index)),
        _ => None,
    };
    let sender = made.sender;
    let (nodes, bytes) = match played.map(|step| &step.shown) {
        Some(Shown::Division { nodes: 0, bytes }) => (None, Some(*bytes as u64)),
        Some(Shown::Division { nodes, .. }) => (Some(*nodes as u64), None),
        _ => (None, None),
    };
    let node = played.and_then(|step| step.node);
    // The last kilobyte may be short.
    let span = node.map(|node| {
        let (first, end) = (node.first * CHUNK_WORDS, node.end() * CHUNK_WORDS);
        (first, end.min(dispute.words.max(first)) - first)
    });
    Step {
        block: made.header.number,
        timestamp_ms: made.header.timestamp_ms,
        transaction: transaction.tx_hash().to_string(),
        sender: sender.map_or_else(String::new, |sender| sender.to_string()),
        by: match sender {
            Some(sender) if sender == dispute.challenger => "challenger",
            Some(sender) if sender == dispute.operator => "worker",
            _ => "anyone",
        },
        function: signature.and_then(|signature| signature.split('(').next()).unwrap_or("unknown"),
        index,
        nodes,
        bytes,
        first_word: span.map(|(first, _)| first),
        words_left: span.map(|(_, words)| words),
    }
}

fn leaf(weighed: &Weighed) -> LeafView {
    let how = reading(&weighed.coordinate, weighed.part);
    let number = |bits: u32| Number { bits: format!("{bits:#010x}"), value: value(how, bits) };
    LeafView {
        word: weighed.word,
        kind: weighed.coordinate.kind(),
        place: place(&weighed.coordinate),
        reading: name(how),
        claimed: number(weighed.claimed),
        computed: number(weighed.computed),
        lied: weighed.claimed != weighed.computed,
        operands: weighed.operands.iter().map(operand).collect(),
    }
}

fn operand(operand: &Operand) -> OperandView {
    let view = |of, what: String, how: Reading, values: &mut dyn ExactSizeIterator<Item = String>| {
        let count = values.len() as u64;
        OperandView { of, what, reading: name(how), count, values: values.take(VALUES_MAX).collect() }
    };
    match operand {
        Operand::Trace { first, words } => {
            let how = reading(first, 0);
            view("trace", place(first), how, &mut words.iter().map(|bits| value(how, *bits)))
        }
        Operand::Weights { format, at, elements } => {
            let what = format!("weights of the model’s file, {format}, from byte {at}");
            view("weights", what, Reading::Float, &mut elements.iter().map(|element| float(*element)))
        }
        Operand::Rotary { first, words } => {
            let what = format!("cosines and sines of positions, from {first}");
            let mut values = words.iter().map(|bits| value(Reading::Float, *bits));
            view("rotary", what, Reading::Float, &mut values)
        }
        Operand::Ids { of, first, ids } => {
            let which = if *of == Source::Output { "ids put out" } else { "ids given" };
            let what = format!("{which}, from {first}");
            view("ids", what, Reading::Integer, &mut ids.iter().map(u32::to_string))
        }
        Operand::Spelling { at, bytes } => {
            let what = format!("what ids spell, from byte {at}");
            view("spelling", what, Reading::Bits, &mut bytes.iter().map(|byte| format!("{byte:02x}")))
        }
    }
}

fn value(how: Reading, bits: u32) -> String {
    match how {
        Reading::Float => float(f32::from_bits(bits)),
        Reading::Integer => bits.to_string(),
        Reading::Bits => hex::encode_prefixed(bits.to_be_bytes()),
    }
}

/// The fewest digits that name it.
fn float(value: f32) -> String {
    format!("{value:?}")
}

fn name(how: Reading) -> &'static str {
    match how {
        Reading::Float => "float",
        Reading::Integer => "integer",
        Reading::Bits => "bits",
    }
}

/// What the events of a move say about credits; what is nothing is left out.
fn money(made: &Made, dispute: &IDisputes::Dispute) -> Vec<Money> {
    let mut found: Vec<(&'static str, &'static str, &'static str, U256)> = Vec::new();
    let logs = made.entry.receipt.logs().iter().filter(|log| log.address == DISPUTES);
    for log in logs {
        if let Ok(event) = IDisputes::Convicted::decode_log_data(&log.data) {
            let told = event.refund.saturating_add(event.costs).saturating_add(event.bounty);
            found.extend([
                ("stake", "payer", "refund", event.refund),
                ("stake", "challenger", "costs", event.costs),
                ("stake", "challenger", "bounty", event.bounty),
                ("stake", "validators", "forfeited", event.slashed.saturating_sub(told)),
                ("bond", "challenger", "returned", dispute.bond),
            ]);
        } else if let Ok(event) = IDisputes::Dismissed::decode_log_data(&log.data) {
            found.extend([
                ("bond", "operator", "defence", event.toOperator),
                ("bond", "validators", "forfeited", event.forfeited),
            ]);
        } else if IDisputes::Overtaken::decode_log_data(&log.data).is_ok() {
            found.push(("bond", "challenger", "returned", dispute.bond));
        }
    }
    let money =
        |(from, to, why, amount): (_, _, _, U256)| Money { from, to, why, amount: amount.to_string() };
    found.into_iter().filter(|(.., amount)| !amount.is_zero()).map(money).collect()
}

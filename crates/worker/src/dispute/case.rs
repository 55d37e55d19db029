//! A case: what either side of a dispute must have at hand.
//!
//! In:     an answer, its signed papers, the model.
//! Out:    the papers as the ledger takes them; the answer's trace.
//! Touches: processor, memory and a folder's disk, for as long as the trace takes.
//! Holds:  who contests an answer computes from the model it names; who defends one computes from whatever it served it
//!         with, which is its own affair.
//! Absent: moves (`play`).

use std::{num::NonZeroUsize, path::PathBuf};

use surety_engine::{Bytes, Model};
use surety_proof::{
    commit::{output_digest, prompt_digest, state_commitment, text_digest},
    dispute::{
        Layout, Statement,
        judge::StatementError,
        opening::{Hashed, Node},
        plan::{self, Plan, PlanHeader},
        prompt::{PromptClaim, find_prompt_fault},
        rules::Rules,
        text::{TextClaim, find_text_fault},
        trace::{Strings, Trace, TraceError},
    },
};
use surety_types::{
    Canonical as _, Channel, DecodeError, Digest, Manifest, OpenError, Order, Prompt, Receipt, Request,
    Signed,
    abi::IDisputes::{self, Papers},
    digest::domain,
};

use crate::{
    machine,
    map::{Scratch, ScratchError},
};

/// Memory for a trace, where the system does not say how much is free.
const TRACE_BYTES_UNKNOWN: u64 = 2 << 30;

/// Where a trace may be, while it is played.
#[derive(Clone, Debug)]
pub struct TraceRoom {
    /// Bytes of memory that it may take.
    pub memory_max: u64,
    /// On whose disk it is if it takes more.
    pub folder: PathBuf,
}

impl TraceRoom {
    /// On this machine: half of the memory that is free, and a folder.
    pub fn here(folder: PathBuf) -> TraceRoom {
        let memory_max = machine::available_memory_bytes().map_or(TRACE_BYTES_UNKNOWN, |bytes| bytes / 2);
        TraceRoom { memory_max, folder }
    }

    /// Bytes for a trace. Of one that is on a disk the values of its tree are in memory all the same, a 128th of it.
    fn bytes(&self, layout: &Layout) -> Result<TraceBytes, CaseError> {
        let (bytes, memory) = (4 * layout.words(), Trace::memory(layout));
        if memory <= self.memory_max {
            return Ok(TraceBytes::Memory(vec![0; bytes as usize]));
        }
        if memory - bytes > self.memory_max {
            return Err(TraceError::Memory { bytes: memory - bytes, max: self.memory_max }.into());
        }
        tracing::info!(bytes, folder = %self.folder.display(), "a trace is larger than memory allows: it is kept on a disk");
        Ok(TraceBytes::Disk(Scratch::new(&self.folder, bytes)?))
    }
}

/// The bytes of a trace.
pub(super) enum TraceBytes {
    Memory(Vec<u8>),
    Disk(Scratch),
}

impl AsRef<[u8]> for TraceBytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            TraceBytes::Memory(bytes) => bytes,
            TraceBytes::Disk(bytes) => bytes.as_ref(),
        }
    }
}

impl AsMut<[u8]> for TraceBytes {
    fn as_mut(&mut self) -> &mut [u8] {
        match self {
            TraceBytes::Memory(bytes) => bytes,
            TraceBytes::Disk(bytes) => bytes.as_mut(),
        }
    }
}

/// An answer that is contested, or may be.
#[derive(Clone, Debug)]
pub struct Case {
    /// The order, COSE bytes.
    pub order: Vec<u8>,
    /// The receipt, COSE bytes.
    pub receipt: Vec<u8>,
    /// The request, canonical CBOR.
    pub request: Vec<u8>,
    /// What the model was given: the prompt's ids, then those resumed from.
    pub given_ids: Vec<u32>,
    /// What it is said to have answered.
    pub output_ids: Vec<u32>,
    /// The text that was sent.
    pub text: String,
    /// Opens the receipt's state commitment, where it is known: payers are given it.
    pub salt: Option<[u8; 32]>,
    /// The channel that the order names, where it is known: who is refunded.
    pub channel: Option<Channel>,
}

/// Why a case cannot be brought before the ledger.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// A paper is not what it should be.
    #[error("the {what} cannot be read")]
    Paper {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: OpenError,
    },
    /// The ids are not those that the receipt commits to.
    #[error("the {0} ids are not those that the receipt commits to")]
    Ids(&'static str),
    /// The text is not the one that the receipt commits to.
    #[error("the text is not the one that the receipt commits to")]
    Text,
    /// The request cannot be read.
    #[error("the request cannot be read")]
    Request(#[source] DecodeError),
    /// The model has no plan.
    #[error("the model has no plan: it cannot be disputed")]
    NoPlan,
    /// The answer cannot be disputed.
    #[error("the answer cannot be disputed")]
    Statement(#[from] StatementError),
    /// The trace cannot be made.
    #[error("the trace cannot be made")]
    Trace(#[from] TraceError),
    /// There is no place for the trace.
    #[error("the trace cannot be kept on a disk")]
    Disk(#[from] ScratchError),
    /// A string is longer than any may be.
    #[error("the model's file is too long to be disputed")]
    TooLong,
}

impl CaseError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            CaseError::Paper { .. } => Some("check the evidence with `surety verify`"),
            CaseError::Ids(_) | CaseError::Text => Some("check the evidence with `surety verify`"),
            CaseError::Trace(TraceError::Memory { .. }) => Some("use a machine with more memory"),
            CaseError::Disk(_) => Some("make room there, or use a data directory on a larger disk"),
            _ => None,
        }
    }
}

/// A case with its trace.
pub struct Prepared {
    pub(super) papers: Papers,
    pub(super) order: Signed<Order>,
    pub(super) receipt: Signed<Receipt>,
    pub(super) request: Vec<u8>,
    pub(super) header: PlanHeader,
    pub(super) rules: Rules,
    pub(super) strings: Strings<File>,
    pub(super) trace: Trace<TraceBytes>,
    pub(super) given_ids: Vec<u32>,
    pub(super) output_ids: Vec<u32>,
    /// What is wrong with the text, if that can be shown.
    pub(super) text_claim: Option<TextClaim>,
    /// What is wrong with the prompt, if that can be shown.
    pub(super) prompt_claim: Option<PromptClaim>,
    /// The model's template.
    pub(super) template: Option<String>,
    pub(super) salt: Option<[u8; 32]>,
    pub(super) channel: Option<Channel>,
}

impl Prepared {
    /// Computes the trace of an answer said to be of `manifest`, from `model` and its `file`, on so many threads, wherever there
    /// is `room` for it.
    ///
    /// `progress` is told how many of how many words there are. It takes seconds for a short answer of a small model, and
    /// grows with the model and with the square of the answer's length.
    ///
    /// # Errors
    /// `CaseError` says what is missing.
    pub fn new(
        case: Case,
        manifest: &Manifest,
        model: &Model,
        file: Bytes,
        threads: NonZeroUsize,
        room: &TraceRoom,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Prepared, CaseError> {
        let paper = |what| move |source| CaseError::Paper { what, source };
        let order = Signed::<Order>::open(&case.order).map_err(paper("order"))?;
        let receipt = Signed::<Receipt>::open(&case.receipt).map_err(paper("receipt"))?;
        if prompt_digest(&case.given_ids) != receipt.prompt_digest {
            return Err(CaseError::Ids("prompt"));
        }
        if output_digest(&case.output_ids) != receipt.output_digest {
            return Err(CaseError::Ids("output"));
        }
        if text_digest(&case.text) != receipt.text_digest {
            return Err(CaseError::Text);
        }
        let request = Request::from_cbor(&case.request).map_err(CaseError::Request)?;
        let plan = model.plan().ok_or(CaseError::NoPlan)?;
        let spelling = model.tokenizer().spelling().map_err(|_| CaseError::NoPlan)?;
        let header = plan.header().clone();
        let statement = Statement::new(manifest, &header, order.value(), receipt.value())?;
        let rules = statement.rules().clone();
        let strings = Strings::new(
            plan.to_bytes(),
            spelling.to_bytes(),
            File(file),
            model.rotary_bytes(),
            &case.given_ids,
            &case.output_ids,
        )
        .ok_or(CaseError::TooLong)?
        .with_grammar(request.grammar.as_deref());
        let bytes = room.bytes(rules.layout())?;
        let trace = Trace::build_in(bytes, &rules, &strings, threads, progress)?;
        let text_claim = find_text_fault(&rules, &strings, &trace, &request, receipt.finish, &case.text)
            .map_err(TraceError::from)?;
        let template = model.template().map(|template| template.source().to_owned());
        let prompt_claim = find_prompt_fault(&rules, &strings, &trace, &request, template.as_deref())
            .map_err(TraceError::from)?;
        let papers = papers(&case, manifest, plan)?;
        let Case { request, given_ids, output_ids, salt, channel, .. } = case;
        Ok(Prepared {
            papers,
            order,
            receipt,
            request,
            header,
            rules,
            strings,
            trace,
            given_ids,
            output_ids,
            text_claim,
            prompt_claim,
            template,
            salt,
            channel,
        })
    }

    /// The template, where the request is a chat, which it renders.
    pub(super) fn shown_template(&self) -> Vec<u8> {
        let chat = Request::from_cbor(&self.request)
            .is_ok_and(|request| matches!(request.prompt, Prompt::Chat { .. }));
        self.template.as_ref().filter(|_| chat).map(|text| text.clone().into_bytes()).unwrap_or_default()
    }

    /// Changes one bit of one word of this side's trace, which `seed` names: so that anyone can watch what becomes of who
    /// accuses falsely. It costs the bond.
    pub fn bend(&mut self, seed: u64) {
        let drawn = Digest::of("surety 2026 false accusation", &seed.to_le_bytes());
        let [low, high] = [0, 8].map(|at| u64::from_le_bytes(std::array::from_fn(|i| drawn.0[at + i])));
        let hashed = self.trace.hashed();
        let mut bytes = hashed.bytes_below(hashed.tree().root()).to_vec();
        let at = (low % bytes.len() as u64) as usize;
        bytes[at] ^= 1 << (high % 8);
        self.trace = Trace::of_bytes(TraceBytes::Memory(bytes)).expect("as long as it was");
    }

    /// Words of the trace.
    pub fn words(&self) -> u64 {
        self.rules.layout().words()
    }

    /// What this side's trace gives as state digest.
    pub fn state_digest(&self) -> [u8; 32] {
        let at = self.rules.layout().state_digest_at();
        let mut digest = [0; 32];
        for (place, word) in digest.chunks_exact_mut(4).zip(at..) {
            let word = self.trace.word(word).expect("a trace has a state digest");
            place.copy_from_slice(&word.to_le_bytes());
        }
        digest
    }

    /// Whether the receipt commits to this side's state digest; none if the salt is not known.
    pub fn is_committed(&self) -> Option<bool> {
        let digest = Digest(self.state_digest());
        let commitment = state_commitment(&self.receipt.worker, &self.salt?, &digest);
        Some(commitment == self.receipt.state_commitment)
    }

    /// The receipt's digest, by which the ledger knows it.
    pub fn receipt_digest(&self) -> Digest {
        Digest::of(domain::RECEIPT, self.receipt.bytes())
    }
}

/// A model's file.
#[derive(Clone)]
pub(super) struct File(Bytes);

impl AsRef<[u8]> for File {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

impl Case {
    /// Whether the receipt commits to other prompt ids than those said here: then the worker is asked for them.
    ///
    /// # Errors
    /// `CaseError` if the receipt cannot be read.
    pub fn is_of_other_ids(&self) -> Result<bool, CaseError> {
        let receipt = Signed::<Receipt>::open(&self.receipt)
            .map_err(|source| CaseError::Paper { what: "receipt", source })?;
        Ok(prompt_digest(&self.given_ids) != receipt.prompt_digest)
    }
}

/// What a dispute about a case is opened with, by whoever does not know its prompt's ids.
pub(super) struct Asking {
    pub(super) papers: Papers,
    pub(super) order: Digest,
    pub(super) receipt: Receipt,
    pub(super) receipt_digest: Digest,
    /// Of the trace.
    pub(super) words: u64,
}

impl Asking {
    pub(super) fn new(case: &Case, manifest: &Manifest, model: &Model) -> Result<Asking, CaseError> {
        let paper = |what| move |source| CaseError::Paper { what, source };
        let order = Signed::<Order>::open(&case.order).map_err(paper("order"))?;
        let receipt = Signed::<Receipt>::open(&case.receipt).map_err(paper("receipt"))?;
        let plan = model.plan().ok_or(CaseError::NoPlan)?;
        let statement = Statement::new(manifest, plan.header(), order.value(), receipt.value())?;
        Ok(Asking {
            papers: papers(case, manifest, plan)?,
            order: order.value().digest(),
            receipt_digest: Digest::of(domain::RECEIPT, receipt.bytes()),
            receipt: receipt.into_parts().0,
            words: statement.layout().words(),
        })
    }
}

fn papers(case: &Case, manifest: &Manifest, plan: &Plan) -> Result<Papers, CaseError> {
    let tree = plan::tree(plan.header());
    let plan = Hashed::new(tree, plan.to_bytes()).open(tree.root(), Node { first: 0, chunks: 1 });
    Ok(IDisputes::Papers {
        order: case.order.clone().into(),
        receipt: case.receipt.clone().into(),
        manifest: manifest.to_cbor().into(),
        plan: plan.runs.into_iter().flat_map(|run| run.bytes).collect::<Vec<u8>>().into(),
        planSiblings: plan.siblings.into(),
    })
}

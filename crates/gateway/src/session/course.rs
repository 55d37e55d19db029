//! Course: one answer on its way, through as many workers as it takes.
//!
//! In:     what each worker sends, and how it ended. Out: what of it is new to the caller; in the end all its parts.
//! Touches: nothing.
//! Holds: : every token is delivered once, and is the same from whoever sends it; the next worker goes on from what
//!         the one before it had signed, and from nothing if that one broke the protocol. Where a worker that fell silent
//!         and others beside it race, whoever speaks first goes on, and the others have no further part.
//! Absent: finding workers (`place`), the order of events (`session`).

use std::{sync::Arc, time::Duration};

use surety_client::{Checked, Completed, Refusal, SessionError};
use surety_types::{
    Amount, Answer, FailureCode, Part, PublicKey, Purpose, Receipt, Request, Signed, TokenLogprob,
};
use tokio::{sync::oneshot, time::Instant};

use super::{
    Event, failure,
    place::{Leg, LegLog, Placement, Wanted},
    restore::Restored,
};
use crate::{
    api::unix_ms,
    error::ApiError,
    route::{Outcome, Worker},
    streams::{Entry, StreamLog},
};

/// Breaks of one answer, before it is given up.
const BREAKS_MAX: usize = 16;
/// Breaks by one worker without a token in between, before it is not asked again …
const BREAKS_EACH: usize = 2;
/// … and of those that were mere silence.
const STALLS_MAX: usize = 4;
/// Workers at one answer at once: before anything is amiss …
const AT_ONCE: usize = 2;
/// … and where the answer was broken off, or whoever had it fell silent.
const AT_ONCE_HURRIED: usize = 3;
/// Times that somebody is asked beside another without anything new in between.
const BESIDE_MAX: u32 = 8;

/// How far an answer is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// Output tokens.
    pub(super) tokens: usize,
    /// Bytes of text.
    pub(super) text: usize,
}

/// One worker's part in an answer, and the evidence of it.
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) answer: Answer,
    pub(crate) part: Part,
    /// What its receipt charges.
    pub(crate) charge: Amount,
}

/// One answer.
#[derive(Debug)]
pub(super) struct Course {
    pub(super) request: Arc<Request>,
    pub(super) choice: u32,
    pub(super) nonce: [u8; 32],
    /// Nobody can go on with what another worker began.
    pub(super) by_word: bool,
    /// It is to be compared with the answer, and not given to the caller.
    pub(super) check: bool,
    /// Tokens of the prompt and of the answer at most, as the first worker accepted them.
    agreed: Option<(u32, u32)>,
    /// What the caller has been given.
    ids: Vec<u32>,
    text: String,
    scored: usize,
    /// What the next worker goes on from.
    signed: Position,
    shares: Vec<Share>,
    /// Workers that broke it off, and how much had been delivered by then.
    failed: Vec<(PublicKey, Position)>,
    /// Workers that are not asked again.
    banned: Vec<PublicKey>,
    pub(super) ended: bool,
    /// Whose parts an answer that has ended is made of.
    ended_by: Vec<PublicKey>,
    /// Who said something of it last.
    pub(super) said_by: Option<PublicKey>,
    /// Those that fell silent, of the workers that failed.
    stalls: u32,
    /// Why it was broken off last.
    pub(super) broke: Option<ApiError>,
    /// Workers at it, by their legs.
    at_it: Vec<(u64, PublicKey)>,
    /// One is being found.
    seeking: Option<Seeking>,
    /// Times that one was asked beside another, since something new came.
    beside: u32,
    /// The leg whose tokens count, once there are any.
    pub(super) leader: tokio::sync::watch::Sender<Option<u64>>,
    /// It began before this gateway did.
    began_before: bool,
    /// Where what is signed for is kept, if it is.
    pub(super) log: Option<StreamLog>,
    /// A leg that fell silent in mid-answer, while another worker is asked beside it.
    silent: Option<Silent>,
    /// When the caller was last given something new.
    delivered_at: Instant,
    waits: Vec<Waited>,
}

/// A worker is being found. Dropped, the search ends.
#[derive(Debug)]
struct Seeking {
    /// Somebody was at the answer when it began.
    beside: bool,
    go_on: Option<oneshot::Sender<()>>,
}

/// A leg that fell silent, and what it had signed by then.
#[derive(Debug)]
struct Silent {
    leg: u64,
    worker: Arc<Worker>,
    /// When its order was sent.
    sent: std::time::Instant,
    share: Share,
}

/// How long a caller waited where one worker took over from another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waited {
    /// From the last that was new until another was sought.
    pub(crate) noticed: Duration,
    /// From then until one had accepted.
    pub(crate) placed: Duration,
    /// From then until something new came.
    pub(crate) began: Duration,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Whole {
    /// Every worker's, in the order of their tokens; the last brought it to its end.
    pub(crate) shares: Vec<Share>,
    pub(crate) prompt_tokens: u32,
    pub(crate) cached_tokens: u32,
    pub(crate) output_tokens: u32,
    /// What was checked of the last part.
    pub(crate) checked: Checked,
    /// Where one worker took over from another.
    pub(crate) waits: Vec<Waited>,
}

impl Course {
    /// Tokens of the prompt, as the first worker accepted them.
    pub(super) fn prompt_tokens(&self) -> u32 {
        self.agreed.map_or(0, |(prompt, _)| prompt)
    }

    pub(super) fn new(request: Arc<Request>, choice: u32, nonce: [u8; 32]) -> Course {
        Course {
            request,
            choice,
            nonce,
            by_word: false,
            check: false,
            agreed: None,
            ids: Vec::new(),
            text: String::new(),
            scored: 0,
            signed: Position::default(),
            shares: Vec::new(),
            failed: Vec::new(),
            banned: Vec::new(),
            ended: false,
            ended_by: Vec::new(),
            said_by: None,
            stalls: 0,
            broke: None,
            at_it: Vec::new(),
            seeking: None,
            beside: 0,
            leader: tokio::sync::watch::Sender::new(None),
            began_before: false,
            log: None,
            silent: None,
            delivered_at: Instant::now(),
            waits: Vec::new(),
        }
    }

    /// The same answer once more, to be compared with it.
    pub(super) fn repeated(&self) -> Course {
        Course { check: true, ..Course::new(Arc::clone(&self.request), self.choice, self.nonce) }
    }

    /// Who has a part in it so far, or may have: whoever has signed something of it, or is at it.
    pub(super) fn workers(&self) -> Vec<PublicKey> {
        let signed = self.shares.iter().map(|share| share.part.worker);
        let at_it = self.at_it.iter().map(|(_, worker)| *worker);
        signed.chain(at_it).chain(self.ended_by.iter().copied()).collect()
    }

    /// The ids and the text that it has come to.
    pub(super) fn said(&self) -> (&[u32], &str) {
        (&self.ids, &self.text)
    }

    /// Tokens of the prompt and of the answer at most, as the first worker accepted them.
    pub(super) fn agreed(&self) -> Option<(u32, u32)> {
        self.agreed
    }

    /// Settles them before one has.
    pub(super) fn agree(&mut self, agreed: Option<(u32, u32)>) {
        self.agreed = agreed;
    }

    /// An answer that was begun before.
    pub(super) fn restored(request: Arc<Request>, restored: Restored) -> Course {
        let Restored { nonce, ids, text, first_byte_ms: _, shares, agreed } = restored;
        Course {
            began_before: !shares.is_empty(),
            signed: Position { tokens: ids.len(), text: text.len() },
            agreed,
            ids,
            text,
            shares,
            ..Course::new(request, 0, nonce)
        }
    }

    /// Workers at it, or being found.
    pub(super) fn legs(&self) -> usize {
        self.at_it.len() + usize::from(self.seeking.is_some())
    }

    /// Whether another worker is to be asked beside those that are at it.
    pub(super) fn has_room(&self) -> bool {
        let hurried = !self.failed.is_empty() || self.silent.is_some() || self.began_before;
        let most = if hurried { AT_ONCE_HURRIED } else { AT_ONCE };
        !self.is_bound() && self.seeking.is_none() && self.at_it.len() < most && self.beside < BESIDE_MAX
    }

    /// Whether only who began the answer can bring it to its end.
    fn is_bound(&self) -> bool {
        self.by_word && !(self.ids.is_empty() && self.text.is_empty())
    }

    /// What another worker goes on from, where one has broken off.
    fn resume_from(&mut self, signed: Position) {
        self.signed = if self.by_word { Position::default() } else { signed };
    }

    /// Whether only one that fell silent is at it, and nobody is sought.
    pub(super) fn is_left_to_silent(&self) -> bool {
        let only = |silent: &Silent| self.at_it.iter().all(|(leg, _)| *leg == silent.leg);
        self.silent.as_ref().is_some_and(only) && self.has_room()
    }

    /// The leg that is due from the caller, if nobody wants the rest of it: who led, or was there first.
    pub(super) fn due(&self) -> Option<u64> {
        let leader = *self.leader.borrow();
        leader.or_else(|| self.at_it.first().map(|(leg, _)| *leg))
    }

    /// A worker was found, or nobody.
    pub(super) fn sought(&mut self) {
        self.seeking = None;
    }

    /// Nobody is at it any more: who was left out because he was may be asked now, and the search begins anew.
    pub(super) fn seek_anew(&mut self) {
        if self.at_it.is_empty()
            && let Some(Seeking { beside: true, go_on }) = &mut self.seeking
        {
            drop(go_on.take());
        }
    }

    /// A worker is at it from now on.
    pub(super) fn joined(&mut self, leg: &Leg) {
        self.at_it.push((leg.id, leg.worker()));
    }

    /// A worker is at it no more.
    pub(super) fn left(&mut self, leg: u64) {
        self.at_it.retain(|(id, _)| *id != leg);
    }

    /// A worker is sought from now on: what is to be asked of it, and what ends when it is to be sought anew. Those that are
    /// at it are not asked again, nor is anyone of the operators of those in `apart`.
    pub(super) fn seek(&mut self, apart: Vec<PublicKey>) -> (Placement, oneshot::Receiver<()>) {
        let from = self.signed;
        let beside = !self.at_it.is_empty();
        let (go_on, ended) = oneshot::channel();
        self.seeking = Some(Seeking { beside, go_on: Some(go_on) });
        self.beside += u32::from(beside);
        let placement = Placement {
            wanted: Wanted {
                request: Arc::clone(&self.request),
                choice: self.choice,
                nonce: self.nonce,
                check: self.check,
                resumed: self.ids[..from.tokens].to_vec(),
                limit: self.agreed.map(|(_, limit)| limit - from.tokens as u32),
            },
            context_tokens_min: self.agreed.map(|(prompt, limit)| prompt + limit),
            from,
            without: self.failed.iter().map(|(worker, _)| *worker).collect(),
            never: self.banned.iter().copied().chain(self.at_it.iter().map(|(_, worker)| *worker)).collect(),
            apart,
            breaks: self.failed.len() as u32 + u32::from(self.began_before),
            stalls: self.stalls,
            beside,
        };
        (placement, ended)
    }

    /// A leg is silent in mid-answer, and another worker is to be asked beside it: whoever speaks first has the answer.
    pub(super) fn race(&mut self, leg: &mut Leg) {
        if leg.at == leg.from {
            return;
        }
        let (signed, answer) = leg.signed();
        let Some(answer) = answer else { return };
        let part = part(leg, &answer, None, self.check);
        let share = Share { answer, part, charge: Amount::ZERO };
        let (worker, sent) = (Arc::clone(&leg.worker), leg.timing.sent());
        self.silent = Some(Silent { leg: leg.id, worker, sent, share });
        self.signed = signed;
        self.leader.send_replace(None);
        leg.raced = true;
    }

    /// A leg has something to say: it has the answer, if nobody else has, and goes on from where it was left off.
    pub(super) fn lead(&mut self, leg: &mut Leg) -> bool {
        if let Some(leader) = *self.leader.borrow() {
            return leader == leg.id;
        }
        match self.silent.take() {
            Some(silent) if silent.leg == leg.id => leg.raced = false,
            Some(silent) if leg.from != self.signed => {
                self.silent = Some(silent);
                return false;
            }
            Some(silent) => {
                silent.worker.report(Outcome::Failed { sent: silent.sent });
                self.failed_by(silent.worker.key(), STALLS_MAX);
                self.shares.push(silent.share);
            }
            None if leg.from != self.signed => return false,
            None => {}
        }
        self.leader.send_replace(Some(leg.id));
        self.keep_leg(leg);
        true
    }

    /// Keeps that a leg's tokens are what the caller is given from now on.
    fn keep_leg(&self, leg: &mut Leg) {
        let (Some(log), None) = (&self.log, &leg.log) else { return };
        let Some(acceptance) = leg.session.so_far().and_then(|answer| answer.acceptance) else { return };
        log.keep(Entry::Leg { order: leg.session.order().bytes().to_vec(), acceptance, at_ms: unix_ms() });
        leg.log = Some(LegLog { log: log.clone(), kept: Position::default() });
    }

    /// Whether a leg runs beside one that only fell silent: then it has no part in the answer yet.
    fn is_beside(&self, leg: &Leg) -> bool {
        self.silent.as_ref().is_some_and(|silent| silent.leg != leg.id)
    }

    /// A worker has accepted the order for the rest.
    pub(super) fn accepted(&mut self, leg: &Leg) -> Result<(), ApiError> {
        let from = leg.from.tokens as u32;
        let (prompt, limit) = (leg.prompt_tokens.saturating_sub(from), leg.max_output_tokens + from);
        let (agreed, _) = *self.agreed.get_or_insert((prompt, limit));
        if agreed != prompt {
            let what = format!("a prompt of {prompt} tokens where {agreed} were counted");
            if self.check && self.before().is_none() {
                return Err(failure::miscounts(leg.worker(), &what));
            }
            return Err(failure::disagreement(leg.worker(), self.before(), &what));
        }
        Ok(())
    }

    /// A piece of the scored prompt, if it is new.
    pub(super) fn prompt(&mut self, index: u32, mut logprobs: Vec<TokenLogprob>) -> Option<Event> {
        let index = index as usize;
        let known = self.scored.saturating_sub(index).min(logprobs.len());
        let logprobs = logprobs.split_off(known);
        self.scored = self.scored.max(index + known + logprobs.len());
        (!logprobs.is_empty()).then_some(Event::Prompt { first: index + known, logprobs })
    }

    /// Output from a worker: what of it is new, if it agrees with what is known already.
    pub(super) fn output(
        &mut self,
        leg: &mut Leg,
        tokens: &[u32],
        text: &str,
        mut logprobs: Vec<TokenLogprob>,
    ) -> Result<Option<Event>, ApiError> {
        let known = (self.ids.len() - leg.at.tokens).min(tokens.len());
        let disagree = |what: String| failure::disagreement(leg.worker(), self.before(), &what);
        let before = &self.ids[leg.at.tokens..][..known];
        if let Some(at) = (0..known).find(|&at| before[at] != tokens[at]) {
            let what = format!("token {} where {} was delivered", tokens[at], before[at]);
            return Err(disagree(what));
        }
        let same = (self.text.len() - leg.at.text).min(text.len());
        let fresh = text
            .get(same..)
            .filter(|_| self.text.as_bytes()[leg.at.text..].starts_with(&text.as_bytes()[..same]));
        let Some(fresh) = fresh else {
            return Err(disagree("another text than was delivered".to_owned()));
        };
        self.ids.extend(&tokens[known..]);
        self.text.push_str(fresh);
        self.said_by = Some(leg.worker());
        leg.at.tokens += tokens.len();
        leg.at.text += text.len();
        let logprobs = if logprobs.is_empty() { logprobs } else { logprobs.split_off(known) };
        let is_new = !fresh.is_empty() || !logprobs.is_empty();
        if known < tokens.len() || is_new {
            let now = Instant::now();
            if !self.failed.is_empty() && leg.sought > self.delivered_at {
                let (noticed, placed) = (leg.sought - self.delivered_at, leg.accepted - leg.sought);
                self.waits.push(Waited { noticed, placed, began: now - leg.accepted });
            }
            self.delivered_at = now;
            self.beside = 0;
        }
        Ok(is_new.then(|| Event::Output { text: fresh.to_owned(), logprobs }))
    }

    /// A worker broke the answer off: what it had signed stands, unless it broke the protocol.
    pub(super) fn broken(&mut self, leg: &mut Leg, error: &SessionError) {
        let kept = !error.breaks_protocol();
        self.stalls += u32::from(matches!(error, SessionError::Stalled { .. }));
        self.failed_by(
            leg.worker(),
            match error {
                _ if !kept => 1,
                // It may only be slow, and each time it is waited for longer.
                SessionError::Stalled { .. } => STALLS_MAX,
                _ => BREAKS_EACH,
            },
        );
        if self.is_beside(leg) {
            return;
        }
        self.silent = None;
        let (signed, answer) = leg.signed();
        self.resume_from(if kept { signed } else { Position::default() });
        if let Some(answer) = answer {
            self.share(leg, answer, None, Amount::ZERO);
        }
    }

    /// A worker gave the answer up and signed for that: what it had delivered stands.
    pub(super) fn given_up(&mut self, leg: &Leg, refusal: Refusal) {
        // Who leaves is not asked before it serves again, and then like any other.
        let leaves = matches!(refusal.receipt.failure(), Some((FailureCode::Leaving, _)));
        self.failed_by(leg.worker(), if leaves { BREAKS_MAX } else { BREAKS_EACH });
        if self.is_beside(leg) {
            return;
        }
        self.silent = None;
        let Refusal { answer, receipt } = refusal;
        if let Some(LegLog { log, kept }) = &leg.log {
            log.keep(Entry::Signed {
                message: receipt.bytes().to_vec(),
                is_receipt: true,
                first: kept.tokens as u32,
                ids: answer.output_ids[kept.tokens..].to_vec(),
                text: answer.text[kept.text..].to_owned(),
            });
        }
        self.resume_from(Position {
            tokens: leg.from.tokens + answer.output_ids.len(),
            text: leg.from.text + answer.text.len(),
        });
        self.share(leg, answer, Some(&receipt), receipt.charge);
    }

    /// Notes who broke it off. Who does so again without a token in between, so often, is not asked again.
    fn failed_by(&mut self, worker: PublicKey, times_max: usize) {
        let delivered = Position { tokens: self.ids.len(), text: self.text.len() };
        self.failed.push((worker, delivered));
        let times = self.failed.iter().filter(|failed| **failed == (worker, delivered)).count();
        if times >= times_max {
            self.banned.push(worker);
        }
    }

    /// Who broke it off last.
    fn before(&self) -> Option<PublicKey> {
        self.failed.last().map(|(worker, _)| *worker)
    }

    fn share(&mut self, leg: &Leg, answer: Answer, receipt: Option<&Signed<Receipt>>, charge: Amount) {
        let part = part(leg, &answer, receipt, self.check);
        self.shares.push(Share { answer, part, charge });
    }

    /// Whether another worker may be asked to go on.
    pub(super) fn may_go_on(&self) -> bool {
        self.failed.len() < BREAKS_MAX && !self.is_bound()
    }

    /// The last worker has brought the answer to its end.
    pub(super) fn end(&mut self, leg: &Leg, completed: Completed) -> Result<Whole, ApiError> {
        // Less than was delivered before would be another answer.
        if leg.at.tokens != self.ids.len() || leg.at.text != self.text.len() {
            let what = "an end before what was delivered".to_owned();
            return Err(failure::disagreement(leg.worker(), self.before(), &what));
        }
        self.ended = true;
        self.said_by = Some(leg.worker());
        let Completed { answer, receipt, checked } = completed;
        self.share(leg, answer, Some(&receipt), receipt.charge);
        self.ended_by = self.shares.iter().map(|share| share.part.worker).collect();
        let prompt_tokens = receipt.prompt_tokens.saturating_sub(leg.from.tokens as u32);
        Ok(Whole {
            shares: std::mem::take(&mut self.shares),
            prompt_tokens,
            cached_tokens: receipt.cached_tokens.min(prompt_tokens),
            output_tokens: self.ids.len() as u32,
            checked,
            waits: std::mem::take(&mut self.waits),
        })
    }
}

fn part(leg: &Leg, answer: &Answer, receipt: Option<&Signed<Receipt>>, check: bool) -> Part {
    Part {
        order: leg.session.order().digest(),
        receipt: receipt.map(Signed::digest),
        worker: leg.worker(),
        first_output_token: leg.from.tokens as u32,
        output_tokens: answer.output_ids.len() as u32,
        purpose: check.then_some(Purpose::Check),
    }
}

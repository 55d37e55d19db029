//! Hold: what is set aside for one request, until it is charged or given back.
//!
//! In:     the worst that each order may cost, before it is given; what receipts charge; how the request ended.
//! Out:    whether there is enough; one row of usage.
//! Touches: the key's account, and its store.
//! Holds:  no order is given whose worst is not set aside; of workers asked beside one another, one is charged, so the
//!         dearest of them is set aside. That something is held is on the disk before a receipt is kept, so a receipt
//!         always finds who is charged for it. Whatever happens to the request, what it held is charged or given back.
//! Absent: prices (`route`), rows on the disk (`store`).

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use surety_types::{Price, Prompt, Receipt, Request};
use tracing::error;

use super::{
    Tenant,
    store::{Change, Generation, GenerationPart, NOBODY},
    terms::Micro,
};
use crate::{api::unix_ms, disk::Written, error::ApiError, id::RequestId};

/// Tokens that a chat template may add to a message or a tool, and to a conversation, before the worker has counted.
const MESSAGE_TOKENS: u32 = 16;
const CONVERSATION_TOKENS: u32 = 64;
/// Tokens that a tokenizer may add to a text.
const TEXT_TOKENS: u32 = 8;

/// What is set aside for one request.
#[derive(Debug)]
pub(crate) struct Hold {
    tenant: Tenant,
    request: RequestId,
    /// The model's name.
    model: String,
    choices: u32,
    received_ms: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By answer.
    courses: BTreeMap<HeldFor, CourseHold>,
    /// The sum of what the courses need: what the account has set aside.
    reserved: u128,
    /// What was charged.
    parts: Vec<GenerationPart>,
    /// Whether the disk was told that something is held.
    noted: bool,
    /// Says when that is there.
    on_disk: Option<Written<()>>,
    ended: bool,
}

/// What an order is for: what is ordered for the same is charged once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HeldFor {
    /// The answer's.
    pub(crate) nonce: [u8; 32],
    /// It is computed again, to be compared: that is charged beside the answer.
    pub(crate) check: bool,
}

/// What is set aside for one answer.
#[derive(Debug, Clone, Default)]
struct CourseHold {
    /// By leg: what each may cost at most.
    legs: Vec<(u64, u128)>,
    /// What is charged, once it is: of the legs no other is.
    charged: Option<u128>,
}

impl CourseHold {
    fn need(&self) -> u128 {
        let dearest = || self.legs.iter().map(|(_, amount)| *amount).max().unwrap_or(0);
        self.charged.unwrap_or_else(dearest)
    }
}

/// One order's part of it, until it is charged or dropped.
#[derive(Debug)]
pub(crate) struct LegHold {
    hold: Arc<Hold>,
    course: HeldFor,
    id: u64,
}

/// Tells legs apart.
static NEXT_LEG: AtomicU64 = AtomicU64::new(0);

impl Hold {
    pub(super) fn new(
        tenant: Tenant,
        request: RequestId,
        model: String,
        choices: u32,
        received_ms: u64,
    ) -> Arc<Hold> {
        Arc::new(Hold { tenant, request, model, choices, received_ms, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets aside what an order may cost at most, in micro-credits.
    pub(crate) fn leg(self: &Arc<Self>, course: HeldFor, amount: u128) -> Result<LegHold, ApiError> {
        let id = NEXT_LEG.fetch_add(1, Ordering::Relaxed);
        let leg = LegHold { hold: Arc::clone(self), course, id };
        leg.set(amount)?;
        Ok(leg)
    }

    /// Changes what a course needs. Err: there is not enough, and nothing was changed.
    fn change(&self, course: HeldFor, change: impl FnOnce(&mut CourseHold)) -> Result<(), ApiError> {
        let mut state = self.lock();
        let state = &mut *state;
        if state.ended {
            return Ok(());
        }
        let held = state.courses.entry(course).or_default();
        let unchanged = held.clone();
        change(held);
        let (before, after) = (unchanged.need(), held.need());
        if self.tenant.key() == NOBODY {
            return Ok(());
        }
        if after > before {
            if let Err(error) = self.tenant.reserve(after - before) {
                *held = unchanged;
                return Err(error);
            }
            if !state.noted {
                state.noted = true;
                state.on_disk = Some(self.tenant.hold_on_disk(self.request.bits()));
            }
            state.reserved += after - before;
        } else if before > after {
            state.reserved -= before - after;
            self.tenant.release(before - after);
        }
        Ok(())
    }

    /// Returns once the disk knows who is charged for this request, and that it may be sent again.
    pub(crate) async fn on_disk(&self) {
        self.tenant.sent_on_disk().await;
        let on_disk = self.lock().on_disk.take();
        let Some(on_disk) = on_disk else { return };
        if let Err(failure) = on_disk.outcome().await {
            error!(request = %self.request, %failure, "a crash now would let this request go uncharged");
        }
    }

    /// The request was answered: what its receipts charge is charged, and the rest given back. Soon that is on the disk, too;
    /// if it must be at once, what is returned says when it is.
    pub(crate) fn complete(
        &self,
        tokens: [u64; 3],
        first_byte_ms: Option<u64>,
        at_once: bool,
    ) -> Option<Written<()>> {
        let mut state = self.lock();
        if state.ended {
            return None;
        }
        self.settle(&mut state, "complete", tokens, first_byte_ms, at_once)
    }

    /// The request failed: nothing is charged.
    pub(crate) fn fail(&self) {
        let mut state = self.lock();
        if !state.ended {
            self.give_back(&mut state);
        }
        self.tenant.failed();
    }

    /// Gives back all that is set aside.
    fn give_back(&self, state: &mut State) {
        state.ended = true;
        self.tenant.release(std::mem::take(&mut state.reserved));
        if state.noted {
            self.tenant.post(Change::Release { request: self.request.bits() });
            self.tenant.hold_over(self.request.bits());
        }
    }

    /// Charges what the receipts charge, and gives back the rest.
    fn settle(
        &self,
        state: &mut State,
        status: &str,
        [prompt_tokens, cached_tokens, output_tokens]: [u64; 3],
        first_byte_ms: Option<u64>,
        at_once: bool,
    ) -> Option<Written<()>> {
        state.ended = true;
        let parts = std::mem::take(&mut state.parts);
        let cost = parts.iter().fold(0u128, |sum, part| sum.saturating_add(part.charge.0));
        self.tenant.settle(std::mem::take(&mut state.reserved), cost, prompt_tokens + output_tokens);
        let generation = Box::new(Generation {
            id: self.request.to_string(),
            key: self.tenant.name().map(str::to_owned),
            model: self.model.clone(),
            status: status.to_owned(),
            choices: self.choices,
            prompt_tokens,
            cached_tokens,
            output_tokens,
            cost: Micro(cost),
            parts,
            received_ms: self.received_ms,
            first_byte_ms,
            done_ms: unix_ms(),
        });
        let (request, key) = (self.request.bits(), self.tenant.key());
        let change = Change::Settle { request, key, generation };
        let written = match at_once {
            true => Some(self.tenant.keep(change)),
            false => {
                self.tenant.post(change);
                None
            }
        };
        if state.noted {
            self.tenant.hold_over(request);
        }
        written
    }
}

impl Drop for Hold {
    /// The caller left: what it was given before is charged, as far as there are receipts.
    fn drop(&mut self) {
        let mut state = std::mem::take(self.state.get_mut().unwrap_or_else(PoisonError::into_inner));
        if state.ended {
            return;
        }
        if state.parts.is_empty() {
            self.give_back(&mut state);
            return;
        }
        let answers = || state.parts.iter().filter(|part| !part.check);
        let sum = |count: fn(&GenerationPart) -> u32| answers().map(|part| u64::from(count(part))).sum();
        let tokens =
            [sum(|part| part.prompt_tokens), sum(|part| part.cached_tokens), sum(|part| part.output_tokens)];
        self.settle(&mut state, "cancelled", tokens, None, false);
    }
}

impl LegHold {
    /// Sets aside so much, and no more than that, from now on.
    pub(crate) fn set(&self, amount: u128) -> Result<(), ApiError> {
        self.hold.change(self.course, |held| {
            held.legs.retain(|(id, _)| *id != self.id);
            held.legs.push((self.id, amount));
        })
    }

    /// Its receipt is there: what that charges is due, and no more of the leg is set aside.
    pub(crate) fn charge(&self, receipt: &Receipt) {
        // Not above what was set aside: a receipt stays within the acceptance.
        let charged = self.hold.change(self.course, |held| {
            held.charged = Some(held.charged.unwrap_or(0).saturating_add(receipt.charge.0));
            held.legs.retain(|(id, _)| *id != self.id);
        });
        if charged.is_err() {
            error!(request = %self.hold.request, "a receipt charges more than was set aside for it");
        }
        let mut state = self.hold.lock();
        if !state.ended {
            state.parts.push(part_of(receipt, self.course.check));
        }
    }
}

impl Drop for LegHold {
    fn drop(&mut self) {
        // Less is always granted.
        let _ = self.hold.change(self.course, |held| held.legs.retain(|(id, _)| *id != self.id));
    }
}

/// What a receipt says of a part; `check`: it was ordered to be compared with the answer.
pub(crate) fn part_of(receipt: &Receipt, check: bool) -> GenerationPart {
    GenerationPart {
        worker: receipt.worker.to_string(),
        check,
        price: Some(receipt.price.into()),
        prompt_tokens: receipt.prompt_tokens,
        cached_tokens: receipt.cached_tokens,
        output_tokens: receipt.output_tokens,
        charge: Micro(receipt.charge.0),
    }
}

/// What an order may cost at most, in micro-credits, as far as that can be said before its prompt is counted.
pub(crate) fn worst_charge(
    request: &Request,
    resumed_tokens: usize,
    output_tokens: Option<u32>,
    context_tokens: u32,
    price: &Price,
) -> u128 {
    let resumed = u32::try_from(resumed_tokens).unwrap_or(u32::MAX);
    let prompt = prompt_tokens_bound(request).saturating_add(resumed).min(context_tokens);
    let output = output_tokens.unwrap_or(context_tokens).min(context_tokens);
    // Together they fit the window: the dearer of both is long.
    let long_prompt = charge_max(price, prompt, output.min(context_tokens - prompt));
    let long_output = charge_max(price, prompt.min(context_tokens - output), output);
    long_prompt.max(long_output)
}

/// What so many tokens cost at most, in micro-credits.
pub(crate) fn charge_max(price: &Price, prompt_tokens: u32, output_tokens: u32) -> u128 {
    let dearest = Price { prompt: price.prompt.max(price.cached), ..*price };
    dearest.charge(prompt_tokens, 0, output_tokens).map_or(u128::MAX, |amount| amount.0)
}

/// Tokens of a prompt, at most, as far as that can be said before a worker has counted them: no token stands for less than
/// a byte.
pub(crate) fn prompt_tokens_bound(request: &Request) -> u32 {
    let bytes = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX);
    match &request.prompt {
        Prompt::Tokens(ids) => u32::try_from(ids.len()).unwrap_or(u32::MAX),
        Prompt::Text(text) => bytes(text).saturating_add(TEXT_TOKENS),
        Prompt::Chat { messages, tools } => {
            let of_tools = tools.iter().fold(CONVERSATION_TOKENS, |sum, tool| {
                sum.saturating_add(bytes(tool)).saturating_add(MESSAGE_TOKENS)
            });
            messages.iter().fold(of_tools, |sum, message| {
                let calls =
                    message.tool_calls.iter().flat_map(|call| [&call.id, &call.name, &call.arguments]);
                let said = [&message.role, &message.content].into_iter().chain(&message.name).chain(calls);
                let own = said
                    .chain(&message.tool_call_id)
                    .fold(MESSAGE_TOKENS, |sum, text| sum.saturating_add(bytes(text)));
                sum.saturating_add(own)
            })
        }
    }
}

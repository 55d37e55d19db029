//! Restore: what was kept of a stream, as an answer under way again.
//!
//! In:     what was agreed and signed before the gateway was killed; the request, sent again.
//! Out:    the answer as far as it was signed for, with every worker's part in it.
//! Touches: nothing.
//! Holds: : nothing goes on that was not signed; what cannot be read, or does not follow from what is before it, is
//!         left out with all after it. The request is the one that was answered, or nothing goes on.
//! Absent: the disk (`streams`), finding a worker (`place`).

use surety_client::{IdsHasher, TextHasher};
use surety_types::{
    Acceptance, Amount, Answer, Canonical, Digest, Order, Part, Progress, Receipt, Request, Sampling, Seed,
    Signed,
};

use super::course::{Position, Share};
use crate::streams::{Begun, Entry};

/// What is being asked again, and must be what was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Again<'a> {
    pub(crate) request: &'a Request,
    pub(crate) sampling: &'a Sampling,
    pub(crate) seed: Seed,
    pub(crate) ignore_end: bool,
}

/// An answer that goes on.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    pub(crate) nonce: [u8; 32],
    pub(crate) ids: Vec<u32>,
    pub(crate) text: String,
    /// When it was first given to the caller, Unix milliseconds.
    pub(crate) first_byte_ms: Option<u64>,
    pub(super) shares: Vec<Share>,
    /// Tokens of the prompt and of the answer at most, as the first worker accepted them.
    pub(super) agreed: Option<(u32, u32)>,
}

/// It is another request that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OtherRequest;

/// One worker's part, as it is read.
struct Leg {
    order: Signed<Order>,
    acceptance: Signed<Acceptance>,
    from: Position,
    ids: Vec<u32>,
    text: String,
    ids_hasher: IdsHasher,
    text_hasher: TextHasher,
    progress: Option<Vec<u8>>,
    receipt: Option<Signed<Receipt>>,
}

impl Restored {
    /// Reads what was kept.
    pub(crate) fn read(
        begun: &Begun,
        entries: Vec<Entry>,
        again: Again<'_>,
    ) -> Result<Restored, OtherRequest> {
        let mut restored = Restored { nonce: begun.nonce, ..Restored::default() };
        let request_digest = again.request.digest();
        let mut leg: Option<Leg> = None;
        for entry in entries {
            match entry {
                Entry::Begun(_) => break,
                Entry::Leg { order, acceptance, at_ms } => {
                    if let Some(before) = leg.take() {
                        restored.close(before, again.request);
                    }
                    let Some(next) = Leg::open(&order, &acceptance, &restored, begun) else { break };
                    let same = next.order.request_digest == request_digest
                        && next.order.sampling == *again.sampling
                        && next.order.seed == again.seed
                        && next.order.ignore_end == again.ignore_end;
                    if !same {
                        return Err(OtherRequest);
                    }
                    let from = next.from.tokens as u32;
                    let (prompt, limit) = (
                        next.acceptance.prompt_tokens.saturating_sub(from),
                        next.acceptance.max_output_tokens.saturating_add(from),
                    );
                    restored.agreed.get_or_insert((prompt, limit));
                    restored.first_byte_ms.get_or_insert(at_ms);
                    restored.ids.truncate(next.from.tokens);
                    restored.text.truncate(next.from.text);
                    leg = Some(next);
                }
                Entry::Signed { message, is_receipt, first, ids, text } => {
                    let Some(leg) = &mut leg else { break };
                    if !leg.extend(message, is_receipt, first, &ids, &text) {
                        break;
                    }
                }
            }
        }
        if let Some(last) = leg {
            restored.close(last, again.request);
        }
        Ok(restored)
    }

    /// A worker's part is over; it begins where the answer was.
    fn close(&mut self, leg: Leg, request: &Request) {
        let resumed_ids = self.ids.clone();
        let part = Part {
            order: leg.order.digest(),
            receipt: leg.receipt.as_ref().map(Signed::digest),
            worker: leg.acceptance.worker,
            first_output_token: leg.from.tokens as u32,
            output_tokens: leg.ids.len() as u32,
            purpose: None,
        };
        self.ids.extend(&leg.ids);
        self.text.push_str(&leg.text);
        let charge = leg.receipt.as_ref().map_or(Amount::ZERO, |receipt| receipt.charge);
        let answer = Answer {
            order: leg.order.bytes().to_vec(),
            request: request.to_cbor(),
            acceptance: Some(leg.acceptance.bytes().to_vec()),
            progress: leg.progress.filter(|_| leg.receipt.is_none()),
            receipt: leg.receipt.map(|receipt| receipt.into_parts().1),
            salt: [0; 32],
            output_ids: leg.ids,
            resumed_ids,
            text: leg.text,
            // The purse that paid went with the process.
            channel: None,
            prompt_ids: None,
            embedding: None,
        };
        self.shares.push(Share { answer, part, charge });
    }
}

impl Leg {
    /// None if it does not follow from what is before it: it resumes from all of that, or from nothing.
    fn open(order: &[u8], acceptance: &[u8], before: &Restored, begun: &Begun) -> Option<Leg> {
        let order = Signed::<Order>::open(order).ok()?;
        let acceptance = Signed::<Acceptance>::open(acceptance).ok()?;
        let from = match order.resumed_tokens() as usize {
            0 => Position::default(),
            tokens if tokens == before.ids.len() => Position { tokens, text: before.text.len() },
            _ => return None,
        };
        let follows = order.model == begun.model
            && order.nonce == begun.nonce
            && order.resumed == surety_client::resumed_from(&before.ids[..from.tokens])
            && acceptance.order == order.digest();
        follows.then(|| Leg {
            order,
            acceptance,
            from,
            ids: Vec::new(),
            text: String::new(),
            ids_hasher: IdsHasher::output(),
            text_hasher: TextHasher::new(),
            progress: None,
            receipt: None,
        })
    }

    /// Takes what was signed for next; false if it is not what was signed.
    fn extend(&mut self, message: Vec<u8>, is_receipt: bool, first: u32, ids: &[u32], text: &str) -> bool {
        if self.receipt.is_some() || first as usize != self.ids.len() {
            return false;
        }
        let (mut ids_hasher, mut text_hasher) = (self.ids_hasher.clone(), self.text_hasher.clone());
        ids_hasher.push(ids);
        text_hasher.push(text);
        let (order, worker) = (self.order.digest(), self.acceptance.worker);
        let (count, digests) = (ids_hasher.count(), (ids_hasher.digest(), text_hasher.digest()));
        let is_signed = |of: Digest, tokens: u32, ids: Digest, text: Digest| {
            of == order && tokens == count && (ids, text) == digests
        };
        if is_receipt {
            let Ok(receipt) = Signed::<Receipt>::open_by(&message, &worker) else { return false };
            let Receipt { order, output_tokens, output_digest, text_digest, .. } = *receipt.value();
            if receipt.failure().is_none() || !is_signed(order, output_tokens, output_digest, text_digest) {
                return false;
            }
            self.receipt = Some(receipt);
        } else {
            let Ok(progress) = Signed::<Progress>::open_by(&message, &worker) else { return false };
            let Progress { order, output_tokens, output_digest, text_digest, .. } = *progress.value();
            if !is_signed(order, output_tokens, output_digest, text_digest) {
                return false;
            }
            self.progress = Some(message);
        }
        self.ids.extend(ids);
        self.text.push_str(text);
        (self.ids_hasher, self.text_hasher) = (ids_hasher, text_hasher);
        true
    }
}

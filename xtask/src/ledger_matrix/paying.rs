//! Paying: requests that pay for themselves, and a key whose credits are bought (x402).
//!
//! In:     a mark; payers. Out: what of it must be found in the books.
//! Touches: the gateway.
//! Absent: signing (`payer`), taking (the gateway).

use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::client::{Call, Came, Reply};
use super::operations::{Callers, Charged, Kind, PATIENCE, PAUSE, outcome};
use super::payer::{Payer, words};
use crate::rng::Rng;

/// Micro-credits that are bought at once: several answers.
const PURCHASE: u64 = 20_000;

impl Callers {
    /// Pays for a call: the answer to that, or why there is none.
    fn paid(&self, payer: &Payer, call: &Call, rng: &mut Rng) -> Came {
        let unpaid = call.make(&self.host);
        let Came::Answer(Reply { status: 402, payment_required: Some(required), .. }) = &unpaid else {
            return unpaid;
        };
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        match payer.pay(required, words(rng), now_s) {
            Ok(header) => call.clone().with("payment-signature", header).make(&self.host),
            Err(error) => {
                self.fail(format!("what is to be paid cannot be read: {error:#}"));
                Came::Lost
            }
        }
    }

    pub fn pay(&self, mark: &str, rng: &mut Rng) {
        let payer = &self.payers[rng.below(self.payers.len())];
        let (stream, named) = (rng.chance(0.4), rng.chance(0.5));
        let mut call = self.question("", mark, stream, rng);
        self.expect(mark, Charged::OnceAtMost);
        if !named {
            let came = self.paid(payer, &call, rng);
            if matches!(&came, Came::Answer(reply) if reply.is_whole()) {
                self.expect(mark, Charged::Once);
            }
            return self.note(Kind::Paid, outcome(&came));
        }
        call = call.with("idempotency-key", mark);
        let until = Instant::now() + PATIENCE;
        let mut told: Option<Reply> = None;
        // Once more when it is told: that is told again, and not paid again.
        for _ in 0..2 {
            let reply = loop {
                match self.paid(payer, &call, rng) {
                    Came::Answer(reply) if reply.is_whole() => break reply,
                    Came::Answer(reply) if reply.status == 409 => {
                        let code = reply.error_code().unwrap_or_default();
                        return self.note(Kind::Paid, format!("409 {code}"));
                    }
                    came if Instant::now() > until => {
                        return self.fail(format!(
                            "{mark}: it was not answered for {} s: {came:?}",
                            PATIENCE.as_secs()
                        ));
                    }
                    _ => thread::sleep(PAUSE),
                }
            };
            self.expect(mark, Charged::Once);
            if told
                .as_ref()
                .is_some_and(|told| (&told.body, &told.request_id) != (&reply.body, &reply.request_id))
            {
                self.fail(format!("{mark}: it was told {told:?}, and then {reply:?}"));
            }
            self.note(Kind::Paid, if told.is_some() { "the same again" } else { "whole by name" });
            told = Some(reply);
        }
    }

    pub fn prepaid(&self, mark: &str, rng: &mut Rng) {
        let key = &self.prepaid;
        let call = self.question(&key.secret, mark, rng.chance(0.4), rng);
        let came = call.make(&self.host);
        let is_short = matches!(&came, Came::Answer(reply) if reply.status == 402);
        let whole = matches!(&came, Came::Answer(reply) if reply.is_whole());
        self.expect(mark, if whole { Charged::Once } else { Charged::OnceAtMost });
        self.note(Kind::Prepaid, outcome(&came));
        if !is_short && !rng.chance(0.1) {
            return;
        }
        let payer = &self.payers[rng.below(self.payers.len())];
        let call = Call::post("/v1/credits", &key.secret, &json!({ "amount": PURCHASE.to_string() }));
        // If nothing comes of it, whether it was bought is in the books.
        self.note(Kind::Prepaid, format!("bought: {}", outcome(&self.paid(payer, &call, rng))));
    }
}

//! The long texts of the error catalogue: for each code what it means, who answers for it, what to do, whether a retry helps.
//!
//! In:     a code. Out: texts for people; the page `docs/api/errors.md`.
//! Touches: nothing.
//! Holds:  every code has a text, and the page is what these texts make; tests hold both.
//! Absent: what happened to one request (`surety explain ID`).

use std::fmt::Write as _;

use crate::error::Code;

/// What there is to know of an error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explained {
    /// The name on the wire.
    pub code: &'static str,
    /// The HTTP status, where the answer had not begun.
    pub status: u16,
    /// Who usually answers for it; `metadata.accountable` says who did.
    pub accountable: &'static str,
    /// Whether the same request may succeed if it is sent again.
    pub retry: Advice,
    /// What happened.
    pub means: &'static str,
    /// Who answers for it, and why.
    pub who: &'static str,
    /// What to do.
    pub act: &'static str,
}

/// Whether the same request may succeed if it is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// It cannot.
    Useless,
    /// It may at once.
    Now,
    /// It may after so many seconds.
    After(u64),
}

impl Advice {
    /// In words.
    pub fn words(self) -> String {
        match self {
            Advice::Useless => "No: the same request fails again.".to_owned(),
            Advice::Now => "Yes, at once.".to_owned(),
            Advice::After(seconds) => {
                format!("Yes, after the {seconds} s that `retry-after` says.")
            }
        }
    }
}

/// What there is to know of a code, by its name.
pub fn explained(code: &str) -> Option<Explained> {
    Code::ALL.into_iter().find(|known| known.as_str() == code).map(of)
}

/// What there is to know of every code.
pub fn all() -> Vec<Explained> {
    Code::ALL.into_iter().map(of).collect()
}

fn of(code: Code) -> Explained {
    let (means, who, act) = texts(code);
    Explained {
        code: code.as_str(),
        status: code.status().as_u16(),
        accountable: code.accountable().as_str(),
        retry: code.advice(),
        means,
        who,
        act,
    }
}

/// What it means, who answers for it, what to do.
fn texts(code: Code) -> (&'static str, &'static str, &'static str) {
    match code {
        Code::InvalidParam => (
            "A parameter of the request has a wrong type, shape or value. `param` names it, and the message says what it may be. \
             Nothing was computed.",
            "Whoever sent the request.",
            "Correct the parameter that is named, and send the request again.",
        ),
        Code::UnknownParameter => (
            "The request has a parameter of which this gateway has never heard. It is refused rather than ignored, because an answer \
             that silently leaves out what was asked for is worse than none. The message suggests the nearest name there is.",
            "Whoever sent the request.",
            "Correct the spelling, or leave the parameter out. `GET /openapi.json` lists all there are.",
        ),
        Code::UnsupportedParameter => (
            "The parameter is known and would change the answer, and this gateway cannot do what it asks for.",
            "Whoever sent the request: it asks for something that is not offered here.",
            "Leave it out, or do what the message suggests in its place.",
        ),
        Code::ContextLengthExceeded => (
            "The prompt does not fit into the model's context window, or leaves no room for an answer. The message gives both numbers. \
             Nothing is ever cut off silently. Where a worker counted the tokens, its signed refusal is in `metadata.evidence`.",
            "Whoever sent the request.",
            "Shorten the prompt, ask for fewer tokens, or take a model with a longer window: `GET /v1/models` shows them.",
        ),
        Code::InvalidJson => (
            "The body is not JSON. The message says where reading it failed.",
            "Whoever sent the request, or a program in between that changed it.",
            "Print what is sent and correct it at the place that is named; most often a quote or a comma is missing.",
        ),
        Code::InvalidUtf8 => (
            "The body holds bytes that are not UTF-8.",
            "Whoever sent the request.",
            "Encode the body as UTF-8. Text from an old file or terminal often is not.",
        ),
        Code::RequestTimeout => (
            "The body of the request did not arrive in time. The connection was closed.",
            "The caller's side: its program or its line was too slow, or `content-length` says more than was sent.",
            "Send it again. If that happens again, compare `content-length` with what is sent, and look at the line.",
        ),
        Code::PayloadTooLarge => (
            "The body is larger than this gateway reads. The message says how much that is. The rest was not read.",
            "Whoever sent the request.",
            "Send less: a shorter conversation, or several requests.",
        ),
        Code::UnsupportedMediaType => (
            "The request does not say that its body is JSON, or the body is compressed in a way that is not read here.",
            "Whoever sent the request.",
            "Send the header `content-type: application/json`, and no `content-encoding`.",
        ),
        Code::BadKey => (
            "This gateway answers to keys, and the request showed none, or one that is unknown here, was revoked or has expired. The \
             message says which. Nothing was computed.",
            "Whoever sent the request.",
            "Send the key as `Authorization: Bearer sk-surety-…` or as `x-api-key`. Whoever runs the gateway makes one with \
             `surety apikey create`, and sees with `surety apikey list` what became of it.",
        ),
        Code::BudgetExhausted => (
            "What the answer may cost at most is more than is left of the key's budget, with what other requests under way have set \
             aside. The message gives the amounts. Nothing was computed or charged.",
            "Whoever sent the request: the budget is theirs.",
            "Ask for fewer tokens, wait for requests under way to end, or have whoever runs the gateway raise the budget. \
             `GET /v1/credits` shows what is left; `POST /v1/quote` says beforehand what a request may cost.",
        ),
        Code::PaymentRequired => (
            "This gateway answers whoever shows a key or pays for the request itself, and the request did neither; or credits were to be \
             bought. `PAYMENT-REQUIRED` says, as x402 (version 2) has it, what is to be paid, where and in what. Nothing was computed.",
            "Whoever sent the request.",
            "Send the same request with a `PAYMENT-SIGNATURE`; clients for x402 do that by themselves. Or show a key.",
        ),
        Code::PaymentRefused => (
            "The payment that came with the request does not pay for it: it was used before, is too small, goes elsewhere, is of another \
             chain or asset, is not good now, is not signed by its payer, or its payer has not enough. The message says which, and \
             `error` in `PAYMENT-REQUIRED` says it in x402's words. Nothing was taken.",
            "Whoever sent the request.",
            "Sign another payment for what `accepts` in `PAYMENT-REQUIRED` asks for. What is signed is the most that is taken: the \
             receipt's charge is, and nothing if the request fails.",
        ),
        Code::Policy => (
            "The key is good, and its terms do not admit this: a model that is not among its models, or a price above its limit.",
            "Whoever sent the request.",
            "Ask for what the message names, or use a key with other terms. `surety apikey show NAME` lists them.",
        ),
        Code::IdempotencyMismatch => (
            "The `Idempotency-Key` was used for another request before. Two requests that differ are never answered as one, so \
             neither is this.",
            "Whoever sent the request.",
            "Use a new `Idempotency-Key` for a new request, and the same one only to send the same body again.",
        ),
        Code::AnsweredBefore => (
            "The request was sent before, answered to its end and charged once; now it was sent again, by its `Idempotency-Key` or as \
             a retry, and the answer cannot be told again as it was: it was longer than what is kept for that, or the gateway was \
             stopped in the moment between the receipt and the last bytes. It is not made, and not charged, a second time.",
            "Whoever runs the gateway, if it was stopped.",
            "Read the answer in the receipt that the message names. To have another answer, send the request with a new \
             `Idempotency-Key`.",
        ),
        Code::RateLimited => (
            "The key has had all the requests, or all the tokens, that it may have in a minute. `x-ratelimit-*` say how many, and \
             `retry-after` when there is room again. Nothing was charged.",
            "Whoever sent the request: the limit is the key's.",
            "Wait as long as `retry-after` says. OpenAI's clients do that by themselves.",
        ),
        Code::NoLedger => (
            "This gateway uses no ledger, so there is nothing on it about its answers: nobody audits or judges them. Their receipts \
             are signed all the same.",
            "Nobody: it was set up like that.",
            "Check an answer yourself with `surety verify ID --recompute`, or use a gateway that pays its workers over a ledger.",
        ),
        Code::LedgerUnavailable => (
            "The nodes through which this gateway sees the ledger do not answer now, or too many look at once. That says nothing about \
             what is on it.",
            "The gateway, or the nodes it asks.",
            "Try again shortly; or ask a node of your own: `surety explain ID --rpc-url URL`.",
        ),
        Code::HostNotAllowed => (
            "This gateway serves its own machine only, without keys, and was called by a name that is not this machine's. That is how \
             a foreign web page would call it, so it is refused.",
            "Whoever sent the request, or the name that leads here.",
            "Call it as 127.0.0.1 or localhost. To serve others, start it with an address and `--open`, or put a proxy with keys before it.",
        ),
        Code::ModelUnknown => (
            "No worker that this gateway knows offers a model of that name or id. The message suggests the nearest name.",
            "Whoever sent the request, most often by a misspelt name. It may also be that the last worker with the model left.",
            "Choose a name from `GET /v1/models`. `name@id` pins a model to its exact bytes.",
        ),
        Code::NotFound => (
            "There is nothing at that path, or nothing is kept under that id: it did not come to this gateway, or is too old.",
            "Whoever sent the request.",
            "Compare the path with `GET /openapi.json`, or the id with the `x-request-id` header of the answer it belongs to.",
        ),
        Code::MethodNotAllowed => (
            "The path exists, and does not answer to this method. The `allow` header says to which it does.",
            "Whoever sent the request.",
            "Use a method that `allow` names.",
        ),
        Code::NotAcceptable => (
            "The `accept` header names no form in which this can be given.",
            "Whoever sent the request.",
            "Leave `accept` out, or ask for `application/json`.",
        ),
        Code::RangeNotSatisfiable => (
            "The `range` of a download is none of the file's: it begins past the end, ends before it begins, is several ranges, or no \
             range at all. `content-range` says how many bytes the file has.",
            "The caller. A client that resumes a file which has changed meanwhile sees this too.",
            "Ask for one range within the file, or for all of it. If what you have of it is longer than the file, begin anew.",
        ),
        Code::NoWorker => (
            "No worker qualifies for the request now. The message and `metadata.removed` say which constraint kept how many of them \
             out: some are the request's own (`provider.…`, `surety.worker`), others are how workers are (`unreachable`, `starting`, \
             `draining`, `payment`, `breaker`).",
            "Nobody alone: the caller's constraints, or workers that are not there. No worker had promised anything.",
            "Loosen the constraint that removed most, or wait: workers come back. `GET /v1/network/status` shows how each is.",
        ),
        Code::Overloaded => (
            "There is no room at the moment: the workers that qualify have as many requests as they take, or the gateway has.",
            "The worker that refused under its signature, or the gateway, as `metadata.accountable` says.",
            "Wait as long as `retry-after` says, and send it again; send fewer requests at once if that happens often.",
        ),
        Code::NoHolder => (
            "A model's file was asked for, and none of the workers that serve the model gave it: they cannot be reached, share no \
             files, or sent bytes that are not the file's. The message says which did what.",
            "Nobody alone; a worker that is named with wrong bytes answers for those. Nothing wrong was passed on.",
            "Try again shortly, and go on where you were: what has come was checked. An operator shares files with \
             `surety worker run --share`.",
        ),
        Code::GatewayStopping => (
            "The gateway is being stopped. It takes nothing new, and what was not whole in time was cut off.",
            "The gateway.",
            "Send it again shortly, or to another gateway. A stream can be gone on with by `Last-Event-ID` where its events had ids.",
        ),
        Code::WorkerLost => (
            "The worker was lost before the answer was whole, and no other could go on with it. What came so far is not the whole answer, \
             and nothing is charged for it.",
            "The worker, if it had signed that it accepts: its operator's bond answers for it, whether it failed or the way to it. \
             Nobody, if it had not.",
            "Send it again: another worker is asked. `surety explain` with the request's id says what happened at which worker.",
        ),
        Code::WorkerStalled => (
            "The worker stopped sending for longer than this gateway waits, and no other could go on with the answer. What came so far \
             is not the whole answer, and nothing is charged for it.",
            "The worker, if it had signed that it accepts. Nobody can be told, if it had not.",
            "Send it again: another worker is asked.",
        ),
        Code::WorkerBadOutput => (
            "The worker failed in the middle of the answer, or did not keep to the protocol. Where it signed for its failure, that is in \
             `metadata.evidence`.",
            "The worker.",
            "Send it again: another worker is asked. If the message says that a value was not finite, change the prompt: every worker \
             would fail alike.",
        ),
        Code::VerificationFailed => (
            "What a worker signed and what it sent are not the same, or two workers gave different answers to one order: one \
             that went on where the other had left off, or the one that checked what was asked for as `:verified`. Or, where an upstream \
             answers, its worker's answers are taken for those of another model than its operator names, or one of them could not \
             be compared although that was asked for. The answer was withheld or cut off there.",
            "The worker whose signature does not fit; where two disagree, or answers are taken for another model's, it is not known.",
            "Do not rely on what came before. Send it again: another worker is asked.",
        ),
        Code::Deadline => (
            "The answer was not whole by its deadline: the caller's `surety.deadline_ms`, or the gateway's own.",
            "It cannot be told: the deadline may have been too short, or a worker too slow.",
            "Ask for fewer tokens, or give it longer by `surety.deadline_ms`.",
        ),
        Code::GatewayBug => (
            "The gateway made a mistake that it noticed. Nothing was charged.",
            "The gateway, and whoever wrote its software.",
            "Report it with the request's id. Another gateway may answer.",
        ),
    }
}

/// The page about all of them.
pub fn page() -> String {
    let mut page = String::from(
        "# Errors\n\nEvery error is an object `{\"error\": {\"message\", \"type\", \"param\", \"code\", \"metadata\"}}`, whatever went wrong; \
         once a stream has begun, its last event is one. Programs branch on `code`, which never changes its meaning; the message \
         says what happened, who, and what to do, and ends with the request's id. `metadata` has `accountable`, `worker`, `charged`, \
         `retryable`, `retry_after_ms`, and a worker's signed refusal as `evidence` where there is one. The headers `retry-after` and \
         `x-should-retry: false` say the same to client libraries.\n\nThe same texts: `surety explain CODE`, `surety explain --codes`. What \
         happened to one request: `surety explain ID`.\n",
    );
    for Explained { code, status, accountable, retry, means, who, act } in all() {
        // Writing into memory does not fail.
        let _ = write!(
            page,
            "\n## {code}\n\nHTTP {status}; accountable: {accountable}, unless the error says otherwise.\n\n{means}\n\n- **Who answers for \
             it:** {who}\n- **What to do:** {act}\n- **Does a retry help?** {}\n",
            retry.words()
        );
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api/errors.md");

    #[test]
    fn the_page_is_what_the_table_says() {
        let kept = std::fs::read_to_string(PAGE).expect("the page");
        assert_eq!(
            kept,
            page(),
            "write it anew: cargo test -p surety-gateway --lib rewrite_the_page -- --ignored"
        );
    }

    #[test]
    #[ignore = "writes the page"]
    fn rewrite_the_page() {
        std::fs::write(PAGE, page()).expect("written");
    }

    #[test]
    fn every_text_says_something_of_its_own() {
        let all = all();
        for (index, one) in all.iter().enumerate() {
            assert!(one.means.len() >= 40 && one.act.len() > 20, "{}", one.code);
            for text in [one.means, one.who, one.act] {
                assert!(text.ends_with('.') && !text.contains("  "), "{}: {text}", one.code);
            }
            assert!(all[..index].iter().all(|other| other.means != one.means && other.code != one.code));
            assert_eq!(explained(one.code), Some(*one));
        }
        assert_eq!(explained("nonsense"), None);
    }
}

//! Explorer: the ledger's blocks, transactions, accounts and disputes, for anyone; and what some text names on it.
//!
//! In:     GET requests. Out: JSON; amounts are wei, as decimal text.
//! Touches: nothing itself.
//! Holds:  what is told is public: it is on the ledger; whether it is proven to this gateway or a node's word, the fields say; what is
//!         not found is said to be looked for where.
//! Absent: looking it up (`crate::explorer`, `client::ledger::explorer`).

use std::sync::Arc;

use alloy_primitives::{Address, B256};
use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, Uri},
    response::Response,
};
use serde::Serialize;
use surety_client::ledger::{Ledger, LedgerError, Viewed};
use surety_types::{
    Digest, ModelId, PublicKey,
    abi::{
        IDisputes, IModels, IOperators, IStaking,
        address::{DISPUTES, MODELS, OPERATORS, STAKING},
    },
};
use utoipa::ToSchema;

use super::{fields::quote, look::path_text};
use crate::{
    error::{ApiError, Code, ErrorBody},
    explorer::{Explorer, Wanted},
    gateway::Shared,
    id::RequestId,
};

/// Blocks of a page.
const BLOCKS: u64 = 30;
/// Characters that may be looked for.
const QUERY_MAX: usize = 200;

/// What some text names.
#[derive(Debug, Serialize, ToSchema)]
pub struct Findings {
    /// What was looked for.
    pub query: String,
    /// What it names; several, where it can be read in several ways.
    pub found: Vec<Finding>,
    /// Where it was looked for.
    pub looked: Vec<String>,
}

/// Something that a text names.
#[derive(Debug, Serialize, ToSchema)]
pub struct Finding {
    /// `block`, `transaction`, `account`, `dispute`, `model` or `request`.
    pub kind: &'static str,
    /// Its number, hash, address or id.
    pub id: String,
    /// What it is to the text.
    pub said: String,
}

/// The latest blocks, or those before one. Headers are proven to this gateway; how many transactions they have is a node's word.
#[utoipa::path(get, path = "/v1/network/blocks", tag = "network", params(
    ("before" = Option<u64>, Query, description = "Those before this height."),
    ("count" = Option<u64>, Query, description = "At most so many: 1 to 50. Default 30."),
), responses(
    (status = 200, description = "The newest first.", body = serde_json::Value),
    (status = 304, description = "As they were."),
    (status = 400, description = "No height, or no such count.", body = ErrorBody),
    (status = 404, description = "`no_ledger`: this gateway uses none.", body = ErrorBody),
    (status = 503, description = "`ledger_unavailable`: it cannot be asked now.", body = ErrorBody),
))]
pub(super) async fn blocks(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let explorer = explorer(&shared)?;
    let before = parameter(&uri, "before")?;
    let count = parameter(&uri, "count")?.unwrap_or(BLOCKS);
    if !(1..=surety_client::ledger::explorer::BLOCKS_MAX).contains(&count) {
        return Err(ApiError::invalid("count", "`count` is 1 to 50."));
    }
    let missing = || ApiError::bug("there are no blocks");
    Ok(explorer.shown(Wanted::Blocks(before, count), missing).await?.response(&headers))
}

/// A block with its transactions, by its height or its hash. They are what its header commits to; `proven` says whether that is proven
/// to this gateway.
#[utoipa::path(get, path = "/v1/network/blocks/{id}", tag = "network", params(
    ("id" = String, Path, description = "A height, or a hash."),
), responses(
    (status = 200, description = "The block.", body = serde_json::Value),
    (status = 304, description = "As it was."),
    (status = 400, description = "Neither a height nor a hash.", body = ErrorBody),
    (status = 404, description = "There is no such block, or nodes keep it no more. `no_ledger`: this gateway uses none.", body = ErrorBody),
    (status = 503, description = "`ledger_unavailable`: it cannot be asked now.", body = ErrorBody),
))]
pub(super) async fn block(
    State(shared): State<Arc<Shared>>,
    asked: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let explorer = explorer(&shared)?;
    let asked = path_text(asked)?;
    let missing = || {
        not_found(format!(
            "The ledger’s nodes know no block \"{}\": it is not there yet, it is the genesis, which is a document, or older than \
             what they keep.",
            quote(&asked)
        ))
    };
    let number = match (number_of(&asked), word_of(&asked)) {
        (Some(number), _) => number,
        (None, Some(hash)) => {
            let number = explorer.in_turn(explorer.ledger.block_number(hash)).await?;
            number.ok_or_else(missing)?
        }
        (None, None) => {
            return Err(ApiError::invalid(
                "id",
                "A block is named by its height, or by its hash: 0x and 64 digits.",
            ));
        }
    };
    Ok(explorer.shown(Wanted::Block(number), missing).await?.response(&headers))
}

/// A transaction by its hash: what it asked for, by name where a module of the ledger took it, and what it did.
#[utoipa::path(get, path = "/v1/network/transactions/{hash}", tag = "network", params(
    ("hash" = String, Path, description = "`0x` and 64 digits."),
), responses(
    (status = 200, description = "The transaction; `waits` if it is in no block yet.", body = serde_json::Value),
    (status = 304, description = "As it was."),
    (status = 400, description = "No hash.", body = ErrorBody),
    (status = 404, description = "No node that answers knows it. `no_ledger`: this gateway uses none.", body = ErrorBody),
    (status = 503, description = "`ledger_unavailable`: it cannot be asked now.", body = ErrorBody),
))]
pub(super) async fn transaction(
    State(shared): State<Arc<Shared>>,
    asked: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let explorer = explorer(&shared)?;
    let asked = path_text(asked)?;
    let hash = word_of(&asked)
        .ok_or_else(|| ApiError::invalid("hash", "A transaction is named by its hash: 0x and 64 digits."))?;
    let missing =
        || not_found(format!("No node that answers knows a transaction {hash}, in a block or waiting."));
    Ok(explorer.shown(Wanted::Transaction(hash), missing).await?.response(&headers))
}

/// What is at an address: a module, an operator, a validator, a contract; what it has. Proven to this gateway.
#[utoipa::path(get, path = "/v1/network/accounts/{address}", tag = "network", params(
    ("address" = String, Path, description = "`0x` and 40 digits."),
), responses(
    (status = 200, description = "The account; one that never was is empty.", body = serde_json::Value),
    (status = 304, description = "As it was."),
    (status = 400, description = "No address.", body = ErrorBody),
    (status = 404, description = "`no_ledger`: this gateway uses none.", body = ErrorBody),
    (status = 503, description = "`ledger_unavailable`: it cannot be asked now.", body = ErrorBody),
))]
pub(super) async fn account(
    State(shared): State<Arc<Shared>>,
    asked: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let explorer = explorer(&shared)?;
    let address = address_of(&path_text(asked)?).ok_or_else(|| {
        ApiError::invalid("address", "An account is named by its address: 0x and 40 digits.")
    })?;
    let missing = || ApiError::bug("an account is always something");
    Ok(explorer.shown(Wanted::Account(address), missing).await?.response(&headers))
}

/// The latest disputes: who accuses whom, how they stand. Proven to this gateway.
#[utoipa::path(get, path = "/v1/network/disputes", tag = "network", responses(
    (status = 200, description = "The newest first, at most 64.", body = serde_json::Value),
    (status = 304, description = "As they were."),
    (status = 404, description = "`no_ledger`: this gateway uses none.", body = ErrorBody),
    (status = 503, description = "`ledger_unavailable`: it cannot be asked now.", body = ErrorBody),
))]
pub(super) async fn disputes(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let missing = || ApiError::bug("a list of disputes is always one");
    Ok(explorer(&shared)?.shown(Wanted::Disputes, missing).await?.response(&headers))
}

/// A dispute as its story: each move, what was in question after it, the word that was judged and what it was computed from, and what
/// it cost whom. The record is proven to this gateway; the moves are played again by the ledger's rules.
#[utoipa::path(get, path = "/v1/network/disputes/{id}", tag = "network", params(
    ("id" = u64, Path, description = "The ledger's number of it."),
), responses(
    (status = 200, description = "The story so far.", body = serde_json::Value),
    (status = 304, description = "As it was."),
    (status = 400, description = "No number.", body = ErrorBody),
    (status = 404, description = "The ledger knows no such dispute. `no_ledger`: this gateway uses none.", body = ErrorBody),
    (status = 503, description = "`ledger_unavailable`: it cannot be asked now.", body = ErrorBody),
))]
pub(super) async fn dispute(
    State(shared): State<Arc<Shared>>,
    asked: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let explorer = explorer(&shared)?;
    let id = number_of(&path_text(asked)?).ok_or_else(|| {
        ApiError::invalid("id", "A dispute is named by its number, as /v1/network/disputes has it.")
    })?;
    let missing = || not_found(format!("The ledger knows no dispute {id}."));
    Ok(explorer.shown(Wanted::Dispute(id), missing).await?.response(&headers))
}

/// What some text names: a height, a hash, an address, a dispute, a receipt, a request, a model or a worker's key.
#[utoipa::path(get, path = "/v1/network/find", tag = "network", params(
    ("q" = String, Query, description = "What is looked for."),
), responses(
    (status = 200, description = "What was found, and where it was looked for.", body = Findings),
    (status = 400, description = "Nothing, or too much, is looked for.", body = ErrorBody),
    (status = 404, description = "`no_ledger`: this gateway uses none.", body = ErrorBody),
    (status = 503, description = "`ledger_unavailable`: it cannot be asked now.", body = ErrorBody),
))]
pub(super) async fn find(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Json<Findings>, ApiError> {
    let explorer = explorer(&shared)?;
    let query = text_parameter(&uri, "q").unwrap_or_default().trim().to_owned();
    if query.is_empty() || query.chars().count() > QUERY_MAX {
        return Err(ApiError::invalid("q", "`q` is what is looked for, in at most 200 characters."));
    }
    let mut findings = Findings { query: query.clone(), found: Vec::new(), looked: Vec::new() };
    if let Some(id) = RequestId::parse(&query) {
        let said = "a request: its receipt, if this gateway keeps it, is read by the Verify page";
        findings.add("request", id.to_string(), said);
        return Ok(Json(findings));
    }
    if let Some((kind, number)) = numbered_as(&query) {
        explorer.in_turn(numbered(&explorer.ledger, number, &mut findings)).await?;
        findings.found.retain(|found| kind.is_none_or(|kind| found.kind == kind));
    } else if let Some(address) = address_of(&query) {
        findings.add("account", address.to_string(), "an account");
    } else if let Some(word) = word_of(query.strip_prefix("blake3:").unwrap_or(&query)) {
        explorer.in_turn(worded(&explorer.ledger, word, &mut findings)).await?;
    } else {
        if let Ok(model) = shared.workers.resolve(&query) {
            findings.add(
                "model",
                model.id.to_string(),
                "a model that workers of this gateway serve by that name",
            );
        }
        explorer.in_turn(named(&explorer.ledger, &query, &mut findings)).await?;
        findings.looked.push("names of models, at this gateway and on the ledger".to_owned());
    }
    Ok(Json(findings))
}

impl Findings {
    fn add(&mut self, kind: &'static str, id: String, said: impl Into<String>) {
        if !self.found.iter().any(|found| (found.kind, &found.id) == (kind, &id)) {
            self.found.push(Finding { kind, id, said: said.into() });
        }
    }
}

/// A number is a height, or a dispute's.
async fn numbered(ledger: &Ledger, number: u64, findings: &mut Findings) -> Result<(), LedgerError> {
    let Viewed { tip, value: disputes } = ledger.view(DISPUTES, &IDisputes::disputeCountCall {}).await?;
    let first = ledger.first_with_header();
    if (first..=tip.number).contains(&number) {
        findings.add("block", number.to_string(), "the block of that height");
    }
    if (1..=disputes).contains(&number) {
        findings.add("dispute", number.to_string(), "the dispute of that number");
    }
    findings.looked.push(format!("blocks {first} to {}", tip.number));
    findings.looked.push(match disputes {
        0 => "disputes, of which there are none".to_owned(),
        count => format!("disputes 1 to {count}"),
    });
    Ok(())
}

/// A word of 32 bytes may be a hash, a digest or a key.
async fn worded(ledger: &Ledger, word: B256, findings: &mut Findings) -> Result<(), LedgerError> {
    let known = ledger.views(|views| {
        let model = views.call(MODELS, &IModels::modelCall { id: word });
        let worker = views.call(OPERATORS, &IOperators::workerCall { key: word });
        let validator = views.call(STAKING, &IStaking::operatorOfCall { key: word });
        let dispute = views.call(DISPUTES, &IDisputes::disputeOfCall { receipt: word });
        Some((model?, worker?, validator?, dispute?))
    });
    let (model, worker, validator, dispute) = known.await?.value;
    if model.height > 0 {
        findings.add("model", ModelId(Digest(word.0)).to_string(), "a model, by its id");
    }
    if !worker.operator.is_zero() {
        let key = PublicKey(word.0);
        findings.add("account", worker.operator.to_string(), format!("the operator of the worker {key}"));
    }
    if !validator.is_zero() {
        findings.add("account", validator.to_string(), "the operator of the validator with that key");
    }
    if dispute > 0 {
        findings.add("dispute", dispute.to_string(), "the last dispute about the receipt of that digest");
    }
    if ledger.transaction_is_known(word).await? {
        findings.add("transaction", word.to_string(), "a transaction, by its hash");
    }
    if let Some(number) = ledger.block_number(word).await? {
        findings.add("block", number.to_string(), "a block, by its hash");
    }
    findings.looked.extend(
        [
            "transactions and blocks, by their hash",
            "models, by their id",
            "workers and validators, by their key",
            "disputes, claims and audits, by the digest of a receipt or an order",
        ]
        .map(str::to_owned),
    );
    if findings.found.is_empty() {
        for trace in ledger.traces(&Digest(word.0)).await? {
            let record = ledger.answer_record(trace.receipt.as_ref(), &trace.order, &trace.worker).await?;
            if let Some((dispute, _)) = record.dispute {
                findings.add("dispute", dispute.to_string(), "a dispute about the answer to that order");
            } else if let Some(operator) = record.operator {
                let said = format!(
                    "the operator of the worker {}, whose answer to that order was claimed or audited",
                    trace.worker
                );
                findings.add("account", operator.to_string(), said);
            }
        }
    }
    Ok(())
}

/// A name may be a model's on the ledger.
async fn named(ledger: &Ledger, name: &str, findings: &mut Findings) -> Result<(), LedgerError> {
    match ledger.view(MODELS, &IModels::resolveCall { name: name.to_owned() }).await {
        Ok(Viewed { value, .. }) if value.version > 0 => {
            findings.add(
                "model",
                ModelId(Digest(value.id.0)).to_string(),
                "a model, by its name on the ledger",
            );
            Ok(())
        }
        // What cannot be a name there is none.
        Ok(_) | Err(LedgerError::Reverted { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn explorer(shared: &Shared) -> Result<&Explorer, ApiError> {
    shared.explorer.as_ref().ok_or_else(|| {
        let message =
            "This gateway uses no ledger: there are no blocks, transactions or disputes to look at.";
        ApiError::new(Code::NoLedger, message)
    })
}

fn not_found(message: String) -> ApiError {
    ApiError::new(Code::NotFound, message).with_param("id")
}

/// A height or a number, in decimal digits alone.
fn number_of(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A number, and of what it is, where that is said: `7`, `#7`, `block 7`, `dispute-7`.
fn numbered_as(text: &str) -> Option<(Option<&'static str>, u64)> {
    let text = text.to_ascii_lowercase();
    let mut kinds = ["block", "dispute"].into_iter();
    let said = kinds.find_map(|kind| Some((Some(kind), text.strip_prefix(kind)?)));
    let (kind, number) = said.unwrap_or((None, text.as_str()));
    Some((kind, number_of(number.trim_start_matches([' ', '-', '#']))?))
}

/// 32 bytes in hexadecimal.
fn word_of(text: &str) -> Option<B256> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    (digits.len() == 64).then(|| digits.parse().ok()).flatten()
}

fn address_of(text: &str) -> Option<Address> {
    text.strip_prefix("0x").filter(|digits| digits.len() == 40).and_then(|digits| digits.parse().ok())
}

fn text_parameter(uri: &Uri, name: &str) -> Option<String> {
    let query = uri.query().unwrap_or_default();
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.into_iter().find(|(key, _)| *key == name)?.1.replace('+', " ");
    percent_encoding::percent_decode_str(&value).decode_utf8().ok().map(Into::into)
}

fn parameter(uri: &Uri, name: &'static str) -> Result<Option<u64>, ApiError> {
    let Some(text) = text_parameter(uri, name) else { return Ok(None) };
    let number = number_of(&text);
    number
        .map(Some)
        .ok_or_else(|| ApiError::invalid(name, format!("`{name}` is a number, not \"{}\".", quote(&text))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_words_and_addresses_are_told_apart() {
        let word = "ab".repeat(32);
        assert_eq!(
            (number_of("7"), number_of("+7"), number_of(""), number_of("18446744073709551616")),
            (Some(7), None, None, None)
        );
        assert_eq!((numbered_as("#7"), numbered_as("7")), (Some((None, 7)), Some((None, 7))));
        assert_eq!(numbered_as("Dispute 3"), Some((Some("dispute"), 3)));
        assert_eq!(
            (numbered_as("block-12"), numbered_as("blocks"), numbered_as("-")),
            (Some((Some("block"), 12)), None, None)
        );
        assert_eq!(word_of(&word), word_of(&format!("0x{word}")));
        assert_eq!((word_of(&word[1..]), word_of(&format!("0x{}g", &word[1..]))), (None, None));
        assert_eq!(address_of(&format!("0x{}", &word[..40])), Some(Address::repeat_byte(0xab)));
        assert_eq!(address_of(&word[..40]), None);
        let uri: Uri = "/v1/network/find?count=3&q=a%20b+c%C3%A9&q=x".parse().expect("a URI");
        assert_eq!(text_parameter(&uri, "q").as_deref(), Some("a b cé"));
        assert_eq!(
            (parameter(&uri, "count").expect("a number"), parameter(&uri, "before").expect("none")),
            (Some(3), None)
        );
        assert!(parameter(&uri, "q").is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_looked_for_is_read_or_not(text in ".{0,80}") {
            let _ = (numbered_as(&text), word_of(&text), address_of(&text));
        }
    }
}

//! What happened on a ledger in a span of time, in words: changes of rules, keys and models; what audits and disputes came to.
//!
//! In:     a ledger; the span.
//! Out:    each event in words, with its block and transaction; who runs which workers.
//! Touches: the network, through the ledger.
//! Holds:  operators and workers are proven; events are what a node says, each with the transaction that anyone can look up.
//! Absent: what the gateway saw (`access`).

use alloy_primitives::{Address, B256, Log};
use alloy_sol_types::SolEvent;
use serde::Serialize;
use surety_client::ledger::{Emitted, Ledger, rechecked::Verdict};
use surety_types::{
    Digest, PublicKey,
    abi::{
        IAudits, IClaims, IDisputes, IGovernance, IModels, IOperators, IStaking,
        address::{AUDITS, CLAIMS, DISPUTES, GOVERNANCE, MODELS, OPERATORS, STAKING},
    },
};

use super::moment::Moment;
use crate::output::excerpt;

/// Characters of a title or a name that are shown.
const TITLE_MAX: usize = 120;

/// What is known of the ledger.
pub struct Chain {
    pub happenings: Vec<Happening>,
    pub operators: Vec<NamedOperator>,
}

/// An operator, and the workers it has now.
pub struct NamedOperator {
    pub account: String,
    pub name: String,
    pub workers: Vec<PublicKey>,
}

/// Which list of the pack an event is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Change,
    Verification,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Happening {
    pub at: Moment,
    /// The event's name.
    pub event: &'static str,
    pub what: String,
    /// Whom it is about, if it is about an operator.
    pub operator: Option<String>,
    /// The receipt that it is about, by digest, and of which request that is, if the gateway knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    pub block: u64,
    /// The transaction, by hash; who has it can look it up at any node.
    pub reference: String,
    #[serde(skip)]
    pub subject: Subject,
    /// Somebody was found to have done wrong.
    #[serde(skip)]
    pub incident: bool,
}

/// An event in words.
struct Said {
    event: &'static str,
    what: String,
    operator: Option<Address>,
    receipt: Option<B256>,
    subject: Subject,
    incident: bool,
}

/// Looks at a ledger.
///
/// # Errors
/// If it cannot be asked.
pub async fn look(ledger: &Ledger, from: Moment, to: Moment) -> anyhow::Result<Chain> {
    let operators = ledger.operators().await?.value;
    let operators = operators.into_iter().map(|operator| NamedOperator {
        account: operator.account.to_string(),
        name: excerpt(&operator.name, TITLE_MAX),
        workers: operator.workers.iter().map(|(key, _)| PublicKey(key.0)).collect(),
    });
    let operators = operators.collect();
    let modules = [GOVERNANCE, STAKING, OPERATORS, MODELS, AUDITS, DISPUTES, CLAIMS];
    let found = ledger.events(&modules, from.0, to.0).await?;
    let mut happenings: Vec<Happening> = found.iter().filter_map(happening).collect();
    happenings.sort_by_key(|happening| (happening.at, happening.block));
    Ok(Chain { happenings, operators })
}

/// An event as the pack tells it; none if it is of no list.
fn happening(emitted: &Emitted) -> Option<Happening> {
    let said = said(&emitted.log)?;
    Some(Happening {
        at: Moment(emitted.at_ms),
        event: said.event,
        what: said.what,
        operator: said.operator.map(|operator| operator.to_string()),
        receipt: said.receipt.map(|receipt| Digest(receipt.0)),
        request_id: None,
        block: emitted.block,
        reference: format!("transaction {} in block {}", emitted.transaction, emitted.block),
        subject: said.subject,
        incident: said.incident,
    })
}

/// An event in words; none if it is of no list.
fn said(log: &Log) -> Option<Said> {
    macro_rules! one_of {
        ($address:ident: $($event:path as $name:literal => |$found:ident| $said:expr;)*) => {
            if log.address == $address {
                $(if let Ok($found) = <$event>::decode_log_data(&log.data) {
                    return Some(Said { event: $name, ..$said });
                })*
            }
        };
    }
    let text = |text: &str| excerpt(text, TITLE_MAX);
    one_of! { GOVERNANCE:
        IGovernance::Proposed as "Proposed" => |found| {
            change(format!("proposal {} by {}: {}", found.id, found.proposer, text(&found.title)))
        };
        IGovernance::Voted as "Voted" => |found| {
            let vote = ["against", "for", "abstaining"].get(usize::from(found.support)).unwrap_or(&"otherwise");
            change(format!("{} voted on proposal {}, {vote}, with {} wei", found.voter, found.id, found.weight))
        };
        IGovernance::Queued as "Queued" => |found| change(format!("proposal {} passed, and waits", found.id));
        IGovernance::Executed as "Executed" => |found| change(format!("proposal {} took effect", found.id));
        IGovernance::ParameterChanged as "ParameterChanged" => |found| {
            let name = String::from_utf8_lossy(found.name.as_slice());
            let name = text(name.trim_end_matches('\0'));
            change(format!("the parameter {name} was {}, and is {}", found.before, found.after_))
        };
        IGovernance::UpgradeScheduled as "UpgradeScheduled" => |found| {
            change(format!("an upgrade to {} is scheduled for block {}", text(&found.version), found.height))
        };
        IGovernance::UpgradeCancelled as "UpgradeCancelled" => |found| {
            change(format!("the upgrade at block {} is off", found.height))
        };
    }
    one_of! { STAKING:
        IStaking::ValidatorRegistered as "ValidatorRegistered" => |found| {
            of(found.operator, change(format!("a validator votes with the key {}", found.key)))
        };
        IStaking::ValidatorRetired as "ValidatorRetired" => |found| {
            of(found.operator, change("its validator retired".to_owned()))
        };
        IStaking::Unjailed as "Unjailed" => |found| of(found.operator, change("its validator is out of jail".to_owned()));
        IStaking::Slashed as "Slashed" => |found| {
            wrong(found.operator, change(format!("its validator {} voted twice: {} wei of stake were taken", found.key, found.amount)))
        };
        IStaking::Penalized as "Penalized" => |found| {
            wrong(found.operator, verification(format!("{} wei of its stake were taken", found.amount)))
        };
    }
    one_of! { OPERATORS:
        IOperators::OperatorRegistered as "OperatorRegistered" => |found| {
            of(found.operator, change(format!("an operator registered as {}", text(&found.name))))
        };
        IOperators::WorkerAdded as "WorkerAdded" => |found| {
            of(found.operator, change(format!("the worker key {} serves for it", found.key)))
        };
        IOperators::WorkerRetired as "WorkerRetired" => |found| {
            of(found.operator, change(format!("the worker key {} serves no more", found.key)))
        };
        IOperators::WorkersJailed as "WorkersJailed" => |found| {
            let until = Moment(found.until.saturating_mul(1000));
            wrong(found.operator, verification(format!("its workers are out of service until {until}")))
        };
    }
    one_of! { MODELS:
        IModels::Published as "Published" => |found| change(format!("model {} was published by {}", found.id, found.publisher));
        IModels::NameChanged as "NameChanged" => |found| {
            change(format!("the name {} means model {} now (version {})", text(&found.name), found.id, found.version))
        };
        IModels::NameTransferred as "NameTransferred" => |found| {
            change(format!("the name {} went from {} to {}", text(&found.name), found.from, found.to))
        };
    }
    one_of! { AUDITS:
        IAudits::Disclosed as "Disclosed" => |found| {
            about(found.receipt, of(found.operator, verification(format!("a receipt was drawn for audit {}", found.id))))
        };
        IAudits::Passed as "Passed" => |found| {
            verification(format!("audit {}: {} computed it again and found the same, to the bit", found.id, found.auditor))
        };
        IAudits::Differing as "Differing" => |found| {
            verification(format!("audit {}: {} computed something else; nobody is convicted by that", found.id, found.auditor))
        };
        IAudits::Accounted as "Accounted" => |found| {
            of(found.operator, verification(format!("an epoch's audits: {} missed, {} unconfirmed", found.missed, found.unconfirmed)))
        };
    }
    one_of! { DISPUTES:
        IDisputes::Opened as "Opened" => |found| {
            let what = format!("dispute {}: {} contests an answer", found.id, found.challenger);
            about(found.receipt, of(found.operator, verification(what)))
        };
        IDisputes::Convicted as "Convicted" => |found| {
            let why = Verdict { state: found.state }.reason();
            let what = format!("dispute {}: its worker was convicted: {why}; {} wei were taken", found.id, found.slashed);
            wrong(found.operator, verification(what))
        };
        IDisputes::Dismissed as "Dismissed" => |found| {
            let why = Verdict { state: found.state }.reason();
            of(found.operator, verification(format!("dispute {} was dismissed: {why}", found.id)))
        };
    }
    one_of! { CLAIMS:
        IClaims::Claimed as "Claimed" => |found| {
            of(found.operator, verification(format!("claim {}: an order is said to be unanswered", found.id)))
        };
        IClaims::Answered as "Answered" => |found| {
            let what = if found.completed { "a receipt" } else { "a receipt for a failure" };
            of(found.operator, verification(format!("claim {}: its worker showed {what}", found.id)))
        };
        IClaims::Compensated as "Compensated" => |found| {
            let what = format!("claim {}: its bond compensated the payer with {} wei", found.id, found.amount);
            wrong(found.operator, verification(what))
        };
    }
    None
}

fn plain(what: String, subject: Subject) -> Said {
    Said { event: "", what, operator: None, receipt: None, subject, incident: false }
}

fn change(what: String) -> Said {
    plain(what, Subject::Change)
}

fn verification(what: String) -> Said {
    plain(what, Subject::Verification)
}

fn of(operator: Address, said: Said) -> Said {
    Said { operator: Some(operator), ..said }
}

fn about(receipt: B256, said: Said) -> Said {
    Said { receipt: Some(receipt), ..said }
}

fn wrong(operator: Address, said: Said) -> Said {
    Said { incident: true, ..of(operator, said) }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::U256;

    use super::*;

    fn log(address: Address, event: &impl SolEvent) -> Log {
        Log { address, data: event.encode_log_data() }
    }

    #[test]
    fn events_are_put_into_words_with_their_place() {
        let name: &[u8] = b"pace_ms";
        let mut bytes = [0; 32];
        bytes[..name.len()].copy_from_slice(name);
        let changed = IGovernance::ParameterChanged {
            name: bytes.into(),
            before: U256::from(250),
            after_: U256::from(500),
        };
        let convicted = IDisputes::Convicted {
            id: 4,
            operator: Address::repeat_byte(1),
            challenger: Address::repeat_byte(2),
            state: 2,
            slashed: U256::from(5),
            refund: U256::ZERO,
            costs: U256::ZERO,
            bounty: U256::ZERO,
        };
        let disclosed = IAudits::Disclosed {
            id: B256::ZERO,
            operator: Address::repeat_byte(1),
            model: B256::ZERO,
            receipt: B256::repeat_byte(3),
            evidence: B256::ZERO,
        };
        let logs = [log(GOVERNANCE, &changed), log(DISPUTES, &convicted), log(AUDITS, &disclosed)];
        let found = logs.map(|log| {
            let transaction = B256::repeat_byte(9);
            happening(&Emitted { log, block: 7, at_ms: 1_000_000, transaction }).expect("it is of a list")
        });
        assert_eq!(found[0].what, "the parameter pace_ms was 250, and is 500");
        assert_eq!(
            (found[0].subject, found[0].incident, found[0].at),
            (Subject::Change, false, Moment(1_000_000))
        );
        assert!(found[0].reference.ends_with("in block 7"), "{}", found[0].reference);
        assert!(found[1].incident && found[1].what.contains("dispute 4: its worker was convicted"));
        assert_eq!(found[2].receipt, Some(Digest([3; 32])));
    }

    #[test]
    fn an_event_of_a_module_is_not_taken_for_anothers() {
        let retired = IStaking::ValidatorRetired { operator: Address::ZERO };
        assert!(said(&log(GOVERNANCE, &retired)).is_none());
        assert!(said(&log(STAKING, &retired)).is_some());
    }
}

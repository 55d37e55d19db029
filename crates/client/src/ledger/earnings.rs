//! Earnings: what a ledger shows that an operator was paid, epoch by epoch, and what it is still owed.
//!
//! In:     a ledger, an operator; epochs that were added up before. Out: what is proven now; what a node says happened.
//! Touches: the network, through the ledger.
//! Holds:  what is proven is as of one block, and apart from what is a node's word; so many epochs at most.
//! Absent: what a worker has charged and not claimed: that is in its own book (`surety worker earnings`).

use std::collections::BTreeMap;

use alloy_primitives::{Address, U256};
use alloy_sol_types::SolEvent as _;
use serde::{Serialize, Serializer};
use serde_json::json;
use surety_types::abi::{
    IAudits, IChannels, IClaims, IDisputes, IHosting, IStaking,
    address::{AUDITS, CHANNELS, CLAIMS, DISPUTES, HOSTING, STAKING},
};

use super::{Ledger, LedgerError, Viewed, events::Emitted, survey::balance};

/// Epochs that are told of before the one that has not ended.
pub const EPOCHS_MAX: u64 = 30;
/// The last whole epochs are added up again: the node that is asked may not have had all of them.
const UNSURE: u64 = 2;

/// What an operator earned. Amounts are wei, as decimal text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Earnings {
    /// Its account.
    pub operator: String,
    /// The block that what is proven is as of.
    pub number: u64,
    /// Its time, Unix milliseconds.
    pub timestamp_ms: u64,
    /// Proven: claimed for it on channels of orders, ever.
    pub claimed: String,
    /// Proven: of that, what has left the channels: to the operator, its auditors, who proposed blocks.
    pub settled: String,
    /// Proven: claimed and not settled. It waits until the logs that it is in are closed.
    pub unpaid: String,
    /// Proven: of that, what settling would let go now.
    pub due: String,
    /// Proven: what draws that it missed have still to take of its pay.
    pub to_be_taken: String,
    /// Proven: what its account holds.
    pub balance: String,
    /// Proven: what it has bonded itself.
    pub bonded: String,
    /// A node's word: the oldest first, without gaps; the last has not ended.
    pub epochs: Vec<EpochEarnings>,
}

/// What one epoch brought an operator, by a node's word, in wei.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EpochEarnings {
    /// Which.
    pub epoch: u64,
    /// Let go of what was claimed for it.
    #[serde(serialize_with = "decimal")]
    pub settled: U256,
    /// Kept of that for who audits it.
    #[serde(serialize_with = "decimal")]
    pub for_auditors: U256,
    /// Kept of that for who proposed the blocks.
    #[serde(serialize_with = "decimal")]
    pub for_proposers: U256,
    /// Taken of that for draws that it missed.
    #[serde(serialize_with = "decimal")]
    pub taken: U256,
    /// Paid for audits of others.
    #[serde(serialize_with = "decimal")]
    pub audits: U256,
    /// Paid for hosting.
    #[serde(serialize_with = "decimal")]
    pub hosting: U256,
    /// Of bonds of claims and disputes against it that failed.
    #[serde(serialize_with = "decimal")]
    pub bonds: U256,
    /// All that reached its account.
    #[serde(serialize_with = "decimal")]
    pub received: U256,
    /// Taken of its stake.
    #[serde(serialize_with = "decimal")]
    pub slashed: U256,
}

fn decimal<S: Serializer>(amount: &U256, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(amount)
}

/// What an operator earned. Of `known` epochs, which an earlier look returned, events are not asked for again.
///
/// # Errors
/// If no node answers, or one answers what cannot be.
pub async fn earnings(
    ledger: &Ledger,
    operator: Address,
    known: &[EpochEarnings],
) -> Result<Earnings, LedgerError> {
    let Viewed { tip, value: (channels, pay, bonded, held) } = ledger
        .views(|views| {
            let channels =
                views.call(CHANNELS, &IChannels::receiversCall { receiver: operator, token: Address::ZERO });
            let pay = views.call(AUDITS, &IAudits::payOfCall { operator });
            let bonded = views.call(STAKING, &IStaking::bondedOfCall { operator, delegator: operator });
            let held = balance(views, operator);
            Some((channels?, pay?, bonded?, held?))
        })
        .await?;
    let first = tip.epoch.saturating_sub(EPOCHS_MAX).max(ledger.genesis().first_epoch());
    let mut epochs: BTreeMap<u64, EpochEarnings> = BTreeMap::new();
    for one in known.iter().filter(|one| one.epoch >= first && one.epoch + UNSURE < tip.epoch) {
        epochs.insert(one.epoch, one.clone());
    }
    let from = (first..tip.epoch).find(|epoch| !epochs.contains_key(epoch)).unwrap_or(tip.epoch);
    epochs.retain(|epoch, _| *epoch < from);
    epochs.extend((from..=tip.epoch).map(|epoch| (epoch, EpochEarnings { epoch, ..Default::default() })));
    let length = ledger.spec().epoch_blocks;
    let first_block = (from * length).max(ledger.genesis().first_block() + 1);
    let party = operator.into_word();
    let questions = [
        ([CHANNELS, STAKING, AUDITS, AUDITS], json!([null, party])),
        ([AUDITS, HOSTING, CLAIMS, DISPUTES], json!([null, null, party])),
    ];
    for (modules, topics) in questions {
        for event in ledger.emitted(&modules, &topics, first_block, tip.number).await? {
            if let Some(epoch) = epochs.get_mut(&(event.block / length)) {
                epoch.count(operator, &event);
            }
        }
    }
    Ok(Earnings {
        operator: operator.to_string(),
        number: tip.number,
        timestamp_ms: tip.timestamp_ms,
        claimed: channels.totalClaimed.to_string(),
        settled: channels.totalSettled.to_string(),
        unpaid: pay.unpaid.to_string(),
        due: pay.due.to_string(),
        to_be_taken: pay.forfeited.to_string(),
        balance: held.to_string(),
        bonded: bonded.to_string(),
        epochs: epochs.into_values().collect(),
    })
}

impl EpochEarnings {
    /// Adds an event, if it is about what this operator was paid or lost.
    fn count(&mut self, operator: Address, event: &Emitted) {
        let Emitted { log, .. } = event;
        let add = |sum: &mut U256, amount: U256| *sum = sum.saturating_add(amount);
        match log.address {
            CHANNELS => {
                if let Ok(event) = IChannels::Settled::decode_log(log)
                    && event.receiver == operator
                {
                    add(&mut self.settled, U256::from(event.amount));
                }
            }
            STAKING => {
                if let Ok(event) = IStaking::Slashed::decode_log(log)
                    && event.operator == operator
                {
                    add(&mut self.slashed, event.amount);
                } else if let Ok(event) = IStaking::Penalized::decode_log(log)
                    && event.operator == operator
                {
                    add(&mut self.slashed, event.amount);
                }
            }
            AUDITS => self.count_of_audits(operator, log),
            HOSTING => {
                if let Ok(event) = IHosting::Proven::decode_log(log)
                    && event.operator == operator
                {
                    add(&mut self.hosting, event.paid);
                }
            }
            CLAIMS => {
                if let Ok(event) = IClaims::Answered::decode_log(log)
                    && event.operator == operator
                {
                    add(&mut self.bonds, event.toOperator);
                }
            }
            DISPUTES => {
                if let Ok(event) = IDisputes::Dismissed::decode_log(log)
                    && event.operator == operator
                {
                    add(&mut self.bonds, event.toOperator);
                }
            }
            _ => {}
        }
        let kept = self.for_auditors.saturating_add(self.for_proposers).saturating_add(self.taken);
        let own = self.settled.saturating_sub(kept);
        self.received = [self.audits, self.hosting, self.bonds].into_iter().fold(own, U256::saturating_add);
    }

    fn count_of_audits(&mut self, operator: Address, log: &alloy_primitives::Log) {
        let add = |sum: &mut U256, amount: U256| *sum = sum.saturating_add(amount);
        if let Ok(event) = IAudits::Shared::decode_log(log)
            && event.operator == operator
        {
            add(&mut self.for_auditors, event.auditors);
            add(&mut self.for_proposers, event.proposer);
        } else if let Ok(event) = IAudits::Forfeited::decode_log(log)
            && event.operator == operator
        {
            add(&mut self.taken, event.amount);
        } else if let Ok(event) = IAudits::Passed::decode_log(log)
            && event.auditor == operator
        {
            add(&mut self.audits, event.paid);
        }
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{B256, Log, LogData};

    use super::*;

    #[test]
    fn what_reaches_an_account_is_what_is_settled_less_what_others_are_given_of_it() {
        let (operator, other) = (Address::repeat_byte(1), Address::repeat_byte(2));
        let mut epoch = EpochEarnings::default();
        let mut count = |address, data: LogData| {
            let log = Log { address, data };
            epoch.count(operator, &Emitted { log, block: 7, at_ms: 1, transaction: B256::ZERO });
        };
        let amount = |amount: u64| U256::from(amount);
        for receiver in [operator, other] {
            let settled = IChannels::Settled { receiver, token: Address::ZERO, sender: other, amount: 1_000 };
            count(CHANNELS, settled.encode_log_data());
            let shared = IAudits::Shared { operator: receiver, auditors: amount(40), proposer: amount(10) };
            count(AUDITS, shared.encode_log_data());
            let forfeited = IAudits::Forfeited { operator: receiver, amount: amount(100) };
            count(AUDITS, forfeited.encode_log_data());
            let passed = IAudits::Passed { id: B256::ZERO, auditor: receiver, paid: amount(7) };
            count(AUDITS, passed.encode_log_data());
            let proven =
                IHosting::Proven { model: B256::ZERO, operator: receiver, epoch: 3, paid: amount(5) };
            count(HOSTING, proven.encode_log_data());
            let answered = IClaims::Answered {
                id: 1,
                operator: receiver,
                receipt: B256::ZERO,
                completed: true,
                toOperator: amount(3),
            };
            count(CLAIMS, answered.encode_log_data());
            let penalized = IStaking::Penalized { operator: receiver, amount: amount(9), paid: amount(9) };
            count(STAKING, penalized.encode_log_data());
        }
        // Another module's event of the same shape is nobody's pay.
        let settled =
            IChannels::Settled { receiver: operator, token: Address::ZERO, sender: other, amount: 1 };
        count(HOSTING, settled.encode_log_data());
        assert_eq!((epoch.settled, epoch.taken, epoch.slashed), (amount(1_000), amount(100), amount(9)));
        assert_eq!((epoch.for_auditors, epoch.for_proposers), (amount(40), amount(10)));
        assert_eq!((epoch.audits, epoch.hosting, epoch.bonds), (amount(7), amount(5), amount(3)));
        assert_eq!(epoch.received, amount(1_000 - 40 - 10 - 100 + 7 + 5 + 3));
        let told = serde_json::to_value(&epoch).expect("JSON");
        assert_eq!((&told["received"], &told["epoch"]), (&json!("865"), &json!(0)));
    }
}

//! Parameters: what governance may set, within bounds that it may not.
//!
//! In:     the parameters of a genesis, or a change that governance executes.
//! Out:    checked parameters; every block reads them once, at its start.
//! Holds:  each value within its bounds; leaving is always faster than the timelock.
//! Absent: deciding (`modules::governance`).

use alloy_primitives::{B256, U256};
use serde::{Deserialize, Serialize};

/// A credit, in wei.
const CREDIT: u128 = 1_000_000_000_000_000_000;
const MINUTE: u128 = 60;
const HOUR: u128 = 60 * MINUTE;
const DAY: u128 = 24 * HOUR;

/// A parameter's value was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParamsError {
    /// Out of its own bounds.
    #[error("{name} must be from {least} to {most}")]
    OutOfBounds {
        /// Which.
        name: &'static str,
        /// The least it may be.
        least: u128,
        /// The most it may be.
        most: u128,
    },
    /// Two of them contradict each other.
    #[error("{0}")]
    Contradiction(&'static str),
    /// Governance cannot change it.
    #[error("{0} is fixed at genesis")]
    Fixed(&'static str),
}

/// Amounts in files: a decimal string, because TOML and most JSON readers know no larger integers than 64 bits.
mod wei {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(amount: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(amount)
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u64),
        Text(String),
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Number(number) => Ok(number.into()),
            Written::Text(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

macro_rules! params {
    ($($(#[doc = $doc:literal])+ $(#[serde(with = $with:literal)])? $name:ident: $type:ty = $default:expr, in $least:expr => $most:expr $(, $fixed:ident)?;)+) => {
        /// Everything governance may set. The table below gives each one's default and bounds.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Params {
            $($(#[doc = $doc])+ $(#[serde(with = $with)])? pub $name: $type,)+
        }

        impl Default for Params {
            fn default() -> Self {
                Params { $($name: $default as $type,)+ }
            }
        }

        /// One parameter.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct Parameter {
            /// As the chain calls it.
            pub name: &'static str,
            /// Governance can set no less.
            pub least: u128,
            /// Governance can set no more.
            pub most: u128,
            /// Fixed at genesis.
            pub fixed: bool,
        }

        /// Every parameter, in the order in which they are stored.
        pub const PARAMETERS: &[Parameter] = &[
            $(Parameter { name: stringify!($name), least: $least, most: $most, fixed: params!(@fixed $($fixed)?) },)+
        ];

        impl Params {
            /// The value of one of [`PARAMETERS`], by its index.
            pub fn value(&self, index: usize) -> Option<u128> {
                let values = [$(u128::from(self.$name),)+];
                values.get(index).copied()
            }

            /// From values in the order of [`PARAMETERS`]; one that does not fit its type becomes the largest that does.
            pub(crate) fn from_values(mut value: impl FnMut(usize) -> u128) -> Params {
                let mut index = 0;
                $(
                    let $name = <$type>::try_from(value(index)).unwrap_or(<$type>::MAX);
                    index += 1;
                )+
                let _ = index;
                Params { $($name,)+ }
            }
        }
    };
    (@fixed fixed) => { true };
    (@fixed) => { false };
}

params! {
    /// The price of gas, in wei: nothing is cheaper, and more is a tip. The proposer gets all of it.
    minimum_gas_price: u64 = 1_000_000_000, in 1 => 1_000_000_000_000_000;
    /// Gas of a block.
    block_gas_max: u64 = 200_000_000, in 20_000_000 => 5_000_000_000;
    /// Gas of a transaction.
    transaction_gas_max: u64 = 16_777_216, in 1_000_000 => 100_000_000;
    /// Milliseconds between blocks that a proposer aims at.
    pace_ms: u64 = 250, in 50 => 60_000;
    /// Members of a validator set.
    validators_max: u64 = 32, in 1 => 128;
    /// Stake below which nobody is a validator, in wei.
    #[serde(with = "wei")]
    validator_stake_min: u128 = 1_000 * CREDIT, in 1 => 1_000_000_000_000 * CREDIT;
    /// Stake below which nobody registers workers or offers models, in wei.
    #[serde(with = "wei")]
    worker_stake_min: u128 = 10 * CREDIT, in 1 => 1_000_000_000_000 * CREDIT;
    /// Seconds that leaving stake waits, answerable meanwhile.
    unbonding_s: u64 = 5 * DAY, in 1 => 365 * DAY;
    /// Share of the stake that equivocation forfeits, in ten-thousandths.
    slash_equivocation_bps: u64 = 500, in 1 => 10_000;
    /// Share of what was forfeited that goes to whoever showed the evidence, in ten-thousandths.
    report_bounty_bps: u64 = 500, in 0 => 5_000;
    /// Epochs for which evidence counts.
    evidence_epochs_max: u64 = 10_000, in 1 => 1_000_000_000;
    /// Seconds of jail for downtime.
    jail_s: u64 = 10 * MINUTE, in 1 => 30 * DAY;
    /// Missed turns in an epoch below which nobody is jailed.
    jail_missed_min: u64 = 8, in 1 => 1_000_000_000;
    /// Missed turns, in percent of all its turns in an epoch, from which a validator is jailed.
    jail_missed_percent: u64 = 50, in 1 => 100;
    /// Stake below which nobody proposes, in wei.
    #[serde(with = "wei")]
    proposal_stake_min: u128 = 100 * CREDIT, in 1 => 1_000_000_000_000 * CREDIT;
    /// Seconds of voting.
    voting_s: u64 = 3 * DAY, in 1 => 365 * DAY;
    /// Share of the bonded stake that must vote, in ten-thousandths.
    quorum_bps: u64 = 3_334, in 1_000 => 10_000;
    /// Share of the votes for or against that must be exceeded for, in ten-thousandths.
    threshold_bps: u64 = 5_000, in 5_000 => 9_999;
    /// Seconds between a proposal's passing and its execution.
    timelock_s: u64 = 7 * DAY, in 2 => 730 * DAY;
    /// The timelock is never shorter.
    timelock_floor_s: u64 = 2 * DAY, in 2 => 730 * DAY, fixed;
    /// Seconds after the timelock in which a proposal can be executed.
    execution_s: u64 = 14 * DAY, in 1 => 365 * DAY;
    /// Blocks between the execution of an upgrade proposal and the upgrade.
    upgrade_lead_blocks: u64 = 1_200, in 1 => 1_000_000_000;
    /// Seconds: the least delay of a channel's withdrawal.
    channel_delay_min_s: u64 = 15 * MINUTE, in 1 => 30 * DAY;
    /// Seconds: the most delay of a channel's withdrawal.
    channel_delay_max_s: u64 = 3 * DAY, in 1 => 30 * DAY;
    /// Epochs after its end for which an epoch's receipts log can be posted.
    receipts_epochs_max: u64 = 1_000, in 1 => 1_000_000_000;
    /// Bytes of the worst leaf of a dispute that a model may need; a judge reads no more than the default.
    dispute_leaf_bytes_max: u64 = 16_384, in 1_024 => 16_384;
    /// Holders of a model that are paid in an epoch.
    hosting_replicas: u64 = 3, in 1 => 64;
    /// Chunks that a holder opens in an epoch to be paid.
    hosting_chunks: u64 = 8, in 1 => 16;
    /// Share of a model's pool that is for the holders of an epoch, in millionths.
    hosting_payout_ppm: u64 = 100, in 1 => 1_000_000;
    /// Bond of a failure claim, in wei.
    #[serde(with = "wei")]
    claim_bond: u128 = CREDIT / 50, in 1 => 1_000_000 * CREDIT;
    /// Seconds after an order's deadline in which a claim can be made; at most a quarter of the unbonding.
    claim_window_s: u64 = DAY, in 1 => 365 * DAY;
    /// Seconds in which a claim can be answered; at most a quarter of the unbonding.
    claim_answer_s: u64 = 2 * HOUR, in 1 => 30 * DAY;
    /// What an acceptance without a receipt costs its operator in any case, in wei.
    #[serde(with = "wei")]
    claim_fixed: u128 = CREDIT / 10, in 0 => 1_000_000 * CREDIT;
    /// And so much of what the answer could have cost, in ten-thousandths.
    claim_cost_bps: u64 = 20_000, in 0 => 1_000_000;
    /// All claims of a day together take no more of an operator's stake, in ten-thousandths.
    claim_day_bps: u64 = 100, in 1 => 10_000;
    /// Seconds in which a receipt can be disputed; at most half of the unbonding.
    dispute_window_s: u64 = 2 * DAY, in 1 => 365 * DAY;
    /// Seconds for a move of a dispute; at most a 32nd of the unbonding.
    dispute_move_s: u64 = HOUR, in 1 => 30 * DAY;
    /// Words of a trace for which a worker has another second before its first move, which is at most an eighth of the
    /// unbonding for all of them; a receipt with a longer trace is not disputed.
    dispute_words_per_s: u64 = 1 << 21, in 1 => 1 << 40;
    /// The least bond of a challenger, in wei.
    #[serde(with = "wei")]
    dispute_bond_min: u128 = CREDIT, in 1 => 1_000_000 * CREDIT;
    /// What 2^30 words of a trace cost a worker to compute, in wei.
    #[serde(with = "wei")]
    dispute_words_price: u128 = CREDIT / 100, in 0 => 1_000_000 * CREDIT;
    /// Gas that a move of a dispute is taken to cost.
    dispute_move_gas: u64 = 2_000_000, in 1 => 100_000_000;
    /// Open disputes of one challenger.
    dispute_open_max: u64 = 8, in 1 => 1_000_000;
    /// Share of an operator's stake that a conviction takes, in ten-thousandths.
    dispute_slash_bps: u64 = 1_000, in 1 => 9_000;
    /// And at least so many times what was paid for the answer.
    dispute_slash_charges: u64 = 10, in 1 => 1_000_000;
    /// But never a larger share, in ten-thousandths.
    dispute_slash_max_bps: u64 = 5_000, in 1 => 9_000;
    /// What the payer gets back of what it paid for the answer, in ten-thousandths.
    dispute_refund_bps: u64 = 20_000, in 10_000 => 1_000_000;
    /// Share of what is then left that goes to a challenger that had committed to its accusation, in ten-thousandths.
    dispute_bounty_bps: u64 = 1_000, in 0 => 5_000;
    /// Share of the usual penalty that a first fault costs that its operator had named itself, in ten-thousandths.
    dispute_memory_bps: u64 = 2_000, in 0 => 10_000;
    /// Seconds after a fault that an operator named itself before which it can name no other; at least the unbonding.
    dispute_report_s: u64 = 30 * DAY, in 1 => 365 * DAY;
    /// Seconds for which the workers of a convicted operator are out of service.
    dispute_jail_s: u64 = DAY, in 1 => 365 * DAY;
    /// Share of what is settled for an operator that is for auditors of its receipts, in ten-thousandths.
    auditors_bps: u64 = 400, in 0 => 2_000;
    /// Share of what is settled for an operator that is for the proposer of the block, in ten-thousandths.
    validators_bps: u64 = 100, in 0 => 1_000;
    /// Of a million receipts of an operator that has passed audit_passes audits, so many are audited.
    audit_ppm: u64 = 20_000, in 1 => 1_000_000;
    /// However many audits an operator has passed, so many are.
    audit_floor_ppm: u64 = 10_000, in 1 => 1_000_000;
    /// Audits after which an operator's rate is audit_ppm; before it is more, in proportion, and afterwards less.
    audit_passes: u64 = 64, in 1 => 1_000_000;
    /// Receipts of one log that are audited, at most.
    audit_log_max: u64 = 64, in 1 => 65_536;
    /// Epochs that each step of an audit may take.
    audit_epochs: u64 = 4, in 1 => 1_000;
    /// Audits missed without one passed between them from which pay is withheld.
    audit_misses_max: u64 = 3, in 1 => 1_000_000;
    /// Epochs for which it is.
    audit_withhold_epochs: u64 = 100, in 1 => 100_000;
    /// Share of what the receipts charged that a missed draw stands for that it takes of its operator's pay, in
    /// ten-thousandths.
    audit_miss_bps: u64 = 40_000, in 0 => 1_000_000;
    /// Stake above which an operator is drawn as auditor no more often, in wei.
    #[serde(with = "wei")]
    audit_stake_max: u128 = 100 * CREDIT, in 1 => 1_000_000_000_000 * CREDIT;
}

impl Params {
    /// Whether each is within its bounds and they agree with each other.
    pub fn check(&self) -> Result<(), ParamsError> {
        for (index, parameter) in PARAMETERS.iter().enumerate() {
            let value = self.value(index).unwrap_or_default();
            if !(parameter.least..=parameter.most).contains(&value) {
                return Err(ParamsError::OutOfBounds {
                    name: parameter.name,
                    least: parameter.least,
                    most: parameter.most,
                });
            }
        }
        let rules = [
            (self.transaction_gas_max <= self.block_gas_max, "transaction_gas_max exceeds block_gas_max"),
            (self.timelock_s >= self.timelock_floor_s, "timelock_s is below timelock_floor_s"),
            (
                self.unbonding_s < self.timelock_s,
                "unbonding_s must be less than timelock_s: exit comes first",
            ),
            (
                self.channel_delay_max_s < self.timelock_s,
                "channel_delay_max_s must be less than timelock_s: exit comes first",
            ),
            (
                self.channel_delay_min_s <= self.channel_delay_max_s,
                "channel_delay_min_s exceeds channel_delay_max_s",
            ),
            (self.audit_floor_ppm <= self.audit_ppm, "audit_floor_ppm exceeds audit_ppm"),
            (self.voting_s <= self.unbonding_s, "voting_s exceeds unbonding_s: stake could vote twice"),
            (
                self.dispute_slash_bps <= self.dispute_slash_max_bps,
                "dispute_slash_bps exceeds dispute_slash_max_bps",
            ),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, contradiction)) => Err(ParamsError::Contradiction(contradiction)),
            None => Ok(()),
        }
    }

    /// Seconds after an order's deadline in which a claim can be made. Claims end while stake that was there at the
    /// deadline is still answerable, however long the unbonding is.
    pub fn claim_window(&self) -> u64 {
        self.claim_window_s.min(self.unbonding_s / 4)
    }

    /// Seconds in which a claim can be answered.
    pub(crate) fn claim_answer(&self) -> u64 {
        self.claim_answer_s.min(self.unbonding_s / 4).max(1)
    }

    /// Seconds in which a receipt can be disputed.
    pub(crate) fn dispute_window(&self) -> u64 {
        self.dispute_window_s.min(self.unbonding_s / 2)
    }

    /// Seconds between two faults that an operator may name itself: both are never about answers of one window.
    pub(crate) fn dispute_report(&self) -> u64 {
        self.dispute_report_s.max(self.unbonding_s)
    }

    /// Seconds for a move of a dispute.
    pub(crate) fn dispute_move(&self) -> u64 {
        self.dispute_move_s.min(self.unbonding_s / 32).max(1)
    }

    /// Seconds in which a worker computes a trace of so many words; nothing if that is too long.
    pub(crate) fn dispute_trace(&self, words: u64) -> Option<u64> {
        let seconds = words / self.dispute_words_per_s.max(1);
        (seconds <= self.unbonding_s / 8).then_some(seconds)
    }

    /// Seconds that a dispute of so many moves, and a trace of whatever length, lasts at most.
    pub(crate) fn dispute_longest(&self, moves: u64) -> u64 {
        (self.unbonding_s / 8).saturating_add(self.dispute_move().saturating_mul(moves))
    }

    /// These with changes by index, as governance may make them; checked together.
    pub(crate) fn changed(&self, changes: &[(usize, U256)]) -> Result<Params, ParamsError> {
        let mut values: Vec<u128> = (0..PARAMETERS.len()).filter_map(|index| self.value(index)).collect();
        for (index, value) in changes {
            let Some(parameter) = PARAMETERS.get(*index) else { continue };
            if parameter.fixed {
                return Err(ParamsError::Fixed(parameter.name));
            }
            let out_of_bounds = ParamsError::OutOfBounds {
                name: parameter.name,
                least: parameter.least,
                most: parameter.most,
            };
            let value = u128::try_from(*value).map_err(|_| out_of_bounds.clone())?;
            if !(parameter.least..=parameter.most).contains(&value) {
                return Err(out_of_bounds);
            }
            values[*index] = value;
        }
        let params = Params::from_values(|index| values[index]);
        params.check()?;
        Ok(params)
    }
}

impl Parameter {
    /// The name as the chain writes it: ASCII, padded with zeros.
    pub fn name_word(&self) -> B256 {
        B256::right_padding_from(self.name.as_bytes())
    }

    /// The index of a name in [`PARAMETERS`].
    pub fn index_of(name: &B256) -> Option<usize> {
        PARAMETERS.iter().position(|parameter| parameter.name_word() == *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(name: &str) -> usize {
        PARAMETERS.iter().position(|parameter| parameter.name == name).expect("a parameter")
    }

    #[test]
    fn the_defaults_agree_and_have_distinct_names() {
        assert_eq!(Params::default().check(), Ok(()));
        for (at, parameter) in PARAMETERS.iter().enumerate() {
            assert!(parameter.name.len() <= 32 && parameter.least <= parameter.most);
            assert_eq!(Parameter::index_of(&parameter.name_word()), Some(at));
        }
        let params = Params::default();
        assert_eq!(Params::from_values(|index| params.value(index).expect("in range")), params);
    }

    #[test]
    fn exit_is_always_faster_than_the_timelock() {
        let params = Params::default();
        let check = |name: &str, value: u64, expected: &str| {
            let error = params.changed(&[(index(name), U256::from(value))]).expect_err("refused");
            assert!(error.to_string().contains(expected), "{error}");
        };
        check("unbonding_s", params.timelock_s, "unbonding_s must be less than timelock_s");
        check("channel_delay_max_s", params.timelock_s, "channel_delay_max_s must be less");
        check("timelock_s", params.timelock_floor_s - 1, "below timelock_floor_s");
        check("voting_s", params.unbonding_s + 1, "could vote twice");
        check("timelock_floor_s", 3, "fixed at genesis");
        check("quorum_bps", 10_001, "quorum_bps must be from 1000 to 10000");
        let huge = params.changed(&[(index("pace_ms"), U256::MAX)]);
        assert!(matches!(huge, Err(ParamsError::OutOfBounds { name: "pace_ms", .. })));
    }

    /// Whoever is convicted still has what was at stake when it signed: half of the unbonding to open, an eighth to compute
    /// the trace, eleven moves of a 32nd each.
    #[test]
    fn disputes_and_claims_end_before_stake_has_left() {
        for unbonding_s in [32, 90, 3_600, 5 * DAY as u64, 365 * DAY as u64] {
            for (window, one_move) in [(1, 1), (DAY as u64, 60), (365 * DAY as u64, 30 * DAY as u64)] {
                let params = Params {
                    unbonding_s,
                    dispute_window_s: window,
                    dispute_move_s: one_move,
                    claim_window_s: window,
                    claim_answer_s: one_move,
                    ..Params::default()
                };
                assert!(params.dispute_window() + params.dispute_longest(11) <= unbonding_s, "{params:?}");
                assert!(params.claim_window() + params.claim_answer() <= unbonding_s, "{params:?}");
            }
        }
        let params = Params::default();
        assert_eq!(params.dispute_window(), params.dispute_window_s, "the defaults are not cut short");
        assert_eq!(params.dispute_move(), params.dispute_move_s);
        assert_eq!(
            (params.claim_window(), params.claim_answer()),
            (params.claim_window_s, params.claim_answer_s)
        );
        assert_eq!(params.dispute_trace(1 << 30), Some(512));
        assert_eq!(params.dispute_trace(1 << 41), None);
    }

    #[test]
    fn changes_are_checked_together() {
        let params = Params::default();
        let longer = params.timelock_s * 2;
        let both = [
            (index("unbonding_s"), U256::from(params.timelock_s)),
            (index("timelock_s"), U256::from(longer)),
        ];
        assert_eq!(params.changed(&both).expect("they agree").timelock_s, longer);
    }
}

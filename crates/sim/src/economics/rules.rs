//! Rules and market: what the ledger enforces, and what is assumed about the world around it.
//!
//! In:     numbers.
//! Out:    rates, caps, expectations that follow from them.
//! Touches: nothing.
//! Absent: reading the rules from a ledger (`bin`).

use serde::Serialize;

/// 10⁻⁹ credits, which is 10⁹ wei: the price of one gas at least.
pub type Gwei = u64;

/// Ten-thousandths in a whole.
pub const BPS: u64 = 10_000;
/// Millionths in a whole.
pub const PPM: u64 = 1_000_000;
const CREDIT: Gwei = 1_000_000_000;
const DAY_S: u64 = 86_400;
/// Nothing is larger: sums of many still fit 64 bits.
const VALUE_MAX: u64 = 1 << 44;

/// What the ledger enforces. Where a parameter of the ledger has the same name, it is that parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rules {
    /// The price of a gas.
    pub minimum_gas_price: Gwei,
    /// Stake below which nobody serves.
    pub worker_stake_min: Gwei,
    /// Seconds for which leaving stake remains answerable.
    pub unbonding_s: u64,
    /// Share of a price that is for auditors of the operator, in ten-thousandths.
    pub auditors_bps: u64,
    /// Share of a price that is for validators, in ten-thousandths.
    pub validators_bps: u64,
    /// Of a million receipts of an operator that has passed `audit_passes` audits, so many are audited.
    pub audit_ppm: u64,
    /// However many audits were passed, so many are.
    pub audit_floor_ppm: u64,
    /// Audits after which the rate is `audit_ppm`; before it is more, in proportion, and afterwards less.
    pub audit_passes: u64,
    /// Receipts of one log that are audited, at most.
    pub audit_log_max: u64,
    /// Epochs that each step of an audit may take.
    pub audit_epochs: u64,
    /// Audits missed without one passed between them from which pay is withheld.
    pub audit_misses_max: u64,
    /// Epochs for which it is.
    pub audit_withhold_epochs: u64,
    /// Share of what the receipts charged that a missed draw stands for that it takes of its operator's pay, in
    /// ten-thousandths.
    pub audit_miss_bps: u64,
    /// Stake above which an operator is drawn as auditor no more often.
    pub audit_stake_max: Gwei,
    /// Bond of a failure claim.
    pub claim_bond: Gwei,
    /// What an acceptance without a receipt costs its operator in any case.
    pub claim_fixed: Gwei,
    /// And so much of what the answer could have cost, in ten-thousandths.
    pub claim_cost_bps: u64,
    /// All claims of a day together take no more of an operator's stake, in ten-thousandths.
    pub claim_day_bps: u64,
    /// Seconds for a move of a dispute.
    pub dispute_move_s: u64,
    /// The least bond of a challenger.
    pub dispute_bond_min: Gwei,
    /// What 2^30 words of a trace are taken to cost.
    pub dispute_words_price: Gwei,
    /// Gas that a move of a dispute is taken to cost.
    pub dispute_move_gas: u64,
    /// Open disputes of one challenger.
    pub dispute_open_max: u64,
    /// Share of an operator's stake that a conviction takes, in ten-thousandths.
    pub dispute_slash_bps: u64,
    /// And at least so many times what was paid for the answer.
    pub dispute_slash_charges: u64,
    /// But never a larger share, in ten-thousandths.
    pub dispute_slash_max_bps: u64,
    /// What the payer gets back of what it paid for the answer, in ten-thousandths; out of what is slashed.
    pub dispute_refund_bps: u64,
    /// Share of what is then left that goes to the challenger, in ten-thousandths.
    pub dispute_bounty_bps: u64,
    /// Share of the usual penalty for a first fault that its operator had named itself, in ten-thousandths.
    pub dispute_memory_bps: u64,
    /// Seconds after a fault that an operator named itself before which it can name no other.
    pub dispute_report_s: u64,
    /// Seconds for which the workers of a convicted operator are out of service.
    pub dispute_jail_s: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            minimum_gas_price: 1,
            worker_stake_min: 10 * CREDIT,
            unbonding_s: 5 * DAY_S,
            auditors_bps: 400,
            validators_bps: 100,
            audit_ppm: 20_000,
            audit_floor_ppm: 10_000,
            audit_passes: 64,
            audit_log_max: 64,
            audit_epochs: 4,
            audit_misses_max: 3,
            audit_withhold_epochs: 100,
            audit_miss_bps: 40_000,
            audit_stake_max: 100 * CREDIT,
            claim_bond: CREDIT / 50,
            claim_fixed: CREDIT / 10,
            claim_cost_bps: 20_000,
            claim_day_bps: 100,
            dispute_move_s: 3_600,
            dispute_bond_min: CREDIT,
            dispute_words_price: CREDIT / 100,
            dispute_move_gas: 2_000_000,
            dispute_open_max: 8,
            dispute_slash_bps: 1_000,
            dispute_slash_charges: 10,
            dispute_slash_max_bps: 5_000,
            dispute_refund_bps: 20_000,
            dispute_bounty_bps: 1_000,
            dispute_memory_bps: 2_000,
            dispute_report_s: 30 * DAY_S,
            dispute_jail_s: DAY_S,
        }
    }
}

impl Rules {
    /// Sets a rule by the name of its parameter, to the parameter's value: amounts are wei there. False if no rule has
    /// that name, or the value is too large to be simulated.
    pub fn set(&mut self, name: &str, value: u128) -> bool {
        const AMOUNTS: [&str; 7] = [
            "minimum_gas_price",
            "worker_stake_min",
            "audit_stake_max",
            "claim_bond",
            "claim_fixed",
            "dispute_bond_min",
            "dispute_words_price",
        ];
        let field = match name {
            "minimum_gas_price" => &mut self.minimum_gas_price,
            "worker_stake_min" => &mut self.worker_stake_min,
            "unbonding_s" => &mut self.unbonding_s,
            "auditors_bps" => &mut self.auditors_bps,
            "validators_bps" => &mut self.validators_bps,
            "audit_ppm" => &mut self.audit_ppm,
            "audit_floor_ppm" => &mut self.audit_floor_ppm,
            "audit_passes" => &mut self.audit_passes,
            "audit_log_max" => &mut self.audit_log_max,
            "audit_epochs" => &mut self.audit_epochs,
            "audit_misses_max" => &mut self.audit_misses_max,
            "audit_withhold_epochs" => &mut self.audit_withhold_epochs,
            "audit_miss_bps" => &mut self.audit_miss_bps,
            "audit_stake_max" => &mut self.audit_stake_max,
            "claim_bond" => &mut self.claim_bond,
            "claim_fixed" => &mut self.claim_fixed,
            "claim_cost_bps" => &mut self.claim_cost_bps,
            "claim_day_bps" => &mut self.claim_day_bps,
            "dispute_move_s" => &mut self.dispute_move_s,
            "dispute_bond_min" => &mut self.dispute_bond_min,
            "dispute_words_price" => &mut self.dispute_words_price,
            "dispute_move_gas" => &mut self.dispute_move_gas,
            "dispute_open_max" => &mut self.dispute_open_max,
            "dispute_slash_bps" => &mut self.dispute_slash_bps,
            "dispute_slash_charges" => &mut self.dispute_slash_charges,
            "dispute_slash_max_bps" => &mut self.dispute_slash_max_bps,
            "dispute_refund_bps" => &mut self.dispute_refund_bps,
            "dispute_bounty_bps" => &mut self.dispute_bounty_bps,
            "dispute_memory_bps" => &mut self.dispute_memory_bps,
            "dispute_report_s" => &mut self.dispute_report_s,
            "dispute_jail_s" => &mut self.dispute_jail_s,
            _ => return false,
        };
        let scaled = if AMOUNTS.contains(&name) { value / 1_000_000_000 } else { value };
        match u64::try_from(scaled) {
            Ok(scaled) if scaled <= VALUE_MAX => *field = scaled,
            _ => return false,
        }
        true
    }
}

/// Auditors that are drawn one after another, if one does not come through.
pub(super) const ATTEMPTS: u64 = 3;
/// Moves of each side in a dispute.
const MOVES: u64 = 5;

/// What is assumed about the world; no rule makes it so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Market {
    /// The mean price of an answer; prices are even between a third of it and five thirds.
    pub price: Gwei,
    /// What computing an answer costs, in ten-thousandths of its price.
    pub compute_bps: u64,
    /// What a cheaper model's answer costs.
    pub cheap_bps: u64,
    /// What one teacher-forced prefill costs.
    pub audit_bps: u64,
    /// Words of an answer's trace.
    pub trace_words: u64,
    /// What making a trace costs, for 2^30 words.
    pub trace_cost: Gwei,
    /// Gas of the audited worker in an audit.
    pub audit_worker_gas: u64,
    /// Gas of the auditor in an audit.
    pub audit_auditor_gas: u64,
    /// Gas of a move in a dispute.
    pub move_gas: u64,
    /// Seconds of an epoch.
    pub epoch_s: u64,
    /// What somebody outside pays for every wrong answer.
    pub bribe: Gwei,
    /// Of a million receipts, so many are audited by their payers besides.
    pub payer_audit_ppm: u64,
    /// Operators.
    pub operators: u64,
    /// Stake of each.
    pub bond: Gwei,
    /// What each has besides.
    pub purse: Gwei,
    /// Answers that are asked for in an epoch, of all together.
    pub jobs_per_epoch: u64,
    /// Audits each operator has passed before.
    pub score: u64,
    /// Share of the proposers' turns that the deviating party has, in millionths: it withholds a block whose beacon
    /// draws one of its lies.
    pub beacon_ppm: u64,
    /// Blocks it can withhold in one epoch before it is jailed.
    pub withholds_max: u64,
    /// What a withheld block costs its proposer.
    pub withhold_cost: Gwei,
}

impl Default for Market {
    fn default() -> Self {
        Self {
            price: CREDIT * 3 / 10_000,
            compute_bps: 4_000,
            cheap_bps: 500,
            audit_bps: 2_800,
            trace_words: 1 << 30,
            trace_cost: CREDIT / 200,
            audit_worker_gas: 436_000,
            audit_auditor_gas: 283_000,
            move_gas: 1_000_000,
            epoch_s: 600,
            bribe: 0,
            payer_audit_ppm: 0,
            operators: 20,
            bond: 10 * CREDIT,
            purse: 20 * CREDIT,
            jobs_per_epoch: 200,
            score: 0,
            beacon_ppm: 0,
            withholds_max: 7,
            withhold_cost: CREDIT / 1_000,
        }
    }
}

/// A share of an amount.
pub(super) fn share(amount: Gwei, bps: u64) -> Gwei {
    (u128::from(amount) * u128::from(bps) / u128::from(BPS)) as Gwei
}

impl Rules {
    /// Of a million receipts of an operator with this score, so many are audited.
    #[must_use]
    pub fn rate_ppm(&self, score: u64) -> u64 {
        match self.audit_ppm.saturating_mul(self.audit_passes).checked_div(score) {
            None => PPM,
            Some(rate) => rate.clamp(self.audit_floor_ppm, PPM),
        }
    }

    /// How much an operator may have been paid that is not audited yet: g in p·C ≥ (1−p)·g, for what a conviction takes, C,
    /// and never more than that.
    #[must_use]
    pub fn cap(&self, bond: Gwei, rate_ppm: u64) -> Gwei {
        let rest = PPM.saturating_sub(rate_ppm);
        let taken = share(bond, self.dispute_slash_bps);
        if rest <= rate_ppm {
            taken
        } else {
            (u128::from(taken) * u128::from(rate_ppm) / u128::from(rest)) as Gwei
        }
    }

    /// What a draw that is missed takes of pay, where receipts charge so much on average and so many stand behind a draw.
    #[must_use]
    pub fn forfeit(&self, average: Gwei, stands_for: u64) -> Gwei {
        share(average.saturating_mul(stands_for), self.audit_miss_bps)
    }

    /// Epochs between two faults that an operator may name itself.
    #[must_use]
    pub fn report_epochs(&self, market: &Market) -> u64 {
        market.epochs(self.dispute_report_s.max(self.unbonding_s))
    }

    /// What a conviction takes of a stake, for an answer of this price; the refund and the challenger's costs come out of it.
    #[must_use]
    pub fn slash(&self, bond: Gwei, price: Gwei) -> Gwei {
        let least = price.saturating_mul(self.dispute_slash_charges);
        share(bond, self.dispute_slash_bps).max(least).min(share(bond, self.dispute_slash_max_bps))
    }

    /// What a side is paid for a dispute that it wins.
    #[must_use]
    pub fn dispute_repaid(&self, trace_words: u64) -> Gwei {
        let words = (u128::from(trace_words) * u128::from(self.dispute_words_price)) >> 30;
        (words as Gwei).saturating_add(MOVES * self.dispute_move_gas * self.minimum_gas_price)
    }

    /// What a challenger locks.
    #[must_use]
    pub fn dispute_bond(&self, trace_words: u64) -> Gwei {
        self.dispute_bond_min.max(2 * self.dispute_repaid(trace_words))
    }

    /// Epochs from the end of a log's epoch until it is closed: its posting, disclosure, the auditors' turns, the answer.
    #[must_use]
    pub fn closing_epochs(&self) -> u64 {
        1 + self.audit_epochs * (ATTEMPTS + 2)
    }

    /// The gain from one wrong answer at which it pays nothing to give it, if it is caught with this probability.
    #[must_use]
    pub fn break_even_gain(&self, bond: Gwei, price: Gwei, caught: f64) -> f64 {
        caught * self.slash(bond, price) as f64 / (1.0 - caught)
    }

    /// The expected gain from `lies` wrong answers given before the first is audited, each worth `gain`; one conviction.
    #[must_use]
    pub fn lies_expectation(&self, bond: Gwei, price: Gwei, caught: f64, gain: f64, lies: f64) -> f64 {
        let any = 1.0 - (1.0 - caught).powf(lies);
        lies * gain - any * self.slash(bond, price) as f64
    }
}

impl Market {
    /// What a wrong answer saves, and brings.
    #[must_use]
    pub fn gain(&self) -> Gwei {
        share(self.price, self.compute_bps.saturating_sub(self.cheap_bps)) + self.bribe
    }

    /// What a side spends in a dispute of all moves: gas, and its trace.
    #[must_use]
    pub fn dispute_spent(&self, rules: &Rules) -> (Gwei, Gwei) {
        let trace = (u128::from(self.trace_words) * u128::from(self.trace_cost)) >> 30;
        (MOVES * self.move_gas * rules.minimum_gas_price, trace as Gwei)
    }

    /// Epochs in so many seconds, rounded up.
    #[must_use]
    pub fn epochs(&self, seconds: u64) -> u64 {
        seconds.div_ceil(self.epoch_s.max(1))
    }
}

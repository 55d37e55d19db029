//! World: a run, job by job and epoch by epoch.
//!
//! In:     rules, a market, parties, a seed.
//! Out:    what each party earned, spent, lost; or the invariant that broke.
//! Touches: nothing.
//! Holds:  books and honest parties are checked after every job, audit, claim and dispute.
//! Absent: block times, networks, bytes: a job is served or not, a deadline kept or not.
//!
//! An epoch: jobs are served; what is due is paid, less the shares; the log of two epochs ago is drawn, audited, disputed;
//! accusers accuse; whose jail or unbonding ends goes on.

use serde::Serialize;

use super::{
    Account, Agent, AuditAct, AuditSight, Books, Disclosure, Gwei, Market, PPM, Random, Rules, Served, Sight,
    Step, Violation,
    agents::Extorter,
    checks,
    rules::{ATTEMPTS, share},
};

/// A party with a worker.
pub struct Party {
    /// How it behaves.
    pub agent: Box<dyn Agent>,
    /// Who is behind it: several operators may be one owner's.
    pub owner: u32,
    /// Those it colludes with.
    pub coalition: Option<u32>,
    /// Its stake.
    pub bond: Gwei,
    /// What it has besides.
    pub purse: Gwei,
}

/// A party without one.
#[derive(Debug, Clone, Copy)]
pub struct Outsider {
    /// How it behaves.
    pub agent: Extorter,
    /// Who is behind it.
    pub owner: u32,
    /// What it has.
    pub purse: Gwei,
}

/// Everything a run is made of.
pub struct Setting {
    /// What the ledger enforces.
    pub rules: Rules,
    /// What is assumed.
    pub market: Market,
    /// With a worker; at most 1,024.
    pub parties: Vec<Party>,
    /// Without one.
    pub outsiders: Vec<Outsider>,
    /// Answers that are asked for.
    pub jobs: u64,
    /// Equal seeds give equal runs.
    pub seed: u64,
}

/// What happened to one party. Amounts are gwei.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Stake at the beginning.
    pub bonded: Gwei,
    /// Stake added since.
    pub topped_up: Gwei,
    /// Stake that came back.
    pub unbonded: Gwei,
    /// Answers receipted.
    pub served: u64,
    /// Wrong ones among them, on purpose or not.
    pub wrong: u64,
    /// Acceptances without a receipt.
    pub failures: u64,
    /// What computing cost.
    pub computed: Gwei,
    /// Receipts of it that were drawn.
    pub drawn: u64,
    /// Those that passed.
    pub passed: u64,
    /// Those it did not disclose, or not in time.
    pub missed: u64,
    /// Those no auditor came through with.
    pub unconfirmed: u64,
    /// Audits of others it was paid for.
    pub audits: u64,
    /// Digests it made up, refused because the worker's was another.
    pub guesses_refused: u64,
    /// Commitments it copied, refused because they are bound to another's key.
    pub copies_refused: u64,
    /// Audits it skipped or was late for.
    pub skipped: u64,
    /// Convictions as a liar, silence included.
    pub lies: u64,
    /// Convictions for faults it had reported.
    pub memory_faults: u64,
    /// Disputes it won.
    pub cleared: u64,
    /// Stake taken by convictions as a liar.
    pub slashed: Gwei,
    /// Stake taken by convictions for reported faults.
    pub memory_penalties: Gwei,
    /// What of both went to payers.
    pub refunded: Gwei,
    /// Stake paid for acceptances without a receipt.
    pub compensated: Gwei,
    /// Pay taken for draws it did not disclose.
    pub forfeited: Gwei,
    /// The most that waited for audits at one time.
    pub unpaid_most: Gwei,
    /// Gas and traces of disputes it won.
    pub defence_spent: Gwei,
    /// What it was repaid for them.
    pub defence_repaid: Gwei,
    /// Disputes and claims it lost as an accuser.
    pub accusations_lost: u64,
    /// Disputes it won as an accuser.
    pub accusations_won: u64,
    /// Blocks it withheld.
    pub withheld_blocks: u64,
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Operators, then outsiders, in the order of the setting.
    pub tallies: Vec<Tally>,
    /// What each has now more than at the beginning, less what computing cost it.
    pub profits: Vec<i64>,
    /// Whose each is.
    pub owners: Vec<u32>,
    /// Answers that were asked for.
    pub jobs: u64,
    /// Answers that no operator had room for, or that failed four times.
    pub unserved: u64,
    /// Epochs it took.
    pub epochs: u64,
}

impl Outcome {
    /// The profit of all that is one owner's.
    #[must_use]
    pub fn profit_of(&self, owner: u32) -> i64 {
        let all = self.owners.iter().zip(&self.profits);
        all.filter(|(of, _)| **of == owner).map(|(_, profit)| profit).sum()
    }

    /// A figure summed over all that is one owner's.
    pub fn sum_of(&self, owner: u32, figure: impl Fn(&Tally) -> u64) -> u64 {
        let all = self.owners.iter().zip(&self.tallies);
        all.filter(|(of, _)| **of == owner).map(|(_, tally)| figure(tally)).sum()
    }
}

#[derive(Debug, Clone, Copy)]
struct Receipt {
    price: Gwei,
    truth: Served,
}

struct Log {
    epoch: u64,
    value: Gwei,
    receipts: Vec<Receipt>,
    /// How many of its receipts stand behind one that is drawn.
    stands_for: u64,
    missed: u64,
}

struct Operator {
    agent: Box<dyn Agent>,
    random: Random,
    owner: u32,
    coalition: Option<u32>,
    purse: Account,
    bond: Account,
    pool: Account,
    /// Claimed, and not paid yet.
    unpaid: Account,
    began_with: Gwei,
    score: u64,
    missed_since: u64,
    withheld_until: u64,
    jailed_until: u64,
    unbonds_at: Option<u64>,
    /// What claims took in a day.
    claims: (u64, Gwei),
    /// When it named a fault itself.
    reported_at: Option<u64>,
    logs: Vec<Log>,
    /// All that its receipts charged, how many there were, what of it is audited, and what of it has left the escrow.
    claimed: Gwei,
    receipts: u64,
    cleared: Gwei,
    settled: Gwei,
    /// What draws that it missed have still to take.
    owed: Gwei,
    tally: Tally,
}

struct Accuser {
    agent: Extorter,
    random: Random,
    owner: u32,
    purse: Account,
    began_with: Gwei,
    tally: Tally,
}

/// Of one log: the receipts that are drawn, each with its auditors in turn.
struct Drawn {
    operator: usize,
    epoch: u64,
    receipt: Receipt,
    rate_ppm: u64,
    auditors: [Option<usize>; ATTEMPTS as usize],
}

/// Who accuses.
#[derive(Clone, Copy)]
enum Challenger {
    Operator(usize),
    Outsider(usize),
    Payer,
}

struct World {
    rules: Rules,
    market: Market,
    seed: u64,
    books: Books,
    payers: Account,
    escrow: Account,
    validators: Account,
    forfeited: Account,
    locked: Account,
    outside: Account,
    operators: Vec<Operator>,
    accusers: Vec<Accuser>,
    demand: Random,
    beacon: Random,
    epoch: u64,
    last_epoch: u64,
    unserved: u64,
}

/// Parties of a run, at most.
const PARTIES_MAX: usize = 1_024;
/// Workers that are tried for one order.
const TRIED_MAX: usize = 4;
/// Owner of whoever deviates in comparisons.
pub(super) const FOCUS: u32 = 0;

/// Runs it.
///
/// # Errors
/// An invariant broke.
///
/// # Panics
/// If there are more than 1,024 parties, or no jobs in an epoch.
pub fn run(setting: Setting) -> Result<Outcome, Violation> {
    assert!(setting.parties.len() <= PARTIES_MAX, "at most {PARTIES_MAX} parties");
    assert!(setting.market.jobs_per_epoch > 0, "an epoch has jobs");
    let jobs = setting.jobs;
    let mut world = World::new(setting);
    let mut left = jobs;
    // What was served last is still drawn, audited and disputed, and leaving stake still answers.
    let after = world.rules.closing_epochs().max(world.market.epochs(world.rules.unbonding_s)) + 2;
    let epochs = world.last_epoch + after;
    for epoch in 1..=epochs {
        world.epoch = epoch;
        let now = left.min(world.market.jobs_per_epoch);
        for _ in 0..now {
            world.job();
            world.check_books()?;
        }
        left -= now;
        world.settle();
        world.check()?;
        world.audits()?;
        if epoch <= world.last_epoch {
            world.accusations()?;
        }
        world.turn();
        world.check()?;
    }
    Ok(world.outcome(jobs, epochs))
}

impl World {
    fn new(setting: Setting) -> Self {
        let Setting { rules, market, parties, outsiders, jobs, seed } = setting;
        let mut books = Books::default();
        let all_prices = market.price.saturating_mul(4).saturating_mul(jobs.max(1));
        let payers = books.open(all_prices);
        let [escrow, validators, forfeited, locked] = std::array::from_fn(|_| books.open(0));
        let outside = books.open(market.bribe.saturating_mul(jobs));
        let operators = parties.into_iter().enumerate().map(|(index, party)| Operator {
            agent: party.agent,
            random: Random::new(seed, 16 + index as u64),
            owner: party.owner,
            coalition: party.coalition,
            purse: books.open(party.purse),
            bond: books.open(party.bond),
            pool: books.open(0),
            unpaid: books.open(0),
            began_with: party.bond + party.purse,
            score: market.score,
            missed_since: 0,
            withheld_until: 0,
            jailed_until: 0,
            unbonds_at: None,
            claims: (0, 0),
            reported_at: None,
            logs: Vec::new(),
            claimed: 0,
            receipts: 0,
            cleared: 0,
            settled: 0,
            owed: 0,
            tally: Tally { bonded: party.bond, ..Tally::default() },
        });
        let operators = operators.collect();
        let accusers = outsiders.into_iter().enumerate().map(|(index, outsider)| Accuser {
            agent: outsider.agent,
            random: Random::new(seed, 16 + (PARTIES_MAX + index) as u64),
            owner: outsider.owner,
            purse: books.open(outsider.purse),
            began_with: outsider.purse,
            tally: Tally::default(),
        });
        let accusers = accusers.collect();
        let last_epoch = jobs.div_ceil(market.jobs_per_epoch).max(1);
        Self {
            rules,
            market,
            seed,
            books,
            payers,
            escrow,
            validators,
            forfeited,
            locked,
            outside,
            operators,
            accusers,
            demand: Random::new(seed, 1),
            beacon: Random::new(seed, 2),
            epoch: 0,
            last_epoch,
            unserved: 0,
        }
    }

    fn outcome(self, jobs: u64, epochs: u64) -> Outcome {
        let books = &self.books;
        let gain = |now: Gwei, began: Gwei, computed: Gwei| now as i64 - began as i64 - computed as i64;
        let operators = self.operators.iter().map(|operator| {
            let accounts = [operator.purse, operator.bond, operator.unpaid];
            let now = accounts.iter().map(|account| books.balance(*account)).sum();
            gain(now, operator.began_with, operator.tally.computed)
        });
        let accusers = self
            .accusers
            .iter()
            .map(|accuser| gain(books.balance(accuser.purse), accuser.began_with, accuser.tally.computed));
        let profits = operators.chain(accusers).collect();
        let owners = self.operators.iter().map(|operator| operator.owner);
        let owners = owners.chain(self.accusers.iter().map(|accuser| accuser.owner)).collect();
        let tallies = self.operators.into_iter().map(|operator| operator.tally);
        let tallies = tallies.chain(self.accusers.into_iter().map(|accuser| accuser.tally)).collect();
        Outcome { tallies, profits, owners, jobs, unserved: self.unserved, epochs }
    }

    fn violation(&self, broken: checks::Invariant) -> Violation {
        Violation { seed: self.seed, epoch: self.epoch, broken }
    }

    fn check_books(&self) -> Result<(), Violation> {
        checks::conserved(&self.books).map_err(|broken| self.violation(broken))
    }

    fn check(&self) -> Result<(), Violation> {
        self.check_books()?;
        for (index, operator) in self.operators.iter().enumerate() {
            if operator.agent.is_honest() {
                checks::honest_keeps(index, self.books.balance(operator.bond), &operator.tally)
                    .map_err(|broken| self.violation(broken))?;
            }
        }
        Ok(())
    }

    /// Whether an operator's workers are in service.
    fn serves(&self, index: usize) -> bool {
        let operator = &self.operators[index];
        operator.unbonds_at.is_none()
            && !operator.agent.is_down(self.epoch)
            && operator.jailed_until <= self.epoch
            && self.books.balance(operator.bond) >= self.rules.worker_stake_min
    }

    /// Who is given an order: by stake, less for misses; none if nobody serves who was not tried.
    fn route(&mut self, tried: &[usize]) -> Option<usize> {
        let weight = |index: usize| {
            if tried.contains(&index) || !self.serves(index) {
                return 0;
            }
            let operator = &self.operators[index];
            self.books.balance(operator.bond) >> operator.missed_since.min(4)
        };
        let weights: Vec<Gwei> = (0..self.operators.len()).map(weight).collect();
        let sum: Gwei = weights.iter().sum();
        if sum == 0 {
            return None;
        }
        let mut at = self.demand.below(sum);
        weights.iter().position(|weight| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        })
    }

    fn job(&mut self) {
        let third = self.market.price / 3;
        let price = third * (1 + self.demand.below(5));
        self.books.pay(self.payers, self.escrow, price);
        let mut tried = Vec::new();
        while tried.len() < TRIED_MAX {
            let Some(index) = self.route(&tried) else { break };
            let sight = Sight { epoch: self.epoch, last_epoch: self.last_epoch, price };
            let operator = &mut self.operators[index];
            let truth = operator.agent.serve(&sight, &mut operator.random);
            let cost_bps = match truth {
                Served::Wrong => self.market.cheap_bps,
                Served::Right | Served::Faulty => self.market.compute_bps,
                Served::Nothing => self.market.compute_bps / 2,
            };
            operator.tally.computed += share(price, cost_bps);
            if truth == Served::Nothing {
                operator.tally.failures += 1;
                self.compensate(index, price);
                tried.push(index);
                continue;
            }
            operator.tally.served += 1;
            operator.tally.wrong += u64::from(truth != Served::Right);
            let purse = operator.purse;
            let epoch = self.epoch;
            let receipt = Receipt { price, truth };
            match operator.logs.last_mut().filter(|log| log.epoch == epoch) {
                Some(log) => {
                    log.value += price;
                    log.receipts.push(receipt);
                }
                None => {
                    let receipts = vec![receipt];
                    operator.logs.push(Log { epoch, value: price, receipts, stands_for: 1, missed: 0 });
                }
            }
            if truth == Served::Wrong {
                self.books.pay(self.outside, purse, self.market.bribe);
            }
            return;
        }
        self.books.pay(self.escrow, self.payers, price);
        self.unserved += 1;
    }

    /// An acceptance without a receipt: the payer is compensated, within what a day may cost.
    fn compensate(&mut self, index: usize, price: Gwei) {
        let day = self.epoch / self.market.epochs(86_400).max(1);
        let operator = &mut self.operators[index];
        if operator.claims.0 != day {
            operator.claims = (day, 0);
        }
        let most = share(self.books.balance(operator.bond), self.rules.claim_day_bps);
        let wanted = self.rules.claim_fixed + share(price, self.rules.claim_cost_bps);
        let due = wanted.min(most.saturating_sub(operator.claims.1));
        let paid = self.books.pay(operator.bond, self.payers, due);
        operator.claims.1 += paid;
        operator.tally.compensated += paid;
    }

    /// What the epoch's receipts charge is claimed, and paid as far as it may be.
    fn settle(&mut self) {
        for index in 0..self.operators.len() {
            let operator = &mut self.operators[index];
            if let Some(log) = operator.logs.last().filter(|log| log.epoch == self.epoch) {
                operator.claimed += log.value;
                operator.receipts += log.receipts.len() as u64;
                self.books.pay(self.escrow, operator.unpaid, log.value);
            }
            self.release(index);
        }
    }

    /// Pays what was claimed for an operator: what is audited, and an advance up to its cap; what missed draws take comes
    /// first, then the shares. Nothing while pay is withheld or its workers are in jail.
    fn release(&mut self, index: usize) {
        let operator = &mut self.operators[index];
        let unpaid = self.books.balance(operator.unpaid);
        operator.tally.unpaid_most = operator.tally.unpaid_most.max(unpaid);
        if operator.withheld_until > self.epoch || operator.jailed_until > self.epoch {
            return;
        }
        let trusted = match operator.missed_since {
            0 => self.rules.rate_ppm(operator.score),
            _ => self.rules.audit_floor_ppm,
        };
        let advance = self.rules.cap(self.books.balance(operator.bond), trusted);
        let most = operator.claimed.min(operator.cleared + advance);
        let due = most.saturating_sub(operator.settled).min(unpaid);
        operator.settled += due;
        let taken = self.books.pay(operator.unpaid, self.forfeited, due.min(operator.owed));
        operator.owed -= taken;
        operator.tally.forfeited += taken;
        let rest = due - taken;
        let auditors = share(rest, self.rules.auditors_bps);
        let validators = share(rest, self.rules.validators_bps);
        self.books.pay(operator.unpaid, operator.pool, auditors);
        self.books.pay(operator.unpaid, self.validators, validators);
        self.books.pay(operator.unpaid, operator.purse, rest - auditors - validators);
    }

    /// Draws what is due, and sees each audit through.
    fn audits(&mut self) -> Result<(), Violation> {
        let drawn = self.draw();
        for log in &drawn {
            self.stand_for(log);
        }
        let mut results: Vec<(u64, bool)> = vec![(0, false); self.operators.len()];
        for draw in &drawn {
            self.audit(draw, &mut results[draw.operator]);
            self.check()?;
        }
        for (index, (missed, unconfirmed)) in results.into_iter().enumerate() {
            let halvings = 2 * missed + u64::from(unconfirmed);
            let operator = &mut self.operators[index];
            operator.score = operator.score.checked_shr(halvings as u32).unwrap_or(0);
            operator.missed_since += missed;
            if missed > 0 && operator.missed_since >= self.rules.audit_misses_max {
                let until = self.epoch + self.rules.closing_epochs() + self.rules.audit_withhold_epochs;
                operator.withheld_until = operator.withheld_until.max(until);
            }
        }
        if self.market.payer_audit_ppm > 0 {
            self.payer_audits()?;
        }
        Ok(())
    }

    /// What the beacon draws. Whoever proposes the block that makes it, and deviates, sees it first and may withhold it.
    fn draw(&mut self) -> Vec<Drawn> {
        let mut withheld = 0;
        loop {
            let drawn = self.draw_once();
            let own = self.beacon.chance(self.market.beacon_ppm);
            let caught = own && drawn.iter().any(|drawn| self.catches(drawn));
            if !caught || withheld == self.market.withholds_max {
                return drawn;
            }
            withheld += 1;
            if let Some(focus) = self.operators.iter_mut().find(|operator| operator.owner == FOCUS) {
                focus.tally.withheld_blocks += 1;
                focus.tally.computed += self.market.withhold_cost;
            }
        }
    }

    fn draw_once(&mut self) -> Vec<Drawn> {
        let mut drawn = Vec::new();
        let Some(due) = self.epoch.checked_sub(2) else { return drawn };
        let offering: Vec<usize> = (0..self.operators.len()).filter(|index| self.serves(*index)).collect();
        let whole = self.rules.audit_stake_max;
        let stake = |index: &usize| self.books.balance(self.operators[*index].bond).min(whole);
        let stakes: Vec<Gwei> = offering.iter().map(stake).collect();
        for (index, operator) in self.operators.iter().enumerate() {
            let Some(log) = operator.logs.iter().find(|log| log.epoch == due) else { continue };
            let rate_ppm = self.rules.rate_ppm(operator.score);
            let mut count = 0;
            for receipt in &log.receipts {
                if count == self.rules.audit_log_max || !self.beacon.chance(rate_ppm) {
                    continue;
                }
                count += 1;
                let mut auditors = [None; ATTEMPTS as usize];
                let own = offering.iter().position(|other| *other == index).map_or(0, |at| stakes[at]);
                let others = stakes.iter().sum::<Gwei>() - own;
                for place in auditors.iter_mut().filter(|_| others > 0) {
                    let mut at = self.beacon.below(others);
                    let by_stake = offering.iter().zip(&stakes).filter(|(other, _)| **other != index);
                    for (other, stake) in by_stake {
                        if at < *stake {
                            *place = Some(*other);
                            break;
                        }
                        at -= stake;
                    }
                }
                drawn.push(Drawn { operator: index, epoch: due, receipt: *receipt, rate_ppm, auditors });
            }
        }
        drawn
    }

    /// Notes how many receipts of its log a draw stands for: by the rate, or by the log's most if that binds.
    fn stand_for(&mut self, drawn: &Drawn) {
        let most = self.rules.audit_log_max;
        let operator = &mut self.operators[drawn.operator];
        let Some(log) = operator.logs.iter_mut().find(|log| log.epoch == drawn.epoch) else { return };
        let size = log.receipts.len() as u64;
        log.stands_for = PPM / drawn.rate_ppm.max(1);
        if size * drawn.rate_ppm / PPM > most {
            log.stands_for = (size / most.max(1)).max(log.stands_for);
        }
    }

    /// Whether a draw shows a lie of the deviating party to an auditor that is no friend.
    fn catches(&self, drawn: &Drawn) -> bool {
        let operator = &self.operators[drawn.operator];
        let friend = |auditor: usize| {
            operator.coalition.is_some() && self.operators[auditor].coalition == operator.coalition
        };
        operator.owner == FOCUS
            && drawn.receipt.truth == Served::Wrong
            && !drawn.auditors[0].is_some_and(friend)
    }

    fn audit(&mut self, drawn: &Drawn, result: &mut (u64, bool)) {
        let Drawn { operator: index, epoch, receipt, rate_ppm, auditors } = *drawn;
        let step_s = self.rules.audit_epochs * self.market.epoch_s;
        let compute = share(receipt.price, self.market.audit_bps);
        let gas_price = self.rules.minimum_gas_price;
        let operator = &mut self.operators[index];
        operator.tally.drawn += 1;
        let choice = operator.agent.disclose(receipt.truth == Served::Wrong);
        let in_time = operator.agent.in_time(Step::Audit, step_s, &mut operator.random)
            && !operator.agent.is_down(self.epoch + self.rules.audit_epochs - 1);
        let mut reported = false;
        let mut withholds = choice == Disclosure::Withholds;
        if choice == Disclosure::Checks && in_time {
            operator.tally.computed += compute;
            if receipt.truth != Served::Right {
                let again = self.rules.report_epochs(&self.market);
                reported = operator.reported_at.is_none_or(|at| at + again <= self.epoch);
                withholds = !reported;
                operator.reported_at = if reported { Some(self.epoch) } else { operator.reported_at };
            }
        }
        if withholds || !in_time {
            operator.tally.missed += 1;
            if let Some(log) = operator.logs.iter_mut().find(|log| log.epoch == epoch) {
                log.missed += 1;
            }
            result.0 += 1;
            return;
        }
        self.books.pay(operator.purse, self.validators, self.market.audit_worker_gas * gas_price);
        let (pool, coalition) = (operator.pool, operator.coalition);
        if choice == Disclosure::Starves {
            operator.tally.unconfirmed += 1;
            result.1 = true;
            return;
        }
        let fee = share(receipt.price, self.rules.auditors_bps);
        let fee = (u128::from(fee) * u128::from(PPM) / u128::from(rate_ppm.max(1))) as Gwei;
        let gas = self.market.audit_auditor_gas * gas_price;
        for auditor in auditors.into_iter().flatten() {
            let pay = fee.min(self.books.balance(pool));
            let this = &mut self.operators[auditor];
            let friend = coalition.is_some() && this.coalition == coalition;
            let act = this.agent.audit(&AuditSight { pay, cost: compute + gas, friend }, &mut this.random);
            let in_time = this.agent.in_time(Step::Audit, step_s, &mut this.random);
            if act == AuditAct::Skips || !in_time {
                this.tally.skipped += 1;
                continue;
            }
            self.books.pay(this.purse, self.validators, gas);
            match act {
                AuditAct::Computes => {
                    this.tally.computed += compute;
                    if receipt.truth == Served::Right {
                        self.pass(index, auditor, pay);
                    } else {
                        self.dispute(index, Challenger::Operator(auditor), receipt, reported);
                    }
                }
                AuditAct::Vouches => self.pass(index, auditor, pay),
                AuditAct::Guesses => {
                    // The worker's answer is another digest; the auditor has nothing to dispute it with.
                    this.tally.guesses_refused += 1;
                    continue;
                }
                AuditAct::Copies => {
                    // What it committed to opens under the worker's key only.
                    this.tally.copies_refused += 1;
                    continue;
                }
                AuditAct::Skips => continue,
            }
            return;
        }
        self.operators[index].tally.unconfirmed += 1;
        result.1 = true;
    }

    fn pass(&mut self, index: usize, auditor: usize, pay: Gwei) {
        let (pool, purse) = (self.operators[index].pool, self.operators[auditor].purse);
        self.books.pay(pool, purse, pay);
        self.operators[auditor].tally.audits += 1;
        let operator = &mut self.operators[index];
        operator.score += 1;
        operator.missed_since = 0;
        operator.tally.passed += 1;
    }

    /// Payers who compute their answers again. What is wrong they dispute; nobody warns the worker before.
    fn payer_audits(&mut self) -> Result<(), Violation> {
        let Some(due) = self.epoch.checked_sub(2) else { return Ok(()) };
        for index in 0..self.operators.len() {
            let Some(at) = self.operators[index].logs.iter().position(|log| log.epoch == due) else {
                continue;
            };
            let receipts = self.operators[index].logs[at].receipts.clone();
            for receipt in receipts {
                if self.beacon.chance(self.market.payer_audit_ppm) && receipt.truth != Served::Right {
                    self.dispute(index, Challenger::Payer, receipt, false);
                    self.check()?;
                }
            }
        }
        Ok(())
    }

    /// A dispute, from its bond to its verdict.
    fn dispute(&mut self, index: usize, challenger: Challenger, receipt: Receipt, reported: bool) {
        let bond = self.rules.dispute_bond(self.market.trace_words);
        let repaid = self.rules.dispute_repaid(self.market.trace_words);
        let (gas, trace) = self.market.dispute_spent(&self.rules);
        let purse = match challenger {
            Challenger::Operator(auditor) => self.operators[auditor].purse,
            Challenger::Outsider(accuser) => self.accusers[accuser].purse,
            Challenger::Payer => self.payers,
        };
        if self.books.balance(purse) < bond + gas {
            return;
        }
        self.books.pay(purse, self.locked, bond);
        self.books.pay(purse, self.validators, gas);
        if let Some(tally) = self.tally_of(challenger) {
            tally.computed += trace;
        }
        let operator = &mut self.operators[index];
        // The worker's moves: its root, then a division a round.
        let moves_s = self.rules.dispute_move_s;
        let silent = !(0..5).all(|_| operator.agent.in_time(Step::Move, moves_s, &mut operator.random));
        let gas_paid = self.books.pay(operator.purse, self.validators, gas);
        if receipt.truth == Served::Right && !silent {
            operator.tally.computed += trace;
            operator.tally.defence_spent += gas_paid + trace;
            let to_operator = self.books.pay(self.locked, operator.purse, repaid.min(bond));
            operator.tally.defence_repaid += to_operator;
            operator.tally.cleared += 1;
            self.books.pay(self.locked, self.forfeited, bond - to_operator);
            if let Some(tally) = self.tally_of(challenger) {
                tally.accusations_lost += 1;
            }
            return;
        }
        let stake = self.books.balance(operator.bond);
        let mut penalty = self.rules.slash(stake, receipt.price);
        if reported {
            penalty = share(penalty, self.rules.dispute_memory_bps);
        }
        let wanted = share(receipt.price, self.rules.dispute_refund_bps);
        let refund = self.books.pay(operator.bond, self.payers, wanted.min(penalty));
        let costs = self.books.pay(operator.bond, purse, repaid.min(penalty - refund));
        let left = penalty - refund - costs;
        let bounty = self.books.pay(operator.bond, purse, share(left, self.rules.dispute_bounty_bps));
        self.books.pay(operator.bond, self.forfeited, left - bounty);
        self.books.pay(self.locked, purse, bond);
        let taken = stake - self.books.balance(operator.bond);
        // What stake does not reach comes out of what is not paid yet.
        let more = self.books.pay(operator.unpaid, self.payers, wanted - refund);
        operator.settled += more;
        operator.tally.refunded += refund + more;
        operator.score = 0;
        operator.jailed_until = self.epoch + self.market.epochs(self.rules.dispute_jail_s);
        if reported {
            operator.tally.memory_faults += 1;
            operator.tally.memory_penalties += taken;
        } else {
            operator.tally.lies += 1;
            operator.tally.slashed += taken;
        }
        if let Some(tally) = self.tally_of(challenger) {
            tally.accusations_won += 1;
        }
    }

    fn tally_of(&mut self, challenger: Challenger) -> Option<&mut Tally> {
        match challenger {
            Challenger::Operator(auditor) => Some(&mut self.operators[auditor].tally),
            Challenger::Outsider(accuser) => Some(&mut self.accusers[accuser].tally),
            Challenger::Payer => None,
        }
    }

    /// What accusers do: they dispute right answers, and claim failures that were none.
    fn accusations(&mut self) -> Result<(), Violation> {
        for accuser in 0..self.accusers.len() {
            let Extorter { disputes, claims } = self.accusers[accuser].agent;
            for number in 0..disputes.min(self.rules.dispute_open_max) + claims {
                let count = self.operators.len() as u64;
                let random = &mut self.accusers[accuser].random;
                let victim = random.below(count.max(1)) as usize;
                let Some(log) = self.operators[victim].logs.last() else { continue };
                let receipt = log.receipts[random.below(log.receipts.len() as u64) as usize];
                if number < disputes {
                    // Whoever extorts disputes what is right; finding what is not is an audit.
                    if receipt.truth != Served::Right {
                        continue;
                    }
                    self.dispute(victim, Challenger::Outsider(accuser), receipt, false);
                } else {
                    self.false_claim(victim, accuser);
                }
                self.check()?;
            }
        }
        Ok(())
    }

    /// A claim for an answer that was delivered: the operator shows its receipt, and the bond is its.
    fn false_claim(&mut self, victim: usize, accuser: usize) {
        let purse = self.accusers[accuser].purse;
        let bond = self.rules.claim_bond;
        if self.books.balance(purse) < bond {
            return;
        }
        self.books.pay(purse, self.locked, bond);
        let answer_s = 2 * self.rules.dispute_move_s;
        let operator = &mut self.operators[victim];
        if operator.agent.in_time(Step::Claim, answer_s, &mut operator.random) {
            self.books.pay(self.locked, operator.purse, bond);
            operator.tally.cleared += 1;
            self.accusers[accuser].tally.accusations_lost += 1;
        } else {
            self.books.pay(self.locked, purse, bond);
            self.compensate(victim, self.market.price);
            self.accusers[accuser].tally.accusations_won += 1;
        }
    }

    /// The epoch turns: logs close and what they held back is paid, stake returns or is topped up.
    fn turn(&mut self) {
        let closing = self.rules.closing_epochs();
        let unbonding = self.market.epochs(self.rules.unbonding_s);
        for operator in &mut self.operators {
            let closed = operator.logs.iter().take_while(|log| log.epoch + closing < self.epoch).count();
            let average = operator.claimed / operator.receipts.max(1);
            for log in operator.logs.drain(..closed) {
                operator.cleared += log.value;
                operator.owed += log.missed * self.rules.forfeit(average, log.stands_for);
            }
            if operator.unbonds_at.is_none() && operator.agent.leaves(self.epoch, self.last_epoch) {
                operator.unbonds_at = Some(self.epoch + unbonding);
            }
            let bond = self.books.balance(operator.bond);
            if operator.unbonds_at == Some(self.epoch) {
                operator.tally.unbonded += self.books.pay(operator.bond, operator.purse, bond);
            } else if operator.unbonds_at.is_none()
                && bond < self.rules.worker_stake_min
                && operator.agent.tops_up()
            {
                let missing = self.rules.worker_stake_min - bond;
                operator.tally.topped_up += self.books.pay(operator.purse, operator.bond, missing);
            }
        }
    }
}

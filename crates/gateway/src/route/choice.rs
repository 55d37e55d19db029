//! Choice: which workers may answer, best first; and what kept each of the others out.
//!
//! In:     how every worker stands; what is demanded; a turn, counted up.
//! Out:    the workers that qualify, in the order they are to be tried; the rest, counted by the first constraint each
//!         of them fails.
//! Touches: nothing: the same input gives the same choice.
//! Holds:  no worker that a hard constraint excludes is ever listed; listed and removed together are all there are.
//! Absent: where the numbers come from (`health`, the room), telling the caller (the room).
//!
//! What is hard filters; what is soft orders, in this sequence: the caller's `order`; the caller's thresholds; the
//! caller's `sort`; workers that have not just fallen silent before others; workers within their limit before others; the
//! cost below. The cost is a logarithm, so that each factor says how much more of our load one worker gets than another:
//!
//! | factor | weight | a worker that is | gets, others equal |
//! | --- | --- | --- | --- |
//! | orders under way, and one | 1 | twice as busy | a new order last |
//! | time to the first token, 50 ms to 60 s | ½ | four times as slow | half the orders |
//! | time per token | ½ | four times as slow | half the orders |
//! | price, up to sixteenfold | ½ | four times as dear | half the orders |
//! | share of orders that ended well | 2 | at 70 % rather than 100 % | half the orders |
//! | stake less what is unsettled, of the largest | −0.3 | the largest rather than without | a third more |
//! | what speaks against it, by comparison (R-14) | ½ | a hundred to one | a tenth of the orders |
//! | cache affinity | −0.5 | home to requests that begin so | two thirds more of those |
//!
//! Who was never measured counts as the slowest that was. So that such a worker is measured all the same, one turn in
//! sixteen goes to a newcomer, or to a worker whose circuit breaker is half open, unless the caller's preferences say
//! who is first, or a broken answer is to be continued.

use std::{cmp::Ordering, collections::BTreeMap};

use alloy_primitives::Address;
use surety_types::{Price, PublicKey, Region};

use super::{
    health::{Gate, Percentiles},
    preferences::{Preferences, Sort, Tier},
};

const LOAD_WEIGHT: f32 = 1.0;
const FIRST_TOKEN_WEIGHT: f32 = 0.5;
const PACE_WEIGHT: f32 = 0.5;
const PRICE_WEIGHT: f32 = 0.5;
const RELIABILITY_WEIGHT: f32 = 2.0;
const STAKE_WEIGHT: f32 = 0.3;
const AFFINITY_WEIGHT: f32 = 0.5;
const AGAINST_WEIGHT: f32 = 0.5;
/// Who is quicker is not preferred for it.
const FIRST_TOKEN_MS: std::ops::RangeInclusive<f32> = 50.0..=60_000.0;
const TOKENS_PER_SECOND: std::ops::RangeInclusive<f32> = 0.1..=10_000.0;
/// Who is cheaper than the dearest by more is not preferred for that.
const PRICE_RATIO_MAX: f32 = 16.0;
const RELIABILITY_MIN: f32 = 0.05;
/// One turn in so many explores.
pub(crate) const EXPLORE_EVERY: usize = 16;

/// What a worker is fit for at the moment, by its own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fitness {
    Ready,
    Starting,
    Draining,
    Unreachable,
}

/// How a worker stands at the moment of a choice.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub(crate) key: PublicKey,
    pub(crate) operator: Option<Address>,
    pub(crate) fitness: Fitness,
    /// The model, if it serves it.
    pub(crate) served: Option<Serves>,
    /// What it asks; or why it cannot be paid that.
    pub(crate) price: Result<Price, &'static str>,
    pub(crate) gate: Gate,
    /// It fell silent, and has not said how it is since.
    pub(crate) doubted: bool,
    /// Orders under way there.
    pub(crate) load: u32,
    /// Orders of ours among them, and how many it takes.
    pub(crate) ours: u32,
    pub(crate) limit: Option<u32>,
    /// Whether what it served is enough to judge it by.
    pub(crate) proven: bool,
    pub(crate) first_token_ms: Option<f32>,
    pub(crate) tokens_per_second: Option<f32>,
    /// Where the caller gives thresholds.
    pub(crate) latency_s: Option<Percentiles>,
    pub(crate) rates: Option<Percentiles>,
    pub(crate) reliability: f32,
    /// How much speaks against its answers' being those of the model that it names: so many to one, from 1 on.
    pub(crate) against: f32,
    /// Where it says that it is.
    pub(crate) region: Option<Region>,
    /// What its operator has bonded, in wei; and how much of that stands for nothing unsettled.
    pub(crate) bonded: u128,
    pub(crate) free_stake: u128,
}

/// How a worker serves the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Serves {
    pub(crate) context_tokens: u32,
    pub(crate) tier: Tier,
}

/// What is demanded, but for the model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) preferences: &'a Preferences,
    pub(crate) context_tokens_min: Option<u32>,
    /// Tried and failed already.
    pub(crate) without: &'a [PublicKey],
    /// Of the operators of the other of two answers that are to be compared.
    pub(crate) apart: &'a [PublicKey],
    pub(crate) affinity: Option<u64>,
    pub(crate) orders: u32,
}

/// What may keep a worker out, in the order it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Constraint {
    Unreachable,
    Starting,
    Draining,
    Model,
    Worker,
    Only,
    Ignore,
    Fallbacks,
    Region,
    MinStake,
    Verification,
    Apart,
    MaxPrice,
    Context,
    Tried,
    Payment(&'static str),
    Breaker,
}

/// Who is to be tried, and what kept the others out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Indices, best first.
    pub(crate) listed: Vec<usize>,
    /// Of these, the one whose next order is its breaker's trial.
    pub(crate) trial: Option<usize>,
    /// By index.
    pub(crate) removed: Vec<(usize, Constraint)>,
}

impl Choice {
    /// What kept how many out.
    pub(crate) fn counts(&self) -> BTreeMap<Constraint, u32> {
        let mut counts = BTreeMap::new();
        self.removed.iter().for_each(|(_, constraint)| *counts.entry(*constraint).or_default() += 1);
        counts
    }
}

/// Where a worker comes; fields in the order they count.
#[derive(Debug, Clone, Copy)]
struct Rank {
    position: usize,
    misses: bool,
    sorted: f32,
    doubted: bool,
    full: bool,
    cost: f32,
    /// Equals take turns.
    place: usize,
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        self.position
            .cmp(&other.position)
            .then(self.misses.cmp(&other.misses))
            .then(self.sorted.total_cmp(&other.sorted))
            .then(self.doubted.cmp(&other.doubted))
            .then(self.full.cmp(&other.full))
            .then(self.cost.total_cmp(&other.cost))
            .then(self.place.cmp(&other.place))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Rank {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Rank {}

/// Chooses.
pub(crate) fn choose(workers: &[Standing], wanted: &Wanted<'_>, turn: usize) -> Choice {
    let preferences = wanted.preferences;
    let (mut closed, mut half_open, mut paused, mut removed) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (index, worker) in workers.iter().enumerate() {
        match constraint(worker, wanted) {
            Some(constraint) => removed.push((index, constraint)),
            None if worker.gate == Gate::HalfOpen => half_open.push(index),
            None if worker.gate == Gate::Paused => paused.push(index),
            None => closed.push(index),
        }
    }
    let costs = costs(workers, &closed, wanted.affinity);
    let count = workers.len().max(1);
    let rank = |index: &usize| Rank {
        position: position(&workers[*index], preferences),
        misses: misses(&workers[*index], preferences),
        sorted: sorted(&workers[*index], preferences.sort),
        doubted: workers[*index].doubted,
        full: is_full(&workers[*index], wanted.orders),
        cost: costs[*index].total(),
        place: (*index + count - turn % count) % count,
    };
    let mut listed = closed;
    listed.sort_by_cached_key(rank);
    let mut trial = None;
    if listed.is_empty() {
        // Better a trial than nobody.
        half_open.sort_by_cached_key(rank);
        paused.sort_by_cached_key(rank);
        trial = half_open.first().or(paused.first()).copied();
        listed.extend(trial);
    } else if turn % EXPLORE_EVERY == EXPLORE_EVERY - 1
        && preferences.leave_order_open()
        && wanted.without.is_empty()
    {
        let newcomer = |index: &usize| {
            let worker = &workers[*index];
            !worker.proven && !worker.doubted && !is_full(worker, wanted.orders)
        };
        let newcomers: Vec<usize> = listed.iter().copied().filter(newcomer).collect();
        // Where all are newcomers nobody needs a share of his own.
        let newcomers = if newcomers.len() == listed.len() { Vec::new() } else { newcomers };
        let mut pool: Vec<usize> = half_open.iter().copied().chain(newcomers).collect();
        pool.sort_unstable();
        if !pool.is_empty() {
            let explored = pool[turn / EXPLORE_EVERY % pool.len()];
            trial = half_open.contains(&explored).then_some(explored);
            listed.retain(|index| *index != explored);
            listed.insert(0, explored);
        }
    }
    let resting = half_open.into_iter().chain(paused).filter(|index| trial != Some(*index));
    removed.extend(resting.map(|index| (index, Constraint::Breaker)));
    if !preferences.allow_fallbacks && preferences.order.is_empty() {
        // The best and nobody else.
        let rest = listed.split_off(listed.len().min(1));
        removed.extend(rest.into_iter().map(|index| (index, Constraint::Fallbacks)));
    }
    Choice { listed, trial, removed }
}

/// The first hard constraint that a worker fails.
fn constraint(worker: &Standing, wanted: &Wanted<'_>) -> Option<Constraint> {
    let preferences = wanted.preferences;
    match worker.fitness {
        Fitness::Ready => {}
        Fitness::Unreachable => return Some(Constraint::Unreachable),
        Fitness::Starting => return Some(Constraint::Starting),
        Fitness::Draining => return Some(Constraint::Draining),
    }
    let Some(serves) = worker.served else { return Some(Constraint::Model) };
    let named = |names: &[super::preferences::Name]| {
        names.iter().any(|name| name.names(&worker.key, worker.operator.as_ref()))
    };
    if preferences.worker.is_some_and(|name| !named(&[name])) {
        return Some(Constraint::Worker);
    }
    if !preferences.only.is_empty() && !named(&preferences.only) {
        return Some(Constraint::Only);
    }
    if named(&preferences.ignore) {
        return Some(Constraint::Ignore);
    }
    if !preferences.allow_fallbacks {
        let other = match preferences.order.is_empty() {
            false => !named(&preferences.order),
            // The one that might has been tried.
            true => !wanted.without.is_empty() && !wanted.without.contains(&worker.key),
        };
        if other {
            return Some(Constraint::Fallbacks);
        }
    }
    if !preferences.admits_region(worker.region.as_ref()) {
        return Some(Constraint::Region);
    }
    if worker.bonded < preferences.min_stake {
        return Some(Constraint::MinStake);
    }
    if preferences.verification.is_some_and(|tier| !serves.tier.reaches(tier)) {
        return Some(Constraint::Verification);
    }
    if wanted.apart.contains(&worker.key) {
        return Some(Constraint::Apart);
    }
    if worker.price.is_ok_and(|price| !preferences.max_price.admits(&price)) {
        return Some(Constraint::MaxPrice);
    }
    if wanted.context_tokens_min.is_some_and(|least| serves.context_tokens < least) {
        return Some(Constraint::Context);
    }
    if wanted.without.contains(&worker.key) {
        return Some(Constraint::Tried);
    }
    if let Err(why) = worker.price {
        return Some(Constraint::Payment(why));
    }
    (worker.gate == Gate::Open).then_some(Constraint::Breaker)
}

/// Where the caller's order has it; behind, if nowhere.
fn position(worker: &Standing, preferences: &Preferences) -> usize {
    let named = |name: &super::preferences::Name| name.names(&worker.key, worker.operator.as_ref());
    preferences.order.iter().position(named).unwrap_or(preferences.order.len())
}

/// Whether it misses a threshold of the caller's.
fn misses(worker: &Standing, preferences: &Preferences) -> bool {
    !preferences.min_throughput.met(worker.rates, |rate, least| rate >= least)
        || !preferences.max_latency.met(worker.latency_s, |latency, most| latency <= most)
}

/// What the caller sorts by, the least first; who was never measured comes last.
fn sorted(worker: &Standing, sort: Option<Sort>) -> f32 {
    match sort {
        None => 0.0,
        Some(Sort::Price) => asked(worker),
        Some(Sort::Throughput) => worker.tokens_per_second.map_or(f32::INFINITY, |rate| -rate),
        Some(Sort::Latency) => worker.first_token_ms.unwrap_or(f32::INFINITY),
    }
}

/// Whether it would have more orders of ours than it takes.
fn is_full(worker: &Standing, orders: u32) -> bool {
    worker.limit.is_some_and(|limit| worker.ours > 0 && worker.ours.saturating_add(orders) > limit)
}

/// What a prompt token and an output token cost together.
fn asked(worker: &Standing) -> f32 {
    worker.price.map_or(0.0, |price| price.prompt.0 as f32 + price.output.0 as f32)
}

/// What a worker's cost is made of, in this order; each with its weight.
pub(crate) const FACTORS: [(&str, f32); 8] = [
    ("load", LOAD_WEIGHT),
    ("first_token", FIRST_TOKEN_WEIGHT),
    ("pace", PACE_WEIGHT),
    ("price", PRICE_WEIGHT),
    ("reliability", RELIABILITY_WEIGHT),
    ("comparisons", AGAINST_WEIGHT),
    ("stake", STAKE_WEIGHT),
    ("affinity", AFFINITY_WEIGHT),
];

/// What choosing a worker costs, factor by factor; the least is chosen first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cost(pub(crate) [f32; FACTORS.len()]);

impl Cost {
    pub(crate) fn total(self) -> f32 {
        self.0.into_iter().sum()
    }
}

/// What each worker costs, by index; or the first constraint that keeps it out.
pub(crate) fn compared(workers: &[Standing], wanted: &Wanted<'_>) -> Vec<Result<Cost, Constraint>> {
    let kept_out: Vec<Option<Constraint>> = workers
        .iter()
        .map(|worker| {
            let rests = worker.gate != Gate::Closed;
            constraint(worker, wanted).or_else(|| rests.then_some(Constraint::Breaker))
        })
        .collect();
    let fit: Vec<usize> = (0..workers.len()).filter(|index| kept_out[*index].is_none()).collect();
    let costs = costs(workers, &fit, wanted.affinity);
    kept_out.into_iter().zip(costs).map(|(kept_out, cost)| kept_out.map_or(Ok(cost), Err)).collect()
}

/// What choosing each worker costs, by index; of those that qualify.
fn costs(workers: &[Standing], fit: &[usize], affinity: Option<u64>) -> Vec<Cost> {
    let fit_workers = || fit.iter().map(|index| &workers[*index]);
    let greatest = |of: fn(&Standing) -> f32| fit_workers().map(of).fold(0.0f32, f32::max);
    let slowest_ms = greatest(|worker| worker.first_token_ms.unwrap_or(0.0));
    let slowest_token_s = greatest(|worker| worker.tokens_per_second.map_or(0.0, seconds_per_token));
    let dearest = greatest(asked);
    let largest_stake = greatest(|worker| worker.free_stake as f32);
    let home = affinity.and_then(|affinity| {
        fit.iter().copied().max_by_key(|index| (attraction(affinity, &workers[*index].key), *index))
    });
    let cost = |(index, worker): (usize, &Standing)| {
        let first_token_ms = worker.first_token_ms.unwrap_or(slowest_ms);
        let token_s = worker.tokens_per_second.map_or(slowest_token_s, seconds_per_token);
        let token_s = if token_s == 0.0 { 1.0 } else { token_s };
        let price = if dearest == 0.0 { 1.0 } else { (asked(worker) / dearest).max(1.0 / PRICE_RATIO_MAX) };
        let stake = if largest_stake == 0.0 { 0.0 } else { worker.free_stake as f32 / largest_stake };
        let at_home = if home == Some(index) { 1.0 } else { 0.0 };
        Cost([
            LOAD_WEIGHT * (1.0 + worker.load as f32).ln(),
            FIRST_TOKEN_WEIGHT * first_token_ms.clamp(*FIRST_TOKEN_MS.start(), *FIRST_TOKEN_MS.end()).ln(),
            PACE_WEIGHT * token_s.ln(),
            PRICE_WEIGHT * price.ln(),
            -RELIABILITY_WEIGHT * worker.reliability.max(RELIABILITY_MIN).ln(),
            AGAINST_WEIGHT * worker.against.max(1.0).ln(),
            -STAKE_WEIGHT * stake.min(1.0),
            -AFFINITY_WEIGHT * at_home,
        ])
    };
    workers.iter().enumerate().map(cost).collect()
}

fn seconds_per_token(rate: f32) -> f32 {
    1.0 / rate.clamp(*TOKENS_PER_SECOND.start(), *TOKENS_PER_SECOND.end())
}

/// Rendezvous hashing: who attracts a request most is its home, and only its requests move when it goes.
fn attraction(affinity: u64, key: &PublicKey) -> u64 {
    let key = key.as_bytes().chunks_exact(8).fold(0u64, |sum, bytes| {
        let bytes = bytes.try_into().map_or(0, u64::from_le_bytes);
        mixed(sum ^ bytes)
    });
    mixed(affinity ^ key)
}

/// Source: the finaliser of SplitMix64, Steele, Lea and Flood 2014.
fn mixed(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

impl Fitness {
    pub(crate) const ALL: [Fitness; 4] =
        [Fitness::Ready, Fitness::Starting, Fitness::Draining, Fitness::Unreachable];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Fitness::Ready => "ready",
            Fitness::Starting => "starting",
            Fitness::Draining => "draining",
            Fitness::Unreachable => "unreachable",
        }
    }
}

impl Constraint {
    /// The stable name, for programs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Constraint::Unreachable => "unreachable",
            Constraint::Starting => "starting",
            Constraint::Draining => "draining",
            Constraint::Model => "model",
            Constraint::Worker => "surety.worker",
            Constraint::Only => "provider.only",
            Constraint::Ignore => "provider.ignore",
            Constraint::Fallbacks => "provider.allow_fallbacks",
            Constraint::Region => "provider.region",
            Constraint::MinStake => "provider.min_stake",
            Constraint::Verification => "provider.verification",
            Constraint::Apart => "provider.verification_mode",
            Constraint::MaxPrice => "provider.max_price",
            Constraint::Context => "context",
            Constraint::Tried => "tried",
            Constraint::Payment(_) => "payment",
            Constraint::Breaker => "breaker",
        }
    }

    /// After a count, what they are.
    pub(crate) fn words(self) -> String {
        match self {
            Constraint::Unreachable | Constraint::Starting | Constraint::Draining => self.name().to_owned(),
            Constraint::Model => "without the model".to_owned(),
            Constraint::Worker => "not that of `surety.worker`".to_owned(),
            Constraint::Only => "not in `provider.only`".to_owned(),
            Constraint::Ignore => "in `provider.ignore`".to_owned(),
            Constraint::Fallbacks => "a fallback, which `provider.allow_fallbacks` rules out".to_owned(),
            Constraint::Region => "not within `provider.region` by their own word".to_owned(),
            Constraint::MinStake => "with less bonded than `provider.min_stake`".to_owned(),
            Constraint::Verification => "below `provider.verification`".to_owned(),
            Constraint::Apart => "of the operator whose answer is to be compared".to_owned(),
            Constraint::MaxPrice => "above `provider.max_price`".to_owned(),
            Constraint::Context => "with too short a context window".to_owned(),
            Constraint::Tried => "tried without success".to_owned(),
            Constraint::Payment(why) => format!("not to be paid ({why})"),
            Constraint::Breaker => "resting after failures".to_owned(),
        }
    }
}

//! Route: which workers there are, how they are, and which of them should answer.
//!
//! In:     the addresses in the settings; what the ledger lists; each worker's word on its state; what came of orders; what
//!         a request demands.
//! Out:    what a model's name stands for; the workers that qualify, best first, or what kept how many of them out.
//! Touches: the network, by one task per worker.
//! Holds:  a name stands for one model; no list ever holds a worker that a hard preference excludes; what a worker says
//!         of itself makes it a candidate, what it has served says how good a one.
//! Absent: giving orders. That is `session`.

pub(crate) mod choice;
mod health;
mod models;
pub(crate) mod preferences;
pub(crate) mod scores;
#[cfg(test)]
mod tests;
mod timing;
mod worker;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use alloy_primitives::Address;
use surety_client::Connection;
use surety_net::{Endpoint, WorkerAddress};
use surety_types::{Price, PublicKey, Region, ServedModel, WEI_PER_MICRO_CREDIT, WorkerStatus};

pub(crate) use health::Outcome;
pub(crate) use models::{Resolved, upstream_note};
pub(crate) use timing::Timing;
pub(crate) use worker::{Held, Worker, chain};

use crate::{
    api::shapes::{Removed, WorkerReport},
    comparisons::Comparisons,
    error::{ApiError, Code},
    journal::trail::Trail,
    payer::{Listed, PayChannel, Payer},
};
use choice::{Choice, Constraint, Fitness, Serves, Standing, Wanted, choose};
use health::Speed;
use preferences::Preferences;

/// The workers this gateway knows.
#[derive(Debug)]
pub(crate) struct Workers {
    /// Those of the settings first, then those that the ledger lists.
    workers: RwLock<Vec<Arc<Worker>>>,
    /// Those of them that were found in the same network.
    nearby: Mutex<BTreeSet<[u8; 32]>>,
    endpoint: Endpoint,
    interval: Duration,
    /// Who pays, if somebody does.
    payer: Option<Arc<Payer>>,
    /// What is known of workers that name a model by comparing their answers with that model's.
    comparisons: Arc<Comparisons>,
    aliases: BTreeMap<String, String>,
    /// Counts choices: equals take turns, and newcomers have some of them.
    turn: AtomicUsize,
}

/// What a request demands of a worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Demand<'a> {
    pub(crate) model: &'a Resolved,
    pub(crate) preferences: &'a Preferences,
    pub(crate) max_output_tokens: Option<u32>,
    /// A continuation needs at least so much.
    pub(crate) context_tokens_min: Option<u32>,
    /// Tried and failed already.
    pub(crate) without: &'a [PublicKey],
    /// Of the operators of the other of two answers that are to be compared.
    pub(crate) apart: &'a [PublicKey],
    /// A hash of the request's beginning: requests that begin alike are best answered by one worker, which keeps it.
    pub(crate) affinity: Option<u64>,
    /// How many orders it is to get.
    pub(crate) orders: u32,
    /// Where it is noted who was listed, and what kept the others out; nobody is to be asked without.
    pub(crate) trail: Option<&'a Trail>,
}

/// A worker that could answer.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) worker: Arc<Worker>,
    /// Positions that it can hold.
    pub(crate) context_tokens: u32,
    /// Where it says that it is, if that is wanted of it: then its acceptance must say the same.
    pub(crate) region: Option<Region>,
    /// What it asks, and the channel it is paid on; none if it asks nothing.
    pub(crate) terms: Option<PaidTerms>,
}

/// How a worker is paid.
#[derive(Debug, Clone)]
pub(crate) struct PaidTerms {
    pub(crate) price: Price,
    pub(crate) channel: Arc<PayChannel>,
}

impl Workers {
    /// Connects to the workers in the background, and asks them how they are, as long as this lives.
    pub(crate) fn open(
        endpoint: &Endpoint,
        addresses: Vec<WorkerAddress>,
        aliases: BTreeMap<String, String>,
        interval: Duration,
        payer: Option<Arc<Payer>>,
        comparisons: Arc<Comparisons>,
    ) -> Self {
        let fixed = addresses.into_iter().map(|address| Worker::watched(endpoint, address, None, interval));
        Self {
            workers: RwLock::new(fixed.collect()),
            nearby: Mutex::default(),
            endpoint: endpoint.clone(),
            interval,
            payer,
            comparisons,
            aliases,
            turn: AtomicUsize::new(0),
        }
    }

    fn all(&self) -> Vec<Arc<Worker>> {
        self.workers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over what the ledger lists: new workers are called, those no longer listed are forgotten, unless they are in the
    /// settings.
    pub(crate) fn set_listed(&self, listed: Vec<Listed>) {
        let mut workers = self.workers.write().unwrap_or_else(PoisonError::into_inner);
        workers.retain(|worker| {
            let now = listed.iter().find(|listed| listed.key == worker.key());
            // One that moved is called anew, below.
            let stays = worker.is_fixed()
                || now.is_some_and(|now| now.location == worker.connection.address().location);
            if stays {
                worker.set_listed(now.cloned());
            }
            stays
        });
        for listed in listed {
            if workers.iter().all(|worker| worker.key() != listed.key) {
                let address = WorkerAddress { key: listed.key, location: listed.location };
                workers.push(Worker::watched(&self.endpoint, address, Some(listed), self.interval));
            }
        }
    }

    /// Takes over who is found in the same network: new workers are called, who moved is called where it is now, and who is gone
    /// is forgotten, unless it is in the settings.
    pub(crate) fn set_nearby(&self, found: Vec<WorkerAddress>) {
        let mut workers = self.workers.write().unwrap_or_else(PoisonError::into_inner);
        let mut nearby = self.nearby.lock().unwrap_or_else(PoisonError::into_inner);
        workers.retain(|worker| {
            !nearby.contains(&worker.key().0) || found.contains(worker.connection.address())
        });
        nearby.retain(|key| workers.iter().any(|worker| worker.key().0 == *key));
        for address in found {
            if workers.iter().all(|worker| worker.key() != address.key) {
                workers.push(Worker::watched(&self.endpoint, address, None, self.interval));
                nearby.insert(address.key.0);
            }
        }
    }

    /// The workers that may answer, best first, if one of another operator than the first's may compute the same under the
    /// preferences of a check; and those that may. None of them is asked. Err: what kept how many out.
    pub(crate) fn has_others(
        &self,
        demand: &Demand<'_>,
        checking: &Preferences,
    ) -> Result<(Vec<Candidate>, Vec<Candidate>), ApiError> {
        let answers = self.quoted(demand)?;
        let first: Vec<PublicKey> = answers.iter().take(1).map(|first| first.worker.key()).collect();
        let apart = self.kin(&first);
        let checks = self.quoted(&Demand { preferences: checking, apart: &apart, ..*demand })?;
        Ok((answers, checks))
    }

    /// All workers of those workers' operators, with themselves. A worker that no ledger lists stands for itself alone.
    pub(crate) fn kin(&self, of: &[PublicKey]) -> Vec<PublicKey> {
        if of.is_empty() {
            return Vec::new();
        }
        let all = self.all();
        let operators: BTreeSet<Address> = all
            .iter()
            .filter(|worker| of.contains(&worker.key()))
            .filter_map(|worker| worker.operator())
            .collect();
        let theirs =
            all.iter().filter(|worker| worker.operator().is_some_and(|own| operators.contains(&own)));
        of.iter().copied().chain(theirs.map(|worker| worker.key())).collect()
    }

    /// The connection to a worker, if it is there.
    pub(crate) fn connection(&self, key: &PublicKey) -> Option<Connection> {
        let worker = self.all().into_iter().find(|worker| worker.key() == *key)?;
        Some(worker.connection.clone()).filter(Connection::is_connected)
    }

    pub(crate) fn payer(&self) -> Option<&Arc<Payer>> {
        self.payer.as_ref()
    }

    /// The workers that may answer, best first, and never none. Err: what kept how many out, or the preference that nothing
    /// can ever meet.
    pub(crate) fn candidates(&self, demand: &Demand<'_>) -> Result<Vec<Candidate>, ApiError> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.listed(demand, turn, true)
    }

    /// The same where none of them is to be asked: it counts as no turn, and as nobody's trial.
    pub(crate) fn quoted(&self, demand: &Demand<'_>) -> Result<Vec<Candidate>, ApiError> {
        self.listed(demand, self.turn.load(Ordering::Relaxed), false)
    }

    fn listed(&self, demand: &Demand<'_>, turn: usize, asked: bool) -> Result<Vec<Candidate>, ApiError> {
        let workers = self.all();
        self.check(demand, &workers)?;
        let now = Instant::now();
        let (standings, mut terms): (Vec<Standing>, Vec<Option<PaidTerms>>) =
            workers.iter().map(|worker| self.standing(worker, demand, now)).unzip();
        let wanted = Wanted {
            preferences: demand.preferences,
            context_tokens_min: demand.context_tokens_min,
            without: demand.without,
            apart: demand.apart,
            affinity: demand.affinity,
            orders: demand.orders,
        };
        let choice = choose(&standings, &wanted, turn);
        if let Some(trial) = choice.trial.filter(|_| asked) {
            workers[trial].health().begin_trial(now);
        }
        let best: Vec<PublicKey> = choice.listed.iter().map(|index| standings[*index].key).collect();
        let removed = choice.counts();
        if let Some(trail) = demand.trail {
            trail.decided(&best, removed.iter().map(|(constraint, count)| (constraint.name(), *count)));
        }
        if choice.listed.is_empty() {
            return Err(self.nobody(demand, &standings, &choice));
        }
        let candidate = |index: usize| {
            let context_tokens = standings[index].served.map_or(0, |serves| serves.context_tokens);
            let wanted = !demand.preferences.regions.is_empty();
            let region = standings[index].region.clone().filter(|_| wanted);
            Candidate {
                worker: Arc::clone(&workers[index]),
                context_tokens,
                region,
                terms: terms[index].take(),
            }
        };
        Ok(choice.listed.into_iter().map(candidate).collect())
    }

    /// Finds the first preference that cannot be met whoever is there.
    fn check(&self, demand: &Demand<'_>, workers: &[Arc<Worker>]) -> Result<(), ApiError> {
        let (model, preferences) = (demand.model, demand.preferences);
        let quantizations = &preferences.quantizations;
        if !quantizations.is_empty() && !quantizations.contains(&model.quantization) {
            let message = format!(
                "`provider.quantizations` leaves out {}, which \"{}\" is, and a model's bytes never change. Take it in, or \
                 ask for another model.",
                model.quantization.name(),
                model.name,
            );
            return Err(ApiError::invalid("provider.quantizations", message));
        }
        let known: Vec<(PublicKey, Option<Address>)> =
            workers.iter().map(|worker| (worker.key(), worker.operator())).collect();
        preferences.check_names(&known)
    }

    /// How a worker stands with a demand, and how it is paid.
    fn standing(&self, worker: &Worker, demand: &Demand<'_>, now: Instant) -> (Standing, Option<PaidTerms>) {
        let listed = worker.listed();
        let (fitness, status) = worker.state();
        let served = status.as_ref().and_then(|status| {
            status.models.iter().find(|served| served.id == demand.model.id).map(|served| (status, served))
        });
        let (price, terms) = match served {
            None => (Ok(Price::ZERO), None),
            Some((_, served)) => {
                let context_tokens = served.context_tokens;
                let output = demand.max_output_tokens.unwrap_or(context_tokens).min(context_tokens);
                match self.terms(listed.as_ref(), served, output, demand.preferences.batch) {
                    Ok(terms) => (Ok(terms.as_ref().map_or(Price::ZERO, |terms| terms.price)), terms),
                    Err(why) => (Err(why), None),
                }
            }
        };
        let claims = served.and_then(|(_, served)| served.manifest.claims);
        let load = status.as_ref().map_or(0, |status| worker.load(status));
        let measured_by = demand.preferences.have_cutoffs();
        let health = worker.health();
        let speed = health.speed(&demand.model.id);
        let standing = Standing {
            key: worker.key(),
            operator: listed.as_ref().map(|listed| listed.operator),
            fitness,
            served: served.map(|(_, served)| Serves {
                context_tokens: served.context_tokens,
                tier: self.tier(&served.manifest, Some(worker.key())),
            }),
            price,
            gate: health.gate(now),
            doubted: worker.is_doubted(),
            load,
            ours: worker.ours(),
            limit: health.limit(),
            proven: speed.is_some_and(|speed| speed.is_proven(now)),
            first_token_ms: speed.and_then(Speed::first_token_ms),
            tokens_per_second: speed.and_then(Speed::tokens_per_second),
            latency_s: speed.filter(|_| measured_by).and_then(Speed::latency_percentiles),
            rates: speed.filter(|_| measured_by).and_then(Speed::rate_percentiles),
            reliability: health.reliability(),
            against: claims.map_or(1.0, |claims| self.comparisons.against(worker.key(), claims) as f32),
            region: status.as_ref().and_then(|status| status.region.clone()),
            bonded: listed.as_ref().map_or(0, |listed| listed.bonded),
            free_stake: listed.as_ref().map_or(0, |listed| listed.bonded.saturating_sub(listed.unsettled)),
        };
        (standing, terms)
    }

    /// How a worker is paid for a model, or for a batch's orders for it; nothing if it asks nothing; or why it cannot be.
    fn terms(
        &self,
        listed: Option<&Listed>,
        served: &ServedModel,
        output_tokens: u32,
        batch: bool,
    ) -> Result<Option<PaidTerms>, &'static str> {
        let Some(listed) = listed else {
            // What it asks is due only where the ledger says the same.
            let free = served.price == Price::ZERO;
            return if free { Ok(None) } else { Err("it asks a price and the ledger does not list it yet") };
        };
        let Some(price) = listed.offers.get(&served.id).copied() else {
            return Err("its operator does not offer the model on the ledger");
        };
        if price == Price::ZERO {
            return Ok(None);
        }
        // The ledger bounds what it says of itself.
        let less = served.batch_price.filter(|less| batch && less.within(&price) && *less != Price::ZERO);
        let price = less.unwrap_or(price);
        let payer = self.payer.as_ref().ok_or("this gateway pays nobody")?;
        if !payer.accepts(&price) {
            return Err("it asks more than this gateway pays");
        }
        let channel = payer.channel(&listed.operator, &price, served.context_tokens, output_tokens);
        let channel = channel.ok_or("the channel to its operator is being filled")?;
        Ok(Some(PaidTerms { price, channel }))
    }

    /// Nobody qualifies: says what kept how many out.
    fn nobody(&self, demand: &Demand<'_>, standings: &[Standing], choice: &Choice) -> ApiError {
        let counts = choice.counts();
        let name = &demand.model.name;
        let what = if demand.apart.is_empty() { "for" } else { "to check an answer of" };
        let message = if standings.is_empty() {
            format!("No worker qualifies {what} \"{name}\": {}. Add one.", self.census_in_words())
        } else {
            let parts: Vec<String> =
                counts.iter().map(|(constraint, count)| format!("{count} {}", constraint.words())).collect();
            format!(
                "No worker qualifies {what} \"{name}\". Of {}: {}. {}",
                standings.len(),
                parts.join(", "),
                advice(demand.preferences, standings, choice),
            )
        };
        let removed = counts.into_iter().map(|(constraint, workers)| Removed {
            constraint: constraint.name(),
            reason: constraint.words(),
            workers,
        });
        ApiError::new(Code::NoWorker, message).with_removed(removed.collect())
    }

    /// Why no request could be answered at the moment, if none could.
    pub(crate) fn unready(&self) -> Result<(), ApiError> {
        let any = self.all().iter().any(|worker| {
            let (fitness, status) = worker.state();
            let listed = worker.listed();
            let payable = |served: &ServedModel| {
                self.terms(listed.as_ref(), served, served.context_tokens, false).is_ok()
            };
            fitness == Fitness::Ready && status.is_some_and(|status| status.models.iter().any(payable))
        });
        if any {
            return Ok(());
        }
        let message =
            format!("No worker with a model is ready ({}). Wait, or start one.", self.census_in_words());
        Err(ApiError::new(Code::NoWorker, message))
    }

    /// Who could answer, with how many orders each has by its own word, and of ours.
    pub(crate) fn loads(&self, demand: &Demand<'_>) -> Result<Vec<(PublicKey, u32, u32)>, ApiError> {
        let candidates = self.quoted(demand)?.into_iter();
        Ok(candidates.map(|candidate| candidate.worker.loads()).collect())
    }

    /// How each worker is.
    pub(crate) fn report(&self) -> Vec<WorkerReport> {
        let report = |worker: &Arc<Worker>| WorkerReport {
            comparisons: self.comparisons.report(worker.key()),
            ..worker.describe(self.payer.as_deref())
        };
        self.all().iter().map(report).collect()
    }

    /// Who answers for each worker that the ledger lists.
    pub(crate) fn operators(&self) -> BTreeMap<PublicKey, String> {
        let operator = |worker: &Arc<Worker>| Some((worker.key(), worker.operator()?.to_string()));
        self.all().iter().filter_map(operator).collect()
    }

    /// What the workers that are `wanted` last said.
    fn statuses(&self, wanted: impl Fn(&Worker) -> bool) -> Vec<Arc<WorkerStatus>> {
        self.all().iter().filter(|worker| wanted(worker)).filter_map(|worker| worker.state().1).collect()
    }

    /// The workers counted by state.
    pub(crate) fn census(&self) -> Vec<(&'static str, u64)> {
        let states: Vec<Fitness> = self.all().iter().map(|worker| worker.state().0).collect();
        let count = |fitness| states.iter().filter(|state| **state == fitness).count() as u64;
        Fitness::ALL.into_iter().map(|fitness| (fitness.name(), count(fitness))).collect()
    }

    /// The workers counted by state, in words.
    fn census_in_words(&self) -> String {
        let census = self.census();
        if census.iter().all(|(_, count)| *count == 0) {
            return match self.payer {
                Some(_) => "the ledger lists no workers that can be used".to_owned(),
                None => "no workers are configured".to_owned(),
            };
        }
        let there = census.iter().filter(|(_, count)| *count > 0);
        let parts: Vec<String> = there.map(|(state, count)| format!("{count} {state}")).collect();
        format!("workers: {}", parts.join(", "))
    }
}

/// Wei as credits, in decimals.
fn credits(wei: u128) -> String {
    const WEI: u128 = 1_000_000 * WEI_PER_MICRO_CREDIT;
    let text = format!("{}.{:018}", wei / WEI, wei % WEI);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// What a caller whom nobody can answer might do.
fn advice(preferences: &Preferences, standings: &[Standing], choice: &Choice) -> String {
    let of = |wanted: Constraint| {
        let removed = choice.removed.iter().filter(move |(_, constraint)| *constraint == wanted);
        removed.map(|(index, _)| &standings[*index])
    };
    if of(Constraint::Apart).next().is_some() {
        return "`:verified` takes workers of two operators: ask without it, and what is signed is checked, the computation \
                is not; or try again when another operator serves the model."
            .to_owned();
    }
    let cheapest = of(Constraint::MaxPrice)
        .filter_map(|standing| standing.price.ok())
        .min_by_key(|price| (price.prompt.0.saturating_add(price.output.0), price.prompt));
    if let Some(price) = cheapest {
        return format!(
            "The cheapest of those above the price asks {} for prompt and {} for completion, in micro-credits per \
             million tokens: raise `provider.max_price`.",
            price.prompt, price.output,
        );
    }
    if let Some(most) = of(Constraint::MinStake).map(|standing| standing.bonded).max() {
        return format!(
            "The most that is bonded to the operator of one of those with less is {} credits: ask for less by \
             `provider.min_stake`.",
            credits(most),
        );
    }
    if let (Some(tier), Some(_)) = (preferences.verification, of(Constraint::Verification).next()) {
        return format!("No such worker offers `verification` \"{}\": ask for less.", tier.name());
    }
    let by_wish = |constraint: &Constraint| {
        matches!(
            constraint,
            Constraint::Worker
                | Constraint::Only
                | Constraint::Ignore
                | Constraint::Fallbacks
                | Constraint::Region
        )
    };
    if choice.removed.iter().any(|(_, constraint)| by_wish(constraint)) {
        return "Ask for less, or try again shortly; /v1/network/status lists the workers.".to_owned();
    }
    "Try again shortly; /v1/network/status shows them.".to_owned()
}

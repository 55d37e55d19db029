//! The registry: which workers the ledger lists, where, and what they ask.
//!
//! In:     the ledger's state, proven. Out: workers with operator, address, prices, the bond behind them and what of it is unsettled.
//! Touches: the ledger; the gateway's list of workers; channels, which it has opened ahead of need.
//! Holds:  what an operator wrote is checked before it is used, and what is not used is listed with its reason; lists are
//!         bounded.
//! Absent: whether a worker is there. That is `route`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use alloy_primitives::Address;
use surety_client::{
    AccountError, Reach,
    channel::{Account, view},
};
use surety_net::Location;
use surety_types::{
    Amount, Digest, ModelId, Price, PublicKey,
    abi::{IAudits, IOperators, IStaking, Module},
};
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use super::Payer;
use crate::route::Workers;

/// Between two looks at the ledger.
const LOOK_INTERVAL: Duration = Duration::from_secs(3);
/// Operators and workers that are looked at.
const OPERATORS_MAX: usize = 256;
const WORKERS_MAX: usize = 1024;
/// Workers that cannot be used and are shown.
const IGNORED_MAX: usize = 64;
/// What a page of a list on the ledger holds.
const PAGE: usize = 100;

/// A worker that the ledger lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) key: PublicKey,
    pub(crate) operator: Address,
    pub(crate) location: Location,
    /// What its operator asks, by model.
    pub(crate) offers: Arc<BTreeMap<ModelId, Price>>,
    /// What is bonded to its operator, in wei.
    pub(crate) bonded: u128,
    /// What was claimed for it and is in no log that is closed, in wei (U-7.3).
    pub(crate) unsettled: u128,
}

/// Follows the registry and keeps channels, until aborted.
pub(crate) async fn follow(payer: Arc<Payer>, workers: Arc<Workers>, reach: Reach) {
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let done = pass(&payer, &workers, reach).await;
        let problem = done.err().map(|AccountError { message, hint, .. }| (message, hint));
        let new = payer.standing().problem != problem;
        if let (true, Some((message, hint))) = (new, &problem) {
            warn!(message, hint, "the ledger is of no use at the moment");
        }
        payer.stand(|standing| standing.problem = problem);
    }
}

async fn pass(payer: &Payer, workers: &Workers, reach: Reach) -> Result<(), AccountError> {
    let account = payer.account();
    let block = account.moment().await?.number;
    let (listed, ignored) = read(account, reach).await?;
    payer.stand(|standing| {
        if standing.block != Some(block) {
            (standing.block, standing.block_at) = (Some(block), Some(Instant::now()));
        }
        standing.ignored = ignored;
    });
    // An operator whose every price is beyond the ceiling needs no channel.
    let paid =
        |listed: &&Listed| listed.offers.values().any(|price| *price != Price::ZERO && payer.accepts(price));
    let operators: BTreeSet<Address> = listed.iter().filter(paid).map(|listed| listed.operator).collect();
    workers.set_listed(listed);
    payer.keep_up(&operators.into_iter().collect::<Vec<_>>()).await
}

type Ignored = Vec<(String, String)>;

async fn read(account: &dyn Account, reach: Reach) -> Result<(Vec<Listed>, Ignored), AccountError> {
    let mut operators: Vec<Address> = Vec::new();
    while operators.len() < OPERATORS_MAX {
        let call = IOperators::operatorsCall { offset: operators.len() as u64 };
        let page = view(account, Module::Operators, &call).await?;
        let last = page.len() < PAGE;
        operators.extend(page);
        if last {
            break;
        }
    }
    operators.truncate(OPERATORS_MAX);
    let (mut listed, mut ignored) = (Vec::new(), Ignored::new());
    for operator in operators {
        let mut workers = Vec::new();
        loop {
            let call = IOperators::workersOfCall { operator, offset: workers.len() as u64 };
            let page = view(account, Module::Operators, &call).await?;
            let last = page.len() < PAGE;
            workers.extend(page);
            if last || workers.len() >= WORKERS_MAX {
                break;
            }
        }
        workers.retain(|worker| worker.retiredHeight == 0);
        if workers.is_empty() {
            continue;
        }
        let offers = Arc::new(offers(account, operator).await?);
        let bonded = view(account, Module::Staking, &IStaking::bondedToCall { operator }).await?;
        let exposure = view(account, Module::Audits, &IAudits::exposureOfCall { operator }).await?.exposure;
        let [bonded, unsettled] = [bonded, exposure].map(|wei| u128::try_from(wei).unwrap_or(u128::MAX));
        for worker in workers {
            let key = PublicKey(worker.key.0);
            match reach.check(&worker.endpoint) {
                Ok(location) if listed.len() < WORKERS_MAX => {
                    listed.push(Listed {
                        key,
                        operator,
                        location,
                        offers: Arc::clone(&offers),
                        bonded,
                        unsettled,
                    });
                }
                Ok(_) if ignored.len() < IGNORED_MAX => {
                    ignored.push((key.to_string(), format!("more than {WORKERS_MAX} workers are listed")));
                }
                Err(why) if ignored.len() < IGNORED_MAX => ignored.push((key.to_string(), why.to_owned())),
                Ok(_) | Err(_) => {}
            }
        }
    }
    Ok((listed, ignored))
}

async fn offers(account: &dyn Account, operator: Address) -> Result<BTreeMap<ModelId, Price>, AccountError> {
    let (mut offers, mut offset) = (BTreeMap::new(), 0);
    loop {
        let page = view(account, Module::Operators, &IOperators::offersOfCall { operator, offset }).await?;
        offset += page.len() as u64;
        let last = page.len() < PAGE;
        offers.extend(page.into_iter().map(|offer| {
            let price = Price {
                prompt: Amount(offer.promptPrice),
                cached: Amount(offer.cachedPrice),
                output: Amount(offer.outputPrice),
            };
            (ModelId(Digest(offer.model.0)), price)
        }));
        if last {
            return Ok(offers);
        }
    }
}

//! Fetching: brings models here that are paid for and that too few keep.
//!
//! In:     the ledger's models, pools and pins; room on the disk that the operator gave.
//! Out:    a file in the store, every byte of it checked.
//! Touches: the ledger, to read; holders, over the worker's endpoint; the model store.
//! Holds:  never more bytes than were given for it, nor the disk's last; who is asked is who pins or offers the model.
//! Absent: pinning it on the ledger (`hosting`); loading it.

use alloy_primitives::{Address, B256};
use surety_blobs::{PullLimits, PullRequest, pull};
use surety_chain::Params;
use surety_client::{
    Reach,
    channel::{Account, AccountError, view},
};
use surety_net::{Endpoint, Location, WorkerAddress};
use surety_types::{
    Digest, ModelId, PublicKey,
    abi::{IHosting, IModels, IOperators, Module},
};

use super::{
    super::store::Fetched,
    deal::{Deal, HostingPolicy},
    word,
};
use crate::store::{Reference, Store};

/// Models that are looked at.
const MODELS_MAX: usize = 256;
/// Operators that are looked at for their offers.
const OPERATORS_MAX: usize = 256;
/// Holders that are asked.
const HOLDERS_MAX: usize = 32;
/// What a page of a list on the ledger holds.
const PAGE: usize = 100;
/// Bytes of the disk that are left alone.
const DISK_LEFT: u64 = 1 << 30;

/// Room for models that others pay to have kept.
#[derive(Debug, Clone)]
pub struct Room {
    /// Bytes, all of them together.
    pub bytes_max: u64,
    /// Where they are put.
    pub store: Store,
}

/// Admitted models, at most [`MODELS_MAX`].
pub(super) async fn models(account: &dyn Account) -> Result<Vec<ModelId>, AccountError> {
    let mut models = Vec::new();
    while models.len() < MODELS_MAX {
        let page = IModels::modelsCall { offset: models.len() as u64 };
        let page = view(account, Module::Models, &page).await?;
        let last = page.len() < PAGE;
        models.extend(page.into_iter().map(|id| ModelId(Digest(id.0))));
        if last {
            break;
        }
    }
    models.truncate(MODELS_MAX);
    Ok(models)
}

/// The model whose pins are paid best of those that too few keep and that there is room for.
pub(super) async fn choose(
    account: &dyn Account,
    params: &Params,
    room: u64,
    known: impl Fn(ModelId) -> bool,
) -> Result<Option<Fetched>, AccountError> {
    let mut best = None;
    for model in models(account).await?.into_iter().filter(|model| !known(*model)) {
        let hosted = view(account, Module::Hosting, &IHosting::hostedCall { model: word(model) }).await?;
        // A model of one file can be fetched.
        if hosted.files != 1 || hosted.pool.is_zero() || hosted.pins >= params.hosting_replicas {
            continue;
        }
        let files = view(account, Module::Hosting, &IHosting::filesOfCall { model: word(model) }).await?;
        let deal = Deal::new(HostingPolicy::Paid, hosted.pool, &files, params);
        let [file] = files.as_slice() else { continue };
        if file.bytes_ > room || !deal.worth_pinning(hosted.pins) {
            continue;
        }
        let fetched = Fetched { model, file: Digest(file.digest.0), bytes: file.bytes_ };
        let earns = deal.part.saturating_sub(deal.cost);
        if best.as_ref().is_none_or(|(most, _)| earns > *most) {
            best = Some((earns, fetched));
        }
    }
    Ok(best.map(|(_, fetched)| fetched))
}

/// The workers that pin or offer a model and can be called from here, without this one.
pub(super) async fn holders(
    account: &dyn Account,
    model: ModelId,
    endpoint: &Endpoint,
) -> Result<Vec<WorkerAddress>, AccountError> {
    let own = endpoint.address();
    let socket = own.location.socket();
    let ipv6 = matches!(own.location, Location::Direct(_)).then_some(socket.is_ipv6());
    let reach = Reach { loopback: socket.ip().is_loopback(), ipv6 };
    let mut holders: Vec<WorkerAddress> = Vec::new();
    let mut add = |worker: IOperators::Worker| {
        let key = PublicKey(worker.key.0);
        let known = holders.iter().any(|holder| holder.key == key);
        if let Ok(location) = reach.check(&worker.endpoint)
            && worker.retiredHeight == 0
            && key != own.key
            && !known
            && holders.len() < HOLDERS_MAX
        {
            holders.push(WorkerAddress { key, location });
        }
    };
    let pins = IHosting::pinsOfCall { model: word(model), offset: 0 };
    for pin in view(account, Module::Hosting, &pins).await?.into_iter().take(HOLDERS_MAX) {
        add(view(account, Module::Operators, &IOperators::workerCall { key: pin.worker }).await?);
    }
    for operator in operators(account).await? {
        let offers = IOperators::offersOfCall { operator, offset: 0 };
        let offers = view(account, Module::Operators, &offers).await?;
        if offers.iter().any(|offer| offer.model == word(model)) {
            let workers = IOperators::workersOfCall { operator, offset: 0 };
            view(account, Module::Operators, &workers).await?.into_iter().for_each(&mut add);
        }
    }
    Ok(holders)
}

async fn operators(account: &dyn Account) -> Result<Vec<Address>, AccountError> {
    let mut operators = Vec::new();
    while operators.len() < OPERATORS_MAX {
        let page = IOperators::operatorsCall { offset: operators.len() as u64 };
        let page = view(account, Module::Operators, &page).await?;
        let last = page.len() < PAGE;
        operators.extend(page);
        if last {
            break;
        }
    }
    operators.truncate(OPERATORS_MAX);
    Ok(operators)
}

/// Bytes that may still be put there: of what was given, and of what is free.
pub(super) fn left(room: &Room, taken: u64) -> u64 {
    let free = room
        .store
        .downloads()
        .ancestors()
        .find_map(crate::machine::free_disk_bytes)
        .map_or(u64::MAX, |free| free.saturating_sub(DISK_LEFT));
    room.bytes_max.saturating_sub(taken).min(free)
}

/// Brings a file into the store, and has no collection delete it; why not, in words.
pub(super) async fn fetch(
    endpoint: Endpoint,
    store: Store,
    wanted: Fetched,
    holders: Vec<WorkerAddress>,
) -> Result<(), String> {
    let told = |error: &dyn std::error::Error| error.to_string();
    let here = store.list().map_err(|error| told(&error))?;
    let here = here.into_iter().find(|entry| entry.blake3 == wanted.file && entry.path.exists());
    let name = match here {
        Some(entry) => entry.name,
        None => {
            let Fetched { file: digest, bytes, .. } = wanted;
            let place = store.pulled(digest);
            let request =
                PullRequest { digest, bytes: Some(bytes), holders, downloads: store.downloads(), place };
            pull(&endpoint, request, PullLimits::default(), &mut |_| {})
                .await
                .map_err(|error| told(&error))?;
            let called = format!("hosted-{}", &digest.to_string()[..12]);
            store.enter_pulled(digest, None, &called).map_err(|error| told(&error))?.name
        }
    };
    let reference = Reference::Name { name, pin: None };
    store.set_pinned(&reference, true).map(drop).map_err(|error| told(&error))
}

/// Lets `surety model gc` delete a file that was fetched.
pub(super) fn let_go(store: &Store, file: Digest) {
    let names = store.list().unwrap_or_default().into_iter().filter(|entry| entry.blake3 == file);
    for entry in names {
        let reference = Reference::Name { name: entry.name, pin: None };
        if let Err(error) = store.set_pinned(&reference, false) {
            tracing::warn!(%error, "a file that is hosted no more stays pinned in the store");
        }
    }
}

/// The pin of an operator on every admitted model that it pins.
pub(super) async fn pinned(account: &dyn Account, operator: Address) -> Result<Vec<ModelId>, AccountError> {
    let mut pinned = Vec::new();
    for model in models(account).await? {
        let pin = IHosting::pinOfCall { model: word(model), operator };
        if view(account, Module::Hosting, &pin).await?.worker != B256::ZERO {
            pinned.push(model);
        }
    }
    Ok(pinned)
}

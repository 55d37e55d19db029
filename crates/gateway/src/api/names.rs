//! Names: what the ledger says that a model's names stand for, and stood for.
//!
//! In:     GET requests, by a model that is served here. Out: for each of its names who holds it, and its latest versions.
//! Touches: the ledger, through the payer's account.
//! Holds:  each model is asked about once for all who look; what workers call a model and the ledger does not know is said to be unknown
//!         there.
//! Absent: what a name means to a request (`route/models`): that is what workers serve.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use alloy_primitives::B256;
use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::HeaderMap,
    response::Response,
};
use serde::Serialize;
use surety_client::{Account, AccountError, channel::view};
use surety_types::{
    Digest, ModelId,
    abi::{IModels, Module},
};
use tokio::time::timeout;
use utoipa::ToSchema;

use super::{
    ledger::{busy, too_late, unasked},
    look::path_text,
};
use crate::{
    error::{ApiError, Code, ErrorBody},
    gateway::Shared,
};

/// How old it may be.
const AGE_MAX: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(20);
/// Names of a model that are asked about, and versions of each, the latest.
const NAMES_MAX: usize = 8;
const VERSIONS_MAX: u64 = 16;

/// What a model's names stand for, proven to this gateway.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelNames {
    /// The model's id.
    pub model: String,
    /// The names that workers serve it under.
    pub names: Vec<NameOnLedger>,
}

/// A name, as the ledger has it.
#[derive(Debug, Serialize, ToSchema)]
pub struct NameOnLedger {
    pub name: String,
    /// Who points it; null if the ledger does not know the name, and so nobody there answers for it.
    pub holder: Option<String>,
    /// What it stands for and stood for, the latest first.
    pub versions: Vec<NameVersion>,
    /// Earlier ones, that are not told here.
    pub left_out: u64,
}

/// What a name was pointed at.
#[derive(Debug, Serialize, ToSchema)]
pub struct NameVersion {
    /// From 1.
    pub version: u64,
    /// The model's id.
    pub model: String,
    /// The block from which on.
    pub block: u64,
}

/// What the ledger says that a model's names stand for, and stood for.
#[utoipa::path(get, path = "/v1/network/models/{id}/names", tag = "network", params(
    ("id" = String, Path, description = "A name, or an id."),
), responses(
    (status = 200, description = "Each name.", body = ModelNames),
    (status = 304, description = "As they were."),
    (status = "4XX", description = "No worker serves it.", body = ErrorBody),
    (status = 404, description = "`no_ledger`: this gateway uses none.", body = ErrorBody),
    (status = 503, description = "`ledger_unavailable`: it cannot be asked now.", body = ErrorBody),
))]
pub(super) async fn names(
    State(shared): State<Arc<Shared>>,
    asked: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let model = shared.workers.resolve(&path_text(asked)?)?.id;
    let payer = shared.workers.payer().ok_or_else(|| {
        ApiError::new(
            Code::NoLedger,
            "This gateway uses no ledger: names are what its workers call their models.",
        )
    })?;
    let made = async {
        let _turn = payer.looks.try_acquire().map_err(|_| busy())?;
        let names = shared.workers.names_of(model).into_iter().take(NAMES_MAX).collect();
        let found = timeout(TIMEOUT, history(payer.account(), model, names)).await.map_err(|_| too_late())?;
        found.map_err(|error| unasked(&error))
    };
    let fresh = shared.views.of_model(&shared, &model.to_string());
    Ok(fresh.get(AGE_MAX, made).await?.response(&headers))
}

async fn history(
    account: &dyn Account,
    model: ModelId,
    wanted: BTreeSet<String>,
) -> Result<ModelNames, AccountError> {
    let mut names = Vec::new();
    for name in wanted {
        let now = match view(account, Module::Models, &IModels::resolveCall { name: name.clone() }).await {
            Ok(now) => now,
            // What cannot be a name there is none.
            Err(error) if error.refused => {
                names.push(NameOnLedger { name, holder: None, versions: Vec::new(), left_out: 0 });
                continue;
            }
            Err(error) => return Err(error),
        };
        let mut versions = Vec::new();
        for version in (1..=now.version).rev().take(VERSIONS_MAX as usize) {
            let call = IModels::nameHistoryCall { name: name.clone(), version };
            let then = view(account, Module::Models, &call).await?;
            versions.push(NameVersion { version, model: id(then.id), block: then.height });
        }
        names.push(NameOnLedger {
            name,
            holder: (now.version > 0).then(|| now.holder.to_string()),
            left_out: now.version.saturating_sub(VERSIONS_MAX),
            versions,
        });
    }
    Ok(ModelNames { model: model.to_string(), names })
}

fn id(word: B256) -> String {
    ModelId(Digest(word.0)).to_string()
}

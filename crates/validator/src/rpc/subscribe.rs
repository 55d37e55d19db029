//! `eth_subscribe`: new heads, logs and pending transactions, as they come.
//!
//! Holds:  a subscriber gets every head and every log, in order: one that falls behind is served from the indexes, one
//!         that reads nothing is let go.

use std::{sync::Arc, time::Duration};

use alloy_rpc_types_eth::{Filter, FilterBlockOption};
use jsonrpsee::{
    PendingSubscriptionSink, RpcModule, SubscriptionMessage, SubscriptionSink,
    core::{RegisterMethodError, server::SubscriptionCloseResponse},
    types::ErrorObjectOwned,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;

use super::{
    Services,
    error::{Answer, invalid_params, told},
    params::{Arguments, sorted},
    shapes,
};
use crate::indexes::{IndexedHeader, LogQuery, Snapshot, bloom};

/// How long a subscriber may take to read a message.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Blocks that are read at once for a subscriber that fell behind.
const CATCH_UP_MAX: u64 = 64;

/// What can be subscribed to.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Kind {
    NewHeads,
    Logs,
    NewPendingTransactions,
}

/// Adds the methods.
pub(super) fn register(module: &mut RpcModule<Services>) -> Result<(), RegisterMethodError> {
    module.register_subscription(
        "eth_subscribe",
        "eth_subscription",
        "eth_unsubscribe",
        |params, pending, services, _| async move {
            let wanted = match wanted(&params) {
                Ok(wanted) => wanted,
                Err(error) => {
                    pending.reject(error).await;
                    return SubscriptionCloseResponse::None;
                }
            };
            serve(pending, services, wanted).await;
            SubscriptionCloseResponse::None
        },
    )?;
    Ok(())
}

/// What a subscriber wants.
enum Wanted {
    Heads,
    Logs(LogQuery),
    Pending { whole: bool },
}

fn wanted(params: &jsonrpsee::types::Params<'_>) -> Answer<Wanted> {
    let mut arguments = Arguments::of(params);
    let kind: Kind = arguments.needed("the subscription's kind")?;
    Ok(match kind {
        Kind::NewHeads => Wanted::Heads,
        Kind::NewPendingTransactions => Wanted::Pending {
            whole: arguments.optional("whether transactions are wanted whole")?.unwrap_or(false),
        },
        Kind::Logs => {
            let filter: Filter = arguments.optional("the filter")?.unwrap_or_default();
            if matches!(filter.block_option, FilterBlockOption::AtBlockHash(_)) {
                return Err(invalid_params("a subscription has no block hash"));
            }
            let topics = std::array::from_fn(|position| sorted(filter.topics[position].iter().copied()));
            Wanted::Logs(LogQuery {
                from: 0,
                to: u64::MAX,
                addresses: sorted(filter.address.iter().copied()),
                topics,
            })
        }
    })
}

async fn serve(pending: PendingSubscriptionSink, services: Arc<Services>, wanted: Wanted) {
    let from = services.indexes.tip().map_or(0, |tip| tip + 1);
    let admitted = services.pool.subscribe();
    let Ok(sink) = pending.accept().await else { return };
    services.metrics.subscriptions.inc();
    let closed = sink.closed();
    let served = async {
        match &wanted {
            Wanted::Heads => blocks(&sink, &services, from, heads).await,
            Wanted::Logs(query) => {
                let query = query.clone();
                blocks(&sink, &services, from, move |snapshot, header| logs(snapshot, header, &query)).await
            }
            Wanted::Pending { whole } => transactions(&sink, admitted, *whole).await,
        }
    };
    tokio::select! {
        () = closed => {}
        ended = served => {
            if let Err(Gone) = ended {
                tracing::debug!("a subscriber was let go");
            }
        }
    }
    services.metrics.subscriptions.dec();
}

/// The subscriber reads nothing, or nothing can be read for it.
struct Gone;

/// Sends what `look` finds in every block from `next` on.
async fn blocks(
    sink: &SubscriptionSink,
    services: &Services,
    mut next: u64,
    look: impl Fn(&Snapshot, &IndexedHeader) -> Answer<Vec<Value>> + Clone + Send + 'static,
) -> Result<(), Gone> {
    let mut tip = services.indexes.watch();
    loop {
        let newest = *tip.borrow_and_update();
        if let Some(newest) = newest
            && newest >= next
        {
            let look = look.clone();
            let read = services.reading(move |snapshot| {
                let mut found = Vec::new();
                let last = newest.min(next + CATCH_UP_MAX - 1);
                for number in next..=last {
                    if let Some(header) = told(snapshot.header(number))? {
                        found.extend(look(snapshot, &header)?);
                    }
                }
                Ok::<_, ErrorObjectOwned>((found, last))
            });
            let (found, last) = read.await.map_err(|_| Gone)?;
            for message in &found {
                send(sink, message).await?;
            }
            next = last + 1;
            if next <= newest {
                continue;
            }
        }
        tip.changed().await.map_err(|_| Gone)?;
    }
}

fn heads(snapshot: &Snapshot, header: &IndexedHeader) -> Answer<Vec<Value>> {
    let receipts = told(snapshot.receipts(header.number))?;
    let mut head = value(&shapes::header(header, bloom(&receipts)));
    // Several blocks share a second; those who measure need more.
    head["timestampMs"] = value(&alloy_primitives::U64::from(header.timestamp_ms));
    Ok(vec![head])
}

fn logs(snapshot: &Snapshot, header: &IndexedHeader, query: &LogQuery) -> Answer<Vec<Value>> {
    let found = told(snapshot.block_logs(header.number, query))?;
    Ok(found.into_iter().map(|found| value(&shapes::log(found))).collect())
}

async fn transactions(
    sink: &SubscriptionSink,
    mut admitted: tokio::sync::broadcast::Receiver<Arc<crate::mempool::Candidate>>,
    whole: bool,
) -> Result<(), Gone> {
    loop {
        let message = match admitted.recv().await {
            Ok(candidate) if whole => value(&shapes::pending(&candidate)),
            Ok(candidate) => value(&candidate.hash()),
            // What waits is no record: whoever is slow misses some.
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return Err(Gone),
        };
        send(sink, &message).await?;
    }
}

fn value(shape: &impl Serialize) -> Value {
    serde_json::to_value(shape).expect("these shapes are plain data")
}

async fn send(sink: &SubscriptionSink, message: &Value) -> Result<(), Gone> {
    let message =
        SubscriptionMessage::new(sink.method_name(), sink.subscription_id(), message).map_err(|_| Gone)?;
    sink.send_timeout(message, SEND_TIMEOUT).await.map_err(|_| Gone)
}

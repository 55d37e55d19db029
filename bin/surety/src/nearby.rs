//! Workers of a private network: `--mdns[=IP]`.
//!
//! In:     this machine's address in that network, if it was named.
//! Out:    who was found there.
//! Touches: the network's multicast group.
//! Absent: believing what is found (`surety_net`).

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use surety_net::{LocalError, LocalNetwork, WorkerAddress, find};
use surety_worker::machine;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::output::hinted;

/// The first answer comes within this, and the others as long after it.
const FIRST: Duration = Duration::from_secs(3);
const OTHERS: Duration = Duration::from_millis(500);

/// The network in which this machine has this address, or the one that the system would choose.
pub fn network(interface: Option<Ipv4Addr>) -> LocalNetwork {
    let network = LocalNetwork::default();
    let chosen = || match machine::speaks_from(SocketAddr::from(([224, 0, 0, 251], network.port))) {
        Some(IpAddr::V4(ip)) => ip,
        Some(IpAddr::V6(_)) | None => Ipv4Addr::UNSPECIFIED,
    };
    LocalNetwork { interface: interface.unwrap_or_else(chosen), ..network }
}

/// Who is found in a network, as that changes.
pub fn found_in(network: LocalNetwork) -> anyhow::Result<watch::Receiver<Vec<WorkerAddress>>> {
    find(network).map_err(told)
}

/// Who is found in a network now.
pub async fn found_now(network: LocalNetwork) -> anyhow::Result<Vec<WorkerAddress>> {
    let mut found = found_in(network)?;
    if timeout(FIRST, found.wait_for(|found| !found.is_empty())).await.is_ok() {
        sleep(OTHERS).await;
    }
    Ok(found.borrow().clone())
}

/// What a person is told.
pub fn told(error: LocalError) -> anyhow::Error {
    let hint = error.hint();
    hinted(format!("{:#}", anyhow::Error::new(error)), hint)
}

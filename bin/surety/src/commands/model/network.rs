//! Models on the network: what a reference means to the ledger, who offers it, and who really holds it.
//!
//! In:     a reference, a ledger.
//! Out:    the model's manifest and its one file; the workers whose operators offer it; what an audit of each came to.
//! Touches: the ledger, those workers.
//! Holds:  what a reference means and who offers a model is proven; a manifest counts only under its own digest; an offer is
//!         a word, and only an audit shows a file.
//! Absent: fetching it (`pull`).

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::Context;
use surety_blobs::{AuditReport, Challenge, audit::MissReason, audit_at, tree::Shape};
use surety_client::{
    Reach,
    ledger::Tip,
    models::{FindError, Offering},
};
use surety_net::{BindOptions, Endpoint, Location, Protocol, WorkerAddress};
use surety_types::{Digest, FileDigest, Manifest, ModelId, SecretKey};
use surety_worker::store::Reference;
use tokio::task::JoinSet;

use crate::{look::Look, output::hinted};

/// Workers that are asked or audited for one model.
pub const HOLDERS_MAX: usize = 64;
/// Audited at once.
const TOGETHER: usize = 8;
/// Workers that are asked for a manifest that no node has.
const TELLERS_MAX: usize = 8;
/// For one of them to answer.
const TELL_TIMEOUT: Duration = Duration::from_secs(3);

/// A model that the ledger knows.
pub struct Hosted {
    pub id: ModelId,
    pub manifest: Manifest,
    /// As of which block.
    pub tip: Tip,
    /// Who says to have it, and where, as far as that can be called.
    pub offering: Vec<Offered>,
}

/// A worker that should have a model.
pub struct Offered {
    pub by: Offering,
    /// Where it is, or what is wrong with what its operator wrote.
    pub address: Result<WorkerAddress, &'static str>,
}

/// A worker that was audited, or could not be.
pub struct Audited {
    pub offered: Offered,
    /// Nothing if there is no address to ask.
    pub report: Option<AuditReport>,
}

/// Finds a model on the ledger.
pub async fn find(look: &Look, reference: &Reference) -> anyhow::Result<Hosted> {
    let ledger = &look.ledger;
    let id = match reference {
        Reference::Name { name, pin } => match name.parse::<Digest>() {
            // As some write them, without `blake3:`.
            Ok(_) => ledger.model_with_digits(name).await?,
            Err(_) => ledger.model_named(name, pin.as_deref()).await?,
        },
        Reference::Id(digits) => ledger.model_with_digits(digits).await?,
        Reference::Path(_) | Reference::Hub(_) => {
            return Err(hinted(
                format!("`{reference}` names no model of the network"),
                "give a name on the ledger, or blake3:… of a model or of its file",
            ));
        }
    };
    on_ledger(look, id).await
}

/// A model by its id.
pub async fn on_ledger(look: &Look, id: ModelId) -> anyhow::Result<Hosted> {
    if look.ledger.model(id).await?.is_none() {
        return Err(FindError::Unknown(id.to_string()).into());
    }
    let (tip, offering) = look.ledger.offering(id).await?;
    let offering = reachable(offering, look.local);
    let manifest = match look.ledger.manifest(id).await? {
        Some(manifest) => manifest,
        None => told_by_workers(id, &offering).await.ok_or_else(|| {
            hinted(
                format!("nobody has the manifest of {id}"),
                "ask another validator with --rpc-url: one that has kept the block in which it was published",
            )
        })?,
    };
    Ok(Hosted { id, manifest, tip, offering })
}

impl Hosted {
    /// The model's one file.
    pub fn file(&self) -> anyhow::Result<&FileDigest> {
        match self.manifest.files.as_slice() {
            [file] => Ok(file),
            files => Err(hinted(
                format!("{} is made of {} files", self.id, files.len()),
                "models of one file can be fetched and audited",
            )),
        }
    }

    /// Those that can be called.
    pub fn addresses(&self) -> Vec<WorkerAddress> {
        self.offering.iter().filter_map(|offered| offered.address.ok()).collect()
    }

    /// Audits everyone who offers it, with chunks that the latest block names. `told` is called as each ends.
    pub async fn audited(
        self,
        count: u32,
        limit: Duration,
        mut told: impl FnMut(&Audited),
    ) -> anyhow::Result<Vec<Audited>> {
        let file = self.file()?;
        let (digest, shape) = (file.blake3, Shape::new(file.bytes)?);
        let endpoint = endpoint_towards(&self.addresses()).await?;
        let (mut audited, mut running) = (Vec::new(), JoinSet::new());
        let mut waiting = self.offering.into_iter();
        loop {
            while running.len() < TOGETHER {
                let Some(offered) = waiting.next() else { break };
                let beacon = Digest(self.tip.hash.0);
                let challenge = Challenge { digest, shape, beacon, holder: offered.by.key, count };
                let endpoint = endpoint.clone();
                running.spawn(async move {
                    let report = match &offered.address {
                        Ok(address) => Some(audit_at(&endpoint, address, &challenge, limit).await),
                        Err(_) => None,
                    };
                    Audited { offered, report }
                });
            }
            match running.join_next().await {
                Some(one) => {
                    let one = one.context("an audit failed")?;
                    told(&one);
                    audited.push(one);
                }
                None => break,
            }
        }
        endpoint.close().await;
        audited.sort_by_key(|one| (one.offered.by.operator, one.offered.by.key.0));
        Ok(audited)
    }
}

impl Audited {
    /// Whether it opened every chunk.
    pub fn holds(&self) -> bool {
        self.report.as_ref().is_some_and(AuditReport::passed)
    }

    /// What the audit showed, in words.
    pub fn verdict(&self) -> String {
        let report = match (&self.report, &self.offered.address) {
            (Some(report), _) => report,
            (None, Err(why)) => return (*why).to_owned(),
            (None, Ok(_)) => return "not asked".to_owned(),
        };
        if report.passed() {
            return "has it".to_owned();
        }
        let all = report.proven == 0;
        let every = |why: MissReason| report.misses.iter().all(|miss| miss.why == why);
        if all && every(MissReason::Silence) {
            "ABSENT: it does not answer".to_owned()
        } else if all && every(MissReason::Refused) {
            "ABSENT: it says that it does not have it".to_owned()
        } else if all && every(MissReason::Busy) {
            "too busy to show it".to_owned()
        } else {
            format!("LOST PART: {} of {} chunks missed", report.misses.len(), report.drawn)
        }
    }
}

/// How many operators must fail before nobody has a model: every one of whom at least one worker holds it.
pub fn operators_holding(audited: &[Audited]) -> usize {
    let holding = audited.iter().filter(|one| one.holds()).map(|one| one.offered.by.operator);
    holding.collect::<BTreeSet<_>>().len()
}

/// Checks what operators wrote. One socket reaches one family of addresses: that of the most.
fn reachable(offering: Vec<Offering>, local: bool) -> Vec<Offered> {
    let either = Reach { loopback: local, ipv6: None };
    let sound = offering.iter().filter_map(|by| match either.check(&by.endpoint) {
        Ok(Location::Direct(socket)) => Some(socket),
        Ok(Location::Relayed(_)) | Err(_) => None,
    });
    let (ipv6, ipv4): (Vec<SocketAddr>, Vec<SocketAddr>) = sound.partition(SocketAddr::is_ipv6);
    let reach = Reach { ipv6: Some(ipv6.len() > ipv4.len()), ..either };
    let mut offered: Vec<Offered> = offering
        .into_iter()
        .map(|by| {
            let address = reach.check(&by.endpoint).map(|location| WorkerAddress { key: by.key, location });
            Offered { by, address }
        })
        .collect();
    if offered.len() > HOLDERS_MAX {
        // Not always the same ones.
        let mut random = [0; 8];
        let start = getrandom::fill(&mut random).map_or(0, |()| u64::from_le_bytes(random));
        let start = start % offered.len() as u64;
        offered.rotate_left(start as usize);
        offered.truncate(HOLDERS_MAX);
    }
    offered
}

/// The manifest as workers tell it, who load it anyhow; checked against the id.
async fn told_by_workers(id: ModelId, offering: &[Offered]) -> Option<Manifest> {
    let addresses: Vec<WorkerAddress> = offering.iter().filter_map(|offered| offered.address.ok()).collect();
    let endpoint = endpoint_towards(&addresses).await.ok()?;
    for address in addresses.iter().take(TELLERS_MAX) {
        let Ok(link) = endpoint.connect_within(address, Protocol::Status, TELL_TIMEOUT).await else {
            continue;
        };
        let Ok(status) = link.status(TELL_TIMEOUT).await else { continue };
        let mut manifests = status.models.into_iter().map(|model| model.manifest);
        if let Some(manifest) = manifests.find(|manifest| manifest.id() == id) {
            return Some(manifest);
        }
    }
    None
}

/// An endpoint that reaches these, under a key of this use alone.
pub async fn endpoint_towards(holders: &[WorkerAddress]) -> anyhow::Result<Endpoint> {
    let loopback = holders.iter().all(|holder| holder.location.socket().ip().is_loopback());
    let is_ipv6 = |holder: &WorkerAddress| matches!(holder.location, Location::Direct(SocketAddr::V6(_)));
    let ip = match (loopback, holders.iter().any(is_ipv6)) {
        (true, false) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        (true, true) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        (false, false) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        (false, true) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| anyhow::anyhow!("the system has no randomness: {error}"))?;
    let key = SecretKey::from_bytes(&secret);
    Ok(Endpoint::bind(BindOptions { key, listen: SocketAddr::new(ip, 0) }).await?)
}

#[cfg(test)]
mod tests {
    use alloy_primitives::Address;
    use surety_blobs::audit::Miss;
    use surety_types::PublicKey;

    use super::*;

    fn offering(operator: u8, endpoint: &str) -> Offering {
        let operator_name = "someone".to_owned();
        let (operator, key) = (Address::repeat_byte(operator), PublicKey([operator; 32]));
        Offering { operator, operator_name, key, endpoint: endpoint.to_owned() }
    }

    fn audited(operator: u8, proven: u32, misses: &[MissReason]) -> Audited {
        let offered = reachable(vec![offering(operator, "192.0.2.1:4433")], false).remove(0);
        let misses = misses.iter().map(|why| Miss { chunk: 0, why: *why }).collect::<Vec<_>>();
        let report = AuditReport {
            holder: offered.by.key,
            digest: Digest::ZERO,
            beacon: Digest::ZERO,
            drawn: proven + misses.len() as u32,
            proven,
            misses,
            bytes: 0,
            elapsed_ms: 1,
        };
        Audited { offered, report: Some(report) }
    }

    #[test]
    fn operators_count_once_and_only_if_a_worker_of_theirs_proved_it() {
        let hosts = [
            audited(1, 10, &[]),
            audited(1, 10, &[]),
            audited(2, 10, &[]),
            audited(3, 9, &[MissReason::Wrong]),
            audited(4, 0, &[MissReason::Silence]),
            Audited { report: None, ..audited(5, 10, &[]) },
        ];
        assert_eq!(operators_holding(&hosts), 2);
        assert_eq!(operators_holding(&[]), 0);
        let verdicts: Vec<String> = hosts.iter().map(Audited::verdict).collect();
        assert_eq!(verdicts[3], "LOST PART: 1 of 10 chunks missed");
        assert_eq!(verdicts[4], "ABSENT: it does not answer");
        assert_eq!(
            audited(6, 0, &[MissReason::Refused; 3]).verdict(),
            "ABSENT: it says that it does not have it"
        );
    }

    #[test]
    fn addresses_are_of_one_family_and_not_of_this_machine_unless_the_ledger_is() {
        let list = || {
            let endpoints = ["192.0.2.1:1", "192.0.2.2:1", "[2001:db8::1]:1", "127.0.0.1:1", "example.org:1"];
            endpoints.iter().zip(1..).map(|(endpoint, operator)| offering(operator, endpoint)).collect()
        };
        let callable = |local| {
            let offered: Vec<bool> =
                reachable(list(), local).iter().map(|offered| offered.address.is_ok()).collect();
            offered
        };
        assert_eq!(callable(false), [true, true, false, false, false]);
        assert_eq!(callable(true), [true, true, false, true, false]);
        let many = (0..=255).map(|operator| offering(operator, "192.0.2.1:1")).collect();
        assert_eq!(reachable(many, false).len(), HOLDERS_MAX);
    }
}

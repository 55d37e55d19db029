//! Whether a worker is reached where the ledger says that it is.
//!
//! In:     the address on the ledger. Out: what was found, whether it is usable, and a fix.
//! Touches: the ledger; an endpoint of its own, on another socket and under another key.
//! Holds:  what is called usable has answered there, under the worker's key.
//! Absent: what a firewall between this machine and others does: nobody else is asked. Through a relay the answer has left the
//!         machine and come back; directly it has not, and that is said.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use alloy_primitives::B256;
use serde_json::{Value, json};
use surety_client::{Account, Reach, channel::view};
use surety_net::{Location, Protocol, WorkerAddress};
use surety_types::{
    PublicKey,
    abi::{IOperators, Module},
};
use surety_worker::money::Duties;
use tokio::{sync::watch, time::sleep};

use super::{
    pause::now_ms,
    reach::{Standing, standing},
};
use crate::commands::{
    doctor::{self, Finding, Grade},
    model::network::endpoint_towards,
};

const WHAT: &str = "reached";
/// For an answer.
const LIMIT: Duration = Duration::from_secs(10);
/// Between two looks, after one that went well, and after one that did not.
const AGAIN: Duration = Duration::from_secs(600);
const AGAIN_SOON: Duration = Duration::from_secs(30);

/// What was last seen, and when.
#[derive(Debug)]
pub struct Seen {
    finding: Finding,
    at_ms: u64,
}

impl Seen {
    /// For scripts.
    pub fn told(&self) -> Value {
        json!({
            "usable": self.finding.grade != Grade::Bad,
            "found": self.finding.found,
            "fix": self.finding.advice,
            "checked_ms": self.at_ms,
        })
    }
}

/// Looks once the ledger names the worker, and again from time to time; `changed` is told what is new.
pub async fn watch(
    account: Arc<dyn Account>,
    key: PublicKey,
    mut duties: watch::Receiver<Duties>,
    seen: watch::Sender<Option<Seen>>,
    changed: impl Fn(&Finding),
) {
    if duties.wait_for(|state| state.registered).await.is_err() {
        return;
    }
    loop {
        let finding = look(&*account, key).await;
        let pause = if finding.grade == Grade::Bad { AGAIN_SOON } else { AGAIN };
        let new = seen.borrow().as_ref().is_none_or(|seen| seen.finding.grade != finding.grade);
        if new {
            changed(&finding);
        }
        seen.send_replace(Some(Seen { finding, at_ms: now_ms() }));
        sleep(pause).await;
    }
}

async fn look(account: &dyn Account, key: PublicKey) -> Finding {
    let call = IOperators::workerCall { key: B256::from(key.0) };
    let endpoint = match view(account, Module::Operators, &call).await {
        Ok(worker) => worker.endpoint,
        Err(error) => return doctor::slow(WHAT, format!("not known: {}", error.message), error.hint),
    };
    let location = match (Reach { loopback: true, ipv6: None }).check(&endpoint) {
        Ok(location) => location,
        Err(why) => return doctor::bad(WHAT, format!("not at `{endpoint}`: {why}"), fix(None)),
    };
    let asked = Instant::now();
    judge(location, answers(WorkerAddress { key, location }).await.map(|()| asked.elapsed()))
}

/// Asks a worker for its status, as a stranger would.
async fn answers(address: WorkerAddress) -> Result<(), String> {
    let endpoint = endpoint_towards(&[address]).await.map_err(|error| format!("{error:#}"))?;
    let asked = async {
        let link = endpoint.connect_within(&address, Protocol::Status, LIMIT).await;
        let link = link.map_err(|error| error.to_string())?;
        link.status(LIMIT).await.map(drop).map_err(|error| error.to_string())
    };
    let answered = asked.await;
    endpoint.close().await;
    answered
}

/// What an answer, or none, means at this place.
fn judge(location: Location, answered: Result<Duration, String>) -> Finding {
    let ms = match answered {
        Ok(after) => after.as_millis(),
        Err(why) => return doctor::bad(WHAT, format!("not at {location}: {why}"), fix(Some(location))),
    };
    let found = format!("at {location}, answers another socket in {ms} ms");
    match location {
        Location::Relayed(_) => doctor::good(WHAT, format!("{found}, through its relay")),
        Location::Direct(socket) => match standing(socket.ip()) {
            Standing::Loopback => doctor::good(WHAT, format!("{found}; this machine only")),
            Standing::Private => doctor::slow(
                WHAT,
                format!("{found}; its own network only"),
                "for others name a relay (--relay IP:PORT), or forward a port (--reach direct=IP:PORT --listen 0.0.0.0:PORT)",
            ),
            Standing::Public => {
                doctor::good(WHAT, format!("{found}; asked from this machine, so a firewall is not seen"))
            }
        },
    }
}

fn fix(location: Option<Location>) -> String {
    match location {
        Some(Location::Relayed(_)) => {
            "see that the relay runs and that TCP to it is open, or name another with --relay IP:PORT"
                .to_owned()
        }
        Some(Location::Direct(socket)) => format!(
            "let UDP port {} in at the firewall and the router, or use a relay: --reach relay --relay IP:PORT",
            socket.port()
        ),
        None => "start the worker again with --reach auto".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use surety_net::{BindOptions, Endpoint, ListenLimits};
    use surety_types::SecretKey;

    use super::*;

    #[test]
    fn each_place_has_its_meaning_and_its_fix() {
        let judged = |location: &str, answers: bool| {
            let answered = if answers { Ok(Duration::from_millis(3)) } else { Err("no answer".to_owned()) };
            judge(location.parse().unwrap(), answered)
        };
        for (location, grade, word) in [
            ("relay+http://192.0.2.1:80", Grade::Good, "through its relay"),
            ("8.8.4.4:7", Grade::Good, "a firewall is not seen"),
            ("10.0.0.1:7", Grade::Slow, "its own network only"),
            ("127.0.0.1:7", Grade::Good, "this machine only"),
        ] {
            let found = judged(location, true);
            assert_eq!(found.grade, grade, "{location}");
            assert!(found.found.contains(word) && found.found.contains("in 3 ms"), "{found:?}");
        }
        for (location, fix) in [("relay+http://192.0.2.1:80", "--relay"), ("8.8.4.4:7", "UDP port 7")] {
            let found = judged(location, false);
            assert_eq!(found.grade, Grade::Bad);
            assert!(found.found.contains("no answer") && found.advice.unwrap().contains(fix));
        }
    }

    #[tokio::test]
    async fn who_does_not_answer_under_its_key_is_not_reached() {
        let bind = |seed| BindOptions {
            key: SecretKey::from_bytes(&[seed; 32]),
            listen: "127.0.0.1:0".parse().unwrap(),
        };
        // It takes connections, and none for a status.
        let other = Endpoint::bind(bind(7)).await.unwrap();
        let _listening = other.listen_for_blobs(ListenLimits::default());
        assert!(answers(other.address()).await.is_err());
        let impostor = WorkerAddress { key: SecretKey::from_bytes(&[8; 32]).public(), ..other.address() };
        assert!(answers(impostor).await.is_err());
    }
}

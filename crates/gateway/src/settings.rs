//! Settings: how a gateway is to run, checked whole before it starts.
//!
//! In:     plain values from whoever starts the gateway.
//! Out:    the same, or the first thing that is wrong with them.
//! Touches: nothing.
//! Holds:  a gateway that asks nobody for a key listens on loopback only, unless it is said outright that anyone may use it.
//! Absent: reading files, arguments and the environment. That is the binary's matter.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use alloy_primitives::U256;
use surety_net::{Location, WorkerAddress};
use tokio::sync::watch;

use crate::payer::GatewayLedger;

/// Characters of an alias.
const ALIAS_CHARACTERS_MAX: usize = 256;

/// How a gateway is to run.
#[derive(Debug, Clone)]
pub struct GatewaySettings {
    /// Where to serve HTTP; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Whether anyone who reaches an address other than loopback may use the gateway.
    pub open: bool,
    /// Whether nobody may use it without a key, even before there is one.
    pub require_key: bool,
    /// Where the session key and the receipts are kept; made if it is not there.
    pub data_dir: PathBuf,
    /// The workers to use.
    pub workers: Vec<WorkerAddress>,
    /// Further workers, as they are found in a private network; believed to be where they say, once they have shown their keys.
    pub nearby: Option<watch::Receiver<Vec<WorkerAddress>>>,
    /// How further workers are found, and how all are paid; without this, only those that ask nothing are used.
    pub ledger: Option<GatewayLedger>,
    /// Whether whoever shows no key may pay for each request by itself (x402), and everyone else shows one. Needs `ledger`.
    pub x402: bool,
    /// Further names for models: what callers may ask for, and the served name or id that is meant.
    pub aliases: BTreeMap<String, String>,
    /// Bounds and times.
    pub limits: Limits,
}

/// Bounds and times of a gateway.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of one request body.
    pub body_bytes_max: usize,
    /// Bytes of all request bodies being served, together.
    pub bodies_bytes_max: usize,
    /// Requests being answered at once.
    pub requests_max: usize,
    /// Connections open at once.
    pub connections_max: usize,
    /// For a request's headers to arrive.
    pub header_timeout: Duration,
    /// For a request's body to arrive.
    pub body_timeout: Duration,
    /// For a reader to take anything at all of what is ready for it.
    pub write_timeout: Duration,
    /// For a whole answer, unless the caller says otherwise.
    pub answer_timeout: Duration,
    /// For a worker to say something.
    pub stall_timeout: Duration,
    /// For a worker to be found that goes on with an answer another broke off.
    pub search_timeout: Duration,
    /// Between two comments on a silent stream.
    pub keep_alive: Duration,
    /// Between two looks at a worker.
    pub status_interval: Duration,
    /// For running answers to end when the gateway stops.
    pub stop_grace: Duration,
    /// Receipts kept; the oldest go first.
    pub receipts_max: u64,
    /// Bytes of receipts kept.
    pub receipts_bytes_max: u64,
    /// Responses kept; the oldest go first.
    pub responses_max: u64,
    /// Bytes of responses kept.
    pub responses_bytes_max: u64,
    /// For so long responses are kept.
    pub responses_kept_for: Duration,
    /// For a reader that lost the stream of a response to come back, before the response is ended.
    pub reader_grace: Duration,
    /// Requests of which the journal says what became; the oldest go first.
    pub journal_max: u64,
    /// Bytes of the journal.
    pub journal_bytes_max: u64,
    /// How long a request stays in the journal.
    pub journal_age_max: Duration,
    /// Of the answers of a worker that fronts an upstream and names the model it runs, one in so many is compared with that
    /// model's, after the first 32; none if 0.
    pub compare_one_in: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 16 << 20,
            bodies_bytes_max: 256 << 20,
            requests_max: 2048,
            connections_max: 4096,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(600),
            answer_timeout: Duration::from_secs(600),
            stall_timeout: Duration::from_secs(1),
            search_timeout: Duration::from_secs(15),
            keep_alive: Duration::from_secs(5),
            status_interval: Duration::from_secs(1),
            stop_grace: Duration::from_secs(10),
            receipts_max: 100_000,
            receipts_bytes_max: 1 << 30,
            responses_max: 100_000,
            responses_bytes_max: 1 << 30,
            responses_kept_for: Duration::from_secs(30 * 24 * 3600),
            reader_grace: Duration::from_secs(30),
            journal_max: 200_000,
            journal_bytes_max: 256 << 20,
            journal_age_max: Duration::from_secs(30 * 24 * 3600),
            compare_one_in: 16,
        }
    }
}

/// What is wrong with settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Anyone could use it, and nobody said so.
    #[error("{listen} can be reached from other machines, and this gateway asks nobody for a key")]
    NotLoopback {
        /// Where it was to listen.
        listen: SocketAddr,
    },
    /// Two workers with one key.
    #[error("worker {worker} is named twice")]
    WorkerTwice {
        /// Its key.
        worker: String,
    },
    /// One socket cannot reach both.
    #[error("workers are named by IPv4 and by IPv6 addresses")]
    MixedFamilies,
    /// An alias that could not be asked for, or leads nowhere.
    #[error(
        "the alias {alias:?} must be 1 to {ALIAS_CHARACTERS_MAX} characters, without `@`, and lead to another name"
    )]
    Alias {
        /// The alias.
        alias: String,
    },
    /// Nowhere to be paid.
    #[error("without a ledger nobody can pay for requests (x402)")]
    NoLedger,
    /// Nothing would be put into channels, or more than there can be.
    #[error("a channel's deposit must be from 1 to 2^127 wei")]
    Deposit,
    /// A limit that leaves nothing possible.
    #[error("the limit {limit} must not be zero")]
    ZeroLimit {
        /// Its name.
        limit: &'static str,
    },
}

impl SettingsError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            SettingsError::NotLoopback { .. } => {
                "listen on 127.0.0.1, require a key, or say that the gateway is to be open to all"
            }
            SettingsError::WorkerTwice { .. } => "name each worker once",
            SettingsError::MixedFamilies => "name all workers by addresses of one family",
            SettingsError::Alias { .. } => "write an alias as NAME=SERVED-NAME",
            SettingsError::NoLedger => "name the ledger and the account that is paid, or leave x402 out",
            SettingsError::Deposit => "set a deposit of a credit or a few",
            SettingsError::ZeroLimit { .. } => "leave the limit out, or set it to at least 1",
        }
    }
}

impl GatewaySettings {
    /// Settings for `listen` and `data_dir`, with no worker yet and everything else as usual.
    pub fn new(listen: SocketAddr, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            listen,
            open: false,
            require_key: false,
            data_dir: data_dir.into(),
            workers: Vec::new(),
            nearby: None,
            ledger: None,
            x402: false,
            aliases: BTreeMap::new(),
            limits: Limits::default(),
        }
    }

    /// Finds the first thing that is wrong.
    pub fn check(&self) -> Result<(), SettingsError> {
        if self.x402 && self.ledger.is_none() {
            return Err(SettingsError::NoLedger);
        }
        if !self.listen.ip().is_loopback() && !self.open && !self.require_key && !self.x402 {
            return Err(SettingsError::NotLoopback { listen: self.listen });
        }
        for (index, worker) in self.workers.iter().enumerate() {
            if self.workers[..index].iter().any(|other| other.key == worker.key) {
                return Err(SettingsError::WorkerTwice { worker: worker.key.to_string() });
            }
        }
        let mut families = self.workers.iter().filter_map(|worker| match worker.location {
            Location::Direct(socket) => Some(socket.is_ipv4()),
            Location::Relayed(_) => None,
        });
        if families.next().is_some_and(|first| families.any(|family| family != first)) {
            return Err(SettingsError::MixedFamilies);
        }
        if let Some(ledger) = &self.ledger
            && (ledger.deposit.is_zero() || ledger.deposit > U256::from(1u128 << 127))
        {
            return Err(SettingsError::Deposit);
        }
        for (alias, target) in &self.aliases {
            let sound = (1..=ALIAS_CHARACTERS_MAX).contains(&alias.chars().count()) && !alias.contains('@');
            if !sound || target.is_empty() || self.aliases.contains_key(target) {
                return Err(SettingsError::Alias { alias: alias.clone() });
            }
        }
        self.limits.check()
    }
}

impl Limits {
    fn check(&self) -> Result<(), SettingsError> {
        let counts = [
            ("body_bytes_max", self.body_bytes_max as u64),
            ("bodies_bytes_max", self.bodies_bytes_max as u64),
            ("requests_max", self.requests_max as u64),
            ("connections_max", self.connections_max as u64),
            ("receipts_max", self.receipts_max),
            ("receipts_bytes_max", self.receipts_bytes_max),
            ("responses_max", self.responses_max),
            ("responses_bytes_max", self.responses_bytes_max),
        ];
        let times = [
            ("header_timeout", self.header_timeout),
            ("body_timeout", self.body_timeout),
            ("write_timeout", self.write_timeout),
            ("answer_timeout", self.answer_timeout),
            ("stall_timeout", self.stall_timeout),
            ("search_timeout", self.search_timeout),
            ("keep_alive", self.keep_alive),
            ("status_interval", self.status_interval),
            ("responses_kept_for", self.responses_kept_for),
        ];
        let zero_count = counts.into_iter().find(|(_, count)| *count == 0).map(|(limit, _)| limit);
        let zero_time = times.into_iter().find(|(_, time)| time.is_zero()).map(|(limit, _)| limit);
        match zero_count.or(zero_time) {
            Some(limit) => Err(SettingsError::ZeroLimit { limit }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(listen: &str) -> GatewaySettings {
        GatewaySettings::new(listen.parse().expect("an address"), "data")
    }

    #[test]
    fn the_world_is_let_in_only_when_somebody_says_so() {
        for (listen, open, sound) in [
            ("127.0.0.1:8080", false, true),
            ("127.9.9.9:0", false, true),
            ("[::1]:8080", false, true),
            ("0.0.0.0:8080", false, false),
            ("192.168.1.2:8080", false, false),
            ("[::]:8080", false, false),
            ("0.0.0.0:8080", true, true),
        ] {
            let settings = GatewaySettings { open, ..settings(listen) };
            assert_eq!(settings.check().is_ok(), sound, "{listen} open={open}");
        }
    }

    #[test]
    fn a_gateway_that_requires_a_key_may_be_reached() {
        let settings = GatewaySettings { require_key: true, ..settings("0.0.0.0:8080") };
        assert_eq!(settings.check(), Ok(()));
    }

    #[test]
    fn workers_are_named_once_and_in_one_family() {
        let worker = |digit: &str, socket: &str| -> WorkerAddress {
            format!("{}@{socket}", digit.repeat(64)).parse().expect("an address")
        };
        let check = |workers: &[WorkerAddress]| {
            GatewaySettings { workers: workers.to_vec(), ..settings("127.0.0.1:0") }.check()
        };
        let (first, second) = (worker("1", "127.0.0.1:1"), worker("2", "127.0.0.1:2"));
        assert_eq!(check(&[first, second]), Ok(()));
        assert!(matches!(check(&[first, second, first]), Err(SettingsError::WorkerTwice { .. })));
        assert_eq!(check(&[first, worker("2", "[::1]:2")]), Err(SettingsError::MixedFamilies));
    }

    #[test]
    fn aliases_lead_somewhere_in_one_step() {
        let check = |pairs: &[(&str, &str)]| {
            let aliases = pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
            GatewaySettings { aliases, ..settings("127.0.0.1:0") }.check().is_ok()
        };
        assert!(check(&[("gpt-4o", "qwen3"), ("gpt-4o-mini", "qwen3")]));
        assert!(!check(&[("a", "b"), ("b", "c")]));
        assert!(!check(&[("a", "a")]));
        assert!(!check(&[("a@b", "c")]));
        assert!(!check(&[("", "c")]));
        assert!(!check(&[("a", "")]));
    }

    #[test]
    fn a_zero_limit_is_named() {
        let mut settings = settings("127.0.0.1:0");
        settings.limits.keep_alive = Duration::ZERO;
        assert_eq!(settings.check(), Err(SettingsError::ZeroLimit { limit: "keep_alive" }));
    }
}

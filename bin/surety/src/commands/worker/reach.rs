//! How others reach a worker: directly, or through a relay.
//!
//! In:     `--reach`, `--listen`, `--relay`; the address from which this machine speaks; relays that the
//!         ledger's workers use.
//! Out:    where to listen, and the relay to be found at.
//! Touches: nothing; asks the system which address it would speak from.
//! Holds:  what was said is done; what was not said is decided by one rule, and told.
//! Absent: seeing whether others get through (`reached`).

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use surety_net::{Location, RelayAddress};

use crate::output::hinted;

/// Relays that are tried, one after the other.
const RELAYS_MAX: usize = 4;

/// How to be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Directly if this machine speaks from an address that others can call, else through a relay.
    #[default]
    Auto,
    /// At this socket, or at the one listened on.
    Direct(Option<SocketAddr>),
    /// Through a relay: this one, or one that is known.
    Relay(Option<RelayAddress>),
}

/// Arguments about it.
#[derive(Clone, Debug, clap::Args)]
pub struct ReachArgs {
    /// How others reach this worker: auto, direct, direct=IP:PORT (where that is not where it listens), relay, or
    /// relay=IP:PORT. auto: directly from a public or loopback address; from a private one through a relay if one is known.
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub reach: Reach,
    /// Where to listen (UDP); port 0 takes any free one [default: any port of the address that `--reach` comes to].
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// A relay that may be used (`surety relay run`); of several the first that takes it on [default: those that the ledger's workers are found at].
    #[arg(long = "relay", value_name = "IP:PORT")]
    pub relays: Vec<RelayAddress>,
}

/// What it came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Relays to be found at: the first that takes it on. None: directly.
    pub relays: Vec<RelayAddress>,
    /// Where others call, if not there.
    pub announce: Option<SocketAddr>,
    /// Why, for people.
    pub why: &'static str,
}

impl FromStr for Reach {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (how, at) = match text.split_once('=') {
            Some((how, at)) => (how, Some(at)),
            None => (text, None),
        };
        match (how, at) {
            ("auto", None) => Ok(Reach::Auto),
            ("direct", None) => Ok(Reach::Direct(None)),
            ("direct", Some(at)) => {
                at.parse().map(|at| Reach::Direct(Some(at))).map_err(|_| format!("`{at}` is no IP:PORT"))
            }
            ("relay", None) => Ok(Reach::Relay(None)),
            ("relay", Some(at)) => {
                at.parse().map(|at| Reach::Relay(Some(at))).map_err(|_| format!("`{at}` is no IP:PORT"))
            }
            _ => Err("say auto, direct, direct=IP:PORT, relay or relay=IP:PORT".into()),
        }
    }
}

/// What kind of address a machine speaks from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Only itself.
    Loopback,
    /// Its own network; the world sees another address.
    Private,
    /// The world.
    Public,
}

/// Whom an address is known to.
pub fn standing(ip: IpAddr) -> Standing {
    match ip {
        _ if ip.is_loopback() => Standing::Loopback,
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            let carrier = first == 100 && (64..128).contains(&second);
            if ip.is_private() || ip.is_link_local() || ip.is_unspecified() || carrier {
                Standing::Private
            } else {
                Standing::Public
            }
        }
        IpAddr::V6(ip) => {
            let first = ip.segments()[0];
            let local = first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfe80 || ip.is_unspecified();
            if local { Standing::Private } else { Standing::Public }
        }
    }
}

/// The relays that workers are found at, the most used first.
pub fn known_relays<'a>(endpoints: impl Iterator<Item = &'a str>) -> Vec<RelayAddress> {
    let mut uses: BTreeMap<RelayAddress, usize> = BTreeMap::new();
    for endpoint in endpoints {
        if let Ok(Location::Relayed(relay)) = endpoint.parse()
            && !relay.0.ip().is_loopback()
        {
            *uses.entry(relay).or_default() += 1;
        }
    }
    let mut relays: Vec<_> = uses.into_iter().collect();
    relays.sort_by_key(|(relay, uses)| (std::cmp::Reverse(*uses), *relay));
    relays.into_iter().map(|(relay, _)| relay).collect()
}

/// Decides. `from`: the address this machine speaks to the network from.
pub fn decide(args: &ReachArgs, from: Option<IpAddr>, known: &[RelayAddress]) -> anyhow::Result<Reached> {
    let relays = if args.relays.is_empty() { known } else { &args.relays };
    let relays: Vec<RelayAddress> = relays.iter().copied().take(RELAYS_MAX).collect();
    // Any address for those who call out: a direct way may still be found.
    let outwards = args.listen.unwrap_or_else(|| SocketAddr::new(unspecified(from), 0));
    let at_home = args.listen.unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0));
    let through = |relays, why| Reached { listen: outwards, relays, announce: None, why };
    let direct = |listen, why| Reached { listen, relays: Vec::new(), announce: None, why };
    Ok(match args.reach {
        Reach::Direct(announce) => {
            let own = from.map(|ip| SocketAddr::new(ip, 0));
            let listen = args.listen.or(announce.and(Some(outwards))).or(own).unwrap_or(at_home);
            Reached { announce, ..direct(listen, "as told") }
        }
        Reach::Relay(Some(named)) => through(vec![named], "as told"),
        Reach::Relay(None) if relays.is_empty() => {
            return Err(hinted(
                "no relay is known",
                "name one with --relay IP:PORT; `surety relay run` on a machine that others reach makes one",
            ));
        }
        Reach::Relay(None) => through(relays, "as told"),
        Reach::Auto => match (args.listen, from.map(|ip| (ip, standing(ip)))) {
            (Some(listen), _) => direct(listen, "where --listen says"),
            (None, None | Some((_, Standing::Loopback))) => direct(at_home, "this machine only"),
            (None, Some((ip, Standing::Public))) => {
                direct(SocketAddr::new(ip, 0), "this machine's address is public")
            }
            (None, Some((ip, Standing::Private))) if relays.is_empty() => direct(
                SocketAddr::new(ip, 0),
                "this machine's address is private and no relay is known: reached from the same network only",
            ),
            (None, Some((_, Standing::Private))) => {
                through(relays, "this machine's address is private; a relay is known")
            }
        },
    })
}

fn unspecified(like: Option<IpAddr>) -> IpAddr {
    match like {
        Some(IpAddr::V6(_)) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(reach: &str, listen: Option<&str>, relays: &[&str]) -> ReachArgs {
        ReachArgs {
            reach: reach.parse().unwrap(),
            listen: listen.map(|listen| listen.parse().unwrap()),
            relays: relays.iter().map(|relay| relay.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn what_is_not_said_is_decided_by_the_address_one_speaks_from() {
        let known = ["192.0.2.9:80".parse().unwrap()];
        let check = |args: ReachArgs, from: &str, listen: &str, relay: Option<&str>| {
            let from = from.parse().ok();
            let reached = decide(&args, from, &known).unwrap();
            let relays: Vec<RelayAddress> = relay.iter().map(|relay| relay.parse().unwrap()).collect();
            assert_eq!(
                (reached.listen, reached.relays),
                (listen.parse().unwrap(), relays),
                "{args:?} {from:?}"
            );
        };
        check(args("auto", None, &[]), "127.0.0.1", "127.0.0.1:0", None);
        check(args("auto", None, &[]), "unknown", "127.0.0.1:0", None);
        check(args("auto", None, &[]), "8.8.4.4", "8.8.4.4:0", None);
        check(args("auto", None, &[]), "2001:db8::7", "[2001:db8::7]:0", None);
        check(args("auto", None, &[]), "10.0.2.100", "0.0.0.0:0", Some("192.0.2.9:80"));
        check(args("auto", None, &["192.0.2.1:1"]), "100.64.1.1", "0.0.0.0:0", Some("192.0.2.1:1"));
        check(args("auto", Some("127.0.0.1:5"), &[]), "10.0.2.100", "127.0.0.1:5", None);
        check(args("direct", None, &[]), "10.0.2.100", "10.0.2.100:0", None);
        check(args("relay", None, &[]), "8.8.4.4", "0.0.0.0:0", Some("192.0.2.9:80"));
        check(args("relay=192.0.2.2:2", None, &["192.0.2.1:1"]), "fd00::1", "[::]:0", Some("192.0.2.2:2"));
        let told = decide(&args("direct=192.0.2.5:7", None, &[]), None, &[]).unwrap();
        assert_eq!(told.announce, Some("192.0.2.5:7".parse().unwrap()));
        assert_eq!(told.listen, "0.0.0.0:0".parse().unwrap());
        let private = decide(&args("auto", None, &[]), "10.0.0.1".parse().ok(), &[]).unwrap();
        assert_eq!((private.listen, private.relays), ("10.0.0.1:0".parse().unwrap(), Vec::new()));
        assert!(private.why.contains("same network only"));
        assert!(decide(&args("relay", None, &[]), None, &[]).is_err());
        for wrong in ["", "relay=", "relay=x:1", "direct=1", "auto=1", "tor"] {
            assert!(wrong.parse::<Reach>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn relays_are_known_by_those_who_use_them() {
        let endpoints = [
            "192.0.2.1:1",
            "relay+http://192.0.2.2:80",
            "relay+http://192.0.2.3:80",
            "relay+http://192.0.2.3:80",
            "relay+http://127.0.0.1:80",
            "garbage",
            "",
        ];
        let relays = ["192.0.2.3:80", "192.0.2.2:80"].map(|relay| relay.parse().unwrap());
        assert_eq!(known_relays(endpoints.into_iter()), relays);
    }
}

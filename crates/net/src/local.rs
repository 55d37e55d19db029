//! Local: workers of a private network, found by DNS-SD over multicast DNS, where that was asked for.
//!
//! In:     a worker's address, to be announced; or the wish to find others. Out: the addresses that were announced.
//! Touches: one UDP socket in the multicast group 224.0.0.251 of one network; no name service.
//! Holds:  a key and an address are all that is ever said, and only to this network; datagrams, workers, answers in a second and
//!         how long a word counts are bounded; what cannot be read harms nothing.
//! Absent: believing it. Whoever answers at an address proves the key with the connection.
//!
//! Of RFC 6762 and 6763 as much as two sides of this need, and what other tools need to show it: a responder on the
//! group's port that answers questions for `_surety._udp.local`, and a querier on a port of its own, whose questions are
//! answered to itself alone (RFC 6762 §6.7). IPv4.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};

use simple_dns::{
    CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, ResourceRecord, TYPE,
    rdata::{A, PTR, RData, SRV, TXT},
};
use socket2::{Domain, Socket, Type};
use surety_types::PublicKey;
use thiserror::Error;
use tokio::{
    net::UdpSocket,
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use crate::address::{Location, WorkerAddress};

const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
/// Where responders listen (RFC 6762 §3).
const PORT: u16 = 5353;
const SERVICE: &str = "_surety._udp.local";
/// What is read of a datagram; ours are a quarter of it.
const DATAGRAM_BYTES: usize = 1500;
/// A word counts so long, in seconds …
const TTL_S: u32 = 120;
/// … and to who asks from a port of its own, so long (RFC 6762 §6.7).
const TTL_LEGACY_S: u32 = 10;
/// An announcement nobody asked for comes so often.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(60);
/// Answers in a second, of a burst of as many.
const ANSWERS_PER_SECOND: u32 = 20;
/// Between the first two questions; doubles up to the second.
const ASK_MIN: Duration = Duration::from_secs(1);
const ASK_MAX: Duration = Duration::from_secs(30);
/// A worker that has not answered for so long is gone.
const FORGET: Duration = Duration::from_secs(95);
/// Workers of one network that are known at once.
const FOUND_MAX: usize = 64;
/// Records of one datagram that are looked at.
const RECORDS_MAX: usize = 64;

/// Which network, and for tests another port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalNetwork {
    /// This machine's address in it; unspecified: that of the system's choice.
    pub interface: Ipv4Addr,
    /// Where responders listen.
    pub port: u16,
}

impl Default for LocalNetwork {
    fn default() -> Self {
        LocalNetwork { interface: Ipv4Addr::UNSPECIFIED, port: PORT }
    }
}

/// Why nothing is announced, or found.
#[derive(Debug, Error)]
pub enum LocalError {
    /// There is no multicast to be had.
    #[error("this machine cannot multicast in the network of {interface}")]
    Multicast {
        /// Its address there.
        interface: Ipv4Addr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What is to be announced is not the address of one machine of that network.
    #[error("{0} is not an address that a private network can call")]
    Address(Location),
}

impl LocalError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            LocalError::Multicast { .. } => "name the workers with --worker instead, or allow UDP port 5353",
            LocalError::Address(_) => {
                "listen at this machine's IPv4 address in that network (--listen IP:PORT)"
            }
        }
    }
}

/// A worker that is announced, until this is dropped.
#[derive(Debug)]
pub struct Announced {
    _task: JoinSet<()>,
}

/// Announces a worker to its network, and answers those who ask.
pub fn announce(address: WorkerAddress, network: LocalNetwork) -> Result<Announced, LocalError> {
    let socket = match address.location {
        Location::Direct(SocketAddr::V4(socket)) if is_one_machine(socket) => socket,
        other => return Err(LocalError::Address(other)),
    };
    let failed = |source| LocalError::Multicast { interface: network.interface, source };
    let listening = responder_socket(network).map_err(failed)?;
    let mut task = JoinSet::new();
    task.spawn(answer_all(listening, Own { key: address.key, socket }, network));
    Ok(Announced { _task: task })
}

/// Finds the workers that are announced in a network, for as long as somebody looks at what comes of it.
pub fn find(network: LocalNetwork) -> Result<watch::Receiver<Vec<WorkerAddress>>, LocalError> {
    let failed = |source| LocalError::Multicast { interface: network.interface, source };
    let socket = open(network, 0).map_err(failed)?;
    let (found, seen) = watch::channel(Vec::new());
    tokio::spawn(ask_again(socket, network, found));
    Ok(seen)
}

fn open(network: LocalNetwork, port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    if port != 0 {
        // A responder of the system's own may be there too.
        socket.set_reuse_address(true)?;
        #[cfg(unix)]
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.set_multicast_loop_v4(true)?;
    socket.set_multicast_ttl_v4(255)?;
    if !network.interface.is_unspecified() {
        socket.set_multicast_if_v4(&network.interface)?;
    }
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())?;
    UdpSocket::from_std(socket.into())
}

fn responder_socket(network: LocalNetwork) -> io::Result<UdpSocket> {
    let socket = open(network, network.port)?;
    socket.join_multicast_v4(GROUP, network.interface)?;
    Ok(socket)
}

fn is_one_machine(socket: SocketAddrV4) -> bool {
    let ip = socket.ip();
    socket.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast()
}

/// Whether a datagram comes from this machine or a private network.
fn is_near(from: SocketAddr) -> bool {
    match from.ip() {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(_) => false,
    }
}

/// What a worker says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Own {
    key: PublicKey,
    socket: SocketAddrV4,
}

async fn answer_all(socket: UdpSocket, own: Own, network: LocalNetwork) {
    let mut announcing = interval(ANNOUNCE_INTERVAL);
    announcing.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let group = SocketAddr::from((GROUP, network.port));
    let mut buffer = vec![0; DATAGRAM_BYTES];
    let (mut left, mut since) = (ANSWERS_PER_SECOND, Instant::now());
    loop {
        let (bytes, from) = tokio::select! {
            _ = announcing.tick() => {
                send(&socket, own.announcement(), group).await;
                continue;
            }
            received = socket.recv_from(&mut buffer) => match received {
                Ok((count, from)) => (&buffer[..count], from),
                Err(error) => {
                    tracing::debug!(%error, "a local question was not received");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        if since.elapsed() >= Duration::from_secs(1) {
            (left, since) = (ANSWERS_PER_SECOND, Instant::now());
        }
        if left == 0 || !is_near(from) {
            continue;
        }
        let Some(answer) = own.answer(bytes, from.port() != network.port) else { continue };
        left -= 1;
        match answer {
            Answer::Asker(bytes) => send(&socket, bytes, from).await,
            Answer::All(bytes) => send(&socket, bytes, group).await,
        }
    }
}

async fn send(socket: &UdpSocket, bytes: Option<Vec<u8>>, to: SocketAddr) {
    let Some(bytes) = bytes else { return };
    if let Err(error) = socket.send_to(&bytes, to).await {
        tracing::debug!(%error, "the local network was not told");
    }
}

/// To whom an answer goes.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Asker(Option<Vec<u8>>),
    All(Option<Vec<u8>>),
}

impl Own {
    fn instance(&self) -> String {
        format!("surety-{}.{SERVICE}", &self.key.to_string()[..16])
    }

    fn host(&self) -> String {
        format!("surety-{}.local", &self.key.to_string()[..16])
    }

    fn announcement(&self) -> Option<Vec<u8>> {
        self.packet(0, None, TTL_S)
    }

    /// The answer to a datagram, if it is a question that we can answer. `legacy`: it did not come from the group's port.
    fn answer(&self, bytes: &[u8], legacy: bool) -> Option<Answer> {
        let packet = Packet::parse(bytes).ok()?;
        if packet.has_flags(PacketFlag::RESPONSE) || packet.opcode() != OPCODE::StandardQuery {
            return None;
        }
        let service = Name::new(SERVICE).ok()?;
        let asks = |question: &&Question<'_>| {
            question.qname == service
                && matches!(question.qtype, QTYPE::ANY | QTYPE::TYPE(TYPE::PTR))
                && matches!(question.qclass, QCLASS::ANY | QCLASS::CLASS(CLASS::IN))
        };
        let question = packet.questions.iter().take(RECORDS_MAX).find(asks)?;
        if legacy {
            return Some(Answer::Asker(self.packet(packet.id(), Some(question), TTL_LEGACY_S)));
        }
        let answer = self.packet(0, None, TTL_S);
        Some(if question.unicast_response { Answer::Asker(answer) } else { Answer::All(answer) })
    }

    /// Everything that we say: the instance, where it is, and its key.
    fn packet(&self, id: u16, question: Option<&Question<'_>>, ttl: u32) -> Option<Vec<u8>> {
        let (instance, host, key) = (self.instance(), self.host(), format!("key={}", self.key));
        let name = |text| Name::new(text).ok();
        // What is ours alone replaces what others remember of it; the list of instances is everybody's (RFC 6762 §10.2).
        let own = |name, rdata| {
            ResourceRecord::new(name, CLASS::IN, ttl, rdata).with_cache_flush(question.is_none())
        };
        let mut packet = Packet::new_reply(id);
        packet.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
        packet.questions.extend(question.cloned());
        let listed = RData::PTR(PTR(name(&instance)?));
        packet.answers.push(ResourceRecord::new(name(SERVICE)?, CLASS::IN, ttl, listed));
        let place = SRV { priority: 0, weight: 0, port: self.socket.port(), target: name(&host)? };
        packet.additional_records.push(own(name(&instance)?, RData::SRV(place)));
        packet.additional_records.push(own(name(&instance)?, RData::TXT(TXT::new().with_string(&key).ok()?)));
        let address = RData::A(A { address: u32::from(*self.socket.ip()) });
        packet.additional_records.push(own(name(&host)?, address));
        packet.build_bytes_vec().ok()
    }
}

fn question() -> Option<Vec<u8>> {
    let mut packet = Packet::new_query(0);
    let (kind, class) = (QTYPE::TYPE(TYPE::PTR), QCLASS::CLASS(CLASS::IN));
    packet.questions.push(Question::new(Name::new(SERVICE).ok()?, kind, class, true));
    packet.build_bytes_vec().ok()
}

/// What the records of this name say.
fn of<'r, 'd>(
    records: &'r [&'r ResourceRecord<'d>],
    name: &'r Name<'d>,
) -> impl Iterator<Item = &'r RData<'d>> {
    records.iter().filter(move |record| record.name == *name).map(|record| &record.rdata)
}

/// The workers that a datagram announces.
fn heard(bytes: &[u8]) -> Vec<WorkerAddress> {
    let Ok(packet) = Packet::parse(bytes) else { return Vec::new() };
    let (Ok(service), true) = (Name::new(SERVICE), packet.has_flags(PacketFlag::RESPONSE)) else {
        return Vec::new();
    };
    let records = packet.answers.iter().chain(&packet.additional_records);
    let records: Vec<_> = records.filter(|record| record.ttl > 0).take(RECORDS_MAX).collect();
    let mut found = Vec::new();
    for rdata in of(&records, &service) {
        let RData::PTR(PTR(instance)) = rdata else { continue };
        let place = of(&records, instance).find_map(|rdata| match rdata {
            RData::SRV(place) => Some(place),
            _ => None,
        });
        let key = of(&records, instance).find_map(|rdata| match rdata {
            RData::TXT(text) => text.iter_raw().find_map(|(name, value)| {
                let value = std::str::from_utf8(value?).ok()?;
                if name == b"key" { value.parse::<PublicKey>().ok() } else { None }
            }),
            _ => None,
        });
        let (Some(place), Some(key)) = (place, key) else { continue };
        let socket = of(&records, &place.target).find_map(|rdata| match rdata {
            RData::A(A { address }) => Some(SocketAddrV4::new(Ipv4Addr::from(*address), place.port)),
            _ => None,
        });
        if let Some(socket) = socket.filter(|socket| is_one_machine(*socket)) {
            found.push(WorkerAddress::direct(key, socket.into()));
        }
    }
    found
}

/// The workers that were heard of, and until when that counts.
#[derive(Debug, Default)]
struct Known(BTreeMap<[u8; 32], (WorkerAddress, Instant)>);

impl Known {
    fn hear(&mut self, address: WorkerAddress, now: Instant) {
        if self.0.len() < FOUND_MAX || self.0.contains_key(&address.key.0) {
            self.0.insert(address.key.0, (address, now + FORGET));
        }
    }

    fn forget(&mut self, now: Instant) {
        self.0.retain(|_, (_, until)| *until > now);
    }

    fn addresses(&self) -> Vec<WorkerAddress> {
        self.0.values().map(|(address, _)| *address).collect()
    }
}

async fn ask_again(socket: UdpSocket, network: LocalNetwork, found: watch::Sender<Vec<WorkerAddress>>) {
    let group = SocketAddr::from((GROUP, network.port));
    let mut buffer = vec![0; DATAGRAM_BYTES];
    let (mut pause, mut due) = (ASK_MIN, Instant::now());
    let mut known = Known::default();
    let found = Arc::new(found);
    loop {
        tokio::select! {
            () = found.closed() => return,
            () = sleep_until(due) => {
                send(&socket, question(), group).await;
                due = Instant::now() + pause;
                pause = (pause * 2).min(ASK_MAX);
                known.forget(Instant::now());
            }
            received = socket.recv_from(&mut buffer) => match received {
                Ok((count, from)) if is_near(from) => {
                    heard(&buffer[..count]).into_iter().for_each(|address| known.hear(address, Instant::now()));
                }
                Ok(_) => {}
                // The next question tells whether that was for good.
                Err(error) => {
                    tracing::debug!(%error, "a local answer was not received");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
        let now = known.addresses();
        found.send_if_modified(|found| {
            let changed = *found != now;
            *found = now;
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn own(seed: u8) -> Own {
        Own { key: PublicKey([seed; 32]), socket: SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, seed), 4433) }
    }

    fn address(own: Own) -> WorkerAddress {
        WorkerAddress::direct(own.key, own.socket.into())
    }

    #[test]
    fn what_is_answered_is_what_is_heard_and_nothing_else_is_said() {
        let asked = question().unwrap();
        let Some(Answer::Asker(Some(answer))) = own(7).answer(&asked, true) else { panic!("an answer") };
        assert_eq!(heard(&answer), [address(own(7))]);
        assert_eq!(heard(&own(8).announcement().unwrap()), [address(own(8))]);
        assert!(answer.len() <= DATAGRAM_BYTES / 4, "{}", answer.len());
        // Four records: the instance, its place, its key, its address.
        let packet = Packet::parse(&answer).unwrap();
        assert_eq!(
            (packet.answers.len(), packet.additional_records.len(), packet.questions.len()),
            (1, 3, 1)
        );
        assert!(
            packet.additional_records.iter().all(|record| record.ttl == TTL_LEGACY_S && !record.cache_flush)
        );
        // From the group's port it is asked for an answer to itself; without that, all hear it.
        assert!(matches!(own(7).answer(&asked, false), Some(Answer::Asker(Some(_)))));
        let mut plain = Packet::parse(&asked).unwrap();
        plain.questions[0].unicast_response = false;
        let plain = plain.build_bytes_vec().unwrap();
        assert!(matches!(own(7).answer(&plain, false), Some(Answer::All(Some(_)))));
    }

    #[test]
    fn what_is_no_question_for_us_is_not_answered() {
        let mut other = Packet::new_query(1);
        let name = Name::new("_ipp._tcp.local").unwrap();
        other.questions.push(Question::new(name, QTYPE::TYPE(TYPE::PTR), QCLASS::CLASS(CLASS::IN), false));
        for bytes in
            [other.build_bytes_vec().unwrap(), own(1).announcement().unwrap(), Vec::new(), vec![0; 12]]
        {
            assert_eq!(own(7).answer(&bytes, true), None);
        }
        // Nor is a question heard as an answer, or a farewell, or an address of nobody.
        assert!(heard(&question().unwrap()).is_empty());
        assert!(heard(&own(7).packet(0, None, 0).unwrap()).is_empty());
        let nobody = Own { socket: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 1), ..own(7) };
        assert!(heard(&nobody.announcement().unwrap()).is_empty());
    }

    #[test]
    fn words_are_forgotten_and_never_more_than_so_many_are_kept() {
        let (mut known, now) = (Known::default(), Instant::now());
        for seed in 0..=255 {
            known.hear(address(own(seed)), now);
        }
        assert_eq!(known.addresses().len(), FOUND_MAX);
        let moved = WorkerAddress::direct(own(0).key, "192.168.1.99:1".parse().unwrap());
        known.hear(moved, now + FORGET / 2);
        assert_eq!(known.addresses()[0], moved);
        known.forget(now + FORGET);
        assert_eq!(known.addresses(), [moved]);
    }

    #[test]
    fn only_the_address_of_one_machine_is_announced() {
        for location in ["0.0.0.0:1", "[::1]:1", "relay+http://192.168.1.1:1", "224.0.0.251:1"] {
            let address = WorkerAddress { key: PublicKey([1; 32]), location: location.parse().unwrap() };
            let refused = announce(address, LocalNetwork::default());
            assert!(matches!(refused, Err(LocalError::Address(_))), "{location}");
        }
        for (from, near) in
            [("10.1.2.3:1", true), ("127.0.0.1:1", true), ("8.8.8.8:1", false), ("[::1]:1", false)]
        {
            assert_eq!(is_near(from.parse().unwrap()), near, "{from}");
        }
    }

    #[tokio::test]
    async fn a_worker_is_found_by_who_asks_in_its_network() {
        // On loopback, at a port of our own.
        let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let network = LocalNetwork { interface: Ipv4Addr::LOCALHOST, port };
        let one = WorkerAddress::direct(PublicKey([3; 32]), "127.0.0.1:4433".parse().unwrap());
        let (announced, mut found) = match (announce(one, network), find(network)) {
            (Ok(announced), Ok(found)) => (announced, found),
            (Err(error), _) | (_, Err(error)) => {
                eprintln!("SKIPPED: {error}: {error:?}");
                return;
            }
        };
        let seen =
            tokio::time::timeout(Duration::from_secs(20), found.wait_for(|found| *found == [one])).await;
        if seen.is_err() && !multicast_works(network).await {
            eprintln!("SKIPPED: no multicast comes back on the loopback interface");
            return;
        }
        seen.expect("found in time").unwrap();
        drop(announced);
    }

    /// Whether a datagram to the group comes back at all.
    async fn multicast_works(network: LocalNetwork) -> bool {
        let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let network = LocalNetwork { port, ..network };
        let (Ok(hears), Ok(says)) = (responder_socket(network), open(network, 0)) else { return false };
        let _ = says.send_to(b"x", (GROUP, port)).await;
        let mut buffer = [0; 1];
        tokio::time::timeout(Duration::from_secs(2), hears.recv_from(&mut buffer))
            .await
            .is_ok_and(|got| got.is_ok())
    }

    proptest! {
        #[test]
        fn no_datagram_harms(bytes in prop::collection::vec(any::<u8>(), 0..600), legacy in any::<bool>()) {
            let _ = heard(&bytes);
            let _ = own(7).answer(&bytes, legacy);
        }

        #[test]
        fn no_spoiled_announcement_harms(seed in any::<u8>(), at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let mut bytes = own(seed).announcement().unwrap();
            let index = at.index(bytes.len());
            bytes[index] = to;
            bytes.truncate(cut.index(bytes.len()) + 1);
            for address in heard(&bytes) {
                prop_assert!(matches!(address.location, Location::Direct(SocketAddr::V4(socket)) if is_one_machine(socket)));
            }
            let _ = own(7).answer(&bytes, true);
        }
    }
}

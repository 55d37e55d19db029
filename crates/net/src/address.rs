//! Where a worker is, and who must answer there.

use std::{fmt, net::SocketAddr, str::FromStr};

use surety_types::PublicKey;

/// The scheme of a relay's address.
const RELAY_SCHEME: &str = "relay+http://";
/// Bytes of a location's text, at most; the longest IPv6 socket has fewer.
const LOCATION_BYTES_MAX: usize = 96;

/// A worker's key and location, written `KEY@IP:PORT` or `KEY@relay+http://IP:PORT`; an IPv6 address is in brackets.
///
/// The key is part of the address: a connection to anybody else at that location fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WorkerAddress {
    /// Who must answer.
    pub key: PublicKey,
    /// Where.
    pub location: Location,
}

/// Where packets for a worker go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Location {
    /// To its own socket (UDP), written `IP:PORT`.
    Direct(SocketAddr),
    /// To a relay to which it keeps a connection.
    Relayed(RelayAddress),
}

/// A relay's socket (TCP), written `relay+http://IP:PORT`. Never a name: nobody is asked where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayAddress(pub SocketAddr);

/// Text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected KEY@IP:PORT or KEY@relay+http://IP:PORT, with a key of 64 hexadecimal digits and an IP address"
)]
pub struct ParseAddressError;

/// Text that is no location.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected IP:PORT or relay+http://IP:PORT")]
pub struct ParseLocationError;

/// Text that is no relay's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected relay+http://IP:PORT, or IP:PORT")]
pub struct ParseRelayError;

impl WorkerAddress {
    /// A worker at a socket of its own.
    pub fn direct(key: PublicKey, socket: SocketAddr) -> Self {
        WorkerAddress { key, location: Location::Direct(socket) }
    }
}

impl Location {
    /// The socket that is spoken to first: the worker's, or the relay's.
    pub fn socket(&self) -> SocketAddr {
        match self {
            Location::Direct(socket) | Location::Relayed(RelayAddress(socket)) => *socket,
        }
    }
}

impl RelayAddress {
    /// As the transport writes it.
    pub(crate) fn url(&self) -> iroh::RelayUrl {
        format!("http://{}", self.0).parse().expect("an IP address and a port make a URL")
    }
}

impl fmt::Display for WorkerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.key, self.location)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Direct(socket) => socket.fmt(f),
            Location::Relayed(relay) => relay.fmt(f),
        }
    }
}

impl fmt::Display for RelayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{RELAY_SCHEME}{}", self.0)
    }
}

impl FromStr for WorkerAddress {
    type Err = ParseAddressError;
    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let (key, location) = text.split_once('@').ok_or(ParseAddressError)?;
        Ok(WorkerAddress {
            key: key.parse().map_err(|_| ParseAddressError)?,
            location: location.parse().map_err(|_| ParseAddressError)?,
        })
    }
}

impl FromStr for Location {
    type Err = ParseLocationError;
    fn from_str(text: &str) -> Result<Self, ParseLocationError> {
        if text.len() > LOCATION_BYTES_MAX {
            return Err(ParseLocationError);
        }
        let (socket, relayed) = match text.strip_prefix(RELAY_SCHEME) {
            Some(socket) => (socket, true),
            None => (text, false),
        };
        let socket = socket.parse().map_err(|_| ParseLocationError)?;
        Ok(if relayed { Location::Relayed(RelayAddress(socket)) } else { Location::Direct(socket) })
    }
}

impl FromStr for RelayAddress {
    type Err = ParseRelayError;
    fn from_str(text: &str) -> Result<Self, ParseRelayError> {
        text.parse::<Location>().map(|location| RelayAddress(location.socket())).map_err(|_| ParseRelayError)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_written_as_they_are_read() {
        let key = "ab".repeat(32);
        let locations = ["127.0.0.1:4433", "[::1]:1", "[2001:db8::7]:65535", "relay+http://192.0.2.1:80"];
        for location in locations.into_iter().chain(["relay+http://[2001:db8::7]:1"]) {
            let text = format!("{key}@{location}");
            let address = text.parse::<WorkerAddress>().unwrap();
            assert_eq!(address.to_string(), text);
            let relayed = matches!(address.location, Location::Relayed(_));
            assert_eq!(relayed, location.starts_with("relay"));
        }
        let no_key = format!("{}@127.0.0.1:1", "ab".repeat(31));
        let no_ip = format!("{key}@localhost:1");
        let no_port = format!("{key}@127.0.0.1");
        let named = format!("{key}@relay+http://relay.example:80");
        let slash = format!("{key}@relay+http://192.0.2.1:80/x");
        for text in ["", "@", key.as_str(), &no_key, &no_ip, &no_port, &named, &slash] {
            assert!(text.parse::<WorkerAddress>().is_err(), "{text}");
        }
        assert_eq!("192.0.2.1:80".parse::<RelayAddress>(), "relay+http://192.0.2.1:80".parse());
    }

    proptest! {
        #[test]
        fn every_location_survives_and_no_text_is_misread(
            ip in any::<std::net::IpAddr>(), port in any::<u16>(), relayed in any::<bool>(), text in ".{0,120}",
            prefixed in any::<bool>(),
        ) {
            let socket = SocketAddr::new(ip, port);
            let location =
                if relayed { Location::Relayed(RelayAddress(socket)) } else { Location::Direct(socket) };
            prop_assert_eq!(location.to_string().parse(), Ok(location));
            // An address always parses as one; it is what the transport is given.
            prop_assert_eq!(RelayAddress(socket).url().port_or_known_default(), Some(port));
            let text = if prefixed { format!("{RELAY_SCHEME}{text}") } else { text };
            if let Ok(read) = text.parse::<Location>() {
                prop_assert_eq!(read.to_string().parse(), Ok(read));
            }
        }
    }
}

//! Where a worker is, and who must answer there.

use std::{fmt, net::SocketAddr, str::FromStr};

use surety_types::PublicKey;

/// A worker's key and socket, written `KEY@HOST:PORT`; HOST is an IP address, in brackets if it is IPv6.
///
/// The key is part of the address: a connection to anybody else at that socket fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WorkerAddress {
    /// Who must answer.
    pub key: PublicKey,
    /// Where.
    pub socket: SocketAddr,
}

/// Text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected KEY@HOST:PORT, with a key of 64 hexadecimal digits and an IP address")]
pub struct ParseAddressError;

impl fmt::Display for WorkerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.key, self.socket)
    }
}

impl FromStr for WorkerAddress {
    type Err = ParseAddressError;
    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let (key, socket) = text.split_once('@').ok_or(ParseAddressError)?;
        Ok(WorkerAddress {
            key: key.parse().map_err(|_| ParseAddressError)?,
            socket: socket.parse().map_err(|_| ParseAddressError)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_they_are_read() {
        let key = "ab".repeat(32);
        for socket in ["127.0.0.1:4433", "[::1]:1", "[2001:db8::7]:65535"] {
            let text = format!("{key}@{socket}");
            assert_eq!(text.parse::<WorkerAddress>().unwrap().to_string(), text);
        }
        let no_key = format!("{}@127.0.0.1:1", "ab".repeat(31));
        let no_ip = format!("{key}@localhost:1");
        let no_port = format!("{key}@127.0.0.1");
        for text in ["", "@", key.as_str(), &no_key, &no_ip, &no_port] {
            assert!(text.parse::<WorkerAddress>().is_err(), "{text}");
        }
    }
}

//! Reach: which of the addresses that operators write can and should be called.
//!
//! In:     what an operator wrote. Out: the address of one machine, or what is wrong with it.
//! Holds:  nobody is made to call a machine of its own unless it serves this machine alone.
//! Absent: whether anyone is there.

use std::net::IpAddr;

use surety_net::Location;

/// Which addresses one can and should call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Whether this machine may be called: only where everything is on it.
    pub loopback: bool,
    /// The family of the caller's socket; none: either.
    pub ipv6: Option<bool>,
}

impl Reach {
    /// The address that an operator wrote, or what is wrong with it.
    pub fn check(self, endpoint: &str) -> Result<Location, &'static str> {
        let location: Location =
            endpoint.parse().map_err(|_| "its endpoint is no IP:PORT and no relay+http://IP:PORT")?;
        let socket = location.socket();
        if socket.port() == 0 {
            return Err("its endpoint has port 0");
        }
        let ip = socket.ip().to_canonical();
        let nowhere = match ip {
            IpAddr::V4(ip) => ip.is_broadcast(),
            IpAddr::V6(_) => false,
        };
        if nowhere || ip.is_unspecified() || ip.is_multicast() {
            return Err("its endpoint is the address of no single machine");
        }
        if ip.is_loopback() && !self.loopback {
            return Err("its endpoint is a loopback address, and not only this machine is served here");
        }
        // A relay is called over TCP: its address family does not matter.
        let direct = matches!(location, Location::Direct(_));
        if direct && self.ipv6.is_some_and(|ipv6| socket.is_ipv6() != ipv6) {
            return Err("its endpoint is of another address family than the socket here");
        }
        Ok(location)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_the_address_of_one_machine_that_may_be_called() {
        let own = Reach { loopback: true, ipv6: Some(false) };
        let open = Reach { loopback: false, ipv6: Some(false) };
        let relayed = ["relay+http://192.0.2.7:80", "relay+http://[2001:db8::7]:80"];
        for sound in ["192.0.2.7:4433", "127.0.0.1:1", "10.0.0.1:65535"].into_iter().chain(relayed) {
            assert_eq!(own.check(sound).map(|socket| socket.to_string()), Ok(sound.to_owned()));
        }
        for rubbish in [
            "",
            "localhost:1",
            "example.org:443",
            "192.0.2.7",
            "192.0.2.7:0",
            "192.0.2.7:65536",
            " 192.0.2.7:1",
            "0.0.0.0:1",
            "255.255.255.255:1",
            "224.0.0.1:1",
            "[::1]:1",
            "[::]:1",
            "http://192.0.2.7:1",
            "relay+http://relay.example:1",
            "relay+http://192.0.2.7:0",
            "relay+http://0.0.0.0:1",
            "relay+http://192.0.2.7:1/x",
        ] {
            assert!(own.check(rubbish).is_err(), "{rubbish:?}");
        }
        assert!(open.check("127.0.0.1:1").is_err());
        assert!(open.check("relay+http://127.0.0.1:1").is_err());
        assert!(open.check("192.0.2.7:1").is_ok());
        assert!(Reach { loopback: true, ipv6: Some(true) }.check("[::1]:1").is_ok());
        assert!(Reach { loopback: false, ipv6: None }.check("[::ffff:127.0.0.1]:1").is_err());
        assert!(Reach { loopback: false, ipv6: None }.check("[2001:db8::1]:1").is_ok());
    }
}

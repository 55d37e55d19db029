//! What an operator may write, and what becomes of it.

use super::Reach;

#[test]
fn an_endpoint_is_the_address_of_one_machine_that_may_be_called() {
    let own = Reach { loopback: true, ipv6: false };
    let open = Reach { loopback: false, ipv6: false };
    // A relay is called over TCP: its address family does not matter.
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
    assert!(Reach { loopback: true, ipv6: true }.check("[::1]:1").is_ok());
}

//! The relay protocol's frames: what a client may say, and what it is told.
//!
//! In:     one binary WebSocket message. Out: what it says, or that it says nothing that may be said; messages to send.
//! Holds:  what is forwarded is the sender's bytes with its proven key in place of the receiver's; nothing else of a
//!         packet is read.
//! Source: the iroh relay protocol, versions 1 and 2 (docs.rs/iroh-relay, `protos`). A type is a QUIC variable-length
//!         integer; every type there is takes one byte.

use bytes::{Bytes, BytesMut};
use surety_types::PublicKey;

const SERVER_CHALLENGE: u8 = 0;
const CLIENT_AUTH: u8 = 1;
const SERVER_CONFIRMS: u8 = 2;
const SERVER_DENIES: u8 = 3;
const TO_RELAY_DATAGRAM: u8 = 4;
const TO_RELAY_BATCH: u8 = 5;
const TO_CLIENT_DATAGRAM: u8 = 6;
const TO_CLIENT_BATCH: u8 = 7;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What a challenge is signed under.
const CHALLENGE_DOMAIN: &str = "iroh-relay handshake v1 challenge signature";
const KEY_BYTES: usize = 32;
const SIGNATURE_BYTES: usize = 64;
const PING_BYTES: usize = 8;
/// A frame's body: the other party's key, and datagrams.
const BODY_BYTES_MAX: usize = 64 << 10;
/// A frame, its type included.
pub(super) const FRAME_BYTES_MAX: usize = 1 + BODY_BYTES_MAX;

/// Random bytes that a client signs.
pub(super) type Challenge = [u8; 16];

/// What a client says once it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// Something for another client, in the form in which that one is to have it.
    Packet { to: [u8; KEY_BYTES], frame: Bytes },
    /// It wants this answer.
    Ping { pong: Bytes },
    /// It lives.
    Pong,
}

/// Bytes that no client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no frame of the relay protocol")]
pub(super) struct BadFrame;

/// Asks a client to show that it holds its key.
pub(super) fn challenge(challenge: &Challenge) -> Bytes {
    [&[SERVER_CHALLENGE][..], challenge].concat().into()
}

/// The key that a client has shown to hold.
pub(super) fn authenticated(challenge: &Challenge, frame: &[u8]) -> Result<PublicKey, BadFrame> {
    let [CLIENT_AUTH, body @ ..] = frame else { return Err(BadFrame) };
    let (key, body) = body.split_first_chunk::<KEY_BYTES>().ok_or(BadFrame)?;
    let [length, signature @ ..] = body else { return Err(BadFrame) };
    let signature: &[u8; SIGNATURE_BYTES] = signature.try_into().map_err(|_| BadFrame)?;
    if usize::from(*length) != SIGNATURE_BYTES {
        return Err(BadFrame);
    }
    let key = PublicKey(*key);
    let message = blake3::derive_key(CHALLENGE_DOMAIN, challenge);
    if key.verifies(&message, signature) { Ok(key) } else { Err(BadFrame) }
}

/// Lets a client in.
pub(super) fn confirmation() -> Bytes {
    Bytes::from_static(&[SERVER_CONFIRMS])
}

/// Keeps a client out.
pub(super) fn denial(reason: &'static str) -> Bytes {
    let length = u8::try_from(reason.len()).expect("a short reason");
    assert!(length < 128, "its length takes one byte");
    [&[SERVER_DENIES, length][..], reason.as_bytes()].concat().into()
}

/// Asks whether a client lives.
pub(super) fn ping() -> Bytes {
    Bytes::from_static(&[PING, 0, 0, 0, 0, 0, 0, 0, 0])
}

/// Reads a frame of a client whose key is known.
pub(super) fn read(from: &PublicKey, mut frame: BytesMut) -> Result<Said, BadFrame> {
    if frame.len() > FRAME_BYTES_MAX {
        return Err(BadFrame);
    }
    let Some(kind) = frame.first().copied() else { return Err(BadFrame) };
    // After the key: congestion bits, and in a batch the size of its datagrams.
    let (told, rest_min) = match kind {
        TO_RELAY_DATAGRAM => (TO_CLIENT_DATAGRAM, 1),
        TO_RELAY_BATCH => (TO_CLIENT_BATCH, 3),
        PING if frame.len() == 1 + PING_BYTES => {
            frame[0] = PONG;
            return Ok(Said::Ping { pong: frame.freeze() });
        }
        PONG if frame.len() == 1 + PING_BYTES => return Ok(Said::Pong),
        _ => return Err(BadFrame),
    };
    if frame.len() < 1 + KEY_BYTES + rest_min {
        return Err(BadFrame);
    }
    let slot = frame[1..].first_chunk_mut::<KEY_BYTES>().ok_or(BadFrame)?;
    let to = std::mem::replace(slot, from.0);
    frame[0] = told;
    Ok(Said::Packet { to, frame: frame.freeze() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use surety_types::SecretKey;

    use super::*;

    const FROM: PublicKey = PublicKey([7; 32]);

    #[test]
    fn only_the_holder_of_a_key_is_let_in() {
        let key = SecretKey::from_bytes(&[3; 32]);
        let asked: Challenge = [9; 16];
        let signature = key.sign(&blake3::derive_key(CHALLENGE_DOMAIN, &asked));
        let answer = [&[CLIENT_AUTH][..], &key.public().0, &[64], &signature].concat();
        assert_eq!(authenticated(&asked, &answer), Ok(key.public()));
        assert_eq!(authenticated(&[8; 16], &answer), Err(BadFrame), "another challenge");
        let other = SecretKey::from_bytes(&[4; 32]).public();
        let stolen = [&[CLIENT_AUTH][..], &other.0, &[64], &signature].concat();
        assert_eq!(authenticated(&asked, &stolen), Err(BadFrame), "another's signature");
        assert_eq!(authenticated(&asked, &answer[..answer.len() - 1]), Err(BadFrame));
        assert_eq!(authenticated(&asked, &[&answer[..], &[0]].concat()), Err(BadFrame));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80), kind in 0u8..16) {
            let _ = authenticated(&[0; 16], &bytes);
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            match read(&FROM, BytesMut::from(&bytes[..])) {
                Ok(Said::Packet { to, frame }) => {
                    prop_assert_eq!(&to[..], &bytes[1..33]);
                    prop_assert_eq!(frame[0], kind + 2);
                    prop_assert_eq!(&frame[1..33], &FROM.0[..]);
                    prop_assert_eq!(&frame[33..], &bytes[33..], "the rest is as it was sent");
                }
                Ok(Said::Ping { pong }) => prop_assert_eq!(&pong[1..], &bytes[1..]),
                Ok(Said::Pong) => prop_assert_eq!(bytes.len(), 9),
                Err(BadFrame) => {}
            }
        }
    }

    #[test]
    fn a_frame_over_the_limit_is_refused() {
        let mut frame = BytesMut::zeroed(FRAME_BYTES_MAX);
        frame[0] = TO_RELAY_DATAGRAM;
        assert!(read(&FROM, frame.clone()).is_ok());
        frame.extend([0]);
        assert_eq!(read(&FROM, frame), Err(BadFrame));
    }
}

//! ed25519 as consensus verifies it.
//!
//! Validators accept each other's votes by the cofactored rule (ZIP 215). Evidence must be judged by the same one: by a
//! stricter one, a liar could sign votes that its peers count and no judge convicts.

use curve25519_dalek::{
    edwards::{CompressedEdwardsY, EdwardsPoint},
    scalar::Scalar,
    traits::IsIdentity as _,
};
use sha2::{Digest as _, Sha512};

/// Whether a signature is a key's by the cofactored rule: 8(R + kA − sB) = 0 with s reduced.
pub(crate) fn verifies_cofactored(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    let (r, s) = signature.split_at(32);
    let (Ok(r), Ok(s)) = (<[u8; 32]>::try_from(r), <[u8; 32]>::try_from(s)) else { return false };
    let Some(s) = Option::<Scalar>::from(Scalar::from_canonical_bytes(s)) else { return false };
    let (Some(a_point), Some(r_point)) =
        (CompressedEdwardsY(*key).decompress(), CompressedEdwardsY(r).decompress())
    else {
        return false;
    };
    let mut hasher = Sha512::new();
    hasher.update(r);
    hasher.update(key);
    hasher.update(message);
    let k = Scalar::from_bytes_mod_order_wide(&hasher.finalize().into());
    let expected = EdwardsPoint::vartime_double_scalar_mul_basepoint(&k, &-a_point, &s);
    (expected - r_point).mul_by_cofactor().is_identity()
}

/// Whether bytes are a key worth registering: a point of the prime-order group other than zero, in its only encoding.
pub(crate) fn is_sound_key(key: &[u8; 32]) -> bool {
    CompressedEdwardsY(*key).decompress().is_some_and(|point| {
        !point.is_identity() && point.is_torsion_free() && point.compress().to_bytes() == *key
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use curve25519_dalek::constants::EIGHT_TORSION;
    use surety_types::SecretKey;

    #[test]
    fn what_is_signed_verifies_and_nothing_else() {
        let secret = SecretKey::from_bytes(&[7; 32]);
        let key = secret.public();
        let signature = secret.sign(b"vote");
        assert!(is_sound_key(&key.0));
        assert!(verifies_cofactored(&key.0, b"vote", &signature));
        assert!(!verifies_cofactored(&key.0, b"another", &signature));
        for bit in [0, 255, 256, 511] {
            let mut changed = signature;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!verifies_cofactored(&key.0, b"vote", &changed), "bit {bit}");
        }
    }

    #[test]
    fn a_vote_that_peers_would_count_is_evidence() {
        // R with a point of small order added: the strict rule refuses it, the cofactored one does not.
        let (scalar, nonce) = (Scalar::from(7u64), Scalar::from(11u64));
        let key = EdwardsPoint::mul_base(&scalar).compress().to_bytes();
        let r = (EdwardsPoint::mul_base(&nonce) + EIGHT_TORSION[1]).compress().to_bytes();
        let mut hasher = Sha512::new();
        hasher.update(r);
        hasher.update(key);
        hasher.update(b"vote");
        let k = Scalar::from_bytes_mod_order_wide(&hasher.finalize().into());
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&r);
        signature[32..].copy_from_slice((nonce + k * scalar).as_bytes());
        assert!(!surety_types::PublicKey(key).verifies(b"vote", &signature));
        assert!(verifies_cofactored(&key, b"vote", &signature));
    }

    #[test]
    fn keys_of_small_or_mixed_order_are_unsound() {
        for torsion in EIGHT_TORSION {
            assert!(!is_sound_key(&torsion.compress().to_bytes()));
            let mixed = EdwardsPoint::mul_base(&Scalar::from(7u64)) + torsion;
            assert_eq!(is_sound_key(&mixed.compress().to_bytes()), torsion.is_identity());
        }
        assert!(!is_sound_key(&[0xff; 32]));
    }
}

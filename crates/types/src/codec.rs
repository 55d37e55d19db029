//! The canonical encoding: deterministic CBOR (RFC 8949 §4.2.1).
//!
//! In:     a value, or bytes from a stranger.
//! Out:    the value's only encoding, or the value those bytes are the only encoding of.
//! Holds:  …: maps with integer keys in increasing order, shortest integers, definite lengths;
//!         decoding re-encodes and compares, so nothing else is ever accepted; lengths are checked before anything
//!         is allocated for them.
//! Absent: signatures (`cose`).

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

/// A value with exactly one encoding.
pub trait Canonical: Sized + Encode<()> + for<'b> Decode<'b, ()> {
    /// What the value is called in errors.
    const NAME: &'static str;
    /// No encoding is longer; longer input is refused unread.
    const MAX_BYTES: usize;

    /// The bounds and relations a value keeps besides its shape.
    fn check(&self) -> Result<(), Invalid>;

    /// The canonical encoding.
    ///
    /// Panics if [`Canonical::check`] fails or the encoding is over [`Canonical::MAX_BYTES`]: a value made from
    /// foreign input is checked by whoever makes it.
    fn to_cbor(&self) -> Vec<u8> {
        match self.try_to_cbor() {
            Ok(bytes) => bytes,
            Err(invalid) => panic!("a {} was not checked before it was encoded: {invalid}", Self::NAME),
        }
    }

    /// The canonical encoding, if the value is within its bounds.
    fn try_to_cbor(&self) -> Result<Vec<u8>, Invalid> {
        self.check()?;
        let bytes = encode_unchecked(self);
        if bytes.len() > Self::MAX_BYTES {
            return Err(Invalid::new(
                Self::NAME,
                format!("takes {} bytes; at most {} are allowed", bytes.len(), Self::MAX_BYTES),
            ));
        }
        Ok(bytes)
    }

    /// Decodes, refusing every encoding but the canonical one.
    fn from_cbor(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > Self::MAX_BYTES {
            return Err(DecodeError::TooLong { name: Self::NAME, bytes: bytes.len(), max: Self::MAX_BYTES });
        }
        let value: Self =
            minicbor::decode(bytes).map_err(|source| DecodeError::Malformed { name: Self::NAME, source })?;
        value.check().map_err(|source| DecodeError::Invalid { name: Self::NAME, source })?;
        if encode_unchecked(&value) != bytes {
            return Err(DecodeError::NotCanonical { name: Self::NAME });
        }
        Ok(value)
    }
}

fn encode_unchecked<T: Encode<()>>(value: &T) -> Vec<u8> {
    match minicbor::to_vec(value) {
        Ok(bytes) => bytes,
        Err(error) => unreachable!("encoding into memory failed: {error}"),
    }
}

/// Why bytes are not a value.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Longer than any encoding of this type.
    #[error("{name} of {bytes} bytes; at most {max} are allowed")]
    TooLong {
        /// The type.
        name: &'static str,
        /// What was offered.
        bytes: usize,
        /// What is allowed.
        max: usize,
    },
    /// Not CBOR of the expected shape.
    #[error("{name} is not well-formed")]
    Malformed {
        /// The type.
        name: &'static str,
        /// Where and why.
        #[source]
        source: decode::Error,
    },
    /// The right value in another encoding: unknown or repeated keys, long integers, trailing bytes.
    #[error("{name} is not in its canonical encoding")]
    NotCanonical {
        /// The type.
        name: &'static str,
    },
    /// Well-formed, but a bound or relation is broken.
    #[error("{name} is invalid")]
    Invalid {
        /// The type.
        name: &'static str,
        /// Which.
        #[source]
        source: Invalid,
    },
}

/// A bound or relation that a value breaks, in words a caller can act on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {problem}")]
pub struct Invalid {
    /// The field.
    pub field: &'static str,
    /// What is wrong with it, continuing the sentence that the field's name begins.
    pub problem: String,
}

impl Invalid {
    /// `field` continues into `problem`: "`stop` holds 17 strings; at most 16 are allowed".
    pub fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Invalid { field, problem: problem.into() }
    }
}

/// Refuses `count` things in `field` over `max`.
pub(crate) fn at_most(field: &'static str, what: &str, count: usize, max: usize) -> Result<(), Invalid> {
    if count <= max {
        Ok(())
    } else {
        Err(Invalid::new(field, format!("holds {count} {what}; at most {max} are allowed")))
    }
}

/// Decodes a definite-length list of at most `MAX` items; the length is checked before anything is kept.
pub(crate) fn list<'b, const MAX: u64, C, T: Decode<'b, C>>(
    d: &mut Decoder<'b>,
    ctx: &mut C,
) -> Result<Vec<T>, decode::Error> {
    let count = list_length(d, MAX)?;
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(d.decode_with(ctx)?);
    }
    Ok(items)
}

fn list_length(d: &mut Decoder<'_>, max: u64) -> Result<u64, decode::Error> {
    let position = d.position();
    let count = d.array()?.ok_or_else(|| decode::Error::message("a list without a length").at(position))?;
    if count > max {
        return Err(decode::Error::message("a list longer than allowed").at(position));
    }
    Ok(count)
}

/// A binary32 as its bit pattern, an unsigned integer: exact, and free of CBOR's choice of float widths.
pub(crate) mod bits {
    use super::*;

    pub(crate) fn encode<C, W: encode::Write>(
        value: &f32,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.u32(value.to_bits())?.ok()
    }

    pub(crate) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<f32, decode::Error> {
        Ok(f32::from_bits(d.u32()?))
    }
}

/// an integer of at most 128 bits: plain while it fits 64, else a bignum without leading zeros (RFC 8949 §3.4.3).
pub(crate) mod integer {
    use minicbor::data::{IanaTag, Tag};

    use super::*;

    pub(crate) fn encode<C, W: encode::Write>(
        value: &u128,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        match u64::try_from(*value) {
            Ok(small) => e.u64(small)?.ok(),
            Err(_) => {
                let bytes = value.to_be_bytes();
                let zeros = value.leading_zeros() as usize / 8;
                e.tag(IanaTag::PosBignum)?.bytes(&bytes[zeros..])?.ok()
            }
        }
    }

    pub(crate) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<u128, decode::Error> {
        let position = d.position();
        if d.datatype()? != minicbor::data::Type::Tag {
            return Ok(d.u64()?.into());
        }
        let wrong = || decode::Error::message("expected an integer of at most 128 bits").at(position);
        if d.tag()? != Tag::from(IanaTag::PosBignum) {
            return Err(wrong());
        }
        let bytes = d.bytes()?;
        if bytes.len() > 16 {
            return Err(wrong());
        }
        Ok(bytes.iter().fold(0, |value, byte| value << 8 | u128::from(*byte)))
    }
}

/// A list of (token id, binary32), each pair an array of the id and the bit pattern.
pub(crate) mod biases {
    use super::*;

    pub(crate) fn encode<C, W: encode::Write>(
        pairs: &Vec<(u32, f32)>,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.array(pairs.len() as u64)?;
        for (token, bias) in pairs {
            e.array(2)?.u32(*token)?.u32(bias.to_bits())?;
        }
        Ok(())
    }

    pub(crate) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Vec<(u32, f32)>, decode::Error> {
        let count = list_length(d, crate::sampling::MAX_LOGIT_BIASES as u64)?;
        let mut pairs = Vec::new();
        for _ in 0..count {
            if d.array()? != Some(2) {
                return Err(decode::Error::message("a bias is a pair"));
            }
            pairs.push((d.u32()?, f32::from_bits(d.u32()?)));
        }
        Ok(pairs)
    }
}

//! Proofs of what the state holds under a key, or that it holds nothing.
//!
//! In:     a database at a known root (validators); proof bytes nobody vouches for (clients).
//! Out:    a value or its absence, shown against a header's `state_root`.
//! Touches: nothing.
//! Holds:  bytes are bounded before they are believed; a proof that verifies shows the one value the state holds there.
//! Absent: that the root is final: that is a certificate's business.

use crate::{
    Digest,
    cell::{Cell, Head, VALUE_BYTES_MAX},
    law::{ReadCache, StateKey, StateValue},
    state::{self, CHUNK_BYTES, Encoding, Family, StateDb, StateError},
};
use bytes::{BufMut, Bytes};
use commonware_codec::{
    Buf, Decode as _, Encode as _, EncodeSize, Error as CodecError, RangeCfg, Read, ReadExt as _, Write,
};
use commonware_cryptography::Sha256;
use commonware_runtime::Spawner;
use commonware_storage::{Context as StorageContext, qmdb::current::ordered::proof::constant};

/// The most digests a proof may carry; paths grow with the logarithm of all operations ever made.
const DIGESTS_MAX: usize = 256;

type Inclusion = constant::KeyValueProof<Family, Digest, Digest, CHUNK_BYTES>;
type Exclusion = constant::ExclusionProof<Family, Digest, Encoding, Digest, CHUNK_BYTES>;

/// A proof about one key.
#[derive(Clone, Debug, PartialEq)]
pub struct StateProof(Kind);

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    /// The key holds this value.
    Present { value: StateValue, path: Inclusion },
    /// The key holds nothing: its neighbours are neighbours of each other.
    Absent { path: Exclusion },
}

/// Why a proof shows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateProofError {
    /// The path leads to another root.
    #[error("the proof does not lead to this state root")]
    Path,
}

impl StateProof {
    /// The value under `key` in the state with root `state_root`; `None` is proven absence.
    pub fn verify(&self, state_root: &Digest, key: &StateKey) -> Result<Option<&[u8]>, StateProofError> {
        let key = Digest::from(key.0);
        match &self.0 {
            // The head commits to a long value by its hash, so its path proves the whole value.
            Kind::Present { value, path } => path
                .verify::<Sha256, Encoding>(key, Cell::head(value), state_root)
                .then_some(Some(value.as_slice()))
                .ok_or(StateProofError::Path),
            Kind::Absent { path } => {
                path.verify::<Sha256>(&key, state_root).then_some(None).ok_or(StateProofError::Path)
            }
        }
    }

    /// Its one encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode().to_vec()
    }

    /// Reads a proof that fills `bytes`.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Result<Self, CodecError> {
        Self::decode_cfg(bytes.into(), &())
    }

    /// Proves each of `keys` in the applied database.
    pub(crate) async fn of<E: StorageContext + Spawner>(
        db: &StateDb<E>,
        keys: &[StateKey],
    ) -> Result<Vec<Self>, StateError> {
        let mut loaded = ReadCache::default();
        state::load(db, keys, &mut loaded).await?;
        let mut proofs = Vec::with_capacity(keys.len());
        for key in keys {
            let digest = Digest::from(key.0);
            proofs.push(Self(match loaded.0.get(key).and_then(Option::as_ref) {
                Some(value) => {
                    Kind::Present { value: value.clone(), path: db.key_value_proof(digest).await? }
                }
                None => Kind::Absent { path: db.exclusion_proof(&digest).await? },
            }));
        }
        Ok(proofs)
    }
}

impl Write for StateProof {
    fn write(&self, buf: &mut impl BufMut) {
        match &self.0 {
            Kind::Present { value, path } => {
                buf.put_u8(1);
                value.write(buf);
                path.write(buf);
            }
            Kind::Absent { path } => {
                buf.put_u8(0);
                path.write(buf);
            }
        }
    }
}

impl EncodeSize for StateProof {
    fn encode_size(&self) -> usize {
        1 + match &self.0 {
            Kind::Present { value, path } => value.encode_size() + path.encode_size(),
            Kind::Absent { path } => path.encode_size(),
        }
    }
}

impl Read for StateProof {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, CodecError> {
        match u8::read(buf)? {
            1 => Ok(Self(Kind::Present {
                value: Vec::read_cfg(buf, &(RangeCfg::from(0..=VALUE_BYTES_MAX), ()))?,
                path: Inclusion::read_cfg(buf, &(DIGESTS_MAX, ()))?,
            })),
            0 => {
                let path = Exclusion::read_cfg(buf, &(DIGESTS_MAX, (), ()))?;
                // A neighbour that is not a cell was never written by us.
                if let Exclusion::KeyValue(_, update) = &path
                    && !matches!(update.value.as_head(), Some(Head::Short(_) | Head::Long { .. }))
                {
                    return Err(CodecError::Invalid("StateProof", "malformed neighbour"));
                }
                Ok(Self(Kind::Absent { path }))
            }
            tag => Err(CodecError::InvalidEnum(tag)),
        }
    }
}

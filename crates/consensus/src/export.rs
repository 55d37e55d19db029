//! The state as a file, and as the beginning of another chain.
//!
//! In:     a running engine; a file nobody vouches for.
//! Out:    a file of every key and value at one finalised block; the state a re-genesis goes on from.
//! Touches: the file it is given.
//! Holds:  an export is of one block, or fails; two nodes with the same state write the same bytes; an import is whole or
//!         refused; bytes are bounded before they are believed.
//! Absent: what the values mean and the genesis that goes on from them (`surety_chain::regenesis`); whom to believe:
//!         people compare the digests they were printed.
//!
//! Layout: `surety state v2\n` ‖ chain id: u64 ‖ blocks of an epoch: u64 ‖ the genesis' digest\[32\] ‖ supply\[32\] ‖ header
//! length: u32 ‖ header ‖ (key\[32\] ‖ value length: u32 ‖ value)… in key order ‖ `0xFF`×32 ‖ SHA-256 of everything before.
//! Integers are big-endian.

use crate::{
    Digest, Handle, Header, StateKey, StateValue, Unavailable,
    cell::{self, Cell, Head, VALUE_BYTES_MAX},
};
use alloy_primitives::{B256, U256};
use commonware_codec::Encode as _;
use commonware_cryptography::{Hasher as _, Sha256};
use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    sync::Arc,
};
use surety_chain::{Exported, Genesis, Origin};

const MAGIC: &[u8] = b"surety state v2\n";
/// After the last key; no key hashes to it.
const END: [u8; 32] = [0xFF; 32];
/// Cells fetched at once.
const PAGE: usize = 4_096;
/// How often an export begins again because a block came in between.
const ATTEMPTS: usize = 8;

/// Why a state was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The engine does not answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// Blocks came faster than the state could be read: stop the chain's progress, or use a follower that is stopped.
    #[error(
        "the state changed while it was read, {ATTEMPTS} times in a row; export from a node that stands still"
    )]
    Moving,
    /// The file.
    #[error("the file failed")]
    File(#[from] io::Error),
    /// The state's cells do not form values.
    #[error("the state holds damaged cells")]
    Damaged,
    /// Not an export, or a damaged one.
    #[error("this is not a whole export: {0}")]
    Malformed(&'static str),
    /// Something was changed or lost on the way.
    #[error("the export is damaged: it ends with the digest {expected}, its bytes have {found}")]
    Digest {
        /// What it ends with.
        expected: Digest,
        /// What it should end with.
        found: Digest,
    },
}

impl ExportError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Malformed(_) | Self::Digest { .. } => {
                "copy the file again, and compare its digest with what `surety validator export` printed"
            }
            Self::Moving => "stop the validator and export from its data directory",
            Self::Damaged => "export from another validator: this one's state is damaged",
            Self::Unavailable(_) | Self::File(_) => return None,
        })
    }
}

/// Of which chain a state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// EIP-155.
    pub chain_id: u64,
    /// Blocks of an epoch.
    pub epoch_blocks: u64,
    /// The digest of its genesis.
    pub genesis: B256,
    /// All there is, in wei.
    pub supply: U256,
}

impl Provenance {
    /// That of a chain whose genesis has this digest.
    pub fn of_genesis(genesis: &Genesis, digest: B256) -> Self {
        Self {
            chain_id: genesis.chain_id,
            epoch_blocks: genesis.epoch_blocks,
            genesis: digest,
            supply: genesis.supply().unwrap_or(U256::MAX),
        }
    }
}

impl Handle {
    /// Writes the state at the finalised tip; returns the file's digest and the block. `progress` hears how many cells
    /// have been read; a value is one cell, contract code several.
    pub async fn export(
        &self,
        file: &mut (impl Write + Send),
        provenance: &Provenance,
        mut progress: impl FnMut(usize) + Send,
    ) -> Result<(Digest, Arc<Header>), ExportError> {
        for _ in 0..ATTEMPTS {
            if let Some((header, cells)) = self.all_cells(&mut progress).await? {
                let values = values(&cells)?;
                return Ok((write(file, provenance, &header, &values)?, header));
            }
        }
        Err(ExportError::Moving)
    }

    /// Every cell at one block; none if the tip moved while they were read.
    async fn all_cells(
        &self,
        progress: &mut (impl FnMut(usize) + Send),
    ) -> Result<Option<(Arc<Header>, BTreeMap<StateKey, Cell>)>, Unavailable> {
        let (header, mut page) = self.cells(StateKey([0; 32]), PAGE).await?;
        let mut cells = BTreeMap::new();
        loop {
            let more = page.len() == PAGE;
            let next = page.last().map(|(key, _)| *key);
            cells.extend(page);
            progress(cells.len());
            let Some(next) = next.filter(|_| more).and_then(successor) else {
                return Ok(Some((header, cells)));
            };
            let (same, following) = self.cells(next, PAGE).await?;
            if same.state_root != header.state_root {
                return Ok(None);
            }
            page = following;
        }
    }
}

/// The key after this one; none after the last.
fn successor(mut key: StateKey) -> Option<StateKey> {
    for byte in key.0.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(key);
        }
    }
    None
}

/// Joins cells into values; chunk cells belong to their heads and are no values themselves.
fn values(cells: &BTreeMap<StateKey, Cell>) -> Result<Vec<(StateKey, StateValue)>, ExportError> {
    let mut chunks = std::collections::BTreeSet::new();
    let mut joined = BTreeMap::new();
    for (key, cell) in cells {
        if let Head::Long { length, digest } = cell.as_head().ok_or(ExportError::Damaged)? {
            let keys = cell::chunk_keys(&Digest::from(key.0), length);
            let parts: Option<Vec<&Cell>> = keys.iter().map(|chunk| cells.get(&StateKey(chunk.0))).collect();
            let value =
                parts.and_then(|parts| cell::join(length, &digest, parts)).ok_or(ExportError::Damaged)?;
            chunks.extend(keys.into_iter().map(|chunk| StateKey(chunk.0)));
            joined.insert(*key, value);
        }
    }
    let whole = cells.iter().filter(|(key, _)| !chunks.contains(key)).map(|(key, cell)| {
        let value = match cell.as_head() {
            Some(Head::Short(value)) => value.to_vec(),
            _ => joined.remove(key).ok_or(ExportError::Damaged)?,
        };
        Ok((*key, value))
    });
    whole.collect()
}

fn write(
    file: &mut impl Write,
    provenance: &Provenance,
    header: &Header,
    values: &[(StateKey, StateValue)],
) -> Result<Digest, ExportError> {
    let mut hasher = Sha256::default();
    let mut put = |bytes: &[u8]| -> io::Result<()> {
        hasher.update(bytes);
        file.write_all(bytes)
    };
    let header = header.encode();
    put(MAGIC)?;
    put(&provenance.chain_id.to_be_bytes())?;
    put(&provenance.epoch_blocks.to_be_bytes())?;
    put(provenance.genesis.as_slice())?;
    put(&provenance.supply.to_be_bytes::<32>())?;
    put(&(header.len() as u32).to_be_bytes())?;
    put(&header)?;
    for (key, value) in values {
        put(&key.0)?;
        put(&(value.len() as u32).to_be_bytes())?;
        put(value)?;
    }
    put(&END)?;
    let (_, digest) = hasher.finalize();
    file.write_all(digest.as_ref())?;
    file.flush()?;
    Ok(digest)
}

/// Reads an export: its memory is that of the file. The caller compares the digest, `origin.export`, with one it trusts.
pub fn import(file: &mut impl Read) -> Result<Exported, ExportError> {
    let mut reader = Hashing { file, hasher: Sha256::default() };
    let mut magic = [0; MAGIC.len()];
    reader.fill(&mut magic)?;
    if magic != MAGIC {
        return Err(ExportError::Malformed("it begins otherwise"));
    }
    let (chain_id, epoch_blocks) = (reader.number()?, reader.number()?);
    let (mut genesis, mut supply) = ([0; 32], [0; 32]);
    reader.fill(&mut genesis)?;
    reader.fill(&mut supply)?;
    let header = reader.bytes(crate::block::HEADER_BYTES_MAX)?;
    let header = Header::from_bytes(header).map_err(|_| ExportError::Malformed("its header"))?;
    let mut writes: Vec<(StateKey, StateValue)> = Vec::new();
    loop {
        let mut key = [0; 32];
        reader.fill(&mut key)?;
        if key == END {
            break;
        }
        if writes.last().is_some_and(|(last, _)| last.0 >= key) {
            return Err(ExportError::Malformed("its keys are out of order"));
        }
        let value = reader.bytes(VALUE_BYTES_MAX)?;
        writes.push((StateKey(key), value));
    }
    let (_, digest) = reader.hasher.finalize();
    let mut found = [0; 32];
    read(reader.file, &mut found)?;
    if digest.as_ref() != found {
        return Err(ExportError::Digest { expected: found.into(), found: digest });
    }
    if reader.file.read(&mut [0])? != 0 {
        return Err(ExportError::Malformed("it goes on after its end"));
    }
    let origin = Origin {
        chain_id,
        genesis: B256::from(genesis),
        number: header.number,
        epoch: header.epoch(),
        block_hash: B256::from(header.hash().0),
        state_root: B256::from(header.state_root.0),
        export: B256::from(digest.0),
        supply: U256::from_be_bytes(supply),
    };
    Ok(Exported { origin, epoch_blocks, timestamp_ms: header.timestamp_ms, writes })
}

/// Fills `bytes`; the end of the file is a malformed one.
fn read(file: &mut impl Read, bytes: &mut [u8]) -> Result<(), ExportError> {
    file.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => ExportError::Malformed("it ends early"),
        _ => ExportError::File(error),
    })
}

struct Hashing<'a, R> {
    file: &'a mut R,
    hasher: Sha256,
}

impl<R: Read> Hashing<'_, R> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ExportError> {
        read(self.file, bytes)?;
        self.hasher.update(bytes);
        Ok(())
    }

    fn number(&mut self) -> Result<u64, ExportError> {
        let mut number = [0; 8];
        self.fill(&mut number)?;
        Ok(u64::from_be_bytes(number))
    }

    /// A length, bounded, and so many bytes.
    fn bytes(&mut self, max: usize) -> Result<Vec<u8>, ExportError> {
        let mut length = [0; 4];
        self.fill(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > max {
            return Err(ExportError::Malformed("a length above its bound"));
        }
        let mut bytes = vec![0; length];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::tests::block;
    use proptest::prelude::*;

    fn cells_of(values: &[(StateKey, StateValue)]) -> BTreeMap<StateKey, Cell> {
        let mut cells = BTreeMap::new();
        for (key, value) in values {
            let digest = Digest::from(key.0);
            cells.insert(*key, Cell::head(value));
            cells.extend(cell::chunks(&digest, value).into_iter().map(|(key, cell)| (StateKey(key.0), cell)));
        }
        cells
    }

    fn exported(values: &[(StateKey, StateValue)]) -> Vec<u8> {
        let mut file = Vec::new();
        write(&mut file, &PROVENANCE, block(9, vec![], 4).header(), values).unwrap();
        file
    }

    const PROVENANCE: Provenance = Provenance {
        chain_id: 7,
        epoch_blocks: 4,
        genesis: B256::repeat_byte(6),
        supply: U256::from_limbs([5, 0, 0, 0]),
    };

    #[test]
    fn an_export_says_of_which_chain_and_block_it_is() {
        let file = exported(&[(StateKey([1; 32]), vec![1])]);
        let imported = import(&mut file.as_slice()).unwrap();
        let header = block(9, vec![], 4).header().clone();
        let (_, digest) = {
            let mut hasher = Sha256::default();
            hasher.update(&file[..file.len() - 32]);
            hasher.finalize()
        };
        let expected = Origin {
            chain_id: 7,
            genesis: PROVENANCE.genesis,
            number: 9,
            epoch: header.epoch(),
            block_hash: B256::from(header.hash().0),
            state_root: B256::from(header.state_root.0),
            export: B256::from(digest.0),
            supply: PROVENANCE.supply,
        };
        assert_eq!(imported.origin, expected);
        assert_eq!((imported.epoch_blocks, imported.timestamp_ms), (4, header.timestamp_ms));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let file = exported(&[(StateKey([101; 32]), vec![1; 9]), (StateKey([102; 32]), vec![2])]);
        let check = |change: &dyn Fn(&mut Vec<u8>), expected: &str| {
            let mut file = file.clone();
            change(&mut file);
            let error = import(&mut file.as_slice()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(&|file| file[0] ^= 1, "it begins otherwise");
        check(&|file| file.truncate(file.len() - 1), "it ends early");
        check(&|file| file.push(0), "it goes on after its end");
        check(&|file| *file.last_mut().unwrap() ^= 1, "it ends with the digest");
        let first = file.windows(32).position(|window| window == [101; 32]).unwrap();
        check(&|file| file[first + 40] ^= 1, "its bytes have");
        check(&|file| file[first + 32] = 1, "a length above its bound");
        check(&|file| file[first] = 103, "out of order");
        check(&|file| file[16 + 8 + 8 + 32 + 32] = 1, "a length above its bound");
    }

    proptest! {
        #[test]
        fn states_round_trip(
            state in proptest::collection::btree_map(any::<[u8; 32]>(), proptest::collection::vec(any::<u8>(), 0..300), 0..12)
        ) {
            let state: Vec<_> = state.into_iter().map(|(key, value)| (StateKey(key), value)).collect();
            prop_assert_eq!(&values(&cells_of(&state)).unwrap(), &state);
            let imported = import(&mut exported(&state).as_slice()).unwrap();
            prop_assert_eq!(imported.writes, state);
        }

        #[test]
        fn foreign_and_damaged_files_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400), at in any::<prop::sample::Index>()) {
            prop_assert!(import(&mut bytes.as_slice()).is_err());
            let mut file = exported(&[(StateKey([1; 32]), vec![1; 100]), (StateKey([2; 32]), vec![])]);
            let at = at.index(file.len());
            file[at] ^= 1;
            prop_assert!(import(&mut file.as_slice()).is_err());
        }
    }

    #[test]
    fn a_missing_chunk_is_damage() {
        let state = [(StateKey([1; 32]), vec![1; 100])];
        let mut cells = cells_of(&state);
        cells.pop_last();
        assert!(matches!(values(&cells), Err(ExportError::Damaged)));
        assert_eq!(successor(StateKey([0xFF; 32])), None);
    }
}

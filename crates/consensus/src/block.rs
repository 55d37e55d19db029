//! Blocks and their headers.
//!
//! In:     what a proposer chose and what executing it yields; bytes from peers and disk.
//! Out:    one canonical encoding; a header whose hash names the whole block.
//! Touches: nothing.
//! Holds:  the header binds the body (`body_digest`, checked before a block exists), so a hash names one block; every
//!         length is bounded before it is believed; equal blocks have equal bytes.
//! Absent: whether a block is valid (`application`), and what its transactions do (`law`).
//!
//! Layout, integers unsigned LEB128 (`uvarint`) unless a width is given:
//! header = epoch ‖ view ‖ leader\[32\] ‖ parent view ‖ parent\[32\] ‖ number ‖ timestamp_ms:u64 ‖ body_digest\[32\] ‖
//! transactions_root\[32\] ‖ receipts_root\[32\] ‖ gas_used ‖ state_root\[32\] ‖ operations_root\[32\] ‖ operations start ‖
//! operations end ‖ (0 | 1 ‖ validator set); body = count ‖ (length ‖ bytes)…; block = header ‖ body; hash = SHA-256(header).

use crate::{Digest, ValidatorSet};
use bytes::{BufMut, Bytes};
use commonware_codec::{
    Buf, Decode as _, Encode as _, EncodeSize, Error as CodecError, MaxEncodeSize, Read, ReadExt as _, Write,
    varint::UInt,
};
use commonware_consensus::{
    Block as ConsensusBlock, BoundedBlock, CertifiableBlock, Heightable,
    simplex::types::Context,
    types::{Epoch, Height, Round, View},
};
use commonware_cryptography::{Digestible, Hasher as _, Sha256, ed25519::PublicKey};
use commonware_storage::mmr::Location;
use commonware_utils::range::NonEmptyRange;

/// The most bytes a block's transactions may take together.
pub const BODY_BYTES_MAX: usize = 2 << 20;
/// The most bytes one transaction may take.
pub const TRANSACTION_BYTES_MAX: usize = 128 << 10;
/// The most transactions a block may hold.
pub const TRANSACTIONS_MAX: usize = 1 << 15;

/// The most bytes an encoded body may take: the transactions and their length prefixes.
const BODY_ENCODED_MAX: usize = 5 + TRANSACTIONS_MAX * 5 + BODY_BYTES_MAX;

/// What consensus says of a proposal: round, leader, parent.
pub type BlockContext = Context<Digest, PublicKey>;

/// A block without its transactions. Its hash is the block's hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Epoch and view it was proposed in, by whom, and the parent's view and hash.
    pub context: BlockContext,
    /// Counted from genesis at 0; a chain that goes on from another's state counts on.
    pub number: u64,
    /// The proposer's clock, kept after the parent's and near it (`application`).
    pub timestamp_ms: u64,
    /// SHA-256 of the encoded body.
    pub body_digest: Digest,
    /// Ethereum's ordered-trie root of the transactions.
    pub transactions_root: [u8; 32],
    /// Ethereum's ordered-trie root of the receipts.
    pub receipts_root: [u8; 32],
    /// Gas used by all transactions.
    pub gas_used: u64,
    /// Root against which a value, or its absence, is proved.
    pub state_root: Digest,
    /// Root of the log of state operations: what state sync verifies.
    pub operations_root: Digest,
    /// The operations a state sync needs.
    pub operations: NonEmptyRange<Location>,
    /// Who votes next; exactly at an epoch's last block.
    pub next_validators: Option<ValidatorSet>,
}

impl Header {
    /// The block's hash.
    pub fn hash(&self) -> Digest {
        Sha256::hash(&[&self.encode()])
    }

    /// The parent's hash; at genesis, the digest of the genesis document.
    pub fn parent_hash(&self) -> Digest {
        self.context.parent.1
    }

    /// The epoch it was proposed in.
    pub fn epoch(&self) -> u64 {
        self.context.round.epoch().get()
    }

    /// The view it was proposed in.
    pub fn view(&self) -> u64 {
        self.context.round.view().get()
    }

    /// Its one encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode().to_vec()
    }

    /// Reads a header that fills `bytes`.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Result<Self, CodecError> {
        Self::decode_cfg(bytes.into(), &())
    }
}

/// The most bytes a header takes.
pub(crate) const HEADER_BYTES_MAX: usize = BlockContext::MAX_ENCODE_SIZE
    + Height::MAX_ENCODE_SIZE
    + 8
    + 3 * 32
    + 10
    + 2 * 32
    + NonEmptyRange::<Location>::MAX_ENCODE_SIZE
    + 1
    + ValidatorSet::BYTES_MAX;

impl Write for Header {
    fn write(&self, buf: &mut impl BufMut) {
        self.context.write(buf);
        UInt(self.number).write(buf);
        self.timestamp_ms.write(buf);
        self.body_digest.write(buf);
        buf.put_slice(&self.transactions_root);
        buf.put_slice(&self.receipts_root);
        UInt(self.gas_used).write(buf);
        self.state_root.write(buf);
        self.operations_root.write(buf);
        self.operations.write(buf);
        self.next_validators.write(buf);
    }
}

impl EncodeSize for Header {
    fn encode_size(&self) -> usize {
        self.context.encode_size()
            + UInt(self.number).encode_size()
            + 8
            + 3 * 32
            + UInt(self.gas_used).encode_size()
            + 2 * 32
            + self.operations.encode_size()
            + self.next_validators.encode_size()
    }
}

impl Read for Header {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, CodecError> {
        Ok(Self {
            context: BlockContext::read(buf)?,
            number: UInt::read(buf)?.into(),
            timestamp_ms: u64::read(buf)?,
            body_digest: Digest::read(buf)?,
            transactions_root: <[u8; 32]>::read(buf)?,
            receipts_root: <[u8; 32]>::read(buf)?,
            gas_used: UInt::read(buf)?.into(),
            state_root: Digest::read(buf)?,
            operations_root: Digest::read(buf)?,
            operations: NonEmptyRange::read(buf)?,
            next_validators: Option::read(buf)?,
        })
    }
}

/// A block: header and transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The number of its chain's genesis block: its height is counted from there. Known to whoever knows the chain; not
    /// encoded.
    first: u64,
    header: Header,
    transactions: Vec<Bytes>,
}

impl Block {
    /// Joins a header to the body it names.
    ///
    /// Panics if the header names another body: only a proposer calls this, with a digest from [`body_digest`].
    ///
    /// `first` is the number of the chain's genesis block, and no more than the header's.
    pub fn new(first: u64, header: Header, transactions: Vec<Bytes>) -> Self {
        assert_eq!(header.body_digest, body_digest(&transactions), "a header names its body");
        assert!(first <= header.number, "no block comes before the genesis");
        Self { first, header, transactions }
    }

    /// The first block: no transactions, an empty state; its parent is the digest of the genesis document.
    ///
    /// `first` is its number, in epoch `epoch`: zero, unless the chain goes on from another's state.
    pub fn genesis(
        (first, epoch): (u64, u64),
        document: Digest,
        timestamp_ms: u64,
        leader: PublicKey,
        operations_root: Digest,
        operations: NonEmptyRange<Location>,
    ) -> Self {
        let header = Header {
            context: Context {
                round: Round::new(Epoch::new(epoch), View::zero()),
                leader,
                parent: (View::zero(), document),
            },
            number: first,
            timestamp_ms,
            body_digest: body_digest(&[]),
            transactions_root: [0; 32],
            receipts_root: [0; 32],
            gas_used: 0,
            state_root: operations_root,
            operations_root,
            operations,
            next_validators: None,
        };
        Self { first, header, transactions: Vec::new() }
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The transactions, encoded as their signers encoded them.
    pub fn transactions(&self) -> &[Bytes] {
        &self.transactions
    }

    /// Reads a block that fills `bytes`, of a chain whose genesis block has the number `first`.
    pub fn from_bytes(first: u64, bytes: impl Into<Bytes>) -> Result<Self, CodecError> {
        Self::decode_cfg(bytes.into(), &first)
    }
}

/// The digest by which a header names its transactions.
pub fn body_digest(transactions: &[Bytes]) -> Digest {
    let mut body = Vec::with_capacity(body_size(transactions));
    write_body(transactions, &mut body);
    Sha256::hash(&[&body])
}

fn body_size(transactions: &[Bytes]) -> usize {
    UInt(transactions.len() as u64).encode_size()
        + transactions.iter().map(|bytes| UInt(bytes.len() as u64).encode_size() + bytes.len()).sum::<usize>()
}

fn write_body(transactions: &[Bytes], buf: &mut impl BufMut) {
    UInt(transactions.len() as u64).write(buf);
    for bytes in transactions {
        UInt(bytes.len() as u64).write(buf);
        buf.put_slice(bytes);
    }
}

/// Reads a body, believing no length before it is bounded.
fn read_body(buf: &mut impl Buf) -> Result<Vec<Bytes>, CodecError> {
    let count: u64 = UInt::read(buf)?.into();
    if count > TRANSACTIONS_MAX as u64 {
        return Err(CodecError::Invalid("Block", "too many transactions"));
    }
    let mut transactions = Vec::new();
    let mut total = 0usize;
    for _ in 0..count {
        let length: u64 = UInt::read(buf)?.into();
        if length > TRANSACTION_BYTES_MAX as u64 {
            return Err(CodecError::Invalid("Block", "transaction too long"));
        }
        let length = length as usize;
        total += length;
        if total > BODY_BYTES_MAX {
            return Err(CodecError::Invalid("Block", "body too long"));
        }
        if buf.remaining() < length {
            return Err(CodecError::EndOfBuffer);
        }
        transactions.push(buf.copy_to_bytes(length));
    }
    Ok(transactions)
}

impl Write for Block {
    fn write(&self, buf: &mut impl BufMut) {
        self.header.write(buf);
        write_body(&self.transactions, buf);
    }
}

impl EncodeSize for Block {
    fn encode_size(&self) -> usize {
        self.header.encode_size() + body_size(&self.transactions)
    }
}

impl Read for Block {
    /// The number of the chain's genesis block.
    type Cfg = u64;

    fn read_cfg(buf: &mut impl Buf, first: &u64) -> Result<Self, CodecError> {
        let header = Header::read(buf)?;
        if header.number < *first {
            return Err(CodecError::Invalid("Block", "before the chain's genesis"));
        }
        let transactions = read_body(buf)?;
        if body_digest(&transactions) != header.body_digest {
            return Err(CodecError::Invalid("Block", "the header names another body"));
        }
        Ok(Self { first: *first, header, transactions })
    }
}

impl Digestible for Block {
    type Digest = Digest;

    fn digest(&self) -> Digest {
        self.header.hash()
    }
}

impl Heightable for Block {
    fn height(&self) -> Height {
        Height::new(self.header.number - self.first)
    }
}

impl ConsensusBlock for Block {
    fn parent(&self) -> Digest {
        self.header.parent_hash()
    }
}

impl CertifiableBlock for Block {
    type Context = BlockContext;

    fn context(&self) -> BlockContext {
        self.header.context.clone()
    }
}

impl BoundedBlock for Block {
    fn max_encode_size(_: &u64) -> usize {
        HEADER_BYTES_MAX + BODY_ENCODED_MAX
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::validators::tests::set;
    use commonware_cryptography::{Signer as _, ed25519};
    use commonware_utils::non_empty_range;
    use proptest::prelude::*;

    /// A header over `transactions`, with every other field from `seed`.
    pub(crate) fn block(seed: u64, transactions: Vec<Bytes>, members: usize) -> Block {
        let header = Header {
            context: Context {
                round: Round::new(Epoch::new(seed % 7), View::new(seed)),
                leader: ed25519::PrivateKey::from_seed(seed).public_key(),
                parent: (View::new(seed / 2), Sha256::fill(seed as u8)),
            },
            number: seed,
            timestamp_ms: seed.wrapping_mul(977),
            body_digest: body_digest(&transactions),
            transactions_root: [seed as u8; 32],
            receipts_root: [!(seed as u8); 32],
            gas_used: seed.wrapping_mul(21_000),
            state_root: Sha256::fill(1),
            operations_root: Sha256::fill(2),
            operations: non_empty_range!(Location::new(seed), Location::new(seed + 9)),
            next_validators: (members > 0).then(|| set(seed % 7 + 1, members)),
        };
        Block::new(0, header, transactions)
    }

    #[test]
    fn heights_are_counted_from_the_genesis_of_the_chain() {
        let ours = block(300, vec![], 0);
        assert_eq!(ours.height().get(), 300);
        let bytes = ours.encode();
        assert_eq!(Block::from_bytes(280, bytes.clone()).unwrap().height().get(), 20);
        assert!(Block::from_bytes(301, bytes).is_err(), "before the genesis");
    }

    #[test]
    fn the_encoding_is_pinned() {
        let block = block(300, vec![Bytes::from_static(b"one"), Bytes::new()], 1);
        assert_eq!(block.digest().to_string(), Sha256::hash(&[&block.header().encode()]).to_string());
        assert_eq!(
            block.digest().to_string(),
            "ef1a27f65b2e683ebb1cabd221ab2c4d6e61b1b6811f8c7f162859f180b13805",
            "the header's bytes changed: that is a new chain, and a commit of its own"
        );
    }

    #[test]
    fn another_body_under_the_same_header_is_refused() {
        let block = block(5, vec![Bytes::from_static(b"pay alice")], 0);
        let mut bytes = block.encode().to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let error = Block::from_bytes(0, bytes).unwrap_err();
        assert!(error.to_string().contains("another body"), "{error}");
    }

    #[test]
    fn lengths_are_bounded_before_they_are_believed() {
        let header = block(5, vec![], 0).header().clone();
        let check = |body: Vec<u8>, expected: &str| {
            let mut bytes = header.encode().to_vec();
            bytes.extend(body);
            let error = Block::from_bytes(0, bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(UInt(u64::MAX).encode().to_vec(), "too many transactions");
        let mut long = UInt(1u64).encode().to_vec();
        long.extend(UInt(u64::MAX).encode());
        check(long, "transaction too long");
        let mut many = UInt(TRANSACTIONS_MAX as u64).encode().to_vec();
        for _ in 0..=BODY_BYTES_MAX / TRANSACTION_BYTES_MAX {
            many.extend(UInt(TRANSACTION_BYTES_MAX as u64).encode());
            many.extend(vec![0; TRANSACTION_BYTES_MAX]);
        }
        check(many, "body too long");
    }

    proptest! {
        #[test]
        fn blocks_round_trip(
            seed in any::<u32>(),
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20),
            members in 0usize..6,
        ) {
            let block = block(seed.into(), bodies.into_iter().map(Bytes::from).collect(), members);
            let bytes = block.encode();
            prop_assert!(bytes.len() <= Block::max_encode_size(&0));
            let again = Block::from_bytes(0, bytes).unwrap();
            prop_assert_eq!(again.digest(), block.digest());
            prop_assert_eq!(again, block);
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Block::from_bytes(0, bytes.clone());
            let _ = Header::from_bytes(bytes);
        }

        #[test]
        fn a_flipped_bit_is_another_block_or_none(seed in any::<u16>(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let block = block(seed.into(), vec![Bytes::from_static(b"pay"), Bytes::from_static(b"bob")], 2);
            let mut bytes = block.encode().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(other) = Block::from_bytes(0, bytes) {
                prop_assert_ne!(other.digest(), block.digest());
            }
        }
    }
}

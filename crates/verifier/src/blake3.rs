//! BLAKE3 in as few bytes as it takes: the crate of that name is made for speed, and takes eight times as many.
//!
//! Source: O'Connor, Aumasson, Neves and Wilcox-O'Hearn 2020, "BLAKE3: one function, fast everywhere", sections 2 and 5.1.
//! A test compares it with the crate.

const CHUNK_BYTES: usize = 1024;
const BLOCK_BYTES: usize = 64;

const CHUNK_START: u32 = 1;
const CHUNK_END: u32 = 2;
const PARENT: u32 = 4;
const ROOT: u32 = 8;
const DERIVE_KEY_CONTEXT: u32 = 32;
const DERIVE_KEY_MATERIAL: u32 = 64;

type Words = [u32; 8];

const IV: Words =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
const PERMUTATION: [u8; 16] = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];
/// Which words of the state each mixing takes: columns, then diagonals.
const MIXED: [[u8; 4]; 8] = [
    [0, 4, 8, 12],
    [1, 5, 9, 13],
    [2, 6, 10, 14],
    [3, 7, 11, 15],
    [0, 5, 10, 15],
    [1, 6, 11, 12],
    [2, 7, 8, 13],
    [3, 4, 9, 14],
];

/// The hash of bytes.
pub(crate) fn hash(bytes: &[u8]) -> [u8; 32] {
    to_bytes(&subtree(&IV, bytes, 0, ROOT))
}

/// The hash of bytes under a context.
pub(crate) fn derive_key(context: &str, bytes: &[u8]) -> [u8; 32] {
    let key = subtree(&IV, context.as_bytes(), 0, ROOT | DERIVE_KEY_CONTEXT);
    to_bytes(&subtree(&key, bytes, 0, ROOT | DERIVE_KEY_MATERIAL))
}

fn to_bytes(words: &Words) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// The chaining value of a tree over bytes of which the first chunk has this number.
fn subtree(key: &Words, bytes: &[u8], chunk: u64, flags: u32) -> Words {
    if bytes.len() <= CHUNK_BYTES {
        return leaf(key, bytes, chunk, flags);
    }
    // To the left are as many whole chunks as the greatest power of two that leaves something to the right.
    let chunks = (bytes.len() - 1) / CHUNK_BYTES;
    let left_chunks = 1 << chunks.ilog2();
    let (left, right) = bytes.split_at(left_chunks * CHUNK_BYTES);
    let inner = flags & !ROOT;
    let mut block = [0; 16];
    block[..8].copy_from_slice(&subtree(key, left, chunk, inner));
    block[8..].copy_from_slice(&subtree(key, right, chunk + left_chunks as u64, inner));
    compress(key, block, 0, BLOCK_BYTES as u32, flags | PARENT)
}

fn leaf(key: &Words, bytes: &[u8], chunk: u64, flags: u32) -> Words {
    let (mut value, mut rest, mut start) = (*key, bytes, CHUNK_START);
    loop {
        let (block, after) = rest.split_at(rest.len().min(BLOCK_BYTES));
        let mut words = [0; 16];
        for (at, byte) in block.iter().enumerate() {
            words[at / 4] |= u32::from(*byte) << (at % 4 * 8);
        }
        let is_last = after.is_empty();
        let own = flags & !ROOT | start | if is_last { CHUNK_END | flags & ROOT } else { 0 };
        value = compress(&value, words, chunk, block.len() as u32, own);
        if is_last {
            return value;
        }
        (rest, start) = (after, 0);
    }
}

fn compress(value: &Words, mut block: [u32; 16], counter: u64, length: u32, flags: u32) -> Words {
    let mut state = [0; 16];
    state[..8].copy_from_slice(value);
    state[8..12].copy_from_slice(&IV[..4]);
    state[12..].copy_from_slice(&[counter as u32, (counter >> 32) as u32, length, flags]);
    for _ in 0..7 {
        for (places, pair) in MIXED.iter().zip(block.chunks_exact(2)) {
            mix(&mut state, places.map(usize::from), pair);
        }
        block = PERMUTATION.map(|at| block[usize::from(at)]);
    }
    let mut mixed = [0; 8];
    for (at, word) in mixed.iter_mut().enumerate() {
        *word = state[at] ^ state[at + 8];
    }
    mixed
}

fn mix(state: &mut [u32; 16], [a, b, c, d]: [usize; 4], pair: &[u32]) {
    for (word, [first, second]) in pair.iter().zip([[16, 12], [8, 7]]) {
        state[a] = state[a].wrapping_add(state[b]).wrapping_add(*word);
        state[d] = (state[d] ^ state[a]).rotate_right(first);
        state[c] = state[c].wrapping_add(state[d]);
        state[b] = (state[b] ^ state[c]).rotate_right(second);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn hashes_are_those_of_the_crate() {
        let bytes: Vec<u8> = (0..40_000).map(|n: u32| (n * 7 + n / 251) as u8).collect();
        let edges = [
            0, 1, 63, 64, 65, 1023, 1024, 1025, 2047, 2048, 2049, 3072, 3073, 4096, 8191, 9000, 31_744,
            40_000,
        ];
        for length in edges {
            let bytes = &bytes[..length];
            assert_eq!(super::hash(bytes), *blake3::hash(bytes).as_bytes(), "{length}");
            for context in [
                "",
                "surety 2026 order",
                "a context of more bytes than one block of the function that hashes it takes",
            ] {
                assert_eq!(super::derive_key(context, bytes), blake3::derive_key(context, bytes), "{length}");
            }
        }
    }
}

//! Openings against whole files: every chunk opens, whatever its place; nothing else does.

use blake3::hazmat::{HasherExt as _, Mode, left_subtree_len, merge_subtrees_non_root};
use proptest::prelude::*;
use surety_blobs::tree::{PIECE_BYTES, Shape, Slice, Tree};
use surety_proof::opening::{
    CHUNK_BYTES, DEPTH_MAX, FILE_BYTES_MAX, OpeningError, check_opening, chunk_count,
};
use surety_types::Digest;

/// Bytes without repetition, from a seed.
fn data(bytes: usize, seed: u64) -> Vec<u8> {
    let mut data = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut data);
    data
}

fn digest(data: &[u8]) -> Digest {
    Digest(*blake3::hash(data).as_bytes())
}

/// The value of part of a file, by recursion over the definition.
fn value(offset: u64, data: &[u8]) -> [u8; 32] {
    if data.len() as u64 <= CHUNK_BYTES {
        return blake3::Hasher::new().set_input_offset(offset).update(data).finalize_non_root();
    }
    let (left, right) = data.split_at(left_subtree_len(data.len() as u64) as usize);
    merge_subtrees_non_root(&value(offset, left), &value(offset + left.len() as u64, right), Mode::Hash)
}

/// A chunk and the values beside its path, from the root down.
fn open(data: &[u8], index: u64) -> (&[u8], Vec<[u8; 32]>) {
    let (mut offset, mut rest, mut siblings) = (0, data, Vec::new());
    while rest.len() as u64 > CHUNK_BYTES {
        let (left, right) = rest.split_at(left_subtree_len(rest.len() as u64) as usize);
        let middle = offset + left.len() as u64;
        if index * CHUNK_BYTES < middle {
            siblings.push(value(middle, right));
            rest = left;
        } else {
            siblings.push(value(offset, left));
            (offset, rest) = (middle, right);
        }
    }
    (rest, siblings)
}

/// Either side of every boundary, and trees that are full and that are not.
const SIZES: &[usize] =
    &[0, 1, 1_023, 1_024, 1_025, 2_047, 2_048, 2_049, 3_072, 4_096, 5_000, 7 * 1_024 + 1, 65_536, 100_001];

#[test]
fn every_chunk_of_every_size_opens_and_nothing_else_does() {
    for &bytes in SIZES {
        let (file, size) = (data(bytes, 1), bytes as u64);
        let root = digest(&file);
        for index in 0..chunk_count(size) {
            let (chunk, path) = open(&file, index);
            assert_eq!(
                check_opening(&root, size, index, chunk, &path),
                Ok(()),
                "{bytes} bytes, chunk {index}"
            );
            assert!(path.len() <= DEPTH_MAX);
            let from = (index * CHUNK_BYTES) as usize;
            assert_eq!(chunk, &file[from..file.len().min(from + 1_024)]);

            let mut wrong = chunk.to_vec();
            if let Some(byte) = wrong.last_mut() {
                *byte ^= 1;
                assert_eq!(check_opening(&root, size, index, &wrong, &path), Err(OpeningError::Digest));
                let shorter = check_opening(&root, size, index, &chunk[1..], &path);
                assert!(matches!(shorter, Err(OpeningError::Length { .. })));
            }
            wrong.push(0);
            assert!(matches!(
                check_opening(&root, size, index, &wrong, &path),
                Err(OpeningError::Length { .. })
            ));
            for other in (0..chunk_count(size)).filter(|other| *other != index).take(40) {
                assert!(
                    check_opening(&root, size, other, chunk, &path).is_err(),
                    "{index} as {other} of {bytes}"
                );
            }
            for at in 0..path.len() {
                let mut wrong = path.clone();
                wrong[at][31] ^= 128;
                assert_eq!(check_opening(&root, size, index, chunk, &wrong), Err(OpeningError::Digest));
                wrong.remove(at);
                assert!(matches!(
                    check_opening(&root, size, index, chunk, &wrong),
                    Err(OpeningError::Path { .. })
                ));
            }
            let longer = [path.clone(), vec![[0; 32]]].concat();
            assert!(matches!(
                check_opening(&root, size, index, chunk, &longer),
                Err(OpeningError::Path { .. })
            ));
        }
        let beyond = check_opening(&root, size, chunk_count(size), &[], &[]);
        assert_eq!(
            beyond,
            Err(OpeningError::NoSuchChunk { index: chunk_count(size), chunks: chunk_count(size) })
        );
    }
}

#[test]
fn a_size_that_is_not_the_files_never_opens_the_last_chunk() {
    let file = data(6 * 1_024 + 100, 2);
    let root = digest(&file);
    for told in [1, 100, 1_024, 6 * 1_024, 6 * 1_024 + 99, 6 * 1_024 + 101, 7 * 1_024, 9 * 1_024, 1 << 30] {
        let last = chunk_count(told) - 1;
        for index in 0..7 {
            let (chunk, path) = open(&file, index);
            assert!(check_opening(&root, told, last, chunk, &path).is_err(), "{index} as the last of {told}");
        }
    }
    // Inner values told as chunks: a file of two chunks whose digest fits, and whose chunks are nobody's.
    let (left, right) = (value(0, &file[..4_096]), value(4_096, &file[4_096..]));
    assert_eq!(
        check_opening(&root, 2_048, 0, &left, &[right]),
        Err(OpeningError::Length { expected: 1_024, found: 32 })
    );
    assert_eq!(
        check_opening(&root, FILE_BYTES_MAX + 1, 0, &[], &[]),
        Err(OpeningError::FileBytes(FILE_BYTES_MAX + 1))
    );
}

#[test]
fn what_holders_serve_is_what_verifies() {
    let piece = PIECE_BYTES as usize;
    for bytes in [1, 1_024, 5_000, piece - 1, piece, piece + 1, 3 * piece + 1_500] {
        let file = data(bytes, 3);
        let shape = Shape::new(bytes as u64).unwrap();
        let pieces: Vec<&[u8]> = file.chunks(piece).collect();
        let values = pieces.iter().enumerate().map(|(index, piece)| shape.piece_value(index as u32, piece));
        let tree = Tree::new(shape, values.collect());
        let chunks = shape.chunks();
        assert_eq!(chunks, chunk_count(bytes as u64));
        for index in (0..chunks).filter(|index| index % 401 == 0 || index + 3 > chunks) {
            let slice = tree.open(index, pieces[(index * CHUNK_BYTES) as usize / piece]);
            let opened = check_opening(&tree.root(), bytes as u64, index, &slice.data, &slice.siblings);
            assert_eq!(opened, Ok(()), "{bytes} bytes, chunk {index}");
            assert_eq!(slice.check(tree.root(), shape), Ok(()));
        }
    }
}

proptest! {
    #[test]
    fn the_verifier_and_the_holders_agree(
        bytes in 1usize..40_000, at in any::<prop::sample::Index>(), bit in any::<prop::sample::Index>(), part in 0usize..4,
    ) {
        let file = data(bytes, 4);
        let (shape, root) = (Shape::new(bytes as u64).unwrap(), digest(&file));
        let index = at.index(shape.chunks() as usize) as u64;
        let (chunk, siblings) = open(&file, index);
        let mut slice = Slice { chunk: index, data: chunk.to_vec(), siblings };
        match part {
            0 => {}
            1 => { let at = bit.index(slice.data.len() * 8); slice.data[at / 8] ^= 1 << (at % 8); }
            2 if !slice.siblings.is_empty() => {
                let at = bit.index(slice.siblings.len() * 256);
                slice.siblings[at / 256][at % 256 / 8] ^= 1 << (at % 8);
            }
            _ => slice.chunk = bit.index(shape.chunks() as usize + 3) as u64,
        }
        let theirs = slice.check(root, shape).is_ok();
        let ours = check_opening(&root, bytes as u64, slice.chunk, &slice.data, &slice.siblings).is_ok();
        prop_assert_eq!(ours, theirs);
        prop_assert_eq!(ours, slice.chunk == index && (part == 0 || part == 3 || (part == 2 && slice.siblings.is_empty())));
    }

    #[test]
    fn foreign_openings_prove_nothing_and_never_panic(
        bytes in prop_oneof![0..FILE_BYTES_MAX, any::<u64>()],
        chunk in prop_oneof![any::<u64>(), 0u64..5_000],
        data in prop::collection::vec(any::<u8>(), 0..1_100),
        siblings in prop::collection::vec(any::<[u8; 32]>(), 0..60),
    ) {
        prop_assert!(check_opening(&Digest([7; 32]), bytes, chunk, &data, &siblings).is_err());
    }
}

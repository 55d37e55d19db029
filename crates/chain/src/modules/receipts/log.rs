//! The Merkle tree of RFC 9162 over SHA-256.

use sha2::{Digest as _, Sha256};

/// The hash of a leaf: SHA-256(0 ‖ entry). RFC 9162 §2.1.1.
pub fn leaf_hash(entry: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update([0]).chain_update(entry).finalize().into()
}

fn node_hash(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The size of the left subtree: the largest power of two below `leaves`.
fn split(leaves: usize) -> usize {
    leaves.next_power_of_two() / 2
}

/// The root of a log, from the hashes of its leaves. RFC 9162 §2.1.1.
pub fn root_of(leaf_hashes: &[[u8; 32]]) -> [u8; 32] {
    match leaf_hashes {
        [] => Sha256::digest([]).into(),
        [leaf] => *leaf,
        leaves => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node_hash(&root_of(left), &root_of(right))
        }
    }
}

/// The path that shows a leaf's inclusion; nothing if there is no such leaf. RFC 9162 §2.1.3.1.
pub fn inclusion_path(leaf_hashes: &[[u8; 32]], index: usize) -> Option<Vec<[u8; 32]>> {
    if index >= leaf_hashes.len() {
        return None;
    }
    let mut path = Vec::new();
    let (mut leaves, mut index) = (leaf_hashes, index);
    while leaves.len() > 1 {
        let (left, right) = leaves.split_at(split(leaves.len()));
        if index < left.len() {
            path.push(root_of(right));
            leaves = left;
        } else {
            path.push(root_of(left));
            index -= left.len();
            leaves = right;
        }
    }
    path.reverse();
    Some(path)
}

/// Whether a path shows that a leaf is in a log. RFC 9162 §2.1.3.2.
pub fn verify_inclusion(root: &[u8; 32], size: u64, index: u64, leaf: &[u8; 32], path: &[[u8; 32]]) -> bool {
    if index >= size {
        return false;
    }
    let (mut position, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if position & 1 == 1 || position == last {
            hash = node_hash(sibling, &hash);
            if position & 1 == 0 {
                while position & 1 == 0 && position != 0 {
                    position >>= 1;
                    last >>= 1;
                }
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        position >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leaves(count: usize) -> Vec<[u8; 32]> {
        (0..count).map(|index| leaf_hash(&(index as u64).to_be_bytes())).collect()
    }

    fn hex(hash: [u8; 32]) -> String {
        alloy_primitives::hex::encode(hash)
    }

    #[test]
    fn roots_are_those_of_certificate_transparency() {
        // The vectors that implementations of RFC 6962 and 9162 share.
        let entries: [&[u8]; 8] = [
            b"",
            &[0x00],
            &[0x10],
            &[0x20, 0x21],
            &[0x30, 0x31],
            &[0x40, 0x41, 0x42, 0x43],
            &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
            &[0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f],
        ];
        let hashes = entries.map(leaf_hash);
        let check = |count: usize, expected: &str| assert_eq!(hex(root_of(&hashes[..count])), expected);
        check(0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        check(1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
        check(2, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125");
        check(3, "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77");
        check(8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328");
    }

    #[test]
    fn every_leaf_of_small_logs_is_included_once() {
        for count in 1..=33 {
            let leaves = leaves(count);
            let root = root_of(&leaves);
            for index in 0..count {
                let path = inclusion_path(&leaves, index).expect("a leaf");
                let verify = |size: usize, index: usize, leaf: &[u8; 32], path: &[[u8; 32]]| {
                    verify_inclusion(&root, size as u64, index as u64, leaf, path)
                };
                assert!(verify(count, index, &leaves[index], &path), "{index} of {count}");
                for other in (0..count).filter(|other| *other != index) {
                    assert!(!verify(count, other, &leaves[index], &path), "{index} as {other} of {count}");
                }
                assert!(!verify(count, index, &[9; 32], &path));
                let mut longer = path.clone();
                longer.push([0; 32]);
                assert!(!verify(count, index, &leaves[index], &longer));
                if let Some((_, shorter)) = path.split_last() {
                    assert!(!verify(count, index, &leaves[index], shorter));
                }
            }
            assert_eq!(inclusion_path(&leaves, count), None);
        }
    }

    /// What other trees confused: an odd leaf counted twice (CVE-2012-2459), an inner node passed off as a leaf, leaves in
    /// another order.
    #[test]
    fn a_root_is_of_one_list_of_entries() {
        for count in 1..=17 {
            let leaves = leaves(count);
            let root = root_of(&leaves);
            let twice = [&leaves[..], &leaves[count - 1..]].concat();
            assert_ne!(root_of(&twice), root, "the last of {count} twice");
            assert_ne!(root_of(&[&leaves[..], &leaves[..]].concat()), root);
            for index in 1..count {
                let mut swapped = leaves.clone();
                swapped.swap(0, index);
                assert_ne!(root_of(&swapped), root, "0 and {index} of {count} swapped");
            }
        }
        // A root does not say how many there are, so it is posted with their number: by another the last of two is a third.
        let (two, path) = (leaves(2), [leaves(2)[0]]);
        assert!(verify_inclusion(&root_of(&two), 2, 1, &two[1], &path));
        assert!(!verify_inclusion(&root_of(&two), 2, 2, &two[1], &path));
        assert!(verify_inclusion(&root_of(&two), 3, 2, &two[1], &path));
        // A log of two whose entries would be the inner nodes of a log of four: no entry hashes to an inner node.
        let leaves = leaves(4);
        let inner = [node_hash(&leaves[0], &leaves[1]), node_hash(&leaves[2], &leaves[3])];
        assert_eq!(root_of(&inner), root_of(&leaves), "by hashes alone they are one");
        let entry = [leaves[0], leaves[1]].concat();
        for forged in [entry.clone(), [&[0], &entry[..]].concat(), [&[1], &entry[..]].concat()] {
            assert_ne!(leaf_hash(&forged), inner[0]);
            assert!(!verify_inclusion(&root_of(&leaves), 2, 0, &leaf_hash(&forged), &inner[1..]));
        }
    }

    proptest! {
        #[test]
        fn foreign_paths_never_panic(root: [u8; 32], size: u64, index: u64, leaf: [u8; 32], path in prop::collection::vec(any::<[u8; 32]>(), 0..70)) {
            verify_inclusion(&root, size, index, &leaf, &path);
        }
    }
}

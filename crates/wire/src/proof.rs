//! The proof that nothing was lost: leaves, folder roots and the mailbox root.
//!
//! A leaf is deterministic CBOR (RFC 8949 §4.2); leaf hash = BLAKE3(0x00 ‖ leaf), node = BLAKE3(0x01 ‖ left ‖ right),
//! and the shape of the tree is that of RFC 9162 §2.1.1. The root of no leaves is the digest of no octets.

use minicbor::Encoder;

use crate::digest::{Digest, Digester};
use crate::flags::Flags;
use crate::uid_set::infallible;

/// One item of a folder, as both sides must know it.
#[derive(Clone, Copy, Debug)]
pub struct Leaf<'a> {
    /// The item's uid at the source.
    pub uid: u32,
    /// Length of the canonical form, in octets.
    pub length: u64,
    /// Digest of the canonical form.
    pub digest: Digest,
    /// The source's flags.
    pub flags: &'a Flags,
    /// Received time, in whole seconds since 1970-01-01 UTC.
    pub received: i64,
}

/// One folder of a mailbox with the root over its leaves.
#[derive(Clone, Copy, Debug)]
pub struct TopLeaf<'a> {
    /// The names of the folder's path at the source, outermost first.
    pub path: &'a [String],
    /// The folder's UIDVALIDITY at the source.
    pub uid_validity: u32,
    /// How many leaves the root is over.
    pub count: u64,
    /// The root over the folder's leaves in ascending order of uid.
    pub root: Digest,
}

/// The octets of a leaf: `[uid, length, digest, [flags lower-cased, sorted by octets], received]`.
pub fn leaf_octets(leaf: &Leaf<'_>) -> Vec<u8> {
    let mut octets = Vec::with_capacity(128);
    write_leaf(leaf, &flag_octets(leaf.flags), &mut octets);
    octets
}

/// The part of a leaf that flags make: most items of a mailbox share a few sets of flags, so it is made once for each.
pub fn flag_octets(flags: &Flags) -> Vec<u8> {
    let names = flags.canonical_names();
    let mut octets = Vec::with_capacity(8 + names.len() * 16);
    let mut encoder = Encoder::new(&mut octets);
    infallible(encoder.array(names.len() as u64));
    for name in &names {
        infallible(encoder.str(name));
    }
    octets
}

/// Appends the octets of a leaf to `out`; `flag_octets` are those of its flags, as [`flag_octets`] makes them.
pub fn write_leaf(leaf: &Leaf<'_>, flag_octets: &[u8], out: &mut Vec<u8>) {
    infallible(
        Encoder::new(&mut *out)
            .array(5)
            .and_then(|encoder| encoder.u32(leaf.uid)?.u64(leaf.length)?.bytes(&leaf.digest.0)),
    );
    out.extend_from_slice(flag_octets);
    infallible(Encoder::new(out).i64(leaf.received));
}

/// The hash of a leaf: what goes into the folder's [`TreeHasher`].
pub fn leaf_hash(leaf: &Leaf<'_>) -> Digest {
    hash_of_leaf_octets(&leaf_octets(leaf))
}

/// The hash of a leaf, or of a top leaf, from its octets.
pub fn hash_of_leaf_octets(octets: &[u8]) -> Digest {
    let mut digester = Digester::new();
    digester.update(&[0]);
    digester.update(octets);
    digester.finish()
}

/// The octets of a top leaf: `[[names of the path], UIDVALIDITY, leaf count, folder root]`.
pub fn top_leaf_octets(leaf: &TopLeaf<'_>) -> Vec<u8> {
    let mut octets = Vec::with_capacity(64 + leaf.path.iter().map(|name| name.len() + 4).sum::<usize>());
    let mut encoder = Encoder::new(&mut octets);
    infallible(
        encoder
            .array(4)
            .and_then(|encoder| encoder.array(leaf.path.len() as u64)),
    );
    for name in leaf.path {
        infallible(encoder.str(name));
    }
    infallible(
        encoder
            .u32(leaf.uid_validity)
            .and_then(|encoder| encoder.u64(leaf.count)?.bytes(&leaf.root.0)),
    );
    octets
}

/// The root over a mailbox's top leaves, given as octets in any order: they are sorted by their octets first.
pub fn mailbox_root(mut top_leaves: Vec<Vec<u8>>) -> Digest {
    top_leaves.sort_unstable();
    let mut tree = TreeHasher::new();
    for octets in &top_leaves {
        tree.push(hash_of_leaf_octets(octets));
    }
    tree.root()
}

/// Makes the root over leaf hashes that arrive in order, holding one hash per level of the tree.
#[derive(Clone, Debug, Default)]
pub struct TreeHasher {
    /// Roots of perfect subtrees, largest first; their sizes are the powers of two in `count`.
    subtrees: Vec<Digest>,
    count: u64,
}

impl TreeHasher {
    /// A tree without leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next leaf hash.
    pub fn push(&mut self, hash: Digest) {
        let mut hash = hash;
        // As in counting: every trailing one of the count is a subtree as large as the one just completed.
        for _ in 0..self.count.trailing_ones() {
            let left = self
                .subtrees
                .pop()
                .expect("there is one subtree for each one-bit of the count");
            hash = node_hash(left, hash);
        }
        self.subtrees.push(hash);
        self.count += 1;
    }

    /// How many leaves were pushed.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The root over all leaves pushed so far.
    pub fn root(&self) -> Digest {
        self.subtrees
            .iter()
            .rev()
            .copied()
            .reduce(|right, left| node_hash(left, right))
            .unwrap_or_else(|| Digest::of(b""))
    }
}

/// The hash of an inner node.
pub(crate) fn node_hash(left: Digest, right: Digest) -> Digest {
    let mut digester = Digester::new();
    digester.update(&[1]);
    digester.update(&left.0);
    digester.update(&right.0);
    digester.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 9162 §2.1.1, word for word: split at the largest power of two smaller than n.
    fn recursive(hashes: &[Digest]) -> Digest {
        match hashes {
            [] => Digest::of(b""),
            [one] => *one,
            many => {
                let mut split = 1;
                while split * 2 < many.len() {
                    split *= 2;
                }
                node_hash(recursive(&many[..split]), recursive(&many[split..]))
            }
        }
    }

    fn tree(hashes: &[Digest]) -> Digest {
        let mut tree = TreeHasher::new();
        for hash in hashes {
            tree.push(*hash);
        }
        tree.root()
    }

    #[test]
    fn leaf_known_answer() {
        let flags = Flags::from_names(["Zed", "\\Seen", "$Forwarded", "\\Recent"]);
        let leaf = Leaf {
            uid: 24,
            length: 65_536,
            digest: Digest([0xab; 32]),
            flags: &flags,
            received: -1,
        };
        let mut expected = vec![0x85, 0x18, 24, 0x1a, 0, 1, 0, 0, 0x58, 32];
        expected.extend([0xab; 32]);
        expected.push(0x83);
        expected.extend(b"\x6a$forwarded\x65\\seen\x63zed");
        expected.push(0x20);
        assert_eq!(leaf_octets(&leaf), expected);
        let mut prefixed = vec![0];
        prefixed.extend(&expected);
        assert_eq!(leaf_hash(&leaf), Digest::of(&prefixed));
    }

    #[test]
    fn integers_take_their_shortest_form() {
        let flags = Flags::default();
        let rows: &[(u64, &[u8])] = &[
            (0, &[0x00]),
            (23, &[0x17]),
            (24, &[0x18, 24]),
            (255, &[0x18, 0xff]),
            (256, &[0x19, 1, 0]),
            (65_535, &[0x19, 0xff, 0xff]),
            (4_294_967_296, &[0x1b, 0, 0, 0, 1, 0, 0, 0, 0]),
        ];
        for (length, form) in rows {
            let octets = leaf_octets(&Leaf {
                uid: 1,
                length: *length,
                digest: Digest([0; 32]),
                flags: &flags,
                received: 1_000_000_000,
            });
            assert_eq!(&octets[2..2 + form.len()], *form);
            assert_eq!(&octets[octets.len() - 6..], [0x80, 0x1a, 0x3b, 0x9a, 0xca, 0x00]);
        }
    }

    #[test]
    fn top_leaf_known_answer_and_order() {
        let path = ["INBOX".to_owned(), "Ä".to_owned()];
        let leaf = TopLeaf {
            path: &path,
            uid_validity: 7,
            count: 0,
            root: Digest::of(b""),
        };
        let mut expected = b"\x84\x82\x65INBOX\x62\xc3\x84\x07\x00\x58\x20".to_vec();
        expected.extend(Digest::of(b"").0);
        assert_eq!(top_leaf_octets(&leaf), expected);

        let (one, two, three) = (b"a".to_vec(), b"b".to_vec(), b"c".to_vec());
        let root = mailbox_root(vec![three.clone(), one.clone(), two.clone()]);
        assert_eq!(root, mailbox_root(vec![one, two, three]));
        assert_eq!(mailbox_root(vec![]), Digest::of(b""));
    }

    #[test]
    fn all_small_trees_equal_the_definition() {
        let hashes: Vec<Digest> = (0..130u32).map(|n| Digest::of(&n.to_be_bytes())).collect();
        for count in 0..hashes.len() {
            assert_eq!(tree(&hashes[..count]), recursive(&hashes[..count]), "{count}");
        }
    }

    proptest! {
        #[test]
        fn equals_the_definition(seeds in prop::collection::vec(any::<u32>(), 0..600)) {
            let hashes: Vec<Digest> = seeds.iter().map(|n| Digest::of(&n.to_be_bytes())).collect();
            prop_assert_eq!(tree(&hashes), recursive(&hashes));
        }
    }
}

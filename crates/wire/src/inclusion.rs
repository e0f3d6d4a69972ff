//! Inclusion proofs: that one leaf is in a tree, shown by a few hashes (RFC 9162 §2.1.3), over the trees of
//! [`crate::proof`].

use crate::{digest::Digest, proof::node_hash};

/// Longest audit path that is read: trees have at most 2^64 leaves.
pub const MAX_PATH: usize = 64;

/// Where a leaf stands in a tree, and the hashes that lead from it to the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InclusionProof {
    /// The leaf's place, counted from 0.
    pub index: u64,
    /// How many leaves the tree has.
    pub count: u64,
    /// The roots of the subtrees beside the way, from the leaf upwards.
    pub path: Vec<Digest>,
}

impl InclusionProof {
    /// The root of the tree in which the leaf with this hash stands here (RFC 9162 §2.1.3.2). None when the path does not
    /// fit index and count.
    pub fn root(&self, leaf: Digest) -> Option<Digest> {
        if self.index >= self.count {
            return None;
        }
        let (mut index, mut last, mut root) = (self.index, self.count - 1, leaf);
        for beside in &self.path {
            if last == 0 {
                return None;
            }
            if index & 1 == 1 || index == last {
                root = node_hash(*beside, root);
                while index & 1 == 0 && index != 0 {
                    index >>= 1;
                    last >>= 1;
                }
            } else {
                root = node_hash(root, *beside);
            }
            index >>= 1;
            last >>= 1;
        }
        (last == 0).then_some(root)
    }
}

/// A [`crate::proof::TreeHasher`] that keeps the audit paths of the leaves it is asked to: besides them it holds one hash
/// per level of the tree.
#[derive(Clone, Debug, Default)]
pub struct ProvingHasher {
    /// Roots of perfect subtrees, largest first, with the proofs whose leaf is in them.
    subtrees: Vec<(Digest, Vec<usize>)>,
    proofs: Vec<(u64, Vec<Digest>)>,
    count: u64,
}

impl ProvingHasher {
    /// A tree without leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next leaf hash; with `wanted`, its proof is among those that [`Self::finish`] returns.
    pub fn push(&mut self, hash: Digest, wanted: bool) {
        let mut held = Vec::new();
        if wanted {
            held.push(self.proofs.len());
            self.proofs.push((self.count, Vec::new()));
        }
        let mut subtree = (hash, held);
        for _ in 0..self.count.trailing_ones() {
            let left = self
                .subtrees
                .pop()
                .expect("there is one subtree for each one-bit of the count");
            subtree = self.join(left, subtree);
        }
        self.subtrees.push(subtree);
        self.count += 1;
    }

    fn join(&mut self, left: (Digest, Vec<usize>), right: (Digest, Vec<usize>)) -> (Digest, Vec<usize>) {
        for proof in &left.1 {
            self.proofs[*proof].1.push(right.0);
        }
        for proof in &right.1 {
            self.proofs[*proof].1.push(left.0);
        }
        let mut held = left.1;
        held.extend(right.1);
        (node_hash(left.0, right.0), held)
    }

    /// The root over all leaves, and the proofs of the wanted ones in their order.
    pub fn finish(mut self) -> (Digest, Vec<InclusionProof>) {
        let mut root: Option<(Digest, Vec<usize>)> = None;
        while let Some(left) = self.subtrees.pop() {
            root = Some(match root {
                Some(right) => self.join(left, right),
                None => left,
            });
        }
        let count = self.count;
        let proofs = self
            .proofs
            .into_iter()
            .map(|(index, path)| InclusionProof { index, count, path });
        (root.map_or_else(|| Digest::of(b""), |(root, _)| root), proofs.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::TreeHasher;
    use proptest::prelude::*;

    fn leaves(count: u64) -> Vec<Digest> {
        (0..count).map(|n| Digest::of(&n.to_be_bytes())).collect()
    }

    fn root_of(hashes: &[Digest]) -> Digest {
        let mut tree = TreeHasher::new();
        hashes.iter().for_each(|hash| tree.push(*hash));
        tree.root()
    }

    /// RFC 9162 §2.1.3.1, word for word.
    fn path_of(index: usize, hashes: &[Digest]) -> Vec<Digest> {
        if hashes.len() <= 1 {
            return Vec::new();
        }
        let mut split = 1;
        while split * 2 < hashes.len() {
            split *= 2;
        }
        let (left, right) = hashes.split_at(split);
        if index < split {
            let mut path = path_of(index, left);
            path.push(root_of(right));
            path
        } else {
            let mut path = path_of(index - split, right);
            path.push(root_of(left));
            path
        }
    }

    #[test]
    fn all_leaves_of_all_small_trees() {
        let all = leaves(70);
        for count in 1..=all.len() {
            let hashes = &all[..count];
            let mut tree = ProvingHasher::new();
            hashes.iter().for_each(|hash| tree.push(*hash, true));
            let (root, proofs) = tree.finish();
            assert_eq!((root, proofs.len()), (root_of(hashes), count));
            for (index, proof) in proofs.iter().enumerate() {
                assert_eq!((proof.index, proof.count), (index as u64, count as u64));
                assert_eq!(proof.path, path_of(index, hashes), "{index} of {count}");
                assert_eq!(proof.root(hashes[index]), Some(root));
            }
        }
        assert_eq!(ProvingHasher::new().finish(), (Digest::of(b""), Vec::new()));
    }

    proptest! {
        #[test]
        fn a_proof_is_for_one_leaf_at_one_place(count in 1u64..400, place in any::<prop::sample::Index>(), other in any::<prop::sample::Index>(), cut in any::<bool>()) {
            let hashes = leaves(count);
            let (at, wrong) = (place.index(hashes.len()), other.index(hashes.len()));
            let mut tree = ProvingHasher::new();
            for (index, hash) in hashes.iter().enumerate() {
                tree.push(*hash, index == at);
            }
            let (root, mut proofs) = tree.finish();
            let proof = proofs.remove(0);
            prop_assert_eq!(proof.root(hashes[at]), Some(root));
            if wrong != at {
                prop_assert_ne!(proof.root(hashes[wrong]), Some(root));
                let moved = InclusionProof { index: wrong as u64, ..proof.clone() };
                prop_assert_ne!(moved.root(hashes[at]), Some(root));
            }
            let mut other = proof.clone();
            if cut {
                if other.path.pop().is_none() {
                    return Ok(());
                }
            } else {
                other.path.push(hashes[0]);
            }
            prop_assert_ne!(other.root(hashes[at]), Some(root), "a path of another length");
            prop_assert_eq!(InclusionProof { count: 0, ..proof.clone() }.root(hashes[at]), None);
        }
    }
}

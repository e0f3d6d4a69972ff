//! Finding one message in a receipt by its digest, with the proof of every place where it was.

use super::{Part, ReceiptException, ReceiptLeaf, SingleEntry, SingleProof};
use crate::{
    digest::Digest,
    inclusion::{InclusionProof, ProvingHasher},
    proof::{TopLeaf, hash_of_leaf_octets, top_leaf_octets},
};

/// Most places of one message that are shown for a section.
pub const MAX_PLACES: usize = 64;

/// Takes the parts of a receipt as they are read, and finds a message in them.
#[derive(Debug)]
pub struct SingleFinder {
    digest: Digest,
    found: Vec<SingleProof>,
    number: u32,
    statements: Vec<String>,
    /// The folders of the section.
    top: ProvingHasher,
    /// Those of them that hold the message.
    places: Vec<FolderPlaces>,
    folder: Option<(FolderPlaces, ProvingHasher)>,
    exceptions: Vec<ReceiptException>,
    shown: usize,
}

/// One folder with the message's leaves in it.
#[derive(Debug)]
struct FolderPlaces {
    path: Vec<String>,
    uid_validity: u32,
    leaves: Vec<ReceiptLeaf>,
    proofs: Vec<InclusionProof>,
}

impl SingleFinder {
    /// Looks for the message whose canonical form has this digest.
    pub fn new(digest: Digest) -> Self {
        Self {
            digest,
            found: Vec::new(),
            number: 0,
            statements: Vec::new(),
            top: ProvingHasher::new(),
            places: Vec::new(),
            folder: None,
            exceptions: Vec::new(),
            shown: 0,
        }
    }

    /// Takes the next part.
    pub fn part(&mut self, part: Part) {
        match part {
            Part::Opening { number, statements } => {
                (self.number, self.statements) = (number, statements);
                self.top = ProvingHasher::new();
                self.places.clear();
                self.exceptions.clear();
                self.shown = 0;
            }
            Part::Folder { path, uid_validity } => {
                let places = FolderPlaces {
                    path,
                    uid_validity,
                    leaves: Vec::new(),
                    proofs: Vec::new(),
                };
                self.folder = Some((places, ProvingHasher::new()));
            }
            Part::Leaf(leaf, hash) => {
                let Some((places, tree)) = &mut self.folder else { return };
                let is_wanted = leaf.digest == self.digest && self.shown < MAX_PLACES;
                tree.push(hash, is_wanted);
                if is_wanted {
                    self.shown += 1;
                    places.leaves.push(leaf);
                }
            }
            Part::FolderEnd { count, root } => self.folder_end(count, root),
            Part::Exception(exception) if !self.places.is_empty() => self.exceptions.push(exception),
            Part::Exception(_) | Part::End => {}
            Part::Section(_) => self.section(),
        }
    }

    fn folder_end(&mut self, count: u64, root: Digest) {
        let Some((mut places, tree)) = self.folder.take() else {
            return;
        };
        places.proofs = tree.finish().1;
        let top = hash_of_leaf_octets(&top_leaf_octets(&TopLeaf {
            path: &places.path,
            uid_validity: places.uid_validity,
            count,
            root,
        }));
        self.top.push(top, !places.leaves.is_empty());
        if !places.leaves.is_empty() {
            self.places.push(places);
        }
    }

    fn section(&mut self) {
        let (_, tops) = std::mem::take(&mut self.top).finish();
        let mut entries = Vec::new();
        for (places, in_mailbox) in std::mem::take(&mut self.places).into_iter().zip(tops) {
            for (leaf, in_folder) in places.leaves.into_iter().zip(places.proofs) {
                entries.push(SingleEntry {
                    leaf,
                    path: places.path.clone(),
                    uid_validity: places.uid_validity,
                    in_folder,
                    in_mailbox: in_mailbox.clone(),
                });
            }
        }
        if !entries.is_empty() {
            self.found.push(SingleProof {
                number: self.number,
                statements: std::mem::take(&mut self.statements),
                entries,
                exceptions: std::mem::take(&mut self.exceptions),
            });
        }
    }

    /// The proofs: one for each section that holds the message.
    pub fn finish(self) -> Vec<SingleProof> {
        self.found
    }
}

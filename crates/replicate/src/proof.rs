//! The proof that both sides hold the same: roots over the same leaves, and the exceptions from it.

use crate::ledger::Record;
use rehome_wire::{
    digest::Digest,
    proof::{Leaf, TopLeaf, TreeHasher, leaf_hash, top_leaf_octets},
};

/// One item that is not on the target as it is at the source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exception {
    /// The source folder's path.
    pub folder: Vec<String>,
    /// The source uid.
    pub uid: u32,
    /// In what.
    pub kind: ExceptionKind,
    /// What the target holds.
    pub held: Held,
}

/// In what an item on the target is not as at the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExceptionKind {
    /// It is not there; both roots leave its leaf out.
    Skipped,
    /// Its octets differ; the leaf holds what was sent.
    Altered,
    /// Its flags differ; the leaf holds the source's.
    Flags,
    /// Its received time differs; the leaf holds the source's.
    Date,
}

impl ExceptionKind {
    /// The word in Prepare and receipt.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Skipped => "skipped",
            Self::Altered => "altered",
            Self::Flags => "flags",
            Self::Date => "date",
        }
    }

    /// The kind of this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Skipped, Self::Altered, Self::Flags, Self::Date]
            .into_iter()
            .find(|kind| kind.as_str() == word)
    }
}

/// What the target holds, as far as the exception's kind asks: nothing for *skipped*, length and digest for *altered*
/// (none where it cannot be read), flags for *flags*, the received time for *date*.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// Canonical length.
    pub length: Option<u64>,
    /// Canonical digest.
    pub digest: Option<Digest>,
    /// Flags, lower-cased and sorted.
    pub flags: Option<Vec<String>>,
    /// Received time, whole seconds since 1970.
    pub received: Option<i64>,
}

/// Builds a mailbox's root folder by folder.
#[derive(Default)]
pub(crate) struct RootBuilder {
    top_leaves: Vec<Vec<u8>>,
    pub(crate) items: u64,
    pub(crate) octets: u64,
}

impl RootBuilder {
    /// Adds a folder of which all leaves were pushed.
    pub(crate) fn folder(&mut self, path: &[String], uid_validity: u32, folder: &FolderRoot) {
        self.items += folder.tree.count();
        self.octets += folder.octets;
        let (count, root) = (folder.tree.count(), folder.tree.root());
        self.top_leaves.push(top_leaf_octets(&TopLeaf {
            path,
            uid_validity,
            count,
            root,
        }));
    }

    /// How many folders were added.
    pub(crate) fn folders(&self) -> u64 {
        self.top_leaves.len() as u64
    }

    /// The root.
    pub(crate) fn root(self) -> Digest {
        rehome_wire::proof::mailbox_root(self.top_leaves)
    }
}

/// Builds a folder's root; leaves come in ascending order of uid.
#[derive(Default)]
pub(crate) struct FolderRoot {
    tree: TreeHasher,
    octets: u64,
}

impl FolderRoot {
    fn leaf(&mut self, leaf: &Leaf<'_>) {
        self.leaf_hash(leaf.length, leaf_hash(leaf));
    }

    /// The next leaf by its hash, with its item's canonical length.
    pub(crate) fn leaf_hash(&mut self, length: u64, hash: Digest) {
        self.octets += length;
        self.tree.push(hash);
    }

    /// How many leaves were pushed, and the root over them.
    pub(crate) fn count_and_root(&self) -> (u64, Digest) {
        (self.tree.count(), self.tree.root())
    }

    pub(crate) fn record(&mut self, record: &Record) {
        let Record {
            uid,
            length,
            digest,
            flags,
            received,
            ..
        } = record;
        self.leaf(&Leaf {
            uid: *uid,
            length: *length,
            digest: *digest,
            flags,
            received: *received,
        });
    }
}

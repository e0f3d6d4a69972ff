//! Gathers changes of the ledger for one write.

use super::FOLDERS_SHIFT;
use crate::storage::{Change, ChunkKey};
use std::collections::{BTreeMap, BTreeSet};

/// Changes of one write; a later change of a chunk replaces an earlier one.
#[derive(Default)]
pub struct Changes {
    chunks: BTreeMap<ChunkKey, Option<Vec<u8>>>,
    folders: BTreeSet<u32>,
}

impl Changes {
    /// True when there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.folders.is_empty()
    }

    /// Adds one.
    pub fn add(&mut self, change: Change) {
        self.chunks.insert(change.0, change.1);
    }

    /// Adds some.
    pub fn extend(&mut self, changes: Vec<Change>) {
        self.chunks.extend(changes);
    }

    /// Adds a folder's entry, as it will be when the write begins.
    pub fn folder(&mut self, number: u32) {
        self.folders.insert(number >> FOLDERS_SHIFT);
    }

    /// Adds others, over these.
    pub(super) fn merge(&mut self, others: Self) {
        self.chunks.extend(others.chunks);
        self.folders.extend(others.folders);
    }

    /// The changes, and the chunks of folders.
    pub(super) fn into_parts(self) -> (Vec<Change>, BTreeSet<u32>) {
        (self.chunks.into_iter().collect(), self.folders)
    }
}

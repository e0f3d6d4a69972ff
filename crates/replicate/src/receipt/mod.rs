//! What receipts need of a move: its leaves as receipts keep them, and the comparison of a receipt with a live mailbox.

mod compare;

use crate::{
    ledger::{FolderEntry, FolderState, Ledger, LedgerError},
    link::SweepFolder,
    proof::{FolderRoot, RootBuilder},
    storage::{ChunkStorage, StorageError},
};
use async_trait::async_trait;
use rehome_wire::{
    digest::Digest,
    proof::{Leaf, hash_of_leaf_octets, leaf_octets},
    receipt::{write_folder_end, write_folder_head},
    uid_set::UidSet,
};
use std::{collections::HashMap, sync::Arc};

pub use compare::{Comparison, Difference, Expected, MAX_NAMED, compare};

/// Octets of folders and leaves in one part, about.
const PART: usize = 1024 * 1024;

/// Where folders and leaves go, in parts that are the receipt's own octets in their order.
#[async_trait]
pub trait PartSink: Send {
    /// Takes the next part.
    ///
    /// # Errors
    /// [`StorageError`]; then nothing more is given.
    async fn part(&mut self, octets: Vec<u8>) -> Result<(), StorageError>;
}

/// The octets of a folder's head; folders stand in a receipt in their order.
#[must_use]
pub fn head_octets(path: &[String], uid_validity: u32) -> Vec<u8> {
    let mut octets = Vec::new();
    write_folder_head(path, uid_validity, &mut octets);
    octets
}

/// Writes folders and leaves, and gives them on in parts.
pub(crate) struct LeafWriter<'a> {
    sink: &'a mut dyn PartSink,
    octets: Vec<u8>,
}

impl<'a> LeafWriter<'a> {
    pub(crate) fn new(sink: &'a mut dyn PartSink) -> Self {
        let octets = Vec::new();
        Self { sink, octets }
    }

    pub(crate) fn folder(&mut self, path: &[String], uid_validity: u32) {
        write_folder_head(path, uid_validity, &mut self.octets);
    }

    pub(crate) async fn leaf(&mut self, octets: &[u8]) -> Result<(), StorageError> {
        self.octets.extend_from_slice(octets);
        if self.octets.len() < PART {
            return Ok(());
        }
        self.sink.part(std::mem::take(&mut self.octets)).await
    }

    pub(crate) async fn folder_end(&mut self, root: &FolderRoot) -> Result<(), StorageError> {
        let (count, root) = root.count_and_root();
        write_folder_end(count, root, &mut self.octets);
        // A mailbox may have many folders without items.
        self.leaf(&[]).await
    }

    pub(crate) async fn finish(self) -> Result<(), StorageError> {
        if self.octets.is_empty() {
            return Ok(());
        }
        self.sink.part(self.octets).await
    }
}

/// What leaves make in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafTotals {
    /// The mailbox root.
    pub root: Digest,
    /// Folders.
    pub folders: u64,
    /// Leaves.
    pub items: u64,
    /// Canonical octets of the items.
    pub octets: u64,
}

/// The items of a sweep that earlier sweeps have accounted for, by folder path and UIDVALIDITY.
pub type Accounted = HashMap<(Vec<String>, u32), UidSet>;

/// All leaves of a move as its ledger has them: those that the target's root was made over, as long as no sweep has added
/// to them.
///
/// # Errors
/// [`LedgerError`], of the sink too.
pub async fn leaves_of(ledger: Arc<dyn ChunkStorage>, sink: &mut dyn PartSink) -> Result<LeafTotals, LedgerError> {
    let ledger = Ledger::load(ledger).await?;
    write_leaves(&ledger, |_| true, |_, _| true, sink).await
}

/// The leaves of what a sweep was to bring and is on the target by now, without what `accounted` holds. Folders without
/// such an item are left out.
///
/// # Errors
/// As [`leaves_of`].
pub async fn swept_leaves_of(
    ledger: Arc<dyn ChunkStorage>,
    swept: &[SweepFolder],
    accounted: &Accounted,
    sink: &mut dyn PartSink,
) -> Result<LeafTotals, LedgerError> {
    let ledger = Ledger::load(ledger).await?;
    let late = |entry: &FolderEntry, uid: u32| {
        let swept = swept.iter().any(|swept| {
            let validity = swept.folder.status.map(|status| status.uid_validity);
            swept.folder.path == entry.source_path
                && validity == Some(entry.source_validity)
                && swept.uids.contains(uid)
        });
        let key = (entry.source_path.0.clone(), entry.source_validity);
        swept && !accounted.get(&key).is_some_and(|uids| uids.contains(uid))
    };
    let mut concerned = Vec::new();
    for entry in ledger.folders() {
        let named = swept.iter().any(|swept| swept.folder.path == entry.source_path);
        if !named || entry.state != FolderState::Active {
            continue;
        }
        for chunk in ledger.record_chunks(entry.number).await? {
            let records = ledger.records(entry.number, chunk).await?;
            if records.iter().any(|record| late(&entry, record.uid)) {
                concerned.push(entry.number);
                break;
            }
        }
    }
    write_leaves(&ledger, |entry| concerned.contains(&entry.number), late, sink).await
}

async fn write_leaves(
    ledger: &Ledger,
    folder_is_wanted: impl Fn(&FolderEntry) -> bool,
    is_wanted: impl Fn(&FolderEntry, u32) -> bool,
    sink: &mut dyn PartSink,
) -> Result<LeafTotals, LedgerError> {
    let mut folders = ledger.folders();
    folders.retain(|entry| entry.state == FolderState::Active && folder_is_wanted(entry));
    folders.sort_by_cached_key(|entry| head_octets(&entry.source_path.0, entry.source_validity));
    let mut writer = LeafWriter::new(sink);
    let mut all = RootBuilder::default();
    for entry in folders {
        let mut root = FolderRoot::default();
        writer.folder(&entry.source_path.0, entry.source_validity);
        for chunk in ledger.record_chunks(entry.number).await? {
            for record in ledger.records(entry.number, chunk).await? {
                if !is_wanted(&entry, record.uid) {
                    continue;
                }
                let octets = leaf_octets(&Leaf {
                    uid: record.uid,
                    length: record.length,
                    digest: record.digest,
                    flags: &record.flags,
                    received: record.received,
                });
                root.leaf_hash(record.length, hash_of_leaf_octets(&octets));
                writer.leaf(&octets).await?;
            }
        }
        writer.folder_end(&root).await?;
        all.folder(&entry.source_path.0, entry.source_validity, &root);
    }
    writer.finish().await?;
    Ok(LeafTotals {
        folders: all.folders(),
        items: all.items,
        octets: all.octets,
        root: all.root(),
    })
}

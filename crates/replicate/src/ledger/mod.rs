//! The ledger: what of a mailbox is where on the target, kept chunk by chunk so that any worker can take over.
//!
//! # The stored form
//! Frozen. All integers are little-endian and unsigned unless said; every chunk begins with the octet 1 (its version);
//! `text` is a length in 2 octets and UTF-8; `list` is a count in 4 octets and the entries; `option` is 0, or 1 and the
//! value; `bool` is 0 or 1.
//!
//! | chunk | key | contents behind the version octet |
//! |---|---|---|
//! | folders | `(Folders, 0, number / 64)` | next free number u32, list of folders |
//! | records | `(Records, folder, uid / 4096)` | list of records of 60 octets ascending by uid, list of overflows |
//! | map | `(Map, folder, 0)` | list of runs `source u32, target u32, length u32`, ascending by source, disjoint |
//! | intent | `(Intent, 0, folder)` | option of an open window, list of suspect windows |
//! | report | `(Report, folder, uid / 4096)` | see [`crate::report`] |
//!
//! - *Folder*: number u32, state u8 (1 creating, 2 active, 3 retired, 4 removing), attributes u8 (1 subscribed, 2 given
//!   uids), special use u8 (0 none, 1 archive, 2 drafts, 3 junk, 4 sent, 5 trash), source UIDVALIDITY u32, target
//!   UIDVALIDITY u32, source path and target path (lists of texts), keyword table (list of at most 64 texts), option of
//!   *synced*: UIDNEXT u32, count u32, option of HIGHESTMODSEQ u64, option of the token (octets like a text). With
//!   attribute 4 there follow: unread bool, octets u8 (0 unknown, 1 kept, 2 rewritten), skipped u32, reported u32,
//!   option of *verified* (the target's UIDVALIDITY u32, UIDNEXT u32, count u32, option of HIGHESTMODSEQ u64, token),
//!   option of the source's MAILBOXID (text), option of the path that the target's folder is being renamed to. A folder
//!   is known by its number, which is never used again; the path is an attribute. A chunk of version 2 may have attribute
//!   8, *other name*: the folder's path on the target differs from the source's on purpose.
//! - *Record*: uid modulo 4096 u16, state u8 (bits 0 and 1: 0 not read back, 1 equal, 2 altered; bit 2: line ends only),
//!   system flags u8 (the sum of `SystemFlag` bits), keywords u64 (bit *n*: name *n* of the folder's table), canonical
//!   length u64, received i64, digest 32 octets. *Overflow*: uid modulo 4096 u16, list of texts: keywords of that item
//!   that found no place in the table.
//! - *Window*: kind u8 (the sum of 1 given uids, 2 by position), target UIDVALIDITY u32, target UIDNEXT u32, list of items: source uid u32, state u8,
//!   length u64, received i64, digest, flags (list of texts).
//!
//! # What it promises
//! A record stands exactly for an item that is on the target and mapped; both change in one write. An item that went to
//! the target without being recorded is in the folder's open intent, which was durable before its first octet left.

mod changes;
mod folder;
mod intent;
mod invert;
mod map;
mod record;

use crate::{
    codec::{Reader, Writer},
    report::ReportItem,
    storage::{Change, ChunkKey, ChunkKind, ChunkStorage, StorageError},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::oneshot;

pub use changes::Changes;
pub use folder::{FolderEntry, FolderState, KeywordTable, MAX_TABLE, Octets, Synced, Verified};
pub use intent::{Intents, MAX_SUSPECTS, Window};
pub use invert::{Pair, PairedFolder, PairsFrom, PairsPage, pairs_page};
pub use map::UidMap;
pub use record::{CHUNK_SHIFT, ReadBack, Record, decode_records, encode_records};

/// Folders in one chunk, as a power of two.
pub(crate) const FOLDERS_SHIFT: u32 = 6;
/// Most folders of one mailbox, those of earlier validities included.
pub const MAX_FOLDERS: u32 = 1 << 20;

/// Why the ledger cannot be read or grow.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum LedgerError {
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A chunk does not hold what it should.
    #[error("the chunk of {what} is damaged: {why}")]
    Damaged {
        /// Which kind of chunk.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// More folders than the ledger numbers.
    #[error("the mailbox has more than {MAX_FOLDERS} folders")]
    Full {
        /// The number that would come next.
        next: u32,
    },
}

/// One move's ledger: the folders in memory, all else read and written by chunk. Folders may be worked on at once; writes
/// that wait at the same time become one.
pub struct Ledger {
    storage: Arc<dyn ChunkStorage>,
    folders: Mutex<Folders>,
    waiting: Mutex<Vec<Waiting>>,
    /// Held by who writes.
    writer: tokio::sync::Mutex<()>,
}

struct Folders {
    entries: BTreeMap<u32, Arc<FolderEntry>>,
    next_number: u32,
}

/// A write that waits for its turn.
struct Waiting {
    changes: Changes,
    step: &'static str,
    done: oneshot::Sender<Result<(), LedgerError>>,
}

impl Ledger {
    /// Reads the folders.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn load(storage: Arc<dyn ChunkStorage>) -> Result<Self, LedgerError> {
        let mut entries = BTreeMap::new();
        let mut next_number = 1;
        for chunk in storage.chunks(ChunkKind::Folders, 0).await? {
            if let Some(octets) = storage.get(folders_key(chunk)).await? {
                let (next, found) = folder::decode_folders(&octets)?;
                next_number = next_number.max(next);
                for entry in found {
                    next_number = next_number.max(entry.number + 1);
                    entries.insert(entry.number, Arc::new(entry));
                }
            }
        }
        Ok(Self {
            storage,
            folders: Mutex::new(Folders { entries, next_number }),
            waiting: Mutex::default(),
            writer: tokio::sync::Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Folders> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All folders by number.
    #[must_use]
    pub fn folders(&self) -> Vec<Arc<FolderEntry>> {
        self.lock().entries.values().cloned().collect()
    }

    /// The folder with this number, as it is now.
    ///
    /// # Errors
    /// [`LedgerError::Damaged`] where there is none.
    pub fn folder(&self, number: u32) -> Result<Arc<FolderEntry>, LedgerError> {
        self.lock().entries.get(&number).cloned().ok_or_else(|| missing(number))
    }

    /// Changes a folder's entry; the caller writes [`Changes::folder`] where that is true: something changed.
    ///
    /// # Errors
    /// [`LedgerError::Damaged`] where there is none.
    pub fn edit(&self, number: u32, edit: impl FnOnce(&mut FolderEntry)) -> Result<bool, LedgerError> {
        let mut folders = self.lock();
        let entry = folders.entries.get_mut(&number).ok_or_else(|| missing(number))?;
        let mut edited = FolderEntry::clone(entry);
        edit(&mut edited);
        let changed = edited != **entry;
        if changed {
            *entry = Arc::new(edited);
        }
        Ok(changed)
    }

    /// Adds a folder under a number that was never used; the caller writes [`Changes::folder`].
    ///
    /// # Errors
    /// [`LedgerError::Full`].
    pub fn add_folder(&self, make: impl FnOnce(u32) -> FolderEntry) -> Result<u32, LedgerError> {
        let mut folders = self.lock();
        let number = folders.next_number;
        if number >= MAX_FOLDERS {
            return Err(LedgerError::Full { next: number });
        }
        folders.next_number += 1;
        folders.entries.insert(number, Arc::new(make(number)));
        Ok(number)
    }

    /// Forgets a folder; the caller writes [`Changes::folder`] and [`Ledger::removal_changes`].
    pub fn remove_folder(&self, number: u32) {
        self.lock().entries.remove(&number);
    }

    fn folder_change(&self, chunk: u32) -> Change {
        let folders = self.lock();
        let range = (chunk << FOLDERS_SHIFT)..((chunk + 1) << FOLDERS_SHIFT);
        let entries: Vec<&FolderEntry> = folders.entries.range(range).map(|(_, entry)| &**entry).collect();
        let octets = folder::encode_folders(folders.next_number, &entries);
        (folders_key(chunk), Some(octets))
    }

    /// The changes that remove all chunks of a folder.
    ///
    /// # Errors
    /// [`LedgerError::Storage`].
    pub async fn removal_changes(&self, number: u32) -> Result<Vec<Change>, LedgerError> {
        let mut changes = vec![(intent_key(number), None)];
        for kind in [ChunkKind::Records, ChunkKind::Map, ChunkKind::Report] {
            for chunk in self.storage.chunks(kind, number).await? {
                changes.push((
                    ChunkKey {
                        kind,
                        folder: number,
                        chunk,
                    },
                    None,
                ));
            }
        }
        Ok(changes)
    }

    /// The numbers of a folder's record chunks, ascending.
    ///
    /// # Errors
    /// [`LedgerError::Storage`].
    pub async fn record_chunks(&self, number: u32) -> Result<Vec<u32>, LedgerError> {
        Ok(self.storage.chunks(ChunkKind::Records, number).await?)
    }

    /// One chunk of a folder's records, ascending by uid.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn records(&self, number: u32, chunk: u32) -> Result<Vec<Record>, LedgerError> {
        let key = ChunkKey {
            kind: ChunkKind::Records,
            folder: number,
            chunk,
        };
        match self.storage.get(key).await? {
            Some(octets) => decode_records(chunk, &self.folder(number)?.keywords, &octets),
            None => Ok(Vec::new()),
        }
    }

    /// Adds the change that stores one chunk of records (none left: removes it), and of the folder where new keywords
    /// entered its table.
    ///
    /// # Errors
    /// [`LedgerError::Damaged`] for an unknown folder.
    pub fn put_records<'r>(
        &self,
        number: u32,
        chunk: u32,
        records: impl ExactSizeIterator<Item = &'r Record>,
        changes: &mut Changes,
    ) -> Result<(), LedgerError> {
        let mut folders = self.lock();
        let entry = folders.entries.get_mut(&number).ok_or_else(|| missing(number))?;
        let key = ChunkKey {
            kind: ChunkKind::Records,
            folder: number,
            chunk,
        };
        if records.len() == 0 {
            changes.add((key, None));
            return Ok(());
        }
        let mut table = entry.keywords.clone();
        changes.add((key, Some(encode_records(&mut table, records))));
        if table.names().len() != entry.keywords.names().len() {
            Arc::make_mut(entry).keywords = table;
            changes.folder(number);
        }
        Ok(())
    }

    /// A folder's map.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn map(&self, number: u32) -> Result<UidMap, LedgerError> {
        match self.storage.get(map_key(number)).await? {
            Some(octets) => UidMap::decode(&octets),
            None => Ok(UidMap::default()),
        }
    }

    /// The change that stores a folder's map.
    #[must_use]
    pub fn map_change(number: u32, map: &UidMap) -> Change {
        (map_key(number), (!map.is_empty()).then(|| map.encode()))
    }

    /// The folders that have an open intent or suspect windows.
    ///
    /// # Errors
    /// [`LedgerError::Storage`].
    pub async fn folders_with_intents(&self) -> Result<Vec<u32>, LedgerError> {
        Ok(self.storage.chunks(ChunkKind::Intent, 0).await?)
    }

    /// A folder's open intent and suspect windows.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn intents(&self, number: u32) -> Result<Intents, LedgerError> {
        match self.storage.get(intent_key(number)).await? {
            Some(octets) => Intents::decode(&octets),
            None => Ok(Intents::default()),
        }
    }

    /// The change that stores a folder's intent and windows.
    #[must_use]
    pub fn intents_change(number: u32, intents: &Intents) -> Change {
        (intent_key(number), (!intents.is_empty()).then(|| intents.encode()))
    }

    /// The numbers of a folder's report chunks, ascending.
    ///
    /// # Errors
    /// [`LedgerError::Storage`].
    pub async fn report_chunks(&self, number: u32) -> Result<Vec<u32>, LedgerError> {
        Ok(self.storage.chunks(ChunkKind::Report, number).await?)
    }

    /// One chunk of what is reported about a folder's items, ascending by uid.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn report(&self, number: u32, chunk: u32) -> Result<Vec<ReportItem>, LedgerError> {
        let key = ChunkKey {
            kind: ChunkKind::Report,
            folder: number,
            chunk,
        };
        match self.storage.get(key).await? {
            Some(octets) => crate::report::decode(&self.folder(number)?.source_path.0, &octets),
            None => Ok(Vec::new()),
        }
    }

    /// The change that stores one chunk of the report (nothing left: removes it).
    #[must_use]
    pub fn report_change(number: u32, chunk: u32, items: &[ReportItem]) -> Change {
        let key = ChunkKey {
            kind: ChunkKind::Report,
            folder: number,
            chunk,
        };
        (key, (!items.is_empty()).then(|| crate::report::encode(items)))
    }

    /// Makes changes durable, all or none; writes of others that wait as well go with them, so a failure may be theirs.
    /// Folders are written as they are when the write begins.
    ///
    /// # Errors
    /// [`LedgerError::Storage`].
    pub async fn write(&self, changes: Changes, step: &'static str) -> Result<(), LedgerError> {
        if changes.is_empty() {
            return Ok(());
        }
        let (done, mut answer) = oneshot::channel();
        let queue = || self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        queue().push(Waiting { changes, step, done });
        let _writer = self.writer.lock().await;
        match answer.try_recv() {
            Ok(result) => return result,
            Err(oneshot::error::TryRecvError::Empty) => {}
            Err(oneshot::error::TryRecvError::Closed) => {
                let message = "the write was given up".to_owned();
                return Err(LedgerError::Storage(StorageError::Failed { message }));
            }
        }
        let waiting = std::mem::take(&mut *queue());
        let mut together = Changes::default();
        let mut answers = Vec::with_capacity(waiting.len());
        let mut first = step;
        for (at, Waiting { changes, step, done }) in waiting.into_iter().enumerate() {
            if at == 0 {
                first = step;
            }
            together.merge(changes);
            answers.push(done);
        }
        let (mut all, chunks) = together.into_parts();
        all.extend(chunks.into_iter().map(|chunk| self.folder_change(chunk)));
        let result = self.storage.write(all, first).await.map_err(LedgerError::from);
        for answer in answers {
            // Who does not wait any more needs no answer.
            let _ = answer.send(result.clone());
        }
        result
    }
}

fn folders_key(chunk: u32) -> ChunkKey {
    ChunkKey {
        kind: ChunkKind::Folders,
        folder: 0,
        chunk,
    }
}

fn missing(number: u32) -> LedgerError {
    LedgerError::Damaged {
        what: "folders",
        why: format!("folder {number} is not in it"),
    }
}

fn map_key(number: u32) -> ChunkKey {
    ChunkKey {
        kind: ChunkKind::Map,
        folder: number,
        chunk: 0,
    }
}

fn intent_key(number: u32) -> ChunkKey {
    ChunkKey {
        kind: ChunkKind::Intent,
        folder: 0,
        chunk: number,
    }
}

/// Writes a list of texts.
pub(crate) fn write_texts(writer: &mut Writer, texts: &[String]) {
    writer.count(texts.len());
    for text in texts {
        writer.text(text);
    }
}

/// Reads a list of at most `limit` texts.
pub(crate) fn read_texts(reader: &mut Reader<'_>, limit: usize) -> Result<Vec<String>, LedgerError> {
    let count = reader.count(2)?;
    if count > limit {
        return Err(reader.damaged(format!("{count} texts where {limit} are the most")));
    }
    (0..count).map(|_| reader.text()).collect()
}

#[cfg(test)]
mod tests;

//! The exporter's notes: the digest of every item served, and the uids behind the last root.
//!
//! # The stored form
//! Frozen; conventions of [`crate::ledger`].
//! - `(NoteFolders, 0, number / 64)`: next free number u32, root made bool (the highest of all chunks counts), list of:
//!   number u32, UIDVALIDITY u32, path.
//! - `(Notes, folder, uid / 4096)`: list of notes of 42 octets ascending by uid: uid modulo 4096 u16, canonical length
//!   u64, digest 32 octets.
//! - `(Notes, folder, 2^20)`: the uids in the listing behind the last root: list of ranges `first u32, last u32`.

use crate::{
    codec::{Reader, Writer},
    ledger::{CHUNK_SHIFT, FOLDERS_SHIFT, LedgerError, MAX_FOLDERS},
    storage::{Change, ChunkKey, ChunkKind, ChunkStorage},
};
use rehome_mailbox::FolderPath;
use rehome_wire::{digest::Digest, uid_set::UidSet};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// The chunk of a folder's notes that holds the uids behind the last root.
const ROOT_CHUNK: u32 = 1 << 20;

/// What was served as one item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// Canonical length.
    pub length: u64,
    /// Canonical digest.
    pub digest: Digest,
}

/// The notes of one move.
pub(crate) struct Notes {
    storage: Arc<dyn ChunkStorage>,
    folders: BTreeMap<u32, (FolderPath, u32)>,
    by_name: HashMap<(FolderPath, u32), u32>,
    next_number: u32,
    root_made: bool,
}

impl Notes {
    pub(crate) async fn load(storage: Arc<dyn ChunkStorage>) -> Result<Self, LedgerError> {
        let mut notes = Self {
            storage,
            folders: BTreeMap::new(),
            by_name: HashMap::new(),
            next_number: 1,
            root_made: false,
        };
        for chunk in notes.storage.chunks(ChunkKind::NoteFolders, 0).await? {
            let key = ChunkKey {
                kind: ChunkKind::NoteFolders,
                folder: 0,
                chunk,
            };
            let Some(octets) = notes.storage.get(key).await? else {
                continue;
            };
            let mut reader = Reader::new("notes' folders", &octets)?;
            notes.next_number = notes.next_number.max(reader.u32()?);
            notes.root_made |= reader.bool()?;
            for _ in 0..reader.count(14)? {
                let (number, uid_validity, path) = (reader.u32()?, reader.u32()?, reader.path()?);
                notes.next_number = notes.next_number.max(number + 1);
                notes.by_name.insert((path.clone(), uid_validity), number);
                notes.folders.insert(number, (path, uid_validity));
            }
            reader.finish()?;
        }
        Ok(notes)
    }

    pub(crate) fn root_made(&self) -> bool {
        self.root_made
    }

    /// The folder's number, where it has notes.
    pub(crate) fn number(&self, path: &FolderPath, uid_validity: u32) -> Option<u32> {
        self.by_name.get(&(path.clone(), uid_validity)).copied()
    }

    /// The folder's number; a new one comes with the change that stores it.
    fn number_or_new(&mut self, path: &FolderPath, uid_validity: u32) -> Result<(u32, bool), LedgerError> {
        if let Some(number) = self.number(path, uid_validity) {
            return Ok((number, false));
        }
        let number = self.next_number;
        if number >= MAX_FOLDERS {
            return Err(LedgerError::Full { next: number });
        }
        self.next_number += 1;
        self.by_name.insert((path.clone(), uid_validity), number);
        self.folders.insert(number, (path.clone(), uid_validity));
        Ok((number, true))
    }

    fn folders_change(&self, number: u32) -> Change {
        let chunk = number >> FOLDERS_SHIFT;
        let range = (chunk << FOLDERS_SHIFT)..((chunk + 1) << FOLDERS_SHIFT);
        let mut writer = Writer::new();
        writer.u32(self.next_number);
        writer.bool(self.root_made);
        writer.count(self.folders.range(range.clone()).count());
        for (number, (path, uid_validity)) in self.folders.range(range) {
            writer.u32(*number);
            writer.u32(*uid_validity);
            writer.path(path);
        }
        (
            ChunkKey {
                kind: ChunkKind::NoteFolders,
                folder: 0,
                chunk,
            },
            Some(writer.finish()),
        )
    }

    /// Notes of one chunk of uids, ascending.
    pub(crate) async fn chunk(&self, number: u32, chunk: u32) -> Result<Vec<(u32, Note)>, LedgerError> {
        let key = ChunkKey {
            kind: ChunkKind::Notes,
            folder: number,
            chunk,
        };
        let Some(octets) = self.storage.get(key).await? else {
            return Ok(Vec::new());
        };
        let mut reader = Reader::new("notes", &octets)?;
        let count = reader.count(42)?;
        let mut notes = Vec::with_capacity(count);
        for _ in 0..count {
            let low = u32::from(reader.u16()?);
            let note = Note {
                length: reader.u64()?,
                digest: reader.digest()?,
            };
            notes.push((chunk << CHUNK_SHIFT | low, note));
        }
        reader.finish()?;
        Ok(notes)
    }

    /// Stores notes of one folder, durably, over earlier ones of the same items.
    pub(crate) async fn put(
        &mut self,
        path: &FolderPath,
        uid_validity: u32,
        notes: &BTreeMap<u32, Note>,
    ) -> Result<(), LedgerError> {
        if notes.is_empty() {
            return Ok(());
        }
        let (number, new) = self.number_or_new(path, uid_validity)?;
        let mut changes = Vec::new();
        if new {
            changes.push(self.folders_change(number));
        }
        let mut chunks: BTreeMap<u32, BTreeMap<u32, Note>> = BTreeMap::new();
        for (uid, note) in notes {
            chunks.entry(uid >> CHUNK_SHIFT).or_default().insert(*uid, *note);
        }
        for (chunk, notes) in chunks {
            let mut all: BTreeMap<u32, Note> = self.chunk(number, chunk).await?.into_iter().collect();
            all.extend(notes);
            let mut writer = Writer::new();
            writer.count(all.len());
            for (uid, note) in &all {
                writer.u16((uid & ((1 << CHUNK_SHIFT) - 1)) as u16);
                writer.u64(note.length);
                writer.digest(&note.digest);
            }
            changes.push((
                ChunkKey {
                    kind: ChunkKind::Notes,
                    folder: number,
                    chunk,
                },
                Some(writer.finish()),
            ));
        }
        Ok(self.storage.write(changes, "replicate.notes").await?)
    }

    /// The uids of a folder that were in the listing behind the last root; empty where the folder was not.
    pub(crate) async fn root_uids(&self, path: &FolderPath, uid_validity: u32) -> Result<UidSet, LedgerError> {
        let Some(number) = self.number(path, uid_validity) else {
            return Ok(UidSet::new());
        };
        let key = ChunkKey {
            kind: ChunkKind::Notes,
            folder: number,
            chunk: ROOT_CHUNK,
        };
        let Some(octets) = self.storage.get(key).await? else {
            return Ok(UidSet::new());
        };
        let mut reader = Reader::new("uids behind the root", &octets)?;
        let mut uids = Vec::new();
        for _ in 0..reader.count(8)? {
            let (first, last) = (reader.u32()?, reader.u32()?);
            uids.push(first..=last);
        }
        reader.finish()?;
        Ok(UidSet::from_ascending(uids.into_iter().flatten()))
    }

    /// Stores the listing behind a root, in place of that behind an earlier one.
    pub(crate) async fn put_root(&mut self, listed: &[(FolderPath, u32, UidSet)]) -> Result<(), LedgerError> {
        let mut changes: BTreeMap<ChunkKey, Option<Vec<u8>>> = BTreeMap::new();
        for number in self.folders.keys() {
            changes.insert(
                ChunkKey {
                    kind: ChunkKind::Notes,
                    folder: *number,
                    chunk: ROOT_CHUNK,
                },
                None,
            );
        }
        self.root_made = true;
        let mut numbers = vec![];
        for (path, uid_validity, uids) in listed {
            let (number, _) = self.number_or_new(path, *uid_validity)?;
            numbers.push(number);
            let mut writer = Writer::new();
            writer.count(uids.ranges().len());
            for (first, last) in uids.ranges() {
                writer.u32(*first);
                writer.u32(*last);
            }
            let key = ChunkKey {
                kind: ChunkKind::Notes,
                folder: number,
                chunk: ROOT_CHUNK,
            };
            changes.insert(key, Some(writer.finish()));
        }
        // Chunk 0 carries "root made" even for a mailbox without folders.
        for number in numbers.into_iter().chain([0]) {
            let (key, octets) = self.folders_change(number);
            changes.insert(key, octets);
        }
        Ok(self
            .storage
            .write(changes.into_iter().collect(), "replicate.root_listing")
            .await?)
    }
}

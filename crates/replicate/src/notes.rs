//! The exporter's notes: the digest of every item served, and the uids behind the last root.
//!
//! # The stored form
//! Frozen; conventions of [`crate::ledger`]. Folders and notes are written in version 2 and read in version 1 as well.
//! - `(NoteFolders, 0, number / 64)`: next free number u32, root made bool (the highest of all chunks counts), list of:
//!   number u32, UIDVALIDITY u32, path; in version 2 also attributes u8 (1 listed, 2 doubtful), option of the MAILBOXID
//!   (text).
//! - `(Notes, folder, uid / 4096)`: list of notes ascending by uid: uid modulo 4096 u16, canonical length u64, digest 32
//!   octets; in version 2 also option of *seen*: received i64, option of the platform's hint at the length u64.
//! - `(Notes, folder, 2^20)`, version 1: the uids in the listing behind the last root: list of ranges `first u32, last u32`.
//!
//! # What it promises
//! A note is of the folder that it was served from: known by path and UIDVALIDITY, and followed when the path changes. By
//! MAILBOXID that is certain. By UIDVALIDITY it is not: such a folder is *doubtful*, and a note in it counts only for an item
//! that looks as the noted one did.

use crate::{
    codec::{Reader, Writer},
    compare::{KnownFolder, Rename, RenameReason, find_renames, implied_renames},
    ledger::{CHUNK_SHIFT, FOLDERS_SHIFT, LedgerError, MAX_FOLDERS, Synced},
    storage::{Change, ChunkKey, ChunkKind, ChunkStorage},
};
use rehome_mailbox::{Folder, FolderPath};
use rehome_wire::{digest::Digest, uid_set::UidSet};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// The chunk of a folder's notes that holds the uids behind the last root.
const ROOT_CHUNK: u32 = 1 << 20;
/// The version in which folders and notes are written.
const VERSION: u8 = 2;
const LISTED: u8 = 1;
const DOUBTFUL: u8 = 2;

/// What was served as one item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// Canonical length.
    pub length: u64,
    /// Canonical digest.
    pub digest: Digest,
    /// How it looked in listings then; none in notes of earlier versions.
    pub seen: Option<Seen>,
}

/// How an item that was served looked, as listings tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Received time, whole seconds since 1970.
    pub received: i64,
    /// The platform's hint at its length.
    pub length_hint: Option<u64>,
}

/// A folder with notes.
struct Noted {
    path: FolderPath,
    uid_validity: u32,
    mailbox_id: Option<String>,
    /// The platform's last list had it.
    listed: bool,
    /// It was followed by UIDVALIDITY alone.
    doubtful: bool,
}

/// The notes of one move.
pub(crate) struct Notes {
    storage: Arc<dyn ChunkStorage>,
    folders: BTreeMap<u32, Noted>,
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
            let (mut reader, version) = Reader::up_to(VERSION, "notes' folders", &octets)?;
            notes.next_number = notes.next_number.max(reader.u32()?);
            notes.root_made |= reader.bool()?;
            for _ in 0..reader.count(14)? {
                let (number, uid_validity, path) = (reader.u32()?, reader.u32()?, reader.path()?);
                let (attributes, mailbox_id) = match version {
                    1 => (LISTED, None),
                    _ => (reader.u8()?, reader.option(Reader::text)?),
                };
                notes.next_number = notes.next_number.max(number.saturating_add(1));
                notes.by_name.insert((path.clone(), uid_validity), number);
                let noted = Noted {
                    path,
                    uid_validity,
                    mailbox_id,
                    listed: attributes & LISTED != 0,
                    doubtful: attributes & DOUBTFUL != 0,
                };
                notes.folders.insert(number, noted);
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

    /// Whether a note of the folder counts only for an item that looks as the noted one did.
    pub(crate) fn is_doubtful(&self, number: u32) -> bool {
        self.folders.get(&number).is_some_and(|noted| noted.doubtful)
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
        let noted = Noted {
            path: path.clone(),
            uid_validity,
            mailbox_id: None,
            listed: false,
            doubtful: false,
        };
        self.folders.insert(number, noted);
        Ok((number, true))
    }

    /// Follows folders that have another name since the last list, and remembers which folders this one has.
    pub(crate) async fn follow(&mut self, listed: &[Folder]) -> Result<(), LedgerError> {
        if self.is_as_listed(listed) {
            return Ok(());
        }
        let mut changes: BTreeMap<ChunkKey, Option<Vec<u8>>> = BTreeMap::new();
        let mut changed: BTreeSet<u32> = BTreeSet::new();
        let renames = self.renames(listed);
        for (rename, _) in &renames {
            if let Some(noted) = self.folders.get(&rename.number) {
                self.by_name.remove(&(noted.path.clone(), noted.uid_validity));
            }
        }
        for (rename, path) in renames {
            let Some(noted) = self.folders.get_mut(&rename.number) else {
                continue;
            };
            tracing::info!(from = %noted.path, to = %path, reason = ?rename.reason, "the notes follow a renamed folder");
            let key = (path.clone(), noted.uid_validity);
            noted.path = path;
            if rename.reason != RenameReason::MailboxId {
                noted.doubtful = true;
                // What is late is never judged by such a folder.
                changes.insert(notes_key(rename.number, ROOT_CHUNK), None);
            }
            changed.insert(rename.number);
            if let Some(other) = self.by_name.insert(key, rename.number) {
                // A folder that had this name and validity before and is gone.
                self.folders.remove(&other);
                for chunk in self.storage.chunks(ChunkKind::Notes, other).await? {
                    changes.insert(notes_key(other, chunk), None);
                }
                changed.insert(other);
            }
        }
        changed.extend(self.note_listed(listed)?);
        for number in changed {
            let (key, octets) = self.folders_change(number);
            changes.insert(key, octets);
        }
        Ok(self
            .storage
            .write(changes.into_iter().collect(), "replicate.notes_follow")
            .await?)
    }

    /// Whether the list has the folders that the last one had.
    fn is_as_listed(&self, listed: &[Folder]) -> bool {
        let mut here = 0;
        for (folder, uid_validity) in with_validity(listed) {
            let noted = self.number(&folder.path, uid_validity);
            let noted = noted.and_then(|number| self.folders.get(&number));
            if !noted.is_some_and(|noted| noted.listed && noted.mailbox_id == folder.mailbox_id) {
                return false;
            }
            here += 1;
        }
        self.folders.values().filter(|noted| noted.listed).count() == here
    }

    /// Folders of the last list that this one has under another name, with that. Where the validity is another one as
    /// well, nothing is to be followed.
    fn renames(&self, listed: &[Folder]) -> Vec<(Rename, FolderPath)> {
        // Whatever UIDNEXT is: each item is looked at.
        let noted = Synced {
            uid_next: 0,
            exists: 0,
            highest_mod_seq: None,
            token: None,
        };
        let known = self.folders.iter().filter(|(_, folder)| folder.listed);
        let known: Vec<KnownFolder<'_>> = known
            .map(|(number, folder)| KnownFolder {
                number: *number,
                path: &folder.path,
                uid_validity: folder.uid_validity,
                created: true,
                synced: Some(&noted),
                mailbox_id: folder.mailbox_id.as_deref(),
            })
            .collect();
        let mut renames = find_renames(listed, &known);
        renames.extend(implied_renames(listed, &known, &renames));
        let followed = renames.into_iter().filter_map(|rename| {
            let (folder, held) = (&listed[rename.source], self.folders.get(&rename.number)?);
            let same = folder.status.is_some_and(|now| now.uid_validity == held.uid_validity);
            same.then(|| (rename, folder.path.clone()))
        });
        followed.collect()
    }

    /// Takes over which folders are listed; returns the numbers of those that changed.
    fn note_listed(&mut self, listed: &[Folder]) -> Result<Vec<u32>, LedgerError> {
        let mut ids: BTreeMap<u32, Option<String>> = BTreeMap::new();
        for (folder, uid_validity) in with_validity(listed) {
            let (number, _) = self.number_or_new(&folder.path, uid_validity)?;
            ids.insert(number, folder.mailbox_id.clone());
        }
        let mut changed = Vec::new();
        for (number, noted) in &mut self.folders {
            let now = ids.get(number);
            if noted.listed != now.is_some() || now.is_some_and(|id| noted.mailbox_id != *id) {
                changed.push(*number);
            }
            noted.listed = now.is_some();
            if let Some(id) = now {
                noted.mailbox_id.clone_from(id);
            }
        }
        Ok(changed)
    }

    fn folders_change(&self, number: u32) -> Change {
        let chunk = number >> FOLDERS_SHIFT;
        let range = (chunk << FOLDERS_SHIFT)..((chunk + 1) << FOLDERS_SHIFT);
        let mut writer = Writer::of(VERSION);
        writer.u32(self.next_number);
        writer.bool(self.root_made);
        writer.count(self.folders.range(range.clone()).count());
        for (number, noted) in self.folders.range(range) {
            writer.u32(*number);
            writer.u32(noted.uid_validity);
            writer.path(&noted.path);
            let attributes = [(noted.listed, LISTED), (noted.doubtful, DOUBTFUL)];
            writer.u8(attributes.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum());
            writer.option(noted.mailbox_id.as_ref(), |writer, id| writer.text(id));
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
        let key = notes_key(number, chunk);
        let Some(octets) = self.storage.get(key).await? else {
            return Ok(Vec::new());
        };
        let (mut reader, version) = Reader::up_to(VERSION, "notes", &octets)?;
        let count = reader.count(42)?;
        let mut notes = Vec::with_capacity(count);
        for _ in 0..count {
            let low = u32::from(reader.u16()?);
            let note = Note {
                length: reader.u64()?,
                digest: reader.digest()?,
                seen: if version == 1 { None } else { reader.option(read_seen)? },
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
            let mut writer = Writer::of(VERSION);
            writer.count(all.len());
            for (uid, note) in &all {
                writer.u16((uid & ((1 << CHUNK_SHIFT) - 1)) as u16);
                writer.u64(note.length);
                writer.digest(&note.digest);
                writer.option(note.seen.as_ref(), |writer, seen| {
                    writer.i64(seen.received);
                    writer.option(seen.length_hint, Writer::u64);
                });
            }
            changes.push((notes_key(number, chunk), Some(writer.finish())));
        }
        Ok(self.storage.write(changes, "replicate.notes").await?)
    }

    /// The uids of a folder that were in the listing behind the last root; empty where the folder was not.
    pub(crate) async fn root_uids(&self, path: &FolderPath, uid_validity: u32) -> Result<UidSet, LedgerError> {
        let Some(number) = self.number(path, uid_validity) else {
            return Ok(UidSet::new());
        };
        let key = notes_key(number, ROOT_CHUNK);
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
            changes.insert(notes_key(*number, ROOT_CHUNK), None);
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
            let key = notes_key(number, ROOT_CHUNK);
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

/// The folders that have a UIDVALIDITY, with that.
fn with_validity(listed: &[Folder]) -> impl Iterator<Item = (&Folder, u32)> {
    let selectable = listed.iter().filter(|folder| folder.selectable);
    selectable.filter_map(|folder| Some((folder, folder.status?.uid_validity)))
}

fn notes_key(number: u32, chunk: u32) -> ChunkKey {
    ChunkKey {
        kind: ChunkKind::Notes,
        folder: number,
        chunk,
    }
}

fn read_seen(reader: &mut Reader<'_>) -> Result<Seen, LedgerError> {
    Ok(Seen {
        received: reader.i64()?,
        length_hint: reader.option(Reader::u64)?,
    })
}

//! The source's root: from its own notes, and from a listing made now.

use super::{
    ExportError, Exporter, Inner, RootListing, SourceRoot,
    mirror::{Entry, Items, Mirror},
};
use crate::{
    compare::item_agrees,
    ledger::{CHUNK_SHIFT, LedgerError},
    notes::{Note, Seen},
    proof::{Exception, ExceptionKind, FolderRoot, RootBuilder},
    reading::{ReadOutcome, read_digests},
    receipt::{LeafWriter, PartSink, head_octets},
};
use futures_util::{StreamExt, stream};
use rehome_mailbox::{Folder, FolderPath, FolderRef};
use rehome_wire::{
    digest::{Digest, Digester},
    flags::Flags,
    proof::{Leaf, TopLeaf, hash_of_leaf_octets, top_leaf_octets, write_leaf},
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Items read at once where the root needs digests that were never served.
const READ_BATCH: usize = 1_000;

impl Exporter {
    /// [`Self::source_root_unstored`], and remembers the listing at once.
    ///
    /// # Errors
    /// As both.
    pub async fn source_root(&self, exceptions: &[Exception], approved: bool) -> Result<SourceRoot, ExportError> {
        let (root, listing) = self.source_root_unstored(exceptions, approved).await?;
        self.remember_root(listing).await?;
        Ok(root)
    }

    /// The source's root, from its notes and what the mailbox holds now: without the leaves that the target skipped. The
    /// platform is asked for what changed since it was listed last, where it numbers changes, and of folders whose
    /// numbers are the same nothing at all. Items that were never served (so that no note is there) are read and noted.
    /// The listing that it comes with is remembered by the caller, when the root becomes part of a promise.
    ///
    /// # Errors
    /// [`ExportError`]; of the exceptions [`ExportError::NotApproved`] and [`ExportError::ExceptionUnknown`].
    pub async fn source_root_unstored(
        &self,
        exceptions: &[Exception],
        approved: bool,
    ) -> Result<(SourceRoot, RootListing), ExportError> {
        self.source_root_with_leaves(exceptions, approved, None).await
    }

    /// [`Self::source_root_unstored`], which gives every leaf to `leaves` as well, in the form in which receipts keep them.
    ///
    /// # Errors
    /// As that, and [`ExportError::Notes`] where the leaves are not taken.
    pub async fn source_root_with_leaves(
        &self,
        exceptions: &[Exception],
        approved: bool,
        leaves: Option<&mut dyn PartSink>,
    ) -> Result<(SourceRoot, RootListing), ExportError> {
        if !exceptions.is_empty() && !approved {
            return Err(ExportError::NotApproved {
                count: exceptions.len(),
            });
        }
        let mut excepted = Excepted::new(exceptions)?;
        let mut root = RootBuilder::default();
        let mut listing_digest = Digester::new();
        let mut listed = Vec::new();
        let mut skipped = 0;
        let mut folders: Vec<Folder> = self.folders().await?.into_iter().filter(|f| f.selectable).collect();
        folders.sort_by_cached_key(|folder| head_octets(&folder.path.0, 0));
        let mut leaves = leaves.map(LeafWriter::new);
        let now: Vec<_> = folders.iter().map(|folder| self.inner.as_it_is_now(folder)).collect();
        let mut now = stream::iter(now).buffered(self.folders_at_once());
        for folder in &folders {
            let Some(mirror) = now.next().await else { break };
            let mirror = mirror?;
            let uid_validity = mirror.status.uid_validity;
            let left_out = excepted.take(&folder.path, &mirror.items)?;
            skipped += left_out.len() as u64;
            if let Some(leaves) = &mut leaves {
                leaves.folder(&folder.path.0, uid_validity);
            }
            let folder_root = self
                .inner
                .folder_root(&folder.path, &mirror, &left_out, (&mut listing_digest, leaves.as_mut()))
                .await?;
            if let Some(leaves) = &mut leaves {
                leaves.folder_end(&folder_root).await.map_err(LedgerError::from)?;
            }
            root.folder(&folder.path.0, uid_validity, &folder_root);
            listed.push((folder.path.clone(), uid_validity, mirror.items.uids()));
        }
        excepted.finish()?;
        if let Some(leaves) = leaves {
            leaves.finish().await.map_err(LedgerError::from)?;
        }
        let root = SourceRoot {
            folders: root.folders(),
            items: root.items,
            octets: root.octets,
            skipped,
            listing: listing_digest.finish(),
            root: root.root(),
        };
        Ok((root, RootListing(listed)))
    }

    /// Lists what was not listed since this exporter was made, so that a root that is asked for soon need not. A failure
    /// costs nothing but that time: the root lists for itself.
    pub async fn prepare_root(&self) {
        // However often it is asked for, one at a time lists.
        let Ok(_alone) = self.inner.kept.preparing.try_lock() else {
            return;
        };
        let folders = match self.folders().await {
            Ok(folders) => folders,
            Err(error) => return tracing::debug!(%error, "the root is not prepared"),
        };
        let missing = folders
            .iter()
            .filter(|folder| folder.selectable && self.inner.kept.mirrors.get(&folder.path).is_none());
        let listings: Vec<_> = missing.map(|folder| self.inner.as_it_is_now(folder)).collect();
        let mut listings = stream::iter(listings).buffered(self.folders_at_once());
        while let Some(listed) = listings.next().await {
            if let Err(error) = listed {
                return tracing::debug!(%error, "the root is not prepared");
            }
        }
    }
}

impl Inner {
    /// What a folder of the list holds now.
    async fn as_it_is_now(&self, folder: &Folder) -> Result<Mirror, ExportError> {
        let path = &folder.path;
        let held = self.kept.mirrors.get(path);
        if let (Some(held), Some(status)) = (&held, &folder.status)
            && held.is_as_of(status)
        {
            return Ok(held.clone());
        }
        if let Some(held) = held.filter(|_| self.mailbox.capabilities().changes) {
            let changes = self.list(path, held.token.as_ref()).await?;
            if let Some(mirror) = held.after(&changes) {
                self.kept.mirrors.put(path, Some(mirror.clone()));
                return Ok(mirror);
            }
        }
        let mirror = Mirror::whole(&self.list(path, None).await?);
        self.kept.mirrors.put(path, mirror.clone());
        mirror.ok_or_else(|| ExportError::NotWhole { folder: path.clone() })
    }

    async fn folder_root(
        &self,
        path: &FolderPath,
        mirror: &Mirror,
        left_out: &BTreeSet<u32>,
        (listing_digest, mut leaves): (&mut Digester, Option<&mut LeafWriter<'_>>),
    ) -> Result<FolderRoot, ExportError> {
        let (items, uid_validity) = (&mirror.items, mirror.status.uid_validity);
        let (no_flags, nothing) = (Flags::default(), Digest::of(b""));
        let mut root = FolderRoot::default();
        listing_digest.update(&top_leaf_octets(&TopLeaf {
            path: &path.0,
            uid_validity,
            count: items.entries().len() as u64,
            root: nothing,
        }));
        let mut octets = Vec::with_capacity(256);
        for entries in items
            .entries()
            .chunk_by(|one, two| one.uid >> CHUNK_SHIFT == two.uid >> CHUNK_SHIFT)
        {
            let notes = self.notes_for(path, uid_validity, entries, left_out).await?;
            let mut notes = notes.iter().peekable();
            for entry in entries {
                let mut leaf = Leaf {
                    uid: entry.uid,
                    length: 0,
                    digest: nothing,
                    // Those of the item are written as octets, below.
                    flags: &no_flags,
                    received: entry.received,
                };
                octets.clear();
                write_leaf(&leaf, items.flags(entry), &mut octets);
                listing_digest.update(&octets);
                while notes.next_if(|(uid, _)| *uid < entry.uid).is_some() {}
                let note = notes.next_if(|(uid, _)| *uid == entry.uid);
                if let Some((_, note)) = note.filter(|_| !left_out.contains(&entry.uid)) {
                    (leaf.length, leaf.digest) = (note.length, note.digest);
                    octets.clear();
                    write_leaf(&leaf, items.flags(entry), &mut octets);
                    root.leaf_hash(note.length, hash_of_leaf_octets(&octets));
                    if let Some(leaves) = &mut leaves {
                        leaves.leaf(&octets).await.map_err(LedgerError::from)?;
                    }
                }
            }
        }
        Ok(root)
    }

    /// The notes of the chunk of uids that `entries` are in, after reading what of them has none and is not left out.
    async fn notes_for(
        &self,
        path: &FolderPath,
        uid_validity: u32,
        entries: &[Entry],
        left_out: &BTreeSet<u32>,
    ) -> Result<Vec<(u32, Note)>, ExportError> {
        let chunk = entries[0].uid >> CHUNK_SHIFT;
        let (mut notes, doubtful) = self
            .with_notes(async |notes| match notes.number(path, uid_validity) {
                Some(number) => Ok((notes.chunk(number, chunk).await?, notes.is_doubtful(number))),
                None => Ok((Vec::new(), false)),
            })
            .await?;
        if doubtful {
            notes.retain(|(uid, note)| {
                let entry = entries.binary_search_by_key(uid, |entry| entry.uid);
                entry.is_ok_and(|at| is_still(note, &entries[at]))
            });
        }
        let noted = |uid: u32| notes.binary_search_by_key(&uid, |(uid, _)| *uid).is_ok();
        let uids = entries.iter().map(|entry| entry.uid);
        let missing: Vec<u32> = uids.filter(|uid| !left_out.contains(uid) && !noted(*uid)).collect();
        if missing.is_empty() {
            return Ok(notes);
        }
        tracing::info!(folder = %path, items = missing.len(), "reading items without a note for the root");
        let mut read = BTreeMap::new();
        for uids in missing.chunks(READ_BATCH) {
            self.digest_items(FolderRef::new(path, uid_validity), uids, &mut read)
                .await?;
        }
        for (uid, note) in &mut read {
            let entry = entries.binary_search_by_key(uid, |entry| entry.uid);
            note.seen = entry.ok().map(|at| Seen {
                received: entries[at].received,
                length_hint: entries[at].length_hint(),
            });
        }
        self.with_notes(async |held| held.put(path, uid_validity, &read).await)
            .await?;
        notes.extend(read);
        notes.sort_unstable_by_key(|(uid, _)| *uid);
        Ok(notes)
    }

    async fn digest_items(
        &self,
        folder: FolderRef<'_>,
        uids: &[u32],
        notes: &mut BTreeMap<u32, Note>,
    ) -> Result<(), ExportError> {
        let read = read_digests(&*self.mailbox, folder, uids)
            .await
            .map_err(ExportError::Mailbox)?;
        for (uid, outcome) in read {
            match outcome {
                ReadOutcome::Octets { length, digest } => {
                    let seen = None;
                    notes.insert(uid, Note { length, digest, seen });
                }
                ReadOutcome::Gone | ReadOutcome::Failed(_) => {
                    return Err(ExportError::Unreadable {
                        folder: folder.path.clone(),
                        uid,
                    });
                }
            }
        }
        Ok(())
    }
}

/// Whether the listed item looks like the one that was noted. A note that does not say how that looked proves nothing.
fn is_still(note: &Note, entry: &Entry) -> bool {
    note.seen.is_some_and(|Seen { received, length_hint }| {
        item_agrees((length_hint, received), (entry.length_hint(), entry.received))
    })
}

/// The exceptions by folder, taken folder by folder.
struct Excepted<'a>(HashMap<&'a [String], BTreeSet<(u32, ExceptionKind)>>);

impl<'a> Excepted<'a> {
    fn new(exceptions: &'a [Exception]) -> Result<Self, ExportError> {
        let mut folders: HashMap<&[String], BTreeSet<(u32, ExceptionKind)>> = HashMap::new();
        for exception in exceptions {
            if !folders
                .entry(&exception.folder)
                .or_default()
                .insert((exception.uid, exception.kind))
            {
                return Err(unknown(&exception.folder, exception.uid));
            }
        }
        Ok(Self(folders))
    }

    /// The skipped uids of a folder, all of whose exceptions must be listed.
    fn take(&mut self, path: &FolderPath, items: &Items) -> Result<BTreeSet<u32>, ExportError> {
        let excepted = self.0.remove(path.0.as_slice()).unwrap_or_default();
        for (uid, _) in &excepted {
            if !items.contains(*uid) {
                return Err(unknown(&path.0, *uid));
            }
        }
        Ok(excepted
            .into_iter()
            .filter(|(_, kind)| *kind == ExceptionKind::Skipped)
            .map(|(uid, _)| uid)
            .collect())
    }

    fn finish(self) -> Result<(), ExportError> {
        let first = self
            .0
            .iter()
            .find_map(|(path, excepted)| Some((path, excepted.first()?.0)));
        first.map_or(Ok(()), |(path, uid)| Err(unknown(path, uid)))
    }
}

fn unknown(path: &[String], uid: u32) -> ExportError {
    ExportError::ExceptionUnknown {
        folder: FolderPath(path.to_vec()),
        uid,
    }
}

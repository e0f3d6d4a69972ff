//! The exporter: serves a mailbox as frames, notes what it served, and makes the source's root from its own notes.

mod serve;

use crate::{
    ledger::{CHUNK_SHIFT, LedgerError},
    link::{LinkError, OctetStream, SweepFolder},
    notes::{Note, Notes},
    proof::{Exception, ExceptionKind, FolderRoot, RootBuilder},
    reading::{ReadOutcome, read_digests},
    storage::{ChunkStorage, StorageError},
};
use bytes::Bytes;
use futures_util::StreamExt;
use rehome_mailbox::{ErrorScope, Folder, FolderPath, ItemMeta, ListingScope, Mailbox, MailboxError, Retry};
use rehome_wire::{
    digest::{Digest, Digester},
    frames,
    proof::Leaf,
    uid_set::UidSet,
};
use serve::{ServeError, send_listing};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};
use tokio::sync::{Mutex, mpsc};

/// Pieces that wait for a slow reader.
const PIECES_AHEAD: usize = 4;
/// Items read at once where the root needs digests that were never served.
const READ_BATCH: usize = 1_000;

/// Why the source cannot serve, or make its root.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ExportError {
    /// The mailbox failed.
    #[error(transparent)]
    Mailbox(MailboxError),
    /// The notes cannot be read or written.
    #[error("the notes of the move: {0}")]
    Notes(#[source] LedgerError),
    /// More uids than a request may name, or none.
    #[error(
        "the request names {count} items, 1 to {} are allowed",
        frames::MAX_BODY_REQUEST_ITEMS
    )]
    Items {
        /// How many were named.
        count: usize,
    },
    /// A listing did not show as many items as the folder counts.
    #[error("the listing of folder {folder} is not whole")]
    NotWhole {
        /// The folder.
        folder: FolderPath,
    },
    /// The folder has another UIDVALIDITY now.
    #[error("folder {folder} has UIDVALIDITY {found}, not {asked}")]
    ValidityChanged {
        /// The folder.
        folder: FolderPath,
        /// The one asked for.
        asked: u32,
        /// The one it has.
        found: u32,
    },
    /// There are exceptions and they were not approved at the target.
    #[error("{count} items differ on the target and were not approved there")]
    NotApproved {
        /// How many.
        count: usize,
    },
    /// An exception names an item that the source does not hold, or names one twice.
    #[error("an exception names item {uid} of folder {folder}, which is not there or was named already")]
    ExceptionUnknown {
        /// The folder.
        folder: FolderPath,
        /// The uid.
        uid: u32,
    },
    /// An item of the listing can neither be found in the notes nor be read.
    #[error("item {uid} of folder {folder} was never served and cannot be read")]
    Unreadable {
        /// The folder.
        folder: FolderPath,
        /// The uid.
        uid: u32,
    },
    /// A sweep was asked for before a root was made.
    #[error("no root was made yet, so nothing can be late")]
    NoRoot,
    /// A sweep asked for an item that was in the listing behind the root.
    #[error("item {uid} of folder {folder} is no late one")]
    NotLate {
        /// The folder.
        folder: FolderPath,
        /// The uid.
        uid: u32,
    },
}

impl ExportError {
    /// What travels: id, words, scope and retry.
    #[must_use]
    pub fn link_error(&self) -> LinkError {
        let (id, scope, retry) = match self {
            Self::Mailbox(error) if error.scope == ErrorScope::Folder && error.retry == Retry::Never => {
                ("ManagementObjectNotFoundException", error.scope, error.retry)
            }
            Self::Mailbox(error) => ("MailboxPlatformException", error.scope, error.retry),
            Self::Notes(LedgerError::Storage(StorageError::Stale)) => {
                ("CommunicationErrorTransientException", ErrorScope::Mailbox, Retry::Now)
            }
            Self::Notes(_) => ("UnexpectedException", ErrorScope::Mailbox, Retry::After(60)),
            Self::Items { .. } | Self::NotLate { .. } => {
                ("InvalidOperationException", ErrorScope::Folder, Retry::Never)
            }
            Self::NotWhole { .. } => (
                "CommunicationErrorTransientException",
                ErrorScope::Folder,
                Retry::After(5),
            ),
            Self::ValidityChanged { .. } => ("CommunicationErrorTransientException", ErrorScope::Folder, Retry::Now),
            Self::NotApproved { .. } => ("SkippedItemsNotApprovedException", ErrorScope::Mailbox, Retry::Never),
            Self::ExceptionUnknown { .. } => ("RootMismatchException", ErrorScope::Mailbox, Retry::After(60)),
            Self::Unreadable { .. } => ("MailboxPlatformException", ErrorScope::Mailbox, Retry::After(60)),
            Self::NoRoot => ("InvalidOperationException", ErrorScope::Mailbox, Retry::Never),
        };
        LinkError {
            id: id.to_owned(),
            message: self.to_string(),
            scope,
            retry,
        }
    }
}

impl From<LedgerError> for ExportError {
    fn from(error: LedgerError) -> Self {
        Self::Notes(error)
    }
}

/// The source's side of the proof, made under the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRoot {
    /// The root over all leaves but the skipped ones.
    pub root: Digest,
    /// Folders.
    pub folders: u64,
    /// Leaves.
    pub items: u64,
    /// Canonical octets of the leaves.
    pub octets: u64,
    /// Items left out because the target skipped them.
    pub skipped: u64,
    /// Digest of the listing: changes when any folder, uid, flag or received time does.
    pub listing: Digest,
}

/// The listing behind a root, to be remembered with the promise that the root is part of.
#[derive(Clone, Debug)]
pub struct RootListing(Vec<(FolderPath, u32, UidSet)>);

/// Serves one mailbox to one move. Clones share the notes; of one move there is one exporter (and its clones) at a time.
#[derive(Clone)]
pub struct Exporter {
    inner: Arc<Inner>,
}

struct Inner {
    mailbox: Arc<dyn Mailbox>,
    storage: Arc<dyn ChunkStorage>,
    /// Read when first needed.
    notes: Mutex<Option<Notes>>,
}

type Sender = mpsc::Sender<Result<Bytes, LinkError>>;

impl Exporter {
    /// An exporter of `mailbox` that keeps its notes in `notes`.
    pub fn new(mailbox: Arc<dyn Mailbox>, notes: Arc<dyn ChunkStorage>) -> Self {
        Self {
            inner: Arc::new(Inner {
                mailbox,
                storage: notes,
                notes: Mutex::new(None),
            }),
        }
    }

    /// All folders with their numbers.
    ///
    /// # Errors
    /// [`ExportError::Mailbox`].
    pub async fn folders(&self) -> Result<Vec<Folder>, ExportError> {
        self.inner.mailbox.folders().await.map_err(ExportError::Mailbox)
    }

    /// Listing frames of a folder; since `token` where the platform numbers changes.
    ///
    /// # Errors
    /// [`ExportError::Mailbox`].
    pub async fn listing(&self, folder: &FolderPath, token: Option<&[u8]>) -> Result<OctetStream, ExportError> {
        let mailbox = &self.inner.mailbox;
        let token = token
            .filter(|_| mailbox.capabilities().changes)
            .map(|token| rehome_mailbox::ChangeToken(token.to_vec()));
        let listing = mailbox
            .list(folder, token.as_ref())
            .await
            .map_err(ExportError::Mailbox)?;
        let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
        tokio::spawn(async move {
            // A reader that went away ends the task.
            let _ = send_listing(listing, &sender).await;
        });
        Ok(stream(receiver))
    }

    /// Body frames of 1 to 1,000 uids. The notes of what was served are durable before the end frame leaves.
    ///
    /// # Errors
    /// [`ExportError::Items`], [`ExportError::ValidityChanged`], [`ExportError::Mailbox`]; no octet is sent then.
    pub async fn items(
        &self,
        folder: &FolderPath,
        uid_validity: u32,
        uids: &UidSet,
    ) -> Result<OctetStream, ExportError> {
        if !(1..=frames::MAX_BODY_REQUEST_ITEMS).contains(&uids.len()) {
            return Err(ExportError::Items { count: uids.len() });
        }
        self.inner.check_validity(folder, uid_validity).await?;
        let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
        let (inner, folder, uids) = (Arc::clone(&self.inner), folder.clone(), uids.clone());
        tokio::spawn(async move {
            let error = match inner.serve(&folder, uid_validity, &uids, &sender).await {
                Ok(()) | Err(ServeError::ReaderGone) => return,
                Err(ServeError::Export(error)) => error,
            };
            tracing::warn!(%folder, %error, "a body stream broke off");
            // A reader that went away needs no error.
            let _ = sender.send(Err(error.link_error())).await;
        });
        Ok(stream(receiver))
    }

    /// [`Self::source_root_unstored`], and remembers the listing at once.
    ///
    /// # Errors
    /// As both.
    pub async fn source_root(&self, exceptions: &[Exception], approved: bool) -> Result<SourceRoot, ExportError> {
        let (root, listing) = self.source_root_unstored(exceptions, approved).await?;
        self.remember_root(listing).await?;
        Ok(root)
    }

    /// The source's root, from its notes and a listing made now: without the leaves that the target skipped. Items that
    /// were never served (so that no note is there) are read and noted. The listing that it comes with is remembered by
    /// the caller, when the root becomes part of a promise.
    ///
    /// # Errors
    /// [`ExportError`]; of the exceptions [`ExportError::NotApproved`] and [`ExportError::ExceptionUnknown`].
    pub async fn source_root_unstored(
        &self,
        exceptions: &[Exception],
        approved: bool,
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
        for folder in self.folders().await?.into_iter().filter(|folder| folder.selectable) {
            let listing = self.whole_listing(&folder.path).await?;
            let uid_validity = listing.status.uid_validity;
            let left_out = excepted.take(&folder.path, &listing.items)?;
            skipped += left_out.len() as u64;
            let folder_root = self
                .folder_root(
                    &folder.path,
                    uid_validity,
                    &listing.items,
                    &left_out,
                    &mut listing_digest,
                )
                .await?;
            root.folder(&folder.path.0, uid_validity, &folder_root);
            let uids = UidSet::from_ascending(listing.items.iter().map(|item| item.uid));
            listed.push((folder.path, uid_validity, uids));
        }
        excepted.finish()?;
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

    /// Remembers the listing behind a root, durably and in place of an earlier one: what is not in it is late for
    /// [`Self::additions_since_root`] and [`Self::sweep_items`].
    ///
    /// # Errors
    /// [`ExportError::Notes`]; then the earlier one stays.
    pub async fn remember_root(&self, listing: RootListing) -> Result<(), ExportError> {
        self.inner
            .with_notes(async |notes| notes.put_root(&listing.0).await)
            .await
    }

    /// What the mailbox holds now that was not in the listing remembered last.
    ///
    /// # Errors
    /// [`ExportError::NoRoot`], [`ExportError`] of listing.
    pub async fn additions_since_root(&self) -> Result<Vec<SweepFolder>, ExportError> {
        if !self.inner.with_notes(async |notes| Ok(notes.root_made())).await? {
            return Err(ExportError::NoRoot);
        }
        let mut additions = Vec::new();
        for mut folder in self.folders().await?.into_iter().filter(|folder| folder.selectable) {
            let listing = self.whole_listing(&folder.path).await?;
            let known = self.root_uids(&folder.path, listing.status.uid_validity).await?;
            let uids = UidSet::from_ascending(
                listing
                    .items
                    .iter()
                    .map(|item| item.uid)
                    .filter(|uid| !known.contains(*uid)),
            );
            if !uids.is_empty() {
                folder.status = Some(listing.status);
                additions.push(SweepFolder { folder, uids });
            }
        }
        Ok(additions)
    }

    /// Body frames of a sweep: like [`Self::items`], for items that were not in the listing remembered last.
    ///
    /// # Errors
    /// [`ExportError::NoRoot`], [`ExportError::NotLate`], those of [`Self::items`].
    pub async fn sweep_items(
        &self,
        folder: &FolderPath,
        uid_validity: u32,
        uids: &UidSet,
    ) -> Result<OctetStream, ExportError> {
        if !self.inner.with_notes(async |notes| Ok(notes.root_made())).await? {
            return Err(ExportError::NoRoot);
        }
        if uids.len() > frames::MAX_BODY_REQUEST_ITEMS {
            return Err(ExportError::Items { count: uids.len() });
        }
        // Under another validity than the folder's nothing is known, and everything would look late.
        self.inner.check_validity(folder, uid_validity).await?;
        let known = self.root_uids(folder, uid_validity).await?;
        if let Some(uid) = uids.iter().find(|uid| known.contains(*uid)) {
            return Err(ExportError::NotLate {
                folder: folder.clone(),
                uid,
            });
        }
        self.items(folder, uid_validity, uids).await
    }

    async fn root_uids(&self, path: &FolderPath, uid_validity: u32) -> Result<UidSet, ExportError> {
        self.inner
            .with_notes(async |notes| notes.root_uids(path, uid_validity).await)
            .await
    }

    async fn whole_listing(&self, folder: &FolderPath) -> Result<rehome_mailbox::Listing, ExportError> {
        let listing = self
            .inner
            .mailbox
            .list(folder, None)
            .await
            .map_err(ExportError::Mailbox)?;
        let whole =
            listing.scope == ListingScope::Whole && listing.items.len() as u64 == u64::from(listing.status.exists);
        if whole {
            Ok(listing)
        } else {
            Err(ExportError::NotWhole { folder: folder.clone() })
        }
    }

    async fn folder_root(
        &self,
        path: &FolderPath,
        uid_validity: u32,
        items: &[ItemMeta],
        left_out: &BTreeSet<u32>,
        listing_digest: &mut Digester,
    ) -> Result<FolderRoot, ExportError> {
        let mut root = FolderRoot::default();
        let top = rehome_wire::proof::top_leaf_octets(&rehome_wire::proof::TopLeaf {
            path: &path.0,
            uid_validity,
            count: items.len() as u64,
            root: Digest::of(b""),
        });
        listing_digest.update(&top);
        for chunk_items in items.chunk_by(|one, two| one.uid >> CHUNK_SHIFT == two.uid >> CHUNK_SHIFT) {
            let chunk = chunk_items[0].uid >> CHUNK_SHIFT;
            let needed: Vec<u32> = chunk_items
                .iter()
                .map(|item| item.uid)
                .filter(|uid| !left_out.contains(uid))
                .collect();
            let notes = self.inner.notes_for(path, uid_validity, chunk, &needed).await?;
            for item in chunk_items {
                let ItemMeta {
                    uid, flags, received, ..
                } = item;
                let nothing = Leaf {
                    uid: *uid,
                    length: 0,
                    digest: Digest::of(b""),
                    flags,
                    received: *received,
                };
                listing_digest.update(&rehome_wire::proof::leaf_octets(&nothing));
                if let Some(note) = notes.get(uid).filter(|_| !left_out.contains(uid)) {
                    root.leaf(&Leaf {
                        length: note.length,
                        digest: note.digest,
                        ..nothing
                    });
                }
            }
        }
        Ok(root)
    }
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
    fn take(&mut self, path: &FolderPath, items: &[ItemMeta]) -> Result<BTreeSet<u32>, ExportError> {
        let excepted = self.0.remove(path.0.as_slice()).unwrap_or_default();
        for (uid, _) in &excepted {
            if items.binary_search_by_key(uid, |item| item.uid).is_err() {
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

fn stream(receiver: mpsc::Receiver<Result<Bytes, LinkError>>) -> OctetStream {
    futures_util::stream::unfold(receiver, |mut receiver| async move {
        Some((receiver.recv().await?, receiver))
    })
    .boxed()
}

impl Inner {
    /// Works on the notes, which are read when first needed and again after a failure.
    async fn with_notes<T>(
        &self,
        work: impl AsyncFnOnce(&mut Notes) -> Result<T, LedgerError>,
    ) -> Result<T, ExportError> {
        let mut held = self.notes.lock().await;
        let mut notes = match held.take() {
            Some(notes) => notes,
            None => Notes::load(Arc::clone(&self.storage)).await?,
        };
        let result = work(&mut notes).await?;
        *held = Some(notes);
        Ok(result)
    }

    /// Refuses uids of another validity than the folder has now.
    async fn check_validity(&self, folder: &FolderPath, asked: u32) -> Result<(), ExportError> {
        let found = self.mailbox.uid_validity(folder).await.map_err(ExportError::Mailbox)?;
        if found == asked {
            return Ok(());
        }
        Err(ExportError::ValidityChanged {
            folder: folder.clone(),
            asked,
            found,
        })
    }

    /// The notes of one chunk, after reading what of `needed` has none.
    async fn notes_for(
        &self,
        path: &FolderPath,
        uid_validity: u32,
        chunk: u32,
        needed: &[u32],
    ) -> Result<BTreeMap<u32, Note>, ExportError> {
        let mut notes = self
            .with_notes(async |notes| match notes.number(path, uid_validity) {
                Some(number) => notes.chunk(number, chunk).await,
                None => Ok(BTreeMap::new()),
            })
            .await?;
        let missing: Vec<u32> = needed.iter().copied().filter(|uid| !notes.contains_key(uid)).collect();
        if missing.is_empty() {
            return Ok(notes);
        }
        tracing::info!(folder = %path, items = missing.len(), "reading items without a note for the root");
        let mut read = BTreeMap::new();
        for uids in missing.chunks(READ_BATCH) {
            self.digest_items(path, uids, &mut read).await?;
        }
        self.with_notes(async |held| held.put(path, uid_validity, &read).await)
            .await?;
        notes.extend(read);
        Ok(notes)
    }

    async fn digest_items(
        &self,
        path: &FolderPath,
        uids: &[u32],
        notes: &mut BTreeMap<u32, Note>,
    ) -> Result<(), ExportError> {
        let read = read_digests(&*self.mailbox, path, uids)
            .await
            .map_err(ExportError::Mailbox)?;
        for (uid, outcome) in read {
            match outcome {
                ReadOutcome::Octets { length, digest } => {
                    notes.insert(uid, Note { length, digest });
                }
                ReadOutcome::Gone | ReadOutcome::Failed(_) => {
                    return Err(ExportError::Unreadable {
                        folder: path.clone(),
                        uid,
                    });
                }
            }
        }
        Ok(())
    }
}

//! The exporter: serves a mailbox as frames, notes what it served, and makes the source's root from its own notes.

mod error;
mod mirror;
mod root;
mod serve;
#[cfg(test)]
mod tests;

use crate::{
    ledger::LedgerError,
    link::{LinkError, OctetStream, SweepFolder},
    notes::Notes,
    storage::ChunkStorage,
};
use bytes::Bytes;
use futures_util::StreamExt;
use mirror::Mirrors;
use rehome_mailbox::{ChangeToken, Folder, FolderPath, Listing, ListingScope, Mailbox, Removed};
use rehome_wire::{digest::Digest, frames, uid_set::UidSet};
use serve::send_listing;
use std::sync::Arc;
use tokio::sync::{Mutex, mpsc, oneshot};

pub use error::ExportError;

/// Pieces that wait for a slow reader.
const PIECES_AHEAD: usize = 4;

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
    kept: Arc<Kept>,
}

/// What outlives one opening of the mailbox.
struct Kept {
    storage: Arc<dyn ChunkStorage>,
    /// Read when first needed.
    notes: Mutex<Option<Notes>>,
    mirrors: Mirrors,
    /// Held while a root is being prepared.
    preparing: Mutex<()>,
}

type Sender = mpsc::Sender<Result<Bytes, LinkError>>;

impl Exporter {
    /// An exporter of `mailbox` that keeps its notes in `notes`.
    pub fn new(mailbox: Arc<dyn Mailbox>, notes: Arc<dyn ChunkStorage>) -> Self {
        let kept = Arc::new(Kept {
            storage: notes,
            notes: Mutex::new(None),
            mirrors: Mirrors::default(),
            preparing: Mutex::new(()),
        });
        Self {
            inner: Arc::new(Inner { mailbox, kept }),
        }
    }

    /// The exporter of the same mailbox and move after the mailbox was opened anew.
    #[must_use]
    pub fn reopened(&self, mailbox: Arc<dyn Mailbox>) -> Self {
        let kept = Arc::clone(&self.inner.kept);
        Self {
            inner: Arc::new(Inner { mailbox, kept }),
        }
    }

    /// All folders with their numbers. The notes follow those that have another name since the last time.
    ///
    /// # Errors
    /// [`ExportError::Mailbox`].
    pub async fn folders(&self) -> Result<Vec<Folder>, ExportError> {
        let folders = self.inner.mailbox.folders().await.map_err(ExportError::Mailbox)?;
        // Notes that do not follow cost reading again, and nothing else.
        if let Err(error) = self.inner.with_notes(async |notes| notes.follow(&folders).await).await {
            tracing::warn!(%error, "the notes do not follow the folders' names");
        }
        Ok(folders)
    }

    /// How many requests for items are worth having open at once: as many as the platform works on.
    #[must_use]
    pub fn folders_at_once(&self) -> usize {
        self.inner.mailbox.capabilities().folders_at_once.max(1)
    }

    /// Octets of memory that this exporter keeps between requests, about.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.inner.kept.mirrors.octets()
    }

    /// Listing frames of a folder; since `token` where the platform numbers changes. With `fresh` the platform is asked
    /// on a new connection.
    ///
    /// # Errors
    /// [`ExportError::Mailbox`].
    pub async fn listing(
        &self,
        folder: &FolderPath,
        token: Option<&[u8]>,
        fresh: bool,
    ) -> Result<OctetStream, ExportError> {
        let inner = &self.inner;
        if fresh {
            inner.mailbox.renew().await;
        }
        let token = token
            .filter(|_| inner.mailbox.capabilities().changes)
            .map(|token| ChangeToken(token.to_vec()));
        let mut listing = inner.list(folder, token.as_ref()).await?;
        if too_scattered(&listing.scope) {
            listing = inner.list(folder, None).await?;
        }
        inner.kept.mirrors.note(folder, token.as_ref(), &listing);
        let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
        tokio::spawn(async move {
            // A reader that went away ends the task.
            let _ = send_listing(listing, &sender).await;
        });
        Ok(stream(receiver))
    }

    /// Body frames of 1 to 1,000 uids. It is returned when the platform has begun to answer, so whoever asks for the next
    /// stream after this one was returned never has it wait for what this one holds. The notes of what was served are
    /// durable before the end frame leaves. Dropping the stream lets go of the platform's connection at once.
    ///
    /// # Errors
    /// [`ExportError::Items`], [`ExportError::Mailbox`]; no octet is sent then.
    pub async fn items(
        &self,
        folder: &FolderPath,
        uid_validity: u32,
        uids: &UidSet,
    ) -> Result<OctetStream, ExportError> {
        if !(1..=frames::MAX_BODY_REQUEST_ITEMS).contains(&uids.len()) {
            return Err(ExportError::Items { count: uids.len() });
        }
        let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
        let (begun, beginning) = oneshot::channel();
        let (inner, folder, uids) = (Arc::clone(&self.inner), folder.clone(), uids.clone());
        tokio::spawn(async move { inner.serve(&folder, uid_validity, &uids, &sender, begun).await });
        match beginning.await {
            Ok(Ok(())) => Ok(stream(receiver)),
            Ok(Err(error)) => Err(error),
            // Only where the task was aborted, with the runtime.
            Err(_) => Err(ExportError::Stopped),
        }
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
        // Under another validity than the folder's everything looks late; the platform then refuses to read.
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

    async fn whole_listing(&self, folder: &FolderPath) -> Result<Listing, ExportError> {
        let listing = self.inner.list(folder, None).await?;
        let whole =
            listing.scope == ListingScope::Whole && listing.items.len() as u64 == u64::from(listing.status.exists);
        if whole {
            Ok(listing)
        } else {
            Err(ExportError::NotWhole { folder: folder.clone() })
        }
    }
}

/// Whether changes have more ranges than a listing may.
fn too_scattered(scope: &ListingScope) -> bool {
    match scope {
        ListingScope::Whole => false,
        ListingScope::Changes {
            removed: Removed::Vanished(uids) | Removed::Present(uids),
        } => uids.ranges().len() > frames::MAX_LISTING_RANGES,
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
        let mut held = self.kept.notes.lock().await;
        let mut notes = match held.take() {
            Some(notes) => notes,
            None => Notes::load(Arc::clone(&self.kept.storage)).await?,
        };
        let result = work(&mut notes).await?;
        *held = Some(notes);
        Ok(result)
    }

    async fn list(&self, folder: &FolderPath, since: Option<&ChangeToken>) -> Result<Listing, ExportError> {
        self.mailbox.list(folder, since).await.map_err(ExportError::Mailbox)
    }
}

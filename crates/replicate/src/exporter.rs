//! The exporter: serves a mailbox as frames, notes what it served, and makes the source's root from its own notes.

use crate::{
    ledger::{CHUNK_SHIFT, LedgerError},
    link::{LinkError, OctetStream, SweepFolder},
    notes::{Note, Notes},
    proof::{Exception, ExceptionKind, FolderRoot, RootBuilder},
    storage::{ChunkStorage, StorageError},
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use rehome_mailbox::{ErrorScope, Folder, FolderPath, ItemMeta, ListingScope, Mailbox, MailboxError, ReadEvent, Retry};
use rehome_wire::{
    canonical::{CanonicalReport, Canonicalizer},
    digest::{Digest, Digester},
    frames::{self, FailureClass, Frame, ItemFailure, ItemHeader, ItemTrailer, ListedItem, ListingHead, ListingKind},
    proof::Leaf,
    uid_set::UidSet,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};
use tokio::sync::{Mutex, mpsc};

/// Frames are sent on when this many octets are together.
const PIECE: usize = 64 * 1024;
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
    #[error("the request names {count} items, 1 to {} are allowed", frames::MAX_BODY_REQUEST_ITEMS)]
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
            Self::NotWhole { .. } => ("CommunicationErrorTransientException", ErrorScope::Folder, Retry::After(5)),
            Self::ValidityChanged { .. } => ("CommunicationErrorTransientException", ErrorScope::Folder, Retry::Now),
            Self::NotApproved { .. } => ("SkippedItemsNotApprovedException", ErrorScope::Mailbox, Retry::Never),
            Self::ExceptionUnknown { .. } => ("RootMismatchException", ErrorScope::Mailbox, Retry::After(60)),
            Self::Unreadable { .. } => ("MailboxPlatformException", ErrorScope::Mailbox, Retry::After(60)),
            Self::NoRoot => ("InvalidOperationException", ErrorScope::Mailbox, Retry::Never),
        };
        LinkError { id: id.to_owned(), message: self.to_string(), scope, retry }
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
        Self { inner: Arc::new(Inner { mailbox, storage: notes, notes: Mutex::new(None) }) }
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
        let listing = mailbox.list(folder, token.as_ref()).await.map_err(ExportError::Mailbox)?;
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
    /// [`ExportError::Items`], [`ExportError::Mailbox`].
    pub async fn items(&self, folder: &FolderPath, uid_validity: u32, uids: &UidSet) -> Result<OctetStream, ExportError> {
        if !(1..=frames::MAX_BODY_REQUEST_ITEMS).contains(&uids.len()) {
            return Err(ExportError::Items { count: uids.len() });
        }
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

    /// The source's root, from its notes and a listing made now: without the leaves that the target skipped. Items that
    /// were never served (so that no note is there) are read and noted. Remembers the listing for
    /// [`Self::additions_since_root`].
    ///
    /// # Errors
    /// [`ExportError`]; of the exceptions [`ExportError::NotApproved`] and [`ExportError::ExceptionUnknown`].
    pub async fn source_root(&self, exceptions: &[Exception], approved: bool) -> Result<SourceRoot, ExportError> {
        if !exceptions.is_empty() && !approved {
            return Err(ExportError::NotApproved { count: exceptions.len() });
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
            let folder_root = self.folder_root(&folder.path, uid_validity, &listing.items, &left_out, &mut listing_digest).await?;
            root.folder(&folder.path.0, uid_validity, &folder_root);
            let uids = UidSet::from_ascending(listing.items.iter().map(|item| item.uid));
            listed.push((folder.path, uid_validity, uids));
        }
        excepted.finish()?;
        self.inner.with_notes(async |notes| notes.put_root(&listed).await).await?;
        Ok(SourceRoot {
            folders: root.folders(),
            items: root.items,
            octets: root.octets,
            skipped,
            listing: listing_digest.finish(),
            root: root.root(),
        })
    }

    /// What the mailbox holds now that was not in the listing behind the last root.
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
            let uids =
                UidSet::from_ascending(listing.items.iter().map(|item| item.uid).filter(|uid| !known.contains(*uid)));
            if !uids.is_empty() {
                folder.status = Some(listing.status);
                additions.push(SweepFolder { folder, uids });
            }
        }
        Ok(additions)
    }

    /// Body frames of a sweep: like [`Self::items`], for items that were not in the listing behind the last root.
    ///
    /// # Errors
    /// [`ExportError::NoRoot`], [`ExportError::NotLate`], those of [`Self::items`].
    pub async fn sweep_items(&self, folder: &FolderPath, uid_validity: u32, uids: &UidSet) -> Result<OctetStream, ExportError> {
        if !self.inner.with_notes(async |notes| Ok(notes.root_made())).await? {
            return Err(ExportError::NoRoot);
        }
        if uids.len() > frames::MAX_BODY_REQUEST_ITEMS {
            return Err(ExportError::Items { count: uids.len() });
        }
        let known = self.root_uids(folder, uid_validity).await?;
        if let Some(uid) = uids.iter().find(|uid| known.contains(*uid)) {
            return Err(ExportError::NotLate { folder: folder.clone(), uid });
        }
        self.items(folder, uid_validity, uids).await
    }

    async fn root_uids(&self, path: &FolderPath, uid_validity: u32) -> Result<UidSet, ExportError> {
        self.inner.with_notes(async |notes| notes.root_uids(path, uid_validity).await).await
    }

    async fn whole_listing(&self, folder: &FolderPath) -> Result<rehome_mailbox::Listing, ExportError> {
        let listing = self.inner.mailbox.list(folder, None).await.map_err(ExportError::Mailbox)?;
        let whole = listing.scope == ListingScope::Whole && listing.items.len() as u64 == u64::from(listing.status.exists);
        if whole { Ok(listing) } else { Err(ExportError::NotWhole { folder: folder.clone() }) }
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
            let needed: Vec<u32> =
                chunk_items.iter().map(|item| item.uid).filter(|uid| !left_out.contains(uid)).collect();
            let notes = self.inner.notes_for(path, uid_validity, chunk, &needed).await?;
            for item in chunk_items {
                let ItemMeta { uid, flags, received, .. } = item;
                let nothing = Leaf { uid: *uid, length: 0, digest: Digest::of(b""), flags, received: *received };
                listing_digest.update(&rehome_wire::proof::leaf_octets(&nothing));
                if let Some(note) = notes.get(uid).filter(|_| !left_out.contains(uid)) {
                    root.leaf(&Leaf { length: note.length, digest: note.digest, ..nothing });
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
            if !folders.entry(&exception.folder).or_default().insert((exception.uid, exception.kind)) {
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
        Ok(excepted.into_iter().filter(|(_, kind)| *kind == ExceptionKind::Skipped).map(|(uid, _)| uid).collect())
    }

    fn finish(self) -> Result<(), ExportError> {
        let first = self.0.iter().find_map(|(path, excepted)| Some((path, excepted.first()?.0)));
        first.map_or(Ok(()), |(path, uid)| Err(unknown(path, uid)))
    }
}

fn unknown(path: &[String], uid: u32) -> ExportError {
    ExportError::ExceptionUnknown { folder: FolderPath(path.to_vec()), uid }
}

fn stream(receiver: mpsc::Receiver<Result<Bytes, LinkError>>) -> OctetStream {
    futures_util::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) }).boxed()
}

enum ServeError {
    ReaderGone,
    Export(ExportError),
}

impl From<ExportError> for ServeError {
    fn from(error: ExportError) -> Self {
        Self::Export(error)
    }
}

/// Gathers frames and sends them on in pieces.
struct FrameSender<'a> {
    octets: BytesMut,
    sender: &'a Sender,
}

impl FrameSender<'_> {
    async fn send(&mut self, frame: &Frame) -> Result<(), ServeError> {
        frames::encode(frame, &mut self.octets);
        if self.octets.len() >= PIECE { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), ServeError> {
        if self.octets.is_empty() {
            return Ok(());
        }
        let piece = self.octets.split().freeze();
        self.sender.send(Ok(piece)).await.map_err(|_| ServeError::ReaderGone)
    }
}

async fn send_listing(listing: rehome_mailbox::Listing, sender: &Sender) -> Result<(), ServeError> {
    let mut frames = FrameSender { octets: BytesMut::new(), sender };
    let vanished = match &listing.scope {
        ListingScope::Whole => None,
        ListingScope::Changes { vanished } => Some(UidSet::from_ascending(vanished.iter().copied())),
    };
    let status = listing.status;
    frames
        .send(&Frame::Head(ListingHead {
            validity: status.uid_validity,
            uid_next: status.uid_next,
            exists: status.exists,
            mod_seq: status.highest_mod_seq,
            token: listing.token.map(|token| token.0.into()),
            kind: if vanished.is_some() { ListingKind::Changes } else { ListingKind::Full },
        }))
        .await?;
    let items = listing.items.len() as u64;
    for ItemMeta { uid, flags, received, length_hint } in listing.items {
        frames.send(&Frame::ListedItem(ListedItem { uid, flags, received, length: length_hint })).await?;
    }
    let vanished_count = vanished.as_ref().map_or(0, |vanished| vanished.len() as u64);
    if let Some(vanished) = vanished {
        frames.send(&Frame::Vanished(vanished)).await?;
    }
    frames.send(&Frame::ListingEnd { items, vanished: vanished_count }).await?;
    frames.flush().await
}

/// An item that is being served.
struct Serving {
    uid: u32,
    canonicalizer: Canonicalizer,
    digester: Digester,
    octets: BytesMut,
}

impl Serving {
    fn new(uid: u32) -> Self {
        Self { uid, canonicalizer: Canonicalizer::new(), digester: Digester::new(), octets: BytesMut::new() }
    }

    /// Takes a part of `raw`; returns how many octets were taken and the canonical ones that came of it.
    fn push(&mut self, raw: &[u8]) -> (usize, Bytes) {
        let taken = self.canonicalizer.push_some(raw, &mut self.octets);
        self.digester.update(&self.octets);
        (taken, self.octets.split().freeze())
    }

    fn finish(mut self) -> (Bytes, CanonicalReport, Digest) {
        let report = self.canonicalizer.finish(&mut self.octets);
        self.digester.update(&self.octets);
        (self.octets.freeze(), report, self.digester.finish())
    }
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

    async fn serve(&self, folder: &FolderPath, uid_validity: u32, uids: &UidSet, sender: &Sender) -> Result<(), ServeError> {
        let mut served = BTreeMap::new();
        let sent = self.send_items(folder, uids, sender, &mut served).await;
        // What was served is noted even where the reader went away in the middle: it may have used what it has.
        if !served.is_empty() {
            let found = self.mailbox.list(folder, None).await.map_err(ExportError::Mailbox)?.status.uid_validity;
            if found != uid_validity {
                let changed = ExportError::ValidityChanged { folder: folder.clone(), asked: uid_validity, found };
                return Err(ServeError::Export(changed));
            }
            self.with_notes(async |notes| notes.put(folder, uid_validity, &served).await).await?;
        }
        let end = sent?;
        let mut frames = FrameSender { octets: BytesMut::new(), sender };
        frames.send(&end).await?;
        frames.flush().await
    }

    /// Sends everything but the end frame, which it returns.
    async fn send_items(
        &self,
        folder: &FolderPath,
        uids: &UidSet,
        sender: &Sender,
        served: &mut BTreeMap<u32, Note>,
    ) -> Result<Frame, ServeError> {
        let uids: Vec<u32> = uids.iter().collect();
        let mut events = self.mailbox.read(folder, &uids).await.map_err(ExportError::Mailbox)?;
        let mut frames = FrameSender { octets: BytesMut::new(), sender };
        let (mut items, mut gone, mut failed) = (0, 0, 0);
        let mut current: Option<Serving> = None;
        while let Some(event) = events.next().await {
            match (event.map_err(ExportError::Mailbox)?, current.take()) {
                (ReadEvent::Item(meta), None) => {
                    let ItemMeta { uid, flags, received, length_hint } = meta;
                    frames.send(&Frame::Item(ItemHeader { uid, flags, received, length: length_hint })).await?;
                    current = Some(Serving::new(uid));
                }
                (ReadEvent::Octets(raw), Some(mut item)) => {
                    let mut rest: &[u8] = &raw;
                    while !rest.is_empty() {
                        let (taken, octets) = item.push(rest);
                        rest = &rest[taken..];
                        frames.send(&Frame::Chunk(octets)).await?;
                    }
                    current = Some(item);
                }
                (ReadEvent::End, Some(item)) => {
                    let uid = item.uid;
                    let (octets, report, digest) = item.finish();
                    frames.send(&Frame::Chunk(octets)).await?;
                    let CanonicalReport { length, altered: line_ends_only } = report;
                    frames.send(&Frame::Trailer(ItemTrailer { length, digest, line_ends_only })).await?;
                    served.insert(uid, Note { length, digest });
                    items += 1;
                }
                (ReadEvent::Gone(uid), None) => {
                    frames.send(&Frame::Gone { uid }).await?;
                    gone += 1;
                }
                (ReadEvent::Failed { uid, error }, None) => {
                    frames.send(&Frame::Failed(failure(uid, &error))).await?;
                    failed += 1;
                }
                // An item that breaks off in the middle cannot be taken back on the wire: the stream ends without its
                // end frame, and the importer asks for the item alone.
                (ReadEvent::Failed { error, .. }, Some(_)) => return Err(ExportError::Mailbox(error).into()),
                (ReadEvent::Item(_) | ReadEvent::Gone(_), Some(_)) | (ReadEvent::Octets(_) | ReadEvent::End, None) => {
                    return Err(ExportError::Mailbox(out_of_order(folder)).into());
                }
            }
        }
        frames.flush().await?;
        Ok(Frame::BodyEnd { items, gone, failed })
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
        self.with_notes(async |held| held.put(path, uid_validity, &read).await).await?;
        notes.extend(read);
        Ok(notes)
    }

    async fn digest_items(&self, path: &FolderPath, uids: &[u32], notes: &mut BTreeMap<u32, Note>) -> Result<(), ExportError> {
        let read = read_digests(&*self.mailbox, path, uids).await.map_err(ExportError::Mailbox)?;
        for (uid, outcome) in read {
            match outcome {
                ReadOutcome::Octets { length, digest } => {
                    notes.insert(uid, Note { length, digest });
                }
                ReadOutcome::Gone | ReadOutcome::Failed(_) => {
                    return Err(ExportError::Unreadable { folder: path.clone(), uid });
                }
            }
        }
        Ok(())
    }
}

fn failure(uid: u32, error: &MailboxError) -> ItemFailure {
    let class = match error.scope {
        ErrorScope::Item => FailureClass::Item,
        ErrorScope::Folder => FailureClass::Folder,
        ErrorScope::Mailbox => FailureClass::Mailbox,
        ErrorScope::Endpoint => FailureClass::Endpoint,
    };
    ItemFailure { uid, class, text: error.to_string() }
}

/// A driver's stream of events that keeps no order.
fn out_of_order(folder: &FolderPath) -> MailboxError {
    MailboxError {
        what: format!("reading folder {folder}"),
        cause: "the driver's events are out of order".to_owned(),
        scope: ErrorScope::Folder,
        retry: Retry::After(60),
    }
}

/// What reading one item showed.
#[derive(Clone, Debug)]
pub(crate) enum ReadOutcome {
    /// Its canonical form.
    Octets { length: u64, digest: Digest },
    /// It is not there.
    Gone,
    /// It cannot be read.
    Failed(MailboxError),
}

/// Reads items and digests their canonical form; every uid has an outcome.
pub(crate) async fn read_digests(
    mailbox: &dyn Mailbox,
    path: &FolderPath,
    uids: &[u32],
) -> Result<BTreeMap<u32, ReadOutcome>, MailboxError> {
    let mut outcomes = BTreeMap::new();
    if uids.is_empty() {
        return Ok(outcomes);
    }
    let mut events = mailbox.read(path, uids).await?;
    let mut current: Option<Serving> = None;
    while let Some(event) = events.next().await {
        match (event?, current.take()) {
            (ReadEvent::Item(meta), None) => current = Some(Serving::new(meta.uid)),
            (ReadEvent::Octets(raw), Some(mut item)) => {
                let mut rest: &[u8] = &raw;
                while !rest.is_empty() {
                    let (taken, _) = item.push(rest);
                    rest = &rest[taken..];
                }
                current = Some(item);
            }
            (ReadEvent::End, Some(item)) => {
                let uid = item.uid;
                let (_, report, digest) = item.finish();
                outcomes.insert(uid, ReadOutcome::Octets { length: report.length, digest });
            }
            (ReadEvent::Gone(uid), None) => {
                outcomes.insert(uid, ReadOutcome::Gone);
            }
            (ReadEvent::Failed { uid, error }, _) => {
                outcomes.insert(uid, ReadOutcome::Failed(error));
            }
            (ReadEvent::Item(_) | ReadEvent::Gone(_), Some(_)) | (ReadEvent::Octets(_) | ReadEvent::End, None) => {
                return Err(out_of_order(path));
            }
        }
    }
    match uids.iter().find(|uid| !outcomes.contains_key(uid)) {
        None => Ok(outcomes),
        Some(uid) => Err(MailboxError {
            what: format!("reading folder {path}"),
            cause: format!("the driver gave no answer for item {uid}"),
            scope: ErrorScope::Folder,
            retry: Retry::After(10),
        }),
    }
}

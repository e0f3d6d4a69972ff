//! The contract between the engine and a driver.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use rehome_wire::{digest::Digest, flags::Flags, uid_set::UidSet};
use std::path::PathBuf;

/// A message's number within a folder and validity: growing, never reused (RFC 9051 §2.3.1.1). Never 0.
pub type Uid = u32;

/// A folder's path: Unicode names from the root. `["INBOX"]` is the inbox, in exactly that spelling.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FolderPath(pub Vec<String>);

impl FolderPath {
    /// The inbox.
    #[must_use]
    pub fn inbox() -> Self {
        Self(vec!["INBOX".to_owned()])
    }

    /// Whether this is the inbox.
    #[must_use]
    pub fn is_inbox(&self) -> bool {
        self.0.len() == 1 && self.0[0] == "INBOX"
    }
}

impl std::fmt::Display for FolderPath {
    /// For people: names joined by `/`; not unique where a name holds a slash.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

/// Names a folder, and the validity that the caller's uids belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FolderRef<'a> {
    /// Where it is.
    pub path: &'a FolderPath,
    /// Its UIDVALIDITY. What is asked with it is done in this validity or not at all; none takes whichever there is.
    pub uid_validity: Option<u32>,
}

impl<'a> FolderRef<'a> {
    /// The folder in one validity.
    #[must_use]
    pub fn new(path: &'a FolderPath, uid_validity: u32) -> Self {
        let uid_validity = Some(uid_validity);
        Self { path, uid_validity }
    }

    /// The folder in whichever validity it has.
    #[must_use]
    pub fn any(path: &'a FolderPath) -> Self {
        Self {
            path,
            uid_validity: None,
        }
    }

    /// Checks the validity that a platform tells.
    ///
    /// # Errors
    /// Of scope `Folder`, retry `Now`, where it is another one.
    pub fn check(self, found: u32) -> Result<(), MailboxError> {
        match self.uid_validity {
            Some(asked) if asked != found => Err(MailboxError {
                what: format!("opening folder {}", self.path),
                cause: format!("its UIDVALIDITY is {found} now, no longer {asked}"),
                scope: ErrorScope::Folder,
                retry: Retry::Now,
            }),
            Some(_) | None => Ok(()),
        }
    }
}

/// A special use (RFC 6154 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpecialUse {
    /// `\Archive`
    Archive,
    /// `\Drafts`
    Drafts,
    /// `\Junk`
    Junk,
    /// `\Sent`
    Sent,
    /// `\Trash`
    Trash,
}

/// One folder as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// Where it is.
    pub path: FolderPath,
    /// Its special use, where the platform stores one.
    pub special_use: Option<SpecialUse>,
    /// Whether the user subscribes to it.
    pub subscribed: bool,
    /// False where it only holds children (RFC 9051 `\NoSelect`).
    pub selectable: bool,
    /// Its numbers; none where not selectable.
    pub status: Option<FolderStatus>,
    /// MAILBOXID (RFC 8474 §5.1), which stays over renames; none where the platform has none.
    pub mailbox_id: Option<String>,
}

/// A folder's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FolderStatus {
    /// UIDVALIDITY.
    pub uid_validity: u32,
    /// UIDNEXT: every later item gets at least this uid.
    pub uid_next: u32,
    /// How many items it holds.
    pub exists: u32,
    /// HIGHESTMODSEQ, where the platform numbers changes.
    pub highest_mod_seq: Option<u64>,
}

/// One item's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemMeta {
    /// Its uid.
    pub uid: Uid,
    /// System flags and keywords, `\Recent` never.
    pub flags: Flags,
    /// Received time (INTERNALDATE), whole seconds since 1970.
    pub received: i64,
    /// Length of the octets as stored, where cheaply known; a hint only.
    pub length_hint: Option<u64>,
}

/// Where a driver's listing stood; opaque to the engine, kept by it, never shown to another driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeToken(pub Vec<u8>);

/// What a folder holds, or what changed since a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Numbers read together with the items.
    pub status: FolderStatus,
    /// The state this listing shows; read before it. None where the platform numbers no changes.
    pub token: Option<ChangeToken>,
    /// All items, or those added or changed since the token; ascending by uid.
    pub items: Vec<ItemMeta>,
    /// What else is said.
    pub scope: ListingScope,
}

/// Whether a listing is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListingScope {
    /// Every item of the folder is in `items`.
    Whole,
    /// Only changes.
    Changes {
        /// What is not there any more.
        removed: Removed,
    },
}

/// How a listing of changes tells what was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// Exactly these uids vanished since the token (RFC 7162 §3.2.10).
    Vanished(UidSet),
    /// Exactly these uids are there: whatever else was there before is gone (RFC 7162 §3.1, which names no removals).
    Present(UidSet),
}

/// One step of reading items.
#[derive(Clone, Debug)]
pub enum ReadEvent {
    /// An item begins.
    Item(ItemMeta),
    /// Octets of it, as stored; at most 64 KiB at once.
    Octets(Bytes),
    /// The item is whole.
    End,
    /// This uid is not there (any more).
    Gone(Uid),
    /// This item cannot be read; others go on. It may come after octets of the item, which are then worth nothing.
    Failed {
        /// Which.
        uid: Uid,
        /// Why.
        error: MailboxError,
    },
}

/// An item's octets in canonical form, complete and hashed.
#[derive(Clone, Debug)]
pub enum Body {
    /// In memory.
    Memory(Bytes),
    /// In a spool file of exactly `length` octets, removed by its owner.
    Spooled(PathBuf),
}

/// An item to append.
#[derive(Clone, Debug)]
pub struct NewItem {
    /// Names the item in the move: the same item appended twice by a driver with [`Capabilities::append_once`] exists once.
    pub key: ItemKey,
    /// The uid it must get, in a folder created with given uids; ascending over appends, and free: one whose item was
    /// removed may be given again, to the item that has it at the source.
    pub uid: Option<Uid>,
    /// System flags and keywords.
    pub flags: Flags,
    /// Received time, whole seconds since 1970.
    pub received: i64,
    /// Canonical length, octets.
    pub length: u64,
    /// Canonical digest.
    pub digest: Digest,
    /// The canonical octets.
    pub body: Body,
}

/// Names one item of one move: move, folder number in the ledger, source validity, source uid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ItemKey {
    /// The move's 128 bits.
    pub move_id: u128,
    /// The folder's number in the ledger.
    pub folder: u32,
    /// The source folder's UIDVALIDITY.
    pub source_validity: u32,
    /// The source uid.
    pub source_uid: Uid,
}

/// How a new folder is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewFolder {
    /// Its special use.
    pub special_use: Option<SpecialUse>,
    /// Whether the user subscribes to it.
    pub subscribed: bool,
    /// Keep the source's numbers ([`Capabilities::given_uids`]): UIDVALIDITY and UIDNEXT at least.
    pub identity: Option<FolderIdentity>,
}

/// Numbers that a folder is to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FolderIdentity {
    /// UIDVALIDITY to have.
    pub uid_validity: u32,
    /// UIDNEXT to have at least.
    pub uid_next: u32,
}

/// What became of one item of an append, in the order given.
#[derive(Clone, Debug)]
pub enum Appended {
    /// It is there, durably, under this uid.
    Uid {
        /// The uid.
        uid: Uid,
        /// Keywords that the platform could not keep (more than 26 on Maildir), as spelt.
        keywords_dropped: Vec<String>,
    },
    /// It was refused; nothing of it is there.
    Refused(MailboxError),
}

/// What a driver can do beyond the smallest contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// Appending an item with the same [`ItemKey`] again yields the one already there.
    pub append_once: bool,
    /// Uids and UIDVALIDITY can be given in a folder that is new and empty.
    pub given_uids: bool,
    /// [`Mailbox::copy`] works.
    pub copy: bool,
    /// [`Mailbox::list`] takes tokens.
    pub changes: bool,
    /// Keywords are stored.
    pub keywords: bool,
    /// Largest item, octets; none means no known limit.
    pub max_item_length: Option<u64>,
    /// Most items of one append that are worth handing over together.
    pub append_batch: usize,
    /// Folders that are worth working on at once; at least 1.
    pub folders_at_once: usize,
}

/// Storage of a mailbox (RFC 9208), in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// What it holds.
    pub used: u64,
    /// What it may hold.
    pub limit: u64,
}

/// Why a mailbox operation failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}: {cause}")]
pub struct MailboxError {
    /// What was tried, with the folder's or item's name.
    pub what: String,
    /// The platform's answer or the system's error.
    pub cause: String,
    /// How far the harm goes.
    pub scope: ErrorScope,
    /// Whether and when trying again makes sense.
    pub retry: Retry,
}

/// What an error makes useless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorScope {
    /// This item only.
    Item,
    /// This folder.
    Folder,
    /// This mailbox.
    Mailbox,
    /// The whole server or platform.
    Endpoint,
}

/// Whether trying again makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// At once, on a new connection if there is one.
    Now,
    /// After this many seconds.
    After(u32),
    /// Never without an administrator.
    Never,
}

/// One opened mailbox. Calls on different folders may run at once; calls that change one folder must not.
///
/// What takes a [`FolderRef`] fails before it does anything where the folder has another UIDVALIDITY: [`FolderRef::check`].
#[async_trait]
pub trait Mailbox: Send + Sync {
    /// What this driver can do here.
    fn capabilities(&self) -> Capabilities;

    /// All folders with their numbers, parents before children, the inbox first.
    async fn folders(&self) -> Result<Vec<Folder>, MailboxError>;

    /// What `folder` holds. With a token and [`Capabilities::changes`], only what changed since.
    /// A missing folder is an error of scope `Folder`, retry `Never`.
    async fn list(&self, folder: &FolderPath, since: Option<&ChangeToken>) -> Result<Listing, MailboxError>;

    /// What `folder` holds from the uid `first` on, as of a whole listing without the items below it: its status counts
    /// all. Nothing may be concluded from an item that is not listed.
    async fn list_from(&self, folder: &FolderPath, first: Uid) -> Result<Listing, MailboxError> {
        let mut listing = self.list(folder, None).await?;
        listing.items.retain(|item| item.uid >= first);
        Ok(listing)
    }

    /// Streams the octets of `uids` (ascending) as stored. Every uid is answered once: item, gone or failed.
    /// Ending early with an error says nothing about unanswered uids.
    async fn read<'a>(
        &'a self,
        folder: FolderRef<'_>,
        uids: &[Uid],
    ) -> Result<BoxStream<'a, Result<ReadEvent, MailboxError>>, MailboxError>;

    /// Makes a folder (and missing parents) and returns its numbers. Existing already is success, with its numbers as
    /// they are, but that its UIDNEXT is raised to a given one where the given UIDVALIDITY is the one it has.
    async fn create_folder(&self, folder: &FolderPath, new: &NewFolder) -> Result<FolderStatus, MailboxError>;

    /// Renames a folder with all below it. The inbox is never renamed.
    async fn rename_folder(&self, from: &FolderPath, to: &FolderPath) -> Result<(), MailboxError>;

    /// Removes a folder and what it holds; children stay. Missing already is success.
    async fn remove_folder(&self, folder: &FolderPath) -> Result<(), MailboxError>;

    /// Subscribes or unsubscribes.
    async fn subscribe(&self, folder: &FolderPath, subscribed: bool) -> Result<(), MailboxError>;

    /// Appends items in order; on `Ok` those answered with a uid are durable. On `Err` the outcome is unknown.
    async fn append(&self, folder: FolderRef<'_>, items: Vec<NewItem>) -> Result<Vec<Appended>, MailboxError>;

    /// Copies items of this mailbox server-side ([`Capabilities::copy`]) into `folder`, in the order of `uids`; one of
    /// `items` describes each.
    async fn copy(
        &self,
        from: FolderRef<'_>,
        uids: &[Uid],
        folder: FolderRef<'_>,
        items: &[NewItem],
    ) -> Result<Vec<Appended>, MailboxError>;

    /// Sets flags and keywords to exactly these; uids that are gone are skipped. Returns dropped keywords per uid.
    async fn set_flags(
        &self,
        folder: FolderRef<'_>,
        changes: &[(Uid, Flags)],
    ) -> Result<Vec<(Uid, Vec<String>)>, MailboxError>;

    /// Removes items for good; uids that are gone are skipped.
    async fn remove(&self, folder: FolderRef<'_>, uids: &[Uid]) -> Result<(), MailboxError>;

    /// Storage used and allowed, where the platform tells.
    async fn quota(&self) -> Result<Option<Quota>, MailboxError> {
        Ok(None)
    }

    /// What is asked from now on is answered on a new connection, where there are connections: a second look must not
    /// come from the same confused session.
    async fn renew(&self) {}
}

//! What the importer pulls from.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use rehome_mailbox::{ErrorScope, Folder, FolderPath, Retry};
use rehome_wire::uid_set::UidSet;

/// Frames as octets, in pieces of any size. An error ends it.
pub type OctetStream = BoxStream<'static, Result<Bytes, LinkError>>;

/// The source, wherever it is.
#[async_trait]
pub trait SourceLink: Send + Sync {
    /// All folders with their numbers.
    ///
    /// # Errors
    /// [`LinkError`].
    async fn folders(&self) -> Result<Vec<Folder>, LinkError>;

    /// Listing frames of a folder, since `token` where the source gave one. `fresh` asks for a new connection.
    ///
    /// # Errors
    /// [`LinkError`]; for a missing folder of scope `Folder`, retry `Never`.
    async fn listing(&self, folder: &FolderPath, token: Option<&[u8]>, fresh: bool) -> Result<OctetStream, LinkError>;

    /// Body frames of 1 to 1,000 uids.
    ///
    /// # Errors
    /// [`LinkError`]; where the folder has another UIDVALIDITY now of scope `Folder`, retry `Now`.
    async fn items(&self, folder: &FolderPath, uid_validity: u32, uids: &UidSet) -> Result<OctetStream, LinkError>;
}

/// Why the source did not answer.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{message}")]
pub struct LinkError {
    /// The error id, as received or ours.
    pub id: String,
    /// What happened, for administrators.
    pub message: String,
    /// How far the harm goes.
    pub scope: ErrorScope,
    /// Whether and when trying again makes sense.
    pub retry: Retry,
}

/// What a late sweep found in one folder: items that were not in the listing behind Prepare's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepFolder {
    /// The folder; its status holds the UIDVALIDITY of the uids.
    pub folder: Folder,
    /// The items.
    pub uids: UidSet,
}

//! Why the source cannot serve.

use crate::{ledger::LedgerError, link::LinkError, storage::StorageError};
use rehome_mailbox::{ErrorScope, FolderPath, MailboxError, Retry};
use rehome_wire::frames;

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
    /// The process ends.
    #[error("the source is stopping")]
    Stopped,
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
            // Another UIDVALIDITY: FolderRef::check.
            Self::Mailbox(error) if error.scope == ErrorScope::Folder && error.retry == Retry::Now => {
                ("CommunicationErrorTransientException", error.scope, error.retry)
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
            Self::Stopped => (
                "CommunicationErrorTransientException",
                ErrorScope::Mailbox,
                Retry::After(5),
            ),
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

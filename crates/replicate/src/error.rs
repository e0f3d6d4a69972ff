//! Why a pass stopped, and what to do about it.

use crate::{ledger::LedgerError, link::LinkError, storage::StorageError};
use rehome_mailbox::{ErrorScope, MailboxError, Retry};

/// Why a pass, a sweep or the making of the target's root stopped. What was applied stays applied; the next pass goes on.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PassError {
    /// The lease was lost: another worker may be at work.
    #[error("the lease on the move was lost")]
    LeaseLost,
    /// The caller asked to stop.
    #[error("the pass was asked to stop")]
    Cancelled,
    /// The source did not answer, or refused.
    #[error("the source: {0}")]
    Source(#[source] LinkError),
    /// The target's mailbox failed.
    #[error("the target: {0}")]
    Target(#[source] MailboxError),
    /// The ledger's storage failed.
    #[error(transparent)]
    Storage(StorageError),
    /// The ledger does not hold what it should.
    #[error("the ledger is damaged: {0}")]
    Ledger(#[source] LedgerError),
    /// The spool folder failed.
    #[error("the spool folder: {cause}")]
    Spool {
        /// The system's error.
        cause: String,
    },
    /// An item's octets twice differed from their digest; it was not used.
    #[error("{message}")]
    ItemDigestMismatch {
        /// Folder, uid and both digests.
        message: String,
    },
    /// The source lost so much at once that a second listing had to agree, and did not.
    #[error("{message}")]
    SourceContentsShrank {
        /// What is missing.
        message: String,
    },
    /// The source broke the protocol, or its stream stopped in the middle.
    #[error("{message}")]
    Protocol {
        /// What was wrong with it.
        message: String,
    },
    /// The target does not hold what the ledger says; the next pass mends it where it can.
    #[error("{message}")]
    TargetDiffers {
        /// What differs.
        message: String,
        /// Whether the next pass mends it.
        mended: bool,
    },
    /// Read-back is switched off, so there is no root.
    #[error("the contents were not read back; switch [replication] read_back on")]
    ReadBackRequired,
}

impl PassError {
    /// The error id, spelt as administrators see it.
    #[must_use]
    pub fn error_id(&self) -> &str {
        match self {
            Self::Source(error) => &error.id,
            Self::Target(_) | Self::TargetDiffers { .. } => "MailboxPlatformException",
            Self::ItemDigestMismatch { .. } => "ItemDigestMismatchException",
            Self::SourceContentsShrank { .. } => "SourceContentsShrankException",
            Self::ReadBackRequired => "ReadBackRequiredException",
            Self::Protocol { .. } | Self::LeaseLost | Self::Cancelled => "CommunicationErrorTransientException",
            Self::Storage(_) | Self::Ledger(_) | Self::Spool { .. } => "UnexpectedException",
        }
    }

    /// Whether and when another pass makes sense.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Source(error) => error.retry,
            Self::Target(error) => error.retry,
            Self::LeaseLost | Self::Cancelled | Self::Storage(StorageError::Stale) => Retry::Now,
            Self::Storage(StorageError::Failed { .. }) | Self::Spool { .. } | Self::Protocol { .. } => Retry::After(10),
            Self::ItemDigestMismatch { .. } => Retry::After(60),
            Self::SourceContentsShrank { .. } => Retry::After(900),
            Self::TargetDiffers { mended: true, .. } => Retry::Now,
            Self::TargetDiffers { mended: false, .. } | Self::Ledger(_) | Self::ReadBackRequired => Retry::Never,
        }
    }

    /// How far the harm goes.
    #[must_use]
    pub fn scope(&self) -> ErrorScope {
        match self {
            Self::Source(error) => error.scope,
            Self::Target(error) => error.scope,
            Self::LeaseLost
            | Self::Cancelled
            | Self::Storage(_)
            | Self::Ledger(_)
            | Self::Spool { .. }
            | Self::ItemDigestMismatch { .. }
            | Self::SourceContentsShrank { .. }
            | Self::Protocol { .. }
            | Self::TargetDiffers { .. }
            | Self::ReadBackRequired => ErrorScope::Mailbox,
        }
    }
}

impl From<StorageError> for PassError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Stale => Self::LeaseLost,
            StorageError::Failed { .. } => Self::Storage(error),
        }
    }
}

impl From<LedgerError> for PassError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Storage(error) => error.into(),
            LedgerError::Damaged { .. } | LedgerError::Full { .. } => Self::Ledger(error),
        }
    }
}

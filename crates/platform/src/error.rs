//! What can go wrong between a mailbox and its platform.

use crate::{access::AccessError, place::LocationError, template::TemplateError};
use rehome_mailbox::{ErrorScope, MailboxError, Retry, maildir::place::LockError};
use std::{io, path::PathBuf};

/// The platforms in the configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlatformConfigError {
    /// A default that is not there.
    #[error("the default platform '{0}' is not configured")]
    UnknownDefault(String),
    /// Several platforms and no default.
    #[error("several platforms are configured: say which is the default")]
    NoDefault,
    /// A root that depends on where the program was started.
    #[error("the root '{}' of platform '{name}' is not an absolute path", .root.display())]
    RelativeRoot {
        /// The platform.
        name: String,
        /// Its root.
        root: PathBuf,
    },
}

/// Why a platform could not do something with a mailbox.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// The configuration has no such platform.
    #[error("there is no platform '{name}'; configured are: {known}")]
    UnknownPlatform {
        /// Asked for.
        name: String,
        /// Names, divided by commas.
        known: String,
    },
    /// The configuration has no platform at all.
    #[error("no platform is configured: add a section [platform.NAME]")]
    NoPlatform,
    /// The place is not one that a mailbox may have.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// The platform's root is missing, perhaps because a disk is not mounted.
    #[error("the root {} of platform '{platform}' cannot be used", .root.display())]
    Root {
        /// The platform.
        platform: String,
        /// Its root.
        root: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A server did not answer in time.
    #[error("the server of platform '{platform}' did not answer within {seconds} s")]
    Silent {
        /// The platform.
        platform: String,
        /// The limit.
        seconds: u64,
    },
    /// The account that a move is to fill holds something.
    #[error("the account '{account}' holds {items} messages, and only an empty account can be moved into")]
    AccountNotEmpty {
        /// The account.
        account: String,
        /// How many messages.
        items: u64,
    },
    /// Another move fills the account.
    #[error("the account '{account}' is being filled by the move {other}")]
    AccountFilled {
        /// The account.
        account: String,
        /// The other move.
        other: String,
    },
    /// The administrator's program could not keep a user out or let him in.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A text that is no template of paths.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// Mailboxes there are no folders.
    #[error("the mailboxes of platform '{platform}' are accounts of a server, which have no paths")]
    NoPaths {
        /// The platform.
        platform: String,
    },
    /// Deliveries or a cutover held the mailbox too long, or its lock cannot be used.
    #[error("the mailbox lock was not had")]
    Lock(#[source] LockError),
    /// The driver failed.
    #[error(transparent)]
    Mailbox(#[from] MailboxError),
    /// The file system failed outside the driver.
    #[error("{doing} {}", .path.display())]
    Files {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

impl PlatformError {
    /// How far the harm goes.
    #[must_use]
    pub fn scope(&self) -> ErrorScope {
        match self {
            Self::UnknownPlatform { .. }
            | Self::NoPlatform
            | Self::Root { .. }
            | Self::Silent { .. }
            | Self::Template(_)
            | Self::NoPaths { .. }
            | Self::Access(AccessError::Start { .. }) => ErrorScope::Endpoint,
            Self::Location(_)
            | Self::Lock(_)
            | Self::Files { .. }
            | Self::AccountNotEmpty { .. }
            | Self::AccountFilled { .. }
            | Self::Access(
                AccessError::TimedOut { .. }
                | AccessError::Failed { .. }
                | AccessError::NoAccount { .. }
                | AccessError::InUse { .. },
            ) => ErrorScope::Mailbox,
            Self::Mailbox(e) => e.scope,
        }
    }

    /// Whether and when trying again makes sense.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::UnknownPlatform { .. }
            | Self::NoPlatform
            | Self::Location(_)
            | Self::Template(_)
            | Self::NoPaths { .. }
            | Self::AccountNotEmpty { .. }
            | Self::AccountFilled { .. }
            | Self::Access(AccessError::NoAccount { .. }) => Retry::Never,
            Self::Lock(LockError::InUse { .. }) => Retry::After(5),
            Self::Root { .. }
            | Self::Silent { .. }
            | Self::Lock(LockError::File { .. })
            | Self::Access(
                AccessError::Start { .. }
                | AccessError::TimedOut { .. }
                | AccessError::Failed { .. }
                | AccessError::InUse { .. },
            ) => Retry::After(60),
            Self::Files { source, .. } => match source.kind() {
                // Two mailboxes in one place, or none where one must be: waiting does not help.
                io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Retry::Never,
                _ => Retry::After(60),
            },
            Self::Mailbox(e) => e.retry,
        }
    }
}

/// Does file work on a thread that may block.
pub(crate) async fn files<T: Send + 'static>(
    doing: &'static str,
    path: PathBuf,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, PlatformError> {
    let done = tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(io::Error::other(e)));
    done.map_err(|source| PlatformError::Files { doing, path, source })
}

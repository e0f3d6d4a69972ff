//! What an error of the file system means for the mover.

use crate::{ErrorScope, FolderPath, MailboxError, Retry};
use std::io;

/// Seconds after which a full or failing disk is tried again.
const DISK_RETRY_SECONDS: u32 = 60;

/// Classifies an error of the file system.
pub(super) fn classify(error: &io::Error) -> (ErrorScope, Retry) {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::NotFound | Kind::NotADirectory | Kind::IsADirectory | Kind::InvalidInput | Kind::InvalidData => {
            (ErrorScope::Folder, Retry::Never)
        }
        Kind::InvalidFilename | Kind::TooManyLinks | Kind::AlreadyExists | Kind::DirectoryNotEmpty => {
            (ErrorScope::Folder, Retry::Never)
        }
        Kind::PermissionDenied => (ErrorScope::Mailbox, Retry::Never),
        Kind::Interrupted | Kind::WouldBlock | Kind::TimedOut => (ErrorScope::Folder, Retry::After(5)),
        Kind::StaleNetworkFileHandle => (ErrorScope::Folder, Retry::Now),
        // A symbolic link where none may be.
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => (ErrorScope::Folder, Retry::Never),
        // A full, read-only or broken disk, too many open files, no memory: not this mailbox's fault.
        _ => (ErrorScope::Endpoint, Retry::After(DISK_RETRY_SECONDS)),
    }
}

/// An error of the file system while doing `what`.
pub(super) fn failed(what: impl Into<String>, error: impl Into<io::Error>) -> MailboxError {
    let error = error.into();
    let (scope, retry) = classify(&error);
    MailboxError {
        what: what.into(),
        cause: error.to_string(),
        scope,
        retry,
    }
}

/// A folder that is not there.
pub(super) fn missing(folder: &FolderPath) -> MailboxError {
    refused(
        format!("opening folder {folder}"),
        "there is no such folder",
        ErrorScope::Folder,
    )
}

/// A lasting refusal of our own.
pub(super) fn refused(what: impl Into<String>, cause: impl Into<String>, scope: ErrorScope) -> MailboxError {
    MailboxError {
        what: what.into(),
        cause: cause.into(),
        scope,
        retry: Retry::Never,
    }
}

/// The blocking task did not come to an end.
pub(super) fn broken_task(what: &str, error: &tokio::task::JoinError) -> MailboxError {
    MailboxError {
        what: what.to_owned(),
        cause: error.to_string(),
        scope: ErrorScope::Mailbox,
        retry: Retry::Now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn disk_errors_stop_the_endpoint_for_a_while() {
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::IO, Errno::MFILE, Errno::ROFS] {
            let error = failed("writing", errno);
            assert_eq!(
                (error.scope, error.retry),
                (ErrorScope::Endpoint, Retry::After(60)),
                "{errno}"
            );
        }
        assert_eq!(failed("opening", Errno::NOENT).scope, ErrorScope::Folder);
        assert_eq!(failed("opening", Errno::LOOP).retry, Retry::Never);
        assert_eq!(failed("opening", Errno::ACCESS).scope, ErrorScope::Mailbox);
    }
}

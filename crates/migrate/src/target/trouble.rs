//! Why a turn does not get on, and how long it then waits.

use super::partner::PartnerError;
use rehome_domain::{
    error_id::{ErrorId, Problem},
    id::CorrelationId,
};
use rehome_mailbox::Retry;
use rehome_platform::PlatformError;
use rehome_replicate::PassError;
use rehome_store::StoreError;

/// Why a turn did not get on.
pub(super) enum Trouble {
    /// Stop, shutdown or a lost lease: nothing to record.
    Rest,
    /// Something an administrator reads; tried again as `retry` says.
    Problems {
        problems: Vec<Problem>,
        retry: Retry,
        correlation: Option<CorrelationId>,
    },
    /// The store failed: the turn cannot be recorded.
    Store(StoreError),
}

impl Trouble {
    pub(super) fn of(problem: Problem, retry: Retry) -> Self {
        Self::Problems {
            problems: vec![problem],
            retry,
            correlation: None,
        }
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Stale { .. } => Self::Rest,
            StoreError::Database { .. } => Self::Store(error),
            StoreError::Taken { .. } | StoreError::Unreadable { .. } | StoreError::NewerSchema { .. } => Self::of(
                Problem::new(
                    ErrorId::Unexpected,
                    format!("{}.", crate::error_chain(&error)),
                    "The server's log says more.",
                ),
                Retry::After(60),
            ),
        }
    }
}

impl From<PartnerError> for Trouble {
    fn from(error: PartnerError) -> Self {
        Self::Problems {
            problems: vec![error.problem],
            retry: error.retry,
            correlation: error.correlation,
        }
    }
}

impl From<PlatformError> for Trouble {
    fn from(error: PlatformError) -> Self {
        let retry = error.retry();
        let advice = match retry {
            Retry::Never => "When that is mended, Start-MigrationUser takes the move up where it stood.",
            Retry::Now | Retry::After(_) => {
                "See the server's log; the move resumes by itself when the platform works again."
            }
        };
        Self::of(
            Problem::new(
                ErrorId::MailboxPlatform,
                format!("{}.", crate::error_chain(&error)),
                advice,
            ),
            retry,
        )
    }
}

impl From<PassError> for Trouble {
    fn from(error: PassError) -> Self {
        match &error {
            PassError::LeaseLost | PassError::Cancelled => Self::Rest,
            PassError::Source(_)
            | PassError::Target(_)
            | PassError::Storage(_)
            | PassError::Ledger(_)
            | PassError::Spool { .. }
            | PassError::ItemDigestMismatch { .. }
            | PassError::SourceContentsShrank { .. }
            | PassError::Protocol { .. }
            | PassError::TargetDiffers { .. }
            | PassError::ReadBackRequired => {
                let id = error.error_id().parse().unwrap_or(ErrorId::Unexpected);
                Self::of(Problem::new(id, format!("{error}."), advice_for(id)), error.retry())
            }
        }
    }
}

fn advice_for(id: ErrorId) -> &'static str {
    match id {
        ErrorId::ItemDigestMismatch => {
            "The item was not used. If it happens again, something between the two servers alters data: look at proxies and network cards."
        }
        ErrorId::SourceContentsShrank => {
            "Ask the source's administrator whether the mailbox lost its contents, for example by a missing mount. The move goes on when two listings agree."
        }
        ErrorId::ReadBackRequired => {
            "Remove read_back = \"off\" from [replication] in the configuration of this deployment and restart it."
        }
        ErrorId::ImapAuthentication => {
            "Test-MigrationServerAvailability with the endpoint and -TestMailbox shows whether the server lets us in."
        }
        _ => "",
    }
}

/// What was copied belongs to the mailbox of one ExchangeGuid and is never taken for another's.
pub(super) fn guid_changed(address: &str) -> Trouble {
    Trouble::of(
        Problem::new(
            ErrorId::InvalidOperation,
            format!("The mail user of {address} got another ExchangeGuid after his contents began to be copied."),
            format!("Set the ExchangeGuid back, or Remove-MigrationUser {address} and add him in a new batch."),
        ),
        Retry::Never,
    )
}

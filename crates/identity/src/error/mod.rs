//! One error type for each operation, with its id, its AADSTS code where the identity platform has one, and the next step.

mod admin;
mod consent;
mod token;
mod trust;

pub use admin::{AccountError, AdminTokenError, SignInError};
pub use consent::{ApplicationError, ConsentError};
pub use token::{AccessError, DpopError, TokenError};
pub use trust::{DescriptionError, DiscoveryError, KeySetError, StatementError};

use crate::{jws::CryptographyFailed, seal::SealError};
use rehome_domain::error_id::{ErrorId, Problem};
use rehome_store::StoreError;

/// What an administrator reads of an error: its text, id and advice.
macro_rules! problems {
    ($($name:ty),+ $(,)?) => {$(
        impl From<&$name> for Problem {
            fn from(error: &$name) -> Self {
                Problem::new(error.error_id(), with_causes(error), error.advice())
            }
        }
    )+};
}

/// An error's text followed by those of its causes.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{}: {error}", text.trim_end_matches('.'));
        cause = error.source();
    }
    text
}

problems!(
    crate::partner::PartnerTokenError,
    DiscoveryError,
    KeyStoreError,
    KeySetError,
    DescriptionError,
    ApplicationError,
    ConsentError,
    DpopError,
    AccessError,
    StatementError,
    SignInError,
    AdminTokenError,
    AccountError,
);

impl From<&TokenError> for Problem {
    /// With the AADSTS code in front, by which administrators look errors up.
    fn from(error: &TokenError) -> Self {
        let code = error.aadsts().map_or_else(String::new, |c| format!("AADSTS{c}: "));
        Problem::new(
            error.error_id(),
            format!("{code}{}", with_causes(error)),
            error.advice(),
        )
    }
}

const LOOK_AT_LOG: &str = "Look at the server's log, and at free space and rights of the data folder.";

/// The tenant's own keys could not be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyStoreError {
    /// The database failed.
    #[error("the state database failed")]
    Store(#[from] StoreError),
    /// A key does not open with this key file.
    #[error("a stored signing key cannot be opened")]
    Seal(#[from] SealError),
    /// A stored key is none.
    #[error("a stored signing key is damaged")]
    Damaged,
    /// Random source or signing failed.
    #[error(transparent)]
    Cryptography(#[from] CryptographyFailed),
    /// No tenant of this deployment.
    #[error("the tenant is not known here")]
    UnknownTenant,
}

impl KeyStoreError {
    /// The id under which it is reported.
    #[must_use]
    pub fn error_id(&self) -> ErrorId {
        match self {
            Self::UnknownTenant => ErrorId::InvalidTenant,
            Self::Store(_) | Self::Seal(_) | Self::Damaged | Self::Cryptography(_) => ErrorId::Unexpected,
        }
    }

    /// The next step.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Seal(_) => {
                "Start the server with the key file that it was set up with; without it sealed secrets are lost."
            }
            Self::UnknownTenant => "Use the tenant's GUID or one of its accepted domains.",
            Self::Store(_) | Self::Damaged | Self::Cryptography(_) => LOOK_AT_LOG,
        }
    }
}

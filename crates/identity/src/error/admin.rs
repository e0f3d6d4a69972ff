//! Administrators.

use super::{KeyStoreError, LOOK_AT_LOG};
use crate::jws::{CryptographyFailed, JwsError};
use rehome_domain::error_id::ErrorId;
use rehome_store::StoreError;

/// Why an administrator is not signed in.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// Unknown name, wrong password or code; one text for all.
    #[error("the sign-in name or the password is wrong")]
    Refused,
    /// The one-time code is right: a password must be set with it.
    #[error("this is the first sign-in with a one-time code: a new password is needed")]
    NewPasswordRequired,
    /// Too short or too long.
    #[error("a password has {} to 1000 characters", crate::account::MINIMUM_PASSWORD_LENGTH)]
    BadPassword,
    /// Too many failures.
    #[error("too many failed sign-ins; try again in {seconds} seconds")]
    TryLater {
        /// How long.
        seconds: u32,
    },
    /// The queue of password checks is full.
    #[error("too many sign-ins at once; try again")]
    Busy,
    /// The state database or the keys failed.
    #[error("sign-in does not work now")]
    Unavailable(#[from] KeyStoreError),
}

impl From<StoreError> for SignInError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.into())
    }
}

impl SignInError {
    /// The id under which it is reported.
    #[must_use]
    pub fn error_id(&self) -> ErrorId {
        match self {
            Self::Refused | Self::NewPasswordRequired => ErrorId::AccessDenied,
            Self::BadPassword => ErrorId::ParameterBinding,
            Self::TryLater { .. } | Self::Busy => ErrorId::CommunicationErrorTransient,
            Self::Unavailable(_) => ErrorId::Unexpected,
        }
    }

    /// The next step.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Refused => "The operator can make a new one-time code with: rehome admin reset.",
            Self::NewPasswordRequired => "Give the new password.",
            Self::BadPassword => "Choose a longer one; several words are good.",
            Self::TryLater { .. } | Self::Busy => "Wait, then sign in again.",
            Self::Unavailable(_) => LOOK_AT_LOG,
        }
    }

    /// The HTTP status of the answer.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        match self {
            Self::Refused | Self::NewPasswordRequired => 401,
            Self::BadPassword => 400,
            Self::TryLater { .. } => 429,
            Self::Busy | Self::Unavailable(_) => 503,
        }
    }
}

/// Why an administrator's token is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AdminTokenError {
    /// Not such a token, or its signature is wrong.
    #[error(transparent)]
    Token(#[from] JwsError),
    /// A claim is missing or not that of this tenant.
    #[error("the token's claim {claim} is not right here")]
    Claim {
        /// Which.
        claim: &'static str,
    },
    /// It ended, or the password was set or reset since.
    #[error("the session has ended")]
    Ended,
    /// The tenant's keys or the account could not be read.
    #[error("the token cannot be checked now")]
    Unavailable(#[from] KeyStoreError),
}

impl From<StoreError> for AdminTokenError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.into())
    }
}

impl AdminTokenError {
    /// The id under which it is reported.
    #[must_use]
    pub fn error_id(&self) -> ErrorId {
        match self {
            Self::Token(_) | Self::Claim { .. } | Self::Ended => ErrorId::AccessDenied,
            Self::Unavailable(e) => e.error_id(),
        }
    }

    /// The next step.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Token(_) | Self::Claim { .. } | Self::Ended => "Sign in again: rehome login.",
            Self::Unavailable(e) => e.advice(),
        }
    }
}

/// Why an account or a role group is not changed.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// Not a sign-in name.
    #[error("'{name}' is not a sign-in name: expected name@domain")]
    BadName {
        /// What was given.
        name: String,
    },
    /// No such account.
    #[error("there is no account '{name}' in this tenant")]
    NotFound {
        /// Which.
        name: String,
    },
    /// The group would be empty.
    #[error("'{name}' is the last member of Organization Management and cannot be removed")]
    LastMember {
        /// Who.
        name: String,
    },
    /// The database failed.
    #[error("the state database failed")]
    Store(#[from] StoreError),
    /// The tenant's keys could not be made.
    #[error("the tenant's keys cannot be made")]
    Keys(#[from] KeyStoreError),
    /// The random source failed.
    #[error(transparent)]
    Cryptography(#[from] CryptographyFailed),
}

impl AccountError {
    /// The id under which it is reported.
    #[must_use]
    pub fn error_id(&self) -> ErrorId {
        match self {
            Self::BadName { .. } => ErrorId::ParameterBinding,
            Self::NotFound { .. } => ErrorId::ManagementObjectNotFound,
            Self::LastMember { .. } => ErrorId::InvalidOperation,
            Self::Store(StoreError::Taken { .. }) => ErrorId::ObjectAlreadyExists,
            Self::Keys(e) => e.error_id(),
            Self::Store(_) | Self::Cryptography(_) => ErrorId::Unexpected,
        }
    }

    /// The next step.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::BadName { .. } => "Give a name such as admin@contoso.example.",
            Self::NotFound { .. } => "Check the spelling and the tenant.",
            Self::LastMember { .. } => "Add another member first.",
            Self::Keys(e) => e.advice(),
            Self::Store(_) | Self::Cryptography(_) => LOOK_AT_LOG,
        }
    }
}

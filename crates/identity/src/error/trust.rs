//! What a partner publishes and signs.

use super::LOOK_AT_LOG;
use crate::jws::JwsError;
use rehome_domain::error_id::ErrorId;
use rehome_store::StoreError;

/// Why a partner's discovery document is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// Over the limit.
    #[error("the discovery document is too long")]
    TooLong,
    /// Not the JSON expected, or a field of ours is missing.
    #[error("the discovery document cannot be read, or is not that of a Rehome server: {why}")]
    Malformed {
        /// The parser's words.
        why: String,
    },
    /// Its issuer has another form.
    #[error("the discovery document's issuer is '{found}', expected https://{{server}}/{{tenant GUID}}/v2.0")]
    BadIssuer {
        /// What it says.
        found: String,
    },
    /// An address is at another server than the one asked.
    #[error("the discovery document's {field} is at '{found}', expected {expected}")]
    WrongOrigin {
        /// Which field.
        field: &'static str,
        /// The server that was asked.
        expected: String,
        /// What it says.
        found: String,
    },
    /// An address is another tenant's.
    #[error("the discovery document's {field} '{found}' is not that of the issuer's tenant")]
    OtherTenant {
        /// Which field.
        field: &'static str,
        /// What it says.
        found: String,
    },
    /// No common protocol version.
    #[error(
        "the remote server speaks the protocol versions {offered:?}, this program speaks {:?}",
        crate::authority::PROTOCOL_VERSIONS
    )]
    UnknownProtocolVersion {
        /// What it offers.
        offered: Vec<u32>,
    },
}

impl DiscoveryError {
    /// The id under which it is reported.
    #[must_use]
    pub fn error_id(&self) -> ErrorId {
        match self {
            Self::TooLong | Self::Malformed { .. } => ErrorId::MigrationServerConnectionFailed,
            Self::BadIssuer { .. } | Self::WrongOrigin { .. } | Self::OtherTenant { .. } => {
                ErrorId::PartnerIdentityChanged
            }
            Self::UnknownProtocolVersion { .. } => ErrorId::ProtocolVersion,
        }
    }

    /// The next step.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::TooLong | Self::Malformed { .. } => {
                "Check that -RemoteServer names the partner's Rehome server and -RemoteTenant one of its tenants."
            }
            Self::BadIssuer { .. } | Self::WrongOrigin { .. } | Self::OtherTenant { .. } => {
                "Give in -RemoteServer exactly the public name that the partner's server is configured with; if it is right, ask the partner."
            }
            Self::UnknownProtocolVersion { .. } => "Update the older of the two programs.",
        }
    }
}

/// Why a partner's new key set is not taken.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// Not a key set, or its signature is wrong.
    #[error("the partner's key set cannot be used")]
    Token(#[from] JwsError),
    /// Signed by a key that consent did not pin: work with this partner stops.
    #[error("{issuer} signs with key '{kid}', which was not pinned at consent")]
    NotPinned {
        /// Whose set.
        issuer: String,
        /// The key.
        kid: String,
    },
    /// Another authority's.
    #[error("the key set is not that of {expected}")]
    WrongIssuer {
        /// Whose it should be.
        expected: String,
    },
    /// Ended, or from the future.
    #[error("the partner's key set is not valid at this time")]
    NotNow,
    /// An old one.
    #[error("the partner's key set has number {found}, number {pinned} is already known")]
    SequenceDidNotGrow {
        /// Pinned.
        pinned: u64,
        /// Found.
        found: u64,
    },
    /// There is no such consent.
    #[error("there is no such service principal in this tenant")]
    NoServicePrincipal,
    /// The database failed.
    #[error("the state database failed")]
    Store(#[from] StoreError),
}

impl KeySetError {
    /// The id under which it is reported.
    #[must_use]
    pub fn error_id(&self) -> ErrorId {
        match self {
            Self::Token(_) | Self::NotPinned { .. } | Self::SequenceDidNotGrow { .. } | Self::NotNow => {
                ErrorId::KeyNotPinned
            }
            Self::WrongIssuer { .. } => ErrorId::PartnerIdentityChanged,
            Self::NoServicePrincipal => ErrorId::ManagementObjectNotFound,
            Self::Store(_) => ErrorId::Unexpected,
        }
    }

    /// The next step.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Token(_) | Self::NotPinned { .. } | Self::SequenceDidNotGrow { .. } | Self::WrongIssuer { .. } => {
                "Ask the partner by another channel whether its keys changed, then renew consent with the partner's link."
            }
            Self::NotNow => "Compare both servers' clocks.",
            Self::NoServicePrincipal => "List them with Get-MgServicePrincipal.",
            Self::Store(_) => LOOK_AT_LOG,
        }
    }
}

/// Why an application description is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescriptionError {
    /// Not such a document, or its signature is wrong.
    #[error("the application's description cannot be used")]
    Token(#[from] JwsError),
    /// Its parts do not fit together.
    #[error("the application's description is refused: {why}")]
    Inconsistent {
        /// Which part.
        why: String,
    },
    /// It speaks for another server than the one it came from.
    #[error("the application's description names the authority {found}, but was asked of {expected}")]
    WrongAuthority {
        /// Where it came from.
        expected: String,
        /// What it says.
        found: String,
    },
    /// Ended, or from the future.
    #[error("the application's description is not valid at this time")]
    NotNow,
}

impl DescriptionError {
    /// The id under which it is reported.
    #[must_use]
    pub fn error_id(&self) -> ErrorId {
        match self {
            Self::Token(_) | Self::Inconsistent { .. } | Self::WrongAuthority { .. } => ErrorId::PartnerIdentityChanged,
            Self::NotNow => ErrorId::MigrationServerConnectionFailed,
        }
    }

    /// The next step.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Token(_) | Self::Inconsistent { .. } => "Ask the partner for a new link made by its server.",
            Self::WrongAuthority { .. } => {
                "Use the partner's link unchanged; its authority must be the server's public name."
            }
            Self::NotNow => "Compare both servers' clocks, then open the link again.",
        }
    }
}

/// Why a signed statement is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Not such a statement, or its signature is wrong.
    #[error("the statement cannot be used")]
    Token(#[from] JwsError),
    /// Signed by a key that was not pinned as statement key.
    #[error("the statement of {issuer} is signed with key '{kid}', which is not its pinned statement key")]
    NotPinned {
        /// Whose.
        issuer: String,
        /// Which key.
        kid: String,
    },
    /// Another authority's.
    #[error("the statement is not that of {expected}")]
    WrongIssuer {
        /// Whose it should be.
        expected: String,
    },
    /// Made later than now.
    #[error("the statement is from the future: compare both servers' clocks")]
    FromTheFuture,
}

impl StatementError {
    /// The id under which it is reported.
    #[must_use]
    pub fn error_id(&self) -> ErrorId {
        match self {
            Self::NotPinned { .. } => ErrorId::KeyNotPinned,
            Self::Token(_) | Self::WrongIssuer { .. } | Self::FromTheFuture => ErrorId::PartnerIdentityChanged,
        }
    }

    /// The next step.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::FromTheFuture => "Compare both servers' clocks.",
            Self::Token(_) | Self::NotPinned { .. } | Self::WrongIssuer { .. } => {
                "Ask the partner for the statement again, made by the tenant that consent was given to."
            }
        }
    }
}

//! Token endpoint, proofs, the proxy's door.

use super::{KeyStoreError, LOOK_AT_LOG};
use crate::jws::{CryptographyFailed, JwsError};
use rehome_domain::{error_id::ErrorId, id::ApplicationId};
use rehome_store::StoreError;
use uuid::Uuid;

/// Why a token endpoint issues no token, or our own authority no assertion.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// AADSTS900144.
    #[error("The request body must contain the parameter '{name}'.")]
    MissingParameter {
        /// Which.
        name: &'static str,
    },
    /// AADSTS90013.
    #[error("The request is malformed: {why}.")]
    Malformed {
        /// Why.
        why: &'static str,
    },
    /// AADSTS70003.
    #[error("The grant type is not supported; use client_credentials.")]
    UnsupportedGrantType,
    /// AADSTS70011.
    #[error("The scope is not valid; use https://outlook.office365.com/.default.")]
    BadScope,
    /// AADSTS7000218.
    #[error("The request body must contain 'client_assertion' or 'client_secret'.")]
    MissingCredential,
    /// AADSTS90002.
    #[error("The tenant was not found.")]
    TenantNotFound,
    /// AADSTS9001023.
    #[error("The grant type is not supported over /common or /organizations; use a tenant's own endpoint.")]
    TenantRequired,
    /// AADSTS700016: not consented, revoked or ended; one text for all.
    #[error(
        "The application '{app_id}' was not found in this tenant: it has not been consented to by the tenant's administrator, or not any more, or the request went to the wrong tenant."
    )]
    NotFoundInTenant {
        /// Which.
        app_id: ApplicationId,
    },
    /// AADSTS7000215.
    #[error("Invalid client secret provided for application '{app_id}'. Give the secret's value, not its id.")]
    WrongSecret {
        /// Whose.
        app_id: ApplicationId,
    },
    /// AADSTS7000222.
    #[error("The client secret '{key_id}' of application '{app_id}' has ended.")]
    ExpiredSecret {
        /// Whose.
        app_id: ApplicationId,
        /// Which.
        key_id: Uuid,
    },
    /// AADSTS65001: the home tenant has not granted the role to its own application.
    #[error("The application '{app_id}' has no consent in its own organisation.")]
    NotConsentedAtHome {
        /// Which.
        app_id: ApplicationId,
    },
    /// AADSTS65001: the consent does not cover the role.
    #[error("The consent given does not cover the role Mailbox.Migration.")]
    RoleNotGranted,
    /// AADSTS700027.
    #[error("The client assertion is not accepted: {why}.")]
    AssertionInvalid {
        /// Why.
        why: String,
    },
    /// AADSTS700027: signed by a key that was not pinned.
    #[error("The client assertion of {issuer} is signed with key '{kid}', which was not pinned at consent.")]
    KeyNotPinned {
        /// Whose.
        issuer: String,
        /// Which key.
        kid: String,
    },
    /// AADSTS700027: used before.
    #[error("The client assertion was used before; each serves once.")]
    AssertionReplayed,
    /// No proof of possession.
    #[error("The request needs one DPoP header: tokens are bound to the client's key.")]
    ProofMissing,
    /// The proof is not accepted (RFC 9449 §5).
    #[error("The DPoP proof is not accepted: {0}.")]
    Proof(DpopError),
    /// AADSTS90033.
    #[error("The service cannot answer now; try again.")]
    Unavailable(#[from] KeyStoreError),
}

impl From<StoreError> for TokenError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.into())
    }
}

impl From<CryptographyFailed> for TokenError {
    fn from(error: CryptographyFailed) -> Self {
        Self::Unavailable(error.into())
    }
}

impl TokenError {
    /// The number that the identity platform documents for this situation.
    #[must_use]
    pub fn aadsts(&self) -> Option<u32> {
        match self {
            Self::MissingParameter { .. } => Some(900_144),
            Self::Malformed { .. } => Some(90_013),
            Self::UnsupportedGrantType => Some(70_003),
            Self::BadScope => Some(70_011),
            Self::MissingCredential => Some(7_000_218),
            Self::TenantNotFound => Some(90_002),
            Self::TenantRequired => Some(9_001_023),
            Self::NotFoundInTenant { .. } => Some(700_016),
            Self::WrongSecret { .. } => Some(7_000_215),
            Self::ExpiredSecret { .. } => Some(7_000_222),
            Self::NotConsentedAtHome { .. } | Self::RoleNotGranted => Some(65_001),
            Self::AssertionInvalid { .. } | Self::KeyNotPinned { .. } | Self::AssertionReplayed => Some(700_027),
            Self::ProofMissing | Self::Proof(_) => None,
            Self::Unavailable(_) => Some(90_033),
        }
    }

    /// `error` of the answer (RFC 6749 §5.2, RFC 9449 §5).
    #[must_use]
    pub fn oauth_error(&self) -> &'static str {
        match self {
            Self::MissingParameter { .. } | Self::Malformed { .. } | Self::TenantRequired => "invalid_request",
            Self::TenantNotFound => "invalid_tenant",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::BadScope => "invalid_scope",
            Self::NotFoundInTenant { .. } => "unauthorized_client",
            Self::MissingCredential
            | Self::WrongSecret { .. }
            | Self::ExpiredSecret { .. }
            | Self::AssertionInvalid { .. }
            | Self::KeyNotPinned { .. }
            | Self::AssertionReplayed => "invalid_client",
            Self::NotConsentedAtHome { .. } | Self::RoleNotGranted => "invalid_grant",
            Self::ProofMissing | Self::Proof(_) => "invalid_dpop_proof",
            Self::Unavailable(_) => "temporarily_unavailable",
        }
    }

    /// The HTTP status of the answer.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        match self.oauth_error() {
            "invalid_client" => 401,
            "temporarily_unavailable" => 503,
            _ => 400,
        }
    }

    /// The id under which it is reported.
    #[must_use]
    pub fn error_id(&self) -> ErrorId {
        match self {
            Self::MissingParameter { .. }
            | Self::Malformed { .. }
            | Self::UnsupportedGrantType
            | Self::BadScope
            | Self::MissingCredential => ErrorId::ParameterBinding,
            Self::TenantNotFound | Self::TenantRequired => ErrorId::InvalidTenant,
            Self::NotFoundInTenant { .. } | Self::RoleNotGranted => ErrorId::ApplicationNotConsented,
            Self::WrongSecret { .. } => ErrorId::InvalidClientSecret,
            Self::ExpiredSecret { .. } => ErrorId::ExpiredClientSecret,
            Self::NotConsentedAtHome { .. } => ErrorId::HomeConsentMissing,
            Self::KeyNotPinned { .. } => ErrorId::KeyNotPinned,
            Self::AssertionInvalid { .. } | Self::AssertionReplayed | Self::ProofMissing | Self::Proof(_) => {
                ErrorId::InvalidAccessToken
            }
            Self::Unavailable(_) => ErrorId::CommunicationErrorTransient,
        }
    }

    /// The next step.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::MissingParameter { .. }
            | Self::Malformed { .. }
            | Self::UnsupportedGrantType
            | Self::BadScope
            | Self::MissingCredential
            | Self::ProofMissing
            | Self::Proof(_) => "Correct the request.",
            Self::TenantNotFound | Self::TenantRequired => "Give the tenant's GUID or one of its accepted domains.",
            Self::NotFoundInTenant { .. } => "The source's administrator opens the consent link (again).",
            Self::WrongSecret { .. } => "Give the secret's value with Set-MigrationEndpoint -Credentials.",
            Self::ExpiredSecret { .. } => {
                "Make a new secret with Add-MgApplicationPassword and give it with Set-MigrationEndpoint -Credentials."
            }
            Self::NotConsentedAtHome { .. } => {
                "Grant it with New-MgServicePrincipalAppRoleAssignment in the application's own tenant."
            }
            Self::RoleNotGranted => "Add Mailbox.Migration to the application's permissions, then renew consent.",
            Self::AssertionInvalid { .. } | Self::AssertionReplayed => {
                "Try again; if it stays, compare both servers' clocks and public names."
            }
            Self::KeyNotPinned { .. } => {
                "Ask the partner by another channel whether its keys changed, then renew consent."
            }
            Self::Unavailable(_) => LOOK_AT_LOG,
        }
    }
}

/// Why a proof of possession is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DpopError {
    /// Not such a proof, or its signature is wrong.
    #[error(transparent)]
    Token(#[from] JwsError),
    /// Made for another method.
    #[error("the proof is for another method (htm)")]
    OtherMethod,
    /// Made for another URL.
    #[error("the proof is for another URL (htu), expected {expected}")]
    OtherUrl {
        /// The request's own URL without query.
        expected: String,
    },
    /// `iat` more than 120 seconds away.
    #[error("the proof is not of this time (iat): compare both servers' clocks")]
    NotNow,
    /// `jti` missing or too long.
    #[error("the proof's id (jti) is missing or too long")]
    BadId,
    /// Made for another access token, or for none.
    #[error("the proof does not belong to the access token (ath)")]
    OtherToken,
    /// The token is bound to another key.
    #[error("the proof is not made with the key that the token is bound to")]
    OtherKey,
    /// Seen within the last five minutes.
    #[error("the proof was used before")]
    Replayed,
    /// Too many requests in five minutes.
    #[error("too many requests; try again in a few minutes")]
    MemoryFull,
}

impl DpopError {
    /// The id under which it is reported.
    #[must_use]
    pub fn error_id(&self) -> ErrorId {
        match self {
            Self::MemoryFull => ErrorId::CommunicationErrorTransient,
            Self::Token(_)
            | Self::OtherMethod
            | Self::OtherUrl { .. }
            | Self::NotNow
            | Self::BadId
            | Self::OtherToken
            | Self::OtherKey
            | Self::Replayed => ErrorId::InvalidAccessToken,
        }
    }

    /// The next step.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::NotNow => "Compare both servers' clocks.",
            Self::OtherUrl { .. } => "Reach the server under its public name.",
            Self::MemoryFull => "Wait a few minutes.",
            Self::Token(_) | Self::OtherMethod | Self::BadId | Self::OtherToken | Self::OtherKey | Self::Replayed => {
                "Make a fresh proof for each request with the key that the token is bound to."
            }
        }
    }
}

/// Why the MRS proxy does not know its caller.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Not an access token, or its signature is wrong.
    #[error(transparent)]
    Token(#[from] JwsError),
    /// A claim is missing or not that of this tenant.
    #[error("the access token's claim {claim} is not right here")]
    Claim {
        /// Which.
        claim: &'static str,
    },
    /// It ended.
    #[error("the access token has ended")]
    Expired,
    /// The proof is not accepted.
    #[error(transparent)]
    Proof(#[from] DpopError),
    /// The tenant's keys could not be had.
    #[error("the tenant's keys cannot be used")]
    Keys(#[from] KeyStoreError),
}

impl AccessError {
    /// The id under which it is reported.
    #[must_use]
    pub fn error_id(&self) -> ErrorId {
        match self {
            Self::Token(_) | Self::Claim { .. } | Self::Expired => ErrorId::InvalidAccessToken,
            Self::Proof(e) => e.error_id(),
            Self::Keys(e) => e.error_id(),
        }
    }

    /// The next step.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Token(_) | Self::Claim { .. } | Self::Expired => "Get a new token from the tenant's token endpoint.",
            Self::Proof(e) => e.advice(),
            Self::Keys(e) => e.advice(),
        }
    }

    /// The HTTP status of the answer.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        match self {
            Self::Keys(_) | Self::Proof(DpopError::MemoryFull) => 503,
            Self::Token(_) | Self::Claim { .. } | Self::Expired | Self::Proof(_) => 401,
        }
    }

    /// The `WWW-Authenticate` header of a 401 (RFC 9449 §7.1).
    #[must_use]
    pub fn www_authenticate(&self) -> &'static str {
        match self {
            Self::Proof(_) => r#"DPoP error="invalid_dpop_proof", algs="ES256""#,
            Self::Token(_) | Self::Claim { .. } | Self::Expired | Self::Keys(_) => {
                r#"DPoP error="invalid_token", algs="ES256""#
            }
        }
    }
}

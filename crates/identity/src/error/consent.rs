//! Applications and consent.

use super::{DescriptionError, KeyStoreError, LOOK_AT_LOG};
use crate::jws::CryptographyFailed;
use rehome_domain::{error_id::ErrorId, id::ApplicationId};
use rehome_store::StoreError;
use uuid::Uuid;

/// Why an application registration or a secret is not made or changed.
#[derive(Debug, thiserror::Error)]
pub enum ApplicationError {
    /// Its name is empty, too long or holds control characters.
    #[error("an application's name has 1 to 120 characters, none of them a control character")]
    BadName,
    /// A redirect URI is not allowed.
    #[error("the redirect URI '{uri}' is not allowed: {why}")]
    BadRedirectUri {
        /// Which.
        uri: String,
        /// Why.
        why: &'static str,
    },
    /// Over the limit.
    #[error("an application has at most {} redirect URIs", crate::application::MAX_REDIRECT_URIS)]
    TooManyRedirectUris,
    /// A permission that does not exist here.
    #[error(
        "the permission '{name}' does not exist: there are Mailbox.Migration (application) and User.Read (delegated)"
    )]
    UnknownPermission {
        /// Which.
        name: String,
    },
    /// A role that the application does not ask for.
    #[error("the application does not ask for the role '{role}'")]
    RoleNotRequired {
        /// Which.
        role: String,
    },
    /// No such application in this tenant.
    #[error("there is no application {app_id} in this tenant")]
    NotFound {
        /// Which.
        app_id: ApplicationId,
    },
    /// No such secret.
    #[error("the application has no secret {key_id}")]
    SecretNotFound {
        /// Which.
        key_id: Uuid,
    },
    /// The end is in the past or more than 24 months away.
    #[error("a secret's end must lie in the future, at most 24 months away")]
    BadSecretEnd,
    /// Over the limit.
    #[error("an application has at most {} secrets at once", crate::application::MAX_SECRETS)]
    TooManySecrets,
    /// The database failed.
    #[error("the state database failed")]
    Store(#[from] StoreError),
    /// The tenant's keys could not be had.
    #[error("the tenant's keys cannot be used")]
    Keys(#[from] KeyStoreError),
    /// Random source or signing failed.
    #[error(transparent)]
    Cryptography(#[from] CryptographyFailed),
}

impl ApplicationError {
    /// The id under which it is reported.
    #[must_use]
    pub fn error_id(&self) -> ErrorId {
        match self {
            Self::BadName
            | Self::BadRedirectUri { .. }
            | Self::TooManyRedirectUris
            | Self::UnknownPermission { .. }
            | Self::RoleNotRequired { .. }
            | Self::BadSecretEnd => ErrorId::ParameterBinding,
            Self::TooManySecrets => ErrorId::InvalidOperation,
            Self::NotFound { .. } | Self::SecretNotFound { .. } => ErrorId::ManagementObjectNotFound,
            Self::Keys(e) => e.error_id(),
            Self::Store(StoreError::Taken { .. }) => ErrorId::ObjectAlreadyExists,
            Self::Store(_) | Self::Cryptography(_) => ErrorId::Unexpected,
        }
    }

    /// The next step.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::BadName => "Give another -DisplayName.",
            Self::BadRedirectUri { .. } | Self::TooManyRedirectUris => "Give redirect URIs such as https://office.com.",
            Self::UnknownPermission { .. } => {
                "For cross-tenant moves ask for Mailbox.Migration of Office 365 Exchange Online."
            }
            Self::RoleNotRequired { .. } => "Add it to the application's required permissions first.",
            Self::NotFound { .. } => "List them with Get-MgApplication.",
            Self::SecretNotFound { .. } => "List the application's secrets with Get-MgApplication.",
            Self::BadSecretEnd => "Give an end within the next 24 months, or none for 6 months.",
            Self::TooManySecrets => "Remove those that are not used any more.",
            Self::Keys(e) => e.advice(),
            Self::Store(_) | Self::Cryptography(_) => LOOK_AT_LOG,
        }
    }
}

/// Why consent cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum ConsentError {
    /// AADSTS900144.
    #[error("the link lacks the parameter '{parameter}'")]
    MissingParameter {
        /// Which.
        parameter: &'static str,
    },
    /// AADSTS90013.
    #[error("the link's parameter '{parameter}' is malformed or stands twice")]
    Malformed {
        /// Which.
        parameter: &'static str,
    },
    /// AADSTS700016.
    #[error("the application {app_id} was not found")]
    AppNotFound {
        /// Which.
        app_id: ApplicationId,
    },
    /// AADSTS50011: the page does not lead there.
    #[error("the redirect URI '{redirect_uri}' is not one that the application lists")]
    RedirectMismatch {
        /// What the link asks for.
        redirect_uri: String,
    },
    /// AADSTS50194.
    #[error("the application {app_id} is not multi-tenant: only its own organisation may consent")]
    SingleTenant {
        /// Which.
        app_id: ApplicationId,
    },
    /// AADSTS650056.
    #[error("the application does not ask for the permission Mailbox.Migration")]
    PermissionMissing,
    /// AADSTS90094.
    #[error("need admin approval: consent takes a member of Organization Management")]
    NeedAdminApproval,
    /// An identifier is known under another authority.
    #[error("{what} is already known here under {known}, but the link's is under {asking}")]
    Conflict {
        /// `tenant …` or `application …`.
        what: String,
        /// The issuer known.
        known: String,
        /// The issuer that asks.
        asking: String,
    },
    /// A renewal whose keys are all new: none of the pinned ones is published any more.
    #[error("the application's organisation publishes none of the keys that were pinned when consent was given")]
    KeysReplaced,
    /// The consent would last less than a day or longer than allowed.
    #[error("consent may be given for 1 to {most} days")]
    BadDuration {
        /// The longest.
        most: u32,
    },
    /// The description is not accepted.
    #[error("the application's description is not accepted")]
    Description(#[from] DescriptionError),
    /// The database failed.
    #[error("the state database failed")]
    Store(#[from] StoreError),
    /// The tenant's keys could not be had.
    #[error("the tenant's keys cannot be used")]
    Keys(#[from] KeyStoreError),
}

impl ConsentError {
    /// The number that the identity platform documents for this situation.
    #[must_use]
    pub fn aadsts(&self) -> Option<u32> {
        match self {
            Self::MissingParameter { .. } => Some(900_144),
            Self::Malformed { .. } => Some(90_013),
            Self::AppNotFound { .. } => Some(700_016),
            Self::RedirectMismatch { .. } => Some(50_011),
            Self::SingleTenant { .. } => Some(50_194),
            Self::PermissionMissing => Some(650_056),
            Self::NeedAdminApproval => Some(90_094),
            Self::Conflict { .. }
            | Self::KeysReplaced
            | Self::BadDuration { .. }
            | Self::Description(_)
            | Self::Store(_)
            | Self::Keys(_) => None,
        }
    }

    /// The id under which it is reported.
    #[must_use]
    pub fn error_id(&self) -> ErrorId {
        match self {
            Self::MissingParameter { .. }
            | Self::Malformed { .. }
            | Self::RedirectMismatch { .. }
            | Self::BadDuration { .. } => ErrorId::ParameterBinding,
            Self::AppNotFound { .. } => ErrorId::ManagementObjectNotFound,
            Self::SingleTenant { .. } | Self::PermissionMissing => ErrorId::InvalidOperation,
            Self::NeedAdminApproval => ErrorId::AccessDenied,
            Self::Conflict { .. } => ErrorId::ObjectAlreadyExists,
            Self::KeysReplaced => ErrorId::KeyNotPinned,
            Self::Description(e) => e.error_id(),
            Self::Keys(e) => e.error_id(),
            Self::Store(_) => ErrorId::Unexpected,
        }
    }

    /// The next step.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::MissingParameter { .. } | Self::Malformed { .. } | Self::AppNotFound { .. } => {
                "Open the partner's link unchanged, or ask the partner for a new one."
            }
            Self::RedirectMismatch { .. } => {
                "The partner adds it to the application's redirect URIs, or sends a link with one that is listed."
            }
            Self::SingleTenant { .. } => "The partner sets the application's SignInAudience to AzureADMultipleOrgs.",
            Self::PermissionMissing => "The partner adds Mailbox.Migration to the application's required permissions.",
            Self::NeedAdminApproval => "Sign in with an account in Organization Management.",
            Self::Conflict { .. } => {
                "Ask the partner by another channel which authority is its own, and for a link of that one; a new authority needs a newly registered application."
            }
            Self::KeysReplaced => {
                "Ask the partner by another channel whether it replaced its keys. Only if it did: Remove-MgServicePrincipal, then open the link again."
            }
            Self::BadDuration { .. } => "Give fewer days.",
            Self::Description(e) => e.advice(),
            Self::Keys(e) => e.advice(),
            Self::Store(_) => LOOK_AT_LOG,
        }
    }
}

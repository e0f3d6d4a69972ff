//! How a cmdlet fails: id, category, target, message, advice.

use rehome_command::BindError;
use rehome_domain::{
    error_id::{ErrorId, Problem},
    naming::NamingError,
};
use rehome_store::StoreError;

/// PowerShell's error category.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// The object does not exist.
    ObjectNotFound,
    /// A parameter or its value is wrong.
    InvalidArgument,
    /// The name is taken.
    ResourceExists,
    /// Not in this state.
    InvalidOperation,
    /// Not allowed.
    PermissionDenied,
    /// The other side could not be reached, or refused.
    ConnectionError,
    /// Anything else.
    NotSpecified,
}

impl Category {
    /// As PowerShell prints it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ObjectNotFound => "ObjectNotFound",
            Self::InvalidArgument => "InvalidArgument",
            Self::ResourceExists => "ResourceExists",
            Self::InvalidOperation => "InvalidOperation",
            Self::PermissionDenied => "PermissionDenied",
            Self::ConnectionError => "ConnectionError",
            Self::NotSpecified => "NotSpecified",
        }
    }

    fn of(id: ErrorId) -> Self {
        match id {
            ErrorId::ManagementObjectNotFound
            | ErrorId::MigrationRecipientNotFound
            | ErrorId::CommandNotFound
            | ErrorId::MemberNotFound => Self::ObjectNotFound,
            ErrorId::ManagementObjectAmbiguous
            | ErrorId::ParameterBinding
            | ErrorId::MigrationCsvInvalid
            | ErrorId::OutcomeStatementInvalid
            | ErrorId::NotAcceptedDomain
            | ErrorId::SameTenant
            | ErrorId::InvalidTenant => Self::InvalidArgument,
            ErrorId::ObjectAlreadyExists | ErrorId::MemberAlreadyExists | ErrorId::UserDuplicateInOtherBatch => {
                Self::ResourceExists
            }
            ErrorId::AccessDenied | ErrorId::SourceTenantNotAuthorized => Self::PermissionDenied,
            ErrorId::MigrationServerConnectionFailed
            | ErrorId::ImapAuthentication
            | ErrorId::PartnerIdentityChanged
            | ErrorId::KeyNotPinned
            | ErrorId::ProtocolVersion
            | ErrorId::ApplicationNotConsented
            | ErrorId::InvalidClientSecret
            | ErrorId::ExpiredClientSecret
            | ErrorId::HomeConsentMissing
            | ErrorId::InvalidAccessToken
            | ErrorId::CommunicationErrorTransient => Self::ConnectionError,
            ErrorId::InvalidOperation
            | ErrorId::OrganizationRelationshipDisabled
            | ErrorId::MailboxMoveCapability
            | ErrorId::MailboxMovePublishedScopesMissing
            | ErrorId::MailboxNotInCrossTenantMigrationScope
            | ErrorId::MailboxOnHold
            | ErrorId::SourceMailboxAlreadyBeingMovedPermanent
            | ErrorId::RoutingAddressNotAccepted
            | ErrorId::LegacyExchangeDnNotAccepted
            | ErrorId::CutoverNotNow
            | ErrorId::StaleAttempt
            | ErrorId::MailboxReopened
            | ErrorId::LeaseLapsed
            | ErrorId::RootMismatch
            | ErrorId::ReadBackRequired
            | ErrorId::ItemDigestMismatch
            | ErrorId::MissingExchangeGuid
            | ErrorId::MissingX500Proxy
            | ErrorId::TargetDeliveryDomainMismatchPermanent
            | ErrorId::MigrationPermanent
            | ErrorId::ExternalEmailAddressInvalid
            | ErrorId::SkippedItemsNotApproved
            | ErrorId::MailboxNotLocked
            | ErrorId::ReturnNotApproved
            | ErrorId::ReturnPeriodEnded
            | ErrorId::ReturnRightMissing
            | ErrorId::OldContentGone
            | ErrorId::SourceContentsShrank => Self::InvalidOperation,
            ErrorId::MailboxPlatform | ErrorId::Unexpected => Self::NotSpecified,
        }
    }
}

/// Why a cmdlet did nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{id}: {message}")]
pub struct CommandError {
    /// Which error.
    pub id: ErrorId,
    /// Its category.
    pub category: Category,
    /// The object or parameter it is about; may be empty.
    pub target: String,
    /// What is wrong.
    pub message: String,
    /// The next step; may be empty.
    pub advice: String,
}

impl CommandError {
    /// An error of this id.
    pub(crate) fn new(
        id: ErrorId,
        target: impl Into<String>,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            id,
            category: Category::of(id),
            target: target.into(),
            message: message.into(),
            advice: advice.into(),
        }
    }

    /// The object does not exist in the organisation.
    pub(crate) fn not_found(identity: &str, organisation: &str, advice: impl Into<String>) -> Self {
        let message = format!(
            "The operation couldn't be performed because object '{identity}' couldn't be found on '{organisation}'."
        );
        Self::new(ErrorId::ManagementObjectNotFound, identity, message, advice)
    }

    /// A parameter's value cannot be taken.
    pub(crate) fn parameter(name: &str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(ErrorId::ParameterBinding, name, message, advice)
    }

    /// The action does not fit the object's state.
    pub(crate) fn invalid_operation(target: &str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(ErrorId::InvalidOperation, target, message, advice)
    }

    /// What should not fail has failed; the cause goes to the log alone.
    pub(crate) fn unexpected(doing: &str, error: &dyn std::error::Error) -> Self {
        tracing::error!(error = error_chain(error), doing, "a cmdlet failed unexpectedly");
        Self::new(
            ErrorId::Unexpected,
            "",
            format!("Something went wrong while {doing}; nothing was changed."),
            "The server's log has the cause under this correlation id.",
        )
    }

    /// With another target.
    pub(crate) fn about(mut self, target: &str) -> Self {
        target.clone_into(&mut self.target);
        self
    }
}

/// An error with all its causes in one line.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Taken { what, value } => Self::new(
                ErrorId::ObjectAlreadyExists,
                value.as_str(),
                format!("The {what} '{value}' is already in use in this organisation."),
                "Choose another, or change the object that has it.",
            ),
            StoreError::Stale { what } => Self::invalid_operation(
                "",
                format!("{what} was changed by another worker meanwhile; nothing was changed."),
                "Run the command again.",
            ),
            StoreError::Database { .. } | StoreError::Unreadable { .. } | StoreError::NewerSchema { .. } => {
                Self::unexpected("using the state database", &error)
            }
        }
    }
}

impl From<BindError> for CommandError {
    fn from(error: BindError) -> Self {
        let target = error.parameter().unwrap_or_default().to_owned();
        Self::new(
            ErrorId::ParameterBinding,
            target,
            error.to_string(),
            "rehome help CMDLET shows the parameters.",
        )
    }
}

impl From<NamingError> for CommandError {
    fn from(error: NamingError) -> Self {
        let target = match &error {
            NamingError::Text { what, .. } => what,
            NamingError::Alias(_) => "Alias",
            NamingError::TwoPrimaries(..) | NamingError::NoSmtp | NamingError::PrimaryRemoved(_) => "EmailAddresses",
        };
        let text = error.to_string();
        let mut letters = text.chars();
        let message = letters
            .next()
            .map(|c| c.to_uppercase().chain(letters).collect::<String>())
            .unwrap_or_default();
        Self::parameter(target, format!("{message}."), "")
    }
}

impl From<Problem> for CommandError {
    fn from(problem: Problem) -> Self {
        Self::new(problem.id, "", problem.message, problem.advice)
    }
}

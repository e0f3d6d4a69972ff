//! The error ids that administrators and partners see, spelt as in Exchange; ids that it lacks are ours.

macro_rules! error_ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Which error this is; its name is what is printed and searched for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorId { $($(#[$doc])* $name),+ }

        impl ErrorId {
            /// Every id.
            pub const ALL: &'static [ErrorId] = &[$(ErrorId::$name),+];

            /// The id as printed: the name with `Exception` at its end.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(ErrorId::$name => concat!(stringify!($name), "Exception")),+ }
            }
        }
    };
}

error_ids! {
    /// The object named does not exist in this organisation.
    ManagementObjectNotFound,
    /// The identity names more than one object.
    ManagementObjectAmbiguous,
    /// A name, address or GUID is already used.
    ObjectAlreadyExists,
    /// A parameter's value cannot be taken.
    ParameterBinding,
    /// The CSV file as a whole cannot be used.
    MigrationCsvInvalid,
    /// The action does not fit the object's present state.
    InvalidOperation,
    /// The source's server could not be reached or did not answer as one.
    MigrationServerConnectionFailed,
    /// The IMAP server did not let us in for the account.
    ImapAuthentication,
    /// Source and target are the same tenant.
    SameTenant,
    /// The remote tenant is not known there.
    InvalidTenant,
    /// The remote tenant's GUID, keys or origin changed since the endpoint was made.
    PartnerIdentityChanged,
    /// The partner signs with a key that was not pinned at consent.
    KeyNotPinned,
    /// Two parts speak different protocol versions.
    ProtocolVersion,
    /// No service principal, or revoked (AADSTS700016).
    ApplicationNotConsented,
    /// The secret is wrong (AADSTS7000215).
    InvalidClientSecret,
    /// The secret is past its end date (AADSTS7000222).
    ExpiredClientSecret,
    /// The target has not consented to its own application.
    HomeConsentMissing,
    /// The access token was refused at the proxy.
    InvalidAccessToken,
    /// No relationship bound to the service principal, or its home tenant is not named.
    SourceTenantNotAuthorized,
    /// The relationship or its mailbox moves are switched off.
    OrganizationRelationshipDisabled,
    /// The relationship lacks the capability.
    MailboxMoveCapability,
    /// The relationship publishes no scope.
    MailboxMovePublishedScopesMissing,
    /// The mailbox is missing, or not a direct member of a published scope.
    MailboxNotInCrossTenantMigrationScope,
    /// A hold keeps the mailbox.
    MailboxOnHold,
    /// Another move has the mailbox.
    SourceMailboxAlreadyBeingMovedPermanent,
    /// The routing address is not one that the source may forward to.
    RoutingAddressNotAccepted,
    /// The LegacyExchangeDN that the target gave cannot be stamped here.
    LegacyExchangeDnNotAccepted,
    /// Too many locks, or outside the hours; the text says until when.
    CutoverNotNow,
    /// The verb belongs to another attempt.
    StaleAttempt,
    /// The source's administrator has opened the mailbox again by hand; the target's decision stands, and it catches up.
    MailboxReopened,
    /// A statement of an outcome cannot be used: not signed by the target tenant, or about something else.
    OutcomeStatementInvalid,
    /// The lock's lease has lapsed; a new attempt is needed.
    LeaseLapsed,
    /// The two roots differ.
    RootMismatch,
    /// Prepare without read-back of the contents.
    ReadBackRequired,
    /// An item's octets differ from their digest.
    ItemDigestMismatch,
    /// The mail user lacks an ExchangeGuid.
    MissingExchangeGuid,
    /// The mail user lacks the source's LegacyExchangeDN as x500 proxy.
    MissingX500Proxy,
    /// An address lies in a domain that the tenant does not accept.
    NotAcceptedDomain,
    /// The mail user has no address in TargetDeliveryDomain.
    TargetDeliveryDomainMismatchPermanent,
    /// There is no recipient for the row.
    MigrationRecipientNotFound,
    /// The recipient is not a mail user, or has a mailbox already.
    MigrationPermanent,
    /// The address is in another active batch.
    UserDuplicateInOtherBatch,
    /// ExternalEmailAddress is missing, or also one of the mail user's own addresses.
    ExternalEmailAddressInvalid,
    /// Items were skipped and not approved yet.
    SkippedItemsNotApproved,
    /// Nothing keeps the mailbox quiet during its cutover, and that was not accepted.
    MailboxNotLocked,
    /// The organisation that has the mailbox now has not approved its return yet.
    ReturnNotApproved,
    /// The time in which a mailbox may be taken back has ended.
    ReturnPeriodEnded,
    /// No commit, or no consent with the return right, lets the mailbox be taken back.
    ReturnRightMissing,
    /// The old content that a return would begin from is not kept any more.
    OldContentGone,
    /// The source's contents lost much at once; waiting for a second listing that agrees.
    SourceContentsShrank,
    /// A mail platform refused or failed.
    MailboxPlatform,
    /// A request failed for a passing reason; it is tried again.
    CommunicationErrorTransient,
    /// No cmdlet of this name among the caller's.
    CommandNotFound,
    /// The recipient is a member of the group already.
    MemberAlreadyExists,
    /// The recipient is not a member of the group.
    MemberNotFound,
    /// The caller may not do this.
    AccessDenied,
    /// Something failed that should not; the log has the cause.
    Unexpected,
}

impl std::fmt::Display for ErrorId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for ErrorId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|id| id.as_str() == text)
            .ok_or_else(|| format!("unknown error id '{text}'"))
    }
}

/// A problem as an administrator reads it: which, about what, why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which error.
    pub id: ErrorId,
    /// The object and the cause, one or two sentences.
    pub message: String,
    /// The next step, where possible as a command; empty when there is none.
    pub advice: String,
}

impl Problem {
    /// A problem from its three parts.
    pub fn new(id: ErrorId, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            id,
            message: message.into(),
            advice: advice.into(),
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.id, self.message)?;
        if self.advice.is_empty() {
            Ok(())
        } else {
            write!(f, " Next: {}", self.advice)
        }
    }
}

impl std::error::Error for Problem {}

//! How the mover reaches the source's deployment; carried out over HTTPS by `remote`'s client, in process by tests.

use crate::protocol::{
    AbortAnswer, CommitAnswer, LeaseAnswer, OpenAnswer, PairsAnswer, PairsRequest, PrepareAnswer, PrepareRequest,
    ReceiptAnswer, ReceiptRequest, StatusAnswer, SweepAnswer, TakeBackAnswer,
};
use async_trait::async_trait;
use rehome_domain::{
    consent::PinnedKeys,
    error_id::{ErrorId, Problem},
    id::{ApplicationId, AttemptId, CorrelationId, ExchangeGuid, MoveId, TenantId},
};
use rehome_mailbox::Retry;
use rehome_replicate::link::SourceLink;
use secrecy::SecretString;
use std::sync::Arc;

/// Whom to reach, and as whom.
#[derive(Clone)]
pub struct PartnerAddress {
    /// Our tenant, whose application it is.
    pub home_tenant: TenantId,
    /// `host[:port]` of the source's deployment.
    pub remote_server: String,
    /// The source tenant's domain or GUID.
    pub remote_tenant: String,
    /// The source tenant's GUID as found earlier; another one found now stops work.
    pub remote_tenant_id: Option<TenantId>,
    /// The application.
    pub application_id: ApplicationId,
    /// Its secret; shown to our own authority only.
    pub secret: SecretString,
    /// Our authority speaks for itself, to take a mailbox back: `application_id` is our return client then, and there is
    /// no secret.
    pub returning: bool,
}

/// What a source says of itself, checked to be its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartnerDescription {
    /// Its tenant.
    pub tenant: TenantId,
    /// Its issuer.
    pub issuer: String,
    /// Its domains.
    pub home_domains: Vec<String>,
    /// Where the outcome of its attempts can be asked.
    pub outcome_endpoint: String,
    /// Its keys, to be pinned.
    pub keys: PinnedKeys,
    /// The id of the key that signed all this.
    pub signer: String,
}

/// Why the partner could not be reached or refused.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{problem}")]
pub struct PartnerError {
    /// For the administrator: id, cause, next step.
    pub problem: Problem,
    /// Whether and when trying again makes sense.
    pub retry: Retry,
    /// The correlation id of the request, if one was sent.
    pub correlation: Option<CorrelationId>,
}

/// Reaches source deployments.
#[async_trait]
pub trait Partner: Send + Sync {
    /// Finds the source tenant, checks origins and protocol version, obtains a token, and returns the tenant's GUID with a proxy to it.
    ///
    /// A tenant found without consent is [`PartnerError`] with id `ApplicationNotConsented`.
    async fn connect(&self, address: &PartnerAddress, correlation: CorrelationId) -> Result<Connected, PartnerError>;

    /// As [`Partner::connect`], but nothing is used that an earlier mover found: what a test of availability must ask.
    async fn connect_anew(
        &self,
        address: &PartnerAddress,
        correlation: CorrelationId,
    ) -> Result<Connected, PartnerError> {
        self.connect(address, correlation).await
    }

    /// What the source says of itself, by its own server: asked before a mailbox comes from there that may be taken back.
    async fn describe(
        &self,
        address: &PartnerAddress,
        correlation: CorrelationId,
    ) -> Result<PartnerDescription, PartnerError>;

    /// Finds the source tenant only: no token, no consent needed.
    async fn find_tenant(&self, address: &PartnerAddress, correlation: CorrelationId)
    -> Result<TenantId, PartnerError>;
}

/// A reached source tenant.
pub struct Connected {
    /// Its GUID.
    pub tenant: TenantId,
    /// Its proxy.
    pub proxy: Arc<dyn SourceProxy>,
}

/// The source's MRS proxy for one mover. Control verbs use a connection of their own.
#[async_trait]
pub trait SourceProxy: Send + Sync {
    /// Facts of a mailbox; walks the gate.
    async fn open(&self, mailbox: MailboxRef) -> Result<OpenAnswer, PartnerError>;
    /// The link through which contents of a mailbox are pulled.
    fn link(&self, mailbox: MailboxRef) -> Arc<dyn SourceLink>;
    /// The link through which a sweep lists and reads: the verb is `Sweep`, of this attempt.
    fn sweep_link(&self, mailbox: MailboxRef, attempt: AttemptId) -> Arc<dyn SourceLink>;
    /// Locks for a cutover.
    async fn lock(&self, mailbox: MailboxRef, attempt: AttemptId) -> Result<LeaseAnswer, PartnerError>;
    /// Renews the lock's lease.
    async fn renew(&self, mailbox: MailboxRef, attempt: AttemptId) -> Result<LeaseAnswer, PartnerError>;
    /// Asks for the promise.
    async fn prepare(&self, mailbox: MailboxRef, request: &PrepareRequest) -> Result<PrepareAnswer, PartnerError>;
    /// Tells the decision.
    async fn commit(&self, mailbox: MailboxRef, attempt: AttemptId) -> Result<CommitAnswer, PartnerError>;
    /// Tells that the attempt is given up.
    async fn abort(&self, mailbox: MailboxRef, attempt: AttemptId) -> Result<AbortAnswer, PartnerError>;
    /// Where the attempt stands.
    async fn status(&self, mailbox: MailboxRef, attempt: AttemptId) -> Result<StatusAnswer, PartnerError>;
    /// What came late.
    async fn sweep(&self, mailbox: MailboxRef, attempt: AttemptId) -> Result<SweepAnswer, PartnerError>;
    /// Asks the old source to take back the mailbox that it committed in this attempt.
    async fn take_back(&self, mailbox: MailboxRef, attempt: AttemptId) -> Result<TakeBackAnswer, PartnerError>;
    /// Which items there are which items here, for a move back.
    async fn pairs(&self, mailbox: MailboxRef, request: PairsRequest) -> Result<PairsAnswer, PartnerError>;
    /// Gives the target's statement of the receipt, and gets the source's.
    async fn receipt(&self, mailbox: MailboxRef, request: &ReceiptRequest) -> Result<ReceiptAnswer, PartnerError> {
        let _ = request;
        Err(PartnerError {
            problem: Problem::new(ErrorId::InvalidOperation, "The source gives no receipts.", ""),
            retry: Retry::Never,
            correlation: Some(mailbox.correlation),
        })
    }
    /// Octets received from the source so far, framing included, and requests sent; for the figures.
    fn traffic(&self) -> Traffic;
}

/// What went over the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Octets of answers received.
    pub octets_received: u64,
    /// Requests sent: each is one round trip.
    pub requests: u64,
}

/// Which mailbox, for which move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MailboxRef {
    /// The mailbox.
    pub exchange_guid: ExchangeGuid,
    /// The move.
    pub move_id: MoveId,
    /// The correlation id of this piece of work; stands in both logs.
    pub correlation: CorrelationId,
}

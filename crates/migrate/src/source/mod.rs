//! The source's half: answers a partner's mover behind the gate, and keeps what it promised.

mod admit;
mod by_hand;
mod content;
mod cutover;
mod exporters;
mod journal;
mod keeper;
mod lock;
mod outbound;
mod prepare;
mod receipt;
mod retention;
mod returning;

pub use by_hand::{ByHand, Promised};
pub use content::FrameStream;
pub use outbound::{OutboundTest, OutboundView};
pub(crate) use receipt::says;

use crate::{
    Clock,
    protocol::{OutcomeAnswer, OutcomeRequest},
};
use async_trait::async_trait;
use jiff::SignedDuration;
use rehome_domain::{
    cutover::LockLimits,
    error_id::ErrorId,
    gate::Caller,
    id::{AttemptId, CorrelationId, ExchangeGuid, MoveId, TenantId},
};
use rehome_identity::Identity;
use rehome_platform::Platforms;
use rehome_routing::Routing;
use rehome_store::{Store, StoreError};
use std::sync::{Arc, OnceLock};

/// What the operator sets for the source's half.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    /// Limits on locks.
    pub limits: LockLimits,
    /// How long old content is kept after Commit.
    pub retention: SignedDuration,
    /// How often the outcome of a prepared attempt is asked.
    pub ask_outcome_every: SignedDuration,
}

impl Default for SourceSettings {
    fn default() -> Self {
        Self {
            limits: LockLimits::default(),
            retention: SignedDuration::from_hours(24 * 30),
            ask_outcome_every: SignedDuration::from_secs(10),
        }
    }
}

/// Asks a target's outcome address; carried out by `remote`'s client.
#[async_trait]
pub trait OutcomeAsker: Send + Sync {
    /// Asks once. The text of an error is for the log.
    async fn ask(&self, outcome_endpoint: &str, request: &OutcomeRequest) -> Result<OutcomeAnswer, String>;
}

/// The source's half of one deployment. Cheap to clone.
#[derive(Clone)]
pub struct Source {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    platforms: Platforms,
    routing: Routing,
    outcomes: Arc<dyn OutcomeAsker>,
    clock: Clock,
    settings: SourceSettings,
    exporters: exporters::Exporters,
    journal: journal::Journal,
    preparing: exporters::Preparing,
    quiet: exporters::Quiet,
    /// Signs receipts, once it was said who does.
    identity: OnceLock<Identity>,
}

/// One request of a mover. The access token was checked; `tenant` is the one that issued it.
#[derive(Clone, Debug)]
pub struct VerbContext {
    /// Whose mailbox is asked for.
    pub tenant: TenantId,
    /// Who asks.
    pub caller: Caller,
    /// Which mailbox.
    pub mailbox: ExchangeGuid,
    /// Which move.
    pub move_id: MoveId,
    /// Which attempt, where the verb has one.
    pub attempt: Option<AttemptId>,
    /// Stands in both logs.
    pub correlation: CorrelationId,
    /// The caller's network address.
    pub origin: String,
}

/// Why a request is refused, as the partner learns it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{id}: {message}")]
pub struct ProxyError {
    /// Which error.
    pub id: ErrorId,
    /// The text for the partner; it tells no more than the gate allows.
    pub message: String,
    /// When trying again makes sense, seconds; none: not by itself.
    pub retry_after: Option<u32>,
}

impl ProxyError {
    /// A refusal that trying again does not mend.
    pub(crate) fn refused(id: ErrorId, message: impl Into<String>) -> Self {
        Self {
            id,
            message: message.into(),
            retry_after: None,
        }
    }

    /// A refusal after which the caller may try again, with a new attempt where the error says so.
    pub(crate) fn again(id: ErrorId, message: impl Into<String>, seconds: u32) -> Self {
        Self {
            id,
            message: message.into(),
            retry_after: Some(seconds),
        }
    }

    /// A passing failure; the cause is in this side's log only.
    pub(crate) fn passing(log: &dyn std::error::Error) -> Self {
        tracing::warn!(error = crate::error_chain(log), "a request of a partner failed here");
        Self {
            id: ErrorId::CommunicationErrorTransient,
            message: "The source could not serve the request for the moment; its log has the cause.".into(),
            retry_after: Some(5),
        }
    }
}

impl From<StoreError> for ProxyError {
    fn from(error: StoreError) -> Self {
        Self::passing(&error)
    }
}

impl From<rehome_platform::PlatformError> for ProxyError {
    fn from(error: rehome_platform::PlatformError) -> Self {
        Self::passing(&error)
    }
}

impl Source {
    /// The source's half over these parts.
    #[must_use]
    pub fn new(
        store: Store,
        platforms: Platforms,
        routing: Routing,
        outcomes: Arc<dyn OutcomeAsker>,
        clock: Clock,
        settings: SourceSettings,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                platforms,
                routing,
                outcomes,
                clock,
                settings,
                exporters: exporters::Exporters::default(),
                journal: journal::Journal::default(),
                preparing: exporters::Preparing::default(),
                quiet: exporters::Quiet::default(),
                identity: OnceLock::new(),
            }),
        }
    }

    /// Writes down what was served and is not recorded yet; for the end of the process.
    pub async fn write_records(&self) {
        if let Err(error) = self.inner.journal.flush(&self.inner.store).await {
            tracing::error!(
                error = crate::error_chain(&error),
                "what was served last could not be recorded"
            );
        }
    }
}

//! Migration users and their moves: one row each, worked on under a lease.

use crate::{
    consistency::{Assessment, CountsAs, Findings, assess},
    error_id::Problem,
    id::{BatchId, ExchangeGuid, Fence, MoveId, RecipientId, TenantId},
};
use jiff::Timestamp;

/// One migration user with the move that carries him.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The move (`RequestGuid`), known to the source as well.
    pub id: MoveId,
    /// Whose it is (the target).
    pub tenant: TenantId,
    /// Its batch.
    pub batch: BatchId,
    /// The address of the CSV row; identity of the migration user.
    pub email_address: String,
    /// The mail user found for the row.
    pub recipient: Option<RecipientId>,
    /// The mailbox that is moved; fixed when first validated.
    pub exchange_guid: Option<ExchangeGuid>,
    /// Where it stands.
    pub status: UserStatus,
    /// What a waiting user waits for, in words; empty when running or done.
    pub waiting_for: String,
    /// What stopped it: all problems found at once.
    pub problems: Vec<Problem>,
    /// The correlation id under which the last problem stands in both logs.
    pub problem_correlation: Option<String>,
    /// Overrides the batch's value.
    pub complete_after: Option<Timestamp>,
    /// A sync was asked for now.
    pub sync_now: bool,
    /// Asked to stop.
    pub stop: bool,
    /// Skipped items found up to this time are approved.
    pub skipped_approved_until: Option<Timestamp>,
    /// Not worked on before this time.
    pub next_run: Timestamp,
    /// Consecutive failed tries.
    pub failures: u32,
    /// End of the last successful sync.
    pub last_sync: Option<Timestamp>,
    /// Figures shown by Get-MigrationUserStatistics.
    pub figures: MoveFigures,
    /// Who works on it.
    pub lease: Option<Lease>,
    /// Number of the last lease granted.
    pub fence: Fence,
    /// Grows with every request of an administrator.
    pub requests: i64,
}

/// Who a user is at an IMAP server that he is copied from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteUser {
    /// His account there.
    pub name: String,
    /// The sealed password of his row; none where the endpoint signs in for him, and once he is completed.
    pub sealed_password: Option<Vec<u8>>,
}

/// Who works on a row, until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The worker process.
    pub owner: String,
    /// When it ends; a takeover waits one lease length longer.
    pub expires: Timestamp,
}

/// Figures of a move.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MoveFigures {
    /// Items in the source at the last listing.
    pub items_total: u64,
    /// Items copied, all passes.
    pub items_synced: u64,
    /// Items in the report that were not copied.
    pub items_skipped: u64,
    /// Canonical octets copied.
    pub bytes_synced: u64,
    /// Octets received from the source, framing and retries included.
    pub bytes_on_wire: u64,
    /// Octets of the source at the last listing, as far as known.
    pub bytes_total: u64,
    /// Folders at the last listing.
    pub folders_total: u64,
    /// Milliseconds from Lock stored to Commit stored on the source's clock.
    pub lock_milliseconds: Option<u64>,
    /// Found by sweeps after Commit; expected 0.
    pub swept_items: u64,
    /// Round trips between the organisations under the lock.
    pub lock_round_trips: u64,
    /// Milliseconds that passes took, all of them.
    pub pass_milliseconds: u64,
    /// What the report holds, as of the last pass.
    pub findings: Findings,
}

impl MoveFigures {
    /// How well the copy agrees with its source, by these figures.
    #[must_use]
    pub fn assessment(&self) -> Assessment {
        let lost = self.findings.sum(CountsAs::Lost).octets;
        let octets = self.bytes_total.max(self.bytes_synced.saturating_add(lost));
        assess(&self.findings, self.items_total, octets)
    }
}

impl Move {
    /// How well the copy agrees with its source; none before the first pass has ended.
    #[must_use]
    pub fn assessment(&self) -> Option<Assessment> {
        let known = self.last_sync.is_some() || !self.figures.findings.is_empty();
        known.then(|| self.figures.assessment())
    }
}

macro_rules! user_status {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// `Status` of a migration user.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum UserStatus { $($(#[$doc])* $name),+ }
        impl UserStatus {
            /// Every status.
            pub const ALL: &'static [UserStatus] = &[$(UserStatus::$name),+];
            /// As the cmdlets print it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(UserStatus::$name => stringify!($name)),+ }
            }
        }
    };
}

user_status! {
    /// Stored, its batch not started.
    Starting,
    /// The target's own checks run.
    Validating,
    /// Ready; waits for a slot or a time.
    Queued,
    /// Initial sync.
    Syncing,
    /// Initial sync done; waits for completion.
    Synced,
    /// A later sync runs.
    IncrementalSyncing,
    /// A later sync failed for good.
    IncrementalFailed,
    /// The cutover runs.
    Completing,
    /// The cutover failed for good, before the decision.
    CompletionFailed,
    /// Done.
    Completed,
    /// Done; something beside the items is reported.
    CompletedWithWarnings,
    /// Not ready, or initial sync failed.
    Failed,
    /// Stopped before initial sync was done.
    Stopped,
    /// Stopped after it.
    IncrementalStopped,
    /// Being removed.
    Removing,
}

impl std::fmt::Display for UserStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for UserStatus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|s| s.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| format!("unknown status '{text}'"))
    }
}

/// What happens to a migration user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserEvent {
    /// The batch or the user is started, or started again after a failure or stop.
    Start,
    /// The target's checks passed.
    Validated,
    /// A worker begins to copy.
    SyncBegins,
    /// A pass ended well.
    SyncEnds,
    /// Completion begins.
    CompletionBegins,
    /// The cutover was undone; it will be tried again.
    CompletionDeferred,
    /// The source has committed; `warnings` says whether something beside the items is reported.
    Completed {
        /// Something is reported.
        warnings: bool,
    },
    /// It failed and will not be tried again by itself.
    FailForGood,
    /// The administrator stopped it and no worker holds it.
    Stop,
    /// The administrator removes it.
    Remove,
}

/// The event cannot happen in this status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a migration user in status {status} cannot take {event:?}")]
pub struct IllegalUserEvent {
    /// The status.
    pub status: UserStatus,
    /// The event.
    pub event: UserEvent,
}

impl UserStatus {
    /// The status after `event`.
    ///
    /// # Errors
    /// [`IllegalUserEvent`] where the table has no transition.
    #[rustfmt::skip]
    pub fn next(self, event: UserEvent) -> Result<Self, IllegalUserEvent> {
        use UserEvent as E;
        use UserStatus::{
            Completed, CompletedWithWarnings, Completing, CompletionFailed, Failed, IncrementalFailed, IncrementalStopped,
            IncrementalSyncing, Queued, Removing, Starting, Stopped, Synced, Syncing, Validating,
        };
        let next = match (self, event) {
            (Starting | Validating | Queued | Failed | Stopped, E::Start) => Validating,
            (IncrementalFailed | CompletionFailed | IncrementalStopped | Synced, E::Start) => Synced,
            (Syncing | IncrementalSyncing | Completing | Completed | CompletedWithWarnings, E::Start) => self,
            (Validating | Queued, E::Validated) => Queued,
            (Queued | Syncing, E::SyncBegins) => Syncing,
            (Synced | IncrementalSyncing, E::SyncBegins) => IncrementalSyncing,
            (Syncing | IncrementalSyncing, E::SyncEnds) => Synced,
            (Synced | Completing, E::CompletionBegins) => Completing,
            (Completing, E::CompletionDeferred) => Synced,
            (Completing, E::Completed { warnings: false }) => Completed,
            (Completing, E::Completed { warnings: true }) => CompletedWithWarnings,
            (Starting | Validating | Queued | Syncing, E::FailForGood) => Failed,
            (IncrementalSyncing | Synced, E::FailForGood) => IncrementalFailed,
            (Completing, E::FailForGood) => CompletionFailed,
            (Starting | Validating | Queued | Syncing | Failed | Stopped, E::Stop) => Stopped,
            (Synced | IncrementalSyncing | IncrementalFailed | CompletionFailed | IncrementalStopped, E::Stop) => IncrementalStopped,
            (Completed | CompletedWithWarnings, E::Stop) => self,
            (Starting | Validating | Queued | Syncing | Synced | IncrementalSyncing | IncrementalFailed | CompletionFailed
             | Completed | CompletedWithWarnings | Failed | Stopped | IncrementalStopped | Removing, E::Remove) => Removing,
            (Removing, E::Start | E::Validated | E::SyncBegins | E::SyncEnds | E::CompletionBegins | E::CompletionDeferred
             | E::Completed { .. } | E::FailForGood | E::Stop)
            | (Completing, E::Remove | E::Stop | E::Validated | E::SyncBegins | E::SyncEnds)
            | (Starting, E::Validated)
            | (Syncing | Synced | IncrementalSyncing | IncrementalFailed | CompletionFailed | Completed | CompletedWithWarnings
               | Failed | Stopped | IncrementalStopped, E::Validated)
            | (Starting | Validating | IncrementalFailed | CompletionFailed | Completed | CompletedWithWarnings | Failed
               | Stopped | IncrementalStopped, E::SyncBegins)
            | (Starting | Validating | Queued | Synced | IncrementalFailed | CompletionFailed | Completed
               | CompletedWithWarnings | Failed | Stopped | IncrementalStopped, E::SyncEnds)
            | (Starting | Validating | Queued | Syncing | IncrementalSyncing | IncrementalFailed | CompletionFailed | Completed
               | CompletedWithWarnings | Failed | Stopped | IncrementalStopped, E::CompletionBegins)
            | (Starting | Validating | Queued | Syncing | Synced | IncrementalSyncing | IncrementalFailed | CompletionFailed
               | Completed | CompletedWithWarnings | Failed | Stopped | IncrementalStopped,
               E::CompletionDeferred | E::Completed { .. })
            | (IncrementalFailed | CompletionFailed | Completed | CompletedWithWarnings | Failed | Stopped | IncrementalStopped,
               E::FailForGood) => return Err(IllegalUserEvent { status: self, event }),
        };
        Ok(next)
    }

    /// `StatusSummary`: Active, Synced, Completed, Failed or Stopped.
    #[must_use]
    pub fn summary(self) -> &'static str {
        match self {
            Self::Starting
            | Self::Validating
            | Self::Queued
            | Self::Syncing
            | Self::IncrementalSyncing
            | Self::Completing
            | Self::Removing => "Active",
            Self::Synced => "Synced",
            Self::Completed | Self::CompletedWithWarnings => "Completed",
            Self::Failed | Self::IncrementalFailed | Self::CompletionFailed => "Failed",
            Self::Stopped | Self::IncrementalStopped => "Stopped",
        }
    }

    /// Whether a worker may take it up.
    #[must_use]
    pub fn runnable(self) -> bool {
        match self {
            Self::Validating
            | Self::Queued
            | Self::Syncing
            | Self::Synced
            | Self::IncrementalSyncing
            | Self::Completing => true,
            Self::Starting
            | Self::IncrementalFailed
            | Self::CompletionFailed
            | Self::Completed
            | Self::CompletedWithWarnings
            | Self::Failed
            | Self::Stopped
            | Self::IncrementalStopped
            | Self::Removing => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn life_of_a_user() {
        use UserEvent as E;
        let mut status = UserStatus::Starting;
        for (event, expected) in [
            (E::Start, UserStatus::Validating),
            (E::Validated, UserStatus::Queued),
            (E::SyncBegins, UserStatus::Syncing),
            (E::SyncEnds, UserStatus::Synced),
            (E::SyncBegins, UserStatus::IncrementalSyncing),
            (E::Stop, UserStatus::IncrementalStopped),
            (E::Start, UserStatus::Synced),
            (E::CompletionBegins, UserStatus::Completing),
            (E::CompletionDeferred, UserStatus::Synced),
            (E::CompletionBegins, UserStatus::Completing),
            (E::Completed { warnings: false }, UserStatus::Completed),
            (E::Start, UserStatus::Completed),
            (E::Stop, UserStatus::Completed),
        ] {
            status = status.next(event).unwrap();
            assert_eq!(status, expected, "{event:?}");
        }
    }

    #[test]
    fn a_cutover_is_neither_stopped_nor_removed_midway() {
        assert!(UserStatus::Completing.next(UserEvent::Stop).is_err());
        assert!(UserStatus::Completing.next(UserEvent::Remove).is_err());
    }
}

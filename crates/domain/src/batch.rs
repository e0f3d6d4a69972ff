//! Migration batches, and how a batch's status follows from its users'.

use crate::{
    address::DomainName,
    id::{BatchId, EndpointId, TenantId},
    moves::UserStatus,
};
use jiff::Timestamp;

/// A migration batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationBatch {
    /// The object (`BatchGuid`).
    pub id: BatchId,
    /// Whose it is (the target).
    pub tenant: TenantId,
    /// Identity, at most 64 characters, unique in the tenant.
    pub name: String,
    /// Where its users come from.
    pub endpoint: EndpointId,
    /// The domain whose proxy address is stamped on the source; none where the source is an IMAP server.
    pub target_delivery_domain: Option<DomainName>,
    /// What the administrator last asked for.
    pub intent: BatchIntent,
    /// Complete each user as soon as he is synced (`-AutoComplete`).
    pub auto_complete: bool,
    /// Complete from this time on.
    pub complete_after: Option<Timestamp>,
    /// Do not start before.
    pub start_after: Option<Timestamp>,
    /// Skipped items found up to this time are approved.
    pub skipped_approved_until: Option<Timestamp>,
    /// Who made it.
    pub submitted_by: String,
    /// When made.
    pub created: Timestamp,
    /// When first started.
    pub started: Option<Timestamp>,
}

/// What the administrator last asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchIntent {
    /// Stored, not started.
    Created,
    /// Started.
    Started,
    /// Stopped.
    Stopped,
    /// To be removed.
    Removing,
}

/// `Status` of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchStatus {
    /// Stored, not started.
    Created,
    /// Started, StartAfter in the future.
    Waiting,
    /// Started, nothing done yet.
    Starting,
    /// At least one user in initial sync.
    Syncing,
    /// A periodic delta in progress.
    IncrementalSyncing,
    /// Every user finished initial sync.
    Synced,
    /// As Synced, some users failed.
    SyncedWithErrors,
    /// Completion asked for.
    Completing,
    /// All users finalized.
    Completed,
    /// Some users failed to finalize.
    CompletedWithErrors,
    /// Stop asked for, users still running.
    Stopping,
    /// Stopped.
    Stopped,
    /// Every user failed.
    Failed,
    /// Being removed.
    Removing,
}

impl BatchStatus {
    /// As the cmdlets print it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "Created",
            Self::Waiting => "Waiting",
            Self::Starting => "Starting",
            Self::Syncing => "Syncing",
            Self::IncrementalSyncing => "IncrementalSyncing",
            Self::Synced => "Synced",
            Self::SyncedWithErrors => "SyncedwithErrors",
            Self::Completing => "Completing",
            Self::Completed => "Completed",
            Self::CompletedWithErrors => "CompletedWithErrors",
            Self::Stopping => "Stopping",
            Self::Stopped => "Stopped",
            Self::Failed => "Failed",
            Self::Removing => "Removing",
        }
    }
}

/// How many users are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchCounts {
    /// All rows.
    pub total: u64,
    /// Before or in initial sync.
    pub starting: u64,
    /// In initial sync, content moving.
    pub syncing: u64,
    /// Past initial sync, finalized ones included.
    pub synced: u64,
    /// In an incremental sync.
    pub incremental: u64,
    /// In completion.
    pub completing: u64,
    /// Finalized.
    pub finalized: u64,
    /// Failed in any way.
    pub failed: u64,
    /// Failed at finalization.
    pub completion_failed: u64,
    /// Stopped.
    pub stopped: u64,
}

impl BatchCounts {
    /// Counts users by status.
    pub fn of(users: impl IntoIterator<Item = UserStatus>) -> Self {
        let mut c = Self::default();
        for status in users {
            c.total += 1;
            match status {
                UserStatus::Validating | UserStatus::Starting | UserStatus::Queued => c.starting += 1,
                UserStatus::Syncing => c.syncing += 1,
                UserStatus::Synced => c.synced += 1,
                UserStatus::IncrementalSyncing => {
                    c.synced += 1;
                    c.incremental += 1;
                }
                UserStatus::Completing => {
                    c.synced += 1;
                    c.completing += 1;
                }
                UserStatus::Completed | UserStatus::CompletedWithWarnings => {
                    c.synced += 1;
                    c.finalized += 1;
                }
                UserStatus::Failed | UserStatus::IncrementalFailed => c.failed += 1,
                UserStatus::CompletionFailed => {
                    c.failed += 1;
                    c.completion_failed += 1;
                }
                UserStatus::Stopped | UserStatus::IncrementalStopped => c.stopped += 1,
                UserStatus::Removing => {}
            }
        }
        c
    }
}

/// The status that follows from what was asked for and where the users are. `running` says whether a worker holds any of them.
#[must_use]
pub fn batch_status(batch: &MigrationBatch, counts: &BatchCounts, running: bool, now: Timestamp) -> BatchStatus {
    let c = counts;
    match batch.intent {
        BatchIntent::Removing => BatchStatus::Removing,
        BatchIntent::Created => BatchStatus::Created,
        BatchIntent::Stopped if running => BatchStatus::Stopping,
        BatchIntent::Stopped if c.finalized == c.total && c.total > 0 => BatchStatus::Completed,
        BatchIntent::Stopped => BatchStatus::Stopped,
        BatchIntent::Started => {
            let waiting = batch.start_after.is_some_and(|t| t > now);
            let complete_due = batch.auto_complete || batch.complete_after.is_some_and(|t| t <= now);
            if waiting && c.syncing == 0 && c.synced == 0 {
                BatchStatus::Waiting
            } else if c.total > 0 && c.finalized == c.total {
                BatchStatus::Completed
            } else if c.completing > 0 {
                BatchStatus::Completing
            } else if c.syncing > 0 {
                BatchStatus::Syncing
            } else if c.starting > 0 {
                if c.synced + c.failed > 0 {
                    BatchStatus::Syncing
                } else {
                    BatchStatus::Starting
                }
            } else if c.incremental > 0 {
                BatchStatus::IncrementalSyncing
            } else if complete_due && c.synced > c.finalized {
                BatchStatus::Completing
            } else if c.finalized > 0 && c.finalized + c.failed + c.stopped == c.total {
                BatchStatus::CompletedWithErrors
            } else if c.total > 0 && c.failed == c.total && c.completion_failed == 0 {
                BatchStatus::Failed
            } else if c.completion_failed > 0 && c.synced == c.finalized {
                BatchStatus::CompletedWithErrors
            } else if c.total > 0 && c.stopped == c.total {
                BatchStatus::Stopped
            } else if c.failed + c.stopped > 0 {
                BatchStatus::SyncedWithErrors
            } else {
                BatchStatus::Synced
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use UserStatus as U;

    fn batch(intent: BatchIntent, auto_complete: bool) -> MigrationBatch {
        MigrationBatch {
            id: BatchId::from_u128(1),
            tenant: TenantId::from_u128(1),
            name: "b".into(),
            endpoint: EndpointId::from_u128(1),
            target_delivery_domain: Some("fabrikam.example".parse().unwrap()),
            intent,
            auto_complete,
            complete_after: None,
            start_after: None,
            skipped_approved_until: None,
            submitted_by: "admin".into(),
            created: Timestamp::UNIX_EPOCH,
            started: None,
        }
    }

    #[test]
    fn status_table() {
        use BatchIntent::{Created, Removing, Started, Stopped};
        let rows: &[(BatchIntent, bool, &[U], &str)] = &[
            (Created, false, &[U::Queued], "Created"),
            (Started, false, &[U::Validating, U::Queued], "Starting"),
            (Started, false, &[U::Syncing, U::Queued], "Syncing"),
            (Started, false, &[U::Synced, U::Queued], "Syncing"),
            (Started, false, &[U::Synced, U::Synced], "Synced"),
            (
                Started,
                false,
                &[U::Synced, U::IncrementalSyncing],
                "IncrementalSyncing",
            ),
            (Started, false, &[U::Synced, U::Failed], "SyncedwithErrors"),
            (Started, false, &[U::Failed, U::Failed], "Failed"),
            (Started, false, &[U::Completing, U::Synced], "Completing"),
            (Started, true, &[U::Completed, U::Synced], "Completing"),
            (Started, false, &[U::Completed, U::Completed], "Completed"),
            (Started, false, &[U::Completed, U::CompletedWithWarnings], "Completed"),
            (Started, false, &[U::Completed, U::Failed], "CompletedWithErrors"),
            (
                Started,
                false,
                &[U::Completed, U::CompletionFailed],
                "CompletedWithErrors",
            ),
            (Started, false, &[U::CompletionFailed], "CompletedWithErrors"),
            (Stopped, false, &[U::IncrementalStopped, U::Stopped], "Stopped"),
            (Stopped, false, &[U::Completed], "Completed"),
            (Removing, false, &[U::Removing], "Removing"),
        ];
        for (intent, auto, users, expected) in rows {
            let counts = BatchCounts::of(users.iter().copied());
            let status = batch_status(&batch(*intent, *auto), &counts, false, Timestamp::UNIX_EPOCH);
            assert_eq!(status.as_str(), *expected, "{intent:?} {auto} {users:?}");
        }
    }
}

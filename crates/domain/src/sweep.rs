//! When a mailbox that has moved is swept for what came late to its old place.

use crate::error_id::ErrorId;
use jiff::{SignedDuration, Timestamp};

/// The second sweep comes this long after Commit; the first one comes with it.
pub const SECOND_SWEEP: SignedDuration = SignedDuration::from_hours(1);
/// From then on there is one in this time.
pub const SWEEP_EVERY: SignedDuration = SignedDuration::from_hours(24);
/// A sweep that failed for a passing reason is made again after this time.
pub const SWEEP_AGAIN: SignedDuration = SignedDuration::from_hours(1);

/// When the next sweep is due after one at `last`: an hour after Commit, then daily. None when the source's retention has
/// ended by then.
#[must_use]
pub fn next_sweep(committed: Timestamp, last: Timestamp, retention_until: Timestamp) -> Option<Timestamp> {
    let second = committed + SECOND_SWEEP;
    let next = if last < second { second } else { last + SWEEP_EVERY };
    (next < retention_until).then_some(next)
}

/// When a sweep is tried again that failed at `now`. None when the source's retention has ended by then.
#[must_use]
pub fn next_try(now: Timestamp, retention_until: Timestamp) -> Option<Timestamp> {
    let next = now + SWEEP_AGAIN;
    (next < retention_until).then_some(next)
}

/// Whether the source's refusal ends sweeps for good: the right was withdrawn, or nothing is kept any more. Every other
/// failure may pass.
#[must_use]
pub fn ends_sweeps(refusal: ErrorId) -> bool {
    matches!(
        refusal,
        ErrorId::ApplicationNotConsented
            | ErrorId::SourceTenantNotAuthorized
            | ErrorId::OrganizationRelationshipDisabled
            | ErrorId::MailboxMoveCapability
            | ErrorId::MailboxMovePublishedScopesMissing
            | ErrorId::StaleAttempt
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(hours: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hours)
    }

    #[test]
    fn an_hour_after_commit_then_daily_until_retention_ends() {
        let (committed, until) = (hours(0), hours(24 * 3));
        let mut at = committed;
        let mut all = Vec::new();
        while let Some(next) = next_sweep(committed, at, until) {
            all.push(next);
            at = next;
        }
        assert_eq!(all, [hours(1), hours(25), hours(49)]);
        // One that was made late moves the later ones.
        assert_eq!(next_sweep(committed, hours(30), until), Some(hours(54)));
        assert_eq!(next_sweep(committed, committed, hours(1)), None);
        assert_eq!(next_try(hours(5), until), Some(hours(6)));
        assert_eq!(next_try(hours(71), until), None);
    }

    #[test]
    fn what_was_withdrawn_ends_sweeps_and_what_may_pass_does_not() {
        for id in [
            ErrorId::ApplicationNotConsented,
            ErrorId::OrganizationRelationshipDisabled,
            ErrorId::StaleAttempt,
        ] {
            assert!(ends_sweeps(id), "{id}");
        }
        for id in [
            ErrorId::CommunicationErrorTransient,
            ErrorId::MigrationServerConnectionFailed,
            ErrorId::ExpiredClientSecret,
            ErrorId::MailboxPlatform,
        ] {
            assert!(!ends_sweeps(id), "{id}");
        }
    }
}

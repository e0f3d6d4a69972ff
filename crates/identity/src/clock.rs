//! Arithmetic on times that never panics.

use jiff::{SignedDuration, Timestamp};

/// `seconds` after `at`, or the last time there is.
pub(crate) fn after(at: Timestamp, seconds: i64) -> Timestamp {
    at.checked_add(SignedDuration::from_secs(seconds))
        .unwrap_or(Timestamp::MAX)
}

/// `days` after `at`.
pub(crate) fn days_after(at: Timestamp, days: u32) -> Timestamp {
    after(at, i64::from(days) * 86_400)
}

/// How far a partner's clock may be ahead of ours, in seconds; the same bound as for proofs.
pub(crate) const SKEW: i64 = 120;

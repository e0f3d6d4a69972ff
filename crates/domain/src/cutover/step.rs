//! What the target does next, told from what it has stored: who resumes reads it, and never guesses.

use super::{SourcePhase, TargetPhase};

/// What comes next for a move in its cutover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetStep {
    /// The pass before the lock, then a new attempt.
    Begin,
    /// An undecided attempt was left: the source is asked how far it got, see [`closing_step`].
    Resume,
    /// Decided: the mailbox is shown, and Commit is said until the source has answered.
    Commit,
    /// The source has answered: what came late is looked for, and the user is completed.
    Complete,
    /// A pass for what was added at the source since it was reopened, then a new attempt.
    CatchUp,
}

/// What comes next, told from the newest attempt of the move.
#[must_use]
pub fn target_step(newest: Option<TargetPhase>) -> TargetStep {
    match newest {
        None | Some(TargetPhase::Aborted) => TargetStep::Begin,
        Some(TargetPhase::Closing | TargetPhase::CatchingUp) => TargetStep::Resume,
        Some(TargetPhase::Decided) => TargetStep::Commit,
        Some(TargetPhase::Done) => TargetStep::Complete,
        Some(TargetPhase::Reopened | TargetPhase::CatchUpAborted) => TargetStep::CatchUp,
    }
}

/// What the source answers to Status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceStatus {
    /// The lock holds.
    Locked,
    /// The source waits for the outcome.
    Prepared,
    /// The mailbox is a mail user, or was.
    Committed,
    /// The lease ended before Prepare.
    Lapsed,
    /// The attempt is over without Commit.
    Aborted,
}

impl SourceStatus {
    /// As on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Locked => "locked",
            Self::Prepared => "prepared",
            Self::Committed => "committed",
            Self::Lapsed => "lapsed",
            Self::Aborted => "aborted",
        }
    }

    /// Read from the wire. A word that is not known says that the attempt is over.
    #[must_use]
    pub fn from_wire(text: &str) -> Self {
        let all = [
            Self::Locked,
            Self::Prepared,
            Self::Committed,
            Self::Lapsed,
            Self::Aborted,
        ];
        all.into_iter().find(|s| s.as_str() == text).unwrap_or(Self::Aborted)
    }
}

impl SourcePhase {
    /// What the target learns of it.
    #[must_use]
    pub fn status(self) -> SourceStatus {
        match self {
            Self::Locked => SourceStatus::Locked,
            Self::Prepared => SourceStatus::Prepared,
            Self::Committed | Self::Released | Self::Returned => SourceStatus::Committed,
            Self::Lapsed => SourceStatus::Lapsed,
            Self::Aborted | Self::Reopened => SourceStatus::Aborted,
        }
    }
}

/// How an undecided attempt goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClosingStep {
    /// Lock is said again, and a final pass made: nothing is known of what the last one saw.
    Close,
    /// The source has promised: decide.
    Decide,
    /// Record the abort, then say it.
    Abort,
}

/// How an undecided attempt goes on, from the source's answer to Status. `prepare_stored`: what Prepare says was stored,
/// so that the promise is known to hold it.
#[must_use]
pub fn closing_step(status: SourceStatus, prepare_stored: bool) -> ClosingStep {
    match (status, prepare_stored) {
        (SourceStatus::Locked, _) => ClosingStep::Close,
        // Committed can only be where our own state was set back: nobody but us may have the mailbox then.
        (SourceStatus::Prepared | SourceStatus::Committed, true) => ClosingStep::Decide,
        (SourceStatus::Prepared | SourceStatus::Committed, false)
        | (SourceStatus::Lapsed | SourceStatus::Aborted, _) => ClosingStep::Abort,
    }
}

/// How the attempt goes on when Prepare was not answered; `status` is what the source says to that, if it says anything.
/// Only a promise is waited for: a lock that goes on ends by itself.
#[must_use]
pub fn unanswered_prepare_step(status: Option<SourceStatus>) -> ClosingStep {
    match status {
        Some(SourceStatus::Prepared) => ClosingStep::Decide,
        Some(SourceStatus::Locked | SourceStatus::Committed | SourceStatus::Lapsed | SourceStatus::Aborted) | None => {
            ClosingStep::Abort
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_as_it_is_written() {
        for status in [
            SourceStatus::Locked,
            SourceStatus::Prepared,
            SourceStatus::Committed,
            SourceStatus::Lapsed,
            SourceStatus::Aborted,
        ] {
            assert_eq!(SourceStatus::from_wire(status.as_str()), status);
        }
        assert_eq!(SourceStatus::from_wire("open sesame"), SourceStatus::Aborted);
    }

    #[test]
    fn only_a_promise_that_is_known_is_decided_upon() {
        use ClosingStep::{Abort, Close, Decide};
        for (status, stored, not_stored) in [
            (SourceStatus::Locked, Close, Close),
            (SourceStatus::Prepared, Decide, Abort),
            (SourceStatus::Committed, Decide, Abort),
            (SourceStatus::Lapsed, Abort, Abort),
            (SourceStatus::Aborted, Abort, Abort),
        ] {
            assert_eq!(closing_step(status, true), stored, "{status:?}");
            assert_eq!(closing_step(status, false), not_stored, "{status:?}");
        }
        assert_eq!(unanswered_prepare_step(Some(SourceStatus::Prepared)), Decide);
        assert_eq!(unanswered_prepare_step(Some(SourceStatus::Locked)), Abort);
        assert_eq!(unanswered_prepare_step(None), Abort);
    }
}

//! The target's machine: the decision lies here.

use crate::id::AttemptId;

/// Where an attempt stands at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetPhase {
    /// Stored before Lock is sent; undecided.
    Closing,
    /// Given up; recorded before Abort is sent.
    Aborted,
    /// The mail user is a mailbox; recorded before Commit is sent.
    Decided,
    /// The source has answered Commit.
    Done,
}

/// What happens to an attempt at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetEvent {
    /// A new attempt begins.
    Begin,
    /// The source has promised: decide.
    Decide,
    /// Give up.
    Abort,
    /// The source has answered Commit.
    CommitAnswered,
}

/// What the outcome address answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The target has decided; commit.
    Decided,
    /// The target has given up; abort.
    Aborted,
    /// Neither yet.
    Undecided,
}

impl Outcome {
    /// As on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Decided => "decided",
            Self::Aborted => "aborted",
            Self::Undecided => "undecided",
        }
    }
}

impl TargetPhase {
    /// The attempt's outcome, one for ever.
    #[must_use]
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Closing => Outcome::Undecided,
            Self::Aborted => Outcome::Aborted,
            Self::Decided | Self::Done => Outcome::Decided,
        }
    }
}

/// The event does not fit; nothing changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an attempt that is {phase:?} cannot take {event:?}")]
pub struct IllegalTargetEvent {
    /// The phase of the newest attempt; none before the first.
    pub phase: Option<TargetPhase>,
    /// The event.
    pub event: TargetEvent,
}

/// The next phase of `attempt`. `current` is the newest attempt of the move.
///
/// # Errors
/// [`IllegalTargetEvent`] when the attempt is not the newest one or has its outcome already.
pub fn target_next(
    current: Option<(AttemptId, TargetPhase)>,
    attempt: AttemptId,
    event: TargetEvent,
) -> Result<TargetPhase, IllegalTargetEvent> {
    use TargetPhase::{Aborted, Closing, Decided, Done};
    let illegal = |phase| Err(IllegalTargetEvent { phase, event });
    match current {
        None => match event {
            TargetEvent::Begin => Ok(Closing),
            TargetEvent::Decide | TargetEvent::Abort | TargetEvent::CommitAnswered => illegal(None),
        },
        Some((newest, phase)) if newest != attempt => match (phase, event) {
            (Aborted, TargetEvent::Begin) => Ok(Closing),
            (Closing | Decided | Done, TargetEvent::Begin)
            | (
                Closing | Aborted | Decided | Done,
                TargetEvent::Decide | TargetEvent::Abort | TargetEvent::CommitAnswered,
            ) => illegal(Some(phase)),
        },
        Some((_, phase)) => match (phase, event) {
            (Closing, TargetEvent::Begin) => Ok(Closing),
            (Closing | Decided, TargetEvent::Decide) => Ok(Decided),
            (Closing | Aborted, TargetEvent::Abort) => Ok(Aborted),
            (Decided | Done, TargetEvent::CommitAnswered) => Ok(Done),
            (Done, TargetEvent::Decide) => Ok(Done),
            (Closing | Aborted, TargetEvent::CommitAnswered)
            | (Aborted, TargetEvent::Decide | TargetEvent::Begin)
            | (Decided | Done, TargetEvent::Abort | TargetEvent::Begin) => illegal(Some(phase)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: AttemptId = AttemptId::from_u128(1);
    const B: AttemptId = AttemptId::from_u128(2);

    #[test]
    fn an_attempt_has_one_outcome_for_ever() {
        use TargetEvent::{Abort, Begin, CommitAnswered, Decide};
        for (phase, event, expected) in [
            (TargetPhase::Closing, Decide, Some(TargetPhase::Decided)),
            (TargetPhase::Closing, Abort, Some(TargetPhase::Aborted)),
            (TargetPhase::Closing, CommitAnswered, None),
            (TargetPhase::Decided, Decide, Some(TargetPhase::Decided)),
            (TargetPhase::Decided, Abort, None), // late Abort after Decide
            (TargetPhase::Decided, CommitAnswered, Some(TargetPhase::Done)),
            (TargetPhase::Decided, Begin, None),
            (TargetPhase::Aborted, Decide, None),
            (TargetPhase::Aborted, Abort, Some(TargetPhase::Aborted)),
            (TargetPhase::Done, Abort, None),
            (TargetPhase::Done, CommitAnswered, Some(TargetPhase::Done)),
        ] {
            assert_eq!(
                target_next(Some((A, phase)), A, event).ok(),
                expected,
                "{phase:?} {event:?}"
            );
        }
    }

    #[test]
    fn a_new_attempt_only_after_the_last_was_aborted() {
        assert_eq!(target_next(None, A, TargetEvent::Begin), Ok(TargetPhase::Closing));
        assert_eq!(
            target_next(Some((A, TargetPhase::Aborted)), B, TargetEvent::Begin),
            Ok(TargetPhase::Closing)
        );
        for phase in [TargetPhase::Closing, TargetPhase::Decided, TargetPhase::Done] {
            assert!(target_next(Some((A, phase)), B, TargetEvent::Begin).is_err());
        }
        for event in [TargetEvent::Decide, TargetEvent::Abort, TargetEvent::CommitAnswered] {
            assert!(target_next(Some((A, TargetPhase::Closing)), B, event).is_err());
        }
    }
}

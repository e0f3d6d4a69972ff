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
    /// Decided, and the source has answered that its mailbox was reopened by hand. The decision stands; a catch-up
    /// attempt follows.
    Reopened,
    /// A catch-up attempt, stored before Lock is sent; undecided. The mailbox is here throughout.
    CatchingUp,
    /// A catch-up attempt given up; recorded before Abort is sent. Another one follows.
    CatchUpAborted,
}

/// What happens to an attempt at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetEvent {
    /// A new attempt begins; a catch-up attempt where the move was decided before.
    Begin,
    /// The source has promised: decide.
    Decide,
    /// Give up.
    Abort,
    /// The source has answered Commit.
    CommitAnswered,
    /// The source has answered Commit with `reopened`.
    ReopenedAnswered,
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
            Self::Closing | Self::CatchingUp => Outcome::Undecided,
            Self::Aborted | Self::CatchUpAborted => Outcome::Aborted,
            Self::Decided | Self::Done | Self::Reopened => Outcome::Decided,
        }
    }

    /// Whether the move's mailbox is here for good, told from its newest attempt.
    #[must_use]
    pub fn is_mailbox(self) -> bool {
        match self {
            Self::Closing | Self::Aborted => false,
            Self::Decided | Self::Done | Self::Reopened | Self::CatchingUp | Self::CatchUpAborted => true,
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
    use TargetPhase::{Aborted, CatchUpAborted, CatchingUp, Closing, Decided, Done, Reopened};
    let illegal = |phase| Err(IllegalTargetEvent { phase, event });
    match current {
        None => match event {
            TargetEvent::Begin => Ok(Closing),
            TargetEvent::Decide | TargetEvent::Abort | TargetEvent::CommitAnswered | TargetEvent::ReopenedAnswered => {
                illegal(None)
            }
        },
        Some((newest, phase)) if newest != attempt => match (phase, event) {
            (Aborted, TargetEvent::Begin) => Ok(Closing),
            (Reopened | CatchUpAborted, TargetEvent::Begin) => Ok(CatchingUp),
            (Closing | Decided | Done | CatchingUp, TargetEvent::Begin)
            | (
                Closing | Aborted | Decided | Done | Reopened | CatchingUp | CatchUpAborted,
                TargetEvent::Decide | TargetEvent::Abort | TargetEvent::CommitAnswered | TargetEvent::ReopenedAnswered,
            ) => illegal(Some(phase)),
        },
        Some((_, phase)) => match (phase, event) {
            (Closing | CatchingUp, TargetEvent::Begin) => Ok(phase),
            (Closing | CatchingUp, TargetEvent::Decide) => Ok(Decided),
            (Decided | Done | Reopened, TargetEvent::Decide) => Ok(phase),
            (Closing | Aborted, TargetEvent::Abort) => Ok(Aborted),
            (CatchingUp | CatchUpAborted, TargetEvent::Abort) => Ok(CatchUpAborted),
            (Decided | Done, TargetEvent::CommitAnswered) => Ok(Done),
            (Decided | Reopened, TargetEvent::ReopenedAnswered) => Ok(Reopened),
            (Closing | Aborted | CatchingUp | CatchUpAborted | Reopened, TargetEvent::CommitAnswered)
            | (Closing | Aborted | CatchingUp | CatchUpAborted | Done, TargetEvent::ReopenedAnswered)
            | (Aborted | CatchUpAborted, TargetEvent::Decide | TargetEvent::Begin)
            | (Decided | Done | Reopened, TargetEvent::Abort | TargetEvent::Begin) => illegal(Some(phase)),
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
        use TargetEvent::{Abort, Begin, CommitAnswered, Decide, ReopenedAnswered};
        use TargetPhase::{Aborted, CatchUpAborted, CatchingUp, Closing, Decided, Done, Reopened};
        let events = [Begin, Decide, Abort, CommitAnswered, ReopenedAnswered];
        // A late Abort after Decide is the third column of the decided ones.
        let table = [
            (Closing, [Some(Closing), Some(Decided), Some(Aborted), None, None]),
            (Aborted, [None, None, Some(Aborted), None, None]),
            (Decided, [None, Some(Decided), None, Some(Done), Some(Reopened)]),
            (Done, [None, Some(Done), None, Some(Done), None]),
            (Reopened, [None, Some(Reopened), None, None, Some(Reopened)]),
            (
                CatchingUp,
                [Some(CatchingUp), Some(Decided), Some(CatchUpAborted), None, None],
            ),
            (CatchUpAborted, [None, None, Some(CatchUpAborted), None, None]),
        ];
        for (phase, row) in table {
            for (event, expected) in events.into_iter().zip(row) {
                let next = target_next(Some((A, phase)), A, event).ok();
                assert_eq!(next, expected, "{phase:?} {event:?}");
                if let Some(next) = next {
                    let told = phase.outcome();
                    assert!(
                        told == Outcome::Undecided || next.outcome() == told,
                        "{phase:?} {event:?}"
                    );
                    assert!(!phase.is_mailbox() || next.is_mailbox(), "{phase:?} {event:?}");
                }
            }
        }
    }

    #[test]
    fn a_new_attempt_only_after_the_last_was_aborted_or_reopened() {
        use TargetPhase::{Aborted, CatchUpAborted, CatchingUp, Closing, Decided, Done, Reopened};
        assert_eq!(target_next(None, A, TargetEvent::Begin), Ok(Closing));
        for (phase, next) in [
            (Aborted, Some(Closing)),
            (Reopened, Some(CatchingUp)),
            (CatchUpAborted, Some(CatchingUp)),
            (Closing, None),
            (Decided, None),
            (Done, None),
            (CatchingUp, None),
        ] {
            assert_eq!(
                target_next(Some((A, phase)), B, TargetEvent::Begin).ok(),
                next,
                "{phase:?}"
            );
            for event in [
                TargetEvent::Decide,
                TargetEvent::Abort,
                TargetEvent::CommitAnswered,
                TargetEvent::ReopenedAnswered,
            ] {
                assert!(target_next(Some((A, phase)), B, event).is_err(), "{phase:?} {event:?}");
            }
        }
    }
}

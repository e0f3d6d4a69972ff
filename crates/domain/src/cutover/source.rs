//! The source's machine: one row per attempt, the newest one of a mailbox counts.

use crate::id::{AttemptId, MoveId, ServicePrincipalId};
use jiff::{SignedDuration, Timestamp};

/// One attempt as the source remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceAttempt {
    /// The attempt.
    pub id: AttemptId,
    /// Its move.
    pub move_id: MoveId,
    /// Its partner.
    pub service_principal: ServicePrincipalId,
    /// Where it stands.
    pub phase: SourcePhase,
    /// When the lock was granted (source's clock).
    pub granted_at: Timestamp,
    /// When the lease ends (source's clock).
    pub lease_until: Timestamp,
    /// When Commit was stored.
    pub committed_at: Option<Timestamp>,
    /// The reopened attempt that this one is there to catch up; none for every other attempt. Kept from attempt to
    /// attempt until one is committed, because its target may be the mailbox already.
    pub catches_up: Option<AttemptId>,
}

/// Where an attempt stands at the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourcePhase {
    /// Mail is deferred until the lease ends.
    Locked,
    /// The source waits for the outcome, however long.
    Prepared,
    /// The mailbox is a mail user.
    Committed,
    /// Undone; the mailbox is open.
    Aborted,
    /// The lease ended before Prepare; the mailbox is open.
    Lapsed,
    /// Resolved as aborted by hand, without the target having been asked; the mailbox is open. The target may have
    /// decided all the same: it is told so when it says Commit, and catches up.
    Reopened,
    /// Committed, and the time for which the old content is kept has ended: nothing of it is given out any more.
    Released,
    /// Committed, and the mailbox has come back by a later move: an ordinary mailbox again.
    Returned,
}

/// What arrives at the source for an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceEvent {
    /// Lock, or Lock again after a lost answer.
    Lock,
    /// Renew the lease.
    Renew,
    /// Prepare, after roots, routing address and LegacyExchangeDN were found good; `same` says whether a
    /// promise already stored for this attempt is the same.
    Prepare {
        /// Equal to the stored promise (true when none is stored).
        same: bool,
    },
    /// Commit.
    Commit,
    /// Abort.
    Abort,
    /// The clock was looked at.
    Tick,
    /// The source's administrator says how a promise ends.
    Resolve {
        /// Which end.
        resolution: Resolution,
        /// How he knows.
        ground: Ground,
    },
    /// The time for which the old content is kept has ended (and no way back is under way).
    RetentionEnds,
    /// The mailbox was decided to be here again, by a later move.
    CameBack,
}

/// How the source's administrator ends a promise by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// As Commit would.
    Committed,
    /// As Abort would.
    Aborted,
}

/// How the source's administrator knows the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ground {
    /// The target's outcome address answered just now.
    Asked,
    /// A statement that the target tenant signed.
    Stated,
    /// He does not; he forces it.
    Forced,
}

/// Limits on locks that the source's administrator sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockLimits {
    /// One lease, and what each renewal adds at most.
    pub lease: SignedDuration,
    /// All leases of one attempt together, from the grant.
    pub lease_total: SignedDuration,
    /// Locks a mailbox a day that may end without Prepare.
    pub attempts_per_day: u32,
    /// Mailboxes Locked or Prepared at once for one partner.
    pub mailboxes_per_partner: u32,
}

impl Default for LockLimits {
    fn default() -> Self {
        Self {
            lease: SignedDuration::from_mins(10),
            lease_total: SignedDuration::from_mins(30),
            attempts_per_day: 3,
            mailboxes_per_partner: 20,
        }
    }
}

/// How much of the limits is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockUse {
    /// When locks of this mailbox were granted in the last day that ended without Prepare; oldest first.
    pub failed_grants: Vec<Timestamp>,
    /// Mailboxes now Locked or Prepared for this partner, this one not counted.
    pub mailboxes_held: u32,
}

/// What the source does and answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceTransition {
    /// The row to store; equal to the stored one when nothing changes.
    pub attempt: SourceAttempt,
    /// An older attempt of the same move that ends with it.
    pub superseded: Option<AttemptId>,
}

/// Why the source refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceRefusal {
    /// The verb belongs to an attempt that does not hold the mailbox.
    Stale,
    /// The lease has lapsed; a new attempt with a new final pass is needed.
    Lapsed,
    /// Beyond a limit; try again at this time.
    NotNow(Timestamp),
    /// Another move holds the mailbox.
    HeldByOtherMove,
    /// Commit before Prepare.
    NotPrepared,
    /// A different promise is stored for this attempt.
    OtherPromise,
    /// Abort after Commit: the attempt has its one outcome.
    AlreadyCommitted,
    /// Committed after Abort: the attempt has its one outcome.
    AlreadyAborted,
    /// Commit of an attempt that was reopened by hand: the target's decision stands, and it catches up.
    Reopened,
    /// Committed cannot be forced: without the target's word nobody might accept the mailbox's mail.
    NeedsTargetsWord,
}

impl SourceAttempt {
    /// Whether mail is deferred for the mailbox because of this attempt. A lapsed lease counts until it is recorded.
    #[must_use]
    pub fn holds(&self) -> bool {
        match self.phase {
            SourcePhase::Locked | SourcePhase::Prepared => true,
            SourcePhase::Committed
            | SourcePhase::Aborted
            | SourcePhase::Lapsed
            | SourcePhase::Reopened
            | SourcePhase::Released
            | SourcePhase::Returned => false,
        }
    }

    /// What a lock granted after this attempt catches up.
    fn left_to_catch_up(&self) -> Option<AttemptId> {
        match self.phase {
            SourcePhase::Reopened => Some(self.id),
            SourcePhase::Locked | SourcePhase::Prepared | SourcePhase::Aborted | SourcePhase::Lapsed => self.catches_up,
            SourcePhase::Committed | SourcePhase::Released | SourcePhase::Returned => None,
        }
    }

    fn in_phase(&self, phase: SourcePhase) -> Self {
        Self { phase, ..self.clone() }
    }
}

/// The request that an event came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceAsker {
    /// The attempt named.
    pub attempt: AttemptId,
    /// The move named.
    pub move_id: MoveId,
    /// Who asks.
    pub service_principal: ServicePrincipalId,
}

/// The source's next state. `current` is the newest attempt of the mailbox.
///
/// # Errors
/// A [`SourceRefusal`]; nothing changes then.
pub fn source_next(
    current: Option<&SourceAttempt>,
    asker: &SourceAsker,
    event: SourceEvent,
    limits: &LockLimits,
    used: &LockUse,
    now: Timestamp,
) -> Result<SourceTransition, SourceRefusal> {
    use SourcePhase::{Aborted, Committed, Lapsed, Locked, Prepared, Released, Reopened, Returned};
    let Some(current) = current else {
        return match event {
            SourceEvent::Lock => grant(asker, None, None, limits, used, now),
            SourceEvent::Renew
            | SourceEvent::Prepare { .. }
            | SourceEvent::Commit
            | SourceEvent::Abort
            | SourceEvent::Tick
            | SourceEvent::Resolve { .. }
            | SourceEvent::RetentionEnds
            | SourceEvent::CameBack => Err(SourceRefusal::Stale),
        };
    };
    let stay = || {
        Ok(SourceTransition {
            attempt: current.clone(),
            superseded: None,
        })
    };
    let to = |phase| {
        Ok(SourceTransition {
            attempt: current.in_phase(phase),
            superseded: None,
        })
    };
    let committed = || {
        Ok(SourceTransition {
            attempt: SourceAttempt {
                committed_at: Some(now),
                ..current.in_phase(Committed)
            },
            superseded: None,
        })
    };
    if current.id != asker.attempt {
        let left = current.left_to_catch_up();
        return match (current.phase, event) {
            (Committed | Released, SourceEvent::Lock) => Err(SourceRefusal::HeldByOtherMove),
            (Locked | Prepared, SourceEvent::Lock) if current.move_id != asker.move_id => {
                Err(SourceRefusal::HeldByOtherMove)
            }
            // The target of the reopened attempt may be the mailbox already; only its tenant may end that.
            (Locked | Prepared | Aborted | Lapsed | Reopened, SourceEvent::Lock)
                if left.is_some() && current.service_principal != asker.service_principal =>
            {
                Err(SourceRefusal::HeldByOtherMove)
            }
            // The target gave that attempt up; its later verbs are stale from here on.
            (Locked, SourceEvent::Lock) => grant(asker, Some(current), left, limits, used, now),
            (Prepared, SourceEvent::Lock) => Err(SourceRefusal::Stale),
            // A lock that was asked for long ago may have come in between: the target must learn of the reopening all the same.
            (
                Locked | Prepared | Committed | Aborted | Lapsed | Reopened | Released | Returned,
                SourceEvent::Commit,
            ) if current.catches_up == Some(asker.attempt) => Err(SourceRefusal::Reopened),
            (Aborted | Lapsed | Reopened | Returned, SourceEvent::Lock) => grant(asker, None, left, limits, used, now),
            (
                Locked | Prepared | Committed | Aborted | Lapsed | Reopened | Released | Returned,
                SourceEvent::Renew
                | SourceEvent::Prepare { .. }
                | SourceEvent::Commit
                | SourceEvent::Abort
                | SourceEvent::Tick
                | SourceEvent::Resolve { .. }
                | SourceEvent::RetentionEnds
                | SourceEvent::CameBack,
            ) => Err(SourceRefusal::Stale),
        };
    }
    let lapsed = now >= current.lease_until;
    match (current.phase, event) {
        (Locked, SourceEvent::Tick) if lapsed => to(Lapsed),
        (Locked | Prepared | Committed | Aborted | Lapsed | Reopened | Released | Returned, SourceEvent::Tick) => {
            stay()
        }
        (Locked, SourceEvent::Lock | SourceEvent::Renew | SourceEvent::Prepare { .. }) if lapsed => {
            Err(SourceRefusal::Lapsed)
        }
        (Locked, SourceEvent::Lock) => stay(),
        (Locked, SourceEvent::Renew) => {
            let lease_until = (now + limits.lease)
                .min(current.granted_at + limits.lease_total)
                .max(current.lease_until);
            Ok(SourceTransition {
                attempt: SourceAttempt {
                    lease_until,
                    ..current.clone()
                },
                superseded: None,
            })
        }
        (Locked, SourceEvent::Prepare { .. }) => to(Prepared),
        (Locked, SourceEvent::Commit | SourceEvent::Resolve { .. }) => Err(SourceRefusal::NotPrepared),
        (Locked | Prepared, SourceEvent::Abort) => to(Aborted),
        (Prepared, SourceEvent::Lock | SourceEvent::Renew) => stay(),
        (Prepared, SourceEvent::Prepare { same: true }) => stay(),
        (Prepared, SourceEvent::Prepare { same: false }) => Err(SourceRefusal::OtherPromise),
        (Prepared, SourceEvent::Commit) => committed(),
        (Prepared, SourceEvent::Resolve { resolution, ground }) => match (resolution, ground) {
            (Resolution::Committed, Ground::Asked | Ground::Stated) => committed(),
            (Resolution::Committed, Ground::Forced) => Err(SourceRefusal::NeedsTargetsWord),
            (Resolution::Aborted, Ground::Asked) => to(Aborted),
            (Resolution::Aborted, Ground::Stated | Ground::Forced) => to(Reopened),
        },
        (Committed | Released | Returned, SourceEvent::Commit) => stay(),
        (Committed | Released | Returned, SourceEvent::Abort) => Err(SourceRefusal::AlreadyCommitted),
        (Committed | Released | Returned, SourceEvent::Resolve { resolution, .. }) => match resolution {
            Resolution::Committed => stay(),
            Resolution::Aborted => Err(SourceRefusal::AlreadyCommitted),
        },
        (Committed | Released | Returned, SourceEvent::Lock | SourceEvent::Renew | SourceEvent::Prepare { .. }) => {
            Err(SourceRefusal::Stale)
        }
        (Committed | Released, SourceEvent::RetentionEnds) => to(Released),
        (Committed | Released | Returned, SourceEvent::CameBack) => to(Returned),
        (Returned, SourceEvent::RetentionEnds) => stay(),
        (Locked | Prepared | Aborted | Lapsed | Reopened, SourceEvent::RetentionEnds | SourceEvent::CameBack) => {
            Err(SourceRefusal::Stale)
        }
        (Aborted | Lapsed, SourceEvent::Abort) => stay(),
        (Aborted | Lapsed, SourceEvent::Resolve { resolution, .. }) => match resolution {
            Resolution::Committed => Err(SourceRefusal::AlreadyAborted),
            Resolution::Aborted => stay(),
        },
        (Lapsed, SourceEvent::Lock | SourceEvent::Renew | SourceEvent::Prepare { .. }) => Err(SourceRefusal::Lapsed),
        (Aborted | Reopened, SourceEvent::Lock | SourceEvent::Renew | SourceEvent::Prepare { .. }) => {
            Err(SourceRefusal::Stale)
        }
        (Aborted | Lapsed, SourceEvent::Commit) => Err(SourceRefusal::Stale),
        (Reopened, SourceEvent::Commit) => Err(SourceRefusal::Reopened),
        // The target had given it up as well: nothing is left to catch up.
        (Reopened, SourceEvent::Abort) => to(Aborted),
        (Reopened, SourceEvent::Resolve { resolution, ground }) => match (resolution, ground) {
            (Resolution::Committed, Ground::Asked | Ground::Stated | Ground::Forced) => Err(SourceRefusal::Reopened),
            (Resolution::Aborted, Ground::Asked) => to(Aborted),
            (Resolution::Aborted, Ground::Stated | Ground::Forced) => stay(),
        },
    }
}

fn grant(
    asker: &SourceAsker,
    superseded: Option<&SourceAttempt>,
    catches_up: Option<AttemptId>,
    limits: &LockLimits,
    used: &LockUse,
    now: Timestamp,
) -> Result<SourceTransition, SourceRefusal> {
    let day = SignedDuration::from_hours(24);
    let mut recent: Vec<Timestamp> = used.failed_grants.iter().copied().filter(|t| *t + day > now).collect();
    // A lock given up by its own move without Prepare counts like one that ended.
    recent.extend(superseded.map(|a| a.granted_at));
    if recent.len() >= limits.attempts_per_day as usize {
        let oldest = recent.iter().copied().min().unwrap_or(now);
        return Err(SourceRefusal::NotNow(oldest + day));
    }
    if used.mailboxes_held >= limits.mailboxes_per_partner {
        return Err(SourceRefusal::NotNow(now + SignedDuration::from_mins(1)));
    }
    Ok(SourceTransition {
        attempt: SourceAttempt {
            id: asker.attempt,
            move_id: asker.move_id,
            service_principal: asker.service_principal,
            phase: SourcePhase::Locked,
            granted_at: now,
            lease_until: now + limits.lease,
            committed_at: None,
            catches_up,
        },
        superseded: superseded.map(|a| a.id),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + minute * 60).unwrap()
    }

    fn asker(attempt: u128) -> SourceAsker {
        SourceAsker {
            attempt: AttemptId::from_u128(attempt),
            move_id: MoveId::from_u128(1),
            service_principal: ServicePrincipalId::from_u128(1),
        }
    }

    fn step(
        current: Option<&SourceAttempt>,
        attempt: u128,
        event: SourceEvent,
        minute: i64,
    ) -> Result<SourceAttempt, SourceRefusal> {
        source_next(
            current,
            &asker(attempt),
            event,
            &LockLimits::default(),
            &LockUse::default(),
            at(minute),
        )
        .map(|t| t.attempt)
    }

    fn locked() -> SourceAttempt {
        step(None, 1, SourceEvent::Lock, 0).unwrap()
    }

    fn in_phase(phase: SourcePhase) -> SourceAttempt {
        SourceAttempt { phase, ..locked() }
    }

    #[test]
    fn every_phase_and_event_of_the_same_attempt() {
        use SourceEvent::{Abort, CameBack, Commit, Lock, Prepare, Renew, RetentionEnds, Tick};
        use SourcePhase::{Aborted, Committed, Lapsed, Locked, Prepared, Released, Reopened, Returned};
        let events = [
            Lock,
            Renew,
            Prepare { same: true },
            Prepare { same: false },
            Commit,
            Abort,
            Tick,
            RetentionEnds,
            CameBack,
        ];
        let refused = Err;
        use SourceRefusal as R;
        #[rustfmt::skip]
        let table: [(SourcePhase, [Result<SourcePhase, SourceRefusal>; 9]); 8] = [
            (Locked,    [Ok(Locked), Ok(Locked), Ok(Prepared), Ok(Prepared), refused(R::NotPrepared), Ok(Aborted), Ok(Locked), refused(R::Stale), refused(R::Stale)]),
            (Prepared,  [Ok(Prepared), Ok(Prepared), Ok(Prepared), refused(R::OtherPromise), Ok(Committed), Ok(Aborted), Ok(Prepared), refused(R::Stale), refused(R::Stale)]),
            (Committed, [refused(R::Stale), refused(R::Stale), refused(R::Stale), refused(R::Stale), Ok(Committed), refused(R::AlreadyCommitted), Ok(Committed), Ok(Released), Ok(Returned)]),
            (Aborted,   [refused(R::Stale), refused(R::Stale), refused(R::Stale), refused(R::Stale), refused(R::Stale), Ok(Aborted), Ok(Aborted), refused(R::Stale), refused(R::Stale)]),
            (Lapsed,    [refused(R::Lapsed), refused(R::Lapsed), refused(R::Lapsed), refused(R::Lapsed), refused(R::Stale), Ok(Lapsed), Ok(Lapsed), refused(R::Stale), refused(R::Stale)]),
            (Reopened,  [refused(R::Stale), refused(R::Stale), refused(R::Stale), refused(R::Stale), refused(R::Reopened), Ok(Aborted), Ok(Reopened), refused(R::Stale), refused(R::Stale)]),
            (Released,  [refused(R::Stale), refused(R::Stale), refused(R::Stale), refused(R::Stale), Ok(Released), refused(R::AlreadyCommitted), Ok(Released), Ok(Released), Ok(Returned)]),
            (Returned,  [refused(R::Stale), refused(R::Stale), refused(R::Stale), refused(R::Stale), Ok(Returned), refused(R::AlreadyCommitted), Ok(Returned), Ok(Returned), Ok(Returned)]),
        ];
        for (phase, row) in table {
            for (event, expected) in events.into_iter().zip(row) {
                assert_eq!(
                    step(Some(&in_phase(phase)), 1, event, 1).map(|a| a.phase),
                    expected,
                    "{phase:?} {event:?}"
                );
            }
        }
    }

    #[test]
    fn what_an_administrator_may_resolve() {
        use Ground::{Asked, Forced, Stated};
        use SourcePhase::{Aborted, Committed, Lapsed, Locked, Prepared, Released, Reopened, Returned};
        use SourceRefusal as R;
        // phase, then Committed asked, stated, forced, then Aborted asked, stated, forced
        #[rustfmt::skip]
        let table: [(SourcePhase, [Result<SourcePhase, SourceRefusal>; 6]); 8] = [
            (Locked,    [Err(R::NotPrepared); 6]),
            (Prepared,  [Ok(Committed), Ok(Committed), Err(R::NeedsTargetsWord), Ok(Aborted), Ok(Reopened), Ok(Reopened)]),
            (Committed, [Ok(Committed), Ok(Committed), Ok(Committed), Err(R::AlreadyCommitted), Err(R::AlreadyCommitted), Err(R::AlreadyCommitted)]),
            (Aborted,   [Err(R::AlreadyAborted), Err(R::AlreadyAborted), Err(R::AlreadyAborted), Ok(Aborted), Ok(Aborted), Ok(Aborted)]),
            (Lapsed,    [Err(R::AlreadyAborted), Err(R::AlreadyAborted), Err(R::AlreadyAborted), Ok(Lapsed), Ok(Lapsed), Ok(Lapsed)]),
            (Reopened,  [Err(R::Reopened), Err(R::Reopened), Err(R::Reopened), Ok(Aborted), Ok(Reopened), Ok(Reopened)]),
            (Released,  [Ok(Released), Ok(Released), Ok(Released), Err(R::AlreadyCommitted), Err(R::AlreadyCommitted), Err(R::AlreadyCommitted)]),
            (Returned,  [Ok(Returned), Ok(Returned), Ok(Returned), Err(R::AlreadyCommitted), Err(R::AlreadyCommitted), Err(R::AlreadyCommitted)]),
        ];
        for (phase, row) in table {
            let events = [Resolution::Committed, Resolution::Aborted]
                .into_iter()
                .flat_map(|resolution| {
                    [Asked, Stated, Forced].map(|ground| SourceEvent::Resolve { resolution, ground })
                });
            for (event, expected) in events.zip(row) {
                let next = step(Some(&in_phase(phase)), 1, event, 1);
                assert_eq!(
                    next.as_ref().map(|a| a.phase).map_err(|e| *e),
                    expected,
                    "{phase:?} {event:?}"
                );
                if let Ok(next) = next {
                    let committed_now = phase == Prepared && next.phase == Committed;
                    assert_eq!(next.committed_at.is_some(), committed_now, "{phase:?} {event:?}");
                }
            }
        }
    }

    #[test]
    fn a_reopened_mailbox_stays_with_its_partner_until_a_commit() {
        let reopened = in_phase(SourcePhase::Reopened);
        let other = SourceAsker {
            move_id: MoveId::from_u128(7),
            service_principal: ServicePrincipalId::from_u128(7),
            ..asker(9)
        };
        let lock = |current: &SourceAttempt, asker: &SourceAsker, minute| {
            let (limits, used) = (LockLimits::default(), LockUse::default());
            source_next(Some(current), asker, SourceEvent::Lock, &limits, &used, at(minute)).map(|t| t.attempt)
        };
        assert_eq!(lock(&reopened, &other, 1), Err(SourceRefusal::HeldByOtherMove));
        let second = lock(&reopened, &asker(2), 1).unwrap();
        assert_eq!(second.catches_up, Some(AttemptId::from_u128(1)));
        // The catch-up fails; what it was there for is not forgotten.
        for ended in [SourcePhase::Lapsed, SourcePhase::Aborted] {
            let second = SourceAttempt {
                phase: ended,
                ..second.clone()
            };
            assert_eq!(
                lock(&second, &other, 20),
                Err(SourceRefusal::HeldByOtherMove),
                "{ended:?}"
            );
            assert_eq!(
                step(Some(&second), 1, SourceEvent::Commit, 20),
                Err(SourceRefusal::Reopened)
            );
            let third = lock(&second, &asker(3), 20).unwrap();
            assert_eq!(third.catches_up, Some(AttemptId::from_u128(1)));
            let third = SourceAttempt {
                phase: SourcePhase::Prepared,
                ..third
            };
            let third = step(Some(&third), 3, SourceEvent::Commit, 21).unwrap();
            let back = step(Some(&third), 3, SourceEvent::CameBack, 22).unwrap();
            assert_eq!(lock(&back, &other, 23).unwrap().catches_up, None);
        }
    }

    #[test]
    fn another_attempt_changes_nothing_unless_it_may_lock() {
        for phase in [
            SourcePhase::Locked,
            SourcePhase::Prepared,
            SourcePhase::Committed,
            SourcePhase::Aborted,
            SourcePhase::Lapsed,
            SourcePhase::Reopened,
            SourcePhase::Released,
            SourcePhase::Returned,
        ] {
            for event in [
                SourceEvent::Renew,
                SourceEvent::Prepare { same: true },
                SourceEvent::Commit,
                SourceEvent::Abort,
                SourceEvent::Tick,
                SourceEvent::RetentionEnds,
                SourceEvent::CameBack,
                SourceEvent::Resolve {
                    resolution: Resolution::Aborted,
                    ground: Ground::Forced,
                },
            ] {
                assert_eq!(
                    step(Some(&in_phase(phase)), 2, event, 1),
                    Err(SourceRefusal::Stale),
                    "{phase:?} {event:?}"
                );
            }
        }
        assert_eq!(
            step(Some(&in_phase(SourcePhase::Prepared)), 2, SourceEvent::Lock, 1),
            Err(SourceRefusal::Stale)
        );
        for phase in [SourcePhase::Committed, SourcePhase::Released] {
            assert_eq!(
                step(Some(&in_phase(phase)), 2, SourceEvent::Lock, 1),
                Err(SourceRefusal::HeldByOtherMove)
            );
        }
        for phase in [
            SourcePhase::Locked,
            SourcePhase::Aborted,
            SourcePhase::Lapsed,
            SourcePhase::Reopened,
            SourcePhase::Returned,
        ] {
            assert_eq!(
                step(Some(&in_phase(phase)), 2, SourceEvent::Lock, 1).unwrap().id,
                AttemptId::from_u128(2)
            );
        }
    }

    #[test]
    fn stale_prepare_after_a_lapsed_lease() {
        let lock = locked();
        assert_eq!(
            step(Some(&lock), 1, SourceEvent::Prepare { same: true }, 10),
            Err(SourceRefusal::Lapsed)
        );
        assert_eq!(step(Some(&lock), 1, SourceEvent::Renew, 10), Err(SourceRefusal::Lapsed));
        let lapsed = step(Some(&lock), 1, SourceEvent::Tick, 10).unwrap();
        assert_eq!(lapsed.phase, SourcePhase::Lapsed);
        // A second mover locks; the first one's late Prepare, Commit and Abort change nothing.
        let second = step(Some(&lapsed), 2, SourceEvent::Lock, 11).unwrap();
        for event in [
            SourceEvent::Prepare { same: true },
            SourceEvent::Commit,
            SourceEvent::Abort,
        ] {
            assert_eq!(step(Some(&second), 1, event, 12), Err(SourceRefusal::Stale));
        }
    }

    #[test]
    fn leases_add_up_to_thirty_minutes() {
        let mut lock = locked();
        for minute in [9, 18, 27] {
            lock = step(Some(&lock), 1, SourceEvent::Renew, minute).unwrap();
        }
        assert_eq!(lock.lease_until, at(30));
        assert_eq!(step(Some(&lock), 1, SourceEvent::Renew, 30), Err(SourceRefusal::Lapsed));
    }

    #[test]
    fn locks_a_day_and_mailboxes_a_partner() {
        let limits = LockLimits::default();
        let used = LockUse {
            failed_grants: vec![at(-1500), at(-60), at(-50), at(-40)],
            mailboxes_held: 0,
        };
        let refusal = source_next(None, &asker(1), SourceEvent::Lock, &limits, &used, at(0)).unwrap_err();
        assert_eq!(refusal, SourceRefusal::NotNow(at(-60 + 24 * 60)));
        let used = LockUse {
            failed_grants: vec![at(-60), at(-50)],
            mailboxes_held: 20,
        };
        assert!(matches!(
            source_next(None, &asker(1), SourceEvent::Lock, &limits, &used, at(0)),
            Err(SourceRefusal::NotNow(_))
        ));
        let used = LockUse {
            mailboxes_held: 19,
            ..used
        };
        assert!(source_next(None, &asker(1), SourceEvent::Lock, &limits, &used, at(0)).is_ok());
    }
}

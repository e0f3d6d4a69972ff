//! The source: the verbs, what it does by itself, and its administrator.

use crate::{
    facts::{MOVE, PRINCIPAL, attempt_from, attempt_id, limits, now, source_attempt},
    model::Cutover,
    state::{Fault, Flaw, Held, Place, Reply, Request, State},
};
use rehome_domain::{
    cutover::{
        Ground, LockUse, Outcome, Resolution, SourceAsker, SourceEvent, SourcePhase, SourceRefusal, source_next,
    },
    gate::Verb,
};

impl Cutover {
    /// The machine of production, or a broken one around it.
    fn source_next(&self, current: Option<&Held>, attempt: u8, event: SourceEvent) -> Result<Held, SourceRefusal> {
        if let Some(held) = current.filter(|held| held.id == attempt) {
            let broken = match (self.bounds.flaw, held.phase, event) {
                (Some(Flaw::LeaseReopensAfterPrepare), SourcePhase::Prepared, SourceEvent::Tick) if held.lapsed => {
                    Some(SourcePhase::Lapsed)
                }
                (Some(Flaw::LapsedLeaseRenewed), SourcePhase::Locked | SourcePhase::Lapsed, SourceEvent::Renew) => {
                    Some(SourcePhase::Locked)
                }
                _ => None,
            };
            if let Some(phase) = broken {
                return Ok(Held {
                    phase,
                    lapsed: false,
                    ..*held
                });
            }
        }
        let asker = SourceAsker {
            attempt: attempt_id(attempt),
            move_id: MOVE,
            service_principal: PRINCIPAL,
        };
        let row = current.map(source_attempt);
        let at = match current {
            Some(held) if held.lapsed => now() + limits().lease,
            Some(_) | None => now(),
        };
        let next = source_next(row.as_ref(), &asker, event, &limits(), &LockUse::default(), at)?.attempt;
        let id = attempt_from(next.id);
        let same = current.filter(|held| held.id == id);
        let holds = next.holds();
        Ok(Held {
            id,
            phase: next.phase,
            lapsed: holds && same.is_some_and(|held| held.lapsed),
            catches_up: next.catches_up.map(attempt_from),
            root: if next.phase == SourcePhase::Prepared {
                same.map_or(0, |held| held.root)
            } else {
                0
            },
        })
    }

    /// Stores an attempt, and looks whether it contradicts what the target has decided.
    fn store(&self, state: &mut State, held: Held) {
        let before = state.source.newest.replace(held);
        state.source.seen |= 1 << held.id;
        let decided = |id: u8| state.target.rows[usize::from(id)].is_some_and(|p| p.outcome() == Outcome::Decided);
        let superseded = before.is_some_and(|b| b.id != held.id && b.holds_a_promise() && decided(b.id));
        let ended = match held.phase {
            SourcePhase::Aborted | SourcePhase::Lapsed => decided(held.id),
            SourcePhase::Committed => !decided(held.id),
            SourcePhase::Locked
            | SourcePhase::Prepared
            | SourcePhase::Reopened
            | SourcePhase::Released
            | SourcePhase::Returned => false,
        };
        if superseded || ended {
            state.fault(Fault::OutcomeContradicted);
        }
    }

    /// One event on the newest attempt, stored when it is allowed.
    pub fn source_event(&self, state: &mut State, attempt: u8, event: SourceEvent) -> Result<(), SourceRefusal> {
        let held = self.source_next(state.source.newest.as_ref(), attempt, event)?;
        self.store(state, held);
        Ok(())
    }

    /// A request arrives. None where the answer has to wait.
    pub fn handle(&self, state: &mut State, request: Request) -> Option<Reply> {
        match request {
            Request::Lock(attempt) => self.lock(state, attempt),
            Request::Renew(attempt) => {
                if !self.facts.admits(state, Verb::Lock, Some(attempt)) {
                    return Some(Reply::Refused);
                }
                let renewed = self.source_event(state, attempt, SourceEvent::Renew);
                Some(if renewed.is_ok() { Reply::Granted } else { Reply::NotNow })
            }
            Request::Prepare(attempt, root) => Some(self.prepare(state, attempt, root)),
            Request::Commit(attempt) => {
                let broken = self.bounds.flaw == Some(Flaw::CommitRefusedAfterRevocation) && state.source.revoked;
                if broken || !self.facts.admits(state, Verb::Commit, Some(attempt)) {
                    return Some(Reply::Refused);
                }
                Some(match self.source_event(state, attempt, SourceEvent::Commit) {
                    Ok(()) => Reply::Committed,
                    Err(SourceRefusal::Reopened) => Reply::Reopened,
                    Err(_) => Reply::Refused,
                })
            }
            Request::Abort(attempt) => {
                if !self.facts.admits(state, Verb::Abort, Some(attempt)) {
                    return Some(Reply::Refused);
                }
                let aborted = self.source_event(state, attempt, SourceEvent::Abort);
                Some(if aborted.is_ok() {
                    Reply::Granted
                } else {
                    Reply::Refused
                })
            }
        }
    }

    /// Stored first; answered when no delivery runs any more.
    fn lock(&self, state: &mut State, attempt: u8) -> Option<Reply> {
        let is_mailbox = self.facts.at_source(state).mailbox().is_some();
        if !self.facts.admits(state, Verb::Lock, Some(attempt)) || !is_mailbox {
            return Some(Reply::Refused);
        }
        let Ok(held) = self.source_next(state.source.newest.as_ref(), attempt, SourceEvent::Lock) else {
            return Some(Reply::NotNow);
        };
        let same = state.source.newest.is_some_and(|newest| newest.id == attempt);
        // An attempt's id is never taken up again.
        if !same && state.source.seen & (1 << attempt) != 0 {
            return Some(Reply::NotNow);
        }
        self.store(state, held);
        let quiet = !state.source_is_entered() || self.bounds.flaw == Some(Flaw::NoDrain);
        quiet.then_some(Reply::Granted)
    }

    fn prepare(&self, state: &mut State, attempt: u8, root: u8) -> Reply {
        if !self.facts.admits(state, Verb::Prepare, Some(attempt)) {
            return Reply::Refused;
        }
        let newest = state.source.newest;
        let promised = newest.filter(|held| held.phase == SourcePhase::Prepared);
        let event = SourceEvent::Prepare {
            same: promised.is_none_or(|held| held.root == root),
        };
        match self.source_next(newest.as_ref(), attempt, event) {
            Ok(held) if Some(held) == newest => Reply::Promised,
            // The roots are compared over what is there.
            Ok(_) if root != state.source.content => Reply::NotNow,
            Ok(held) => {
                self.store(state, Held { root, ..held });
                Reply::Promised
            }
            Err(SourceRefusal::OtherPromise) => Reply::Refused,
            Err(_) => Reply::NotNow,
        }
    }

    /// Status changes nothing, so it needs no network: the answer may get lost.
    pub fn status(&self, state: &State, attempt: u8) -> Reply {
        match state.source.newest {
            Some(held) if self.facts.admits(state, Verb::Status, Some(attempt)) => Reply::Status(held.phase.status()),
            Some(_) | None => Reply::Refused,
        }
    }

    /// The target's outcome address has said so.
    pub fn hear(&self, state: &mut State, decided: bool) {
        if let Some(held) = state.source.newest {
            let event = if decided {
                SourceEvent::Commit
            } else {
                SourceEvent::Abort
            };
            // Refused where it comes too late.
            let _ = self.source_event(state, held.id, event);
        }
    }

    /// By the administrator's hand.
    pub fn resolve(&self, state: &mut State, resolution: Resolution, ground: Ground) {
        if let Some(held) = state.source.newest {
            let _ = self.source_event(state, held.id, SourceEvent::Resolve { resolution, ground });
        }
    }

    /// The mailbox is back, by a later move: with all that it holds, and quiet on both sides.
    pub fn come_back(&self, state: &mut State) -> Option<()> {
        let held = state.source.newest?;
        self.source_event(state, held.id, SourceEvent::CameBack).ok()?;
        state.source.content |= state.target.content;
        state.target.place = Place::MailUser;
        Some(())
    }

    /// The old content is let go.
    pub fn release(&self, state: &mut State) {
        if let Some(held) = state.source.newest
            && self.source_event(state, held.id, SourceEvent::RetentionEnds).is_ok()
            && (!state.target_is_mailbox() || state.source.content & !state.target.content != 0)
        {
            state.fault(Fault::ReleasedUnverified);
        }
    }
}

impl Held {
    fn holds_a_promise(&self) -> bool {
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
}

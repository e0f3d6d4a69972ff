//! The target: one step of a worker at a time, as the mover makes them. What is recorded before a request is sent is one
//! step with it here: a process that ends between the two is one whose request never arrives.

use crate::{
    facts::attempt_id,
    model::Cutover,
    state::{Doing, Fault, Flaw, Place, Reply, Request, State, Worker},
};
use rehome_domain::{
    cutover::{
        ClosingStep, Outcome, SourceStatus, TargetEvent, TargetPhase, TargetStep, closing_step, target_next,
        target_step, unanswered_prepare_step,
    },
    gate::Verb,
};

/// The worker that has the lease; the other one's fencing number is old.
const LEASED: usize = 0;

impl Cutover {
    /// One step of a worker that waits for nothing, or has its answer. None where there is nothing to do.
    pub fn work(&self, state: &mut State, who: usize) -> Option<()> {
        let reply = state.workers[who].reply.take();
        match state.workers[who].doing {
            Doing::Gone => return None,
            Doing::Start => return self.start(state),
            Doing::AwaitsStatus => match reply? {
                Reply::Status(status) => self.go_on(state, who, status),
                _ => self.go_on(state, who, SourceStatus::Aborted),
            },
            Doing::AwaitsLock => match reply? {
                Reply::Granted => {
                    self.send(state, Request::Renew(state.workers[who].attempt));
                    state.workers[who].doing = Doing::FinalPass;
                }
                _ => state.workers[who].doing = Doing::RecordsAbort,
            },
            Doing::FinalPass => self.final_pass(state, who),
            Doing::AwaitsPrepare => {
                state.workers[who].doing = match reply? {
                    Reply::Promised => Doing::Decides,
                    Reply::Refused => Doing::RecordsAbort,
                    _ => Doing::AwaitsStatusAfterPrepare,
                };
            }
            Doing::AwaitsStatusAfterPrepare => {
                let status = match reply? {
                    Reply::Status(status) => Some(status),
                    _ => None,
                };
                state.workers[who].doing = after_prepare(status);
            }
            Doing::Decides => self.decide(state, who),
            Doing::RecordsAbort => {
                if self.bounds.flaw == Some(Flaw::AbortSentBeforeRecorded) {
                    self.send(state, Request::Abort(state.workers[who].attempt));
                    state.workers[who].doing = Doing::HasSentAbort;
                } else {
                    self.record_abort(state, who);
                }
            }
            Doing::HasSentAbort => self.record_abort(state, who),
            Doing::AwaitsCommit => {
                let event = match reply? {
                    Reply::Committed => Some(TargetEvent::CommitAnswered),
                    Reply::Reopened => Some(TargetEvent::ReopenedAnswered),
                    _ => None,
                };
                if let Some(event) = event {
                    self.answered(state, who, event);
                }
                self.rest(state, who);
            }
        }
        Some(())
    }

    /// No answer came in time.
    pub fn time_out(&self, state: &mut State, who: usize) {
        let doing = match state.workers[who].doing {
            Doing::AwaitsLock => Doing::RecordsAbort,
            Doing::AwaitsPrepare => Doing::AwaitsStatusAfterPrepare,
            Doing::AwaitsStatusAfterPrepare => after_prepare(None),
            Doing::AwaitsStatus | Doing::AwaitsCommit => return self.rest(state, who),
            Doing::Gone
            | Doing::Start
            | Doing::FinalPass
            | Doing::Decides
            | Doing::RecordsAbort
            | Doing::HasSentAbort => return,
        };
        state.workers[who].doing = doing;
    }

    fn send(&self, state: &mut State, request: Request) {
        state.network.send(request);
    }

    /// The turn is over; the next one reads what is stored.
    fn rest(&self, state: &mut State, who: usize) {
        state.workers[who] = if who == LEASED { Worker::START } else { Worker::GONE };
    }

    fn start(&self, state: &mut State) -> Option<()> {
        let newest = state.target.newest();
        match target_step(newest.map(|(_, phase)| phase)) {
            TargetStep::Begin | TargetStep::CatchUp => {
                let attempt = state.target.used();
                if attempt == self.bounds.attempts || !self.facts.admits(state, Verb::Open, None) {
                    return None;
                }
                let current = newest.map(|(id, phase)| (attempt_id(id), phase));
                let phase = target_next(current, attempt_id(attempt), TargetEvent::Begin).ok()?;
                state.target.rows[usize::from(attempt)] = Some(phase);
                self.say(state, LEASED, Request::Lock(attempt), Doing::AwaitsLock, attempt);
            }
            TargetStep::Resume => {
                let (attempt, _) = newest?;
                let root = state.target.root;
                state.workers[LEASED] = Worker {
                    doing: Doing::AwaitsStatus,
                    attempt,
                    root,
                    reply: None,
                };
            }
            TargetStep::Commit => {
                let (attempt, _) = newest?;
                self.say(state, LEASED, Request::Commit(attempt), Doing::AwaitsCommit, attempt);
            }
            TargetStep::Complete => return None,
        }
        Some(())
    }

    fn say(&self, state: &mut State, who: usize, request: Request, doing: Doing, attempt: u8) {
        self.send(state, request);
        state.workers[who] = Worker {
            doing,
            attempt,
            root: None,
            reply: None,
        };
    }

    fn go_on(&self, state: &mut State, who: usize, status: SourceStatus) {
        let worker = state.workers[who];
        match closing_step(status, worker.root.is_some()) {
            ClosingStep::Close => self.say(
                state,
                who,
                Request::Lock(worker.attempt),
                Doing::AwaitsLock,
                worker.attempt,
            ),
            ClosingStep::Decide => state.workers[who].doing = Doing::Decides,
            ClosingStep::Abort => state.workers[who].doing = Doing::RecordsAbort,
        }
    }

    /// Whatever differs is copied; then what Prepare says is stored, and sent.
    fn final_pass(&self, state: &mut State, who: usize) {
        let attempt = state.workers[who].attempt;
        // Before every command to a server the lease is looked at.
        if who != LEASED {
            return self.rest(state, who);
        }
        if !self.facts.admits(state, Verb::Read, Some(attempt)) {
            state.workers[who].doing = Doing::RecordsAbort;
            return;
        }
        let seen = state.source.content;
        if state.target_is_mailbox() {
            state.target.content |= seen;
        } else {
            state.target.content = seen;
        }
        if self.bounds.flaw == Some(Flaw::DecideWithoutPrepare) {
            state.workers[who].doing = Doing::Decides;
            return;
        }
        state.target.root = Some(seen);
        self.say(
            state,
            who,
            Request::Prepare(attempt, seen),
            Doing::AwaitsPrepare,
            attempt,
        );
        state.workers[who].root = Some(seen);
    }

    /// Writes a row, and looks whether an outcome has changed.
    fn write(&self, state: &mut State, attempt: u8, phase: TargetPhase) {
        let before = state.target.rows[usize::from(attempt)].replace(phase);
        let told = before.map_or(Outcome::Undecided, TargetPhase::outcome);
        if told != Outcome::Undecided && told != phase.outcome() {
            state.fault(Fault::OutcomeContradicted);
        }
        if phase.outcome() != Outcome::Undecided {
            state.target.root = None;
        }
    }

    fn transition(&self, state: &State, who: usize, event: TargetEvent) -> Option<TargetPhase> {
        let current = state.target.newest().map(|(id, phase)| (attempt_id(id), phase));
        target_next(current, attempt_id(state.workers[who].attempt), event).ok()
    }

    fn decide(&self, state: &mut State, who: usize) {
        if who != LEASED {
            return self.rest(state, who);
        }
        let attempt = state.workers[who].attempt;
        match self.transition(state, who, TargetEvent::Decide) {
            Some(phase) => {
                self.write(state, attempt, phase);
                if state.target.place == Place::MailUser {
                    state.target.place = Place::NotYetShown;
                }
                self.say(state, who, Request::Commit(attempt), Doing::AwaitsCommit, attempt);
            }
            None => state.workers[who].doing = Doing::RecordsAbort,
        }
    }

    fn record_abort(&self, state: &mut State, who: usize) {
        let attempt = state.workers[who].attempt;
        if who == LEASED
            && let Some(phase) = self.transition(state, who, TargetEvent::Abort)
        {
            self.write(state, attempt, phase);
            self.send(state, Request::Abort(attempt));
        }
        self.rest(state, who);
    }

    /// Not fenced: written only where the row is still as it was read.
    fn answered(&self, state: &mut State, who: usize, event: TargetEvent) {
        let attempt = state.workers[who].attempt;
        let id = attempt_id(attempt);
        if state.target.rows[usize::from(attempt)] == Some(TargetPhase::Decided)
            && let Ok(phase) = target_next(Some((id, TargetPhase::Decided)), id, event)
        {
            self.write(state, attempt, phase);
        }
    }
}

fn after_prepare(status: Option<SourceStatus>) -> Doing {
    match unanswered_prepare_step(status) {
        ClosingStep::Decide => Doing::Decides,
        ClosingStep::Close | ClosingStep::Abort => Doing::RecordsAbort,
    }
}

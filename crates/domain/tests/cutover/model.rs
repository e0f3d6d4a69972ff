//! Both machines with everything that may happen between them, as a model that can be explored.

use crate::{
    facts::Facts,
    state::{ATTEMPTS, Bounds, Doing, MESSAGES, Mail, Place, Request, State, Worker},
};
use rehome_domain::{
    cutover::{Ground, Outcome, Resolution, SourceEvent, SourcePhase, TargetPhase},
    gate::Verb,
};
use stateright::{Model, Property};

pub struct Cutover {
    pub bounds: Bounds,
    pub facts: Facts,
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A worker goes on.
    Work(usize),
    /// A worker waits no longer.
    TimeOut(usize),
    /// A request arrives; its answer, if anyone gets it, goes to this worker.
    Arrive(Request, Option<usize>),
    /// Status is asked and answered.
    Answer(usize),
    /// The outcome address answers.
    Tell,
    /// What it answered reaches the source: decided or aborted.
    Hear(bool),
    /// The lease's time passes on the source's clock.
    TimePasses,
    /// The source looks at its clock.
    Look,
    /// Lock could not be made quiet in time, and is undone.
    NotQuiet,
    /// The new mailbox is shown.
    Show,
    /// A sweep for what came late.
    Sweep,
    /// The old content's time has ended.
    Release,
    /// A later move has brought the mailbox back.
    ComeBack,
    /// A sender tries.
    Send(usize),
    /// A message is in its place.
    Deliver(usize),
    /// The source's process ends and comes back.
    SourceCrashes,
    /// The target's process ends and comes back.
    TargetCrashes,
    /// A worker loses its lease without knowing; another one takes over.
    TakeOver,
    /// Consent is withdrawn.
    Revoke,
    /// Consent is given again.
    Consent,
    /// By hand.
    Resolve(Resolution, Ground),
}

impl Cutover {
    pub fn new(bounds: Bounds) -> Self {
        assert!(usize::from(bounds.attempts) <= ATTEMPTS && usize::from(bounds.messages) <= MESSAGES);
        let facts = Facts::new();
        Self { bounds, facts }
    }

    /// What a worker waits for, as a request of the network.
    fn awaited(&self, worker: &Worker) -> Option<Request> {
        match worker.doing {
            Doing::AwaitsLock => Some(Request::Lock(worker.attempt)),
            Doing::AwaitsPrepare => worker.root.map(|root| Request::Prepare(worker.attempt, root)),
            Doing::AwaitsCommit => Some(Request::Commit(worker.attempt)),
            Doing::AwaitsStatus
            | Doing::AwaitsStatusAfterPrepare
            | Doing::Gone
            | Doing::Start
            | Doing::FinalPass
            | Doing::Decides
            | Doing::RecordsAbort
            | Doing::HasSentAbort => None,
        }
    }

    /// Whether this needs no misfortune, and no administrator: from everywhere these alone must lead to a good end.
    pub fn is_kind(&self, action: &Action) -> bool {
        match action {
            Action::Work(_)
            | Action::Answer(_)
            | Action::Tell
            | Action::Hear(_)
            | Action::TimePasses
            | Action::Look
            | Action::Show
            | Action::Send(_)
            | Action::Deliver(_)
            | Action::Arrive(Request::Abort(_), _)
            | Action::Arrive(_, Some(_)) => true,
            // Content needs consent: a catch-up waits for it.
            Action::Consent => self.bounds.by_hand,
            Action::Arrive(_, None)
            | Action::TimeOut(_)
            | Action::NotQuiet
            | Action::Sweep
            | Action::Release
            | Action::ComeBack
            | Action::SourceCrashes
            | Action::TargetCrashes
            | Action::TakeOver
            | Action::Revoke
            | Action::Resolve(..) => false,
        }
    }

    /// Finished, or returned, with all mail in its mailbox.
    pub fn is_good_end(&self, state: &State) -> bool {
        let messages = &state.mail[..usize::from(self.bounds.messages)];
        let all_there = messages.iter().all(|m| matches!(m, Mail::AtSource | Mail::AtTarget));
        let source_is_open = self
            .facts
            .at_source(state)
            .mailbox()
            .is_some_and(|m| m.state == rehome_domain::recipient::MailboxState::Open);
        let moved = matches!(
            state.source.newest.map(|held| held.phase),
            Some(SourcePhase::Committed | SourcePhase::Released)
        );
        let shown = state.target.place == Place::Open;
        all_there
            && match state.target.newest().map(|(_, phase)| phase) {
                Some(TargetPhase::Done) => moved && shown || source_is_open && state.target.place == Place::MailUser,
                None | Some(TargetPhase::Aborted) => source_is_open,
                // More attempts would follow; the model has none left.
                Some(TargetPhase::Reopened | TargetPhase::CatchUpAborted) => {
                    state.target.used() == self.bounds.attempts && shown && source_is_open
                }
                Some(TargetPhase::Closing | TargetPhase::Decided | TargetPhase::CatchingUp) => false,
            }
    }

    fn arrive_all(&self, state: &State, actions: &mut Vec<Action>) {
        for request in state.network.requests(self.bounds.attempts) {
            for (who, worker) in state.workers.iter().enumerate() {
                if worker.reply.is_none() && self.awaited(worker) == Some(request) {
                    actions.push(Action::Arrive(request, Some(who)));
                }
            }
            actions.push(Action::Arrive(request, None));
        }
    }

    fn by_hand(&self, state: &State, actions: &mut Vec<Action>) {
        let Some(held) = state.source.newest else { return };
        if held.phase == SourcePhase::Prepared {
            actions.push(Action::Resolve(Resolution::Aborted, Ground::Forced));
        }
        for (decided, resolution) in [(true, Resolution::Committed), (false, Resolution::Aborted)] {
            if state.network.was_told(held.id, decided) {
                actions.push(Action::Resolve(resolution, Ground::Stated));
            }
        }
    }

    /// What the source may do by itself.
    fn of_the_source(&self, state: &State, actions: &mut Vec<Action>) {
        let Some(held) = state.source.newest else { return };
        match held.phase {
            SourcePhase::Locked | SourcePhase::Prepared => {
                actions.push(if held.lapsed { Action::Look } else { Action::TimePasses });
            }
            SourcePhase::Committed => actions.extend([Action::Release, Action::Sweep]),
            SourcePhase::Aborted
            | SourcePhase::Lapsed
            | SourcePhase::Reopened
            | SourcePhase::Released
            | SourcePhase::Returned => {}
        }
        if held.phase == SourcePhase::Prepared {
            actions.push(Action::Tell);
        }
        for decided in [true, false] {
            if state.network.was_told(held.id, decided) {
                actions.push(Action::Hear(decided));
            }
        }
        if held.phase == SourcePhase::Locked && state.source_is_entered() {
            actions.push(Action::NotQuiet);
        }
    }

    fn of_mail(&self, state: &State, actions: &mut Vec<Action>) {
        for message in 0..usize::from(self.bounds.messages) {
            match state.mail[message] {
                Mail::Waits => actions.push(Action::Send(message)),
                Mail::EntersSource | Mail::EntersTarget => actions.push(Action::Deliver(message)),
                Mail::AtSource | Mail::AtTarget => {}
            }
        }
    }

    fn apply(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Work(who) => self.work(state, who)?,
            Action::TimeOut(who) => self.time_out(state, who),
            Action::Arrive(request, who) => {
                let reply = self.handle(state, request);
                // Without a reply it waits for quiet: nobody is answered yet.
                if let (Some(who), Some(reply)) = (who, reply) {
                    state.workers[who].reply = Some(reply);
                }
            }
            Action::Answer(who) => {
                state.workers[who].reply = Some(self.status(state, state.workers[who].attempt));
            }
            Action::Tell => {
                let held = state.source.newest?;
                match state.target.rows[usize::from(held.id)]?.outcome() {
                    Outcome::Decided => state.network.tell(held.id, true).then_some(())?,
                    Outcome::Aborted => state.network.tell(held.id, false).then_some(())?,
                    Outcome::Undecided => return None,
                }
            }
            Action::Hear(decided) => self.hear(state, decided),
            Action::TimePasses => state.source.newest.as_mut()?.lapsed = true,
            Action::Look => {
                let held = state.source.newest?;
                self.source_event(state, held.id, SourceEvent::Tick).ok()?;
            }
            Action::NotQuiet => {
                let held = state.source.newest?;
                self.source_event(state, held.id, SourceEvent::Abort).ok()?;
            }
            Action::Show => state.target.place = Place::Open,
            Action::Sweep => {
                let held = state.source.newest?;
                let done = state.target.rows[usize::from(held.id)] == Some(TargetPhase::Done);
                if !done || !self.facts.admits(state, Verb::Sweep, Some(held.id)) {
                    return None;
                }
                state.target.content |= state.source.content;
            }
            Action::Release => self.release(state),
            Action::ComeBack => {
                let held = state.source.newest?;
                // Only while the old content is kept.
                (held.phase == SourcePhase::Committed).then(|| self.come_back(state))??;
            }
            Action::Send(message) => self.send_message(state, message)?,
            Action::Deliver(message) => self.arrive(state, message),
            Action::SourceCrashes => crash(state, Mail::EntersSource),
            Action::TargetCrashes => {
                crash(state, Mail::EntersTarget);
                state.workers = [Worker::START, Worker::GONE];
            }
            Action::TakeOver => state.workers = [Worker::START, state.workers[0]],
            Action::Revoke => state.source.revoked = true,
            Action::Consent => state.source.revoked = false,
            Action::Resolve(resolution, ground) => self.resolve(state, resolution, ground),
        }
        Some(())
    }
}

/// What was being written is gone; its sender has no answer, and repeats.
fn crash(state: &mut State, entering: Mail) {
    for mail in &mut state.mail {
        if *mail == entering {
            *mail = Mail::Waits;
        }
    }
}

impl Model for Cutover {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.fault.is_some() {
            return;
        }
        for (who, worker) in state.workers.iter().enumerate() {
            if worker.doing != Doing::Gone && (!worker.doing.waits() || worker.reply.is_some()) {
                actions.push(Action::Work(who));
            }
            if worker.doing.waits() {
                actions.push(Action::TimeOut(who));
            }
            let asks = matches!(worker.doing, Doing::AwaitsStatus | Doing::AwaitsStatusAfterPrepare);
            if asks && worker.reply.is_none() {
                actions.push(Action::Answer(who));
            }
        }
        self.arrive_all(state, actions);
        self.of_the_source(state, actions);
        self.of_mail(state, actions);
        if state.target.place == Place::NotYetShown {
            actions.push(Action::Show);
        }
        if self.bounds.by_hand {
            self.by_hand(state, actions);
        }
        let done = matches!(state.target.newest(), Some((_, TargetPhase::Done)));
        let calm = !state
            .mail
            .iter()
            .any(|m| matches!(m, Mail::EntersSource | Mail::EntersTarget));
        if self.bounds.way_back && done && calm && state.target.place == Place::Open {
            actions.push(Action::ComeBack);
        }
        if self.bounds.crashes {
            actions.extend([Action::SourceCrashes, Action::TargetCrashes]);
        }
        if self.bounds.second_mover && state.workers[1].doing == Doing::Gone && state.workers[0].doing != Doing::Start {
            actions.push(Action::TakeOver);
        }
        if self.bounds.revocation {
            actions.push(if state.source.revoked {
                Action::Consent
            } else {
                Action::Revoke
            });
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        self.apply(&mut state, action)?;
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "never two tenants accept mail for one ExchangeGuid",
                |model, state: &State| !model.both_accept(state) || state.is_exception(),
            ),
            Property::always(
                "no message is rejected, looped or accepted too late, no outcome contradicted, no content released unverified",
                |_, state: &State| state.fault.is_none(),
            ),
            Property::always(
                "what the target has decided the source waits for or has carried out",
                |_, state: &State| {
                    let Some(held) = state.source.newest else { return true };
                    let decided =
                        state.target.rows[usize::from(held.id)].is_some_and(|p| p.outcome() == Outcome::Decided);
                    let carried = match held.phase {
                        SourcePhase::Prepared
                        | SourcePhase::Committed
                        | SourcePhase::Released
                        | SourcePhase::Returned => Some(true),
                        // The one exception, by the administrator's hand.
                        SourcePhase::Reopened => None,
                        SourcePhase::Locked | SourcePhase::Aborted | SourcePhase::Lapsed => Some(false),
                    };
                    !decided || carried != Some(false)
                },
            ),
            Property::always(
                "a decided attempt is the source's newest, or what the newest catches up",
                |_, state: &State| {
                    let newest = state.source.newest;
                    let rows = (0..).zip(&state.target.rows);
                    rows.filter(|(_, phase)| **phase == Some(TargetPhase::Decided))
                        .all(|(id, _)| newest.is_some_and(|held| held.id == id || held.catches_up == Some(id)))
                },
            ),
            Property::always(
                "every accepted message is in the mailbox that counts",
                |model, state: &State| {
                    let (source, target) = (state.source.content, state.target.content);
                    let accepted = state.mail[..usize::from(model.bounds.messages)]
                        .iter()
                        .enumerate()
                        .fold(0, |bits, (m, mail)| {
                            bits | u8::from(matches!(mail, Mail::AtSource | Mail::AtTarget)) << m
                        });
                    let moved = matches!(
                        state.source.newest.map(|held| held.phase),
                        Some(SourcePhase::Committed | SourcePhase::Released)
                    );
                    let holds = |content: u8| accepted & !content == 0;
                    match (state.target_is_mailbox(), moved) {
                        (false, _) => holds(source),
                        (true, true) => holds(target),
                        (true, false) if state.is_exception() => holds(source | target),
                        (true, false) => holds(target),
                    }
                },
            ),
            Property::sometimes("a move finishes", |_, state: &State| {
                matches!(state.target.newest(), Some((_, TargetPhase::Done)))
            }),
            Property::sometimes("an attempt is given up and another one finishes", |_, state: &State| {
                state.target.used() > 1 && matches!(state.target.newest(), Some((_, TargetPhase::Done)))
            }),
        ]
    }
}

//! What the model remembers: the stored rows of both sides, what is under way, and what the network holds.

use rehome_domain::cutover::{SourcePhase, SourceStatus, TargetPhase};

/// Most attempts of one move.
pub const ATTEMPTS: usize = 3;

/// Most messages.
pub const MESSAGES: usize = 2;

/// Messages as bits: message 0 is sent to the source's address, message 1 to the target's.
pub type Messages = u8;

/// What is explored.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Attempts of the move, at most [`ATTEMPTS`].
    pub attempts: u8,
    /// Messages that arrive, at most [`MESSAGES`].
    pub messages: u8,
    /// Either process may end at any point.
    pub crashes: bool,
    /// A worker that lost its lease may go on beside the one that has it.
    pub second_mover: bool,
    /// Consent may be withdrawn and given again at any point.
    pub revocation: bool,
    /// The source's administrator may resolve what is prepared, and force it.
    pub by_hand: bool,
    /// The mailbox may come back. The move that brings it is one step here: in the other direction it is this model again.
    pub way_back: bool,
    /// What is broken on purpose.
    pub flaw: Option<Flaw>,
}

/// A broken variant of what runs in production. Each must be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// A lease that ends opens the mailbox although the source has promised to wait.
    LeaseReopensAfterPrepare,
    /// Renew brings a lapsed lock back.
    LapsedLeaseRenewed,
    /// Abort is said before it is recorded.
    AbortSentBeforeRecorded,
    /// The target decides after its final pass, whatever the source says.
    DecideWithoutPrepare,
    /// Commit needs consent.
    CommitRefusedAfterRevocation,
    /// Lock is answered while a delivery still runs.
    NoDrain,
}

/// What must never happen, seen in the step that did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// An attempt had an outcome and has another one now, or the two sides' ends differ.
    OutcomeContradicted,
    /// A message came into the old mailbox when the new one was the mailbox.
    AcceptedTooLate,
    /// A sender was told never.
    Rejected,
    /// The source's kept content was let go before the target had it.
    ReleasedUnverified,
}

/// The source's newest attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    pub id: u8,
    pub phase: SourcePhase,
    /// Whether the source's clock has passed the lease's end.
    pub lapsed: bool,
    pub catches_up: Option<u8>,
    /// What Prepare's root stood for.
    pub root: Messages,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    pub newest: Option<Held>,
    /// Every attempt that was ever granted, as bits.
    pub seen: u8,
    pub content: Messages,
    pub revoked: bool,
}

/// The target's recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    MailUser,
    NotYetShown,
    Open,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// One row for each attempt, in their order.
    pub rows: [Option<TargetPhase>; ATTEMPTS],
    /// What Prepare says, stored for the newest attempt while it is undecided.
    pub root: Option<Messages>,
    pub place: Place,
    /// What was copied, or what the mailbox holds.
    pub content: Messages,
}

impl Target {
    pub fn newest(&self) -> Option<(u8, TargetPhase)> {
        let used = self.used();
        let newest = used.checked_sub(1)?;
        self.rows[usize::from(newest)].map(|phase| (newest, phase))
    }

    pub fn used(&self) -> u8 {
        u8::try_from(self.rows.iter().flatten().count()).expect("few attempts")
    }
}

/// What a worker does next, or waits for. Lost when its process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Doing {
    Gone,
    Start,
    AwaitsStatus,
    AwaitsLock,
    FinalPass,
    AwaitsPrepare,
    AwaitsStatusAfterPrepare,
    Decides,
    RecordsAbort,
    /// Only with [`Flaw::AbortSentBeforeRecorded`].
    HasSentAbort,
    AwaitsCommit,
}

impl Doing {
    pub fn waits(self) -> bool {
        match self {
            Self::AwaitsStatus
            | Self::AwaitsLock
            | Self::AwaitsPrepare
            | Self::AwaitsStatusAfterPrepare
            | Self::AwaitsCommit => true,
            Self::Gone | Self::Start | Self::FinalPass | Self::Decides | Self::RecordsAbort | Self::HasSentAbort => {
                false
            }
        }
    }
}

/// What the source answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    Granted,
    Promised,
    Status(SourceStatus),
    Committed,
    Reopened,
    /// For good.
    Refused,
    /// Try again.
    NotNow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Worker {
    pub doing: Doing,
    pub attempt: u8,
    /// What Prepare says, as this worker knows it.
    pub root: Option<Messages>,
    pub reply: Option<Reply>,
}

impl Worker {
    pub const GONE: Self = Self::new(Doing::Gone);
    pub const START: Self = Self::new(Doing::Start);

    const fn new(doing: Doing) -> Self {
        Self {
            doing,
            attempt: 0,
            root: None,
            reply: None,
        }
    }
}

/// A request that changes something at the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    Lock(u8),
    Renew(u8),
    Prepare(u8, Messages),
    Commit(u8),
    Abort(u8),
}

/// Every request ever sent. Each may arrive at any time, any number of times and in any order, or never: which is loss,
/// delay, doubles and reordering.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Network {
    locks: u8,
    renewals: u8,
    commits: u8,
    aborts: u8,
    prepares: [u8; ATTEMPTS],
    /// What the outcome address has answered: decided, aborted.
    told: [[bool; 2]; ATTEMPTS],
}

impl Network {
    pub fn send(&mut self, request: Request) {
        match request {
            Request::Lock(a) => self.locks |= 1 << a,
            Request::Renew(a) => self.renewals |= 1 << a,
            Request::Commit(a) => self.commits |= 1 << a,
            Request::Abort(a) => self.aborts |= 1 << a,
            Request::Prepare(a, root) => self.prepares[usize::from(a)] |= 1 << root,
        }
    }

    pub fn requests(&self, attempts: u8) -> Vec<Request> {
        let mut all = Vec::new();
        for a in 0..attempts {
            let sent = |bits: u8| bits & (1 << a) != 0;
            for (bits, request) in [
                (self.locks, Request::Lock(a)),
                (self.renewals, Request::Renew(a)),
                (self.commits, Request::Commit(a)),
                (self.aborts, Request::Abort(a)),
            ] {
                if sent(bits) {
                    all.push(request);
                }
            }
            let prepares = self.prepares[usize::from(a)];
            let roots = (0..1 << MESSAGES).filter(|root| prepares & (1 << root) != 0);
            all.extend(roots.map(|root| Request::Prepare(a, root)));
        }
        all
    }

    /// Notes an answer of the outcome address; false when it was noted before.
    pub fn tell(&mut self, attempt: u8, decided: bool) -> bool {
        let told = &mut self.told[usize::from(attempt)][usize::from(!decided)];
        !std::mem::replace(told, true)
    }

    pub fn was_told(&self, attempt: u8, decided: bool) -> bool {
        self.told[usize::from(attempt)][usize::from(!decided)]
    }
}

/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mail {
    /// At its sender, who repeats.
    Waits,
    /// On its way into the source's mailbox, under its shared lock.
    EntersSource,
    /// On its way into the target's mailbox, under its shared lock.
    EntersTarget,
    /// Accepted into the source's mailbox.
    AtSource,
    /// Accepted into the target's mailbox.
    AtTarget,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub source: Source,
    pub target: Target,
    /// The one that has the lease, and one that had it.
    pub workers: [Worker; 2],
    pub network: Network,
    pub mail: [Mail; MESSAGES],
    pub fault: Option<Fault>,
}

impl State {
    pub fn new() -> Self {
        Self {
            source: Source {
                newest: None,
                seen: 0,
                content: 0,
                revoked: false,
            },
            target: Target {
                rows: [None; ATTEMPTS],
                root: None,
                place: Place::MailUser,
                content: 0,
            },
            workers: [Worker::START, Worker::GONE],
            network: Network::default(),
            mail: [Mail::Waits; MESSAGES],
            fault: None,
        }
    }

    pub fn fault(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    /// Whether the mailbox was reopened by hand and its target may be the mailbox as well: the one exception, until the
    /// source commits.
    pub fn is_exception(&self) -> bool {
        self.source.newest.is_some_and(|held| match held.phase {
            SourcePhase::Reopened => true,
            SourcePhase::Locked | SourcePhase::Prepared | SourcePhase::Aborted | SourcePhase::Lapsed => {
                held.catches_up.is_some()
            }
            SourcePhase::Committed | SourcePhase::Released | SourcePhase::Returned => false,
        })
    }

    /// Whether the target's recipient is the mailbox.
    pub fn target_is_mailbox(&self) -> bool {
        self.target.place != Place::MailUser
    }

    /// Whether a delivery into the source's mailbox is under way.
    pub fn source_is_entered(&self) -> bool {
        self.mail.contains(&Mail::EntersSource)
    }
}

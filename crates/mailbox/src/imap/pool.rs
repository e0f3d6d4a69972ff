//! The connections to one server, shared by all mailboxes on it.

use super::connection::Connection;
use super::error::{Failure, Kind, Outcome};
use super::settings::{ServerSettings, SignIn};
use super::sign_in;
use crate::{ErrorScope, MailboxError, Retry};
use rehome_wire::imap::{Capabilities, MailboxName};
use secrecy::SecretString;
use std::collections::{HashMap, VecDeque};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long after a refused sign-in the same account is not tried again.
const AFTER_REFUSAL: Duration = Duration::from_secs(60);
/// Refused sign-ins of different accounts in a row after which it is the mover's own credentials that are in doubt.
const MOST_REFUSALS: u32 = 3;
/// How long a caller waits for a connection that others use.
const MOST_WAIT: Duration = Duration::from_secs(600);
/// How many times as long as octets may stand still on a connection a caller waits while nothing moves on any of the
/// account's.
const STILL: u32 = 2;
/// How long what came free is kept for whoever waits longest. Who does not take it by then is a stream that nobody
/// reads now, and it must not keep the others from going on: it may be them that its reader waits for.
const FIRST_CALL: Duration = Duration::from_millis(50);
/// How long fewer connections are made after the server refused one as too many.
const WHILE_CROWDED: Duration = Duration::from_secs(300);
/// Most accounts whose refusal is remembered.
const MAX_REMEMBERED: usize = 10_000;

/// One server's connections and what is known of it.
pub(super) struct Pool {
    pub(super) settings: ServerSettings,
    state: Mutex<State>,
    freed: Notify,
    kept: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Used last, last.
    idle: Vec<Idle>,
    /// Connections that are there or being made.
    open: usize,
    accounts: HashMap<Arc<str>, Account>,
    /// The server wants to be left alone until then.
    rest: Option<(Instant, MailboxError)>,
    /// Sign-ins refused since the last that was not.
    refusals: u32,
    /// The server wants no more connections than these, until then.
    crowded: Option<(Instant, usize)>,
    /// As they were after the last sign-in.
    capabilities: Option<Arc<Known>>,
}

struct Idle {
    account: Arc<str>,
    connection: Box<Connection>,
}

#[derive(Default)]
struct Account {
    open: usize,
    generation: u64,
    /// How often folders were renamed or removed: what a connection opened under a name before may now have another.
    moves: u64,
    refused: Option<(Instant, MailboxError)>,
    /// The server wants no more connections of the account than these, until then.
    crowded: Option<(Instant, usize)>,
    /// Callers in the order in which they get connections.
    waiting: VecDeque<u64>,
    /// The number of the last of them.
    last_ticket: u64,
    /// When one of its connections came free last.
    freed: Option<Instant>,
    /// Steps of its connections.
    moved: Arc<AtomicU64>,
}

/// What a sign-in showed.
pub(super) struct Known {
    pub(super) capabilities: Capabilities,
    pub(super) quirks: super::quirks::Quirks,
}

/// Who asks for a connection.
#[derive(Clone)]
pub(super) struct Who {
    pub(super) account: Arc<str>,
    pub(super) password: Option<SecretString>,
}

/// A connection on loan. Dropped, it goes back, unless something is still to be answered on it.
pub(super) struct Lease {
    connection: Option<Box<Connection>>,
    account: Arc<str>,
    pool: Arc<Pool>,
    /// It was there before; it may have died since it was used last.
    pub(super) reused: bool,
}

impl Deref for Lease {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("it is taken out on drop only")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("it is taken out on drop only")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.give_back(&self.account, connection, Instant::now());
        }
    }
}

/// What can be done for somebody who wants a connection.
enum Turn {
    Use(Box<Connection>),
    /// A place was taken for a new one; these are to be closed for it.
    Open(Vec<Connection>),
    /// Until something comes free, or this long.
    Wait(Option<Duration>),
}

impl Account {
    /// How long something that is free is still kept for those who wait longer than this caller. They lose their
    /// places when that time is over.
    fn first_call(&mut self, ticket: u64) -> Option<Duration> {
        if !self.waiting.contains(&ticket) {
            self.waiting.push_back(ticket);
        }
        let ahead = self.waiting.iter().position(|waiting| *waiting == ticket)?;
        let left = self.freed.and_then(|freed| FIRST_CALL.checked_sub(freed.elapsed()));
        match left {
            Some(left) if ahead > 0 && !left.is_zero() => Some(left),
            Some(_) | None => {
                self.waiting.drain(..ahead);
                None
            }
        }
    }
}

impl Pool {
    pub(super) fn new(settings: ServerSettings) -> Arc<Self> {
        Arc::new(Self {
            settings,
            state: Mutex::default(),
            freed: Notify::new(),
            kept: AtomicBool::new(false),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known since a sign-in.
    pub(super) fn known(&self) -> Option<Arc<Known>> {
        self.state().capabilities.clone()
    }

    /// A connection for the account, if possible one that has `folder` open. Callers of one account take turns.
    pub(super) async fn acquire(self: &Arc<Self>, who: &Who, folder: Option<&MailboxName>) -> Outcome<Lease> {
        let mut patience = Patience::new(self);
        let mut ticket = Ticket::new(self, &who.account);
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            match self.turn(&who.account, folder, ticket.number)? {
                Turn::Use(connection) => {
                    let mut lease = self.lease(who, connection, true);
                    if lease.is_alive().await {
                        return Ok(lease);
                    }
                }
                Turn::Open(closing) => {
                    for connection in closing {
                        tokio::spawn(connection.log_out());
                    }
                    // While it is made, others may go on with those that are there.
                    drop(ticket);
                    match self.open(who).await {
                        // With fewer connections it goes on, as soon as one of them is free.
                        Err(failure) if failure.kind == Kind::Crowded && self.make_do(&who.account) => {}
                        opened => return opened,
                    }
                    ticket = Ticket::new(self, &who.account);
                }
                Turn::Wait(most) => {
                    let left = patience.left();
                    let _ = tokio::time::timeout(most.map_or(left, |most| most.min(left)), freed).await;
                    patience.check(self.moved(&who.account))?;
                }
            }
        }
    }

    /// Steps of the account's connections so far.
    fn moved(&self, account: &Arc<str>) -> u64 {
        let state = self.state();
        let entry = state.accounts.get(account);
        entry.map_or(0, |entry| entry.moved.load(Ordering::Relaxed))
    }

    /// Whether somebody waits for a connection of the account: then whoever holds one and could do without gives it back.
    pub(super) fn is_waited_for(&self, account: &Arc<str>) -> bool {
        let state = self.state();
        let entry = state.accounts.get(account);
        entry.is_some_and(|entry| !entry.waiting.is_empty())
    }

    fn turn(&self, account: &Arc<str>, folder: Option<&MailboxName>, ticket: u64) -> Outcome<Turn> {
        let mut guard = self.state();
        let state = &mut *guard;
        state.check_rest()?;
        let entry = state.accounts.entry(Arc::clone(account)).or_default();
        let per_account = limit(self.settings.connections_per_account, entry.crowded);
        let idle = choose(&state.idle, account, folder);
        if idle.is_none() && entry.open >= per_account {
            check_refused(&mut entry.refused)?;
            return Ok(Turn::Wait(None));
        }
        if let Some(wait) = entry.first_call(ticket) {
            return Ok(Turn::Wait(Some(wait)));
        }
        if let Some(at) = idle {
            let mut connection = state.idle.remove(at).connection;
            if connection.moves != entry.moves {
                connection.moves = entry.moves;
                connection.selected = None;
            }
            return Ok(Turn::Use(connection));
        }
        check_refused(&mut entry.refused)?;
        let mut closing = Vec::new();
        let most = limit(self.settings.connections, state.crowded);
        while state.open >= most {
            // The one that was used longest ago makes place; it is another account's.
            if state.idle.is_empty() {
                return Ok(Turn::Wait(None));
            }
            let Idle { account, connection } = state.idle.remove(0);
            state.open -= 1;
            release_account(&mut state.accounts, &account);
            closing.push(*connection);
        }
        state.open += 1;
        state.accounts.entry(Arc::clone(account)).or_default().open += 1;
        Ok(Turn::Open(closing))
    }

    /// The server refused one connection more: the account, or else all, make do with those that are there. False
    /// where none is there.
    fn make_do(&self, account: &Arc<str>) -> bool {
        let until = Instant::now() + WHILE_CROWDED;
        let mut guard = self.state();
        let state = &mut *guard;
        if let Some(entry) = state.accounts.get_mut(account).filter(|entry| entry.open > 0) {
            entry.crowded = Some((until, entry.open));
            return true;
        }
        if state.open > 0 {
            state.crowded = Some((until, state.open));
        }
        state.open > 0
    }

    /// Makes a connection in the place that was taken for it.
    async fn open(self: &Arc<Self>, who: &Who) -> Outcome<Lease> {
        let mut place = Place {
            pool: self,
            account: &who.account,
            taken: false,
        };
        // Whoever renews meanwhile does not mean this one any more.
        let (generation, moves) = self.generation(&who.account);
        let opened = sign_in::open(&self.settings, who).await;
        let connection = match opened {
            Ok(connection) => connection,
            Err(failure) => {
                self.note_refusal(&who.account, &failure);
                return Err(failure);
            }
        };
        place.taken = true;
        {
            let mut state = self.state();
            state.refusals = 0;
            state.capabilities = Some(Arc::new(Known {
                capabilities: connection.capabilities.clone(),
                quirks: connection.quirks,
            }));
        }
        self.keep();
        let mut lease = self.lease(who, Box::new(connection), false);
        (lease.generation, lease.moves) = (generation, moves);
        Ok(lease)
    }

    fn lease(self: &Arc<Self>, who: &Who, mut connection: Box<Connection>, reused: bool) -> Lease {
        if let Some(entry) = self.state().accounts.get(&who.account) {
            connection.moved = Arc::clone(&entry.moved);
        }
        Lease {
            connection: Some(connection),
            account: Arc::clone(&who.account),
            pool: Arc::clone(self),
            reused,
        }
    }

    /// How often the account was renewed, and how often its folders got other names.
    fn generation(&self, account: &Arc<str>) -> (u64, u64) {
        let state = self.state();
        let entry = state.accounts.get(account);
        entry.map_or((0, 0), |entry| (entry.generation, entry.moves))
    }

    /// Folders of the account have other names, or are gone: no connection may take its open folder for the one that
    /// it asked for. UIDVALIDITY does not always tell them apart.
    pub(super) fn folders_moved(&self, account: &Arc<str>) {
        if let Some(entry) = self.state().accounts.get_mut(account) {
            entry.moves += 1;
        }
    }

    /// A place becomes free.
    fn forget(&self, account: &Arc<str>) {
        {
            let mut state = self.state();
            state.open = state.open.saturating_sub(1);
            release_account(&mut state.accounts, account);
        }
        self.freed.notify_waiters();
    }

    /// A connection that was used last at `used` is free again.
    fn give_back(&self, account: &Arc<str>, mut connection: Box<Connection>, used: Instant) {
        connection.used = used;
        connection.take_back_bodies();
        let account = Arc::clone(account);
        let mut guard = self.state();
        // Looked at and put back in one step, or a renewal in between would miss it.
        let generation = guard.accounts.get(&account).map_or(0, |entry| entry.generation);
        if generation != connection.generation || !connection.is_sound() {
            drop(guard);
            drop(connection);
            return self.forget(&account);
        }
        if let Some(entry) = guard.accounts.get_mut(&account) {
            entry.freed = Some(Instant::now());
        }
        guard.idle.push(Idle { account, connection });
        drop(guard);
        self.freed.notify_waiters();
    }

    /// What is asked for the account from now on is answered on new connections.
    pub(super) async fn renew(&self, account: &Arc<str>) {
        let closing = {
            let mut guard = self.state();
            let state = &mut *guard;
            if let Some(entry) = state.accounts.get_mut(account) {
                entry.generation += 1;
            }
            state.take_idle(|idle| idle.account == *account)
        };
        self.freed.notify_waiters();
        for connection in closing {
            connection.log_out().await;
        }
    }

    /// Remembers that the server asked for rest, or that a sign-in was refused.
    pub(super) fn note(&self, failure: &Failure) {
        if let (Kind::Throttled, Retry::After(seconds)) = (failure.kind, failure.error.retry) {
            let until = Instant::now() + Duration::from_secs(u64::from(seconds));
            self.state().rest = Some((until, failure.error.clone()));
        }
    }

    fn note_refusal(&self, account: &Arc<str>, failure: &Failure) {
        self.note(failure);
        if failure.kind != Kind::SignIn {
            return;
        }
        let until = Instant::now() + AFTER_REFUSAL;
        let mut guard = self.state();
        let state = &mut *guard;
        state.refusals += 1;
        let ours = !matches!(self.settings.sign_in, SignIn::Password);
        if ours && state.refusals >= MOST_REFUSALS {
            let error = MailboxError {
                scope: ErrorScope::Endpoint,
                retry: Retry::After(AFTER_REFUSAL.as_secs() as u32),
                cause: format!(
                    "{} sign-ins in a row were refused: {}",
                    state.refusals, failure.error.cause
                ),
                ..failure.error.clone()
            };
            state.rest = Some((until, error));
        }
        if state.accounts.len() >= MAX_REMEMBERED {
            state
                .accounts
                .retain(|_, entry| entry.open > 0 || !entry.waiting.is_empty());
        }
        let entry = state.accounts.entry(Arc::clone(account)).or_default();
        entry.refused = Some((until, failure.error.clone()));
    }

    /// Starts to look after connections that nobody uses.
    fn keep(self: &Arc<Self>) {
        if !self.kept.swap(true, Ordering::SeqCst) {
            let tick = (self.settings.keep_alive / 4).clamp(Duration::from_millis(50), Duration::from_secs(30));
            tokio::spawn(keep(Arc::downgrade(self), tick));
        }
    }

    /// Closes what nobody used for long, and lets the server hear of the others.
    async fn look_after(self: &Arc<Self>) {
        let (old, quiet) = {
            let mut state = self.state();
            let now = Instant::now();
            let old = state.take_idle(|idle| now.duration_since(idle.connection.used) >= self.settings.idle_time);
            let mut quiet = Vec::new();
            while let Some(at) = state
                .idle
                .iter()
                .position(|idle| now.duration_since(idle.connection.heard) >= self.settings.keep_alive)
            {
                quiet.push(state.idle.remove(at));
            }
            (old, quiet)
        };
        if !old.is_empty() {
            self.freed.notify_waiters();
        }
        for connection in old {
            connection.log_out().await;
        }
        for Idle { account, connection } in quiet {
            let mut lease = Lease {
                connection: Some(connection),
                account,
                pool: Arc::clone(self),
                reused: true,
            };
            let used = lease.used;
            // A connection that does not answer is not sound and goes.
            let _ = lease.ask(rehome_wire::imap::Command::noop(), |_| {}).await;
            lease.give_back_as_of(used);
        }
    }
}

impl Lease {
    /// Whether another caller waits for a connection of the account.
    pub(super) fn is_waited_for(&self) -> bool {
        self.pool.is_waited_for(&self.account)
    }

    /// Gives it back without counting this as a use.
    fn give_back_as_of(mut self, used: Instant) {
        if let Some(connection) = self.connection.take() {
            self.pool.give_back(&self.account, connection, used);
        }
    }
}

impl State {
    fn check_rest(&mut self) -> Outcome<()> {
        check_refused(&mut self.rest)
    }

    /// Takes connections out of the pool for good; their places are free.
    fn take_idle(&mut self, which: impl Fn(&Idle) -> bool) -> Vec<Connection> {
        let (taken, kept) = std::mem::take(&mut self.idle).into_iter().partition(|idle| which(idle));
        self.idle = kept;
        let taken: Vec<Idle> = taken;
        let mut connections = Vec::with_capacity(taken.len());
        for Idle { account, connection } in taken {
            self.open = self.open.saturating_sub(1);
            release_account(&mut self.accounts, &account);
            connections.push(*connection);
        }
        connections
    }
}

/// A place that was taken for a connection to be made; free again when making it fails or is given up.
struct Place<'a> {
    pool: &'a Pool,
    account: &'a Arc<str>,
    /// The connection is there.
    taken: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.taken {
            self.pool.forget(self.account);
        }
    }
}

/// A caller's place among those of one account.
struct Ticket {
    pool: Arc<Pool>,
    account: Arc<str>,
    number: u64,
}

impl Ticket {
    fn new(pool: &Arc<Pool>, account: &Arc<str>) -> Self {
        let mut state = pool.state();
        let entry = state.accounts.entry(Arc::clone(account)).or_default();
        entry.last_ticket += 1;
        let number = entry.last_ticket;
        entry.waiting.push_back(number);
        drop(state);
        Self {
            pool: Arc::clone(pool),
            account: Arc::clone(account),
            number,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        {
            let mut state = self.pool.state();
            if let Some(entry) = state.accounts.get_mut(&self.account) {
                entry.waiting.retain(|waiting| *waiting != self.number);
            }
            forget_unused(&mut state.accounts, &self.account);
        }
        self.pool.freed.notify_waiters();
    }
}

/// How long a caller goes on waiting.
struct Patience {
    host: String,
    until: Instant,
    still: Duration,
    /// Steps that were seen, and since when there were no more.
    seen: (u64, Instant),
}

impl Patience {
    fn new(pool: &Pool) -> Self {
        let now = Instant::now();
        Self {
            host: pool.settings.host.clone(),
            until: now + MOST_WAIT,
            still: pool.settings.progress_timeout * STILL,
            seen: (0, now),
        }
    }

    fn left(&self) -> Duration {
        let until = self.until.min(self.seen.1 + self.still);
        until.saturating_duration_since(Instant::now())
    }

    fn check(&mut self, moved: u64) -> Outcome<()> {
        let now = Instant::now();
        if self.seen.0 != moved {
            self.seen = (moved, now);
        }
        let cause = if now >= self.until {
            format!("all connections were in use for {} s", MOST_WAIT.as_secs())
        } else if now >= self.seen.1 + self.still {
            format!(
                "all connections that it may have are held, and nothing moved on them for {} s",
                self.still.as_secs()
            )
        } else {
            return Ok(());
        };
        let what = format!("connecting to {}", self.host);
        Err(Failure::ours(what, cause, ErrorScope::Mailbox, Retry::After(30)))
    }
}

/// One connection fewer for the account; what is empty is not kept.
fn release_account(accounts: &mut HashMap<Arc<str>, Account>, account: &Arc<str>) {
    if let Some(entry) = accounts.get_mut(account) {
        entry.open = entry.open.saturating_sub(1);
        forget_unused(accounts, account);
    }
}

fn forget_unused(accounts: &mut HashMap<Arc<str>, Account>, account: &Arc<str>) {
    let unused = |entry: &Account| entry.open == 0 && entry.refused.is_none() && entry.waiting.is_empty();
    if accounts.get(account).is_some_and(unused) {
        accounts.remove(account);
    }
}

/// The account's idle connection: the one with the folder open, else the one used last.
fn choose(idle: &[Idle], account: &Arc<str>, folder: Option<&MailboxName>) -> Option<usize> {
    let mine = || (0..idle.len()).rev().filter(|at| idle[*at].account == *account);
    let open = mine().find(|at| {
        folder.is_some_and(|folder| {
            let selected = idle[*at].connection.selected.as_ref();
            selected.is_some_and(|selected| selected.name == *folder)
        })
    });
    open.or_else(|| mine().next())
}

/// How many connections may be there: what is set, or fewer where the server wants fewer just now.
fn limit(set: usize, crowded: Option<(Instant, usize)>) -> usize {
    let most = crowded
        .filter(|(until, _)| *until > Instant::now())
        .map_or(set, |(_, most)| most.min(set));
    most.max(1)
}

/// While a refusal is fresh, it is the answer, with the time that is left.
fn check_refused(refused: &mut Option<(Instant, MailboxError)>) -> Outcome<()> {
    let Some((until, error)) = refused else { return Ok(()) };
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        *refused = None;
        return Ok(());
    }
    let seconds = u32::try_from(left.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
    let error = MailboxError {
        retry: match error.retry {
            Retry::Never => Retry::Never,
            Retry::Now | Retry::After(_) => Retry::After(seconds),
        },
        cause: format!("{} (not tried again for {seconds} s)", error.cause),
        ..error.clone()
    };
    let kind = Kind::Ours;
    Err(Failure { error, kind })
}

async fn keep(pool: Weak<Pool>, tick: Duration) {
    loop {
        tokio::time::sleep(tick).await;
        match pool.upgrade() {
            Some(pool) => pool.look_after().await,
            None => return,
        }
    }
}

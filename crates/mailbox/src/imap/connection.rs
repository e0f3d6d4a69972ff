//! One connection: octets to events and commands to octets, with bounded waits.

use super::error::{Failure, Outcome, ends_session, refused, shown};
use super::quirks::Quirks;
use super::selected::Selected;
use super::transport::Transport;
use crate::{Body, ErrorScope};
use bytes::{Buf, Bytes, BytesMut};
use rehome_wire::imap::{
    Answer, Capabilities, Client, Code, Command, Condition, Event, NameEncoding, Namespaces, Output, Tag,
};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

/// Octets taken out of bodies and commands ahead of being written.
const MOST_WAITING: usize = 1024 * 1024;
/// How much of a spool file is read at once.
const SPOOL_STEP: usize = 256 * 1024;
/// Most slices of one write.
const MAX_SLICES: usize = 64;
/// How long a server may take to say good-bye.
const GOOD_BYE: Duration = Duration::from_secs(2);

/// A signed-in connection, or one on the way to it.
pub(super) struct Connection {
    pub(super) transport: Transport,
    pub(super) client: Client,
    /// What the server can do, without what is pretended absent.
    pub(super) capabilities: Capabilities,
    pub(super) without: BTreeSet<String>,
    pub(super) greeting: String,
    pub(super) id: Vec<(String, String)>,
    pub(super) namespaces: Option<Namespaces>,
    /// The hierarchy separator of the first name that was listed.
    pub(super) separator: Option<char>,
    pub(super) quirks: Quirks,
    /// QRESYNC or CONDSTORE is enabled.
    pub(super) enabled: BTreeSet<String>,
    /// It has UIDPLUS, and was seen not to name what was appended.
    pub(super) names_no_uids: bool,
    /// The folder that is open.
    pub(super) selected: Option<Selected>,
    /// The account's generation when it was opened: see `renew`.
    pub(super) generation: u64,
    /// How often folders of the account had got other names when its open folder was opened.
    pub(super) moves: u64,
    /// When it was used last.
    pub(super) used: Instant,
    /// When the server heard of it last.
    pub(super) heard: Instant,
    /// Counts steps of all connections of its account, so that whoever waits for one sees that it is at work.
    pub(super) moved: Arc<AtomicU64>,
    read: BytesMut,
    writing: VecDeque<Bytes>,
    unflushed: bool,
    bodies: HashMap<u64, Body>,
    spool: Option<Spool>,
    patience: Duration,
    bye: Option<Answer>,
    write_error: Option<String>,
    dead: bool,
    /// The server told its capabilities since this was cleared.
    told: bool,
}

struct Spool {
    file: tokio::fs::File,
    left: u64,
}

impl Connection {
    pub(super) fn new(transport: Transport, patience: Duration, without: BTreeSet<String>) -> Self {
        let now = Instant::now();
        Self {
            transport,
            client: Client::new(),
            capabilities: Capabilities::default(),
            without,
            greeting: String::new(),
            id: Vec::new(),
            namespaces: None,
            separator: None,
            quirks: Quirks::default(),
            enabled: BTreeSet::new(),
            names_no_uids: false,
            selected: None,
            generation: 0,
            moves: 0,
            used: now,
            heard: now,
            moved: Arc::default(),
            read: BytesMut::new(),
            writing: VecDeque::new(),
            unflushed: false,
            bodies: HashMap::new(),
            spool: None,
            patience,
            bye: None,
            write_error: None,
            dead: false,
            told: false,
        }
    }

    /// Whether another command can be asked of it.
    pub(super) fn is_sound(&self) -> bool {
        !self.dead
            && self.bye.is_none()
            && self.write_error.is_none()
            && self.client.outstanding() == 0
            && self.writing.is_empty()
            && self.spool.is_none()
    }

    /// From here on the capabilities may be others.
    pub(super) fn doubt_capabilities(&mut self) {
        self.told = false;
    }

    /// Whether the server has not told its capabilities since they came into doubt.
    pub(super) fn capabilities_are_old(&self) -> bool {
        !self.told
    }

    /// Sends a command; its octets go out while events are taken.
    pub(super) fn send(&mut self, command: Command) -> Tag {
        self.client.send(command)
    }

    /// Octets for APPEND by the names that the command gave them.
    pub(super) fn supply(&mut self, id: u64, body: Body) {
        self.bodies.insert(id, body);
    }

    /// Sends the octets that are owed though their command is answered already: a server that refuses early still
    /// reads what was announced to it without waiting (RFC 7888 §4).
    pub(super) async fn pay(&mut self) -> Outcome<()> {
        loop {
            self.fill().await?;
            if self.writing.is_empty() && self.spool.is_none() {
                return Ok(());
            }
            self.step().await?;
        }
    }

    /// What was learnt before TLS counts for nothing (RFC 9051 §6.2.1): anybody may have said it.
    pub(super) fn forget_plain_text(&mut self) {
        self.capabilities = Capabilities::default();
        self.told = false;
        self.id.clear();
        self.namespaces = None;
        self.separator = None;
        self.enabled.clear();
        self.client.set_names(NameEncoding::ModifiedUtf7);
    }

    /// Forgets octets that were not asked for.
    pub(super) fn take_back_bodies(&mut self) {
        self.bodies.clear();
    }

    /// The next event. Waits as long as octets move.
    pub(super) async fn event(&mut self) -> Outcome<Event> {
        loop {
            match self.client.event() {
                Ok(Some(event)) => {
                    self.follow(&event);
                    return Ok(event);
                }
                Ok(None) => {}
                Err(error) => return Err(self.give_up(error.to_string())),
            }
            self.fill().await?;
            self.step().await?;
        }
    }

    /// Takes events until all of `tags` are answered; gives the answers in the order of `tags`.
    pub(super) async fn finish(&mut self, tags: &[Tag], mut each: impl FnMut(Event)) -> Outcome<Vec<Answer>> {
        let mut answers: Vec<Option<Answer>> = vec![None; tags.len()];
        let mut open = tags.len();
        while open > 0 {
            match self.event().await? {
                Event::Tagged(tag, answer) => {
                    if let Some(at) = tags.iter().position(|asked| *asked == tag)
                        && answers[at].is_none()
                    {
                        answers[at] = Some(answer);
                        open -= 1;
                    }
                }
                event => each(event),
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// One command and its answer, whatever it is.
    pub(super) async fn ask(&mut self, command: Command, each: impl FnMut(Event)) -> Outcome<Answer> {
        let tag = self.send(command);
        let mut answers = self.finish(&[tag], each).await?;
        answers.pop().ok_or_else(|| self.give_up("an answer got lost"))
    }

    /// One command that must be answered by OK.
    pub(super) async fn demand(
        &mut self,
        what: &str,
        scope: ErrorScope,
        command: Command,
        each: impl FnMut(Event),
    ) -> Outcome<Answer> {
        let answer = self.ask(command, each).await?;
        if answer.is_ok() {
            Ok(answer)
        } else {
            Err(refused(what, &answer, scope))
        }
    }

    /// Says good-bye, without waiting long.
    pub(super) async fn log_out(mut self) {
        if !self.is_sound() {
            return;
        }
        let tag = self.send(Command::logout());
        // Whether the server answers or not, the connection is closed now.
        let _ = tokio::time::timeout(GOOD_BYE, self.finish(&[tag], |_| {})).await;
    }

    /// Takes what came unasked for while nobody looked; false where the connection has ended.
    pub(super) async fn is_alive(&mut self) -> bool {
        if !self.is_sound() {
            return false;
        }
        loop {
            match self.client.event() {
                Ok(Some(event)) => self.follow(&event),
                Err(_) => break,
                Ok(None) => match self.poll_once().await {
                    Some(true) => {}
                    Some(false) => break,
                    None => return self.is_sound(),
                },
            }
        }
        self.dead = true;
        false
    }

    /// Reads without waiting: none where there is nothing, false at the end.
    async fn poll_once(&mut self) -> Option<bool> {
        let count = poll_fn(|cx| match self.transport.poll_read(cx, &mut self.read) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending => Poll::Ready(None),
        })
        .await?;
        match count {
            Ok(1..) => {
                let octets = self.read.split().freeze();
                self.client.feed(octets);
                Some(true)
            }
            Ok(0) | Err(_) => Some(false),
        }
    }

    /// The connection is of no use any more.
    pub(super) fn give_up(&mut self, cause: impl AsRef<str>) -> Failure {
        self.dead = true;
        let mut cause = shown(cause.as_ref());
        if let Some(bye) = &self.bye {
            let failure = refused("talking to the server", bye, ErrorScope::Mailbox);
            if failure.error.scope == ErrorScope::Endpoint {
                return failure;
            }
            cause = format!("{cause} ({})", failure.error.cause);
        }
        Failure::lost("talking to the server", cause)
    }

    /// Moves octets of commands and bodies into the queue, as many as are worth having ready.
    async fn fill(&mut self) -> Outcome<()> {
        let mut waiting: usize = self.writing.iter().map(Bytes::len).sum();
        while waiting < MOST_WAITING && self.write_error.is_none() {
            if self.spool.is_some() {
                waiting += self.fill_from_spool().await?;
                continue;
            }
            match self.client.output() {
                None => return Ok(()),
                Some(Output::Octets(octets)) => {
                    waiting += octets.len();
                    self.writing.push_back(octets);
                }
                Some(Output::Body { id, length }) => match self.bodies.remove(&id) {
                    Some(Body::Memory(octets)) if octets.len() as u64 == length => {
                        waiting += octets.len();
                        self.writing.push_back(octets);
                    }
                    Some(Body::Spooled(path)) => match tokio::fs::File::open(&path).await {
                        Ok(file) => self.spool = Some(Spool { file, left: length }),
                        Err(error) => return Err(self.give_up(format!("a spooled item cannot be read: {error}"))),
                    },
                    Some(Body::Memory(_)) | None => return Err(self.give_up("an item is not as long as announced")),
                },
            }
        }
        Ok(())
    }

    async fn fill_from_spool(&mut self) -> Outcome<usize> {
        let Some(spool) = &mut self.spool else { return Ok(0) };
        let step = usize::try_from(spool.left).unwrap_or(usize::MAX).min(SPOOL_STEP);
        let mut octets = vec![0; step];
        if let Err(error) = spool.file.read_exact(&mut octets).await {
            return Err(self.give_up(format!("a spooled item cannot be read: {error}")));
        }
        spool.left -= step as u64;
        if spool.left == 0 {
            self.spool = None;
        }
        self.writing.push_back(Bytes::from(octets));
        Ok(step)
    }

    /// Waits until some octets went out or came in.
    async fn step(&mut self) -> Outcome<()> {
        let patience = self.patience;
        let moved = tokio::time::timeout(patience, poll_fn(|cx| self.poll_step(cx))).await;
        self.moved.fetch_add(1, Ordering::Relaxed);
        match moved {
            Ok(Ok(Moved::Out)) => Ok(()),
            Ok(Ok(Moved::In(0))) => {
                let cause = match self.write_error.take() {
                    Some(error) => format!("the connection broke: {error}"),
                    None => "the server closed the connection".to_owned(),
                };
                // What it said before it closed is more telling.
                while let Ok(Some(event)) = self.client.event() {
                    self.follow(&event);
                }
                Err(self.give_up(cause))
            }
            Ok(Ok(Moved::In(_))) => {
                self.heard = Instant::now();
                let octets = self.read.split().freeze();
                self.client.feed(octets);
                Ok(())
            }
            Ok(Err(error)) => Err(self.give_up(format!("the connection broke: {error}"))),
            Err(_) => Err(self.give_up(format!("nothing moved for {} s", patience.as_secs()))),
        }
    }

    fn poll_step(&mut self, cx: &mut std::task::Context<'_>) -> Poll<io::Result<Moved>> {
        let mut wrote = false;
        while self.write_error.is_none() && !self.writing.is_empty() {
            let slices: Vec<IoSlice<'_>> = self
                .writing
                .iter()
                .take(MAX_SLICES)
                .map(|octets| IoSlice::new(octets))
                .collect();
            match self.transport.poll_write(cx, &slices) {
                Poll::Ready(Ok(count @ 1..)) => {
                    advance(&mut self.writing, count);
                    (wrote, self.unflushed) = (true, true);
                }
                Poll::Ready(Ok(0)) => self.write_error = Some("it takes no octets".to_owned()),
                Poll::Ready(Err(error)) => self.write_error = Some(error.to_string()),
                Poll::Pending => break,
            }
        }
        if wrote && self.writing.is_empty() {
            // There may be more of the same; flushing waits until there is not.
            return Poll::Ready(Ok(Moved::Out));
        }
        if self.unflushed && self.write_error.is_none() {
            match self.transport.poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => self.write_error = Some(error.to_string()),
                Poll::Pending => {}
            }
        }
        match self.transport.poll_read(cx, &mut self.read) {
            Poll::Ready(Ok(count)) => Poll::Ready(Ok(Moved::In(count))),
            // A write that failed is told by what the server said before, or by the end.
            Poll::Ready(Err(_)) if self.write_error.is_some() => Poll::Ready(Ok(Moved::In(0))),
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                // TLS that ends without saying so: never the end of anything that was not counted out.
                self.write_error.get_or_insert_with(|| error.to_string());
                Poll::Ready(Ok(Moved::In(0)))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending if wrote => Poll::Ready(Ok(Moved::Out)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// What every event means for the connection, whoever asked.
    fn follow(&mut self, event: &Event) {
        match event {
            Event::Untagged(answer) | Event::Greeting(answer) => self.follow_answer(answer),
            Event::Tagged(_, answer) => self.follow_answer(answer),
            Event::Capability(capabilities) => self.take_capabilities(capabilities),
            Event::Enabled(names) => self.enabled.extend(names.iter().cloned()),
            Event::Namespace(namespaces) => self.namespaces = Some(namespaces.clone()),
            Event::Id(fields) => self.id.clone_from(fields),
            Event::List(listed) => self.separator = self.separator.or(listed.delimiter),
            Event::Challenge { .. }
            | Event::Lsub(_)
            | Event::Status(_)
            | Event::Recent(_)
            | Event::BodyStart(_)
            | Event::BodyOctets(_)
            | Event::BodyEnd
            | Event::Fetch(_)
            | Event::Search { .. }
            | Event::ESearch(_)
            | Event::Quota(_)
            | Event::QuotaRoot { .. }
            | Event::Acl(_)
            | Event::MyRights { .. }
            | Event::Metadata(_)
            | Event::Malformed { .. }
            | Event::Unknown { .. } => {}
            Event::Flags(_) | Event::Exists(_) | Event::Expunge(_) | Event::Vanished { .. } => {}
        }
        if let Some(selected) = &mut self.selected {
            selected.follow(event);
        }
    }

    fn follow_answer(&mut self, answer: &Answer) {
        if answer.condition == Condition::Bye {
            self.bye = Some(answer.clone());
        }
        self.dead |= ends_session(answer);
        if matches!(answer.code, Some(Code::Alert)) {
            tracing::warn!(
                text = shown(&answer.text),
                "an IMAP server says that this must be shown"
            );
        }
        if let Some(Code::Capability(capabilities)) = &answer.code {
            self.take_capabilities(capabilities);
        }
    }

    fn take_capabilities(&mut self, capabilities: &Capabilities) {
        self.capabilities = pretend_absent(capabilities, &self.without);
        self.told = true;
    }
}

enum Moved {
    Out,
    /// So many octets were read; 0 is the end.
    In(usize),
}

fn advance(writing: &mut VecDeque<Bytes>, mut count: usize) {
    while let Some(first) = writing.front_mut() {
        if count < first.len() {
            first.advance(count);
            return;
        }
        count -= first.len();
        writing.pop_front();
    }
}

/// The capabilities without some of them, and without those that contain one of them.
fn pretend_absent(capabilities: &Capabilities, without: &BTreeSet<String>) -> Capabilities {
    if without.is_empty() {
        return capabilities.clone();
    }
    const IN_REV2: [&str; 12] = [
        "SASL-IR",
        "NAMESPACE",
        "LIST-EXTENDED",
        "LIST-STATUS",
        "UIDPLUS",
        "LITERAL-",
        "ESEARCH",
        "MOVE",
        "ENABLE",
        "UNSELECT",
        "STATUS=SIZE",
        "CHILDREN",
    ];
    let is_without = |name: &str| {
        let name = name.to_ascii_uppercase();
        without.contains(&name)
            || match name.as_str() {
                "QRESYNC" => without.contains("CONDSTORE"),
                "LITERAL+" => without.contains("LITERAL-"),
                "IMAP4REV2" => IN_REV2.iter().any(|part| without.contains(*part)),
                _ => false,
            }
    };
    Capabilities::from_names(
        capabilities
            .names
            .iter()
            .map(String::as_str)
            .filter(|name| !is_without(name)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_contains_an_absent_capability_is_absent_too() {
        let offered =
            Capabilities::from_names("IMAP4rev1 IMAP4rev2 QRESYNC CONDSTORE LITERAL+ UIDPLUS BINARY".split(' '));
        let rows = [
            ("CONDSTORE", "IMAP4rev1 IMAP4rev2 LITERAL+ UIDPLUS BINARY"),
            ("QRESYNC", "IMAP4rev1 IMAP4rev2 CONDSTORE LITERAL+ UIDPLUS BINARY"),
            ("LITERAL-", "IMAP4rev1 QRESYNC CONDSTORE UIDPLUS BINARY"),
            ("UIDPLUS", "IMAP4rev1 QRESYNC CONDSTORE LITERAL+ BINARY"),
        ];
        for (absent, left) in rows {
            let without = BTreeSet::from([absent.to_owned()]);
            assert_eq!(pretend_absent(&offered, &without).names.join(" "), left, "{absent}");
        }
        assert_eq!(pretend_absent(&offered, &BTreeSet::new()), offered);
    }

    #[test]
    fn written_octets_leave_the_queue() {
        let mut queue: VecDeque<Bytes> = [&b"abc"[..], b"", b"de", b"f"].map(Bytes::from_static).into();
        advance(&mut queue, 4);
        assert_eq!(queue, [Bytes::from_static(b"e"), Bytes::from_static(b"f")]);
        advance(&mut queue, 2);
        assert!(queue.is_empty());
    }
}

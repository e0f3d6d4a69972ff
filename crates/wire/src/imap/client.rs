//! The client's side of a connection.

use std::collections::VecDeque;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use secrecy::ExposeSecret;

use super::command::{Command, Kind};
use super::name::NameEncoding;
use super::output::{Literals, Output, OutputQueue};
use super::parse::{Parsed, parse_line};
use super::response::{Condition, Event};
use super::sasl::Response;
use super::splitter::{Frame, Line, Splitter};

/// Names a command of one connection, and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(pub(super) u32);

impl std::fmt::Display for Tag {
    /// As it is sent: `A17`.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "A{}", self.0)
    }
}

/// Why a connection cannot go on: what the server means can no longer be known. Every later call of
/// [`Client::event`] gives the same error.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProtocolError {
    /// A response is longer than allowed.
    #[error("the server sent a response of more than {limit} octets")]
    ResponseTooLong {
        /// The limit, in octets, that applied.
        limit: usize,
    },
    /// A literal's length is no number, or one that cannot be.
    #[error("the server announced a literal of {0:?} octets")]
    LiteralLength(String),
    /// A response has more literals than allowed.
    #[error("the server sent a response with more than {limit} literals")]
    TooManyLiterals {
        /// The limit.
        limit: usize,
    },
    /// The first line is no greeting: this is no IMAP server, or TLS is spoken on one side only.
    #[error("the server did not greet in IMAP: {0:?}")]
    NoGreeting(String),
    /// An answer to a command that was not sent or was answered before.
    #[error("the server answered a command that was not sent: {0:?}")]
    UnknownTag(String),
    /// Octets came in the clear behind the agreement to TLS; they may be anyone's.
    #[error("the server sent octets in the clear after agreeing to TLS")]
    PlaintextBehindStartTls,
}

/// A command that was sent and not answered.
#[derive(Debug)]
struct Outstanding {
    tag: Tag,
    kind: Kind,
}

/// Why nothing is read for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Paused {
    /// The TLS handshake.
    Tls(Tag),
    /// The decompressor is being put in.
    Compression(Tag),
}

/// The client's side of one IMAP connection.
///
/// The driver feeds what it reads, takes all events, sends what [`output`](Self::output) gives, and closes after an
/// error. Any number of commands may be sent without waiting; they go out as far as literals and commands that must
/// stand alone (STARTTLS, COMPRESS, AUTHENTICATE, LOGIN, LOGOUT) allow, and every one is answered by one
/// [`Event::Tagged`], not necessarily in order. Memory is bounded if what was fed is turned into events before more is
/// fed. Wait for [`Event::Greeting`] before sending: what is sent earlier goes out too.
pub struct Client {
    splitter: Splitter,
    queue: OutputQueue,
    outstanding: VecDeque<Outstanding>,
    next_tag: u32,
    literals: Literals,
    names: NameEncoding,
    greeted: bool,
    paused: Option<Paused>,
    /// Events of the response read last that were not taken yet.
    pending: VecDeque<Event>,
    failed: Option<ProtocolError>,
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Client {
    /// Without what is to be sent: it may hold secrets.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Client")
            .field("outstanding", &self.outstanding.len())
            .field("buffered", &self.splitter.buffered())
            .field("literals", &self.literals)
            .field("names", &self.names)
            .field("paused", &self.paused)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client on a fresh connection that waits for the greeting.
    pub fn new() -> Self {
        Self {
            splitter: Splitter::default(),
            queue: OutputQueue::default(),
            outstanding: VecDeque::new(),
            next_tag: 1,
            literals: Literals::Synchronizing,
            names: NameEncoding::ModifiedUtf7,
            greeted: false,
            paused: None,
            pending: VecDeque::new(),
            failed: None,
        }
    }

    /// Takes what the server sent. Bodies are handed on as slices of it, so it lives until they are dropped.
    pub fn feed(&mut self, octets: Bytes) {
        self.splitter.feed(octets);
    }

    /// The next event; none when more octets are needed, or [`tls_started`](Self::tls_started) or
    /// [`compression_started`](Self::compression_started).
    pub fn event(&mut self) -> Result<Option<Event>, ProtocolError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let event = self.next_event();
        if let Err(error) = &event {
            self.failed = Some(error.clone());
        }
        event
    }

    /// Sends a command as soon as it may go.
    pub fn send(&mut self, command: Command) -> Tag {
        let tag = Tag(self.next_tag);
        self.next_tag = self.next_tag.wrapping_add(1);
        let kind = command.kind();
        self.outstanding.push_back(Outstanding { tag, kind });
        command.encode(tag, self.literals, self.names, &mut self.queue);
        tag
    }

    /// Answers an [`Event::Challenge`].
    pub fn respond(&mut self, tag: Tag, response: &Response) {
        let mut line = BytesMut::from(response.to_base64().expose_secret().as_bytes());
        line.extend_from_slice(b"\r\n");
        self.queue.insert_before_hold(tag, &line);
    }

    /// Gives up an AUTHENTICATE at an [`Event::Challenge`]; the server answers BAD.
    pub fn cancel(&mut self, tag: Tag) {
        self.queue.insert_before_hold(tag, b"*\r\n");
    }

    /// The next thing to be sent; none when nothing may go now. Ask again after a body was sent and after each event.
    pub fn output(&mut self) -> Option<Output> {
        self.queue.next()
    }

    /// How many commands are sent or waiting to be sent, and not answered.
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// Whether this command is not answered yet.
    pub fn is_outstanding(&self, tag: Tag) -> bool {
        self.outstanding.iter().any(|sent| sent.tag == tag)
    }

    /// How many octets were fed and not yet handed on.
    pub fn buffered(&self) -> usize {
        self.splitter.buffered()
    }

    /// Which literals need not wait, for commands sent from now on; the capabilities say it.
    pub fn set_literals(&mut self, literals: Literals) {
        self.literals = literals;
    }

    /// How names travel. It follows ENABLED by itself and needs a call only where a server keeps it otherwise.
    pub fn set_names(&mut self, names: NameEncoding) {
        self.names = names;
    }

    /// How names travel now.
    pub fn names(&self) -> NameEncoding {
        self.names
    }

    /// The TLS handshake after STARTTLS is done. What was learnt before it counts for nothing (RFC 9051 §6.2.1): ask
    /// for the capabilities again.
    pub fn tls_started(&mut self) {
        if let Some(Paused::Tls(tag)) = self.paused {
            self.paused = None;
            self.queue.release(tag);
        }
    }

    /// Compression is on in both directions after the OK to COMPRESS. What is given back was fed already and belongs
    /// to the compressed stream: decompress it first, then feed only decompressed octets.
    pub fn compression_started(&mut self) -> Bytes {
        let Some(Paused::Compression(tag)) = self.paused else {
            return Bytes::new();
        };
        self.paused = None;
        self.queue.release(tag);
        self.splitter.take_rest()
    }

    fn next_event(&mut self) -> Result<Option<Event>, ProtocolError> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(Some(event));
            }
            match self.paused {
                Some(Paused::Tls(_)) if self.splitter.buffered() > 0 => {
                    return Err(ProtocolError::PlaintextBehindStartTls);
                }
                Some(Paused::Tls(_) | Paused::Compression(_)) => return Ok(None),
                None => {}
            }
            let event = match self.splitter.next()? {
                None => return Ok(None),
                Some(Frame::BodyStart(start)) => Some(Event::BodyStart(start)),
                Some(Frame::BodyOctets(octets)) => Some(Event::BodyOctets(octets)),
                Some(Frame::BodyEnd) => Some(Event::BodyEnd),
                Some(Frame::Line(line)) => self.take_line(&line)?,
            };
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    fn take_line(&mut self, line: &Line) -> Result<Option<Event>, ProtocolError> {
        let parsed = parse_line(line, self.names, &mut self.pending);
        if !self.greeted {
            return match parsed {
                Parsed::Empty => Ok(None),
                Parsed::Event(Event::Untagged(answer))
                    if matches!(answer.condition, Condition::Ok | Condition::PreAuth | Condition::Bye) =>
                {
                    self.greeted = true;
                    Ok(Some(Event::Greeting(answer)))
                }
                _ => Err(ProtocolError::NoGreeting(line.beginning())),
            };
        }
        match parsed {
            Parsed::Empty => Ok(None),
            Parsed::Event(event) => {
                if let Event::Enabled(names) = &event
                    && names.iter().any(|name| name == "IMAP4REV2" || name == "UTF8=ACCEPT")
                {
                    self.names = NameEncoding::Utf8;
                }
                // What was taken apart before the response itself comes first.
                match self.pending.is_empty() {
                    true => Ok(Some(event)),
                    false => {
                        self.pending.push_back(event);
                        Ok(None)
                    }
                }
            }
            Parsed::Continue(text) => Ok(self.take_continue(text)),
            Parsed::Tagged(tag, answer) => {
                let Some(at) = self.outstanding.iter().position(|sent| sent.tag == tag) else {
                    return Err(ProtocolError::UnknownTag(line.beginning()));
                };
                let kind = self.outstanding.remove(at).map_or(Kind::Plain, |sent| sent.kind);
                self.queue.answered(tag);
                match (kind, answer.condition == Condition::Ok) {
                    (Kind::StartTls, true) => self.paused = Some(Paused::Tls(tag)),
                    (Kind::Compress, true) => self.paused = Some(Paused::Compression(tag)),
                    (Kind::Plain | Kind::Alone | Kind::Authenticate, _) | (Kind::StartTls | Kind::Compress, false) => {
                        self.queue.release(tag)
                    }
                }
                Ok(Some(Event::Tagged(tag, answer)))
            }
            Parsed::UnknownTag => Err(ProtocolError::UnknownTag(line.beginning())),
        }
    }

    /// A `+` lets a literal go or carries a challenge; one that nothing waits for means nothing.
    fn take_continue(&mut self, text: &[u8]) -> Option<Event> {
        if self.queue.continues() {
            return None;
        }
        let sent = self.outstanding.iter().find(|sent| sent.kind == Kind::Authenticate)?;
        let octets = STANDARD.decode(text.trim_ascii()).unwrap_or_else(|_| text.to_vec());
        Some(Event::Challenge { tag: sent.tag, octets })
    }
}

//! The server's side of a connection.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::address::{parse_recipient, parse_sender};
use super::data::DataReader;
use super::{DATA_STEP, MAX_COMMAND_LINE, MAX_RECIPIENTS, Mode, Reply};

/// Commands that may fail before the server ends the connection.
const MAX_ERRORS: u32 = 20;
/// Longest name in EHLO, HELO and LHLO, in octets.
const MAX_HELLO_NAME: usize = 255;

/// What a server offers.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// SMTP or LMTP.
    pub mode: Mode,
    /// The name in the greeting and in the answer to EHLO or LHLO.
    pub host_name: String,
    /// Largest message, in octets as transferred without dot-stuffing; announced by SIZE.
    pub max_message: u64,
    /// Whether STARTTLS is offered (RFC 3207).
    pub starttls: bool,
}

/// What kind of content MAIL announced (RFC 6152).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BodyKind {
    /// Nothing was said, or `BODY=7BIT`.
    SevenBit,
    /// `BODY=8BITMIME`.
    EightBitMime,
}

/// What the client did. Those that say "awaits an answer" stop the server until [`Server::accept`],
/// [`Server::reject`] or [`Server::answer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerEvent {
    /// The client named itself; answered already. An open transaction is over.
    EhloOrHelo {
        /// The name the client gave.
        name: String,
        /// False for HELO.
        extended: bool,
    },
    /// The client wants TLS; answered already. The driver sends the output, does the handshake and calls
    /// [`Server::tls_started`], or ends the connection. Nothing is read until then.
    StartTls,
    /// A transaction begins; awaits an answer.
    Mail {
        /// The sender's address; none for the null sender.
        from: Option<String>,
        /// The size that the client announced, in octets.
        size: Option<u64>,
        /// The content that the client announced.
        body: BodyKind,
    },
    /// A recipient is named; awaits an answer.
    Rcpt {
        /// The recipient's address, or `Postmaster` without a domain.
        to: String,
    },
    /// The client wants to send the message; awaits an answer.
    DataStart,
    /// The next octets of the message, dots taken off, line ends as sent.
    DataOctets(Bytes),
    /// The message is complete; awaits one answer in SMTP, and in LMTP one for each accepted recipient in the order of
    /// acceptance.
    DataEnd,
    /// The message broke a rule or a limit and was refused already; what was read of it is to be dropped.
    DataRefused(Reply),
    /// The transaction is over without a message.
    Reset,
    /// The connection ends: the driver sends the output and closes. After QUIT, a reply of 421, or too many errors.
    Quit,
}

#[derive(Debug)]
enum Phase {
    Command,
    Data { reader: DataReader, received: u64 },
    Handshake,
    Closed,
}

#[derive(Debug, PartialEq, Eq)]
enum Awaiting {
    Mail,
    Recipient,
    DataStart,
    DataEnd { answers: usize },
}

/// The server's side of one SMTP or LMTP connection.
///
/// The driver gives what it reads to [`push`](Self::push), calls [`next`](Self::next) until it gives none, and sends
/// [`take_output`](Self::take_output). While an event awaits its answer it reads no more, so that what is held stays as
/// small as what it reads at once.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    input: BytesMut,
    output: BytesMut,
    phase: Phase,
    awaiting: Option<Awaiting>,
    events: VecDeque<ServerEvent>,
    said_hello: bool,
    in_transaction: bool,
    recipients: usize,
    tls: bool,
    errors: u32,
    skipping_line: bool,
}

impl Server {
    /// A server on a fresh connection; its greeting is in the output.
    pub fn new(config: ServerConfig) -> Self {
        let mut server = Self {
            config,
            input: BytesMut::new(),
            output: BytesMut::new(),
            phase: Phase::Command,
            awaiting: None,
            events: VecDeque::new(),
            said_hello: false,
            in_transaction: false,
            recipients: 0,
            tls: false,
            errors: 0,
            skipping_line: false,
        };
        let protocol = match server.config.mode {
            Mode::Smtp => "ESMTP",
            Mode::Lmtp => "LMTP",
        };
        let greeting = format!("{} {protocol} ready", server.config.host_name);
        server.reply(220, "", greeting);
        server
    }

    /// Takes what the client sent.
    pub fn push(&mut self, octets: &[u8]) {
        if !matches!(self.phase, Phase::Handshake | Phase::Closed) {
            self.input.extend_from_slice(octets);
        }
    }

    /// The next event; none when more octets, an answer or the TLS handshake is needed.
    #[allow(clippy::should_implement_trait)] // None does not mean the end.
    pub fn next(&mut self) -> Option<ServerEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if self.awaiting.is_some() {
                return None;
            }
            match self.phase {
                Phase::Command => match self.take_line() {
                    Some(line) => self.command(&line),
                    // One fault too many in what was read ends the connection.
                    None => return self.events.pop_front(),
                },
                Phase::Data { .. } if self.input.is_empty() => return None,
                Phase::Data { .. } => self.data_step(),
                Phase::Handshake | Phase::Closed => return None,
            }
        }
    }

    /// What is to be sent to the client.
    pub fn take_output(&mut self) -> Bytes {
        self.output.split().freeze()
    }

    /// Agrees to the event that awaits an answer; in LMTP after [`ServerEvent::DataEnd`], for the next recipient.
    pub fn accept(&mut self) {
        let reply = match &self.awaiting {
            Some(Awaiting::Mail) => Reply::new(250, "2.1.0", "Sender accepted"),
            Some(Awaiting::Recipient) => Reply::new(250, "2.1.5", "Recipient accepted"),
            Some(Awaiting::DataEnd { .. }) => Reply::new(250, "2.0.0", "Message accepted"),
            Some(Awaiting::DataStart) | None => Reply::new(354, "", "End the message with a dot"),
        };
        self.answer(reply);
    }

    /// Refuses the event that awaits an answer; in LMTP after [`ServerEvent::DataEnd`], for the next recipient. After
    /// 421 the connection ends.
    pub fn reject(&mut self, code: u16, enhanced: &str, text: &str) {
        self.answer(Reply::new(code, enhanced, text));
    }

    /// Answers the event that awaits it with any reply: a positive one agrees. Without such an event nothing happens.
    pub fn answer(&mut self, reply: Reply) {
        let Some(awaiting) = self.awaiting.take() else {
            return;
        };
        let agreed = reply.is_positive();
        let closes = reply.code == 421;
        match awaiting {
            Awaiting::Mail => {
                self.in_transaction = agreed;
                self.recipients = 0;
                reply.write(&mut self.output);
            }
            Awaiting::Recipient => {
                self.recipients += usize::from(agreed);
                reply.write(&mut self.output);
            }
            Awaiting::DataStart if agreed => {
                self.reply(354, "", "End the message with a dot");
                self.phase = Phase::Data {
                    reader: DataReader::new(),
                    received: 0,
                };
            }
            Awaiting::DataStart => {
                reply.write(&mut self.output);
                self.end_transaction();
            }
            Awaiting::DataEnd { answers } => {
                reply.write(&mut self.output);
                if answers > 1 {
                    self.awaiting = Some(Awaiting::DataEnd { answers: answers - 1 });
                    return;
                }
                self.end_transaction();
            }
        }
        if closes {
            self.phase = Phase::Closed;
            self.events.push_back(ServerEvent::Quit);
        }
    }

    /// Ends the connection from this side, for example with 421 after a time without input. The driver sends the output
    /// and closes.
    pub fn close(&mut self, reply: &Reply) {
        if !matches!(self.phase, Phase::Closed) {
            reply.write(&mut self.output);
        }
        self.phase = Phase::Closed;
        self.awaiting = None;
        self.events.clear();
        self.input.clear();
    }

    /// The TLS handshake is done: the client begins anew with EHLO or LHLO (RFC 3207 §4.2).
    pub fn tls_started(&mut self) {
        self.tls = true;
        self.said_hello = false;
        self.phase = Phase::Command;
        self.end_transaction();
    }

    /// Whether the connection is protected by TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// How many recipients of the open transaction were accepted.
    pub fn accepted_recipients(&self) -> usize {
        self.recipients
    }

    fn reply(&mut self, code: u16, enhanced: &str, text: impl Into<String>) {
        Reply::new(code, enhanced, text).write(&mut self.output);
    }

    /// Answers a command that cannot be obeyed, and ends the connection when there were too many.
    fn refuse(&mut self, reply: &Reply) {
        self.errors += 1;
        if self.errors > MAX_ERRORS {
            self.hang_up(&Reply::new(421, "4.7.0", "Too many errors"));
        } else {
            reply.write(&mut self.output);
        }
    }

    fn hang_up(&mut self, reply: &Reply) {
        self.close(reply);
        self.events.push_back(ServerEvent::Quit);
    }

    fn end_transaction(&mut self) {
        self.in_transaction = false;
        self.recipients = 0;
    }

    /// The next command line, without its CR LF, if it is well formed; faults are answered here.
    fn take_line(&mut self) -> Option<String> {
        while matches!(self.phase, Phase::Command) {
            let Some(end) = self.input.iter().position(|octet| *octet == b'\n') else {
                if self.input.len() >= MAX_COMMAND_LINE {
                    self.skipping_line = true;
                    self.input.clear();
                }
                return None;
            };
            let line = self.input.split_to(end + 1);
            let too_long = std::mem::take(&mut self.skipping_line) || line.len() > MAX_COMMAND_LINE;
            let content = line.strip_suffix(b"\r\n");
            match content.map(|content| (std::str::from_utf8(content), content.is_ascii())) {
                _ if too_long => self.refuse(&Reply::new(500, "5.5.6", "Line too long")),
                Some((Ok(text), true)) if !text.contains(|c: char| c.is_control() && c != '\t') => {
                    return Some(text.to_owned());
                }
                Some((_, false)) if is_mail_or_rcpt(&line) => {
                    self.refuse(&Reply::new(553, "5.6.7", "addresses outside ASCII are not supported"));
                }
                None => self.refuse(&Reply::new(500, "5.5.2", "A command ends with CR LF")),
                Some(_) => self.refuse(&Reply::new(500, "5.5.2", "Bad octet in command")),
            }
        }
        None
    }

    fn command(&mut self, line: &str) {
        let line = line.trim_end();
        let (verb, argument) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        let argument = argument.trim_start();
        match (verb.to_ascii_uppercase().as_str(), self.config.mode, argument) {
            ("EHLO", Mode::Smtp, name) | ("LHLO", Mode::Lmtp, name) => self.hello(name, true),
            ("HELO", Mode::Smtp, name) => self.hello(name, false),
            ("EHLO" | "HELO", Mode::Lmtp, _) => {
                self.refuse(&Reply::new(500, "5.5.1", "This is LMTP, say LHLO"));
            }
            ("LHLO", Mode::Smtp, _) => {
                self.refuse(&Reply::new(500, "5.5.1", "This is SMTP, say EHLO"));
            }
            ("STARTTLS", _, "") => self.start_tls(),
            ("MAIL", _, argument) => self.mail(argument),
            ("RCPT", _, argument) => self.rcpt(argument),
            ("DATA", _, "") => self.data(),
            ("RSET", _, "") => {
                self.end_transaction();
                self.reply(250, "2.0.0", "OK");
                self.events.push_back(ServerEvent::Reset);
            }
            ("QUIT", _, "") => self.hang_up(&Reply::new(221, "2.0.0", "Bye")),
            ("STARTTLS" | "DATA" | "RSET" | "QUIT", _, _) => {
                self.refuse(&Reply::new(501, "5.5.4", "This command has no parameters"));
            }
            ("NOOP", _, _) => self.reply(250, "2.0.0", "OK"),
            ("VRFY", _, _) => self.reply(252, "2.5.0", "Send mail to find out"),
            ("HELP", _, _) => self.reply(214, "2.0.0", "See RFC 5321"),
            ("EXPN" | "AUTH" | "BDAT" | "TURN" | "ETRN", _, _) => {
                self.refuse(&Reply::new(502, "5.5.1", "Command not implemented"));
            }
            _ => self.refuse(&Reply::new(500, "5.5.2", "Unknown command")),
        }
    }

    fn hello(&mut self, name: &str, extended: bool) {
        let bad_name = name.is_empty() || name.len() > MAX_HELLO_NAME || name.contains([' ', '\t']);
        if bad_name {
            self.refuse(&Reply::new(501, "5.5.4", "Say your host name"));
            return;
        }
        self.said_hello = true;
        self.end_transaction();
        let mut text = self.config.host_name.clone();
        if extended {
            text.push_str("\nPIPELINING\n8BITMIME\nENHANCEDSTATUSCODES");
            if self.config.starttls && !self.tls {
                text.push_str("\nSTARTTLS");
            }
            text.push_str(&format!("\nSIZE {}", self.config.max_message));
        }
        self.reply(250, "", text);
        self.events.push_back(ServerEvent::EhloOrHelo {
            name: name.to_owned(),
            extended,
        });
    }

    fn start_tls(&mut self) {
        if !self.config.starttls {
            self.refuse(&Reply::new(502, "5.5.1", "Command not implemented"));
        } else if self.tls {
            self.refuse(&Reply::new(503, "5.5.1", "TLS is active already"));
        } else {
            self.reply(220, "2.0.0", "Begin TLS");
            // What came in the clear behind the command may be anyone's, so it is never obeyed (RFC 3207 §4.2).
            self.input.clear();
            self.phase = Phase::Handshake;
            self.events.push_back(ServerEvent::StartTls);
        }
    }

    fn mail(&mut self, argument: &str) {
        if !self.said_hello {
            self.refuse(&Reply::new(503, "5.5.1", "Say hello first"));
            return;
        }
        if self.in_transaction {
            self.refuse(&Reply::new(503, "5.5.1", "A transaction is open already"));
            return;
        }
        match parse_mail(argument, self.config.max_message) {
            Ok(event) => {
                self.awaiting = Some(Awaiting::Mail);
                self.events.push_back(event);
            }
            Err(reply) => self.refuse(&reply),
        }
    }

    fn rcpt(&mut self, argument: &str) {
        if !self.in_transaction {
            self.refuse(&Reply::new(503, "5.5.1", "Name the sender first"));
            return;
        }
        if self.recipients >= MAX_RECIPIENTS {
            // No error of the client: it sends the rest in the next transaction.
            self.reply(452, "4.5.3", "Too many recipients");
            return;
        }
        match parse_rcpt(argument) {
            Ok(to) => {
                self.awaiting = Some(Awaiting::Recipient);
                self.events.push_back(ServerEvent::Rcpt { to });
            }
            Err(reply) => self.refuse(&reply),
        }
    }

    fn data(&mut self) {
        if self.recipients == 0 {
            self.refuse(&Reply::new(503, "5.5.1", "No valid recipients"));
        } else if !self.input.is_empty() {
            // The client may not send before it has the answer (RFC 2920 §3.1). Were DATA refused, the octets behind
            // it would be taken for commands.
            self.hang_up(&Reply::new(421, "4.5.0", "Data before the answer to DATA"));
        } else {
            self.awaiting = Some(Awaiting::DataStart);
            self.events.push_back(ServerEvent::DataStart);
        }
    }

    fn data_step(&mut self) {
        let Phase::Data { reader, received } = &mut self.phase else {
            return;
        };
        let mut out = BytesMut::new();
        let step = self.input.len().min(DATA_STEP);
        let (taken, ended) = reader.read(&self.input[..step], &mut out);
        let _ = self.input.split_to(taken);
        *received = received.saturating_add(out.len() as u64);
        let too_large = *received > self.config.max_message;
        let bare = reader.has_bare_line_end();
        if !out.is_empty() && !too_large {
            self.events.push_back(ServerEvent::DataOctets(out.freeze()));
        }
        if !ended {
            return;
        }
        self.phase = Phase::Command;
        let answers = match self.config.mode {
            Mode::Smtp => 1,
            Mode::Lmtp => self.recipients,
        };
        if bare || too_large {
            let reply = match bare {
                true => Reply::new(554, "5.6.0", "CR and LF must stand together"),
                false => Reply::new(552, "5.3.4", "The message is too large"),
            };
            for _ in 0..answers {
                reply.write(&mut self.output);
            }
            self.end_transaction();
            self.events.push_back(ServerEvent::DataRefused(reply));
        } else {
            self.awaiting = Some(Awaiting::DataEnd { answers });
            self.events.push_back(ServerEvent::DataEnd);
        }
    }
}

fn is_mail_or_rcpt(line: &[u8]) -> bool {
    line.get(..5)
        .is_some_and(|verb| verb.eq_ignore_ascii_case(b"MAIL ") || verb.eq_ignore_ascii_case(b"RCPT "))
}

/// What follows the keyword and its colon; blanks behind the colon are an error that many senders make.
fn after_keyword<'a>(argument: &'a str, keyword: &str) -> Option<&'a str> {
    let (head, rest) = argument.split_at_checked(keyword.len())?;
    head.eq_ignore_ascii_case(keyword).then(|| rest.trim_start())
}

fn parse_mail(argument: &str, max_message: u64) -> Result<ServerEvent, Reply> {
    let path = after_keyword(argument, "FROM:").ok_or_else(|| Reply::new(501, "5.5.4", "Say MAIL FROM:<address>"))?;
    let (from, parameters) = parse_sender(path).map_err(|error| error.reply(true))?;
    let mut size = None;
    let mut body = BodyKind::SevenBit;
    for parameter in parameters.split_ascii_whitespace() {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match (name.to_ascii_uppercase().as_str(), value.to_ascii_uppercase().as_str()) {
            ("SIZE", digits)
                if (1..=20).contains(&digits.len()) && digits.bytes().all(|octet| octet.is_ascii_digit()) =>
            {
                size = Some(digits.parse().unwrap_or(u64::MAX));
            }
            ("BODY", "7BIT") => body = BodyKind::SevenBit,
            ("BODY", "8BITMIME") => body = BodyKind::EightBitMime,
            ("SIZE" | "BODY", _) => {
                return Err(Reply::new(501, "5.5.4", "Bad value of a parameter"));
            }
            _ => return Err(Reply::new(555, "5.5.4", "Unknown parameter of MAIL")),
        }
    }
    if size.is_some_and(|size| size > max_message) {
        return Err(Reply::new(552, "5.3.4", "The message is too large"));
    }
    Ok(ServerEvent::Mail { from, size, body })
}

fn parse_rcpt(argument: &str) -> Result<String, Reply> {
    let path = after_keyword(argument, "TO:").ok_or_else(|| Reply::new(501, "5.5.4", "Say RCPT TO:<address>"))?;
    let (to, parameters) = parse_recipient(path).map_err(|error| error.reply(false))?;
    match parameters.trim() {
        "" => Ok(to),
        _ => Err(Reply::new(555, "5.5.4", "Unknown parameter of RCPT")),
    }
}

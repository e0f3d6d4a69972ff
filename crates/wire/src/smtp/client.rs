//! The client's side of a connection.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::address::is_address;
use super::data::DataWriter;
use super::reply::ReplyReader;
use super::{Mode, Reply, ReplyError};

/// When a client asks for TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsPolicy {
    /// Never.
    Never,
    /// Where the server offers it and agrees.
    Opportunistic,
    /// Always; a server that does not offer it gets no mail.
    Required,
}

/// How a client speaks.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// SMTP or LMTP.
    pub mode: Mode,
    /// The name in EHLO or LHLO.
    pub host_name: String,
    /// When to ask for TLS.
    pub tls: TlsPolicy,
}

/// What the server offers, from its answer to EHLO or LHLO.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Several commands may be sent at once (RFC 2920).
    pub pipelining: bool,
    /// SIZE is known (RFC 1870); the largest message in octets, 0 where the server names none.
    pub size: Option<u64>,
    /// 8-bit content may be announced (RFC 6152).
    pub eight_bit_mime: bool,
    /// TLS may be started (RFC 3207).
    pub starttls: bool,
    /// Replies carry enhanced status codes (RFC 2034).
    pub enhanced_status_codes: bool,
    /// The first line of the answer: the server's name, and what it says of itself.
    pub greeting: String,
}

/// What the server did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// The server agreed to TLS: the driver does the handshake and calls [`Client::tls_started`].
    StartTls,
    /// The connection is open for [`Client::mail`].
    Ready,
    /// The answer to [`Client::mail`].
    MailReply(Reply),
    /// The answer to a [`Client::rcpt`].
    RecipientReply {
        /// Number of the recipient in this transaction, from 0 in the order of the calls.
        recipient: usize,
        /// The answer.
        reply: Reply,
    },
    /// The answer to [`Client::data`]: the message follows exactly if it is positive.
    DataReply(Reply),
    /// SMTP's answer to the message.
    FinalReply(Reply),
    /// LMTP's answer to the message for one recipient; one comes for each that was accepted.
    RecipientFinalReply {
        /// Number of the recipient in this transaction.
        recipient: usize,
        /// The answer.
        reply: Reply,
    },
    /// The answer to [`Client::reset`].
    ResetReply(Reply),
    /// The answer to [`Client::quit`]; the driver closes.
    QuitReply(Reply),
    /// The server ends the connection without having been asked (421).
    Closing(Reply),
}

/// Where in opening a connection a server refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpenStage {
    /// In its greeting.
    Greeting,
    /// In the answer to EHLO, HELO or LHLO.
    Hello,
}

/// Why a connection cannot go on, or a call is refused. Errors of [`Client::next`] and of
/// [`Client::data_octets`] end the connection; those of the other calls have sent nothing.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ClientError {
    /// What the server sent is no reply.
    #[error(transparent)]
    Reply(#[from] ReplyError),
    /// The server sent a reply that nothing asked for.
    #[error("the server sent a reply that nothing asked for: {0}")]
    Unexpected(Reply),
    /// The server refused to begin.
    #[error("the server refused the connection ({stage:?}): {reply}")]
    Refused {
        /// Where.
        stage: OpenStage,
        /// Its words.
        reply: Reply,
    },
    /// TLS is required and the server does not offer it.
    #[error("the server does not offer STARTTLS, which is required")]
    TlsNotOffered,
    /// TLS is required and the server refused to start it.
    #[error("the server refused STARTTLS, which is required: {0}")]
    TlsRefused(Reply),
    /// Octets came in the clear behind the agreement to TLS; they may be anyone's.
    #[error("the server sent octets in the clear after agreeing to TLS")]
    PlaintextBehindStartTls,
    /// An address that cannot stand in a command.
    #[error("{0:?} cannot be sent as an address")]
    Address(String),
    /// A call at a time when the protocol does not allow it.
    #[error("{0} is not allowed at this point of the transaction")]
    OutOfOrder(&'static str),
    /// The message has a CR that no LF follows, which SMTP forbids (RFC 5321 §2.3.8).
    #[error("a message with a CR that no LF follows cannot be sent")]
    LoneCr,
}

/// A command that was or will be sent, and what its reply means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    Mail,
    Recipient(usize),
    Data,
    Final,
    RecipientFinal(usize),
    Reset,
    Quit,
}

impl Expect {
    /// Whether nothing may be sent before the reply (RFC 2920 §3.1).
    fn is_last_of_group(self) -> bool {
        match self {
            Self::Greeting | Self::Ehlo | Self::Helo | Self::StartTls | Self::Data | Self::Quit => true,
            Self::Mail | Self::Recipient(_) | Self::Final | Self::RecipientFinal(_) | Self::Reset => false,
        }
    }
}

/// The client's side of one SMTP or LMTP connection.
///
/// Greeting, EHLO (or HELO, or LHLO) and STARTTLS go by themselves until [`ClientEvent::Ready`]. Then commands may be
/// called one after the other without waiting; they are sent in groups as far as the server allows, and every one is
/// answered by its event, in order.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    replies: ReplyReader,
    output: BytesMut,
    /// Commands not sent yet.
    queue: VecDeque<(String, Expect)>,
    /// Commands sent and not answered.
    expected: VecDeque<Expect>,
    capabilities: Capabilities,
    tls: bool,
    in_handshake: bool,
    recipients: usize,
    accepted: Vec<usize>,
    data: Option<DataWriter>,
}

impl Client {
    /// A client on a fresh connection that waits for the greeting.
    pub fn new(config: ClientConfig) -> Self {
        Self {
            config,
            replies: ReplyReader::default(),
            output: BytesMut::new(),
            queue: VecDeque::new(),
            expected: VecDeque::from([Expect::Greeting]),
            capabilities: Capabilities::default(),
            tls: false,
            in_handshake: false,
            recipients: 0,
            accepted: Vec::new(),
            data: None,
        }
    }

    /// Takes what the server sent.
    pub fn push(&mut self, octets: &[u8]) {
        self.replies.push(octets);
    }

    /// The next event; none when more octets, a command or the TLS handshake is needed.
    #[allow(clippy::should_implement_trait)] // Three outcomes, and "none" does not mean the end.
    pub fn next(&mut self) -> Result<Option<ClientEvent>, ClientError> {
        loop {
            if self.in_handshake {
                return match self.replies.is_idle() {
                    true => Ok(None),
                    false => Err(ClientError::PlaintextBehindStartTls),
                };
            }
            // An early answer to a message waits until all of it is sent; a server that hangs up is heard at once.
            let message_open = self.data.is_some() && self.expected.is_empty();
            if message_open && !self.replies.begins_with("421") {
                return Ok(None);
            }
            let Some(reply) = self.replies.next()? else {
                return Ok(None);
            };
            let event = match self.expected.pop_front() {
                Some(expect) => self.take_reply(expect, reply)?,
                None if reply.code == 421 => Some(ClientEvent::Closing(reply)),
                None => return Err(ClientError::Unexpected(reply)),
            };
            self.send_queued();
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    /// What is to be sent to the server.
    pub fn take_output(&mut self) -> Bytes {
        self.output.split().freeze()
    }

    /// The TLS handshake is done; the client says hello again (RFC 3207 §4.2).
    pub fn tls_started(&mut self) {
        self.tls = true;
        self.in_handshake = false;
        self.capabilities = Capabilities::default();
        self.say_hello();
    }

    /// Whether the connection is protected by TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// What the server offers; all absent before [`ClientEvent::Ready`].
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Begins a transaction. `from` is none for the null sender; size and 8-bit content are announced where the server
    /// knows the extension, and 8-bit content is sent as it is in any case.
    pub fn mail(&mut self, from: Option<&str>, size: Option<u64>, eight_bit: bool) -> Result<(), ClientError> {
        self.between_messages("MAIL")?;
        let from = from.unwrap_or_default();
        if !from.is_empty() && !is_address(from) {
            return Err(ClientError::Address(from.to_owned()));
        }
        let mut line = format!("MAIL FROM:<{from}>");
        if let (Some(size), Some(_)) = (size, self.capabilities.size) {
            line.push_str(&format!(" SIZE={size}"));
        }
        if eight_bit && self.capabilities.eight_bit_mime {
            line.push_str(" BODY=8BITMIME");
        }
        self.recipients = 0;
        self.accepted.clear();
        self.command(line, Expect::Mail);
        Ok(())
    }

    /// Names the next recipient; its number in this transaction.
    pub fn rcpt(&mut self, to: &str) -> Result<usize, ClientError> {
        self.between_messages("RCPT")?;
        if !is_address(to) {
            return Err(ClientError::Address(to.to_owned()));
        }
        let recipient = self.recipients;
        self.recipients += 1;
        self.command(format!("RCPT TO:<{to}>"), Expect::Recipient(recipient));
        Ok(recipient)
    }

    /// Asks to send the message. Allowed once a recipient is accepted: without one a server that agreed would have to
    /// be sent an empty message.
    pub fn data(&mut self) -> Result<(), ClientError> {
        self.between_messages("DATA")?;
        if self.accepted.is_empty() {
            return Err(ClientError::OutOfOrder("DATA without a recipient"));
        }
        self.command("DATA".to_owned(), Expect::Data);
        Ok(())
    }

    /// Sends the next octets of the message; LF alone becomes CR LF, dots are put on. The output grows by little more
    /// than the octets, so the driver sends it before the next call. After an error the connection is to be closed
    /// without [`data_end`](Self::data_end), so that the server drops the message.
    pub fn data_octets(&mut self, octets: &[u8]) -> Result<(), ClientError> {
        match &mut self.data {
            Some(writer) => writer.write(octets, &mut self.output).map_err(|_| ClientError::LoneCr),
            None => Err(ClientError::OutOfOrder("message content")),
        }
    }

    /// Ends the message.
    pub fn data_end(&mut self) -> Result<(), ClientError> {
        let Some(writer) = self.data.take() else {
            return Err(ClientError::OutOfOrder("the end of the message"));
        };
        writer.finish(&mut self.output);
        match self.config.mode {
            Mode::Smtp => self.expected.push_back(Expect::Final),
            Mode::Lmtp => self
                .expected
                .extend(self.accepted.iter().map(|recipient| Expect::RecipientFinal(*recipient))),
        }
        self.accepted.clear();
        Ok(())
    }

    /// Gives up the transaction.
    pub fn reset(&mut self) -> Result<(), ClientError> {
        self.between_messages("RSET")?;
        self.recipients = 0;
        self.accepted.clear();
        self.command("RSET".to_owned(), Expect::Reset);
        Ok(())
    }

    /// Ends the connection.
    pub fn quit(&mut self) -> Result<(), ClientError> {
        self.between_messages("QUIT")?;
        self.command("QUIT".to_owned(), Expect::Quit);
        Ok(())
    }

    /// Commands cannot be sent before the connection is open, while DATA is unanswered or while a message is open.
    fn between_messages(&self, what: &'static str) -> Result<(), ClientError> {
        let busy = self.data.is_some()
            || self.in_handshake
            || self
                .expected
                .iter()
                .chain(self.queue.iter().map(|(_, expect)| expect))
                .any(|expect| expect.is_last_of_group());
        match busy {
            true => Err(ClientError::OutOfOrder(what)),
            false => Ok(()),
        }
    }

    fn command(&mut self, line: String, expect: Expect) {
        self.queue.push_back((line, expect));
        self.send_queued();
    }

    fn send_queued(&mut self) {
        loop {
            let may_send = match self.expected.back() {
                None => true,
                Some(last) => self.capabilities.pipelining && !last.is_last_of_group(),
            };
            if !may_send || self.in_handshake || self.data.is_some() {
                return;
            }
            let Some((line, expect)) = self.queue.pop_front() else {
                return;
            };
            self.output.extend_from_slice(line.as_bytes());
            self.output.extend_from_slice(b"\r\n");
            self.expected.push_back(expect);
        }
    }

    fn say_hello(&mut self) {
        let verb = match self.config.mode {
            Mode::Smtp => "EHLO",
            Mode::Lmtp => "LHLO",
        };
        let line = format!("{verb} {}", self.config.host_name);
        self.command(line, Expect::Ehlo);
    }

    fn take_reply(&mut self, expect: Expect, reply: Reply) -> Result<Option<ClientEvent>, ClientError> {
        let event = match expect {
            Expect::Greeting | Expect::Ehlo | Expect::Helo | Expect::StartTls => {
                return self.open(expect, reply);
            }
            Expect::Mail => ClientEvent::MailReply(reply),
            Expect::Recipient(recipient) => {
                if reply.is_positive() {
                    self.accepted.push(recipient);
                }
                ClientEvent::RecipientReply { recipient, reply }
            }
            Expect::Data => {
                if reply.is_positive() {
                    self.data = Some(DataWriter::new());
                }
                ClientEvent::DataReply(reply)
            }
            Expect::Final => ClientEvent::FinalReply(reply),
            Expect::RecipientFinal(recipient) => ClientEvent::RecipientFinalReply { recipient, reply },
            Expect::Reset => ClientEvent::ResetReply(reply),
            Expect::Quit => ClientEvent::QuitReply(reply),
        };
        Ok(Some(event))
    }

    /// The next step of opening the connection.
    fn open(&mut self, expect: Expect, reply: Reply) -> Result<Option<ClientEvent>, ClientError> {
        match expect {
            Expect::StartTls if reply.is_positive() => {
                if !self.replies.is_idle() {
                    return Err(ClientError::PlaintextBehindStartTls);
                }
                self.in_handshake = true;
                return Ok(Some(ClientEvent::StartTls));
            }
            Expect::StartTls if self.config.tls == TlsPolicy::Required => {
                return Err(ClientError::TlsRefused(reply));
            }
            Expect::StartTls => return Ok(Some(ClientEvent::Ready)),
            Expect::Greeting if reply.is_positive() => {
                self.say_hello();
                return Ok(None);
            }
            Expect::Greeting => {
                return Err(ClientError::Refused {
                    stage: OpenStage::Greeting,
                    reply,
                });
            }
            Expect::Ehlo if reply.is_positive() => {
                self.capabilities = read_capabilities(&reply.text);
            }
            Expect::Ehlo if reply.is_permanent() && self.config.mode == Mode::Smtp => {
                // A server of before 1995 (RFC 5321 §3.2).
                let line = format!("HELO {}", self.config.host_name);
                self.command(line, Expect::Helo);
                return Ok(None);
            }
            _ if reply.is_positive() => {}
            _ => {
                return Err(ClientError::Refused {
                    stage: OpenStage::Hello,
                    reply,
                });
            }
        }
        match (self.config.tls, self.tls, self.capabilities.starttls) {
            (TlsPolicy::Never, _, _) | (_, true, _) | (TlsPolicy::Opportunistic, false, false) => {
                Ok(Some(ClientEvent::Ready))
            }
            (TlsPolicy::Required, false, false) => Err(ClientError::TlsNotOffered),
            (TlsPolicy::Opportunistic | TlsPolicy::Required, false, true) => {
                self.command("STARTTLS".to_owned(), Expect::StartTls);
                Ok(None)
            }
        }
    }
}

fn read_capabilities(text: &str) -> Capabilities {
    let greeting = text.lines().next().unwrap_or_default().to_owned();
    let mut capabilities = Capabilities {
        greeting,
        ..Capabilities::default()
    };
    for line in text.lines().skip(1) {
        let mut words = line.split_ascii_whitespace();
        match words.next().unwrap_or_default().to_ascii_uppercase().as_str() {
            "PIPELINING" => capabilities.pipelining = true,
            "SIZE" => {
                let limit = words.next().and_then(|digits| digits.parse().ok());
                capabilities.size = Some(limit.unwrap_or(0));
            }
            "8BITMIME" => capabilities.eight_bit_mime = true,
            "STARTTLS" => capabilities.starttls = true,
            "ENHANCEDSTATUSCODES" => capabilities.enhanced_status_codes = true,
            _ => {}
        }
    }
    capabilities
}

//! A conversation with a next hop: `wire`'s client with a connection under it.

use crate::{
    link::{self, ClientTls, Link},
    next_hop::NextHop,
    settings::{Timeouts, TlsPolicy},
    spool::Spool,
};
use rehome_domain::address::SmtpAddress;
use rehome_wire::smtp::{Client, ClientConfig, ClientError, ClientEvent, Mode, Reply, TlsPolicy as WirePolicy};
use std::{io, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Octets read or sent at once.
const PIECE: usize = 32 * 1024;

/// Why a next hop could not be talked to. The sender repeats.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    /// No server of the hop could be reached; this is the last one's error.
    #[error("{server} cannot be used as next hop")]
    Unreachable {
        /// Which.
        server: String,
        /// What happened.
        #[source]
        cause: LinkError,
    },
    /// The connection broke.
    #[error("the connection to {server} broke")]
    Broken {
        /// Which.
        server: String,
        /// What happened.
        #[source]
        cause: LinkError,
    },
    /// The message could not be read back.
    #[error("the spooled message cannot be read")]
    Spool(#[source] io::Error),
}

/// What goes wrong on one connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// The network.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The protocol.
    #[error(transparent)]
    Protocol(#[from] ClientError),
    /// No answer in time.
    #[error("no answer within {} seconds", .0.as_secs())]
    Timeout(Duration),
    /// The server hung up.
    #[error("the server ended the connection: {0}")]
    Closed(String),
    /// An answer to something else.
    #[error("the server answered out of turn")]
    OutOfTurn,
    /// TLS could not be agreed on.
    #[error("TLS failed")]
    Tls(#[source] io::Error),
}

/// What every conversation needs.
pub(crate) struct Caller {
    /// Our name in EHLO.
    pub(crate) server_name: String,
    /// TLS as client.
    pub(crate) tls: ClientTls,
    /// How long to wait.
    pub(crate) timeouts: Timeouts,
}

/// An open conversation, past EHLO.
pub(crate) struct Conversation {
    link: Link,
    client: Client,
    server: String,
    timeouts: Timeouts,
}

impl Caller {
    /// Opens a conversation with the first server of the hop that can be talked to.
    pub(crate) async fn open(&self, hop: &NextHop) -> Result<Conversation, RelayError> {
        let mut last = None;
        for (host, port) in &hop.servers {
            let server = format!("{host}:{port}");
            let mut opened = self.open_one(host, *port, hop.tls).await;
            if matches!(opened, Err(LinkError::Tls(_))) && hop.tls == TlsPolicy::Opportunistic {
                opened = self.open_one(host, *port, TlsPolicy::None).await;
            }
            match opened {
                Ok(conversation) => return Ok(conversation),
                Err(cause) => {
                    tracing::debug!(%server, error = %cause, "a next hop's server cannot be used");
                    last = Some(RelayError::Unreachable { server, cause });
                }
            }
        }
        Err(last.unwrap_or_else(|| RelayError::Unreachable {
            server: hop.to_string(),
            cause: LinkError::Closed("it has no servers".to_owned()),
        }))
    }

    async fn open_one(&self, host: &str, port: u16, policy: TlsPolicy) -> Result<Conversation, LinkError> {
        let patience = self.timeouts.connect;
        tokio::time::timeout(patience, async {
            let config = ClientConfig {
                mode: Mode::Smtp,
                host_name: self.server_name.clone(),
                tls: match policy {
                    TlsPolicy::None => WirePolicy::Never,
                    TlsPolicy::Opportunistic => WirePolicy::Opportunistic,
                    TlsPolicy::Required => WirePolicy::Required,
                },
            };
            let mut conversation = Conversation {
                link: link::connect(host, port).await?,
                client: Client::new(config),
                server: format!("{host}:{port}"),
                timeouts: self.timeouts,
            };
            loop {
                match conversation.event().await? {
                    ClientEvent::StartTls => {
                        let plain = std::mem::replace(&mut conversation.link, Box::new(tokio::io::empty()));
                        conversation.link = self.tls.connect(policy, host, plain).await.map_err(LinkError::Tls)?;
                        conversation.client.tls_started();
                    }
                    ClientEvent::Ready => return Ok(conversation),
                    other => return Err(out_of_turn(other)),
                }
            }
        })
        .await
        .map_err(|_| LinkError::Timeout(patience))?
    }
}

impl Conversation {
    /// What the server says of itself in its answer to EHLO.
    pub(crate) fn greeting(&self) -> &str {
        &self.client.capabilities().greeting
    }

    /// Host and port.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// MAIL.
    pub(crate) async fn mail(
        &mut self,
        from: Option<&str>,
        size: Option<u64>,
        eight_bit: bool,
    ) -> Result<Reply, RelayError> {
        let sent = self.client.mail(from, size, eight_bit);
        match self.answer(sent).await? {
            ClientEvent::MailReply(reply) => Ok(reply),
            other => Err(self.broken(out_of_turn(other))),
        }
    }

    /// MAIL and the first RCPT, both at once where the server takes several commands (RFC 2920). Returns the answers to
    /// MAIL and, where that was accepted, to RCPT.
    pub(crate) async fn mail_and_rcpt(
        &mut self,
        from: Option<&str>,
        size: Option<u64>,
        eight_bit: bool,
        to: &SmtpAddress,
    ) -> Result<(Reply, Option<Reply>), RelayError> {
        let queued = self.client.mail(from, size, eight_bit);
        let queued = queued.and_then(|()| self.client.rcpt(&to.to_string()).map(|_| ()));
        let mail = match self.answer(queued).await? {
            ClientEvent::MailReply(reply) => reply,
            other => return Err(self.broken(out_of_turn(other))),
        };
        if !mail.is_positive() {
            return Ok((mail, None));
        }
        match self.answer(Ok(())).await? {
            ClientEvent::RecipientReply { reply, .. } => Ok((mail, Some(reply))),
            other => Err(self.broken(out_of_turn(other))),
        }
    }

    /// RCPT.
    pub(crate) async fn rcpt(&mut self, to: &SmtpAddress) -> Result<Reply, RelayError> {
        let sent = self.client.rcpt(&to.to_string()).map(|_| ());
        match self.answer(sent).await? {
            ClientEvent::RecipientReply { reply, .. } => Ok(reply),
            other => Err(self.broken(out_of_turn(other))),
        }
    }

    /// DATA: after a positive reply [`Conversation::octets`] must follow.
    pub(crate) async fn data(&mut self) -> Result<Reply, RelayError> {
        let sent = self.client.data();
        match self.answer(sent).await? {
            ClientEvent::DataReply(reply) => Ok(reply),
            other => Err(self.broken(out_of_turn(other))),
        }
    }

    /// The message, our own lines first, but for its end: the next hop drops it if [`Conversation::end`] never follows.
    pub(crate) async fn octets(&mut self, lines: &str, message: &mut Spool) -> Result<(), RelayError> {
        self.piece(lines.as_bytes()).await?;
        message.rewind().await.map_err(RelayError::Spool)?;
        let mut buffer = vec![0; PIECE];
        loop {
            let count = message.read(&mut buffer).await.map_err(RelayError::Spool)?;
            if count == 0 {
                return Ok(());
            }
            self.piece(&buffer[..count]).await?;
        }
    }

    /// The message's end; the reply is the next hop's last word on it.
    pub(crate) async fn end(&mut self) -> Result<Reply, RelayError> {
        let ended = self.client.data_end();
        match self.answer_within(ended, self.timeouts.data).await? {
            ClientEvent::FinalReply(reply) => Ok(reply),
            other => Err(self.broken(out_of_turn(other))),
        }
    }

    /// Says goodbye; how it is taken does not matter.
    pub(crate) async fn quit(mut self) {
        if self.client.quit().is_ok() {
            let _ = tokio::time::timeout(Duration::from_secs(5), self.event()).await;
        }
    }

    async fn piece(&mut self, octets: &[u8]) -> Result<(), RelayError> {
        self.client.data_octets(octets).map_err(|e| self.broken(e.into()))?;
        let patience = self.timeouts.data;
        match tokio::time::timeout(patience, self.send()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(self.broken(e.into())),
            Err(_) => Err(self.broken(LinkError::Timeout(patience))),
        }
    }

    async fn answer(&mut self, sent: Result<(), ClientError>) -> Result<ClientEvent, RelayError> {
        self.answer_within(sent, self.timeouts.command).await
    }

    async fn answer_within(
        &mut self,
        sent: Result<(), ClientError>,
        patience: Duration,
    ) -> Result<ClientEvent, RelayError> {
        sent.map_err(|e| self.broken(e.into()))?;
        match tokio::time::timeout(patience, self.event()).await {
            Ok(Ok(event)) => Ok(event),
            Ok(Err(cause)) => Err(self.broken(cause)),
            Err(_) => Err(self.broken(LinkError::Timeout(patience))),
        }
    }

    fn broken(&self, cause: LinkError) -> RelayError {
        RelayError::Broken {
            server: self.server.clone(),
            cause,
        }
    }

    async fn send(&mut self) -> io::Result<()> {
        let output = self.client.take_output();
        if !output.is_empty() {
            self.link.write_all(&output).await?;
            self.link.flush().await?;
        }
        Ok(())
    }

    async fn event(&mut self) -> Result<ClientEvent, LinkError> {
        let mut buffer = vec![0; 4096];
        loop {
            let event = self.client.next()?;
            self.send().await?;
            if let Some(event) = event {
                return Ok(event);
            }
            match self.link.read(&mut buffer).await? {
                0 => return Err(LinkError::Closed("without a word".to_owned())),
                count => self.client.push(&buffer[..count]),
            }
        }
    }
}

fn out_of_turn(event: ClientEvent) -> LinkError {
    match event {
        ClientEvent::Closing(reply) => LinkError::Closed(reply.to_string()),
        ClientEvent::StartTls
        | ClientEvent::Ready
        | ClientEvent::MailReply(_)
        | ClientEvent::RecipientReply { .. }
        | ClientEvent::DataReply(_)
        | ClientEvent::FinalReply(_)
        | ClientEvent::RecipientFinalReply { .. }
        | ClientEvent::ResetReply(_)
        | ClientEvent::QuitReply(_) => LinkError::OutOfTurn,
    }
}

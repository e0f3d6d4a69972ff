//! One SMTP connection to us: `wire`'s server with a connection under it.

use crate::{
    link::{self, Link},
    replies,
    serve::Shared,
    transaction::{Origin, Transaction},
};
use rehome_wire::smtp::{BodyKind, Mode, Reply, Server, ServerConfig, ServerEvent};
use std::{io, net::IpAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
};

/// Octets read at once.
const PIECE: usize = 32 * 1024;

struct Session {
    shared: Arc<Shared>,
    link: Link,
    server: Server,
    peer: IpAddr,
    hello: String,
    extended: bool,
    transaction: Option<Transaction>,
    receiving: bool,
}

/// Serves one connection to its end. When `stopped` becomes true it ends with 421, after the message that is being
/// received, if any.
pub(crate) async fn run(shared: Arc<Shared>, stream: TcpStream, peer: IpAddr, stopped: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let settings = &shared.settings;
    let config = ServerConfig {
        mode: Mode::Smtp,
        // The instance follows the name in the greeting, where RFC 5321 §4.2 allows any text.
        host_name: format!("{} {}", settings.server_name, shared.instance),
        max_message: settings.max_message_size,
        starttls: settings.server_tls.is_some(),
    };
    let session = Session {
        link: Box::new(stream),
        server: Server::new(config),
        peer,
        hello: String::new(),
        extended: false,
        transaction: None,
        receiving: false,
        shared,
    };
    if let Err(error) = session.serve(stopped).await {
        tracing::debug!(%peer, %error, "an SMTP connection broke");
    }
}

impl Session {
    async fn serve(mut self, mut stopped: watch::Receiver<bool>) -> io::Result<()> {
        let idle = self.shared.settings.timeouts.idle;
        let mut buffer = vec![0; PIECE];
        loop {
            while let Some(event) = self.server.next() {
                let ends = matches!(event, ServerEvent::Quit);
                self.handle(event).await?;
                self.flush(idle).await?;
                if ends {
                    return self.link.shutdown().await;
                }
            }
            self.flush(idle).await?;
            if *stopped.borrow_and_update() && !self.receiving {
                return self.close("Service stopping, try again later").await;
            }
            let count = tokio::select! {
                read = self.link.read(&mut buffer) => read?,
                changed = stopped.changed() => match changed {
                    Ok(()) => continue,
                    Err(e) => return Err(io::Error::other(e)),
                },
                () = tokio::time::sleep(idle) => return self.close("Too long without a command").await,
            };
            if count == 0 {
                return Ok(());
            }
            self.server.push(&buffer[..count]);
        }
    }

    async fn close(&mut self, text: &str) -> io::Result<()> {
        self.server.close(&Reply::new(421, "4.3.2", text));
        self.flush(Duration::from_secs(5)).await?;
        self.link.shutdown().await
    }

    async fn flush(&mut self, patience: Duration) -> io::Result<()> {
        let output = self.server.take_output();
        if output.is_empty() {
            return Ok(());
        }
        let sent = async {
            self.link.write_all(&output).await?;
            self.link.flush().await
        };
        tokio::time::timeout(patience, sent)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn handle(&mut self, event: ServerEvent) -> io::Result<()> {
        match event {
            ServerEvent::EhloOrHelo { name, extended } => {
                (self.hello, self.extended) = (name, extended);
                self.transaction = None;
            }
            ServerEvent::StartTls => self.start_tls().await?,
            ServerEvent::Mail { from, size, body } => {
                let eight_bit = body == BodyKind::EightBitMime;
                self.transaction = Some(Transaction::new(
                    Arc::clone(&self.shared),
                    self.origin(),
                    from,
                    size,
                    eight_bit,
                ));
                self.server.accept();
            }
            ServerEvent::Rcpt { to } => {
                let reply = match &mut self.transaction {
                    Some(transaction) => transaction.recipient(&to).await,
                    None => replies::failure(),
                };
                self.server.answer(reply);
            }
            ServerEvent::DataStart => match self.transaction.as_ref().map_or(Ok(()), Transaction::may_begin) {
                Ok(()) => {
                    self.receiving = true;
                    self.server.accept();
                }
                Err(reply) => self.server.answer(reply),
            },
            ServerEvent::DataOctets(octets) => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.octets(&octets).await;
                }
            }
            ServerEvent::DataEnd => {
                self.receiving = false;
                let reply = match self.transaction.take() {
                    Some(transaction) => transaction.deliver().await,
                    None => replies::failure(),
                };
                self.server.answer(reply);
            }
            ServerEvent::DataRefused(reply) => {
                self.receiving = false;
                self.transaction = None;
                tracing::info!(peer = %self.peer, %reply, "a message was refused");
            }
            ServerEvent::Reset => self.transaction = None,
            ServerEvent::Quit => {}
        }
        Ok(())
    }

    fn origin(&self) -> Origin {
        let protocol = match (self.extended, self.server.is_tls()) {
            (true, true) => "ESMTPS",
            (true, false) => "ESMTP",
            (false, _) => "SMTP",
        };
        Origin {
            hello: self.hello.clone(),
            peer: self.peer,
            protocol,
        }
    }

    async fn start_tls(&mut self) -> io::Result<()> {
        let patience = self.shared.settings.timeouts.connect;
        self.flush(patience).await?;
        let Some(config) = self.shared.settings.server_tls.clone() else {
            return Err(io::Error::other("STARTTLS without a certificate"));
        };
        let plain = std::mem::replace(&mut self.link, Box::new(tokio::io::empty()));
        let encrypted = tokio::time::timeout(patience, link::accept(&config, plain)).await;
        self.link = encrypted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        self.server.tls_started();
        self.transaction = None;
        Ok(())
    }
}

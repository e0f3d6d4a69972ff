//! Mailboxes on IMAP servers (RFC 9051, RFC 3501 and the extensions that servers offer).
//!
//! [`ImapServer`] is one server with one pool of connections; [`ImapMailbox`] is one account on it. The protocol's
//! octets are [`rehome_wire::imap`]'s; here is what is asked in which order, and what an answer means.
//!
//! Reading order: `settings`, `sign_in`, `pool` for connections; `folders`, `list`, `read`, `append`, `change` for
//! what a mailbox is asked.

mod append;
mod change;
mod connection;
mod error;
mod folders;
mod list;
mod mailbox;
mod names;
mod pool;
mod quirks;
mod read;
mod selected;
mod settings;
mod sign_in;
mod transport;

pub use mailbox::ImapMailbox;
pub use settings::{AccessTokens, OAuthMechanism, Security, ServerFacts, ServerSettings, SignIn};

use crate::MailboxError;
use connection::Connection;
use pool::{Pool, Who};
use rehome_wire::imap::Command;
use secrecy::SecretString;
use std::sync::Arc;

/// One IMAP server, its pool of connections and what is known of it. Clones share all of that.
#[derive(Clone)]
pub struct ImapServer {
    pool: Arc<Pool>,
}

impl ImapServer {
    /// A server; nothing is connected before something is asked.
    #[must_use]
    pub fn new(settings: ServerSettings) -> Self {
        let pool = Pool::new(settings);
        Self { pool }
    }

    /// How it is reached.
    #[must_use]
    pub fn settings(&self) -> &ServerSettings {
        &self.pool.settings
    }

    /// The mailbox of `account`; `password` only with [`SignIn::Password`]. Nothing is connected before something is
    /// asked.
    #[must_use]
    pub fn mailbox(&self, account: &str, password: Option<SecretString>) -> ImapMailbox {
        let account = Arc::from(account);
        ImapMailbox::new(Arc::clone(&self.pool), Who { account, password })
    }

    /// Whether the server is there, speaks IMAP and proves who it is; nobody is signed in.
    ///
    /// # Errors
    /// Where it cannot be reached, its certificate is not accepted, or it does not greet.
    pub async fn check(&self) -> Result<ServerFacts, MailboxError> {
        let mut connection = sign_in::greet(&self.pool.settings).await?;
        if connection.capabilities.id {
            // A server that does not tell before sign-in is as good.
            connection.ask(Command::id(&[]), |_| {}).await?;
        }
        connection.quirks = quirks::Quirks::of(&connection);
        let facts = facts(&connection);
        connection.log_out().await;
        Ok(facts)
    }

    /// Whether an account can be signed in to, and what the server can do then.
    ///
    /// # Errors
    /// As [`check`](Self::check), and where the sign-in is refused.
    pub async fn check_account(
        &self,
        account: &str,
        password: Option<SecretString>,
    ) -> Result<ServerFacts, MailboxError> {
        let mailbox = self.mailbox(account, password);
        let lease = mailbox.lease(None).await.map_err(|failure| mailbox.told(failure))?;
        Ok(facts(&lease))
    }

    /// Closes the connections of `account` that nobody uses.
    pub async fn close_account(&self, account: &str) {
        self.pool.renew(&Arc::from(account)).await;
    }
}

fn facts(connection: &Connection) -> ServerFacts {
    let names = connection.capabilities.names.iter();
    let mut capabilities: Vec<String> = names.map(|name| error::shown(&name.to_ascii_uppercase())).collect();
    capabilities.sort_unstable();
    capabilities.dedup();
    let id = connection.id.iter();
    ServerFacts {
        capabilities,
        id: id
            .map(|(name, value)| (error::shown(name), error::shown(value)))
            .collect(),
        greeting: error::shown(&connection.greeting),
        kind: connection.quirks.name(),
        append_limit: connection.capabilities.append_limit,
    }
}

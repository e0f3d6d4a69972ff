//! How a server is reached and signed in to.

use crate::MailboxError;
use async_trait::async_trait;
use secrecy::SecretString;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// How the connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Security {
    /// TLS from the first octet (RFC 8314 §3.2), usually port 993.
    Tls,
    /// STARTTLS, always: a server that does not offer it gets no password.
    StartTls,
    /// None. Sign-in is refused unless the connection goes to a loopback address.
    Plain,
}

/// Which OAuth 2.0 mechanism carries an access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OAuthMechanism {
    /// XOAUTH2, which large services speak.
    XOAuth2,
    /// OAUTHBEARER (RFC 7628).
    OAuthBearer,
    /// OAUTHBEARER where it is offered, else XOAUTH2.
    Offered,
}

/// Gives access tokens, one that is still good each time.
#[async_trait]
pub trait AccessTokens: Send + Sync {
    /// A token to sign in with now; it may be the one of the call before.
    ///
    /// # Errors
    /// Where none can be had, classified as everything that reaches the engine.
    async fn token(&self) -> Result<SecretString, MailboxError>;

    /// The token given last was refused: the next one must be a new one.
    fn forget(&self);
}

/// As whom is signed in.
#[derive(Clone)]
pub enum SignIn {
    /// As `account`, `separator`, `user` with the master's password: what Dovecot calls a master user.
    Master {
        /// The master's name.
        user: String,
        /// The master's password.
        password: SecretString,
        /// What stands between the account and the master's name, usually `*`.
        separator: char,
    },
    /// As `user`, acting for the account by its authorization identity (RFC 4616 §2, RFC 5802 §5.1).
    Authzid {
        /// Who signs in.
        user: String,
        /// The password.
        password: SecretString,
    },
    /// As the account itself, with the password given to [`ImapServer::mailbox`](super::ImapServer::mailbox).
    Password,
    /// As the account, with access tokens.
    OAuth {
        /// Where tokens come from.
        tokens: Arc<dyn AccessTokens>,
        /// What carries them.
        mechanism: OAuthMechanism,
    },
}

impl fmt::Debug for SignIn {
    /// Names, never a password or token.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Master { user, separator, .. } => formatter
                .debug_struct("Master")
                .field("user", user)
                .field("separator", separator)
                .finish_non_exhaustive(),
            Self::Authzid { user, .. } => formatter
                .debug_struct("Authzid")
                .field("user", user)
                .finish_non_exhaustive(),
            Self::Password => formatter.write_str("Password"),
            Self::OAuth { mechanism, .. } => formatter
                .debug_struct("OAuth")
                .field("mechanism", mechanism)
                .finish_non_exhaustive(),
        }
    }
}

/// One IMAP server, and how it is spoken to.
#[derive(Clone)]
pub struct ServerSettings {
    /// The server's name: what its certificate must say.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Host and port to connect to instead; the certificate must still say `host`.
    pub connect_to: Option<(String, u16)>,
    /// How the connection is protected.
    pub security: Security,
    /// How certificates are checked.
    pub tls: Arc<rustls::ClientConfig>,
    /// As whom is signed in.
    pub sign_in: SignIn,
    /// Most connections to the server at once, over all accounts; at least 1.
    pub connections: usize,
    /// Most connections for one account at once; at least 1.
    pub connections_per_account: usize,
    /// Whether COMPRESS=DEFLATE (RFC 4978) is used where it is offered.
    pub compress: bool,
    /// A connection on which no octet moves for so long is given up.
    pub progress_timeout: Duration,
    /// How often a held connection that nobody uses is kept from being closed by the server.
    pub keep_alive: Duration,
    /// How long a connection that nobody uses is held.
    pub idle_time: Duration,
    /// Capabilities to pretend absent, by their names in upper case, such as `UIDPLUS`: for tests and for servers that
    /// offer what they cannot do.
    pub without: BTreeSet<String>,
}

impl ServerSettings {
    /// Settings with 8 connections, 4 for each account, compression unless the host is this machine, one minute for
    /// each octet, a sign of life every two minutes, and ten minutes for connections that nobody uses.
    #[must_use]
    pub fn new(host: &str, port: u16, security: Security, tls: Arc<rustls::ClientConfig>, sign_in: SignIn) -> Self {
        Self {
            host: host.to_owned(),
            port,
            connect_to: None,
            security,
            tls,
            sign_in,
            connections: 8,
            connections_per_account: 4,
            compress: !is_this_machine(host),
            progress_timeout: Duration::from_secs(60),
            keep_alive: Duration::from_secs(120),
            idle_time: Duration::from_secs(600),
            without: BTreeSet::new(),
        }
    }

    /// Where is connected to.
    pub(super) fn endpoint(&self) -> (&str, u16) {
        match &self.connect_to {
            Some((host, port)) => (host, *port),
            None => (&self.host, self.port),
        }
    }
}

impl fmt::Debug for ServerSettings {
    /// Without secrets.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ServerSettings")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("connect_to", &self.connect_to)
            .field("security", &self.security)
            .field("sign_in", &self.sign_in)
            .field("connections", &self.connections)
            .field("connections_per_account", &self.connections_per_account)
            .field("compress", &self.compress)
            .field("without", &self.without)
            .finish_non_exhaustive()
    }
}

fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What is known of a server after a sign-in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerFacts {
    /// Its capabilities after sign-in, in upper case, sorted; those pretended absent are left out.
    pub capabilities: Vec<String>,
    /// What it says of itself (RFC 2971): names in lower case with their values.
    pub id: Vec<(String, String)>,
    /// The text of its greeting.
    pub greeting: String,
    /// Which server it was taken for.
    pub kind: &'static str,
    /// Largest message it takes, where it says so (RFC 7889), octets.
    pub append_limit: Option<u64>,
}

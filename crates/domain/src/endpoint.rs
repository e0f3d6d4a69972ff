//! Migration endpoints: where and as whom the mover pulls.

use crate::id::{ApplicationId, EndpointId, TenantId};
use std::net::IpAddr;

/// A migration endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationEndpoint {
    /// The object.
    pub id: EndpointId,
    /// Whose it is (the target).
    pub tenant: TenantId,
    /// Identity, unique in the tenant.
    pub name: String,
    /// What is at its other end.
    pub kind: EndpointKind,
    /// `host[:port]` of the source's deployment, 443 when no port is given; of an IMAP server the host alone.
    pub remote_server: String,
    /// The sealed secret; none where every row of a batch brings its own password.
    pub sealed_secret: Option<Vec<u8>>,
    /// Moves at once; none means unlimited.
    pub max_concurrent_migrations: Option<u32>,
    /// Incremental syncs at once; none means unlimited.
    pub max_concurrent_incremental_syncs: Option<u32>,
}

/// `EndpointType` with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointKind {
    /// A partner's tenant.
    ExchangeRemoteMove(RemoteMove),
    /// An IMAP server, read directly.
    Imap(ImapServer),
}

impl EndpointKind {
    /// As the cmdlets print it.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::ExchangeRemoteMove(_) => "ExchangeRemoteMove",
            Self::Imap(_) => "IMAP",
        }
    }
}

/// The partner's tenant, and our application that he consents to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteMove {
    /// The source tenant's domain or GUID as given.
    pub remote_tenant: String,
    /// The source tenant's GUID as found; a later change stops work. None until it was first reached.
    pub remote_tenant_id: Option<TenantId>,
    /// The application whose secret is presented to our own authority.
    pub application_id: ApplicationId,
}

/// How an IMAP server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImapServer {
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub security: ImapSecurity,
    /// Who signs in.
    pub sign_in: ImapSignIn,
}

/// `-Security` of an IMAP endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImapSecurity {
    /// TLS from the first octet (RFC 8314).
    Ssl,
    /// STARTTLS.
    Tls,
    /// Nothing; on loopback only.
    None,
}

impl ImapSecurity {
    /// Every value.
    pub const ALL: [Self; 3] = [Self::Ssl, Self::Tls, Self::None];

    /// As the cmdlets print it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ssl => "Ssl",
            Self::Tls => "Tls",
            Self::None => "None",
        }
    }

    /// The port where none is given.
    #[must_use]
    pub fn usual_port(self) -> u16 {
        match self {
            Self::Ssl => 993,
            Self::Tls | Self::None => 143,
        }
    }
}

/// The name or address of an IMAP server as an administrator gave it, in lower case; none where it is neither, such as
/// a URL or a name with a port.
#[must_use]
pub fn imap_host(text: &str) -> Option<String> {
    let host = text.trim().trim_end_matches('.').to_ascii_lowercase();
    if host.parse::<IpAddr>().is_ok() {
        return Some(host);
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let looks_like_an_address = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    (host.len() <= 253 && !looks_like_an_address && host.split('.').all(is_label)).then_some(host)
}

/// Whether a name or address says that the server is this machine: the only place where nothing need protect a
/// connection.
#[must_use]
pub fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Who signs in at an IMAP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImapSignIn {
    /// Each user with the password of his row.
    Users,
    /// A master user, as `user*master`.
    Master {
        /// The master user.
        user: String,
        /// What stands between.
        separator: char,
    },
    /// An administrator by SASL with the user as authorization identity (RFC 4616).
    Authorization {
        /// The administrator.
        user: String,
    },
    /// An OAuth client by client credentials (RFC 6749 §4.4).
    OAuth {
        /// Where tokens are fetched.
        token_url: String,
        /// The client.
        client_id: String,
        /// What is asked for, where the server wants it named.
        scope: Option<String>,
    },
}

impl ImapSignIn {
    /// The name that goes with the endpoint's secret; none where rows bring their own.
    #[must_use]
    pub fn user_name(&self) -> Option<&str> {
        match self {
            Self::Users => None,
            Self::Master { user, .. } | Self::Authorization { user } => Some(user),
            Self::OAuth { client_id, .. } => Some(client_id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_servers() {
        for (text, expected) in [
            ("IMAP.contoso.example", Some("imap.contoso.example")),
            (" imap.contoso.example. ", Some("imap.contoso.example")),
            ("localhost", Some("localhost")),
            ("127.0.0.1", Some("127.0.0.1")),
            ("::1", Some("::1")),
            ("imap.contoso.example:993", None),
            ("https://imap.contoso.example", None),
            ("imap.contoso.example/x", None),
            ("[::1]", None),
            ("10.0.0", None),
            ("imap..example", None),
            ("-imap.example", None),
            ("im ap.example", None),
            ("imap.\r\nexample", None),
            ("", None),
        ] {
            assert_eq!(imap_host(text).as_deref(), expected, "{text:?}");
        }
        for (host, expected) in [
            ("localhost", true),
            ("127.0.0.9", true),
            ("::1", true),
            ("localhost.example", false),
            ("10.0.0.1", false),
        ] {
            assert_eq!(is_this_machine(host), expected, "{host}");
        }
    }
}

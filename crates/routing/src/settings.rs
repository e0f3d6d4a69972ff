//! What an operator sets for mail flow.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// Mail flow's settings, as the configuration file gives them.
#[derive(Clone)]
pub struct RoutingSettings {
    /// The public host name: greeting, EHLO, `Received` lines.
    pub server_name: String,
    /// `[mailflow.routes]`: next hops by domain, in lower case. Every other domain is asked for by MX.
    pub routes: BTreeMap<String, Route>,
    /// Largest message taken, octets.
    pub max_message_size: u64,
    /// Most SMTP connections at once; further ones are answered 421.
    pub max_connections: usize,
    /// Most recipients of one transaction (RFC 5321 §4.5.3.1.8 asks for 100); further ones are answered 452.
    pub max_recipients: usize,
    /// Folder for message parts that do not fit in memory. Made if missing; its files have no name.
    pub spool: PathBuf,
    /// Certificate and key for STARTTLS as server; none means that it is not offered.
    pub server_tls: Option<Arc<ServerConfig>>,
    /// Whom to believe where a route requires TLS.
    pub roots: Arc<RootCertStore>,
    /// How long to wait, and for what.
    pub timeouts: Timeouts,
}

/// How long mail flow waits. A sender's own patience is 5 minutes a command and 10 after the last octet
/// (RFC 5321 §4.5.3.2); what we wait for on his behalf must be shorter.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For a sender's next command or octet.
    pub idle: Duration,
    /// For a connection to a next hop, its greeting, TLS and EHLO.
    pub connect: Duration,
    /// For a next hop's answer to a command.
    pub command: Duration,
    /// For a next hop's answer to the end of the message, and for each piece of it to be taken.
    pub data: Duration,
    /// For a mailbox's lock, once the message is whole.
    pub lock: Duration,
    /// For a next hop's last word on a message while mailboxes here are locked for it. Must be shorter than a cutover's
    /// patience with deliveries (30 s); after it the locks are given back and taken again when the hop has answered.
    pub locked: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(300),
            connect: Duration::from_secs(30),
            command: Duration::from_secs(60),
            data: Duration::from_secs(300),
            lock: Duration::from_secs(10),
            locked: Duration::from_secs(20),
        }
    }
}

/// A fixed next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Host name or address.
    pub host: String,
    /// Port, 25 in the real world.
    pub port: u16,
    /// Whether to encrypt.
    pub tls: TlsPolicy,
}

/// Whether a connection to a next hop is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsPolicy {
    /// Never.
    None,
    /// Where the next hop offers it; nobody's certificate is checked (RFC 7435).
    Opportunistic,
    /// Always, with a certificate for the host's name from a known authority.
    Required,
}

/// A route as text is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Not `host:port`.
    #[error("'{0}' is not a next hop: expected host:port, for example mx.contoso.example:25 or [::1]:25")]
    NextHop(String),
    /// Not a policy.
    #[error("'{0}' is not a TLS policy: expected none, opportunistic or required")]
    TlsPolicy(String),
}

impl Route {
    /// Reads `host:port`; an IPv6 address stands in brackets.
    ///
    /// # Errors
    /// When it is not of that form.
    pub fn parse(next_hop: &str, tls: TlsPolicy) -> Result<Self, RouteError> {
        let bad = || RouteError::NextHop(next_hop.to_owned());
        let (host, port) = next_hop.trim().rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(bad)?;
        let bare = match host.strip_prefix('[') {
            Some(rest) => rest
                .strip_suffix(']')
                .filter(|h| h.parse::<std::net::Ipv6Addr>().is_ok())
                .ok_or_else(bad)?,
            None => host,
        };
        let named = !bare.is_empty()
            && bare
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        if !named && bare.len() == host.len() {
            return Err(bad());
        }
        Ok(Self {
            host: bare.to_ascii_lowercase(),
            port,
            tls,
        })
    }
}

impl std::str::FromStr for TlsPolicy {
    type Err = RouteError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::None),
            "opportunistic" => Ok(Self::Opportunistic),
            "required" => Ok(Self::Required),
            _ => Err(RouteError::TlsPolicy(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_as_text() {
        for (text, host, port) in [
            ("mx.contoso.example:25", "mx.contoso.example", 25),
            ("127.0.0.1:2525", "127.0.0.1", 2525),
            ("[::1]:25", "::1", 25),
            ("MX:25", "mx", 25),
        ] {
            let route = Route::parse(text, TlsPolicy::None).unwrap();
            assert_eq!((route.host.as_str(), route.port), (host, port));
        }
        for bad in [
            "", "mx", ":25", "mx:0", "mx:70000", "::1:25", "[mx]:25", "a b:25", "mx:",
        ] {
            assert!(Route::parse(bad, TlsPolicy::None).is_err(), "{bad}");
        }
    }
}

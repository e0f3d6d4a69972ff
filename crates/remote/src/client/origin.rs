//! Where a server is: scheme, host and port; and which addresses a name may lead to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use url::{Host, Url};

/// An origin (RFC 6454): scheme, host in ASCII, port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// False for plain HTTP, which is taken to loopback addresses only.
    pub(crate) tls: bool,
    /// The host in ASCII, lower case; an IPv6 address without brackets.
    pub(crate) host: String,
    /// The port.
    pub(crate) port: u16,
}

/// Why a text is not an origin that we talk to.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum OriginError {
    /// Not a URL.
    #[error("'{0}' is not a URL")]
    NotUrl(String),
    /// Neither https nor http to this machine itself.
    #[error("'{0}' is not an https URL; plain http is taken for this machine's own loopback addresses only")]
    NotHttps(String),
    /// A user name or password in the URL.
    #[error("a URL with a user name in it is refused")]
    Credentials,
}

impl Origin {
    /// The origin of `url`.
    ///
    /// # Errors
    /// For anything but https, or http to a loopback address; and for a URL with a user name.
    pub fn of(url: &Url) -> Result<Self, OriginError> {
        let shown = || format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default());
        if !url.username().is_empty() || url.password().is_some() {
            return Err(OriginError::Credentials);
        }
        let host = url.host().ok_or_else(|| OriginError::NotUrl(shown()))?;
        let loopback = match &host {
            Host::Domain(name) => *name == "localhost",
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
        };
        let tls = match url.scheme() {
            "https" => true,
            "http" if loopback => false,
            _ => return Err(OriginError::NotHttps(shown())),
        };
        let host = match host {
            Host::Domain(name) => name.to_ascii_lowercase(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        let port = url.port_or_known_default().unwrap_or(443);
        Ok(Self { tls, host, port })
    }

    /// Reads `host[:port]` (443 by default) or a URL, of which only the origin counts.
    ///
    /// # Errors
    /// As [`Origin::of`].
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        let text = text.trim();
        let whole = if text.contains("://") {
            text.to_owned()
        } else {
            format!("https://{text}")
        };
        Self::of(&Url::parse(&whole).map_err(|_| OriginError::NotUrl(text.to_owned()))?)
    }

    /// `host:port`, as `[connections] override` spells it.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl std::fmt::Display for Origin {
    /// As in a URL, the default port left out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (scheme, default) = if self.tls { ("https", 443) } else { ("http", 80) };
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        if self.port == default {
            write!(f, "{scheme}://{host}")
        } else {
            write!(f, "{scheme}://{host}:{}", self.port)
        }
    }
}

/// Whether an address belongs to the public Internet: what a partner may name as its own. Private, loopback,
/// link-local, shared, multicast, reserved and documentation ranges do not, nor do IPv6 addresses that carry such an
/// IPv4 address (RFC 6890 and its registry).
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = match (a, b, c) {
        (0 | 10 | 127 | 224..=255, _, _)
        | (100, 64..=127, _)
        | (169, 254, _)
        | (172, 16..=31, _)
        | (192, 0, 0 | 2)
        | (192, 88, 99)
        | (192, 168, _)
        | (198, 18 | 19, _)
        | (198, 51, 100)
        | (203, 0, 113) => true,
        (_, _, _) => false,
    };
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // Mapped and translated addresses stand for the IPv4 address in them.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x0064, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        // Documentation, Teredo and benchmarking lie inside 2000::/3, the only range given out.
        [0x2001, 0x0db8, ..] | [0x2001, 0..=0x01ff, ..] | [0x3fff, 0..=0x0fff, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        for (text, shown, authority) in [
            (
                "outlook.office.com",
                "https://outlook.office.com",
                "outlook.office.com:443",
            ),
            (
                "Source.Contoso.example:8443",
                "https://source.contoso.example:8443",
                "source.contoso.example:8443",
            ),
            (
                "https://contoso.example/path?x",
                "https://contoso.example",
                "contoso.example:443",
            ),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("https://[::1]:8443/", "https://[::1]:8443", "[::1]:8443"),
            (
                "bücher.example",
                "https://xn--bcher-kva.example",
                "xn--bcher-kva.example:443",
            ),
        ] {
            let origin = Origin::parse(text).unwrap();
            assert_eq!(
                (origin.to_string().as_str(), origin.authority().as_str()),
                (shown, authority)
            );
        }
        for text in [
            "http://contoso.example",
            "ftp://contoso.example",
            "",
            "https://",
            "a b",
            "https://u:p@contoso.example",
        ] {
            assert!(Origin::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn public_addresses() {
        let public = [
            "8.8.8.8",
            "100.63.0.1",
            "172.32.0.1",
            "2606:4700::1111",
            "2002:0808:0808::1",
            "::ffff:8.8.8.8",
        ];
        let private = [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "240.0.0.1",
            "198.18.0.1",
            "203.0.113.9",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "fc00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:192.168.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::1",
            "2001:db8::1",
            "::7f00:1",
        ];
        for text in public {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
        for text in private {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
    }
}

//! Domains, SMTP addresses, proxy addresses and LegacyExchangeDN.

use std::{fmt, str::FromStr};

/// Why a text is not an address of the kind asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not a DNS domain name in ASCII form (labels of 1 to 63 letters, digits and hyphens; 253 in all).
    #[error(
        "'{0}' is not a domain name: use letters, digits and hyphens, parts divided by dots (an international name in its xn-- form)"
    )]
    Domain(String),
    /// Not `local@domain`.
    #[error("'{0}' is not an e-mail address: expected local@domain without blanks")]
    Smtp(String),
    /// Not `/o=…/ou=…/cn=Recipients/cn=…`.
    #[error("'{0}' is not a LegacyExchangeDN: expected /o=…/ou=…/cn=Recipients/cn=…")]
    LegacyExchangeDn(String),
    /// A proxy address with an unknown prefix.
    #[error("'{0}' is not a proxy address: use SMTP:, smtp:, X500: or X400: before the address")]
    ProxyPrefix(String),
}

/// A DNS domain name in lower-case ASCII.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName(String);

impl DomainName {
    /// The name as text, lower-case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DomainName {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.trim().trim_end_matches('.').to_ascii_lowercase();
        let label = |l: &str| {
            (1..=63).contains(&l.len())
                && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !l.starts_with('-')
                && !l.ends_with('-')
        };
        if name.is_empty() || name.len() > 253 || !name.split('.').all(label) {
            return Err(AddressError::Domain(text.to_owned()));
        }
        Ok(Self(name))
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An SMTP address. The spelling is kept; comparing ignores case, as every mail platform here does.
#[derive(Clone, Debug)]
pub struct SmtpAddress {
    local: String,
    domain: DomainName,
}

impl SmtpAddress {
    /// The part before the last `@`, as spelt.
    #[must_use]
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The part after the last `@`.
    #[must_use]
    pub fn domain(&self) -> &DomainName {
        &self.domain
    }

    /// The form used as a key: all lower-case.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}@{}", self.local.to_lowercase(), self.domain)
    }
}

impl FromStr for SmtpAddress {
    type Err = AddressError;

    /// Reads `local@domain`; quoted local parts (RFC 5321 §4.1.2) and route addresses are refused.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || AddressError::Smtp(text.to_owned());
        let text_trimmed = text.trim();
        let (local, domain) = text_trimmed.rsplit_once('@').ok_or_else(bad)?;
        let allowed = |c: char| {
            !c.is_whitespace()
                && !c.is_control()
                && !matches!(
                    c,
                    '<' | '>' | '"' | '(' | ')' | ',' | ';' | ':' | '@' | '[' | ']' | '\\'
                )
        };
        if local.is_empty()
            || local.len() > 64
            || local.starts_with('.')
            || local.ends_with('.')
            || local.contains("..")
            || !local.chars().all(allowed)
        {
            return Err(bad());
        }
        let domain = domain.parse().map_err(|_| bad())?;
        Ok(Self {
            local: local.to_owned(),
            domain,
        })
    }
}

impl PartialEq for SmtpAddress {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl Eq for SmtpAddress {}
impl std::hash::Hash for SmtpAddress {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}
impl PartialOrd for SmtpAddress {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for SmtpAddress {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl fmt::Display for SmtpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local, self.domain)
    }
}

/// One entry of `EmailAddresses`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProxyAddress {
    /// `SMTP:`, the primary address; exactly one on a recipient.
    Primary(SmtpAddress),
    /// `smtp:`, a further address.
    Smtp(SmtpAddress),
    /// `x500:`, another object's LegacyExchangeDN; only its being non-empty is checked.
    X500(String),
    /// `x400:`; only its being non-empty is checked.
    X400(String),
}

impl ProxyAddress {
    /// The SMTP address, if this is one.
    #[must_use]
    pub fn smtp(&self) -> Option<&SmtpAddress> {
        match self {
            Self::Primary(a) | Self::Smtp(a) => Some(a),
            Self::X500(_) | Self::X400(_) => None,
        }
    }

    /// The form that must be unique in a tenant: type and value, case folded.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Primary(a) | Self::Smtp(a) => format!("smtp:{}", a.key()),
            Self::X500(v) => format!("x500:{}", v.to_lowercase()),
            Self::X400(v) => format!("x400:{}", v.to_lowercase()),
        }
    }
}

impl FromStr for ProxyAddress {
    type Err = AddressError;

    /// Reads `SMTP:a@b`, `smtp:a@b`, `x500:…`, `x400:…`; no prefix means `smtp:`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        match text.split_once(':') {
            None => Ok(Self::Smtp(text.parse()?)),
            Some(("SMTP", rest)) => Ok(Self::Primary(rest.parse()?)),
            Some((p, rest)) if p.eq_ignore_ascii_case("smtp") => Ok(Self::Smtp(rest.parse()?)),
            Some((p, rest)) if p.eq_ignore_ascii_case("x500") && !rest.trim().is_empty() => {
                Ok(Self::X500(rest.trim().to_owned()))
            }
            Some((p, rest)) if p.eq_ignore_ascii_case("x400") && !rest.trim().is_empty() => {
                Ok(Self::X400(rest.trim().to_owned()))
            }
            Some(_) => Err(AddressError::ProxyPrefix(text.to_owned())),
        }
    }
}

impl fmt::Display for ProxyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary(a) => write!(f, "SMTP:{a}"),
            Self::Smtp(a) => write!(f, "smtp:{a}"),
            Self::X500(v) => write!(f, "x500:{v}"),
            Self::X400(v) => write!(f, "x400:{v}"),
        }
    }
}

/// The X.500-style name under which internal mail remembers a recipient; set once, never changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LegacyExchangeDn(String);

impl LegacyExchangeDn {
    /// Makes the name of a new recipient: organisation, 32 hex digits of its object id, alias fragment.
    #[must_use]
    pub fn for_recipient(organisation: &DomainName, id: crate::id::RecipientId, alias: &str) -> Self {
        let fragment: String = alias.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
        Self(format!(
            "/o={organisation}/ou=Exchange Administrative Group (FYDIBOHF23SPDLT)/cn=Recipients/cn={}-{}",
            id.0.simple(),
            fragment.to_ascii_lowercase()
        ))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The proxy address under which another recipient answers to this name.
    #[must_use]
    pub fn as_x500(&self) -> ProxyAddress {
        ProxyAddress::X500(self.0.clone())
    }

    /// Whether both name the same recipient; case does not matter.
    #[must_use]
    pub fn same_as(&self, other: &str) -> bool {
        self.0.eq_ignore_ascii_case(other)
    }
}

impl FromStr for LegacyExchangeDn {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower = text.to_ascii_lowercase();
        let bad = || AddressError::LegacyExchangeDn(text.to_owned());
        let parts: Vec<&str> = lower.split('/').collect();
        let shape = parts.len() >= 5
            && parts[0].is_empty()
            && parts[1].strip_prefix("o=").is_some_and(|v| !v.is_empty())
            && parts[2].strip_prefix("ou=").is_some_and(|v| !v.is_empty())
            && parts[parts.len() - 2] == "cn=recipients"
            && parts[parts.len() - 1]
                .strip_prefix("cn=")
                .is_some_and(|v| !v.is_empty());
        if !shape || text.len() > 1024 || text.chars().any(char::is_control) {
            return Err(bad());
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for LegacyExchangeDn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smtp_addresses() {
        for good in [
            "a@b",
            "Anna.B+x@Contoso.Example",
            "o'neil@contoso.example",
            "ü@contoso.example",
        ] {
            let parsed: SmtpAddress = good.parse().unwrap();
            assert_eq!(parsed.key(), good.to_lowercase(), "{good}");
        }
        for bad in [
            "", "a", "@b", "a@", "a b@c", "a@b c", ".a@b", "a..b@c", "a@b@c", "<a@b>", "a@-b",
        ] {
            assert!(bad.parse::<SmtpAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn proxies_keep_primary_and_case_of_prefix() {
        for text in [
            "SMTP:a@b.example",
            "smtp:a@b.example",
            "x500:/o=x/ou=y/cn=z",
            "x400:c=us",
        ] {
            assert_eq!(text.parse::<ProxyAddress>().unwrap().to_string(), text);
        }
        assert_eq!(
            "a@b.example".parse::<ProxyAddress>().unwrap().to_string(),
            "smtp:a@b.example"
        );
        assert!("fax:1".parse::<ProxyAddress>().is_err());
        assert!("x500:".parse::<ProxyAddress>().is_err());
    }

    #[test]
    fn legacy_exchange_dn_shape() {
        let id = crate::id::RecipientId::from_u128(7);
        let dn = LegacyExchangeDn::for_recipient(&"contoso.example".parse().unwrap(), id, "Anna.Ü");
        assert_eq!(dn.as_str().parse::<LegacyExchangeDn>().unwrap(), dn);
        assert!(dn.as_str().ends_with("cn=00000000000000000000000000000007-anna"));
        for bad in ["", "/o=a", "o=a/ou=b/cn=Recipients/cn=c", "/o=a/ou=b/cn=Recipients/cn="] {
            assert!(bad.parse::<LegacyExchangeDn>().is_err(), "{bad}");
        }
    }
}

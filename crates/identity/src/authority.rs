//! Where an authority's parts are, its discovery document, and the check of a partner's.

use crate::error::DiscoveryError;
use rehome_domain::id::{ApplicationId, TenantId};
use serde::Deserialize;
use std::{fmt, str::FromStr};
use url::Url;

/// The protocol versions that this program speaks.
pub const PROTOCOL_VERSIONS: &[u32] = &[1];
/// Longest discovery document read, in octets.
pub const MAX_DISCOVERY: usize = 64 * 1024;

/// An https origin (RFC 6454): `https://host[:port]`, lower-case ASCII, the port left out when it is 443.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin(String);

/// Why a text is not an origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a server name: expected host or host:port")]
pub struct NotAnOrigin(String);

impl FromStr for Origin {
    type Err = NotAnOrigin;

    /// Reads `host`, `host:port` or `https://host[:port]`, nothing after it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || NotAnOrigin(text.chars().filter(|c| !c.is_control()).take(100).collect());
        let text = text.trim();
        if text.len() > 300 {
            return Err(bad());
        }
        let rest = text.strip_prefix("https://").unwrap_or(text);
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.is_empty() || rest.contains(['/', '\\', '?', '#', '@']) || rest.chars().any(char::is_whitespace) {
            return Err(bad());
        }
        let url = Url::parse(&format!("https://{rest}")).map_err(|_| bad())?;
        let origin = url.origin().ascii_serialization();
        // The form with its scheme and the host in ASCII may be longer than what was written.
        if origin.len() > 300 {
            return Err(bad());
        }
        Ok(Self(origin))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Origin {
    /// `https://host[:port]`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `host:port`, the port always there: where a connection goes, and the key of `[connections] override`.
    #[must_use]
    pub fn host_and_port(&self) -> String {
        let rest = self.0.trim_start_matches("https://");
        let has_port = rest
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
        if has_port {
            rest.to_owned()
        } else {
            format!("{rest}:443")
        }
    }

    /// Whether this absolute URL is https at exactly this origin, without user, password or fragment.
    #[must_use]
    pub fn holds(&self, url: &str) -> bool {
        Url::parse(url).is_ok_and(|u| {
            u.scheme() == "https"
                && u.origin().ascii_serialization() == self.0
                && u.username().is_empty()
                && u.password().is_none()
                && u.fragment().is_none()
        })
    }

    /// The tenant's issuer.
    #[must_use]
    pub fn issuer(&self, tenant: TenantId) -> String {
        format!("{self}/{tenant}/v2.0")
    }

    /// Where the tenant's discovery document is; `tenant` may be a GUID or a domain.
    #[must_use]
    pub fn discovery(&self, tenant: &str) -> String {
        format!("{self}/{tenant}/v2.0/.well-known/openid-configuration")
    }

    /// The tenant's token endpoint.
    #[must_use]
    pub fn token_endpoint(&self, tenant: TenantId) -> String {
        format!("{self}/{tenant}/oauth2/v2.0/token")
    }

    /// The tenant's published keys (JWKS).
    #[must_use]
    pub fn keys(&self, tenant: TenantId) -> String {
        format!("{self}/{tenant}/discovery/v2.0/keys")
    }

    /// The tenant's key set as a signed document.
    #[must_use]
    pub fn signed_keys(&self, tenant: TenantId) -> String {
        format!("{self}/{tenant}/discovery/v2.0/signedkeys")
    }

    /// The tenant's MRS proxy.
    #[must_use]
    pub fn mrs_endpoint(&self, tenant: TenantId) -> String {
        format!("{self}/mrs/{tenant}")
    }

    /// The signed description of an application; `tenant` is its home, or `common`.
    #[must_use]
    pub fn application(&self, tenant: &str, application: ApplicationId) -> String {
        format!("{self}/{tenant}/applications/{application}")
    }

    /// Where an attempt's outcome can be asked.
    #[must_use]
    pub fn outcome_endpoint(&self, tenant: TenantId) -> String {
        format!("{self}/{tenant}/outcome")
    }

    /// Audience of access tokens of the tenant with this origin.
    #[must_use]
    pub fn mrs_audience(&self, tenant: TenantId) -> String {
        format!("{}/mrs", self.issuer(tenant))
    }

    /// Audience of the tenant's administrator tokens.
    #[must_use]
    pub fn admin_audience(&self, tenant: TenantId) -> String {
        format!("{}/adminapi", self.issuer(tenant))
    }
}

/// The origin and tenant of an issuer in our exact form `https://{name}/{tenant GUID}/v2.0`.
#[must_use]
pub fn parse_issuer(issuer: &str) -> Option<(Origin, TenantId)> {
    let url = Url::parse(issuer).ok()?;
    let origin: Origin = url.origin().ascii_serialization().parse().ok()?;
    let tenant: TenantId = url.path_segments()?.next()?.parse().ok()?;
    (origin.issuer(tenant) == issuer).then_some((origin, tenant))
}

/// The tenant's discovery document (OpenID Connect Discovery 1.0 §3, the fields that we have, and ours).
#[must_use]
pub fn discovery_document(origin: &Origin, tenant: TenantId) -> serde_json::Value {
    serde_json::json!({
        "issuer": origin.issuer(tenant),
        "token_endpoint": origin.token_endpoint(tenant),
        "jwks_uri": origin.keys(tenant),
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": ["ES256"],
        "dpop_signing_alg_values_supported": ["ES256"],
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": [],
        "subject_types_supported": ["pairwise"],
        "request_uri_parameter_supported": false,
        "rehome_mrs_endpoint": origin.mrs_endpoint(tenant),
        "rehome_keys_endpoint": origin.signed_keys(tenant),
        "rehome_protocol_versions": PROTOCOL_VERSIONS,
    })
}

/// A partner's authority as found and checked. Only [`check_discovery`] makes one, so that a client
/// assertion can only be made for an address of the server that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartnerAuthority {
    /// The server that was asked.
    pub origin: Origin,
    /// Its issuer for the tenant.
    pub issuer: String,
    /// The tenant's GUID; the caller keeps it, and a later change stops work.
    pub tenant_id: TenantId,
    /// Where tokens are had; the audience of assertions.
    pub token_endpoint: String,
    /// Published keys.
    pub jwks_uri: String,
    /// The MRS proxy.
    pub mrs_endpoint: String,
    /// The highest version that both sides speak.
    pub protocol_version: u32,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    token_endpoint: String,
    jwks_uri: String,
    rehome_mrs_endpoint: String,
    rehome_protocol_versions: Vec<u32>,
}

/// Checks a partner's discovery document: every address has exactly the origin that was asked and names the
/// issuer's tenant, and a protocol version is common.
///
/// # Errors
/// [`DiscoveryError`], naming the field.
pub fn check_discovery(expected: &Origin, document: &[u8]) -> Result<PartnerAuthority, DiscoveryError> {
    if document.len() > MAX_DISCOVERY {
        return Err(DiscoveryError::TooLong);
    }
    let document: Document =
        serde_json::from_slice(document).map_err(|e| DiscoveryError::Malformed { why: e.to_string() })?;
    let shown = |text: &str| text.chars().filter(|c| !c.is_control()).take(200).collect::<String>();
    let tenant = match parse_issuer(&document.issuer) {
        Some((origin, tenant)) if origin == *expected => tenant,
        Some((origin, _)) => {
            return Err(DiscoveryError::WrongOrigin {
                field: "issuer",
                expected: expected.to_string(),
                found: origin.to_string(),
            });
        }
        None => {
            return Err(DiscoveryError::BadIssuer {
                found: shown(&document.issuer),
            });
        }
    };
    let fields = [
        ("token_endpoint", &document.token_endpoint),
        ("jwks_uri", &document.jwks_uri),
        ("rehome_mrs_endpoint", &document.rehome_mrs_endpoint),
    ];
    for (field, value) in fields {
        if !expected.holds(value) {
            return Err(DiscoveryError::WrongOrigin {
                field,
                expected: expected.to_string(),
                found: shown(value),
            });
        }
        let names_tenant = Url::parse(value).is_ok_and(|u| {
            u.path_segments()
                .is_some_and(|mut s| s.any(|p| p.parse::<TenantId>() == Ok(tenant)))
        });
        if !names_tenant {
            return Err(DiscoveryError::OtherTenant {
                field,
                found: shown(value),
            });
        }
    }
    let protocol_version = document
        .rehome_protocol_versions
        .iter()
        .copied()
        .filter(|v| PROTOCOL_VERSIONS.contains(v))
        .max()
        .ok_or_else(|| DiscoveryError::UnknownProtocolVersion {
            offered: document.rehome_protocol_versions.iter().copied().take(20).collect(),
        })?;
    Ok(PartnerAuthority {
        origin: expected.clone(),
        issuer: document.issuer,
        tenant_id: tenant,
        token_endpoint: document.token_endpoint,
        jwks_uri: document.jwks_uri,
        mrs_endpoint: document.rehome_mrs_endpoint,
        protocol_version,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: TenantId = TenantId::from_u128(0xc0);

    fn origin(text: &str) -> Origin {
        text.parse().unwrap()
    }

    #[test]
    fn origins() {
        let table = [
            ("mail.contoso.example", Some("https://mail.contoso.example")),
            ("MAIL.contoso.example:443", Some("https://mail.contoso.example")),
            ("https://mail.contoso.example/", Some("https://mail.contoso.example")),
            ("mail.contoso.example:8443", Some("https://mail.contoso.example:8443")),
            ("[::1]:8443", Some("https://[::1]:8443")),
            ("http://mail.contoso.example", None),
            ("mail.contoso.example/path", None),
            ("user@mail.contoso.example", None),
            ("mail.contoso.example?x", None),
            ("mail contoso", None),
            ("mail.contoso.example:99999", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(
                text.parse::<Origin>().ok().as_ref().map(Origin::as_str),
                expected,
                "{text}"
            );
        }
        assert_eq!(
            origin("mail.contoso.example").host_and_port(),
            "mail.contoso.example:443"
        );
        assert_eq!(origin("[::1]").host_and_port(), "[::1]:443");
        assert_eq!(origin("a:8443").host_and_port(), "a:8443");
    }

    #[test]
    fn our_own_document_is_accepted() {
        let here = origin("mail.contoso.example:8443");
        let document = discovery_document(&here, TENANT);
        let found = check_discovery(&here, document.to_string().as_bytes()).unwrap();
        assert_eq!((found.tenant_id, found.protocol_version), (TENANT, 1));
        assert_eq!(found.token_endpoint, here.token_endpoint(TENANT));
        assert_eq!(parse_issuer(&found.issuer), Some((here, TENANT)));
    }

    /// A hostile source may publish anything; what is accepted stays at the server that was asked.
    #[test]
    fn hostile_documents() {
        let here = origin("mail.contoso.example");
        let elsewhere = origin("mail.fabrikam.example");
        let good = discovery_document(&here, TENANT);
        let other = TenantId::from_u128(0xbad);
        let table: Vec<(&str, serde_json::Value, &str)> = vec![
            ("issuer", elsewhere.issuer(TENANT).into(), "issuer"),
            ("issuer", format!("{here}/contoso.example/v2.0").into(), "issuer"),
            ("issuer", format!("{here}/{TENANT}/v2.0/").into(), "issuer"),
            (
                "token_endpoint",
                elsewhere.token_endpoint(TENANT).into(),
                "token_endpoint",
            ),
            ("token_endpoint", here.token_endpoint(other).into(), "token_endpoint"),
            (
                "token_endpoint",
                format!("http://mail.contoso.example/{TENANT}/oauth2/v2.0/token").into(),
                "token_endpoint",
            ),
            (
                "token_endpoint",
                format!("https://mail.contoso.example:444/{TENANT}/t").into(),
                "token_endpoint",
            ),
            (
                "token_endpoint",
                format!("https://mail.contoso.example@evil.example/{TENANT}/t").into(),
                "token_endpoint",
            ),
            (
                "token_endpoint",
                format!("https://x@mail.contoso.example/{TENANT}/t").into(),
                "token_endpoint",
            ),
            ("jwks_uri", elsewhere.keys(TENANT).into(), "jwks_uri"),
            (
                "rehome_mrs_endpoint",
                elsewhere.mrs_endpoint(TENANT).into(),
                "rehome_mrs_endpoint",
            ),
            (
                "rehome_mrs_endpoint",
                here.mrs_endpoint(other).into(),
                "rehome_mrs_endpoint",
            ),
            ("rehome_protocol_versions", serde_json::json!([2, 3]), "2"),
            ("rehome_protocol_versions", serde_json::json!([]), "version"),
            ("rehome_protocol_versions", "1".into(), "expected a sequence"),
            ("rehome_mrs_endpoint", serde_json::Value::Null, "null"),
        ];
        for (field, value, names) in table {
            let mut document = good.clone();
            document[field] = value.clone();
            let error = check_discovery(&here, document.to_string().as_bytes()).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(text.contains(names), "{field} = {value}: {text}");
            assert!(!error.advice().is_empty());
        }
        assert_eq!(
            check_discovery(&here, &[b' '; MAX_DISCOVERY + 1]),
            Err(DiscoveryError::TooLong)
        );
    }
}

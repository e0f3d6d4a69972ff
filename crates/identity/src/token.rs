//! The token endpoint: the request's form, the claims of assertions and access tokens, the answers' form.

use crate::{
    authority::Origin,
    clock::{SKEW, after},
    error::TokenError,
    jws::{CryptographyFailed, PublicKey, SigningKey, TokenType, open},
};
use jiff::Timestamp;
use rehome_domain::{
    consent::ServicePrincipal,
    id::{ApplicationId, CorrelationId, TenantId},
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use url::form_urlencoded;
use uuid::Uuid;

/// Longest form accepted, in octets.
pub const MAX_FORM: usize = 32 * 1024;
/// Life of an access token, in seconds.
pub const ACCESS_LIFETIME: i64 = 600;
/// Life of a client assertion, in seconds.
pub const ASSERTION_LIFETIME: i64 = 300;
/// `client_assertion_type` of RFC 7523 §2.2.
pub const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// Scopes that stand for the tenant's own MRS audience.
pub const SCOPE_ALIASES: &[&str] = &[
    "https://outlook.office365.com/.default",
    "https://outlook.office.com/.default",
];

/// How the client proves who it is.
#[derive(Clone, Debug)]
pub enum ClientCredential {
    /// Its secret: its home is in this deployment.
    Secret(SecretString),
    /// An assertion of its home authority (RFC 7523).
    Assertion(SecretString),
}

/// A client credentials request (RFC 6749 §4.4), read and its parts known; nothing proven.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    /// The application.
    pub client_id: ApplicationId,
    /// `scope`, or the v1 form's `resource` with `/.default`.
    pub scope: String,
    /// Its credential.
    pub credential: ClientCredential,
}

impl TokenRequest {
    /// Reads an `application/x-www-form-urlencoded` body.
    ///
    /// # Errors
    /// AADSTS900144 (parameter missing), 70003 (grant type), 7000218 (no credential), 90013 (malformed or twice).
    pub fn parse(body: &[u8]) -> Result<Self, TokenError> {
        const NAMES: [&str; 7] = [
            "grant_type",
            "client_id",
            "scope",
            "resource",
            "client_secret",
            "client_assertion_type",
            "client_assertion",
        ];
        if body.len() > MAX_FORM {
            return Err(TokenError::Malformed {
                why: "the request is too long",
            });
        }
        let mut values: [Option<String>; NAMES.len()] = Default::default();
        for (name, value) in form_urlencoded::parse(body) {
            let Some(at) = NAMES.iter().position(|n| *n == name) else {
                continue;
            };
            if values[at].replace(value.into_owned()).is_some() {
                return Err(TokenError::Malformed {
                    why: "a parameter stands twice",
                });
            }
        }
        let [grant, client_id, scope, resource, secret, kind, assertion] =
            values.map(|v| v.filter(|text| !text.is_empty()));
        let grant = grant.ok_or(TokenError::MissingParameter { name: "grant_type" })?;
        if grant != "client_credentials" {
            return Err(TokenError::UnsupportedGrantType);
        }
        let client_id = client_id
            .ok_or(TokenError::MissingParameter { name: "client_id" })?
            .parse()
            .map_err(|_| TokenError::Malformed {
                why: "client_id is not a GUID",
            })?;
        let scope = match (scope, resource) {
            (Some(scope), _) => scope,
            (None, Some(resource)) => format!("{}/.default", resource.trim_end_matches('/')),
            (None, None) => return Err(TokenError::MissingParameter { name: "scope" }),
        };
        let credential = match (secret, assertion) {
            (Some(_), Some(_)) => {
                return Err(TokenError::Malformed {
                    why: "give client_secret or client_assertion, not both",
                });
            }
            (Some(secret), None) => ClientCredential::Secret(secret.into()),
            (None, Some(assertion)) => {
                let kind = kind.ok_or(TokenError::MissingParameter {
                    name: "client_assertion_type",
                })?;
                if kind != JWT_BEARER {
                    return Err(TokenError::Malformed {
                        why: "client_assertion_type is not jwt-bearer",
                    });
                }
                ClientCredential::Assertion(assertion.into())
            }
            (None, None) => return Err(TokenError::MissingCredential),
        };
        Ok(Self {
            client_id,
            scope,
            credential,
        })
    }
}

/// Checks that the scope is the tenant's own MRS audience or one of its aliases.
pub(crate) fn check_scope(scope: &str, origin: &Origin, tenant: TenantId) -> Result<(), TokenError> {
    let own = format!("{}/.default", origin.mrs_audience(tenant));
    if scope == own || SCOPE_ALIASES.contains(&scope) {
        Ok(())
    } else {
        Err(TokenError::BadScope)
    }
}

/// A granted token.
#[derive(Clone, Debug)]
pub struct TokenAnswer {
    /// The access token, bound to the key of the request's proof.
    pub access_token: SecretString,
    /// Its life in seconds.
    pub expires_in: i64,
}

impl TokenAnswer {
    /// The body of the 200 answer (RFC 6749 §5.1, RFC 9449 §5). It holds the token: to be sent, never logged.
    #[must_use]
    pub fn body(&self) -> serde_json::Value {
        serde_json::json!({
            "token_type": "DPoP",
            "expires_in": self.expires_in,
            "access_token": self.access_token.expose_secret(),
        })
    }
}

/// The body of an error answer, in the form that Microsoft's identity platform uses.
#[must_use]
pub fn error_body(error: &TokenError, correlation_id: CorrelationId, now: Timestamp) -> serde_json::Value {
    let trace_id = Uuid::new_v4();
    let timestamp = now.strftime("%Y-%m-%d %H:%M:%SZ").to_string();
    let code = error.aadsts().map_or_else(String::new, |c| format!("AADSTS{c}: "));
    serde_json::json!({
        "error": error.oauth_error(),
        "error_description":
            format!("{code}{error} Trace ID: {trace_id} Correlation ID: {correlation_id} Timestamp: {timestamp}"),
        "error_codes": error.aadsts().into_iter().collect::<Vec<_>>(),
        "timestamp": timestamp,
        "trace_id": trace_id.to_string(),
        "correlation_id": correlation_id.to_string(),
        "rehome_error_id": error.error_id().as_str(),
    })
}

#[derive(Debug, Serialize, Deserialize)]
struct AssertionClaims {
    iss: String,
    sub: String,
    aud: String,
    jti: String,
    iat: i64,
    exp: i64,
}

/// Signs a client assertion for exactly one token endpoint.
pub(crate) fn sign_assertion(
    key: &SigningKey,
    issuer: &str,
    app_id: ApplicationId,
    audience: &str,
    now: Timestamp,
) -> Result<SecretString, CryptographyFailed> {
    sign_assertion_about(key, issuer, app_id.to_string(), audience, now)
}

/// Signs an assertion of an authority about itself: that of an old source which takes mailboxes back.
pub(crate) fn sign_return_assertion(
    key: &SigningKey,
    issuer: &str,
    audience: &str,
    now: Timestamp,
) -> Result<SecretString, CryptographyFailed> {
    sign_assertion_about(key, issuer, issuer.to_owned(), audience, now)
}

fn sign_assertion_about(
    key: &SigningKey,
    issuer: &str,
    subject: String,
    audience: &str,
    now: Timestamp,
) -> Result<SecretString, CryptographyFailed> {
    let claims = AssertionClaims {
        iss: issuer.to_owned(),
        sub: subject,
        aud: audience.to_owned(),
        jti: Uuid::new_v4().to_string(),
        iat: now.as_second(),
        exp: after(now, ASSERTION_LIFETIME).as_second(),
    };
    key.sign(TokenType::ClientAssertion, &claims).map(SecretString::from)
}

/// An assertion that was checked but for having been used before.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CheckedAssertion {
    pub(crate) jti: String,
    pub(crate) expires: Timestamp,
}

/// Checks an assertion against the keys pinned for a service principal.
pub(crate) fn check_assertion(
    assertion: &str,
    keys: &[PublicKey],
    principal: &ServicePrincipal,
    token_endpoint: &str,
    now: Timestamp,
) -> Result<CheckedAssertion, TokenError> {
    use crate::jws::JwsError;
    let claims: AssertionClaims = open(assertion, TokenType::ClientAssertion, keys).map_err(|e| match e {
        JwsError::UnknownKey { kid } => TokenError::KeyNotPinned {
            issuer: principal.issuer.clone(),
            kid,
        },
        other => TokenError::AssertionInvalid { why: other.to_string() },
    })?;
    let bad = |why: &str| TokenError::AssertionInvalid { why: why.to_owned() };
    if claims.iss != principal.issuer {
        return Err(bad("its issuer is not the one consented to"));
    }
    // An old source speaks for itself, an application's authority for the application; never one in place of the other.
    let about_it = if principal.is_return_client() {
        claims.sub == principal.issuer
    } else {
        claims.sub.parse() == Ok(principal.app_id)
    };
    if !about_it {
        return Err(bad("it is about another application"));
    }
    if claims.aud != token_endpoint {
        return Err(bad("it was made for another token endpoint"));
    }
    let now = now.as_second();
    if claims.iat > now + SKEW || now >= claims.exp || claims.exp > claims.iat.saturating_add(ASSERTION_LIFETIME) {
        return Err(bad("it is not valid at this time; compare both servers' clocks"));
    }
    if claims.jti.is_empty() || claims.jti.len() > 200 {
        return Err(bad("its id is missing or too long"));
    }
    let expires = Timestamp::from_second(claims.exp).map_err(|_| bad("its end is not a time"))?;
    Ok(CheckedAssertion {
        jti: claims.jti,
        expires,
    })
}

/// The claims of an access token; each is required.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AccessClaims {
    pub(crate) iss: String,
    pub(crate) aud: String,
    pub(crate) exp: i64,
    pub(crate) iat: i64,
    pub(crate) jti: String,
    pub(crate) tid: String,
    pub(crate) oid: String,
    pub(crate) sub: String,
    pub(crate) azp: String,
    pub(crate) home_iss: String,
    pub(crate) home_tid: String,
    pub(crate) roles: Vec<String>,
    pub(crate) idtyp: String,
    pub(crate) cnf: Confirmation,
}

/// The key that a token is bound to (RFC 7800, RFC 9449 §6.1).
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Confirmation {
    pub(crate) jkt: String,
}

/// Signs an access token for a service principal, bound to a key.
pub(crate) fn sign_access(
    key: &SigningKey,
    origin: &Origin,
    principal: &ServicePrincipal,
    jkt: &str,
    now: Timestamp,
) -> Result<TokenAnswer, CryptographyFailed> {
    let claims = AccessClaims {
        iss: origin.issuer(principal.tenant),
        aud: origin.mrs_audience(principal.tenant),
        exp: after(now, ACCESS_LIFETIME).as_second(),
        iat: now.as_second(),
        jti: Uuid::new_v4().to_string(),
        tid: principal.tenant.to_string(),
        oid: principal.id.to_string(),
        sub: principal.id.to_string(),
        azp: principal.app_id.to_string(),
        home_iss: principal.issuer.clone(),
        home_tid: principal.home_tenant.to_string(),
        roles: principal.roles.clone(),
        idtyp: "app".to_owned(),
        cnf: Confirmation { jkt: jkt.to_owned() },
    };
    let access_token = key.sign(TokenType::Access, &claims)?.into();
    Ok(TokenAnswer {
        access_token,
        expires_in: ACCESS_LIFETIME,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms() {
        let id = "grant_type=client_credentials&client_id=00000000-0000-0000-0000-0000000000a1";
        let table: Vec<(String, Option<u32>)> = vec![
            (format!("{id}&scope=s&client_secret=x"), None),
            (
                format!("{id}&resource=https://outlook.office365.com&client_secret=x&unknown=1"),
                None,
            ),
            (
                format!("{id}&scope=s&client_assertion=x&client_assertion_type={JWT_BEARER}"),
                None,
            ),
            (String::new(), Some(900144)),
            (
                "grant_type=client_credentials&scope=s&client_secret=x".into(),
                Some(900144),
            ),
            ("grant_type=password&client_id=x".into(), Some(70003)),
            ("grant_type=client_credentials&client_id=mover".into(), Some(90013)),
            (format!("{id}&client_secret=x"), Some(900144)),
            (format!("{id}&scope=s"), Some(7000218)),
            (format!("{id}&scope=s&client_secret="), Some(7000218)),
            (format!("{id}&scope=s&client_assertion=x"), Some(900144)),
            (
                format!("{id}&scope=s&client_assertion=x&client_assertion_type=saml"),
                Some(90013),
            ),
            (
                format!("{id}&scope=s&client_secret=x&client_assertion=x&client_assertion_type={JWT_BEARER}"),
                Some(90013),
            ),
            (format!("{id}&scope=s&scope=s&client_secret=x"), Some(90013)),
            (format!("{id}&scope={}", "s".repeat(MAX_FORM)), Some(90013)),
        ];
        for (form, code) in table {
            let got = TokenRequest::parse(form.as_bytes()).err().and_then(|e| e.aadsts());
            assert_eq!(got, code, "{form:.120}");
        }
        let request = TokenRequest::parse(
            format!("{id}&resource=https://outlook.office365.com/&client_secret=s3cret").as_bytes(),
        )
        .unwrap();
        assert_eq!(request.scope, "https://outlook.office365.com/.default");
        assert!(!format!("{request:?}").contains("s3cret"));
    }

    #[test]
    fn the_error_body_has_the_documented_shape() {
        let error = TokenError::WrongSecret {
            app_id: ApplicationId::from_u128(1),
        };
        let body = error_body(&error, CorrelationId::from_u128(2), Timestamp::UNIX_EPOCH);
        assert_eq!(body["error"], "invalid_client");
        assert_eq!(body["error_codes"], serde_json::json!([7_000_215]));
        assert_eq!(body["timestamp"], "1970-01-01 00:00:00Z");
        let description = body["error_description"].as_str().unwrap();
        assert!(description.starts_with("AADSTS7000215: "), "{description}");
        for part in [
            "Trace ID: ",
            "Correlation ID: 00000000-0000-0000-0000-000000000002",
            "Timestamp: 1970-01-01 00:00:00Z",
        ] {
            assert!(description.contains(part), "{description}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = TokenRequest::parse(&body);
        }
    }
}

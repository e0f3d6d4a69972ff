//! The client's side of a partner's token endpoint: the form to send and the answer's meaning.

use crate::token::{ASSERTION_LIFETIME, JWT_BEARER, SCOPE_ALIASES};
use jiff::Timestamp;
use rehome_domain::{error_id::ErrorId, id::ApplicationId};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::form_urlencoded;

/// Longest answer read, in octets.
pub const MAX_ANSWER: usize = 64 * 1024;

/// The form that carries an assertion to a partner's token endpoint. Not to be logged.
#[must_use]
pub fn assertion_form(app_id: ApplicationId, assertion: &SecretString) -> SecretString {
    form(
        app_id,
        &[
            ("client_assertion_type", JWT_BEARER),
            ("client_assertion", assertion.expose_secret()),
        ],
    )
}

/// The form that carries the secret itself; only ever for a tenant of our *own* deployment.
#[must_use]
pub fn secret_form(app_id: ApplicationId, secret: &SecretString) -> SecretString {
    form(app_id, &[("client_secret", secret.expose_secret())])
}

fn form(app_id: ApplicationId, credential: &[(&str, &str)]) -> SecretString {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    form.append_pair("client_id", &app_id.to_string());
    form.append_pair("scope", SCOPE_ALIASES[0]);
    form.extend_pairs(credential);
    form.finish().into()
}

/// An access token of a partner.
#[derive(Clone, Debug)]
pub struct PartnerToken {
    /// Sent as `Authorization: DPoP …`.
    pub token: SecretString,
    /// When to have a new one: a minute before it ends by our own clock.
    pub renew_at: Timestamp,
}

/// What a partner's token endpoint answered instead of a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartnerTokenError {
    /// A refusal in the documented form.
    #[error("the partner's token endpoint refused: {description}")]
    Refused {
        /// `error` (RFC 6749 §5.2); decide by this.
        error: String,
        /// `AADSTSnnnnn`, if it gave a number.
        code: Option<u32>,
        /// `rehome_error_id`, if it is one of ours.
        error_id: Option<ErrorId>,
        /// Its words, at most 600 characters, control characters removed.
        description: String,
        /// Stands in the partner's log.
        correlation_id: Option<String>,
    },
    /// Something else than a token or a refusal.
    #[error("the partner's token endpoint answered {status} with something that is no token answer")]
    NotAnAnswer {
        /// The HTTP status.
        status: u16,
    },
}

impl PartnerTokenError {
    /// The id under which it is reported.
    #[must_use]
    pub fn error_id(&self) -> ErrorId {
        match self {
            Self::Refused { error_id: Some(id), .. } => *id,
            Self::Refused { code, .. } => match code {
                Some(700_016 | 65_001 | 650_052) => ErrorId::ApplicationNotConsented,
                Some(7_000_215) => ErrorId::InvalidClientSecret,
                Some(7_000_222) => ErrorId::ExpiredClientSecret,
                Some(90_002) => ErrorId::InvalidTenant,
                _ => ErrorId::MigrationServerConnectionFailed,
            },
            Self::NotAnAnswer { .. } => ErrorId::MigrationServerConnectionFailed,
        }
    }

    /// The next step.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self.error_id() {
            ErrorId::ApplicationNotConsented => "The source's administrator opens the consent link (again).",
            ErrorId::InvalidClientSecret => "Give the secret's value with Set-MigrationEndpoint -Credentials.",
            ErrorId::ExpiredClientSecret => {
                "Make a new secret with Add-MgApplicationPassword and give it with Set-MigrationEndpoint -Credentials."
            }
            ErrorId::KeyNotPinned => "Ask the source's administrator to renew consent.",
            ErrorId::InvalidTenant => "Give the source tenant's GUID or one of its accepted domains in -RemoteTenant.",
            _ => "Check -RemoteServer, and ask the source's administrator to look for the correlation id in its log.",
        }
    }

    /// Whether trying again later may help without anyone doing something.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused { error, .. } => error == "temporarily_unavailable",
            Self::NotAnAnswer { status } => *status >= 500,
        }
    }
}

#[derive(Deserialize)]
struct Granted {
    token_type: String,
    expires_in: i64,
    access_token: String,
}

#[derive(Deserialize)]
struct Refused {
    error: String,
    #[serde(default)]
    error_description: String,
    #[serde(default)]
    error_codes: Vec<u32>,
    #[serde(default)]
    correlation_id: Option<String>,
    #[serde(default)]
    rehome_error_id: Option<String>,
}

fn plain(text: &str, limit: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(limit).collect()
}

/// Reads a token endpoint's answer. A token that is not bound to our key is not taken.
///
/// # Errors
/// [`PartnerTokenError`].
pub fn read_token_answer(status: u16, body: &[u8], now: Timestamp) -> Result<PartnerToken, PartnerTokenError> {
    let not_an_answer = PartnerTokenError::NotAnAnswer { status };
    if body.len() > MAX_ANSWER {
        return Err(not_an_answer);
    }
    if status == 200 {
        let granted: Granted = serde_json::from_slice(body).map_err(|_| not_an_answer.clone())?;
        let token = SecretString::from(granted.access_token);
        if !granted.token_type.eq_ignore_ascii_case("DPoP") || token.expose_secret().is_empty() {
            return Err(not_an_answer);
        }
        // At most an hour is believed, at least a short while, so that a strange answer causes no storm of requests.
        let life = granted.expires_in.clamp(ASSERTION_LIFETIME / 2, 3600);
        return Ok(PartnerToken {
            token,
            renew_at: crate::clock::after(now, life - 60),
        });
    }
    let refused: Refused = serde_json::from_slice(body).map_err(|_| not_an_answer)?;
    Err(PartnerTokenError::Refused {
        error: plain(&refused.error, 64),
        code: refused.error_codes.first().copied(),
        error_id: refused.rehome_error_id.and_then(|id| id.parse().ok()),
        description: plain(&refused.error_description, 600),
        correlation_id: refused.correlation_id.map(|id| plain(&id, 64)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::TokenError,
        keyset::tests::at,
        token::{TokenAnswer, TokenRequest, error_body},
    };
    use rehome_domain::id::CorrelationId;

    #[test]
    fn both_ends_agree() {
        let app = ApplicationId::from_u128(0xa1);
        let form = assertion_form(app, &"a.b.c".into());
        let request = TokenRequest::parse(form.expose_secret().as_bytes()).unwrap();
        assert_eq!(request.client_id, app);
        assert!(!format!("{form:?}").contains("a.b.c"));
        assert!(TokenRequest::parse(secret_form(app, &"s".into()).expose_secret().as_bytes()).is_ok());

        let answer = TokenAnswer {
            access_token: "t".into(),
            expires_in: 600,
        };
        let token = read_token_answer(200, answer.body().to_string().as_bytes(), at(0)).unwrap();
        assert_eq!(token.renew_at, at(540));

        let error = TokenError::NotFoundInTenant { app_id: app };
        let body = error_body(&error, CorrelationId::from_u128(7), at(0)).to_string();
        let found = read_token_answer(400, body.as_bytes(), at(0)).unwrap_err();
        assert_eq!(found.error_id(), ErrorId::ApplicationNotConsented);
        let PartnerTokenError::Refused {
            correlation_id, code, ..
        } = found
        else {
            panic!()
        };
        assert_eq!(
            (correlation_id, code),
            (Some(CorrelationId::from_u128(7).to_string()), Some(700_016))
        );
    }

    #[test]
    fn strange_answers() {
        for (status, body) in [
            (200, "{}"),
            (200, r#"{"token_type":"Bearer","expires_in":600,"access_token":"t"}"#),
            (200, r#"{"token_type":"DPoP","expires_in":600,"access_token":""}"#),
            (302, ""),
            (502, "<html>"),
        ] {
            let error = read_token_answer(status, body.as_bytes(), at(0)).unwrap_err();
            assert_eq!(error, PartnerTokenError::NotAnAnswer { status });
            assert_eq!(error.is_transient(), status >= 500);
        }
        let wild = r#"{"token_type":"dpop","expires_in":-5,"access_token":"t"}"#;
        assert!(read_token_answer(200, wild.as_bytes(), at(0)).unwrap().renew_at > at(0));
    }
}

//! Access tokens for a client of another authority: OAuth 2.0 client credentials (RFC 6749 §4.4).

use super::exchange::{Bounds, Call, TransportError, once_without_redirect};
use super::fetch::Fetcher;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::time::Duration;
use url::{Url, form_urlencoded};

/// From sending the request to the last octet of the answer.
const TIME: Duration = Duration::from_secs(15);
/// Longest answer, octets.
const MAX_ANSWER: usize = 64 * 1024;
/// For how long a token is taken to be good whose time is not told.
const UNTOLD: Duration = Duration::from_secs(300);
/// A time beyond this is not believed.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// A client of an authority.
#[derive(Clone, Debug)]
pub struct OAuthClient {
    /// Where tokens come from.
    pub token_url: Url,
    /// The client's id.
    pub client_id: String,
    /// Its secret.
    pub client_secret: SecretString,
    /// What is asked for.
    pub scope: Option<String>,
}

/// A token and its time.
#[derive(Clone, Debug)]
pub struct ClientToken {
    /// The token.
    pub token: SecretString,
    /// For how long it is good, from when it was asked for.
    pub expires_in: Duration,
}

/// Why there is no token. The texts hold no secret.
#[derive(Debug, thiserror::Error)]
pub enum ClientTokenError {
    /// The authority could not be asked.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// It refused.
    #[error("{server} refuses: {error}: {description}")]
    Refused {
        /// The authority.
        server: String,
        /// The OAuth error.
        error: String,
        /// What it says of it, shortened.
        description: String,
    },
    /// It answered with something else.
    #[error("{server} answers with status {status}, which is no answer of a token endpoint")]
    Unexpected {
        /// The authority.
        server: String,
        /// The status.
        status: u16,
    },
}

impl ClientTokenError {
    /// Whether asking again later may help without anyone changing anything.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Transport(_) => true,
            Self::Refused { error, .. } => matches!(error.as_str(), "temporarily_unavailable" | "server_error"),
            Self::Unexpected { status, .. } => *status == 429 || *status >= 500,
        }
    }
}

/// Without Debug: it holds the token.
#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: Option<Seconds>,
}

/// Some authorities send the number as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(u64),
    Text(String),
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
    #[serde(default)]
    error_description: String,
}

impl OAuthClient {
    /// The request's body.
    fn form(&self) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials")
            .append_pair("client_id", &self.client_id)
            .append_pair("client_secret", self.client_secret.expose_secret());
        if let Some(scope) = &self.scope {
            form.append_pair("scope", scope);
        }
        form.finish()
    }
}

impl Fetcher {
    /// Asks for a new access token.
    ///
    /// # Errors
    /// [`ClientTokenError`].
    pub async fn client_token(&self, client: &OAuthClient) -> Result<ClientToken, ClientTokenError> {
        let call = Call::post(
            client.token_url.clone(),
            "application/x-www-form-urlencoded",
            client.form(),
        );
        let bounds = Bounds {
            time: TIME,
            octets: MAX_ANSWER,
        };
        let answer = once_without_redirect(self.connector(), &call, bounds).await?;
        let server = client.token_url.origin().ascii_serialization();
        read(&server, answer.status.as_u16(), &answer.body)
    }
}

fn read(server: &str, status: u16, body: &[u8]) -> Result<ClientToken, ClientTokenError> {
    let unexpected = || ClientTokenError::Unexpected {
        server: server.to_owned(),
        status,
    };
    if status == 200 {
        let granted: Granted = serde_json::from_slice(body).map_err(|_| unexpected())?;
        let expires_in = match granted.expires_in {
            Some(Seconds::Number(seconds)) => Duration::from_secs(seconds),
            Some(Seconds::Text(text)) => Duration::from_secs(text.trim().parse().map_err(|_| unexpected())?),
            None => UNTOLD,
        };
        if granted.access_token.is_empty() {
            return Err(unexpected());
        }
        return Ok(ClientToken {
            token: granted.access_token.into(),
            expires_in: expires_in.min(LONGEST),
        });
    }
    let refusal: Refusal = serde_json::from_slice(body).map_err(|_| unexpected())?;
    let harmless = |text: &str| {
        text.chars()
            .take(300)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect::<String>()
    };
    Err(ClientTokenError::Refused {
        server: server.to_owned(),
        error: harmless(&refusal.error),
        description: harmless(&refusal.error_description),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_token_endpoints() {
        let read = |status, body: &str| read("https://login.example", status, body.as_bytes());
        for (body, seconds) in [
            (r#"{"access_token":"t","expires_in":3599,"token_type":"Bearer"}"#, 3599),
            (r#"{"access_token":"t","expires_in":"3599"}"#, 3599),
            (r#"{"access_token":"t"}"#, 300),
            (r#"{"access_token":"t","expires_in":99999999999}"#, 24 * 3600),
        ] {
            let token = read(200, body).unwrap();
            assert_eq!(token.token.expose_secret(), "t");
            assert_eq!(token.expires_in.as_secs(), seconds, "{body}");
        }
        for body in [
            "",
            "[]",
            "{}",
            r#"{"access_token":""}"#,
            r#"{"access_token":"t","expires_in":"soon"}"#,
        ] {
            let error = read(200, body).unwrap_err();
            assert!(matches!(error, ClientTokenError::Unexpected { .. }), "{body}");
            assert!(!error.is_passing());
        }
        let refused = read(
            401,
            r#"{"error":"invalid_client","error_description":"AADSTS7000215:\r\nInvalid"}"#,
        )
        .unwrap_err();
        assert!(!refused.is_passing());
        assert_eq!(
            refused.to_string(),
            "https://login.example refuses: invalid_client: AADSTS7000215:  Invalid"
        );
        assert!(
            read(400, r#"{"error":"temporarily_unavailable"}"#)
                .unwrap_err()
                .is_passing()
        );
        assert!(read(503, "busy").unwrap_err().is_passing());
        assert!(!read(404, "<html>").unwrap_err().is_passing());
    }
}

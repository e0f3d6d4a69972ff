//! The administrator's side: sign-in, cmdlets, consent; for the command line and tests.

use super::connector::HttpsConnector;
use super::exchange::{Answer, Bounds, Call, TransportError, once, once_without_redirect};
use super::origin::{Origin, OriginError};
use http::{HeaderValue, StatusCode, header};
use rehome_command::Declaration;
use rehome_domain::id::CorrelationId;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use std::time::Duration;
use url::{Url, form_urlencoded};

/// Time for a cmdlet: an endpoint's verification and a mailbox import take their time.
const TIME: Duration = Duration::from_secs(300);
/// Longest answer, octets.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// Longest page or JSON of consent, octets.
const MAX_PAGE: usize = 1024 * 1024;

/// One tenant's administration on one server.
#[derive(Clone)]
pub struct AdminClient {
    connector: HttpsConnector,
    server: Origin,
    tenant: String,
}

/// A signed-in administrator.
#[derive(Clone, Debug)]
pub struct Session {
    /// Sent as `Authorization: Bearer …`.
    pub access_token: SecretString,
    /// Its life in seconds.
    pub expires_in: i64,
    /// The tenant's GUID.
    pub tenant_id: String,
    /// The account's name.
    pub name: String,
}

/// What a cmdlet returned.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Invoked {
    /// The objects.
    pub value: Vec<Json>,
    /// Warnings, in order.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// What the server says went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Default, Deserialize, thiserror::Error)]
#[error("{id}: {message}")]
pub struct AdminRefusal {
    /// The error id, or an AADSTS code.
    #[serde(default)]
    pub id: String,
    /// PowerShell's error category.
    #[serde(default)]
    pub category: String,
    /// The object concerned.
    #[serde(default)]
    pub target: Option<String>,
    /// What happened.
    #[serde(default)]
    pub message: String,
    /// What to do; may be empty.
    #[serde(default)]
    pub advice: String,
    /// Stands in the server's log.
    #[serde(default)]
    pub correlation_id: String,
}

/// Why an administrator's request brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The server could not be asked.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The server refused or failed.
    #[error(transparent)]
    Refused(#[from] AdminRefusal),
    /// The session has ended or was never valid; sign in again.
    #[error("not signed in, or the session has ended: {0}")]
    NotSignedIn(AdminRefusal),
    /// The answer is not one of ours.
    #[error("{server} answered with status {status} and something that is no answer of Rehome")]
    NotAnAnswer {
        /// The server.
        server: String,
        /// The status.
        status: u16,
    },
    /// A consent link leads to another server or tenant than the session's.
    #[error("the link is for {link}, the session for {session}")]
    OtherPlace {
        /// Where the link leads.
        link: String,
        /// Where the session is.
        session: String,
    },
}

/// What consent is about, as the source's server shows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ConsentQuestion {
    /// Answers exactly this question, once.
    pub csrf: String,
    /// What is not as at a first consent to a partner's application; empty there.
    #[serde(default)]
    pub notice: String,
    /// The application's name as its owner gave it; from outside: quote it.
    pub display_name: String,
    /// The application.
    pub app_id: String,
    /// GUID of the tenant that owns it.
    pub home_tenant: String,
    /// That tenant's domains, in ASCII.
    pub home_domains: Vec<String>,
    /// Its issuer.
    pub issuer: String,
    /// What is asked for.
    pub permissions: Vec<ConsentPermission>,
    /// The return right in plain words.
    pub return_right: String,
    /// When consent ends unless renewed.
    pub ends: String,
    /// The tenant that consents.
    pub tenant: String,
    /// Who is signed in.
    pub account: String,
    /// Where the answer leads.
    pub redirect_uri: String,
}

/// One permission asked for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ConsentPermission {
    /// Its name.
    pub name: String,
    /// What it lets the application do.
    pub meaning: String,
}

/// The answer to a consent question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsentAnswer {
    /// Consent is given.
    Accept,
    /// It is not.
    Cancel,
}

#[derive(Deserialize)]
struct SignedIn {
    access_token: String,
    expires_in: i64,
    tenant_id: String,
    name: String,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: ErrorShape,
}

/// Our errors name `id`, consent's pages `code`.
#[derive(Deserialize)]
struct ErrorShape {
    #[serde(flatten)]
    refusal: AdminRefusal,
    #[serde(default)]
    code: String,
}

impl AdminClient {
    /// Administration of `tenant` (GUID or domain) at `server`: `host[:port]`, or `http://127.0.0.1:port` for the
    /// listener without a certificate.
    ///
    /// # Errors
    /// When `server` is not such a text.
    pub fn new(connector: HttpsConnector, server: &str, tenant: &str) -> Result<Self, OriginError> {
        Ok(Self {
            connector,
            server: Origin::parse(server)?,
            tenant: tenant.to_owned(),
        })
    }

    fn url(&self, path: &str) -> Result<Url, TransportError> {
        let text = format!("{}{path}", self.server);
        Url::parse(&text).map_err(|_| OriginError::NotUrl(text).into())
    }

    fn authorize(call: &mut Call, token: &SecretString) -> Result<(), TransportError> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))
            .map_err(|error| TransportError::Request(error.into()))?;
        value.set_sensitive(true);
        call.headers.insert(header::AUTHORIZATION, value);
        Ok(())
    }

    async fn ask(&self, call: &Call) -> Result<Answer, AdminError> {
        let answer = once_without_redirect(
            &self.connector,
            call,
            Bounds {
                time: TIME,
                octets: MAX_ANSWER,
            },
        )
        .await?;
        if answer.status.is_success() {
            Ok(answer)
        } else {
            Err(self.refused(&answer))
        }
    }

    fn refused(&self, answer: &Answer) -> AdminError {
        let Ok(ErrorAnswer { error }) = serde_json::from_slice(&answer.body) else {
            return self.not_an_answer(answer);
        };
        let mut refusal = error.refusal;
        if refusal.id.is_empty() {
            refusal.id = error.code;
        }
        if answer.status == StatusCode::UNAUTHORIZED {
            AdminError::NotSignedIn(refusal)
        } else {
            AdminError::Refused(refusal)
        }
    }

    fn not_an_answer(&self, answer: &Answer) -> AdminError {
        AdminError::NotAnAnswer {
            server: self.connector.describe(&self.server),
            status: answer.status.as_u16(),
        }
    }

    /// Signs in; at the first sign-in the password is the one-time code and a new password is needed.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn sign_in(
        &self,
        name: &str,
        password: &SecretString,
        new_password: Option<&SecretString>,
    ) -> Result<Session, AdminError> {
        let mut body = json!({ "UserName": name, "Password": password.expose_secret() });
        if let Some(new) = new_password {
            body["NewPassword"] = new.expose_secret().into();
        }
        let call = Call::post(
            self.url(&format!("/{}/signin", self.tenant))?,
            "application/json",
            body.to_string(),
        );
        let answer = self.ask(&call).await?;
        let signed_in: SignedIn = serde_json::from_slice(&answer.body).map_err(|_| self.not_an_answer(&answer))?;
        Ok(Session {
            access_token: signed_in.access_token.into(),
            expires_in: signed_in.expires_in,
            tenant_id: signed_in.tenant_id,
            name: signed_in.name,
        })
    }

    /// Runs a cmdlet with its parameters as JSON.
    ///
    /// # Errors
    /// [`AdminError`]; the correlation id stands in the server's log.
    pub async fn invoke(&self, session: &SecretString, cmdlet: &str, parameters: Json) -> Result<Invoked, AdminError> {
        let body = json!({ "CmdletInput": { "CmdletName": cmdlet, "Parameters": parameters } });
        let url = self.url(&format!("/adminapi/beta/{}/InvokeCommand", self.tenant))?;
        let mut call = Call::post(url, "application/json", body.to_string());
        call.correlate(CorrelationId(uuid::Uuid::new_v4()));
        Self::authorize(&mut call, session)?;
        let answer = self.ask(&call).await?;
        serde_json::from_slice(&answer.body).map_err(|_| self.not_an_answer(&answer))
    }

    /// The declarations of the cmdlets that the caller may use.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn commands(&self, session: &SecretString) -> Result<Vec<Declaration>, AdminError> {
        #[derive(Deserialize)]
        struct Commands {
            value: Vec<Declaration>,
        }
        let mut call = Call::get(self.url(&format!("/adminapi/beta/{}/Commands", self.tenant))?);
        Self::authorize(&mut call, session)?;
        let answer = self.ask(&call).await?;
        serde_json::from_slice::<Commands>(&answer.body)
            .map(|commands| commands.value)
            .map_err(|_| self.not_an_answer(&answer))
    }

    /// What `/healthz` says.
    ///
    /// # Errors
    /// [`AdminError`], also while the server is not ready.
    pub async fn health(&self) -> Result<Json, AdminError> {
        let answer = self.ask(&Call::get(self.url("/healthz")?)).await?;
        serde_json::from_slice(&answer.body).map_err(|_| self.not_an_answer(&answer))
    }

    /// Checks that a link belongs to this server and is a consent page.
    #[allow(
        clippy::result_large_err,
        reason = "asked once for a command; callers take the refusal apart"
    )]
    fn consent_url(&self, link: &Url) -> Result<(), AdminError> {
        let origin = Origin::of(link).map_err(TransportError::from)?;
        if origin == self.server && link.path().ends_with("/adminconsent") {
            return Ok(());
        }
        Err(AdminError::OtherPlace {
            link: format!("{origin}{}", link.path()),
            session: self.server.to_string(),
        })
    }

    fn with_session(mut call: Call, session: &SecretString) -> Result<Call, TransportError> {
        let cookie = format!("{}={}", rehome_identity::SESSION_COOKIE, session.expose_secret());
        let mut cookie = HeaderValue::from_str(&cookie).map_err(|error| TransportError::Request(error.into()))?;
        cookie.set_sensitive(true);
        call.headers.insert(header::COOKIE, cookie);
        call.headers
            .insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        Ok(call)
    }

    /// Opens a consent link as its administrator and returns what it asks.
    ///
    /// # Errors
    /// [`AdminError`]; refusals carry the AADSTS code as id.
    pub async fn consent_question(&self, session: &SecretString, link: &Url) -> Result<ConsentQuestion, AdminError> {
        self.consent_url(link)?;
        let call = Self::with_session(Call::get(link.clone()), session)?;
        let answer = once_without_redirect(
            &self.connector,
            &call,
            Bounds {
                time: TIME,
                octets: MAX_PAGE,
            },
        )
        .await?;
        if !answer.status.is_success() {
            return Err(self.refused(&answer));
        }
        serde_json::from_slice(&answer.body).map_err(|_| self.not_an_answer(&answer))
    }

    /// Answers a consent question and returns where a browser would be led; nothing is fetched from there.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn consent_answer(
        &self,
        session: &SecretString,
        link: &Url,
        csrf: &str,
        answer: ConsentAnswer,
    ) -> Result<String, AdminError> {
        self.consent_url(link)?;
        let action = match answer {
            ConsentAnswer::Accept => "accept",
            ConsentAnswer::Cancel => "cancel",
        };
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("csrf", csrf)
            .append_pair("action", action)
            .finish();
        let call = Self::with_session(
            Call::post(link.clone(), "application/x-www-form-urlencoded", form),
            session,
        )?;
        let answer = once(
            &self.connector,
            &call,
            Bounds {
                time: TIME,
                octets: MAX_PAGE,
            },
        )
        .await?;
        let location = answer
            .headers
            .get(header::LOCATION)
            .and_then(|value| value.to_str().ok());
        match location {
            Some(location) if answer.status == StatusCode::SEE_OTHER => Ok(location.to_owned()),
            _ => Err(self.refused(&answer)),
        }
    }
}

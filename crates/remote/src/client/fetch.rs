//! Reads a partner's identity documents and asks its outcome address: one request each, small answers, no redirects.

use super::connector::HttpsConnector;
use super::exchange::{Answer, Bounds, Call, TransportError, once_without_redirect};
use async_trait::async_trait;
use http::HeaderValue;
use rehome_domain::id::CorrelationId;
use rehome_identity::authority::{MAX_DISCOVERY, Origin as AuthorityOrigin, PartnerAuthority, check_discovery};
use rehome_identity::error::DiscoveryError;
use rehome_migrate::protocol::{OutcomeAnswer, OutcomeRequest};
use rehome_migrate::source::OutcomeAsker;
use serde::Deserialize;
use std::time::Duration;
use url::Url;

/// Time for one document.
const TIME: Duration = Duration::from_secs(15);
/// Longest signed document, octets.
const MAX_SIGNED: usize = rehome_identity::jws::MAX_DOCUMENT;

/// Reads documents of other deployments. Cheap to clone.
#[derive(Clone)]
pub struct Fetcher {
    connector: HttpsConnector,
}

/// Why a tenant's authority was not found.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The server could not be asked.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The server does not know the tenant (AADSTS90002).
    #[error("{server} knows no tenant '{tenant}' (AADSTS90002)")]
    UnknownTenant {
        /// The server.
        server: String,
        /// The tenant as asked for.
        tenant: String,
    },
    /// Its document is not one that we take.
    #[error("{server}: {source}")]
    Document {
        /// The server.
        server: String,
        /// What is wrong.
        #[source]
        source: DiscoveryError,
    },
}

#[derive(Deserialize)]
struct OAuthError {
    error: String,
}

impl Fetcher {
    /// Reads through this connector.
    #[must_use]
    pub fn new(connector: HttpsConnector) -> Self {
        Self { connector }
    }

    /// The connector.
    #[must_use]
    pub fn connector(&self) -> &HttpsConnector {
        &self.connector
    }

    async fn get(&self, url: &str, octets: usize, correlation: CorrelationId) -> Result<Answer, TransportError> {
        let url = Url::parse(url).map_err(|_| super::OriginError::NotUrl(url.to_owned()))?;
        let mut call = Call::get(url);
        call.correlate(correlation);
        once_without_redirect(&self.connector, &call, Bounds { time: TIME, octets }).await
    }

    /// Finds a tenant (GUID or domain) on a server: reads and checks its discovery document.
    ///
    /// # Errors
    /// [`FindError`].
    pub async fn find_authority(
        &self,
        server: &AuthorityOrigin,
        tenant: &str,
        correlation: CorrelationId,
    ) -> Result<PartnerAuthority, FindError> {
        let escaped =
            percent_encoding::utf8_percent_encode(tenant.trim(), percent_encoding::NON_ALPHANUMERIC).to_string();
        // Dots and hyphens are all that a domain or GUID has beside letters and digits.
        let escaped = escaped.replace("%2E", ".").replace("%2D", "-");
        let answer = self
            .get(&server.discovery(&escaped), MAX_DISCOVERY, correlation)
            .await?;
        let shown = self.describe(server);
        if !answer.status.is_success() {
            let unknown =
                serde_json::from_slice::<OAuthError>(&answer.body).is_ok_and(|body| body.error == "invalid_tenant");
            if unknown {
                return Err(FindError::UnknownTenant {
                    server: shown,
                    tenant: tenant.to_owned(),
                });
            }
            let what = format!(
                "its discovery document is answered with status {}",
                answer.status.as_u16()
            );
            return Err(TransportError::Unexpected { server: shown, what }.into());
        }
        check_discovery(server, &answer.body).map_err(|source| FindError::Document { server: shown, source })
    }

    /// Reads a signed document (app description, key set). The caller checks it.
    ///
    /// # Errors
    /// [`TransportError`], also for a status other than 200 and for what is not text.
    pub async fn signed_document(&self, url: &str, correlation: CorrelationId) -> Result<String, TransportError> {
        let answer = self.get(url, MAX_SIGNED, correlation).await?;
        let unexpected = |what: String| TransportError::Unexpected {
            server: url.to_owned(),
            what,
        };
        if !answer.status.is_success() {
            return Err(unexpected(format!("answered with status {}", answer.status.as_u16())));
        }
        String::from_utf8(answer.body.to_vec()).map_err(|_| unexpected("the document is not text".to_owned()))
    }

    fn describe(&self, server: &AuthorityOrigin) -> String {
        super::Origin::parse(server.as_str())
            .map_or_else(|_| server.to_string(), |origin| self.connector.describe(&origin))
    }
}

#[async_trait]
impl OutcomeAsker for Fetcher {
    async fn ask(&self, outcome_endpoint: &str, request: &OutcomeRequest) -> Result<OutcomeAnswer, String> {
        let url = Url::parse(outcome_endpoint).map_err(|_| "the outcome address is not a URL".to_owned())?;
        // The key is in the body and nowhere else.
        let body = serde_json::to_vec(request).map_err(|error| error.to_string())?;
        let call = Call::post(url, "application/json", body);
        let answer = once_without_redirect(
            &self.connector,
            &call,
            Bounds {
                time: TIME,
                octets: 64 * 1024,
            },
        )
        .await
        .map_err(|error| error.to_string())?;
        if !answer.status.is_success() {
            return Err(format!(
                "the outcome address answered with status {}",
                answer.status.as_u16()
            ));
        }
        serde_json::from_slice(&answer.body)
            .map_err(|error| format!("the outcome address's answer is malformed: {error}"))
    }
}

impl Call {
    /// Names the correlation id.
    pub(crate) fn correlate(&mut self, correlation: CorrelationId) {
        if let Ok(value) = HeaderValue::from_str(&correlation.to_string()) {
            self.headers.insert(crate::CORRELATION_HEADER, value);
        }
    }
}

//! Reaches a source deployment as its target: finds the tenant, obtains tokens, opens the proxy.

use super::connector::{ConnectError, HttpsConnector};
use super::exchange::{Bounds, Call, TransportError, once_without_redirect};
use super::fetch::{Fetcher, FindError};
use super::known::{Known, KnownPartners};
use super::origin::Origin;
use super::proxy::ProxyClient;
use async_trait::async_trait;
use http::{HeaderName, HeaderValue};
use rehome_domain::error_id::{ErrorId, Problem};
use rehome_domain::id::{CorrelationId, TenantId};
use rehome_identity::Identity;
use rehome_identity::authority::{Origin as AuthorityOrigin, PartnerAuthority};
use rehome_identity::jws::CryptographyFailed;
use rehome_identity::keyset::read_tenant_description;
use rehome_identity::partner::{
    MAX_ANSWER, PartnerToken, PartnerTokenError, assertion_form, read_token_answer, secret_form,
};
use rehome_migrate::Clock;
use rehome_migrate::target::partner::{Connected, Partner, PartnerAddress, PartnerDescription, PartnerError};
use rehome_replicate::Retry;
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use uuid::Uuid;

/// Time for a token.
const TOKEN_TIME: Duration = Duration::from_secs(30);

/// Reaches source deployments over HTTPS. Cheap to clone.
#[derive(Clone)]
pub struct PartnerClient {
    fetcher: Fetcher,
    identity: Identity,
    clock: Clock,
    known: KnownPartners,
}

impl PartnerClient {
    /// A client whose tokens are bound to the identity's proof key.
    #[must_use]
    pub fn new(connector: HttpsConnector, identity: Identity, clock: Clock) -> Self {
        Self {
            fetcher: Fetcher::new(connector),
            identity,
            clock,
            known: KnownPartners::default(),
        }
    }

    pub(super) fn connector(&self) -> &HttpsConnector {
        self.fetcher.connector()
    }

    /// Finds the tenant and checks that it is the one found earlier.
    async fn authority(
        &self,
        address: &PartnerAddress,
        correlation: CorrelationId,
    ) -> Result<PartnerAuthority, PartnerError> {
        let failed = |problem| PartnerError {
            problem,
            retry: Retry::Never,
            correlation: Some(correlation),
        };
        let server: AuthorityOrigin =
            address
                .remote_server
                .parse()
                .map_err(|error: rehome_identity::authority::NotAnOrigin| {
                    failed(Problem::new(
                        ErrorId::ParameterBinding,
                        error.to_string(),
                        "Give -RemoteServer as host or host:port.",
                    ))
                })?;
        let found = self
            .fetcher
            .find_authority(&server, &address.remote_tenant, correlation)
            .await
            .map_err(|error| find_problem(&error, correlation))?;
        match address.remote_tenant_id {
            Some(known) if known != found.tenant_id => {
                let message = format!(
                    "'{}' at {server} was tenant {known} and is {} now.",
                    address.remote_tenant, found.tenant_id
                );
                let advice =
                    "Ask the source's administrator by another channel; if it is right, make a new migration endpoint.";
                Err(failed(Problem::new(ErrorId::PartnerIdentityChanged, message, advice)))
            }
            _ => Ok(found),
        }
    }
}

#[async_trait]
impl Partner for PartnerClient {
    async fn connect(&self, address: &PartnerAddress, correlation: CorrelationId) -> Result<Connected, PartnerError> {
        // What our own authority says is asked every time: it costs no round trip.
        if let Some(known) = self.known.get(address)
            && known.tokens.still_allowed(correlation).await.is_ok()
            && known.tokens.token(correlation).await.is_ok()
        {
            return Ok(connected(known, true));
        }
        self.connect_anew(address, correlation).await
    }

    async fn connect_anew(
        &self,
        address: &PartnerAddress,
        correlation: CorrelationId,
    ) -> Result<Connected, PartnerError> {
        let authority = self.authority(address, correlation).await?;
        let endpoint = authority.mrs_endpoint.clone();
        let origin = Origin::parse(&endpoint).map_err(|error| PartnerError {
            problem: Problem::new(ErrorId::MigrationServerConnectionFailed, error.to_string(), ""),
            retry: Retry::Never,
            correlation: Some(correlation),
        })?;
        let tokens = TokenSource {
            partner: self.clone(),
            address: address.clone(),
            authority,
            cached: Mutex::new(None),
        };
        // A refusal belongs here and not into the first verb.
        tokens.token(correlation).await?;
        let known = Arc::new(Known::new(tokens, endpoint, origin));
        self.known.put(address, &known);
        Ok(connected(known, false))
    }

    async fn describe(
        &self,
        address: &PartnerAddress,
        correlation: CorrelationId,
    ) -> Result<PartnerDescription, PartnerError> {
        let authority = self.authority(address, correlation).await?;
        let url = authority.origin.signed_keys(authority.tenant_id);
        let document = self.fetcher.signed_document(&url, correlation).await.map_err(|error| {
            let (problem, retry) = transport_problem(ErrorId::MigrationServerConnectionFailed, &error);
            PartnerError {
                problem,
                retry,
                correlation: Some(correlation),
            }
        })?;
        let said = read_tenant_description(&authority, &document, self.clock.now()).map_err(|error| PartnerError {
            problem: Problem::new(error.error_id(), super::chain(&error), ""),
            retry: Retry::Never,
            correlation: Some(correlation),
        })?;
        Ok(PartnerDescription {
            tenant: authority.tenant_id,
            issuer: authority.issuer,
            home_domains: said.home_domains,
            outcome_endpoint: said.outcome_endpoint,
            keys: said.keys,
            signer: said.signer,
        })
    }

    async fn find_tenant(
        &self,
        address: &PartnerAddress,
        correlation: CorrelationId,
    ) -> Result<TenantId, PartnerError> {
        Ok(self.authority(address, correlation).await?.tenant_id)
    }
}

fn connected(known: Arc<Known>, before: bool) -> Connected {
    Connected {
        tenant: known.tokens.authority.tenant_id,
        proxy: Arc::new(ProxyClient::new(known, before)),
    }
}

/// The access tokens for one source tenant, renewed before they end.
pub(super) struct TokenSource {
    partner: PartnerClient,
    address: PartnerAddress,
    authority: PartnerAuthority,
    cached: Mutex<Option<PartnerToken>>,
}

impl TokenSource {
    /// A token that is good for another minute at least. Callers at the same time share one request.
    pub(super) async fn token(&self, correlation: CorrelationId) -> Result<SecretString, PartnerError> {
        let mut cached = self.cached.lock().await;
        if let Some(token) = cached
            .as_ref()
            .filter(|token| self.partner.clock.now() < token.renew_at)
        {
            return Ok(token.token.clone());
        }
        let token = self.obtain(correlation).await?;
        Ok(cached.insert(token).token.clone())
    }

    /// Finds the partner and obtains a token as if for the first time: why a refusal came, where that shows it.
    pub(super) async fn prove(&self, correlation: CorrelationId) -> Result<(), PartnerError> {
        self.partner.authority(&self.address, correlation).await?;
        *self.cached.lock().await = None;
        self.token(correlation).await?;
        Ok(())
    }

    /// Whether our own authority would speak for the application now.
    async fn still_allowed(&self, correlation: CorrelationId) -> Result<(), PartnerError> {
        self.form(correlation).await.map(|_| ())
    }

    pub(super) fn connector(&self) -> &HttpsConnector {
        self.partner.connector()
    }

    /// Forgets a token that the source does not take any more; not a newer one.
    pub(super) async fn forget(&self, refused: &SecretString) {
        let mut cached = self.cached.lock().await;
        if cached
            .as_ref()
            .is_some_and(|token| token.token.expose_secret() == refused.expose_secret())
        {
            *cached = None;
        }
    }

    /// A proof for one request.
    pub(super) fn proof(
        &self,
        method: &str,
        url: &str,
        token: Option<&SecretString>,
    ) -> Result<String, CryptographyFailed> {
        self.partner
            .identity
            .dpop_key()
            .proof(method, url, token, self.partner.clock.now(), Uuid::new_v4())
    }

    /// The form for the source's token endpoint. The secret itself goes to our own authority alone: as a form when the
    /// source is a tenant of this deployment, else in process, and the source gets an assertion made for it.
    async fn form(&self, correlation: CorrelationId) -> Result<SecretString, PartnerError> {
        let address = &self.address;
        if address.returning {
            return self.return_form(correlation).await;
        }
        if self.authority.origin == *self.partner.identity.public_name() {
            return Ok(secret_form(address.application_id, &address.secret));
        }
        let now = self.partner.clock.now();
        let assertion = self
            .partner
            .identity
            .assertion_for(
                address.home_tenant,
                address.application_id,
                &address.secret,
                &self.authority,
                now,
            )
            .await
            .map_err(|error| PartnerError {
                problem: Problem::from(&error),
                retry: Retry::Never,
                correlation: Some(correlation),
            })?;
        Ok(assertion_form(address.application_id, &assertion))
    }

    /// The form with which our authority speaks for itself, to take a mailbox back.
    async fn return_form(&self, correlation: CorrelationId) -> Result<SecretString, PartnerError> {
        let now = self.partner.clock.now();
        let assertion = self
            .partner
            .identity
            .return_assertion_for(self.address.home_tenant, &self.authority, now)
            .await
            .map_err(|error| PartnerError {
                problem: Problem::from(&error),
                retry: Retry::Never,
                correlation: Some(correlation),
            })?;
        Ok(assertion_form(self.address.application_id, &assertion))
    }

    async fn obtain(&self, correlation: CorrelationId) -> Result<PartnerToken, PartnerError> {
        let endpoint = &self.authority.token_endpoint;
        let failed = |id: ErrorId, message: String| PartnerError {
            problem: Problem::new(id, message, ""),
            retry: Retry::Never,
            correlation: Some(correlation),
        };
        let url = url::Url::parse(endpoint)
            .map_err(|error| failed(ErrorId::MigrationServerConnectionFailed, format!("{endpoint}: {error}")))?;
        let proof = self
            .proof("POST", endpoint, None)
            .map_err(|error| failed(ErrorId::Unexpected, error.to_string()))?;
        let form = self.form(correlation).await?;
        let mut call = Call::post(
            url,
            "application/x-www-form-urlencoded",
            form.expose_secret().to_owned(),
        );
        call.correlate(correlation);
        let proof = HeaderValue::from_str(&proof).map_err(|error| failed(ErrorId::Unexpected, error.to_string()))?;
        call.headers.insert(HeaderName::from_static("dpop"), proof);
        let bounds = Bounds {
            time: TOKEN_TIME,
            octets: MAX_ANSWER,
        };
        let answer = once_without_redirect(self.partner.fetcher.connector(), &call, bounds)
            .await
            .map_err(|error| {
                let (problem, retry) = transport_problem(ErrorId::MigrationServerConnectionFailed, &error);
                PartnerError {
                    problem,
                    retry,
                    correlation: Some(correlation),
                }
            })?;
        let now = self.partner.clock.now();
        read_token_answer(answer.status.as_u16(), &answer.body, now).map_err(|error| token_problem(&error, correlation))
    }
}

fn token_problem(error: &PartnerTokenError, sent: CorrelationId) -> PartnerError {
    let correlation = match error {
        PartnerTokenError::Refused {
            correlation_id: Some(text),
            ..
        } => text.parse().unwrap_or(sent),
        PartnerTokenError::Refused {
            correlation_id: None, ..
        }
        | PartnerTokenError::NotAnAnswer { .. } => sent,
    };
    let retry = if error.is_transient() {
        Retry::After(5)
    } else {
        Retry::Never
    };
    PartnerError {
        problem: Problem::new(error.error_id(), error.to_string(), error.advice()),
        retry,
        correlation: Some(correlation),
    }
}

fn find_problem(error: &FindError, correlation: CorrelationId) -> PartnerError {
    let (problem, retry) = match error {
        FindError::Transport(error) => transport_problem(ErrorId::MigrationServerConnectionFailed, error),
        FindError::UnknownTenant { .. } => {
            let advice = "Give the source tenant's GUID or one of its accepted domains in -RemoteTenant.";
            (
                Problem::new(ErrorId::InvalidTenant, error.to_string(), advice),
                Retry::Never,
            )
        }
        FindError::Document { source, .. } => (
            Problem::new(source.error_id(), error.to_string(), source.advice()),
            Retry::Never,
        ),
    };
    PartnerError {
        problem,
        retry,
        correlation: Some(correlation),
    }
}

/// A transport error for administrators, with whether trying again makes sense.
pub(super) fn transport_problem(id: ErrorId, error: &TransportError) -> (Problem, Retry) {
    let passing = Retry::After(5);
    let (advice, retry) = match error {
        TransportError::Connect(ConnectError::Tls { .. }) => (
            "Check that the certificate is for this name and not expired; a partner's private CA goes into [tls] extra_roots.",
            // Also a server that stopped in the middle of the handshake.
            passing,
        ),
        TransportError::Connect(ConnectError::PrivateAddress { .. }) => (
            "The operator may allow private addresses in [connections], or set an override for this name.",
            Retry::After(60),
        ),
        TransportError::Connect(ConnectError::Resolve { .. }) => {
            ("Check the name's spelling and this server's DNS.", passing)
        }
        TransportError::Connect(ConnectError::Unreachable { .. } | ConnectError::Timeout { .. }) => (
            "Check that the partner's server runs and that firewalls let this server reach it.",
            passing,
        ),
        TransportError::Connect(ConnectError::Http { .. } | ConnectError::NoHttp2 { .. }) => (
            "Check that the name leads to the partner's Rehome server and not to another one or to a proxy without HTTP/2.",
            passing,
        ),
        TransportError::Redirect { .. } | TransportError::TooLong { .. } | TransportError::Unexpected { .. } => (
            "Check that the name leads to the partner's Rehome server itself.",
            passing,
        ),
        TransportError::Broken { .. } | TransportError::Timeout { .. } => ("It is tried again.", passing),
        TransportError::Origin(_) | TransportError::Request(_) => ("Check -RemoteServer.", Retry::Never),
    };
    (Problem::new(id, super::chain(error), advice), retry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn what_may_pass_is_tried_again_after_five_seconds() {
        let server = || "source".to_owned();
        let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
        for (error, retry) in [
            (
                ConnectError::Unreachable {
                    server: server(),
                    source: reset(),
                }
                .into(),
                Retry::After(5),
            ),
            (
                ConnectError::Tls {
                    server: server(),
                    source: reset(),
                }
                .into(),
                Retry::After(5),
            ),
            (
                ConnectError::Timeout {
                    server: server(),
                    doing: "connecting",
                    seconds: 10,
                }
                .into(),
                Retry::After(5),
            ),
            (
                TransportError::Timeout {
                    server: server(),
                    seconds: 60,
                },
                Retry::After(5),
            ),
            (
                ConnectError::PrivateAddress { server: server() }.into(),
                Retry::After(60),
            ),
        ] {
            let (_, found) = transport_problem(ErrorId::CommunicationErrorTransient, &error);
            assert_eq!(found, retry, "{error}");
        }
    }
}

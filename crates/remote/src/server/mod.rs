//! The server's side of our HTTP protocols.
//!
//! [`Listener`] accepts and serves; [`router`] says which path is whose. Every request has a correlation id, is logged
//! without query and headers, and every body has a limit.

mod admin;
mod answer;
mod authority;
mod listener;
mod mrs;
mod request;
mod stream;

use axum::Router;
use axum::response::Response;
use axum::routing::{any, get, post};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::StatusCode;
use rehome_cmdlets::Context;
use rehome_domain::error_id::{ErrorId, Problem};
use rehome_domain::id::{CorrelationId, TenantId};
use rehome_identity::{AdminCaller, Identity};
use rehome_migrate::Clock;
use rehome_migrate::source::Source;
use rehome_migrate::target::Target;
use serde::Deserialize;
use std::sync::Arc;

pub use listener::{Limits, ListenError, Listener};

/// Makes what a cmdlet runs in, for a caller, his network address and the request's correlation id.
pub type ContextMaker = Arc<dyn Fn(AdminCaller, String, CorrelationId) -> Context + Send + Sync>;

/// What the routes answer from. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    /// Tenants, tokens, sign-in.
    pub identity: Identity,
    /// The source's half: the MRS proxy's verbs.
    pub source: Source,
    /// The target's half: the outcome address.
    pub target: Target,
    /// The time.
    pub clock: Clock,
    /// What cmdlets run in.
    pub context: ContextMaker,
}

/// What a listener offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Everything: the listener has a certificate.
    Everything,
    /// Command line and health only: the listener is loopback without a certificate. The rest answers 503 and says why.
    CommandLineOnly,
}

/// All routes. `console` brings its own paths (`/{tenant}/adminconsent`, `/console/…`).
pub fn router(services: Services, console: Router, offer: Offer) -> Router {
    let local = Router::new()
        .route("/healthz", get(health))
        .route("/{tenant}/signin", post(authority::sign_in))
        .route("/adminapi/beta/{tenant}/InvokeCommand", post(admin::invoke))
        .route("/adminapi/beta/{tenant}/Commands", get(admin::commands))
        .with_state(services.clone());
    let routes = match offer {
        Offer::Everything => {
            let partners = Router::new()
                .route(
                    "/{tenant}/v2.0/.well-known/openid-configuration",
                    get(authority::discovery),
                )
                .route("/{tenant}/discovery/v2.0/keys", get(authority::keys))
                .route("/{tenant}/discovery/v2.0/signedkeys", get(authority::signed_keys))
                .route("/{tenant}/oauth2/v2.0/token", post(authority::token))
                .route("/{tenant}/applications/{app_id}", get(authority::application))
                .route("/{tenant}/outcome", post(authority::outcome))
                .route("/mrs/{tenant}/mailboxes/{mailbox}/{verb}", post(mrs::verb))
                .with_state(services);
            local.merge(partners).merge(console)
        }
        Offer::CommandLineOnly => local
            .route("/{tenant}/v2.0/.well-known/openid-configuration", any(no_certificate))
            .route("/{tenant}/discovery/v2.0/{document}", any(no_certificate))
            .route("/{tenant}/oauth2/v2.0/token", any(no_certificate))
            .route("/{tenant}/applications/{app_id}", any(no_certificate))
            .route("/{tenant}/outcome", any(no_certificate))
            .route("/{tenant}/adminconsent", any(no_certificate))
            .route("/mrs/{*rest}", any(no_certificate))
            .route("/powershell", any(no_certificate)),
    };
    routes
        .fallback(not_found)
        .layer(axum::middleware::from_fn(request::correlate))
}

/// Whether the process serves. Says nothing about tenants or partners.
async fn health() -> Response {
    request::json(
        StatusCode::OK,
        &serde_json::json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }),
    )
}

async fn not_found(request::Correlation(correlation): request::Correlation) -> Response {
    let problem = Problem::new(
        ErrorId::ManagementObjectNotFound,
        "There is nothing at this address.",
        "",
    );
    answer::admin_error(StatusCode::NOT_FOUND, &problem, None, correlation)
}

async fn no_certificate(request::Correlation(correlation): request::Correlation) -> Response {
    let problem = Problem::new(
        ErrorId::CommunicationErrorTransient,
        "This listener has no certificate, so it serves the command line and health checks only; partners need HTTPS.",
        "Set certificate and key under [tls]; rehome certificate new makes a trial CA and certificate.",
    );
    answer::admin_error(StatusCode::SERVICE_UNAVAILABLE, &problem, None, correlation)
}

/// The state could not be read; the cause is in the log alone.
fn store_failed(error: &dyn std::error::Error, correlation: CorrelationId) -> Response {
    tracing::error!(error = crate::client::chain(error), "the state database failed");
    let problem = Problem::new(
        ErrorId::CommunicationErrorTransient,
        "The server cannot read its state for the moment; its log has the cause.",
        "",
    );
    answer::admin_error(StatusCode::SERVICE_UNAVAILABLE, &problem, None, correlation)
}

/// The tenant that a token, not verified, says it is for. Only chooses between two refusals.
fn tenant_in_token(token: &str) -> Option<TenantId> {
    #[derive(Deserialize)]
    struct Claims {
        tid: String,
    }
    let payload = token.split('.').nth(1)?;
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    claims.tid.parse().ok()
}

#[cfg(test)]
pub(crate) fn stream_body<E>(
    octets: impl futures_util::Stream<Item = Result<bytes::Bytes, E>> + Send + 'static,
) -> axum::body::Body
where
    E: std::error::Error + Send + Sync + 'static,
{
    stream::body(octets, stream::STALL, Arc::<crate::pace::Link>::default().begin())
}

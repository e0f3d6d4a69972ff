//! The tenants' identity authority: discovery, keys, tokens, application descriptions, outcomes, sign-in.

use super::answer::{admin_body_error, admin_error, unknown_tenant};
use super::request::{BodyRefusal, Correlation, FORM_LIMIT, Peer, json, read_body};
use super::{Services, store_failed};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use rehome_domain::cutover::Outcome;
use rehome_domain::error_id::{ErrorId, Problem};
use rehome_domain::id::{AttemptId, CorrelationId, TenantId};
use rehome_identity::TokenOrigin;
use rehome_identity::error::{ApplicationError, KeyStoreError, TokenError};
use rehome_identity::token::{TokenRequest, error_body};
use rehome_migrate::protocol::{OutcomeAnswer, OutcomeRequest};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;

/// A 400 with `invalid_tenant`, as the identity platform answers (AADSTS90002).
fn invalid_tenant(services: &Services, correlation: CorrelationId) -> Response {
    token_error(services, &TokenError::TenantNotFound, correlation)
}

fn token_error(services: &Services, error: &TokenError, correlation: CorrelationId) -> Response {
    let status = StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::BAD_REQUEST);
    json(status, &error_body(error, correlation, services.clock.now()))
}

/// The tenant of the path, or the answer for one that is not here.
async fn tenant(services: &Services, text: &str, correlation: CorrelationId) -> Result<TenantId, Response> {
    match services.identity.tenant_resolve(text).await {
        Ok(Some(tenant)) => Ok(tenant.id),
        Ok(None) => Err(invalid_tenant(services, correlation)),
        Err(error) => Err(store_failed(&error, correlation)),
    }
}

fn keys_failed(error: &KeyStoreError, correlation: CorrelationId) -> Response {
    tracing::error!(error = crate::client::chain(error), "the tenant's keys cannot be used");
    let problem = Problem::from(error);
    admin_error(super::answer::status_of(problem.id), &problem, None, correlation)
}

/// A public document: may be cached shortly, readable by anyone.
fn document(media_type: &'static str, text: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (StatusCode::OK, headers, text).into_response()
}

/// `GET /{tenant}/v2.0/.well-known/openid-configuration`
pub(crate) async fn discovery(
    State(services): State<Services>,
    Path(text): Path<String>,
    Correlation(correlation): Correlation,
) -> Response {
    match tenant(&services, &text, correlation).await {
        Ok(tenant) => document("application/json", services.identity.discovery(tenant).to_string()),
        Err(answer) => answer,
    }
}

/// `GET /{tenant}/discovery/v2.0/keys`
pub(crate) async fn keys(
    State(services): State<Services>,
    Path(text): Path<String>,
    Correlation(correlation): Correlation,
) -> Response {
    let tenant = match tenant(&services, &text, correlation).await {
        Ok(tenant) => tenant,
        Err(answer) => return answer,
    };
    match services.identity.jwks(tenant, services.clock.now()).await {
        Ok(keys) => document("application/json", keys.to_string()),
        Err(error) => keys_failed(&error, correlation),
    }
}

/// `GET /{tenant}/discovery/v2.0/signedkeys`
pub(crate) async fn signed_keys(
    State(services): State<Services>,
    Path(text): Path<String>,
    Correlation(correlation): Correlation,
) -> Response {
    let tenant = match tenant(&services, &text, correlation).await {
        Ok(tenant) => tenant,
        Err(answer) => return answer,
    };
    match services.identity.signed_key_set(tenant, services.clock.now()).await {
        Ok(text) => document("application/rehome-keys+jwt", text),
        Err(error) => keys_failed(&error, correlation),
    }
}

/// `GET /{tenant}/applications/{app_id}`; `common` in place of the tenant finds the application in any tenant here.
pub(crate) async fn application(
    State(services): State<Services>,
    Path((text, app_id)): Path<(String, String)>,
    Correlation(correlation): Correlation,
) -> Response {
    let home = if text == "common" {
        None
    } else {
        match tenant(&services, &text, correlation).await {
            Ok(tenant) => Some(tenant),
            Err(answer) => return answer,
        }
    };
    let not_found = || {
        let problem = Problem::new(
            ErrorId::ManagementObjectNotFound,
            "AADSTS700016: The application was not found.",
            "",
        );
        admin_error(StatusCode::NOT_FOUND, &problem, None, correlation)
    };
    let Ok(app_id) = app_id.parse() else { return not_found() };
    match services
        .identity
        .app_description(home, app_id, services.clock.now())
        .await
    {
        Ok(text) => document("application/rehome-app+jwt", text),
        Err(ApplicationError::NotFound { .. }) => not_found(),
        Err(error) => {
            tracing::error!(
                error = crate::client::chain(&error),
                "an application's description cannot be made"
            );
            let problem = Problem::from(&error);
            admin_error(super::answer::status_of(problem.id), &problem, None, correlation)
        }
    }
}

/// `POST /{tenant}/oauth2/v2.0/token`
pub(crate) async fn token(
    State(services): State<Services>,
    Path(text): Path<String>,
    Correlation(correlation): Correlation,
    Peer(peer): Peer,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if ["common", "organizations", "consumers"].contains(&text.as_str()) {
        return token_error(&services, &TokenError::TenantRequired, correlation);
    }
    let tenant = match tenant(&services, &text, correlation).await {
        Ok(tenant) => tenant,
        Err(answer) => return answer,
    };
    let body = match read_body(&headers, body, "application/x-www-form-urlencoded", FORM_LIMIT).await {
        Ok(body) => body,
        Err(refusal) => {
            let why = match refusal {
                BodyRefusal::TooLong(_) => "the request is too long",
                BodyRefusal::MediaType(_) => "the request is not application/x-www-form-urlencoded",
                BodyRefusal::Broken => "the request's body did not arrive whole",
            };
            let body = error_body(&TokenError::Malformed { why }, correlation, services.clock.now());
            return json(refusal.status(), &body);
        }
    };
    let now = services.clock.now();
    let mut proofs = headers.get_all("dpop").iter();
    let proof = proofs.next().and_then(|value| value.to_str().ok());
    if proofs.next().is_some() {
        // RFC 9449 §4.3: exactly one.
        return token_error(
            &services,
            &TokenError::Malformed {
                why: "more than one DPoP header",
            },
            correlation,
        );
    }
    let origin = TokenOrigin {
        address: peer.to_string(),
        correlation_id: correlation,
    };
    let answered = match TokenRequest::parse(&body) {
        Ok(request) => services.identity.token(tenant, &request, proof, &origin, now).await,
        Err(error) => Err(error),
    };
    match answered {
        Ok(answer) => {
            let mut response = json(StatusCode::OK, &answer.body());
            response
                .headers_mut()
                .insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
            response
        }
        Err(error) => token_error(&services, &error, correlation),
    }
}

/// An attempt and its key; nobody has proven who he is yet.
const OUTCOME_LIMIT: usize = 4 * 1024;

/// `POST /{tenant}/outcome`: what became of an attempt; asking changes nothing.
pub(crate) async fn outcome(
    State(services): State<Services>,
    Path(text): Path<String>,
    Correlation(correlation): Correlation,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let tenant = match tenant(&services, &text, correlation).await {
        Ok(tenant) => tenant,
        Err(answer) => return answer,
    };
    let body = match read_body(&headers, body, "application/json", OUTCOME_LIMIT).await {
        Ok(body) => body,
        Err(refusal) => return admin_body_error(refusal, correlation),
    };
    // One answer for what cannot be read, an unknown attempt and a wrong key: nothing is learnt by trying.
    let unknown = || {
        let problem = Problem::new(
            ErrorId::ManagementObjectNotFound,
            "There is no such attempt with this key.",
            "",
        );
        admin_error(StatusCode::NOT_FOUND, &problem, None, correlation)
    };
    let Ok(request) = serde_json::from_slice::<OutcomeRequest>(&body) else {
        return unknown();
    };
    let (Ok(attempt), Ok(key)) = (request.attempt.parse::<AttemptId>(), STANDARD.decode(&request.key)) else {
        return unknown();
    };
    match services.target.outcome(tenant, attempt, &key).await {
        Ok(Some(outcome)) => {
            let outcome = match outcome {
                Outcome::Decided => "decided",
                Outcome::Aborted => "aborted",
                Outcome::Undecided => "undecided",
            };
            json(
                StatusCode::OK,
                &OutcomeAnswer {
                    outcome: outcome.to_owned(),
                },
            )
        }
        Ok(None) => unknown(),
        Err(error) => store_failed(&error, correlation),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SignInRequest {
    user_name: String,
    password: String,
    #[serde(default)]
    new_password: Option<String>,
}

/// `POST /{tenant}/signin`
pub(crate) async fn sign_in(
    State(services): State<Services>,
    Path(text): Path<String>,
    Correlation(correlation): Correlation,
    Peer(peer): Peer,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let tenant = match services.identity.tenant_resolve(&text).await {
        Ok(Some(tenant)) => tenant.id,
        Ok(None) => return admin_error(StatusCode::BAD_REQUEST, &unknown_tenant(&text), None, correlation),
        Err(error) => return store_failed(&error, correlation),
    };
    let body = match read_body(&headers, body, "application/json", FORM_LIMIT).await {
        Ok(body) => body,
        Err(refusal) => return admin_body_error(refusal, correlation),
    };
    let Ok(request) = serde_json::from_slice::<SignInRequest>(&body) else {
        // The parser's words could quote the password.
        let problem = Problem::new(
            ErrorId::ParameterBinding,
            "The request is not {\"UserName\", \"Password\", \"NewPassword\"}.",
            "",
        );
        return admin_error(StatusCode::BAD_REQUEST, &problem, None, correlation);
    };
    let password = SecretString::from(request.password);
    let new_password = request.new_password.map(SecretString::from);
    let now = services.clock.now();
    let signed_in = services
        .identity
        .sign_in(
            tenant,
            &request.user_name,
            &password,
            new_password.as_ref(),
            &peer.to_string(),
            now,
        )
        .await;
    match signed_in {
        Ok(signed_in) => json(
            StatusCode::OK,
            &json!({
                "access_token": signed_in.token.expose_secret(),
                "expires_in": signed_in.expires.duration_since(now).as_secs(),
                "tenant_id": tenant.to_string(),
                "name": signed_in.caller.name,
            }),
        ),
        Err(error) => {
            let status = StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::UNAUTHORIZED);
            admin_error(status, &Problem::from(&error), None, correlation)
        }
    }
}

//! The administrators' REST interface: run a cmdlet, list the cmdlets.

use super::answer::{admin_body_error, admin_error, status_of, unknown_tenant};
use super::request::{COMMAND_LIMIT, Correlation, Peer, json, read_body};
use super::{Services, store_failed, tenant_in_token};
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode, header};
use rehome_cmdlets::CommandError;
use rehome_command::Secrets;
use rehome_domain::error_id::{ErrorId, Problem};
use rehome_domain::id::{CorrelationId, TenantId};
use rehome_identity::AdminCaller;
use rehome_identity::error::AdminTokenError;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use url::form_urlencoded;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Invocation {
    cmdlet_input: CmdletInput,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CmdletInput {
    cmdlet_name: String,
    #[serde(default)]
    parameters: serde_json::Map<String, Json>,
}

/// Who calls in which tenant; the tenant of the path, of the query and of the token must be one.
async fn caller(
    services: &Services,
    text: &str,
    query: Option<&str>,
    headers: &HeaderMap,
    correlation: CorrelationId,
) -> Result<AdminCaller, Response> {
    let refuse = |status, problem: &Problem| admin_error(status, problem, None, correlation);
    let unknown = |text: &str| refuse(StatusCode::BAD_REQUEST, &unknown_tenant(text));
    let tenant = resolve(services, text, correlation)
        .await?
        .ok_or_else(|| unknown(text))?;
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        if name.eq_ignore_ascii_case("DelegatedOrg") && resolve(services, &value, correlation).await? != Some(tenant) {
            return Err(unknown(&value));
        }
    }
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Bearer"))
        .map(|(_, token)| token.trim());
    let Some(token) = token else {
        let problem = Problem::new(ErrorId::AccessDenied, "You are not signed in.", "rehome login");
        return Err(refuse(StatusCode::UNAUTHORIZED, &problem));
    };
    let secret = SecretString::from(token);
    services
        .identity
        .check_admin(&secret, tenant, services.clock.now())
        .await
        .map_err(|error| match &error {
            AdminTokenError::Unavailable(cause) => {
                tracing::error!(error = crate::client::chain(cause), "a session cannot be checked");
                refuse(StatusCode::SERVICE_UNAVAILABLE, &Problem::from(&error))
            }
            AdminTokenError::Token(_) | AdminTokenError::Claim { .. }
                if tenant_in_token(token).is_some_and(|other| other != tenant) =>
            {
                unknown(text)
            }
            AdminTokenError::Token(_) | AdminTokenError::Claim { .. } | AdminTokenError::Ended => {
                refuse(StatusCode::UNAUTHORIZED, &Problem::from(&error))
            }
        })
}

async fn resolve(services: &Services, text: &str, correlation: CorrelationId) -> Result<Option<TenantId>, Response> {
    match services.identity.tenant_resolve(text).await {
        Ok(tenant) => Ok(tenant.map(|tenant| tenant.id)),
        Err(error) => Err(store_failed(&error, correlation)),
    }
}

/// `POST /adminapi/beta/{tenant}/InvokeCommand`
#[allow(clippy::too_many_arguments, reason = "each is one extractor")]
pub(crate) async fn invoke(
    State(services): State<Services>,
    Path(text): Path<String>,
    RawQuery(query): RawQuery,
    Correlation(correlation): Correlation,
    Peer(peer): Peer,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let caller = match caller(&services, &text, query.as_deref(), &headers, correlation).await {
        Ok(caller) => caller,
        Err(answer) => return answer,
    };
    // Only now: a large body is taken from signed-in callers alone.
    let body = match read_body(&headers, body, "application/json", COMMAND_LIMIT).await {
        Ok(body) => body,
        Err(refusal) => return admin_body_error(refusal, correlation),
    };
    let Ok(invocation) = serde_json::from_slice::<Invocation>(&body) else {
        // The parser's words could quote a secret.
        let problem = Problem::new(
            ErrorId::ParameterBinding,
            "The request is not {\"CmdletInput\": {\"CmdletName\", \"Parameters\"}}.",
            "",
        );
        return admin_error(StatusCode::BAD_REQUEST, &problem, None, correlation);
    };
    drop(body);
    let context = (services.context)(caller, peer.to_string(), correlation);
    let CmdletInput {
        cmdlet_name,
        parameters,
    } = invocation.cmdlet_input;
    // What was begun is finished and audited even if the caller hangs up.
    let task = async move { rehome_cmdlets::invoke_json(&context, &cmdlet_name, &parameters).await };
    match tokio::spawn(tracing::Instrument::in_current_span(task)).await {
        Ok(Ok(output)) => {
            let value: Vec<Json> = output
                .objects
                .iter()
                .map(|object| object.to_json(Secrets::Keep))
                .collect();
            json(StatusCode::OK, &json!({ "value": value, "warnings": output.warnings }))
        }
        Ok(Err(error)) => command_error(&error, correlation),
        Err(error) => {
            tracing::error!(%error, "a cmdlet failed");
            let problem = Problem::new(
                ErrorId::Unexpected,
                "Something failed; the server's log has the cause.",
                "",
            );
            admin_error(StatusCode::INTERNAL_SERVER_ERROR, &problem, None, correlation)
        }
    }
}

fn command_error(error: &CommandError, correlation: CorrelationId) -> Response {
    let status = match status_of(error.id) {
        // These two speak of the caller's own token; a cmdlet's error is never about that.
        StatusCode::UNAUTHORIZED => StatusCode::FORBIDDEN,
        status => status,
    };
    let body = json!({ "error": {
        "id": error.id.as_str(),
        "category": error.category.as_str(),
        "target": error.target,
        "message": error.message,
        "advice": error.advice,
        "correlation_id": correlation.to_string(),
    }});
    json(status, &body)
}

/// `GET /adminapi/beta/{tenant}/Commands`
pub(crate) async fn commands(
    State(services): State<Services>,
    Path(text): Path<String>,
    RawQuery(query): RawQuery,
    Correlation(correlation): Correlation,
    headers: HeaderMap,
) -> Response {
    match caller(&services, &text, query.as_deref(), &headers, correlation).await {
        Ok(caller) => json(StatusCode::OK, &json!({ "value": rehome_cmdlets::visible(&caller) })),
        Err(answer) => answer,
    }
}

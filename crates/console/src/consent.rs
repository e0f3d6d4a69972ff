//! The consent page: sign-in, then who asks for what, then accept or cancel.

use crate::Console;
use crate::page::{Failure, Form, security_headers};
use crate::pages::{self, ConsentView, PermissionView, RETURN_RIGHT, SignInView};
use crate::pending::random_token;
use axum::extract::rejection::FormRejection;
use axum::extract::{ConnectInfo, Extension, Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use rehome_domain::error_id::ErrorId;
use rehome_domain::id::{CorrelationId, TenantId};
use rehome_domain::tenant::Tenant;
use rehome_identity::consent::ConsentRequest;
use rehome_identity::description::{AppDescription, check_app_description};
use rehome_identity::error::{ConsentError, SignInError};
use rehome_identity::{
    Actor, AdminCaller, ConsentGrant, DescriptionSource, ORGANIZATION_MANAGEMENT, session_cookie, session_from_cookies,
};
use secrecy::SecretString;
use serde::Deserialize;
use std::net::SocketAddr;
use url::Url;
use uuid::Uuid;

/// Cookie of the sign-in form: binds the form to the browser that got it.
const FORM_COOKIE: &str = "__Host-rehome-form";

/// A consent page as it was shown.
pub(crate) struct Shown {
    request: ConsentRequest,
    description: AppDescription,
}

/// One request with what is known of it.
struct Visit {
    console: Console,
    tenant: Tenant,
    /// The tenant as the URL spells it.
    spelt: String,
    request: ConsentRequest,
    form: Form,
    headers: HeaderMap,
    peer: String,
    correlation: CorrelationId,
    now: Timestamp,
}

type Peer = Option<Extension<ConnectInfo<SocketAddr>>>;
type Correlation = Option<Extension<CorrelationId>>;

/// `GET /{tenant}/adminconsent`
pub(crate) async fn show(
    State(console): State<Console>,
    Path(tenant): Path<String>,
    RawQuery(query): RawQuery,
    peer: Peer,
    correlation: Correlation,
    headers: HeaderMap,
) -> Response {
    let visit = match Visit::new(console, tenant, query, peer, correlation, headers).await {
        Ok(visit) => visit,
        Err(answer) => return answer,
    };
    match visit.caller().await {
        Some(caller) => visit
            .ask(&caller)
            .await
            .unwrap_or_else(|failure| visit.failed(&failure)),
        None => visit.sign_in_page(StatusCode::OK, None, ""),
    }
}

/// The fields of both forms.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Fields {
    action: String,
    csrf: String,
    name: String,
    password: String,
    new_password: String,
}

/// `POST /{tenant}/adminconsent`
#[allow(clippy::too_many_arguments, reason = "each is one extractor")]
pub(crate) async fn answer(
    State(console): State<Console>,
    Path(tenant): Path<String>,
    RawQuery(query): RawQuery,
    peer: Peer,
    correlation: Correlation,
    headers: HeaderMap,
    fields: Result<axum::Form<Fields>, FormRejection>,
) -> Response {
    let visit = match Visit::new(console, tenant, query, peer, correlation, headers).await {
        Ok(visit) => visit,
        Err(answer) => return answer,
    };
    let fields = match fields {
        Ok(axum::Form(fields)) => fields,
        Err(rejection) => {
            // The rejection's own words could quote a password.
            let failure = Failure::new(
                rejection.status(),
                ErrorId::ParameterBinding.as_str(),
                "The form cannot be read.",
                "",
            );
            return visit.failed(&failure);
        }
    };
    match fields.action.as_str() {
        "signin" => visit.sign_in(fields).await,
        "accept" => visit.decide(&fields.csrf, true).await,
        "cancel" => visit.decide(&fields.csrf, false).await,
        _ => visit.failed(&Failure::new(
            StatusCode::BAD_REQUEST,
            ErrorId::ParameterBinding.as_str(),
            "The form says neither accept nor cancel.",
            "",
        )),
    }
}

impl Visit {
    async fn new(
        console: Console,
        spelt: String,
        query: Option<String>,
        peer: Peer,
        correlation: Correlation,
        headers: HeaderMap,
    ) -> Result<Self, Response> {
        let form = Form::of(&headers);
        let correlation = correlation.map_or_else(|| CorrelationId(Uuid::new_v4()), |found| found.0);
        let peer = peer.map_or_else(|| "unknown".to_owned(), |found| found.0.0.ip().to_string());
        let failed = |failure: Failure| failure.answer(form, correlation);
        let found = console.inner.identity.tenant_resolve(&spelt).await.map_err(|error| {
            tracing::error!(%error, "a tenant cannot be looked up");
            failed(unavailable())
        })?;
        let Some(tenant) = found else {
            let shown: String = spelt.chars().filter(|c| !c.is_control()).take(100).collect();
            return Err(failed(Failure::new(
                StatusCode::BAD_REQUEST,
                "AADSTS90002",
                format!("Tenant “{shown}” not found on this server."),
                "Check the link: its first part names your organisation by GUID or accepted domain.",
            )));
        };
        let request = ConsentRequest::parse(query.as_deref().unwrap_or_default())
            .map_err(|error| failed(consent_failure(&error)))?;
        let now = (console.inner.now)();
        Ok(Self {
            console,
            tenant,
            spelt,
            request,
            form,
            headers,
            peer,
            correlation,
            now,
        })
    }

    fn failed(&self, failure: &Failure) -> Response {
        failure.answer(self.form, self.correlation)
    }

    fn cookies(&self) -> impl Iterator<Item = &str> {
        self.headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
    }

    /// The signed-in administrator, if the session is one of this tenant.
    async fn caller(&self) -> Option<AdminCaller> {
        let session = self.cookies().find_map(session_from_cookies)?;
        match self
            .console
            .inner
            .identity
            .check_admin(&session, self.tenant.id, self.now)
            .await
        {
            Ok(caller) => Some(caller),
            Err(error) => {
                tracing::debug!(%error, "a session is not taken");
                None
            }
        }
    }

    /// The page that asks who is there; for the command line an error, because it brings its session with it.
    fn sign_in_page(&self, status: StatusCode, failure: Option<&str>, name: &str) -> Response {
        if self.form == Form::Json {
            let text = failure.unwrap_or("You are not signed in to this organisation, or the session has ended.");
            let failure = Failure::new(
                StatusCode::UNAUTHORIZED,
                ErrorId::AccessDenied.as_str(),
                text,
                "Sign in: rehome login.",
            );
            return self.failed(&failure);
        }
        let cookie = random_token();
        let csrf = self.console.inner.identity.csrf(&SecretString::from(cookie.as_str()));
        let view = SignInView {
            tenant: &self.spelt,
            csrf: &csrf,
            failure,
            name,
        };
        let mut response = pages::sign_in(status, &view);
        let cookie = format!("{FORM_COOKIE}={cookie}; Path=/; Max-Age=3600; HttpOnly; Secure; SameSite=Lax");
        if let Ok(value) = HeaderValue::from_str(&cookie) {
            response.headers_mut().append(header::SET_COOKIE, value);
        }
        response
    }

    /// Whether the sign-in form is one that this browser got from us.
    fn form_is_ours(&self, csrf: &str) -> bool {
        self.cookies()
            .flat_map(|cookies| cookies.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .any(|(name, value)| {
                name == FORM_COOKIE
                    && self
                        .console
                        .inner
                        .identity
                        .csrf_matches(&SecretString::from(value), csrf)
            })
    }

    async fn sign_in(&self, fields: Fields) -> Response {
        if !self.form_is_ours(&fields.csrf) {
            return self.failed(&forged());
        }
        let password = SecretString::from(fields.password);
        let new_password = Some(fields.new_password)
            .filter(|text| !text.is_empty())
            .map(SecretString::from);
        let identity = &self.console.inner.identity;
        let signed_in = identity
            .sign_in(
                self.tenant.id,
                &fields.name,
                &password,
                new_password.as_ref(),
                &self.peer,
                self.now,
            )
            .await;
        match signed_in {
            Ok(signed_in) => {
                let cookie = session_cookie(&signed_in.token);
                let mut response = self.see_other(&self.own_address());
                if let Ok(mut value) = HeaderValue::from_str(&cookie) {
                    value.set_sensitive(true);
                    response.headers_mut().append(header::SET_COOKIE, value);
                }
                response
            }
            Err(error) => {
                if let SignInError::Unavailable(cause) = &error {
                    tracing::error!(error = %cause, "sign-in does not work");
                }
                let status = StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::UNAUTHORIZED);
                let text = format!("{}. {}", capital(&error.to_string()), error.advice());
                self.sign_in_page(status, Some(&text), &fields.name)
            }
        }
    }

    /// This page's address without the server: made from what was read, so it cannot lead elsewhere.
    fn own_address(&self) -> String {
        let identity = &self.console.inner.identity;
        let own = identity.public_name();
        let link = self.request.link(own, &self.tenant.id.to_string());
        link.strip_prefix(own.as_str())
            .map_or_else(|| link.clone(), str::to_owned)
    }

    fn see_other(&self, location: &str) -> Response {
        let Ok(value) = HeaderValue::from_str(location) else {
            return self.failed(&unavailable());
        };
        let mut response = StatusCode::SEE_OTHER.into_response();
        security_headers(response.headers_mut());
        response.headers_mut().insert(header::LOCATION, value);
        response
    }

    /// The question. The application's description is fetched here: after sign-in, by one who may answer.
    async fn ask(&self, caller: &AdminCaller) -> Result<Response, Failure> {
        if !caller.is_member_of(ORGANIZATION_MANAGEMENT) {
            return Err(consent_failure(&ConsentError::NeedAdminApproval));
        }
        let inner = &self.console.inner;
        let description = self.description().await?;
        let effect = inner
            .identity
            .consent_effect(self.tenant.id, &self.request, &description)
            .await
            .map_err(|error| consent_failure(&error))?;
        let lead_to = Url::parse(&self.request.redirect_uri)
            .map(|url| url.origin().ascii_serialization())
            .map_err(|_| {
                consent_failure(&ConsentError::Malformed {
                    parameter: "redirect_uri",
                })
            })?;
        let mut view = self.view(caller, &description);
        view.notice = pages::notice(&effect).to_owned();
        let shown = Shown {
            request: self.request.clone(),
            description,
        };
        view.csrf = inner.pending.keep(self.tenant.id, caller.account, shown, self.now);
        Ok(pages::consent(self.form, &view, &lead_to))
    }

    async fn description(&self) -> Result<AppDescription, Failure> {
        let inner = &self.console.inner;
        let source = inner
            .identity
            .description_source(&self.request, self.now)
            .await
            .map_err(|error| consent_failure(&error))?;
        match source {
            DescriptionSource::Local(description) => Ok(*description),
            DescriptionSource::Remote { url, authority } => {
                let document = inner.fetcher.fetch(&url, self.correlation).await.map_err(|why| {
                    tracing::warn!(%url, why, "an application's description cannot be fetched");
                    Failure::new(
                        StatusCode::BAD_GATEWAY,
                        ErrorId::MigrationServerConnectionFailed.as_str(),
                        format!("The application's description cannot be fetched: {why}."),
                        "Ask the partner whether its server runs and the link is right, then open the link again.",
                    )
                })?;
                check_app_description(&document, &authority, self.request.client_id, self.now)
                    .map_err(|error| consent_failure(&ConsentError::Description(error)))
            }
        }
    }

    fn view(&self, caller: &AdminCaller, description: &AppDescription) -> ConsentView {
        let days = self.console.inner.identity.consent_days();
        let ends = self
            .now
            .saturating_add(SignedDuration::from_hours(24 * i64::from(days)))
            .unwrap_or(self.now);
        ConsentView {
            csrf: String::new(),
            notice: String::new(),
            display_name: description.display_name.clone(),
            app_id: description.app_id.to_string(),
            home_tenant: description.home_tenant.to_string(),
            home_domains: description.home_domains.clone(),
            issuer: description.issuer.clone(),
            permissions: description
                .permissions
                .iter()
                .map(|permission| PermissionView {
                    name: permission.name.clone(),
                    meaning: pages::permission_meaning(&permission.name).to_owned(),
                })
                .collect(),
            return_right: RETURN_RIGHT.to_owned(),
            ends: ends.strftime("%Y-%m-%d %H:%M UTC").to_string(),
            tenant: self.spelt.clone(),
            account: caller.name.clone(),
            redirect_uri: self.request.redirect_uri.clone(),
        }
    }

    async fn decide(&self, csrf: &str, accept: bool) -> Response {
        let Some(caller) = self.caller().await else {
            return self.sign_in_page(
                StatusCode::UNAUTHORIZED,
                Some("The session has ended; sign in again."),
                "",
            );
        };
        let tenant: TenantId = self.tenant.id;
        let inner = &self.console.inner;
        let Some(shown) = inner.pending.take(csrf, tenant, caller.account, self.now) else {
            return self.failed(&forged());
        };
        if !accept {
            tracing::info!(%tenant, app = %shown.request.client_id, name = %caller.name, "consent was cancelled");
            return self.see_other(&shown.request.failure_redirect());
        }
        let actor = Actor {
            caller: caller.name.clone(),
            origin: self.peer.clone(),
            correlation_id: self.correlation,
        };
        let grant = ConsentGrant {
            days: None,
            return_right: true,
        };
        let accepted = inner
            .identity
            .consent_accept(
                tenant,
                &shown.request,
                &shown.description,
                &caller,
                grant,
                &actor,
                self.now,
            )
            .await;
        match accepted {
            Ok(_) => self.see_other(&shown.request.success_redirect(tenant)),
            Err(error) => self.failed(&consent_failure(&error)),
        }
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}

fn unavailable() -> Failure {
    Failure::new(
        StatusCode::SERVICE_UNAVAILABLE,
        ErrorId::CommunicationErrorTransient.as_str(),
        "The server cannot do this for the moment.",
        "Try again; the server's log has the cause under the correlation id.",
    )
}

/// The form was not shown to this administrator, was answered already, or is too old.
fn forged() -> Failure {
    Failure::new(
        StatusCode::FORBIDDEN,
        ErrorId::AccessDenied.as_str(),
        "This form was not shown to you, was answered already, or is older than ten minutes. Nothing was changed.",
        "Open the link again.",
    )
}

fn consent_failure(error: &ConsentError) -> Failure {
    let id = error.error_id();
    let status = match error {
        ConsentError::NeedAdminApproval => StatusCode::FORBIDDEN,
        ConsentError::AppNotFound { .. } => StatusCode::NOT_FOUND,
        ConsentError::Conflict { .. } | ConsentError::KeysReplaced => StatusCode::CONFLICT,
        ConsentError::Description(_) => StatusCode::BAD_GATEWAY,
        ConsentError::Store(_) | ConsentError::Keys(_) => StatusCode::SERVICE_UNAVAILABLE,
        ConsentError::MissingParameter { .. }
        | ConsentError::Malformed { .. }
        | ConsentError::RedirectMismatch { .. }
        | ConsentError::SingleTenant { .. }
        | ConsentError::PermissionMissing
        | ConsentError::BadDuration { .. } => StatusCode::BAD_REQUEST,
    };
    let mut text = capital(&error.to_string());
    if let ConsentError::Description(cause) = error {
        text = format!("{text}: {cause}");
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        tracing::error!(error = %error, cause = ?std::error::Error::source(error).map(ToString::to_string), "consent does not work");
    }
    let code = error
        .aadsts()
        .map_or_else(|| id.as_str().to_owned(), |number| format!("AADSTS{number}"));
    let failure = Failure::new(status, &code, format!("{text}."), error.advice());
    match error {
        ConsentError::NeedAdminApproval => failure.titled("Need admin approval"),
        ConsentError::MissingParameter { .. }
        | ConsentError::Malformed { .. }
        | ConsentError::AppNotFound { .. }
        | ConsentError::RedirectMismatch { .. }
        | ConsentError::SingleTenant { .. }
        | ConsentError::PermissionMissing
        | ConsentError::Conflict { .. }
        | ConsentError::KeysReplaced
        | ConsentError::BadDuration { .. }
        | ConsentError::Description(_)
        | ConsentError::Store(_)
        | ConsentError::Keys(_) => failure,
    }
}

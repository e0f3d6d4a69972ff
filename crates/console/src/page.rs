//! What every page has: layout, style sheet, security headers, and error pages.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use maud::{DOCTYPE, Markup, html};
use rehome_domain::id::CorrelationId;
use serde::Serialize;

/// Where the style sheet is.
pub(crate) const STYLE_PATH: &str = "/console/style.css";

/// The style sheet; the pages hold no script and no inline style.
pub(crate) const STYLE: &str = "\
body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem;color:#1b1b1b;background:#fff}\
h1{font-size:1.5rem}table{border-collapse:collapse;width:100%}\
th{text-align:left;vertical-align:top;padding:.3rem 1rem .3rem 0;width:30%;font-weight:600}\
td{padding:.3rem 0;overflow-wrap:anywhere}\
label{display:block;margin:.8rem 0 .2rem}\
input[type=text],input[type=password]{width:100%;padding:.4rem;font:inherit;box-sizing:border-box}\
button{font:inherit;padding:.5rem 1.2rem;margin:1rem .5rem 0 0;cursor:pointer}\
.code{font-family:ui-monospace,monospace}.note{border-left:4px solid #c80;padding:.2rem .8rem;background:#fff7e6}\
.error{border-left:4px solid #b00;padding:.2rem .8rem;background:#fdeaea}.small{color:#555;font-size:.85rem}";

/// Whether the caller reads pages or JSON (the command line).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// HTML for people.
    Page,
    /// JSON for `rehome consent`.
    Json,
}

impl Form {
    /// What the request's Accept header asks for.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let json = headers
            .get(header::ACCEPT)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|accept| {
                accept
                    .split(',')
                    .any(|kind| kind.trim().starts_with("application/json"))
            });
        if json { Self::Json } else { Self::Page }
    }
}

/// A page with its title, under headers that allow nothing but itself. `lead_to` is the origin of the one other place
/// that the page's form may end at: browsers hold form-action against the redirect that answers a form, too.
pub(crate) fn page(status: StatusCode, title: &str, content: &Markup, lead_to: Option<&str>) -> Response {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                link rel="stylesheet" href=(STYLE_PATH);
            }
            body { main { h1 { (title) } (content) } }
        }
    };
    let form_action = lead_to.map_or_else(|| "'self'".to_owned(), |origin| format!("'self' {origin}"));
    let policy = format!(
        "default-src 'none'; style-src 'self'; form-action {form_action}; base-uri 'none'; frame-ancestors 'none'"
    );
    let mut response = (status, markup.into_string()).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    // An origin is ASCII; should it ever not be, the form simply cannot leave.
    let policy = HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    security_headers(headers);
    response
}

/// Headers of every answer of the console.
pub(crate) fn security_headers(headers: &mut HeaderMap) {
    let fixed: [(HeaderName, &'static str); 6] = [
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// A JSON answer for the command line.
pub(crate) fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    let mut response = (status, axum::Json(value)).into_response();
    security_headers(response.headers_mut());
    response
}

/// What went wrong, as the administrator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Failure {
    /// The status of the answer.
    #[serde(skip)]
    pub(crate) status: StatusCode,
    /// Heading of the page.
    #[serde(skip)]
    pub(crate) title: &'static str,
    /// `AADSTS…`, or an id of ours where the reference has no code.
    pub(crate) code: String,
    /// What happened.
    pub(crate) message: String,
    /// What to do; may be empty.
    pub(crate) advice: String,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, code: &str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            status,
            title: "This did not work",
            code: code.to_owned(),
            message: message.into(),
            advice: advice.into(),
        }
    }

    pub(crate) fn titled(mut self, title: &'static str) -> Self {
        self.title = title;
        self
    }

    /// The answer in the form that the caller reads.
    pub(crate) fn answer(&self, form: Form, correlation: CorrelationId) -> Response {
        match form {
            Form::Json => json(
                self.status,
                &Errors {
                    error: self,
                    correlation_id: correlation.to_string(),
                },
            ),
            Form::Page => {
                let content = html! {
                    div.error {
                        p { strong.code { (self.code) } ": " (self.message) }
                        @if !self.advice.is_empty() { p { (self.advice) } }
                    }
                    p.small { "Correlation id: " span.code { (correlation) } }
                };
                page(self.status, self.title, &content, None)
            }
        }
    }
}

#[derive(Serialize)]
struct Errors<'a> {
    error: &'a Failure,
    correlation_id: String,
}

//! What every request gets: a correlation id, a span in the log, bounded bodies, and errors in one form.

use crate::compression;
use crate::pace::Link;
use axum::body::Body;
use axum::extract::{ConnectInfo, FromRequestParts, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use rehome_domain::id::CorrelationId;
use serde::Serialize;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tracing::Instrument;
use uuid::Uuid;

use crate::CORRELATION_HEADER;
/// Largest form, octets.
pub(crate) const FORM_LIMIT: usize = 64 * 1024;
/// Largest JSON body, octets.
pub(crate) const JSON_LIMIT: usize = 1024 * 1024;
/// Largest request of `prepare`, which names every item on which the two sides differ, octets.
pub(crate) const PREPARE_LIMIT: usize = 32 * 1024 * 1024;
/// Largest body of a command (CSV data and secrets come in it), octets.
pub(crate) const COMMAND_LIMIT: usize = 32 * 1024 * 1024;
/// Time for a request's body to arrive.
const BODY_TIME: Duration = Duration::from_secs(60);

/// The request's correlation id as an extractor. Rooms nested here find it as the extension [`CorrelationId`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Correlation(pub(crate) CorrelationId);

impl<S: Sync> FromRequestParts<S> for Correlation {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self(
            parts
                .extensions
                .get::<CorrelationId>()
                .copied()
                .unwrap_or_else(new_correlation),
        ))
    }
}

fn new_correlation() -> CorrelationId {
    CorrelationId(Uuid::new_v4())
}

/// Where the request's connection comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let address = parts
            .extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map(|info| info.0.ip());
        Ok(Self(address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))))
    }
}

/// How the answer to a request may travel: the connection's link, and whether the caller takes zstd.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) link: Arc<Link>,
    pub(crate) zstd: bool,
}

impl<S: Sync> FromRequestParts<S> for Way {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self {
            link: parts.extensions.get::<Arc<Link>>().cloned().unwrap_or_default(),
            zstd: compression::is_offered(&parts.headers),
        })
    }
}

/// Takes the caller's `client-request-id` or makes one, echoes it, and logs the request under it: method, path
/// without query, status. Queries and headers may hold secrets and are never logged.
pub(crate) async fn correlate(mut request: Request, next: Next) -> Response {
    let correlation = request
        .headers()
        .get(CORRELATION_HEADER)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(new_correlation);
    request.extensions_mut().insert(correlation);
    let span = tracing::info_span!(
        "request",
        correlation_id = %correlation,
        method = %request.method(),
        path = request.uri().path(),
    );
    async move {
        let mut response = next.run(request).await;
        tracing::info!(status = response.status().as_u16(), "answered");
        if let Ok(value) = HeaderValue::from_str(&correlation.to_string()) {
            response.headers_mut().insert(CORRELATION_HEADER, value);
        }
        response
    }
    .instrument(span)
    .await
}

/// Why a request's body is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyRefusal {
    /// Longer than it may be.
    TooLong(usize),
    /// Not the media type that is needed.
    MediaType(&'static str),
    /// Broke off, or took too long.
    Broken,
}

impl BodyRefusal {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Broken => StatusCode::BAD_REQUEST,
        }
    }
}

impl std::fmt::Display for BodyRefusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLong(limit) => write!(f, "The request is longer than {limit} octets."),
            Self::MediaType(needed) => write!(f, "The request's Content-Type must be {needed}."),
            Self::Broken => f.write_str("The request's body did not arrive whole in time."),
        }
    }
}

/// Reads a whole body of `media_type` within `limit`.
pub(crate) async fn read_body(
    headers: &HeaderMap,
    body: Body,
    media_type: &'static str,
    limit: usize,
) -> Result<Bytes, BodyRefusal> {
    let given = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case(media_type) {
        return Err(BodyRefusal::MediaType(media_type));
    }
    let announced: Option<usize> = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(BodyRefusal::TooLong(limit));
    }
    let whole = tokio::time::timeout(BODY_TIME, axum::body::to_bytes(body, limit))
        .await
        .map_err(|_| BodyRefusal::Broken)?;
    whole.map_err(|error| {
        let too_long =
            std::error::Error::source(&error).is_some_and(|cause| cause.is::<http_body_util::LengthLimitError>());
        if too_long {
            BodyRefusal::TooLong(limit)
        } else {
            BodyRefusal::Broken
        }
    })
}

/// A JSON answer that no cache keeps.
pub(crate) fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(octets) => {
            let headers = [
                (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
                (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            ];
            (status, headers, octets).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

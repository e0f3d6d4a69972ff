//! Server-rendered pages for administrators: sign-in and consent.
//!
//! The pages hold no script and work without one; asked for JSON, consent answers the command line with the same
//! facts. Every form carries a token that its page alone knows.
//!
//! Never: query the store; fetch anything from another server before an administrator has signed in.

mod consent;
mod page;
mod pages;
mod pending;

use async_trait::async_trait;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderValue, header};
use jiff::Timestamp;
use rehome_domain::id::CorrelationId;
use rehome_identity::Identity;
use std::sync::Arc;

/// Largest form, octets.
const FORM_LIMIT: usize = 64 * 1024;

/// Fetches what other authorities publish; carried out over HTTPS by the one who wires the rooms together.
#[async_trait]
pub trait DescriptionFetcher: Send + Sync {
    /// Reads the signed application description at `url`: bounded in size and time, without redirects, and from a
    /// private or loopback address only where the operator allows it.
    ///
    /// # Errors
    /// In words for the administrator, with the server's name.
    async fn fetch(&self, url: &str, correlation: CorrelationId) -> Result<String, String>;
}

/// What the pages are made from. Cheap to clone.
#[derive(Clone)]
pub struct Console {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Identity,
    fetcher: Arc<dyn DescriptionFetcher>,
    now: Box<dyn Fn() -> Timestamp + Send + Sync>,
    pending: pending::Pending<consent::Shown>,
}

impl Console {
    /// The pages over this identity; `now` is the service's clock.
    pub fn new(
        identity: Identity,
        fetcher: Arc<dyn DescriptionFetcher>,
        now: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Self {
        let pending = pending::Pending::new();
        Self {
            inner: Arc::new(Inner {
                identity,
                fetcher,
                now: Box::new(now),
                pending,
            }),
        }
    }

    /// The routes: `/{tenant}/adminconsent` and what its pages need. The request's network address is taken from the
    /// extension [`axum::extract::ConnectInfo`], its correlation id from the extension [`CorrelationId`].
    pub fn router(self) -> Router {
        Router::new()
            .route("/{tenant}/adminconsent", get(consent::show).post(consent::answer))
            .route(page::STYLE_PATH, get(style))
            .layer(DefaultBodyLimit::max(FORM_LIMIT))
            .with_state(self)
    }
}

async fn style() -> Response {
    let mut response = page::STYLE.into_response();
    page::security_headers(response.headers_mut());
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/css; charset=utf-8"),
    );
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
    response
}

#[cfg(test)]
mod tests;

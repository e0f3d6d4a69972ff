//! The client's side of our HTTP protocols.

mod admin;
mod believed;
mod client_credentials;
mod connector;
mod exchange;
mod fetch;
mod known;
mod origin;
mod partner;
mod proxy;

pub use admin::{
    AdminClient, AdminError, AdminRefusal, ConsentAnswer, ConsentPermission, ConsentQuestion, Invoked, Session,
};
pub use client_credentials::{ClientToken, ClientTokenError, OAuthClient};
pub use connector::{ConnectError, ConnectorSettings, HttpsConnector, STREAM_WINDOW, STREAMS_PER_CONNECTION};
pub use exchange::{Answer, TransportError};
pub use fetch::{Fetcher, FindError};
pub use origin::{Origin, OriginError, is_public};
pub use partner::PartnerClient;

#[cfg(test)]
pub(crate) use exchange::{Bounds, Call, Lane, StreamKind, Streamed, once, once_without_redirect};

/// An error with its causes, in one line. Texts that repeat their cause are not said twice.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = next.source();
    }
    text
}

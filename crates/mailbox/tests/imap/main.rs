//! The IMAP driver: on real servers, and on a scripted one that says what real ones rarely say.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod answers;
mod appending;
mod common;
mod reading;
mod rounds;
mod script;
mod servers;
mod sign_in;
mod torture;
mod turns;

use rehome_mailbox::imap::{Security, ServerSettings, SignIn};
use std::sync::Arc;

/// A TLS configuration that trusts nobody.
fn no_tls() -> Arc<rustls::ClientConfig> {
    tls_trusting(rustls::RootCertStore::empty())
}

fn tls_trusting(roots: rustls::RootCertStore) -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

fn plain(port: u16, sign_in: SignIn) -> ServerSettings {
    ServerSettings::new("127.0.0.1", port, Security::Plain, no_tls(), sign_in)
}

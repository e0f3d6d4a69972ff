//! Both ends of our HTTP protocols.
//!
//! [`server`] answers REST, the MRS proxy, and the token, keys, discovery and outcome endpoints; [`client`] asks them
//! for the mover, the source's outcome question, the command line and tests. [`tls`] makes both ends' TLS settings
//! from certificate files.
//!
//! Never: contain a business rule. What is allowed is decided in `domain` and `identity`; what happens, in `migrate`
//! and `cmdlets`.

pub mod client;
mod compression;
#[doc(hidden)]
pub mod fuzz;
mod pace;
pub mod server;
pub mod tls;

/// Names the correlation id in requests and answers.
pub(crate) const CORRELATION_HEADER: http::HeaderName = http::HeaderName::from_static("client-request-id");

#[cfg(test)]
mod transport_tests;

#[cfg(test)]
mod door_tests;

//! The control plane, in two halves that share only `domain`'s cutover and the bodies of [`protocol`].
//!
//! `source` calls the gate, runs `replicate`'s exporter and answers the verbs; `target` holds batches,
//! schedule and mover.
//!
//! Never: speak IMAP or SQL; render text.

pub mod protocol;

mod clock;
pub use clock::Clock;
/// Which side of a move a reported item is at fault on.
pub use rehome_replicate::Side as ReportSide;

mod ledger;

pub mod receipt;

pub mod source;

pub mod target;

/// An error with all its causes in one line, for logs and problems.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

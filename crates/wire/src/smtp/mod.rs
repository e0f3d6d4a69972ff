//! SMTP and LMTP, server and client, without I/O: octets in, events and octets out.
//!
//! Spoken are RFC 5321 (SMTP), 2033 (LMTP), 3207 (STARTTLS), 2920 (PIPELINING), 1870 (SIZE), 6152 (8BITMIME) and
//! 2034 with 3463 (enhanced status codes). SMTPUTF8 is not: addresses outside ASCII are refused with a code that says
//! so. Message content is opaque, except that CR and LF must stand together (RFC 5321 §2.3.8), and only CR LF `.` CR LF
//! ends it: whoever reads line ends more generously lets one message hide inside another.

mod address;
mod client;
mod data;
mod reply;
mod server;

pub use address::{AddressError, parse_recipient, parse_sender};
pub use client::{Capabilities, Client, ClientConfig, ClientError, ClientEvent, OpenStage, TlsPolicy};
pub use reply::{Reply, ReplyError};
pub use server::{BodyKind, Server, ServerConfig, ServerEvent};

/// Longest command line that is read, in octets with its CR LF. RFC 5321 asks for 512 and for more per extension.
pub const MAX_COMMAND_LINE: usize = 4096;
/// Most recipients of one transaction; the next ones are answered 452 (RFC 5321 §4.5.3.1.10).
pub const MAX_RECIPIENTS: usize = 1000;
/// How many octets of a message one event of the server carries at most.
pub const DATA_STEP: usize = 64 * 1024;

/// Which of the two protocols is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// SMTP (RFC 5321): one answer for a message.
    Smtp,
    /// LMTP (RFC 2033): one answer for each accepted recipient.
    Lmtp,
}

#[cfg(test)]
mod tests;

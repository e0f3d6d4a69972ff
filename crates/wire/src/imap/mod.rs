//! IMAP, the client's side, without I/O: octets in, events out; commands in, octets out.
//!
//! Spoken are RFC 9051 (IMAP4rev2) and RFC 3501 (IMAP4rev1) with the extensions that [`Capabilities`] names. A message
//! body is opaque and never held: it is handed on in the pieces in which it came. What servers send is read
//! generously, token by token, because real ones deviate: one odd token costs that token, at most that response, never
//! the connection. Lengths and counts are strict and bounded, because memory and framing hang on them.
//!
//! Reading order: [`Client`] is the connection, [`Command`] what can be asked, [`Event`] what comes back.

mod capability;
mod client;
mod code;
mod command;
mod cursor;
mod date;
mod name;
mod output;
mod parse;
mod parse_code;
mod parse_fetch;
mod request;
mod response;
mod sasl;
mod scram;
mod set;
mod splitter;

pub use capability::Capabilities;
pub use client::{Client, ProtocolError, Tag};
pub use code::{Code, MetadataRefusal};
pub use command::Command;
pub use date::{format_date_time, parse_date_time};
pub use name::{MailboxName, NameEncoding};
pub use output::{Literals, Output};
pub use request::{
    AppendForm, AppendItem, BodyRequest, FetchChanges, FetchItems, ListOptions, SearchKey, SearchReturn, SelectMode,
    StatusItems, StoreMode, SubscribedOnly, Sync, Uids,
};
pub use response::{
    Acl, Answer, BodyStart, Condition, ESearch, Event, Fetch, FetchedBody, ListAttribute, ListAttributes, Listed,
    MailboxStatus, Metadata, Namespace, Namespaces, Quota, QuotaResource, Section,
};
pub use sasl::{Credentials, Mechanism, Response, Sasl, SaslError};
pub use set::{OrderedUids, chunks};

/// Longest response that is held, in octets, with the literals inside it and without bodies.
pub const MAX_RESPONSE: usize = 1024 * 1024;
/// Longest SEARCH, ESEARCH or VANISHED response, in octets: a million uids fit.
pub const MAX_SET_RESPONSE: usize = 16 * 1024 * 1024;
/// Longest literal that is held as a string, in octets; a longer one that is not a body is skipped.
pub const MAX_STRING: u64 = 64 * 1024;
/// Longest literal that is followed at all, in octets.
pub const MAX_LITERAL: u64 = 1 << 40;
/// Most literals of one response.
pub const MAX_LITERALS: usize = 4096;
/// How many octets of a body one event carries at most.
pub const BODY_STEP: usize = 64 * 1024;
/// Longest text of an answer that is kept, in octets.
pub const MAX_TEXT: usize = 1024;
/// Most entries of a list inside one response (quota roots, access rights, namespaces, identification fields).
pub const MAX_ENTRIES: usize = 1024;
/// Most ranges of a set of uids in one response.
pub const MAX_SET_RANGES: usize = 1_000_000;
/// Longest command line that careful servers take, in octets (RFC 7162 §4 asks for 8192): bound sets by [`chunks`].
pub const MAX_COMMAND_LINE: usize = 8000;

#[cfg(test)]
mod tests;

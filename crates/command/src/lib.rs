//! What a command declaration and a command's value are, and how arguments bind to parameters.
//!
//! A [`Declaration`] says what a cmdlet is called, takes and returns. Words from a command line
//! ([`bind_words`]) or a JSON object ([`bind_json`]) become [`Parameters`], checked against it. Help is
//! rendered from it ([`render_help`]).
//!
//! Never: know a tenant, a cmdlet's name, HTTP.

mod bind;
mod declaration;
mod help;
mod json;
mod literal;
mod time;
mod value;
mod words;

pub use bind::{BindError, Parameters};
pub use declaration::{Declaration, Effect, Example, Parameter, ParameterType, Property};
pub use help::render_help;
pub use json::bind_json;
pub use time::{TimeError, parse_date_time, parse_time_span, reading_of, time_span_text};
pub use value::{Credential, Object, Secrets, Value};
pub use words::{Inputs, bind_words};

/// Longest text of one argument, octets.
pub const MAX_TEXT: usize = 64 * 1024;
/// Most elements of one list.
pub const MAX_LIST: usize = 10_000;
/// Largest byte[] argument, octets.
pub const MAX_OCTETS: usize = 8 * 1024 * 1024;

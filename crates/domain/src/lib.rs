//! The nouns of the service and the rules they obey.
//!
//! Recipients, relationships, the gate, readiness, conversions, batch and user states, both cutover
//! machines, and where an address goes. Every rule is a pure function: values in, a decision *with
//! its reason* out.
//!
//! Never: know a protocol or a database, do I/O, read a clock, be async. Types here are not
//! serialised; what crosses a border is declared at that border.

pub mod id;

pub mod address;

pub mod recipient;

pub mod tenant;

pub mod relationship;

pub mod consent;

pub mod error_id;

pub mod endpoint;

pub mod batch;

pub mod moves;

pub mod readiness;

pub mod conversion;

pub mod gate;

pub mod cutover;

pub mod sweep;

pub mod mailflow;

pub mod csv;

pub mod folder_pattern;

pub mod adoption;

pub mod user_list;

pub mod naming;

pub mod consistency;

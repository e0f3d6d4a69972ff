//! Every byte format and protocol flow of Rehome, without I/O.
//!
//! Octets go in; values, events and octets come out. Nothing here opens a socket, starts a task, reads a clock or
//! knows what a tenant is. What two organisations must agree on to the octet (the canonical form of an item, its
//! digest, the replication frames, the leaves and roots of the proof) is defined here once and documented in
//! `schema/protocol.cddl`.

pub mod canonical;
pub mod digest;
pub mod flags;
pub mod frames;
pub mod imap;
pub mod inclusion;
pub mod proof;
pub mod receipt;
pub mod smtp;
pub mod trace_header;
pub mod uid_set;

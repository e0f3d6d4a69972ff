//! A mailbox as the engine sees it, and the drivers that serve one.
//!
//! Never: know a tenant or a batch. Drivers keep no sync state; comparing is the mover's job.

pub mod conformance;
mod contract;
pub mod imap;
pub mod maildir;
pub mod memory;
pub mod spooled_delivery;

pub use contract::*;

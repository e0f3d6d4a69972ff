//! Real servers, foreign clients and other things that tests of several rooms share.
//!
//! Never: know a type of ours. What a test knows in our types it writes into files that a foreign program reads.

pub mod certificate;
pub mod checker;
pub mod cyrus;
pub mod dovecot;
mod fill;
pub mod imap;
pub mod line;
pub mod meter;
mod own;
pub mod process;
pub mod token;
pub mod wait;

/// Whether `REHOME_WITHOUT` (names separated by commas) leaves out a server, so that its tests may be passed over.
#[must_use]
pub fn is_left_out(server: &str) -> bool {
    std::env::var("REHOME_WITHOUT").is_ok_and(|names| names.split(',').any(|name| name.trim() == server))
}

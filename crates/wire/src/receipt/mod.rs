//! The files in which a receipt and the proof of a single message travel: strict, deterministic CBOR sequences.
//!
//! `schema/receipt.cddl` describes both. Every item is written in one way only (RFC 8949 §4.2) and everything that can be
//! recomputed is: the order of folders, leaves and exceptions, the counts, every folder's root, the mailbox root and the
//! root over the exceptions. The last item holds the digest of all octets before it, so that damage shows even where no
//! key is at hand. The statements are opaque text here; who signed them, and whether their roots are these, is for the
//! caller.

mod find;
mod items;
mod read;
mod single;

#[cfg(test)]
mod tests;

pub use find::{MAX_PLACES, SingleFinder};
pub use items::{
    MAX_REASON, ReceiptException, ReceiptLeaf, Totals, exceptions_root, write_closing, write_end, write_folder_end,
    write_folder_head, write_opening,
};
pub use read::{Part, ReceiptReader};
pub use single::{MAX_SINGLE, SingleEntry, SingleProof};

/// What a receipt's sections begin with.
pub const RECEIPT_MAGIC: &str = "rehome-receipt";
/// What the proof of a single message begins with.
pub const SINGLE_MAGIC: &str = "rehome-receipt-proof";
/// The version of both forms.
pub const VERSION: u8 = 1;
/// Longest item of a receipt, octets; statements are the longest.
pub const MAX_ITEM: usize = 1024 * 1024;
/// Most statements in one section: the source's and the target's.
pub const MAX_STATEMENTS: usize = 2;
/// Longest statement, octets.
pub const MAX_STATEMENT: usize = 256 * 1024;

/// Why octets are not a receipt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// An item is not what must stand there, or is not written in the one form that it has.
    #[error("at octet {at}: {why}")]
    Malformed {
        /// The item's first octet, counted from 0.
        at: u64,
        /// What is wrong.
        why: String,
    },
    /// The octets end before the receipt does.
    #[error("it ends too early, after {at} octets")]
    Truncated {
        /// How many octets there are.
        at: u64,
    },
    /// What is recomputed is not what is written.
    #[error("{what} is not what its items make")]
    Differs {
        /// What.
        what: String,
    },
}

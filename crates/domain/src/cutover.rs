//! The two cutover machines. Exactly one tenant accepts mail for a mailbox at any time.
//!
//! ```text
//! source: Open → Locked(attempt, lease) → Prepared(attempt) → Committed(attempt)    Prepared → Open only by Abort(attempt)
//! target: MailUser/syncing → Closing(attempt) → Decided(attempt) → Done             Closing → Aborted(attempt) → syncing
//! ```

mod source;
mod target;

pub use source::*;
pub use target::*;

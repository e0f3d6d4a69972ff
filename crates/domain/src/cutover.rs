//! The two cutover machines. Exactly one tenant accepts mail for a mailbox at any time.
//!
//! ```text
//! source: Open → Locked(attempt, lease) → Prepared(attempt) → Committed(attempt)    Prepared → Open only by Abort(attempt)
//! target: MailUser/syncing → Closing(attempt) → Decided(attempt) → Done             Closing → Aborted(attempt) → syncing
//! ```
//!
//! By hand: the source's administrator may end a promise. Where he did so without the target's word, Commit is answered
//! `reopened`; the decision stands, and catch-up attempts follow until the source commits one of them.
//!
//! ```text
//! source: Prepared → Reopened(attempt) → Locked(attempt, catches up) → Prepared → Committed
//! target: Decided → Reopened → CatchingUp(attempt) → Decided(attempt) → Done        CatchingUp → CatchUpAborted → CatchingUp
//! ```
//!
//! The source's Committed ends with the time for which old content is kept (Released), or when the mailbox comes back by a
//! later move (Returned). `crates/domain/tests` has both machines explored together, with everything that may go wrong
//! between them.

mod source;
mod step;
mod target;

pub use source::*;
pub use step::*;
pub use target::*;

//! What becomes of arriving mail: an SMTP pass-through over one decision in `domain`.
//!
//! The pass-through has no queue. A sender gets a positive answer only when the message is durably in every local
//! mailbox, or the next hop has accepted it; until then the sender keeps it. After a kill between the next hop's answer
//! and ours the sender repeats: at most one double for each kill.
//!
//! - All accepted recipients of one transaction belong to one tenant and share one next hop ("here" is one); others are
//!   answered 452 and are sent again.
//! - A next hop is asked about a recipient before we answer for him, so its refusals reach the sender in time.
//! - A recipient's state is read when he is named, when the message is whole, and for local delivery once more under
//!   the mailbox's lock. What changed meanwhile is answered 451.
//! - A group goes to all its members' hops in one transaction, and one member's refusal is the group's. Every hop gets
//!   all of the message but its end before the mailboxes here are locked, and its end while they are, so that a cutover
//!   cannot come between. Where a hop fails after another one accepted, the sender repeats, and who has the message is
//!   passed over.
//! - Only recipients in our tenants' accepted domains are taken; where a mail user or a group leads out, it leads to
//!   the address that its administrator wrote there.
//!
//! Never: know batches; keep a queue.

mod asking;
mod decide;
mod handed_over;
mod link;
mod next_hop;
mod probe;
mod relay;
mod replies;
mod serve;
mod session;
mod settings;
mod spool;
#[cfg(test)]
mod tests;
mod transaction;

pub use probe::{ProbeError, ProbeOutcome};
pub use serve::{Routing, RoutingError};
pub use settings::{Route, RouteError, RoutingSettings, Timeouts, TlsPolicy};

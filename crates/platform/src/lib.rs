//! Which driver with which settings serves a mailbox: opens, hides, shows, closes and drains it, and delivers into it
//! under its lock. The only place where a tenant's mailbox meets a platform.
//!
//! Never: know a batch; speak a protocol.
//!
//! On a maildir platform a mailbox is the folder `location` below the platform's root. Everything of ours that is not
//! a served mailbox lies in `.rehome` below the same root, so that showing and closing is one rename:
//!
//! ```text
//! .rehome/staging/{move}          contents that grow unseen, until the move is decided
//! .rehome/closed/{guid}-{move}    contents of a mailbox that has moved away, until retention ends
//! .rehome/locks/{guid}            the lock that deliveries share and a cutover takes alone
//! ```

mod delivery;
mod error;
mod place;
mod platforms;

pub use delivery::{Delivery, DeliveryLock, WholeDelivery};
pub use error::{PlatformConfigError, PlatformError};
pub use place::{LocationError, Place};
pub use platforms::{Driver, PlatformConfig, Platforms};
pub use rehome_mailbox::{
    ErrorScope, Mailbox, MailboxError, Retry,
    maildir::adopt::{Inspection, Problem as InspectionProblem, ProblemKind as InspectionProblemKind},
};

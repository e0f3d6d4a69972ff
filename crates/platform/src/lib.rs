//! Which driver with which settings serves a mailbox: opens, hides, shows, closes and drains it, and delivers into it
//! under its lock. The only place where a tenant's mailbox meets a platform.
//!
//! Never: know a batch; speak a protocol.
//!
//! On a maildir platform a mailbox is the folder `location` below the platform's root, and showing and closing is a
//! rename. On an IMAP platform it is the account `location`, and showing and closing is to let its user in or to keep
//! him out, which the administrator's program does.

mod access;
mod config;
mod delivery;
mod error;
mod imap;
mod inspection;
mod maildir;
mod place;
mod platforms;
mod records;
mod template;
mod tokens;

pub use access::AccessError;
pub use config::{
    AccessCommand, AccessConfig, AccountTemplate, AccountTemplateError, ImapConfig, LockMethod, NewMailbox,
    PlatformConfig,
};
pub use delivery::{Delivery, DeliveryLock, WholeDelivery};
pub use error::{PlatformConfigError, PlatformError};
pub use inspection::Inspection;
pub use place::{LocationError, Place};
pub use platforms::{Driver, Platforms};
pub use rehome_mailbox::{
    ErrorScope, Mailbox, MailboxError, Retry,
    imap::{AccessTokens, OAuthMechanism, Security, ServerSettings, SignIn},
    maildir::adopt::{Problem as InspectionProblem, ProblemKind as InspectionProblemKind},
};
pub use template::{TemplateError, TemplateFound};
pub use tokens::{CachedTokens, FreshToken, TokenFetcher, TokenRefusal};

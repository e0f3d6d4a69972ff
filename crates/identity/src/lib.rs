//! Who is calling, for which organisation, with what right; and how we get tokens for the other side.
//!
//! Never: know mailboxes; log a secret; open a socket (callers carry what is built here over the network).
//!
//! [`Identity`] joins the pure parts with the store. Every time is an argument; every token kind
//! ([`jws::TokenType`]) is accepted at one door only.

pub mod access;
pub mod application;
pub mod authority;
pub mod consent;
pub mod description;
pub mod dpop;
pub mod error;
pub mod jws;
pub mod keyset;
pub mod partner;
pub mod receipt_keys;
pub mod seal;
pub mod statement;
pub mod token;

mod account;
mod clock;
mod password;
mod service;
mod session;

pub use account::{
    APPLICATION_ADMINISTRATION, AdminCaller, MINIMUM_PASSWORD_LENGTH, ORGANIZATION_MANAGEMENT, SignedIn,
};
pub use rehome_store::{
    AccountRow, Application, ApplicationGrant, ApplicationSecret, RequiredPermission, SignInAudience,
};
pub use seal::{Credential, SealKey};
pub use service::{
    Actor, ConsentGrant, Consented, DescriptionSource, Identity, IdentityConfig, NewSecret, TokenOrigin,
};
pub use session::{SESSION_COOKIE, session_cookie, session_cookie_ended, session_from_cookies};

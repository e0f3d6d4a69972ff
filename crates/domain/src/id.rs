//! Typed identifiers: one type per kind of object, so that one is never taken for another.

use std::{fmt, str::FromStr};
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl $name {
            /// The identifier with these 128 bits.
            #[must_use]
            pub const fn from_u128(bits: u128) -> Self {
                Self(Uuid::from_u128(bits))
            }

            /// The 128 bits.
            #[must_use]
            pub const fn as_u128(self) -> u128 {
                self.0.as_u128()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            /// Reads the hyphenated form, with or without braces, in any case.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text.trim()).map(Self)
            }
        }

        impl From<Uuid> for $name {
            fn from(value: Uuid) -> Self {
                Self(value)
            }
        }
    )+};
}

ids! {
    /// A tenant (organisation); part of its issuer URL, never changes.
    TenantId,
    /// A recipient's directory object (Exchange: `Guid`), not its mailbox.
    RecipientId,
    /// A mailbox's identity in the store; kept for ever, also across a move.
    ExchangeGuid,
    /// An application registration's client id (`AppId`).
    ApplicationId,
    /// A service principal: one application as consented to in one tenant.
    ServicePrincipalId,
    /// An administrator's account.
    AccountId,
    /// An organization relationship.
    RelationshipId,
    /// A migration endpoint.
    EndpointId,
    /// A migration batch (`BatchGuid`).
    BatchId,
    /// A move of one mailbox, known to both sides (`RequestGuid`).
    MoveId,
    /// One attempt to cut a move over: 128 random bits, stored by the target before Lock is sent.
    AttemptId,
    /// Stands in both sides' logs for one request.
    CorrelationId,
}

/// A number that grows each time a lease changes hands; a write with an older one is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Fence(pub i64);

//! What a tenant has consented to: service principals of other organisations' applications.

use crate::id::{ApplicationId, ServicePrincipalId, TenantId};
use jiff::Timestamp;

/// The application permission that lets a partner's mover read mailboxes in scope.
pub const ROLE_MAILBOX_MIGRATION: &str = "Mailbox.Migration";
/// The role of a return move, granted with the first consent and used by the old source's authority.
pub const ROLE_MAILBOX_RETURN: &str = "Mailbox.Return";
/// App id of the resource "Office 365 Exchange Online".
pub const EXCHANGE_ONLINE_APP_ID: ApplicationId = ApplicationId::from_u128(0x00000002_0000_0ff1_ce00_000000000000);
/// App role id of `Mailbox.Migration` on that resource; ours, since none is published.
pub const MAILBOX_MIGRATION_APP_ROLE_ID: uuid::Uuid = uuid::Uuid::from_u128(0x6f1d3b52_8c0e_4a57_9f0a_52656e686f6d);

/// The client as which an organisation takes its mailboxes back. It needs no application: its tenant's GUID stands for one.
#[must_use]
pub fn return_client(old_source: TenantId) -> ApplicationId {
    ApplicationId(old_source.0)
}

/// One application consented to in this tenant: the triple (issuer, home tenant, app id), never the app id alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePrincipal {
    /// The object; `oid` and `sub` of access tokens.
    pub id: ServicePrincipalId,
    /// In whose directory.
    pub tenant: TenantId,
    /// Issuer of the home tenant's authority, `https://{name}/{home tenant}/v2.0`.
    pub issuer: String,
    /// Where the application is registered.
    pub home_tenant: TenantId,
    /// The application.
    pub app_id: ApplicationId,
    /// Name shown at consent.
    pub display_name: String,
    /// Domains that the home tenant published at consent; routing addresses must lie in one of them.
    pub home_domains: Vec<String>,
    /// Where the outcome of an attempt can be asked.
    pub outcome_endpoint: Option<String>,
    /// Keys pinned at consent.
    pub pinned_keys: PinnedKeys,
    /// Application roles granted (`Mailbox.Migration`).
    pub roles: Vec<String>,
    /// Whether the return right was granted with it.
    pub return_right: bool,
    /// Who accepted, and when.
    pub accepted_by: String,
    /// When accepted.
    pub accepted_at: Timestamp,
    /// When it ends unless renewed (180 days by default).
    pub expires_at: Timestamp,
    /// When revoked, if it was.
    pub revoked_at: Option<Timestamp>,
}

impl ServicePrincipal {
    /// Whether it stands for an organisation that may take back what moved here, and for nothing else.
    #[must_use]
    pub fn is_return_client(&self) -> bool {
        self.roles == [ROLE_MAILBOX_RETURN] && self.app_id == return_client(self.home_tenant)
    }

    /// Whether the consent holds at `now`: neither revoked nor ended.
    #[must_use]
    pub fn in_force(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && now < self.expires_at
    }
}

/// The partner's public keys as pinned: a new set is taken only if a pinned key signed it and its number grew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedKeys {
    /// Grows with every published set.
    pub sequence: u64,
    /// The authority's token-signing keys and the tenant's long-lived statement key.
    pub keys: Vec<PinnedKey>,
}

/// One pinned P-256 key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedKey {
    /// Key id (RFC 7638 thumbprint).
    pub kid: String,
    /// What it may sign.
    pub purpose: KeyPurpose,
    /// Public key: the uncompressed point, 65 octets.
    pub public: Vec<u8>,
}

/// What a key may sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPurpose {
    /// Tokens, assertions, app descriptions, key sets.
    Token,
    /// Outcome statements and receipts: the tenant's long-lived key, never deleted.
    Statement,
}

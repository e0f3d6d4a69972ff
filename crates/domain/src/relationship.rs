//! Organization relationships: what one organisation allows another.

use crate::id::{ApplicationId, RecipientId, RelationshipId, ServicePrincipalId, TenantId};

/// An organization relationship.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrganizationRelationship {
    /// The object.
    pub id: RelationshipId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Identity, at most 64 characters, unique in the tenant.
    pub name: String,
    /// The partner's tenant GUIDs (as text) or DNS names; each in one relationship of the tenant only.
    pub domain_names: Vec<String>,
    /// Whether it works at all.
    pub enabled: bool,
    /// Whether mailbox moves are allowed.
    pub mailbox_move_enabled: bool,
    /// In which directions.
    pub mailbox_move_capability: MailboxMoveCapability,
    /// Groups whose direct members may leave (source side), by object id.
    pub mailbox_move_published_scopes: Vec<RecipientId>,
    /// The partner's application (source side).
    pub oauth_application_id: Option<ApplicationId>,
    /// The one service principal it was bound to when saved; a later consent never widens it.
    pub service_principal: Option<ServicePrincipalId>,
    /// Granted locks that may end without Prepare, per mailbox and day (ours; default 3).
    pub max_lock_attempts_per_day: u32,
    /// Days for which the old content of a mailbox that has moved is kept (source side, ours); none: as the operator set.
    pub content_retention_days: Option<u32>,
    /// Mailboxes that came from this partner may be taken back by him without an approval each (ours; default false).
    pub mailbox_return_without_approval: bool,
}

impl OrganizationRelationship {
    /// Whether `DomainNames` holds this tenant's GUID.
    #[must_use]
    pub fn names_tenant(&self, tenant: TenantId) -> bool {
        self.domain_names
            .iter()
            .any(|d| d.parse::<TenantId>().is_ok_and(|t| t == tenant))
    }
}

/// Flags of `MailboxMoveCapability`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MailboxMoveCapability {
    /// Mailboxes may come to us by our pull.
    pub inbound: bool,
    /// We may push (not built; stored and shown).
    pub outbound: bool,
    /// The partner may push to us (not built; stored and shown).
    pub remote_inbound: bool,
    /// The partner may pull from us.
    pub remote_outbound: bool,
}

impl std::fmt::Display for MailboxMoveCapability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let flags = [
            (self.inbound, "Inbound"),
            (self.outbound, "Outbound"),
            (self.remote_inbound, "RemoteInbound"),
            (self.remote_outbound, "RemoteOutbound"),
        ];
        let set: Vec<&str> = flags.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
        f.write_str(if set.is_empty() { "None" } else { "" })?;
        f.write_str(&set.join(", "))
    }
}

impl std::str::FromStr for MailboxMoveCapability {
    type Err = String;

    /// Reads a list divided by commas, in any case; `None` alone means no flag.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut out = Self::default();
        for word in text.split(',').map(str::trim).filter(|w| !w.is_empty()) {
            match word.to_ascii_lowercase().as_str() {
                "inbound" => out.inbound = true,
                "outbound" => out.outbound = true,
                "remoteinbound" => out.remote_inbound = true,
                "remoteoutbound" => out.remote_outbound = true,
                "none" => {}
                _ => {
                    return Err(format!(
                        "'{word}' is not a MailboxMoveCapability: use Inbound, Outbound, RemoteInbound, RemoteOutbound or None"
                    ));
                }
            }
        }
        Ok(out)
    }
}

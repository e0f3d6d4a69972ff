//! Role groups and the roles they hold.

use rehome_command::Declaration;
use rehome_identity::{AdminCaller, ORGANIZATION_MANAGEMENT};

pub(crate) const APPLICATION_ADMINISTRATION: &str = rehome_identity::APPLICATION_ADMINISTRATION;
pub(crate) const DISTRIBUTION_GROUPS: &str = "Distribution Groups";
pub(crate) const FEDERATED_SHARING: &str = "Federated Sharing";
pub(crate) const MAIL_RECIPIENTS: &str = "Mail Recipients";
pub(crate) const MAIL_RECIPIENT_CREATION: &str = "Mail Recipient Creation";
pub(crate) const MIGRATION: &str = "Migration";
pub(crate) const MOVE_MAILBOXES: &str = "Move Mailboxes";
pub(crate) const ORGANIZATION_CONFIGURATION: &str = "Organization Configuration";
pub(crate) const REMOTE_AND_ACCEPTED_DOMAINS: &str = "Remote and Accepted Domains";
pub(crate) const SECURITY_GROUPS: &str = "Security Group Creation and Membership";
pub(crate) const VIEW_ONLY_CONFIGURATION: &str = "View-Only Configuration";
pub(crate) const VIEW_ONLY_RECIPIENTS: &str = "View-Only Recipients";

/// Every role group with its roles.
pub(crate) const ROLE_GROUPS: &[(&str, &[&str])] = &[(
    ORGANIZATION_MANAGEMENT,
    &[
        APPLICATION_ADMINISTRATION,
        DISTRIBUTION_GROUPS,
        FEDERATED_SHARING,
        MAIL_RECIPIENTS,
        MAIL_RECIPIENT_CREATION,
        MIGRATION,
        MOVE_MAILBOXES,
        ORGANIZATION_CONFIGURATION,
        REMOTE_AND_ACCEPTED_DOMAINS,
        SECURITY_GROUPS,
        VIEW_ONLY_CONFIGURATION,
        VIEW_ONLY_RECIPIENTS,
    ],
)];

/// Whether one of the caller's role groups has the role.
pub(crate) fn has_role(caller: &AdminCaller, role: &str) -> bool {
    ROLE_GROUPS
        .iter()
        .any(|(group, roles)| caller.is_member_of(group) && roles.contains(&role))
}

/// The declaration as it exists for the caller: without the parameters that his roles do not allow; none when they do not
/// allow the cmdlet.
pub(crate) fn visible_to(caller: &AdminCaller, declaration: &Declaration) -> Option<Declaration> {
    if !declaration.roles.iter().any(|r| has_role(caller, r)) {
        return None;
    }
    let mut visible = declaration.clone();
    visible
        .parameters
        .retain(|p| p.roles.is_empty() || p.roles.iter().any(|r| has_role(caller, r)));
    Some(visible)
}

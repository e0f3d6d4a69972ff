//! New-DistributionGroup, and Add-, Get- and Remove-DistributionGroupMember.

use super::{
    attributes::{Names, identity, new_names, result_size},
    object,
};
use crate::{
    Cmdlet,
    context::{Call, Output},
    error::CommandError,
    handler,
    lookup::{ResultSize, Wanted, accepted_domains, check_accepted, check_addresses_free, recipient, smtp_address},
    roles::{DISTRIBUTION_GROUPS, SECURITY_GROUPS, VIEW_ONLY_RECIPIENTS, has_role},
};
use rehome_command::{Declaration, Effect, Parameter, ParameterType as T};
use rehome_domain::{
    error_id::ErrorId,
    naming::address_from_alias,
    recipient::{Group, GroupType, Recipient, RecipientKind},
};
use rehome_store::Tx;
use serde_json::json;

fn member() -> Parameter {
    Parameter::new(
        "Member",
        T::Identity,
        "The recipient: Name, Alias, any address, Guid or LegacyExchangeDN.",
    )
    .mandatory()
    .pipeline()
}

pub(super) fn cmdlets() -> Vec<Cmdlet> {
    vec![
        Cmdlet::new(
            Declaration::new("New", "DistributionGroup", Effect::Change, &[DISTRIBUTION_GROUPS, SECURITY_GROUPS], "Makes a distribution group or a mail-enabled security group.")
                .description(
                    "A group of type Security can be a publishing scope: its direct members are the mailboxes that a partner may take (New-OrganizationRelationship -MailboxMovePublishedScopes).",
                )
                .parameters(new_names())
                .parameters([
                    Parameter::new("Type", T::Text, "Distribution unless given. Security needs the role Security Group Creation and Membership.")
                        .allowed(&["Distribution", "Security"]),
                    Parameter::new("PrimarySmtpAddress", T::Text, "The group's address, in an accepted domain; made from the Alias unless given."),
                    Parameter::new("Members", T::List, "The first members."),
                ])
                .output(object::group_properties())
                .example("New-DistributionGroup -Name 'Leaving for Fabrikam' -Type Security", "Makes a scope group."),
            handler!(new_group),
        ),
        Cmdlet::new(
            Declaration::new("Add", "DistributionGroupMember", Effect::Change, &[DISTRIBUTION_GROUPS, SECURITY_GROUPS], "Adds a member to a group.")
                .description(
                    "Only direct members of a publishing scope may move; members of a group within the group do not count. A change to a publishing scope is recorded as such.",
                )
                .parameters([identity("group"), member()])
                .example("Add-DistributionGroupMember 'Leaving for Fabrikam' -Member reception", "Lets the reception's mailbox go."),
            handler!(add_member),
        ),
        Cmdlet::new(
            Declaration::new("Get", "DistributionGroupMember", Effect::Read, &[DISTRIBUTION_GROUPS, SECURITY_GROUPS, VIEW_ONLY_RECIPIENTS], "Shows the direct members of a group.")
                .parameters([identity("group"), result_size()])
                .output(object::recipient_properties())
                .example("Get-DistributionGroupMember 'Leaving for Fabrikam'", "Shows who may go."),
            handler!(get_members),
        ),
        Cmdlet::new(
            Declaration::new("Remove", "DistributionGroupMember", Effect::Change, &[DISTRIBUTION_GROUPS, SECURITY_GROUPS], "Removes a member from a group.")
                .description("Removing a mailbox from a publishing scope stops its contents from being served within a minute; a move that was promised already is carried to its end.")
                .parameters([identity("group"), member()])
                .example("Remove-DistributionGroupMember 'Leaving for Fabrikam' -Member reception", "Keeps the reception's mailbox here."),
            handler!(remove_member),
        ),
    ]
}

fn is_security(group: &Recipient) -> bool {
    match &group.kind {
        RecipientKind::Group(g) => g.group_type == GroupType::Security,
        RecipientKind::Mailbox(_) | RecipientKind::MailUser(_) => false,
    }
}

/// A security group is changed with another role than a distribution group.
fn check_role(call: &Call<'_>, group: &str, security: bool) -> Result<(), CommandError> {
    let role = if security { SECURITY_GROUPS } else { DISTRIBUTION_GROUPS };
    if has_role(&call.ctx.caller, role) {
        return Ok(());
    }
    Err(CommandError::new(
        ErrorId::AccessDenied,
        group,
        format!("'{group}' cannot be made or changed without the role {role}."),
        "An administrator of Organization Management has it.",
    ))
}

async fn new_group(call: &Call<'_>) -> Result<Output, CommandError> {
    let names = Names::of(call.parameters)?;
    let security = call.parameters.text("Type") == Some("Security");
    check_role(call, &names.name, security)?;
    let mut tx = call.ctx.store.write().await?;
    let domains = accepted_domains(call, &mut tx).await?;
    let made_up = domains.first().and_then(|d| address_from_alias(&names.alias, d));
    let primary = smtp_address(call.parameters, "PrimarySmtpAddress")?
        .or(made_up)
        .ok_or_else(|| {
            CommandError::parameter(
                "PrimarySmtpAddress",
                "No address can be made from the Alias.",
                "Give -PrimarySmtpAddress.",
            )
        })?;
    check_accepted(&domains, [&primary])?;
    let group_type = if security {
        GroupType::Security
    } else {
        GroupType::Distribution
    };
    let made = names
        .recipient(call, &mut tx, &primary, RecipientKind::Group(Group { group_type }))
        .await?;
    check_addresses_free(call, &mut tx, &made).await?;
    tx.recipient_insert(call.tenant(), &made).await?;
    for identity in call.parameters.list("Members").unwrap_or_default() {
        let member = recipient(call, &mut tx, &identity, Wanted::Any).await?;
        tx.group_member_add(call.tenant(), made.id, member.id).await?;
    }
    call.save(tx, &made.name).await?;
    Ok(Output::one(object::group(&made)))
}

/// The group and the recipient that the parameters name.
async fn pair(call: &Call<'_>, tx: &mut Tx) -> Result<(Recipient, Recipient), CommandError> {
    let group = recipient(
        call,
        tx,
        call.parameters.text("Identity").unwrap_or_default(),
        Wanted::Group,
    )
    .await?;
    check_role(call, &group.name, is_security(&group))?;
    let member = recipient(
        call,
        tx,
        call.parameters.text("Member").unwrap_or_default(),
        Wanted::Any,
    )
    .await?;
    Ok((group, member))
}

/// For the audit log: the relationships whose scope the group is, with what changed by GUID.
async fn scope_facts(
    call: &Call<'_>,
    tx: &mut Tx,
    group: &Recipient,
    member: &Recipient,
) -> Result<serde_json::Value, CommandError> {
    let relationships = tx.relationship_list(call.tenant()).await?;
    let scopes: Vec<String> = relationships
        .into_iter()
        .filter(|r| r.mailbox_move_published_scopes.contains(&group.id))
        .map(|r| r.name)
        .collect();
    let mut facts = json!({ "GroupGuid": group.id.to_string(), "MemberGuid": member.id.to_string() });
    if !scopes.is_empty() {
        facts["ScopeChangeOf"] = json!(scopes);
    }
    Ok(facts)
}

async fn add_member(call: &Call<'_>) -> Result<Output, CommandError> {
    let mut tx = call.ctx.store.write().await?;
    let (group, member) = pair(call, &mut tx).await?;
    if group.id == member.id {
        return Err(CommandError::parameter(
            "Member",
            "A group cannot be its own member.",
            "",
        ));
    }
    if !tx.group_member_add(call.tenant(), group.id, member.id).await? {
        return Err(CommandError::new(
            ErrorId::MemberAlreadyExists,
            member.name.as_str(),
            format!(
                "The recipient \"{}\" is already a member of the group \"{}\".",
                member.name, group.name
            ),
            "Nothing needs to be done.",
        ));
    }
    let facts = scope_facts(call, &mut tx, &group, &member).await?;
    let mut warnings = Vec::new();
    if facts.get("ScopeChangeOf").is_some() && !matches!(member.kind, RecipientKind::Mailbox(_)) {
        warnings.push(format!(
            "'{}' is of type {}. Only mailboxes that are direct members of a publishing scope may move; nested groups do not count.",
            member.name,
            member.recipient_type()
        ));
    }
    call.save_with(tx, &group.name, facts).await?;
    Ok(Output::none().warning(warnings))
}

async fn remove_member(call: &Call<'_>) -> Result<Output, CommandError> {
    let mut tx = call.ctx.store.write().await?;
    let (group, member) = pair(call, &mut tx).await?;
    if !tx.group_member_remove(call.tenant(), group.id, member.id).await? {
        return Err(CommandError::new(
            ErrorId::MemberNotFound,
            member.name.as_str(),
            format!(
                "The recipient \"{}\" is not a member of the group \"{}\".",
                member.name, group.name
            ),
            "Get-DistributionGroupMember shows the members.",
        ));
    }
    let facts = scope_facts(call, &mut tx, &group, &member).await?;
    call.save_with(tx, &group.name, facts).await?;
    Ok(Output::none())
}

async fn get_members(call: &Call<'_>) -> Result<Output, CommandError> {
    let mut tx = call.ctx.store.read().await?;
    let group = recipient(
        call,
        &mut tx,
        call.parameters.text("Identity").unwrap_or_default(),
        Wanted::Group,
    )
    .await?;
    let size = ResultSize::of(call.parameters);
    let mut members = tx.group_member_list(call.tenant(), group.id, size.to_read()).await?;
    let cut = size.cut(&mut members);
    Ok(Output::many(members.iter().map(object::recipient)).warning(cut))
}

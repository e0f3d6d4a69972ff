//! Organization relationships: what this organisation allows a partner.

use crate::{
    Cmdlet,
    context::{Call, Output},
    error::CommandError,
    handler,
    lookup::{Wanted, recipient},
    roles::{FEDERATED_SHARING, ORGANIZATION_CONFIGURATION, VIEW_ONLY_CONFIGURATION},
};
use rehome_command::{Declaration, Effect, Object, Parameter, ParameterType as T, Parameters, Property, Value};
use rehome_domain::{
    address::DomainName,
    endpoint::EndpointKind,
    error_id::ErrorId,
    id::{ApplicationId, RecipientId, RelationshipId, TenantId},
    naming::{MAX_NAME, checked_text},
    recipient::{GroupType, RecipientKind},
    relationship::{MailboxMoveCapability, OrganizationRelationship},
};
use rehome_identity::authority::Origin;
use rehome_store::Tx;
use uuid::Uuid;

/// Most entries of DomainNames in one request.
const MAX_DOMAIN_NAMES: usize = 238;
/// Locks that may end without Prepare, a mailbox and day, unless set.
const LOCK_ATTEMPTS: u32 = 3;

fn settings() -> Vec<Parameter> {
    vec![
        Parameter::new("Enabled", T::Boolean, "Whether the relationship works at all; true unless given.").roles(&[ORGANIZATION_CONFIGURATION]),
        Parameter::new("MailboxMoveEnabled", T::Boolean, "Whether mailboxes may move; false unless given. Both sides need true.")
            .roles(&[ORGANIZATION_CONFIGURATION]),
        Parameter::new(
            "MailboxMoveCapability",
            T::Flags,
            "In the target Inbound, in the source RemoteOutbound; both for both ways.",
        )
        .allowed(&["Inbound", "Outbound", "RemoteInbound", "RemoteOutbound", "None"])
        .roles(&[ORGANIZATION_CONFIGURATION]),
        Parameter::new(
            "MailboxMovePublishedScopes",
            T::EditableList,
            "In the source: mail-enabled security groups. Their direct members may leave; members of nested groups may not.",
        )
        .nullable()
        .roles(&[ORGANIZATION_CONFIGURATION]),
        Parameter::new(
            "OAuthApplicationId",
            T::Text,
            "In the source: the partner's application, which must have been consented to. The relationship is bound to that one service principal.",
        )
        .nullable()
        .roles(&[ORGANIZATION_CONFIGURATION]),
        Parameter::new(
            "MaxLockAttemptsPerDay",
            T::Integer,
            "In the source: how often a mailbox may be locked in a day without being completed; 3 unless given, 100 at most.",
        ),
        Parameter::new(
            "ContentRetentionDays",
            T::Integer,
            "In the source: for how many days the old content of a mailbox that has moved is kept, closed, before it is removed; 1 to 3650, the server's setting ([cutover] retention_days, 30 unless set) unless given. It counts from the move on, so it changes nothing for what has moved already.",
        )
        .nullable(),
        Parameter::new(
            "MailboxReturnWithoutApproval",
            T::Boolean,
            "In the target: whether the partner may take back mailboxes that came from him without Undo-MigrationUser being run here for each; false unless given.",
        )
        .roles(&[ORGANIZATION_CONFIGURATION]),
    ]
}

fn identity() -> Parameter {
    Parameter::new("Identity", T::Identity, "The relationship's Name or Guid.")
        .position(1)
        .pipeline()
}

fn properties() -> Vec<Property> {
    vec![
        Property::column("Name", "Unique in the organisation."),
        Property::new("Identity", "The Name."),
        Property::new("Guid", "The object."),
        Property::column("DomainNames", "The partner's tenant GUID."),
        Property::column("Enabled", "Whether it works at all."),
        Property::column("MailboxMoveEnabled", "Whether mailboxes may move."),
        Property::column("MailboxMoveCapability", "In which directions."),
        Property::new("MailboxMovePublishedScopes", "Groups whose direct members may leave."),
        Property::new("MailboxMovePublishedScopeGuids", "The same groups by Guid."),
        Property::new("OAuthApplicationId", "The partner's application."),
        Property::new("ServicePrincipalId", "The service principal it is bound to."),
        Property::new(
            "MaxLockAttemptsPerDay",
            "How often a mailbox may be locked in a day without being completed.",
        ),
        Property::new(
            "ContentRetentionDays",
            "For how many days the old content of what has moved is kept; empty: as the server is set.",
        ),
        Property::new(
            "MailboxReturnWithoutApproval",
            "Whether the partner may take his mailboxes back without an approval each.",
        ),
    ]
}

pub(super) fn cmdlets() -> Vec<Cmdlet> {
    let domain_names = |kind| {
        Parameter::new(
            "DomainNames",
            kind,
            "The partner's tenant GUID (Get-OrganizationConfig prints it there); each in one relationship only.",
        )
    };
    vec![
        Cmdlet::new(
            Declaration::new("New", "OrganizationRelationship", Effect::Change, &[FEDERATED_SHARING, ORGANIZATION_CONFIGURATION], "Allows mailbox moves with a partner organisation.")
                .description(
                    "Both sides make one. In the target: DomainNames is the source's tenant GUID, capability Inbound. In the source: the target's tenant GUID, capability RemoteOutbound, the application id that was consented to, and the scope groups.",
                )
                .parameters([
                    Parameter::new("Name", T::Text, "Unique in the organisation, at most 64 characters.").mandatory().position(1),
                    domain_names(T::List).mandatory().pipeline(),
                ])
                .parameters(settings())
                .output(properties())
                .example(
                    "New-OrganizationRelationship Contoso -DomainNames 2b7f0a94-3f0c-4d35-9a3e-6c1d5f0e7a11 -Enabled -MailboxMoveEnabled -MailboxMoveCapability Inbound",
                    "In the target.",
                )
                .example(
                    "New-OrganizationRelationship Fabrikam -DomainNames 7d3c9e52-1a44-4b8e-8f6b-0e9d2c5b4a33 -Enabled -MailboxMoveEnabled -MailboxMoveCapability RemoteOutbound -OAuthApplicationId 0f8f1b3e-8a51-4f7a-9d0c-1d2f3a4b5c6d -MailboxMovePublishedScopes 'Leaving for Fabrikam'",
                    "In the source.",
                ),
            handler!(new_relationship),
        ),
        Cmdlet::new(
            Declaration::new("Get", "OrganizationRelationship", Effect::Read, &[FEDERATED_SHARING, ORGANIZATION_CONFIGURATION, VIEW_ONLY_CONFIGURATION], "Shows organization relationships.")
                .parameters([identity()])
                .output(properties())
                .example("Get-OrganizationRelationship", "Shows all."),
            handler!(get_relationship),
        ),
        Cmdlet::new(
            Declaration::new("Set", "OrganizationRelationship", Effect::Change, &[FEDERATED_SHARING, ORGANIZATION_CONFIGURATION], "Changes an organization relationship.")
                .description("Switching it or its mailbox moves off stops content from being served within a minute; a cutover that was promised already is carried to its end.")
                .parameters([identity().mandatory(), Parameter::new("Name", T::Text, "A new Name."), domain_names(T::EditableList)])
                .parameters(settings())
                .example("Set-OrganizationRelationship Fabrikam -MailboxMoveEnabled:false", "Stops mailboxes from leaving."),
            handler!(set_relationship),
        ),
        Cmdlet::new(
            Declaration::new("Remove", "OrganizationRelationship", Effect::Destroy, &[FEDERATED_SHARING, ORGANIZATION_CONFIGURATION], "Removes an organization relationship.")
                .parameters([identity().mandatory()])
                .example("Remove-OrganizationRelationship Fabrikam", "Ends the relationship."),
            handler!(remove_relationship),
        ),
    ]
}

async fn find(call: &Call<'_>, tx: &mut Tx, identity: &str) -> Result<OrganizationRelationship, CommandError> {
    let wanted = identity.trim();
    let id = wanted.parse::<RelationshipId>().ok();
    let all = tx.relationship_list(call.tenant()).await?;
    let found = all
        .into_iter()
        .find(|r| r.name.to_lowercase() == wanted.to_lowercase() || Some(r.id) == id);
    match found {
        Some(found) => Ok(found),
        None => {
            let organisation = call.organisation(tx).await?;
            Err(CommandError::not_found(
                identity,
                &organisation,
                "Get-OrganizationRelationship lists them.",
            ))
        }
    }
}

async fn shown(tx: &mut Tx, r: &OrganizationRelationship) -> Result<Object, CommandError> {
    let mut scopes = Vec::new();
    for id in &r.mailbox_move_published_scopes {
        scopes.push(
            tx.recipient_get(r.tenant, *id)
                .await?
                .map_or_else(|| id.to_string(), |g| g.name),
        );
    }
    Ok(Object::new()
        .with("Name", r.name.as_str())
        .with("Identity", r.name.as_str())
        .with("Guid", r.id.0)
        .with("DomainNames", r.domain_names.clone())
        .with("Enabled", r.enabled)
        .with("MailboxMoveEnabled", r.mailbox_move_enabled)
        .with("MailboxMoveCapability", r.mailbox_move_capability.to_string())
        .with("MailboxMovePublishedScopes", scopes)
        .with(
            "MailboxMovePublishedScopeGuids",
            r.mailbox_move_published_scopes
                .iter()
                .map(|g| g.0)
                .collect::<Vec<Uuid>>(),
        )
        .with("OAuthApplicationId", r.oauth_application_id.map(|a| a.to_string()))
        .with("ServicePrincipalId", r.service_principal.map(|s| s.0))
        .with("MaxLockAttemptsPerDay", i64::from(r.max_lock_attempts_per_day))
        .with("ContentRetentionDays", r.content_retention_days.map(i64::from))
        .with("MailboxReturnWithoutApproval", r.mailbox_return_without_approval))
}

async fn new_relationship(call: &Call<'_>) -> Result<Output, CommandError> {
    let name = checked_text("Name", call.parameters.text("Name").unwrap_or_default(), MAX_NAME)?;
    let mut made = OrganizationRelationship {
        id: RelationshipId(Uuid::new_v4()),
        tenant: call.tenant(),
        name,
        domain_names: Vec::new(),
        enabled: true,
        mailbox_move_enabled: false,
        mailbox_move_capability: MailboxMoveCapability::default(),
        mailbox_move_published_scopes: Vec::new(),
        oauth_application_id: None,
        service_principal: None,
        max_lock_attempts_per_day: LOCK_ATTEMPTS,
        content_retention_days: None,
        mailbox_return_without_approval: false,
    };
    let mut tx = call.ctx.store.write().await?;
    apply(call, &mut tx, &mut made).await?;
    let warnings = warnings(call, &mut tx, &made).await?;
    check_domains_free(call, &mut tx, &made).await?;
    tx.relationship_insert(call.tenant(), &made).await?;
    let object = shown(&mut tx, &made).await?;
    call.save(tx, &made.name).await?;
    Ok(Output::one(object).warning(warnings))
}

async fn set_relationship(call: &Call<'_>) -> Result<Output, CommandError> {
    let mut tx = call.ctx.store.write().await?;
    let mut changed = find(call, &mut tx, call.parameters.text("Identity").unwrap_or_default()).await?;
    if let Some(name) = call.parameters.text("Name") {
        changed.name = checked_text("Name", name, MAX_NAME)?;
    }
    apply(call, &mut tx, &mut changed).await?;
    let warnings = warnings(call, &mut tx, &changed).await?;
    check_domains_free(call, &mut tx, &changed).await?;
    tx.relationship_update(call.tenant(), &changed).await?;
    call.save(tx, &changed.name).await?;
    Ok(Output::none().warning(warnings))
}

async fn get_relationship(call: &Call<'_>) -> Result<Output, CommandError> {
    let mut tx = call.ctx.store.read().await?;
    let found = match call.parameters.text("Identity") {
        Some(identity) => vec![find(call, &mut tx, identity).await?],
        None => tx.relationship_list(call.tenant()).await?,
    };
    let mut objects = Vec::with_capacity(found.len());
    for relationship in &found {
        objects.push(shown(&mut tx, relationship).await?);
    }
    Ok(Output::many(objects))
}

async fn remove_relationship(call: &Call<'_>) -> Result<Output, CommandError> {
    let mut tx = call.ctx.store.write().await?;
    let found = find(call, &mut tx, call.parameters.text("Identity").unwrap_or_default()).await?;
    tx.relationship_delete(call.tenant(), found.id).await?;
    call.save(tx, &found.name).await?;
    Ok(Output::none())
}

/// Does what the parameters say.
async fn apply(call: &Call<'_>, tx: &mut Tx, r: &mut OrganizationRelationship) -> Result<(), CommandError> {
    let p = call.parameters;
    if p.given("DomainNames") {
        r.domain_names = domain_names(call, tx, p, &r.domain_names).await?;
    }
    r.enabled = p.bool("Enabled").unwrap_or(r.enabled);
    r.mailbox_move_enabled = p.bool("MailboxMoveEnabled").unwrap_or(r.mailbox_move_enabled);
    r.mailbox_return_without_approval = p
        .bool("MailboxReturnWithoutApproval")
        .unwrap_or(r.mailbox_return_without_approval);
    if let Some(flags) = p.list("MailboxMoveCapability") {
        r.mailbox_move_capability = flags
            .join(",")
            .parse()
            .map_err(|e: String| CommandError::parameter("MailboxMoveCapability", format!("{e}."), ""))?;
    }
    if let Some(attempts) = p.int("MaxLockAttemptsPerDay") {
        r.max_lock_attempts_per_day = u32::try_from(attempts)
            .ok()
            .filter(|n| (1..=100).contains(n))
            .ok_or_else(|| {
                CommandError::parameter(
                    "MaxLockAttemptsPerDay",
                    format!("{attempts} is not between 1 and 100."),
                    "",
                )
            })?;
    }
    match p.get("ContentRetentionDays") {
        Some(Value::Int(days)) => r.content_retention_days = Some(retention_days(*days)?),
        Some(_) => r.content_retention_days = None,
        None => {}
    }
    if let Some((add, remove)) = p.edits("MailboxMovePublishedScopes") {
        let (add, remove) = (scopes(call, tx, &add).await?, scopes(call, tx, &remove).await?);
        r.mailbox_move_published_scopes.retain(|g| !remove.contains(g));
        r.mailbox_move_published_scopes.extend(add);
    } else if let Some(list) = p.list("MailboxMovePublishedScopes") {
        r.mailbox_move_published_scopes = scopes(call, tx, &list).await?;
    }
    r.mailbox_move_published_scopes.sort();
    r.mailbox_move_published_scopes.dedup();
    match p.get("OAuthApplicationId") {
        Some(Value::Text(text)) => bind(call, tx, r, text).await,
        Some(_) => {
            (r.oauth_application_id, r.service_principal) = (None, None);
            Ok(())
        }
        None => Ok(()),
    }
}

fn retention_days(days: i64) -> Result<u32, CommandError> {
    let days_allowed = u32::try_from(days).ok().filter(|n| (1..=3650).contains(n));
    days_allowed.ok_or_else(|| {
        CommandError::parameter("ContentRetentionDays", format!("{days} is not between 1 and 3650."), "")
    })
}

async fn domain_names(
    call: &Call<'_>,
    tx: &mut Tx,
    p: &Parameters,
    current: &[String],
) -> Result<Vec<String>, CommandError> {
    let normal = |text: &String| -> Result<String, CommandError> {
        let text = text.trim();
        if let Ok(guid) = Uuid::parse_str(text) {
            return Ok(guid.hyphenated().to_string());
        }
        let domain = text.parse::<DomainName>();
        domain
            .map(|d| d.to_string())
            .map_err(|e| CommandError::parameter("DomainNames", format!("{e}, nor a tenant GUID."), ""))
    };
    let all = |list: &[String]| list.iter().map(normal).collect::<Result<Vec<_>, _>>();
    let mut names = match p.edits("DomainNames") {
        Some((add, remove)) => {
            let remove = all(&remove)?;
            let mut names: Vec<String> = current.iter().filter(|n| !remove.contains(n)).cloned().collect();
            names.extend(all(&add)?);
            names
        }
        None => all(&p.list("DomainNames").unwrap_or_default())?,
    };
    names.sort();
    names.dedup();
    if names.is_empty() || names.len() > MAX_DOMAIN_NAMES {
        return Err(CommandError::parameter(
            "DomainNames",
            format!("1 to {MAX_DOMAIN_NAMES} entries are needed."),
            "Give the partner's tenant GUID.",
        ));
    }
    let own: Vec<String> = tx
        .accepted_domain_list(call.tenant())
        .await?
        .into_iter()
        .map(|d| d.name.to_string())
        .collect();
    if let Some(name) = names
        .iter()
        .find(|n| **n == call.tenant().to_string() || own.contains(n))
    {
        return Err(CommandError::new(
            ErrorId::SameTenant,
            "DomainNames",
            format!("'{name}' is this organisation itself."),
            "Give the partner's tenant GUID: Get-OrganizationConfig prints it at the partner's.",
        ));
    }
    Ok(names)
}

async fn scopes(call: &Call<'_>, tx: &mut Tx, identities: &[String]) -> Result<Vec<RecipientId>, CommandError> {
    let mut ids = Vec::new();
    for identity in identities {
        let group = recipient(call, tx, identity, Wanted::Group)
            .await
            .map_err(|e| e.about("MailboxMovePublishedScopes"))?;
        let security = matches!(&group.kind, RecipientKind::Group(g) if g.group_type == GroupType::Security);
        if !security {
            return Err(CommandError::parameter(
                "MailboxMovePublishedScopes",
                format!("'{}' is not a mail-enabled security group.", group.name),
                format!("New-DistributionGroup -Name '{} (scope)' -Type Security", group.name),
            ));
        }
        ids.push(group.id);
    }
    Ok(ids)
}

/// Binds to the one service principal of the application; a later consent never widens it.
async fn bind(call: &Call<'_>, tx: &mut Tx, r: &mut OrganizationRelationship, text: &str) -> Result<(), CommandError> {
    let app_id = text.trim().parse::<ApplicationId>().map_err(|_| {
        CommandError::parameter(
            "OAuthApplicationId",
            format!("'{text}' is not a GUID."),
            "Give the AppId that the partner's link names as client_id.",
        )
    })?;
    let principal = tx
        .service_principal_by_app(call.tenant(), app_id)
        .await?
        .filter(|p| p.in_force(call.ctx.now));
    if let Some(principal) = principal {
        r.oauth_application_id = Some(app_id);
        r.service_principal = Some(principal.id);
        return Ok(());
    }
    let organisation = call.organisation(tx).await?;
    let own: &Origin = call.ctx.identity.public_name();
    Err(CommandError::new(
        ErrorId::ApplicationNotConsented,
        "OAuthApplicationId",
        format!("This organisation has not consented to the application {app_id}, or its consent has ended."),
        format!(
            "Open the consent link that the partner sent: {own}/{organisation}/adminconsent?client_id={app_id}&redirect_uri=<his redirect URI>&authority=https://<his server>. Then run the command again."
        ),
    ))
}

async fn check_domains_free(call: &Call<'_>, tx: &mut Tx, r: &OrganizationRelationship) -> Result<(), CommandError> {
    let others = tx.relationship_list(call.tenant()).await?;
    for other in others.iter().filter(|o| o.id != r.id) {
        if let Some(name) = r.domain_names.iter().find(|n| other.domain_names.contains(n)) {
            return Err(CommandError::new(
                ErrorId::ObjectAlreadyExists,
                "DomainNames",
                format!(
                    "'{name}' is already in DomainNames of the organization relationship '{}'.",
                    other.name
                ),
                format!("Set-OrganizationRelationship '{}' changes that one.", other.name),
            ));
        }
    }
    Ok(())
}

async fn warnings(call: &Call<'_>, tx: &mut Tx, r: &OrganizationRelationship) -> Result<Vec<String>, CommandError> {
    let mut warnings = Vec::new();
    let c = r.mailbox_move_capability;
    let moves = r.mailbox_move_enabled
        || c != MailboxMoveCapability::default()
        || r.oauth_application_id.is_some()
        || !r.mailbox_move_published_scopes.is_empty();
    if !moves {
        return Ok(warnings);
    }
    for name in r.domain_names.iter().filter(|n| n.parse::<TenantId>().is_err()) {
        let instead = match guid_of(call, tx, name).await? {
            Some(guid) => format!(
                "Use {guid} instead: Set-OrganizationRelationship '{}' -DomainNames {guid}",
                r.name
            ),
            None => format!(
                "Use the partner's tenant GUID instead: Get-OrganizationConfig prints it at the partner's, and so does https://<partner's server>/{name}/v2.0/.well-known/openid-configuration."
            ),
        };
        warnings.push(format!(
            "DomainNames holds the DNS name '{name}', which mailbox moves do not look at. {instead}"
        ));
    }
    if let Some(id) = r.service_principal
        && let Some(principal) = tx.service_principal_get(call.tenant(), id).await?
        && !r.names_tenant(principal.home_tenant)
    {
        warnings.push(format!(
            "The application is at home in the tenant {}, which is not in DomainNames, so its requests are refused.",
            principal.home_tenant
        ));
    }
    if c.remote_outbound && r.mailbox_move_published_scopes.is_empty() {
        warnings.push("No scope is published (-MailboxMovePublishedScopes), so no mailbox may leave.".to_owned());
    }
    if c.remote_outbound && r.oauth_application_id.is_none() {
        warnings.push("No application is named (-OAuthApplicationId), so no partner may pull.".to_owned());
    }
    Ok(warnings)
}

/// The tenant GUID that a DNS name stands for, as far as this organisation has learnt it from consents and endpoints.
async fn guid_of(call: &Call<'_>, tx: &mut Tx, name: &str) -> Result<Option<TenantId>, CommandError> {
    let principals = tx.service_principal_list(call.tenant()).await?;
    if let Some(principal) = principals
        .iter()
        .find(|p| p.home_domains.iter().any(|d| d.eq_ignore_ascii_case(name)))
    {
        return Ok(Some(principal.home_tenant));
    }
    let endpoints = tx.endpoint_list(call.tenant()).await?;
    Ok(endpoints
        .iter()
        .filter_map(|e| match &e.kind {
            EndpointKind::ExchangeRemoteMove(remote) => Some(remote),
            EndpointKind::Imap(_) => None,
        })
        .find(|remote| remote.remote_tenant.eq_ignore_ascii_case(name))
        .and_then(|remote| remote.remote_tenant_id))
}

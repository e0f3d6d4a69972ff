//! The target's own consent, and the service principals of partners' applications.

use super::application::{actor, application_error};
use crate::{
    Cmdlet,
    context::{Call, Output},
    error::CommandError,
    handler,
    roles::APPLICATION_ADMINISTRATION,
};
use rehome_command::{Declaration, Effect, Object, Parameter, ParameterType as T, Property};
use rehome_domain::{
    consent::{EXCHANGE_ONLINE_APP_ID, MAILBOX_MIGRATION_APP_ROLE_ID, ROLE_MAILBOX_MIGRATION, ServicePrincipal},
    id::ApplicationId,
};
use rehome_identity::{Application, application::EXCHANGE_ONLINE_NAME, authority::Origin};
use rehome_store::StoreError;
use uuid::Uuid;

fn service_principal_id(help: &str) -> Parameter {
    Parameter::new("ServicePrincipalId", T::Guid, help)
        .position(1)
        .alias("ApplicationId")
        .alias("AppId")
}

pub(super) fn cmdlets() -> Vec<Cmdlet> {
    vec![
        Cmdlet::new(
            Declaration::new("New", "MgServicePrincipalAppRoleAssignment", Effect::Change, &[APPLICATION_ADMINISTRATION], "Gives this organisation's own consent to its application.")
                .description(
                    "Without it the organisation's authority issues no assertion, and nothing can be pulled. With -RemoteServer and -RemoteTenant it also prints the finished link at which the partner's administrator consents.",
                )
                .parameters([
                    service_principal_id("The application: its service principal's id, or its AppId.").mandatory(),
                    Parameter::new("AppRoleId", T::Guid, "The role; Mailbox.Migration unless given, and there is no other."),
                    Parameter::new("RemoteServer", T::Text, "host[:port] of the partner's deployment."),
                    Parameter::new("RemoteTenant", T::Text, "The partner's domain or tenant GUID."),
                ])
                .output([
                    Property::column("AppId", "The application."),
                    Property::new("PrincipalId", "Its service principal in this organisation."),
                    Property::new("ResourceDisplayName", "Office 365 Exchange Online."),
                    Property::new("AppRoleId", "The role."),
                    Property::column("AppRole", "The role's name."),
                    Property::new("GrantedBy", "Who consented."),
                    Property::new("CreatedDateTime", "When it was given."),
                    Property::column("ConsentLink", "Send this to the partner's administrator; empty without -RemoteServer and -RemoteTenant."),
                ])
                .example(
                    "New-MgServicePrincipalAppRoleAssignment 0f8f1b3e-8a51-4f7a-9d0c-1d2f3a4b5c6d -RemoteServer mail.contoso.example -RemoteTenant contoso.example",
                    "Consents here and prints the link for Contoso.",
                ),
            handler!(new_assignment),
        ),
        Cmdlet::new(
            Declaration::new("Get", "MgServicePrincipal", Effect::Read, &[APPLICATION_ADMINISTRATION], "Shows what this organisation has consented to, and until when.")
                .description("Lists the applications of partners and of this organisation, and the resource Office 365 Exchange Online with its roles.")
                .parameters([service_principal_id("The service principal's id, or the AppId. Without it, all.")])
                .output(properties())
                .example("Get-MgServicePrincipal", "Shows all."),
            handler!(get_service_principal),
        ),
        Cmdlet::new(
            Declaration::new("Remove", "MgServicePrincipal", Effect::Destroy, &[APPLICATION_ADMINISTRATION], "Withdraws consent to an application.")
                .description(
                    "Work for the partner stops within a minute. A cutover that was promised already is carried to its end. For an application of this organisation it takes its own consent back.",
                )
                .parameters([service_principal_id("The service principal's id, or the AppId.").mandatory()])
                .example("Remove-MgServicePrincipal 0f8f1b3e-8a51-4f7a-9d0c-1d2f3a4b5c6d", "Withdraws consent."),
            handler!(remove_service_principal),
        ),
    ]
}

fn properties() -> Vec<Property> {
    vec![
        Property::column("DisplayName", "The application's name; a partner's is what he gave."),
        Property::column("AppId", "The application."),
        Property::column("Id", "The service principal."),
        Property::column(
            "AppOwnerOrganizationId",
            "The tenant where the application is registered.",
        ),
        Property::column("AccountEnabled", "Whether the consent is in force."),
        Property::new("Issuer", "The authority of that tenant."),
        Property::new("AppRoleAssignments", "Roles granted."),
        Property::new("AppRoles", "For a resource: the roles it has, with id."),
        Property::new("HomeDomains", "Domains that the home tenant published at consent."),
        Property::new(
            "ReturnRight",
            "Whether the right to move mailboxes back was granted with it.",
        ),
        Property::new("PinnedKeySequence", "Number of the key set that is pinned."),
        Property::new("AcceptedBy", "Who consented."),
        Property::new("AcceptedDateTime", "When it was given."),
        Property::new("ExpiryDateTime", "When the consent ends unless renewed."),
        Property::new("RevokedDateTime", "When it was withdrawn."),
    ]
}

fn partners(principal: &ServicePrincipal, call: &Call<'_>) -> Object {
    Object::new()
        .with("DisplayName", principal.display_name.as_str())
        .with("AppId", principal.app_id.0)
        .with("Id", principal.id.0)
        .with("AppOwnerOrganizationId", principal.home_tenant.0)
        .with("AccountEnabled", principal.in_force(call.ctx.now))
        .with("Issuer", principal.issuer.as_str())
        .with("AppRoleAssignments", principal.roles.clone())
        .with("AppRoles", Vec::<String>::new())
        .with("HomeDomains", principal.home_domains.clone())
        .with("ReturnRight", principal.return_right)
        .with("PinnedKeySequence", principal.pinned_keys.sequence)
        .with("AcceptedBy", principal.accepted_by.as_str())
        .with("AcceptedDateTime", principal.accepted_at)
        .with("ExpiryDateTime", principal.expires_at)
        .with("RevokedDateTime", principal.revoked_at)
}

async fn own(application: &Application, call: &Call<'_>) -> Result<Object, CommandError> {
    let grants = call
        .ctx
        .identity
        .grants_at_home(call.tenant(), application.app_id)
        .await;
    let grants = grants.map_err(|e| application_error(&e, &application.app_id.to_string()))?;
    let first = grants.first();
    Ok(Object::new()
        .with("DisplayName", application.display_name.as_str())
        .with("AppId", application.app_id.0)
        .with("Id", application.service_principal.0)
        .with("AppOwnerOrganizationId", call.tenant().0)
        .with("AccountEnabled", first.is_some())
        .with("Issuer", call.ctx.identity.issuer(call.tenant()))
        .with(
            "AppRoleAssignments",
            grants.iter().map(|g| g.role.clone()).collect::<Vec<_>>(),
        )
        .with("AppRoles", Vec::<String>::new())
        .with("HomeDomains", Vec::<String>::new())
        .with("ReturnRight", false)
        .with("PinnedKeySequence", None::<u64>)
        .with("AcceptedBy", first.map(|g| g.granted_by.clone()))
        .with("AcceptedDateTime", first.map(|g| g.granted_at))
        .with("ExpiryDateTime", None::<String>)
        .with("RevokedDateTime", None::<String>))
}

fn resource(call: &Call<'_>) -> Object {
    let role = Object::new()
        .with("Id", MAILBOX_MIGRATION_APP_ROLE_ID)
        .with("Value", ROLE_MAILBOX_MIGRATION);
    Object::new()
        .with("DisplayName", EXCHANGE_ONLINE_NAME)
        .with("AppId", EXCHANGE_ONLINE_APP_ID.0)
        .with("Id", EXCHANGE_ONLINE_APP_ID.0)
        .with("AppOwnerOrganizationId", call.tenant().0)
        .with("AccountEnabled", true)
        .with("Issuer", call.ctx.identity.issuer(call.tenant()))
        .with("AppRoleAssignments", Vec::<String>::new())
        .with("AppRoles", vec![role])
        .with("HomeDomains", Vec::<String>::new())
        .with("ReturnRight", false)
        .with("PinnedKeySequence", None::<u64>)
        .with("AcceptedBy", None::<String>)
        .with("AcceptedDateTime", None::<String>)
        .with("ExpiryDateTime", None::<String>)
        .with("RevokedDateTime", None::<String>)
}

/// A service principal of either kind.
enum Found {
    Own(Application),
    Partners(ServicePrincipal),
    Resource,
}

async fn find(call: &Call<'_>, id: Uuid) -> Result<Found, CommandError> {
    if id == EXCHANGE_ONLINE_APP_ID.0 {
        return Ok(Found::Resource);
    }
    let applications = call.ctx.identity.application_list(call.tenant()).await;
    let applications = applications.map_err(|e| application_error(&e, ""))?;
    if let Some(own) = applications
        .into_iter()
        .find(|a| a.service_principal.0 == id || a.app_id.0 == id)
    {
        return Ok(Found::Own(own));
    }
    let principals = call.ctx.identity.service_principal_list(call.tenant()).await?;
    match principals.into_iter().find(|p| p.id.0 == id || p.app_id.0 == id) {
        Some(principal) => Ok(Found::Partners(principal)),
        None => {
            let mut tx = call.ctx.store.read().await?;
            let organisation = call.organisation(&mut tx).await?;
            Err(CommandError::not_found(
                &id.to_string(),
                &organisation,
                "Get-MgServicePrincipal lists them.",
            ))
        }
    }
}

async fn get_service_principal(call: &Call<'_>) -> Result<Output, CommandError> {
    if let Some(id) = call.parameters.guid("ServicePrincipalId") {
        return Ok(Output::one(match find(call, id).await? {
            Found::Own(application) => own(&application, call).await?,
            Found::Partners(principal) => partners(&principal, call),
            Found::Resource => resource(call),
        }));
    }
    let mut objects: Vec<Object> = Vec::new();
    let principals: Result<Vec<ServicePrincipal>, StoreError> =
        call.ctx.identity.service_principal_list(call.tenant()).await;
    objects.extend(principals?.iter().map(|p| partners(p, call)));
    let applications = call
        .ctx
        .identity
        .application_list(call.tenant())
        .await
        .map_err(|e| application_error(&e, ""))?;
    for application in &applications {
        objects.push(own(application, call).await?);
    }
    objects.push(resource(call));
    Ok(Output::many(objects))
}

/// The finished link for a partner.
pub(super) fn consent_link(call: &Call<'_>, application: &Application, server: &Origin, tenant: &str) -> String {
    call.ctx.identity.consent_link(application, server, tenant, None)
}

async fn new_assignment(call: &Call<'_>) -> Result<Output, CommandError> {
    let p = call.parameters;
    if p.guid("AppRoleId")
        .is_some_and(|id| id != MAILBOX_MIGRATION_APP_ROLE_ID)
    {
        return Err(CommandError::parameter(
            "AppRoleId",
            format!("There is one role, {ROLE_MAILBOX_MIGRATION}, with the id {MAILBOX_MIGRATION_APP_ROLE_ID}."),
            "Leave -AppRoleId out.",
        ));
    }
    let partner = match (p.text("RemoteServer"), p.text("RemoteTenant")) {
        (Some(server), Some(tenant)) => {
            let origin = server
                .parse::<Origin>()
                .map_err(|e| CommandError::parameter("RemoteServer", format!("{e}."), ""))?;
            Some((origin, tenant.trim()))
        }
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            return Err(CommandError::parameter(
                "RemoteTenant",
                "-RemoteServer and -RemoteTenant belong together.",
                "Give both, or neither.",
            ));
        }
    };
    let id = p.guid("ServicePrincipalId").unwrap_or_default();
    let Found::Own(application) = find(call, id).await? else {
        return Err(CommandError::invalid_operation(
            &id.to_string(),
            "Only an application of this organisation can be consented to here.",
            "The consent to a partner's application is given at the link that the partner sends.",
        ));
    };
    let grant = call
        .ctx
        .identity
        .grant_at_home(
            call.tenant(),
            application.app_id,
            ROLE_MAILBOX_MIGRATION,
            &actor(call),
            call.ctx.now,
        )
        .await
        .map_err(|e| application_error(&e, &application.app_id.to_string()))?;
    let link = partner.map(|(server, tenant)| consent_link(call, &application, &server, tenant));
    Ok(Output::one(
        Object::new()
            .with("AppId", application.app_id.0)
            .with("PrincipalId", application.service_principal.0)
            .with("ResourceDisplayName", EXCHANGE_ONLINE_NAME)
            .with("AppRoleId", MAILBOX_MIGRATION_APP_ROLE_ID)
            .with("AppRole", grant.role)
            .with("GrantedBy", grant.granted_by)
            .with("CreatedDateTime", grant.granted_at)
            .with("ConsentLink", link.unwrap_or_default()),
    ))
}

async fn remove_service_principal(call: &Call<'_>) -> Result<Output, CommandError> {
    let id = call.parameters.guid("ServicePrincipalId").unwrap_or_default();
    let removed = match find(call, id).await? {
        Found::Own(Application { app_id, .. }) => call
            .ctx
            .identity
            .revoke_at_home(call.tenant(), app_id, &actor(call), call.ctx.now)
            .await
            .map_err(|e| application_error(&e, &ApplicationId::to_string(&app_id)))?,
        Found::Partners(principal) => {
            call.ctx
                .identity
                .service_principal_revoke(call.tenant(), principal.id, &actor(call), call.ctx.now)
                .await?
        }
        Found::Resource => {
            return Err(CommandError::invalid_operation(
                &id.to_string(),
                format!("{EXCHANGE_ONLINE_NAME} cannot be removed."),
                "",
            ));
        }
    };
    if removed {
        return Ok(Output::none());
    }
    Err(CommandError::invalid_operation(
        &id.to_string(),
        "No consent is in force, so there is none to withdraw.",
        "Get-MgServicePrincipal shows it.",
    ))
}

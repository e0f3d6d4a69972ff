//! New- and Get-MgApplication, Add-MgApplicationPassword: the application that partners consent to.

use crate::{
    Cmdlet,
    context::{Call, Output},
    error::CommandError,
    handler,
    roles::APPLICATION_ADMINISTRATION,
};
use rehome_command::{Declaration, Effect, Object, Parameter, ParameterType as T, Property, Value};
use rehome_domain::{consent::ROLE_MAILBOX_MIGRATION, id::ApplicationId};
use rehome_identity::{
    Actor, Application, ApplicationGrant, ApplicationSecret, SignInAudience,
    application::{mailbox_migration, user_read},
    error::ApplicationError,
};
use secrecy::ExposeSecret;

const USER_READ: &str = "User.Read";

pub(super) fn cmdlets() -> Vec<Cmdlet> {
    vec![
        Cmdlet::new(
            Declaration::new("New", "MgApplication", Effect::Change, &[APPLICATION_ADMINISTRATION], "Registers the application with which this organisation pulls mailboxes.")
                .description(
                    "The first step of a migration, in the target. Then: Add-MgApplicationPassword, New-MgServicePrincipalAppRoleAssignment (your own consent), and the consent link for the partner.",
                )
                .parameters([
                    Parameter::new("DisplayName", T::Text, "Shown to the partner's administrator, at most 120 characters.").mandatory(),
                    Parameter::new("RedirectUris", T::List, "Where the consent page may lead back to; https, except for localhost.").mandatory(),
                    Parameter::new("SignInAudience", T::Text, "Who may consent; AzureADMultipleOrgs unless given.")
                        .allowed(&["AzureADMultipleOrgs", "AzureADMyOrg"]),
                    Parameter::new(
                        "RequiredPermissions",
                        T::Flags,
                        "What the application asks for. Unless given, Mailbox.Migration of Office 365 Exchange Online and User.Read, which is not needed.",
                    )
                    .allowed(&[ROLE_MAILBOX_MIGRATION, USER_READ]),
                ])
                .output(properties())
                .example(
                    "New-MgApplication -DisplayName 'Mailbox migration' -RedirectUris https://office.com -RequiredPermissions Mailbox.Migration",
                    "Registers an application that asks for the one permission it needs.",
                ),
            handler!(new_application),
        ),
        Cmdlet::new(
            Declaration::new("Get", "MgApplication", Effect::Read, &[APPLICATION_ADMINISTRATION], "Shows this organisation's applications, with the end dates of their secrets.")
                .parameters([Parameter::new("ApplicationId", T::Guid, "The application's AppId. Without it, all.").position(1).alias("AppId")])
                .output(properties())
                .example("Get-MgApplication", "Shows all."),
            handler!(get_application),
        ),
        Cmdlet::new(
            Declaration::new("Add", "MgApplicationPassword", Effect::Change, &[APPLICATION_ADMINISTRATION], "Makes a client secret, shown this once.")
                .description("Several secrets may be valid at once. Note the end date: moves stop when the secret of their endpoint ends.")
                .parameters([
                    Parameter::new("ApplicationId", T::Guid, "The application's AppId.").mandatory().position(1).alias("AppId"),
                    Parameter::new("DisplayName", T::Text, "A name for the secret."),
                    Parameter::new("EndDateTime", T::DateTime, "Until when it is valid: 6 months unless given, 24 at most."),
                ])
                .output([
                    Property::new("KeyId", "The secret's own id."),
                    Property::new("DisplayName", "Its name."),
                    Property::column("SecretText", "The secret. It cannot be shown again."),
                    Property::new("Hint", "Its first characters."),
                    Property::new("StartDateTime", "Valid from."),
                    Property::column("EndDateTime", "Valid until."),
                ])
                .example("Add-MgApplicationPassword 0f8f1b3e-8a51-4f7a-9d0c-1d2f3a4b5c6d", "Makes a secret for New-MigrationEndpoint -Credentials."),
            handler!(add_password),
        ),
    ]
}

fn properties() -> Vec<Property> {
    vec![
        Property::column("DisplayName", "Shown to partners."),
        Property::column(
            "AppId",
            "The application (client) id, for New-MigrationEndpoint and the partner's relationship.",
        ),
        Property::column("SignInAudience", "Who may consent."),
        Property::new("RedirectUris", "Where the consent page may lead back to."),
        Property::new("RequiredPermissions", "What it asks for."),
        Property::new("GrantedRoles", "What this organisation has consented to itself."),
        Property::new("ServicePrincipalId", "Its service principal in this organisation."),
        Property::new(
            "PasswordCredentials",
            "Its secrets: KeyId, DisplayName, Hint, StartDateTime, EndDateTime.",
        ),
        Property::new("CreatedDateTime", "When registered."),
    ]
}

/// Who changes something, for identity's own audit records.
pub(super) fn actor(call: &Call<'_>) -> Actor {
    Actor {
        caller: call.ctx.caller.name.clone(),
        origin: call.ctx.origin.clone(),
        correlation_id: call.ctx.correlation,
    }
}

pub(super) fn application_error(error: &ApplicationError, target: &str) -> CommandError {
    match error {
        ApplicationError::Store(_) | ApplicationError::Cryptography(_) | ApplicationError::Keys(_) => {
            CommandError::unexpected("using an application registration", error)
        }
        ApplicationError::BadName
        | ApplicationError::BadRedirectUri { .. }
        | ApplicationError::TooManyRedirectUris
        | ApplicationError::UnknownPermission { .. }
        | ApplicationError::RoleNotRequired { .. }
        | ApplicationError::NotFound { .. }
        | ApplicationError::SecretNotFound { .. }
        | ApplicationError::BadSecretEnd
        | ApplicationError::TooManySecrets => {
            CommandError::new(error.error_id(), target, format!("{error}."), error.advice())
        }
    }
}

fn shown(application: &Application, secrets: &[ApplicationSecret], grants: &[ApplicationGrant]) -> Object {
    let secrets: Vec<Object> = secrets
        .iter()
        .map(|s| {
            Object::new()
                .with("KeyId", s.key_id)
                .with("DisplayName", s.display_name.as_str())
                .with("Hint", s.hint.as_str())
                .with("StartDateTime", s.start)
                .with("EndDateTime", s.end)
        })
        .collect();
    Object::new()
        .with("DisplayName", application.display_name.as_str())
        .with("AppId", application.app_id.0)
        .with("SignInAudience", application.sign_in_audience.as_str())
        .with("RedirectUris", application.redirect_uris.clone())
        .with(
            "RequiredPermissions",
            application
                .permissions
                .iter()
                .map(|p| p.name.clone())
                .collect::<Vec<_>>(),
        )
        .with(
            "GrantedRoles",
            grants.iter().map(|g| g.role.clone()).collect::<Vec<_>>(),
        )
        .with("ServicePrincipalId", application.service_principal.0)
        .with("PasswordCredentials", secrets)
        .with("CreatedDateTime", application.created)
}

async fn new_application(call: &Call<'_>) -> Result<Output, CommandError> {
    let p = call.parameters;
    let name = p.text("DisplayName").unwrap_or_default();
    let audience = match p.text("SignInAudience") {
        Some("AzureADMyOrg") => SignInAudience::AzureADMyOrg,
        Some(_) | None => SignInAudience::AzureADMultipleOrgs,
    };
    let asked = p
        .list("RequiredPermissions")
        .unwrap_or_else(|| vec![ROLE_MAILBOX_MIGRATION.into(), USER_READ.into()]);
    let permissions = asked
        .iter()
        .map(|n| {
            if n == ROLE_MAILBOX_MIGRATION {
                mailbox_migration()
            } else {
                user_read()
            }
        })
        .collect();
    let made = call
        .ctx
        .identity
        .application_new(
            call.tenant(),
            name,
            audience,
            p.list("RedirectUris").unwrap_or_default(),
            Some(permissions),
            &actor(call),
            call.ctx.now,
        )
        .await
        .map_err(|e| application_error(&e, name))?;
    let mut output = Output::one(shown(&made, &[], &[]));
    if audience == SignInAudience::AzureADMyOrg {
        output
            .warnings
            .push("A partner cannot consent to an application of audience AzureADMyOrg.".into());
    }
    Ok(output)
}

async fn get_application(call: &Call<'_>) -> Result<Output, CommandError> {
    let (identity, tenant) = (&call.ctx.identity, call.tenant());
    let failed = |e: ApplicationError| application_error(&e, "");
    let applications = match call.parameters.guid("ApplicationId") {
        Some(id) => vec![
            identity
                .application_get(tenant, ApplicationId(id))
                .await
                .map_err(failed)?,
        ],
        None => identity.application_list(tenant).await.map_err(failed)?,
    };
    let mut objects = Vec::new();
    for application in applications {
        let secrets = identity.secret_list(tenant, application.app_id).await.map_err(failed)?;
        let grants = identity
            .grants_at_home(tenant, application.app_id)
            .await
            .map_err(failed)?;
        objects.push(shown(&application, &secrets, &grants));
    }
    Ok(Output::many(objects))
}

async fn add_password(call: &Call<'_>) -> Result<Output, CommandError> {
    let p = call.parameters;
    let app_id = ApplicationId(p.guid("ApplicationId").unwrap_or_default());
    let made = call
        .ctx
        .identity
        .secret_add(
            call.tenant(),
            app_id,
            p.text("DisplayName").unwrap_or_default(),
            p.date_time("EndDateTime"),
            &actor(call),
            call.ctx.now,
        )
        .await
        .map_err(|e| application_error(&e, &app_id.to_string()))?;
    let object = Object::new()
        .with("KeyId", made.stored.key_id)
        .with("DisplayName", made.stored.display_name.as_str())
        // Text and not Secret: this is the one time that it is meant to be seen.
        .with("SecretText", Value::Text(made.value.expose_secret().to_owned()))
        .with("Hint", made.stored.hint.as_str())
        .with("StartDateTime", made.stored.start)
        .with("EndDateTime", made.stored.end);
    let warning = format!("The secret is shown this once. It is valid until {}.", made.stored.end);
    Ok(Output::one(object).warning([warning]))
}

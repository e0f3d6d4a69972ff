//! Migration endpoints: where and as whom this organisation pulls.

use super::{consent::consent_link, endpoint_imap};
use crate::{
    Cmdlet,
    context::{Call, Output},
    error::CommandError,
    handler,
    roles::{MIGRATION, ORGANIZATION_CONFIGURATION, VIEW_ONLY_CONFIGURATION},
};
use rehome_command::{Declaration, Effect, Object, Parameter, ParameterType as T, Parameters, Property, Value};
use rehome_domain::{
    endpoint::{EndpointKind, ImapSignIn, MigrationEndpoint, RemoteMove},
    error_id::{ErrorId, Problem},
    id::{ApplicationId, EndpointId, TenantId},
    naming::{MAX_NAME, checked_text},
};
use rehome_identity::authority::Origin;
use rehome_migrate::target::{availability::Availability, partner::PartnerAddress};
use rehome_store::Tx;
use uuid::Uuid;

/// Moves at once through an endpoint unless set.
const MAX_MIGRATIONS: u32 = 100;
/// Incremental syncs at once unless set.
const MAX_INCREMENTAL_SYNCS: u32 = 20;

pub(super) const ROLES: &[&str] = &[MIGRATION, ORGANIZATION_CONFIGURATION];

fn identity() -> Parameter {
    Parameter::new("Identity", T::Identity, "The endpoint's Name or Guid.")
        .position(1)
        .pipeline()
}

/// What only an endpoint of this kind has.
fn remote_move_settings() -> Vec<Parameter> {
    vec![
        Parameter::new(
            "ApplicationId",
            T::Text,
            "The application of this organisation; the user name of -Credentials unless given.",
        ),
        Parameter::new(
            "AppSecretKeyVaultUrl",
            T::Text,
            "Superseded by -Credentials, and refused.",
        ),
    ]
}

fn settings() -> Vec<Parameter> {
    vec![
        Parameter::new(
            "MaxConcurrentMigrations",
            T::Unlimited,
            "Moves at once; 100 unless given.",
        ),
        Parameter::new(
            "MaxConcurrentIncrementalSyncs",
            T::Unlimited,
            "Incremental syncs at once; 20 unless given, and not more than MaxConcurrentMigrations.",
        ),
        Parameter::new("SkipVerification", T::Switch, "Does not try the connection."),
    ]
}

fn credentials() -> Parameter {
    Parameter::new(
        "Credentials",
        T::Credential,
        "The application's id as user name and its secret as password. For IMAP the user who may sign in for others, or the OAuth client; without it each row of a batch brings its own password.",
    )
    .user_name_from("ApplicationId")
}

fn properties() -> Vec<Property> {
    let mut all = vec![
        Property::column("Identity", "The Name."),
        Property::new("Guid", "The object."),
        Property::column("EndpointType", "ExchangeRemoteMove or IMAP."),
        Property::column(
            "RemoteServer",
            "host[:port] of the source's deployment, or the host of the IMAP server.",
        ),
        Property::column("RemoteTenant", "The source tenant as given."),
        Property::new(
            "RemoteTenantId",
            "Its GUID as found; another one found later stops work.",
        ),
        Property::new("ApplicationId", "The application."),
        Property::new("Username", "The application, or who signs in at the IMAP server."),
        Property::new("MaxConcurrentMigrations", "Moves at once."),
        Property::new("MaxConcurrentIncrementalSyncs", "Incremental syncs at once."),
        Property::new("IsRemote", "Always true."),
    ];
    all.extend(endpoint_imap::properties());
    all
}

/// The two kinds of endpoint.
const REMOTE_MOVE: &str = "ExchangeRemoteMove";
const IMAP: &str = "IMAP";

fn new_endpoint_declaration() -> Declaration {
    let of = |set: &'static str| move |parameter: Parameter| parameter.sets(&[set]);
    Declaration::new("New", "MigrationEndpoint", Effect::Change, ROLES, "Makes an endpoint: from where mailboxes are pulled, and as whom.")
        .description(
            "Tries the connection first. With -ExchangeRemoteMove: the source's server, its tenant, this organisation's own consent, the secret, and the source's consent. When only the source's consent is missing, the endpoint is made and the consent link is printed as a warning. With -IMAP: the server, its certificate, and the sign-in if -TestMailbox names an account. In every other case of failure nothing is made.
From an IMAP server mailboxes are copied into mailboxes that are here already and stay in use: nothing is locked, converted or removed.",
        )
        .parameters([
            Parameter::new("Name", T::Text, "Unique in the organisation, at most 64 characters.").mandatory(),
            Parameter::new("ExchangeRemoteMove", T::Switch, "The source is a tenant of a partner who runs Rehome.").mandatory().sets(&[REMOTE_MOVE]),
            Parameter::new("IMAP", T::Switch, "The source is an IMAP server, and nobody there runs Rehome.").mandatory().sets(&[IMAP]),
            Parameter::new("RemoteServer", T::Text, "host[:port] of the source's deployment, port 443 unless given; or the host of the IMAP server.").mandatory(),
            Parameter::new("RemoteTenant", T::Text, "The source tenant: one of its domains, or its GUID.").mandatory().sets(&[REMOTE_MOVE]),
            credentials(),
        ])
        .parameters(remote_move_settings().into_iter().map(of(REMOTE_MOVE)))
        .parameters(endpoint_imap::parameters().into_iter().map(of(IMAP)))
        .parameters(settings())
        .default_set(REMOTE_MOVE)
        .output(properties())
        .example(
            "New-MigrationEndpoint -Name Contoso -ExchangeRemoteMove -RemoteServer mail.contoso.example -RemoteTenant contoso.example -ApplicationId 0f8f1b3e-8a51-4f7a-9d0c-1d2f3a4b5c6d -Credentials",
            "Asks for the secret and makes the endpoint.",
        )
        .example(
            "New-MigrationEndpoint -Name Old -IMAP -RemoteServer imap.contoso.example -Credentials -TestMailbox reception",
            "Asks for a master user's name and password, tries them on one account, and makes the endpoint.",
        )
}

pub(super) fn cmdlets() -> Vec<Cmdlet> {
    vec![
        Cmdlet::new(new_endpoint_declaration(), handler!(new_endpoint)),
        Cmdlet::new(
            Declaration::new("Get", "MigrationEndpoint", Effect::Read, &[MIGRATION, ORGANIZATION_CONFIGURATION, VIEW_ONLY_CONFIGURATION], "Shows migration endpoints.")
                .parameters([
                    identity().sets(&["Identity"]),
                    Parameter::new("Type", T::Text, "Only this type.").allowed(&[REMOTE_MOVE, IMAP]).mandatory().sets(&["TypeFilter"]),
                ])
                .default_set("Identity")
                .output(properties())
                .example("Get-MigrationEndpoint", "Shows all."),
            handler!(get_endpoint),
        ),
        Cmdlet::new(
            Declaration::new("Set", "MigrationEndpoint", Effect::Change, ROLES, "Changes a migration endpoint, for example its secret.")
                .description("Tries the connection with the new settings first. To pull from another tenant, make another endpoint. A password is not sent to another IMAP server unless it is given again.")
                .parameters([
                    identity().mandatory(),
                    credentials(),
                    Parameter::new("RemoteServer", T::Text, "host[:port] under which the same tenant is reached now, or the host of the IMAP server."),
                ])
                .parameters(remote_move_settings())
                .parameters(endpoint_imap::parameters())
                .parameters(settings())
                .example("Set-MigrationEndpoint Contoso -Credentials", "Asks for a new secret."),
            handler!(set_endpoint),
        ),
        Cmdlet::new(
            Declaration::new("Remove", "MigrationEndpoint", Effect::Destroy, ROLES, "Removes a migration endpoint.")
                .description("Refused while a batch uses it.")
                .parameters([identity().mandatory()])
                .example("Remove-MigrationEndpoint Contoso", "Removes one endpoint with its sealed secret."),
            handler!(remove_endpoint),
        ),
    ]
}

/// The endpoint of this name or GUID.
pub(crate) async fn find(call: &Call<'_>, tx: &mut Tx, identity: &str) -> Result<MigrationEndpoint, CommandError> {
    let found = match identity.trim().parse::<EndpointId>() {
        Ok(id) => tx.endpoint_get(call.tenant(), id).await?,
        Err(_) => tx.endpoint_by_name(call.tenant(), identity).await?,
    };
    found.ok_or_else(|| {
        CommandError::new(
            ErrorId::ManagementObjectNotFound,
            identity,
            format!("The migration endpoint '{identity}' couldn't be found."),
            "Get-MigrationEndpoint lists them.",
        )
    })
}

fn unlimited(number: Option<u32>) -> Value {
    number.map_or_else(|| Value::Text("Unlimited".into()), |n| Value::Int(i64::from(n)))
}

fn shown(e: &MigrationEndpoint) -> Object {
    let (remote, imap) = match &e.kind {
        EndpointKind::ExchangeRemoteMove(remote) => (Some(remote), None),
        EndpointKind::Imap(imap) => (None, Some(imap)),
    };
    let application = remote.map(|r| r.application_id.to_string());
    let sign_in = imap.map(|i| &i.sign_in);
    let (token_url, scope) = match sign_in {
        Some(ImapSignIn::OAuth { token_url, scope, .. }) => (Some(token_url.as_str()), scope.as_deref()),
        Some(ImapSignIn::Users | ImapSignIn::Master { .. } | ImapSignIn::Authorization { .. }) | None => (None, None),
    };
    let separator = match sign_in {
        Some(ImapSignIn::Master { separator, .. }) => Some(separator.to_string()),
        Some(ImapSignIn::Users | ImapSignIn::Authorization { .. } | ImapSignIn::OAuth { .. }) | None => None,
    };
    Object::new()
        .with("Identity", e.name.as_str())
        .with("Guid", e.id.0)
        .with("EndpointType", e.kind.as_str())
        .with("RemoteServer", e.remote_server.as_str())
        .with("RemoteTenant", remote.map(|r| r.remote_tenant.as_str()))
        .with("RemoteTenantId", remote.and_then(|r| r.remote_tenant_id).map(|t| t.0))
        .with("ApplicationId", application.clone())
        .with(
            "Username",
            application.or_else(|| sign_in?.user_name().map(str::to_owned)),
        )
        .with("MaxConcurrentMigrations", unlimited(e.max_concurrent_migrations))
        .with(
            "MaxConcurrentIncrementalSyncs",
            unlimited(e.max_concurrent_incremental_syncs),
        )
        .with("IsRemote", true)
        .with("Port", imap.map(|i| i64::from(i.port)))
        .with("Security", imap.map(|i| i.security.as_str()))
        .with("SignIn", sign_in.map(endpoint_imap::sign_in_word))
        .with("MasterUserSeparator", separator)
        .with("OAuthTokenUrl", token_url)
        .with("OAuthScope", scope)
}

fn server(text: &str) -> Result<Origin, CommandError> {
    text.parse::<Origin>().map_err(|e| {
        CommandError::parameter(
            "RemoteServer",
            format!("{e}."),
            "Give the source's host name, with :port unless it is 443.",
        )
    })
}

/// `host[:port]` as stored.
fn host(origin: &Origin) -> String {
    origin.as_str().trim_start_matches("https://").to_owned()
}

/// The application that the parameters name, in `-ApplicationId`, as user name of `-Credentials`, or both.
fn application_id(p: &Parameters) -> Result<Option<ApplicationId>, CommandError> {
    let user_name = p.credential("Credentials").map(|c| c.user_name.trim());
    let given = p.text("ApplicationId").map(str::trim);
    if let (Some(given), Some(user_name)) = (given, user_name)
        && !given.eq_ignore_ascii_case(user_name)
    {
        return Err(CommandError::parameter(
            "Credentials",
            format!("-ApplicationId is {given} and the user name of -Credentials is {user_name}."),
            "The user name is the application's id.",
        ));
    }
    let Some(text) = given.or(user_name) else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| {
        let name = if given.is_some() {
            "ApplicationId"
        } else {
            "Credentials"
        };
        CommandError::parameter(
            name,
            "The application's id is not a GUID.",
            "Get-MgApplication prints it as AppId.",
        )
    })
}

fn refuse_key_vault(p: &Parameters) -> Result<(), CommandError> {
    if !p.given("AppSecretKeyVaultUrl") {
        return Ok(());
    }
    Err(CommandError::parameter(
        "AppSecretKeyVaultUrl",
        "-AppSecretKeyVaultUrl is superseded: the secret is given to this server itself and sealed there, not fetched from a key vault.",
        "Use -Credentials with the application's id and secret.",
    ))
}

fn limit(p: &Parameters, name: &str, present: Option<u32>) -> Option<u32> {
    match p.get(name) {
        Some(Value::Int(n)) => u32::try_from(*n).ok(),
        Some(Value::Text(_)) => None,
        _ => present,
    }
}

fn apply_limits(p: &Parameters, e: &mut MigrationEndpoint) -> Result<(), CommandError> {
    e.max_concurrent_migrations = limit(p, "MaxConcurrentMigrations", e.max_concurrent_migrations);
    e.max_concurrent_incremental_syncs = limit(p, "MaxConcurrentIncrementalSyncs", e.max_concurrent_incremental_syncs);
    let (all, incremental) = (
        e.max_concurrent_migrations.unwrap_or(u32::MAX),
        e.max_concurrent_incremental_syncs.unwrap_or(u32::MAX),
    );
    if all == 0 {
        return Err(CommandError::parameter(
            "MaxConcurrentMigrations",
            "MaxConcurrentMigrations is at least 1.",
            "",
        ));
    }
    // A default that was never asked for gives way.
    if incremental > all && !p.given("MaxConcurrentIncrementalSyncs") {
        e.max_concurrent_incremental_syncs = Some(all);
        return Ok(());
    }
    if incremental > all {
        return Err(CommandError::parameter(
            "MaxConcurrentIncrementalSyncs",
            "MaxConcurrentIncrementalSyncs must not be more than MaxConcurrentMigrations.",
            "Raise MaxConcurrentMigrations, or lower it.",
        ));
    }
    Ok(())
}

/// What a test of the connection means for an endpoint.
pub(super) enum Verified {
    /// All is well; the source tenant's GUID.
    Well(Option<TenantId>),
    /// Only the source's consent is missing; the tenant's GUID and the link.
    NotConsented(TenantId, String),
}

/// Tells a missing consent from every other failure.
pub(super) async fn verdict(
    call: &Call<'_>,
    address: &PartnerAddress,
    found: &Availability,
) -> Result<Verified, Problem> {
    match (found.problems.first(), found.tenant) {
        (None, tenant) => Ok(Verified::Well(tenant)),
        (Some(problem), Some(tenant)) if problem.id == ErrorId::ApplicationNotConsented => {
            let link = link_for(call, address).await;
            link.map(|link| Verified::NotConsented(tenant, link))
                .ok_or_else(|| problem.clone())
        }
        (Some(problem), _) => Err(problem.clone()),
    }
}

async fn link_for(call: &Call<'_>, address: &PartnerAddress) -> Option<String> {
    let application = call
        .ctx
        .identity
        .application_get(call.tenant(), address.application_id)
        .await
        .ok()?;
    let origin = address.remote_server.parse::<Origin>().ok()?;
    Some(consent_link(call, &application, &origin, &address.remote_tenant))
}

/// Tries the connection; returns the tenant found and a warning.
async fn verify(call: &Call<'_>, e: &MigrationEndpoint) -> Result<(Option<TenantId>, Option<String>), CommandError> {
    let address = call.ctx.target.address_of(e)?;
    let found = call
        .ctx
        .target
        .test_availability(&address, None, call.ctx.correlation)
        .await;
    match verdict(call, &address, &found).await {
        Ok(Verified::Well(tenant)) => Ok((tenant, None)),
        Ok(Verified::NotConsented(tenant, link)) => {
            let warning = format!(
                "The source has not consented to the application yet. Its administrator opens this link: {link} Then Test-MigrationServerAvailability -Endpoint '{}' shows whether all is well.",
                e.name
            );
            Ok((Some(tenant), Some(warning)))
        }
        Err(problem) => Err(CommandError::from(problem).about(&e.name)),
    }
}

/// The first tenant found is the one for ever.
fn found_tenant(e: &mut MigrationEndpoint, tenant: Option<TenantId>) {
    if let EndpointKind::ExchangeRemoteMove(remote) = &mut e.kind {
        remote.remote_tenant_id = remote.remote_tenant_id.or(tenant);
    }
}

async fn check_not_own_tenant(call: &Call<'_>, tx: &mut Tx, remote_tenant: &str) -> Result<(), CommandError> {
    let own = match remote_tenant.parse::<TenantId>() {
        Ok(id) => id == call.tenant(),
        Err(_) => {
            let domains = tx.accepted_domain_list(call.tenant()).await?;
            domains
                .iter()
                .any(|d| d.name.as_str().eq_ignore_ascii_case(remote_tenant))
        }
    };
    if !own {
        return Ok(());
    }
    Err(CommandError::new(
        ErrorId::SameTenant,
        remote_tenant,
        "ASSERT: The resource tenant and the accessing tenant cannot be equal.",
        "-RemoteTenant is the organisation that the mailboxes come from.",
    ))
}

/// What `-ExchangeRemoteMove` describes, with the host that it is at.
fn new_remote_move(p: &Parameters) -> Result<(EndpointKind, String), CommandError> {
    refuse_key_vault(p)?;
    let origin = server(p.text("RemoteServer").unwrap_or_default())?;
    let (Some(application_id), true) = (application_id(p)?, p.given("Credentials")) else {
        return Err(CommandError::parameter(
            "Credentials",
            "An endpoint needs the application's id and secret.",
            "Give -ApplicationId and -Credentials.",
        ));
    };
    let remote = RemoteMove {
        remote_tenant: p.text("RemoteTenant").unwrap_or_default().trim().to_owned(),
        remote_tenant_id: None,
        application_id,
    };
    Ok((EndpointKind::ExchangeRemoteMove(remote), host(&origin)))
}

async fn new_endpoint(call: &Call<'_>) -> Result<Output, CommandError> {
    let p = call.parameters;
    let name = checked_text("Name", p.text("Name").unwrap_or_default(), MAX_NAME)?;
    let (kind, remote_server) = if p.set() == IMAP {
        let host = endpoint_imap::host(p)?;
        (EndpointKind::Imap(endpoint_imap::new_kind(p, &host)?), host)
    } else {
        new_remote_move(p)?
    };
    let id = EndpointId(Uuid::new_v4());
    let secret = p.credential("Credentials").map(|c| &c.password);
    let sealed = secret.map(|secret| call.ctx.target.seal_secret(call.tenant(), id, secret));
    let mut made = MigrationEndpoint {
        id,
        tenant: call.tenant(),
        name,
        kind,
        remote_server,
        sealed_secret: sealed.transpose()?,
        max_concurrent_migrations: Some(MAX_MIGRATIONS),
        max_concurrent_incremental_syncs: Some(MAX_INCREMENTAL_SYNCS),
    };
    apply_limits(p, &mut made)?;
    let mut tx = call.ctx.store.read().await?;
    if let EndpointKind::ExchangeRemoteMove(remote) = &made.kind {
        check_not_own_tenant(call, &mut tx, &remote.remote_tenant).await?;
    }
    if tx.endpoint_by_name(call.tenant(), &made.name).await?.is_some() {
        return Err(CommandError::new(
            ErrorId::ObjectAlreadyExists,
            made.name.as_str(),
            format!(
                "The Name '{}' is already used by another migration endpoint.",
                made.name
            ),
            "Choose another name, or Set-MigrationEndpoint.",
        ));
    }
    drop(tx);
    let warnings = try_unless_skipped(call, &mut made).await?;
    let mut tx = call.ctx.store.write().await?;
    tx.endpoint_insert(call.tenant(), &made).await?;
    call.save(tx, &made.name).await?;
    Ok(Output::one(shown(&made)).warning(warnings))
}

/// Tries the connection; what is found of the source is remembered in the endpoint.
async fn try_unless_skipped(call: &Call<'_>, e: &mut MigrationEndpoint) -> Result<Vec<String>, CommandError> {
    if call.parameters.switch("SkipVerification") {
        return Ok(Vec::new());
    }
    match e.kind {
        EndpointKind::Imap(_) => endpoint_imap::verify(call, e).await,
        EndpointKind::ExchangeRemoteMove(_) => {
            let (tenant, warning) = verify(call, e).await?;
            found_tenant(e, tenant);
            Ok(warning.into_iter().collect())
        }
    }
}

async fn get_endpoint(call: &Call<'_>) -> Result<Output, CommandError> {
    let mut tx = call.ctx.store.read().await?;
    let mut found = match call.parameters.text("Identity") {
        Some(identity) => vec![find(call, &mut tx, identity).await?],
        None => tx.endpoint_list(call.tenant()).await?,
    };
    if let Some(kind) = call.parameters.text("Type") {
        found.retain(|e| e.kind.as_str() == kind);
    }
    Ok(Output::many(found.iter().map(shown)))
}

/// The batch that uses an endpoint, if one does.
async fn batch_of(call: &Call<'_>, tx: &mut Tx, endpoint: EndpointId) -> Result<Option<String>, CommandError> {
    let batches = tx.batch_list(call.tenant()).await?;
    Ok(batches.into_iter().find(|b| b.endpoint == endpoint).map(|b| b.name))
}

/// Changes the partner's side as the parameters say; says whether the connection is another one.
fn change_remote_move(p: &Parameters, e: &mut MigrationEndpoint) -> Result<bool, CommandError> {
    endpoint_imap::refuse_own(p)?;
    refuse_key_vault(p)?;
    if let Some(text) = p.text("RemoteServer") {
        e.remote_server = host(&server(text)?);
    }
    if let (Some(id), EndpointKind::ExchangeRemoteMove(remote)) = (application_id(p)?, &mut e.kind) {
        remote.application_id = id;
    }
    Ok(p.given("RemoteServer") || p.given("ApplicationId") || p.given("Credentials"))
}

async fn set_endpoint(call: &Call<'_>) -> Result<Output, CommandError> {
    let p = call.parameters;
    let mut tx = call.ctx.store.read().await?;
    let mut changed = find(call, &mut tx, p.text("Identity").unwrap_or_default()).await?;
    let is_used = batch_of(call, &mut tx, changed.id).await?.is_some();
    drop(tx);
    let before = changed.clone();
    let connection_changed = match changed.kind {
        EndpointKind::ExchangeRemoteMove(_) => change_remote_move(p, &mut changed)?,
        EndpointKind::Imap(_) => endpoint_imap::change(p, &mut changed, is_used)? || p.given("TestMailbox"),
    };
    if let Some(credential) = p.credential("Credentials") {
        let sealed = call
            .ctx
            .target
            .seal_secret(call.tenant(), changed.id, &credential.password)?;
        changed.sealed_secret = Some(sealed);
    }
    apply_limits(p, &mut changed)?;
    let warnings = if connection_changed {
        try_unless_skipped(call, &mut changed).await?
    } else {
        Vec::new()
    };
    let mut tx = call.ctx.store.write().await?;
    // The connection was tried outside the transaction; nothing may have changed since.
    let is_used_now = batch_of(call, &mut tx, changed.id).await?.is_some();
    if tx.endpoint_get(call.tenant(), changed.id).await? != Some(before) || is_used_now != is_used {
        return Err(CommandError::invalid_operation(
            &changed.name,
            format!(
                "The migration endpoint '{}' was changed by someone else meanwhile.",
                changed.name
            ),
            "Run the command again.",
        ));
    }
    tx.endpoint_update(call.tenant(), &changed).await?;
    call.save(tx, &changed.name).await?;
    Ok(Output::none().warning(warnings))
}

async fn remove_endpoint(call: &Call<'_>) -> Result<Output, CommandError> {
    let mut tx = call.ctx.store.write().await?;
    let found = find(call, &mut tx, call.parameters.text("Identity").unwrap_or_default()).await?;
    if let Some(batch) = batch_of(call, &mut tx, found.id).await? {
        return Err(CommandError::invalid_operation(
            &found.name,
            format!(
                "The migration endpoint '{}' is used by the migration batch '{batch}'.",
                found.name
            ),
            format!("Remove-MigrationBatch '{batch}' first."),
        ));
    }
    tx.endpoint_delete(call.tenant(), found.id).await?;
    call.save(tx, &found.name).await?;
    Ok(Output::none())
}

//! What the operator does on the machine itself: tenants, their domains, their first administrators, keys. It works while
//! the server runs, and is audited as caller "operator".

use crate::{
    config::Config,
    failure::Failure,
    files,
    output::{self, Form},
    print,
};
use jiff::Timestamp;
use rehome_command::Property;
use rehome_domain::{
    address::DomainName,
    id::TenantId,
    tenant::{AcceptedDomain, Tenant},
};
use rehome_identity::{Actor, Identity, IdentityConfig, SealKey};
use rehome_store::{AuditEntry, RecipientFilter, Store, StoreError, Tx};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value as Json, json};
use std::path::Path;

/// The state of a deployment, opened beside a server that may be running.
struct Desk {
    store: Store,
    identity: Identity,
}

impl Desk {
    async fn open(config: &Config) -> Result<Self, Failure> {
        let store = open_store(config).await?;
        let identity = open_identity(config, store.clone())?;
        Ok(Self { store, identity })
    }

    async fn tenant(&self, tx: &mut Tx, named: &str) -> Result<Tenant, Failure> {
        let found = tx.tenant_resolve(named).await.map_err(of_store)?;
        found.ok_or_else(|| Failure::failed(format!("there is no tenant '{named}' here")).advice("rehome tenant list"))
    }
}

/// Opens the state; the data folder is made if it is missing.
///
/// # Errors
/// When it cannot be used.
pub(crate) async fn open_store(config: &Config) -> Result<Store, Failure> {
    files::private_folder(&config.data_folder)
        .map_err(|error| Failure::while_doing(&format!("data_folder {}", config.data_folder.display()), &error))?;
    Store::open(&config.data_folder).await.map_err(of_store)
}

/// The authority over the state, with its key file.
///
/// # Errors
/// When the key file cannot be used.
pub(crate) fn open_identity(config: &Config, store: Store) -> Result<Identity, Failure> {
    let seal = SealKey::load(&config.key_file).map_err(|error| {
        let failure = Failure::of(&error);
        if config.key_file.exists() {
            failure
        } else {
            failure.advice(format!("rehome key new --out {}", config.key_file.display()))
        }
    })?;
    let settings = IdentityConfig {
        public_name: config.public_name.clone(),
        consent_days: config.consent.days.get32(),
    };
    Identity::new(store, seal, settings).map_err(|error| Failure::of(&error))
}

fn of_store(error: StoreError) -> Failure {
    Failure::of(&error)
}

fn domain(text: &str) -> Result<DomainName, Failure> {
    text.parse()
        .map_err(|error: rehome_domain::address::AddressError| Failure::usage(error.to_string()))
}

/// `rehome tenant new`.
///
/// # Errors
/// When the domain or the administrator's name is not usable, or the domain is taken.
pub(crate) async fn tenant_new(
    config: &Config,
    domain_text: &str,
    admin: &str,
    display_name: Option<&str>,
    form: Form,
) -> Result<(), Failure> {
    let initial_domain = domain(domain_text)?;
    let tenant = Tenant {
        id: TenantId(uuid::Uuid::new_v4()),
        display_name: display_name.unwrap_or(initial_domain.as_str()).to_owned(),
        initial_domain,
    };
    let desk = Desk::open(config).await?;
    let code = desk
        .identity
        .tenant_new(&tenant, admin, &Actor::operator(), Timestamp::now())
        .await;
    let code = code.map_err(|error| Failure::of(&error))?;
    desk.store.close().await;
    let object = json!({
        "tenant_id": tenant.id.to_string(), "domain": tenant.initial_domain.as_str(), "admin": admin, "code": code.expose_secret(),
    });
    show_code(config, &object, tenant.initial_domain.as_str(), &code, form);
    Ok(())
}

/// A one-time code is shown once, with what to do with it.
fn show_code(config: &Config, object: &Json, tenant: &str, code: &SecretString, form: Form) {
    if form == Form::Json {
        print::out(&format!("{object:#}\n"));
        return;
    }
    let server = config.public_name.as_str().trim_start_matches("https://");
    let text = |name| object.get(name).and_then(Json::as_str).unwrap_or_default();
    print::out(&format!(
        "tenant          {} ({})\nadministrator   {}\none-time code   {}\n",
        tenant,
        text("tenant_id"),
        text("admin"),
        code.expose_secret()
    ));
    print::say(&format!(
        "The code is shown this once and holds for 24 hours. The administrator signs in with it and sets a password:\n  \
         rehome login --server {server} --tenant {tenant}\n"
    ));
}

/// `rehome tenant list`.
///
/// # Errors
/// When the state cannot be read.
pub(crate) async fn tenant_list(config: &Config, form: Form) -> Result<(), Failure> {
    let store = open_store(config).await?;
    let mut tx = store.read().await.map_err(of_store)?;
    let mut objects = Vec::new();
    for tenant in tx.tenant_list().await.map_err(of_store)? {
        let domains = tx.accepted_domain_list(tenant.id).await.map_err(of_store)?;
        let domains: Vec<&str> = domains.iter().map(|d| d.name.as_str()).collect();
        objects.push(json!({
            "TenantId": tenant.id.to_string(), "Domain": tenant.initial_domain.as_str(),
            "DisplayName": tenant.display_name, "AcceptedDomains": domains,
        }));
    }
    drop(tx);
    store.close().await;
    let columns = ["TenantId", "Domain", "DisplayName", "AcceptedDomains"].map(|name| Property::column(name, ""));
    print::out(&output::render(&objects, &columns, form));
    Ok(())
}

/// What `rehome tenant domain` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DomainChange {
    /// The operator vouches that the tenant owns the domain.
    Add,
    /// The tenant no longer has it.
    Remove,
}

/// `rehome tenant domain add|remove`.
///
/// # Errors
/// When the domain is another tenant's, still in use, or the tenant's first one.
pub(crate) async fn tenant_domain(
    config: &Config,
    change: DomainChange,
    named: &str,
    text: &str,
) -> Result<(), Failure> {
    let name = domain(text)?;
    let desk = Desk::open(config).await?;
    let mut tx = desk.store.write().await.map_err(of_store)?;
    let tenant = desk.tenant(&mut tx, named).await?;
    let action = match change {
        DomainChange::Add => {
            let accepted = AcceptedDomain {
                name: name.clone(),
                default: false,
            };
            tx.accepted_domain_insert(tenant.id, &accepted)
                .await
                .map_err(of_store)?;
            "AddDomain"
        }
        DomainChange::Remove => {
            remove_domain(&mut tx, &tenant, &name).await?;
            "RemoveDomain"
        }
    };
    let actor = Actor::operator();
    let entry = AuditEntry {
        at: Timestamp::now(),
        caller: actor.caller,
        origin: actor.origin,
        action: action.to_owned(),
        object: name.to_string(),
        parameters: json!({}),
        result: "ok".to_owned(),
        correlation_id: actor.correlation_id,
    };
    tx.audit_append(tenant.id, &entry).await.map_err(of_store)?;
    tx.commit("app.tenant_domain").await.map_err(of_store)?;
    desk.store.close().await;
    let done = match change {
        DomainChange::Add => "is now an accepted domain",
        DomainChange::Remove => "is no longer an accepted domain",
    };
    print::say(&format!("{name} {done} of {}.\n", tenant.initial_domain));
    Ok(())
}

async fn remove_domain(tx: &mut Tx, tenant: &Tenant, name: &DomainName) -> Result<(), Failure> {
    if *name == tenant.initial_domain {
        return Err(Failure::failed(format!(
            "{name} is the domain under which the tenant was made; it stays"
        )));
    }
    let recipients = tx
        .recipient_list(tenant.id, RecipientFilter::All, u32::MAX)
        .await
        .map_err(of_store)?;
    let users: Vec<String> = recipients
        .iter()
        .filter_map(|recipient| recipient.address_in(name))
        .map(ToString::to_string)
        .take(5)
        .collect();
    if !users.is_empty() {
        return Err(Failure::failed(format!("{name} is still used by {}", users.join(", ")))
            .advice("Take these addresses away first."));
    }
    if tx.accepted_domain_delete(tenant.id, name).await.map_err(of_store)? {
        Ok(())
    } else {
        Err(
            Failure::failed(format!("{name} is not an accepted domain of {}", tenant.initial_domain))
                .advice("rehome tenant list"),
        )
    }
}

/// `rehome admin reset`.
///
/// # Errors
/// When there is no such tenant or administrator.
pub(crate) async fn admin_reset(config: &Config, tenant: &str, name: &str, form: Form) -> Result<(), Failure> {
    let desk = Desk::open(config).await?;
    let mut tx = desk.store.read().await.map_err(of_store)?;
    let tenant = desk.tenant(&mut tx, tenant).await?;
    drop(tx);
    let code = desk
        .identity
        .admin_reset(tenant.id, name, &Actor::operator(), Timestamp::now())
        .await;
    let code = code.map_err(|error| Failure::of(&error))?;
    desk.store.close().await;
    let object = json!({
        "tenant_id": tenant.id.to_string(), "domain": tenant.initial_domain.as_str(), "admin": name, "code": code.expose_secret(),
    });
    show_code(config, &object, tenant.initial_domain.as_str(), &code, form);
    Ok(())
}

/// `rehome key new`.
///
/// # Errors
/// When the file exists or cannot be made.
pub(crate) fn key_new(file: &Path) -> Result<(), Failure> {
    SealKey::generate_file(file).map_err(|error| Failure::of(&error))?;
    print::say(&format!(
        "{} holds a new key. Keep a copy apart from the backups of the data folder: without it stored secrets are lost.\n",
        file.display()
    ));
    Ok(())
}

//! The pure parts joined with the store: what other rooms call.

mod accounts;
mod applications;
mod consents;
mod tokens;

#[cfg(test)]
mod tests;

use crate::{
    authority::{Origin, discovery_document},
    dpop::{DpopKey, ProofMemory},
    error::KeyStoreError,
    jws::CryptographyFailed,
    keyset::{TenantKeys, jwks, new_key_row, open_keys, sign_key_set},
    password::{PasswordPool, Throttle},
    seal::SealKey,
    session::CsrfKey,
    statement::{OutcomeStatement, ReceiptStatement},
};
use jiff::Timestamp;
use rehome_domain::{
    consent::KeyPurpose,
    id::{CorrelationId, TenantId},
    tenant::Tenant,
};
use rehome_store::{AuditEntry, Store, StoreError, Tx};
use secrecy::SecretString;
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};
use uuid::Uuid;

pub use applications::NewSecret;
pub use consents::{ConsentGrant, Consented, DescriptionSource};
pub use tokens::TokenOrigin;

/// What identity needs to know of the deployment.
#[derive(Clone, Debug)]
pub struct IdentityConfig {
    /// The name under which partners reach it; part of every issuer.
    pub public_name: Origin,
    /// How many days a consent lasts unless renewed; the accepting administrator may give fewer.
    pub consent_days: u32,
}

impl IdentityConfig {
    /// With the default of 180 days for a consent.
    #[must_use]
    pub fn new(public_name: Origin) -> Self {
        Self {
            public_name,
            consent_days: 180,
        }
    }
}

/// Who makes a change, for the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// An administrator's sign-in name, or `operator`.
    pub caller: String,
    /// Network address, or `local`.
    pub origin: String,
    /// Stands in both sides' logs.
    pub correlation_id: CorrelationId,
}

impl Actor {
    /// The operator at the machine.
    #[must_use]
    pub fn operator() -> Self {
        Self {
            caller: "operator".into(),
            origin: "local".into(),
            correlation_id: CorrelationId(Uuid::new_v4()),
        }
    }
}

/// The identity authority of a deployment. Cheap to clone.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    store: Store,
    seal: SealKey,
    config: IdentityConfig,
    dpop: DpopKey,
    proofs: ProofMemory,
    passwords: PasswordPool,
    throttle: Throttle,
    csrf: CsrfKey,
    keys: RwLock<HashMap<TenantId, Arc<TenantKeys>>>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("config", &self.0.config)
            .finish_non_exhaustive()
    }
}

/// What an audit row says beside who and when.
struct Event<'a> {
    action: &'a str,
    object: String,
    parameters: serde_json::Value,
    result: &'a str,
}

async fn audit(
    tx: &mut Tx,
    tenant: TenantId,
    actor: &Actor,
    event: Event<'_>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let entry = AuditEntry {
        at: now,
        caller: actor.caller.clone(),
        origin: actor.origin.clone(),
        action: event.action.to_owned(),
        object: event.object,
        parameters: event.parameters,
        result: event.result.to_owned(),
        correlation_id: actor.correlation_id,
    };
    tx.audit_append(tenant, &entry).await
}

impl Identity {
    /// The authority over what `store` holds, with secrets sealed by `seal`.
    ///
    /// # Errors
    /// When the random source fails.
    pub fn new(store: Store, seal: SealKey, config: IdentityConfig) -> Result<Self, CryptographyFailed> {
        Ok(Self(Arc::new(Inner {
            store,
            seal,
            config,
            dpop: DpopKey::generate()?,
            proofs: ProofMemory::default(),
            passwords: PasswordPool::default(),
            throttle: Throttle::default(),
            csrf: CsrfKey::generate()?,
            keys: RwLock::default(),
        })))
    }

    /// The name under which partners reach this deployment.
    #[must_use]
    pub fn public_name(&self) -> &Origin {
        &self.0.config.public_name
    }

    /// The tenant's issuer.
    #[must_use]
    pub fn issuer(&self, tenant: TenantId) -> String {
        self.public_name().issuer(tenant)
    }

    /// Seals and opens what others store (endpoint credentials).
    #[must_use]
    pub fn seal_key(&self) -> &SealKey {
        &self.0.seal
    }

    /// The key to which this process's movers bind their access tokens.
    #[must_use]
    pub fn dpop_key(&self) -> &DpopKey {
        &self.0.dpop
    }

    /// Longest consent, in days.
    #[must_use]
    pub fn consent_days(&self) -> u32 {
        self.0.config.consent_days
    }

    /// The anti-forgery value for forms of a session (or of a random pre-session cookie).
    #[must_use]
    pub fn csrf(&self, session: &SecretString) -> String {
        self.0.csrf.make(session)
    }

    /// Whether a form's anti-forgery value is that of the session. Values end with the process.
    #[must_use]
    pub fn csrf_matches(&self, session: &SecretString, value: &str) -> bool {
        self.0.csrf.check(session, value)
    }

    /// The tenant named in a URL: its GUID, or one of its accepted domains.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tenant_resolve(&self, text: &str) -> Result<Option<Tenant>, StoreError> {
        self.0.store.read().await?.tenant_resolve(text).await
    }

    /// The tenant's discovery document.
    #[must_use]
    pub fn discovery(&self, tenant: TenantId) -> serde_json::Value {
        discovery_document(self.public_name(), tenant)
    }

    /// The tenant's published keys (JWKS).
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub async fn jwks(&self, tenant: TenantId, now: Timestamp) -> Result<serde_json::Value, KeyStoreError> {
        Ok(jwks(&*self.keys(tenant, now).await?, &self.issuer(tenant)))
    }

    /// The tenant's key set as a signed document (`rehome-keys+jwt`).
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub async fn signed_key_set(&self, tenant: TenantId, now: Timestamp) -> Result<String, KeyStoreError> {
        let keys = self.keys(tenant, now).await?;
        let domains = self.0.store.read().await?.accepted_domain_list(tenant).await?;
        let domains = domains.into_iter().map(|domain| domain.name.to_string()).collect();
        Ok(sign_key_set(&keys, self.public_name(), tenant, domains, now)?)
    }

    /// Signs a statement of an attempt's outcome as `tenant`, the target.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub async fn sign_outcome(
        &self,
        tenant: TenantId,
        statement: &OutcomeStatement,
        now: Timestamp,
    ) -> Result<String, KeyStoreError> {
        let keys = self.keys(tenant, now).await?;
        Ok(statement.sign(&keys.statement, &self.issuer(tenant), now)?)
    }

    /// Signs a receipt as `tenant`, either side.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub async fn sign_receipt(
        &self,
        tenant: TenantId,
        statement: &ReceiptStatement,
        now: Timestamp,
    ) -> Result<String, KeyStoreError> {
        let keys = self.keys(tenant, now).await?;
        let at = (&*self.issuer(tenant), &*self.public_name().keys(tenant));
        Ok(statement.sign(&keys.statement, at, now)?)
    }

    /// The tenant's keys; made with the tenant, or here for a tenant that has none yet.
    async fn keys(&self, tenant: TenantId, now: Timestamp) -> Result<Arc<TenantKeys>, KeyStoreError> {
        if let Some(keys) = self.0.keys.read().unwrap_or_else(PoisonError::into_inner).get(&tenant) {
            return Ok(Arc::clone(keys));
        }
        let (sequence, rows) = self.0.store.read().await?.signing_key_list(tenant).await?;
        let opened = match open_keys(&self.0.seal, tenant, sequence, &rows)? {
            Some(keys) => keys,
            None => {
                let mut tx = self.0.store.write().await?;
                let keys = self.ensure_keys(&mut tx, tenant, &Actor::operator(), now).await?;
                tx.commit("identity.keys").await?;
                keys
            }
        };
        let opened = Arc::new(opened);
        self.0
            .keys
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(tenant, Arc::clone(&opened));
        Ok(opened)
    }

    /// Makes the keys that the tenant lacks, within a change that is being made.
    async fn ensure_keys(
        &self,
        tx: &mut Tx,
        tenant: TenantId,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<TenantKeys, KeyStoreError> {
        if tx.tenant_get(tenant).await?.is_none() {
            return Err(KeyStoreError::UnknownTenant);
        }
        let (_, rows) = tx.signing_key_list(tenant).await?;
        for purpose in [KeyPurpose::Token, KeyPurpose::Statement] {
            if rows.iter().any(|r| r.purpose == purpose && r.retired.is_none()) {
                continue;
            }
            let row = new_key_row(&self.0.seal, tenant, purpose, now)?;
            tx.signing_key_insert(tenant, &row).await?;
            let event = Event {
                action: "NewSigningKey",
                object: row.kid.clone(),
                parameters: serde_json::json!({ "purpose": format!("{purpose:?}") }),
                result: "ok",
            };
            audit(tx, tenant, actor, event, now).await?;
        }
        let (sequence, rows) = tx.signing_key_list(tenant).await?;
        open_keys(&self.0.seal, tenant, sequence, &rows)?.ok_or(KeyStoreError::Damaged)
    }
}

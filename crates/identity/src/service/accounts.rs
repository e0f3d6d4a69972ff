//! Tenants made by the operator, administrators' accounts, sign-in.

use super::{Actor, Event, Identity, audit};
use crate::{
    account::{
        AdminCaller, CODE_LIFETIME, ORGANIZATION_MANAGEMENT, SignedIn, check_admin, code_hash, code_matches,
        is_sign_in_name, new_code, password_is_allowed, sign_admin,
    },
    clock::after,
    error::{AccountError, AdminTokenError, KeyStoreError, SignInError},
    jws::CryptographyFailed,
    password::PoolError,
};
use jiff::Timestamp;
use rehome_domain::{
    id::{AccountId, CorrelationId, TenantId},
    tenant::Tenant,
};
use rehome_store::{AccountRow, StoreError, Tx};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

impl From<PoolError> for SignInError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Busy => Self::Busy,
            PoolError::Failed => Self::Unavailable(KeyStoreError::Cryptography(CryptographyFailed)),
        }
    }
}

/// Longest wait because of failures for an account, whoever made them, seconds.
const ACCOUNT_WAIT: i64 = 10;
/// Longest wait because of failures from an address, seconds.
const ADDRESS_WAIT: i64 = 300;

impl Identity {
    /// Operator: makes a tenant with its signing keys and its first administrator, a member of Organization
    /// Management, and returns the one-time sign-in code (24 hours), to be shown once.
    ///
    /// # Errors
    /// [`AccountError`]; when the domain is taken nothing is made.
    pub async fn tenant_new(
        &self,
        tenant: &Tenant,
        admin: &str,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<SecretString, AccountError> {
        let mut tx = self.0.store.write().await?;
        tx.tenant_insert(tenant, now).await?;
        let event = Event {
            action: "NewTenant",
            object: tenant.id.to_string(),
            parameters: serde_json::json!({ "Domain": tenant.initial_domain.as_str() }),
            result: "ok",
        };
        audit(&mut tx, tenant.id, actor, event, now).await?;
        self.ensure_keys(&mut tx, tenant.id, actor, now).await?;
        let code = self.insert_account(&mut tx, tenant.id, admin, actor, now).await?;
        tx.commit("identity.tenant").await?;
        Ok(code)
    }

    /// Adds an administrator to Organization Management and returns the one-time sign-in code.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn admin_new(
        &self,
        tenant: TenantId,
        name: &str,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<SecretString, AccountError> {
        let mut tx = self.0.store.write().await?;
        let code = self.insert_account(&mut tx, tenant, name, actor, now).await?;
        tx.commit("identity.account").await?;
        Ok(code)
    }

    async fn insert_account(
        &self,
        tx: &mut Tx,
        tenant: TenantId,
        name: &str,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<SecretString, AccountError> {
        let name = name.trim();
        if !is_sign_in_name(name) {
            return Err(AccountError::BadName {
                name: name.chars().take(100).collect(),
            });
        }
        let code = new_code()?;
        let account = AccountRow {
            id: AccountId(Uuid::new_v4()),
            name: name.to_owned(),
            password_hash: None,
            code: Some((code_hash(&code), after(now, CODE_LIFETIME))),
            tokens_from: now,
            basic_allowed: false,
            created: now,
        };
        tx.account_insert(tenant, &account).await?;
        tx.role_group_member_insert(tenant, ORGANIZATION_MANAGEMENT, account.id)
            .await?;
        let event = Event {
            action: "NewAdministrator",
            object: name.to_owned(),
            parameters: serde_json::json!({ "RoleGroup": ORGANIZATION_MANAGEMENT }),
            result: "ok",
        };
        audit(tx, tenant, actor, event, now).await?;
        Ok(code)
    }

    /// Operator: takes an administrator's password and sessions away and returns a new one-time sign-in code.
    ///
    /// # Errors
    /// [`AccountError::NotFound`], or when the database fails.
    pub async fn admin_reset(
        &self,
        tenant: TenantId,
        name: &str,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<SecretString, AccountError> {
        let code = new_code()?;
        let mut tx = self.0.store.write().await?;
        let seen = self.account(&mut tx, tenant, name).await?;
        let mut new = seen.clone();
        new.password_hash = None;
        new.code = Some((code_hash(&code), after(now, CODE_LIFETIME)));
        new.tokens_from = now;
        tx.account_update(tenant, &seen, &new).await?;
        let event = Event {
            action: "ResetAdministrator",
            object: seen.name.clone(),
            parameters: serde_json::json!({}),
            result: "ok",
        };
        audit(&mut tx, tenant, actor, event, now).await?;
        tx.commit("identity.account").await?;
        self.0.throttle.succeeded(&account_key(tenant, &seen.name));
        Ok(code)
    }

    async fn account(&self, tx: &mut Tx, tenant: TenantId, name: &str) -> Result<AccountRow, AccountError> {
        tx.account_by_name(tenant, name.trim())
            .await?
            .ok_or_else(|| AccountError::NotFound {
                name: name.chars().take(100).collect(),
            })
    }

    /// The tenant's administrators' accounts, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn admin_list(&self, tenant: TenantId) -> Result<Vec<AccountRow>, StoreError> {
        self.0.store.read().await?.account_list(tenant).await
    }

    /// Puts an account into a role group; says whether it was not yet in it.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn role_group_add(
        &self,
        tenant: TenantId,
        role_group: &str,
        name: &str,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<bool, AccountError> {
        let mut tx = self.0.store.write().await?;
        let account = self.account(&mut tx, tenant, name).await?;
        let added = tx.role_group_member_insert(tenant, role_group, account.id).await?;
        if added {
            let event = Event {
                action: "Add-RoleGroupMember",
                object: role_group.to_owned(),
                parameters: serde_json::json!({ "Member": account.name }),
                result: "ok",
            };
            audit(&mut tx, tenant, actor, event, now).await?;
            tx.commit("identity.role_group").await?;
        }
        Ok(added)
    }

    /// Takes an account out of a role group; says whether it was in it.
    ///
    /// # Errors
    /// [`AccountError::LastMember`] for the last member of Organization Management.
    pub async fn role_group_remove(
        &self,
        tenant: TenantId,
        role_group: &str,
        name: &str,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<bool, AccountError> {
        let mut tx = self.0.store.write().await?;
        let account = self.account(&mut tx, tenant, name).await?;
        let members = tx.role_group_member_list(tenant, role_group).await?;
        if role_group == ORGANIZATION_MANAGEMENT && members.len() == 1 && members[0].id == account.id {
            return Err(AccountError::LastMember { name: account.name });
        }
        let removed = tx.role_group_member_delete(tenant, role_group, account.id).await?;
        if removed {
            let event = Event {
                action: "Remove-RoleGroupMember",
                object: role_group.to_owned(),
                parameters: serde_json::json!({ "Member": account.name }),
                result: "ok",
            };
            audit(&mut tx, tenant, actor, event, now).await?;
            tx.commit("identity.role_group").await?;
        }
        Ok(removed)
    }

    /// Signs an administrator in with the password, or the first time with the one-time code and a new password.
    /// A new password given with the right old one replaces it. `origin` is the network address, for the throttle
    /// and the log.
    ///
    /// # Errors
    /// [`SignInError`].
    pub async fn sign_in(
        &self,
        tenant: TenantId,
        name: &str,
        password: &SecretString,
        new_password: Option<&SecretString>,
        origin: &str,
        now: Timestamp,
    ) -> Result<SignedIn, SignInError> {
        let name = name.trim();
        if name.len() > 320 {
            return Err(SignInError::Refused);
        }
        let (account_key, address_key) = (account_key(tenant, name), format!("address {origin}"));
        let throttled = [account_key.as_str(), address_key.as_str()];
        // By the account alone only a little: a stranger must not keep an administrator out.
        let waits = [
            (account_key.as_str(), ACCOUNT_WAIT),
            (address_key.as_str(), ADDRESS_WAIT),
        ];
        if let Some(seconds) = self.0.throttle.wait(&waits, now) {
            return Err(SignInError::TryLater { seconds });
        }
        let account = self.0.store.read().await?.account_by_name(tenant, name).await?;
        // The same work whether the account is there or not, has a password or a code.
        let hash = account.as_ref().and_then(|a| a.password_hash.clone());
        let by_password = self.0.passwords.verify(hash, password.clone()).await?;
        let by_code = code_matches(account.as_ref().and_then(|a| a.code.as_ref()), password, now);
        let Some(mut account) = account.filter(|_| by_password || by_code) else {
            self.0.throttle.failed(&throttled, now);
            tracing::warn!(%tenant, address = origin, "sign-in refused");
            return Err(SignInError::Refused);
        };
        match new_password {
            None if !by_password => return Err(SignInError::NewPasswordRequired),
            None => {}
            Some(new) => {
                if !password_is_allowed(new) {
                    return Err(SignInError::BadPassword);
                }
                account = self.set_password(tenant, account, new, origin, now).await?;
            }
        }
        self.0.throttle.succeeded(&account_key);
        let role_groups = self.0.store.read().await?.role_groups_of(tenant, account.id).await?;
        let caller = AdminCaller {
            tenant,
            account: account.id,
            name: account.name,
            role_groups,
        };
        let keys = self.keys(tenant, now).await?;
        let (token, expires) =
            sign_admin(&keys.token, self.public_name(), &caller, now).map_err(KeyStoreError::Cryptography)?;
        tracing::info!(%tenant, name = %caller.name, address = origin, "signed in");
        Ok(SignedIn { token, caller, expires })
    }

    async fn set_password(
        &self,
        tenant: TenantId,
        seen: AccountRow,
        password: &SecretString,
        origin: &str,
        now: Timestamp,
    ) -> Result<AccountRow, SignInError> {
        let hash = self.0.passwords.hash(password.clone()).await?;
        let mut new = seen.clone();
        new.password_hash = Some(hash);
        new.code = None;
        new.tokens_from = now;
        let mut tx = self.0.store.write().await?;
        match tx.account_update(tenant, &seen, &new).await {
            // Someone used the code, or reset the account, in between.
            Err(StoreError::Stale { .. }) => return Err(SignInError::Refused),
            other => other?,
        }
        let actor = Actor {
            caller: seen.name.clone(),
            origin: origin.to_owned(),
            correlation_id: CorrelationId(Uuid::new_v4()),
        };
        let event = Event {
            action: "SetPassword",
            object: seen.name.clone(),
            parameters: serde_json::json!({ "WithOneTimeCode": seen.password_hash.is_none() }),
            result: "ok",
        };
        audit(&mut tx, tenant, &actor, event, now).await?;
        tx.commit("identity.password").await?;
        Ok(new)
    }

    /// The door of the cmdlet surfaces and the console. Role groups are those of now, not of the sign-in.
    ///
    /// # Errors
    /// [`AdminTokenError`].
    pub async fn check_admin(
        &self,
        token: &SecretString,
        tenant: TenantId,
        now: Timestamp,
    ) -> Result<AdminCaller, AdminTokenError> {
        let keys = self.keys(tenant, now).await?;
        let checked = check_admin(
            token.expose_secret(),
            keys.token_keys(),
            self.public_name(),
            tenant,
            now,
        )?;
        let mut tx = self.0.store.read().await?;
        let account = tx
            .account_get(tenant, checked.account)
            .await?
            .ok_or(AdminTokenError::Ended)?;
        if checked.issued < account.tokens_from.as_second() {
            return Err(AdminTokenError::Ended);
        }
        let role_groups = tx.role_groups_of(tenant, account.id).await?;
        Ok(AdminCaller {
            tenant,
            account: account.id,
            name: account.name,
            role_groups,
        })
    }
}

fn account_key(tenant: TenantId, name: &str) -> String {
    format!("account {tenant} {}", name.to_lowercase())
}

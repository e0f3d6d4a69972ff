//! Application registrations, their secrets and grants; consents to others' applications; used assertion ids.

use crate::{
    StoreError, Tx,
    identity::{purpose_from, purpose_text, time},
};
use jiff::Timestamp;
use rehome_domain::{
    consent::{PinnedKey, PinnedKeys, ServicePrincipal},
    id::{ApplicationId, ServicePrincipalId, TenantId},
};
use serde::{Deserialize, Serialize};
use sqlx::{Row, sqlite::SqliteRow};
use uuid::Uuid;

/// Who may consent to an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignInAudience {
    /// Its own organisation alone.
    AzureADMyOrg,
    /// Any organisation.
    AzureADMultipleOrgs,
}

impl SignInAudience {
    /// The name used in Microsoft Graph.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AzureADMyOrg => "AzureADMyOrg",
            Self::AzureADMultipleOrgs => "AzureADMultipleOrgs",
        }
    }
}

impl std::str::FromStr for SignInAudience {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::AzureADMyOrg, Self::AzureADMultipleOrgs]
            .into_iter()
            .find(|a| a.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| format!("'{text}' is not a sign-in audience: use AzureADMyOrg or AzureADMultipleOrgs"))
    }
}

/// A permission that an application asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequiredPermission {
    /// App id of the resource.
    pub resource_app_id: Uuid,
    /// Its name, for example `Mailbox.Migration`.
    pub name: String,
    /// Application permission (`Role`) if true, delegated permission (`Scope`) if false.
    pub application: bool,
}

/// An application registered in a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// Client id; unique over the deployment.
    pub app_id: ApplicationId,
    /// Its home.
    pub tenant: TenantId,
    /// Its service principal in its own home.
    pub service_principal: ServicePrincipalId,
    /// Shown at consent.
    pub display_name: String,
    /// Who may consent.
    pub sign_in_audience: SignInAudience,
    /// Where a consent page may lead back to; compared exactly.
    pub redirect_uris: Vec<String>,
    /// What it asks for.
    pub permissions: Vec<RequiredPermission>,
    /// When registered.
    pub created: Timestamp,
}

/// A secret of an application: never its value.
#[derive(Clone, PartialEq, Eq)]
pub struct ApplicationSecret {
    /// The secret's own id.
    pub key_id: Uuid,
    /// Name given by the administrator; may be empty.
    pub display_name: String,
    /// First three characters of the value.
    pub hint: String,
    /// SHA-256 of the value.
    pub hash: Vec<u8>,
    /// Valid from.
    pub start: Timestamp,
    /// Valid until (not at).
    pub end: Timestamp,
}

impl std::fmt::Debug for ApplicationSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApplicationSecret")
            .field("key_id", &self.key_id)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

/// A role that the home tenant granted to its own application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplicationGrant {
    /// The role.
    pub role: String,
    /// Who granted it.
    pub granted_by: String,
    /// When.
    pub granted_at: Timestamp,
}

fn json<T: Serialize + ?Sized>(value: &T, what: &'static str) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| StoreError::unreadable(what, e))
}

fn from_json<T: serde::de::DeserializeOwned>(text: &str, what: &'static str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|e| StoreError::unreadable(what, e))
}

fn application_from(row: &SqliteRow) -> Result<Application, StoreError> {
    let what = "application";
    let bad = |e: uuid::Error| StoreError::unreadable(what, e);
    Ok(Application {
        tenant: row.get::<String, _>(0).parse().map_err(bad)?,
        app_id: row.get::<String, _>(1).parse().map_err(bad)?,
        service_principal: row.get::<String, _>(2).parse().map_err(bad)?,
        display_name: row.get(3),
        sign_in_audience: row
            .get::<String, _>(4)
            .parse()
            .map_err(|e| StoreError::unreadable(what, e))?,
        redirect_uris: from_json(row.get(5), what)?,
        permissions: from_json(row.get(6), what)?,
        created: time(row.get(7), what)?,
    })
}

const APPLICATION: &str = "SELECT tenant, app_id, service_principal, display_name, sign_in_audience, redirect_uris, permissions, created FROM applications";

const PRINCIPAL: &str = "SELECT tenant, id, issuer, home_tenant, app_id, display_name, home_domains, outcome_endpoint, \
     key_sequence, roles, return_right, accepted_by, accepted_at, expires_at, revoked_at FROM service_principals";

fn principal_from(row: &SqliteRow) -> Result<ServicePrincipal, StoreError> {
    let what = "service principal";
    let bad = |e: uuid::Error| StoreError::unreadable(what, e);
    Ok(ServicePrincipal {
        tenant: row.get::<String, _>(0).parse().map_err(bad)?,
        id: row.get::<String, _>(1).parse().map_err(bad)?,
        issuer: row.get(2),
        home_tenant: row.get::<String, _>(3).parse().map_err(bad)?,
        app_id: row.get::<String, _>(4).parse().map_err(bad)?,
        display_name: row.get(5),
        home_domains: from_json(row.get(6), what)?,
        outcome_endpoint: row.get(7),
        pinned_keys: PinnedKeys {
            sequence: u64::try_from(row.get::<i64, _>(8)).map_err(|e| StoreError::unreadable(what, e))?,
            keys: Vec::new(),
        },
        roles: from_json(row.get(9), what)?,
        return_right: row.get::<i64, _>(10) != 0,
        accepted_by: row.get(11),
        accepted_at: time(row.get(12), what)?,
        expires_at: time(row.get(13), what)?,
        revoked_at: row.get::<Option<i64>, _>(14).map(|t| time(t, what)).transpose()?,
    })
}

impl Tx {
    /// Registers an application.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when the app id is known.
    pub async fn application_insert(&mut self, tenant: TenantId, application: &Application) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO applications (tenant, app_id, service_principal, display_name, sign_in_audience, redirect_uris, permissions, created) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(tenant.to_string())
        .bind(application.app_id.to_string())
        .bind(application.service_principal.to_string())
        .bind(&application.display_name)
        .bind(application.sign_in_audience.as_str())
        .bind(json(&application.redirect_uris, "application")?)
        .bind(json(&application.permissions, "application")?)
        .bind(application.created.as_millisecond())
        .execute(self.on())
        .await
        .map_err(StoreError::unique("registering an application", "app id", &application.app_id.to_string()))?;
        Ok(())
    }

    /// Changes name, audience, redirect URIs and permissions of an application; says whether it was there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn application_update(
        &mut self,
        tenant: TenantId,
        application: &Application,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE applications SET display_name = $3, sign_in_audience = $4, redirect_uris = $5, permissions = $6 \
             WHERE tenant = $1 AND app_id = $2",
        )
        .bind(tenant.to_string())
        .bind(application.app_id.to_string())
        .bind(&application.display_name)
        .bind(application.sign_in_audience.as_str())
        .bind(json(&application.redirect_uris, "application")?)
        .bind(json(&application.permissions, "application")?)
        .execute(self.on())
        .await
        .map_err(StoreError::while_doing("changing an application"))?;
        Ok(done.rows_affected() > 0)
    }

    /// The tenant's application with this app id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn application_get(
        &mut self,
        tenant: TenantId,
        app_id: ApplicationId,
    ) -> Result<Option<Application>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "{APPLICATION} WHERE tenant = $1 AND app_id = $2"
        )))
        .bind(tenant.to_string())
        .bind(app_id.to_string())
        .fetch_optional(self.on())
        .await
        .map_err(StoreError::while_doing("reading an application"))?
        .as_ref()
        .map(application_from)
        .transpose()
    }

    /// The application with this app id, whichever tenant of the deployment is its home (consent must find it).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn application_in_deployment(
        &mut self,
        app_id: ApplicationId,
    ) -> Result<Option<Application>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!("{APPLICATION} WHERE app_id = $1")))
            .bind(app_id.to_string())
            .fetch_optional(self.on())
            .await
            .map_err(StoreError::while_doing("reading an application"))?
            .as_ref()
            .map(application_from)
            .transpose()
    }

    /// The tenant's applications, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn application_list(&mut self, tenant: TenantId) -> Result<Vec<Application>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "{APPLICATION} WHERE tenant = $1 ORDER BY display_name, app_id"
        )))
        .bind(tenant.to_string())
        .fetch_all(self.on())
        .await
        .map_err(StoreError::while_doing("listing applications"))?
        .iter()
        .map(application_from)
        .collect()
    }

    /// Removes an application with its secrets and grants; says whether it was there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn application_delete(&mut self, tenant: TenantId, app_id: ApplicationId) -> Result<bool, StoreError> {
        let mut found = false;
        for statement in [
            "DELETE FROM application_secrets WHERE tenant = $1 AND app_id = $2",
            "DELETE FROM application_grants WHERE tenant = $1 AND app_id = $2",
            "DELETE FROM applications WHERE tenant = $1 AND app_id = $2",
        ] {
            let done = sqlx::query(statement)
                .bind(tenant.to_string())
                .bind(app_id.to_string())
                .execute(self.on())
                .await
                .map_err(StoreError::while_doing("removing an application"))?;
            found = done.rows_affected() > 0;
        }
        Ok(found)
    }

    /// Adds a secret.
    ///
    /// # Errors
    /// When the tenant has no such application, or the database fails.
    pub async fn application_secret_insert(
        &mut self,
        tenant: TenantId,
        app_id: ApplicationId,
        secret: &ApplicationSecret,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO application_secrets (tenant, app_id, key_id, display_name, hint, hash, start_at, end_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(tenant.to_string())
        .bind(app_id.to_string())
        .bind(secret.key_id.to_string())
        .bind(&secret.display_name)
        .bind(&secret.hint)
        .bind(&secret.hash)
        .bind(secret.start.as_millisecond())
        .bind(secret.end.as_millisecond())
        .execute(self.on())
        .await
        .map_err(StoreError::while_doing("adding a secret"))?;
        Ok(())
    }

    /// The secrets of an application, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn application_secret_list(
        &mut self,
        tenant: TenantId,
        app_id: ApplicationId,
    ) -> Result<Vec<ApplicationSecret>, StoreError> {
        sqlx::query(
            "SELECT key_id, display_name, hint, hash, start_at, end_at FROM application_secrets \
             WHERE tenant = $1 AND app_id = $2 ORDER BY start_at, key_id",
        )
        .bind(tenant.to_string())
        .bind(app_id.to_string())
        .fetch_all(self.on())
        .await
        .map_err(StoreError::while_doing("reading secrets"))?
        .iter()
        .map(|r| {
            Ok(ApplicationSecret {
                key_id: Uuid::parse_str(r.get(0)).map_err(|e| StoreError::unreadable("secret", e))?,
                display_name: r.get(1),
                hint: r.get(2),
                hash: r.get(3),
                start: time(r.get(4), "secret")?,
                end: time(r.get(5), "secret")?,
            })
        })
        .collect()
    }

    /// Removes a secret; says whether it was there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn application_secret_delete(
        &mut self,
        tenant: TenantId,
        app_id: ApplicationId,
        key_id: Uuid,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM application_secrets WHERE tenant = $1 AND app_id = $2 AND key_id = $3")
            .bind(tenant.to_string())
            .bind(app_id.to_string())
            .bind(key_id.to_string())
            .execute(self.on())
            .await
            .map_err(StoreError::while_doing("removing a secret"))?;
        Ok(done.rows_affected() > 0)
    }

    /// Records the home tenant's own consent to a role; a repeated one changes nothing and says false.
    ///
    /// # Errors
    /// When the tenant has no such application, or the database fails.
    pub async fn application_grant_insert(
        &mut self,
        tenant: TenantId,
        app_id: ApplicationId,
        grant: &ApplicationGrant,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "INSERT INTO application_grants (tenant, app_id, role, granted_by, granted_at) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT DO NOTHING",
        )
        .bind(tenant.to_string())
        .bind(app_id.to_string())
        .bind(&grant.role)
        .bind(&grant.granted_by)
        .bind(grant.granted_at.as_millisecond())
        .execute(self.on())
        .await
        .map_err(StoreError::while_doing("granting a role"))?;
        Ok(done.rows_affected() > 0)
    }

    /// What the home tenant granted to its application.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn application_grant_list(
        &mut self,
        tenant: TenantId,
        app_id: ApplicationId,
    ) -> Result<Vec<ApplicationGrant>, StoreError> {
        sqlx::query("SELECT role, granted_by, granted_at FROM application_grants WHERE tenant = $1 AND app_id = $2 ORDER BY role")
            .bind(tenant.to_string())
            .bind(app_id.to_string())
            .fetch_all(self.on())
            .await
            .map_err(StoreError::while_doing("reading grants"))?
            .iter()
            .map(|r| Ok(ApplicationGrant { role: r.get(0), granted_by: r.get(1), granted_at: time(r.get(2), "grant")? }))
            .collect()
    }

    /// Takes all grants of an application back; says whether there were any.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn application_grant_delete(
        &mut self,
        tenant: TenantId,
        app_id: ApplicationId,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM application_grants WHERE tenant = $1 AND app_id = $2")
            .bind(tenant.to_string())
            .bind(app_id.to_string())
            .execute(self.on())
            .await
            .map_err(StoreError::while_doing("removing grants"))?;
        Ok(done.rows_affected() > 0)
    }

    /// Writes a consent whole: a new row, or the row with this id anew, with its pinned keys.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when the tenant has another service principal with this app id.
    pub async fn service_principal_put(
        &mut self,
        tenant: TenantId,
        principal: &ServicePrincipal,
    ) -> Result<(), StoreError> {
        let what = "service principal";
        let sequence = i64::try_from(principal.pinned_keys.sequence).map_err(|e| StoreError::unreadable(what, e))?;
        sqlx::query(
            "INSERT INTO service_principals (tenant, id, issuer, home_tenant, app_id, display_name, home_domains, outcome_endpoint, \
             key_sequence, roles, return_right, accepted_by, accepted_at, expires_at, revoked_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) \
             ON CONFLICT (tenant, id) DO UPDATE SET issuer = excluded.issuer, home_tenant = excluded.home_tenant, \
             app_id = excluded.app_id, display_name = excluded.display_name, home_domains = excluded.home_domains, \
             outcome_endpoint = excluded.outcome_endpoint, key_sequence = excluded.key_sequence, roles = excluded.roles, \
             return_right = excluded.return_right, accepted_by = excluded.accepted_by, accepted_at = excluded.accepted_at, \
             expires_at = excluded.expires_at, revoked_at = excluded.revoked_at",
        )
        .bind(tenant.to_string())
        .bind(principal.id.to_string())
        .bind(&principal.issuer)
        .bind(principal.home_tenant.to_string())
        .bind(principal.app_id.to_string())
        .bind(&principal.display_name)
        .bind(json(&principal.home_domains, what)?)
        .bind(&principal.outcome_endpoint)
        .bind(sequence)
        .bind(json(&principal.roles, what)?)
        .bind(i64::from(principal.return_right))
        .bind(&principal.accepted_by)
        .bind(principal.accepted_at.as_millisecond())
        .bind(principal.expires_at.as_millisecond())
        .bind(principal.revoked_at.map(Timestamp::as_millisecond))
        .execute(self.on())
        .await
        .map_err(StoreError::unique("recording a consent", "app id", &principal.app_id.to_string()))?;
        sqlx::query("DELETE FROM pinned_keys WHERE tenant = $1 AND service_principal = $2")
            .bind(tenant.to_string())
            .bind(principal.id.to_string())
            .execute(self.on())
            .await
            .map_err(StoreError::while_doing("pinning keys"))?;
        for key in &principal.pinned_keys.keys {
            sqlx::query("INSERT INTO pinned_keys (tenant, service_principal, kid, purpose, public_key) VALUES ($1, $2, $3, $4, $5)")
                .bind(tenant.to_string())
                .bind(principal.id.to_string())
                .bind(&key.kid)
                .bind(purpose_text(key.purpose))
                .bind(&key.public)
                .execute(self.on())
                .await
                .map_err(StoreError::while_doing("pinning keys"))?;
        }
        Ok(())
    }

    /// The tenant's service principal with this id, revoked or not.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn service_principal_get(
        &mut self,
        tenant: TenantId,
        id: ServicePrincipalId,
    ) -> Result<Option<ServicePrincipal>, StoreError> {
        self.service_principal_where(tenant, "id", &id.to_string())
            .await
            .map(|mut found| found.pop())
    }

    /// The tenant's service principal of this application, revoked or not; there is at most one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn service_principal_by_app(
        &mut self,
        tenant: TenantId,
        app_id: ApplicationId,
    ) -> Result<Option<ServicePrincipal>, StoreError> {
        self.service_principal_where(tenant, "app_id", &app_id.to_string())
            .await
            .map(|mut found| found.pop())
    }

    /// The tenant's service principals, revoked ones too, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn service_principal_list(&mut self, tenant: TenantId) -> Result<Vec<ServicePrincipal>, StoreError> {
        self.service_principal_where(tenant, "tenant", &tenant.to_string())
            .await
    }

    /// Rows whose `column` (one of this module's constants) has the value, with their pinned keys.
    async fn service_principal_where(
        &mut self,
        tenant: TenantId,
        column: &'static str,
        value: &str,
    ) -> Result<Vec<ServicePrincipal>, StoreError> {
        let doing = "reading service principals";
        let mut found = sqlx::query(sqlx::AssertSqlSafe(format!(
            "{PRINCIPAL} WHERE tenant = $1 AND {column} = $2 ORDER BY display_name, id"
        )))
        .bind(tenant.to_string())
        .bind(value)
        .fetch_all(self.on())
        .await
        .map_err(StoreError::while_doing(doing))?
        .iter()
        .map(principal_from)
        .collect::<Result<Vec<_>, _>>()?;
        for principal in &mut found {
            principal.pinned_keys.keys = sqlx::query(
                "SELECT kid, purpose, public_key FROM pinned_keys WHERE tenant = $1 AND service_principal = $2 ORDER BY purpose, kid",
            )
            .bind(tenant.to_string())
            .bind(principal.id.to_string())
            .fetch_all(self.on())
            .await
            .map_err(StoreError::while_doing(doing))?
            .iter()
            .map(|r| Ok(PinnedKey { kid: r.get(0), purpose: purpose_from(r.get(1))?, public: r.get(2) }))
            .collect::<Result<_, StoreError>>()?;
        }
        Ok(found)
    }

    /// Remembers an assertion's id until `expires`, and forgets those that ended before `now`.
    /// Says false when it was known: the assertion is being replayed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn assertion_id_insert(
        &mut self,
        tenant: TenantId,
        issuer: &str,
        jti: &str,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let doing = "remembering an assertion";
        sqlx::query("DELETE FROM assertion_ids WHERE tenant = $1 AND expires < $2")
            .bind(tenant.to_string())
            .bind(now.as_millisecond())
            .execute(self.on())
            .await
            .map_err(StoreError::while_doing(doing))?;
        let done = sqlx::query(
            "INSERT INTO assertion_ids (tenant, issuer, jti, expires) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        )
        .bind(tenant.to_string())
        .bind(issuer)
        .bind(jti)
        .bind(expires.as_millisecond())
        .execute(self.on())
        .await
        .map_err(StoreError::while_doing(doing))?;
        Ok(done.rows_affected() > 0)
    }
}

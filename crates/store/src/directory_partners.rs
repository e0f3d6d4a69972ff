//! Organization relationships and migration endpoints.

use crate::{StoreError, Tx};
use rehome_domain::{
    endpoint::{EndpointKind, ImapSecurity, ImapServer, ImapSignIn, MigrationEndpoint, RemoteMove},
    id::{ApplicationId, EndpointId, RecipientId, RelationshipId, ServicePrincipalId, TenantId},
    relationship::OrganizationRelationship,
};
use serde::{Deserialize, Serialize};
use sqlx::{Row, sqlite::SqliteRow};

#[derive(Serialize, Deserialize)]
struct RelationshipBody {
    name: String,
    domain_names: Vec<String>,
    enabled: bool,
    mailbox_move_enabled: bool,
    mailbox_move_capability: String,
    mailbox_move_published_scopes: Vec<uuid::Uuid>,
    oauth_application_id: Option<uuid::Uuid>,
    service_principal: Option<uuid::Uuid>,
    max_lock_attempts_per_day: u32,
    #[serde(default)]
    content_retention_days: Option<u32>,
    #[serde(default)]
    mailbox_return_without_approval: bool,
}

fn relationship_body(r: &OrganizationRelationship) -> Result<String, StoreError> {
    let body = RelationshipBody {
        name: r.name.clone(),
        domain_names: r.domain_names.clone(),
        enabled: r.enabled,
        mailbox_move_enabled: r.mailbox_move_enabled,
        mailbox_move_capability: r.mailbox_move_capability.to_string(),
        mailbox_move_published_scopes: r.mailbox_move_published_scopes.iter().map(|g| g.0).collect(),
        oauth_application_id: r.oauth_application_id.map(|a| a.0),
        service_principal: r.service_principal.map(|s| s.0),
        max_lock_attempts_per_day: r.max_lock_attempts_per_day,
        content_retention_days: r.content_retention_days,
        mailbox_return_without_approval: r.mailbox_return_without_approval,
    };
    serde_json::to_string(&body).map_err(|e| StoreError::unreadable("organization relationship", e))
}

fn relationship_from(row: &SqliteRow) -> Result<OrganizationRelationship, StoreError> {
    let bad = |e: &dyn std::fmt::Display| StoreError::unreadable("organization relationship", e);
    let body: RelationshipBody = serde_json::from_str(&row.get::<String, _>(2)).map_err(|e| bad(&e))?;
    Ok(OrganizationRelationship {
        tenant: row.get::<String, _>(0).parse().map_err(|e| bad(&e))?,
        id: row.get::<String, _>(1).parse().map_err(|e| bad(&e))?,
        name: body.name,
        domain_names: body.domain_names,
        enabled: body.enabled,
        mailbox_move_enabled: body.mailbox_move_enabled,
        mailbox_move_capability: body.mailbox_move_capability.parse().map_err(|e: String| bad(&e))?,
        mailbox_move_published_scopes: body
            .mailbox_move_published_scopes
            .into_iter()
            .map(RecipientId)
            .collect(),
        oauth_application_id: body.oauth_application_id.map(ApplicationId),
        service_principal: body.service_principal.map(ServicePrincipalId),
        max_lock_attempts_per_day: body.max_lock_attempts_per_day,
        content_retention_days: body.content_retention_days,
        mailbox_return_without_approval: body.mailbox_return_without_approval,
    })
}

/// A domain name or tenant GUID in the form in which it must be unique.
fn domain_key(text: &str) -> String {
    let text = text.trim();
    uuid::Uuid::parse_str(text).map_or_else(|_| text.to_lowercase(), |g| g.hyphenated().to_string())
}

fn number(row: &SqliteRow, column: &str) -> Result<Option<u32>, StoreError> {
    row.get::<Option<i64>, _>(column)
        .map(u32::try_from)
        .transpose()
        .map_err(|e| StoreError::unreadable("migration endpoint", e))
}

/// The column `imap`.
#[derive(Serialize, Deserialize)]
struct ImapBody {
    port: u16,
    security: String,
    sign_in: SignInBody,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum SignInBody {
    Users,
    Master {
        user: String,
        separator: char,
    },
    Authorization {
        user: String,
    },
    OAuth {
        token_url: String,
        client_id: String,
        scope: Option<String>,
    },
}

fn imap_body(imap: &ImapServer) -> Result<String, StoreError> {
    let sign_in = match imap.sign_in.clone() {
        ImapSignIn::Users => SignInBody::Users,
        ImapSignIn::Master { user, separator } => SignInBody::Master { user, separator },
        ImapSignIn::Authorization { user } => SignInBody::Authorization { user },
        ImapSignIn::OAuth {
            token_url,
            client_id,
            scope,
        } => SignInBody::OAuth {
            token_url,
            client_id,
            scope,
        },
    };
    let body = ImapBody {
        port: imap.port,
        security: imap.security.as_str().to_owned(),
        sign_in,
    };
    serde_json::to_string(&body).map_err(|e| StoreError::unreadable("migration endpoint", e))
}

fn imap_from(text: &str) -> Result<ImapServer, StoreError> {
    let ImapBody {
        port,
        security,
        sign_in,
    } = serde_json::from_str(text).map_err(|e| StoreError::unreadable("migration endpoint", e))?;
    let known = ImapSecurity::ALL.into_iter().find(|known| known.as_str() == security);
    Ok(ImapServer {
        port,
        security: known.ok_or_else(|| StoreError::unreadable("migration endpoint", security))?,
        sign_in: match sign_in {
            SignInBody::Users => ImapSignIn::Users,
            SignInBody::Master { user, separator } => ImapSignIn::Master { user, separator },
            SignInBody::Authorization { user } => ImapSignIn::Authorization { user },
            SignInBody::OAuth {
                token_url,
                client_id,
                scope,
            } => ImapSignIn::OAuth {
                token_url,
                client_id,
                scope,
            },
        },
    })
}

fn endpoint_from(row: &SqliteRow) -> Result<MigrationEndpoint, StoreError> {
    let bad = |e| StoreError::unreadable("migration endpoint", e);
    let kind = match row.get::<Option<String>, _>("imap") {
        Some(text) => EndpointKind::Imap(imap_from(&text)?),
        None => EndpointKind::ExchangeRemoteMove(RemoteMove {
            remote_tenant: row.get("remote_tenant"),
            remote_tenant_id: row
                .get::<Option<String>, _>("remote_tenant_id")
                .map(|t| t.parse())
                .transpose()
                .map_err(bad)?,
            application_id: row.get::<String, _>("application_id").parse().map_err(bad)?,
        }),
    };
    Ok(MigrationEndpoint {
        tenant: row.get::<String, _>("tenant").parse().map_err(bad)?,
        id: row.get::<String, _>("id").parse().map_err(bad)?,
        name: row.get("name"),
        kind,
        remote_server: row.get("remote_server"),
        sealed_secret: Some(row.get::<Vec<u8>, _>("sealed_secret")).filter(|sealed| !sealed.is_empty()),
        max_concurrent_migrations: number(row, "max_migrations")?,
        max_concurrent_incremental_syncs: number(row, "max_incremental_syncs")?,
    })
}

/// The columns that an endpoint's kind fills: remote_tenant, remote_tenant_id, application_id, imap.
fn kind_columns(e: &MigrationEndpoint) -> Result<(String, Option<String>, String, Option<String>), StoreError> {
    Ok(match &e.kind {
        EndpointKind::ExchangeRemoteMove(remote) => (
            remote.remote_tenant.clone(),
            remote.remote_tenant_id.map(|t| t.to_string()),
            remote.application_id.to_string(),
            None,
        ),
        EndpointKind::Imap(imap) => (String::new(), None, String::new(), Some(imap_body(imap)?)),
    })
}

impl Tx {
    /// Adds a relationship.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when its Name, or one of its DomainNames, is another relationship's of the tenant.
    pub async fn relationship_insert(
        &mut self,
        tenant: TenantId,
        r: &OrganizationRelationship,
    ) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO relationships (tenant, id, name_key, body) VALUES ($1, $2, $3, $4)")
            .bind(tenant.to_string())
            .bind(r.id.to_string())
            .bind(r.name.to_lowercase())
            .bind(relationship_body(r)?)
            .execute(self.on())
            .await
            .map_err(StoreError::unique(
                "adding an organization relationship",
                "Name",
                &r.name,
            ))?;
        self.relationship_domains_insert(tenant, r).await
    }

    /// Writes a relationship as it is now; says whether it was there.
    ///
    /// # Errors
    /// As [`Tx::relationship_insert`].
    pub async fn relationship_update(
        &mut self,
        tenant: TenantId,
        r: &OrganizationRelationship,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query("UPDATE relationships SET name_key = $3, body = $4 WHERE tenant = $1 AND id = $2")
            .bind(tenant.to_string())
            .bind(r.id.to_string())
            .bind(r.name.to_lowercase())
            .bind(relationship_body(r)?)
            .execute(self.on())
            .await
            .map_err(StoreError::unique(
                "changing an organization relationship",
                "Name",
                &r.name,
            ))?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query("DELETE FROM relationship_domains WHERE tenant = $1 AND relationship = $2")
            .bind(tenant.to_string())
            .bind(r.id.to_string())
            .execute(self.on())
            .await
            .map_err(StoreError::while_doing("changing a relationship's domains"))?;
        self.relationship_domains_insert(tenant, r).await?;
        Ok(true)
    }

    async fn relationship_domains_insert(
        &mut self,
        tenant: TenantId,
        r: &OrganizationRelationship,
    ) -> Result<(), StoreError> {
        for domain in &r.domain_names {
            sqlx::query("INSERT INTO relationship_domains (tenant, domain_key, relationship) VALUES ($1, $2, $3)")
                .bind(tenant.to_string())
                .bind(domain_key(domain))
                .bind(r.id.to_string())
                .execute(self.on())
                .await
                .map_err(StoreError::unique(
                    "writing a relationship's domains",
                    "DomainNames entry",
                    domain,
                ))?;
        }
        Ok(())
    }

    /// Removes a relationship; says whether it was there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn relationship_delete(&mut self, tenant: TenantId, id: RelationshipId) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM relationships WHERE tenant = $1 AND id = $2")
            .bind(tenant.to_string())
            .bind(id.to_string())
            .execute(self.on())
            .await
            .map_err(StoreError::while_doing("removing an organization relationship"))?;
        Ok(done.rows_affected() > 0)
    }

    /// The relationship with this id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn relationship_get(
        &mut self,
        tenant: TenantId,
        id: RelationshipId,
    ) -> Result<Option<OrganizationRelationship>, StoreError> {
        sqlx::query("SELECT tenant, id, body FROM relationships WHERE tenant = $1 AND id = $2")
            .bind(tenant.to_string())
            .bind(id.to_string())
            .fetch_optional(self.on())
            .await
            .map_err(StoreError::while_doing("reading an organization relationship"))?
            .as_ref()
            .map(relationship_from)
            .transpose()
    }

    /// The tenant's relationships by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn relationship_list(&mut self, tenant: TenantId) -> Result<Vec<OrganizationRelationship>, StoreError> {
        sqlx::query("SELECT tenant, id, body FROM relationships WHERE tenant = $1 ORDER BY name_key")
            .bind(tenant.to_string())
            .fetch_all(self.on())
            .await
            .map_err(StoreError::while_doing("listing organization relationships"))?
            .iter()
            .map(relationship_from)
            .collect()
    }

    /// Adds an endpoint.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when the tenant has an endpoint of this name.
    pub async fn endpoint_insert(&mut self, tenant: TenantId, e: &MigrationEndpoint) -> Result<(), StoreError> {
        let (remote_tenant, remote_tenant_id, application_id, imap) = kind_columns(e)?;
        sqlx::query(
            "INSERT INTO endpoints (tenant, id, name, name_key, remote_server, remote_tenant, remote_tenant_id, \
             application_id, sealed_secret, max_migrations, max_incremental_syncs, imap) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        )
        .bind(tenant.to_string())
        .bind(e.id.to_string())
        .bind(&e.name)
        .bind(e.name.to_lowercase())
        .bind(&e.remote_server)
        .bind(remote_tenant)
        .bind(remote_tenant_id)
        .bind(application_id)
        .bind(e.sealed_secret.as_deref().unwrap_or_default())
        .bind(e.max_concurrent_migrations.map(i64::from))
        .bind(e.max_concurrent_incremental_syncs.map(i64::from))
        .bind(imap)
        .execute(self.on())
        .await
        .map_err(StoreError::unique("adding a migration endpoint", "Name", &e.name))?;
        Ok(())
    }

    /// Writes an endpoint as it is now; says whether it was there.
    ///
    /// # Errors
    /// As [`Tx::endpoint_insert`].
    pub async fn endpoint_update(&mut self, tenant: TenantId, e: &MigrationEndpoint) -> Result<bool, StoreError> {
        let (remote_tenant, remote_tenant_id, application_id, imap) = kind_columns(e)?;
        let done = sqlx::query(
            "UPDATE endpoints SET name = $3, name_key = $4, remote_server = $5, remote_tenant = $6, \
             remote_tenant_id = $7, application_id = $8, sealed_secret = $9, max_migrations = $10, \
             max_incremental_syncs = $11, imap = $12 WHERE tenant = $1 AND id = $2",
        )
        .bind(tenant.to_string())
        .bind(e.id.to_string())
        .bind(&e.name)
        .bind(e.name.to_lowercase())
        .bind(&e.remote_server)
        .bind(remote_tenant)
        .bind(remote_tenant_id)
        .bind(application_id)
        .bind(e.sealed_secret.as_deref().unwrap_or_default())
        .bind(e.max_concurrent_migrations.map(i64::from))
        .bind(e.max_concurrent_incremental_syncs.map(i64::from))
        .bind(imap)
        .execute(self.on())
        .await
        .map_err(StoreError::unique("changing a migration endpoint", "Name", &e.name))?;
        Ok(done.rows_affected() > 0)
    }

    /// Removes an endpoint; says whether it was there. Whether a batch uses it is for the caller to ask.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn endpoint_delete(&mut self, tenant: TenantId, id: EndpointId) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM endpoints WHERE tenant = $1 AND id = $2")
            .bind(tenant.to_string())
            .bind(id.to_string())
            .execute(self.on())
            .await
            .map_err(StoreError::while_doing("removing a migration endpoint"))?;
        Ok(done.rows_affected() > 0)
    }

    /// The endpoint with this id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn endpoint_get(
        &mut self,
        tenant: TenantId,
        id: EndpointId,
    ) -> Result<Option<MigrationEndpoint>, StoreError> {
        sqlx::query("SELECT * FROM endpoints WHERE tenant = $1 AND id = $2")
            .bind(tenant.to_string())
            .bind(id.to_string())
            .fetch_optional(self.on())
            .await
            .map_err(StoreError::while_doing("reading a migration endpoint"))?
            .as_ref()
            .map(endpoint_from)
            .transpose()
    }

    /// The endpoint of this name; case does not matter.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn endpoint_by_name(
        &mut self,
        tenant: TenantId,
        name: &str,
    ) -> Result<Option<MigrationEndpoint>, StoreError> {
        sqlx::query("SELECT * FROM endpoints WHERE tenant = $1 AND name_key = $2")
            .bind(tenant.to_string())
            .bind(name.trim().to_lowercase())
            .fetch_optional(self.on())
            .await
            .map_err(StoreError::while_doing("reading a migration endpoint"))?
            .as_ref()
            .map(endpoint_from)
            .transpose()
    }

    /// The tenant's endpoints by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn endpoint_list(&mut self, tenant: TenantId) -> Result<Vec<MigrationEndpoint>, StoreError> {
        sqlx::query("SELECT * FROM endpoints WHERE tenant = $1 ORDER BY name_key")
            .bind(tenant.to_string())
            .fetch_all(self.on())
            .await
            .map_err(StoreError::while_doing("listing migration endpoints"))?
            .iter()
            .map(endpoint_from)
            .collect()
    }
}

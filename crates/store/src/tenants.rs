//! Tenants and accepted domains: the operator's rows.

use crate::{StoreError, Tx};
use jiff::Timestamp;
use rehome_domain::{
    address::DomainName,
    adoption::Territory,
    id::TenantId,
    tenant::{AcceptedDomain, Tenant},
};
use sqlx::{Row, sqlite::SqliteRow};

fn tenant_from(row: &SqliteRow) -> Result<Tenant, StoreError> {
    Ok(Tenant {
        id: row
            .get::<String, _>(0)
            .parse()
            .map_err(|e| StoreError::unreadable("tenant", e))?,
        initial_domain: row
            .get::<String, _>(1)
            .parse()
            .map_err(|e| StoreError::unreadable("tenant", e))?,
        display_name: row.get(2),
    })
}

impl Tx {
    /// Operator: makes a tenant with its initial domain as default accepted domain.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when a tenant of this deployment has the domain.
    pub async fn tenant_insert(&mut self, tenant: &Tenant, now: Timestamp) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO tenants (id, initial_domain, display_name, created) VALUES ($1, $2, $3, $4)")
            .bind(tenant.id.to_string())
            .bind(tenant.initial_domain.as_str())
            .bind(&tenant.display_name)
            .bind(now.as_millisecond())
            .execute(self.on())
            .await
            .map_err(StoreError::unique(
                "making a tenant",
                "domain",
                tenant.initial_domain.as_str(),
            ))?;
        let domain = AcceptedDomain {
            name: tenant.initial_domain.clone(),
            default: true,
        };
        self.accepted_domain_insert(tenant.id, &domain).await
    }

    /// Operator: all tenants, by domain.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tenant_list(&mut self) -> Result<Vec<Tenant>, StoreError> {
        sqlx::query("SELECT id, initial_domain, display_name FROM tenants ORDER BY initial_domain")
            .fetch_all(self.on())
            .await
            .map_err(StoreError::while_doing("listing tenants"))?
            .iter()
            .map(tenant_from)
            .collect()
    }

    /// What a tenant may take of mail platforms.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn territory(&mut self, tenant: TenantId) -> Result<Territory, StoreError> {
        let domains: Vec<DomainName> = self
            .accepted_domain_list(tenant)
            .await?
            .into_iter()
            .map(|domain| domain.name)
            .collect();
        let alone = self.tenant_list().await?.len() == 1;
        Ok(Territory::new(tenant, &domains, alone))
    }

    /// The tenant with this id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tenant_get(&mut self, tenant: TenantId) -> Result<Option<Tenant>, StoreError> {
        sqlx::query("SELECT id, initial_domain, display_name FROM tenants WHERE id = $1")
            .bind(tenant.to_string())
            .fetch_optional(self.on())
            .await
            .map_err(StoreError::while_doing("reading a tenant"))?
            .as_ref()
            .map(tenant_from)
            .transpose()
    }

    /// The tenant named in a URL: its GUID, or one of its accepted domains.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tenant_resolve(&mut self, text: &str) -> Result<Option<Tenant>, StoreError> {
        if let Ok(id) = text.parse() {
            return self.tenant_get(id).await;
        }
        let Ok(domain) = text.parse::<DomainName>() else {
            return Ok(None);
        };
        match self.tenant_of_domain(&domain).await? {
            Some(id) => self.tenant_get(id).await,
            None => Ok(None),
        }
    }

    /// Whose accepted domain this is, in the whole deployment (mail flow needs it before a tenant is known).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tenant_of_domain(&mut self, domain: &DomainName) -> Result<Option<TenantId>, StoreError> {
        sqlx::query("SELECT tenant FROM accepted_domains WHERE name = $1")
            .bind(domain.as_str())
            .fetch_optional(self.on())
            .await
            .map_err(StoreError::while_doing("reading an accepted domain"))?
            .map(|r| {
                r.get::<String, _>(0)
                    .parse()
                    .map_err(|e| StoreError::unreadable("accepted domain", e))
            })
            .transpose()
    }

    /// Operator: adds an accepted domain.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when any tenant of this deployment has it.
    pub async fn accepted_domain_insert(
        &mut self,
        tenant: TenantId,
        domain: &AcceptedDomain,
    ) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO accepted_domains (name, tenant, is_default) VALUES ($1, $2, $3)")
            .bind(domain.name.as_str())
            .bind(tenant.to_string())
            .bind(i64::from(domain.default))
            .execute(self.on())
            .await
            .map_err(StoreError::unique(
                "adding an accepted domain",
                "domain",
                domain.name.as_str(),
            ))?;
        Ok(())
    }

    /// Operator: removes an accepted domain; says whether it was there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn accepted_domain_delete(&mut self, tenant: TenantId, name: &DomainName) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM accepted_domains WHERE tenant = $1 AND name = $2")
            .bind(tenant.to_string())
            .bind(name.as_str())
            .execute(self.on())
            .await
            .map_err(StoreError::while_doing("removing an accepted domain"))?;
        Ok(done.rows_affected() > 0)
    }

    /// The tenant's accepted domains, the default first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn accepted_domain_list(&mut self, tenant: TenantId) -> Result<Vec<AcceptedDomain>, StoreError> {
        sqlx::query("SELECT name, is_default FROM accepted_domains WHERE tenant = $1 ORDER BY is_default DESC, name")
            .bind(tenant.to_string())
            .fetch_all(self.on())
            .await
            .map_err(StoreError::while_doing("listing accepted domains"))?
            .iter()
            .map(|r| {
                Ok(AcceptedDomain {
                    name: r
                        .get::<String, _>(0)
                        .parse()
                        .map_err(|e| StoreError::unreadable("accepted domain", e))?,
                    default: r.get::<i64, _>(1) != 0,
                })
            })
            .collect()
    }
}

//! Consents to others' applications: the source's side of trust.

use super::{Actor, Event, Identity, audit};
use crate::{
    account::{AdminCaller, ORGANIZATION_MANAGEMENT},
    authority::Origin,
    clock::days_after,
    consent::{ConsentEffect, ConsentRequest, Known, decide},
    description::{AppDescription, check_app_description},
    error::{ApplicationError, ConsentError, DescriptionError, KeySetError},
    jws::JwsError,
    keyset::check_key_set,
};
use jiff::Timestamp;
use rehome_domain::{
    consent::{ROLE_MAILBOX_MIGRATION, ServicePrincipal},
    id::{ApplicationId, ServicePrincipalId, TenantId},
};
use rehome_store::{ApplicationGrant, StoreError, Tx};
use uuid::Uuid;

/// Where the description of the application in a consent link comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DescriptionSource {
    /// The application's home is in this deployment: here it is.
    Local(Box<AppDescription>),
    /// To be fetched (after sign-in; size, time and redirect limits; no private address unless configured), then
    /// checked with [`check_app_description`] against `authority`.
    Remote {
        /// Where.
        url: String,
        /// Whose it must be.
        authority: Origin,
    },
}

/// What the accepting administrator chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsentGrant {
    /// For how many days; the deployment's longest if not given.
    pub days: Option<u32>,
    /// Whether the return right is granted with it.
    pub return_right: bool,
}

/// What accepting did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consented {
    /// The service principal as it is now.
    ServicePrincipal(Box<ServicePrincipal>),
    /// The application's own home granted the role.
    AtHome,
}

async fn known(tx: &mut Tx, own: &Origin, tenant: TenantId, description: &AppDescription) -> Result<Known, StoreError> {
    Ok(Known {
        principals: tx.service_principal_list(tenant).await?,
        local_tenant_issuer: tx.tenant_get(description.home_tenant).await?.map(|t| own.issuer(t.id)),
        local_application_issuer: tx
            .application_in_deployment(description.app_id)
            .await?
            .map(|a| own.issuer(a.tenant)),
    })
}

impl Identity {
    /// Where the description for a consent link comes from; asked after sign-in, never before.
    ///
    /// # Errors
    /// [`ConsentError::AppNotFound`] when it should be here and is not.
    pub async fn description_source(
        &self,
        request: &ConsentRequest,
        now: Timestamp,
    ) -> Result<DescriptionSource, ConsentError> {
        let home = match &request.authority {
            Some(authority) if authority.origin != *self.public_name() => {
                let tenant = authority.tenant.map_or_else(|| "common".to_owned(), |t| t.to_string());
                return Ok(DescriptionSource::Remote {
                    url: authority.origin.application(&tenant, request.client_id),
                    authority: authority.origin.clone(),
                });
            }
            Some(authority) => authority.tenant,
            None => None,
        };
        let document = self
            .app_description(home, request.client_id, now)
            .await
            .map_err(|e| match e {
                ApplicationError::NotFound { app_id } => ConsentError::AppNotFound { app_id },
                ApplicationError::Store(e) => ConsentError::Store(e),
                ApplicationError::Keys(e) => ConsentError::Keys(e),
                other => ConsentError::Description(DescriptionError::Token(JwsError::Malformed(other.to_string()))),
            })?;
        let description = check_app_description(&document, self.public_name(), request.client_id, now)?;
        Ok(DescriptionSource::Local(Box::new(description)))
    }

    /// What accepting would do, for the page. Nothing is written.
    ///
    /// # Errors
    /// [`ConsentError`]: then there is nothing to accept.
    pub async fn consent_effect(
        &self,
        tenant: TenantId,
        request: &ConsentRequest,
        description: &AppDescription,
    ) -> Result<ConsentEffect, ConsentError> {
        let known = known(&mut self.0.store.read().await?, self.public_name(), tenant, description).await?;
        decide(tenant, self.public_name(), request, description, &known)
    }

    /// Accepts: makes or renews the service principal, pinning the described keys; in the application's own home
    /// it grants the role there.
    ///
    /// # Errors
    /// [`ConsentError::NeedAdminApproval`] unless `admin` is in Organization Management of this tenant; and all
    /// that [`Self::consent_effect`] may say.
    #[allow(clippy::too_many_arguments, reason = "who accepts what, with which choices, when")]
    pub async fn consent_accept(
        &self,
        tenant: TenantId,
        request: &ConsentRequest,
        description: &AppDescription,
        admin: &AdminCaller,
        grant: ConsentGrant,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Consented, ConsentError> {
        if admin.tenant != tenant || !admin.is_member_of(ORGANIZATION_MANAGEMENT) {
            return Err(ConsentError::NeedAdminApproval);
        }
        let most = self.0.config.consent_days;
        let days = grant.days.unwrap_or(most);
        if days == 0 || days > most {
            return Err(ConsentError::BadDuration { most });
        }
        let mut tx = self.0.store.write().await?;
        let known = known(&mut tx, self.public_name(), tenant, description).await?;
        let effect = decide(tenant, self.public_name(), request, description, &known)?;
        let id = match effect {
            ConsentEffect::GrantAtHome => {
                let row = ApplicationGrant {
                    role: ROLE_MAILBOX_MIGRATION.to_owned(),
                    granted_by: admin.name.clone(),
                    granted_at: now,
                };
                tx.application_grant_insert(tenant, description.app_id, &row).await?;
                self.audit_consent(
                    &mut tx,
                    tenant,
                    description,
                    actor,
                    serde_json::json!({ "AtHome": true }),
                    now,
                )
                .await?;
                tx.commit("identity.consent").await?;
                return Ok(Consented::AtHome);
            }
            ConsentEffect::Create => ServicePrincipalId(Uuid::new_v4()),
            ConsentEffect::Renew(id) => id,
        };
        let principal = ServicePrincipal {
            id,
            tenant,
            issuer: description.issuer.clone(),
            home_tenant: description.home_tenant,
            app_id: description.app_id,
            display_name: description.display_name.clone(),
            home_domains: description.home_domains.clone(),
            outcome_endpoint: Some(description.outcome_endpoint.clone()),
            pinned_keys: description.keys.clone(),
            roles: vec![ROLE_MAILBOX_MIGRATION.to_owned()],
            return_right: grant.return_right,
            accepted_by: admin.name.clone(),
            accepted_at: now,
            expires_at: days_after(now, days),
            revoked_at: None,
        };
        tx.service_principal_put(tenant, &principal).await?;
        let parameters = serde_json::json!({
            "ServicePrincipal": principal.id.to_string(),
            "Issuer": principal.issuer,
            "Renewed": matches!(effect, ConsentEffect::Renew(_)),
            "Roles": principal.roles,
            "ReturnRight": principal.return_right,
            "Expires": principal.expires_at.to_string(),
            "KeySequence": principal.pinned_keys.sequence,
        });
        self.audit_consent(&mut tx, tenant, description, actor, parameters, now)
            .await?;
        tx.commit("identity.consent").await?;
        Ok(Consented::ServicePrincipal(Box::new(principal)))
    }

    async fn audit_consent(
        &self,
        tx: &mut Tx,
        tenant: TenantId,
        description: &AppDescription,
        actor: &Actor,
        parameters: serde_json::Value,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let event = Event {
            action: "Consent",
            object: description.app_id.to_string(),
            parameters,
            result: "ok",
        };
        audit(tx, tenant, actor, event, now).await
    }

    /// The tenant's service principal with this id, revoked or not.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn service_principal_get(
        &self,
        tenant: TenantId,
        id: ServicePrincipalId,
    ) -> Result<Option<ServicePrincipal>, StoreError> {
        self.0.store.read().await?.service_principal_get(tenant, id).await
    }

    /// The tenant's service principal of this application, revoked or not.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn service_principal_by_app(
        &self,
        tenant: TenantId,
        app_id: ApplicationId,
    ) -> Result<Option<ServicePrincipal>, StoreError> {
        self.0
            .store
            .read()
            .await?
            .service_principal_by_app(tenant, app_id)
            .await
    }

    /// The tenant's service principals, revoked ones too, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn service_principal_list(&self, tenant: TenantId) -> Result<Vec<ServicePrincipal>, StoreError> {
        self.0.store.read().await?.service_principal_list(tenant).await
    }

    /// Withdraws consent from now on; the record is kept. Says false when there is none in force.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn service_principal_revoke(
        &self,
        tenant: TenantId,
        id: ServicePrincipalId,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut tx = self.0.store.write().await?;
        let Some(mut principal) = tx
            .service_principal_get(tenant, id)
            .await?
            .filter(|p| p.revoked_at.is_none())
        else {
            return Ok(false);
        };
        principal.revoked_at = Some(now);
        tx.service_principal_put(tenant, &principal).await?;
        let event = Event {
            action: "Remove-MgServicePrincipal",
            object: id.to_string(),
            parameters: serde_json::json!({ "AppId": principal.app_id.to_string(), "Issuer": principal.issuer }),
            result: "ok",
        };
        audit(&mut tx, tenant, actor, event, now).await?;
        tx.commit("identity.revoke").await?;
        Ok(true)
    }

    /// Takes a partner's new key set (fetched from its `rehome_keys_endpoint`), if a pinned key signed it and its
    /// number grew. A consent that is not in force is not renewed by it.
    ///
    /// # Errors
    /// [`KeySetError`].
    pub async fn adopt_key_set(
        &self,
        tenant: TenantId,
        id: ServicePrincipalId,
        document: &str,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<ServicePrincipal, KeySetError> {
        let mut tx = self.0.store.write().await?;
        let Some(mut principal) = tx.service_principal_get(tenant, id).await?.filter(|p| p.in_force(now)) else {
            return Err(KeySetError::NoServicePrincipal);
        };
        let before = principal.pinned_keys.sequence;
        principal.pinned_keys = check_key_set(&principal.pinned_keys, &principal.issuer, document, now)?;
        tx.service_principal_put(tenant, &principal).await?;
        let event = Event {
            action: "PinnedKeysChanged",
            object: id.to_string(),
            parameters: serde_json::json!({ "From": before, "To": principal.pinned_keys.sequence }),
            result: "ok",
        };
        audit(&mut tx, tenant, actor, event, now).await?;
        tx.commit("identity.pinned_keys").await?;
        Ok(principal)
    }
}

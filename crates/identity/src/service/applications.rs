//! Applications registered here: the target's side of trust.

use super::{Actor, Event, Identity, audit};
use crate::{
    application::{
        DEFAULT_SECRET_DAYS, MAX_SECRET_DAYS, MAX_SECRETS, check_application, new_secret_value, secret_hash, user_read,
    },
    authority::Origin,
    clock::days_after,
    consent::{ConsentRequest, HomeAuthority},
    description::sign_description,
    error::ApplicationError,
};
use jiff::Timestamp;
use rehome_domain::id::{ApplicationId, ServicePrincipalId, TenantId};
use rehome_store::{Application, ApplicationGrant, ApplicationSecret, RequiredPermission, SignInAudience};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

/// A secret just made: the only time its value is seen.
#[derive(Clone, Debug)]
pub struct NewSecret {
    /// The value, 43 characters. Shown once.
    pub value: SecretString,
    /// What stays known.
    pub stored: ApplicationSecret,
}

fn names(permissions: &[RequiredPermission]) -> Vec<&str> {
    permissions.iter().map(|p| p.name.as_str()).collect()
}

impl Identity {
    /// Registers an application. Without `permissions` it asks for `User.Read` alone, as in the portal.
    ///
    /// # Errors
    /// [`ApplicationError`].
    #[allow(
        clippy::too_many_arguments,
        reason = "the fields of a registration, named as in Microsoft Graph"
    )]
    pub async fn application_new(
        &self,
        tenant: TenantId,
        display_name: &str,
        sign_in_audience: SignInAudience,
        redirect_uris: Vec<String>,
        permissions: Option<Vec<RequiredPermission>>,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Application, ApplicationError> {
        let permissions = permissions.unwrap_or_else(|| vec![user_read()]);
        check_application(display_name, &redirect_uris, &permissions)?;
        let application = Application {
            app_id: ApplicationId(Uuid::new_v4()),
            tenant,
            service_principal: ServicePrincipalId(Uuid::new_v4()),
            display_name: display_name.trim().to_owned(),
            sign_in_audience,
            redirect_uris,
            permissions,
            created: now,
        };
        let mut tx = self.0.store.write().await?;
        tx.application_insert(tenant, &application).await?;
        let event = Event {
            action: "New-MgApplication",
            object: application.app_id.to_string(),
            parameters: serde_json::json!({
                "DisplayName": application.display_name,
                "SignInAudience": application.sign_in_audience.as_str(),
                "RedirectUris": application.redirect_uris,
                "Permissions": names(&application.permissions),
            }),
            result: "ok",
        };
        audit(&mut tx, tenant, actor, event, now).await?;
        tx.commit("identity.application").await?;
        Ok(application)
    }

    /// Changes name, audience, redirect URIs and permissions.
    ///
    /// # Errors
    /// [`ApplicationError`].
    pub async fn application_update(
        &self,
        application: &Application,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<(), ApplicationError> {
        check_application(
            &application.display_name,
            &application.redirect_uris,
            &application.permissions,
        )?;
        let tenant = application.tenant;
        let mut tx = self.0.store.write().await?;
        if !tx.application_update(tenant, application).await? {
            return Err(ApplicationError::NotFound {
                app_id: application.app_id,
            });
        }
        let event = Event {
            action: "Update-MgApplication",
            object: application.app_id.to_string(),
            parameters: serde_json::json!({
                "DisplayName": application.display_name,
                "SignInAudience": application.sign_in_audience.as_str(),
                "RedirectUris": application.redirect_uris,
                "Permissions": names(&application.permissions),
            }),
            result: "ok",
        };
        audit(&mut tx, tenant, actor, event, now).await?;
        Ok(tx.commit("identity.application").await?)
    }

    /// The tenant's application.
    ///
    /// # Errors
    /// [`ApplicationError::NotFound`], or when the database fails.
    pub async fn application_get(
        &self,
        tenant: TenantId,
        app_id: ApplicationId,
    ) -> Result<Application, ApplicationError> {
        let found = self.0.store.read().await?.application_get(tenant, app_id).await?;
        found.ok_or(ApplicationError::NotFound { app_id })
    }

    /// The tenant's applications, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn application_list(&self, tenant: TenantId) -> Result<Vec<Application>, ApplicationError> {
        Ok(self.0.store.read().await?.application_list(tenant).await?)
    }

    /// Removes an application with its secrets; partners' consents to it then lead nowhere.
    ///
    /// # Errors
    /// [`ApplicationError`].
    pub async fn application_remove(
        &self,
        tenant: TenantId,
        app_id: ApplicationId,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<(), ApplicationError> {
        let mut tx = self.0.store.write().await?;
        if !tx.application_delete(tenant, app_id).await? {
            return Err(ApplicationError::NotFound { app_id });
        }
        let event = Event {
            action: "Remove-MgApplication",
            object: app_id.to_string(),
            parameters: serde_json::json!({}),
            result: "ok",
        };
        audit(&mut tx, tenant, actor, event, now).await?;
        Ok(tx.commit("identity.application").await?)
    }

    /// Makes a secret that lasts until `end` (6 months if not given, at most 24).
    ///
    /// # Errors
    /// [`ApplicationError`].
    pub async fn secret_add(
        &self,
        tenant: TenantId,
        app_id: ApplicationId,
        display_name: &str,
        end: Option<Timestamp>,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<NewSecret, ApplicationError> {
        let end = end.unwrap_or_else(|| days_after(now, DEFAULT_SECRET_DAYS));
        if end <= now || end > days_after(now, MAX_SECRET_DAYS) {
            return Err(ApplicationError::BadSecretEnd);
        }
        if display_name.chars().count() > 120 || display_name.chars().any(char::is_control) {
            return Err(ApplicationError::BadName);
        }
        let value = new_secret_value()?;
        let stored = ApplicationSecret {
            key_id: Uuid::new_v4(),
            display_name: display_name.to_owned(),
            hint: value.expose_secret().chars().take(3).collect(),
            hash: secret_hash(&value),
            start: now,
            end,
        };
        let mut tx = self.0.store.write().await?;
        if tx.application_get(tenant, app_id).await?.is_none() {
            return Err(ApplicationError::NotFound { app_id });
        }
        if tx.application_secret_list(tenant, app_id).await?.len() >= MAX_SECRETS {
            return Err(ApplicationError::TooManySecrets);
        }
        tx.application_secret_insert(tenant, app_id, &stored).await?;
        let event = Event {
            action: "Add-MgApplicationPassword",
            object: app_id.to_string(),
            parameters: serde_json::json!({ "KeyId": stored.key_id.to_string(), "EndDateTime": end.to_string() }),
            result: "ok",
        };
        audit(&mut tx, tenant, actor, event, now).await?;
        tx.commit("identity.secret").await?;
        Ok(NewSecret { value, stored })
    }

    /// The secrets of an application, without values.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn secret_list(
        &self,
        tenant: TenantId,
        app_id: ApplicationId,
    ) -> Result<Vec<ApplicationSecret>, ApplicationError> {
        Ok(self
            .0
            .store
            .read()
            .await?
            .application_secret_list(tenant, app_id)
            .await?)
    }

    /// Removes a secret; it is refused from now on.
    ///
    /// # Errors
    /// [`ApplicationError`].
    pub async fn secret_remove(
        &self,
        tenant: TenantId,
        app_id: ApplicationId,
        key_id: Uuid,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<(), ApplicationError> {
        let mut tx = self.0.store.write().await?;
        if !tx.application_secret_delete(tenant, app_id, key_id).await? {
            return Err(ApplicationError::SecretNotFound { key_id });
        }
        let event = Event {
            action: "Remove-MgApplicationPassword",
            object: app_id.to_string(),
            parameters: serde_json::json!({ "KeyId": key_id.to_string() }),
            result: "ok",
        };
        audit(&mut tx, tenant, actor, event, now).await?;
        Ok(tx.commit("identity.secret").await?)
    }

    /// The tenant's own consent to a role of its application; without it there is no assertion. Repeating it is fine.
    ///
    /// # Errors
    /// [`ApplicationError::RoleNotRequired`] when the application does not ask for the role.
    pub async fn grant_at_home(
        &self,
        tenant: TenantId,
        app_id: ApplicationId,
        role: &str,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<ApplicationGrant, ApplicationError> {
        let mut tx = self.0.store.write().await?;
        let application = tx
            .application_get(tenant, app_id)
            .await?
            .ok_or(ApplicationError::NotFound { app_id })?;
        if !application.permissions.iter().any(|p| p.application && p.name == role) {
            return Err(ApplicationError::RoleNotRequired {
                role: role.chars().take(64).collect(),
            });
        }
        let grant = ApplicationGrant {
            role: role.to_owned(),
            granted_by: actor.caller.clone(),
            granted_at: now,
        };
        if tx.application_grant_insert(tenant, app_id, &grant).await? {
            let event = Event {
                action: "New-MgServicePrincipalAppRoleAssignment",
                object: app_id.to_string(),
                parameters: serde_json::json!({ "AppRole": role }),
                result: "ok",
            };
            audit(&mut tx, tenant, actor, event, now).await?;
            tx.commit("identity.grant").await?;
        }
        Ok(grant)
    }

    /// Which roles the tenant granted to its application.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn grants_at_home(
        &self,
        tenant: TenantId,
        app_id: ApplicationId,
    ) -> Result<Vec<ApplicationGrant>, ApplicationError> {
        Ok(self
            .0
            .store
            .read()
            .await?
            .application_grant_list(tenant, app_id)
            .await?)
    }

    /// Takes the tenant's own consent back; no assertion is issued from now on.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revoke_at_home(
        &self,
        tenant: TenantId,
        app_id: ApplicationId,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<bool, ApplicationError> {
        let mut tx = self.0.store.write().await?;
        let removed = tx.application_grant_delete(tenant, app_id).await?;
        if removed {
            let event = Event {
                action: "Remove-MgServicePrincipalAppRoleAssignment",
                object: app_id.to_string(),
                parameters: serde_json::json!({}),
                result: "ok",
            };
            audit(&mut tx, tenant, actor, event, now).await?;
            tx.commit("identity.grant").await?;
        }
        Ok(removed)
    }

    /// The finished consent link for a partner: `partner` is its server, `partner_tenant` a GUID or domain there.
    /// The first redirect URI of the application is used.
    #[must_use]
    pub fn consent_link(
        &self,
        application: &Application,
        partner: &Origin,
        partner_tenant: &str,
        state: Option<String>,
    ) -> String {
        let authority = (partner != self.public_name()).then(|| HomeAuthority {
            origin: self.public_name().clone(),
            tenant: Some(application.tenant),
        });
        let redirect_uri = application.redirect_uris.first().cloned().unwrap_or_default();
        ConsentRequest {
            client_id: application.app_id,
            redirect_uri,
            state,
            authority,
        }
        .link(partner, partner_tenant)
    }

    /// The signed description of an application (`rehome-app+jwt`), for whoever asks. `home` is its home tenant,
    /// or none for the path `/common/`.
    ///
    /// # Errors
    /// [`ApplicationError::NotFound`] for an unknown application or another home.
    pub async fn app_description(
        &self,
        home: Option<TenantId>,
        app_id: ApplicationId,
        now: Timestamp,
    ) -> Result<String, ApplicationError> {
        let mut tx = self.0.store.read().await?;
        let application = tx
            .application_in_deployment(app_id)
            .await?
            .filter(|a| home.is_none_or(|h| h == a.tenant))
            .ok_or(ApplicationError::NotFound { app_id })?;
        let domains = tx.accepted_domain_list(application.tenant).await?;
        drop(tx);
        let keys = self.keys(application.tenant, now).await?;
        let domains = domains.into_iter().map(|d| d.name.to_string()).collect();
        Ok(sign_description(&keys, self.public_name(), &application, domains, now)?)
    }
}

//! Assertions for our own movers, access tokens for partners' movers, and the proxy's door.

use super::{Actor, Event, Identity, audit};
use crate::{
    access::{AccessCaller, Presented, check},
    application::{SecretCheck, check_secret},
    authority::PartnerAuthority,
    dpop::verify_proof,
    error::{AccessError, TokenError},
    keyset::pinned_for,
    token::{
        CheckedAssertion, ClientCredential, TokenAnswer, TokenRequest, check_assertion, check_scope, sign_access,
        sign_assertion, sign_return_assertion,
    },
};
use jiff::Timestamp;
use rehome_domain::{
    consent::{KeyPurpose, ROLE_MAILBOX_MIGRATION, ServicePrincipal},
    id::{ApplicationId, CorrelationId, TenantId},
};
use rehome_store::Tx;
use secrecy::{ExposeSecret, SecretString};

/// Where a token request came from.
#[derive(Clone, Debug)]
pub struct TokenOrigin {
    /// Network address.
    pub address: String,
    /// Stands in both sides' logs.
    pub correlation_id: CorrelationId,
}

/// Checks an application's secret and its own organisation's consent.
async fn check_home(
    tx: &mut Tx,
    home: TenantId,
    app_id: ApplicationId,
    secret: &SecretString,
    now: Timestamp,
) -> Result<(), TokenError> {
    if tx.application_get(home, app_id).await?.is_none() {
        return Err(TokenError::NotFoundInTenant { app_id });
    }
    match check_secret(&tx.application_secret_list(home, app_id).await?, secret, now) {
        SecretCheck::Valid => {}
        SecretCheck::Expired(key_id) => return Err(TokenError::ExpiredSecret { app_id, key_id }),
        SecretCheck::Wrong => return Err(TokenError::WrongSecret { app_id }),
    }
    let grants = tx.application_grant_list(home, app_id).await?;
    if grants.iter().any(|g| g.role == ROLE_MAILBOX_MIGRATION) {
        Ok(())
    } else {
        Err(TokenError::NotConsentedAtHome { app_id })
    }
}

impl Identity {
    /// A client assertion for one of our own applications, for exactly one partner's token endpoint. The secret is
    /// checked here and goes nowhere else.
    ///
    /// # Errors
    /// [`TokenError`]: application not in this tenant, secret wrong or ended, no consent in its own organisation.
    pub async fn assertion_for(
        &self,
        tenant: TenantId,
        app_id: ApplicationId,
        secret: &SecretString,
        partner: &PartnerAuthority,
        now: Timestamp,
    ) -> Result<SecretString, TokenError> {
        let mut tx = self.0.store.read().await?;
        check_home(&mut tx, tenant, app_id, secret, now).await?;
        drop(tx);
        let keys = self.keys(tenant, now).await?;
        Ok(sign_assertion(
            &keys.token,
            &self.issuer(tenant),
            app_id,
            &partner.token_endpoint,
            now,
        )?)
    }

    /// An assertion of the tenant's own authority about itself, with which it takes back mailboxes that left it, for
    /// exactly one partner's token endpoint.
    ///
    /// # Errors
    /// [`TokenError`] when the tenant's keys cannot be used.
    pub async fn return_assertion_for(
        &self,
        tenant: TenantId,
        partner: &PartnerAuthority,
        now: Timestamp,
    ) -> Result<SecretString, TokenError> {
        let keys = self.keys(tenant, now).await?;
        Ok(sign_return_assertion(
            &keys.token,
            &self.issuer(tenant),
            &partner.token_endpoint,
            now,
        )?)
    }

    /// The token endpoint of `tenant`: an access token for a consented application, bound to the key of `proof`
    /// (the `DPoP` header).
    ///
    /// # Errors
    /// [`TokenError`]; [`crate::token::error_body`] is its answer.
    pub async fn token(
        &self,
        tenant: TenantId,
        request: &TokenRequest,
        proof: Option<&str>,
        from: &TokenOrigin,
        now: Timestamp,
    ) -> Result<TokenAnswer, TokenError> {
        let done = self.token_checked(tenant, request, proof, from, now).await;
        match &done {
            Ok(_) => {
                tracing::info!(%tenant, app = %request.client_id, correlation = %from.correlation_id, "access token issued")
            }
            Err(error) => tracing::warn!(
                %tenant, app = %request.client_id, correlation = %from.correlation_id, address = %from.address,
                id = %error.error_id(), %error, "no access token issued"
            ),
        }
        done
    }

    async fn token_checked(
        &self,
        tenant: TenantId,
        request: &TokenRequest,
        proof: Option<&str>,
        from: &TokenOrigin,
        now: Timestamp,
    ) -> Result<TokenAnswer, TokenError> {
        let origin = self.public_name();
        let app_id = request.client_id;
        let endpoint = origin.token_endpoint(tenant);
        check_scope(&request.scope, origin, tenant)?;
        let proof = verify_proof(proof.ok_or(TokenError::ProofMissing)?, "POST", &endpoint, None, now)
            .map_err(TokenError::Proof)?;
        let keys = self.keys(tenant, now).await?;
        let mut tx = self.0.store.read().await?;
        let principal = tx
            .service_principal_by_app(tenant, app_id)
            .await?
            .ok_or(TokenError::NotFoundInTenant { app_id })?;
        let authenticated = match &request.credential {
            ClientCredential::Secret(secret) => self.check_local(&mut tx, &principal, secret, now).await.map(|()| None),
            ClientCredential::Assertion(assertion) => {
                let pinned = pinned_for(&principal.pinned_keys, KeyPurpose::Token);
                check_assertion(assertion.expose_secret(), &pinned, &principal, &endpoint, now).map(Some)
            }
        };
        let actor = Actor {
            caller: format!("application {app_id}"),
            origin: from.address.clone(),
            correlation_id: from.correlation_id,
        };
        let mut principal = principal;
        if !principal.in_force(now) {
            // A promise outlives the consent: Status, Commit and Abort of a prepared attempt need a token, without any role.
            let promised = authenticated.is_ok() && tx.source_promise_exists(tenant, principal.id, now).await?;
            drop(tx);
            // One text for the caller; the reason is in this tenant's log once the caller has proven who it is.
            if authenticated.is_ok() && !promised {
                self.audit_refusal(&principal, &actor, now).await?;
            }
            if !promised {
                return Err(TokenError::NotFoundInTenant { app_id });
            }
            principal.roles.clear();
        } else {
            drop(tx);
            if !principal.is_return_client() && !principal.roles.iter().any(|r| r == ROLE_MAILBOX_MIGRATION) {
                return Err(TokenError::RoleNotGranted);
            }
        }
        let assertion = authenticated?;
        self.0.proofs.remember(&proof, now).map_err(TokenError::Proof)?;
        self.record_issue(&principal, assertion.as_ref(), &actor, now).await?;
        Ok(sign_access(&keys.token, origin, &principal, &proof.jkt, now)?)
    }

    /// The secret of an application whose home is in this deployment.
    async fn check_local(
        &self,
        tx: &mut Tx,
        principal: &ServicePrincipal,
        secret: &SecretString,
        now: Timestamp,
    ) -> Result<(), TokenError> {
        if principal.issuer != self.issuer(principal.home_tenant) {
            return Err(TokenError::Malformed {
                why: "this application's home is another authority, which must give it a client assertion",
            });
        }
        check_home(tx, principal.home_tenant, principal.app_id, secret, now).await
    }

    async fn audit_refusal(
        &self,
        principal: &ServicePrincipal,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<(), TokenError> {
        let reason = if principal.revoked_at.is_some() {
            "revoked"
        } else {
            "ended"
        };
        let mut tx = self.0.store.write().await?;
        let event = Event {
            action: "Token",
            object: principal.id.to_string(),
            parameters: serde_json::json!({ "Consent": reason }),
            result: "AADSTS700016",
        };
        audit(&mut tx, principal.tenant, actor, event, now).await?;
        Ok(tx.commit("identity.token_refused").await?)
    }

    async fn record_issue(
        &self,
        principal: &ServicePrincipal,
        assertion: Option<&CheckedAssertion>,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<(), TokenError> {
        let mut tx = self.0.store.write().await?;
        if let Some(assertion) = assertion
            && !tx
                .assertion_id_insert(
                    principal.tenant,
                    &principal.issuer,
                    &assertion.jti,
                    assertion.expires,
                    now,
                )
                .await?
        {
            return Err(TokenError::AssertionReplayed);
        }
        let event = Event {
            action: "Token",
            object: principal.id.to_string(),
            parameters: serde_json::json!({ "Roles": principal.roles }),
            result: "ok",
        };
        audit(&mut tx, principal.tenant, actor, event, now).await?;
        Ok(tx.commit("identity.token").await?)
    }

    /// The door of the tenant's MRS proxy. Whether the consent still stands is the gate's to ask.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn check_access(
        &self,
        presented: &Presented<'_>,
        tenant: TenantId,
        now: Timestamp,
    ) -> Result<AccessCaller, AccessError> {
        let keys = self.keys(tenant, now).await?;
        let (caller, proof) = check(presented, keys.token_keys(), self.public_name(), tenant, now)?;
        self.0.proofs.remember(&proof, now)?;
        Ok(caller)
    }
}

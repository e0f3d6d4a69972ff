//! The way back, at the organisation that has the mailbox now: which items here are which at the old source.

use super::{
    ProxyError, Source, VerbContext,
    admit::{Facts, partner_entry},
};
use crate::{
    ledger::Chunks,
    protocol::{PAIRS_PAGE, PairsAnswer, PairsRequest, TakeBackAnswer},
    target::returning::{NewReturn, return_begin},
};
use rehome_domain::{
    consent::ServicePrincipal,
    error_id::ErrorId,
    gate::{ReturnRecord, Verb},
    id::{ExchangeGuid, TenantId},
    relationship::OrganizationRelationship,
};
use rehome_replicate::pairs_page;
use rehome_store::{StoreError, Tx};
use std::sync::Arc;

/// The newest commit by which a mailbox came here, as the gate looks at it.
pub(super) async fn return_record(
    tx: &mut Tx,
    tenant: TenantId,
    mailbox: ExchangeGuid,
    principal: Option<&ServicePrincipal>,
    relationships: &[OrganizationRelationship],
) -> Result<Option<ReturnRecord>, StoreError> {
    let Some(record) = tx.commit_record_newest(tenant, mailbox).await? else {
        return Ok(None);
    };
    let beforehand = |relationship: &OrganizationRelationship| {
        relationship.enabled
            && relationship.mailbox_return_without_approval
            && principal.is_some_and(|principal| relationship.names_tenant(principal.home_tenant))
    };
    Ok(Some(ReturnRecord {
        service_principal: record.service_principal,
        retention_until: record.retention_until,
        approved: record.approved_at.is_some() || relationships.iter().any(beforehand),
    }))
}

/// The refusal as the partner learns it: what only waits for an administrator is asked again.
pub(super) fn refused(id: ErrorId, text: &'static str) -> ProxyError {
    if id == ErrorId::ReturnNotApproved {
        ProxyError::again(id, text, 60)
    } else {
        ProxyError::refused(id, text)
    }
}

/// What is told of the return right to who moves a mailbox away; nothing to who takes one back.
pub(super) fn right_told(facts: &Facts) -> Option<bool> {
    let principal = facts
        .principal
        .as_ref()
        .filter(|principal| !principal.is_return_client());
    principal.map(|principal| principal.return_right)
}

impl Source {
    /// Which items here are which at the old source, a page of them: from the ledger of the move that brought the mailbox.
    /// Only for who takes it back; the gate is asked as for its contents.
    ///
    /// # Errors
    /// [`ProxyError`].
    pub async fn pairs(&self, ctx: &VerbContext, request: PairsRequest) -> Result<PairsAnswer, ProxyError> {
        self.admit(ctx, Verb::Read).await?;
        let mut tx = self.inner.store.read().await?;
        let record = tx.commit_record_newest(ctx.tenant, ctx.mailbox).await?;
        drop(tx);
        let record = record.filter(|record| record.service_principal == ctx.caller.service_principal);
        let Some(record) = record else {
            return Err(ProxyError::refused(
                ErrorId::ReturnRightMissing,
                "Only who takes the mailbox back may ask for that.",
            ));
        };
        let ledger = Chunks::notes(self.inner.store.clone(), ctx.tenant, record.move_id);
        let page = pairs_page(Arc::new(ledger), request.into(), PAIRS_PAGE)
            .await
            .map_err(|error| ProxyError::passing(&error))?;
        let pairs = page.folders.iter().map(|folder| folder.pairs.len() as u64).sum();
        self.log_allowed(ctx, "Pairs", pairs, 0).await?;
        Ok(PairsAnswer::from(&page))
    }

    /// Begins to take back the mailbox that this attempt of the partner's committed, since he asks for it; done already is
    /// success. He approved with that, which is his to record.
    ///
    /// # Errors
    /// [`ProxyError`]: not his attempt, or it cannot be taken back.
    pub async fn take_back(&self, ctx: &VerbContext) -> Result<TakeBackAnswer, ProxyError> {
        let admitted = self.admit(ctx, Verb::Status).await?;
        let recipient = admitted.recipient()?;
        let partner = admitted
            .facts
            .principal
            .as_ref()
            .map_or("partner", |p| p.display_name.as_str());
        let new = NewReturn {
            tenant: ctx.tenant,
            complete_after: None,
            accept_unlocked: false,
            submitted_by: format!("partner: {partner}"),
        };
        let mut tx = self.inner.store.write().await?;
        if tx.return_is_open(ctx.tenant, ctx.mailbox).await? {
            return Ok(TakeBackAnswer {});
        }
        let now = self.inner.clock.now();
        let user = return_begin(&mut tx, &new, recipient, now)
            .await
            .map_err(|problem| ProxyError::refused(problem.id, problem.message))?;
        let parameters = serde_json::json!({"move": user.id.to_string(), "user": user.email_address});
        tx.audit_append(ctx.tenant, &partner_entry(ctx, "Take back", parameters, "ok", now))
            .await?;
        tx.commit("source.take_back").await?;
        Ok(TakeBackAnswer {})
    }
}

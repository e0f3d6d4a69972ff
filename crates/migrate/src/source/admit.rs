//! Loads what the gate needs, asks it, and writes down what it said.

use super::{
    ProxyError, Source, VerbContext,
    journal::Allowed,
    returning::{refused, return_record},
};
use crate::protocol::TEST_OF_AVAILABILITY;
use jiff::{SignedDuration, Timestamp};
use rehome_domain::{
    consent::ServicePrincipal,
    error_id::ErrorId,
    gate::{CutoverFacts, MailboxFacts, Membership, Refusal, Request, Verb, gate},
    id::{ExchangeGuid, ServicePrincipalId, TenantId},
    recipient::{Recipient, RecipientKind},
    relationship::OrganizationRelationship,
};
use rehome_store::{AuditEntry, OutboundMove, SourceAttemptRow, StoreError, Tx};

/// What was served is written down within this time when no other record takes it along.
const SERVED_WITHIN: std::time::Duration = std::time::Duration::from_millis(100);

/// What was loaded for a request that the gate let pass.
pub(super) struct Admitted {
    pub(super) facts: Facts,
    pub(super) now: Timestamp,
}

impl Admitted {
    /// The mailbox's recipient; gone when it was removed after Commit, and the attempt is answered for all the same.
    pub(super) fn recipient(&self) -> Result<&Recipient, ProxyError> {
        let gone = || {
            ProxyError::refused(
                ErrorId::InvalidOperation,
                "The mailbox was removed from the source organisation.",
            )
        };
        self.facts.recipient.as_ref().ok_or_else(gone)
    }
}

/// Everything that the gate looks at.
pub(super) struct Facts {
    pub(super) principal: Option<ServicePrincipal>,
    pub(super) relationship: Option<OrganizationRelationship>,
    pub(super) recipient: Option<Recipient>,
    pub(super) newest: Option<SourceAttemptRow>,
    pub(super) mailbox: Option<MailboxFacts>,
}

/// A move of another partner counts as having the mailbox open for this long after it was last seen.
const OPEN_MOVE_LASTS: SignedDuration = SignedDuration::from_hours(24);

async fn membership(
    tx: &mut Tx,
    tenant: TenantId,
    relationship: Option<&OrganizationRelationship>,
    recipient: &Recipient,
) -> Result<Membership, StoreError> {
    let Some(relationship) = relationship else {
        return Ok(Membership::None);
    };
    let published = |groups: &[rehome_domain::id::RecipientId]| {
        groups
            .iter()
            .any(|g| relationship.mailbox_move_published_scopes.contains(g))
    };
    if published(&tx.groups_of(tenant, recipient.id).await?) {
        return Ok(Membership::Direct);
    }
    let nested = published(&tx.groups_of_nested_only(tenant, recipient.id).await?);
    Ok(if nested {
        Membership::NestedOnly
    } else {
        Membership::None
    })
}

/// Loads the facts about a mailbox for one partner.
pub(super) async fn load(
    tx: &mut Tx,
    tenant: TenantId,
    principal: ServicePrincipalId,
    guid: ExchangeGuid,
    now: Timestamp,
) -> Result<Facts, StoreError> {
    let relationships = tx.relationship_list(tenant).await?;
    let principal_row = tx.service_principal_get(tenant, principal).await?;
    let return_record = return_record(tx, tenant, guid, principal_row.as_ref(), &relationships).await?;
    let relationship = relationships
        .into_iter()
        .find(|r| r.service_principal == Some(principal));
    let recipient = tx.recipient_by_exchange_guid(tenant, guid).await?;
    let newest = tx.source_attempt_newest(tenant, guid).await?;
    let open_move = tx
        .outbound_open_move(tenant, guid, principal, now - OPEN_MOVE_LASTS)
        .await?;
    let (is_mailbox, on_hold) = match recipient.as_ref().map(|r| &r.kind) {
        Some(RecipientKind::Mailbox(m)) => (true, m.litigation_hold),
        Some(RecipientKind::MailUser(_) | RecipientKind::Group(_)) | None => (false, false),
    };
    let retention_until = newest.as_ref().and_then(|n| n.retention_until);
    let cutover = CutoverFacts::of(newest.as_ref().map(|n| &n.attempt), retention_until, is_mailbox);
    // A mail user that was not moved from here has no content to give; what was moved is answered for even when the
    // mail user has been removed since.
    let mailbox = if is_mailbox || matches!(cutover, CutoverFacts::Moved { .. }) {
        let membership = match &recipient {
            Some(recipient) => membership(tx, tenant, relationship.as_ref(), recipient).await?,
            None => Membership::None,
        };
        Some(MailboxFacts {
            exchange_guid: guid,
            membership,
            on_hold,
            cutover,
            open_move,
            return_record,
        })
    } else {
        None
    };
    Ok(Facts {
        principal: principal_row,
        relationship,
        recipient,
        newest,
        mailbox,
    })
}

impl Facts {
    /// Asks the gate.
    pub(super) fn ask(&self, ctx: &VerbContext, verb: Verb, now: Timestamp) -> Result<(), Refusal> {
        gate(&Request {
            caller: &ctx.caller,
            verb,
            principal: self.principal.as_ref(),
            relationship: self.relationship.as_ref(),
            mailbox: self.mailbox.as_ref(),
            move_id: ctx.move_id,
            attempt: ctx.attempt,
            now,
        })
    }
}

/// The audit record of something a partner did here.
pub(super) fn partner_entry(
    ctx: &VerbContext,
    action: &str,
    parameters: serde_json::Value,
    result: &str,
    now: Timestamp,
) -> AuditEntry {
    AuditEntry {
        at: now,
        caller: format!("service principal {}", ctx.caller.service_principal),
        origin: ctx.origin.clone(),
        action: action.to_owned(),
        object: ctx.mailbox.to_string(),
        parameters,
        result: result.to_owned(),
        correlation_id: ctx.correlation,
    }
}

/// The row that says this partner was here.
pub(super) fn seen(ctx: &VerbContext, now: Timestamp) -> OutboundMove {
    OutboundMove {
        tenant: ctx.tenant,
        move_id: ctx.move_id,
        exchange_guid: ctx.mailbox,
        service_principal: ctx.caller.service_principal,
        opened: now,
        last_seen: now,
        last_correlation: ctx.correlation.to_string(),
        last_refusal: None,
        items_served: 0,
        bytes_served: 0,
        ended: None,
    }
}

impl Source {
    /// Asks the gate and writes refusals to the source's log. `Open` is logged when allowed, too: it begins every pass.
    pub(super) async fn admit(&self, ctx: &VerbContext, verb: Verb) -> Result<Admitted, ProxyError> {
        let now = self.inner.clock.now();
        if ctx.move_id == TEST_OF_AVAILABILITY && verb != Verb::Open {
            return Err(ProxyError::refused(
                ErrorId::ParameterBinding,
                "The nil move only tests availability.",
            ));
        }
        let mut tx = self.inner.store.read().await?;
        if let Some(other) = tx.outbound_other_mailbox(ctx.tenant, ctx.move_id, ctx.mailbox).await?
            && ctx.move_id != TEST_OF_AVAILABILITY
        {
            tracing::warn!(correlation = %ctx.correlation, move_id = %ctx.move_id, mailbox = %ctx.mailbox, %other, "a move asks for a second mailbox");
            return Err(ProxyError::refused(
                ErrorId::InvalidOperation,
                "This move stands for another mailbox; a move moves one.",
            ));
        }
        let facts = load(&mut tx, ctx.tenant, ctx.caller.service_principal, ctx.mailbox, now).await?;
        drop(tx);
        match facts.ask(ctx, verb, now) {
            Err(refusal) => {
                self.log_refusal(ctx, verb, &refusal, now).await?;
                Err(refused(refusal.id, refusal.partner_text))
            }
            Ok(()) => Ok(Admitted { facts, now }),
        }
    }

    async fn log_refusal(
        &self,
        ctx: &VerbContext,
        verb: Verb,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Result<(), ProxyError> {
        tracing::warn!(
            correlation = %ctx.correlation, mailbox = %ctx.mailbox, ?verb, id = %refusal.id, reason = refusal.reason, "the gate refused"
        );
        let mut tx = self.inner.store.write().await?;
        let parameters =
            serde_json::json!({"verb": format!("{verb:?}"), "move": ctx.move_id.to_string(), "reason": refusal.reason});
        tx.audit_append(
            ctx.tenant,
            &partner_entry(ctx, "Gate", parameters, refusal.id.as_str(), now),
        )
        .await?;
        let refused = OutboundMove {
            last_refusal: Some(format!("{}: {}", refusal.id, refusal.reason)),
            ..seen(ctx, now)
        };
        tx.outbound_touch(&refused).await?;
        tx.commit("source.refusal").await?;
        Ok(())
    }

    /// Records that a request was allowed, with what was served for it; durable when it returns.
    pub(super) async fn log_allowed(
        &self,
        ctx: &VerbContext,
        action: &str,
        items: u64,
        octets: u64,
    ) -> Result<(), StoreError> {
        let record = self.allowed(ctx, action, items, octets);
        self.inner.journal.write(&self.inner.store, record).await
    }

    /// Records what was served, with the next record that is written, soon at the latest.
    pub(super) fn log_served(&self, ctx: &VerbContext, items: u64, octets: u64) {
        self.inner.journal.leave(self.allowed(ctx, "Served", items, octets));
        let source = self.clone();
        let flush = async move {
            tokio::time::sleep(SERVED_WITHIN).await;
            if let Err(error) = source.inner.journal.flush(&source.inner.store).await {
                let error = crate::error_chain(&error);
                tracing::error!(error, octets, "what was served could not be recorded yet");
            }
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(flush);
        }
    }

    fn allowed(&self, ctx: &VerbContext, action: &str, items: u64, octets: u64) -> Allowed {
        let now = self.inner.clock.now();
        let parameters = serde_json::json!({"move": ctx.move_id.to_string(), "items": items, "octets": octets});
        Allowed {
            tenant: ctx.tenant,
            entry: partner_entry(ctx, action, parameters, "ok", now),
            seen: (ctx.move_id != TEST_OF_AVAILABILITY).then(|| OutboundMove {
                items_served: items,
                bytes_served: octets,
                ..seen(ctx, now)
            }),
        }
    }

    /// Whether the gate still lets `verb` pass; asked again while a stream runs.
    pub(super) async fn still_allowed(&self, ctx: &VerbContext, verb: Verb) -> Result<(), ProxyError> {
        self.admit(ctx, verb).await.map(|_| ())
    }
}

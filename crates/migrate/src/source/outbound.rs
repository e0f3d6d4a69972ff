//! The source administrator's view: what is leaving, and would a mailbox be let go.

use super::{Source, VerbContext, admit::load, keeper::own_context};
use jiff::Timestamp;
use rehome_domain::{
    consent::{ROLE_MAILBOX_MIGRATION, ROLE_MAILBOX_RETURN},
    cutover::SourcePhase,
    gate::{Caller, Refusal, Request, Verb, gate},
    id::{AttemptId, CorrelationId, ExchangeGuid, MoveId, TenantId},
    recipient::Recipient,
};
use rehome_store::{OutboundMove, SourceAttemptRow, StoreError, Tx};

/// One outbound move with its newest attempt.
#[derive(Clone, Debug)]
pub struct OutboundView {
    /// What the partner has open.
    pub outbound: OutboundMove,
    /// The recipient, if it is still there.
    pub recipient: Option<Recipient>,
    /// The partner's name as consented to.
    pub partner: Option<String>,
    /// `Open`, `Locked`, `Prepared`, `Reopened`, `Moved`.
    pub state: &'static str,
    /// The newest attempt of this move.
    pub attempt: Option<AttemptId>,
    /// From Lock stored to Commit stored, once moved.
    pub lock_milliseconds: Option<u64>,
    /// Until when the old content is kept, once moved.
    pub retention_until: Option<Timestamp>,
    /// Whether it is kept beyond that; none before it has moved.
    pub content_held: Option<bool>,
    /// When the old content was removed.
    pub content_removed: Option<Timestamp>,
    /// Whether the target may sweep what came late, once moved: `Allowed`, or why not.
    pub sweeps: Option<String>,
}

/// What the gate would say of one mailbox for one partner.
#[derive(Clone, Debug)]
pub struct OutboundTest {
    /// The partner's service principal name and application.
    pub partner: String,
    /// The application id.
    pub app_id: String,
    /// None when the mailbox would be let go.
    pub refusal: Option<Refusal>,
}

impl Source {
    /// Everything that partners have open or have moved, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn outbound_list(&self, tenant: TenantId) -> Result<Vec<OutboundView>, StoreError> {
        let mut tx = self.inner.store.read().await?;
        let principals = tx.service_principal_list(tenant).await?;
        let mut views = Vec::new();
        for outbound in tx.outbound_list(tenant).await? {
            let recipient = tx.recipient_by_exchange_guid(tenant, outbound.exchange_guid).await?;
            let newest = tx
                .source_attempt_newest(tenant, outbound.exchange_guid)
                .await?
                .filter(|n| n.attempt.move_id == outbound.move_id);
            let state = match newest.as_ref().map(|n| n.attempt.phase) {
                Some(SourcePhase::Locked) => "Locked",
                Some(SourcePhase::Prepared) => "Prepared",
                Some(SourcePhase::Committed | SourcePhase::Released) => "Moved",
                Some(SourcePhase::Reopened) => "Reopened",
                Some(SourcePhase::Aborted | SourcePhase::Lapsed | SourcePhase::Returned) | None => "Open",
            };
            views.push(OutboundView {
                partner: principals
                    .iter()
                    .find(|p| p.id == outbound.service_principal)
                    .map(|p| p.display_name.clone()),
                state,
                attempt: newest.as_ref().map(|n| n.attempt.id),
                lock_milliseconds: newest.as_ref().and_then(|n| {
                    let at = n.attempt.committed_at?;
                    u64::try_from(at.duration_since(n.attempt.granted_at).as_millis()).ok()
                }),
                retention_until: newest.as_ref().and_then(|n| n.retention_until),
                content_held: newest
                    .as_ref()
                    .filter(|n| n.retention_until.is_some())
                    .map(|n| n.content_held),
                content_removed: newest.as_ref().and_then(|n| n.content_removed),
                sweeps: match &newest {
                    Some(newest) if state == "Moved" => Some(self.sweeps_of(&mut tx, tenant, newest).await?),
                    Some(_) | None => None,
                },
                recipient,
                outbound,
            });
        }
        Ok(views)
    }

    /// What the gate would say of a sweep now.
    async fn sweeps_of(&self, tx: &mut Tx, tenant: TenantId, attempt: &SourceAttemptRow) -> Result<String, StoreError> {
        let now = self.inner.clock.now();
        let partner = attempt.attempt.service_principal;
        let facts = load(tx, tenant, partner, attempt.exchange_guid, now).await?;
        let mut ctx = own_context(attempt);
        if let Some(principal) = &facts.principal {
            ctx.caller = Caller {
                service_principal: principal.id,
                app_id: principal.app_id,
                home_issuer: principal.issuer.clone(),
                home_tenant: principal.home_tenant,
                roles: principal.roles.clone(),
            };
        }
        Ok(match facts.ask(&ctx, Verb::Sweep, now) {
            Ok(()) => "Allowed".to_owned(),
            Err(refusal) => format!("Ended: {}", refusal.reason),
        })
    }

    /// Asks the gate about a mailbox for every partner that has a service principal here, without a trace in the log.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn outbound_test(
        &self,
        tenant: TenantId,
        mailbox: ExchangeGuid,
    ) -> Result<Vec<OutboundTest>, StoreError> {
        let mut tx = self.inner.store.read().await?;
        let now = self.inner.clock.now();
        let mut results = Vec::new();
        for principal in tx.service_principal_list(tenant).await? {
            let ctx = VerbContext {
                tenant,
                caller: Caller {
                    service_principal: principal.id,
                    app_id: principal.app_id,
                    home_issuer: principal.issuer.clone(),
                    home_tenant: principal.home_tenant,
                    roles: if principal.is_return_client() {
                        vec![ROLE_MAILBOX_RETURN.into()]
                    } else {
                        vec![ROLE_MAILBOX_MIGRATION.into()]
                    },
                },
                mailbox,
                move_id: MoveId::from_u128(0),
                attempt: None,
                correlation: CorrelationId::from_u128(0),
                origin: "local".into(),
            };
            let mut facts = load(&mut tx, tenant, principal.id, mailbox, now).await?;
            if let Some(facts) = facts.mailbox.as_mut() {
                // The question is whether he may, not whether he is the one who does already.
                facts.open_move = None;
            }
            let refusal = gate(&Request {
                caller: &ctx.caller,
                verb: Verb::Open,
                principal: facts.principal.as_ref(),
                relationship: facts.relationship.as_ref(),
                mailbox: facts.mailbox.as_ref(),
                move_id: ctx.move_id,
                attempt: None,
                now,
            })
            .err();
            results.push(OutboundTest {
                partner: principal.display_name,
                app_id: principal.app_id.to_string(),
                refusal,
            });
        }
        Ok(results)
    }
}

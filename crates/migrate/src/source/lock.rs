//! Lock and renew at the source: mail is deferred, and whoever is in the mailbox is out.

use super::{
    ProxyError, Source, VerbContext,
    admit::{partner_entry, seen},
    content::mailbox_of,
    cutover::{asker, refusal_error, store_state},
};
use crate::protocol::{LOCKED, LeaseAnswer, NOT_LOCKED};
use jiff::{SignedDuration, Timestamp};
use rehome_domain::{
    cutover::{LockLimits, LockUse, SourceEvent, SourcePhase, SourceRefusal, SourceTransition, source_next},
    error_id::ErrorId,
    gate::Verb,
    id::TenantId,
    recipient::MailboxState,
    relationship::OrganizationRelationship,
};
use rehome_platform::{LockMethod, Place};
use rehome_store::SourceAttemptRow;

/// Running deliveries must end within this time, or the lock is undone.
pub(super) const QUIET_WITHIN: std::time::Duration = std::time::Duration::from_secs(30);

fn lease_answer(row: &SourceAttemptRow, now: Timestamp) -> LeaseAnswer {
    let left = match row.attempt.phase {
        SourcePhase::Locked => row.attempt.lease_until.duration_since(now).as_millis(),
        SourcePhase::Prepared
        | SourcePhase::Committed
        | SourcePhase::Released
        | SourcePhase::Returned
        | SourcePhase::Aborted
        | SourcePhase::Lapsed
        | SourcePhase::Reopened => 0,
    };
    LeaseAnswer {
        lease_milliseconds: u64::try_from(left).unwrap_or(0),
    }
}

fn new_row(tenant: TenantId, ctx: &VerbContext, transition: &SourceTransition) -> SourceAttemptRow {
    SourceAttemptRow {
        attempt: transition.attempt.clone(),
        tenant,
        exchange_guid: ctx.mailbox,
        prepared_at: None,
        ended_at: None,
        root: None,
        exceptions: None,
        routing_address: None,
        legacy_exchange_dn: None,
        outcome_key: None,
        platform: None,
        location: None,
        retention_until: None,
        closed: false,
        content_removed: None,
        content_held: false,
    }
}

impl Source {
    /// Whether the platform keeps a locked mailbox quiet, as the partner is told.
    pub(super) fn lock_method(&self, platform: &str) -> Result<&'static str, ProxyError> {
        Ok(match self.inner.platforms.lock_method(platform)? {
            LockMethod::Locked => LOCKED,
            LockMethod::NotLocked => NOT_LOCKED,
        })
    }

    fn limits_for(&self, relationship: Option<&OrganizationRelationship>) -> LockLimits {
        let limits = self.inner.settings.limits;
        LockLimits {
            attempts_per_day: relationship.map_or(limits.attempts_per_day, |r| r.max_lock_attempts_per_day),
            ..limits
        }
    }

    /// Locks the mailbox when it is quiet: when this returns mail is deferred, running deliveries have ended, and where
    /// the platform can, its user is kept out and his sessions have ended. Whatever ends the attempt without Commit lets
    /// him in again, see [`Source::run`].
    ///
    /// # Errors
    /// [`ProxyError`]: refused by the gate or the machine, beyond a limit, or not quiet in time.
    pub async fn lock(&self, ctx: &VerbContext) -> Result<LeaseAnswer, ProxyError> {
        let admitted = self.admit(ctx, Verb::Lock).await?;
        let asker = asker(ctx)?;
        let mut tx = self.inner.store.write().await?;
        let now = self.inner.clock.now();
        let newest = tx.source_attempt_newest(ctx.tenant, ctx.mailbox).await?;
        let day = SignedDuration::from_hours(24);
        let used = LockUse {
            failed_grants: tx
                .source_attempt_failed_grants(ctx.tenant, ctx.mailbox, now - day)
                .await?,
            mailboxes_held: u32::try_from(
                tx.source_attempt_count_held(ctx.tenant, asker.service_principal, ctx.mailbox)
                    .await?,
            )
            .unwrap_or(u32::MAX),
        };
        let limits = self.limits_for(admitted.facts.relationship.as_ref());
        let recipient = tx.recipient_by_exchange_guid(ctx.tenant, ctx.mailbox).await?;
        let place = match &recipient {
            Some(recipient) => {
                let mailbox = mailbox_of(recipient)?;
                if mailbox.state == MailboxState::NotYetShown {
                    // It came here a moment ago; whatever ended this lock would say that it is open before it is.
                    return Err(ProxyError::again(
                        ErrorId::CutoverNotNow,
                        "The mailbox is being moved to the source at this moment.",
                        60,
                    ));
                }
                Place::from(mailbox)
            }
            None => return Err(refusal_error(SourceRefusal::HeldByOtherMove, now)),
        };
        // A mailbox that came back keeps its old committed attempt; it does not hold the mailbox any more.
        let current = newest.as_ref().filter(|n| {
            let moved = matches!(n.attempt.phase, SourcePhase::Committed | SourcePhase::Released);
            !moved
        });
        let transition = source_next(
            current.map(|n| &n.attempt),
            &asker,
            SourceEvent::Lock,
            &limits,
            &used,
            now,
        )
        .map_err(|r| refusal_error(r, now))?;
        let row = match current {
            Some(row) if row.attempt.id == transition.attempt.id => row.clone(),
            Some(_) | None => {
                // An attempt has one mailbox and one outcome for ever; its id is never taken up again.
                if tx.source_attempt_get(ctx.tenant, asker.attempt).await?.is_some() {
                    return Err(refusal_error(SourceRefusal::Stale, now));
                }
                let row = new_row(ctx.tenant, ctx, &transition);
                if let (Some(superseded), Some(old)) = (transition.superseded, current) {
                    let mut ended = old.clone();
                    ended.attempt.phase = SourcePhase::Aborted;
                    ended.ended_at = Some(now);
                    tx.source_attempt_update(&ended).await?;
                    let parameters = serde_json::json!({"attempt": superseded.to_string()});
                    tx.audit_append(ctx.tenant, &partner_entry(ctx, "Supersede", parameters, "ok", now))
                        .await?;
                }
                tx.source_attempt_insert(&row).await?;
                store_state(&mut tx, &row, Some(MailboxState::InCutover(ctx.move_id)), now).await?;
                let method = self.lock_method(&place.platform)?;
                let parameters = serde_json::json!({"attempt": asker.attempt.to_string(), "lock_method": method});
                tx.audit_append(ctx.tenant, &partner_entry(ctx, "Lock", parameters, "ok", now))
                    .await?;
                row
            }
        };
        tx.outbound_touch(&seen(ctx, now)).await?;
        tx.commit("source.lock").await?;
        // Stored first, then waited for: a delivery reads the state again after its last octet, under the shared lock.
        if let Err(error) = self.inner.platforms.quiesce(&place, QUIET_WITHIN).await {
            self.undo_lock(ctx, &row).await?;
            return Err(error.into());
        }
        self.inner.quiet.note(row.attempt.id);
        Ok(lease_answer(&row, self.inner.clock.now()))
    }

    async fn undo_lock(&self, ctx: &VerbContext, row: &SourceAttemptRow) -> Result<(), ProxyError> {
        let mut tx = self.inner.store.write().await?;
        let now = self.inner.clock.now();
        if let Some(mut newest) = tx.source_attempt_newest(row.tenant, row.exchange_guid).await?
            && newest.attempt.id == row.attempt.id
            && newest.attempt.phase == SourcePhase::Locked
        {
            newest.attempt.phase = SourcePhase::Aborted;
            newest.ended_at = Some(now);
            store_state(&mut tx, &newest, Some(MailboxState::Open), now).await?;
            let parameters = serde_json::json!({"attempt": row.attempt.id.to_string(), "reason": "not quiet in time"});
            tx.audit_append(row.tenant, &partner_entry(ctx, "Unlock", parameters, "ok", now))
                .await?;
            tx.commit("source.undo_lock").await?;
        }
        Ok(())
    }

    /// Renews the lock's lease.
    ///
    /// # Errors
    /// [`ProxyError`]; `LeaseLapsedException` when it had ended.
    pub async fn renew(&self, ctx: &VerbContext) -> Result<LeaseAnswer, ProxyError> {
        self.admit(ctx, Verb::Lock).await?;
        let (row, now) = self
            .step(ctx, SourceEvent::Renew, None, "Renew", "source.renew")
            .await?;
        Ok(lease_answer(&row, now))
    }
}

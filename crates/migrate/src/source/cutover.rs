//! The cutover's ends at the source: commit, abort, status; and one step of the machine, stored.

use super::{
    ProxyError, Source, VerbContext,
    admit::{partner_entry, seen},
    content::mailbox_of,
    prepare::others_answer_for,
};
use crate::protocol::{AbortAnswer, CommitAnswer, StatusAnswer};
use jiff::Timestamp;
use rehome_domain::{
    conversion::{Promise, mailbox_to_mail_user, with_mailbox_state},
    cutover::{
        LockUse, SourceAsker, SourceAttempt, SourceEvent, SourcePhase, SourceRefusal, SourceStatus, source_next,
    },
    error_id::ErrorId,
    gate::Verb,
    id::{AttemptId, TenantId},
    recipient::MailboxState,
};
use rehome_store::{OutboundMove, SourceAttemptRow, StoreError, Tx};

/// The machine's refusal as the partner learns it.
pub(super) fn refusal_error(refusal: SourceRefusal, now: Timestamp) -> ProxyError {
    match refusal {
        SourceRefusal::Stale => ProxyError::again(ErrorId::StaleAttempt, "The attempt does not hold the mailbox.", 1),
        SourceRefusal::Lapsed => ProxyError::again(
            ErrorId::LeaseLapsed,
            "The lock's lease has lapsed. A new attempt with a new final pass is needed.",
            1,
        ),
        SourceRefusal::NotNow(until) => {
            let wait = until.duration_since(now).as_secs().max(1);
            ProxyError {
                id: ErrorId::CutoverNotNow,
                message: format!("The source's limits allow no further lock before {until}."),
                retry_after: Some(u32::try_from(wait).unwrap_or(u32::MAX)),
            }
        }
        SourceRefusal::HeldByOtherMove => ProxyError::refused(
            ErrorId::SourceMailboxAlreadyBeingMovedPermanent,
            "Another move has the mailbox.",
        ),
        SourceRefusal::NotPrepared => ProxyError::refused(ErrorId::InvalidOperation, "The attempt was not prepared."),
        SourceRefusal::OtherPromise => ProxyError::refused(
            ErrorId::InvalidOperation,
            "Another promise is stored for this attempt; abort it and begin a new one.",
        ),
        SourceRefusal::Reopened => ProxyError::refused(
            ErrorId::MailboxReopened,
            "The source's administrator has opened the mailbox again by hand. What came to it since is to be caught up with a new attempt of the same move.",
        ),
        SourceRefusal::AlreadyAborted => ProxyError::refused(
            ErrorId::InvalidOperation,
            "The attempt was aborted; its outcome stands.",
        ),
        SourceRefusal::NeedsTargetsWord => ProxyError::refused(
            ErrorId::InvalidOperation,
            "Only the target's word ends an attempt as committed.",
        ),
        SourceRefusal::AlreadyCommitted => ProxyError::refused(
            ErrorId::InvalidOperation,
            "The attempt was committed; its outcome stands.",
        ),
    }
}

fn attempt_of(ctx: &VerbContext) -> Result<AttemptId, ProxyError> {
    ctx.attempt
        .ok_or_else(|| ProxyError::refused(ErrorId::ParameterBinding, "The request names no attempt."))
}

pub(super) fn asker(ctx: &VerbContext) -> Result<SourceAsker, ProxyError> {
    Ok(SourceAsker {
        attempt: attempt_of(ctx)?,
        move_id: ctx.move_id,
        service_principal: ctx.caller.service_principal,
    })
}

/// Writes a mailbox's state with its attempt. `state` none leaves the recipient alone.
pub(super) async fn store_state(
    tx: &mut Tx,
    row: &SourceAttemptRow,
    state: Option<MailboxState>,
    now: Timestamp,
) -> Result<(), StoreError> {
    if let Some(state) = state
        && let Some(recipient) = tx.recipient_by_exchange_guid(row.tenant, row.exchange_guid).await?
        && let Some(changed) = with_mailbox_state(&recipient, state, now)
    {
        tx.recipient_update(row.tenant, &changed).await?;
    }
    tx.source_attempt_update(row).await
}

impl Source {
    /// The machine's next state for every event but Lock, to which limits matter as well.
    pub(super) fn next_state(
        &self,
        newest: Option<&SourceAttemptRow>,
        asker: &SourceAsker,
        event: SourceEvent,
        now: Timestamp,
    ) -> Result<SourceAttempt, SourceRefusal> {
        let limits = self.inner.settings.limits;
        let current = newest.map(|n| &n.attempt);
        source_next(current, asker, event, &limits, &LockUse::default(), now).map(|transition| transition.attempt)
    }

    /// One step of the machine, stored with its audit record. Returns the row as stored.
    pub(super) async fn step(
        &self,
        ctx: &VerbContext,
        event: SourceEvent,
        state: Option<MailboxState>,
        action: &str,
        fault: &'static str,
    ) -> Result<(SourceAttemptRow, Timestamp), ProxyError> {
        let asker = asker(ctx)?;
        let mut tx = self.inner.store.write().await?;
        let now = self.inner.clock.now();
        let newest = tx.source_attempt_newest(ctx.tenant, ctx.mailbox).await?;
        let attempt = self
            .next_state(newest.as_ref(), &asker, event, now)
            .map_err(|r| refusal_error(r, now))?;
        let Some(mut row) = newest else {
            return Err(refusal_error(SourceRefusal::Stale, now));
        };
        if row.attempt != attempt {
            let ended = matches!(attempt.phase, SourcePhase::Aborted | SourcePhase::Lapsed);
            row.ended_at = if ended { Some(now) } else { row.ended_at };
            row.attempt = attempt;
            store_state(&mut tx, &row, state, now).await?;
            let parameters = serde_json::json!({"attempt": asker.attempt.to_string()});
            tx.audit_append(ctx.tenant, &partner_entry(ctx, action, parameters, "ok", now))
                .await?;
            tx.commit(fault).await?;
        }
        Ok((row, now))
    }

    /// Turns the mailbox into a mail user that forwards, exactly as promised. Repeating gives the first answer.
    ///
    /// # Errors
    /// [`ProxyError`]; nothing changes then.
    pub async fn commit(&self, ctx: &VerbContext) -> Result<CommitAnswer, ProxyError> {
        self.admit(ctx, Verb::Commit).await?;
        let asker = asker(ctx)?;
        let row = self.commit_attempt(&asker, ctx.tenant, ctx).await?;
        self.close_content(&row).await;
        Ok(commit_answer(&row))
    }

    /// Commits an attempt: asked by the partner, or because its outcome address said so.
    pub(super) async fn commit_attempt(
        &self,
        asker: &SourceAsker,
        tenant: TenantId,
        ctx: &VerbContext,
    ) -> Result<SourceAttemptRow, ProxyError> {
        let mut tx = self.inner.store.write().await?;
        let now = self.inner.clock.now();
        let newest = tx.source_attempt_newest(tenant, ctx.mailbox).await?;
        let attempt = self
            .next_state(newest.as_ref(), asker, SourceEvent::Commit, now)
            .map_err(|r| refusal_error(r, now))?;
        let Some(row) = newest else {
            return Err(refusal_error(SourceRefusal::Stale, now));
        };
        if row.attempt == attempt {
            return Ok(row);
        }
        let row = self.commit_in(&mut tx, row, attempt, ctx, now).await?;
        tx.commit("source.commit").await?;
        Ok(row)
    }

    /// Stores the commit of an attempt, whose next state is `attempt`, within a change that is being made.
    pub(super) async fn commit_in(
        &self,
        tx: &mut Tx,
        mut row: SourceAttemptRow,
        attempt: SourceAttempt,
        ctx: &VerbContext,
        now: Timestamp,
    ) -> Result<SourceAttemptRow, ProxyError> {
        let tenant = row.tenant;
        let broken = |what: &str| {
            ProxyError::refused(
                ErrorId::Unexpected,
                format!("The stored promise has no readable {what}."),
            )
        };
        let promise = Promise {
            routing_address: row
                .routing_address
                .as_deref()
                .and_then(|a| a.parse().ok())
                .ok_or_else(|| broken("routing address"))?,
            target_legacy_exchange_dn: row
                .legacy_exchange_dn
                .as_deref()
                .and_then(|a| a.parse().ok())
                .ok_or_else(|| broken("LegacyExchangeDN"))?,
        };
        let recipient = tx
            .recipient_by_exchange_guid(tenant, ctx.mailbox)
            .await?
            .ok_or_else(|| broken("mailbox"))?;
        let mailbox = mailbox_of(&recipient)?.clone();
        row.attempt = attempt;
        row.platform = Some(mailbox.platform);
        row.location = Some(mailbox.location);
        row.retention_until = Some(now + self.retention_of(tx, &row).await?);
        // A hold refuses Prepare; one that came after it does not undo the promise, but keeps the content.
        row.content_held = mailbox.litigation_hold;
        let mut mail_user = mailbox_to_mail_user(&recipient, ctx.mailbox, &promise, now);
        // The word given stands: a name that someone else took since Prepare is left out, said, and mended by hand.
        let dn = &promise.target_legacy_exchange_dn;
        let clash = others_answer_for(tx, tenant, dn, Some(recipient.id)).await?;
        if clash {
            mail_user.email_addresses.retain(|p| p.key() != dn.as_x500().key());
            tracing::error!(mailbox = %ctx.mailbox, %dn, "ALERT: another recipient has taken the target's LegacyExchangeDN, so replies to it go there; give it to the moved mail user by hand");
        }
        tx.recipient_update(tenant, &mail_user).await?;
        tx.source_attempt_update(&row).await?;
        tx.receipt_commit(tenant, row.attempt.id, now).await?;
        let parameters = serde_json::json!({
            "attempt": row.attempt.id.to_string(), "external_email_address": promise.routing_address.to_string(), "x500_left_out": clash,
        });
        tx.audit_append(tenant, &partner_entry(ctx, "Commit", parameters, "ok", now))
            .await?;
        tx.outbound_touch(&OutboundMove {
            ended: Some(now),
            ..seen(ctx, now)
        })
        .await?;
        Ok(row)
    }

    /// Gives the attempt up; the mailbox is open again.
    ///
    /// # Errors
    /// [`ProxyError`]; a committed attempt keeps its outcome.
    pub async fn abort(&self, ctx: &VerbContext) -> Result<AbortAnswer, ProxyError> {
        self.admit(ctx, Verb::Abort).await?;
        self.step(
            ctx,
            SourceEvent::Abort,
            Some(MailboxState::Open),
            "Abort",
            "source.abort",
        )
        .await?;
        Ok(AbortAnswer {})
    }

    /// Where the attempt stands.
    ///
    /// # Errors
    /// [`ProxyError`] when the attempt is not the caller's.
    pub async fn status(&self, ctx: &VerbContext) -> Result<StatusAnswer, ProxyError> {
        let admitted = self.admit(ctx, Verb::Status).await?;
        let newest = admitted.facts.newest.map(|n| n.attempt.phase.status());
        let phase = newest.unwrap_or(SourceStatus::Aborted).as_str();
        Ok(StatusAnswer { phase: phase.into() })
    }
}

fn commit_answer(row: &SourceAttemptRow) -> CommitAnswer {
    let locked = row
        .attempt
        .committed_at
        .map_or(0, |at| at.duration_since(row.attempt.granted_at).as_millis());
    CommitAnswer {
        lock_milliseconds: u64::try_from(locked).unwrap_or(0),
        retention_until: row.retention_until.map_or(0, Timestamp::as_millisecond),
    }
}

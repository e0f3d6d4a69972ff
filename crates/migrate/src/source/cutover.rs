//! The cutover's verbs at the source: lock, renew, prepare, commit, abort, status.

use super::{
    ProxyError, Source, VerbContext,
    admit::{Admitted, Facts, load, partner_entry, seen},
    content::{export_error, mailbox_of},
};
use crate::protocol::{
    AbortAnswer, CommitAnswer, ExceptionBody, LOCKED, LeaseAnswer, NOT_LOCKED, PrepareAnswer, PrepareRequest,
    StatusAnswer,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::{SignedDuration, Timestamp};
use rehome_domain::{
    address::{LegacyExchangeDn, SmtpAddress},
    conversion::{Promise, mailbox_to_mail_user, with_mailbox_state},
    cutover::{
        LockLimits, LockUse, SourceAsker, SourceAttempt, SourceEvent, SourcePhase, SourceRefusal, SourceTransition,
        source_next,
    },
    error_id::ErrorId,
    gate::Verb,
    id::{AttemptId, RecipientId, TenantId},
    recipient::MailboxState,
    relationship::OrganizationRelationship,
};
use rehome_platform::{LockMethod, Place};
use rehome_replicate::{Exception, Exporter, RootListing};
use rehome_routing::ProbeError;
use rehome_store::{OutboundMove, SourceAttemptRow, StoreError, Tx};
use rehome_wire::digest::Digest;

/// Running deliveries must end within this time, or the lock is undone.
const QUIET_WITHIN: std::time::Duration = std::time::Duration::from_secs(30);

/// The machine's refusal as the partner learns it.
fn refusal_error(refusal: SourceRefusal, now: Timestamp) -> ProxyError {
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

fn asker(ctx: &VerbContext) -> Result<SourceAsker, ProxyError> {
    Ok(SourceAsker {
        attempt: attempt_of(ctx)?,
        move_id: ctx.move_id,
        service_principal: ctx.caller.service_principal,
    })
}

fn lease_answer(row: &SourceAttemptRow, now: Timestamp) -> LeaseAnswer {
    let left = match row.attempt.phase {
        SourcePhase::Locked => row.attempt.lease_until.duration_since(now).as_millis(),
        SourcePhase::Prepared | SourcePhase::Committed | SourcePhase::Aborted | SourcePhase::Lapsed => 0,
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
    }
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
        let current = newest.as_ref().filter(|n| n.attempt.phase != SourcePhase::Committed);
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

    /// One step of the machine, stored with its audit record. Returns the row as stored.
    async fn step(
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

    /// Promises durably to wait for the outcome, after roots, addresses and lease were found good.
    ///
    /// # Errors
    /// [`ProxyError`] with `RootMismatchException`, `RoutingAddressNotAcceptedException`, `LeaseLapsedException` and others.
    pub async fn prepare(&self, ctx: &VerbContext, request: &PrepareRequest) -> Result<PrepareAnswer, ProxyError> {
        let admitted = self.admit(ctx, Verb::Prepare).await?;
        let asker = asker(ctx)?;
        let offer = Offer::read(request)?;
        let newest = admitted.facts.newest.as_ref();
        let now = self.inner.clock.now();
        let event = SourceEvent::Prepare {
            same: newest.is_none_or(|n| offer.is_promised(n)),
        };
        let attempt = self
            .next_state(newest, &asker, event, now)
            .map_err(|r| refusal_error(r, now))?;
        if newest.is_some_and(|n| n.attempt == attempt) {
            return Ok(PrepareAnswer {
                root: offer.root.to_string(),
            });
        }
        if !request.read_back {
            return Err(ProxyError::refused(
                ErrorId::ReadBackRequired,
                "The target has not read back what it appended, so nothing is proven.",
            ));
        }
        // Before the probe: only a domain that the partner has published is asked about.
        let mut tx = self.inner.store.read().await?;
        check_addresses(&mut tx, ctx, &admitted.facts, &offer.promise).await?;
        drop(tx);
        self.probe(ctx, &offer.promise.routing_address).await?;
        // One at a time: a second Prepare of the attempt must not replace the listing that sweeps are measured against.
        let Some(_alone) = self.inner.preparing.begin(asker.attempt) else {
            return Err(ProxyError::again(
                ErrorId::CommunicationErrorTransient,
                "This attempt is being prepared.",
                2,
            ));
        };
        // Locked is stored before it is quiet: a Prepare that does not wait for Lock's answer, or comes after a crash in
        // between, must not find a mailbox that is still written to.
        if !self.inner.quiet.holds(asker.attempt) {
            let place = Place::from(mailbox_of(admitted.recipient()?)?);
            self.inner.platforms.quiesce(&place, QUIET_WITHIN).await?;
            self.inner.quiet.note(asker.attempt);
        }
        let (exporter, listing) = self.check_root(ctx, &admitted, request, offer.root).await?;
        exporter.remember_root(listing).await.map_err(|e| export_error(&e))?;
        self.promise(ctx, &asker, request, &offer).await
    }

    /// Stores the promise. The gate and the addresses are looked at once more in its transaction: the probe and the root took time.
    async fn promise(
        &self,
        ctx: &VerbContext,
        asker: &SourceAsker,
        request: &PrepareRequest,
        offer: &Offer,
    ) -> Result<PrepareAnswer, ProxyError> {
        let exceptions = serde_json::to_string(&request.exceptions).map_err(|e| ProxyError::passing(&e))?;
        let mut tx = self.inner.store.write().await?;
        let now = self.inner.clock.now();
        let facts = load(&mut tx, ctx.tenant, ctx.caller.service_principal, ctx.mailbox, now).await?;
        facts
            .ask(ctx, Verb::Prepare, now)
            .map_err(|refusal| ProxyError::refused(refusal.id, refusal.partner_text))?;
        check_addresses(&mut tx, ctx, &facts, &offer.promise).await?;
        let event = SourceEvent::Prepare {
            same: facts.newest.as_ref().is_none_or(|n| offer.is_promised(n)),
        };
        let attempt = self
            .next_state(facts.newest.as_ref(), asker, event, now)
            .map_err(|r| refusal_error(r, now))?;
        let Some(mut row) = facts.newest else {
            return Err(refusal_error(SourceRefusal::Stale, now));
        };
        if row.attempt != attempt {
            row.attempt = attempt;
            row.prepared_at = Some(now);
            row.root = Some(offer.root.0);
            row.exceptions = Some(exceptions);
            row.routing_address = Some(offer.promise.routing_address.to_string());
            row.legacy_exchange_dn = Some(offer.promise.target_legacy_exchange_dn.to_string());
            row.outcome_key = Some(offer.outcome_key.clone());
            tx.source_attempt_update(&row).await?;
            let parameters = serde_json::json!({
                "attempt": asker.attempt.to_string(), "root": offer.root.to_string(), "routing_address": request.routing_address,
                "legacy_exchange_dn": request.legacy_exchange_dn, "exceptions": request.exceptions.len(),
            });
            tx.audit_append(ctx.tenant, &partner_entry(ctx, "Prepare", parameters, "ok", now))
                .await?;
            tx.commit("source.prepare").await?;
        }
        Ok(PrepareAnswer {
            root: offer.root.to_string(),
        })
    }

    /// Whether the routing address's next hop takes mail for it, asked from here.
    async fn probe(&self, ctx: &VerbContext, address: &SmtpAddress) -> Result<(), ProxyError> {
        let no = |text: String| ProxyError::refused(ErrorId::RoutingAddressNotAccepted, text);
        match self.inner.routing.probe(address).await {
            Ok(outcome) if outcome.is_ourselves && outcome.tenant_here.is_none_or(|t| t == ctx.tenant) => Err(no(
                format!("The next hop of {address} is the source itself, so mail would go round."),
            )),
            Ok(outcome) if outcome.accepted => Ok(()),
            Ok(outcome) => {
                let text = format!("The next hop of {address} does not accept it: {}.", outcome.reply);
                let retry_after = outcome.transient.then_some(60);
                Err(ProxyError {
                    retry_after,
                    ..no(text)
                })
            }
            Err(error) => Err(probe_error(address, &error)),
        }
    }

    async fn check_root(
        &self,
        ctx: &VerbContext,
        admitted: &Admitted,
        request: &PrepareRequest,
        theirs: Digest,
    ) -> Result<(Exporter, RootListing), ProxyError> {
        let exceptions = exceptions_from(&request.exceptions)?;
        let exporter = self.exporter(ctx, admitted.recipient()?).await?;
        let (ours, listing) = exporter
            .source_root_unstored(&exceptions, true)
            .await
            .map_err(|e| export_error(&e))?;
        if ours.root == theirs {
            Ok((exporter, listing))
        } else {
            tracing::warn!(correlation = %ctx.correlation, mailbox = %ctx.mailbox, %theirs, ours = %ours.root, "root mismatch");
            // A new final pass may find what changed; the number of locks a day bounds how often.
            Err(ProxyError::again(
                ErrorId::RootMismatch,
                // The source's own root stays in its log: who is told it could give it back as his.
                format!(
                    "The contents on the two sides do not prove equal over {} items; the source's log has both roots under this correlation id.",
                    ours.items
                ),
                60,
            ))
        }
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
        let Some(mut row) = newest else {
            return Err(refusal_error(SourceRefusal::Stale, now));
        };
        if row.attempt == attempt {
            return Ok(row);
        }
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
        row.retention_until = Some(now + self.inner.settings.retention);
        let mut mail_user = mailbox_to_mail_user(&recipient, ctx.mailbox, &promise, now);
        // The word given stands: a name that someone else took since Prepare is left out, said, and mended by hand.
        let dn = &promise.target_legacy_exchange_dn;
        let clash = others_answer_for(&mut tx, tenant, dn, Some(recipient.id)).await?;
        if clash {
            mail_user.email_addresses.retain(|p| p.key() != dn.as_x500().key());
            tracing::error!(mailbox = %ctx.mailbox, %dn, "ALERT: another recipient has taken the target's LegacyExchangeDN, so replies to it go there; give it to the moved mail user by hand");
        }
        tx.recipient_update(tenant, &mail_user).await?;
        tx.source_attempt_update(&row).await?;
        let parameters = serde_json::json!({
            "attempt": asker.attempt.to_string(), "external_email_address": promise.routing_address.to_string(), "x500_left_out": clash,
        });
        tx.audit_append(tenant, &partner_entry(ctx, "Commit", parameters, "ok", now))
            .await?;
        tx.outbound_touch(&OutboundMove {
            ended: Some(now),
            ..seen(ctx, now)
        })
        .await?;
        tx.commit("source.commit").await?;
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
        let phase = match admitted.facts.newest.map(|n| n.attempt.phase) {
            Some(SourcePhase::Locked) => "locked",
            Some(SourcePhase::Prepared) => "prepared",
            Some(SourcePhase::Committed) => "committed",
            Some(SourcePhase::Lapsed) => "lapsed",
            Some(SourcePhase::Aborted) | None => "aborted",
        };
        Ok(StatusAnswer { phase: phase.into() })
    }
}

/// What a Prepare offers, read.
struct Offer {
    root: Digest,
    promise: Promise,
    outcome_key: Vec<u8>,
}

impl Offer {
    fn read(request: &PrepareRequest) -> Result<Self, ProxyError> {
        let bad = |what: &str| ProxyError::refused(ErrorId::ParameterBinding, format!("The {what} cannot be read."));
        let key = STANDARD
            .decode(&request.outcome_key)
            .ok()
            .filter(|k| (16..=64).contains(&k.len()));
        Ok(Self {
            root: request.root.parse().map_err(|_| bad("root"))?,
            promise: Promise {
                routing_address: request
                    .routing_address
                    .parse()
                    .map_err(|e| ProxyError::refused(ErrorId::RoutingAddressNotAccepted, format!("{e}.")))?,
                target_legacy_exchange_dn: request
                    .legacy_exchange_dn
                    .parse()
                    .map_err(|e| ProxyError::refused(ErrorId::LegacyExchangeDnNotAccepted, format!("{e}.")))?,
            },
            outcome_key: key.ok_or_else(|| bad("outcome key"))?,
        })
    }

    /// Whether the attempt holds exactly this promise, or none yet.
    fn is_promised(&self, row: &SourceAttemptRow) -> bool {
        match row.attempt.phase {
            SourcePhase::Prepared => {
                row.root == Some(self.root.0)
                    && row.routing_address == Some(self.promise.routing_address.to_string())
                    && row.legacy_exchange_dn.as_deref() == Some(self.promise.target_legacy_exchange_dn.as_str())
            }
            SourcePhase::Locked | SourcePhase::Committed | SourcePhase::Aborted | SourcePhase::Lapsed => true,
        }
    }
}

/// What trust asks of the routing address and the LegacyExchangeDN before the source promises to stamp them.
async fn check_addresses(tx: &mut Tx, ctx: &VerbContext, facts: &Facts, promise: &Promise) -> Result<(), ProxyError> {
    let no = |text: String| ProxyError::refused(ErrorId::RoutingAddressNotAccepted, text);
    let domain = promise.routing_address.domain();
    let published = facts
        .principal
        .as_ref()
        .is_some_and(|p| p.home_domains.iter().any(|d| d.eq_ignore_ascii_case(domain.as_str())));
    if !published {
        return Err(no(format!(
            "{domain} is not a domain that the target organisation published when consent was given."
        )));
    }
    if tx
        .accepted_domain_list(ctx.tenant)
        .await?
        .iter()
        .any(|d| d.name == *domain)
    {
        return Err(no(format!(
            "{domain} is an accepted domain of the source organisation."
        )));
    }
    let dn = &promise.target_legacy_exchange_dn;
    let own = facts.recipient.as_ref().map(|r| r.id);
    let promised = tx.source_promise_names(ctx.tenant, dn.as_str(), ctx.mailbox).await?;
    if promised || others_answer_for(tx, ctx.tenant, dn, own).await? {
        return Err(ProxyError::refused(
            ErrorId::LegacyExchangeDnNotAccepted,
            format!("{dn} belongs to another recipient of the source organisation."),
        ));
    }
    Ok(())
}

/// Whether a recipient other than `own` has this LegacyExchangeDN or answers for it.
async fn others_answer_for(
    tx: &mut Tx,
    tenant: TenantId,
    dn: &LegacyExchangeDn,
    own: Option<RecipientId>,
) -> Result<bool, StoreError> {
    let mut holders = tx.recipients_by_legacy_exchange_dn(tenant, dn.as_str()).await?;
    holders.extend(tx.recipient_by_proxy(tenant, &dn.as_x500().key()).await?);
    Ok(holders.iter().any(|r| Some(r.id) != own))
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

fn probe_error(address: &SmtpAddress, error: &ProbeError) -> ProxyError {
    tracing::warn!(
        error = crate::error_chain(error),
        "a routing address could not be probed"
    );
    ProxyError {
        id: ErrorId::RoutingAddressNotAccepted,
        message: format!("The next hop of {address} could not be reached from the source: {error}."),
        retry_after: Some(60),
    }
}

/// Reads the exceptions; each must be of a known kind and approved at the target.
fn exceptions_from(bodies: &[ExceptionBody]) -> Result<Vec<Exception>, ProxyError> {
    bodies
        .iter()
        .map(|body| {
            if !body.approved {
                return Err(ProxyError::refused(
                    ErrorId::SkippedItemsNotApproved,
                    format!(
                        "Item {} of folder {} differs and was not approved at the target.",
                        body.uid,
                        body.folder.join("/")
                    ),
                ));
            }
            body.read().ok_or_else(|| {
                ProxyError::refused(
                    ErrorId::ParameterBinding,
                    format!(
                        "The exception of item {} of folder {} cannot be read.",
                        body.uid,
                        body.folder.join("/")
                    ),
                )
            })
        })
        .collect()
}

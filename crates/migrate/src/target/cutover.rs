//! The cutover at the target: one attempt, stored before Lock is sent, with one outcome for ever.

use super::{
    catch_up::is_catching_up,
    mover::Turn,
    partner::{Connected, MailboxRef, PartnerError, SourceProxy},
    receipt::{Reasons, reasons},
    reports::stated_reason,
    returning::came_back,
    trouble::{Trouble, guid_changed},
    worker::AbortOnDrop,
};
use crate::protocol::{ExceptionBody, OpenAnswer, PrepareRequest};
use base64::{Engine, engine::general_purpose::STANDARD};
use rehome_domain::{
    consistency::Assessment,
    conversion::{Place as NewPlace, mail_user_to_mailbox},
    cutover::{
        ClosingStep, SourceStatus, TargetEvent, TargetPhase, TargetStep, closing_step, target_next, target_step,
        unanswered_prepare_step,
    },
    error_id::{ErrorId, Problem},
    id::{AttemptId, CorrelationId},
    readiness::no_delivery_address,
    recipient::{Recipient, RecipientKind},
};
use rehome_mailbox::Retry;
use rehome_platform::Place;
use rehome_replicate::{PassKind, ReportKind, SkippedItems, TargetRoot};
use rehome_store::{AuditEntry, TargetAttempt};
use std::{sync::Arc, time::Duration};

/// The lease is renewed when this share of it is left.
const RENEW_DIVISOR: u32 = 3;

pub(super) fn illegal(error: &rehome_domain::cutover::IllegalTargetEvent) -> Trouble {
    Trouble::of(
        Problem::new(ErrorId::Unexpected, format!("{error}."), ""),
        Retry::After(60),
    )
}

impl Turn {
    /// Takes the cutover to its end, or undoes it and says why.
    pub(super) async fn complete(&mut self) -> Result<(), Trouble> {
        let mut tx = self.target.inner.store.read().await?;
        let newest = tx.attempt_newest(self.user.tenant, self.user.id).await?;
        drop(tx);
        let step = target_step(newest.as_ref().map(|attempt| attempt.phase));
        self.catches_up = newest.as_ref().is_some_and(|attempt| is_catching_up(attempt.phase));
        match (step, newest) {
            (TargetStep::Commit | TargetStep::Complete, Some(attempt)) => {
                // Shown whether or not the source can be reached: from the decision on, mail belongs here.
                self.show(&attempt).await?;
                let (connected, mailbox) = self.connect().await?;
                self.finish(&connected, mailbox, attempt).await
            }
            // What is undecided is aborted where the administrator stops it.
            (TargetStep::Resume, Some(attempt)) if attempt.phase == TargetPhase::Closing && self.is_to_stop() => {
                let id = attempt.id;
                self.record_abort(attempt).await?;
                let (connected, mailbox) = self.connect().await?;
                tell_abort(&connected, mailbox, id).await;
                Ok(())
            }
            (TargetStep::Resume, Some(attempt)) => match self.connect().await {
                Ok((connected, mailbox)) => self.resume_closing(&connected, mailbox, attempt).await,
                Err(Trouble::Problems {
                    problems,
                    retry: Retry::Never,
                    correlation,
                }) => {
                    // Without an administrator the source stays out of reach, and its mailbox closed: it learns of the
                    // abort from our outcome address.
                    self.record_abort(attempt).await?;
                    Err(Trouble::Problems {
                        problems,
                        retry: Retry::Never,
                        correlation,
                    })
                }
                Err(trouble) => Err(trouble),
            },
            (TargetStep::CatchUp, _) => self.catch_up().await,
            (TargetStep::Begin, _) | (TargetStep::Commit | TargetStep::Complete | TargetStep::Resume, None) => {
                let (connected, mailbox) = self.connect().await?;
                self.attempt(&connected, mailbox).await
            }
        }
    }

    /// A new attempt, from the pass before the lock to the end.
    pub(super) async fn attempt(&mut self, connected: &Connected, mailbox: MailboxRef) -> Result<(), Trouble> {
        if let Err(trouble) = self.before_lock(connected, mailbox).await {
            if matches!(
                trouble,
                Trouble::Problems {
                    retry: Retry::Now | Retry::After(_),
                    ..
                }
            ) {
                self.defer()?;
            }
            return Err(trouble);
        }
        let attempt = self.begin().await?;
        let requests_before = connected.proxy.traffic().requests;
        let outcome = self.close(connected, mailbox, attempt.clone()).await;
        self.user.figures.lock_round_trips = connected.proxy.traffic().requests - requests_before;
        self.settle(connected, mailbox, attempt, outcome).await
    }

    /// Outside the lock: the gate, whatever changed since the last sync (so that little is left for the final pass), approvals.
    async fn before_lock(&mut self, connected: &Connected, mailbox: MailboxRef) -> Result<(), Trouble> {
        let answer = self.open_source(connected, mailbox).await?;
        self.check_locks(&answer).await?;
        self.note_return_right(&answer, connected).await?;
        self.fill_return(connected, mailbox).await?;
        let contents = self.contents().await?;
        let importer = self
            .pass(
                connected.proxy.link(mailbox),
                contents,
                PassKind::Incremental,
                SkippedItems::Leave,
            )
            .await?;
        self.check_approvals(&importer).await.map(drop)
    }

    /// An attempt found Closing after a restart: the source says how far it got.
    async fn resume_closing(
        &mut self,
        connected: &Connected,
        mailbox: MailboxRef,
        attempt: TargetAttempt,
    ) -> Result<(), Trouble> {
        let status = match connected.proxy.status(mailbox, attempt.id).await {
            Ok(answer) => SourceStatus::from_wire(&answer.phase),
            // It does not know the attempt, or refuses to.
            Err(error) if error.retry == Retry::Never => SourceStatus::Aborted,
            Err(error) => return Err(error.into()),
        };
        let outcome = match closing_step(status, attempt.root.is_some()) {
            ClosingStep::Decide => Ok(attempt.clone()),
            ClosingStep::Close => self.close(connected, mailbox, attempt.clone()).await,
            ClosingStep::Abort => Err(Trouble::of(
                Problem::new(
                    ErrorId::LeaseLapsed,
                    "The cutover was interrupted and its lock has ended at the source; nothing was decided.",
                    "",
                ),
                Retry::Now,
            )),
        };
        self.settle(connected, mailbox, attempt, outcome).await
    }

    /// Decides when the source has promised, else records the abort before it is sent.
    async fn settle(
        &mut self,
        connected: &Connected,
        mailbox: MailboxRef,
        attempt: TargetAttempt,
        outcome: Result<TargetAttempt, Trouble>,
    ) -> Result<(), Trouble> {
        match outcome {
            Ok(prepared) => match self.decide(prepared).await {
                Ok(decided) => self.finish(connected, mailbox, decided).await,
                Err(Trouble::Problems {
                    problems,
                    retry,
                    correlation,
                }) => {
                    self.abort(connected, mailbox, attempt).await?;
                    Err(Trouble::Problems {
                        problems,
                        retry,
                        correlation,
                    })
                }
                Err(trouble) => Err(trouble),
            },
            Err(trouble) => {
                self.abort(connected, mailbox, attempt).await?;
                match trouble {
                    // Fails as a completion; a fresh start begins a new attempt.
                    Trouble::Problems {
                        retry: Retry::Never, ..
                    }
                    | Trouble::Store(_) => Err(trouble),
                    Trouble::Problems {
                        retry: Retry::Now | Retry::After(_),
                        ..
                    } => {
                        self.defer()?;
                        Err(trouble)
                    }
                    Trouble::Rest => {
                        self.defer()?;
                        self.user.next_run = self.now();
                        self.save("target.deferred").await?;
                        Err(Trouble::Rest)
                    }
                }
            }
        }
    }

    /// Where nothing keeps the mailbox quiet, someone must have accepted that.
    async fn check_locks(&self, source: &OpenAnswer) -> Result<(), Trouble> {
        let platforms = &self.target.inner.platforms;
        let locks = super::availability::locks(source, platforms.lock_method(platforms.default_platform()?)?);
        let mut tx = self.target.inner.store.read().await?;
        let accepted = tx
            .unlocked_is_accepted(self.user.tenant, self.user.batch, self.user.id)
            .await?;
        match locks.problem(&self.user.email_address, accepted) {
            Some(problem) => Err(Trouble::of(problem, Retry::After(60))),
            None => Ok(()),
        }
    }

    /// Stores a new attempt, before Lock is sent.
    async fn begin(&self) -> Result<TargetAttempt, Trouble> {
        let mut key = vec![0u8; 32];
        let mut id = [0u8; 16];
        for bytes in [&mut key[..], &mut id[..]] {
            aws_lc_rs::rand::fill(bytes).map_err(|_| {
                Trouble::of(
                    Problem::new(ErrorId::Unexpected, "The system gives no random numbers.", ""),
                    Retry::After(60),
                )
            })?;
        }
        let id = AttemptId::from_u128(u128::from_be_bytes(id));
        let mut tx = self.target.inner.store.write().await?;
        tx.move_check_fence(self.user.tenant, self.user.id, self.user.fence)
            .await?;
        let newest = tx.attempt_newest(self.user.tenant, self.user.id).await?;
        let phase =
            target_next(newest.as_ref().map(|a| (a.id, a.phase)), id, TargetEvent::Begin).map_err(|e| illegal(&e))?;
        // A catch-up attempt's mailbox is where the decision put it.
        let (platform, location) = newest.map_or((None, None), |newest| (newest.platform, newest.location));
        let attempt = TargetAttempt {
            id,
            tenant: self.user.tenant,
            move_id: self.user.id,
            phase,
            fence: self.user.fence,
            begun: self.now(),
            root: None,
            exceptions: None,
            routing_address: None,
            legacy_exchange_dn: None,
            outcome_key: key,
            decided: None,
            done: None,
            lock_milliseconds: None,
            platform,
            location,
        };
        tx.attempt_insert(&attempt).await?;
        tx.audit_append(
            self.user.tenant,
            &self.entry(self.named("Begin cutover", "Begin catch-up"), &attempt),
        )
        .await?;
        tx.commit("target.begin").await?;
        Ok(attempt)
    }

    /// Lock, final pass, verification, Prepare. `Ok` means that the source has promised.
    async fn close(
        &mut self,
        connected: &Connected,
        mailbox: MailboxRef,
        attempt: TargetAttempt,
    ) -> Result<TargetAttempt, Trouble> {
        let granted = connected
            .proxy
            .lock(mailbox, attempt.id)
            .await
            .map_err(attempt_trouble)?;
        let _renewing = AbortOnDrop(tokio::spawn(keep_lock(
            Arc::clone(&connected.proxy),
            mailbox,
            attempt.id,
            granted.lease_milliseconds,
        )));
        self.close_locked(connected, mailbox, attempt).await
    }

    async fn close_locked(
        &mut self,
        connected: &Connected,
        mailbox: MailboxRef,
        attempt: TargetAttempt,
    ) -> Result<TargetAttempt, Trouble> {
        let contents = self.contents().await?;
        let importer = self
            .pass(
                connected.proxy.link(mailbox),
                contents,
                PassKind::Final,
                SkippedItems::Leave,
            )
            .await?;
        self.check_approvals(&importer).await?;
        let root = if self.catches_up {
            importer.carried_root().await?
        } else {
            importer.target_root().await?
        };
        // Flags and dates are compared only now.
        let assessment = self.check_approvals(&importer).await?;
        let recipient = self.recipient().await?;
        let reasons = reasons(&importer, &root).await?;
        let (attempt, request) = self
            .store_prepare(attempt, &recipient, (&root, reasons, assessment))
            .await?;
        match connected.proxy.prepare(mailbox, &request).await {
            Ok(_) => Ok(attempt),
            Err(error) if error.retry == Retry::Never => Err(attempt_trouble(error)),
            // The answer may have been lost: the source says whether it has promised.
            Err(error) => match connected.proxy.status(mailbox, attempt.id).await {
                Ok(status) => match unanswered_prepare_step(Some(SourceStatus::from_wire(&status.phase))) {
                    ClosingStep::Decide => Ok(attempt),
                    ClosingStep::Close | ClosingStep::Abort => Err(prepare_trouble(error)),
                },
                Err(_) => Err(prepare_trouble(error)),
            },
        }
    }

    /// Stores what Prepare will say, before it is sent, so that a restart knows it.
    async fn store_prepare(
        &self,
        mut attempt: TargetAttempt,
        recipient: &Recipient,
        (root, mut reasons, assessment): (&TargetRoot, Reasons, Assessment),
    ) -> Result<(TargetAttempt, PrepareRequest), Trouble> {
        let domain = self.batch.target_delivery_domain.as_ref().ok_or_else(|| {
            let text = "The batch has no TargetDeliveryDomain, so that its source cannot forward.";
            Trouble::of(Problem::new(ErrorId::InvalidOperation, text, ""), Retry::Never)
        })?;
        let routing_address = recipient
            .address_in(domain)
            .ok_or_else(|| Trouble::of(no_delivery_address(recipient, domain), Retry::Never))?;
        let exceptions: Vec<ExceptionBody> = root
            .exceptions
            .iter()
            .map(|e| ExceptionBody {
                approved: true,
                reason: stated_reason(&assessment, e.kind, reasons.remove(&(e.folder.clone(), e.uid, e.kind))),
                ..e.into()
            })
            .collect();
        attempt.root = Some(root.root.0);
        attempt.exceptions = Some(serde_json::json!(exceptions).to_string());
        attempt.routing_address = Some(routing_address.to_string());
        attempt.legacy_exchange_dn = Some(recipient.legacy_exchange_dn.to_string());
        let mut tx = self.target.inner.store.write().await?;
        tx.move_check_fence(self.user.tenant, self.user.id, self.user.fence)
            .await?;
        tx.attempt_update(&attempt, attempt.phase).await?;
        tx.commit("target.prepare").await?;
        let request = PrepareRequest {
            attempt: attempt.id.to_string(),
            root: root.root.to_string(),
            exceptions,
            read_back: self.target.inner.settings.read_back,
            routing_address: routing_address.to_string(),
            legacy_exchange_dn: recipient.legacy_exchange_dn.to_string(),
            outcome_key: STANDARD.encode(&attempt.outcome_key),
        };
        Ok((attempt, request))
    }

    /// The commit point: mail user becomes mailbox and the decision is recorded, in one transaction, conditional on
    /// Closing of this attempt and on the fencing number.
    async fn decide(&self, mut attempt: TargetAttempt) -> Result<TargetAttempt, Trouble> {
        if attempt.phase == TargetPhase::CatchingUp {
            return self.decide_catch_up(attempt).await;
        }
        let inner = &self.target.inner;
        let now = self.now();
        let exchange_guid = self.exchange_guid()?;
        let place = self.new_place().await?;
        if !inner.platforms.is_staged(&place, self.user.id).await? {
            return Err(Trouble::of(
                Problem::new(
                    ErrorId::MailboxPlatform,
                    format!(
                        "What was copied is not on platform '{}', where the mailbox would be now; nothing was decided.",
                        place.platform
                    ),
                    "Was default_platform changed in the configuration of this deployment? The mailbox is copied again to the new one.",
                ),
                Retry::After(60),
            ));
        }
        let Place { platform, location, .. } = place;
        let mut tx = inner.store.write().await?;
        tx.move_check_fence(self.user.tenant, self.user.id, self.user.fence)
            .await?;
        let newest = tx.attempt_newest(self.user.tenant, self.user.id).await?;
        let phase =
            target_next(newest.map(|a| (a.id, a.phase)), attempt.id, TargetEvent::Decide).map_err(|e| illegal(&e))?;
        let recipient = match self.user.recipient {
            Some(id) => tx.recipient_get(self.user.tenant, id).await?,
            None => None,
        };
        let mail_user = recipient
            .filter(|r| matches!(r.kind, RecipientKind::MailUser(_)))
            .ok_or_else(|| {
                Trouble::of(
                    Problem::new(
                        ErrorId::MigrationPermanent,
                        "The mail user was changed or removed during the cutover.",
                        "",
                    ),
                    Retry::After(60),
                )
            })?;
        if mail_user.exchange_guid() != Some(exchange_guid) {
            return Err(guid_changed(&self.user.email_address));
        }
        let place = NewPlace {
            platform: platform.clone(),
            location: location.clone(),
            max_receive_size: inner.settings.max_receive_size,
        };
        tx.recipient_update(
            self.user.tenant,
            &mail_user_to_mailbox(&mail_user, exchange_guid, place, now),
        )
        .await?;
        if let Some(row) = &self.returning {
            came_back(&mut tx, row, now).await?;
        }
        attempt.phase = phase;
        attempt.fence = self.user.fence;
        attempt.decided = Some(now);
        attempt.platform = Some(platform);
        attempt.location = Some(location);
        tx.attempt_update(&attempt, TargetPhase::Closing).await?;
        tx.audit_append(self.user.tenant, &self.entry("Decide cutover", &attempt))
            .await?;
        tx.commit("target.decide").await?;
        Ok(attempt)
    }

    /// Gives an undecided attempt up: recorded first, then told. A source that is not reached asks by itself.
    async fn abort(&self, connected: &Connected, mailbox: MailboxRef, attempt: TargetAttempt) -> Result<(), Trouble> {
        let id = attempt.id;
        self.record_abort(attempt).await?;
        tell_abort(connected, mailbox, id).await;
        Ok(())
    }

    async fn record_abort(&self, attempt: TargetAttempt) -> Result<(), Trouble> {
        let mut tx = self.target.inner.store.write().await?;
        tx.move_check_fence(self.user.tenant, self.user.id, self.user.fence)
            .await?;
        let newest = tx.attempt_newest(self.user.tenant, self.user.id).await?;
        let phase = target_next(newest.as_ref().map(|a| (a.id, a.phase)), attempt.id, TargetEvent::Abort)
            .map_err(|e| illegal(&e))?;
        // As stored: it may hold the root and addresses that Prepare was sent with.
        let mut aborted = newest.unwrap_or(attempt);
        let from = aborted.phase;
        aborted.phase = phase;
        aborted.decided = Some(self.now());
        tx.attempt_update(&aborted, from).await?;
        tx.audit_append(
            self.user.tenant,
            &self.entry(self.named("Abort cutover", "Abort catch-up"), &aborted),
        )
        .await?;
        tx.commit("target.abort").await?;
        Ok(())
    }

    pub(super) fn entry(&self, action: &str, attempt: &TargetAttempt) -> AuditEntry {
        AuditEntry {
            at: self.now(),
            caller: "service".into(),
            origin: "local".into(),
            action: action.into(),
            object: self.user.email_address.clone(),
            parameters: serde_json::json!({"attempt": attempt.id.to_string(), "move": self.user.id.to_string()}),
            result: "ok".into(),
            correlation_id: CorrelationId(uuid::Uuid::new_v4()),
        }
    }
}

pub(super) fn is_exception(kind: ReportKind) -> bool {
    match kind {
        ReportKind::Skipped | ReportKind::Altered | ReportKind::Flags | ReportKind::Date => true,
        ReportKind::LineEnds | ReportKind::Keywords | ReportKind::Double => false,
    }
}

async fn tell_abort(connected: &Connected, mailbox: MailboxRef, attempt: AttemptId) {
    if let Err(error) = connected.proxy.abort(mailbox, attempt).await {
        tracing::warn!(%error, %attempt, "the source was not told of the abort; its lease ends, or it asks for the outcome");
    }
}

/// An attempt that lapsed, or that the source does not know as the newest one yet, is given up and another one begun;
/// every other refusal is as the source says.
fn attempt_trouble(error: PartnerError) -> Trouble {
    if matches!(error.problem.id, ErrorId::LeaseLapsed | ErrorId::StaleAttempt) {
        prepare_trouble(error)
    } else {
        error.into()
    }
}

/// A Prepare that was not answered leaves the source Locked at most until its lease ends.
fn prepare_trouble(error: PartnerError) -> Trouble {
    Trouble::Problems {
        problems: vec![error.problem],
        retry: Retry::After(5),
        correlation: error.correlation,
    }
}

/// Renews the lock's lease until it is aborted.
async fn keep_lock(proxy: Arc<dyn SourceProxy>, mailbox: MailboxRef, attempt: AttemptId, lease_milliseconds: u64) {
    let mut lease = Duration::from_millis(lease_milliseconds);
    loop {
        tokio::time::sleep((lease / RENEW_DIVISOR).max(Duration::from_millis(200))).await;
        match proxy.renew(mailbox, attempt).await {
            Ok(answer) => lease = Duration::from_millis(answer.lease_milliseconds),
            Err(error) => {
                tracing::warn!(%error, %attempt, "the lock's lease could not be renewed");
                lease = Duration::from_secs(3);
            }
        }
    }
}

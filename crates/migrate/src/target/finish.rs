//! After the decision: the new mailbox is shown, the source commits, and late items are looked for.

use super::{
    cutover::illegal,
    mover::Turn,
    partner::{Connected, MailboxRef},
    sweeps::plan,
    trouble::Trouble,
};
use rehome_domain::{
    conversion::with_mailbox_state,
    cutover::{TargetEvent, TargetPhase, target_next},
    error_id::{ErrorId, Problem},
    moves::UserEvent,
    recipient::MailboxState,
};
use rehome_mailbox::Retry;
use rehome_platform::Place;
use rehome_store::TargetAttempt;

impl Turn {
    /// After the decision: commit at the source, show the new mailbox, look once for late items. All of it is repeated until it worked.
    pub(super) async fn finish(
        &mut self,
        connected: &Connected,
        mailbox: MailboxRef,
        attempt: TargetAttempt,
    ) -> Result<(), Trouble> {
        let requests_before = connected.proxy.traffic().requests;
        let (shown, committed) = tokio::join!(self.show(&attempt), self.commit(connected, mailbox, attempt.clone()));
        let place = shown?;
        let Some(done) = committed? else {
            return self.reopened(attempt).await;
        };
        self.user.figures.lock_round_trips += connected.proxy.traffic().requests - requests_before;
        self.user.figures.lock_milliseconds = done.lock_milliseconds;
        // Before a sweep adds to the ledger what the root was not over.
        self.make_receipt(connected, mailbox, &done).await;
        let sweeps = self.first_sweep(connected, mailbox, done.id, &place).await?;
        self.user.figures.bytes_on_wire += connected.proxy.traffic().octets_received;
        let warnings = self.user.figures.swept_items > 0 || done.exceptions.as_deref().is_some_and(|e| e != "[]");
        self.event(UserEvent::Completed { warnings })?;
        self.user.waiting_for.clear();
        self.user.problems.clear();
        self.user.failures = 0;
        self.user.last_sync = Some(self.now());
        let mut tx = self.target.inner.store.write().await?;
        tx.move_save_work(&self.user).await?;
        if let Some(sweeps) = sweeps {
            tx.sweeps_put(&sweeps).await?;
        }
        tx.commit("target.completed").await?;
        Ok(())
    }

    pub(super) async fn show(&self, attempt: &TargetAttempt) -> Result<Place, Trouble> {
        let (Some(platform), Some(location)) = (attempt.platform.clone(), attempt.location.clone()) else {
            return Err(Trouble::of(
                Problem::new(
                    ErrorId::Unexpected,
                    "The decided attempt has no place for its mailbox.",
                    "",
                ),
                Retry::After(60),
            ));
        };
        let place = Place {
            exchange_guid: self.exchange_guid()?,
            platform,
            location,
        };
        self.target.inner.platforms.show(&place, self.user.id).await?;
        let mut tx = self.target.inner.store.write().await?;
        let now = self.now();
        if let Some(id) = self.user.recipient
            && let Some(recipient) = tx.recipient_get(self.user.tenant, id).await?
            && recipient
                .mailbox()
                .is_some_and(|m| m.state == MailboxState::NotYetShown)
            && let Some(open) = with_mailbox_state(&recipient, MailboxState::Open, now)
        {
            tx.recipient_update(self.user.tenant, &open).await?;
            tx.commit("target.shown").await?;
        }
        Ok(place)
    }

    /// Says Commit and records the answer; none where the source's administrator has opened the mailbox again by hand.
    async fn commit(
        &self,
        connected: &Connected,
        mailbox: MailboxRef,
        mut attempt: TargetAttempt,
    ) -> Result<Option<TargetAttempt>, Trouble> {
        if attempt.phase == TargetPhase::Done {
            return Ok(Some(attempt));
        }
        let answer = match connected.proxy.commit(mailbox, attempt.id).await {
            Ok(answer) => answer,
            Err(error) if error.problem.id == ErrorId::MailboxReopened => return Ok(None),
            Err(error) => {
                return Err(match Trouble::from(error) {
                    // The decision stands whatever the source says; it is told again until it has answered.
                    Trouble::Problems {
                        problems,
                        retry: Retry::Never,
                        correlation,
                    } => {
                        tracing::error!(attempt = %attempt.id, "ALERT: the source refuses a decided commit; it is asked again every minute");
                        Trouble::Problems {
                            problems,
                            retry: Retry::After(60),
                            correlation,
                        }
                    }
                    other => other,
                });
            }
        };
        let from = attempt.phase;
        attempt.phase = target_next(
            Some((attempt.id, attempt.phase)),
            attempt.id,
            TargetEvent::CommitAnswered,
        )
        .map_err(|e| illegal(&e))?;
        let now = self.now();
        attempt.done = Some(now);
        attempt.lock_milliseconds = Some(answer.lock_milliseconds);
        let mut tx = self.target.inner.store.write().await?;
        tx.attempt_update(&attempt, from).await?;
        tx.sweeps_put(&plan(&attempt, &answer, now)).await?;
        self.record_commit(&mut tx, connected.tenant, attempt.id, answer.retention_until)
            .await?;
        tx.audit_append(self.user.tenant, &self.entry("Committed cutover", &attempt))
            .await?;
        tx.commit("target.done").await?;
        Ok(Some(attempt))
    }
}

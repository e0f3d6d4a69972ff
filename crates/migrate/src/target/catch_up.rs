//! Catching up: the move was decided, but its source had opened its mailbox again by hand. The decision stands, the mailbox
//! here stays in use throughout, and what came to the source since is added with an attempt of its own.

use super::{cutover::illegal, mover::Turn, trouble::Trouble};
use rehome_domain::{
    cutover::{TargetEvent, TargetPhase, target_next},
    error_id::{ErrorId, Problem},
    moves::UserEvent,
};
use rehome_mailbox::{Mailbox, Retry};
use rehome_platform::Place;
use rehome_store::TargetAttempt;
use std::sync::Arc;

/// What a user waits for who is caught up.
const WAITING: &str = "a catch-up: the source's administrator had opened the mailbox again by hand";

/// Whether the move was decided and its source is still to be caught up with, told from the newest attempt.
pub(super) fn is_catching_up(phase: TargetPhase) -> bool {
    match phase {
        TargetPhase::Reopened | TargetPhase::CatchingUp | TargetPhase::CatchUpAborted => true,
        TargetPhase::Closing | TargetPhase::Aborted | TargetPhase::Decided | TargetPhase::Done => false,
    }
}

impl Turn {
    /// A new catch-up attempt, from the pass before the lock to the end. What stands in its way is tried again until it
    /// worked: there are two mailboxes meanwhile.
    pub(super) async fn catch_up(&mut self) -> Result<(), Trouble> {
        if self.user.waiting_for != WAITING {
            WAITING.clone_into(&mut self.user.waiting_for);
            self.save("target.catches_up").await?;
        }
        let (connected, mailbox) = self.connect().await?;
        self.attempt(&connected, mailbox).await
    }

    /// An attempt came to nothing and is made again later. A user whose move is decided stays in completion.
    pub(super) fn defer(&mut self) -> Result<(), Trouble> {
        if self.catches_up {
            return Ok(());
        }
        self.event(UserEvent::CompletionDeferred)
    }

    /// One of two names, for the audit log.
    pub(super) fn named(&self, cutover: &'static str, catch_up: &'static str) -> &'static str {
        if self.catches_up { catch_up } else { cutover }
    }

    /// Where the contents go: hidden before the decision, into the mailbox as it is now after it.
    pub(super) async fn contents(&self) -> Result<Arc<dyn Mailbox>, Trouble> {
        if !self.catches_up {
            return self.staging().await;
        }
        let recipient = self.recipient().await?;
        let place = recipient.mailbox().map(Place::from).ok_or_else(|| {
            Trouble::of(
                Problem::new(
                    ErrorId::MigrationPermanent,
                    format!(
                        "'{}' is not a mailbox any more, so nothing can be added to it.",
                        recipient.name
                    ),
                    "Make his mailbox again with its ExchangeGuid; what came to the source is still there.",
                ),
                Retry::After(60),
            )
        })?;
        Ok(self.target.inner.platforms.open(&place).await?)
    }

    /// The source has promised for a catch-up attempt: recorded before Commit is sent. The mailbox is one already.
    pub(super) async fn decide_catch_up(&self, mut attempt: TargetAttempt) -> Result<TargetAttempt, Trouble> {
        let mut tx = self.target.inner.store.write().await?;
        tx.move_check_fence(self.user.tenant, self.user.id, self.user.fence)
            .await?;
        let newest = tx.attempt_newest(self.user.tenant, self.user.id).await?;
        let from = attempt.phase;
        attempt.phase =
            target_next(newest.map(|a| (a.id, a.phase)), attempt.id, TargetEvent::Decide).map_err(|e| illegal(&e))?;
        attempt.fence = self.user.fence;
        attempt.decided = Some(self.now());
        tx.attempt_update(&attempt, from).await?;
        tx.audit_append(self.user.tenant, &self.entry("Decide catch-up", &attempt))
            .await?;
        tx.commit("target.decide_catch_up").await?;
        Ok(attempt)
    }

    /// The source had opened its mailbox again by hand: recorded, so that a catch-up follows.
    pub(super) async fn reopened(&mut self, mut attempt: TargetAttempt) -> Result<(), Trouble> {
        let from = attempt.phase;
        attempt.phase = target_next(
            Some((attempt.id, attempt.phase)),
            attempt.id,
            TargetEvent::ReopenedAnswered,
        )
        .map_err(|e| illegal(&e))?;
        tracing::warn!(attempt = %attempt.id, move_id = %self.user.id, user = self.user.email_address, "ALERT: the source's administrator had opened the mailbox again by hand; there are two until what came there is caught up");
        WAITING.clone_into(&mut self.user.waiting_for);
        self.user.problems.clear();
        self.user.next_run = self.now();
        let mut tx = self.target.inner.store.write().await?;
        tx.attempt_update(&attempt, from).await?;
        tx.move_save_work(&self.user).await?;
        tx.audit_append(self.user.tenant, &self.entry("Reopened by the source", &attempt))
            .await?;
        tx.commit("target.reopened").await?;
        Ok(())
    }
}

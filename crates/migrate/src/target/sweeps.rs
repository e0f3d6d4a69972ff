//! Sweeps: what came to the source after Prepare's listing is appended to the mailbox that has moved. One is made with
//! Commit, one an hour later, then one a day until the source's retention ends.

use super::{
    mover::Turn,
    partner::{Connected, MailboxRef},
    trouble::Trouble,
};
use crate::protocol::CommitAnswer;
use jiff::Timestamp;
use rehome_domain::{
    error_id::{ErrorId, Problem},
    id::AttemptId,
    sweep::{ends_sweeps, next_sweep, next_try},
};
use rehome_mailbox::Retry;
use rehome_platform::Place;
use rehome_store::{AuditEntry, Sweeps, TargetAttempt};
use std::sync::Arc;

/// The plan that follows from the source's answer to Commit.
pub(super) fn plan(attempt: &TargetAttempt, answer: &CommitAnswer, now: Timestamp) -> Sweeps {
    // A source that keeps nothing, or says nothing that is a time, is not swept.
    let retention_until = Timestamp::from_millisecond(answer.retention_until).unwrap_or(now);
    Sweeps {
        tenant: attempt.tenant,
        move_id: attempt.move_id,
        attempt: attempt.id,
        committed: now,
        retention_until,
        next: next_sweep(now, now, retention_until),
        done: 0,
        last: None,
        problem: None,
    }
}

/// The plan after a sweep: what it brought, or what stood in its way.
fn after(plan: Sweeps, outcome: &Result<u64, Problem>, now: Timestamp) -> Sweeps {
    match outcome {
        Ok(_) => Sweeps {
            next: next_sweep(plan.committed, now, plan.retention_until),
            done: plan.done + 1,
            last: Some(now),
            problem: None,
            ..plan
        },
        Err(problem) => Sweeps {
            next: next_try(now, plan.retention_until).filter(|_| !ends_sweeps(problem.id)),
            problem: Some(format!("{}: {}", problem.id, problem.message)),
            ..plan
        },
    }
}

impl Turn {
    /// The sweep that comes with Commit. What the source refuses for good is written down, and not waited for.
    ///
    /// # Errors
    /// A passing failure; the sweep is made again.
    pub(super) async fn first_sweep(
        &mut self,
        connected: &Connected,
        mailbox: MailboxRef,
        attempt: AttemptId,
        place: &Place,
    ) -> Result<Option<Sweeps>, Trouble> {
        let outcome = match self.sweep(connected, mailbox, attempt, place).await {
            Ok(found) => Ok(found),
            Err(Trouble::Problems {
                mut problems,
                retry: Retry::Never,
                ..
            }) if !problems.is_empty() => Err(problems.swap_remove(0)),
            Err(trouble) => return Err(trouble),
        };
        let mut tx = self.target.inner.store.read().await?;
        let plan = tx.sweeps_get(self.user.tenant, self.user.id).await?;
        drop(tx);
        Ok(self.swept(plan, &outcome))
    }

    /// Counts what a sweep brought and says what failed; returns what becomes of the plan.
    fn swept(&mut self, plan: Option<Sweeps>, outcome: &Result<u64, Problem>) -> Option<Sweeps> {
        match outcome {
            Ok(found) => self.user.figures.swept_items += found,
            Err(problem) => {
                tracing::warn!(move_id = %self.user.id, user = self.user.email_address, %problem, "no sweep for late items was possible");
            }
        }
        let now = self.now();
        plan.map(|plan| after(plan, outcome, now))
    }

    /// A completed user's turn: the sweep that is due, if one is. His status does not change whatever comes of it.
    pub(super) async fn sweep_again(&mut self) -> Result<(), Trouble> {
        let mut tx = self.target.inner.store.read().await?;
        let plan = tx.sweeps_get(self.user.tenant, self.user.id).await?;
        drop(tx);
        let now = self.now();
        let Some(plan) = plan.filter(|plan| plan.next.is_some_and(|at| at <= now)) else {
            return Ok(());
        };
        let outcome = match self.sweep_to_where_it_is(plan.attempt).await {
            Ok(found) => Ok(found),
            Err(Trouble::Problems { mut problems, .. }) if !problems.is_empty() => Err(problems.swap_remove(0)),
            Err(trouble) => return Err(trouble),
        };
        let Some(plan) = self.swept(Some(plan), &outcome) else {
            return Ok(());
        };
        let mut tx = self.target.inner.store.write().await?;
        tx.move_save_work(&self.user).await?;
        tx.sweeps_put(&plan).await?;
        let found = outcome.as_ref().copied().unwrap_or(0);
        if found > 0 || plan.next.is_none() {
            tx.audit_append(self.user.tenant, &self.sweep_entry(&plan, found))
                .await?;
        }
        tx.commit("target.swept").await?;
        Ok(())
    }

    fn sweep_entry(&self, plan: &Sweeps, found: u64) -> AuditEntry {
        AuditEntry {
            at: self.now(),
            caller: "service".into(),
            origin: "local".into(),
            action: "Sweep".into(),
            object: self.user.email_address.clone(),
            parameters: serde_json::json!({
                "attempt": plan.attempt.to_string(), "move": self.user.id.to_string(), "items": found,
                "next": plan.next.map(|at| at.to_string()), "problem": plan.problem,
            }),
            result: "ok".into(),
            correlation_id: rehome_domain::id::CorrelationId(uuid::Uuid::new_v4()),
        }
    }

    /// Sweeps into the mailbox as it is now: its platform or place may have changed since it moved here.
    async fn sweep_to_where_it_is(&self, attempt: AttemptId) -> Result<u64, Trouble> {
        let recipient = self.recipient().await?;
        let place = recipient.mailbox().map(Place::from);
        let place = place.filter(|place| Some(place.exchange_guid) == self.user.exchange_guid);
        let place = place.ok_or_else(|| {
            Trouble::of(
                // It ends sweeps, as if the source kept nothing any more.
                Problem::new(ErrorId::StaleAttempt, "The mailbox is not here any more.", ""),
                Retry::Never,
            )
        })?;
        let (connected, mailbox) = self.connect().await?;
        self.sweep(&connected, mailbox, attempt, &place).await
    }

    /// One sweep: how many items came late, and are here now. Expected are none.
    async fn sweep(
        &self,
        connected: &Connected,
        mailbox: MailboxRef,
        attempt: AttemptId,
        place: &Place,
    ) -> Result<u64, Trouble> {
        self.exchange_receipts(connected, mailbox, attempt).await;
        let late = connected.proxy.sweep(mailbox, attempt).await?;
        if late.folders.is_empty() {
            return Ok(0);
        }
        let folders = late.read().ok_or_else(|| {
            let text = "The source's answer to the sweep is not one; nothing is swept.";
            Trouble::of(
                Problem::new(ErrorId::MigrationServerConnectionFailed, text, ""),
                Retry::Never,
            )
        })?;
        let served = self.target.inner.platforms.open(place).await?;
        let link = connected.proxy.sweep_link(mailbox, attempt);
        let importer = self.importer(link, served, Arc::new(|_| {}));
        let appended = importer.sweep(&folders).await?.appended;
        self.add_to_receipt(attempt, &folders).await;
        Ok(appended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;
    use rehome_domain::id::{MoveId, TenantId};

    #[test]
    fn what_becomes_of_the_plan() {
        let at = |hours| Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hours);
        let plan = Sweeps {
            tenant: TenantId::from_u128(1),
            move_id: MoveId::from_u128(2),
            attempt: AttemptId::from_u128(3),
            committed: at(0),
            retention_until: at(100),
            next: Some(at(1)),
            done: 1,
            last: Some(at(0)),
            problem: Some("earlier".into()),
        };
        let made = after(plan.clone(), &Ok(2), at(1));
        assert_eq!(
            (made.done, made.last, made.next, made.problem),
            (2, Some(at(1)), Some(at(25)), None)
        );
        let failed = |id| after(plan.clone(), &Err(Problem::new(id, "why", "")), at(1));
        let passing = failed(ErrorId::MigrationServerConnectionFailed);
        assert_eq!((passing.done, passing.next), (1, Some(at(2))));
        let revoked = failed(ErrorId::ApplicationNotConsented);
        assert_eq!((revoked.done, revoked.next), (1, None));
        assert!(
            revoked
                .problem
                .unwrap()
                .contains("ApplicationNotConsentedException: why")
        );
        assert_eq!(after(plan, &Ok(0), at(99)).next, None, "retention ends first");
    }
}

//! What the source does by itself: records lapsed leases, asks for outcomes, redoes effects.

use super::{Source, VerbContext, cutover::store_state};
use crate::protocol::OutcomeRequest;
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use rehome_domain::{
    cutover::{Outcome, SourceAsker, SourceEvent, SourcePhase},
    gate::Caller,
    id::{AttemptId, CorrelationId, RecipientId, TenantId},
    recipient::MailboxState,
};
use rehome_platform::{Place, PlatformError};
use rehome_store::{AuditEntry, SourceAttemptRow, StoreError, Tx};
use std::{
    collections::{HashMap, HashSet},
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// A prepared attempt without an outcome for this long raises an alert.
const ALERT_AFTER: jiff::SignedDuration = jiff::SignedDuration::from_mins(15);

/// Outcome addresses asked at once, and mailboxes opened again at once.
const ASKING_AT_ONCE: usize = 8;

/// Pause after a mailbox could not be opened again.
const REOPEN_PAUSE: Duration = Duration::from_secs(10);

/// Who is being asked, and when each attempt was asked last.
#[derive(Default)]
struct Asking {
    asked: HashMap<AttemptId, Timestamp>,
    running: JoinSet<AttemptId>,
    reopening: JoinSet<()>,
    /// When each mailbox was tried to be opened last, so that those that cannot be keep no other waiting.
    tried: HashMap<Place, Instant>,
    reopened: Arc<Mutex<HashSet<Place>>>,
    /// The removal of old content that is under way.
    removing: JoinSet<()>,
}

/// Why a mailbox could not be opened to its user again.
#[derive(Debug, thiserror::Error)]
enum ReopenError {
    #[error("the state cannot be read")]
    Store(#[from] StoreError),
    #[error("the platform refuses")]
    Platform(#[from] PlatformError),
}

impl Source {
    /// Runs until `shutdown` resolves: every second ends lapsed locks, opens mailboxes whose lock has ended to their users
    /// again, closes moved content, removes what is kept no longer, asks for outcomes of prepared attempts.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut asking = Asking::default();
        loop {
            tokio::select! {
                () = &mut shutdown => return,
                _ = ticks.tick() => {
                    if let Err(error) = self.tend(&mut asking).await {
                        tracing::error!(error = crate::error_chain(&error), "the source could not look at its attempts");
                    }
                    self.reopen(&mut asking).await;
                    while asking.removing.try_join_next().is_some() {}
                    if asking.removing.is_empty() {
                        let source = self.clone();
                        asking.removing.spawn(async move { source.remove_old_content().await });
                    }
                }
            }
        }
    }

    /// Once what [`Source::run`] does every second, and waits until all of it has ended; for whoever has a clock of his own.
    pub async fn round(&self) {
        let mut asking = Asking::default();
        if let Err(error) = self.tend(&mut asking).await {
            tracing::error!(
                error = crate::error_chain(&error),
                "the source could not look at its attempts"
            );
        }
        self.reopen(&mut asking).await;
        while asking.running.join_next().await.is_some() {}
        while asking.reopening.join_next().await.is_some() {}
    }

    async fn tend(&self, asking: &mut Asking) -> Result<(), StoreError> {
        let now = self.inner.clock.now();
        let mut tx = self.inner.store.read().await?;
        let mut rows = tx.source_attempt_list_unfinished(now).await?;
        drop(tx);
        while asking.running.try_join_next().is_some() {}
        asking.asked.retain(|id, _| rows.iter().any(|r| r.attempt.id == *id));
        longest_waiting_first(&mut rows, |row| asking.asked.get(&row.attempt.id).copied());
        // One attempt's failure keeps no other waiting, and a slow outcome address none at all.
        for row in rows {
            match row.attempt.phase {
                SourcePhase::Locked => {
                    if let Err(error) = self.lapse(&row).await {
                        tracing::error!(error = crate::error_chain(&error), attempt = %row.attempt.id, "a lapsed lock could not be recorded yet");
                    }
                }
                SourcePhase::Committed => self.close_content(&row).await,
                SourcePhase::Prepared => {
                    let every = self.inner.settings.ask_outcome_every;
                    let due = asking.asked.get(&row.attempt.id).is_none_or(|at| *at + every <= now);
                    if due && asking.running.len() < ASKING_AT_ONCE {
                        asking.asked.insert(row.attempt.id, now);
                        let source = self.clone();
                        asking.running.spawn(async move {
                            source.ask_outcome(&row, now).await;
                            row.attempt.id
                        });
                    }
                }
                SourcePhase::Aborted
                | SourcePhase::Lapsed
                | SourcePhase::Reopened
                | SourcePhase::Released
                | SourcePhase::Returned => {}
            }
        }
        Ok(())
    }

    /// Lets the users of mailboxes in again that were kept out for a cutover which has ended without Commit: by Abort, by
    /// the lease, or because the mailbox did not become quiet. What is kept out is known to the platform, and whether it
    /// must be to the store, so that this also mends what a crash left.
    async fn reopen(&self, asking: &mut Asking) {
        while asking.reopening.try_join_next().is_some() {}
        let mut denied = match self.inner.platforms.denied().await {
            Ok(denied) => denied,
            Err(error) => {
                tracing::error!(
                    error = crate::error_chain(&error),
                    "it cannot be told who is kept out of his mailbox"
                );
                return;
            }
        };
        asking.tried.retain(|place, _| denied.contains(place));
        longest_waiting_first(&mut denied, |place| asking.tried.get(place).copied());
        for place in denied {
            if asking.reopening.len() >= ASKING_AT_ONCE {
                break;
            }
            // Those whose cutover goes on take no place from others. What counts is asked again below, where nobody else
            // can change it.
            match self.is_open(&place).await {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => {
                    tracing::error!(
                        error = crate::error_chain(&error),
                        "it cannot be told whether a mailbox is open again"
                    );
                    return;
                }
            }
            let mut under_way = asking.reopened.lock().unwrap_or_else(PoisonError::into_inner);
            if !under_way.insert(place.clone()) {
                continue;
            }
            drop(under_way);
            asking.tried.insert(place.clone(), Instant::now());
            let (source, under_way) = (self.clone(), Arc::clone(&asking.reopened));
            asking.reopening.spawn(async move {
                match source.inner.platforms.reopen(&place, source.is_open(&place)).await {
                    Ok(true) => tracing::info!(mailbox = %place.exchange_guid, "the mailbox's user is let in again"),
                    Ok(false) => {}
                    Err(error) => {
                        tracing::error!(error = crate::error_chain(&error), mailbox = %place.exchange_guid, location = place.location, "ALERT: a mailbox whose cutover has ended could not be opened to its user yet");
                        tokio::time::sleep(REOPEN_PAUSE).await;
                    }
                }
                under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&place);
            });
        }
    }

    /// Whether the mailbox at a place is one that its user may use.
    async fn is_open(&self, place: &Place) -> Result<bool, ReopenError> {
        let mut tx = self.inner.store.read().await?;
        let Some((tenant, id)) = self.holder_of(&mut tx, place).await? else {
            return Ok(false);
        };
        let recipient = tx.recipient_get(tenant, id).await?;
        let mailbox = recipient.as_ref().and_then(|recipient| recipient.mailbox());
        Ok(mailbox.is_some_and(|m| m.state == MailboxState::Open && m.exchange_guid == place.exchange_guid))
    }

    async fn lapse(&self, seen: &SourceAttemptRow) -> Result<(), StoreError> {
        let mut tx = self.inner.store.write().await?;
        let now = self.inner.clock.now();
        let Some(mut row) = tx.source_attempt_newest(seen.tenant, seen.exchange_guid).await? else {
            return Ok(());
        };
        let Ok(next) = self.next_state(Some(&row), &asker_of(seen), SourceEvent::Tick, now) else {
            return Ok(());
        };
        if next.phase != SourcePhase::Lapsed || row.attempt.phase == SourcePhase::Lapsed {
            return Ok(());
        }
        row.attempt = next;
        row.ended_at = Some(now);
        store_state(&mut tx, &row, Some(MailboxState::Open), now).await?;
        tx.audit_append(row.tenant, &own_entry(&row, "Lapse", now)).await?;
        tx.commit("source.lapse").await?;
        tracing::warn!(mailbox = %row.exchange_guid, attempt = %row.attempt.id, "a lock's lease ended before Prepare; the mailbox is open again");
        Ok(())
    }

    /// What the target's outcome address says of an attempt, or why it cannot be asked.
    pub(super) async fn ask_target(&self, row: &SourceAttemptRow) -> Result<Outcome, String> {
        let endpoint = self
            .outcome_endpoint(row.tenant, row)
            .await
            .map_err(|error| crate::error_chain(&error))?
            .ok_or("the consent names no outcome address")?;
        let request = OutcomeRequest {
            attempt: row.attempt.id.to_string(),
            key: STANDARD.encode(row.outcome_key.as_deref().unwrap_or_default()),
        };
        let answer = self.inner.outcomes.ask(&endpoint, &request).await?;
        [Outcome::Decided, Outcome::Aborted, Outcome::Undecided]
            .into_iter()
            .find(|outcome| outcome.as_str() == answer.outcome)
            .ok_or_else(|| "the outcome address's answer is none".to_owned())
    }

    async fn ask_outcome(&self, row: &SourceAttemptRow, now: Timestamp) {
        let attempt = row.attempt.id;
        let answer = self.ask_target(row).await;
        let done = match answer {
            Ok(Outcome::Decided) => self
                .commit_attempt(&asker_of(row), row.tenant, &own_context(row))
                .await
                .map(Some),
            Ok(Outcome::Aborted) => self.abort_own(row).await.map(|()| None),
            Ok(Outcome::Undecided) | Err(_) => {
                if row.prepared_at.is_some_and(|at| at + ALERT_AFTER <= now) {
                    tracing::error!(mailbox = %row.exchange_guid, %attempt, error = answer.err().unwrap_or_default(),
                        "ALERT: a prepared mailbox has no outcome for 15 minutes; its mail is deferred. Ask the target's administrator");
                }
                return;
            }
        };
        match done {
            Ok(Some(committed)) => self.close_content(&committed).await,
            Ok(None) => {}
            Err(error) => tracing::error!(%error, %attempt, "an outcome could not be carried out"),
        }
    }

    async fn outcome_endpoint(&self, tenant: TenantId, row: &SourceAttemptRow) -> Result<Option<String>, StoreError> {
        let mut tx = self.inner.store.read().await?;
        let principal = tx.service_principal_get(tenant, row.attempt.service_principal).await?;
        Ok(principal.and_then(|p| p.outcome_endpoint))
    }

    async fn abort_own(&self, seen: &SourceAttemptRow) -> Result<(), super::ProxyError> {
        let mut tx = self.inner.store.write().await?;
        let now = self.inner.clock.now();
        if let Some(mut row) = tx.source_attempt_newest(seen.tenant, seen.exchange_guid).await?
            && let Ok(next) = self.next_state(Some(&row), &asker_of(seen), SourceEvent::Abort, now)
            && next != row.attempt
        {
            row.attempt = next;
            row.ended_at = Some(now);
            store_state(&mut tx, &row, Some(MailboxState::Open), now).await?;
            tx.audit_append(row.tenant, &own_entry(&row, "Abort", now)).await?;
            tx.commit("source.abort").await?;
        }
        Ok(())
    }

    /// Whether a mailbox of today is at this place: one that came back, or another one.
    pub(super) async fn place_in_use(&self, place: &Place) -> Result<bool, StoreError> {
        let mut tx = self.inner.store.read().await?;
        Ok(self.holder_of(&mut tx, place).await?.is_some())
    }

    /// Whose mailbox of today is at this place.
    async fn holder_of(&self, tx: &mut Tx, place: &Place) -> Result<Option<(TenantId, RecipientId)>, StoreError> {
        if self.inner.platforms.takes_no_notice_of_case(&place.platform) {
            tx.mailbox_at_in_any_case(&place.platform, &place.location).await
        } else {
            tx.mailbox_at(&place.platform, &place.location).await
        }
    }

    /// Takes the old content out of service. Comes after its transaction, is idempotent, and is redone until it worked.
    pub(super) async fn close_content(&self, row: &SourceAttemptRow) {
        let (Some(platform), Some(location)) = (&row.platform, &row.location) else {
            return;
        };
        if row.closed {
            return;
        }
        let place = Place {
            exchange_guid: row.exchange_guid,
            platform: platform.clone(),
            location: location.clone(),
        };
        match self.place_in_use(&place).await {
            Ok(false) => {}
            Ok(true) => {
                tracing::error!(mailbox = %row.exchange_guid, location, "ALERT: another mailbox is at the place of moved content, so nothing is closed there; look at it by hand");
                return;
            }
            Err(error) => {
                tracing::error!(
                    error = crate::error_chain(&error),
                    "old content could not be closed yet"
                );
                return;
            }
        }
        if let Err(error) = self.inner.platforms.close_source(&place, row.attempt.move_id).await {
            tracing::error!(error = crate::error_chain(&error), mailbox = %row.exchange_guid, "old content could not be closed yet");
            return;
        }
        let stored = async {
            let mut tx = self.inner.store.write().await?;
            if let Some(mut fresh) = tx.source_attempt_get(row.tenant, row.attempt.id).await? {
                fresh.closed = true;
                tx.source_attempt_update(&fresh).await?;
                tx.audit_append(row.tenant, &own_entry(row, "Close", self.inner.clock.now()))
                    .await?;
            }
            tx.commit("source.closed").await
        };
        if let Err(error) = stored.await {
            tracing::error!(
                error = crate::error_chain(&error),
                "closing old content could not be recorded yet"
            );
        }
    }
}

/// What was never tried comes first, then what was tried longest ago.
fn longest_waiting_first<T, W: Ord>(all: &mut [T], tried: impl Fn(&T) -> Option<W>) {
    all.sort_by_key(tried);
}

pub(super) fn asker_of(row: &SourceAttemptRow) -> SourceAsker {
    SourceAsker {
        attempt: row.attempt.id,
        move_id: row.attempt.move_id,
        service_principal: row.attempt.service_principal,
    }
}

/// The context in which the source carries an outcome out by itself; the gate was passed at Prepare.
pub(super) fn own_context(row: &SourceAttemptRow) -> VerbContext {
    VerbContext {
        tenant: row.tenant,
        caller: Caller {
            service_principal: row.attempt.service_principal,
            app_id: rehome_domain::id::ApplicationId::from_u128(0),
            home_issuer: String::new(),
            home_tenant: TenantId::from_u128(0),
            roles: vec![],
        },
        mailbox: row.exchange_guid,
        move_id: row.attempt.move_id,
        attempt: Some(row.attempt.id),
        correlation: CorrelationId(uuid::Uuid::new_v4()),
        origin: "outcome address".into(),
    }
}

pub(super) fn own_entry(row: &SourceAttemptRow, action: &str, now: Timestamp) -> AuditEntry {
    AuditEntry {
        at: now,
        caller: "service".into(),
        origin: "local".into(),
        action: action.into(),
        object: row.exchange_guid.to_string(),
        parameters: serde_json::json!({"attempt": row.attempt.id.to_string()}),
        result: "ok".into(),
        correlation_id: CorrelationId(uuid::Uuid::new_v4()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_longest_is_tried_next() {
        let tried = HashMap::from([("a", 3), ("b", 1), ("d", 2)]);
        let mut all = ["a", "b", "c", "d"];
        longest_waiting_first(&mut all, |name| tried.get(name).copied());
        assert_eq!(all, ["c", "b", "d", "a"]);
    }
}

//! The schedule: who is worked on, under which lease, and when again.

use super::{Target, mover::Turn};
use jiff::{SignedDuration, Timestamp};
use rehome_domain::{
    batch::{BatchIntent, MigrationBatch},
    id::Fence,
    moves::{Move, UserEvent, UserStatus},
};
use rehome_store::{Store, StoreError};
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// How long running moves may take to reach a resting point at shutdown.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(8);

/// Pause of a worker whose turn could not be recorded.
const PAUSE_AFTER_STORE_ERROR: Duration = Duration::from_secs(5);

/// Aborts a task when it goes out of scope.
pub(super) struct AbortOnDrop(pub(super) tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A held lease: renewed in the background, checked by the monotonic clock before every command to a server.
#[derive(Clone)]
pub(super) struct HeldLease {
    start: Instant,
    /// Milliseconds after `start` at which the lease ends.
    until: Arc<AtomicU64>,
    /// Set when the move is to come to rest.
    pub(super) cancel: Arc<AtomicBool>,
}

impl HeldLease {
    fn new(length: SignedDuration) -> Self {
        let lease = Self {
            start: Instant::now(),
            until: Arc::new(AtomicU64::new(0)),
            cancel: Arc::new(AtomicBool::new(false)),
        };
        lease.extend(lease.start, length);
        lease
    }

    /// The lease was stored as running from `from` on.
    fn extend(&self, from: Instant, length: SignedDuration) {
        let end = from.duration_since(self.start) + Duration::try_from(length).unwrap_or_default();
        self.until
            .store(u64::try_from(end.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Whether the lease still runs.
    pub(super) fn holds(&self) -> bool {
        self.start.elapsed().as_millis() < u128::from(self.until.load(Ordering::SeqCst))
    }

    /// Whether the move is to come to rest.
    pub(super) fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::SeqCst)
    }
}

impl Target {
    /// Works until `shutdown` resolves; then running moves come to rest and stay resumable.
    ///
    /// This process holds the data folder alone, so leases left behind by an earlier one are ended at the start.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = std::pin::pin!(shutdown);
        if let Err(error) = self.end_old_leases().await {
            tracing::error!(
                error = crate::error_chain(&error),
                "leases of an earlier process could not be ended"
            );
        }
        let stopping = Arc::new(AtomicBool::new(false));
        let mut running = JoinSet::new();
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(done) = running.join_next(), if !running.is_empty() => {
                    if let Err(error) = done {
                        tracing::error!(%error, "a worker ended badly; its move is taken up again when the lease has expired");
                    }
                }
                _ = ticks.tick() => {
                    if let Err(error) = self.hand_out(&mut running, &stopping).await {
                        tracing::error!(error = crate::error_chain(&error), "no work could be handed out");
                    }
                }
            }
        }
        stopping.store(true, Ordering::SeqCst);
        let rest = async { while running.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_WITHIN, rest).await.is_err() {
            tracing::warn!("moves that did not come to rest in time are cut; they resume from their ledgers");
        }
    }

    async fn end_old_leases(&self) -> Result<(), StoreError> {
        let mut tx = self.inner.store.write().await?;
        let ended = tx.move_end_leases_of("").await?;
        tx.commit("target.end_leases").await?;
        if ended > 0 {
            tracing::info!(ended, "moves of an earlier process are resumed");
        }
        Ok(())
    }

    /// Starts a worker for each move that is due, as [`Target::run`] does ten times a second; for whoever has a clock of his
    /// own. Each works until its move rests, or `stopping` is set.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn hand_out(&self, running: &mut JoinSet<()>, stopping: &Arc<AtomicBool>) -> Result<(), StoreError> {
        let free = self.inner.settings.workers.saturating_sub(running.len());
        if free == 0 {
            return Ok(());
        }
        let now = self.inner.clock.now();
        let mut tx = self.inner.store.read().await?;
        let due = tx.move_list_due(now, self.inner.settings.lease, 200).await?;
        drop(tx);
        for user in due.into_iter().take(free) {
            match self.claim(&user, now).await {
                Ok(Some((claimed, batch))) => {
                    let (target, stopping) = (self.clone(), Arc::clone(stopping));
                    running.spawn(async move { target.work(claimed, batch, stopping).await });
                }
                Ok(None) | Err(StoreError::Stale { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes the lease, if the endpoint has a free slot. A user without one waits, and says so.
    async fn claim(&self, user: &Move, now: Timestamp) -> Result<Option<(Move, MigrationBatch)>, StoreError> {
        let mut tx = self.inner.store.write().await?;
        let Some(batch) = tx.batch_get(user.tenant, user.batch).await? else {
            return Ok(None);
        };
        let endpoint = tx.endpoint_get(user.tenant, batch.endpoint).await?;
        let limit = endpoint.and_then(|e| e.max_concurrent_migrations);
        let running = tx
            .move_count_running(user.tenant, &batch.endpoint.to_string(), now)
            .await?;
        // A sweep is a question; a completed user waits for no slot, and does not say so.
        let needs_slot = !matches!(
            user.status,
            UserStatus::Removing | UserStatus::Completed | UserStatus::CompletedWithWarnings
        );
        if needs_slot && limit.is_some_and(|limit| running >= u64::from(limit)) {
            if user.waiting_for != SLOT {
                let waiting = Move {
                    waiting_for: SLOT.into(),
                    next_run: now + SignedDuration::from_secs(1),
                    ..user.clone()
                };
                tx.move_save_unleased(&waiting, now).await?;
                tx.commit("target.wait").await?;
            }
            return Ok(None);
        }
        let claimed = tx
            .move_claim(
                user,
                &format!("pid {}", std::process::id()),
                now + self.inner.settings.lease,
            )
            .await?;
        tx.commit("target.claim").await?;
        Ok(Some((claimed, batch)))
    }

    async fn work(&self, user: Move, batch: MigrationBatch, stopping: Arc<AtomicBool>) {
        let (tenant, id, fence) = (user.tenant, user.id, user.fence);
        let lease = HeldLease::new(self.inner.settings.lease);
        // Ends with this turn however it ends, a panic included: a lease must not outlive its work.
        let _keeper = AbortOnDrop(tokio::spawn(keep_lease(
            self.clone(),
            user.clone(),
            lease.clone(),
            stopping,
        )));
        let turn = Turn {
            target: self.clone(),
            user,
            batch,
            imap: None,
            returning: None,
            catches_up: false,
            lease,
        };
        let outcome = turn.run().await;
        if let Err(error) = outcome {
            tracing::warn!(error = crate::error_chain(&error), move_id = %id, "a turn of a move could not be recorded; it is repeated");
            // The store is in trouble: asked again at once it would only be in more. Where another worker has the move now
            // there is nothing to wait for.
            if !matches!(error, StoreError::Stale { .. }) {
                tokio::time::sleep(PAUSE_AFTER_STORE_ERROR).await;
            }
        }
        if let Err(error) = release(&self.inner.store, tenant, id, fence).await {
            tracing::warn!(error = crate::error_chain(&error), move_id = %id, "a lease could not be given back; it expires by itself");
        }
    }
}

/// What a user waits for whose endpoint has no free slot.
const SLOT: &str = "a free slot of the endpoint (MaxConcurrentMigrations)";

async fn release(
    store: &Store,
    tenant: rehome_domain::id::TenantId,
    id: rehome_domain::id::MoveId,
    fence: Fence,
) -> Result<(), StoreError> {
    let mut tx = store.write().await?;
    tx.move_release(tenant, id, fence).await?;
    tx.commit("target.release").await
}

/// Renews the lease while the move is worked on, and brings it to rest when an administrator or the shutdown asks.
async fn keep_lease(target: Target, user: Move, lease: HeldLease, stopping: Arc<AtomicBool>) {
    let length = target.inner.settings.lease;
    let mut renewed = Instant::now();
    let third = Duration::try_from(length).unwrap_or_default() / 3;
    loop {
        tokio::time::sleep(Duration::from_millis(250)).await;
        if stopping.load(Ordering::SeqCst) || asked_to_stop(&target, &user).await {
            lease.cancel.store(true, Ordering::SeqCst);
        }
        if renewed.elapsed() >= third {
            let from = Instant::now();
            match renew(&target, &user, length).await {
                Ok(()) => {
                    lease.extend(from, length);
                    renewed = from;
                }
                Err(StoreError::Stale { .. }) => {
                    lease.cancel.store(true, Ordering::SeqCst);
                    return;
                }
                Err(error) => tracing::warn!(error = crate::error_chain(&error), "a lease could not be renewed yet"),
            }
        }
    }
}

async fn renew(target: &Target, user: &Move, length: SignedDuration) -> Result<(), StoreError> {
    let mut tx = target.inner.store.write().await?;
    tx.move_renew(user.tenant, user.id, user.fence, target.inner.clock.now() + length)
        .await?;
    tx.commit("target.renew").await
}

async fn asked_to_stop(target: &Target, user: &Move) -> bool {
    let read = async {
        let mut tx = target.inner.store.read().await?;
        let fresh = tx.move_get(user.tenant, user.id).await?;
        let batch = tx.batch_get(user.tenant, user.batch).await?;
        Ok::<_, StoreError>(fresh.is_none_or(|u| u.stop) || batch.is_none_or(|b| b.intent != BatchIntent::Started))
    };
    // A store that cannot be read does not stop a move: the next write of the move itself will say so.
    read.await.unwrap_or(false)
}

/// The event of a stop: removal when the batch is being removed.
pub(super) fn stop_event(batch: &MigrationBatch) -> UserEvent {
    match batch.intent {
        BatchIntent::Removing => UserEvent::Remove,
        BatchIntent::Created | BatchIntent::Started | BatchIntent::Stopped => UserEvent::Stop,
    }
}

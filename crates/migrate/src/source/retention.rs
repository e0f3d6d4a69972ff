//! Old content: kept, closed, for the time that the source's administrator sets, and then removed.

use super::{
    Source,
    keeper::{asker_of, own_entry},
};
use jiff::SignedDuration;
use rehome_domain::{
    cutover::{SourceEvent, SourcePhase},
    error_id::{ErrorId, Problem},
    id::{ExchangeGuid, TenantId},
};
use rehome_platform::{Driver, PlatformError};
use rehome_store::{SourceAttemptRow, StoreError, Tx};
use std::time::Duration;

/// Pause after old content could not be removed.
const REMOVE_PAUSE: Duration = Duration::from_secs(60);

/// Why old content was not removed.
#[derive(Debug, thiserror::Error)]
enum RemoveError {
    #[error("the state cannot be read or written")]
    Store(#[from] StoreError),
    #[error("the platform refuses")]
    Platform(#[from] PlatformError),
}

impl Source {
    /// How long the old content of this attempt's mailbox is kept: as the relationship with its partner says, else as the
    /// operator set.
    pub(super) async fn retention_of(&self, tx: &mut Tx, row: &SourceAttemptRow) -> Result<SignedDuration, StoreError> {
        let relationships = tx.relationship_list(row.tenant).await?;
        let days = relationships
            .iter()
            .find(|r| r.service_principal == Some(row.attempt.service_principal))
            .and_then(|r| r.content_retention_days);
        Ok(days.map_or(self.inner.settings.retention, |days| {
            SignedDuration::from_hours(24 * i64::from(days))
        }))
    }

    /// Removes the old content of every attempt whose retention has ended. What is held, has come back, or is on its way
    /// back stays.
    pub(super) async fn remove_old_content(&self) {
        let listed = async {
            let mut tx = self.inner.store.read().await?;
            tx.source_attempt_list_over(self.inner.clock.now()).await
        };
        let rows = match listed.await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::error!(
                    error = crate::error_chain(&error),
                    "it cannot be told which old content is kept no longer"
                );
                return tokio::time::sleep(REMOVE_PAUSE).await;
            }
        };
        let mut failed = false;
        for row in rows {
            if let Err(error) = self.end_retention(&row).await {
                failed = true;
                tracing::error!(error = crate::error_chain(&error), mailbox = %row.exchange_guid, "old content that is kept no longer could not be removed yet");
            }
        }
        if failed {
            tokio::time::sleep(REMOVE_PAUSE).await;
        }
    }

    /// Releases the content first, durably, so that no way back begins with it any more; then removes it; then records
    /// that. Each is done again until it worked.
    async fn end_retention(&self, seen: &SourceAttemptRow) -> Result<(), RemoveError> {
        let Some(platform) = &seen.platform else { return Ok(()) };
        let may_go = match seen.attempt.phase {
            SourcePhase::Committed => self.release(seen).await?,
            SourcePhase::Released => true,
            // What came back lies in its own place again; the rest of the old content goes when nothing is made from it.
            SourcePhase::Returned => {
                let mut tx = self.inner.store.read().await?;
                !tx.return_is_open(seen.tenant, seen.exchange_guid).await?
            }
            SourcePhase::Locked
            | SourcePhase::Prepared
            | SourcePhase::Aborted
            | SourcePhase::Lapsed
            | SourcePhase::Reopened => false,
        };
        if !may_go {
            return Ok(());
        }
        let (guid, move_id) = (seen.exchange_guid, seen.attempt.move_id);
        self.inner.platforms.remove_closed(platform, guid, move_id).await?;
        // An account stays with its server's administrator; it is only forgotten here.
        let removed = match self.inner.platforms.driver(platform)? {
            Driver::Maildir => true,
            Driver::Imap => false,
        };
        let mut tx = self.inner.store.write().await?;
        let now = self.inner.clock.now();
        let fresh = tx.source_attempt_get(seen.tenant, seen.attempt.id).await?;
        if let Some(mut row) = fresh.filter(|row| row.content_removed.is_none()) {
            row.content_removed = Some(now);
            tx.source_attempt_update(&row).await?;
            let mut entry = own_entry(&row, "Remove old content", now);
            entry.parameters = serde_json::json!({
                "attempt": row.attempt.id.to_string(), "location": row.location, "contents_removed": removed,
            });
            tx.audit_append(row.tenant, &entry).await?;
            tx.commit("source.removed").await?;
            tracing::info!(mailbox = %guid, removed, "the old content is kept no longer");
        }
        Ok(())
    }

    /// Whether the content may go: its attempt is Released from here on.
    async fn release(&self, seen: &SourceAttemptRow) -> Result<bool, StoreError> {
        // Looked at without the writer's turn first: what has come back is found again every second.
        let mut tx = self.inner.store.read().await?;
        if !may_go(&mut tx, seen).await? {
            return Ok(false);
        }
        drop(tx);
        let mut tx = self.inner.store.write().await?;
        let now = self.inner.clock.now();
        let fresh = tx.source_attempt_get(seen.tenant, seen.attempt.id).await?;
        let over = |row: &SourceAttemptRow| row.retention_until.is_some_and(|until| until <= now) && !row.content_held;
        let Some(mut row) = fresh.filter(over) else {
            return Ok(false);
        };
        let Ok(next) = self.next_state(Some(&row), &asker_of(&row), SourceEvent::RetentionEnds, now) else {
            return Ok(false);
        };
        if next.phase != SourcePhase::Released || !may_go(&mut tx, &row).await? {
            return Ok(false);
        }
        row.attempt = next;
        tx.source_attempt_update(&row).await?;
        tx.audit_append(row.tenant, &own_entry(&row, "Release old content", now))
            .await?;
        tx.commit("source.released").await?;
        Ok(true)
    }

    /// Keeps the old content of a mailbox that has moved beyond its retention, or lets it go when that ends, within a
    /// change that is being made.
    ///
    /// # Errors
    /// A [`Problem`] when the mailbox has not moved from here, or its content is gone.
    pub async fn keep_content(
        &self,
        tx: &mut Tx,
        tenant: TenantId,
        guid: ExchangeGuid,
        keep: bool,
    ) -> Result<(), Problem> {
        let failed = |error: StoreError| {
            let text = format!(
                "The state could not be read or written: {}.",
                crate::error_chain(&error)
            );
            Problem::new(ErrorId::Unexpected, text, "The server's log says more.")
        };
        let newest = tx.source_attempt_newest(tenant, guid).await.map_err(failed)?;
        let Some(mut row) = newest.filter(|row| row.attempt.phase == SourcePhase::Committed) else {
            return Err(Problem::new(
                ErrorId::InvalidOperation,
                "No old content of this mailbox is kept here.",
                "Get-OutboundMigration shows what has moved and until when its content is kept.",
            ));
        };
        row.content_held = keep;
        tx.source_attempt_update(&row).await.map_err(failed)
    }
}

/// Whether nobody here needs the old content: the mailbox has not come back and is not on its way.
async fn may_go(tx: &mut Tx, row: &SourceAttemptRow) -> Result<bool, StoreError> {
    let recipient = tx.recipient_by_exchange_guid(row.tenant, row.exchange_guid).await?;
    let is_here = recipient.is_some_and(|recipient| recipient.mailbox().is_some());
    Ok(!is_here && !tx.return_is_open(row.tenant, row.exchange_guid).await?)
}

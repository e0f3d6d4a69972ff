//! Records of what partners were allowed, written together where several are waiting: one write to the disk for all.

use rehome_domain::id::TenantId;
use rehome_store::{AuditEntry, OutboundMove, Store, StoreError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// An allowed request, for the audit log and the row of the outbound move.
#[derive(Clone)]
pub(super) struct Allowed {
    pub(super) tenant: TenantId,
    pub(super) entry: AuditEntry,
    pub(super) seen: Option<OutboundMove>,
}

/// Records that may wait while the database fails.
const MOST_WAITING: usize = 10_000;

struct Waiting {
    record: Allowed,
    /// Told when it is durable.
    written: Option<oneshot::Sender<()>>,
}

/// Records that wait to be written, oldest first. Clones are the same journal.
#[derive(Clone, Default)]
pub(super) struct Journal(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<Vec<Waiting>>,
    writing: tokio::sync::Mutex<()>,
}

impl Journal {
    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, record: Allowed, written: Option<oneshot::Sender<()>>) {
        let mut waiting = self.waiting();
        if waiting.len() >= MOST_WAITING {
            tracing::error!(
                correlation = %record.entry.correlation_id, parameters = %record.entry.parameters,
                "a record of what a partner was allowed is lost: too many wait for the database"
            );
            return;
        }
        waiting.push(Waiting { record, written });
    }

    /// Leaves a record to the next write.
    pub(super) fn leave(&self, record: Allowed) {
        self.push(record, None);
    }

    /// Writes a record and whatever waits; it is durable when this returns.
    ///
    /// # Errors
    /// When the database fails; the records wait for the next try then.
    pub(super) async fn write(&self, store: &Store, record: Allowed) -> Result<(), StoreError> {
        let (written, mut outcome) = oneshot::channel();
        self.push(record, Some(written));
        self.flush(store).await?;
        match outcome.try_recv() {
            Ok(()) => Ok(()),
            Err(_) => Err(failed("too many records wait for the database")),
        }
    }

    /// Writes what waits. It is carried to its end even where nobody waits for this any more: a record that is durable but
    /// still waiting would be written twice.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(super) async fn flush(&self, store: &Store) -> Result<(), StoreError> {
        let (journal, store) = (self.clone(), store.clone());
        let done = tokio::spawn(async move {
            let _alone = journal.0.writing.lock().await;
            journal.write_waiting(&store).await
        });
        done.await.map_err(|error| failed(&error.to_string()))?
    }

    /// Only one at a time. What waits stays in place until it is durable.
    async fn write_waiting(&self, store: &Store) -> Result<(), StoreError> {
        // Whoever wrote before took them along.
        let records: Vec<_> = self.waiting().iter().map(|waiting| waiting.record.clone()).collect();
        if records.is_empty() {
            return Ok(());
        }
        let mut tx = store.write().await?;
        for Allowed { tenant, entry, seen } in &records {
            tx.audit_append(*tenant, entry).await?;
            if let Some(seen) = seen {
                tx.outbound_touch(seen).await?;
            }
        }
        tx.commit("source.served").await?;
        for waiting in self.waiting().drain(..records.len()) {
            if let Some(written) = waiting.written {
                // Whoever does not wait any more needs no answer.
                let _ = written.send(());
            }
        }
        Ok(())
    }
}

fn failed(why: &str) -> StoreError {
    StoreError::Unreadable {
        what: "journal",
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use rehome_domain::id::CorrelationId;

    fn record(number: u128) -> Allowed {
        Allowed {
            tenant: TenantId::from_u128(1),
            entry: AuditEntry {
                at: Timestamp::UNIX_EPOCH,
                caller: "service principal".into(),
                origin: "local".into(),
                action: "Read".into(),
                object: number.to_string(),
                parameters: serde_json::json!({}),
                result: "ok".into(),
                correlation_id: CorrelationId::from_u128(number),
            },
            seen: None,
        }
    }

    #[tokio::test]
    async fn records_that_wait_are_written_together() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let journal = Journal::default();
        let written = async || {
            let mut tx = store.read().await.unwrap();
            tx.audit_list(TenantId::from_u128(1), 0, 100).await.unwrap().len()
        };
        journal.leave(record(1));
        assert_eq!(written().await, 0);
        let all = (2..20).map(|number| journal.write(&store, record(number)));
        for result in futures_util::future::join_all(all).await {
            result.unwrap();
        }
        assert_eq!(written().await, 19);
        journal.leave(record(20));
        journal.flush(&store).await.unwrap();
        journal.flush(&store).await.unwrap();
        assert_eq!(written().await, 20);
        // What one that is dropped left behind is written once.
        for number in 21..40 {
            let mut dropped = Box::pin(journal.write(&store, record(number)));
            assert!(futures_util::poll!(dropped.as_mut()).is_pending());
        }
        journal.write(&store, record(40)).await.unwrap();
        assert_eq!(written().await, 40);
        let mut tx = store.read().await.unwrap();
        assert_eq!(tx.audit_first_break(TenantId::from_u128(1)).await.unwrap(), None);
    }
}

//! Durable storage of a move's chunks: a newtype over the store, fenced in the target tenant.

use async_trait::async_trait;
use rehome_domain::id::{Fence, MoveId, TenantId};
use rehome_replicate::storage::{Change, ChunkKey, ChunkKind, ChunkStorage, StorageError};
use rehome_store::{Store, StoreError};

/// The chunks of one move in one tenant: the mover's ledger, or the exporter's notes.
#[derive(Clone)]
pub(crate) struct Chunks {
    store: Store,
    tenant: TenantId,
    move_id: MoveId,
    /// The mover's fencing number; the exporter, which has no lease, writes without one.
    fence: Option<Fence>,
}

impl Chunks {
    /// The mover's ledger: every write is refused once `fence` is not the newest.
    pub(crate) fn ledger(store: Store, tenant: TenantId, move_id: MoveId, fence: Fence) -> Self {
        Self {
            store,
            tenant,
            move_id,
            fence: Some(fence),
        }
    }

    /// The exporter's notes.
    pub(crate) fn notes(store: Store, tenant: TenantId, move_id: MoveId) -> Self {
        Self {
            store,
            tenant,
            move_id,
            fence: None,
        }
    }
}

fn storage_error(error: &StoreError) -> StorageError {
    match error {
        StoreError::Stale { .. } => StorageError::Stale,
        StoreError::Database { .. }
        | StoreError::Taken { .. }
        | StoreError::Unreadable { .. }
        | StoreError::NewerSchema { .. } => StorageError::Failed {
            message: crate::error_chain(error),
        },
    }
}

#[async_trait]
impl ChunkStorage for Chunks {
    async fn get(&self, key: ChunkKey) -> Result<Option<Vec<u8>>, StorageError> {
        let mut tx = self.store.read().await.map_err(|e| storage_error(&e))?;
        tx.chunk_get(self.tenant, self.move_id, key.kind.number(), key.folder, key.chunk)
            .await
            .map_err(|e| storage_error(&e))
    }

    async fn chunks(&self, kind: ChunkKind, folder: u32) -> Result<Vec<u32>, StorageError> {
        let mut tx = self.store.read().await.map_err(|e| storage_error(&e))?;
        tx.chunk_list(self.tenant, self.move_id, kind.number(), folder)
            .await
            .map_err(|e| storage_error(&e))
    }

    async fn write(&self, changes: Vec<Change>, step: &'static str) -> Result<(), StorageError> {
        let mut tx = self.store.write().await.map_err(|e| storage_error(&e))?;
        if let Some(fence) = self.fence {
            tx.move_check_fence(self.tenant, self.move_id, fence)
                .await
                .map_err(|e| storage_error(&e))?;
        }
        for (key, body) in &changes {
            tx.chunk_put(
                self.tenant,
                self.move_id,
                (key.kind.number(), key.folder, key.chunk),
                body.as_deref(),
            )
            .await
            .map_err(|e| storage_error(&e))?;
        }
        tx.commit(step).await.map_err(|e| storage_error(&e))
    }
}

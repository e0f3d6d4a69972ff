//! Cutovers without a lock that an administrator of the target accepted.

use crate::{StoreError, Tx};
use jiff::Timestamp;
use rehome_domain::id::{BatchId, MoveId, TenantId};

impl Tx {
    /// Remembers that the users of a batch may be completed although nothing keeps their mailboxes quiet.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn unlocked_accept_batch(
        &mut self,
        tenant: TenantId,
        batch: BatchId,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO unlocked_batches (tenant, batch, accepted) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        )
        .bind(tenant.to_string())
        .bind(batch.to_string())
        .bind(now.as_millisecond())
        .execute(self.on())
        .await
        .map_err(StoreError::while_doing("accepting cutovers without a lock"))?;
        Ok(())
    }

    /// As [`Self::unlocked_accept_batch`], for one user.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn unlocked_accept_move(
        &mut self,
        tenant: TenantId,
        move_id: MoveId,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO unlocked_moves (tenant, move, accepted) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
            .bind(tenant.to_string())
            .bind(move_id.to_string())
            .bind(now.as_millisecond())
            .execute(self.on())
            .await
            .map_err(StoreError::while_doing("accepting a cutover without a lock"))?;
        Ok(())
    }

    /// Whether a cutover without a lock was accepted for this user or his batch.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn unlocked_is_accepted(
        &mut self,
        tenant: TenantId,
        batch: BatchId,
        move_id: MoveId,
    ) -> Result<bool, StoreError> {
        let found = sqlx::query(
            "SELECT 1 FROM unlocked_batches WHERE tenant = $1 AND batch = $2 \
             UNION ALL SELECT 1 FROM unlocked_moves WHERE tenant = $1 AND move = $3 LIMIT 1",
        )
        .bind(tenant.to_string())
        .bind(batch.to_string())
        .bind(move_id.to_string())
        .fetch_optional(self.on())
        .await
        .map_err(StoreError::while_doing(
            "looking for an accepted cutover without a lock",
        ))?;
        Ok(found.is_some())
    }
}

//! Users whose reported items an administrator wants tried again.

use crate::{StoreError, Tx, columns::millis};
use jiff::Timestamp;
use rehome_domain::id::{MoveId, TenantId};

impl Tx {
    /// Remembers that a user's reported items are to be tried again with the next sync.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn retry_ask(&mut self, tenant: TenantId, move_id: MoveId, now: Timestamp) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO retries (tenant, move, asked) VALUES ($1, $2, $3) ON CONFLICT (move) DO UPDATE SET asked = excluded.asked",
        )
        .bind(tenant.to_string())
        .bind(move_id.to_string())
        .bind(now.as_millisecond())
        .execute(self.on())
        .await
        .map_err(StoreError::while_doing("asking for a retry"))?;
        Ok(())
    }

    /// When that was asked for last and is not done.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn retry_asked(&mut self, tenant: TenantId, move_id: MoveId) -> Result<Option<Timestamp>, StoreError> {
        let row = sqlx::query("SELECT asked FROM retries WHERE tenant = $1 AND move = $2")
            .bind(tenant.to_string())
            .bind(move_id.to_string())
            .fetch_optional(self.on())
            .await
            .map_err(StoreError::while_doing("looking for a retry"))?;
        row.map(|row| millis(&row, 0)).transpose()
    }

    /// It is done, unless it was asked for again after `asked`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn retry_done(&mut self, tenant: TenantId, move_id: MoveId, asked: Timestamp) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM retries WHERE tenant = $1 AND move = $2 AND asked <= $3")
            .bind(tenant.to_string())
            .bind(move_id.to_string())
            .bind(asked.as_millisecond())
            .execute(self.on())
            .await
            .map_err(StoreError::while_doing("ending a retry"))?;
        Ok(())
    }
}

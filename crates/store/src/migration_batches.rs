//! Migration batches.

use crate::{
    StoreError, Tx,
    columns::{instant, millis, millis_opt, parsed},
};
use rehome_domain::{
    address::DomainName,
    batch::{BatchIntent, MigrationBatch},
    id::{BatchId, EndpointId, TenantId},
};
use sqlx::{Row, sqlite::SqliteRow};

const COLUMNS: &str = "id, tenant, name, endpoint, target_delivery_domain, intent, auto_complete, complete_after, \
    start_after, skipped_approved_until, submitted_by, created, started";

fn intent_text(intent: BatchIntent) -> &'static str {
    match intent {
        BatchIntent::Created => "created",
        BatchIntent::Started => "started",
        BatchIntent::Stopped => "stopped",
        BatchIntent::Removing => "removing",
    }
}

fn intent_from(text: &str) -> Result<BatchIntent, StoreError> {
    match text {
        "created" => Ok(BatchIntent::Created),
        "started" => Ok(BatchIntent::Started),
        "stopped" => Ok(BatchIntent::Stopped),
        "removing" => Ok(BatchIntent::Removing),
        other => Err(StoreError::unreadable("batch", other)),
    }
}

fn batch_from(row: &SqliteRow) -> Result<MigrationBatch, StoreError> {
    Ok(MigrationBatch {
        id: parsed(row, 0, "batch")?,
        tenant: parsed(row, 1, "batch")?,
        name: row.get(2),
        endpoint: parsed::<EndpointId>(row, 3, "batch")?,
        target_delivery_domain: match row.get::<String, _>(4).as_str() {
            "" => None,
            text => Some(text.parse().map_err(|e| StoreError::unreadable("batch", e))?),
        },
        intent: intent_from(row.get(5))?,
        auto_complete: row.get::<i64, _>(6) != 0,
        complete_after: millis_opt(row, 7)?,
        start_after: millis_opt(row, 8)?,
        skipped_approved_until: millis_opt(row, 9)?,
        submitted_by: row.get(10),
        created: millis(row, 11)?,
        started: millis_opt(row, 12)?,
    })
}

impl Tx {
    /// Adds a batch.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when the tenant has a batch of that name.
    pub async fn batch_insert(&mut self, batch: &MigrationBatch) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO batches (id, tenant, name, name_key, endpoint, target_delivery_domain, intent, auto_complete, \
             complete_after, start_after, skipped_approved_until, submitted_by, created, started) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        )
        .bind(batch.id.to_string())
        .bind(batch.tenant.to_string())
        .bind(&batch.name)
        .bind(batch.name.to_lowercase())
        .bind(batch.endpoint.to_string())
        .bind(batch.target_delivery_domain.as_ref().map_or("", DomainName::as_str))
        .bind(intent_text(batch.intent))
        .bind(i64::from(batch.auto_complete))
        .bind(instant(batch.complete_after))
        .bind(instant(batch.start_after))
        .bind(instant(batch.skipped_approved_until))
        .bind(&batch.submitted_by)
        .bind(batch.created.as_millisecond())
        .bind(instant(batch.started))
        .execute(self.on())
        .await
        .map_err(StoreError::unique("adding a batch", "batch name", &batch.name))?;
        Ok(())
    }

    /// Changes what the administrator may change: intent, times, approvals.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn batch_update(&mut self, batch: &MigrationBatch) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE batches SET intent = $3, auto_complete = $4, complete_after = $5, start_after = $6, \
             skipped_approved_until = $7, started = $8 WHERE tenant = $1 AND id = $2",
        )
        .bind(batch.tenant.to_string())
        .bind(batch.id.to_string())
        .bind(intent_text(batch.intent))
        .bind(i64::from(batch.auto_complete))
        .bind(instant(batch.complete_after))
        .bind(instant(batch.start_after))
        .bind(instant(batch.skipped_approved_until))
        .bind(instant(batch.started))
        .execute(self.on())
        .await
        .map_err(StoreError::while_doing("changing a batch"))?;
        Ok(())
    }

    /// The batch with this id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn batch_get(&mut self, tenant: TenantId, id: BatchId) -> Result<Option<MigrationBatch>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM batches WHERE tenant = $1 AND id = $2"
        )))
        .bind(tenant.to_string())
        .bind(id.to_string())
        .fetch_optional(self.on())
        .await
        .map_err(StoreError::while_doing("reading a batch"))?
        .as_ref()
        .map(batch_from)
        .transpose()
    }

    /// The tenant's batches by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn batch_list(&mut self, tenant: TenantId) -> Result<Vec<MigrationBatch>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM batches WHERE tenant = $1 ORDER BY name_key"
        )))
        .bind(tenant.to_string())
        .fetch_all(self.on())
        .await
        .map_err(StoreError::while_doing("listing batches"))?
        .iter()
        .map(batch_from)
        .collect()
    }

    /// Operator's housekeeping: removes batches of any tenant that are being removed and have no users left.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn batch_delete_emptied(&mut self) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM batches WHERE intent = 'removing' AND NOT EXISTS (SELECT 1 FROM moves WHERE moves.batch = batches.id)")
            .execute(self.on())
            .await
            .map_err(StoreError::while_doing("removing emptied batches"))?;
        Ok(())
    }
}

//! Receipts of finished moves, at either side.

use crate::{
    StoreError, Tx,
    columns::{count, instant, millis_opt, parsed},
    migration_attempts::root_from,
};
use jiff::Timestamp;
use rehome_domain::id::{AttemptId, ExchangeGuid, MoveId, TenantId};
use sqlx::{Row, sqlite::SqliteRow};

/// Whose receipt it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptSide {
    /// The organisation that the mailbox left.
    Source,
    /// The organisation that it came to.
    Target,
}

impl ReceiptSide {
    /// The word that is stored and signed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Target => "target",
        }
    }
}

/// One receipt, or what a later sweep added to it. Its folders and leaves are in parts of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptRow {
    /// Whose it is.
    pub tenant: TenantId,
    /// The attempt that was committed.
    pub attempt: AttemptId,
    /// 0 for the receipt, 1 and above for what later sweeps brought.
    pub number: u32,
    /// On which side the tenant was.
    pub side: ReceiptSide,
    /// The move.
    pub move_id: MoveId,
    /// The mailbox.
    pub exchange_guid: ExchangeGuid,
    /// How the mailbox was called here when it moved.
    pub address: String,
    /// The other organisation.
    pub partner_tenant: TenantId,
    /// The mailbox root.
    pub root: [u8; 32],
    /// Folders.
    pub folders: u64,
    /// Leaves.
    pub items: u64,
    /// Canonical octets of the leaves.
    pub octets: u64,
    /// The exceptions as Prepare carried them (JSON).
    pub exceptions: String,
    /// When the move was committed, or the sweep ended; none while the source has only promised.
    pub made: Option<Timestamp>,
    /// This tenant's signed statement.
    pub own_statement: Option<String>,
    /// The other tenant's.
    pub partner_statement: Option<String>,
}

const COLUMNS: &str = "tenant, attempt, number, side, move, exchange_guid, address, partner_tenant, root, folders, items, octets, \
    exceptions, made, own_statement, partner_statement";

fn receipt_from(row: &SqliteRow) -> Result<ReceiptRow, StoreError> {
    let side = match row.get::<&str, _>(3) {
        "source" => ReceiptSide::Source,
        "target" => ReceiptSide::Target,
        other => return Err(StoreError::unreadable("receipt", other)),
    };
    let root = root_from(row.get(8))?.ok_or_else(|| StoreError::unreadable("receipt", "it has no root"))?;
    Ok(ReceiptRow {
        tenant: parsed(row, 0, "receipt")?,
        attempt: parsed(row, 1, "receipt")?,
        number: u32::try_from(row.get::<i64, _>(2)).map_err(|e| StoreError::unreadable("receipt", e))?,
        side,
        move_id: parsed(row, 4, "receipt")?,
        exchange_guid: parsed(row, 5, "receipt")?,
        address: row.get(6),
        partner_tenant: parsed(row, 7, "receipt")?,
        root,
        folders: count(row, 9),
        items: count(row, 10),
        octets: count(row, 11),
        exceptions: row.get(12),
        made: millis_opt(row, 13)?,
        own_statement: row.get(14),
        partner_statement: row.get(15),
    })
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Tx {
    /// Removes what is stored under this number, parts included, and the parts of attempts that came to nothing: before a
    /// receipt is collected anew.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn receipt_begin(&mut self, tenant: TenantId, attempt: AttemptId, number: u32) -> Result<(), StoreError> {
        let doing = "clearing a receipt that was begun";
        for table in ["receipts", "receipt_parts"] {
            let sql = format!("DELETE FROM {table} WHERE tenant = $1 AND attempt = $2 AND number = $3");
            sqlx::query(sqlx::AssertSqlSafe(sql))
                .bind(tenant.to_string())
                .bind(attempt.to_string())
                .bind(i64::from(number))
                .execute(self.on())
                .await
                .map_err(StoreError::while_doing(doing))?;
            let sql = format!(
                "DELETE FROM {table} WHERE tenant = $1 AND attempt IN \
                 (SELECT id FROM source_attempts WHERE tenant = $1 AND phase IN ('aborted', 'lapsed'))"
            );
            sqlx::query(sqlx::AssertSqlSafe(sql))
                .bind(tenant.to_string())
                .execute(self.on())
                .await
                .map_err(StoreError::while_doing(doing))?;
        }
        Ok(())
    }

    /// Stores one part of a receipt's folders and leaves, in place of an earlier one of the same number.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn receipt_part_put(
        &mut self,
        tenant: TenantId,
        (attempt, number, part): (AttemptId, u32, u32),
        body: &[u8],
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO receipt_parts (tenant, attempt, number, part, body) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (tenant, attempt, number, part) DO UPDATE SET body = excluded.body",
        )
        .bind(tenant.to_string())
        .bind(attempt.to_string())
        .bind(i64::from(number))
        .bind(i64::from(part))
        .bind(body.to_vec())
        .execute(self.on())
        .await
        .map_err(StoreError::while_doing("storing a receipt's items"))?;
        Ok(())
    }

    /// One part of a receipt's folders and leaves; none behind the last.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn receipt_part_get(
        &mut self,
        tenant: TenantId,
        (attempt, number, part): (AttemptId, u32, u32),
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let row = sqlx::query(
            "SELECT body FROM receipt_parts WHERE tenant = $1 AND attempt = $2 AND number = $3 AND part = $4",
        )
        .bind(tenant.to_string())
        .bind(attempt.to_string())
        .bind(i64::from(number))
        .bind(i64::from(part))
        .fetch_optional(self.on())
        .await
        .map_err(StoreError::while_doing("reading a receipt's items"))?;
        Ok(row.map(|row| row.get(0)))
    }

    /// Stores a receipt, in place of one under the same attempt and number. Its parts are stored before.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn receipt_put(&mut self, r: &ReceiptRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT OR REPLACE INTO receipts (tenant, attempt, number, side, move, exchange_guid, address, partner_tenant, root, \
             folders, items, octets, exceptions, made, own_statement, partner_statement, address_key) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
        )
        .bind(r.tenant.to_string())
        .bind(r.attempt.to_string())
        .bind(i64::from(r.number))
        .bind(r.side.as_str())
        .bind(r.move_id.to_string())
        .bind(r.exchange_guid.to_string())
        .bind(&r.address)
        .bind(r.partner_tenant.to_string())
        .bind(r.root.to_vec())
        .bind(signed(r.folders))
        .bind(signed(r.items))
        .bind(signed(r.octets))
        .bind(&r.exceptions)
        .bind(instant(r.made))
        .bind(&r.own_statement)
        .bind(&r.partner_statement)
        .bind(r.address.to_lowercase())
        .execute(self.on())
        .await
        .map_err(StoreError::while_doing("storing a receipt"))?;
        Ok(())
    }

    /// What the source kept when it promised becomes a receipt: in the transaction that commits. Nothing, where it kept
    /// nothing.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn receipt_commit(
        &mut self,
        tenant: TenantId,
        attempt: AttemptId,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query("UPDATE receipts SET made = $3 WHERE tenant = $1 AND attempt = $2 AND number = 0 AND made IS NULL")
            .bind(tenant.to_string())
            .bind(attempt.to_string())
            .bind(at.as_millisecond())
            .execute(self.on())
            .await
            .map_err(StoreError::while_doing("making a receipt"))?;
        Ok(())
    }

    /// One receipt.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn receipt_get(
        &mut self,
        tenant: TenantId,
        attempt: AttemptId,
        number: u32,
    ) -> Result<Option<ReceiptRow>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM receipts WHERE tenant = $1 AND attempt = $2 AND number = $3"
        )))
        .bind(tenant.to_string())
        .bind(attempt.to_string())
        .bind(i64::from(number))
        .fetch_optional(self.on())
        .await
        .map_err(StoreError::while_doing("reading a receipt"))?
        .as_ref()
        .map(receipt_from)
        .transpose()
    }

    /// The receipts of the tenant that were made, newest first, with what later sweeps brought behind each.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn receipt_list(&mut self, tenant: TenantId) -> Result<Vec<ReceiptRow>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM receipts AS r WHERE tenant = $1 AND made IS NOT NULL \
             ORDER BY (SELECT made FROM receipts WHERE tenant = r.tenant AND attempt = r.attempt AND number = 0) DESC, attempt, number"
        )))
        .bind(tenant.to_string())
        .fetch_all(self.on())
        .await
        .map_err(StoreError::while_doing("listing receipts"))?
        .iter()
        .map(receipt_from)
        .collect()
    }

    /// One receipt that was made, with what later sweeps brought, in order.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn receipt_sections(
        &mut self,
        tenant: TenantId,
        attempt: AttemptId,
    ) -> Result<Vec<ReceiptRow>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM receipts WHERE tenant = $1 AND attempt = $2 AND made IS NOT NULL ORDER BY number"
        )))
        .bind(tenant.to_string())
        .bind(attempt.to_string())
        .fetch_all(self.on())
        .await
        .map_err(StoreError::while_doing("reading a receipt"))?
        .iter()
        .map(receipt_from)
        .collect()
    }
}

//! The way back: commits by which mailboxes came here, and moves that bring mailboxes back.

use crate::{
    StoreError, Tx,
    columns::{count, instant, millis, millis_opt, parsed},
};
use jiff::Timestamp;
use rehome_domain::id::{AttemptId, ExchangeGuid, MoveId, ServicePrincipalId, TenantId};
use sqlx::{Row, sqlite::SqliteRow};

/// A mailbox that came here, as its source committed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitRecord {
    /// Where it came to.
    pub tenant: TenantId,
    /// The attempt that was committed.
    pub attempt: AttemptId,
    /// The move that brought it; its ledger says what of it is where.
    pub move_id: MoveId,
    /// The mailbox.
    pub exchange_guid: ExchangeGuid,
    /// The old source, as it may come back.
    pub service_principal: ServicePrincipalId,
    /// When the answer to Commit was stored.
    pub committed: Timestamp,
    /// Until when the old source keeps its content, and may take the mailbox back.
    pub retention_until: Timestamp,
    /// When this organisation approved a return, if it did.
    pub approved_at: Option<Timestamp>,
    /// Who did.
    pub approved_by: Option<String>,
}

/// A move that brings a mailbox back to where it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnRow {
    /// Whose mailbox it was.
    pub tenant: TenantId,
    /// The move back.
    pub move_id: MoveId,
    /// The mailbox.
    pub exchange_guid: ExchangeGuid,
    /// The organisation that has it now.
    pub service_principal: ServicePrincipalId,
    /// The attempt by which it left.
    pub attempt: AttemptId,
    /// The partner's move by which it left.
    pub outbound_move: MoveId,
    /// The platform of the old content.
    pub platform: String,
    /// Where the mailbox lay there.
    pub location: String,
    /// Until when the old content is kept unless a return is open.
    pub retention_until: Timestamp,
    /// Whether old content and inverted ledger are in place.
    pub filled: bool,
    /// Whether the partner's pairs are used; not any more once the roots have shown that they do not hold.
    pub trusts_pairs: bool,
}

const COMMIT: &str =
    "tenant, attempt, move, exchange_guid, service_principal, committed, retention_until, approved_at, approved_by";
const RETURN: &str = "tenant, move, exchange_guid, service_principal, attempt, outbound_move, platform, location, retention_until, filled, trusts_pairs";

fn commit_from(row: &SqliteRow) -> Result<CommitRecord, StoreError> {
    let what = "commit";
    Ok(CommitRecord {
        tenant: parsed(row, 0, what)?,
        attempt: parsed(row, 1, what)?,
        move_id: parsed(row, 2, what)?,
        exchange_guid: parsed(row, 3, what)?,
        service_principal: parsed(row, 4, what)?,
        committed: millis(row, 5)?,
        retention_until: millis(row, 6)?,
        approved_at: millis_opt(row, 7)?,
        approved_by: row.get(8),
    })
}

fn return_from(row: &SqliteRow) -> Result<ReturnRow, StoreError> {
    let what = "move back";
    Ok(ReturnRow {
        tenant: parsed(row, 0, what)?,
        move_id: parsed(row, 1, what)?,
        exchange_guid: parsed(row, 2, what)?,
        service_principal: parsed(row, 3, what)?,
        attempt: parsed(row, 4, what)?,
        outbound_move: parsed(row, 5, what)?,
        platform: row.get(6),
        location: row.get(7),
        retention_until: millis(row, 8)?,
        filled: row.get::<i64, _>(9) != 0,
        trusts_pairs: row.get::<i64, _>(10) != 0,
    })
}

impl Tx {
    /// Records that a mailbox came here, as the newest commit of it; repeating changes nothing. Ledgers of the tenant's
    /// removed moves that no return can need any more at `record.committed` go.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn commit_record_insert(&mut self, record: &CommitRecord) -> Result<(), StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "INSERT INTO commits ({COMMIT}, sequence) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, \
             (SELECT COALESCE(MAX(sequence), 0) + 1 FROM commits WHERE tenant = $1 AND exchange_guid = $4)) \
             ON CONFLICT (tenant, attempt) DO NOTHING"
        )))
        .bind(record.tenant.to_string())
        .bind(record.attempt.to_string())
        .bind(record.move_id.to_string())
        .bind(record.exchange_guid.to_string())
        .bind(record.service_principal.to_string())
        .bind(record.committed.as_millisecond())
        .bind(record.retention_until.as_millisecond())
        .bind(instant(record.approved_at))
        .bind(&record.approved_by)
        .execute(self.on())
        .await
        .map_err(StoreError::while_doing("recording a commit"))?;
        sqlx::query(
            "DELETE FROM chunks WHERE tenant = $1 \
             AND move IN (SELECT move FROM commits WHERE tenant = $1 AND retention_until <= $2) \
             AND move NOT IN (SELECT id FROM moves WHERE tenant = $1)",
        )
        .bind(record.tenant.to_string())
        .bind(record.committed.as_millisecond())
        .execute(self.on())
        .await
        .map_err(StoreError::while_doing("removing ledgers that nothing needs"))?;
        Ok(())
    }

    /// The newest commit by which a mailbox came here.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn commit_record_newest(
        &mut self,
        tenant: TenantId,
        guid: ExchangeGuid,
    ) -> Result<Option<CommitRecord>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COMMIT} FROM commits WHERE tenant = $1 AND exchange_guid = $2 ORDER BY sequence DESC LIMIT 1"
        )))
        .bind(tenant.to_string())
        .bind(guid.to_string())
        .fetch_optional(self.on())
        .await
        .map_err(StoreError::while_doing("reading a commit"))?
        .as_ref()
        .map(commit_from)
        .transpose()
    }

    /// The commit by which a move of this tenant ended, if it is recorded.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn commit_record_of_move(
        &mut self,
        tenant: TenantId,
        move_id: MoveId,
    ) -> Result<Option<CommitRecord>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COMMIT} FROM commits WHERE tenant = $1 AND move = $2 ORDER BY sequence DESC LIMIT 1"
        )))
        .bind(tenant.to_string())
        .bind(move_id.to_string())
        .fetch_optional(self.on())
        .await
        .map_err(StoreError::while_doing("reading a commit"))?
        .as_ref()
        .map(commit_from)
        .transpose()
    }

    /// Approves that a mailbox is taken back; the first approval stays.
    ///
    /// # Errors
    /// [`StoreError::Stale`] when there is no such commit.
    pub async fn commit_record_approve(
        &mut self,
        tenant: TenantId,
        attempt: AttemptId,
        by: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let done = sqlx::query(
            "UPDATE commits SET approved_at = COALESCE(approved_at, $3), approved_by = COALESCE(approved_by, $4) \
             WHERE tenant = $1 AND attempt = $2",
        )
        .bind(tenant.to_string())
        .bind(attempt.to_string())
        .bind(now.as_millisecond())
        .bind(by)
        .execute(self.on())
        .await
        .map_err(StoreError::while_doing("approving a return"))?;
        if done.rows_affected() == 1 {
            Ok(())
        } else {
            Err(StoreError::Stale { what: "the commit" })
        }
    }

    /// Adds a move that brings a mailbox back.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when the move is one already.
    pub async fn return_insert(&mut self, row: &ReturnRow) -> Result<(), StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "INSERT INTO returns ({RETURN}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
        )))
        .bind(row.tenant.to_string())
        .bind(row.move_id.to_string())
        .bind(row.exchange_guid.to_string())
        .bind(row.service_principal.to_string())
        .bind(row.attempt.to_string())
        .bind(row.outbound_move.to_string())
        .bind(&row.platform)
        .bind(&row.location)
        .bind(row.retention_until.as_millisecond())
        .bind(i64::from(row.filled))
        .bind(i64::from(row.trusts_pairs))
        .execute(self.on())
        .await
        .map_err(StoreError::unique(
            "beginning a move back",
            "move",
            &row.move_id.to_string(),
        ))?;
        Ok(())
    }

    /// The move back with this id; none where the move is another one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn return_get(&mut self, tenant: TenantId, move_id: MoveId) -> Result<Option<ReturnRow>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {RETURN} FROM returns WHERE tenant = $1 AND move = $2"
        )))
        .bind(tenant.to_string())
        .bind(move_id.to_string())
        .fetch_optional(self.on())
        .await
        .map_err(StoreError::while_doing("reading a move back"))?
        .as_ref()
        .map(return_from)
        .transpose()
    }

    /// Notes whether old content and inverted ledger of a move back are in place, and whether the partner's pairs are used.
    ///
    /// # Errors
    /// [`StoreError::Stale`] when there is no such move back.
    pub async fn return_update(&mut self, row: &ReturnRow) -> Result<(), StoreError> {
        let done = sqlx::query("UPDATE returns SET filled = $3, trusts_pairs = $4 WHERE tenant = $1 AND move = $2")
            .bind(row.tenant.to_string())
            .bind(row.move_id.to_string())
            .bind(i64::from(row.filled))
            .bind(i64::from(row.trusts_pairs))
            .execute(self.on())
            .await
            .map_err(StoreError::while_doing("beginning a move back"))?;
        if done.rows_affected() == 1 {
            Ok(())
        } else {
            Err(StoreError::Stale { what: "the move back" })
        }
    }

    /// Whether a mailbox is being brought back: then its old content is kept, whatever its retention.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn return_is_open(&mut self, tenant: TenantId, guid: ExchangeGuid) -> Result<bool, StoreError> {
        let row = sqlx::query(
            "SELECT COUNT(*) FROM returns JOIN moves ON moves.id = returns.move \
             WHERE returns.tenant = $1 AND returns.exchange_guid = $2 \
             AND moves.status NOT IN ('Completed', 'CompletedWithWarnings')",
        )
        .bind(tenant.to_string())
        .bind(guid.to_string())
        .fetch_one(self.on())
        .await
        .map_err(StoreError::while_doing("looking for a move back"))?;
        Ok(count(&row, 0) > 0)
    }

    /// Forgets everything in a move's ledger.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn chunk_delete_all(&mut self, tenant: TenantId, move_id: MoveId) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM chunks WHERE tenant = $1 AND move = $2")
            .bind(tenant.to_string())
            .bind(move_id.to_string())
            .execute(self.on())
            .await
            .map_err(StoreError::while_doing("removing a ledger"))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;
    use jiff::SignedDuration;

    const TENANT: TenantId = TenantId::from_u128(1);
    const GUID: ExchangeGuid = ExchangeGuid::from_u128(2);

    fn record(attempt: u128, committed: Timestamp) -> CommitRecord {
        CommitRecord {
            tenant: TENANT,
            attempt: AttemptId::from_u128(attempt),
            move_id: MoveId::from_u128(attempt + 100),
            exchange_guid: GUID,
            service_principal: ServicePrincipalId::from_u128(4),
            committed,
            retention_until: committed + SignedDuration::from_hours(24),
            approved_at: None,
            approved_by: None,
        }
    }

    #[tokio::test]
    async fn the_newest_commit_counts_and_the_first_approval_stays() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let mut tx = store.write().await.unwrap();
        assert_eq!(tx.commit_record_newest(TENANT, GUID).await.unwrap(), None);
        let (first, second) = (record(10, now), record(11, now - SignedDuration::from_hours(1)));
        for record in [&first, &first, &second, &first] {
            tx.commit_record_insert(record).await.unwrap();
        }
        assert_eq!(
            tx.commit_record_newest(TENANT, GUID).await.unwrap(),
            Some(second.clone())
        );
        assert_eq!(
            tx.commit_record_of_move(TENANT, first.move_id).await.unwrap(),
            Some(first)
        );
        for (by, at) in [("one", now), ("two", now + SignedDuration::from_secs(1))] {
            tx.commit_record_approve(TENANT, second.attempt, by, at).await.unwrap();
        }
        let approved = tx.commit_record_newest(TENANT, GUID).await.unwrap().unwrap();
        assert_eq!(
            (approved.approved_by.as_deref(), approved.approved_at),
            (Some("one"), Some(now))
        );
        assert!(
            tx.commit_record_approve(TENANT, AttemptId::from_u128(99), "x", now)
                .await
                .is_err()
        );
        // Of another tenant nothing is found.
        let other = TenantId::from_u128(9);
        assert_eq!(tx.commit_record_newest(other, GUID).await.unwrap(), None);
        assert_eq!(tx.commit_record_of_move(other, second.move_id).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_ledger_stays_until_nothing_can_be_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let mut tx = store.write().await.unwrap();
        let (kept, other) = (record(10, now), record(11, now + SignedDuration::from_hours(25)));
        for move_id in [kept.move_id, MoveId::from_u128(7)] {
            tx.chunk_put(TENANT, move_id, (1, 0, 0), Some(b"x")).await.unwrap();
        }
        tx.commit_record_insert(&kept).await.unwrap();
        for move_id in [kept.move_id, MoveId::from_u128(7)] {
            tx.move_delete(TENANT, move_id).await.unwrap();
        }
        assert!(tx.move_has_ledger(TENANT, kept.move_id).await.unwrap());
        assert!(!tx.move_has_ledger(TENANT, MoveId::from_u128(7)).await.unwrap());
        tx.commit_record_insert(&other).await.unwrap();
        assert!(!tx.move_has_ledger(TENANT, kept.move_id).await.unwrap());
    }
}

//! Attempts at the target, and the chunks of ledgers and notes.

use crate::{
    StoreError, Tx,
    columns::{instant, millis, millis_opt, parsed},
};
use jiff::Timestamp;
use rehome_domain::{
    cutover::TargetPhase,
    id::{AttemptId, Fence, MoveId, TenantId},
};
use sqlx::{Row, sqlite::SqliteRow};

/// An attempt as the target stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetAttempt {
    /// The attempt.
    pub id: AttemptId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its move.
    pub move_id: MoveId,
    /// Where it stands.
    pub phase: TargetPhase,
    /// The fencing number under which it began or was decided.
    pub fence: Fence,
    /// When it began.
    pub begun: Timestamp,
    /// The target's root as sent with Prepare.
    pub root: Option<[u8; 32]>,
    /// The exceptions as sent with Prepare (JSON).
    pub exceptions: Option<String>,
    /// The routing address as sent with Prepare.
    pub routing_address: Option<String>,
    /// The target's LegacyExchangeDN as sent with Prepare.
    pub legacy_exchange_dn: Option<String>,
    /// With this key the source may ask for the outcome; never shown.
    pub outcome_key: Vec<u8>,
    /// When decided or aborted.
    pub decided: Option<Timestamp>,
    /// When the source had answered Commit.
    pub done: Option<Timestamp>,
    /// Lock time on the source's clock, from its answer to Commit.
    pub lock_milliseconds: Option<u64>,
    /// Where the new mailbox's contents are shown.
    pub platform: Option<String>,
    /// The location there.
    pub location: Option<String>,
}

const COLUMNS: &str = "id, tenant, move, phase, fence, begun, root, exceptions, routing_address, legacy_exchange_dn, outcome_key, \
    decided, done, lock_milliseconds, platform, location";

fn phase_text(phase: TargetPhase) -> &'static str {
    match phase {
        TargetPhase::Closing => "closing",
        TargetPhase::Aborted => "aborted",
        TargetPhase::Decided => "decided",
        TargetPhase::Done => "done",
        TargetPhase::Reopened => "reopened",
        TargetPhase::CatchingUp => "catching_up",
        TargetPhase::CatchUpAborted => "catch_up_aborted",
    }
}

fn phase_from(text: &str) -> Result<TargetPhase, StoreError> {
    match text {
        "closing" => Ok(TargetPhase::Closing),
        "aborted" => Ok(TargetPhase::Aborted),
        "decided" => Ok(TargetPhase::Decided),
        "done" => Ok(TargetPhase::Done),
        "reopened" => Ok(TargetPhase::Reopened),
        "catching_up" => Ok(TargetPhase::CatchingUp),
        "catch_up_aborted" => Ok(TargetPhase::CatchUpAborted),
        other => Err(StoreError::unreadable("attempt", other)),
    }
}

pub(crate) fn root_from(bytes: Option<Vec<u8>>) -> Result<Option<[u8; 32]>, StoreError> {
    bytes
        .map(|b| {
            b.try_into()
                .map_err(|_| StoreError::unreadable("attempt", "its root is not 32 octets"))
        })
        .transpose()
}

/// An attempt's id as stored and sent: 32 hex digits with hyphens.
fn attempt_from(row: &SqliteRow) -> Result<TargetAttempt, StoreError> {
    Ok(TargetAttempt {
        id: parsed(row, 0, "attempt")?,
        tenant: parsed(row, 1, "attempt")?,
        move_id: parsed(row, 2, "attempt")?,
        phase: phase_from(row.get(3))?,
        fence: Fence(row.get(4)),
        begun: millis(row, 5)?,
        root: root_from(row.get(6))?,
        exceptions: row.get(7),
        routing_address: row.get(8),
        legacy_exchange_dn: row.get(9),
        outcome_key: row.get(10),
        decided: millis_opt(row, 11)?,
        done: millis_opt(row, 12)?,
        lock_milliseconds: row.get::<Option<i64>, _>(13).and_then(|v| u64::try_from(v).ok()),
        platform: row.get(14),
        location: row.get(15),
    })
}

impl Tx {
    /// Stores a new attempt, before Lock is sent.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn attempt_insert(&mut self, a: &TargetAttempt) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO attempts (id, tenant, move, phase, fence, begun, outcome_key, platform, location, sequence) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, \
             (SELECT COALESCE(MAX(sequence), 0) + 1 FROM attempts WHERE tenant = $2 AND move = $3))",
        )
        .bind(a.id.to_string())
        .bind(a.tenant.to_string())
        .bind(a.move_id.to_string())
        .bind(phase_text(a.phase))
        .bind(a.fence.0)
        .bind(a.begun.as_millisecond())
        .bind(&a.outcome_key)
        .bind(&a.platform)
        .bind(&a.location)
        .execute(self.on())
        .await
        .map_err(StoreError::while_doing("beginning an attempt"))?;
        Ok(())
    }

    /// Changes an attempt, only if it is still in phase `from`.
    ///
    /// # Errors
    /// [`StoreError::Stale`] when it is not: it has its outcome already.
    pub async fn attempt_update(&mut self, a: &TargetAttempt, from: TargetPhase) -> Result<(), StoreError> {
        let done = sqlx::query(
            "UPDATE attempts SET phase = $3, fence = $4, root = $5, exceptions = $6, routing_address = $7, legacy_exchange_dn = $8, \
             decided = $9, done = $10, lock_milliseconds = $11, platform = $12, location = $13 WHERE tenant = $1 AND id = $2 AND phase = $14",
        )
        .bind(a.tenant.to_string())
        .bind(a.id.to_string())
        .bind(phase_text(a.phase))
        .bind(a.fence.0)
        .bind(a.root.map(|r| r.to_vec()))
        .bind(&a.exceptions)
        .bind(&a.routing_address)
        .bind(&a.legacy_exchange_dn)
        .bind(instant(a.decided))
        .bind(instant(a.done))
        .bind(a.lock_milliseconds.and_then(|v| i64::try_from(v).ok()))
        .bind(&a.platform)
        .bind(&a.location)
        .bind(phase_text(from))
        .execute(self.on())
        .await
        .map_err(StoreError::while_doing("changing an attempt"))?;
        if done.rows_affected() == 1 {
            Ok(())
        } else {
            Err(StoreError::Stale { what: "the attempt" })
        }
    }

    /// One attempt.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn attempt_get(&mut self, tenant: TenantId, id: AttemptId) -> Result<Option<TargetAttempt>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM attempts WHERE tenant = $1 AND id = $2"
        )))
        .bind(tenant.to_string())
        .bind(id.to_string())
        .fetch_optional(self.on())
        .await
        .map_err(StoreError::while_doing("reading an attempt"))?
        .as_ref()
        .map(attempt_from)
        .transpose()
    }

    /// The newest attempt of a move.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn attempt_newest(
        &mut self,
        tenant: TenantId,
        move_id: MoveId,
    ) -> Result<Option<TargetAttempt>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM attempts WHERE tenant = $1 AND move = $2 ORDER BY sequence DESC LIMIT 1"
        )))
        .bind(tenant.to_string())
        .bind(move_id.to_string())
        .fetch_optional(self.on())
        .await
        .map_err(StoreError::while_doing("reading an attempt"))?
        .as_ref()
        .map(attempt_from)
        .transpose()
    }

    /// One opaque chunk.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn chunk_get(
        &mut self,
        tenant: TenantId,
        move_id: MoveId,
        kind: u8,
        folder: u32,
        chunk: u32,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let row = sqlx::query(
            "SELECT body FROM chunks WHERE tenant = $1 AND move = $2 AND kind = $3 AND folder = $4 AND chunk = $5",
        )
        .bind(tenant.to_string())
        .bind(move_id.to_string())
        .bind(i64::from(kind))
        .bind(i64::from(folder))
        .bind(i64::from(chunk))
        .fetch_optional(self.on())
        .await
        .map_err(StoreError::while_doing("reading a ledger"))?;
        Ok(row.map(|r| r.get(0)))
    }

    /// The numbers of a folder's chunks of one kind, ascending.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn chunk_list(
        &mut self,
        tenant: TenantId,
        move_id: MoveId,
        kind: u8,
        folder: u32,
    ) -> Result<Vec<u32>, StoreError> {
        let rows = sqlx::query(
            "SELECT chunk FROM chunks WHERE tenant = $1 AND move = $2 AND kind = $3 AND folder = $4 ORDER BY chunk",
        )
        .bind(tenant.to_string())
        .bind(move_id.to_string())
        .bind(i64::from(kind))
        .bind(i64::from(folder))
        .fetch_all(self.on())
        .await
        .map_err(StoreError::while_doing("reading a ledger"))?;
        rows.iter()
            .map(|r| u32::try_from(r.get::<i64, _>(0)).map_err(|e| StoreError::unreadable("ledger", e)))
            .collect()
    }

    /// Writes or (with none) removes a chunk.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn chunk_put(
        &mut self,
        tenant: TenantId,
        move_id: MoveId,
        (kind, folder, chunk): (u8, u32, u32),
        body: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        let sql = match body {
            Some(_) => {
                "INSERT INTO chunks (tenant, move, kind, folder, chunk, body) VALUES ($1, $2, $3, $4, $5, $6) \
                 ON CONFLICT (tenant, move, kind, folder, chunk) DO UPDATE SET body = excluded.body"
            }
            None => "DELETE FROM chunks WHERE tenant = $1 AND move = $2 AND kind = $3 AND folder = $4 AND chunk = $5",
        };
        let mut query = sqlx::query(sql)
            .bind(tenant.to_string())
            .bind(move_id.to_string())
            .bind(i64::from(kind))
            .bind(i64::from(folder))
            .bind(i64::from(chunk));
        if let Some(body) = body {
            query = query.bind(body.to_vec());
        }
        query
            .execute(self.on())
            .await
            .map_err(StoreError::while_doing("writing a ledger"))?;
        Ok(())
    }
}

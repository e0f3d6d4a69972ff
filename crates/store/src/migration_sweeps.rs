//! Sweeps for what came late to mailboxes that have moved.

use crate::{
    StoreError, Tx,
    columns::{count, instant, millis, millis_opt, parsed},
};
use jiff::Timestamp;
use rehome_domain::id::{AttemptId, MoveId, TenantId};
use sqlx::{Row, sqlite::SqliteRow};

/// The sweeps of one move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweeps {
    /// Whose it is: the target.
    pub tenant: TenantId,
    /// The move.
    pub move_id: MoveId,
    /// The attempt that the source committed.
    pub attempt: AttemptId,
    /// When the source's answer to Commit was recorded.
    pub committed: Timestamp,
    /// Until when the source keeps the old content.
    pub retention_until: Timestamp,
    /// When the next one is due; none when there will be none.
    pub next: Option<Timestamp>,
    /// How many have been made.
    pub done: u64,
    /// When the last one was made.
    pub last: Option<Timestamp>,
    /// Why the last one failed, or why there are no more.
    pub problem: Option<String>,
}

fn sweeps_from(row: &SqliteRow) -> Result<Sweeps, StoreError> {
    Ok(Sweeps {
        tenant: parsed(row, 0, "sweeps")?,
        move_id: parsed(row, 1, "sweeps")?,
        attempt: parsed(row, 2, "sweeps")?,
        committed: millis(row, 3)?,
        retention_until: millis(row, 4)?,
        next: millis_opt(row, 5)?,
        done: count(row, 6),
        last: millis_opt(row, 7)?,
        problem: row.get(8),
    })
}

impl Tx {
    /// Writes the sweeps of a move, over what was there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sweeps_put(&mut self, sweeps: &Sweeps) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO sweeps (tenant, move, attempt, committed, retention_until, next_at, done, last_at, problem) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
             ON CONFLICT (move) DO UPDATE SET attempt = excluded.attempt, committed = excluded.committed, \
             retention_until = excluded.retention_until, next_at = excluded.next_at, done = excluded.done, \
             last_at = excluded.last_at, problem = excluded.problem WHERE sweeps.tenant = excluded.tenant",
        )
        .bind(sweeps.tenant.to_string())
        .bind(sweeps.move_id.to_string())
        .bind(sweeps.attempt.to_string())
        .bind(sweeps.committed.as_millisecond())
        .bind(sweeps.retention_until.as_millisecond())
        .bind(instant(sweeps.next))
        .bind(i64::try_from(sweeps.done).unwrap_or(i64::MAX))
        .bind(instant(sweeps.last))
        .bind(&sweeps.problem)
        .execute(self.on())
        .await
        .map_err(StoreError::while_doing("planning sweeps"))?;
        Ok(())
    }

    /// The sweeps of a move; none before its Commit was answered.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sweeps_get(&mut self, tenant: TenantId, move_id: MoveId) -> Result<Option<Sweeps>, StoreError> {
        sqlx::query(
            "SELECT tenant, move, attempt, committed, retention_until, next_at, done, last_at, problem FROM sweeps \
             WHERE tenant = $1 AND move = $2",
        )
        .bind(tenant.to_string())
        .bind(move_id.to_string())
        .fetch_optional(self.on())
        .await
        .map_err(StoreError::while_doing("reading sweeps"))?
        .as_ref()
        .map(sweeps_from)
        .transpose()
    }
}

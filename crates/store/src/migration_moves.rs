//! Migration users with their moves: rows worked on under a lease with a fencing number.

use crate::{
    StoreError, Tx,
    columns::{instant, millis, millis_opt, parsed, parsed_opt},
};
use jiff::{SignedDuration, Timestamp};
use rehome_domain::{
    consistency::{Count, Findings, ItemClass},
    error_id::Problem,
    id::{BatchId, Fence, MoveId, TenantId},
    moves::{Lease, Move, MoveFigures},
};
use serde::{Deserialize, Serialize};
use sqlx::{Row, sqlite::SqliteRow};
use std::collections::BTreeMap;

const COLUMNS: &str = "moves.id, moves.tenant, moves.batch, email_address, recipient, exchange_guid, status, waiting_for, problems, \
    problem_correlation, moves.complete_after, sync_now, stop, moves.skipped_approved_until, next_run, failures, last_sync, \
    figures, lease_owner, lease_expires, fence, requests";

#[derive(Serialize, Deserialize)]
struct ProblemBody {
    id: String,
    message: String,
    advice: String,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct FiguresBody {
    items_total: u64,
    items_synced: u64,
    items_skipped: u64,
    bytes_synced: u64,
    bytes_on_wire: u64,
    bytes_total: u64,
    folders_total: u64,
    lock_milliseconds: Option<u64>,
    swept_items: u64,
    lock_round_trips: u64,
    pass_milliseconds: u64,
    /// By class, items and octets; classes without any are left out.
    findings: BTreeMap<String, (u64, u64)>,
}

fn problems_text(problems: &[Problem]) -> String {
    let bodies: Vec<ProblemBody> = problems
        .iter()
        .map(|p| ProblemBody {
            id: p.id.as_str().into(),
            message: p.message.clone(),
            advice: p.advice.clone(),
        })
        .collect();
    serde_json::json!(bodies).to_string()
}

fn problems_from(text: &str) -> Result<Vec<Problem>, StoreError> {
    let bodies: Vec<ProblemBody> = serde_json::from_str(text).map_err(|e| StoreError::unreadable("move", e))?;
    bodies
        .into_iter()
        .map(|b| {
            let id = b.id.parse().map_err(|e: String| StoreError::unreadable("move", e))?;
            Ok(Problem::new(id, b.message, b.advice))
        })
        .collect()
}

fn figures_text(f: &MoveFigures) -> String {
    serde_json::json!(FiguresBody {
        items_total: f.items_total,
        items_synced: f.items_synced,
        items_skipped: f.items_skipped,
        bytes_synced: f.bytes_synced,
        bytes_on_wire: f.bytes_on_wire,
        bytes_total: f.bytes_total,
        folders_total: f.folders_total,
        lock_milliseconds: f.lock_milliseconds,
        swept_items: f.swept_items,
        lock_round_trips: f.lock_round_trips,
        pass_milliseconds: f.pass_milliseconds,
        findings: ItemClass::ALL
            .iter()
            .map(|class| (class.as_str().to_owned(), f.findings.of(*class)))
            .filter(|(_, count)| count.items > 0)
            .map(|(class, count)| (class, (count.items, count.octets)))
            .collect(),
    })
    .to_string()
}

fn figures_from(text: &str) -> Result<MoveFigures, StoreError> {
    let b: FiguresBody = serde_json::from_str(text).map_err(|e| StoreError::unreadable("move", e))?;
    let mut findings = Findings::default();
    for class in ItemClass::ALL {
        if let Some((items, octets)) = b.findings.get(class.as_str()) {
            findings.add_many(
                *class,
                Count {
                    items: *items,
                    octets: *octets,
                },
            );
        }
    }
    Ok(MoveFigures {
        items_total: b.items_total,
        items_synced: b.items_synced,
        items_skipped: b.items_skipped,
        bytes_synced: b.bytes_synced,
        bytes_on_wire: b.bytes_on_wire,
        bytes_total: b.bytes_total,
        folders_total: b.folders_total,
        lock_milliseconds: b.lock_milliseconds,
        swept_items: b.swept_items,
        lock_round_trips: b.lock_round_trips,
        pass_milliseconds: b.pass_milliseconds,
        findings,
    })
}

fn move_from(row: &SqliteRow) -> Result<Move, StoreError> {
    let lease = match (row.get::<Option<String>, _>(18), millis_opt(row, 19)?) {
        (Some(owner), Some(expires)) => Some(Lease { owner, expires }),
        _ => None,
    };
    Ok(Move {
        id: parsed(row, 0, "move")?,
        tenant: parsed(row, 1, "move")?,
        batch: parsed(row, 2, "move")?,
        email_address: row.get(3),
        recipient: parsed_opt(row, 4, "move")?,
        exchange_guid: parsed_opt(row, 5, "move")?,
        status: parsed(row, 6, "move")?,
        waiting_for: row.get(7),
        problems: problems_from(row.get(8))?,
        problem_correlation: row.get(9),
        complete_after: millis_opt(row, 10)?,
        sync_now: row.get::<i64, _>(11) != 0,
        stop: row.get::<i64, _>(12) != 0,
        skipped_approved_until: millis_opt(row, 13)?,
        next_run: millis(row, 14)?,
        failures: u32::try_from(row.get::<i64, _>(15)).unwrap_or(u32::MAX),
        last_sync: millis_opt(row, 16)?,
        figures: figures_from(row.get(17))?,
        lease,
        fence: Fence(row.get(20)),
        requests: row.get(21),
    })
}

impl Tx {
    /// Adds a migration user.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when the batch has the address.
    pub async fn move_insert(&mut self, user: &Move) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO moves (id, tenant, batch, email_address, email_key, recipient, exchange_guid, status, waiting_for, problems, \
             problem_correlation, complete_after, sync_now, stop, skipped_approved_until, next_run, failures, last_sync, figures, fence, requests) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, 0, 0)",
        )
        .bind(user.id.to_string())
        .bind(user.tenant.to_string())
        .bind(user.batch.to_string())
        .bind(&user.email_address)
        .bind(user.email_address.to_lowercase())
        .bind(user.recipient.map(|r| r.to_string()))
        .bind(user.exchange_guid.map(|g| g.to_string()))
        .bind(user.status.as_str())
        .bind(&user.waiting_for)
        .bind(problems_text(&user.problems))
        .bind(&user.problem_correlation)
        .bind(instant(user.complete_after))
        .bind(i64::from(user.sync_now))
        .bind(i64::from(user.stop))
        .bind(instant(user.skipped_approved_until))
        .bind(user.next_run.as_millisecond())
        .bind(i64::from(user.failures))
        .bind(instant(user.last_sync))
        .bind(figures_text(&user.figures))
        .execute(self.on())
        .await
        .map_err(StoreError::unique("adding a migration user", "address", &user.email_address))?;
        Ok(())
    }

    /// One migration user.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn move_get(&mut self, tenant: TenantId, id: MoveId) -> Result<Option<Move>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM moves WHERE tenant = $1 AND id = $2"
        )))
        .bind(tenant.to_string())
        .bind(id.to_string())
        .fetch_optional(self.on())
        .await
        .map_err(StoreError::while_doing("reading a migration user"))?
        .as_ref()
        .map(move_from)
        .transpose()
    }

    /// The tenant's migration users, of one batch or all, by address.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn move_list(&mut self, tenant: TenantId, batch: Option<BatchId>) -> Result<Vec<Move>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM moves WHERE tenant = $1 AND ($2 IS NULL OR batch = $2) ORDER BY email_key, id"
        )))
        .bind(tenant.to_string())
        .bind(batch.map(|b| b.to_string()))
        .fetch_all(self.on())
        .await
        .map_err(StoreError::while_doing("listing migration users"))?
        .iter()
        .map(move_from)
        .collect()
    }

    /// The migration users with this address, in any batch of the tenant.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn move_by_address(&mut self, tenant: TenantId, address: &str) -> Result<Vec<Move>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM moves WHERE tenant = $1 AND email_key = $2 ORDER BY id"
        )))
        .bind(tenant.to_string())
        .bind(address.to_lowercase())
        .fetch_all(self.on())
        .await
        .map_err(StoreError::while_doing("finding a migration user"))?
        .iter()
        .map(move_from)
        .collect()
    }

    /// Writes the administrator's columns: complete_after, sync_now, stop, skipped_approved_until; and brings the next run forward.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn move_save_request(&mut self, user: &Move) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE moves SET complete_after = $3, sync_now = $4, stop = $5, skipped_approved_until = $6, next_run = $7, requests = requests + 1 \
             WHERE tenant = $1 AND id = $2",
        )
        .bind(user.tenant.to_string())
        .bind(user.id.to_string())
        .bind(instant(user.complete_after))
        .bind(i64::from(user.sync_now))
        .bind(i64::from(user.stop))
        .bind(instant(user.skipped_approved_until))
        .bind(user.next_run.as_millisecond())
        .execute(self.on())
        .await
        .map_err(StoreError::while_doing("changing a migration user"))?;
        Ok(())
    }

    /// Writes the worker's columns under the lease that `user` shows. The administrator's columns stay, and with them the
    /// next run when he has asked for something since `user` was read.
    ///
    /// # Errors
    /// [`StoreError::Stale`] when the lease is another's or gone.
    pub async fn move_save_work(&mut self, user: &Move) -> Result<(), StoreError> {
        let done = sqlx::query(
            "UPDATE moves SET recipient = $3, exchange_guid = $4, status = $5, waiting_for = $6, problems = $7, problem_correlation = $8, \
             next_run = CASE WHEN requests = $14 THEN $9 ELSE next_run END, failures = $10, last_sync = $11, figures = $12 \
             WHERE tenant = $1 AND id = $2 AND fence = $13",
        )
        .bind(user.tenant.to_string())
        .bind(user.id.to_string())
        .bind(user.recipient.map(|r| r.to_string()))
        .bind(user.exchange_guid.map(|g| g.to_string()))
        .bind(user.status.as_str())
        .bind(&user.waiting_for)
        .bind(problems_text(&user.problems))
        .bind(&user.problem_correlation)
        .bind(user.next_run.as_millisecond())
        .bind(i64::from(user.failures))
        .bind(instant(user.last_sync))
        .bind(figures_text(&user.figures))
        .bind(user.fence.0)
        .bind(user.requests)
        .execute(self.on())
        .await
        .map_err(StoreError::while_doing("saving a move"))?;
        if done.rows_affected() == 1 {
            Ok(())
        } else {
            Err(StoreError::Stale { what: "the move" })
        }
    }

    /// Marks a requested sync as served, unless another one was asked for since `user` was read.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn move_clear_sync_now(&mut self, user: &Move) -> Result<(), StoreError> {
        sqlx::query("UPDATE moves SET sync_now = 0 WHERE tenant = $1 AND id = $2 AND requests = $3")
            .bind(user.tenant.to_string())
            .bind(user.id.to_string())
            .bind(user.requests)
            .execute(self.on())
            .await
            .map_err(StoreError::while_doing("saving a move"))?;
        Ok(())
    }

    /// Moves of any tenant whose turn it is, longest waiting first: runnable, due, batch started (or the user is being removed),
    /// and not leased; behind them completed ones with a sweep due. A takeover waits one lease length after expiry.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn move_list_due(
        &mut self,
        now: Timestamp,
        lease: SignedDuration,
        limit: i64,
    ) -> Result<Vec<Move>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM moves JOIN batches ON batches.id = moves.batch \
             LEFT JOIN sweeps ON sweeps.move = moves.id AND sweeps.next_at <= $1 AND status IN ('Completed', 'CompletedWithWarnings') \
             WHERE next_run <= $1 AND (lease_expires IS NULL OR lease_expires <= $2) \
             AND ((batches.intent = 'started' AND status IN ('Validating', 'Queued', 'Syncing', 'Synced', 'IncrementalSyncing', 'Completing')) \
                  OR (stop = 1 AND status IN ('Validating', 'Queued', 'Syncing', 'Synced', 'IncrementalSyncing', 'Completing')) OR status IN ('Removing', 'Completing') OR sweeps.move IS NOT NULL) \
             ORDER BY sweeps.move IS NOT NULL, next_run, moves.id LIMIT $3"
        )))
        .bind(now.as_millisecond())
        .bind((now - lease).as_millisecond())
        .bind(limit)
        .fetch_all(self.on())
        .await
        .map_err(StoreError::while_doing("looking for work"))?
        .iter()
        .map(move_from)
        .collect()
    }

    /// How many moves of an endpoint are leased now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn move_count_running(
        &mut self,
        tenant: TenantId,
        endpoint: &str,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let row = sqlx::query(
            "SELECT COUNT(*) FROM moves JOIN batches ON batches.id = moves.batch \
             WHERE moves.tenant = $1 AND batches.endpoint = $2 AND lease_expires > $3",
        )
        .bind(tenant.to_string())
        .bind(endpoint)
        .bind(now.as_millisecond())
        .fetch_one(self.on())
        .await
        .map_err(StoreError::while_doing("counting running moves"))?;
        Ok(crate::columns::count(&row, 0))
    }

    /// Takes the lease of a move and returns it with its new fencing number.
    ///
    /// # Errors
    /// [`StoreError::Stale`] when someone else took it since it was read.
    pub async fn move_claim(&mut self, user: &Move, owner: &str, until: Timestamp) -> Result<Move, StoreError> {
        let done = sqlx::query(
            "UPDATE moves SET lease_owner = $3, lease_expires = $4, fence = fence + 1 WHERE tenant = $1 AND id = $2 AND fence = $5",
        )
        .bind(user.tenant.to_string())
        .bind(user.id.to_string())
        .bind(owner)
        .bind(until.as_millisecond())
        .bind(user.fence.0)
        .execute(self.on())
        .await
        .map_err(StoreError::while_doing("claiming a move"))?;
        if done.rows_affected() != 1 {
            return Err(StoreError::Stale { what: "the move" });
        }
        let lease = Some(Lease {
            owner: owner.to_owned(),
            expires: until,
        });
        Ok(Move {
            lease,
            fence: Fence(user.fence.0 + 1),
            ..user.clone()
        })
    }

    /// Extends a lease that is still ours.
    ///
    /// # Errors
    /// [`StoreError::Stale`] when it is not.
    pub async fn move_renew(
        &mut self,
        tenant: TenantId,
        id: MoveId,
        fence: Fence,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        let done = sqlx::query("UPDATE moves SET lease_expires = $4 WHERE tenant = $1 AND id = $2 AND fence = $3 AND lease_owner IS NOT NULL")
            .bind(tenant.to_string())
            .bind(id.to_string())
            .bind(fence.0)
            .bind(until.as_millisecond())
            .execute(self.on())
            .await
            .map_err(StoreError::while_doing("renewing a lease"))?;
        if done.rows_affected() == 1 {
            Ok(())
        } else {
            Err(StoreError::Stale { what: "the move" })
        }
    }

    /// Gives a lease back. Another's lease is left alone.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn move_release(&mut self, tenant: TenantId, id: MoveId, fence: Fence) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE moves SET lease_owner = NULL, lease_expires = NULL WHERE tenant = $1 AND id = $2 AND fence = $3",
        )
        .bind(tenant.to_string())
        .bind(id.to_string())
        .bind(fence.0)
        .execute(self.on())
        .await
        .map_err(StoreError::while_doing("giving a lease back"))?;
        Ok(())
    }

    /// Operator, at the start of a single-process deployment: ends leases that this host's earlier process left behind.
    /// Fencing numbers grow, so that nothing of it can still write.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn move_end_leases_of(&mut self, owner_prefix: &str) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "UPDATE moves SET lease_owner = NULL, lease_expires = NULL, fence = fence + 1 WHERE lease_owner LIKE $1 || '%'",
        )
        .bind(owner_prefix)
        .execute(self.on())
        .await
        .map_err(StoreError::while_doing("ending leases"))?;
        Ok(done.rows_affected())
    }

    /// Whether the fencing number is still the move's newest.
    ///
    /// # Errors
    /// [`StoreError::Stale`] when it is not.
    pub async fn move_check_fence(&mut self, tenant: TenantId, id: MoveId, fence: Fence) -> Result<(), StoreError> {
        let row = sqlx::query("SELECT fence FROM moves WHERE tenant = $1 AND id = $2")
            .bind(tenant.to_string())
            .bind(id.to_string())
            .fetch_optional(self.on())
            .await
            .map_err(StoreError::while_doing("checking a lease"))?;
        match row {
            Some(row) if row.get::<i64, _>(0) == fence.0 => Ok(()),
            Some(_) | None => Err(StoreError::Stale { what: "the move" }),
        }
    }

    /// Changes the status of a user whom no worker holds; writes problems and what he waits for with it.
    ///
    /// # Errors
    /// [`StoreError::Stale`] when a worker took him meanwhile.
    pub async fn move_save_unleased(&mut self, user: &Move, now: Timestamp) -> Result<(), StoreError> {
        let done = sqlx::query(
            "UPDATE moves SET status = $3, waiting_for = $4, problems = $5, problem_correlation = $6, next_run = $7, failures = $8, fence = fence + 1 \
             WHERE tenant = $1 AND id = $2 AND fence = $9 AND (lease_expires IS NULL OR lease_expires <= $10)",
        )
        .bind(user.tenant.to_string())
        .bind(user.id.to_string())
        .bind(user.status.as_str())
        .bind(&user.waiting_for)
        .bind(problems_text(&user.problems))
        .bind(&user.problem_correlation)
        .bind(user.next_run.as_millisecond())
        .bind(i64::from(user.failures))
        .bind(user.fence.0)
        .bind(now.as_millisecond())
        .execute(self.on())
        .await
        .map_err(StoreError::while_doing("changing a migration user"))?;
        if done.rows_affected() == 1 {
            Ok(())
        } else {
            Err(StoreError::Stale { what: "the move" })
        }
    }

    /// Whether anything was copied for a user: whether he has a ledger.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn move_has_ledger(&mut self, tenant: TenantId, id: MoveId) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT COUNT(*) FROM chunks WHERE tenant = $1 AND move = $2")
            .bind(tenant.to_string())
            .bind(id.to_string())
            .fetch_one(self.on())
            .await
            .map_err(StoreError::while_doing("reading a ledger"))?;
        Ok(crate::columns::count(&row, 0) > 0)
    }

    /// Removes a migration user with his ledger, which stays where his mailbox may be taken back until it may not any
    /// more. His attempts stay: an outcome is for ever.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn move_delete(&mut self, tenant: TenantId, id: MoveId) -> Result<(), StoreError> {
        for sql in [
            "DELETE FROM chunks WHERE tenant = $1 AND move = $2 \
             AND NOT EXISTS (SELECT 1 FROM commits WHERE commits.tenant = $1 AND commits.move = $2)",
            "DELETE FROM returns WHERE tenant = $1 AND move = $2",
            "DELETE FROM moves WHERE tenant = $1 AND id = $2",
        ] {
            sqlx::query(sql)
                .bind(tenant.to_string())
                .bind(id.to_string())
                .execute(self.on())
                .await
                .map_err(StoreError::while_doing("removing a migration user"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rehome_domain::moves::UserStatus;

    /// The statuses written out in the SQL of `move_list_due`.
    const DUE: &str = "'Validating', 'Queued', 'Syncing', 'Synced', 'IncrementalSyncing', 'Completing'";

    #[test]
    fn due_statuses_are_the_runnable_ones() {
        assert!(include_str!("migration_moves.rs").contains(&format!("status IN ({DUE}))")));
        for status in UserStatus::ALL {
            assert_eq!(status.runnable(), DUE.contains(&format!("'{status}'")), "{status}");
        }
    }
}

//! The source's rows: what partners have open, and every attempt they made.

use crate::{
    StoreError, Tx,
    columns::{count, instant, millis, millis_opt, parsed, parsed_opt},
    migration_attempts::root_from,
};
use jiff::Timestamp;
use rehome_domain::{
    cutover::{SourceAttempt, SourcePhase},
    id::{AttemptId, ExchangeGuid, MoveId, ServicePrincipalId, TenantId},
};
use sqlx::{Row, sqlite::SqliteRow};

/// What a partner has open here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundMove {
    /// Whose mailbox it is.
    pub tenant: TenantId,
    /// The partner's move.
    pub move_id: MoveId,
    /// The mailbox.
    pub exchange_guid: ExchangeGuid,
    /// The partner.
    pub service_principal: ServicePrincipalId,
    /// First seen.
    pub opened: Timestamp,
    /// Last seen.
    pub last_seen: Timestamp,
    /// Correlation id of the last request.
    pub last_correlation: String,
    /// Why the last request was refused, if it was: the error id and the exact reason.
    pub last_refusal: Option<String>,
    /// Items served, all passes.
    pub items_served: u64,
    /// Octets served, all passes.
    pub bytes_served: u64,
    /// When it ended: committed, or removed by the partner.
    pub ended: Option<Timestamp>,
}

/// An attempt as the source stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceAttemptRow {
    /// What the machine decides on.
    pub attempt: SourceAttempt,
    /// Whose mailbox it is.
    pub tenant: TenantId,
    /// The mailbox.
    pub exchange_guid: ExchangeGuid,
    /// When Prepare was stored.
    pub prepared_at: Option<Timestamp>,
    /// When it ended without Commit.
    pub ended_at: Option<Timestamp>,
    /// The root both sides agreed on.
    pub root: Option<[u8; 32]>,
    /// The exceptions that came with Prepare (JSON).
    pub exceptions: Option<String>,
    /// What Commit stamps as ExternalEmailAddress.
    pub routing_address: Option<String>,
    /// What Commit adds as x500 proxy.
    pub legacy_exchange_dn: Option<String>,
    /// With this key the outcome is asked.
    pub outcome_key: Option<Vec<u8>>,
    /// Where the content was when the mailbox became a mail user.
    pub platform: Option<String>,
    /// The location there.
    pub location: Option<String>,
    /// Until when the old content is kept.
    pub retention_until: Option<Timestamp>,
    /// Whether the old content has been closed on its platform.
    pub closed: bool,
    /// When the old content was removed, after retention.
    pub content_removed: Option<Timestamp>,
    /// Whether the old content is kept beyond retention.
    pub content_held: bool,
}

const ATTEMPT: &str = "id, tenant, exchange_guid, move, service_principal, phase, granted_at, lease_until, committed_at, prepared_at, \
    ended_at, root, exceptions, routing_address, legacy_exchange_dn, outcome_key, platform, location, retention_until, closed, content_removed, \
    catches_up, content_held";
const OUTBOUND: &str = "tenant, move, exchange_guid, service_principal, opened, last_seen, last_correlation, last_refusal, items_served, \
    bytes_served, ended";

fn phase_text(phase: SourcePhase) -> &'static str {
    match phase {
        SourcePhase::Locked => "locked",
        SourcePhase::Prepared => "prepared",
        SourcePhase::Committed => "committed",
        SourcePhase::Aborted => "aborted",
        SourcePhase::Lapsed => "lapsed",
        SourcePhase::Reopened => "reopened",
        SourcePhase::Released => "released",
        SourcePhase::Returned => "returned",
    }
}

fn phase_from(text: &str) -> Result<SourcePhase, StoreError> {
    match text {
        "locked" => Ok(SourcePhase::Locked),
        "prepared" => Ok(SourcePhase::Prepared),
        "committed" => Ok(SourcePhase::Committed),
        "aborted" => Ok(SourcePhase::Aborted),
        "lapsed" => Ok(SourcePhase::Lapsed),
        "reopened" => Ok(SourcePhase::Reopened),
        "released" => Ok(SourcePhase::Released),
        "returned" => Ok(SourcePhase::Returned),
        other => Err(StoreError::unreadable("attempt", other)),
    }
}

fn row_from(row: &SqliteRow) -> Result<SourceAttemptRow, StoreError> {
    Ok(SourceAttemptRow {
        attempt: SourceAttempt {
            id: parsed(row, 0, "attempt")?,
            move_id: parsed(row, 3, "attempt")?,
            service_principal: parsed(row, 4, "attempt")?,
            phase: phase_from(row.get(5))?,
            granted_at: millis(row, 6)?,
            lease_until: millis(row, 7)?,
            committed_at: millis_opt(row, 8)?,
            catches_up: parsed_opt(row, 21, "attempt")?,
        },
        tenant: parsed(row, 1, "attempt")?,
        exchange_guid: parsed(row, 2, "attempt")?,
        prepared_at: millis_opt(row, 9)?,
        ended_at: millis_opt(row, 10)?,
        root: root_from(row.get(11))?,
        exceptions: row.get(12),
        routing_address: row.get(13),
        legacy_exchange_dn: row.get(14),
        outcome_key: row.get(15),
        platform: row.get(16),
        location: row.get(17),
        retention_until: millis_opt(row, 18)?,
        closed: row.get::<i64, _>(19) != 0,
        content_removed: millis_opt(row, 20)?,
        content_held: row.get::<i64, _>(22) != 0,
    })
}

fn outbound_from(row: &SqliteRow) -> Result<OutboundMove, StoreError> {
    Ok(OutboundMove {
        tenant: parsed(row, 0, "outbound move")?,
        move_id: parsed(row, 1, "outbound move")?,
        exchange_guid: parsed(row, 2, "outbound move")?,
        service_principal: parsed(row, 3, "outbound move")?,
        opened: millis(row, 4)?,
        last_seen: millis(row, 5)?,
        last_correlation: row.get(6),
        last_refusal: row.get(7),
        items_served: count(row, 8),
        bytes_served: count(row, 9),
        ended: millis_opt(row, 10)?,
    })
}

impl Tx {
    /// The newest attempt on a mailbox: the one that counts.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn source_attempt_newest(
        &mut self,
        tenant: TenantId,
        guid: ExchangeGuid,
    ) -> Result<Option<SourceAttemptRow>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {ATTEMPT} FROM source_attempts WHERE tenant = $1 AND exchange_guid = $2 ORDER BY sequence DESC LIMIT 1"
        )))
        .bind(tenant.to_string())
        .bind(guid.to_string())
        .fetch_optional(self.on())
        .await
        .map_err(StoreError::while_doing("reading an attempt"))?
        .as_ref()
        .map(row_from)
        .transpose()
    }

    /// Adds a new attempt as the mailbox's newest.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when the tenant knows an attempt of this id.
    pub async fn source_attempt_insert(&mut self, r: &SourceAttemptRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO source_attempts (id, tenant, exchange_guid, move, service_principal, phase, granted_at, lease_until, catches_up, closed, sequence) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, \
             (SELECT COALESCE(MAX(sequence), 0) + 1 FROM source_attempts WHERE tenant = $2 AND exchange_guid = $3))",
        )
        .bind(r.attempt.id.to_string())
        .bind(r.tenant.to_string())
        .bind(r.exchange_guid.to_string())
        .bind(r.attempt.move_id.to_string())
        .bind(r.attempt.service_principal.to_string())
        .bind(phase_text(r.attempt.phase))
        .bind(r.attempt.granted_at.as_millisecond())
        .bind(r.attempt.lease_until.as_millisecond())
        .bind(r.attempt.catches_up.map(|id| id.to_string()))
        .execute(self.on())
        .await
        .map_err(StoreError::unique("storing an attempt", "attempt", &r.attempt.id.to_string()))?;
        Ok(())
    }

    /// Changes an attempt of the same mailbox, move and partner.
    ///
    /// # Errors
    /// [`StoreError::Stale`] when there is none such.
    pub async fn source_attempt_update(&mut self, r: &SourceAttemptRow) -> Result<(), StoreError> {
        let done = sqlx::query(
            "UPDATE source_attempts SET phase = $6, lease_until = $7, committed_at = $8, prepared_at = $9, ended_at = $10, root = $11, \
             exceptions = $12, routing_address = $13, legacy_exchange_dn = $14, outcome_key = $15, platform = $16, location = $17, \
             retention_until = $18, closed = $19, content_removed = $20, content_held = $21 \
             WHERE tenant = $1 AND id = $2 AND exchange_guid = $3 AND move = $4 AND service_principal = $5",
        )
        .bind(r.tenant.to_string())
        .bind(r.attempt.id.to_string())
        .bind(r.exchange_guid.to_string())
        .bind(r.attempt.move_id.to_string())
        .bind(r.attempt.service_principal.to_string())
        .bind(phase_text(r.attempt.phase))
        .bind(r.attempt.lease_until.as_millisecond())
        .bind(instant(r.attempt.committed_at))
        .bind(instant(r.prepared_at))
        .bind(instant(r.ended_at))
        .bind(r.root.map(|x| x.to_vec()))
        .bind(&r.exceptions)
        .bind(&r.routing_address)
        .bind(&r.legacy_exchange_dn)
        .bind(&r.outcome_key)
        .bind(&r.platform)
        .bind(&r.location)
        .bind(instant(r.retention_until))
        .bind(i64::from(r.closed))
        .bind(instant(r.content_removed))
        .bind(i64::from(r.content_held))
        .execute(self.on())
        .await
        .map_err(StoreError::while_doing("storing an attempt"))?;
        if done.rows_affected() == 1 {
            Ok(())
        } else {
            Err(StoreError::Stale { what: "the attempt" })
        }
    }

    /// Whether another mailbox of the tenant is promised to answer for this LegacyExchangeDN.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn source_promise_names(
        &mut self,
        tenant: TenantId,
        dn: &str,
        but: ExchangeGuid,
    ) -> Result<bool, StoreError> {
        let row = sqlx::query(
            "SELECT COUNT(*) FROM source_attempts WHERE tenant = $1 AND exchange_guid <> $2 AND phase = 'prepared' \
             AND LOWER(legacy_exchange_dn) = LOWER($3)",
        )
        .bind(tenant.to_string())
        .bind(but.to_string())
        .bind(dn)
        .fetch_one(self.on())
        .await
        .map_err(StoreError::while_doing("looking for a promise"))?;
        Ok(count(&row, 0) > 0)
    }

    /// The other mailbox that a partner's move already stands for, if there is one: a move moves one mailbox.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn outbound_other_mailbox(
        &mut self,
        tenant: TenantId,
        move_id: MoveId,
        guid: ExchangeGuid,
    ) -> Result<Option<ExchangeGuid>, StoreError> {
        sqlx::query("SELECT exchange_guid FROM outbound_moves WHERE tenant = $1 AND move = $2 AND exchange_guid <> $3 AND last_refusal IS NULL LIMIT 1")
            .bind(tenant.to_string())
            .bind(move_id.to_string())
            .bind(guid.to_string())
            .fetch_optional(self.on())
            .await
            .map_err(StoreError::while_doing("looking for an open move"))?
            .as_ref()
            .map(|r| parsed(r, 0, "outbound move"))
            .transpose()
    }

    /// When locks of this mailbox were granted since `since` that ended without Prepare; oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn source_attempt_failed_grants(
        &mut self,
        tenant: TenantId,
        guid: ExchangeGuid,
        since: Timestamp,
    ) -> Result<Vec<Timestamp>, StoreError> {
        sqlx::query(
            "SELECT granted_at FROM source_attempts WHERE tenant = $1 AND exchange_guid = $2 AND granted_at > $3 \
             AND prepared_at IS NULL AND phase IN ('aborted', 'lapsed') ORDER BY granted_at",
        )
        .bind(tenant.to_string())
        .bind(guid.to_string())
        .bind(since.as_millisecond())
        .fetch_all(self.on())
        .await
        .map_err(StoreError::while_doing("counting locks"))?
        .iter()
        .map(|r| millis(r, 0))
        .collect()
    }

    /// How many other mailboxes are Locked or Prepared for a partner.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn source_attempt_count_held(
        &mut self,
        tenant: TenantId,
        partner: ServicePrincipalId,
        but: ExchangeGuid,
    ) -> Result<u64, StoreError> {
        let row = sqlx::query(
            "SELECT COUNT(DISTINCT exchange_guid) FROM source_attempts WHERE tenant = $1 AND service_principal = $2 \
             AND exchange_guid <> $3 AND phase IN ('locked', 'prepared')",
        )
        .bind(tenant.to_string())
        .bind(partner.to_string())
        .bind(but.to_string())
        .fetch_one(self.on())
        .await
        .map_err(StoreError::while_doing("counting locks"))?;
        Ok(count(&row, 0))
    }

    /// Whether the source has promised this partner to wait for an outcome, or still answers for one:
    /// then it gets a token for Status, Commit and Abort even when consent was withdrawn.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn source_promise_exists(
        &mut self,
        tenant: TenantId,
        partner: ServicePrincipalId,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let row = sqlx::query(
            "SELECT COUNT(*) FROM source_attempts WHERE tenant = $1 AND service_principal = $2 \
             AND (phase = 'prepared' OR (phase = 'committed' AND retention_until > $3) OR (phase = 'reopened' AND NOT EXISTS \
             (SELECT 1 FROM source_attempts later WHERE later.tenant = source_attempts.tenant \
             AND later.exchange_guid = source_attempts.exchange_guid AND later.sequence > source_attempts.sequence)))",
        )
        .bind(tenant.to_string())
        .bind(partner.to_string())
        .bind(now.as_millisecond())
        .fetch_one(self.on())
        .await
        .map_err(StoreError::while_doing("looking for a promise"))?;
        Ok(count(&row, 0) > 0)
    }

    /// Operator's reaper: attempts of any tenant that are Locked with an ended lease, Prepared, or committed but not yet closed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn source_attempt_list_unfinished(
        &mut self,
        now: Timestamp,
    ) -> Result<Vec<SourceAttemptRow>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {ATTEMPT} FROM source_attempts WHERE (phase = 'locked' AND lease_until <= $1) OR phase = 'prepared' \
             OR (phase = 'committed' AND closed = 0) ORDER BY granted_at"
        )))
        .bind(now.as_millisecond())
        .fetch_all(self.on())
        .await
        .map_err(StoreError::while_doing("looking for unfinished attempts"))?
        .iter()
        .map(row_from)
        .collect()
    }

    /// Operator's reaper: attempts of any tenant whose old content has been closed, was to be kept until `now` at most, and
    /// is not removed yet; longest over first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn source_attempt_list_over(&mut self, now: Timestamp) -> Result<Vec<SourceAttemptRow>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {ATTEMPT} FROM source_attempts WHERE phase IN ('committed', 'released', 'returned') AND closed = 1 AND content_held = 0 \
             AND content_removed IS NULL AND retention_until <= $1 ORDER BY retention_until"
        )))
        .bind(now.as_millisecond())
        .fetch_all(self.on())
        .await
        .map_err(StoreError::while_doing("looking for content that is kept no longer"))?
        .iter()
        .map(row_from)
        .collect()
    }

    /// Notes that a partner asked for a mailbox: opens the outbound move, or refreshes it; adds to what was served.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn outbound_touch(&mut self, seen: &OutboundMove) -> Result<(), StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "INSERT INTO outbound_moves ({OUTBOUND}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
             ON CONFLICT (tenant, move, exchange_guid) DO UPDATE SET last_seen = excluded.last_seen, \
             last_correlation = excluded.last_correlation, last_refusal = excluded.last_refusal, \
             items_served = outbound_moves.items_served + excluded.items_served, \
             bytes_served = outbound_moves.bytes_served + excluded.bytes_served, \
             ended = COALESCE(excluded.ended, outbound_moves.ended) \
             WHERE outbound_moves.service_principal = excluded.service_principal"
        )))
        .bind(seen.tenant.to_string())
        .bind(seen.move_id.to_string())
        .bind(seen.exchange_guid.to_string())
        .bind(seen.service_principal.to_string())
        .bind(seen.opened.as_millisecond())
        .bind(seen.last_seen.as_millisecond())
        .bind(&seen.last_correlation)
        .bind(&seen.last_refusal)
        .bind(i64::try_from(seen.items_served).unwrap_or(i64::MAX))
        .bind(i64::try_from(seen.bytes_served).unwrap_or(i64::MAX))
        .bind(instant(seen.ended))
        .execute(self.on())
        .await
        .map_err(StoreError::while_doing("noting an outbound move"))?;
        Ok(())
    }

    /// The tenant's outbound moves, newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn outbound_list(&mut self, tenant: TenantId) -> Result<Vec<OutboundMove>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {OUTBOUND} FROM outbound_moves WHERE tenant = $1 ORDER BY opened DESC"
        )))
        .bind(tenant.to_string())
        .fetch_all(self.on())
        .await
        .map_err(StoreError::while_doing("listing outbound moves"))?
        .iter()
        .map(outbound_from)
        .collect()
    }

    /// The move of another partner that has a mailbox open: allowed, not ended, and seen since `since`.
    /// A partner's own newer move takes the place of his older one; he sees to it that only one runs.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn outbound_open_move(
        &mut self,
        tenant: TenantId,
        guid: ExchangeGuid,
        asking: ServicePrincipalId,
        since: Timestamp,
    ) -> Result<Option<MoveId>, StoreError> {
        sqlx::query(
            "SELECT move FROM outbound_moves WHERE tenant = $1 AND exchange_guid = $2 AND service_principal <> $3 AND ended IS NULL \
             AND last_refusal IS NULL AND last_seen > $4 ORDER BY opened LIMIT 1",
        )
        .bind(tenant.to_string())
        .bind(guid.to_string())
        .bind(asking.to_string())
        .bind(since.as_millisecond())
        .fetch_optional(self.on())
        .await
        .map_err(StoreError::while_doing("looking for an open move"))?
        .as_ref()
        .map(|r| parsed(r, 0, "outbound move"))
        .transpose()
    }

    /// The attempt with this id, if the tenant has it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn source_attempt_get(
        &mut self,
        tenant: TenantId,
        id: AttemptId,
    ) -> Result<Option<SourceAttemptRow>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {ATTEMPT} FROM source_attempts WHERE tenant = $1 AND id = $2"
        )))
        .bind(tenant.to_string())
        .bind(id.to_string())
        .fetch_optional(self.on())
        .await
        .map_err(StoreError::while_doing("reading an attempt"))?
        .as_ref()
        .map(row_from)
        .transpose()
    }
}

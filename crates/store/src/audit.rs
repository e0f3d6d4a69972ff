//! The admin audit log: append-only, hash-chained per tenant, written in the change's own transaction.

use crate::{StoreError, Tx};
use jiff::Timestamp;
use rehome_domain::id::{CorrelationId, TenantId};
use sqlx::Row;

/// What is to be recorded. Secrets are blanked before.
#[derive(Clone, Debug)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// Who: an administrator's sign-in name, `operator`, or a partner's service principal.
    pub caller: String,
    /// From where: network address, or `local`.
    pub origin: String,
    /// What was run: a cmdlet's name, or an event such as `Gate`, `Lock`, `Commit`.
    pub action: String,
    /// The object it was about.
    pub object: String,
    /// Parameters as JSON, secrets blanked.
    pub parameters: serde_json::Value,
    /// `ok`, or the error id.
    pub result: String,
    /// Stands in both sides' logs.
    pub correlation_id: CorrelationId,
}

/// A recorded entry.
#[derive(Clone, Debug)]
pub struct AuditRow {
    /// Position in the tenant's log, from 1, without gaps.
    pub sequence: i64,
    /// The record as it was hashed (JSON).
    pub body: String,
    /// BLAKE3 over the previous row's hash, then `body`.
    pub hash: [u8; 32],
}

/// The hash of a row: BLAKE3(previous hash ‖ body). The first row's previous hash is 32 zero octets.
fn row_hash(previous: &[u8; 32], body: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(previous).update(body.as_bytes());
    *hasher.finalize().as_bytes()
}

fn hash_from(bytes: &[u8]) -> Result<[u8; 32], StoreError> {
    bytes
        .try_into()
        .map_err(|_| StoreError::unreadable("audit row", "its hash is not 32 octets"))
}

impl Tx {
    /// Appends an entry to the tenant's log.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn audit_append(&mut self, tenant: TenantId, entry: &AuditEntry) -> Result<(), StoreError> {
        let doing = "appending to the audit log";
        let last = sqlx::query("SELECT sequence, hash FROM audit WHERE tenant = $1 ORDER BY sequence DESC LIMIT 1")
            .bind(tenant.to_string())
            .fetch_optional(self.on())
            .await
            .map_err(StoreError::while_doing(doing))?;
        let (sequence, previous) = match last {
            Some(row) => (row.get::<i64, _>(0) + 1, hash_from(&row.get::<Vec<u8>, _>(1))?),
            None => (1, [0; 32]),
        };
        let body = serde_json::json!({
            "sequence": sequence,
            "at": entry.at.to_string(),
            "caller": entry.caller,
            "origin": entry.origin,
            "action": entry.action,
            "object": entry.object,
            "parameters": entry.parameters,
            "result": entry.result,
            "correlation_id": entry.correlation_id.to_string(),
        })
        .to_string();
        let hash = row_hash(&previous, &body);
        sqlx::query("INSERT INTO audit (tenant, sequence, body, hash) VALUES ($1, $2, $3, $4)")
            .bind(tenant.to_string())
            .bind(sequence)
            .bind(&body)
            .bind(hash.as_slice())
            .execute(self.on())
            .await
            .map_err(StoreError::while_doing(doing))?;
        Ok(())
    }

    /// The tenant's log from `after` on, at most `limit` rows, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn audit_list(&mut self, tenant: TenantId, after: i64, limit: i64) -> Result<Vec<AuditRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT sequence, body, hash FROM audit WHERE tenant = $1 AND sequence > $2 ORDER BY sequence LIMIT $3",
        )
        .bind(tenant.to_string())
        .bind(after)
        .bind(limit)
        .fetch_all(self.on())
        .await
        .map_err(StoreError::while_doing("reading the audit log"))?;
        rows.iter()
            .map(|r| {
                Ok(AuditRow {
                    sequence: r.get(0),
                    body: r.get(1),
                    hash: hash_from(&r.get::<Vec<u8>, _>(2))?,
                })
            })
            .collect()
    }

    /// Checks the whole chain; returns the first sequence number at which it is broken.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn audit_first_break(&mut self, tenant: TenantId) -> Result<Option<i64>, StoreError> {
        let (mut previous, mut at) = ([0u8; 32], 0);
        loop {
            let rows = self.audit_list(tenant, at, 500).await?;
            if rows.is_empty() {
                return Ok(None);
            }
            for row in rows {
                if row.sequence != at + 1 || row.hash != row_hash(&previous, &row.body) {
                    return Ok(Some(at + 1));
                }
                (previous, at) = (row.hash, row.sequence);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::Store;

    use super::*;

    #[tokio::test]
    async fn tampering_shows() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let tenant = TenantId::from_u128(1);
        let entry = |n: u32| AuditEntry {
            at: Timestamp::from_second(i64::from(n)).unwrap(),
            caller: "admin@contoso.example".into(),
            origin: "local".into(),
            action: "Set-Mailbox".into(),
            object: n.to_string(),
            parameters: serde_json::json!({}),
            result: "ok".into(),
            correlation_id: CorrelationId::from_u128(u128::from(n)),
        };
        let mut tx = store.write().await.unwrap();
        for n in 0..5 {
            tx.audit_append(tenant, &entry(n)).await.unwrap();
        }
        tx.commit("test").await.unwrap();
        let mut tx = store.write().await.unwrap();
        assert_eq!(tx.audit_first_break(tenant).await.unwrap(), None);
        sqlx::query("UPDATE audit SET body = replace(body, '\"object\":\"2\"', '\"object\":\"9\"') WHERE sequence = 3")
            .execute(tx.on())
            .await
            .unwrap();
        assert_eq!(tx.audit_first_break(tenant).await.unwrap(), Some(3));
        sqlx::query("DELETE FROM audit WHERE sequence = 2")
            .execute(tx.on())
            .await
            .unwrap();
        assert_eq!(tx.audit_first_break(tenant).await.unwrap(), Some(2));
    }
}

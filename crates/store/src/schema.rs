//! Numbered schema steps. A step, once released, is never changed; each is run once, in order, in one transaction.

use crate::StoreError;
use sqlx::{Connection, Row, SqliteConnection};

/// The steps: number, what it brings, SQL.
pub const SCHEMA_STEPS: &[(i64, &str, &str)] = &[
    (1, "tenants, domains, audit", include_str!("../schema/0001_core.sql")),
    (2, "identity", include_str!("../schema/0002_identity.sql")),
    (3, "directory", include_str!("../schema/0003_directory.sql")),
    (4, "migration", include_str!("../schema/0004_migration.sql")),
    (
        5,
        "cutovers without a lock",
        include_str!("../schema/0005_unlocked.sql"),
    ),
    (6, "IMAP endpoints", include_str!("../schema/0006_imap.sql")),
    (
        7,
        "sweeps, catching up, retention",
        include_str!("../schema/0007_by_hand.sql"),
    ),
    (8, "moves back", include_str!("../schema/0008_returns.sql")),
    (9, "receipts", include_str!("../schema/0009_receipts.sql")),
    (10, "retries", include_str!("../schema/0010_retries.sql")),
];

/// Brings a database to the newest step.
pub(crate) async fn upgrade(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let doing = "bringing its schema up to date";
    sqlx::query("CREATE TABLE IF NOT EXISTS schema_steps (step BIGINT PRIMARY KEY, description TEXT NOT NULL)")
        .execute(&mut *connection)
        .await
        .map_err(StoreError::while_doing(doing))?;
    let found: i64 = sqlx::query("SELECT COALESCE(MAX(step), 0) FROM schema_steps")
        .fetch_one(&mut *connection)
        .await
        .map_err(StoreError::while_doing(doing))?
        .get(0);
    let known = SCHEMA_STEPS.iter().map(|s| s.0).max().unwrap_or(0);
    if found > known {
        return Err(StoreError::NewerSchema { found, known });
    }
    for (step, description, sql) in SCHEMA_STEPS.iter().filter(|s| s.0 > found) {
        let mut tx = connection.begin().await.map_err(StoreError::while_doing(doing))?;
        sqlx::raw_sql(*sql)
            .execute(&mut *tx)
            .await
            .map_err(StoreError::while_doing(doing))?;
        sqlx::query("INSERT INTO schema_steps (step, description) VALUES ($1, $2)")
            .bind(step)
            .bind(description)
            .execute(&mut *tx)
            .await
            .map_err(StoreError::while_doing(doing))?;
        tx.commit().await.map_err(StoreError::while_doing(doing))?;
        rehome_fault::step("store.schema");
    }
    Ok(())
}

/// The whole schema of an open database as text, for the snapshot test.
///
/// # Errors
/// When the database cannot be read.
pub async fn schema_of(connection: &mut SqliteConnection) -> Result<String, StoreError> {
    let rows = sqlx::query("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type DESC, name")
        .fetch_all(connection)
        .await
        .map_err(StoreError::while_doing("reading its schema"))?;
    Ok(rows.iter().map(|r| format!("{};\n\n", r.get::<String, _>(0))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    /// The steps together make exactly the snapshot, and running them again changes nothing. `UPDATE_GOLDEN=1` rewrites it.
    #[tokio::test]
    async fn the_steps_make_the_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        Store::open(folder.path()).await.unwrap().close().await;
        let store = Store::open(folder.path()).await.unwrap();
        let mut tx = store.read().await.unwrap();
        let made = schema_of(tx.on()).await.unwrap();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schema/snapshot.sql");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, &made).unwrap();
        }
        assert_eq!(
            made,
            std::fs::read_to_string(path).unwrap(),
            "a released step is never changed; add one"
        );
    }

    #[test]
    fn steps_ascend_without_gaps() {
        assert!(
            SCHEMA_STEPS
                .iter()
                .map(|s| s.0)
                .eq(1..=i64::try_from(SCHEMA_STEPS.len()).unwrap())
        );
    }

    #[tokio::test]
    async fn a_newer_schema_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let mut tx = store.write().await.unwrap();
        sqlx::query("INSERT INTO schema_steps VALUES (999, 'later')")
            .execute(tx.on())
            .await
            .unwrap();
        tx.commit("test").await.unwrap();
        store.close().await;
        assert!(matches!(
            Store::open(folder.path()).await,
            Err(StoreError::NewerSchema { found: 999, .. })
        ));
    }
}

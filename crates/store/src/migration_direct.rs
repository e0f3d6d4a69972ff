//! What only users copied from an IMAP server have: their name there, a sealed password, folders that are left out.

use crate::{StoreError, Tx};
use rehome_domain::{
    id::{BatchId, MoveId, TenantId},
    moves::RemoteUser,
};
use sqlx::Row;

impl Tx {
    /// Writes who a user is at the source, over what was there.
    ///
    /// # Errors
    /// [`StoreError::Stale`] when there is no such user.
    pub async fn direct_user_insert(
        &mut self,
        tenant: TenantId,
        id: MoveId,
        user: &RemoteUser,
    ) -> Result<(), StoreError> {
        let done = sqlx::query("UPDATE moves SET remote_user = $3, sealed_password = $4 WHERE tenant = $1 AND id = $2")
            .bind(tenant.to_string())
            .bind(id.to_string())
            .bind(&user.name)
            .bind(user.sealed_password.as_deref())
            .execute(self.on())
            .await
            .map_err(StoreError::while_doing("adding who a migration user is at the source"))?;
        if done.rows_affected() == 0 {
            return Err(StoreError::Stale { what: "migration user" });
        }
        Ok(())
    }

    /// Who a user is at the source; none for a user who does not come from an IMAP server.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn direct_user_get(&mut self, tenant: TenantId, id: MoveId) -> Result<Option<RemoteUser>, StoreError> {
        let row = sqlx::query(
            "SELECT remote_user, sealed_password FROM moves WHERE tenant = $1 AND id = $2 AND remote_user IS NOT NULL",
        )
        .bind(tenant.to_string())
        .bind(id.to_string())
        .fetch_optional(self.on())
        .await
        .map_err(StoreError::while_doing("reading who a migration user is at the source"))?;
        Ok(row.map(|row| RemoteUser {
            name: row.get(0),
            sealed_password: row.get(1),
        }))
    }

    /// Drops a user's sealed password.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn direct_user_forget_password(&mut self, tenant: TenantId, id: MoveId) -> Result<(), StoreError> {
        sqlx::query("UPDATE moves SET sealed_password = NULL WHERE tenant = $1 AND id = $2")
            .bind(tenant.to_string())
            .bind(id.to_string())
            .execute(self.on())
            .await
            .map_err(StoreError::while_doing("removing the password of a migration user"))?;
        Ok(())
    }

    /// Writes which folders a batch leaves out, over what was there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn batch_excluded_folders_set(
        &mut self,
        tenant: TenantId,
        id: BatchId,
        patterns: &[String],
    ) -> Result<(), StoreError> {
        let text = (!patterns.is_empty()).then(|| serde_json::json!(patterns).to_string());
        sqlx::query("UPDATE batches SET excluded_folders = $3 WHERE tenant = $1 AND id = $2")
            .bind(tenant.to_string())
            .bind(id.to_string())
            .bind(text)
            .execute(self.on())
            .await
            .map_err(StoreError::while_doing("setting the folders that a batch leaves out"))?;
        Ok(())
    }

    /// Which folders a batch leaves out, as the administrator named them.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn batch_excluded_folders_get(
        &mut self,
        tenant: TenantId,
        id: BatchId,
    ) -> Result<Vec<String>, StoreError> {
        let row = sqlx::query("SELECT excluded_folders FROM batches WHERE tenant = $1 AND id = $2")
            .bind(tenant.to_string())
            .bind(id.to_string())
            .fetch_optional(self.on())
            .await
            .map_err(StoreError::while_doing("reading the folders that a batch leaves out"))?;
        let Some(text) = row.and_then(|row| row.get::<Option<String>, _>(0)) else {
            return Ok(Vec::new());
        };
        serde_json::from_str(&text).map_err(|e| StoreError::unreadable("batch", e))
    }
}

#[cfg(test)]
mod tests {
    use crate::Store;
    use jiff::Timestamp;
    use rehome_domain::{
        batch::{BatchIntent, MigrationBatch},
        id::{BatchId, EndpointId, Fence, MoveId, TenantId},
        moves::{Move, MoveFigures, RemoteUser, UserStatus},
    };

    const TENANT: TenantId = TenantId::from_u128(1);
    const OTHER: TenantId = TenantId::from_u128(2);
    const BATCH: BatchId = BatchId::from_u128(3);

    fn batch() -> MigrationBatch {
        MigrationBatch {
            id: BATCH,
            tenant: TENANT,
            name: "Wave 1".into(),
            endpoint: EndpointId::from_u128(4),
            target_delivery_domain: None,
            intent: BatchIntent::Created,
            auto_complete: false,
            complete_after: None,
            start_after: None,
            skipped_approved_until: None,
            submitted_by: "admin".into(),
            created: Timestamp::UNIX_EPOCH,
            started: None,
        }
    }

    fn user(number: u128) -> Move {
        Move {
            id: MoveId::from_u128(number),
            tenant: TENANT,
            batch: BATCH,
            email_address: format!("user{number}@contoso.example"),
            recipient: None,
            exchange_guid: None,
            status: UserStatus::Starting,
            waiting_for: String::new(),
            problems: vec![],
            problem_correlation: None,
            complete_after: None,
            sync_now: false,
            stop: false,
            skipped_approved_until: None,
            next_run: Timestamp::UNIX_EPOCH,
            failures: 0,
            last_sync: None,
            figures: MoveFigures::default(),
            lease: None,
            fence: Fence(0),
            requests: 0,
        }
    }

    #[tokio::test]
    async fn one_users_password_is_forgotten_and_folders_stay_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let mut tx = store.write().await.unwrap();
        let remote = RemoteUser {
            name: "reception".into(),
            sealed_password: Some(vec![1, 2, 3]),
        };
        let (one, two) = (user(1), user(2));
        assert!(tx.direct_user_insert(TENANT, one.id, &remote).await.is_err());
        tx.batch_insert(&batch()).await.unwrap();
        assert_eq!(tx.batch_get(TENANT, BATCH).await.unwrap(), Some(batch()));
        for user in [&one, &two] {
            tx.move_insert(user).await.unwrap();
            assert_eq!(tx.direct_user_get(TENANT, user.id).await.unwrap(), None);
            tx.direct_user_insert(TENANT, user.id, &remote).await.unwrap();
        }
        tx.direct_user_forget_password(OTHER, one.id).await.unwrap();
        assert_eq!(tx.direct_user_get(TENANT, one.id).await.unwrap(), Some(remote.clone()));
        tx.direct_user_forget_password(TENANT, one.id).await.unwrap();
        let without = RemoteUser {
            sealed_password: None,
            ..remote.clone()
        };
        assert_eq!(tx.direct_user_get(TENANT, one.id).await.unwrap(), Some(without));
        assert_eq!(tx.direct_user_get(TENANT, two.id).await.unwrap(), Some(remote));
        assert_eq!(tx.direct_user_get(OTHER, two.id).await.unwrap(), None);

        assert!(tx.batch_excluded_folders_get(TENANT, BATCH).await.unwrap().is_empty());
        let patterns = vec!["#JunkEmail#".to_owned(), "A \"b\"/*".to_owned()];
        tx.batch_excluded_folders_set(TENANT, BATCH, &patterns).await.unwrap();
        tx.batch_excluded_folders_set(OTHER, BATCH, &[]).await.unwrap();
        assert_eq!(tx.batch_excluded_folders_get(TENANT, BATCH).await.unwrap(), patterns);
    }
}

//! Direct membership of groups.

use crate::{StoreError, Tx, directory_recipients::SELECT};
use rehome_domain::{
    id::{RecipientId, TenantId},
    recipient::Recipient,
};
use sqlx::{Row, sqlite::SqliteRow};

fn ids(rows: &[SqliteRow]) -> Result<Vec<RecipientId>, StoreError> {
    rows.iter()
        .map(|r| {
            r.get::<String, _>(0)
                .parse()
                .map_err(|e| StoreError::unreadable("group membership", e))
        })
        .collect()
}

impl Tx {
    /// Makes a recipient a direct member of a group of the same tenant; says whether it was not one already.
    ///
    /// # Errors
    /// When either is not a recipient of the tenant, or the database fails.
    pub async fn group_member_add(
        &mut self,
        tenant: TenantId,
        group: RecipientId,
        member: RecipientId,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "INSERT INTO group_members (tenant, group_id, member) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        )
        .bind(tenant.to_string())
        .bind(group.to_string())
        .bind(member.to_string())
        .execute(self.on())
        .await
        .map_err(StoreError::while_doing("adding a group member"))?;
        Ok(done.rows_affected() > 0)
    }

    /// Ends a direct membership; says whether there was one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn group_member_remove(
        &mut self,
        tenant: TenantId,
        group: RecipientId,
        member: RecipientId,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM group_members WHERE tenant = $1 AND group_id = $2 AND member = $3")
            .bind(tenant.to_string())
            .bind(group.to_string())
            .bind(member.to_string())
            .execute(self.on())
            .await
            .map_err(StoreError::while_doing("removing a group member"))?;
        Ok(done.rows_affected() > 0)
    }

    /// A group's direct members by name, at most `limit`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn group_member_list(
        &mut self,
        tenant: TenantId,
        group: RecipientId,
        limit: u32,
    ) -> Result<Vec<Recipient>, StoreError> {
        let sql = format!(
            "{SELECT} JOIN group_members m ON m.tenant = r.tenant AND m.member = r.id \
             WHERE r.tenant = $1 AND m.group_id = $2 ORDER BY r.name_key LIMIT {limit}"
        );
        self.recipient_many(&sql, tenant, &group.to_string()).await
    }

    /// The groups whose direct member a recipient is.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn groups_of(&mut self, tenant: TenantId, member: RecipientId) -> Result<Vec<RecipientId>, StoreError> {
        let rows =
            sqlx::query("SELECT group_id FROM group_members WHERE tenant = $1 AND member = $2 ORDER BY group_id")
                .bind(tenant.to_string())
                .bind(member.to_string())
                .fetch_all(self.on())
                .await
                .map_err(StoreError::while_doing("reading group memberships"))?;
        ids(&rows)
    }

    /// The groups that a recipient belongs to through other groups only; cycles are fine.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn groups_of_nested_only(
        &mut self,
        tenant: TenantId,
        member: RecipientId,
    ) -> Result<Vec<RecipientId>, StoreError> {
        let rows = sqlx::query(
            "WITH RECURSIVE above (id) AS ( \
               SELECT group_id FROM group_members WHERE tenant = $1 AND member = $2 \
               UNION SELECT g.group_id FROM group_members g JOIN above ON g.member = above.id WHERE g.tenant = $1) \
             SELECT id FROM above WHERE id NOT IN \
               (SELECT group_id FROM group_members WHERE tenant = $1 AND member = $2) ORDER BY id",
        )
        .bind(tenant.to_string())
        .bind(member.to_string())
        .fetch_all(self.on())
        .await
        .map_err(StoreError::while_doing("reading nested group memberships"))?;
        ids(&rows)
    }
}

//! Signing keys, administrators' accounts and their role groups.

use crate::{StoreError, Tx};
use jiff::Timestamp;
use rehome_domain::{
    consent::KeyPurpose,
    id::{AccountId, TenantId},
};
use sqlx::{Row, sqlite::SqliteRow};

/// One of a tenant's own signing keys, its private half sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningKeyRow {
    /// RFC 7638 thumbprint.
    pub kid: String,
    /// What it may sign.
    pub purpose: KeyPurpose,
    /// Public key: the uncompressed point, 65 octets.
    pub public: Vec<u8>,
    /// The private key as `identity` sealed it.
    pub sealed_private: Vec<u8>,
    /// When made.
    pub created: Timestamp,
    /// Since when it signs no more, if so.
    pub retired: Option<Timestamp>,
}

/// An administrator's account.
#[derive(Clone, PartialEq, Eq)]
pub struct AccountRow {
    /// The object.
    pub id: AccountId,
    /// Sign-in name as spelt at creation; compared without case.
    pub name: String,
    /// argon2id, as a PHC string; none until the first sign-in.
    pub password_hash: Option<String>,
    /// SHA-256 of the one-time code and its end, while one is open.
    pub code: Option<(Vec<u8>, Timestamp)>,
    /// Tokens issued before are refused (the password was set or reset then).
    pub tokens_from: Timestamp,
    /// Whether Basic may be used on `/powershell`.
    pub basic_allowed: bool,
    /// When made.
    pub created: Timestamp,
}

impl std::fmt::Debug for AccountRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccountRow")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A stored millisecond count as a time.
pub(crate) fn time(milliseconds: i64, what: &'static str) -> Result<Timestamp, StoreError> {
    Timestamp::from_millisecond(milliseconds).map_err(|e| StoreError::unreadable(what, e))
}

/// How a key's purpose is written.
pub(crate) fn purpose_text(purpose: KeyPurpose) -> &'static str {
    match purpose {
        KeyPurpose::Token => "token",
        KeyPurpose::Statement => "statement",
    }
}

/// Reads a key's purpose.
pub(crate) fn purpose_from(text: &str) -> Result<KeyPurpose, StoreError> {
    match text {
        "token" => Ok(KeyPurpose::Token),
        "statement" => Ok(KeyPurpose::Statement),
        other => Err(StoreError::unreadable("key", format!("its purpose is '{other}'"))),
    }
}

fn account_from(row: &SqliteRow) -> Result<AccountRow, StoreError> {
    let code = match (row.get::<Option<Vec<u8>>, _>(3), row.get::<Option<i64>, _>(4)) {
        (Some(hash), Some(end)) => Some((hash, time(end, "account")?)),
        _ => None,
    };
    Ok(AccountRow {
        id: row
            .get::<String, _>(0)
            .parse()
            .map_err(|e| StoreError::unreadable("account", e))?,
        name: row.get(1),
        password_hash: row.get(2),
        code,
        tokens_from: time(row.get(5), "account")?,
        basic_allowed: row.get::<i64, _>(6) != 0,
        created: time(row.get(7), "account")?,
    })
}

const ACCOUNT: &str =
    "SELECT id, name, password_hash, code_hash, code_expires, tokens_from, basic_allowed, created FROM accounts";

impl Tx {
    /// Adds a signing key to the tenant and counts its published set up.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when the tenant has a key with this id.
    pub async fn signing_key_insert(&mut self, tenant: TenantId, key: &SigningKeyRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO signing_keys (tenant, kid, purpose, public_key, sealed_private, created, retired) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(tenant.to_string())
        .bind(&key.kid)
        .bind(purpose_text(key.purpose))
        .bind(&key.public)
        .bind(&key.sealed_private)
        .bind(key.created.as_millisecond())
        .bind(key.retired.map(Timestamp::as_millisecond))
        .execute(self.on())
        .await
        .map_err(StoreError::unique("adding a signing key", "key id", &key.kid))?;
        sqlx::query(
            "INSERT INTO key_sets (tenant, sequence) VALUES ($1, 1) \
             ON CONFLICT (tenant) DO UPDATE SET sequence = key_sets.sequence + 1",
        )
        .bind(tenant.to_string())
        .execute(self.on())
        .await
        .map_err(StoreError::while_doing("numbering the key set"))?;
        Ok(())
    }

    /// The tenant's signing keys, oldest first, and the number of the set (0 with no key).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn signing_key_list(&mut self, tenant: TenantId) -> Result<(u64, Vec<SigningKeyRow>), StoreError> {
        let doing = "reading signing keys";
        let sequence = sqlx::query("SELECT sequence FROM key_sets WHERE tenant = $1")
            .bind(tenant.to_string())
            .fetch_optional(self.on())
            .await
            .map_err(StoreError::while_doing(doing))?
            .map_or(0, |r| r.get::<i64, _>(0));
        let keys = sqlx::query(
            "SELECT kid, purpose, public_key, sealed_private, created, retired FROM signing_keys \
             WHERE tenant = $1 ORDER BY created, kid",
        )
        .bind(tenant.to_string())
        .fetch_all(self.on())
        .await
        .map_err(StoreError::while_doing(doing))?
        .iter()
        .map(|r| {
            Ok(SigningKeyRow {
                kid: r.get(0),
                purpose: purpose_from(r.get(1))?,
                public: r.get(2),
                sealed_private: r.get(3),
                created: time(r.get(4), "signing key")?,
                retired: r.get::<Option<i64>, _>(5).map(|t| time(t, "signing key")).transpose()?,
            })
        })
        .collect::<Result<_, StoreError>>()?;
        let sequence = u64::try_from(sequence).map_err(|e| StoreError::unreadable("key set", e))?;
        Ok((sequence, keys))
    }

    /// Makes an account.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when the tenant has an account with this name.
    pub async fn account_insert(&mut self, tenant: TenantId, account: &AccountRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO accounts (tenant, id, name, name_key, password_hash, code_hash, code_expires, tokens_from, basic_allowed, created) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(tenant.to_string())
        .bind(account.id.to_string())
        .bind(&account.name)
        .bind(account.name.to_lowercase())
        .bind(&account.password_hash)
        .bind(account.code.as_ref().map(|c| c.0.clone()))
        .bind(account.code.as_ref().map(|c| c.1.as_millisecond()))
        .bind(account.tokens_from.as_millisecond())
        .bind(i64::from(account.basic_allowed))
        .bind(account.created.as_millisecond())
        .execute(self.on())
        .await
        .map_err(StoreError::unique("making an account", "sign-in name", &account.name))?;
        Ok(())
    }

    /// Writes what may change of an account: password, code, `tokens_from`, `basic_allowed`.
    ///
    /// `seen` is the row as it was read: if password, code or `tokens_from` changed since, nothing is written,
    /// so that a one-time code is used once.
    ///
    /// # Errors
    /// [`StoreError::Stale`] when it changed meanwhile or is gone.
    pub async fn account_update(
        &mut self,
        tenant: TenantId,
        seen: &AccountRow,
        new: &AccountRow,
    ) -> Result<(), StoreError> {
        let Some(current) = self.account_get(tenant, seen.id).await? else {
            return Err(StoreError::Stale { what: "the account" });
        };
        if current != *seen {
            return Err(StoreError::Stale { what: "the account" });
        }
        sqlx::query(
            "UPDATE accounts SET password_hash = $3, code_hash = $4, code_expires = $5, tokens_from = $6, basic_allowed = $7 \
             WHERE tenant = $1 AND id = $2",
        )
        .bind(tenant.to_string())
        .bind(seen.id.to_string())
        .bind(&new.password_hash)
        .bind(new.code.as_ref().map(|c| c.0.clone()))
        .bind(new.code.as_ref().map(|c| c.1.as_millisecond()))
        .bind(new.tokens_from.as_millisecond())
        .bind(i64::from(new.basic_allowed))
        .execute(self.on())
        .await
        .map_err(StoreError::while_doing("changing an account"))?;
        Ok(())
    }

    /// The account with this id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn account_get(
        &mut self,
        tenant: TenantId,
        account: AccountId,
    ) -> Result<Option<AccountRow>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!("{ACCOUNT} WHERE tenant = $1 AND id = $2")))
            .bind(tenant.to_string())
            .bind(account.to_string())
            .fetch_optional(self.on())
            .await
            .map_err(StoreError::while_doing("reading an account"))?
            .as_ref()
            .map(account_from)
            .transpose()
    }

    /// The account with this sign-in name, in any case.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn account_by_name(&mut self, tenant: TenantId, name: &str) -> Result<Option<AccountRow>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "{ACCOUNT} WHERE tenant = $1 AND name_key = $2"
        )))
        .bind(tenant.to_string())
        .bind(name.to_lowercase())
        .fetch_optional(self.on())
        .await
        .map_err(StoreError::while_doing("reading an account"))?
        .as_ref()
        .map(account_from)
        .transpose()
    }

    /// The tenant's accounts, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn account_list(&mut self, tenant: TenantId) -> Result<Vec<AccountRow>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "{ACCOUNT} WHERE tenant = $1 ORDER BY name_key"
        )))
        .bind(tenant.to_string())
        .fetch_all(self.on())
        .await
        .map_err(StoreError::while_doing("listing accounts"))?
        .iter()
        .map(account_from)
        .collect()
    }

    /// Puts an account into a role group; says whether it was not yet in it.
    ///
    /// # Errors
    /// When the account is not in the tenant, or the database fails.
    pub async fn role_group_member_insert(
        &mut self,
        tenant: TenantId,
        role_group: &str,
        account: AccountId,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "INSERT INTO role_group_members (tenant, role_group, account) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        )
        .bind(tenant.to_string())
        .bind(role_group)
        .bind(account.to_string())
        .execute(self.on())
        .await
        .map_err(StoreError::while_doing("adding a role group member"))?;
        Ok(done.rows_affected() > 0)
    }

    /// Takes an account out of a role group; says whether it was in it. Who must stay is `identity`'s to decide.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn role_group_member_delete(
        &mut self,
        tenant: TenantId,
        role_group: &str,
        account: AccountId,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM role_group_members WHERE tenant = $1 AND role_group = $2 AND account = $3")
            .bind(tenant.to_string())
            .bind(role_group)
            .bind(account.to_string())
            .execute(self.on())
            .await
            .map_err(StoreError::while_doing("removing a role group member"))?;
        Ok(done.rows_affected() > 0)
    }

    /// Who is in a role group, by sign-in name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn role_group_member_list(
        &mut self,
        tenant: TenantId,
        role_group: &str,
    ) -> Result<Vec<AccountRow>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "{ACCOUNT} WHERE tenant = $1 AND id IN \
             (SELECT account FROM role_group_members WHERE tenant = $1 AND role_group = $2) ORDER BY name_key"
        )))
        .bind(tenant.to_string())
        .bind(role_group)
        .fetch_all(self.on())
        .await
        .map_err(StoreError::while_doing("listing role group members"))?
        .iter()
        .map(account_from)
        .collect()
    }

    /// The role groups of an account, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn role_groups_of(&mut self, tenant: TenantId, account: AccountId) -> Result<Vec<String>, StoreError> {
        let rows = sqlx::query(
            "SELECT role_group FROM role_group_members WHERE tenant = $1 AND account = $2 ORDER BY role_group",
        )
        .bind(tenant.to_string())
        .bind(account.to_string())
        .fetch_all(self.on())
        .await
        .map_err(StoreError::while_doing("reading role groups"))?;
        Ok(rows.iter().map(|r| r.get(0)).collect())
    }
}

//! Recipients and their proxy addresses.

use crate::{StoreError, Tx};
use jiff::Timestamp;
use rehome_domain::{
    address::{ProxyAddress, SmtpAddress},
    id::{ExchangeGuid, MoveId, RecipientId, TenantId},
    recipient::{Group, GroupType, MailUser, Mailbox, MailboxState, Recipient, RecipientKind},
};
use serde::{Deserialize, Serialize};
use sqlx::{Row, sqlite::SqliteRow};

/// Which kind of recipient a listing is limited to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecipientFilter {
    /// Every recipient.
    All,
    /// Mailboxes.
    Mailboxes,
    /// Mail users.
    MailUsers,
    /// Groups of both types.
    Groups,
}

/// What of a recipient is not searched for.
#[derive(Serialize, Deserialize)]
struct Body {
    name: String,
    alias: String,
    display_name: String,
    user_principal_name: Option<String>,
    email_addresses: Vec<String>,
    legacy_exchange_dn: String,
    hidden: bool,
    custom_attributes: Vec<(u8, String)>,
    kind: KindBody,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum KindBody {
    Mailbox {
        exchange_guid: uuid::Uuid,
        platform: String,
        location: String,
        state: StateBody,
        litigation_hold: bool,
        max_receive_size: u64,
    },
    MailUser {
        external_email_address: Option<String>,
        exchange_guid: Option<uuid::Uuid>,
        archive_guid: Option<uuid::Uuid>,
    },
    Group {
        security: bool,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StateBody {
    Open,
    NotYetShown,
    InCutover(uuid::Uuid),
}

/// What is searched for, as columns.
struct Columns<'a> {
    kind: &'static str,
    exchange_guid: Option<String>,
    external_address: Option<String>,
    platform: Option<&'a str>,
    location: Option<&'a str>,
}

impl<'a> Columns<'a> {
    fn of(recipient: &'a Recipient) -> Self {
        let exchange_guid = recipient.exchange_guid().map(|g| g.to_string());
        match &recipient.kind {
            RecipientKind::Mailbox(m) => Self {
                kind: "mailbox",
                exchange_guid,
                external_address: None,
                platform: Some(&m.platform),
                location: Some(&m.location),
            },
            RecipientKind::MailUser(m) => Self {
                kind: "mail_user",
                exchange_guid,
                external_address: m.external_email_address.as_ref().map(SmtpAddress::key),
                platform: None,
                location: None,
            },
            RecipientKind::Group(_) => Self {
                kind: "group",
                exchange_guid,
                external_address: None,
                platform: None,
                location: None,
            },
        }
    }
}

fn body_of(r: &Recipient) -> Result<String, StoreError> {
    let kind = match &r.kind {
        RecipientKind::Mailbox(m) => KindBody::Mailbox {
            exchange_guid: m.exchange_guid.0,
            platform: m.platform.clone(),
            location: m.location.clone(),
            state: match m.state {
                MailboxState::Open => StateBody::Open,
                MailboxState::NotYetShown => StateBody::NotYetShown,
                MailboxState::InCutover(id) => StateBody::InCutover(id.0),
            },
            litigation_hold: m.litigation_hold,
            max_receive_size: m.max_receive_size,
        },
        RecipientKind::MailUser(m) => KindBody::MailUser {
            external_email_address: m.external_email_address.as_ref().map(ToString::to_string),
            exchange_guid: m.exchange_guid.map(|g| g.0),
            archive_guid: m.archive_guid.map(|g| g.0),
        },
        RecipientKind::Group(g) => KindBody::Group {
            security: g.group_type == GroupType::Security,
        },
    };
    let body = Body {
        name: r.name.clone(),
        alias: r.alias.clone(),
        display_name: r.display_name.clone(),
        user_principal_name: r.user_principal_name.clone(),
        email_addresses: r.email_addresses.iter().map(ToString::to_string).collect(),
        legacy_exchange_dn: r.legacy_exchange_dn.to_string(),
        hidden: r.hidden,
        custom_attributes: r.custom_attributes.clone(),
        kind,
    };
    serde_json::to_string(&body).map_err(|e| StoreError::unreadable("recipient", e))
}

fn time(milliseconds: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_millisecond(milliseconds).map_err(|e| StoreError::unreadable("recipient", e))
}

fn kind_from(body: KindBody) -> Result<RecipientKind, StoreError> {
    Ok(match body {
        KindBody::Mailbox {
            exchange_guid,
            platform,
            location,
            state,
            litigation_hold,
            max_receive_size,
        } => RecipientKind::Mailbox(Mailbox {
            exchange_guid: exchange_guid.into(),
            platform,
            location,
            state: match state {
                StateBody::Open => MailboxState::Open,
                StateBody::NotYetShown => MailboxState::NotYetShown,
                StateBody::InCutover(id) => MailboxState::InCutover(MoveId(id)),
            },
            litigation_hold,
            max_receive_size,
        }),
        KindBody::MailUser {
            external_email_address,
            exchange_guid,
            archive_guid,
        } => RecipientKind::MailUser(MailUser {
            external_email_address: external_email_address
                .map(|a| a.parse::<SmtpAddress>())
                .transpose()
                .map_err(|e| StoreError::unreadable("recipient", e))?,
            exchange_guid: exchange_guid.map(ExchangeGuid),
            archive_guid: archive_guid.map(ExchangeGuid),
        }),
        KindBody::Group { security } => RecipientKind::Group(Group {
            group_type: if security {
                GroupType::Security
            } else {
                GroupType::Distribution
            },
        }),
    })
}

/// Reads a row of [`SELECT`].
pub(crate) fn recipient_from(row: &SqliteRow) -> Result<Recipient, StoreError> {
    let bad = |e: &dyn std::fmt::Display| StoreError::unreadable("recipient", e);
    let body: Body = serde_json::from_str(&row.get::<String, _>("body")).map_err(|e| bad(&e))?;
    Ok(Recipient {
        id: row.get::<String, _>("id").parse().map_err(|e| bad(&e))?,
        tenant: row.get::<String, _>("tenant").parse().map_err(|e| bad(&e))?,
        name: body.name,
        alias: body.alias,
        display_name: body.display_name,
        user_principal_name: body.user_principal_name,
        email_addresses: body
            .email_addresses
            .iter()
            .map(|a| a.parse::<ProxyAddress>())
            .collect::<Result<_, _>>()
            .map_err(|e| bad(&e))?,
        legacy_exchange_dn: body.legacy_exchange_dn.parse().map_err(|e| bad(&e))?,
        kind: kind_from(body.kind)?,
        hidden: body.hidden,
        custom_attributes: body.custom_attributes,
        created: time(row.get("created"))?,
        changed: time(row.get("changed"))?,
    })
}

/// Which unique index was broken, as the administrator's word for it and the value.
fn taken<'a>(source: &sqlx::Error, r: &'a Recipient) -> Option<(&'static str, std::borrow::Cow<'a, str>)> {
    let sqlx::Error::Database(error) = source else {
        return None;
    };
    if !error.is_unique_violation() {
        return None;
    }
    let message = error.message();
    let columns: [(&str, &'static str, std::borrow::Cow<'a, str>); 7] = [
        ("recipients.name_key", "Name", r.name.as_str().into()),
        ("recipients.alias_key", "Alias", r.alias.as_str().into()),
        (
            "recipients.principal_name_key",
            "UserPrincipalName",
            r.user_principal_name.as_deref().unwrap_or_default().into(),
        ),
        (
            "recipients.legacy_exchange_dn_key",
            "LegacyExchangeDN",
            r.legacy_exchange_dn.as_str().into(),
        ),
        (
            "recipients.exchange_guid",
            "ExchangeGuid",
            r.exchange_guid().map(|g| g.to_string()).unwrap_or_default().into(),
        ),
        (
            "recipients.location",
            "mailbox location",
            r.mailbox().map_or("", |m| m.location.as_str()).into(),
        ),
        ("recipients.id", "Guid", r.id.to_string().into()),
    ];
    columns
        .into_iter()
        .find(|(column, ..)| message.contains(column))
        .map(|(_, what, value)| (what, value))
}

fn writing(doing: &'static str, recipient: &Recipient) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| match taken(&source, recipient) {
        Some((what, value)) => StoreError::Taken {
            what,
            value: value.into_owned(),
        },
        None => StoreError::Database { doing, source },
    }
}

/// The columns every reader of recipients selects.
pub(crate) const SELECT: &str = "SELECT r.tenant, r.id, r.body, r.created, r.changed FROM recipients r ";

impl Tx {
    /// Adds a recipient with its addresses.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when its Name, Alias, UserPrincipalName, LegacyExchangeDN, ExchangeGuid or one of its
    /// proxy addresses is in use in the tenant, or its place on a platform in the deployment.
    pub async fn recipient_insert(&mut self, tenant: TenantId, recipient: &Recipient) -> Result<(), StoreError> {
        let columns = Columns::of(recipient);
        sqlx::query(
            "INSERT INTO recipients (tenant, id, kind, name_key, alias_key, principal_name_key, legacy_exchange_dn_key, \
             exchange_guid, external_address_key, platform, location, body, created, changed) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        )
        .bind(tenant.to_string())
        .bind(recipient.id.to_string())
        .bind(columns.kind)
        .bind(recipient.name.to_lowercase())
        .bind(recipient.alias.to_lowercase())
        .bind(recipient.user_principal_name.as_ref().map(|n| n.to_lowercase()))
        .bind(recipient.legacy_exchange_dn.as_str().to_lowercase())
        .bind(columns.exchange_guid)
        .bind(columns.external_address)
        .bind(columns.platform)
        .bind(columns.location)
        .bind(body_of(recipient)?)
        .bind(recipient.created.as_millisecond())
        .bind(recipient.changed.as_millisecond())
        .execute(self.on())
        .await
        .map_err(writing("adding a recipient", recipient))?;
        self.proxies_insert(tenant, recipient).await
    }

    /// Writes a recipient as it is now, addresses included; says whether it was there.
    ///
    /// # Errors
    /// As [`Tx::recipient_insert`].
    pub async fn recipient_update(&mut self, tenant: TenantId, recipient: &Recipient) -> Result<bool, StoreError> {
        let columns = Columns::of(recipient);
        let done = sqlx::query(
            "UPDATE recipients SET kind = $3, name_key = $4, alias_key = $5, principal_name_key = $6, \
             legacy_exchange_dn_key = $7, exchange_guid = $8, external_address_key = $9, platform = $10, location = $11, \
             body = $12, changed = $13 WHERE tenant = $1 AND id = $2",
        )
        .bind(tenant.to_string())
        .bind(recipient.id.to_string())
        .bind(columns.kind)
        .bind(recipient.name.to_lowercase())
        .bind(recipient.alias.to_lowercase())
        .bind(recipient.user_principal_name.as_ref().map(|n| n.to_lowercase()))
        .bind(recipient.legacy_exchange_dn.as_str().to_lowercase())
        .bind(columns.exchange_guid)
        .bind(columns.external_address)
        .bind(columns.platform)
        .bind(columns.location)
        .bind(body_of(recipient)?)
        .bind(recipient.changed.as_millisecond())
        .execute(self.on())
        .await
        .map_err(writing("changing a recipient", recipient))?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query("DELETE FROM proxy_addresses WHERE tenant = $1 AND recipient = $2")
            .bind(tenant.to_string())
            .bind(recipient.id.to_string())
            .execute(self.on())
            .await
            .map_err(StoreError::while_doing("changing a recipient's addresses"))?;
        self.proxies_insert(tenant, recipient).await?;
        Ok(true)
    }

    async fn proxies_insert(&mut self, tenant: TenantId, recipient: &Recipient) -> Result<(), StoreError> {
        for address in &recipient.email_addresses {
            sqlx::query("INSERT INTO proxy_addresses (tenant, address_key, recipient) VALUES ($1, $2, $3)")
                .bind(tenant.to_string())
                .bind(address.key())
                .bind(recipient.id.to_string())
                .execute(self.on())
                .await
                .map_err(StoreError::unique(
                    "writing a proxy address",
                    "proxy address",
                    &address.to_string(),
                ))?;
        }
        Ok(())
    }

    /// Removes a recipient with its addresses and memberships; says whether it was there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn recipient_delete(&mut self, tenant: TenantId, id: RecipientId) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM recipients WHERE tenant = $1 AND id = $2")
            .bind(tenant.to_string())
            .bind(id.to_string())
            .execute(self.on())
            .await
            .map_err(StoreError::while_doing("removing a recipient"))?;
        Ok(done.rows_affected() > 0)
    }

    /// The recipient with this object id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn recipient_get(&mut self, tenant: TenantId, id: RecipientId) -> Result<Option<Recipient>, StoreError> {
        self.recipient_one(
            &format!("{SELECT} WHERE r.tenant = $1 AND r.id = $2"),
            tenant,
            &id.to_string(),
        )
        .await
    }

    /// The mailbox or mail user with this ExchangeGuid; there is at most one in a tenant.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn recipient_by_exchange_guid(
        &mut self,
        tenant: TenantId,
        guid: ExchangeGuid,
    ) -> Result<Option<Recipient>, StoreError> {
        self.recipient_one(
            &format!("{SELECT} WHERE r.tenant = $1 AND r.exchange_guid = $2"),
            tenant,
            &guid.to_string(),
        )
        .await
    }

    /// The recipient that has this proxy address; `key` is [`ProxyAddress::key`].
    ///
    /// # Errors
    /// When the database fails.
    pub async fn recipient_by_proxy(&mut self, tenant: TenantId, key: &str) -> Result<Option<Recipient>, StoreError> {
        let sql = format!(
            "{SELECT} JOIN proxy_addresses p ON p.tenant = r.tenant AND p.recipient = r.id \
             WHERE p.tenant = $1 AND p.address_key = $2"
        );
        self.recipient_one(&sql, tenant, key).await
    }

    /// The recipient an SMTP address belongs to in the whole deployment: the tenant is the one that accepts its domain.
    /// For mail flow, which knows no tenant yet.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn recipient_by_smtp_anywhere(&mut self, address: &SmtpAddress) -> Result<Option<Recipient>, StoreError> {
        match self.tenant_of_domain(address.domain()).await? {
            Some(tenant) => {
                self.recipient_by_proxy(tenant, &format!("smtp:{}", address.key()))
                    .await
            }
            None => Ok(None),
        }
    }

    /// The mail users whose ExternalEmailAddress this is.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn mail_users_by_external_address(
        &mut self,
        tenant: TenantId,
        address: &SmtpAddress,
    ) -> Result<Vec<Recipient>, StoreError> {
        let sql = format!("{SELECT} WHERE r.tenant = $1 AND r.external_address_key = $2 ORDER BY r.name_key");
        self.recipient_many(&sql, tenant, &address.key()).await
    }

    /// The recipients that use a name as LegacyExchangeDN, their own or as x500 proxy; case does not matter.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn recipients_by_legacy_exchange_dn(
        &mut self,
        tenant: TenantId,
        dn: &str,
    ) -> Result<Vec<Recipient>, StoreError> {
        let sql = format!(
            "{SELECT} WHERE r.tenant = $1 AND (r.legacy_exchange_dn_key = $2 OR r.id IN (SELECT p.recipient FROM \
             proxy_addresses p WHERE p.tenant = $1 AND p.address_key = 'x500:' || $2)) ORDER BY r.name_key"
        );
        self.recipient_many(&sql, tenant, &dn.trim().to_lowercase()).await
    }

    /// Every recipient of the tenant that an identity names: Name, Alias, any proxy address (with or without its
    /// prefix), UserPrincipalName, LegacyExchangeDN, object GUID or ExchangeGuid. More than one is for the caller to
    /// refuse as ambiguous. Blank text names nothing.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn recipient_find(&mut self, tenant: TenantId, identity: &str) -> Result<Vec<Recipient>, StoreError> {
        let key = identity.trim().to_lowercase();
        if key.is_empty() {
            return Ok(Vec::new());
        }
        let guid = uuid::Uuid::parse_str(&key).map(|g| g.hyphenated().to_string()).ok();
        let sql = format!(
            "{SELECT} WHERE r.tenant = $1 AND (r.name_key = $2 OR r.alias_key = $2 OR r.principal_name_key = $2 \
             OR r.legacy_exchange_dn_key = $2 OR r.id = $3 OR r.exchange_guid = $3 OR r.id IN (SELECT p.recipient FROM \
             proxy_addresses p WHERE p.tenant = $1 AND p.address_key IN ($2, 'smtp:' || $2, 'x500:' || $2))) \
             ORDER BY r.name_key LIMIT 10"
        );
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(tenant.to_string())
            .bind(key)
            .bind(guid)
            .fetch_all(self.on())
            .await
            .map_err(StoreError::while_doing("looking for a recipient"))?
            .iter()
            .map(recipient_from)
            .collect()
    }

    /// The tenant's recipients by name, at most `limit`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn recipient_list(
        &mut self,
        tenant: TenantId,
        filter: RecipientFilter,
        limit: u32,
    ) -> Result<Vec<Recipient>, StoreError> {
        let kind = match filter {
            RecipientFilter::All => "",
            RecipientFilter::Mailboxes => "mailbox",
            RecipientFilter::MailUsers => "mail_user",
            RecipientFilter::Groups => "group",
        };
        let sql =
            format!("{SELECT} WHERE r.tenant = $1 AND ($2 = '' OR r.kind = $2) ORDER BY r.name_key LIMIT {limit}");
        self.recipient_many(&sql, tenant, kind).await
    }

    /// Operator and platform checks: whose mailbox lies at this place, in the whole deployment.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn mailbox_at(
        &mut self,
        platform: &str,
        location: &str,
    ) -> Result<Option<(TenantId, RecipientId)>, StoreError> {
        let sql = "SELECT tenant, id FROM recipients WHERE platform = $1 AND location = $2";
        self.mailbox_where(sql, platform, location).await
    }

    /// The same on a platform that takes no notice of upper and lower case (of ASCII letters); the one in exactly this
    /// spelling first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn mailbox_at_in_any_case(
        &mut self,
        platform: &str,
        location: &str,
    ) -> Result<Option<(TenantId, RecipientId)>, StoreError> {
        let sql = "SELECT tenant, id FROM recipients WHERE platform = $1 AND lower(location) = lower($2) \
                   ORDER BY location = $2 DESC, location LIMIT 1";
        self.mailbox_where(sql, platform, location).await
    }

    async fn mailbox_where(
        &mut self,
        sql: &'static str,
        platform: &str,
        location: &str,
    ) -> Result<Option<(TenantId, RecipientId)>, StoreError> {
        sqlx::query(sql)
            .bind(platform)
            .bind(location)
            .fetch_optional(self.on())
            .await
            .map_err(StoreError::while_doing("looking for a mailbox's place"))?
            .map(|row| {
                let bad = |e| StoreError::unreadable("recipient", e);
                Ok((
                    row.get::<String, _>(0).parse().map_err(bad)?,
                    row.get::<String, _>(1).parse().map_err(bad)?,
                ))
            })
            .transpose()
    }

    /// Platform checks: where mailboxes of this platform lie, whoever's they are. Not to be shown to a tenant.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn mailbox_locations(
        &mut self,
        platform: &str,
    ) -> Result<std::collections::BTreeSet<String>, StoreError> {
        let rows = sqlx::query("SELECT location FROM recipients WHERE platform = $1")
            .bind(platform)
            .fetch_all(self.on())
            .await
            .map_err(StoreError::while_doing("listing the places of mailboxes"))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    async fn recipient_one(
        &mut self,
        sql: &str,
        tenant: TenantId,
        value: &str,
    ) -> Result<Option<Recipient>, StoreError> {
        Ok(self.recipient_many(sql, tenant, value).await?.into_iter().next())
    }

    /// Runs a query over [`SELECT`] whose `$1` is the tenant and `$2` is `value`. `sql` is always text of this room.
    pub(crate) async fn recipient_many(
        &mut self,
        sql: &str,
        tenant: TenantId,
        value: &str,
    ) -> Result<Vec<Recipient>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(sql.to_owned()))
            .bind(tenant.to_string())
            .bind(value.to_owned())
            .fetch_all(self.on())
            .await
            .map_err(StoreError::while_doing("reading recipients"))?
            .iter()
            .map(recipient_from)
            .collect()
    }
}

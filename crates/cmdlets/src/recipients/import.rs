//! Import-Mailbox: takes mailboxes that exist on a platform into the directory, without touching their contents.

use super::mailbox::{MAX_RECEIVE_SIZE, platform_error};
use crate::{
    Cmdlet,
    context::{Call, Output},
    error::CommandError,
    handler,
    lookup::{accepted_domains, check_accepted, check_addresses_free},
    roles::MAIL_RECIPIENT_CREATION,
};
use rehome_command::{Declaration, Effect, Object, Parameter, ParameterType as T, Property};
use rehome_domain::{
    address::{DomainName, LegacyExchangeDn, ProxyAddress},
    csv::{self, CsvRow, CsvRules},
    error_id::ErrorId,
    id::{ExchangeGuid, RecipientId, TenantId},
    naming::{MAX_DISPLAY_NAME, MAX_NAME, checked_alias, checked_text, default_alias},
    recipient::{Mailbox, MailboxState, Recipient, RecipientKind},
};
use rehome_platform::{Inspection, PlatformError};
use rehome_store::Tx;
use std::collections::BTreeSet;
use uuid::Uuid;

/// Most rows of one file.
const MAX_ROWS: usize = 10_000;
/// Orphans that are named one by one.
const MAX_ORPHANS: usize = 200;

pub(super) fn cmdlets() -> Vec<Cmdlet> {
    vec![Cmdlet::new(
        Declaration::new("Import", "Mailbox", Effect::Change, &[MAIL_RECIPIENT_CREATION], "Takes mailboxes that exist on a platform into the organisation.")
            .description(
                "The contents are not touched. Each mailbox gets its addresses, an ExchangeGuid that it keeps for ever and a LegacyExchangeDN.\nThe CSV file has the columns EmailAddress and Location (the folder below the platform's root) and may have Name, DisplayName, Alias and ExchangeGuid. A mailbox that is in the organisation already is left as it is, so the same file can be given again. Rows that cannot be taken in are named and do not keep the others from it.\nMailbox folders of the platform that no row and no mailbox owns are listed as orphans.",
            )
            .parameters([
                Parameter::new("Platform", T::Text, "Name of the platform, from the server's configuration.").mandatory(),
                Parameter::new("CSVData", T::Octets, "The CSV file.").mandatory(),
                Parameter::new("WhatIf", T::Switch, "Shows what would be done and does nothing."),
            ])
            .output([
                Property::column("EmailAddress", "The row's address; empty for an orphan."),
                Property::column("Location", "The folder below the platform's root."),
                Property::column("Action", "Adopt, Unchanged, Refuse or Orphan."),
                Property::column("Reason", "Why it is refused, or what was noticed."),
                Property::new("ExchangeGuid", "Identity of the contents."),
                Property::new("LegacyExchangeDN", "The name under which internal mail remembers the recipient."),
                Property::new("Folders", "Folders found."),
                Property::new("Items", "Messages found."),
            ])
            .example("Import-Mailbox -Platform main -CSVData mailboxes.csv -WhatIf", "Shows what would be taken in.")
            .example("Import-Mailbox -Platform main -CSVData mailboxes.csv", "Takes it in."),
        handler!(import_mailbox),
    )]
}

/// What is done with a row.
enum Action {
    Adopt(Box<Recipient>),
    Unchanged(Box<Recipient>),
    Refuse(String),
}

async fn import_mailbox(call: &Call<'_>) -> Result<Output, CommandError> {
    let what_if = call.parameters.switch("WhatIf");
    let platform = call.parameters.text("Platform").unwrap_or_default();
    let rules = CsvRules {
        required: &["EmailAddress", "Location"],
        optional: &["Name", "DisplayName", "Alias", "ExchangeGuid"],
        allow_unknown: false,
        max_rows: MAX_ROWS,
    };
    let rows = csv::read(call.parameters.octets("CSVData").unwrap_or_default(), &rules).map_err(|p| csv_error(&p))?;
    let platforms = &call.ctx.platforms;
    platforms.check(platform).await.map_err(|e| platform_error(&e))?;
    let mut tx = call.ctx.store.read().await?;
    let territory = Territory::of(call.tenant(), &mut tx).await?;
    drop(tx);
    // Reading every directory takes its time, so it is done before the one writer's turn begins.
    let mut looked_at = Vec::with_capacity(rows.len());
    for row in &rows {
        looked_at.push(match row.cell("Location") {
            Some(location) if !territory.holds(location) => Err(not_his(location)),
            Some(location) => platforms.inspect(platform, location).await.map_err(|e| match &e {
                PlatformError::Files { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                    nothing_at(location)
                }
                _ => platform_error(&e).message,
            }),
            None => Err("Location is empty.".to_owned()),
        });
    }

    // A preview does the same in a transaction that is given up, so that it sees what rows do to each other.
    let mut tx = call.ctx.store.write().await?;
    let domains = accepted_domains(call, &mut tx).await?;
    let (mut objects, mut adopted, mut refused) = (Vec::new(), 0u64, 0u64);
    let mut owned = tx.mailbox_locations(platform).await?;
    for (row, found) in rows.iter().zip(&looked_at) {
        let action = decide(call, &mut tx, platform, row, found, (&domains, &territory)).await?;
        match &action {
            Action::Adopt(made) => {
                tx.recipient_insert(call.tenant(), made).await?;
                adopted += 1;
            }
            Action::Unchanged(_) => {}
            Action::Refuse(_) => refused += 1,
        }
        owned.extend(row.cell("Location").map(str::to_owned));
        objects.push(shown(row, &action, found.as_ref().ok(), what_if));
    }
    if !what_if && adopted > 0 {
        call.save_with(
            tx,
            platform,
            serde_json::json!({ "Adopted": adopted, "Refused": refused }),
        )
        .await?;
    } else {
        drop(tx);
    }
    let mut warnings = Vec::new();
    if refused > 0 {
        warnings.push(format!(
            "{refused} of {} rows were refused; the column Reason says why. Mend them and give the file again.",
            rows.len()
        ));
    }
    let orphans = orphans(call, platform, owned, &territory).await?;
    if !orphans.is_empty() {
        warnings.push(format!(
            "{} mailbox folders on '{platform}' belong to no mailbox; they are listed as Orphan.",
            orphans.len()
        ));
    }
    objects.extend(orphans.iter().take(MAX_ORPHANS).map(|o| orphan(o)));
    Ok(Output::many(objects).warning(warnings))
}

/// A file that cannot be used, every fault named.
pub(crate) fn csv_error(problems: &[csv::CsvProblem]) -> CommandError {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    CommandError::new(
        ErrorId::MigrationCsvInvalid,
        "CSVData",
        format!(
            "The CSV file cannot be used, and nothing was done:\n{}.",
            lines.join(";\n")
        ),
        "Mend the file and run the command again.",
    )
}

/// Which folders of a platform a tenant may take. Alone in a deployment he may take any; beside others only those below a
/// folder that is named like him, so that no tenant adopts another's mail.
struct Territory {
    alone: bool,
    /// His GUID and his domains.
    own: BTreeSet<String>,
}

impl Territory {
    async fn of(tenant: TenantId, tx: &mut Tx) -> Result<Self, CommandError> {
        let mut own = BTreeSet::from([tenant.to_string()]);
        own.extend(
            tx.accepted_domain_list(tenant)
                .await?
                .into_iter()
                .map(|d| d.name.to_string()),
        );
        let alone = tx.tenant_list().await?.len() == 1;
        Ok(Self { alone, own })
    }

    fn holds(&self, location: &str) -> bool {
        let first = location.split('/').next().unwrap_or_default();
        self.alone || self.own.contains(&first.to_lowercase())
    }
}

/// Said without a look at what is there.
fn not_his(location: &str) -> String {
    format!(
        "'{location}' is not below a folder of this organisation. Where a deployment serves several, the operator puts what \
         each may adopt below a folder named like its domain, for example contoso.example/reception."
    )
}

fn nothing_at(location: &str) -> String {
    format!("There is no mailbox at '{location}'.")
}

async fn decide(
    call: &Call<'_>,
    tx: &mut Tx,
    platform: &str,
    row: &CsvRow,
    found: &Result<Inspection, String>,
    (domains, territory): (&[DomainName], &Territory),
) -> Result<Action, CommandError> {
    let location = row.cell("Location").unwrap_or_default();
    if !territory.holds(location) {
        return Ok(Action::Refuse(not_his(location)));
    }
    let made = match recipient_of(call, tx, platform, row).await {
        Ok(made) => made,
        Err(error) => return Ok(Action::Refuse(error.message)),
    };
    if let Some(present) = tx
        .recipient_by_proxy(call.tenant(), &format!("smtp:{}", row.address.key()))
        .await?
    {
        return Ok(compared(row, platform, location, present));
    }
    match found {
        Err(why) => return Ok(Action::Refuse(why.clone())),
        Ok(found) if !found.is_maildir => {
            return Ok(Action::Refuse(format!(
                "'{location}' is not a Maildir: it lacks cur or new."
            )));
        }
        Ok(_) => {}
    }
    if let Some((tenant, id)) = tx.mailbox_at(platform, location).await? {
        let holder = if tenant == call.tenant() {
            tx.recipient_get(tenant, id).await?
        } else {
            None
        };
        let who = holder.map_or_else(|| "another mailbox".to_owned(), |h| format!("'{}'", h.name));
        return Ok(Action::Refuse(format!(
            "The folder '{location}' is already the place of {who}."
        )));
    }
    if let Err(error) = check_accepted(domains, made.smtp_addresses()) {
        return Ok(Action::Refuse(error.message));
    }
    if let Err(error) = check_addresses_free(call, tx, &made).await {
        return Ok(Action::Refuse(error.message));
    }
    if let Some(taken) = name_taken(call, tx, &made).await? {
        return Ok(Action::Refuse(taken));
    }
    Ok(Action::Adopt(Box::new(made)))
}

/// Name, Alias and ExchangeGuid, as the insert would check them; a preview must say it too.
async fn name_taken(call: &Call<'_>, tx: &mut Tx, made: &Recipient) -> Result<Option<String>, CommandError> {
    for (what, value) in [("Name", &made.name), ("Alias", &made.alias)] {
        let found = tx.recipient_find(call.tenant(), value).await?;
        let same = |r: &&Recipient| {
            if what == "Name" {
                r.name.eq_ignore_ascii_case(value)
            } else {
                r.alias.eq_ignore_ascii_case(value)
            }
        };
        if let Some(holder) = found.iter().find(same) {
            return Ok(Some(format!(
                "The {what} '{value}' is already used by '{}'.",
                holder.name
            )));
        }
    }
    match made.exchange_guid() {
        Some(guid) => Ok(tx
            .recipient_by_exchange_guid(call.tenant(), guid)
            .await?
            .map(|holder| format!("The ExchangeGuid {guid} is already used by '{}'.", holder.name))),
        None => Ok(None),
    }
}

/// A row whose address is in the directory: the same mailbox, or a contradiction.
fn compared(row: &CsvRow, platform: &str, location: &str, present: Recipient) -> Action {
    let Some(mailbox) = present.mailbox() else {
        return Action::Refuse(format!(
            "{} is the address of '{}', which is of type {}.",
            row.address,
            present.name,
            present.recipient_type()
        ));
    };
    if mailbox.platform != platform || mailbox.location != location {
        return Action::Refuse(format!(
            "{} is the address of '{}', whose contents lie at '{}' on '{}'.",
            row.address, present.name, mailbox.location, mailbox.platform
        ));
    }
    let other_guid = row
        .cell("ExchangeGuid")
        .and_then(|g| g.parse::<ExchangeGuid>().ok())
        .filter(|g| *g != mailbox.exchange_guid);
    match other_guid {
        Some(guid) => Action::Refuse(format!(
            "'{}' has the ExchangeGuid {}, which it keeps for ever, not {guid}.",
            present.name, mailbox.exchange_guid
        )),
        None => Action::Unchanged(Box::new(present)),
    }
}

async fn recipient_of(call: &Call<'_>, tx: &mut Tx, platform: &str, row: &CsvRow) -> Result<Recipient, CommandError> {
    let alias = match row.cell("Alias") {
        Some(alias) => checked_alias(alias)?,
        None => default_alias(Some(&row.address), row.address.local()),
    };
    let name = checked_text("Name", row.cell("Name").unwrap_or(row.address.local()), MAX_NAME)?;
    let display_name = checked_text(
        "DisplayName",
        row.cell("DisplayName").unwrap_or(&name),
        MAX_DISPLAY_NAME,
    )?;
    let exchange_guid = match row.cell("ExchangeGuid").map(Uuid::parse_str) {
        None => ExchangeGuid(Uuid::new_v4()),
        Some(Ok(guid)) if !guid.is_nil() => ExchangeGuid(guid),
        Some(Ok(_) | Err(_)) => {
            return Err(CommandError::parameter(
                "CSVData",
                "ExchangeGuid is not a GUID, or zero.",
                "",
            ));
        }
    };
    let id = RecipientId(Uuid::new_v4());
    let tenant = tx.tenant_get(call.tenant()).await?;
    let organisation = tenant.map_or_else(|| row.address.domain().clone(), |t| t.initial_domain);
    Ok(Recipient {
        id,
        tenant: call.tenant(),
        legacy_exchange_dn: LegacyExchangeDn::for_recipient(&organisation, id, &alias),
        name,
        alias,
        display_name,
        user_principal_name: Some(row.address.to_string()),
        email_addresses: vec![ProxyAddress::Primary(row.address.clone())],
        kind: RecipientKind::Mailbox(Mailbox {
            exchange_guid,
            platform: platform.to_owned(),
            location: row.cell("Location").unwrap_or_default().to_owned(),
            state: MailboxState::Open,
            litigation_hold: false,
            max_receive_size: MAX_RECEIVE_SIZE,
        }),
        hidden: false,
        custom_attributes: Vec::new(),
        created: call.ctx.now,
        changed: call.ctx.now,
    })
}

fn shown(row: &CsvRow, action: &Action, found: Option<&Inspection>, what_if: bool) -> Object {
    let (word, recipient, reason) = match action {
        Action::Adopt(made) => ("Adopt", Some(made), found.map(noticed).unwrap_or_default()),
        Action::Unchanged(present) => ("Unchanged", Some(present), String::new()),
        Action::Refuse(why) => ("Refuse", None, why.clone()),
    };
    // A preview's new names would not be the ones given later.
    let made_up = what_if && word == "Adopt";
    let guid = recipient
        .and_then(|r| r.exchange_guid())
        .map(|g| g.0)
        .filter(|_| !made_up || row.cell("ExchangeGuid").is_some());
    Object::new()
        .with("EmailAddress", row.address.to_string())
        .with("Location", row.cell("Location"))
        .with("Action", word)
        .with("Reason", reason)
        .with("ExchangeGuid", guid)
        .with(
            "LegacyExchangeDN",
            recipient.filter(|_| !made_up).map(|r| r.legacy_exchange_dn.to_string()),
        )
        .with("Folders", found.map(|f| f.folders))
        .with("Items", found.map(|f| f.items))
}

/// What an administrator should see of a Maildir that is taken in all the same.
fn noticed(found: &Inspection) -> String {
    let mut told: Vec<String> = found
        .problems
        .iter()
        .take(3)
        .map(|p| format!("{} {}", p.path, p.kind))
        .collect();
    let more =
        u64::try_from(found.problems.len().saturating_sub(told.len())).unwrap_or_default() + found.problems_untold;
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    told.join("; ")
}

fn orphan(location: &str) -> Object {
    Object::new()
        .with("EmailAddress", "")
        .with("Location", location)
        .with("Action", "Orphan")
        .with("Reason", "No row and no mailbox owns this folder.")
        .with("ExchangeGuid", None::<String>)
        .with("LegacyExchangeDN", None::<String>)
        .with("Folders", None::<u64>)
        .with("Items", None::<u64>)
}

async fn orphans(
    call: &Call<'_>,
    platform: &str,
    owned: BTreeSet<String>,
    territory: &Territory,
) -> Result<Vec<String>, CommandError> {
    let mut orphans = call
        .ctx
        .platforms
        .orphans(platform, owned)
        .await
        .map_err(|e| platform_error(&e))?;
    orphans.retain(|location| territory.holds(location));
    Ok(orphans)
}

//! Import-Mailbox: takes mailboxes that exist on a platform into the directory, without touching their contents.

use super::{
    discover::{Candidates, Holdings, Hopeless, candidates, look_at},
    mailbox::{MAX_RECEIVE_SIZE, platform_error},
};
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
    csv::{self, CsvRow},
    error_id::ErrorId,
    id::{ExchangeGuid, RecipientId},
    naming::{MAX_DISPLAY_NAME, MAX_NAME, checked_alias, checked_text, default_alias},
    recipient::{Mailbox, MailboxState, Recipient, RecipientKind},
};
use rehome_platform::{Driver, Inspection};
use rehome_store::Tx;
use std::collections::BTreeSet;
use uuid::Uuid;

/// Orphans that are named one by one.
const MAX_ORPHANS: usize = 200;

pub(super) fn cmdlets() -> Vec<Cmdlet> {
    vec![Cmdlet::new(
        Declaration::new("Import", "Mailbox", Effect::Change, &[MAIL_RECIPIENT_CREATION], "Takes mailboxes that exist on a platform into the organisation.")
            .description(
                "The contents are not touched. Each mailbox gets its addresses, an ExchangeGuid that it keeps for ever and a LegacyExchangeDN.\nThe CSV file has the columns EmailAddress and Location (the folder below the platform's root; on an IMAP platform the account) and may have Name, DisplayName, Alias and ExchangeGuid. A mailbox that is in the organisation already is left as it is, so the same file can be given again. Rows that cannot be taken in are named and do not keep the others from it.\nWith -Discover there is no file: -Template says how the folders of a platform of Maildirs are named, and -UserList takes the accounts of an IMAP platform as the server's administrator has them: one name a line, with an address after it if it has another; a passwd-file; or what 'doveadm user *' prints. Look with -WhatIf first.\nMailbox folders of the platform that no row and no mailbox owns are listed as orphans.",
            )
            .parameters([
                Parameter::new("Platform", T::Text, "Name of the platform, from the server's configuration.").mandatory(),
                Parameter::new("CSVData", T::Octets, "The CSV file.").mandatory().sets(&["CSV"]),
                Parameter::new("Discover", T::Switch, "Finds the mailboxes instead of being told them.")
                    .mandatory()
                    .sets(&["Template", "UserList"]),
                Parameter::new(
                    "Template",
                    T::Text,
                    "How the folders are named, such as /srv/mail/{domain}/{user}: {domain} and {user} each stand for one folder.",
                )
                .mandatory()
                .sets(&["Template"]),
                Parameter::new("UserList", T::Octets, "The accounts.").mandatory().sets(&["UserList"]),
                Parameter::new(
                    "Domain",
                    T::Text,
                    "The domain of addresses where neither folder nor account names one; the organisation's first one unless given.",
                )
                .sets(&["Template", "UserList"]),
                Parameter::new("WhatIf", T::Switch, "Shows what would be done and does nothing."),
            ])
            .output([
                Property::column("EmailAddress", "The row's address; empty for an orphan."),
                Property::column("Location", "The folder below the platform's root, or the account."),
                Property::column("Action", "Adopt, Unchanged, Refuse or Orphan."),
                Property::column("Reason", "Why it is refused, or what was noticed."),
                Property::new("ExchangeGuid", "Identity of the contents."),
                Property::new("LegacyExchangeDN", "The name under which internal mail remembers the recipient."),
                Property::new("Folders", "Folders found."),
                Property::new("Items", "Messages found."),
                Property::new("Octets", "Their octets, where the platform tells."),
            ])
            .default_set("CSV")
            .example("Import-Mailbox -Platform main -CSVData mailboxes.csv -WhatIf", "Shows what would be taken in.")
            .example("Import-Mailbox -Platform main -CSVData mailboxes.csv", "Takes it in.")
            .example(
                "Import-Mailbox -Platform main -Discover -Template '/srv/mail/{domain}/{user}' -WhatIf",
                "Shows the mailboxes that are there, and what would become of each.",
            )
            .example(
                "Import-Mailbox -Platform dovecot -Discover -UserList users.txt -WhatIf",
                "Shows the accounts of a list, which 'doveadm user *' printed.",
            ),
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
    let platforms = &call.ctx.platforms;
    platforms.check(platform).await.map_err(|e| platform_error(&e))?;
    let Candidates { rows, hopeless } = candidates(call, platform).await?;
    let mut tx = call.ctx.store.read().await?;
    let holdings = Holdings {
        territory: tx.territory(call.tenant()).await?,
        driver: platforms.driver(platform).map_err(|e| platform_error(&e))?,
    };
    drop(tx);
    // Reading every directory takes its time, so it is done before the one writer's turn begins.
    let looked_at = look_at(call, platform, &rows, &holdings).await;

    // A preview does the same in a transaction that is given up, so that it sees what rows do to each other.
    let mut tx = call.ctx.store.write().await?;
    let domains = accepted_domains(call, &mut tx).await?;
    let (mut objects, mut adopted, mut refused) = (Vec::new(), 0u64, 0u64);
    let mut owned = tx.mailbox_locations(platform).await?;
    let mut accounts: BTreeSet<String> = owned.iter().map(|location| location.to_lowercase()).collect();
    for (row, found) in rows.iter().zip(&looked_at) {
        let action = decide(call, &mut tx, platform, row, found, (&domains, &holdings, &accounts)).await?;
        match &action {
            Action::Adopt(made) => {
                tx.recipient_insert(call.tenant(), made).await?;
                accounts.extend(row.cell("Location").map(str::to_lowercase));
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
    refused += hopeless.len() as u64;
    owned.extend(hopeless.iter().map(|one| one.location.clone()));
    objects.extend(hopeless.iter().map(Hopeless::shown));
    let mut warnings = Vec::new();
    if refused > 0 {
        warnings.push(format!(
            "{refused} of {} rows were refused; the column Reason says why. Mend them and run the command again.",
            rows.len() + hopeless.len()
        ));
    }
    let orphans = orphans(call, platform, owned, &holdings).await?;
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

async fn decide(
    call: &Call<'_>,
    tx: &mut Tx,
    platform: &str,
    row: &CsvRow,
    found: &Result<Inspection, String>,
    (domains, holdings, accounts): (&[DomainName], &Holdings, &BTreeSet<String>),
) -> Result<Action, CommandError> {
    let location = row.cell("Location").unwrap_or_default();
    if let Some(why) = holdings.refuse(location) {
        return Ok(Action::Refuse(why));
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
        Ok(found) if !found.is_mailbox => {
            return Ok(Action::Refuse(format!(
                "'{location}' is not a Maildir: it lacks cur or new."
            )));
        }
        Ok(_) => {}
    }
    let holder = match holdings.driver {
        Driver::Imap => tx.mailbox_at_in_any_case(platform, location).await?,
        Driver::Maildir => tx.mailbox_at(platform, location).await?,
    };
    if let Some((tenant, id)) = holder {
        let holder = if tenant == call.tenant() {
            tx.recipient_get(tenant, id).await?
        } else {
            None
        };
        let who = holder.map_or_else(|| "another mailbox".to_owned(), |h| format!("'{}'", h.name));
        return Ok(Action::Refuse(format!("'{location}' is already the place of {who}.")));
    }
    // Servers take no notice of upper and lower case in account names.
    if holdings.driver == Driver::Imap && accounts.contains(&location.to_lowercase()) {
        return Ok(Action::Refuse(format!(
            "'{location}', in another spelling, is already the place of another mailbox."
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
        .with("Octets", found.and_then(|f| f.octets))
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
        .with("Octets", None::<u64>)
}

async fn orphans(
    call: &Call<'_>,
    platform: &str,
    owned: BTreeSet<String>,
    holdings: &Holdings,
) -> Result<Vec<String>, CommandError> {
    let mut orphans = call
        .ctx
        .platforms
        .orphans(platform, owned)
        .await
        .map_err(|e| platform_error(&e))?;
    orphans.retain(|location| holdings.refuse(location).is_none());
    Ok(orphans)
}

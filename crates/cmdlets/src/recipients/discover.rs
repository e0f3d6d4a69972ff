//! Which mailboxes Import-Mailbox is to take in: those of a file, or those that are found.

use super::{import::csv_error, mailbox::platform_error};
use crate::{context::Call, error::CommandError};
use rehome_command::Object;
use rehome_domain::{
    address::DomainName,
    adoption::Territory,
    csv::{self, CsvRow, CsvRules},
    user_list::{self, address_of},
};
use rehome_platform::{Driver, Inspection, PlatformError, TemplateFound};
use tokio::task::JoinSet;

/// Most rows of one file, one list or one template.
const MAX_ROWS: usize = 10_000;
/// Accounts that are looked at at once.
const AT_ONCE: usize = 4;
/// Accounts that may not be there before the rest is not looked at: a server takes failed sign-ins in numbers for an attack.
const FAILED_SIGN_INS: usize = 20;

/// What is to be taken in.
#[derive(Default)]
pub(super) struct Candidates {
    /// Rows, as a CSV file has them.
    pub(super) rows: Vec<CsvRow>,
    /// What was found and cannot even be a row.
    pub(super) hopeless: Vec<Hopeless>,
}

/// Something found that cannot be taken in.
pub(super) struct Hopeless {
    /// Where.
    pub(super) location: String,
    /// Why not.
    reason: String,
}

impl Hopeless {
    /// As a row of the answer.
    pub(super) fn shown(&self) -> Object {
        Object::new()
            .with("EmailAddress", "")
            .with("Location", self.location.as_str())
            .with("Action", "Refuse")
            .with("Reason", self.reason.as_str())
            .with("ExchangeGuid", None::<String>)
            .with("LegacyExchangeDN", None::<String>)
            .with("Folders", None::<u64>)
            .with("Items", None::<u64>)
            .with("Octets", None::<u64>)
    }
}

/// What of a platform a tenant may take.
pub(super) struct Holdings {
    /// Whose names are his.
    pub(super) territory: Territory,
    /// What the platform's locations are.
    pub(super) driver: Driver,
}

impl Holdings {
    /// Why a location is not his to take; none: it is.
    pub(super) fn refuse(&self, location: &str) -> Option<String> {
        match self.driver {
            Driver::Maildir if !self.territory.holds_folder(location) => Some(Territory::not_his_folder(location)),
            Driver::Imap if !self.territory.holds_account(location) => Some(Territory::not_his_account(location)),
            Driver::Maildir | Driver::Imap => None,
        }
    }
}

/// What the parameters name.
pub(super) async fn candidates(call: &Call<'_>, platform: &str) -> Result<Candidates, CommandError> {
    let p = call.parameters;
    if let Some(template) = p.text("Template") {
        let domain = domain(call).await?;
        let found = call.ctx.platforms.discover(platform, template, MAX_ROWS).await;
        let found = found.map_err(|error| discover_error("Template", &error))?;
        let territory = call.ctx.store.read().await?.territory(call.tenant()).await?;
        let mut all = Candidates::default();
        // Of another tenant's folders not even the names are told.
        for one in found.into_iter().filter(|one| territory.holds_folder(&one.location)) {
            all.take_folder(one, &domain);
        }
        return Ok(all);
    }
    if let Some(list) = p.octets("UserList") {
        let domain = domain(call).await?;
        let accounts = user_list::read(list, &domain, MAX_ROWS)
            .map_err(|error| CommandError::parameter("UserList", format!("{error}."), ""))?;
        let mut all = Candidates::default();
        for listed in accounts {
            match listed.address {
                Ok(address) => all.rows.push(CsvRow {
                    line: listed.line,
                    address,
                    cells: vec![("Location".to_owned(), listed.account)],
                }),
                Err(reason) => all.hopeless.push(Hopeless {
                    location: listed.account,
                    reason,
                }),
            }
        }
        return Ok(all);
    }
    let rules = CsvRules {
        required: &["EmailAddress", "Location"],
        optional: &["Name", "DisplayName", "Alias", "ExchangeGuid"],
        secret: &[],
        allow_unknown: false,
        max_rows: MAX_ROWS,
    };
    let rows = csv::read(p.octets("CSVData").unwrap_or_default(), &rules).map_err(|problems| csv_error(&problems))?;
    Ok(Candidates {
        rows,
        hopeless: Vec::new(),
    })
}

impl Candidates {
    fn take_folder(&mut self, found: TemplateFound, domain: &DomainName) {
        let location = found.location;
        let address = match (found.refused, &found.domain) {
            (Some(why), _) => Err(format!("'{location}' {why}.")),
            // A folder that names a whole address is believed; the domain's folder must agree.
            (None, Some(of)) => match of.parse::<DomainName>() {
                Ok(of) => address_of(&found.user, &of).and_then(|address| {
                    if *address.domain() == of {
                        Ok(address)
                    } else {
                        Err(format!("'{location}' names the domains {of} and {}.", address.domain()))
                    }
                }),
                Err(error) => Err(format!("{error}.")),
            },
            (None, None) => address_of(&found.user, domain),
        };
        match address {
            Ok(address) => self.rows.push(CsvRow {
                line: self.rows.len() + 1,
                address,
                cells: vec![("Location".to_owned(), location)],
            }),
            Err(reason) => self.hopeless.push(Hopeless { location, reason }),
        }
    }
}

/// The domain of addresses that name none.
async fn domain(call: &Call<'_>) -> Result<DomainName, CommandError> {
    if let Some(text) = call.parameters.text("Domain") {
        return text
            .parse()
            .map_err(|error| CommandError::parameter("Domain", format!("{error}."), ""));
    }
    let mut tx = call.ctx.store.read().await?;
    let tenant = tx.tenant_get(call.tenant()).await?;
    tenant
        .map(|tenant| tenant.initial_domain)
        .ok_or_else(|| CommandError::parameter("Domain", "The organisation has no domain.", "Give -Domain."))
}

fn discover_error(parameter: &str, error: &PlatformError) -> CommandError {
    match error {
        PlatformError::Template(why) => CommandError::parameter(parameter, format!("{why}."), ""),
        PlatformError::NoPaths { .. } => CommandError::parameter(
            parameter,
            format!("{error}."),
            "Import-Mailbox -Discover -UserList takes a list of accounts.",
        ),
        _ => platform_error(error),
    }
}

/// What lies at each row's location, or why nothing can be taken from there.
pub(super) async fn look_at(
    call: &Call<'_>,
    platform: &str,
    rows: &[CsvRow],
    holdings: &Holdings,
) -> Vec<Result<Inspection, String>> {
    let mut all = Vec::with_capacity(rows.len());
    let mut failed = 0;
    for some in rows.chunks(AT_ONCE) {
        let mut looking = JoinSet::new();
        let mut answers = vec![Err(String::new()); some.len()];
        for (at, row) in some.iter().enumerate() {
            let location = row.cell("Location").unwrap_or_default().to_owned();
            let refused = if location.is_empty() {
                Some("Location is empty.".to_owned())
            } else if failed >= FAILED_SIGN_INS {
                Some(format!(
                    "Not looked at, because {failed} accounts before could not be opened. Mend the list and run the command again."
                ))
            } else {
                holdings.refuse(&location)
            };
            match refused {
                Some(why) => answers[at] = Err(why),
                None => {
                    let (platforms, platform) = (call.ctx.platforms.clone(), platform.to_owned());
                    looking.spawn(async move { (at, platforms.inspect(&platform, &location).await, location) });
                }
            }
        }
        while let Some(looked) = looking.join_next().await {
            let Ok((at, found, location)) = looked else { continue };
            if found.is_err() && holdings.driver == Driver::Imap {
                failed += 1;
            }
            answers[at] = found.map_err(|error| told(&location, &error));
        }
        all.extend(answers);
    }
    all
}

fn told(location: &str, error: &PlatformError) -> String {
    match error {
        PlatformError::Files { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            format!("There is no mailbox at '{location}'.")
        }
        _ => platform_error(error).message,
    }
}

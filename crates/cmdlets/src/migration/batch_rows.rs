//! The CSV file of a new batch, by the kind of endpoint.

use crate::{
    context::Call, error::CommandError, lookup::accepted_domains, partners::endpoint_imap::MAX_ACCOUNT,
    recipients::csv_error,
};
use rehome_domain::{
    address::DomainName,
    csv::{self, CsvProblem, CsvRow, CsvRules},
    endpoint::{EndpointKind, ImapServer, ImapSignIn, MigrationEndpoint},
    error_id::ErrorId,
    folder_pattern::{FolderPattern, MAX_PATTERNS},
};
use rehome_migrate::target::direct::{DirectRow, ImapAccount};
use rehome_store::Tx;

/// Longest password of a row, in octets.
const MAX_PASSWORD: usize = 1024;

/// What a new batch is made of.
pub(super) struct Rows {
    pub(super) addresses: Vec<String>,
    pub(super) target_delivery_domain: Option<DomainName>,
    /// From an IMAP server.
    pub(super) direct: Option<Direct>,
}

/// What only a batch from an IMAP server has.
pub(super) struct Direct {
    pub(super) rows: Vec<DirectRow>,
    pub(super) excluded_folders: Vec<String>,
}

/// Reads the file and what goes with it.
pub(super) async fn read(call: &Call<'_>, tx: &mut Tx, endpoint: &MigrationEndpoint) -> Result<Rows, CommandError> {
    match &endpoint.kind {
        EndpointKind::ExchangeRemoteMove(_) => remote_move(call, tx).await,
        EndpointKind::Imap(imap) => direct(call, imap),
    }
}

fn rules<'a>(call: &Call<'_>, required: &'a [&'a str], secret: &'a [&'a str]) -> CsvRules<'a> {
    CsvRules {
        required,
        optional: secret,
        secret,
        allow_unknown: call.parameters.bool("AllowUnknownColumnsInCsv").unwrap_or(false),
        max_rows: call.ctx.max_users_per_batch,
    }
}

fn file(call: &Call<'_>, rules: &CsvRules<'_>) -> Result<Vec<CsvRow>, CommandError> {
    csv::read(call.parameters.octets("CSVData").unwrap_or_default(), rules).map_err(|problems| csv_error(&problems))
}

fn addresses(rows: &[CsvRow]) -> Vec<String> {
    rows.iter().map(|row| row.address.to_string()).collect()
}

async fn remote_move(call: &Call<'_>, tx: &mut Tx) -> Result<Rows, CommandError> {
    let p = call.parameters;
    if p.given("ExcludeFolders") {
        return Err(CommandError::parameter(
            "ExcludeFolders",
            "A mailbox moves whole; folders are left out only from an endpoint of type IMAP.",
            "Leave it out.",
        ));
    }
    let rows = file(call, &rules(call, &["EmailAddress"], &[]))?;
    let Some(text) = p.text("TargetDeliveryDomain") else {
        return Err(CommandError::parameter(
            "TargetDeliveryDomain",
            "A batch from this endpoint needs the domain to which the source forwards afterwards.",
            "Give -TargetDeliveryDomain. Get-AcceptedDomain lists the accepted domains.",
        ));
    };
    let domain: DomainName = text
        .parse()
        .map_err(|e| CommandError::parameter("TargetDeliveryDomain", format!("{e}."), ""))?;
    if !accepted_domains(call, tx).await?.contains(&domain) {
        return Err(CommandError::new(
            ErrorId::NotAcceptedDomain,
            "TargetDeliveryDomain",
            format!("You can't use the domain because it's not an accepted domain for your organization. ({domain})"),
            "Get-AcceptedDomain lists the accepted domains.",
        ));
    }
    Ok(Rows {
        addresses: addresses(&rows),
        target_delivery_domain: Some(domain),
        direct: None,
    })
}

fn direct(call: &Call<'_>, imap: &ImapServer) -> Result<Rows, CommandError> {
    if call.parameters.given("TargetDeliveryDomain") {
        return Err(CommandError::parameter(
            "TargetDeliveryDomain",
            "Nothing forwards from an IMAP server.",
            "Leave it out, and change the MX record or the old server's forwarding yourself.",
        ));
    }
    let excluded_folders = excluded_folders(call)?;
    let rows = file(call, &rules(call, &["EmailAddress", "UserName"], &["Password"]))?;
    let with_passwords = match imap.sign_in {
        ImapSignIn::Users => true,
        ImapSignIn::Master { .. } | ImapSignIn::Authorization { .. } | ImapSignIn::OAuth { .. } => false,
    };
    let mut problems = Vec::new();
    let mut direct = Vec::with_capacity(rows.len());
    for row in &rows {
        match account(row, with_passwords) {
            Ok(account) => direct.push(DirectRow {
                address: row.address.to_string(),
                account,
            }),
            Err(text) => problems.push(CsvProblem {
                line: Some(row.line),
                text,
            }),
        }
    }
    if !problems.is_empty() {
        return Err(csv_error(&problems));
    }
    Ok(Rows {
        addresses: addresses(&rows),
        target_delivery_domain: None,
        direct: Some(Direct {
            rows: direct,
            excluded_folders,
        }),
    })
}

/// The account of a row, or what is wrong with it; never what stands in it.
fn account(row: &CsvRow, with_password: bool) -> Result<ImapAccount, String> {
    let name = row.cell("UserName").ok_or("UserName is empty")?;
    if name.chars().count() > MAX_ACCOUNT || name.chars().any(char::is_control) {
        return Err(format!(
            "UserName is longer than {MAX_ACCOUNT} characters, or has a control character"
        ));
    }
    let password = match (row.cell("Password"), with_password) {
        (None, true) => return Err("Password is empty, and the endpoint has no credentials".to_owned()),
        (Some(_), false) => {
            return Err("there is a Password, and the endpoint signs in with credentials of its own".to_owned());
        }
        (Some(text), true) if text.len() > MAX_PASSWORD || text.chars().any(char::is_control) => {
            return Err(format!(
                "Password is longer than {MAX_PASSWORD} octets, or has a control character"
            ));
        }
        (password, _) => password.map(|text| text.to_owned().into()),
    };
    Ok(ImapAccount {
        name: name.to_owned(),
        password,
    })
}

fn excluded_folders(call: &Call<'_>) -> Result<Vec<String>, CommandError> {
    let patterns = call.parameters.list("ExcludeFolders").unwrap_or_default();
    if patterns.len() > MAX_PATTERNS {
        return Err(CommandError::parameter(
            "ExcludeFolders",
            format!("At most {MAX_PATTERNS} folders may be named."),
            "",
        ));
    }
    for pattern in &patterns {
        pattern
            .parse::<FolderPattern>()
            .map_err(|error| CommandError::parameter("ExcludeFolders", format!("{error}."), ""))?;
    }
    Ok(patterns)
}

//! The report of a batch or user as a file: as a table for spreadsheets, or as a page to read and print.

mod csv;
mod page;
#[cfg(test)]
mod tests;

use super::{batch, user};
use crate::{
    Cmdlet,
    context::{Call, Output},
    error::CommandError,
    handler,
    roles::{MIGRATION, MOVE_MAILBOXES, VIEW_ONLY_CONFIGURATION},
};
use jiff::Timestamp;
use rehome_command::{Declaration, Effect, Object, Parameter, ParameterType as T, Property, Value};
use rehome_domain::{batch::MigrationBatch, consistency::Assessment, error_id::ErrorId, id::MoveId, moves::Move};
use rehome_migrate::target::reports::{approval_of, approved_until, class_of};
use std::ops::Range;

const READERS: &[&str] = &[MIGRATION, MOVE_MAILBOXES, VIEW_ONLY_CONFIGURATION];
/// Rows of a table in one answer.
const ROWS: usize = 10_000;
/// Items that a page names; a table has all.
const PAGE_ITEMS: usize = 5_000;

/// One user, as both forms show him.
struct UserLines {
    identity: String,
    batch: String,
    status: &'static str,
    assessment: Option<Assessment>,
    items_synced: u64,
    items_skipped: u64,
    bytes_synced: u64,
    bytes_per_minute: Option<u64>,
    error: String,
    last_sync: Option<Timestamp>,
    in_progress_milliseconds: u64,
    lock_milliseconds: Option<u64>,
    items: Vec<ItemLine>,
}

/// One reported item.
struct ItemLine {
    kind: &'static str,
    counts_as: &'static str,
    folder: String,
    uid: u32,
    subject: Option<String>,
    sender: Option<String>,
    date_sent: Option<String>,
    received: Option<Timestamp>,
    size: Option<u64>,
    reason: String,
    side: &'static str,
    found: Option<Timestamp>,
    approval: &'static str,
}

impl UserLines {
    fn score(&self) -> &'static str {
        self.assessment.as_ref().map_or("", |found| found.score.as_str())
    }
}

pub(super) fn cmdlets() -> Vec<Cmdlet> {
    let declaration = Declaration::new("Export", "MigrationReport", Effect::Read, READERS, "Gives the report of a batch or user as a file: figures, score, errors, and every item that could not be moved as it was.")
        .description(
            "--out FILE writes it; without it the octets are in FileData (base64 in JSON), at most 10000 rows at a time: NextPart is the Part of the next call.\n\
             As Csv there is a row for each user (RowType User), and behind it one for each of his reported items (RowType Item), in UTF-8 with a mark that spreadsheets know it by. Text that a spreadsheet might take for a formula begins with an apostrophe. -StartingRowIndex and -RowCount give some of the rows, with the header.\n\
             As Html it is one page that needs nothing from elsewhere and names up to 5000 items.",
        )
        .parameters([
            Parameter::new("Identity", T::Identity, "The batch (Name or BatchGuid), or the user (address or Guid). A batch goes before a user of the same name.")
                .position(1)
                .pipeline()
                .mandatory(),
            Parameter::new("Format", T::Text, "Csv unless given.").allowed(&["Csv", "Html"]),
            Parameter::new("StartingRowIndex", T::Integer, "The first row to give; 0 is the first behind the header.").mandatory().sets(&["Paged"]),
            Parameter::new("RowCount", T::Integer, "How many rows to give, at most 10000.").mandatory().sets(&["Paged"]),
            Parameter::new("Part", T::Integer, "Which part of the file to give; 0 unless given.").sets(&["Whole"]),
        ])
        .default_set("Whole")
        .output([
            Property::column("Identity", "The batch or user."),
            Property::column("FileName", "A name for the file."),
            Property::column("Users", "Users in the report."),
            Property::column("Rows", "Rows of the whole table, without the header."),
            Property::new("FileData", "The octets."),
            Property::new("NextPart", "Which part comes next; nothing when this was the last."),
        ])
        .example("Export-MigrationReport 'Wave 1' --out wave1.csv", "Writes a table of everybody in the batch.")
        .example("Export-MigrationReport reception@fabrikam.example -Format Html --out reception.html", "Writes a page about one user.");
    vec![Cmdlet::new(declaration, handler!(export))]
}

/// What is asked for: the batch of this name, else the user.
async fn wanted(call: &Call<'_>) -> Result<(String, Vec<(Move, MigrationBatch)>), CommandError> {
    let identity = call.parameters.text("Identity").unwrap_or_default();
    let mut tx = call.ctx.store.read().await?;
    match batch::find(call, &mut tx, identity).await {
        Ok(found) => {
            let mut users = tx.move_list(call.tenant(), Some(found.id)).await?;
            users.sort_by(|one, two| one.email_address.cmp(&two.email_address));
            let name = found.name.clone();
            Ok((name, users.into_iter().map(|m| (m, found.clone())).collect()))
        }
        Err(error) if error.id == ErrorId::ManagementObjectNotFound => {
            let found = user::find(call, &mut tx, identity)
                .await
                .map_err(|error| match error.id {
                    ErrorId::ManagementObjectNotFound => CommandError::new(
                        ErrorId::ManagementObjectNotFound,
                        identity,
                        format!("There is no migration batch or user '{identity}'."),
                        "Get-MigrationBatch and Get-MigrationUser list them.",
                    ),
                    _ => error,
                })?;
            let id = found.batch;
            let Some(row) = tx.batch_get(call.tenant(), id).await? else {
                return Err(CommandError::not_found(
                    &id.to_string(),
                    "",
                    "Get-MigrationBatch lists them.",
                ));
            };
            let name = if identity.trim().parse::<MoveId>().is_ok() {
                found.id.to_string()
            } else {
                found.email_address.clone()
            };
            Ok((name, vec![(found, row)]))
        }
        Err(error) => Err(error),
    }
}

async fn lines_of(call: &Call<'_>, m: &Move, batch: &MigrationBatch) -> Result<UserLines, CommandError> {
    let report = call.ctx.target.report(m).await?;
    let assessment = m.figures.assessment();
    let until = approved_until(m, batch);
    let items = report.items.into_iter().map(|item| {
        let class = class_of(&item);
        ItemLine {
            kind: class.as_str(),
            counts_as: class.counts_as().as_str(),
            folder: item.folder.join("/"),
            uid: item.uid,
            received: user::second(item.received),
            size: item.size,
            side: user::side(item.side),
            found: user::second(Some(item.found)),
            approval: approval_of(&assessment, &item, until).as_str(),
            subject: item.subject,
            sender: item.sender,
            date_sent: item.date_sent,
            reason: item.reason,
        }
    });
    Ok(UserLines {
        identity: m.email_address.clone(),
        batch: batch.name.clone(),
        status: m.status.as_str(),
        assessment: m.assessment(),
        items_synced: m.figures.items_synced,
        items_skipped: m.figures.items_skipped,
        bytes_synced: m.figures.bytes_synced,
        bytes_per_minute: user::bytes_per_minute(&m.figures),
        error: m.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        last_sync: m.last_sync,
        in_progress_milliseconds: m.figures.pass_milliseconds,
        lock_milliseconds: m.figures.lock_milliseconds,
        items: items.collect(),
    })
}

fn count(call: &Call<'_>, name: &'static str) -> Result<Option<usize>, CommandError> {
    let Some(number) = call.parameters.int(name) else {
        return Ok(None);
    };
    let number = usize::try_from(number);
    let number = number.map_err(|_| CommandError::parameter(name, format!("{name} is a number, 0 and above."), ""))?;
    Ok(Some(number))
}

async fn export(call: &Call<'_>) -> Result<Output, CommandError> {
    let (name, users) = wanted(call).await?;
    let object = Object::new()
        .with("Identity", name.as_str())
        .with("Users", users.len() as u64);
    let (paged, asked_rows) = (count(call, "StartingRowIndex")?, count(call, "RowCount")?);
    if call.parameters.text("Format") == Some("Html") {
        if paged.is_some() || count(call, "Part")?.is_some_and(|part| part > 0) {
            let text = "A page has no rows; -StartingRowIndex and -RowCount are for -Format Csv.";
            return Err(CommandError::parameter("Format", text, ""));
        }
        let mut lines = Vec::with_capacity(users.len());
        let (mut rows, mut named) = (0, 0);
        for (m, batch) in &users {
            let mut line = lines_of(call, m, batch).await?;
            rows += 1 + line.items.len();
            line.items.truncate(PAGE_ITEMS - named);
            named += line.items.len();
            lines.push(line);
        }
        let left_out = rows - lines.len() - named;
        let octets = page::render(&name, call.ctx.now, &lines, left_out).into_bytes();
        return Ok(Output::one(
            object
                .with("FileName", file_name(&name, "html"))
                .with("Rows", rows as u64)
                .with("FileData", Value::Octets(octets))
                .with("NextPart", Value::Null),
        ));
    }
    if asked_rows.is_some_and(|rows| rows > ROWS) {
        let text = format!("RowCount is at most {ROWS}.");
        return Err(CommandError::parameter(
            "RowCount",
            text,
            "Give the rest with another -StartingRowIndex.",
        ));
    }
    let part = count(call, "Part")?.unwrap_or(0);
    let from = paged.unwrap_or_else(|| part.saturating_mul(ROWS));
    let range = from..from.saturating_add(asked_rows.unwrap_or(ROWS));
    let with_header = paged.is_some() || part == 0;
    let (text, rows) = table(call, &users, range.clone(), with_header).await?;
    let next = (paged.is_none() && range.end < rows).then_some(part as u64 + 1);
    Ok(Output::one(
        object
            .with("FileName", file_name(&name, "csv"))
            .with("Rows", rows as u64)
            .with("FileData", Value::Octets(text.into_bytes()))
            .with("NextPart", next),
    ))
}

/// The rows in this range, and how many there are in all. One user's items are in memory at a time.
async fn table(
    call: &Call<'_>,
    users: &[(Move, MigrationBatch)],
    range: Range<usize>,
    with_header: bool,
) -> Result<(String, usize), CommandError> {
    let mut text = String::new();
    if with_header {
        csv::header(&mut text);
    }
    let mut at = 0;
    for (m, batch) in users {
        let lines = lines_of(call, m, batch).await?;
        at = csv::rows(&mut text, &lines, at, &range);
    }
    Ok((text, at))
}

/// A name for a file that no system minds.
fn file_name(identity: &str, ending: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || "@.-_".contains(c) {
            c
        } else {
            '_'
        }
    };
    let name: String = identity.chars().take(100).map(plain).collect();
    format!("{}.report.{ending}", name.trim_start_matches('.'))
}

/// Text from outside on one line: control characters and marks that turn its direction become blanks.
fn on_one_line(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}' | '\u{feff}');
    text.chars()
        .map(|c| if c.is_control() || turns(c) { ' ' } else { c })
        .collect()
}

/// Milliseconds as hours, minutes and seconds.
fn duration(milliseconds: u64) -> String {
    let seconds = milliseconds / 1_000;
    format!(
        "{}:{:02}:{:02}.{:03}",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60,
        milliseconds % 1_000
    )
}

//! The table: RFC 4180, in UTF-8 with a byte order mark, so that spreadsheets read it as what it is.

use super::{ItemLine, UserLines, duration, on_one_line};
use jiff::Timestamp;
use std::ops::Range;

const COLUMNS: [&str; 26] = [
    "RowType",
    "Identity",
    "BatchId",
    "Status",
    "DataConsistencyScore",
    "DataConsistencyScoringFactors",
    "ItemsSynced",
    "ItemsSkipped",
    "BytesTransferred",
    "BytesTransferredPerMinute",
    "LastSuccessfulSyncTime",
    "InProgressDuration",
    "LockDuration",
    "Error",
    "Kind",
    "ScoringClassifications",
    "FolderName",
    "Uid",
    "Subject",
    "Sender",
    "DateSent",
    "DateReceived",
    "Size",
    "Reason",
    "Side",
    "Approval",
];

/// Columns that only an item fills.
const ITEM_COLUMNS: usize = 12;

/// The mark and the names of the columns.
pub(super) fn header(text: &mut String) {
    text.push('\u{feff}');
    line(text, &COLUMNS.map(str::to_owned));
}

/// Adds those rows of a user that are in the range, his first being number `at`; returns the number behind his last.
pub(super) fn rows(text: &mut String, user: &UserLines, at: usize, range: &Range<usize>) -> usize {
    if range.contains(&at) {
        line(text, &user_row(user));
    }
    for (item, row) in user.items.iter().zip(at + 1..) {
        if range.contains(&row) {
            line(text, &item_row(user, item));
        }
    }
    at + 1 + user.items.len()
}

fn user_row(user: &UserLines) -> Vec<String> {
    let factors = user
        .assessment
        .as_ref()
        .map_or(String::new(), |found| found.factors.join("; "));
    let mut row = vec![
        "User".to_owned(),
        cell(&user.identity),
        cell(&user.batch),
        user.status.to_owned(),
        user.score().to_owned(),
        quoted(&factors),
        user.items_synced.to_string(),
        user.items_skipped.to_string(),
        user.bytes_synced.to_string(),
        number(user.bytes_per_minute),
        time(user.last_sync),
        duration(user.in_progress_milliseconds),
        user.lock_milliseconds.map(duration).unwrap_or_default(),
        cell(&user.error),
    ];
    row.resize(COLUMNS.len(), String::new());
    row
}

fn item_row(user: &UserLines, item: &ItemLine) -> Vec<String> {
    let mut row = vec!["Item".to_owned(), cell(&user.identity), cell(&user.batch)];
    row.resize(COLUMNS.len() - ITEM_COLUMNS, String::new());
    row.extend([
        item.kind.to_owned(),
        item.counts_as.to_owned(),
        cell(&item.folder),
        item.uid.to_string(),
        cell(item.subject.as_deref().unwrap_or_default()),
        cell(item.sender.as_deref().unwrap_or_default()),
        cell(item.date_sent.as_deref().unwrap_or_default()),
        time(item.received),
        number(item.size),
        cell(&item.reason),
        item.side.to_owned(),
        item.approval.to_owned(),
    ]);
    row
}

fn number(number: Option<u64>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}

fn time(time: Option<Timestamp>) -> String {
    time.map(|time| time.to_string()).unwrap_or_default()
}

/// Text from outside, quoted; where a spreadsheet might take it for a formula, behind an apostrophe.
fn cell(text: &str) -> String {
    let text = on_one_line(text);
    let begins = text.trim_start().chars().next();
    let formula = begins.is_some_and(|c| "=+-@|%\u{ff1d}\u{ff0b}\u{ff0d}\u{ff20}\u{2212}".contains(c));
    quoted(&format!("{}{text}", if formula { "'" } else { "" }))
}

fn quoted(text: &str) -> String {
    match text {
        "" => String::new(),
        text => format!("\"{}\"", text.replace('"', "\"\"")),
    }
}

fn line(text: &mut String, cells: &[String]) {
    text.push_str(&cells.join(","));
    text.push_str("\r\n");
}

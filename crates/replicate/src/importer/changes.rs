//! Edits of records and reports, as changes of the ledger.

use super::Work;
use crate::{
    error::PassError,
    ledger::{CHUNK_SHIFT, Changes, Ledger, Record},
    report::{self, ReportItem, ReportKind},
};
use std::collections::BTreeMap;

/// What is to happen to a folder's records: by source uid, the new record, or none where it goes.
pub(super) type RecordEdits = BTreeMap<u32, Option<Record>>;

/// What is to happen to a folder's report.
#[derive(Default)]
pub(super) struct ReportEdits {
    /// Put in, over what was there of the same item and kind.
    pub(super) put: Vec<ReportItem>,
    /// Taken out, before anything is put in: of these uids what is of this kind, or everything.
    pub(super) clear: Vec<(u32, Option<ReportKind>)>,
}

impl ReportEdits {
    pub(super) fn is_empty(&self) -> bool {
        self.put.is_empty() && self.clear.is_empty()
    }
}

impl Work<'_> {
    /// Adds the changes that edit a folder's records.
    pub(super) async fn edit_records(
        &self,
        number: u32,
        edits: RecordEdits,
        changes: &mut Changes,
    ) -> Result<(), PassError> {
        let mut chunks: BTreeMap<u32, RecordEdits> = BTreeMap::new();
        for (uid, edit) in edits {
            chunks.entry(uid >> CHUNK_SHIFT).or_default().insert(uid, edit);
        }
        for (chunk, edits) in chunks {
            let held = self.ledger.records(number, chunk).await?;
            let mut records: BTreeMap<u32, Record> = held.into_iter().map(|record| (record.uid, record)).collect();
            for (uid, edit) in edits {
                match edit {
                    Some(record) => records.insert(uid, record),
                    None => records.remove(&uid),
                };
            }
            self.ledger.put_records(number, chunk, records.values(), changes)?;
        }
        Ok(())
    }

    /// Adds the changes that edit a folder's report, and its entry, which counts it. Costs nothing where nothing is
    /// reported and nothing is put in.
    pub(super) async fn edit_report(
        &self,
        number: u32,
        edits: ReportEdits,
        changes: &mut Changes,
    ) -> Result<(), PassError> {
        let entry = self.ledger.folder(number)?;
        if edits.is_empty() || (edits.put.is_empty() && entry.reported == 0) {
            return Ok(());
        }
        let existing = self.ledger.report_chunks(number).await?;
        let mut chunks: BTreeMap<u32, ReportEdits> = BTreeMap::new();
        for item in edits.put {
            chunks.entry(item.uid >> CHUNK_SHIFT).or_default().put.push(item);
        }
        for (uid, kind) in edits.clear {
            let chunk = uid >> CHUNK_SHIFT;
            if chunks.contains_key(&chunk) || existing.binary_search(&chunk).is_ok() {
                chunks.entry(chunk).or_default().clear.push((uid, kind));
            }
        }
        let skipped =
            |items: &[ReportItem]| items.iter().filter(|item| item.kind == ReportKind::Skipped).count() as i64;
        let (mut more_skipped, mut more) = (0_i64, 0_i64);
        for (chunk, edits) in chunks {
            let before = self.ledger.report(number, chunk).await?;
            let mut items = before.clone();
            items.retain(|item| {
                // What is put in again keeps the time when it was found.
                edits.put.iter().any(|put| (put.uid, put.kind) == (item.uid, item.kind))
                    || !edits
                        .clear
                        .iter()
                        .any(|(uid, kind)| *uid == item.uid && kind.is_none_or(|kind| kind == item.kind))
            });
            for item in edits.put {
                report::put(&mut items, item);
            }
            if items != before {
                more_skipped += skipped(&items) - skipped(&before);
                more += items.len() as i64 - before.len() as i64;
                changes.add(Ledger::report_change(number, chunk, &items));
            }
        }
        let edited = self.ledger.edit(number, |entry| {
            entry.skipped = u32::try_from(i64::from(entry.skipped) + more_skipped).unwrap_or(0);
            entry.reported = u32::try_from(i64::from(entry.reported) + more).unwrap_or(0);
        })?;
        if edited {
            changes.folder(number);
        }
        Ok(())
    }

    /// Writes reports by themselves.
    pub(super) async fn report_now(&self, number: u32, put: Vec<ReportItem>) -> Result<(), PassError> {
        let mut changes = Changes::default();
        self.edit_report(number, ReportEdits { put, clear: Vec::new() }, &mut changes)
            .await?;
        Ok(self.ledger.write(changes, "replicate.reported").await?)
    }
}

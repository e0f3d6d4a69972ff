//! Gathers changes of the ledger for one write.

use super::Work;
use crate::{
    error::PassError,
    ledger::{CHUNK_SHIFT, Ledger, Record},
    report::{self, ReportItem, ReportKind},
    storage::{Change, ChunkKey},
};
use std::collections::BTreeMap;

/// What is to happen to a folder's records: by source uid, the new record, or none where it goes.
pub(super) type RecordEdits = BTreeMap<u32, Option<Record>>;

/// Changes of one write; a later change of a chunk replaces an earlier one.
#[derive(Default)]
pub(super) struct Changes(BTreeMap<ChunkKey, Option<Vec<u8>>>);

impl Changes {
    pub(super) fn add(&mut self, change: Change) {
        self.0.insert(change.0, change.1);
    }

    pub(super) fn extend(&mut self, changes: Vec<Change>) {
        self.0.extend(changes);
    }

    /// Makes them durable.
    pub(super) async fn write(self, ledger: &Ledger, step: &'static str) -> Result<(), PassError> {
        Ok(ledger.write(self.0.into_iter().collect(), step).await?)
    }
}

/// What is to happen to a folder's report.
#[derive(Default)]
pub(super) struct ReportEdits {
    /// Put in, over what was there of the same item and kind.
    pub(super) put: Vec<ReportItem>,
    /// Taken out, before anything is put in: of these uids what is of this kind, or everything.
    pub(super) clear: Vec<(u32, Option<ReportKind>)>,
}

impl Work<'_> {
    /// Adds the changes that edit a folder's records.
    pub(super) async fn edit_records(
        &mut self,
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
            let records: Vec<Record> = records.into_values().collect();
            let (change, table_grew) = self.ledger.records_change(number, chunk, &records)?;
            changes.add(change);
            if table_grew {
                changes.extend(self.ledger.folder_changes([number]));
            }
        }
        Ok(())
    }

    /// Adds the changes that edit a folder's report.
    pub(super) async fn edit_report(
        &self,
        number: u32,
        edits: ReportEdits,
        changes: &mut Changes,
    ) -> Result<(), PassError> {
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
                changes.add(Ledger::report_change(number, chunk, &items));
            }
        }
        Ok(())
    }
}

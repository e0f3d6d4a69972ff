//! Takes back what is reported of a hidden mailbox, so that the pass tries it again.

use super::{
    Mode, SkippedItems, Work,
    changes::{RecordEdits, ReportEdits},
    recover::targets_of,
};
use crate::{
    error::PassError,
    ledger::{Changes, FolderEntry, FolderState, Ledger},
    report::ReportKind,
};

impl Work<'_> {
    /// Where a retry was asked for: removes altered and wrongly dated items from the target, so that the pass brings them
    /// again, and forgets which flags the target could not keep. What is reported stays so until the new try has ended.
    /// Returns the folders to look at wholly after it. In a mailbox in use nothing is removed.
    pub(super) async fn mend(&self) -> Result<Vec<u32>, PassError> {
        match (self.skipped, self.mode) {
            (SkippedItems::TryAltered, Mode::Hidden) => {}
            (SkippedItems::TryAltered | SkippedItems::Try | SkippedItems::Leave, _) => return Ok(Vec::new()),
        }
        let mut mended = Vec::new();
        for number in self.in_state(FolderState::Active) {
            let entry = self.ledger.folder(number)?;
            if entry.reported != entry.skipped {
                self.mend_folder(&entry).await?;
                mended.push(number);
            }
        }
        Ok(mended)
    }

    async fn mend_folder(&self, entry: &FolderEntry) -> Result<(), PassError> {
        let number = entry.number;
        let mut map = self.ledger.map(number).await?;
        let (mut again, mut edits) = (Vec::new(), RecordEdits::new());
        let mut report = ReportEdits::default();
        for chunk in self.ledger.report_chunks(number).await? {
            for item in self.ledger.report(number, chunk).await? {
                match item.kind {
                    ReportKind::Altered | ReportKind::Date => again.push(item.uid),
                    ReportKind::Flags | ReportKind::Keywords => report.clear.push((item.uid, Some(item.kind))),
                    ReportKind::Skipped | ReportKind::LineEnds | ReportKind::Double => {}
                }
            }
        }
        again.dedup();
        // Removed first: what the ledger then has and the target has not is found missing, and brought again.
        self.remove_target_items(entry.on_target(), &targets_of(&map, &again))
            .await?;
        for uid in again {
            map.remove(uid);
            edits.insert(uid, None);
        }
        let mut changes = Changes::default();
        self.edit_records(number, edits, &mut changes).await?;
        self.edit_report(number, report, &mut changes).await?;
        changes.add(Ledger::map_change(number, &map));
        self.ledger.edit(number, |entry| {
            entry.synced = None;
            entry.verified = None;
        })?;
        changes.folder(number);
        Ok(self.ledger.write(changes, "replicate.retried").await?)
    }
}

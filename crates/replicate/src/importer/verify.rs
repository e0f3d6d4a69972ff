//! Verification: flags and dates from the target's listings, octets from what was read back, and the target's root.

use super::{
    TargetRoot, Work,
    changes::{Changes, RecordEdits, ReportEdits},
    recover::unmapped,
};
use crate::{
    error::PassError,
    ledger::{FolderState, Ledger, ReadBack, Record, UidMap},
    proof::{Exception, ExceptionKind, FolderRoot, Held, RootBuilder},
    reading::ReadOutcome,
    report::{ReportItem, ReportKind},
};
use rehome_mailbox::{ItemMeta, Listing};
use rehome_wire::flags::Flags;
use std::collections::{BTreeMap, BTreeSet};

/// What verifying a folder showed.
pub(super) struct Verified {
    root: FolderRoot,
    exceptions: Vec<Exception>,
}

/// What is reported about a folder, by uid.
type Reported = BTreeMap<u32, Vec<ReportItem>>;

impl Work<'_> {
    pub(super) async fn target_root(&mut self) -> Result<TargetRoot, PassError> {
        if !self.settings.read_back {
            return Err(PassError::ReadBackRequired);
        }
        self.recover().await?;
        self.read_back_open().await?;
        let mut root = RootBuilder::default();
        let mut exceptions = Vec::new();
        for number in self.in_state(FolderState::Active) {
            let verified = self.verify_folder(number).await?;
            let entry = self.ledger.folder(number)?;
            root.folder(&entry.source_path.0, entry.source_validity, &verified.root);
            exceptions.extend(verified.exceptions);
        }
        exceptions.sort();
        Ok(TargetRoot {
            folders: root.folders(),
            items: root.items,
            octets: root.octets,
            root: root.root(),
            exceptions,
        })
    }

    /// Reads back what was brought while read-back was switched off.
    pub(super) async fn read_back_open(&mut self) -> Result<(), PassError> {
        if !self.settings.read_back {
            return Ok(());
        }
        for number in self.in_state(FolderState::Active) {
            for chunk in self.ledger.record_chunks(number).await? {
                let records = self.ledger.records(number, chunk).await?;
                let open = records
                    .into_iter()
                    .filter(|record| record.read_back == ReadBack::Open)
                    .collect();
                self.read_back_records(number, open).await?;
            }
        }
        Ok(())
    }

    async fn read_back_records(&mut self, number: u32, open: Vec<Record>) -> Result<(), PassError> {
        if open.is_empty() {
            return Ok(());
        }
        let path = self.ledger.folder(number)?.target_path.clone();
        let mut map = self.ledger.map(number).await?;
        let uids = open.iter().filter_map(|record| map.get(record.uid)).collect();
        let held = self.read_back(&path, uids).await?;
        let mut edits = RecordEdits::new();
        let mut report = ReportEdits::default();
        let mut lost = 0_usize;
        for record in open {
            match map.get(record.uid).and_then(|uid| held.get(&uid)) {
                // It is brought again by the next pass.
                None | Some(ReadOutcome::Gone) => {
                    lost += 1;
                    map.remove(record.uid);
                    edits.insert(record.uid, None);
                }
                outcome => {
                    let (read_back, altered) = self.judge(number, &record, outcome)?;
                    report.put.extend(altered);
                    edits.insert(record.uid, Some(Record { read_back, ..record }));
                }
            }
        }
        let mut changes = Changes::default();
        self.edit_records(number, edits, &mut changes).await?;
        self.edit_report(number, report, &mut changes).await?;
        changes.add(Ledger::map_change(number, &map));
        if lost > 0 {
            self.ledger.folder_mut(number)?.synced = None;
            changes.extend(self.ledger.folder_changes([number]));
        }
        changes.write(&self.ledger, "replicate.read_back").await?;
        if lost > 0 {
            return Err(lost_items(&path, lost));
        }
        Ok(())
    }

    /// Checks one folder against the target's listing; sets flags that are not as they should be; reports what stays.
    pub(super) async fn verify_folder(&mut self, number: u32) -> Result<Verified, PassError> {
        let entry = self.ledger.folder(number)?.clone();
        let map = self.ledger.map(number).await?;
        let reported = self.reported(number).await?;
        let mut listing = self.target_listing(number).await?;
        self.check_unknown(number, &mut listing).await?;
        let wrong = self.wrong_flags(number, &map, &reported, &listing).await?;
        if !wrong.is_empty() {
            self.set_target_flags(&entry.target_path, &wrong).await?;
            listing = self.target_listing(number).await?;
        }
        let mut verified = Verified {
            root: FolderRoot::default(),
            exceptions: Vec::new(),
        };
        let mut report = ReportEdits::default();
        let mut missing = Vec::new();
        let mut recorded = BTreeSet::new();
        for chunk in self.ledger.record_chunks(number).await? {
            for record in self.ledger.records(number, chunk).await? {
                verified.root.record(&record);
                let Some(meta) = map.get(record.uid).and_then(|uid| find(&listing, uid)) else {
                    missing.push(record.uid);
                    continue;
                };
                if reported.contains_key(&record.uid) {
                    recorded.insert(record.uid);
                    report.clear.extend([
                        (record.uid, Some(ReportKind::Flags)),
                        (record.uid, Some(ReportKind::Date)),
                    ]);
                }
                self.deviations(number, &record, meta, &reported, &mut verified.exceptions, &mut report)?;
            }
        }
        if !missing.is_empty() {
            return Err(self.forget_missing(number, map, missing).await?);
        }
        for item in reported.values().flatten() {
            if item.kind == ReportKind::Skipped && !recorded.contains(&item.uid) {
                verified
                    .exceptions
                    .push(exception(item, ExceptionKind::Skipped, Held::default()));
            }
        }
        let mut changes = Changes::default();
        self.edit_report(number, report, &mut changes).await?;
        changes.write(&self.ledger, "replicate.verified").await?;
        Ok(verified)
    }

    async fn reported(&self, number: u32) -> Result<Reported, PassError> {
        let mut reported = Reported::new();
        for chunk in self.ledger.report_chunks(number).await? {
            for item in self.ledger.report(number, chunk).await? {
                reported.entry(item.uid).or_default().push(item);
            }
        }
        Ok(reported)
    }

    async fn target_listing(&self, number: u32) -> Result<Listing, PassError> {
        let entry = self.ledger.folder(number)?;
        self.guard()?;
        let listing = self
            .target
            .list(&entry.target_path, None)
            .await
            .map_err(PassError::Target)?;
        if listing.status.uid_validity == entry.target_validity {
            return Ok(listing);
        }
        Err(PassError::TargetDiffers {
            message: format!(
                "the target's folder {} is not the one that the move made",
                entry.target_path
            ),
            mended: false,
        })
    }

    /// A hidden folder holds nothing that the move did not put there, but for late doubles, which go.
    async fn check_unknown(&mut self, number: u32, listing: &mut Listing) -> Result<(), PassError> {
        let mapped = self.mapped_targets(number).await?;
        let unknown = unmapped(listing, &mapped);
        if unknown.is_empty() {
            return Ok(());
        }
        if self.remove_late_doubles(number, &unknown).await? == unknown.len() {
            *listing = self.target_listing(number).await?;
            return Ok(());
        }
        Err(PassError::TargetDiffers {
            message: format!(
                "the target's folder {} holds {} items that this move did not bring",
                self.ledger.folder(number)?.target_path,
                unknown.len()
            ),
            mended: false,
        })
    }

    /// Flags to set again: those that differ and of which it is not known already that the target cannot keep them.
    async fn wrong_flags(
        &self,
        number: u32,
        map: &UidMap,
        reported: &Reported,
        listing: &Listing,
    ) -> Result<Vec<(u32, Flags)>, PassError> {
        let mut wrong = Vec::new();
        for chunk in self.ledger.record_chunks(number).await? {
            for record in self.ledger.records(number, chunk).await? {
                let known = reported.get(&record.uid).is_some_and(|items| {
                    items
                        .iter()
                        .any(|item| matches!(item.kind, ReportKind::Keywords | ReportKind::Flags))
                });
                let meta = map.get(record.uid).and_then(|uid| find(listing, uid));
                if let Some(meta) = meta.filter(|meta| !known && meta.flags != record.flags) {
                    wrong.push((meta.uid, record.flags));
                }
            }
        }
        Ok(wrong)
    }

    fn deviations(
        &self,
        number: u32,
        record: &Record,
        meta: &ItemMeta,
        reported: &Reported,
        exceptions: &mut Vec<Exception>,
        report: &mut ReportEdits,
    ) -> Result<(), PassError> {
        let about = |kind, reason: String| -> Result<ReportItem, PassError> {
            let item = self.report_item(number, record.uid, kind, reason)?;
            Ok(ReportItem {
                size: Some(record.length),
                received: Some(record.received),
                ..item
            })
        };
        if record.read_back == ReadBack::Altered {
            let items = reported.get(&record.uid).into_iter().flatten();
            let altered = items
                .filter(|item| item.kind == ReportKind::Altered)
                .find_map(|item| item.held);
            let held = Held {
                length: altered.map(|(length, _)| length),
                digest: altered.map(|(_, digest)| digest),
                ..Held::default()
            };
            exceptions.push(exception(
                &about(ReportKind::Altered, String::new())?,
                ExceptionKind::Altered,
                held,
            ));
        }
        if meta.flags != record.flags {
            let names = meta.flags.canonical_names();
            let item = about(
                ReportKind::Flags,
                format!("the target holds the flags ({})", names.join(" ")),
            )?;
            exceptions.push(exception(
                &item,
                ExceptionKind::Flags,
                Held {
                    flags: Some(names),
                    ..Held::default()
                },
            ));
            report.put.push(item);
        }
        if meta.received != record.received {
            let item = about(
                ReportKind::Date,
                format!("the target holds the received time {}", meta.received),
            )?;
            let held = Held {
                received: Some(meta.received),
                ..Held::default()
            };
            exceptions.push(exception(&item, ExceptionKind::Date, held));
            report.put.push(item);
        }
        Ok(())
    }

    /// Items that the target lost are forgotten, so that the next pass brings them again. The folder counts as not synced.
    async fn forget_missing(
        &mut self,
        number: u32,
        mut map: UidMap,
        missing: Vec<u32>,
    ) -> Result<PassError, PassError> {
        for uid in &missing {
            map.remove(*uid);
        }
        let mut changes = Changes::default();
        let count = missing.len();
        self.edit_records(
            number,
            missing.into_iter().map(|uid| (uid, None)).collect(),
            &mut changes,
        )
        .await?;
        self.ledger.folder_mut(number)?.synced = None;
        changes.extend(self.ledger.folder_changes([number]));
        changes.add(Ledger::map_change(number, &map));
        changes.write(&self.ledger, "replicate.missing").await?;
        Ok(lost_items(&self.ledger.folder(number)?.target_path, count))
    }
}

fn lost_items(path: &rehome_mailbox::FolderPath, count: usize) -> PassError {
    PassError::TargetDiffers {
        message: format!("the target's folder {path} lost {count} items; the next pass brings them again"),
        mended: true,
    }
}

fn find(listing: &Listing, uid: u32) -> Option<&ItemMeta> {
    listing
        .items
        .binary_search_by_key(&uid, |meta| meta.uid)
        .ok()
        .map(|at| &listing.items[at])
}

fn exception(item: &ReportItem, kind: ExceptionKind, held: Held) -> Exception {
    Exception {
        folder: item.folder.clone(),
        uid: item.uid,
        kind,
        held,
    }
}

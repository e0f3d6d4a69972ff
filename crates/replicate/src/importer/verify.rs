//! Verification: flags and dates from the target's listings, octets from what was read back, and the target's root.
//!
//! Where the target numbers changes, a folder that was found to be as the ledger says is looked at again only for what
//! changed since, so that under the lock the work is what the final pass touched.

use super::{
    Mode, PassKind, TargetRoot, Work,
    changes::{RecordEdits, ReportEdits},
    pass::Job,
    recover::unmapped,
};
use crate::{
    error::PassError,
    ledger::{CHUNK_SHIFT, Changes, FolderEntry, FolderState, Ledger, ReadBack, Record, UidMap, Verified},
    proof::{Exception, ExceptionKind, FolderRoot, Held, RootBuilder},
    reading::ReadOutcome,
    report::{ReportItem, ReportKind},
};
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use rehome_mailbox::{FolderPath, FolderStatus, ItemMeta, Listing, ListingScope, Removed};
use rehome_wire::flags::Flags;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What verifying a folder showed.
#[derive(Default)]
pub(super) struct Shown {
    root: FolderRoot,
    exceptions: Vec<Exception>,
}

/// What is reported about a folder, by uid.
type Reported = BTreeMap<u32, Vec<ReportItem>>;

impl Work<'_> {
    pub(super) async fn target_root(&self) -> Result<TargetRoot, PassError> {
        if !self.settings.read_back {
            return Err(PassError::ReadBackRequired);
        }
        self.recover().await?;
        let mut root = RootBuilder::default();
        let mut exceptions = Vec::new();
        let numbers = self.in_state(FolderState::Active).into_iter();
        let verifying: Vec<_> = numbers
            .map(|number| async move { Ok::<_, PassError>((number, self.verify_folder(number).await?)) }.boxed())
            .collect();
        let mut verified = stream::iter(verifying).buffered(self.lanes);
        while let Some((number, shown)) = verified.try_next().await? {
            let entry = self.ledger.folder(number)?;
            root.folder(&entry.source_path.0, entry.source_validity, &shown.root);
            exceptions.extend(shown.exceptions);
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

    /// The root over what the move has brought of what the source holds now, from the ledger: what the mailbox's user has
    /// done with it since is his.
    pub(super) async fn carried_root(&self) -> Result<TargetRoot, PassError> {
        if !self.settings.read_back {
            return Err(PassError::ReadBackRequired);
        }
        self.recover().await?;
        self.read_back_open().await?;
        let source = self.source_folders().await?;
        let mut root = RootBuilder::default();
        let mut exceptions = Vec::new();
        for number in self.in_state(FolderState::Active) {
            let entry = self.ledger.folder(number)?;
            let there = source.iter().any(|folder| {
                let validity = folder.status.map(|status| status.uid_validity);
                folder.selectable && folder.path == entry.source_path && validity == Some(entry.source_validity)
            });
            if !there {
                continue;
            }
            let shown = self.carried(number).await?;
            root.folder(&entry.source_path.0, entry.source_validity, &shown.root);
            exceptions.extend(shown.exceptions);
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

    /// A folder's leaves, and what of them is not as at the source, as the ledger has them.
    async fn carried(&self, number: u32) -> Result<Shown, PassError> {
        let reported = self.reported(number).await?;
        let mut shown = Shown::default();
        let mut recorded = BTreeSet::new();
        for chunk in self.ledger.record_chunks(number).await? {
            for record in self.ledger.records(number, chunk).await? {
                shown.root.record(&record);
                recorded.insert(record.uid);
                if record.read_back == ReadBack::Altered {
                    let item = self.report_item(number, record.uid, ReportKind::Altered, String::new())?;
                    let held = altered(&reported, record.uid);
                    shown.exceptions.push(exception(&item, ExceptionKind::Altered, held));
                }
            }
        }
        for item in reported.values().flatten() {
            if item.kind == ReportKind::Skipped && !recorded.contains(&item.uid) {
                let skipped = exception(item, ExceptionKind::Skipped, Held::default());
                shown.exceptions.push(skipped);
            }
        }
        Ok(shown)
    }

    /// Looks at the folders that a pass worked on, so that what differs is known early and little is left for the lock:
    /// after the first pass always, later where the target tells what changed.
    pub(super) async fn verify_jobs(&self, kind: PassKind, jobs: &[Job]) -> Result<(), PassError> {
        let wanted = match (self.mode, kind) {
            (Mode::Hidden, PassKind::Initial) => true,
            (Mode::Hidden, PassKind::Incremental) => self.capabilities.changes,
            (Mode::Hidden, PassKind::Final) | (Mode::Live | Mode::Sweep, _) => false,
        };
        if !wanted {
            return Ok(());
        }
        let numbers: Vec<u32> = jobs.iter().filter_map(|job| job.number).collect();
        self.at_once(numbers, self.lanes, |number| async move {
            match kind {
                PassKind::Initial => self.verify_wholly(number).await.map(drop),
                PassKind::Incremental | PassKind::Final => self.look_again(number, None).await.map(drop),
            }
        })
        .await
    }

    /// Reads back what was brought without being read back: with read-back switched off, or before a crash.
    pub(super) async fn read_back_open(&self) -> Result<(), PassError> {
        if !self.settings.read_back {
            return Ok(());
        }
        let unread = self.ledger.folders().into_iter();
        for entry in unread.filter(|entry| entry.unread && entry.state == FolderState::Active) {
            for chunk in self.ledger.record_chunks(entry.number).await? {
                let records = self.ledger.records(entry.number, chunk).await?.into_iter();
                let open = records.filter(|record| record.read_back == ReadBack::Open).collect();
                self.read_back_records(&entry, open).await?;
            }
            self.ledger.edit(entry.number, |entry| entry.unread = false)?;
            let mut changes = Changes::default();
            changes.folder(entry.number);
            self.ledger.write(changes, "replicate.all_read_back").await?;
        }
        Ok(())
    }

    async fn read_back_records(&self, entry: &FolderEntry, open: Vec<Record>) -> Result<(), PassError> {
        if open.is_empty() {
            return Ok(());
        }
        let number = entry.number;
        let mut map = self.ledger.map(number).await?;
        let uids = open.iter().filter_map(|record| map.get(record.uid)).collect();
        let held = self.read_back(entry.on_target(), uids).await?;
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
            self.ledger.edit(number, |entry| entry.synced = None)?;
            changes.folder(number);
        }
        self.ledger.write(changes, "replicate.read_back").await?;
        if lost > 0 {
            return Err(lost_items(&entry.target_path, lost));
        }
        Ok(())
    }

    /// Checks one folder against the target, by what changed since it was last as the ledger says, else by a whole
    /// listing, and hashes its leaves.
    async fn verify_folder(&self, number: u32) -> Result<Shown, PassError> {
        let path = self.ledger.folder(number)?.target_path.clone();
        let status = self.target_status(&path).await?;
        if !self.look_again(number, status).await? {
            return self.verify_wholly(number).await;
        }
        let mut shown = Shown::default();
        for chunk in self.ledger.record_chunks(number).await? {
            for record in self.ledger.records(number, chunk).await? {
                shown.root.record(&record);
            }
        }
        for item in self.reported(number).await?.into_values().flatten() {
            if item.kind == ReportKind::Skipped {
                let skipped = exception(&item, ExceptionKind::Skipped, Held::default());
                shown.exceptions.push(skipped);
            }
        }
        Ok(shown)
    }

    /// Whether a folder that was as the ledger says still is, by its numbers now, where they are known, and by what changed
    /// on the target since. False where that cannot be told so, or is not so.
    async fn look_again(&self, number: u32, now: Option<FolderStatus>) -> Result<bool, PassError> {
        let entry = self.ledger.folder(number)?;
        let Some(verified) = entry.verified.as_ref().filter(|_| self.capabilities.changes) else {
            return Ok(false);
        };
        // Exceptions say what the target holds, which only a whole listing shows.
        if entry.reported != entry.skipped || !self.retired_beside(number)?.is_empty() {
            return Ok(false);
        }
        let map = self.ledger.map(number).await?;
        if now == Some(verified.status) && verified.status.highest_mod_seq.is_some() {
            return Ok(map.len() as u64 == u64::from(verified.status.exists));
        }
        self.guard()?;
        let listed = self.target.list(&entry.target_path, Some(&verified.token)).await;
        let listing = listed.map_err(PassError::Target)?;
        let removed = match &listing.scope {
            ListingScope::Changes { removed } => removed,
            ListingScope::Whole => return Ok(false),
        };
        let status = listing.status;
        let whole = status.uid_validity == entry.target_validity && map.len() as u64 == u64::from(status.exists);
        if !whole || !nothing_missing(&map, removed) || !self.changes_agree(&entry, &map, &listing.items).await? {
            return Ok(false);
        }
        self.note_verified(&entry, &listing).await?;
        Ok(true)
    }

    /// Whether items that changed on the target are as the ledger says.
    async fn changes_agree(&self, entry: &FolderEntry, map: &UidMap, items: &[ItemMeta]) -> Result<bool, PassError> {
        let mut chunks: BTreeMap<u32, HashMap<u32, &ItemMeta>> = BTreeMap::new();
        for meta in items {
            let Some(uid) = map.source_of(meta.uid) else {
                return Ok(false);
            };
            chunks.entry(uid >> CHUNK_SHIFT).or_default().insert(uid, meta);
        }
        for (chunk, metas) in chunks {
            let records = self.ledger.records(entry.number, chunk).await?;
            let agreeing = records.iter().filter(|record| {
                metas.get(&record.uid).is_some_and(|meta| {
                    let equal = record.read_back == ReadBack::Equal || !self.settings.read_back;
                    equal && meta.flags == record.flags && meta.received == record.received
                })
            });
            if agreeing.count() != metas.len() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Remembers that the folder is as the ledger says, where the target will tell what changed since.
    async fn note_verified(&self, entry: &FolderEntry, listing: &Listing) -> Result<(), PassError> {
        let verified = listing.token.clone().map(|token| Verified {
            status: listing.status,
            token,
        });
        let mut changes = Changes::default();
        if self.ledger.edit(entry.number, |entry| entry.verified = verified)? {
            changes.folder(entry.number);
        }
        Ok(self.ledger.write(changes, "replicate.folder_verified").await?)
    }

    /// Checks one folder against the target's whole listing; sets flags that are not as they should be; reports what stays.
    pub(super) async fn verify_wholly(&self, number: u32) -> Result<Shown, PassError> {
        let entry = self.ledger.folder(number)?;
        let map = self.ledger.map(number).await?;
        let reported = self.reported(number).await?;
        let mut listing = self.target_listing(&entry).await?;
        self.check_unknown(&entry, &mut listing).await?;
        let wrong = self.wrong_flags(number, &map, &reported, &listing).await?;
        if !wrong.is_empty() {
            self.set_target_flags(entry.on_target(), &wrong).await?;
            listing = self.target_listing(&entry).await?;
        }
        let mut shown = Shown::default();
        let mut report = ReportEdits::default();
        let mut missing = Vec::new();
        let mut recorded = BTreeSet::new();
        for chunk in self.ledger.record_chunks(number).await? {
            for record in self.ledger.records(number, chunk).await? {
                shown.root.record(&record);
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
                self.deviations(number, &record, meta, &reported, &mut shown.exceptions, &mut report)?;
            }
        }
        if !missing.is_empty() {
            return Err(self.forget_missing(number, map, missing).await?);
        }
        for item in reported.values().flatten() {
            if item.kind == ReportKind::Skipped && !recorded.contains(&item.uid) {
                let skipped = exception(item, ExceptionKind::Skipped, Held::default());
                shown.exceptions.push(skipped);
            }
        }
        let mut changes = Changes::default();
        self.edit_report(number, report, &mut changes).await?;
        self.ledger.write(changes, "replicate.verified").await?;
        if self.retired_beside(number)?.is_empty() {
            self.note_verified(&entry, &listing).await?;
        }
        Ok(shown)
    }

    async fn reported(&self, number: u32) -> Result<Reported, PassError> {
        let mut reported = Reported::new();
        if self.ledger.folder(number)?.reported == 0 {
            return Ok(reported);
        }
        for chunk in self.ledger.report_chunks(number).await? {
            for item in self.ledger.report(number, chunk).await? {
                reported.entry(item.uid).or_default().push(item);
            }
        }
        Ok(reported)
    }

    async fn target_listing(&self, entry: &FolderEntry) -> Result<Listing, PassError> {
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
    async fn check_unknown(&self, entry: &FolderEntry, listing: &mut Listing) -> Result<(), PassError> {
        let mapped = self.mapped_targets(entry.number).await?;
        let unknown = unmapped(listing, &mapped);
        if unknown.is_empty() {
            return Ok(());
        }
        if self.remove_late_doubles(entry.number, &unknown).await? == unknown.len() {
            *listing = self.target_listing(entry).await?;
            return Ok(());
        }
        Err(PassError::TargetDiffers {
            message: format!(
                "the target's folder {} holds {} items that this move did not bring",
                entry.target_path,
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
            let held = altered(reported, record.uid);
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
    async fn forget_missing(&self, number: u32, mut map: UidMap, missing: Vec<u32>) -> Result<PassError, PassError> {
        for uid in &missing {
            map.remove(*uid);
        }
        let mut changes = Changes::default();
        let count = missing.len();
        let edits = missing.into_iter().map(|uid| (uid, None)).collect();
        self.edit_records(number, edits, &mut changes).await?;
        self.ledger.edit(number, |entry| entry.synced = None)?;
        changes.folder(number);
        changes.add(Ledger::map_change(number, &map));
        self.ledger.write(changes, "replicate.missing").await?;
        Ok(lost_items(&self.ledger.folder(number)?.target_path, count))
    }
}

/// Whether everything that is mapped is still on the target.
fn nothing_missing(map: &UidMap, removed: &Removed) -> bool {
    let mapped = map.targets();
    match removed {
        Removed::Vanished(vanished) => !vanished.iter().any(|uid| mapped.contains(uid)),
        Removed::Present(present) => mapped.iter().all(|uid| present.contains(uid)),
    }
}

fn lost_items(path: &FolderPath, count: usize) -> PassError {
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

/// What the target holds of an item that it gave back altered, as reported.
fn altered(reported: &Reported, uid: u32) -> Held {
    let items = reported.get(&uid).into_iter().flatten();
    let held = items
        .filter(|item| item.kind == ReportKind::Altered)
        .find_map(|item| item.held);
    Held {
        length: held.map(|(length, _)| length),
        digest: held.map(|(_, digest)| digest),
        ..Held::default()
    }
}

fn exception(item: &ReportItem, kind: ExceptionKind, held: Held) -> Exception {
    Exception {
        folder: item.folder.clone(),
        uid: item.uid,
        kind,
        held,
    }
}

//! A pass: folder operations, additions, flags, and removals last.

use super::{
    PassKind, Work,
    apply::FolderWork,
    changes::{Changes, RecordEdits, ReportEdits},
    listing::{Listed, protocol},
    recover::targets_of,
};
use crate::{
    compare::{FolderStep, KnownFolder, compare_folders, shrank},
    error::PassError,
    ledger::{CHUNK_SHIFT, FolderEntry, FolderState, KeywordTable, Ledger, ReadBack, Record, Synced},
    report::{ReportItem, ReportKind, Side},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use rehome_mailbox::{ErrorScope, Folder, FolderIdentity, FolderStatus, NewFolder, Retry};
use rehome_wire::{frames::MAX_BODY_REQUEST_ITEMS, uid_set::UidSet};
use std::collections::{BTreeMap, BTreeSet};

/// Most items that copies on the target are made from in one pass.
const POOL: usize = 200_000;
/// Folders that are listed at once.
const LISTINGS_AT_ONCE: usize = 16;

/// A folder of the source that is worked on.
struct Job {
    /// Its place in the source's list.
    source: usize,
    /// Its number, once it is in the ledger.
    number: Option<u32>,
    /// Its number under an earlier validity.
    reset: Option<u32>,
    listed: Listed,
}

impl Work<'_> {
    pub(super) async fn run_pass(&mut self, kind: PassKind) -> Result<(), PassError> {
        self.recover().await?;
        let folders = self.source_folders().await?;
        let selectable = folders.iter().filter(|folder| folder.selectable);
        self.outcome.folders = selectable.clone().count() as u64;
        self.outcome.items_total = selectable
            .filter_map(|folder| folder.status)
            .map(|s| u64::from(s.exists))
            .sum();
        self.progress.folders_total = self.outcome.folders;
        self.progress.items_total = self.outcome.items_total;
        let steps = self.decide(&folders).await?;
        let vanished: Vec<u32> = steps
            .iter()
            .filter_map(|step| {
                if let FolderStep::Vanished { number } = step {
                    Some(*number)
                } else {
                    None
                }
            })
            .collect();
        self.confirm_vanished(&vanished).await?;
        let mut jobs = self.list_all(kind, &folders, &steps).await?;
        self.create_folders(&folders, &mut jobs).await?;
        self.begin_resets(&folders, &mut jobs).await?;
        self.fill_pool(&jobs, &vanished).await?;
        self.progress.items_to_do = jobs.iter().map(|job| job.listed.plan.additions.len() as u64).sum();
        for job in &jobs {
            self.additions(job).await?;
        }
        for job in &jobs {
            self.flags_and_dates(&folders[job.source], job).await?;
        }
        for job in &jobs {
            self.removals(job).await?;
        }
        for number in vanished {
            self.remove_vanished(number).await?;
        }
        self.look_for_late_doubles().await?;
        if kind == PassKind::Final {
            self.raise_uid_next(&folders, &jobs).await?;
        }
        self.end_pass(&folders, &jobs).await?;
        if kind == PassKind::Initial {
            for number in jobs.iter().filter_map(|job| job.number) {
                self.verify_folder(number).await?;
            }
        }
        self.outcome.items_skipped = self.count_skipped().await?;
        self.progress.folder = String::new();
        (self.settings.progress)(&self.progress);
        Ok(())
    }

    async fn count_skipped(&self) -> Result<u64, PassError> {
        let mut skipped = 0;
        for number in self.in_state(FolderState::Active) {
            for chunk in self.ledger.report_chunks(number).await? {
                let items = self.ledger.report(number, chunk).await?;
                skipped += items.iter().filter(|item| item.kind == ReportKind::Skipped).count() as u64;
            }
        }
        Ok(skipped)
    }

    /// What becomes of every folder. One whose items were skipped is never taken for unchanged.
    async fn decide(&self, folders: &[Folder]) -> Result<Vec<FolderStep>, PassError> {
        let mut skipped = BTreeSet::new();
        let current = |entry: &&FolderEntry| matches!(entry.state, FolderState::Active | FolderState::Creating);
        for entry in self.ledger.folders().values().filter(current) {
            if self.has_skipped(entry.number).await? {
                skipped.insert(entry.number);
            }
        }
        let known: Vec<KnownFolder<'_>> = self
            .ledger
            .folders()
            .values()
            .filter(current)
            .map(|entry| KnownFolder {
                number: entry.number,
                path: &entry.source_path,
                uid_validity: entry.source_validity,
                created: entry.state == FolderState::Active,
                synced: entry.synced.as_ref().filter(|_| !skipped.contains(&entry.number)),
            })
            .collect();
        let steps = compare_folders(folders, &known);
        for step in &steps {
            tracing::debug!(?step, "folder");
        }
        Ok(steps)
    }

    /// A folder is believed to be gone only if a second look on a new connection agrees.
    async fn confirm_vanished(&self, vanished: &[u32]) -> Result<(), PassError> {
        if vanished.is_empty() {
            return Ok(());
        }
        let again = self.source_folders().await?;
        for number in vanished {
            let path = &self.ledger.folder(*number)?.source_path;
            let shrank = || PassError::SourceContentsShrank {
                message: format!("folder {path} vanished from the source's list, but a second look found it"),
            };
            if again.iter().any(|folder| folder.selectable && folder.path == *path) {
                return Err(shrank());
            }
            self.guard()?;
            match self.source.listing(path, None, true).await {
                Ok(_) => return Err(shrank()),
                Err(error) if error.scope <= ErrorScope::Folder && error.retry == Retry::Never => {}
                Err(error) => return Err(PassError::Source(error)),
            }
        }
        Ok(())
    }

    /// Lists what is to be listed, several folders at once: distance costs a few round trips, not one a folder.
    async fn list_all(
        &mut self,
        kind: PassKind,
        folders: &[Folder],
        steps: &[FolderStep],
    ) -> Result<Vec<Job>, PassError> {
        let mut wanted = Vec::new();
        for step in steps {
            let (source, number, reset) = match step {
                FolderStep::Create { source, number } => (*source, *number, None),
                FolderStep::Reset { source, number } => (*source, None, Some(*number)),
                FolderStep::List { source, number, .. } => (*source, Some(*number), None),
                FolderStep::Unchanged { .. } | FolderStep::Vanished { .. } => continue,
            };
            wanted.extend(folders[source].status.map(|status| (source, status, number, reset)));
        }
        let listings: Vec<_> = wanted
            .iter()
            .map(|(source, status, number, reset)| self.list_one(kind, &folders[*source], *status, *number, *reset))
            .collect();
        let listed: Vec<Listed> = stream::iter(listings).buffered(LISTINGS_AT_ONCE).try_collect().await?;
        self.outcome.folders_listed += listed.len() as u64;
        let jobs = wanted.into_iter().zip(listed);
        Ok(jobs
            .map(|((source, _, number, reset), listed)| Job {
                source,
                number,
                reset,
                listed,
            })
            .collect())
    }

    /// Lists one folder, again where the first listing is not conclusive, and again on a new connection where it lost much.
    async fn list_one(
        &self,
        kind: PassKind,
        folder: &Folder,
        status: FolderStatus,
        number: Option<u32>,
        reset: Option<u32>,
    ) -> Result<Listed, PassError> {
        let (path, validity) = (&folder.path, status.uid_validity);
        let synced = match number {
            Some(number) if !self.has_skipped(number).await? => self.ledger.folder(number)?.synced.as_ref(),
            Some(_) | None => None,
        };
        let token = synced.and_then(|synced| synced.token.as_deref());
        let mut listed = self.list_and_compare(path, validity, number, token, false).await?;
        if !listed.conclusive {
            listed = self.list_and_compare(path, validity, number, None, true).await?;
        }
        if !listed.conclusive {
            if kind == PassKind::Final {
                return Err(protocol(&format!(
                    "folder {path} lists fewer or more items than it counts, twice"
                )));
            }
            tracing::warn!(folder = %path, "the listing is not whole; nothing is removed");
            listed.plan.removals.clear();
            listed.unreported.clear();
        }
        // Items of an earlier validity count as known: those that are not paired will be removed.
        let mut earlier = 0;
        let mut numbers: Vec<u32> = reset.into_iter().collect();
        if let Some(number) = number.or(reset) {
            numbers.extend(self.retired_beside(number)?);
        }
        for number in numbers {
            earlier += self.ledger.map(number).await?.len() as u64;
        }
        let lost_by_reset = (listed.plan.known + earlier).saturating_sub(listed.listed);
        if listed.plan.shrank() || (earlier > 0 && shrank(listed.plan.known + earlier, lost_by_reset)) {
            self.confirm_shrunk(folder, validity, &listed, earlier > 0).await?;
        }
        Ok(listed)
    }

    async fn confirm_shrunk(
        &self,
        folder: &Folder,
        validity: u32,
        listed: &Listed,
        reset: bool,
    ) -> Result<(), PassError> {
        let second = self.list_uids(&folder.path, validity, true).await?;
        let agrees = second.is_some_and(|second| {
            listed.plan.second_listing_agrees(&second) && (!reset || second.len() as u64 <= listed.listed)
        });
        if agrees {
            return Ok(());
        }
        Err(PassError::SourceContentsShrank {
            message: format!(
                "folder {} has only {} items left, and a second listing does not agree with the first",
                folder.path, listed.listed
            ),
        })
    }

    /// New folders: an intent for all of them, then each, then their numbers.
    async fn create_folders(&mut self, folders: &[Folder], jobs: &mut [Job]) -> Result<(), PassError> {
        let mut creating = Vec::new();
        for job in jobs.iter_mut().filter(|job| job.reset.is_none()) {
            let folder = &folders[job.source];
            let validity = job.listed.head.validity;
            let number = match job.number {
                None => self.ledger.add_folder(|number| new_entry(number, folder, validity))?,
                Some(number) if self.ledger.folder(number)?.state == FolderState::Creating => {
                    *self.ledger.folder_mut(number)? = new_entry(number, folder, validity);
                    number
                }
                Some(_) => continue,
            };
            job.number = Some(number);
            creating.push((number, job.listed.head.uid_next));
        }
        if creating.is_empty() {
            return Ok(());
        }
        let numbers = || creating.iter().map(|(number, _)| *number);
        self.ledger
            .write(self.ledger.folder_changes(numbers()), "replicate.folders_creating")
            .await?;
        for (number, uid_next) in &creating {
            self.create_folder(*number, *uid_next).await?;
        }
        Ok(self
            .ledger
            .write(self.ledger.folder_changes(numbers()), "replicate.folders_created")
            .await?)
    }

    /// Makes one folder and takes its numbers. Uids are kept only in a folder that is empty and has the source's validity.
    pub(super) async fn create_folder(&mut self, number: u32, uid_next: u32) -> Result<(), PassError> {
        let entry = self.ledger.folder(number)?.clone();
        let keep = self.settings.given_uids && self.capabilities.given_uids && !self.live;
        let identity = keep.then_some(FolderIdentity {
            uid_validity: entry.source_validity,
            uid_next,
        });
        let new = NewFolder {
            special_use: entry.special_use,
            subscribed: entry.subscribed,
            identity,
        };
        self.guard()?;
        let status = self
            .target
            .create_folder(&entry.target_path, &new)
            .await
            .map_err(PassError::Target)?;
        self.note_target_status(&entry.target_path, Some(status));
        self.outcome.folders_created += 1;
        let entry = self.ledger.folder_mut(number)?;
        entry.target_validity = status.uid_validity;
        entry.given_uids = keep && status.uid_validity == entry.source_validity && status.exists == 0;
        entry.state = FolderState::Active;
        Ok(())
    }

    /// Folders with another validity: the target folder stays, under a new number; the items of the old one wait in it.
    async fn begin_resets(&mut self, folders: &[Folder], jobs: &mut [Job]) -> Result<(), PassError> {
        for job in jobs {
            let Some(old) = job.reset else { continue };
            job.number = Some(
                self.begin_reset(old, &folders[job.source], job.listed.head.validity)
                    .await?,
            );
        }
        Ok(())
    }

    pub(super) async fn begin_reset(&mut self, old: u32, folder: &Folder, validity: u32) -> Result<u32, PassError> {
        let target_validity = self.ledger.folder(old)?.target_validity;
        let number = self.ledger.add_folder(|number| FolderEntry {
            state: FolderState::Active,
            target_validity,
            ..new_entry(number, folder, validity)
        })?;
        self.ledger.folder_mut(old)?.state = FolderState::Retired;
        self.ledger
            .write(self.ledger.folder_changes([old, number]), "replicate.folder_reset")
            .await?;
        Ok(number)
    }

    /// What is about to be removed from the target may turn up elsewhere: it is copied from there.
    async fn fill_pool(&mut self, jobs: &[Job], vanished: &[u32]) -> Result<(), PassError> {
        if !self.capabilities.copy || jobs.iter().all(|job| job.listed.plan.additions.is_empty()) {
            return Ok(());
        }
        let mut leaving: Vec<(u32, Option<UidSet>)> = vanished.iter().map(|number| (*number, None)).collect();
        for job in jobs.iter().filter(|job| !job.listed.plan.removals.is_empty()) {
            let uids = UidSet::from_ascending(job.listed.plan.removals.iter().copied());
            leaving.extend(job.number.map(|number| (number, Some(uids))));
        }
        for (number, uids) in leaving {
            let path = self.ledger.folder(number)?.target_path.clone();
            let map = self.ledger.map(number).await?;
            for chunk in self.ledger.record_chunks(number).await? {
                for record in self.ledger.records(number, chunk).await? {
                    let leaves = uids.as_ref().is_none_or(|uids| uids.contains(record.uid));
                    if leaves && record.read_back == ReadBack::Equal && self.pool.len() < POOL {
                        let from = map.get(record.uid).map(|uid| (path.clone(), uid));
                        self.pool.extend(from.map(|from| (record.digest, from)));
                    }
                }
            }
        }
        Ok(())
    }

    async fn additions(&mut self, job: &Job) -> Result<(), PassError> {
        let (Some(number), additions) = (job.number, &job.listed.plan.additions) else {
            return Ok(());
        };
        if additions.is_empty() {
            return Ok(());
        }
        let mut folder = self.folder_work(number).await?;
        self.show(&folder.source_path);
        let gone = self.pull_all(&mut folder, additions).await?;
        if !gone.is_empty() {
            self.check_gone(&mut folder, &gone).await?;
        }
        self.note_uid_next(&folder);
        Ok(())
    }

    pub(super) fn note_uid_next(&mut self, folder: &FolderWork) {
        let numbers = self.target_numbers.as_mut();
        if let Some(status) = numbers.and_then(|numbers| numbers.get_mut(&folder.target_path)) {
            status.uid_next = folder.uid_next;
        }
    }

    /// *Gone* is believed only if the next listing agrees; else the item is asked for once more, then reported.
    pub(super) async fn check_gone(&mut self, folder: &mut FolderWork, gone: &[u32]) -> Result<(), PassError> {
        let Some(listed) = self
            .list_uids(&folder.source_path, folder.source_validity, false)
            .await?
        else {
            return Err(protocol(&format!(
                "folder {} lost items while it was copied",
                folder.source_path
            )));
        };
        let still_listed: Vec<_> = gone
            .iter()
            .filter(|uid| listed.contains(**uid))
            .map(|uid| crate::compare::Addition {
                uid: *uid,
                length_hint: None,
            })
            .collect();
        if still_listed.is_empty() {
            return Ok(());
        }
        for part in still_listed.chunks(MAX_BODY_REQUEST_ITEMS) {
            let mut reports = Vec::new();
            for uid in self.pull_all(folder, part).await? {
                let reason = "the source lists it, but says that it is gone".to_owned();
                let item = self.report_item(folder.number, uid, ReportKind::Skipped, reason)?;
                reports.push(ReportItem {
                    side: Side::Source,
                    ..item
                });
            }
            self.report_now(folder.number, reports).await?;
        }
        Ok(())
    }

    async fn flags_and_dates(&mut self, source: &Folder, job: &Job) -> Result<(), PassError> {
        let Some(number) = job.number else { return Ok(()) };
        let entry = self.ledger.folder(number)?.clone();
        if entry.subscribed != source.subscribed {
            self.guard()?;
            self.target
                .subscribe(&entry.target_path, source.subscribed)
                .await
                .map_err(PassError::Target)?;
            self.ledger.folder_mut(number)?.subscribed = source.subscribed;
            self.ledger
                .write(self.ledger.folder_changes([number]), "replicate.subscribed")
                .await?;
        }
        let plan = &job.listed.plan;
        if plan.flags.is_empty() && plan.dates.is_empty() {
            return Ok(());
        }
        let map = self.ledger.map(number).await?;
        let target_flags: Vec<_> = plan
            .flags
            .iter()
            .filter_map(|(uid, flags)| Some((map.get(*uid)?, flags.clone())))
            .collect();
        let dropped = self.set_target_flags(&entry.target_path, &target_flags).await?;
        let mut chunks: BTreeSet<u32> = plan.flags.iter().map(|(uid, _)| uid >> CHUNK_SHIFT).collect();
        chunks.extend(plan.dates.iter().map(|(uid, _)| uid >> CHUNK_SHIFT));
        let flags: BTreeMap<u32, _> = plan.flags.iter().map(|(uid, flags)| (*uid, flags)).collect();
        let dates: BTreeMap<u32, i64> = plan.dates.iter().copied().collect();
        let mut edits = RecordEdits::new();
        let mut report = ReportEdits::default();
        for chunk in chunks {
            for record in self.ledger.records(number, chunk).await? {
                let (new_flags, new_date) = (flags.get(&record.uid), dates.get(&record.uid));
                if new_flags.is_none() && new_date.is_none() {
                    continue;
                }
                let record = Record {
                    flags: new_flags.map_or_else(|| record.flags.clone(), |flags| (*flags).clone()),
                    received: new_date.copied().unwrap_or(record.received),
                    ..record
                };
                if new_flags.is_some() {
                    self.outcome.flags_changed += 1;
                    report.clear.push((record.uid, Some(ReportKind::Keywords)));
                    if let Some(keywords) = map.get(record.uid).and_then(|uid| dropped.get(&uid)) {
                        report.put.push(self.dropped_keywords(number, &record, None, keywords)?);
                    }
                }
                edits.insert(record.uid, Some(record));
            }
        }
        let mut changes = Changes::default();
        self.edit_records(number, edits, &mut changes).await?;
        self.edit_report(number, report, &mut changes).await?;
        changes.write(&self.ledger, "replicate.flags").await
    }

    /// Removals, and what was left unpaired of earlier validities.
    async fn removals(&mut self, job: &Job) -> Result<(), PassError> {
        let Some(number) = job.number else { return Ok(()) };
        let path = self.ledger.folder(number)?.target_path.clone();
        let plan = &job.listed.plan;
        if !plan.removals.is_empty() {
            let mut map = self.ledger.map(number).await?;
            self.remove_target_items(&path, &targets_of(&map, &plan.removals))
                .await?;
            for uid in &plan.removals {
                map.remove(*uid);
            }
            let mut changes = Changes::default();
            self.edit_records(
                number,
                plan.removals.iter().map(|uid| (*uid, None)).collect(),
                &mut changes,
            )
            .await?;
            let clear = plan.removals.iter().map(|uid| (*uid, None)).collect();
            self.edit_report(number, ReportEdits { put: vec![], clear }, &mut changes)
                .await?;
            changes.add(Ledger::map_change(number, &map));
            changes.write(&self.ledger, "replicate.removed").await?;
            self.outcome.items_removed += plan.removals.len() as u64;
        }
        if !job.listed.unreported.is_empty() {
            let mut changes = Changes::default();
            let clear = job.listed.unreported.iter().map(|uid| (*uid, None)).collect();
            self.edit_report(number, ReportEdits { put: vec![], clear }, &mut changes)
                .await?;
            changes.write(&self.ledger, "replicate.unreported").await?;
        }
        if job.listed.conclusive {
            for earlier in self.retired_beside(number)? {
                let left: Vec<u32> = self.ledger.map(earlier).await?.targets().iter().collect();
                self.remove_target_items(&path, &left).await?;
                self.outcome.items_removed += left.len() as u64;
                self.forget_folders(&[earlier], "replicate.retired").await?;
            }
        }
        Ok(())
    }

    async fn remove_vanished(&mut self, number: u32) -> Result<(), PassError> {
        self.ledger.folder_mut(number)?.state = FolderState::Removing;
        self.ledger
            .write(self.ledger.folder_changes([number]), "replicate.folder_removing")
            .await?;
        self.remove_target_folder(number).await
    }

    /// Kept uids also mean a UIDNEXT that is not below the source's, for items that came and went between passes.
    async fn raise_uid_next(&mut self, folders: &[Folder], jobs: &[Job]) -> Result<(), PassError> {
        for job in jobs {
            let Some(entry) = job
                .number
                .map(|number| self.ledger.folder(number))
                .transpose()?
                .cloned()
            else {
                continue;
            };
            let uid_next = job.listed.head.uid_next;
            if !entry.given_uids {
                continue;
            }
            let held = self
                .target_status(&entry.target_path)
                .await?
                .map_or(0, |status| status.uid_next);
            if held < uid_next {
                let identity = Some(FolderIdentity {
                    uid_validity: entry.source_validity,
                    uid_next,
                });
                let folder = &folders[job.source];
                let new = NewFolder {
                    special_use: folder.special_use,
                    subscribed: folder.subscribed,
                    identity,
                };
                self.guard()?;
                let status = self
                    .target
                    .create_folder(&entry.target_path, &new)
                    .await
                    .map_err(PassError::Target)?;
                if status.uid_next < uid_next {
                    tracing::warn!(folder = %entry.target_path, "the target's UIDNEXT stays below the source's");
                }
                self.note_target_status(&entry.target_path, Some(status));
            }
        }
        Ok(())
    }

    /// Tokens and numbers are saved behind the pass's last effect, of folders that were applied wholly.
    async fn end_pass(&mut self, folders: &[Folder], jobs: &[Job]) -> Result<(), PassError> {
        let mut changed = Vec::new();
        for job in jobs.iter().filter(|job| job.listed.conclusive) {
            let Some(number) = job.number else { continue };
            let head = &job.listed.head;
            let entry = self.ledger.folder_mut(number)?;
            let before = entry.clone();
            entry.special_use = folders[job.source].special_use;
            entry.synced = Some(Synced {
                uid_next: head.uid_next,
                exists: head.exists,
                highest_mod_seq: head.mod_seq,
                token: head.token.as_ref().map(|token| token.to_vec()),
            });
            if *entry != before {
                changed.push(number);
            }
        }
        Ok(self
            .ledger
            .write(self.ledger.folder_changes(changed), "replicate.pass_end")
            .await?)
    }
}

pub(super) fn new_entry(number: u32, folder: &Folder, source_validity: u32) -> FolderEntry {
    FolderEntry {
        number,
        state: FolderState::Creating,
        source_path: folder.path.clone(),
        target_path: folder.path.clone(),
        source_validity,
        target_validity: 0,
        given_uids: false,
        special_use: folder.special_use,
        subscribed: folder.subscribed,
        keywords: KeywordTable::default(),
        synced: None,
    }
}

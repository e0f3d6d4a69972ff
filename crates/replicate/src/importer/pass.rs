//! A pass: folder operations, additions, flags, and removals last.

use super::{
    FOLDERS_AHEAD, Mode, PassKind, Pooled, SkippedItems, Work,
    changes::{RecordEdits, ReportEdits},
    listing::{Listed, protocol},
    lock,
    pull::REQUESTS_OPEN,
    recover::targets_of,
};
use crate::{
    compare::{Addition, FolderStep, KnownFolder, compare_folders, shrank},
    error::PassError,
    ledger::{CHUNK_SHIFT, Changes, FolderEntry, FolderState, Ledger, ReadBack, Record, Synced},
    report::{Heading, ReportClass, ReportItem, ReportKind, Side},
};
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use rehome_mailbox::{ErrorScope, Folder, FolderIdentity, FolderPath, FolderStatus, NewFolder, Retry};
use rehome_wire::{frames::MAX_BODY_REQUEST_ITEMS, uid_set::UidSet};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// Most items that copies on the target are made from in one pass.
const POOL: usize = 200_000;
/// Folders that are listed at once.
const LISTINGS_AT_ONCE: usize = 32;

/// A folder of the source that is worked on.
pub(super) struct Job {
    /// Its place in the source's list.
    pub(super) source: usize,
    /// Its number, once it is in the ledger.
    pub(super) number: Option<u32>,
    /// Its number under an earlier validity.
    pub(super) reset: Option<u32>,
    pub(super) listed: Listed,
}

impl Job {
    fn additions(&self) -> &[Addition] {
        &self.listed.plan.additions
    }
}

impl Work<'_> {
    pub(super) async fn run_pass(&self, kind: PassKind) -> Result<(), PassError> {
        self.recover().await?;
        let mended = self.mend().await?;
        let folders = self.source_folders().await?;
        self.begin_progress(&folders);
        self.rename_folders(&folders).await?;
        self.drop_superseded().await?;
        let steps = self.decide(&folders)?;
        let vanished = self.vanished(&steps);
        self.confirm_vanished(&vanished).await?;
        let mut jobs = self.list_all(kind, &folders, &steps).await?;
        self.create_folders(&folders, &mut jobs).await?;
        self.begin_resets(&folders, &mut jobs).await?;
        self.fill_pool(&jobs, &vanished).await?;
        self.all_additions(&jobs).await?;
        self.subscriptions(&folders).await?;
        self.at_once(&jobs, self.lanes, |job| self.flags_and_dates(job)).await?;
        self.at_once(&jobs, self.lanes, |job| self.removals(job)).await?;
        for number in vanished {
            self.remove_vanished(number).await?;
        }
        self.look_for_late_doubles().await?;
        if kind == PassKind::Final {
            self.raise_uid_next(&folders, &jobs).await?;
        }
        self.end_pass(&folders, &jobs).await?;
        self.verify_jobs(kind, &jobs).await?;
        let still = self.in_state(FolderState::Active);
        for number in mended.into_iter().filter(|number| still.contains(number)) {
            self.verify_wholly(number).await?;
        }
        self.outcome().items_skipped = self.active().map(|entry| u64::from(entry.skipped)).sum();
        self.report_progress(|progress| progress.folder = String::new());
        Ok(())
    }

    fn begin_progress(&self, folders: &[Folder]) {
        let selectable = || folders.iter().filter(|folder| folder.selectable);
        let items = selectable()
            .filter_map(|folder| folder.status)
            .map(|s| u64::from(s.exists));
        let (count, items) = (selectable().count() as u64, items.sum());
        let mut outcome = self.outcome();
        outcome.folders = count;
        outcome.items_total = items;
        let mut progress = lock(&self.progress);
        progress.folders_total = count;
        progress.items_total = items;
    }

    fn active(&self) -> impl Iterator<Item = Arc<FolderEntry>> {
        let entries = self.ledger.folders().into_iter();
        entries.filter(|entry| entry.state == FolderState::Active)
    }

    /// What becomes of every folder.
    fn decide(&self, folders: &[Folder]) -> Result<Vec<FolderStep>, PassError> {
        let entries = self.ledger.folders();
        let steps = compare_folders(folders, &known_folders(&entries, self.skipped));
        for step in &steps {
            tracing::debug!(?step, "folder");
        }
        Ok(steps)
    }

    /// The folders that are to go. In a mailbox in use none does.
    fn vanished(&self, steps: &[FolderStep]) -> Vec<u32> {
        let vanished = steps.iter().filter_map(|step| match step {
            FolderStep::Vanished { number } if self.mode != Mode::Live => Some(*number),
            FolderStep::Vanished { .. }
            | FolderStep::Create { .. }
            | FolderStep::Reset { .. }
            | FolderStep::List { .. }
            | FolderStep::Unchanged { .. } => None,
        });
        vanished.collect()
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
    async fn list_all(&self, kind: PassKind, folders: &[Folder], steps: &[FolderStep]) -> Result<Vec<Job>, PassError> {
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
            .map(|(source, status, number, reset)| {
                self.list_one(kind, &folders[*source], *status, *number, *reset).boxed()
            })
            .collect();
        let listed: Vec<Listed> = stream::iter(listings).buffered(LISTINGS_AT_ONCE).try_collect().await?;
        self.outcome().folders_listed += listed.len() as u64;
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
        let entry = number.map(|number| self.ledger.folder(number)).transpose()?;
        let synced = entry.as_ref().and_then(|entry| entry.synced.as_ref());
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

    /// What is about to be removed from the target may turn up elsewhere: it is copied from there.
    async fn fill_pool(&self, jobs: &[Job], vanished: &[u32]) -> Result<(), PassError> {
        let live = self.mode == Mode::Live;
        if !self.capabilities.copy || live || jobs.iter().all(|job| job.additions().is_empty()) {
            return Ok(());
        }
        let mut leaving: Vec<(u32, Option<UidSet>)> = vanished.iter().map(|number| (*number, None)).collect();
        for job in jobs.iter().filter(|job| !job.listed.plan.removals.is_empty()) {
            let uids = UidSet::from_ascending(job.listed.plan.removals.iter().copied());
            leaving.extend(job.number.map(|number| (number, Some(uids))));
        }
        for (number, uids) in leaving {
            let entry = self.ledger.folder(number)?;
            let map = self.ledger.map(number).await?;
            let mut chunks = self.ledger.record_chunks(number).await?;
            if let Some(uids) = &uids {
                let wanted: BTreeSet<u32> = uids.iter().map(|uid| uid >> CHUNK_SHIFT).collect();
                chunks.retain(|chunk| wanted.contains(chunk));
            }
            for chunk in chunks {
                let records = self.ledger.records(number, chunk).await?;
                let mut pool = lock(&self.pool);
                for record in records {
                    let leaves = uids.as_ref().is_none_or(|uids| uids.contains(record.uid));
                    if leaves && record.read_back == ReadBack::Equal && pool.len() < POOL {
                        let from = map.get(record.uid).map(|uid| Pooled {
                            path: entry.target_path.clone(),
                            validity: entry.target_validity,
                            uid,
                        });
                        pool.extend(from.map(|from| (record.digest, from)));
                    }
                }
            }
        }
        Ok(())
    }

    /// Additions of all folders, as many folders at once as the target is worth; those behind them have their first items
    /// asked for already.
    async fn all_additions(&self, jobs: &[Job]) -> Result<(), PassError> {
        let wanting: Vec<&Job> = jobs.iter().filter(|job| !job.additions().is_empty()).collect();
        self.report_progress(|progress| {
            progress.items_to_do = wanting.iter().map(|job| job.additions().len() as u64).sum();
        });
        let at_once = (self.lanes + FOLDERS_AHEAD).min(wanting.len());
        self.budget
            .share_requests(self.lanes.min(wanting.len()) * REQUESTS_OPEN);
        self.at_once(wanting, at_once, |job| self.additions(job)).await
    }

    async fn additions(&self, job: &Job) -> Result<(), PassError> {
        let Some(number) = job.number else { return Ok(()) };
        let gone = self.bring(number, job.additions()).await?;
        if gone.is_empty() {
            return Ok(());
        }
        self.check_gone(number, &gone).await
    }

    /// *Gone* is believed only if the next listing agrees; else the item is asked for once more, then reported.
    pub(super) async fn check_gone(&self, number: u32, gone: &[u32]) -> Result<(), PassError> {
        let entry = self.ledger.folder(number)?;
        let Some(listed) = self.list_uids(&entry.source_path, entry.source_validity, false).await? else {
            return Err(protocol(&format!(
                "folder {} lost items while it was copied",
                entry.source_path
            )));
        };
        let still_listed: Vec<Addition> = gone
            .iter()
            .filter(|uid| listed.contains(**uid))
            .map(|uid| Addition {
                uid: *uid,
                length_hint: None,
            })
            .collect();
        for part in still_listed.chunks(MAX_BODY_REQUEST_ITEMS) {
            let mut reports = Vec::new();
            for uid in self.bring(number, part).await? {
                let reason = "the source lists it, but says that it is gone".to_owned();
                let item = self.report_item(number, uid, ReportKind::Skipped, reason)?;
                reports.push(ReportItem {
                    side: Side::Source,
                    class: ReportClass::Missing,
                    ..item
                });
            }
            self.report_now(number, reports).await?;
        }
        Ok(())
    }

    /// Subscriptions, of unchanged folders too: no number tells of them.
    async fn subscriptions(&self, folders: &[Folder]) -> Result<(), PassError> {
        if self.mode == Mode::Live {
            return Ok(());
        }
        let listed: HashMap<&FolderPath, &Folder> = folders.iter().map(|folder| (&folder.path, folder)).collect();
        let active: Vec<Arc<FolderEntry>> = self.active().collect();
        for entry in active {
            let Some(source) = listed.get(&entry.source_path) else {
                continue;
            };
            if entry.subscribed == source.subscribed {
                continue;
            }
            self.guard()?;
            self.target
                .subscribe(&entry.target_path, source.subscribed)
                .await
                .map_err(PassError::Target)?;
            self.ledger
                .edit(entry.number, |entry| entry.subscribed = source.subscribed)?;
            let mut changes = Changes::default();
            changes.folder(entry.number);
            self.ledger.write(changes, "replicate.subscribed").await?;
        }
        Ok(())
    }

    async fn flags_and_dates(&self, job: &Job) -> Result<(), PassError> {
        let Some(number) = job.number else { return Ok(()) };
        let plan = &job.listed.plan;
        if plan.flags.is_empty() && plan.dates.is_empty() {
            return Ok(());
        }
        let entry = self.ledger.folder(number)?;
        let map = self.ledger.map(number).await?;
        let mut chunks: BTreeSet<u32> = plan.flags.iter().map(|(uid, _)| uid >> CHUNK_SHIFT).collect();
        chunks.extend(plan.dates.iter().map(|(uid, _)| uid >> CHUNK_SHIFT));
        let flags: BTreeMap<u32, _> = plan.flags.iter().map(|(uid, flags)| (*uid, flags)).collect();
        let dates: BTreeMap<u32, i64> = plan.dates.iter().copied().collect();
        let mut changed: Vec<Record> = Vec::new();
        for chunk in chunks {
            let records = self.ledger.records(number, chunk).await?.into_iter();
            changed.extend(records.filter(|record| flags.contains_key(&record.uid) || dates.contains_key(&record.uid)));
        }
        let target_flags = match self.mode {
            Mode::Hidden | Mode::Sweep => plan
                .flags
                .iter()
                .filter_map(|(uid, flags)| Some((map.get(*uid)?, flags.clone())))
                .collect(),
            Mode::Live => self.merged_flags(&entry, &map, &changed, &flags).await?,
        };
        let dropped = self.set_target_flags(entry.on_target(), &target_flags).await?;
        let mut edits = RecordEdits::new();
        let mut report = ReportEdits::default();
        for record in changed {
            let (new_flags, new_date) = (flags.get(&record.uid), dates.get(&record.uid));
            let record = Record {
                flags: new_flags.map_or_else(|| record.flags.clone(), |flags| (*flags).clone()),
                received: new_date.copied().unwrap_or(record.received),
                ..record
            };
            if new_flags.is_some() {
                self.outcome().flags_changed += 1;
                report.clear.push((record.uid, Some(ReportKind::Keywords)));
                if let Some(keywords) = map.get(record.uid).and_then(|uid| dropped.get(&uid)) {
                    report
                        .put
                        .push(self.dropped_keywords(number, &record, Heading::default(), keywords)?);
                }
            }
            edits.insert(record.uid, Some(record));
        }
        let mut changes = Changes::default();
        self.edit_records(number, edits, &mut changes).await?;
        self.edit_report(number, report, &mut changes).await?;
        Ok(self.ledger.write(changes, "replicate.flags").await?)
    }

    /// Removals, and what was left unpaired of earlier validities. From a mailbox in use nothing is removed.
    async fn removals(&self, job: &Job) -> Result<(), PassError> {
        let Some(number) = job.number else { return Ok(()) };
        let entry = self.ledger.folder(number)?;
        let plan = &job.listed.plan;
        let carried = self.mode != Mode::Live;
        if !plan.removals.is_empty() {
            let mut map = self.ledger.map(number).await?;
            if carried {
                self.remove_target_items(entry.on_target(), &targets_of(&map, &plan.removals))
                    .await?;
                self.outcome().items_removed += plan.removals.len() as u64;
            }
            for uid in &plan.removals {
                map.remove(*uid);
            }
            let mut changes = Changes::default();
            let edits = plan.removals.iter().map(|uid| (*uid, None)).collect();
            self.edit_records(number, edits, &mut changes).await?;
            let clear = plan.removals.iter().map(|uid| (*uid, None)).collect();
            self.edit_report(number, ReportEdits { put: vec![], clear }, &mut changes)
                .await?;
            changes.add(Ledger::map_change(number, &map));
            self.ledger.write(changes, "replicate.removed").await?;
        }
        if !job.listed.unreported.is_empty() {
            let mut changes = Changes::default();
            let clear = job.listed.unreported.iter().map(|uid| (*uid, None)).collect();
            self.edit_report(number, ReportEdits { put: vec![], clear }, &mut changes)
                .await?;
            self.ledger.write(changes, "replicate.unreported").await?;
        }
        if job.listed.conclusive {
            for earlier in self.retired_beside(number)? {
                if carried {
                    let left: Vec<u32> = self.ledger.map(earlier).await?.targets().iter().collect();
                    self.remove_target_items(entry.on_target(), &left).await?;
                    self.outcome().items_removed += left.len() as u64;
                }
                self.forget_folders(&[earlier], "replicate.retired").await?;
            }
        }
        Ok(())
    }

    /// Kept uids also mean a UIDNEXT that is not below the source's, for items that came and went between passes.
    async fn raise_uid_next(&self, folders: &[Folder], jobs: &[Job]) -> Result<(), PassError> {
        // In a mailbox in use its user's own items go on from where they are.
        if self.is_live() {
            return Ok(());
        }
        for job in jobs {
            let Some(number) = job.number else { continue };
            let entry = self.ledger.folder(number)?;
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
                self.note_target_folder(&entry.target_path, Some(status)).await;
            }
        }
        Ok(())
    }

    /// Tokens and numbers are saved behind the pass's last effect, of folders that were applied wholly.
    async fn end_pass(&self, folders: &[Folder], jobs: &[Job]) -> Result<(), PassError> {
        let mut changes = Changes::default();
        for job in jobs.iter().filter(|job| job.listed.conclusive) {
            let Some(number) = job.number else { continue };
            let head = &job.listed.head;
            let edited = self.ledger.edit(number, |entry| {
                entry.special_use = folders[job.source].special_use;
                entry.source_mailbox_id.clone_from(&folders[job.source].mailbox_id);
                entry.synced = Some(Synced {
                    uid_next: head.uid_next,
                    exists: head.exists,
                    highest_mod_seq: head.mod_seq,
                    token: head.token.as_ref().map(|token| token.to_vec()),
                });
            })?;
            if edited {
                changes.folder(number);
            }
        }
        Ok(self.ledger.write(changes, "replicate.pass_end").await?)
    }
}

/// The folders that the ledger has. One whose items were skipped is not taken for unchanged where they are tried again.
pub(super) fn known_folders(entries: &[Arc<FolderEntry>], skipped: SkippedItems) -> Vec<KnownFolder<'_>> {
    let leaves = match skipped {
        SkippedItems::Leave => true,
        SkippedItems::Try | SkippedItems::TryAltered => false,
    };
    let current = entries
        .iter()
        .filter(|entry| matches!(entry.state, FolderState::Active | FolderState::Creating));
    current
        .map(|entry| KnownFolder {
            number: entry.number,
            path: &entry.source_path,
            uid_validity: entry.source_validity,
            created: entry.state == FolderState::Active,
            synced: entry.synced.as_ref().filter(|_| leaves || entry.skipped == 0),
            mailbox_id: entry.source_mailbox_id.as_deref(),
        })
        .collect()
}

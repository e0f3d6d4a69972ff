//! Brings complete items to the target: intent, append or copy, read-back, close.

use super::{
    Work,
    changes::{Changes, RecordEdits, ReportEdits},
    pull::{Batch, Ready, refusal},
};
use crate::{
    error::PassError,
    ledger::{Ledger, ReadBack, Record, UidMap, Window},
    reading::{ReadOutcome, read_digests},
    report::{ReportItem, ReportKind},
};
use rehome_mailbox::{Appended, ErrorScope, FolderPath, ItemKey, MailboxError, NewItem};
use rehome_wire::{digest::Digest, flags::Flags, uid_set::UidSet};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// An item of an earlier validity of the folder, on the target, that waits to be paired.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    /// The folder's number under the earlier validity.
    number: u32,
    target_uid: u32,
    record: Record,
}

/// A folder at work.
pub(super) struct FolderWork {
    pub(super) number: u32,
    pub(super) source_path: FolderPath,
    pub(super) source_validity: u32,
    pub(super) target_path: FolderPath,
    pub(super) target_validity: u32,
    /// The target's UIDNEXT, with no append outstanding.
    pub(super) uid_next: u32,
    pub(super) given_uids: bool,
    pub(super) map: UidMap,
    /// By digest, in uid order.
    pub(super) waiting: HashMap<Digest, VecDeque<Waiting>>,
}

/// Where an item of a batch came to be on the target.
struct Placed {
    uid: u32,
    keywords_dropped: Vec<String>,
}

/// What is known of the items of a batch after the commands.
enum Fate {
    Placed(Placed),
    Refused(MailboxError),
}

impl Work<'_> {
    /// Applies a batch: afterwards every item of it is recorded or reported, durably.
    pub(super) async fn apply_batch(&mut self, folder: &mut FolderWork, batch: Batch) -> Result<(), PassError> {
        let Batch { items, reports, .. } = batch;
        if items.is_empty() && reports.is_empty() {
            return Ok(());
        }
        let mut changes = Changes::default();
        let mut records = RecordEdits::new();
        let mut report = ReportEdits {
            put: reports,
            clear: Vec::new(),
        };
        let mut new_items = Vec::new();
        let mut paired: Vec<(Ready, Waiting)> = Vec::new();
        for item in items {
            report.clear.push((item.record.uid, None));
            match folder
                .waiting
                .get_mut(&item.record.digest)
                .and_then(VecDeque::pop_front)
            {
                Some(waiting) => paired.push((item, waiting)),
                None => new_items.push(item),
            }
        }
        let done = new_items.len() + paired.len();
        let octets: u64 = new_items.iter().map(|item| item.record.length).sum();
        self.pair(folder, paired, &mut records, &mut report, &mut changes)
            .await?;
        let stop = self
            .place(folder, new_items, &mut records, &mut report, &mut changes)
            .await?;
        self.edit_records(folder.number, records, &mut changes).await?;
        self.edit_report(folder.number, report, &mut changes).await?;
        changes.add(Ledger::map_change(folder.number, &folder.map));
        changes.write(&self.ledger, "replicate.applied").await?;
        self.progress.items_done += done as u64;
        self.progress.octets_done += octets;
        self.show(&folder.source_path);
        stop.map_or(Ok(()), |error| Err(PassError::Target(error)))
    }

    /// Gives items that were found again their new source uid; the target's flags become the source's.
    async fn pair(
        &mut self,
        folder: &mut FolderWork,
        paired: Vec<(Ready, Waiting)>,
        records: &mut RecordEdits,
        report: &mut ReportEdits,
        changes: &mut Changes,
    ) -> Result<(), PassError> {
        if paired.is_empty() {
            return Ok(());
        }
        let differing = paired
            .iter()
            .filter(|(item, waiting)| item.record.flags != waiting.record.flags);
        let flags: Vec<(u32, Flags)> = differing
            .map(|(item, waiting)| (waiting.target_uid, item.record.flags.clone()))
            .collect();
        let dropped = if self.live {
            HashMap::new()
        } else {
            self.set_target_flags(&folder.target_path, &flags).await?
        };
        let mut earlier: BTreeMap<u32, Vec<Record>> = BTreeMap::new();
        for (item, waiting) in paired {
            let Waiting {
                number,
                target_uid,
                record: old,
            } = waiting;
            folder.map.insert(item.record.uid, target_uid);
            if let Some(keywords) = dropped.get(&target_uid) {
                report
                    .put
                    .push(self.dropped_keywords(folder.number, &item.record, item.subject, keywords)?);
            }
            records.insert(
                item.record.uid,
                Some(Record {
                    read_back: old.read_back,
                    ..item.record
                }),
            );
            earlier.entry(number).or_default().push(old);
            self.outcome.items_paired += 1;
        }
        for (number, old) in earlier {
            let mut map = self.ledger.map(number).await?;
            for record in &old {
                map.remove(record.uid);
            }
            changes.add(Ledger::map_change(number, &map));
            let edits = old.into_iter().map(|record| (record.uid, None)).collect();
            self.edit_records(number, edits, changes).await?;
        }
        Ok(())
    }

    /// Appends or copies items under an intent and reads them back. The changes close the intent. Returns the error that
    /// the pass must stop with once they are written.
    async fn place(
        &mut self,
        folder: &mut FolderWork,
        items: Vec<Ready>,
        records: &mut RecordEdits,
        report: &mut ReportEdits,
        changes: &mut Changes,
    ) -> Result<Option<MailboxError>, PassError> {
        if items.is_empty() {
            return Ok(None);
        }
        let mut intents = self.ledger.intents(folder.number).await?;
        intents.open = Some(Window {
            given_uids: folder.given_uids,
            target_validity: folder.target_validity,
            uid_next: folder.uid_next,
            items: items.iter().map(|item| item.record.clone()).collect(),
        });
        self.ledger
            .write(
                vec![Ledger::intents_change(folder.number, &intents)],
                "replicate.intent",
            )
            .await?;
        let fates = self.run_commands(folder, &items).await?;
        let uids = fates.iter().filter_map(|fate| match fate {
            Fate::Placed(placed) => Some(placed.uid),
            Fate::Refused(_) => None,
        });
        let held = self.read_back(&folder.target_path, uids.collect()).await?;
        let mut stop = None;
        for (item, fate) in items.into_iter().zip(fates) {
            match fate {
                Fate::Placed(placed) => self.record_placed(folder, item, placed, &held, records, report)?,
                Fate::Refused(error) => {
                    report.put.push(self.skipped(folder.number, &item, refusal(&error))?);
                    if error.scope > ErrorScope::Item {
                        stop = stop.or(Some(error));
                    }
                }
            }
        }
        intents.open = None;
        changes.add(Ledger::intents_change(folder.number, &intents));
        Ok(stop)
    }

    /// Hands the items to the target in order, runs of copies and appends in turn.
    async fn run_commands(&mut self, folder: &FolderWork, items: &[Ready]) -> Result<Vec<Fate>, PassError> {
        let news: Vec<NewItem> = items.iter().map(|item| self.new_item(folder, item)).collect();
        let mut fates: Vec<Option<Fate>> = items.iter().map(|_| None).collect();
        let sources: Vec<Option<(FolderPath, u32)>> = items
            .iter()
            .map(|item| self.pool.get(&item.record.digest).cloned())
            .collect();
        let mut start = 0;
        for run in sources.chunk_by(|one, two| one.is_some() == two.is_some()) {
            let range = start..start + run.len();
            start = range.end;
            if run[0].is_none() {
                self.append_run(folder, &news, range.collect(), &mut fates).await?;
                continue;
            }
            self.guard()?;
            let from: Vec<(FolderPath, u32)> = run.iter().flatten().cloned().collect();
            let answers = self.target.copy(&from, &folder.target_path, &news[range.clone()]).await;
            let answers = self.answered(folder, answers.map_err(PassError::Target)?, from.len())?;
            let mut refused = Vec::new();
            for (at, answer) in range.zip(answers) {
                match answer {
                    Appended::Uid { uid, keywords_dropped } => {
                        self.outcome.items_copied += 1;
                        fates[at] = Some(Fate::Placed(Placed { uid, keywords_dropped }));
                    }
                    // Gone from there meanwhile: its octets are at hand.
                    Appended::Refused(_) => refused.push(at),
                }
            }
            self.append_run(folder, &news, refused, &mut fates).await?;
        }
        Ok(fates.into_iter().flatten().collect())
    }

    async fn append_run(
        &mut self,
        folder: &FolderWork,
        news: &[NewItem],
        places: Vec<usize>,
        fates: &mut [Option<Fate>],
    ) -> Result<(), PassError> {
        for places in places.chunks(self.capabilities.append_batch.max(1)) {
            self.guard()?;
            let items: Vec<NewItem> = places.iter().map(|at| news[*at].clone()).collect();
            let answers = self
                .target
                .append(&folder.target_path, items)
                .await
                .map_err(PassError::Target)?;
            for (at, answer) in places.iter().zip(self.answered(folder, answers, places.len())?) {
                fates[*at] = Some(match answer {
                    Appended::Uid { uid, keywords_dropped } => Fate::Placed(Placed { uid, keywords_dropped }),
                    Appended::Refused(error) => Fate::Refused(error),
                });
            }
        }
        Ok(())
    }

    /// One answer for each item, or the outcome is unknown.
    fn answered(&self, folder: &FolderWork, answers: Vec<Appended>, asked: usize) -> Result<Vec<Appended>, PassError> {
        if answers.len() == asked {
            return Ok(answers);
        }
        Err(PassError::Target(MailboxError {
            what: format!("appending to folder {}", folder.target_path),
            cause: format!("{} answers for {asked} items", answers.len()),
            scope: ErrorScope::Mailbox,
            retry: rehome_mailbox::Retry::Now,
        }))
    }

    fn new_item(&self, folder: &FolderWork, item: &Ready) -> NewItem {
        let record = &item.record;
        NewItem {
            key: ItemKey {
                move_id: self.settings.move_id,
                folder: folder.number,
                source_validity: folder.source_validity,
                source_uid: record.uid,
            },
            uid: folder.given_uids.then_some(record.uid),
            flags: record.flags.clone(),
            received: record.received,
            length: record.length,
            digest: record.digest,
            body: item.body.clone(),
        }
    }

    /// Reads items back, whose digests are then known. Nothing with read-back switched off.
    pub(super) async fn read_back(
        &self,
        target_path: &FolderPath,
        mut uids: Vec<u32>,
    ) -> Result<BTreeMap<u32, ReadOutcome>, PassError> {
        if !self.settings.read_back || uids.is_empty() {
            return Ok(BTreeMap::new());
        }
        uids.sort_unstable();
        uids.dedup();
        self.guard()?;
        read_digests(self.target, target_path, &uids)
            .await
            .map_err(PassError::Target)
    }

    fn record_placed(
        &mut self,
        folder: &mut FolderWork,
        item: Ready,
        placed: Placed,
        held: &BTreeMap<u32, ReadOutcome>,
        records: &mut RecordEdits,
        report: &mut ReportEdits,
    ) -> Result<(), PassError> {
        let Placed { uid, keywords_dropped } = placed;
        let (read_back, altered) = match held.get(&uid) {
            Some(ReadOutcome::Gone) => {
                let reason = "the target accepted it, but does not hold it".to_owned();
                report.put.push(self.skipped(folder.number, &item, reason)?);
                return Ok(());
            }
            outcome => self.judge(folder.number, &item.record, outcome)?,
        };
        folder.uid_next = folder.uid_next.max(uid.saturating_add(1));
        folder.map.insert(item.record.uid, uid);
        report.put.extend(altered.map(|altered| ReportItem {
            subject: item.subject.clone(),
            ..altered
        }));
        if !keywords_dropped.is_empty() {
            report
                .put
                .push(self.dropped_keywords(folder.number, &item.record, item.subject, &keywords_dropped)?);
        }
        self.outcome.items_appended += 1;
        self.outcome.octets_appended += item.record.length;
        records.insert(
            item.record.uid,
            Some(Record {
                read_back,
                ..item.record
            }),
        );
        Ok(())
    }

    /// What reading an item back says about its record, and what is to be reported. *Gone* is the caller's.
    pub(super) fn judge(
        &self,
        number: u32,
        record: &Record,
        outcome: Option<&ReadOutcome>,
    ) -> Result<(ReadBack, Option<ReportItem>), PassError> {
        let (reason, held) = match outcome {
            None | Some(ReadOutcome::Gone) => return Ok((ReadBack::Open, None)),
            Some(ReadOutcome::Octets { length, digest }) if (*length, *digest) == (record.length, record.digest) => {
                return Ok((ReadBack::Equal, None));
            }
            Some(ReadOutcome::Octets { length, digest }) => (
                "the target serves other octets than it was given".to_owned(),
                Some((*length, *digest)),
            ),
            Some(ReadOutcome::Failed(error)) => (format!("the target does not give it back: {}", error.cause), None),
        };
        let item = self.report_item(number, record.uid, ReportKind::Altered, reason)?;
        let (size, received) = (Some(record.length), Some(record.received));
        Ok((
            ReadBack::Altered,
            Some(ReportItem {
                size,
                received,
                held,
                ..item
            }),
        ))
    }

    fn skipped(&self, number: u32, item: &Ready, reason: String) -> Result<ReportItem, PassError> {
        let reported = self.report_item(number, item.record.uid, ReportKind::Skipped, reason)?;
        let (size, received) = (Some(item.record.length), Some(item.record.received));
        Ok(ReportItem {
            size,
            received,
            subject: item.subject.clone(),
            ..reported
        })
    }

    pub(super) fn dropped_keywords(
        &self,
        number: u32,
        record: &Record,
        subject: Option<String>,
        keywords: &[String],
    ) -> Result<ReportItem, PassError> {
        let reason = format!("the target cannot keep the keywords {}", keywords.join(" "));
        let item = self.report_item(number, record.uid, ReportKind::Keywords, reason)?;
        Ok(ReportItem {
            size: Some(record.length),
            received: Some(record.received),
            subject,
            ..item
        })
    }

    /// Sets flags on the target; returns the keywords that it dropped, by uid.
    pub(super) async fn set_target_flags(
        &self,
        target_path: &FolderPath,
        flags: &[(u32, Flags)],
    ) -> Result<HashMap<u32, Vec<String>>, PassError> {
        let mut dropped = HashMap::new();
        for part in flags.chunks(1_000) {
            self.guard()?;
            dropped.extend(
                self.target
                    .set_flags(target_path, part)
                    .await
                    .map_err(PassError::Target)?,
            );
        }
        dropped.retain(|_, keywords: &mut Vec<String>| !keywords.is_empty());
        Ok(dropped)
    }

    /// Writes reports by themselves.
    pub(super) async fn report_now(&self, number: u32, put: Vec<ReportItem>) -> Result<(), PassError> {
        let mut changes = Changes::default();
        self.edit_report(number, ReportEdits { put, clear: Vec::new() }, &mut changes)
            .await?;
        changes.write(&self.ledger, "replicate.reported").await
    }

    /// What is needed to work on a folder of the ledger.
    pub(super) async fn folder_work(&mut self, number: u32) -> Result<FolderWork, PassError> {
        let entry = self.ledger.folder(number)?.clone();
        let status = self.target_status(&entry.target_path).await?;
        let Some(status) = status.filter(|status| status.uid_validity == entry.target_validity) else {
            return Err(PassError::TargetDiffers {
                message: format!(
                    "the target's folder {} is not the one that the move made",
                    entry.target_path
                ),
                mended: false,
            });
        };
        let waiting = self.waiting_items(number).await?;
        Ok(FolderWork {
            number,
            source_path: entry.source_path,
            source_validity: entry.source_validity,
            target_path: entry.target_path,
            target_validity: entry.target_validity,
            uid_next: status.uid_next,
            given_uids: entry.given_uids && !self.live,
            map: self.ledger.map(number).await?,
            waiting,
        })
    }

    /// Items of earlier validities that wait to be paired: those that the target still holds, unaltered.
    async fn waiting_items(&self, number: u32) -> Result<HashMap<Digest, VecDeque<Waiting>>, PassError> {
        let mut waiting: HashMap<Digest, VecDeque<Waiting>> = HashMap::new();
        let earlier = self.retired_beside(number)?;
        if earlier.is_empty() {
            return Ok(waiting);
        }
        self.guard()?;
        // A removal that was interrupted may have taken items that the ledger still has.
        let path = &self.ledger.folder(number)?.target_path;
        let listing = self.target.list(path, None).await.map_err(PassError::Target)?;
        let held = UidSet::from_ascending(listing.items.iter().map(|item| item.uid));
        for earlier in earlier {
            let map = self.ledger.map(earlier).await?;
            for chunk in self.ledger.record_chunks(earlier).await? {
                for record in self.ledger.records(earlier, chunk).await? {
                    let target_uid = map.get(record.uid).filter(|uid| held.contains(*uid));
                    if let Some(target_uid) = target_uid.filter(|_| record.read_back != ReadBack::Altered) {
                        let item = Waiting {
                            number: earlier,
                            target_uid,
                            record,
                        };
                        waiting.entry(item.record.digest).or_default().push_back(item);
                    }
                }
            }
        }
        Ok(waiting)
    }

    /// Earlier validities of a folder, whose items lie in the same target folder; oldest first.
    pub(super) fn retired_beside(&self, number: u32) -> Result<Vec<u32>, PassError> {
        let path = &self.ledger.folder(number)?.target_path;
        let retired = self.ledger.folders().values().filter(|entry| {
            entry.state == crate::ledger::FolderState::Retired && entry.target_path == *path && entry.number != number
        });
        Ok(retired.map(|entry| entry.number).collect())
    }
}

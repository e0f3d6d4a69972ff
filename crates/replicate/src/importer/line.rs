//! One folder's line: batches come in, intents go ahead of them, one append is on its way, read-backs follow behind.
//!
//! A batch that came in waits until its intent is durable, which happens while the batch before it is appended; the write
//! that extends the intent also closes it from the front, so that the target waits for neither source nor ledger.

use super::{
    Work,
    apply::{Fate, FolderWork, Lot, Placed},
    changes::{RecordEdits, ReportEdits},
    incoming::{Batch, refusal},
};
use crate::{
    error::PassError,
    ledger::{Changes, Intents, Ledger, LedgerError, Octets, ReadBack, Record, Window},
    reading::ReadOutcome,
    report::{Heading, ReportClass, ReportItem, ReportKind},
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use rehome_mailbox::ErrorScope;
use std::collections::{BTreeMap, VecDeque};
use tokio::sync::{SemaphorePermit, mpsc};

/// Batches that wait behind the one that is appended.
const LOTS_WAITING: usize = 2;
/// Read-backs on their way.
const READ_BACKS: usize = 2;
/// Items of one read-back.
const READ_BACK_ITEMS: usize = 500;
/// Items that may wait for their read-back: so many records are kept in memory.
const UNREAD_ITEMS: usize = 4_000;
/// Items on the target at which they are recorded. A crash leaves fewer to recovery; more often would write the same chunk
/// of records again and again.
const UNRECORDED_ITEMS: usize = 500;

/// An item on the target that was not read back yet.
struct Unread {
    record: Record,
    target_uid: u32,
    heading: Heading,
}

type Appending<'l> = BoxFuture<'l, (Lot, Result<Placed, PassError>)>;
type ReadingBack<'l> = BoxFuture<'l, (Vec<Unread>, Result<BTreeMap<u32, ReadOutcome>, PassError>)>;

/// What is on its way.
struct Line<'l> {
    work: &'l Work<'l>,
    folder: FolderWork,
    /// Given back when the last append has ended.
    turn: Option<SemaphorePermit<'l>>,
    ended: bool,
    /// Without a durable intent yet.
    fresh: VecDeque<Lot>,
    /// Of them, those that the write on its way makes durable.
    being_written: usize,
    /// With one.
    ready: VecDeque<Lot>,
    appending: Option<Appending<'l>>,
    writing: Option<BoxFuture<'l, Result<(), LedgerError>>>,
    unread: VecDeque<Unread>,
    reading: FuturesUnordered<ReadingBack<'l>>,
    /// Items of the intent: all that came in and are not recorded.
    window: VecDeque<Record>,
    /// The target's UIDNEXT before the first of them.
    window_uid_next: u32,
    /// Of them, from the front, those whose append ended.
    placed: usize,
    /// Items to be recorded.
    unrecorded: usize,
    /// Of the window's first items it is not known whether they are on the target.
    unsure: usize,
    /// Something was appended and will not be read back.
    left_unread: bool,
    records: RecordEdits,
    report: ReportEdits,
    done: (u64, u64),
    failed: Option<PassError>,
}

/// Waits for what may be on its way; for ever if it is not.
async fn of<T>(slot: &mut Option<BoxFuture<'_, T>>) -> T {
    match slot {
        Some(future) => {
            let value = future.await;
            *slot = None;
            value
        }
        None => std::future::pending().await,
    }
}

impl Work<'_> {
    /// Brings the batches of one folder to the target. At the end every item of them is recorded or reported, durably.
    pub(super) async fn run_line(
        &self,
        folder: FolderWork,
        turn: SemaphorePermit<'_>,
        mut batches: mpsc::Receiver<Batch>,
    ) -> Result<FolderWork, PassError> {
        let mut line = Line {
            work: self,
            turn: Some(turn),
            ended: false,
            fresh: VecDeque::new(),
            being_written: 0,
            ready: VecDeque::new(),
            appending: None,
            writing: None,
            unread: VecDeque::new(),
            reading: FuturesUnordered::new(),
            window: VecDeque::new(),
            window_uid_next: folder.uid_next,
            placed: 0,
            unrecorded: 0,
            unsure: 0,
            left_unread: false,
            records: RecordEdits::new(),
            report: ReportEdits::default(),
            done: (0, 0),
            failed: None,
            folder,
        };
        let mut stop = self.stop.subscribe();
        while line.failed.is_none() {
            line.begin_write().await?;
            line.begin_append();
            line.begin_read_back();
            line.end_turn();
            if line.is_done() {
                return Ok(line.folder);
            }
            let takes = line.takes_more();
            let reads = !line.reading.is_empty();
            tokio::select! {
                // What frees the target and the ledger first, so that the same events make the same steps.
                biased;
                _ = stop.wait_for(|stop| *stop) => line.failed = Some(PassError::Cancelled),
                written = of(&mut line.writing) => line.written(written)?,
                (lot, placed) = of(&mut line.appending) => line.appended(lot, placed)?,
                Some((items, held)) = line.reading.next(), if reads => line.judge(items, held)?,
                batch = batches.recv(), if takes => match batch {
                    Some(batch) => line.accept(batch),
                    None => line.ended = true,
                },
            }
        }
        line.fail().await
    }
}

impl Line<'_> {
    /// One batch a time where the target may rewrite: before that is known, and when it does.
    fn is_single(&self) -> bool {
        match self.work.octets() {
            Octets::Kept => false,
            Octets::Unknown | Octets::Rewritten => true,
        }
    }

    fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.appending.is_none() && self.reading.is_empty() && self.unread.is_empty()
    }

    fn takes_more(&self) -> bool {
        if self.ended {
            return false;
        }
        if self.is_single() {
            return self.is_idle() && self.fresh.is_empty() && self.window.is_empty() && !self.has_edits();
        }
        self.fresh.len() + self.ready.len() < LOTS_WAITING && self.unread.len() < UNREAD_ITEMS
    }

    /// Another folder may be written to as soon as this one will not be any more.
    fn end_turn(&mut self) {
        let writes = !self.fresh.is_empty() || !self.ready.is_empty() || self.appending.is_some();
        if self.ended && !writes {
            self.turn = None;
        }
    }

    fn has_edits(&self) -> bool {
        self.unrecorded > 0 || !self.records.is_empty() || !self.report.is_empty()
    }

    fn is_done(&self) -> bool {
        self.ended && self.is_idle() && self.fresh.is_empty() && self.writing.is_none() && !self.has_edits()
    }

    /// Takes a batch in: what an earlier validity left is paired, the rest is to be appended. To a target that rewrites
    /// goes one command at a time.
    fn accept(&mut self, batch: Batch) {
        let Batch { items, reports, .. } = batch;
        self.report.put.extend(reports);
        if items.is_empty() {
            return;
        }
        let command = if self.is_single() {
            self.work.capabilities.append_batch.max(1)
        } else {
            items.len()
        };
        let mut items = items.into_iter();
        loop {
            let lot = self.folder.lot(items.by_ref().take(command));
            if lot.is_empty() {
                return;
            }
            self.report.clear.extend(lot.uids().map(|uid| (uid, None)));
            self.fresh.push_back(lot);
        }
    }

    /// Begins the next write where there is reason for one: a batch waits for its intent, or nothing else goes on.
    async fn begin_write(&mut self) -> Result<(), PassError> {
        let due = !self.fresh.is_empty() || (self.is_idle() && self.has_edits());
        let single = self.is_single() && !self.is_idle();
        if self.writing.is_some() || !due || single {
            return Ok(());
        }
        let records = self.unrecorded >= UNRECORDED_ITEMS || self.fresh.is_empty() || self.is_single();
        let step = match (records && self.unrecorded > 0, self.fresh.is_empty()) {
            (true, _) => "replicate.applied",
            (false, false) => "replicate.intent",
            (false, true) => "replicate.read_back",
        };
        // A target that rewrites gets its next command only when the one before is recorded.
        let most = match (self.is_single(), self.has_records()) {
            (true, true) => 0,
            (true, false) => 1,
            (false, _) => self.fresh.len(),
        };
        for lot in self.fresh.iter().take(most) {
            self.window.extend(lot.items.iter().map(|item| item.record.clone()));
        }
        self.being_written = most;
        let changes = self.changes(records).await?;
        self.writing = Some(self.work.ledger.write(changes, step).boxed());
        Ok(())
    }

    fn has_records(&self) -> bool {
        self.unrecorded > 0 || !self.records.is_empty()
    }

    /// The intent as changes of the ledger; with `records` it is closed from the front, and all that is known is recorded.
    async fn changes(&mut self, records: bool) -> Result<Changes, PassError> {
        let number = self.folder.entry.number;
        let mut changes = Changes::default();
        if records {
            self.window.drain(..std::mem::take(&mut self.placed));
            self.window_uid_next = self.folder.uid_next;
        }
        let open = (!self.window.is_empty()).then(|| Window {
            given_uids: self.folder.given_uids,
            by_position: self.is_single(),
            target_validity: self.folder.entry.target_validity,
            uid_next: self.window_uid_next,
            items: self.window.iter().cloned().collect(),
        });
        let intents = Intents {
            open,
            suspects: self.folder.suspects.clone(),
        };
        changes.add(Ledger::intents_change(number, &intents));
        if !records {
            return Ok(changes);
        }
        changes.add(Ledger::map_change(number, &self.folder.map));
        let (records, report) = (std::mem::take(&mut self.records), std::mem::take(&mut self.report));
        self.folder.edit(self.work, records, &mut changes).await?;
        self.work.edit_report(number, report, &mut changes).await?;
        let unread = self.left_unread || !self.unread.is_empty() || !self.reading.is_empty();
        let octets = self.work.octets();
        let edited = self.work.ledger.edit(number, |entry| {
            entry.unread = unread || self.folder.entry.unread;
            entry.octets = octets;
        })?;
        if edited {
            changes.folder(number);
        }
        self.unrecorded = 0;
        Ok(changes)
    }

    fn written(&mut self, written: Result<(), LedgerError>) -> Result<(), PassError> {
        written?;
        let durable = std::mem::take(&mut self.being_written);
        self.ready.extend(self.fresh.drain(..durable));
        let (items, octets) = std::mem::take(&mut self.done);
        if items > 0 {
            self.work.report_progress(|progress| {
                progress.folder = self.folder.entry.source_path.to_string();
                progress.items_done += items;
                progress.octets_done += octets;
            });
        }
        Ok(())
    }

    fn begin_append(&mut self) {
        if self.appending.is_some() {
            return;
        }
        if let Some(lot) = self.ready.pop_front() {
            let (work, folder, given) = (self.work, self.folder.entry.clone(), self.folder.given_uids);
            let suspects = self.folder.suspects.clone();
            let place = async move {
                if rehome_fault::planted("replicate.intent_closed_early") {
                    let closed = Intents { open: None, suspects };
                    let mut changes = Changes::default();
                    changes.add(Ledger::intents_change(folder.number, &closed));
                    if let Err(error) = work.ledger.write(changes, "replicate.intent_closed_early").await {
                        return (lot, Err(error.into()));
                    }
                }
                let placed = work.place(&folder, given, &lot).await;
                (lot, placed)
            };
            self.appending = Some(place.boxed());
        }
    }

    /// The append ended: what became of its items is recorded with the next write.
    fn appended(&mut self, lot: Lot, placed: Result<Placed, PassError>) -> Result<(), PassError> {
        let Lot { items, paired } = lot;
        let Placed { fates, reports } = match placed {
            Ok(placed) => placed,
            Err(error) => {
                self.unsure = items.len();
                self.failed = Some(error);
                return Ok(());
            }
        };
        self.placed += items.len();
        self.report.put.extend(reports);
        self.unrecorded += items.len() + paired.len();
        self.done.0 += (items.len() + paired.len()) as u64;
        let number = self.folder.entry.number;
        for (item, waiting) in paired {
            self.folder.map.insert(item.record.uid, waiting.target_uid);
            let record = Record {
                read_back: waiting.record.read_back,
                ..item.record
            };
            self.left_unread |= record.read_back == ReadBack::Open;
            self.records.insert(record.uid, Some(record));
            self.folder.found_again.push(waiting);
            self.work.outcome().items_paired += 1;
        }
        for (item, fate) in items.into_iter().zip(fates) {
            match fate {
                Fate::Placed { uid, keywords_dropped } => {
                    self.done.1 += item.record.length;
                    self.folder.uid_next = self.folder.uid_next.max(uid.saturating_add(1));
                    self.folder.map.insert(item.record.uid, uid);
                    if !keywords_dropped.is_empty() {
                        let heading = item.heading.clone();
                        let work = self.work;
                        let dropped = work.dropped_keywords(number, &item.record, heading, &keywords_dropped)?;
                        self.report.put.push(dropped);
                    }
                    self.records.insert(item.record.uid, Some(item.record.clone()));
                    let mut outcome = self.work.outcome();
                    outcome.items_appended += 1;
                    outcome.octets_appended += item.record.length;
                    drop(outcome);
                    if self.work.settings.read_back {
                        self.unread.push_back(Unread {
                            record: item.record,
                            target_uid: uid,
                            heading: item.heading,
                        });
                    } else {
                        self.left_unread = true;
                    }
                }
                Fate::Refused(error) => {
                    let skipped = self.skipped(&item.record, item.heading, (ReportClass::Refused, refusal(&error)))?;
                    self.report.put.push(skipped);
                    if error.scope > ErrorScope::Item {
                        self.failed.get_or_insert(PassError::Target(error));
                    }
                }
            }
        }
        Ok(())
    }

    fn skipped(
        &self,
        record: &Record,
        heading: Heading,
        (class, reason): (ReportClass, String),
    ) -> Result<ReportItem, PassError> {
        let number = self.folder.entry.number;
        let reported = self.work.report_item(number, record.uid, ReportKind::Skipped, reason)?;
        Ok(ReportItem {
            size: Some(record.length),
            received: Some(record.received),
            class,
            ..reported.headed(heading)
        })
    }

    fn begin_read_back(&mut self) {
        while self.reading.len() < READ_BACKS && !self.unread.is_empty() {
            let most = self.unread.len().min(READ_BACK_ITEMS);
            let items: Vec<Unread> = self.unread.drain(..most).collect();
            let (work, folder) = (self.work, self.folder.entry.clone());
            let read = async move {
                let uids = items.iter().map(|item| item.target_uid).collect();
                let held = work.read_back(folder.on_target(), uids).await;
                (items, held)
            };
            self.reading.push(read.boxed());
        }
    }

    /// What reading back showed.
    fn judge(
        &mut self,
        items: Vec<Unread>,
        held: Result<BTreeMap<u32, ReadOutcome>, PassError>,
    ) -> Result<(), PassError> {
        let held = match held {
            Ok(held) => held,
            Err(error) => {
                self.left_unread = true;
                self.failed = Some(error);
                return Ok(());
            }
        };
        let number = self.folder.entry.number;
        let (mut rewritten, mut kept) = (0_usize, 0_usize);
        for item in items {
            let Unread {
                record,
                target_uid,
                heading,
            } = item;
            let outcome = held.get(&target_uid);
            if let Some(ReadOutcome::Gone) = outcome {
                let reason = "the target accepted it, but does not hold it".to_owned();
                self.folder.map.remove(record.uid);
                self.records.insert(record.uid, None);
                let skipped = self.skipped(&record, heading, (ReportClass::Missing, reason))?;
                self.report.put.push(skipped);
                let mut outcome = self.work.outcome();
                outcome.items_appended -= 1;
                outcome.octets_appended -= record.length;
                continue;
            }
            let (read_back, altered) = self.work.judge(number, &record, outcome)?;
            match read_back {
                ReadBack::Altered => rewritten += 1,
                // Nothing can be rewritten into nothing.
                ReadBack::Equal => kept += usize::from(record.length > 0),
                ReadBack::Open => {}
            }
            self.report.put.extend(altered.map(|altered| altered.headed(heading)));
            self.records.insert(record.uid, Some(Record { read_back, ..record }));
        }
        self.work.learn_octets(rewritten, kept);
        Ok(())
    }

    /// Ends after an error: what is on its way ends, and what is known is recorded. What was not begun leaves the intent.
    async fn fail(mut self) -> Result<FolderWork, PassError> {
        let first = self.failed.take().unwrap_or(PassError::Cancelled);
        if let Some(writing) = self.writing.take() {
            writing.await?;
        }
        if let Some(appending) = self.appending.take() {
            let (lot, placed) = appending.await;
            self.appended(lot, placed)?;
        }
        self.left_unread |= !self.unread.is_empty() || !self.reading.is_empty();
        self.window.truncate(self.placed + self.unsure);
        self.fresh.clear();
        self.ready.clear();
        let changes = self.changes(true).await?;
        if let Err(error) = self.work.ledger.write(changes, "replicate.applied").await {
            tracing::warn!(%error, "what is known could not be recorded; the next pass finds it");
        }
        Err(first)
    }
}

//! Brings complete items of one folder to the target: pairing, appends, copies, read-back.

use super::{Mode, Pooled, Work, changes::RecordEdits, incoming::Ready, lock};
use crate::{
    compare::Addition,
    error::PassError,
    ledger::{CHUNK_SHIFT, Changes, FolderEntry, FolderState, Ledger, Octets, ReadBack, Record, UidMap, Window},
    reading::{ReadOutcome, read_digests},
    report::{Heading, ReportItem, ReportKind},
};
use rehome_mailbox::{Appended, ErrorScope, FolderRef, ItemKey, MailboxError, NewItem, Retry};
use rehome_wire::{digest::Digest, flags::Flags, uid_set::UidSet};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    pin::pin,
    sync::Arc,
};
use tokio::sync::{mpsc, oneshot};

/// Items of one read-back that a target must keep before it is no longer taken for one that rewrites.
const MANY_KEPT: usize = 8;

/// An item of an earlier validity of the folder, on the target, that waits to be paired.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    /// The folder's number under the earlier validity.
    number: u32,
    pub(super) target_uid: u32,
    pub(super) record: Record,
}

/// A folder at work.
pub(super) struct FolderWork {
    /// As it was when the work began.
    pub(super) entry: Arc<FolderEntry>,
    /// The target's UIDNEXT, behind the last append that ended.
    pub(super) uid_next: u32,
    pub(super) given_uids: bool,
    pub(super) map: UidMap,
    /// Windows of recovered intents.
    pub(super) suspects: Vec<Window>,
    /// By digest, in uid order.
    waiting: HashMap<Digest, VecDeque<Waiting>>,
    /// Those that were paired and are still recorded under their earlier number.
    pub(super) found_again: Vec<Waiting>,
    /// The chunk of records that was edited last.
    chunk: Option<(u32, BTreeMap<u32, Record>)>,
}

/// Items that go to the target together.
pub(super) struct Lot {
    /// To be appended, in order.
    pub(super) items: Vec<Ready>,
    /// There already, under an earlier validity.
    pub(super) paired: Vec<(Ready, Waiting)>,
}

impl Lot {
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty() && self.paired.is_empty()
    }

    pub(super) fn uids(&self) -> impl Iterator<Item = u32> {
        let paired = self.paired.iter().map(|(item, _)| item);
        self.items.iter().chain(paired).map(|item| item.record.uid)
    }
}

impl FolderWork {
    /// Sorts items into those that wait on the target already and those that do not.
    pub(super) fn lot(&mut self, items: impl Iterator<Item = Ready>) -> Lot {
        let mut lot = Lot {
            items: Vec::new(),
            paired: Vec::new(),
        };
        for item in items {
            let waiting = self.waiting.get_mut(&item.record.digest).and_then(|waiting| {
                // Of equal ones that of the same date, so that none has to be copied or reported for its date.
                let same = |held: &Waiting| held.record.received == item.record.received;
                let at = waiting.iter().position(same).unwrap_or(0);
                waiting.remove(at)
            });
            match waiting {
                Some(waiting) => lot.paired.push((item, waiting)),
                None => lot.items.push(item),
            }
        }
        lot
    }

    /// Adds the changes that edit the folder's records, and those that forget what was found again under its earlier
    /// number.
    pub(super) async fn edit(
        &mut self,
        work: &Work<'_>,
        edits: RecordEdits,
        changes: &mut Changes,
    ) -> Result<(), PassError> {
        let number = self.entry.number;
        let mut edits = edits.into_iter().peekable();
        while let Some(chunk) = edits.peek().map(|(uid, _)| uid >> CHUNK_SHIFT) {
            if self.chunk.as_ref().is_none_or(|(held, _)| *held != chunk) {
                let records = work.ledger.records(number, chunk).await?;
                let records = records.into_iter().map(|record| (record.uid, record));
                self.chunk = Some((chunk, records.collect()));
            }
            let Some((_, records)) = &mut self.chunk else { continue };
            while let Some((uid, edit)) = edits.next_if(|(uid, _)| uid >> CHUNK_SHIFT == chunk) {
                match edit {
                    Some(record) => records.insert(uid, record),
                    None => records.remove(&uid),
                };
            }
            work.ledger.put_records(number, chunk, records.values(), changes)?;
        }
        let mut earlier: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for Waiting { number, record, .. } in self.found_again.drain(..) {
            earlier.entry(number).or_default().push(record.uid);
        }
        for (number, uids) in earlier {
            let mut map = work.ledger.map(number).await?;
            for uid in &uids {
                map.remove(*uid);
            }
            changes.add(Ledger::map_change(number, &map));
            let forgotten = uids.into_iter().map(|uid| (uid, None)).collect();
            work.edit_records(number, forgotten, changes).await?;
        }
        Ok(())
    }
}

/// What is known of an item after its command.
pub(super) enum Fate {
    Placed { uid: u32, keywords_dropped: Vec<String> },
    Refused(MailboxError),
}

/// What became of a lot.
pub(super) struct Placed {
    /// Of each item to be appended, in order.
    pub(super) fates: Vec<Fate>,
    /// About those that were there already.
    pub(super) reports: Vec<ReportItem>,
}

impl Fate {
    fn of(answer: Appended) -> Self {
        match answer {
            Appended::Uid { uid, keywords_dropped } => Self::Placed { uid, keywords_dropped },
            Appended::Refused(error) => Self::Refused(error),
        }
    }
}

impl Work<'_> {
    /// What reading back showed of the target so far.
    pub(super) fn octets(&self) -> Octets {
        *lock(&self.octets)
    }

    /// Takes what one read-back showed. A target of which most came back rewritten is believed to keep what it is given
    /// only after a read-back of many items that it kept; a message that any target would rewrite proves nothing.
    pub(super) fn learn_octets(&self, rewritten: usize, kept: usize) {
        if rewritten + kept == 0 {
            return;
        }
        let mut octets = lock(&self.octets);
        *octets = match *octets {
            Octets::Unknown | Octets::Kept if rewritten >= kept => {
                tracing::warn!("the target modifies messages: what it is given goes to it one command at a time");
                Octets::Rewritten
            }
            Octets::Rewritten if kept < MANY_KEPT || 4 * rewritten >= kept => Octets::Rewritten,
            Octets::Unknown | Octets::Kept | Octets::Rewritten => Octets::Kept,
        };
    }

    /// Fetches additions and brings them to the target, in the folder's turn. Returns the uids that the source called gone.
    pub(super) async fn bring(&self, number: u32, additions: &[Addition]) -> Result<Vec<u32>, PassError> {
        let (batches, received) = mpsc::channel(1);
        let (begin, turn) = oneshot::channel();
        let mut line = pin!(async {
            let turn = self.turns.acquire().await.map_err(|_| PassError::Cancelled)?;
            let folder = self.folder_work(number).await?;
            self.show(&folder.entry.source_path);
            // Who pulls no more needs no turn.
            let _ = begin.send(());
            let folder = self.run_line(folder, turn, received).await?;
            self.note_uid_next(&folder).await;
            Ok::<_, PassError>(())
        });
        let mut pull = pin!(self.pull_all(self.ledger.folder(number)?, additions, batches, turn));
        let mut pulled = None;
        loop {
            tokio::select! {
                biased;
                // The turn is asked for first, so that turns come in the order of the folders.
                placed = &mut line => {
                    placed?;
                    break;
                }
                ended = &mut pull, if pulled.is_none() => pulled = Some(ended),
            }
        }
        match pulled {
            Some(pulled) => pulled,
            None => pull.await,
        }
    }

    /// Sets the flags of what is there already and appends the rest.
    pub(super) async fn place(&self, folder: &FolderEntry, given_uids: bool, lot: &Lot) -> Result<Placed, PassError> {
        let flags: Vec<(u32, Flags)> = lot
            .paired
            .iter()
            .filter(|(item, waiting)| !self.is_live() && item.record.flags != waiting.record.flags)
            .map(|(item, waiting)| (waiting.target_uid, item.record.flags.clone()))
            .collect();
        let dropped = self.set_target_flags(folder.on_target(), &flags).await?;
        let about = lot.paired.iter().filter_map(|(item, waiting)| {
            let keywords = dropped.get(&waiting.target_uid)?;
            Some(self.dropped_keywords(folder.number, &item.record, item.heading.clone(), keywords))
        });
        let reports = about.collect::<Result<_, _>>()?;
        let news: Vec<NewItem> = lot
            .items
            .iter()
            .map(|item| self.new_item(folder, given_uids, item))
            .collect();
        let fates = self.run_commands(folder, &news).await?;
        Ok(Placed { fates, reports })
    }

    /// Hands the items to the target in order, runs of copies and appends in turn.
    async fn run_commands(&self, folder: &FolderEntry, news: &[NewItem]) -> Result<Vec<Fate>, PassError> {
        let mut fates: Vec<Option<Fate>> = news.iter().map(|_| None).collect();
        let sources: Vec<Option<Pooled>> = {
            let pool = lock(&self.pool);
            news.iter().map(|item| pool.get(&item.digest).cloned()).collect()
        };
        let folder_of = |from: &Option<Pooled>| from.as_ref().map(|from| (from.path.clone(), from.validity));
        let mut start = 0;
        for run in sources.chunk_by(|one, two| folder_of(one) == folder_of(two)) {
            let range = start..start + run.len();
            start = range.end;
            let Some(first) = &run[0] else {
                self.append_run(folder, news, range.collect(), &mut fates).await?;
                continue;
            };
            self.guard()?;
            let uids: Vec<u32> = run.iter().flatten().map(|from| from.uid).collect();
            let from = FolderRef::new(&first.path, first.validity);
            let copied = self.target.copy(from, &uids, folder.on_target(), &news[range.clone()]);
            let answers = answered(folder, copied.await.map_err(PassError::Target)?, uids.len())?;
            let mut refused = Vec::new();
            for (at, answer) in range.zip(answers) {
                match answer {
                    Appended::Uid { .. } => {
                        self.outcome().items_copied += 1;
                        fates[at] = Some(Fate::of(answer));
                    }
                    // Gone from there meanwhile: its octets are at hand.
                    Appended::Refused(_) => refused.push(at),
                }
            }
            self.append_run(folder, news, refused, &mut fates).await?;
        }
        Ok(fates.into_iter().flatten().collect())
    }

    async fn append_run(
        &self,
        folder: &FolderEntry,
        news: &[NewItem],
        places: Vec<usize>,
        fates: &mut [Option<Fate>],
    ) -> Result<(), PassError> {
        for places in places.chunks(self.capabilities.append_batch.max(1)) {
            self.guard()?;
            let items: Vec<NewItem> = places.iter().map(|at| news[*at].clone()).collect();
            let answers = self
                .target
                .append(folder.on_target(), items)
                .await
                .map_err(PassError::Target)?;
            for (at, answer) in places.iter().zip(answered(folder, answers, places.len())?) {
                fates[*at] = Some(Fate::of(answer));
            }
        }
        Ok(())
    }

    fn new_item(&self, folder: &FolderEntry, given_uids: bool, item: &Ready) -> NewItem {
        let record = &item.record;
        NewItem {
            key: ItemKey {
                move_id: self.settings.move_id,
                folder: folder.number,
                source_validity: folder.source_validity,
                source_uid: record.uid,
            },
            uid: given_uids.then_some(record.uid),
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
        target: FolderRef<'_>,
        mut uids: Vec<u32>,
    ) -> Result<BTreeMap<u32, ReadOutcome>, PassError> {
        if !self.settings.read_back || uids.is_empty() {
            return Ok(BTreeMap::new());
        }
        uids.sort_unstable();
        uids.dedup();
        self.guard()?;
        read_digests(self.target, target, &uids)
            .await
            .map_err(PassError::Target)
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
                "the target modifies it: it serves other octets than it was given".to_owned(),
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

    pub(super) fn dropped_keywords(
        &self,
        number: u32,
        record: &Record,
        heading: Heading,
        keywords: &[String],
    ) -> Result<ReportItem, PassError> {
        let reason = format!("the target cannot keep the keywords {}", keywords.join(" "));
        let item = self.report_item(number, record.uid, ReportKind::Keywords, reason)?;
        Ok(ReportItem {
            size: Some(record.length),
            received: Some(record.received),
            ..item.headed(heading)
        })
    }

    /// Sets flags on the target; returns the keywords that it dropped, by uid.
    pub(super) async fn set_target_flags(
        &self,
        target: FolderRef<'_>,
        flags: &[(u32, Flags)],
    ) -> Result<HashMap<u32, Vec<String>>, PassError> {
        let mut dropped = HashMap::new();
        for part in flags.chunks(1_000) {
            self.guard()?;
            dropped.extend(self.target.set_flags(target, part).await.map_err(PassError::Target)?);
        }
        dropped.retain(|_, keywords: &mut Vec<String>| !keywords.is_empty());
        Ok(dropped)
    }

    /// What is needed to work on a folder of the ledger.
    async fn folder_work(&self, number: u32) -> Result<FolderWork, PassError> {
        let entry = self.ledger.folder(number)?;
        let status = self.target_status(&entry.target_path).await?;
        let status = status.filter(|status| status.uid_validity == entry.target_validity);
        let (entry, status) = match (status, self.mode) {
            (Some(status), _) => (entry, status),
            (None, Mode::Live) => self.take_folder_again(number).await?,
            (None, Mode::Hidden | Mode::Sweep) => {
                return Err(PassError::TargetDiffers {
                    message: format!(
                        "the target's folder {} is not the one that the move made",
                        entry.target_path
                    ),
                    mended: false,
                });
            }
        };
        Ok(FolderWork {
            uid_next: status.uid_next,
            given_uids: entry.given_uids && !self.is_live(),
            map: self.ledger.map(number).await?,
            suspects: self.ledger.intents(number).await?.suspects,
            waiting: self.waiting_items(number).await?,
            found_again: Vec::new(),
            chunk: None,
            entry,
        })
    }

    async fn note_uid_next(&self, folder: &FolderWork) {
        let mut held = self.target_folders.lock().await;
        let known = held
            .as_mut()
            .and_then(|folders| folders.get_mut(&folder.entry.target_path));
        if let Some(status) = known.and_then(|known| known.status.as_mut()) {
            status.uid_next = status.uid_next.max(folder.uid_next);
        }
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
        let retired = self.ledger.folders().into_iter().filter(|entry| {
            entry.state == FolderState::Retired && entry.target_path == *path && entry.number != number
        });
        Ok(retired.map(|entry| entry.number).collect())
    }
}

/// One answer for each item, or the outcome is unknown.
fn answered(folder: &FolderEntry, answers: Vec<Appended>, asked: usize) -> Result<Vec<Appended>, PassError> {
    if answers.len() == asked {
        return Ok(answers);
    }
    Err(PassError::Target(MailboxError {
        what: format!("appending to folder {}", folder.target_path),
        cause: format!("{} answers for {asked} items", answers.len()),
        scope: ErrorScope::Mailbox,
        retry: Retry::Now,
    }))
}

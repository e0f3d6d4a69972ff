//! Pulls items from the source: an item is handed on only when its octets are complete and hashed. The next requests are
//! on their way while one is answered.

use super::{
    Work,
    budget::{BATCH_SPOOLED, EARLY_OCTETS, HeldOctets},
    incoming::{Batch, HEADING_WITHIN, Incoming, MAX_ITEM, too_large},
    listing::{FrameReader, protocol},
};
use crate::{
    compare::Addition,
    error::PassError,
    ledger::{CHUNK_SHIFT, FolderEntry, ReadBack, Record},
    link::OctetStream,
    report::{self, Heading, ReportClass, ReportItem, ReportKind, Side},
};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use rehome_mailbox::{ErrorScope, FolderPath, Retry};
use rehome_wire::{
    frames::{
        BodyEvent, BodyStreamCheck, BodyStreamError, FailureClass, ItemFailure, ItemHeader, MAX_BODY_REQUEST_ITEMS,
    },
    uid_set::UidSet,
};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// What an item without a hint is taken for.
const UNKNOWN_LENGTH: u64 = 16 * 1024;
/// Requests of one folder that are open at once: one is read, the other on its way.
pub(super) const REQUESTS_OPEN: usize = 2;
/// Most items of a folder that are asked for in a pass only to see what they are.
const LOOKED_AT: usize = 200;
/// Fewest items that are worth an intent of their own, whatever one command takes.
const LEAST_BATCH: usize = 64;

/// How a request ended.
#[derive(Default)]
struct Pulled {
    gone: Vec<u32>,
    /// Items whose octets did not match length or digest.
    spoilt: Vec<(u32, String)>,
    broken: Option<Broken>,
    /// Uids that are asked for in another request, because this one brought enough.
    rest: Vec<u32>,
}

/// A stream that stopped in the middle.
struct Broken {
    /// The item at which it did, if it was in one.
    at: Option<u32>,
    /// Uids without an answer, `at` not among them.
    unanswered: Vec<u32>,
    /// Whether it brought anything.
    answered: bool,
    error: PassError,
}

/// A stream at work.
#[derive(Default)]
struct AtWork {
    pulled: Pulled,
    answered: UidSet,
    current: Option<Incoming>,
    /// Octets of bodies that came.
    octets: u64,
    /// An item that does not end was given up; nothing behind it can be reached.
    given_up: bool,
}

impl AtWork {
    /// Whether nothing more of the stream is read.
    fn is_enough(&self, asked: &UidSet, most: u64) -> bool {
        let full = self.octets > most && self.current.is_none();
        self.given_up || (full && self.answered.len() < asked.len())
    }
}

/// What a stream of bodies gives next.
enum Next {
    Event(BodyEvent),
    /// One item is not to be used; the stream goes on.
    Spoilt(u32, String),
    /// Everything was answered.
    End,
    /// It stopped in the middle: nothing is known about what is unanswered.
    Broken(PassError),
    /// It breaks the protocol: nothing more of it is read.
    Worthless(PassError),
}

async fn next_event(frames: &mut FrameReader, check: &mut BodyStreamCheck, path: &FolderPath) -> Next {
    let in_folder = |error: BodyStreamError| protocol(&format!("items of folder {path}: {error}"));
    match frames.next().await {
        Ok(Some(frame)) => match check.accept(frame) {
            Ok(event) => Next::Event(event),
            Err(error) => match error.spoilt_item() {
                Some(uid) => Next::Spoilt(uid, format!("folder {path}: {error}")),
                None => Next::Worthless(in_folder(error)),
            },
        },
        Ok(None) => match std::mem::replace(check, BodyStreamCheck::new(UidSet::new())).finish() {
            Ok(()) => Next::End,
            Err(error) => Next::Broken(in_folder(error)),
        },
        Err(error) if frames.malformed() => Next::Worthless(error),
        Err(error) => Next::Broken(error),
    }
}

/// A request that was sent.
struct Opened {
    uids: Vec<u32>,
    stream: OctetStream,
}

/// One folder's pull.
struct Puller<'p> {
    work: &'p Work<'p>,
    folder: Arc<FolderEntry>,
    batches: mpsc::Sender<Batch>,
    batch: Batch,
    batch_items: usize,
    gone: Vec<u32>,
    /// Octets set aside for items that come before the folder's turn.
    early: Option<HeldOctets>,
}

impl Work<'_> {
    /// Fetches additions and hands them on in batches, from when it is the folder's turn; returns the uids that the source
    /// called gone.
    pub(super) async fn pull_all(
        &self,
        folder: Arc<FolderEntry>,
        additions: &[Addition],
        batches: mpsc::Sender<Batch>,
        turn: oneshot::Receiver<()>,
    ) -> Result<Vec<u32>, PassError> {
        let command = self.capabilities.append_batch.max(1);
        let mut puller = Puller {
            work: self,
            folder,
            batches,
            batch: Batch::default(),
            batch_items: (command * LEAST_BATCH.div_ceil(command)).min(MAX_BODY_REQUEST_ITEMS),
            gone: Vec::new(),
            early: None,
        };
        let pulled = puller.pull(additions, turn).await;
        // What came whole is applied, however it ended.
        puller.hand_on().await?;
        pulled?;
        Ok(puller.gone)
    }

    /// Sends a request.
    async fn open_items(&self, folder: &FolderEntry, uids: Vec<u32>) -> Result<Opened, PassError> {
        self.guard()?;
        let asked = UidSet::from_ascending(uids.iter().copied());
        let (path, validity) = (&folder.source_path, folder.source_validity);
        match self.source.items(path, validity, &asked).await {
            Ok(stream) => Ok(Opened { uids, stream }),
            Err(error) => Err(self.source_error(path, error).await),
        }
    }

    /// Leaves out what the target takes by no means, by the source's hint.
    fn without_too_large(
        &self,
        number: u32,
        additions: &[Addition],
    ) -> Result<(Vec<Addition>, Vec<ReportItem>), PassError> {
        let limit = self.item_limit();
        let (large, rest): (Vec<&Addition>, Vec<&Addition>) = additions
            .iter()
            .partition(|addition| addition.length_hint.is_some_and(|length| length > limit));
        let reports = large.into_iter().map(|addition| {
            let item = self.report_item(number, addition.uid, ReportKind::Skipped, too_large(limit))?;
            Ok(ReportItem {
                size: addition.length_hint,
                class: ReportClass::TooLarge,
                ..item
            })
        });
        let reports = reports.collect::<Result<_, PassError>>()?;
        Ok((rest.into_iter().copied().collect(), reports))
    }

    /// What items that will not be fetched are, for people: the beginning of each is asked for once in a move.
    async fn look_at_headings(&self, folder: &FolderEntry, items: &mut [ReportItem]) -> Result<(), PassError> {
        for item in items.iter_mut().take(LOOKED_AT) {
            let reported = self.ledger.report(folder.number, item.uid >> CHUNK_SHIFT).await?;
            let seen = reported
                .iter()
                .any(|held| (held.uid, held.kind) == (item.uid, item.kind) && held.received.is_some());
            if seen {
                continue;
            }
            if let Some((received, heading)) = self.look_at_heading(folder, item.uid).await? {
                item.received = Some(received);
                *item = item.clone().headed(heading);
            }
        }
        Ok(())
    }

    /// An item's received time and header, from its beginning; the rest is not read. None where the source does not give it.
    async fn look_at_heading(&self, folder: &FolderEntry, uid: u32) -> Result<Option<(i64, Heading)>, PassError> {
        let stream = match self.open_items(folder, vec![uid]).await {
            Ok(opened) => opened.stream,
            Err(error @ (PassError::LeaseLost | PassError::Cancelled)) => return Err(error),
            Err(error) => {
                tracing::debug!(%error, uid, "what is too large could not be looked at");
                return Ok(None);
            }
        };
        let mut frames = FrameReader::new(stream);
        let mut check = BodyStreamCheck::new(UidSet::from_ascending([uid]));
        let (mut received, mut octets) = (None, Vec::new());
        while octets.len() < HEADING_WITHIN {
            match next_event(&mut frames, &mut check, &folder.source_path).await {
                Next::Event(BodyEvent::ItemStart(header)) => received = Some(header.received),
                Next::Event(BodyEvent::Octets(more)) => {
                    octets.extend_from_slice(&more[..more.len().min(HEADING_WITHIN)]);
                    if octets.windows(4).any(|four| four == b"\r\n\r\n") {
                        break;
                    }
                }
                Next::Event(
                    BodyEvent::ItemDone { .. } | BodyEvent::Gone { .. } | BodyEvent::Failed(_) | BodyEvent::End { .. },
                )
                | Next::Spoilt(..)
                | Next::End
                | Next::Broken(_)
                | Next::Worthless(_) => break,
            }
        }
        Ok(received.map(|received| (received, report::heading(&octets))))
    }
}

impl Puller<'_> {
    async fn pull(&mut self, additions: &[Addition], turn: oneshot::Receiver<()>) -> Result<(), PassError> {
        let (work, folder) = (self.work, Arc::clone(&self.folder));
        let (additions, mut too_large) = work.without_too_large(folder.number, additions)?;
        work.look_at_headings(&folder, &mut too_large).await?;
        self.batch.reports.extend(too_large);
        let most = work.budget.request_octets();
        let early = self.set_aside(&additions);
        let mut lengths = Some(early).filter(|early| *early > 0);
        let mut rest = &additions[..];
        let requests = std::iter::from_fn(|| {
            let length = lengths.take().unwrap_or_else(|| request_length(rest, most));
            let (request, later) = rest.split_at(length);
            rest = later;
            (!request.is_empty()).then(|| request.iter().map(|addition| addition.uid).collect::<Vec<u32>>())
        });
        // A stream that nobody reads holds a connection of the source: but for what was set aside, it waits for the turn.
        let turn = turn.shared();
        let opening = requests.enumerate().map(|(at, uids)| {
            let turn = turn.clone();
            let folder = &folder;
            let open = async move {
                if at > 0 || early == 0 {
                    turn.await.map_err(|_| PassError::Cancelled)?;
                }
                work.open_items(folder, uids).await
            };
            open.boxed()
        });
        let mut opened = stream::iter(opening).buffered(REQUESTS_OPEN);
        while let Some(request) = opened.next().await {
            self.take_answer(request?).await?;
            self.early = None;
        }
        Ok(())
    }

    /// Sets octets aside for the first items, as many as are known to be small; returns how many they are.
    fn set_aside(&mut self, additions: &[Addition]) -> usize {
        let mut octets = 0_usize;
        let fits = |addition: &&Addition| {
            octets += Incoming::wants(self.work, addition.length_hint);
            addition.length_hint.is_some() && octets <= EARLY_OCTETS
        };
        let count = additions.iter().take(MAX_BODY_REQUEST_ITEMS).take_while(fits).count();
        let wanted = additions[..count]
            .iter()
            .map(|addition| Incoming::wants(self.work, addition.length_hint))
            .sum();
        match self.work.budget.try_take_early(wanted) {
            Some(early) if count > 0 => {
                self.early = Some(early);
                count
            }
            Some(_) | None => 0,
        }
    }

    /// One request, with what it takes to get an answer for every uid.
    async fn take_answer(&mut self, request: Opened) -> Result<(), PassError> {
        let mut spoilt_once = UidSet::new();
        let mut broken_at: Option<u32> = None;
        let mut first = Some(request);
        let mut requests: Vec<Vec<u32>> = Vec::new();
        loop {
            let request = match (first.take(), requests.pop()) {
                (Some(request), _) => request,
                (None, Some(uids)) if uids.is_empty() => continue,
                (None, Some(uids)) => self.work.open_items(&self.folder, uids).await?,
                (None, None) => return Ok(()),
            };
            let alone = request.uids.len() == 1;
            let pulled = self.read_stream(request).await?;
            self.gone.extend(pulled.gone);
            let mut again = Vec::new();
            for (uid, message) in pulled.spoilt {
                if !spoilt_once.insert(uid) {
                    return Err(PassError::ItemDigestMismatch { message });
                }
                tracing::warn!(%message, "an item was not used; asking for it once more");
                again.push(uid);
            }
            requests.push(again);
            requests.push(pulled.rest);
            let Some(broken) = pulled.broken else { continue };
            // The connection may have been cut, or the item cannot be read: asked for alone, it tells.
            match broken.at {
                None => requests.push(self.after_break(broken).await?),
                Some(uid) if broken_at == Some(uid) && alone => {
                    let reason = format!(
                        "the source broke off in the middle of the item, twice: {}",
                        broken.error
                    );
                    let item = self
                        .work
                        .report_item(self.folder.number, uid, ReportKind::Skipped, reason)?;
                    self.batch.reports.push(ReportItem {
                        side: Side::Source,
                        ..item
                    });
                }
                Some(uid) => {
                    tracing::warn!(error = %broken.error, uid, "the source's stream broke off; asking for the item alone");
                    broken_at = Some(uid);
                    requests.push(broken.unanswered);
                    requests.push(vec![uid]);
                }
            }
        }
    }

    /// What is asked for again after a stream broke off between two items: one that brought something goes on, as after
    /// a connection that was idle for too long.
    async fn after_break(&self, broken: Broken) -> Result<Vec<u32>, PassError> {
        match broken.error {
            PassError::Source(error) if broken.answered && error.retry != Retry::Never => {
                tracing::warn!(%error, "the source's stream broke off; asking for the rest");
                Ok(broken.unanswered)
            }
            PassError::Source(error) => Err(self.work.source_error(&self.folder.source_path, error).await),
            error => Err(error),
        }
    }

    /// One stream of bodies: whatever arrives whole is handed on, however the stream ends.
    async fn read_stream(&mut self, Opened { uids, stream }: Opened) -> Result<Pulled, PassError> {
        let asked = UidSet::from_ascending(uids);
        let most = self.work.budget.answer_octets();
        let mut frames = FrameReader::new(stream);
        let mut check = BodyStreamCheck::new(asked.clone());
        let mut at_work = AtWork::default();
        let folder = Arc::clone(&self.folder);
        loop {
            match next_event(&mut frames, &mut check, &folder.source_path).await {
                Next::Event(event) => self.take_event(&mut at_work, event).await?,
                Next::Spoilt(uid, message) => {
                    at_work.current = None;
                    at_work.answered.insert(uid);
                    at_work.pulled.spoilt.push((uid, message));
                }
                Next::End => return Ok(at_work.pulled),
                Next::Broken(error) => {
                    at_work.pulled.broken = Some(broken(&at_work, &asked, error));
                    return Ok(at_work.pulled);
                }
                Next::Worthless(error) => return Err(error),
            }
            if at_work.is_enough(&asked, most) {
                let unanswered = asked.iter().filter(|uid| !at_work.answered.contains(*uid));
                at_work.pulled.rest = unanswered.collect();
                return Ok(at_work.pulled);
            }
            if self.early.is_none() && self.is_full() {
                self.hand_on().await?;
            }
        }
    }

    fn is_full(&self) -> bool {
        let batch = &self.batch;
        batch.items.len() >= self.batch_items
            || batch.reports.len() >= MAX_BODY_REQUEST_ITEMS
            || batch.memory >= self.work.budget.batch_octets(self.work.lanes)
            || batch.spooled >= BATCH_SPOOLED
    }

    /// Hands the batch on, as soon as there is place for it.
    async fn hand_on(&mut self) -> Result<(), PassError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        // Nobody takes it any more where the target failed, which is what is told.
        self.batches.send(batch).await.map_err(|_| PassError::Cancelled)
    }

    async fn take_event(&mut self, at_work: &mut AtWork, event: BodyEvent) -> Result<(), PassError> {
        match event {
            BodyEvent::ItemStart(header) => at_work.current = Some(self.begin(header).await?),
            BodyEvent::Octets(octets) => self.take_part(at_work, &octets).await?,
            BodyEvent::ItemDone {
                uid,
                length,
                digest,
                line_ends_only,
            } => {
                at_work.answered.insert(uid);
                self.work.outcome().octets_received += length;
                let Some(item) = at_work.current.take() else {
                    return Ok(());
                };
                let record = Record {
                    uid,
                    length,
                    digest,
                    flags: item.header.flags.clone(),
                    received: item.header.received,
                    read_back: ReadBack::Open,
                    line_ends_only,
                };
                match item.complete(record).await? {
                    Ok(ready) => self.batch.push(ready),
                    Err(((class, reason), record, heading)) => {
                        let number = self.folder.number;
                        let item = self.work.report_item(number, uid, ReportKind::Skipped, reason)?;
                        self.batch.reports.push(ReportItem {
                            size: Some(record.length),
                            received: Some(record.received),
                            class,
                            ..item.headed(heading)
                        });
                    }
                }
            }
            BodyEvent::Gone { uid } => {
                at_work.answered.insert(uid);
                at_work.pulled.gone.push(uid);
            }
            BodyEvent::Failed(failure) => {
                at_work.answered.insert(failure.uid);
                let report = self.source_failure(&failure)?;
                self.batch.reports.push(report);
            }
            BodyEvent::End { .. } => {}
        }
        Ok(())
    }

    /// An item begins: its octets are taken from the budget first. Where they are not there at once, the complete items
    /// go on their way, since it is them, here and in other folders, that give octets back.
    async fn begin(&mut self, header: ItemHeader) -> Result<Incoming, PassError> {
        let budget = &self.work.budget;
        let wants = Incoming::wants(self.work, header.length);
        let held = match &mut self.early {
            // Before the folder's turn nothing is waited for: what is larger than was told goes to the spool folder.
            Some(early) => early.split(wants),
            None => match budget.try_take(wants) {
                Some(held) => Some(held),
                None => {
                    self.hand_on().await?;
                    Some(budget.take(wants).await)
                }
            },
        };
        Ok(Incoming::begin(header, held))
    }

    /// Octets of the item on its way. One that goes on beyond everything that is taken is given up at once.
    async fn take_part(&mut self, at_work: &mut AtWork, octets: &Bytes) -> Result<(), PassError> {
        at_work.octets += octets.len() as u64;
        let Some(item) = &mut at_work.current else {
            return Ok(());
        };
        if item.becomes_huge(octets.len()) {
            self.early = None;
            self.hand_on().await?;
            item.set_huge(self.work.budget.huge().await);
        }
        item.take(self.work, octets).await?;
        if item.length <= MAX_ITEM {
            return Ok(());
        }
        let (uid, reason) = (item.header.uid, too_large(MAX_ITEM));
        let reported = self
            .work
            .report_item(self.folder.number, uid, ReportKind::Skipped, reason)?;
        self.batch.reports.push(ReportItem {
            received: Some(item.header.received),
            class: ReportClass::TooLarge,
            ..reported.headed(std::mem::take(&mut item.heading))
        });
        at_work.answered.insert(uid);
        at_work.current = None;
        at_work.given_up = true;
        Ok(())
    }

    /// An item that the source cannot read goes to the report; anything wider stops the pass.
    fn source_failure(&self, failure: &ItemFailure) -> Result<ReportItem, PassError> {
        let scope = match failure.class {
            FailureClass::Item => {
                let reason = format!("the source cannot read it: {}", failure.text);
                let item = self
                    .work
                    .report_item(self.folder.number, failure.uid, ReportKind::Skipped, reason)?;
                return Ok(ReportItem {
                    side: Side::Source,
                    ..item
                });
            }
            FailureClass::Folder => ErrorScope::Folder,
            FailureClass::Mailbox => ErrorScope::Mailbox,
            FailureClass::Endpoint => ErrorScope::Endpoint,
        };
        Err(PassError::Source(crate::link::LinkError {
            id: "MailboxPlatformException".to_owned(),
            message: format!("folder {}: {}", self.folder.source_path, failure.text),
            scope,
            retry: Retry::After(60),
        }))
    }
}

fn request_length(additions: &[Addition], most: u64) -> usize {
    let mut octets = 0_u64;
    let fits = |addition: &&Addition| {
        octets = octets.saturating_add(addition.length_hint.unwrap_or(UNKNOWN_LENGTH));
        octets <= most
    };
    let fitting = additions.iter().take(MAX_BODY_REQUEST_ITEMS).take_while(fits).count();
    fitting.max(1).min(additions.len())
}

fn broken(at_work: &AtWork, asked: &UidSet, error: PassError) -> Broken {
    let at = at_work.current.as_ref().map(|item| item.header.uid);
    let unanswered = asked
        .iter()
        .filter(|uid| !at_work.answered.contains(*uid) && Some(*uid) != at)
        .collect();
    let answered = !at_work.answered.is_empty();
    Broken {
        at,
        unanswered,
        answered,
        error,
    }
}

//! Pulls items from the source: an item is handed on only when its octets are complete and hashed.

use super::{
    Work,
    apply::FolderWork,
    listing::{FrameReader, protocol},
};
use crate::{
    compare::Addition,
    error::PassError,
    ledger::{ReadBack, Record},
    report::{self, ReportItem, ReportKind, Side},
};
use bytes::Bytes;
use rehome_mailbox::{Body, ErrorScope, FolderPath, MailboxError, Retry};
use rehome_wire::{
    frames::{
        BodyEvent, BodyStreamCheck, BodyStreamError, FailureClass, ItemFailure, ItemHeader, MAX_BODY_REQUEST_ITEMS,
    },
    uid_set::UidSet,
};
use std::path::PathBuf;
use tokio::io::AsyncWriteExt;

/// Octets, by the source's hints, that one request asks for; one larger item alone is allowed.
const REQUEST_OCTETS: u64 = 32 * 1024 * 1024;
/// Octets of one answer after which nothing more of it is read: hints may lie, but in canonical form an item is at most
/// twice as long as stored.
const ANSWER_OCTETS: u64 = 2 * REQUEST_OCTETS;
/// Octets that one move may have in the spool folder: what one answer brought, and one item on its way.
const SPOOL_BUDGET: u64 = 4 * 1024 * 1024 * 1024;
/// What an item without a hint is taken for.
const UNKNOWN_LENGTH: u64 = 64 * 1024;
/// Larger items go through the spool folder.
const MEMORY_ITEM: usize = 1024 * 1024;
/// No larger item is taken at all.
const MAX_ITEM: u64 = SPOOL_BUDGET - ANSWER_OCTETS;
/// Octets of an item in which its subject is looked for.
const SUBJECT_WITHIN: usize = 64 * 1024;
/// Years 0 to 9999: what every platform can write as a date.
const RECEIVED: std::ops::RangeInclusive<i64> = -62_167_219_200..=253_402_300_799;

/// A file in the spool folder; removed with this value.
pub(super) struct SpoolFile(PathBuf);

impl Drop for SpoolFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(%error, "a spool file could not be removed");
        }
    }
}

/// An item, complete and hashed.
pub(super) struct Ready {
    pub(super) record: Record,
    pub(super) body: Body,
    pub(super) subject: Option<String>,
    /// Octets in memory.
    memory: usize,
    /// Keeps the spool file for as long as the item is at work.
    _spool: Option<SpoolFile>,
}

/// An item on its way.
struct Incoming {
    header: ItemHeader,
    memory: Vec<u8>,
    spool: Option<(tokio::fs::File, SpoolFile)>,
    length: u64,
    subject: Option<String>,
    /// Why it will not be used.
    refused: Option<String>,
}

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
    error: PassError,
}

/// A stream at work.
#[derive(Default)]
struct AtWork {
    pulled: Pulled,
    answered: UidSet,
    batch: Batch,
    current: Option<Incoming>,
    /// Octets of bodies that came.
    octets: u64,
    /// An item that does not end was given up; nothing behind it can be reached.
    given_up: bool,
}

impl AtWork {
    /// Whether nothing more of the stream is read.
    fn is_enough(&self, asked: &UidSet) -> bool {
        let full = self.octets > ANSWER_OCTETS && self.current.is_none();
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

impl Work<'_> {
    /// Fetches and applies additions; returns the uids that the source called gone.
    pub(super) async fn pull_all(
        &mut self,
        folder: &mut FolderWork,
        additions: &[Addition],
    ) -> Result<Vec<u32>, PassError> {
        let mut gone = Vec::new();
        let mut rest = additions;
        while !rest.is_empty() {
            let (request, later) = rest.split_at(request_length(rest));
            rest = later;
            let uids = self.without_too_large(folder, request).await?;
            gone.extend(self.pull_request(folder, uids).await?);
        }
        Ok(gone)
    }

    /// Leaves out what the target takes by no means, by the source's hint.
    async fn without_too_large(&self, folder: &FolderWork, request: &[Addition]) -> Result<Vec<u32>, PassError> {
        let limit = self.capabilities.max_item_length.unwrap_or(MAX_ITEM).min(MAX_ITEM);
        let mut reports = Vec::new();
        let mut uids = Vec::new();
        for Addition { uid, length_hint } in request {
            match length_hint {
                Some(length) if *length > limit => {
                    let reason = too_large(limit);
                    let item = self.report_item(folder.number, *uid, ReportKind::Skipped, reason)?;
                    reports.push(ReportItem {
                        size: Some(*length),
                        ..item
                    });
                }
                Some(_) | None => uids.push(*uid),
            }
        }
        self.report_now(folder.number, reports).await?;
        Ok(uids)
    }

    /// One request, with what it takes to get an answer for every uid; returns those called gone.
    async fn pull_request(&mut self, folder: &mut FolderWork, uids: Vec<u32>) -> Result<Vec<u32>, PassError> {
        let mut gone = Vec::new();
        let mut spoilt_once = UidSet::new();
        let mut broken_at: Option<u32> = None;
        let mut requests = vec![uids];
        while let Some(uids) = requests.pop() {
            if uids.is_empty() {
                continue;
            }
            let pulled = self.pull_stream(folder, &uids).await?;
            gone.extend(pulled.gone);
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
            let Some(Broken { at, unanswered, error }) = pulled.broken else {
                continue;
            };
            // The connection may have been cut, or the item cannot be read: asked for alone, it tells.
            match at {
                None => {
                    return Err(match error {
                        PassError::Source(error) => self.source_error(&folder.source_path, error).await,
                        error => error,
                    });
                }
                Some(uid) if broken_at == Some(uid) && uids.len() == 1 => {
                    let reason = format!("the source broke off in the middle of the item, twice: {error}");
                    let item = self.report_item(folder.number, uid, ReportKind::Skipped, reason)?;
                    self.report_now(
                        folder.number,
                        vec![ReportItem {
                            side: Side::Source,
                            ..item
                        }],
                    )
                    .await?;
                }
                Some(uid) => {
                    tracing::warn!(%error, uid, "the source's stream broke off; asking for the item alone");
                    broken_at = Some(uid);
                    requests.push(unanswered);
                    requests.push(vec![uid]);
                }
            }
        }
        Ok(gone)
    }

    /// One stream of bodies: whatever arrives whole is applied, however the stream ends.
    async fn pull_stream(&mut self, folder: &mut FolderWork, uids: &[u32]) -> Result<Pulled, PassError> {
        self.guard()?;
        let asked = UidSet::from_ascending(uids.iter().copied());
        let stream = self
            .source
            .items(&folder.source_path, folder.source_validity, &asked)
            .await;
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => return Err(self.source_error(&folder.source_path, error).await),
        };
        let mut frames = FrameReader::new(stream);
        let mut check = BodyStreamCheck::new(asked.clone());
        let mut at_work = AtWork::default();
        let ended = loop {
            match next_event(&mut frames, &mut check, &folder.source_path).await {
                Next::Event(event) => {
                    if let Err(error) = self.take_event(folder, &mut at_work, event).await {
                        break Ok(Err(error));
                    }
                }
                Next::Spoilt(uid, message) => {
                    at_work.current = None;
                    at_work.answered.insert(uid);
                    at_work.pulled.spoilt.push((uid, message));
                }
                Next::End => break Ok(Ok(())),
                Next::Broken(error) => break Err(error),
                Next::Worthless(error) => break Ok(Err(error)),
            }
            if at_work.is_enough(&asked) {
                let unanswered = asked.iter().filter(|uid| !at_work.answered.contains(*uid));
                at_work.pulled.rest = unanswered.collect();
                break Ok(Ok(()));
            }
            if at_work.batch.is_full(self.memory_limit()) {
                self.apply_batch(folder, std::mem::take(&mut at_work.batch)).await?;
            }
        };
        let AtWork {
            mut pulled,
            answered,
            batch,
            current,
            ..
        } = at_work;
        self.apply_batch(folder, batch).await?;
        match ended {
            Ok(ended) => ended?,
            Err(error) => pulled.broken = Some(broken(current.as_ref(), &asked, &answered, error)),
        }
        Ok(pulled)
    }

    async fn take_event(
        &mut self,
        folder: &FolderWork,
        at_work: &mut AtWork,
        event: BodyEvent,
    ) -> Result<(), PassError> {
        match event {
            BodyEvent::ItemStart(header) => at_work.current = Some(self.begin(header)),
            BodyEvent::Octets(octets) => self.take_part(folder, at_work, &octets).await?,
            BodyEvent::ItemDone {
                uid,
                length,
                digest,
                line_ends_only,
            } => {
                at_work.answered.insert(uid);
                self.outcome.octets_received += length;
                let Some(item) = at_work.current.take() else {
                    return Ok(());
                };
                let ItemHeader { flags, received, .. } = item.header.clone();
                let read_back = ReadBack::Open;
                let record = Record {
                    uid,
                    length,
                    digest,
                    flags,
                    received,
                    read_back,
                    line_ends_only,
                };
                match complete(item, record).await? {
                    Ok(ready) => at_work.batch.push(ready),
                    Err((reason, record, subject)) => {
                        let item = self.report_item(folder.number, uid, ReportKind::Skipped, reason)?;
                        let (size, received) = (Some(record.length), Some(record.received));
                        at_work.batch.reports.push(ReportItem {
                            size,
                            received,
                            subject,
                            ..item
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
                at_work.batch.reports.push(self.source_failure(folder, &failure)?);
            }
            BodyEvent::End { .. } => {}
        }
        Ok(())
    }

    /// Octets of the item on its way. One that goes on beyond everything that is taken is given up at once.
    async fn take_part(&mut self, folder: &FolderWork, at_work: &mut AtWork, octets: &Bytes) -> Result<(), PassError> {
        at_work.octets += octets.len() as u64;
        let Some(item) = &mut at_work.current else {
            return Ok(());
        };
        self.take_octets(item, octets).await?;
        if item.length <= MAX_ITEM {
            return Ok(());
        }
        let (uid, reason) = (item.header.uid, too_large(MAX_ITEM));
        let reported = self.report_item(folder.number, uid, ReportKind::Skipped, reason)?;
        at_work.batch.reports.push(ReportItem {
            received: Some(item.header.received),
            subject: item.subject.take(),
            ..reported
        });
        at_work.answered.insert(uid);
        at_work.current = None;
        at_work.given_up = true;
        Ok(())
    }

    /// Octets of bodies in memory at which a batch is applied: with the item on its way still within the budget.
    fn memory_limit(&self) -> usize {
        (self.settings.memory_budget / 2).clamp(MEMORY_ITEM / 2, 16 * MEMORY_ITEM)
    }

    fn begin(&self, header: ItemHeader) -> Incoming {
        let refused = (!RECEIVED.contains(&header.received))
            .then(|| "its received time lies outside the years 0 to 9999".to_owned());
        Incoming {
            header,
            memory: Vec::new(),
            spool: None,
            length: 0,
            subject: None,
            refused,
        }
    }

    async fn take_octets(&mut self, item: &mut Incoming, octets: &Bytes) -> Result<(), PassError> {
        item.length += octets.len() as u64;
        let limit = self.capabilities.max_item_length.unwrap_or(MAX_ITEM).min(MAX_ITEM);
        if item.length > limit && item.refused.is_none() {
            item.subject =
                report::subject(&item.memory[..item.memory.len().min(SUBJECT_WITHIN)]).or(item.subject.take());
            item.refused = Some(too_large(limit));
            item.spool = None;
            item.memory = Vec::new();
        }
        if item.refused.is_some() {
            return Ok(());
        }
        if item.spool.is_none() && item.memory.len() + octets.len() > MEMORY_ITEM {
            item.subject = report::subject(&item.memory[..item.memory.len().min(SUBJECT_WITHIN)]);
            let (mut file, guard) = self.spool_file().await?;
            file.write_all(&item.memory).await.map_err(spool_error)?;
            item.memory = Vec::new();
            item.spool = Some((file, guard));
        }
        match &mut item.spool {
            Some((file, _)) => file.write_all(octets).await.map_err(spool_error),
            None => {
                item.memory.extend_from_slice(octets);
                Ok(())
            }
        }
    }

    async fn spool_file(&mut self) -> Result<(tokio::fs::File, SpoolFile), PassError> {
        tokio::fs::create_dir_all(&self.settings.spool)
            .await
            .map_err(spool_error)?;
        self.spooled += 1;
        let path = self
            .settings
            .spool
            .join(format!("{}{}", spool_prefix(self.settings.move_id), self.spooled));
        let file = tokio::fs::File::create(&path).await.map_err(spool_error)?;
        Ok((file, SpoolFile(path)))
    }

    /// Removes what an interrupted pass of this move left in the spool folder.
    pub(super) async fn clear_spool(&self) -> Result<(), PassError> {
        let mut entries = match tokio::fs::read_dir(&self.settings.spool).await {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(spool_error(error)),
        };
        let prefix = spool_prefix(self.settings.move_id);
        while let Some(entry) = entries.next_entry().await.map_err(spool_error)? {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                tokio::fs::remove_file(entry.path()).await.map_err(spool_error)?;
            }
        }
        Ok(())
    }

    /// An item that the source cannot read goes to the report; anything wider stops the pass.
    fn source_failure(&self, folder: &FolderWork, failure: &ItemFailure) -> Result<ReportItem, PassError> {
        let scope = match failure.class {
            FailureClass::Item => {
                let reason = format!("the source cannot read it: {}", failure.text);
                let item = self.report_item(folder.number, failure.uid, ReportKind::Skipped, reason)?;
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
            message: format!("folder {}: {}", folder.source_path, failure.text),
            scope,
            retry: Retry::After(60),
        }))
    }
}

/// What is applied together.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) items: Vec<Ready>,
    pub(super) reports: Vec<ReportItem>,
    memory: usize,
}

impl Batch {
    fn push(&mut self, item: Ready) {
        self.memory += item.memory;
        self.items.push(item);
    }

    fn is_full(&self, memory_limit: usize) -> bool {
        self.memory >= memory_limit || self.items.len() + self.reports.len() >= MAX_BODY_REQUEST_ITEMS
    }
}

fn request_length(additions: &[Addition]) -> usize {
    let mut octets = 0_u64;
    let fits = |addition: &&Addition| {
        octets = octets.saturating_add(addition.length_hint.unwrap_or(UNKNOWN_LENGTH));
        octets <= REQUEST_OCTETS
    };
    additions
        .iter()
        .take(MAX_BODY_REQUEST_ITEMS)
        .take_while(fits)
        .count()
        .max(1)
}

fn broken(current: Option<&Incoming>, asked: &UidSet, answered: &UidSet, error: PassError) -> Broken {
    let at = current.map(|item| item.header.uid);
    let unanswered = asked
        .iter()
        .filter(|uid| !answered.contains(*uid) && Some(*uid) != at)
        .collect();
    Broken { at, unanswered, error }
}

type Complete = Result<Ready, (String, Record, Option<String>)>;

async fn complete(item: Incoming, record: Record) -> Result<Complete, PassError> {
    let Incoming {
        memory,
        spool,
        subject,
        refused,
        ..
    } = item;
    if let Some(reason) = refused {
        return Ok(Err((reason, record, subject)));
    }
    Ok(Ok(match spool {
        Some((mut file, guard)) => {
            file.flush().await.map_err(spool_error)?;
            let body = Body::Spooled(guard.0.clone());
            Ready {
                record,
                body,
                subject,
                memory: 0,
                _spool: Some(guard),
            }
        }
        None => {
            let subject = report::subject(&memory[..memory.len().min(SUBJECT_WITHIN)]);
            Ready {
                record,
                memory: memory.len(),
                body: Body::Memory(memory.into()),
                subject,
                _spool: None,
            }
        }
    }))
}

fn too_large(limit: u64) -> String {
    format!("it is larger than {limit} octets, the most that the target takes")
}

fn spool_prefix(move_id: u128) -> String {
    format!("{move_id:032x}-")
}

fn spool_error(error: std::io::Error) -> PassError {
    PassError::Spool {
        cause: error.to_string(),
    }
}

/// The reason of a refusal for the report.
pub(super) fn refusal(error: &MailboxError) -> String {
    format!("the target refused it: {}", error.cause)
}

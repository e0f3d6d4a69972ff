//! Reads the source's listings and compares them with the ledger as they arrive.

use super::{Mode, SkippedItems, Work};
use crate::{
    compare::{Addition, FolderPlan, compare_changes, compare_whole},
    error::PassError,
    ledger::CHUNK_SHIFT,
    link::{LinkError, OctetStream},
    report::ReportKind,
};
use futures_util::StreamExt;
use rehome_mailbox::{ErrorScope, Folder, FolderPath, Retry};
use rehome_wire::{
    frames::{Frame, FrameDecoder, ListedItem, ListingCheck, ListingEvent, ListingHead, ListingKind},
    uid_set::UidSet,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// A stream of the source without progress for this long is given up.
const STALLED: Duration = Duration::from_secs(60);
/// Longest name in a path, and most names, that are believed.
const MAX_NAME: usize = 1_024;
const MAX_DEPTH: usize = 200;
/// Most folders of one mailbox.
const MAX_FOLDERS: usize = 200_000;

/// How a source says that a folder is not there.
const NOT_FOUND: &str = "ManagementObjectNotFoundException";

/// The uids of a chunk of records.
fn chunk_range(chunk: u32) -> std::ops::RangeInclusive<u32> {
    let from = chunk << CHUNK_SHIFT;
    from..=from | ((1 << CHUNK_SHIFT) - 1)
}

/// What a folder's listing says against the ledger.
pub(super) struct Listed {
    pub(super) head: ListingHead,
    /// Removals may be concluded from it.
    pub(super) conclusive: bool,
    pub(super) plan: FolderPlan,
    /// Reported items that are not at the source any more.
    pub(super) unreported: Vec<u32>,
    /// Items at the source, as far as listed.
    pub(super) listed: u64,
}

/// Frames of a stream of the source, checked for shape and progress.
pub(super) struct FrameReader {
    stream: OctetStream,
    decoder: FrameDecoder,
    malformed: bool,
}

impl FrameReader {
    pub(super) fn new(stream: OctetStream) -> Self {
        Self {
            stream,
            decoder: FrameDecoder::new(),
            malformed: false,
        }
    }

    /// Whether the last error was in the frames themselves, not in their transport.
    pub(super) fn malformed(&self) -> bool {
        self.malformed
    }

    /// The next frame; none at the end of the stream.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, PassError> {
        loop {
            match self.decoder.next() {
                Ok(Some(frame)) => return Ok(Some(frame)),
                Ok(None) => {}
                Err(error) => {
                    self.malformed = true;
                    return Err(protocol(&error));
                }
            }
            let piece = tokio::time::timeout(STALLED, self.stream.next()).await;
            match piece.map_err(|_| protocol(&"the source's stream made no progress for 60 seconds"))? {
                Some(octets) => self.decoder.push(&octets.map_err(PassError::Source)?),
                None if self.decoder.buffered() > 0 => {
                    return Err(protocol(&"the source's stream stopped inside a frame"));
                }
                None => return Ok(None),
            }
        }
    }
}

pub(super) fn protocol(error: &dyn std::fmt::Display) -> PassError {
    PassError::Protocol {
        message: error.to_string(),
    }
}

/// One listing as events.
struct ListingReader {
    frames: FrameReader,
    check: ListingCheck,
    folder: FolderPath,
}

impl ListingReader {
    async fn next(&mut self) -> Result<ListingEvent, PassError> {
        let in_folder = |error: &dyn std::fmt::Display| protocol(&format!("listing folder {}: {error}", self.folder));
        match self.frames.next().await? {
            Some(frame) => self.check.accept(frame).map_err(|error| in_folder(&error)),
            None => Err(in_folder(&"the listing stopped without an end frame")),
        }
    }

    async fn head(&mut self, uid_validity: u32) -> Result<ListingHead, PassError> {
        match self.next().await? {
            ListingEvent::Head(head) if head.validity == uid_validity => Ok(head),
            ListingEvent::Head(head) => Err(protocol(&format!(
                "folder {} changed its UIDVALIDITY from {uid_validity} to {} while it was listed",
                self.folder, head.validity
            ))),
            ListingEvent::Item(_) | ListingEvent::Vanished(_) | ListingEvent::Present(_) | ListingEvent::End { .. } => {
                Err(protocol(&format!(
                    "listing folder {}: it does not begin with its head",
                    self.folder
                )))
            }
        }
    }
}

impl Work<'_> {
    /// The source's folders, bounded and with their inbox.
    pub(super) async fn source_folders(&self) -> Result<Vec<Folder>, PassError> {
        self.guard()?;
        let folders = self.source.folders().await.map_err(PassError::Source)?;
        if folders.len() > MAX_FOLDERS {
            return Err(protocol(&format!(
                "the source has {} folders, {MAX_FOLDERS} are the most",
                folders.len()
            )));
        }
        let mut paths = BTreeSet::new();
        for folder in &folders {
            let FolderPath(names) = &folder.path;
            let fits = (1..=MAX_DEPTH).contains(&names.len()) && names.iter().all(|name| name.len() <= MAX_NAME);
            if !fits || !paths.insert(&folder.path) {
                return Err(protocol(
                    &"the source lists a folder twice, or with a path that is empty or too long",
                ));
            }
        }
        if !folders.iter().any(|folder| folder.path.is_inbox() && folder.selectable) {
            // Every mailbox has one (RFC 9051 §5.1): its storage is not there.
            return Err(PassError::SourceContentsShrank {
                message: "the source lists no inbox".to_owned(),
            });
        }
        Ok(folders)
    }

    async fn open_listing(
        &self,
        folder: &FolderPath,
        token: Option<&[u8]>,
        fresh: bool,
    ) -> Result<ListingReader, PassError> {
        self.guard()?;
        match self.source.listing(folder, token, fresh).await {
            Ok(stream) => Ok(ListingReader {
                frames: FrameReader::new(stream),
                check: ListingCheck::new(),
                folder: folder.clone(),
            }),
            Err(error) => Err(self.source_error(folder, error).await),
        }
    }

    /// An error of the source about a folder that it listed. One that it does not find may have been removed since: where
    /// its new list says so too, the next pass begins at once, with that list; else the two may agree later.
    pub(super) async fn source_error(&self, folder: &FolderPath, error: LinkError) -> PassError {
        let missing = error.scope <= ErrorScope::Folder && error.retry == Retry::Never && error.id == NOT_FOUND;
        if !missing {
            return PassError::Source(error);
        }
        let retry = if self.mode == Mode::Sweep {
            // A closed mailbox lists late items alone.
            Retry::After(60)
        } else {
            if let Err(stop) = self.guard() {
                return stop;
            }
            match self.source.folders().await {
                Ok(folders) if folders.iter().any(|listed| listed.path == *folder) => Retry::After(60),
                Ok(_) => Retry::Now,
                Err(error) => return PassError::Source(error),
            }
        };
        PassError::Source(LinkError {
            id: "CommunicationErrorTransientException".to_owned(),
            message: format!("folder {folder} went away while it was copied: {}", error.message),
            scope: ErrorScope::Folder,
            retry,
        })
    }

    /// Lists a folder and compares it with the records of `number`; none of them is in the ledger for a new folder.
    pub(super) async fn list_and_compare(
        &self,
        folder: &FolderPath,
        uid_validity: u32,
        number: Option<u32>,
        token: Option<&[u8]>,
        fresh: bool,
    ) -> Result<Listed, PassError> {
        let mut reader = self.open_listing(folder, token, fresh).await?;
        let head = reader.head(uid_validity).await?;
        let skipped = self.skipped_items(number).await?;
        match head.kind {
            ListingKind::Full => {
                let mut listed = self.compare_full(reader, head, number).await?;
                if self.skipped == SkippedItems::Leave {
                    listed
                        .plan
                        .additions
                        .retain(|addition| !skipped.contains_key(&addition.uid));
                }
                Ok(listed)
            }
            ListingKind::Changes => self.compare_delta(reader, head, number, &skipped).await,
        }
    }

    /// The folder's items that the report names as skipped, with their lengths where they are known.
    async fn skipped_items(&self, number: Option<u32>) -> Result<BTreeMap<u32, Option<u64>>, PassError> {
        let mut skipped = BTreeMap::new();
        let Some(number) = number else { return Ok(skipped) };
        if self.ledger.folder(number)?.skipped == 0 {
            return Ok(skipped);
        }
        let map = self.ledger.map(number).await?;
        for chunk in self.ledger.report_chunks(number).await? {
            let items = self.ledger.report(number, chunk).await?.into_iter();
            let named = items.filter(|item| item.kind == ReportKind::Skipped && map.get(item.uid).is_none());
            skipped.extend(named.map(|item| (item.uid, item.size)));
        }
        Ok(skipped)
    }

    async fn compare_full(
        &self,
        mut reader: ListingReader,
        head: ListingHead,
        number: Option<u32>,
    ) -> Result<Listed, PassError> {
        let mut held_chunks = BTreeSet::new();
        let mut report_chunks = BTreeSet::new();
        if let Some(number) = number {
            held_chunks.extend(self.ledger.record_chunks(number).await?);
            report_chunks.extend(self.ledger.report_chunks(number).await?);
        }
        let mut listed = Listed {
            head,
            conclusive: false,
            plan: FolderPlan::default(),
            unreported: vec![],
            listed: 0,
        };
        let mut pending: Vec<ListedItem> = Vec::new();
        loop {
            let event = reader.next().await?;
            let border = match &event {
                ListingEvent::Item(item) => item.uid >> CHUNK_SHIFT,
                ListingEvent::End { .. } => u32::MAX,
                ListingEvent::Head(_) | ListingEvent::Vanished(_) | ListingEvent::Present(_) => {
                    return Err(protocol(&"a frame out of place"));
                }
            };
            let pending_chunk = pending.first().map(|item| item.uid >> CHUNK_SHIFT);
            if pending_chunk.is_some_and(|chunk| chunk < border) || border == u32::MAX {
                // Chunks of records before, with and (at the end) behind the pending items.
                let mut chunks: BTreeSet<u32> = held_chunks.range(..border).copied().collect();
                chunks.extend(report_chunks.range(..border).copied());
                chunks.extend(pending_chunk);
                for chunk in chunks {
                    held_chunks.remove(&chunk);
                    let reported = report_chunks.remove(&chunk);
                    let items = if pending_chunk == Some(chunk) {
                        &pending[..]
                    } else {
                        &[]
                    };
                    self.compare_chunk(number, chunk, items, reported, &mut listed).await?;
                }
                pending.clear();
            }
            match event {
                ListingEvent::Item(item) => pending.push(item),
                ListingEvent::End { whole, items, .. } => {
                    listed.conclusive = whole;
                    listed.listed = items;
                    return Ok(listed);
                }
                ListingEvent::Head(_) | ListingEvent::Vanished(_) | ListingEvent::Present(_) => {}
            }
        }
    }

    async fn compare_chunk(
        &self,
        number: Option<u32>,
        chunk: u32,
        items: &[ListedItem],
        reported: bool,
        listed: &mut Listed,
    ) -> Result<(), PassError> {
        let records = match number {
            Some(number) => self.ledger.records(number, chunk).await?,
            None => Vec::new(),
        };
        compare_whole(items, &records, &mut listed.plan);
        if let (Some(number), true) = (number, reported) {
            let gone = self
                .ledger
                .report(number, chunk)
                .await?
                .into_iter()
                .map(|item| item.uid);
            let gone = gone.filter(|uid| items.binary_search_by_key(uid, |item| item.uid).is_err());
            listed.unreported.extend(gone);
        }
        Ok(())
    }

    async fn compare_delta(
        &self,
        mut reader: ListingReader,
        head: ListingHead,
        number: Option<u32>,
        skipped: &BTreeMap<u32, Option<u64>>,
    ) -> Result<Listed, PassError> {
        let mut changed: Vec<ListedItem> = Vec::new();
        let mut vanished: Vec<UidSet> = Vec::new();
        let mut present: Option<Vec<UidSet>> = None;
        loop {
            match reader.next().await? {
                ListingEvent::Item(item) => changed.push(item),
                ListingEvent::Vanished(uids) => vanished.push(uids),
                ListingEvent::Present(uids) => present.get_or_insert_default().push(uids),
                ListingEvent::End { .. } => break,
                ListingEvent::Head(_) => return Err(protocol(&"a frame out of place")),
            }
        }
        let among = |sets: &[UidSet], uid: u32| sets.iter().any(|uids| uids.contains(uid));
        let gone = |uid: u32| match &present {
            Some(present) => !among(present, uid),
            None => among(&vanished, uid),
        };
        let mut listed = Listed {
            head,
            conclusive: true,
            plan: FolderPlan::default(),
            unreported: vec![],
            listed: 0,
        };
        let mut chunks: BTreeSet<u32> = changed.iter().map(|item| item.uid >> CHUNK_SHIFT).collect();
        let mut known = 0;
        if let Some(number) = number {
            let map = self.ledger.map(number).await?;
            known = map.len() as u64;
            let held = self.ledger.record_chunks(number).await?;
            // Records are read only where something changed.
            chunks.extend(held.into_iter().filter(|chunk| {
                let range = chunk_range(*chunk);
                map.sources(range).any(gone)
            }));
        }
        for chunk in chunks {
            let records = match number {
                Some(number) => self.ledger.records(number, chunk).await?,
                None => Vec::new(),
            };
            let here = UidSet::from_ascending(records.iter().map(|record| record.uid).filter(|uid| gone(*uid)));
            let from = changed.partition_point(|item| item.uid >> CHUNK_SHIFT < chunk);
            let to = changed.partition_point(|item| item.uid >> CHUNK_SHIFT <= chunk);
            compare_changes(&changed[from..to], &here, &records, &mut listed.plan);
        }
        let plan = &mut listed.plan;
        plan.known = known;
        // Skipped items are at the source, and changes do not name them again.
        plan.additions.retain(|addition| !skipped.contains_key(&addition.uid));
        let (left, there): (Vec<_>, Vec<_>) = skipped.iter().partition(|(uid, _)| gone(**uid));
        let here = plan.known + plan.additions.len() as u64 + there.len() as u64;
        let count = here.saturating_sub(plan.removals.len() as u64);
        listed.unreported = left.into_iter().map(|(uid, _)| *uid).collect();
        if self.skipped != SkippedItems::Leave {
            plan.additions.extend(there.into_iter().map(|(uid, length)| Addition {
                uid: *uid,
                length_hint: *length,
            }));
            plan.additions.sort_unstable_by_key(|addition| addition.uid);
        }
        // Changes that do not lead to the source's own count are not believed: the caller lists anew.
        listed.conclusive = count == u64::from(listed.head.exists);
        listed.listed = count;
        Ok(listed)
    }

    /// The uids of a whole listing; none where it is not whole.
    pub(super) async fn list_uids(
        &self,
        folder: &FolderPath,
        uid_validity: u32,
        fresh: bool,
    ) -> Result<Option<UidSet>, PassError> {
        let mut uids = UidSet::new();
        let whole = self.look_at(folder, uid_validity, fresh, |item| {
            uids.insert(item.uid);
        });
        Ok(whole.await?.then_some(uids))
    }

    /// Looks at every item of a whole listing; false where it was not whole.
    pub(super) async fn look_at(
        &self,
        folder: &FolderPath,
        uid_validity: u32,
        fresh: bool,
        mut look: impl FnMut(ListedItem) + Send,
    ) -> Result<bool, PassError> {
        let mut reader = self.open_listing(folder, None, fresh).await?;
        reader.head(uid_validity).await?;
        loop {
            match reader.next().await? {
                ListingEvent::Item(item) => look(item),
                ListingEvent::End { whole, .. } => return Ok(whole),
                ListingEvent::Head(_) | ListingEvent::Vanished(_) | ListingEvent::Present(_) => {
                    return Err(protocol(&"a frame out of place"));
                }
            }
        }
    }
}

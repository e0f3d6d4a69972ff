//! Serving: listings and bodies as frames, and the notes of what was served.

use super::{ExportError, Inner, Sender};
use crate::{
    notes::{Note, Seen},
    reading::{Serving, out_of_order},
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use rehome_mailbox::{
    ErrorScope, FolderPath, FolderRef, ItemMeta, ListingScope, MailboxError, ReadEvent, Removed, Retry,
};
use rehome_wire::{
    canonical::CanonicalReport,
    frames::{self, FailureClass, Frame, ItemFailure, ItemHeader, ItemTrailer, ListedItem, ListingHead, ListingKind},
    uid_set::UidSet,
};
use std::{collections::BTreeMap, time::Duration};
use tokio::{sync::oneshot, time::timeout};

/// Frames are sent on when this many octets are together.
const PIECE: usize = 64 * 1024;
/// Octets of an item that are sent without being copied; fewer are cheaper copied than sent alone.
const ALONE: usize = 32 * 1024;
/// A platform that gives nothing of a body for so long, once it has begun, is given up.
const STALLED: Duration = Duration::from_secs(60);

pub(super) enum ServeError {
    ReaderGone,
    Export(ExportError),
}

impl From<ExportError> for ServeError {
    fn from(error: ExportError) -> Self {
        Self::Export(error)
    }
}

/// Gathers frames and sends them on in pieces.
struct FrameSender<'a> {
    octets: BytesMut,
    sender: &'a Sender,
}

impl<'a> FrameSender<'a> {
    fn new(sender: &'a Sender) -> Self {
        let octets = BytesMut::new();
        Self { octets, sender }
    }

    async fn send(&mut self, frame: &Frame) -> Result<(), ServeError> {
        frames::encode(frame, &mut self.octets);
        if self.octets.len() >= PIECE {
            self.flush().await
        } else {
            Ok(())
        }
    }

    /// Sends the octets of an item as chunks.
    async fn chunk(&mut self, octets: Bytes) -> Result<(), ServeError> {
        if octets.len() < ALONE {
            return self.send(&Frame::Chunk(octets)).await;
        }
        let mut rest = octets;
        while !rest.is_empty() {
            let part = rest.split_to(rest.len().min(frames::MAX_CHUNK));
            frames::encode_chunk_head(part.len(), &mut self.octets);
            self.flush().await?;
            self.pass(part).await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), ServeError> {
        if self.octets.is_empty() {
            return Ok(());
        }
        let piece = self.octets.split().freeze();
        self.pass(piece).await
    }

    async fn pass(&self, piece: Bytes) -> Result<(), ServeError> {
        self.sender.send(Ok(piece)).await.map_err(|_| ServeError::ReaderGone)
    }
}

pub(super) async fn send_listing(listing: rehome_mailbox::Listing, sender: &Sender) -> Result<(), ServeError> {
    let mut frames = FrameSender::new(sender);
    let (kind, removed) = match listing.scope {
        ListingScope::Whole => (ListingKind::Full, None),
        ListingScope::Changes { removed } => (ListingKind::Changes, Some(removed)),
    };
    let status = listing.status;
    frames
        .send(&Frame::Head(ListingHead {
            validity: status.uid_validity,
            uid_next: status.uid_next,
            exists: status.exists,
            mod_seq: status.highest_mod_seq,
            token: listing.token.map(|token| token.0.into()),
            kind,
        }))
        .await?;
    let items = listing.items.len() as u64;
    for ItemMeta {
        uid,
        flags,
        received,
        length_hint,
    } in listing.items
    {
        frames
            .send(&Frame::ListedItem(ListedItem {
                uid,
                flags,
                received,
                length: length_hint,
            }))
            .await?;
    }
    let vanished = match &removed {
        Some(Removed::Vanished(uids)) => uids.len() as u64,
        Some(Removed::Present(_)) | None => 0,
    };
    match removed {
        Some(Removed::Vanished(uids)) => frames.send(&Frame::Vanished(uids)).await?,
        Some(Removed::Present(uids)) => frames.send(&Frame::Present(uids)).await?,
        None => {}
    }
    frames.send(&Frame::ListingEnd { items, vanished }).await?;
    frames.flush().await
}

/// Told once that the platform has begun to answer, or why it did not.
type Begun = oneshot::Sender<Result<(), ExportError>>;

impl Inner {
    /// Serves items to `sender`, to the end or to its error.
    pub(super) async fn serve(
        &self,
        folder: &FolderPath,
        uid_validity: u32,
        uids: &UidSet,
        sender: &Sender,
        begun: Begun,
    ) {
        let mut begun = Some(begun);
        let folder = FolderRef::new(folder, uid_validity);
        let Err(ServeError::Export(error)) = self.serve_all(folder, uids, sender, &mut begun).await else {
            return;
        };
        // Whoever does not wait any more needs no error.
        let _ = match begun {
            Some(begun) => begun.send(Err(error)).is_ok(),
            None => {
                tracing::warn!(folder = %folder.path, %error, "a body stream broke off");
                sender.send(Err(error.link_error())).await.is_ok()
            }
        };
    }

    async fn serve_all(
        &self,
        folder: FolderRef<'_>,
        uids: &UidSet,
        sender: &Sender,
        begun: &mut Option<Begun>,
    ) -> Result<(), ServeError> {
        let mut served = BTreeMap::new();
        // A reader that goes away lets the platform's connection go, whatever that is waiting for.
        let sent = tokio::select! {
            sent = self.send_items(folder, uids, sender, &mut served, begun) => sent,
            () = sender.closed() => Err(ServeError::ReaderGone),
        };
        // What was served is noted even where the reader went away in the middle: it may have used what it has.
        if let (false, Some(uid_validity)) = (served.is_empty(), folder.uid_validity) {
            self.with_notes(async |notes| notes.put(folder.path, uid_validity, &served).await)
                .await?;
        }
        let end = sent?;
        let mut frames = FrameSender::new(sender);
        frames.send(&end).await?;
        frames.flush().await
    }

    /// Sends everything but the end frame, which it returns.
    async fn send_items(
        &self,
        folder: FolderRef<'_>,
        uids: &UidSet,
        sender: &Sender,
        served: &mut BTreeMap<u32, Note>,
        begun: &mut Option<Begun>,
    ) -> Result<Frame, ServeError> {
        let uids: Vec<u32> = uids.iter().collect();
        let mut events = self.mailbox.read(folder, &uids).await.map_err(ExportError::Mailbox)?;
        let mut frames = FrameSender::new(sender);
        let (mut items, mut gone, mut failed) = (0, 0, 0);
        let mut current: Option<Serving> = None;
        let mut seen = None;
        loop {
            let event = match begun {
                // The first one may have to wait for a connection.
                Some(_) => events.next().await,
                None => timeout(STALLED, events.next())
                    .await
                    .map_err(|_| ExportError::Mailbox(stalled(folder.path)))?,
            };
            let Some(event) = event else { break };
            let event = event.map_err(ExportError::Mailbox)?;
            if let Some(begun) = begun.take() {
                begun.send(Ok(())).map_err(|_| ServeError::ReaderGone)?;
            }
            match (event, current.take()) {
                (ReadEvent::Item(meta), None) => {
                    current = Some(Serving::new(meta.uid));
                    seen = Some(Seen {
                        received: meta.received,
                        length_hint: meta.length_hint,
                    });
                    frames.send(&Frame::Item(header(meta))).await?;
                }
                (ReadEvent::Octets(mut raw), Some(mut item)) => {
                    while !raw.is_empty() {
                        frames.chunk(item.take(&mut raw)).await?;
                    }
                    current = Some(item);
                }
                (ReadEvent::End, Some(item)) => {
                    let uid = item.uid;
                    let (octets, report, digest) = item.finish();
                    frames.send(&Frame::Chunk(octets)).await?;
                    let CanonicalReport {
                        length,
                        altered: line_ends_only,
                    } = report;
                    let seen = seen.take();
                    served.insert(uid, Note { length, digest, seen });
                    frames
                        .send(&Frame::Trailer(ItemTrailer {
                            length,
                            digest,
                            line_ends_only,
                        }))
                        .await?;
                    items += 1;
                }
                (ReadEvent::Gone(uid), None) => {
                    frames.send(&Frame::Gone { uid }).await?;
                    gone += 1;
                }
                (ReadEvent::Failed { uid, error }, None) => {
                    frames.send(&Frame::Failed(failure(uid, &error))).await?;
                    failed += 1;
                }
                // An item that breaks off in the middle cannot be taken back on the wire: the stream ends without its
                // end frame, and the importer asks for the item alone.
                (ReadEvent::Failed { error, .. }, Some(_)) => return Err(ExportError::Mailbox(error).into()),
                (ReadEvent::Item(_) | ReadEvent::Gone(_), Some(_)) | (ReadEvent::Octets(_) | ReadEvent::End, None) => {
                    return Err(ExportError::Mailbox(out_of_order(folder.path)).into());
                }
            }
        }
        if let Some(begun) = begun.take() {
            begun.send(Ok(())).map_err(|_| ServeError::ReaderGone)?;
        }
        frames.flush().await?;
        Ok(Frame::BodyEnd { items, gone, failed })
    }
}

fn header(meta: ItemMeta) -> ItemHeader {
    let ItemMeta {
        uid,
        flags,
        received,
        length_hint,
    } = meta;
    ItemHeader {
        uid,
        flags,
        received,
        length: length_hint,
    }
}

fn stalled(folder: &FolderPath) -> MailboxError {
    MailboxError {
        what: format!("reading folder {folder}"),
        cause: format!("the platform gave nothing for {} seconds", STALLED.as_secs()),
        scope: ErrorScope::Mailbox,
        retry: Retry::After(10),
    }
}

fn failure(uid: u32, error: &MailboxError) -> ItemFailure {
    let class = match error.scope {
        ErrorScope::Item => FailureClass::Item,
        ErrorScope::Folder => FailureClass::Folder,
        ErrorScope::Mailbox => FailureClass::Mailbox,
        ErrorScope::Endpoint => FailureClass::Endpoint,
    };
    ItemFailure {
        uid,
        class,
        text: error.to_string(),
    }
}

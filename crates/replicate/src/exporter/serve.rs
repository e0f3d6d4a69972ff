//! Serving: listings and bodies as frames, and the notes of what was served.

use super::{ExportError, Inner, Sender};
use crate::{
    notes::Note,
    reading::{Serving, out_of_order},
};
use bytes::BytesMut;
use futures_util::StreamExt;
use rehome_mailbox::{ErrorScope, FolderPath, ItemMeta, ListingScope, MailboxError, ReadEvent};
use rehome_wire::{
    canonical::CanonicalReport,
    frames::{self, FailureClass, Frame, ItemFailure, ItemHeader, ItemTrailer, ListedItem, ListingHead, ListingKind},
    uid_set::UidSet,
};
use std::collections::BTreeMap;

/// Frames are sent on when this many octets are together.
const PIECE: usize = 64 * 1024;

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

impl FrameSender<'_> {
    async fn send(&mut self, frame: &Frame) -> Result<(), ServeError> {
        frames::encode(frame, &mut self.octets);
        if self.octets.len() >= PIECE {
            self.flush().await
        } else {
            Ok(())
        }
    }

    async fn flush(&mut self) -> Result<(), ServeError> {
        if self.octets.is_empty() {
            return Ok(());
        }
        let piece = self.octets.split().freeze();
        self.sender.send(Ok(piece)).await.map_err(|_| ServeError::ReaderGone)
    }
}

pub(super) async fn send_listing(listing: rehome_mailbox::Listing, sender: &Sender) -> Result<(), ServeError> {
    let mut frames = FrameSender {
        octets: BytesMut::new(),
        sender,
    };
    let vanished = match &listing.scope {
        ListingScope::Whole => None,
        ListingScope::Changes { vanished } => Some(UidSet::from_ascending(vanished.iter().copied())),
    };
    let status = listing.status;
    frames
        .send(&Frame::Head(ListingHead {
            validity: status.uid_validity,
            uid_next: status.uid_next,
            exists: status.exists,
            mod_seq: status.highest_mod_seq,
            token: listing.token.map(|token| token.0.into()),
            kind: if vanished.is_some() {
                ListingKind::Changes
            } else {
                ListingKind::Full
            },
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
    let vanished_count = vanished.as_ref().map_or(0, |vanished| vanished.len() as u64);
    if let Some(vanished) = vanished {
        frames.send(&Frame::Vanished(vanished)).await?;
    }
    frames
        .send(&Frame::ListingEnd {
            items,
            vanished: vanished_count,
        })
        .await?;
    frames.flush().await
}

impl Inner {
    pub(super) async fn serve(
        &self,
        folder: &FolderPath,
        uid_validity: u32,
        uids: &UidSet,
        sender: &Sender,
    ) -> Result<(), ServeError> {
        let mut served = BTreeMap::new();
        let sent = self.send_items(folder, uids, sender, &mut served).await;
        // What was served is noted even where the reader went away in the middle: it may have used what it has.
        if !served.is_empty() {
            self.check_validity(folder, uid_validity).await?;
            self.with_notes(async |notes| notes.put(folder, uid_validity, &served).await)
                .await?;
        }
        let end = sent?;
        let mut frames = FrameSender {
            octets: BytesMut::new(),
            sender,
        };
        frames.send(&end).await?;
        frames.flush().await
    }

    /// Sends everything but the end frame, which it returns.
    async fn send_items(
        &self,
        folder: &FolderPath,
        uids: &UidSet,
        sender: &Sender,
        served: &mut BTreeMap<u32, Note>,
    ) -> Result<Frame, ServeError> {
        let uids: Vec<u32> = uids.iter().collect();
        let mut events = self.mailbox.read(folder, &uids).await.map_err(ExportError::Mailbox)?;
        let mut frames = FrameSender {
            octets: BytesMut::new(),
            sender,
        };
        let (mut items, mut gone, mut failed) = (0, 0, 0);
        let mut current: Option<Serving> = None;
        while let Some(event) = events.next().await {
            match (event.map_err(ExportError::Mailbox)?, current.take()) {
                (ReadEvent::Item(meta), None) => {
                    let ItemMeta {
                        uid,
                        flags,
                        received,
                        length_hint,
                    } = meta;
                    frames
                        .send(&Frame::Item(ItemHeader {
                            uid,
                            flags,
                            received,
                            length: length_hint,
                        }))
                        .await?;
                    current = Some(Serving::new(uid));
                }
                (ReadEvent::Octets(raw), Some(mut item)) => {
                    let mut rest: &[u8] = &raw;
                    while !rest.is_empty() {
                        let (taken, octets) = item.push(rest);
                        rest = &rest[taken..];
                        frames.send(&Frame::Chunk(octets)).await?;
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
                    frames
                        .send(&Frame::Trailer(ItemTrailer {
                            length,
                            digest,
                            line_ends_only,
                        }))
                        .await?;
                    served.insert(uid, Note { length, digest });
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
                    return Err(ExportError::Mailbox(out_of_order(folder)).into());
                }
            }
        }
        frames.flush().await?;
        Ok(Frame::BodyEnd { items, gone, failed })
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

//! Reading items of a mailbox in canonical form.

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use rehome_mailbox::{ErrorScope, FolderPath, FolderRef, Mailbox, MailboxError, ReadEvent, Retry};
use rehome_wire::{
    canonical::{CanonicalReport, Canonicalizer},
    digest::{Digest, Digester},
};
use std::collections::BTreeMap;

/// An item on its way into canonical form.
pub(crate) struct Serving {
    pub(crate) uid: u32,
    canonicalizer: Canonicalizer,
    digester: Digester,
}

impl Serving {
    pub(crate) fn new(uid: u32) -> Self {
        Self {
            uid,
            canonicalizer: Canonicalizer::new(),
            digester: Digester::new(),
        }
    }

    /// Takes octets off the front of `raw` and returns the canonical ones that came of them; again until `raw` is empty.
    pub(crate) fn take(&mut self, raw: &mut Bytes) -> Bytes {
        let octets = self.canonicalizer.take(raw);
        self.digester.update(&octets);
        octets
    }

    pub(crate) fn finish(mut self) -> (Bytes, CanonicalReport, Digest) {
        let mut octets = BytesMut::new();
        let report = self.canonicalizer.finish(&mut octets);
        self.digester.update(&octets);
        (octets.freeze(), report, self.digester.finish())
    }
}

/// A driver's stream of events that keeps no order.
pub(crate) fn out_of_order(folder: &FolderPath) -> MailboxError {
    MailboxError {
        what: format!("reading folder {folder}"),
        cause: "the driver's events are out of order".to_owned(),
        scope: ErrorScope::Folder,
        retry: Retry::After(60),
    }
}

/// What reading one item showed.
#[derive(Clone, Debug)]
pub(crate) enum ReadOutcome {
    /// Its canonical form.
    Octets { length: u64, digest: Digest },
    /// It is not there.
    Gone,
    /// It cannot be read.
    Failed(MailboxError),
}

/// Reads items and digests their canonical form; every uid has an outcome.
pub(crate) async fn read_digests(
    mailbox: &dyn Mailbox,
    folder: FolderRef<'_>,
    uids: &[u32],
) -> Result<BTreeMap<u32, ReadOutcome>, MailboxError> {
    let mut outcomes = BTreeMap::new();
    if uids.is_empty() {
        return Ok(outcomes);
    }
    let mut events = mailbox.read(folder, uids).await?;
    let mut current: Option<Serving> = None;
    while let Some(event) = events.next().await {
        match (event?, current.take()) {
            (ReadEvent::Item(meta), None) => current = Some(Serving::new(meta.uid)),
            (ReadEvent::Octets(mut raw), Some(mut item)) => {
                while !raw.is_empty() {
                    item.take(&mut raw);
                }
                current = Some(item);
            }
            (ReadEvent::End, Some(item)) => {
                let uid = item.uid;
                let (_, report, digest) = item.finish();
                outcomes.insert(
                    uid,
                    ReadOutcome::Octets {
                        length: report.length,
                        digest,
                    },
                );
            }
            (ReadEvent::Gone(uid), None) => {
                outcomes.insert(uid, ReadOutcome::Gone);
            }
            (ReadEvent::Failed { uid, error }, _) => {
                outcomes.insert(uid, ReadOutcome::Failed(error));
            }
            (ReadEvent::Item(_) | ReadEvent::Gone(_), Some(_)) | (ReadEvent::Octets(_) | ReadEvent::End, None) => {
                return Err(out_of_order(folder.path));
            }
        }
    }
    match uids.iter().find(|uid| !outcomes.contains_key(uid)) {
        None => Ok(outcomes),
        Some(uid) => Err(MailboxError {
            what: format!("reading folder {}", folder.path),
            cause: format!("the driver gave no answer for item {uid}"),
            scope: ErrorScope::Folder,
            retry: Retry::After(10),
        }),
    }
}

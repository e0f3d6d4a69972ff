//! Local delivery into a mailbox that is only reached by its driver: into a file of our own, then one append.

use crate::{
    Appended, Body, ErrorScope, FolderPath, FolderRef, ItemKey, Mailbox, MailboxError, NewItem, ReadEvent, Retry,
};
use bytes::BytesMut;
use futures_util::StreamExt;
use rehome_wire::{
    canonical::Canonicalizer,
    digest::{Digest, Digester},
    flags::Flags,
};
use std::{
    io,
    path::{Path, PathBuf},
};
use tokio::io::AsyncWriteExt;

/// Items that are read again when it is not known whether an append was done: those of the same second.
const LOOKED_AT: usize = 50;

/// A message on its way into one mailbox. Dropping it abandons it.
pub struct SpooledDelivery {
    spool: Spool,
    file: tokio::fs::File,
    canonicalizer: Canonicalizer,
    digester: Digester,
    length: u64,
    ready: BytesMut,
}

/// A message that is whole. Dropping it abandons it.
pub struct WholeSpooledDelivery {
    spool: Spool,
    digest: Digest,
    length: u64,
}

/// A file that is removed with its owner.
struct Spool(PathBuf);

impl Drop for Spool {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "a spooled delivery could not be removed");
        }
    }
}

fn spool_failed(what: &str, error: &io::Error) -> MailboxError {
    MailboxError {
        what: what.to_owned(),
        cause: error.to_string(),
        scope: ErrorScope::Endpoint,
        retry: Retry::After(60),
    }
}

impl SpooledDelivery {
    /// Begins a delivery whose octets wait in a file of mode 0600 in `folder`, which must be there.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn begin(folder: &Path) -> Result<Self, MailboxError> {
        let path = folder.join(uuid::Uuid::new_v4().simple().to_string());
        let file = tokio::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .await
            .map_err(|error| spool_failed("beginning a delivery", &error))?;
        Ok(Self {
            spool: Spool(path),
            file,
            canonicalizer: Canonicalizer::new(),
            digester: Digester::new(),
            length: 0,
            ready: BytesMut::new(),
        })
    }

    /// Adds octets of the message.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn write(&mut self, octets: &[u8]) -> Result<(), MailboxError> {
        self.canonicalizer.push(octets, &mut self.ready);
        self.put().await
    }

    async fn put(&mut self) -> Result<(), MailboxError> {
        self.digester.update(&self.ready);
        self.length += self.ready.len() as u64;
        self.file
            .write_all(&self.ready)
            .await
            .map_err(|error| spool_failed("writing a delivery", &error))?;
        self.ready.clear();
        Ok(())
    }

    /// The message is whole. It is durable only once it is published: until then its sender has it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn finish(mut self) -> Result<WholeSpooledDelivery, MailboxError> {
        let canonicalizer = std::mem::take(&mut self.canonicalizer);
        canonicalizer.finish(&mut self.ready);
        self.put().await?;
        self.file
            .flush()
            .await
            .map_err(|error| spool_failed("writing a delivery", &error))?;
        rehome_fault::step("mailbox.delivery_spooled");
        Ok(WholeSpooledDelivery {
            spool: self.spool,
            digest: self.digester.finish(),
            length: self.length,
        })
    }
}

impl WholeSpooledDelivery {
    /// Appends the message to the inbox; it is durable on success. Where the answer to the append is lost, the inbox is
    /// looked at on a new connection: a message of the same second and octets is this one, and delivered.
    ///
    /// # Errors
    /// When the mailbox refuses, or it cannot be told whether it took the message: the sender repeats it, and where the
    /// server takes the lost append after all, the message is there twice.
    pub async fn publish(self, mailbox: &dyn Mailbox) -> Result<(), MailboxError> {
        let inbox = FolderPath::inbox();
        let received = jiff::Timestamp::now().as_second();
        let item = NewItem {
            key: ItemKey {
                move_id: uuid::Uuid::new_v4().as_u128(),
                folder: 0,
                source_validity: 1,
                source_uid: 1,
            },
            uid: None,
            flags: Flags::default(),
            received,
            length: self.length,
            digest: self.digest,
            body: Body::Spooled(self.spool.0.clone()),
        };
        let lost = match mailbox.append(FolderRef::any(&inbox), vec![item]).await {
            Ok(answers) => match answers.into_iter().next() {
                Some(Appended::Uid { .. }) => {
                    rehome_fault::step("mailbox.delivery");
                    return Ok(());
                }
                Some(Appended::Refused(error)) => return Err(error),
                None => nothing_said(),
            },
            Err(error) => error,
        };
        mailbox.renew().await;
        match self.is_there(mailbox, &inbox, received).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(lost),
            Err(error) => {
                tracing::warn!(%error, "it cannot be told whether a lost append was done");
                Err(lost)
            }
        }
    }

    async fn is_there(&self, mailbox: &dyn Mailbox, inbox: &FolderPath, received: i64) -> Result<bool, MailboxError> {
        let listing = mailbox.list(inbox, None).await?;
        let candidates: Vec<u32> = listing
            .items
            .iter()
            .filter(|item| item.received == received)
            .map(|item| item.uid)
            .collect();
        // The newest ones: what was just appended is among them.
        let candidates = &candidates[candidates.len().saturating_sub(LOOKED_AT)..];
        if candidates.is_empty() {
            return Ok(false);
        }
        let mut events = mailbox
            .read(FolderRef::new(inbox, listing.status.uid_validity), candidates)
            .await?;
        let mut reading = Reading::default();
        while let Some(event) = events.next().await {
            match event? {
                ReadEvent::Item(_) | ReadEvent::Gone(_) | ReadEvent::Failed { .. } => reading = Reading::default(),
                ReadEvent::Octets(octets) => reading.take(&octets),
                ReadEvent::End => {
                    if std::mem::take(&mut reading).finish() == self.digest {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }
}

fn nothing_said() -> MailboxError {
    MailboxError {
        what: "delivering a message".to_owned(),
        cause: "the platform said nothing of it".to_owned(),
        scope: ErrorScope::Mailbox,
        retry: Retry::After(60),
    }
}

/// The canonical digest of octets as they are read.
#[derive(Default)]
struct Reading {
    canonicalizer: Canonicalizer,
    digester: Digester,
    ready: BytesMut,
}

impl Reading {
    fn take(&mut self, octets: &[u8]) {
        self.canonicalizer.push(octets, &mut self.ready);
        self.digester.update(&self.ready);
        self.ready.clear();
    }

    fn finish(mut self) -> Digest {
        self.canonicalizer.finish(&mut self.ready);
        self.digester.update(&self.ready);
        self.digester.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NewFolder, memory::MemoryMailbox};

    async fn whole(folder: &Path, octets: &[u8]) -> WholeSpooledDelivery {
        let mut delivery = SpooledDelivery::begin(folder).await.unwrap();
        for piece in octets.chunks(3) {
            delivery.write(piece).await.unwrap();
        }
        delivery.finish().await.unwrap()
    }

    fn files(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    #[tokio::test]
    async fn delivered_once_in_canonical_form() {
        let folder = tempfile::tempdir().unwrap();
        let mailbox = MemoryMailbox::new();
        let inbox = FolderPath::inbox();
        mailbox.create_folder(&inbox, &NewFolder::default()).await.unwrap();
        let delivery = whole(folder.path(), b"Subject: a\n\r\r\nb\r").await;
        assert_eq!(delivery.length, 15);
        assert_eq!(files(folder.path()), 1);
        delivery.publish(&mailbox).await.unwrap();
        assert_eq!(files(folder.path()), 0);
        let items = mailbox.list(&inbox, None).await.unwrap().items;
        assert_eq!(items.len(), 1);
        assert!(items[0].flags == Flags::default());
    }

    #[tokio::test]
    async fn a_lost_answer_is_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let mailbox = MemoryMailbox::new();
        let inbox = FolderPath::inbox();
        mailbox.create_folder(&inbox, &NewFolder::default()).await.unwrap();
        let delivery = whole(folder.path(), b"Subject: a\r\n\r\nb\r\n").await;
        let other = whole(folder.path(), b"Subject: other\r\n\r\n").await;
        let received = 1_700_000_000;
        let item = |delivery: &WholeSpooledDelivery, uid| NewItem {
            key: ItemKey {
                move_id: 1,
                folder: 0,
                source_validity: 1,
                source_uid: uid,
            },
            uid: None,
            flags: Flags::default(),
            received,
            length: delivery.length,
            digest: delivery.digest,
            body: Body::Spooled(delivery.spool.0.clone()),
        };
        mailbox
            .append(FolderRef::any(&inbox), vec![item(&other, 1)])
            .await
            .unwrap();
        assert!(!delivery.is_there(&mailbox, &inbox, received).await.unwrap());
        mailbox
            .append(FolderRef::any(&inbox), vec![item(&delivery, 2)])
            .await
            .unwrap();
        assert!(delivery.is_there(&mailbox, &inbox, received).await.unwrap());
        assert!(!delivery.is_there(&mailbox, &inbox, received + 1).await.unwrap());
        drop((delivery, other));
        assert_eq!(files(folder.path()), 0);
    }
}

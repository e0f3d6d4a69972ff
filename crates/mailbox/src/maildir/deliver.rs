//! Local delivery into a Maildir: to `tmp`, then to `new`.
//!
//! One message for several mailboxes: [`Delivery::finish_tmp`] all of them before the first
//! [`FinishedDelivery::publish`], so that a full disk refuses the message as a whole.

use super::error::{broken_task, failed};
use super::folder;
use super::item_name;
use crate::MailboxError;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::AsyncWriteExt;

/// A name that no other delivery has: time, process, count, host.
pub(super) fn unique_stem() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = jiff::Timestamp::now();
    let host: String = super::dotlock::host_name()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))
        .collect();
    let (seconds, micros) = (now.as_second(), now.subsec_microsecond());
    let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    format!(
        "{seconds}.M{micros}P{process}Q{count}R{}.{host}",
        uuid::Uuid::new_v4().simple()
    )
}

/// A file in `tmp`; removed on drop unless it was published.
struct Temporary {
    tmp: OwnedFd,
    new: OwnedFd,
    stem: String,
    there: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.there
            && let Err(error) = folder::remove_file(self.tmp.as_fd(), self.stem.as_bytes())
        {
            tracing::warn!(%error, "an abandoned delivery could not be removed from tmp");
        }
    }
}

/// A message on its way into one mailbox. Dropping it abandons it.
pub struct Delivery {
    temporary: Temporary,
    file: tokio::fs::File,
    size: u64,
    line_feeds_alone: u64,
    after_cr: bool,
}

/// A message that is whole and durable in `tmp`. Dropping it abandons it.
pub struct FinishedDelivery {
    temporary: Temporary,
    size: u64,
    virtual_size: u64,
}

impl Delivery {
    /// Begins a delivery into the inbox of the Maildir at `root`, which must be there; `tmp`, `new` and `cur` are made
    /// if missing.
    pub async fn begin(root: &Path) -> Result<Self, MailboxError> {
        let what = "beginning a delivery";
        let path = root.to_owned();
        let opened = tokio::task::spawn_blocking(move || open(&path))
            .await
            .map_err(|error| broken_task(what, &error))?;
        let (temporary, file) = opened.map_err(|error| failed(what, error))?;
        Ok(Self {
            temporary,
            file: tokio::fs::File::from_std(file),
            size: 0,
            line_feeds_alone: 0,
            after_cr: false,
        })
    }

    /// Writes the next octets, as they are to lie in the file.
    pub async fn write(&mut self, octets: &[u8]) -> Result<(), MailboxError> {
        for octet in octets {
            if *octet == b'\n' && !self.after_cr {
                self.line_feeds_alone += 1;
            }
            self.after_cr = *octet == b'\r';
        }
        self.size += octets.len() as u64;
        self.file
            .write_all(octets)
            .await
            .map_err(|error| failed("writing a delivery", error))
    }

    /// Makes the message durable in `tmp`; nobody sees it yet.
    pub async fn finish_tmp(mut self) -> Result<FinishedDelivery, MailboxError> {
        let synced = async {
            self.file.flush().await?;
            self.file.sync_all().await
        };
        synced.await.map_err(|error| failed("syncing a delivery", error))?;
        rehome_fault::step("maildir.delivery_tmp");
        Ok(FinishedDelivery {
            temporary: self.temporary,
            size: self.size,
            virtual_size: self.size + self.line_feeds_alone,
        })
    }

    /// Gives the delivery up; nothing stays.
    pub fn abort(self) {}
}

impl FinishedDelivery {
    /// Moves the message to `new`, durably. After this it is the mailbox's.
    pub async fn publish(mut self) -> Result<(), MailboxError> {
        let what = "publishing a delivery";
        let renamed = tokio::task::spawn_blocking(move || {
            let stem = self.temporary.stem.as_bytes();
            let name = item_name::base(stem, self.size, self.virtual_size);
            rustix::fs::renameat(&self.temporary.tmp, stem, &self.temporary.new, name)?;
            self.temporary.there = false;
            rustix::fs::fsync(&self.temporary.new)?;
            rehome_fault::step("maildir.delivery");
            Ok::<(), io::Error>(())
        });
        renamed
            .await
            .map_err(|error| broken_task(what, &error))?
            .map_err(|error| failed(what, error))
    }

    /// Gives the delivery up; nothing stays.
    pub fn abort(self) {}
}

fn open(root: &Path) -> io::Result<(Temporary, std::fs::File)> {
    let root = super::open_root(root)?;
    // A Maildir without `cur` is no folder to others.
    folder::make_directory(root.as_fd(), b"cur")?;
    let new = folder::make_directory(root.as_fd(), b"new")?;
    let tmp = folder::make_directory(root.as_fd(), b"tmp")?;
    let stem = unique_stem();
    let file = folder::create_file(tmp.as_fd(), stem.as_bytes())?;
    Ok((
        Temporary {
            tmp,
            new,
            stem,
            there: true,
        },
        file,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FolderPath, Mailbox, maildir::MaildirMailbox};

    fn names(root: &Path, sub: &str) -> Vec<String> {
        let entries = std::fs::read_dir(root.join(sub)).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[tokio::test]
    async fn delivered_whole_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let mut delivery = Delivery::begin(root.path()).await.unwrap();
        delivery.write(b"Subject: a\r\n\r\nb\n").await.unwrap();
        delivery.write(b"c\n").await.unwrap();
        let finished = delivery.finish_tmp().await.unwrap();
        assert!(names(root.path(), "new").is_empty());
        let mut abandoned = Delivery::begin(root.path()).await.unwrap();
        abandoned.write(b"x").await.unwrap();
        abandoned.abort();
        finished.publish().await.unwrap();
        let new = names(root.path(), "new");
        assert_eq!(new.len(), 1);
        assert!(new[0].ends_with(",S=18,W=20"), "{}", new[0]);
        assert!(names(root.path(), "tmp").is_empty());
        let mailbox = MaildirMailbox::open(root.path()).await.unwrap();
        let listing = mailbox.list(&FolderPath::inbox(), None).await.unwrap();
        assert_eq!(listing.items.len(), 1);
        assert_eq!(names(root.path(), "new"), new, "listing moves nothing");
    }

    #[tokio::test]
    async fn there_must_be_a_mailbox() {
        let root = tempfile::tempdir().unwrap();
        assert!(Delivery::begin(&root.path().join("nobody")).await.is_err());
    }
}

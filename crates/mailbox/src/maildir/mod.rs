//! Maildir++ as Dovecot serves it.
//!
//! A mailbox is a directory: `cur`, `new` and `tmp` are the inbox, a directory `.A.B` is the folder `A/B` (see `names`
//! for what such a name may hold). Uids are in Dovecot's `dovecot-uidlist`, keywords in `dovecot-keywords`, and both
//! change only under Dovecot's own dotlocks, by new file and rename. The received time is the file's mtime, flags are
//! letters of its name, lengths are measured and never taken from names. No symbolic link below the root is followed.
//!
//! Whole listings only: a Maildir numbers no changes.

mod append;
mod change;
mod dotlock;
mod error;
mod folder;
mod item_name;
mod keywords;
mod listing;
mod names;
mod read;
mod sidecar;
#[cfg(test)]
mod tests;
mod tree;
mod uidlist;
mod utf7;
mod validity;

pub mod adopt;
pub mod deliver;
pub mod place;

use crate::{
    Appended, Capabilities, ChangeToken, ErrorScope, Folder, FolderPath, FolderStatus, Listing, Mailbox, MailboxError,
    NewFolder, NewItem, ReadEvent, Retry, Uid,
};
use append::{Job, Source};
use async_trait::async_trait;
use error::{broken_task, failed, refused};
use folder::FolderDirectory;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use rehome_wire::flags::Flags;
use rustix::fs::{CWD, Mode, OFlags};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use tree::Tree;
use validity::Validities;

/// Items of one append that share one rewrite of the uid list and one sync of the folder.
const APPEND_BATCH: usize = 256;
/// Pieces of octets (64 KiB each) read ahead of the reader.
const READ_AHEAD: usize = 8;

/// A mailbox in a Maildir.
#[derive(Clone)]
pub struct MaildirMailbox {
    inner: Arc<Inner>,
}

struct Inner {
    root: OwnedFd,
    validities: Validities,
}

impl Inner {
    fn tree(&self) -> Tree<'_> {
        Tree {
            root: self.root.as_fd(),
            validities: &self.validities,
        }
    }

    fn folder(&self, path: &FolderPath) -> Result<FolderDirectory, MailboxError> {
        FolderDirectory::existing(self.root.as_fd(), path)
    }
}

/// Opens a Maildir's root. Links on the way to it are the administrator's.
fn open_root(root: &Path) -> Result<OwnedFd, rustix::io::Errno> {
    rustix::fs::openat(
        CWD,
        root,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

impl MaildirMailbox {
    /// Opens the mailbox at `root`, which must be a directory. An empty directory is a mailbox without an inbox, until
    /// one is created. The mailbox stays the same one if the directory is renamed.
    pub async fn open(root: &Path) -> Result<Self, MailboxError> {
        let what = "opening a Maildir";
        let path = root.to_owned();
        let opened = tokio::task::spawn_blocking(move || open_root(&path)).await;
        let root = opened.map_err(|error| broken_task(what, &error))?.map_err(|error| {
            let error = failed(what, error);
            MailboxError {
                scope: error.scope.max(ErrorScope::Mailbox),
                ..error
            }
        })?;
        Ok(Self {
            inner: Arc::new(Inner {
                root,
                validities: Validities::default(),
            }),
        })
    }

    /// Does file work on a thread that may block.
    async fn blocking<T, F>(&self, what: &'static str, work: F) -> Result<T, MailboxError>
    where
        T: Send + 'static,
        F: FnOnce(&Inner) -> Result<T, MailboxError> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.map_err(|error| broken_task(what, &error))?
    }
}

#[async_trait]
impl Mailbox for MaildirMailbox {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            append_once: true,
            given_uids: true,
            copy: true,
            changes: false,
            keywords: true,
            max_item_length: None,
            append_batch: APPEND_BATCH,
        }
    }

    async fn folders(&self) -> Result<Vec<Folder>, MailboxError> {
        self.blocking("listing folders", |inner| inner.tree().folders()).await
    }

    async fn list(&self, folder: &FolderPath, _since: Option<&ChangeToken>) -> Result<Listing, MailboxError> {
        let folder = folder.clone();
        self.blocking("listing items", move |inner| {
            listing::list(&inner.folder(&folder)?, &inner.validities)
        })
        .await
    }

    async fn uid_validity(&self, folder: &FolderPath) -> Result<u32, MailboxError> {
        let folder = folder.clone();
        self.blocking("reading a folder's UIDVALIDITY", move |inner| {
            let folder = inner.folder(&folder)?;
            match folder.read_uidlist()? {
                Some(list) => Ok(list.uid_validity),
                None => Ok(listing::settle(&folder, &inner.validities)?.list.uid_validity),
            }
        })
        .await
    }

    async fn read<'a>(
        &'a self,
        folder: &FolderPath,
        uids: &[Uid],
    ) -> Result<BoxStream<'a, Result<ReadEvent, MailboxError>>, MailboxError> {
        let path = folder.clone();
        let folder = self
            .blocking("opening a folder", move |inner| inner.folder(&path))
            .await?;
        let inner = Arc::clone(&self.inner);
        let uids = uids.to_vec();
        let (sender, receiver) = tokio::sync::mpsc::channel(READ_AHEAD);
        // The task ends with the stream: its next piece finds no receiver.
        let task = tokio::task::spawn_blocking(move || read::read(&folder, &inner.validities, &uids, &sender));
        let events = futures_util::stream::unfold((receiver, Some(task)), |(mut receiver, mut task)| async move {
            if let Some(event) = receiver.recv().await {
                return Some((event, (receiver, task)));
            }
            // A task that broke off must not look like an answer to every uid.
            let error = task.take()?.await.err()?;
            Some((Err(broken_task("reading items", &error)), (receiver, None)))
        });
        Ok(events.boxed())
    }

    async fn create_folder(&self, folder: &FolderPath, new: &NewFolder) -> Result<FolderStatus, MailboxError> {
        let (folder, new) = (folder.clone(), new.clone());
        self.blocking("creating a folder", move |inner| inner.tree().create(&folder, &new))
            .await
    }

    async fn rename_folder(&self, from: &FolderPath, to: &FolderPath) -> Result<(), MailboxError> {
        let (from, to) = (from.clone(), to.clone());
        self.blocking("renaming a folder", move |inner| inner.tree().rename(&from, &to))
            .await
    }

    async fn remove_folder(&self, folder: &FolderPath) -> Result<(), MailboxError> {
        let folder = folder.clone();
        self.blocking("removing a folder", move |inner| inner.tree().remove(&folder))
            .await
    }

    async fn subscribe(&self, folder: &FolderPath, subscribed: bool) -> Result<(), MailboxError> {
        let what = format!("subscribing to folder {folder}");
        let name =
            names::directory_of(folder).ok_or_else(|| refused(what, "the path has no names", ErrorScope::Folder))?;
        self.blocking("subscribing", move |inner| {
            sidecar::subscribe(inner.root.as_fd(), &[(&name.directory, subscribed)])
        })
        .await
    }

    async fn append(&self, folder: &FolderPath, items: Vec<NewItem>) -> Result<Vec<Appended>, MailboxError> {
        let folder = folder.clone();
        self.blocking("appending", move |inner| {
            let folder = inner.folder(&folder)?;
            let jobs: Vec<Job> = items
                .into_iter()
                .map(|item| Job {
                    item,
                    source: Source::Body,
                })
                .collect();
            append_in_batches(&folder, inner, &jobs)
        })
        .await
    }

    async fn copy(
        &self,
        items: &[(FolderPath, Uid)],
        folder: &FolderPath,
        keys: &[NewItem],
    ) -> Result<Vec<Appended>, MailboxError> {
        let (items, folder, keys) = (items.to_vec(), folder.clone(), keys.to_vec());
        self.blocking("copying", move |inner| copy(inner, &items, &folder, keys))
            .await
    }

    async fn set_flags(
        &self,
        folder: &FolderPath,
        changes: &[(Uid, Flags)],
    ) -> Result<Vec<(Uid, Vec<String>)>, MailboxError> {
        let (folder, changes) = (folder.clone(), changes.to_vec());
        self.blocking("setting flags", move |inner| {
            change::set_flags(&inner.folder(&folder)?, &inner.validities, &changes)
        })
        .await
    }

    async fn remove(&self, folder: &FolderPath, uids: &[Uid]) -> Result<(), MailboxError> {
        let (folder, uids) = (folder.clone(), uids.to_vec());
        self.blocking("removing items", move |inner| {
            change::remove(&inner.folder(&folder)?, &inner.validities, &uids)
        })
        .await
    }
}

fn append_in_batches(folder: &FolderDirectory, inner: &Inner, jobs: &[Job]) -> Result<Vec<Appended>, MailboxError> {
    let mut answers = Vec::with_capacity(jobs.len());
    for batch in jobs.chunks(APPEND_BATCH) {
        answers.extend(append::append(folder, &inner.validities, batch)?);
    }
    Ok(answers)
}

fn copy(
    inner: &Inner,
    items: &[(FolderPath, Uid)],
    folder: &FolderPath,
    keys: Vec<NewItem>,
) -> Result<Vec<Appended>, MailboxError> {
    if items.len() != keys.len() {
        return Err(refused(
            "copying",
            "there is not one new item for each source",
            ErrorScope::Folder,
        ));
    }
    let target = inner.folder(folder)?;
    let mut opened = HashMap::new();
    let mut jobs = Vec::with_capacity(keys.len());
    for ((path, uid), item) in items.iter().zip(keys) {
        if !opened.contains_key(path) {
            let from = Arc::new(inner.folder(path)?);
            let settled = listing::settle(&from, &inner.validities)?;
            opened.insert(path.clone(), (from, settled));
        }
        let source = opened.get(path).and_then(|(from, settled)| {
            let found = settled.present.get(uid)?.clone();
            Some(Source::File {
                folder: Arc::clone(from),
                found,
            })
        });
        let gone = || {
            Source::None(MailboxError {
                what: format!("copying item {uid} of folder {path}"),
                cause: "the item is not there any more".to_owned(),
                scope: ErrorScope::Item,
                retry: Retry::Now,
            })
        };
        jobs.push(Job {
            item,
            source: source.unwrap_or_else(gone),
        });
    }
    append_in_batches(&target, inner, &jobs)
}

//! Maildir++ as Dovecot serves it.
//!
//! A mailbox is a directory: `cur`, `new` and `tmp` are the inbox, a directory `.A.B` is the folder `A/B` (see `names`
//! for what such a name may hold). Uids are in Dovecot's `dovecot-uidlist`, keywords in `dovecot-keywords`, and both
//! change only under Dovecot's own dotlocks, by new file and rename. The received time is the file's mtime, flags are
//! letters of its name, lengths are measured and never taken from names. No symbolic link below the root is followed.
//!
//! Whole listings only: a Maildir numbers no changes. What was read of a folder is remembered while it has not changed
//! (see `cache`).

mod append;
mod cache;
mod change;
mod dotlock;
mod error;
mod folder;
mod item_name;
mod keywords;
mod listing;
mod names;
mod present;
mod read;
mod sidecar;
#[cfg(test)]
mod tests;
mod tree;
mod uidlist;
mod validity;
mod write;

pub mod adopt;
pub mod deliver;
#[doc(hidden)]
pub mod fuzz;
pub mod place;

use crate::{
    Appended, Capabilities, ChangeToken, ErrorScope, Folder, FolderPath, FolderRef, FolderStatus, Listing, Mailbox,
    MailboxError, NewFolder, NewItem, ReadEvent, Retry, Uid,
};
use append::{Job, Source};
use async_trait::async_trait;
use cache::Caches;
use error::{broken_task, failed, refused};
use folder::FolderDirectory;
use futures_util::stream::BoxStream;
use rehome_wire::flags::Flags;
use rustix::fs::{CWD, Mode, OFlags};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use tree::Tree;
use validity::Validities;

/// Items of one append that share one change of the uid list and one sync of the folder.
const APPEND_BATCH: usize = 256;
/// Folders that are written at once: their syncs share the disk's journal.
const FOLDERS_AT_ONCE: usize = 4;

/// A mailbox in a Maildir.
#[derive(Clone)]
pub struct MaildirMailbox {
    inner: Arc<Inner>,
}

struct Inner {
    root: OwnedFd,
    validities: Arc<Validities>,
    caches: Caches,
}

impl Inner {
    fn tree(&self) -> Tree<'_> {
        Tree {
            root: self.root.as_fd(),
            validities: &self.validities,
            caches: &self.caches,
        }
    }

    fn folder(&self, path: &FolderPath) -> Result<FolderDirectory, MailboxError> {
        FolderDirectory::existing(self.root.as_fd(), &self.caches, path)
    }
}

/// A [`FolderRef`] that travels to another thread.
struct At {
    path: FolderPath,
    uid_validity: Option<u32>,
}

impl At {
    fn new(folder: FolderRef<'_>) -> Self {
        Self {
            path: folder.path.clone(),
            uid_validity: folder.uid_validity,
        }
    }

    fn folder(&self) -> FolderRef<'_> {
        FolderRef {
            path: &self.path,
            uid_validity: self.uid_validity,
        }
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
                validities: Arc::default(),
                caches: Caches::default(),
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
            folders_at_once: FOLDERS_AT_ONCE,
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

    async fn read<'a>(
        &'a self,
        folder: FolderRef<'_>,
        uids: &[Uid],
    ) -> Result<BoxStream<'a, Result<ReadEvent, MailboxError>>, MailboxError> {
        let (at, asked) = (At::new(folder), uids.to_vec());
        let (start, uids) = self
            .blocking("opening a folder", move |inner| {
                let start = read::start(inner.folder(&at.path)?, &inner.validities, at.folder(), &asked)?;
                Ok((start, asked))
            })
            .await?;
        Ok(read::stream(start, Arc::clone(&self.inner.validities), uids))
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

    async fn append(&self, folder: FolderRef<'_>, items: Vec<NewItem>) -> Result<Vec<Appended>, MailboxError> {
        let at = At::new(folder);
        self.blocking("appending", move |inner| {
            let folder = inner.folder(&at.path)?;
            let jobs: Vec<Job> = items
                .into_iter()
                .map(|item| Job {
                    item,
                    source: Source::Body,
                })
                .collect();
            append_in_batches(&folder, inner, &at, &jobs)
        })
        .await
    }

    async fn copy(
        &self,
        from: FolderRef<'_>,
        uids: &[Uid],
        folder: FolderRef<'_>,
        items: &[NewItem],
    ) -> Result<Vec<Appended>, MailboxError> {
        let (from, uids) = (At::new(from), uids.to_vec());
        let (at, items) = (At::new(folder), items.to_vec());
        self.blocking("copying", move |inner| copy(inner, &from, &uids, &at, items))
            .await
    }

    async fn set_flags(
        &self,
        folder: FolderRef<'_>,
        changes: &[(Uid, Flags)],
    ) -> Result<Vec<(Uid, Vec<String>)>, MailboxError> {
        let (at, changes) = (At::new(folder), changes.to_vec());
        self.blocking("setting flags", move |inner| {
            change::set_flags(&inner.folder(&at.path)?, &inner.validities, at.folder(), &changes)
        })
        .await
    }

    async fn remove(&self, folder: FolderRef<'_>, uids: &[Uid]) -> Result<(), MailboxError> {
        let (at, uids) = (At::new(folder), uids.to_vec());
        self.blocking("removing items", move |inner| {
            change::remove(&inner.folder(&at.path)?, &inner.validities, at.folder(), &uids)
        })
        .await
    }
}

fn append_in_batches(
    folder: &FolderDirectory,
    inner: &Inner,
    at: &At,
    jobs: &[Job],
) -> Result<Vec<Appended>, MailboxError> {
    let mut answers = Vec::with_capacity(jobs.len());
    for batch in jobs.chunks(APPEND_BATCH) {
        answers.extend(append::append(folder, &inner.validities, at.folder(), batch)?);
    }
    Ok(answers)
}

fn copy(inner: &Inner, from: &At, uids: &[Uid], to: &At, items: Vec<NewItem>) -> Result<Vec<Appended>, MailboxError> {
    if uids.len() != items.len() {
        return Err(refused(
            "copying",
            "there is not one new item for each source",
            ErrorScope::Folder,
        ));
    }
    let target = inner.folder(&to.path)?;
    let source = Arc::new(inner.folder(&from.path)?);
    let settled = listing::settle(&source, &inner.validities)?;
    from.folder().check(settled.list.uid_validity)?;
    let jobs: Vec<Job> = uids
        .iter()
        .zip(items)
        .map(|(uid, item)| {
            let source = match settled.found(*uid) {
                Some(found) => Source::File {
                    folder: Arc::clone(&source),
                    found,
                },
                None => Source::None(MailboxError {
                    what: format!("copying item {uid} of folder {}", from.path),
                    cause: "the item is not there any more".to_owned(),
                    scope: ErrorScope::Item,
                    retry: Retry::Now,
                }),
            };
            Job { item, source }
        })
        .collect();
    append_in_batches(&target, inner, to, &jobs)
}

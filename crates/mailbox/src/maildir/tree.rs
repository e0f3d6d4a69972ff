//! The folders of a mailbox.

use super::cache::Caches;
use super::change::remove_tree;
use super::error::{failed, missing, refused};
use super::folder::{self, FolderDirectory, create_file, make_directory, read_small};
use super::listing::settle;
use super::names;
use super::sidecar::{self, Subscriptions};
use super::uidlist::{self, Uidlist};
use super::validity::Validities;
use crate::{ErrorScope, Folder, FolderIdentity, FolderPath, FolderStatus, MailboxError, NewFolder, SpecialUse};
use rustix::fs::{FileType, RenameFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::os::fd::{AsFd, BorrowedFd};

/// Holds the full name of a folder whose directory could not.
const PATH_FILE: &str = "rehome-path";
/// Longest full name, in octets.
const MAX_FULL_NAME: u64 = 1 << 20;
/// What removed folders are called in `tmp` until all of them is gone.
const REMOVED: &str = "rehome-removed-";

/// A mailbox's root.
pub(super) struct Tree<'a> {
    pub(super) root: BorrowedFd<'a>,
    pub(super) validities: &'a Validities,
    pub(super) caches: &'a Caches,
}

impl Tree<'_> {
    /// The directories that are folders, by path; the inbox is `.`.
    pub(super) fn directories(&self) -> Result<BTreeMap<FolderPath, Vec<u8>>, MailboxError> {
        let what = "listing folders";
        let mut found = BTreeMap::new();
        let mut names = vec![b".".to_vec()];
        for (name, kind) in folder::entries(self.root).map_err(|error| failed(what, error))? {
            match kind {
                FileType::Directory if name.starts_with(b".") => names.push(name),
                FileType::Symlink if name.starts_with(b".") => {
                    tracing::warn!(name = %String::from_utf8_lossy(&name), "a folder that is a link is not followed");
                }
                _ => {}
            }
        }
        for name in names {
            let full = if names::may_be_long(&name) {
                self.full_name(&name)?
            } else {
                None
            };
            let Some(path) = names::path_of(&name, full.as_deref()) else {
                continue;
            };
            if self.is_folder(&name).map_err(|error| failed(what, error))? {
                found.insert(path, name);
            }
        }
        Ok(found)
    }

    fn is_folder(&self, name: &[u8]) -> Result<bool, Errno> {
        let cur =
            folder::open_directory(self.root, name).and_then(|folder| folder::open_directory(folder.as_fd(), b"cur"));
        match cur {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(Errno::LOOP | Errno::NOTDIR) => {
                tracing::warn!(name = %String::from_utf8_lossy(name), "a folder whose cur is a link is passed over");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn full_name(&self, name: &[u8]) -> Result<Option<Vec<u8>>, MailboxError> {
        let what = "reading a folder's full name";
        let directory = folder::open_directory(self.root, name).map_err(|error| failed(what, error))?;
        read_small(directory.as_fd(), PATH_FILE, MAX_FULL_NAME).map_err(|error| failed(what, error))
    }

    /// All folders, parents (implied ones too) before children, the inbox first.
    pub(super) fn folders(&self) -> Result<Vec<Folder>, MailboxError> {
        let directories = self.directories()?;
        let subscriptions = Subscriptions::read(self.root)?;
        let uses = sidecar::special_uses(self.root)?;
        let mut paths: BTreeSet<Vec<String>> = BTreeSet::new();
        for path in directories.keys() {
            paths.extend((1..=path.0.len()).map(|length| path.0[..length].to_vec()));
        }
        let mut folders = Vec::with_capacity(paths.len());
        for path in paths.into_iter().map(FolderPath) {
            let Some(directory) = directories.get(&path) else {
                folders.push(implied(path));
                continue;
            };
            // Removed since it was listed: so it is not there.
            let Some(opened) = FolderDirectory::open_named(self.root, self.caches, directory, &path)? else {
                continue;
            };
            let status = settle(&opened, self.validities)?.status();
            self.validities.note(status.uid_validity);
            folders.push(Folder {
                special_use: uses.get(directory).copied(),
                subscribed: subscriptions.contains(directory),
                selectable: true,
                status: Some(status),
                mailbox_id: None,
                path,
            });
        }
        folders.sort_by_key(|folder| !folder.path.is_inbox());
        Ok(folders)
    }

    /// Makes a folder; see the contract. A directory without `cur`, as a crash leaves it, is completed.
    pub(super) fn create(&self, path: &FolderPath, new: &NewFolder) -> Result<FolderStatus, MailboxError> {
        let what = format!("creating folder {path}");
        let name = names::directory_of(path)
            .ok_or_else(|| refused(what.as_str(), "the path has no names", ErrorScope::Folder))?;
        if new.identity.is_some_and(|identity| identity.uid_validity == 0) {
            return Err(refused(what, "UIDVALIDITY 0 cannot be given", ErrorScope::Folder));
        }
        if FolderDirectory::open_named(self.root, self.caches, &name.directory, path)?.is_none() {
            let list = match new.identity {
                Some(identity) => Uidlist::new(identity.uid_validity, identity.uid_next.max(1)),
                None => {
                    self.note_validities()?;
                    Uidlist::new(self.validities.next(), 1)
                }
            };
            self.make(&name, &list).map_err(|error| failed(what, error))?;
        }
        if new.subscribed {
            sidecar::subscribe(self.root, &[(&name.directory, true)])?;
        }
        if new.special_use.is_some() {
            sidecar::set_special_uses(self.root, &[(&name.directory, new.special_use)])?;
        }
        let folder = FolderDirectory::existing(self.root, self.caches, path)?;
        let mut status = settle(&folder, self.validities)?.status();
        if let Some(identity) = new.identity
            && identity.uid_validity == status.uid_validity
            && identity.uid_next > status.uid_next
        {
            raise_uid_next(&folder, identity)?;
            status = settle(&folder, self.validities)?.status();
        }
        self.validities.note(status.uid_validity);
        Ok(status)
    }

    /// `cur` comes last: before it, the directory is no folder.
    fn make(&self, name: &names::DirectoryName, list: &Uidlist) -> std::io::Result<()> {
        let directory = make_directory(self.root, &name.directory)?;
        let directory = directory.as_fd();
        make_directory(directory, b"new")?;
        make_directory(directory, b"tmp")?;
        if name.directory != b"." {
            match create_file(directory, b"maildirfolder") {
                Ok(_) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(full) = &name.full {
            folder::replace_file(directory, PATH_FILE, full)?;
        }
        folder::replace_file(directory, uidlist::FILE, &list.render())?;
        make_directory(directory, b"cur")?;
        rustix::fs::fsync(directory)?;
        rustix::fs::fsync(self.root)?;
        rehome_fault::step("maildir.folder");
        Ok(())
    }

    fn note_validities(&self) -> Result<(), MailboxError> {
        for (path, directory) in self.directories()? {
            if let Some(folder) = FolderDirectory::open_named(self.root, self.caches, &directory, &path)?
                && let Some(list) = folder.read_uidlist()?
            {
                self.validities.note(list.uid_validity);
            }
        }
        Ok(())
    }

    /// Renames a folder with all below it, parents first. Called again after a crash in the middle it goes on.
    pub(super) fn rename(&self, from: &FolderPath, to: &FolderPath) -> Result<(), MailboxError> {
        let what = format!("renaming folder {from} to {to}");
        if from.is_inbox() || to.is_inbox() {
            return Err(refused(
                what,
                "the inbox is never renamed or replaced",
                ErrorScope::Folder,
            ));
        }
        if to.0.is_empty() || from == to || to.0.starts_with(&from.0) {
            return Err(refused(
                what,
                "a folder cannot be moved into itself or to no name",
                ErrorScope::Folder,
            ));
        }
        let directories = self.directories()?;
        let moves = planned_moves(&directories, from, to);
        if moves.is_empty() {
            return if directories.contains_key(to) {
                Ok(())
            } else {
                Err(missing(from))
            };
        }
        let taken: HashSet<&[u8]> = directories.values().map(Vec::as_slice).collect();
        if let Some(move_) = moves.iter().find(|move_| taken.contains(move_.to.directory.as_slice())) {
            return Err(refused(
                what,
                format!("folder {} is there already", move_.path),
                ErrorScope::Folder,
            ));
        }
        for move_ in &moves {
            self.apply(move_).map_err(|error| failed(what.as_str(), error))?;
        }
        self.rename_sidecars(&moves)
    }

    fn apply(&self, move_: &Move) -> std::io::Result<()> {
        if let Some(full) = &move_.to.full {
            let directory = folder::open_directory(self.root, &move_.from)?;
            folder::replace_file(directory.as_fd(), PATH_FILE, full)?;
        }
        rustix::fs::renameat_with(
            self.root,
            &move_.from,
            self.root,
            &move_.to.directory,
            RenameFlags::NOREPLACE,
        )?;
        rustix::fs::fsync(self.root)?;
        rehome_fault::step("maildir.rename");
        Ok(())
    }

    fn rename_sidecars(&self, moves: &[Move]) -> Result<(), MailboxError> {
        let subscriptions = Subscriptions::read(self.root)?;
        let uses = sidecar::special_uses(self.root)?;
        let mut changed: Vec<(&[u8], bool)> = Vec::new();
        let mut changed_uses: Vec<(&[u8], Option<SpecialUse>)> = Vec::new();
        for move_ in moves {
            if subscriptions.contains(&move_.from) {
                changed.extend([(move_.from.as_slice(), false), (move_.to.directory.as_slice(), true)]);
            }
            if let Some(special_use) = uses.get(&move_.from) {
                changed_uses.extend([
                    (move_.from.as_slice(), None),
                    (move_.to.directory.as_slice(), Some(*special_use)),
                ]);
            }
        }
        if !changed.is_empty() {
            sidecar::subscribe(self.root, &changed)?;
        }
        if !changed_uses.is_empty() {
            sidecar::set_special_uses(self.root, &changed_uses)?;
        }
        Ok(())
    }

    /// Removes a folder with what it holds; children stay. It leaves its place at once and is then cleared away.
    pub(super) fn remove(&self, path: &FolderPath) -> Result<(), MailboxError> {
        let what = format!("removing folder {path}");
        if path.is_inbox() {
            return Err(refused(what, "the inbox is never removed", ErrorScope::Folder));
        }
        let Some(name) = names::directory_of(path) else {
            return Ok(());
        };
        sidecar::subscribe(self.root, &[(&name.directory, false)])?;
        sidecar::set_special_uses(self.root, &[(&name.directory, None)])?;
        self.clear_away(&name.directory).map_err(|error| failed(what, error))
    }

    fn clear_away(&self, directory: &[u8]) -> Result<(), Errno> {
        let tmp = make_directory(self.root, b"tmp")?;
        let aside = format!("{REMOVED}{}", uuid::Uuid::new_v4().simple());
        match rustix::fs::renameat(self.root, directory, &tmp, aside) {
            Ok(()) => {
                rustix::fs::fsync(self.root)?;
                rehome_fault::step("maildir.folder_removed");
            }
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        // What an earlier run left is cleared with it.
        for (name, kind) in folder::entries(tmp.as_fd())? {
            if kind == FileType::Directory && name.starts_with(REMOVED.as_bytes()) {
                remove_tree(tmp.as_fd(), &name)?;
            }
        }
        Ok(())
    }
}

fn implied(path: FolderPath) -> Folder {
    Folder {
        path,
        special_use: None,
        subscribed: false,
        selectable: false,
        status: None,
        mailbox_id: None,
    }
}

/// One directory's part of a rename.
struct Move {
    path: FolderPath,
    from: Vec<u8>,
    to: names::DirectoryName,
}

fn planned_moves(directories: &BTreeMap<FolderPath, Vec<u8>>, from: &FolderPath, to: &FolderPath) -> Vec<Move> {
    let below = directories.iter().filter(|(path, _)| path.0.starts_with(&from.0));
    below
        .filter_map(|(path, directory)| {
            let names = to.0.iter().chain(&path.0[from.0.len()..]).cloned().collect();
            let path = FolderPath(names);
            let to = names::directory_of(&path)?;
            Some(Move {
                path,
                from: directory.clone(),
                to,
            })
        })
        .collect()
}

/// Raises the UIDNEXT of a folder that has the given UIDVALIDITY.
fn raise_uid_next(folder: &FolderDirectory, identity: FolderIdentity) -> Result<(), MailboxError> {
    let lock = folder.lock(uidlist::FILE)?;
    let Some(mut known) = folder.take_list(&lock)? else {
        return Ok(());
    };
    if known.list.uid_validity == identity.uid_validity {
        known.list_mut().raise_uid_next(identity.uid_next);
    }
    folder.store_list(known, &lock)
}

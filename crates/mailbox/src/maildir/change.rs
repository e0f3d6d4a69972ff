//! Changing flags and removing items.

use super::folder::{self, FolderDirectory, Found, Sub};
use super::item_name::{has_info, with_flags};
use super::keywords::{Assigned, Keywords};
use super::listing::{Settled, settle};
use super::uidlist::{self, base_of};
use super::validity::Validities;
use crate::{ErrorScope, FolderRef, MailboxError, Retry, Uid};
use rehome_wire::flags::Flags;
use rustix::fs::AtFlags;
use rustix::io::Errno;
use std::collections::HashSet;

/// How often files that were renamed meanwhile are looked for again.
const ATTEMPTS: usize = 10;

/// Sets flags by renaming. A file in `new` that gets flags moves to `cur`; one that has and gets none stays where it
/// is, still newly arrived. Returns the uids with keywords that could not be kept.
pub(super) fn set_flags(
    folder: &FolderDirectory,
    validities: &Validities,
    at: FolderRef<'_>,
    changes: &[(Uid, Flags)],
) -> Result<Vec<(Uid, Vec<String>)>, MailboxError> {
    let mut settled = settle(folder, validities)?;
    at.check(settled.list.uid_validity)?;
    let at = FolderRef::new(at.path, settled.list.uid_validity);
    let assigned = assign_keywords(folder, &settled, changes)?;
    let mut pending: Vec<usize> = (0..changes.len()).collect();
    let mut renamed = false;
    for _ in 0..ATTEMPTS {
        let mut missed = Vec::new();
        for index in pending {
            let (uid, flags) = &changes[index];
            let Some(found) = settled.found(*uid) else {
                continue;
            };
            let name = with_flags(&found.name, flags, &assigned[index].letters);
            match rename(folder, &found, &name) {
                Ok(true) => {
                    renamed = true;
                    let info = &name[base_of(&name).len()..];
                    let file = (*uid, Sub::Cur, info);
                    folder.cache.put(settled.list.uid_validity, std::iter::once(file));
                }
                Ok(false) => {}
                Err(Errno::NOENT) => missed.push(index),
                Err(error) => return Err(folder.failed("setting flags", error)),
            }
        }
        if missed.is_empty() {
            sync(folder, renamed)?;
            let dropped = changes
                .iter()
                .zip(assigned)
                .filter(|(_, assigned)| !assigned.dropped.is_empty());
            return Ok(dropped.map(|((uid, _), assigned)| (*uid, assigned.dropped)).collect());
        }
        pending = missed;
        settled = settle(folder, validities)?;
        at.check(settled.list.uid_validity)?;
    }
    Err(kept_changing(folder, "setting flags"))
}

fn kept_changing(folder: &FolderDirectory, what: &str) -> MailboxError {
    MailboxError {
        what: format!("{what} in folder {}", folder.path),
        cause: "files kept being renamed".to_owned(),
        scope: ErrorScope::Folder,
        retry: Retry::After(1),
    }
}

fn assign_keywords(
    folder: &FolderDirectory,
    settled: &Settled,
    changes: &[(Uid, Flags)],
) -> Result<Vec<Assigned>, MailboxError> {
    if changes.iter().all(|(_, flags)| settled.keywords.know(flags)) {
        let mut keywords = Keywords::clone(&settled.keywords);
        let assigned = changes.iter().map(|(_, flags)| keywords.assign(flags, &|_| true));
        return Ok(assigned.collect());
    }
    let _lock = folder.lock(uidlist::FILE)?;
    let mut keywords = folder.read_keywords()?;
    let in_use: Vec<u8> = (b'a'..=b'z')
        .filter(|letter| settled.present.uses_letter(*letter))
        .collect();
    let assigned: Vec<Assigned> = changes
        .iter()
        .map(|(_, flags)| keywords.assign(flags, &|letter| in_use.contains(&letter)))
        .collect();
    if assigned.iter().any(|assigned| assigned.changed) {
        folder.write_keywords(&keywords)?;
    }
    Ok(assigned)
}

fn rename(folder: &FolderDirectory, found: &Found, name: &[u8]) -> Result<bool, Errno> {
    let nothing_to_show = found.sub == Sub::New && name.ends_with(b":2,") && !has_info(&found.name);
    if nothing_to_show || (found.sub == Sub::Cur && name == found.name) {
        return Ok(false);
    }
    rustix::fs::renameat(folder.sub(found.sub), &found.name, &folder.cur, name)?;
    rehome_fault::step("maildir.flags");
    Ok(true)
}

fn sync(folder: &FolderDirectory, changed: bool) -> Result<(), MailboxError> {
    if changed {
        rustix::fs::fsync(&folder.cur)
            .and_then(|()| rustix::fs::fsync(&folder.new))
            .map_err(|error| folder.failed("syncing", error))?;
        rehome_fault::step("maildir.synced");
    }
    Ok(())
}

/// Removes items: first the files, durably, then their lines.
pub(super) fn remove(
    folder: &FolderDirectory,
    validities: &Validities,
    at: FolderRef<'_>,
    uids: &[Uid],
) -> Result<(), MailboxError> {
    let mut at = at;
    let gone: HashSet<Uid> = uids.iter().copied().collect();
    let mut removed = false;
    for _ in 0..ATTEMPTS {
        let settled = settle(folder, validities)?;
        let uid_validity = settled.list.uid_validity;
        at.check(uid_validity)?;
        at = FolderRef::new(at.path, uid_validity);
        let mut missed = false;
        for uid in &gone {
            let Some(found) = settled.found(*uid) else {
                continue;
            };
            match rustix::fs::unlinkat(folder.sub(found.sub), &found.name, AtFlags::empty()) {
                Ok(()) => {
                    removed = true;
                    rehome_fault::step("maildir.remove");
                }
                Err(Errno::NOENT) => missed = true,
                Err(error) => return Err(folder.failed("removing an item", error)),
            }
        }
        drop(settled);
        folder.cache.forget(uid_validity, |uid| gone.contains(&uid));
        if !missed {
            sync(folder, removed)?;
            return forget(folder, uid_validity, &gone);
        }
    }
    Err(kept_changing(folder, "removing items"))
}

fn forget(folder: &FolderDirectory, uid_validity: u32, gone: &HashSet<Uid>) -> Result<(), MailboxError> {
    let lock = folder.lock(uidlist::FILE)?;
    let Some(mut known) = folder.take_list(&lock)? else {
        return Ok(());
    };
    if known.list.uid_validity == uid_validity && gone.iter().any(|uid| known.list.base(*uid).is_some()) {
        known.list_mut().forget(|uid| gone.contains(&uid));
    }
    folder.store_list(known, &lock)
}

/// Removes a directory with all in it, following no link; missing is success.
pub(super) fn remove_tree(parent: std::os::fd::BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    use std::os::fd::AsFd;
    let directory = match folder::open_directory(parent, name) {
        Ok(directory) => directory,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error),
    };
    for (entry, kind) in folder::entries(directory.as_fd())? {
        match kind {
            rustix::fs::FileType::Directory => remove_tree(directory.as_fd(), &entry)?,
            _ => folder::remove_file(directory.as_fd(), &entry)?,
        }
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

//! Changing flags and removing items.

use super::folder::{self, FolderDirectory, Found, Sub};
use super::item_name::{has_info, with_flags};
use super::keywords::Assigned;
use super::listing::{Settled, settle};
use super::uidlist;
use super::validity::Validities;
use crate::{ErrorScope, MailboxError, Retry, Uid};
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
    changes: &[(Uid, Flags)],
) -> Result<Vec<(Uid, Vec<String>)>, MailboxError> {
    let mut settled = settle(folder, validities)?;
    let assigned = assign_keywords(folder, &mut settled, changes)?;
    let mut pending: Vec<usize> = (0..changes.len()).collect();
    let mut renamed = false;
    for _ in 0..ATTEMPTS {
        let mut missed = Vec::new();
        for index in pending {
            let (uid, flags) = &changes[index];
            let Some(found) = settled.present.get(uid) else {
                continue;
            };
            match rename(folder, found, &with_flags(&found.name, flags, &assigned[index].letters)) {
                Ok(done) => renamed |= done,
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
    settled: &mut Settled,
    changes: &[(Uid, Flags)],
) -> Result<Vec<Assigned>, MailboxError> {
    if changes.iter().all(|(_, flags)| settled.keywords.know(flags)) {
        return Ok(changes
            .iter()
            .map(|(_, flags)| settled.keywords.assign(flags, &|_| true))
            .collect());
    }
    let _lock = folder.lock(uidlist::FILE)?;
    let mut keywords = folder.read_keywords()?;
    let in_use: Vec<u8> = (b'a'..=b'z').filter(|letter| settled.uses_letter(*letter)).collect();
    let assigned: Vec<Assigned> = changes
        .iter()
        .map(|(_, flags)| keywords.assign(flags, &|letter| in_use.contains(&letter)))
        .collect();
    if assigned.iter().any(|assigned| assigned.changed) {
        folder.write_keywords(&keywords)?;
    }
    settled.keywords = keywords;
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
pub(super) fn remove(folder: &FolderDirectory, validities: &Validities, uids: &[Uid]) -> Result<(), MailboxError> {
    let gone: HashSet<Uid> = uids.iter().copied().collect();
    let mut removed = false;
    for _ in 0..ATTEMPTS {
        let settled = settle(folder, validities)?;
        let mut missed = false;
        for uid in &gone {
            let Some(found) = settled.present.get(uid) else {
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
        if !missed {
            sync(folder, removed)?;
            return forget(folder, &gone);
        }
    }
    Err(kept_changing(folder, "removing items"))
}

fn forget(folder: &FolderDirectory, gone: &HashSet<Uid>) -> Result<(), MailboxError> {
    let _lock = folder.lock(uidlist::FILE)?;
    let Some(mut list) = folder.read_uidlist()? else {
        return Ok(());
    };
    let before = list.entries().len();
    list.forget(|uid| gone.contains(&uid));
    if list.entries().len() == before {
        Ok(())
    } else {
        folder.write_uidlist(&list)
    }
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

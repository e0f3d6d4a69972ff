//! Writing items so that a crash at any point leaves each either whole or not there, and never twice.
//!
//! Order: all files of a batch in `tmp` (octets, mtime = received time, fsync); then, under Dovecot's lock, keywords,
//! one rewrite of the uid list, and the renames into `cur`; one fsync of the folder. A crash between list and renames
//! leaves listed uids without file, which is harmless, and writing again takes the same uid. Items go to `cur` with
//! `:2,` and their flags even when they have none, so that no one takes them for newly arrived.

use super::error::{failed, refused};
use super::folder::{self, FolderDirectory, Found};
use super::item_name::{self, keyword_letters, stem, stem_of, with_flags};
use super::keywords::Keywords;
use super::listing::settle;
use super::uidlist::{self, Uidlist};
use super::validity::Validities;
use crate::{Appended, Body, ErrorScope, MailboxError, NewItem, Retry, Uid};
use rustix::fs::{AtFlags, Stat, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;

/// Where an item's octets come from.
pub(super) enum Source {
    /// From the item itself.
    Body,
    /// From a file of this mailbox.
    File { folder: Arc<FolderDirectory>, found: Found },
    /// From nowhere: it was gone.
    None(MailboxError),
}

/// An item to write.
pub(super) struct Job {
    pub(super) item: NewItem,
    pub(super) source: Source,
}

/// How far an item is.
enum Progress {
    /// It is there under this uid.
    There(Uid),
    /// It is in `tmp` under this base name.
    Written { base: Vec<u8> },
    /// It was given twice; see the other one.
    SameAs(usize),
    /// It will not be there.
    Refused(MailboxError),
}

/// Writes items in order.
pub(super) fn append(
    folder: &FolderDirectory,
    validities: &Validities,
    jobs: &[Job],
) -> Result<Vec<Appended>, MailboxError> {
    let list = match folder.read_uidlist()? {
        Some(list) => list,
        None => settle(folder, validities)?.list,
    };
    let stems: Vec<Vec<u8>> = jobs.iter().map(|job| stem(&job.item.key, job.item.received)).collect();
    let known = known_stems(folder, &list, &stems)?;
    let mut first = HashMap::new();
    let mut progress = Vec::with_capacity(jobs.len());
    for (index, (job, stem)) in jobs.iter().zip(&stems).enumerate() {
        let next = match (first.insert(stem, index), known.get(stem.as_slice())) {
            (Some(earlier), _) => {
                first.insert(stem, earlier);
                Ok(Progress::SameAs(earlier))
            }
            (None, Some(Known { uid, present: true })) => Ok(Progress::There(*uid)),
            (None, _) => write(folder, job, stem),
        };
        match next {
            Ok(next) => progress.push(next),
            Err(error) => {
                discard(folder, &progress);
                return Err(error);
            }
        }
    }
    let result = publish(folder, jobs, &stems, &mut progress);
    if result.is_err() {
        discard(folder, &progress);
    }
    result
}

/// Removes what is left in `tmp`; a failure leaves garbage that Dovecot clears after a while.
fn discard(folder: &FolderDirectory, progress: &[Progress]) {
    for step in progress {
        if let Progress::Written { base } = step
            && let Err(error) = folder::remove_file(folder.tmp.as_fd(), base)
        {
            tracing::warn!(folder = %folder.path, %error, "a file in tmp could not be removed");
        }
    }
}

/// What the folder knows of an item that was written before.
struct Known {
    uid: Uid,
    present: bool,
}

/// Which stems are listed. The folder is scanned only if there are any.
fn known_stems(
    folder: &FolderDirectory,
    list: &Uidlist,
    stems: &[Vec<u8>],
) -> Result<HashMap<Vec<u8>, Known>, MailboxError> {
    let wanted: HashSet<&[u8]> = stems.iter().map(Vec::as_slice).collect();
    let mut known = HashMap::new();
    for entry in list.entries() {
        if let Some(stem) = stem_of(entry.base()).filter(|stem| wanted.contains(stem)) {
            known.insert(
                stem.to_vec(),
                Known {
                    uid: entry.uid,
                    present: false,
                },
            );
        }
    }
    if !known.is_empty() {
        for found in folder.scan()?.files {
            if let Some(known) = stem_of(found.base()).and_then(|stem| known.get_mut(stem)) {
                known.present = true;
            }
        }
    }
    Ok(known)
}

/// Writes one item to `tmp`, durably.
fn write(folder: &FolderDirectory, job: &Job, stem: &[u8]) -> Result<Progress, MailboxError> {
    let written = match &job.source {
        Source::None(error) => return Ok(Progress::Refused(error.clone())),
        Source::Body => write_body(folder, &job.item, stem),
        Source::File { folder: from, found } => copy_file(folder, &job.item, stem, from, found),
    };
    match written? {
        Ok(base) => {
            rehome_fault::step("maildir.tmp");
            Ok(Progress::Written { base })
        }
        Err(refusal) => Ok(Progress::Refused(refusal)),
    }
}

/// A written file's base name, or why this one item is refused.
type Written = Result<Vec<u8>, MailboxError>;

fn write_body(folder: &FolderDirectory, item: &NewItem, stem: &[u8]) -> Result<Written, MailboxError> {
    let base = item_name::base(stem, item.length, item.length);
    let written = match &item.body {
        Body::Memory(octets) => write_file(folder, &base, item.received, &mut octets.as_ref()),
        Body::Spooled(path) => {
            let mut spool = std::fs::File::open(path).map_err(|error| failed("opening a spooled item", error))?;
            write_file(folder, &base, item.received, &mut spool)
        }
    };
    let length = written.map_err(|error| folder.failed("writing an item", error))?;
    if length == item.length {
        return Ok(Ok(base));
    }
    folder::remove_file(folder.tmp.as_fd(), &base).map_err(|error| folder.failed("removing a file in tmp", error))?;
    Ok(Err(refused(
        format!("appending to folder {}", folder.path),
        format!("the item has {length} octets where {} were announced", item.length),
        ErrorScope::Item,
    )))
}

/// Writes, dates and syncs a file in `tmp`; returns how many octets were written.
fn write_file(folder: &FolderDirectory, base: &[u8], received: i64, octets: &mut dyn Read) -> io::Result<u64> {
    // What a crash left is not trusted.
    folder::remove_file(folder.tmp.as_fd(), base)?;
    let mut file = folder::create_file(folder.tmp.as_fd(), base)?;
    let result = (|| {
        let mut buffer = vec![0; 64 * 1024];
        let mut length = 0;
        loop {
            let count = match octets.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            file.write_all(&buffer[..count])?;
            length += count as u64;
        }
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
            last_modification: Timespec {
                tv_sec: received,
                tv_nsec: 0,
            },
        };
        rustix::fs::futimens(&file, &times)?;
        file.sync_all()?;
        Ok(length)
    })();
    if result.is_err() {
        folder::remove_file(folder.tmp.as_fd(), base)?;
    }
    result
}

/// Takes over a file of this mailbox: as a second name of the same file where the received time is the same, else as
/// a copy.
fn copy_file(
    folder: &FolderDirectory,
    item: &NewItem,
    stem: &[u8],
    from: &FolderDirectory,
    found: &Found,
) -> Result<Written, MailboxError> {
    let gone = || MailboxError {
        what: format!("copying from folder {} to {}", from.path, folder.path),
        cause: "the item is not there any more".to_owned(),
        scope: ErrorScope::Item,
        retry: Retry::Now,
    };
    let stat: Stat = match rustix::fs::statat(from.sub(found.sub), &found.name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(Err(gone())),
        Err(error) => return Err(from.failed("looking at a file", error)),
    };
    let base = item_name::base(stem, u64::try_from(stat.st_size).unwrap_or(0), item.length);
    if stat.st_mtime == item.received && link(folder, &base, from, found)? {
        return Ok(Ok(base));
    }
    let mut file = match super::read::open_item(from, found) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(Err(gone())),
        Err(error) => return Err(from.failed("opening a file", error)),
    };
    write_file(folder, &base, item.received, &mut file).map_err(|error| folder.failed("copying an item", error))?;
    Ok(Ok(base))
}

/// Gives a file a second name in `tmp`; false where the file system does not.
fn link(folder: &FolderDirectory, base: &[u8], from: &FolderDirectory, found: &Found) -> Result<bool, MailboxError> {
    folder::remove_file(folder.tmp.as_fd(), base).map_err(|error| folder.failed("removing a file in tmp", error))?;
    match rustix::fs::linkat(from.sub(found.sub), &found.name, &folder.tmp, base, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::MLINK | Errno::XDEV | Errno::PERM | Errno::NOENT | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(folder.failed("linking an item", error)),
    }
}

/// Under the lock: uids, keywords, list, renames.
fn publish(
    folder: &FolderDirectory,
    jobs: &[Job],
    stems: &[Vec<u8>],
    progress: &mut [Progress],
) -> Result<Vec<Appended>, MailboxError> {
    let lock = folder.lock(uidlist::FILE)?;
    let mut list = folder.read_uidlist()?.ok_or_else(|| MailboxError {
        what: format!("appending to folder {}", folder.path),
        cause: "the list of uids went away meanwhile".to_owned(),
        scope: ErrorScope::Folder,
        retry: Retry::Now,
    })?;
    let known = known_stems(folder, &list, stems)?;
    let mut renames = Vec::new();
    let mut listed = false;
    for (index, step) in progress.iter_mut().enumerate() {
        let Progress::Written { base } = step else {
            continue;
        };
        let base = base.clone();
        *step = match known.get(&stems[index]) {
            Some(Known { uid, present: true }) => {
                folder::remove_file(folder.tmp.as_fd(), &base)
                    .map_err(|error| folder.failed("removing a file in tmp", error))?;
                Progress::There(*uid)
            }
            Some(Known { uid, present: false }) if list.get(*uid).is_some_and(|entry| entry.base() == base) => {
                renames.push((index, base));
                Progress::There(*uid)
            }
            _ => match give_uid(folder, &mut list, jobs[index].item.uid, &base) {
                Ok(uid) => {
                    listed = true;
                    renames.push((index, base));
                    Progress::There(uid)
                }
                Err(refusal) => {
                    folder::remove_file(folder.tmp.as_fd(), &base)
                        .map_err(|error| folder.failed("removing a file in tmp", error))?;
                    Progress::Refused(refusal)
                }
            },
        };
    }
    let (letters, dropped) = assign_keywords(folder, jobs)?;
    if listed {
        folder.write_uidlist(&list)?;
    }
    for (index, base) in &renames {
        let name = with_flags(base, &jobs[*index].item.flags, &letters[*index]);
        rustix::fs::renameat(&folder.tmp, base, &folder.cur, name)
            .map_err(|error| folder.failed("adding an item", error))?;
        rehome_fault::step("maildir.item");
    }
    if !renames.is_empty() {
        rustix::fs::fsync(&folder.cur).map_err(|error| folder.failed("adding items", error))?;
        rehome_fault::step("maildir.items");
    }
    drop(lock);
    Ok(answers(progress, dropped))
}

fn give_uid(
    folder: &FolderDirectory,
    list: &mut Uidlist,
    given: Option<Uid>,
    base: &[u8],
) -> Result<Uid, MailboxError> {
    let what = || format!("appending to folder {}", folder.path);
    match given {
        None => list
            .assign(base)
            .ok_or_else(|| refused(what(), "there are no more uids", ErrorScope::Folder)),
        Some(uid) if list.assign_given(uid, base) => Ok(uid),
        Some(uid) => Err(refused(what(), format!("uid {uid} is taken"), ErrorScope::Item)),
    }
}

/// Keyword letters of one item.
type Letters = Vec<u8>;
/// Keywords of one item that cannot be kept.
type Dropped = Vec<String>;

/// Letters and dropped keywords of each item; new keywords are written. The caller holds the uid list's lock.
fn assign_keywords(folder: &FolderDirectory, jobs: &[Job]) -> Result<(Vec<Letters>, Vec<Dropped>), MailboxError> {
    let mut keywords = folder.read_keywords()?;
    let all_known = jobs.iter().all(|job| keywords.know(&job.item.flags));
    let in_use = if all_known {
        HashSet::new()
    } else {
        letters_in_use(folder)?
    };
    let (mut letters, mut dropped, mut changed) = (Vec::new(), Vec::new(), false);
    for job in jobs {
        let assigned = keywords.assign(&job.item.flags, &|letter| in_use.contains(&letter));
        changed |= assigned.changed;
        letters.push(assigned.letters);
        dropped.push(assigned.dropped);
    }
    write_if(folder, &keywords, changed)?;
    Ok((letters, dropped))
}

fn write_if(folder: &FolderDirectory, keywords: &Keywords, changed: bool) -> Result<(), MailboxError> {
    if changed {
        folder.write_keywords(keywords)
    } else {
        Ok(())
    }
}

fn letters_in_use(folder: &FolderDirectory) -> Result<HashSet<u8>, MailboxError> {
    let scan = folder.scan()?;
    Ok(scan
        .files
        .iter()
        .flat_map(|found| keyword_letters(&found.name))
        .collect())
}

fn answers(progress: &[Progress], dropped: Vec<Dropped>) -> Vec<Appended> {
    let mut answers: Vec<Appended> = Vec::with_capacity(progress.len());
    for (step, keywords_dropped) in progress.iter().zip(dropped) {
        answers.push(match step {
            Progress::There(uid) => Appended::Uid {
                uid: *uid,
                keywords_dropped,
            },
            Progress::SameAs(earlier) => answers[*earlier].clone(),
            Progress::Refused(error) => Appended::Refused(error.clone()),
            Progress::Written { .. } => {
                Appended::Refused(refused("appending", "the item was not taken over", ErrorScope::Item))
            }
        });
    }
    answers
}

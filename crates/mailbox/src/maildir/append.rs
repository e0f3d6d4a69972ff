//! Adding items so that a crash at any point leaves each either whole or not there, and never twice.
//!
//! Order: all files of a batch in `tmp` (octets, mtime = received time, fsync); then, under Dovecot's lock, keywords,
//! new lines of the uid list, and the renames into `cur`; one fsync of the folder. A crash between list and renames
//! leaves listed uids without file, which is harmless, and writing again takes the same uid. Items go to `cur` with
//! `:2,` and their flags even when they have none, so that no one takes them for newly arrived.

use super::cache::KnownList;
use super::error::refused;
use super::folder::{self, FolderDirectory, Found, Sub};
use super::item_name::{keyword_letters, stem, with_flags};
use super::keywords::Keywords;
use super::listing::{Settled, settle, settle_locked};
use super::uidlist::{self, Uidlist};
use super::validity::Validities;
use super::write::{Written, write_all};
use crate::{Appended, ErrorScope, FolderRef, MailboxError, NewItem, Retry, Uid};
use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

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
    /// Nothing of it was done.
    Waiting,
    /// It is there under this uid.
    There(Uid),
    /// It is in `tmp` under this base name.
    Written { base: Vec<u8> },
    /// It was given twice; see the other one.
    SameAs(usize),
    /// It will not be there.
    Refused(MailboxError),
}

/// Writes items in order, into the validity asked for.
pub(super) fn append(
    folder: &FolderDirectory,
    validities: &Validities,
    at: FolderRef<'_>,
    jobs: &[Job],
) -> Result<Vec<Appended>, MailboxError> {
    let stems: Vec<Vec<u8>> = jobs.iter().map(|job| stem(&job.item.key, job.item.received)).collect();
    let list = match folder.read_uidlist()? {
        Some(list) => list,
        None => settle(folder, validities)?.list,
    };
    at.check(list.uid_validity)?;
    let there = if is_any_known(&list, &stems) {
        already_there(&settle(folder, validities)?, &stems)
    } else {
        HashMap::new()
    };
    // What holds the list would make the change of it below copy it.
    drop(list);
    let mut progress: Vec<Progress> = Vec::with_capacity(jobs.len());
    let mut first = HashMap::new();
    for (index, stem) in stems.iter().enumerate() {
        let earlier = *first.entry(stem).or_insert(index);
        progress.push(match there.get(stem.as_slice()) {
            _ if earlier != index => Progress::SameAs(earlier),
            Some(uid) => Progress::There(*uid),
            None => Progress::Waiting,
        });
    }
    let result = write_waiting(folder, jobs, &stems, &mut progress)
        .and_then(|()| publish(folder, validities, at, jobs, &stems, &mut progress));
    if result.is_err() {
        discard(folder, &progress);
    }
    result
}

fn is_any_known(list: &Uidlist, stems: &[Vec<u8>]) -> bool {
    stems.iter().any(|stem| list.uid_of_stem(stem).is_some())
}

/// Which stems have a file, and its uid.
fn already_there<'a>(settled: &Settled, stems: &'a [Vec<u8>]) -> HashMap<&'a [u8], Uid> {
    let uid_of = |stem: &'a Vec<u8>| {
        let uid = settled.list.uid_of_stem(stem)?;
        settled.present.get(uid).map(|_| (stem.as_slice(), uid))
    };
    stems.iter().filter_map(uid_of).collect()
}

/// Writes what is waiting to `tmp`.
fn write_waiting(
    folder: &FolderDirectory,
    jobs: &[Job],
    stems: &[Vec<u8>],
    progress: &mut [Progress],
) -> Result<(), MailboxError> {
    let is_waiting = |index: &usize| matches!(progress[*index], Progress::Waiting);
    let waiting: Vec<usize> = (0..jobs.len()).filter(is_waiting).collect();
    let results = Mutex::new(Vec::with_capacity(waiting.len()));
    let written = write_all(folder, jobs, stems, &waiting, &results);
    for (index, result) in results.into_inner().unwrap_or_else(PoisonError::into_inner) {
        progress[index] = match result {
            Written::There(base) => Progress::Written { base },
            Written::Refused(error) => Progress::Refused(error),
        };
    }
    written
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

/// Under the lock: uids, keywords, list, renames.
fn publish(
    folder: &FolderDirectory,
    validities: &Validities,
    at: FolderRef<'_>,
    jobs: &[Job],
    stems: &[Vec<u8>],
    progress: &mut [Progress],
) -> Result<Vec<Appended>, MailboxError> {
    let lock = folder.lock(uidlist::FILE)?;
    let went_away = || MailboxError {
        what: format!("appending to folder {}", folder.path),
        cause: "the list of uids went away meanwhile".to_owned(),
        scope: ErrorScope::Folder,
        retry: Retry::Now,
    };
    let list = folder.read_uidlist()?.ok_or_else(went_away)?;
    at.check(list.uid_validity)?;
    let is_any_known = is_any_known(&list, stems);
    drop(list);
    let there = if is_any_known {
        already_there(&settle_locked(folder, validities, &lock)?, stems)
    } else {
        HashMap::new()
    };
    let mut known = folder.take_list(&lock)?.ok_or_else(went_away)?;
    at.check(known.list.uid_validity)?;
    let renames = give_uids(folder, &mut known, &there, jobs, stems, progress)?;
    let (letters, dropped) = assign_keywords(folder, jobs)?;
    let uid_validity = known.list.uid_validity;
    folder.store_list(known, &lock)?;
    let mut put = Vec::with_capacity(renames.len());
    for Rename { index, uid, base } in renames {
        let name = with_flags(&base, &jobs[index].item.flags, &letters[index]);
        rustix::fs::renameat(&folder.tmp, &base, &folder.cur, &name)
            .map_err(|error| folder.failed("adding an item", error))?;
        progress[index] = Progress::There(uid);
        rehome_fault::step("maildir.item");
        put.push((uid, name, base.len()));
    }
    if !put.is_empty() {
        let infos = put.iter().map(|(uid, name, info)| (*uid, Sub::Cur, &name[*info..]));
        folder.cache.put(uid_validity, infos);
        rustix::fs::fsync(&folder.cur).map_err(|error| folder.failed("adding items", error))?;
        rehome_fault::step("maildir.items");
    }
    drop(lock);
    Ok(answers(progress, dropped))
}

/// An item that has a uid and goes from `tmp` to `cur`.
struct Rename {
    index: usize,
    uid: Uid,
    base: Vec<u8>,
}

/// Gives uids to what is written. What is there meanwhile, and what gets none, is removed from `tmp`.
fn give_uids(
    folder: &FolderDirectory,
    known: &mut KnownList,
    there: &HashMap<&[u8], Uid>,
    jobs: &[Job],
    stems: &[Vec<u8>],
    progress: &mut [Progress],
) -> Result<Vec<Rename>, MailboxError> {
    let mut renames = Vec::new();
    for (index, step) in progress.iter_mut().enumerate() {
        let Progress::Written { base } = step else {
            continue;
        };
        let next = match there.get(stems[index].as_slice()) {
            Some(uid) => Progress::There(*uid),
            None => {
                let uid = match known.list.uid_of(base) {
                    Some(uid) => Ok(uid),
                    None => give_uid(folder, known.list_mut(), jobs[index].item.uid, base),
                };
                match uid {
                    Ok(uid) => {
                        let base = base.clone();
                        renames.push(Rename { index, uid, base });
                        continue;
                    }
                    Err(refusal) => Progress::Refused(refusal),
                }
            }
        };
        folder::remove_file(folder.tmp.as_fd(), base)
            .map_err(|error| folder.failed("removing a file in tmp", error))?;
        *step = next;
    }
    Ok(renames)
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
    Ok(scan.files().flat_map(|(_, name)| keyword_letters(name)).collect())
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
            Progress::Waiting | Progress::Written { .. } => {
                Appended::Refused(refused("appending", "the item was not taken over", ErrorScope::Item))
            }
        });
    }
    answers
}

//! Writing files into `tmp`, durably, several at once.
//!
//! Each file is synced by itself, so that nobody waits for what others have to write on the same file system, as
//! `syncfs` would make us. What makes it quick: a thread writes a group of files and asks the kernel to begin with each
//! before it waits for the first, and syncs of several threads share one commit of the file system's journal.

use super::append::{Job, Source};
use super::error::{failed, refused};
use super::folder::{self, FolderDirectory, Found};
use super::item_name;
use crate::{Body, ErrorScope, MailboxError, NewItem, Retry};
use rustix::fs::{Advice, AtFlags, Stat, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

/// Threads that write for one folder. Measured on ext4: four are three times as fast as one, eight hardly faster.
const WRITERS: usize = 4;
/// Files that a thread has open before it waits for the first.
const GROUP: usize = 8;

/// What became of an item in `tmp`.
pub(super) enum Written {
    /// It is there, durably, under this base name.
    There(Vec<u8>),
    /// It will not be there.
    Refused(MailboxError),
}

/// Where results are put: a job's number and what became of it.
type Results = Mutex<Vec<(usize, Written)>>;

/// Writes some of the jobs, by number, in no order. Of an error all writers stop; what is written by then is in
/// `results` too.
pub(super) fn write_all(
    folder: &FolderDirectory,
    jobs: &[Job],
    stems: &[Vec<u8>],
    numbers: &[usize],
    results: &Results,
) -> Result<(), MailboxError> {
    let groups = Mutex::new(numbers.chunks(GROUP));
    let stopped = AtomicBool::new(false);
    let work = || {
        loop {
            let group = groups.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(group) = group.filter(|_| !stopped.load(Ordering::Relaxed)) else {
                return Ok(());
            };
            if let Err(error) = write_group(folder, jobs, stems, group, results) {
                stopped.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
    };
    let others = numbers.len().div_ceil(GROUP).min(WRITERS).saturating_sub(1);
    std::thread::scope(|scope| {
        // Where the system gives no more threads, fewer do it all.
        let spawn = |_| std::thread::Builder::new().spawn_scoped(scope, work).ok();
        let others: Vec<_> = (0..others).filter_map(spawn).collect();
        let mut result = work();
        for other in others {
            let done = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result = result.and(done);
        }
        result
    })
}

/// A file that is written but perhaps not durable.
struct Unsynced {
    number: usize,
    base: Vec<u8>,
    /// None for another name of a file that is durable.
    file: Option<File>,
}

fn write_group(
    folder: &FolderDirectory,
    jobs: &[Job],
    stems: &[Vec<u8>],
    group: &[usize],
    results: &Results,
) -> Result<(), MailboxError> {
    let put = |number, written| {
        let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
        results.push((number, written));
    };
    let mut unsynced = Vec::with_capacity(group.len());
    let mut failure = None;
    for number in group {
        match write(folder, &jobs[*number], &stems[*number]) {
            Ok(Ok((base, file))) => unsynced.push(Unsynced {
                number: *number,
                base,
                file,
            }),
            Ok(Err(refusal)) => put(*number, Written::Refused(refusal)),
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    for Unsynced { number, base, file } in unsynced {
        let file = file.filter(|_| !rehome_fault::planted("maildir.fsync_missing"));
        if failure.is_none()
            && let Some(Err(error)) = file.map(|file| file.sync_all())
        {
            failure = Some(folder.failed("writing an item", error));
        }
        // What is not durable is known too, so that it is removed.
        put(number, Written::There(base));
        rehome_fault::step("maildir.tmp");
    }
    failure.map_or(Ok(()), Err)
}

/// A file's base name and the file where it must be synced, or why this one item is refused.
type Outcome = Result<(Vec<u8>, Option<File>), MailboxError>;

fn write(folder: &FolderDirectory, job: &Job, stem: &[u8]) -> Result<Outcome, MailboxError> {
    match &job.source {
        Source::None(error) => Ok(Err(error.clone())),
        Source::Body => write_body(folder, &job.item, stem),
        Source::File { folder: from, found } => copy_file(folder, &job.item, stem, from, found),
    }
}

fn write_body(folder: &FolderDirectory, item: &NewItem, stem: &[u8]) -> Result<Outcome, MailboxError> {
    let base = item_name::base(stem, item.length, item.length);
    let written = match &item.body {
        Body::Memory(octets) => write_file(folder, &base, item.received, &mut |file| {
            file.write_all(octets)?;
            Ok(octets.len() as u64)
        }),
        Body::Spooled(path) => {
            let mut spool = File::open(path).map_err(|error| failed("opening a spooled item", error))?;
            write_file(folder, &base, item.received, &mut |file| io::copy(&mut spool, file))
        }
    };
    let (file, length) = written.map_err(|error| folder.failed("writing an item", error))?;
    if length == item.length {
        return Ok(Ok((base, Some(file))));
    }
    folder::remove_file(folder.tmp.as_fd(), &base).map_err(|error| folder.failed("removing a file in tmp", error))?;
    Ok(Err(refused(
        format!("appending to folder {}", folder.path),
        format!("the item has {length} octets where {} were announced", item.length),
        ErrorScope::Item,
    )))
}

/// Makes a file in `tmp`, has it filled, dates it and lets the kernel begin to write it; says how many octets it got.
fn write_file(
    folder: &FolderDirectory,
    base: &[u8],
    received: i64,
    fill: &mut dyn FnMut(&mut File) -> io::Result<u64>,
) -> io::Result<(File, u64)> {
    let mut file = match folder::create_file(folder.tmp.as_fd(), base) {
        Err(Errno::EXIST) => {
            // What a crash left is not trusted.
            folder::remove_file(folder.tmp.as_fd(), base)?;
            folder::create_file(folder.tmp.as_fd(), base)?
        }
        made => made?,
    };
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
    let filled = fill(&mut file).and_then(|length| {
        rustix::fs::futimens(&file, &times)?;
        Ok(length)
    });
    match filled {
        Ok(length) => {
            // Pages that are not needed any more are written at once. It is a hint; the sync after it counts.
            let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
            Ok((file, length))
        }
        Err(error) => {
            folder::remove_file(folder.tmp.as_fd(), base)?;
            Err(error)
        }
    }
}

/// Takes over a file of this mailbox: as a second name of the same file where the received time is the same, else as
/// a copy.
fn copy_file(
    folder: &FolderDirectory,
    item: &NewItem,
    stem: &[u8],
    from: &FolderDirectory,
    found: &Found,
) -> Result<Outcome, MailboxError> {
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
        return Ok(Ok((base, None)));
    }
    let mut source = match super::read::open_item(from, found) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(Err(gone())),
        Err(error) => return Err(from.failed("opening a file", error)),
    };
    let (file, _) = write_file(folder, &base, item.received, &mut |file| io::copy(&mut source, file))
        .map_err(|error| folder.failed("copying an item", error))?;
    Ok(Ok((base, Some(file))))
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

//! One folder's directories, opened so that no symbolic link below the root is ever followed, and what lies in them.

use super::cache::{Caches, FolderCache, KnownList, Stamp, Time};
use super::dotlock::Dotlock;
use super::error::{failed, missing};
use super::keywords::{self, Keywords};
use super::names;
use super::uidlist::{self, Uidlist, UidlistError, Unwritten, base_of};
use crate::{FolderPath, MailboxError};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Mode of directories that we make.
pub(super) const DIRECTORY_MODE: Mode = Mode::RWXU;
/// Mode of files that we make.
pub(super) const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// Largest `dovecot-uidlist` or other list that is read, in octets: about ten million items.
const MAX_LIST: u64 = 1 << 30;

/// How long ago a directory must have changed for its time of change to tell the next change: clocks of file systems
/// tick at most this long.
const TICK: Duration = Duration::from_millis(20);
/// The same for a time that is relied on later, and perhaps given by another machine's clock, in whole seconds.
const LONG_TICK: Duration = Duration::from_secs(2);

/// A folder, opened.
pub(super) struct FolderDirectory {
    /// For messages.
    pub(super) path: FolderPath,
    pub(super) directory: OwnedFd,
    pub(super) cur: OwnedFd,
    pub(super) new: OwnedFd,
    pub(super) tmp: OwnedFd,
    /// What is remembered of it.
    pub(super) cache: Arc<FolderCache>,
}

/// In which of the two directories of delivered items a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sub {
    Cur,
    New,
}

/// A message file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) sub: Sub,
    pub(super) name: Vec<u8>,
}

impl Found {
    pub(super) fn base(&self) -> &[u8] {
        base_of(&self.name)
    }
}

/// What a scan saw: `new` first, then `cur`, so that a file that moves meanwhile is seen once or twice, not never.
pub(super) struct Scan {
    /// Names, one after the other.
    names: Vec<u8>,
    /// Directory and end of each name.
    files: Vec<(Sub, usize)>,
    /// `cur` did not change while it was read, so that no file was missed: one that is renamed there may be, one that
    /// leaves `new` goes to `cur`.
    pub(super) stable: bool,
    /// Times of `cur` and `new` that tell of any change since; none where they do not.
    pub(super) times: Option<(Time, Time)>,
}

impl Scan {
    /// The files: directory and name.
    pub(super) fn files(&self) -> impl Iterator<Item = (Sub, &[u8])> {
        let mut start = 0;
        self.files.iter().map(move |(sub, end)| {
            let name = &self.names[start..*end];
            start = *end;
            (*sub, name)
        })
    }

    /// Files whose base name another file seen before has too.
    pub(super) fn doubles(&self) -> Vec<Found> {
        let mut seen = HashSet::with_capacity(self.files.len());
        self.files()
            .filter(|(_, name)| !seen.insert(base_of(name)))
            .map(|(sub, name)| Found {
                sub,
                name: name.to_vec(),
            })
            .collect()
    }
}

/// Whether a change now would show in a time of change.
fn is_past(time: Time, tick: Duration) -> bool {
    let now = jiff::Timestamp::now().as_nanosecond();
    let time = i128::from(time.0) * 1_000_000_000 + i128::from(time.1);
    (now - time).unsigned_abs() >= tick.as_nanos()
}

/// Opens a directory without following a link.
pub(super) fn open_directory(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Makes a directory unless it is there, and opens it.
pub(super) fn make_directory(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdirat(parent, name, DIRECTORY_MODE) {
        Ok(()) | Err(Errno::EXIST) => open_directory(parent, name),
        Err(error) => Err(error),
    }
}

/// Reads a file of at most `limit` octets, without following a link; none when it is not there.
pub(super) fn read_small(directory: BorrowedFd<'_>, name: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
    Ok(read_with_stat(directory, name, limit)?.map(|(octets, _)| octets))
}

/// As [`read_small`], with what the file was when reading began.
fn read_with_stat(directory: BorrowedFd<'_>, name: &str, limit: u64) -> io::Result<Option<(Vec<u8>, Stat)>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => std::fs::File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let stat = rustix::fs::fstat(&file)?;
    let mut octets = Vec::with_capacity(usize::try_from(stat.st_size.min(1 << 24)).unwrap_or(0));
    file.take(limit + 1).read_to_end(&mut octets)?;
    if octets.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{name} is larger than {limit} octets"),
        ));
    }
    Ok(Some((octets, stat)))
}

/// Reads a list file as a whole.
pub(super) fn read_list(directory: BorrowedFd<'_>, name: &str) -> io::Result<Option<Vec<u8>>> {
    read_small(directory, name, MAX_LIST)
}

/// Makes a new file, nothing else, without following a link.
pub(super) fn create_file(directory: BorrowedFd<'_>, name: &[u8]) -> Result<std::fs::File, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, FILE_MODE).map(std::fs::File::from)
}

/// Removes a file; missing already is success.
pub(super) fn remove_file(directory: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Replaces a file by a new one, durably. The caller holds the file's lock where it has one.
pub(super) fn replace_file(directory: BorrowedFd<'_>, name: &str, octets: &[u8]) -> io::Result<()> {
    let temporary = format!("{name}.tmp");
    remove_file(directory, temporary.as_bytes())?;
    let mut file = create_file(directory, temporary.as_bytes())?;
    let written = file.write_all(octets).and_then(|()| file.sync_all());
    if let Err(error) = written {
        remove_file(directory, temporary.as_bytes())?;
        return Err(error);
    }
    rustix::fs::renameat(directory, &temporary, directory, name)?;
    rustix::fs::fsync(directory)?;
    Ok(())
}

/// Adds lines to the uid list, durably. The caller holds its lock.
fn add_lines(directory: BorrowedFd<'_>, stamp: Stamp, lines: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = std::fs::File::from(rustix::fs::openat(directory, uidlist::FILE, flags, Mode::empty())?);
    let found = Stamp::of(&rustix::fs::fstat(&file)?);
    if !found.is_same_content(&stamp) {
        return Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "it changed although its lock is held",
        ));
    }
    if let Err(error) = file.write_all(lines) {
        // Dovecot would add its next line to a part of one. Whole lines without file harm nobody.
        let written = Stamp::of(&rustix::fs::fstat(&file)?)
            .size()
            .saturating_sub(stamp.size());
        let written = usize::try_from(written).unwrap_or(0).min(lines.len());
        file.set_len(stamp.size() + uidlist::whole_length(&lines[..written]) as u64)?;
        return Err(error);
    }
    file.sync_data()
}

/// A file's time of last change.
fn modified(stat: &Stat) -> Time {
    // The type depends on how the system is called: with or without the C library.
    #[allow(clippy::useless_conversion)]
    let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    (stat.st_mtime, nanoseconds)
}

/// Calls `each` with a directory's names and their types, `.` and `..` apart.
pub(super) fn for_each_entry(directory: BorrowedFd<'_>, mut each: impl FnMut(&[u8], FileType)) -> Result<(), Errno> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let mut kind = entry.file_type();
        if kind == FileType::Unknown {
            match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => kind = FileType::from_raw_mode(stat.st_mode),
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error),
            }
        }
        each(name, kind);
    }
    Ok(())
}

/// A directory's names with their types, `.` and `..` apart.
pub(super) fn entries(directory: BorrowedFd<'_>) -> Result<Vec<(Vec<u8>, FileType)>, Errno> {
    let mut found = Vec::new();
    for_each_entry(directory, |name, kind| found.push((name.to_vec(), kind)))?;
    Ok(found)
}

impl FolderDirectory {
    /// Opens a folder; none when it is not there (a directory without `cur` is none).
    pub(super) fn open(root: BorrowedFd<'_>, caches: &Caches, path: &FolderPath) -> Result<Option<Self>, MailboxError> {
        let Some(name) = names::directory_of(path) else {
            return Ok(None);
        };
        Self::open_named(root, caches, &name.directory, path)
    }

    /// Opens a folder by the name of its directory.
    pub(super) fn open_named(
        root: BorrowedFd<'_>,
        caches: &Caches,
        name: &[u8],
        path: &FolderPath,
    ) -> Result<Option<Self>, MailboxError> {
        let what = || format!("opening folder {path}");
        let directory = match open_directory(root, name) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(failed(what(), error)),
        };
        let cur = match open_directory(directory.as_fd(), b"cur") {
            Ok(cur) => cur,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(failed(what(), error)),
        };
        let new = make_directory(directory.as_fd(), b"new").map_err(|error| failed(what(), error))?;
        let tmp = make_directory(directory.as_fd(), b"tmp").map_err(|error| failed(what(), error))?;
        let identity = |directory: &OwnedFd| rustix::fs::fstat(directory).map_err(|error| failed(what(), error));
        let (folder, cur_identity) = (identity(&directory)?, identity(&cur)?);
        let cache = caches.of((folder.st_dev, folder.st_ino, cur_identity.st_ino));
        Ok(Some(Self {
            path: path.clone(),
            directory,
            cur,
            new,
            tmp,
            cache,
        }))
    }

    /// Opens a folder that must be there.
    pub(super) fn existing(root: BorrowedFd<'_>, caches: &Caches, path: &FolderPath) -> Result<Self, MailboxError> {
        Self::open(root, caches, path)?.ok_or_else(|| missing(path))
    }

    /// The directory of a file.
    pub(super) fn sub(&self, sub: Sub) -> BorrowedFd<'_> {
        match sub {
            Sub::Cur => self.cur.as_fd(),
            Sub::New => self.new.as_fd(),
        }
    }

    /// An error while doing something with this folder.
    pub(super) fn failed(&self, what: &str, error: impl Into<io::Error>) -> MailboxError {
        failed(format!("{what} in folder {}", self.path), error)
    }

    /// Reads both directories. Links and other things that are no files are passed over; so are hidden names.
    pub(super) fn scan(&self) -> Result<Scan, MailboxError> {
        self.scan_raw().map_err(|error| self.failed("listing files", error))
    }

    fn scan_raw(&self) -> Result<Scan, Errno> {
        let before = self.times()?;
        let stable = is_past(before.0, TICK);
        let lasting = is_past(before.0, LONG_TICK) && is_past(before.1, LONG_TICK);
        let (mut names, mut files) = (Vec::new(), Vec::new());
        for sub in [Sub::New, Sub::Cur] {
            for_each_entry(self.sub(sub), |name, kind| {
                if kind == FileType::RegularFile && name[0] != b'.' {
                    names.extend_from_slice(name);
                    files.push((sub, names.len()));
                }
            })?;
        }
        let after = self.times()?;
        Ok(Scan {
            names,
            files,
            stable: stable && before.0 == after.0,
            times: (lasting && before == after).then_some(before),
        })
    }

    fn times(&self) -> Result<(Time, Time), Errno> {
        let time = |sub| Ok(modified(&rustix::fs::fstat(self.sub(sub))?));
        Ok((time(Sub::Cur)?, time(Sub::New)?))
    }

    /// Times of `cur` and `new`.
    pub(super) fn directory_times(&self) -> Result<(Time, Time), MailboxError> {
        self.times()
            .map_err(|error| self.failed("looking at directories", error))
    }

    /// The uid list as it stands; none when it is missing or of no use.
    pub(super) fn read_uidlist(&self) -> Result<Option<Arc<Uidlist>>, MailboxError> {
        Ok(self.known_list()?.map(|known| known.list))
    }

    /// The uid list with its file; none when it is missing or of no use. It is read only if it has changed.
    pub(super) fn known_list(&self) -> Result<Option<KnownList>, MailboxError> {
        let what = "reading dovecot-uidlist";
        let known = match rustix::fs::statat(&self.directory, uidlist::FILE, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => self.cache.list(&Stamp::of(&stat)),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(self.failed(what, error)),
        };
        if known.is_some() {
            return Ok(known);
        }
        // Not even an old one takes memory while the new one is read.
        self.cache.set_list(None);
        let read = read_with_stat(self.directory.as_fd(), uidlist::FILE, MAX_LIST);
        let Some((octets, stat)) = read.map_err(|error| self.failed(what, error))? else {
            return Ok(None);
        };
        match Uidlist::parse(&octets) {
            Ok(list) => {
                let known = KnownList {
                    list: Arc::new(list),
                    stamp: Some(Stamp::of(&stat)),
                    ends_whole: uidlist::whole_length(&octets) == octets.len(),
                };
                self.cache.set_list(Some(known.clone()));
                Ok(Some(known))
            }
            Err(reason @ (UidlistError::Header | UidlistError::Order(_) | UidlistError::Size)) => {
                tracing::warn!(folder = %self.path, %reason, "dovecot-uidlist is of no use; all uids are given anew");
                Ok(None)
            }
        }
    }

    /// The uid list, to change and then to [store](Self::store_list) it, both under its lock.
    pub(super) fn take_list(&self, _lock: &Dotlock) -> Result<Option<KnownList>, MailboxError> {
        let known = self.known_list()?;
        self.cache.set_list(None);
        Ok(known)
    }

    /// Writes what changed of the uid list, durably: new lines at its end, anything else as a new file.
    pub(super) fn store_list(&self, mut known: KnownList, _lock: &Dotlock) -> Result<(), MailboxError> {
        let written = match (known.list.unwritten(), known.stamp) {
            (Unwritten::Nothing, _) => {
                self.cache.set_list(Some(known));
                return Ok(());
            }
            (Unwritten::LinesAfter(count), Some(stamp)) if known.ends_whole => {
                add_lines(self.directory.as_fd(), stamp, &known.list.render_after(count))
            }
            (Unwritten::LinesAfter(_) | Unwritten::Whole, _) => {
                replace_file(self.directory.as_fd(), uidlist::FILE, &known.list.render())
            }
        };
        let stamp = written.and_then(|()| {
            let stat = rustix::fs::statat(&self.directory, uidlist::FILE, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(Stamp::of(&stat))
        });
        let stamp = stamp.map_err(|error| self.failed("writing dovecot-uidlist", error))?;
        rehome_fault::step("maildir.uidlist");
        known.list_mut().set_written();
        known.stamp = Some(stamp);
        known.ends_whole = true;
        self.cache.set_list(Some(known));
        Ok(())
    }

    /// The folder's keywords.
    pub(super) fn read_keywords(&self) -> Result<Keywords, MailboxError> {
        let octets = read_list(self.directory.as_fd(), keywords::FILE)
            .map_err(|error| self.failed("reading dovecot-keywords", error))?;
        Ok(Keywords::parse(&octets.unwrap_or_default()))
    }

    /// Writes the folder's keywords, durably, under their own lock. The caller holds the uid list's lock too, as
    /// Dovecot does when keywords change.
    pub(super) fn write_keywords(&self, keywords: &Keywords) -> Result<(), MailboxError> {
        let _lock = self.lock(keywords::FILE)?;
        replace_file(self.directory.as_fd(), keywords::FILE, &keywords.render())
            .map_err(|error| self.failed("writing dovecot-keywords", error))?;
        rehome_fault::step("maildir.keywords");
        Ok(())
    }

    /// Takes the dotlock of one of the folder's lists.
    pub(super) fn lock(&self, file: &str) -> Result<Dotlock, MailboxError> {
        Dotlock::acquire(self.directory.as_fd(), file).map_err(|error| self.failed(&format!("locking {file}"), error))
    }
}

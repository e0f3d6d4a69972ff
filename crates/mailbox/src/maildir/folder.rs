//! One folder's directories, opened so that no symbolic link below the root is ever followed, and what lies in them.

use super::error::{failed, missing};
use super::keywords::{self, Keywords};
use super::names;
use super::uidlist::{self, Uidlist, UidlistError, base_of};
use crate::{FolderPath, MailboxError};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Mode of directories that we make.
pub(super) const DIRECTORY_MODE: Mode = Mode::RWXU;
/// Mode of files that we make.
pub(super) const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// Largest `dovecot-uidlist` or other list that is read, in octets: about ten million items.
const MAX_LIST: u64 = 1 << 30;

/// A folder, opened.
pub(super) struct FolderDirectory {
    /// For messages.
    pub(super) path: FolderPath,
    pub(super) directory: OwnedFd,
    pub(super) cur: OwnedFd,
    pub(super) new: OwnedFd,
    pub(super) tmp: OwnedFd,
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

/// What a scan saw.
pub(super) struct Scan {
    pub(super) files: Vec<Found>,
    /// Neither directory changed while it was read.
    pub(super) stable: bool,
}

impl Scan {
    /// Files by base name; of two with one base the one seen last (`cur` is read after `new`).
    pub(super) fn by_base(&self) -> HashMap<&[u8], &Found> {
        self.files.iter().map(|found| (found.base(), found)).collect()
    }

    /// Files whose base name another file seen before has too.
    pub(super) fn doubles(&self) -> Vec<&Found> {
        let mut seen = HashSet::with_capacity(self.files.len());
        self.files.iter().filter(|found| !seen.insert(found.base())).collect()
    }
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
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => std::fs::File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut octets = Vec::new();
    file.take(limit + 1).read_to_end(&mut octets)?;
    if octets.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{name} is larger than {limit} octets"),
        ));
    }
    Ok(Some(octets))
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

/// A directory's names with their types, `.` and `..` apart.
pub(super) fn entries(directory: BorrowedFd<'_>) -> Result<Vec<(Vec<u8>, FileType)>, Errno> {
    let mut found = Vec::new();
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
        found.push((name.to_vec(), kind));
    }
    Ok(found)
}

impl FolderDirectory {
    /// Opens a folder; none when it is not there (a directory without `cur` is none).
    pub(super) fn open(root: BorrowedFd<'_>, path: &FolderPath) -> Result<Option<Self>, MailboxError> {
        let Some(name) = names::directory_of(path) else {
            return Ok(None);
        };
        Self::open_named(root, &name.directory, path)
    }

    /// Opens a folder by the name of its directory.
    pub(super) fn open_named(
        root: BorrowedFd<'_>,
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
        Ok(Some(Self {
            path: path.clone(),
            directory,
            cur,
            new,
            tmp,
        }))
    }

    /// Opens a folder that must be there.
    pub(super) fn existing(root: BorrowedFd<'_>, path: &FolderPath) -> Result<Self, MailboxError> {
        Self::open(root, path)?.ok_or_else(|| missing(path))
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
        let times = || -> Result<_, Errno> {
            let (cur, new) = (rustix::fs::fstat(&self.cur)?, rustix::fs::fstat(&self.new)?);
            Ok((cur.st_mtime, cur.st_mtime_nsec, new.st_mtime, new.st_mtime_nsec))
        };
        let before = times()?;
        let mut files = Vec::new();
        // Files move from `new` to `cur`, so one that moves meanwhile is seen once or twice, not never.
        for sub in [Sub::New, Sub::Cur] {
            for (name, kind) in entries(self.sub(sub))? {
                if kind == FileType::RegularFile && name[0] != b'.' {
                    files.push(Found { sub, name });
                }
            }
        }
        Ok(Scan {
            files,
            stable: before == times()?,
        })
    }

    /// The uid list as it stands; none when it is missing or of no use.
    pub(super) fn read_uidlist(&self) -> Result<Option<Uidlist>, MailboxError> {
        let octets = read_list(self.directory.as_fd(), uidlist::FILE)
            .map_err(|error| self.failed("reading dovecot-uidlist", error))?;
        match octets.as_deref().map(Uidlist::parse) {
            None => Ok(None),
            Some(Ok(list)) => Ok(Some(list)),
            Some(Err(reason @ (UidlistError::Header | UidlistError::Order(_)))) => {
                tracing::warn!(folder = %self.path, %reason, "dovecot-uidlist is of no use; all uids are given anew");
                Ok(None)
            }
        }
    }

    /// Writes the uid list, durably. The caller holds its lock.
    pub(super) fn write_uidlist(&self, list: &Uidlist) -> Result<(), MailboxError> {
        replace_file(self.directory.as_fd(), uidlist::FILE, &list.render())
            .map_err(|error| self.failed("writing dovecot-uidlist", error))?;
        rehome_fault::step("maildir.uidlist");
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
    pub(super) fn lock(&self, file: &str) -> Result<super::dotlock::Dotlock, MailboxError> {
        super::dotlock::Dotlock::acquire(self.directory.as_fd(), file)
            .map_err(|error| self.failed(&format!("locking {file}"), error))
    }
}

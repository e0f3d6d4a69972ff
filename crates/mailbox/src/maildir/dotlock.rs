//! Dovecot's dotlocks, under which `dovecot-uidlist`, `dovecot-keywords` and `subscriptions` change.
//!
//! The lock of `F` is the file `F.lock`, which must not be there, holding `pid:host` of its owner. As Dovecot does it, a
//! lock whose owner is a process of this host is overridden once that process is gone, and only then; any other once
//! neither the lock nor `F` has changed for 120 seconds. Owners of one process exclude each other in memory first, so
//! that a lock file with our own pid is left over from an earlier process.
//!
//! A power cut leaves two kinds more: a lock older than the system's start, whose pid may be another process by now, and
//! one that holds nothing, or NUL, because its content never came to the disk. Everyone writes the owner at once, so a
//! lock without one is overridden after seconds.

use super::folder;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat};
use rustix::process::{Pid, getpid, test_kill_process};
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Seconds after which a lock of unknown owner is stale if nothing changed.
const STALE_SECONDS: i64 = 120;
/// The same for a lock that holds nothing.
const EMPTY_STALE_SECONDS: i64 = 2;
/// How long to wait for a lock: long enough for a stale one to be seen as such.
const WAIT: Duration = Duration::from_secs(125);
const LONGEST_SLEEP: Duration = Duration::from_millis(100);
/// Longest content of a lock file that is looked at.
const MAX_CONTENT: u64 = 512;

/// Folder (device and inode) and file name of a lock.
type Key = (u64, u64, String);

static HELD: Mutex<BTreeSet<Key>> = Mutex::new(BTreeSet::new());

fn held() -> MutexGuard<'static, BTreeSet<Key>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place in [`HELD`], given back on drop.
struct Slot(Key);

impl Slot {
    fn wait_for(key: Key, deadline: Instant) -> io::Result<Self> {
        let mut sleep = Duration::from_millis(1);
        while !held().insert(key.clone()) {
            pause(&mut sleep, deadline)?;
        }
        Ok(Self(key))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        held().remove(&self.0);
    }
}

fn pause(sleep: &mut Duration, deadline: Instant) -> io::Result<()> {
    if Instant::now() >= deadline {
        return Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "another process holds the lock",
        ));
    }
    std::thread::sleep(*sleep);
    *sleep = (*sleep * 2).min(LONGEST_SLEEP);
    Ok(())
}

/// A held lock; removed on drop.
pub(super) struct Dotlock {
    directory: OwnedFd,
    lock_name: String,
    inode: u64,
    _slot: Slot,
}

impl Dotlock {
    /// Waits for the lock of `file` in `directory`, blocking; error `TimedOut` after 125 seconds.
    pub(super) fn acquire(directory: BorrowedFd<'_>, file: &str) -> io::Result<Self> {
        let deadline = Instant::now() + WAIT;
        let folder = rustix::fs::fstat(directory)?;
        let slot = Slot::wait_for((folder.st_dev, folder.st_ino, file.to_owned()), deadline)?;
        let lock_name = format!("{file}.lock");
        let owned = directory.try_clone_to_owned()?;
        let owner = format!("{}:{}", getpid().as_raw_nonzero(), host_name());
        let mut sleep = Duration::from_millis(1);
        loop {
            match create(directory, &lock_name, &owner) {
                Ok(inode) => {
                    return Ok(Self {
                        directory: owned,
                        lock_name,
                        inode,
                        _slot: slot,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            if !override_stale(directory, file, &lock_name)? {
                pause(&mut sleep, deadline)?;
            }
        }
    }
}

impl Drop for Dotlock {
    fn drop(&mut self) {
        let ours = stat(self.directory.as_fd(), &self.lock_name).is_ok_and(|stat| stat.st_ino == self.inode);
        if !ours || rustix::fs::unlinkat(&self.directory, &self.lock_name, AtFlags::empty()).is_err() {
            tracing::warn!(
                lock = self.lock_name,
                "a lock was overridden by another process or could not be removed"
            );
        }
    }
}

fn create(directory: BorrowedFd<'_>, lock_name: &str, owner: &str) -> io::Result<u64> {
    match create_whole(directory, lock_name, owner) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {}
        made => return made,
    }
    // A file system without files that have no name yet.
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = std::fs::File::from(rustix::fs::openat(
        directory,
        lock_name,
        flags,
        Mode::from_raw_mode(0o600),
    )?);
    let written = file
        .write_all(owner.as_bytes())
        .and_then(|()| Ok(rustix::fs::fstat(&file)?.st_ino));
    if written.is_err() {
        // A full disk must not leave a lock behind that names nobody.
        rustix::fs::unlinkat(directory, lock_name, AtFlags::empty())?;
    }
    written
}

/// The lock gets its name when its owner stands in it: a process that ends in between leaves nothing behind.
fn create_whole(directory: BorrowedFd<'_>, lock_name: &str, owner: &str) -> io::Result<u64> {
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    let nameless = rustix::fs::openat(directory, ".", flags, Mode::from_raw_mode(0o600))?;
    let mut file = std::fs::File::from(nameless);
    file.write_all(owner.as_bytes())?;
    let itself = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, itself, directory, lock_name, AtFlags::SYMLINK_FOLLOW)?;
    Ok(rustix::fs::fstat(&file)?.st_ino)
}

fn stat(directory: BorrowedFd<'_>, name: &str) -> io::Result<Stat> {
    Ok(rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Removes the lock if it is stale or gone; true if it is worth trying again at once.
fn override_stale(directory: BorrowedFd<'_>, file: &str, lock_name: &str) -> io::Result<bool> {
    let seen = match stat(directory, lock_name) {
        Ok(seen) => seen,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    let content = folder::read_small(directory, lock_name, MAX_CONTENT)?.unwrap_or_default();
    let changed = stat(directory, file).map_or(seen.st_mtime, |target| target.st_mtime.max(seen.st_mtime));
    let state = LockState {
        content: &content,
        our_host: &host_name(),
        our_pid: getpid().as_raw_nonzero().get(),
        unchanged_seconds: jiff::Timestamp::now().as_second().saturating_sub(changed),
        is_from_before_start: system_start().is_some_and(|start| seen.st_mtime < start),
    };
    if !state.is_stale(is_alive) {
        return Ok(false);
    }
    match stat(directory, lock_name) {
        Ok(now) if now.st_ino == seen.st_ino && now.st_mtime == seen.st_mtime => {
            tracing::warn!(lock = lock_name, "overriding a stale lock");
            match rustix::fs::unlinkat(directory, lock_name, AtFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(true),
                Err(error) => Err(error.into()),
            }
        }
        Ok(_) | Err(_) => Ok(true),
    }
}

fn is_alive(pid: i32) -> bool {
    match Pid::from_raw(pid) {
        // Not permitted means that it is there.
        Some(pid) => test_kill_process(pid) != Err(rustix::io::Errno::SRCH),
        None => false,
    }
}

/// When this system was started, in seconds; none where it does not tell.
fn system_start() -> Option<i64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

/// This host's name, as Dovecot has it.
pub(super) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// What is known about a lock that is in the way.
struct LockState<'a> {
    content: &'a [u8],
    our_host: &'a str,
    our_pid: i32,
    unchanged_seconds: i64,
    is_from_before_start: bool,
}

impl LockState<'_> {
    fn is_stale(&self, is_alive: impl Fn(i32) -> bool) -> bool {
        let owner = std::str::from_utf8(self.content)
            .ok()
            .and_then(|text| text.trim().split_once(':'));
        let pid = owner
            .filter(|(_, host)| !host.is_empty() && *host == self.our_host)
            .and_then(|(pid, _)| pid.parse().ok())
            .filter(|pid| *pid > 0);
        match pid {
            Some(pid) => pid == self.our_pid || self.is_from_before_start || !is_alive(pid),
            None if self.content.iter().all(|octet| *octet == 0) => self.unchanged_seconds > EMPTY_STALE_SECONDS,
            None => self.unchanged_seconds > STALE_SECONDS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_a_lock_is_stale() {
        let rows = [
            ("7:here", 0, false, true),
            ("8:here", 1000, false, false),
            ("8:here", 1000, true, true),
            ("9:here", 0, false, true),
            ("9:there", 120, true, false),
            ("9:there", 121, false, true),
            ("", 2, false, false),
            ("", 3, false, true),
            ("\0\0\0", 2, false, false),
            ("\0\0\0", 3, false, true),
            ("x:here", 120, false, false),
            ("x:here", 121, false, true),
        ];
        for (content, unchanged_seconds, is_from_before_start, stale) in rows {
            let state = LockState {
                content: content.as_bytes(),
                our_host: "here",
                our_pid: 7,
                unchanged_seconds,
                is_from_before_start,
            };
            assert_eq!(state.is_stale(|pid| pid == 8), stale, "{content} {unchanged_seconds}");
        }
    }

    #[test]
    fn one_holder_at_a_time_and_left_overs_are_overridden() {
        let folder = tempfile::tempdir().unwrap();
        let directory = std::fs::File::open(folder.path()).unwrap();
        let lock_file = folder.path().join("list.lock");
        // Left by an earlier process of this host with our pid.
        std::fs::write(&lock_file, format!("{}:{}", std::process::id(), host_name())).unwrap();
        let count = Mutex::new((0, 0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let lock = Dotlock::acquire(directory.as_fd(), "list").unwrap();
                        assert!(lock_file.exists());
                        count.lock().unwrap().0 += 1;
                        assert_eq!(count.lock().unwrap().0, 1, "two holders");
                        count.lock().unwrap().0 -= 1;
                        count.lock().unwrap().1 += 1;
                        drop(lock);
                    }
                });
            }
        });
        assert_eq!(count.lock().unwrap().1, 80);
        assert!(!lock_file.exists());
    }

    /// A process that ended between making its lock and writing itself into it kept a folder closed for two minutes.
    #[test]
    fn a_lock_never_stands_without_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let directory = std::fs::File::open(folder.path()).unwrap();
        let lock_file = folder.path().join("list.lock");
        let ended = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut seen = 0;
                while !ended.load(std::sync::atomic::Ordering::SeqCst) {
                    if let Ok(content) = std::fs::read(&lock_file) {
                        assert_ne!(content, b"", "nobody stands in it");
                        seen += 1;
                    }
                }
                seen
            });
            let started = Instant::now();
            while !reader.is_finished() && started.elapsed() < Duration::from_millis(300) {
                drop(Dotlock::acquire(directory.as_fd(), "list").unwrap());
            }
            ended.store(true, std::sync::atomic::Ordering::SeqCst);
            assert!(reader.join().unwrap() > 0, "it was seen");
        });
    }

    #[test]
    fn a_lock_of_a_dead_process_is_overridden() {
        let folder = tempfile::tempdir().unwrap();
        let directory = std::fs::File::open(folder.path()).unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        std::fs::write(folder.path().join("list.lock"), format!("{pid}:{}", host_name())).unwrap();
        Dotlock::acquire(directory.as_fd(), "list").unwrap();
    }
}

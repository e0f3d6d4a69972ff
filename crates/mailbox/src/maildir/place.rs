//! Where a mailbox lies: staging, the served place, the closed place, and the lock that deliveries share.
//!
//! The directories that [`show`] and [`close`] move must lie on one file system, staging and closed ones outside every
//! served root.

use super::MaildirMailbox;
use super::error::{broken_task, failed};
use crate::MailboxError;
use rustix::fs::{CWD, RenameFlags};
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Contents that grow unseen.
#[derive(Debug)]
pub struct Staging;

impl Staging {
    /// Opens the mailbox at `staging`, made empty (mode 0700, parents too) if it is not there. It has no inbox until
    /// one is created, so that the inbox too can be given its numbers.
    pub async fn open(staging: &Path) -> Result<MaildirMailbox, MailboxError> {
        let what = "opening a staging folder";
        let path = staging.to_owned();
        let made = tokio::task::spawn_blocking(move || make(&path))
            .await
            .map_err(|error| broken_task(what, &error))?;
        made.map_err(|error| failed(what, error))?;
        MaildirMailbox::open(staging).await
    }
}

fn make(staging: &Path) -> io::Result<()> {
    if std::fs::symlink_metadata(staging).is_ok_and(|metadata| metadata.is_dir()) {
        return Ok(());
    }
    make_directories(staging, 0o700)?;
    rehome_fault::step("maildir.staging");
    Ok(())
}

/// Puts a staged mailbox in its served place, durably. Done already (staging gone, served there) is success. Error
/// `AlreadyExists` when something is there while staging still is; `NotFound` when neither is. Blocking, short.
pub fn show(staging: &Path, served: &Path) -> io::Result<()> {
    move_directory(staging, served, "maildir.show")
}

/// Takes a served mailbox out of its place, durably. Done already is success; errors as for [`show`]. Blocking, short.
pub fn close(served: &Path, closed: &Path) -> io::Result<()> {
    move_directory(served, closed, "maildir.close")
}

/// Makes `copy` a copy of the closed mailbox `closed`, in place of what is there, durably: messages are links to the same
/// files, which are never changed but replaced, everything else is copied. Blocking, as long as there are messages.
pub fn copy_linked(closed: &Path, copy: &Path) -> io::Result<()> {
    if !std::fs::symlink_metadata(closed)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let name = copy.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    // Beside it, so that half a copy is never taken for a whole one.
    let fresh = copy.with_file_name(format!(".{name}.copying"));
    for old in [&fresh, &copy.to_owned()] {
        match std::fs::remove_dir_all(old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    copy_directory(closed, &fresh, false)?;
    std::fs::rename(&fresh, copy)?;
    sync_parent(copy)?;
    rehome_fault::step("maildir.copied");
    Ok(())
}

fn copy_directory(from: &Path, to: &Path, messages: bool) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().mode(0o700).create(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        let target = to.join(&name);
        if kind.is_dir() {
            // What was under way when it was closed was never delivered.
            if name == "tmp" {
                std::fs::DirBuilder::new().mode(0o700).create(&target)?;
            } else {
                copy_directory(&entry.path(), &target, name == "cur" || name == "new")?;
            }
        } else if kind.is_file() && messages {
            std::fs::hard_link(entry.path(), &target)?;
        } else if kind.is_file() {
            std::fs::copy(entry.path(), &target)?;
            File::open(&target)?.sync_all()?;
        }
    }
    File::open(to)?.sync_all()
}

fn move_directory(from: &Path, to: &Path, step: &'static str) -> io::Result<()> {
    let is_directory = |path: &Path| match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(true),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::NotADirectory,
            format!("{} is no directory", path.display()),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    };
    match (is_directory(from)?, is_directory(to)?) {
        (true, true) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("{} is there already", to.display()),
        )),
        (false, false) => Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("{} is not there", from.display()),
        )),
        // A crash may have come between rename and fsync.
        (false, true) => sync_both(from, to),
        (true, false) => {
            if let Some(parent) = to.parent() {
                make_directories(parent, 0o777)?;
            }
            rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?;
            sync_both(from, to)?;
            rehome_fault::step(step);
            Ok(())
        }
    }
}

/// Makes a directory with those that lead to it, as far as they are missing. Each is on the disk before the next is made: what
/// is synced in a directory is lost with the directory's own entry. Blocking, short.
pub fn make_directories(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if path.as_os_str().is_empty() || std::fs::metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_directories(parent, mode)?;
    }
    match std::fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    sync_parent(path)
}

fn sync_both(from: &Path, to: &Path) -> io::Result<()> {
    sync_parent(to)?;
    match sync_parent(from) {
        // The parent of a place left long ago may have been cleared away.
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// The lock between deliveries, which share it, and the cutover, which waits until none is in flight. An advisory
/// `flock` on a file of the caller's choice, which is made and never removed. Released on drop or with the process.
#[derive(Debug)]
pub struct MailboxLock {
    _file: File,
}

/// Why a mailbox lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Others held it for the whole time.
    #[error("the mailbox was in use for {} seconds", waited.as_secs())]
    InUse {
        /// How long it was waited.
        waited: Duration,
    },
    /// The lock file cannot be used.
    #[error("the lock file {} cannot be used", path.display())]
    File {
        /// The lock file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// How a lock is held.
#[derive(Clone, Copy)]
enum Mode {
    Shared,
    Exclusive,
}

impl MailboxLock {
    /// Takes the lock together with other sharers; waits at most `wait` for an exclusive holder to go.
    pub async fn shared(path: &Path, wait: Duration) -> Result<Self, LockError> {
        Self::acquire(path, wait, Mode::Shared).await
    }

    /// Takes the lock alone; waits at most `wait` for all others to go.
    pub async fn exclusive(path: &Path, wait: Duration) -> Result<Self, LockError> {
        Self::acquire(path, wait, Mode::Exclusive).await
    }

    async fn acquire(path: &Path, wait: Duration, mode: Mode) -> Result<Self, LockError> {
        let started = Instant::now();
        let mut pause = Duration::from_millis(2);
        loop {
            let file_error = |source| LockError::File {
                path: path.to_owned(),
                source,
            };
            let owned = path.to_owned();
            let tried = tokio::task::spawn_blocking(move || try_lock(&owned, mode)).await;
            if let Some(file) = tried
                .map_err(|error| file_error(io::Error::other(error)))?
                .map_err(file_error)?
            {
                return Ok(Self { _file: file });
            }
            if started.elapsed() >= wait {
                return Err(LockError::InUse { waited: wait });
            }
            tokio::time::sleep(pause.min(wait.saturating_sub(started.elapsed()))).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }
}

fn try_lock(path: &Path, mode: Mode) -> io::Result<Option<File>> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)?;
    let locked = match mode {
        Mode::Shared => file.try_lock_shared(),
        Mode::Exclusive => file.try_lock(),
    };
    match locked {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FolderPath, Mailbox, NewFolder};

    #[tokio::test]
    async fn staging_is_shown_once() {
        let folder = tempfile::tempdir().unwrap();
        let (staging, served) = (folder.path().join("staging/one"), folder.path().join("served/one"));
        let mailbox = Staging::open(&staging).await.unwrap();
        assert!(mailbox.folders().await.unwrap().is_empty());
        mailbox
            .create_folder(&FolderPath::inbox(), &NewFolder::default())
            .await
            .unwrap();
        assert_eq!(
            show(&folder.path().join("none"), &served).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        show(&staging, &served).unwrap();
        show(&staging, &served).unwrap();
        assert_eq!(
            MaildirMailbox::open(&served)
                .await
                .unwrap()
                .folders()
                .await
                .unwrap()
                .len(),
            1
        );
        Staging::open(&staging).await.unwrap();
        assert_eq!(
            show(&staging, &served).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        let closed = folder.path().join("closed/one");
        close(&served, &closed).unwrap();
        close(&served, &closed).unwrap();
        assert!(!served.exists() && closed.join("cur").exists());
    }

    #[tokio::test]
    async fn an_empty_directory_in_the_served_place_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (staging, served) = (folder.path().join("staging"), folder.path().join("served"));
        Staging::open(&staging).await.unwrap();
        std::fs::create_dir(&served).unwrap();
        assert_eq!(
            show(&staging, &served).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        std::fs::remove_dir(&served).unwrap();
        std::os::unix::fs::symlink(&staging, &served).unwrap();
        assert!(show(&staging, &served).is_err(), "a link is not followed");
    }

    #[tokio::test]
    async fn sharers_and_one_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let long = Duration::from_secs(60);
        let one = MailboxLock::shared(&path, long).await.unwrap();
        let two = MailboxLock::shared(&path, long).await.unwrap();
        assert!(matches!(
            MailboxLock::exclusive(&path, Duration::ZERO).await,
            Err(LockError::InUse { .. })
        ));
        let waiting = tokio::spawn({
            let path = path.clone();
            async move { MailboxLock::exclusive(&path, long).await }
        });
        drop((one, two));
        let alone = waiting.await.unwrap().unwrap();
        assert!(matches!(
            MailboxLock::shared(&path, Duration::ZERO).await,
            Err(LockError::InUse { .. })
        ));
        drop(alone);
        MailboxLock::shared(&path, long).await.unwrap();
        assert!(matches!(
            MailboxLock::shared(&folder.path().join("no/lock"), long).await,
            Err(LockError::File { .. })
        ));
    }

    #[tokio::test]
    async fn a_copy_of_closed_contents_changes_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (closed, copy) = (folder.path().join("closed"), folder.path().join("staging/move"));
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        let inbox = FolderPath::inbox();
        let mailbox = Staging::open(&closed).await.unwrap();
        mailbox.create_folder(&inbox, &NewFolder::default()).await.unwrap();
        mailbox
            .create_folder(&FolderPath(vec!["Sent".into()]), &NewFolder::default())
            .await
            .unwrap();
        std::fs::write(closed.join("cur/1.a:2,S"), b"one\r\n").unwrap();
        std::fs::write(closed.join(".Sent/cur/2.b:2,"), b"two\r\n").unwrap();
        std::fs::write(closed.join("tmp/3.c"), b"half").unwrap();
        let before = mailbox.list(&inbox, None).await.unwrap();
        // Over what an interrupted copy left.
        for _ in 0..2 {
            copy_linked(&closed, &copy).unwrap();
            std::fs::write(copy.join("cur/rest"), b"x").unwrap();
        }
        copy_linked(&closed, &copy).unwrap();
        let copied = MaildirMailbox::open(&copy).await.unwrap();
        let after = copied.list(&inbox, None).await.unwrap();
        assert_eq!((after.status, &after.items), (before.status, &before.items));
        assert_eq!(copied.folders().await.unwrap().len(), 2);
        assert!(std::fs::read_dir(copy.join("tmp")).unwrap().next().is_none());
        let uid = after.items[0].uid;
        let at = crate::FolderRef::new(&inbox, after.status.uid_validity);
        let flagged = rehome_wire::flags::Flags::from_names(["\\Flagged"]);
        copied.set_flags(at, &[(uid, flagged)]).await.unwrap();
        copied.remove(at, &[uid]).await.unwrap();
        drop(mailbox);
        let kept = MaildirMailbox::open(&closed)
            .await
            .unwrap()
            .list(&inbox, None)
            .await
            .unwrap();
        assert_eq!(kept.items, before.items, "what is kept stays as it was");
        assert!(copy_linked(&folder.path().join("none"), &copy).is_err());
    }
}

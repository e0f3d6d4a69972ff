//! What is remembered of folders between calls, so that nothing is read again that has not changed.
//!
//! The uid list is taken as unchanged while its file is the same one with the same size and times: it changes under
//! its lock only, by lines at its end or by a new file. Files seen are of two uses. Where both directories have the
//! times that they had when they were read, and these were not of the last seconds then, what was seen is what is
//! there. Else it is where to look first: a file that opens under its name is the item, one that does not is looked
//! for in the directories.

use super::folder::Sub;
use super::present::Present;
use super::uidlist::Uidlist;
use crate::Uid;
use rustix::fs::Stat;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most folders of a mailbox that are remembered.
const MAX_FOLDERS: usize = 64;
/// Most memory that a mailbox's folders take, octets; the one used last is kept in any case.
const MAX_WEIGHT: usize = 24 << 20;

/// A directory's identity: device and inode of the folder, inode of its `cur`.
pub(super) type Key = (u64, u64, u64);

/// A time of last change, to the nanosecond.
pub(super) type Time = (i64, i64);

/// What tells that a list is the one that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    size: i64,
    modified: Time,
    changed: Time,
}

impl Stamp {
    pub(super) fn of(stat: &Stat) -> Self {
        // The types of these fields differ with how the system is called: with or without the C library.
        #[allow(clippy::useless_conversion)]
        let nanoseconds = |value| i64::try_from(value).unwrap_or(0);
        Self {
            inode: stat.st_ino,
            size: stat.st_size,
            modified: (stat.st_mtime, nanoseconds(stat.st_mtime_nsec)),
            changed: (stat.st_ctime, nanoseconds(stat.st_ctime_nsec)),
        }
    }

    /// Whether it is the same file, with as much in it.
    pub(super) fn is_same_content(&self, other: &Self) -> bool {
        (self.inode, self.size) == (other.inode, other.size)
    }

    /// The file's size, octets.
    pub(super) fn size(&self) -> u64 {
        u64::try_from(self.size).unwrap_or(0)
    }
}

/// A uid list with the file that it was read from.
#[derive(Clone)]
pub(super) struct KnownList {
    pub(super) list: Arc<Uidlist>,
    /// None where it is not in a file.
    pub(super) stamp: Option<Stamp>,
    /// The file ends with a whole line.
    pub(super) ends_whole: bool,
}

impl KnownList {
    /// A list that is to be written as a new file.
    pub(super) fn new(list: Uidlist) -> Self {
        Self {
            list: Arc::new(list),
            stamp: None,
            ends_whole: true,
        }
    }

    /// The list, to change it.
    pub(super) fn list_mut(&mut self) -> &mut Uidlist {
        Arc::make_mut(&mut self.list)
    }
}

/// The state in which files were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) list: Stamp,
    pub(super) cur: Time,
    pub(super) new: Time,
}

/// What is remembered of one folder.
#[derive(Default)]
pub(super) struct FolderCache(Mutex<State>);

#[derive(Default)]
struct State {
    list: Option<KnownList>,
    files: Option<KnownFiles>,
}

struct KnownFiles {
    uid_validity: u32,
    present: Arc<Present>,
    seen: Option<Seen>,
}

impl FolderCache {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The list, if it is of this file.
    pub(super) fn list(&self, stamp: &Stamp) -> Option<KnownList> {
        self.state()
            .list
            .clone()
            .filter(|known| known.stamp.as_ref() == Some(stamp))
    }

    /// Remembers a list, or that there is none.
    pub(super) fn set_list(&self, list: Option<KnownList>) {
        self.state().list = list;
    }

    /// The files, if this is the state in which they were seen.
    pub(super) fn seen(&self, seen: &Seen) -> Option<Arc<Present>> {
        let state = self.state();
        let files = state.files.as_ref()?;
        (files.seen.as_ref() == Some(seen)).then(|| Arc::clone(&files.present))
    }

    /// Where files were last, of this validity; each may be elsewhere by now.
    pub(super) fn hints(&self, uid_validity: u32) -> Option<Arc<Present>> {
        let state = self.state();
        let files = state.files.as_ref()?;
        (files.uid_validity == uid_validity).then(|| Arc::clone(&files.present))
    }

    /// Remembers what was seen; `seen` where that can be relied on.
    pub(super) fn set_files(&self, uid_validity: u32, present: Arc<Present>, seen: Option<Seen>) {
        self.state().files = Some(KnownFiles {
            uid_validity,
            present,
            seen,
        });
    }

    /// Notes files that we put somewhere.
    pub(super) fn put<'a>(&self, uid_validity: u32, files: impl Iterator<Item = (Uid, Sub, &'a [u8])>) {
        self.change(uid_validity, |present| {
            for (uid, sub, info) in files {
                present.put(uid, sub, info);
            }
        });
    }

    /// Notes files that we removed.
    pub(super) fn forget(&self, uid_validity: u32, gone: impl Fn(Uid) -> bool) {
        self.change(uid_validity, |present| present.forget(gone));
    }

    fn change(&self, uid_validity: u32, change: impl FnOnce(&mut Present)) {
        let mut state = self.state();
        if let Some(files) = state.files.as_mut().filter(|files| files.uid_validity == uid_validity) {
            change(Arc::make_mut(&mut files.present));
            files.seen = None;
        }
    }

    fn weight(&self) -> usize {
        let state = self.state();
        let list = state.list.as_ref().map_or(0, |known| known.list.weight());
        list + state.files.as_ref().map_or(0, |files| files.present.weight())
    }
}

/// What is remembered of a mailbox's folders.
#[derive(Default)]
pub(super) struct Caches(Mutex<Vec<(Key, Arc<FolderCache>)>>);

impl Caches {
    /// What is remembered of a folder. Others are forgotten, those first that were not used for longest, where there
    /// are too many.
    pub(super) fn of(&self, key: Key) -> Arc<FolderCache> {
        let mut folders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = folders.iter().position(|(known, _)| *known == key);
        let used = at.map_or_else(|| (key, Arc::default()), |at| folders.remove(at));
        let cache = Arc::clone(&used.1);
        folders.push(used);
        let mut weight: usize = folders.iter().map(|(_, cache)| cache.weight()).sum();
        let mut surplus = 0;
        for (_, cache) in &folders[..folders.len() - 1] {
            if weight <= MAX_WEIGHT && folders.len() - surplus <= MAX_FOLDERS {
                break;
            }
            weight -= cache.weight().min(weight);
            surplus += 1;
        }
        folders.drain(..surplus);
        cache
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_is_forgotten() {
        let caches = Caches::default();
        let first = caches.of((1, 0, 0));
        for inode in 1..MAX_FOLDERS as u64 {
            caches.of((1, inode, 0));
        }
        assert!(Arc::ptr_eq(&first, &caches.of((1, 0, 0))));
        caches.of((1, 1000, 0));
        assert!(Arc::ptr_eq(&first, &caches.of((1, 0, 0))), "used short ago");
        let mut present = Present::default();
        for uid in 1..2_000_000 {
            present.put(uid, Sub::Cur, b"");
        }
        first.set_files(1, Arc::new(present), None);
        assert!(Arc::ptr_eq(&first, &caches.of((1, 0, 0))), "the one in use stays");
        caches.of((1, 2, 0));
        assert!(!Arc::ptr_eq(&first, &caches.of((1, 0, 0))), "it is too large to stay");
    }
}

//! What a folder holds: uid list and files brought together.

use super::cache::{KnownList, Seen};
use super::dotlock::Dotlock;
use super::folder::{FolderDirectory, Found, Scan};
use super::item_name::{arrival, flags_of};
use super::keywords::Keywords;
use super::present::{Place, Present};
use super::uidlist::{self, Uidlist, base_of};
use super::validity::Validities;
use crate::{ErrorScope, FolderStatus, ItemMeta, Listing, ListingScope, MailboxError, Retry, Uid};
use rehome_wire::flags::Flags;
use rustix::fs::AtFlags;
use rustix::io::Errno;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

/// How often a folder that changes under the scan is scanned again before it is given up for now.
const ATTEMPTS: usize = 20;
/// Attempts without the uid list's lock. Dovecot renames and removes files under it only.
const UNLOCKED_ATTEMPTS: usize = 2;
/// Longer than a file system's clock ticks.
const PAUSE: Duration = Duration::from_millis(25);
/// Files that are worth a thread of their own to look at them.
const FILES_FOR_A_THREAD: usize = 2000;
/// Most threads that look at files.
const MAX_THREADS: usize = 4;

/// A folder's list and files, every file with its uid.
#[derive(Clone)]
pub(super) struct Settled {
    pub(super) list: Arc<Uidlist>,
    pub(super) keywords: Arc<Keywords>,
    /// The files that are there.
    pub(super) present: Arc<Present>,
}

impl Settled {
    /// The folder's numbers.
    pub(super) fn status(&self) -> FolderStatus {
        FolderStatus {
            uid_validity: self.list.uid_validity,
            uid_next: self.list.uid_next(),
            exists: u32::try_from(self.present.len()).unwrap_or(u32::MAX),
            highest_mod_seq: None,
        }
    }

    /// The file of a uid.
    pub(super) fn found(&self, uid: Uid) -> Option<Found> {
        let (sub, info) = self.present.get(uid)?;
        let name = [self.list.base(uid)?, info].concat();
        Some(Found { sub, name })
    }
}

/// Brings list and files together: files without uid get one, in the order of their arrival, where they lie. A listed
/// file that a scan misses counts as gone only if a second scan, with the folder unchanged over it, misses it too.
pub(super) fn settle(folder: &FolderDirectory, validities: &Validities) -> Result<Settled, MailboxError> {
    settle_under(folder, validities, None)
}

/// As [`settle`], for who holds the uid list's lock.
pub(super) fn settle_locked(
    folder: &FolderDirectory,
    validities: &Validities,
    lock: &Dotlock,
) -> Result<Settled, MailboxError> {
    settle_under(folder, validities, Some(lock))
}

fn settle_under(
    folder: &FolderDirectory,
    validities: &Validities,
    held: Option<&Dotlock>,
) -> Result<Settled, MailboxError> {
    let mut missed_before: Option<Vec<Uid>> = None;
    for attempt in 0..ATTEMPTS {
        let own = match held {
            None if attempt >= UNLOCKED_ATTEMPTS => Some(folder.lock(uidlist::FILE)?),
            None | Some(_) => None,
        };
        if attempt > 0 {
            std::thread::sleep(PAUSE);
        }
        let lock = held.or(own.as_ref());
        let Some(known) = folder.known_list()? else {
            give_uids(folder, validities, lock)?;
            continue;
        };
        if let Some(present) = seen_before(folder, &known)? {
            return settled(folder, known, present);
        }
        let scan = folder.scan()?;
        let Some(present) = bring_together(&known.list, &scan) else {
            drop(scan);
            drop(known);
            give_uids(folder, validities, lock)?;
            continue;
        };
        let missed = missed(&known.list, &present);
        let gone = |before: &Vec<Uid>| missed.iter().all(|uid| before.binary_search(uid).is_ok());
        if missed.is_empty() || (scan.stable && missed_before.as_ref().is_some_and(gone)) {
            let seen = known
                .stamp
                .zip(scan.times)
                .map(|(list, (cur, new))| Seen { list, cur, new });
            let present = Arc::new(present);
            let uid_validity = known.list.uid_validity;
            folder.cache.set_files(uid_validity, Arc::clone(&present), seen);
            return settled(folder, known, present);
        }
        missed_before = Some(missed);
    }
    Err(MailboxError {
        what: format!("listing folder {}", folder.path),
        cause: "the folder kept changing while it was read".to_owned(),
        scope: ErrorScope::Folder,
        retry: Retry::After(1),
    })
}

/// The files as they were seen, where nothing changed since.
fn seen_before(folder: &FolderDirectory, known: &KnownList) -> Result<Option<Arc<Present>>, MailboxError> {
    let (cur, new) = folder.directory_times()?;
    Ok(known.stamp.and_then(|list| folder.cache.seen(&Seen { list, cur, new })))
}

fn settled(folder: &FolderDirectory, known: KnownList, present: Arc<Present>) -> Result<Settled, MailboxError> {
    Ok(Settled {
        list: known.list,
        keywords: Arc::new(folder.read_keywords()?),
        present,
    })
}

/// What is known without looking at the directories: the list, and where the files were last. None where nothing is.
pub(super) fn remembered(folder: &FolderDirectory) -> Result<Option<Settled>, MailboxError> {
    let Some(known) = folder.known_list()? else {
        return Ok(None);
    };
    match folder.cache.hints(known.list.uid_validity) {
        Some(present) => settled(folder, known, present).map(Some),
        None => Ok(None),
    }
}

/// The files by uid; none where one has no uid, or two have one.
fn bring_together(list: &Uidlist, scan: &Scan) -> Option<Present> {
    let mut all_listed = true;
    let files = scan.files().map_while(|(sub, name)| {
        let base = base_of(name);
        let uid = list.uid_of(base);
        all_listed = uid.is_some();
        Some((uid?, sub, &name[base.len()..]))
    });
    let present = Present::gather(files);
    present.filter(|_| all_listed)
}

/// The listed uids whose files were not seen, ascending.
fn missed(list: &Uidlist, present: &Present) -> Vec<Uid> {
    if list.len() == present.len() {
        return Vec::new();
    }
    let mut files = present.files().iter().peekable();
    let unseen = list.entries().filter(|entry| {
        while files.next_if(|place| place.uid < entry.uid).is_some() {}
        // Of two lines with one name only the later can have a file.
        files.peek().is_none_or(|place| place.uid != entry.uid) && list.uid_of(entry.base) == Some(entry.uid)
    });
    unseen.map(|entry| entry.uid).collect()
}

/// Gives uids to files that have none, and makes the list where there is none.
fn give_uids(folder: &FolderDirectory, validities: &Validities, held: Option<&Dotlock>) -> Result<(), MailboxError> {
    let own = match held {
        None => Some(folder.lock(uidlist::FILE)?),
        Some(_) => None,
    };
    let Some(lock) = held.or(own.as_ref()) else {
        return Ok(());
    };
    let (mut known, made) = match folder.take_list(lock)? {
        Some(known) => (known, false),
        None => {
            keep_aside(folder)?;
            (KnownList::new(Uidlist::new(validities.next(), 1)), true)
        }
    };
    let scan = folder.scan()?;
    let doubles = scan.doubles();
    if !doubles.is_empty() {
        // Seen under two names because it was renamed meanwhile, or really twice.
        if scan.stable {
            part_doubles(folder, &doubles)?;
        } else if !made {
            return Ok(());
        }
    }
    let bases = scan.files().map(|(_, name)| base_of(name));
    let mut unlisted: Vec<&[u8]> = bases.filter(|base| known.list.uid_of(base).is_none()).collect();
    unlisted.sort_unstable_by(|one, two| arrival(one).cmp(&arrival(two)));
    unlisted.dedup();
    for base in unlisted {
        known.list_mut().assign(base).ok_or_else(|| MailboxError {
            what: format!("giving uids in folder {}", folder.path),
            cause: "there are no more uids".to_owned(),
            scope: ErrorScope::Folder,
            retry: Retry::Never,
        })?;
    }
    folder.store_list(known, lock)
}

/// A list that cannot be read is kept beside the new one.
fn keep_aside(folder: &FolderDirectory) -> Result<(), MailboxError> {
    let aside = format!("{}.rehome-broken", uidlist::FILE);
    match rustix::fs::renameat(&folder.directory, uidlist::FILE, &folder.directory, aside) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(folder.failed("setting a broken dovecot-uidlist aside", error)),
    }
}

/// Two files with one base name are two items: the second gets a name of its own, as Dovecot would give it.
fn part_doubles(folder: &FolderDirectory, doubles: &[Found]) -> Result<(), MailboxError> {
    for found in doubles {
        let info = &found.name[found.base().len()..];
        let stem = super::deliver::unique_stem();
        let name = [stem.as_bytes(), info].concat();
        match rustix::fs::renameat(folder.sub(found.sub), &found.name, folder.sub(found.sub), name) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => {
                return Err(folder.failed("renaming a file whose name is there twice", error));
            }
        }
        tracing::warn!(folder = %folder.path, "two files had one unique name; one was renamed");
    }
    rustix::fs::fsync(&folder.cur)
        .and_then(|()| rustix::fs::fsync(&folder.new))
        .map_err(|error| folder.failed("renaming files", error))
}

/// What does not change in an item.
#[derive(Clone, Copy)]
struct Fixed {
    uid: Uid,
    received: i64,
    length: u64,
}

/// Looks at files; leaves out those that are not under their name any more.
fn look_at(folder: &FolderDirectory, settled: &Settled, places: &[Place]) -> Result<Vec<Fixed>, MailboxError> {
    let mut fixed = Vec::with_capacity(places.len());
    let mut name = Vec::new();
    for place in places {
        let (Some(base), Some(info)) = (
            settled.list.base(place.uid),
            settled.present.infos().get(place.info as usize),
        ) else {
            continue;
        };
        name.clear();
        name.extend_from_slice(base);
        name.extend_from_slice(info);
        match rustix::fs::statat(folder.sub(place.sub), name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => fixed.push(Fixed {
                uid: place.uid,
                received: stat.st_mtime,
                length: u64::try_from(stat.st_size).unwrap_or(0),
            }),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(folder.failed("looking at a file", error)),
        }
    }
    Ok(fixed)
}

/// As [`look_at`], by several threads where there are many.
fn look_at_all(folder: &FolderDirectory, settled: &Settled, places: &[Place]) -> Result<Vec<Fixed>, MailboxError> {
    let most = std::thread::available_parallelism()
        .map_or(1, NonZero::get)
        .min(MAX_THREADS);
    let threads = (places.len() / FILES_FOR_A_THREAD).clamp(1, most);
    let share = places.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let mut shares = places.chunks(share);
        let first = shares.next().unwrap_or_default();
        let spawn = |share| {
            let look = move || look_at(folder, settled, share);
            std::thread::Builder::new().spawn_scoped(scope, look).map_err(|_| share)
        };
        let others: Vec<_> = shares.map(spawn).collect();
        let mut fixed = look_at(folder, settled, first)?;
        for other in others {
            let looked = match other {
                Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                // The system gave no thread for it.
                Err(share) => look_at(folder, settled, share),
            };
            fixed.extend(looked?);
        }
        Ok(fixed)
    })
}

/// A whole listing. Files that are renamed meanwhile are looked for again; what was seen of the others stays true.
pub(super) fn list(folder: &FolderDirectory, validities: &Validities) -> Result<Listing, MailboxError> {
    let mut validity = None;
    let mut fixed: Vec<Fixed> = Vec::new();
    for _ in 0..ATTEMPTS {
        let settled = settle(folder, validities)?;
        if validity.replace(settled.list.uid_validity) != Some(settled.list.uid_validity) {
            fixed.clear();
        }
        let files = settled.present.files();
        let place = |uid: Uid| files.binary_search_by_key(&uid, |place| place.uid).ok();
        fixed.retain(|known| place(known.uid).is_some());
        if fixed.is_empty() {
            fixed = look_at_all(folder, &settled, files)?;
        } else {
            let known = |uid: Uid| fixed.binary_search_by_key(&uid, |fixed| fixed.uid).is_ok();
            let missing: Vec<Place> = files.iter().filter(|place| !known(place.uid)).copied().collect();
            fixed.extend(look_at_all(folder, &settled, &missing)?);
            fixed.sort_unstable_by_key(|fixed| fixed.uid);
        }
        if fixed.len() == files.len() {
            return Ok(Listing {
                status: settled.status(),
                token: None,
                items: items(&settled, &fixed),
                scope: ListingScope::Whole,
            });
        }
    }
    Err(MailboxError {
        what: format!("listing folder {}", folder.path),
        cause: "files kept being renamed while they were read".to_owned(),
        scope: ErrorScope::Folder,
        retry: Retry::After(1),
    })
}

/// The items of a listing: one of `fixed` for each file, both ascending by uid.
fn items(settled: &Settled, fixed: &[Fixed]) -> Vec<ItemMeta> {
    let infos = settled.present.infos().iter();
    let flags: Vec<Flags> = infos.map(|info| flags_of(info, &settled.keywords)).collect();
    let files = settled.present.files().iter().zip(fixed);
    files
        .map(|(place, fixed)| ItemMeta {
            uid: fixed.uid,
            flags: flags.get(place.info as usize).cloned().unwrap_or_default(),
            received: fixed.received,
            length_hint: Some(fixed.length),
        })
        .collect()
}

//! What a folder holds: uid list and files brought together.

use super::folder::{FolderDirectory, Found, Scan};
use super::item_name::{arrival, flags_of};
use super::keywords::Keywords;
use super::uidlist::{self, Uidlist};
use super::validity::Validities;
use crate::{ErrorScope, FolderStatus, ItemMeta, Listing, ListingScope, MailboxError, Retry, Uid};
use rustix::fs::AtFlags;
use rustix::io::Errno;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

/// How often a folder that changes under the scan is scanned again before it is given up for now.
const ATTEMPTS: usize = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// A folder's list and files, every file with its uid.
pub(super) struct Settled {
    pub(super) list: Uidlist,
    pub(super) keywords: Keywords,
    /// The files that are there, by uid.
    pub(super) present: BTreeMap<Uid, Found>,
}

impl Settled {
    /// The folder's numbers.
    pub(super) fn status(&self) -> FolderStatus {
        FolderStatus {
            uid_validity: self.list.uid_validity,
            uid_next: self.list.uid_next,
            exists: u32::try_from(self.present.len()).unwrap_or(u32::MAX),
            highest_mod_seq: None,
        }
    }

    /// Whether a file name uses a keyword's letter.
    pub(super) fn uses_letter(&self, letter: u8) -> bool {
        self.present
            .values()
            .any(|found| super::item_name::keyword_letters(&found.name).any(|used| used == letter))
    }
}

/// Brings list and files together: files without uid get one, in the order of their arrival, where they lie. A listed
/// file that a scan misses counts as gone only if a second scan, with the folder unchanged over it, misses it too.
pub(super) fn settle(folder: &FolderDirectory, validities: &Validities) -> Result<Settled, MailboxError> {
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            std::thread::sleep(PAUSE);
        }
        let list = folder.read_uidlist()?;
        let scan = folder.scan()?;
        let Some(list) = list.filter(|list| is_complete(list, &scan)) else {
            give_uids(folder, validities)?;
            continue;
        };
        if let Some(present) = believed(folder, &list, scan)? {
            let keywords = folder.read_keywords()?;
            return Ok(Settled {
                list,
                keywords,
                present,
            });
        }
    }
    Err(MailboxError {
        what: format!("listing folder {}", folder.path),
        cause: "the folder kept changing while it was read".to_owned(),
        scope: ErrorScope::Folder,
        retry: Retry::After(1),
    })
}

fn is_complete(list: &Uidlist, scan: &Scan) -> bool {
    let listed = list.by_base();
    scan.doubles().is_empty() && scan.files.iter().all(|found| listed.contains_key(found.base()))
}

/// The files by uid, if the scan can be believed.
fn believed(
    folder: &FolderDirectory,
    list: &Uidlist,
    scan: Scan,
) -> Result<Option<BTreeMap<Uid, Found>>, MailboxError> {
    let listed = list.by_base();
    let missed = {
        let seen = scan.by_base();
        list.entries().iter().any(|entry| !seen.contains_key(entry.base()))
    };
    if missed {
        let second = folder.scan()?;
        let first: HashSet<&[u8]> = scan.files.iter().map(Found::base).collect();
        let agree = second.files.len() == first.len() && second.files.iter().all(|found| first.contains(found.base()));
        if !second.stable || !agree {
            return Ok(None);
        }
    }
    let present = scan.files.into_iter().filter_map(|found| {
        let uid = *listed.get(found.base())?;
        Some((uid, found))
    });
    Ok(Some(present.collect()))
}

/// Gives uids to files that have none, and makes the list where there is none.
fn give_uids(folder: &FolderDirectory, validities: &Validities) -> Result<(), MailboxError> {
    let _lock = folder.lock(uidlist::FILE)?;
    let (mut list, made) = match folder.read_uidlist()? {
        Some(list) => (list, false),
        None => {
            keep_aside(folder)?;
            (Uidlist::new(validities.next(), 1), true)
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
    let listed = list.by_base();
    let mut unlisted: Vec<Vec<u8>> = scan
        .files
        .iter()
        .filter(|found| !listed.contains_key(found.base()))
        .map(|found| found.base().to_vec())
        .collect();
    unlisted.sort_unstable_by(|one, two| arrival(one).cmp(&arrival(two)));
    unlisted.dedup();
    if unlisted.is_empty() && !made {
        return Ok(());
    }
    for base in &unlisted {
        list.assign(base).ok_or_else(|| MailboxError {
            what: format!("giving uids in folder {}", folder.path),
            cause: "there are no more uids".to_owned(),
            scope: ErrorScope::Folder,
            retry: Retry::Never,
        })?;
    }
    folder.write_uidlist(&list)
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
fn part_doubles(folder: &FolderDirectory, doubles: &[&Found]) -> Result<(), MailboxError> {
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

/// Metadata of one file; none when it is not under this name any more.
pub(super) fn meta(
    folder: &FolderDirectory,
    uid: Uid,
    found: &Found,
    keywords: &Keywords,
) -> Result<Option<ItemMeta>, MailboxError> {
    match rustix::fs::statat(folder.sub(found.sub), &found.name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(ItemMeta {
            uid,
            flags: flags_of(&found.name, keywords),
            received: stat.st_mtime,
            length_hint: u64::try_from(stat.st_size).ok(),
        })),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(folder.failed("looking at a file", error)),
    }
}

/// A whole listing.
pub(super) fn list(folder: &FolderDirectory, validities: &Validities) -> Result<Listing, MailboxError> {
    'again: for _ in 0..ATTEMPTS {
        let settled = settle(folder, validities)?;
        let mut items = Vec::with_capacity(settled.present.len());
        for (uid, found) in &settled.present {
            match meta(folder, *uid, found, &settled.keywords)? {
                Some(meta) => items.push(meta),
                None => continue 'again,
            }
        }
        return Ok(Listing {
            status: settled.status(),
            token: None,
            items,
            scope: ListingScope::Whole,
        });
    }
    Err(MailboxError {
        what: format!("listing folder {}", folder.path),
        cause: "files kept being renamed while they were read".to_owned(),
        scope: ErrorScope::Folder,
        retry: Retry::After(1),
    })
}

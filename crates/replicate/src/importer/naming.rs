//! Folders are made on the target, several at once, and found again under the name that it gave them.

use super::{Mode, Work, lock};
use crate::{
    compare::{Made, belongs_at, find_made, is_temporary, loose, numbered},
    error::PassError,
    ledger::{Changes, FolderEntry, FolderState},
};
use rehome_mailbox::{ErrorScope, FolderIdentity, FolderPath, FolderStatus, MailboxError, NewFolder, Retry};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

/// Most names that are tried for one folder.
const MOST_NAMES: u32 = 100;

/// A folder that the target made, or says to have.
#[derive(Clone, Copy)]
pub(super) struct NewOnTarget {
    number: u32,
    uid_next: u32,
    status: FolderStatus,
    /// It was there before, and is taken as it is.
    found: bool,
}

impl Work<'_> {
    /// Makes folders that are in the ledger as *creating*, with the source's UIDNEXT: parents before what is below them,
    /// and otherwise as many at once as the target works on. What the target takes for another folder gets another name.
    pub(super) async fn create_all(&self, wanted: &[(u32, u32)]) -> Result<(), PassError> {
        let mut levels: BTreeMap<usize, Vec<(u32, u32)>> = BTreeMap::new();
        for (number, uid_next) in wanted {
            let depth = self.ledger.folder(*number)?.source_path.0.len();
            levels.entry(depth).or_default().push((*number, *uid_next));
        }
        let mut open: Vec<NewOnTarget> = Vec::new();
        for level in levels.values() {
            self.place_below_others(level).await?;
            let made = self.create_level(level, &open).await?;
            open.extend(&made);
            // What is below a folder that has to make way is made when that has its place.
            if self.share_a_validity(&made, &open) {
                self.settle(std::mem::take(&mut open)).await?;
            }
        }
        self.settle(open).await
    }

    /// Folders that are about to be made go below that which holds what is above them at the source.
    async fn place_below_others(&self, level: &[(u32, u32)]) -> Result<(), PassError> {
        let elsewhere = elsewhere(&self.ledger.folders(), |_| true);
        if elsewhere.is_empty() {
            return Ok(());
        }
        let mut changes = Changes::default();
        for (number, _) in level {
            let edited = self.ledger.edit(*number, |entry| {
                if entry.state == FolderState::Creating && entry.target_path == entry.source_path {
                    entry.target_path = belongs_at(&entry.source_path, &elsewhere);
                    entry.other_name = entry.target_path != entry.source_path;
                }
            })?;
            if edited {
                changes.folder(*number);
            }
        }
        Ok(self.ledger.write(changes, "replicate.folders_creating").await?)
    }

    /// Makes the folders of one level: at once only those of which nothing above is made along with them, and which the
    /// target cannot take for one.
    async fn create_level(&self, level: &[(u32, u32)], open: &[NewOnTarget]) -> Result<Vec<NewOnTarget>, PassError> {
        let mut there: HashSet<FolderPath> = HashSet::new();
        let open: HashSet<u32> = open.iter().map(|made| made.number).collect();
        for entry in self.ledger.folders() {
            if entry.state == FolderState::Active || open.contains(&entry.number) {
                there.insert(entry.target_path.clone());
            }
        }
        let mut rest: Vec<(u32, u32, FolderPath)> = Vec::with_capacity(level.len());
        for (number, uid_next) in level {
            rest.push((*number, *uid_next, self.ledger.folder(*number)?.target_path.clone()));
        }
        let made = Mutex::new(Vec::with_capacity(level.len()));
        while !rest.is_empty() {
            let mut wave: Vec<(u32, u32, FolderPath)> = Vec::new();
            let mut later = Vec::new();
            let mut spellings: HashSet<Vec<String>> = HashSet::new();
            for one in rest {
                let above = &one.2.0[..one.2.0.len() - 1];
                let has_above = above.is_empty() || there.contains(&FolderPath(above.to_vec()));
                if has_above && spellings.insert(loose(&one.2)) {
                    wave.push(one);
                } else {
                    later.push(one);
                }
            }
            if wave.is_empty() {
                wave.push(later.remove(0));
            }
            let made = &made;
            self.at_once(&wave, self.lanes, |(number, uid_next, _)| async move {
                let one = self.make_folder(*number, *uid_next).await?;
                lock(made).push(one);
                Ok(())
            })
            .await?;
            for (_, _, path) in wave {
                there.extend((1..=path.0.len()).map(|length| FolderPath(path.0[..length].to_vec())));
            }
            rest = later;
        }
        let mut made: Vec<NewOnTarget> = made.into_inner().unwrap_or_else(PoisonError::into_inner);
        let order: HashMap<u32, usize> = level.iter().map(|(number, _)| *number).zip(0..).collect();
        made.sort_by_key(|made| order.get(&made.number).copied());
        Ok(made)
    }

    /// Makes one folder, keeping the source's numbers where that is possible.
    async fn make_folder(&self, number: u32, uid_next: u32) -> Result<NewOnTarget, PassError> {
        let entry = self.ledger.folder(number)?;
        // A folder that is in use already stays as its user has it.
        let held = match self.mode {
            Mode::Hidden | Mode::Sweep => None,
            Mode::Live => self.target_status(&entry.target_path).await?,
        };
        if let Some(status) = held {
            return Ok(NewOnTarget {
                number,
                uid_next,
                status,
                found: true,
            });
        }
        let new = NewFolder {
            special_use: entry.special_use,
            subscribed: entry.subscribed,
            identity: self.keeps_uids().then_some(FolderIdentity {
                uid_validity: entry.source_validity,
                uid_next,
            }),
        };
        self.guard()?;
        let made = self.target.create_folder(&entry.target_path, &new).await;
        let status = made.map_err(PassError::Target)?;
        self.note_target_folder(&entry.target_path, Some(status)).await;
        Ok(NewOnTarget {
            number,
            uid_next,
            status,
            found: false,
        })
    }

    fn keeps_uids(&self) -> bool {
        self.settings.given_uids && self.capabilities.given_uids && !self.is_live()
    }

    /// Makes one folder again under the name that it has.
    pub(super) async fn create_again(&self, number: u32) -> Result<(), PassError> {
        let made = self.make_folder(number, 1).await?;
        self.folder_is_there(&made)
    }

    /// The folder is there, and no other one's. Uids are kept only in one that is empty and has the source's validity.
    fn folder_is_there(&self, made: &NewOnTarget) -> Result<(), PassError> {
        let status = made.status;
        let keeps_uids = self.keeps_uids() && status.exists == 0;
        self.ledger.edit(made.number, |entry| {
            entry.target_validity = status.uid_validity;
            entry.given_uids = keeps_uids && status.uid_validity == entry.source_validity;
            entry.state = FolderState::Active;
        })?;
        self.outcome().folders_created += u64::from(!made.found);
        Ok(())
    }

    /// Whether one of the folders was made with a UIDVALIDITY that is another one's too: then it may be that one.
    fn share_a_validity(&self, made: &[NewOnTarget], open: &[NewOnTarget]) -> bool {
        let mut counts: HashMap<u32, usize> = HashMap::new();
        let entries = self.ledger.folders();
        let held = entries.iter().filter(|entry| is_on_target(entry));
        let open = open.iter().map(|made| made.status.uid_validity);
        for validity in held.map(|entry| entry.target_validity).chain(open) {
            *counts.entry(validity).or_default() += 1;
        }
        made.iter().any(|made| counts.get(&made.status.uid_validity) > Some(&1))
    }

    /// Finds the folders that were made in the target's list. What is not there as it was asked for is looked for.
    async fn settle(&self, made: Vec<NewOnTarget>) -> Result<(), PassError> {
        if made.iter().any(|made| !made.found) {
            self.forget_target_folders().await;
        } else if made.is_empty() {
            return Ok(());
        }
        let paths = self
            .with_target_folders(|folders| folders.keys().cloned().collect())
            .await;
        let (listed, mut held): (HashSet<FolderPath>, HashSet<FolderPath>) = (paths?, HashSet::new());
        let these: HashSet<u32> = made.iter().map(|made| made.number).collect();
        for entry in self.ledger.folders() {
            if is_on_target(&entry) && !these.contains(&entry.number) {
                held.insert(entry.target_path.clone());
            }
        }
        let mut astray = Vec::new();
        for made in made {
            let entry = self.ledger.folder(made.number)?;
            if listed.contains(&entry.target_path) && held.insert(entry.target_path.clone()) {
                self.folder_is_there(&made)?;
            } else {
                astray.push(made);
            }
        }
        for made in astray {
            self.find_its_name(made).await?;
        }
        Ok(())
    }

    /// Finds out what the target calls a folder that is not in its list as it was asked for. Where it is another folder's,
    /// it is made anew with a number behind its name.
    async fn find_its_name(&self, mut made: NewOnTarget) -> Result<(), PassError> {
        let number = made.number;
        let asked = self.ledger.folder(number)?.target_path.clone();
        let mut path = asked.clone();
        let mut tried = 1;
        loop {
            let entries = self.ledger.folders();
            let others = || entries.iter().filter(|entry| entry.number != number);
            let taken: HashSet<&FolderPath> = others()
                .filter(|entry| is_on_target(entry))
                .map(|entry| &entry.target_path)
                .collect();
            let listed = self.listed_on_target().await?;
            match find_made(&path, made.status.uid_validity, &listed, &taken) {
                Made::AsAsked => {
                    self.note_target_folder(&path, Some(made.status)).await;
                    break;
                }
                // Contents that nobody knows are not this folder's.
                Made::Under(spelled) if self.is_live() || made.status.exists == 0 => {
                    self.edit_target_path(number, &spelled)?;
                    break;
                }
                Made::Under(_) | Made::Taken => {}
            }
            let used: HashSet<Vec<String>> = (listed.iter().map(|(path, _)| path))
                .chain(others().flat_map(|entry| [&entry.target_path, &entry.source_path]))
                .map(loose)
                .collect();
            let free = |path: &FolderPath| !used.contains(&loose(path));
            let next = (tried + 1..=MOST_NAMES).find(|number| free(&numbered(&asked, *number)));
            tried = next.ok_or_else(|| no_name(&asked))?;
            path = numbered(&asked, tried);
            self.edit_target_path(number, &path)?;
            let mut changes = Changes::default();
            changes.folder(number);
            self.ledger.write(changes, "replicate.folders_creating").await?;
            made = self.make_folder(number, made.uid_next).await?;
            self.forget_target_folders().await;
        }
        let entry = self.ledger.folder(number)?;
        tracing::warn!(folder = %entry.source_path, on_target = %entry.target_path, "a folder has another name on the target");
        self.folder_is_there(&made)
    }

    fn edit_target_path(&self, number: u32, path: &FolderPath) -> Result<(), PassError> {
        self.ledger.edit(number, |entry| {
            entry.target_path.clone_from(path);
            entry.other_name = entry.target_path != entry.source_path;
        })?;
        Ok(())
    }

    /// Where a folder that is to be removed lies on the target, by its own list. One that was about to be made may be another
    /// folder for the target, or lie there in another spelling and empty.
    pub(super) async fn lies_at(&self, number: u32) -> Result<Vec<FolderPath>, PassError> {
        let entry = self.ledger.folder(number)?;
        let entries = self.ledger.folders();
        let known: HashSet<&FolderPath> = entries.iter().map(|entry| &entry.target_path).collect();
        let is_it = |status: FolderStatus| match entry.target_validity {
            0 => status.exists == 0,
            validity => status.uid_validity == validity,
        };
        self.with_target_folders(|folders| {
            if folders.contains_key(&entry.target_path) {
                return vec![entry.target_path.clone()];
            }
            let spelled = loose(&entry.target_path);
            let unknown = folders.values().filter(|folder| !known.contains(&folder.path));
            let its = unknown.filter(|folder| loose(&folder.path) == spelled && folder.status.is_some_and(is_it));
            its.map(|folder| folder.path.clone()).collect()
        })
        .await
    }

    async fn listed_on_target(&self) -> Result<Vec<(FolderPath, u32)>, PassError> {
        self.with_target_folders(|folders| {
            let listed = folders.values().filter(|folder| folder.selectable);
            let listed = listed.filter_map(|folder| Some((folder.path.clone(), folder.status?.uid_validity)));
            listed.collect()
        })
        .await
    }

    /// What the target calls a folder of this validity that was asked to be at `path`.
    pub(super) async fn spelled_on_target(
        &self,
        number: u32,
        uid_validity: u32,
        path: &FolderPath,
    ) -> Result<FolderPath, PassError> {
        let entries = self.ledger.folders();
        let others = entries
            .iter()
            .filter(|other| other.number != number && is_on_target(other));
        let taken: HashSet<&FolderPath> = others.map(|other| &other.target_path).collect();
        Ok(
            match find_made(path, uid_validity, &self.listed_on_target().await?, &taken) {
                Made::Under(spelled) => spelled,
                Made::AsAsked | Made::Taken => path.clone(),
            },
        )
    }

    /// Whether a folder that was renamed on the target is where it belongs, in any spelling, and still the one that the move
    /// made.
    pub(super) async fn is_at(&self, entry: &FolderEntry, wanted: &FolderPath) -> Result<bool, PassError> {
        if loose(&entry.target_path) != loose(wanted) {
            return Ok(false);
        }
        if let Some(status) = self.target_status(&entry.target_path).await? {
            return Ok(status.uid_validity == entry.target_validity);
        }
        let (number, path) = (entry.number, &entry.target_path);
        let spelled = self.spelled_on_target(number, entry.target_validity, path).await?;
        if spelled != *path {
            self.edit_target_path(number, &spelled)?;
        }
        Ok(spelled != *path)
    }
}

/// Where the folders are that have another path on the target than at the source, by that at the source.
pub(super) fn elsewhere(
    entries: &[Arc<FolderEntry>],
    counts: impl Fn(&FolderEntry) -> bool,
) -> HashMap<FolderPath, FolderPath> {
    let other = entries.iter().filter(|entry| {
        entry.other_name && entry.state == FolderState::Active && !is_temporary(&entry.target_path) && counts(entry)
    });
    other
        .map(|entry| (entry.source_path.clone(), entry.target_path.clone()))
        .collect()
}

fn is_on_target(entry: &FolderEntry) -> bool {
    matches!(entry.state, FolderState::Active | FolderState::Retired)
}

fn no_name(path: &FolderPath) -> PassError {
    PassError::Target(MailboxError {
        what: format!("creating folder {path}"),
        cause: format!("the target takes it for another folder, under {MOST_NAMES} names"),
        scope: ErrorScope::Folder,
        retry: Retry::Never,
    })
}

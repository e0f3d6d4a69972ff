//! Folders of the target: made, taken over after a reset of their validity, removed.

use super::{Mode, Work, pass::Job};
use crate::{
    error::PassError,
    ledger::{Changes, FolderEntry, FolderState, KeywordTable, Octets},
};
use rehome_mailbox::{Folder, FolderPath};

impl Work<'_> {
    /// New folders: an intent for all of them, then each, then their numbers.
    pub(super) async fn create_folders(&self, folders: &[Folder], jobs: &mut [Job]) -> Result<(), PassError> {
        let mut creating = Vec::new();
        for job in jobs.iter_mut().filter(|job| job.reset.is_none()) {
            let folder = &folders[job.source];
            let validity = job.listed.head.validity;
            let held = job.number.map(|number| self.ledger.folder(number)).transpose()?;
            let (target_path, other_name) = match held {
                Some(held) if held.state != FolderState::Creating => continue,
                // It may have been made under that.
                Some(held) if held.other_name => (held.target_path.clone(), true),
                Some(_) | None => (self.target_path_for(folder).await?, false),
            };
            let new = |number| FolderEntry {
                target_path,
                other_name,
                ..new_entry(number, folder, validity)
            };
            let number = match job.number {
                None => self.ledger.add_folder(new)?,
                Some(number) => {
                    self.ledger.edit(number, |entry| *entry = new(number))?;
                    number
                }
            };
            job.number = Some(number);
            creating.push((number, job.listed.head.uid_next));
        }
        if creating.is_empty() {
            return Ok(());
        }
        let changes = || {
            let mut changes = Changes::default();
            creating.iter().for_each(|(number, _)| changes.folder(*number));
            changes
        };
        self.ledger.write(changes(), "replicate.folders_creating").await?;
        self.create_all(&creating).await?;
        Ok(self.ledger.write(changes(), "replicate.folders_created").await?)
    }

    /// Folders with another validity: the target folder stays, under a new number; the items of the old one wait in it.
    pub(super) async fn begin_resets(&self, folders: &[Folder], jobs: &mut [Job]) -> Result<(), PassError> {
        for job in jobs {
            let Some(old) = job.reset else { continue };
            let begun = self.begin_reset(old, &folders[job.source], job.listed.head.validity);
            job.number = Some(begun.await?);
        }
        Ok(())
    }

    pub(super) async fn begin_reset(&self, old: u32, folder: &Folder, validity: u32) -> Result<u32, PassError> {
        let held = self.ledger.folder(old)?;
        let number = self.ledger.add_folder(|number| FolderEntry {
            state: FolderState::Active,
            target_path: held.target_path.clone(),
            target_validity: held.target_validity,
            other_name: held.other_name,
            ..new_entry(number, folder, validity)
        })?;
        self.ledger.edit(old, |entry| {
            entry.state = FolderState::Retired;
            entry.verified = None;
        })?;
        let mut changes = Changes::default();
        changes.folder(old);
        changes.folder(number);
        self.ledger.write(changes, "replicate.folder_reset").await?;
        Ok(number)
    }

    pub(super) async fn remove_vanished(&self, number: u32) -> Result<(), PassError> {
        let made = self.ledger.folder(number)?.state != FolderState::Creating;
        if !made && !self.beside(number)?.is_empty() {
            // What is there is another one's.
            return self.forget_folders(&[number], "replicate.folder_removed").await;
        }
        self.ledger.edit(number, |entry| entry.state = FolderState::Removing)?;
        let mut changes = Changes::default();
        changes.folder(number);
        self.ledger.write(changes, "replicate.folder_removing").await?;
        self.remove_target_folder(number).await
    }

    /// Removes a folder that is marked as being removed, and everything that the ledger knows of it.
    pub(super) async fn remove_target_folder(&self, number: u32) -> Result<(), PassError> {
        for path in self.lies_at(number).await? {
            self.guard()?;
            self.target.remove_folder(&path).await.map_err(PassError::Target)?;
            self.note_target_folder(&path, None).await;
        }
        self.outcome().folders_removed += 1;
        let mut numbers = self.beside(number)?;
        numbers.push(number);
        self.forget_folders(&numbers, "replicate.folder_removed").await
    }

    /// Drops folders from the ledger.
    pub(super) async fn forget_folders(&self, numbers: &[u32], step: &'static str) -> Result<(), PassError> {
        let mut changes = Changes::default();
        for number in numbers {
            changes.extend(self.ledger.removal_changes(*number).await?);
            self.ledger.remove_folder(*number);
            changes.folder(*number);
        }
        Ok(self.ledger.write(changes, step).await?)
    }

    /// All other numbers with the same target folder.
    pub(super) fn beside(&self, number: u32) -> Result<Vec<u32>, PassError> {
        let path = &self.ledger.folder(number)?.target_path;
        let others = self.ledger.folders().into_iter();
        let others = others.filter(|entry| entry.target_path == *path && entry.number != number);
        Ok(others.map(|entry| entry.number).collect())
    }

    pub(super) fn in_state(&self, state: FolderState) -> Vec<u32> {
        let entries = self.ledger.folders().into_iter();
        entries
            .filter(|entry| entry.state == state)
            .map(|entry| entry.number)
            .collect()
    }

    /// Where a new folder goes: to the same path, but that in a mailbox in use a special use has one folder.
    async fn target_path_for(&self, folder: &Folder) -> Result<FolderPath, PassError> {
        let Some(special_use) = folder.special_use.filter(|_| self.mode == Mode::Live) else {
            return Ok(folder.path.clone());
        };
        let taken = |path: &FolderPath| self.ledger.folders().iter().any(|entry| entry.target_path == *path);
        self.with_target_folders(|folders| {
            let mut same: Vec<&Folder> = folders
                .values()
                .filter(|held| held.selectable && held.special_use == Some(special_use) && !taken(&held.path))
                .collect();
            same.sort_by(|one, two| one.path.cmp(&two.path));
            let found = same.first().map(|held| held.path.clone());
            found.unwrap_or_else(|| folder.path.clone())
        })
        .await
    }
}

pub(crate) fn new_entry(number: u32, folder: &Folder, source_validity: u32) -> FolderEntry {
    FolderEntry {
        number,
        state: FolderState::Creating,
        source_path: folder.path.clone(),
        target_path: folder.path.clone(),
        source_validity,
        target_validity: 0,
        given_uids: false,
        special_use: folder.special_use,
        subscribed: folder.subscribed,
        keywords: KeywordTable::default(),
        synced: None,
        unread: false,
        octets: Octets::Unknown,
        skipped: 0,
        reported: 0,
        verified: None,
        source_mailbox_id: folder.mailbox_id.clone(),
        renaming_to: None,
        other_name: false,
    }
}

//! Renames at the source are renames on the target, each under an intent.

use super::{Mode, Work, naming::elsewhere, pass::known_folders};
use crate::{
    compare::{
        FolderMove, Rename, RenameReason, belongs_at, below, find_renames, implied_renames, is_spelled_differently,
        is_temporary, loose, plan_moves, sample_agrees, spelled_differently, temporary,
    },
    error::PassError,
    ledger::{CHUNK_SHIFT, Changes, FolderEntry, FolderState, Record},
};
use rehome_mailbox::{ErrorScope, Folder, FolderPath, FolderStatus, Retry};
use rehome_wire::frames::ListedItem;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

/// Items that are looked at before a folder without MAILBOXID is taken for another one under a new name.
const SAMPLE: usize = 20;

impl Work<'_> {
    /// Gives folders that were renamed at the source their new names. A mailbox in use keeps its user's.
    pub(super) async fn rename_folders(&self, source: &[Folder]) -> Result<(), PassError> {
        let entries = self.ledger.folders();
        let mut renames = Vec::new();
        for rename in find_renames(source, &known_folders(&entries, self.skipped)) {
            let believed = match rename.reason {
                RenameReason::MailboxId | RenameReason::Parent => true,
                RenameReason::Numbers => self.sample_is_there(&rename, &source[rename.source]).await?,
            };
            let folder = &source[rename.source].path;
            tracing::info!(number = rename.number, to = %folder, reason = ?rename.reason, believed, "a renamed folder");
            if believed {
                renames.push(rename);
            }
        }
        // What an interrupted pass moved may not be where it belongs any more.
        let away = elsewhere(&entries, |_| true);
        let misplaced =
            |entry: &Arc<FolderEntry>| entry.state == FolderState::Active && entry.target_path != home(entry, &away);
        if renames.is_empty() && (self.mode == Mode::Live || !entries.iter().any(misplaced)) {
            return Ok(());
        }
        renames.extend(implied_renames(
            source,
            &known_folders(&entries, self.skipped),
            &renames,
        ));
        let stays = |entry: &FolderEntry| !renames.iter().any(|rename| rename.number == entry.number);
        let away = elsewhere(&entries, stays);
        if self.mode != Mode::Live {
            self.carry_out(&places(&entries, &renames, source, &away)).await?;
        }
        let mut changes = Changes::default();
        for entry in self.ledger.folders() {
            let renamed = renames.iter().find(|rename| rename.number == entry.number);
            let wanted = renamed.map(|rename| &source[rename.source].path);
            let displaced = |entry: &FolderEntry| {
                renames
                    .iter()
                    .any(|rename| source[rename.source].path == entry.source_path)
            };
            let made_up = temporary(entry.number);
            let path = match wanted {
                Some(wanted) if self.mode == Mode::Live || self.is_at(&entry, &belongs_at(wanted, &away)).await? => {
                    wanted
                }
                // It made room, or could not be brought to its place: its items are copied from there and it goes.
                Some(_) | None if is_temporary(&entry.target_path) => &entry.target_path,
                // Another folder has its name at the source now.
                None if self.mode == Mode::Live && displaced(&entry) => &made_up,
                Some(_) | None => continue,
            };
            self.outcome().folders_renamed += u64::from(wanted == Some(path));
            if self.ledger.edit(entry.number, |entry| {
                entry.source_path.clone_from(path);
                if self.mode != Mode::Live {
                    entry.other_name = entry.target_path != entry.source_path;
                }
            })? {
                changes.folder(entry.number);
            }
        }
        Ok(self.ledger.write(changes, "replicate.folders_renamed").await?)
    }

    /// A folder that an interrupted pass was about to make, and that another one was renamed to since, is not made.
    pub(super) async fn drop_superseded(&self) -> Result<(), PassError> {
        let entries = self.ledger.folders();
        let active = entries.iter().filter(|entry| entry.state == FolderState::Active);
        let active: HashSet<&FolderPath> = active.map(|entry| &entry.source_path).collect();
        let superseded = entries
            .iter()
            .filter(|entry| entry.state == FolderState::Creating && active.contains(&entry.source_path));
        for entry in superseded {
            match self.mode {
                Mode::Live => {
                    self.forget_folders(&[entry.number], "replicate.folder_superseded")
                        .await?
                }
                Mode::Hidden | Mode::Sweep => self.remove_vanished(entry.number).await?,
            }
        }
        Ok(())
    }

    /// Renames on the target, in order, until everything is where it belongs or a renaming is refused.
    async fn carry_out(&self, places: &[(u32, FolderPath, Option<FolderPath>)]) -> Result<(), PassError> {
        let Some(moves) = plan_moves(places) else {
            tracing::warn!("no order was found for renaming; folders are removed and made instead");
            return Ok(());
        };
        let paths = places.iter().flat_map(|(_, path, wanted)| wanted.iter().chain([path]));
        let several = spelled_differently(paths.chain(moves.iter().map(|one| &one.to)));
        for FolderMove { number, from, to } in moves {
            self.ledger.edit(number, |entry| entry.renaming_to = Some(to.clone()))?;
            let mut changes = Changes::default();
            changes.folder(number);
            self.ledger.write(changes, "replicate.folder_renaming").await?;
            let doubtful = is_spelled_differently(&to, &several);
            let Some(spelled) = self.rename_folder(number, &from, &to, doubtful).await? else {
                return Ok(());
            };
            if spelled != to {
                tracing::warn!(folder = %to, %spelled, "the target spells a folder's name in its own way; no more are renamed");
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether items of the folder's records are in the listing under the new name.
    async fn sample_is_there(&self, rename: &Rename, folder: &Folder) -> Result<bool, PassError> {
        let entry = self.ledger.folder(rename.number)?;
        let sample = self.ledger.map(rename.number).await?.sample(SAMPLE);
        let mut chunks: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for uid in sample {
            chunks.entry(uid >> CHUNK_SHIFT).or_default().push(uid);
        }
        let mut records: Vec<Record> = Vec::new();
        for (chunk, uids) in chunks {
            let held = self.ledger.records(rename.number, chunk).await?.into_iter();
            records.extend(held.filter(|record| uids.contains(&record.uid)));
        }
        let wanted: HashSet<u32> = records.iter().map(|record| record.uid).collect();
        let mut listed: HashMap<u32, ListedItem> = HashMap::new();
        let whole = self
            .look_at(&folder.path, entry.source_validity, false, |item| {
                if wanted.contains(&item.uid) {
                    listed.insert(item.uid, item);
                }
            })
            .await?;
        Ok(whole && sample_agrees(&records, &listed))
    }

    /// Renames one folder on the target, under its intent; returns where it is then. None where the target refuses, as where
    /// something else has the name: then what was to be renamed is removed and made anew. Where the target may take the
    /// name for another's, the folder is looked for.
    async fn rename_folder(
        &self,
        number: u32,
        from: &FolderPath,
        to: &FolderPath,
        doubtful: bool,
    ) -> Result<Option<FolderPath>, PassError> {
        self.guard()?;
        match self.target.rename_folder(from, to).await {
            Ok(()) => {
                self.forget_target_folders().await;
                let mut to = to.clone();
                if doubtful {
                    let uid_validity = self.ledger.folder(number)?.target_validity;
                    to = self.spelled_on_target(number, uid_validity, &to).await?;
                }
                self.folder_was_renamed(number, from, &to).await?;
                Ok(Some(to))
            }
            Err(error) if error.scope <= ErrorScope::Folder && error.retry == Retry::Never => {
                tracing::warn!(%error, "a folder is not renamed");
                self.forget_target_folders().await;
                self.ledger.edit(number, |entry| entry.renaming_to = None)?;
                let mut changes = Changes::default();
                changes.folder(number);
                self.ledger.write(changes, "replicate.folder_not_renamed").await?;
                Ok(None)
            }
            Err(error) => Err(PassError::Target(error)),
        }
    }

    /// Closes the intent: the folder and all below are elsewhere.
    async fn folder_was_renamed(&self, number: u32, from: &FolderPath, to: &FolderPath) -> Result<(), PassError> {
        self.forget_target_folders().await;
        let mut changes = Changes::default();
        for entry in self.ledger.folders() {
            let creating = entry.state == FolderState::Creating;
            // What was about to be made may have been made below another spelling of this name.
            let from = if creating {
                &spelled_as(from, &entry.target_path)
            } else {
                from
            };
            let Some(moved) = below(&entry.target_path, from, to) else {
                continue;
            };
            if entry.subscribed {
                // Subscriptions are to names, and do not go along with a folder on every server (RFC 9051 §6.3.7).
                self.guard()?;
                let target = self.target;
                target
                    .subscribe(&entry.target_path, false)
                    .await
                    .map_err(PassError::Target)?;
                target.subscribe(&moved, true).await.map_err(PassError::Target)?;
            }
            self.ledger.edit(entry.number, |entry| {
                if creating {
                    // Nothing of it was copied: it is made, or removed, where it is now.
                    entry.source_path.clone_from(&moved);
                }
                entry.target_path = moved;
                // The platform may number a renamed folder's changes anew.
                entry.verified = None;
            })?;
            changes.folder(entry.number);
        }
        self.ledger.edit(number, |entry| entry.renaming_to = None)?;
        changes.folder(number);
        Ok(self.ledger.write(changes, "replicate.folder_renamed").await?)
    }

    /// Where folders are renamed one after the other, an interruption leaves those below where they were: the command is
    /// given again, and goes on. Elsewhere the folder is not there any more, which is a refusal.
    async fn rename_those_below(&self, from: &FolderPath, to: &FolderPath) -> Result<(), PassError> {
        self.guard()?;
        match self.target.rename_folder(from, to).await {
            Err(error) if error.scope > ErrorScope::Folder || error.retry != Retry::Never => {
                Err(PassError::Target(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Ends a renaming that was interrupted. The folder is known by its validity, not by its name: where it is still under
    /// the old one, the command is given again.
    pub(super) async fn recover_renames(&self) -> Result<(), PassError> {
        let open: Vec<(Arc<FolderEntry>, FolderPath)> = self
            .ledger
            .folders()
            .into_iter()
            .filter_map(|entry| Some((Arc::clone(&entry), entry.renaming_to.clone()?)))
            .collect();
        for (entry, to) in open {
            let from = entry.target_path.clone();
            let is_it = |status: Option<FolderStatus>| {
                status.is_some_and(|status| status.uid_validity == entry.target_validity)
            };
            let (at_from, at_to) = (self.target_status(&from).await?, self.target_status(&to).await?);
            let has_left = at_from.is_none();
            if is_it(at_from) && !is_it(at_to) {
                self.rename_folder(entry.number, &from, &to, true).await?;
            } else {
                if has_left {
                    self.rename_those_below(&from, &to).await?;
                }
                let spelled = self.spelled_on_target(entry.number, entry.target_validity, &to).await?;
                self.folder_was_renamed(entry.number, &from, &spelled).await?;
            }
        }
        Ok(())
    }
}

/// Where each folder of the target is and where it belongs. Those that vanished belong nowhere.
fn places(
    entries: &[Arc<FolderEntry>],
    renames: &[Rename],
    source: &[Folder],
    away: &HashMap<FolderPath, FolderPath>,
) -> Vec<(u32, FolderPath, Option<FolderPath>)> {
    let listed: HashSet<&FolderPath> = source
        .iter()
        .filter(|folder| folder.selectable)
        .map(|folder| &folder.path)
        .collect();
    let renamed = |number: u32| renames.iter().find(|rename| rename.number == number);
    let taken: HashSet<&FolderPath> = renames.iter().map(|rename| &source[rename.source].path).collect();
    let goes_along = |entry: &FolderEntry| {
        let mut others = entries
            .iter()
            .filter(|other| other.number != entry.number && renamed(other.number).is_some());
        others.any(|other| entry.target_path.0.starts_with(&other.target_path.0))
    };
    // Items of earlier validities lie in the folder of the present one.
    let active = entries.iter().filter(|entry| entry.state == FolderState::Active);
    active
        .map(|entry| {
            let wanted = match renamed(entry.number) {
                Some(rename) => Some(belongs_at(&source[rename.source].path, away)),
                // What goes along with one above it may be in the place of another folder there.
                None if !listed.contains(&entry.source_path) && goes_along(entry) => Some(temporary(entry.number)),
                None if taken.contains(&entry.source_path) || !listed.contains(&entry.source_path) => None,
                None => Some(home(entry, away)),
            };
            (entry.number, entry.target_path.clone(), wanted)
        })
        .collect()
}

/// Where a folder that keeps its name belongs on the target.
fn home(entry: &FolderEntry, away: &HashMap<FolderPath, FolderPath>) -> FolderPath {
    if entry.other_name && !is_temporary(&entry.target_path) {
        return entry.target_path.clone();
    }
    belongs_at(&entry.source_path, away)
}

/// A path as it is spelled at the beginning of `of`, where a target may take it for that.
fn spelled_as(path: &FolderPath, of: &FolderPath) -> FolderPath {
    let begin = FolderPath(of.0.iter().take(path.0.len()).cloned().collect());
    if loose(&begin) == loose(path) {
        begin
    } else {
        path.clone()
    }
}

//! A mailbox in use as the target: what its user did stays.

use super::Work;
use crate::{
    error::PassError,
    ledger::{Changes, FolderEntry, Intents, Ledger, Record, UidMap},
};
use rehome_mailbox::FolderStatus;
use rehome_wire::flags::Flags;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// The flags of an item on the target when the source's changed from `base` to `source`: what the source set or cleared
/// since is set or cleared, everything else stays as the target has it. Keywords are compared without regard to case.
fn merge(base: &Flags, source: &Flags, target: &Flags) -> Flags {
    let set = source.system() & !base.system();
    let cleared = base.system() & !source.system();
    let holds = |flags: &Flags, keyword: &str| flags.keywords().iter().any(|held| held.eq_ignore_ascii_case(keyword));
    let mut keywords: Vec<String> = target
        .keywords()
        .iter()
        .filter(|keyword| !holds(base, keyword) || holds(source, keyword))
        .cloned()
        .collect();
    keywords.extend(
        source
            .keywords()
            .iter()
            .filter(|keyword| !holds(base, keyword))
            .cloned(),
    );
    Flags::from_parts((target.system() | set) & !cleared, keywords)
}

impl Work<'_> {
    /// The user removed the folder, or made another one of its name: what was brought stays gone, what comes goes into the
    /// one that is there.
    pub(super) async fn take_folder_again(&self, number: u32) -> Result<(Arc<FolderEntry>, FolderStatus), PassError> {
        self.create_again(number).await?;
        let entry = self.ledger.folder(number)?;
        let mut changes = Changes::default();
        changes.folder(number);
        changes.add(Ledger::map_change(number, &UidMap::default()));
        changes.add(Ledger::intents_change(number, &Intents::default()));
        self.ledger.write(changes, "replicate.folder_taken").await?;
        let status = self.target_status(&entry.target_path).await?;
        let status = status.ok_or_else(|| PassError::TargetDiffers {
            message: format!("the target's folder {} is not there", entry.target_path),
            mended: true,
        })?;
        Ok((entry, status))
    }

    /// The flags that items get whose flags changed at the source, by target uid; those that have them already are left out.
    pub(super) async fn merged_flags(
        &self,
        entry: &FolderEntry,
        map: &UidMap,
        changed: &[Record],
        source: &BTreeMap<u32, &Flags>,
    ) -> Result<Vec<(u32, Flags)>, PassError> {
        if source.is_empty() {
            return Ok(Vec::new());
        }
        self.guard()?;
        let listing = self
            .target
            .list(&entry.target_path, None)
            .await
            .map_err(PassError::Target)?;
        if listing.status.uid_validity != entry.target_validity {
            return Ok(Vec::new());
        }
        let held: HashMap<u32, &Flags> = listing.items.iter().map(|meta| (meta.uid, &meta.flags)).collect();
        let merged = changed.iter().filter_map(|record| {
            let uid = map.get(record.uid)?;
            let target = held.get(&uid)?;
            let merged = merge(&record.flags, source.get(&record.uid)?, target);
            (merged != **target).then_some((uid, merged))
        });
        let mut merged: Vec<(u32, Flags)> = merged.collect();
        merged.sort_by_key(|(uid, _)| *uid);
        Ok(merged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_table() {
        for (base, source, target, expected) in [
            // The source set one, the user another.
            (
                &[][..],
                &["\\Seen"][..],
                &["\\Flagged"][..],
                &["\\Seen", "\\Flagged"][..],
            ),
            // The user cleared what the source did not touch.
            (&["\\Seen", "a"], &["\\Seen", "a", "b"], &[], &["b"]),
            // The source cleared it, the user left it.
            (&["\\Seen", "a"], &[], &["\\Seen", "A", "c"], &["c"]),
            // Both did the same.
            (&["\\Seen"], &[], &[], &[]),
            (&[], &["Work"], &["work"], &["work"]),
        ] {
            let flags = |names: &[&str]| Flags::from_names(names.iter().copied());
            let merged = merge(&flags(base), &flags(source), &flags(target));
            assert_eq!(merged, flags(expected), "{base:?} {source:?} {target:?}");
        }
    }
}

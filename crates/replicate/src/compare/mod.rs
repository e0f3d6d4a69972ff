//! Comparing source and ledger: pure functions from listings and records to what is to be done, with the reason.

mod folders;
mod items;
mod moves;
mod names;
mod renames;

use crate::ledger::Synced;
use rehome_mailbox::FolderPath;

pub use folders::{FolderStep, ListReason, compare_folders};
pub use items::{Addition, FolderPlan, SHRINK_ITEMS, SHRINK_SHARE, compare_changes, compare_whole, shrank};
pub use moves::{FolderMove, below, is_temporary, plan_moves, temporary};
pub use names::{Made, belongs_at, find_made, is_spelled_differently, loose, numbered, spelled_differently};
pub use renames::{Rename, RenameReason, find_renames, implied_renames, item_agrees, sample_agrees};

/// A folder as the ledger knows it.
#[derive(Clone, Copy, Debug)]
pub struct KnownFolder<'a> {
    /// Its number.
    pub number: u32,
    /// Its path at the source.
    pub path: &'a FolderPath,
    /// Its UIDVALIDITY at the source.
    pub uid_validity: u32,
    /// It is on the target; false while it is being created.
    pub created: bool,
    /// Its numbers at the last listing that was applied wholly.
    pub synced: Option<&'a Synced>,
    /// Its MAILBOXID at the source.
    pub mailbox_id: Option<&'a str>,
}

/// What the tests of several parts make.
#[cfg(test)]
mod testing {
    use rehome_mailbox::{Folder, FolderPath, FolderStatus, SpecialUse};
    use rehome_wire::flags::Flags;

    pub(super) fn folder(
        path: &[&str],
        special_use: Option<SpecialUse>,
        numbers: (u32, u32, u32, Option<u64>),
    ) -> Folder {
        let (uid_validity, uid_next, exists, highest_mod_seq) = numbers;
        Folder {
            path: FolderPath(path.iter().map(|name| (*name).to_owned()).collect()),
            special_use,
            subscribed: false,
            selectable: true,
            status: Some(FolderStatus {
                uid_validity,
                uid_next,
                exists,
                highest_mod_seq,
            }),
            mailbox_id: None,
        }
    }

    pub(super) fn at(names: &str) -> FolderPath {
        FolderPath(names.split('/').map(str::to_owned).collect())
    }

    pub(super) fn flags(number: u8) -> Flags {
        Flags::from_parts(number, vec![])
    }
}

//! What becomes of each folder: created, listed, left as it is, removed.

use super::KnownFolder;
use crate::ledger::Synced;
use rehome_mailbox::{Folder, FolderPath, FolderStatus, SpecialUse};
use std::collections::{HashMap, HashSet};

/// What becomes of a folder in a pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FolderStep {
    /// The ledger does not have it: create it and copy everything.
    Create {
        /// Its place in the source's list.
        source: usize,
        /// Its number, where creating had begun.
        number: Option<u32>,
    },
    /// Its UIDVALIDITY is another one: pair its items with those copied before, by digest.
    Reset {
        /// Its place in the source's list.
        source: usize,
        /// The number under which its items were copied before.
        number: u32,
    },
    /// List it.
    List {
        /// Its place in the source's list.
        source: usize,
        /// Its number.
        number: u32,
        /// Why.
        reason: ListReason,
    },
    /// Its numbers prove that nothing changed.
    Unchanged {
        /// Its number.
        number: u32,
    },
    /// The source does not list it any more.
    Vanished {
        /// Its number.
        number: u32,
    },
}

/// Why a folder is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListReason {
    /// The last listing was not applied wholly.
    NotSynced,
    /// Its numbers changed.
    NumbersChanged,
    /// The platform numbers no changes, so flags may have changed under the same numbers.
    FlagsNotNumbered,
}

/// Decides for every selectable folder of the source and every folder of the ledger, in the order of work: the inbox,
/// what holds sent mail, then by path; vanished ones last, children before their parents.
#[must_use]
pub fn compare_folders(source: &[Folder], known: &[KnownFolder<'_>]) -> Vec<FolderStep> {
    let by_path: HashMap<&FolderPath, &KnownFolder<'_>> = known.iter().map(|folder| (folder.path, folder)).collect();
    let mut order: Vec<(usize, &Folder, FolderStatus)> = source
        .iter()
        .enumerate()
        .filter_map(|(at, folder)| Some((at, folder, folder.status.filter(|_| folder.selectable)?)))
        .collect();
    order.sort_by(|(_, one, _), (_, two, _)| (rank(one), &one.path).cmp(&(rank(two), &two.path)));
    let mut steps: Vec<FolderStep> = Vec::with_capacity(order.len());
    for (at, folder, status) in &order {
        steps.push(match by_path.get(&folder.path) {
            None => FolderStep::Create {
                source: *at,
                number: None,
            },
            Some(known) if !known.created => FolderStep::Create {
                source: *at,
                number: Some(known.number),
            },
            Some(known) if known.uid_validity != status.uid_validity => FolderStep::Reset {
                source: *at,
                number: known.number,
            },
            Some(known) => match list_reason(known.synced, status) {
                Some(reason) => FolderStep::List {
                    source: *at,
                    number: known.number,
                    reason,
                },
                None => FolderStep::Unchanged { number: known.number },
            },
        });
    }
    let listed: HashSet<&FolderPath> = order.iter().map(|(_, folder, _)| &folder.path).collect();
    let mut vanished: Vec<&KnownFolder<'_>> = known.iter().filter(|known| !listed.contains(known.path)).collect();
    vanished.sort_by(|one, two| two.path.cmp(one.path));
    steps.extend(
        vanished
            .into_iter()
            .map(|known| FolderStep::Vanished { number: known.number }),
    );
    steps
}

fn rank(folder: &Folder) -> u8 {
    match (folder.path.is_inbox(), folder.special_use) {
        (true, _) => 0,
        (false, Some(SpecialUse::Sent)) => 1,
        (false, Some(SpecialUse::Archive | SpecialUse::Drafts | SpecialUse::Junk | SpecialUse::Trash) | None) => 2,
    }
}

fn list_reason(synced: Option<&Synced>, status: &FolderStatus) -> Option<ListReason> {
    let Some(synced) = synced else {
        return Some(ListReason::NotSynced);
    };
    if (synced.uid_next, synced.exists, synced.highest_mod_seq)
        != (status.uid_next, status.exists, status.highest_mod_seq)
    {
        return Some(ListReason::NumbersChanged);
    }
    status.highest_mod_seq.is_none().then_some(ListReason::FlagsNotNumbered)
}

#[cfg(test)]
mod tests {
    use super::{super::testing::folder, *};

    #[test]
    fn folders_table() {
        let source = [
            folder(&["Zed"], None, (7, 5, 2, None)),
            folder(&["Out"], Some(SpecialUse::Sent), (8, 5, 2, Some(9))),
            folder(&["INBOX"], None, (9, 5, 2, Some(9))),
            folder(&["A", "b"], None, (10, 5, 2, Some(9))),
            folder(&["New"], None, (11, 1, 0, None)),
            Folder {
                selectable: false,
                status: None,
                ..folder(&["A"], None, (1, 1, 0, None))
            },
        ];
        let synced = |mod_seq| Synced {
            uid_next: 5,
            exists: 2,
            highest_mod_seq: mod_seq,
            token: None,
        };
        let (unnumbered, numbered) = (synced(None), synced(Some(9)));
        let paths: Vec<FolderPath> = source.iter().map(|folder| folder.path.clone()).collect();
        let gone = [
            FolderPath(vec!["Old".into()]),
            FolderPath(vec!["Old".into(), "child".into()]),
        ];
        let known = |number, path, uid_validity, synced| KnownFolder {
            number,
            path,
            uid_validity,
            created: true,
            synced,
            mailbox_id: None,
        };
        let steps = compare_folders(
            &source,
            &[
                known(1, &paths[0], 7, Some(&unnumbered)),
                known(2, &paths[1], 8, Some(&numbered)),
                known(3, &paths[2], 9, None),
                known(4, &paths[3], 99, Some(&numbered)),
                known(5, &gone[0], 1, Some(&numbered)),
                known(6, &gone[1], 1, Some(&numbered)),
            ],
        );
        assert_eq!(
            steps,
            [
                FolderStep::List {
                    source: 2,
                    number: 3,
                    reason: ListReason::NotSynced
                },
                FolderStep::Unchanged { number: 2 },
                FolderStep::Reset { source: 3, number: 4 },
                FolderStep::Create {
                    source: 4,
                    number: None
                },
                FolderStep::List {
                    source: 0,
                    number: 1,
                    reason: ListReason::FlagsNotNumbered
                },
                FolderStep::Vanished { number: 6 },
                FolderStep::Vanished { number: 5 },
            ]
        );
        let begun = [KnownFolder {
            created: false,
            ..known(9, &paths[4], 11, None)
        }];
        assert_eq!(
            compare_folders(&source[4..5], &begun),
            [FolderStep::Create {
                source: 0,
                number: Some(9)
            }]
        );
        let arrived = Synced {
            uid_next: 4,
            ..synced(Some(9))
        };
        assert_eq!(
            compare_folders(&source[1..2], &[known(2, &paths[1], 8, Some(&arrived))]),
            [FolderStep::List {
                source: 0,
                number: 2,
                reason: ListReason::NumbersChanged
            }]
        );
    }
}

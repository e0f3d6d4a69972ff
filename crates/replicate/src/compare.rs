//! Comparing source and ledger: pure functions from listings and records to what is to be done, with the reason.

use crate::ledger::{Record, Synced};
use rehome_mailbox::{Folder, FolderPath, FolderStatus, SpecialUse};
use rehome_wire::{flags::Flags, frames::ListedItem, uid_set::UidSet};
use std::collections::HashMap;

/// A folder whose losses are above both limits needs a second listing that agrees: this many items …
pub const SHRINK_ITEMS: u64 = 20;
/// … and one in this many of all.
pub const SHRINK_SHARE: u64 = 10;

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
}

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
    let listed: std::collections::HashSet<&FolderPath> = order.iter().map(|(_, folder, _)| &folder.path).collect();
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

/// An item to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addition {
    /// Its source uid.
    pub uid: u32,
    /// The source's hint at its length.
    pub length_hint: Option<u64>,
}

/// What a folder's listing asks for. Everything ascends by uid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FolderPlan {
    /// Items that are not on the target.
    pub additions: Vec<Addition>,
    /// Items whose flags changed, with the source's.
    pub flags: Vec<(u32, Flags)>,
    /// Items whose received time changed, with the source's.
    pub dates: Vec<(u32, i64)>,
    /// Items that are on the target and not at the source any more.
    pub removals: Vec<u32>,
    /// Items that the ledger had.
    pub known: u64,
}

impl FolderPlan {
    /// Whether so much is missing that a second listing on a new connection must agree.
    #[must_use]
    pub fn shrank(&self) -> bool {
        shrank(self.known, self.removals.len() as u64)
    }

    /// Whether a second whole listing agrees that what is to be removed is gone.
    #[must_use]
    pub fn second_listing_agrees(&self, second: &UidSet) -> bool {
        !self.removals.iter().any(|uid| second.contains(*uid))
    }

    fn pair(&mut self, item: &ListedItem, record: &Record) {
        if item.flags != record.flags {
            self.flags.push((item.uid, item.flags.clone()));
        }
        if item.received != record.received {
            self.dates.push((item.uid, item.received));
        }
    }

    fn add(&mut self, item: &ListedItem) {
        self.additions.push(Addition {
            uid: item.uid,
            length_hint: item.length,
        });
    }
}

/// Whether losing `lost` of `known` items needs a second opinion: more than a tenth and more than 20.
#[must_use]
pub fn shrank(known: u64, lost: u64) -> bool {
    lost > SHRINK_ITEMS && lost.saturating_mul(SHRINK_SHARE) > known
}

/// Compares one range of uids of a whole listing with the records of that range; both ascend. Ranges are given in
/// ascending order and cover all uids. Removals are believed only if the listing as a whole proves to be whole.
pub fn compare_whole(listed: &[ListedItem], held: &[Record], plan: &mut FolderPlan) {
    plan.known += held.len() as u64;
    let (mut listed, mut held) = (listed.iter().peekable(), held.iter().peekable());
    loop {
        match (listed.peek(), held.peek()) {
            (Some(item), Some(record)) if item.uid == record.uid => {
                plan.pair(item, record);
                listed.next();
                held.next();
            }
            (Some(item), Some(record)) if item.uid < record.uid => {
                plan.add(item);
                listed.next();
            }
            (Some(_), Some(record)) | (None, Some(record)) => {
                plan.removals.push(record.uid);
                held.next();
            }
            (Some(item), None) => {
                plan.add(item);
                listed.next();
            }
            (None, None) => return,
        }
    }
}

/// Compares one range of uids of a listing of changes: items added or changed, and uids that vanished.
pub fn compare_changes(changed: &[ListedItem], vanished: &UidSet, held: &[Record], plan: &mut FolderPlan) {
    plan.known += held.len() as u64;
    let mut held_rest = held.iter().peekable();
    for item in changed {
        while held_rest.next_if(|record| record.uid < item.uid).is_some() {}
        match held_rest.next_if(|record| record.uid == item.uid) {
            Some(record) => plan.pair(item, record),
            None => plan.add(item),
        }
    }
    plan.removals.extend(
        held.iter()
            .map(|record| record.uid)
            .filter(|uid| vanished.contains(*uid)),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::ReadBack;
    use proptest::prelude::*;
    use rehome_wire::digest::Digest;
    use std::collections::BTreeMap;

    fn folder(path: &[&str], special_use: Option<SpecialUse>, numbers: (u32, u32, u32, Option<u64>)) -> Folder {
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
        }
    }

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

    #[test]
    fn shrinking_table() {
        for (known, lost, expected) in [
            (0, 0, false),
            (20, 20, false),
            (21, 21, true),
            (210, 21, false),
            (209, 21, true),
            (1_000, 100, false),
            (1_000, 101, true),
        ] {
            assert_eq!(shrank(known, lost), expected, "{lost} of {known}");
        }
        let plan = FolderPlan {
            removals: vec![3, 9],
            ..FolderPlan::default()
        };
        assert!(plan.second_listing_agrees(&UidSet::from_ascending([1, 2, 4])));
        assert!(!plan.second_listing_agrees(&UidSet::from_ascending([1, 2, 9])));
    }

    type State = BTreeMap<u32, (u8, i64)>;

    fn flags(number: u8) -> Flags {
        Flags::from_parts(number, vec![])
    }

    fn listed(state: &State) -> Vec<ListedItem> {
        state
            .iter()
            .map(|(uid, (number, received))| ListedItem {
                uid: *uid,
                flags: flags(*number),
                received: *received,
                length: Some(u64::from(*uid)),
            })
            .collect()
    }

    fn records(state: &State) -> Vec<Record> {
        state
            .iter()
            .map(|(uid, (number, received))| Record {
                uid: *uid,
                length: 1,
                digest: Digest::of(b""),
                flags: flags(*number),
                received: *received,
                read_back: ReadBack::Equal,
                line_ends_only: false,
            })
            .collect()
    }

    /// What a folder holds after a plan was carried out.
    fn apply(held: &State, source: &State, plan: &FolderPlan) -> State {
        let mut state = held.clone();
        for addition in &plan.additions {
            assert!(
                state.insert(addition.uid, source[&addition.uid]).is_none(),
                "added twice"
            );
            assert_eq!(addition.length_hint, Some(u64::from(addition.uid)));
        }
        for (uid, new) in &plan.flags {
            state.get_mut(uid).unwrap().0 = new.system();
        }
        for (uid, received) in &plan.dates {
            state.get_mut(uid).unwrap().1 = *received;
        }
        for uid in &plan.removals {
            assert!(state.remove(uid).is_some(), "removed what was not there");
        }
        state
    }

    fn states() -> impl Strategy<Value = State> {
        prop::collection::btree_map(1u32..60, (0u8..4, 0i64..3), 0..40)
    }

    proptest! {
        #[test]
        fn whole_listings_make_both_equal(source in states(), held in states(), border in 1u32..60) {
            let mut plan = FolderPlan::default();
            let (source_items, held_items) = (listed(&source), records(&held));
            let (one, two) = (source_items.partition_point(|i| i.uid < border), held_items.partition_point(|r| r.uid < border));
            compare_whole(&source_items[..one], &held_items[..two], &mut plan);
            compare_whole(&source_items[one..], &held_items[two..], &mut plan);
            prop_assert_eq!(apply(&held, &source, &plan), source.clone());
            prop_assert_eq!(plan.known, held.len() as u64);
            prop_assert!(plan.additions.windows(2).all(|pair| pair[0].uid < pair[1].uid));
            prop_assert!(plan.removals.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(plan.removals.iter().all(|uid| !source.contains_key(uid)));
            let mut again = FolderPlan::default();
            compare_whole(&source_items, &records(&source), &mut again);
            prop_assert_eq!(again, FolderPlan { known: source.len() as u64, ..FolderPlan::default() });
        }

        #[test]
        fn changes_make_both_equal(source in states(), held in states()) {
            let changed: State = source.iter().filter(|(uid, new)| held.get(uid) != Some(new)).map(|(u, n)| (*u, *n)).collect();
            let vanished: UidSet = held.keys().copied().filter(|uid| !source.contains_key(uid)).collect();
            let mut plan = FolderPlan::default();
            compare_changes(&listed(&changed), &vanished, &records(&held), &mut plan);
            prop_assert_eq!(apply(&held, &source, &plan), source);
        }
    }
}

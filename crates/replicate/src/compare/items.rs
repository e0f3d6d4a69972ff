//! What a folder's listing asks for: additions, flags, dates, removals; and when a loss needs a second look.

use crate::ledger::Record;
use rehome_wire::{flags::Flags, frames::ListedItem, uid_set::UidSet};

/// A folder whose losses are above both limits needs a second listing that agrees: this many items …
pub const SHRINK_ITEMS: u64 = 20;
/// … and one in this many of all.
pub const SHRINK_SHARE: u64 = 10;

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
    use super::{super::testing::flags, *};
    use crate::ledger::ReadBack;
    use proptest::prelude::*;
    use rehome_wire::digest::Digest;
    use std::collections::BTreeMap;

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
        #![proptest_config(crate::repeatable::config())]

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

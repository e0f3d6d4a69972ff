//! Comparing source and ledger: pure functions from listings and records to what is to be done, with the reason.

use crate::ledger::{Record, Synced};
use rehome_mailbox::{Folder, FolderPath, FolderStatus, SpecialUse};
use rehome_wire::{flags::Flags, frames::ListedItem, uid_set::UidSet};
use std::collections::{HashMap, HashSet};

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
    /// Its MAILBOXID at the source.
    pub mailbox_id: Option<&'a str>,
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

/// A folder that has another name at the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rename {
    /// Its number.
    pub number: u32,
    /// Its place in the source's list, under the new name.
    pub source: usize,
    /// Why it is taken for the same.
    pub reason: RenameReason,
}

/// Why a folder is taken for another one under a new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameReason {
    /// It has the MAILBOXID.
    MailboxId,
    /// Its old name is gone, and it alone of the unknown folders has the UIDVALIDITY, with a UIDNEXT not below the
    /// recorded one and something in it. Believed only if a sample of its items agrees: [`sample_agrees`].
    Numbers,
    /// A folder above it was renamed, and it is where that brings it.
    Parent,
}

/// Folders that were renamed at the source since, by number. The inbox is never one of them.
#[must_use]
pub fn find_renames(source: &[Folder], known: &[KnownFolder<'_>]) -> Vec<Rename> {
    let listed: Vec<(usize, &Folder, FolderStatus)> = source
        .iter()
        .enumerate()
        .filter_map(|(at, folder)| Some((at, folder, folder.status.filter(|_| folder.selectable)?)))
        .collect();
    let paths: HashSet<&FolderPath> = listed.iter().map(|(_, folder, _)| &folder.path).collect();
    let known_paths: HashSet<&FolderPath> = known.iter().map(|known| known.path).collect();
    let with_ids = listed.iter().any(|(_, folder, _)| folder.mailbox_id.is_some());
    let mut renames: Vec<Rename> = Vec::new();
    for folder in known.iter().filter(|known| known.created && !known.path.is_inbox()) {
        let (mut found, reason): (Vec<usize>, _) = match folder.mailbox_id.filter(|_| with_ids) {
            Some(id) => {
                let same = |held: &&Folder| held.mailbox_id.as_deref() == Some(id);
                let same = listed.iter().filter(|(_, held, _)| same(held));
                (same.map(|(at, ..)| *at).collect(), RenameReason::MailboxId)
            }
            None => {
                let Some(synced) = folder.synced.filter(|_| !paths.contains(folder.path)) else {
                    continue;
                };
                let same = listed.iter().filter(|(_, held, status)| {
                    !known_paths.contains(&held.path)
                        && status.uid_validity == folder.uid_validity
                        && status.uid_next >= synced.uid_next
                        && status.exists > 0
                });
                (same.map(|(at, ..)| *at).collect(), RenameReason::Numbers)
            }
        };
        let (Some(at), true) = (found.pop(), found.is_empty()) else {
            continue;
        };
        if source[at].path != *folder.path && !source[at].path.is_inbox() {
            let number = folder.number;
            renames.push(Rename {
                number,
                source: at,
                reason,
            });
        }
    }
    // A folder that two others may have been is neither.
    let claimed = |at: usize| renames.iter().filter(|rename| rename.source == at).count();
    let alone = renames.iter().filter(|rename| claimed(rename.source) == 1);
    alone.copied().collect()
}

/// Folders that went along with one above them: of those that are not renamed on their own account, whose old name is gone,
/// and which the source lists, unknown so far and with the same UIDVALIDITY, where the renaming brings them.
#[must_use]
pub fn implied_renames(source: &[Folder], known: &[KnownFolder<'_>], renames: &[Rename]) -> Vec<Rename> {
    let listed = |path: &FolderPath| {
        source
            .iter()
            .position(|folder| folder.selectable && folder.path == *path)
    };
    let path_of = |number: u32| {
        known
            .iter()
            .find(|known| known.number == number)
            .map(|known| known.path)
    };
    let implied = known.iter().filter_map(|folder| {
        if !folder.created
            || renames.iter().any(|rename| rename.number == folder.number)
            || listed(folder.path).is_some()
        {
            return None;
        }
        let above = renames
            .iter()
            .filter_map(|rename| Some((path_of(rename.number)?, &source[rename.source].path)));
        let (from, to) = above
            .filter(|(from, _)| folder.path.0.starts_with(&from.0))
            .max_by_key(|(from, _)| from.0.len())?;
        let path = below(folder.path, from, to)?;
        let at = listed(&path)?;
        let unknown =
            !known.iter().any(|known| *known.path == path) && !renames.iter().any(|rename| rename.source == at);
        let same = source[at]
            .status
            .is_some_and(|status| status.uid_validity == folder.uid_validity);
        let ids = (folder.mailbox_id, source[at].mailbox_id.as_deref());
        let same_id = !matches!(ids, (Some(one), Some(two)) if one != two);
        (unknown && same && same_id).then_some(Rename {
            number: folder.number,
            source: at,
            reason: RenameReason::Parent,
        })
    });
    implied.collect()
}

/// Whether the sampled items of a folder are those of a listing: at least one and half of them are there, and all that are
/// agree in received time and, where both sides measure the same octets, in length.
#[must_use]
pub fn sample_agrees(sample: &[Record], listed: &HashMap<u32, ListedItem>) -> bool {
    let found: Vec<(&Record, &ListedItem)> = sample
        .iter()
        .filter_map(|record| Some((record, listed.get(&record.uid)?)))
        .collect();
    let agrees = |(record, item): &(&Record, &ListedItem)| {
        let length = item
            .length
            .is_none_or(|length| record.line_ends_only || length == record.length);
        length && item.received == record.received
    };
    !found.is_empty() && 2 * found.len() >= sample.len() && found.iter().all(agrees)
}

/// One renaming on the target; everything below goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderMove {
    /// The folder's number.
    pub number: u32,
    /// Where it is.
    pub from: FolderPath,
    /// Where it goes.
    pub to: FolderPath,
}

/// The renamings, in order, that bring each folder from where it is to where it belongs: parents first, and through a
/// temporary name what is in the way of another. Folders that belong nowhere (they are removed later) only make room.
/// None where no order is found.
#[must_use]
pub fn plan_moves(folders: &[(u32, FolderPath, Option<FolderPath>)]) -> Option<Vec<FolderMove>> {
    let mut at: Vec<(u32, FolderPath, Option<FolderPath>)> = folders.to_vec();
    at.sort_by(|one, two| one.2.cmp(&two.2));
    let mut moves: Vec<FolderMove> = Vec::new();
    for _ in 0..=4 * at.len() {
        let misplaced = at
            .iter()
            .position(|(_, path, wanted)| wanted.as_ref().is_some_and(|wanted| wanted != path));
        let Some(mover) = misplaced else { return Some(moves) };
        let to = at[mover].2.clone()?;
        let into_itself = to.0.starts_with(&at[mover].1.0);
        let in_the_way = at.iter().position(|(_, path, _)| *path == to);
        let (who, to) = match in_the_way {
            Some(other) => (other, temporary(at[other].0)),
            None if into_itself => (mover, temporary(at[mover].0)),
            None => (mover, to),
        };
        let from = at[who].1.clone();
        if from.is_inbox() {
            return None;
        }
        for (_, path, _) in &mut at {
            if let Some(moved) = below(path, &from, &to) {
                *path = moved;
            }
        }
        moves.push(FolderMove {
            number: at[who].0,
            from,
            to,
        });
    }
    None
}

/// The path of what was at `path` once `from` is renamed to `to`; none where it is not below.
#[must_use]
pub fn below(path: &FolderPath, from: &FolderPath, to: &FolderPath) -> Option<FolderPath> {
    let rest = path.0.strip_prefix(from.0.as_slice())?;
    Some(FolderPath(to.0.iter().chain(rest).cloned().collect()))
}

const TEMPORARY: &str = "rehome-renaming-";

/// The name that a folder gets while another one takes its own.
#[must_use]
pub fn temporary(number: u32) -> FolderPath {
    FolderPath(vec![format!("{TEMPORARY}{number}")])
}

/// Whether a path of the target is, or lies below, a name that [`plan_moves`] made up.
#[must_use]
pub fn is_temporary(path: &FolderPath) -> bool {
    path.0.first().is_some_and(|name| name.starts_with(TEMPORARY))
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
            mailbox_id: None,
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

    fn at(names: &str) -> FolderPath {
        FolderPath(names.split('/').map(str::to_owned).collect())
    }

    #[test]
    fn renames_table() {
        let synced = Synced {
            uid_next: 5,
            exists: 2,
            highest_mod_seq: None,
            token: None,
        };
        let with_id = |name: &str, id: Option<&str>, numbers| Folder {
            mailbox_id: id.map(str::to_owned),
            ..folder(&[name], None, numbers)
        };
        let (old, inbox) = (at("Old"), FolderPath::inbox());
        let known = |path, mailbox_id, validity| KnownFolder {
            number: 3,
            path,
            uid_validity: validity,
            created: true,
            synced: Some(&synced),
            mailbox_id,
        };
        let numbers = Some(RenameReason::Numbers);
        let rows: [(&str, Vec<Folder>, KnownFolder<'_>, Option<RenameReason>); 12] = [
            (
                "the four conditions",
                vec![with_id("New", None, (7, 5, 2, None))],
                known(&old, None, 7),
                numbers,
            ),
            (
                "grown meanwhile",
                vec![with_id("New", None, (7, 9, 6, None))],
                known(&old, None, 7),
                numbers,
            ),
            (
                "another validity",
                vec![with_id("New", None, (8, 5, 2, None))],
                known(&old, None, 7),
                None,
            ),
            (
                "UIDNEXT below",
                vec![with_id("New", None, (7, 4, 2, None))],
                known(&old, None, 7),
                None,
            ),
            (
                "empty",
                vec![with_id("New", None, (7, 5, 0, None))],
                known(&old, None, 7),
                None,
            ),
            (
                "the old name is there",
                vec![
                    with_id("New", None, (7, 5, 2, None)),
                    with_id("Old", None, (9, 5, 2, None)),
                ],
                known(&old, None, 7),
                None,
            ),
            (
                "two could be it",
                vec![
                    with_id("New", None, (7, 5, 2, None)),
                    with_id("Newer", None, (7, 5, 2, None)),
                ],
                known(&old, None, 7),
                None,
            ),
            (
                "the id decides, whatever the numbers and though the old name is there",
                vec![
                    with_id("New", Some("x"), (8, 1, 0, None)),
                    with_id("Old", Some("y"), (7, 5, 2, None)),
                ],
                known(&old, Some("x"), 7),
                Some(RenameReason::MailboxId),
            ),
            (
                "another id",
                vec![with_id("New", Some("y"), (7, 5, 2, None))],
                known(&old, Some("x"), 7),
                None,
            ),
            (
                "the same name",
                vec![with_id("Old", Some("x"), (7, 5, 2, None))],
                known(&old, Some("x"), 7),
                None,
            ),
            (
                "the inbox never",
                vec![with_id("New", Some("x"), (7, 5, 2, None))],
                known(&inbox, Some("x"), 7),
                None,
            ),
            (
                "one id twice",
                vec![
                    with_id("New", Some("x"), (7, 5, 2, None)),
                    with_id("Newer", Some("x"), (7, 5, 2, None)),
                ],
                known(&old, Some("x"), 7),
                None,
            ),
        ];
        for (what, source, known, expected) in rows {
            let found = find_renames(&source, &[known]);
            let expected = expected.map(|reason| Rename {
                number: 3,
                source: 0,
                reason,
            });
            assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{what}");
        }
        let twins = [
            known(&old, None, 7),
            KnownFolder {
                number: 4,
                path: &inbox,
                ..known(&old, None, 7)
            },
        ];
        let other = at("Other");
        let twins = [
            twins[0],
            KnownFolder {
                path: &other,
                ..twins[1]
            },
        ];
        let source = [with_id("New", None, (7, 5, 2, None))];
        assert_eq!(find_renames(&source, &twins), [], "two may have been it");
    }

    #[test]
    fn children_go_along() {
        let synced = Synced {
            uid_next: 5,
            exists: 2,
            highest_mod_seq: None,
            token: None,
        };
        let paths = [at("A"), at("A/b"), at("A/b/c"), at("A/d"), at("A/stays"), at("E")];
        let known: Vec<KnownFolder<'_>> = (0..)
            .zip(&paths)
            .map(|(number, path)| KnownFolder {
                number,
                path,
                uid_validity: 7 + number,
                created: true,
                synced: Some(&synced),
                mailbox_id: None,
            })
            .collect();
        let source = [
            folder(&["Z"], None, (7, 5, 2, None)),
            // Empty, so that its own numbers prove nothing.
            folder(&["Z", "b"], None, (8, 1, 0, None)),
            folder(&["Z", "b", "c"], None, (9, 1, 0, None)),
            // Another folder under that name.
            folder(&["Z", "d"], None, (99, 1, 0, None)),
            folder(&["A", "stays"], None, (11, 1, 0, None)),
        ];
        let renames = find_renames(&source, &known);
        let by_numbers = |number, source| Rename {
            number,
            source,
            reason: RenameReason::Numbers,
        };
        assert_eq!(renames, [by_numbers(0, 0)]);
        let along = |number, source| Rename {
            number,
            source,
            reason: RenameReason::Parent,
        };
        assert_eq!(implied_renames(&source, &known, &renames), [along(1, 1), along(2, 2)]);
        assert_eq!(implied_renames(&source, &known, &[]), []);
    }

    #[test]
    fn samples_table() {
        let record = |uid, length, received, line_ends_only| Record {
            uid,
            length,
            digest: Digest::of(b""),
            flags: flags(0),
            received,
            read_back: ReadBack::Equal,
            line_ends_only,
        };
        let item = |uid, length, received| {
            let flags = flags(1);
            (
                uid,
                ListedItem {
                    uid,
                    flags,
                    received,
                    length,
                },
            )
        };
        let sample = [
            record(1, 10, 100, false),
            record(2, 20, 200, true),
            record(5, 50, 500, false),
        ];
        for (what, listed, expected) in [
            (
                "all",
                vec![item(1, Some(10), 100), item(2, Some(18), 200), item(5, None, 500)],
                true,
            ),
            ("one left", vec![item(1, Some(10), 100), item(2, None, 200)], true),
            ("most left", vec![item(1, Some(10), 100)], false),
            (
                "another length",
                vec![item(1, Some(11), 100), item(2, None, 200)],
                false,
            ),
            ("another date", vec![item(1, Some(10), 100), item(2, None, 201)], false),
            ("nothing", vec![], false),
        ] {
            assert_eq!(
                sample_agrees(&sample, &listed.into_iter().collect()),
                expected,
                "{what}"
            );
        }
        assert!(!sample_agrees(&[], &HashMap::new()));
    }

    #[test]
    fn moves_table() {
        type Row<'a> = (&'a [(&'a str, Option<&'a str>)], Option<&'a [(&'a str, &'a str)]>);
        let temporary = |number: u32| format!("rehome-renaming-{number}");
        let (first, second) = (temporary(0), temporary(1));
        let rows: [Row<'_>; 8] = [
            (&[("A", Some("A")), ("B", None)], Some(&[])),
            (&[("A", Some("B"))], Some(&[("A", "B")])),
            // What lies below goes along.
            (&[("A", Some("B")), ("A/x", Some("B/x"))], Some(&[("A", "B")])),
            // It stays where it belongs.
            (
                &[("A", Some("B")), ("A/x", Some("A/x"))],
                Some(&[("A", "B"), ("B/x", "A/x")]),
            ),
            // Parents first, then what has a new name below.
            (
                &[("A/x", Some("B/y")), ("A", Some("B"))],
                Some(&[("A", "B"), ("B/x", "B/y")]),
            ),
            // A swap.
            (
                &[("A", Some("B")), ("B", Some("A"))],
                Some(&[("A", &first), ("B", "A"), (&first, "B")]),
            ),
            // Below itself.
            (&[("A", Some("A/b"))], Some(&[("A", &first), (&first, "A/b")])),
            // What is to be removed makes room.
            (&[("A", Some("B")), ("B", None)], Some(&[("B", &second), ("A", "B")])),
        ];
        for (folders, expected) in rows {
            let folders: Vec<_> = (0..)
                .zip(folders)
                .map(|(number, (path, wanted))| (number, at(path), wanted.map(at)))
                .collect();
            let moves = plan_moves(&folders).map(|moves| {
                let names = moves.iter().map(|one| (one.from.to_string(), one.to.to_string()));
                names.collect::<Vec<_>>()
            });
            let expected = expected.map(|moves| {
                let names = moves.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned()));
                names.collect::<Vec<_>>()
            });
            assert_eq!(moves, expected, "{folders:?}");
        }
        let inbox = [(0, FolderPath::inbox(), Some(at("A")))];
        assert_eq!(plan_moves(&inbox), None);
    }

    proptest! {
        /// Whatever is to go wherever: carried out in order, everything ends where it belongs and nothing meets another.
        #[test]
        fn moves_lead_there(names in prop::sample::subsequence(vec!["A", "A/a", "A/a/x", "B", "B/b", "C"], 1..6),
                            wanted in Just(vec!["A", "A/a", "B", "B/b", "C", "C/c"]).prop_shuffle(), gone in any::<u8>()) {
            let folders: Vec<_> = (0..).zip(names.iter().zip(wanted))
                .map(|(number, (path, wanted))| (number, at(path), (gone >> number & 1 == 0).then(|| at(wanted)))).collect();
            let moves = plan_moves(&folders).unwrap();
            let mut held: BTreeMap<FolderPath, u32> = folders.iter().map(|(number, path, _)| (path.clone(), *number)).collect();
            for FolderMove { number, from, to } in moves {
                prop_assert_eq!(held.get(&from), Some(&number));
                prop_assert!(!held.contains_key(&to) && !to.0.starts_with(&from.0));
                let moved: Vec<_> = held.iter().filter_map(|(path, number)| Some((path.clone(), below(path, &from, &to)?, *number))).collect();
                for (old, new, number) in moved {
                    held.remove(&old);
                    prop_assert!(held.insert(new, number).is_none());
                }
            }
            for (number, _, wanted) in folders {
                if let Some(wanted) = wanted {
                    prop_assert_eq!(held.get(&wanted), Some(&number));
                }
            }
        }
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

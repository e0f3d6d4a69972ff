//! Which folders have another name at the source now.

use super::{KnownFolder, below};
use crate::ledger::Record;
use rehome_mailbox::{Folder, FolderPath, FolderStatus};
use rehome_wire::frames::ListedItem;
use std::collections::{HashMap, HashSet};

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
    let brought = known.iter().filter(|known| known.created);
    let there: HashSet<(&FolderPath, &str)> = brought
        .filter_map(|known| Some((known.path, known.mailbox_id?)))
        .collect();
    let mut by_id: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut unknown: HashMap<u32, Vec<(usize, FolderStatus)>> = HashMap::new();
    for (at, folder, status) in &listed {
        if let Some(id) = &folder.mailbox_id {
            by_id.entry(id).or_default().push(*at);
        }
        if !known_paths.contains(&folder.path) {
            unknown.entry(status.uid_validity).or_default().push((*at, *status));
        }
    }
    let mut renames: Vec<Rename> = Vec::new();
    for folder in known.iter().filter(|known| known.created && !known.path.is_inbox()) {
        let (mut found, reason): (Vec<usize>, _) = match folder.mailbox_id.filter(|_| !by_id.is_empty()) {
            Some(id) => (by_id.get(id).cloned().unwrap_or_default(), RenameReason::MailboxId),
            None => {
                let Some(synced) = folder.synced.filter(|_| !paths.contains(folder.path)) else {
                    continue;
                };
                let same = unknown.get(&folder.uid_validity).into_iter().flatten();
                let same = same.filter(|(_, status)| status.uid_next >= synced.uid_next && status.exists > 0);
                (same.map(|(at, _)| *at).collect(), RenameReason::Numbers)
            }
        };
        let (Some(at), true) = (found.pop(), found.is_empty()) else {
            continue;
        };
        let to = &source[at].path;
        // What was brought anew under that name since an interrupted pass stays what the folder is.
        let brought = folder.mailbox_id.is_some_and(|id| there.contains(&(to, id)));
        if *to != *folder.path && !to.is_inbox() && !brought {
            let number = folder.number;
            renames.push(Rename {
                number,
                source: at,
                reason,
            });
        }
    }
    // A folder that two others may have been is neither.
    let mut claims: HashMap<usize, usize> = HashMap::new();
    for rename in &renames {
        *claims.entry(rename.source).or_default() += 1;
    }
    renames.retain(|rename| claims.get(&rename.source) == Some(&1));
    renames
}

/// Folders that went along with one above them: of those that are not renamed on their own account, whose old name is gone,
/// and which the source lists, unknown so far and with the same UIDVALIDITY, where the renaming brings them.
#[must_use]
pub fn implied_renames(source: &[Folder], known: &[KnownFolder<'_>], renames: &[Rename]) -> Vec<Rename> {
    if renames.is_empty() {
        return Vec::new();
    }
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
        let length = (!record.line_ends_only).then_some(record.length);
        item_agrees((length, record.received), (item.length, item.received))
    };
    !found.is_empty() && 2 * found.len() >= sample.len() && found.iter().all(agrees)
}

/// Whether what was known of an item is so still, as far as both sides measure it: length and received time.
#[must_use]
pub fn item_agrees(known: (Option<u64>, i64), listed: (Option<u64>, i64)) -> bool {
    let length = known.0.zip(listed.0).is_none_or(|(known, listed)| known == listed);
    length && known.1 == listed.1
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{at, flags, folder},
        *,
    };
    use crate::ledger::{ReadBack, Synced};
    use rehome_wire::digest::Digest;

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
}

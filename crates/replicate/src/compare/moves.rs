//! In which order folders of the target are renamed.

use rehome_mailbox::FolderPath;

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

#[cfg(test)]
mod tests {
    use super::{super::testing::at, *};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

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
        #![proptest_config(crate::repeatable::config())]

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
}

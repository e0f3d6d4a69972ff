//! What a target calls a folder that it was asked to make. Some take names for one that the source tells apart: without
//! regard to case, or to how accents are composed.

use rehome_mailbox::FolderPath;
use std::collections::{HashMap, HashSet};

/// Where a folder that the target says it made is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// Under the name that was asked for, as far as the target's list tells.
    AsAsked,
    /// Under another spelling of it.
    Under(FolderPath),
    /// It is a folder that is another one's already.
    Taken,
}

/// Finds a folder that was asked for in the target's list of selectable folders: by its path, else, where it has the
/// UIDVALIDITY that creating it told, by a path that a target may take for the same. `taken` are other folders' paths.
#[must_use]
pub fn find_made(
    asked: &FolderPath,
    uid_validity: u32,
    listed: &[(FolderPath, u32)],
    taken: &HashSet<&FolderPath>,
) -> Made {
    if listed.iter().any(|(path, _)| path == asked) {
        return if taken.contains(asked) {
            Made::Taken
        } else {
            Made::AsAsked
        };
    }
    let spelled = loose(asked);
    let same = |(path, validity): &&(FolderPath, u32)| *validity == uid_validity && loose(path) == spelled;
    let mut free = Vec::new();
    let mut others = 0_usize;
    for (path, _) in listed.iter().filter(same) {
        if taken.contains(path) {
            others += 1;
        } else {
            free.push(path);
        }
    }
    match (&free[..], others) {
        ([path], _) => Made::Under((*path).clone()),
        ([], 0) => Made::AsAsked,
        ([] | [_, _, ..], _) => Made::Taken,
    }
}

/// A path without what a target may not tell apart. Paths that a target takes for one have this in common, and others have
/// it too: of other letters than ASCII nothing is looked at.
#[must_use]
pub fn loose(path: &FolderPath) -> Vec<String> {
    path.0.iter().map(|name| loosely(name)).collect()
}

/// A name without what a target may not tell apart.
fn loosely(name: &str) -> String {
    let mut kept = String::with_capacity(name.len());
    for letter in name.trim().chars() {
        if letter.is_ascii() {
            kept.push(letter.to_ascii_lowercase());
        } else if is_combining(letter) {
            // The letter below the accent: composed, both are one letter that is not ASCII.
            kept.pop();
        }
    }
    kept
}

/// Marks that compose with the letter before them.
fn is_combining(letter: char) -> bool {
    matches!(
        letter,
        '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}'
    )
}

/// What several spellings among these paths, and the paths above them, have in common: a target may take those for one.
#[must_use]
pub fn spelled_differently<'a>(paths: impl Iterator<Item = &'a FolderPath>) -> HashSet<Vec<String>> {
    let mut spellings: HashMap<Vec<String>, &[String]> = HashMap::new();
    let mut several = HashSet::new();
    for path in paths {
        let common = loose(path);
        for length in 1..=path.0.len() {
            let (spelled, common) = (&path.0[..length], &common[..length]);
            match spellings.get(common) {
                Some(held) if *held != spelled => {
                    several.insert(common.to_vec());
                }
                Some(_) => {}
                None => {
                    spellings.insert(common.to_vec(), spelled);
                }
            }
        }
    }
    several
}

/// Whether a path, or one above it, is one of those.
#[must_use]
pub fn is_spelled_differently(path: &FolderPath, several: &HashSet<Vec<String>>) -> bool {
    let common = loose(path);
    !several.is_empty() && (1..=common.len()).any(|length| several.contains(&common[..length]))
}

/// The path with its last name numbered, for a folder whose own name is taken.
#[must_use]
pub fn numbered(path: &FolderPath, number: u32) -> FolderPath {
    let mut names = path.0.clone();
    if let Some(last) = names.last_mut() {
        *last = format!("{} ({number})", last.trim_end());
    }
    FolderPath(names)
}

/// Where a folder of the source belongs on the target: below that which holds the deepest folder above it of those that
/// are `elsewhere` there (source path → target path), else under its own path.
#[must_use]
pub fn belongs_at(source: &FolderPath, elsewhere: &HashMap<FolderPath, FolderPath>) -> FolderPath {
    if elsewhere.is_empty() {
        return source.clone();
    }
    let above = (1..source.0.len()).rev().find_map(|length| {
        let target = elsewhere.get(&FolderPath(source.0[..length].to_vec()))?;
        Some(target.0.iter().chain(&source.0[length..]).cloned().collect())
    });
    above.map_or_else(|| source.clone(), FolderPath)
}

#[cfg(test)]
mod tests {
    use super::{super::testing::at, *};

    #[test]
    fn made_table() {
        let listed = [(at("Archive"), 1), (at("B"), 2), (at("Caf\u{e9}/x"), 3), (at("D"), 4)];
        let (archive, d) = (at("Archive"), at("D"));
        let taken = HashSet::from([&archive, &d]);
        for (asked, validity, expected) in [
            ("B", 2, Made::AsAsked),
            ("archive", 1, Made::Taken),
            // Another folder: the list does not have it yet.
            ("archive", 9, Made::AsAsked),
            ("b", 2, Made::Under(at("B"))),
            ("CAFE\u{301}/X", 3, Made::Under(at("Caf\u{e9}/x"))),
            ("D", 4, Made::Taken),
            ("E", 2, Made::AsAsked),
        ] {
            assert_eq!(find_made(&at(asked), validity, &listed, &taken), expected, "{asked}");
        }
        let two = [(at("b"), 2), (at("B"), 2)];
        assert_eq!(find_made(&at(" b "), 2, &two, &HashSet::new()), Made::Taken);
    }

    #[test]
    fn loose_table() {
        for (one, two, expected) in [
            ("Archive", "archive", true),
            ("Archive/x", "ARCHIVE/X", true),
            ("Archive/x", "Archive", false),
            ("Archive/x", "Archive/y", false),
            ("Cafe\u{301}", "Caf\u{e9}", true),
            ("Cafe", "Caf\u{e9}", false),
            ("\u{c9}t\u{e9}", "\u{e9}t\u{e9}", true),
            ("a ", "A", true),
        ] {
            assert_eq!(loose(&at(one)) == loose(&at(two)), expected, "{one} {two}");
        }
    }

    #[test]
    fn spellings_table() {
        let paths = ["A/b", "A/B/c", "a", "C", "C/d"].map(at);
        let several = spelled_differently(paths.iter());
        for (path, expected) in [("A", true), ("a/x", true), ("C", false), ("C/d", false), ("D", false)] {
            assert_eq!(is_spelled_differently(&at(path), &several), expected, "{path}");
        }
    }

    #[test]
    fn places_of_names() {
        assert_eq!(numbered(&at("A/b"), 2), at("A/b (2)"));
        let elsewhere = HashMap::from([(at("a"), at("a (2)")), (at("a/b"), at("a (2)/b (3)"))]);
        for (source, expected) in [
            ("a/c", "a (2)/c"),
            ("a/b/c", "a (2)/b (3)/c"),
            ("A/c", "A/c"),
            // That of the folder itself is what is asked for.
            ("a", "a"),
        ] {
            assert_eq!(belongs_at(&at(source), &elsewhere), at(expected));
        }
    }
}

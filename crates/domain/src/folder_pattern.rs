//! Folders that a migration leaves out, as administrators name them.

use std::str::FromStr;

/// Most patterns of one batch.
pub const MAX_PATTERNS: usize = 100;
/// Most characters of one pattern.
const MAX_PATTERN: usize = 500;

/// Folders that mean the same everywhere, whatever they are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WellKnownFolder {
    /// The inbox.
    Inbox,
    /// Kept for good.
    Archive,
    /// Not sent yet.
    Drafts,
    /// Unwanted.
    JunkEmail,
    /// Sent.
    SentItems,
    /// Thrown away.
    DeletedItems,
}

impl WellKnownFolder {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::Inbox,
        Self::Archive,
        Self::Drafts,
        Self::JunkEmail,
        Self::SentItems,
        Self::DeletedItems,
    ];

    /// The name between `#` and `#`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbox => "Inbox",
            Self::Archive => "Archive",
            Self::Drafts => "Drafts",
            Self::JunkEmail => "JunkEmail",
            Self::SentItems => "SentItems",
            Self::DeletedItems => "DeletedItems",
        }
    }
}

/// Why a text names no folder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FolderPatternError {
    /// Nothing is named.
    #[error("'{0}' names no folder: there is nothing between two slashes, or at the beginning or end")]
    Empty(String),
    /// No such folder between the signs.
    #[error(
        "'{0}' is no folder that is known everywhere; these are #Inbox#, #Archive#, #Drafts#, #JunkEmail#, #SentItems# and #DeletedItems#"
    )]
    NotWellKnown(String),
    /// A star elsewhere than alone at the end.
    #[error("'{0}' has a * that does not stand alone at the end, as in Projects/*; \\* is a star in a name")]
    Star(String),
    /// Too long.
    #[error("it has more than {MAX_PATTERN} characters")]
    TooLong,
}

/// One folder that is left out, and perhaps all below it.
///
/// `Projects/Old` is that folder alone, `Projects/Old/*` it and all below it. `#JunkEmail#` is the folder with that use,
/// whatever its name. Case does not matter. A backslash takes `/`, `#`, `*` and itself as part of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderPattern {
    well_known: Option<WellKnownFolder>,
    /// Names from the root in lower case, below the well-known folder if there is one.
    names: Vec<String>,
    below: bool,
}

impl FromStr for FolderPattern {
    type Err = FolderPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.chars().count() > MAX_PATTERN {
            return Err(FolderPatternError::TooLong);
        }
        let mut parts = parts(text);
        let below = parts.len() > 1 && parts.last().is_some_and(Part::is_star);
        if below {
            parts.pop();
        }
        if parts.iter().any(|part| part.star) {
            return Err(FolderPatternError::Star(text.to_owned()));
        }
        let well_known = match parts.first().and_then(Part::sign) {
            Some(name) => {
                let known = WellKnownFolder::ALL
                    .into_iter()
                    .find(|k| k.as_str().eq_ignore_ascii_case(name));
                Some(known.ok_or_else(|| FolderPatternError::NotWellKnown(text.to_owned()))?)
            }
            None => None,
        };
        let names: Vec<String> = parts
            .iter()
            .skip(usize::from(well_known.is_some()))
            .map(|part| part.text.to_lowercase())
            .collect();
        if names.iter().any(String::is_empty) || (names.is_empty() && well_known.is_none()) {
            return Err(FolderPatternError::Empty(text.to_owned()));
        }
        Ok(Self {
            well_known,
            names,
            below,
        })
    }
}

impl FolderPattern {
    /// Whether a folder is meant: its names from the root, and the special folders among it and those above it, each
    /// with how many names it has.
    #[must_use]
    pub fn names(&self, path: &[String], special: &[(WellKnownFolder, usize)]) -> bool {
        let beginnings: Vec<usize> = match self.well_known {
            None => vec![0],
            Some(wanted) => special
                .iter()
                .filter(|(found, _)| *found == wanted)
                .map(|(_, n)| *n)
                .collect(),
        };
        beginnings.into_iter().any(|skipped| {
            let Some(rest) = path.get(skipped..) else { return false };
            let begins = rest.len() >= self.names.len()
                && self
                    .names
                    .iter()
                    .zip(rest)
                    .all(|(wanted, name)| *wanted == name.to_lowercase());
            begins && (self.below || rest.len() == self.names.len())
        })
    }
}

/// What stands between two slashes.
#[derive(Default)]
struct Part {
    text: String,
    /// A star that is no part of the name.
    star: bool,
    /// The signs at its ends are no part of the name.
    signs: (bool, bool),
}

impl Part {
    fn is_star(&self) -> bool {
        self.star && self.text == "*"
    }

    /// The name between two signs.
    fn sign(&self) -> Option<&str> {
        match self.signs {
            (true, true) => self.text.strip_prefix('#')?.strip_suffix('#'),
            (true, false) | (false, true) | (false, false) => None,
        }
    }
}

fn parts(text: &str) -> Vec<Part> {
    let mut parts = vec![Part::default()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let (character, literal) = match character {
            '\\' => (characters.next().unwrap_or('\\'), true),
            other => (other, false),
        };
        if character == '/' && !literal {
            parts.push(Part::default());
            continue;
        }
        let last = parts.len() - 1;
        let part = &mut parts[last];
        part.star |= character == '*' && !literal;
        let sign = character == '#' && !literal;
        part.signs = (
            if part.text.is_empty() { sign } else { part.signs.0 },
            sign && !part.text.is_empty(),
        );
        part.text.push(character);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pattern: &str, path: &str) -> bool {
        let path: Vec<String> = path.split('/').map(str::to_owned).collect();
        let special = match path[0].as_str() {
            "INBOX" => vec![(WellKnownFolder::Inbox, 1)],
            "Spam" => vec![(WellKnownFolder::JunkEmail, 1)],
            _ => vec![],
        };
        pattern.parse::<FolderPattern>().unwrap().names(&path, &special)
    }

    #[test]
    fn what_is_left_out() {
        for (pattern, path, expected) in [
            ("Projects", "Projects", true),
            ("projects", "PROJECTS", true),
            ("Projects", "Projects/Old", false),
            ("Projects", "Old/Projects", false),
            ("Projects/*", "Projects", true),
            ("Projects/*", "Projects/Old/2019", true),
            ("Projects/*", "Projects 2", false),
            ("Projects/Old", "Projects/Old", true),
            ("Projects/Old", "Projects", false),
            ("Übersicht", "übersicht", true),
            ("#JunkEmail#", "Spam", true),
            ("#junkemail#", "Spam/2019", false),
            ("#JunkEmail#/*", "Spam/2019", true),
            ("#JunkEmail#/2019", "Spam/2019", true),
            ("#JunkEmail#", "JunkEmail", false),
            ("#Inbox#", "INBOX", true),
            ("#Inbox#", "Inbox/Spam", false),
            ("Inbox", "INBOX", true),
            (r"\#JunkEmail\#", "#JunkEmail#", true),
            (r"\#JunkEmail#", "#JunkEmail#", true),
            ("#1", "#1", true),
            (r"\*", "*", true),
            (r"a\\b", r"a\b", true),
        ] {
            assert_eq!(names(pattern, path), expected, "{pattern} {path}");
        }
        let slash: FolderPattern = r"Offers\/Orders".parse().unwrap();
        assert!(slash.names(&["Offers/Orders".to_owned()], &[]));
        assert!(!slash.names(&["Offers".to_owned(), "Orders".to_owned()], &[]));
    }

    #[test]
    fn what_names_nothing() {
        for text in [
            "",
            "/",
            "/Projects",
            "Projects/",
            "a//b",
            "#Calendar#",
            "##",
            "*",
            "Pro*",
            "*/Old",
            "a/*/b",
            "a/*b",
        ] {
            assert!(text.parse::<FolderPattern>().is_err(), "{text}");
        }
        assert!("x".repeat(501).parse::<FolderPattern>().is_err());
    }
}

//! Where a mailbox lies, and that it lies inside its platform.

use rehome_domain::{id::ExchangeGuid, recipient::Mailbox};
use std::{
    io,
    path::{Component, Path, PathBuf},
};

/// Longest location, octets.
const MAX_LOCATION: usize = 512;
/// Longest name of an account, octets.
const MAX_ACCOUNT: usize = 255;

/// A mailbox's contents: which, on which platform, where there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Identity of the contents.
    pub exchange_guid: ExchangeGuid,
    /// Name of the platform.
    pub platform: String,
    /// The folder below the platform's root, names divided by `/`; on an IMAP platform the account's name.
    pub location: String,
}

impl From<&Mailbox> for Place {
    fn from(mailbox: &Mailbox) -> Self {
        Self {
            exchange_guid: mailbox.exchange_guid,
            platform: mailbox.platform.clone(),
            location: mailbox.location.clone(),
        }
    }
}

/// A location that no mailbox may have.
#[derive(Debug, thiserror::Error)]
pub enum LocationError {
    /// Its form leads elsewhere.
    #[error(
        "'{location}' is not a location: use folder names below the platform's root, divided by '/', none beginning with a dot"
    )]
    Form {
        /// The location.
        location: String,
    },
    /// No account has such a name.
    #[error("'{location}' is not the name of an account that can be used here: {why}")]
    Account {
        /// The location.
        location: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A symbolic link leads elsewhere.
    #[error("the location '{location}' goes through the symbolic link {}", .link.display())]
    Link {
        /// The location.
        location: String,
        /// The link.
        link: PathBuf,
    },
    /// A part of it cannot be looked at.
    #[error("the location '{location}' cannot be looked at")]
    Unreadable {
        /// The location.
        location: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// The path of a location below `root`: never outside it, never inside another mailbox's own folders (they begin with
/// a dot) and never in `.rehome`. Blocking: it looks at every part.
pub(crate) fn confine(root: &Path, location: &str) -> Result<PathBuf, LocationError> {
    let bad = || LocationError::Form {
        location: location.to_owned(),
    };
    if location.is_empty() || location.len() > MAX_LOCATION || location.chars().any(char::is_control) {
        return Err(bad());
    }
    // `components` passes over `a//b`, `a/./b` and a last slash, which would be other spellings of the same place.
    if location.split('/').any(|part| part.is_empty() || part.starts_with('.')) {
        return Err(bad());
    }
    let mut path = root.to_owned();
    for component in Path::new(location).components() {
        let Component::Normal(name) = component else {
            return Err(bad());
        };
        path.push(name);
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => {
                return Err(LocationError::Link {
                    location: location.to_owned(),
                    link: path,
                });
            }
            Ok(_) => {}
            // What is not there yet leads nowhere.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(LocationError::Unreadable {
                    location: location.to_owned(),
                    source,
                });
            }
        }
    }
    Ok(path)
}

/// The name of an account, if it can be one. `separator` is what divides accounts from masters at sign-in: a name with
/// it would sign in as someone else.
pub(crate) fn checked_account(location: &str, separator: Option<char>) -> Result<&str, LocationError> {
    let bad = |why| {
        Err(LocationError::Account {
            location: location.chars().take(100).collect(),
            why,
        })
    };
    if location.is_empty() || location.len() > MAX_ACCOUNT {
        bad("it has 1 to 255 octets")
    } else if location.chars().any(|c| c.is_control() || c.is_whitespace()) {
        bad("it holds no blanks or control characters")
    } else if location.starts_with('-') {
        // The access program would take it for an option.
        bad("it does not begin with a hyphen")
    } else if separator.is_some_and(|separator| location.contains(separator)) {
        bad("it does not hold the separator of the platform's master sign-in")
    } else {
        Ok(location)
    }
}

/// The part of an alias that may stand in a folder's name.
pub(crate) fn folder_name(alias: &str) -> String {
    let name: String = alias
        .chars()
        .take(48)
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') {
                c.to_ascii_lowercase()
            } else {
                '_'
            }
        })
        .collect();
    let name = name.trim_start_matches('.');
    if name.is_empty() {
        "mailbox".to_owned()
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_stay_below_the_root() {
        let root = tempfile::tempdir().unwrap();
        for good in ["anna", "contoso.example/anna", "a/b/c", "ä b"] {
            assert_eq!(confine(root.path(), good).unwrap(), root.path().join(good), "{good}");
        }
        let long = "a".repeat(MAX_LOCATION + 1);
        for bad in [
            "",
            "/",
            "/etc",
            "..",
            "a/..",
            "../a",
            "a/../b",
            "a//b",
            "a/",
            "./a",
            ".rehome/closed",
            "a/.Sent",
            "a\0b",
            "a\nb",
            &long,
        ] {
            assert!(
                matches!(confine(root.path(), bad), Err(LocationError::Form { .. })),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
        for location in ["link", "link/anna"] {
            assert!(
                matches!(confine(root.path(), location), Err(LocationError::Link { .. })),
                "{location}"
            );
        }
    }

    #[test]
    fn names_of_accounts() {
        for good in ["press", "press@contoso.example", "contoso.example/press", "é", "a-b"] {
            assert_eq!(checked_account(good, Some('*')).unwrap(), good);
        }
        for bad in ["", "a b", "a\0", "a\n", "-v", "press*rehome", &"a".repeat(256)] {
            let refused = checked_account(bad, Some('*'));
            assert!(matches!(refused, Err(LocationError::Account { .. })), "{bad:?}");
        }
        assert!(checked_account("press*", None).is_ok());
    }

    #[test]
    fn names_of_new_folders() {
        for (alias, name) in [
            ("Anna.B", "anna.b"),
            ("..", "mailbox"),
            ("a/b ü", "a_b__"),
            ("", "mailbox"),
            (".x", "x"),
        ] {
            assert_eq!(folder_name(alias), name, "{alias}");
        }
    }
}

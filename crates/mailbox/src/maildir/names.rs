//! Folder paths and the names of their directories.
//!
//! Maildir++ keeps a folder `A/B` in the directory `.A.B` of the root, each name in modified UTF-7. What such a name
//! cannot hold is escaped as Dovecot's `listescape` plugin does it, a backslash and two lower-case hexadecimal
//! digits, so that a Dovecot with the plugin shows the true name and one without it serves the folder under the name
//! with the escape: `.`, `/` and the backslash anywhere, `~` at the beginning. Two more escapes are ours; a Dovecot
//! without the plugin serves them as they stand:
//!
//! - the first letter of a first name that IMAP would take for the inbox, such as `Inbox`;
//! - an empty name is `\-`.
//!
//! A directory whose name is no such spelling (made by other programs, say with broken modified UTF-7) keeps it: its
//! path shows U+F700 and then the raw octets, and that path leads to the same directory. A path whose directory would
//! need more than 255 octets lives in `.\long-` and 32 hexadecimal digits of its digest, with the full name in the
//! file `rehome-path` of that directory. No path leads out of the root: a directory name never holds `/` and never is
//! `.` or `..` (the inbox apart, which is the root itself).

use crate::FolderPath;
use rehome_wire::digest::Digest;
use rehome_wire::imap::{MailboxName, NameEncoding};

/// Marks a name that is kept raw. Octets from 0x80 on follow as U+F700 plus the octet.
const RAW: char = '\u{f700}';
/// What begins the directory of a folder whose full name is too long.
const LONG: &str = "\\long-";
/// Longest directory name, in octets.
const MAX_LENGTH: usize = 255;

/// Where a folder lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DirectoryName {
    /// The directory below the root; `.` is the root.
    pub(super) directory: Vec<u8>,
    /// The full Maildir++ name, where the directory could not hold it.
    pub(super) full: Option<Vec<u8>>,
}

/// The directory of a path; none for a path without names.
pub(super) fn directory_of(path: &FolderPath) -> Option<DirectoryName> {
    if path.0.is_empty() {
        return None;
    }
    if path.is_inbox() {
        return Some(DirectoryName {
            directory: b".".to_vec(),
            full: None,
        });
    }
    let mut name = Vec::new();
    for (index, component) in path.0.iter().enumerate() {
        name.push(b'.');
        name.extend_from_slice(&encode(
            component,
            Place {
                first: index == 0,
                only: path.0.len() == 1,
            },
        ));
    }
    if name.len() <= MAX_LENGTH {
        return Some(DirectoryName {
            directory: name,
            full: None,
        });
    }
    Some(DirectoryName {
        directory: long_directory(&name),
        full: Some(name),
    })
}

fn long_directory(full: &[u8]) -> Vec<u8> {
    let digest = Digest::of(full).to_string();
    format!(".{LONG}{}", &digest[..32]).into_bytes()
}

/// The path of a directory below the root; none where it is not a folder's name. `full` is what `rehome-path` in it
/// holds, and is believed only where it leads to this directory.
pub(super) fn path_of(directory: &[u8], full: Option<&[u8]>) -> Option<FolderPath> {
    if directory == b"." {
        return Some(FolderPath::inbox());
    }
    let name = match full {
        Some(full) if full.len() > MAX_LENGTH && long_directory(full) == directory => full,
        _ => directory,
    };
    let components: Vec<&[u8]> = name.strip_prefix(b".")?.split(|octet| *octet == b'.').collect();
    if components.iter().any(|raw| !is_safe(raw)) {
        return None;
    }
    let only = components.len() == 1;
    let names = components.iter().enumerate().map(|(index, raw)| {
        decode(
            raw,
            Place {
                first: index == 0,
                only,
            },
        )
    });
    Some(FolderPath(names.collect()))
}

/// Whether a directory's name says that its full name is in `rehome-path`.
pub(super) fn may_be_long(directory: &[u8]) -> bool {
    directory
        .strip_prefix(b".")
        .is_some_and(|name| name.starts_with(LONG.as_bytes()))
}

/// Where in a path a name stands.
#[derive(Clone, Copy)]
struct Place {
    first: bool,
    only: bool,
}

fn is_safe(raw: &[u8]) -> bool {
    !raw.is_empty() && !raw.iter().any(|octet| matches!(octet, 0 | b'.' | b'/'))
}

fn encode(name: &str, place: Place) -> Vec<u8> {
    match unmark(name) {
        Some(raw) if is_safe(&raw) && plain(&raw, place).is_none() => raw,
        _ => encode_plain(name, place),
    }
}

fn decode(raw: &[u8], place: Place) -> String {
    plain(raw, place).unwrap_or_else(|| mark(raw))
}

/// The name that a raw component spells, where it is spelt as [`encode`] would.
fn plain(raw: &[u8], place: Place) -> Option<String> {
    if place.only && raw == b"INBOX" {
        // The root is the inbox; a directory `.INBOX` beside it is something else.
        return None;
    }
    let decoded = MailboxName::from_wire(raw, NameEncoding::ModifiedUtf7);
    if decoded.is_raw() {
        return None;
    }
    let name = unescape(decoded.text());
    // `encode` goes on with the shorter raw form inside a marked name, so this ends.
    (encode(&name, place) == raw).then_some(name)
}

fn encode_plain(name: &str, place: Place) -> Vec<u8> {
    if name.is_empty() {
        return b"\\-".to_vec();
    }
    let like_inbox = place.first && name.eq_ignore_ascii_case("INBOX") && name != "INBOX";
    let mut escaped = String::with_capacity(name.len());
    for (at, character) in name.char_indices() {
        let escape = match character {
            '.' | '/' | '\\' => true,
            '~' => at == 0,
            _ => at == 0 && like_inbox,
        };
        if escape {
            escaped.push_str(&format!("\\{:02x}", u32::from(character)));
        } else {
            escaped.push(character);
        }
    }
    MailboxName::new(escaped)
        .to_wire(NameEncoding::ModifiedUtf7)
        .into_owned()
}

fn is_hexadecimal(octets: &[u8]) -> bool {
    octets.iter().all(u8::is_ascii_hexdigit)
}

fn unescape(text: &str) -> String {
    if text == "\\-" {
        return String::new();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let digits = rest
            .get(at + 1..at + 3)
            .filter(|digits| is_hexadecimal(digits.as_bytes()));
        match digits
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .filter(u8::is_ascii)
        {
            Some(octet) => {
                out.push(char::from(octet));
                rest = &rest[at + 3..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

fn mark(raw: &[u8]) -> String {
    let characters = raw.iter().map(|octet| {
        if octet.is_ascii() {
            char::from(*octet)
        } else {
            // U+F780 to U+F7FF are characters of the private use area.
            char::from_u32(u32::from(RAW) + u32::from(*octet)).unwrap_or(char::REPLACEMENT_CHARACTER)
        }
    });
    std::iter::once(RAW).chain(characters).collect()
}

fn unmark(name: &str) -> Option<Vec<u8>> {
    name.strip_prefix(RAW)?
        .chars()
        .map(|character| match u32::from(character) {
            code @ 0..=0x7f => u8::try_from(code).ok(),
            code @ 0xf780..=0xf7ff => u8::try_from(code - u32::from(RAW)).ok(),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(names: &[&str]) -> FolderPath {
        FolderPath(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn known_directories() {
        let rows: &[(&[&str], &str)] = &[
            (&["INBOX"], "."),
            (&["Sent"], ".Sent"),
            (&["INBOX", "x"], ".INBOX.x"),
            (&["Entwürfe", "a&b"], ".Entw&APw-rfe.a&-b"),
            (&["a.b", "c/d"], ".a\\2eb.c\\2fd"),
            (&[".."], ".\\2e\\2e"),
            (&["."], ".\\2e"),
            (&["", ""], ".\\-.\\-"),
            (&["\\-"], ".\\5c-"),
            (&["~root"], ".\\7eroot"),
            (&["a~"], ".a~"),
            (&["Inbox"], ".\\49nbox"),
            (&["inbox", "Inbox"], ".\\69nbox.Inbox"),
            (&["a\\b"], ".a\\5cb"),
            (&["a\\2eb"], ".a\\5c2eb"),
            (&["a\n\u{7f}"], ".a&AAoAfw-"),
            (&["\u{f700}x\\y"], ".x\\y"),
            (&[" a "], ". a "),
            (&["\u{f700}a&b"], ".a&b"),
            (&["\u{f700}plain"], ".&9wA-plain"),
            (&["\u{f700}INBOX"], ".INBOX"),
        ];
        for (names, directory) in rows {
            let made = directory_of(&path(names)).unwrap();
            assert_eq!(String::from_utf8_lossy(&made.directory), *directory, "{names:?}");
            assert_eq!(path_of(directory.as_bytes(), None), Some(path(names)), "{directory}");
        }
        for directory in [&b".."[..], b"..a", b".a..b", b".a.", b"a", b"./a"] {
            assert_eq!(path_of(directory, None), None);
        }
        assert_eq!(directory_of(&path(&[])), None);
    }

    #[test]
    fn long_names_have_their_own_directory() {
        let long = path(&["a", &"ü".repeat(200)]);
        let made = directory_of(&long).unwrap();
        let full = made.full.unwrap();
        assert!(may_be_long(&made.directory) && made.directory.len() < 64);
        assert_eq!(path_of(&made.directory, Some(&full)), Some(long));
        // A name file that belongs elsewhere is not believed, and the directory stays reachable.
        let stray = path_of(&made.directory, Some(b".Sent")).unwrap();
        assert_eq!(directory_of(&stray).unwrap().directory, made.directory);
    }

    fn name() -> impl Strategy<Value = String> {
        let character = prop_oneof![
            4 => prop::sample::select(vec!['\\', '.', '/', '~', '&', '-', '2', 'e', ',', '\u{f700}', '\u{f7e4}', '\0', 'ä', '😀']),
            1 => any::<char>(),
        ];
        prop_oneof![
            8 => prop::collection::vec(character, 0..8).prop_map(|characters| characters.into_iter().collect()),
            1 => prop::sample::select(vec!["INBOX", "inbox", "Inbox", "\u{f700}INBOX", "\\long-1"]).prop_map(str::to_owned),
        ]
    }

    fn raw() -> impl Strategy<Value = Vec<u8>> {
        let octet = prop_oneof![3 => prop::sample::select(b"\\&-29wAeINBOX,~".to_vec()), 1 => 1u8..];
        prop::collection::vec(octet, 1..10)
            .prop_map(|octets| {
                octets
                    .into_iter()
                    .filter(|octet| !matches!(octet, b'.' | b'/'))
                    .collect()
            })
            .prop_filter("not empty", |octets: &Vec<u8>| !octets.is_empty())
    }

    proptest! {
        #[test]
        fn paths_come_back(names in prop::collection::vec(name(), 1..4)) {
            let path = FolderPath(names);
            let made = directory_of(&path).unwrap();
            prop_assert!(!made.directory.contains(&b'/') && made.directory != b"..");
            prop_assert!(made.directory.len() <= MAX_LENGTH);
            prop_assert!(made.directory != b"." || path.is_inbox());
            prop_assert_eq!(path_of(&made.directory, made.full.as_deref()), Some(path));
        }

        #[test]
        fn directories_come_back(raw in prop::collection::vec(raw(), 1..3)) {
            let directory: Vec<u8> = raw.iter().flat_map(|raw| std::iter::once(b'.').chain(raw.iter().copied())).collect();
            let path = path_of(&directory, None).unwrap();
            prop_assert_eq!(directory_of(&path).unwrap().directory, directory);
        }
    }
}

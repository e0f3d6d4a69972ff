//! Paths of folders and the names they have on the server.
//!
//! A part of a path that the server cannot carry is escaped: `=` and two hexadecimal digits for an octet of UTF-8.
//! Characters that some servers refuse are tried as they are first, and escaped where the server refused them; so a
//! path may have one of several names, and the listing says which. A name that no path has is listed under a path that
//! begins with U+FFFD and shows the name as far as it can be shown.

use crate::FolderPath;
use rehome_wire::imap::{MailboxName, Namespaces};
use std::collections::HashMap;

/// Begins the paths of names that no path has.
const MARK: char = '\u{fffd}';
/// Separator where the server names none and none is listed.
const DEFAULT_SEPARATOR: char = '/';

/// The user's own names on one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tree {
    prefix: String,
    separator: Option<char>,
    /// Prefixes of names that are not the user's own.
    foreign: Vec<String>,
}

/// How much of a name is escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    /// What no server could carry.
    Least,
    /// What some servers refuse, too.
    Doubtful,
    /// And the first character of the last part, so that it differs from a name that the server holds for the same.
    First,
}

impl Tree {
    /// From NAMESPACE, and the separator of any listed name where there is none.
    pub(super) fn new(namespaces: Option<&Namespaces>, listed: Option<char>) -> Self {
        let Some(namespaces) = namespaces else {
            return Self {
                prefix: String::new(),
                separator: listed,
                foreign: Vec::new(),
            };
        };
        let personal = namespaces.personal.first();
        let prefix = personal.map_or(String::new(), |namespace| namespace.prefix.text().to_owned());
        let others = namespaces.other_users.iter().chain(&namespaces.shared);
        Self {
            separator: personal.and_then(|namespace| namespace.delimiter).or(listed),
            foreign: others
                .map(|namespace| namespace.prefix.text().to_owned())
                .filter(|foreign| *foreign != prefix)
                .collect(),
            prefix,
        }
    }

    /// What LIST is asked for: all of the user's own names.
    pub(super) fn patterns(&self) -> Vec<String> {
        if self.prefix.is_empty() {
            vec!["*".to_owned()]
        } else {
            vec!["INBOX".to_owned(), format!("{}*", self.prefix)]
        }
    }

    /// Whether the name is the user's own.
    fn is_own(&self, name: &MailboxName) -> bool {
        let upper = self.with_upper_inbox(name);
        let text = upper.text();
        if name.is_inbox() {
            return true;
        }
        let under = |prefix: &str| {
            let bare = self
                .separator
                .map_or(prefix, |separator| prefix.trim_end_matches(separator));
            prefix.is_empty() || text.starts_with(prefix) || text == bare
        };
        let own = under(&self.prefix).then_some(self.prefix.len());
        let foreign = self
            .foreign
            .iter()
            .filter(|prefix| under(prefix))
            .map(String::len)
            .max();
        match (own, foreign) {
            (Some(own), Some(foreign)) => own > foreign,
            (Some(_), None) => true,
            (None, _) => self.foreign.iter().all(|prefix| !under(prefix)),
        }
    }

    /// The path of a listed name; none where it is not the user's own.
    pub(super) fn path(&self, name: &MailboxName) -> Option<FolderPath> {
        if !self.is_own(name) {
            return None;
        }
        if name.is_inbox() {
            return Some(FolderPath::inbox());
        }
        let name = &self.with_upper_inbox(name);
        match self.decode(name) {
            Some(path) if self.names(&path).contains(name) => Some(path),
            Some(_) | None => Some(FolderPath(vec![format!("{MARK}{}", printable(name.text()))])),
        }
    }

    /// Whether it is only there to hold what is below the inbox, where the inbox itself has another name.
    pub(super) fn is_shadow(&self, name: &MailboxName) -> bool {
        !name.is_inbox() && self.decode(name).is_some_and(|path| path.is_inbox())
    }

    /// The name with the inbox at its beginning spelt in upper case: servers may spell it in any (RFC 9051 §5.1).
    fn with_upper_inbox(&self, name: &MailboxName) -> MailboxName {
        let text = name.text();
        let (Some(separator), Some((head, rest))) = (self.separator, text.split_at_checked(5)) else {
            return name.clone();
        };
        if !name.is_raw() && rest.starts_with(separator) && head.eq_ignore_ascii_case("INBOX") {
            MailboxName::new(format!("INBOX{rest}"))
        } else {
            name.clone()
        }
    }

    fn decode(&self, name: &MailboxName) -> Option<FolderPath> {
        if name.is_raw() {
            return None;
        }
        let text = name.text();
        let rest = text.strip_prefix(self.prefix.as_str())?;
        let parts = match self.separator {
            Some(separator) => rest.split(separator).map(unescape).collect(),
            None => vec![unescape(rest)],
        };
        Some(FolderPath(parts))
    }

    /// The names that a path may have, best first. None for a path that has no parts.
    pub(super) fn names(&self, path: &FolderPath) -> Vec<MailboxName> {
        if path.0.is_empty() {
            return Vec::new();
        }
        if path.is_inbox() {
            return vec![MailboxName::new("INBOX")];
        }
        let mut names = Vec::new();
        for escape in [Escape::Least, Escape::Doubtful, Escape::First] {
            let name = MailboxName::new(self.encode(path, escape));
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Whether only the listing can say which of its names the path has.
    pub(super) fn is_doubtful(path: &FolderPath) -> bool {
        path.0.iter().any(|part| {
            part.char_indices().any(|(at, character)| {
                character == MARK || is_doubtful(character, at == 0 || at + character.len_utf8() == part.len())
            })
        })
    }

    fn encode(&self, path: &FolderPath, escape: Escape) -> String {
        let separator = self.separator.unwrap_or(DEFAULT_SEPARATOR);
        let mut out = self.prefix.clone();
        let last = path.0.len() - 1;
        for (place, part) in path.0.iter().enumerate() {
            if place > 0 {
                out.push(separator);
            }
            // The inbox and what is below it, where its name needs no prefix, is what it is.
            if place == 0 && last > 0 && part == "INBOX" && self.prefix.is_empty() {
                out.push_str("INBOX");
                continue;
            }
            let inbox = place == 0 && part.eq_ignore_ascii_case("INBOX");
            let first = inbox || (escape == Escape::First && place == last);
            encode_part(part, separator, escape, first, &mut out);
        }
        out
    }
}

/// Characters that some servers do not take, at the ends of a part or anywhere.
fn is_doubtful(character: char, at_an_end: bool) -> bool {
    character.is_control()
        || matches!(
            character,
            '.' | '/'
                | '\\'
                | '~'
                | '%'
                | '*'
                | '"'
                | '#'
                | '&'
                | '|'
                | '<'
                | '>'
                | '?'
                | ':'
                | '^'
                | '!'
                | '`'
                | '{'
                | '}'
                | ';'
        )
        || (at_an_end && matches!(character, ' ' | '-'))
}

fn encode_part(part: &str, separator: char, escape: Escape, first: bool, out: &mut String) {
    if part.is_empty() {
        // An empty part is an escaped nothing.
        out.push_str("=-");
        return;
    }
    let length = part.len();
    for (at, character) in part.char_indices() {
        let at_an_end = at == 0 || at + character.len_utf8() == length;
        // Servers repeat names in their texts, where a line end would make another response of the rest.
        let escaped = character == separator
            || matches!(character, '\r' | '\n' | '\0')
            || (first && at == 0)
            || (character == '=' && looks_escaped(&part[at..]))
            || (escape != Escape::Least && is_doubtful(character, at_an_end));
        if escaped {
            for octet in character.encode_utf8(&mut [0; 4]).bytes() {
                out.push_str(&format!("={octet:02X}"));
            }
        } else {
            out.push(character);
        }
    }
}

/// Whether it would be read as an escape.
fn looks_escaped(text: &str) -> bool {
    text.starts_with("=-") || escaped_octet(text.as_bytes()).is_some()
}

fn escaped_octet(octets: &[u8]) -> Option<u8> {
    let digit = |octet: u8| match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'A'..=b'F' => Some(octet - b'A' + 10),
        _ => None,
    };
    match octets {
        [b'=', high, low, ..] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

fn unescape(part: &str) -> String {
    if part == "=-" {
        return String::new();
    }
    let octets = part.as_bytes();
    let mut out = Vec::with_capacity(octets.len());
    let mut at = 0;
    while at < octets.len() {
        match escaped_octet(&octets[at..]) {
            Some(octet) => {
                out.push(octet);
                at += 3;
            }
            None => {
                out.push(octets[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| part.to_owned())
}

fn printable(text: &str) -> String {
    text.chars()
        .map(|character| if character.is_control() { MARK } else { character })
        .collect()
}

/// Which name each listed path has, and back.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    names: HashMap<FolderPath, MailboxName>,
}

impl Known {
    /// Gives a listed name its path. A second name for the same path gets a path of its own.
    pub(super) fn insert(&mut self, mut path: FolderPath, name: MailboxName) -> FolderPath {
        while self.names.get(&path).is_some_and(|held| *held != name) {
            match path.0.first_mut() {
                Some(first) => first.insert(0, MARK),
                None => path.0.push(MARK.to_string()),
            }
        }
        self.names.insert(path.clone(), name);
        path
    }

    pub(super) fn get(&self, path: &FolderPath) -> Option<&MailboxName> {
        self.names.get(path)
    }

    /// What is listed below a path, parents first.
    pub(super) fn below(&self, path: &FolderPath) -> Vec<(FolderPath, MailboxName)> {
        let below = self
            .names
            .iter()
            .filter(|(other, _)| other.0.len() > path.0.len() && other.0.starts_with(&path.0));
        let mut below: Vec<_> = below.map(|(path, name)| (path.clone(), name.clone())).collect();
        below.sort();
        below
    }

    pub(super) fn remove(&mut self, path: &FolderPath) {
        self.names.remove(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rehome_wire::imap::{NameEncoding, Namespace};

    fn namespace(prefix: &str, separator: char) -> Namespace {
        Namespace {
            prefix: MailboxName::new(prefix),
            delimiter: Some(separator),
        }
    }

    fn tree(prefix: &str, separator: char) -> Tree {
        let namespaces = Namespaces {
            personal: vec![namespace(prefix, separator)],
            other_users: vec![namespace("user.", separator)],
            shared: vec![namespace("", separator), namespace("Public/", separator)],
        };
        Tree::new(Some(&namespaces), None)
    }

    fn path(parts: &[&str]) -> FolderPath {
        FolderPath(parts.iter().map(|part| (*part).to_owned()).collect())
    }

    #[test]
    fn names_and_paths() {
        let plain = tree("", '/');
        let below = tree("INBOX.", '.');
        let rows: [(&Tree, &str, &[&str]); 16] = [
            (&plain, "INBOX", &["INBOX"]),
            (&plain, "inbox", &["INBOX"]),
            (&plain, "Sent", &["Sent"]),
            (&plain, "a/b", &["a", "b"]),
            (&plain, "Inbox/b", &["INBOX", "b"]),
            (&plain, "a.b", &["a.b"]),
            (&plain, "=49nbox", &["Inbox"]),
            (&plain, "a=2Fb", &["a/b"]),
            (&plain, "=-/x", &["", "x"]),
            (&plain, "10=3D2F", &["10=2F"]),
            (&plain, "a=b", &["a=b"]),
            (&below, "INBOX", &["INBOX"]),
            (&below, "INBOX.Sent", &["Sent"]),
            (&below, "Inbox.Sent.2024", &["Sent", "2024"]),
            (&below, "INBOX.=49NBOX.x", &["INBOX", "x"]),
            (&below, "INBOX.a/b", &["a/b"]),
        ];
        for (tree, name, parts) in rows {
            let name = MailboxName::new(name);
            let found = tree.path(&name).unwrap();
            assert_eq!(found, path(parts), "{name}");
            assert!(
                tree.names(&found).contains(&tree.with_upper_inbox(&name)) || name.is_inbox(),
                "{name}"
            );
        }
    }

    #[test]
    fn what_is_not_the_users_own_is_left_out() {
        let below = tree("INBOX.", '.');
        for name in ["user.press", "user", "shared", "Public/x"] {
            assert_eq!(below.path(&MailboxName::new(name)), None, "{name}");
        }
        let plain = Tree::new(
            Some(&Namespaces {
                personal: vec![namespace("", '/')],
                other_users: vec![namespace("Other Users/", '/')],
                shared: vec![],
            }),
            None,
        );
        assert_eq!(plain.path(&MailboxName::new("Other Users/press/x")), None);
        assert_eq!(plain.path(&MailboxName::new("Other Users")), None);
        assert_eq!(plain.path(&MailboxName::new("Others")), Some(path(&["Others"])));
    }

    #[test]
    fn names_that_no_path_has_are_shown_and_kept_apart() {
        let plain = tree("", '/');
        let raw = MailboxName::from_wire(b"a&zz", NameEncoding::ModifiedUtf7);
        let shown = plain.path(&raw).unwrap();
        assert_eq!(shown, path(&["\u{fffd}a&zz"]));
        assert!(Tree::is_doubtful(&shown));
        let mut known = Known::default();
        assert_eq!(known.insert(shown.clone(), raw.clone()), shown);
        let other = MailboxName::new("other");
        let second = known.insert(shown.clone(), other.clone());
        assert_ne!(second, shown);
        assert_eq!((known.get(&shown), known.get(&second)), (Some(&raw), Some(&other)));
    }

    proptest! {
        #[test]
        fn every_path_comes_back_from_each_of_its_names(
            parts in prop::collection::vec("\\PC{0,6}|[=A-F0-9./~%*-]{0,8}|[iI][nN][bB][oO][xX]|INBOX", 1..4),
            below in any::<bool>(),
        ) {
            let tree = if below { tree("INBOX.", '.') } else { tree("", '/') };
            let path = FolderPath(parts);
            for name in tree.names(&path) {
                prop_assert_eq!(tree.path(&name), Some(path.clone()), "{}", name);
            }
        }

        #[test]
        fn no_two_paths_share_a_name(
            one in prop::collection::vec("[=2Fa/-]{0,5}", 1..3), two in prop::collection::vec("[=2Fa/-]{0,5}", 1..3),
        ) {
            let tree = tree("", '/');
            let (one, two) = (FolderPath(one), FolderPath(two));
            if one != two {
                for name in tree.names(&one) {
                    prop_assert!(!tree.names(&two).contains(&name), "{}", name);
                }
            }
        }
    }
}

//! Small files in the root: Dovecot's `subscriptions`, and `rehome-special-use`, since Maildir++ has no place for a
//! folder's special use (Dovecot takes it from its configuration).

use super::dotlock::Dotlock;
use super::error::{failed, refused};
use super::folder::{read_list, replace_file};
use crate::{ErrorScope, MailboxError, SpecialUse};
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

const SUBSCRIPTIONS: &str = "subscriptions";
const SPECIAL_USE: &str = "rehome-special-use";

/// The subscribed folders, each as its Maildir++ name without the leading dot, TAB in the place of each other dot;
/// the inbox is `INBOX`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subscriptions(Vec<Vec<u8>>);

/// The form in which a folder stands in the list.
pub(super) fn subscription_of(directory: &[u8]) -> Vec<u8> {
    if directory == b"." {
        return b"INBOX".to_vec();
    }
    let name = directory.strip_prefix(b".").unwrap_or(directory);
    name.iter()
        .map(|octet| if *octet == b'.' { b'\t' } else { *octet })
        .collect()
}

impl Subscriptions {
    /// Reads version 2 (`V<TAB>2`, an empty line, names with TAB) or the older plain form (names with dots); none for
    /// a later version.
    fn parse(octets: &[u8]) -> Option<Self> {
        let mut lines = octets
            .split(|octet| *octet == b'\n')
            .filter(|line| !line.is_empty())
            .peekable();
        if lines.next_if(|line| *line == b"V\t2").is_some() {
            return Some(Self(lines.map(<[u8]>::to_vec).collect()));
        }
        if lines.peek().is_some_and(|line| line.starts_with(b"V\t")) {
            return None;
        }
        let dotted = lines.map(|line| {
            line.iter()
                .map(|octet| if *octet == b'.' { b'\t' } else { *octet })
                .collect()
        });
        Some(Self(dotted.collect()))
    }

    fn render(&self) -> Vec<u8> {
        let mut out = b"V\t2\n\n".to_vec();
        for name in &self.0 {
            out.extend_from_slice(name);
            out.push(b'\n');
        }
        out
    }

    /// Whether a folder is subscribed.
    pub(super) fn contains(&self, directory: &[u8]) -> bool {
        self.0.contains(&subscription_of(directory))
    }

    /// Subscribes or unsubscribes; false when it was so before.
    fn set(&mut self, directory: &[u8], subscribed: bool) -> bool {
        let name = subscription_of(directory);
        match (self.0.iter().position(|held| *held == name), subscribed) {
            (None, true) => self.0.push(name),
            (Some(at), false) => drop(self.0.remove(at)),
            (Some(_), true) | (None, false) => return false,
        }
        true
    }

    /// Reads the file.
    pub(super) fn read(root: BorrowedFd<'_>) -> Result<Self, MailboxError> {
        let what = "reading subscriptions";
        let octets = read_list(root, SUBSCRIPTIONS).map_err(|error| failed(what, error))?;
        Self::parse(&octets.unwrap_or_default())
            .ok_or_else(|| refused(what, "the file has a later version than 2", ErrorScope::Mailbox))
    }
}

/// Changes subscriptions by directory name, under Dovecot's lock.
pub(super) fn subscribe(root: BorrowedFd<'_>, changes: &[(&[u8], bool)]) -> Result<(), MailboxError> {
    let _lock = Dotlock::acquire(root, SUBSCRIPTIONS).map_err(|error| failed("locking subscriptions", error))?;
    let mut subscriptions = Subscriptions::read(root)?;
    let mut changed = false;
    for (directory, subscribed) in changes {
        changed |= subscriptions.set(directory, *subscribed);
    }
    if changed {
        replace_file(root, SUBSCRIPTIONS, &subscriptions.render())
            .map_err(|error| failed("writing subscriptions", error))?;
        rehome_fault::step("maildir.subscriptions");
    }
    Ok(())
}

const USES: [(&str, SpecialUse); 5] = [
    ("\\Archive", SpecialUse::Archive),
    ("\\Drafts", SpecialUse::Drafts),
    ("\\Junk", SpecialUse::Junk),
    ("\\Sent", SpecialUse::Sent),
    ("\\Trash", SpecialUse::Trash),
];

/// Special uses by directory name.
pub(super) type SpecialUses = BTreeMap<Vec<u8>, SpecialUse>;

/// Reads `rehome-special-use`: lines of use, blank, directory. What is not understood is passed over.
pub(super) fn special_uses(root: BorrowedFd<'_>) -> Result<SpecialUses, MailboxError> {
    let octets = read_list(root, SPECIAL_USE).map_err(|error| failed("reading special uses", error))?;
    Ok(parse_special_uses(&octets.unwrap_or_default()))
}

fn parse_special_uses(octets: &[u8]) -> SpecialUses {
    let lines = octets.split(|octet| *octet == b'\n');
    lines
        .filter_map(|line| {
            let blank = line.iter().position(|octet| *octet == b' ')?;
            let (name, directory) = (&line[..blank], &line[blank + 1..]);
            let (_, special_use) = USES.iter().find(|(known, _)| known.as_bytes() == name)?;
            Some((directory.to_vec(), *special_use))
        })
        .collect()
}

fn render_special_uses(uses: &SpecialUses) -> Vec<u8> {
    let mut out = Vec::new();
    for (directory, special_use) in uses {
        for (name, _) in USES.iter().filter(|(_, known)| known == special_use) {
            out.extend_from_slice(name.as_bytes());
            out.push(b' ');
            out.extend_from_slice(directory);
            out.push(b'\n');
        }
    }
    out
}

/// Changes special uses by directory name.
pub(super) fn set_special_uses(
    root: BorrowedFd<'_>,
    changes: &[(&[u8], Option<SpecialUse>)],
) -> Result<(), MailboxError> {
    let _lock = Dotlock::acquire(root, SPECIAL_USE).map_err(|error| failed("locking special uses", error))?;
    let before = special_uses(root)?;
    let mut uses = before.clone();
    for (directory, special_use) in changes {
        match special_use {
            Some(special_use) => uses.insert(directory.to_vec(), *special_use),
            None => uses.remove(*directory),
        };
    }
    if uses != before {
        replace_file(root, SPECIAL_USE, &render_special_uses(&uses))
            .map_err(|error| failed("writing special uses", error))?;
        rehome_fault::step("maildir.special_use");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_in_both_forms() {
        let mut list = Subscriptions::parse(b"V\t2\n\nA\tB\nINBOX\n").unwrap();
        assert_eq!(Subscriptions::parse(b"A.B\nINBOX\n").unwrap(), list);
        assert!(list.contains(b".A.B") && list.contains(b".") && !list.contains(b".A"));
        assert!(list.set(b".A", true) && !list.set(b".A", true) && list.set(b".A.B", false));
        assert_eq!(list.render(), b"V\t2\n\nINBOX\nA\n");
        assert_eq!(Subscriptions::parse(b"V\t3\n\nA\n"), None);
        assert_eq!(Subscriptions::parse(b""), Some(Subscriptions::default()));
    }

    #[test]
    fn special_uses_come_back() {
        let uses = parse_special_uses(b"\\Sent .Sent Items\n\\Odd .x\n\\Trash .T\n");
        assert_eq!(uses.len(), 2);
        assert_eq!(parse_special_uses(&render_special_uses(&uses)), uses);
    }
}

//! A receipt beside a mailbox as it is now: what is there as it was moved, what was changed since, what is missing, what
//! was added.
//!
//! Items are known by their digest, with their multiplicity; uids are the target's own and are not compared. What is held
//! is one entry for each item of the receipt and of the mailbox, not their octets.

use crate::reading::{ReadOutcome, read_digests};
use rehome_mailbox::{FolderPath, FolderRef, Mailbox, MailboxError};
use rehome_wire::{digest::Digest, flags::Flags};
use std::collections::HashMap;

/// Differences that are named; beyond, they are counted only.
pub const MAX_NAMED: usize = 1_000;
/// Items read at once.
const BATCH: usize = 1_000;

/// One item that the mailbox should hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Its folder.
    pub path: Vec<String>,
    /// Its uid at the source, to name it.
    pub uid: u32,
    /// The digest of its canonical form; none where the receipt says that the target could not be read.
    pub digest: Option<Digest>,
    /// Its flags.
    pub flags: Flags,
    /// Its received time.
    pub received: i64,
}

/// How an item differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// It is not there.
    Missing {
        /// Its folder in the receipt.
        path: Vec<String>,
        /// Its uid at the source.
        uid: u32,
    },
    /// It is there with other flags, another received time, or in another folder.
    Changed {
        /// Its folder in the receipt.
        path: Vec<String>,
        /// Its uid at the source.
        uid: u32,
        /// In what, in words.
        how: String,
    },
    /// The receipt does not know it.
    Added {
        /// Its folder.
        path: Vec<String>,
        /// Its uid in the mailbox.
        uid: u32,
    },
}

/// What a comparison showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Items that are there exactly as they were moved.
    pub equal: u64,
    /// Items that are there, changed since.
    pub changed: u64,
    /// Items that are not there.
    pub missing: u64,
    /// Items that the receipt does not know.
    pub added: u64,
    /// Items that could not be compared, because the receipt says that the target could not be read.
    pub not_comparable: u64,
    /// The first [`MAX_NAMED`] differences.
    pub named: Vec<Difference>,
}

impl Comparison {
    /// Whether nothing is missing and nothing was changed. What was added since does not count.
    #[must_use]
    pub fn holds_everything(&self) -> bool {
        self.changed == 0 && self.missing == 0
    }

    fn name(&mut self, difference: Difference) {
        match &difference {
            Difference::Missing { .. } => self.missing += 1,
            Difference::Changed { .. } => self.changed += 1,
            Difference::Added { .. } => self.added += 1,
        }
        if self.named.len() < MAX_NAMED {
            self.named.push(difference);
        }
    }
}

/// One item of the mailbox.
struct Found {
    folder: usize,
    uid: u32,
    digest: Digest,
    flags: Flags,
    received: i64,
}

/// Reads a whole mailbox and compares it with what it should hold. Nothing is changed there.
///
/// # Errors
/// [`MailboxError`] when it cannot be read; an item that cannot be read counts as not there.
pub async fn compare(mailbox: &dyn Mailbox, expected: &[Expected]) -> Result<Comparison, MailboxError> {
    let (folders, found) = read(mailbox).await?;
    let mut by_digest: HashMap<Digest, Vec<usize>> = HashMap::new();
    let mut comparison = Comparison::default();
    for (at, item) in expected.iter().enumerate() {
        match item.digest {
            Some(digest) => by_digest.entry(digest).or_default().push(at),
            None => comparison.not_comparable += 1,
        }
    }
    // The closest first, so that of several equal messages each finds its own: same folder and all, same folder, anywhere.
    let closeness: [fn(&Expected, &Found, &FolderPath) -> bool; 3] = [
        |item, found, path| item.path == path.0 && item.flags == found.flags && item.received == found.received,
        |item, _, path| item.path == path.0,
        |_, _, _| true,
    ];
    let mut is_taken = vec![false; expected.len()];
    let mut left = found;
    for (round, is_close) in closeness.into_iter().enumerate() {
        left.retain(|found| {
            let path = &folders[found.folder];
            let place = by_digest.get(&found.digest).and_then(|places| {
                let mut places = places.iter().copied();
                places.find(|at| !is_taken[*at] && is_close(&expected[*at], found, path))
            });
            let Some(at) = place else { return true };
            is_taken[at] = true;
            if round == 0 {
                comparison.equal += 1;
            } else {
                comparison.name(changed(&expected[at], found, path));
            }
            false
        });
    }
    for (item, _) in expected
        .iter()
        .zip(&is_taken)
        .filter(|(item, taken)| !**taken && item.digest.is_some())
    {
        comparison.name(Difference::Missing {
            path: item.path.clone(),
            uid: item.uid,
        });
    }
    for found in left {
        comparison.name(Difference::Added {
            path: folders[found.folder].0.clone(),
            uid: found.uid,
        });
    }
    Ok(comparison)
}

fn changed(item: &Expected, found: &Found, path: &FolderPath) -> Difference {
    let mut how = Vec::new();
    if item.path != path.0 {
        how.push(format!("it is in folder {path} now"));
    }
    if item.flags != found.flags {
        how.push(format!(
            "its flags are ({}), they were ({})",
            found.flags.canonical_names().join(" "),
            item.flags.canonical_names().join(" ")
        ));
    }
    if item.received != found.received {
        how.push(format!(
            "its received time is {}, it was {}",
            found.received, item.received
        ));
    }
    Difference::Changed {
        path: item.path.clone(),
        uid: item.uid,
        how: how.join("; "),
    }
}

async fn read(mailbox: &dyn Mailbox) -> Result<(Vec<FolderPath>, Vec<Found>), MailboxError> {
    let (mut folders, mut all) = (Vec::new(), Vec::new());
    for folder in mailbox.folders().await?.into_iter().filter(|folder| folder.selectable) {
        let listing = mailbox.list(&folder.path, None).await?;
        let reference = FolderRef::new(&folder.path, listing.status.uid_validity);
        for metas in listing.items.chunks(BATCH) {
            let uids: Vec<u32> = metas.iter().map(|meta| meta.uid).collect();
            let mut outcomes = read_digests(mailbox, reference, &uids).await?;
            for meta in metas {
                let Some(ReadOutcome::Octets { digest, .. }) = outcomes.remove(&meta.uid) else {
                    continue;
                };
                all.push(Found {
                    folder: folders.len(),
                    uid: meta.uid,
                    digest,
                    flags: meta.flags.clone(),
                    received: meta.received,
                });
            }
        }
        folders.push(folder.path);
    }
    Ok((folders, all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rehome_mailbox::memory::MemoryMailbox;
    use rehome_wire::digest::Digest;

    fn expected(path: &[&str], uid: u32, text: &str, flags: &[&str], received: i64) -> Expected {
        Expected {
            path: path.iter().map(|&name| name.to_owned()).collect(),
            uid,
            digest: Some(Digest::of(text.as_bytes())),
            flags: Flags::from_names(flags),
            received,
        }
    }

    #[tokio::test]
    async fn every_item_finds_its_own() {
        let mailbox = MemoryMailbox::new();
        let inbox = FolderPath::inbox();
        let flags = |names: &[&str]| Flags::from_names(names);
        // The same message twice, with different flags, in the other order than expected.
        mailbox.deliver(&inbox, "twice\r\n", flags(&["\\Seen"]), 10);
        mailbox.deliver(&inbox, "twice\r\n", flags(&[]), 10);
        mailbox.deliver(&inbox, "read since\r\n", flags(&["\\Seen"]), 11);
        mailbox.deliver(&inbox, "another date\r\n", flags(&[]), 99);
        mailbox.deliver(&inbox, "line ends only\n", flags(&[]), 13);
        mailbox.deliver(&inbox, "new\r\n", flags(&[]), 100);
        let receipt = [
            expected(&["INBOX"], 1, "twice\r\n", &[], 10),
            expected(&["INBOX"], 2, "twice\r\n", &["\\seen"], 10),
            expected(&["INBOX"], 3, "read since\r\n", &[], 11),
            expected(&["INBOX"], 4, "another date\r\n", &[], 12),
            expected(&["Sent"], 5, "line ends only\r\n", &[], 13),
            expected(&["INBOX"], 6, "gone\r\n", &[], 14),
            Expected {
                digest: None,
                ..expected(&["INBOX"], 7, "", &[], 15)
            },
        ];
        let shown = compare(&mailbox, &receipt).await.unwrap();
        let counts = (
            shown.equal,
            shown.changed,
            shown.missing,
            shown.added,
            shown.not_comparable,
        );
        assert_eq!(counts, (2, 3, 1, 1, 1));
        assert!(!shown.holds_everything());
        let mut lines: Vec<String> = shown.named.iter().map(|named| format!("{named:?}")).collect();
        lines.sort();
        assert!(lines[0].contains("Added") && lines[0].contains("uid: 6"), "{lines:?}");
        assert!(lines.iter().any(|line| line.contains("folder INBOX now")));
        assert!(lines.iter().any(|line| line.contains("received time is 99, it was 12")));
        assert!(
            lines
                .iter()
                .any(|line| line.contains("Missing") && line.contains("uid: 6"))
        );
    }

    #[tokio::test]
    async fn what_was_only_added_to_holds_everything() {
        let mailbox = MemoryMailbox::new();
        mailbox.deliver(&FolderPath::inbox(), "one\r\n", Flags::default(), 1);
        mailbox.deliver(&FolderPath::inbox(), "two\r\n", Flags::default(), 2);
        let shown = compare(&mailbox, &[expected(&["INBOX"], 9, "one\r\n", &[], 1)])
            .await
            .unwrap();
        assert!(shown.holds_everything());
        assert_eq!((shown.equal, shown.added), (1, 1));
    }
}

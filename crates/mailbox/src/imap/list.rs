//! Listing what a folder holds, or what changed since a token.

use super::connection::Connection;
use super::error::{Failure, Outcome, refused};
use crate::{ChangeToken, ErrorScope, FolderPath, FolderStatus, ItemMeta, Listing, ListingScope, Removed, Retry, Uid};
use rehome_wire::imap::{
    Answer, Command, Event, Fetch, FetchChanges, FetchItems, MailboxName, SearchKey, SearchReturn, SelectMode, Tag,
    Uids,
};
use rehome_wire::uid_set::UidSet;
use std::collections::HashMap;

/// The form of tokens.
const TOKEN_VERSION: u8 = 1;
/// How often a listing that is not whole is asked for.
const ATTEMPTS: usize = 2;

/// What is asked of each item.
const META: FetchItems = FetchItems {
    flags: true,
    internal_date: true,
    size: true,
    mod_seq: false,
    email_id: false,
    guid: false,
    body: None,
};

/// Where a listing stood: validity and mod-sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    uid_validity: u32,
    mod_seq: u64,
}

impl Token {
    /// None where it is not ours, or from a version to come: then everything is listed.
    pub(super) fn decode(token: &ChangeToken) -> Option<Self> {
        let (version, rest) = token.0.split_first()?;
        let (validity, mod_seq) = rest.split_at_checked(4)?;
        let uid_validity = u32::from_be_bytes(validity.try_into().ok()?);
        let mod_seq = u64::from_be_bytes(mod_seq.try_into().ok()?);
        (*version == TOKEN_VERSION && mod_seq > 0).then_some(Self { uid_validity, mod_seq })
    }

    fn encode(self) -> ChangeToken {
        let mut octets = vec![TOKEN_VERSION];
        octets.extend_from_slice(&self.uid_validity.to_be_bytes());
        octets.extend_from_slice(&self.mod_seq.to_be_bytes());
        ChangeToken(octets)
    }
}

/// What came in answer.
#[derive(Default)]
struct Collected {
    items: HashMap<Uid, ItemMeta>,
    vanished: UidSet,
    /// Messages that went while the listing ran.
    expunged: u32,
    /// What SEARCH named.
    found: Option<UidSet>,
    malformed: bool,
}

impl Collected {
    fn take(&mut self, event: Event) {
        match event {
            Event::Fetch(fetch) => self.take_fetch(fetch),
            Event::Expunge(_) => self.expunged += 1,
            Event::Vanished { earlier, uids } => {
                if !earlier {
                    self.expunged += u32::try_from(uids.len()).unwrap_or(u32::MAX);
                }
                self.vanish(uids);
            }
            Event::Search { uids, .. } => self.found = Some(uids),
            Event::ESearch(found) => self.found = Some(found.all.unwrap_or_default()),
            Event::Malformed {
                name: "FETCH" | "SEARCH" | "ESEARCH" | "VANISHED",
                ..
            } => self.malformed = true,
            _ => {}
        }
    }

    fn vanish(&mut self, uids: UidSet) {
        if self.vanished.is_empty() {
            self.vanished = uids;
        } else {
            self.vanished = union(&self.vanished, &uids);
        }
    }

    fn take_fetch(&mut self, fetch: Fetch) {
        let Some(uid) = fetch.uid else { return };
        match (self.items.get_mut(&uid), fetch.flags, fetch.internal_date) {
            (Some(held), Some(flags), _) => held.flags = flags,
            (None, Some(flags), date) if date.is_some() || !fetch.complete => {
                if date.is_none() {
                    tracing::warn!(uid, "the received time of an item cannot be read; it counts as 1970");
                }
                let received = date.unwrap_or(0);
                let length_hint = fetch.size;
                self.items.insert(
                    uid,
                    ItemMeta {
                        uid,
                        flags,
                        received,
                        length_hint,
                    },
                );
            }
            // News of flags, of an item that is not listed here.
            _ => {}
        }
    }

    /// The items below UIDNEXT as it was before, ascending; what arrived later is for the next listing.
    fn items_below(&mut self, uid_next: Uid) -> Vec<ItemMeta> {
        let vanished = std::mem::take(&mut self.vanished);
        let mut items: Vec<ItemMeta> = self
            .items
            .drain()
            .map(|(_, item)| item)
            .filter(|item| item.uid < uid_next && !vanished.contains(item.uid))
            .collect();
        self.vanished = vanished;
        items.sort_unstable_by_key(|item| item.uid);
        items
    }
}

/// Both sets together.
fn union(one: &UidSet, two: &UidSet) -> UidSet {
    let mut ranges: Vec<(u32, u32)> = one.ranges().iter().chain(two.ranges()).copied().collect();
    ranges.sort_unstable();
    UidSet::from_ranges(ranges)
}

/// The set without what is at `end` and above.
fn below(set: &UidSet, end: Uid) -> UidSet {
    let ranges = set.ranges().iter().filter(|(from, _)| *from < end);
    UidSet::from_ranges(ranges.map(|&(from, to)| (from, to.min(end - 1))).collect())
}

/// The folder's numbers as they were before the items.
struct Before {
    status: FolderStatus,
    token: Option<Token>,
}

/// What the folder holds, or what changed since the token where the server can tell.
pub(super) async fn list(
    connection: &mut Connection,
    path: &FolderPath,
    name: &MailboxName,
    since: Option<Token>,
) -> Outcome<Listing> {
    let since = since.filter(|_| connection.capabilities.condstore);
    if let Some(since) = since
        && let Some(listing) = changes(connection, path, name, since).await?
    {
        return Ok(listing);
    }
    whole(connection, path, name).await.map_err(Failure::unless_missing)
}

/// Opens the folder anew, for fresh numbers, in the way it is open if it is.
fn reopen(connection: &mut Connection, name: &MailboxName) -> Tag {
    let writable = connection
        .selected
        .as_ref()
        .is_some_and(|selected| selected.serves(name, SelectMode::ReadWrite));
    let mode = if writable {
        SelectMode::ReadWrite
    } else {
        SelectMode::ReadOnly
    };
    connection.begin_select(name, mode)
}

/// Waits until the folder is open. The commands behind it are waited for as well where it is not.
async fn opened(connection: &mut Connection, path: &FolderPath, select: Tag, behind: &[Tag]) -> Outcome<Before> {
    let answers = connection.finish(&[select], |_| {}).await?;
    for answer in &answers {
        if let Err(failure) = connection.end_select(path, answer) {
            connection.finish(behind, |_| {}).await?;
            return Err(failure);
        }
    }
    let numbered = connection.capabilities.condstore;
    let Some(selected) = &connection.selected else {
        return Err(connection.give_up("no folder is open"));
    };
    let (uid_validity, mod_seq) = (selected.validity(), selected.mod_seq().filter(|_| numbered));
    Ok(Before {
        status: FolderStatus {
            uid_validity,
            uid_next: selected.uid_next.unwrap_or(0),
            exists: selected.exists,
            highest_mod_seq: mod_seq,
        },
        token: mod_seq.map(|mod_seq| Token { uid_validity, mod_seq }),
    })
}

/// Servers that have no UIDNEXT: above the last message.
async fn complete(connection: &mut Connection, before: &mut Before) -> Outcome<()> {
    if before.status.uid_next == 0 {
        before.status.uid_next = connection.uid_next().await?;
    }
    Ok(())
}

/// None where everything must be listed: another validity, no or smaller mod-sequences.
async fn changes(
    connection: &mut Connection,
    path: &FolderPath,
    name: &MailboxName,
    since: Token,
) -> Outcome<Option<Listing>> {
    let vanished_told = connection.enabled.contains("QRESYNC");
    let mut collected = Collected::default();
    let select = reopen(connection, name);
    let kind = if vanished_told {
        FetchChanges::SinceWithVanished(since.mod_seq)
    } else {
        FetchChanges::Since(since.mod_seq)
    };
    let mut behind = vec![connection.send(Command::uid_fetch(Uids::From(1), &META, kind))];
    if !vanished_told && connection.quirks.search_is_whole() {
        behind.push(search_all(connection));
    }
    let mut before = opened(connection, path, select, &behind).await?;
    let answers = connection.finish(&behind, |event| collected.take(event)).await?;
    let current = before.token.filter(|token| token.uid_validity == since.uid_validity);
    let Some(token) = current.filter(|token| token.mod_seq >= since.mod_seq) else {
        return Ok(None);
    };
    // Of an empty folder, too: what vanished from it would stay unsaid.
    if collected.malformed || !answers.iter().all(Answer::is_ok) {
        return Ok(None);
    }
    complete(connection, &mut before).await?;
    let items = collected.items_below(before.status.uid_next);
    let exists = before.status.exists.saturating_sub(collected.expunged);
    let removed = if vanished_told {
        Removed::Vanished(below(&collected.vanished, before.status.uid_next))
    } else {
        Removed::Present(present(connection, path, &before, collected).await?)
    };
    Ok(Some(Listing {
        status: FolderStatus {
            exists,
            ..before.status
        },
        token: Some(token.encode()),
        items,
        scope: ListingScope::Changes { removed },
    }))
}

fn search_all(connection: &mut Connection) -> Tag {
    let returning = connection.capabilities.esearch.then_some(SearchReturn {
        all: true,
        count: false,
        min: false,
        max: false,
    });
    connection.send(Command::uid_search(&[SearchKey::All], returning))
}

/// All uids that are there: what SEARCH found if that is as many as the server counts, else by FETCH.
async fn present(
    connection: &mut Connection,
    path: &FolderPath,
    before: &Before,
    collected: Collected,
) -> Outcome<UidSet> {
    let uid_next = before.status.uid_next;
    let expected = before.status.exists.saturating_sub(collected.expunged) as usize;
    if let Some(found) = &collected.found {
        let found = below(found, uid_next);
        if found.len() == expected {
            return Ok(found);
        }
    }
    let mut uids: Vec<Uid> = Vec::new();
    let mut expunged = collected.expunged;
    let command = Command::uid_fetch(Uids::From(1), &FetchItems::default(), FetchChanges::All);
    let what = format!("listing folder {path}");
    let answer = connection
        .ask(command, |event| match event {
            Event::Fetch(fetch) => uids.extend(fetch.uid),
            Event::Expunge(_) => expunged += 1,
            Event::Vanished {
                earlier: false,
                uids: gone,
            } => {
                expunged += u32::try_from(gone.len()).unwrap_or(u32::MAX);
                uids.retain(|uid| !gone.contains(*uid));
            }
            _ => {}
        })
        .await?;
    if !answer.is_ok() && before.status.exists > 0 {
        return Err(refused(what, &answer, ErrorScope::Folder));
    }
    uids.sort_unstable();
    uids.dedup();
    let found = below(&UidSet::from_ascending(uids), uid_next);
    let expected = before.status.exists.saturating_sub(expunged) as usize;
    if found.len() == expected {
        Ok(found)
    } else {
        Err(not_whole(&what, expected, found.len()))
    }
}

fn not_whole(what: &str, counted: usize, listed: usize) -> Failure {
    let cause = format!("the server counts {counted} messages and lists {listed}");
    Failure::ours(what, cause, ErrorScope::Folder, Retry::After(60))
}

async fn whole(connection: &mut Connection, path: &FolderPath, name: &MailboxName) -> Outcome<Listing> {
    let what = format!("listing folder {path}");
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let mut collected = Collected::default();
        let select = reopen(connection, name);
        let fetch = connection.send(Command::uid_fetch(Uids::From(1), &META, FetchChanges::All));
        let mut before = opened(connection, path, select, &[fetch]).await?;
        let answers = connection.finish(&[fetch], |event| collected.take(event)).await?;
        if let Some(answer) = answers.iter().find(|answer| !answer.is_ok())
            && before.status.exists > 0
        {
            last = Some(refused(&what, answer, ErrorScope::Folder));
            continue;
        }
        complete(connection, &mut before).await?;
        let items = collected.items_below(before.status.uid_next);
        let counted = before.status.exists.saturating_sub(collected.expunged);
        if items.len() != counted as usize {
            last = Some(not_whole(&what, counted as usize, items.len()));
            continue;
        }
        return Ok(Listing {
            status: FolderStatus {
                exists: counted,
                ..before.status
            },
            token: before.token.map(Token::encode),
            items,
            scope: ListingScope::Whole,
        });
    }
    Err(last.unwrap_or_else(|| not_whole(&what, 0, 0)))
}

/// What the folder holds from a uid on. Whether that is everything cannot be told by its count.
pub(super) async fn list_from(
    connection: &mut Connection,
    path: &FolderPath,
    name: &MailboxName,
    first: Uid,
) -> Outcome<Listing> {
    let mut collected = Collected::default();
    let select = reopen(connection, name);
    let fetch = connection.send(Command::uid_fetch(Uids::From(first), &META, FetchChanges::All));
    let opened = opened(connection, path, select, &[fetch]).await;
    let mut before = opened.map_err(Failure::unless_missing)?;
    let answers = connection.finish(&[fetch], |event| collected.take(event)).await?;
    if let Some(answer) = answers.iter().find(|answer| !answer.is_ok())
        && before.status.exists > 0
    {
        return Err(refused(format!("listing folder {path}"), answer, ErrorScope::Folder).unless_missing());
    }
    complete(connection, &mut before).await?;
    let mut items = collected.items_below(before.status.uid_next);
    // `n:*` names the last message even where its uid is below n (RFC 9051, section 9, seq-range).
    items.retain(|item| item.uid >= first);
    Ok(Listing {
        status: before.status,
        token: before.token.map(Token::encode),
        items,
        scope: ListingScope::Whole,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_and_foreign_ones_are_ignored() {
        let token = Token {
            uid_validity: 7,
            mod_seq: 1 << 40,
        };
        let encoded = token.encode();
        assert_eq!(encoded.0, [1, 0, 0, 0, 7, 0, 0, 1, 0, 0, 0, 0, 0]);
        assert_eq!(Token::decode(&encoded), Some(token));
        for octets in [
            &b""[..],
            b"\x01",
            &encoded.0[..12],
            &[&encoded.0[..], b"x"].concat(),
            &[[2].as_slice(), &encoded.0[1..]].concat(),
        ] {
            assert_eq!(Token::decode(&ChangeToken(octets.to_vec())), None, "{octets:?}");
        }
    }

    #[test]
    fn sets_are_joined_and_cut() {
        let one = UidSet::from_ascending([1, 2, 9]);
        let two = UidSet::from_ascending([3, 8, 20]);
        assert_eq!(union(&one, &two).ranges(), [(1, 3), (8, 9), (20, 20)]);
        assert_eq!(below(&union(&one, &two), 9).ranges(), [(1, 3), (8, 8)]);
    }
}

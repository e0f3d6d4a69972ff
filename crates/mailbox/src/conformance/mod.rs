//! What every driver promises, as one suite. It knows capabilities and skips by them; it never asks for names.
//!
//! A driver's test calls [`run`] with a function that makes a new, empty mailbox. A broken promise panics with what
//! was promised.

mod folders;
mod items;
mod powers;

use crate::{
    Appended, Body, ErrorScope, Folder, FolderPath, FolderRef, FolderStatus, ItemKey, ItemMeta, Listing, ListingScope,
    Mailbox, NewFolder, NewItem, ReadEvent, Retry, Uid,
};
use bytes::Bytes;
use futures_util::StreamExt;
use rehome_wire::canonical::canonical;
use rehome_wire::digest::Digest;
use rehome_wire::flags::Flags;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a platform does otherwise, and is known for: such things are then checked for being said.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowed {
    /// Some names of folders are refused (scope `Folder`, never to be tried again).
    pub names_refused: bool,
    /// Odd items are refused (scope `Item`, never to be tried again).
    pub items_refused: bool,
    /// NUL comes back as this octet.
    pub nul_as: Option<u8>,
    /// Received times up to 1970 and in the future may come back as others.
    pub odd_times_changed: bool,
    /// A removed folder that has others below it stays, without what it held.
    pub parents_stay: bool,
}

/// Runs the whole suite. `make` gives a new mailbox without folders but perhaps the inbox, and whatever must live as
/// long as it.
pub async fn run<G>(make: impl Fn() -> (Arc<dyn Mailbox>, G)) {
    run_allowing(Allowed::default(), make).await;
}

/// As [`run`], for a platform that is known to do some things otherwise.
pub async fn run_allowing<G>(allowed: Allowed, make: impl Fn() -> (Arc<dyn Mailbox>, G)) {
    macro_rules! each {
        ($($case:ident),+ $(,)?) => {
            $({
                let (mailbox, guard) = make();
                let mailbox = mailbox.as_ref();
                Suite { mailbox, allowed }.$case().await;
                drop(guard);
            })+
        };
    }
    each!(
        folders_are_made_and_listed,
        awkward_names_come_back,
        folders_are_renamed,
        folders_are_removed,
        missing_folders_are_errors,
        another_validity_is_refused,
        items_come_back,
        nasty_octets_come_back,
        received_times_come_back,
        duplicates_stay,
        large_item,
        many_small_items,
        spooled_items,
        flags_are_set,
        items_are_removed,
        uids_are_never_reused,
        append_twice_is_once,
        given_uids_are_kept_together,
        items_are_copied,
        changes_are_listed,
    );
}

struct Suite<'a> {
    mailbox: &'a dyn Mailbox,
    allowed: Allowed,
}

/// What was read of one uid.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    Item(ItemMeta, Vec<u8>),
    Gone,
}

fn path(names: &[&str]) -> FolderPath {
    FolderPath(names.iter().map(|name| (*name).to_owned()).collect())
}

fn key(source_uid: Uid) -> ItemKey {
    ItemKey {
        move_id: 0x1234_5678_9abc_def0_0fed_cba9_8765_4321,
        folder: 1,
        source_validity: 77,
        source_uid,
    }
}

/// An item in canonical form.
fn item(source_uid: Uid, raw: &[u8], flags: &[&str], received: i64) -> NewItem {
    let octets = canonical(raw);
    NewItem {
        key: key(source_uid),
        uid: None,
        flags: Flags::from_names(flags.iter()),
        received,
        length: octets.len() as u64,
        digest: Digest::of(&octets),
        body: Body::Memory(Bytes::from(octets)),
    }
}

fn octets_of(item: &NewItem) -> &[u8] {
    match &item.body {
        Body::Memory(octets) => octets,
        Body::Spooled(_) => &[],
    }
}

fn uid_of(appended: &Appended) -> Uid {
    match appended {
        Appended::Uid { uid, .. } => *uid,
        Appended::Refused(error) => panic!("an item is taken: {error}"),
    }
}

impl Suite<'_> {
    async fn create(&self, names: &[&str]) -> FolderStatus {
        let created = self.mailbox.create_folder(&path(names), &NewFolder::default()).await;
        created.expect("a folder is made")
    }

    async fn folders(&self) -> BTreeMap<FolderPath, Folder> {
        let folders = self.mailbox.folders().await.expect("folders are listed");
        let count = folders.len();
        let by_path: BTreeMap<_, _> = folders
            .into_iter()
            .map(|folder| (folder.path.clone(), folder))
            .collect();
        assert_eq!(by_path.len(), count, "each folder is listed once");
        by_path
    }

    async fn list(&self, folder: &FolderPath) -> Listing {
        let listing = self.mailbox.list(folder, None).await.expect("items are listed");
        assert_eq!(listing.scope, ListingScope::Whole, "without a token a listing is whole");
        assert_eq!(
            listing.status.exists as usize,
            listing.items.len(),
            "a whole listing has as many items as exist"
        );
        assert!(
            listing.items.is_sorted_by(|one, two| one.uid < two.uid),
            "items ascend by uid"
        );
        assert!(
            listing.items.iter().all(|item| item.uid < listing.status.uid_next),
            "UIDNEXT is above every uid"
        );
        for first in [
            listing.items.get(listing.items.len() / 2).map_or(1, |item| item.uid),
            listing.status.uid_next,
        ] {
            let from = self.mailbox.list_from(folder, first).await.expect("items are listed");
            let expected = listing.items.iter().filter(|item| item.uid >= first);
            assert!(
                from.items.iter().eq(expected),
                "a listing from {first} on is the end of the whole one"
            );
            assert_eq!(from.status, listing.status);
        }
        listing
    }

    async fn append(&self, folder: &FolderPath, items: &[NewItem]) -> Vec<Uid> {
        let appended = self
            .mailbox
            .append(FolderRef::any(folder), items.to_vec())
            .await
            .expect("items are appended");
        assert_eq!(appended.len(), items.len(), "each item is answered");
        appended.iter().map(uid_of).collect()
    }

    async fn read(&self, folder: &FolderPath, uids: &[Uid]) -> Vec<(Uid, Read)> {
        let mut events = self
            .mailbox
            .read(FolderRef::any(folder), uids)
            .await
            .expect("items are read");
        let mut answers = Vec::new();
        let mut open: Option<(ItemMeta, Vec<u8>)> = None;
        while let Some(event) = events.next().await {
            match event.expect("reading goes on") {
                ReadEvent::Item(meta) => {
                    assert!(open.is_none(), "an item ends before the next begins");
                    open = Some((meta, Vec::new()));
                }
                ReadEvent::Octets(piece) => {
                    assert!(
                        !piece.is_empty() && piece.len() <= 64 * 1024,
                        "pieces are 1 to 65,536 octets"
                    );
                    open.as_mut()
                        .expect("octets belong to an item")
                        .1
                        .extend_from_slice(&piece);
                }
                ReadEvent::End => {
                    let (meta, octets) = open.take().expect("an end belongs to an item");
                    answers.push((meta.uid, Read::Item(meta, octets)));
                }
                ReadEvent::Gone(uid) => answers.push((uid, Read::Gone)),
                ReadEvent::Failed { uid, error } => panic!("item {uid} is readable: {error}"),
            }
        }
        assert!(open.is_none(), "the last item is whole");
        let answered: Vec<Uid> = answers.iter().map(|(uid, _)| *uid).collect();
        assert_eq!(answered, uids, "every uid is answered once, in order");
        answers
    }

    /// The digest that an item has when it comes back.
    fn digest_of(&self, item: &NewItem) -> Digest {
        let Some(shown) = self.allowed.nul_as else {
            return item.digest;
        };
        let octets = octets_of(item);
        if !octets.contains(&0) {
            return item.digest;
        }
        let octets: Vec<u8> = octets
            .iter()
            .map(|octet| if *octet == 0 { shown } else { *octet })
            .collect();
        Digest::of(&octets)
    }

    /// Appends items one by one; those that are refused, where that is allowed, are left out.
    async fn append_odd<'a>(&self, folder: &FolderPath, items: &'a [NewItem]) -> Vec<(Uid, &'a NewItem)> {
        let appended = self.mailbox.append(FolderRef::any(folder), items.to_vec()).await;
        let appended = appended.expect("items are appended");
        assert_eq!(appended.len(), items.len(), "each item is answered");
        let mut taken: Vec<(Uid, &NewItem)> = Vec::new();
        for (appended, item) in appended.iter().zip(items) {
            match appended {
                Appended::Refused(error) if self.allowed.items_refused => {
                    assert_eq!((error.scope, error.retry), (ErrorScope::Item, Retry::Never), "{error}");
                }
                appended => taken.push((uid_of(appended), item)),
            }
        }
        taken.sort_by_key(|(uid, _)| *uid);
        taken
    }

    /// Octets, flags and dates of all items equal what was appended.
    async fn assert_holds(&self, folder: &FolderPath, expected: &[(Uid, &NewItem)]) {
        let listing = self.list(folder).await;
        let uids: Vec<Uid> = listing.items.iter().map(|item| item.uid).collect();
        assert_eq!(
            uids,
            expected.iter().map(|(uid, _)| *uid).collect::<Vec<_>>(),
            "the listing shows what is there"
        );
        let keywords = self.mailbox.capabilities().keywords;
        for ((_, read), (listed, (uid, item))) in self
            .read(folder, &uids)
            .await
            .iter()
            .zip(listing.items.iter().zip(expected))
        {
            let Read::Item(meta, octets) = read else {
                panic!("item {uid} is there")
            };
            assert_eq!(
                Digest::of(&canonical(octets)),
                self.digest_of(item),
                "the octets of item {uid} come back"
            );
            assert_eq!(canonical(octets).len() as u64, item.length);
            for meta in [meta, listed] {
                assert_eq!(meta.uid, *uid);
                assert_eq!(
                    meta.received, item.received,
                    "the received time of item {uid} comes back"
                );
                assert_eq!(
                    meta.flags.system(),
                    item.flags.system(),
                    "the flags of item {uid} come back"
                );
                if keywords {
                    assert_eq!(meta.flags, item.flags, "the keywords of item {uid} come back");
                }
            }
        }
    }
}

//! What folders held when they were listed last: kept so that the root made under a lock asks the platform for changes
//! only. It is lost with the process; then the platform is asked for everything.

use rehome_mailbox::{ChangeToken, FolderPath, FolderStatus, ItemMeta, Listing, ListingScope, Removed};
use rehome_wire::{flags::Flags, proof::flag_octets, uid_set::UidSet};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Most items of one mailbox that are kept, 24 octets each.
const MAX_ITEMS: usize = 4_000_000;

/// One item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) uid: u32,
    /// Its flags: a place in [`FlagSets`].
    set: u32,
    pub(super) received: i64,
    /// The platform's hint at its length, below 4 GiB.
    length: Option<u32>,
}

impl Entry {
    pub(super) fn length_hint(&self) -> Option<u64> {
        self.length.map(u64::from)
    }
}

/// The sets of flags that items have, in the form that leaves hold.
#[derive(Clone, Debug, Default)]
struct FlagSets {
    octets: Vec<Arc<[u8]>>,
    places: HashMap<Arc<[u8]>, u32>,
    /// Of sets without keywords, by their bits.
    plain: HashMap<u8, u32>,
}

impl FlagSets {
    fn place(&mut self, flags: &Flags) -> u32 {
        let plain = flags.keywords().is_empty();
        if plain && let Some(place) = self.plain.get(&flags.system()) {
            return *place;
        }
        let octets: Arc<[u8]> = flag_octets(flags).into();
        let next = self.octets.len() as u32;
        let place = *self.places.entry(Arc::clone(&octets)).or_insert(next);
        if place == next {
            self.octets.push(octets);
        }
        if plain {
            self.plain.insert(flags.system(), place);
        }
        place
    }
}

/// The items of one folder, ascending by uid.
#[derive(Clone, Debug, Default)]
pub(super) struct Items {
    entries: Vec<Entry>,
    sets: FlagSets,
}

impl Items {
    /// The items of a whole listing; none where their uids do not ascend.
    pub(super) fn new(listed: &[ItemMeta]) -> Option<Self> {
        let mut items = Self::default();
        items.entries.reserve_exact(listed.len());
        for meta in listed {
            let entry = items.entry(meta);
            items.entries.push(entry);
        }
        items.ascends().then_some(items)
    }

    fn ascends(&self) -> bool {
        self.entries.is_sorted_by(|one, two| one.uid < two.uid)
    }

    fn entry(&mut self, meta: &ItemMeta) -> Entry {
        Entry {
            uid: meta.uid,
            set: self.sets.place(&meta.flags),
            received: meta.received,
            length: meta.length_hint.and_then(|length| u32::try_from(length).ok()),
        }
    }

    /// The items after changes; none where the changed ones do not ascend.
    fn changed(&self, listed: &[ItemMeta], removed: &Removed) -> Option<Self> {
        let stays = |uid: u32| match removed {
            Removed::Vanished(gone) => !gone.contains(uid),
            Removed::Present(there) => there.contains(uid),
        };
        let mut items = Self {
            entries: Vec::with_capacity(self.entries.len() + listed.len()),
            sets: self.sets.clone(),
        };
        let mut old = self.entries.iter().filter(|entry| stays(entry.uid)).peekable();
        for meta in listed {
            while let Some(entry) = old.next_if(|entry| entry.uid < meta.uid) {
                items.entries.push(*entry);
            }
            old.next_if(|entry| entry.uid == meta.uid);
            // Listed as changed and gone since.
            if stays(meta.uid) {
                let entry = items.entry(meta);
                items.entries.push(entry);
            }
        }
        items.entries.extend(old);
        items.ascends().then_some(items)
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// An entry's flags as leaves hold them.
    pub(super) fn flags(&self, entry: &Entry) -> &[u8] {
        &self.sets.octets[entry.set as usize]
    }

    pub(super) fn contains(&self, uid: u32) -> bool {
        self.entries.binary_search_by_key(&uid, |entry| entry.uid).is_ok()
    }

    pub(super) fn uids(&self) -> UidSet {
        UidSet::from_ascending(self.entries.iter().map(|entry| entry.uid))
    }
}

/// A folder as it was listed last.
#[derive(Clone, Debug)]
pub(super) struct Mirror {
    pub(super) status: FolderStatus,
    pub(super) token: Option<ChangeToken>,
    pub(super) items: Arc<Items>,
}

impl Mirror {
    /// What a whole listing shows; none where it has not as many items as it counts.
    pub(super) fn whole(listing: &Listing) -> Option<Self> {
        let whole = listing.scope == ListingScope::Whole && counts(&listing.status, listing.items.len());
        whole.then(|| Items::new(&listing.items)).flatten().map(|items| Self {
            status: listing.status,
            token: listing.token.clone(),
            items: Arc::new(items),
        })
    }

    /// What a listing since this mirror's token shows; none where it does not lead to the folder's own count.
    pub(super) fn after(&self, listing: &Listing) -> Option<Self> {
        let removed = match &listing.scope {
            ListingScope::Whole => return Self::whole(listing),
            ListingScope::Changes { removed } => removed,
        };
        if listing.status.uid_validity != self.status.uid_validity {
            return None;
        }
        let items = self.items.changed(&listing.items, removed)?;
        counts(&listing.status, items.entries.len()).then(|| Self {
            status: listing.status,
            token: listing.token.clone(),
            items: Arc::new(items),
        })
    }

    /// Whether a folder with these numbers is as it was: only where the platform numbers every change.
    pub(super) fn is_as_of(&self, status: &FolderStatus) -> bool {
        self.status == *status && status.highest_mod_seq.is_some_and(|number| number > 0)
    }
}

fn counts(status: &FolderStatus, items: usize) -> bool {
    items as u64 == u64::from(status.exists)
}

/// The mirrors of one mailbox's folders.
#[derive(Debug, Default)]
pub(super) struct Mirrors(Mutex<HashMap<FolderPath, Mirror>>);

impl Mirrors {
    pub(super) fn get(&self, folder: &FolderPath) -> Option<Mirror> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(folder).cloned()
    }

    /// Keeps what a listing since `token` showed, where it can be built on and there is room.
    pub(super) fn note(&self, folder: &FolderPath, token: Option<&ChangeToken>, listing: &Listing) {
        if listing.token.is_none() {
            return;
        }
        let seen = match &listing.scope {
            ListingScope::Whole => Mirror::whole(listing),
            // Changes since another state say nothing about this one, and leave it as good as it was.
            ListingScope::Changes { .. } => match self.get(folder) {
                Some(held) if held.token.as_ref() == token => held.after(listing),
                Some(_) | None => return,
            },
        };
        self.put(folder, seen);
    }

    /// Keeps a mirror, or forgets the folder.
    pub(super) fn put(&self, folder: &FolderPath, mirror: Option<Mirror>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.remove(folder);
        let Some(mirror) = mirror.filter(|mirror| mirror.token.is_some()) else {
            return;
        };
        let items: usize = held.values().map(|mirror| mirror.items.entries.len()).sum();
        if items + mirror.items.entries.len() <= MAX_ITEMS {
            held.insert(folder.clone(), mirror);
        }
    }

    /// Octets that the mirrors take, about.
    pub(super) fn octets(&self) -> usize {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let items: usize = held.values().map(|mirror| mirror.items.entries.len()).sum();
        items * size_of::<Entry>() + held.len() * 512
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(uid: u32, flag: &str) -> ItemMeta {
        ItemMeta {
            uid,
            flags: Flags::from_names([flag]),
            received: i64::from(uid),
            length_hint: None,
        }
    }

    fn listing(items: Vec<ItemMeta>, exists: u32, scope: ListingScope) -> Listing {
        Listing {
            status: FolderStatus {
                uid_validity: 1,
                uid_next: 100,
                exists,
                highest_mod_seq: Some(u64::from(exists)),
            },
            token: Some(ChangeToken(vec![exists as u8])),
            items,
            scope,
        }
    }

    fn changes(items: Vec<ItemMeta>, exists: u32, removed: Removed) -> Listing {
        listing(items, exists, ListingScope::Changes { removed })
    }

    fn shown(mirror: &Mirror) -> Vec<(u32, Vec<u8>)> {
        let items = &mirror.items;
        let shown = |entry: &Entry| (entry.uid, items.flags(entry).to_vec());
        items.entries().iter().map(shown).collect()
    }

    #[test]
    fn changes_lead_to_what_a_whole_listing_shows() {
        let start = vec![meta(2, "\\Seen"), meta(4, "a"), meta(6, "a"), meta(9, "\\Seen")];
        let mirror = Mirror::whole(&listing(start, 4, ListingScope::Whole)).unwrap();
        let changed = vec![meta(1, "b"), meta(4, "\\Seen"), meta(9, "b"), meta(12, "a")];
        let expected = vec![
            meta(1, "b"),
            meta(2, "\\Seen"),
            meta(4, "\\Seen"),
            meta(9, "b"),
            meta(12, "a"),
        ];
        let expected = Mirror::whole(&listing(expected, 5, ListingScope::Whole)).unwrap();
        for removed in [
            Removed::Vanished([6].into_iter().collect()),
            Removed::Present([1, 2, 4, 9, 12].into_iter().collect()),
        ] {
            let after = mirror.after(&changes(changed.clone(), 5, removed)).unwrap();
            assert_eq!(shown(&after), shown(&expected));
        }
    }

    #[test]
    fn what_does_not_count_is_not_believed() {
        let start = vec![meta(2, "a"), meta(4, "a")];
        assert!(Mirror::whole(&listing(start.clone(), 3, ListingScope::Whole)).is_none());
        assert!(Mirror::whole(&listing(vec![meta(4, "a"), meta(2, "a")], 2, ListingScope::Whole)).is_none());
        let mirror = Mirror::whole(&listing(start, 2, ListingScope::Whole)).unwrap();
        assert!(
            mirror
                .after(&changes(vec![], 1, Removed::Vanished(UidSet::new())))
                .is_none()
        );
        let mut other = changes(vec![], 2, Removed::Vanished(UidSet::new()));
        assert!(mirror.after(&other).is_some());
        other.status.uid_validity = 2;
        assert!(mirror.after(&other).is_none());
        // A platform that numbers no changes may have changed without a sign.
        let mut status = mirror.status;
        assert!(mirror.is_as_of(&status));
        status.highest_mod_seq = None;
        assert!(!Mirror { status, ..mirror }.is_as_of(&status));
    }

    #[test]
    fn only_changes_since_the_same_state_are_taken() {
        let mirrors = Mirrors::default();
        let inbox = FolderPath::inbox();
        mirrors.note(&inbox, None, &listing(vec![meta(1, "a")], 1, ListingScope::Whole));
        let second = changes(vec![meta(2, "a")], 2, Removed::Vanished(UidSet::new()));
        mirrors.note(&inbox, Some(&ChangeToken(vec![7])), &second);
        assert_eq!(mirrors.get(&inbox).unwrap().items.entries().len(), 1);
        mirrors.note(&inbox, Some(&ChangeToken(vec![1])), &second);
        assert_eq!(mirrors.get(&inbox).unwrap().items.entries().len(), 2);
        let broken = changes(vec![], 9, Removed::Vanished(UidSet::new()));
        mirrors.note(&inbox, Some(&ChangeToken(vec![2])), &broken);
        assert!(
            mirrors.get(&inbox).is_none(),
            "a mirror that does not count is forgotten"
        );
    }
}

//! Begins a move back: the old source's kept contents become the move's hidden target, and its ledger says what of them
//! is already there, so that only what changed since is copied.
//!
//! What the partner says is never enough: an item counts as there only when our own octets, read now, have the length and
//! digest that he states, and it its date. Whatever does not agree is copied again.

use crate::{
    error::PassError,
    importer::new_entry,
    ledger::{
        CHUNK_SHIFT, Changes, FolderEntry, FolderState, Ledger, Pair, PairedFolder, PairsFrom, PairsPage, ReadBack,
        Record, Synced, UidMap,
    },
    link::LinkError,
    reading::{ReadOutcome, read_digests},
    storage::ChunkStorage,
};
use async_trait::async_trait;
use rehome_mailbox::{Folder, FolderPath, FolderRef, FolderStatus, ListingScope, Mailbox};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

/// Items that are read together.
const READ_BATCH: usize = 500;
/// Items that are removed together.
const REMOVED_AT_ONCE: usize = 1_000;
/// A source UIDVALIDITY that no folder has (RFC 9051 §2.3.1.1): such a folder's items are paired by digest.
const NO_VALIDITY: u32 = 0;

/// Where pairs come from: the organisation that has the mailbox now.
#[async_trait]
pub trait PairSource: Send + Sync {
    /// The page of pairs that begins at `from`.
    ///
    /// # Errors
    /// [`LinkError`].
    async fn pairs(&self, from: PairsFrom) -> Result<PairsPage, LinkError>;
}

/// What was found in the kept contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Items of ours that are the partner's, proven by our own octets.
    pub paired: u64,
    /// Items of ours of which that is not so. They are paired by digest where the partner's octets turn up, else removed.
    pub unpaired: u64,
    /// Whether anything of the kept contents can be used. False: begin with empty contents instead.
    pub usable: bool,
}

/// Fills the empty `ledger` of a move back from the kept contents in `kept`, which may be changed: items that cannot stay
/// where uids are kept are removed from it. `may_go_on` is asked before every command to a server. To be called
/// again with an emptied ledger after an error.
///
/// # Errors
/// [`PassError`].
pub async fn begin_return(
    ledger: Arc<dyn ChunkStorage>,
    kept: &dyn Mailbox,
    partner: &dyn PairSource,
    may_go_on: &(dyn Fn() -> bool + Send + Sync),
) -> Result<Kept, PassError> {
    let ledger = Ledger::load(ledger).await?;
    let mut filling = Filling {
        given_uids: kept.capabilities().given_uids,
        folders: BTreeMap::new(),
        ledger,
        kept,
        may_go_on,
        outcome: Kept::default(),
    };
    filling.guard()?;
    for folder in kept.folders().await.map_err(PassError::Target)? {
        filling.folders.insert(folder.path.clone(), folder);
    }
    let mut from = PairsFrom::default();
    let mut open: Option<PairedFolder> = None;
    loop {
        let page = partner.pairs(from).await.map_err(PassError::Source)?;
        for folder in page.folders {
            match &mut open {
                Some(held) if held.path == folder.path && held.uid_validity == folder.uid_validity => {
                    held.pairs.extend(folder.pairs);
                }
                _ => {
                    if let Some(whole) = open.replace(folder) {
                        filling.folder(whole).await?;
                    }
                }
            }
            // More than we hold is worth nothing, and must not fill the memory.
            if let Some(held) = &mut open {
                let most = filling.most_pairs(held);
                held.pairs.truncate(most);
            }
        }
        match page.next {
            Some(next) if (next.folder, next.chunk) > (from.folder, from.chunk) => from = next,
            Some(_) => {
                return Err(PassError::Protocol {
                    message: "the partner's pages of pairs do not go forward".to_owned(),
                });
            }
            None => break,
        }
    }
    if let Some(whole) = open {
        filling.folder(whole).await?;
    }
    filling.finish().await
}

/// What a folder of ours holds.
#[derive(Default)]
struct Held {
    /// As records under our own uids.
    records: BTreeMap<u32, Record>,
    /// What cannot be read, and is as good as not there.
    unreadable: Vec<u32>,
}

struct Filling<'a> {
    ledger: Ledger,
    kept: &'a dyn Mailbox,
    may_go_on: &'a (dyn Fn() -> bool + Send + Sync),
    given_uids: bool,
    /// Our folders that are not in the ledger yet.
    folders: BTreeMap<FolderPath, Folder>,
    outcome: Kept,
}

impl Filling<'_> {
    fn guard(&self) -> Result<(), PassError> {
        if (self.may_go_on)() {
            Ok(())
        } else {
            Err(PassError::LeaseLost)
        }
    }

    fn most_pairs(&self, folder: &PairedFolder) -> usize {
        let held = self.folders.get(&folder.origin_path).and_then(|held| held.status);
        held.map_or(0, |status| status.exists as usize)
    }

    /// One folder of the partner's, all its pairs together.
    async fn folder(&mut self, paired: PairedFolder) -> Result<(), PassError> {
        let ours = self.folders.get(&paired.origin_path).filter(|ours| {
            let validity = ours.status.map(|status| status.uid_validity);
            ours.selectable && validity == Some(paired.origin_uid_validity)
        });
        let Some(ours) = ours.cloned() else { return Ok(()) };
        let Held {
            records: held,
            unreadable,
        } = self.read(&ours).await?;
        // Under one UIDVALIDITY a uid means one item for ever: there an item stays only under the uid that it has there.
        let same_uids = self.given_uids && paired.uid_validity == paired.origin_uid_validity;
        let proven = proven(&paired.pairs, &held, same_uids);
        let number = self.ledger.add_folder(|number| FolderEntry {
            state: FolderState::Active,
            source_path: paired.path.clone(),
            target_validity: paired.origin_uid_validity,
            given_uids: same_uids,
            // Never equal to the partner's numbers of now, so that it is listed wholly, and found where it was renamed.
            synced: Some(Synced {
                uid_next: proven.keys().next_back().map_or(1, |uid| uid.saturating_add(1)),
                exists: 0,
                highest_mod_seq: None,
                token: None,
            }),
            source_mailbox_id: None,
            ..new_entry(number, &ours, paired.uid_validity)
        })?;
        let mut changes = Changes::default();
        let records = proven.iter().filter_map(|(uid, origin)| {
            let record = held.get(origin)?;
            Some((
                Record {
                    uid: *uid,
                    ..record.clone()
                },
                *origin,
            ))
        });
        self.record(number, records.collect(), &mut changes)?;
        let taken: HashSet<u32> = proven.values().copied().collect();
        let rest: Vec<Record> = held
            .into_values()
            .filter(|record| !taken.contains(&record.uid))
            .collect();
        self.outcome.paired += taken.len() as u64;
        self.outcome.unpaired += rest.len() as u64;
        self.remove(&ours.path, paired.origin_uid_validity, &unreadable).await?;
        if same_uids {
            let uids: Vec<u32> = rest.iter().map(|record| record.uid).collect();
            self.remove(&ours.path, paired.origin_uid_validity, &uids).await?;
        } else if !rest.is_empty() {
            self.set_aside(&ours, paired.origin_uid_validity, rest, &mut changes)?;
        }
        self.folders.remove(&paired.origin_path);
        Ok(self.ledger.write(changes, "replicate.returned_folder").await?)
    }

    /// Folders of ours that the partner's ledger does not know.
    async fn finish(mut self) -> Result<Kept, PassError> {
        let covered = self.ledger.folders().iter().any(|entry| entry.target_path.is_inbox());
        if self.given_uids && !covered {
            // Whether uids were kept is not known, and an inbox cannot be made anew beside its contents.
            return Ok(Kept::default());
        }
        for (path, ours) in std::mem::take(&mut self.folders) {
            let Some(FolderStatus { uid_validity, .. }) = ours.status.filter(|_| ours.selectable) else {
                continue;
            };
            if self.given_uids {
                self.guard()?;
                self.kept.remove_folder(&path).await.map_err(PassError::Target)?;
                continue;
            }
            let Held { records, unreadable } = self.read(&ours).await?;
            self.outcome.unpaired += records.len() as u64;
            self.remove(&path, uid_validity, &unreadable).await?;
            let number = self.ledger.add_folder(|number| FolderEntry {
                state: FolderState::Active,
                target_validity: uid_validity,
                source_mailbox_id: None,
                ..new_entry(number, &ours, NO_VALIDITY)
            })?;
            let mut changes = Changes::default();
            let records = records.into_iter().map(|(uid, record)| (record, uid));
            self.record(number, records.collect(), &mut changes)?;
            self.ledger.write(changes, "replicate.returned_folder").await?;
        }
        self.outcome.usable = true;
        Ok(self.outcome)
    }

    /// What a folder of ours holds, with digests of what was read now.
    async fn read(&self, ours: &Folder) -> Result<Held, PassError> {
        self.guard()?;
        let listing = self.kept.list(&ours.path, None).await.map_err(PassError::Target)?;
        let whole =
            listing.scope == ListingScope::Whole && listing.items.len() as u64 == u64::from(listing.status.exists);
        if !whole {
            return Err(PassError::TargetDiffers {
                message: format!("the kept folder {} does not list all that it counts", ours.path),
                mended: true,
            });
        }
        let mut held = Held::default();
        for items in listing.items.chunks(READ_BATCH) {
            self.guard()?;
            let uids: Vec<u32> = items.iter().map(|item| item.uid).collect();
            let folder = FolderRef::new(&ours.path, listing.status.uid_validity);
            let read = read_digests(self.kept, folder, &uids)
                .await
                .map_err(PassError::Target)?;
            for item in items {
                let (length, digest) = match read.get(&item.uid) {
                    Some(ReadOutcome::Octets { length, digest }) => (*length, *digest),
                    Some(ReadOutcome::Failed(error)) => {
                        tracing::warn!(%error, folder = %ours.path, uid = item.uid, "a kept item cannot be read");
                        held.unreadable.push(item.uid);
                        continue;
                    }
                    Some(ReadOutcome::Gone) | None => continue,
                };
                let record = Record {
                    uid: item.uid,
                    length,
                    digest,
                    flags: item.flags.clone(),
                    received: item.received,
                    read_back: ReadBack::Equal,
                    line_ends_only: false,
                };
                held.records.insert(item.uid, record);
            }
        }
        Ok(held)
    }

    /// Records with the uids of ours that they are on the target.
    fn record(&self, number: u32, records: Vec<(Record, u32)>, changes: &mut Changes) -> Result<(), PassError> {
        let mut map = UidMap::default();
        for chunk in records.chunk_by(|(one, _), (two, _)| one.uid >> CHUNK_SHIFT == two.uid >> CHUNK_SHIFT) {
            for (record, target) in chunk {
                map.insert(record.uid, *target);
            }
            let records: Vec<&Record> = chunk.iter().map(|(record, _)| record).collect();
            self.ledger
                .put_records(number, chunk[0].0.chunk(), records.into_iter(), changes)?;
        }
        changes.add(Ledger::map_change(number, &map));
        changes.folder(number);
        Ok(())
    }

    /// Items that wait in their folder to be paired by digest or removed.
    fn set_aside(
        &self,
        ours: &Folder,
        uid_validity: u32,
        rest: Vec<Record>,
        changes: &mut Changes,
    ) -> Result<(), PassError> {
        let number = self.ledger.add_folder(|number| FolderEntry {
            state: FolderState::Retired,
            target_validity: uid_validity,
            source_mailbox_id: None,
            ..new_entry(number, ours, NO_VALIDITY)
        })?;
        let records = rest.into_iter().map(|record| {
            let uid = record.uid;
            (record, uid)
        });
        self.record(number, records.collect(), changes)
    }

    async fn remove(&self, path: &FolderPath, uid_validity: u32, uids: &[u32]) -> Result<(), PassError> {
        for uids in uids.chunks(REMOVED_AT_ONCE) {
            self.guard()?;
            let folder = FolderRef::new(path, uid_validity);
            self.kept.remove(folder, uids).await.map_err(PassError::Target)?;
        }
        Ok(())
    }
}

/// The partner's uids with ours, of pairs that our own items prove; each item is paired once.
fn proven(pairs: &[Pair], held: &BTreeMap<u32, Record>, same_uids: bool) -> BTreeMap<u32, u32> {
    let mut by_uid: HashMap<u32, u32> = HashMap::new();
    let mut taken = BTreeSet::new();
    for pair in pairs {
        let agrees = held
            .get(&pair.origin)
            .is_some_and(|ours| (ours.length, ours.digest, ours.received) == (pair.length, pair.digest, pair.received));
        let placed = pair.uid > 0 && (!same_uids || pair.uid == pair.origin);
        if agrees && placed && !by_uid.contains_key(&pair.uid) && taken.insert(pair.origin) {
            by_uid.insert(pair.uid, pair.origin);
        }
    }
    by_uid.into_iter().collect()
}

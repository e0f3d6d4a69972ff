//! A mailbox in memory: a whole driver, for tests.
//!
//! It has every power, numbers changes and keeps octets as they are given. [`MemoryMailbox::with_capabilities`] takes
//! powers away, so that what the engine does without them can be tested.

use crate::{
    Appended, Body, Capabilities, ChangeToken, ErrorScope, Folder, FolderPath, FolderRef, FolderStatus, ItemKey,
    ItemMeta, Listing, ListingScope, Mailbox, MailboxError, NewFolder, NewItem, ReadEvent, Removed, Retry, SpecialUse,
    Uid,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use rehome_wire::flags::Flags;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most octets of one piece.
const PIECE: usize = 64 * 1024;

/// A mailbox in memory. Clones are the same mailbox.
#[derive(Clone)]
pub struct MemoryMailbox {
    state: Arc<Mutex<State>>,
    capabilities: Capabilities,
    mailbox_ids: bool,
}

#[derive(Default)]
struct State {
    folders: BTreeMap<FolderPath, Held>,
    last_validity: u32,
    last_number: u64,
}

struct Held {
    /// Counts the folders ever made: the MAILBOXID.
    number: u64,
    uid_validity: u32,
    uid_next: u32,
    mod_seq: u64,
    items: BTreeMap<Uid, Item>,
    /// When an item vanished.
    vanished: BTreeMap<Uid, u64>,
    keys: HashMap<ItemKey, Uid>,
    special_use: Option<SpecialUse>,
    subscribed: bool,
}

#[derive(Clone)]
struct Item {
    octets: Bytes,
    flags: Flags,
    received: i64,
    mod_seq: u64,
}

impl Item {
    fn meta(&self, uid: Uid) -> ItemMeta {
        let (flags, received) = (self.flags.clone(), self.received);
        ItemMeta {
            uid,
            flags,
            received,
            length_hint: Some(self.octets.len() as u64),
        }
    }
}

impl Held {
    fn status(&self) -> FolderStatus {
        FolderStatus {
            uid_validity: self.uid_validity,
            uid_next: self.uid_next,
            exists: u32::try_from(self.items.len()).unwrap_or(u32::MAX),
            highest_mod_seq: Some(self.mod_seq),
        }
    }

    fn add(&mut self, given: Option<Uid>, octets: Bytes, flags: Flags, received: i64) -> Result<Uid, &'static str> {
        let uid = given.unwrap_or(self.uid_next);
        if uid == 0 || self.items.contains_key(&uid) {
            return Err("the uid is taken");
        }
        self.vanished.remove(&uid);
        let after = uid.checked_add(1).ok_or("there are no more uids")?;
        self.uid_next = self.uid_next.max(after);
        self.mod_seq += 1;
        self.items.insert(
            uid,
            Item {
                octets,
                flags,
                received,
                mod_seq: self.mod_seq,
            },
        );
        Ok(uid)
    }

    fn remove(&mut self, uid: Uid) {
        if self.items.remove(&uid).is_some() {
            self.mod_seq += 1;
            self.vanished.insert(uid, self.mod_seq);
        }
    }
}

fn error(what: String, cause: &str, scope: ErrorScope) -> MailboxError {
    MailboxError {
        what,
        cause: cause.to_owned(),
        scope,
        retry: Retry::Never,
    }
}

impl State {
    fn folder(&mut self, path: &FolderPath) -> Result<&mut Held, MailboxError> {
        self.folders.get_mut(path).ok_or_else(|| {
            error(
                format!("opening folder {path}"),
                "there is no such folder",
                ErrorScope::Folder,
            )
        })
    }

    /// The folder, in the validity asked for.
    fn folder_at(&mut self, folder: FolderRef<'_>) -> Result<&mut Held, MailboxError> {
        let held = self.folder(folder.path)?;
        folder.check(held.uid_validity)?;
        Ok(held)
    }

    fn create(&mut self, path: &FolderPath, new: &NewFolder) -> &mut Held {
        let (last_validity, last_number) = (&mut self.last_validity, &mut self.last_number);
        self.folders.entry(path.clone()).or_insert_with(|| {
            *last_number += 1;
            let uid_validity = new
                .identity
                .map_or(*last_validity + 1, |identity| identity.uid_validity);
            *last_validity = uid_validity.max(*last_validity);
            Held {
                number: *last_number,
                uid_validity,
                uid_next: new.identity.map_or(1, |identity| identity.uid_next.max(1)),
                mod_seq: 1,
                items: BTreeMap::new(),
                vanished: BTreeMap::new(),
                keys: HashMap::new(),
                special_use: new.special_use,
                subscribed: new.subscribed,
            }
        })
    }
}

impl Default for MemoryMailbox {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryMailbox {
    /// An empty mailbox with every power, without an inbox.
    #[must_use]
    pub fn new() -> Self {
        Self::with_capabilities(Capabilities {
            append_once: true,
            given_uids: true,
            copy: true,
            changes: true,
            keywords: true,
            max_item_length: None,
            append_batch: 100,
            folders_at_once: 4,
        })
    }

    /// An empty mailbox with these powers; it refuses or ignores what it cannot do, as a server would.
    #[must_use]
    pub fn with_capabilities(capabilities: Capabilities) -> Self {
        Self {
            state: Arc::default(),
            capabilities,
            mailbox_ids: false,
        }
    }

    /// The same mailbox, which also tells a MAILBOXID for each folder.
    #[must_use]
    pub fn with_mailbox_ids(mut self) -> Self {
        self.mailbox_ids = true;
        self
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an item with these raw octets into a folder (made if missing), as mail arrives; returns its uid.
    pub fn deliver(&self, folder: &FolderPath, octets: impl Into<Bytes>, flags: Flags, received: i64) -> Uid {
        let mut state = self.lock();
        let held = state.create(folder, &NewFolder::default());
        match held.add(None, octets.into(), flags, received) {
            Ok(uid) => uid,
            // Only after four thousand million deliveries.
            Err(_) => Uid::MAX,
        }
    }

    /// Gives a folder a new UIDVALIDITY and its items uids from 1 on, as a server does after a restore.
    pub fn renumber(&self, folder: &FolderPath, uid_validity: u32) {
        if let Some(held) = self.lock().folders.get_mut(folder) {
            held.uid_validity = uid_validity;
            held.items = (1..).zip(std::mem::take(&mut held.items).into_values()).collect();
            held.uid_next = u32::try_from(held.items.len()).unwrap_or(u32::MAX).saturating_add(1);
            held.vanished.clear();
            held.keys.clear();
        }
    }

    fn dropped(&self, flags: &Flags) -> (Flags, Vec<String>) {
        if self.capabilities.keywords {
            return (flags.clone(), Vec::new());
        }
        (Flags::from_parts(flags.system(), Vec::new()), flags.keywords().to_vec())
    }

    fn append_one(&self, held: &mut Held, item: &NewItem, octets: Bytes) -> Appended {
        let refuse = |cause: &str| Appended::Refused(error("appending an item".to_owned(), cause, ErrorScope::Item));
        let (flags, keywords_dropped) = self.dropped(&item.flags);
        if self.capabilities.append_once
            && let Some(uid) = held.keys.get(&item.key).filter(|uid| held.items.contains_key(uid))
        {
            return Appended::Uid {
                uid: *uid,
                keywords_dropped,
            };
        }
        if self
            .capabilities
            .max_item_length
            .is_some_and(|most| octets.len() as u64 > most)
        {
            return refuse("the item is too large");
        }
        let given = item.uid.filter(|_| self.capabilities.given_uids);
        match held.add(given, octets, flags, item.received) {
            Ok(uid) => {
                held.keys.insert(item.key, uid);
                Appended::Uid { uid, keywords_dropped }
            }
            Err(cause) => refuse(cause),
        }
    }
}

fn token(held: &Held) -> ChangeToken {
    let mut octets = held.uid_validity.to_be_bytes().to_vec();
    octets.extend_from_slice(&held.mod_seq.to_be_bytes());
    ChangeToken(octets)
}

/// The mod-sequence that a token stands for, if it was made for this UIDVALIDITY.
fn mod_seq_of(token: &ChangeToken, uid_validity: u32) -> Option<u64> {
    let (validity, mod_seq) = token.0.split_first_chunk::<4>()?;
    let mod_seq = u64::from_be_bytes(mod_seq.try_into().ok()?);
    (u32::from_be_bytes(*validity) == uid_validity).then_some(mod_seq)
}

async fn octets_of(item: &NewItem) -> Result<Bytes, MailboxError> {
    let octets = match &item.body {
        Body::Memory(octets) => octets.clone(),
        Body::Spooled(path) => tokio::fs::read(path)
            .await
            .map_err(|source| {
                error(
                    "reading a spooled item".to_owned(),
                    &source.to_string(),
                    ErrorScope::Endpoint,
                )
            })?
            .into(),
    };
    if octets.len() as u64 == item.length {
        return Ok(octets);
    }
    Err(error(
        "appending an item".to_owned(),
        "its length is not the announced one",
        ErrorScope::Item,
    ))
}

#[async_trait]
impl Mailbox for MemoryMailbox {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn folders(&self) -> Result<Vec<Folder>, MailboxError> {
        let state = self.lock();
        let mut paths: BTreeSet<FolderPath> = BTreeSet::new();
        for path in state.folders.keys() {
            paths.extend((1..=path.0.len()).map(|length| FolderPath(path.0[..length].to_vec())));
        }
        let mut folders: Vec<Folder> = paths
            .into_iter()
            .map(|path| {
                let held = state.folders.get(&path);
                Folder {
                    special_use: held.and_then(|held| held.special_use),
                    subscribed: held.is_some_and(|held| held.subscribed),
                    selectable: held.is_some(),
                    status: held.map(Held::status),
                    mailbox_id: held
                        .filter(|_| self.mailbox_ids)
                        .map(|held| format!("M{}", held.number)),
                    path,
                }
            })
            .collect();
        folders.sort_by_key(|folder| !folder.path.is_inbox());
        Ok(folders)
    }

    async fn list(&self, folder: &FolderPath, since: Option<&ChangeToken>) -> Result<Listing, MailboxError> {
        let mut state = self.lock();
        let held = state.folder(folder)?;
        let since = since
            .filter(|_| self.capabilities.changes)
            .and_then(|token| mod_seq_of(token, held.uid_validity));
        let changed = |item: &Item| since.is_none_or(|since| item.mod_seq > since);
        let items = held
            .items
            .iter()
            .filter(|(_, item)| changed(item))
            .map(|(uid, item)| item.meta(*uid))
            .collect();
        let scope = match since {
            None => ListingScope::Whole,
            Some(since) => ListingScope::Changes {
                removed: Removed::Vanished(
                    held.vanished
                        .iter()
                        .filter(|(_, at)| **at > since)
                        .map(|(uid, _)| *uid)
                        .collect(),
                ),
            },
        };
        let token = self.capabilities.changes.then(|| token(held));
        Ok(Listing {
            status: held.status(),
            token,
            items,
            scope,
        })
    }

    async fn read<'a>(
        &'a self,
        folder: FolderRef<'_>,
        uids: &[Uid],
    ) -> Result<BoxStream<'a, Result<ReadEvent, MailboxError>>, MailboxError> {
        self.lock().folder_at(folder)?;
        let (folder, uids) = (folder.path.clone(), uids.to_vec());
        let events = stream::iter(uids).flat_map(move |uid| {
            let item = self
                .lock()
                .folders
                .get(&folder)
                .and_then(|held| held.items.get(&uid).cloned());
            let events = match item {
                None => vec![Ok(ReadEvent::Gone(uid))],
                Some(item) => {
                    let pieces = (0..item.octets.len()).step_by(PIECE);
                    let pieces = pieces.map(|at| item.octets.slice(at..(at + PIECE).min(item.octets.len())));
                    std::iter::once(ReadEvent::Item(item.meta(uid)))
                        .chain(pieces.map(ReadEvent::Octets))
                        .chain([ReadEvent::End])
                        .map(Ok)
                        .collect()
                }
            };
            stream::iter(events)
        });
        Ok(events.boxed())
    }

    async fn create_folder(&self, folder: &FolderPath, new: &NewFolder) -> Result<FolderStatus, MailboxError> {
        if folder.0.is_empty() {
            return Err(error(
                "creating a folder".to_owned(),
                "the path has no names",
                ErrorScope::Folder,
            ));
        }
        let new = NewFolder {
            identity: new.identity.filter(|_| self.capabilities.given_uids),
            ..new.clone()
        };
        let mut state = self.lock();
        let held = state.create(folder, &new);
        held.subscribed |= new.subscribed;
        held.special_use = new.special_use.or(held.special_use);
        if let Some(identity) = new
            .identity
            .filter(|identity| identity.uid_validity == held.uid_validity)
        {
            held.uid_next = held.uid_next.max(identity.uid_next);
        }
        Ok(held.status())
    }

    async fn rename_folder(&self, from: &FolderPath, to: &FolderPath) -> Result<(), MailboxError> {
        let refuse = |cause| {
            Err(error(
                format!("renaming folder {from} to {to}"),
                cause,
                ErrorScope::Folder,
            ))
        };
        let mut state = self.lock();
        if from.is_inbox() || to.is_inbox() {
            return refuse("the inbox is never renamed or replaced");
        }
        if to.0.is_empty() || to.0.starts_with(&from.0) {
            return refuse("a folder cannot be moved into itself or to no name");
        }
        let moved: Vec<FolderPath> = state
            .folders
            .keys()
            .filter(|path| path.0.starts_with(&from.0))
            .cloned()
            .collect();
        if moved.is_empty() {
            return if state.folders.contains_key(to) {
                Ok(())
            } else {
                refuse("there is no such folder")
            };
        }
        let renamed = |path: &FolderPath| FolderPath(to.0.iter().chain(&path.0[from.0.len()..]).cloned().collect());
        if moved.iter().any(|path| state.folders.contains_key(&renamed(path))) {
            return refuse("such a folder is there already");
        }
        for path in moved {
            if let Some(held) = state.folders.remove(&path) {
                state.folders.insert(renamed(&path), held);
            }
        }
        Ok(())
    }

    async fn remove_folder(&self, folder: &FolderPath) -> Result<(), MailboxError> {
        if folder.is_inbox() {
            return Err(error(
                "removing a folder".to_owned(),
                "the inbox is never removed",
                ErrorScope::Folder,
            ));
        }
        self.lock().folders.remove(folder);
        Ok(())
    }

    async fn subscribe(&self, folder: &FolderPath, subscribed: bool) -> Result<(), MailboxError> {
        if let Some(held) = self.lock().folders.get_mut(folder) {
            held.subscribed = subscribed;
        }
        Ok(())
    }

    async fn append(&self, folder: FolderRef<'_>, items: Vec<NewItem>) -> Result<Vec<Appended>, MailboxError> {
        let mut octets = Vec::with_capacity(items.len());
        for item in &items {
            octets.push(octets_of(item).await);
        }
        let mut state = self.lock();
        let held = state.folder_at(folder)?;
        let append = |(item, octets): (&NewItem, Result<Bytes, MailboxError>)| match octets {
            Ok(octets) => Ok(self.append_one(held, item, octets)),
            Err(error) if error.scope == ErrorScope::Item => Ok(Appended::Refused(error)),
            Err(error) => Err(error),
        };
        items.iter().zip(octets).map(append).collect()
    }

    async fn copy(
        &self,
        from: FolderRef<'_>,
        uids: &[Uid],
        folder: FolderRef<'_>,
        items: &[NewItem],
    ) -> Result<Vec<Appended>, MailboxError> {
        let refuse = |cause, scope| error("copying items".to_owned(), cause, scope);
        if !self.capabilities.copy || uids.len() != items.len() {
            return Err(refuse("the server does not copy this", ErrorScope::Folder));
        }
        let mut state = self.lock();
        let mut answers = Vec::with_capacity(items.len());
        for (uid, item) in uids.iter().zip(items) {
            let octets = state.folder_at(from)?.items.get(uid).map(|item| item.octets.clone());
            let held = state.folder_at(folder)?;
            answers.push(match octets {
                Some(octets) => self.append_one(held, item, octets),
                None => Appended::Refused(MailboxError {
                    retry: Retry::Now,
                    ..refuse("the item is not there any more", ErrorScope::Item)
                }),
            });
        }
        Ok(answers)
    }

    async fn set_flags(
        &self,
        folder: FolderRef<'_>,
        changes: &[(Uid, Flags)],
    ) -> Result<Vec<(Uid, Vec<String>)>, MailboxError> {
        let mut state = self.lock();
        let held = state.folder_at(folder)?;
        let mut all_dropped = Vec::new();
        for (uid, flags) in changes {
            let (flags, dropped) = self.dropped(flags);
            if let Some(item) = held.items.get_mut(uid) {
                if item.flags != flags {
                    held.mod_seq += 1;
                    item.mod_seq = held.mod_seq;
                    item.flags = flags;
                }
                if !dropped.is_empty() {
                    all_dropped.push((*uid, dropped));
                }
            }
        }
        Ok(all_dropped)
    }

    async fn remove(&self, folder: FolderRef<'_>, uids: &[Uid]) -> Result<(), MailboxError> {
        let mut state = self.lock();
        let held = state.folder_at(folder)?;
        for uid in uids {
            held.remove(*uid);
        }
        Ok(())
    }
}

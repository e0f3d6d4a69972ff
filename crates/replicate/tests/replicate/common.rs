//! Storage, links and mailboxes that can fail, and what both sides hold as comparable values.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream::BoxStream};
use rehome_mailbox::{
    Appended, Body, Capabilities, ChangeToken, ErrorScope, Folder, FolderPath, FolderRef, FolderStatus, Listing,
    ListingScope, Mailbox, MailboxError, NewFolder, NewItem, ReadEvent, Removed, Retry, Uid, memory::MemoryMailbox,
};
use rehome_replicate::{
    Change, ChunkKey, ChunkKind, ChunkStorage, Exporter, ImportSettings, Importer, LinkError, OctetStream, PassError,
    PassKind, SourceLink, SourceRoot, StorageError, TargetRoot,
};
use rehome_wire::{canonical::canonical, flags::Flags, uid_set::UidSet};
use std::collections::BTreeMap;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
};

pub fn path(name: &str) -> FolderPath {
    FolderPath(name.split('/').map(str::to_owned).collect())
}

pub fn flags(names: &[&str]) -> Flags {
    Flags::from_names(names)
}

/// Counts steps of a scenario and breaks it off at one of them: everything after it fails as well, as after a crash.
#[derive(Default)]
pub struct Fuse {
    /// Steps left before the break; below zero none is planned.
    left: AtomicI64,
    armed: AtomicBool,
    broken: AtomicBool,
    pub steps: AtomicU64,
}

impl Fuse {
    pub fn arm(&self, steps: u64) {
        self.left.store(i64::try_from(steps).unwrap(), Ordering::SeqCst);
        self.broken.store(false, Ordering::SeqCst);
        self.armed.store(true, Ordering::SeqCst);
    }

    pub fn disarm(&self) {
        self.armed.store(false, Ordering::SeqCst);
        self.broken.store(false, Ordering::SeqCst);
    }

    /// True where the scenario has broken off, or does so here.
    pub fn breaks(&self) -> bool {
        self.steps.fetch_add(1, Ordering::SeqCst);
        if !self.armed.load(Ordering::SeqCst) {
            return false;
        }
        if self.left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            self.broken.store(true, Ordering::SeqCst);
        }
        self.is_broken()
    }

    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::SeqCst)
    }
}

/// Chunks in memory.
#[derive(Default)]
pub struct Chunks {
    held: Mutex<BTreeMap<ChunkKey, Vec<u8>>>,
    fuse: Option<Arc<Fuse>>,
    pub steps: Mutex<Vec<&'static str>>,
}

impl Chunks {
    pub fn with_fuse(fuse: &Arc<Fuse>) -> Self {
        Self {
            fuse: Some(Arc::clone(fuse)),
            ..Self::default()
        }
    }

    pub fn keys(&self) -> Vec<ChunkKey> {
        self.held.lock().unwrap().keys().copied().collect()
    }

    fn check(&self, counted: bool) -> Result<(), StorageError> {
        let broken = self
            .fuse
            .as_ref()
            .is_some_and(|fuse| if counted { fuse.breaks() } else { fuse.is_broken() });
        if broken {
            Err(StorageError::Failed { message: "cut".into() })
        } else {
            Ok(())
        }
    }
}

#[async_trait]
impl ChunkStorage for Chunks {
    async fn get(&self, key: ChunkKey) -> Result<Option<Vec<u8>>, StorageError> {
        self.check(false)?;
        Ok(self.held.lock().unwrap().get(&key).cloned())
    }

    async fn chunks(&self, kind: ChunkKind, folder: u32) -> Result<Vec<u32>, StorageError> {
        self.check(false)?;
        let held = self.held.lock().unwrap();
        Ok(held
            .keys()
            .filter(|key| (key.kind, key.folder) == (kind, folder))
            .map(|key| key.chunk)
            .collect())
    }

    async fn write(&self, changes: Vec<Change>, step: &'static str) -> Result<(), StorageError> {
        // Cut before the write, and cut behind it.
        self.check(true)?;
        {
            let mut held = self.held.lock().unwrap();
            for (key, octets) in changes {
                match octets {
                    Some(octets) => held.insert(key, octets),
                    None => held.remove(&key),
                };
            }
        }
        self.steps.lock().unwrap().push(step);
        self.check(true)
    }
}

/// What a test does to frames on their way: folder, uids asked for, the octets of the whole answer.
pub type Tamper = Box<dyn Fn(&FolderPath, &UidSet, Vec<u8>) -> Vec<u8> + Send + Sync>;

/// The exporter without HTTP between.
pub struct DirectLink {
    pub exporter: Exporter,
    pub fuse: Arc<Fuse>,
    pub requests: Mutex<Vec<String>>,
    /// Asked in place of `items`.
    pub sweeping: AtomicBool,
    pub tamper: Mutex<Option<Tamper>>,
    /// A listing that only connections that are not fresh see.
    pub hidden: Mutex<Vec<FolderPath>>,
    /// Told of every request before it is answered.
    pub watcher: Mutex<Option<Watcher>>,
}

pub type Watcher = Box<dyn Fn(&str) + Send + Sync>;

impl DirectLink {
    pub fn new(exporter: Exporter) -> Self {
        Self {
            exporter,
            fuse: Arc::default(),
            requests: Mutex::default(),
            sweeping: AtomicBool::new(false),
            tamper: Mutex::default(),
            hidden: Mutex::default(),
            watcher: Mutex::default(),
        }
    }

    fn note(&self, request: String) -> Result<(), LinkError> {
        if let Some(watcher) = &*self.watcher.lock().unwrap() {
            watcher(&request);
        }
        self.requests.lock().unwrap().push(request);
        if self.fuse.breaks() { Err(cut()) } else { Ok(()) }
    }

    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

fn cut() -> LinkError {
    LinkError {
        id: "CommunicationErrorTransientException".into(),
        message: "cut".into(),
        scope: ErrorScope::Mailbox,
        retry: Retry::After(5),
    }
}

async fn octets_of(mut stream: OctetStream) -> Result<Vec<u8>, LinkError> {
    let mut octets = Vec::new();
    while let Some(piece) = stream.next().await {
        octets.extend_from_slice(&piece?);
    }
    Ok(octets)
}

#[async_trait]
impl SourceLink for DirectLink {
    async fn folders(&self) -> Result<Vec<Folder>, LinkError> {
        self.note("folders".into())?;
        let hidden = self.hidden.lock().unwrap().clone();
        let mut folders = self.exporter.folders().await.map_err(|error| error.link_error())?;
        folders.retain(|folder| !hidden.contains(&folder.path));
        Ok(folders)
    }

    async fn listing(&self, folder: &FolderPath, token: Option<&[u8]>, fresh: bool) -> Result<OctetStream, LinkError> {
        self.note(format!(
            "listing {folder}{}{}",
            if token.is_some() { " since" } else { "" },
            if fresh { " fresh" } else { "" }
        ))?;
        self.exporter
            .listing(folder, token, fresh)
            .await
            .map_err(|error| error.link_error())
    }

    async fn items(&self, folder: &FolderPath, uid_validity: u32, uids: &UidSet) -> Result<OctetStream, LinkError> {
        self.note(format!("items {folder} {:?}", uids.ranges()))?;
        let stream = if self.sweeping.load(Ordering::SeqCst) {
            self.exporter.sweep_items(folder, uid_validity, uids).await
        } else {
            self.exporter.items(folder, uid_validity, uids).await
        };
        let stream = stream.map_err(|error| error.link_error())?;
        if self.tamper.lock().unwrap().is_none() {
            return Ok(stream);
        }
        let octets = octets_of(stream).await?;
        let octets = self
            .tamper
            .lock()
            .unwrap()
            .as_ref()
            .map(|tamper| tamper(folder, uids, octets))
            .unwrap_or_default();
        Ok(futures_util::stream::iter([Ok(Bytes::from(octets))]).boxed())
    }
}

/// A mailbox whose commands can be cut: before their effect, in the middle of an append, or after it.
pub struct Faulty {
    pub inner: Arc<dyn Mailbox>,
    pub fuse: Arc<Fuse>,
    pub commands: Mutex<Vec<String>>,
    /// What it makes of appended octets; their number stays.
    pub rewrite: Mutex<Option<Rewrite>>,
    pub late: Mutex<Late>,
    /// Listings of changes name what is there, not what vanished.
    pub names_present: AtomicBool,
}

/// An append whose connection dies: it takes effect only some commands later.
#[derive(Default)]
pub struct Late {
    /// Appends before the one that is lost.
    pub lose: Option<u64>,
    /// Commands before it takes effect.
    pub after: u64,
    held: Option<(FolderPath, Vec<NewItem>)>,
}

impl Late {
    pub fn new(lose: u64, after: u64) -> Self {
        let lose = Some(lose);
        Self {
            lose,
            after,
            held: None,
        }
    }

    /// Whether it is still on its way.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }
}

pub type Rewrite = Box<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

impl Faulty {
    pub fn new(inner: Arc<dyn Mailbox>, fuse: &Arc<Fuse>) -> Self {
        Self {
            inner,
            fuse: Arc::clone(fuse),
            commands: Mutex::default(),
            rewrite: Mutex::default(),
            late: Mutex::default(),
            names_present: AtomicBool::new(false),
        }
    }

    /// What was lost takes effect now.
    pub fn deliver_late(&self) {
        let held = self.late.lock().unwrap().held.take();
        if let Some((folder, items)) = held {
            let appended = self.inner.append(FolderRef::any(&folder), items).now_or_never();
            appended.expect("memory is ready at once").unwrap();
        }
    }

    /// Whether this append is the one that is lost.
    fn loses(&self, folder: FolderRef<'_>, items: &[NewItem]) -> bool {
        let mut late = self.late.lock().unwrap();
        match late.lose {
            Some(0) => {
                late.lose = None;
                late.held = Some((folder.path.clone(), items.to_vec()));
                true
            }
            Some(more) => {
                late.lose = Some(more - 1);
                false
            }
            None => false,
        }
    }

    fn check(&self, what: &str) -> Result<(), MailboxError> {
        if !self.fuse.breaks() {
            return Ok(());
        }
        Err(MailboxError {
            what: what.into(),
            cause: "cut".into(),
            scope: ErrorScope::Mailbox,
            retry: Retry::Now,
        })
    }

    fn begin(&self, what: &str) -> Result<(), MailboxError> {
        let due = {
            let mut late = self.late.lock().unwrap();
            let due = late.is_held() && late.after == 0;
            late.after = late.after.saturating_sub(u64::from(late.is_held()));
            due
        };
        if due {
            self.deliver_late();
        }
        self.commands.lock().unwrap().push(what.to_owned());
        self.check(what)
    }

    pub fn take_commands(&self) -> Vec<String> {
        std::mem::take(&mut self.commands.lock().unwrap())
    }
}

#[async_trait]
impl Mailbox for Faulty {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn folders(&self) -> Result<Vec<Folder>, MailboxError> {
        self.begin("folders")?;
        self.inner.folders().await
    }

    async fn list(&self, folder: &FolderPath, since: Option<&ChangeToken>) -> Result<Listing, MailboxError> {
        self.begin("list")?;
        let mut listing = self.inner.list(folder, since).await?;
        if let (true, ListingScope::Changes { removed }) =
            (self.names_present.load(Ordering::SeqCst), &mut listing.scope)
        {
            let whole = self.inner.list(folder, None).await?;
            *removed = Removed::Present(UidSet::from_ascending(whole.items.iter().map(|item| item.uid)));
        }
        Ok(listing)
    }

    async fn list_from(&self, folder: &FolderPath, first: Uid) -> Result<Listing, MailboxError> {
        self.begin(&format!("list from {first}"))?;
        self.inner.list_from(folder, first).await
    }

    async fn read<'a>(
        &'a self,
        folder: FolderRef<'_>,
        uids: &[Uid],
    ) -> Result<BoxStream<'a, Result<ReadEvent, MailboxError>>, MailboxError> {
        self.begin("read")?;
        self.inner.read(folder, uids).await
    }

    async fn create_folder(&self, folder: &FolderPath, new: &NewFolder) -> Result<FolderStatus, MailboxError> {
        self.begin("create_folder")?;
        let done = self.inner.create_folder(folder, new).await;
        self.check("create_folder")?;
        done
    }

    async fn rename_folder(&self, from: &FolderPath, to: &FolderPath) -> Result<(), MailboxError> {
        self.begin("rename_folder")?;
        self.inner.rename_folder(from, to).await
    }

    async fn remove_folder(&self, folder: &FolderPath) -> Result<(), MailboxError> {
        self.begin("remove_folder")?;
        let done = self.inner.remove_folder(folder).await;
        self.check("remove_folder")?;
        done
    }

    async fn subscribe(&self, folder: &FolderPath, subscribed: bool) -> Result<(), MailboxError> {
        self.begin("subscribe")?;
        self.inner.subscribe(folder, subscribed).await
    }

    async fn append(&self, folder: FolderRef<'_>, items: Vec<NewItem>) -> Result<Vec<Appended>, MailboxError> {
        self.begin("append")?;
        if self.loses(folder, &items) {
            return Err(MailboxError {
                what: "append".into(),
                cause: "the connection was lost".into(),
                scope: ErrorScope::Mailbox,
                retry: Retry::Now,
            });
        }
        let mut answers = Vec::new();
        for mut item in items {
            if let (Some(rewrite), Body::Memory(octets)) = (&*self.rewrite.lock().unwrap(), &item.body) {
                item.body = Body::Memory(rewrite(octets).into());
            }
            answers.extend(self.inner.append(folder, vec![item]).await?);
            self.check("append")?;
        }
        Ok(answers)
    }

    async fn copy(
        &self,
        from: FolderRef<'_>,
        uids: &[Uid],
        folder: FolderRef<'_>,
        keys: &[NewItem],
    ) -> Result<Vec<Appended>, MailboxError> {
        self.begin("copy")?;
        let done = self.inner.copy(from, uids, folder, keys).await;
        self.check("copy")?;
        done
    }

    async fn set_flags(
        &self,
        folder: FolderRef<'_>,
        changes: &[(Uid, Flags)],
    ) -> Result<Vec<(Uid, Vec<String>)>, MailboxError> {
        self.begin("set_flags")?;
        let done = self.inner.set_flags(folder, changes).await;
        self.check("set_flags")?;
        done
    }

    async fn remove(&self, folder: FolderRef<'_>, uids: &[Uid]) -> Result<(), MailboxError> {
        self.begin("remove")?;
        let done = self.inner.remove(folder, uids).await;
        self.check("remove")?;
        done
    }
}

/// One item as it counts: canonical octets, flags, received.
pub type Item = (Vec<u8>, Vec<String>, i64);

/// What a mailbox holds: by folder, the items in a fixed order, with their multiplicity.
pub async fn contents(mailbox: &dyn Mailbox) -> BTreeMap<FolderPath, Vec<Item>> {
    let mut contents = BTreeMap::new();
    for (path, items) in with_uids(mailbox).await {
        let mut items: Vec<Item> = items.into_values().collect();
        items.sort();
        contents.insert(path, items);
    }
    contents
}

/// What a mailbox holds, by folder and uid.
pub async fn with_uids(mailbox: &dyn Mailbox) -> BTreeMap<FolderPath, BTreeMap<Uid, Item>> {
    let mut contents = BTreeMap::new();
    for folder in mailbox
        .folders()
        .await
        .unwrap()
        .into_iter()
        .filter(|folder| folder.selectable)
    {
        let listing = mailbox.list(&folder.path, None).await.unwrap();
        let uids: Vec<Uid> = listing.items.iter().map(|item| item.uid).collect();
        let mut items = BTreeMap::new();
        let mut events = mailbox.read(FolderRef::any(&folder.path), &uids).await.unwrap();
        let mut current = None;
        while let Some(event) = events.next().await {
            match event.unwrap() {
                ReadEvent::Item(meta) => current = Some((meta, Vec::new())),
                ReadEvent::Octets(octets) => current.as_mut().unwrap().1.extend_from_slice(&octets),
                ReadEvent::End => {
                    let (meta, octets) = current.take().unwrap();
                    items.insert(
                        meta.uid,
                        (canonical(&octets), meta.flags.canonical_names(), meta.received),
                    );
                }
                ReadEvent::Gone(uid) | ReadEvent::Failed { uid, .. } => panic!("uid {uid} cannot be read"),
            }
        }
        contents.insert(folder.path, items);
    }
    contents
}

/// Two organisations' ends of one move.
pub struct World {
    pub source: MemoryMailbox,
    pub target: Arc<dyn Mailbox>,
    pub faulty: Arc<Faulty>,
    pub fuse: Arc<Fuse>,
    pub ledger: Arc<Chunks>,
    pub notes: Arc<Chunks>,
    pub link: Arc<DirectLink>,
    pub settings: ImportSettings,
    _spool: tempfile::TempDir,
}

impl World {
    pub fn new(source: MemoryMailbox, target: Arc<dyn Mailbox>) -> Self {
        let served = Arc::new(source.clone());
        Self::over(source, served, target)
    }

    /// Both ends name what is there where they tell what changed, not what vanished.
    pub fn naming_present(source: MemoryMailbox, target: Arc<dyn Mailbox>) -> Self {
        let served = Faulty::new(Arc::new(source.clone()), &Arc::default());
        served.names_present.store(true, Ordering::SeqCst);
        let world = Self::over(source, Arc::new(served), target);
        world.faulty.names_present.store(true, Ordering::SeqCst);
        world
    }

    /// What is served is the source behind something else.
    pub fn over(source: MemoryMailbox, served: Arc<dyn Mailbox>, target: Arc<dyn Mailbox>) -> Self {
        let fuse = Arc::new(Fuse::default());
        let spool = tempfile::tempdir().unwrap();
        let notes = Arc::new(Chunks::default());
        let exporter = Exporter::new(served, Arc::clone(&notes) as Arc<dyn ChunkStorage>);
        let settings = ImportSettings {
            move_id: 0xfeed,
            memory_budget: 1 << 20,
            spool: spool.path().join("spool"),
            given_uids: true,
            read_back: true,
            live_target: false,
            progress: Arc::new(|_| {}),
            lease: Arc::new(|| true),
            cancel: Arc::default(),
        };
        Self {
            faulty: Arc::new(Faulty::new(Arc::clone(&target), &fuse)),
            ledger: Arc::new(Chunks::with_fuse(&fuse)),
            link: Arc::new(DirectLink::new(exporter)),
            source,
            target,
            fuse,
            notes,
            settings,
            _spool: spool,
        }
    }

    pub fn memory() -> Self {
        Self::new(MemoryMailbox::new(), Arc::new(MemoryMailbox::new()))
    }

    /// A new importer on the same state, as after a restart.
    pub fn importer(&self) -> Importer {
        self.importer_over(
            Arc::clone(&self.link) as Arc<dyn SourceLink>,
            Arc::clone(&self.faulty) as _,
        )
    }

    /// One between other ends.
    pub fn importer_over(&self, link: Arc<dyn SourceLink>, target: Arc<dyn Mailbox>) -> Importer {
        Importer::new(
            link,
            target,
            Arc::clone(&self.ledger) as Arc<dyn ChunkStorage>,
            self.settings.clone(),
        )
    }

    pub async fn pass(&self, kind: PassKind) -> rehome_replicate::PassOutcome {
        self.importer().pass(kind).await.unwrap()
    }

    pub async fn roots(&self) -> (SourceRoot, TargetRoot) {
        let target = self.importer().target_root().await.unwrap();
        let source = self.link.exporter.source_root(&target.exceptions, true).await.unwrap();
        (source, target)
    }

    /// Both sides hold the same, with multiplicity, and say so.
    pub async fn assert_equal(&self, context: &str) {
        let (source, target) = (contents(&self.source).await, contents(&*self.target).await);
        assert_eq!(source, target, "{context}");
        let (source_root, target_root) = self.roots().await;
        assert_eq!(target_root.exceptions, [], "{context}");
        assert_eq!(source_root.root, target_root.root, "{context}");
        assert_eq!(
            (source_root.folders, source_root.items, source_root.octets),
            (target_root.folders, target_root.items, target_root.octets),
            "{context}"
        );
        assert_eq!(
            source_root.items,
            source.values().map(|items| items.len() as u64).sum::<u64>()
        );
        let spooled = std::fs::read_dir(&self.settings.spool).map_or(0, |entries| entries.count());
        assert_eq!(spooled, 0, "{context}: spool files are left");
    }

    pub async fn pass_error(&self, kind: PassKind) -> PassError {
        self.importer().pass(kind).await.unwrap_err()
    }
}

/// A mailbox with many of the things that real ones hold.
pub fn populate(source: &MemoryMailbox) {
    let inbox = FolderPath::inbox();
    source.deliver(
        &inbox,
        "Subject: one\n\nbare line ends\n",
        flags(&["\\Seen", "$Forwarded"]),
        1_000_000_000,
    );
    source.deliver(&inbox, "Subject: two\r\n\r\ntwin\r\n", flags(&[]), 1_000_000_001);
    source.deliver(
        &inbox,
        "Subject: two\r\n\r\ntwin\r\n",
        flags(&["\\Flagged"]),
        1_000_000_002,
    );
    source.deliver(&inbox, "", flags(&["\\Deleted"]), -5);
    source.deliver(
        &inbox,
        &b"no header, \xff\0 and a lone \r in it\r\r\n"[..],
        flags(&["Work", "\\Draft"]),
        4_000_000_000,
    );
    source.deliver(&path("Sent"), "Subject: sent\r\n\r\nx\r\n", flags(&["\\Answered"]), 7);
    source.deliver(
        &path("Projects/Übersicht"),
        "Subject: two\r\n\r\ntwin\r\n",
        flags(&[]),
        8,
    );
    for number in 0..12 {
        source.deliver(
            &path("Projects/Many"),
            format!("Subject: {number}\n\n{number}\n"),
            flags(&["\\Seen"]),
            number,
        );
    }
}

/// Makes folders, so that they carry special use and subscription.
pub async fn folders(source: &MemoryMailbox) {
    source
        .create_folder(
            &FolderPath::inbox(),
            &NewFolder {
                subscribed: true,
                ..NewFolder::default()
            },
        )
        .await
        .unwrap();
    let sent = NewFolder {
        special_use: Some(rehome_mailbox::SpecialUse::Sent),
        ..NewFolder::default()
    };
    source.create_folder(&path("Sent"), &sent).await.unwrap();
    source
        .create_folder(&path("Empty"), &NewFolder::default())
        .await
        .unwrap();
}

/// Few powers.
pub fn poor() -> Capabilities {
    Capabilities {
        keywords: true,
        append_batch: 3,
        ..Capabilities::default()
    }
}

/// Puts something into the target's inbox that the move did not bring.
pub async fn append_foreign(world: &World, octets: &'static [u8]) {
    let body = bytes::Bytes::from_static(octets);
    let item = rehome_mailbox::NewItem {
        key: rehome_mailbox::ItemKey {
            move_id: 1,
            folder: 1,
            source_validity: 1,
            source_uid: 1,
        },
        uid: None,
        flags: flags(&[]),
        received: 0,
        length: body.len() as u64,
        digest: rehome_wire::digest::Digest::of(&body),
        body: rehome_mailbox::Body::Memory(body),
    };
    world
        .target
        .append(FolderRef::any(&FolderPath::inbox()), vec![item])
        .await
        .unwrap();
}

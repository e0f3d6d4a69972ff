//! Targets that take names for one that the source tells apart.

use crate::common::{Faulty, Fuse, World, contents, flags, path, poor};
use async_trait::async_trait;
use futures_util::stream::BoxStream;
use proptest::prelude::*;
use rehome_mailbox::{
    Appended, Capabilities, ChangeToken, ErrorScope, Folder, FolderPath, FolderRef, FolderStatus, Listing, Mailbox,
    MailboxError, NewFolder, NewItem, ReadEvent, Retry, Uid, memory::MemoryMailbox,
};
use rehome_replicate::{OtherName, PassKind};
use rehome_wire::flags::Flags;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

/// A mailbox that takes names for one without regard to case and to how accents are composed. A folder keeps the spelling
/// that it was made with.
struct Folding {
    held: MemoryMailbox,
    made: Mutex<Vec<FolderPath>>,
}

fn fold(name: &str) -> String {
    name.to_lowercase().replace("e\u{301}", "\u{e9}")
}

impl Folding {
    fn new(capabilities: Capabilities) -> Arc<Self> {
        Arc::new(Self {
            held: MemoryMailbox::with_capabilities(capabilities),
            made: Mutex::default(),
        })
    }

    /// As the folders that are there spell it.
    async fn spelled(&self, asked: &FolderPath) -> FolderPath {
        let there = self.held.folders().await.unwrap();
        let mut spelled: Vec<String> = Vec::new();
        for name in &asked.0 {
            let same = there.iter().find(|folder| {
                let (last, above) = folder.path.0.split_last().unwrap();
                above == spelled && fold(last) == fold(name)
            });
            spelled.push(same.map_or(name, |folder| folder.path.0.last().unwrap()).clone());
        }
        FolderPath(spelled)
    }
}

#[async_trait]
impl Mailbox for Folding {
    fn capabilities(&self) -> Capabilities {
        self.held.capabilities()
    }

    async fn folders(&self) -> Result<Vec<Folder>, MailboxError> {
        self.held.folders().await
    }

    async fn list(&self, folder: &FolderPath, since: Option<&ChangeToken>) -> Result<Listing, MailboxError> {
        self.held.list(&self.spelled(folder).await, since).await
    }

    async fn read<'a>(
        &'a self,
        folder: FolderRef<'_>,
        uids: &[Uid],
    ) -> Result<BoxStream<'a, Result<ReadEvent, MailboxError>>, MailboxError> {
        let path = self.spelled(folder.path).await;
        self.held.read(FolderRef { path: &path, ..folder }, uids).await
    }

    async fn create_folder(&self, folder: &FolderPath, new: &NewFolder) -> Result<FolderStatus, MailboxError> {
        self.made.lock().unwrap().push(folder.clone());
        self.held.create_folder(&self.spelled(folder).await, new).await
    }

    async fn rename_folder(&self, from: &FolderPath, to: &FolderPath) -> Result<(), MailboxError> {
        let (from, to) = (self.spelled(from).await, self.spelled(to).await);
        let there: Vec<FolderPath> = self
            .held
            .folders()
            .await?
            .into_iter()
            .map(|folder| folder.path)
            .collect();
        let mut meets = false;
        for path in there.iter().filter(|path| path.0.starts_with(&from.0)) {
            let moved = to.0.iter().chain(&path.0[from.0.len()..]).cloned().collect();
            meets |= there.contains(&self.spelled(&FolderPath(moved)).await);
        }
        if meets {
            return Err(MailboxError {
                what: format!("renaming folder {from} to {to}"),
                cause: "such a folder is there already".into(),
                scope: ErrorScope::Folder,
                retry: Retry::Never,
            });
        }
        self.held.rename_folder(&from, &to).await
    }

    async fn remove_folder(&self, folder: &FolderPath) -> Result<(), MailboxError> {
        self.held.remove_folder(&self.spelled(folder).await).await
    }

    async fn subscribe(&self, folder: &FolderPath, subscribed: bool) -> Result<(), MailboxError> {
        self.held.subscribe(&self.spelled(folder).await, subscribed).await
    }

    async fn append(&self, folder: FolderRef<'_>, items: Vec<NewItem>) -> Result<Vec<Appended>, MailboxError> {
        let path = self.spelled(folder.path).await;
        self.held.append(FolderRef { path: &path, ..folder }, items).await
    }

    async fn copy(
        &self,
        from: FolderRef<'_>,
        uids: &[Uid],
        folder: FolderRef<'_>,
        items: &[NewItem],
    ) -> Result<Vec<Appended>, MailboxError> {
        let (one, two) = (self.spelled(from.path).await, self.spelled(folder.path).await);
        let (from, folder) = (FolderRef { path: &one, ..from }, FolderRef { path: &two, ..folder });
        self.held.copy(from, uids, folder, items).await
    }

    async fn set_flags(
        &self,
        folder: FolderRef<'_>,
        changes: &[(Uid, Flags)],
    ) -> Result<Vec<(Uid, Vec<String>)>, MailboxError> {
        let path = self.spelled(folder.path).await;
        self.held.set_flags(FolderRef { path: &path, ..folder }, changes).await
    }

    async fn remove(&self, folder: FolderRef<'_>, uids: &[Uid]) -> Result<(), MailboxError> {
        let path = self.spelled(folder.path).await;
        self.held.remove(FolderRef { path: &path, ..folder }, uids).await
    }
}

fn powers(given_uids: bool) -> Capabilities {
    Capabilities {
        given_uids,
        folders_at_once: 4,
        ..poor()
    }
}

/// One item for each folder that tells the folder's name.
fn tell(source: &MemoryMailbox, folder: &FolderPath) {
    source.deliver(folder, folder.to_string(), flags(&[]), 5);
}

/// Every folder of the source has one of its own on the target, with what it holds and nothing else; nothing is left over;
/// and the report names those with another path.
async fn assert_own_folders(world: &World, context: &str) {
    let (source, target) = (contents(&world.source).await, contents(&*world.target).await);
    let report = world.importer().report().await.unwrap();
    let other = |folder: &FolderPath| report.other_names.iter().find(|name| name.folder == folder.0);
    let expected: BTreeMap<FolderPath, _> = source
        .iter()
        .map(|(folder, items)| {
            let on_target = other(folder).map_or(folder.clone(), |name| FolderPath(name.on_target.clone()));
            (on_target, items.clone())
        })
        .collect();
    assert_eq!(expected.len(), source.len(), "{context}: no two go to one");
    assert_eq!(target, expected, "{context}");
    let (source_root, target_root) = world.roots().await;
    assert_eq!(source_root.root, target_root.root, "{context}");
    assert_eq!(target_root.exceptions, [], "{context}");
}

fn named(folder: &str, on_target: &str) -> OtherName {
    OtherName {
        folder: path(folder).0,
        on_target: path(on_target).0,
    }
}

#[tokio::test]
async fn twins_get_names_of_their_own() {
    for given_uids in [true, false] {
        let target = Folding::new(powers(given_uids));
        let world = World::new(MemoryMailbox::new(), Arc::clone(&target) as Arc<dyn Mailbox>);
        for name in [
            "INBOX",
            "Archive",
            "Archive/2020",
            "archive",
            "archive/2020",
            "archive/x",
            "ARCHIVE",
            "Caf\u{e9}",
            "Cafe\u{301}/a",
            "caf\u{e9}/A",
            "archive (2)",
        ] {
            tell(&world.source, &path(name));
        }
        world.pass(PassKind::Initial).await;
        assert_own_folders(&world, "first").await;
        let names = world.importer().report().await.unwrap().other_names;
        for name in [
            named("Archive", "Archive (3)"),
            named("Archive/2020", "Archive (3)/2020"),
            named("archive", "archive (4)"),
            named("archive/x", "archive (4)/x"),
            named("caf\u{e9}/A", "Caf\u{e9}/A (2)"),
        ] {
            assert!(names.contains(&name), "{name:?} is not in {names:?}");
        }
        // They stay, and nothing is made or renamed again.
        target.made.lock().unwrap().clear();
        tell(&world.source, &path("archive"));
        tell(&world.source, &path("Archive/2020"));
        world.pass(PassKind::Incremental).await;
        world.pass(PassKind::Final).await;
        assert_own_folders(&world, "again").await;
        assert_eq!(world.importer().report().await.unwrap().other_names, names);
        assert!(target.made.lock().unwrap().is_empty());
        // Twins that come later, below one that has another name and beside it.
        for name in ["archive/X", "archive/new/y", "aRCHIVE", "Projects/a", "projects/b"] {
            tell(&world.source, &path(name));
        }
        world.pass(PassKind::Final).await;
        assert_own_folders(&world, "more").await;
    }
}

/// A target that tells names apart is given them as they are.
#[tokio::test]
async fn twins_keep_their_names_where_they_can() {
    let world = World::memory();
    for name in [
        "INBOX",
        "Archive",
        "archive",
        "archive/x",
        "ARCHIVE/x",
        "Caf\u{e9}",
        "Cafe\u{301}",
    ] {
        tell(&world.source, &path(name));
    }
    world.pass(PassKind::Initial).await;
    world.assert_equal("as they are").await;
    assert_eq!(world.importer().report().await.unwrap().other_names, []);
}

/// What a twin's first name is for the target is never removed with it.
#[tokio::test]
async fn a_twin_that_goes_before_it_was_made_takes_nothing_along() {
    let mut cut = 0;
    loop {
        let fuse_target = Folding::new(powers(false));
        let world = World::new(MemoryMailbox::new(), fuse_target as Arc<dyn Mailbox>);
        tell(&world.source, &FolderPath::inbox());
        tell(&world.source, &path("Archive"));
        world.pass(PassKind::Initial).await;
        tell(&world.source, &path("archive"));
        tell(&world.source, &path("archive/below"));
        world.fuse.arm(cut);
        let ended = world.importer().pass(PassKind::Incremental).await.is_ok();
        world.fuse.disarm();
        world.source.remove_folder(&path("archive")).await.unwrap();
        world.pass(PassKind::Final).await;
        assert_own_folders(&world, &format!("cut at {cut}")).await;
        if ended {
            break;
        }
        cut += 1;
    }
    assert!(cut > 10);
}

/// A mailbox in use: two folders of the source never share one of the user's, and what the user calls otherwise is used.
#[tokio::test]
async fn in_a_mailbox_in_use() {
    let target = Folding::new(powers(false));
    target.held.deliver(&path("ARCHIVE"), "the user's", flags(&[]), 3);
    target.held.deliver(&path("INBOX"), "the user's", flags(&[]), 3);
    let mut world = World::new(MemoryMailbox::new(), Arc::clone(&target) as Arc<dyn Mailbox>);
    world.settings.live_target = true;
    for name in ["INBOX", "Archive", "archive", "Other"] {
        tell(&world.source, &path(name));
    }
    for _ in 0..3 {
        world.pass(PassKind::Incremental).await;
    }
    let held: BTreeMap<String, usize> = contents(&*world.target)
        .await
        .into_iter()
        .map(|(path, items)| (path.to_string(), items.len()))
        .collect();
    let expected = [("ARCHIVE", 2), ("INBOX", 2), ("Other", 1), ("archive (2)", 1)];
    assert_eq!(held, expected.map(|(name, count)| (name.to_owned(), count)).into());
}

/// As many folders at once as the target works on, and never one before what is above it.
#[tokio::test]
async fn folders_are_made_at_once() {
    let source = MemoryMailbox::new();
    for name in ["INBOX", "a", "b", "c", "a/a", "a/b", "c/d/e", "c/d/f", "g/h"] {
        tell(&source, &path(name));
    }
    let slow = Slow::new(powers(false));
    let world = World::new(source, Arc::clone(&slow) as Arc<dyn Mailbox>);
    world.pass(PassKind::Initial).await;
    world.assert_equal("made").await;
    let (most, wrong) = (*slow.most.lock().unwrap(), slow.wrong.lock().unwrap().clone());
    assert_eq!(most, 4);
    assert_eq!(wrong, Vec::<FolderPath>::new(), "made before what is above them");
}

/// A target whose folders take some turns to make.
struct Slow {
    held: Faulty,
    now: Mutex<BTreeSet<FolderPath>>,
    most: Mutex<usize>,
    wrong: Mutex<Vec<FolderPath>>,
}

impl Slow {
    fn new(capabilities: Capabilities) -> Arc<Self> {
        Arc::new(Self {
            held: Faulty::new(
                Arc::new(MemoryMailbox::with_capabilities(capabilities)),
                &Arc::<Fuse>::default(),
            ),
            now: Mutex::default(),
            most: Mutex::default(),
            wrong: Mutex::default(),
        })
    }
}

#[async_trait]
impl Mailbox for Slow {
    fn capabilities(&self) -> Capabilities {
        self.held.capabilities()
    }

    async fn folders(&self) -> Result<Vec<Folder>, MailboxError> {
        self.held.folders().await
    }

    async fn list(&self, folder: &FolderPath, since: Option<&ChangeToken>) -> Result<Listing, MailboxError> {
        self.held.list(folder, since).await
    }

    async fn read<'a>(
        &'a self,
        folder: FolderRef<'_>,
        uids: &[Uid],
    ) -> Result<BoxStream<'a, Result<ReadEvent, MailboxError>>, MailboxError> {
        self.held.read(folder, uids).await
    }

    async fn create_folder(&self, folder: &FolderPath, new: &NewFolder) -> Result<FolderStatus, MailboxError> {
        {
            let mut now = self.now.lock().unwrap();
            let related = |other: &FolderPath| other.0[..other.0.len() - 1] == folder.0[..folder.0.len() - 1];
            let above = now
                .iter()
                .any(|other| folder.0.starts_with(&other.0) || other.0.starts_with(&folder.0));
            // What is above a folder and not there is made with it: by one at a time.
            let missing = folder.0.len() > 1 && now.iter().any(|other| related(other) && other.0[0] != "a");
            if above || missing {
                self.wrong.lock().unwrap().push(folder.clone());
            }
            now.insert(folder.clone());
            let mut most = self.most.lock().unwrap();
            *most = now.len().max(*most);
        }
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let made = self.held.create_folder(folder, new).await;
        self.now.lock().unwrap().remove(folder);
        made
    }

    async fn rename_folder(&self, from: &FolderPath, to: &FolderPath) -> Result<(), MailboxError> {
        self.held.rename_folder(from, to).await
    }

    async fn remove_folder(&self, folder: &FolderPath) -> Result<(), MailboxError> {
        self.held.remove_folder(folder).await
    }

    async fn subscribe(&self, folder: &FolderPath, subscribed: bool) -> Result<(), MailboxError> {
        self.held.subscribe(folder, subscribed).await
    }

    async fn append(&self, folder: FolderRef<'_>, items: Vec<NewItem>) -> Result<Vec<Appended>, MailboxError> {
        self.held.append(folder, items).await
    }

    async fn copy(
        &self,
        from: FolderRef<'_>,
        uids: &[Uid],
        folder: FolderRef<'_>,
        items: &[NewItem],
    ) -> Result<Vec<Appended>, MailboxError> {
        self.held.copy(from, uids, folder, items).await
    }

    async fn set_flags(
        &self,
        folder: FolderRef<'_>,
        changes: &[(Uid, Flags)],
    ) -> Result<Vec<(Uid, Vec<String>)>, MailboxError> {
        self.held.set_flags(folder, changes).await
    }

    async fn remove(&self, folder: FolderRef<'_>, uids: &[Uid]) -> Result<(), MailboxError> {
        self.held.remove(folder, uids).await
    }
}

const NAMES: [&str; 8] = ["a", "A", "b", "\u{e9}", "e\u{301}", "E\u{301}", "a (2)", "A (2)"];

fn tree() -> impl Strategy<Value = BTreeSet<FolderPath>> {
    let name = prop::sample::select(NAMES.to_vec());
    let path =
        prop::collection::vec(name, 1..4).prop_map(|names| FolderPath(names.into_iter().map(Into::into).collect()));
    prop::collection::btree_set(path, 0..14)
}

proptest! {
    #![proptest_config(crate::repeatable::config())]

    /// Any trees of names, one after the other, with renamings between, wherever a pass is cut.
    #[test]
    fn every_folder_has_its_own(first in tree(), then in tree(), given_uids in any::<bool>(), ids in any::<bool>(), cut in 0u64..80,
                                renames in prop::collection::vec((any::<prop::sample::Index>(), tree()), 0..4)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let mut source = MemoryMailbox::new();
            if ids {
                source = source.with_mailbox_ids();
            }
            let world = World::new(source, Folding::new(powers(given_uids)) as Arc<dyn Mailbox>);
            tell(&world.source, &FolderPath::inbox());
            for folder in &first {
                tell(&world.source, folder);
            }
            world.pass(PassKind::Initial).await;
            assert_own_folders(&world, "the first tree").await;
            for (which, to) in renames {
                let folders: Vec<FolderPath> = contents(&world.source).await.into_keys().collect();
                let from = &folders[which.index(folders.len())];
                if let Some(to) = to.first() {
                    // What cannot be renamed is not.
                    let _ = world.source.rename_folder(from, to).await;
                }
            }
            for folder in &then {
                tell(&world.source, folder);
            }
            for folder in first.difference(&then) {
                world.source.remove_folder(folder).await.unwrap();
            }
            world.fuse.arm(cut);
            let _ = world.importer().pass(PassKind::Incremental).await;
            world.fuse.disarm();
            world.pass(PassKind::Final).await;
            assert_own_folders(&world, "the second tree").await;
        });
    }
}

//! Odd sources and targets, one odd thing at a time, and what the engine makes of it.

use super::common::{World, contents, flags, path, populate};
use async_trait::async_trait;
use futures_util::{StreamExt, stream::BoxStream};
use rehome_mailbox::{
    Appended, Capabilities, ChangeToken, ErrorScope, Folder, FolderPath, FolderRef, FolderStatus, Listing, Mailbox,
    MailboxError, NewFolder, NewItem, ReadEvent, Retry, Uid, memory::MemoryMailbox,
};
use rehome_replicate::{ExceptionKind, Exporter, PassKind, ReportClass, ReportKind, SkippedItems};
use rehome_wire::flags::Flags;
use std::sync::{Arc, Mutex};

/// What is odd about a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Odd {
    Nothing,
    /// It gives everything the date of today.
    OwnDates,
    /// It spells keywords in its own way.
    OwnSpelling,
    /// Removing something takes the marks `\Deleted` off everything else, and breaks before they are set again.
    LosesMarks,
    /// It tells wrong lengths.
    WrongLengths,
    /// It lists no folders.
    NoFolders,
    /// It lists the inbox alone, and finds no other folder.
    OnlyInbox,
    /// It lists the inbox alone, and says of the others that it may not open them.
    Forbidden,
    /// Every folder is refused for good.
    AllForbidden,
    /// Every folder is busy.
    AllBusy,
    /// It lists fewer items than it counts.
    ListsFewer,
    /// It does not list keywords.
    HidesKeywords,
    /// It gives back other octets than it was given.
    GivesOther,
    /// It refuses everything.
    Refuses,
}

/// A mailbox that is odd from some time on.
struct OddMailbox {
    inner: Arc<dyn Mailbox>,
    odd: Arc<Mutex<Odd>>,
}

impl OddMailbox {
    fn over(inner: Arc<dyn Mailbox>) -> (Arc<dyn Mailbox>, Arc<Mutex<Odd>>) {
        let odd = Arc::new(Mutex::new(Odd::Nothing));
        let mailbox = Self {
            inner,
            odd: Arc::clone(&odd),
        };
        (Arc::new(mailbox), odd)
    }

    fn odd(&self) -> Odd {
        *self.odd.lock().unwrap()
    }

    fn refuses(&self, folder: &FolderPath) -> Option<MailboxError> {
        let error = |cause: &str, scope, retry| {
            let what = format!("opening folder {folder}");
            let cause = cause.to_owned();
            Some(MailboxError {
                what,
                cause,
                scope,
                retry,
            })
        };
        match self.odd() {
            Odd::OnlyInbox if !folder.is_inbox() => error("no such folder", ErrorScope::Folder, Retry::Never),
            Odd::Forbidden if !folder.is_inbox() => error("[NOPERM] no", ErrorScope::Mailbox, Retry::Never),
            Odd::AllForbidden => error("[NOPERM] no", ErrorScope::Mailbox, Retry::Never),
            Odd::AllBusy => error("[INUSE] later", ErrorScope::Folder, Retry::After(30)),
            _ => None,
        }
    }
}

#[async_trait]
impl Mailbox for OddMailbox {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn folders(&self) -> Result<Vec<Folder>, MailboxError> {
        let mut folders = self.inner.folders().await?;
        match self.odd() {
            Odd::NoFolders => folders.clear(),
            Odd::OnlyInbox | Odd::Forbidden => folders.retain(|folder| folder.path.is_inbox()),
            // The numbers of today, so that every folder is looked into.
            Odd::AllForbidden | Odd::AllBusy | Odd::ListsFewer => {
                for status in folders.iter_mut().filter_map(|folder| folder.status.as_mut()) {
                    status.highest_mod_seq = None;
                    status.uid_next += 1;
                }
            }
            _ => {}
        }
        Ok(folders)
    }

    async fn list(&self, folder: &FolderPath, since: Option<&ChangeToken>) -> Result<Listing, MailboxError> {
        if let Some(error) = self.refuses(folder) {
            return Err(error);
        }
        let since = since.filter(|_| self.odd() != Odd::ListsFewer);
        let mut listing = self.inner.list(folder, since).await?;
        match self.odd() {
            Odd::OwnDates => listing.items.iter_mut().for_each(|item| item.received = 1_800_000_000),
            Odd::OwnSpelling => listing.items.iter_mut().for_each(|item| {
                let keywords = item.flags.keywords().iter().map(|keyword| keyword.to_ascii_uppercase());
                item.flags = Flags::from_parts(item.flags.system(), keywords.collect());
            }),
            Odd::WrongLengths => listing
                .items
                .iter_mut()
                .for_each(|item| item.length_hint = Some(if item.uid.is_multiple_of(2) { 1 } else { 3_000_000_000 })),
            Odd::ListsFewer => listing.items.clear(),
            Odd::HidesKeywords => listing.items.iter_mut().for_each(|item| {
                item.flags = Flags::from_parts(item.flags.system(), Vec::new());
            }),
            _ => {}
        }
        Ok(listing)
    }

    async fn read<'a>(
        &'a self,
        folder: FolderRef<'_>,
        uids: &[Uid],
    ) -> Result<BoxStream<'a, Result<ReadEvent, MailboxError>>, MailboxError> {
        match self.refuses(folder.path) {
            Some(error) => Err(error),
            None if self.odd() == Odd::GivesOther => {
                let events = self.inner.read(folder, uids).await?;
                Ok(events.map(|event| event.map(other_octets)).boxed())
            }
            None => self.inner.read(folder, uids).await,
        }
    }

    async fn create_folder(&self, folder: &FolderPath, new: &NewFolder) -> Result<FolderStatus, MailboxError> {
        self.inner.create_folder(folder, new).await
    }

    async fn rename_folder(&self, from: &FolderPath, to: &FolderPath) -> Result<(), MailboxError> {
        self.inner.rename_folder(from, to).await
    }

    async fn remove_folder(&self, folder: &FolderPath) -> Result<(), MailboxError> {
        self.inner.remove_folder(folder).await
    }

    async fn subscribe(&self, folder: &FolderPath, subscribed: bool) -> Result<(), MailboxError> {
        self.inner.subscribe(folder, subscribed).await
    }

    async fn append(&self, folder: FolderRef<'_>, items: Vec<NewItem>) -> Result<Vec<Appended>, MailboxError> {
        if self.odd() == Odd::Refuses {
            let refused = |_: &NewItem| {
                Appended::Refused(MailboxError {
                    what: "appending".to_owned(),
                    cause: "NO no NUL".to_owned(),
                    scope: ErrorScope::Item,
                    retry: Retry::Never,
                })
            };
            return Ok(items.iter().map(refused).collect());
        }
        self.inner.append(folder, items).await
    }

    async fn copy(
        &self,
        from: FolderRef<'_>,
        uids: &[Uid],
        folder: FolderRef<'_>,
        items: &[NewItem],
    ) -> Result<Vec<Appended>, MailboxError> {
        self.inner.copy(from, uids, folder, items).await
    }

    async fn set_flags(
        &self,
        folder: FolderRef<'_>,
        changes: &[(Uid, Flags)],
    ) -> Result<Vec<(Uid, Vec<String>)>, MailboxError> {
        self.inner.set_flags(folder, changes).await
    }

    async fn remove(&self, folder: FolderRef<'_>, uids: &[Uid]) -> Result<(), MailboxError> {
        if self.odd() != Odd::LosesMarks {
            return self.inner.remove(folder, uids).await;
        }
        let listing = self.inner.list(folder.path, None).await?;
        let mut unmarked = Vec::new();
        for item in listing.items.into_iter().filter(|item| !uids.contains(&item.uid)) {
            let mut flags = item.flags;
            flags.remove(rehome_wire::flags::SystemFlag::Deleted);
            unmarked.push((item.uid, flags));
        }
        self.inner.set_flags(folder, &unmarked).await?;
        self.inner.remove(folder, uids).await?;
        *self.odd.lock().unwrap() = Odd::Nothing;
        Err(MailboxError {
            what: format!("removing items of folder {}", folder.path),
            cause: "the connection was lost".to_owned(),
            scope: ErrorScope::Folder,
            retry: Retry::Now,
        })
    }
}

fn other_octets(event: ReadEvent) -> ReadEvent {
    match event {
        ReadEvent::Octets(octets) => ReadEvent::Octets(octets.to_ascii_uppercase().into()),
        event => event,
    }
}

/// A world whose source or target is odd as told.
fn odd_target() -> (World, Arc<Mutex<Odd>>) {
    let (target, odd) = OddMailbox::over(Arc::new(MemoryMailbox::new()));
    (World::new(MemoryMailbox::new(), target), odd)
}

fn odd_source() -> (World, Arc<Mutex<Odd>>) {
    let mut world = World::memory();
    let (source, odd) = OddMailbox::over(Arc::new(world.source.clone()));
    let notes = Arc::clone(&world.notes);
    world.link = Arc::new(super::common::DirectLink::new(Exporter::new(source, notes)));
    (world, odd)
}

/// Every date is named, early; nothing is sent twice because of it.
#[tokio::test]
async fn a_target_that_gives_its_own_dates() {
    let (world, odd) = odd_target();
    populate(&world.source);
    *odd.lock().unwrap() = Odd::OwnDates;
    let first = world.pass(PassKind::Initial).await;
    let report = world.importer().report().await.unwrap();
    assert_eq!(
        report.count(ReportKind::Date),
        first.items_appended,
        "known after the first pass"
    );
    assert_eq!(world.pass(PassKind::Final).await.items_appended, 0);
    let (source, target) = world.roots().await;
    assert_eq!(source.root, target.root);
    assert!(
        target
            .exceptions
            .iter()
            .all(|exception| exception.kind == ExceptionKind::Date)
    );
    assert_eq!(target.exceptions.len() as u64, first.items_appended);
}

/// Keywords in another spelling are the same: they are not set again and again, and are no difference.
#[tokio::test]
async fn a_target_that_spells_keywords_in_its_own_way() {
    let (world, odd) = odd_target();
    populate(&world.source);
    *odd.lock().unwrap() = Odd::OwnSpelling;
    world.pass(PassKind::Initial).await;
    world.faulty.take_commands();
    for kind in [PassKind::Incremental, PassKind::Final] {
        assert_eq!(world.pass(kind).await.flags_changed, 0);
    }
    let (source, target) = world.roots().await;
    assert_eq!((target.exceptions.len(), source.root), (0, target.root));
    assert!(!world.faulty.take_commands().contains(&"set_flags".to_owned()));
}

/// A server without UIDPLUS loses the marks of others where the connection breaks between two commands. They are set
/// again before the roots are compared.
#[tokio::test]
async fn marks_that_an_interrupted_removal_took_off_are_set_again() {
    for changes in [true, false] {
        let capabilities = Capabilities {
            changes,
            ..MemoryMailbox::new().capabilities()
        };
        let (target, odd) = OddMailbox::over(Arc::new(MemoryMailbox::with_capabilities(capabilities)));
        let world = World::new(MemoryMailbox::new(), target);
        populate(&world.source);
        world.pass(PassKind::Initial).await;
        world
            .source
            .remove(FolderRef::any(&FolderPath::inbox()), &[2])
            .await
            .unwrap();
        *odd.lock().unwrap() = Odd::LosesMarks;
        let error = world.pass_error(PassKind::Incremental).await;
        assert_eq!(error.retry(), Retry::Now, "{error}");
        let marked = |contents: std::collections::BTreeMap<FolderPath, Vec<super::common::Item>>| {
            let items = contents.into_values().flatten();
            items.filter(|item| item.1.contains(&"\\deleted".to_owned())).count()
        };
        assert_eq!(marked(contents(&*world.target).await), 0, "they are off");
        world.pass(PassKind::Final).await;
        world.roots().await;
        world.assert_equal("set again").await;
        assert_eq!(marked(contents(&*world.target).await), 1);
    }
}

#[tokio::test]
async fn a_source_that_tells_wrong_lengths() {
    let (world, odd) = odd_source();
    populate(&world.source);
    *odd.lock().unwrap() = Odd::WrongLengths;
    world.pass(PassKind::Initial).await;
    world.pass(PassKind::Final).await;
    world.assert_equal("the octets count").await;
}

/// What a target did to items for some time is mended by a retry of just those: nothing else travels, and the report ends
/// empty.
#[tokio::test]
async fn what_was_mended_is_tried_again() {
    for (bad, kind, class, again) in [
        (Odd::GivesOther, ReportKind::Altered, ReportClass::Altered, 2),
        (Odd::OwnDates, ReportKind::Date, ReportClass::Date, 3),
        (Odd::HidesKeywords, ReportKind::Flags, ReportClass::Flags, 0),
        (Odd::Refuses, ReportKind::Skipped, ReportClass::Refused, 2),
    ] {
        let (world, odd) = odd_target();
        let inbox = FolderPath::inbox();
        let deliver = |text: &str| {
            let text = format!("From: press@contoso.example\r\nDate: today\r\nSubject: {text}\r\n\r\nbody\r\n");
            world.source.deliver(&inbox, text, flags(&["work"]), 1_000_000_000);
        };
        deliver("before");
        world.pass(PassKind::Initial).await;
        deliver("one");
        deliver("two");
        *odd.lock().unwrap() = bad;
        world.pass(PassKind::Incremental).await;
        world.importer().target_root().await.unwrap();
        let report = world.importer().report().await.unwrap();
        assert!(report.count(kind) >= 2, "{bad:?} {report:?}");
        assert!(
            report.items.iter().all(|item| item.class == class),
            "{bad:?} {report:?}"
        );
        if again == 2 {
            let item = &report.items[0];
            let heading = (
                item.subject.as_deref(),
                item.sender.as_deref(),
                item.date_sent.as_deref(),
            );
            assert_eq!(
                heading,
                (Some("one"), Some("press@contoso.example"), Some("today")),
                "{bad:?}"
            );
        }
        world.link.take_requests();
        // Left alone: nothing is fetched, and folders whose numbers did not change are not listed.
        let importer = world.importer();
        let left = importer.pass_with(PassKind::Incremental, SkippedItems::Leave);
        assert_eq!(left.await.unwrap().items_appended, 0);
        assert_eq!(world.link.take_requests(), ["folders"], "{bad:?}");
        *odd.lock().unwrap() = Odd::Nothing;
        let tried = importer.pass_with(PassKind::Incremental, SkippedItems::TryAltered);
        assert_eq!(tried.await.unwrap().items_appended, again, "{bad:?}");
        let report = world.importer().report().await.unwrap();
        assert_eq!(report.items, [], "{bad:?}");
        world.pass(PassKind::Final).await;
        world.assert_equal("mended").await;
    }
}

/// Skipped items are tried by their uids, beside a listing of changes; one that went from the source leaves the report.
#[tokio::test]
async fn skipped_items_need_no_whole_listing() {
    let (world, odd) = odd_target();
    let inbox = FolderPath::inbox();
    let deliver = |count| {
        for n in 0..count {
            let text = format!("Subject: {n}\r\n\r\n");
            world.source.deliver(&inbox, text, flags(&[]), 1_000_000_000);
        }
    };
    deliver(3);
    world.pass(PassKind::Initial).await;
    *odd.lock().unwrap() = Odd::Refuses;
    deliver(3);
    assert_eq!(world.pass(PassKind::Incremental).await.items_skipped, 3);
    world.source.remove(FolderRef::any(&inbox), &[5]).await.unwrap();
    for skipped in [SkippedItems::Leave, SkippedItems::Try] {
        world.link.take_requests();
        let outcome = world
            .importer()
            .pass_with(PassKind::Incremental, skipped)
            .await
            .unwrap();
        assert_eq!(outcome.items_skipped, 2, "{skipped:?}");
        let requests = world.link.take_requests();
        let of =
            |begin: &str| -> Vec<&String> { requests.iter().filter(|request| request.starts_with(begin)).collect() };
        let fetched: &[&str] = if skipped == SkippedItems::Try {
            &["items INBOX [(4, 4), (6, 6)]"]
        } else {
            &[]
        };
        assert_eq!(of("items"), fetched, "{skipped:?}");
        assert_eq!(of("listing").len(), 1, "{requests:?}");
        assert!(of("listing")[0].contains("since"), "{requests:?}");
    }
    *odd.lock().unwrap() = Odd::Nothing;
    assert_eq!(world.pass(PassKind::Incremental).await.items_appended, 2);
    world.pass(PassKind::Final).await;
    world.assert_equal("mended").await;
}

/// What the target says that it does not take is not fetched either, but for the beginning that tells people what it is,
/// once; and is refused once.
#[tokio::test]
async fn what_is_too_large_for_the_target_does_not_travel() {
    let capabilities = Capabilities {
        max_item_length: Some(1_000),
        ..MemoryMailbox::new().capabilities()
    };
    let target = Arc::new(MemoryMailbox::with_capabilities(capabilities));
    let world = World::new(MemoryMailbox::new(), target);
    world.source.deliver(&FolderPath::inbox(), "small", flags(&[]), 1);
    let mut large = b"Subject: plans\r\nFrom: press@contoso.example\r\n\r\n".to_vec();
    large.resize(5_000, b'x');
    world.source.deliver(&FolderPath::inbox(), large, flags(&[]), 2);
    world.pass(PassKind::Initial).await;
    world.pass(PassKind::Incremental).await;
    let requests = world.link.take_requests();
    let bodies: Vec<_> = requests.iter().filter(|request| request.starts_with("items")).collect();
    assert_eq!(bodies, ["items INBOX [(2, 2)]", "items INBOX [(1, 1)]"]);
    let report = world.importer().report().await.unwrap();
    let item = &report.items[0];
    assert_eq!(
        (item.uid, item.kind, item.class),
        (2, ReportKind::Skipped, ReportClass::TooLarge)
    );
    assert_eq!((item.size, item.received), (Some(5_000), Some(2)));
    assert_eq!(
        (item.subject.as_deref(), item.sender.as_deref()),
        (Some("plans"), Some("press@contoso.example"))
    );
    assert!(!world.faulty.take_commands().contains(&"remove".to_owned()));
}

/// A source that vanishes, shrinks or lists badly: nothing is removed from the target, and the next good pass goes on.
#[tokio::test]
async fn a_source_that_lists_badly_empties_nothing() {
    for (bad, error_id) in [
        (Odd::NoFolders, Some("SourceContentsShrankException")),
        (Odd::Forbidden, Some("MailboxPlatformException")),
        (Odd::AllForbidden, Some("MailboxPlatformException")),
        (Odd::AllBusy, Some("MailboxPlatformException")),
        (Odd::ListsFewer, None),
    ] {
        for kind in [PassKind::Incremental, PassKind::Final] {
            let (world, odd) = odd_source();
            populate(&world.source);
            for number in 0..30 {
                world
                    .source
                    .deliver(&path("Sent"), format!("{number}"), flags(&[]), number);
            }
            world.pass(PassKind::Initial).await;
            let before = contents(&*world.target).await;
            *odd.lock().unwrap() = bad;
            let ended = world.importer().pass(kind).await.map(drop);
            assert_eq!(contents(&*world.target).await, before, "{bad:?} {kind:?}");
            match (ended, error_id) {
                (Err(error), Some(id)) => assert_eq!(error.error_id(), id, "{bad:?}: {error}"),
                (Err(_), None) => {}
                (Ok(()), _) => assert_eq!((kind, error_id), (PassKind::Incremental, None), "{bad:?}"),
            }
            *odd.lock().unwrap() = Odd::Nothing;
            world.pass(PassKind::Final).await;
            world.assert_equal("it came to its senses").await;
        }
    }
    // Believed where two looks on two connections agree that the folder is not there.
    let (world, odd) = odd_source();
    populate(&world.source);
    world.pass(PassKind::Initial).await;
    *odd.lock().unwrap() = Odd::OnlyInbox;
    world.pass(PassKind::Incremental).await;
    assert_eq!(contents(&*world.target).await.len(), 1);
}

/// A folder that is removed and made again under its name is another one: what was in the old one goes, what is in both
/// is not copied again.
#[tokio::test]
async fn a_folder_that_was_removed_and_made_again() {
    let world = World::memory();
    populate(&world.source);
    world.pass(PassKind::Initial).await;
    world.source.remove_folder(&path("Projects/Many")).await.unwrap();
    for number in 10..14 {
        let octets = format!("Subject: {number}\n\n{number}\n");
        world
            .source
            .deliver(&path("Projects/Many"), octets, flags(&["\\Seen"]), number);
    }
    world.source.renumber(&path("Projects/Many"), 4_321);
    let outcome = world.pass(PassKind::Incremental).await;
    assert_eq!((outcome.items_paired, outcome.items_appended), (2, 2));
    world.assert_equal("made again").await;
}

#[tokio::test]
async fn thousands_of_empty_folders() {
    const FOLDERS: usize = 3_000;
    let world = World::memory();
    world.source.deliver(&FolderPath::inbox(), "x", flags(&[]), 1);
    for number in 0..FOLDERS {
        let folder = path(&format!("tree{}/empty{number}", number % 40));
        world
            .source
            .create_folder(&folder, &NewFolder::default())
            .await
            .unwrap();
    }
    world.pass(PassKind::Initial).await;
    world.assert_equal("empty folders").await;
    world.link.take_requests();
    world.faulty.take_commands();
    world.pass(PassKind::Incremental).await;
    assert_eq!(world.link.take_requests(), ["folders"]);
    assert!(
        world.faulty.take_commands().is_empty(),
        "nothing is asked of the target"
    );
}

/// A target that was restored, or lost a folder, is not the one that was filled: the move says so, and puts nothing into
/// what it does not know.
#[tokio::test]
async fn a_target_that_is_not_what_it_was() {
    for removed in [true, false] {
        let target = MemoryMailbox::new();
        let world = World::new(MemoryMailbox::new(), Arc::new(target.clone()));
        populate(&world.source);
        world.pass(PassKind::Initial).await;
        if removed {
            target.remove_folder(&path("Sent")).await.unwrap();
        } else {
            target.renumber(&path("Sent"), 7_777);
        }
        world.source.deliver(&path("Sent"), "later", flags(&[]), 1);
        let before = contents(&target).await;
        let error = world.pass_error(PassKind::Incremental).await;
        assert_eq!(error.error_id(), "MailboxPlatformException", "{error}");
        assert!(error.to_string().contains("Sent"), "{error}");
        assert_eq!(contents(&target).await.get(&path("Sent")), before.get(&path("Sent")));
    }
}

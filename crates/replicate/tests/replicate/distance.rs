//! What distance, a slow target and large mailboxes cost: round trips, commands, ledger reads and octets held, never seconds.
//! The clock stands still but for what waits, so that elapsed time counts round trips.

use crate::common::{Chunks, DirectLink, World, flags, path};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use rehome_mailbox::{
    Appended, Body, Capabilities, ChangeToken, Folder, FolderPath, FolderRef, FolderStatus, Listing, Mailbox,
    MailboxError, NewFolder, NewItem, ReadEvent, Uid, memory::MemoryMailbox,
};
use rehome_replicate::{
    Change, ChunkKey, ChunkKind, ChunkStorage, Importer, LinkError, OctetStream, PassKind, SourceLink, StorageError,
};
use rehome_wire::{flags::Flags, uid_set::UidSet};
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

const ROUND_TRIP: Duration = Duration::from_millis(50);

/// A link over a distance, that counts the octets of answers that were taken from it.
struct Far {
    near: Arc<DirectLink>,
    round_trip: Duration,
    taken: Arc<AtomicI64>,
}

impl Far {
    fn answer(&self, stream: OctetStream) -> OctetStream {
        let taken = Arc::clone(&self.taken);
        stream
            .inspect(move |piece| {
                let octets = piece.as_ref().map_or(0, Bytes::len);
                taken.fetch_add(octets as i64, Ordering::SeqCst);
            })
            .boxed()
    }
}

#[async_trait]
impl SourceLink for Far {
    async fn folders(&self) -> Result<Vec<Folder>, LinkError> {
        sleep(self.round_trip).await;
        self.near.folders().await
    }

    async fn listing(&self, folder: &FolderPath, token: Option<&[u8]>, fresh: bool) -> Result<OctetStream, LinkError> {
        sleep(self.round_trip).await;
        self.near.listing(folder, token, fresh).await
    }

    async fn items(&self, folder: &FolderPath, uid_validity: u32, uids: &UidSet) -> Result<OctetStream, LinkError> {
        sleep(self.round_trip).await;
        Ok(self.answer(self.near.items(folder, uid_validity, uids).await?))
    }
}

/// A target whose appends and reads take a while, which says at each append how much is held at that moment.
struct Slow {
    fast: Arc<dyn Mailbox>,
    append: Duration,
    read: Duration,
    taken: Arc<AtomicI64>,
    most_held: AtomicI64,
    appending: AtomicU64,
    reading_meanwhile: AtomicU64,
    at_once: AtomicU64,
}

impl Slow {
    fn new(fast: Arc<dyn Mailbox>, append: Duration, read: Duration, taken: &Arc<AtomicI64>) -> Arc<Self> {
        Arc::new(Self {
            fast,
            append,
            read,
            taken: Arc::clone(taken),
            most_held: AtomicI64::new(0),
            appending: AtomicU64::new(0),
            reading_meanwhile: AtomicU64::new(0),
            at_once: AtomicU64::new(0),
        })
    }
}

#[async_trait]
impl Mailbox for Slow {
    fn capabilities(&self) -> Capabilities {
        self.fast.capabilities()
    }

    async fn folders(&self) -> Result<Vec<Folder>, MailboxError> {
        self.fast.folders().await
    }

    async fn list(&self, folder: &FolderPath, since: Option<&ChangeToken>) -> Result<Listing, MailboxError> {
        self.fast.list(folder, since).await
    }

    async fn read<'a>(
        &'a self,
        folder: FolderRef<'_>,
        uids: &[Uid],
    ) -> Result<BoxStream<'a, Result<ReadEvent, MailboxError>>, MailboxError> {
        self.reading_meanwhile
            .fetch_add(self.appending.load(Ordering::SeqCst), Ordering::SeqCst);
        sleep(self.read).await;
        self.fast.read(folder, uids).await
    }

    async fn create_folder(&self, folder: &FolderPath, new: &NewFolder) -> Result<FolderStatus, MailboxError> {
        self.fast.create_folder(folder, new).await
    }

    async fn rename_folder(&self, from: &FolderPath, to: &FolderPath) -> Result<(), MailboxError> {
        self.fast.rename_folder(from, to).await
    }

    async fn remove_folder(&self, folder: &FolderPath) -> Result<(), MailboxError> {
        self.fast.remove_folder(folder).await
    }

    async fn subscribe(&self, folder: &FolderPath, subscribed: bool) -> Result<(), MailboxError> {
        self.fast.subscribe(folder, subscribed).await
    }

    async fn append(&self, folder: FolderRef<'_>, items: Vec<NewItem>) -> Result<Vec<Appended>, MailboxError> {
        let now = self.appending.fetch_add(1, Ordering::SeqCst) + 1;
        self.at_once.fetch_max(now, Ordering::SeqCst);
        sleep(self.append).await;
        self.most_held
            .fetch_max(self.taken.load(Ordering::SeqCst), Ordering::SeqCst);
        let octets: u64 = items.iter().map(|item| item.length).sum();
        assert!(items.iter().all(|item| matches!(item.body, Body::Memory(_))));
        let appended = self.fast.append(folder, items).await;
        self.taken.fetch_sub(octets as i64, Ordering::SeqCst);
        self.appending.fetch_sub(1, Ordering::SeqCst);
        appended
    }

    async fn copy(
        &self,
        from: FolderRef<'_>,
        uids: &[Uid],
        folder: FolderRef<'_>,
        items: &[NewItem],
    ) -> Result<Vec<Appended>, MailboxError> {
        self.fast.copy(from, uids, folder, items).await
    }

    async fn set_flags(
        &self,
        folder: FolderRef<'_>,
        changes: &[(Uid, Flags)],
    ) -> Result<Vec<(Uid, Vec<String>)>, MailboxError> {
        self.fast.set_flags(folder, changes).await
    }

    async fn remove(&self, folder: FolderRef<'_>, uids: &[Uid]) -> Result<(), MailboxError> {
        self.fast.remove(folder, uids).await
    }
}

/// A ledger that counts what is asked of it.
struct Counted {
    chunks: Arc<Chunks>,
    reads: AtomicU64,
    writes: AtomicU64,
}

#[async_trait]
impl ChunkStorage for Counted {
    async fn get(&self, key: ChunkKey) -> Result<Option<Vec<u8>>, StorageError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.chunks.get(key).await
    }

    async fn chunks(&self, kind: ChunkKind, folder: u32) -> Result<Vec<u32>, StorageError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.chunks.chunks(kind, folder).await
    }

    async fn write(&self, changes: Vec<Change>, step: &'static str) -> Result<(), StorageError> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        // As long as a disk takes.
        sleep(Duration::from_millis(1)).await;
        self.chunks.write(changes, step).await
    }
}

fn target(folders_at_once: usize, append_batch: usize) -> Arc<MemoryMailbox> {
    Arc::new(MemoryMailbox::with_capabilities(Capabilities {
        changes: true,
        keywords: true,
        append_batch,
        folders_at_once,
        ..Capabilities::default()
    }))
}

fn far(world: &World, round_trip: Duration) -> Arc<Far> {
    Arc::new(Far {
        near: Arc::clone(&world.link),
        round_trip,
        taken: Arc::default(),
    })
}

fn importer(world: &World, round_trip: Duration) -> Importer {
    world.importer_over(far(world, round_trip), Arc::clone(&world.faulty) as Arc<dyn Mailbox>)
}

async fn round_trips(work: impl Future) -> u32 {
    let begun = Instant::now();
    work.await;
    u32::try_from(begun.elapsed().as_millis() / ROUND_TRIP.as_millis()).unwrap()
}

fn deliver(world: &World, folders: u32, each: u32) {
    for folder in 0..folders {
        let folder = if folder == 0 {
            FolderPath::inbox()
        } else {
            path(&format!("Folder {folder}"))
        };
        for number in 0..each {
            let octets = format!("Subject: {number}\r\n\r\n{number} in {folder}\r\n");
            world
                .source
                .deliver(&folder, octets, flags(&["\\Seen"]), i64::from(number));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_changed_in_forty_folders() {
    let world = World::new(MemoryMailbox::new(), target(4, 50));
    deliver(&world, 40, 25);
    world.pass(PassKind::Initial).await;
    world.faulty.take_commands();
    world.link.take_requests();
    let ledger = Arc::new(Counted {
        chunks: Arc::clone(&world.ledger),
        reads: AtomicU64::new(0),
        writes: AtomicU64::new(0),
    });
    let importer = Importer::new(
        far(&world, ROUND_TRIP),
        Arc::clone(&world.faulty) as _,
        Arc::clone(&ledger) as _,
        world.settings.clone(),
    );
    assert_eq!(round_trips(importer.pass(PassKind::Incremental)).await, 1);
    assert_eq!(world.link.take_requests(), ["folders"]);
    assert_eq!(world.faulty.take_commands(), [""; 0]);
    // The list of folders, and whether there are intents.
    assert_eq!(
        (
            ledger.reads.load(Ordering::SeqCst),
            ledger.writes.load(Ordering::SeqCst)
        ),
        (4, 0)
    );
}

/// What happens under the lock, with 100 late changes in five of forty folders.
#[tokio::test(start_paused = true)]
async fn a_final_pass_far_away() {
    for folders_at_once in [1, 4] {
        let world = World::new(MemoryMailbox::new(), target(folders_at_once, 50));
        deliver(&world, 40, 50);
        world.pass(PassKind::Initial).await;
        for folder in (3..8).map(|number| path(&format!("Folder {number}"))) {
            for number in 0..10 {
                world.source.deliver(&folder, format!("late {number}"), flags(&[]), 5);
            }
            let changed: Vec<_> = (1..=5).map(|uid| (uid, flags(&["\\Flagged"]))).collect();
            world.source.set_flags(FolderRef::any(&folder), &changed).await.unwrap();
            world
                .source
                .remove(FolderRef::any(&folder), &[6, 7, 8, 9, 10])
                .await
                .unwrap();
        }
        world.faulty.take_commands();
        let importer = importer(&world, ROUND_TRIP);
        let trips = round_trips(async {
            importer.pass(PassKind::Final).await.unwrap();
            importer.target_root().await.unwrap();
        });
        // Folders, listings, items.
        assert_eq!(trips.await, 3, "{folders_at_once} folders at once");
        let commands = world.faulty.take_commands();
        let count = |what: &str| commands.iter().filter(|command| *command == what).count();
        // Only what changed is looked at on the target.
        assert_eq!(
            (count("folders"), count("list"), count("append"), count("read")),
            (2, 5, 5, 5),
            "{commands:?}"
        );
        world.assert_equal("far away").await;
    }
}

/// With 50 ms between the organisations a copy takes little longer than without, for the target never waits.
#[tokio::test(start_paused = true)]
async fn distance_is_hidden_behind_work() {
    for (folders, each) in [(1, 4_000), (40, 300)] {
        let mut took = Vec::new();
        for round_trip in [Duration::ZERO, ROUND_TRIP] {
            let mut world = World::new(MemoryMailbox::new(), target(1, 50));
            world.settings.memory_budget = 64 << 20;
            deliver(&world, folders, each);
            let far = far(&world, round_trip);
            let slow = Slow::new(
                Arc::clone(&world.target),
                Duration::from_millis(40),
                Duration::from_millis(30),
                &far.taken,
            );
            let begun = Instant::now();
            world
                .importer_over(far, slow.clone())
                .pass(PassKind::Initial)
                .await
                .unwrap();
            took.push(begun.elapsed());
            assert!(
                slow.reading_meanwhile.load(Ordering::SeqCst) > 0,
                "read-backs overlap with appends"
            );
            assert_eq!(slow.at_once.load(Ordering::SeqCst), 1, "one writer");
            world.roots().await;
        }
        let idle = took[1].saturating_sub(took[0]);
        assert!(idle <= 8 * ROUND_TRIP, "{folders} folders: {took:?}");
    }
}

/// One durable write for each batch, none for each message, and none that an append waits for.
#[tokio::test(start_paused = true)]
async fn the_ledger_is_written_by_batch_while_appends_go_on() {
    let world = World::new(MemoryMailbox::new(), target(1, 100));
    deliver(&world, 1, 5_000);
    let ledger = Arc::new(Counted {
        chunks: Arc::clone(&world.ledger),
        reads: AtomicU64::new(0),
        writes: AtomicU64::new(0),
    });
    let far = far(&world, Duration::ZERO);
    let append = Duration::from_millis(20);
    let slow = Slow::new(Arc::clone(&world.target), append, Duration::from_millis(10), &far.taken);
    let importer = Importer::new(far, slow, Arc::clone(&ledger) as _, world.settings.clone());
    let begun = Instant::now();
    importer.pass(PassKind::Initial).await.unwrap();
    let waited = begun.elapsed() - 50 * append;
    assert!(
        waited < Duration::from_millis(100),
        "{waited:?} in which nothing was appended"
    );
    assert!(ledger.writes.load(Ordering::SeqCst) <= 50 + 10);
    assert!(ledger.reads.load(Ordering::SeqCst) <= 30, "{:?}", ledger.reads);
    world.assert_equal("many").await;
}

/// A source with few connections, each held by a stream until it was read to its end.
struct Few {
    near: Arc<DirectLink>,
    connections: Arc<Semaphore>,
}

#[async_trait]
impl SourceLink for Few {
    async fn folders(&self) -> Result<Vec<Folder>, LinkError> {
        self.near.folders().await
    }

    async fn listing(&self, folder: &FolderPath, token: Option<&[u8]>, fresh: bool) -> Result<OctetStream, LinkError> {
        let connection = Arc::clone(&self.connections).acquire_owned().await.unwrap();
        let stream = self.near.listing(folder, token, fresh).await?;
        Ok(stream
            .inspect(move |_| {
                let _ = &connection;
            })
            .boxed())
    }

    async fn items(&self, folder: &FolderPath, uid_validity: u32, uids: &UidSet) -> Result<OctetStream, LinkError> {
        let connection = Arc::clone(&self.connections).acquire_owned().await.unwrap();
        let stream = self.near.items(folder, uid_validity, uids).await?;
        Ok(stream
            .inspect(move |_| {
                let _ = &connection;
            })
            .boxed())
    }
}

/// Streams that were asked for ahead never keep a folder from going on, however few connections the source has: a stream
/// without progress would be given up after 60 seconds.
#[tokio::test(start_paused = true)]
async fn few_connections_are_enough() {
    for (connections, folders_at_once) in [(1, 1), (1, 4), (2, 1), (2, 4), (3, 2)] {
        let mut world = World::new(MemoryMailbox::new(), target(folders_at_once, 10));
        world.settings.memory_budget = 8 << 20;
        for folder in 0..12 {
            for number in 0..30 {
                let octets = vec![b'x'; if number % 7 == 0 { 400_000 } else { 90_000 }];
                world
                    .source
                    .deliver(&path(&format!("Folder {folder}")), octets, flags(&[]), number);
            }
        }
        world.source.deliver(&FolderPath::inbox(), "x", flags(&[]), 1);
        let link = Arc::new(Few {
            near: Arc::clone(&world.link),
            connections: Arc::new(Semaphore::new(connections)),
        });
        let slow = Slow::new(
            Arc::clone(&world.target),
            Duration::from_millis(20),
            Duration::ZERO,
            &Arc::default(),
        );
        let begun = Instant::now();
        let outcome = world.importer_over(link, slow).pass(PassKind::Initial).await.unwrap();
        assert_eq!(outcome.items_appended, 361);
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{connections} connections: {:?}",
            begun.elapsed()
        );
    }
}

/// However many folders wait for a slow target, what is held stays within the budget, and all folders get on.
#[tokio::test(start_paused = true)]
async fn what_is_held_is_bounded() {
    for (folders, folders_at_once) in [(1, 1), (8, 1), (8, 4), (30, 8)] {
        let mut world = World::new(MemoryMailbox::new(), target(folders_at_once, 20));
        world.settings.memory_budget = 4 << 20;
        for folder in 0..folders {
            for number in 0..(240 / folders) {
                let mut octets = format!("Subject: {number}\r\n\r\n").into_bytes();
                octets.resize(100_000, b'x');
                let folder = if folder == 0 {
                    FolderPath::inbox()
                } else {
                    path(&format!("Folder {folder}"))
                };
                world.source.deliver(&folder, octets, flags(&[]), number);
            }
        }
        let far = far(&world, ROUND_TRIP);
        let slow = Slow::new(
            Arc::clone(&world.target),
            Duration::from_millis(40),
            Duration::ZERO,
            &far.taken,
        );
        world
            .importer_over(far, slow.clone())
            .pass(PassKind::Initial)
            .await
            .unwrap();
        // Half of the budget for items, a MiB for folders whose turn is to come; frames, and a piece of 64 KiB for each folder on top.
        let limit = (3 << 20) + 240 * 200 + (folders_at_once as i64 + 4) * 2 * (64 << 10);
        let held = slow.most_held.load(Ordering::SeqCst);
        assert!(
            held <= limit,
            "{held} octets were held, {limit} are allowed, {folders} folders"
        );
        assert!(held > 1 << 20, "the budget is used: {held}");
        assert_eq!(
            slow.at_once.load(Ordering::SeqCst),
            folders_at_once.min(folders as usize) as u64
        );
        world.roots().await;
    }
}

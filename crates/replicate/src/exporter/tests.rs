//! What the exporter asks of a platform, and when it lets go of it.

use super::{ExportError, Exporter};
use crate::storage::{Change, ChunkKey, ChunkKind, ChunkStorage, StorageError};
use async_trait::async_trait;
use futures_util::{StreamExt, stream::BoxStream};
use rehome_mailbox::{
    Appended, Capabilities, ChangeToken, Folder, FolderPath, FolderRef, FolderStatus, Listing, Mailbox, MailboxError,
    NewFolder, NewItem, ReadEvent, Uid, memory::MemoryMailbox,
};
use rehome_wire::{flags::Flags, uid_set::UidSet};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use tokio::sync::Semaphore;

#[derive(Default)]
struct Chunks(Mutex<BTreeMap<ChunkKey, Vec<u8>>>);

#[async_trait]
impl ChunkStorage for Chunks {
    async fn get(&self, key: ChunkKey) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.0.lock().unwrap().get(&key).cloned())
    }

    async fn chunks(&self, kind: ChunkKind, folder: u32) -> Result<Vec<u32>, StorageError> {
        let chunks = self.0.lock().unwrap();
        let of = chunks.keys().filter(|key| key.kind == kind && key.folder == folder);
        Ok(of.map(|key| key.chunk).collect())
    }

    async fn write(&self, changes: Vec<Change>, _step: &'static str) -> Result<(), StorageError> {
        for (key, octets) in changes {
            match octets {
                Some(octets) => self.0.lock().unwrap().insert(key, octets),
                None => self.0.lock().unwrap().remove(&key),
            };
        }
        Ok(())
    }
}

/// A mailbox that writes down which folders are listed, whether since a token, and has few connections for reading.
struct Watched {
    held: MemoryMailbox,
    listed: Mutex<Vec<(String, bool)>>,
    connections: Arc<Semaphore>,
}

impl Watched {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            held: MemoryMailbox::new(),
            listed: Mutex::default(),
            connections: Arc::new(Semaphore::new(1)),
        })
    }

    fn deliver(&self, folder: &FolderPath, text: &str) -> Uid {
        self.held
            .deliver(folder, text.to_owned(), Flags::default(), 1_700_000_000)
    }

    fn take_listed(&self) -> Vec<(String, bool)> {
        let mut listed = std::mem::take(&mut *self.listed.lock().unwrap());
        listed.sort();
        listed
    }
}

#[async_trait]
impl Mailbox for Watched {
    fn capabilities(&self) -> Capabilities {
        self.held.capabilities()
    }

    async fn folders(&self) -> Result<Vec<Folder>, MailboxError> {
        self.held.folders().await
    }

    async fn list(&self, folder: &FolderPath, since: Option<&ChangeToken>) -> Result<Listing, MailboxError> {
        let asked = (folder.to_string(), since.is_some());
        self.listed.lock().unwrap().push(asked);
        self.held.list(folder, since).await
    }

    async fn read<'a>(
        &'a self,
        folder: FolderRef<'_>,
        uids: &[Uid],
    ) -> Result<BoxStream<'a, Result<ReadEvent, MailboxError>>, MailboxError> {
        let connection = Arc::clone(&self.connections).acquire_owned().await.unwrap();
        let events = self.held.read(folder, uids).await?;
        let held = move |event| {
            let _held = &connection;
            event
        };
        Ok(events.map(held).boxed())
    }

    async fn create_folder(&self, folder: &FolderPath, new: &NewFolder) -> Result<FolderStatus, MailboxError> {
        self.held.create_folder(folder, new).await
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

fn folder(name: &str) -> FolderPath {
    FolderPath(vec![name.to_owned()])
}

async fn validity(mailbox: &Watched, path: &FolderPath) -> u32 {
    mailbox.held.list(path, None).await.unwrap().status.uid_validity
}

#[tokio::test]
async fn a_root_asks_for_changes_only() {
    let mailbox = Watched::new();
    let (inbox, work) = (FolderPath::inbox(), folder("work"));
    for number in 0..20 {
        mailbox.deliver(&inbox, &format!("in {number}\r\n"));
        mailbox.deliver(&work, &format!("work {number}\r\n"));
    }
    let notes: Arc<dyn ChunkStorage> = Arc::<Chunks>::default();
    let exporter = Exporter::new(mailbox.clone(), Arc::clone(&notes));
    // A pass lists the folders; the root then knows them.
    for path in [&inbox, &work] {
        let mut frames = exporter.listing(path, None, false).await.unwrap();
        while frames.next().await.is_some() {}
    }
    mailbox.take_listed();
    let first = exporter.source_root(&[], true).await.unwrap();
    assert_eq!(mailbox.take_listed(), []);

    let new = mailbox.deliver(&work, "late\r\n");
    let uid_validity = validity(&mailbox, &work).await;
    let at = FolderRef::new(&work, uid_validity);
    mailbox.remove(at, &[3]).await.unwrap();
    mailbox
        .set_flags(at, &[(new, Flags::from_names(["\\Seen", "$Label"]))])
        .await
        .unwrap();
    let second = exporter.source_root(&[], true).await.unwrap();
    assert_eq!(mailbox.take_listed(), [("work".to_owned(), true)]);
    assert_ne!(first.root, second.root);
    assert_eq!(second.items, 40);

    // Opened anew, it still knows; a new process does not, and finds the same.
    let reopened = exporter.reopened(mailbox.clone());
    assert_eq!(reopened.source_root(&[], true).await.unwrap(), second);
    assert_eq!(mailbox.take_listed(), []);
    let restarted = Exporter::new(mailbox.clone(), notes);
    restarted.prepare_root().await;
    assert_eq!(
        mailbox.take_listed(),
        [("INBOX".to_owned(), false), ("work".to_owned(), false)]
    );
    assert_eq!(restarted.source_root(&[], true).await.unwrap(), second);
    assert_eq!(mailbox.take_listed(), []);

    // Another validity is another folder.
    mailbox.held.renumber(&work, 77);
    let third = restarted.source_root(&[], true).await.unwrap();
    assert_ne!(third.listing, second.listing);
    assert_eq!(
        third,
        Exporter::new(mailbox.clone(), Arc::<Chunks>::default())
            .source_root(&[], true)
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn a_stream_that_is_not_read_any_more_lets_the_connection_go() {
    let mailbox = Watched::new();
    let inbox = FolderPath::inbox();
    let text = "x".repeat(1_000_000);
    let uids: UidSet = (0..20).map(|_| mailbox.deliver(&inbox, &text)).collect();
    let uid_validity = validity(&mailbox, &inbox).await;
    let exporter = Exporter::new(mailbox.clone(), Arc::<Chunks>::default());

    let mut first = exporter.items(&inbox, uid_validity, &uids).await.unwrap();
    first.next().await.unwrap().unwrap();
    // The only connection is taken: the second has not begun, and gives its place up when nobody waits for it.
    let waiting = exporter.clone();
    let (path, asked) = (inbox.clone(), uids.clone());
    let second = tokio::spawn(async move { waiting.items(&path, uid_validity, &asked).await.map(|_| ()) });
    tokio::task::yield_now().await;
    assert!(!second.is_finished());
    second.abort();
    let third = exporter.items(&inbox, uid_validity, &uids);
    drop(first);
    let mut third = third.await.unwrap();
    let mut octets = 0;
    while let Some(piece) = third.next().await {
        octets += piece.unwrap().len();
    }
    assert!(octets > 20_000_000);
    let other = exporter.items(&inbox, uid_validity + 1, &uids).await.err().unwrap();
    assert!(matches!(other, ExportError::Mailbox(_)), "{other}");
    assert_eq!(other.link_error().id, "CommunicationErrorTransientException");
}

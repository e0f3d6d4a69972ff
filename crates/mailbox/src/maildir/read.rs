//! Streaming octets of items.
//!
//! Several threads read ahead, each its share of the uids by turns, and the stream takes from each in turn, so that the
//! order stays. What is read ahead is at most [`READERS`] times ([`AHEAD`] + 2) batches.

use super::error::broken_task;
use super::folder::{FolderDirectory, Found};
use super::item_name::flags_of;
use super::listing::{Settled, remembered, settle};
use super::validity::Validities;
use crate::{ErrorScope, FolderRef, ItemMeta, MailboxError, ReadEvent, Retry, Uid};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use std::io::Read;
use std::sync::Arc;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::task::JoinHandle;

/// Most octets of one piece.
const PIECE: usize = 64 * 1024;
/// Most threads that read for one stream.
const READERS: usize = 3;
/// Uids that a thread reads before the next thread's turn comes.
const TURN: usize = 16;
/// Octets that are handed over together; a piece more at most.
const BATCH: usize = 128 * 1024;
/// Batches of a thread that wait for the stream.
const AHEAD: usize = 1;
/// How often an item is looked for again when it was renamed just before it was opened.
const ATTEMPTS: usize = 5;

/// What travels to the reader.
pub(super) type Event = Result<ReadEvent, MailboxError>;

/// What a thread hands over.
struct Batch {
    events: Vec<Event>,
    after: After,
}

/// What comes after a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// More of the same turn.
    More,
    /// The next turn.
    Turn,
    /// Nothing: reading failed as a whole.
    Nothing,
}

/// The reader has gone away.
struct Abandoned;

/// What reading begins with.
pub(super) struct Start {
    folder: FolderDirectory,
    settled: Settled,
    /// The files were looked for just now.
    is_fresh: bool,
}

/// Opens a message file without following a link or waiting on a pipe.
pub(super) fn open_item(folder: &FolderDirectory, found: &Found) -> Result<std::fs::File, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::openat(folder.sub(found.sub), &found.name, flags, Mode::empty()).map(std::fs::File::from)
}

/// Looks up where the files of `uids` are; in the directories only if that is not remembered of all.
pub(super) fn start(
    folder: FolderDirectory,
    validities: &Validities,
    at: FolderRef<'_>,
    uids: &[Uid],
) -> Result<Start, MailboxError> {
    let remembered = remembered(&folder)?.filter(|settled| uids.iter().all(|uid| settled.present.get(*uid).is_some()));
    let is_fresh = remembered.is_none();
    let settled = match remembered {
        Some(settled) => settled,
        None => settle(&folder, validities)?,
    };
    at.check(settled.list.uid_validity)?;
    Ok(Start {
        folder,
        settled,
        is_fresh,
    })
}

/// Streams the items in order. An item that fails in the middle is answered by `Failed` after its octets so far.
pub(super) fn stream(start: Start, validities: Arc<Validities>, uids: Vec<Uid>) -> BoxStream<'static, Event> {
    let turns = uids.len().div_ceil(TURN);
    let readers = turns.min(READERS);
    let (start, uids) = (Arc::new(start), Arc::new(uids));
    let readers = (0..readers).map(|number| {
        let (sender, receiver) = tokio::sync::mpsc::channel(AHEAD);
        let (start, validities, uids) = (Arc::clone(&start), Arc::clone(&validities), Arc::clone(&uids));
        // The task ends with the stream: its next batch finds no receiver.
        let task = tokio::task::spawn_blocking(move || {
            let mut reader = Reader {
                folder: &start.folder,
                validities: &validities,
                settled: start.settled.clone(),
                is_fresh: start.is_fresh,
                sender,
                events: Vec::new(),
                octets: 0,
            };
            // When the stream has gone, nobody is left to hear of it.
            let _ = reader.read(uids.chunks(TURN).skip(number).step_by(readers));
        });
        (receiver, Some(task))
    });
    let turns = Turns {
        readers: readers.collect(),
        turn: 0,
        turns,
    };
    let batches = futures_util::stream::unfold(turns, |mut turns| async move {
        let events = turns.next().await?;
        Some((futures_util::stream::iter(events), turns))
    });
    batches.flatten().boxed()
}

/// The threads of a stream, and whose turn it is.
struct Turns {
    readers: Vec<(Receiver<Batch>, Option<JoinHandle<()>>)>,
    turn: usize,
    turns: usize,
}

impl Turns {
    async fn next(&mut self) -> Option<Vec<Event>> {
        if self.turn >= self.turns {
            return None;
        }
        let reader = self.turn % self.readers.len();
        let (receiver, task) = &mut self.readers[reader];
        let Some(batch) = receiver.recv().await else {
            // A task that broke off must not look like an answer to every uid.
            self.turn = self.turns;
            let error = task.take()?.await.err()?;
            return Some(vec![Err(broken_task("reading items", &error))]);
        };
        match batch.after {
            After::More => {}
            After::Turn => self.turn += 1,
            After::Nothing => self.turn = self.turns,
        }
        Some(batch.events)
    }
}

/// One thread's reading.
struct Reader<'a> {
    folder: &'a FolderDirectory,
    validities: &'a Validities,
    settled: Settled,
    is_fresh: bool,
    sender: Sender<Batch>,
    /// Read, not yet handed over.
    events: Vec<Event>,
    octets: usize,
}

impl Reader<'_> {
    fn read<'u>(&mut self, turns: impl Iterator<Item = &'u [Uid]>) -> Result<(), Abandoned> {
        let mut buffer = vec![0; PIECE];
        for turn in turns {
            for uid in turn {
                match self.open(*uid) {
                    Ok(Opened::Gone) => self.put(ReadEvent::Gone(*uid))?,
                    Ok(Opened::Failed(error)) => self.put(ReadEvent::Failed { uid: *uid, error })?,
                    Ok(Opened::Item(file, meta)) => self.item(file, meta, &mut buffer)?,
                    Err(error) => {
                        self.events.push(Err(error));
                        return self.hand_over(After::Nothing);
                    }
                }
            }
            self.hand_over(After::Turn)?;
        }
        Ok(())
    }

    fn hand_over(&mut self, after: After) -> Result<(), Abandoned> {
        self.octets = 0;
        let events = std::mem::take(&mut self.events);
        let batch = Batch { events, after };
        self.sender.blocking_send(batch).map_err(|_| Abandoned)
    }

    fn put(&mut self, event: ReadEvent) -> Result<(), Abandoned> {
        if let ReadEvent::Octets(piece) = &event {
            self.octets += piece.len();
        }
        self.events.push(Ok(event));
        if self.octets >= BATCH {
            self.hand_over(After::More)?;
        }
        Ok(())
    }

    fn open(&mut self, uid: Uid) -> Result<Opened, MailboxError> {
        for _ in 0..ATTEMPTS {
            match self.settled.found(uid) {
                Some(found) => match open_item(self.folder, &found) {
                    Ok(file) => return Ok(describe(self.folder, file, uid, &found, &self.settled)),
                    // Renamed by a change of flags, or gone: only a fresh look can tell.
                    Err(Errno::NOENT) => {}
                    Err(error) => return Ok(Opened::Failed(item_failed(self.folder, uid, error.into()))),
                },
                None if self.is_fresh => return Ok(Opened::Gone),
                None => {}
            }
            let fresh = settle(self.folder, self.validities)?;
            if fresh.list.uid_validity != self.settled.list.uid_validity {
                return Err(folder_renumbered(self.folder));
            }
            self.settled = fresh;
            self.is_fresh = true;
        }
        Err(MailboxError {
            what: format!("reading item {uid} of folder {}", self.folder.path),
            cause: "the file kept being renamed".to_owned(),
            scope: ErrorScope::Folder,
            retry: Retry::After(1),
        })
    }

    fn item(&mut self, mut file: std::fs::File, meta: ItemMeta, buffer: &mut [u8]) -> Result<(), Abandoned> {
        let uid = meta.uid;
        self.put(ReadEvent::Item(meta))?;
        loop {
            match file.read(buffer) {
                Ok(0) => return self.put(ReadEvent::End),
                Ok(count) => self.put(ReadEvent::Octets(Bytes::copy_from_slice(&buffer[..count])))?,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let error = item_failed(self.folder, uid, error);
                    return self.put(ReadEvent::Failed { uid, error });
                }
            }
        }
    }
}

enum Opened {
    Item(std::fs::File, ItemMeta),
    Gone,
    Failed(MailboxError),
}

fn folder_renumbered(folder: &FolderDirectory) -> MailboxError {
    MailboxError {
        what: format!("reading folder {}", folder.path),
        cause: "the folder's uids were given anew meanwhile".to_owned(),
        scope: ErrorScope::Folder,
        retry: Retry::Now,
    }
}

fn item_failed(folder: &FolderDirectory, uid: Uid, error: std::io::Error) -> MailboxError {
    let retry = super::error::classify(&error).1;
    MailboxError {
        what: format!("reading item {uid} of folder {}", folder.path),
        cause: error.to_string(),
        scope: ErrorScope::Item,
        retry,
    }
}

fn describe(folder: &FolderDirectory, file: std::fs::File, uid: Uid, found: &Found, settled: &Settled) -> Opened {
    let stat = match rustix::fs::fstat(&file) {
        Ok(stat) => stat,
        Err(error) => return Opened::Failed(item_failed(folder, uid, error.into())),
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        let error = std::io::Error::new(std::io::ErrorKind::InvalidData, "not a file");
        return Opened::Failed(item_failed(folder, uid, error));
    }
    let meta = ItemMeta {
        uid,
        flags: flags_of(&found.name, &settled.keywords),
        received: stat.st_mtime,
        length_hint: u64::try_from(stat.st_size).ok(),
    };
    Opened::Item(file, meta)
}

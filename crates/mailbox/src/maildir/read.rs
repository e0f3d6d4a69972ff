//! Streaming octets of items.

use super::folder::{FolderDirectory, Found};
use super::item_name::flags_of;
use super::listing::{Settled, settle};
use super::validity::Validities;
use crate::{ErrorScope, ItemMeta, MailboxError, ReadEvent, Retry, Uid};
use bytes::Bytes;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use std::io::Read;
use tokio::sync::mpsc::Sender;

/// Most octets of one piece.
const PIECE: usize = 64 * 1024;
/// How often an item is looked for again when it was renamed just before it was opened.
const ATTEMPTS: usize = 5;

/// What travels to the reader.
pub(super) type Event = Result<ReadEvent, MailboxError>;

/// The reader has gone away.
struct Abandoned;

/// Opens a message file without following a link or waiting on a pipe.
pub(super) fn open_item(folder: &FolderDirectory, found: &Found) -> Result<std::fs::File, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::openat(folder.sub(found.sub), &found.name, flags, Mode::empty()).map(std::fs::File::from)
}

/// Sends the items in order until all are answered or the reader is gone. An item that fails in the middle is
/// answered by `Failed` after its octets so far.
pub(super) fn read(folder: &FolderDirectory, validities: &Validities, uids: &[Uid], sender: &Sender<Event>) {
    let send = |event: Event| sender.blocking_send(event).map_err(|_| Abandoned);
    let mut settled = match settle(folder, validities) {
        Ok(settled) => settled,
        Err(error) => {
            // Nobody is left to hear of it when this fails too.
            let _ = send(Err(error));
            return;
        }
    };
    let mut buffer = vec![0; PIECE];
    for uid in uids {
        let opened = match open(folder, validities, &mut settled, *uid) {
            Ok(opened) => opened,
            Err(error) => {
                let _ = send(Err(error));
                return;
            }
        };
        let sent = match opened {
            Opened::Gone => send(Ok(ReadEvent::Gone(*uid))),
            Opened::Failed(error) => send(Ok(ReadEvent::Failed { uid: *uid, error })),
            Opened::Item(file, meta) => stream(folder, file, meta, &mut buffer, &send),
        };
        if sent.is_err() {
            return;
        }
    }
}

enum Opened {
    Item(std::fs::File, ItemMeta),
    Gone,
    Failed(MailboxError),
}

fn open(
    folder: &FolderDirectory,
    validities: &Validities,
    settled: &mut Settled,
    uid: Uid,
) -> Result<Opened, MailboxError> {
    for _ in 0..ATTEMPTS {
        let Some(found) = settled.present.get(&uid) else {
            return Ok(Opened::Gone);
        };
        match open_item(folder, found) {
            Ok(file) => return Ok(describe(folder, file, uid, found, settled)),
            Err(Errno::NOENT) => {
                // Renamed by a change of flags, or gone: only a fresh look can tell.
                let fresh = settle(folder, validities)?;
                if fresh.list.uid_validity != settled.list.uid_validity {
                    return Err(folder_renumbered(folder));
                }
                *settled = fresh;
            }
            Err(error) => return Ok(Opened::Failed(item_failed(folder, uid, error.into()))),
        }
    }
    Err(MailboxError {
        what: format!("reading item {uid} of folder {}", folder.path),
        cause: "the file kept being renamed".to_owned(),
        scope: ErrorScope::Folder,
        retry: Retry::After(1),
    })
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

fn stream(
    folder: &FolderDirectory,
    mut file: std::fs::File,
    meta: ItemMeta,
    buffer: &mut [u8],
    send: &dyn Fn(Event) -> Result<(), Abandoned>,
) -> Result<(), Abandoned> {
    let uid = meta.uid;
    send(Ok(ReadEvent::Item(meta)))?;
    loop {
        match file.read(buffer) {
            Ok(0) => return send(Ok(ReadEvent::End)),
            Ok(count) => send(Ok(ReadEvent::Octets(Bytes::copy_from_slice(&buffer[..count]))))?,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                return send(Ok(ReadEvent::Failed {
                    uid,
                    error: item_failed(folder, uid, error),
                }));
            }
        }
    }
}

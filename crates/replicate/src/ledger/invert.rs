//! The ledger read the other way: what of a mailbox that came here is what of it at the old source.

use super::{FolderState, Ledger, LedgerError, ReadBack};
use crate::storage::ChunkStorage;
use rehome_mailbox::FolderPath;
use rehome_wire::digest::Digest;
use std::sync::Arc;

/// Most folders in one page of pairs.
const PAGE_FOLDERS: usize = 500;
/// Octets of paths at which a page ends.
const PAGE_PATHS: usize = 1 << 20;

/// One item on both sides of a move that was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Its uid where the mailbox is now.
    pub uid: u32,
    /// Its uid where the mailbox was.
    pub origin: u32,
    /// Canonical length.
    pub length: u64,
    /// Canonical digest.
    pub digest: Digest,
    /// Its received time where the mailbox was, when it left.
    pub received: i64,
}

/// Pairs of one folder, or of a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairedFolder {
    /// Its path where the mailbox is now, as last synced.
    pub path: FolderPath,
    /// Its UIDVALIDITY there.
    pub uid_validity: u32,
    /// Its path where the mailbox was.
    pub origin_path: FolderPath,
    /// Its UIDVALIDITY there.
    pub origin_uid_validity: u32,
    /// The items.
    pub pairs: Vec<Pair>,
}

/// Where the next page of pairs begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairsFrom {
    /// A folder's number in the ledger.
    pub folder: u32,
    /// A chunk of its records.
    pub chunk: u32,
}

/// A page of pairs. The parts of a folder follow each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PairsPage {
    /// The folders.
    pub folders: Vec<PairedFolder>,
    /// Where the next page begins, if there is one.
    pub next: Option<PairsFrom>,
}

/// The pairs of a move's ledger from a place on, about `most` of them and a chunk more. Items that were not read back
/// as they were sent are left out.
///
/// # Errors
/// [`LedgerError`].
pub async fn pairs_page(ledger: Arc<dyn ChunkStorage>, from: PairsFrom, most: usize) -> Result<PairsPage, LedgerError> {
    let ledger = Ledger::load(ledger).await?;
    let mut page = PairsPage::default();
    let (mut items, mut paths) = (0, 0);
    for entry in ledger.folders() {
        if entry.number < from.folder || entry.state != FolderState::Active {
            continue;
        }
        let first = if entry.number == from.folder { from.chunk } else { 0 };
        if items >= most || page.folders.len() >= PAGE_FOLDERS || paths >= PAGE_PATHS {
            page.next = Some(PairsFrom {
                folder: entry.number,
                chunk: first,
            });
            return Ok(page);
        }
        let map = ledger.map(entry.number).await?;
        let mut folder = PairedFolder {
            path: entry.target_path.clone(),
            uid_validity: entry.target_validity,
            origin_path: entry.source_path.clone(),
            origin_uid_validity: entry.source_validity,
            pairs: Vec::new(),
        };
        paths += [&folder.path, &folder.origin_path]
            .iter()
            .flat_map(|path| path.0.iter().map(String::len))
            .sum::<usize>();
        let chunks = ledger.record_chunks(entry.number).await?;
        for chunk in chunks.into_iter().filter(|chunk| *chunk >= first) {
            if items >= most {
                page.folders.push(folder);
                page.next = Some(PairsFrom {
                    folder: entry.number,
                    chunk,
                });
                return Ok(page);
            }
            let records = ledger.records(entry.number, chunk).await?;
            items += records.len();
            let equal = records.into_iter().filter(|record| record.read_back == ReadBack::Equal);
            folder.pairs.extend(equal.filter_map(|record| {
                Some(Pair {
                    uid: map.get(record.uid)?,
                    origin: record.uid,
                    length: record.length,
                    digest: record.digest,
                    received: record.received,
                })
            }));
        }
        page.folders.push(folder);
    }
    Ok(page)
}

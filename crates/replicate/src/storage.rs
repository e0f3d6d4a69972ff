//! Where ledger and notes are kept: opaque chunks under numbered keys.

use async_trait::async_trait;

/// What a chunk holds. The numbers are stored and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ChunkKind {
    /// Ledger: folders by number, 64 a chunk.
    Folders = 1,
    /// Ledger: item records of a folder, by uid / 4096.
    Records = 2,
    /// Ledger: source uid → target uid of a folder, one chunk.
    Map = 3,
    /// Ledger: open intent and suspect windows; the chunk's number is the folder's, `folder` is 0.
    Intent = 4,
    /// Ledger: what is reported about items of a folder, by uid / 4096.
    Report = 5,
    /// Exporter's notes: folders by number, 64 a chunk.
    NoteFolders = 6,
    /// Exporter's notes: digests served, by uid / 4096; from 2^20 on the uids behind the last root.
    Notes = 7,
}

impl ChunkKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Folders,
        Self::Records,
        Self::Map,
        Self::Intent,
        Self::Report,
        Self::NoteFolders,
        Self::Notes,
    ];

    /// The stored number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// Names one chunk of one move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkKey {
    /// What it holds.
    pub kind: ChunkKind,
    /// The folder's number, or 0 where the kind says so.
    pub folder: u32,
    /// Which chunk.
    pub chunk: u32,
}

/// One change of a write: the chunk's new octets, or none to remove it.
pub type Change = (ChunkKey, Option<Vec<u8>>);

/// Durable storage of one move's chunks. Implementers call `rehome_fault::step` with the `step` of a write right after it.
#[async_trait]
pub trait ChunkStorage: Send + Sync {
    /// The chunk's octets; none when it was never written or was removed.
    ///
    /// # Errors
    /// [`StorageError`].
    async fn get(&self, key: ChunkKey) -> Result<Option<Vec<u8>>, StorageError>;

    /// The numbers of the chunks that exist, ascending.
    ///
    /// # Errors
    /// [`StorageError`].
    async fn chunks(&self, kind: ChunkKind, folder: u32) -> Result<Vec<u32>, StorageError>;

    /// Makes all changes or none; they are durable when it returns. Each key occurs once; removing what is not there is
    /// success. `step` names the write (`replicate.…`).
    ///
    /// # Errors
    /// [`StorageError`]; nothing was changed, or, with `Failed`, it is unknown whether all was.
    async fn write(&self, changes: Vec<Change>, step: &'static str) -> Result<(), StorageError>;
}

/// Why storage did not do what was asked.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum StorageError {
    /// Another worker has the lease; this one must stop at once.
    #[error("another worker holds the lease")]
    Stale,
    /// Reading or writing failed.
    #[error("the ledger's storage failed: {message}")]
    Failed {
        /// What happened.
        message: String,
    },
}

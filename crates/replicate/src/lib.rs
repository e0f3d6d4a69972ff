//! Moves the contents of one mailbox: compares, keeps the ledger and its intents, pulls, appends, recovers and verifies.
//!
//! The [`Exporter`] stands behind the source's proxy, notes what it serves and makes the source's root. The
//! [`Importer`] stands in the target's mover, pulls through a [`SourceLink`], appends under intents and makes the
//! target's root. Both keep their state as opaque chunks in a [`ChunkStorage`].
//!
//! Never: know batches, tenants or cmdlets; know a database or HTTP; parse what it moves.

mod codec;
pub mod compare;
pub mod error;
pub mod exporter;
pub mod importer;
pub mod ledger;
pub mod link;
pub mod notes;
pub mod proof;
mod reading;
pub mod receipt;
#[cfg(test)]
mod repeatable;
pub mod report;
mod returning;
pub mod storage;

pub use error::PassError;
pub use exporter::{ExportError, Exporter, RootListing, SourceRoot};
pub use importer::{
    ImportSettings, Importer, PassKind, PassOutcome, Progress, SkippedItems, SweepOutcome, TargetRoot, report_of,
};
pub use ledger::{Pair, PairedFolder, PairsFrom, PairsPage, pairs_page};
pub use link::{LinkError, OctetStream, SourceLink, SweepFolder};
pub use proof::{Exception, ExceptionKind, Held};
pub use report::{Heading, OtherName, Report, ReportClass, ReportItem, ReportKind, Side};
pub use returning::{Kept, PairSource, begin_return};
pub use storage::{Change, ChunkKey, ChunkKind, ChunkStorage, StorageError};

// What the link speaks of, for those who carry it and may not know `mailbox`.
pub use rehome_mailbox::{ErrorScope, Folder, FolderPath, Retry};

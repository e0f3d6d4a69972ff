//! The replication frames: listings and bodies as CBOR sequences (RFC 8742).
//!
//! Each frame is one CBOR array of definite length whose first element is the frame's kind. Kinds from
//! [`FIRST_SKIPPABLE_KIND`] on are skipped by readers that do not know them, and elements behind the known ones are
//! ignored, so that later versions can add. Every bound is checked before memory is used for it.
//!
//! [`FrameDecoder`] makes frames from octets, [`BodyStreamCheck`] and [`ListingCheck`] decide whether their order and
//! contents keep the protocol's promises.

mod body;
mod codec;
mod listing;
mod scanner;

use bytes::Bytes;

use crate::digest::Digest;
use crate::flags::Flags;
use crate::uid_set::UidSet;

pub use body::{BodyEvent, BodyStreamCheck, BodyStreamError};
pub use codec::{FrameDecoder, FrameError, encode, encode_chunk_head};
pub use listing::{ListingCheck, ListingError, ListingEvent};

/// Most items that one request for bodies names.
pub const MAX_BODY_REQUEST_ITEMS: usize = 1_000;
/// Largest frame, in octets.
pub const MAX_FRAME: usize = 128 * 1024;
/// Largest content of a chunk frame, in octets.
pub const MAX_CHUNK: usize = 64 * 1024;
/// Longest text in a frame, and longest token, in octets.
pub const MAX_TEXT: usize = 4 * 1024;
/// Most ranges in one frame of vanished or present uids.
pub const MAX_VANISHED_RANGES: usize = 8_000;
/// Most ranges of vanished or present uids in one listing. A source that would need more sends a full listing.
pub const MAX_LISTING_RANGES: usize = 1 << 20;
/// Frames of this kind and above are skipped by readers that do not know them.
pub const FIRST_SKIPPABLE_KIND: u64 = 16;

/// The media type of both streams.
pub const MEDIA_TYPE: &str = "application/cbor-seq";

/// One frame of a listing or of a body stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Kind 0: the first frame of a listing.
    Head(ListingHead),
    /// Kind 1: an item of a listing.
    ListedItem(ListedItem),
    /// Kind 2: uids that are gone since the token of the request.
    Vanished(UidSet),
    /// Kind 3: begins an item of a body stream.
    Item(ItemHeader),
    /// Kind 4: the next octets of the item's canonical form, 1 to [`MAX_CHUNK`] of them.
    Chunk(Bytes),
    /// Kind 5: ends an item of a body stream.
    Trailer(ItemTrailer),
    /// Kind 6: the uid asked for is not there any more.
    Gone {
        /// The uid asked for.
        uid: u32,
    },
    /// Kind 7: the uid asked for could not be read.
    Failed(ItemFailure),
    /// Kind 8: every uid that is there now, where the platform does not say what vanished since the token.
    Present(UidSet),
    /// Kind 9: the last frame of a listing.
    ListingEnd {
        /// How many items were listed.
        items: u64,
        /// How many uids were named as vanished.
        vanished: u64,
    },
    /// Kind 10: the last frame of a body stream.
    BodyEnd {
        /// How many uids were answered by an item.
        items: u64,
        /// How many uids were answered by *gone*.
        gone: u64,
        /// How many uids were answered by *failed*.
        failed: u64,
    },
}

/// What a listing says about its folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListingHead {
    /// The folder's UIDVALIDITY.
    pub validity: u32,
    /// The folder's UIDNEXT, read before the items.
    pub uid_next: u32,
    /// How many items the server counts in the folder.
    pub exists: u32,
    /// The folder's HIGHESTMODSEQ, where the platform numbers changes.
    pub mod_seq: Option<u64>,
    /// What to send with the next request to hear only of changes, at most [`MAX_TEXT`] octets; opaque.
    pub token: Option<Bytes>,
    /// Whether all items follow, or changes only.
    pub kind: ListingKind,
}

/// What the items of a listing are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListingKind {
    /// Every item of the folder; on the wire 0.
    Full,
    /// What is new, changed or vanished since the token of the request; on the wire 1.
    Changes,
}

/// An item as a listing names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedItem {
    /// The item's uid.
    pub uid: u32,
    /// The item's flags.
    pub flags: Flags,
    /// Received time, in whole seconds since 1970-01-01 UTC.
    pub received: i64,
    /// The length in octets where the platform knows it without reading the item: a hint, never compared.
    pub length: Option<u64>,
}

/// What stands before an item's octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemHeader {
    /// The item's uid.
    pub uid: u32,
    /// The item's flags.
    pub flags: Flags,
    /// Received time, in whole seconds since 1970-01-01 UTC.
    pub received: i64,
    /// The length in octets if it is known already: a hint; the one that is checked stands in the trailer.
    pub length: Option<u64>,
}

/// What stands behind an item's octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemTrailer {
    /// Length of the canonical form, in octets.
    pub length: u64,
    /// Digest of the canonical form.
    pub digest: Digest,
    /// True when the source's raw octets differed from the canonical form.
    pub line_ends_only: bool,
}

/// Why a uid asked for was answered without an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemFailure {
    /// The uid asked for.
    pub uid: u32,
    /// How far the failure reaches.
    pub class: FailureClass,
    /// What happened, for people; at most [`MAX_TEXT`] octets.
    pub text: String,
}

/// How far a failure reaches: what the reader abandons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureClass {
    /// This item only; on the wire 0.
    Item,
    /// Its folder; on the wire 1.
    Folder,
    /// The mailbox; on the wire 2.
    Mailbox,
    /// The whole endpoint; on the wire 3.
    Endpoint,
}

impl Frame {
    /// The frame's kind as messages name it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Head(_) => "head",
            Self::ListedItem(_) => "listed item",
            Self::Vanished(_) => "vanished",
            Self::Item(_) => "item header",
            Self::Chunk(_) => "chunk",
            Self::Trailer(_) => "trailer",
            Self::Gone { .. } => "gone",
            Self::Failed(_) => "failed",
            Self::Present(_) => "present",
            Self::ListingEnd { .. } => "end of listing",
            Self::BodyEnd { .. } => "end of bodies",
        }
    }
}

#[cfg(test)]
mod tests;

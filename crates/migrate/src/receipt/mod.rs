//! The receipt of a finished move: what both organisations sign, how it is kept, written out and checked.
//!
//! A receipt is made of what Prepare compared: every item's leaf, the roots over them, the exceptions. The source keeps the
//! leaves of its own root when it promises, the target those of its ledger when Commit was answered and before any sweep.
//! What a later sweep brings is an addition with a number, a root and a statement of its own, signed by the target alone.
//! Receipts outlive users, batches and attempts.

mod keep;
mod look_up;
mod verify;

#[cfg(test)]
mod tests;

pub use keep::{ReceiptFailure, Receipts};
pub use look_up::{Chunk, FoundMessage, Summary};
pub use rehome_replicate::receipt::{Comparison, Difference, Expected, compare};
pub use verify::{
    Contents, SectionVerdict, SingleVerdict, StatementVerdict, Verdict, VerifyError, is_single, verify, verify_single,
};

pub(crate) use keep::{Parts, accounted};

use crate::protocol::ExceptionBody;
use bytes::BytesMut;
use rehome_wire::{
    canonical::Canonicalizer,
    digest::Digester,
    receipt::{MAX_REASON, ReceiptException},
};
use serde::{Deserialize, Serialize};
use std::io::Read;

// What a receipt speaks of, for those who may not know `wire`.
pub use rehome_wire::{
    digest::Digest,
    receipt::{SingleEntry, SingleFinder, SingleProof},
};

/// The version of [`ReceiptBody`].
pub const BODY_FORMAT: u32 = 1;

/// What a statement (`rehome-receipt+jwt`) says in its claim `receipt`. Frozen: fields are added, never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptBody {
    /// [`BODY_FORMAT`].
    pub format: u32,
    /// `source` or `target`: on which side the signing tenant was.
    pub side: String,
    /// 0 for the receipt, 1 and above for what later sweeps brought.
    pub number: u32,
    /// How the mailbox was called at the signing tenant.
    pub address: String,
    /// The signing tenant's first domain.
    pub organisation: String,
    /// The mailbox root, 64 hex digits.
    pub root: String,
    /// The root over the exceptions, 64 hex digits.
    pub exceptions_root: String,
    /// Folders.
    pub folders: u64,
    /// Items.
    pub items: u64,
    /// Canonical octets of the items.
    pub octets: u64,
    /// How many items are not on the target as they were at the source, by kind.
    pub exceptions: ExceptionCounts,
    /// `locked` or `not locked`: whether the signing tenant's platform kept its users out during the cutover.
    pub platform: String,
    /// When the signing tenant's part was made, milliseconds since 1970: committed, or swept.
    pub made: i64,
    /// Times of the cutover on the signing tenant's clock.
    pub times: CutoverTimes,
    /// The program that signed.
    pub tool: String,
}

/// Exceptions by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExceptionCounts {
    /// Items that were left behind.
    pub skipped: u64,
    /// Items whose octets differ.
    pub altered: u64,
    /// Items whose flags differ.
    pub flags: u64,
    /// Items whose received time differs.
    pub date: u64,
}

impl ExceptionCounts {
    fn of(exceptions: &[ReceiptException]) -> Self {
        let mut counts = Self::default();
        for exception in exceptions {
            match exception.kind.as_str() {
                "skipped" => counts.skipped += 1,
                "altered" => counts.altered += 1,
                "flags" => counts.flags += 1,
                _ => counts.date += 1,
            }
        }
        counts
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.skipped + self.altered + self.flags + self.date
    }
}

/// Times of a cutover, milliseconds since 1970; what one side does not know is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutoverTimes {
    /// When the target began it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<i64>,
    /// When the source locked the mailbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked: Option<i64>,
    /// When the source promised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared: Option<i64>,
    /// When the target decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<i64>,
    /// When the source committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed: Option<i64>,
    /// From locked to committed, on the source's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_milliseconds: Option<u64>,
}

/// A reason as both sides write it: at most [`MAX_REASON`] octets, without control characters.
#[must_use]
pub fn bounded_reason(reason: &str) -> String {
    let text: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text[..text.floor_char_boundary(MAX_REASON)].to_owned()
}

/// The digest by which a message stands in receipts: that of its canonical form, so that line ends do not matter. What is
/// read is not held.
///
/// # Errors
/// As reading.
pub fn digest_of_message(message: &mut dyn Read) -> std::io::Result<Digest> {
    let (mut canonicalizer, mut digester) = (Canonicalizer::new(), Digester::new());
    let (mut piece, mut out) = (vec![0; 64 * 1024], BytesMut::new());
    loop {
        let length = message.read(&mut piece)?;
        if length == 0 {
            break;
        }
        canonicalizer.push(&piece[..length], &mut out);
        digester.update(&out.split());
    }
    canonicalizer.finish(&mut out);
    digester.update(&out);
    Ok(digester.finish())
}

/// The exceptions of a receipt from what Prepare carried; none where that cannot be read.
pub(crate) fn exceptions_of(json: &str) -> Option<Vec<ReceiptException>> {
    let bodies: Vec<ExceptionBody> = serde_json::from_str(json).ok()?;
    let exceptions = bodies.into_iter().map(|body| {
        let held = body.read()?.held;
        Some(ReceiptException {
            path: body.folder,
            uid: body.uid,
            kind: body.kind,
            held_length: held.length,
            held_digest: held.digest,
            held_flags: held.flags,
            held_received: held.received,
            reason: body.reason.as_deref().map(bounded_reason),
        })
    });
    exceptions.collect()
}

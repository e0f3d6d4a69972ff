//! Entrances for the fuzz targets alone: what a partner's compressed octets go through.

use crate::compression::{self, Decompressor};
use bytes::Bytes;

/// A whole compressed text of at most `limit` octets; none where it is longer.
///
/// # Errors
/// As for a partner's answer.
pub fn undo_whole(octets: &[u8], limit: usize) -> std::io::Result<Option<Bytes>> {
    compression::undo_whole(Bytes::copy_from_slice(octets), limit)
}

/// A compressed stream that comes in these pieces, until `limit` octets came out, it ends, or it is refused. Returns
/// how many octets came out.
///
/// # Panics
/// When a step gives more than the 64 KiB that a step may.
pub fn undo_stream(pieces: &[&[u8]], limit: usize) -> usize {
    let mut out = 0;
    let Ok(mut decompressor) = Decompressor::new() else {
        return 0;
    };
    for piece in pieces {
        decompressor.push(Bytes::copy_from_slice(piece));
        loop {
            match decompressor.next() {
                Ok(Some(step)) => {
                    assert!(step.len() <= 64 * 1024, "a step of {} octets", step.len());
                    out += step.len();
                    if out > limit {
                        return out;
                    }
                }
                Ok(None) => break,
                Err(_) => return out,
            }
        }
    }
    out
}

//! Finds where a frame ends, without reading any octet twice.

use super::MAX_FRAME;
use super::codec::FrameError;

/// Deepest nesting of arrays, maps and tags in a frame.
const MAX_DEPTH: usize = 8;

/// Walks over one CBOR item that arrives in pieces. Values are skipped, not looked at, so a frame costs time in
/// proportion to its length however small its pieces are.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// Octets of the frame that were walked over.
    at: usize,
    /// How many items each open array still lacks, outermost first.
    open: Vec<u64>,
}

impl Scanner {
    /// The frame's length once all of it is in `octets`, which always begin where the frame begins. The scanner is
    /// then ready for the next frame.
    pub(super) fn scan(&mut self, octets: &[u8]) -> Result<Option<usize>, FrameError> {
        loop {
            let Some((major, argument, head)) = read_head(&octets[self.at..])? else {
                return Ok(None);
            };
            if self.open.is_empty() && major != 4 {
                return Err(FrameError::Malformed("a frame is an array"));
            }
            let content = match major {
                2 | 3 => usize::try_from(argument).unwrap_or(usize::MAX),
                0 | 1 | 4..=7 => 0,
                8.. => unreachable!("a major type has three bits"),
            };
            let end = self.at.saturating_add(head).saturating_add(content);
            if end > MAX_FRAME {
                return Err(FrameError::TooLarge);
            }
            if end > octets.len() {
                return Ok(None);
            }
            self.at = end;
            self.enter(major, argument)?;
            if self.leave() {
                return Ok(Some(std::mem::take(&mut self.at)));
            }
        }
    }

    /// Opens what contains items, or counts a finished item. A container's items are counted as one more than it has,
    /// so that an empty one is finished by the same step as any other.
    fn enter(&mut self, major: u8, argument: u64) -> Result<(), FrameError> {
        let items = match major {
            4 => argument,
            5 => argument.saturating_mul(2),
            6 => 1,
            0..=3 | 7.. => return Ok(()),
        };
        // An item has at least one octet.
        if items > MAX_FRAME as u64 {
            return Err(FrameError::TooLarge);
        }
        if self.open.len() == MAX_DEPTH {
            return Err(FrameError::Malformed("a frame is nested too deeply"));
        }
        self.open.push(items + 1);
        Ok(())
    }

    /// Counts one step in the innermost container and closes what is full; true when the frame is complete.
    fn leave(&mut self) -> bool {
        while let Some(left) = self.open.last_mut() {
            *left -= 1;
            if *left > 0 {
                return false;
            }
            self.open.pop();
        }
        true
    }
}

/// Major type, argument and length of an item's head, if all of it is there.
fn read_head(octets: &[u8]) -> Result<Option<(u8, u64, usize)>, FrameError> {
    let Some(first) = octets.first() else {
        return Ok(None);
    };
    let extra = match first & 0x1f {
        0..=23 => return Ok(Some((first >> 5, u64::from(first & 0x1f), 1))),
        info @ 24..=27 => 1usize << (info - 24),
        31 => return Err(FrameError::Malformed("a frame has definite lengths only")),
        28.. => return Err(FrameError::Malformed("reserved additional information")),
    };
    Ok(octets.get(1..=extra).map(|octets| {
        let argument = octets.iter().fold(0, |sum, octet| sum << 8 | u64::from(*octet));
        (first >> 5, argument, 1 + extra)
    }))
}

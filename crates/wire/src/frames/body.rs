//! Whether a body stream keeps its promises.

use bytes::Bytes;

use super::{Frame, ItemFailure, ItemHeader, ItemTrailer};
use crate::digest::{Digest, Digester};
use crate::uid_set::UidSet;

/// What the reader of a body stream may act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyEvent {
    /// An item begins. Nothing of it may be used before its [`ItemDone`](Self::ItemDone).
    ItemStart(ItemHeader),
    /// The next octets of the item.
    Octets(Bytes),
    /// The item is complete, and its length and digest are those that the trailer names.
    ItemDone {
        /// The item's uid.
        uid: u32,
        /// Length of the canonical form, in octets.
        length: u64,
        /// Digest of the canonical form, computed here.
        digest: Digest,
        /// True when the source's raw octets differed from the canonical form.
        line_ends_only: bool,
    },
    /// The uid is not there any more; to be believed only if the next listing agrees.
    Gone {
        /// The uid asked for.
        uid: u32,
    },
    /// The uid could not be read.
    Failed(ItemFailure),
    /// Every uid was answered and the counts agree.
    End {
        /// Uids answered by an item.
        items: u64,
        /// Uids answered by *gone*.
        gone: u64,
        /// Uids answered by *failed*.
        failed: u64,
    },
}

/// How a body stream breaks the protocol.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum BodyStreamError {
    /// A frame that may not stand here.
    #[error("the frame \"{frame}\" may not stand here in a body stream")]
    OutOfOrder {
        /// The frame's name.
        frame: &'static str,
    },
    /// A uid that was not asked for, or was answered before.
    #[error("uid {uid} was not asked for, or was answered already")]
    NotAsked {
        /// The uid.
        uid: u32,
    },
    /// The octets of an item are not as many as its trailer says. The stream may be read on; the item is not used.
    #[error("uid {uid}: {received} octets arrived, the trailer says {announced}")]
    LengthMismatch {
        /// The item's uid.
        uid: u32,
        /// The trailer's length.
        announced: u64,
        /// Octets that arrived.
        received: u64,
    },
    /// The octets of an item do not have the trailer's digest. The stream may be read on; the item is not used.
    #[error("uid {uid}: the octets have digest {computed}, the trailer says {announced}")]
    DigestMismatch {
        /// The item's uid.
        uid: u32,
        /// The trailer's digest.
        announced: Digest,
        /// The digest of what arrived.
        computed: Digest,
    },
    /// The end frame came before every uid was answered.
    #[error("the stream ended without an answer for {count} uids, the first is {first}")]
    Unanswered {
        /// How many uids have no answer.
        count: usize,
        /// The lowest of them.
        first: u32,
    },
    /// The end frame's counts are not those of the stream.
    #[error("the end frame's counts are not those of the stream")]
    Counts,
    /// The stream stopped without an end frame: nothing is known about uids without an answer.
    #[error("the stream stopped without an end frame")]
    NoEnd,
}

impl BodyStreamError {
    /// The uid of the one item that the error spoils; none when it spoils the stream.
    pub fn spoilt_item(&self) -> Option<u32> {
        match self {
            Self::LengthMismatch { uid, .. } | Self::DigestMismatch { uid, .. } => Some(*uid),
            Self::OutOfOrder { .. } | Self::NotAsked { .. } | Self::Unanswered { .. } | Self::Counts | Self::NoEnd => {
                None
            }
        }
    }
}

#[derive(Debug)]
enum State {
    Between,
    InItem {
        uid: u32,
        length: u64,
        digester: Box<Digester>,
    },
    Ended,
}

/// Enforces the order of a body stream, one answer for each uid asked, and every length and digest.
#[derive(Debug)]
pub struct BodyStreamCheck {
    asked: UidSet,
    answered: UidSet,
    state: State,
    items: u64,
    gone: u64,
    failed: u64,
}

impl BodyStreamCheck {
    /// A check of the answer to a request for `asked`.
    pub fn new(asked: UidSet) -> Self {
        Self {
            asked,
            answered: UidSet::new(),
            state: State::Between,
            items: 0,
            gone: 0,
            failed: 0,
        }
    }

    /// Takes the next frame. After an error for which [`spoilt_item`](BodyStreamError::spoilt_item) is none, the
    /// stream is worthless and is given up.
    pub fn accept(&mut self, frame: Frame) -> Result<BodyEvent, BodyStreamError> {
        let state = std::mem::replace(&mut self.state, State::Between);
        match (state, frame) {
            (State::Between, Frame::Item(header)) => {
                self.answer(header.uid)?;
                self.items += 1;
                self.state = State::InItem {
                    uid: header.uid,
                    length: 0,
                    digester: Box::default(),
                };
                Ok(BodyEvent::ItemStart(header))
            }
            (
                State::InItem {
                    uid,
                    length,
                    mut digester,
                },
                Frame::Chunk(octets),
            ) => {
                digester.update(&octets);
                self.state = State::InItem {
                    uid,
                    length: length + octets.len() as u64,
                    digester,
                };
                Ok(BodyEvent::Octets(octets))
            }
            (State::InItem { uid, length, digester }, Frame::Trailer(trailer)) => {
                check_item(uid, length, digester.finish(), trailer)
            }
            (State::Between, Frame::Gone { uid }) => {
                self.answer(uid)?;
                self.gone += 1;
                Ok(BodyEvent::Gone { uid })
            }
            (State::Between, Frame::Failed(failure)) => {
                self.answer(failure.uid)?;
                self.failed += 1;
                Ok(BodyEvent::Failed(failure))
            }
            (State::Between, Frame::BodyEnd { items, gone, failed }) => self.end(items, gone, failed),
            (state, frame) => {
                self.state = state;
                Err(BodyStreamError::OutOfOrder { frame: frame.name() })
            }
        }
    }

    /// Ends the stream: an error unless its end frame was seen.
    pub fn finish(self) -> Result<(), BodyStreamError> {
        match self.state {
            State::Ended => Ok(()),
            State::Between | State::InItem { .. } => Err(BodyStreamError::NoEnd),
        }
    }

    fn answer(&mut self, uid: u32) -> Result<(), BodyStreamError> {
        if self.asked.contains(uid) && self.answered.insert(uid) {
            Ok(())
        } else {
            Err(BodyStreamError::NotAsked { uid })
        }
    }

    fn end(&mut self, items: u64, gone: u64, failed: u64) -> Result<BodyEvent, BodyStreamError> {
        let open = self.asked.len() - self.answered.len();
        if open > 0 {
            let first = self
                .asked
                .iter()
                .find(|uid| !self.answered.contains(*uid))
                .expect("some uid asked for has no answer");
            return Err(BodyStreamError::Unanswered { count: open, first });
        }
        if (items, gone, failed) != (self.items, self.gone, self.failed) {
            return Err(BodyStreamError::Counts);
        }
        self.state = State::Ended;
        Ok(BodyEvent::End { items, gone, failed })
    }
}

fn check_item(uid: u32, length: u64, digest: Digest, trailer: ItemTrailer) -> Result<BodyEvent, BodyStreamError> {
    if length != trailer.length {
        return Err(BodyStreamError::LengthMismatch {
            uid,
            announced: trailer.length,
            received: length,
        });
    }
    if digest != trailer.digest {
        return Err(BodyStreamError::DigestMismatch {
            uid,
            announced: trailer.digest,
            computed: digest,
        });
    }
    Ok(BodyEvent::ItemDone {
        uid,
        length,
        digest,
        line_ends_only: trailer.line_ends_only,
    })
}

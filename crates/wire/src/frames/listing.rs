//! Whether a listing keeps its promises.

use super::{Frame, ListedItem, ListingHead, ListingKind, MAX_LISTING_RANGES};
use crate::uid_set::UidSet;

/// What the reader of a listing may act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListingEvent {
    /// The listing begins.
    Head(ListingHead),
    /// An item; uids ascend.
    Item(ListedItem),
    /// Uids that are gone; those of several such events ascend.
    Vanished(UidSet),
    /// Uids that are there; all of several such events together, which ascend, are what the folder holds.
    Present(UidSet),
    /// The listing is complete and the counts agree.
    End {
        /// Items listed.
        items: u64,
        /// Uids named as vanished.
        vanished: u64,
        /// True when this is a full listing with as many items as the server counts: only then may removals be
        /// concluded from what is absent.
        whole: bool,
    },
}

/// How a listing breaks the protocol.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ListingError {
    /// A frame that may not stand here.
    #[error("the frame \"{frame}\" may not stand here in a listing")]
    OutOfOrder {
        /// The frame's name.
        frame: &'static str,
    },
    /// A uid is not above the one before it.
    #[error("uid {uid} does not come after uid {before}")]
    NotAscending {
        /// The uid.
        uid: u32,
        /// The uid before it.
        before: u32,
    },
    /// A listing of changes may say what vanished or what is there, not both.
    #[error("the listing names both vanished and present uids")]
    VanishedAndPresent,
    /// More ranges than [`MAX_LISTING_RANGES`].
    #[error("the listing has more than {MAX_LISTING_RANGES} ranges of vanished or present uids")]
    TooManyRanges,
    /// The end frame's counts are not those of the listing.
    #[error("the end frame's counts are not those of the listing")]
    Counts,
    /// The listing stopped without an end frame: nothing may be concluded from it.
    #[error("the listing stopped without an end frame")]
    NoEnd,
}

#[derive(Debug)]
enum State {
    Start,
    Open { kind: ListingKind, exists: u32 },
    Ended,
}

/// Enforces the order of a listing and its counts.
#[derive(Debug)]
pub struct ListingCheck {
    state: State,
    items: u64,
    vanished: u64,
    last_item: u32,
    last_ranged: u32,
    ranges: usize,
    present: bool,
}

impl Default for ListingCheck {
    fn default() -> Self {
        Self::new()
    }
}

impl ListingCheck {
    /// A check at the beginning of a listing.
    pub fn new() -> Self {
        Self {
            state: State::Start,
            items: 0,
            vanished: 0,
            last_item: 0,
            last_ranged: 0,
            ranges: 0,
            present: false,
        }
    }

    /// Takes the next frame. After an error the listing is worthless.
    pub fn accept(&mut self, frame: Frame) -> Result<ListingEvent, ListingError> {
        match (&self.state, frame) {
            (State::Start, Frame::Head(head)) => {
                self.state = State::Open {
                    kind: head.kind,
                    exists: head.exists,
                };
                Ok(ListingEvent::Head(head))
            }
            (State::Open { .. }, Frame::ListedItem(item)) => {
                ascend(&mut self.last_item, item.uid, item.uid)?;
                self.items += 1;
                Ok(ListingEvent::Item(item))
            }
            (
                State::Open {
                    kind: ListingKind::Changes,
                    ..
                },
                Frame::Vanished(uids),
            ) => {
                if self.present {
                    return Err(ListingError::VanishedAndPresent);
                }
                self.take_ranges(&uids)?;
                self.vanished += uids.len() as u64;
                Ok(ListingEvent::Vanished(uids))
            }
            (
                State::Open {
                    kind: ListingKind::Changes,
                    ..
                },
                Frame::Present(uids),
            ) => {
                if self.vanished > 0 {
                    return Err(ListingError::VanishedAndPresent);
                }
                self.present = true;
                self.take_ranges(&uids)?;
                Ok(ListingEvent::Present(uids))
            }
            (&State::Open { kind, exists }, Frame::ListingEnd { items, vanished }) => {
                if (items, vanished) != (self.items, self.vanished) {
                    return Err(ListingError::Counts);
                }
                self.state = State::Ended;
                Ok(ListingEvent::End {
                    items,
                    vanished,
                    whole: kind == ListingKind::Full && items == u64::from(exists),
                })
            }
            (_, frame) => Err(ListingError::OutOfOrder { frame: frame.name() }),
        }
    }

    fn take_ranges(&mut self, uids: &UidSet) -> Result<(), ListingError> {
        let ranges = uids.ranges();
        self.ranges += ranges.len();
        if self.ranges > MAX_LISTING_RANGES {
            return Err(ListingError::TooManyRanges);
        }
        match (ranges.first(), ranges.last()) {
            (Some(&(first, _)), Some(&(_, last))) => ascend(&mut self.last_ranged, first, last),
            _ => Ok(()),
        }
    }

    /// Ends the listing: an error unless its end frame was seen.
    pub fn finish(self) -> Result<(), ListingError> {
        match self.state {
            State::Ended => Ok(()),
            State::Start | State::Open { .. } => Err(ListingError::NoEnd),
        }
    }
}

fn ascend(last: &mut u32, first: u32, new_last: u32) -> Result<(), ListingError> {
    if first <= *last {
        return Err(ListingError::NotAscending {
            uid: first,
            before: *last,
        });
    }
    *last = new_last;
    Ok(())
}

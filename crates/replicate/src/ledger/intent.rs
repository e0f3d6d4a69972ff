//! Intents: what is about to be appended, durable before the first octet leaves.

use super::{
    LedgerError, ReadBack, Record, read_texts,
    record::{state_octet, state_parts},
    write_texts,
};
use crate::codec::{Reader, Writer};
use rehome_wire::flags::{Flags, MAX_KEYWORDS};

/// Most suspect windows of a folder; the oldest make one when there would be more.
pub const MAX_SUSPECTS: usize = 16;
/// Most items of one window.
const MAX_ITEMS: usize = 100_000;

/// What one intent covers, in the order in which it is appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Items were to get their source uids.
    pub given_uids: bool,
    /// One command, to a target that may rewrite messages: what no digest names is matched by its place.
    pub by_position: bool,
    /// The target folder's UIDVALIDITY, read with no append outstanding.
    pub target_validity: u32,
    /// The target folder's UIDNEXT, read with no append outstanding.
    pub uid_next: u32,
    /// The items.
    pub items: Vec<Record>,
}

/// A folder's open intent, and the windows of recovered ones, in which late doubles may still appear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intents {
    /// The one open intent.
    pub open: Option<Window>,
    /// Windows recovered after a crash, oldest first.
    pub suspects: Vec<Window>,
}

impl Intents {
    /// True when there is nothing to keep.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_none() && self.suspects.is_empty()
    }

    /// Closes the open intent after a recovery and keeps its window suspect.
    pub fn close_as_suspect(&mut self) {
        let Some(window) = self.open.take() else { return };
        self.suspects.push(window);
        if self.suspects.len() > MAX_SUSPECTS {
            let second = self.suspects.remove(1);
            let first = &mut self.suspects[0];
            first.uid_next = first.uid_next.min(second.uid_next);
            let place = MAX_ITEMS.saturating_sub(first.items.len());
            first.items.extend(second.items.into_iter().take(place));
        }
    }

    /// Its stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.option(self.open.as_ref(), write_window);
        writer.count(self.suspects.len());
        for window in &self.suspects {
            write_window(&mut writer, window);
        }
        writer.finish()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`LedgerError::Damaged`].
    pub fn decode(octets: &[u8]) -> Result<Self, LedgerError> {
        let mut reader = Reader::new("intent", octets)?;
        let open = reader.option(read_window)?;
        let count = reader.count(13)?;
        let suspects = (0..count).map(|_| read_window(&mut reader)).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Self { open, suspects })
    }
}

fn write_window(writer: &mut Writer, window: &Window) {
    writer.u8(u8::from(window.given_uids) | u8::from(window.by_position) << 1);
    writer.u32(window.target_validity);
    writer.u32(window.uid_next);
    writer.count(window.items.len());
    for item in &window.items {
        writer.u32(item.uid);
        writer.u8(state_octet(item.read_back, item.line_ends_only));
        writer.u64(item.length);
        writer.i64(item.received);
        writer.digest(&item.digest);
        write_texts(writer, &item.flags.names());
    }
}

fn read_window(reader: &mut Reader<'_>) -> Result<Window, LedgerError> {
    let how = reader.u8()?;
    if how > 3 {
        return Err(reader.damaged(format!("window of kind {how}")));
    }
    let target_validity = reader.u32()?;
    let uid_next = reader.u32()?;
    let count = reader.count(57)?;
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        let uid = reader.u32()?;
        let state = reader.u8()?;
        let (read_back, line_ends_only): (ReadBack, bool) =
            state_parts(state).ok_or_else(|| reader.damaged(format!("item state {state}")))?;
        let length = reader.u64()?;
        let received = reader.i64()?;
        let digest = reader.digest()?;
        let flags = Flags::from_names(read_texts(reader, MAX_KEYWORDS + 8)?);
        items.push(Record {
            uid,
            length,
            digest,
            flags,
            received,
            read_back,
            line_ends_only,
        });
    }
    Ok(Window {
        given_uids: how & 1 != 0,
        by_position: how & 2 != 0,
        target_validity,
        uid_next,
        items,
    })
}

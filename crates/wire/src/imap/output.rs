//! What is to be sent, and where it has to wait.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::client::Tag;

/// Which literals may be sent without waiting for the server (RFC 7888).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Literals {
    /// None.
    #[default]
    Synchronizing,
    /// Those of at most 4096 octets (LITERAL-).
    Minus,
    /// All (LITERAL+).
    Plus,
}

impl Literals {
    /// Whether a literal of this length need not wait.
    pub(super) fn is_free(self, length: u64) -> bool {
        match self {
            Self::Synchronizing => false,
            Self::Minus => length <= 4096,
            Self::Plus => true,
        }
    }
}

/// The next thing to be sent.
#[derive(Clone, PartialEq, Eq)]
pub enum Output {
    /// These octets. They may hold secrets and do not show in `Debug`.
    Octets(Bytes),
    /// Exactly `length` octets of the body that the caller named `id`, before anything else. Once this was handed out
    /// the octets are owed, even if the command is answered meanwhile: who cannot supply them must close the
    /// connection.
    Body {
        /// The caller's name for it ([`AppendItem::body`](super::AppendItem::body)).
        id: u64,
        /// How many octets.
        length: u64,
    },
}

impl std::fmt::Debug for Output {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Octets(octets) => write!(formatter, "Octets({} octets)", octets.len()),
            Self::Body { id, length } => write!(formatter, "Body {{ id: {id}, length: {length} }}"),
        }
    }
}

/// One piece of the stream to the server.
pub(super) enum Piece {
    Octets(BytesMut),
    Body {
        id: u64,
        length: u64,
    },
    /// A synchronising literal of this command waits for `+`.
    Wait(Tag),
    /// Nothing goes out before this command is done.
    Hold(Tag),
    /// Here ends a command that waits somewhere.
    End(Tag),
}

/// The stream to the server as far as it was not taken yet.
#[derive(Default)]
pub(super) struct OutputQueue {
    pieces: VecDeque<Piece>,
}

impl OutputQueue {
    /// Appends octets, joined with those before them.
    pub(super) fn write(&mut self, octets: &[u8]) {
        match self.pieces.back_mut() {
            Some(Piece::Octets(held)) => held.extend_from_slice(octets),
            Some(_) | None => self.pieces.push_back(Piece::Octets(BytesMut::from(octets))),
        }
    }

    pub(super) fn push(&mut self, piece: Piece) {
        self.pieces.push_back(piece);
    }

    /// The next thing that may be sent now.
    pub(super) fn next(&mut self) -> Option<Output> {
        loop {
            match self.pieces.front()? {
                Piece::Wait(_) | Piece::Hold(_) => return None,
                Piece::Octets(_) | Piece::Body { .. } | Piece::End(_) => match self.pieces.pop_front()? {
                    Piece::Octets(octets) => return Some(Output::Octets(octets.freeze())),
                    Piece::Body { id, length } => return Some(Output::Body { id, length }),
                    Piece::End(_) | Piece::Wait(_) | Piece::Hold(_) => {}
                },
            }
        }
    }

    /// Whether a synchronising literal is next, which a `+` lets go; then lets it go.
    pub(super) fn continues(&mut self) -> bool {
        let waits = matches!(self.pieces.front(), Some(Piece::Wait(_)));
        if waits {
            self.pieces.pop_front();
        }
        waits
    }

    /// The command was answered: what stands behind its next synchronising literal is never sent. Octets that the
    /// server was promised without waiting are sent all the same, or it would read the next command as them.
    pub(super) fn answered(&mut self, tag: Tag) {
        let Some(from) = self
            .pieces
            .iter()
            .position(|piece| matches!(piece, Piece::Wait(waiting) if *waiting == tag))
        else {
            return;
        };
        let length = self
            .pieces
            .iter()
            .skip(from)
            .position(|piece| matches!(piece, Piece::End(ended) if *ended == tag))
            .map_or(self.pieces.len() - from, |length| length + 1);
        self.pieces.drain(from..from + length);
    }

    /// The command is over and what waits for it may go.
    pub(super) fn release(&mut self, tag: Tag) {
        self.pieces
            .retain(|piece| !matches!(piece, Piece::Hold(holding) if *holding == tag));
    }

    /// Puts octets that belong to the holding command in front of its hold.
    pub(super) fn insert_before_hold(&mut self, tag: Tag, octets: &[u8]) {
        let at = self
            .pieces
            .iter()
            .position(|piece| matches!(piece, Piece::Hold(holding) if *holding == tag));
        if let Some(at) = at {
            self.pieces.insert(at, Piece::Octets(BytesMut::from(octets)));
        }
    }
}

//! Frames to octets and back.

use bytes::{Bytes, BytesMut};
use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

use super::scanner::Scanner;
use super::{
    FIRST_SKIPPABLE_KIND, FailureClass, Frame, ItemFailure, ItemHeader, ItemTrailer, ListedItem, ListingHead,
    ListingKind, MAX_CHUNK, MAX_TEXT, MAX_VANISHED_RANGES,
};
use crate::digest::Digest;
use crate::flags::{Flags, SystemFlag};
use crate::uid_set::{UidSet, UidSetError, definite_array, encode_ranges, infallible};

/// Most flags in a frame: the system flags, all keywords, and some that a reader does not know.
const MAX_FLAGS: u64 = 128;

/// Why octets are not frames.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A frame is larger than [`MAX_FRAME`](super::MAX_FRAME), or announces more than that.
    #[error("a frame is larger than {} octets", super::MAX_FRAME)]
    TooLarge,
    /// A rule that all frames obey is broken.
    #[error("malformed frame: {0}")]
    Malformed(&'static str),
    /// The elements of a frame are not those of its kind.
    #[error("malformed frame of kind {kind}")]
    Elements {
        /// The frame's kind.
        kind: u64,
        /// What CBOR says.
        #[source]
        source: minicbor::decode::Error,
    },
    /// The uids of a frame of vanished or present uids are not a set.
    #[error("malformed frame of vanished or present uids")]
    Vanished(#[source] UidSetError),
    /// A part of a frame is longer or more than allowed.
    #[error("the {part} of a frame exceeds the limit of {limit}")]
    Limit {
        /// Which part.
        part: &'static str,
        /// The limit, in octets or in elements.
        limit: usize,
    },
    /// A kind that this version does not know and may not skip.
    #[error("frames of kind {0} belong to a later version of the protocol")]
    UnknownKind(u64),
    /// The stream ended in the middle of a frame.
    #[error("the stream ended inside a frame, {0} octets are left over")]
    Unfinished(usize),
}

/// Appends the frame's octets to `out`.
///
/// What the peer would refuse is never written: a chunk above [`MAX_CHUNK`] becomes several frames and an empty one
/// none, vanished and present uids become as many frames as they need, a longer text is cut, and a token above [`MAX_TEXT`] is left
/// out, which costs a full listing next time and nothing else.
pub fn encode(frame: &Frame, out: &mut BytesMut) {
    match frame {
        Frame::Chunk(octets) => {
            for part in octets.chunks(MAX_CHUNK) {
                encode_chunk_head(part.len(), out);
                out.extend_from_slice(part);
            }
        }
        Frame::Vanished(uids) => {
            for part in uids.ranges().chunks(MAX_VANISHED_RANGES) {
                write_ranges(out, 2, part);
            }
        }
        // That nothing is there is said, too.
        Frame::Present(uids) if uids.is_empty() => write_ranges(out, 8, &[]),
        Frame::Present(uids) => {
            for part in uids.ranges().chunks(MAX_VANISHED_RANGES) {
                write_ranges(out, 8, part);
            }
        }
        Frame::Head(head) => write(out, 64, |encoder| encode_head(encoder, head)),
        Frame::ListedItem(ListedItem {
            uid,
            flags,
            received,
            length,
        }) => write(out, 96, |encoder| {
            encode_item(encoder, 1, *uid, flags, *received, *length);
        }),
        Frame::Item(ItemHeader {
            uid,
            flags,
            received,
            length,
        }) => write(out, 96, |encoder| {
            encode_item(encoder, 3, *uid, flags, *received, *length);
        }),
        Frame::Trailer(trailer) => write(out, 64, |encoder| {
            infallible(encoder.array(4).and_then(|e| {
                e.u8(5)?
                    .u64(trailer.length)?
                    .bytes(&trailer.digest.0)?
                    .bool(trailer.line_ends_only)
            }));
        }),
        Frame::Gone { uid } => write(out, 8, |encoder| {
            infallible(encoder.array(2).and_then(|e| e.u8(6)?.u32(*uid)));
        }),
        Frame::Failed(ItemFailure { uid, class, text }) => {
            let text = &text[..text.floor_char_boundary(MAX_TEXT)];
            write(out, text.len() + 16, |encoder| {
                infallible(
                    encoder
                        .array(4)
                        .and_then(|e| e.u8(7)?.u32(*uid)?.u8(class_number(*class))?.str(text)),
                );
            });
        }
        Frame::ListingEnd { items, vanished } => write(out, 24, |encoder| {
            infallible(encoder.array(3).and_then(|e| e.u8(9)?.u64(*items)?.u64(*vanished)));
        }),
        Frame::BodyEnd { items, gone, failed } => write(out, 32, |encoder| {
            infallible(
                encoder
                    .array(4)
                    .and_then(|e| e.u8(10)?.u64(*items)?.u64(*gone)?.u64(*failed)),
            );
        }),
    }
}

/// Appends what stands before the octets of a chunk frame, so that a sender may send the octets themselves without
/// copying them. `length` is 1 to [`MAX_CHUNK`].
pub fn encode_chunk_head(length: usize, out: &mut BytesMut) {
    write(out, 8, |encoder| {
        infallible(encoder.array(2).and_then(|e| e.u8(4)?.bytes_len(length as u64)));
    });
}

fn write_ranges(out: &mut BytesMut, kind: u8, ranges: &[(u32, u32)]) {
    let mut octets = vec![0x82, kind];
    encode_ranges(ranges, &mut octets);
    out.extend_from_slice(&octets);
}

/// Where frames are written to.
struct Out<'a>(&'a mut BytesMut);

impl minicbor::encode::Write for Out<'_> {
    type Error = std::convert::Infallible;

    fn write_all(&mut self, octets: &[u8]) -> Result<(), Self::Error> {
        self.0.extend_from_slice(octets);
        Ok(())
    }
}

type MemoryEncoder<'a> = Encoder<Out<'a>>;

fn write(out: &mut BytesMut, room: usize, fill: impl FnOnce(&mut MemoryEncoder<'_>)) {
    out.reserve(room);
    fill(&mut Encoder::new(Out(out)));
}

fn encode_head(encoder: &mut MemoryEncoder<'_>, head: &ListingHead) {
    infallible(
        encoder
            .array(7)
            .and_then(|e| e.u8(0)?.u32(head.validity)?.u32(head.uid_next)?.u32(head.exists)),
    );
    encode_optional(encoder, head.mod_seq);
    match head.token.as_ref().filter(|token| token.len() <= MAX_TEXT) {
        Some(token) => infallible(encoder.bytes(token)),
        None => infallible(encoder.null()),
    };
    infallible(encoder.u8(match head.kind {
        ListingKind::Full => 0,
        ListingKind::Changes => 1,
    }));
}

fn encode_item(encoder: &mut MemoryEncoder<'_>, kind: u8, uid: u32, flags: &Flags, received: i64, length: Option<u64>) {
    let system = SystemFlag::ALL.into_iter().filter(|flag| flags.contains(*flag));
    let count = system.clone().count() + flags.keywords().len();
    infallible(encoder.array(5).and_then(|e| e.u8(kind)?.u32(uid)?.array(count as u64)));
    for flag in system {
        infallible(encoder.str(flag.name()));
    }
    for keyword in flags.keywords() {
        infallible(encoder.str(keyword));
    }
    infallible(encoder.i64(received));
    encode_optional(encoder, length);
}

fn encode_optional(encoder: &mut MemoryEncoder<'_>, number: Option<u64>) {
    match number {
        Some(number) => infallible(encoder.u64(number)),
        None => infallible(encoder.null()),
    };
}

fn class_number(class: FailureClass) -> u8 {
    match class {
        FailureClass::Item => 0,
        FailureClass::Folder => 1,
        FailureClass::Mailbox => 2,
        FailureClass::Endpoint => 3,
    }
}

/// Makes frames from octets that arrive in pieces.
///
/// Call [`next`](Self::next) until it gives none after every [`push`](Self::push): then at most one unfinished frame is
/// held, which is at most [`MAX_FRAME`](super::MAX_FRAME) octets and one piece. After an error the stream is worthless.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    buffer: BytesMut,
    scanner: Scanner,
}

impl FrameDecoder {
    /// A decoder at the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next octets of the stream.
    pub fn push(&mut self, octets: &[u8]) {
        self.buffer.extend_from_slice(octets);
    }

    /// The next complete frame; none when more octets are needed.
    #[allow(clippy::should_implement_trait)] // Three outcomes, and "none" does not mean the end.
    pub fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        while let Some(length) = self.scanner.scan(&self.buffer)? {
            let octets = self.buffer.split_to(length).freeze();
            if let Some(frame) = decode(&octets)? {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// How many octets are held.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Ends the stream: an error if it stops inside a frame.
    pub fn finish(self) -> Result<(), FrameError> {
        match self.buffer.len() {
            0 => Ok(()),
            left => Err(FrameError::Unfinished(left)),
        }
    }
}

/// Reads one whole frame; none for a kind to be skipped.
fn decode(octets: &Bytes) -> Result<Option<Frame>, FrameError> {
    let mut decoder = Decoder::new(octets);
    let in_kind = |kind| move |source| FrameError::Elements { kind, source };
    let unknown = FrameError::Malformed("a frame begins with its kind");
    let Ok(elements @ 1..) = definite_array(&mut decoder) else {
        return Err(unknown);
    };
    let kind = decoder.u64().map_err(|_| unknown)?;
    let expected = match kind {
        0 => 7,
        1 | 3 => 5,
        2 | 4 | 6 | 8 => 2,
        9 => 3,
        5 | 7 | 10 => 4,
        FIRST_SKIPPABLE_KIND.. => return Ok(None),
        11..FIRST_SKIPPABLE_KIND => return Err(FrameError::UnknownKind(kind)),
    };
    if elements < expected {
        return Err(FrameError::Malformed("a frame has too few elements"));
    }
    let mut reader = Reader { decoder, octets, kind };
    let frame = match kind {
        0 => Frame::Head(reader.head()?),
        1 => {
            let (uid, flags, received, length) = reader.item()?;
            Frame::ListedItem(ListedItem {
                uid,
                flags,
                received,
                length,
            })
        }
        2 => Frame::Vanished(UidSet::decode(&mut reader.decoder, MAX_VANISHED_RANGES).map_err(FrameError::Vanished)?),
        3 => {
            let (uid, flags, received, length) = reader.item()?;
            Frame::Item(ItemHeader {
                uid,
                flags,
                received,
                length,
            })
        }
        4 => match reader.bytes("chunk", MAX_CHUNK)? {
            chunk if chunk.is_empty() => {
                return Err(FrameError::Malformed("a chunk is never empty"));
            }
            chunk => Frame::Chunk(chunk),
        },
        5 => Frame::Trailer(reader.trailer()?),
        6 => Frame::Gone { uid: reader.uid()? },
        7 => Frame::Failed(reader.failure()?),
        8 => Frame::Present(UidSet::decode(&mut reader.decoder, MAX_VANISHED_RANGES).map_err(FrameError::Vanished)?),
        9 => Frame::ListingEnd {
            items: reader.decoder.u64().map_err(in_kind(kind))?,
            vanished: reader.decoder.u64().map_err(in_kind(kind))?,
        },
        _ => Frame::BodyEnd {
            items: reader.decoder.u64().map_err(in_kind(kind))?,
            gone: reader.decoder.u64().map_err(in_kind(kind))?,
            failed: reader.decoder.u64().map_err(in_kind(kind))?,
        },
    };
    Ok(Some(frame))
}

/// Reads the elements of one frame.
struct Reader<'a> {
    decoder: Decoder<'a>,
    octets: &'a Bytes,
    kind: u64,
}

impl Reader<'_> {
    fn elements(&self, source: minicbor::decode::Error) -> FrameError {
        FrameError::Elements {
            kind: self.kind,
            source,
        }
    }

    fn u32(&mut self) -> Result<u32, FrameError> {
        self.decoder.u32().map_err(|error| self.elements(error))
    }

    fn u64(&mut self) -> Result<u64, FrameError> {
        self.decoder.u64().map_err(|error| self.elements(error))
    }

    fn uid(&mut self) -> Result<u32, FrameError> {
        match self.u32()? {
            0 => Err(FrameError::Malformed("0 is not a uid")),
            uid => Ok(uid),
        }
    }

    fn is_null(&mut self) -> Result<bool, FrameError> {
        let null = self.decoder.datatype().map_err(|error| self.elements(error))? == Type::Null;
        if null {
            self.decoder.null().map_err(|error| self.elements(error))?;
        }
        Ok(null)
    }

    fn optional_u64(&mut self) -> Result<Option<u64>, FrameError> {
        if self.is_null()? {
            return Ok(None);
        }
        self.u64().map(Some)
    }

    fn bytes(&mut self, part: &'static str, limit: usize) -> Result<Bytes, FrameError> {
        let bytes = self.decoder.bytes().map_err(|error| self.elements(error))?;
        if bytes.len() > limit {
            return Err(FrameError::Limit { part, limit });
        }
        Ok(self.octets.slice_ref(bytes))
    }

    fn flags(&mut self) -> Result<Flags, FrameError> {
        let count = definite_array(&mut self.decoder).map_err(|error| self.elements(error))?;
        if count > MAX_FLAGS {
            return Err(FrameError::Limit {
                part: "flags",
                limit: MAX_FLAGS as usize,
            });
        }
        let mut names = Vec::with_capacity(count as usize);
        for _ in 0..count {
            names.push(self.decoder.str().map_err(|error| self.elements(error))?);
        }
        Ok(Flags::from_names(names))
    }

    fn item(&mut self) -> Result<(u32, Flags, i64, Option<u64>), FrameError> {
        let uid = self.uid()?;
        let flags = self.flags()?;
        let received = self.decoder.i64().map_err(|error| self.elements(error))?;
        Ok((uid, flags, received, self.optional_u64()?))
    }

    fn head(&mut self) -> Result<ListingHead, FrameError> {
        Ok(ListingHead {
            validity: self.u32()?,
            uid_next: self.u32()?,
            exists: self.u32()?,
            mod_seq: self.optional_u64()?,
            token: match self.is_null()? {
                true => None,
                false => Some(self.bytes("token", MAX_TEXT)?),
            },
            kind: match self.u64()? {
                0 => ListingKind::Full,
                1 => ListingKind::Changes,
                _ => return Err(FrameError::Malformed("unknown kind of listing")),
            },
        })
    }

    fn trailer(&mut self) -> Result<ItemTrailer, FrameError> {
        let length = self.u64()?;
        let digest = self.decoder.bytes().map_err(|error| self.elements(error))?;
        let digest = digest
            .try_into()
            .map_err(|_| FrameError::Malformed("a digest has 32 octets"))?;
        Ok(ItemTrailer {
            length,
            digest: Digest(digest),
            line_ends_only: self.decoder.bool().map_err(|error| self.elements(error))?,
        })
    }

    fn failure(&mut self) -> Result<ItemFailure, FrameError> {
        let uid = self.uid()?;
        let class = match self.u64()? {
            0 => FailureClass::Item,
            1 => FailureClass::Folder,
            2 => FailureClass::Mailbox,
            3 => FailureClass::Endpoint,
            _ => return Err(FrameError::Malformed("unknown class of failure")),
        };
        let text = self.decoder.str().map_err(|error| self.elements(error))?;
        if text.len() > MAX_TEXT {
            return Err(FrameError::Limit {
                part: "text",
                limit: MAX_TEXT,
            });
        }
        Ok(ItemFailure {
            uid,
            class,
            text: text.to_owned(),
        })
    }
}

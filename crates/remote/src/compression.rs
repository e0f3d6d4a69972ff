//! Compressed streams: zstd (RFC 8878), window at most 8 MiB, offered and named as HTTP does.
//!
//! Both ends work piece by piece: what a few octets expand to is never in memory at once, and whoever reads the frames
//! inside bounds how many there are.

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, header};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use zstd::stream::raw::{DParameter, Decoder, Encoder, InBuffer, Operation, OutBuffer};

/// The name of the coding in HTTP.
pub(crate) const ZSTD: &str = "zstd";
/// The quickest ordinary level: the link is to be filled, not the processor.
const LEVEL: i32 = 1;
/// 2^23 octets: what RFC 9659 allows to HTTP.
const MAX_WINDOW_LOG: u32 = 23;
/// Octets of one piece.
const PIECE: usize = 64 * 1024;

/// Whether a request offers to take zstd.
pub(crate) fn is_offered(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter();
    let mut codings = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    codings.any(|coding| {
        let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        let refused = parameters.split('=').nth(1).and_then(|q| q.trim().parse::<f32>().ok()) == Some(0.0);
        name.trim().eq_ignore_ascii_case(ZSTD) && !refused
    })
}

/// Compresses a stream of octets. What was taken is given out before waiting for more, so nothing is held back from a
/// reader while the source of the octets is slow.
pub(crate) struct Compressed<S> {
    octets: S,
    encoder: Encoder<'static>,
    out: Vec<u8>,
    /// Octets went in and may not have come out.
    inside: bool,
    ended: bool,
}

impl<S> Compressed<S> {
    /// # Errors
    /// When there is no memory for it.
    pub(crate) fn new(octets: S) -> io::Result<Self> {
        Ok(Self {
            octets,
            encoder: Encoder::new(LEVEL)?,
            out: Vec::new(),
            inside: false,
            ended: false,
        })
    }

    /// The same, of another stream; before the first octet.
    pub(crate) fn of<T>(self, octets: T) -> Compressed<T> {
        let Self { encoder, out, .. } = self;
        Compressed {
            octets,
            encoder,
            out,
            inside: false,
            ended: false,
        }
    }

    /// One step of the encoder with room for its output; the number is what the step says.
    fn step<T>(
        &mut self,
        work: impl FnOnce(&mut Encoder<'static>, &mut OutBuffer<'_, Vec<u8>>) -> io::Result<T>,
    ) -> io::Result<T> {
        self.out.reserve(PIECE / 2);
        let filled = self.out.len();
        work(&mut self.encoder, &mut OutBuffer::around_pos(&mut self.out, filled))
    }

    fn put_in(&mut self, piece: &[u8]) -> io::Result<()> {
        let mut input = InBuffer::around(piece);
        while input.pos() < piece.len() {
            self.step(|encoder, out| encoder.run(&mut input, out))?;
        }
        self.inside = true;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inside = false;
        while self.step(|encoder, out| encoder.flush(out))? > 0 {}
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.ended = true;
        while self.step(|encoder, out| encoder.finish(out, true))? > 0 {}
        Ok(())
    }

    fn give(&mut self) -> Bytes {
        std::mem::take(&mut self.out).into()
    }
}

/// Compresses a whole text.
pub(crate) fn whole(octets: &[u8]) -> io::Result<Vec<u8>> {
    let mut compressed = Compressed::new(())?;
    compressed.put_in(octets)?;
    compressed.finish()?;
    Ok(compressed.out)
}

impl<S, E> Stream for Compressed<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: From<io::Error>,
{
    type Item = Result<Bytes, E>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if self.out.len() >= PIECE || (self.ended && !self.out.is_empty()) {
                return Poll::Ready(Some(Ok(self.give())));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let worked = match self.octets.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(piece))) => self.put_in(&piece),
                Poll::Ready(Some(Err(error))) => {
                    (self.ended, self.out) = (true, Vec::new());
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(None) => self.finish(),
                Poll::Pending if self.inside => self.flush(),
                Poll::Pending if !self.out.is_empty() => return Poll::Ready(Some(Ok(self.give()))),
                Poll::Pending => return Poll::Pending,
            };
            if let Err(error) = worked {
                (self.ended, self.out) = (true, Vec::new());
                return Poll::Ready(Some(Err(error.into())));
            }
        }
    }
}

/// Undoes [`Compressed`], step by step.
pub(crate) struct Decompressor {
    decoder: Decoder<'static>,
    input: Bytes,
    /// The last step filled its output, and more may be inside.
    more: bool,
    /// Nothing begun, or everything begun has ended.
    between: bool,
}

impl Decompressor {
    /// # Errors
    /// When there is no memory for it.
    pub(crate) fn new() -> io::Result<Self> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG))?;
        Ok(Self {
            decoder,
            input: Bytes::new(),
            more: false,
            between: true,
        })
    }

    /// The next compressed octets; only when [`Self::next`] gives nothing.
    pub(crate) fn push(&mut self, octets: Bytes) {
        self.input = octets;
    }

    /// At most 64 KiB of what was compressed; none when more octets are needed.
    ///
    /// # Errors
    /// When the octets are no zstd, or need a larger window.
    pub(crate) fn next(&mut self) -> io::Result<Option<Bytes>> {
        while self.more || !self.input.is_empty() {
            let mut out = Vec::with_capacity(PIECE);
            let mut input = InBuffer::around(&self.input);
            let mut output = OutBuffer::around(&mut out);
            let hint = self.decoder.run(&mut input, &mut output)?;
            let (taken, full) = (input.pos(), output.pos() == output.capacity());
            self.input = self.input.slice(taken..);
            // A step that finds nothing to do says how it would begin.
            if taken > 0 || !out.is_empty() {
                self.between = hint == 0;
            }
            self.more = full && !self.between;
            if !out.is_empty() {
                return Ok(Some(out.into()));
            }
        }
        Ok(None)
    }

    /// # Errors
    /// When the octets stopped in the middle.
    pub(crate) fn finish(&self) -> io::Result<()> {
        if self.between {
            Ok(())
        } else {
            Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the compressed stream is not whole",
            ))
        }
    }
}

/// Decompresses a whole text of at most `limit` octets; none where it is longer.
pub(crate) fn undo_whole(octets: Bytes, limit: usize) -> io::Result<Option<Bytes>> {
    let mut decompressor = Decompressor::new()?;
    decompressor.push(octets);
    let mut whole = Vec::new();
    while let Some(piece) = decompressor.next()? {
        if whole.len() + piece.len() > limit {
            return Ok(None);
        }
        whole.extend_from_slice(&piece);
    }
    decompressor.finish()?;
    Ok(Some(whole.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_any_length_come_back() {
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 5 * PIECE] {
            let text = text(length);
            let compressed = whole(&text).unwrap();
            assert!(
                undo_whole(compressed.clone().into(), length).unwrap().unwrap() == text,
                "{length}"
            );
            // Two after each other are one text (RFC 8878 §3.1).
            let twice = [&compressed[..], &compressed].concat();
            assert_eq!(undone(&twice, 7).unwrap().len(), 2 * length);
        }
    }

    fn text(length: usize) -> Vec<u8> {
        (0..length)
            .map(|n| b"message line\r\n"[n % 14] ^ u8::from(n % 1_000 == 0))
            .collect()
    }

    fn undone(compressed: &[u8], piece: usize) -> io::Result<Vec<u8>> {
        let mut decompressor = Decompressor::new()?;
        let mut out = Vec::new();
        for piece in compressed.chunks(piece) {
            decompressor.push(Bytes::copy_from_slice(piece));
            while let Some(piece) = decompressor.next()? {
                assert!(piece.len() <= PIECE);
                out.extend_from_slice(&piece);
            }
        }
        decompressor.finish()?;
        Ok(out)
    }

    #[tokio::test]
    async fn streams_come_back_whatever_the_pieces() {
        let text = text(1_000_000);
        let pieces = text
            .chunks(70_001)
            .map(|piece| Ok::<_, io::Error>(Bytes::copy_from_slice(piece)));
        let pieces: Vec<_> = Compressed::new(futures_util::stream::iter(pieces.collect::<Vec<_>>()))
            .unwrap()
            .collect()
            .await;
        let compressed: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.unwrap()).collect();
        assert!(compressed.len() < text.len() / 10);
        for piece in [1, 999, usize::MAX] {
            assert!(undone(&compressed, piece).unwrap() == text, "{piece}");
        }
        assert!(undone(&compressed[..compressed.len() - 1], 999).is_err());
        assert!(undone(&text, 999).is_err());
    }

    #[tokio::test]
    async fn nothing_is_held_back_while_the_source_waits() {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, io::Error>>(1);
        let octets = futures_util::stream::unfold(receiver, |mut receiver| async move {
            Some((receiver.recv().await?, receiver))
        });
        let mut compressed = Compressed::new(octets.boxed()).unwrap();
        let mut decompressor = Decompressor::new().unwrap();
        for word in ["first", "second"] {
            sender.send(Ok(Bytes::from_static(word.as_bytes()))).await.unwrap();
            decompressor.push(compressed.next().await.unwrap().unwrap());
            assert_eq!(decompressor.next().unwrap().unwrap(), word);
        }
        drop(sender);
        decompressor.push(compressed.next().await.unwrap().unwrap());
        assert!(decompressor.next().unwrap().is_none());
        decompressor.finish().unwrap();
        assert!(compressed.next().await.is_none());
    }

    #[test]
    fn what_expands_is_bounded() {
        let bomb = whole(&vec![0; 100_000_000]).unwrap();
        assert!(bomb.len() < 20_000);
        assert!(undo_whole(bomb.clone().into(), 1_000_000).unwrap().is_none());
        let mut decompressor = Decompressor::new().unwrap();
        decompressor.push(bomb.into());
        assert_eq!(decompressor.next().unwrap().unwrap().len(), PIECE);
        // A window of 16 MiB: magic number, descriptor without content size, window descriptor, an empty last block.
        let wide = [0x28, 0xb5, 0x2f, 0xfd, 0x00, (24 - 10) << 3, 1, 0, 0];
        assert!(undo_whole(Bytes::copy_from_slice(&wide), 1_000).is_err());
        let allowed = [0x28, 0xb5, 0x2f, 0xfd, 0x00, (23 - 10) << 3, 1, 0, 0];
        assert_eq!(
            undo_whole(Bytes::copy_from_slice(&allowed), 1_000).unwrap().unwrap(),
            ""
        );
    }

    #[test]
    fn offers() {
        for (value, offered) in [
            ("zstd", true),
            ("gzip, ZSTD;q=0.5", true),
            ("gzip;q=1, zstd; q=0", false),
            ("gzip", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, value.parse().unwrap());
            assert_eq!(is_offered(&headers), offered, "{value}");
        }
        assert!(!is_offered(&HeaderMap::new()));
    }
}

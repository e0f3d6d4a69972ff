//! What two organisations send each other, and what a receipt holds.

use crate::pieces;
use bytes::BytesMut;
use rehome_wire::{
    canonical::{Canonicalizer, canonical},
    frames::{BodyStreamCheck, Frame, FrameDecoder, ListingCheck, encode},
    receipt::{ReceiptReader, SingleProof},
    uid_set::UidSet,
};

fn decoded<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Frame>, bool) {
    let mut decoder = FrameDecoder::new();
    let mut frames = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return (frames, false),
            }
        }
    }
    (frames, decoder.finish().is_ok())
}

/// Frames are the same however the stream is cut, and what was read is written as it came in meaning.
pub fn frames(octets: &[u8]) {
    let (mut whole, sound) = decoded([octets]);
    assert_eq!(decoded(pieces(octets)), (whole.clone(), sound));
    // An empty set is never written.
    whole.retain(|frame| !matches!(frame, Frame::Vanished(set) | Frame::Present(set) if set.is_empty()));
    let mut written = BytesMut::new();
    whole.iter().for_each(|frame| encode(frame, &mut written));
    assert_eq!(decoded([&written[..]]), (whole.clone(), true));
    let mut body = BodyStreamCheck::new(UidSet::from_ascending(1..1000));
    let mut listing = ListingCheck::new();
    for frame in whole {
        // What breaks a promise ends the stream; nothing is taken from it afterwards.
        if body.accept(frame.clone()).is_err() && listing.accept(frame).is_err() {
            break;
        }
    }
}

/// The canonical form is the same however it is cut, and the canonical form of itself.
pub fn canonical_form(octets: &[u8]) {
    let whole = canonical(octets);
    let mut canonicalizer = Canonicalizer::new();
    let mut out = BytesMut::new();
    for piece in pieces(octets) {
        canonicalizer.push(piece, &mut out);
    }
    canonicalizer.finish(&mut out);
    assert_eq!(out[..], whole[..]);
    assert_eq!(canonical(&whole), whole);
}

/// A set that is read is written to the same octets' meaning.
pub fn uid_set(octets: &[u8]) {
    if let Ok(set) = UidSet::from_cbor(octets) {
        assert_eq!(UidSet::from_cbor(&set.to_cbor()).ok(), Some(set.clone()));
        assert!(
            set.iter()
                .zip(set.iter().skip(1))
                .take(10_000)
                .all(|(one, next)| one < next)
        );
    }
}

/// A receipt says the same however it is cut.
pub fn receipt(octets: &[u8]) {
    let read = |pieces: Vec<&[u8]>| {
        let mut reader = ReceiptReader::new();
        let mut parts = 0_u64;
        let sound = pieces
            .into_iter()
            .all(|piece| reader.push(piece, |_| parts += 1).is_ok());
        (parts, sound && reader.finish().is_ok())
    };
    assert_eq!(read(vec![octets]), read(pieces(octets)));
    if let Ok(proof) = SingleProof::read(octets) {
        assert_eq!(proof.octets(), octets, "one proof has one form");
        let _ = proof.root();
    }
}

/// Compressed streams of a partner end or are refused; they never grow without limit.
pub fn compressed(octets: &[u8]) {
    const LIMIT: usize = 1 << 20;
    if let Ok(Some(plain)) = rehome_remote::fuzz::undo_whole(octets, LIMIT) {
        assert!(plain.len() <= LIMIT);
    }
    rehome_remote::fuzz::undo_stream(&pieces(octets), 1 << 24);
}

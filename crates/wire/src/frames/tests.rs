use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::digest::Digest;
use crate::flags::Flags;
use crate::uid_set::UidSet;

fn octets(frame: &Frame) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode(frame, &mut out);
    out.to_vec()
}

fn decode_all(octets: &[u8], piece: usize) -> Result<Vec<Frame>, FrameError> {
    let mut decoder = FrameDecoder::new();
    let mut frames = Vec::new();
    for piece in octets.chunks(piece.max(1)) {
        decoder.push(piece);
        while let Some(frame) = decoder.next()? {
            frames.push(frame);
        }
        assert!(decoder.buffered() <= MAX_FRAME);
    }
    decoder.finish()?;
    Ok(frames)
}

fn item(uid: u32) -> Frame {
    Frame::Item(ItemHeader {
        uid,
        flags: Flags::default(),
        received: 0,
        length: None,
    })
}

fn trailer(content: &[u8]) -> Frame {
    Frame::Trailer(ItemTrailer {
        length: content.len() as u64,
        digest: Digest::of(content),
        line_ends_only: false,
    })
}

fn chunk(content: &'static [u8]) -> Frame {
    Frame::Chunk(Bytes::from_static(content))
}

fn listed(uid: u32) -> Frame {
    Frame::ListedItem(ListedItem {
        uid,
        flags: Flags::default(),
        received: 0,
        length: None,
    })
}

fn head(kind: ListingKind, exists: u32) -> Frame {
    Frame::Head(ListingHead {
        validity: 7,
        uid_next: 100,
        exists,
        mod_seq: None,
        token: None,
        kind,
    })
}

#[test]
fn known_octets() {
    let flags = Flags::from_names(["\\Seen", "Zed"]);
    let rows: Vec<(Frame, &[u8])> = vec![
        (
            Frame::Head(ListingHead {
                validity: 1,
                uid_next: 2,
                exists: 3,
                mod_seq: Some(4),
                token: Some(Bytes::from_static(b"t")),
                kind: ListingKind::Changes,
            }),
            &[0x87, 0, 1, 2, 3, 4, 0x41, b't', 1],
        ),
        (head(ListingKind::Full, 0), &[0x87, 0, 7, 0x18, 100, 0, 0xf6, 0xf6, 0]),
        (
            Frame::ListedItem(ListedItem {
                uid: 9,
                flags: flags.clone(),
                received: -2,
                length: Some(10),
            }),
            b"\x85\x01\x09\x82\x65\\Seen\x63Zed\x21\x0a",
        ),
        (
            Frame::Vanished(UidSet::from_ascending([3, 4, 6])),
            &[0x82, 2, 0x82, 0x82, 3, 4, 0x82, 6, 6],
        ),
        (
            Frame::Item(ItemHeader {
                uid: 9,
                flags,
                received: 0,
                length: None,
            }),
            b"\x85\x03\x09\x82\x65\\Seen\x63Zed\x00\xf6",
        ),
        (chunk(b"ab"), b"\x82\x04\x42ab"),
        (Frame::Gone { uid: 5 }, &[0x82, 6, 5]),
        (
            Frame::Failed(ItemFailure {
                uid: 5,
                class: FailureClass::Endpoint,
                text: "no".into(),
            }),
            b"\x84\x07\x05\x03\x62no",
        ),
        (
            Frame::Present(UidSet::from_ascending([7])),
            &[0x82, 8, 0x81, 0x82, 7, 7],
        ),
        (Frame::Present(UidSet::new()), &[0x82, 8, 0x80]),
        (Frame::ListingEnd { items: 1, vanished: 2 }, &[0x83, 9, 1, 2]),
        (
            Frame::BodyEnd {
                items: 1,
                gone: 2,
                failed: 3,
            },
            &[0x84, 10, 1, 2, 3],
        ),
    ];
    for (frame, expected) in rows {
        assert_eq!(octets(&frame), expected, "{frame:?}");
        assert_eq!(decode_all(expected, 1).unwrap(), [frame]);
    }
    let end = octets(&trailer(b"ab"));
    assert_eq!(&end[..5], [0x84, 5, 2, 0x58, 32]);
    assert_eq!(&end[5..37], Digest::of(b"ab").0);
    assert_eq!(end[37..], [0xf4]);
}

#[test]
fn later_versions_may_add() {
    // An unknown kind with a map and a tag inside, then a known frame with one element more.
    let octets = b"\x83\x10\xa1\x01\xc1\x02\x80\x83\x06\x05\x63new\x81\x19\x01\x00";
    assert_eq!(decode_all(octets, 1).unwrap(), [Frame::Gone { uid: 5 }]);
    assert!(matches!(decode_all(&[0x81, 11], 9), Err(FrameError::UnknownKind(11))));
}

#[test]
fn bad_octets_are_refused() {
    let rows: &[(&str, &[u8])] = &[
        ("not an array", &[0x06]),
        ("empty array", &[0x80]),
        ("kind is text", b"\x81\x61a"),
        ("indefinite array", &[0x9f, 6, 5, 0xff]),
        ("indefinite bytes", &[0x82, 4, 0x5f, 0x41, 0, 0xff]),
        ("reserved", &[0x82, 4, 0x1c]),
        ("too few elements", &[0x81, 6]),
        ("uid 0", &[0x82, 6, 0]),
        ("uid too large", &[0x82, 6, 0x1b, 0, 0, 0, 1, 0, 0, 0, 0]),
        ("empty chunk", &[0x82, 4, 0x40]),
        ("announced chunk", &[0x82, 4, 0x5a, 0xff, 0xff, 0xff, 0xff]),
        ("announced array", &[0x9b, 0xff, 0, 0, 0, 0, 0, 0, 0]),
        (
            "digest of 31",
            b"\x84\x05\x00\x58\x1f0123456789012345678901234567890\xf4",
        ),
        ("text not UTF-8", b"\x84\x07\x05\x00\x61\xff"),
        ("unknown class", b"\x84\x07\x05\x04\x61a"),
        ("listing kind", &[0x87, 0, 1, 2, 3, 0xf6, 0xf6, 2]),
        (
            "deep",
            &[0x82, 0x10, 0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0],
        ),
        ("cut", &[0x82, 6]),
    ];
    for (what, octets) in rows {
        assert!(decode_all(octets, 3).is_err(), "{what}");
    }
    let mut large = vec![0x82, 4, 0x5a, 0, 1, 0, 1];
    large.resize(large.len() + MAX_CHUNK + 1, 0);
    assert!(matches!(
        decode_all(&large, 4096),
        Err(FrameError::Limit { part: "chunk", .. })
    ));
    let mut text = b"\x84\x07\x05\x00\x79\x10\x01".to_vec();
    text.resize(text.len() + MAX_TEXT + 1, b'a');
    assert!(matches!(
        decode_all(&text, 4096),
        Err(FrameError::Limit { part: "text", .. })
    ));
}

#[test]
fn the_encoder_keeps_the_limits_itself() {
    let long = Frame::Failed(ItemFailure {
        uid: 1,
        class: FailureClass::Item,
        text: "é".repeat(5000),
    });
    assert_eq!(decode_all(&octets(&long), 999).unwrap().len(), 1);

    let chunks = decode_all(&octets(&Frame::Chunk(vec![7; 150_000].into())), 5000).unwrap();
    assert_eq!(chunks.len(), 3);
    assert!(octets(&Frame::Chunk(Bytes::new())).is_empty());

    let many = UidSet::from_ascending((1..40_000).map(|n| n * 100_000));
    for frame in [Frame::Vanished(many.clone()), Frame::Present(many.clone())] {
        let mut found = UidSet::new();
        for frame in decode_all(&octets(&frame), 5000).unwrap() {
            let (Frame::Vanished(part) | Frame::Present(part)) = frame else {
                panic!("{frame:?}")
            };
            found = found.iter().chain(part.iter()).collect();
        }
        assert_eq!(found, many);
    }

    let Frame::Head(mut listing) = head(ListingKind::Full, 0) else {
        unreachable!()
    };
    listing.token = Some(vec![0; MAX_TEXT + 1].into());
    let frames = decode_all(&octets(&Frame::Head(listing)), 5000).unwrap();
    assert_eq!(frames, [head(ListingKind::Full, 0)]);
}

/// Feeds all frames and the end of the stream; the events, or the first error.
fn check_bodies(asked: &[u32], frames: Vec<Frame>) -> Result<Vec<BodyEvent>, BodyStreamError> {
    let mut check = BodyStreamCheck::new(UidSet::from_ascending(asked.iter().copied()));
    let mut events = Vec::new();
    for frame in frames {
        events.push(check.accept(frame)?);
    }
    check.finish()?;
    Ok(events)
}

fn body_end(items: u64, gone: u64, failed: u64) -> Frame {
    Frame::BodyEnd { items, gone, failed }
}

#[test]
fn a_good_body_stream() {
    let failure = ItemFailure {
        uid: 4,
        class: FailureClass::Item,
        text: "unreadable".into(),
    };
    let events = check_bodies(
        &[2, 3, 4, 5],
        vec![
            item(2),
            chunk(b"ab"),
            chunk(b"c"),
            trailer(b"abc"),
            Frame::Gone { uid: 3 },
            Frame::Failed(failure.clone()),
            item(5),
            trailer(b""),
            body_end(2, 1, 1),
        ],
    )
    .unwrap();
    assert_eq!(events.len(), 9);
    assert_eq!(
        events[3],
        BodyEvent::ItemDone {
            uid: 2,
            length: 3,
            digest: Digest::of(b"abc"),
            line_ends_only: false
        }
    );
    assert_eq!(events[5], BodyEvent::Failed(failure));
    assert_eq!(
        events[8],
        BodyEvent::End {
            items: 2,
            gone: 1,
            failed: 1
        }
    );
}

#[test]
fn bad_body_streams_are_told_apart() {
    use BodyStreamError as E;
    let gone = |uid| Frame::Gone { uid };
    let rows: Vec<(&[u32], Vec<Frame>, E)> = vec![
        (&[1], vec![gone(2)], E::NotAsked { uid: 2 }),
        (&[1], vec![gone(1), gone(1)], E::NotAsked { uid: 1 }),
        (&[1], vec![item(1), trailer(b""), item(1)], E::NotAsked { uid: 1 }),
        (&[1], vec![chunk(b"a")], E::OutOfOrder { frame: "chunk" }),
        (&[1], vec![trailer(b"")], E::OutOfOrder { frame: "trailer" }),
        (&[1, 2], vec![item(1), item(2)], E::OutOfOrder { frame: "item header" }),
        (&[1, 2], vec![item(1), gone(2)], E::OutOfOrder { frame: "gone" }),
        (
            &[1],
            vec![item(1), body_end(1, 0, 0)],
            E::OutOfOrder { frame: "end of bodies" },
        ),
        (&[1], vec![listed(1)], E::OutOfOrder { frame: "listed item" }),
        (
            &[1],
            vec![gone(1), body_end(0, 1, 0), gone(1)],
            E::OutOfOrder { frame: "gone" },
        ),
        (
            &[1],
            vec![gone(1), body_end(0, 1, 0), body_end(0, 1, 0)],
            E::OutOfOrder { frame: "end of bodies" },
        ),
        (
            &[1, 2, 3],
            vec![gone(1), body_end(0, 1, 0)],
            E::Unanswered { count: 2, first: 2 },
        ),
        (&[1], vec![gone(1), body_end(1, 0, 0)], E::Counts),
        (&[1], vec![gone(1)], E::NoEnd),
        (&[1], vec![item(1), chunk(b"a")], E::NoEnd),
        (
            &[1],
            vec![item(1), chunk(b"ab"), trailer(b"a")],
            E::LengthMismatch {
                uid: 1,
                announced: 1,
                received: 2,
            },
        ),
        (
            &[1],
            vec![item(1), chunk(b"ab"), trailer(b"aB")],
            E::DigestMismatch {
                uid: 1,
                announced: Digest::of(b"aB"),
                computed: Digest::of(b"ab"),
            },
        ),
    ];
    for (asked, frames, expected) in rows {
        let what = format!("{frames:?}");
        assert_eq!(check_bodies(asked, frames).unwrap_err(), expected, "{what}");
    }
}

#[test]
fn one_spoilt_item_does_not_spoil_the_stream() {
    let mut check = BodyStreamCheck::new(UidSet::from_ascending([1, 2]));
    check.accept(item(1)).unwrap();
    check.accept(chunk(b"x")).unwrap();
    let error = check.accept(trailer(b"y")).unwrap_err();
    assert_eq!(error.spoilt_item(), Some(1));
    check.accept(Frame::Gone { uid: 2 }).unwrap();
    check.accept(body_end(1, 1, 0)).unwrap();
    check.finish().unwrap();
}

fn check_listing(frames: Vec<Frame>) -> Result<ListingEvent, ListingError> {
    let mut check = ListingCheck::new();
    let mut last = Err(ListingError::NoEnd);
    for frame in frames {
        last = Ok(check.accept(frame)?);
    }
    check.finish()?;
    last
}

#[test]
fn listings() {
    use ListingError as E;
    use ListingKind::{Changes, Full};
    let vanished = |uids: &[u32]| Frame::Vanished(UidSet::from_ascending(uids.iter().copied()));
    let present = |uids: &[u32]| Frame::Present(UidSet::from_ascending(uids.iter().copied()));
    let end = |items, vanished| Frame::ListingEnd { items, vanished };
    let done = |items, vanished, whole| Ok(ListingEvent::End { items, vanished, whole });
    let rows = vec![
        (vec![head(Full, 0), end(0, 0)], done(0, 0, true)),
        (vec![head(Full, 2), listed(1), listed(5), end(2, 0)], done(2, 0, true)),
        (vec![head(Full, 3), listed(1), listed(5), end(2, 0)], done(2, 0, false)),
        (
            vec![
                head(Changes, 9),
                vanished(&[1, 2]),
                listed(5),
                vanished(&[7]),
                end(1, 3),
            ],
            done(1, 3, false),
        ),
        (
            vec![head(Changes, 3), present(&[1, 2]), listed(2), present(&[7]), end(1, 0)],
            done(1, 0, false),
        ),
        (vec![head(Changes, 0), present(&[]), end(0, 0)], done(0, 0, false)),
        (
            vec![head(Changes, 2), present(&[5, 6]), present(&[6])],
            Err(E::NotAscending { uid: 6, before: 6 }),
        ),
        (
            vec![head(Changes, 2), present(&[]), vanished(&[6])],
            Err(E::VanishedAndPresent),
        ),
        (
            vec![head(Changes, 2), vanished(&[6]), present(&[7])],
            Err(E::VanishedAndPresent),
        ),
        (
            vec![head(Full, 0), present(&[1])],
            Err(E::OutOfOrder { frame: "present" }),
        ),
        (vec![listed(1)], Err(E::OutOfOrder { frame: "listed item" })),
        (vec![head(Full, 0), head(Full, 0)], Err(E::OutOfOrder { frame: "head" })),
        (
            vec![head(Full, 0), vanished(&[1])],
            Err(E::OutOfOrder { frame: "vanished" }),
        ),
        (vec![head(Full, 0), chunk(b"a")], Err(E::OutOfOrder { frame: "chunk" })),
        (
            vec![head(Full, 0), end(0, 0), listed(1)],
            Err(E::OutOfOrder { frame: "listed item" }),
        ),
        (
            vec![head(Full, 2), listed(5), listed(5)],
            Err(E::NotAscending { uid: 5, before: 5 }),
        ),
        (
            vec![head(Changes, 2), vanished(&[5, 6]), vanished(&[6])],
            Err(E::NotAscending { uid: 6, before: 6 }),
        ),
        (vec![head(Full, 1), listed(5), end(2, 0)], Err(E::Counts)),
        (vec![head(Full, 1), listed(5)], Err(E::NoEnd)),
    ];
    for (frames, expected) in rows {
        let what = format!("{frames:?}");
        assert_eq!(check_listing(frames), expected, "{what}");
    }
}

#[test]
fn the_ranges_of_a_listing_are_bounded() {
    let mut check = ListingCheck::new();
    check.accept(head(ListingKind::Changes, 1)).unwrap();
    let frame = |number: u32| {
        let first = number * 16_000 + 1;
        Frame::Present(UidSet::from_ascending((0..8_000).map(|n| first + n * 2)))
    };
    let taken = (0..200)
        .take_while(|number| check.accept(frame(*number)).is_ok())
        .count();
    assert_eq!(taken, MAX_LISTING_RANGES / 8_000);
    assert_eq!(check.accept(frame(200)), Err(ListingError::TooManyRanges));
}

fn any_flags() -> impl Strategy<Value = Flags> {
    prop::collection::vec("[a-zA-Zäß$]{1,12}|\\\\Seen|\\\\Draft", 0..8).prop_map(Flags::from_names)
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let uid = 1..=u32::MAX;
    let length = proptest::option::of(any::<u64>());
    let token = proptest::option::of(prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from));
    prop_oneof![
        (any::<[u32; 3]>(), length.clone(), token, any::<bool>()).prop_map(
            |([validity, uid_next, exists], mod_seq, token, full)| Frame::Head(ListingHead {
                validity,
                uid_next,
                exists,
                mod_seq,
                token,
                kind: if full { ListingKind::Full } else { ListingKind::Changes },
            })
        ),
        (uid.clone(), any_flags(), any::<i64>(), length.clone()).prop_map(|(uid, flags, received, length)| {
            Frame::ListedItem(ListedItem {
                uid,
                flags,
                received,
                length,
            })
        }),
        prop::collection::vec(1..1000u32, 1..50).prop_map(|uids| Frame::Vanished(uids.into_iter().collect())),
        prop::collection::vec(1..1000u32, 0..50).prop_map(|uids| Frame::Present(uids.into_iter().collect())),
        (uid.clone(), any_flags(), any::<i64>(), length).prop_map(|(uid, flags, received, length)| Frame::Item(
            ItemHeader {
                uid,
                flags,
                received,
                length
            }
        )),
        prop::collection::vec(any::<u8>(), 1..300).prop_map(|octets| Frame::Chunk(octets.into())),
        (any::<u64>(), any::<[u8; 32]>(), any::<bool>()).prop_map(|(length, digest, line_ends_only)| Frame::Trailer(
            ItemTrailer {
                length,
                digest: Digest(digest),
                line_ends_only
            }
        )),
        uid.clone().prop_map(|uid| Frame::Gone { uid }),
        (uid, "\\PC{0,40}").prop_map(|(uid, text)| Frame::Failed(ItemFailure {
            uid,
            class: FailureClass::Folder,
            text
        })),
        any::<[u64; 2]>().prop_map(|[items, vanished]| Frame::ListingEnd { items, vanished }),
        any::<[u64; 3]>().prop_map(|[items, gone, failed]| body_end(items, gone, failed)),
    ]
}

proptest! {
    #[test]
    fn frames_survive_the_wire(frames in prop::collection::vec(any_frame(), 0..12), piece in 1usize..200) {
        let mut out = BytesMut::new();
        for frame in &frames {
            encode(frame, &mut out);
        }
        prop_assert_eq!(decode_all(&out, piece).unwrap(), frames);
    }

    #[test]
    fn never_panics_on_foreign_octets(octets in prop::collection::vec(any::<u8>(), 0..120), piece in 1usize..40) {
        let _ = decode_all(&octets, piece);
    }

    #[test]
    fn a_flipped_octet_is_noticed(
        content in prop::collection::vec(any::<u8>(), 1..400),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let mut spoilt = content.clone();
        spoilt[at.index(content.len())] ^= 1 << bit;
        let frames = vec![item(77), Frame::Chunk(spoilt.into()), trailer(&content)];
        let error = check_bodies(&[77], frames).unwrap_err();
        prop_assert!(matches!(error, BodyStreamError::DigestMismatch { uid: 77, .. }), "{:?}", error);
    }

    #[test]
    fn no_order_of_frames_breaks_the_checks(frames in prop::collection::vec(any_frame(), 0..12)) {
        let mut bodies = BodyStreamCheck::new(UidSet::from_ascending(1..100));
        let mut listing = ListingCheck::new();
        for frame in frames {
            let _ = bodies.accept(frame.clone());
            let _ = listing.accept(frame);
        }
    }
}

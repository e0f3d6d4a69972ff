//! Sources that break the protocol, deliberately or not: nothing wrong is used, nothing is lost.

use crate::common::{Tamper, World, contents, flags, path, populate};
use bytes::BytesMut;
use rehome_mailbox::{FolderPath, FolderRef};
use rehome_replicate::{PassError, PassKind, ReportKind, Side};
use rehome_wire::frames::{FailureClass, Frame, FrameDecoder, ItemFailure, encode};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

fn frames(octets: &[u8]) -> Vec<Frame> {
    let mut decoder = FrameDecoder::new();
    decoder.push(octets);
    std::iter::from_fn(|| decoder.next().unwrap()).collect()
}

fn octets(frames: &[Frame]) -> Vec<u8> {
    let mut out = BytesMut::new();
    for frame in frames {
        encode(frame, &mut out);
    }
    out.to_vec()
}

/// Changes the frames of the first `times` answers about the inbox.
fn tamper(times: u64, change: impl Fn(&mut Vec<Frame>) + Send + Sync + 'static) -> Option<Tamper> {
    let done = AtomicU64::new(0);
    Some(Box::new(move |folder, _, answer| {
        if !folder.is_inbox() || done.fetch_add(1, Ordering::SeqCst) >= times {
            return answer;
        }
        let mut frames = frames(&answer);
        change(&mut frames);
        octets(&frames)
    }))
}

fn flip(frames: &mut [Frame]) {
    let Some(Frame::Chunk(chunk)) = frames.iter_mut().find(|frame| matches!(frame, Frame::Chunk(_))) else {
        return;
    };
    let mut spoilt = chunk.to_vec();
    spoilt[0] ^= 1;
    *chunk = spoilt.into();
}

async fn world() -> World {
    let world = World::memory();
    populate(&world.source);
    world
}

#[tokio::test]
async fn one_flipped_octet_is_asked_for_again() {
    let world = world().await;
    *world.link.tamper.lock().unwrap() = tamper(1, |frames| flip(frames));
    world.pass(PassKind::Initial).await;
    world.assert_equal("once").await;
}

#[tokio::test]
async fn a_digest_that_never_matches_stops_the_pass_and_nothing_of_it_is_used() {
    let world = world().await;
    *world.link.tamper.lock().unwrap() = tamper(u64::MAX, |frames| flip(frames));
    let error = world.pass_error(PassKind::Initial).await;
    assert!(matches!(error, PassError::ItemDigestMismatch { .. }));
    assert_eq!(error.error_id(), "ItemDigestMismatchException");
    let inbox = contents(&*world.target).await.remove(&FolderPath::inbox()).unwrap();
    assert_eq!(inbox.len(), 4, "the others were whole");
    let source = contents(&world.source).await.remove(&FolderPath::inbox()).unwrap();
    assert!(inbox.iter().all(|item| source.contains(item)));
    world.link.tamper.lock().unwrap().take();
    world.pass(PassKind::Initial).await;
    world.assert_equal("mended").await;
}

#[tokio::test]
async fn broken_promises_end_the_pass_and_the_next_one_goes_on() {
    type Change = fn(&mut Vec<Frame>);
    let changes: [(&str, Change); 7] = [
        ("no end", |frames| drop(frames.pop())),
        ("an item twice", |frames| {
            let item: Vec<Frame> = frames[..3].to_vec();
            frames.splice(3..3, item);
        }),
        ("a uid that was not asked for", |frames| {
            frames.insert(0, Frame::Gone { uid: 4_000 })
        }),
        ("wrong counts", |frames| {
            frames.pop();
            frames.push(Frame::BodyEnd {
                items: 1,
                gone: 0,
                failed: 0,
            });
        }),
        ("an answer missing", |frames| drop(frames.drain(0..3))),
        ("a listing's frame", |frames| {
            frames.insert(0, Frame::ListingEnd { items: 0, vanished: 0 })
        }),
        ("nothing at all", Vec::clear),
    ];
    for (what, change) in changes {
        let world = world().await;
        *world.link.tamper.lock().unwrap() = tamper(u64::MAX, change);
        let error = world.pass_error(PassKind::Initial).await;
        assert!(matches!(error, PassError::Protocol { .. }), "{what}: {error}");
        world.link.tamper.lock().unwrap().take();
        world.pass(PassKind::Incremental).await;
        world.assert_equal(what).await;
    }
}

#[tokio::test]
async fn octets_that_are_no_frames_end_the_pass() {
    let world = world().await;
    *world.link.tamper.lock().unwrap() = Some(Box::new(|_, _, mut answer| {
        answer.truncate(20);
        answer.extend([0xff; 50]);
        answer
    }));
    assert!(matches!(
        world.pass_error(PassKind::Initial).await,
        PassError::Protocol { .. }
    ));
    world.link.tamper.lock().unwrap().take();
    world.pass(PassKind::Initial).await;
    world.assert_equal("mended").await;
}

/// Cut in the middle of an item: asked for again it comes.
#[tokio::test]
async fn a_stream_cut_in_an_item_goes_on_with_it() {
    let world = world().await;
    *world.link.tamper.lock().unwrap() = tamper(1, |frames| frames.truncate(5));
    world.pass(PassKind::Initial).await;
    world.assert_equal("cut").await;
}

/// An item at which the stream breaks off each time is named; the others come.
#[tokio::test]
async fn an_item_that_always_breaks_the_stream_is_reported() {
    let world = world().await;
    *world.link.tamper.lock().unwrap() = tamper(u64::MAX, |frames| {
        if let Some(at) = frames
            .iter()
            .position(|frame| matches!(frame, Frame::Item(item) if item.uid == 3))
        {
            frames.truncate(at + 2);
        }
    });
    let outcome = world.pass(PassKind::Initial).await;
    assert_eq!((outcome.items_appended, outcome.items_skipped), (18, 1));
    let report = world.importer().report().await.unwrap();
    assert_eq!(
        (report.items[0].uid, report.items[0].kind, report.items[0].side),
        (3, ReportKind::Skipped, Side::Source)
    );
    // The source is mended: the item comes although no number changed.
    world.link.tamper.lock().unwrap().take();
    world.pass(PassKind::Incremental).await;
    world.assert_equal("mended").await;
}

fn answer_second(
    with: impl Fn(u32) -> Frame + Send + Sync + 'static,
    end: (u64, u64, u64),
) -> impl Fn(&mut Vec<Frame>) {
    move |frames| {
        let Some(at) = frames
            .iter()
            .position(|frame| matches!(frame, Frame::Item(item) if item.uid == 2))
        else {
            return;
        };
        frames.splice(at..at + 3, [with(2)]);
        frames.pop();
        let (items, gone, failed) = if frames.len() == 1 { (0, end.1, end.2) } else { end };
        frames.push(Frame::BodyEnd { items, gone, failed });
    }
}

#[tokio::test]
async fn an_item_that_the_source_cannot_read_is_reported() {
    let world = world().await;
    let failed = |uid| {
        Frame::Failed(ItemFailure {
            uid,
            class: FailureClass::Item,
            text: "input/output error".into(),
        })
    };
    *world.link.tamper.lock().unwrap() = tamper(u64::MAX, answer_second(failed, (4, 0, 1)));
    let outcome = world.pass(PassKind::Initial).await;
    assert_eq!((outcome.items_appended, outcome.items_skipped), (18, 1));
    let report = world.importer().report().await.unwrap();
    assert!(report.items[0].reason.contains("input/output error"));
    let (source, target) = world.roots().await;
    assert_eq!((source.root, source.skipped), (target.root, 1));
    world.link.tamper.lock().unwrap().take();
    world.pass(PassKind::Incremental).await;
    world.assert_equal("mended").await;
    let wider = |uid| {
        Frame::Failed(ItemFailure {
            uid,
            class: FailureClass::Mailbox,
            text: "closed".into(),
        })
    };
    let world = self::world().await;
    *world.link.tamper.lock().unwrap() = tamper(u64::MAX, answer_second(wider, (4, 0, 1)));
    assert_eq!(
        world.pass_error(PassKind::Initial).await.error_id(),
        "MailboxPlatformException"
    );
}

#[tokio::test]
async fn gone_is_believed_only_if_the_next_listing_agrees() {
    // Said once, wrongly: asked for again.
    let world = world().await;
    *world.link.tamper.lock().unwrap() = tamper(1, answer_second(|uid| Frame::Gone { uid }, (4, 1, 0)));
    world.pass(PassKind::Initial).await;
    world.assert_equal("said once").await;
    // Said always, wrongly: reported.
    let world = self::world().await;
    *world.link.tamper.lock().unwrap() = tamper(u64::MAX, answer_second(|uid| Frame::Gone { uid }, (4, 1, 0)));
    let outcome = world.pass(PassKind::Initial).await;
    assert_eq!(outcome.items_skipped, 1);
    assert!(
        world.importer().report().await.unwrap().items[0]
            .reason
            .contains("gone")
    );
    // Said rightly: nothing to report.
    let world = self::world().await;
    let source = world.source.clone();
    let removed = Arc::new(AtomicU64::new(0));
    *world.link.tamper.lock().unwrap() = {
        let change = answer_second(|uid| Frame::Gone { uid }, (4, 1, 0));
        tamper(1, move |frames| {
            change(frames);
            if removed.fetch_add(1, Ordering::SeqCst) == 0 {
                let removal = rehome_mailbox::Mailbox::remove(&source, FolderRef::any(&INBOX), &[2]);
                futures_util::FutureExt::now_or_never(removal).unwrap().unwrap();
            }
        })
    };
    let outcome = world.pass(PassKind::Initial).await;
    assert_eq!(outcome.items_skipped, 0);
    world.link.tamper.lock().unwrap().take();
    world.pass(PassKind::Final).await;
    world.assert_equal("said rightly").await;
}

static INBOX: std::sync::LazyLock<FolderPath> = std::sync::LazyLock::new(FolderPath::inbox);

/// A source that serves one thing and notes another cannot make the roots agree.
#[tokio::test]
async fn a_root_over_other_octets_differs() {
    let world = world().await;
    *world.link.tamper.lock().unwrap() = tamper(u64::MAX, |frames| {
        let Some(at) = frames
            .iter()
            .position(|frame| matches!(frame, Frame::Item(item) if item.uid == 2))
        else {
            return;
        };
        let forged = b"forged on the way";
        frames[at + 1] = Frame::Chunk(forged[..].into());
        frames[at + 2] = Frame::Trailer(rehome_wire::frames::ItemTrailer {
            length: forged.len() as u64,
            digest: rehome_wire::digest::Digest::of(forged),
            line_ends_only: false,
        });
    });
    world.pass(PassKind::Final).await;
    let (source, target) = world.roots().await;
    assert_eq!(target.exceptions, []);
    assert_ne!(source.root, target.root);
}

/// Exceptions that name nothing are refused.
#[tokio::test]
async fn invented_exceptions_are_refused() {
    let world = world().await;
    world.source.deliver(&path("Sent"), "x", flags(&[]), 1);
    world.pass(PassKind::Final).await;
    let exception = |folder: &str, uid| rehome_replicate::Exception {
        folder: vec![folder.to_owned()],
        uid,
        kind: rehome_replicate::ExceptionKind::Skipped,
        held: rehome_replicate::Held::default(),
    };
    for exceptions in [
        vec![exception("Sent", 99)],
        vec![exception("Nowhere", 1)],
        vec![exception("Sent", 1), exception("Sent", 1)],
    ] {
        let refused = world.link.exporter.source_root(&exceptions, true).await;
        assert_eq!(refused.unwrap_err().link_error().id, "RootMismatchException");
    }
}

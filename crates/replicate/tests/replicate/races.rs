//! What changes while a pass or a sweep is at work, on either side.

use crate::common::{World, contents, flags, path, populate, with_uids};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use rehome_mailbox::{Capabilities, ErrorScope, FolderPath, FolderRef, Mailbox, Retry, memory::MemoryMailbox};
use rehome_replicate::{ExportError, LinkError, PassKind, SweepFolder};
use rehome_wire::{
    digest::Digest,
    frames::{Frame, FrameDecoder, ItemTrailer, encode},
    uid_set::UidSet,
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// A target with or without append-once.
fn target(append_once: bool) -> Arc<MemoryMailbox> {
    Arc::new(MemoryMailbox::with_capabilities(Capabilities {
        append_once,
        keywords: true,
        append_batch: 2,
        ..Capabilities::default()
    }))
}

/// Removes a folder of the source as soon as a request about it begins like this.
fn removes_at(world: &World, request: &'static str, folder: &str) {
    let (source, folder) = (world.source.clone(), path(folder));
    *world.link.watcher.lock().unwrap() = Some(Box::new(move |asked| {
        if asked.starts_with(request) {
            source.remove_folder(&folder).now_or_never().unwrap().unwrap();
        }
    }));
}

#[tokio::test]
async fn a_folder_that_goes_after_it_was_listed_is_no_end_of_the_move() {
    for kind in [PassKind::Initial, PassKind::Final] {
        for request in ["listing Projects/Many", "items Projects/Many"] {
            let world = World::memory();
            populate(&world.source);
            removes_at(&world, request, "Projects/Many");
            let error = world.pass_error(kind).await;
            assert_eq!(error.retry(), Retry::Now, "{request}: {error}");
            assert_eq!(error.error_id(), "CommunicationErrorTransientException");
            world.pass(kind).await;
            world.assert_equal(request).await;
        }
    }
    // Also in the listing that decides about "gone".
    let world = World::memory();
    populate(&world.source);
    let said = AtomicBool::new(false);
    *world.link.tamper.lock().unwrap() = Some(Box::new(move |folder, _, answer| {
        if *folder != path("Sent") || said.swap(true, Ordering::SeqCst) {
            return answer;
        }
        octets(&[
            Frame::Gone { uid: 1 },
            Frame::BodyEnd {
                items: 0,
                gone: 1,
                failed: 0,
            },
        ])
    }));
    let source = world.source.clone();
    let asked = AtomicBool::new(false);
    *world.link.watcher.lock().unwrap() = Some(Box::new(move |request| {
        if request.starts_with("items Sent") {
            asked.store(true, Ordering::SeqCst);
        } else if request.starts_with("listing Sent") && asked.load(Ordering::SeqCst) {
            source.remove_folder(&path("Sent")).now_or_never().unwrap().unwrap();
        }
    }));
    let error = world.pass_error(PassKind::Initial).await;
    assert_eq!(error.retry(), Retry::Now, "{error}");
    world.pass(PassKind::Final).await;
    world.assert_equal("gone with its folder").await;
}

fn octets(frames: &[Frame]) -> Vec<u8> {
    let mut out = BytesMut::new();
    for frame in frames {
        encode(frame, &mut out);
    }
    out.to_vec()
}

#[tokio::test]
async fn nothing_is_served_under_another_validity() {
    let world = World::memory();
    populate(&world.source);
    world.pass(PassKind::Final).await;
    world.roots().await;
    let exporter = &world.link.exporter;
    let inbox = FolderPath::inbox();
    let early = UidSet::from_ascending([1, 2]);
    let validity = world.source.list(&inbox, None).await.unwrap().status.uid_validity;
    for swept in [true, false] {
        for asked in [validity + 1, 0] {
            let refused = if swept {
                exporter.sweep_items(&inbox, asked, &early).await
            } else {
                exporter.items(&inbox, asked, &early).await
            };
            let error = refused.err().unwrap();
            assert!(matches!(error, ExportError::Mailbox(_)), "{error}");
            let LinkError { scope, retry, .. } = error.link_error();
            assert_eq!((scope, retry), (ErrorScope::Folder, Retry::Now));
        }
    }
    let refused = exporter.sweep_items(&inbox, validity, &early).await;
    assert!(matches!(refused, Err(ExportError::NotLate { uid: 1, .. })));
    assert!(exporter.items(&inbox, validity, &early).await.is_ok());
}

#[tokio::test]
async fn a_root_that_is_only_computed_moves_no_baseline() {
    let world = World::memory();
    populate(&world.source);
    let exporter = &world.link.exporter;
    let (_, listing) = exporter.source_root_unstored(&[], true).await.unwrap();
    assert!(matches!(
        exporter.additions_since_root().await,
        Err(ExportError::NoRoot)
    ));
    exporter.remember_root(listing).await.unwrap();
    world.source.deliver(&path("Sent"), "late", flags(&[]), 1);
    let late = exporter.additions_since_root().await.unwrap();
    assert_eq!(late.len(), 1);
    // Computed once more, after the promise.
    let (again, _) = exporter.source_root_unstored(&[], true).await.unwrap();
    assert_eq!(again.items, 20);
    assert_eq!(exporter.additions_since_root().await.unwrap(), late);
    assert_eq!(exporter.source_root(&[], true).await.unwrap(), again);
    assert_eq!(exporter.additions_since_root().await.unwrap(), []);
}

#[tokio::test]
async fn late_items_are_asked_for_a_thousand_at_a_time_and_bounded() {
    let mut world = World::memory();
    world.settings.memory_budget = 256 << 20;
    populate(&world.source);
    world.pass(PassKind::Final).await;
    world.roots().await;
    for number in 0..2_500_u32 {
        world
            .source
            .deliver(&path("Sent"), format!("late {number}"), flags(&[]), 1);
    }
    world.link.sweeping.store(true, Ordering::SeqCst);
    let additions = world.link.exporter.additions_since_root().await.unwrap();
    world.link.take_requests();
    let outcome = world.importer().sweep(&additions).await.unwrap();
    assert_eq!((outcome.appended, outcome.skipped), (2_500, 0));
    let requests = world.link.take_requests();
    assert_eq!(
        requests,
        [
            "items Sent [(2, 1001)]",
            "items Sent [(1002, 2001)]",
            "items Sent [(2002, 2501)]"
        ]
    );
    assert_eq!(contents(&*world.target).await, contents(&world.source).await);
    let many = SweepFolder {
        uids: UidSet::from_ascending(1..=500_001),
        ..additions[0].clone()
    };
    let error = world.importer().sweep(&[many.clone(), many]).await.unwrap_err();
    assert_eq!(error.retry(), Retry::Never);
    assert_eq!(world.link.take_requests(), [""; 0]);
}

/// A sweep cut at every step, with the user at work before it is repeated: his flags stay, nothing comes twice.
#[tokio::test]
async fn a_sweep_cut_anywhere_leaves_a_live_mailbox_to_its_user() {
    for append_once in [true, false] {
        for removes_folder in [true, false] {
            let mut met = 0;
            for cut in 0.. {
                let world = World::new(MemoryMailbox::new(), target(append_once));
                populate(&world.source);
                world.pass(PassKind::Final).await;
                world.roots().await;
                world.source.deliver(&path("Sent"), "late", flags(&["\\Seen"]), 70);
                world.link.sweeping.store(true, Ordering::SeqCst);
                let additions = world.link.exporter.additions_since_root().await.unwrap();
                world.fuse.arm(cut);
                if world.importer().sweep(&additions).await.is_ok() {
                    assert!(cut > 5, "{cut}");
                    break;
                }
                world.fuse.disarm();
                let context = format!("append once {append_once}, folder removed {removes_folder}, cut {cut}");
                let sent = with_uids(&*world.target).await.remove(&path("Sent")).unwrap();
                let came = sent.iter().find(|(_, item)| item.0 == b"late").map(|(uid, _)| *uid);
                if removes_folder {
                    world.target.remove_folder(&path("Sent")).await.unwrap();
                } else if let Some(uid) = came {
                    met += 1;
                    let flagged = [(uid, flags(&["\\Flagged"]))];
                    world
                        .target
                        .set_flags(FolderRef::any(&path("Sent")), &flagged)
                        .await
                        .unwrap();
                }
                for _ in 0..2 {
                    world.importer().sweep(&additions).await.expect(&context);
                }
                let sent = contents(&*world.target).await.remove(&path("Sent")).expect(&context);
                let late: Vec<_> = sent.into_iter().filter(|item| item.0 == b"late").collect();
                if removes_folder {
                    assert!(late.len() <= 1, "{context}");
                } else {
                    let expected = if came.is_some() { "\\flagged" } else { "\\seen" };
                    assert_eq!(late, [(b"late".to_vec(), vec![expected.to_owned()], 70)], "{context}");
                }
            }
            assert!(removes_folder || met > 0);
        }
    }
}

/// Eight MiB in the place of every item of the inbox, whatever the hints say.
fn swell(answer: &[u8]) -> Vec<u8> {
    let chunk = Bytes::from(vec![b'x'; 64 * 1024]);
    let whole = chunk.repeat(128);
    let trailer = ItemTrailer {
        length: whole.len() as u64,
        digest: Digest::of(&whole),
        line_ends_only: false,
    };
    let mut decoder = FrameDecoder::new();
    decoder.push(answer);
    let mut swollen = Vec::new();
    while let Some(frame) = decoder.next().unwrap() {
        match frame {
            Frame::Chunk(_) => swollen.extend(std::iter::repeat_n(Frame::Chunk(chunk.clone()), 128)),
            Frame::Trailer(_) => swollen.push(Frame::Trailer(trailer)),
            other => swollen.push(other),
        }
    }
    octets(&swollen)
}

#[tokio::test]
async fn an_answer_much_longer_than_its_hints_is_taken_in_parts() {
    let mut world = World::memory();
    world.settings.read_back = false;
    world.settings.memory_budget = 256 << 20;
    for number in 0..11 {
        world
            .source
            .deliver(&FolderPath::inbox(), format!("{number}"), flags(&[]), number);
    }
    *world.link.tamper.lock().unwrap() = Some(Box::new(|_, _, answer| swell(&answer)));
    let outcome = world.pass(PassKind::Initial).await;
    assert_eq!((outcome.items_appended, outcome.octets_received), (11, (11 * 8) << 20));
    let mut requests = world.link.take_requests();
    requests.retain(|request| request.starts_with("items"));
    // 64 MiB are what honest hints can come to; the ninth item goes beyond.
    assert_eq!(requests, ["items INBOX [(1, 11)]", "items INBOX [(10, 11)]"]);
    let listing = world.target.list(&FolderPath::inbox(), None).await.unwrap();
    assert_eq!(listing.items.len(), 11);
    let spooled = std::fs::read_dir(&world.settings.spool).map_or(0, |entries| entries.count());
    assert_eq!(spooled, 0);
}

//! Passes over sources that change, on the memory driver with and without its powers, and on Maildir.

use crate::common::{Chunks, World, contents, flags, folders, path, populate, with_uids};
use proptest::prelude::*;
use rehome_mailbox::{
    Capabilities, FolderPath, FolderRef, Mailbox, NewFolder, maildir::MaildirMailbox, memory::MemoryMailbox,
};
use rehome_replicate::{
    ChunkKind, ChunkStorage, ExceptionKind, ExportError, Exporter, Held, PassError, PassKind, ReportKind, Side,
};
use rehome_wire::canonical::canonical;
use std::sync::{Arc, atomic::Ordering};

fn poor() -> Capabilities {
    Capabilities {
        keywords: true,
        append_batch: 3,
        ..Capabilities::default()
    }
}

fn assert_send<T: Send>(value: T) -> T {
    value
}

#[tokio::test]
async fn a_whole_move() {
    for (source, target) in [
        (MemoryMailbox::new(), MemoryMailbox::new()),
        (
            MemoryMailbox::with_capabilities(poor()),
            MemoryMailbox::with_capabilities(poor()),
        ),
    ] {
        let world = World::new(source, Arc::new(target));
        folders(&world.source).await;
        populate(&world.source);
        let outcome = assert_send(world.importer().pass(PassKind::Initial)).await.unwrap();
        assert_eq!(
            (outcome.folders, outcome.folders_created, outcome.items_appended),
            (5, 5, 19)
        );
        assert_eq!(outcome.items_skipped, 0);
        world.assert_equal("initial").await;
        assert_eq!(world.importer().report().await.unwrap().line_ends_only, 14);

        world
            .source
            .deliver(&FolderPath::inbox(), "Subject: late\r\n\r\n", flags(&[]), 5);
        world
            .source
            .set_flags(
                FolderRef::any(&FolderPath::inbox()),
                &[(1, flags(&["New", "\\Flagged"])), (2, flags(&["\\Seen"]))],
            )
            .await
            .unwrap();
        world
            .source
            .remove(FolderRef::any(&path("Projects/Many")), &[2, 5])
            .await
            .unwrap();
        let outcome = world.pass(PassKind::Incremental).await;
        assert_eq!(
            (outcome.items_appended, outcome.flags_changed, outcome.items_removed),
            (1, 2, 2)
        );
        world.assert_equal("incremental").await;
        let outcome = world.pass(PassKind::Final).await;
        assert_eq!(
            (outcome.items_appended, outcome.items_removed, outcome.flags_changed),
            (0, 0, 0)
        );
        world.assert_equal("final").await;
    }
}

#[tokio::test]
async fn uids_are_kept_together() {
    let world = World::memory();
    folders(&world.source).await;
    populate(&world.source);
    world
        .source
        .remove(FolderRef::any(&FolderPath::inbox()), &[2])
        .await
        .unwrap();
    world.pass(PassKind::Initial).await;
    world.source.deliver(&FolderPath::inbox(), "new", flags(&[]), 3);
    // What came and went between passes has used up a uid.
    let gone = world.source.deliver(&path("Empty"), "short-lived", flags(&[]), 3);
    world
        .source
        .remove(FolderRef::any(&path("Empty")), &[gone])
        .await
        .unwrap();
    world.pass(PassKind::Final).await;
    assert_eq!(with_uids(&world.source).await, with_uids(&*world.target).await);
    let numbers = |folders: Vec<rehome_mailbox::Folder>| -> Vec<_> {
        folders
            .into_iter()
            .filter_map(|f| {
                Some((
                    f.path,
                    f.special_use,
                    f.subscribed,
                    f.status?.uid_validity,
                    f.status?.uid_next,
                ))
            })
            .collect()
    };
    assert_eq!(
        numbers(world.source.folders().await.unwrap()),
        numbers(world.target.folders().await.unwrap())
    );
}

/// An unchanged mailbox costs one request, and nothing on the target.
#[tokio::test]
async fn unchanged_costs_nothing() {
    let world = World::memory();
    folders(&world.source).await;
    populate(&world.source);
    world.pass(PassKind::Initial).await;
    world.link.take_requests();
    world.faulty.take_commands();
    world.pass(PassKind::Incremental).await;
    assert_eq!(world.link.take_requests(), ["folders"]);
    assert_eq!(world.faulty.take_commands(), [""; 0]);
    world.source.deliver(&path("Sent"), "x", flags(&[]), 3);
    world.pass(PassKind::Incremental).await;
    assert_eq!(
        world.link.take_requests(),
        ["folders", "listing Sent since", "items Sent [(2, 2)]"]
    );
    assert_eq!(world.faulty.take_commands(), ["folders", "append", "read", "list"]);
}

/// Arrival order is what clients show: the inbox and what was sent come first, each in the order of uids.
#[tokio::test]
async fn the_order_of_work() {
    let world = World::memory();
    folders(&world.source).await;
    populate(&world.source);
    world.pass(PassKind::Initial).await;
    let requests = world.link.take_requests();
    let items: Vec<&str> = requests
        .iter()
        .filter_map(|request| request.strip_prefix("items "))
        .collect();
    assert_eq!(
        items,
        [
            "INBOX [(1, 5)]",
            "Sent [(1, 1)]",
            "Projects/Many [(1, 12)]",
            "Projects/Übersicht [(1, 1)]"
        ]
    );
    let steps = world.ledger.steps.lock().unwrap().clone();
    assert_eq!(
        &steps[..4],
        [
            "replicate.folders_creating",
            "replicate.folders_created",
            "replicate.intent",
            "replicate.applied"
        ]
    );
    let end = steps.iter().position(|step| *step == "replicate.pass_end").unwrap();
    assert!(steps[end + 1..].iter().all(|step| *step == "replicate.folder_verified"));
}

#[tokio::test]
async fn a_reset_validity_copies_nothing_twice() {
    for target in [MemoryMailbox::new(), MemoryMailbox::with_capabilities(poor())] {
        let world = World::new(MemoryMailbox::new(), Arc::new(target));
        populate(&world.source);
        world.pass(PassKind::Initial).await;
        world
            .source
            .remove(FolderRef::any(&FolderPath::inbox()), &[1])
            .await
            .unwrap();
        world
            .source
            .deliver(&FolderPath::inbox(), "Subject: fresh\r\n\r\n", flags(&[]), 3);
        world.source.renumber(&FolderPath::inbox(), 777);
        world
            .source
            .set_flags(FolderRef::any(&FolderPath::inbox()), &[(1, flags(&["Changed"]))])
            .await
            .unwrap();
        let outcome = world.pass(PassKind::Incremental).await;
        assert_eq!(
            (outcome.items_paired, outcome.items_appended, outcome.items_removed),
            (4, 1, 1)
        );
        world.assert_equal("reset").await;
        world.source.renumber(&FolderPath::inbox(), 778);
        world.pass(PassKind::Final).await;
        world.assert_equal("reset again").await;
    }
}

/// An interrupted removal may have taken items that the ledger still has: nothing is paired with them.
#[tokio::test]
async fn nothing_is_paired_with_what_the_target_lost() {
    let world = World::new(MemoryMailbox::new(), Arc::new(MemoryMailbox::with_capabilities(poor())));
    populate(&world.source);
    world.pass(PassKind::Initial).await;
    world
        .target
        .remove(FolderRef::any(&FolderPath::inbox()), &[1])
        .await
        .unwrap();
    world.source.renumber(&FolderPath::inbox(), 777);
    let outcome = world.pass(PassKind::Incremental).await;
    assert_eq!((outcome.items_paired, outcome.items_appended), (4, 1));
    world.assert_equal("reset").await;
}

#[tokio::test]
async fn a_renamed_folder_is_renamed_on_the_target() {
    let world = World::memory();
    populate(&world.source);
    world.pass(PassKind::Initial).await;
    world.link.take_requests();
    world.faulty.take_commands();
    world
        .source
        .rename_folder(&path("Projects/Many"), &path("Archive/Old"))
        .await
        .unwrap();
    world.source.deliver(&path("Archive/Old"), "later", flags(&[]), 3);
    let outcome = world.pass(PassKind::Incremental).await;
    assert_eq!(
        (outcome.folders_renamed, outcome.items_appended, outcome.folders_removed),
        (1, 1, 0)
    );
    assert!(world.faulty.take_commands().contains(&"rename_folder".to_owned()));
    let bodies = |requests: Vec<String>| {
        requests
            .into_iter()
            .filter(|request| request.starts_with("items"))
            .count()
    };
    assert_eq!(bodies(world.link.take_requests()), 1);
    world.assert_equal("renamed").await;
    assert!(!contents(&*world.target).await.contains_key(&path("Projects/Many")));
    // A parent with its children, and two that change places.
    world.source.deliver(&path("Archive"), "parent", flags(&[]), 4);
    world.pass(PassKind::Incremental).await;
    for (from, to) in [
        ("Archive", "Attic"),
        ("Sent", "Away"),
        ("Attic", "Sent"),
        ("Away", "Attic"),
    ] {
        world.source.rename_folder(&path(from), &path(to)).await.unwrap();
    }
    let outcome = world.pass(PassKind::Final).await;
    world.assert_equal("changed places").await;
    assert_eq!(
        outcome.folders_created + outcome.folders_removed,
        2,
        "the swap is not proved without ids"
    );
}

/// Where the numbers do not prove a renaming, the items are copied on the target.
#[tokio::test]
async fn a_folder_that_may_be_another_is_copied_on_the_target() {
    let world = World::memory();
    populate(&world.source);
    world.pass(PassKind::Initial).await;
    world.source.renumber(&path("Projects/Many"), 4_711);
    world
        .source
        .rename_folder(&path("Projects/Many"), &path("Archive/Old"))
        .await
        .unwrap();
    let outcome = world.pass(PassKind::Incremental).await;
    assert_eq!(
        (outcome.items_copied, outcome.items_appended, outcome.folders_removed),
        (12, 12, 1)
    );
    world.assert_equal("copied").await;
    assert!(!contents(&*world.target).await.contains_key(&path("Projects/Many")));
}

#[tokio::test]
async fn an_item_moved_between_folders_is_copied() {
    let world = World::memory();
    populate(&world.source);
    world.pass(PassKind::Initial).await;
    world
        .source
        .remove(FolderRef::any(&path("Projects/Many")), &[3])
        .await
        .unwrap();
    world.source.deliver(&path("Sent"), "Subject: 2\n\n2\n", flags(&[]), 2);
    let outcome = world.pass(PassKind::Incremental).await;
    assert_eq!((outcome.items_copied, outcome.items_removed), (1, 1));
    world.assert_equal("moved").await;
}

#[tokio::test]
async fn mass_loss_needs_a_second_listing() {
    let world = World::memory();
    world.source.deliver(&FolderPath::inbox(), "x", flags(&[]), 3);
    for number in 0..60 {
        world
            .source
            .deliver(&path("Big"), format!("{number}"), flags(&[]), number);
    }
    world.pass(PassKind::Initial).await;
    // Few: believed at once.
    world
        .source
        .remove(FolderRef::any(&path("Big")), &(1..=20).collect::<Vec<_>>())
        .await
        .unwrap();
    world.link.take_requests();
    world.pass(PassKind::Incremental).await;
    assert!(
        !world
            .link
            .take_requests()
            .iter()
            .any(|request| request.ends_with("fresh"))
    );
    // Many: a second listing on a new connection.
    world
        .source
        .remove(FolderRef::any(&path("Big")), &(21..=50).collect::<Vec<_>>())
        .await
        .unwrap();
    world.pass(PassKind::Incremental).await;
    assert!(world.link.take_requests().contains(&"listing Big fresh".to_owned()));
    world.assert_equal("lost many").await;
    // A folder that only one connection misses is there.
    *world.link.hidden.lock().unwrap() = vec![path("Big")];
    let error = world.pass_error(PassKind::Incremental).await;
    assert_eq!(error.error_id(), "SourceContentsShrankException");
    *world.link.hidden.lock().unwrap() = vec![FolderPath::inbox()];
    assert!(matches!(
        world.pass_error(PassKind::Incremental).await,
        PassError::SourceContentsShrank { .. }
    ));
    world.link.hidden.lock().unwrap().clear();
    world.assert_equal("nothing was removed").await;
    // A reset that also loses much is looked at twice as well.
    for number in 0..60 {
        world
            .source
            .deliver(&path("Big"), format!("again {number}"), flags(&[]), number);
    }
    world.pass(PassKind::Incremental).await;
    world
        .source
        .remove(FolderRef::any(&path("Big")), &(51..=110).collect::<Vec<_>>())
        .await
        .unwrap();
    world.source.renumber(&path("Big"), 4_000);
    world.link.take_requests();
    world.pass(PassKind::Incremental).await;
    assert!(world.link.take_requests().contains(&"listing Big fresh".to_owned()));
    world.assert_equal("reset and lost many").await;
}

#[tokio::test]
async fn large_items_go_through_the_spool() {
    let world = World::memory();
    let large: Vec<u8> = (0..5_000_000_u32).flat_map(|n| n.to_le_bytes()).take(9 << 20).collect();
    world.source.deliver(
        &FolderPath::inbox(),
        [b"Subject: large\r\n\r\n", &large[..]].concat(),
        flags(&[]),
        3,
    );
    world.source.deliver(&FolderPath::inbox(), "small", flags(&[]), 3);
    world
        .source
        .deliver(&FolderPath::inbox(), vec![b'\n'; 3 << 20], flags(&[]), 3);
    world.pass(PassKind::Initial).await;
    world.assert_equal("large").await;
}

#[tokio::test]
async fn what_the_target_refuses_is_reported_and_left_out() {
    let target = MemoryMailbox::with_capabilities(Capabilities {
        max_item_length: Some(2_000_000),
        keywords: true,
        append_batch: 5,
        ..poor()
    });
    let world = World::new(MemoryMailbox::new(), Arc::new(target));
    populate(&world.source);
    let mut large = b"Subject: too large\n\n".to_vec();
    large.resize(3_000_000, b'x');
    let uid = world.source.deliver(&FolderPath::inbox(), large, flags(&[]), 99);
    // The hint allows it, the canonical form does not.
    let mut lines = b"Subject: many lines\n\n".to_vec();
    lines.resize(1_500_000, b'\n');
    let grown = world.source.deliver(&FolderPath::inbox(), lines, flags(&[]), 98);
    let outcome = world.pass(PassKind::Initial).await;
    assert_eq!(outcome.items_skipped, 2);
    let report = world.importer().report().await.unwrap();
    assert_eq!(report.count(ReportKind::Skipped), 2);
    let item = &report.items[1];
    assert_eq!(
        (item.uid, item.side, item.size.unwrap() > 2_000_000),
        (grown, Side::Target, true)
    );
    assert_eq!((item.subject.as_deref(), item.received), (Some("many lines"), Some(98)));
    let (source, target) = world.roots().await;
    assert_eq!(source.root, target.root);
    assert_eq!((source.skipped, source.items), (2, 19));
    let skipped: Vec<_> = target.exceptions.iter().map(|e| (e.uid, e.kind)).collect();
    assert_eq!(
        skipped,
        [(uid, ExceptionKind::Skipped), (grown, ExceptionKind::Skipped)]
    );
    let refused = world.link.exporter.source_root(&target.exceptions, false).await;
    assert!(matches!(refused, Err(ExportError::NotApproved { count: 2 })));
    // Found first, found again: the time stays, so that an approval holds.
    world.pass(PassKind::Incremental).await;
    assert_eq!(world.importer().report().await.unwrap(), report);
    // Gone from the source, gone from the report.
    world
        .source
        .remove(FolderRef::any(&FolderPath::inbox()), &[uid, grown])
        .await
        .unwrap();
    world.pass(PassKind::Incremental).await;
    assert_eq!(world.importer().report().await.unwrap().items, []);
    world.assert_equal("without").await;
}

#[tokio::test]
async fn lost_keywords_are_exceptions() {
    let target = MemoryMailbox::with_capabilities(Capabilities {
        keywords: false,
        ..poor()
    });
    let world = World::new(MemoryMailbox::new(), Arc::new(target));
    world
        .source
        .deliver(&FolderPath::inbox(), "a", flags(&["\\Seen", "Work"]), 3);
    world.source.deliver(&FolderPath::inbox(), "b", flags(&["\\Seen"]), 4);
    world.pass(PassKind::Initial).await;
    let kinds: Vec<_> = world
        .importer()
        .report()
        .await
        .unwrap()
        .items
        .iter()
        .map(|item| (item.uid, item.kind))
        .collect();
    assert_eq!(kinds, [(1, ReportKind::Flags), (1, ReportKind::Keywords)]);
    let (source, target) = world.roots().await;
    assert_eq!(source.root, target.root, "leaves hold the source's flags");
    let held = Held {
        flags: Some(vec!["\\seen".into()]),
        ..Held::default()
    };
    assert_eq!(target.exceptions[0].held, held);
    world
        .source
        .set_flags(FolderRef::any(&FolderPath::inbox()), &[(1, flags(&["\\Seen"]))])
        .await
        .unwrap();
    world.pass(PassKind::Incremental).await;
    let (_, target) = world.roots().await;
    assert_eq!(target.exceptions, []);
    assert_eq!(world.importer().report().await.unwrap().items, []);
}

#[tokio::test]
async fn the_target_root_sees_what_happened_behind_its_back() {
    let world = World::memory();
    populate(&world.source);
    world.pass(PassKind::Initial).await;
    // Flags are set again.
    world
        .target
        .set_flags(FolderRef::any(&FolderPath::inbox()), &[(1, flags(&["\\Draft"]))])
        .await
        .unwrap();
    world.roots().await;
    world.assert_equal("flags were mended").await;
    // A lost item is brought again by the next pass. Without given uids, since memory never uses a uid again.
    let world = World::new(MemoryMailbox::new(), Arc::new(MemoryMailbox::with_capabilities(poor())));
    populate(&world.source);
    world.pass(PassKind::Initial).await;
    world
        .target
        .remove(FolderRef::any(&FolderPath::inbox()), &[2, 3])
        .await
        .unwrap();
    let error = world.importer().target_root().await.unwrap_err();
    assert!(
        matches!(error, PassError::TargetDiffers { mended: true, .. }),
        "{error}"
    );
    assert_eq!(world.pass(PassKind::Final).await.items_appended, 2);
    world.assert_equal("brought again").await;
    // Something that the move did not bring.
    append_foreign(&world, b"stranger").await;
    let error = world.importer().target_root().await.unwrap_err();
    assert!(
        matches!(error, PassError::TargetDiffers { mended: false, .. }),
        "{error}"
    );
}

/// What a target alters is named, the roots agree over what was sent, and the exception says what is held.
#[tokio::test]
async fn a_target_that_rewrites_is_caught() {
    let world = World::memory();
    populate(&world.source);
    *world.faulty.rewrite.lock().unwrap() = Some(Box::new(|octets| {
        octets.iter().map(|o| if *o > 127 { b'X' } else { *o }).collect()
    }));
    world.pass(PassKind::Final).await;
    let report = world.importer().report().await.unwrap();
    assert_eq!(
        report
            .items
            .iter()
            .map(|item| (item.uid, item.kind))
            .collect::<Vec<_>>(),
        [(5, ReportKind::Altered)]
    );
    let (source, target) = world.roots().await;
    assert_eq!(source.root, target.root);
    let held = canonical(b"no header, X\0 and a lone \r in it\r\r\n");
    assert_eq!(target.exceptions.len(), 1);
    assert_eq!(target.exceptions[0].kind, ExceptionKind::Altered);
    assert_eq!(
        target.exceptions[0].held.digest,
        Some(rehome_wire::digest::Digest::of(&held))
    );
    // Reset: what was altered is not taken for the item.
    *world.faulty.rewrite.lock().unwrap() = None;
    world.source.renumber(&FolderPath::inbox(), 70);
    assert_eq!(world.pass(PassKind::Final).await.items_appended, 1);
    world.assert_equal("sent again").await;
}

/// An append whose answer was lost commits once more after recovery, as on a slow server.
#[tokio::test]
async fn late_doubles_go() {
    // Cut behind the first append of the inbox.
    let mut cut = 0;
    let world = loop {
        let world = World::new(MemoryMailbox::new(), Arc::new(MemoryMailbox::with_capabilities(poor())));
        populate(&world.source);
        world.fuse.arm(cut);
        world.importer().pass(PassKind::Initial).await.unwrap_err();
        world.fuse.disarm();
        if world
            .target
            .list(&FolderPath::inbox(), None)
            .await
            .is_ok_and(|listing| !listing.items.is_empty())
        {
            break world;
        }
        cut += 1;
    };
    world.pass(PassKind::Initial).await;
    world.assert_equal("recovered").await;
    assert!(
        world.ledger.keys().iter().any(|key| key.kind == ChunkKind::Intent),
        "the window stays suspect"
    );
    for by_pass in [true, false] {
        append_foreign(&world, b"Subject: two\r\n\r\ntwin\r\n").await;
        if by_pass {
            world.pass(PassKind::Incremental).await;
        } else {
            world.roots().await;
        }
        world.assert_equal("the double is gone").await;
    }
}

async fn append_foreign(world: &World, octets: &'static [u8]) {
    let body = bytes::Bytes::from_static(octets);
    let item = rehome_mailbox::NewItem {
        key: rehome_mailbox::ItemKey {
            move_id: 1,
            folder: 1,
            source_validity: 1,
            source_uid: 1,
        },
        uid: None,
        flags: flags(&[]),
        received: 0,
        length: body.len() as u64,
        digest: rehome_wire::digest::Digest::of(&body),
        body: rehome_mailbox::Body::Memory(body),
    };
    world
        .target
        .append(FolderRef::any(&FolderPath::inbox()), vec![item])
        .await
        .unwrap();
}

/// Notes that a crash lost are made again by reading.
#[tokio::test]
async fn a_root_without_notes_is_the_same() {
    let world = World::memory();
    folders(&world.source).await;
    populate(&world.source);
    world.pass(PassKind::Final).await;
    let (source, _) = world.roots().await;
    let other = Arc::new(Chunks::default());
    let exporter = Exporter::new(
        Arc::new(world.source.clone()),
        Arc::clone(&other) as Arc<dyn ChunkStorage>,
    );
    let again = exporter.clone();
    let root = tokio::spawn(async move { again.source_root(&[], false).await })
        .await
        .unwrap()
        .unwrap();
    assert_eq!(root, source);
    assert_eq!(exporter.source_root(&[], false).await.unwrap(), source);
    let noted = |chunks: &Chunks| {
        chunks
            .keys()
            .into_iter()
            .filter(|key| key.kind == ChunkKind::Notes)
            .count()
    };
    assert_eq!(noted(&other), noted(&world.notes));
}

#[tokio::test]
async fn a_source_that_changed_after_the_final_pass_has_another_root() {
    let world = World::memory();
    populate(&world.source);
    world.pass(PassKind::Final).await;
    let target = world.importer().target_root().await.unwrap();
    for change in 0..3 {
        match change {
            0 => world
                .source
                .set_flags(FolderRef::any(&path("Sent")), &[(1, flags(&[]))])
                .await
                .unwrap()
                .clear(),
            1 => drop(world.source.deliver(&path("Sent"), "late", flags(&[]), 1)),
            _ => world.source.remove(FolderRef::any(&path("Sent")), &[1]).await.unwrap(),
        }
        let source = world.link.exporter.source_root(&[], false).await.unwrap();
        assert_ne!(source.root, target.root, "change {change}");
    }
}

#[tokio::test]
async fn without_read_back_there_is_no_root() {
    let mut world = World::memory();
    world.settings.read_back = false;
    populate(&world.source);
    world.pass(PassKind::Final).await;
    let error = world.importer().target_root().await.unwrap_err();
    assert_eq!(error.error_id(), "ReadBackRequiredException");
    // Switched on again, what was not read back is.
    world.settings.read_back = true;
    world.assert_equal("read back later").await;
}

#[tokio::test]
async fn a_sweep_brings_what_came_late_once() {
    let world = World::memory();
    populate(&world.source);
    assert!(matches!(
        world.link.exporter.additions_since_root().await,
        Err(ExportError::NoRoot)
    ));
    world.pass(PassKind::Final).await;
    world.roots().await;
    assert_eq!(world.link.exporter.additions_since_root().await.unwrap(), []);
    world
        .source
        .deliver(&FolderPath::inbox(), "late one", flags(&["\\Seen"]), 1);
    world.source.deliver(&path("New"), "late two", flags(&[]), 2);
    // The user has been at work on the target meanwhile.
    world
        .target
        .remove(FolderRef::any(&FolderPath::inbox()), &[1])
        .await
        .unwrap();
    let before = contents(&*world.target).await;
    world.link.sweeping.store(true, Ordering::SeqCst);
    for round in 0..3 {
        let additions = world.link.exporter.additions_since_root().await.unwrap();
        assert_eq!(additions.iter().map(|addition| addition.uids.len()).sum::<usize>(), 2);
        let outcome = world.importer().sweep(&additions).await.unwrap();
        assert_eq!(outcome.appended, if round == 0 { 2 } else { 0 });
    }
    let mut expected = before;
    expected
        .get_mut(&FolderPath::inbox())
        .unwrap()
        .push((b"late one".to_vec(), vec!["\\seen".into()], 1));
    expected.get_mut(&FolderPath::inbox()).unwrap().sort();
    expected.insert(path("New"), vec![(b"late two".to_vec(), vec![], 2)]);
    assert_eq!(contents(&*world.target).await, expected);
    // Nothing but late items is served.
    let early = rehome_wire::uid_set::UidSet::from_ascending([1, 6]);
    let validity = world
        .source
        .list(&FolderPath::inbox(), None)
        .await
        .unwrap()
        .status
        .uid_validity;
    let refused = world
        .link
        .exporter
        .sweep_items(&FolderPath::inbox(), validity, &early)
        .await;
    assert!(matches!(refused, Err(ExportError::NotLate { uid: 1, .. })));
}

#[tokio::test]
async fn lease_and_cancel_are_asked_before_every_command() {
    let mut world = World::memory();
    populate(&world.source);
    world.settings.cancel.store(true, Ordering::SeqCst);
    assert!(matches!(
        world.pass_error(PassKind::Initial).await,
        PassError::Cancelled
    ));
    world.settings.cancel = Arc::default();
    let asked = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counting = Arc::clone(&asked);
    world.settings.lease = Arc::new(move || {
        counting.fetch_add(1, Ordering::SeqCst);
        true
    });
    world.pass(PassKind::Initial).await;
    let commands = world.link.take_requests().len() + world.faulty.take_commands().len();
    assert_eq!(asked.load(Ordering::SeqCst), commands as u64);
    world.settings.lease = Arc::new(|| false);
    assert!(matches!(
        world.pass_error(PassKind::Incremental).await,
        PassError::LeaseLost
    ));
    assert_eq!(world.link.take_requests(), [""; 0]);
}

/// More than one chunk of records, and a ledger that stays small.
#[tokio::test]
async fn many_items_in_one_folder() {
    let world = World::memory();
    for number in 0..5_000_u32 {
        world
            .source
            .deliver(&FolderPath::inbox(), number.to_string(), flags(&[]), i64::from(number));
    }
    world.pass(PassKind::Initial).await;
    world
        .source
        .remove(FolderRef::any(&FolderPath::inbox()), &[1, 4096, 5000])
        .await
        .unwrap();
    world
        .source
        .set_flags(
            FolderRef::any(&FolderPath::inbox()),
            &[(4095, flags(&["a"])), (4097, flags(&["b"]))],
        )
        .await
        .unwrap();
    world.pass(PassKind::Final).await;
    world.assert_equal("many").await;
    let chunks = world.ledger.keys();
    assert_eq!(chunks.iter().filter(|key| key.kind == ChunkKind::Records).count(), 2);
    assert_eq!(chunks.iter().filter(|key| key.kind == ChunkKind::Intent).count(), 0);
}

#[tokio::test]
async fn maildir_is_a_target() {
    let home = tempfile::tempdir().unwrap();
    let target = MaildirMailbox::open(home.path()).await.unwrap();
    let world = World::new(MemoryMailbox::new(), Arc::new(target));
    folders(&world.source).await;
    populate(&world.source);
    world.pass(PassKind::Initial).await;
    world.assert_equal("initial").await;
    assert_eq!(with_uids(&world.source).await, with_uids(&*world.target).await);
    world
        .source
        .rename_folder(&path("Projects/Many"), &path("Elsewhere"))
        .await
        .unwrap();
    world
        .source
        .remove(FolderRef::any(&FolderPath::inbox()), &[4])
        .await
        .unwrap();
    world.source.deliver(&FolderPath::inbox(), "new\n", flags(&["k"]), 77);
    world
        .source
        .set_flags(FolderRef::any(&FolderPath::inbox()), &[(1, flags(&["\\Deleted", "z"]))])
        .await
        .unwrap();
    let outcome = world.pass(PassKind::Final).await;
    assert_eq!((outcome.folders_renamed, outcome.items_copied), (1, 0));
    world.assert_equal("final").await;
    world.source.renumber(&FolderPath::inbox(), 999);
    assert_eq!(world.pass(PassKind::Final).await.items_paired, 5);
    world.assert_equal("reset").await;
    // Dates cannot be set again; they are named.
    let file = std::fs::read_dir(home.path().join("cur"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let date = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(12_345);
    std::fs::File::options()
        .write(true)
        .open(file.path())
        .unwrap()
        .set_modified(date)
        .unwrap();
    let (source, target) = world.roots().await;
    assert_eq!(source.root, target.root);
    assert_eq!(target.exceptions.len(), 1);
    assert_eq!(
        (target.exceptions[0].kind, target.exceptions[0].held.received),
        (ExceptionKind::Date, Some(12_345))
    );
}

#[derive(Clone, Debug)]
enum Event {
    Deliver {
        folder: u8,
        content: u8,
        flags: u8,
    },
    Remove {
        folder: u8,
        at: prop::sample::Index,
    },
    Flags {
        folder: u8,
        at: prop::sample::Index,
        flags: u8,
    },
    Move {
        from: u8,
        to: u8,
        at: prop::sample::Index,
    },
    Rename {
        from: u8,
        to: u8,
    },
    Renumber {
        folder: u8,
        validity: u32,
    },
    RemoveFolder {
        folder: u8,
    },
    Pass,
    CutPass {
        step: u64,
    },
}

fn folder(number: u8) -> FolderPath {
    [FolderPath::inbox(), path("A"), path("A/b"), path("C")][usize::from(number % 4)].clone()
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let at = any::<prop::sample::Index>;
    let event = prop_oneof![
        6 => (0u8..4, 0u8..6, 0u8..8).prop_map(|(folder, content, flags)| Event::Deliver { folder, content, flags }),
        2 => (0u8..4, at()).prop_map(|(folder, at)| Event::Remove { folder, at }),
        2 => (0u8..4, at(), 0u8..8).prop_map(|(folder, at, flags)| Event::Flags { folder, at, flags }),
        2 => (0u8..4, 0u8..4, at()).prop_map(|(from, to, at)| Event::Move { from, to, at }),
        1 => (1u8..4, 1u8..4).prop_map(|(from, to)| Event::Rename { from, to }),
        1 => (0u8..4, 1_000u32..9_000).prop_map(|(folder, validity)| Event::Renumber { folder, validity }),
        1 => (1u8..4).prop_map(|folder| Event::RemoveFolder { folder }),
        2 => Just(Event::Pass),
        2 => (0u64..60).prop_map(|step| Event::CutPass { step }),
    ];
    prop::collection::vec(event, 0..40)
}

async fn happen(world: &World, event: Event) {
    let source = &world.source;
    let some_uid = async |path: &FolderPath, at: prop::sample::Index| {
        let items = source.list(path, None).await.ok()?.items;
        (!items.is_empty()).then(|| items[at.index(items.len())].uid)
    };
    let flags = |number: u8| {
        rehome_wire::flags::Flags::from_parts(
            number & 3,
            if number & 4 == 0 {
                vec![]
            } else {
                vec!["Word".to_owned()]
            },
        )
    };
    match event {
        Event::Deliver {
            folder: number,
            content,
            flags: set,
        } => {
            source.deliver(
                &folder(number),
                format!("content {content}\n"),
                flags(set),
                i64::from(content),
            );
        }
        Event::Remove { folder: number, at } => {
            if let Some(uid) = some_uid(&folder(number), at).await {
                source.remove(FolderRef::any(&folder(number)), &[uid]).await.unwrap();
            }
        }
        Event::Flags {
            folder: number,
            at,
            flags: set,
        } => {
            if let Some(uid) = some_uid(&folder(number), at).await {
                source
                    .set_flags(FolderRef::any(&folder(number)), &[(uid, flags(set))])
                    .await
                    .unwrap();
            }
        }
        Event::Move { from, to, at } => {
            if let Some(uid) = some_uid(&folder(from), at).await {
                let (octets, _, received) = with_uids(source).await[&folder(from)][&uid].clone();
                source.deliver(&folder(to), octets, flags(0), received);
                source.remove(FolderRef::any(&folder(from)), &[uid]).await.unwrap();
            }
        }
        // What cannot be renamed, as onto a folder that is there, does not happen.
        Event::Rename { from, to } => drop(source.rename_folder(&folder(from), &folder(to)).await),
        Event::Renumber {
            folder: number,
            validity,
        } => source.renumber(&folder(number), validity),
        Event::RemoveFolder { folder: number } => source.remove_folder(&folder(number)).await.unwrap(),
        Event::Pass => {
            world.pass(PassKind::Incremental).await;
        }
        Event::CutPass { step } => {
            world.fuse.arm(step);
            // It may end before the cut.
            let _ = world.importer().pass(PassKind::Incremental).await;
            world.fuse.disarm();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256,
        failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens at the source between passes, and wherever passes are cut, one last pass makes both equal, with multiplicity and roots.
    #[test]
    fn any_history_ends_equal(events in events(), powers in 0u8..12, numbered in any::<bool>(), ids in any::<bool>(), present in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let mut source = MemoryMailbox::with_capabilities(Capabilities { changes: numbered, ..poor() });
            if ids {
                source = source.with_mailbox_ids();
            }
            let target = MemoryMailbox::with_capabilities(Capabilities {
                append_once: powers % 2 == 0, copy: powers % 3 == 0, given_uids: powers % 6 >= 3, changes: powers % 4 == 0,
                folders_at_once: if powers >= 6 { 4 } else { 1 }, ..poor()
            });
            let world = if present {
                World::naming_present(source, Arc::new(target))
            } else {
                World::new(source, Arc::new(target))
            };
            world.source.create_folder(&FolderPath::inbox(), &NewFolder::default()).await.unwrap();
            for event in events {
                happen(&world, event).await;
            }
            world.pass(PassKind::Final).await;
            world.assert_equal("the end").await;
        });
    }
}

//! Roots of both sides, what they find, and what comes after them.

use crate::common::{Chunks, World, append_foreign, contents, flags, folders, path, poor, populate};
use rehome_mailbox::{FolderPath, FolderRef, Mailbox, memory::MemoryMailbox};
use rehome_replicate::{
    ChunkKind, ChunkStorage, ExceptionKind, ExportError, Exporter, PassError, PassKind, ReportKind,
};
use rehome_wire::canonical::canonical;
use std::sync::{Arc, atomic::Ordering};

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
            world.faulty.take_commands();
            world.pass(PassKind::Incremental).await;
            // What is below the window is not listed for it.
            assert_eq!(world.faulty.take_commands(), ["list from 1", "read", "remove"]);
        } else {
            world.roots().await;
        }
        world.assert_equal("the double is gone").await;
    }
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

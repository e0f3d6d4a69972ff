//! Passes over sources that change, on the memory driver with and without its powers, and on Maildir.

use crate::common::{World, flags, folders, path, poor, populate, with_uids};
use rehome_mailbox::{Capabilities, FolderPath, FolderRef, Mailbox, maildir::MaildirMailbox, memory::MemoryMailbox};
use rehome_replicate::{ChunkKind, ExceptionKind, ExportError, Held, PassError, PassKind, ReportKind, Side};
use std::sync::{Arc, atomic::Ordering};

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

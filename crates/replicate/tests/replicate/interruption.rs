//! One scenario, cut before and after every write of the ledger and every command to the target, and resumed.

use crate::common::{Item, Late, World, contents, flags, folders, path, populate};
use rehome_mailbox::{Capabilities, FolderPath, FolderRef, Mailbox, maildir::MaildirMailbox, memory::MemoryMailbox};
use rehome_replicate::{ExceptionKind, PassError, PassKind};
use std::{collections::BTreeMap, sync::Arc};

/// Everything that a second pass can have to do.
async fn change(world: &World) {
    let source = &world.source;
    source.deliver(&FolderPath::inbox(), "Subject: late\n\n", flags(&["\\Seen"]), 70);
    source.deliver(&FolderPath::inbox(), "Subject: late\n\n", flags(&[]), 70);
    source.remove(FolderRef::any(&FolderPath::inbox()), &[2]).await.unwrap();
    source
        .set_flags(FolderRef::any(&FolderPath::inbox()), &[(1, flags(&["Later"]))])
        .await
        .unwrap();
    source
        .rename_folder(&path("Projects/Many"), &path("Moved"))
        .await
        .unwrap();
    source.renumber(&path("Sent"), 555);
    source.deliver(&path("Sent"), "Subject: after the reset\r\n\r\n", flags(&[]), 71);
    source.remove(FolderRef::any(&path("Sent")), &[1]).await.unwrap();
}

/// Goes on until a pass ends well, as the mover does.
async fn resume(world: &World, kind: PassKind, context: &str) {
    for _ in 0..4 {
        match world.importer().pass(kind).await {
            Ok(_) => return,
            Err(PassError::TargetDiffers { mended: true, .. }) => {}
            Err(error) => panic!("{context}: {error}"),
        }
    }
    panic!("{context}: no pass ends");
}

async fn scenario(world: &World, cut_initial: Option<u64>, cut_second: Option<u64>) -> (u64, u64) {
    let context = format!("cut at {cut_initial:?} and {cut_second:?}");
    folders(&world.source).await;
    populate(&world.source);
    let mut steps = [0, 0];
    for (at, cut) in [cut_initial, cut_second].into_iter().enumerate() {
        let kind = [PassKind::Initial, PassKind::Final][at];
        let before = world.fuse.steps.load(std::sync::atomic::Ordering::SeqCst);
        if let Some(cut) = cut {
            world.fuse.arm(cut);
            world.importer().pass(kind).await.expect_err(&context);
            world.fuse.disarm();
            // Mail goes on arriving and leaving meanwhile.
            world
                .source
                .deliver(&FolderPath::inbox(), format!("Subject: {context}\n\n"), flags(&[]), 9);
            let first = world
                .source
                .list(&path("Projects/Übersicht"), None)
                .await
                .unwrap()
                .items
                .first()
                .map(|item| item.uid);
            world
                .source
                .remove(
                    FolderRef::any(&path("Projects/Übersicht")),
                    &first.into_iter().collect::<Vec<_>>(),
                )
                .await
                .unwrap();
        }
        resume(world, kind, &context).await;
        world.assert_equal(&context).await;
        steps[at] = world.fuse.steps.load(std::sync::atomic::Ordering::SeqCst) - before;
        if at == 0 {
            change(world).await;
        }
    }
    (steps[0], steps[1])
}

async fn every_cut(make: impl AsyncFn() -> World, at_least: u64) {
    let steps = {
        let world = make().await;
        let before = world.fuse.steps.load(std::sync::atomic::Ordering::SeqCst);
        folders(&world.source).await;
        populate(&world.source);
        world.pass(PassKind::Initial).await;
        let initial = world.fuse.steps.load(std::sync::atomic::Ordering::SeqCst) - before;
        change(&world).await;
        world.pass(PassKind::Final).await;
        let all = world.fuse.steps.load(std::sync::atomic::Ordering::SeqCst) - before;
        (initial, all - initial)
    };
    assert!(steps.0 > at_least && steps.1 > at_least, "{steps:?}");
    for cut in 0..steps.0 {
        scenario(&make().await, Some(cut), None).await;
    }
    for cut in 0..steps.1 {
        scenario(&make().await, None, Some(cut)).await;
    }
}

fn with_powers(append_once: bool, given_uids: bool, copy: bool) -> MemoryMailbox {
    let capabilities = Capabilities {
        append_once,
        given_uids,
        copy,
        keywords: true,
        append_batch: 2,
        ..Capabilities::default()
    };
    MemoryMailbox::with_capabilities(capabilities)
}

#[tokio::test]
async fn memory_with_every_power() {
    every_cut(
        async || World::new(MemoryMailbox::new(), Arc::new(with_powers(true, true, true))),
        35,
    )
    .await;
}

/// Without append-once only the window tells what an interrupted append brought.
#[tokio::test]
async fn memory_without_append_once() {
    every_cut(
        async || World::new(MemoryMailbox::new(), Arc::new(with_powers(false, false, false))),
        35,
    )
    .await;
    every_cut(
        async || World::new(MemoryMailbox::new(), Arc::new(with_powers(false, false, true))),
        35,
    )
    .await;
}

/// Several folders at once, on a target that tells what changed.
#[tokio::test]
async fn several_folders_at_once() {
    for append_once in [true, false] {
        let capabilities = Capabilities {
            append_once,
            changes: true,
            keywords: true,
            append_batch: 2,
            folders_at_once: 4,
            ..Capabilities::default()
        };
        let make = async || {
            World::new(
                MemoryMailbox::new().with_mailbox_ids(),
                Arc::new(MemoryMailbox::with_capabilities(capabilities)),
            )
        };
        every_cut(make, 35).await;
    }
}

/// Folders change places, parents move with what is below, a new folder takes an old name: cut anywhere, everything
/// ends where it belongs, and nothing but the new mail travels.
#[tokio::test]
async fn renames() {
    let world = || {
        let target = MemoryMailbox::with_capabilities(Capabilities {
            keywords: true,
            changes: true,
            copy: true,
            append_batch: 2,
            ..Capabilities::default()
        });
        World::new(MemoryMailbox::new().with_mailbox_ids(), Arc::new(target))
    };
    let mut cut = 0;
    loop {
        let context = format!("cut {cut}");
        let world = world();
        populate(&world.source);
        world.source.deliver(&path("Projects"), "a parent", flags(&[]), 1);
        world.source.deliver(&path("Old"), "goes away", flags(&[]), 1);
        world.pass(PassKind::Initial).await;
        let source = &world.source;
        for (from, to) in [
            ("Sent", "Aside"),
            ("Projects", "Sent"),
            ("Aside", "Projects"),
            ("Sent/Many", "Sent/Few/More"),
        ] {
            source.rename_folder(&path(from), &path(to)).await.unwrap();
        }
        source.remove_folder(&path("Old")).await.unwrap();
        source.rename_folder(&path("Projects"), &path("Old")).await.unwrap();
        source.deliver(&path("Projects"), "another folder", flags(&[]), 1);
        world.fuse.arm(cut);
        let ended = world.importer().pass(PassKind::Final).await;
        world.fuse.disarm();
        if let Ok(outcome) = ended {
            assert!(cut > 20, "{cut}");
            assert_eq!((outcome.folders_renamed, outcome.items_appended), (4, 1));
            world.assert_equal(&context).await;
            break;
        }
        resume(&world, PassKind::Final, &context).await;
        world.assert_equal(&context).await;
        cut += 1;
    }
}

/// An append that takes effect long after its connection died leaves no double, whenever that is.
#[tokio::test]
async fn late_appends() {
    let capabilities = |folders_at_once| Capabilities {
        keywords: true,
        changes: true,
        append_batch: 3,
        folders_at_once,
        ..Capabilities::default()
    };
    for at_once in [1, 4] {
        for lost in 0..5 {
            for after in 0..40 {
                let context = format!("append {lost} takes effect after {after} commands, {at_once} folders at once");
                let target = MemoryMailbox::with_capabilities(capabilities(at_once));
                let world = World::new(MemoryMailbox::new(), Arc::new(target));
                populate(&world.source);
                *world.faulty.late.lock().unwrap() = Late::new(lost, after);
                world.importer().pass(PassKind::Initial).await.expect_err(&context);
                // What arrives while items come late may be taken for a stranger until the next pass.
                resume(&world, PassKind::Initial, &context).await;
                resume(&world, PassKind::Final, &context).await;
                let still_on_its_way = world.faulty.late.lock().unwrap().is_held();
                world.faulty.deliver_late();
                // What comes behind the last pass is found when the root is made.
                world.roots().await;
                world.assert_equal(&context).await;
                assert!(!still_on_its_way || after > 10, "{context}");
            }
        }
    }
}

/// A target that rewrites every message: cut anywhere, each item is there once, and named.
#[tokio::test]
async fn a_target_that_modifies() {
    for folders_at_once in [1, 3] {
        let mut cut = 0;
        loop {
            let context = format!("cut {cut}");
            let target = MemoryMailbox::with_capabilities(Capabilities {
                keywords: true,
                append_batch: 3,
                folders_at_once,
                ..Capabilities::default()
            });
            let world = World::new(MemoryMailbox::new(), Arc::new(target));
            populate(&world.source);
            *world.faulty.rewrite.lock().unwrap() = Some(Box::new(|octets| {
                octets.iter().map(|octet| octet.wrapping_add(1)).collect()
            }));
            world.fuse.arm(cut);
            let ended = world.importer().pass(PassKind::Initial).await.is_ok();
            world.fuse.disarm();
            resume(&world, PassKind::Initial, &context).await;
            let target = world.importer().target_root().await.expect(&context);
            let source = world.link.exporter.source_root(&target.exceptions, true).await.unwrap();
            assert_eq!(source.root, target.root, "{context}");
            // All but the empty one.
            assert_eq!(target.exceptions.len(), 18, "{context}");
            assert!(target.exceptions.iter().all(|one| one.kind == ExceptionKind::Altered));
            let counts = |held: BTreeMap<FolderPath, Vec<Item>>| {
                held.into_iter()
                    .map(|(path, items)| (path, items.len()))
                    .collect::<Vec<_>>()
            };
            assert_eq!(
                counts(contents(&*world.target).await),
                counts(contents(&world.source).await),
                "{context}"
            );
            if ended {
                assert!(cut > 30, "{cut}");
                break;
            }
            cut += 1;
        }
    }
}

#[tokio::test]
async fn maildir() {
    let homes = std::sync::Mutex::new(Vec::new());
    every_cut(
        async || {
            let home = tempfile::tempdir().unwrap();
            let target = MaildirMailbox::open(home.path()).await.unwrap();
            homes.lock().unwrap().push(home);
            World::new(MemoryMailbox::new(), Arc::new(target))
        },
        35,
    )
    .await;
}

/// The source's answers cut off, at every request in turn.
#[tokio::test]
async fn every_request_cut() {
    let requests = {
        let world = World::memory();
        populate(&world.source);
        world.pass(PassKind::Initial).await;
        world.link.take_requests().len() as u64
    };
    for cut in 0..requests {
        let world = World::memory();
        populate(&world.source);
        world.link.fuse.arm(cut);
        assert_eq!(
            world.pass_error(PassKind::Initial).await.error_id(),
            "CommunicationErrorTransientException"
        );
        world.link.fuse.disarm();
        world.pass(PassKind::Initial).await;
        world.assert_equal(&format!("request {cut}")).await;
    }
}

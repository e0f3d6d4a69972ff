//! One scenario, cut before and after every write of the ledger and every command to the target, and resumed.

use crate::common::{World, flags, folders, path, populate};
use rehome_mailbox::{Capabilities, FolderPath, Mailbox, maildir::MaildirMailbox, memory::MemoryMailbox};
use rehome_replicate::{PassError, PassKind};
use std::sync::Arc;

/// Everything that a second pass can have to do.
async fn change(world: &World) {
    let source = &world.source;
    source.deliver(&FolderPath::inbox(), "Subject: late\n\n", flags(&["\\Seen"]), 70);
    source.deliver(&FolderPath::inbox(), "Subject: late\n\n", flags(&[]), 70);
    source.remove(&FolderPath::inbox(), &[2]).await.unwrap();
    source
        .set_flags(&FolderPath::inbox(), &[(1, flags(&["Later"]))])
        .await
        .unwrap();
    source
        .rename_folder(&path("Projects/Many"), &path("Moved"))
        .await
        .unwrap();
    source.renumber(&path("Sent"), 555);
    source.deliver(&path("Sent"), "Subject: after the reset\r\n\r\n", flags(&[]), 71);
    source.remove(&path("Sent"), &[1]).await.unwrap();
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
                .remove(&path("Projects/Übersicht"), &first.into_iter().collect::<Vec<_>>())
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
        40,
    )
    .await;
}

/// Without append-once only the window tells what an interrupted append brought.
#[tokio::test]
async fn memory_without_append_once() {
    every_cut(
        async || World::new(MemoryMailbox::new(), Arc::new(with_powers(false, false, false))),
        40,
    )
    .await;
    every_cut(
        async || World::new(MemoryMailbox::new(), Arc::new(with_powers(false, false, true))),
        40,
    )
    .await;
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
        40,
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

//! A mailbox in use as the target: additions and flags come, everything of its user stays.

use crate::common::{World, contents, flags, path, populate, with_uids};
use rehome_mailbox::{
    Body, Capabilities, Folder, FolderPath, FolderRef, ItemKey, Mailbox, NewFolder, NewItem, SpecialUse,
    memory::MemoryMailbox,
};
use rehome_replicate::{PassError, PassKind, ReportKind};
use rehome_wire::digest::Digest;
use std::sync::Arc;

fn live(source: MemoryMailbox) -> World {
    let target = MemoryMailbox::with_capabilities(Capabilities {
        keywords: true,
        copy: true,
        given_uids: true,
        append_batch: 3,
        folders_at_once: 2,
        ..Capabilities::default()
    });
    let mut world = World::new(source, Arc::new(target));
    world.settings.live_target = true;
    world
}

async fn arrives(world: &World, folder: &FolderPath, octets: &'static [u8], names: &[&str]) {
    world.target.create_folder(folder, &NewFolder::default()).await.unwrap();
    let body = bytes::Bytes::from_static(octets);
    let item = NewItem {
        key: ItemKey {
            move_id: 9,
            folder: 9,
            source_validity: 9,
            source_uid: body.len() as u32,
        },
        uid: None,
        flags: flags(names),
        received: 7,
        length: body.len() as u64,
        digest: Digest::of(&body),
        body: Body::Memory(body),
    };
    world.target.append(FolderRef::any(folder), vec![item]).await.unwrap();
}

async fn folder(world: &World, name: &str) -> Option<Folder> {
    let folders = world.target.folders().await.unwrap();
    folders.into_iter().find(|folder| folder.path == path(name))
}

#[tokio::test]
async fn additions_come_and_everything_else_stays() {
    let world = live(MemoryMailbox::new());
    populate(&world.source);
    let inbox = FolderPath::inbox();
    // The user has mail already, one message of it the same as one that comes.
    arrives(&world, &inbox, b"his own", &["\\Flagged"]).await;
    arrives(&world, &inbox, b"Subject: two\r\n\r\ntwin\r\n", &[]).await;
    arrives(&world, &path("Private"), b"only his", &[]).await;
    let validity = folder(&world, "INBOX").await.unwrap().status.unwrap().uid_validity;
    let outcome = world.pass(PassKind::Initial).await;
    assert_eq!(outcome.items_appended, 19);
    assert_eq!(
        folder(&world, "INBOX").await.unwrap().status.unwrap().uid_validity,
        validity
    );
    let held = contents(&*world.target).await;
    assert_eq!((held[&inbox].len(), held[&path("Private")].len()), (7, 1));
    // Nothing more comes, and nothing is asked of the target.
    world.faulty.take_commands();
    assert_eq!(world.pass(PassKind::Incremental).await.items_appended, 0);
    assert_eq!(world.faulty.take_commands(), [""; 0]);
    // What goes at the source stays here; so does a folder.
    world.source.remove(FolderRef::any(&inbox), &[1, 2]).await.unwrap();
    world.source.remove_folder(&path("Projects/Many")).await.unwrap();
    world.source.deliver(&inbox, "new", flags(&[]), 8);
    for _ in 0..2 {
        world.pass(PassKind::Incremental).await;
    }
    let held = contents(&*world.target).await;
    assert_eq!((held[&inbox].len(), held[&path("Projects/Many")].len()), (8, 12));
    assert!(
        !world
            .faulty
            .take_commands()
            .iter()
            .any(|command| command.starts_with("remove"))
    );
    // There is no root over what the user holds as well.
    let error = world.importer().target_root().await.unwrap_err();
    assert!(matches!(error, PassError::TargetDiffers { mended: false, .. }));
}

#[tokio::test]
async fn flags_are_merged_with_the_users() {
    let world = live(MemoryMailbox::new());
    let inbox = FolderPath::inbox();
    for octets in ["a", "b", "c"] {
        world.source.deliver(&inbox, octets, flags(&["Base"]), 1);
    }
    world.pass(PassKind::Initial).await;
    let users = [(1, flags(&["\\Flagged", "Base"])), (2, flags(&["\\Seen"]))];
    world.target.set_flags(FolderRef::any(&inbox), &users).await.unwrap();
    // The user's choice stays while the source does not change.
    world.source.deliver(&inbox, "d", flags(&[]), 1);
    world.pass(PassKind::Incremental).await;
    let sources = [(1, flags(&["\\Seen"])), (2, flags(&["Base", "\\Answered"]))];
    world.source.set_flags(FolderRef::any(&inbox), &sources).await.unwrap();
    world.pass(PassKind::Incremental).await;
    let held = with_uids(&*world.target).await;
    let names: Vec<&Vec<String>> = held[&inbox].values().map(|item| &item.1).collect();
    let expected: [&[&str]; 4] = [&["\\flagged", "\\seen"], &["\\answered", "\\seen"], &["base"], &[]];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn a_special_use_has_one_folder_and_what_the_user_renamed_or_removed_is_left() {
    let world = live(MemoryMailbox::new().with_mailbox_ids());
    let sent = |special_use| NewFolder {
        special_use,
        ..NewFolder::default()
    };
    world
        .source
        .create_folder(&FolderPath::inbox(), &sent(None))
        .await
        .unwrap();
    world
        .source
        .create_folder(&path("Sent"), &sent(Some(SpecialUse::Sent)))
        .await
        .unwrap();
    world
        .target
        .create_folder(&path("Gesendet"), &sent(Some(SpecialUse::Sent)))
        .await
        .unwrap();
    world.source.deliver(&path("Sent"), "sent", flags(&[]), 1);
    world.source.deliver(&path("Box"), "one", flags(&[]), 1);
    world.pass(PassKind::Initial).await;
    assert!(folder(&world, "Sent").await.is_none());
    assert_eq!(contents(&*world.target).await[&path("Gesendet")].len(), 1);
    // Renamed at the source: here it keeps its name, and nothing comes twice.
    world.source.rename_folder(&path("Box"), &path("Crate")).await.unwrap();
    world.source.deliver(&path("Crate"), "two", flags(&[]), 1);
    let outcome = world.pass(PassKind::Incremental).await;
    assert_eq!(outcome.items_appended, 1);
    assert!(folder(&world, "Crate").await.is_none());
    // Removed by the user: what was brought stays gone, what comes goes into a new one.
    world.target.remove_folder(&path("Box")).await.unwrap();
    world.source.deliver(&path("Crate"), "three", flags(&[]), 1);
    world.pass(PassKind::Incremental).await;
    let held = contents(&*world.target).await;
    assert_eq!(held[&path("Box")], [(b"three".to_vec(), vec![], 1)]);
    // Another folder takes the name of one that went: each keeps its own here.
    world.source.deliver(&path("Gone"), "gone", flags(&[]), 1);
    world.pass(PassKind::Incremental).await;
    world.source.remove_folder(&path("Gone")).await.unwrap();
    world.source.rename_folder(&path("Crate"), &path("Gone")).await.unwrap();
    world.source.deliver(&path("Gone"), "four", flags(&[]), 1);
    assert_eq!(world.pass(PassKind::Incremental).await.items_appended, 1);
    let held = contents(&*world.target).await;
    assert_eq!((held[&path("Box")].len(), held[&path("Gone")].len()), (2, 1));
    // A validity that changed at the source is paired by what the items are.
    world.source.renumber(&path("Sent"), 4_000);
    world.source.deliver(&path("Sent"), "later", flags(&[]), 1);
    assert_eq!(world.pass(PassKind::Incremental).await.items_paired, 1);
    assert_eq!(contents(&*world.target).await[&path("Gesendet")].len(), 2);
}

/// Cut at every step, with the user reading his mail before the next pass: nothing comes twice, his flags stay.
#[tokio::test]
async fn cut_anywhere() {
    let mut cut = 0;
    loop {
        let world = live(MemoryMailbox::new());
        populate(&world.source);
        arrives(&world, &FolderPath::inbox(), b"his own", &[]).await;
        world.fuse.arm(cut);
        let ended = world.importer().pass(PassKind::Initial).await.is_ok();
        world.fuse.disarm();
        for (folder, items) in with_uids(&*world.target).await {
            let read: Vec<_> = items.keys().map(|uid| (*uid, flags(&["Read"]))).collect();
            world.target.set_flags(FolderRef::any(&folder), &read).await.unwrap();
        }
        let read = contents(&*world.target).await;
        for _ in 0..2 {
            world.pass(PassKind::Incremental).await;
        }
        let held = contents(&*world.target).await;
        let items: usize = held.values().map(Vec::len).sum();
        assert_eq!(items, 20, "cut {cut}");
        for (folder, items) in read {
            assert!(items.iter().all(|item| held[&folder].contains(item)), "cut {cut}");
        }
        if ended {
            assert!(cut > 20, "{cut}");
            break;
        }
        cut += 1;
    }
}

/// An append that takes effect late is not removed from a mailbox in use, but named.
#[tokio::test]
async fn a_late_double_is_reported() {
    let world = live(MemoryMailbox::new());
    populate(&world.source);
    *world.faulty.late.lock().unwrap() = crate::common::Late::new(0, 1_000);
    world.pass_error(PassKind::Initial).await;
    world.pass(PassKind::Initial).await;
    world.faulty.deliver_late();
    let before = contents(&*world.target).await;
    for _ in 0..2 {
        world.pass(PassKind::Incremental).await;
        let report = world.importer().report().await.unwrap();
        assert_eq!(report.count(ReportKind::Double), 3, "{:?}", report.items);
    }
    assert_eq!(contents(&*world.target).await, before);
}

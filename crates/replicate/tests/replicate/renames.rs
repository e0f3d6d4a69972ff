//! Folders that get another name or another validity at the source.

use crate::common::{World, contents, flags, path, poor, populate};
use rehome_mailbox::{FolderPath, FolderRef, Mailbox, memory::MemoryMailbox};
use rehome_replicate::PassKind;
use std::sync::Arc;

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

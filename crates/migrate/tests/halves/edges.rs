//! Edges of a cutover that were mended once.

use crate::world::World;
use rehome_domain::{
    cutover::{SourcePhase, TargetPhase},
    error_id::ErrorId,
    moves::UserStatus,
    recipient::{MailboxState, RecipientKind},
};
use rehome_migrate::{protocol::ItemsRequest, target::control};
use std::time::Duration;

async fn synced() -> World {
    let world = World::new().await;
    world.deliver_at_source(3).await;
    world.new_batch(true).await;
    world.wait_for(UserStatus::Synced).await;
    world
}

async fn completes(world: &World) {
    world
        .request(async |tx, tenant, batch, now| control::batch_complete(tx, tenant, batch, now, now).await)
        .await;
}

/// Content that could not be closed yet lies where another mailbox is by now: it is neither swept nor closed.
#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_was_given_away_is_not_swept() {
    let world = synced().await;
    completes(&world).await;
    world.wait_for(UserStatus::Completed).await;
    world
        .wait_until("the old content is closed", async || {
            world.source_attempt().await.closed
        })
        .await;
    world.gives_the_place_away().await;
    let mut row = world.source_attempt().await;
    row.closed = false;
    world
        .at_source(async |tx| tx.source_attempt_update(&row).await.unwrap())
        .await;
    let mut ctx = world.context(Some(row.attempt.id));
    ctx.move_id = row.attempt.move_id;
    let refused = world.source.sweep(&ctx).await.unwrap_err();
    assert_eq!((refused.id, refused.retry_after), (ErrorId::StaleAttempt, None));
    world.keeper_has_looked().await;
    assert!(
        !world.source_attempt().await.closed,
        "another mailbox's place is not closed"
    );
    assert!(world.items_at_the_old_place().await > 0, "it is open");
    world.stop().await;
}

/// The platform for new mailboxes was changed between Prepare and Decide: what was copied is not there, so nothing is
/// decided, and the source is open again.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_decided_where_nothing_was_copied() {
    let world = synced().await;
    world.loses_answers(&["prepare"]);
    world.loses(&["status", "abort"]);
    completes(&world).await;
    world
        .wait_until("the target does not know what it is to do", async || {
            world.has_source_attempt().await
                && world.source_attempt().await.attempt.phase == SourcePhase::Prepared
                && world.target_user().await.lease.is_none()
        })
        .await;
    // The answer was lost, so that the target gave up; as if it had died before it could.
    world.target_forgets_its_outcome().await;
    world.restarts_target_with_another_default().await;
    world.loses_answers(&[]);
    world.loses(&[]);
    world
        .wait_until("the attempt is aborted", async || {
            world.target_attempt().await.phase == TargetPhase::Aborted
        })
        .await;
    world
        .wait_until("the source is open again", async || {
            world.source_attempt().await.attempt.phase == SourcePhase::Aborted
        })
        .await;
    assert_eq!(
        world.source_recipient().await.mailbox().unwrap().state,
        MailboxState::Open
    );
    assert!(matches!(
        world.target_recipient().await.kind,
        RecipientKind::MailUser(_)
    ));
    world.stop().await;
}

/// Another process of the source finds the mailbox locked, but not whether it is quiet: a Prepare waits for the delivery that
/// has begun, and sees what it brought.
#[tokio::test(flavor = "multi_thread")]
async fn prepare_makes_the_mailbox_quiet_where_lock_may_not_have() {
    let world = synced().await;
    world.loses(&["prepare", "status", "abort"]);
    completes(&world).await;
    world
        .wait_until("Prepare was sent", async || world.last_prepare().is_some())
        .await;
    let (ctx, request) = world.last_prepare().unwrap();
    // The target had no answer, and has no part in what follows.
    assert_eq!(world.source_attempt().await.attempt.phase, SourcePhase::Locked);
    let (whole, lock) = world.delivery_under_way().await;
    let source = world.source_afresh();
    let preparing = tokio::spawn(async move { source.prepare(&ctx, &request).await });
    // One that did not wait would have its answer by then, and a promise without the message.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!preparing.is_finished(), "it waits for the delivery");
    whole.publish(&lock).await.unwrap();
    drop(lock);
    let refused = preparing.await.unwrap().unwrap_err();
    assert_eq!(refused.id, ErrorId::RootMismatch, "{refused}");
    assert_eq!(world.source_attempt().await.attempt.phase, SourcePhase::Locked);
    world.stop().await;
}

/// What was served last is in the audit log when the process ends.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_served_last_is_written_at_stop() {
    use futures_util::StreamExt;
    let world = World::new().await;
    world.deliver_at_source(1).await;
    let ctx = world.context(None);
    world.source.open(&ctx).await.unwrap();
    let folders = world
        .source
        .folders(&ctx, &rehome_migrate::protocol::FoldersRequest { after: 0 })
        .await
        .unwrap();
    let request = ItemsRequest {
        folder: folders.folders[0].path.clone(),
        uid_validity: folders.folders[0].status.unwrap().uid_validity,
        uids: vec![(1, 1)],
        attempt: None,
    };
    let mut frames = world.source.items(&ctx, request).await.unwrap();
    let mut octets = 0;
    while let Some(part) = frames.next().await {
        octets += part.unwrap().len();
    }
    assert!(octets > 0);
    drop(frames);
    world.source.write_records().await;
    let seen = world.source.outbound_list(world.source_tenant).await.unwrap();
    assert_eq!(seen[0].outbound.items_served, 1);
    assert_eq!(seen[0].outbound.bytes_served, octets as u64);
    world.stop().await;
}

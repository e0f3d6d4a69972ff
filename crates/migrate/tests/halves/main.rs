//! Both halves in one process, over two stores and two Maildir roots, joined by calls instead of HTTPS.

// Helpers of tests fail by panicking.
#![allow(clippy::unwrap_used, missing_docs)]

mod after_commit;
mod by_hand;
mod edges;
mod link;
mod returning;
mod simulation;
mod skipped;
mod world;

use rehome_domain::{
    error_id::ErrorId,
    id::AttemptId,
    moves::UserStatus,
    recipient::{MailboxState, RecipientKind},
};
use rehome_migrate::target::control;
use world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_moves_whole_and_forwards() {
    let world = World::new().await;
    world.deliver_at_source(3).await;
    world.new_batch(true).await;
    world.wait_for(UserStatus::Synced).await;
    world.deliver_at_source(2).await;
    world
        .request(async |tx, tenant, batch, now| control::batch_sync_now(tx, tenant, batch, now).await)
        .await;
    world
        .request(async |tx, tenant, batch, now| control::batch_complete(tx, tenant, batch, now, now).await)
        .await;
    let user = world.wait_for(UserStatus::Completed).await;
    assert_eq!(user.figures.items_synced, 5);
    assert_eq!(user.figures.swept_items, 0);
    assert!(user.figures.lock_milliseconds.is_some());
    assert!(
        user.figures.lock_round_trips <= 12,
        "{} round trips under the lock",
        user.figures.lock_round_trips
    );

    let source = world.source_recipient().await;
    assert_eq!(
        source
            .mail_user()
            .unwrap()
            .external_email_address
            .as_ref()
            .unwrap()
            .to_string(),
        "user1@fabrikam.example"
    );
    let target = world.target_recipient().await;
    assert!(matches!(target.kind, RecipientKind::Mailbox(_)));
    assert_eq!(world.octets_at_target().await, world.octets_delivered());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_outside_the_scope_is_refused_and_says_so_on_both_sides() {
    let world = World::new().await;
    world.take_out_of_scope().await;
    world.new_batch(true).await;
    let user = world.wait_for(UserStatus::Failed).await;
    assert_eq!(user.problems[0].id, ErrorId::MailboxNotInCrossTenantMigrationScope);
    let seen = world.source.outbound_list(world.source_tenant).await.unwrap();
    assert!(
        seen[0]
            .outbound
            .last_refusal
            .as_ref()
            .unwrap()
            .contains("in no published scope")
    );
    assert_eq!(
        Some(seen[0].outbound.last_correlation.clone()),
        user.problem_correlation
    );
    let test = world
        .source
        .outbound_test(world.source_tenant, world.exchange_guid)
        .await
        .unwrap();
    assert_eq!(
        test[0].refusal.as_ref().unwrap().id,
        ErrorId::MailboxNotInCrossTenantMigrationScope
    );
    world.put_in_scope().await;
    world
        .request(async |tx, tenant, batch, now| control::batch_start(tx, tenant, batch, now).await)
        .await;
    world.wait_for(UserStatus::Synced).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_start_and_remove() {
    let world = World::new().await;
    world.deliver_at_source(1).await;
    world.new_batch(true).await;
    world.wait_for(UserStatus::Synced).await;
    world
        .request(async |tx, tenant, batch, now| control::batch_stop(tx, tenant, batch, now).await)
        .await;
    world.wait_for(UserStatus::IncrementalStopped).await;
    world
        .request(async |tx, tenant, batch, now| control::batch_start(tx, tenant, batch, now).await)
        .await;
    world.wait_for(UserStatus::Synced).await;
    world
        .request(async |tx, tenant, batch, now| control::batch_remove(tx, tenant, batch, now).await)
        .await;
    world.wait_until_removed().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempts_id_is_never_taken_up_again() {
    let world = World::new().await;
    let (x, y) = (AttemptId::from_u128(1), AttemptId::from_u128(2));
    for attempt in [x, y] {
        world.source.lock(&world.context(Some(attempt))).await.unwrap();
        world.source.abort(&world.context(Some(attempt))).await.unwrap();
    }
    let again = world.source.lock(&world.context(Some(x))).await.unwrap_err();
    assert_eq!(again.id, ErrorId::StaleAttempt);
    assert!(matches!(
        world.source_recipient().await.mailbox().unwrap().state,
        MailboxState::Open
    ));
    // Two locks ended without Prepare; a third is granted, and while it holds no fourth is.
    world
        .source
        .lock(&world.context(Some(AttemptId::from_u128(3))))
        .await
        .unwrap();
    let fourth = world
        .source
        .lock(&world.context(Some(AttemptId::from_u128(4))))
        .await
        .unwrap_err();
    assert_eq!(fourth.id, ErrorId::CutoverNotNow);
    assert!(fourth.retry_after.unwrap() > 80_000);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_shown_yet_is_not_locked() {
    let world = World::new().await;
    world.set_source_state(MailboxState::NotYetShown).await;
    let refused = world
        .source
        .lock(&world.context(Some(AttemptId::from_u128(1))))
        .await
        .unwrap_err();
    assert_eq!((refused.id, refused.retry_after), (ErrorId::CutoverNotNow, Some(60)));
    assert_eq!(
        world.source_recipient().await.mailbox().unwrap().state,
        MailboxState::NotYetShown
    );
    world.set_source_state(MailboxState::Open).await;
    world
        .source
        .lock(&world.context(Some(AttemptId::from_u128(1))))
        .await
        .unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_stands_for_one_mailbox_and_the_nil_move_for_none() {
    let world = World::new().await;
    world.source.open(&world.context(None)).await.unwrap();
    let mut other = world.context(None);
    other.mailbox = rehome_domain::id::ExchangeGuid::from_u128(5);
    assert_eq!(
        world.source.open(&other).await.unwrap_err().id,
        ErrorId::InvalidOperation
    );
    let mut nil = world.context(Some(AttemptId::from_u128(9)));
    nil.move_id = rehome_domain::id::MoveId::from_u128(0);
    assert_eq!(world.source.lock(&nil).await.unwrap_err().id, ErrorId::ParameterBinding);
    nil.attempt = None;
    world.source.open(&nil).await.unwrap();
    assert_eq!(world.source.outbound_list(world.source_tenant).await.unwrap().len(), 1);
    world.stop().await;
}

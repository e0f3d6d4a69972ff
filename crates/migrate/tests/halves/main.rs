//! Both halves in one process, over two stores and two Maildir roots, joined by calls instead of HTTPS.

// Helpers of tests fail by panicking.
#![allow(clippy::unwrap_used, missing_docs)]

mod link;
mod world;

use rehome_domain::{error_id::ErrorId, moves::UserStatus, recipient::RecipientKind};
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

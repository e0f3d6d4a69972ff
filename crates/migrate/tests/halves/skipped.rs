//! What could not be moved: the score, who may approve it, and trying it again.

use crate::world::World;
use jiff::Timestamp;
use rehome_domain::{
    consistency::{DataConsistencyScore, ItemClass},
    error_id::ErrorId,
    moves::{Move, UserStatus},
};
use rehome_migrate::target::{control, reports::user_retry_skipped};
use std::time::{Duration, Instant};

/// Waits until a user who rests is as he should be.
async fn rests(world: &World, what: &str, is_so: impl Fn(&Move) -> bool) -> Move {
    let started = Instant::now();
    loop {
        let user = world.wait_for(UserStatus::Synced).await;
        if is_so(&user) {
            return user;
        }
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "waited until {what}: {user:#?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until his completion was refused for items that nobody approved, and the refusal says so.
async fn is_held(world: &World, says: &str) -> Move {
    let held = |user: &Move| {
        user.problems
            .first()
            .is_some_and(|problem| problem.id == ErrorId::SkippedItemsNotApproved && problem.message.contains(says))
    };
    rests(world, says, held).await
}

async fn syncs(world: &World, lost: u64) -> Move {
    world
        .request(async |tx, tenant, batch, now| control::batch_sync_now(tx, tenant, batch, now).await)
        .await;
    rests(world, "he is synced", |user| bad(user) == lost).await
}

fn bad(user: &Move) -> u64 {
    user.figures.findings.of(ItemClass::Bad).items
}

fn score(user: &Move) -> DataConsistencyScore {
    user.assessment().unwrap().score
}

async fn completes(world: &World) {
    world
        .request(async |tx, tenant, batch, now| control::batch_complete(tx, tenant, batch, now, now).await)
        .await;
}

/// Waits for the next second, in which what is found is later than an approval of this one.
async fn next_second(world: &World) {
    let second = Timestamp::now().as_second();
    world
        .wait_until("the second is over", async || Timestamp::now().as_second() > second)
        .await;
}

/// An approval on the batch holds for what was found before it. What was mended is tried again at once, leaves the report
/// and needs no approval.
#[tokio::test(flavor = "multi_thread")]
async fn investigate_waits_for_the_batch_and_a_new_skip_waits_again() {
    let world = World::new().await;
    world.deliver_at_source(40).await;
    world.cannot_read([2]);
    world.new_batch(true).await;
    let user = world.wait_for(UserStatus::Synced).await;
    assert_eq!((bad(&user), user.figures.items_skipped), (1, 1));
    assert_eq!(score(&user), DataConsistencyScore::Investigate);
    completes(&world).await;
    is_held(&world, "1 items are not in the target").await;

    // The completion is called off; what was found is approved, and what is found after that is not.
    world
        .request(async |tx, tenant, batch, now| {
            let mut row = tx.batch_get(tenant, batch).await.unwrap().unwrap();
            row.complete_after = None;
            tx.batch_update(&row).await.unwrap();
            control::batch_approve_skipped(tx, tenant, batch, now).await
        })
        .await;
    next_second(&world).await;
    world.deliver_at_source(1).await;
    world.cannot_read([2, 41]);
    syncs(&world, 2).await;
    completes(&world).await;
    is_held(
        &world,
        "1 items are not in the target as they are in the source; the first is uid 41",
    )
    .await;

    world.cannot_read([]);
    world
        .request(async |tx, tenant, _, now| user_retry_skipped(tx, tenant, user.id, now).await)
        .await;
    let user = world.wait_for(UserStatus::Completed).await;
    assert_eq!(score(&user), DataConsistencyScore::Perfect);
    assert_eq!((user.figures.items_synced, user.figures.items_skipped), (41, 0));
    assert_eq!(world.octets_at_target().await, world.octets_delivered());
    assert_eq!(world.target_attempt().await.exceptions.as_deref(), Some("[]"));
    world.stop().await;
}

/// A major loss is approved for the user himself or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn poor_waits_for_the_user_himself() {
    let world = World::new().await;
    world.deliver_at_source(30).await;
    world.cannot_read(1..=11);
    world.new_batch(true).await;
    let user = world.wait_for(UserStatus::Synced).await;
    assert_eq!((bad(&user), score(&user)), (11, DataConsistencyScore::Poor));
    world
        .request(async |tx, tenant, batch, now| control::batch_approve_skipped(tx, tenant, batch, now).await)
        .await;
    completes(&world).await;
    let user = is_held(&world, "does not reach him").await;
    assert!(
        user.problems[0]
            .advice
            .contains("Set-MigrationUser user1@fabrikam.example -ApproveSkippedItems")
    );
    world
        .request(async |tx, tenant, _, now| control::user_approve_skipped(tx, tenant, user.id, now).await)
        .await;
    let user = world.wait_for(UserStatus::CompletedWithWarnings).await;
    assert_eq!(
        score(&user),
        DataConsistencyScore::Poor,
        "an approval does not change the score"
    );
    let exceptions = world.target_attempt().await.exceptions.unwrap();
    assert_eq!(exceptions.matches("\"approved\":true").count(), 11, "{exceptions}");
    assert!(!exceptions.contains("approved by rule"), "{exceptions}");
    assert_eq!(world.octets_at_target().await.len(), 19);
    world
        .request(async |tx, tenant, _, now| {
            let refused = user_retry_skipped(tx, tenant, user.id, now).await.unwrap_err();
            assert_eq!(refused.id, ErrorId::InvalidOperation);
            Ok(())
        })
        .await;
    world.stop().await;
}

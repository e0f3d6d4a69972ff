//! After Commit: sweeps until retention ends, and the end of the old content.

use crate::world::World;
use jiff::SignedDuration;
use rehome_domain::{cutover::SourcePhase, moves::UserStatus};
use rehome_migrate::target::control;

async fn moved() -> World {
    let world = World::new().await;
    world.deliver_at_source(3).await;
    world.new_batch(true).await;
    world.wait_for(UserStatus::Synced).await;
    world
        .request(async |tx, tenant, batch, now| control::batch_complete(tx, tenant, batch, now, now).await)
        .await;
    world.wait_for(UserStatus::Completed).await;
    world
        .wait_until("the old content is closed", async || {
            world.source_attempt().await.closed
        })
        .await;
    world
}

async fn swept(world: &World, times: u64) {
    world
        .wait_until(&format!("{times} sweeps were made"), async || {
            world.sweeps().await.done >= times
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn late_items_are_found_by_later_sweeps_until_retention_ends() {
    let world = moved().await;
    let plan = world.sweeps().await;
    assert_eq!((plan.done, plan.problem.clone()), (1, None));
    assert_eq!(plan.next, Some(plan.committed + SignedDuration::from_hours(1)));
    world.plants_late(1);
    world.passes(SignedDuration::from_mins(61));
    swept(&world, 2).await;
    assert_eq!(world.wait_for(UserStatus::Completed).await.figures.swept_items, 1);
    assert_eq!(world.octets_at_target().await, world.octets_delivered());
    world.plants_late(2);
    world.passes(SignedDuration::from_hours(25));
    swept(&world, 3).await;
    world.passes(SignedDuration::from_hours(25));
    swept(&world, 4).await;
    // What was swept before is not swept again.
    let user = world.wait_for(UserStatus::Completed).await;
    assert_eq!((user.figures.swept_items, user.waiting_for.as_str()), (2, ""));
    assert_eq!(world.octets_at_target().await, world.octets_delivered());
    // The last one before retention ends plans none behind it.
    world.passes(SignedDuration::from_hours(24 * 27));
    swept(&world, 5).await;
    assert_eq!(world.sweeps().await.next, None);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_ends_sweeps_and_both_sides_say_so() {
    let world = moved().await;
    world.plants_late(1);
    world.revokes_consent().await;
    world.passes(SignedDuration::from_mins(61));
    world
        .wait_until("there are no more sweeps", async || world.sweeps().await.next.is_none())
        .await;
    let plan = world.sweeps().await;
    assert_eq!(plan.done, 1);
    assert!(plan.problem.unwrap().contains("ApplicationNotConsented"));
    let user = world.wait_for(UserStatus::Completed).await;
    assert!(user.problems.is_empty(), "{user:#?}");
    let seen = &world.source.outbound_list(world.source_tenant).await.unwrap()[0];
    assert!(
        seen.sweeps.as_ref().unwrap().contains("consent was revoked"),
        "{seen:#?}"
    );
    assert!(
        seen.outbound
            .last_refusal
            .as_ref()
            .unwrap()
            .contains("consent was revoked"),
        "{seen:#?}"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_that_could_not_be_made_is_made_an_hour_later() {
    let world = moved().await;
    world.plants_late(1);
    world.loses(&["sweep"]);
    world.passes(SignedDuration::from_mins(61));
    world
        .wait_until("a sweep failed", async || world.sweeps().await.problem.is_some())
        .await;
    world.loses(&[]);
    world.passes(SignedDuration::from_mins(61));
    swept(&world, 2).await;
    assert_eq!(world.sweeps().await.problem, None);
    assert_eq!(world.octets_at_target().await, world.octets_delivered());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_content_goes_when_retention_ends_and_not_before() {
    let world = moved().await;
    world.passes(SignedDuration::from_hours(24 * 30 - 1));
    // The keeper looks every second; a sweep in between shows that it has.
    swept(&world, 2).await;
    assert_eq!(world.closed_folders().len(), 1);
    assert_eq!(world.source_attempt().await.attempt.phase, SourcePhase::Committed);
    world.passes(SignedDuration::from_hours(2));
    world
        .wait_until("the content is removed", async || {
            world.source_attempt().await.content_removed.is_some()
        })
        .await;
    assert!(world.closed_folders().is_empty());
    assert_eq!(world.source_attempt().await.attempt.phase, SourcePhase::Released);
    let actions = world.source_actions().await;
    for action in ["Release old content", "Remove old content"] {
        assert_eq!(actions.iter().filter(|a| *a == action).count(), 1, "{actions:?}");
    }
    let shown = &world.source.outbound_list(world.source_tenant).await.unwrap()[0];
    assert_eq!(shown.state, "Moved");
    assert!(shown.content_removed.is_some() && shown.sweeps.as_ref().unwrap().contains("retention ended"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn held_content_stays_until_it_is_let_go() {
    let world = moved().await;
    let keep = async |keep: bool| {
        world
            .at_source(async |tx| {
                world
                    .source
                    .keep_content(tx, world.source_tenant, world.exchange_guid, keep)
                    .await
                    .unwrap();
            })
            .await;
    };
    keep(true).await;
    world.passes(SignedDuration::from_hours(24 * 31));
    // Whatever the keeper does it does in the order of its list; a direct look decides nothing else.
    world.keeper_has_looked().await;
    assert_eq!(world.closed_folders().len(), 1);
    keep(false).await;
    world
        .wait_until("the content is removed", async || {
            world.source_attempt().await.content_removed.is_some()
        })
        .await;
    assert!(world.closed_folders().is_empty());
    world.stop().await;
}

/// How long it is kept is the relationship's to say, and counts from the move on.
#[tokio::test(flavor = "multi_thread")]
async fn the_relationship_says_how_long_content_is_kept() {
    let world = World::new().await;
    world
        .change_relationship(|relationship| relationship.content_retention_days = Some(2))
        .await;
    world.deliver_at_source(1).await;
    world.new_batch(true).await;
    world.wait_for(UserStatus::Synced).await;
    world
        .request(async |tx, tenant, batch, now| control::batch_complete(tx, tenant, batch, now, now).await)
        .await;
    world.wait_for(UserStatus::Completed).await;
    let attempt = world.source_attempt().await;
    let kept = attempt
        .retention_until
        .unwrap()
        .duration_since(attempt.attempt.committed_at.unwrap());
    assert_eq!(kept, SignedDuration::from_hours(48));
    let plan = world.sweeps().await;
    assert_eq!(plan.retention_until, attempt.retention_until.unwrap());
    world.stop().await;
}

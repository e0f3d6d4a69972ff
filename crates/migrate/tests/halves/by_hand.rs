//! Promises that end by hand, and what follows from it.

use crate::world::World;
use rehome_domain::{
    cutover::{Ground, Resolution, SourcePhase, TargetPhase},
    error_id::{ErrorId, Problem},
    moves::UserStatus,
    recipient::{MailboxState, RecipientKind},
};
use rehome_migrate::{source::ByHand, target::control};

async fn completes(world: &World) {
    world
        .request(async |tx, tenant, batch, now| control::batch_complete(tx, tenant, batch, now, now).await)
        .await;
}

/// A synced mailbox whose source has promised, and whose target has decided without being able to say so.
async fn decided_in_silence() -> World {
    let world = World::new().await;
    world.deliver_at_source(3).await;
    world.new_batch(true).await;
    world.wait_for(UserStatus::Synced).await;
    world.loses(&["commit"]);
    completes(&world).await;
    world
        .wait_until("the target has decided", async || {
            matches!(world.target_recipient().await.kind, RecipientKind::Mailbox(_))
        })
        .await;
    assert_eq!(world.source_attempt().await.attempt.phase, SourcePhase::Prepared);
    world
}

async fn resolve(world: &World, wanted: Resolution, force: bool, confirmed: Option<&str>) -> Result<Ground, Problem> {
    let mailbox = world.source_recipient().await;
    let promised = world
        .source
        .promised(world.source_tenant, &mailbox, world.exchange_guid)
        .await?;
    let by_hand = ByHand {
        wanted,
        statement: None,
        force,
        confirmed,
    };
    let ground = promised.ground(&by_hand, &mailbox, world.now())?;
    world
        .at_source(async |tx| world.source.resolve(tx, &promised, wanted, ground).await)
        .await?;
    Ok(ground)
}

/// The exception to "one tenant accepts": nothing is lost, nothing is there twice, and the source ends as mail user.
#[tokio::test(flavor = "multi_thread")]
async fn what_came_to_a_reopened_mailbox_is_caught_up() {
    let world = decided_in_silence().await;
    resolve(&world, Resolution::Aborted, true, Some("USER1@contoso.example"))
        .await
        .unwrap();
    assert_eq!(world.source_attempt().await.attempt.phase, SourcePhase::Reopened);
    assert_eq!(
        world.source_recipient().await.mailbox().unwrap().state,
        MailboxState::Open
    );
    world.deliver_at_source(2).await;
    // The mailbox is in use at the target, too: what its user does there stays.
    world.deliver_at_target(1).await;
    world.deletes_oldest_at_target().await;
    // The first catch-up attempt does not get through, either.
    world.loses(&["prepare"]);
    world
        .wait_until("a catch-up attempt was given up", async || {
            world.target_attempt().await.phase == TargetPhase::CatchUpAborted
        })
        .await;
    assert!(matches!(world.target_recipient().await.kind, RecipientKind::Mailbox(_)));
    world.deliver_at_source(1).await;
    world.loses(&[]);
    let user = world.wait_for(UserStatus::Completed).await;
    assert_eq!(user.figures.swept_items, 0);
    assert_eq!(world.octets_at_target().await, world.octets_delivered());
    assert!(matches!(
        world.source_recipient().await.kind,
        RecipientKind::MailUser(_)
    ));
    let attempt = world.source_attempt().await;
    assert_eq!(attempt.attempt.phase, SourcePhase::Committed);
    assert!(attempt.attempt.catches_up.is_some());
    assert_eq!(world.target_attempt().await.phase, TargetPhase::Done);
    // Sweeps go on with the attempt that the source committed.
    assert_eq!(world.sweeps().await.attempt, attempt.attempt.id);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_targets_answer_goes_before_everything() {
    let world = decided_in_silence().await;
    let address = Some("user1@contoso.example");
    for (said, wanted) in [("decided", Resolution::Aborted), ("aborted", Resolution::Committed)] {
        // What the address says is read once by us here, and is not carried out by the source in between: the keeper asks
        // every ten seconds, and finds what is true.
        world.outcome_address_says(Some(said));
        let refused = resolve(&world, wanted, true, address).await.unwrap_err();
        world.outcome_address_says(None);
        assert_eq!(refused.id, ErrorId::InvalidOperation, "{refused}");
        assert!(refused.message.contains("answer stands"), "{refused}");
        assert_eq!(world.source_attempt().await.attempt.phase, SourcePhase::Prepared);
    }
    // Without an answer nothing is taken on trust, and force only from someone who has read what it means.
    for (wanted, force, confirmed) in [
        (Resolution::Aborted, false, address),
        (Resolution::Committed, false, address),
        (Resolution::Committed, true, address),
        (Resolution::Aborted, true, None),
        (Resolution::Aborted, true, Some("press@contoso.example")),
    ] {
        let refused = resolve(&world, wanted, force, confirmed).await.unwrap_err();
        assert_eq!(refused.id, ErrorId::InvalidOperation, "{refused}");
        assert_eq!(world.source_attempt().await.attempt.phase, SourcePhase::Prepared);
    }
    world.outcome_address_says(Some("decided"));
    match resolve(&world, Resolution::Committed, false, None).await {
        Ok(ground) => assert_eq!(ground, Ground::Asked),
        // The source asked by itself a moment earlier.
        Err(problem) => assert!(problem.message.contains("nothing to resolve"), "{problem}"),
    }
    assert!(matches!(
        world.source_recipient().await.kind,
        RecipientKind::MailUser(_)
    ));
    world.loses(&[]);
    world.wait_for(UserStatus::Completed).await;
    assert_eq!(world.octets_at_target().await, world.octets_delivered());
    let refused = resolve(&world, Resolution::Aborted, true, address).await.unwrap_err();
    assert!(refused.message.contains("nothing to resolve"), "{refused}");
    world.stop().await;
}

/// An undecided attempt whose source cannot be reached is aborted when the administrator stops the user.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_undecided_is_aborted_by_stop() {
    let world = World::new().await;
    world.deliver_at_source(1).await;
    world.new_batch(true).await;
    world.wait_for(UserStatus::Synced).await;
    // Prepare arrives, and nothing that would tell so.
    world.loses_answers(&["prepare"]);
    world.loses(&["status", "abort"]);
    completes(&world).await;
    world
        .wait_until("the source has promised", async || {
            world.has_source_attempt().await && world.source_attempt().await.attempt.phase == SourcePhase::Prepared
        })
        .await;
    world
        .request(async |tx, tenant, batch, now| control::batch_stop(tx, tenant, batch, now).await)
        .await;
    world.wait_for(UserStatus::IncrementalStopped).await;
    assert_eq!(world.target_attempt().await.phase, TargetPhase::Aborted);
    // The source learns of it by asking.
    world.outcome_address_says(Some("aborted"));
    assert_eq!(
        resolve(&world, Resolution::Aborted, false, None)
            .await
            .unwrap_or(Ground::Asked),
        Ground::Asked
    );
    assert_eq!(world.source_attempt().await.attempt.phase, SourcePhase::Aborted);
    world.stop().await;
}

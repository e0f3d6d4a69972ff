//! The way back: approved by who has the mailbox, pulled by who had it, and only what changed.

use crate::world::World;
use jiff::SignedDuration;
use rehome_domain::{error_id::ErrorId, moves::UserStatus, recipient::RecipientKind};
use rehome_migrate::target::control;

/// A mailbox of `count` messages that has moved.
async fn moved(count: usize) -> World {
    let world = World::new().await;
    world.deliver_at_source(count).await;
    moves(&world).await;
    world.opens_the_way_back().await;
    world
}

async fn moves(world: &World) {
    world.new_batch(true).await;
    world.wait_for(UserStatus::Synced).await;
    world
        .request(async |tx, tenant, batch, now| control::batch_complete(tx, tenant, batch, now, now).await)
        .await;
    world.wait_for(UserStatus::Completed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_comes_back_with_what_changed_alone() {
    let world = moved(30).await;
    world.deliver_at_target(50).await;
    world.flags_at_target(20).await;
    let before = world.inbox(true).await;

    world.begins_return().await.unwrap();
    let waiting = world.return_becomes(|user| !user.problems.is_empty()).await;
    assert_eq!(waiting.problems[0].id, ErrorId::ReturnNotApproved, "{waiting:#?}");
    let again = world.begins_return().await.unwrap_err();
    assert_eq!(again.id, ErrorId::SourceMailboxAlreadyBeingMovedPermanent);

    world.approves_return().await.unwrap();
    world.resumes_return().await;
    let user = world.is_back().await;
    assert_eq!(user.figures.items_synced, 50, "{:?}", user.figures);
    assert!(user.figures.lock_round_trips <= 12, "{:?}", user.figures);
    assert_eq!(world.inbox(false).await, before, "uids, flags and octets");

    let (old, new) = (world.source_recipient().await, world.target_recipient().await);
    assert!(
        matches!(&old.kind, RecipientKind::Mailbox(m) if m.location == "user1"),
        "{old:?}"
    );
    let forwards = new.mail_user().unwrap();
    assert_eq!(
        forwards.external_email_address.as_ref().unwrap().to_string(),
        "user1@contoso.example"
    );
    assert_eq!(forwards.exchange_guid, old.exchange_guid());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_and_back_and_there_and_back_again() {
    let world = moved(5).await;
    for round in 0..2 {
        world.deliver_at_target(2).await;
        world.approves_return().await.unwrap();
        world.begins_return().await.unwrap();
        let user = world.is_back().await;
        assert_eq!(user.figures.items_synced, 2, "round {round}");
        world.forgets_moves().await;
        world.deliver_back_home(1).await;
        moves(&world).await;
        let all = world.inbox(true).await.into_iter().map(|(.., octets)| octets);
        let mut all: Vec<_> = all.collect();
        all.sort();
        assert_eq!(all, world.octets_delivered(), "round {round}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_outlives_the_batch() {
    let world = moved(5).await;
    world.forgets_moves().await;
    world.approves_return().await.unwrap();
    world.begins_return().await.unwrap();
    assert_eq!(world.is_back().await.figures.items_synced, 0);
    assert_eq!(world.inbox(false).await.len(), 5);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_return_needs() {
    // Nothing has moved.
    let world = World::new().await;
    assert_eq!(world.begins_return().await.unwrap_err().id, ErrorId::ReturnRightMissing);
    assert_eq!(
        world.approves_return().await.unwrap_err().id,
        ErrorId::ReturnRightMissing
    );
    world.stop().await;

    // The consent does not hold the right.
    let world = moved(1).await;
    let guid = world.exchange_guid;
    let tenant = world.source_tenant;
    let right = async |world: &World, right: bool| {
        world
            .changes(false, async |tx| {
                let mut principal = tx.service_principal_list(tenant).await.unwrap().remove(0);
                principal.return_right = right;
                tx.service_principal_put(tenant, &principal).await.unwrap();
            })
            .await;
    };
    right(&world, false).await;
    assert_eq!(world.begins_return().await.unwrap_err().id, ErrorId::ReturnRightMissing);
    right(&world, true).await;

    // A hold keeps it where it is.
    let hold = async |world: &World, hold: bool| {
        let mut recipient = world.target_recipient().await;
        let RecipientKind::Mailbox(mailbox) = &mut recipient.kind else {
            panic!()
        };
        mailbox.litigation_hold = hold;
        let tenant = world.target_tenant;
        world
            .changes(true, async |tx| {
                tx.recipient_update(tenant, &recipient).await.unwrap();
            })
            .await;
    };
    hold(&world, true).await;
    assert_eq!(world.approves_return().await.unwrap_err().id, ErrorId::MailboxOnHold);
    hold(&world, false).await;
    world.approves_return().await.unwrap();
    hold(&world, true).await;
    world.begins_return().await.unwrap();
    let failed = world.return_becomes(|user| user.status == UserStatus::Failed).await;
    assert_eq!(failed.problems[0].id, ErrorId::MailboxOnHold);
    hold(&world, false).await;

    // The right was withdrawn where the mailbox is.
    let client = world.return_client_of_source();
    let owner = world.target_tenant;
    world
        .changes(true, async |tx| {
            let mut principal = tx.service_principal_by_app(owner, client).await.unwrap().unwrap();
            principal.revoked_at = Some(jiff::Timestamp::now());
            tx.service_principal_put(owner, &principal).await.unwrap();
        })
        .await;
    assert_eq!(
        world.approves_return().await.unwrap_err().id,
        ErrorId::ReturnRightMissing
    );
    world.resumes_return().await;
    let failed = world
        .return_becomes(|user| {
            user.problems
                .first()
                .is_some_and(|p| p.id == ErrorId::ApplicationNotConsented)
        })
        .await;
    assert_eq!(failed.status, UserStatus::Failed);
    assert!(matches!(world.target_recipient().await.kind, RecipientKind::Mailbox(_)));

    // While a move back is open the old content stays; without one its time ends.
    let mut tx = world.store_of_source().read().await.unwrap();
    assert!(tx.return_is_open(tenant, guid).await.unwrap());
    drop(tx);
    world.stop().await;

    let world = moved(1).await;
    world.passes(SignedDuration::from_hours(24 * 31));
    let ended = world.begins_return().await.unwrap_err().id;
    assert!(
        [ErrorId::ReturnPeriodEnded, ErrorId::OldContentGone].contains(&ended),
        "{ended}"
    );
    assert_eq!(
        world.approves_return().await.unwrap_err().id,
        ErrorId::ReturnPeriodEnded
    );
    world.stop().await;
}

/// A partner whose pairs do not hold for his own items is found out by the roots, and believed no more.
#[tokio::test(flavor = "multi_thread")]
async fn pairs_that_do_not_hold_are_not_used_again() {
    let world = moved(6).await;
    world.approves_return().await.unwrap();
    world.rewrites_one_at_target().await;
    world.begins_return().await.unwrap();
    let user = world.is_back().await;
    assert_eq!(user.figures.items_synced, 6, "everything was copied anew");
    assert_eq!(world.inbox(false).await.len(), 6);
    let rewritten = world
        .inbox(false)
        .await
        .into_iter()
        .filter(|(.., octets)| octets.ends_with(b"BODY\r\n"));
    assert_eq!(rewritten.count(), 1, "what he has now is what counts");
    world.stop().await;
}

/// Uids in the partner's pairs that cannot be are not used: those items are copied.
#[tokio::test(flavor = "multi_thread")]
async fn pairs_that_cannot_be_are_left_out() {
    let world = moved(6).await;
    world.approves_return().await.unwrap();
    world.swaps_pairs_at_target().await;
    world.begins_return().await.unwrap();
    assert_eq!(world.is_back().await.figures.items_synced, 2);
    assert_eq!(world.inbox(false).await.len(), 6);
    world.stop().await;
}

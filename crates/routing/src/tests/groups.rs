//! Groups.

use super::{
    hop::{Hop, Moment},
    world::{Options, Talk, World, send},
};
use crate::TlsPolicy;
use rehome_domain::{
    id::MoveId,
    recipient::{MailboxState, Recipient},
};
use rehome_platform::Place;
use std::time::Duration;

async fn two() -> (World, World) {
    let fabrikam = World::new(&["fabrikam.example"], Options::default()).await;
    let routes = vec![("fabrikam.example".to_owned(), fabrikam.route(TlsPolicy::None))];
    let contoso = World::new(
        &["contoso.example"],
        Options {
            routes,
            ..Options::default()
        },
    )
    .await;
    (contoso, fabrikam)
}

#[tokio::test]
async fn members_here_and_there_each_get_one() {
    let (contoso, fabrikam) = two().await;
    let here = contoso.mailbox("here@contoso.example").await;
    let anna = contoso
        .mail_user("anna@contoso.example", Some("anna@fabrikam.example"))
        .await;
    let twin = contoso
        .mail_user("twin@contoso.example", Some("Anna@fabrikam.example"))
        .await;
    fabrikam.mailbox("anna@fabrikam.example").await;
    let inner = contoso.group("inner@contoso.example", &[&anna, &twin, &here]).await;
    let outer = contoso.group("outer@contoso.example", &[&inner, &here]).await;
    contoso.member(&inner, &outer).await;
    let mut talk = Talk::mail(&contoso).await;
    assert!(talk.rcpt("outer@contoso.example").await.starts_with("250 "));
    // Its hops are the transaction's already.
    assert!(talk.rcpt("here@contoso.example").await.starts_with("250 "));
    assert!(talk.data(b"x\r\n").await.starts_with("250 "));
    assert_eq!(contoso.inbox("here@contoso.example").len(), 1);
    assert_eq!(fabrikam.inbox("anna@fabrikam.example").len(), 1);
    // The other way round it needs a second transaction.
    let mut talk = Talk::mail(&contoso).await;
    assert!(talk.rcpt("here@contoso.example").await.starts_with("250 "));
    assert!(talk.rcpt("outer@contoso.example").await.starts_with("452 4.5.3 "));
}

#[tokio::test]
async fn one_members_answer_is_the_groups() {
    let (contoso, fabrikam) = two().await;
    let here = contoso.mailbox("here@contoso.example").await;
    let locked = contoso.mailbox("locked@contoso.example").await;
    let nowhere = contoso.mail_user("nowhere@contoso.example", None).await;
    let known = contoso
        .mail_user("known@contoso.example", Some("known@fabrikam.example"))
        .await;
    let gone = contoso
        .mail_user("gone@contoso.example", Some("gone@fabrikam.example"))
        .await;
    fabrikam.mailbox("known@fabrikam.example").await;
    contoso
        .set_state(&locked, MailboxState::InCutover(MoveId::from_u128(1)))
        .await;
    for (name, members, reply) in [
        ("nobody", vec![], "550 5.4.4 "),
        ("waiting", vec![&here, &locked], "451 4.2.1 "),
        ("broken", vec![&here, &locked, &nowhere], "550 5.4.4 "),
        ("half", vec![&here, &known, &gone], "550 5.1.1 "),
    ] {
        let address = format!("{name}@contoso.example");
        contoso.group(&address, &members).await;
        let got = send(&contoso, &address, b"x\r\n").await;
        assert!(got.starts_with(reply), "{name}: {got}");
    }
    // The next hop said yes to one member of the refused group; he gets nothing by it.
    let mut talk = Talk::mail(&contoso).await;
    assert!(talk.rcpt("half@contoso.example").await.starts_with("550 "));
    assert!(talk.rcpt("here@contoso.example").await.starts_with("250 "));
    assert!(talk.data(b"x\r\n").await.starts_with("250 "));
    assert_eq!(contoso.inbox("here@contoso.example").len(), 1);
    assert!(fabrikam.inbox("known@fabrikam.example").is_empty());
}

#[tokio::test]
async fn a_later_hops_failure_keeps_local_mailboxes_empty() {
    let (contoso, fabrikam) = two().await;
    let here = contoso.mailbox("here@contoso.example").await;
    let anna = contoso
        .mail_user("anna@contoso.example", Some("anna@fabrikam.example"))
        .await;
    let there = fabrikam.mailbox("anna@fabrikam.example").await;
    contoso.group("all@contoso.example", &[&here, &anna]).await;
    let mut talk = Talk::mail(&contoso).await;
    assert!(talk.rcpt("all@contoso.example").await.starts_with("250 "));
    fabrikam.set_state(&there, MailboxState::NotYetShown).await;
    assert!(talk.data(b"x\r\n").await.starts_with("451 "));
    assert!(contoso.inbox("here@contoso.example").is_empty());
    fabrikam.set_state(&there, MailboxState::Open).await;
    assert!(
        send(&contoso, "all@contoso.example", b"x\r\n")
            .await
            .starts_with("250 ")
    );
    assert_eq!(contoso.inbox("here@contoso.example").len(), 1);
    assert_eq!(fabrikam.inbox("anna@fabrikam.example").len(), 1);
}

#[tokio::test]
async fn too_many_members() {
    let (contoso, _fabrikam) = two().await;
    let group = contoso.group("all@contoso.example", &[]).await;
    for number in 0..=100 {
        let member = contoso
            .mail_user(&format!("u{number}@contoso.example"), Some("x@fabrikam.example"))
            .await;
        contoso.member(&group, &member).await;
    }
    assert!(
        send(&contoso, "all@contoso.example", b"x\r\n")
            .await
            .starts_with("550 5.2.4 ")
    );
}

/// A deployment with the group all@contoso.example: a mailbox here, and a member behind each of these hops.
async fn mixed(hops: &[&Hop], locked: Option<Duration>) -> (World, Recipient) {
    let domain = |at: usize| format!("hop{at}.example");
    let routes = hops.iter().enumerate().map(|(at, hop)| (domain(at), hop.route()));
    let options = Options {
        routes: routes.collect(),
        locked,
        ..Options::default()
    };
    let contoso = World::new(&["contoso.example"], options).await;
    let here = contoso.mailbox("here@contoso.example").await;
    let group = contoso.group("all@contoso.example", &[&here]).await;
    for at in 0..hops.len() {
        let away = format!("member@{}", domain(at));
        let member = contoso
            .mail_user(&format!("member{at}@contoso.example"), Some(&away))
            .await;
        contoso.member(&group, &member).await;
    }
    (contoso, here)
}

async fn lock(world: &World, mailbox: &Recipient) -> bool {
    let state = MailboxState::InCutover(MoveId::from_u128(1));
    world.set_state(mailbox, state).await;
    let place = Place::from(mailbox.mailbox().unwrap());
    world.platforms.quiesce(&place, Duration::ZERO).await.is_ok()
}

#[tokio::test]
async fn a_lock_waits_while_a_hop_has_the_end_of_the_message() {
    let mut hop = Hop::listen().await;
    let (contoso, here) = mixed(&[&hop], None).await;
    let (reply, ()) = tokio::join!(send(&contoso, "all@contoso.example", b"x\r\n"), async {
        hop.expect(Moment::Data).await.answer("354 go on");
        let asked = hop.expect(Moment::End).await;
        assert!(!lock(&contoso, &here).await, "a cutover came between");
        asked.answer("250 2.0.0 taken");
    });
    assert!(reply.starts_with("250 "), "{reply}");
    assert_eq!(contoso.inbox("here@contoso.example").len(), 1);
    assert!(lock(&contoso, &here).await);
}

#[tokio::test]
async fn a_lock_that_comes_first_keeps_the_end_of_the_message_from_the_hop() {
    let mut hop = Hop::listen().await;
    let (contoso, here) = mixed(&[&hop], None).await;
    let (reply, ()) = tokio::join!(send(&contoso, "all@contoso.example", b"x\r\n"), async {
        let asked = hop.expect(Moment::Data).await;
        assert!(lock(&contoso, &here).await);
        asked.answer("354 go on");
        hop.expect(Moment::Lost).await;
    });
    assert!(reply.starts_with("451 4.2.1 "), "{reply}");
    assert!(contoso.inbox("here@contoso.example").is_empty());
}

#[tokio::test]
async fn a_slow_hop_holds_up_no_lock_and_its_member_gets_one() {
    let mut hop = Hop::listen().await;
    let (contoso, here) = mixed(&[&hop], Some(Duration::ZERO)).await;
    let (reply, ()) = tokio::join!(send(&contoso, "all@contoso.example", b"x\r\n"), async {
        hop.expect(Moment::Data).await.answer("354 go on");
        let asked = hop.expect(Moment::End).await;
        while !lock(&contoso, &here).await {
            tokio::task::yield_now().await;
        }
        asked.answer("250 2.0.0 taken");
    });
    assert!(reply.starts_with("451 4.2.1 "), "{reply}");
    assert!(contoso.inbox("here@contoso.example").is_empty());
    // The sender repeats; the hop is not asked for DATA again.
    contoso.set_state(&here, MailboxState::Open).await;
    let reply = send(&contoso, "all@contoso.example", b"x\r\n").await;
    assert!(reply.starts_with("250 "), "{reply}");
    assert_eq!(contoso.inbox("here@contoso.example").len(), 1);
    // Another message is another matter.
    let (reply, ()) = tokio::join!(send(&contoso, "all@contoso.example", b"y\r\n"), async {
        hop.expect(Moment::Data).await.answer("354 go on");
        hop.expect(Moment::End).await.answer("250 2.0.0 taken");
    });
    assert!(reply.starts_with("250 "), "{reply}");
}

#[tokio::test]
async fn a_second_hops_refusal_is_no_bounce_for_those_who_have_it() {
    let (mut first, mut second) = (Hop::listen().await, Hop::listen().await);
    let (contoso, _) = mixed(&[&first, &second], None).await;
    for (round, answer, expected) in [
        (0, "554 5.7.1 not this one", "451 4.3.0 "),
        (1, "554 5.7.1 not this one", "451 4.3.0 "),
        (2, "250 2.0.0 taken", "250 "),
    ] {
        let (reply, ()) = tokio::join!(send(&contoso, "all@contoso.example", b"x\r\n"), async {
            // The first hop takes it once.
            if round == 0 {
                first.expect(Moment::Data).await.answer("354 go on");
            }
            second.expect(Moment::Data).await.answer("354 go on");
            if round == 0 {
                first.expect(Moment::End).await.answer("250 2.0.0 taken");
            }
            second.expect(Moment::End).await.answer(answer);
        });
        assert!(reply.starts_with(expected), "{reply}");
        let inbox = contoso.inbox("here@contoso.example").len();
        assert_eq!(inbox, usize::from(expected == "250 "));
    }
    // Where the first refuses nobody has it, and a no is a no.
    let (reply, ()) = tokio::join!(send(&contoso, "all@contoso.example", b"y\r\n"), async {
        first.expect(Moment::Data).await.answer("354 go on");
        second.expect(Moment::Data).await.answer("354 go on");
        first.expect(Moment::End).await.answer("554 5.7.1 not this one");
        second.expect(Moment::Lost).await;
    });
    assert!(reply.starts_with("554 5.7.1 "), "{reply}");
}

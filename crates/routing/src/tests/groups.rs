//! Groups.

use super::world::{Options, Talk, World, send};
use crate::TlsPolicy;
use rehome_domain::{id::MoveId, recipient::MailboxState};

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

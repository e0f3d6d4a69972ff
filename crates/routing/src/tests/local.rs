//! Local delivery.

use super::world::{Options, Talk, World, send, tenant_id};
use rehome_domain::{
    cutover::TargetPhase,
    id::MoveId,
    recipient::{MailUser, MailboxState, RecipientKind},
};
use rehome_platform::Place;
use std::time::Duration;

const MESSAGE: &[u8] = b"Subject: a\r\n\tfolded\r\n\r\n\xc3\xa9 8-bit, \0 NUL and no end";
const CONTOSO: &str = "contoso.example";

/// The message as a client sends it: SMTP ends every line.
fn with_end(message: &[u8]) -> Vec<u8> {
    [message, b"\r\n"].concat()
}

async fn contoso() -> World {
    World::new(&[CONTOSO], Options::default()).await
}

#[tokio::test]
async fn a_file_is_what_was_sent_after_two_lines() {
    let world = contoso().await;
    world.mailbox("anna@contoso.example").await;
    let sent = with_end(MESSAGE);
    assert!(
        send(&world, "ANNA@Contoso.example", &sent)
            .await
            .starts_with("250 2.0.0 ")
    );
    let files = world.inbox("anna@contoso.example");
    let text = String::from_utf8_lossy(&files[0]);
    let lines: Vec<&str> = text.split("\r\n").collect();
    assert!(
        lines[0].starts_with("Received: from client.example ([127.0.0.1])"),
        "{text}"
    );
    assert!(lines[1].starts_with("\tby mx.contoso.example with ESMTP id "), "{text}");
    assert_eq!(lines[2], "\tfor <ANNA@contoso.example>;");
    assert_eq!(lines[4], format!("Rehome-Trace: {}", tenant_id(CONTOSO)));
    let own: usize = lines[..5].iter().map(|line| line.len() + 2).sum();
    assert_eq!(files[0][own..], sent);
    assert_eq!(files.len(), 1);
}

#[tokio::test]
async fn dots_are_taken_off_and_large_messages_arrive_whole() {
    let world = contoso().await;
    for address in ["anna@contoso.example", "box@contoso.example"] {
        world.mailbox(address).await;
    }
    let mut talk = Talk::mail(&world).await;
    for address in ["anna@contoso.example", "box@contoso.example", "anna@contoso.example"] {
        assert!(talk.rcpt(address).await.starts_with("250 "));
    }
    let body = "0123456789abcdef\r\n".repeat(40_000);
    assert!(
        talk.data(format!("\r\n..dot\r\n{body}").as_bytes())
            .await
            .starts_with("250 ")
    );
    for address in ["anna@contoso.example", "box@contoso.example"] {
        let files = world.inbox(address);
        assert_eq!(files.len(), 1, "{address}");
        assert!(files[0].ends_with(format!("\r\n\r\n.dot\r\n{body}").as_bytes()));
        // More than one recipient: none is told of the other.
        assert!(!files[0].windows(5).any(|w| w == b"\tfor "));
    }
}

#[tokio::test]
async fn strangers_unknown_and_odd_addresses() {
    let world = contoso().await;
    world.mailbox("anna@contoso.example").await;
    world.mail_user("nowhere@contoso.example", None).await;
    for (address, reply) in [
        ("anna@elsewhere.example", "550 5.7.1 "),
        ("anna@contoso.example.elsewhere.example", "550 5.7.1 "),
        ("nobody@contoso.example", "550 5.1.1 "),
        ("\"anna\"@contoso.example", "550 5.1.1 "),
        ("anna%elsewhere.example@contoso.example", "550 5.1.1 "),
        ("postmaster", "550 5.1.1 "),
        ("nowhere@contoso.example", "550 5.4.4 "),
    ] {
        let got = send(&world, address, b"x\r\n").await;
        assert!(got.starts_with(reply), "{address}: {got}");
    }
}

#[tokio::test]
async fn a_mailbox_in_cutover_defers_when_named() {
    let world = contoso().await;
    let anna = world.mailbox("anna@contoso.example").await;
    for state in [MailboxState::InCutover(MoveId::from_u128(1)), MailboxState::NotYetShown] {
        world.set_state(&anna, state).await;
        let reply = send(&world, "anna@contoso.example", b"x\r\n").await;
        assert!(reply.starts_with("451 4.2.1 "), "{reply}");
    }
    world.set_state(&anna, MailboxState::Open).await;
    assert!(send(&world, "anna@contoso.example", b"x\r\n").await.starts_with("250 "));
}

#[tokio::test]
async fn the_null_sender_learns_that_a_mailbox_in_cutover_is_known_and_is_put_off_at_data() {
    let world = contoso().await;
    let anna = world.mailbox("anna@contoso.example").await;
    world
        .set_state(&anna, MailboxState::InCutover(MoveId::from_u128(1)))
        .await;
    let mut talk = Talk::mail(&world).await;
    talk.say("RSET").await;
    assert!(talk.say("MAIL FROM:<>").await.starts_with("250 "));
    assert!(talk.rcpt("nobody@contoso.example").await.starts_with("550 "));
    assert!(talk.rcpt("anna@contoso.example").await.starts_with("250 "));
    assert!(talk.say("DATA").await.starts_with("451 4.2.1 "));
    assert!(world.inbox("anna@contoso.example").is_empty());
}

#[tokio::test]
async fn the_state_is_read_again_when_the_message_is_whole() {
    let world = contoso().await;
    let anna = world.mailbox("anna@contoso.example").await;
    let mut talk = Talk::mail(&world).await;
    assert!(talk.rcpt("anna@contoso.example").await.starts_with("250 "));
    assert!(talk.say("DATA").await.starts_with("354 "));
    talk.send(b"Subject: a\r\n").await;
    world
        .set_state(&anna, MailboxState::InCutover(MoveId::from_u128(1)))
        .await;
    talk.send(b"\r\n.\r\n").await;
    assert!(talk.reply().await.starts_with("451 4.2.1 "));
    // A mailbox that has become a mail user meanwhile is no better.
    world.set_state(&anna, MailboxState::Open).await;
    talk.say("MAIL FROM:<>").await;
    assert!(talk.rcpt("anna@contoso.example").await.starts_with("250 "));
    let mut moved = anna.clone();
    moved.kind = RecipientKind::MailUser(MailUser {
        external_email_address: Some("anna@fabrikam.example".parse().unwrap()),
        exchange_guid: anna.exchange_guid(),
        archive_guid: None,
    });
    world.update(moved).await;
    assert!(talk.data(b"x\r\n").await.starts_with("451 4.2.1 "));
    assert!(world.inbox("anna@contoso.example").is_empty());
}

#[tokio::test]
async fn a_mailbox_that_went_and_came_back_meanwhile_is_another_one() {
    let world = contoso().await;
    let anna = world.mailbox("anna@contoso.example").await;
    let mut talk = Talk::mail(&world).await;
    assert!(talk.rcpt("anna@contoso.example").await.starts_with("250 "));
    let mut back = anna.clone();
    back.changed = jiff::Timestamp::from_second(5).unwrap();
    world.update(back).await;
    assert!(talk.data(b"x\r\n").await.starts_with("451 "));
}

#[tokio::test]
async fn nothing_is_delivered_while_the_lock_is_held_alone() {
    let world = contoso().await;
    let anna = world.mailbox("anna@contoso.example").await;
    let place = Place::from(anna.mailbox().unwrap());
    // A cutover's lock, taken by another process as far as the file knows.
    let path = std::path::Path::new(".rehome/locks").join(place.exchange_guid.to_string());
    world.platforms.quiesce(&place, Duration::ZERO).await.unwrap();
    let root = world.root();
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(root.join(path))
        .unwrap();
    file.lock().unwrap();
    assert!(
        send(&world, "anna@contoso.example", b"x\r\n")
            .await
            .starts_with("451 4.2.1 ")
    );
    assert!(world.inbox("anna@contoso.example").is_empty());
    drop(file);
    assert!(send(&world, "anna@contoso.example", b"x\r\n").await.starts_with("250 "));
    assert_eq!(world.inbox("anna@contoso.example").len(), 1);
}

#[tokio::test]
async fn loops_are_refused() {
    let world = contoso().await;
    world.mailbox("anna@contoso.example").await;
    let trace = format!("Rehome-Trace: {}\r\n", tenant_id(CONTOSO));
    let received = "Received: from a by b; Mon, 1 Jan 2024 00:00:00 +0000\r\n";
    for (header, reply) in [
        (trace.repeat(2), "250 "),
        (trace.repeat(3), "554 5.4.6 "),
        ("Rehome-Trace: another\r\n".repeat(9), "250 "),
        (received.repeat(30), "250 "),
        (received.repeat(31), "554 5.4.6 "),
    ] {
        let got = send(&world, "anna@contoso.example", format!("{header}\r\nx\r\n").as_bytes()).await;
        assert!(got.starts_with(reply), "{header}: {got}");
    }
    assert_eq!(world.inbox("anna@contoso.example").len(), 3);
}

#[tokio::test]
async fn a_suspected_loop_waits_while_a_cutover_may_explain_it() {
    let world = contoso().await;
    world.mailbox("anna@contoso.example").await;
    let message = format!(
        "{}\r\nx\r\n",
        format!("Rehome-Trace: {}\r\n", tenant_id(CONTOSO)).repeat(3)
    );
    for (phase, reply) in [
        (TargetPhase::Closing, "451 4.4.6 "),
        (TargetPhase::Decided, "451 4.4.6 "),
        (TargetPhase::Reopened, "451 4.4.6 "),
        (TargetPhase::CatchingUp, "451 4.4.6 "),
        (TargetPhase::CatchUpAborted, "451 4.4.6 "),
        (TargetPhase::Done, "554 5.4.6 "),
        (TargetPhase::Aborted, "554 5.4.6 "),
    ] {
        world.attempt("anna@contoso.example", phase).await;
        let got = send(&world, "anna@contoso.example", message.as_bytes()).await;
        assert!(got.starts_with(reply), "{phase:?}: {got}");
    }
}

#[tokio::test]
async fn no_message_hides_in_another() {
    let world = contoso().await;
    world.mailbox("anna@contoso.example").await;
    for end in ["\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r\n"] {
        let mut talk = Talk::mail(&world).await;
        talk.rcpt("anna@contoso.example").await;
        let hidden =
            format!("a{end}MAIL FROM:<hidden@client.example>\r\nRCPT TO:<anna@contoso.example>\r\nDATA\r\nb\r\n");
        assert!(talk.data(hidden.as_bytes()).await.starts_with("554 5.6.0 "), "{end:?}");
        assert!(talk.say("NOOP").await.starts_with("250 "));
    }
    assert!(world.inbox("anna@contoso.example").is_empty());
}

#[tokio::test]
async fn sizes() {
    let world = contoso().await;
    let mut anna = world.mailbox("anna@contoso.example").await;
    let large = "0123456789abcde\r\n".repeat(70_000);
    assert!(
        send(&world, "anna@contoso.example", large.as_bytes())
            .await
            .starts_with("552 5.2.3 ")
    );
    let mut talk = Talk::to(&world).await;
    talk.say("EHLO client.example").await;
    assert!(talk.say("MAIL FROM:<> SIZE=3000000").await.starts_with("552 "));
    assert!(talk.say("MAIL FROM:<> SIZE=1100000").await.starts_with("250 "));
    assert!(talk.rcpt("anna@contoso.example").await.starts_with("552 "));
    if let RecipientKind::Mailbox(mailbox) = &mut anna.kind {
        mailbox.max_receive_size = 2 << 20;
    }
    world.update(anna).await;
    assert!(
        send(&world, "anna@contoso.example", large.as_bytes())
            .await
            .starts_with("250 ")
    );
    let huge = large.repeat(2);
    assert!(
        send(&world, "anna@contoso.example", huge.as_bytes())
            .await
            .starts_with("552 5.3.4 ")
    );
    assert_eq!(world.inbox("anna@contoso.example").len(), 1);
}

#[tokio::test]
async fn recipients_of_two_tenants_come_in_two_transactions() {
    let world = World::new(&[CONTOSO, "fabrikam.example"], Options::default()).await;
    world.mailbox("anna@contoso.example").await;
    world.mailbox("box@fabrikam.example").await;
    let mut talk = Talk::mail(&world).await;
    assert!(talk.rcpt("anna@contoso.example").await.starts_with("250 "));
    assert!(talk.rcpt("box@fabrikam.example").await.starts_with("452 4.5.3 "));
    assert!(talk.data(b"x\r\n").await.starts_with("250 "));
    assert_eq!(world.inbox("anna@contoso.example").len(), 1);
    assert!(world.inbox("box@fabrikam.example").is_empty());
}

#[tokio::test]
async fn recipients_are_counted() {
    let world = contoso().await;
    world.mailbox("anna@contoso.example").await;
    let mut talk = Talk::mail(&world).await;
    for _ in 0..10 {
        assert!(talk.rcpt("anna@contoso.example").await.starts_with("250 "));
    }
    assert!(talk.rcpt("anna@contoso.example").await.starts_with("452 4.5.3 "));
}

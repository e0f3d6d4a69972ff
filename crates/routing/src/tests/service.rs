//! The listener.

use super::world::{Options, Talk, World};
use tokio::{io::AsyncReadExt, net::TcpStream};

#[tokio::test]
async fn connections_are_counted() {
    let world = World::new(
        &["contoso.example"],
        Options {
            max_connections: Some(1),
            ..Options::default()
        },
    )
    .await;
    let mut first = Talk::to(&world).await;
    let mut turned_away = String::new();
    TcpStream::connect(world.address)
        .await
        .unwrap()
        .read_to_string(&mut turned_away)
        .await
        .unwrap();
    assert!(turned_away.starts_with("421 4.3.2 "), "{turned_away}");
    assert!(first.say("QUIT").await.starts_with("221 "));
    assert!(first.at_end().await);
}

#[tokio::test]
async fn a_clean_stop_lets_a_message_in_and_ends_the_rest() {
    let mut world = World::new(&["contoso.example"], Options::default()).await;
    world.mailbox("anna@contoso.example").await;
    let mut idle = Talk::mail(&world).await;
    let mut busy = Talk::mail(&world).await;
    assert!(busy.rcpt("anna@contoso.example").await.starts_with("250 "));
    assert!(busy.say("DATA").await.starts_with("354 "));
    world.stop();
    assert!(idle.reply().await.starts_with("421 4.3.2 "));
    assert!(idle.at_end().await);
    busy.send(b"x\r\n.\r\n").await;
    assert!(busy.reply().await.starts_with("250 "));
    assert!(busy.reply().await.starts_with("421 4.3.2 "));
    world.served.take().unwrap().await.unwrap();
    assert_eq!(world.inbox("anna@contoso.example").len(), 1);
}

#[tokio::test]
async fn extensions() {
    let world = World::new(&["contoso.example"], Options::default()).await;
    let mut talk = Talk::to(&world).await;
    let answer = talk.say("EHLO client.example").await;
    assert!(answer.starts_with("250-mx.contoso.example rehome-"), "{answer}");
    for extension in ["PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "SIZE 2097152"] {
        assert!(answer.contains(extension), "{answer}");
    }
    assert!(!answer.contains("STARTTLS"), "{answer}");
    // No authentication, hence no way in for one who guesses passwords.
    assert!(talk.say("AUTH PLAIN").await.starts_with("50"));
    assert!(talk.say("RCPT TO:<anna@contoso.example>").await.starts_with("503 "));
}

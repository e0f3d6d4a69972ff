//! How often the driver waits for the server: once for each question, never for each message.

use super::plain;
use bytes::Bytes;
use futures_util::StreamExt;
use rehome_mailbox::imap::{ImapMailbox, ImapServer, SignIn};
use rehome_mailbox::{
    Appended, Body, FolderPath, FolderRef, ItemKey, ListingScope, Mailbox, NewFolder, NewItem, ReadEvent, Uid,
};
use rehome_testkit::dovecot::{Dovecot, PASSWORD};
use rehome_wire::digest::Digest;
use rehome_wire::flags::Flags;
use secrecy::SecretString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A line that counts how often the client speaks after it was spoken to.
struct Line {
    port: u16,
    turns: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
}

impl Line {
    async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let line = Self {
            port: listener.local_addr().unwrap().port(),
            turns: Arc::default(),
            received: Arc::default(),
        };
        let (turns, received) = (Arc::clone(&line.turns), Arc::clone(&line.received));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                tokio::spawn(carry(client, server, Arc::clone(&turns), Arc::clone(&received)));
            }
        });
        line
    }

    /// Turns since the last look.
    fn turns(&self) -> u64 {
        self.turns.swap(0, Ordering::SeqCst)
    }

    /// Octets from the server since the last look.
    fn received(&self) -> u64 {
        self.received.swap(0, Ordering::SeqCst)
    }
}

/// Carries octets; what the client says until the server is heard again is one turn. Whatever the client has said
/// already when the server answers is carried first, so that commands in flight are one turn however they are cut.
async fn carry(client: TcpStream, server: TcpStream, turns: Arc<AtomicU64>, received: Arc<AtomicU64>) {
    let (mut client_in, mut client_out) = client.into_split();
    let (mut server_in, mut server_out) = server.into_split();
    let heard = Arc::new(AtomicBool::new(false));
    let spoken = Arc::clone(&heard);
    tokio::spawn(async move {
        let mut buffer = vec![0; 1 << 20];
        while let Ok(count @ 1..) = client_in.read(&mut buffer).await {
            if spoken.swap(false, Ordering::SeqCst) {
                turns.fetch_add(1, Ordering::SeqCst);
            }
            if server_out.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    });
    let mut buffer = vec![0; 1 << 20];
    while let Ok(count @ 1..) = server_in.read(&mut buffer).await {
        received.fetch_add(count as u64, Ordering::SeqCst);
        heard.store(true, Ordering::SeqCst);
        if client_out.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

fn item(uid: Uid) -> NewItem {
    let octets = Bytes::from(format!("Subject: {uid}\r\n\r\n{}\r\n", "x".repeat(uid as usize % 5000)));
    NewItem {
        key: ItemKey {
            move_id: 1,
            folder: 1,
            source_validity: 1,
            source_uid: uid,
        },
        uid: None,
        flags: Flags::from_names(["\\Seen"]),
        received: 1_600_000_000 + i64::from(uid),
        length: octets.len() as u64,
        digest: Digest::of(&octets),
        body: Body::Memory(octets),
    }
}

async fn count_items(mailbox: &ImapMailbox, folder: &FolderPath, uids: &[Uid]) -> usize {
    let mut events = mailbox.read(FolderRef::any(folder), uids).await.unwrap();
    let mut whole = 0;
    while let Some(event) = events.next().await {
        if let ReadEvent::End = event.unwrap() {
            whole += 1;
        }
    }
    whole
}

#[tokio::test(flavor = "multi_thread")]
async fn each_question_is_one_round_trip() {
    if rehome_testkit::is_left_out("dovecot") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dovecot = Dovecot::start(folder.path());
    let line = Line::to(dovecot.port()).await;
    let server = ImapServer::new(plain(line.port, SignIn::Password));
    let mailbox = server.mailbox("reception", Some(SecretString::from(PASSWORD)));
    mailbox.connect().await.unwrap();
    assert!(line.turns() <= 5, "greeting, sign-in in at most three steps, set-up");

    for number in 0..40 {
        let path = FolderPath(vec![format!("folder {number}")]);
        mailbox.create_folder(&path, &NewFolder::default()).await.unwrap();
    }
    line.turns();
    assert_eq!(mailbox.folders().await.unwrap().len(), 41);
    assert_eq!(line.turns(), 1, "all folders with their numbers");

    let inbox = FolderPath::inbox();
    let mut uids = Vec::new();
    for batch in 0..20 {
        let items = (1..=50).map(|number| item(batch * 50 + number)).collect();
        line.turns();
        for appended in mailbox.append(FolderRef::any(&inbox), items).await.unwrap() {
            let Appended::Uid { uid, .. } = appended else {
                panic!("it is taken")
            };
            uids.push(uid);
        }
        let turns = line.turns();
        assert!(
            turns <= 1 + u64::from(batch == 0),
            "a batch is one round trip, the first opens the folder: {turns}"
        );
    }

    let listing = mailbox.list(&inbox, None).await.unwrap();
    assert_eq!((line.turns(), listing.items.len()), (1, 1000), "a whole listing");
    line.received();
    let changes = mailbox.list(&inbox, listing.token.as_ref()).await.unwrap();
    assert!(matches!(changes.scope, ListingScope::Changes { .. }) && changes.items.is_empty());
    assert_eq!(line.turns(), 1, "nothing changed");
    assert!(line.received() < 1000, "and little is said");

    assert_eq!(count_items(&mailbox, &inbox, &uids).await, 1000);
    let turns = line.turns();
    assert!(
        turns <= 2,
        "1000 items in a few commands that are in flight at once: {turns}"
    );
    mailbox
        .set_flags(
            FolderRef::any(&inbox),
            &[(uids[0], Flags::default()), (uids[1], Flags::from_names(["a"]))],
        )
        .await
        .unwrap();
    assert_eq!(line.turns(), 1, "different flags");
    mailbox.remove(FolderRef::any(&inbox), &uids[..500]).await.unwrap();
    assert_eq!(line.turns(), 1, "a removal");
}

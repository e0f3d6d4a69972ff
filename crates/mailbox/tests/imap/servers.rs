//! The conformance suite on real servers, with everything they offer and with parts of it taken away.

use super::plain;
use futures_util::StreamExt;
use rehome_mailbox::imap::{ImapServer, SignIn};
use rehome_mailbox::{Appended, Body, FolderPath, FolderRef, ItemKey, Mailbox, NewItem, ReadEvent, conformance};
use rehome_testkit::cyrus::Cyrus;
use rehome_testkit::dovecot::{Dovecot, Format, PASSWORD};
use rehome_wire::digest::Digester;
use rehome_wire::flags::Flags;
use secrecy::SecretString;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// What Dovecot is known for.
const DOVECOT: conformance::Allowed = conformance::Allowed {
    names_refused: true,
    items_refused: false,
    nul_as: Some(0x80),
    odd_times_changed: true,
    parents_stay: false,
};
/// What Cyrus is known for.
const CYRUS: conformance::Allowed = conformance::Allowed {
    names_refused: true,
    items_refused: true,
    nul_as: None,
    odd_times_changed: true,
    parents_stay: true,
};

fn password() -> Option<SecretString> {
    Some(SecretString::from(PASSWORD))
}

/// Runs the suite; every case has a user of its own.
async fn conforms_on_dovecot(dovecot: &Dovecot, without: &[&str]) {
    static USERS: AtomicU32 = AtomicU32::new(0);
    let mut settings = plain(dovecot.port(), SignIn::Password);
    settings.without = without.iter().map(|name| (*name).to_owned()).collect();
    let server = ImapServer::new(settings);
    server.check_account("first", password()).await.unwrap();
    conformance::run_allowing(DOVECOT, || {
        let user = format!("user{}", USERS.fetch_add(1, Ordering::SeqCst));
        (Arc::new(server.mailbox(&user, password())) as Arc<dyn Mailbox>, ())
    })
    .await;
}

async fn conforms_on_cyrus(cyrus: &Cyrus, without: &[&str]) {
    static USERS: AtomicU32 = AtomicU32::new(0);
    let mut settings = plain(cyrus.port(), SignIn::Password);
    settings.without = without.iter().map(|name| (*name).to_owned()).collect();
    let server = ImapServer::new(settings);
    let first = format!("first{}", USERS.fetch_add(1, Ordering::SeqCst));
    cyrus.create_user(&first, PASSWORD);
    server.check_account(&first, password()).await.unwrap();
    conformance::run_allowing(CYRUS, || {
        let user = format!("user{}", USERS.fetch_add(1, Ordering::SeqCst));
        cyrus.create_user(&user, PASSWORD);
        (Arc::new(server.mailbox(&user, password())) as Arc<dyn Mailbox>, ())
    })
    .await;
}

fn is_left_out(server: &str) -> bool {
    let left_out = rehome_testkit::is_left_out(server);
    if left_out {
        eprintln!("left out: {server}");
    }
    left_out
}

/// One test for each set of capabilities that is taken away, so that they run side by side.
macro_rules! without {
    ($($name:ident on $server:ident: $without:expr;)+) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                $server(&$without).await;
            }
        )+
    };
}

async fn on_dovecot(without: &[&str]) {
    if !is_left_out("dovecot") {
        let folder = tempfile::tempdir().unwrap();
        let dovecot = Dovecot::start(folder.path());
        conforms_on_dovecot(&dovecot, without).await;
    }
}

async fn on_cyrus(without: &[&str]) {
    if !is_left_out("cyrus") {
        let cyrus = Cyrus::builder().start();
        conforms_on_cyrus(&cyrus, without).await;
    }
}

/// Everything that the driver looks for.
const ANYTHING: [&str; 21] = [
    "QRESYNC",
    "CONDSTORE",
    "ENABLE",
    "UIDPLUS",
    "MULTIAPPEND",
    "LITERAL+",
    "LITERAL-",
    "LIST-STATUS",
    "LIST-EXTENDED",
    "ESEARCH",
    "BINARY",
    "SPECIAL-USE",
    "CREATE-SPECIAL-USE",
    "METADATA",
    "OBJECTID",
    "UNSELECT",
    "ID",
    "SASL-IR",
    "MOVE",
    "QUOTA",
    "CHILDREN",
];

// Cyrus waits for the disk at every message, so that it runs with fewer sets.
without! {
    dovecot_with_everything on on_dovecot: [];
    dovecot_without_qresync on on_dovecot: ["QRESYNC"];
    dovecot_without_qresync_and_esearch on on_dovecot: ["QRESYNC", "ESEARCH", "ENABLE"];
    dovecot_without_condstore on on_dovecot: ["CONDSTORE"];
    dovecot_without_uidplus on on_dovecot: ["UIDPLUS"];
    dovecot_without_multiappend on on_dovecot: ["MULTIAPPEND"];
    dovecot_without_free_literals on on_dovecot: ["LITERAL+", "LITERAL-"];
    dovecot_without_list_status on on_dovecot: ["LIST-STATUS"];
    dovecot_without_list_extended on on_dovecot: ["LIST-EXTENDED", "NAMESPACE"];
    dovecot_without_anything on on_dovecot: ANYTHING;
    cyrus_with_everything on on_cyrus: [];
    cyrus_without_qresync_and_esearch on on_cyrus: ["QRESYNC", "ESEARCH", "ENABLE"];
    cyrus_without_uidplus on on_cyrus: ["UIDPLUS"];
    cyrus_without_anything on on_cyrus: ANYTHING;
}

#[tokio::test(flavor = "multi_thread")]
async fn dovecot_with_a_prefix_and_files_of_its_own() {
    if is_left_out("dovecot") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dovecot = Dovecot::builder(folder.path())
        .anybody()
        .format(Format::Mdbox)
        .namespace("INBOX.", '.')
        .special_use()
        .start();
    conforms_on_dovecot(&dovecot, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cyrus_with_everything_below_the_inbox() {
    if is_left_out("cyrus") {
        return;
    }
    let cyrus = Cyrus::builder().dots().start();
    conforms_on_cyrus(&cyrus, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_200_mb_goes_through_in_pieces() {
    const LENGTH: u64 = 200_000_000;
    if is_left_out("dovecot") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dovecot = Dovecot::start(folder.path());
    let server = ImapServer::new(plain(dovecot.port(), SignIn::Password));
    let mailbox = server.mailbox("reception", password());
    let spool = tempfile::NamedTempFile::new().unwrap();
    let mut digester = Digester::new();
    {
        let mut file = std::io::BufWriter::new(spool.as_file());
        let mut write = |octets: &[u8]| {
            digester.update(octets);
            file.write_all(octets).unwrap();
        };
        write(b"Subject: large\r\n\r\n");
        let line = [vec![b'x'; 998], b"\r\n".to_vec()].concat();
        let mut left = LENGTH - 18;
        while left > 0 {
            let count = left.min(line.len() as u64);
            write(&line[line.len() - count as usize..]);
            left -= count;
        }
    }
    let digest = digester.finish();
    let inbox = FolderPath::inbox();
    let item = NewItem {
        key: ItemKey {
            move_id: 1,
            folder: 1,
            source_validity: 1,
            source_uid: 1,
        },
        uid: None,
        flags: Flags::default(),
        received: 1_700_000_000,
        length: LENGTH,
        digest,
        body: Body::Spooled(spool.path().to_owned()),
    };
    let appended = mailbox.append(FolderRef::any(&inbox), vec![item]).await.unwrap();
    let Appended::Uid { uid, .. } = appended[0] else {
        panic!("it is taken: {appended:?}")
    };
    let mut events = mailbox.read(FolderRef::any(&inbox), &[uid]).await.unwrap();
    let (mut read, mut length) = (Digester::new(), 0);
    while let Some(event) = events.next().await {
        if let ReadEvent::Octets(octets) = event.unwrap() {
            assert!(octets.len() <= 64 * 1024);
            length += octets.len() as u64;
            read.update(&octets);
        }
    }
    assert_eq!((length, read.finish()), (LENGTH, digest));
}

/// What another session appends and removes is in the numbers of a folder that our connection has open.
async fn numbers_are_fresh(port: u16, user: &str, without: &[&str]) {
    let mut settings = plain(port, SignIn::Password);
    settings.without = without.iter().map(|name| (*name).to_owned()).collect();
    settings.connections_per_account = 1;
    let mailbox = ImapServer::new(settings).mailbox(user, password());
    let mut other = rehome_testkit::imap::Session::login(port, user, PASSWORD);
    let message = b"Subject: x\r\n\r\nx\r\n";
    for count in 1..6 {
        assert!(other.append("INBOX", "", message).is_ok());
        let exists = async || {
            let folders = mailbox.folders().await.unwrap();
            let inbox = folders.iter().find(|folder| folder.path.is_inbox()).unwrap();
            inbox.status.unwrap().exists
        };
        assert_eq!(exists().await, count);
        let listing = mailbox.list(&FolderPath::inbox(), None).await.unwrap();
        assert_eq!(listing.items.len(), count as usize);
        assert!(other.append("INBOX", "", message).is_ok());
        assert_eq!(exists().await, count + 1);
        mailbox.list(&FolderPath::inbox(), None).await.unwrap();
        other.ok("SELECT INBOX");
        other.ok("STORE 1 +FLAGS (\\Deleted)");
        other.ok("EXPUNGE");
        assert_eq!(exists().await, count);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_of_an_open_folder_are_fresh() {
    for without in [&[][..], &["UNSELECT"], &["LIST-STATUS"], &["LIST-STATUS", "UNSELECT"]] {
        if !is_left_out("dovecot") {
            let folder = tempfile::tempdir().unwrap();
            let dovecot = Dovecot::start(folder.path());
            numbers_are_fresh(dovecot.port(), "reception", without).await;
        }
        if !is_left_out("cyrus") {
            let cyrus = Cyrus::builder().start();
            cyrus.create_user("reception", PASSWORD);
            numbers_are_fresh(cyrus.port(), "reception", without).await;
        }
    }
}

/// What another session has just appended is read, flagged and removed over a connection that has had the folder open.
async fn arrivals_are_seen(port: u16, user: &str) {
    let mut settings = plain(port, SignIn::Password);
    settings.connections_per_account = 1;
    let mailbox = ImapServer::new(settings).mailbox(user, password());
    let inbox = FolderPath::inbox();
    let folder = FolderRef::any(&inbox);
    let mut other = rehome_testkit::imap::Session::login(port, user, PASSWORD);
    for uid in (1..10).step_by(3) {
        let mut arrives = async || {
            mailbox.list(&inbox, None).await.unwrap();
            assert!(other.append("INBOX", "", b"Subject: x\r\n\r\nx\r\n").is_ok());
        };
        arrives().await;
        let events: Vec<_> = mailbox.read(folder, &[uid]).await.unwrap().collect().await;
        assert!(
            matches!(events.last(), Some(Ok(ReadEvent::End))),
            "it is read: {events:?}"
        );
        arrives().await;
        let seen = [(uid + 1, Flags::from_names(["\\Seen"]))];
        mailbox.set_flags(folder, &seen).await.unwrap();
        arrives().await;
        mailbox.remove(folder, &[uid + 2]).await.unwrap();
        let listing = mailbox.list(&inbox, None).await.unwrap();
        let last = listing.items.last().unwrap();
        assert_eq!(
            (last.uid, &last.flags),
            (uid + 1, &seen[0].1),
            "it is flagged, and the next one is gone"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn arrivals_are_seen_by_a_session_that_was_there_before() {
    if !is_left_out("dovecot") {
        let folder = tempfile::tempdir().unwrap();
        let dovecot = Dovecot::start(folder.path());
        arrivals_are_seen(dovecot.port(), "reception").await;
    }
    if !is_left_out("cyrus") {
        let cyrus = Cyrus::builder().start();
        cyrus.create_user("reception", PASSWORD);
        arrivals_are_seen(cyrus.port(), "reception").await;
    }
}

//! The same odd messages over every pair of drivers, memory, Maildir, Dovecot and Cyrus: each arrives as it was, or is
//! named, and what is named is exactly what that target is known for.

use super::common::{Chunks, DirectLink, Item, path, with_uids};
use bytes::Bytes;
use rehome_mailbox::imap::{ImapServer, Security, ServerSettings, SignIn};
use rehome_mailbox::maildir::MaildirMailbox;
use rehome_mailbox::memory::MemoryMailbox;
use rehome_mailbox::{Body, FolderPath, FolderRef, ItemKey, Mailbox, NewFolder, NewItem, Uid};
use rehome_replicate::{
    ChunkStorage, ExceptionKind, Exporter, ImportSettings, Importer, PassKind, ReportKind, SourceLink,
};
use rehome_testkit::cyrus::{Cyrus, EightBit};
use rehome_testkit::dovecot::{Dovecot, PASSWORD};
use rehome_testkit::imap::Session;
use rehome_wire::canonical::canonical;
use rehome_wire::digest::Digest;
use rehome_wire::flags::Flags;
use secrecy::SecretString;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A date that every platform keeps.
const USUAL: i64 = 1_500_000_000;

/// One odd message.
struct Nasty {
    name: &'static str,
    octets: Vec<u8>,
    received: i64,
}

fn header(rest: &[u8]) -> Vec<u8> {
    [b"Subject: odd\r\nMessage-ID: <odd@contoso.example>\r\n\r\n", rest].concat()
}

/// Parts in parts, 200 deep, the innermost never ended.
fn deep() -> Vec<u8> {
    let mut octets = b"Subject: deep\r\nMIME-Version: 1.0\r\n".to_vec();
    for depth in 0..200 {
        write!(
            octets,
            "Content-Type: multipart/mixed; boundary=\"b{depth}\"\r\n\r\n--b{depth}\r\n"
        )
        .unwrap();
    }
    octets.extend_from_slice(b"Content-Type: text/plain; charset=\"none\r\n\r\n\r\n--b7 --b8--\r\n");
    octets
}

fn nasty() -> Vec<Nasty> {
    let every: Vec<u8> = (1..=255).collect();
    let line = |length: usize| header(&[vec![b'y'; length], b"\r\n".to_vec()].concat());
    let folded = [
        b"Subject: folded\r\n".to_vec(),
        b" and on\r\n".repeat(5_000),
        b"\r\nx\r\n".to_vec(),
    ]
    .concat();
    let opaque = |kind: &str| {
        let octets: Vec<u8> = (0..4_000_u32).map(|n| 1 + (n * n % 255) as u8).collect();
        [
            format!("Subject: opaque\r\nContent-Type: {kind}\r\n\r\n").into_bytes(),
            octets,
        ]
        .concat()
    };
    let rows: Vec<(&'static str, Vec<u8>)> = vec![
        ("a usual one", header(b"usual\r\n")),
        (
            "8 bits in a header",
            b"Subject: \xe4\xf6\xfc\xff\r\nX-\xfc: y\r\n\r\nx\r\n".to_vec(),
        ),
        ("UTF-8 in a header", "Subject: gr\u{fc}n \u{1f4e7}\r\n\r\nx\r\n".into()),
        ("NUL in the body", header(b"a\0b\r\n\0\0\r\n")),
        ("NUL in a header's value", b"Subject: a\0b\r\n\r\nx\r\n".to_vec()),
        ("NUL in a header's name", b"Sub\0ject: a\r\n\r\nx\r\n".to_vec()),
        ("bare LF", b"Subject: lf\n\nbody\n".to_vec()),
        ("bare CR", header(b"a\rb\r\rc\r\n")),
        ("CR CR LF", b"Subject: crcrlf\r\r\n\r\r\nx\r\r\n".to_vec()),
        (
            "mixed ends of lines",
            b"Subject: mixed\r\nX: y\n\r\r\nx\nlast\r".to_vec(),
        ),
        ("nothing at all", Vec::new()),
        ("an empty line alone", b"\r\n".to_vec()),
        (
            "headers without an empty line",
            b"Subject: headers only\r\nX: y\r\n".to_vec(),
        ),
        ("a header without an end", b"Subject: headers only".to_vec()),
        (
            "a body without headers",
            b"this is no header\r\nand this is none\r\n".to_vec(),
        ),
        ("an empty line first", b"\r\nbody alone\r\n".to_vec()),
        ("a blank before the colon", b"Subject : x\r\n\r\nx\r\n".to_vec()),
        ("a folded line first", b" folded\r\nSubject: x\r\n\r\n".to_vec()),
        (
            "From of mbox first",
            b"From nobody Mon Jan  1 00:00:00 2001\r\nSubject: x\r\n\r\nx\r\n".to_vec(),
        ),
        (
            "a quoted From first",
            b">From nobody\r\nSubject: x\r\n\r\nx\r\n".to_vec(),
        ),
        (
            "From of mbox in the body",
            header(b"From nobody\r\n>From nobody\r\n\r\nFrom x\r\n"),
        ),
        ("a line of 999", line(999)),
        ("a line of 9,901", line(9_901)),
        ("a line of 200,000", line(200_000)),
        ("a header of 45,000", folded),
        (
            "no Message-ID",
            b"From: press@contoso.example\r\n\r\nno id\r\n".to_vec(),
        ),
        ("one Message-ID, another body", header(b"another body\r\n")),
        ("deep and unended MIME", deep()),
        ("TNEF", opaque("application/ms-tnef")),
        ("signed", opaque("application/pkcs7-mime; smime-type=enveloped-data")),
        (
            "encrypted",
            opaque("multipart/encrypted; protocol=\"application/pgp-encrypted\"; boundary=none"),
        ),
        ("every octet but NUL", header(&every)),
        ("dots", header(b".\r\n..\r\n.x\r\n")),
        ("the end of a DOS file", header(b"\x1a\x1a\r\n\x1a")),
        ("blanks alone", header(b" \r\n\t\r\n ")),
    ];
    let mut all: Vec<Nasty> = rows
        .into_iter()
        .zip(USUAL..)
        .map(|((name, octets), received)| Nasty { name, octets, received })
        .collect();
    let twin = |at: i64| Nasty {
        name: "one of three twins",
        octets: header(b"twin\r\n"),
        received: USUAL - at,
    };
    all.extend((0..3).map(twin));
    for (name, received) in [
        ("a date of 1903", -2_100_000_000),
        ("a date before 1970", -1),
        ("the date 1970", 0),
        ("a date of 2038", 2_147_483_648),
        ("a date of 2100", 4_102_444_800),
    ] {
        let octets = header(name.as_bytes());
        all.push(Nasty { name, octets, received });
    }
    all
}

/// Flags that every platform keeps, `\Deleted` among them, and keywords that differ in case.
fn flags_of(uid: Uid) -> Flags {
    let kinds: [&[&str]; 5] = [
        &[],
        &["\\Seen"],
        &["\\Deleted", "\\Draft"],
        &["\\Answered", "\\Flagged", "$Forwarded"],
        &["work", "$MDNSent"],
    ];
    Flags::from_names(kinds[uid as usize % kinds.len()])
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Memory,
    Maildir,
    Dovecot,
    Cyrus,
    /// As it is by itself: octets above 127 in headers become `X`.
    CyrusMunging,
    /// Octets above 127 in headers are refused.
    CyrusRefusing,
}

/// What each target is known for: whatever is not here arrives as it was.
fn known_for(target: Kind) -> Vec<(&'static str, ExceptionKind)> {
    use ExceptionKind::{Altered, Skipped};
    let nul_in_header = ["NUL in a header's value", "NUL in a header's name"];
    let of_cyrus: Vec<(&'static str, ExceptionKind)> = [
        &nul_in_header.map(|name| (name, Skipped))[..],
        &[
            ("nothing at all", Skipped),
            ("a header without an end", Skipped),
            ("a body without headers", Skipped),
            ("a blank before the colon", Skipped),
            ("a quoted From first", Skipped),
        ],
    ]
    .concat();
    match target {
        Kind::Memory | Kind::Maildir => Vec::new(),
        Kind::Dovecot => [
            &nul_in_header.map(|name| (name, Altered))[..],
            &[("NUL in the body", Altered), ("nothing at all", Skipped)],
        ]
        .concat(),
        Kind::Cyrus => of_cyrus,
        Kind::CyrusMunging => [
            &of_cyrus[..],
            &[("8 bits in a header", Altered), ("UTF-8 in a header", Altered)],
        ]
        .concat(),
        Kind::CyrusRefusing => [
            &of_cyrus[..],
            &[("8 bits in a header", Skipped), ("UTF-8 in a header", Skipped)],
        ]
        .concat(),
    }
}

/// Which received times the target is known to change.
fn changes_date(target: Kind, received: i64) -> bool {
    match target {
        Kind::Memory | Kind::Maildir => false,
        // Before 1970, and in the future.
        Kind::Dovecot => !(0..=2_000_000_000).contains(&received),
        Kind::Cyrus | Kind::CyrusMunging | Kind::CyrusRefusing => received <= 0,
    }
}

/// Servers and folders of one test.
struct Platforms {
    folder: tempfile::TempDir,
    dovecot: Dovecot,
    cyrus: Option<Cyrus>,
}

fn is_left_out() -> bool {
    ["dovecot", "cyrus"].into_iter().any(|server| {
        let left_out = rehome_testkit::is_left_out(server);
        if left_out {
            eprintln!("left out: {server}");
        }
        left_out
    })
}

fn account(port: u16, user: &str) -> Arc<dyn Mailbox> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let settings = ServerSettings::new("127.0.0.1", port, Security::Plain, Arc::new(tls), SignIn::Password);
    Arc::new(ImapServer::new(settings).mailbox(user, Some(SecretString::from(PASSWORD))))
}

impl Platforms {
    fn start(cyrus: Option<EightBit>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mail = folder.path().join("mail");
        std::fs::create_dir(&mail).unwrap();
        let dovecot = Dovecot::start(&mail);
        let cyrus = cyrus.map(|choice| Cyrus::builder().eight_bit(choice).start());
        Self { folder, dovecot, cyrus }
    }

    async fn empty(&self, kind: Kind, user: &str) -> Arc<dyn Mailbox> {
        match kind {
            Kind::Memory => Arc::new(MemoryMailbox::new()),
            Kind::Maildir => {
                let root = self.folder.path().join(user);
                std::fs::create_dir(&root).unwrap();
                Arc::new(MaildirMailbox::open(&root).await.unwrap())
            }
            Kind::Dovecot => account(self.dovecot.port(), user),
            Kind::Cyrus | Kind::CyrusMunging | Kind::CyrusRefusing => {
                let cyrus = self.cyrus.as_ref().unwrap();
                cyrus.create_user(user, PASSWORD);
                account(cyrus.port(), user)
            }
        }
    }

    /// A source with these messages in its inbox, put there as they come: not by a driver. What the platform does not
    /// take in that way is left out.
    async fn filled(&self, kind: Kind, messages: &[Nasty]) -> Arc<dyn Mailbox> {
        let inbox = FolderPath::inbox();
        match kind {
            Kind::Memory => {
                let mailbox = MemoryMailbox::new();
                for message in messages {
                    mailbox.deliver(&inbox, message.octets.clone(), Flags::default(), message.received);
                }
                Arc::new(mailbox)
            }
            Kind::Maildir => {
                let root = self.folder.path().join("source");
                write_maildir(&root, messages);
                Arc::new(MaildirMailbox::open(&root).await.unwrap())
            }
            Kind::Dovecot => {
                write_maildir(&self.folder.path().join("mail/source"), messages);
                self.dovecot.share_mail();
                account(self.dovecot.port(), "source")
            }
            Kind::Cyrus | Kind::CyrusMunging | Kind::CyrusRefusing => {
                let cyrus = self.cyrus.as_ref().unwrap();
                cyrus.create_user("source", PASSWORD);
                let mut session = Session::login(cyrus.port(), "source", PASSWORD);
                for message in messages {
                    let date = rehome_wire::imap::format_date_time(message.received);
                    // Refused, or not: what it holds is what is moved.
                    session.append("INBOX", &format!("\"{date}\""), &message.octets);
                }
                account(cyrus.port(), "source")
            }
        }
    }
}

fn write_maildir(root: &Path, messages: &[Nasty]) {
    for sub in ["cur", "new", "tmp"] {
        std::fs::create_dir_all(root.join(sub)).unwrap();
    }
    for (number, message) in (1_000_000_000..).zip(messages) {
        let file = root.join(format!("cur/{number}.M1P1.contoso:2,"));
        std::fs::write(&file, &message.octets).unwrap();
        let since = Duration::from_secs(message.received.unsigned_abs());
        let time = if message.received < 0 {
            SystemTime::UNIX_EPOCH - since
        } else {
            SystemTime::UNIX_EPOCH + since
        };
        std::fs::File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_modified(time)
            .unwrap();
    }
}

/// Both ends of one move.
struct Pair {
    link: Arc<DirectLink>,
    importer: Importer,
    _spool: tempfile::TempDir,
}

impl Pair {
    fn new(source: &Arc<dyn Mailbox>, target: &Arc<dyn Mailbox>) -> Self {
        let spool = tempfile::tempdir().unwrap();
        let exporter = Exporter::new(Arc::clone(source), Arc::new(Chunks::default()));
        let link = Arc::new(DirectLink::new(exporter));
        let settings = ImportSettings {
            move_id: 0xfeed,
            memory_budget: 3 << 20,
            spool: spool.path().join("spool"),
            given_uids: true,
            read_back: true,
            live_target: false,
            progress: Arc::new(|_| {}),
            lease: Arc::new(|| true),
            cancel: Arc::default(),
        };
        let ledger = Arc::new(Chunks::default()) as Arc<dyn ChunkStorage>;
        let importer = Importer::new(
            Arc::clone(&link) as Arc<dyn SourceLink>,
            Arc::clone(target),
            ledger,
            settings,
        );
        Self {
            link,
            importer,
            _spool: spool,
        }
    }
}

/// Which message it is, as far as octets tell: NUL may be shown as another octet.
fn name_of(messages: &[Nasty], item: &Item) -> &'static str {
    let shown = |octets: &[u8]| -> Vec<u8> {
        let octets = canonical(octets);
        octets
            .iter()
            .map(|octet| if *octet == 0 { 0x80 } else { *octet })
            .collect()
    };
    let held = shown(&item.0);
    let found = messages.iter().find(|message| shown(&message.octets) == held);
    found.expect("nothing else is there").name
}

async fn moves(from: Kind, to: Kind, platforms: &Platforms, source: &Arc<dyn Mailbox>, messages: &[Nasty]) {
    let context = format!("{from:?} to {to:?}");
    let target = platforms
        .empty(to, &format!("from{from:?}to{to:?}").to_lowercase())
        .await;
    let pair = Pair::new(source, &target);
    let first = pair.importer.pass(PassKind::Initial).await.expect(&context);
    let mut again = 0;
    for kind in [PassKind::Incremental, PassKind::Final] {
        again += pair.importer.pass(kind).await.expect(&context).items_appended;
    }
    assert_eq!(again, 0, "{context}: nothing comes twice");

    let held = with_uids(&**source).await;
    let names: BTreeMap<(Vec<String>, Uid), &str> = held
        .iter()
        .flat_map(|(path, items)| items.iter().map(move |(uid, item)| ((path, uid), item)))
        .map(|((path, uid), item)| ((path.0.clone(), *uid), name_of(messages, item)))
        .collect();
    // What the source itself shows otherwise, as NUL, is no fault of the target's.
    let as_made = |item: &&Item| messages.iter().any(|made| canonical(&made.octets) == item.0);
    let items = held.values().flat_map(BTreeMap::values);
    let shown: BTreeSet<&str> = items.filter(as_made).map(|item| name_of(messages, item)).collect();

    // Exactly what the target is known for is named, by both sides alike.
    let target_root = pair.importer.target_root().await.expect(&context);
    let source_root = pair
        .link
        .exporter
        .source_root(&target_root.exceptions, true)
        .await
        .expect(&context);
    assert_eq!(source_root.root, target_root.root, "{context}");
    let mut named: Vec<(&str, ExceptionKind)> = target_root
        .exceptions
        .iter()
        .map(|exception| (names[&(exception.folder.clone(), exception.uid)], exception.kind))
        .collect();
    named.sort();
    let mut expected = known_for(to);
    expected.retain(|(name, _)| shown.contains(name));
    let items = held.values().flat_map(BTreeMap::values);
    let dates = items.filter(|item| changes_date(to, item.2));
    expected.extend(dates.map(|item| (name_of(messages, item), ExceptionKind::Date)));
    expected.sort();
    assert_eq!(named, expected, "{context}");
    let report = pair.importer.report().await.expect(&context);
    let mut reported: Vec<(&str, ReportKind)> = report
        .items
        .iter()
        .map(|item| (names[&(item.folder.clone(), item.uid)], item.kind))
        .collect();
    reported.sort();
    let expected: Vec<(&str, ReportKind)> = expected
        .into_iter()
        .map(|(name, kind)| (name, reported_as(kind)))
        .collect();
    assert_eq!(reported, expected, "{context}");
    assert!(report.items.iter().all(|item| !item.reason.is_empty()), "{context}");

    // Everything else is there, as often as it is at the source, with its flags and dates.
    let excepted: BTreeSet<&str> = named.iter().map(|(name, _)| *name).collect();
    let arrived = with_uids(&*target).await;
    let mut skipped = 0;
    for (path, items) in &held {
        let mut expected: Vec<&Item> = items
            .values()
            .filter(|item| !excepted.contains(name_of(messages, item)))
            .collect();
        let mut found: Vec<&Item> = arrived[path].values().collect();
        found.retain(|item| expected.contains(item));
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{context}: {path}");
        let kinds = target_root
            .exceptions
            .iter()
            .filter(|exception| exception.folder == path.0);
        let gone = kinds
            .filter(|exception| exception.kind == ExceptionKind::Skipped)
            .count();
        assert_eq!(
            arrived[path].len(),
            items.len() - gone,
            "{context}: {path} holds nothing else"
        );
        skipped += gone as u64;
    }
    let count: usize = held.values().map(BTreeMap::len).sum();
    assert_eq!(first.items_appended, count as u64 - skipped, "{context}");
}

fn reported_as(kind: ExceptionKind) -> ReportKind {
    match kind {
        ExceptionKind::Skipped => ReportKind::Skipped,
        ExceptionKind::Altered => ReportKind::Altered,
        ExceptionKind::Flags => ReportKind::Flags,
        ExceptionKind::Date => ReportKind::Date,
    }
}

async fn every_pair_from(from: Kind) {
    if is_left_out() {
        return;
    }
    let messages = nasty();
    let platforms = Platforms::start(Some(EightBit::Kept));
    let source = platforms.filled(from, &messages).await;
    let inbox = FolderPath::inbox();
    let listed = source.list(&inbox, None).await.unwrap();
    let flags: Vec<(Uid, Flags)> = listed.items.iter().map(|item| (item.uid, flags_of(item.uid))).collect();
    source.set_flags(FolderRef::any(&inbox), &flags).await.unwrap();
    // One of them in another folder as well.
    let more = path("More");
    source.create_folder(&more, &NewFolder::default()).await.unwrap();
    source.append(FolderRef::any(&more), vec![usual()]).await.unwrap();
    if from != Kind::Cyrus {
        assert_eq!(listed.items.len(), messages.len(), "{from:?} holds all of them");
    }
    assert!(
        listed.items.len() > 25,
        "{from:?} holds most of them: {}",
        listed.items.len()
    );
    for to in [Kind::Memory, Kind::Maildir, Kind::Dovecot, Kind::Cyrus] {
        moves(from, to, &platforms, &source, &messages).await;
    }
}

fn usual() -> NewItem {
    let octets = header(b"usual\r\n");
    NewItem {
        key: ItemKey {
            move_id: 9,
            folder: 9,
            source_validity: 9,
            source_uid: 9,
        },
        uid: None,
        flags: Flags::from_names(["\\Seen"]),
        received: USUAL,
        length: octets.len() as u64,
        digest: Digest::of(&octets),
        body: Body::Memory(Bytes::from(octets)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pair_from_memory() {
    every_pair_from(Kind::Memory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pair_from_maildir() {
    every_pair_from(Kind::Maildir).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pair_from_dovecot() {
    every_pair_from(Kind::Dovecot).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pair_from_cyrus() {
    every_pair_from(Kind::Cyrus).await;
}

/// A Cyrus that changes or refuses 8 bits in headers: what is named is exactly that.
#[tokio::test(flavor = "multi_thread")]
async fn cyrus_that_does_not_keep_eight_bits() {
    if is_left_out() {
        return;
    }
    let messages = nasty();
    for (kind, choice) in [
        (Kind::CyrusMunging, EightBit::Replaced),
        (Kind::CyrusRefusing, EightBit::Refused),
    ] {
        let platforms = Platforms::start(Some(choice));
        let source = platforms.filled(Kind::Memory, &messages).await;
        moves(Kind::Memory, kind, &platforms, &source, &messages).await;
    }
}

/// The most memory that this process has held so far, octets.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// Out of one server and into another, never whole in memory: what a move holds does not grow with its messages.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_200_mb_from_server_to_server() {
    const LENGTH: usize = 200_000_000;
    if is_left_out() {
        return;
    }
    let platforms = Platforms::start(Some(EightBit::Kept));
    let root = platforms.folder.path().join("mail/source");
    write_maildir(&root, &[]);
    {
        let file = std::fs::File::create(root.join("cur/1000000000.M1P1.contoso:2,")).unwrap();
        let mut file = std::io::BufWriter::new(file);
        file.write_all(b"Subject: large\r\n\r\n").unwrap();
        let line = [vec![b'x'; 998], b"\r\n".to_vec()].concat();
        for _ in 0..LENGTH / line.len() {
            file.write_all(&line).unwrap();
        }
        file.flush().unwrap();
    }
    platforms.dovecot.share_mail();
    let source = account(platforms.dovecot.port(), "source");
    let target = platforms.empty(Kind::Cyrus, "large").await;
    let pair = Pair::new(&source, &target);
    let before = peak();
    let outcome = pair.importer.pass(PassKind::Final).await.unwrap();
    assert_eq!(outcome.items_appended, 1);
    assert!(outcome.octets_appended >= LENGTH as u64);
    let target_root = pair.importer.target_root().await.unwrap();
    let source_root = pair.link.exporter.source_root(&[], true).await.unwrap();
    assert_eq!((target_root.exceptions.len(), target_root.root), (0, source_root.root));
    let held = peak() - before;
    assert!(held < 60_000_000, "{held} octets for one message of {LENGTH}");
}

//! The Maildir driver at work under a running Dovecot, while clients and deliveries work in the same mailbox.

use super::path;
use bytes::Bytes;
use futures_util::StreamExt;
use rehome_mailbox::maildir::MaildirMailbox;
use rehome_mailbox::{
    Appended, Body, ErrorScope, FolderPath, FolderRef, ItemKey, Mailbox, MailboxError, NewFolder, NewItem, ReadEvent,
    Retry, Uid,
};
use rehome_testkit::dovecot::{Dovecot, PASSWORD};
use rehome_wire::digest::Digest;
use rehome_wire::flags::Flags;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long all work at once, in seconds.
const SECONDS: &str = "REHOME_LIVE_SECONDS";

/// Whole octets by uid.
type Octets = BTreeMap<Uid, Vec<u8>>;

/// What the driver did and saw.
#[derive(Default)]
struct Diary {
    count: u32,
    appended: Vec<String>,
    /// Items whose id begins with `r`, which clients do not move or expunge.
    removable: BTreeMap<String, Uid>,
    removed: Vec<String>,
    folders: [Seen; 2],
}

/// What the driver saw in one folder.
#[derive(Default)]
struct Seen {
    validities: BTreeSet<u32>,
    octets: Octets,
    /// Uids that were there and then were not.
    gone: BTreeSet<Uid>,
    last: Value,
}

/// Small numbers that look like chance, the same ones in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}

fn folders() -> [FolderPath; 2] {
    [path(&["INBOX"]), path(&["Kept"])]
}

/// What a busy folder may answer: that it could not be read just now.
fn is_passing(error: &MailboxError) -> bool {
    error.scope == ErrorScope::Folder && matches!(error.retry, Retry::Now | Retry::After(_))
}

async fn read(
    mailbox: &MaildirMailbox,
    folder: FolderRef<'_>,
    uids: &[Uid],
) -> Result<(Octets, Vec<Uid>), MailboxError> {
    let mut stream = mailbox.read(folder, uids).await?;
    let (mut octets, mut gone, mut open) = (Octets::new(), Vec::new(), 0);
    while let Some(event) = stream.next().await {
        match event? {
            ReadEvent::Item(meta) => {
                open = meta.uid;
                octets.insert(open, Vec::new());
            }
            ReadEvent::Octets(piece) => octets.get_mut(&open).unwrap().extend_from_slice(&piece),
            ReadEvent::End => {}
            ReadEvent::Gone(uid) => gone.push(uid),
            ReadEvent::Failed { error, .. } => return Err(error),
        }
    }
    assert_eq!(octets.len() + gone.len(), uids.len(), "every uid is answered");
    Ok((octets, gone))
}

impl Diary {
    /// Lists a folder, reads what is new and, with `again`, what was read before.
    async fn look(&mut self, mailbox: &MaildirMailbox, number: usize, again: bool) -> Result<(), MailboxError> {
        let folder = &folders()[number];
        let listing = mailbox.list(folder, None).await?;
        let seen = &mut self.folders[number];
        seen.validities.insert(listing.status.uid_validity);
        let uids: Vec<Uid> = listing.items.iter().map(|item| item.uid).collect();
        assert!(uids.is_sorted_by(|one, two| one < two));
        let listed: BTreeSet<Uid> = uids.iter().copied().collect();
        let came_back: Vec<&Uid> = seen.gone.intersection(&listed).collect();
        assert!(came_back.is_empty(), "{folder}: {came_back:?} came back");
        let missing = seen.octets.keys().filter(|uid| !listed.contains(uid));
        seen.gone.extend(missing);
        let asked: Vec<Uid> = uids
            .iter()
            .copied()
            .filter(|uid| again || !seen.octets.contains_key(uid))
            .collect();
        let at = FolderRef::new(folder, listing.status.uid_validity);
        let (read, gone) = read(mailbox, at, &asked).await?;
        let seen = &mut self.folders[number];
        seen.gone.extend(gone);
        for (uid, octets) in read {
            let before = seen.octets.entry(uid).or_insert_with(|| octets.clone());
            assert_eq!(*before, octets, "uid {uid} of {folder} keeps its message");
        }
        let items = listing.items.iter().filter(|item| !seen.gone.contains(&item.uid));
        seen.last = items
            .map(|item| json!({ "uid": item.uid, "flags": item.flags.names(), "octets": latin(&seen.octets[&item.uid]) }))
            .collect();
        Ok(())
    }

    async fn append(&mut self, mailbox: &MaildirMailbox, chance: &mut Chance) -> Result<(), MailboxError> {
        let kinds: [&[&str]; 4] = [&[], &["\\Seen"], &["\\Flagged", "work"], &["k1", "fromthedriver"]];
        let mut names = Vec::new();
        let items = (0..=chance.below(12)).map(|_| {
            self.count += 1;
            let name = format!("{}{}", if chance.below(4) == 0 { "r" } else { "a" }, self.count);
            let mut octets = format!("Subject: {name}\r\nX-Id: {name}\r\n\r\n").into_bytes();
            octets.resize(octets.len() + chance.below(20_000), b'y');
            names.push(name);
            NewItem {
                key: ItemKey {
                    move_id: 3,
                    folder: 1,
                    source_validity: 1,
                    source_uid: self.count,
                },
                uid: None,
                flags: Flags::from_names(kinds[chance.below(4)]),
                received: 1_200_000_000 + i64::from(self.count),
                length: octets.len() as u64,
                digest: Digest::of(&octets),
                body: Body::Memory(Bytes::from(octets)),
            }
        });
        let items: Vec<NewItem> = items.collect();
        let inbox = FolderPath::inbox();
        let appended = mailbox.append(FolderRef::any(&inbox), items.clone()).await?;
        for ((name, item), appended) in names.into_iter().zip(items).zip(appended) {
            let (Appended::Uid { uid, .. }, Body::Memory(octets)) = (appended, item.body) else {
                panic!("{name} is taken")
            };
            let before = self.folders[0].octets.insert(uid, octets.to_vec());
            assert!(before.is_none(), "uid {uid} is given twice");
            if name.starts_with('r') {
                self.removable.insert(name.clone(), uid);
            }
            self.appended.push(name);
        }
        Ok(())
    }

    async fn change(&mut self, mailbox: &MaildirMailbox, chance: &mut Chance) -> Result<(), MailboxError> {
        let inbox = FolderPath::inbox();
        let at = FolderRef::any(&inbox);
        let uids: Vec<Uid> = self.removable.values().copied().collect();
        if uids.is_empty() {
            return Ok(());
        }
        let flags = [Flags::default(), Flags::from_names(["\\Draft", "later"])];
        let changes: Vec<(Uid, Flags)> = (0..3)
            .map(|_| (uids[chance.below(uids.len())], flags[chance.below(2)].clone()))
            .collect();
        mailbox.set_flags(at, &changes[..1]).await?;
        if uids.len() > 10 {
            let (name, uid) = self.removable.pop_first().unwrap();
            mailbox.remove(at, &[uid]).await?;
            self.removed.push(name);
            self.folders[0].gone.insert(uid);
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let folder = |seen: &Seen| {
            let octets = seen.octets.iter();
            json!({
                "validities": seen.validities,
                "seen": octets.map(|(uid, octets)| json!({ "uid": uid, "octets": latin(octets) })).collect::<Value>(),
                "final": seen.last,
            })
        };
        json!({
            "appended": self.appended,
            "removed": self.removed,
            "folders": { "INBOX": folder(&self.folders[0]), "Kept": folder(&self.folders[1]) },
        })
    }
}

fn latin(octets: &[u8]) -> String {
    octets.iter().map(|octet| char::from(*octet)).collect()
}

/// The driver's part, until `quiet` says that the others have stopped.
async fn drive(root: &Path, until: Instant, mut quiet: impl FnMut()) -> Diary {
    let mailbox = MaildirMailbox::open(root).await.unwrap();
    let (mut diary, mut chance) = (Diary::default(), Chance(0x9e37_79b9_7f4a_7c15));
    let (mut rounds, mut put_off) = (0, 0);
    while Instant::now() < until {
        rounds += 1;
        let again = rounds % 8 == 0;
        for step in 0..4 {
            let done = match step {
                0 => diary.look(&mailbox, 0, again).await,
                1 => diary.append(&mailbox, &mut chance).await,
                2 => diary.change(&mailbox, &mut chance).await,
                _ => diary.look(&mailbox, 1, again).await,
            };
            match done {
                Err(error) if is_passing(&error) && step != 1 => put_off += 1,
                done => done.unwrap(),
            }
        }
    }
    quiet();
    for number in 0..2 {
        diary.look(&mailbox, number, true).await.unwrap();
    }
    eprintln!("{rounds} rounds, put off {put_off} times");
    assert!(put_off * 10 < rounds, "a busy folder is read nearly always");
    diary
}

/// A runtime whose threads are the mailbox's owner, where the test runs as root.
fn as_owner(of: &Path) -> tokio::runtime::Runtime {
    let owner = std::fs::metadata(of).unwrap();
    let (uid, gid) = (
        rustix::fs::Uid::from_raw(owner.uid()),
        rustix::fs::Gid::from_raw(owner.gid()),
    );
    let become_owner = move || {
        if rustix::process::getuid() != uid {
            rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        }
    };
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().on_thread_start(become_owner);
    builder.build().unwrap()
}

fn check(record: &Path, driver: &Value) -> Result<String, String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    serde_json::to_writer(&mut file, driver).unwrap();
    let mut command = Command::new("python3");
    let output = command
        .arg(script())
        .arg("check")
        .args([record, file.path()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(said) } else { Err(said) }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/live_mailbox.py")
}

/// The Python program sees what it claims to see.
fn assert_faults_are_seen(record: &Path, driver: &Value) {
    let faults = [
        ("/appended/0", json!("a0"), "lost: a0"),
        ("/removed/0", json!("d0"), "lost: r"),
        ("/folders/INBOX/seen/3/octets", json!("another"), "changed its message"),
        ("/folders/Kept/validities", json!([1]), "UIDVALIDITY of Kept changed"),
        (
            "/folders/INBOX/final/2/flags",
            json!(["odd"]),
            "INBOX is seen differently",
        ),
        ("/folders/Kept/final/0/uid", json!(999_999), "Kept is seen differently"),
    ];
    for (pointer, fault, named) in faults {
        let mut planted = driver.clone();
        *planted.pointer_mut(pointer).unwrap() = fault;
        let wrong = check(record, &planted).expect_err(pointer);
        assert!(wrong.contains(named), "{pointer}: {wrong}");
    }
}

#[test]
fn dovecot_works_in_the_same_maildir() {
    if rehome_testkit::is_left_out("dovecot") {
        eprintln!("left out: dovecot");
        return;
    }
    let seconds = std::env::var(SECONDS)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(30);
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("user");
    std::fs::create_dir(&root).unwrap();
    let dovecot = Dovecot::builder(folder.path()).anybody().lmtp().start();
    let runtime = as_owner(&root);
    let made = root.clone();
    let make = async move {
        let mailbox = MaildirMailbox::open(&made).await.unwrap();
        for path in folders() {
            mailbox.create_folder(&path, &NewFolder::default()).await.unwrap();
        }
    };
    runtime.block_on(runtime.spawn(make)).unwrap();

    let record = tempfile::NamedTempFile::new().unwrap();
    let mut others = Command::new("python3")
        .arg(script())
        .arg("run")
        .args([dovecot.port(), dovecot.lmtp_port()].map(|port| port.to_string()))
        .args(["user", PASSWORD])
        .args([&root, record.path()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is installed");
    let mut input = others.stdin.take().unwrap();
    let mut output = BufReader::new(others.stdout.take().unwrap()).lines();
    assert_eq!(output.next().unwrap().unwrap(), "working");
    let until = Instant::now() + Duration::from_secs(seconds);
    let quiet = move || {
        writeln!(input, "stop").unwrap();
        assert_eq!(output.next().unwrap().unwrap(), "quiet");
    };
    let diary = runtime
        .block_on(runtime.spawn(async move { drive(&root, until, quiet).await }))
        .unwrap();
    assert!(others.wait().unwrap().success());

    let driver = diary.json();
    let said = check(record.path(), &driver).unwrap_or_else(|wrong| panic!("{wrong}"));
    eprint!("{said}");
    assert_faults_are_seen(record.path(), &driver);
    let log = dovecot.log();
    let is_complaint = |line: &&str| {
        ["Error:", "Warning:", "Fatal:", "Panic:"]
            .iter()
            .any(|word| line.contains(word))
    };
    assert_eq!(log.lines().find(is_complaint), None, "dovecot complains");
}

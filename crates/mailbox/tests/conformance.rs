//! The conformance suite on every driver, and a real Dovecot that serves what the Maildir driver wrote.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod live;

use bytes::Bytes;
use rehome_mailbox::maildir::MaildirMailbox;
use rehome_mailbox::maildir::deliver::Delivery;
use rehome_mailbox::memory::MemoryMailbox;
use rehome_mailbox::{
    Appended, Body, Capabilities, FolderIdentity, FolderPath, FolderRef, ItemKey, Mailbox, NewFolder, NewItem, Uid,
    conformance,
};
use rehome_testkit::dovecot::{Dovecot, PASSWORD};
use rehome_wire::digest::Digest;
use rehome_wire::flags::Flags;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

#[tokio::test]
async fn memory() {
    conformance::run(|| (Arc::new(MemoryMailbox::new()) as Arc<dyn Mailbox>, ())).await;
}

#[tokio::test]
async fn memory_without_powers() {
    let least = Capabilities {
        append_batch: 1,
        max_item_length: Some(1_000_000),
        ..Capabilities::default()
    };
    conformance::run(|| {
        (
            Arc::new(MemoryMailbox::with_capabilities(least)) as Arc<dyn Mailbox>,
            (),
        )
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn maildir() {
    conformance::run(|| {
        let root = tempfile::tempdir().unwrap();
        let handle = tokio::runtime::Handle::current();
        let mailbox = tokio::task::block_in_place(|| handle.block_on(MaildirMailbox::open(root.path()))).unwrap();
        (Arc::new(mailbox) as Arc<dyn Mailbox>, root)
    })
    .await;
}

/// A folder's names; what a Dovecot without the `listescape` plugin calls it, and what one with it, where that differs
/// (none: not served).
struct Named {
    names: Vec<String>,
    without_plugin: String,
    with_plugin: Option<String>,
}

fn named_folders() -> Vec<Named> {
    let same: &[&[&str]] = &[
        &["INBOX"],
        &["Sent"],
        &["INBOX", "below"],
        &["INBOX", "INBOX"],
        &["Entwürfe & mehr", "日本語"],
        &[" lead", "trail "],
        &["%*\"#"],
        &["tab\there"],
        &["line\nbreak\u{7f}"],
        &["c1 \u{85}"],
        &["[Gmail]", "All Mail"],
        &["Case"],
        &["case"],
        &["e\u{301}"],
        &["\u{e9}"],
        &["\u{1f4e7}"],
    ];
    let escaped: &[(&[&str], &str, bool)] = &[
        (&["a.b", "c.d"], "a\\2eb/c\\2ed", true),
        (&[".."], "\\2e\\2e", true),
        (&["~root"], "\\7eroot", true),
        (&["back\\slash"], "back\\5cslash", true),
        // The plugin shows a slash as Dovecot's own separator, an empty name and a second inbox not at all.
        (&["x/y"], "x\\2fy", false),
        (&["Inbox"], "\\49nbox", false),
        (&[""], "\\-", false),
    ];
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
    let mut folders = Vec::new();
    for names in same {
        folders.push(Named {
            names: owned(names),
            without_plugin: names.join("/"),
            with_plugin: Some(names.join("/")),
        });
    }
    for (names, without_plugin, served) in escaped {
        let with_plugin = served.then(|| names.join("/"));
        folders.push(Named {
            names: owned(names),
            without_plugin: (*without_plugin).to_owned(),
            with_plugin,
        });
    }
    let long = "x".repeat(300);
    let digest = Digest::of(format!(".{long}").as_bytes()).to_string();
    let without_plugin = format!("\\long-{}", &digest[..32]);
    folders.push(Named {
        names: vec![long],
        without_plugin,
        with_plugin: None,
    });
    folders
}

fn path(names: &[&str]) -> FolderPath {
    FolderPath(names.iter().map(|name| (*name).to_owned()).collect())
}

/// What the mailbox must hold, in the test's own words.
#[derive(Default)]
struct Manifest {
    folders: BTreeMap<FolderPath, ManifestFolder>,
}

struct ManifestFolder {
    named: Named,
    subscribed: bool,
    uid_validity: u32,
    uid_next: u32,
    items: BTreeMap<Uid, NewItem>,
}

impl Manifest {
    fn json(&self, shown: impl Fn(&Named) -> Option<String>) -> Value {
        let folders = self.folders.values().filter_map(|folder| {
            let items = folder.items.iter().map(|(uid, item)| item_json(*uid, item));
            Some(json!({
                "name": shown(&folder.named)?,
                "subscribed": folder.subscribed,
                "uid_validity": folder.uid_validity,
                "uid_next": folder.uid_next,
                "items": items.collect::<Vec<_>>(),
            }))
        });
        json!({ "folders": folders.collect::<Vec<_>>() })
    }
}

fn item_json(uid: Uid, item: &NewItem) -> Value {
    let Body::Memory(octets) = &item.body else {
        panic!("items are in memory here")
    };
    let octets: String = octets.iter().map(|octet| char::from(*octet)).collect();
    json!({ "uid": uid, "flags": item.flags.names(), "received": item.received, "octets": octets })
}

fn item(folder: u32, source_uid: Uid, octets: Vec<u8>, flags: &[&str]) -> NewItem {
    NewItem {
        key: ItemKey {
            move_id: 42,
            folder,
            source_validity: 1,
            source_uid,
        },
        uid: None,
        flags: Flags::from_names(flags),
        received: 1_100_000_000 + i64::from(source_uid) * 86_399,
        length: octets.len() as u64,
        digest: Digest::of(&octets),
        body: Body::Memory(Bytes::from(octets)),
    }
}

fn messages() -> Vec<(Vec<u8>, &'static [&'static str])> {
    let every: Vec<u8> = (0..=255_u8).filter(|octet| !matches!(octet, b'\r' | b'\n')).collect();
    vec![
        (
            b"Subject: plain\r\nMessage-ID: <1@contoso.example>\r\n\r\nbody\r\n".to_vec(),
            &["\\Seen"],
        ),
        (
            b"Subject: plain\r\nMessage-ID: <1@contoso.example>\r\n\r\nbody\r\n".to_vec(),
            &["\\Seen", "\\Answered", "$Forwarded"],
        ),
        (
            b"Subject: \xe4\xf6\xfc\r\n\r\n8-bit \xff\r\n".to_vec(),
            &["\\Flagged", "\\Draft", "\\Deleted"],
        ),
        (b"no header at all".to_vec(), &[]),
        (b"Subject: headers only\r\n".to_vec(), &["work", "Later"]),
        (b"lone \r cr \r\r and\0nul\r\n\r\n.\r\n".to_vec(), &[]),
        ([b"Subject: every octet\r\n\r\n".to_vec(), every].concat(), &["work"]),
        ([b"Subject: long\r\n\r\n".to_vec(), vec![b'l'; 100_000]].concat(), &[]),
        (Vec::new(), &["\\Seen"]),
    ]
}

async fn append(mailbox: &MaildirMailbox, folder: &FolderPath, items: Vec<NewItem>, manifest: &mut Manifest) {
    let appended = mailbox.append(FolderRef::any(folder), items.clone()).await.unwrap();
    let held = manifest.folders.get_mut(folder).unwrap();
    for (item, appended) in items.into_iter().zip(appended) {
        let Appended::Uid { uid, keywords_dropped } = appended else {
            panic!("the item is taken")
        };
        assert!(keywords_dropped.is_empty());
        held.uid_next = held.uid_next.max(uid + 1);
        held.items.insert(uid, item);
    }
}

async fn write_mailbox(mailbox: &MaildirMailbox) -> Manifest {
    let mut manifest = Manifest::default();
    for ((index, named), subscribed) in (0_u32..).zip(named_folders()).zip([true, false].into_iter().cycle()) {
        let path = FolderPath(named.names.clone());
        let identity = FolderIdentity {
            uid_validity: 1_400_000_001 + index,
            uid_next: 90_001,
        };
        // Some folders keep the numbers of a source, others get their own.
        let identity = (index % 3 != 2).then_some(identity);
        let new = NewFolder {
            special_use: None,
            subscribed,
            identity,
        };
        let status = mailbox.create_folder(&path, &new).await.unwrap();
        let items: BTreeMap<Uid, NewItem> = BTreeMap::new();
        let (uid_validity, uid_next) = (status.uid_validity, status.uid_next);
        assert!(identity.is_none_or(|identity| identity == FolderIdentity { uid_validity, uid_next }));
        manifest.folders.insert(
            path.clone(),
            ManifestFolder {
                named,
                subscribed,
                uid_validity,
                uid_next,
                items,
            },
        );
        let items = (1..).zip(messages()).map(|(source_uid, (octets, flags))| {
            let uid = identity.map(|_| source_uid * 7);
            NewItem {
                uid,
                ..item(index, source_uid, octets, flags)
            }
        });
        append(mailbox, &path, items.collect(), &mut manifest).await;
    }
    manifest
}

/// Runs the Python program; what it says if it finds something wrong.
fn run_python(dovecot: &Dovecot, manifest: &Value, mode: &str) -> Result<(), String> {
    dovecot.share_mail();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    serde_json::to_writer(&mut file, manifest).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/read_mailbox.py");
    let mut command = std::process::Command::new("python3");
    command
        .arg(script)
        .arg(dovecot.port().to_string())
        .args(["user", PASSWORD])
        .arg(file.path())
        .arg(mode);
    let output = command.output().expect("python3 is installed");
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{stdout}{stderr}"))
    }
}

/// Runs the Python program; it must find nothing wrong, and Dovecot must have nothing to complain about.
fn python(dovecot: &Dovecot, manifest: &Value, mode: &str) {
    run_python(dovecot, manifest, mode).unwrap_or_else(|wrong| panic!("{mode}:\n{wrong}"));
    let log = dovecot.log();
    let is_complaint = |line: &&str| {
        ["Error:", "Warning:", "Fatal:", "Panic:"]
            .iter()
            .any(|word| line.contains(word))
    };
    assert_eq!(log.lines().find(is_complaint), None, "dovecot complains");
}

/// The Python program sees what it claims to see.
fn assert_faults_are_seen(dovecot: &Dovecot, manifest: &Value) {
    let faults: [(&str, Value, &str); 7] = [
        ("/folders/0/uid_validity", json!(1), "UIDVALIDITY"),
        ("/folders/1/uid_next", json!(1), "UIDNEXT"),
        (
            "/folders/2/subscribed",
            json!(manifest["folders"][2]["subscribed"] == json!(false)),
            "subscriptions",
        ),
        ("/folders/3/name", json!("elsewhere"), "folders"),
        (
            "/folders/4/items/0/octets",
            json!("Subject: plaim\r\nMessage-ID: <1@contoso.example>\r\n\r\nbody\r\n"),
            "octets",
        ),
        ("/folders/5/items/1/flags", json!(["\\Seen", "\\Answered"]), "flags"),
        ("/folders/6/items/2/received", json!(5), "received time"),
    ];
    for (pointer, value, named) in faults {
        let mut planted = manifest.clone();
        *planted.pointer_mut(pointer).unwrap() = value;
        let wrong = run_python(dovecot, &planted, "check").expect_err(pointer);
        assert!(wrong.contains(named), "{pointer}: {wrong}");
    }
}

async fn change_and_append(mailbox: &MaildirMailbox, manifest: &mut Manifest) {
    let inbox = FolderPath::inbox();
    for (index, names) in [(0, &["INBOX"][..]), (5, &["a.b", "c.d"])] {
        let path = path(names);
        let more: Vec<NewItem> = (100..110)
            .map(|uid| {
                item(
                    index,
                    uid,
                    format!("Subject: more {uid}\r\n\r\n").into_bytes(),
                    &["more", "\\Seen"],
                )
            })
            .collect();
        append(mailbox, &path, more, manifest).await;
        let held = manifest.folders.get_mut(&path).unwrap();
        let uids: Vec<Uid> = held.items.keys().copied().collect();
        let flags = Flags::from_names(["\\Answered", "changed"]);
        mailbox
            .set_flags(
                FolderRef::any(&path),
                &[(uids[3], flags.clone()), (uids[4], Flags::default())],
            )
            .await
            .unwrap();
        held.items.get_mut(&uids[3]).unwrap().flags = flags;
        held.items.get_mut(&uids[4]).unwrap().flags = Flags::default();
        mailbox.remove(FolderRef::any(&path), &uids[5..7]).await.unwrap();
        held.items.retain(|uid, _| !uids[5..7].contains(uid));
    }
    let octets = b"Subject: delivered\r\n\r\nlocally\r\n".to_vec();
    let delivered = item(0, 999, octets, &[]);
    let listing = mailbox.list(&inbox, None).await.unwrap();
    let newest = listing.items.last().unwrap();
    let held = manifest.folders.get_mut(&inbox).unwrap();
    assert_eq!(newest.uid + 1, held.uid_next + 1, "the delivery has its uid");
    held.uid_next = newest.uid + 1;
    held.items.insert(
        newest.uid,
        NewItem {
            received: newest.received,
            ..delivered
        },
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn dovecot_serves_what_we_write() {
    if rehome_testkit::is_left_out("dovecot") {
        eprintln!("left out: dovecot");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("user");
    std::fs::create_dir(&root).unwrap();
    let mailbox = MaildirMailbox::open(&root).await.unwrap();
    let mut manifest = write_mailbox(&mailbox).await;
    let without_plugin = |named: &Named| Some(named.without_plugin.clone());
    let dovecot = Dovecot::start(folder.path());

    let written = manifest.json(without_plugin);
    python(&dovecot, &written, "check");
    // Again, now that Dovecot has its indexes.
    python(&dovecot, &written, "check");
    assert_faults_are_seen(&dovecot, &written);

    let mut delivery = Delivery::begin(&root).await.unwrap();
    delivery.write(b"Subject: delivered\r\n\r\nlocally\r\n").await.unwrap();
    delivery.finish_tmp().await.unwrap().publish().await.unwrap();
    change_and_append(&mailbox, &mut manifest).await;
    python(&dovecot, &manifest.json(without_plugin), "check");

    // What a user does over IMAP, the driver sees.
    python(&dovecot, &json!({ "folders": [] }), "change");
    let inbox = manifest.folders.get_mut(&FolderPath::inbox()).unwrap();
    let uids: Vec<Uid> = inbox.items.keys().copied().collect();
    inbox.items.remove(&uids[1]);
    inbox.items.get_mut(&uids[0]).unwrap().flags = Flags::from_names(["\\Seen", "\\Flagged", "FromImap"]);
    let listing = mailbox.list(&FolderPath::inbox(), None).await.unwrap();
    let listed: Vec<(Uid, Flags)> = listing.items.into_iter().map(|item| (item.uid, item.flags)).collect();
    let expected: Vec<(Uid, Flags)> = inbox
        .items
        .iter()
        .map(|(uid, item)| (*uid, item.flags.clone()))
        .collect();
    assert_eq!(listed, expected);
    assert_eq!(
        (listing.status.uid_validity, listing.status.uid_next),
        (inbox.uid_validity, inbox.uid_next)
    );

    // With the plugin whose escape we use, Dovecot shows the true names.
    drop(dovecot);
    let dovecot = Dovecot::start_with(
        folder.path(),
        "protocol imap {\n  mail_plugins = $mail_plugins listescape\n}",
    );
    let unserved: Vec<FolderPath> = manifest
        .folders
        .iter()
        .filter(|(_, folder)| folder.named.with_plugin.is_none())
        .map(|(path, _)| path.clone())
        .collect();
    for path in unserved {
        mailbox.remove_folder(&path).await.unwrap();
    }
    python(&dovecot, &manifest.json(|named| named.with_plugin.clone()), "check");
}

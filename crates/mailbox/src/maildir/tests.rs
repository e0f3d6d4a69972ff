//! What only a Maildir can do: files from elsewhere, left-overs of crashes, links.

use super::*;
use crate::{FolderIdentity, FolderRef, ItemKey, Mailbox};
use bytes::Bytes;
use futures_util::StreamExt;
use rehome_wire::digest::Digest;
use std::fs;
use std::path::PathBuf;

async fn mailbox() -> (MaildirMailbox, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mailbox = MaildirMailbox::open(folder.path()).await.unwrap();
    mailbox
        .create_folder(&FolderPath::inbox(), &NewFolder::default())
        .await
        .unwrap();
    (mailbox, folder)
}

fn item(source_uid: Uid, octets: &'static [u8], flags: &[&str]) -> NewItem {
    NewItem {
        key: ItemKey {
            move_id: 7,
            folder: 1,
            source_validity: 2,
            source_uid,
        },
        uid: None,
        flags: Flags::from_names(flags),
        received: 1_000,
        length: octets.len() as u64,
        digest: Digest::of(octets),
        body: crate::Body::Memory(Bytes::from_static(octets)),
    }
}

async fn append(mailbox: &MaildirMailbox, items: Vec<NewItem>) -> Vec<Uid> {
    let appended = mailbox
        .append(FolderRef::any(&FolderPath::inbox()), items)
        .await
        .unwrap();
    appended
        .iter()
        .map(|appended| match appended {
            Appended::Uid { uid, .. } => *uid,
            Appended::Refused(error) => panic!("{error}"),
        })
        .collect()
}

async fn uids(mailbox: &MaildirMailbox) -> Vec<Uid> {
    let listing = mailbox.list(&FolderPath::inbox(), None).await.unwrap();
    listing.items.iter().map(|item| item.uid).collect()
}

async fn octets(mailbox: &MaildirMailbox, uid: Uid) -> Option<Vec<u8>> {
    let mut stream = mailbox
        .read(FolderRef::any(&FolderPath::inbox()), &[uid])
        .await
        .unwrap();
    let mut octets = None;
    while let Some(event) = stream.next().await {
        match event.unwrap() {
            ReadEvent::Item(_) => octets = Some(Vec::new()),
            ReadEvent::Octets(piece) => octets.as_mut().unwrap().extend_from_slice(&piece),
            ReadEvent::End | ReadEvent::Gone(_) => {}
            ReadEvent::Failed { error, .. } => panic!("{error}"),
        }
    }
    octets
}

fn names(root: &std::path::Path, sub: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(root.join(sub))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn files_from_elsewhere_get_uids_where_they_lie() {
    let (mailbox, root) = mailbox().await;
    for (name, octets) in [
        ("new/1500.b", "B"),
        ("cur/1400.a:2,FS", "A"),
        ("cur/1600.c,S=1:2,", "C"),
        ("cur/.x", "no"),
    ] {
        fs::write(root.path().join(name), octets).unwrap();
    }
    assert_eq!(uids(&mailbox).await, [1, 2, 3]);
    assert_eq!(octets(&mailbox, 2).await.unwrap(), b"B", "in the order of arrival");
    assert_eq!(names(root.path(), "new"), ["1500.b"]);
    let flagged = [(2, Flags::default()), (1, Flags::from_names(["\\Draft"]))];
    mailbox
        .set_flags(FolderRef::any(&FolderPath::inbox()), &flagged)
        .await
        .unwrap();
    assert_eq!(names(root.path(), "new"), ["1500.b"], "no flags, no move");
    mailbox
        .set_flags(
            FolderRef::any(&FolderPath::inbox()),
            &[(2, Flags::from_names(["\\Seen"]))],
        )
        .await
        .unwrap();
    assert_eq!(
        names(root.path(), "cur"),
        [".x", "1400.a:2,D", "1500.b:2,S", "1600.c,S=1:2,"]
    );
    assert_eq!(uids(&mailbox).await, [1, 2, 3]);
    let length = mailbox.list(&FolderPath::inbox(), None).await.unwrap().items[2].length_hint;
    assert_eq!(length, Some(1), "measured, not taken from the name");
}

/// Whatever a file is called, it is an item with all of its octets; what its name claims is not believed.
#[tokio::test]
async fn names_of_every_kind() {
    use std::os::unix::ffi::OsStrExt;
    let (mailbox, root) = mailbox().await;
    let long = format!("1009.{}:2,S", "x".repeat(240));
    let rows: [(&[u8], &[&str]); 10] = [
        (b"1000.plain", &[]),
        (b"1001.empty:2,", &[]),
        (b"1002.twice:2,SSF", &["\\Flagged", "\\Seen"]),
        (b"1003.unknown:2,SX9?", &["\\Seen"]),
        (b"1004.experimental:1,S", &[]),
        (b"1005.lies,S=99999,W=1:2,S", &["\\Seen"]),
        (b"1006.lies,S=0:2,R", &["\\Answered"]),
        (b"1007.unmapped:2,Sabz", &["\\Seen"]),
        (b"1008.oct\xffets:2,S", &["\\Seen"]),
        (long.as_bytes(), &["\\Seen"]),
    ];
    for (name, _) in rows {
        let file = root.path().join("cur").join(std::ffi::OsStr::from_bytes(name));
        fs::write(file, [b"Subject: x\n\n", name].concat()).unwrap();
    }
    fs::create_dir(root.path().join("cur/1010.folder:2,S")).unwrap();
    let listing = mailbox.list(&FolderPath::inbox(), None).await.unwrap();
    assert_eq!(listing.items.len(), rows.len());
    for (meta, (name, flags)) in listing.items.iter().zip(rows) {
        let shown = String::from_utf8_lossy(name);
        let expected = [b"Subject: x\n\n", name].concat();
        assert_eq!(meta.flags, Flags::from_names(flags), "{shown}");
        assert_eq!(octets(&mailbox, meta.uid).await.unwrap(), expected, "{shown}");
        assert!(
            meta.length_hint.is_none_or(|hint| hint == expected.len() as u64),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn a_zero_octet_item_is_written() {
    let (mailbox, _root) = mailbox().await;
    let uid = append(&mailbox, vec![item(1, b"", &[])]).await[0];
    assert_eq!(octets(&mailbox, uid).await.unwrap(), b"");
}

#[tokio::test]
async fn a_crash_between_list_and_rename_is_harmless() {
    let (mailbox, root) = mailbox().await;
    let first = append(&mailbox, vec![item(1, b"one", &["\\Seen"]), item(2, b"two", &[])]).await;
    // As if the second rename had not happened and the file in tmp were cut.
    let cur = names(root.path(), "cur");
    let lost = cur.iter().find(|name| name.contains("U2.rehome")).unwrap();
    fs::remove_file(root.path().join("cur").join(lost)).unwrap();
    fs::write(root.path().join("tmp").join(lost.strip_suffix(":2,").unwrap()), "tw").unwrap();
    assert_eq!(uids(&mailbox).await, [first[0]]);
    let again = append(
        &mailbox,
        vec![
            item(1, b"one", &["\\Seen"]),
            item(2, b"two", &[]),
            item(3, b"three", &[]),
        ],
    )
    .await;
    assert_eq!(again[..2], first, "the listed uid is taken again");
    assert_eq!(octets(&mailbox, again[1]).await.unwrap(), b"two");
    assert_eq!(names(root.path(), "cur").len(), 3);
    assert!(names(root.path(), "tmp").is_empty());
}

#[tokio::test]
async fn a_lock_left_by_a_killed_process_is_overridden() {
    let (mailbox, root) = mailbox().await;
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    let host = dotlock::host_name();
    fs::write(root.path().join("dovecot-uidlist.lock"), format!("{pid}:{}", host)).unwrap();
    assert_eq!(append(&mailbox, vec![item(1, b"x", &[])]).await, [1]);
    assert!(!root.path().join("dovecot-uidlist.lock").exists());
}

#[tokio::test]
async fn links_are_not_followed() {
    let (mailbox, root) = mailbox().await;
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(outside.path().join("cur")).unwrap();
    fs::write(outside.path().join("cur/1.secret"), "secret").unwrap();
    std::os::unix::fs::symlink(outside.path().join("cur/1.secret"), root.path().join("cur/1.link")).unwrap();
    std::os::unix::fs::symlink(outside.path(), root.path().join(".Out")).unwrap();
    fs::create_dir(root.path().join(".Half")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("cur"), root.path().join(".Half/cur")).unwrap();
    assert!(uids(&mailbox).await.is_empty());
    assert_eq!(mailbox.folders().await.unwrap().len(), 1);
    for name in ["Out", "Half"] {
        let path = FolderPath(vec![name.to_owned()]);
        assert_eq!(mailbox.list(&path, None).await.unwrap_err().scope, ErrorScope::Folder);
    }
    append(&mailbox, vec![item(1, b"x", &[])]).await;
    std::os::unix::fs::symlink(outside.path().join("list"), root.path().join("dovecot-keywords")).unwrap();
    assert!(
        mailbox
            .append(FolderRef::any(&FolderPath::inbox()), vec![item(2, b"x", &["work"])])
            .await
            .is_err()
    );
    assert!(!outside.path().join("list").exists());
}

#[tokio::test]
async fn two_files_with_one_name_are_two_items() {
    let (mailbox, root) = mailbox().await;
    fs::write(root.path().join("cur/1.same:2,S"), "one").unwrap();
    fs::write(root.path().join("cur/1.same:2,F"), "two").unwrap();
    let found = uids(&mailbox).await;
    assert_eq!(found.len(), 2);
    let mut both = Vec::new();
    for uid in found {
        both.push(octets(&mailbox, uid).await.unwrap());
    }
    both.sort();
    assert_eq!(both, [b"one", b"two"]);
}

#[tokio::test]
async fn a_broken_list_is_set_aside_and_made_anew() {
    let (mailbox, root) = mailbox().await;
    append(&mailbox, vec![item(1, b"a", &[]), item(2, b"b", &[])]).await;
    let before = mailbox
        .list(&FolderPath::inbox(), None)
        .await
        .unwrap()
        .status
        .uid_validity;
    fs::write(root.path().join("dovecot-uidlist"), "3 V5 N9\n4 :a\n3 :b\n").unwrap();
    let after = mailbox.list(&FolderPath::inbox(), None).await.unwrap();
    assert_eq!(after.items.len(), 2);
    assert!(after.status.uid_validity > 5 && after.status.uid_validity != before);
    assert!(root.path().join("dovecot-uidlist.rehome-broken").exists());
}

#[tokio::test]
async fn what_others_wrote_into_the_list_stays() {
    let (mailbox, root) = mailbox().await;
    fs::write(root.path().join("cur/1.a:2,"), "a").unwrap();
    let list = "3 V77 N10 G00112233445566778899aabbccddeeff Xq\n4 W9 Gabc :1.a\nodd line\n6 :1.gone\n";
    fs::write(root.path().join("dovecot-uidlist"), list).unwrap();
    assert_eq!(uids(&mailbox).await, [4]);
    assert_eq!(
        fs::read_to_string(root.path().join("dovecot-uidlist")).unwrap(),
        list,
        "listing writes nothing"
    );
    assert_eq!(append(&mailbox, vec![item(1, b"b", &[])]).await, [10]);
    let written = fs::read_to_string(root.path().join("dovecot-uidlist")).unwrap();
    let name = format!("10 :1000.R{:032x}F1V2U1.rehome,S=1,W=1\n", 7);
    assert_eq!(written, list.to_owned() + &name, "lines are added, as Dovecot does");
    mailbox
        .remove(FolderRef::any(&FolderPath::inbox()), &[4])
        .await
        .unwrap();
    let written = fs::read_to_string(root.path().join("dovecot-uidlist")).unwrap();
    let list = list.replace("N10", "N11").replace("4 W9 Gabc :1.a\n", "");
    assert_eq!(written, list + &name, "the next uid is kept when lines go");
}

#[tokio::test]
async fn a_line_that_was_cut_is_left_out_and_not_added_to() {
    use std::io::Write;
    let (mailbox, root) = mailbox().await;
    assert_eq!(append(&mailbox, vec![item(1, b"a", &[])]).await, [1]);
    let list = root.path().join("dovecot-uidlist");
    let mut file = fs::File::options().append(true).open(&list).unwrap();
    file.write_all(b"2 :1000.cut").unwrap();
    assert_eq!(uids(&mailbox).await, [1]);
    assert_eq!(append(&mailbox, vec![item(2, b"b", &[])]).await, [2]);
    let text = fs::read_to_string(&list).unwrap();
    assert!(text.ends_with('\n') && !text.contains("cut"), "{text}");
    assert_eq!(uids(&mailbox).await, [1, 2]);
    assert_eq!(octets(&mailbox, 2).await.unwrap(), b"b");
}

/// What is remembered must never hide what others did.
#[tokio::test]
async fn what_others_change_is_seen_at_once() {
    use std::io::Write;
    let (mailbox, root) = mailbox().await;
    let listed = |listing: Listing| -> Vec<(Uid, Vec<String>)> {
        let items = listing.items.into_iter();
        items.map(|item| (item.uid, item.flags.names())).collect()
    };
    let inbox = FolderPath::inbox();
    append(
        &mailbox,
        vec![item(1, b"a", &[]), item(2, b"b", &[]), item(3, b"c", &[])],
    )
    .await;
    // So long ago that its times tell what changes.
    let old = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
    let age = || {
        for sub in ["cur", "new"] {
            fs::File::open(root.path().join(sub)).unwrap().set_times(old).unwrap();
        }
    };
    age();
    for _ in 0..2 {
        assert_eq!(uids(&mailbox).await, [1, 2, 3]);
    }
    let cur = root.path().join("cur");
    let name = |number: usize| names(root.path(), "cur")[number].clone();
    fs::rename(cur.join(name(1)), cur.join(format!("{}F", name(1)))).unwrap();
    let seen = listed(mailbox.list(&inbox, None).await.unwrap());
    assert_eq!(seen[1], (2, vec!["\\Flagged".to_owned()]));
    age();
    assert_eq!(uids(&mailbox).await, [1, 2, 3]);
    fs::remove_file(cur.join(name(0))).unwrap();
    assert_eq!(octets(&mailbox, 1).await, None);
    assert_eq!(octets(&mailbox, 2).await.unwrap(), b"b");
    assert_eq!(uids(&mailbox).await, [2, 3]);
    age();
    assert_eq!(uids(&mailbox).await, [2, 3]);
    fs::write(root.path().join("new/2000.d"), "d").unwrap();
    let mut list = fs::File::options()
        .append(true)
        .open(root.path().join("dovecot-uidlist"))
        .unwrap();
    list.write_all(b"9 :2000.d\n").unwrap();
    assert_eq!(octets(&mailbox, 9).await.unwrap(), b"d");
    assert_eq!(uids(&mailbox).await, [2, 3, 9]);
    assert_eq!(append(&mailbox, vec![item(4, b"e", &[])]).await, [10]);
    assert_eq!(octets(&mailbox, 10).await.unwrap(), b"e");
}

#[tokio::test]
async fn many_items_are_read_in_order_and_large_ones_in_pieces() {
    let (mailbox, _root) = mailbox().await;
    let text = |uid: Uid| -> Vec<u8> {
        let length = if uid.is_multiple_of(40) {
            700_000
        } else {
            uid as usize * 3
        };
        uid.to_string().into_bytes().into_iter().cycle().take(length).collect()
    };
    let items = (1..=150).map(|uid| {
        let octets = text(uid);
        NewItem {
            length: octets.len() as u64,
            digest: Digest::of(&octets),
            body: crate::Body::Memory(Bytes::from(octets)),
            ..item(uid, b"", &[])
        }
    });
    let mut asked = append(&mailbox, items.collect()).await;
    asked.push(151);
    let inbox = FolderPath::inbox();
    let mut stream = mailbox.read(FolderRef::any(&inbox), &asked).await.unwrap();
    let (mut read, mut octets) = (Vec::new(), Vec::new());
    while let Some(event) = stream.next().await {
        match event.unwrap() {
            ReadEvent::Item(meta) => read.push(meta.uid),
            ReadEvent::Octets(piece) => octets.extend_from_slice(&piece),
            ReadEvent::End => assert_eq!(std::mem::take(&mut octets), text(*read.last().unwrap())),
            ReadEvent::Gone(uid) => read.push(uid),
            ReadEvent::Failed { error, .. } => panic!("{error}"),
        }
    }
    assert_eq!(read, asked);
    drop(mailbox.read(FolderRef::any(&inbox), &asked).await.unwrap());
}

#[tokio::test]
async fn a_half_made_folder_is_completed() {
    let (mailbox, root) = mailbox().await;
    fs::create_dir_all(root.path().join(".A/new")).unwrap();
    let path = FolderPath(vec!["A".to_owned()]);
    assert_eq!(mailbox.folders().await.unwrap().len(), 1);
    let identity = Some(FolderIdentity {
        uid_validity: 5,
        uid_next: 6,
    });
    let status = mailbox
        .create_folder(
            &path,
            &NewFolder {
                identity,
                ..NewFolder::default()
            },
        )
        .await
        .unwrap();
    assert_eq!((status.uid_validity, status.uid_next), (5, 6));
}

#[tokio::test]
async fn reading_goes_on_while_flags_change() {
    let (mailbox, root) = mailbox().await;
    let items: Vec<NewItem> = (1..=40).map(|uid| item(uid, b"Subject: x\r\n\r\n", &[])).collect();
    let all = append(&mailbox, items).await;
    let mut stream = mailbox.read(FolderRef::any(&FolderPath::inbox()), &all).await.unwrap();
    let first = stream.next().await.unwrap().unwrap();
    assert!(matches!(first, ReadEvent::Item(_)));
    // The reader is at most a few pieces ahead; all later files are renamed under it.
    for name in names(root.path(), "cur") {
        let path: PathBuf = root.path().join("cur").join(&name);
        fs::rename(&path, root.path().join("cur").join(format!("{name}S"))).unwrap();
    }
    let mut whole = 0;
    while let Some(event) = stream.next().await {
        match event.unwrap() {
            ReadEvent::End => whole += 1,
            ReadEvent::Item(_) | ReadEvent::Octets(_) => {}
            ReadEvent::Gone(uid) => panic!("item {uid} is not gone"),
            ReadEvent::Failed { error, .. } => panic!("{error}"),
        }
    }
    assert_eq!(whole, 40);
}

#[tokio::test]
async fn a_mailbox_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let error = MaildirMailbox::open(&folder.path().join("none")).await.err().unwrap();
    assert_eq!((error.scope, error.retry), (ErrorScope::Mailbox, Retry::Never));
}

/// A directory that is read while files in it are renamed may not show them. Such files are not gone.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_seems_gone_while_flags_change() {
    use std::sync::atomic::{AtomicBool, Ordering};
    const FILES: u32 = 3000;
    let (mailbox, root) = mailbox().await;
    for number in 0..FILES {
        fs::write(root.path().join(format!("cur/{number}.some-longer-name:2,")), "x").unwrap();
    }
    let all: Vec<Uid> = (1..=FILES).collect();
    assert_eq!(uids(&mailbox).await, all);
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, cur) = (Arc::clone(&stop), root.path().join("cur"));
    let renaming = std::thread::spawn(move || {
        let (mut round, mut letters) = (0, ["", "S"]);
        while !stopped.load(Ordering::Relaxed) {
            round += 1;
            for number in (round % 10..FILES).step_by(10) {
                let name = |letter| cur.join(format!("{number}.some-longer-name:2,{letter}"));
                fs::rename(name(letters[0]), name(letters[1])).unwrap();
            }
            if round % 10 == 0 {
                letters.reverse();
                // Not for ever, or nobody could say that a folder is whole.
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        }
    });
    let mut listed = 0;
    for _ in 0..30 {
        match mailbox.list(&FolderPath::inbox(), None).await {
            Ok(listing) => {
                let uids: Vec<Uid> = listing.items.iter().map(|item| item.uid).collect();
                assert_eq!(uids, all, "after {listed} listings");
                listed += 1;
            }
            Err(error) => assert!(matches!(error.retry, Retry::After(_)), "{error}"),
        }
    }
    stop.store(true, Ordering::Relaxed);
    renaming.join().unwrap();
    assert_eq!(uids(&mailbox).await, all);
}

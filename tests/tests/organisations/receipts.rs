//! Receipts of finished moves: made by two servers, verified by another process with the file and public keys alone.

use crate::administrator::Administrator;
use crate::deployment::{LONG, binary};
use crate::pair::{Pair, Plan, SOURCE, TARGET, text};
use rehome_testkit::dovecot::Dovecot;
use rehome_testkit::is_left_out;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// `rehome receipt …` in a process of its own that knows no profile and no server: exit code and what it printed.
fn receipt(arguments: &[&str]) -> (i32, Value) {
    let output = Command::new(binary())
        .args(["--json", "receipt"])
        .args(arguments)
        .env_remove("REHOME_HOME")
        .env_remove("REHOME_CONFIG")
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs");
    let code = output.status.code().expect("it ends by itself");
    let said = String::from_utf8_lossy(&output.stdout);
    (code, serde_json::from_str(&said).unwrap_or(Value::Null))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Where a tenant publishes its keys, by its own server.
fn keys_path(administrator: &Administrator) -> String {
    format!("/{}/discovery/v2.0/keys", administrator.tenant)
}

/// The key documents of both, as files.
fn key_files(pair: &Pair) -> [String; 2] {
    [&pair.source, &pair.target].map(|administrator| {
        let answer = administrator.client().get(&keys_path(administrator), &[]);
        assert_eq!(answer.status, 200);
        administrator.file("keys.json", &answer.text())
    })
}

fn receipt_of(administrator: &Administrator, name: &str) -> Vec<Value> {
    let identity = format!("{name}@{}", administrator.domain);
    administrator.asks("Get-MigrationReceipt", &json!({ "Identity": identity }))
}

/// One of a folder's message files.
fn some_message(maildir: &Path) -> PathBuf {
    let files = std::fs::read_dir(maildir.join("cur"))
        .expect("the inbox is there")
        .flatten();
    let mut files: Vec<PathBuf> = files.map(|entry| entry.path()).collect();
    files.sort();
    files.pop().expect("it holds messages")
}

fn moved(pair: &mut Pair) {
    pair.starts_batch("wave-1", &["reception"], &[]);
    pair.is_synced("reception");
    pair.completes_batch("wave-1");
    pair.is_completed("reception");
}

#[test]
fn both_organisations_sign_and_anyone_can_verify() {
    let mut pair = Pair::ready(&Plan {
        mailboxes: &["reception"],
        ..Plan::default()
    });
    moved(&mut pair);

    // The same on both sides.
    let (at_source, at_target) = (
        receipt_of(&pair.source, "reception"),
        receipt_of(&pair.target, "reception"),
    );
    let (source, target) = (&at_source[0], &at_target[0]);
    assert_eq!(
        (text(source, "Side"), text(target, "Side")),
        ("source".to_owned(), "target".to_owned())
    );
    for name in [
        "Root",
        "Items",
        "Folders",
        "Bytes",
        "AttemptId",
        "SourceKeyId",
        "TargetKeyId",
        "LockMilliseconds",
    ] {
        assert_eq!(source[name], target[name], "{name}: {source} {target}");
        assert!(!source[name].is_null(), "{name}: {source}");
    }
    for one in [source, target] {
        assert_eq!(
            (&one["SignedBySource"], &one["SignedByTarget"]),
            (&json!(true), &json!(true)),
            "{one}"
        );
        assert_eq!(
            (text(one, "SourcePlatform"), text(one, "TargetPlatform")),
            ("locked".to_owned(), "locked".to_owned())
        );
    }

    // Alone: with the files, with the addresses at which keys are published, with fingerprints, and without any.
    let maildir = pair.new_maildir("reception");
    let files = pair.target_server().path("receipts");
    std::fs::create_dir(&files).expect("a folder is made");
    let file = shown(&files.join("reception.receipt"));
    let identity = format!("reception@{TARGET}");
    pair.target
        .does(&["Export-MigrationReceipt", &identity, "--out", &file]);
    let other = shown(&files.join("source.receipt"));
    let at_source = format!("reception@{SOURCE}");
    pair.source
        .does(&["Export-MigrationReceipt", &at_source, "--out", &other]);
    let octets = std::fs::read(&file).expect("it was written");
    assert_eq!(
        octets,
        std::fs::read(&other).expect("it was written"),
        "both give the same file"
    );

    let [source_keys, target_keys] = key_files(&pair);
    let keys = ["--keys", &source_keys, "--keys", &target_keys];
    let verify = |file: &str, more: &[&str]| receipt(&[&["verify", file], more].concat());
    let (code, answer) = verify(&file, &keys);
    assert_eq!(
        (code, &answer["sections"][0]["items"]),
        (0, &source["Items"]),
        "{answer}"
    );
    let url = |administrator: &Administrator| format!("https://{}{}", administrator.server, keys_path(administrator));
    let (from_source, from_target) = (url(&pair.source), url(&pair.target));
    // Each deployment of a trial has an authority of its own.
    let authorities = pair.target_server().path("both.pem");
    let mut together = std::fs::read(pair.source_server().authority()).expect("it is there");
    together.extend(std::fs::read(pair.target_server().authority()).expect("it is there"));
    std::fs::write(&authorities, together).expect("a file is written");
    let authorities = shown(&authorities);
    let published = ["--keys", &from_source, "--keys", &from_target, "--ca", &authorities];
    assert_eq!(verify(&file, &published).0, 0);
    let (one, two) = (text(source, "SourceKeyId"), text(source, "TargetKeyId"));
    assert_eq!(verify(&file, &["--fingerprint", &one, "--fingerprint", &two]).0, 0);
    assert_eq!(
        verify(&file, &["--fingerprint", &one]).0,
        4,
        "one side's signature is not checked"
    );
    let (code, answer) = verify(&file, &[]);
    assert_eq!(
        (code, &answer["sections"][0]["statements"][0]["signature"]),
        (4, &json!("not checked"))
    );

    // Any octet altered shows.
    for at in [
        0,
        octets.len() / 3,
        octets.len() / 2,
        octets.len() - 40,
        octets.len() - 1,
    ] {
        let mut altered = octets.clone();
        altered[at] ^= 1;
        let name = shown(&files.join("altered.receipt"));
        std::fs::write(&name, altered).expect("a file is written");
        assert_eq!(verify(&name, &keys).0, 3, "octet {at}");
    }

    // Against the mailbox as it is now.
    let new_place = shown(&maildir);
    let live = [&keys[..], &["--maildir", &new_place]].concat();
    let (code, answer) = verify(&file, &live);
    let now = &answer["mailbox"];
    assert_eq!((code, &now["equal"]), (0, &source["Items"]), "{now}");
    assert_eq!(
        (&now["changed"], &now["missing"], &now["added"]),
        (&json!(0), &json!(0), &json!(0)),
        "{now}"
    );

    the_message_is_proven(&pair, &maildir, &files, &keys);
    a_server_of_imap_is_compared(
        &maildir,
        &files,
        &[&["verify", &file], &keys[..]].concat(),
        &source["Items"],
    );

    // What is taken away, and what comes.
    std::fs::remove_file(some_message(&maildir)).expect("a message goes");
    std::fs::write(
        maildir.join("cur/1790000000.new.tests:2,"),
        "Subject: new\r\n\r\nnew\r\n",
    )
    .expect("one comes");
    let (code, answer) = verify(&file, &live);
    let now = &answer["mailbox"];
    assert_eq!(
        (code, &now["missing"], &now["added"]),
        (5, &json!(1), &json!(1)),
        "{now}"
    );

    // The receipt outlives user and batch, and a restart.
    pair.target.does(&["Remove-MigrationUser", &identity]);
    pair.target_server().restart();
    let again = shown(&files.join("again.receipt"));
    pair.target
        .does(&["Export-MigrationReceipt", &identity, "--out", &again]);
    assert_eq!(std::fs::read(&again).expect("it was written"), octets);
}

/// This message was moved, into this folder; one with an altered letter was not.
fn the_message_is_proven(pair: &Pair, maildir: &Path, files: &Path, keys: &[&str]) {
    let identity = format!("reception@{TARGET}");
    let message = shown(&some_message(maildir));
    let ask = |file: &str| {
        let answer = pair
            .target
            .does(&["Test-MigrationReceipt", &identity, "-MessageFile", file]);
        answer[0].clone()
    };
    let found = ask(&message);
    assert_eq!(
        (text(&found, "Result"), text(&found, "Folder")),
        ("Moved".to_owned(), "INBOX".to_owned()),
        "{found}"
    );
    let mut altered = std::fs::read(&message).expect("it is there");
    let last = altered.len() - 3;
    altered[last] ^= 1;
    let other = shown(&files.join("altered.eml"));
    std::fs::write(&other, altered).expect("a file is written");
    assert_eq!(text(&ask(&other), "Result"), "NotFound");

    let proof = shown(&files.join("message.proof"));
    pair.target.does(&[
        "Export-MigrationReceipt",
        &identity,
        "-MessageFile",
        &message,
        "--out",
        &proof,
    ]);
    let check = |message: &str| receipt(&[&["verify", &proof, "--message", message], keys].concat());
    let (code, answer) = check(&message);
    assert_eq!(
        (code, &answer["messages"][0]["folder"]),
        (0, &json!(["INBOX"])),
        "{answer}"
    );
    assert_eq!(check(&other).0, 5, "it proves another message");
    // For what is too large to be sent: by the digest, which is printed anywhere.
    let output = Command::new(binary())
        .args(["receipt", "digest", &message])
        .output()
        .expect("the binary runs");
    let digest = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let answer = pair
        .target
        .does(&["Test-MigrationReceipt", &identity, "-MessageDigest", &digest]);
    assert_eq!(text(&answer[0], "Result"), "Moved");
}

/// The same contents, served by another program.
fn a_server_of_imap_is_compared(maildir: &Path, files: &Path, verify: &[&str], items: &Value) {
    if is_left_out("dovecot") {
        return;
    }
    let mail = files.join("mail");
    std::fs::create_dir(&mail).expect("a folder is made");
    let copied = Command::new("cp")
        .args(["-a", &shown(maildir), &shown(&mail.join("reception"))])
        .status()
        .expect("cp runs");
    assert!(copied.success());
    let dovecot = Dovecot::builder(&mail).users([("reception", "a word")]).tls().start();
    dovecot.share_mail();
    let credentials = shown(&files.join("credentials.txt"));
    std::fs::write(&credentials, "reception\na word\n").expect("a file is written");
    let (server, authority) = (format!("localhost:{}", dovecot.tls_port()), shown(&dovecot.authority()));
    let more = [
        "--imap",
        &server,
        "--credentials-file",
        &credentials,
        "--ca",
        &authority,
    ];
    let (code, answer) = receipt(&[verify, &more].concat());
    let now = &answer["mailbox"];
    // Dovecot shows the octet NUL as another one, so messages that hold it are not what was moved, as it serves them.
    let altered = messages_with_nul(maildir);
    let wanted = if altered == 0 { 0 } else { 5 };
    let counts = ["equal", "missing", "added", "changed"].map(|name| now[name].as_u64());
    let equal = items.as_u64().map(|items| items - altered);
    assert_eq!(
        (code, counts),
        (wanted, [equal, Some(altered), Some(altered), Some(0)]),
        "{now}"
    );
}

fn messages_with_nul(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("a folder is read").flatten();
    let counts = entries.map(|entry| match entry.path() {
        path if path.is_dir() => messages_with_nul(&path),
        path if path.display().to_string().contains(":2,") => {
            u64::from(std::fs::read(&path).expect("a message is read").contains(&0))
        }
        _ => 0,
    });
    counts.sum()
}

#[test]
fn what_came_late_is_added_and_signed_by_the_target() {
    let mut pair = Pair::ready(&Plan {
        mailboxes: &["reception"],
        ..Plan::default()
    });
    pair.starts_batch("wave-1", &["reception"], &[]);
    pair.is_synced("reception");
    pair.target_server().kill();
    pair.target_server().start_to_die_at("target.decide", 1);
    pair.completes_batch("wave-1");
    pair.target_server().dies(LONG);
    // Behind the lock's back, after the root was made.
    let inbox = pair.source_server().path("mail/reception/cur");
    std::fs::write(inbox.join("1790000000.late.tests:2,S"), "Subject: late\r\n\r\nlate\r\n").expect("a message comes");
    pair.target_server().start();
    pair.reaches("reception", &["CompletedWithWarnings"]);

    let receipts = receipt_of(&pair.target, "reception");
    let shown_here: Vec<_> = receipts
        .iter()
        .map(|one| {
            (
                text(one, "Number"),
                one["SignedBySource"].clone(),
                one["SignedByTarget"].clone(),
            )
        })
        .collect();
    assert_eq!(
        shown_here,
        [
            ("0".to_owned(), json!(true), json!(true)),
            ("1".to_owned(), json!(false), json!(true))
        ],
        "{receipts:?}"
    );
    assert_eq!(receipts[1]["Items"], 1);
    let file = shown(&pair.target_server().path("late.receipt"));
    let identity = format!("reception@{TARGET}");
    pair.target
        .does(&["Export-MigrationReceipt", &identity, "--out", &file]);
    let [source_keys, target_keys] = key_files(&pair);
    let maildir = shown(&pair.new_maildir("reception"));
    let (code, answer) = receipt(&[
        "verify",
        &file,
        "--keys",
        &source_keys,
        "--keys",
        &target_keys,
        "--maildir",
        &maildir,
    ]);
    assert_eq!(
        (code, answer["sections"].as_array().map(Vec::len)),
        (0, Some(2)),
        "{answer}"
    );
    let all = receipts[0]["Items"].as_u64().unwrap_or_default() + 1;
    assert_eq!(
        (&answer["mailbox"]["equal"], &answer["mailbox"]["added"]),
        (&json!(all), &json!(0)),
        "{answer}"
    );
}

//! One organisation and an IMAP server where nobody runs Rehome: its accounts are copied into mailboxes in use.

use crate::administrator::Administrator;
use crate::deployment::Deployment;
use crate::pair::{MOVE, text};
use rehome_testkit::checker::{self, Account};
use rehome_testkit::dovecot::{Dovecot, PASSWORD, Subject};
use rehome_testkit::imap::Session;
use rehome_testkit::token::Endpoint;
use rehome_testkit::{is_left_out, wait};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The organisation.
const DOMAIN: &str = "fabrikam.example";
/// The account at the old server, and the folder of the mailbox here.
const USER: &str = "press";
/// His password at the old server.
const OLD_WORD: &str = "xq-The-Old-Word-qx";
/// One who is in the file with a password that is not his.
const WRONG: &str = "orders";
/// That password.
const WRONG_WORD: &str = "xq-No-Such-Word-qx";
/// Who signs in for others at the old server.
const MASTER: &str = "mover";
/// His password.
const MASTER_WORD: &str = "xq-Word-Of-The-Master-qx";

/// An old server and an organisation that copies from it.
struct World {
    dovecot: Dovecot,
    deployment: Deployment,
    administrator: Administrator,
    _mail: tempfile::TempDir,
}

/// A message of this subject.
fn message(subject: &str) -> Vec<u8> {
    format!(
        "From: press@contoso.example\r\nSubject: {subject}\r\nMessage-ID: <{subject}@contoso.example>\r\n\r\nBody of {subject}.\r\n"
    )
    .into_bytes()
}

impl World {
    fn new() -> Self {
        let mail = tempfile::tempdir().expect("a folder is made");
        let dovecot = Dovecot::builder(mail.path())
            .users([(USER, OLD_WORD), (WRONG, "another word")])
            .master(MASTER, MASTER_WORD)
            .special_use()
            .tls()
            .start();
        Self::with(mail, dovecot)
    }

    /// An organisation that has a mailbox, beside an old server with mail in a folder.
    fn with(mail: tempfile::TempDir, dovecot: Dovecot) -> Self {
        let mut deployment = Deployment::new("direct");
        deployment.settings.extra_roots.push(dovecot.authority());
        let elsewhere = SocketAddr::from(([127, 0, 0, 1], dovecot.tls_port()));
        // A name that does not stand in the certificate.
        deployment
            .settings
            .overrides
            .insert("imap.contoso.example:993".into(), elsewhere);
        deployment.configure();
        let folder = deployment.path("mail").join(USER);
        for part in ["cur", "new", "tmp"] {
            std::fs::create_dir_all(folder.join(part)).expect("a folder is made");
        }
        deployment.start();
        let administrator = deployment.tenant(DOMAIN);
        let rows = format!("EmailAddress,Name,Location\n{USER}@{DOMAIN},{USER},{USER}\n");
        let file = administrator.file("import.csv", &rows);
        administrator.does(&["Import-Mailbox", "-Platform", "mail", "-CSVData", &file]);
        Self {
            dovecot,
            deployment,
            administrator,
            _mail: mail,
        }
    }

    fn maildir(&self) -> PathBuf {
        self.deployment.path("mail").join(USER)
    }

    fn session(&self) -> Session {
        Session::login(self.dovecot.port(), USER, OLD_WORD)
    }

    /// A credentials file.
    fn credentials(&self, user: &str, password: &str) -> String {
        let credentials = json!({"UserName": user, "Password": password});
        self.administrator.file("credentials.json", &credentials.to_string())
    }

    fn user(&self, name: &str) -> Value {
        let identity = json!({"Identity": format!("{name}@{DOMAIN}")});
        self.administrator.asks("Get-MigrationUser", &identity)[0].clone()
    }

    fn reaches(&self, name: &str, status: &str) -> Value {
        wait::until(&format!("{name} is {status}"), MOVE, || {
            let user = self.user(name);
            if user["Status"] == status {
                Ok(user)
            } else {
                Err(user.to_string())
            }
        })
    }

    fn syncs_now(&self, batch: &str) {
        let before = text(&self.user(USER), "LastSuccessfulSyncTime");
        self.administrator.does(&["Set-MigrationBatch", batch, "-SyncNow"]);
        wait::until("the account is synced once more", MOVE, || {
            let user = self.user(USER);
            let again = user["Status"] == "Synced" && text(&user, "LastSuccessfulSyncTime") != before;
            if again { Ok(()) } else { Err(user.to_string()) }
        });
    }

    /// What a Dovecot finds in a copy of the mailbox: by folder and digest the flags of each message.
    fn found(&self) -> BTreeMap<(String, String), Vec<Vec<String>>> {
        let copy = tempfile::tempdir().expect("a folder is made");
        let copied = Command::new("cp")
            .arg("-a")
            .arg(self.maildir())
            .arg(copy.path())
            .status();
        assert!(copied.is_ok_and(|status| status.success()));
        let dovecot = Dovecot::builder(copy.path()).anybody().special_use().start();
        let mut found: BTreeMap<_, Vec<Vec<String>>> = BTreeMap::new();
        for line in checker::dump(&Account::login(dovecot.port(), USER, PASSWORD)) {
            if line["kind"] == "message" {
                let folder: Vec<&str> = line["folder"]
                    .as_array()
                    .expect("a path")
                    .iter()
                    .filter_map(Value::as_str)
                    .collect();
                let flags = line["flags"]
                    .as_array()
                    .expect("flags")
                    .iter()
                    .filter_map(Value::as_str);
                // Whether a session saw it first is the session's matter.
                let flags = flags.filter(|flag| !flag.eq_ignore_ascii_case("\\recent"));
                found
                    .entry((folder.join("/"), text(&line, "sha256")))
                    .or_default()
                    .push(flags.map(str::to_lowercase).collect());
            }
        }
        found
    }

    /// The mailbox holds just these: folder, subject and flags, each once.
    fn holds(&self, expected: &[(&str, &str, &[&str])]) {
        let mut wanted: BTreeMap<(String, String), Vec<Vec<String>>> = BTreeMap::new();
        for (folder, subject, flags) in expected {
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &message(subject));
            let digest: String = digest.as_ref().iter().map(|octet| format!("{octet:02x}")).collect();
            let mut flags: Vec<String> = flags.iter().map(|flag| flag.to_lowercase()).collect();
            flags.sort_unstable();
            wanted.entry(((*folder).to_owned(), digest)).or_default().push(flags);
        }
        assert_eq!(self.found(), wanted, "{expected:?}");
    }

    /// Puts a message into a folder of the mailbox as an IMAP server of the organisation would (`letters` are Maildir's),
    /// or as its MTA would (without).
    fn arrives(&self, folder: &str, subject: &str, letters: Option<&str>) {
        let maildir = self.maildir().join(folder);
        for part in ["cur", "new", "tmp"] {
            std::fs::create_dir_all(maildir.join(part)).expect("a folder is made");
        }
        let name = match letters {
            Some(letters) => format!("cur/1700000000.{subject}.host:2,{letters}"),
            None => format!("new/1700000000.{subject}.host"),
        };
        let written = maildir.join("tmp").join(subject);
        std::fs::write(&written, message(subject)).expect("a message is written");
        std::fs::rename(&written, maildir.join(name)).expect("it is delivered");
    }

    /// The file of a message in the inbox.
    fn file_of(&self, subject: &str) -> PathBuf {
        let mark = format!("Subject: {subject}");
        let mut found = Vec::new();
        for part in ["cur", "new"] {
            for entry in std::fs::read_dir(self.maildir().join(part))
                .expect("the inbox is there")
                .flatten()
            {
                let octets = std::fs::read(entry.path()).expect("a message can be read");
                if String::from_utf8_lossy(&octets).lines().any(|line| line == mark) {
                    found.push(entry.path());
                }
            }
        }
        assert_eq!(found.len(), 1, "{subject}: {found:?}");
        found.remove(0)
    }

    /// The user sets flags of a message: its file gets these letters.
    fn user_flags(&self, subject: &str, letters: &str) {
        let file = self.file_of(subject);
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        let base = name.split(":2,").next().unwrap_or(&name);
        let cur = self.maildir().join("cur").join(format!("{base}:2,{letters}"));
        std::fs::rename(&file, cur).expect("a file is renamed");
    }

    /// Who of the batch has a password in the state, as a foreign program reads it.
    fn passwords(&self) -> Value {
        let program = "import json, sqlite3, sys\n\
             rows = sqlite3.connect(sys.argv[1]).execute('SELECT remote_user, sealed_password IS NOT NULL FROM moves')\n\
             print(json.dumps({name: bool(has) for name, has in rows}))";
        let output = Command::new("python3")
            .args(["-c", program])
            .arg(self.deployment.path("data/state.sqlite"))
            .output()
            .expect("python3 is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("it prints JSON")
    }

    /// No word stands in the data folder or the log.
    fn is_silent_about(&self, words: &[&str]) {
        let mut files = vec![self.deployment.path("log")];
        files_below(&self.deployment.path("data"), &mut files);
        assert!(files.len() > 2, "{files:?}");
        for file in files {
            let octets = std::fs::read(&file).unwrap_or_default();
            for word in words {
                let says = octets.windows(word.len()).any(|window| window == word.as_bytes());
                assert!(!says, "{} has a password", file.display());
            }
        }
    }
}

fn files_below(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder can be read").flatten() {
        if entry.path().is_dir() {
            files_below(&entry.path(), files);
        } else {
            files.push(entry.path());
        }
    }
}

/// What is in the account before the first pass.
fn fills(source: &mut Session) {
    for (subject, flags) in [
        ("answered-later", "(\\Seen)"),
        ("flagged-here", ""),
        ("both", "(\\Seen)"),
        ("unread-later", "(\\Seen $Kept)"),
        ("deleted-there", "(\\Flagged)"),
        ("deleted-here", ""),
    ] {
        assert!(source.append("INBOX", flags, &message(subject)).is_ok());
    }
    for folder in ["Projects", "Projects/Old", "Projects/Left", "Junk", "Sent"] {
        source.ok(&format!("CREATE {folder}"));
    }
    for (folder, subject) in [
        ("Projects", "plan"),
        ("Projects/Old", "old"),
        ("Projects/Left", "left-out"),
        ("Junk", "unwanted"),
        ("Sent", "sent"),
    ] {
        let metadata = "(\\Seen) \"01-Feb-2020 10:00:00 +0000\"";
        assert!(source.append(folder, metadata, &message(subject)).is_ok());
    }
}

#[test]
fn accounts_with_their_own_passwords_are_copied_into_a_mailbox_in_use() {
    if is_left_out("dovecot") {
        return;
    }
    let mut world = World::new();
    fills(&mut world.session());
    world.arrives("", "own", Some("F"));
    world.arrives("", "own-new", None);
    world.arrives(".Projects", "own-plan", Some("S"));
    world.arrives(".Private", "own-private", Some(""));

    let port = world.dovecot.tls_port().to_string();
    let administrator = world.administrator.clone();
    administrator.does(&[
        "New-MigrationEndpoint",
        "-Name",
        "old",
        "-IMAP",
        "-RemoteServer",
        "127.0.0.1",
        "-Port",
        &port,
    ]);
    let rows = format!(
        "EmailAddress,UserName,Password\n{USER}@{DOMAIN},{USER},{OLD_WORD}\n{WRONG}@{DOMAIN},{WRONG},{WRONG_WORD}\n"
    );
    let file = administrator.file("rows.csv", &rows);
    let mailbox = [
        "New-Mailbox",
        "-Name",
        WRONG,
        "-MicrosoftOnlineServicesID",
        &format!("{WRONG}@{DOMAIN}"),
    ];
    administrator.does(&mailbox);
    administrator.does(&[
        "New-MigrationBatch",
        "-Name",
        "wave",
        "-SourceEndpoint",
        "old",
        "-CSVData",
        &file,
        "-ExcludeFolders",
        "#JunkEmail#,Projects/Left/*",
        "-AutoStart",
    ]);
    world.reaches(USER, "Synced");
    let refused = world.reaches(WRONG, "Failed");
    assert!(
        text(&refused, "ErrorSummary").contains("ImapAuthenticationException"),
        "{refused}"
    );
    world.holds(&[
        ("INBOX", "own", &["\\Flagged"]),
        ("INBOX", "own-new", &[]),
        ("Projects", "own-plan", &["\\Seen"]),
        ("Private", "own-private", &[]),
        ("INBOX", "answered-later", &["\\Seen"]),
        ("INBOX", "flagged-here", &[]),
        ("INBOX", "both", &["\\Seen"]),
        ("INBOX", "unread-later", &["\\Seen", "$Kept"]),
        ("INBOX", "deleted-there", &["\\Flagged"]),
        ("INBOX", "deleted-here", &[]),
        ("Projects", "plan", &["\\Seen"]),
        ("Projects/Old", "old", &["\\Seen"]),
        ("Sent", "sent", &["\\Seen"]),
    ]);

    // The user goes on at both sides, and mail arrives at both.
    let mut source = world.session();
    source.ok("SELECT INBOX");
    source.ok("STORE 1 +FLAGS (\\Answered)");
    source.ok("STORE 3 +FLAGS (\\Answered)");
    source.ok("STORE 4 -FLAGS (\\Seen)");
    source.ok("STORE 5 +FLAGS (\\Deleted)");
    source.ok("EXPUNGE");
    assert!(source.append("INBOX", "", &message("late")).is_ok());
    assert!(source.append("Junk", "", &message("unwanted-too")).is_ok());
    source.ok("CREATE New");
    assert!(source.append("New", "", &message("in-a-new-folder")).is_ok());
    world.user_flags("flagged-here", "F");
    world.user_flags("both", "FS");
    std::fs::remove_file(world.file_of("deleted-here")).expect("the user deletes it");
    world.user_flags("own", "FR");
    world.arrives("", "delivered", None);
    world.syncs_now("wave");
    let second: Vec<(&str, &str, &[&str])> = vec![
        ("INBOX", "own", &["\\Flagged", "\\Answered"]),
        ("INBOX", "own-new", &[]),
        ("Projects", "own-plan", &["\\Seen"]),
        ("Private", "own-private", &[]),
        ("INBOX", "answered-later", &["\\Seen", "\\Answered"]),
        ("INBOX", "flagged-here", &["\\Flagged"]),
        ("INBOX", "both", &["\\Seen", "\\Answered", "\\Flagged"]),
        ("INBOX", "unread-later", &["$Kept"]),
        ("INBOX", "deleted-there", &["\\Flagged"]),
        ("INBOX", "late", &[]),
        ("INBOX", "delivered", &[]),
        ("New", "in-a-new-folder", &[]),
        ("Projects", "plan", &["\\Seen"]),
        ("Projects/Old", "old", &["\\Seen"]),
        ("Sent", "sent", &["\\Seen"]),
    ];
    world.holds(&second);

    // One last pass completes him.
    assert!(source.append("INBOX", "(\\Flagged)", &message("last")).is_ok());
    world.arrives("", "delivered-too", None);
    assert_eq!(world.passwords(), json!({USER: true, WRONG: true}));
    administrator.does(&["Complete-MigrationBatch", "wave"]);
    world.reaches(USER, "Completed");
    let last: &[(&str, &str, &[&str])] = &[("INBOX", "last", &["\\Flagged"]), ("INBOX", "delivered-too", &[])];
    let all = [&second, last].concat();
    world.holds(&all);
    assert_eq!(world.passwords(), json!({USER: false, WRONG: true}));
    let figures = administrator.asks(
        "Get-MigrationUserStatistics",
        &json!({"Identity": format!("{USER}@{DOMAIN}")}),
    );
    assert_eq!(
        (&figures[0]["SyncedItemCount"], &figures[0]["SkippedItemCount"]),
        (&json!(12), &json!(0))
    );
    assert!(figures[0]["BytesOnWire"].as_u64() > figures[0]["BytesTransferred"].as_u64());

    // Nothing is taken away again, and nothing has told a password.
    administrator.does(&["Remove-MigrationBatch", "wave"]);
    wait::until("the batch is gone", MOVE, || {
        let batches = administrator.asks("Get-MigrationBatch", &json!({}));
        if batches.is_empty() {
            Ok(())
        } else {
            Err(format!("{batches:?}"))
        }
    });
    administrator.does(&["Remove-MigrationEndpoint", "old"]);
    world.holds(&all);
    let mut untouched = Vec::new();
    for line in checker::dump(&Account::login(world.dovecot.port(), USER, OLD_WORD)) {
        untouched.extend(line["messages"].as_u64());
    }
    assert_eq!(untouched.iter().sum::<u64>(), 14, "the source is as it was");
    world.deployment.stop();
    world.is_silent_about(&[OLD_WORD, WRONG_WORD]);
}

#[test]
fn a_master_signs_in_and_a_batch_that_is_removed_leaves_the_copies() {
    if is_left_out("dovecot") {
        return;
    }
    let mut world = World::new();
    assert!(world.session().append("INBOX", "(\\Seen)", &message("first")).is_ok());
    world.arrives("", "own", Some("F"));
    let (administrator, port) = (world.administrator.clone(), world.dovecot.tls_port().to_string());
    let new = |name: &str, credentials: &str, more: &[&str]| {
        let words = [
            &[
                "New-MigrationEndpoint",
                "-Name",
                name,
                "-IMAP",
                "-RemoteServer",
                "localhost",
                "-Port",
                &port,
            ][..],
            &["--credentials-file", credentials],
            more,
        ];
        administrator.run(&words.concat())
    };
    let wrong = world.credentials(MASTER, WRONG_WORD);
    let refused = new("old", &wrong, &["-TestMailbox", USER]).expect_err("the password is wrong");
    assert_eq!(refused.id, "ImapAuthenticationException");
    assert!(refused.advice.contains("-Credentials"), "{refused:?}");
    let right = world.credentials(MASTER, MASTER_WORD);
    new("proxy", &right, &["-TestMailbox", USER, "-SignIn", "Authorization"]).expect("the master acts for him");
    new("old", &right, &["-TestMailbox", USER]).expect("the master gets in");
    let nobody = new("third", &right, &["-TestMailbox", "nobody"]).expect_err("there is no such account");
    // This server lets the master in first, and breaks off then.
    assert!(nobody.advice.contains("no such account"), "{nobody:?}");

    let file = administrator.file("rows.csv", &format!("EmailAddress,UserName\n{USER}@{DOMAIN},{USER}\n"));
    let batch = [
        "New-MigrationBatch",
        "-Name",
        "wave",
        "-CSVData",
        &file,
        "-AutoStart",
        "-SourceEndpoint",
    ];
    administrator.does(&[&batch[..], &["old"]].concat());
    world.reaches(USER, "Synced");
    let both: &[(&str, &str, &[&str])] = &[("INBOX", "first", &["\\Seen"]), ("INBOX", "own", &["\\Flagged"])];
    world.holds(both);
    administrator.does(&["Remove-MigrationBatch", "wave"]);
    wait::until("the batch is gone", MOVE, || {
        let batches = administrator.asks("Get-MigrationBatch", &json!({}));
        if batches.is_empty() {
            Ok(())
        } else {
            Err(format!("{batches:?}"))
        }
    });
    world.holds(both);
    world.deployment.stop();
    world.is_silent_about(&[MASTER_WORD, WRONG_WORD]);
}

#[test]
fn what_is_wrong_with_a_server_is_said_in_words() {
    if is_left_out("dovecot") {
        return;
    }
    let world = World::new();
    let stranger_mail = tempfile::tempdir().expect("a folder is made");
    let stranger = Dovecot::builder(stranger_mail.path()).anybody().tls().start();
    let ports = [world.dovecot.tls_port(), world.dovecot.port(), stranger.tls_port(), 1].map(|p| p.to_string());
    let test = |more: &[&str]| {
        let words = [&["Test-MigrationServerAvailability", "-IMAP"][..], more].concat();
        let found = world.administrator.does(&words).remove(0);
        assert!(!found.to_string().contains(WRONG_WORD) && !found.to_string().contains(OLD_WORD));
        found
    };
    let own = |user: &str, word: &str| world.credentials(user, word);
    let near = ["-RemoteServer", "127.0.0.1", "-Port"];
    let (failed, sign_in) = (
        "MigrationServerConnectionFailedException",
        "ImapAuthenticationException",
    );
    for (port, more, id, advice) in [
        (&ports[0], vec![], "", ""),
        (&ports[1], vec!["-Security", "Tls"], "", ""),
        (&ports[1], vec!["-Security", "None"], "", ""),
        (&ports[0], vec!["--credentials-file", "right"], "", ""),
        (
            &ports[0],
            vec!["--credentials-file", "wrong"],
            sign_in,
            "UserName and Password",
        ),
        (&ports[1], vec![], failed, "-Security Ssl"),
        (&ports[2], vec![], failed, "extra_roots"),
        (&ports[3], vec![], failed, "firewall"),
    ] {
        let files = more.iter().map(|word| match *word {
            "right" => own(USER, OLD_WORD),
            "wrong" => own(USER, WRONG_WORD),
            other => other.to_owned(),
        });
        let more: Vec<String> = files.collect();
        let words: Vec<&str> = near
            .into_iter()
            .chain([port.as_str()])
            .chain(more.iter().map(String::as_str))
            .collect();
        let found = test(&words);
        assert_eq!(
            found["Result"],
            if id.is_empty() { "Success" } else { "Failed" },
            "{words:?}: {found}"
        );
        assert!(text(&found, "Message").starts_with(id), "{words:?}: {found}");
        assert!(text(&found, "ErrorDetail").contains(advice), "{words:?}: {found}");
    }
    let other_name = test(&["-RemoteServer", "imap.contoso.example"]);
    assert!(
        text(&other_name, "ErrorDetail").contains("stands in the server's certificate"),
        "{other_name}"
    );
    let unknown = test(&["-RemoteServer", "imap.contoso.invalid"]);
    assert!(text(&unknown, "Message").starts_with(failed), "{unknown}");
    world.is_silent_about(&[OLD_WORD, WRONG_WORD]);
}

#[test]
fn an_application_signs_in_with_tokens() {
    if is_left_out("dovecot") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder is made");
    let dovecot = Dovecot::builder(folder.path())
        .users([(USER, OLD_WORD)])
        .bearer_tokens(Subject::Application(MASTER.to_owned()))
        .tls()
        .start();
    let tokens = Endpoint::start(dovecot.signer(), MASTER, MASTER_WORD);
    let mut world = World::with(folder, dovecot);
    assert!(world.session().append("INBOX", "(\\Seen)", &message("first")).is_ok());
    let (administrator, port) = (world.administrator.clone(), world.dovecot.tls_port().to_string());
    let url = tokens.url();
    let new = |credentials: &str| {
        administrator.run(&[
            "New-MigrationEndpoint",
            "-Name",
            "old",
            "-IMAP",
            "-RemoteServer",
            "localhost",
            "-Port",
            &port,
            "-SignIn",
            "OAuth",
            "-OAuthTokenUrl",
            &url,
            "-TestMailbox",
            USER,
            "--credentials-file",
            credentials,
        ])
    };
    let refused = new(&world.credentials(MASTER, WRONG_WORD)).expect_err("the secret is wrong");
    assert!(!format!("{refused:?}").contains(WRONG_WORD), "{refused:?}");
    new(&world.credentials(MASTER, MASTER_WORD)).expect("the application gets in");
    let file = administrator.file("rows.csv", &format!("EmailAddress,UserName\n{USER}@{DOMAIN},{USER}\n"));
    administrator.does(&[
        "New-MigrationBatch",
        "-Name",
        "wave",
        "-CSVData",
        &file,
        "-AutoStart",
        "-AutoComplete",
        "-SourceEndpoint",
        "old",
    ]);
    world.reaches(USER, "Completed");
    world.holds(&[("INBOX", "first", &["\\Seen"])]);
    world.deployment.stop();
    world.is_silent_about(&[MASTER_WORD, WRONG_WORD]);
}

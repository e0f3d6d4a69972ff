//! Whole organisations whose mail lies on real servers: moved, cut over, and judged by a program that is not the engine.

use crate::deployment::project;
use crate::pair::{Foreign, Pair, Plan, TARGET};
use rehome_testkit::checker::{self, Account};
use rehome_testkit::cyrus::Cyrus;
use rehome_testkit::dovecot::{Dovecot, PASSWORD, Subject};
use rehome_testkit::imap::Session;
use rehome_testkit::process::PATIENCE;
use rehome_testkit::token::Endpoint;
use rehome_testkit::{is_left_out, wait};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who acts for others at either server.
pub const MOVER: &str = "mover";
/// His password.
pub const MOVER_PASSWORD: &str = "mover-word";
/// The mailbox that moves, at either server; its address begins with it too.
const USER: &str = "press";
/// His passwords at the source and at the target.
const PASSWORDS: (&str, &str) = ("old-word", "new-word");
/// One who has nothing to do with it.
const OTHER: (&str, &str) = ("orders", "orders-word");

/// A folder for mail and secrets of servers; other users may look into it.
pub fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder is made");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("it is opened to others");
    folder
}

/// A file with a secret that only we may read.
fn secret(folder: &Path, name: &str, text: &str) -> PathBuf {
    let file = folder.join(name);
    std::fs::write(&file, text).expect("a secret is written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("it is kept from others");
    file
}

/// A line of a table.
pub fn key(name: &str, value: &dyn std::fmt::Display) -> String {
    format!("{name} = {}", serde_json::json!(value.to_string()))
}

/// Lines of a platform that is a server on loopback with TLS.
fn platform(port: u16, more: &[String]) -> Vec<String> {
    let mut lines = vec![
        key("driver", &"imap"),
        key("host", &"127.0.0.1"),
        format!("port = {port}"),
        key("account", &"{alias}"),
    ];
    lines.extend_from_slice(more);
    lines
}

/// Lines of signing in for others with a password.
pub fn signs_in(folder: &Path, how: &str) -> Vec<String> {
    let password = secret(folder, &format!("{how}.password"), MOVER_PASSWORD);
    vec![
        key("sign_in", &how),
        key("user", &MOVER),
        key("password_file", &password.display()),
    ]
}

/// One of the access programs that belong to the project, with its arguments.
pub struct Access(Vec<String>);

impl Access {
    /// To a Dovecot, by its passwd-file.
    pub fn to_dovecot(dovecot: &Dovecot) -> Self {
        let (users, configuration) = (dovecot.users_file(), dovecot.configuration());
        Self::by("dovecot-passwd-file", "--passwd-file", &users, &configuration)
    }

    /// To all services of a Cyrus but `rehome`.
    fn to_cyrus(cyrus: &Cyrus) -> Self {
        Self::by(
            "cyrus-deny",
            "--services",
            Path::new("imap,imaps"),
            &cyrus.configuration(),
        )
    }

    fn by(program: &str, option: &str, value: &Path, configuration: &Path) -> Self {
        let program = project().join("packaging/access").join(program);
        let words = [
            program.as_path(),
            Path::new(option),
            value,
            Path::new("--config"),
            configuration,
        ];
        Self(words.map(|word| word.display().to_string()).to_vec())
    }

    /// Lines of the platform.
    pub fn lines(&self) -> Vec<String> {
        vec![
            "[platform.mail.access]".to_owned(),
            key("method", &"command"),
            format!("command = {}", serde_json::json!(self.0)),
        ]
    }

    /// Does it by hand; returns what was printed.
    fn does(&self, verb: &str) -> String {
        let output = Command::new(&self.0[0])
            .args(&self.0[1..])
            .args([verb, USER])
            .output()
            .expect("python3 is installed");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{verb}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Whether a user gets in.
fn is_let_in(port: u16, user: &str, password: &str) -> bool {
    Session::connect(port).plain("", user, password).is_ok()
}

/// What users do between the first copy and the cutover.
fn changes(session: &mut Session) {
    let late = b"Subject: late\r\n\r\nIn the last minute.\r\n";
    assert!(session.append("INBOX", "(\\Flagged)", late).is_ok());
    session.ok("SELECT INBOX");
    session.ok("STORE 1 +FLAGS (\\Answered $Late)");
    session.ok("STORE 2 +FLAGS (\\Deleted)");
    // Two were deleted, as one is so from the beginning.
    session.ok("EXPUNGE");
    session.ok("COPY 3:4 Trash");
    session.ok("RENAME Projects Ventures");
    session.ok("SUBSCRIBE Ventures");
    session.ok("CREATE Projects");
}

/// Both servers and how the target's platform is reached, so that one story fits all of them.
struct Story<'a> {
    source: Foreign,
    target: Foreign,
    /// Words that the target's administrator adds to the batch.
    more: &'a [&'a str],
    /// A user's port, and the account for the checker.
    at_source: (u16, Account),
    at_target: (u16, Account),
    /// Whether the source keeps its users out, and the target its own until they have moved.
    keeps_out: (bool, bool),
}

/// Copies, changes, cuts over and compares.
fn moves(story: Story<'_>) {
    let refused = checker::fill(&Account::login(story.at_source.0, USER, PASSWORDS.0), 11, 60, true);
    assert!(refused.iter().all(|line| line["delete"].is_array()), "{refused:?}");
    let mut held = Session::login(story.at_source.0, USER, PASSWORDS.0);
    let mut pair = Pair::ready(&Plan {
        mailboxes: &[USER],
        source_platform: story.source,
        target_platform: story.target,
        ..Plan::default()
    });
    pair.starts_batch("wave", &[USER], story.more);
    pair.is_synced(USER);
    if story.keeps_out.1 {
        assert!(
            !is_let_in(story.at_target.0, USER, PASSWORDS.1),
            "nobody sees a mailbox that is being filled"
        );
    }
    changes(&mut held);
    pair.syncs_now("wave", USER);
    assert!(held.append("INBOX", "", b"Subject: later\r\n\r\nx\r\n").is_ok());

    pair.completes_batch("wave");
    pair.is_completed(USER);
    pair.outbound_is(USER, "Moved");
    if story.keeps_out.0 {
        held.ends();
        assert!(
            !is_let_in(story.at_source.0, USER, PASSWORDS.0),
            "the old mailbox is closed"
        );
    }
    assert!(is_let_in(story.at_source.0, OTHER.0, OTHER.1), "others are not");
    wait::until_true("he gets into the new mailbox", PATIENCE, || {
        is_let_in(story.at_target.0, USER, PASSWORDS.1)
    });
    checker::compare(&story.at_source.1, &story.at_target.1).none();

    // A start anew opens nothing that is closed and closes nothing that is open.
    pair.source_server().restart();
    pair.target_server().restart();
    if story.keeps_out.0 {
        assert!(!is_let_in(story.at_source.0, USER, PASSWORDS.0));
    }
    assert!(is_let_in(story.at_target.0, USER, PASSWORDS.1));
}

#[test]
fn from_dovecot_by_a_master_to_cyrus_by_a_proxy() {
    if is_left_out("dovecot") || is_left_out("cyrus") {
        return;
    }
    let folder = folder();
    let mail = folder.path().join("mail");
    std::fs::create_dir(&mail).expect("a folder is made");
    let dovecot = Dovecot::builder(&mail)
        .users([(USER, PASSWORDS.0), OTHER])
        .master(MOVER, MOVER_PASSWORD)
        .special_use()
        .tls()
        .start();
    let cyrus = Cyrus::builder()
        .users([(USER, PASSWORDS.1)])
        .proxy(MOVER, MOVER_PASSWORD)
        .tls()
        .start();
    let master = [signs_in(folder.path(), "master"), Access::to_dovecot(&dovecot).lines()].concat();
    moves(Story {
        source: Foreign {
            lines: platform(dovecot.tls_port(), &master),
            authority: Some(dovecot.authority()),
        },
        target: Foreign {
            lines: platform(cyrus.tls_port(), &signs_in(folder.path(), "authzid")),
            authority: Some(cyrus.authority()),
        },
        more: &[],
        at_source: (
            dovecot.port(),
            Account::plain(dovecot.port(), USER, MOVER, MOVER_PASSWORD),
        ),
        at_target: (cyrus.port(), Account::plain(cyrus.port(), USER, MOVER, MOVER_PASSWORD)),
        keeps_out: (true, false),
    });
}

#[test]
fn from_cyrus_by_a_proxy_to_dovecot_by_a_master() {
    if is_left_out("dovecot") || is_left_out("cyrus") {
        return;
    }
    let folder = folder();
    let mail = folder.path().join("mail");
    std::fs::create_dir(&mail).expect("a folder is made");
    let dovecot = Dovecot::builder(&mail)
        .users([(USER, PASSWORDS.1)])
        .master(MOVER, MOVER_PASSWORD)
        .special_use()
        .tls()
        .start();
    let cyrus = Cyrus::builder()
        .users([(USER, PASSWORDS.0), OTHER])
        .proxy(MOVER, MOVER_PASSWORD)
        .tls()
        .side_service()
        .start();
    let proxy = [signs_in(folder.path(), "authzid"), Access::to_cyrus(&cyrus).lines()].concat();
    let master = [signs_in(folder.path(), "master"), Access::to_dovecot(&dovecot).lines()].concat();
    moves(Story {
        source: Foreign {
            lines: platform(cyrus.side_port(), &proxy),
            authority: Some(cyrus.authority()),
        },
        target: Foreign {
            lines: platform(dovecot.tls_port(), &master),
            authority: Some(dovecot.authority()),
        },
        more: &[],
        at_source: (
            cyrus.port(),
            Account::plain(cyrus.side_port(), USER, MOVER, MOVER_PASSWORD).over_tls(&cyrus.authority()),
        ),
        at_target: (
            dovecot.port(),
            Account::plain(dovecot.port(), USER, MOVER, MOVER_PASSWORD),
        ),
        keeps_out: (true, true),
    });
}

/// Takes the sizes out of a Maildir's names: some of them lie, and Dovecot believes them and cuts the message.
fn without_sizes(maildir: &Path) {
    for entry in std::fs::read_dir(maildir).expect("a folder is read") {
        let entry = entry.expect("a folder is read");
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_str().expect("names are ASCII").to_owned();
        if path.is_dir() {
            without_sizes(&path);
        } else if name == "dovecot-uidlist" {
            let list = std::fs::read_to_string(&path).expect("the list is read");
            let lines = list.lines().map(|line| line.split(",S=").next().unwrap_or(line));
            let list: String = lines.map(|line| format!("{line}\n")).collect();
            std::fs::write(&path, list).expect("the list is written");
        } else if let Some((base, rest)) = name.split_once(",S=") {
            let flags = rest
                .split_once(':')
                .map_or(String::new(), |(_, flags)| format!(":{flags}"));
            std::fs::rename(&path, maildir.join(format!("{base}{flags}"))).expect("a name is changed");
        }
    }
}

#[test]
fn from_maildirs_to_dovecot_with_tokens_of_an_application() {
    if is_left_out("dovecot") {
        return;
    }
    let folder = folder();
    let mail = folder.path().join("mail");
    std::fs::create_dir(&mail).expect("a folder is made");
    let dovecot = Dovecot::builder(&mail)
        .users([(USER, PASSWORDS.1)])
        .bearer_tokens(Subject::Application(MOVER.to_owned()))
        .special_use()
        .tls()
        .start();
    let endpoint = Endpoint::start(dovecot.signer(), MOVER, "client-secret");
    let client_secret = secret(folder.path(), "client.secret", "client-secret");
    let tokens = [
        vec![key("sign_in", &"oauth")],
        Access::to_dovecot(&dovecot).lines(),
        vec![
            "[platform.mail.oauth]".to_owned(),
            key("token_url", &endpoint.url()),
            key("client_id", &MOVER),
            key("client_secret_file", &client_secret.display()),
            key("mechanism", &"oauthbearer"),
        ],
    ]
    .concat();
    let mut pair = Pair::ready(&Plan {
        mailboxes: &[USER],
        target_platform: Foreign {
            lines: platform(dovecot.tls_port(), &tokens),
            authority: Some(dovecot.authority()),
        },
        ..Plan::default()
    });
    pair.starts_batch("wave", &[USER], &[]);
    pair.is_synced(USER);
    pair.written(USER).changes(pair.source_server(), 5);
    pair.syncs_now("wave", USER);
    pair.written(USER).changes(pair.source_server(), 6);
    pair.completes_batch("wave");
    // What an IMAP server cannot hold (an empty message, for one) is named and waits for the administrator's word.
    wait::until("he is moved", PATIENCE * 4, || {
        let user = pair.user(USER);
        if user["StatusSummary"] == "Completed" {
            return Ok(());
        }
        if user["ErrorSummary"].to_string().contains("SkippedItemsNotApproved") {
            pair.target
                .does(&["Set-MigrationBatch", "wave", "-ApproveSkippedItems"]);
        }
        Err(user.to_string())
    });
    assert!(
        (1..20).contains(&endpoint.given()),
        "tokens are kept: {}",
        endpoint.given()
    );

    // What a Dovecot finds in a copy of the Maildir.
    let copy = folder.path().join("copy");
    std::fs::create_dir(&copy).expect("a folder is made");
    let closed = pair.source_server().path("mail").join(".rehome/closed");
    let kept = std::fs::read_dir(closed)
        .expect("closed contents are kept")
        .next()
        .expect("of one mailbox")
        .expect("a folder is read");
    let copied = Command::new("cp")
        .arg("-a")
        .arg(kept.path())
        .arg(copy.join(USER))
        .status();
    assert!(copied.is_ok_and(|status| status.success()));
    without_sizes(&copy.join(USER));
    let source = Dovecot::builder(&copy).anybody().special_use().start();
    let written = Account::login(source.port(), USER, PASSWORD);
    wait::until_true("he gets into the new mailbox", PATIENCE, || {
        is_let_in(dovecot.port(), USER, PASSWORDS.1)
    });
    let differences = checker::compare(&written, &Account::bearer(dovecot.port(), USER, &dovecot.token(USER)));
    differences.only(&["lost", "altered", "flags_wrong", "dates_wrong"]);
    let report = pair.target.asks(
        "Get-MigrationUserStatistics",
        &serde_json::json!({ "Identity": format!("{USER}@{TARGET}"), "IncludeSkippedItems": true }),
    );
    let items = report[0]["SkippedItems"]
        .as_array()
        .expect("it lists what differs")
        .clone();
    for (kind, reported) in [
        ("lost", "Lost"),
        ("altered", "Altered"),
        ("flags_wrong", "Flags"),
        ("dates_wrong", "Date"),
    ] {
        let told = items
            .iter()
            .filter(|item| item["Kind"] == reported || item["ScoringClassifications"] == reported)
            .count();
        let found = differences.of_kind(kind).len();
        // Two Dovecots show NUL as the same other octet, so that the checker sees less than the report tells.
        assert!(found <= told, "{kind}: {:?} {items:#?}", differences.of_kind(kind));
        assert!(kind != "lost" || found == told, "{found} {items:#?}");
    }
}

/// What an access program must do, with a session of the user that is ended by it.
fn keeps_out_and_lets_in(access: &Access, port: u16, mover_gets_in: &dyn Fn() -> bool) {
    let mut held = Session::login(port, USER, PASSWORDS.0);
    held.ok("SELECT INBOX");
    let _bystander = Session::login(port, OTHER.0, OTHER.1);
    assert_eq!(access.does("sessions").lines().count(), 1);
    for _ in 0..2 {
        access.does("deny");
    }
    wait::until_true("he is kept out", PATIENCE, || !is_let_in(port, USER, PASSWORDS.0));
    assert!(is_let_in(port, OTHER.0, OTHER.1));
    assert!(mover_gets_in());
    access.does("kick");
    wait::until_true("his session ends", PATIENCE, || access.does("sessions").is_empty());
    held.ends();
    access.does("kick");
    for _ in 0..2 {
        access.does("allow");
    }
    wait::until_true("he gets in again", PATIENCE, || is_let_in(port, USER, PASSWORDS.0));
}

#[test]
fn the_access_programs_keep_users_out_of_real_servers() {
    if !is_left_out("dovecot") {
        let mail = folder();
        let dovecot = Dovecot::builder(mail.path())
            .users([(USER, PASSWORDS.0), OTHER])
            .master(MOVER, MOVER_PASSWORD)
            .start();
        keeps_out_and_lets_in(&Access::to_dovecot(&dovecot), dovecot.port(), &|| {
            Session::connect(dovecot.port())
                .plain(USER, MOVER, MOVER_PASSWORD)
                .is_ok()
        });
    }
    if !is_left_out("cyrus") {
        let cyrus = Cyrus::builder()
            .users([(USER, PASSWORDS.0), OTHER])
            .proxy(MOVER, MOVER_PASSWORD)
            .side_service()
            .start();
        keeps_out_and_lets_in(&Access::to_cyrus(&cyrus), cyrus.port(), &|| {
            Session::connect(cyrus.side_port())
                .plain(USER, MOVER, MOVER_PASSWORD)
                .is_ok()
        });
    }
}

//! The harnesses of real servers do what tests of other rooms take for granted.

use rehome_testkit::checker::{self, Account};
use rehome_testkit::cyrus::{Cyrus, EightBit};
use rehome_testkit::dovecot::{Dovecot, Format, Fsync, PASSWORD, Subject};
use rehome_testkit::imap::Session;
use rehome_testkit::process::PATIENCE;
use rehome_testkit::{is_left_out, wait};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const MESSAGE: &[u8] = b"From: press@contoso.example\r\nSubject: odd \xe4\rend\r\n\r\nno line end";

/// Mail is stored outside of the folder that the server has, as tests look at it there.
fn mail_root() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder is made");
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), all).expect("it is opened to others");
    folder
}

fn appends_and_reads_back(session: &mut Session) {
    let answer = session.append("INBOX", "(\\Seen) \"03-Mar-2020 10:00:00 +0100\"", MESSAGE);
    assert!(answer.is_ok(), "{}", answer.status);
    session.ok("SELECT INBOX");
    let found = session.ok("UID SEARCH ALL").text();
    let uid = found.rsplit(' ').next().and_then(|uid| uid.parse().ok());
    let uid = uid.expect("the message is found");
    assert_eq!(session.body(uid), MESSAGE);
    let metadata = session.ok(&format!("UID FETCH {uid} (FLAGS INTERNALDATE)")).text();
    assert!(
        metadata.contains("\\Seen") && metadata.contains("3-Mar-2020"),
        "{metadata}"
    );
}

#[test]
fn the_checker_sees_what_it_should() {
    let tests = Command::new("python3")
        .args(["-B", "-m", "unittest", "--quiet"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("servers"))
        .output()
        .expect("python3 is installed");
    let said = String::from_utf8_lossy(&tests.stderr);
    assert!(tests.status.success(), "{said}");
    assert!(said.contains("Ran ") && !said.contains("Ran 0 tests"), "{said}");
}

#[test]
fn dovecot_lets_in_by_each_method_and_no_other() {
    if is_left_out("dovecot") {
        return;
    }
    let root = mail_root();
    let dovecot = Dovecot::builder(root.path())
        .users([("reception", "reception-word"), ("press", "press-word")])
        .master("mover", "mover-word")
        .bearer_tokens(Subject::User)
        .tls()
        .start();
    let port = dovecot.port();

    appends_and_reads_back(&mut Session::login(port, "reception", "reception-word"));
    Session::login(port, "reception*mover", "mover-word").ok("EXAMINE INBOX");
    let tries = [
        ("", "reception", "reception-word", true),
        ("reception", "mover", "mover-word", true),
        ("press", "mover", "mover-word", true),
        ("press", "reception", "reception-word", false),
        ("", "reception", "press-word", false),
        ("", "nobody", "reception-word", false),
    ];
    for (whose, user, password, is_let_in) in tries {
        let answer = Session::connect(port).plain(whose, user, password);
        assert_eq!(answer.is_ok(), is_let_in, "{user} for {whose}: {}", answer.status);
    }

    let token = dovecot.token("reception");
    assert!(Session::connect(port).bearer("reception", &token).is_ok());
    assert!(Session::connect(port).xoauth2("reception", &token).is_ok());
    assert!(!Session::connect(port).bearer("press", &token).is_ok());
    let ended = dovecot.signer().ended_token("reception");
    assert!(!Session::connect(port).bearer("reception", &ended).is_ok());
    let mut forged = token;
    forged.push('A');
    assert!(!Session::connect(port).bearer("reception", &forged).is_ok());

    let by_login = Account::login(port, "reception", "reception-word");
    let expected = checker::dump(&by_login);
    assert!(expected.iter().any(|line| line["kind"] == "message"));
    let authority = dovecot.authority();
    let ways = [
        Account::plain(port, "reception", "mover", "mover-word"),
        Account::bearer(port, "reception", &dovecot.token("reception")),
        Account::xoauth2(port, "reception", &dovecot.token("reception")),
        by_login.clone().over_starttls(&authority),
        Account::plain(dovecot.tls_port(), "reception", "mover", "mover-word").over_tls(&authority),
    ];
    for way in ways {
        assert_eq!(checker::dump(&way), expected);
    }
}

#[test]
fn dovecot_denies_and_kicks() {
    if is_left_out("dovecot") {
        return;
    }
    let root = mail_root();
    let dovecot = Dovecot::builder(root.path())
        .users([("reception", "reception-word"), ("press", "press-word")])
        .master("mover", "mover-word")
        .start();
    let let_in = |user: &str, password: &str| Session::connect(dovecot.port()).plain("", user, password).is_ok();
    let mut held = Session::login(dovecot.port(), "reception", "reception-word");
    held.ok("SELECT INBOX");
    assert_eq!(dovecot.sessions("reception").len(), 1);
    assert!(dovecot.sessions("press").is_empty());

    dovecot.deny("reception");
    wait::until_true("a locked password keeps out", PATIENCE, || {
        !let_in("reception", "reception-word")
    });
    held.ok("NOOP");
    assert!(let_in("press", "press-word"));
    let mut mover = Session::connect(dovecot.port());
    assert!(mover.plain("reception", "mover", "mover-word").is_ok());
    drop(mover);

    dovecot.kick("reception");
    wait::until_true("the session ends", PATIENCE, || {
        dovecot.sessions("reception").is_empty()
    });
    while let Some(line) = held.line() {
        assert!(line.starts_with(b"* BYE"), "{line:?}");
    }

    dovecot.permit("reception");
    wait::until_true("the password is good again", PATIENCE, || {
        let_in("reception", "reception-word")
    });
    dovecot.set_user("orders", "orders-word");
    wait::until_true("a new user is let in", PATIENCE, || let_in("orders", "orders-word"));
    dovecot.remove_user("press");
    wait::until_true("a removed user is kept out", PATIENCE, || {
        !let_in("press", "press-word")
    });
    let users = dovecot.doveadm(&["user", "*"]);
    assert_eq!(
        users.lines().collect::<BTreeSet<_>>(),
        BTreeSet::from(["orders", "reception"])
    );
}

#[test]
fn dovecot_has_what_was_asked_for() {
    if is_left_out("dovecot") {
        return;
    }
    let root = mail_root();
    let dovecot = Dovecot::builder(root.path())
        .users([("reception", "reception-word")])
        .master("mover", "mover-word")
        .format(Format::Mdbox)
        .fsync(Fsync::Never)
        .namespace("INBOX.", '.')
        .bearer_tokens(Subject::Application("rehome".to_owned()))
        .compress()
        .acl()
        .special_use()
        .quota_kib(200)
        .lmtp()
        .disabled_capabilities(&["QRESYNC", "literal+", "MULTIAPPEND", "UIDPLUS"])
        .start();
    // A token of an application is good for every user.
    let mut session = Session::connect(dovecot.port());
    assert!(session.bearer("reception", &dovecot.token("reception")).is_ok());
    let of_another = dovecot.signer().token("another", Duration::from_secs(600));
    assert!(
        !Session::connect(dovecot.port())
            .bearer("reception", &of_another)
            .is_ok()
    );
    let claimed = session.ok("CAPABILITY").text();
    let claimed: BTreeSet<&str> = claimed.split_ascii_whitespace().collect();
    for name in [
        "COMPRESS=DEFLATE",
        "ACL",
        "SPECIAL-USE",
        "QUOTA",
        "CONDSTORE",
        "ESEARCH",
    ] {
        assert!(claimed.contains(name), "{name} is claimed in {claimed:?}");
    }
    for name in ["QRESYNC", "LITERAL+", "MULTIAPPEND", "UIDPLUS"] {
        assert!(!claimed.contains(name), "{name} is not claimed in {claimed:?}");
    }
    assert!(session.ok("NAMESPACE").text().contains("((\"INBOX.\" \".\")) NIL NIL"));
    session.ok("CREATE INBOX.Sent");
    assert!(session.ok("LIST \"\" \"*\"").text().contains("\\Sent"));
    assert!(session.ok("GETQUOTAROOT INBOX").text().contains("(STORAGE 0 200)"));
    assert!(!session.append("INBOX", "", &[b'x'; 300 * 1024]).is_ok());
    session.ok("SETACL INBOX.Sent press lr");
    appends_and_reads_back(&mut session);
    // A master has the user's rights.
    let mut mover = Session::login(dovecot.port(), "reception*mover", "mover-word");
    assert!(mover.append("INBOX.Sent", "", MESSAGE).is_ok());
    assert!(root.path().join("reception/storage").is_dir());

    deliver(dovecot.lmtp_port(), "reception@contoso.example");
    session.ok("NOOP");
    let found = session.ok("STATUS INBOX (MESSAGES)").text();
    assert!(found.contains("(MESSAGES 2)"), "{found}");
}

/// One message by LMTP, with Python's own client.
fn deliver(port: u16, recipient: &str) {
    let script = "import smtplib, sys\nwith smtplib.LMTP('127.0.0.1', int(sys.argv[1])) as lmtp:\n    \
                  lmtp.sendmail('press@contoso.example', [sys.argv[2]], 'Subject: delivered\\r\\n\\r\\nx\\r\\n')\n";
    let sent = Command::new("python3")
        .args(["-c", script, &port.to_string(), recipient])
        .status();
    assert!(sent.is_ok_and(|status| status.success()));
}

#[test]
fn anybody_gets_into_the_plain_dovecot() {
    if is_left_out("dovecot") {
        return;
    }
    let root = mail_root();
    let dovecot = Dovecot::start_with(root.path(), "mail_max_keyword_length = 40");
    appends_and_reads_back(&mut Session::login(dovecot.port(), "anyone", PASSWORD));
    assert!(root.path().join("anyone/cur").is_dir());
}

#[test]
fn cyrus_lets_in_by_each_method_and_no_other() {
    if is_left_out("cyrus") {
        return;
    }
    let cyrus = Cyrus::builder()
        .users([("reception", "reception-word"), ("press", "press-word")])
        .proxy("mover", "mover-word")
        .tls()
        .start();
    let port = cyrus.port();
    let mut session = Session::login(port, "reception", "reception-word");
    appends_and_reads_back(&mut session);
    let tries = [
        ("", "reception", "reception-word", true),
        ("reception", "mover", "mover-word", true),
        ("press", "mover", "mover-word", true),
        ("press", "reception", "reception-word", false),
        ("", "reception", "press-word", false),
        ("", "nobody", "reception-word", false),
    ];
    for (whose, user, password, is_let_in) in tries {
        let answer = Session::connect(port).plain(whose, user, password);
        assert_eq!(answer.is_ok(), is_let_in, "{user} for {whose}: {}", answer.status);
    }
    let by_login = Account::login(port, "reception", "reception-word");
    let expected = checker::dump(&by_login);
    assert!(expected.iter().any(|line| line["kind"] == "message"));
    let authority = cyrus.authority();
    let ways = [
        by_login.over_starttls(&authority),
        Account::plain(cyrus.tls_port(), "reception", "mover", "mover-word").over_tls(&authority),
    ];
    for way in ways {
        assert_eq!(checker::dump(&way), expected);
    }
}

#[test]
fn cyrus_denies_restricts_and_kicks() {
    if is_left_out("cyrus") {
        return;
    }
    let cyrus = Cyrus::builder()
        .users([("reception", "reception-word")])
        .proxy("mover", "mover-word")
        .start();
    let mut held = Session::login(cyrus.port(), "reception", "reception-word");
    held.ok("SELECT INBOX");
    assert!(held.append("INBOX", "", MESSAGE).is_ok());
    let sessions = cyrus.sessions("reception");
    assert_eq!(sessions.len(), 1, "{sessions:?}");

    // Without the rights to insert and to delete, nothing changes any more, also in sessions that were there.
    cyrus.set_acl("reception", "", "reception", "lrs");
    let refused = held.append("INBOX", "", MESSAGE);
    assert!(!refused.is_ok(), "{}", refused.status);
    let listed = cyrus.cyradm("listacl user/reception\n");
    assert!(listed.contains("reception lrs"), "{listed}");
    cyrus.set_acl("reception", "", "reception", "lrswipkxtecdan");
    assert!(held.append("INBOX", "", MESSAGE).is_ok());

    cyrus.deny("reception");
    assert!(
        !Session::connect(cyrus.port())
            .plain("", "reception", "reception-word")
            .is_ok()
    );
    let mut mover = Session::connect(cyrus.port());
    assert!(mover.plain("reception", "mover", "mover-word").is_ok());
    drop(mover);
    cyrus.kick("reception");
    wait::until_true("the sessions end", PATIENCE, || cyrus.sessions("reception").is_empty());
    cyrus.set_password("reception", "another-word");
    let mut again = Session::login(cyrus.port(), "reception", "another-word");

    cyrus.set_quota_kib("reception", 100);
    assert!(again.ok("GETQUOTAROOT INBOX").text().contains(" 100)"));
    let large = [MESSAGE, &[b'x'; 150 * 1024]].concat();
    let refused = again.append("INBOX", "", &large).status;
    assert_eq!(refused, "NO Over quota", "without the code of RFC 5530");
    cyrus.create_user("orders", "orders-word");
    appends_and_reads_back(&mut Session::login(cyrus.port(), "orders", "orders-word"));
}

#[test]
fn cyrus_treats_eight_bit_headers_as_chosen() {
    if is_left_out("cyrus") {
        return;
    }
    let message = "Subject: Gr\u{fc}\u{df}e\r\n\r\nx\r\n".as_bytes();
    for (choice, expected) in [
        (EightBit::Kept, Some(message)),
        (EightBit::Replaced, Some(b"Subject: GrXXXXe\r\n\r\nx\r\n".as_slice())),
        (EightBit::Refused, None),
    ] {
        let cyrus = Cyrus::builder()
            .users([("reception", "reception-word")])
            .eight_bit(choice)
            .dots()
            .start();
        let mut session = Session::login(cyrus.port(), "reception", "reception-word");
        assert!(session.ok("NAMESPACE").text().contains("((\"INBOX.\" \".\"))"));
        let answer = session.append("INBOX", "", message);
        assert_eq!(answer.is_ok(), expected.is_some(), "{}", answer.status);
        if let Some(expected) = expected {
            session.ok("SELECT INBOX");
            assert_eq!(session.body(1), expected);
        }
    }
}

#[test]
fn what_fills_accounts_makes_two_equal_ones_and_the_checker_sees_one_change() {
    if is_left_out("dovecot") || is_left_out("cyrus") {
        return;
    }
    let root = mail_root();
    let dovecot = Dovecot::builder(root.path())
        .users([("reception", "reception-word"), ("odd", "odd-word")])
        .special_use()
        .start();
    let cyrus = Cyrus::builder()
        .users([("reception", "reception-word"), ("odd", "odd-word")])
        .start();
    let source = Account::login(dovecot.port(), "reception", "reception-word");
    let target = Account::login(cyrus.port(), "reception", "reception-word");
    let odd = [dovecot.port(), cyrus.port()].map(|port| Account::login(port, "odd", "odd-word"));
    std::thread::scope(|scope| {
        for account in [&source, &target] {
            scope.spawn(|| {
                let refused = checker::fill(account, 7, 40, true);
                // The servers are of two minds about a folder that goes before its children.
                assert!(
                    refused.iter().all(|line| line["delete"].is_array()),
                    "nothing else is refused: {refused:?}"
                );
            });
        }
        for account in &odd {
            scope.spawn(|| {
                let refused = checker::fill(account, 7, 5, false);
                assert!(refused.iter().any(|line| line["append"] == "no octets"), "{refused:?}");
                assert!(checker::dump(account).len() > 100);
            });
        }
    });
    checker::compare(&source, &target).none();

    let mut session = Session::login(cyrus.port(), "reception", "reception-word");
    session.ok("SELECT INBOX");
    session.ok("STORE 1 +FLAGS (\\Answered)");
    session.ok("UNSUBSCRIBE INBOX");
    let differences = checker::compare(&source, &target);
    differences.only(&["flags_wrong", "subscriptions_wrong"]);
    assert_eq!(differences.of_kind("flags_wrong").len(), 1);
    assert_eq!(differences.of_kind("subscriptions_wrong").len(), 1);
}

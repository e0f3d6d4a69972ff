//! Commands as they are sent.

use super::*;
use crate::flags::Flags;
use secrecy::SecretString;

fn written(command: Command) -> String {
    let mut client = greeted();
    client.set_literals(Literals::Plus);
    client.send(command);
    sent(&mut client)
}

fn check(command: Command, expected: &str) {
    let name = command.name();
    assert_eq!(written(command), format!("A1 {expected}\r\n"));
    assert!(expected.starts_with(name));
}

fn inbox() -> MailboxName {
    MailboxName::new("INBOX")
}

#[test]
fn plain_commands() {
    check(Command::capability(), "CAPABILITY");
    check(Command::noop(), "NOOP");
    check(Command::logout(), "LOGOUT");
    check(Command::id(&[]), "ID NIL");
    check(
        Command::id(&[("name", "Rehome 1"), ("os", "x")]),
        "ID (name \"Rehome 1\" os x)",
    );
    check(Command::start_tls(), "STARTTLS");
    check(Command::unauthenticate(), "UNAUTHENTICATE");
    check(
        Command::enable(&["QRESYNC", "UTF8=ACCEPT"]),
        "ENABLE QRESYNC UTF8=ACCEPT",
    );
    check(Command::compress(), "COMPRESS DEFLATE");
    check(Command::namespace(), "NAMESPACE");
    check(Command::unselect(), "UNSELECT");
    check(Command::close(), "CLOSE");
    check(Command::expunge(), "EXPUNGE");
    check(Command::delete(&inbox()), "DELETE INBOX");
    check(Command::subscribe(&"a b".into()), "SUBSCRIBE \"a b\"");
    check(Command::unsubscribe(&"Entwürfe".into()), "UNSUBSCRIBE \"Entw&APw-rfe\"");
    check(Command::rename(&"a".into(), &"a/b".into()), "RENAME a a/b");
    check(Command::create(&"a".into(), &[]), "CREATE a");
    check(
        Command::create(&"a".into(), &[ListAttribute::Sent, ListAttribute::Archive]),
        "CREATE a (USE (\\Sent \\Archive))",
    );
    check(Command::get_quota_root(&inbox()), "GETQUOTAROOT INBOX");
    check(Command::get_acl(&inbox()), "GETACL INBOX");
    check(Command::my_rights(&inbox()), "MYRIGHTS INBOX");
    check(Command::set_acl(&inbox(), "press", ""), "SETACL INBOX press \"\"");
    check(
        Command::delete_acl(&inbox(), "group:a b"),
        "DELETEACL INBOX \"group:a b\"",
    );
    check(
        Command::get_metadata(&"".into(), &["/private", "/shared/comment"], 1024),
        "GETMETADATA (MAXSIZE 1024 DEPTH infinity) \"\" (/private /shared/comment)",
    );
    check(
        Command::set_metadata(
            &inbox(),
            &[
                ("/private/a", Some(b"1\r\n2")),
                ("/private/b", None),
                ("/private/c", Some(b"\0")),
            ],
        ),
        "SETMETADATA INBOX (/private/a {4+}\r\n1\r\n2 /private/b NIL /private/c ~{1+}\r\n\0)",
    );
}

#[test]
fn signing_in() {
    check(
        Command::login("press", &SecretString::from("a\"b")),
        "LOGIN press \"a\\\"b\"",
    );
    check(
        Command::login("pröss", &SecretString::from("")),
        "LOGIN {6+}\r\npröss \"\"",
    );
    let credentials = Credentials {
        user: "press".to_owned(),
        acting_for: None,
        secret: SecretString::from("x".repeat(3000)),
        server: None,
    };
    let mut sasl = Sasl::new(Mechanism::XOAuth2, &credentials, "").unwrap();
    let initial = sasl.initial().unwrap();
    let line = written(Command::authenticate("XOAUTH2", Some(&initial)));
    assert!(line.starts_with("A1 AUTHENTICATE XOAUTH2 dXNlcj1wcmVzc") && line.len() > 4000 && !line.contains('{'));
    check(Command::authenticate("PLAIN", None), "AUTHENTICATE PLAIN");
    let empty = sasl::Response::new(Vec::new());
    check(
        Command::authenticate("EXTERNAL", Some(&empty)),
        "AUTHENTICATE EXTERNAL =",
    );
    let shown = format!("{:?}", Command::login("press", &SecretString::from("hidden")));
    assert_eq!(shown, "Command(LOGIN)");
}

#[test]
fn listing() {
    let plain = ListOptions::default();
    check(Command::list(&"".into(), &["*"], &plain), "LIST \"\" \"*\"");
    check(
        Command::list(&"".into(), &["%", "Entwürfe/*"], &plain),
        "LIST \"\" (\"%\" \"Entw&APw-rfe/*\")",
    );
    check(Command::lsub(&"".into(), "*"), "LSUB \"\" \"*\"");
    let all = ListOptions {
        only: SubscribedOnly::WithParents,
        subscribed: true,
        children: true,
        special_use: true,
        status: Some(StatusItems::BASIC),
    };
    check(
        Command::list(&"".into(), &["*"], &all),
        "LIST (SUBSCRIBED RECURSIVEMATCH) \"\" \"*\" RETURN (SUBSCRIBED CHILDREN SPECIAL-USE STATUS (MESSAGES UIDNEXT \
         UIDVALIDITY))",
    );
    let subscribed = ListOptions {
        only: SubscribedOnly::Yes,
        ..plain
    };
    check(
        Command::list(&"".into(), &["*"], &subscribed),
        "LIST (SUBSCRIBED) \"\" \"*\"",
    );
    let items = StatusItems {
        messages: false,
        unseen: true,
        highest_mod_seq: true,
        mailbox_id: true,
        guid: true,
        size: true,
        deleted: true,
        append_limit: true,
        ..StatusItems::BASIC
    };
    check(
        Command::status(&inbox(), items),
        "STATUS INBOX (UIDNEXT UIDVALIDITY UNSEEN HIGHESTMODSEQ MAILBOXID X-GUID SIZE DELETED APPENDLIMIT)",
    );
}

#[test]
fn selecting() {
    check(
        Command::select(&inbox(), SelectMode::ReadWrite, Sync::None),
        "SELECT INBOX",
    );
    check(
        Command::select(&inbox(), SelectMode::ReadOnly, Sync::CondStore),
        "EXAMINE INBOX (CONDSTORE)",
    );
    let set = uids(&[(1, 9), (12, 12)]);
    let empty = uids(&[]);
    for (known, text) in [(None, ""), (Some(&empty), ""), (Some(&set), " 1:9,12")] {
        let sync = Sync::QResync {
            uid_validity: 67890007,
            mod_seq: 90060115194045000,
            known,
        };
        check(
            Command::select(&inbox(), SelectMode::ReadWrite, sync),
            &format!("SELECT INBOX (QRESYNC (67890007 90060115194045000{text}))"),
        );
    }
}

#[test]
fn messages() {
    let set = uids(&[(1, 3), (7, 7)]);
    let all = FetchItems {
        flags: true,
        internal_date: true,
        size: true,
        mod_seq: true,
        email_id: true,
        guid: true,
        body: None,
    };
    check(
        Command::uid_fetch(Uids::From(0), &all, FetchChanges::All),
        "UID FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE MODSEQ EMAILID X-GUID)",
    );
    let body = |body| FetchItems {
        body: Some(body),
        ..FetchItems::default()
    };
    for (request, text) in [
        (BodyRequest::Whole, "BODY.PEEK[]"),
        (BodyRequest::Stretch { from: 5, count: 10 }, "BODY.PEEK[]<5.10>"),
        (BodyRequest::Header, "BODY.PEEK[HEADER]"),
        (
            BodyRequest::HeaderFields(&["SUBJECT", "DATE"]),
            "BODY.PEEK[HEADER.FIELDS (SUBJECT DATE)]",
        ),
    ] {
        check(
            Command::uid_fetch(&set, &body(request), FetchChanges::All),
            &format!("UID FETCH 1:3,7 (UID {text})"),
        );
    }
    let none = FetchItems::default();
    check(
        Command::uid_fetch(&set, &none, FetchChanges::Since(7)),
        "UID FETCH 1:3,7 (UID) (CHANGEDSINCE 7)",
    );
    check(
        Command::uid_fetch(&set, &none, FetchChanges::SinceWithVanished(7)),
        "UID FETCH 1:3,7 (UID) (CHANGEDSINCE 7 VANISHED)",
    );
    let returning = SearchReturn {
        all: true,
        count: true,
        min: false,
        max: false,
    };
    check(Command::uid_search(&[SearchKey::All], None), "UID SEARCH ALL");
    let keys = [
        SearchKey::Uids(Uids::Set(&set)),
        SearchKey::Deleted,
        SearchKey::Undeleted,
        SearchKey::ModSeq(9),
        SearchKey::Smaller(1),
        SearchKey::Larger(2),
    ];
    check(
        Command::uid_search(&keys, Some(returning)),
        "UID SEARCH RETURN (ALL COUNT) UID 1:3,7 DELETED UNDELETED MODSEQ 9 SMALLER 1 LARGER 2",
    );
    let flags = Flags::from_names(["$Work", "\\Seen"]);
    check(
        Command::uid_store(&set, StoreMode::Add, &flags, None),
        "UID STORE 1:3,7 +FLAGS.SILENT (\\Seen $Work)",
    );
    check(
        Command::uid_store(&set, StoreMode::Remove, &flags, Some(12)),
        "UID STORE 1:3,7 (UNCHANGEDSINCE 12) -FLAGS.SILENT (\\Seen $Work)",
    );
    check(
        Command::uid_store(&set, StoreMode::Replace, &Flags::default(), None),
        "UID STORE 1:3,7 FLAGS.SILENT ()",
    );
    check(Command::uid_copy(&set, &"a b".into()), "UID COPY 1:3,7 \"a b\"");
    check(Command::uid_move(&set, &"a".into()), "UID MOVE 1:3,7 a");
    check(Command::uid_expunge(&set), "UID EXPUNGE 1:3,7");
}

#[test]
fn append() {
    let flags = Flags::from_names(["\\Seen"]);
    let none = Flags::default();
    let item = |body, flags, internal_date, form| AppendItem {
        flags,
        internal_date,
        body,
        length: 100 + body,
        form,
    };
    let items = [
        item(1, &flags, Some(837_596_665), AppendForm::Literal),
        item(2, &none, None, AppendForm::Literal8),
        item(3, &none, Some(0), AppendForm::Utf8),
    ];
    check(
        Command::append(&"a b".into(), &items),
        "APPEND \"a b\" (\\Seen) \"17-Jul-1996 09:44:25 +0000\" {101+}\r\n<1:101> ~{102+}\r\n<2:102> \" 1-Jan-1970 \
         00:00:00 +0000\" UTF8 (~{103+}\r\n<3:103>)",
    );
}

#[test]
fn strings_are_quoted_as_they_need() {
    let rows: &[(&str, &str, &str)] = &[
        ("a", "a", "a"),
        ("", "\"\"", "\"\""),
        ("nil", "\"nil\"", "\"nil\""),
        ("123", "123", "123"),
        ("a b", "\"a b\"", "\"a b\""),
        ("a\"b\\c", "\"a\\\"b\\\\c\"", "\"a\\\"b\\\\c\""),
        ("(a)", "\"(a)\"", "\"(a)\""),
        ("{5}", "\"{5}\"", "\"{5}\""),
        ("[Gmail]/a%*", "\"[Gmail]/a%*\"", "\"[Gmail]/a%*\""),
        ("ü", "\"&APw-\"", "\"ü\""),
        ("R&D", "\"R&-D\"", "\"R&D\""),
        ("a\r\nb", "\"a&AA0ACg-b\"", "{4+}\r\na\r\nb"),
        ("a\0", "\"a&AAA-\"", "~{2+}\r\na\0"),
    ];
    for (name, utf7, utf8) in rows {
        check(Command::delete(&(*name).into()), &format!("DELETE {utf7}"));
        let mut client = greeted();
        client.set_literals(Literals::Plus);
        client.set_names(NameEncoding::Utf8);
        client.send(Command::delete(&(*name).into()));
        assert_eq!(sent(&mut client), format!("A1 DELETE {utf8}\r\n"), "{name:?}");
    }
    let raw = MailboxName::from_wire(b"caf\xe9", NameEncoding::ModifiedUtf7);
    for names in [NameEncoding::ModifiedUtf7, NameEncoding::Utf8] {
        let mut client = greeted();
        client.set_literals(Literals::Plus);
        client.set_names(names);
        client.send(Command::delete(&raw));
        assert_eq!(
            client.output(),
            Some(Output::Octets(Bytes::from_static(b"A1 DELETE {4+}\r\ncaf\xe9\r\n")))
        );
    }
    let long = "x".repeat(1001);
    check(
        Command::delete(&long.as_str().into()),
        &format!("DELETE {{1001+}}\r\n{long}"),
    );
}

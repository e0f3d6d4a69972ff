//! One response each.

use super::*;
use crate::flags::Flags;

fn name(text: &str) -> MailboxName {
    MailboxName::new(text)
}

#[test]
fn greetings() {
    for (line, condition) in [
        ("* OK [CAPABILITY IMAP4rev1] ready", Condition::Ok),
        ("* PREAUTH hello", Condition::PreAuth),
        ("* bye too busy", Condition::Bye),
        ("*  OK", Condition::Ok),
    ] {
        let mut client = Client::new();
        client.feed(Bytes::from(format!("\r\n{line}\r\n")));
        let Ok(Some(Event::Greeting(answer))) = client.event() else {
            panic!("{line}");
        };
        assert_eq!(answer.condition, condition);
    }
    for line in [
        "HTTP/1.1 400 Bad Request",
        "* NO",
        "* CAPABILITY IMAP4rev1",
        "A1 OK",
        "+ go",
        "\x15\x03\x01",
    ] {
        let mut client = Client::new();
        client.feed(Bytes::from(format!("{line}\r\n")));
        let error = client.event().unwrap_err();
        assert_eq!(error, ProtocolError::NoGreeting(line.to_owned()));
        assert_eq!(client.event(), Err(error), "an error stays");
    }
}

#[test]
fn status_responses() {
    let Event::Untagged(answer) = event("* no [overquota]  No room ") else {
        panic!();
    };
    assert_eq!(
        (answer.condition, answer.code.as_ref()),
        (Condition::No, Some(&Code::OverQuota))
    );
    assert_eq!(answer.text, "No room");
    assert_eq!(answer.to_string(), "NO [OVERQUOTA] No room");
    // What looks like a literal in a text is none, nor is a bracket that does not close a code.
    for text in ["wait {5}", "[unclosed", "[]", "[ ] x", "* x {99999999999999999999}"] {
        let Event::Untagged(answer) = event(&format!("* BYE {text}")) else {
            panic!("{text}");
        };
        assert_eq!((answer.code, answer.text.as_str()), (None, text));
    }
    let Event::Untagged(long) = event(&format!("* BAD {}", "é".repeat(5000))) else {
        panic!();
    };
    assert!(long.text.len() <= MAX_TEXT && long.text.starts_with("éé"));
}

#[test]
fn back_off_is_read_from_texts() {
    for (text, seconds) in [
        ("Request is throttled. Suggested Backoff Time: 299961 ms", Some(300)),
        ("suggested backoff time: 1 milliseconds", Some(1)),
        ("Suggested Backoff Time: 99999999999999", Some(86_400)),
        ("Suggested Backoff Time: 999999999999999999999", None),
        ("Suggested Backoff Time: soon", None),
        ("slow down", None),
    ] {
        let answer = Answer {
            condition: Condition::No,
            code: None,
            text: text.to_owned(),
        };
        assert_eq!(answer.back_off_seconds(), seconds, "{text}");
    }
}

#[test]
fn codes_without_arguments() {
    let codes = [
        Code::Alert,
        Code::AlreadyExists,
        Code::AuthenticationFailed,
        Code::AuthorizationFailed,
        Code::BadCharset,
        Code::Cannot,
        Code::ClientBug,
        Code::Closed,
        Code::CompressionActive,
        Code::ContactAdmin,
        Code::Corruption,
        Code::Expired,
        Code::ExpungeIssued,
        Code::HasChildren,
        Code::InUse,
        Code::Limit,
        Code::NoModSeq,
        Code::NonExistent,
        Code::NoPerm,
        Code::NotSaved,
        Code::OverQuota,
        Code::Parse,
        Code::PrivacyRequired,
        Code::ReadOnly,
        Code::ReadWrite,
        Code::ServerBug,
        Code::Throttled,
        Code::TooBig,
        Code::TryCreate,
        Code::UidNotSticky,
        Code::Unavailable,
        Code::UnknownCte,
        Code::UseAttr,
    ];
    for expected in codes {
        let name = expected.name().to_owned();
        assert_eq!(code(&format!("[{name}] text")).as_ref(), Some(&expected));
        assert_eq!(code(&format!("[{}]", name.to_lowercase())).as_ref(), Some(&expected));
        assert_eq!(
            code(&format!("[{name} (\"a]\" b) 5] text")).as_ref(),
            Some(&expected),
            "arguments are passed over"
        );
    }
}

#[test]
fn codes_with_arguments() {
    let ordered = |text: &str| set::parse_ordered(text.as_bytes()).unwrap();
    let other = |name: &str, arguments: &str| Code::Other {
        name: name.to_owned(),
        arguments: arguments.to_owned(),
    };
    let rows = [
        (
            "[APPENDUID 38505 3955]",
            Code::AppendUid {
                uid_validity: 38505,
                uids: ordered("3955"),
            },
        ),
        (
            "[AppendUid 1 7:9,3] done",
            Code::AppendUid {
                uid_validity: 1,
                uids: ordered("7:9,3"),
            },
        ),
        (
            "[COPYUID 38505 304,319:320 3956:3958] Done",
            Code::CopyUid {
                uid_validity: 38505,
                from: ordered("304,319:320"),
                to: ordered("3956:3958"),
            },
        ),
        ("[HIGHESTMODSEQ 715194045007]", Code::HighestModSeq(715_194_045_007)),
        (
            "[MAILBOXID (F2212ea87-6097)] ok",
            Code::MailboxId("F2212ea87-6097".to_owned()),
        ),
        (
            "[METADATA LONGENTRIES 2199]",
            Code::Metadata(MetadataRefusal::LongEntries(2199)),
        ),
        (
            "[METADATA MAXSIZE 1024]",
            Code::Metadata(MetadataRefusal::MaxSize(1024)),
        ),
        ("[METADATA TOOMANY]", Code::Metadata(MetadataRefusal::TooMany)),
        ("[METADATA NOPRIVATE]", Code::Metadata(MetadataRefusal::NoPrivate)),
        ("[MODIFIED 7,9] failed", Code::Modified(uids(&[(7, 7), (9, 9)]))),
        (
            "[PERMANENTFLAGS (\\Seen $Work a]b \\*)] ok",
            Code::PermanentFlags {
                flags: Flags::from_names(["\\Seen", "$Work", "a]b"]),
                new_keywords: true,
            },
        ),
        (
            "[PERMANENTFLAGS ()]",
            Code::PermanentFlags {
                flags: Flags::default(),
                new_keywords: false,
            },
        ),
        (
            "[REFERRAL imap://press@fabrikam.example/INBOX] moved",
            Code::Referral("imap://press@fabrikam.example/INBOX".to_owned()),
        ),
        ("[UIDNEXT 4392]", Code::UidNext(4392)),
        ("[UIDVALIDITY 0]", Code::UidValidity(0)),
        ("[UNSEEN 12] first", Code::Unseen(12)),
        ("[UIDVALIDITY 4294967296]", other("UIDVALIDITY", "4294967296")),
        ("[UIDNEXT]", other("UIDNEXT", "")),
        ("[COPYUID 1 *:4 5] x", other("COPYUID", "1 *:4 5")),
        ("[X-New  \"a]b\" c ] text", other("X-NEW", "\"a]b\" c")),
        ("[X-New \"a] text", other("X-NEW", "\"a")),
    ];
    for (text, expected) in rows {
        assert_eq!(code(text), Some(expected), "{text}");
    }
    let Some(Code::Capability(found)) = code("[CAPABILITY IMAP4rev1 LITERAL+ X]Y] ready") else {
        panic!();
    };
    assert!(found.literal_plus && found.has("X"));
}

#[test]
fn capabilities_and_enabled() {
    let Event::Capability(found) = event("* CAPABILITY IMAP4rev1  STARTTLS AUTH=PLAIN ") else {
        panic!();
    };
    assert!(found.start_tls && found.has_mechanism("plain"));
    assert_eq!(
        event("* ENABLED condstore QRESYNC"),
        Event::Enabled(vec!["CONDSTORE".to_owned(), "QRESYNC".to_owned()])
    );
    assert_eq!(event("* ENABLED"), Event::Enabled(vec![]));
}

fn listed(line: &str) -> Listed {
    match event(line) {
        Event::List(listed) | Event::Lsub(listed) => *listed,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn list() {
    let found = listed(r#"* LIST (\HasNoChildren \Sent \X-New) "/" "Entw&APw-rfe""#);
    assert_eq!(found.name, name("Entwürfe"));
    assert_eq!(found.delimiter, Some('/'));
    assert!(found.attributes.contains(ListAttribute::Sent) && found.attributes.is_selectable());
    assert_eq!(found.attributes.iter().count(), 2);

    let rows = [
        (r#"* LIST () "/" 123"#, "123"),
        (r#"* list ()  "."   INBOX.Sent "#, "INBOX.Sent"),
        (r#"* LIST () nil flat"#, "flat"),
        (r#"* LIST () NIL NIL"#, "NIL"),
        (r#"* LSUB () "/" "a\"b\\c""#, "a\"b\\c"),
        (r#"* LIST () "/" [Gmail]/All"#, "[Gmail]/All"),
        (r#"* LIST () "/" ~peter/%*"#, "~peter/%*"),
        (r#"* LIST () "/" """#, ""),
        (r#"* LIST () "/" {x"#, "{x"),
        ("* LIST () \"/\" {5}\r\na b c", "a b c"),
        ("* LIST () \"/\" ~{4}\r\na{5}", "a{5}"),
        ("* LIST () \"/\" {0}\r\n", ""),
    ];
    for (line, expected) in rows {
        assert_eq!(listed(line).name, name(expected), "{line}");
    }
    assert_eq!(listed(r#"* LIST () "\\" a"#).delimiter, Some('\\'));
    assert_eq!(listed(r#"* LIST () NIL a"#).delimiter, None);

    let raw = events(b"* LIST (\\Noselect) \"/\" \"Entw\xfcrfe\"\r\n").unwrap();
    let [Event::List(found)] = raw.as_slice() else {
        panic!("{raw:?}");
    };
    assert!(found.name.is_raw() && !found.attributes.is_selectable());
    assert_eq!(&*found.name.to_wire(NameEncoding::ModifiedUtf7), b"Entw\xfcrfe");

    let found = listed(r#"* LIST () "/" b ("CHILDINFO" ("SUBSCRIBED") X (1 (2 "3)")) OLDNAME ("a"))"#);
    assert!(found.child_info);
    assert_eq!(found.old_name, Some(name("a")));

    for line in [
        "* LIST",
        "* LIST ()",
        "* LIST () \"/\"",
        "* LIST (\\Sent \"/\" a",
        "* LIST () \"ab\" a",
        "* LIST () \"/\" Sent Items",
        "* LIST () \"/\" \"a",
        "* LIST () \"/\" a (OLDNAME",
        "* LIST \"/\" a",
    ] {
        is_malformed(line, "LIST");
    }
}

#[test]
fn names_travel_as_utf8_once_that_is_enabled() {
    for enabled in ["IMAP4rev2", "utf8=accept"] {
        let lines = format!("* LIST () \"/\" \"R&-D\"\r\n* ENABLED {enabled}\r\n* LIST () \"/\" \"R&-D ü\"\r\n");
        let found = events(lines.as_bytes()).unwrap();
        let names: Vec<_> = found
            .iter()
            .filter_map(|event| match event {
                Event::List(listed) => Some(listed.name.text()),
                _ => None,
            })
            .collect();
        assert_eq!(names, ["R&D", "R&-D ü"]);
    }
}

fn status(line: &str) -> MailboxStatus {
    match event(line) {
        Event::Status(status) => *status,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn mailbox_status() {
    let found = status(
        "* STATUS \"a b\" (MESSAGES 231 UIDNEXT 44292 UIDVALIDITY 5 HIGHESTMODSEQ 9 MAILBOXID (F22) X-GUID 4ff \
         SIZE 8589934592 DELETED 3 UNSEEN 2 X-NEW (1 (2)) APPENDLIMIT 1000)",
    );
    let expected = MailboxStatus {
        name: name("a b"),
        messages: Some(231),
        uid_next: Some(44292),
        uid_validity: Some(5),
        unseen: Some(2),
        highest_mod_seq: Some(9),
        mailbox_id: Some("F22".to_owned()),
        guid: Some("4ff".to_owned()),
        size: Some(8_589_934_592),
        deleted: Some(3),
        append_limit: Some(1000),
    };
    assert_eq!(found, expected);
    let garbage = events(b"* STATUS a (MAILBOXID (\xe6\"W(U) SIZE 44 MAILBOXID () UIDNEXT 3)\r\n").unwrap();
    let [Event::Status(found)] = garbage.as_slice() else {
        panic!("{garbage:?}");
    };
    assert_eq!(
        (found.mailbox_id.as_ref(), found.size, found.uid_next),
        (None, Some(44), Some(3))
    );
    let odd = status("* STATUS INBOX (messages 4294967296 UIDNEXT -1 UIDVALIDITY 0 APPENDLIMIT NIL)");
    assert_eq!(
        (odd.messages, odd.uid_next, odd.uid_validity, odd.append_limit),
        (None, None, Some(0), None)
    );
    assert_eq!(status("* STATUS {5}\r\nINBOX ()").name, name("INBOX"));
    for line in [
        "* STATUS",
        "* STATUS a",
        "* STATUS a (MESSAGES",
        "* STATUS a (MESSAGES)",
        "* STATUS a (MESSAGES 1",
    ] {
        is_malformed(line, "STATUS");
    }
}

#[test]
fn numbers_of_the_folder() {
    assert_eq!(event("* 23 EXISTS"), Event::Exists(23));
    assert_eq!(event("* 0 recent"), Event::Recent(0));
    assert_eq!(event("*  4294967295  EXPUNGE "), Event::Expunge(u32::MAX));
    is_malformed("* 4294967296 EXISTS", "EXISTS");
    is_malformed("* 99999999999999999999999 FETCH (UID 1)", "FETCH");
    is_malformed("* 1x EXPUNGE", "EXPUNGE");
    assert!(matches!(event("* 1 NEWTHING 2"), Event::Unknown { .. }));
    assert_eq!(
        event("* FLAGS (\\Seen $Work)"),
        Event::Flags(Flags::from_names(["\\Seen", "$Work"]))
    );
    is_malformed("* FLAGS (\\Seen", "FLAGS");
}

#[test]
fn vanished() {
    let rows = [
        ("* VANISHED 300:310,405", false, uids(&[(300, 310), (405, 405)])),
        ("* VANISHED (EARLIER) 41,43:42", true, uids(&[(41, 43)])),
        ("* vanished (earlier)  1:4294967295", true, uids(&[(1, u32::MAX)])),
    ];
    for (line, earlier, uids) in rows {
        assert_eq!(event(line), Event::Vanished { earlier, uids }, "{line}");
    }
    for line in [
        "* VANISHED",
        "* VANISHED (EARLIER)",
        "* VANISHED (EARLIER 1",
        "* VANISHED 1:*",
        "* VANISHED 0",
    ] {
        is_malformed(line, "VANISHED");
    }
}

#[test]
fn searches() {
    let rows = [
        ("* SEARCH", uids(&[]), None),
        ("* SEARCH 2 3 6 ", uids(&[(2, 3), (6, 6)]), None),
        ("* SEARCH 6 2  3 2", uids(&[(2, 3), (6, 6)]), None),
        (
            "* SEARCH 2 5 (MODSEQ 917162500)",
            uids(&[(2, 2), (5, 5)]),
            Some(917_162_500),
        ),
    ];
    for (line, uids, mod_seq) in rows {
        assert_eq!(event(line), Event::Search { uids, mod_seq }, "{line}");
    }
    for line in [
        "* SEARCH 0",
        "* SEARCH x",
        "* SEARCH 1 (MODSEQ",
        "* SEARCH (FOO 5)",
        "* SEARCH 4294967296",
    ] {
        is_malformed(line, "SEARCH");
    }
    let found = ESearch {
        tag: Some(Tag(283)),
        all: Some(uids(&[(2, 2), (10, 11)])),
        count: Some(3),
        min: Some(2),
        max: Some(11),
        mod_seq: Some(5),
    };
    let line = "* ESEARCH (TAG \"A283\") UID ALL 2,10:11 COUNT 3 MIN 2 MAX 11 X-NEW (a b) MODSEQ 5";
    assert_eq!(event(line), Event::ESearch(found));
    assert_eq!(event("* ESEARCH"), Event::ESearch(ESearch::default()));
    let none = ESearch {
        tag: None,
        count: Some(0),
        ..ESearch::default()
    };
    assert_eq!(event("* ESEARCH (TAG x) UID COUNT 0"), Event::ESearch(none));
    for line in [
        "* ESEARCH ALL",
        "* ESEARCH UID ALL *",
        "* ESEARCH COUNT x",
        "* ESEARCH X",
        "* ESEARCH (TAG",
    ] {
        is_malformed(line, "ESEARCH");
    }
}

#[test]
fn namespaces_and_identification() {
    let entry = |prefix: &str, delimiter| Namespace {
        prefix: name(prefix),
        delimiter,
    };
    let found = Namespaces {
        personal: vec![entry("INBOX.", Some('.')), entry("#mh/", None)],
        other_users: vec![],
        shared: vec![entry("Öffentlich/", Some('/'))],
    };
    let line =
        "* NAMESPACE ((\"INBOX.\" \".\")(\"#mh/\" NIL \"X-PARAM\" (\"a\" \"b\"))) NIL ((\"&ANY-ffentlich/\" \"/\"))";
    assert_eq!(event(line), Event::Namespace(found));
    assert_eq!(
        event("* NAMESPACE NIL NIL NIL"),
        Event::Namespace(Namespaces::default())
    );
    for line in [
        "* NAMESPACE",
        "* NAMESPACE NIL NIL",
        "* NAMESPACE (\"\" \"/\") NIL NIL",
        "* NAMESPACE x NIL NIL",
    ] {
        is_malformed(line, "NAMESPACE");
    }
    let fields = vec![
        ("name".to_owned(), "Cyrus IMAPD".to_owned()),
        ("os".to_owned(), "x".to_owned()),
    ];
    assert_eq!(
        event("* ID (\"Name\" \"Cyrus IMAPD\" version NIL os \"x\")"),
        Event::Id(fields)
    );
    assert_eq!(event("* ID NIL"), Event::Id(vec![]));
    is_malformed("* ID (\"name\")", "ID");
}

#[test]
fn quota_rights_and_metadata() {
    let resource = |name: &str, used, limit| QuotaResource {
        name: name.to_owned(),
        used,
        limit,
    };
    let quota = Quota {
        root: String::new(),
        resources: vec![resource("storage", 10, 512), resource("MESSAGE", 1, u64::MAX)],
    };
    assert_eq!(quota.storage_octets(), Some((10_240, 524_288)));
    let line = format!("* QUOTA \"\" (storage 10 512 MESSAGE 1 {})", u64::MAX);
    assert_eq!(event(&line), Event::Quota(quota));
    is_malformed("* QUOTA \"\" (STORAGE 10)", "QUOTA");
    let roots = Event::QuotaRoot {
        mailbox: name("INBOX"),
        roots: vec!["User quota".to_owned(), "x".to_owned()],
    };
    assert_eq!(event("* QUOTAROOT INBOX \"User quota\" x"), roots);

    let acl = Acl {
        mailbox: name("INBOX"),
        entries: vec![
            ("press".to_owned(), "lrs".to_owned()),
            ("-anyone".to_owned(), String::new()),
        ],
    };
    assert_eq!(event("* ACL INBOX press lrs -anyone \"\""), Event::Acl(acl));
    is_malformed("* ACL INBOX press", "ACL");
    let rights = Event::MyRights {
        mailbox: name("a b"),
        rights: "lrswip".to_owned(),
    };
    assert_eq!(event("* MYRIGHTS \"a b\" lrswip"), rights);

    let value = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
    let metadata = Metadata {
        mailbox: name(""),
        entries: vec![
            ("/shared/comment".to_owned(), value("my \"comment\"")),
            ("/private/a".to_owned(), None),
            ("/private/b".to_owned(), value("x)y")),
        ],
        named_only: false,
    };
    let line = "* METADATA \"\" (/shared/comment \"my \\\"comment\\\"\" /private/a NIL /private/b {3}\r\nx)y)";
    assert_eq!(event(line), Event::Metadata(metadata));
    let changed = Metadata {
        mailbox: name("INBOX"),
        entries: vec![("/shared/comment".to_owned(), None)],
        named_only: true,
    };
    assert_eq!(event("* METADATA INBOX /shared/comment"), Event::Metadata(changed));
}

#[test]
fn unknown_responses_are_shown_cut() {
    let Event::Unknown { line } = event(&format!("* XNEWTHING ({})", "ü".repeat(5000))) else {
        panic!();
    };
    assert!(line.starts_with("* XNEWTHING (üü") && line.len() < 210);
    assert!(matches!(event("*"), Event::Unknown { .. }));
    assert!(matches!(event("* "), Event::Unknown { .. }));
    assert!(events(b"\r\n\n \r\n").unwrap().is_empty(), "empty lines mean nothing");
    assert!(matches!(event("* 5"), Event::Unknown { .. }));
}

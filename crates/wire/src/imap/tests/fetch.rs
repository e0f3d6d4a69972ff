//! FETCH and its bodies.

use super::*;
use crate::flags::Flags;

fn fetch(items: &str) -> Fetch {
    match event(&format!("* 7 FETCH ({items})")) {
        Event::Fetch(fetch) => {
            assert_eq!(fetch.number, 7);
            fetch
        }
        other => panic!("{items}: {other:?}"),
    }
}

#[test]
fn fetch_of_metadata() {
    let found = fetch(
        "UID 17 FLAGS (\\Seen \\Recent $Work \\X-Odd) INTERNALDATE \"17-Jul-1996 02:44:25 -0700\" RFC822.SIZE \
         8589934592 MODSEQ (65402) EMAILID (M6d99) X-GUID 123.M1P2.host,S=19",
    );
    let expected = Fetch {
        number: 7,
        uid: Some(17),
        flags: Some(Flags::from_names(["\\Seen", "$Work"])),
        flags_dropped: vec!["\\X-Odd".to_owned()],
        internal_date: Some(837_596_665),
        size: Some(8_589_934_592),
        mod_seq: Some(65402),
        email_id: Some("M6d99".to_owned()),
        guid: Some("123.M1P2.host,S=19".to_owned()),
        body: FetchedBody::Absent,
        complete: true,
    };
    assert_eq!(found, expected);
    assert_eq!(fetch("").uid, None);
    assert_eq!(fetch(" flags ( )  uid  5 ").flags, Some(Flags::default()));
    assert_eq!(fetch("MODSEQ 5").mod_seq, Some(5));
    let nil = fetch("UID 5 X-GUID NIL EMAILID NIL INTERNALDATE NIL");
    assert!(nil.complete && nil.guid.is_none() && nil.email_id.is_none() && nil.internal_date.is_none());
    let odd = fetch("FLAGS (a{5} b\"c (d ] {3}\r\nk w) UID 1");
    assert_eq!(odd.flags.unwrap().keywords(), ["]"]);
    assert_eq!(odd.flags_dropped, ["a{5}", "b\"c", "(d", "k w"]);
}

#[test]
fn one_odd_item_costs_only_itself() {
    for item in [
        "RFC822.SIZE -5",
        "RFC822.SIZE 18446744073709551616",
        "INTERNALDATE \"yesterday\"",
        "MODSEQ (x)",
        "MODSEQ ()",
        "FLAGS \\Seen",
        "UID 0",
        "X-GUID (a)",
    ] {
        let found = fetch(&format!("{item} UID 9"));
        assert_eq!(found.uid, Some(9), "{item}");
        assert!(!found.complete, "{item}");
    }
    let found = fetch(
        "ENVELOPE (NIL \"a)b\" ((NIL NIL \"x\" \"y\")) NIL) BODYSTRUCTURE (\"text\" (\"a\" {2}\r\n()) 5) BODY (\"x\") UID 3 X[1]<2> (5)",
    );
    assert!(found.complete && found.uid == Some(3) && found.body == FetchedBody::Absent);
    for items in [
        "UID 3 FLAGS (\\Seen",
        "UID 3 BODY[",
        "UID 3 X \"abc",
        "UID 3 ENVELOPE (NIL",
        "UID 3 X",
    ] {
        let found = match event(&format!("* 7 FETCH ({items}")) {
            Event::Fetch(found) => found,
            other => panic!("{items}: {other:?}"),
        };
        assert!(!found.complete && found.uid == Some(3), "{items}: {found:?}");
    }
    is_malformed("* 1 FETCH", "FETCH");
    is_malformed("* 1 FETCH UID 5", "FETCH");
}

fn body(line: &str) -> (Vec<Event>, Fetch) {
    let mut found = joined(events(format!("* 7 FETCH ({line})\r\n").as_bytes()).unwrap());
    match found.pop() {
        Some(Event::Fetch(fetch)) => (found, fetch),
        other => panic!("{line}: {other:?}"),
    }
}

fn start(uid: Option<u32>, part: &str, origin: Option<u64>, binary: bool, length: u64) -> Event {
    Event::BodyStart(BodyStart {
        uid,
        section: Section {
            part: part.to_owned(),
            origin,
            binary,
        },
        length,
    })
}

#[test]
fn bodies_are_streamed() {
    let octets = |text: &'static str| Event::BodyOctets(Bytes::from_static(text.as_bytes()));
    let rows = [
        (
            "UID 5 BODY[] {3}\r\nabc FLAGS (\\Seen)",
            start(Some(5), "", None, false, 3),
            "abc",
        ),
        ("BODY[] ~{3+}\r\nabc UID 5", start(None, "", None, false, 3), "abc"),
        (
            "uid 5 body[]<10> {2}\r\n{9",
            start(Some(5), "", Some(10), false, 2),
            "{9",
        ),
        (
            "UID 5 BINARY[1.2] ~{2}\r\n\0)",
            start(Some(5), "1.2", None, true, 2),
            "\0)",
        ),
        (
            "UID 5 BODY[HEADER.FIELDS (SUBJECT DATE)] {6}\r\nA: b\r\n",
            start(Some(5), "HEADER.FIELDS (SUBJECT DATE)", None, false, 6),
            "A: b\r\n",
        ),
        ("UID 5 BODY[] \"a\\\"b\"", start(Some(5), "", None, false, 3), "a\"b"),
        ("BODY[TEXT] \"abc\" UID 5", start(None, "TEXT", None, false, 3), "abc"),
    ];
    for (line, start, text) in rows {
        let (found, fetch) = body(line);
        assert_eq!(found, [start, octets(text), Event::BodyEnd], "{line}");
        assert_eq!(
            (fetch.uid, fetch.body, fetch.complete),
            (Some(5), FetchedBody::Octets, true),
            "{line}"
        );
    }
}

#[test]
fn empty_and_absent_bodies_differ() {
    for line in ["UID 5 BODY[] {0}\r\n", "UID 5 BODY[] \"\""] {
        let (found, fetch) = body(line);
        assert_eq!(found, [start(Some(5), "", None, false, 0), Event::BodyEnd], "{line}");
        assert_eq!(fetch.body, FetchedBody::Octets);
    }
    let (found, fetch) = body("UID 5 BODY[] NIL FLAGS ()");
    assert_eq!((found.len(), fetch.body, fetch.complete), (0, FetchedBody::Nil, true));
    let (found, fetch) = body("UID 5 BODY[] garbage");
    assert_eq!(
        (found.len(), fetch.body, fetch.complete),
        (0, FetchedBody::Absent, false)
    );
}

#[test]
fn several_bodies_in_one_response() {
    let (found, fetch) = body("BODY[1] {1}\r\na UID 5 BODY[2] {1}\r\nb BODY[3] NIL FLAGS (x)");
    let expected = [
        start(None, "1", None, false, 1),
        Event::BodyOctets(Bytes::from_static(b"a")),
        Event::BodyEnd,
        start(Some(5), "2", None, false, 1),
        Event::BodyOctets(Bytes::from_static(b"b")),
        Event::BodyEnd,
    ];
    assert_eq!(found, expected);
    assert_eq!((fetch.uid, fetch.body), (Some(5), FetchedBody::Octets));
    assert_eq!(fetch.flags.unwrap().keywords(), ["x"]);
}

#[test]
fn literals_that_are_no_bodies_stay_in_the_line() {
    let (found, fetch) = body("UID 5 BODY {3}\r\nabc RFC822.HEADER {4}\r\nab}\n X-GUID {3}\r\nxyz");
    assert!(found.is_empty() && fetch.complete);
    assert_eq!(fetch.guid.as_deref(), Some("xyz"));
    let long = "x".repeat(70_000);
    let (found, fetch) = body(&format!(
        "ENVELOPE (NIL {{70000}}\r\n{long} NIL) X-GUID {{70000}}\r\n{long} UID 5"
    ));
    assert!(found.is_empty() && fetch.guid.is_none() && !fetch.complete);
    assert_eq!(fetch.uid, Some(5), "a string too long to be kept costs only itself");
}

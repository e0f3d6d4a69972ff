//! Limits, and octets that no server should send.

use super::*;
use proptest::prelude::*;

/// Responses of every kind, behind a greeting; the tags up to A40 are outstanding.
const EVERYTHING: &[u8] = b"* CAPABILITY IMAP4rev1 LITERAL+ AUTH=PLAIN\r\n\
A1 OK [CAPABILITY IMAP4rev1] in\r\n\
* ENABLED QRESYNC\r\n\
* LIST (\\HasNoChildren \\Sent) \"/\" {5}\r\na}\r\nb (\"OLDNAME\" (\"x\"))\r\n\
* STATUS \"a\\\"b\" (MESSAGES 1 UIDNEXT 2 UIDVALIDITY 3 MAILBOXID (F1))\r\n\
* NAMESPACE ((\"\" \"/\")) NIL ((\"#s\" NIL))\r\n\
* ID (\"name\" {7}\r\nDovecot)\r\n\
* QUOTA \"\" (STORAGE 1 2)\r\n* QUOTAROOT INBOX \"\"\r\n* ACL INBOX a lr\r\n* MYRIGHTS INBOX lr\r\n\
* METADATA INBOX (/private/comment ~{3}\r\n\0\r\n)\r\n\
* FLAGS (\\Seen $Work)\r\n* OK [PERMANENTFLAGS (\\Seen \\*)] x\r\n* 3 EXISTS\r\n* 0 RECENT\r\n* 2 EXPUNGE\r\n\
* VANISHED (EARLIER) 1:3,7\r\n* SEARCH 1 2 (MODSEQ 5)\r\n* ESEARCH (TAG \"A2\") UID ALL 1:2 COUNT 2\r\n\
* 1 FETCH (UID 5 FLAGS (\\Seen $Work) INTERNALDATE \"17-Jul-1996 02:44:25 -0700\" RFC822.SIZE 5 MODSEQ (9))\r\n\
* 2 FETCH (UID 6 BODY[] {12}\r\n* 3 EXISTS\r\n FLAGS () BODY[HEADER.FIELDS (A \"]\")]<0> \"qu\\\"oted\")\r\n\
* 3 FETCH (BODY[1] {0}\r\n UID 7 BINARY[2] ~{3}\r\n\0)\n BODY[3] NIL X-GUID {3}\r\n(a))\r\n\
A2 NO [OVERQUOTA] full\r\n* NEWTHING {3}\r\nabc\r\n+ cGxlYXNl\r\nA3 BAD [X-ODD (\"]\")] what {5}\r\n\
A4 OK [COPYUID 1 1:2 3:4] x\r\n* BYE\r\n";

fn with_outstanding() -> Client {
    let mut client = greeted();
    for _ in 0..39 {
        client.send(Command::noop());
    }
    client.send(Command::authenticate("PLAIN", None));
    client
}

fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Event>, Option<ProtocolError>) {
    let mut client = with_outstanding();
    let mut events = Vec::new();
    for piece in pieces {
        client.feed(Bytes::copy_from_slice(piece));
        loop {
            match client.event() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(error) => return (joined(events), Some(error)),
            }
        }
    }
    (joined(events), None)
}

fn cut(octets: &[u8], mut places: Vec<usize>) -> Vec<&[u8]> {
    places.iter_mut().for_each(|place| *place %= octets.len() + 1);
    places.sort_unstable();
    let mut pieces = Vec::new();
    let mut from = 0;
    for place in places.into_iter().chain([octets.len()]) {
        pieces.push(&octets[from..place]);
        from = place;
    }
    pieces
}

#[test]
fn the_transcript_is_understood_in_any_single_octets() {
    let (whole, error) = run([EVERYTHING]);
    assert_eq!(error, None);
    assert_eq!(whole.len(), 40, "{whole:#?}");
    let odd: Vec<_> = whole
        .iter()
        .filter(|event| match event {
            Event::Malformed { .. } => true,
            Event::Fetch(fetch) => !fetch.complete,
            _ => false,
        })
        .collect();
    assert!(odd.is_empty(), "{odd:?}");
    assert_eq!(run(EVERYTHING.chunks(1)), (whole, None));
}

#[test]
fn literal_lengths_that_cannot_be() {
    for length in [
        "",
        "-1",
        "-",
        "+",
        "1-",
        "1++",
        "18446744073709551616",
        "1099511627777",
        &"0".repeat(41),
    ] {
        let found = events(format!("* 1 FETCH (BODY[] {{{length}}}\r\n").as_bytes());
        assert_eq!(
            found,
            Err(ProtocolError::LiteralLength(length.chars().take(40).collect())),
            "{length}"
        );
    }
    let mut client = greeted();
    client.feed(Bytes::from_static(b"* 1 FETCH (UID 9 BODY[] {1099511627776}\r\n"));
    let found = client.event().unwrap();
    assert!(matches!(
        found,
        Some(Event::BodyStart(BodyStart {
            uid: Some(9),
            length: MAX_LITERAL,
            ..
        }))
    ));
    // No literals: nothing that is a length, and braces that do not end the line.
    for line in ["* LIST () \"/\" a{x}", "* LIST () \"/\" a5}", "* LIST () \"/\" \"{5}\""] {
        assert!(matches!(event(line), Event::List(_)), "{line}");
    }
}

#[test]
fn responses_without_end_are_given_up() {
    let mut client = greeted();
    let piece = Bytes::from(vec![b'x'; 100_000]);
    client.feed(Bytes::from_static(b"* LIST "));
    for _ in 0..10 {
        client.feed(piece.clone());
        assert_eq!(client.event(), Ok(None));
    }
    client.feed(piece);
    assert_eq!(
        client.event(),
        Err(ProtocolError::ResponseTooLong { limit: MAX_RESPONSE })
    );

    // In one piece with its end, and as literals.
    let line = format!("* LIST () \"/\" {}\r\n", "x".repeat(MAX_RESPONSE));
    assert!(matches!(
        events(line.as_bytes()),
        Err(ProtocolError::ResponseTooLong { .. })
    ));
    let many = "{0}\r\n ".repeat(MAX_LITERALS);
    let found = events(format!("* X {many}\r\n").as_bytes()).unwrap();
    assert!(matches!(found.as_slice(), [Event::Unknown { .. }]));
    let found = events(format!("* X {many}{{0}}\r\n").as_bytes());
    assert_eq!(found, Err(ProtocolError::TooManyLiterals { limit: MAX_LITERALS }));
    let full = format!("{{65536}}\r\n{} ", "x".repeat(65_536)).repeat(40);
    let found = events(format!("* X {full}\r\n* 1 EXISTS\r\n").as_bytes()).unwrap();
    assert!(
        matches!(found.as_slice(), [Event::Unknown { .. }, Event::Exists(1)]),
        "the rest is dropped"
    );
}

#[test]
fn sets_may_be_long() {
    let uids: Vec<String> = (1..=600_000u32).map(|number| (number * 2).to_string()).collect();
    for (line, name) in [
        (format!("* SEARCH {}\r\n", uids.join(" ")), "SEARCH"),
        (format!("* VANISHED (EARLIER) {}\r\n", uids.join(",")), "VANISHED"),
        (
            format!("* esearch (TAG \"A1\") UID ALL {}\r\n", uids.join(",")),
            "ESEARCH",
        ),
    ] {
        assert!(line.len() > 4 * MAX_RESPONSE - 4096);
        let mut client = greeted();
        for piece in line.as_bytes().chunks(8192) {
            client.feed(Bytes::copy_from_slice(piece));
        }
        let found = match client.event().unwrap() {
            Some(Event::Search { uids, .. } | Event::Vanished { uids, .. }) => uids,
            Some(Event::ESearch(found)) => found.all.unwrap(),
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(
            (found.ranges().len(), found.ranges()[599_999]),
            (600_000, (1_200_000, 1_200_000))
        );
    }
    let line = format!("* SEARCH {}\r\n", "9 ".repeat(MAX_SET_RESPONSE / 2));
    assert_eq!(
        events(line.as_bytes()),
        Err(ProtocolError::ResponseTooLong {
            limit: MAX_SET_RESPONSE
        })
    );
    let line = format!("* SEARCH {}\r\n", "9 1 ".repeat(MAX_SET_RANGES / 2 + 1));
    assert!(matches!(
        events(line.as_bytes()).unwrap().as_slice(),
        [Event::Malformed { name: "SEARCH", .. }]
    ));
}

#[test]
fn lists_have_bounds() {
    let many = "a ".repeat(MAX_ENTRIES + 1);
    let lines = [
        format!("* QUOTAROOT INBOX {many}"),
        format!("* ACL INBOX {many}{many}"),
        format!("* METADATA INBOX {many}"),
        format!("* METADATA INBOX ({many}{many})"),
        format!("* ID ({many}{many})"),
        format!("* NAMESPACE ({}) NIL NIL", "(\"\" \"/\")".repeat(MAX_ENTRIES + 1)),
        format!("* LIST ({many}) \"/\" a"),
    ];
    for line in lines {
        assert!(matches!(event(&line), Event::Malformed { .. }), "{}", &line[..30]);
    }
    let Event::Enabled(names) = event(&format!("* ENABLED {many}")) else {
        panic!();
    };
    assert_eq!(names.len(), MAX_ENTRIES);
}

/// Lines made to be read again and again: each would take minutes if some token were looked for from every place.
#[test]
fn no_line_is_read_more_than_a_few_times() {
    let patterns = [
        "{ ",
        "a[ ",
        "\"",
        "( ",
        "\\\" ",
        ") ",
        "[ ",
        "a[\" ",
        "X[1] ",
        "~{ ",
        "BODY[] \"\" ",
        "<0>] ",
    ];
    for pattern in patterns {
        let body = pattern.repeat(1_000_000 / pattern.len());
        for start in [
            "* 1 FETCH (",
            "* LIST () \"/\" a (",
            "* OK [X ",
            "* OK [PERMANENTFLAGS (",
            "* METADATA a (",
            "* ID (",
        ] {
            let _ = events(format!("{start}{body}\r\n").as_bytes());
        }
    }
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_events(places in prop::collection::vec(any::<usize>(), 0..40)) {
        prop_assert_eq!(run(cut(EVERYTHING, places)), run([EVERYTHING]));
    }

    #[test]
    fn damaged_transcripts_are_survived_alike(
        changes in prop::collection::vec((any::<usize>(), any::<u8>(), 0u8..4), 1..12),
        places in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let mut octets = EVERYTHING.to_vec();
        for (place, octet, kind) in changes {
            let place = place % octets.len().max(1);
            if octets.is_empty() {
                break;
            }
            match kind {
                0 => octets[place] = octet,
                1 => octets.insert(place, b"{}()\"\\[]<>*+ \r\n~0"[octet as usize % 17]),
                2 => drop(octets.remove(place)),
                _ => octets.truncate(place.max(1)),
            }
        }
        prop_assert_eq!(run(cut(&octets, places)), run([octets.as_slice()]));
    }

    #[test]
    fn random_octets_are_survived(
        octets in prop::collection::vec(prop::sample::select(&b"* 1A+FETCHBODYUIDLISTOK(){}[]\"\\<>~\r\n5\0\xff"[..]), 0..400),
        places in prop::collection::vec(any::<usize>(), 0..6),
    ) {
        prop_assert_eq!(run(cut(&octets, places)), run([octets.as_slice()]));
    }

    #[test]
    fn bodies_come_back_octet_by_octet(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..6),
        places in prop::collection::vec(any::<usize>(), 0..30),
    ) {
        let mut octets = Vec::new();
        for (number, body) in bodies.iter().enumerate() {
            octets.extend_from_slice(format!("* 1 FETCH (UID {} BODY[] {{{}}}\r\n", number + 1, body.len()).as_bytes());
            octets.extend_from_slice(body);
            octets.extend_from_slice(b" FLAGS (\\Seen))\r\n");
        }
        let (events, error) = run(cut(&octets, places));
        prop_assert_eq!(error, None);
        let mut found = Vec::new();
        for event in events {
            match event {
                Event::BodyStart(_) => found.push(Vec::new()),
                Event::BodyOctets(octets) => found.last_mut().unwrap().extend_from_slice(&octets),
                Event::BodyEnd => {}
                Event::Fetch(fetch) => prop_assert_eq!(fetch.uid, Some(found.len() as u32)),
                other => prop_assert!(false, "{:?}", other),
            }
        }
        prop_assert_eq!(found, bodies);
    }
}

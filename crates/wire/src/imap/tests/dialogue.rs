//! Both sides together: literals that wait, commands that stand alone, and staying in step.

use super::*;
use crate::flags::Flags;
use secrecy::SecretString;

fn feed(client: &mut Client, text: &str) -> Vec<Event> {
    client.feed(Bytes::copy_from_slice(text.as_bytes()));
    drain(client).unwrap()
}

fn append(lengths: &[u64]) -> Command {
    let flags = Flags::default();
    let items: Vec<_> = lengths
        .iter()
        .zip(1..)
        .map(|(length, body)| AppendItem {
            flags: &flags,
            internal_date: None,
            body,
            length: *length,
            form: AppendForm::Literal,
        })
        .collect();
    Command::append(&"INBOX".into(), &items)
}

fn tagged(events: &[Event]) -> Vec<(Tag, Condition)> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Tagged(tag, answer) => Some((*tag, answer.condition)),
            _ => None,
        })
        .collect()
}

#[test]
fn commands_are_pipelined_and_answered_in_any_order() {
    let mut client = greeted();
    let one = client.send(Command::noop());
    let two = client.send(Command::capability());
    let three = client.send(Command::noop());
    assert_eq!(client.outstanding(), 3);
    let Some(Output::Octets(octets)) = client.output() else {
        panic!();
    };
    assert_eq!(octets, "A1 NOOP\r\nA2 CAPABILITY\r\nA3 NOOP\r\n", "in one piece");
    assert_eq!(client.output(), None);
    let found = feed(&mut client, "A2 OK\r\n* 1 EXISTS\r\na1 no [NOPERM] x\r\n");
    assert_eq!(tagged(&found), [(two, Condition::Ok), (one, Condition::No)]);
    assert!(client.is_outstanding(three) && !client.is_outstanding(one));
    client.feed(Bytes::from_static(b"A1 OK again\r\n"));
    assert_eq!(client.event(), Err(ProtocolError::UnknownTag("A1 OK again".to_owned())));
}

#[test]
fn answers_to_nothing_are_errors() {
    for line in [
        "A1 OK",
        "B1 OK",
        "A OK",
        "A4294967296 OK",
        "A1",
        "NOOP",
        "A+1 OK",
        "A1 BYE",
        "A1 FOO",
    ] {
        let mut client = greeted();
        if line.ends_with("BYE") || line.ends_with("FOO") || line == "A1" {
            client.send(Command::noop());
        }
        client.feed(Bytes::from(format!("{line}\r\n")));
        assert_eq!(
            client.event(),
            Err(ProtocolError::UnknownTag(line.to_owned())),
            "{line}"
        );
    }
}

#[test]
fn literals_wait_where_they_must() {
    let mut client = greeted();
    let append = client.send(append(&[5, 6]));
    let noop = client.send(Command::noop());
    assert_eq!(sent(&mut client), "A1 APPEND INBOX {5}\r\n");
    assert_eq!(sent(&mut client), "");
    assert!(feed(&mut client, "+ go\r\n* 3 EXISTS\r\n") == [Event::Exists(3)]);
    assert_eq!(sent(&mut client), "<1:5> {6}\r\n");
    assert!(feed(&mut client, "+\r\n").is_empty());
    assert_eq!(sent(&mut client), "<2:6>\r\nA2 NOOP\r\n");
    let found = feed(&mut client, "A1 OK [APPENDUID 1 2:3]\r\nA2 OK\r\n");
    assert_eq!(tagged(&found), [(append, Condition::Ok), (noop, Condition::Ok)]);
}

#[test]
fn each_kind_of_literals() {
    for (literals, expected) in [
        (Literals::Synchronizing, "A1 APPEND INBOX {4096}\r\n"),
        (Literals::Minus, "A1 APPEND INBOX {4096+}\r\n<1:4096> {4097}\r\n"),
        (
            Literals::Plus,
            "A1 APPEND INBOX {4096+}\r\n<1:4096> {4097+}\r\n<2:4097>\r\n",
        ),
    ] {
        let mut client = greeted();
        client.set_literals(literals);
        client.send(append(&[4096, 4097]));
        assert_eq!(sent(&mut client), expected);
    }
}

#[test]
fn a_refusal_instead_of_the_plus_ends_the_command() {
    for refusal in ["A1 NO [TRYCREATE] no folder\r\n", "A1 BAD too large\r\n"] {
        let mut client = greeted();
        client.send(append(&[5, 6]));
        client.send(Command::noop());
        assert_eq!(sent(&mut client), "A1 APPEND INBOX {5}\r\n");
        assert_eq!(feed(&mut client, refusal).len(), 1);
        assert_eq!(sent(&mut client), "A2 NOOP\r\n", "the body is never sent");
        assert_eq!(tagged(&feed(&mut client, "A2 OK\r\n")).len(), 1);
        assert_eq!((client.outstanding(), client.output()), (0, None));
    }
    // In the middle, after the first message.
    let mut client = greeted();
    client.send(append(&[5, 6]));
    client.send(append(&[7]));
    sent(&mut client);
    feed(&mut client, "+\r\n");
    assert_eq!(sent(&mut client), "<1:5> {6}\r\n");
    feed(&mut client, "A1 NO full\r\n");
    assert_eq!(sent(&mut client), "A2 APPEND INBOX {7}\r\n");
    feed(&mut client, "+\r\n");
    assert_eq!(sent(&mut client), "<1:7>\r\n");
}

#[test]
fn an_early_refusal_does_not_stop_literals_that_do_not_wait() {
    let mut client = greeted();
    client.set_literals(Literals::Plus);
    client.send(append(&[5, 6]));
    client.send(Command::noop());
    let Some(Output::Octets(header)) = client.output() else {
        panic!();
    };
    assert_eq!(header, "A1 APPEND INBOX {5+}\r\n");
    feed(&mut client, "A1 NO [OVERQUOTA] full\r\n");
    assert_eq!(
        sent(&mut client),
        "<1:5> {6+}\r\n<2:6>\r\nA2 NOOP\r\n",
        "the server reads what it was promised"
    );
    assert_eq!(tagged(&feed(&mut client, "A2 OK\r\n")).len(), 1);

    // With LITERAL- the refusal comes while the small message is on its way and the large one has not begun.
    let mut client = greeted();
    client.set_literals(Literals::Minus);
    client.send(append(&[5, 5000, 6]));
    client.send(Command::noop());
    client.output();
    feed(&mut client, "A1 NO full\r\n");
    assert_eq!(sent(&mut client), "<1:5> {5000}\r\nA2 NOOP\r\n");
}

#[test]
fn a_plus_that_nothing_waits_for_means_nothing() {
    let mut client = greeted();
    client.send(append(&[5]));
    assert!(feed(&mut client, "+ too early\r\n").is_empty());
    assert_eq!(sent(&mut client), "A1 APPEND INBOX {5}\r\n");
    assert_eq!(sent(&mut client), "");
    feed(&mut client, "+\r\n");
    assert_eq!(sent(&mut client), "<1:5>\r\n");
    assert!(feed(&mut client, "+ once more\r\n").is_empty());
}

#[test]
fn nothing_follows_a_dialogue() {
    let credentials = Credentials {
        user: "press".to_owned(),
        acting_for: None,
        secret: SecretString::from("pw"),
        server: None,
    };
    let mut sasl = Sasl::new(Mechanism::Login, &credentials, "").unwrap();
    let mut client = greeted();
    let sign_in = client.send(Command::authenticate(sasl.mechanism().name(), sasl.initial().as_ref()));
    client.send(Command::noop());
    assert_eq!(sent(&mut client), "A1 AUTHENTICATE LOGIN\r\n");
    for (challenge, expected) in [("VXNlciBOYW1lAA==", "cHJlc3M=\r\n"), ("", "cHc=\r\n")] {
        let found = feed(&mut client, &format!("+ {challenge}\r\n"));
        let [Event::Challenge { tag, octets }] = found.as_slice() else {
            panic!("{found:?}");
        };
        assert_eq!(*tag, sign_in);
        let answer = sasl.challenge(octets).unwrap();
        client.respond(sign_in, &answer);
        assert_eq!(sent(&mut client), expected);
    }
    assert_eq!(
        tagged(&feed(&mut client, "A1 OK [CAPABILITY IMAP4rev1] in\r\n")).len(),
        1
    );
    assert_eq!(sent(&mut client), "A2 NOOP\r\n");

    let mut client = greeted();
    let sign_in = client.send(Command::authenticate("X", None));
    client.send(Command::noop());
    sent(&mut client);
    let found = feed(&mut client, "+ no base64!\r\n");
    assert!(matches!(&found[..], [Event::Challenge { octets, .. }] if octets == b"no base64!"));
    client.cancel(sign_in);
    assert_eq!(sent(&mut client), "*\r\n");
    feed(&mut client, "A1 BAD cancelled\r\n");
    assert_eq!(sent(&mut client), "A2 NOOP\r\n");
}

#[test]
fn commands_that_stand_alone_hold_the_next_ones() {
    let password = SecretString::from("pw");
    let commands = [
        Command::login("press", &password),
        Command::logout(),
        Command::unauthenticate(),
        Command::enable(&["IMAP4rev2"]),
    ];
    for command in commands {
        let name = command.name();
        let mut client = greeted();
        client.send(command);
        client.send(Command::noop());
        assert!(!sent(&mut client).contains("NOOP"), "{name}");
        feed(&mut client, "A1 NO\r\n");
        assert_eq!(sent(&mut client), "A2 NOOP\r\n", "{name}");
    }
    let mut client = greeted();
    client.send(Command::enable(&["QRESYNC"]));
    client.send(Command::noop());
    assert!(sent(&mut client).ends_with("A2 NOOP\r\n"));
    // Names of later commands are written as they will be read.
    let mut client = greeted();
    client.send(Command::enable(&["UTF8=ACCEPT"]));
    sent(&mut client);
    feed(&mut client, "* ENABLED UTF8=ACCEPT\r\nA1 OK\r\n");
    client.send(Command::delete(&"ü".into()));
    assert_eq!(sent(&mut client), "A2 DELETE \"ü\"\r\n");
}

#[test]
fn tls_begins_behind_the_agreement() {
    let mut client = greeted();
    client.send(Command::start_tls());
    client.send(Command::capability());
    assert_eq!(sent(&mut client), "A1 STARTTLS\r\n");
    assert_eq!(feed(&mut client, "A1 OK begin\r\n").len(), 1);
    assert_eq!(client.buffered(), 0);
    assert_eq!(sent(&mut client), "", "nothing goes out in the clear");
    client.tls_started();
    assert_eq!(sent(&mut client), "A2 CAPABILITY\r\n");
    assert_eq!(feed(&mut client, "* CAPABILITY IMAP4rev1\r\nA2 OK\r\n").len(), 2);

    let mut client = greeted();
    client.send(Command::start_tls());
    client.send(Command::capability());
    sent(&mut client);
    feed(&mut client, "A1 NO not now\r\n");
    assert_eq!(sent(&mut client), "A2 CAPABILITY\r\n");
}

#[test]
fn octets_in_the_clear_behind_the_agreement_are_refused() {
    for (first, second) in [
        ("A1 OK begin\r\n* CAPABILITY IMAP4rev1 AUTH=X\r\n", ""),
        ("A1 OK begin\r\n*", ""),
        ("A1 OK begin\r\n", "* PREAUTH\r\n"),
    ] {
        let mut client = greeted();
        client.send(Command::start_tls());
        sent(&mut client);
        client.feed(Bytes::copy_from_slice(first.as_bytes()));
        assert!(matches!(client.event(), Ok(Some(Event::Tagged(..)))));
        client.feed(Bytes::copy_from_slice(second.as_bytes()));
        assert_eq!(client.event(), Err(ProtocolError::PlaintextBehindStartTls));
    }
}

#[test]
fn compressed_octets_behind_the_agreement_are_given_back() {
    let mut client = greeted();
    client.send(Command::compress());
    client.send(Command::noop());
    assert_eq!(sent(&mut client), "A1 COMPRESS DEFLATE\r\n");
    client.feed(Bytes::from_static(b"A1 OK on\r\n\xff\n"));
    client.feed(Bytes::from_static(b"\x00"));
    assert_eq!(drain(&mut client).unwrap().len(), 1);
    assert_eq!(client.compression_started(), &b"\xff\n\x00"[..]);
    assert_eq!(client.buffered(), 0);
    assert_eq!(sent(&mut client), "A2 NOOP\r\n");
    assert_eq!(feed(&mut client, "A2 OK\r\n").len(), 1);
    assert!(client.compression_started().is_empty(), "only once");
}

#[test]
fn secrets_do_not_show() {
    let mut client = greeted();
    client.send(Command::login("press", &SecretString::from("hidden")));
    let shown = format!("{client:?} {:?}", client.output());
    assert!(!shown.contains("hidden"), "{shown}");
}

#[test]
fn bodies_are_slices_of_what_was_fed() {
    let mut client = greeted();
    let fed = Bytes::from(format!("* 1 FETCH (BODY[] {{200000}}\r\n{})\r\n", "x".repeat(200_000)));
    let range = fed.as_ptr_range();
    client.feed(fed.clone());
    let mut lengths = Vec::new();
    for event in drain(&mut client).unwrap() {
        if let Event::BodyOctets(octets) = event {
            assert!(range.contains(&octets.as_ptr()), "not copied");
            lengths.push(octets.len());
        }
    }
    assert_eq!(lengths, [65_536, 65_536, 65_536, 3392]);
}

//! What real servers sent, as it was recorded.

use super::*;
use crate::flags::Flags;

/// The events of a recording, which is kept with LF and `\\x00` for other octets, and how many commands it answers.
fn replay(recorded: &str, commands: u32) -> Vec<Event> {
    let mut client = Client::new();
    for _ in 0..commands {
        client.send(Command::noop());
    }
    client.feed(unescaped(recorded));
    let events = drain(&mut client).unwrap();
    assert_eq!((client.outstanding(), client.buffered()), (0, 0));
    for event in &events {
        match event {
            Event::Malformed { .. } | Event::Unknown { .. } => panic!("{event:?}"),
            Event::Fetch(fetch) => assert!(fetch.complete && fetch.uid.is_some(), "{fetch:?}"),
            _ => {}
        }
    }
    joined(events)
}

fn unescaped(recorded: &str) -> Bytes {
    let mut octets = Vec::new();
    for (place, piece) in recorded.replace('\n', "\r\n").split("\\x").enumerate() {
        match place {
            0 => octets.extend_from_slice(piece.as_bytes()),
            _ => {
                octets.push(u8::from_str_radix(&piece[..2], 16).unwrap());
                octets.extend_from_slice(&piece.as_bytes()[2..]);
            }
        }
    }
    octets.into()
}

/// The codes of the answers, tagged and not, that are no plain words.
fn codes(events: &[Event]) -> Vec<&Code> {
    let codes = events.iter().filter_map(|event| match event {
        Event::Tagged(_, answer) | Event::Untagged(answer) => answer.code.as_ref(),
        _ => None,
    });
    codes.collect()
}

fn statuses(events: &[Event]) -> Vec<&MailboxStatus> {
    let statuses = events.iter().filter_map(|event| match event {
        Event::Status(status) => Some(&**status),
        _ => None,
    });
    statuses.collect()
}

/// Dovecot 2.3.19.1 behind pipelined commands: its answers overtake each other.
#[test]
fn dovecot() {
    let events = replay(include_str!("dovecot.txt"), 38);
    let Event::Greeting(greeting) = &events[0] else {
        panic!("{:?}", events[0]);
    };
    let Some(Code::Capability(capabilities)) = &greeting.code else {
        panic!("{greeting:?}");
    };
    assert!(capabilities.qresync && capabilities.literal_plus && capabilities.multi_append && capabilities.acl);

    let names: Vec<_> = statuses(&events).iter().map(|status| status.name.text()).collect();
    assert_eq!(names, ["Archiv", "123", "a\"b\\c", "Entwürfe", "Sent", "INBOX"]);
    let inbox = statuses(&events)[5];
    assert_eq!(
        (inbox.messages, inbox.uid_next, inbox.highest_mod_seq),
        (Some(2), Some(3), Some(3))
    );
    assert_eq!((inbox.size, inbox.guid.is_some()), (Some(44), true));

    let metadata = events.iter().find_map(|event| match event {
        Event::Metadata(metadata) => Some(metadata),
        _ => None,
    });
    assert_eq!(metadata.unwrap().entries[0].1.as_deref(), Some(&b"my \"comment\""[..]));

    let first = events.iter().find_map(|event| match event {
        Event::Fetch(fetch) => Some(fetch),
        _ => None,
    });
    let first = first.unwrap();
    assert_eq!(first.flags, Some(Flags::from_names(["\\Seen", "$Work"])));
    assert_eq!(
        (first.internal_date, first.size, first.mod_seq),
        (Some(837_596_665), Some(22), Some(3))
    );

    let whole: Vec<_> = events
        .windows(2)
        .filter_map(|pair| match pair {
            [Event::BodyStart(start), Event::BodyOctets(octets)] if start.section.is_whole() => {
                Some((start.uid, octets.clone()))
            }
            _ => None,
        })
        .collect();
    let body = Bytes::from_static(b"Subject: one\r\n\r\nbody\r\n");
    assert_eq!(whole, [(Some(1), body.clone()), (Some(2), body)]);

    let codes = codes(&events);
    let has = |wanted: &Code| codes.contains(&wanted);
    assert!(has(&Code::TryCreate) && has(&Code::ReadWrite) && has(&Code::Closed));
    assert!(has(&Code::Modified(uids(&[(1, 1)]))) && has(&Code::HighestModSeq(7)));
    let copied = codes.iter().filter(|code| matches!(code, Code::CopyUid { .. })).count();
    assert_eq!(copied, 2);
    let vanished = Event::Vanished {
        earlier: false,
        uids: uids(&[(1, 2)]),
    };
    assert!(events.contains(&vanished));
    let extended = events.iter().find_map(|event| match event {
        Event::ESearch(found) => Some(found),
        _ => None,
    });
    let extended = extended.unwrap();
    assert_eq!((extended.tag, extended.count), (Some(Tag(27)), Some(2)));
    assert_eq!(extended.all, Some(uids(&[(1, 2)])));
}

/// Cyrus 3.6.1, asked one command after the other.
#[test]
fn cyrus() {
    let events = replay(include_str!("cyrus.txt"), 40);
    let capabilities = events.iter().find_map(|event| match event {
        Event::Capability(capabilities) if capabilities.object_id => Some(capabilities),
        _ => None,
    });
    let capabilities = capabilities.unwrap();
    assert!(capabilities.compress_deflate && capabilities.create_special_use && capabilities.metadata);
    assert_eq!(capabilities.append_limit, Some(4_294_967_295));

    let names: Vec<_> = statuses(&events).iter().map(|status| status.name.text()).collect();
    assert_eq!(names, ["INBOX", "INBOX.123", "INBOX.Archiv", "INBOX.Entwürfe"]);
    for status in statuses(&events) {
        assert!(status.highest_mod_seq.is_some() && status.size.is_some());
        assert_eq!(status.mailbox_id, None, "what it sends there is no identifier");
    }
    let namespaces = events.iter().find_map(|event| match event {
        Event::Namespace(namespaces) => Some(namespaces),
        _ => None,
    });
    let namespaces = namespaces.unwrap();
    assert_eq!(namespaces.personal[0].prefix.text(), "INBOX.");
    assert_eq!(
        (namespaces.other_users.len(), namespaces.shared[0].delimiter),
        (1, Some('.'))
    );

    let with_nul = events
        .iter()
        .any(|event| matches!(event, Event::BodyOctets(octets) if &octets[..] == b"Subject: two\r\n\r\nb\0dy\r\n"));
    assert!(with_nul);
    let sections: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::BodyStart(start) => Some((start.section.part.as_str(), start.section.origin, start.uid)),
            _ => None,
        })
        .collect();
    let fields = "HEADER.FIELDS (SUBJECT DATE)";
    assert_eq!(
        sections,
        [
            ("", None, Some(1)),
            ("", None, Some(2)),
            (fields, None, Some(1)),
            ("", Some(5), Some(1))
        ]
    );

    let codes = codes(&events);
    assert!(codes.contains(&&Code::MailboxId("eyxctw6oh094u6744glls299".to_owned())));
    assert!(codes.contains(&&Code::Modified(uids(&[(1, 1)]))) && codes.contains(&&Code::Closed));
    let vanished = |earlier, uid| Event::Vanished {
        earlier,
        uids: uids(&[(uid, uid)]),
    };
    for event in [vanished(false, 1), vanished(true, 1), vanished(false, 2)] {
        assert!(events.contains(&event));
    }
    let warned = events.iter().any(|event| {
        matches!(event, Event::Untagged(answer) if answer.condition == Condition::Bad && answer.text == "Invalid tag")
    });
    assert!(warned, "one extra answer behind an empty literal belongs to no command");
}

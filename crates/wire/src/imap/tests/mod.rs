//! Transcripts in, events out.

mod answers;
mod commands;
mod dialogue;
mod fetch;
mod hostile;
mod transcripts;

use bytes::Bytes;

use super::*;

/// A client that was greeted, without anything to send.
pub(super) fn greeted() -> Client {
    let mut client = Client::new();
    client.feed(Bytes::from_static(b"* OK ready\r\n"));
    assert!(matches!(client.event(), Ok(Some(Event::Greeting(_)))));
    client
}

/// All events that can be had now.
pub(super) fn drain(client: &mut Client) -> Result<Vec<Event>, ProtocolError> {
    let mut events = Vec::new();
    while let Some(event) = client.event()? {
        events.push(event);
    }
    Ok(events)
}

/// The events of what a server sends after its greeting.
pub(super) fn events(octets: &[u8]) -> Result<Vec<Event>, ProtocolError> {
    let mut client = greeted();
    client.feed(Bytes::copy_from_slice(octets));
    drain(&mut client)
}

/// The only event of a line, to which its end is added.
pub(super) fn event(line: &str) -> Event {
    let mut found = events(format!("{line}\r\n").as_bytes()).unwrap();
    assert_eq!(found.len(), 1, "{line}: {found:?}");
    found.pop().unwrap()
}

/// The code of an untagged OK.
pub(super) fn code(text: &str) -> Option<Code> {
    match event(&format!("* OK {text}")) {
        Event::Untagged(answer) => answer.code,
        other => panic!("{text}: {other:?}"),
    }
}

/// Everything that may be sent now; a body shows as `<id:length>`.
pub(super) fn sent(client: &mut Client) -> String {
    let mut text = String::new();
    while let Some(output) = client.output() {
        match output {
            Output::Octets(octets) => text.push_str(&String::from_utf8_lossy(&octets)),
            Output::Body { id, length } => text.push_str(&format!("<{id}:{length}>")),
        }
    }
    text
}

/// Events with the octets of each body in one piece, as pieces depend on how the stream was cut.
pub(super) fn joined(events: Vec<Event>) -> Vec<Event> {
    let mut joined: Vec<Event> = Vec::new();
    for event in events {
        match (joined.last_mut(), event) {
            (Some(Event::BodyOctets(held)), Event::BodyOctets(more)) => *held = [&held[..], &more[..]].concat().into(),
            (_, event) => joined.push(event),
        }
    }
    joined
}

pub(super) fn uids(ranges: &[(u32, u32)]) -> crate::uid_set::UidSet {
    crate::uid_set::UidSet::from_ranges(ranges.to_vec())
}

/// The line is known by this name and cannot be read.
pub(super) fn is_malformed(line: &str, expected: &str) {
    match event(line) {
        Event::Malformed { name, line: shown } => {
            assert_eq!(name, expected, "{line}");
            assert!(line.starts_with(&shown));
        }
        other => panic!("{line}: {other:?}"),
    }
}

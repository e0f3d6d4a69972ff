//! What an IMAP server sends.

use crate::pieces;
use bytes::Bytes;
use rehome_wire::imap::{
    Client, Command, Credentials, Event, MAX_RESPONSE, MailboxName, Mechanism, NameEncoding, ProtocolError, Sasl,
    format_date_time, parse_date_time,
};

fn events<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Event>, Option<ProtocolError>) {
    let mut client = Client::new();
    let mut events: Vec<Event> = Vec::new();
    for _ in 0..40 {
        client.send(Command::noop());
    }
    for piece in pieces {
        client.feed(Bytes::copy_from_slice(piece));
        loop {
            match client.event() {
                // A body comes in other steps when the octets do.
                Ok(Some(Event::BodyOctets(more))) => match events.last_mut() {
                    Some(Event::BodyOctets(held)) => *held = [&held[..], &more[..]].concat().into(),
                    _ => events.push(Event::BodyOctets(more)),
                },
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(error) => return (events, Some(error)),
            }
        }
        // What is not a body is held up to the limit of a response.
        assert!(client.buffered() <= piece.len() + 16 * MAX_RESPONSE + 64 * 1024);
    }
    (events, None)
}

/// Answers are the same events however the stream is cut.
pub fn answers(octets: &[u8]) {
    assert_eq!(events([octets]), events(pieces(octets)));
}

/// Names, dates and challenges: what is read is written so that it is read alike.
pub fn parts(octets: &[u8]) {
    for encoding in [NameEncoding::ModifiedUtf7, NameEncoding::Utf8] {
        let name = MailboxName::from_wire(octets, encoding);
        let written = name.to_wire(encoding).into_owned();
        assert_eq!(MailboxName::from_wire(&written, encoding), name);
        if name.is_raw() {
            assert_eq!(written, octets, "what cannot be decoded keeps its octets");
        }
    }
    if let Some(second) = parse_date_time(octets) {
        assert_eq!(parse_date_time(format_date_time(second).as_bytes()), Some(second));
    }
    let credentials = Credentials {
        user: "press".to_owned(),
        acting_for: None,
        secret: "correct horse battery".to_owned().into(),
        server: None,
    };
    for mechanism in [
        Mechanism::ScramSha256,
        Mechanism::ScramSha1,
        Mechanism::Plain,
        Mechanism::OAuthBearer,
    ] {
        let Ok(mut sasl) = Sasl::new(mechanism, &credentials, "nonce") else {
            continue;
        };
        let _ = sasl.initial();
        for challenge in octets.split(|octet| *octet == b'\n').take(4) {
            if sasl.challenge(challenge).is_err() {
                break;
            }
        }
        if matches!(mechanism, Mechanism::ScramSha256 | Mechanism::ScramSha1) {
            assert!(sasl.finish().is_err(), "a server without the password is not believed");
        }
    }
}

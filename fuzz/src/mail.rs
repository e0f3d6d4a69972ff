//! Mail that is delivered, the other server of a delivery, and what lies in Maildirs and ledgers.

use crate::pieces;
use rehome_mailbox::maildir::fuzz;
use rehome_replicate::ledger::{Intents, KeywordTable, UidMap, decode_records};
use rehome_wire::{
    smtp::{Client, ClientConfig, Mode, Server, ServerConfig, ServerEvent, TlsPolicy},
    trace_header::TraceHeaders,
};

/// Everything that a mail server's driver sees and sends of one input.
fn served(mode: Mode, pieces: &[&[u8]]) -> (Vec<ServerEvent>, Vec<u8>) {
    let mut server = Server::new(ServerConfig {
        mode,
        host_name: "mail.fabrikam.example".to_owned(),
        max_message: 4096,
        starttls: true,
    });
    let (mut events, mut output) = (Vec::new(), server.take_output().to_vec());
    for piece in pieces {
        server.push(piece);
        while let Some(event) = server.next() {
            match &event {
                ServerEvent::Mail { .. } | ServerEvent::Rcpt { .. } | ServerEvent::DataStart => server.accept(),
                ServerEvent::DataEnd => (0..server.accepted_recipients().max(1)).for_each(|_| server.accept()),
                _ => {}
            }
            match (events.last_mut(), event) {
                (Some(ServerEvent::DataOctets(held)), ServerEvent::DataOctets(more)) => {
                    *held = [&held[..], &more[..]].concat().into();
                }
                (_, event) => events.push(event),
            }
        }
        output.extend_from_slice(&server.take_output());
    }
    (events, output)
}

/// A session is the same however the octets are cut, and a message is never longer than was allowed.
pub fn smtp_server(octets: &[u8]) {
    // What comes with DATA or STARTTLS before its answer is refused or dropped, so there the cuts count.
    let waits = [&b"data"[..], b"starttls"]
        .iter()
        .any(|word| octets.windows(word.len()).any(|found| found.eq_ignore_ascii_case(word)));
    for mode in [Mode::Smtp, Mode::Lmtp] {
        let (whole, cut) = (served(mode, &[octets]), served(mode, &pieces(octets)));
        assert!(waits || whole == cut, "{whole:?}\n{cut:?}");
        for event in whole.0.into_iter().chain(cut.0) {
            if let ServerEvent::DataOctets(octets) = event {
                assert!(octets.len() <= 4096);
            }
        }
    }
}

/// A server's replies end in events or an error, never in a wait that holds more than a reply may be long.
pub fn smtp_client(octets: &[u8]) {
    for mode in [Mode::Smtp, Mode::Lmtp] {
        let mut client = Client::new(ClientConfig {
            mode,
            host_name: "mail.contoso.example".to_owned(),
            tls: TlsPolicy::Opportunistic,
        });
        for (at, piece) in pieces(octets).into_iter().enumerate() {
            client.push(piece);
            while let Ok(Some(_)) = client.next() {}
            let _ = match at {
                2 => client.mail(Some("press@contoso.example"), Some(9), true),
                3 => client.rcpt("orders@fabrikam.example").map(|_| ()),
                4 => client.data(),
                5 => client.data_octets(b".\r\nx\r\n").and_then(|()| client.data_end()),
                _ => Ok(()),
            };
            let _ = client.take_output();
        }
    }
    let trace = TraceHeaders::read(octets);
    assert!(trace.count_for("fabrikam") as usize <= octets.len());
}

/// Files and names of a Maildir.
pub fn maildir(octets: &[u8]) {
    fuzz::uidlist(octets);
    fuzz::keywords(octets);
    let name: Vec<u8> = octets
        .iter()
        .copied()
        .filter(|octet| *octet != 0 && *octet != b'/')
        .take(255)
        .collect();
    fuzz::item_name(&name);
    fuzz::directory(&name);
}

/// What the database holds of a ledger: refused or read, and the same when it is written again.
pub fn ledger(octets: &[u8]) {
    if let Ok(map) = UidMap::decode(octets) {
        assert_eq!(
            UidMap::decode(&map.encode()).map(|again| again.encode()).ok(),
            Some(map.encode())
        );
    }
    if let Ok(intents) = Intents::decode(octets) {
        assert_eq!(
            Intents::decode(&intents.encode()).map(|again| again.encode()).ok(),
            Some(intents.encode())
        );
    }
    let _ = decode_records(0, &KeywordTable::default(), octets);
}

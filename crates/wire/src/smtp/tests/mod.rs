//! Transcripts: `C:` and `S:` are lines of client and server, `E:` the events, `A:` the driver's answers.

mod client;
mod server;

use proptest::prelude::*;

use super::*;

fn server(mode: Mode) -> Server {
    Server::new(ServerConfig {
        mode,
        host_name: "mx.fabrikam.example".into(),
        max_message: 100,
        starttls: true,
    })
}

fn client(mode: Mode, tls: TlsPolicy) -> Client {
    Client::new(ClientConfig {
        mode,
        host_name: "mail.contoso.example".into(),
        tls,
    })
}

fn lines(output: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(output).into_owned();
    text.split_terminator("\r\n").map(str::to_owned).collect()
}

/// Client against server, for any message whose line ends are in order and any pieces.
fn round_trip(mode: Mode, message: &[u8], piece: usize) -> Vec<u8> {
    let mut server = Server::new(ServerConfig {
        mode,
        host_name: "mx.fabrikam.example".into(),
        max_message: 1 << 20,
        starttls: false,
    });
    let mut client = client(mode, TlsPolicy::Opportunistic);
    let mut arrived = Vec::new();
    let mut finals = 0;
    let mut rest = message;
    loop {
        for part in server.take_output().chunks(piece) {
            client.push(part);
        }
        while let Some(event) = client.next().unwrap() {
            match event {
                ClientEvent::Ready => {
                    client.mail(None, Some(message.len() as u64), true).unwrap();
                    client.rcpt("b@fabrikam.example").unwrap();
                    client.rcpt("c@fabrikam.example").unwrap();
                }
                ClientEvent::RecipientReply { recipient: 1, .. } => client.data().unwrap(),
                ClientEvent::DataReply(_) => {
                    while !rest.is_empty() {
                        let (part, later) = rest.split_at(piece.min(rest.len()));
                        client.data_octets(part).unwrap();
                        rest = later;
                    }
                    client.data_end().unwrap();
                }
                ClientEvent::FinalReply(_) => {
                    finals += 1;
                    client.quit().unwrap();
                }
                ClientEvent::RecipientFinalReply { recipient, .. } => {
                    finals += 1;
                    if recipient == 1 {
                        client.quit().unwrap();
                    }
                }
                ClientEvent::QuitReply(_) => {
                    assert_eq!(finals, if mode == Mode::Smtp { 1 } else { 2 });
                    return arrived;
                }
                ClientEvent::MailReply(reply) | ClientEvent::RecipientReply { reply, .. } => {
                    assert!(reply.is_positive(), "{reply}");
                }
                other => panic!("{other:?}"),
            }
        }
        for part in client.take_output().chunks(piece) {
            server.push(part);
        }
        while let Some(event) = server.next() {
            match event {
                ServerEvent::DataOctets(octets) => arrived.extend(octets),
                ServerEvent::Mail { .. } | ServerEvent::Rcpt { .. } | ServerEvent::DataStart => server.accept(),
                ServerEvent::DataEnd => {
                    server.accept();
                    server.accept();
                }
                ServerEvent::EhloOrHelo { .. } | ServerEvent::Quit => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

proptest! {
    #[test]
    fn a_message_arrives_as_it_was_sent(
        lines in prop::collection::vec(prop::collection::vec(prop_oneof![Just(b'.'), any::<u8>()], 0..30), 1..12),
        piece in 1usize..40,
        lmtp in any::<bool>(),
    ) {
        let message: Vec<u8> = lines
            .iter()
            .flat_map(|line| line.iter().copied().filter(|o| !matches!(o, b'\r' | b'\n')).chain(*b"\r\n"))
            .collect();
        let mode = if lmtp { Mode::Lmtp } else { Mode::Smtp };
        prop_assert_eq!(round_trip(mode, &message, piece), message);
    }

    #[test]
    fn a_server_survives_any_octets(octets in prop::collection::vec(any::<u8>(), 0..200), agree in any::<bool>()) {
        let mut server = server(Mode::Smtp);
        server.push(b"EHLO x\r\n");
        server.push(&octets);
        while let Some(_event) = server.next() {
            if agree { server.accept() } else { server.reject(550, "5.0.0", "No") }
        }
    }

    #[test]
    fn a_client_survives_any_octets(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut client = client(Mode::Smtp, TlsPolicy::Opportunistic);
        client.push(b"220 x\r\n");
        client.push(&octets);
        while let Ok(Some(_)) = client.next() {}
    }
}

//! Transcripts against a client.

use super::*;

/// A short word for an event.
fn client_word(event: &ClientEvent) -> String {
    match event {
        ClientEvent::StartTls => "starttls".into(),
        ClientEvent::Ready => "ready".into(),
        ClientEvent::MailReply(reply) => format!("mail {}", reply.code),
        ClientEvent::RecipientReply { recipient, reply } => {
            format!("rcpt {recipient} {}", reply.code)
        }
        ClientEvent::DataReply(reply) => format!("data {}", reply.code),
        ClientEvent::FinalReply(reply) => format!("final {reply}"),
        ClientEvent::RecipientFinalReply { recipient, reply } => {
            format!("final {recipient} {}", reply.code)
        }
        ClientEvent::ResetReply(reply) => format!("reset {}", reply.code),
        ClientEvent::QuitReply(reply) => format!("quit {}", reply.code),
        ClientEvent::Closing(reply) => format!("closing {}", reply.code),
    }
}

/// Plays a transcript against a client. `S:` sends a line; `C:` and `E:` must be the client's next line and the next
/// event, `E: none` that there is neither; `D:` is a call of the driver.
fn play_client(mode: Mode, tls: TlsPolicy, transcript: &str) -> Result<(), ClientError> {
    let mut client = client(mode, tls);
    let mut pending: Vec<String> = Vec::new();
    for (number, step) in transcript.lines().map(str::trim).enumerate() {
        let Some((actor, rest)) = step.split_at_checked(2) else {
            continue;
        };
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        match actor {
            "S:" => {
                pending.extend(lines(&client.take_output()));
                assert!(pending.is_empty(), "line {number}: unread {pending:?}");
                client.push(format!("{rest}\r\n").as_bytes());
            }
            "C:" => {
                pending.extend(lines(&client.take_output()));
                assert!(
                    !pending.is_empty(),
                    "line {number}: the client sent nothing, not {rest}"
                );
                assert_eq!(pending.remove(0), rest, "line {number}");
            }
            "E:" => {
                let event = client.next()?.map_or("none".into(), |event| client_word(&event));
                assert_eq!(event, rest, "line {number}");
                pending.extend(lines(&client.take_output()));
            }
            "D:" => match rest.splitn(2, ' ').collect::<Vec<_>>()[..] {
                ["mail", "<>"] => client.mail(None, Some(70), true)?,
                ["mail", from] => client.mail(Some(from), None, false)?,
                ["rcpt", to] => client.rcpt(to).map(drop)?,
                ["data"] => client.data()?,
                ["octets", octets] => {
                    client.data_octets(octets.replace("\\r", "\r").replace("\\n", "\n").as_bytes())?;
                }
                ["end"] => client.data_end()?,
                ["reset"] => client.reset()?,
                ["quit"] => client.quit()?,
                ["tls"] => client.tls_started(),
                _ => panic!("line {number}: {rest}"),
            },
            _ => panic!("line {number}: {step}"),
        }
    }
    Ok(())
}

const GREETING: &str = "S: 220-mx.fabrikam.example
    S: 220 welcome
    E: none
    C: EHLO mail.contoso.example
    S: 250-mx.fabrikam.example
    S: 250-SIZE 1000
    S: 250-8bitmime
    ";

fn smtp_client(tls: TlsPolicy, transcript: &str) -> Result<(), ClientError> {
    play_client(Mode::Smtp, tls, &format!("{GREETING}\n{transcript}"))
}

#[test]
fn opening_with_tls() {
    smtp_client(
        TlsPolicy::Required,
        "S: 250 STARTTLS
        E: none
        C: STARTTLS
        S: 220 go
        E: starttls
        E: none
        D: tls
        C: EHLO mail.contoso.example
        S: 250-mx.fabrikam.example
        S: 250 STARTTLS
        E: ready",
    )
    .unwrap();
    smtp_client(
        TlsPolicy::Opportunistic,
        "S: 250 STARTTLS
        E: none
        C: STARTTLS
        S: 454 4.7.0 no certificate
        E: ready",
    )
    .unwrap();
    smtp_client(TlsPolicy::Never, "S: 250 STARTTLS\nE: ready\nE: none").unwrap();
    smtp_client(TlsPolicy::Opportunistic, "S: 250 HELP\nE: ready").unwrap();

    assert_eq!(
        smtp_client(TlsPolicy::Required, "S: 250 HELP\nE: ready"),
        Err(ClientError::TlsNotOffered)
    );
    assert_eq!(
        smtp_client(
            TlsPolicy::Required,
            "S: 250 STARTTLS\nE: none\nC: STARTTLS\nS: 454 4.7.0 no\nE: none"
        ),
        Err(ClientError::TlsRefused(Reply::new(454, "4.7.0", "no")))
    );
    for injected in [
        "S: 220 go\nS: 250 mine\nE: none",
        "S: 220 go\nE: starttls\nS: 250 mine\nE: none",
    ] {
        assert_eq!(
            smtp_client(
                TlsPolicy::Required,
                &format!("S: 250 STARTTLS\nE: none\nC: STARTTLS\n{injected}")
            ),
            Err(ClientError::PlaintextBehindStartTls)
        );
    }
}

#[test]
fn opening_is_refused_or_falls_back() {
    let play = |mode, transcript| play_client(mode, TlsPolicy::Opportunistic, transcript);
    play(
        Mode::Smtp,
        "S: 220 old
        E: none
        C: EHLO mail.contoso.example
        S: 502 what
        E: none
        C: HELO mail.contoso.example
        S: 250 hi
        E: ready",
    )
    .unwrap();
    let refused = |stage, code, enhanced, text| {
        Err(ClientError::Refused {
            stage,
            reply: Reply::new(code, enhanced, text),
        })
    };
    assert_eq!(
        play(Mode::Smtp, "S: 554 5.7.1 go away\nE: none"),
        refused(OpenStage::Greeting, 554, "5.7.1", "go away")
    );
    assert_eq!(
        play(
            Mode::Lmtp,
            "S: 220 x\nE: none\nC: LHLO mail.contoso.example\nS: 500 no\nE: none"
        ),
        refused(OpenStage::Hello, 500, "", "no")
    );
    assert_eq!(
        play(
            Mode::Smtp,
            "S: 220 x\nE: none\nC: EHLO mail.contoso.example\nS: 421 busy\nE: none"
        ),
        refused(OpenStage::Hello, 421, "", "busy")
    );
    assert!(matches!(
        play(Mode::Smtp, "S: hello\nE: none"),
        Err(ClientError::Reply(_))
    ));
}

#[test]
fn sending_one_command_at_a_time() {
    smtp_client(
        TlsPolicy::Never,
        "S: 250 HELP
        E: ready
        D: mail <>
        D: rcpt b@fabrikam.example
        D: rcpt c@fabrikam.example
        C: MAIL FROM:<> SIZE=70 BODY=8BITMIME
        E: none
        S: 250 ok
        E: mail 250
        C: RCPT TO:<b@fabrikam.example>
        S: 550 5.1.1 no
        E: rcpt 0 550
        C: RCPT TO:<c@fabrikam.example>
        S: 250 ok
        E: rcpt 1 250
        D: data
        C: DATA
        S: 354 go
        E: data 354
        D: octets .a\\n.
        C: ..a
        C: ..
        D: octets b\\r
        C: b
        D: end
        C: 
        C: .
        S: 250 2.0.0 queued
        E: final 250 2.0.0 queued
        D: reset
        C: RSET
        S: 250 ok
        E: reset 250
        D: quit
        C: QUIT
        S: 221 bye
        E: quit 221
        S: 421 gone
        E: closing 421",
    )
    .unwrap();
}

#[test]
fn sending_in_a_group_by_lmtp() {
    play_client(
        Mode::Lmtp,
        TlsPolicy::Opportunistic,
        "S: 220 x
        E: none
        C: LHLO mail.contoso.example
        S: 250-x
        S: 250 PIPELINING
        E: ready
        D: mail a@contoso.example
        D: rcpt b@fabrikam.example
        D: rcpt c@fabrikam.example
        D: rcpt d@fabrikam.example
        C: MAIL FROM:<a@contoso.example>
        C: RCPT TO:<b@fabrikam.example>
        C: RCPT TO:<c@fabrikam.example>
        C: RCPT TO:<d@fabrikam.example>
        S: 250 ok
        S: 250 ok
        S: 450 4.2.1 later
        S: 250 ok
        E: mail 250
        E: rcpt 0 250
        E: rcpt 1 450
        E: rcpt 2 250
        D: data
        C: DATA
        S: 354 go
        E: data 354
        D: octets x\\r\\n
        D: end
        C: x
        C: .
        S: 250 ok
        S: 452 4.2.2 full
        E: final 0 250
        E: final 2 452
        E: none",
    )
    .unwrap();
}

#[test]
fn calls_that_are_refused() {
    let ready = "S: 250 PIPELINING\nE: ready\n";
    let sending = "D: mail a@b\nD: rcpt c@d\nC: MAIL FROM:<a@b>\nC: RCPT TO:<c@d>\n\
        S: 250 ok\nS: 250 ok\nE: mail 250\nE: rcpt 0 250\nD: data\nC: DATA\n";
    let address = |text: &str| ClientError::Address(text.to_owned());
    let rows: Vec<(String, ClientError)> = vec![
        ("D: mail a@b".into(), ClientError::OutOfOrder("MAIL")),
        (format!("{ready}D: mail a@b>\\r"), address("a@b>\\r")),
        (format!("{ready}D: rcpt ä@b"), address("ä@b")),
        (format!("{ready}D: rcpt <c@d>"), address("<c@d>")),
        (
            format!("{ready}D: data"),
            ClientError::OutOfOrder("DATA without a recipient"),
        ),
        (
            format!("{ready}D: octets x"),
            ClientError::OutOfOrder("message content"),
        ),
        (
            format!("{ready}D: end"),
            ClientError::OutOfOrder("the end of the message"),
        ),
        (format!("{ready}{sending}D: quit"), ClientError::OutOfOrder("QUIT")),
        (
            format!("{ready}{sending}S: 354 go\nE: data 354\nD: octets a\\rb"),
            ClientError::LoneCr,
        ),
        (
            format!("{ready}S: 250 surprise\nE: none"),
            ClientError::Unexpected(Reply::new(250, "", "surprise")),
        ),
    ];
    for (transcript, error) in rows {
        assert_eq!(smtp_client(TlsPolicy::Never, &transcript), Err(error), "{transcript}");
    }
    // An early answer waits for the end of the message; a hang-up does not.
    smtp_client(
        TlsPolicy::Never,
        &format!(
            "{ready}{sending}S: 354 go\nE: data 354\nS: 552 5.3.4 large\nE: none\n\
             D: octets x\nC: x\nD: end\nC: \nC: .\nE: final 552 5.3.4 large"
        ),
    )
    .unwrap();
    smtp_client(
        TlsPolicy::Never,
        &format!("{ready}{sending}S: 354 go\nE: data 354\nS: 421 down\nE: closing 421"),
    )
    .unwrap();
}

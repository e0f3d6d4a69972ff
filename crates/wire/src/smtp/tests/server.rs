//! Transcripts against a server.

use super::*;

/// A short word for an event.
fn word(event: &ServerEvent) -> String {
    match event {
        ServerEvent::EhloOrHelo { name, extended } => format!("hello {name} {extended}"),
        ServerEvent::StartTls => "starttls".into(),
        ServerEvent::Mail { from, size, body } => {
            let size = size.map_or("-".into(), |size| size.to_string());
            format!("mail {} {size} {body:?}", from.as_deref().unwrap_or("<>"))
        }
        ServerEvent::Rcpt { to } => format!("rcpt {to}"),
        ServerEvent::DataStart => "data".into(),
        ServerEvent::DataOctets(octets) => format!("octets {:?}", String::from_utf8_lossy(octets)),
        ServerEvent::DataEnd => "end".into(),
        ServerEvent::DataRefused(reply) => format!("refused {}", reply.code),
        ServerEvent::Reset => "reset".into(),
        ServerEvent::Quit => "quit".into(),
    }
}

/// Plays a transcript against a server. `C:` sends a line, `C>` octets with escapes; `S:` and `E:` must be the next
/// line and the next event; `A: ok`, `A: code enhanced text` and `A: tls` are the driver's.
fn play_server(mode: Mode, transcript: &str) {
    let mut server = server(mode);
    let mut pending: Vec<String> = Vec::new();
    for (number, step) in transcript.lines().map(str::trim).enumerate() {
        let Some((actor, rest)) = step.split_at_checked(2) else {
            continue;
        };
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        if actor == "S:" && pending.is_empty() {
            pending = lines(&server.take_output());
        } else if actor != "S:" {
            pending.extend(lines(&server.take_output()));
            assert!(actor == "E:" || pending.is_empty(), "line {number}: unread {pending:?}");
        }
        match actor {
            "C:" => server.push(format!("{rest}\r\n").as_bytes()),
            "C>" => server.push(rest.replace("\\r", "\r").replace("\\n", "\n").as_bytes()),
            "S:" => {
                assert!(
                    !pending.is_empty(),
                    "line {number}: the server said nothing, not {rest}"
                );
                assert_eq!(pending.remove(0), rest, "line {number}");
            }
            "E:" => {
                let event = server.next().map_or("none".into(), |event| word(&event));
                assert_eq!(event, rest, "line {number}");
            }
            "A:" => match rest.splitn(3, ' ').collect::<Vec<_>>()[..] {
                ["ok"] => server.accept(),
                ["tls"] => server.tls_started(),
                [code, enhanced, text] => server.reject(code.parse().unwrap(), enhanced, text),
                _ => panic!("line {number}: {rest}"),
            },
            _ => panic!("line {number}: {step}"),
        }
    }
    assert_eq!(server.next(), None);
    assert!(lines(&server.take_output()).is_empty());
}

const OPEN: &str = "S: 220 mx.fabrikam.example ESMTP ready
    C: EHLO mail.contoso.example
    E: hello mail.contoso.example true
    S: 250-mx.fabrikam.example
    S: 250-PIPELINING
    S: 250-8BITMIME
    S: 250-ENHANCEDSTATUSCODES
    S: 250-STARTTLS
    S: 250 SIZE 100
    ";

const OPEN_LMTP: &str = "S: 220 mx.fabrikam.example LMTP ready
    C: LHLO mail.contoso.example
    E: hello mail.contoso.example true
    S: 250-mx.fabrikam.example
    S: 250-PIPELINING
    S: 250-8BITMIME
    S: 250-ENHANCEDSTATUSCODES
    S: 250-STARTTLS
    S: 250 SIZE 100
    ";

fn smtp(transcript: &str) {
    play_server(Mode::Smtp, &format!("{OPEN}\n{transcript}"));
}

#[test]
fn one_message() {
    smtp(
        "C: MAIL FROM:<a@contoso.example> SIZE=50 BODY=8BITMIME
        E: mail a@contoso.example 50 EightBitMime
        E: none
        A: ok
        S: 250 2.1.0 Sender accepted
        C: rcpt to: <b@fabrikam.example>
        E: rcpt b@fabrikam.example
        A: ok
        S: 250 2.1.5 Recipient accepted
        C: RCPT TO:<c@fabrikam.example>
        E: rcpt c@fabrikam.example
        A: 550 5.1.1 No such recipient
        S: 550 5.1.1 No such recipient
        C: DATA
        E: data
        A: ok
        S: 354 End the message with a dot
        C> Subject: x\\r\\n\\r\\n..one\\r\\n.\\r\\nQUIT\\r\\n
        E: octets \"Subject: x\\r\\n\\r\\n.one\\r\\n\"
        E: end
        E: none
        A: ok
        S: 250 2.0.0 Message accepted
        E: quit
        S: 221 2.0.0 Bye
        E: none",
    );
}

#[test]
fn a_pipelined_group_is_answered_in_order() {
    smtp(
        "C> MAIL FROM:<>\\r\\nRCPT TO:<b@fabrikam.example>\\r\\nRCPT TO:<bad>\\r\\nDATA\\r\\n
        E: mail <> - SevenBit
        A: ok
        E: rcpt b@fabrikam.example
        S: 250 2.1.0 Sender accepted
        A: ok
        E: data
        S: 250 2.1.5 Recipient accepted
        S: 501 5.1.3 an address is written <local-part@domain>
        A: 451 4.3.0 Not now
        S: 451 4.3.0 Not now
        C: RSET
        E: reset
        S: 250 2.0.0 OK",
    );
}

#[test]
fn orders_and_parameters_that_are_refused() {
    smtp(
        "C: RCPT TO:<b@fabrikam.example>
        E: none
        S: 503 5.5.1 Name the sender first
        C: DATA
        E: none
        S: 503 5.5.1 No valid recipients
        C: MAIL <a@b>
        E: none
        S: 501 5.5.4 Say MAIL FROM:<address>
        C: MAIL FROM:<a@b> SIZE=101
        E: none
        S: 552 5.3.4 The message is too large
        C: MAIL FROM:<a@b> SIZE=x
        E: none
        S: 501 5.5.4 Bad value of a parameter
        C: MAIL FROM:<a@b> SMTPUTF8
        E: none
        S: 555 5.5.4 Unknown parameter of MAIL
        C: MAIL FROM:<ä@b>
        E: none
        S: 553 5.6.7 addresses outside ASCII are not supported
        C: EHLO ä
        E: none
        S: 500 5.5.2 Bad octet in command
        C: MAIL FROM:<a@b>
        E: mail a@b - SevenBit
        A: ok
        S: 250 2.1.0 Sender accepted
        C: MAIL FROM:<a@b>
        E: none
        S: 503 5.5.1 A transaction is open already
        C: RCPT TO:<a@b> NOTIFY=NEVER
        E: none
        S: 555 5.5.4 Unknown parameter of RCPT
        C: LHLO x
        E: none
        S: 500 5.5.1 This is SMTP, say EHLO
        C: HELO x
        E: hello x false
        S: 250 mx.fabrikam.example
        C: DATA now
        E: none
        S: 501 5.5.4 This command has no parameters
        C: NOOP x
        E: none
        S: 250 2.0.0 OK
        C: VRFY x
        E: none
        S: 252 2.5.0 Send mail to find out
        C: BDAT 1
        E: none
        S: 502 5.5.1 Command not implemented
        C> NOOP\\n
        E: none
        S: 500 5.5.2 A command ends with CR LF
        C> NO\\rOP\\r\\n
        E: none
        S: 500 5.5.2 Bad octet in command
        C: EHLO
        E: none
        S: 501 5.5.4 Say your host name
        C: XYZZY
        E: none
        S: 500 5.5.2 Unknown command",
    );
    play_server(
        Mode::Smtp,
        "S: 220 mx.fabrikam.example ESMTP ready
        C: MAIL FROM:<a@b>
        E: none
        S: 503 5.5.1 Say hello first",
    );
}

#[test]
fn a_message_hidden_behind_bare_line_ends_is_refused_whole() {
    smtp(
        "C: MAIL FROM:<a@b>
        E: mail a@b - SevenBit
        A: ok
        S: 250 2.1.0 Sender accepted
        C: RCPT TO:<c@d>
        E: rcpt c@d
        A: ok
        S: 250 2.1.5 Recipient accepted
        C: DATA
        E: data
        A: ok
        S: 354 End the message with a dot
        C> one\\n.\\r\\nMAIL FROM:<x@y>\\r\\n
        E: octets \"one\"
        E: none
        C> .\\r\\n
        E: refused 554
        S: 554 5.6.0 CR and LF must stand together
        C: DATA
        E: none
        S: 503 5.5.1 No valid recipients",
    );
}

#[test]
fn octets_behind_data_end_the_connection() {
    smtp(
        "C: MAIL FROM:<a@b>
        E: mail a@b - SevenBit
        A: ok
        S: 250 2.1.0 Sender accepted
        C: RCPT TO:<c@d>
        E: rcpt c@d
        A: ok
        S: 250 2.1.5 Recipient accepted
        C> DATA\\r\\nMAIL FROM:<x@y>\\r\\n
        E: quit
        S: 421 4.5.0 Data before the answer to DATA
        C: NOOP
        E: none",
    );
}

#[test]
fn starttls_forgets_what_came_before() {
    smtp(
        "C: MAIL FROM:<a@b>
        E: mail a@b - SevenBit
        A: ok
        S: 250 2.1.0 Sender accepted
        C> STARTTLS\\r\\nRCPT TO:<injected@contoso.example>\\r\\n
        E: starttls
        S: 220 2.0.0 Begin TLS
        C: NOOP
        E: none
        A: tls
        C: RCPT TO:<c@d>
        E: none
        S: 503 5.5.1 Name the sender first
        C: MAIL FROM:<a@b>
        E: none
        S: 503 5.5.1 Say hello first
        C: EHLO x
        E: hello x true
        S: 250-mx.fabrikam.example
        S: 250-PIPELINING
        S: 250-8BITMIME
        S: 250-ENHANCEDSTATUSCODES
        S: 250 SIZE 100
        C: STARTTLS
        E: none
        S: 503 5.5.1 TLS is active already",
    );
}

#[test]
fn too_large_a_message_is_read_and_refused() {
    let long = "x".repeat(90);
    smtp(&format!(
        "C: MAIL FROM:<a@b>
        E: mail a@b - SevenBit
        A: ok
        S: 250 2.1.0 Sender accepted
        C: RCPT TO:<c@d>
        E: rcpt c@d
        A: ok
        S: 250 2.1.5 Recipient accepted
        C: DATA
        E: data
        A: ok
        S: 354 End the message with a dot
        C: {long}
        E: octets \"{long}\\r\\n\"
        C: {long}
        E: none
        C: .
        E: refused 552
        S: 552 5.3.4 The message is too large"
    ));
}

#[test]
fn a_driver_may_end_the_connection() {
    smtp(
        "C: MAIL FROM:<a@b>
        E: mail a@b - SevenBit
        A: 421 4.3.2 Going down
        E: quit
        S: 421 4.3.2 Going down
        C: NOOP
        E: none",
    );
    let mut server = server(Mode::Smtp);
    server.take_output();
    server.close(&Reply::new(421, "4.4.2", "Too slow"));
    server.close(&Reply::new(421, "4.4.2", "Too slow"));
    server.push(b"NOOP\r\n");
    assert_eq!(server.next(), None);
    assert_eq!(lines(&server.take_output()), ["421 4.4.2 Too slow"]);
}

#[test]
fn lmtp_answers_for_each_accepted_recipient() {
    play_server(
        Mode::Lmtp,
        &format!(
            "{OPEN_LMTP}
            C: EHLO x
            E: none
            S: 500 5.5.1 This is LMTP, say LHLO
            C> MAIL FROM:<a@b>\\r\\nRCPT TO:<one@d>\\r\\nRCPT TO:<two@d>\\r\\nRCPT TO:<three@d>\\r\\nDATA\\r\\n
            E: mail a@b - SevenBit
            A: ok
            E: rcpt one@d
            S: 250 2.1.0 Sender accepted
            A: ok
            E: rcpt two@d
            S: 250 2.1.5 Recipient accepted
            A: 550 5.1.1 Unknown
            E: rcpt three@d
            S: 550 5.1.1 Unknown
            A: ok
            E: data
            S: 250 2.1.5 Recipient accepted
            A: ok
            S: 354 End the message with a dot
            C> x\\r\\n.\\r\\n
            E: octets \"x\\r\\n\"
            E: end
            A: ok
            S: 250 2.0.0 Message accepted
            E: none
            A: 452 4.2.2 Mailbox full
            S: 452 4.2.2 Mailbox full
            E: none
            C: MAIL FROM:<a@b>
            E: mail a@b - SevenBit
            A: ok
            S: 250 2.1.0 Sender accepted"
        ),
    );
}

#[test]
fn limits_of_lines_recipients_and_errors() {
    let mut server = server(Mode::Smtp);
    server.push(b"EHLO x\r\n");
    assert!(server.next().is_some());
    server.take_output();
    for _ in 0..10 {
        server.push(&[b'x'; MAX_COMMAND_LINE]);
        assert_eq!(server.next(), None);
    }
    server.push(b"\r\nMAIL FROM:<a@b>\r\n");
    assert!(matches!(server.next(), Some(ServerEvent::Mail { .. })));
    server.accept();
    for number in 0..=MAX_RECIPIENTS {
        server.push(format!("RCPT TO:<r{number}@d>\r\n").as_bytes());
        assert_eq!(server.next().is_some(), number < MAX_RECIPIENTS);
        server.accept();
    }
    assert_eq!(server.accepted_recipients(), MAX_RECIPIENTS);
    let said = lines(&server.take_output());
    assert_eq!(said[0], "500 5.5.6 Line too long");
    assert_eq!(said.last().unwrap(), "452 4.5.3 Too many recipients");

    for _ in 0..19 {
        server.push(b"XYZZY\r\n");
        assert_eq!(server.next(), None);
    }
    server.push(b"XYZZY\r\n");
    assert_eq!(server.next(), Some(ServerEvent::Quit));
    assert_eq!(
        lines(&server.take_output()).last().unwrap(),
        "421 4.7.0 Too many errors"
    );
}

//! Promises that end by hand, over two real processes: without the target's word, with its signed statement, and every way in
//! which that is refused.

use crate::jose::{Key, now};
use crate::pair::{Pair, Plan, SOURCE, TARGET, text};
use crate::{deployment::LONG, interceptor::Action};
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener};

fn source_address(name: &str) -> String {
    format!("{name}@{SOURCE}")
}

/// The words that resolve a mailbox, and more.
fn resolve<'a>(name: &'a str, outcome: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["Resolve-OutboundMigration", name, "-Outcome", outcome][..], more].concat()
}

/// The target has decided and is gone. The source's administrator opens the mailbox again by force; mail comes to it; the
/// target comes back, and catches up.
#[test]
fn a_forced_reopening_is_caught_up() {
    let mut pair = Pair::ready(&Plan::default());
    pair.starts_batch("wave-1", &["press"], &[]);
    pair.is_synced("press");
    pair.target_server().kill();
    pair.target_server().start_to_die_at("target.decide", 1);
    pair.completes_batch("wave-1");
    pair.target_server().dies(LONG);
    pair.outbound_is("press", "Prepared");

    let address = source_address("press");
    let source = pair.source.clone();
    for (more, outcome) in [
        (&[][..], "Aborted"),
        (&[], "Committed"),
        (&["-Force"], "Committed"),
        (&["-Force", "-ConfirmMailbox", &address], "Committed"),
        (&["-Force"], "Aborted"),
        (&["-Force", "-ConfirmMailbox", "orders@contoso.example"], "Aborted"),
    ] {
        source.is_refused("InvalidOperationException", &resolve("press", outcome, more));
    }
    let unread = source.is_refused("InvalidOperationException", &resolve("press", "Aborted", &["-Force"]));
    assert!(
        unread.message.contains("two mailboxes") && unread.advice.contains(&address),
        "{unread:?}"
    );
    assert_eq!(text(&pair.outbound("press").expect("it is there"), "State"), "Prepared");

    let forced = source
        .run(&resolve("press", "Aborted", &["-Force", "-ConfirmMailbox", &address]))
        .expect("it is forced");
    assert_eq!(text(&forced.objects[0], "Ground"), "Forced");
    assert!(forced.said.contains("two mailboxes"), "{}", forced.said);
    pair.outbound_is("press", "Reopened");
    let port = pair.source_server().smtp_port;
    pair.written("press").gets_mail(port, &address, false);
    pair.written("press").gets_mail(port, &address, false);
    source.is_refused(
        "InvalidOperationException",
        &resolve("press", "Aborted", &["-Force", "-ConfirmMailbox", &address]),
    );

    pair.target_server().start();
    pair.is_completed("press");
    pair.outbound_is("press", "Moved");
    pair.written("press").gets_mail(port, &address, true);
    pair.has_moved("press");
    // Nothing that was done by hand is without a record.
    let log = pair.target_server().log();
    assert!(
        log.contains("ALERT") && log.contains("opened the mailbox again by hand"),
        "{log}"
    );
}

/// The target has decided, and the two servers cannot talk: its signed statement is taken, and only for what it states.
#[test]
fn a_statement_ends_a_promise() {
    let names = ["orders", "press"];
    let mut pair = Pair::ready(&Plan {
        mailboxes: &names,
        between: "interceptor",
        ..Plan::default()
    });
    // From the source nothing reaches the target any more, and from the target no Commit the source.
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let nowhere: SocketAddr = closed.local_addr().expect("it has an address");
    drop(closed);
    let target_name = pair.target_server().name();
    let server = pair.source_server();
    server.settings.overrides.insert(target_name, nowhere);
    server.stop();
    server.configure();
    server.start();
    pair.starts_batch("wave-1", &names, &[]);
    for name in names {
        pair.is_synced(name);
    }
    pair.interceptor().rule(|seen| match seen.is_verb("commit") {
        true => Action::Answer(
            503,
            json!({ "error": { "id": "CommunicationErrorTransientException", "message": "not now", "retry_after": 1, "correlation_id": "" } }),
        ),
        false => Action::Forward,
    });
    pair.completes_batch("wave-1");
    let mut statements: Vec<Value> = Vec::new();
    for name in names {
        pair.outbound_is(name, "Prepared");
        rehome_testkit::wait::until_true("the target has decided", LONG, || {
            Pair::kind(&pair.target, name) == "UserMailbox"
        });
        let stated = pair
            .target
            .does(&["Export-MigrationOutcome", &format!("{name}@{TARGET}")]);
        assert_eq!(text(&stated[0], "Outcome"), "Decided", "{stated:?}");
        let row = pair.outbound(name).expect("it is there");
        assert_eq!(text(&stated[0], "AttemptId"), text(&row, "AttemptId"));
        statements.push(stated[0].clone());
    }
    let source = pair.source.clone();
    let statement = text(&statements[1], "Statement");
    let whole = pair.target_server().path("press.txt").display().to_string();
    let user = format!("press@{TARGET}");
    pair.target.does(&["Export-MigrationOutcome", &user, "--out", &whole]);
    let of_orders = source.file("orders.txt", &text(&statements[0], "Statement"));
    let altered = source.file("altered.txt", &statement.replacen('.', ".e", 1));
    let nothing = source.file("nothing.txt", "it was decided, believe me");
    let foreign = source.file("foreign.txt", &signed_by_another(&statement));
    for (id, outcome, file) in [
        ("OutcomeStatementInvalidException", "Committed", &of_orders),
        ("PartnerIdentityChangedException", "Committed", &altered),
        ("PartnerIdentityChangedException", "Committed", &nothing),
        ("KeyNotPinnedException", "Committed", &foreign),
        // It states another end; not even force goes against it.
        ("InvalidOperationException", "Aborted", &whole),
    ] {
        source.is_refused(id, &resolve("press", outcome, &["-Statement", file]));
    }
    let address = source_address("press");
    source.is_refused(
        "InvalidOperationException",
        &resolve(
            "press",
            "Aborted",
            &["-Statement", &whole, "-Force", "-ConfirmMailbox", &address],
        ),
    );
    assert_eq!(text(&pair.outbound("press").expect("it is there"), "State"), "Prepared");

    let resolved = source.does(&resolve("press", "Committed", &["-Statement", &whole]));
    assert_eq!(text(&resolved[0], "Ground"), "Stated", "{resolved:?}");
    pair.outbound_is("press", "Moved");
    let port = pair.source_server().smtp_port;
    pair.written("press").gets_mail(port, &address, true);
    assert_eq!(
        text(&pair.outbound("orders").expect("it is there"), "State"),
        "Prepared"
    );

    pair.interceptor().forward_all();
    for name in names {
        pair.is_completed(name);
        pair.has_moved(name);
    }
}

/// The same claims and key id, signed by somebody else.
fn signed_by_another(statement: &str) -> String {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let part = |index: usize| -> Value {
        let text = statement.split('.').nth(index).expect("it has three parts");
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).expect("it is base64")).expect("it is JSON")
    };
    let (mut header, mut claims) = (part(0), part(1));
    let key = Key::generate();
    header["kid"] = json!(key.thumbprint());
    claims["iat"] = json!(now());
    key.sign(&header, &claims)
}

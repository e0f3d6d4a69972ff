//! The interleavings of a cutover that the design names, over two real processes.

use crate::deployment::LONG;
use crate::interceptor::{Action, Gate};
use crate::pair::{Pair, Plan, SOURCE, TARGET, text};
use crate::rogue::Rogue;
use rehome_testkit::wait;
use serde_json::{Value, json};
use std::time::Duration;

fn later() -> Action {
    Action::Answer(
        503,
        json!({ "error": { "id": "CommunicationErrorTransientException", "message": "not now", "retry_after": 1, "correlation_id": "" } }),
    )
}

fn guid(pair: &Pair, name: &str) -> String {
    text(&pair.mailbox(name), "ExchangeGuid")
}

fn synced(pair: &Pair, batch: &str, names: &[&str]) {
    pair.starts_batch(batch, names, &[]);
    for name in names {
        pair.is_synced(name);
    }
}

/// A Prepare that comes after the lease has lapsed is refused, and mail that came in between is not lost; a promise once
/// given does not lapse.
#[test]
fn stale_prepare_after_a_lapsed_lease_and_a_promise_that_stays() {
    let names = ["lapses", "keeps"];
    let mut pair = Pair::ready(&Plan {
        mailboxes: &names,
        between: "interceptor",
        source_cutover: &["lease_minutes = 1"],
        ..Plan::default()
    });
    synced(&pair, "wave-1", &names);
    let lapsing = guid(&pair, "lapses");
    let (gate, kept) = (Gate::closed(), Gate::closed());
    let (lapses, held, promised) = (lapsing.clone(), gate.clone(), kept.clone());
    pair.interceptor().rule(move |seen| match () {
        // The connection is dead in one direction: nothing of the cutover arrives any more.
        () if seen.path.contains(&lapses) && seen.is_verb("prepare") => Action::Hold(held.clone()),
        () if seen.is_verb("renew") => later(),
        () if seen.is_verb("prepare") => Action::HoldAnswer(promised.clone()),
        () => Action::Forward,
    });
    pair.completes_batch("wave-1");
    wait::until_true("both have sent Prepare", LONG, || {
        gate.someone_waits() && kept.someone_waits()
    });
    assert_eq!(
        pair.outbound("keeps").map(|row| text(&row, "State")),
        Some("Prepared".to_owned())
    );
    pair.outbound_is("lapses", "Open");
    // Open again, so it takes mail, at once.
    let port = pair.source_server().smtp_port;
    pair.written("lapses")
        .gets_mail(port, &format!("lapses@{SOURCE}"), false);
    assert_eq!(
        pair.outbound("keeps").map(|row| text(&row, "State")),
        Some("Prepared".to_owned()),
        "a promise has no lease"
    );

    pair.interceptor().forward_all();
    gate.open();
    kept.open();
    for name in names {
        pair.is_completed(name);
        pair.has_moved(name);
    }
    let answers: Vec<_> = pair
        .interceptor()
        .answers("prepare")
        .into_iter()
        .filter(|one| one.path.contains(&lapsing))
        .collect();
    assert_eq!(
        text(&answers[0].body["error"], "id"),
        "LeaseLapsedException",
        "{answers:?}"
    );
    let last = answers.last().expect("there is a second one");
    assert_eq!(last.status, 200, "{answers:?}");
    assert_ne!(
        last.asked["attempt"], answers[0].asked["attempt"],
        "what lapsed is not revived"
    );
}

/// After the decision nothing undoes it: neither the target's administrator, nor an Abort that comes late; and Commit may come
/// as often as it likes.
#[test]
fn late_abort_after_decide_and_repeated_commit() {
    let mut pair = Pair::ready(&Plan {
        between: "interceptor",
        ..Plan::default()
    });
    let rogue = Rogue::with_stolen_assertion(&pair);
    synced(&pair, "wave-1", &["press"]);
    let guid = guid(&pair, "press");
    let gate = Gate::closed();
    let held = gate.clone();
    let mut lost = false;
    pair.interceptor().rule(move |seen| match seen.is_verb("commit") {
        false => Action::Forward,
        // The first Commit arrives and its answer is lost; the second one comes much later.
        true if !std::mem::replace(&mut lost, true) => Action::LoseAnswer,
        true => Action::Hold(held.clone()),
    });
    pair.completes_batch("wave-1");
    pair.outbound_is("press", "Moved");
    assert_eq!(
        Pair::kind(&pair.target, "press"),
        "UserMailbox",
        "the target decided before it sent Commit"
    );
    pair.target
        .is_refused("InvalidOperationException", &["Remove-MigrationBatch", "wave-1"]);
    pair.target.does(&["Stop-MigrationUser", &format!("press@{TARGET}")]);

    // A late Abort, with a right token and the right attempt.
    let attempt = text(&pair.interceptor().answers("lock")[0].asked, "attempt");
    let late = Rogue {
        move_id: pair
            .interceptor()
            .seen()
            .iter()
            .find(|seen| seen.is_verb("lock"))
            .expect("it was locked")
            .header("rehome-move-id"),
        ..rogue
    };
    let answer = late.attempt(&guid, "abort", &attempt);
    assert_ne!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        pair.outbound("press").map(|row| text(&row, "State")),
        Some("Moved".to_owned())
    );
    assert_eq!(Pair::kind(&pair.source, "press"), "MailUser");

    gate.open();
    pair.is_completed("press");
    let answers = pair.interceptor().answers("commit");
    let first: &Value = &answers[0].body;
    assert!(
        answers.len() >= 2 && answers.iter().all(|one| one.status == 200 && one.body == *first),
        "{answers:?}"
    );
    let once_more = late.attempt(&guid, "commit", &attempt);
    assert_eq!(
        (once_more.status, &once_more.json()),
        (200, first),
        "repeating gives the first answer"
    );
    // Verbs of an attempt that never was change nothing.
    let other = late.attempt(&guid, "renew", &uuid::Uuid::new_v4().to_string());
    assert_eq!(
        other.error_id(),
        "SourceMailboxAlreadyBeingMovedPermanentException",
        "{}",
        other.text()
    );
    for verb in ["commit", "abort", "status"] {
        let other = late.attempt(&guid, verb, &uuid::Uuid::new_v4().to_string());
        assert_eq!(other.error_id(), "StaleAttemptException", "{verb}: {}", other.text());
    }
    pair.has_moved("press");
}

/// The mover never gets its Commit through: the source asks the outcome address by itself, and no mail waits for the mover.
#[test]
fn commit_never_arrives_and_the_source_asks_by_itself() {
    let mut pair = Pair::ready(&Plan {
        between: "interceptor",
        ..Plan::default()
    });
    synced(&pair, "wave-1", &["press"]);
    pair.interceptor().rule(|seen| {
        if seen.is_verb("commit") {
            later()
        } else {
            Action::Forward
        }
    });
    pair.completes_batch("wave-1");
    pair.outbound_is("press", "Moved");
    assert!(
        pair.interceptor().answers("commit").is_empty(),
        "nobody told the source"
    );
    let port = pair.source_server().smtp_port;
    pair.written("press").gets_mail(port, &format!("press@{SOURCE}"), true);
    pair.interceptor().forward_all();
    pair.is_completed("press");
    pair.has_moved("press");
}

/// The mover is dead after its decision: while it is away the source keeps its promise and defers mail; when the target is back
/// both end on the same side, whoever asks first.
#[test]
fn mover_dead_between_decide_and_commit() {
    let mut pair = Pair::ready(&Plan::default());
    synced(&pair, "wave-1", &["press"]);
    pair.target_server().kill();
    pair.target_server().start_to_die_at("target.decide", 1);
    pair.completes_batch("wave-1");
    pair.target_server().dies(LONG);
    pair.outbound_is("press", "Prepared");
    // Deferred, not refused and not delivered anywhere.
    let answer = smtp_answer_to_rcpt(pair.source_server().smtp_port, &format!("press@{SOURCE}"));
    assert!(answer.starts_with('4'), "{answer}");
    assert_eq!(
        pair.outbound("press").map(|row| text(&row, "State")),
        Some("Prepared".to_owned())
    );
    pair.target_server().start();
    pair.is_completed("press");
    let port = pair.source_server().smtp_port;
    pair.written("press").gets_mail(port, &format!("press@{SOURCE}"), true);
    pair.has_moved("press");
}

/// What a mail server answers to RCPT TO, or to the message's end where it answers so late.
fn smtp_answer_to_rcpt(port: u16, recipient: &str) -> String {
    use std::io::{BufRead, BufReader, Write};
    let stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("the mail server listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("a limit is set");
    let mut reader = BufReader::new(stream.try_clone().expect("a socket can be shared"));
    let mut writer = stream;
    let mut answer = || loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("it answers");
        if line.get(3..4) != Some("-") {
            return line;
        }
    };
    let mut last = answer();
    let rcpt = format!("RCPT TO:<{recipient}>\r\n");
    for line in [
        "EHLO tests.example\r\n",
        "MAIL FROM:<sender@elsewhere.example>\r\n",
        &rcpt,
        "DATA\r\n",
        "Subject: x\r\n\r\nx\r\n.\r\n",
    ] {
        if !matches!(last.as_bytes().first(), Some(b'2' | b'3')) {
            break;
        }
        writer.write_all(line.as_bytes()).expect("it listens");
        last = answer();
    }
    last
}

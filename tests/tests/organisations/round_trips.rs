//! What a large mailbox costs on the wire when nothing of it has changed, and under the lock of its cutover: round trips and
//! octets, never seconds.

use crate::imap::{Access, MOVER, MOVER_PASSWORD, folder, key, signs_in};
use crate::interceptor::{Action, Answered, Gate, Interceptor};
use crate::pair::{Foreign, Pair, Plan, text};
use rehome_testkit::checker::{self, Account};
use rehome_testkit::dovecot::{Dovecot, Format, Fsync};
use rehome_testkit::imap::Session;
use rehome_testkit::line::Line;
use rehome_testkit::meter::{Figures, Meter};
use rehome_testkit::process::PATIENCE;
use rehome_testkit::{is_left_out, wait};
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// The mailbox that moves.
const USER: &str = "orders";
/// His passwords at the source and at the target.
const PASSWORDS: (&str, &str) = ("old-word", "new-word");
/// Messages in it.
const MESSAGES: usize = 100_000;
/// Folders that they lie in.
const FOLDERS: usize = 40;
/// Messages that one command stores.
const AT_ONCE: usize = 500;
/// How long the first copy may take.
const COPY: Duration = Duration::from_secs(1200);
/// Late deletions and new messages.
const LATE: (usize, usize) = (20, 40);
/// Round trips before the first request on a new connection: TCP and TLS.
const HANDSHAKES: usize = 2;
/// How late requests are under the lock.
const DISTANCE: Duration = Duration::from_millis(500);
/// Syncs in which nothing has changed. The middle one counts: whether a connection that rests is kept alive meanwhile is no
/// matter of the sync.
const SYNCS: usize = 3;

/// A Dovecot, and the line over which Rehome talks to it.
struct Server {
    dovecot: Dovecot,
    meter: Meter,
    platform: Foreign,
}

impl Server {
    fn start(base: &Path, name: &str, password: &str) -> Self {
        let base = base.join(name);
        let mail = base.join("mail");
        std::fs::create_dir_all(&mail).expect("a folder is made");
        // Many messages in a file, and no waiting for the disk: what is counted does not depend on it.
        let dovecot = Dovecot::builder(&mail)
            .users([(USER, password)])
            .master(MOVER, MOVER_PASSWORD)
            .special_use()
            .format(Format::Mdbox)
            .fsync(Fsync::Never)
            .start();
        let meter = Meter::default();
        let line = Line::measured(SocketAddr::from(([127, 0, 0, 1], dovecot.port())), &meter);
        let mut lines = vec![
            key("driver", &"imap"),
            key("host", &"127.0.0.1"),
            format!("port = {}", line.port()),
            key("security", &"none"),
            key("account", &"{alias}"),
        ];
        lines.extend(signs_in(&base, "master"));
        lines.extend(Access::to_dovecot(&dovecot).lines());
        Self {
            dovecot,
            meter,
            platform: Foreign { lines, authority: None },
        }
    }

    fn account(&self) -> Account {
        Account::plain(self.dovecot.port(), USER, MOVER, MOVER_PASSWORD)
    }
}

fn folder_name(number: usize) -> String {
    match number {
        0 => "INBOX".to_owned(),
        1 => "Sent".to_owned(),
        2 => "Trash".to_owned(),
        3 => "Archive".to_owned(),
        year => format!("Archive/{}", 1984 + year),
    }
}

/// What stands before a message, and its octets: 150 to 400.
fn message(number: usize) -> (String, String) {
    let flags = ["\\Seen", "\\Seen \\Answered", "", "\\Seen $Forwarded", "\\Flagged"][number % 5];
    let month = ["Jan", "Mar", "May", "Jul", "Aug", "Oct"][number / 28 % 6];
    let (day, year, hour, minute) = (number % 28 + 1, 1990 + number % 30, number % 24, number % 60);
    let mut octets = format!(
        "From: shop@elsewhere.example\r\nTo: {USER}@contoso.example\r\nSubject: Order {number}\r\n\
         Message-ID: <{number}@elsewhere.example>\r\n\r\nOrder {number} was received.\r\n"
    );
    for place in 0..number % 7 {
        write!(octets, "{place}. article {}\r\n", number * 7 + place).expect("text grows");
    }
    (
        format!("({flags}) \"{day:02}-{month}-{year} {hour:02}:{minute:02}:00 +0000\""),
        octets,
    )
}

fn append(session: &mut Session, folder: &str, numbers: std::ops::Range<usize>) {
    let messages: Vec<_> = numbers.map(message).collect();
    let answer = session.append_many(
        folder,
        messages
            .iter()
            .map(|(metadata, octets)| (metadata.as_str(), octets.as_bytes())),
    );
    assert!(answer.is_ok(), "{}", answer.status);
}

/// Fills the mailbox; several folders at once.
fn fill(port: u16) {
    let each = MESSAGES / FOLDERS;
    let folder = |session: &mut Session, number: usize| {
        let name = folder_name(number);
        if number > 0 {
            session.ok(&format!("CREATE \"{name}\""));
        }
        session.ok(&format!("SUBSCRIBE \"{name}\""));
        let (first, end) = (number * each, (number + 1) * each);
        for begin in (first..end).step_by(AT_ONCE) {
            append(session, &name, begin..(begin + AT_ONCE).min(end));
        }
    };
    std::thread::scope(|scope| {
        for worker in 0..2 {
            scope.spawn(move || {
                let mut session = Session::login(port, USER, PASSWORDS.0);
                (worker..FOLDERS)
                    .step_by(2)
                    .for_each(|number| folder(&mut session, number));
            });
        }
    });
}

/// A hundred changes, in five folders: 40 flags, [`LATE`] deletions and new messages.
fn changes(port: u16) {
    let mut session = Session::login(port, USER, PASSWORDS.0);
    for number in (0..FOLDERS).step_by(8) {
        let name = folder_name(number);
        session.ok(&format!("SELECT \"{name}\""));
        session.ok("STORE 2:9 +FLAGS (\\Flagged $Late)");
        session.ok("STORE 11:14 +FLAGS (\\Deleted)");
        session.ok("EXPUNGE");
        let late = 10_000_000 + number;
        append(&mut session, &name, late..late + 8);
    }
}

fn said(figures: &Figures) -> String {
    let Figures {
        round_trips,
        octets,
        connections,
        asides,
    } = figures;
    format!("{round_trips} round trips, {octets} octets, {connections} connections opened, {asides} asides")
}

/// The longest row of requests of which each came after the one before was answered.
fn in_a_row(answers: &[Answered]) -> Vec<&str> {
    let mut by_end: Vec<_> = answers.iter().collect();
    by_end.sort_by_key(|one| one.time.1);
    let mut row = Vec::new();
    let mut ended = None;
    for one in by_end {
        if ended.is_none_or(|ended| ended <= one.time.0) {
            row.push(one.verb());
            ended = Some(one.time.1);
        }
    }
    row
}

/// Prints what went between the organisations in a time, and returns it by line.
fn between(pair: &Pair, what: &str, begin: Instant, end: Instant) -> [Figures; 4] {
    let figures = pair.counted().figures(begin, end);
    for (line, figures) in figures.iter().filter(|(_, figures)| *figures != Figures::default()) {
        println!("{what}: {line}: {}", said(figures));
    }
    figures.map(|(_, figures)| figures)
}

fn octets(lines: &[Figures]) -> u64 {
    lines.iter().map(|line| line.octets).sum()
}

/// Of round trips that follow one another, on whichever of these lines, there are at most so many.
fn round_trips(lines: &[Figures]) -> usize {
    lines.iter().map(|line| line.round_trips).sum()
}

fn median<T: Ord + Copy>(mut values: [T; SYNCS]) -> T {
    values.sort_unstable();
    values[SYNCS / 2]
}

/// Syncs of a mailbox of which nothing has changed, with the connections of the first copy.
fn nothing_changed(pair: &Pair, source: &Server, target: &Server) {
    let syncs = std::array::from_fn::<_, SYNCS, _>(|_| {
        let begin = Instant::now();
        pair.syncs_now("wave", USER);
        let end = Instant::now();
        let what = "nothing changed";
        let lines = between(pair, what, begin, end);
        let organisations = (round_trips(&lines), octets(&lines));
        let [at_source, at_target] = [source, target].map(|server| server.meter.between(begin, end));
        println!("{what}: to the source's server: {}", said(&at_source));
        println!("{what}: to the target's server: {}", said(&at_target));
        (organisations, at_source, at_target)
    });
    let round_trips = median(syncs.map(|(organisations, _, _)| organisations.0));
    assert!(
        (1..=2).contains(&round_trips),
        "{round_trips} between the organisations: {syncs:?}"
    );
    let octets = median(syncs.map(|(organisations, at_source, _)| organisations.1 + at_source.octets));
    assert!((100..300_000).contains(&octets), "{octets} octets in all: {syncs:?}");
    let at_source = median(syncs.map(|(_, at_source, _)| at_source.round_trips));
    assert!(
        (1..=3).contains(&at_source),
        "{at_source} to the source's server: {syncs:?}"
    );
    let at_target = median(syncs.map(|(_, _, at_target)| at_target.octets));
    assert_eq!(at_target, 0, "octets to the target's server: {syncs:?}");
}

/// Completes the move. The changes come when all is copied and Lock has been sent, so that they are carried under it.
fn completes_with_late_changes(pair: &mut Pair, source: &Server) {
    let interceptor = Interceptor::before(pair.source_server());
    let behind = Interceptor::before(pair.target_server());
    let gate = Gate::closed();
    let held = gate.clone();
    // Over a distance: what does not wait for an answer is asked for before it is there.
    interceptor.rule(move |seen| match seen.is_verb("lock") {
        true => Action::Hold(held.clone()),
        false => Action::Late(DISTANCE),
    });
    pair.counted().line.lead_to(interceptor.address());
    pair.counted().line_back.lead_to(behind.address());
    pair.completes_batch("wave");
    wait::until_true("Lock is asked for", PATIENCE * 4, || gate.someone_waits());
    changes(source.dovecot.port());
    let locked = Instant::now();
    gate.open();
    pair.is_completed(USER);

    let mut answers = interceptor.all_answers();
    let committed = answers
        .iter()
        .find(|one| one.verb() == "commit")
        .expect("it was committed")
        .time
        .1;
    answers.retain(|one| locked <= one.time.1 && one.time.1 <= committed);
    let what = "under the lock";
    let row = in_a_row(&answers);
    println!(
        "{what}: {} requests, of them in a row: {}",
        answers.len(),
        row.join(", ")
    );
    let lines = between(pair, what, locked, committed);
    let at_source = source.meter.between(locked, committed);
    println!("{what}: to the source's server: {}", said(&at_source));
    // Requests of the target by their row, which tells what waits from what is asked at once; mail by turns.
    let [inward, _, mail @ ..] = lines;
    // The source asks for the outcome of its promise by itself, and nobody waits for that. Anything else it would ask the
    // target for while it is asked: connection, TLS and answer.
    let mut asked_back = behind.all_answers();
    asked_back.retain(|one| locked <= one.time.1 && one.time.1 <= committed && !one.path.ends_with("/outcome"));
    let trips = row.len() + round_trips(&mail) + HANDSHAKES * inward.connections + (HANDSHAKES + 1) * asked_back.len();
    println!("{what}: {trips} round trips in a row between the organisations");
    for verb in ["lock", "folders", "listing", "items", "prepare", "commit"] {
        assert!(row.contains(&verb), "{verb} is asked under the lock: {row:?}");
    }
    assert!(trips <= 12, "{trips} round trips in a row: {row:?}, {lines:?}");
}

#[test]
fn a_hundred_thousand_messages() {
    if is_left_out("dovecot") {
        return;
    }
    let begun = Instant::now();
    let say = |what: &str| println!("{:7.1} s: {what}", begun.elapsed().as_secs_f64());
    let folder = folder();
    let source = Server::start(folder.path(), "source", PASSWORDS.0);
    let target = Server::start(folder.path(), "target", PASSWORDS.1);
    fill(source.dovecot.port());
    say(&format!("{MESSAGES} messages in {FOLDERS} folders are there"));
    let mut pair = Pair::ready(&Plan {
        mailboxes: &[USER],
        between: "counted",
        source_platform: source.platform.clone(),
        target_platform: target.platform.clone(),
        ..Plan::default()
    });
    say("two organisations are ready");
    let copying = Instant::now();
    pair.starts_batch("wave", &[USER], &[]);
    wait::until("all is copied", COPY, || {
        let user = pair.user(USER);
        match text(&user, "Status").as_str() {
            "Synced" => Ok(()),
            "Failed" => panic!("{user}"),
            _ => Err(user.to_string()),
        }
    });
    say("the first copy is done");
    let octets = octets(&between(&pair, "first copy", copying, Instant::now()));
    assert!(octets > 20 * MESSAGES as u64, "the lines see what is copied: {octets}");

    nothing_changed(&pair, &source, &target);
    say("nothing changed");
    completes_with_late_changes(&mut pair, &source);
    say("completed");
    let [before, after] = [&source, &target].map(|server| checker::dump(&server.account()));
    let held = before.iter().filter(|line| line["kind"] == "message").count();
    assert_eq!(held, MESSAGES + LATE.1 - LATE.0);
    checker::compare_lines(&before, &after, &[]).none();
    say("compared");
}

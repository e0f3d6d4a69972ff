//! The way back: what moved is taken back with what changed since, and with nothing else on the wire.

use crate::administrator::Administrator;
use crate::deployment::LONG;
use crate::imap;
use crate::mail::Mailbox;
use crate::pair::{Foreign, MOVE, Pair, Plan, SOURCE, TARGET, error_ids, text};
use rehome_testkit::checker::{self, Account};
use rehome_testkit::dovecot::Dovecot;
use rehome_testkit::imap::Session;
use rehome_testkit::wait;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

/// Octets of the one large message, which must not travel again.
const LARGE: usize = 3_000_000;

/// The migration user of the move back, as the old organisation sees him.
fn returning(pair: &Pair, name: &str) -> Value {
    let address = format!("{name}@{SOURCE}");
    pair.source.asks("Get-MigrationUser", &json!({ "Identity": address }))[0].clone()
}

fn is_back(pair: &Pair, name: &str) -> Value {
    wait::until(&format!("{name} is back"), MOVE, || {
        let user = returning(pair, name);
        let status = text(&user, "Status");
        assert!(!status.ends_with("Failed"), "{user}");
        if status == "Completed" {
            Ok(user)
        } else {
            Err(user.to_string())
        }
    })
}

/// Moves one mailbox over.
fn moves_over(pair: &Pair, batch: &str, name: &str) {
    pair.starts_batch(batch, &[name], &[]);
    pair.is_synced(name);
    pair.completes_batch(batch);
    pair.is_completed(name);
    pair.outbound_is(name, "Moved");
}

/// The mailbox is where it was first, open and whole.
fn is_home(pair: &mut Pair, name: &str) {
    assert_eq!(Pair::kind(&pair.source, name), "UserMailbox", "{name} at home");
    assert_eq!(Pair::kind(&pair.target, name), "MailUser", "{name} away");
    let maildir = old_maildir(pair, name);
    pair.written(name).must_be(&maildir);
}

fn old_maildir(pair: &mut Pair, name: &str) -> PathBuf {
    pair.source_server().path("mail").join(name)
}

/// Mail for both addresses, which must arrive once wherever the mailbox is.
fn mail_for_both(pair: &mut Pair, mailbox: &Mailbox) {
    let (old, new) = (pair.source_server().smtp_port, pair.target_server().smtp_port);
    mailbox.gets_mail(old, &format!("{}@{SOURCE}", mailbox.name), true);
    mailbox.gets_mail(new, &format!("{}@{TARGET}", mailbox.name), true);
}

fn removes_batches(administrator: &Administrator) {
    for batch in administrator.asks("Get-MigrationBatch", &json!({})) {
        administrator.does(&["Remove-MigrationBatch", &text(&batch, "Identity")]);
    }
    wait::until_true("the batches are gone", MOVE, || {
        administrator.asks("Get-MigrationBatch", &json!({})).is_empty()
    });
}

#[test]
fn with_what_changed_and_nothing_else() {
    let mut pair = Pair::ready(&Plan {
        between: "counted",
        ..Plan::default()
    });
    let mailbox = pair.written("press");
    mailbox.gets_large(pair.source_server(), LARGE);
    moves_over(&pair, "there", "press");
    // What was moved is often removed from the list at once.
    removes_batches(&pair.target);

    let new_maildir = pair.new_maildir("press");
    mailbox.lives_on(&new_maildir, 50, 20, 7);
    mail_for_both(&mut pair, &mailbox);
    pair.has_moved("press");

    // Nobody comes back by himself: first asked for, then approved.
    let begin = Instant::now();
    let begun = &pair.source.does(&["Undo-MigrationUser", &format!("press@{SOURCE}")])[0];
    assert_eq!(text(begun, "State"), "Begun", "{begun}");
    wait::until("the move back waits for approval", MOVE, || {
        let user = returning(&pair, "press");
        let ids = error_ids(&user);
        let waits = ids.contains(&"ReturnNotApprovedException".to_owned());
        if waits { Ok(()) } else { Err(user.to_string()) }
    });
    pair.source.is_refused(
        "SourceMailboxAlreadyBeingMovedPermanentException",
        &["Undo-MigrationUser", &format!("press@{SOURCE}")],
    );
    let approved = &pair.target.does(&["Undo-MigrationUser", &format!("press@{TARGET}")])[0];
    assert_eq!(text(approved, "State"), "Approved", "{approved}");
    pair.source.does(&["Start-MigrationUser", &format!("press@{SOURCE}")]);
    mail_for_both(&mut pair, &mailbox);
    let user = is_back(&pair, "press");
    assert_eq!(text(&user, "RecipientType"), "UserMailbox", "{user}");
    let [_, outward, ..] = pair.counted().figures(begin, Instant::now());
    eprintln!(
        "the move back: {} octets, {} round trips",
        outward.1.octets, outward.1.round_trips
    );
    assert!(
        outward.1.octets < LARGE as u64 / 4,
        "{} octets to take back 50 short messages and 20 flags",
        outward.1.octets
    );
    let statistics = &pair.source.asks(
        "Get-MigrationUserStatistics",
        &json!({ "Identity": format!("press@{SOURCE}") }),
    )[0];
    // 50 that were put there, and what came by mail before the last pass.
    let synced = statistics["SyncedItemCount"].as_u64().expect("a number");
    assert!((52..=54).contains(&synced), "{statistics}");
    assert!(
        statistics["LockRoundTrips"].as_u64().is_some_and(|trips| trips <= 12),
        "{statistics}"
    );
    is_home(&mut pair, "press");

    let forwards = &pair
        .target
        .asks("Get-MailUser", &json!({ "Identity": format!("press@{TARGET}") }))[0];
    assert!(
        text(forwards, "ExternalEmailAddress")
            .to_lowercase()
            .contains(&format!("press@{SOURCE}")),
        "{forwards}"
    );
    mail_for_both(&mut pair, &mailbox);
    is_home(&mut pair, "press");

    // It may leave again, and come back again, at the word of who has it.
    removes_batches(&pair.source);
    moves_over(&pair, "there again", "press");
    mail_for_both(&mut pair, &mailbox);
    pair.has_moved("press");
    let begun = &pair.target.does(&["Undo-MigrationUser", &format!("press@{TARGET}")])[0];
    assert_eq!(text(begun, "State"), "Begun", "{begun}");
    let user = is_back(&pair, "press");
    assert_eq!(text(&user, "MoveType"), "Return", "{user}");
    mail_for_both(&mut pair, &mailbox);
    is_home(&mut pair, "press");
}

/// In one deployment the same holds; the relationship may approve beforehand, and the right may be withdrawn.
#[test]
fn one_authority_and_a_relationship_that_approves() {
    let mut pair = Pair::ready(&Plan {
        one_authority: true,
        ..Plan::default()
    });
    moves_over(&pair, "there", "press");
    let address = format!("press@{SOURCE}");
    let of_contoso = pair
        .target
        .asks("Get-MgServicePrincipal", &json!({}))
        .into_iter()
        .find(|principal| principal["AppRoleAssignments"] == json!(["Mailbox.Return"]))
        .expect("the right is seen");
    assert_eq!(text(&of_contoso, "AppOwnerOrganizationId"), pair.source.tenant);
    pair.target.does(&[
        "Set-OrganizationRelationship",
        "contoso",
        "-MailboxReturnWithoutApproval:true",
    ]);
    pair.source.does(&["Undo-MigrationUser", &address]);
    is_back(&pair, "press");
    is_home(&mut pair, "press");

    removes_batches(&pair.source);
    removes_batches(&pair.target);
    moves_over(&pair, "there again", "press");
    pair.target
        .does(&["Remove-MgServicePrincipal", &text(&of_contoso, "Id")]);
    pair.target.is_refused(
        "ReturnRightMissingException",
        &["Undo-MigrationUser", &format!("press@{TARGET}")],
    );
    pair.source.does(&["Undo-MigrationUser", &address]);
    let failed = wait::until("the withdrawn right is told", MOVE, || {
        let user = returning(&pair, "press");
        if text(&user, "Status") == "Failed" {
            Ok(user)
        } else {
            Err(user.to_string())
        }
    });
    assert_eq!(
        error_ids(&failed),
        ["ApplicationNotConsentedException", "AADSTS700016"],
        "{failed}"
    );
    // Given up, it changes nothing.
    removes_batches(&pair.source);
    pair.has_moved("press");
}

/// The old organisation dies without warning on the way back, at each durable step that only this way has, and around
/// the decision; mail comes all the while.
#[test]
fn the_old_organisation_dies_on_the_way_back() {
    let deaths = [
        ("emptied", "target.return_begins", 1),
        ("copied", "maildir.copied", 1),
        ("paired", "replicate.returned_folder", 2),
        ("filled", "target.return_filled", 1),
        ("flagged", "replicate.flags", 1),
        ("decided", "target.decide", 1),
        ("shown", "maildir.show", 1),
        ("done", "target.done", 1),
    ];
    let names = deaths.map(|(name, ..)| name);
    let mut pair = Pair::ready(&Plan {
        mailboxes: &names,
        ..Plan::default()
    });
    pair.starts_batch("there", &names, &["-AutoComplete"]);
    for name in names {
        pair.is_completed(name);
        pair.outbound_is(name, "Moved");
    }
    for (seed, (name, step, count)) in (1..).zip(deaths) {
        eprintln!("-- {name}");
        let mailbox = pair.written(name);
        let maildir = pair.new_maildir(name);
        mailbox.lives_on(&maildir, 3, 4, seed);
        pair.source_server().kill();
        pair.source_server().start_to_die_at(step, count);
        let begun = &pair.target.does(&["Undo-MigrationUser", &format!("{name}@{TARGET}")])[0];
        assert_eq!(text(begun, "State"), "Begun", "{begun}");
        pair.source_server().dies(LONG);
        let port = pair.target_server().smtp_port;
        let sender = thread::spawn(move || mailbox.gets_mail(port, &format!("{}@{TARGET}", mailbox.name), true));
        pair.source_server().start();
        is_back(&pair, name);
        sender.join().expect("the message is accepted in the end");
        is_home(&mut pair, name);
    }
    for name in names {
        is_home(&mut pair, name);
    }
}

/// Accounts of real servers: what was kept is the account itself, no uid is kept, and all the same only what changed comes.
#[test]
fn between_two_dovecots() {
    if rehome_testkit::is_left_out("dovecot") {
        return;
    }
    const USER: &str = "press";
    let folder = imap::folder();
    let start = |name: &str, password: &str| {
        let mail = folder.path().join(name);
        std::fs::create_dir(&mail).expect("a folder is made");
        Dovecot::builder(&mail)
            .users([(USER, password)])
            .master(imap::MOVER, imap::MOVER_PASSWORD)
            .special_use()
            .start()
    };
    let (old, new) = (start("old", "old-word"), start("new", "new-word"));
    let platform = |dovecot: &Dovecot| {
        let mut lines = vec![
            imap::key("driver", &"imap"),
            imap::key("host", &"127.0.0.1"),
            format!("port = {}", dovecot.port()),
            imap::key("security", &"none"),
            imap::key("account", &"{alias}"),
        ];
        lines.extend(imap::signs_in(folder.path(), "master"));
        lines.extend(imap::Access::to_dovecot(dovecot).lines());
        Foreign { lines, authority: None }
    };
    let refused = checker::fill(&Account::login(old.port(), USER, "old-word"), 5, 60, true);
    assert!(refused.iter().all(|line| line["delete"].is_array()), "{refused:?}");
    let large = format!("Subject: large\r\n\r\n{}", "0123456789abcdef\r\n".repeat(LARGE / 18));
    assert!(
        Session::login(old.port(), USER, "old-word")
            .append("INBOX", "", large.as_bytes())
            .is_ok()
    );
    let mut pair = Pair::ready(&Plan {
        mailboxes: &[USER],
        between: "counted",
        source_platform: platform(&old),
        target_platform: platform(&new),
        ..Plan::default()
    });
    moves_over(&pair, "there", USER);

    let mut session = wait::until("he gets into the new mailbox", MOVE, || {
        let mut session = Session::connect(new.port());
        if session.plain("", USER, "new-word").is_ok() {
            Ok(session)
        } else {
            Err(String::new())
        }
    });
    for number in 0..50 {
        let message = format!("Subject: later {number}\r\n\r\nnew {number}\r\n");
        assert!(session.append("INBOX", "(\\Seen)", message.as_bytes()).is_ok());
    }
    session.ok("SELECT INBOX");
    session.ok("STORE 1:20 +FLAGS ($Back)");
    session.ok("STORE 3 +FLAGS (\\Deleted)");
    session.ok("EXPUNGE");
    session.ok("CREATE Returned");
    session.ok("COPY 4:5 Returned");

    let begin = Instant::now();
    let begun = &pair.target.does(&["Undo-MigrationUser", &format!("{USER}@{TARGET}")])[0];
    assert_eq!(text(begun, "State"), "Begun", "{begun}");
    is_back(&pair, USER);
    let [_, outward, ..] = pair.counted().figures(begin, Instant::now());
    eprintln!(
        "the move back: {} octets, {} round trips",
        outward.1.octets, outward.1.round_trips
    );
    assert!(outward.1.octets < LARGE as u64 / 4, "{} octets", outward.1.octets);
    wait::until_true("he gets into his old mailbox", MOVE, || {
        Session::connect(old.port()).plain("", USER, "old-word").is_ok()
    });
    wait::until_true("and not into the other", MOVE, || {
        !Session::connect(new.port()).plain("", USER, "new-word").is_ok()
    });
    let account = |dovecot: &Dovecot| Account::plain(dovecot.port(), USER, imap::MOVER, imap::MOVER_PASSWORD);
    checker::compare(&account(&new), &account(&old)).none();
    assert_eq!(Pair::kind(&pair.source, USER), "UserMailbox");
    assert_eq!(Pair::kind(&pair.target, USER), "MailUser");
    pair.source_server().restart();
    assert!(Session::connect(old.port()).plain("", USER, "old-word").is_ok());
}

//! The network or the disk fails in the middle; the move resumes from where it was.

use crate::deployment::LONG;
use crate::pair::{MOVE, Pair, Plan, TARGET, text};
use rehome_testkit::wait;

/// The line is cut again and again, in the first copy, in an incremental sync and in completion.
#[test]
fn the_line_is_cut_in_the_middle() {
    let names = ["accounts", "press"];
    let mut pair = Pair::ready(&Plan {
        mailboxes: &names,
        between: "line",
        ..Plan::default()
    });
    pair.line().cut_after(60_000);
    pair.starts_batch("wave-1", &names, &[]);
    wait::until_true("the first cut", LONG, || pair.line().cuts() == 1);
    pair.line().cut_after(90_000);
    for name in names {
        pair.is_synced(name);
    }
    let cuts = pair.line().cuts();
    for mailbox in pair.mailboxes.clone() {
        mailbox.changes(pair.source_server(), 5);
    }
    // Completion is a conversation of a few thousand octets with each of the two.
    pair.line().cut_after(5_000);
    pair.completes_batch("wave-1");
    wait::until_true("a cut in completion", LONG, || pair.line().cuts() > cuts);
    for name in names {
        pair.is_completed(name);
        pair.has_moved(name);
    }
}

/// The target's disk has no room for one message: the user waits and says so, and goes on when there is room.
#[test]
fn the_disk_is_full() {
    let mut pair = Pair::ready(&Plan::default());
    pair.written("press").gets_large(pair.source_server(), 12_000_000);
    pair.target_server().kill();
    pair.target_server().start_with_small_disk(8_000_000);
    pair.starts_batch("wave-1", &["press"], &[]);
    let user = wait::until("the disk is found too small", MOVE, || {
        let user = pair.user("press");
        if text(&user, "ErrorSummary").is_empty() {
            Err(user.to_string())
        } else {
            Ok(user)
        }
    });
    assert!(text(&user, "ErrorSummary").contains("File too large"), "{user}");
    assert!(
        text(&user, "Status") == "Syncing" && text(&user, "WaitingFor").contains("next try"),
        "it says what it waits for: {user}"
    );
    pair.has_stayed("press");
    pair.target_server().kill();
    pair.target_server().start();
    pair.target.does(&["Start-MigrationUser", &format!("press@{TARGET}")]);
    pair.is_synced("press");
    pair.completes_batch("wave-1");
    pair.is_completed("press");
    pair.has_moved("press");
}

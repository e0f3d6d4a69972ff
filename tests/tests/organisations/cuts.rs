//! The network fails in the middle; the move resumes from where it was.

use crate::pair::{Pair, Plan};
use rehome_testkit::wait;

/// The line is cut again and again, in the first copy, in an incremental sync and in completion.
#[test]
fn the_line_is_cut_in_the_middle() {
    let names = ["accounts", "press"];
    let mut pair = Pair::ready(&Plan { mailboxes: &names, between: "line", ..Plan::default() });
    pair.line().cut_after(60_000);
    pair.starts_batch("wave-1", &names, &[]);
    wait::until_true("the first cut", crate::deployment::LONG, || pair.line().cuts() == 1);
    pair.line().cut_after(90_000);
    for name in names {
        pair.is_synced(name);
    }
    let cuts = pair.line().cuts();
    for mailbox in pair.mailboxes.clone() {
        mailbox.changes(pair.source_server(), 5);
    }
    // Completion is a conversation of a few thousand octets with each of the two.
    pair.line().cut_after(9_000);
    pair.completes_batch("wave-1");
    wait::until_true("a cut in completion", crate::deployment::LONG, || pair.line().cuts() > cuts);
    for name in names {
        pair.is_completed(name);
        pair.has_moved(name);
    }
}

//! Each side dies without warning in each phase of a move, comes back, and the move ends as if nothing had been.

use crate::deployment::LONG;
use crate::interceptor::{Action, Gate};
use crate::pair::{MOVE, Pair, Plan, SOURCE};
use rehome_testkit::wait;
use std::thread;

/// Who dies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Target,
}

/// When.
#[derive(Clone, Copy)]
enum Phase {
    /// In the first copy, right after the durable step of this name has been made so many times.
    Copying(&'static str, u32),
    /// Between two passes.
    Idle,
    /// In completion, right after the durable step of this name.
    Completing(&'static str),
    /// In completion, when the source has answered this verb and the target has not heard it.
    Answered(&'static str),
    /// In completion, when the target has sent this verb and the source has not heard it.
    Asked(&'static str),
}

fn server(pair: &mut Pair, side: Side) -> &mut crate::deployment::Deployment {
    match side {
        Side::Source => pair.source_server(),
        Side::Target => pair.target_server(),
    }
}

/// Starts the side anew so that it will die at the step; the other goes on.
fn restart_to_die(pair: &mut Pair, side: Side, step: &str, count: u32) {
    server(pair, side).kill();
    server(pair, side).start_to_die_at(step, count);
}

/// One death, and what is there in the end.
fn dies(pair: &mut Pair, side: Side, name: &str, phase: Phase) {
    let batch = format!("move of {name}");
    match phase {
        Phase::Copying(step, count) => {
            restart_to_die(pair, side, step, count);
            pair.starts_batch(&batch, &[name], &[]);
            server(pair, side).dies(LONG);
            server(pair, side).start();
            pair.is_synced(name);
        }
        Phase::Idle => {
            pair.starts_batch(&batch, &[name], &[]);
            pair.is_synced(name);
            server(pair, side).restart();
        }
        Phase::Completing(_) | Phase::Answered(_) | Phase::Asked(_) => {
            pair.starts_batch(&batch, &[name], &[]);
            pair.is_synced(name);
        }
    }
    // The final pass has something to do.
    let mailbox = pair.written(name);
    mailbox.changes(pair.source_server(), 11);
    let gate = Gate::closed();
    match phase {
        Phase::Copying(..) | Phase::Idle => pair.completes_batch(&batch),
        Phase::Completing(step) => {
            restart_to_die(pair, side, step, 1);
            pair.completes_batch(&batch);
            server(pair, side).dies(LONG);
        }
        Phase::Answered(verb) | Phase::Asked(verb) => {
            let held = gate.clone();
            let answered = matches!(phase, Phase::Answered(_));
            pair.interceptor().rule(move |seen| match seen.is_verb(verb) {
                true if answered => Action::HoldAnswer(held.clone()),
                true => Action::Hold(held.clone()),
                false => Action::Forward,
            });
            pair.completes_batch(&batch);
            wait::until_true(&format!("{verb} of {name} is on the line"), LONG, || {
                gate.someone_waits()
            });
            server(pair, side).kill();
        }
    }
    // Mail comes all the while; it is sent again as long as a server is away or says "later".
    let port = pair.source_server().smtp_port;
    let sender = thread::spawn(move || mailbox.gets_mail(port, &format!("{}@{SOURCE}", mailbox.name), true));
    if !server(pair, side).is_running() {
        server(pair, side).start();
    }
    if matches!(phase, Phase::Answered(_) | Phase::Asked(_)) {
        gate.open();
        pair.interceptor().forward_all();
    }
    pair.is_completed(name);
    sender.join().expect("the message is accepted in the end");
    wait::until_true("the source has closed the old content", MOVE, || {
        pair.outbound(name).is_some_and(|row| row["State"] == "Moved")
    });
    pair.has_moved(name);
}

fn each_phase(side: Side, phases: &[(&str, Phase)]) {
    let names: Vec<&str> = phases.iter().map(|(name, _)| *name).collect();
    let mut pair = Pair::ready(&Plan {
        mailboxes: &names,
        between: "interceptor",
        ..Plan::default()
    });
    for (name, phase) in phases {
        eprintln!("-- {name}");
        dies(&mut pair, side, name, *phase);
    }
    // What happened later has not touched those who moved earlier.
    for name in names {
        pair.has_moved(name);
    }
}

#[test]
fn target_dies_while_copying() {
    each_phase(
        Side::Target,
        &[
            ("intent", Phase::Copying("replicate.intent", 2)),
            ("appending", Phase::Copying("maildir.item", 7)),
            ("appended", Phase::Copying("maildir.items", 2)),
            ("applied", Phase::Copying("replicate.applied", 1)),
            ("synced", Phase::Copying("target.sync_ends", 1)),
            ("idle", Phase::Idle),
        ],
    );
}

#[test]
fn target_dies_while_completing() {
    each_phase(
        Side::Target,
        &[
            ("begun", Phase::Completing("target.begin")),
            ("locked", Phase::Answered("lock")),
            ("proven", Phase::Completing("target.prepare")),
            ("prepared", Phase::Answered("prepare")),
            ("decided", Phase::Completing("target.decide")),
            ("shown", Phase::Completing("maildir.show")),
            ("committed", Phase::Answered("commit")),
            ("done", Phase::Completing("target.done")),
        ],
    );
}

#[test]
fn source_dies_while_copying() {
    each_phase(
        Side::Source,
        &[
            ("noted", Phase::Copying("replicate.notes", 2)),
            ("served", Phase::Copying("source.served", 3)),
            ("idle", Phase::Idle),
        ],
    );
}

#[test]
fn source_dies_while_completing() {
    each_phase(
        Side::Source,
        &[
            ("locked", Phase::Completing("source.lock")),
            ("proving", Phase::Completing("replicate.root_listing")),
            ("prepared", Phase::Completing("source.prepare")),
            ("awaited", Phase::Asked("commit")),
            ("committed", Phase::Completing("source.commit")),
            ("closed", Phase::Completing("maildir.close")),
        ],
    );
}

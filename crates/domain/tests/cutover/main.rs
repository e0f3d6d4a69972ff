//! Both cutover machines, explored together.
//!
//! The functions are those of production: `source_next`, `target_next`, `target_step`, `closing_step`,
//! `unanswered_prepare_step`, `gate` and `route`. Around them stand a network that loses, doubles, delays and reorders,
//! processes that end anywhere and come back with what they had stored, a clock that ends leases, a worker that has lost
//! its lease and goes on, consent that is withdrawn and given again, an administrator who resolves by hand, a mailbox that
//! comes back, and mail that arrives at both addresses. Bounds: one move of one mailbox; attempts and messages as each test says. Limits on locks
//! are never reached. A state is the stored rows, what runs, every request ever sent and where each message is.

// Helpers of tests fail by panicking.
#![allow(clippy::unwrap_used, missing_docs)]

mod facts;
mod mail;
mod model;
mod reach;
mod source;
mod state;
mod target;

use model::Cutover;
use reach::reach;
use state::{Bounds, Flaw};
use stateright::{Checker, HasDiscoveries, Model};

/// Three attempts with losses, crashes and revocation, and the mailbox coming back.
const PLAIN: Bounds = Bounds {
    attempts: 3,
    messages: 2,
    crashes: true,
    second_mover: false,
    revocation: true,
    by_hand: false,
    way_back: true,
    flaw: None,
};

/// As [`PLAIN`], with a worker that has lost its lease and goes on.
const SECOND_MOVER: Bounds = Bounds {
    attempts: 2,
    messages: 1,
    second_mover: true,
    ..PLAIN
};

/// As [`PLAIN`], with resolutions by hand, and catch-up attempts that may fail and be followed by others.
const BY_HAND: Bounds = Bounds {
    attempts: 3,
    messages: 1,
    by_hand: true,
    way_back: false,
    ..PLAIN
};

/// Whether the larger spaces are asked for.
fn wide() -> bool {
    std::env::var("REHOME_MODEL").is_ok_and(|value| value == "wide")
}

/// Explores a space, asserts that nothing is violated in it, and that each state leads to a good end.
fn explore(name: &str, bounds: Bounds) {
    let checker = Cutover::new(bounds).checker().threads(2).spawn_bfs().join();
    for (property, path) in checker.discoveries() {
        let violated = !property.starts_with("a move") && !property.starts_with("an attempt");
        assert!(
            !violated,
            "{name}: {property}\n{:#?}\n{:#?}",
            path.clone().into_actions(),
            path.last_state()
        );
    }
    checker.assert_properties();
    let states = checker.unique_state_count();
    println!(
        "{name}: {states} states explored, depth {}, no violation ({bounds:?})",
        checker.max_depth()
    );
    assert!(states > 1000, "{name}: only {states} states");
    let reach = reach(&Cutover::new(bounds));
    assert_eq!(reach.states, states, "{name}: both walks see the same space");
    println!(
        "{name}: each of {states} states leads to one of {} good ends",
        reach.good_ends
    );
    assert!(reach.good_ends > 0, "{name}");
    if let Some(stuck) = reach.stuck {
        panic!("{name}: no good end can be reached from\n{stuck}");
    }
}

#[test]
fn no_violation_with_losses_crashes_and_revocation() {
    explore("plain", PLAIN);
}

#[test]
fn no_violation_with_a_second_mover() {
    explore("second mover", SECOND_MOVER);
}

#[test]
fn no_violation_when_resolved_by_hand() {
    explore("by hand", BY_HAND);
}

#[test]
fn no_violation_in_wider_spaces() {
    if !wide() {
        println!("set REHOME_MODEL=wide to explore larger spaces");
        return;
    }
    explore("wide, two messages by hand", Bounds { messages: 2, ..BY_HAND });
    explore(
        "wide, two messages with a second mover",
        Bounds {
            messages: 2,
            ..SECOND_MOVER
        },
    );
    explore(
        "wide, three attempts with a second mover",
        Bounds {
            attempts: 3,
            ..SECOND_MOVER
        },
    );
    explore(
        "wide, by hand with a second mover",
        Bounds {
            attempts: 2,
            second_mover: true,
            ..BY_HAND
        },
    );
}

/// The properties that a broken variant violates, and whether it can get stuck.
fn found(bounds: Bounds) -> (Vec<&'static str>, bool) {
    let checker = Cutover::new(bounds)
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let mut violated: Vec<_> = checker
        .discoveries()
        .into_keys()
        .filter(|property| !property.starts_with("a move") && !property.starts_with("an attempt"))
        .collect();
    violated.sort_unstable();
    let stuck = violated.is_empty() && reach(&Cutover::new(bounds)).stuck.is_some();
    (violated, stuck)
}

#[test]
fn planted_faults_are_found() {
    let small = Bounds {
        attempts: 2,
        messages: 1,
        ..PLAIN
    };
    for flaw in [
        Flaw::LeaseReopensAfterPrepare,
        Flaw::LapsedLeaseRenewed,
        Flaw::AbortSentBeforeRecorded,
        Flaw::DecideWithoutPrepare,
        Flaw::CommitRefusedAfterRevocation,
        Flaw::NoDrain,
    ] {
        let (violated, stuck) = found(Bounds {
            flaw: Some(flaw),
            ..small
        });
        println!("{flaw:?}: violates {violated:?}, stuck: {stuck}");
        let about_ends = flaw == Flaw::CommitRefusedAfterRevocation;
        assert_eq!(violated.is_empty(), about_ends, "{flaw:?}");
        assert_eq!(stuck, about_ends, "{flaw:?}");
    }
    let (violated, stuck) = found(small);
    assert!(
        violated.is_empty() && !stuck,
        "what is not broken is not found: {violated:?}"
    );
}

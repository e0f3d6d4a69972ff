//! Mail that arrives: each message is decided for by the function of production, hop by hop.

use crate::{
    model::Cutover,
    state::{Fault, Mail, State},
};
use rehome_domain::{
    cutover::{SourcePhase, TargetPhase},
    mailflow::{Decision, Passage, RouteFacts, route},
};

/// More hops than any message may make.
const MOST_HOPS: u32 = 40;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Target,
}

impl Cutover {
    fn route(&self, state: &State, side: Side, passage: Option<Passage>) -> Decision {
        let (recipient, cutover_under_way) = match side {
            Side::Source => (self.facts.at_source(state), false),
            Side::Target => {
                let under_way = match state.target.newest().map(|(_, phase)| phase) {
                    Some(
                        TargetPhase::Closing
                        | TargetPhase::Decided
                        | TargetPhase::Reopened
                        | TargetPhase::CatchingUp
                        | TargetPhase::CatchUpAborted,
                    ) => true,
                    Some(TargetPhase::Aborted | TargetPhase::Done) | None => false,
                };
                (self.facts.at_target(state), under_way)
            }
        };
        route(&RouteFacts {
            domain_accepted: true,
            recipient: Some(recipient),
            passage,
            cutover_under_way,
        })
    }

    /// Whether both would put a message into a mailbox now.
    pub fn both_accept(&self, state: &State) -> bool {
        [Side::Source, Side::Target]
            .into_iter()
            .all(|side| matches!(self.route(state, side, None), Decision::DeliverHere { .. }))
    }

    /// The sender tries. None where he is put off.
    pub fn send_message(&self, state: &mut State, message: usize) -> Option<()> {
        let mut side = if message == 0 { Side::Source } else { Side::Target };
        let mut entries = [0; 2];
        for hop in 0..MOST_HOPS {
            let passage = Passage {
                earlier_entries: entries[side as usize],
                received_lines: hop,
            };
            match self.route(state, side, Some(passage)) {
                Decision::DeliverHere { .. } => {
                    state.mail[message] = match side {
                        Side::Source => Mail::EntersSource,
                        Side::Target => Mail::EntersTarget,
                    };
                    return Some(());
                }
                Decision::Relay { .. } => {
                    entries[side as usize] += 1;
                    side = match side {
                        Side::Source => Side::Target,
                        Side::Target => Side::Source,
                    };
                }
                Decision::Defer(_) => return None,
                Decision::Refuse(_) | Decision::Expand { .. } => break,
            }
        }
        state.fault(Fault::Rejected);
        Some(())
    }

    /// The file is in its place, and the sender is told so.
    pub fn arrive(&self, state: &mut State, message: usize) {
        let bit = 1 << message;
        match state.mail[message] {
            Mail::EntersSource => {
                let held = state.source.newest.map(|held| held.phase);
                let promised = matches!(
                    held,
                    Some(SourcePhase::Prepared | SourcePhase::Committed | SourcePhase::Released)
                );
                if promised || state.target_is_mailbox() && !state.is_exception() {
                    state.fault(Fault::AcceptedTooLate);
                }
                state.mail[message] = Mail::AtSource;
                state.source.content |= bit;
            }
            Mail::EntersTarget => {
                state.mail[message] = Mail::AtTarget;
                state.target.content |= bit;
            }
            Mail::Waits | Mail::AtSource | Mail::AtTarget => {}
        }
    }
}

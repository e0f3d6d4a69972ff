//! From every state that can be reached, kind events alone must lead to a good end: looked at backwards over the graph.

use crate::{model::Cutover, state::State};
use stateright::Model;
use std::collections::{HashMap, VecDeque, hash_map::Entry};

pub struct Reach {
    pub states: usize,
    pub good_ends: usize,
    /// A state from which no good end can be reached, with the way to it.
    pub stuck: Option<String>,
}

/// Explores everything, and walks back from the good ends.
pub fn reach(model: &Cutover) -> Reach {
    let mut index: HashMap<State, u32> = HashMap::new();
    // Each state's first predecessor, to show the way.
    let mut first: Vec<(u32, Option<<Cutover as Model>::Action>)> = Vec::new();
    let mut kind_into: Vec<Vec<u32>> = Vec::new();
    let mut good = Vec::new();
    let mut waiting = VecDeque::new();
    for state in model.init_states() {
        index.insert(state.clone(), 0);
        first.push((0, None));
        kind_into.push(Vec::new());
        good.push(model.is_good_end(&state));
        waiting.push_back((0, state));
    }
    let mut actions = Vec::new();
    while let Some((from, state)) = waiting.pop_front() {
        actions.clear();
        model.actions(&state, &mut actions);
        for action in actions.drain(..) {
            let Some(next) = model.next_state(&state, action) else {
                continue;
            };
            let fresh = u32::try_from(first.len()).expect("fewer states than that");
            let to = match index.entry(next) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(unknown) => {
                    first.push((from, Some(action)));
                    kind_into.push(Vec::new());
                    good.push(model.is_good_end(unknown.key()));
                    waiting.push_back((fresh, unknown.key().clone()));
                    *unknown.insert(fresh)
                }
            };
            if model.is_kind(&action) {
                kind_into[to as usize].push(from);
            }
        }
    }
    let good_ends = good.iter().filter(|good| **good).count();
    let mut reaches = good;
    let mut walk: Vec<u32> = (0..)
        .zip(&reaches)
        .filter(|(_, good)| **good)
        .map(|(at, _)| at)
        .collect();
    while let Some(at) = walk.pop() {
        for &from in &kind_into[at as usize] {
            if !std::mem::replace(&mut reaches[from as usize], true) {
                walk.push(from);
            }
        }
    }
    let stuck = reaches.iter().position(|reaches| !reaches).map(|at| {
        let state = index
            .iter()
            .find(|(_, i)| **i as usize == at)
            .map(|(state, _)| format!("{state:#?}"));
        format!("{}\n{}", way(&first, at), state.unwrap_or_default())
    });
    Reach {
        states: first.len(),
        good_ends,
        stuck,
    }
}

fn way<A: std::fmt::Debug>(first: &[(u32, Option<A>)], mut at: usize) -> String {
    let mut steps = Vec::new();
    while let (before, Some(action)) = &first[at] {
        steps.push(format!("{action:?}"));
        at = *before as usize;
    }
    steps.reverse();
    steps.join("\n")
}

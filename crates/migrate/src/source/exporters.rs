//! Exporters in use: one for each move and mailbox, so that requests at once share its notes.

use rehome_domain::id::{AttemptId, MoveId, TenantId};
use rehome_mailbox::Mailbox;
use rehome_platform::Place;
use rehome_replicate::{ChunkStorage, Exporter};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A mailbox that nobody asked for in this time is opened anew: another one may be at its place.
const REOPEN: Duration = Duration::from_secs(600);
/// What an exporter knows is forgotten after this time: longer than the pause between two incremental passes, so that it
/// is there when the cutover comes. Its notes are durable.
const IDLE: Duration = Duration::from_secs(26 * 3600);
/// Octets that all exporters keep together, and how many there are. Beyond, those asked for longest ago are forgotten.
const MOST_MEMORY: usize = 256 * 1024 * 1024;
const MOST: usize = 4_096;

type Key = (TenantId, MoveId, Place);

struct Kept {
    exporter: Exporter,
    used: Instant,
}

/// Exporters by move and place.
#[derive(Default)]
pub(super) struct Exporters(Mutex<HashMap<Key, Kept>>);

impl Exporters {
    /// The exporter of a key, if one is in use.
    pub(super) fn get(&self, key: &Key) -> Option<Exporter> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = all.get_mut(key).filter(|kept| kept.used.elapsed() < REOPEN)?;
        kept.used = Instant::now();
        Some(kept.exporter.clone())
    }

    /// The exporter of a mailbox that was just opened, unless another request was quicker; with what an earlier one knew.
    pub(super) fn keep(&self, mailbox: Arc<dyn Mailbox>, notes: Arc<dyn ChunkStorage>, key: Key) -> Exporter {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let exporter = match all.get(&key) {
            Some(kept) if kept.used.elapsed() < REOPEN => kept.exporter.clone(),
            Some(kept) => kept.exporter.reopened(mailbox),
            None => Exporter::new(mailbox, notes),
        };
        let kept = Kept {
            exporter: exporter.clone(),
            used: Instant::now(),
        };
        all.insert(key, kept);
        forget(&mut all);
        exporter
    }
}

/// Forgets what was idle for long, and what is too much, the least recently used first.
fn forget(all: &mut HashMap<Key, Kept>) {
    let of = |(key, kept): (&Key, &Kept)| (kept.used, key.clone(), kept.exporter.memory());
    let mut ages: Vec<_> = all.iter().map(of).collect();
    ages.sort_unstable_by_key(|(used, ..)| std::cmp::Reverse(*used));
    let mut memory = 0;
    for (number, (used, key, octets)) in ages.into_iter().enumerate() {
        memory += octets;
        // The newest one always stays.
        if number > 0 && (used.elapsed() > IDLE || number >= MOST || memory > MOST_MEMORY) {
            all.remove(&key);
        }
    }
}

/// Attempts that are being prepared at this moment.
#[derive(Default)]
pub(super) struct Preparing(Mutex<HashSet<AttemptId>>);

/// Ends an attempt's preparing when it goes out of scope.
pub(super) struct Alone<'a> {
    preparing: &'a Preparing,
    attempt: AttemptId,
}

impl Preparing {
    /// Begins, unless the attempt is being prepared already.
    pub(super) fn begin(&self, attempt: AttemptId) -> Option<Alone<'_>> {
        let began = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(attempt);
        began.then_some(Alone {
            preparing: self,
            attempt,
        })
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.preparing
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.attempt);
    }
}

/// Attempts whose mailboxes were found quiet by this process. One that is not among them may be quiet all the same; it is
/// made so again.
#[derive(Default)]
pub(super) struct Quiet(Mutex<HashSet<AttemptId>>);

impl Quiet {
    pub(super) fn note(&self, attempt: AttemptId) {
        let mut quiet = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if quiet.len() >= MOST {
            quiet.clear();
        }
        quiet.insert(attempt);
    }

    pub(super) fn holds(&self, attempt: AttemptId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&attempt)
    }
}

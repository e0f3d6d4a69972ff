//! Exporters in use: one for each move and mailbox, so that requests at once share its notes.

use rehome_domain::id::{AttemptId, MoveId, TenantId};
use rehome_platform::Place;
use rehome_replicate::Exporter;
use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// An exporter that nobody asked for in this time is forgotten; its notes are durable.
const IDLE: Duration = Duration::from_secs(600);

type Key = (TenantId, MoveId, Place);

/// Exporters by move and place.
#[derive(Default)]
pub(super) struct Exporters(Mutex<HashMap<Key, (Exporter, Instant)>>);

impl Exporters {
    /// The exporter of a key, if one is in use.
    pub(super) fn get(&self, key: &Key) -> Option<Exporter> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.get_mut(key).map(|(exporter, used)| {
            *used = Instant::now();
            exporter.clone()
        })
    }

    /// Keeps a new exporter unless another request was quicker; returns the one to use.
    pub(super) fn keep(&self, exporter: Exporter, key: Key) -> Exporter {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.retain(|_, (_, used)| used.elapsed() < IDLE);
        map.entry(key).or_insert_with(|| (exporter, Instant::now())).0.clone()
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

//! Exporters in use: one for each move and mailbox, so that requests at once share its notes.

use rehome_domain::id::{MoveId, TenantId};
use rehome_platform::Place;
use rehome_replicate::Exporter;
use std::{
    collections::HashMap,
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

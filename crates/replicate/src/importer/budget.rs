//! Octets in flight: what bodies may take in memory, over all folders that are worked on at once.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

const MIB: usize = 1024 * 1024;
/// Octets, by the source's hints, that one request asks for at most; one larger item alone is allowed.
const REQUEST_OCTETS: u64 = 32 * MIB as u64;
/// Octets of items in the spool folder at which a batch is handed on.
pub(super) const BATCH_SPOOLED: u64 = 32 * MIB as u64;
/// Octets of a folder's first items that may be here before it is the folder's turn.
pub(super) const EARLY_OCTETS: usize = MIB;
/// Of items larger than this only one is in the spool folder at a time.
pub(super) const HUGE: u64 = 256 * MIB as u64;

/// What may be held at once.
pub(super) struct Budget {
    octets: Arc<Semaphore>,
    total: usize,
    /// Half of the budget: answers that were asked for ahead lie in the transport.
    ahead: u64,
    /// For first items of folders whose turn is to come. Nobody waits for these.
    early: Arc<Semaphore>,
    request: AtomicU64,
    huge: Arc<Mutex<()>>,
}

/// Octets of the budget that an item holds.
pub(super) struct HeldOctets(Vec<OwnedSemaphorePermit>);

impl HeldOctets {
    pub(super) fn count(&self) -> usize {
        self.0.iter().map(OwnedSemaphorePermit::num_permits).sum()
    }

    pub(super) fn add(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// Gives back what is beyond `octets`.
    pub(super) fn keep(&mut self, octets: usize) {
        let mut beyond = self.count().saturating_sub(octets);
        for permit in &mut self.0 {
            let part = beyond.min(permit.num_permits());
            drop(permit.split(part));
            beyond -= part;
        }
    }

    /// Takes a part of them.
    pub(super) fn split(&mut self, octets: usize) -> Option<Self> {
        let split = self.0.iter_mut().find_map(|permit| permit.split(octets))?;
        Some(Self(vec![split]))
    }
}

impl Budget {
    pub(super) fn new(memory: usize) -> Self {
        let total = (memory / 2).clamp(MIB, Semaphore::MAX_PERMITS);
        Self {
            octets: Arc::new(Semaphore::new(total)),
            total,
            ahead: (memory as u64 / 2).max(MIB as u64),
            early: Arc::new(Semaphore::new((memory / 8).clamp(MIB, Semaphore::MAX_PERMITS))),
            request: AtomicU64::new(MIB as u64),
            huge: Arc::default(),
        }
    }

    /// Sets what one request asks for where this many may be open at once.
    pub(super) fn share_requests(&self, open: usize) {
        let each = (self.ahead / open.max(1) as u64).clamp(MIB as u64, REQUEST_OCTETS);
        self.request.store(each, Ordering::Relaxed);
    }

    /// Octets that one request asks for.
    pub(super) fn request_octets(&self) -> u64 {
        self.request.load(Ordering::Relaxed)
    }

    /// Octets of one answer after which nothing more of it is read: hints may lie, but in canonical form an item is at
    /// most twice as long as stored.
    pub(super) fn answer_octets(&self) -> u64 {
        2 * self.request_octets()
    }

    /// Larger items go through the spool folder.
    pub(super) fn item_in_memory(&self) -> usize {
        (self.total / 8).clamp(MIB / 16, 8 * MIB)
    }

    /// Octets in memory at which a batch is handed on, where this many folders are worked on.
    pub(super) fn batch_octets(&self, lanes: usize) -> usize {
        (self.total / (4 * lanes.max(1))).clamp(MIB / 16, 4 * MIB)
    }

    /// Octets for one item, if they are there at once.
    pub(super) fn try_take(&self, octets: usize) -> Option<HeldOctets> {
        let permit = Arc::clone(&self.octets).try_acquire_many_owned(self.permits(octets));
        Some(HeldOctets(vec![permit.ok()?]))
    }

    /// Octets for the first items of a folder whose turn is to come, if they are there.
    pub(super) fn try_take_early(&self, octets: usize) -> Option<HeldOctets> {
        let octets = u32::try_from(octets).ok()?;
        let permit = Arc::clone(&self.early).try_acquire_many_owned(octets);
        Some(HeldOctets(vec![permit.ok()?]))
    }

    /// Octets for one item, when they are there. Who waits here holds no complete item back.
    pub(super) async fn take(&self, octets: usize) -> HeldOctets {
        let waiting = Arc::clone(&self.octets).acquire_many_owned(self.permits(octets));
        HeldOctets(vec![waiting.await.expect("the budget is never closed")])
    }

    fn permits(&self, octets: usize) -> u32 {
        u32::try_from(octets.min(self.total)).unwrap_or(u32::MAX)
    }

    /// The place in the spool folder for a very large item. Who waits here holds no complete item back.
    pub(super) async fn huge(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.huge).lock_owned().await
    }
}

//! What a connection spends its time with: whether the link between the organisations is what streams wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Shorter streams say nothing.
const TELLING: u64 = 1024 * 1024;
/// Octets a second over all streams of a connection from which on compressing would be the slower part.
const FAST: u64 = 50 * 1024 * 1024;

/// One connection's streams of contents, as one end sees them.
#[derive(Debug, Default)]
pub(crate) struct Link {
    streams: AtomicUsize,
    narrow: AtomicBool,
}

/// One stream at work. When it is dropped it is judged, unless it is compressed: then it tells nothing of what would be
/// without that.
pub(crate) struct OnLink {
    link: Arc<Link>,
    begun: Instant,
    /// Time spent waiting for the link: the sender for room, the reader for octets.
    pub(crate) waited: Duration,
    pub(crate) octets: u64,
    pub(crate) compressed: bool,
}

impl Link {
    /// Whether the last stream that could tell spent most of its time waiting for the link. The reader says so by its
    /// offer, the sender by what he does with it. Where both do, neither mailbox is what is slow, and compressing helps.
    pub(crate) fn is_narrow(&self) -> bool {
        self.narrow.load(Ordering::Relaxed)
    }

    pub(crate) fn begin(self: &Arc<Self>) -> OnLink {
        self.streams.fetch_add(1, Ordering::Relaxed);
        OnLink {
            link: Arc::clone(self),
            begun: Instant::now(),
            waited: Duration::ZERO,
            octets: 0,
            compressed: false,
        }
    }

    /// Judges a stream that took so long beside others.
    fn judge(&self, octets: u64, took: Duration, waited: Duration, streams: usize) {
        if octets >= TELLING {
            let rate = octets as f64 / took.as_secs_f64().max(1e-3) * streams as f64;
            self.narrow
                .store(waited * 2 > took && rate < FAST as f64, Ordering::Relaxed);
        }
    }
}

impl Drop for OnLink {
    fn drop(&mut self) {
        let streams = self.link.streams.fetch_sub(1, Ordering::Relaxed);
        if !self.compressed {
            self.link.judge(self.octets, self.begun.elapsed(), self.waited, streams);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_slow_link_that_is_waited_for_is_narrow() {
        let second = Duration::from_secs(1);
        let mebi = 1024 * 1024;
        for (octets, waited, streams, narrow) in [
            (10 * mebi, second, 1, true),
            (10 * mebi, second / 3, 1, false),
            (10 * mebi, second, 6, false),
            (60 * mebi, second, 1, false),
            (1_000, second, 1, false),
        ] {
            let link = Link::default();
            link.judge(octets, second, waited, streams);
            assert_eq!(link.is_narrow(), narrow, "{octets} {waited:?} {streams}");
        }
        let link = Link::default();
        link.judge(10 * mebi, second, second, 1);
        link.judge(1_000, second, Duration::ZERO, 1);
        assert!(link.is_narrow(), "a short stream changes nothing");
    }
}

//! Waiting for something that another process does: bounded, and with a text that says what did not come.

use std::time::{Duration, Instant};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Looks again and again until `look` finds something, and returns it.
///
/// # Panics
/// When nothing was found within `bound`; the text names `what`, and what the last look saw instead.
pub fn until<T>(what: &str, bound: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + bound;
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) => assert!(
                Instant::now() < deadline,
                "waited {} s in vain for: {what}; last seen: {seen}",
                bound.as_secs()
            ),
        }
        std::thread::sleep(PAUSE);
    }
}

/// As [`until`], for a condition.
///
/// # Panics
/// As [`until`].
pub fn until_true(what: &str, bound: Duration, mut look: impl FnMut() -> bool) {
    until(what, bound, || if look() { Ok(()) } else { Err("not yet".to_owned()) });
}

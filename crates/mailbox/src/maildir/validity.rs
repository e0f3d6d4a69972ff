//! New UIDVALIDITY numbers.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Gives UIDVALIDITY numbers: the current second, or a later one that no folder of the mailbox has had while it was
/// open.
#[derive(Debug, Default)]
pub(super) struct Validities {
    known: Mutex<BTreeSet<u32>>,
}

impl Validities {
    /// Notes a number in use.
    pub(super) fn note(&self, uid_validity: u32) {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(uid_validity);
    }

    /// A number not given or noted before.
    pub(super) fn next(&self) -> u32 {
        // Whole seconds since 1970 fit until 2106.
        let now = u32::try_from(jiff::Timestamp::now().as_second()).unwrap_or(1).max(1);
        self.after(now)
    }

    fn after(&self, now: u32) -> u32 {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let free = (now..u32::MAX).find(|number| !known.contains(number)).unwrap_or(now);
        known.insert(free);
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_given_once() {
        let validities = Validities::default();
        validities.note(101);
        assert_eq!(
            [validities.after(100), validities.after(100), validities.after(100)],
            [100, 102, 103]
        );
    }
}

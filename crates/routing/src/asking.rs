//! Which recipients next hops are being asked about right now.
//!
//! A next hop that is asked about a recipient may ask its own next hop, and so on. Two organisations that each believe
//! the other to have the mailbox would ask each other without end, before any header shows the loop. In such a circle
//! all questions are open at the same time, so counting the open ones for the same sender and recipient ends it.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Most open questions for one sender and recipient: three entries and room for senders that repeat at the same time.
const MAX_OPEN: u32 = 8;

/// The open questions.
#[derive(Default)]
pub(crate) struct Asking {
    open: Mutex<HashMap<Key, u32>>,
}

/// Sender and recipient, as keys.
type Key = (String, String);

/// One open question; closed on drop.
pub(crate) struct Question<'a> {
    asking: &'a Asking,
    key: Key,
}

impl Asking {
    /// Opens a question; none when there are too many of its kind.
    pub(crate) fn open(&self, sender: Option<&str>, recipient: &str) -> Option<Question<'_>> {
        let key = (sender.unwrap_or_default().to_lowercase(), recipient.to_owned());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(key.clone()).or_default();
        if *count >= MAX_OPEN {
            return None;
        }
        *count += 1;
        Some(Question { asking: self, key })
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        let mut open = self.asking.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_questions_are_counted_and_forgotten() {
        let asking = Asking::default();
        let mut open: Vec<_> = (0..MAX_OPEN)
            .map(|_| asking.open(Some("A@b"), "c@d").unwrap())
            .collect();
        assert!(asking.open(Some("a@B"), "c@d").is_none());
        assert!(asking.open(None, "c@d").is_some());
        open.pop();
        assert!(asking.open(Some("a@b"), "c@d").is_some());
        open.clear();
        assert!(asking.open.lock().unwrap().is_empty());
    }
}

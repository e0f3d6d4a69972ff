//! Which next hops took a message whose sender was told to repeat it.
//!
//! A message for several hops, or for a hop and mailboxes here, may be taken by one and not by another. Its sender
//! repeats it, and who has it must not get it again. Kept in memory: after a restart such a repetition makes a double.

use rehome_domain::address::SmtpAddress;
use rehome_wire::digest::{Digest, Digester};
use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Most that are kept; the oldest go first.
const MAX_KEPT: usize = 10_000;

/// A sender repeats for four or five days (RFC 5321 §4.5.4.1).
const KEPT_FOR: Duration = Duration::from_secs(5 * 24 * 3600);

/// What was taken and will be sent to us again.
#[derive(Default)]
pub(crate) struct HandedOver {
    kept: Mutex<VecDeque<(Digest, Instant)>>,
}

/// Names a message from one sender to these recipients of one hop.
pub(crate) fn key(sender: Option<&str>, recipients: &[SmtpAddress], message: Digest) -> Digest {
    let mut recipients: Vec<String> = recipients.iter().map(SmtpAddress::key).collect();
    recipients.sort();
    let mut digester = Digester::new();
    for text in [sender.unwrap_or_default()]
        .into_iter()
        .chain(recipients.iter().map(String::as_str))
    {
        digester.update(text.as_bytes());
        digester.update(b"\0");
    }
    digester.update(&message.0);
    digester.finish()
}

impl HandedOver {
    /// Whether a hop has it.
    pub(crate) fn holds(&self, key: Digest) -> bool {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(_, since)| since.elapsed() < KEPT_FOR);
        kept.iter().any(|(held, _)| *held == key)
    }

    /// A hop has it, and the sender will repeat.
    pub(crate) fn note(&self, key: Digest) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.iter().any(|(held, _)| *held == key) {
            return;
        }
        if kept.len() >= MAX_KEPT {
            kept.pop_front();
        }
        kept.push_back((key, Instant::now()));
    }

    /// The sender has his yes.
    pub(crate) fn forget(&self, key: Digest) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(held, _)| *held != key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_until_forgotten_and_bounded() {
        let address = |text: &str| text.parse::<SmtpAddress>().unwrap();
        let (one, two) = (address("one@fabrikam.example"), address("two@fabrikam.example"));
        let message = Digest::of(b"x");
        let named = key(Some("a@b.example"), &[one.clone(), two.clone()], message);
        assert_eq!(named, key(Some("a@b.example"), &[two.clone(), one.clone()], message));
        for other in [
            key(None, &[one.clone(), two.clone()], message),
            key(Some("a@b.example"), std::slice::from_ref(&one), message),
            key(Some("a@b.example"), &[one, two], Digest::of(b"y")),
        ] {
            assert_ne!(named, other);
        }
        let handed_over = HandedOver::default();
        handed_over.note(named);
        handed_over.note(named);
        assert!(handed_over.holds(named));
        handed_over.forget(named);
        assert!(!handed_over.holds(named));
        handed_over.note(named);
        for number in 0..MAX_KEPT {
            handed_over.note(Digest::of(&number.to_be_bytes()));
        }
        assert!(!handed_over.holds(named));
        assert_eq!(handed_over.kept.lock().unwrap().len(), MAX_KEPT);
    }
}

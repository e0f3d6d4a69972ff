//! Passwords: bounded hashing, and the throttle before it.

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use aws_lc_rs::rand;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::Semaphore;

use crate::jws::CryptographyFailed;

/// Checks at a time.
const AT_ONCE: usize = 2;
/// Checks that may wait.
const WAITING: usize = 16;
/// A well-formed hash that no known password has, with the same cost as real ones: unknown users cost as much.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$cmVob21lIG5vYm9keS4uLg$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

/// Why a password was not checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PoolError {
    /// The queue is full.
    Busy,
    /// Hashing failed.
    Failed,
}

impl From<CryptographyFailed> for PoolError {
    fn from(_: CryptographyFailed) -> Self {
        Self::Failed
    }
}

/// Runs argon2id for at most two at a time with a short queue.
#[derive(Debug)]
pub(crate) struct PasswordPool {
    at_once: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
}

impl Default for PasswordPool {
    fn default() -> Self {
        Self {
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            admitted: Arc::new(Semaphore::new(AT_ONCE + WAITING)),
        }
    }
}

impl PasswordPool {
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, PoolError> {
        let admitted = Arc::clone(&self.admitted)
            .try_acquire_owned()
            .map_err(|_| PoolError::Busy)?;
        let turn = Arc::clone(&self.at_once)
            .acquire_owned()
            .await
            .map_err(|_| PoolError::Failed)?;
        // The permits go with the work: a caller that leaves does not make room before the work is done.
        tokio::task::spawn_blocking(move || {
            let done = work();
            drop((turn, admitted));
            done
        })
        .await
        .map_err(|_| PoolError::Failed)
    }

    /// Whether the password has this hash; without one the same work is done and the answer is no.
    pub(crate) async fn verify(&self, hash: Option<String>, password: SecretString) -> Result<bool, PoolError> {
        self.run(move || {
            let known = hash.is_some();
            let text = hash.unwrap_or_else(|| NOBODY.to_owned());
            let matches = PasswordHash::new(&text).is_ok_and(|hash| {
                Argon2::default()
                    .verify_password(password.expose_secret().as_bytes(), &hash)
                    .is_ok()
            });
            known && matches
        })
        .await
    }

    /// The argon2id hash of a password, as a PHC string.
    pub(crate) async fn hash(&self, password: SecretString) -> Result<String, PoolError> {
        let mut salt = [0u8; 16];
        rand::fill(&mut salt).map_err(|_| CryptographyFailed)?;
        self.run(move || {
            let hash: Result<PasswordHash, _> =
                Argon2::default().hash_password_with_salt(password.expose_secret().as_bytes(), &salt);
            hash.map(|h| h.to_string()).map_err(|_| PoolError::Failed)
        })
        .await?
    }
}

/// Failures that are free, before the waiting begins.
const FREE_FAILURES: u32 = 10;
/// After this many quiet seconds failures are forgotten.
const FORGET_AFTER: i64 = 3600;
/// Most accounts and addresses remembered.
const MAX_REMEMBERED: usize = 20_000;

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last: i64,
}

/// Counts failed sign-ins by key (an account, an address) and says how long to wait.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<HashMap<String, Failures>>);

/// Seconds to wait after so many failures: nothing for the first ten, then 1, 2, 4 … up to five minutes.
fn delay(count: u32) -> i64 {
    match count.checked_sub(FREE_FAILURES) {
        None => 0,
        Some(over) => (1i64 << over.min(9)).min(300),
    }
}

impl Throttle {
    /// How many seconds the caller has to wait, if any. Each key comes with the longest wait it may cause.
    pub(crate) fn wait(&self, keys: &[(&str, i64)], now: Timestamp) -> Option<u32> {
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now.as_second();
        let longest = keys
            .iter()
            .filter_map(|(key, longest)| failures.get(*key).map(|f| (f, delay(f.count).min(*longest))))
            .filter(|(f, _)| f.last + FORGET_AFTER > now)
            // Never longer than the delay itself, should the clock have been set back.
            .map(|(f, delay)| (f.last + delay - now).min(delay))
            .max()?;
        u32::try_from(longest).ok().filter(|s| *s > 0)
    }

    /// Counts a failure.
    pub(crate) fn failed(&self, keys: &[&str], now: Timestamp) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now.as_second();
        for key in keys {
            if failures.len() >= MAX_REMEMBERED && !failures.contains_key(*key) {
                failures.retain(|_, f| f.last + FORGET_AFTER > now);
                // Still full: forget the half that failed least, so that persistent guessing stays known.
                if failures.len() >= MAX_REMEMBERED {
                    let mut counts: Vec<u32> = failures.values().map(|f| f.count).collect();
                    let middle = counts.len() / 2;
                    let (_, median, _) = counts.select_nth_unstable(middle);
                    let median = *median;
                    failures.retain(|_, f| f.count > median);
                }
            }
            let entry = failures
                .entry((*key).to_owned())
                .or_insert(Failures { count: 0, last: now });
            if entry.last + FORGET_AFTER <= now {
                entry.count = 0;
            }
            entry.count = entry.count.saturating_add(1);
            entry.last = now;
        }
    }

    /// Forgets an account's failures after a good sign-in.
    pub(crate) fn succeeded(&self, key: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyset::tests::at;

    #[tokio::test]
    async fn hashing() {
        let pool = PasswordPool::default();
        let hash = pool.hash("correct horse battery".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(
            pool.verify(Some(hash.clone()), "correct horse battery".into())
                .await
                .unwrap()
        );
        assert!(!pool.verify(Some(hash), "wrong".into()).await.unwrap());
        assert!(!pool.verify(None, "wrong".into()).await.unwrap());
        assert!(
            PasswordHash::new(NOBODY).is_ok(),
            "unknown users must cost the same work"
        );
    }

    #[tokio::test]
    async fn a_full_queue_says_so() {
        let pool = PasswordPool::default();
        let held = Arc::clone(&pool.admitted)
            .acquire_many_owned(u32::try_from(AT_ONCE + WAITING).unwrap())
            .await
            .unwrap();
        assert_eq!(pool.verify(None, "x".into()).await, Err(PoolError::Busy));
        drop(held);
        assert_eq!(pool.verify(None, "x".into()).await, Ok(false));
    }

    #[test]
    fn waiting_grows_and_ends() {
        let throttle = Throttle::default();
        let keys = ["account", "address"];
        let waits = keys.map(|key| (key, 300));
        for n in 0..9 {
            throttle.failed(&keys, at(0));
            assert_eq!(throttle.wait(&waits, at(0)), None, "{n}");
        }
        for (second, wait) in [(0, 1), (1, 2), (3, 4), (7, 8)] {
            assert_eq!(throttle.wait(&waits, at(second)), None);
            throttle.failed(&keys, at(second));
            assert_eq!(throttle.wait(&[("account", 300)], at(second)), Some(wait));
            assert_eq!(throttle.wait(&[("address", 300)], at(second)), Some(wait));
        }
        assert_eq!(throttle.wait(&[("other", 300)], at(7)), None);
        assert_eq!(
            throttle.wait(&[("address", 300)], at(-100_000)),
            Some(8),
            "the clock was set back"
        );
        throttle.succeeded("account");
        assert_eq!(throttle.wait(&[("account", 300)], at(7)), None);
        assert_eq!(throttle.wait(&waits, at(7 + FORGET_AFTER)), None);
        assert_eq!(delay(u32::MAX), 300);
    }

    #[test]
    fn memory_is_bounded_and_keeps_the_worst() {
        let throttle = Throttle::default();
        for _ in 0..12 {
            throttle.failed(&["guesser"], at(0));
        }
        for n in 0..MAX_REMEMBERED + 10 {
            throttle.failed(&[&n.to_string()], at(1));
        }
        assert!(throttle.0.lock().unwrap().len() <= MAX_REMEMBERED);
        assert!(throttle.wait(&[("guesser", 300)], at(1)).is_some());
    }
}

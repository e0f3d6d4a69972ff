//! Names and counts durable steps, may stop the process at one, and says which mistakes a test has planted; empty
//! without the flag `fault-injection`.
//!
//! Never: do anything else.

/// Marks that the durable step `name` (`room.what`) has just been made.
///
/// With the feature `fault-injection`: step number N of the process is written to the file named by
/// `REHOME_FAULT_LOG`, and the process ends without cleaning up when N equals `REHOME_FAULT_STEP`,
/// or when `name` equals `REHOME_FAULT_NAME` for the `REHOME_FAULT_COUNT`th time (1 if unset).
#[inline]
pub fn step(name: &'static str) {
    #[cfg(feature = "fault-injection")]
    injection::step(name);
    #[cfg(not(feature = "fault-injection"))]
    let _ = name;
}

/// Whether the mistake `name` (`room.what`) is to be made on purpose, so that a test can show that it would be found.
///
/// With the feature `fault-injection`: true where `REHOME_PLANT` names it (several names are separated by commas), read
/// once in the process's life. Without it: always false, at compile time, so that nothing of the mistake is in a release.
#[inline]
#[must_use]
#[cfg(feature = "fault-injection")]
pub fn planted(name: &'static str) -> bool {
    injection::planted(name)
}

/// Whether the mistake `name` (`room.what`) is to be made on purpose: never, without the feature `fault-injection`.
#[inline]
#[must_use]
#[cfg(not(feature = "fault-injection"))]
pub const fn planted(name: &'static str) -> bool {
    let _ = name;
    false
}

#[cfg(feature = "fault-injection")]
mod injection {
    use std::io::Write;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static STEPS: AtomicU64 = AtomicU64::new(0);
    static NAMED: AtomicU64 = AtomicU64::new(0);
    static PLANTED: OnceLock<Vec<String>> = OnceLock::new();

    pub(super) fn planted(name: &'static str) -> bool {
        let names = PLANTED.get_or_init(|| {
            let names = std::env::var("REHOME_PLANT").unwrap_or_default();
            names.split(',').map(|name| name.trim().to_owned()).collect()
        });
        names.iter().any(|planted| planted == name)
    }

    fn number(variable: &str) -> Option<u64> {
        std::env::var(variable).ok()?.parse().ok()
    }

    pub(super) fn step(name: &'static str) {
        let count = STEPS.fetch_add(1, Ordering::SeqCst) + 1;
        if let Ok(path) = std::env::var("REHOME_FAULT_LOG")
            && let Ok(mut log) = std::fs::OpenOptions::new().append(true).create(true).open(path)
        {
            // A log that cannot be written must not change what is tested.
            let _ = writeln!(log, "{count} {name}");
        }
        let here = number("REHOME_FAULT_STEP") == Some(count)
            || (std::env::var("REHOME_FAULT_NAME").as_deref() == Ok(name)
                && NAMED.fetch_add(1, Ordering::SeqCst) + 1 == number("REHOME_FAULT_COUNT").unwrap_or(1));
        if here {
            std::process::abort();
        }
    }
}

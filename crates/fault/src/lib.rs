//! Names and counts durable steps, and may stop the process at one; empty without the flag `fault-injection`.
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

#[cfg(feature = "fault-injection")]
mod injection {
    use std::io::Write;
    use std::sync::atomic::{AtomicU64, Ordering};

    static STEPS: AtomicU64 = AtomicU64::new(0);
    static NAMED: AtomicU64 = AtomicU64::new(0);

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

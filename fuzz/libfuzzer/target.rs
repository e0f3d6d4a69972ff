//! One target under libFuzzer: the one that `REHOME_FUZZ_TARGET` names.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static TARGET: LazyLock<rehome_fuzz::Target> = LazyLock::new(|| {
    let name = std::env::var("REHOME_FUZZ_TARGET").unwrap_or_default();
    rehome_fuzz::target(&name).unwrap_or_else(|| {
        let all: Vec<&str> = rehome_fuzz::TARGETS.iter().map(|target| target.name).collect();
        panic!("REHOME_FUZZ_TARGET is one of {}", all.join(", "))
    })
});

fuzz_target!(|octets: &[u8]| (TARGET.run)(octets));

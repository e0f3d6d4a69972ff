//! Properties are tried on the same values in every run, and the output of one that fails says which.

use proptest::{prelude::ProptestConfig, test_runner::RngSeed};

/// The seed unless `PROPTEST_RNG_SEED` names another one.
const SEED: u64 = 1;

/// How properties are tried. `PROPTEST_RNG_SEED` and `PROPTEST_CASES` change it.
pub(crate) fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => SEED,
    };
    eprintln!(
        "to try it again: PROPTEST_RNG_SEED={seed} PROPTEST_CASES={}",
        config.cases
    );
    ProptestConfig {
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..config
    }
}

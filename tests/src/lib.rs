//! Whole organisations as processes; the tests are in `tests/organisations`.

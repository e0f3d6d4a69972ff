//! Whole organisations under test; see tests/.

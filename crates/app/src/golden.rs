//! Comparison with files under tests/golden; `UPDATE_GOLDEN=1` rewrites them.

use std::{env, fs, path::Path};

/// Compares a text with its golden file.
pub(crate) fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if expected == text {
        return;
    }
    let differing = expected.lines().zip(text.lines()).position(|(old, new)| old != new);
    let line = differing.unwrap_or_else(|| expected.lines().count().min(text.lines().count()));
    panic!(
        "{} differs from line {} on (UPDATE_GOLDEN=1 rewrites it)\n  was: {:?}\n  now: {:?}",
        path.display(),
        line + 1,
        expected.lines().nth(line),
        text.lines().nth(line)
    );
}

//! Who runs the test, and giving files to whom a server wants to be.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Whether the test runs as root, as which mail servers refuse to touch mail.
pub(crate) fn is_root() -> bool {
    identity("-u") == "0"
}

/// What `id` says: `-u`, `-g`, `-un` or `-gn`.
pub(crate) fn identity(option: &str) -> String {
    let output = Command::new("id").arg(option).output().expect("id runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Gives a folder with all in it to a user and group (`name:group`) where we are root.
pub(crate) fn give(folder: &Path, owner: &str) {
    if is_root() {
        let given = Command::new("chown").arg("-R").arg(owner).arg(folder).status();
        assert!(
            given.is_ok_and(|status| status.success()),
            "{} is given to {owner}",
            folder.display()
        );
    }
}

/// A temporary folder that other users may look into, as parts of a server are other users when we are root.
pub(crate) fn shared_folder(prefix: &str) -> tempfile::TempDir {
    let folder = tempfile::Builder::new()
        .prefix(prefix)
        .tempdir()
        .expect("a temporary folder is made");
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("it is opened to others");
    folder
}

/// Writes a file that everybody may read, by rename, so that a server sees the old or the new one.
pub(crate) fn write_whole(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).expect("a file is written");
    std::fs::set_permissions(&new, Permissions::from_mode(0o644)).expect("it is opened to others");
    std::fs::rename(&new, file).expect("it is put in place");
}

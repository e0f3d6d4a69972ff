//! Files and folders that only their owner may read.

use secrecy::SecretString;
use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Longest secret, octets.
const MAX_SECRET: u64 = 4096;

/// Makes a folder with mode 0700, parents too; an existing one that others may enter is closed to them.
///
/// # Errors
/// When the system refuses.
pub(crate) fn private_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let metadata = fs::metadata(path)?;
    if metadata.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Writes a file with mode 0600, whole or not at all.
///
/// # Errors
/// When the system refuses.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let fresh = folder.join(format!(".{name}.{}", uuid::Uuid::new_v4().simple()));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)?;
    let written = file
        .write_all(content)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        // The error that matters is the first one.
        let _ = fs::remove_file(&fresh);
    }
    written
}

/// Reads a secret: a file's text without the line end at its end. Only its owner may read the file; one in the folder that
/// systemd names in `CREDENTIALS_DIRECTORY` may be group-readable, since systemd guards that folder itself.
///
/// # Errors
/// Why it cannot be used, without the secret.
pub(crate) fn secret(path: &Path) -> Result<SecretString, String> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    let mode = file.metadata().map_err(|error| error.to_string())?.permissions().mode() & 0o777;
    let guarded = credentials.is_some_and(|folder| path.parent() == Some(&folder));
    let forbidden = if guarded { 0o007 } else { 0o077 };
    if mode & forbidden != 0 {
        return Err(format!("its mode {mode:o} lets others read it (chmod 600)"));
    }
    let mut text = String::new();
    file.take(MAX_SECRET + 1)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() || text.len() as u64 > MAX_SECRET {
        return Err("it is empty or longer than 4096 octets".to_owned());
    }
    if secret.contains(['\n', '\r', '\0']) {
        return Err("it has more than one line".to_owned());
    }
    Ok(SecretString::from(secret.to_owned()))
}

/// Makes a new file with this mode; an existing one is never overwritten.
///
/// # Errors
/// When it exists, or the system refuses.
pub(crate) fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

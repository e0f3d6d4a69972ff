//! What we remember of an IMAP platform's accounts: small files in a folder of ours, each written whole and durably.
//!
//! ```text
//! locks/{guid}            the lock that deliveries share and a cutover takes alone
//! staging/{move}          the account that a move fills, and whether its user is kept out meanwhile
//! denied/{guid}           an account whose user was kept out for a cutover here
//! closed/{guid}-{move}    the account of a mailbox that has moved away
//! spool/                  messages on their way into an account; emptied at the start
//! ```

use rehome_mailbox::maildir::place::make_directories;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs, io,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Longest record, octets.
const MAX_RECORD: u64 = 16 * 1024;
/// Most records of one kind that are looked through.
const MAX_RECORDS: usize = 100_000;

/// An account that a move fills.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StagingRecord {
    /// The account's name.
    pub(crate) account: String,
    /// Whether it was found empty, after its user was kept out where that can be done.
    pub(crate) ready: bool,
    /// Whether its user is kept out of it since then, so that all in it is the move's.
    #[serde(default)]
    pub(crate) denied: bool,
    /// Whether it held the kept contents of the same mailbox before: they are never removed with the move.
    #[serde(default)]
    pub(crate) kept: bool,
}

/// An account by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AccountRecord {
    /// The account's name.
    pub(crate) account: String,
}

/// The kinds of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Staging,
    Denied,
    Closed,
}

impl Kind {
    fn folder(self) -> &'static str {
        match self {
            Self::Staging => "staging",
            Self::Denied => "denied",
            Self::Closed => "closed",
        }
    }
}

/// The folder of one platform. Cheap to clone. Its functions block, shortly.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    folder: PathBuf,
}

impl Records {
    /// Records in `folder`, which is made with its sub-folders if missing.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The folder, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.folder
    }

    /// A folder of ours below, made if missing.
    pub(crate) fn own_folder(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.folder.join(name);
        make_directories(&path, 0o700)?;
        Ok(path)
    }

    /// Removes what an earlier process left in the spool: those messages' senders have them.
    pub(crate) fn empty_spool(&self) -> io::Result<()> {
        match fs::remove_dir_all(self.folder.join("spool")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Reads a record; none where there is none.
    pub(crate) fn read<R: DeserializeOwned>(&self, kind: Kind, name: &str) -> io::Result<Option<R>> {
        let path = self.folder.join(kind.folder()).join(name);
        match fs::metadata(&path) {
            Ok(found) if found.len() > MAX_RECORD => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the record is too long"));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        match fs::read(&path) {
            Ok(octets) => Ok(Some(serde_json::from_slice(&octets)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a record durably, whole or not at all.
    pub(crate) fn write(&self, kind: Kind, name: &str, record: &impl Serialize) -> io::Result<()> {
        let folder = self.own_folder(kind.folder())?;
        let fresh = folder.join(format!(".{}", uuid::Uuid::new_v4().simple()));
        let written = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)
            .and_then(|mut file| {
                file.write_all(&serde_json::to_vec(record)?)?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&fresh, folder.join(name)))
            .and_then(|()| fs::File::open(&folder)?.sync_all());
        if written.is_err() {
            // The error that matters is the first one.
            let _ = fs::remove_file(&fresh);
        }
        written
    }

    /// Removes a record durably; gone already is success.
    pub(crate) fn remove(&self, kind: Kind, name: &str) -> io::Result<()> {
        let folder = self.own_folder(kind.folder())?;
        match fs::remove_file(folder.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        fs::File::open(&folder)?.sync_all()
    }

    /// The names of all records of a kind.
    pub(crate) fn names(&self, kind: Kind) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.folder.join(kind.folder())) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries.take(MAX_RECORDS) {
            if let Ok(name) = entry?.file_name().into_string()
                && !name.starts_with('.')
            {
                names.push(name);
            }
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_whole_read_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::new(folder.path().join("platforms/dovecot"));
        let record = AccountRecord {
            account: "press@contoso.example".into(),
        };
        assert_eq!(records.read::<AccountRecord>(Kind::Denied, "a").unwrap(), None);
        assert!(records.names(Kind::Denied).unwrap().is_empty());
        for _ in 0..2 {
            records.write(Kind::Denied, "a", &record).unwrap();
        }
        assert_eq!(records.read(Kind::Denied, "a").unwrap(), Some(record));
        assert_eq!(records.names(Kind::Denied).unwrap(), ["a"]);
        for _ in 0..2 {
            records.remove(Kind::Denied, "a").unwrap();
        }
        assert!(records.names(Kind::Denied).unwrap().is_empty());
        std::fs::write(records.own_folder("denied").unwrap().join("b"), "{").unwrap();
        assert!(records.read::<AccountRecord>(Kind::Denied, "b").is_err());
    }
}

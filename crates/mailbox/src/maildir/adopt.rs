//! Looking at a Maildir that is to be adopted, without touching it.

use super::folder::{entries, open_directory, read_small};
use super::{names, open_root};
use crate::FolderPath;
use rustix::fs::{Access, AtFlags, FileType};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// Most problems that are told one by one.
const MAX_PROBLEMS: usize = 1000;

/// What was found at a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Whether it is a Maildir: `cur` and `new` are there.
    pub is_maildir: bool,
    /// Folders, the inbox among them.
    pub folders: u64,
    /// Message files in all folders.
    pub items: u64,
    /// Octets of those files.
    pub octets: u64,
    /// What an administrator should see, at most 1,000.
    pub problems: Vec<Problem>,
    /// How many more problems there are.
    pub problems_untold: u64,
}

/// Something that cannot be served or moved as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The folder or file, relative to the Maildir; octets that are not UTF-8 are shown as U+FFFD.
    pub path: String,
    /// What is wrong.
    pub kind: ProblemKind,
}

/// What is wrong with a folder or file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProblemKind {
    /// A symbolic link, which is never followed.
    Link,
    /// Neither file nor directory, or a directory where a file should be.
    NotAFile,
    /// It may not be read.
    Unreadable,
    /// A directory that looks like a folder but has no `cur`.
    NoCur,
    /// A folder name that no client can name (an empty part).
    Name,
}

impl std::fmt::Display for ProblemKind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Link => "is a symbolic link, which is not followed",
            Self::NotAFile => "is not a file",
            Self::Unreadable => "cannot be read",
            Self::NoCur => "has no directory cur and is no folder",
            Self::Name => "has a name that no client can name",
        })
    }
}

impl Inspection {
    fn note(&mut self, path: &[u8], kind: ProblemKind) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem {
                path: String::from_utf8_lossy(path).into_owned(),
                kind,
            });
        } else {
            self.problems_untold += 1;
        }
    }
}

/// Looks at the Maildir at `root`; changes nothing there. Blocking: it reads every directory. Errors only when `root`
/// itself cannot be opened; all else is a problem in the report.
pub fn inspect(root: &Path) -> io::Result<Inspection> {
    let root = open_root(root)?;
    let mut report = Inspection::default();
    let has = |name: &[u8]| open_directory(root.as_fd(), name).is_ok();
    report.is_maildir = has(b"cur") && has(b"new");
    if !report.is_maildir {
        return Ok(report);
    }
    inspect_folder(root.as_fd(), b"", &mut report);
    for (name, kind) in entries(root.as_fd())? {
        match kind {
            _ if !name.starts_with(b".") => {}
            FileType::Symlink => report.note(&name, ProblemKind::Link),
            FileType::Directory => inspect_subfolder(root.as_fd(), &name, &mut report),
            _ => {}
        }
    }
    Ok(report)
}

fn inspect_subfolder(root: BorrowedFd<'_>, name: &[u8], report: &mut Inspection) {
    let directory = match open_directory(root, name) {
        Ok(directory) => directory,
        Err(_) => return report.note(name, ProblemKind::Unreadable),
    };
    let full = read_small(directory.as_fd(), "rehome-path", 1 << 20).unwrap_or_default();
    let path: Option<FolderPath> = names::path_of(name, full.as_deref());
    match open_directory(directory.as_fd(), b"cur") {
        Err(Errno::NOENT) => report.note(name, ProblemKind::NoCur),
        Err(Errno::LOOP | Errno::NOTDIR) => report.note(&[name, b"/cur"].concat(), ProblemKind::Link),
        Err(_) => report.note(name, ProblemKind::Unreadable),
        Ok(_) if path.is_none() => report.note(name, ProblemKind::Name),
        Ok(_) => inspect_folder(directory.as_fd(), name, report),
    }
}

fn inspect_folder(directory: BorrowedFd<'_>, name: &[u8], report: &mut Inspection) {
    report.folders += 1;
    for sub in [&b"cur"[..], b"new"] {
        let shown = if name.is_empty() {
            sub.to_vec()
        } else {
            [name, b"/", sub].concat()
        };
        let files = open_directory(directory, sub).and_then(|opened| Ok((entries(opened.as_fd())?, opened)));
        let (files, opened) = match files {
            Ok(found) => found,
            Err(Errno::NOENT) => continue,
            Err(Errno::LOOP | Errno::NOTDIR) => {
                report.note(&shown, ProblemKind::Link);
                continue;
            }
            Err(_) => {
                report.note(&shown, ProblemKind::Unreadable);
                continue;
            }
        };
        for (file, kind) in files {
            let path = || [&shown[..], b"/", &file].concat();
            match kind {
                _ if file.starts_with(b".") => {}
                FileType::RegularFile => {
                    report.items += 1;
                    if let Ok(found) = rustix::fs::statat(&opened, &file, AtFlags::SYMLINK_NOFOLLOW) {
                        report.octets += u64::try_from(found.st_size).unwrap_or_default();
                    }
                    if rustix::fs::accessat(&opened, &file, Access::READ_OK, AtFlags::empty()).is_err() {
                        report.note(&path(), ProblemKind::Unreadable);
                    }
                }
                FileType::Symlink => report.note(&path(), ProblemKind::Link),
                _ => report.note(&path(), ProblemKind::NotAFile),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_maildir_with_problems() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        assert!(!inspect(root).unwrap().is_maildir);
        for name in [
            "cur",
            "new",
            "tmp",
            ".Sent/cur",
            ".Sent/new",
            ".NoCur",
            ".a..b/cur",
            ".Sent/cur/odd",
        ] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        std::fs::write(root.join("new/1.a"), "x").unwrap();
        std::fs::write(root.join("cur/.hidden"), "x").unwrap();
        std::fs::write(root.join(".Sent/cur/2.b:2,S"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/hostname", root.join("cur/3.c")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join(".Out")).unwrap();
        let mut report = inspect(root).unwrap();
        assert!(report.is_maildir);
        assert_eq!((report.folders, report.items, report.octets), (2, 2, 2));
        assert_eq!(report.problems_untold, 0);
        report.problems.sort_by(|one, two| one.path.cmp(&two.path));
        let problems: Vec<_> = report
            .problems
            .iter()
            .map(|problem| (problem.path.as_str(), problem.kind))
            .collect();
        assert_eq!(
            problems,
            [
                (".NoCur", ProblemKind::NoCur),
                (".Out", ProblemKind::Link),
                (".Sent/cur/odd", ProblemKind::NotAFile),
                (".a..b", ProblemKind::Name),
                ("cur/3.c", ProblemKind::Link),
            ]
        );
        assert!(!root.join("dovecot-uidlist").exists(), "nothing is touched");
        assert!(inspect(&root.join("none")).is_err());
    }
}

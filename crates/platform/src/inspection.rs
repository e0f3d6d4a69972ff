//! What lies at a location, before it is taken into the directory.

use rehome_mailbox::{
    Folder,
    maildir::adopt::{self, Problem as InspectionProblem},
};

/// What was found at a location.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Whether it is a mailbox.
    pub is_mailbox: bool,
    /// Folders, the inbox among them.
    pub folders: u64,
    /// Messages in all folders.
    pub items: u64,
    /// Their octets, where the platform tells.
    pub octets: Option<u64>,
    /// What an administrator should see, at most 1,000.
    pub problems: Vec<InspectionProblem>,
    /// How many more problems there are.
    pub problems_untold: u64,
}

impl From<adopt::Inspection> for Inspection {
    fn from(found: adopt::Inspection) -> Self {
        Self {
            is_mailbox: found.is_maildir,
            folders: found.folders,
            items: found.items,
            octets: Some(found.octets),
            problems: found.problems,
            problems_untold: found.problems_untold,
        }
    }
}

impl Inspection {
    /// An account whose folders were listed.
    pub(crate) fn of_account(folders: &[Folder], octets: Option<u64>) -> Self {
        Self {
            is_mailbox: true,
            folders: folders.len() as u64,
            items: items(folders),
            octets,
            problems: Vec::new(),
            problems_untold: 0,
        }
    }
}

/// How many messages folders hold together.
pub(crate) fn items(folders: &[Folder]) -> u64 {
    let counts = folders.iter().filter_map(|folder| folder.status);
    counts.map(|status| u64::from(status.exists)).sum()
}

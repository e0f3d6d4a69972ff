//! What a source may say of its folders, checked as it arrives.

use rehome_domain::error_id::{ErrorId, Problem};
use rehome_migrate::protocol::{FolderBody, SweepAnswer};

/// Most folders that a source may list.
const MAX_FOLDERS: usize = 100_000;
/// Most octets of their names together.
const MAX_NAMES: usize = 64 * 1024 * 1024;
/// Longest name in a path, octets, and most names.
const MAX_NAME: usize = 1_024;
const MAX_DEPTH: usize = 200;
/// Most items that may be late.
const MAX_LATE: u64 = 1_000_000;

/// What was listed so far.
#[derive(Debug, Default)]
pub(super) struct Believed {
    folders: usize,
    names: usize,
}

impl Believed {
    /// Takes one more page.
    pub(super) fn page(&mut self, folders: &[FolderBody]) -> Result<(), Problem> {
        for folder in folders {
            self.path(&folder.path)?;
        }
        Ok(())
    }

    fn path(&mut self, path: &[String]) -> Result<(), Problem> {
        let fits = |name: &String| (1..=MAX_NAME).contains(&name.len());
        if !(1..=MAX_DEPTH).contains(&path.len()) || !path.iter().all(fits) {
            return Err(problem(format!(
                "The source lists a folder whose path is empty, has an empty name or one of more than {MAX_NAME} octets, or is deeper than {MAX_DEPTH}."
            )));
        }
        self.folders += 1;
        self.names += path.iter().map(String::len).sum::<usize>();
        if self.folders > MAX_FOLDERS {
            return Err(problem(format!("The source lists more than {MAX_FOLDERS} folders.")));
        }
        if self.names > MAX_NAMES {
            return Err(problem(format!(
                "The names of the source's folders have more than {MAX_NAMES} octets."
            )));
        }
        Ok(())
    }
}

/// Checks what came late before any range of it is expanded: paths, ascending ranges, how many items in all.
pub(super) fn late_items(answer: &SweepAnswer) -> Result<(), Problem> {
    let (mut believed, mut late) = (Believed::default(), 0);
    for folder in &answer.folders {
        believed.path(&folder.path)?;
        let mut before = 0;
        for (from, to) in &folder.uids {
            if *from <= before || to < from {
                return Err(problem(
                    "The source names late items in ranges that do not ascend.".to_owned(),
                ));
            }
            before = *to;
            late += u64::from(to - from) + 1;
        }
    }
    if late > MAX_LATE {
        return Err(problem(format!(
            "The source names {late} late items, {MAX_LATE} are the most."
        )));
    }
    Ok(())
}

fn problem(message: String) -> Problem {
    Problem::new(ErrorId::Unexpected, message, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rehome_migrate::protocol::SweepFolder;

    fn folder(path: &[String]) -> FolderBody {
        FolderBody {
            path: path.to_vec(),
            special_use: None,
            subscribed: false,
            selectable: true,
            status: None,
            mailbox_id: None,
        }
    }

    #[test]
    fn paths_are_bounded_one_by_one() {
        let name = |length| "x".repeat(length);
        for (path, good) in [
            (vec!["INBOX".to_owned()], true),
            (vec![name(1_024)], true),
            (vec![name(1_025)], false),
            (vec![String::new()], false),
            (vec![], false),
            (vec![name(1); 200], true),
            (vec![name(1); 201], false),
        ] {
            assert_eq!(
                Believed::default().page(&[folder(&path)]).is_ok(),
                good,
                "{}",
                path.len()
            );
        }
    }

    #[test]
    fn all_pages_are_bounded_together() {
        let page = |path: Vec<String>| vec![folder(&path); 1_000];
        let mut believed = Believed::default();
        let short = page(vec!["x".to_owned()]);
        for _ in 0..100 {
            believed.page(&short).unwrap();
        }
        assert!(believed.page(&short[..1]).is_err());
        let mut believed = Believed::default();
        let long = page(vec!["x".repeat(1_024)]);
        for _ in 0..65 {
            believed.page(&long).unwrap();
        }
        assert!(believed.page(&long).is_err());
    }

    #[test]
    fn late_items_ascend_and_are_bounded() {
        for (uids, good) in [
            (vec![(1, 1), (3, 9)], true),
            (vec![(1, 1_000_000)], true),
            (vec![(1, 1_000_001)], false),
            (vec![(1, u32::MAX)], false),
            (vec![(0, 1)], false),
            (vec![(5, 4)], false),
            (vec![(5, 6), (6, 7)], false),
        ] {
            let shown = format!("{uids:?}");
            let answer = SweepAnswer {
                folders: vec![SweepFolder {
                    path: vec!["INBOX".to_owned()],
                    uid_validity: 1,
                    uids,
                }],
            };
            assert_eq!(late_items(&answer).is_ok(), good, "{shown}");
        }
    }
}

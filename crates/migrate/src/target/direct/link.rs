//! A source that is read by this process itself.

use async_trait::async_trait;
use futures_util::StreamExt;
use rehome_domain::folder_pattern::{FolderPattern, WellKnownFolder};
use rehome_mailbox::{Folder, FolderPath, SpecialUse};
use rehome_replicate::{ExportError, Exporter, LinkError, OctetStream, SourceLink};
use rehome_wire::uid_set::UidSet;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// What an administrator reads of a failure of the mailbox, in place of what a partner would.
pub(super) type Told = Box<dyn Fn(&ExportError) -> LinkError + Send + Sync>;

/// An exporter without anything between, of which some folders are left out.
pub(super) struct LocalLink {
    exporter: Exporter,
    left_out: Vec<FolderPattern>,
    octets: Arc<AtomicU64>,
    told: Told,
}

impl LocalLink {
    pub(super) fn new(exporter: Exporter, left_out: Vec<FolderPattern>, told: Told) -> Self {
        Self {
            exporter,
            left_out,
            octets: Arc::default(),
            told,
        }
    }

    /// Octets given so far, framing included.
    pub(super) fn octets(&self) -> u64 {
        self.octets.load(Ordering::Relaxed)
    }

    fn counted(&self, stream: OctetStream) -> OctetStream {
        let octets = Arc::clone(&self.octets);
        stream
            .inspect(move |piece| {
                if let Ok(piece) = piece {
                    octets.fetch_add(piece.len() as u64, Ordering::Relaxed);
                }
            })
            .boxed()
    }
}

#[async_trait]
impl SourceLink for LocalLink {
    async fn folders(&self) -> Result<Vec<Folder>, LinkError> {
        let folders = self.exporter.folders().await.map_err(|error| (self.told)(&error))?;
        Ok(kept(folders, &self.left_out))
    }

    async fn listing(&self, folder: &FolderPath, token: Option<&[u8]>, fresh: bool) -> Result<OctetStream, LinkError> {
        let listing = self.exporter.listing(folder, token, fresh).await;
        listing
            .map(|stream| self.counted(stream))
            .map_err(|error| (self.told)(&error))
    }

    async fn items(&self, folder: &FolderPath, uid_validity: u32, uids: &UidSet) -> Result<OctetStream, LinkError> {
        let items = self.exporter.items(folder, uid_validity, uids).await;
        items
            .map(|stream| self.counted(stream))
            .map_err(|error| (self.told)(&error))
    }
}

fn well_known(folder: &Folder) -> Option<WellKnownFolder> {
    if folder.path.is_inbox() {
        return Some(WellKnownFolder::Inbox);
    }
    folder.special_use.map(|special| match special {
        SpecialUse::Archive => WellKnownFolder::Archive,
        SpecialUse::Drafts => WellKnownFolder::Drafts,
        SpecialUse::Junk => WellKnownFolder::JunkEmail,
        SpecialUse::Sent => WellKnownFolder::SentItems,
        SpecialUse::Trash => WellKnownFolder::DeletedItems,
    })
}

/// The folders that no pattern names.
fn kept(folders: Vec<Folder>, left_out: &[FolderPattern]) -> Vec<Folder> {
    if left_out.is_empty() {
        return folders;
    }
    let special: Vec<(WellKnownFolder, FolderPath)> = folders
        .iter()
        .filter_map(|folder| Some((well_known(folder)?, folder.path.clone())))
        .collect();
    let is_kept = |folder: &Folder| {
        let path = &folder.path.0;
        let above: Vec<(WellKnownFolder, usize)> = special
            .iter()
            .filter(|(_, above)| path.starts_with(&above.0))
            .map(|(kind, above)| (*kind, above.0.len()))
            .collect();
        !left_out.iter().any(|pattern| pattern.names(path, &above))
    };
    folders.into_iter().filter(is_kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(path: &str, special_use: Option<SpecialUse>) -> Folder {
        Folder {
            path: FolderPath(path.split('/').map(str::to_owned).collect()),
            special_use,
            subscribed: false,
            selectable: true,
            status: None,
            mailbox_id: None,
        }
    }

    #[test]
    fn folders_are_left_out_by_name_and_by_use() {
        let folders = || {
            vec![
                folder("INBOX", None),
                folder("INBOX/Unwanted", Some(SpecialUse::Junk)),
                folder("INBOX/Unwanted/2019", None),
                folder("Sent", Some(SpecialUse::Sent)),
                folder("Projects", None),
                folder("Projects/Old", None),
            ]
        };
        for (patterns, expected) in [
            (
                &[][..],
                &[
                    "INBOX",
                    "INBOX/Unwanted",
                    "INBOX/Unwanted/2019",
                    "Sent",
                    "Projects",
                    "Projects/Old",
                ][..],
            ),
            (
                &["#junkemail#", "projects"],
                &["INBOX", "INBOX/Unwanted/2019", "Sent", "Projects/Old"],
            ),
            (&["#JunkEmail#/*", "Projects/*"], &["INBOX", "Sent"]),
            (&["Inbox/*"], &["Sent", "Projects", "Projects/Old"]),
        ] {
            let left_out: Vec<FolderPattern> = patterns.iter().map(|p| p.parse().unwrap()).collect();
            let names: Vec<String> = kept(folders(), &left_out).iter().map(|f| f.path.to_string()).collect();
            assert_eq!(names, expected, "{patterns:?}");
        }
    }
}

//! A platform of Maildirs below one root.
//!
//! Everything of ours that is not a served mailbox lies in `.rehome` below the same root, so that showing and closing is
//! one rename:
//!
//! ```text
//! .rehome/staging/{move}          contents that grow unseen, until the move is decided
//! .rehome/closed/{guid}-{move}    contents of a mailbox that has moved away, until retention ends
//! .rehome/locks/{guid}            the lock that deliveries share and a cutover takes alone
//! ```

use crate::{
    config::NewMailbox,
    error::{PlatformError, files},
    inspection::Inspection,
    place::{self, Place},
    template::{PathTemplate, TemplateFound},
};
use rehome_domain::id::{ExchangeGuid, MoveId};
use rehome_mailbox::{
    FolderPath, Mailbox, NewFolder,
    maildir::{
        MaildirMailbox, adopt,
        place::{Staging, close, copy_linked, make_directories, show},
    },
};
use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Our own folder below a platform's root.
pub(crate) const OWN: &str = ".rehome";
/// How deep below a root mailboxes are looked for.
const ORPHAN_DEPTH: usize = 4;
/// How many folders are looked at for orphans.
const ORPHAN_FOLDERS: usize = 100_000;

/// A folder of Maildirs.
#[derive(Clone, Debug)]
pub(crate) struct MaildirPlatform {
    name: String,
    root: PathBuf,
}

impl MaildirPlatform {
    pub(crate) fn new(name: &str, root: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            root,
        }
    }

    /// The folder that a new mailbox gets. It names the tenant, so that one mailbox can be in two tenants of a
    /// deployment while it moves.
    pub(crate) fn new_location(new: &NewMailbox<'_>) -> String {
        let guid = new.exchange_guid.0.simple().to_string();
        format!("{}/{}-{}", new.tenant, place::folder_name(new.alias), &guid[..8])
    }

    pub(crate) async fn check(&self) -> Result<(), PlatformError> {
        self.root().await.map(drop)
    }

    pub(crate) async fn open(&self, place: &Place) -> Result<Arc<dyn Mailbox>, PlatformError> {
        let path = self.served(place).await?;
        Ok(Arc::new(MaildirMailbox::open(&path).await?))
    }

    pub(crate) async fn create(&self, place: &Place) -> Result<Arc<dyn Mailbox>, PlatformError> {
        let path = self.served(place).await?;
        let mailbox = Staging::open(&path).await?;
        mailbox
            .create_folder(
                &FolderPath::inbox(),
                &NewFolder {
                    subscribed: true,
                    ..NewFolder::default()
                },
            )
            .await?;
        rehome_fault::step("platform.create");
        Ok(Arc::new(mailbox))
    }

    pub(crate) async fn staging(&self, move_id: MoveId) -> Result<Arc<dyn Mailbox>, PlatformError> {
        let path = self.own_folder("staging").await?.join(move_id.to_string());
        Ok(Arc::new(Staging::open(&path).await?))
    }

    pub(crate) async fn is_staged(&self, move_id: MoveId) -> Result<bool, PlatformError> {
        let path = self.own_folder("staging").await?.join(move_id.to_string());
        let at = path.clone();
        files("looking at", at, move || path.try_exists()).await
    }

    pub(crate) async fn remove_staging(&self, move_id: MoveId) -> Result<(), PlatformError> {
        let path = self.own_folder("staging").await?.join(move_id.to_string());
        remove_tree("removing the hidden contents", path, "platform.remove_staging").await
    }

    pub(crate) async fn show(&self, place: &Place, move_id: MoveId) -> Result<(), PlatformError> {
        let staging = self.own_folder("staging").await?.join(move_id.to_string());
        let served = self.served(place).await?;
        let at = served.clone();
        files("showing the mailbox", at, move || show(&staging, &served)).await
    }

    pub(crate) async fn close_source(&self, place: &Place, move_id: MoveId) -> Result<(), PlatformError> {
        let closed = self.closed(place.exchange_guid, move_id).await?;
        let served = self.served(place).await?;
        let at = served.clone();
        files("closing the mailbox", at, move || close(&served, &closed)).await
    }

    pub(crate) async fn open_closed(
        &self,
        exchange_guid: ExchangeGuid,
        move_id: MoveId,
    ) -> Result<Arc<dyn Mailbox>, PlatformError> {
        let path = self.closed(exchange_guid, move_id).await?;
        Ok(Arc::new(MaildirMailbox::open(&path).await?))
    }

    pub(crate) async fn stage_closed(
        &self,
        exchange_guid: ExchangeGuid,
        left: MoveId,
        move_id: MoveId,
    ) -> Result<(), PlatformError> {
        let closed = self.closed(exchange_guid, left).await?;
        let staging = self.own_folder("staging").await?.join(move_id.to_string());
        let at = closed.clone();
        files("copying the kept contents", at, move || copy_linked(&closed, &staging)).await
    }

    pub(crate) async fn remove_closed(
        &self,
        exchange_guid: ExchangeGuid,
        move_id: MoveId,
    ) -> Result<(), PlatformError> {
        let path = self.closed(exchange_guid, move_id).await?;
        remove_tree("removing the kept contents", path, "platform.remove_closed").await
    }

    pub(crate) async fn inspect(&self, location: &str) -> Result<Inspection, PlatformError> {
        let root = self.root().await?;
        let path = confined(root, location).await?;
        let at = path.clone();
        files("looking at", at, move || adopt::inspect(&path))
            .await
            .map(Inspection::from)
    }

    pub(crate) async fn orphans(&self, known: BTreeSet<String>) -> Result<Vec<String>, PlatformError> {
        let root = self.root().await?;
        let at = root.clone();
        files("looking for mailboxes below", at, move || orphans(&root, &known)).await
    }

    pub(crate) async fn discover(&self, template: &str, most: usize) -> Result<Vec<TemplateFound>, PlatformError> {
        let root = self.root().await?;
        let template = PathTemplate::read(template, &root)?;
        let at = root.clone();
        files("looking for mailboxes below", at, move || template.find(&root, most)).await
    }

    /// Where a mailbox in service lies.
    pub(crate) async fn served(&self, place: &Place) -> Result<PathBuf, PlatformError> {
        let root = self.root().await?;
        confined(root, &place.location).await
    }

    /// The folder of the mailboxes' locks.
    pub(crate) async fn locks(&self) -> Result<PathBuf, PlatformError> {
        self.own_folder("locks").await
    }

    async fn closed(&self, guid: ExchangeGuid, move_id: MoveId) -> Result<PathBuf, PlatformError> {
        Ok(self.own_folder("closed").await?.join(format!("{guid}-{move_id}")))
    }

    /// The platform's root, which must be a directory.
    async fn root(&self) -> Result<PathBuf, PlatformError> {
        let unusable = |source| PlatformError::Root {
            platform: self.name.clone(),
            root: self.root.clone(),
            source,
        };
        let found = tokio::fs::metadata(&self.root).await.map_err(unusable)?;
        if !found.is_dir() {
            return Err(unusable(io::ErrorKind::NotADirectory.into()));
        }
        Ok(self.root.clone())
    }

    /// One of our own folders below the root, made if missing.
    async fn own_folder(&self, name: &'static str) -> Result<PathBuf, PlatformError> {
        let root = self.root().await?;
        let path = root.join(OWN).join(name);
        let (at, made) = (path.clone(), path.clone());
        files("making", at, move || {
            for folder in [root.join(OWN), made] {
                make_directories(&folder, 0o700)?;
                // A link here would lead hidden and closed contents elsewhere.
                if !std::fs::symlink_metadata(&folder)?.is_dir() {
                    return Err(io::ErrorKind::NotADirectory.into());
                }
            }
            Ok(())
        })
        .await?;
        Ok(path)
    }
}

async fn confined(root: PathBuf, location: &str) -> Result<PathBuf, PlatformError> {
    let location = location.to_owned();
    let at = root.clone();
    let found = files("looking at", at, move || Ok(place::confine(&root, &location))).await?;
    Ok(found?)
}

async fn remove_tree(doing: &'static str, path: PathBuf, step: &'static str) -> Result<(), PlatformError> {
    let at = path.clone();
    files(doing, at, move || {
        match std::fs::remove_dir_all(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Ok(()) | Err(_) => {}
        }
        if let Some(parent) = path.parent() {
            std::fs::File::open(parent)?.sync_all()?;
        }
        rehome_fault::step(step);
        Ok(())
    })
    .await
}

fn orphans(root: &Path, known: &BTreeSet<String>) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut waiting = vec![(String::new(), 0)];
    let mut looked_at = 0;
    while let Some((location, depth)) = waiting.pop() {
        for entry in std::fs::read_dir(root.join(&location))? {
            let entry = entry?;
            looked_at += 1;
            if looked_at > ORPHAN_FOLDERS {
                tracing::warn!(root = %root.display(), "too many folders: not all were looked at for orphans");
                found.sort();
                return Ok(found);
            }
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if name.starts_with('.') || !entry.file_type()?.is_dir() {
                continue;
            }
            let below = if location.is_empty() {
                name
            } else {
                format!("{location}/{name}")
            };
            let path = entry.path();
            if path.join("cur").is_dir() && path.join("new").is_dir() {
                if !known.contains(&below) {
                    found.push(below);
                }
            } else if depth + 1 < ORPHAN_DEPTH {
                waiting.push((below, depth + 1));
            }
        }
    }
    found.sort();
    Ok(found)
}

//! The configured platforms, and what is done with a mailbox on one.

use crate::{
    error::{PlatformConfigError, PlatformError},
    place::{self, Place},
};
use rehome_domain::id::{ExchangeGuid, MoveId, TenantId};
use rehome_mailbox::{
    FolderPath, Mailbox, NewFolder,
    maildir::{
        MaildirMailbox,
        adopt::{self, Inspection},
        place::{Staging, close, show},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Our own folder below a platform's root.
const OWN: &str = ".rehome";
/// How deep below a root mailboxes are looked for.
const ORPHAN_DEPTH: usize = 4;
/// How many folders are looked at for orphans.
const ORPHAN_FOLDERS: usize = 100_000;

/// What kind of platform it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// Maildir++ folders below one root on this machine.
    Maildir,
}

/// Settings of one platform (configuration `[platform.NAME]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformConfig {
    /// Its kind.
    pub driver: Driver,
    /// Absolute path of the folder that holds the mailboxes. It is never made: a disk that is not mounted must not
    /// look like an empty platform.
    pub root: PathBuf,
}

/// The configured platforms. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Platforms {
    platforms: Arc<BTreeMap<String, PlatformConfig>>,
    default: Option<Arc<str>>,
}

impl Platforms {
    /// Takes the configured platforms by name. `default` holds new mailboxes; it may be left out where there is one
    /// platform or none.
    ///
    /// # Errors
    /// When the default cannot be told, or a root is not absolute.
    pub fn new(
        platforms: BTreeMap<String, PlatformConfig>,
        default: Option<&str>,
    ) -> Result<Self, PlatformConfigError> {
        if let Some((name, config)) = platforms.iter().find(|(_, config)| !config.root.is_absolute()) {
            return Err(PlatformConfigError::RelativeRoot {
                name: name.clone(),
                root: config.root.clone(),
            });
        }
        let default = match default {
            Some(name) if platforms.contains_key(name) => Some(Arc::from(name)),
            Some(name) => return Err(PlatformConfigError::UnknownDefault(name.to_owned())),
            None if platforms.len() > 1 => return Err(PlatformConfigError::NoDefault),
            None => platforms.keys().next().map(|name| Arc::from(name.as_str())),
        };
        Ok(Self {
            platforms: Arc::new(platforms),
            default,
        })
    }

    /// The platform of new mailboxes.
    ///
    /// # Errors
    /// When none is configured.
    pub fn default_platform(&self) -> Result<&str, PlatformError> {
        self.default.as_deref().ok_or(PlatformError::NoPlatform)
    }

    /// Names of all platforms.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.platforms.keys().map(String::as_str)
    }

    /// Checks that a platform can be used: it is configured and its root is there.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn check(&self, platform: &str) -> Result<(), PlatformError> {
        self.root(platform).await.map(drop)
    }

    /// The location that a new mailbox gets. It names the tenant, so that one mailbox can be in two tenants of a
    /// deployment while it moves.
    #[must_use]
    pub fn new_location(tenant: TenantId, alias: &str, exchange_guid: ExchangeGuid) -> String {
        let guid = exchange_guid.0.simple().to_string();
        format!("{tenant}/{}-{}", place::folder_name(alias), &guid[..8])
    }

    /// Opens a mailbox in service.
    ///
    /// # Errors
    /// When it is not in its place.
    pub async fn open(&self, place: &Place) -> Result<Arc<dyn Mailbox>, PlatformError> {
        let path = self.served(place).await?;
        Ok(Arc::new(MaildirMailbox::open(&path).await?))
    }

    /// Makes an empty mailbox with an inbox in its place and opens it; what is there already stays.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn create(&self, place: &Place) -> Result<Arc<dyn Mailbox>, PlatformError> {
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

    /// Opens the hidden contents of a move on a platform, made empty if they are not there.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn staging(&self, platform: &str, move_id: MoveId) -> Result<Arc<dyn Mailbox>, PlatformError> {
        let path = self.own_folder(platform, "staging").await?.join(move_id.to_string());
        Ok(Arc::new(Staging::open(&path).await?))
    }

    /// Removes the hidden contents of a move that will not be shown. Gone already is success.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn remove_staging(&self, platform: &str, move_id: MoveId) -> Result<(), PlatformError> {
        let path = self.own_folder(platform, "staging").await?.join(move_id.to_string());
        remove_tree("removing the hidden contents", path, "platform.remove_staging").await
    }

    /// Puts the hidden contents of a move in their place, durably. Done already is success.
    ///
    /// # Errors
    /// When something else is in the place, or nothing is hidden nor there.
    pub async fn show(&self, place: &Place, move_id: MoveId) -> Result<(), PlatformError> {
        let staging = self
            .own_folder(&place.platform, "staging")
            .await?
            .join(move_id.to_string());
        let served = self.served(place).await?;
        let at = served.clone();
        files("showing the mailbox", at, move || show(&staging, &served)).await
    }

    /// Takes the contents of a mailbox that has moved away out of service, durably, and keeps them. Done already is
    /// success.
    ///
    /// # Errors
    /// When they are in neither place, or in both.
    pub async fn close_source(&self, place: &Place, move_id: MoveId) -> Result<(), PlatformError> {
        let closed = self.closed(&place.platform, place.exchange_guid, move_id).await?;
        let served = self.served(place).await?;
        let at = served.clone();
        files("closing the mailbox", at, move || close(&served, &closed)).await
    }

    /// Opens the kept contents of a mailbox that has moved away.
    ///
    /// # Errors
    /// When they are not kept (any more).
    pub async fn open_closed(
        &self,
        platform: &str,
        exchange_guid: ExchangeGuid,
        move_id: MoveId,
    ) -> Result<Arc<dyn Mailbox>, PlatformError> {
        let path = self.closed(platform, exchange_guid, move_id).await?;
        Ok(Arc::new(MaildirMailbox::open(&path).await?))
    }

    /// Removes the kept contents of a mailbox that has moved away, when retention has ended. Gone already is success.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn remove_closed(
        &self,
        platform: &str,
        exchange_guid: ExchangeGuid,
        move_id: MoveId,
    ) -> Result<(), PlatformError> {
        let path = self.closed(platform, exchange_guid, move_id).await?;
        remove_tree("removing the kept contents", path, "platform.remove_closed").await
    }

    /// Looks at what lies at a location, without touching it.
    ///
    /// # Errors
    /// When it is not a location, or nothing is there.
    pub async fn inspect(&self, platform: &str, location: &str) -> Result<Inspection, PlatformError> {
        let root = self.root(platform).await?;
        let path = confined(root, location).await?;
        let at = path.clone();
        files("looking at", at, move || adopt::inspect(&path)).await
    }

    /// The mailboxes below a platform's root that nobody in `known` (locations) owns, in order.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub async fn orphans(&self, platform: &str, known: BTreeSet<String>) -> Result<Vec<String>, PlatformError> {
        let root = self.root(platform).await?;
        let at = root.clone();
        files("looking for mailboxes below", at, move || orphans(&root, &known)).await
    }

    /// Where a mailbox in service lies.
    pub(crate) async fn served(&self, place: &Place) -> Result<PathBuf, PlatformError> {
        let root = self.root(&place.platform).await?;
        confined(root, &place.location).await
    }

    /// The file of a mailbox's lock; its folder is there.
    pub(crate) async fn lock_file(&self, place: &Place) -> Result<PathBuf, PlatformError> {
        Ok(self
            .own_folder(&place.platform, "locks")
            .await?
            .join(place.exchange_guid.to_string()))
    }

    async fn closed(&self, platform: &str, guid: ExchangeGuid, move_id: MoveId) -> Result<PathBuf, PlatformError> {
        Ok(self
            .own_folder(platform, "closed")
            .await?
            .join(format!("{guid}-{move_id}")))
    }

    /// The platform's root, which must be a directory.
    async fn root(&self, platform: &str) -> Result<PathBuf, PlatformError> {
        let Some(PlatformConfig {
            driver: Driver::Maildir,
            root,
        }) = self.platforms.get(platform)
        else {
            let known: Vec<&str> = self.names().collect();
            return Err(PlatformError::UnknownPlatform {
                name: platform.to_owned(),
                known: known.join(", "),
            });
        };
        let unusable = |source| PlatformError::Root {
            platform: platform.to_owned(),
            root: root.clone(),
            source,
        };
        let found = tokio::fs::metadata(root).await.map_err(unusable)?;
        if !found.is_dir() {
            return Err(unusable(io::ErrorKind::NotADirectory.into()));
        }
        Ok(root.clone())
    }

    /// One of our own folders below the root, made if missing.
    async fn own_folder(&self, platform: &str, name: &'static str) -> Result<PathBuf, PlatformError> {
        let root = self.root(platform).await?;
        let path = root.join(OWN).join(name);
        let (at, made) = (path.clone(), path.clone());
        files("making", at, move || {
            for folder in [root.join(OWN), made] {
                match std::fs::DirBuilder::new().mode(0o700).create(&folder) {
                    Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                    Ok(()) | Err(_) => {}
                }
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

/// Does file work on a thread that may block.
async fn files<T: Send + 'static>(
    doing: &'static str,
    path: PathBuf,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, PlatformError> {
    let done = tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(io::Error::other(e)));
    done.map_err(|source| PlatformError::Files { doing, path, source })
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

#[cfg(test)]
mod tests;

//! The configured platforms, and what is done with a mailbox on one.

use crate::{
    config::{LockMethod, NewMailbox, PlatformConfig},
    error::{PlatformConfigError, PlatformError},
    imap::ImapPlatform,
    inspection::Inspection,
    maildir::MaildirPlatform,
    place::Place,
    template::TemplateFound,
};
use rehome_domain::id::{ExchangeGuid, MoveId};
use rehome_mailbox::Mailbox;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

/// What kind of platform it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// Maildir++ folders below one root on this machine.
    Maildir,
    /// Accounts of an IMAP server.
    Imap,
}

/// One platform.
#[derive(Debug)]
pub(crate) enum Platform {
    Maildir(MaildirPlatform),
    Imap(Box<ImapPlatform>),
}

/// The configured platforms. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Platforms {
    platforms: Arc<BTreeMap<String, Platform>>,
    default: Option<Arc<str>>,
}

impl Platforms {
    /// Takes the configured platforms by name. `default` holds new mailboxes; it may be left out where there is one
    /// platform or none. What must be remembered of IMAP accounts is kept in a folder for each platform below `state`,
    /// which one process uses at a time.
    ///
    /// # Errors
    /// When the default cannot be told, or a root is not absolute.
    pub fn new(
        platforms: BTreeMap<String, PlatformConfig>,
        default: Option<&str>,
        state: &Path,
    ) -> Result<Self, PlatformConfigError> {
        let default = match default {
            Some(name) if platforms.contains_key(name) => Some(Arc::from(name)),
            Some(name) => return Err(PlatformConfigError::UnknownDefault(name.to_owned())),
            None if platforms.len() > 1 => return Err(PlatformConfigError::NoDefault),
            None => platforms.keys().next().map(|name| Arc::from(name.as_str())),
        };
        let made = platforms.into_iter().map(|(name, config)| {
            let platform = match config {
                PlatformConfig::Maildir { root } if root.is_absolute() => {
                    Platform::Maildir(MaildirPlatform::new(&name, root))
                }
                PlatformConfig::Maildir { root } => return Err(PlatformConfigError::RelativeRoot { name, root }),
                PlatformConfig::Imap(config) => {
                    Platform::Imap(Box::new(ImapPlatform::new(&name, *config, state.join(&name))))
                }
            };
            Ok((name, platform))
        });
        Ok(Self {
            platforms: Arc::new(made.collect::<Result<_, _>>()?),
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

    pub(crate) fn platform(&self, name: &str) -> Result<&Platform, PlatformError> {
        self.platforms.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.names().collect();
            PlatformError::UnknownPlatform {
                name: name.to_owned(),
                known: known.join(", "),
            }
        })
    }

    /// What kind of platform this is.
    ///
    /// # Errors
    /// When it is not configured.
    pub fn driver(&self, platform: &str) -> Result<Driver, PlatformError> {
        Ok(match self.platform(platform)? {
            Platform::Maildir(_) => Driver::Maildir,
            Platform::Imap(_) => Driver::Imap,
        })
    }

    /// Whether locations that differ in the case of their letters alone are one place: account names are, since most
    /// servers take no notice of it, and on one that does nothing worse comes of it than that the second is refused.
    #[must_use]
    pub fn takes_no_notice_of_case(&self, platform: &str) -> bool {
        matches!(self.driver(platform), Ok(Driver::Imap))
    }

    /// Whether a cutover finds mailboxes on this platform quiet.
    ///
    /// # Errors
    /// When it is not configured.
    pub fn lock_method(&self, platform: &str) -> Result<LockMethod, PlatformError> {
        Ok(match self.platform(platform)? {
            Platform::Maildir(_) => LockMethod::Locked,
            Platform::Imap(imap) => imap.lock_method(),
        })
    }

    /// Checks that a platform can be used: it is configured, and its root is there or its server answers.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn check(&self, platform: &str) -> Result<(), PlatformError> {
        match self.platform(platform)? {
            Platform::Maildir(maildir) => maildir.check().await,
            Platform::Imap(imap) => imap.check().await,
        }
    }

    /// The location that a mailbox gets that is made on a platform, or moved there by `move_id`. For a move it stays the
    /// same once [`staging`](Self::staging) was called with it, whatever becomes of alias and addresses.
    ///
    /// # Errors
    /// When the names make no account that there can be.
    pub async fn new_location(
        &self,
        platform: &str,
        new: &NewMailbox<'_>,
        move_id: Option<MoveId>,
    ) -> Result<String, PlatformError> {
        match self.platform(platform)? {
            Platform::Maildir(_) => Ok(MaildirPlatform::new_location(new)),
            Platform::Imap(imap) => imap.new_location(new, move_id).await,
        }
    }

    /// Opens a mailbox in service.
    ///
    /// # Errors
    /// When it is not in its place, or the server cannot be used.
    pub async fn open(&self, place: &Place) -> Result<Arc<dyn Mailbox>, PlatformError> {
        match self.platform(&place.platform)? {
            Platform::Maildir(maildir) => maildir.open(place).await,
            Platform::Imap(imap) => Ok(imap.open(&place.location).await?),
        }
    }

    /// Makes an empty mailbox with an inbox in its place and opens it; what is there already stays. An account is not
    /// made, it must be there.
    ///
    /// # Errors
    /// When the disk or the server refuses.
    pub async fn create(&self, place: &Place) -> Result<Arc<dyn Mailbox>, PlatformError> {
        match self.platform(&place.platform)? {
            Platform::Maildir(maildir) => maildir.create(place).await,
            Platform::Imap(imap) => Ok(imap.open(&place.location).await?),
        }
    }

    /// Opens the hidden contents of a move: a folder of ours, made empty if it is not there; or the account in `place`,
    /// which must be there and, the first time, be empty, and whose user is kept out until
    /// [`show`](Self::show) where the platform can.
    ///
    /// # Errors
    /// When the disk or the server refuses, the account holds anything, or its user cannot be kept out.
    pub async fn staging(&self, place: &Place, move_id: MoveId) -> Result<Arc<dyn Mailbox>, PlatformError> {
        match self.platform(&place.platform)? {
            Platform::Maildir(maildir) => maildir.staging(move_id).await,
            Platform::Imap(imap) => imap.staging(place, move_id).await,
        }
    }

    /// Whether the hidden contents of a move are on this platform, so that [`show`](Self::show) would show them.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn is_staged(&self, place: &Place, move_id: MoveId) -> Result<bool, PlatformError> {
        match self.platform(&place.platform)? {
            Platform::Maildir(maildir) => maildir.is_staged(move_id).await,
            Platform::Imap(imap) => imap.is_staged(place, move_id).await,
        }
    }

    /// Removes the hidden contents of a move that will not be shown. Gone already is success. An account is emptied,
    /// unless its user was not kept out of it, and he is let in again.
    ///
    /// # Errors
    /// When the disk or the server refuses.
    pub async fn remove_staging(&self, platform: &str, move_id: MoveId) -> Result<(), PlatformError> {
        match self.platform(platform)? {
            Platform::Maildir(maildir) => maildir.remove_staging(move_id).await,
            Platform::Imap(imap) => imap.remove_staging(move_id).await,
        }
    }

    /// Puts the hidden contents of a move in their place, durably, or lets the account's user in. Done already is
    /// success.
    ///
    /// # Errors
    /// When something else is in the place, or nothing is hidden nor there.
    pub async fn show(&self, place: &Place, move_id: MoveId) -> Result<(), PlatformError> {
        match self.platform(&place.platform)? {
            Platform::Maildir(maildir) => maildir.show(place, move_id).await,
            Platform::Imap(imap) => imap.show(place, move_id).await,
        }
    }

    /// The mailboxes whose users were kept out by [`quiesce`](Self::quiesce) and neither let in again nor closed since,
    /// whatever process did it.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub async fn denied(&self) -> Result<Vec<Place>, PlatformError> {
        let mut places = Vec::new();
        for platform in self.platforms.values() {
            match platform {
                Platform::Maildir(_) => {}
                Platform::Imap(imap) => places.extend(imap.denied().await?),
            }
        }
        Ok(places)
    }

    /// Undoes [`quiesce`](Self::quiesce) if `may` says so: the mailbox's user may use it again. `may` is asked when no
    /// other can keep him out or let him in until this returns. Returns what it said. Done already is success.
    ///
    /// # Errors
    /// Those of `may`; and when the platform refuses.
    pub async fn reopen<E: From<PlatformError>>(
        &self,
        place: &Place,
        may: impl Future<Output = Result<bool, E>>,
    ) -> Result<bool, E> {
        match self.platform(&place.platform)? {
            Platform::Maildir(_) => may.await,
            Platform::Imap(imap) => imap.reopen(place, may).await,
        }
    }

    /// Takes the contents of a mailbox that has moved away out of service, durably, and keeps them. Done already is
    /// success.
    ///
    /// # Errors
    /// When they are in neither place, or in both.
    pub async fn close_source(&self, place: &Place, move_id: MoveId) -> Result<(), PlatformError> {
        match self.platform(&place.platform)? {
            Platform::Maildir(maildir) => maildir.close_source(place, move_id).await,
            Platform::Imap(imap) => imap.close_source(place, move_id).await,
        }
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
        match self.platform(platform)? {
            Platform::Maildir(maildir) => maildir.open_closed(exchange_guid, move_id).await,
            Platform::Imap(imap) => imap.open_closed(exchange_guid, move_id).await,
        }
    }

    /// Makes the kept contents of the mailbox that left `place` with `left` the hidden contents of the move back
    /// `move_id`, to be opened with [`staging`](Self::staging) and shown in `place` again: of a folder of ours a copy, in
    /// place of what an earlier call left; an account itself, which stays denied to its user. Removed as other hidden
    /// contents are, but that an account keeps what it holds.
    ///
    /// # Errors
    /// When they are not kept (any more), or the disk or the server refuses.
    pub async fn stage_closed(&self, place: &Place, left: MoveId, move_id: MoveId) -> Result<(), PlatformError> {
        match self.platform(&place.platform)? {
            Platform::Maildir(maildir) => maildir.stage_closed(place.exchange_guid, left, move_id).await,
            Platform::Imap(imap) => imap.stage_closed(place, left, move_id).await,
        }
    }

    /// Removes the kept contents of a mailbox that has moved away, when retention has ended; an account is only
    /// forgotten. Gone already is success.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn remove_closed(
        &self,
        platform: &str,
        exchange_guid: ExchangeGuid,
        move_id: MoveId,
    ) -> Result<(), PlatformError> {
        match self.platform(platform)? {
            Platform::Maildir(maildir) => maildir.remove_closed(exchange_guid, move_id).await,
            Platform::Imap(imap) => imap.remove_closed(exchange_guid, move_id).await,
        }
    }

    /// Looks at what lies at a location, without touching it.
    ///
    /// # Errors
    /// When it is not a location, or nothing is there.
    pub async fn inspect(&self, platform: &str, location: &str) -> Result<Inspection, PlatformError> {
        match self.platform(platform)? {
            Platform::Maildir(maildir) => maildir.inspect(location).await,
            Platform::Imap(imap) => imap.inspect(location).await,
        }
    }

    /// The mailboxes below a platform's root that nobody in `known` (locations) owns, in order. None for a server, which
    /// does not tell its accounts.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub async fn orphans(&self, platform: &str, known: BTreeSet<String>) -> Result<Vec<String>, PlatformError> {
        match self.platform(platform)? {
            Platform::Maildir(maildir) => maildir.orphans(known).await,
            Platform::Imap(_) => Ok(Vec::new()),
        }
    }

    /// The folders of a platform that fit a template such as `/srv/mail/{domain}/{user}`, in order, at most `most`.
    ///
    /// # Errors
    /// When it is no template of paths below the root, the platform has no paths, or more fit.
    pub async fn discover(
        &self,
        platform: &str,
        template: &str,
        most: usize,
    ) -> Result<Vec<TemplateFound>, PlatformError> {
        match self.platform(platform)? {
            Platform::Maildir(maildir) => maildir.discover(template, most).await,
            Platform::Imap(_) => Err(PlatformError::NoPaths {
                platform: platform.to_owned(),
            }),
        }
    }

    /// The file of a mailbox's lock; its folder is there.
    pub(crate) async fn lock_file(&self, platform: &str, guid: ExchangeGuid) -> Result<PathBuf, PlatformError> {
        let locks = match self.platform(platform)? {
            Platform::Maildir(maildir) => maildir.locks().await?,
            Platform::Imap(imap) => imap.own_folder("locks").await?,
        };
        Ok(locks.join(guid.to_string()))
    }
}

#[cfg(test)]
mod tests;

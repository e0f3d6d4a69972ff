//! A platform of accounts on an IMAP server.
//!
//! A mailbox is an account: it is not moved between places as a Maildir is, but its user is kept out of it or let in,
//! by the administrator's program. What must outlive this process is remembered in small files ([`Records`]), each
//! written before what it remembers is done, so that all of it can be done again.

use crate::{
    access::AccessError,
    config::{AccessCommand, AccessConfig, ImapConfig, LockMethod, NewMailbox},
    error::{PlatformError, files},
    inspection::{self, Inspection},
    place::{Place, checked_account},
    records::{AccountRecord, Kind, Records, StagingRecord},
};
use rehome_domain::id::{ExchangeGuid, MoveId};
use rehome_mailbox::{
    FolderRef, Mailbox,
    imap::{ImapMailbox, ImapServer, SignIn},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::sync::OwnedMutexGuard;

/// How long a server may take to show that it can be used.
const CHECK_WITHIN: Duration = Duration::from_secs(10);
/// Items that are removed with one command.
const REMOVED_AT_ONCE: usize = 1000;

/// An IMAP server's accounts.
pub(crate) struct ImapPlatform {
    name: String,
    server: ImapServer,
    config: ImapConfig,
    records: Records,
    turns: Turns,
}

impl std::fmt::Debug for ImapPlatform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImapPlatform")
            .field("name", &self.name)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// One at a time changes who may use an account, in whatever case its name is spelt.
#[derive(Default)]
struct Turns(Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl Turns {
    async fn of(&self, account: &str) -> OwnedMutexGuard<()> {
        let account = &account.to_ascii_lowercase();
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let known = turns.get(account).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let new = Arc::default();
                turns.insert(account.to_owned(), Arc::downgrade(&new));
                new
            })
        };
        turn.lock_owned().await
    }
}

fn gone(outcome: Result<(), AccessError>) -> Result<bool, AccessError> {
    match outcome {
        Ok(()) => Ok(false),
        Err(AccessError::NoAccount { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}

impl ImapPlatform {
    /// A platform that remembers what it must in `state`.
    pub(crate) fn new(name: &str, config: ImapConfig, state: PathBuf) -> Self {
        let records = Records::new(state);
        if let Err(error) = records.empty_spool() {
            tracing::warn!(%error, platform = name, "the spool of earlier deliveries could not be emptied");
        }
        Self {
            name: name.to_owned(),
            server: ImapServer::new(config.server.clone()),
            config,
            records,
            turns: Turns::default(),
        }
    }

    pub(crate) fn lock_method(&self) -> LockMethod {
        match self.config.access {
            AccessConfig::Command(_) => LockMethod::Locked,
            AccessConfig::None => LockMethod::NotLocked,
        }
    }

    fn command(&self) -> Option<&AccessCommand> {
        match &self.config.access {
            AccessConfig::Command(command) => Some(command),
            AccessConfig::None => None,
        }
    }

    /// Checks that the server answers.
    pub(crate) async fn check(&self) -> Result<(), PlatformError> {
        match tokio::time::timeout(CHECK_WITHIN, self.server.check()).await {
            Ok(answer) => Ok(answer.map(drop)?),
            Err(_) => Err(PlatformError::Silent {
                platform: self.name.clone(),
                seconds: CHECK_WITHIN.as_secs(),
            }),
        }
    }

    fn account<'a>(&self, name: &'a str) -> Result<&'a str, PlatformError> {
        let separator = match &self.config.server.sign_in {
            SignIn::Master { separator, .. } => Some(*separator),
            SignIn::Authzid { .. } | SignIn::Password | SignIn::OAuth { .. } => None,
        };
        Ok(checked_account(name, separator)?)
    }

    pub(crate) async fn open(&self, account: &str) -> Result<Arc<ImapMailbox>, PlatformError> {
        let mailbox = self.server.mailbox(self.account(account)?, None);
        mailbox.connect().await?;
        Ok(Arc::new(mailbox))
    }

    /// The account that a mailbox gets: the one that its move fills already, else the template's.
    pub(crate) async fn new_location(
        &self,
        new: &NewMailbox<'_>,
        move_id: Option<MoveId>,
    ) -> Result<String, PlatformError> {
        if let Some(move_id) = move_id
            && let Some(record) = self.read::<StagingRecord>(Kind::Staging, move_id.to_string()).await?
        {
            return Ok(record.account);
        }
        let account = self.config.account.account(new);
        self.account(&account)?;
        Ok(account)
    }

    /// Opens the account that a move fills. The first time its user is kept out, where that can be done, and the account
    /// must be empty.
    pub(crate) async fn staging(&self, place: &Place, move_id: MoveId) -> Result<Arc<dyn Mailbox>, PlatformError> {
        let name = move_id.to_string();
        let account = match self.read::<StagingRecord>(Kind::Staging, name.clone()).await? {
            Some(record) if record.ready => record.account,
            Some(record) => self.begin_staging(record.account, name, false).await?,
            None => {
                let account = self.account(&place.location)?.to_owned();
                self.begin_staging(account, name, true).await?
            }
        };
        Ok(self.open(&account).await?)
    }

    async fn check_not_filled(&self, account: &str, own: &str) -> Result<(), PlatformError> {
        for name in self.names(Kind::Staging).await? {
            let other = self.read::<StagingRecord>(Kind::Staging, name.clone()).await?;
            if name != own && other.is_some_and(|other| other.account.eq_ignore_ascii_case(account)) {
                return Err(PlatformError::AccountFilled {
                    account: account.to_owned(),
                    other: name,
                });
            }
        }
        Ok(())
    }

    /// Whether the account holds the kept contents of a mailbox that has moved away: then it stays denied to its user.
    async fn is_closed(&self, account: &str) -> Result<bool, PlatformError> {
        Ok(!self.closed_in(account).await?.is_empty())
    }

    /// The records of kept contents in an account.
    async fn closed_in(&self, account: &str) -> Result<Vec<String>, PlatformError> {
        let mut found = Vec::new();
        for name in self.names(Kind::Closed).await? {
            let record = self.read::<AccountRecord>(Kind::Closed, name.clone()).await?;
            if record.is_some_and(|record| record.account.eq_ignore_ascii_case(account)) {
                found.push(name);
            }
        }
        Ok(found)
    }

    /// An account that was found empty, or is shown, holds no kept contents any more: what comes into it from now on is
    /// another mailbox's, and no sweep of the old one may see it.
    async fn forget_closed(&self, account: &str) -> Result<(), PlatformError> {
        for name in self.closed_in(account).await? {
            self.remove(Kind::Closed, name).await?;
        }
        Ok(())
    }

    async fn begin_staging(&self, account: String, name: String, first: bool) -> Result<String, PlatformError> {
        let _turn = self.turns.of(&account).await;
        // Under the turn: of two moves that begin at once, the second must see the first.
        self.check_not_filled(&account, &name).await?;
        if first && let Ok(mailbox) = self.open(&account).await {
            // Nobody is put out of an account that cannot be filled anyway.
            let held = inspection::items(&mailbox.folders().await?);
            if held > 0 {
                return Err(PlatformError::AccountNotEmpty { account, items: held });
            }
        }
        let mut record = StagingRecord {
            account: account.clone(),
            ready: false,
            denied: self.command().is_some(),
            kept: false,
        };
        self.write(Kind::Staging, name.clone(), record.clone()).await?;
        rehome_fault::step("platform.staging_begins");
        if let Some(command) = self.command() {
            command.deny(&account).await?;
            self.server.close_account(&account).await;
            command.drain(&account).await?;
            self.server.close_account(&account).await;
        }
        let held = inspection::items(&self.open(&account).await?.folders().await?);
        if held > 0 {
            if let Some(command) = self.command()
                && !self.is_closed(&account).await?
            {
                command.allow(&account).await?;
            }
            self.remove(Kind::Staging, name).await?;
            return Err(PlatformError::AccountNotEmpty { account, items: held });
        }
        self.forget_closed(&account).await?;
        record.ready = true;
        self.write(Kind::Staging, name, record).await?;
        rehome_fault::step("platform.staging");
        Ok(account)
    }

    /// Removes what a move has put into its account, if nobody else can have put anything there, and lets its user in.
    pub(crate) async fn remove_staging(&self, move_id: MoveId) -> Result<(), PlatformError> {
        let name = move_id.to_string();
        let Some(record) = self.read::<StagingRecord>(Kind::Staging, name.clone()).await? else {
            return Ok(());
        };
        let account = &record.account;
        let _turn = self.turns.of(account).await;
        if let Some(command) = self.command() {
            if !gone(command.deny(account).await)? {
                // With a program that was configured later only, the user was in the account like us.
                if record.kept {
                    tracing::info!(
                        account,
                        "kept contents stay in the account, with what a move back changed in them"
                    );
                } else if record.ready && record.denied {
                    self.empty(account).await?;
                } else if record.ready {
                    self.tell_what_stays(account);
                }
                if !self.is_closed(account).await? {
                    gone(command.allow(account).await)?;
                }
            }
        } else if record.ready {
            self.tell_what_stays(account);
        }
        self.remove(Kind::Staging, name).await?;
        rehome_fault::step("platform.remove_staging");
        Ok(())
    }

    fn tell_what_stays(&self, account: &str) {
        tracing::warn!(
            platform = self.name,
            account,
            "what was copied stays in the account, since its user could use it meanwhile"
        );
    }

    async fn empty(&self, account: &str) -> Result<(), PlatformError> {
        let mailbox = self.open(account).await?;
        let folders = mailbox.folders().await?;
        // Children before their parents.
        for folder in folders.iter().rev() {
            if folder.status.is_some_and(|status| status.exists > 0) {
                let listing = mailbox.list(&folder.path, None).await?;
                let uids: Vec<u32> = listing.items.iter().map(|item| item.uid).collect();
                let named = FolderRef::new(&folder.path, listing.status.uid_validity);
                for uids in uids.chunks(REMOVED_AT_ONCE) {
                    mailbox.remove(named, uids).await?;
                }
            }
            if !folder.path.is_inbox()
                && let Err(error) = mailbox.remove_folder(&folder.path).await
            {
                // Some servers keep the folders that they make themselves; an empty one does no harm.
                tracing::debug!(%error, folder = %folder.path, "a folder of a move that was given up stays, empty");
            }
        }
        Ok(())
    }

    /// Lets the user of a filled account in. Without a record that was done already, and nothing is touched: the mailbox
    /// may be on its way elsewhere since, its user kept out for that.
    pub(crate) async fn show(&self, place: &Place, move_id: MoveId) -> Result<(), PlatformError> {
        let name = move_id.to_string();
        let account = self.account(&place.location)?;
        let _turn = self.turns.of(account).await;
        let Some(record) = self.read::<StagingRecord>(Kind::Staging, name.clone()).await? else {
            return Ok(());
        };
        if record.account != account {
            return Err(PlatformError::AccountFilled {
                account: record.account,
                other: name,
            });
        }
        if let Some(command) = self.command() {
            command.allow(account).await?;
        }
        self.forget_closed(account).await?;
        self.remove(Kind::Staging, name).await?;
        rehome_fault::step("platform.show");
        Ok(())
    }

    /// Whether the account holds what a move has copied.
    pub(crate) async fn is_staged(&self, place: &Place, move_id: MoveId) -> Result<bool, PlatformError> {
        let record = self.read::<StagingRecord>(Kind::Staging, move_id.to_string()).await?;
        Ok(record.is_some_and(|record| record.ready && record.account == place.location))
    }

    /// Keeps the user of an account out and waits until none of its sessions is left. Undone by [`reopen`](Self::reopen).
    pub(crate) async fn deny(&self, place: &Place) -> Result<(), PlatformError> {
        let Some(command) = self.command() else {
            return Ok(());
        };
        let account = self.account(&place.location)?;
        let _turn = self.turns.of(account).await;
        let record = AccountRecord {
            account: account.to_owned(),
        };
        self.write(Kind::Denied, place.exchange_guid.to_string(), record)
            .await?;
        rehome_fault::step("platform.deny");
        command.deny(account).await?;
        // Ours would be ended with the others; a session that we begin from now on is one that we may have.
        self.server.close_account(account).await;
        command.drain(account).await?;
        self.server.close_account(account).await;
        rehome_fault::step("platform.denied");
        Ok(())
    }

    /// The mailboxes whose users are kept out for a cutover.
    pub(crate) async fn denied(&self) -> Result<Vec<Place>, PlatformError> {
        let mut places = Vec::new();
        for name in self.names(Kind::Denied).await? {
            let record = self.read::<AccountRecord>(Kind::Denied, name.clone()).await?;
            let (Ok(exchange_guid), Some(record)) = (name.parse::<ExchangeGuid>(), record) else {
                continue;
            };
            places.push(Place {
                exchange_guid,
                platform: self.name.clone(),
                location: record.account,
            });
        }
        Ok(places)
    }

    /// Lets the user of an account in again if `may` says so, which is asked when no one else can change it.
    pub(crate) async fn reopen<E: From<PlatformError>>(
        &self,
        place: &Place,
        may: impl Future<Output = Result<bool, E>>,
    ) -> Result<bool, E> {
        let _turn = self.turns.of(&place.location).await;
        if !may.await? {
            return Ok(false);
        }
        if let Some(command) = self.command() {
            gone(command.allow(&place.location).await).map_err(PlatformError::from)?;
        }
        self.remove(Kind::Denied, place.exchange_guid.to_string()).await?;
        rehome_fault::step("platform.reopen");
        Ok(true)
    }

    /// Keeps the account of a mailbox that has moved away closed, for good.
    pub(crate) async fn close_source(&self, place: &Place, move_id: MoveId) -> Result<(), PlatformError> {
        let account = self.account(&place.location)?;
        let _turn = self.turns.of(account).await;
        if let Some(command) = self.command() {
            gone(command.deny(account).await)?;
        }
        let record = AccountRecord {
            account: account.to_owned(),
        };
        self.write(Kind::Closed, closed_name(place.exchange_guid, move_id), record)
            .await?;
        self.remove(Kind::Denied, place.exchange_guid.to_string()).await?;
        rehome_fault::step("platform.close");
        Ok(())
    }

    pub(crate) async fn open_closed(
        &self,
        exchange_guid: ExchangeGuid,
        move_id: MoveId,
    ) -> Result<Arc<dyn Mailbox>, PlatformError> {
        let name = closed_name(exchange_guid, move_id);
        match self.read::<AccountRecord>(Kind::Closed, name.clone()).await? {
            Some(record) => Ok(self.open(&record.account).await?),
            None => Err(PlatformError::Files {
                doing: "opening the kept contents",
                path: self.records.path().join(name),
                source: std::io::ErrorKind::NotFound.into(),
            }),
        }
    }

    /// Takes the kept contents in an account as what a move back begins with. Its user stays kept out.
    pub(crate) async fn stage_closed(&self, place: &Place, left: MoveId, move_id: MoveId) -> Result<(), PlatformError> {
        let (account, name) = (self.account(&place.location)?, move_id.to_string());
        let _turn = self.turns.of(account).await;
        self.check_not_filled(account, &name).await?;
        let closed = closed_name(place.exchange_guid, left);
        let kept = self.read::<AccountRecord>(Kind::Closed, closed.clone()).await?;
        if kept.is_none_or(|kept| kept.account != account) {
            return Err(PlatformError::Files {
                doing: "opening the kept contents",
                path: self.records.path().join(closed),
                source: std::io::ErrorKind::NotFound.into(),
            });
        }
        if let Some(command) = self.command() {
            command.deny(account).await?;
        }
        let record = StagingRecord {
            account: account.to_owned(),
            ready: true,
            denied: self.command().is_some(),
            kept: true,
        };
        self.write(Kind::Staging, name, record).await?;
        rehome_fault::step("platform.stage_closed");
        Ok(())
    }

    /// Forgets the account of a mailbox that has moved away. Its contents are left to the server's administrator.
    pub(crate) async fn remove_closed(
        &self,
        exchange_guid: ExchangeGuid,
        move_id: MoveId,
    ) -> Result<(), PlatformError> {
        self.remove(Kind::Closed, closed_name(exchange_guid, move_id)).await?;
        rehome_fault::step("platform.remove_closed");
        Ok(())
    }

    pub(crate) async fn inspect(&self, account: &str) -> Result<Inspection, PlatformError> {
        let mailbox = self.open(account).await?;
        let folders = mailbox.folders().await?;
        // A server without quota, or that fails to tell, leaves the octets open; the rest is known.
        let octets = mailbox.quota().await.ok().flatten().map(|quota| quota.used);
        Ok(Inspection::of_account(&folders, octets))
    }

    /// One of our own folders, made if missing.
    pub(crate) async fn own_folder(&self, name: &'static str) -> Result<PathBuf, PlatformError> {
        let records = self.records.clone();
        let at = records.path().join(name);
        files("making", at, move || records.own_folder(name)).await
    }

    async fn read<R: DeserializeOwned + Send + 'static>(
        &self,
        kind: Kind,
        name: String,
    ) -> Result<Option<R>, PlatformError> {
        let records = self.records.clone();
        let at = records.path().join(&name);
        files("reading the record", at, move || records.read(kind, &name)).await
    }

    async fn write<R: Serialize + Send + 'static>(
        &self,
        kind: Kind,
        name: String,
        record: R,
    ) -> Result<(), PlatformError> {
        let records = self.records.clone();
        let at = records.path().join(&name);
        files("writing the record", at, move || records.write(kind, &name, &record)).await
    }

    async fn remove(&self, kind: Kind, name: String) -> Result<(), PlatformError> {
        let records = self.records.clone();
        let at = records.path().join(&name);
        files("removing the record", at, move || records.remove(kind, &name)).await
    }

    async fn names(&self, kind: Kind) -> Result<Vec<String>, PlatformError> {
        let records = self.records.clone();
        let at = records.path().to_owned();
        files("listing the records in", at, move || records.names(kind)).await
    }
}

fn closed_name(exchange_guid: ExchangeGuid, move_id: MoveId) -> String {
    format!("{exchange_guid}-{move_id}")
}

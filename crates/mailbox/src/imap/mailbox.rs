//! One account's mailbox as the engine sees it.

use super::append;
use super::change;
use super::error::{Failure, Kind, Outcome};
use super::folders;
use super::list::{self, Token};
use super::names::{Known, Tree};
use super::pool::{Lease, Pool, Who};
use super::read::Reader;
use crate::{
    Appended, Capabilities, ChangeToken, ErrorScope, Folder, FolderPath, FolderRef, FolderStatus, Listing, Mailbox,
    MailboxError, NewFolder, NewItem, Quota, ReadEvent, Retry, Uid,
};
use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use rehome_wire::flags::Flags;
use rehome_wire::imap::{Command, MailboxName};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A held connection that was silent for so long is asked for a sign of life before something that must not be asked
/// twice.
const SILENT: Duration = Duration::from_secs(20);

/// The mailbox of one account on an IMAP server. Clones share everything.
#[derive(Clone)]
pub struct ImapMailbox {
    pool: Arc<Pool>,
    who: Who,
    names: Arc<Mutex<Names>>,
}

/// What is known of the folders' names.
#[derive(Default)]
struct Names {
    tree: Option<Arc<Tree>>,
    /// As listed last, with what was made since.
    known: Option<Known>,
}

/// A connection, and the name that a path has on it.
pub(super) struct Named {
    pub(super) lease: Lease,
    pub(super) name: MailboxName,
}

/// Runs `$operation` on a connection for `$path`; once more on another one where a held connection had died.
macro_rules! with_folder {
    ($self:ident, $path:expr, |$named:ident| $operation:expr) => {{
        let mut again = true;
        loop {
            let mut $named = $self.lease_for($path).await.map_err(|failure| $self.told(failure))?;
            let outcome = $operation.await;
            match outcome {
                Ok(done) => break Ok(done),
                Err(failure) if again && $named.lease.reused && failure.is_lost() => again = false,
                Err(failure) => break Err($self.told(failure)),
            }
        }
    }};
}

/// The same without a folder.
macro_rules! with_connection {
    ($self:ident, |$lease:ident| $operation:expr) => {{
        let mut again = true;
        loop {
            let mut $lease = $self.lease(None).await.map_err(|failure| $self.told(failure))?;
            let outcome = $operation.await;
            match outcome {
                Ok(done) => break Ok(done),
                Err(failure) if again && $lease.reused && failure.is_lost() => again = false,
                Err(failure) => break Err($self.told(failure)),
            }
        }
    }};
}

impl ImapMailbox {
    pub(super) fn new(pool: Arc<Pool>, who: Who) -> Self {
        let names = Arc::default();
        Self { pool, who, names }
    }

    /// Signs in, or finds that a connection is held already: afterwards [`Mailbox::capabilities`] is true to the
    /// server. Before any sign-in to the server it answers the least.
    ///
    /// # Errors
    /// Where the server cannot be reached or does not let us in.
    pub async fn connect(&self) -> Result<(), MailboxError> {
        self.lease(None).await.map(drop).map_err(|failure| self.told(failure))
    }

    /// Closes the connections of the account that nobody uses; those in use end with what they are used for.
    pub async fn close(&self) {
        self.pool.renew(&self.who.account).await;
    }

    /// What the engine is told of a failure; the pool hears of it, too.
    pub(super) fn told(&self, failure: Failure) -> MailboxError {
        self.pool.note(&failure);
        failure.error
    }

    pub(super) async fn lease(&self, name: Option<&MailboxName>) -> Outcome<Lease> {
        let lease = self.pool.acquire(&self.who, name).await?;
        let tree = folders::tree(&lease);
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.tree.as_deref() != Some(&tree) {
            names.tree = Some(Arc::new(tree));
        }
        Ok(lease)
    }

    /// A connection that answers.
    async fn fresh(&self, path: &FolderPath) -> Outcome<Named> {
        loop {
            let mut named = self.lease_for(path).await?;
            if !named.lease.reused || named.lease.heard.elapsed() < SILENT {
                return Ok(named);
            }
            if named.lease.ask(Command::noop(), |_| {}).await.is_ok() {
                return Ok(named);
            }
        }
    }

    /// A connection, if possible with the folder open, and the folder's name.
    pub(super) async fn lease_for(&self, path: &FolderPath) -> Outcome<Named> {
        let guess = self.name_known(path);
        let mut lease = self.lease(guess.as_ref()).await?;
        let name = match guess {
            Some(name) => name,
            None => self.name_on(&mut lease, path).await?,
        };
        Ok(Named { lease, name })
    }

    /// The name of a folder, where it is known without asking.
    fn name_known(&self, path: &FolderPath) -> Option<MailboxName> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let tree = names.tree.as_ref()?;
        if let Some(name) = names.known.as_ref().and_then(|known| known.get(path)) {
            return Some(name.clone());
        }
        // What is doubtful and was not listed is not there, if anything was listed.
        if Tree::is_doubtful(path) && names.known.is_none() {
            return None;
        }
        tree.names(path).into_iter().next()
    }

    async fn name_on(&self, lease: &mut Lease, path: &FolderPath) -> Outcome<MailboxName> {
        if path.0.is_empty() {
            return Err(no_path(path));
        }
        if let Some(name) = self.name_known(path) {
            return Ok(name);
        }
        let known = folders::names(lease).await?;
        self.names.lock().unwrap_or_else(PoisonError::into_inner).known = Some(known);
        self.name_known(path).ok_or_else(|| no_path(path))
    }

    /// The names that a new folder may get, best first.
    pub(super) fn names_for(&self, path: &FolderPath) -> Vec<MailboxName> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.tree.as_ref().map(|tree| tree.names(path)).unwrap_or_default()
    }

    /// The name under which the folder was listed or made.
    pub(super) fn listed_name(&self, path: &FolderPath) -> Option<MailboxName> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.known.as_ref()?.get(path).cloned()
    }

    pub(super) fn remember(&self, known: Known) {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).known = Some(known);
    }

    /// A folder was made under this name.
    pub(super) fn remember_name(&self, path: &FolderPath, name: &MailboxName) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &mut names.known {
            known.remove(path);
            known.insert(path.clone(), name.clone());
        } else if Tree::is_doubtful(path) {
            // The next question for a doubtful name lists.
        }
    }

    /// Names changed in a way that only a new listing shows.
    pub(super) fn forget_names(&self) {
        self.pool.folders_moved(&self.who.account);
        self.names.lock().unwrap_or_else(PoisonError::into_inner).known = None;
    }
}

fn no_path(path: &FolderPath) -> Failure {
    let what = format!("naming folder {path}");
    Failure {
        kind: Kind::Missing,
        ..Failure::ours(
            what,
            "there is no folder without a name",
            ErrorScope::Folder,
            Retry::Never,
        )
    }
}

#[async_trait]
impl Mailbox for ImapMailbox {
    fn capabilities(&self) -> Capabilities {
        let folders_at_once = self
            .pool
            .settings
            .connections_per_account
            .min(self.pool.settings.connections)
            .max(1);
        let Some(known) = self.pool.known() else {
            return Capabilities {
                append_batch: 1,
                folders_at_once,
                keywords: true,
                ..Capabilities::default()
            };
        };
        Capabilities {
            append_once: false,
            given_uids: false,
            copy: known.capabilities.uid_plus,
            changes: known.capabilities.condstore,
            keywords: true,
            max_item_length: known.capabilities.append_limit,
            append_batch: known.quirks.append_batch(),
            folders_at_once,
        }
    }

    async fn folders(&self) -> Result<Vec<Folder>, MailboxError> {
        let (folders, known) = with_connection!(self, |lease| folders::folders(&mut lease))?;
        self.remember(known);
        Ok(folders)
    }

    async fn list(&self, folder: &FolderPath, since: Option<&ChangeToken>) -> Result<Listing, MailboxError> {
        let since = since.and_then(Token::decode);
        with_folder!(self, folder, |named| list::list(
            &mut named.lease,
            folder,
            &named.name,
            since
        ))
    }

    async fn list_from(&self, folder: &FolderPath, first: Uid) -> Result<Listing, MailboxError> {
        with_folder!(self, folder, |named| list::list_from(
            &mut named.lease,
            folder,
            &named.name,
            first
        ))
    }

    async fn read<'a>(
        &'a self,
        folder: FolderRef<'_>,
        uids: &[Uid],
    ) -> Result<BoxStream<'a, Result<ReadEvent, MailboxError>>, MailboxError> {
        let reader = Reader::begin(self, folder, uids).await?;
        let events = futures_util::stream::unfold(reader, |mut reader| async {
            let event = reader.next().await?;
            Some((event, reader))
        });
        Ok(events.boxed())
    }

    async fn create_folder(&self, folder: &FolderPath, new: &NewFolder) -> Result<FolderStatus, MailboxError> {
        with_connection!(self, |lease| change::create(self, &mut lease, folder, new))
    }

    async fn rename_folder(&self, from: &FolderPath, to: &FolderPath) -> Result<(), MailboxError> {
        let mut lease = self.lease(None).await.map_err(|failure| self.told(failure))?;
        let renamed = change::rename(self, &mut lease, from, to).await;
        self.forget_names();
        renamed.map_err(|failure| self.told(failure))
    }

    async fn remove_folder(&self, folder: &FolderPath) -> Result<(), MailboxError> {
        let removed = with_folder!(self, folder, |named| change::remove_folder(
            &mut named.lease,
            folder,
            &named.name
        ));
        self.forget_names();
        removed
    }

    async fn subscribe(&self, folder: &FolderPath, subscribed: bool) -> Result<(), MailboxError> {
        with_folder!(self, folder, |named| change::subscribe(
            &mut named.lease,
            folder,
            &named.name,
            subscribed
        ))
    }

    async fn append(&self, folder: FolderRef<'_>, items: Vec<NewItem>) -> Result<Vec<Appended>, MailboxError> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let mut named = self.fresh(folder.path).await.map_err(|failure| self.told(failure))?;
        append::append(&mut named.lease, folder, &named.name, items)
            .await
            .map_err(|failure| self.told(failure.in_folder()))
    }

    async fn copy(
        &self,
        from: FolderRef<'_>,
        uids: &[Uid],
        folder: FolderRef<'_>,
        items: &[NewItem],
    ) -> Result<Vec<Appended>, MailboxError> {
        let mut named = self.fresh(from.path).await.map_err(|failure| self.told(failure))?;
        let target = self.name_on(&mut named.lease, folder.path).await;
        let target = target.map_err(|failure| self.told(failure))?;
        let asked = change::Copy {
            from,
            uids,
            to: folder,
            target: &target,
            items,
        };
        change::copy(&mut named.lease, &named.name, &asked)
            .await
            .map_err(|failure| self.told(failure.in_folder()))
    }

    async fn set_flags(
        &self,
        folder: FolderRef<'_>,
        changes: &[(Uid, Flags)],
    ) -> Result<Vec<(Uid, Vec<String>)>, MailboxError> {
        with_folder!(self, folder.path, |named| change::set_flags(
            &mut named.lease,
            folder,
            &named.name,
            changes
        ))
    }

    async fn remove(&self, folder: FolderRef<'_>, uids: &[Uid]) -> Result<(), MailboxError> {
        with_folder!(self, folder.path, |named| change::remove(
            &mut named.lease,
            folder,
            &named.name,
            uids
        ))
    }

    async fn quota(&self) -> Result<Option<Quota>, MailboxError> {
        with_connection!(self, |lease| change::quota(&mut lease))
    }

    async fn renew(&self) {
        self.pool.renew(&self.who.account).await;
    }
}

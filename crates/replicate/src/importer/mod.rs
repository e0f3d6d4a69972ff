//! The importer: brings a mailbox to what the source holds, pass by pass, and makes the target's root.

mod apply;
mod budget;
mod changes;
mod folders;
mod incoming;
mod line;
mod listing;
mod live;
mod mend;
mod naming;
mod pass;
mod pull;
mod recover;
mod rename;
mod sweep;
mod verify;

use crate::{
    error::PassError,
    ledger::{FolderState, Ledger, Octets},
    link::{SourceLink, SweepFolder},
    proof::Exception,
    report::{OtherName, Report, ReportClass, ReportItem, ReportKind},
    storage::ChunkStorage,
};
use budget::Budget;
pub(crate) use folders::new_entry;
use futures_util::{FutureExt, StreamExt, stream};
use rehome_mailbox::{Capabilities, ErrorScope, Folder, FolderPath, FolderStatus, Mailbox};
use rehome_wire::digest::Digest;
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::sync::{Semaphore, watch};

/// How an importer works.
#[derive(Clone)]
pub struct ImportSettings {
    /// The move's 128 bits: names its items in keys and its spool files.
    pub move_id: u128,
    /// Octets of bodies that may be held in memory: half of it for what arrived, half for answers that were asked for
    /// ahead; an eighth is used beyond that for folders whose turn is to come. At least 3 MiB are used.
    pub memory_budget: usize,
    /// A folder for larger bodies on their way. Files of this move in it are removed at the start of every pass.
    pub spool: PathBuf,
    /// Keep uids where source, target and folder allow it.
    pub given_uids: bool,
    /// Read back what was appended; off, there is never a root.
    pub read_back: bool,
    /// The target is an existing mailbox in use, without lock, root or hiding: additions and flags are carried (a flag
    /// that the source did not change since the last pass stays as the user has it), removals are not, foreign items and
    /// folders are never touched, and folders that are there are used as they are. There is no [`Importer::target_root`].
    pub live_target: bool,
    /// Is told how far a pass is.
    pub progress: Arc<dyn Fn(&Progress) + Send + Sync>,
    /// Whether the lease still holds, by the monotonic clock; asked before every command to a server.
    pub lease: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Set to stop before the next command to a server.
    pub cancel: Arc<AtomicBool>,
}

/// Which pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassKind {
    /// The first: everything. Ends with a look at flags and dates on the target, so that what differs is known early.
    Initial,
    /// What changed since.
    Incremental,
    /// What changed since, with the source locked: what is listed must be listed wholly.
    Final,
}

/// What a pass does with items that the report names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkippedItems {
    /// Skipped ones are left alone: they were tried not long ago.
    Leave,
    /// Skipped ones are tried again.
    Try,
    /// So are all others, where the target is hidden: altered ones and those with another date are removed and brought
    /// again, flags and keywords are set again.
    TryAltered,
}

/// How far a pass is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The folder at work, as people read it; empty at the end.
    pub folder: String,
    /// Folders of the source.
    pub folders_total: u64,
    /// Items of the source, as it counts them.
    pub items_total: u64,
    /// Items that this pass has to bring.
    pub items_to_do: u64,
    /// Items that it brought so far.
    pub items_done: u64,
    /// Canonical octets of them.
    pub octets_done: u64,
}

/// What a pass did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassOutcome {
    /// Folders of the source.
    pub folders: u64,
    /// Items of the source, as it counts them.
    pub items_total: u64,
    /// Folders that were listed; the others' numbers proved that nothing changed.
    pub folders_listed: u64,
    /// Folders that were renamed on the target as at the source.
    pub folders_renamed: u64,
    /// Folders made on the target.
    pub folders_created: u64,
    /// Folders removed on the target.
    pub folders_removed: u64,
    /// Items appended or copied to the target.
    pub items_appended: u64,
    /// Canonical octets of them.
    pub octets_appended: u64,
    /// Of them, items copied from elsewhere on the target.
    pub items_copied: u64,
    /// Items found again by digest after a reset of their folder's validity.
    pub items_paired: u64,
    /// Items found on the target by recovery.
    pub items_recovered: u64,
    /// Late doubles removed from the target, or reported where it is live.
    pub late_doubles: u64,
    /// Items whose flags were set.
    pub flags_changed: u64,
    /// Items removed from the target.
    pub items_removed: u64,
    /// Items that stand in the report as skipped, when the pass ended.
    pub items_skipped: u64,
    /// Canonical octets received from the source in items, used or not.
    pub octets_received: u64,
}

/// What a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepOutcome {
    /// Late items appended.
    pub appended: u64,
    /// Late items that stand in the report as skipped.
    pub skipped: u64,
}

/// The target's side of the proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetRoot {
    /// The root over all leaves but the skipped ones.
    pub root: Digest,
    /// What the target does not hold as the source does; sorted.
    pub exceptions: Vec<Exception>,
    /// Folders.
    pub folders: u64,
    /// Leaves.
    pub items: u64,
    /// Canonical octets of the leaves.
    pub octets: u64,
}

/// Imports one mailbox. One pass, sweep or root at a time; a second call waits.
pub struct Importer {
    source: Arc<dyn SourceLink>,
    target: Arc<dyn Mailbox>,
    storage: Arc<dyn ChunkStorage>,
    settings: ImportSettings,
    running: tokio::sync::Mutex<()>,
}

impl Importer {
    /// An importer from `source` into `target` that keeps its state in `ledger`.
    pub fn new(
        source: Arc<dyn SourceLink>,
        target: Arc<dyn Mailbox>,
        ledger: Arc<dyn ChunkStorage>,
        settings: ImportSettings,
    ) -> Self {
        Self {
            source,
            target,
            storage: ledger,
            settings,
            running: tokio::sync::Mutex::new(()),
        }
    }

    /// Recovers what an interrupted pass left, then brings the target to what the source holds. Skipped items are tried
    /// again.
    ///
    /// # Errors
    /// [`PassError`]. What was applied stays; the next pass goes on from there.
    pub async fn pass(&self, kind: PassKind) -> Result<PassOutcome, PassError> {
        self.pass_with(kind, SkippedItems::Try).await
    }

    /// As [`Importer::pass`], told what to do with items that the report names.
    ///
    /// # Errors
    /// As [`Importer::pass`].
    pub async fn pass_with(&self, kind: PassKind, skipped: SkippedItems) -> Result<PassOutcome, PassError> {
        let _running = self.running.lock().await;
        let mode = if self.settings.live_target {
            Mode::Live
        } else {
            Mode::Hidden
        };
        let mut work = self.work(mode).await?;
        work.skipped = skipped;
        work.run_pass(kind).await?;
        Ok(work.take_outcome())
    }

    /// The target's root, from what was read back and from listings made now. Call it after a final pass, under the
    /// source's lock, with the target hidden.
    ///
    /// # Errors
    /// [`PassError::ReadBackRequired`] with read-back switched off; [`PassError::TargetDiffers`] where the target lacks
    /// items (the next final pass brings them again) or holds items of unknown origin, and always for a live target; else
    /// as a pass.
    pub async fn target_root(&self) -> Result<TargetRoot, PassError> {
        let _running = self.running.lock().await;
        if self.settings.live_target {
            return Err(PassError::TargetDiffers {
                message: "the target is in use: it holds more than the move brought, so there is no root".to_owned(),
                mended: false,
            });
        }
        self.work(Mode::Hidden).await?.target_root().await
    }

    /// The root over what the move has brought of what the source holds now, for a target that is in use: from the ledger,
    /// that is from what was read back when it was brought. Whatever its user has done with it since counts for nothing.
    /// Call it after a final pass, under the source's lock.
    ///
    /// # Errors
    /// [`PassError::ReadBackRequired`] with read-back switched off; [`PassError::TargetDiffers`] where items were lost
    /// before they could be read back (the next pass brings them again); else as a pass.
    pub async fn carried_root(&self) -> Result<TargetRoot, PassError> {
        let _running = self.running.lock().await;
        self.work(Mode::Live).await?.carried_root().await
    }

    /// Appends what a late sweep found. The target may be live: nothing but additions is carried, uids are the target's.
    ///
    /// # Errors
    /// As a pass. The same additions may be given again: what was appended is not appended twice.
    pub async fn sweep(&self, additions: &[SweepFolder]) -> Result<SweepOutcome, PassError> {
        let _running = self.running.lock().await;
        self.work(Mode::Sweep).await?.run_sweep(additions).await
    }

    /// The items of the report, without what it says of folders and line ends: no record is read for it.
    ///
    /// # Errors
    /// [`PassError::Storage`], [`PassError::Ledger`].
    pub async fn reported_items(&self) -> Result<Vec<ReportItem>, PassError> {
        let ledger = Ledger::load(Arc::clone(&self.storage)).await?;
        let mut items = Vec::new();
        for folder in ledger.folders() {
            if folder.state == FolderState::Active && folder.reported > 0 {
                for chunk in ledger.report_chunks(folder.number).await? {
                    items.extend(ledger.report(folder.number, chunk).await?);
                }
            }
        }
        Ok(items)
    }

    /// Everything reported about items so far.
    ///
    /// # Errors
    /// [`PassError::Storage`], [`PassError::Ledger`].
    pub async fn report(&self) -> Result<Report, PassError> {
        read_report(&Ledger::load(Arc::clone(&self.storage)).await?).await
    }

    async fn work(&self, mode: Mode) -> Result<Work<'_>, PassError> {
        let ledger = Ledger::load(Arc::clone(&self.storage)).await?;
        let entries = ledger.folders();
        let shown = |octets| entries.iter().any(|entry| entry.octets == octets);
        let octets = if shown(Octets::Rewritten) {
            Octets::Rewritten
        } else if shown(Octets::Kept) || !self.settings.read_back {
            Octets::Kept
        } else {
            Octets::Unknown
        };
        let capabilities = self.target.capabilities();
        let lanes = capabilities.folders_at_once.clamp(1, MOST_LANES);
        Ok(Work {
            source: &*self.source,
            target: &*self.target,
            settings: &self.settings,
            capabilities,
            ledger,
            mode,
            skipped: SkippedItems::Try,
            lanes,
            turns: Semaphore::new(lanes),
            budget: Budget::new(self.settings.memory_budget),
            octets: Mutex::new(octets),
            target_folders: tokio::sync::Mutex::default(),
            pool: Mutex::default(),
            outcome: Mutex::default(),
            progress: Mutex::default(),
            spooled: AtomicU64::new(0),
            failure: Mutex::default(),
            stop: watch::channel(false).0,
        })
    }
}

/// Everything reported about the items of a move, without running it.
///
/// # Errors
/// [`PassError`] when the ledger cannot be read.
pub async fn report_of(ledger: Arc<dyn ChunkStorage>) -> Result<Report, PassError> {
    read_report(&Ledger::load(ledger).await?).await
}

async fn read_report(ledger: &Ledger) -> Result<Report, PassError> {
    let mut report = Report::default();
    for folder in ledger.folders() {
        if folder.state != FolderState::Active {
            continue;
        }
        if folder.target_path != folder.source_path {
            report.other_names.push(OtherName {
                folder: folder.source_path.0.clone(),
                on_target: folder.target_path.0.clone(),
            });
        }
        for chunk in ledger.report_chunks(folder.number).await? {
            report.items.extend(ledger.report(folder.number, chunk).await?);
        }
        for chunk in ledger.record_chunks(folder.number).await? {
            let records = ledger.records(folder.number, chunk).await?;
            report.line_ends_only += records.iter().filter(|record| record.line_ends_only).count() as u64;
        }
    }
    report
        .items
        .sort_by(|one, two| (&one.folder, one.uid, one.kind).cmp(&(&two.folder, two.uid, two.kind)));
    report.other_names.sort_by(|one, two| one.folder.cmp(&two.folder));
    Ok(report)
}

/// Most folders that are worked on at once.
const MOST_LANES: usize = 8;
/// Folders whose first items are asked for before it is their turn, so that distance costs small folders nothing.
const FOLDERS_AHEAD: usize = 4;

/// Whose the target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Ours: nobody sees it.
    Hidden,
    /// It was shown after a cutover, and late items follow.
    Sweep,
    /// It is an existing mailbox in use ([`ImportSettings::live_target`]).
    Live,
}

/// An item of the target that is about to be removed.
#[derive(Clone)]
struct Pooled {
    path: FolderPath,
    validity: u32,
    uid: u32,
}

/// One pass, sweep or root at work, shared by the folders that are worked on at once.
struct Work<'a> {
    source: &'a dyn SourceLink,
    target: &'a dyn Mailbox,
    settings: &'a ImportSettings,
    capabilities: Capabilities,
    ledger: Ledger,
    mode: Mode,
    skipped: SkippedItems,
    /// Folders that are changed on the target at once.
    lanes: usize,
    /// One for each of them, given in the order of asking.
    turns: Semaphore,
    budget: Budget,
    /// Whether the target gives back what it was given.
    octets: Mutex<Octets>,
    /// The target's folders, read when first needed and kept up to date.
    target_folders: tokio::sync::Mutex<Option<HashMap<FolderPath, Folder>>>,
    /// Items of the target that are about to be removed: copied from there where they turn up elsewhere.
    pool: Mutex<HashMap<Digest, Pooled>>,
    outcome: Mutex<PassOutcome>,
    progress: Mutex<Progress>,
    spooled: AtomicU64,
    /// The first error of any folder.
    failure: Mutex<Option<PassError>>,
    /// True once nothing more is to begin.
    stop: watch::Sender<bool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Work<'_> {
    /// Asked before every command to a server.
    fn guard(&self) -> Result<(), PassError> {
        if !(self.settings.lease)() {
            return Err(PassError::LeaseLost);
        }
        if self.settings.cancel.load(Ordering::SeqCst) || *self.stop.borrow() {
            return Err(PassError::Cancelled);
        }
        Ok(())
    }

    /// Whether others than the move may change the target.
    fn is_live(&self) -> bool {
        match self.mode {
            Mode::Hidden => false,
            Mode::Sweep | Mode::Live => true,
        }
    }

    fn outcome(&self) -> MutexGuard<'_, PassOutcome> {
        lock(&self.outcome)
    }

    fn take_outcome(&self) -> PassOutcome {
        std::mem::take(&mut *self.outcome())
    }

    /// Runs work on several folders at once, begun in their order. What fails in one folder alone leaves the others
    /// going; anything wider stops them at their next command. The first error is returned when all have ended.
    async fn at_once<T, F>(
        &self,
        of: impl IntoIterator<Item = T>,
        most: usize,
        work: impl Fn(T) -> F,
    ) -> Result<(), PassError>
    where
        F: Future<Output = Result<(), PassError>> + Send,
    {
        let all = of.into_iter().map(|of| {
            let one = work(of);
            async move {
                if let Err(error) = one.await {
                    if error.scope() > ErrorScope::Folder {
                        self.stop.send_replace(true);
                    }
                    lock(&self.failure).get_or_insert(error);
                }
            }
            .boxed()
        });
        stream::iter(all.collect::<Vec<_>>())
            .buffer_unordered(most.max(1))
            .collect::<()>()
            .await;
        let failure = lock(&self.failure).take();
        failure.map_or(Ok(()), Err)
    }

    /// The numbers of a target folder, as read once in this pass and changed by it since.
    async fn target_status(&self, path: &FolderPath) -> Result<Option<FolderStatus>, PassError> {
        self.with_target_folders(|folders| folders.get(path).and_then(|folder| folder.status))
            .await
    }

    async fn with_target_folders<T>(
        &self,
        look: impl FnOnce(&mut HashMap<FolderPath, Folder>) -> T,
    ) -> Result<T, PassError> {
        let mut held = self.target_folders.lock().await;
        let folders = match held.take() {
            Some(folders) => folders,
            None => {
                self.guard()?;
                let folders = self.target.folders().await.map_err(PassError::Target)?;
                folders
                    .into_iter()
                    .map(|folder| (folder.path.clone(), folder))
                    .collect()
            }
        };
        Ok(look(held.insert(folders)))
    }

    /// Forgets the target's folders: they are read again when needed.
    async fn forget_target_folders(&self) {
        *self.target_folders.lock().await = None;
    }

    /// Keeps the folders up to date, where they were read.
    async fn note_target_folder(&self, path: &FolderPath, status: Option<FolderStatus>) {
        let mut held = self.target_folders.lock().await;
        let Some(folders) = &mut *held else { return };
        let Some(status) = status else {
            folders.remove(path);
            return;
        };
        let folder = folders.entry(path.clone()).or_insert_with(|| Folder {
            path: path.clone(),
            special_use: None,
            subscribed: false,
            selectable: true,
            status: None,
            mailbox_id: None,
        });
        folder.selectable = true;
        folder.status = Some(status);
    }

    fn show(&self, folder: &FolderPath) {
        self.report_progress(|progress| progress.folder = folder.to_string());
    }

    fn report_progress(&self, change: impl FnOnce(&mut Progress)) {
        let mut progress = lock(&self.progress);
        change(&mut progress);
        (self.settings.progress)(&progress);
    }

    /// Something about one item for the report.
    fn report_item(&self, number: u32, uid: u32, kind: ReportKind, reason: String) -> Result<ReportItem, PassError> {
        let side = match kind {
            ReportKind::LineEnds => crate::report::Side::Source,
            ReportKind::Skipped
            | ReportKind::Altered
            | ReportKind::Flags
            | ReportKind::Date
            | ReportKind::Keywords
            | ReportKind::Double => crate::report::Side::Target,
        };
        Ok(ReportItem {
            folder: self.ledger.folder(number)?.source_path.0.clone(),
            uid,
            kind,
            class: ReportClass::of(kind),
            reason,
            side,
            size: None,
            received: None,
            subject: None,
            sender: None,
            date_sent: None,
            held: None,
            found: now(),
        })
    }
}

/// The present second, for "found at".
fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

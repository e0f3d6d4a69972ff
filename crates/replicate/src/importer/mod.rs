//! The importer: brings a mailbox to what the source holds, pass by pass, and makes the target's root.

mod apply;
mod changes;
mod listing;
mod pass;
mod pull;
mod recover;
mod sweep;
mod verify;

use crate::{
    error::PassError,
    ledger::{FolderState, Ledger},
    link::{SourceLink, SweepFolder},
    proof::Exception,
    report::{Report, ReportItem, ReportKind},
    storage::ChunkStorage,
};
use rehome_mailbox::{Capabilities, FolderPath, FolderStatus, Mailbox};
use rehome_wire::digest::Digest;
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::Mutex;

/// How an importer works.
#[derive(Clone)]
pub struct ImportSettings {
    /// The move's 128 bits: names its items in keys and its spool files.
    pub move_id: u128,
    /// Octets of bodies that may be held in memory; at least 1 MiB is used.
    pub memory_budget: usize,
    /// A folder for larger bodies on their way. Files of this move in it are removed at the start of every pass.
    pub spool: PathBuf,
    /// Keep uids where source, target and folder allow it.
    pub given_uids: bool,
    /// Read back what was appended; off, there is never a root.
    pub read_back: bool,
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
    /// What changed since, with the source locked: every folder must be listed wholly.
    Final,
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
    running: Mutex<()>,
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
            running: Mutex::new(()),
        }
    }

    /// Recovers what an interrupted pass left, then brings the target to what the source holds.
    ///
    /// # Errors
    /// [`PassError`]. What was applied stays; the next pass goes on from there.
    pub async fn pass(&self, kind: PassKind) -> Result<PassOutcome, PassError> {
        let _running = self.running.lock().await;
        let mut work = self.work(false).await?;
        work.run_pass(kind).await?;
        Ok(work.outcome)
    }

    /// The target's root, from what was read back and from listings made now. Call it after a final pass, under the
    /// source's lock, with the target hidden.
    ///
    /// # Errors
    /// [`PassError::ReadBackRequired`] with read-back switched off; [`PassError::TargetDiffers`] where the target lacks
    /// items (the next final pass brings them again) or holds items of unknown origin; else as a pass.
    pub async fn target_root(&self) -> Result<TargetRoot, PassError> {
        let _running = self.running.lock().await;
        let mut work = self.work(false).await?;
        work.target_root().await
    }

    /// Appends what a late sweep found. The target may be live: nothing but additions is carried, uids are the target's.
    ///
    /// # Errors
    /// As a pass. The same additions may be given again: what was appended is not appended twice.
    pub async fn sweep(&self, additions: &[SweepFolder]) -> Result<SweepOutcome, PassError> {
        let _running = self.running.lock().await;
        let mut work = self.work(true).await?;
        work.run_sweep(additions).await
    }

    /// Everything reported about items so far.
    ///
    /// # Errors
    /// [`PassError::Storage`], [`PassError::Ledger`].
    pub async fn report(&self) -> Result<Report, PassError> {
        read_report(&Ledger::load(Arc::clone(&self.storage)).await?).await
    }

    async fn work(&self, live: bool) -> Result<Work<'_>, PassError> {
        Ok(Work {
            source: &*self.source,
            target: &*self.target,
            settings: &self.settings,
            capabilities: self.target.capabilities(),
            ledger: Ledger::load(Arc::clone(&self.storage)).await?,
            live,
            target_numbers: None,
            pool: HashMap::new(),
            outcome: PassOutcome::default(),
            progress: Progress::default(),
            spooled: 0,
        })
    }
}

/// Reads the whole report.
/// Everything reported about the items of a move, without running it.
///
/// # Errors
/// [`PassError`] when the ledger cannot be read.
pub async fn report_of(ledger: Arc<dyn ChunkStorage>) -> Result<Report, PassError> {
    read_report(&Ledger::load(ledger).await?).await
}

async fn read_report(ledger: &Ledger) -> Result<Report, PassError> {
    let mut report = Report::default();
    for (number, folder) in ledger.folders() {
        if folder.state != FolderState::Active {
            continue;
        }
        for chunk in ledger.report_chunks(*number).await? {
            report.items.extend(ledger.report(*number, chunk).await?);
        }
        for chunk in ledger.record_chunks(*number).await? {
            let records = ledger.records(*number, chunk).await?;
            report.line_ends_only += records.iter().filter(|record| record.line_ends_only).count() as u64;
        }
    }
    report
        .items
        .sort_by(|one, two| (&one.folder, one.uid, one.kind).cmp(&(&two.folder, two.uid, two.kind)));
    Ok(report)
}

/// One pass, sweep or root at work.
struct Work<'a> {
    source: &'a dyn SourceLink,
    target: &'a dyn Mailbox,
    settings: &'a ImportSettings,
    capabilities: Capabilities,
    ledger: Ledger,
    /// The target is shown already: only additions, and others may change it too.
    live: bool,
    /// The target's folders with their numbers, read when first needed and kept up to date.
    target_numbers: Option<HashMap<FolderPath, FolderStatus>>,
    /// Items of the target that are about to be removed: copied from there where they turn up elsewhere.
    pool: HashMap<Digest, (FolderPath, u32)>,
    outcome: PassOutcome,
    progress: Progress,
    spooled: u64,
}

impl Work<'_> {
    /// Asked before every command to a server.
    fn guard(&self) -> Result<(), PassError> {
        if !(self.settings.lease)() {
            return Err(PassError::LeaseLost);
        }
        if self.settings.cancel.load(Ordering::SeqCst) {
            return Err(PassError::Cancelled);
        }
        Ok(())
    }

    /// The numbers of a target folder, as read once in this pass and changed by it since.
    async fn target_status(&mut self, path: &FolderPath) -> Result<Option<FolderStatus>, PassError> {
        if self.target_numbers.is_none() {
            self.guard()?;
            let folders = self.target.folders().await.map_err(PassError::Target)?;
            let numbers = folders
                .into_iter()
                .filter_map(|folder| Some((folder.path, folder.status?)));
            self.target_numbers = Some(numbers.collect());
        }
        Ok(self
            .target_numbers
            .as_ref()
            .and_then(|numbers| numbers.get(path))
            .copied())
    }

    fn note_target_status(&mut self, path: &FolderPath, status: Option<FolderStatus>) {
        if let Some(numbers) = &mut self.target_numbers {
            match status {
                Some(status) => numbers.insert(path.clone(), status),
                None => numbers.remove(path),
            };
        }
    }

    fn show(&mut self, folder: &FolderPath) {
        self.progress.folder = folder.to_string();
        (self.settings.progress)(&self.progress);
    }

    /// Something about one item for the report.
    fn report_item(&self, number: u32, uid: u32, kind: ReportKind, reason: String) -> Result<ReportItem, PassError> {
        let side = match kind {
            ReportKind::LineEnds => crate::report::Side::Source,
            ReportKind::Skipped | ReportKind::Altered | ReportKind::Flags | ReportKind::Date | ReportKind::Keywords => {
                crate::report::Side::Target
            }
        };
        Ok(ReportItem {
            folder: self.ledger.folder(number)?.source_path.0.clone(),
            uid,
            kind,
            reason,
            side,
            size: None,
            received: None,
            subject: None,
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

//! A late sweep: items that came to the source after its root was made are appended, and nothing else is touched.

use super::{SweepOutcome, Work, folders::new_entry, pull::REQUESTS_OPEN, recover::is_missing};
use crate::{
    compare::Addition,
    error::PassError,
    ledger::{Changes, FolderState},
    link::{LinkError, SweepFolder},
    report::ReportKind,
};
use rehome_mailbox::{ErrorScope, MailboxError, Retry};
use rehome_wire::{frames::MAX_BODY_REQUEST_ITEMS, uid_set::UidSet};

/// Most items that may be late, of all folders together.
const MAX_LATE: u64 = 1_000_000;

impl Work<'_> {
    pub(super) async fn run_sweep(&self, additions: &[SweepFolder]) -> Result<SweepOutcome, PassError> {
        let late: u64 = additions.iter().map(|addition| addition.uids.len() as u64).sum();
        if late > MAX_LATE {
            return Err(PassError::Source(LinkError {
                id: "UnexpectedException".to_owned(),
                message: format!("the source names {late} late items, {MAX_LATE} are the most"),
                scope: ErrorScope::Mailbox,
                retry: Retry::Never,
            }));
        }
        self.recover().await?;
        self.budget.share_requests(REQUESTS_OPEN);
        let mut skipped = 0;
        for SweepFolder { folder, uids } in additions {
            let Some(status) = folder.status else { continue };
            let number = self.sweep_folder(folder, status.uid_validity).await?;
            self.sweep_items(number, uids).await.map_err(|error| match error {
                // The user removed it between two commands. The next sweep makes it again.
                PassError::Target(error) if is_missing(&error) => PassError::Target(MailboxError {
                    retry: Retry::After(60),
                    ..error
                }),
                error => error,
            })?;
            skipped += self.skipped_of(number, uids).await?;
        }
        Ok(SweepOutcome {
            appended: self.outcome().items_appended,
            skipped,
        })
    }

    /// Brings the late items of one folder, a request's worth at a time.
    async fn sweep_items(&self, number: u32, uids: &UidSet) -> Result<(), PassError> {
        let map = self.ledger.map(number).await?;
        let mut late = uids.iter().filter(|uid| map.get(*uid).is_none()).peekable();
        if late.peek().is_none() {
            return Ok(());
        }
        let mut gone = Vec::new();
        while late.peek().is_some() {
            let part: Vec<Addition> = late
                .by_ref()
                .take(MAX_BODY_REQUEST_ITEMS)
                .map(|uid| Addition { uid, length_hint: None })
                .collect();
            gone.extend(self.bring(number, &part).await?);
        }
        if !gone.is_empty() {
            self.check_gone(number, &gone).await?;
        }
        Ok(())
    }

    async fn skipped_of(&self, number: u32, uids: &UidSet) -> Result<u64, PassError> {
        let mut skipped = 0;
        for chunk in self.ledger.report_chunks(number).await? {
            let items = self.ledger.report(number, chunk).await?;
            let late = items
                .iter()
                .filter(|item| item.kind == ReportKind::Skipped && uids.contains(item.uid));
            skipped += late.count() as u64;
        }
        Ok(skipped)
    }

    /// The folder's number, with the folder on the target: made where it is missing, taken as it is where it is not.
    async fn sweep_folder(&self, folder: &rehome_mailbox::Folder, validity: u32) -> Result<u32, PassError> {
        let held = self.ledger.folders().into_iter().find(|entry| {
            entry.source_path == folder.path && matches!(entry.state, FolderState::Active | FolderState::Creating)
        });
        let number = match held.map(|entry| (entry.number, entry.source_validity, entry.state)) {
            Some((number, held, _)) if held == validity => number,
            Some((number, _, FolderState::Active)) => self.begin_reset(number, folder, validity).await?,
            Some((number, ..)) => {
                // It was never made, so nothing was copied.
                self.ledger
                    .edit(number, |entry| *entry = new_entry(number, folder, validity))?;
                number
            }
            None => self.ledger.add_folder(|number| new_entry(number, folder, validity))?,
        };
        let mut changes = Changes::default();
        changes.folder(number);
        let entry = self.ledger.folder(number)?;
        let (path, creating) = (entry.target_path.clone(), entry.state == FolderState::Creating);
        let taken = creating && !self.beside(number)?.is_empty();
        match self.target_status(&path).await?.filter(|_| !taken) {
            None => {
                self.ledger.write(changes, "replicate.folders_creating").await?;
                let given_uids = entry.given_uids;
                self.create_all(&[(number, 1)]).await?;
                self.ledger.edit(number, |entry| entry.given_uids = given_uids)?;
            }
            Some(status) => {
                self.ledger.edit(number, |entry| {
                    entry.state = FolderState::Active;
                    entry.target_validity = status.uid_validity;
                })?;
            }
        }
        let mut changes = Changes::default();
        changes.folder(number);
        self.ledger.write(changes, "replicate.folders_created").await?;
        Ok(number)
    }
}

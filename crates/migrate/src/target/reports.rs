//! What could not be moved as it was: counted, scored, and let through or held back.

use super::{control::store_problem, cutover::is_exception, mover::Turn, trouble::Trouble};
use jiff::Timestamp;
use rehome_domain::{
    batch::MigrationBatch,
    consistency::{Approval, ApprovedUntil, Assessment, DataConsistencyScore, Findings, ItemClass, approval},
    error_id::{ErrorId, Problem},
    id::{MoveId, TenantId},
    moves::{Move, UserStatus},
};
use rehome_mailbox::Retry;
use rehome_replicate::{ExceptionKind, Importer, PassKind, ReportClass, ReportItem, SkippedItems};
use rehome_store::Tx;

/// What a reason in the receipt begins with, of an exception that needed no administrator.
const BY_RULE: &str = "approved by rule: ";

/// As what a reported item counts.
#[must_use]
pub fn class_of(item: &ReportItem) -> ItemClass {
    match item.class {
        ReportClass::Bad => ItemClass::Bad,
        ReportClass::TooLarge => ItemClass::TooLarge,
        ReportClass::Refused => ItemClass::Refused,
        ReportClass::Missing => ItemClass::Missing,
        ReportClass::Altered => ItemClass::Altered,
        ReportClass::Flags => ItemClass::Flags,
        ReportClass::Date => ItemClass::Date,
        ReportClass::LineEnds => ItemClass::LineEnds,
        ReportClass::Keywords => ItemClass::Keywords,
        ReportClass::Double => ItemClass::Double,
    }
}

/// The items of a report, counted.
#[must_use]
pub fn findings_of(items: &[ReportItem]) -> Findings {
    let mut findings = Findings::default();
    for item in items {
        findings.add(class_of(item), item.size);
    }
    findings
}

/// Up to when what was skipped is approved for a user.
#[must_use]
pub fn approved_until(user: &Move, batch: &MigrationBatch) -> ApprovedUntil {
    ApprovedUntil {
        user: user.skipped_approved_until,
        batch: batch.skipped_approved_until,
    }
}

/// How it stands with one item's approval.
#[must_use]
pub fn approval_of(assessment: &Assessment, item: &ReportItem, until: ApprovedUntil) -> Approval {
    approval(assessment, class_of(item), item.found, until)
}

/// The worst score of a batch's users; none before any of them has one.
#[must_use]
pub fn batch_score<'m>(users: impl IntoIterator<Item = &'m Move>) -> Option<DataConsistencyScore> {
    users
        .into_iter()
        .filter_map(Move::assessment)
        .map(|found| found.score)
        .max()
}

/// Has a user's reported items tried again, at once.
///
/// # Errors
/// When he has not been synced yet, is completed or has failed.
pub async fn user_retry_skipped(tx: &mut Tx, tenant: TenantId, id: MoveId, now: Timestamp) -> Result<(), Problem> {
    let user = tx.move_get(tenant, id).await.map_err(|e| store_problem(&e))?;
    let user =
        user.ok_or_else(|| Problem::new(ErrorId::ManagementObjectNotFound, format!("There is no user {id}."), ""))?;
    match user.status {
        // A completion that waits for an approval comes back to Synced every minute.
        UserStatus::Synced | UserStatus::IncrementalSyncing | UserStatus::Completing => {}
        UserStatus::Starting
        | UserStatus::Validating
        | UserStatus::Queued
        | UserStatus::Syncing
        | UserStatus::IncrementalFailed
        | UserStatus::CompletionFailed
        | UserStatus::Completed
        | UserStatus::CompletedWithWarnings
        | UserStatus::Failed
        | UserStatus::Stopped
        | UserStatus::IncrementalStopped
        | UserStatus::Removing => {
            return Err(Problem::new(
                ErrorId::InvalidOperation,
                format!(
                    "{} is {}, so nothing can be tried again now.",
                    user.email_address, user.status
                ),
                format!(
                    "Start-MigrationUser {}, if he has failed or is stopped; of a completed user nothing can be brought any more.",
                    user.email_address
                ),
            ));
        }
    }
    tx.retry_ask(tenant, id, now).await.map_err(|e| store_problem(&e))?;
    let asked = Move {
        sync_now: true,
        next_run: now,
        ..user
    };
    tx.move_save_request(&asked).await.map_err(|e| store_problem(&e))
}

impl Turn {
    /// Counts what is reported now; returns it with the score.
    pub(super) async fn assess(&mut self, importer: &Importer) -> Result<(Vec<ReportItem>, Assessment), Trouble> {
        let items = importer.reported_items().await?;
        self.user.figures.findings = findings_of(&items);
        let assessment = self.user.figures.assessment();
        Ok((items, assessment))
    }

    /// Items that the target does not hold as the source does wait for approval, unless the score lets them pass; looked at
    /// before the lock, and again under it.
    pub(super) async fn check_approvals(&mut self, importer: &Importer) -> Result<Assessment, Trouble> {
        let (items, assessment) = self.assess(importer).await?;
        let until = approved_until(&self.user, &self.batch);
        let mut open = items.iter().filter(|item| {
            let counts = is_exception(item.kind) || assessment.metadata_counts;
            counts && !approval_of(&assessment, item, until).passes()
        });
        let Some(first) = open.next() else {
            return Ok(assessment);
        };
        let count = 1 + open.count();
        let address = &self.user.email_address;
        let whose = match assessment.score {
            DataConsistencyScore::Poor => {
                " His data consistency score is Poor, so that an approval on the batch does not reach him."
            }
            DataConsistencyScore::Perfect | DataConsistencyScore::Good | DataConsistencyScore::Investigate => "",
        };
        Err(Trouble::of(
            Problem::new(
                ErrorId::SkippedItemsNotApproved,
                format!(
                    "{count} items are not in the target as they are in the source; the first is uid {} of folder {}: {}.{whose}",
                    first.uid,
                    first.folder.join("/"),
                    first.reason
                ),
                format!(
                    "Look at Get-MigrationUserStatistics {address} -IncludeSkippedItems. Mend the cause and Set-MigrationUser {address} -RetrySkippedItems, or Set-MigrationUser {address} -ApproveSkippedItems.",
                ),
            ),
            Retry::After(60),
        ))
    }

    /// What a sync does with reported items, and the request that it answers.
    pub(super) async fn retries(&self, kind: PassKind) -> Result<(SkippedItems, Option<Timestamp>), Trouble> {
        let mut tx = self.target.inner.store.read().await?;
        let asked = tx.retry_asked(self.user.tenant, self.user.id).await?;
        let skipped = match (kind, asked) {
            (PassKind::Initial | PassKind::Incremental, Some(_)) => SkippedItems::TryAltered,
            (PassKind::Initial | PassKind::Incremental, None) => SkippedItems::Try,
            (PassKind::Final, _) => SkippedItems::Leave,
        };
        Ok((skipped, asked))
    }
}

/// The reason that goes to the source and into the receipt.
pub(super) fn stated_reason(assessment: &Assessment, kind: ExceptionKind, reason: Option<String>) -> Option<String> {
    match kind {
        ExceptionKind::Flags | ExceptionKind::Date if !assessment.metadata_counts => {
            let reason = reason.unwrap_or_default();
            Some(crate::receipt::bounded_reason(&format!("{BY_RULE}{reason}")))
        }
        ExceptionKind::Skipped | ExceptionKind::Altered | ExceptionKind::Flags | ExceptionKind::Date => reason,
    }
}

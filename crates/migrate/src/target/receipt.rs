//! Receipts at the target: made from the ledger once Commit was answered, before any sweep adds to it; and what each later
//! sweep brought.

use super::{
    mover::Turn,
    partner::{Connected, MailboxRef},
    trouble::Trouble,
};
use crate::{
    ledger::Chunks,
    protocol::ReceiptRequest,
    receipt::{Parts, ReceiptFailure, Receipts, accounted, bounded_reason},
    source::says,
};
use rehome_domain::{
    consent::return_client,
    id::{AttemptId, TenantId},
};
use rehome_identity::{
    Identity,
    statement::{ReadReceipt, ReceiptStatement},
};
use rehome_replicate::{
    ExceptionKind, Importer, ReportKind, SweepFolder, TargetRoot,
    receipt::{LeafTotals, leaves_of, swept_leaves_of},
};
use rehome_store::{ReceiptRow, ReceiptSide, TargetAttempt};
use std::{collections::HashMap, sync::Arc};

/// The step that every write of leaves is.
const STEP: &str = "target.receipt_leaves";

/// Why items are exceptions, by folder, uid and kind.
pub(super) type Reasons = HashMap<(Vec<String>, u32, ExceptionKind), String>;

/// The reasons of a root's exceptions, as the report gives them.
pub(super) async fn reasons(importer: &Importer, root: &TargetRoot) -> Result<Reasons, Trouble> {
    if root.exceptions.is_empty() {
        return Ok(Reasons::new());
    }
    let items = importer.report().await?.items.into_iter();
    let reasons = items.filter_map(|item| {
        let kind = match item.kind {
            ReportKind::Skipped => ExceptionKind::Skipped,
            ReportKind::Altered => ExceptionKind::Altered,
            ReportKind::Flags => ExceptionKind::Flags,
            ReportKind::Date => ExceptionKind::Date,
            ReportKind::LineEnds | ReportKind::Keywords | ReportKind::Double => return None,
        };
        Some(((item.folder, item.uid, kind), bounded_reason(&item.reason)))
    });
    Ok(reasons.collect())
}

impl super::Target {
    /// Signs receipts with the keys of this authority from now on; without one no receipts are made.
    pub fn sign_receipts(&self, identity: Identity) {
        // The first one stays.
        let _ = self.inner.identity.set(identity);
    }
}

impl Turn {
    fn receipts(&self) -> Option<Receipts> {
        let inner = &self.target.inner;
        let identity = inner.identity.get()?.clone();
        let (store, platforms) = (inner.store.clone(), inner.platforms.clone());
        Some(Receipts::new(store, identity, platforms, inner.clock.clone()))
    }

    fn ledger(&self) -> Arc<Chunks> {
        let store = self.target.inner.store.clone();
        Arc::new(Chunks::ledger(store, self.user.tenant, self.user.id, self.user.fence))
    }

    /// Makes the receipt of an attempt that the source has committed, and exchanges statements with it. Whatever fails here
    /// is written to the log and tried again with the next sweep: the move has come to its end without it.
    pub(super) async fn make_receipt(&self, connected: &Connected, mailbox: MailboxRef, attempt: &TargetAttempt) {
        let Some(receipts) = self.receipts() else { return };
        let made = async {
            let mut tx = self.target.inner.store.read().await?;
            let held = tx.receipt_get(self.user.tenant, attempt.id, 0).await?;
            drop(tx);
            match held {
                Some(_) => Ok(()),
                None => self.collect(&receipts, attempt, connected.tenant).await,
            }
        };
        match made.await {
            Ok(()) => self.exchange_receipts(connected, mailbox, attempt.id).await,
            Err(error) => self.log_failure(&error),
        }
    }

    fn log_failure(&self, error: &ReceiptFailure) {
        tracing::error!(error = crate::error_chain(error), user = self.user.email_address, move_id = %self.user.id, "the receipt could not be made");
    }

    async fn collect(
        &self,
        receipts: &Receipts,
        attempt: &TargetAttempt,
        partner: TenantId,
    ) -> Result<(), ReceiptFailure> {
        let damaged = |why: String| ReceiptFailure::Damaged {
            attempt: attempt.id,
            why,
        };
        let store = &self.target.inner.store;
        let mut parts = Parts::begin(store, self.user.tenant, (attempt.id, 0), STEP).await?;
        let totals = leaves_of(self.ledger(), &mut parts)
            .await
            .map_err(|error| damaged(crate::error_chain(&error)))?;
        if attempt.root != Some(totals.root.0) {
            let mut tx = store.write().await?;
            tx.receipt_begin(self.user.tenant, attempt.id, 0).await?;
            tx.commit(STEP).await?;
            return Err(damaged(
                "the ledger does not make the root that was proven any more".to_owned(),
            ));
        }
        let exceptions = attempt.exceptions.clone().unwrap_or_else(|| "[]".to_owned());
        let row = self.receipt_row(attempt.id, 0, partner, &totals, exceptions);
        if let Some(row) = row {
            parts.finish(&row).await?;
            receipts.sign(row).await?;
        }
        Ok(())
    }

    fn receipt_row(
        &self,
        attempt: AttemptId,
        number: u32,
        partner_tenant: TenantId,
        totals: &LeafTotals,
        exceptions: String,
    ) -> Option<ReceiptRow> {
        Some(ReceiptRow {
            tenant: self.user.tenant,
            attempt,
            number,
            side: ReceiptSide::Target,
            move_id: self.user.id,
            exchange_guid: self.user.exchange_guid?,
            address: self.user.email_address.clone(),
            partner_tenant,
            root: totals.root.0,
            folders: totals.folders,
            items: totals.items,
            octets: totals.octets,
            exceptions,
            made: Some(self.now()),
            own_statement: None,
            partner_statement: None,
        })
    }

    /// Gives the source our statement and gets its own, unless it is there already. A source that gives none leaves the
    /// receipt with our signature alone.
    pub(super) async fn exchange_receipts(&self, connected: &Connected, mailbox: MailboxRef, attempt: AttemptId) {
        let Some(receipts) = self.receipts() else { return };
        let exchange = async {
            let mut tx = self.target.inner.store.read().await?;
            let held = tx.receipt_get(self.user.tenant, attempt, 0).await?;
            drop(tx);
            let Some(row) = held.filter(|row| row.partner_statement.is_none()) else {
                return Ok(());
            };
            let row = receipts.sign(row).await?;
            let Some(statement) = row.own_statement.clone() else {
                return Ok(());
            };
            let request = ReceiptRequest {
                attempt: attempt.to_string(),
                statement,
            };
            match connected.proxy.receipt(mailbox, &request).await {
                Ok(answer) => self.keep_partner_statement(row, answer.statement).await,
                Err(error) => {
                    tracing::warn!(%error, %attempt, "the source has not signed the receipt; it is asked again with the next sweep");
                    Ok(())
                }
            }
        };
        if let Err(error) = exchange.await {
            self.log_failure(&error);
        }
    }

    async fn keep_partner_statement(&self, row: ReceiptRow, text: String) -> Result<(), ReceiptFailure> {
        let attempt = row.attempt;
        let mut tx = self.target.inner.store.read().await?;
        let client = return_client(row.partner_tenant);
        let principal = tx.service_principal_by_app(row.tenant, client).await?;
        drop(tx);
        // A source whose keys are pinned must have signed with them. Of another one whoever checks the receipt says which
        // keys he trusts; what it says is compared here all the same.
        let stated = match &principal {
            Some(principal) => ReceiptStatement::verify(&text, &principal.pinned_keys, &principal.issuer, self.now()),
            None => ReadReceipt::read(&text).map(|read| read.statement),
        };
        let problem = match stated {
            Ok(stated) if says(&row, &stated) => None,
            Ok(_) => Some("it says something else than what was moved".to_owned()),
            Err(error) => Some(crate::error_chain(&error)),
        };
        if let Some(problem) = problem {
            tracing::error!(%attempt, problem, "the source's statement of the receipt is not kept");
            return Ok(());
        }
        let mut tx = self.target.inner.store.write().await?;
        if let Some(mut stored) = tx.receipt_get(row.tenant, attempt, row.number).await? {
            stored.partner_statement = Some(text);
            tx.receipt_put(&stored).await?;
        }
        tx.commit("target.receipt_statement").await?;
        Ok(())
    }

    /// Adds to the receipt what a sweep was to bring and is here now, under the next number, signed by us alone. Nothing,
    /// where there is no receipt or nothing new. What fails is tried again with the next sweep, to which the source names
    /// the same items.
    pub(super) async fn add_to_receipt(&self, attempt: AttemptId, swept: &[SweepFolder]) {
        let Some(receipts) = self.receipts() else { return };
        let added = async {
            let store = &self.target.inner.store;
            let mut tx = store.read().await?;
            let sections = tx.receipt_sections(self.user.tenant, attempt).await?;
            let Some(last) = sections.last() else { return Ok(()) };
            let (number, partner) = (last.number + 1, last.partner_tenant);
            let accounted = accounted(&mut tx, &sections).await?;
            drop(tx);
            let mut parts = Parts::begin(store, self.user.tenant, (attempt, number), STEP).await?;
            let totals = swept_leaves_of(self.ledger(), swept, &accounted, &mut parts).await;
            let totals = totals.map_err(|error| ReceiptFailure::Damaged {
                attempt,
                why: crate::error_chain(&error),
            })?;
            let row = self.receipt_row(attempt, number, partner, &totals, "[]".to_owned());
            if let Some(row) = row.filter(|row| row.items > 0) {
                parts.finish(&row).await?;
                receipts.sign(row).await?;
            }
            Ok(())
        };
        if let Err(error) = added.await {
            self.log_failure(&error);
        }
    }
}

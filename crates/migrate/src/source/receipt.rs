//! Receipts at the source: the leaves are kept when it promises, its statement is signed once it has committed.

use super::{ProxyError, Source, VerbContext, cutover::asker};
use crate::{
    protocol::{ExceptionBody, ReceiptAnswer, ReceiptRequest},
    receipt::{Parts, ReceiptBody, Receipts, exceptions_of},
};
use rehome_domain::{consent::ServicePrincipal, error_id::ErrorId, gate::Verb, recipient::Recipient};
use rehome_identity::{Identity, statement::ReceiptStatement};
use rehome_replicate::SourceRoot;
use rehome_store::{ReceiptRow, ReceiptSide};
use rehome_wire::{
    digest::Digest,
    receipt::{ReceiptException, exceptions_root},
};

/// The step that every write of leaves is.
const STEP: &str = "source.receipt_leaves";

impl Source {
    /// Signs receipts with the keys of this authority from now on; without one they stay unsigned.
    pub fn sign_receipts(&self, identity: Identity) {
        // The first one stays.
        let _ = self.inner.identity.set(identity);
    }

    /// Where the leaves of the attempt that is being prepared go.
    pub(super) async fn receipt_begin(&self, ctx: &VerbContext) -> Result<Parts, ProxyError> {
        let attempt = asker(ctx)?.attempt;
        Ok(Parts::begin(&self.inner.store, ctx.tenant, (attempt, 0), STEP).await?)
    }

    /// Keeps what a promise is about to be given for. It becomes a receipt with Commit, and goes with an Abort.
    pub(super) async fn receipt_keep(
        &self,
        ctx: &VerbContext,
        recipient: &Recipient,
        (leaves, root): (Parts, &SourceRoot),
        exceptions: &[ExceptionBody],
    ) -> Result<(), ProxyError> {
        let row = ReceiptRow {
            tenant: ctx.tenant,
            attempt: asker(ctx)?.attempt,
            number: 0,
            side: ReceiptSide::Source,
            move_id: ctx.move_id,
            exchange_guid: ctx.mailbox,
            address: recipient
                .primary_smtp_address()
                .map_or_else(|| recipient.name.clone(), ToString::to_string),
            partner_tenant: ctx.caller.home_tenant,
            root: root.root.0,
            folders: root.folders,
            items: root.items,
            octets: root.octets,
            exceptions: serde_json::to_string(exceptions).map_err(|e| ProxyError::passing(&e))?,
            made: None,
            own_statement: None,
            partner_statement: None,
        };
        Ok(leaves.finish(&row).await?)
    }

    /// Takes the target's statement of a committed attempt, checked with its pinned keys, and gives the source's. Repeating
    /// gives the same one.
    ///
    /// # Errors
    /// [`ProxyError`]: nothing was committed, the target's statement is not one, or it says something else than the source
    /// knows.
    pub async fn receipt(&self, ctx: &VerbContext, request: &ReceiptRequest) -> Result<ReceiptAnswer, ProxyError> {
        // As harmless as Status: whoever committed may ask what he committed.
        let admitted = self.admit(ctx, Verb::Status).await?;
        let attempt = asker(ctx)?.attempt;
        let none = || ProxyError::refused(ErrorId::InvalidOperation, "The source has no receipt of this attempt.");
        let mut tx = self.inner.store.read().await?;
        let row = tx.receipt_get(ctx.tenant, attempt, 0).await?;
        drop(tx);
        let about = |row: &ReceiptRow| {
            row.made.is_some()
                && row.side == ReceiptSide::Source
                && (row.move_id, row.exchange_guid) == (ctx.move_id, ctx.mailbox)
        };
        let row = row.filter(about).ok_or_else(none)?;
        let identity = self.inner.identity.get().ok_or_else(none)?;
        if row.partner_statement.is_none() {
            let principal = admitted.facts.principal.as_ref().ok_or_else(none)?;
            self.keep_partner_statement(&row, principal, &request.statement).await?;
        }
        let inner = &self.inner;
        let receipts = Receipts::new(
            inner.store.clone(),
            identity.clone(),
            inner.platforms.clone(),
            inner.clock.clone(),
        );
        let signed = receipts.sign(row).await.map_err(|error| ProxyError::passing(&error))?;
        let statement = signed.own_statement.ok_or_else(none)?;
        Ok(ReceiptAnswer { statement })
    }

    async fn keep_partner_statement(
        &self,
        row: &ReceiptRow,
        principal: &ServicePrincipal,
        text: &str,
    ) -> Result<(), ProxyError> {
        let refused = |why: String| ProxyError::refused(ErrorId::ParameterBinding, why);
        let now = self.inner.clock.now();
        let stated = ReceiptStatement::verify(text, &principal.pinned_keys, &principal.issuer, now)
            .map_err(|error| refused(format!("{}.", crate::error_chain(&error))))?;
        if !says(row, &stated) {
            return Err(refused(
                "The target's statement says something else than the source knows of this move.".to_owned(),
            ));
        }
        let mut tx = self.inner.store.write().await?;
        if let Some(mut stored) = tx.receipt_get(row.tenant, row.attempt, row.number).await? {
            stored.partner_statement = Some(text.to_owned());
            tx.receipt_put(&stored).await?;
        }
        tx.commit("source.receipt_statement").await?;
        Ok(())
    }
}

/// Whether a partner's statement is about this receipt and names the same roots and counts.
pub(crate) fn says(row: &ReceiptRow, stated: &ReceiptStatement) -> bool {
    let (source, target, side) = match row.side {
        ReceiptSide::Source => (row.tenant, row.partner_tenant, ReceiptSide::Target),
        ReceiptSide::Target => (row.partner_tenant, row.tenant, ReceiptSide::Source),
    };
    let (Ok(body), Some(exceptions)) = (
        serde_json::from_value::<ReceiptBody>(stated.body.clone()),
        exceptions_of(&row.exceptions),
    ) else {
        return false;
    };
    let mut octets: Vec<Vec<u8>> = exceptions.iter().map(ReceiptException::octets).collect();
    let ids = (stated.move_id, stated.attempt, stated.exchange_guid) == (row.move_id, row.attempt, row.exchange_guid);
    ids && (stated.source_tenant, stated.target_tenant) == (source, target)
        && (body.side.as_str(), body.number) == (side.as_str(), row.number)
        && body.root == Digest(row.root).to_string()
        && body.exceptions_root == exceptions_root(&mut octets).to_string()
        && (body.folders, body.items, body.octets) == (row.folders, row.items, row.octets)
}

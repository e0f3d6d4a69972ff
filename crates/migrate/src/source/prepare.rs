//! Prepare at the source: what is checked before the source promises to wait for the outcome.

use super::{
    ProxyError, Source, VerbContext,
    admit::{Admitted, Facts, load, partner_entry},
    content::{export_error, mailbox_of},
    cutover::{asker, refusal_error},
    lock::QUIET_WITHIN,
};
use crate::protocol::{ExceptionBody, PrepareAnswer, PrepareRequest};
use base64::{Engine, engine::general_purpose::STANDARD};
use rehome_domain::{
    address::{LegacyExchangeDn, SmtpAddress},
    conversion::Promise,
    cutover::{SourceAsker, SourceEvent, SourcePhase, SourceRefusal},
    error_id::ErrorId,
    gate::Verb,
    id::{RecipientId, TenantId},
};
use rehome_platform::Place;
use rehome_replicate::{Exception, Exporter, RootListing};
use rehome_routing::ProbeError;
use rehome_store::{SourceAttemptRow, StoreError, Tx};
use rehome_wire::digest::Digest;

impl Source {
    /// Promises durably to wait for the outcome, after roots, addresses and lease were found good.
    ///
    /// # Errors
    /// [`ProxyError`] with `RootMismatchException`, `RoutingAddressNotAcceptedException`, `LeaseLapsedException` and others.
    pub async fn prepare(&self, ctx: &VerbContext, request: &PrepareRequest) -> Result<PrepareAnswer, ProxyError> {
        let admitted = self.admit(ctx, Verb::Prepare).await?;
        let asker = asker(ctx)?;
        let offer = Offer::read(request)?;
        let newest = admitted.facts.newest.as_ref();
        let now = self.inner.clock.now();
        let event = SourceEvent::Prepare {
            same: newest.is_none_or(|n| offer.is_promised(n)),
        };
        let attempt = self
            .next_state(newest, &asker, event, now)
            .map_err(|r| refusal_error(r, now))?;
        if newest.is_some_and(|n| n.attempt == attempt) {
            return Ok(PrepareAnswer {
                root: offer.root.to_string(),
            });
        }
        if !request.read_back {
            return Err(ProxyError::refused(
                ErrorId::ReadBackRequired,
                "The target has not read back what it appended, so nothing is proven.",
            ));
        }
        // Before the probe: only a domain that the partner has published is asked about.
        let mut tx = self.inner.store.read().await?;
        check_addresses(&mut tx, ctx, &admitted.facts, &offer.promise).await?;
        drop(tx);
        self.probe(ctx, &offer.promise.routing_address).await?;
        // One at a time: a second Prepare of the attempt must not replace the listing that sweeps are measured against.
        let Some(_alone) = self.inner.preparing.begin(asker.attempt) else {
            return Err(ProxyError::again(
                ErrorId::CommunicationErrorTransient,
                "This attempt is being prepared.",
                2,
            ));
        };
        // Locked is stored before it is quiet: a Prepare that does not wait for Lock's answer, or comes after a crash in
        // between, must not find a mailbox that is still written to.
        if !self.inner.quiet.holds(asker.attempt) {
            let place = Place::from(mailbox_of(admitted.recipient()?)?);
            self.inner.platforms.quiesce(&place, QUIET_WITHIN).await?;
            self.inner.quiet.note(asker.attempt);
        }
        let (exporter, listing) = self.check_root(ctx, &admitted, request, offer.root).await?;
        exporter.remember_root(listing).await.map_err(|e| export_error(&e))?;
        self.promise(ctx, &asker, request, &offer).await
    }

    /// Stores the promise. The gate and the addresses are looked at once more in its transaction: the probe and the root took time.
    async fn promise(
        &self,
        ctx: &VerbContext,
        asker: &SourceAsker,
        request: &PrepareRequest,
        offer: &Offer,
    ) -> Result<PrepareAnswer, ProxyError> {
        let exceptions = serde_json::to_string(&request.exceptions).map_err(|e| ProxyError::passing(&e))?;
        let mut tx = self.inner.store.write().await?;
        let now = self.inner.clock.now();
        let facts = load(&mut tx, ctx.tenant, ctx.caller.service_principal, ctx.mailbox, now).await?;
        facts
            .ask(ctx, Verb::Prepare, now)
            .map_err(|refusal| ProxyError::refused(refusal.id, refusal.partner_text))?;
        check_addresses(&mut tx, ctx, &facts, &offer.promise).await?;
        let event = SourceEvent::Prepare {
            same: facts.newest.as_ref().is_none_or(|n| offer.is_promised(n)),
        };
        let attempt = self
            .next_state(facts.newest.as_ref(), asker, event, now)
            .map_err(|r| refusal_error(r, now))?;
        let Some(mut row) = facts.newest else {
            return Err(refusal_error(SourceRefusal::Stale, now));
        };
        if row.attempt != attempt {
            row.attempt = attempt;
            row.prepared_at = Some(now);
            row.root = Some(offer.root.0);
            row.exceptions = Some(exceptions);
            row.routing_address = Some(offer.promise.routing_address.to_string());
            row.legacy_exchange_dn = Some(offer.promise.target_legacy_exchange_dn.to_string());
            row.outcome_key = Some(offer.outcome_key.clone());
            tx.source_attempt_update(&row).await?;
            let parameters = serde_json::json!({
                "attempt": asker.attempt.to_string(), "root": offer.root.to_string(), "routing_address": request.routing_address,
                "legacy_exchange_dn": request.legacy_exchange_dn, "exceptions": request.exceptions.len(),
            });
            tx.audit_append(ctx.tenant, &partner_entry(ctx, "Prepare", parameters, "ok", now))
                .await?;
            tx.commit("source.prepare").await?;
        }
        Ok(PrepareAnswer {
            root: offer.root.to_string(),
        })
    }

    /// Whether the routing address's next hop takes mail for it, asked from here.
    async fn probe(&self, ctx: &VerbContext, address: &SmtpAddress) -> Result<(), ProxyError> {
        let no = |text: String| ProxyError::refused(ErrorId::RoutingAddressNotAccepted, text);
        match self.inner.routing.probe(address).await {
            Ok(outcome) if outcome.is_ourselves && outcome.tenant_here.is_none_or(|t| t == ctx.tenant) => Err(no(
                format!("The next hop of {address} is the source itself, so mail would go round."),
            )),
            Ok(outcome) if outcome.accepted => Ok(()),
            Ok(outcome) => {
                let text = format!("The next hop of {address} does not accept it: {}.", outcome.reply);
                let retry_after = outcome.transient.then_some(60);
                Err(ProxyError {
                    retry_after,
                    ..no(text)
                })
            }
            Err(error) => Err(probe_error(address, &error)),
        }
    }

    async fn check_root(
        &self,
        ctx: &VerbContext,
        admitted: &Admitted,
        request: &PrepareRequest,
        theirs: Digest,
    ) -> Result<(Exporter, RootListing), ProxyError> {
        let exceptions = exceptions_from(&request.exceptions)?;
        let exporter = self.exporter(ctx, admitted.recipient()?).await?;
        // What the receipt will prove, should this be the root that is promised for.
        let mut leaves = self.receipt_begin(ctx).await?;
        let (ours, listing) = exporter
            .source_root_with_leaves(&exceptions, true, Some(&mut leaves))
            .await
            .map_err(|e| export_error(&e))?;
        if ours.root == theirs {
            self.receipt_keep(ctx, admitted.recipient()?, (leaves, &ours), &request.exceptions)
                .await?;
            Ok((exporter, listing))
        } else {
            tracing::warn!(correlation = %ctx.correlation, mailbox = %ctx.mailbox, %theirs, ours = %ours.root, "root mismatch");
            // A new final pass may find what changed; the number of locks a day bounds how often.
            Err(ProxyError::again(
                ErrorId::RootMismatch,
                // The source's own root stays in its log: who is told it could give it back as his.
                format!(
                    "The contents on the two sides do not prove equal over {} items; the source's log has both roots under this correlation id.",
                    ours.items
                ),
                60,
            ))
        }
    }
}

/// What a Prepare offers, read.
struct Offer {
    root: Digest,
    promise: Promise,
    outcome_key: Vec<u8>,
}

impl Offer {
    fn read(request: &PrepareRequest) -> Result<Self, ProxyError> {
        let bad = |what: &str| ProxyError::refused(ErrorId::ParameterBinding, format!("The {what} cannot be read."));
        let key = STANDARD
            .decode(&request.outcome_key)
            .ok()
            .filter(|k| (16..=64).contains(&k.len()));
        Ok(Self {
            root: request.root.parse().map_err(|_| bad("root"))?,
            promise: Promise {
                routing_address: request
                    .routing_address
                    .parse()
                    .map_err(|e| ProxyError::refused(ErrorId::RoutingAddressNotAccepted, format!("{e}.")))?,
                target_legacy_exchange_dn: request
                    .legacy_exchange_dn
                    .parse()
                    .map_err(|e| ProxyError::refused(ErrorId::LegacyExchangeDnNotAccepted, format!("{e}.")))?,
            },
            outcome_key: key.ok_or_else(|| bad("outcome key"))?,
        })
    }

    /// Whether the attempt holds exactly this promise, or none yet.
    fn is_promised(&self, row: &SourceAttemptRow) -> bool {
        match row.attempt.phase {
            SourcePhase::Prepared => {
                row.root == Some(self.root.0)
                    && row.routing_address == Some(self.promise.routing_address.to_string())
                    && row.legacy_exchange_dn.as_deref() == Some(self.promise.target_legacy_exchange_dn.as_str())
            }
            SourcePhase::Locked
            | SourcePhase::Committed
            | SourcePhase::Released
            | SourcePhase::Returned
            | SourcePhase::Aborted
            | SourcePhase::Lapsed
            | SourcePhase::Reopened => true,
        }
    }
}

/// What trust asks of the routing address and the LegacyExchangeDN before the source promises to stamp them.
async fn check_addresses(tx: &mut Tx, ctx: &VerbContext, facts: &Facts, promise: &Promise) -> Result<(), ProxyError> {
    let no = |text: String| ProxyError::refused(ErrorId::RoutingAddressNotAccepted, text);
    let domain = promise.routing_address.domain();
    let published = facts
        .principal
        .as_ref()
        .is_some_and(|p| p.home_domains.iter().any(|d| d.eq_ignore_ascii_case(domain.as_str())));
    if !published {
        return Err(no(format!(
            "{domain} is not a domain that the target organisation published when consent was given."
        )));
    }
    if tx
        .accepted_domain_list(ctx.tenant)
        .await?
        .iter()
        .any(|d| d.name == *domain)
    {
        return Err(no(format!(
            "{domain} is an accepted domain of the source organisation."
        )));
    }
    let dn = &promise.target_legacy_exchange_dn;
    let own = facts.recipient.as_ref().map(|r| r.id);
    let promised = tx.source_promise_names(ctx.tenant, dn.as_str(), ctx.mailbox).await?;
    if promised || others_answer_for(tx, ctx.tenant, dn, own).await? {
        return Err(ProxyError::refused(
            ErrorId::LegacyExchangeDnNotAccepted,
            format!("{dn} belongs to another recipient of the source organisation."),
        ));
    }
    Ok(())
}

/// Whether a recipient other than `own` has this LegacyExchangeDN or answers for it.
pub(super) async fn others_answer_for(
    tx: &mut Tx,
    tenant: TenantId,
    dn: &LegacyExchangeDn,
    own: Option<RecipientId>,
) -> Result<bool, StoreError> {
    let mut holders = tx.recipients_by_legacy_exchange_dn(tenant, dn.as_str()).await?;
    holders.extend(tx.recipient_by_proxy(tenant, &dn.as_x500().key()).await?);
    Ok(holders.iter().any(|r| Some(r.id) != own))
}

fn probe_error(address: &SmtpAddress, error: &ProbeError) -> ProxyError {
    tracing::warn!(
        error = crate::error_chain(error),
        "a routing address could not be probed"
    );
    ProxyError {
        id: ErrorId::RoutingAddressNotAccepted,
        message: format!("The next hop of {address} could not be reached from the source: {error}."),
        retry_after: Some(60),
    }
}

/// Reads the exceptions; each must be of a known kind and approved at the target.
fn exceptions_from(bodies: &[ExceptionBody]) -> Result<Vec<Exception>, ProxyError> {
    bodies
        .iter()
        .map(|body| {
            if !body.approved {
                return Err(ProxyError::refused(
                    ErrorId::SkippedItemsNotApproved,
                    format!(
                        "Item {} of folder {} differs and was not approved at the target.",
                        body.uid,
                        body.folder.join("/")
                    ),
                ));
            }
            body.read().ok_or_else(|| {
                ProxyError::refused(
                    ErrorId::ParameterBinding,
                    format!(
                        "The exception of item {} of folder {} cannot be read.",
                        body.uid,
                        body.folder.join("/")
                    ),
                )
            })
        })
        .collect()
}

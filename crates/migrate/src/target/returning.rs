//! The way back: `Undo-MigrationUser` at either side, and what a move back does before its first pass.

use super::{
    Target,
    control::{NewBatch, batch_create},
    mover::Turn,
    partner::{Connected, MailboxRef, PartnerAddress, SourceProxy},
    trouble::Trouble,
};
use crate::{
    ledger::Chunks,
    protocol::{OpenAnswer, PairsRequest},
};
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use rehome_domain::{
    consent::{KeyPurpose, ROLE_MAILBOX_RETURN, ServicePrincipal, return_client},
    cutover::{LockLimits, LockUse, SourceAsker, SourceEvent, SourcePhase, source_next},
    error_id::{ErrorId, Problem},
    id::{CorrelationId, EndpointId, ServicePrincipalId, TenantId},
    moves::Move,
    recipient::{Recipient, RecipientKind},
};
use rehome_identity::authority::parse_issuer;
use rehome_mailbox::Retry;
use rehome_platform::{Place, PlatformError};
use rehome_replicate::{LinkError, PairSource, PairsFrom, PairsPage, begin_return};
use rehome_store::{AuditEntry, CommitRecord, ReturnRow, SourceAttemptRow, StoreError, Tx};
use std::sync::Arc;

/// The endpoint of batches that bring mailboxes back: there is none, the consent says where the partner is.
pub const NO_ENDPOINT: EndpointId = EndpointId::from_u128(0);
/// What a partner said of himself is asked for again after this time.
const DESCRIPTION_LASTS: SignedDuration = SignedDuration::from_hours(24);
/// Longest name of a batch, characters.
const MAX_NAME: usize = 64;

/// What `Undo-MigrationUser` asks for at the old source.
#[derive(Clone, Debug)]
pub struct NewReturn {
    /// The old source.
    pub tenant: TenantId,
    /// Complete from this time on; as soon as it is synced without one.
    pub complete_after: Option<Timestamp>,
    /// Complete also where nothing keeps the mailbox quiet.
    pub accept_unlocked: bool,
    /// Who asks.
    pub submitted_by: String,
}

fn store_failed(error: &StoreError) -> Problem {
    tracing::error!(error = crate::error_chain(error), "the store failed");
    Problem::new(
        ErrorId::Unexpected,
        format!("{error}; the server's log has the cause."),
        "",
    )
}

fn ended(name: &str, until: Timestamp) -> Problem {
    Problem::new(
        ErrorId::ReturnPeriodEnded,
        format!("The time in which '{name}' may be taken back ended at {until}."),
        "Move it as any other mailbox: the organisation that has it now publishes it to this one.",
    )
}

/// At the organisation that has the mailbox now: approves that the old source takes it back, until retention ends there.
///
/// # Errors
/// Why it cannot be taken back, with the next step.
pub async fn return_approve(
    tx: &mut Tx,
    tenant: TenantId,
    recipient: &Recipient,
    by: &str,
    now: Timestamp,
) -> Result<CommitRecord, Problem> {
    let name = &recipient.name;
    let missing = |message: String| {
        Problem::new(
            ErrorId::ReturnRightMissing,
            message,
            "Move it as any other mailbox, with a batch of the other organisation.",
        )
    };
    let RecipientKind::Mailbox(mailbox) = &recipient.kind else {
        return Err(missing(format!("'{name}' is no mailbox of this organisation.")));
    };
    let record = tx
        .commit_record_newest(tenant, mailbox.exchange_guid)
        .await
        .map_err(|e| store_failed(&e))?
        .ok_or_else(|| missing(format!("No recorded commit brought the mailbox '{name}' here.")))?;
    if now >= record.retention_until {
        return Err(ended(name, record.retention_until));
    }
    let principal = tx
        .service_principal_get(tenant, record.service_principal)
        .await
        .map_err(|e| store_failed(&e))?;
    if !principal.is_some_and(|principal| principal.in_force(now)) {
        return Err(missing(format!(
            "The right of the organisation from which '{name}' came to take it back was withdrawn here."
        )));
    }
    if mailbox.litigation_hold {
        return Err(Problem::new(
            ErrorId::MailboxOnHold,
            format!("A hold keeps the mailbox '{name}' here."),
            format!("Set-Mailbox '{name}' -LitigationHoldEnabled:false"),
        ));
    }
    tx.commit_record_approve(tenant, record.attempt, by, now)
        .await
        .map_err(|e| store_failed(&e))?;
    Ok(record)
}

/// At the old source: begins the move back of a mailbox that left, from its kept content. It has a batch of its own.
///
/// # Errors
/// Why it cannot be taken back, with the next step.
pub async fn return_begin(
    tx: &mut Tx,
    new: &NewReturn,
    recipient: &Recipient,
    now: Timestamp,
) -> Result<Move, Problem> {
    let left = left_by(tx, new.tenant, recipient, now).await?;
    let address = delivery_address(tx, new.tenant, recipient).await?;
    let batch = NewBatch {
        tenant: new.tenant,
        name: batch_name(tx, new.tenant, &address.to_string()).await?,
        endpoint: NO_ENDPOINT,
        target_delivery_domain: Some(address.domain().clone()),
        addresses: vec![address.to_string()],
        auto_start: true,
        auto_complete: new.complete_after.is_none(),
        complete_after: new.complete_after,
        start_after: None,
        accept_unlocked: new.accept_unlocked,
        submitted_by: new.submitted_by.clone(),
    };
    let batch = batch_create(tx, &batch, now).await?;
    let users = tx
        .move_list(new.tenant, Some(batch.id))
        .await
        .map_err(|e| store_failed(&e))?;
    let user = users.into_iter().next().ok_or_else(|| {
        Problem::new(
            ErrorId::Unexpected,
            "The batch that was made has no user.",
            "Run the command again.",
        )
    })?;
    let row = ReturnRow {
        move_id: user.id,
        ..left
    };
    tx.return_insert(&row).await.map_err(|e| store_failed(&e))?;
    Ok(user)
}

/// The attempt by which a mailbox left, if it may come back now. The move is not made yet.
async fn left_by(tx: &mut Tx, tenant: TenantId, recipient: &Recipient, now: Timestamp) -> Result<ReturnRow, Problem> {
    let name = &recipient.name;
    let missing = |message: String, advice: String| Problem::new(ErrorId::ReturnRightMissing, message, advice);
    let here = || {
        missing(
            format!("'{name}' did not leave this organisation by a move that is recorded here."),
            "Get-OutboundMigration lists what left.".into(),
        )
    };
    let guid = recipient
        .mail_user()
        .and_then(|user| user.exchange_guid)
        .ok_or_else(here)?;
    let newest = tx
        .source_attempt_newest(tenant, guid)
        .await
        .map_err(|e| store_failed(&e))?
        .ok_or_else(here)?;
    let until = newest.retention_until.unwrap_or(Timestamp::MIN);
    match newest.attempt.phase {
        SourcePhase::Committed if newest.content_removed.is_none() => {}
        SourcePhase::Committed | SourcePhase::Released => {
            return Err(Problem::new(
                ErrorId::OldContentGone,
                format!("The old content of '{name}' was kept until {until} and is gone."),
                "Move it as any other mailbox: the organisation that has it now publishes it to this one.",
            ));
        }
        SourcePhase::Locked
        | SourcePhase::Prepared
        | SourcePhase::Aborted
        | SourcePhase::Lapsed
        | SourcePhase::Reopened
        | SourcePhase::Returned => return Err(here()),
    }
    let open = tx.return_is_open(tenant, guid).await.map_err(|e| store_failed(&e))?;
    if open {
        return Err(Problem::new(
            ErrorId::SourceMailboxAlreadyBeingMovedPermanent,
            format!("'{name}' is being brought back already."),
            "Get-MigrationUser shows where that stands.",
        ));
    }
    if now >= until {
        return Err(ended(name, until));
    }
    let principal = tx
        .service_principal_get(tenant, newest.attempt.service_principal)
        .await
        .map_err(|e| store_failed(&e))?;
    if !principal.is_some_and(|principal| principal.return_right) {
        return Err(missing(
            format!("The consent by which '{name}' left does not hold the return right."),
            "Ask the other organisation to publish the mailbox, and move it as any other.".into(),
        ));
    }
    let (Some(platform), Some(location)) = (newest.platform, newest.location) else {
        return Err(here());
    };
    Ok(ReturnRow {
        tenant,
        move_id: newest.attempt.move_id,
        exchange_guid: guid,
        service_principal: newest.attempt.service_principal,
        attempt: newest.attempt.id,
        outbound_move: newest.attempt.move_id,
        platform,
        location,
        retention_until: until,
        filled: false,
        trusts_pairs: true,
    })
}

/// The address at which the other organisation forwards mail once the mailbox is back.
async fn delivery_address(
    tx: &mut Tx,
    tenant: TenantId,
    recipient: &Recipient,
) -> Result<rehome_domain::address::SmtpAddress, Problem> {
    let accepted = tx.accepted_domain_list(tenant).await.map_err(|e| store_failed(&e))?;
    let accepted =
        |address: &&rehome_domain::address::SmtpAddress| accepted.iter().any(|d| d.name == *address.domain());
    let primary = recipient.primary_smtp_address().into_iter();
    primary
        .chain(recipient.smtp_addresses())
        .find(accepted)
        .cloned()
        .ok_or_else(|| {
            Problem::new(
                ErrorId::NotAcceptedDomain,
                format!(
                    "'{}' has no address in an accepted domain of this organisation, so the other one could not forward to it.",
                    recipient.name
                ),
                format!("Set-MailUser '{}' -EmailAddresses …", recipient.name),
            )
        })
}

/// A name that no batch has.
async fn batch_name(tx: &mut Tx, tenant: TenantId, address: &str) -> Result<String, Problem> {
    let taken = tx.batch_list(tenant).await.map_err(|e| store_failed(&e))?;
    let named = |number: usize| {
        let tail = if number == 1 {
            String::new()
        } else {
            format!(" ({number})")
        };
        let head: String = format!("Return of {address}")
            .chars()
            .take(MAX_NAME - tail.len())
            .collect();
        head + &tail
    };
    let free = (1..=taken.len() + 1).map(named).find(|name| {
        let key = name.to_lowercase();
        !taken.iter().any(|batch| batch.name.to_lowercase() == key)
    });
    Ok(free.unwrap_or_else(|| named(taken.len() + 2)))
}

/// Notes in the transaction of the decision that the mailbox is back: the attempt by which it left has ended with that.
pub(super) async fn came_back(tx: &mut Tx, row: &ReturnRow, now: Timestamp) -> Result<(), Trouble> {
    let Some(mut left) = tx.source_attempt_get(row.tenant, row.attempt).await? else {
        return Ok(());
    };
    let asker = SourceAsker {
        attempt: left.attempt.id,
        move_id: left.attempt.move_id,
        service_principal: left.attempt.service_principal,
    };
    let (limits, used) = (LockLimits::default(), LockUse::default());
    let next =
        source_next(Some(&left.attempt), &asker, SourceEvent::CameBack, &limits, &used, now).map_err(|refusal| {
            Trouble::of(
                Problem::new(
                    ErrorId::InvalidOperation,
                    format!("The attempt by which the mailbox left does not stand committed any more ({refusal:?})."),
                    "",
                ),
                Retry::After(60),
            )
        })?;
    left.attempt = next.attempt;
    Ok(tx.source_attempt_update(&left).await?)
}

/// Pairs as the proxy gives them.
struct Pairs {
    proxy: Arc<dyn SourceProxy>,
    mailbox: MailboxRef,
    /// Whether they are asked for at all.
    trusted: bool,
}

#[async_trait]
impl PairSource for Pairs {
    async fn pairs(&self, from: PairsFrom) -> Result<PairsPage, LinkError> {
        if !self.trusted {
            return Ok(PairsPage::default());
        }
        let request = PairsRequest {
            folder: from.folder,
            chunk: from.chunk,
        };
        let unusable = |id: ErrorId, message: String, retry: Retry| LinkError {
            id: id.as_str().to_owned(),
            message,
            scope: rehome_mailbox::ErrorScope::Mailbox,
            retry,
        };
        let answer = self
            .proxy
            .pairs(self.mailbox, request)
            .await
            .map_err(|error| unusable(error.problem.id, error.problem.message, error.retry))?;
        answer.read().ok_or_else(|| {
            unusable(
                ErrorId::MigrationServerConnectionFailed,
                "the partner's pairs cannot be read".to_owned(),
                Retry::After(60),
            )
        })
    }
}

impl Target {
    /// Asks the old source of a mailbox to begin the move back, by the endpoint by which it came.
    ///
    /// # Errors
    /// Why it could not be asked; then its administrator begins.
    pub async fn ask_to_take_back(&self, record: &CommitRecord) -> Result<(), Problem> {
        let gone = || {
            Problem::new(
                ErrorId::ManagementObjectNotFound,
                "The migration user or endpoint by which the mailbox came was removed, so the old organisation cannot be asked from here.",
                "",
            )
        };
        let mut tx = self.inner.store.read().await.map_err(|e| store_failed(&e))?;
        let user = tx
            .move_get(record.tenant, record.move_id)
            .await
            .map_err(|e| store_failed(&e))?
            .ok_or_else(gone)?;
        let batch = tx
            .batch_get(record.tenant, user.batch)
            .await
            .map_err(|e| store_failed(&e))?
            .ok_or_else(gone)?;
        let endpoint = tx
            .endpoint_get(record.tenant, batch.endpoint)
            .await
            .map_err(|e| store_failed(&e))?
            .ok_or_else(gone)?;
        drop(tx);
        let address = self.address_of(&endpoint)?;
        let mailbox = MailboxRef {
            exchange_guid: record.exchange_guid,
            move_id: record.move_id,
            correlation: CorrelationId(uuid::Uuid::new_v4()),
        };
        let partner = &self.inner.partner;
        let connected = partner
            .connect(&address, mailbox.correlation)
            .await
            .map_err(|e| e.problem)?;
        let asked = connected.proxy.take_back(mailbox, record.attempt).await;
        asked.map(|_| ()).map_err(|e| e.problem)
    }
}

impl Turn {
    /// Whom a move back reaches: the authority of the consent by which the mailbox left.
    pub(super) async fn return_address(&self, row: &ReturnRow) -> Result<PartnerAddress, Trouble> {
        let refused = |text: &str, advice: &str| {
            Trouble::of(Problem::new(ErrorId::ReturnRightMissing, text, advice), Retry::Never)
        };
        let mut tx = self.target.inner.store.read().await?;
        let principal = tx.service_principal_get(row.tenant, row.service_principal).await?;
        let principal = principal.filter(|principal| principal.return_right).ok_or_else(|| {
            refused(
                "The consent by which the mailbox left does not hold the return right any more.",
                "Ask the other organisation to publish the mailbox, and move it as any other.",
            )
        })?;
        let Some((origin, tenant)) = parse_issuer(&principal.issuer) else {
            return Err(refused(
                "The issuer of the consent by which the mailbox left cannot be read.",
                "",
            ));
        };
        Ok(PartnerAddress {
            home_tenant: row.tenant,
            remote_server: origin.host_and_port(),
            remote_tenant: tenant.to_string(),
            remote_tenant_id: Some(tenant),
            application_id: return_client(row.tenant),
            secret: String::new().into(),
            returning: true,
        })
    }

    /// Where the mailbox lay, which is where it comes back to.
    pub(super) async fn return_place(&self, row: &ReturnRow) -> Result<Place, Trouble> {
        let mut tx = self.target.inner.store.read().await?;
        let taken = tx.mailbox_at(&row.platform, &row.location).await?;
        if taken.is_some_and(|(_, id)| Some(id) != self.user.recipient) {
            return Err(Trouble::of(
                Problem::new(
                    ErrorId::MailboxPlatform,
                    format!(
                        "Another mailbox is at '{}' on platform '{}' now, where this one lay.",
                        row.location, row.platform
                    ),
                    "Move the other mailbox's contents elsewhere, then Start-MigrationUser.",
                ),
                Retry::Never,
            ));
        }
        Ok(Place {
            exchange_guid: row.exchange_guid,
            platform: row.platform.clone(),
            location: row.location.clone(),
        })
    }

    /// Before the first pass of a move back: the kept content becomes its hidden target, and its ledger says what is
    /// there already. Done once; done again from the beginning after an interruption.
    pub(super) async fn fill_return(&mut self, connected: &Connected, mailbox: MailboxRef) -> Result<(), Trouble> {
        let Some(row) = self.returning.clone().filter(|row| !row.filled) else {
            return Ok(());
        };
        self.check_kept(&row).await?;
        let platforms = self.target.inner.platforms.clone();
        let place = self.return_place(&row).await?;
        self.forget_ledger().await?;
        platforms
            .stage_closed(&place, row.outbound_move, self.user.id)
            .await
            .map_err(kept_trouble)?;
        let kept = platforms.staging(&place, self.user.id).await?;
        let ledger = Chunks::ledger(
            self.target.inner.store.clone(),
            self.user.tenant,
            self.user.id,
            self.user.fence,
        );
        let pairs = Pairs {
            proxy: Arc::clone(&connected.proxy),
            mailbox,
            trusted: row.trusts_pairs,
        };
        let lease = self.lease.clone();
        let may_go_on = move || lease.holds() && !lease.cancelled();
        let found = begin_return(Arc::new(ledger), &*kept, &pairs, &may_go_on).await?;
        drop(kept);
        if !found.usable {
            tracing::warn!(move_id = %self.user.id, "which of the kept items are the partner's cannot be told: everything is copied anew");
            platforms.remove_staging(&place.platform, self.user.id).await?;
            self.forget_ledger().await?;
        }
        tracing::info!(move_id = %self.user.id, paired = found.paired, unpaired = found.unpaired, usable = found.usable, "kept content of a move back");
        self.save_return(ReturnRow { filled: true, ..row }, "target.return_filled")
            .await
    }

    /// After a cutover whose roots differed: if the partner's pairs were used, they are not any more, and the next pass
    /// begins with what our own digests show.
    pub(super) async fn doubt_pairs(&mut self, trouble: &Trouble) -> Result<(), Trouble> {
        let differ = match trouble {
            Trouble::Problems { problems, .. } => problems.iter().any(|p| p.id == ErrorId::RootMismatch),
            Trouble::Rest | Trouble::Store(_) => false,
        };
        let Some(row) = self.returning.clone().filter(|row| differ && row.trusts_pairs) else {
            return Ok(());
        };
        tracing::warn!(move_id = %self.user.id, "the roots of a move back differ: the partner's pairs are not used any more");
        let row = ReturnRow {
            filled: false,
            trusts_pairs: false,
            ..row
        };
        self.save_return(row, "target.return_doubted").await
    }

    async fn save_return(&mut self, row: ReturnRow, step: &'static str) -> Result<(), Trouble> {
        let mut tx = self.target.inner.store.write().await?;
        tx.move_check_fence(self.user.tenant, self.user.id, self.user.fence)
            .await?;
        tx.return_update(&row).await?;
        tx.commit(step).await?;
        self.returning = Some(row);
        Ok(())
    }

    /// Forgets a ledger that is not whole.
    async fn forget_ledger(&self) -> Result<(), Trouble> {
        let mut tx = self.target.inner.store.write().await?;
        tx.move_check_fence(self.user.tenant, self.user.id, self.user.fence)
            .await?;
        tx.chunk_delete_all(self.user.tenant, self.user.id).await?;
        Ok(tx.commit("target.return_begins").await?)
    }

    /// Whether the old content is there, closed.
    async fn check_kept(&self, row: &ReturnRow) -> Result<(), Trouble> {
        let mut tx = self.target.inner.store.read().await?;
        match tx.source_attempt_get(row.tenant, row.attempt).await? {
            Some(SourceAttemptRow {
                content_removed: None,
                closed: true,
                ..
            }) => Ok(()),
            Some(SourceAttemptRow {
                content_removed: None,
                closed: false,
                ..
            }) => Err(Trouble::of(
                Problem::new(ErrorId::MailboxPlatform, "The old content has not been closed yet.", ""),
                Retry::After(5),
            )),
            Some(_) | None => Err(Trouble::of(content_gone(), Retry::Never)),
        }
    }

    /// What is removed with a move back that is given up: its copy of the kept content, never that itself.
    pub(super) async fn remove_return_staging(&self) -> Result<(), Trouble> {
        if let Some(row) = &self.returning {
            self.target
                .inner
                .platforms
                .remove_staging(&row.platform, self.user.id)
                .await?;
        }
        Ok(())
    }

    /// Notes that the source may take the mailbox back, with his keys as they are now: before the lock, so that it costs
    /// nothing under it. The right itself begins with the commit. What cannot be had stops no move.
    pub(super) async fn note_return_right(&self, answer: &OpenAnswer, connected: &Connected) -> Result<(), Trouble> {
        if answer.return_right != Some(true) || self.returning.is_some() {
            return Ok(());
        }
        let tenant = self.user.tenant;
        let now = self.now();
        let mut tx = self.target.inner.store.read().await?;
        let known = tx
            .service_principal_by_app(tenant, return_client(connected.tenant))
            .await?;
        drop(tx);
        if let Some(known) = &known {
            let withdrawn = known.revoked_at.is_some() || !known.is_return_client();
            if withdrawn || now < known.accepted_at + DESCRIPTION_LASTS {
                return Ok(());
            }
        }
        let (address, mailbox) = self.address().await?;
        let said = match self.target.inner.partner.describe(&address, mailbox.correlation).await {
            Ok(said) if said.tenant == connected.tenant => said,
            Ok(_) => return Ok(()),
            Err(error) => {
                tracing::warn!(%error, "the source does not say who it is, so it could not take this mailbox back");
                return Ok(());
            }
        };
        // Keys that no pinned one stands for are not taken.
        let signed = |known: &ServicePrincipal| {
            let pinned = known
                .pinned_keys
                .keys
                .iter()
                .filter(|key| key.purpose == KeyPurpose::Token);
            known.issuer == said.issuer && pinned.map(|key| &key.kid).any(|kid| *kid == said.signer)
        };
        if known.as_ref().is_some_and(|known| !signed(known)) {
            tracing::warn!(
                issuer = said.issuer,
                "the source has other keys than were pinned, so it could not take this mailbox back"
            );
            return Ok(());
        }
        let known_since = known.as_ref().map(|known| known.accepted_at);
        let principal = ServicePrincipal {
            id: known
                .as_ref()
                .map_or_else(|| ServicePrincipalId(uuid::Uuid::new_v4()), |known| known.id),
            tenant,
            display_name: format!("Return to {}", said.home_domains.first().map_or("", String::as_str)),
            issuer: said.issuer,
            home_tenant: connected.tenant,
            app_id: return_client(connected.tenant),
            home_domains: said.home_domains,
            outcome_endpoint: Some(said.outcome_endpoint),
            pinned_keys: said.keys,
            roles: vec![ROLE_MAILBOX_RETURN.to_owned()],
            return_right: false,
            accepted_by: self.batch.submitted_by.clone(),
            accepted_at: now,
            expires_at: known
                .map_or(Timestamp::MIN, |known| known.expires_at)
                .max(now + DESCRIPTION_LASTS),
            revoked_at: None,
        };
        let mut tx = self.target.inner.store.write().await?;
        // Another user's cutover may have noted it meanwhile.
        let meanwhile = tx
            .service_principal_by_app(tenant, return_client(connected.tenant))
            .await?;
        if meanwhile.map(|principal| principal.accepted_at) != known_since {
            return Ok(());
        }
        tx.service_principal_put(tenant, &principal).await?;
        let entry = AuditEntry {
            at: now,
            caller: "service".into(),
            origin: "local".into(),
            action: "Return right".into(),
            object: principal.display_name.clone(),
            parameters: serde_json::json!({"Issuer": principal.issuer, "ServicePrincipal": principal.id.to_string(), "KeySequence": principal.pinned_keys.sequence}),
            result: "ok".into(),
            correlation_id: CorrelationId(uuid::Uuid::new_v4()),
        };
        tx.audit_append(tenant, &entry).await?;
        tx.commit("target.return_right").await?;
        Ok(())
    }

    /// Records in the transaction of Commit's answer that the source may take the mailbox back until it keeps nothing
    /// of it any more.
    pub(super) async fn record_commit(
        &self,
        tx: &mut Tx,
        source: TenantId,
        attempt: rehome_domain::id::AttemptId,
        retention_until: i64,
    ) -> Result<(), Trouble> {
        if self.returning.is_some() {
            return Ok(());
        }
        let tenant = self.user.tenant;
        let principal = tx.service_principal_by_app(tenant, return_client(source)).await?;
        let Some(mut principal) = principal.filter(ServicePrincipal::is_return_client) else {
            return Ok(());
        };
        let Ok(until) = Timestamp::from_millisecond(retention_until) else {
            return Ok(());
        };
        let record = CommitRecord {
            tenant,
            attempt,
            move_id: self.user.id,
            exchange_guid: self.exchange_guid()?,
            service_principal: principal.id,
            committed: self.now(),
            retention_until: until,
            approved_at: None,
            approved_by: None,
        };
        tx.commit_record_insert(&record).await?;
        if principal.expires_at < until {
            principal.expires_at = until;
            tx.service_principal_put(tenant, &principal).await?;
        }
        Ok(())
    }
}

fn content_gone() -> Problem {
    Problem::new(
        ErrorId::OldContentGone,
        "The old content is not kept any more.",
        "Move the mailbox as any other: the organisation that has it now publishes it to this one.",
    )
}

fn kept_trouble(error: PlatformError) -> Trouble {
    match &error {
        PlatformError::Files { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Trouble::of(content_gone(), Retry::Never)
        }
        _ => error.into(),
    }
}

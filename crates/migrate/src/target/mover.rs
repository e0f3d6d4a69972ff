//! One turn of one move: from where its row stands to where it next waits.

use super::{
    Target,
    partner::{Connected, MailboxRef, PartnerAddress, PartnerError},
    worker::{HeldLease, stop_event},
};
use crate::{ledger::Chunks, protocol::OpenAnswer};
use jiff::{SignedDuration, Timestamp};
use rehome_domain::{
    adoption::Territory,
    batch::{BatchIntent, MigrationBatch},
    cutover::TargetPhase,
    endpoint::{EndpointKind, MigrationEndpoint},
    error_id::{ErrorId, Problem},
    id::{CorrelationId, ExchangeGuid},
    moves::{Move, UserEvent, UserStatus},
    readiness::{SourceFacts, TargetFacts, pair_problems, target_problems},
    recipient::Recipient,
};
use rehome_mailbox::{Mailbox, Retry};
use rehome_platform::{Driver, NewMailbox, Place, PlatformError};
use rehome_replicate::{ImportSettings, Importer, PassError, PassKind, Progress, SourceLink};
use rehome_store::{AuditEntry, StoreError};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Longest pause between two tries of a move that a passing failure stopped.
const LONGEST_PAUSE: u32 = 300;

/// One turn: a claimed move with its batch and lease.
pub(super) struct Turn {
    pub(super) target: Target,
    pub(super) user: Move,
    pub(super) batch: MigrationBatch,
    /// The batch's endpoint where it is an IMAP server; read at each step.
    pub(super) imap: Option<MigrationEndpoint>,
    pub(super) lease: HeldLease,
}

/// Why a turn did not get on.
pub(super) enum Trouble {
    /// Stop, shutdown or a lost lease: nothing to record.
    Rest,
    /// Something an administrator reads; tried again as `retry` says.
    Problems {
        problems: Vec<Problem>,
        retry: Retry,
        correlation: Option<CorrelationId>,
    },
    /// The store failed: the turn cannot be recorded.
    Store(StoreError),
}

impl Trouble {
    pub(super) fn of(problem: Problem, retry: Retry) -> Self {
        Self::Problems {
            problems: vec![problem],
            retry,
            correlation: None,
        }
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Stale { .. } => Self::Rest,
            StoreError::Database { .. } => Self::Store(error),
            StoreError::Taken { .. } | StoreError::Unreadable { .. } | StoreError::NewerSchema { .. } => Self::of(
                Problem::new(
                    ErrorId::Unexpected,
                    format!("{}.", crate::error_chain(&error)),
                    "The server's log says more.",
                ),
                Retry::After(60),
            ),
        }
    }
}

impl From<PartnerError> for Trouble {
    fn from(error: PartnerError) -> Self {
        Self::Problems {
            problems: vec![error.problem],
            retry: error.retry,
            correlation: error.correlation,
        }
    }
}

impl From<PlatformError> for Trouble {
    fn from(error: PlatformError) -> Self {
        let retry = error.retry();
        let advice = match retry {
            Retry::Never => "When that is mended, Start-MigrationUser takes the move up where it stood.",
            Retry::Now | Retry::After(_) => {
                "See the server's log; the move resumes by itself when the platform works again."
            }
        };
        Self::of(
            Problem::new(
                ErrorId::MailboxPlatform,
                format!("{}.", crate::error_chain(&error)),
                advice,
            ),
            retry,
        )
    }
}

impl From<PassError> for Trouble {
    fn from(error: PassError) -> Self {
        match &error {
            PassError::LeaseLost | PassError::Cancelled => Self::Rest,
            PassError::Source(_)
            | PassError::Target(_)
            | PassError::Storage(_)
            | PassError::Ledger(_)
            | PassError::Spool { .. }
            | PassError::ItemDigestMismatch { .. }
            | PassError::SourceContentsShrank { .. }
            | PassError::Protocol { .. }
            | PassError::TargetDiffers { .. }
            | PassError::ReadBackRequired => {
                let id = error.error_id().parse().unwrap_or(ErrorId::Unexpected);
                Self::of(Problem::new(id, format!("{error}."), advice_for(id)), error.retry())
            }
        }
    }
}

fn advice_for(id: ErrorId) -> &'static str {
    match id {
        ErrorId::ItemDigestMismatch => {
            "The item was not used. If it happens again, something between the two servers alters data: look at proxies and network cards."
        }
        ErrorId::SourceContentsShrank => {
            "Ask the source's administrator whether the mailbox lost its contents, for example by a missing mount. The move goes on when two listings agree."
        }
        ErrorId::ReadBackRequired => {
            "Remove read_back = \"off\" from [replication] in the configuration of this deployment and restart it."
        }
        ErrorId::ImapAuthentication => {
            "Test-MigrationServerAvailability with the endpoint and -TestMailbox shows whether the server lets us in."
        }
        _ => "",
    }
}

/// Reads the source's facts.
pub(super) fn source_facts(answer: &OpenAnswer) -> Result<SourceFacts, Problem> {
    let bad = |what: &str| {
        Problem::new(
            ErrorId::MigrationServerConnectionFailed,
            format!("The source answered with {what} that cannot be read."),
            "",
        )
    };
    Ok(SourceFacts {
        exchange_guid: answer.exchange_guid.parse().map_err(|_| bad("an ExchangeGuid"))?,
        legacy_exchange_dn: answer.legacy_exchange_dn.clone(),
        x500_addresses: answer.x500_addresses.clone(),
        smtp_addresses: answer.smtp_addresses.iter().filter_map(|a| a.parse().ok()).collect(),
        archive_guid: answer
            .archive_guid
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(|_| bad("an ArchiveGuid"))?,
    })
}

/// What was copied belongs to the mailbox of one ExchangeGuid and is never taken for another's.
pub(super) fn guid_changed(address: &str) -> Trouble {
    Trouble::of(
        Problem::new(
            ErrorId::InvalidOperation,
            format!("The mail user of {address} got another ExchangeGuid after his contents began to be copied."),
            format!("Set the ExchangeGuid back, or Remove-MigrationUser {address} and add him in a new batch."),
        ),
        Retry::Never,
    )
}

/// Whether there is more to do at once.
enum Next {
    Again,
    Rest,
}

impl Turn {
    /// Works until the move waits, ends or is asked to rest. Everything is recorded in its row.
    pub(super) async fn run(mut self) -> Result<(), StoreError> {
        loop {
            match self.once().await {
                Ok(Next::Again) => {}
                Ok(Next::Rest) | Err(Trouble::Rest) => return Ok(()),
                Err(Trouble::Store(error)) => return Err(error),
                Err(Trouble::Problems {
                    problems,
                    retry,
                    correlation,
                }) => {
                    return self.record_trouble(problems, retry, correlation).await;
                }
            }
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.target.inner.clock.now()
    }

    async fn once(&mut self) -> Result<Next, Trouble> {
        let mut tx = self.target.inner.store.read().await?;
        let Some(fresh) = tx.move_get(self.user.tenant, self.user.id).await? else {
            return Ok(Next::Rest);
        };
        let Some(batch) = tx.batch_get(self.user.tenant, self.user.batch).await? else {
            return Ok(Next::Rest);
        };
        let endpoint = tx.endpoint_get(self.user.tenant, batch.endpoint).await?;
        drop(tx);
        self.imap = endpoint.filter(|e| matches!(e.kind, EndpointKind::Imap(_)));
        (self.user, self.batch) = (fresh, batch);
        let asked_to_stop = self.user.stop || self.batch.intent != BatchIntent::Started;
        let in_cutover = self.user.status == UserStatus::Completing;
        if asked_to_stop && in_cutover && !self.unfinished_attempt().await? {
            self.event(UserEvent::CompletionDeferred)?;
        }
        let in_cutover = self.user.status == UserStatus::Completing;
        if asked_to_stop && !in_cutover && self.user.status != UserStatus::Removing {
            self.event(stop_event(&self.batch))?;
            self.save("target.stop").await?;
            return Ok(if self.user.status == UserStatus::Removing {
                Next::Again
            } else {
                Next::Rest
            });
        }
        if self.lease.cancelled() && !in_cutover {
            return Ok(Next::Rest);
        }
        match self.user.status {
            UserStatus::Validating => self.validate().await,
            UserStatus::Queued | UserStatus::Syncing => self.sync(PassKind::Initial).await,
            UserStatus::Synced | UserStatus::IncrementalSyncing => self.synced().await,
            UserStatus::Completing => match self.imap.clone() {
                Some(endpoint) => self.direct_complete(&endpoint).await.map(|()| Next::Rest),
                None => self.complete().await.map(|()| Next::Rest),
            },
            UserStatus::Removing => self.remove().await,
            UserStatus::Starting
            | UserStatus::IncrementalFailed
            | UserStatus::CompletionFailed
            | UserStatus::Completed
            | UserStatus::CompletedWithWarnings
            | UserStatus::Failed
            | UserStatus::Stopped
            | UserStatus::IncrementalStopped => Ok(Next::Rest),
        }
    }

    /// Whether a cutover has begun that has no end yet: then it is finished or undone before anything else.
    async fn unfinished_attempt(&self) -> Result<bool, StoreError> {
        let mut tx = self.target.inner.store.read().await?;
        let newest = tx.attempt_newest(self.user.tenant, self.user.id).await?;
        Ok(newest.is_some_and(|a| match a.phase {
            TargetPhase::Closing | TargetPhase::Decided | TargetPhase::Done => true,
            TargetPhase::Aborted => false,
        }))
    }

    /// Takes the status on.
    pub(super) fn event(&mut self, event: UserEvent) -> Result<(), Trouble> {
        self.user.status = self
            .user
            .status
            .next(event)
            .map_err(|e| Trouble::of(Problem::new(ErrorId::Unexpected, format!("{e}."), ""), Retry::After(60)))?;
        Ok(())
    }

    /// Saves the worker's columns.
    pub(super) async fn save(&self, step: &'static str) -> Result<(), StoreError> {
        let mut tx = self.target.inner.store.write().await?;
        tx.move_save_work(&self.user).await?;
        tx.commit(step).await
    }

    async fn record_trouble(
        &mut self,
        problems: Vec<Problem>,
        retry: Retry,
        correlation: Option<CorrelationId>,
    ) -> Result<(), StoreError> {
        let now = self.now();
        for problem in &problems {
            tracing::warn!(move_id = %self.user.id, user = self.user.email_address, %problem, ?retry, "a move was stopped");
        }
        self.user.problem_correlation = correlation.map(|c| c.to_string());
        self.user.failures = self.user.failures.saturating_add(1);
        let pause = match retry {
            // An attempt that has begun is carried to its end, whatever is in the way: its mailbox is closed meanwhile.
            Retry::Never if self.user.status == UserStatus::Completing && self.unfinished_attempt().await? => {
                tracing::error!(move_id = %self.user.id, user = self.user.email_address, "ALERT: a cutover cannot go on without the administrator; it is tried again every minute");
                Some(60)
            }
            Retry::Never => None,
            Retry::Now => Some(2u32.saturating_pow(self.user.failures.min(9) - 1).min(LONGEST_PAUSE)),
            Retry::After(seconds) => Some(seconds.max(1)),
        };
        match pause {
            None => {
                self.user.waiting_for = "the administrator: see the error".into();
                // Every status in which a worker holds a move can fail; see the table.
                if let Ok(status) = self.user.status.next(UserEvent::FailForGood) {
                    self.user.status = status;
                }
            }
            Some(seconds) => {
                self.user.next_run = now + SignedDuration::from_secs(i64::from(seconds));
                self.user.waiting_for = format!("the next try at {}", self.user.next_run);
            }
        }
        self.user.problems = problems;
        match self.save("target.trouble").await {
            Err(StoreError::Stale { .. }) => Ok(()),
            other => other,
        }
    }

    pub(super) async fn recipient(&self) -> Result<Recipient, Trouble> {
        let mut tx = self.target.inner.store.read().await?;
        let found = match self.user.recipient {
            Some(id) => tx.recipient_get(self.user.tenant, id).await?,
            None => None,
        };
        let advice = match self.imap {
            Some(_) => "Make his mailbox again, and add him in a new batch.",
            None => "Make it again with its ExchangeGuid and x500 address, then start the user again.",
        };
        found.ok_or_else(|| {
            Trouble::of(
                Problem::new(
                    ErrorId::MigrationRecipientNotFound,
                    format!("The recipient of {} was removed.", self.user.email_address),
                    advice,
                ),
                Retry::Never,
            )
        })
    }

    async fn validate(&mut self) -> Result<Next, Trouble> {
        let now = self.now();
        if let Some(start) = self.batch.start_after.filter(|t| *t > now) {
            self.user.waiting_for = format!("StartAfter {start}");
            self.user.next_run = start;
            self.save("target.wait").await?;
            return Ok(Next::Rest);
        }
        let (recipient, problems) = match self.imap.clone() {
            Some(endpoint) => self.check_direct(&endpoint).await?,
            None => self.check_target().await?,
        };
        if !problems.is_empty() {
            return Err(Trouble::Problems {
                problems,
                retry: Retry::Never,
                correlation: None,
            });
        }
        let found = recipient.as_ref().and_then(Recipient::exchange_guid);
        if self.user.exchange_guid.is_some() && self.user.exchange_guid != found {
            let mut tx = self.target.inner.store.read().await?;
            if tx.move_has_ledger(self.user.tenant, self.user.id).await? {
                return Err(guid_changed(&self.user.email_address));
            }
        }
        self.user.exchange_guid = found;
        self.user.recipient = recipient.map(|r| r.id);
        self.event(UserEvent::Validated)?;
        self.user.waiting_for = "a worker".into();
        self.user.problems.clear();
        self.save("target.validated").await?;
        Ok(Next::Again)
    }

    /// The recipient that has the row's address.
    pub(super) async fn row_recipient(&self) -> Result<Option<Recipient>, Trouble> {
        let Ok(address) = self.user.email_address.parse() else {
            return Ok(None);
        };
        let proxy = rehome_domain::address::ProxyAddress::Smtp(address);
        let mut tx = self.target.inner.store.read().await?;
        Ok(tx.recipient_by_proxy(self.user.tenant, &proxy.key()).await?)
    }

    /// An older batch in which the same address is still worked on.
    pub(super) async fn other_batch(&self) -> Result<Option<String>, Trouble> {
        let tenant = self.user.tenant;
        let mut tx = self.target.inner.store.read().await?;
        let twin = tx
            .move_by_address(tenant, &self.user.email_address)
            .await?
            .into_iter()
            .find(|m| {
                m.id != self.user.id
                    && !matches!(
                        m.status,
                        UserStatus::Completed | UserStatus::CompletedWithWarnings | UserStatus::Removing
                    )
            });
        let Some(twin) = twin else { return Ok(None) };
        let batch = tx.batch_get(tenant, twin.batch).await?;
        Ok(batch.filter(|b| b.created <= self.batch.created).map(|b| b.name))
    }

    async fn check_target(&self) -> Result<(Option<Recipient>, Vec<Problem>), Trouble> {
        let recipient = self.row_recipient().await?;
        let other = self.other_batch().await?;
        let mut tx = self.target.inner.store.read().await?;
        let accepted = tx.accepted_domain_list(self.user.tenant).await?;
        let domains: Vec<_> = accepted.into_iter().map(|d| d.name).collect();
        let problems = target_problems(&TargetFacts {
            address: &self.user.email_address,
            recipient: recipient.as_ref(),
            target_delivery_domain: self.batch.target_delivery_domain.as_ref(),
            accepted_domains: &domains,
            other_batch: other.as_deref(),
        });
        Ok((recipient, problems))
    }

    /// Reaches the source and checks that this mailbox may still be moved to this mail user.
    pub(super) async fn connect(&self) -> Result<(Connected, MailboxRef), Trouble> {
        let (address, mailbox) = self.address().await?;
        let connected = self.target.inner.partner.connect(&address, mailbox.correlation).await?;
        self.remember_tenant(&address, &connected).await?;
        Ok((connected, mailbox))
    }

    async fn address(&self) -> Result<(PartnerAddress, MailboxRef), Trouble> {
        let mut tx = self.target.inner.store.read().await?;
        let endpoint = tx
            .endpoint_get(self.user.tenant, self.batch.endpoint)
            .await?
            .ok_or_else(|| {
                Trouble::of(
                    Problem::new(
                        ErrorId::ManagementObjectNotFound,
                        "The batch's migration endpoint was removed.",
                        "",
                    ),
                    Retry::Never,
                )
            })?;
        let address = self
            .target
            .address_of(&endpoint)
            .map_err(|p| Trouble::of(p, Retry::Never))?;
        Ok((
            address,
            MailboxRef {
                exchange_guid: self.exchange_guid()?,
                move_id: self.user.id,
                correlation: CorrelationId(uuid::Uuid::new_v4()),
            },
        ))
    }

    pub(super) fn exchange_guid(&self) -> Result<ExchangeGuid, Trouble> {
        self.user.exchange_guid.ok_or_else(|| {
            Trouble::of(
                Problem::new(
                    ErrorId::MissingExchangeGuid,
                    "The migration user has no ExchangeGuid yet.",
                    "Start-MigrationUser checks him again.",
                ),
                Retry::Never,
            )
        })
    }

    /// The first tenant found for an endpoint is the one for ever.
    async fn remember_tenant(&self, address: &PartnerAddress, connected: &Connected) -> Result<(), Trouble> {
        if address.remote_tenant_id.is_some() {
            return Ok(());
        }
        let mut tx = self.target.inner.store.write().await?;
        let Some(mut endpoint) = tx.endpoint_get(self.user.tenant, self.batch.endpoint).await? else {
            return Ok(());
        };
        let EndpointKind::ExchangeRemoteMove(remote) = &mut endpoint.kind else {
            return Err(Trouble::Rest);
        };
        match remote.remote_tenant_id {
            Some(known) if known == connected.tenant => return Ok(()),
            None if endpoint.remote_server == address.remote_server
                && remote.remote_tenant == address.remote_tenant => {}
            // Another worker found another tenant, or the endpoint was changed since it was read: looked at afresh.
            Some(_) | None => return Err(Trouble::Rest),
        }
        remote.remote_tenant_id = Some(connected.tenant);
        tx.endpoint_update(self.user.tenant, &endpoint).await?;
        let entry = AuditEntry {
            at: self.now(),
            caller: "service".into(),
            origin: "local".into(),
            action: "Pin tenant of endpoint".into(),
            object: endpoint.name,
            parameters: serde_json::json!({"RemoteTenant": address.remote_tenant, "TenantId": connected.tenant.to_string()}),
            result: "ok".into(),
            correlation_id: CorrelationId(uuid::Uuid::new_v4()),
        };
        tx.audit_append(self.user.tenant, &entry).await?;
        tx.commit("target.remote_tenant").await?;
        Ok(())
    }

    /// Where the mailbox is to be: the same for the whole move once its contents have begun to be copied.
    pub(super) async fn new_place(&self) -> Result<Place, Trouble> {
        let platforms = &self.target.inner.platforms;
        let platform = platforms.default_platform()?.to_owned();
        let recipient = self.recipient().await?;
        let exchange_guid = self.exchange_guid()?;
        let refused = |text: String| Trouble::of(Problem::new(ErrorId::MailboxPlatform, text, ""), Retry::Never);
        let primary = recipient
            .primary_smtp_address()
            .ok_or_else(|| refused(format!("'{}' has no primary address.", recipient.name)))?;
        let new = NewMailbox {
            tenant: self.user.tenant,
            alias: &recipient.alias,
            primary,
            exchange_guid,
        };
        let location = platforms.new_location(&platform, &new, Some(self.user.id)).await?;
        if platforms.driver(&platform)? == Driver::Imap {
            let mut tx = self.target.inner.store.read().await?;
            let taken = tx.mailbox_at(&platform, &location).await?;
            if taken.is_some_and(|(_, id)| id != recipient.id) {
                return Err(refused(format!(
                    "The account '{location}' is the place of another mailbox."
                )));
            }
            if !tx.territory(self.user.tenant).await?.holds_account(&location) {
                return Err(refused(Territory::not_his_account(&location)));
            }
        }
        Ok(Place {
            exchange_guid,
            platform,
            location,
        })
    }

    /// The hidden contents of this move.
    pub(super) async fn staging(&self) -> Result<Arc<dyn Mailbox>, Trouble> {
        let place = self.new_place().await?;
        Ok(self.target.inner.platforms.staging(&place, self.user.id).await?)
    }

    /// Opens the mailbox at the source: the gate is walked, and both sides are compared.
    pub(super) async fn open_source(&self, connected: &Connected, mailbox: MailboxRef) -> Result<OpenAnswer, Trouble> {
        if self.recipient().await?.exchange_guid() != Some(mailbox.exchange_guid) {
            return Err(guid_changed(&self.user.email_address));
        }
        let answer = connected.proxy.open(mailbox).await?;
        let facts = source_facts(&answer).map_err(|p| Trouble::of(p, Retry::Never))?;
        let problems = pair_problems(&self.recipient().await?, &facts);
        if problems.is_empty() {
            Ok(answer)
        } else {
            Err(Trouble::Problems {
                problems,
                retry: Retry::Never,
                correlation: Some(mailbox.correlation),
            })
        }
    }

    /// The importer of this move into `mailbox`.
    pub(super) fn importer(
        &self,
        link: Arc<dyn SourceLink>,
        mailbox: Arc<dyn Mailbox>,
        progress: Arc<dyn Fn(&Progress) + Send + Sync>,
    ) -> Importer {
        let inner = &self.target.inner;
        let ledger = Chunks::ledger(inner.store.clone(), self.user.tenant, self.user.id, self.user.fence);
        let lease = self.lease.clone();
        let settings = ImportSettings {
            move_id: self.user.id.as_u128(),
            memory_budget: inner.settings.memory_budget,
            spool: inner.settings.spool.join(self.user.id.to_string()),
            given_uids: true,
            read_back: inner.settings.read_back,
            live_target: self.imap.is_some(),
            progress,
            lease: Arc::new(move || lease.holds()),
            cancel: Arc::clone(&self.lease.cancel),
        };
        Importer::new(link, mailbox, Arc::new(ledger), settings)
    }

    async fn sync(&mut self, kind: PassKind) -> Result<Next, Trouble> {
        match self.imap.clone() {
            Some(endpoint) => self.direct_sync(&endpoint, kind).await?,
            None => self.remote_sync(kind).await?,
        }
        self.event(UserEvent::SyncEnds)?;
        let now = self.now();
        self.user.last_sync = Some(now);
        self.user.failures = 0;
        self.user.next_run = now;
        let mut tx = self.target.inner.store.write().await?;
        tx.move_save_work(&self.user).await?;
        tx.move_clear_sync_now(&self.user).await?;
        tx.commit("target.sync_ends").await?;
        Ok(Next::Again)
    }

    async fn remote_sync(&mut self, kind: PassKind) -> Result<(), Trouble> {
        let (connected, mailbox) = self.connect().await?;
        self.open_source(&connected, mailbox).await?;
        self.sync_begins().await?;
        let staging = self.staging().await?;
        let link = connected.proxy.link(mailbox);
        self.pass(link, staging, kind).await?;
        self.user.figures.bytes_on_wire += connected.proxy.traffic().octets_received;
        Ok(())
    }

    /// The source was reached and nothing stands in the way.
    pub(super) async fn sync_begins(&mut self) -> Result<(), Trouble> {
        self.event(UserEvent::SyncBegins)?;
        self.user.waiting_for.clear();
        self.user.problems.clear();
        Ok(self.save("target.sync_begins").await?)
    }

    /// One pass, with its figures shown while it runs.
    pub(super) async fn pass(
        &mut self,
        link: Arc<dyn SourceLink>,
        mailbox: Arc<dyn Mailbox>,
        kind: PassKind,
    ) -> Result<Importer, Trouble> {
        let latest = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&latest);
        let importer = self.importer(
            link,
            mailbox,
            Arc::new(move |progress: &Progress| {
                *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress.clone())
            }),
        );
        let base = self.user.figures.clone();
        let saver = tokio::spawn(save_progress(
            self.target.clone(),
            self.user.clone(),
            Arc::clone(&latest),
        ));
        let outcome = importer.pass(kind).await;
        saver.abort();
        // A save that was under way is either whole or undone; the row's own save below comes after it.
        let _ = saver.await;
        if let Some(progress) = latest.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            add_progress(&mut self.user, &base, progress);
        }
        let outcome = outcome?;
        self.user.figures.items_skipped = outcome.items_skipped;
        self.user.figures.items_total = outcome.items_total;
        Ok(importer)
    }

    async fn synced(&mut self) -> Result<Next, Trouble> {
        let now = self.now();
        let interval = self.target.inner.settings.incremental_sync_interval;
        let next_sync = self.user.last_sync.map_or(now, |t| t + interval);
        if self.user.sync_now || next_sync <= now || self.user.status == UserStatus::IncrementalSyncing {
            return self.sync(PassKind::Incremental).await;
        }
        match self.complete_at() {
            Some(at) if at <= now => {
                self.event(UserEvent::CompletionBegins)?;
                self.user.waiting_for.clear();
                self.user.problems.clear();
                self.save("target.completion_begins").await?;
                Ok(Next::Again)
            }
            at => {
                self.user.next_run = at.map_or(next_sync, |at| at.min(next_sync));
                self.user.waiting_for = match at {
                    Some(at) => format!("CompleteAfter {at}"),
                    None => "Complete-MigrationBatch, or CompleteAfter".into(),
                };
                self.save("target.waits").await?;
                Ok(Next::Rest)
            }
        }
    }

    /// When this user is completed: his own value, else the batch's; at once with AutoComplete.
    fn complete_at(&self) -> Option<Timestamp> {
        let auto = self.batch.auto_complete.then_some(Timestamp::MIN);
        self.user.complete_after.or(self.batch.complete_after).or(auto)
    }

    async fn remove(&mut self) -> Result<Next, Trouble> {
        let inner = &self.target.inner;
        let mut tx = inner.store.read().await?;
        let decided = tx
            .attempt_newest(self.user.tenant, self.user.id)
            .await?
            .is_some_and(|a| a.decided.is_some() && a.platform.is_some());
        drop(tx);
        // What was copied from an IMAP server lies in the mailbox itself, and stays there.
        if !decided && self.imap.is_none() {
            let default = inner.platforms.default_platform()?.to_owned();
            // An account of an earlier default platform would stay denied to its user for ever.
            let others = inner
                .platforms
                .names()
                .filter(|name| *name != default)
                .map(str::to_owned);
            for platform in others.collect::<Vec<_>>() {
                if inner.platforms.driver(&platform)? == Driver::Imap {
                    inner.platforms.remove_staging(&platform, self.user.id).await?;
                }
            }
            inner.platforms.remove_staging(&default, self.user.id).await?;
        }
        let spool = inner.settings.spool.join(self.user.id.to_string());
        // A spool folder that is not there was never needed.
        let _ = tokio::fs::remove_dir_all(spool).await;
        let mut tx = inner.store.write().await?;
        tx.move_check_fence(self.user.tenant, self.user.id, self.user.fence)
            .await?;
        tx.move_delete(self.user.tenant, self.user.id).await?;
        tx.batch_delete_emptied().await?;
        tx.commit("target.removed").await?;
        Ok(Next::Rest)
    }
}

fn add_progress(user: &mut Move, base: &rehome_domain::moves::MoveFigures, progress: &Progress) {
    user.figures.items_total = progress.items_total;
    user.figures.folders_total = progress.folders_total;
    user.figures.items_synced = base.items_synced + progress.items_done;
    user.figures.bytes_synced = base.bytes_synced + progress.octets_done;
}

/// Shows the figures of a running pass, once a second.
async fn save_progress(target: Target, user: Move, latest: Arc<Mutex<Option<Progress>>>) {
    let base = user.figures.clone();
    let mut shown = user;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let progress = latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(progress) = progress else { continue };
        add_progress(&mut shown, &base, &progress);
        let saved = async {
            let mut tx = target.inner.store.write().await?;
            tx.move_save_work(&shown).await?;
            tx.commit("target.progress").await
        };
        if let Err(error) = saved.await {
            tracing::debug!(error = crate::error_chain(&error), "progress could not be saved");
        }
    }
}

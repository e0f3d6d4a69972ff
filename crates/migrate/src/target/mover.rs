//! One turn of one move: from where its row stands to where it next waits.

use super::{
    Target,
    trouble::{Trouble, guid_changed},
    worker::{HeldLease, stop_event},
};
use jiff::{SignedDuration, Timestamp};
use rehome_domain::{
    batch::{BatchIntent, MigrationBatch},
    cutover::TargetPhase,
    endpoint::{EndpointKind, MigrationEndpoint},
    error_id::{ErrorId, Problem},
    id::CorrelationId,
    moves::{Move, UserEvent, UserStatus},
    readiness::{TargetFacts, target_problems},
    recipient::Recipient,
};
use rehome_mailbox::Retry;
use rehome_platform::Driver;
use rehome_replicate::{PassKind, SkippedItems};
use rehome_store::{ReturnRow, StoreError};

/// Longest pause between two tries of a move that a passing failure stopped.
const LONGEST_PAUSE: u32 = 300;

/// One turn: a claimed move with its batch and lease.
pub(super) struct Turn {
    pub(super) target: Target,
    pub(super) user: Move,
    pub(super) batch: MigrationBatch,
    /// The batch's endpoint where it is an IMAP server; read at each step.
    pub(super) imap: Option<MigrationEndpoint>,
    /// What is known of a mailbox that this move brings back; read at each step.
    pub(super) returning: Option<ReturnRow>,
    /// Whether the move was decided and its source reopened by hand: the mailbox is in use here, and additions follow.
    pub(super) catches_up: bool,
    pub(super) lease: HeldLease,
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
        self.returning = tx.return_get(self.user.tenant, self.user.id).await?;
        drop(tx);
        self.imap = endpoint.filter(|e| matches!(e.kind, EndpointKind::Imap(_)));
        (self.user, self.batch) = (fresh, batch);
        if matches!(
            self.user.status,
            UserStatus::Completed | UserStatus::CompletedWithWarnings
        ) {
            // Stop and Start do not concern him any more; removing him ends his sweeps.
            self.sweep_again().await?;
            return Ok(Next::Rest);
        }
        let asked_to_stop = self.is_to_stop();
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
                None => {
                    let done = self.complete().await;
                    if let Err(trouble) = &done {
                        self.doubt_pairs(trouble).await?;
                    }
                    done.map(|()| Next::Rest)
                }
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

    /// Whether the administrator wants the user, or his batch, to come to rest.
    pub(super) fn is_to_stop(&self) -> bool {
        self.user.stop || self.batch.intent != BatchIntent::Started
    }

    /// Whether a cutover has begun that has no end yet: then it is finished or undone before anything else.
    async fn unfinished_attempt(&self) -> Result<bool, StoreError> {
        let mut tx = self.target.inner.store.read().await?;
        let newest = tx.attempt_newest(self.user.tenant, self.user.id).await?;
        Ok(newest.is_some_and(|a| match a.phase {
            TargetPhase::Closing
            | TargetPhase::Decided
            | TargetPhase::Done
            | TargetPhase::Reopened
            | TargetPhase::CatchingUp
            | TargetPhase::CatchUpAborted => true,
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
        let pause = pause.map(|seconds| seconds.min(self.target.inner.settings.longest_pause));
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

    async fn sync(&mut self, kind: PassKind) -> Result<Next, Trouble> {
        let (skipped, asked) = self.retries(kind).await?;
        match self.imap.clone() {
            Some(endpoint) => self.direct_sync(&endpoint, kind, skipped).await?,
            None => self.remote_sync(kind, skipped).await?,
        }
        self.event(UserEvent::SyncEnds)?;
        let now = self.now();
        self.user.last_sync = Some(now);
        self.user.failures = 0;
        self.user.next_run = now;
        let mut tx = self.target.inner.store.write().await?;
        tx.move_save_work(&self.user).await?;
        tx.move_clear_sync_now(&self.user).await?;
        if let Some(asked) = asked {
            tx.retry_done(self.user.tenant, self.user.id, asked).await?;
        }
        tx.commit("target.sync_ends").await?;
        Ok(Next::Again)
    }

    async fn remote_sync(&mut self, kind: PassKind, skipped: SkippedItems) -> Result<(), Trouble> {
        let (connected, mailbox) = self.connect().await?;
        self.open_source(&connected, mailbox).await?;
        self.sync_begins().await?;
        self.fill_return(&connected, mailbox).await?;
        let staging = self.staging().await?;
        let link = connected.proxy.link(mailbox);
        self.pass(link, staging, kind, skipped).await?;
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
            .is_some_and(|a| a.phase.is_mailbox());
        drop(tx);
        // What was copied from an IMAP server lies in the mailbox itself, and stays there.
        if !decided && self.imap.is_none() {
            self.remove_return_staging().await?;
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

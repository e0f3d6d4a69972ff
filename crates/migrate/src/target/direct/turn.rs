//! A turn of a user who is copied from an IMAP server.

use super::{
    imap_of,
    link::LocalLink,
    problem::{link_error, told_at_sign_in},
};
use crate::{
    ledger::Chunks,
    target::{cutover::is_exception, mover::Turn, trouble::Trouble},
};
use rehome_domain::{
    endpoint::{ImapSignIn, MigrationEndpoint},
    error_id::{ErrorId, Problem},
    folder_pattern::FolderPattern,
    id::CorrelationId,
    moves::UserEvent,
    readiness::{DirectFacts, direct_problems},
    recipient::{MailboxState, Recipient, RecipientKind},
};
use rehome_mailbox::{ErrorScope, Mailbox, Retry, imap::ImapMailbox};
use rehome_platform::Place;
use rehome_replicate::{Exporter, Importer, PassKind, SkippedItems, SourceLink};
use rehome_store::AuditEntry;
use std::{sync::Arc, time::Duration};

/// How long a pass waits for a cutover that has the mailbox alone.
const LOCK_WITHIN: Duration = Duration::from_secs(10);

impl Turn {
    /// The recipient of the row and what keeps him from being copied.
    pub(in crate::target) async fn check_direct(
        &self,
        endpoint: &MigrationEndpoint,
    ) -> Result<(Option<Recipient>, Vec<Problem>), Trouble> {
        let imap = imap_of(endpoint).map_err(|p| Trouble::of(p, Retry::Never))?;
        let recipient = self.row_recipient().await?;
        let other_batch = self.other_batch().await?;
        let mut tx = self.target.inner.store.read().await?;
        let remote = tx.direct_user_get(self.user.tenant, self.user.id).await?;
        let can_sign_in = match imap.sign_in {
            ImapSignIn::Users => remote.is_some_and(|remote| remote.sealed_password.is_some()),
            ImapSignIn::Master { .. } | ImapSignIn::Authorization { .. } | ImapSignIn::OAuth { .. } => remote.is_some(),
        };
        let problems = direct_problems(&DirectFacts {
            address: &self.user.email_address,
            recipient: recipient.as_ref(),
            other_batch: other_batch.as_deref(),
            can_sign_in,
        });
        Ok((recipient, problems))
    }

    /// A sync of a user who is copied from an IMAP server, without what follows every sync.
    pub(in crate::target) async fn direct_sync(
        &mut self,
        endpoint: &MigrationEndpoint,
        kind: PassKind,
        skipped: SkippedItems,
    ) -> Result<(), Trouble> {
        let source = self.direct_source(endpoint).await?;
        self.sync_begins().await?;
        self.direct_pass(endpoint, source, kind, skipped).await.map(drop)
    }

    /// The last pass; afterwards the user is completed, and nothing here can sign in for him any more.
    pub(in crate::target) async fn direct_complete(&mut self, endpoint: &MigrationEndpoint) -> Result<(), Trouble> {
        match self.last_pass(endpoint).await {
            Ok(warnings) => self.direct_completed(warnings).await,
            Err(trouble) => {
                match &trouble {
                    Trouble::Problems {
                        retry: Retry::Never, ..
                    }
                    | Trouble::Store(_) => {}
                    Trouble::Problems {
                        retry: Retry::Now | Retry::After(_),
                        ..
                    } => self.event(UserEvent::CompletionDeferred)?,
                    Trouble::Rest => {
                        self.event(UserEvent::CompletionDeferred)?;
                        self.user.next_run = self.now();
                        self.save("target.deferred").await?;
                    }
                }
                Err(trouble)
            }
        }
    }

    /// Returns whether something is reported.
    async fn last_pass(&mut self, endpoint: &MigrationEndpoint) -> Result<bool, Trouble> {
        let source = self.direct_source(endpoint).await?;
        let importer = self
            .direct_pass(endpoint, source, PassKind::Incremental, SkippedItems::Leave)
            .await?;
        self.check_approvals(&importer).await?;
        Ok(importer
            .report()
            .await?
            .items
            .iter()
            .any(|item| is_exception(item.kind)))
    }

    async fn direct_completed(&mut self, warnings: bool) -> Result<(), Trouble> {
        self.event(UserEvent::Completed { warnings })?;
        self.user.waiting_for.clear();
        self.user.problems.clear();
        self.user.failures = 0;
        self.user.last_sync = Some(self.now());
        let entry = AuditEntry {
            at: self.now(),
            caller: "service".into(),
            origin: "local".into(),
            action: "Completed copy from IMAP server".into(),
            object: self.user.email_address.clone(),
            parameters: serde_json::json!({"move": self.user.id.to_string()}),
            result: "ok".into(),
            correlation_id: CorrelationId(uuid::Uuid::new_v4()),
        };
        let mut tx = self.target.inner.store.write().await?;
        tx.move_save_work(&self.user).await?;
        tx.direct_user_forget_password(self.user.tenant, self.user.id).await?;
        tx.audit_append(self.user.tenant, &entry).await?;
        tx.commit("target.direct_completed").await?;
        Ok(())
    }

    /// The account at the source, signed in to.
    async fn direct_source(&self, endpoint: &MigrationEndpoint) -> Result<ImapMailbox, Trouble> {
        let never = |problem| Trouble::of(problem, Retry::Never);
        let imap = imap_of(endpoint).map_err(never)?;
        let (tenant, id) = (self.user.tenant, self.user.id);
        let mut tx = self.target.inner.store.read().await?;
        let remote = tx.direct_user_get(tenant, id).await?;
        drop(tx);
        let lost = |text: &str| {
            never(Problem::new(
                ErrorId::ImapAuthentication,
                format!("{text} of {} at the source.", self.user.email_address),
                format!(
                    "Remove-MigrationUser {} and add him in a new batch.",
                    self.user.email_address
                ),
            ))
        };
        let remote = remote.ok_or_else(|| lost("Nothing is known"))?;
        let password = match (&imap.sign_in, &remote.sealed_password) {
            (ImapSignIn::Users, Some(sealed)) => Some(
                self.target
                    .unseal_password(tenant, id, sealed)
                    .ok_or_else(|| lost("This deployment's key file does not open the sealed password"))?,
            ),
            (ImapSignIn::Users, None) => return Err(lost("No password is known")),
            (ImapSignIn::Master { .. } | ImapSignIn::Authorization { .. } | ImapSignIn::OAuth { .. }, _) => None,
        };
        let servers = &self.target.inner.servers;
        let server = match servers.get(endpoint) {
            Some(server) => server,
            None => servers.keep(endpoint, self.target.new_server(endpoint).await.map_err(never)?),
        };
        let mailbox = server.mailbox(&remote.name, password);
        match mailbox.connect().await {
            Ok(()) => Ok(mailbox),
            Err(error) => {
                if error.scope == ErrorScope::Endpoint {
                    servers.forget(endpoint.id);
                }
                Err(Trouble::of(told_at_sign_in(&error, endpoint, imap), error.retry))
            }
        }
    }

    /// One pass into the mailbox, which nobody may cut over meanwhile; deliveries go on beside it.
    async fn direct_pass(
        &mut self,
        endpoint: &MigrationEndpoint,
        source: ImapMailbox,
        kind: PassKind,
        skipped: SkippedItems,
    ) -> Result<Importer, Trouble> {
        let imap = imap_of(endpoint).map_err(|p| Trouble::of(p, Retry::Never))?.clone();
        let inner = Arc::clone(&self.target.inner);
        let place = self.live_place().await?;
        let _lock = inner.platforms.deliver_lock(&place, LOCK_WITHIN).await?;
        // Whoever closed it before the lock was had has said so by now.
        if self.live_place().await? != place {
            return Err(self.mailbox_replaced());
        }
        let target: Arc<dyn Mailbox> = inner.platforms.open(&place).await?;
        let notes = Chunks::notes(inner.store.clone(), self.user.tenant, self.user.id);
        let exporter = Exporter::new(Arc::new(source), Arc::new(notes));
        let endpoint = endpoint.clone();
        let told = Box::new(move |error: &_| link_error(error, &endpoint, &imap));
        let link = Arc::new(LocalLink::new(exporter, self.left_out().await?, told));
        let importer = self
            .pass(Arc::clone(&link) as Arc<dyn SourceLink>, target, kind, skipped)
            .await;
        self.user.figures.bytes_on_wire += link.octets();
        importer
    }

    async fn left_out(&self) -> Result<Vec<FolderPattern>, Trouble> {
        let mut tx = self.target.inner.store.read().await?;
        let patterns = tx.batch_excluded_folders_get(self.user.tenant, self.batch.id).await?;
        patterns
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, _>>()
            .map_err(|error| {
                let text = format!("A folder that the batch leaves out cannot be read: {error}.");
                Trouble::of(Problem::new(ErrorId::Unexpected, text, ""), Retry::Never)
            })
    }

    /// Where the mailbox is, while it is in service.
    async fn live_place(&self) -> Result<Place, Trouble> {
        let recipient = self.recipient().await?;
        let RecipientKind::Mailbox(mailbox) = &recipient.kind else {
            return Err(self.mailbox_replaced());
        };
        if self.user.exchange_guid != Some(mailbox.exchange_guid) {
            return Err(self.mailbox_replaced());
        }
        match mailbox.state {
            MailboxState::Open => Ok(Place {
                exchange_guid: mailbox.exchange_guid,
                platform: mailbox.platform.clone(),
                location: mailbox.location.clone(),
            }),
            MailboxState::NotYetShown | MailboxState::InCutover(_) => Err(Trouble::of(
                Problem::new(
                    ErrorId::InvalidOperation,
                    format!("The mailbox '{}' is being cut over.", recipient.name),
                    "The copy goes on if that is undone.",
                ),
                Retry::After(60),
            )),
        }
    }

    fn mailbox_replaced(&self) -> Trouble {
        let address = &self.user.email_address;
        Trouble::of(
            Problem::new(
                ErrorId::InvalidOperation,
                format!("{address} has no mailbox any more, or another one than when the copy began."),
                format!("Remove-MigrationUser {address}, and add him in a new batch if he is to be copied again."),
            ),
            Retry::Never,
        )
    }
}

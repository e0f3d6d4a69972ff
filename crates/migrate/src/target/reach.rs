//! How a turn reaches the source, and where the mailbox is to be.

use super::{
    mover::Turn,
    partner::{Connected, MailboxRef, PartnerAddress},
    trouble::{Trouble, guid_changed},
};
use crate::protocol::OpenAnswer;
use rehome_domain::{
    adoption::Territory,
    endpoint::EndpointKind,
    error_id::{ErrorId, Problem},
    id::{CorrelationId, ExchangeGuid},
    readiness::{SourceFacts, pair_problems},
};
use rehome_mailbox::{Mailbox, Retry};
use rehome_platform::{Driver, NewMailbox, Place};
use rehome_store::AuditEntry;
use std::sync::Arc;

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

impl Turn {
    /// Reaches the source and checks that this mailbox may still be moved to this mail user.
    pub(super) async fn connect(&self) -> Result<(Connected, MailboxRef), Trouble> {
        let (address, mailbox) = self.address().await?;
        let connected = self.target.inner.partner.connect(&address, mailbox.correlation).await?;
        self.remember_tenant(&address, &connected).await?;
        Ok((connected, mailbox))
    }

    pub(super) async fn address(&self) -> Result<(PartnerAddress, MailboxRef), Trouble> {
        let mailbox = MailboxRef {
            exchange_guid: self.exchange_guid()?,
            move_id: self.user.id,
            correlation: CorrelationId(uuid::Uuid::new_v4()),
        };
        if let Some(row) = &self.returning {
            return Ok((self.return_address(row).await?, mailbox));
        }
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
        Ok((address, mailbox))
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
        if let Some(row) = &self.returning {
            return self.return_place(row).await;
        }
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
            let taken = tx.mailbox_at_in_any_case(&platform, &location).await?;
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
}

//! The target's half: batches, schedule and mover.

pub mod availability;
pub mod control;
pub mod direct;
pub mod partner;

mod catch_up;
mod cutover;
mod finish;
mod mover;
mod passes;
mod reach;
mod receipt;
pub mod reports;
pub mod returning;
mod sweeps;
mod trouble;
mod worker;

use crate::{Clock, ledger::Chunks};
use direct::{ImapConnect, Servers};
use jiff::SignedDuration;
use partner::{Partner, PartnerAddress};
use rehome_domain::{
    cutover::Outcome,
    endpoint::{EndpointKind, MigrationEndpoint},
    error_id::{ErrorId, Problem},
    id::{AttemptId, EndpointId, TenantId},
    moves::Move,
};
use rehome_identity::{Identity, SealKey};
use rehome_platform::Platforms;
use rehome_replicate::Report;
use rehome_store::{Store, StoreError};
use secrecy::{ExposeSecret, SecretString};
use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

/// What the operator sets for the mover.
#[derive(Clone, Debug)]
pub struct TargetSettings {
    /// Moves worked on at once in this process.
    pub workers: usize,
    /// Length of a lease on a move; a takeover waits as long again after it expired.
    pub lease: SignedDuration,
    /// Between two incremental syncs of a synced user.
    pub incremental_sync_interval: SignedDuration,
    /// Octets in flight of one move.
    pub memory_budget: usize,
    /// Where large items wait until they are whole.
    pub spool: PathBuf,
    /// Whether what was appended is read back; off is for measuring only, and then Prepare is refused.
    pub read_back: bool,
    /// Largest message a new mailbox accepts, octets.
    pub max_receive_size: u64,
    /// Longest pause in seconds before a move that something stopped is tried again, whatever was asked for.
    pub longest_pause: u32,
}

/// The target's half of one deployment. Cheap to clone.
#[derive(Clone)]
pub struct Target {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    seal: SealKey,
    platforms: Platforms,
    partner: Arc<dyn Partner>,
    clock: Clock,
    settings: TargetSettings,
    /// How IMAP servers are reached, once it was said.
    imap: OnceLock<ImapConnect>,
    /// Signs receipts, once it was said who does.
    identity: OnceLock<Identity>,
    servers: Servers,
}

fn endpoint_purpose(endpoint: EndpointId) -> String {
    format!("migration-endpoint {endpoint}")
}

impl Target {
    /// The target's half over these parts.
    #[must_use]
    pub fn new(
        store: Store,
        seal: SealKey,
        platforms: Platforms,
        partner: Arc<dyn Partner>,
        clock: Clock,
        settings: TargetSettings,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                seal,
                platforms,
                partner,
                clock,
                settings,
                imap: OnceLock::new(),
                identity: OnceLock::new(),
                servers: Servers::default(),
            }),
        }
    }

    /// Seals an endpoint's secret for storage.
    ///
    /// # Errors
    /// When sealing fails.
    pub fn seal_secret(
        &self,
        tenant: TenantId,
        endpoint: EndpointId,
        secret: &SecretString,
    ) -> Result<Vec<u8>, Problem> {
        self.inner
            .seal
            .seal(tenant, &endpoint_purpose(endpoint), secret.expose_secret().as_bytes())
            .map_err(|e| Problem::new(ErrorId::Unexpected, format!("The secret could not be sealed: {e}."), ""))
    }

    /// Whom an endpoint reaches, with its secret unsealed.
    ///
    /// # Errors
    /// When the secret was sealed with another key file, or the endpoint is no partner's tenant.
    pub fn address_of(&self, endpoint: &MigrationEndpoint) -> Result<PartnerAddress, Problem> {
        let EndpointKind::ExchangeRemoteMove(remote) = &endpoint.kind else {
            return Err(Problem::new(
                ErrorId::InvalidOperation,
                format!(
                    "The migration endpoint '{}' is an IMAP server, not a partner's tenant.",
                    endpoint.name
                ),
                "Give an endpoint of type ExchangeRemoteMove.",
            ));
        };
        let secret = self.endpoint_secret(endpoint)?;
        Ok(PartnerAddress {
            home_tenant: endpoint.tenant,
            remote_server: endpoint.remote_server.clone(),
            remote_tenant: remote.remote_tenant.clone(),
            remote_tenant_id: remote.remote_tenant_id,
            application_id: remote.application_id,
            secret,
            returning: false,
        })
    }

    /// The secret of an endpoint that has one.
    ///
    /// # Errors
    /// When it has none, or it was sealed with another key file.
    pub(crate) fn endpoint_secret(&self, endpoint: &MigrationEndpoint) -> Result<SecretString, Problem> {
        let sealed = endpoint.sealed_secret.as_deref().unwrap_or_default();
        let unsealed = self
            .inner
            .seal
            .unseal(endpoint.tenant, &endpoint_purpose(endpoint.id), sealed);
        let secret = unsealed.ok().and_then(|octets| String::from_utf8(octets.to_vec()).ok());
        secret.map(SecretString::from).ok_or_else(|| {
            Problem::new(
                ErrorId::Unexpected,
                format!("The secret of the migration endpoint '{}' cannot be unsealed with this deployment's key file.", endpoint.name),
                format!("Set-MigrationEndpoint '{}' -Credentials, or give the deployment the key file that it was sealed with.", endpoint.name),
            )
        })
    }

    /// Every item that is reported for a user: skipped, altered, or not wholly as at the source.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn report(&self, user: &Move) -> Result<Report, Problem> {
        let ledger = Chunks::ledger(self.inner.store.clone(), user.tenant, user.id, user.fence);
        rehome_replicate::report_of(Arc::new(ledger)).await.map_err(|e| {
            Problem::new(
                ErrorId::Unexpected,
                format!("The ledger of {} cannot be read: {e}.", user.email_address),
                "",
            )
        })
    }

    /// What the outcome address answers; asking changes nothing. None when attempt or key is not known.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn outcome(
        &self,
        tenant: TenantId,
        attempt: AttemptId,
        key: &[u8],
    ) -> Result<Option<Outcome>, StoreError> {
        let mut tx = self.inner.store.read().await?;
        let row = tx.attempt_get(tenant, attempt).await?;
        Ok(row
            .filter(|r| aws_lc_rs::constant_time::verify_slices_are_equal(&r.outcome_key, key).is_ok())
            .map(|r| r.phase.outcome()))
    }
}

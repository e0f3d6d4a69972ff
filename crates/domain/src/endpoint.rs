//! Migration endpoints: where and as whom the mover pulls.

use crate::id::{ApplicationId, EndpointId, TenantId};

/// A migration endpoint of type ExchangeRemoteMove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationEndpoint {
    /// The object.
    pub id: EndpointId,
    /// Whose it is (the target).
    pub tenant: TenantId,
    /// Identity, unique in the tenant.
    pub name: String,
    /// `host[:port]` of the source's deployment; 443 when no port is given.
    pub remote_server: String,
    /// The source tenant's domain or GUID as given.
    pub remote_tenant: String,
    /// The source tenant's GUID as found; a later change stops work. None until it was first reached.
    pub remote_tenant_id: Option<TenantId>,
    /// The application whose secret is presented to our own authority.
    pub application_id: ApplicationId,
    /// The sealed secret.
    pub sealed_secret: Vec<u8>,
    /// Moves at once; none means unlimited.
    pub max_concurrent_migrations: Option<u32>,
    /// Incremental syncs at once; none means unlimited.
    pub max_concurrent_incremental_syncs: Option<u32>,
}

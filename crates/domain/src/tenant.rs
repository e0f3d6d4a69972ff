//! Tenants and their accepted domains.

use crate::{address::DomainName, id::TenantId};

/// An organisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Never changes; part of the issuer.
    pub id: TenantId,
    /// The first domain, given at creation; always accepted.
    pub initial_domain: DomainName,
    /// Shown to partners beside the domain.
    pub display_name: String,
}

/// A domain for which a tenant accepts mail. Unique over the deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedDomain {
    /// The name.
    pub name: DomainName,
    /// Whether new addresses are made in it; one per tenant.
    pub default: bool,
}

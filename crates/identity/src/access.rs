//! The door of the MRS proxy: access token and proof to a known caller.

use crate::{
    authority::{Origin, parse_issuer},
    clock::SKEW,
    dpop::{CheckedProof, verify_proof},
    error::AccessError,
    jws::{PublicKey, TokenType, open},
    token::{ACCESS_LIFETIME, AccessClaims},
};
use jiff::Timestamp;
use rehome_domain::id::{ApplicationId, ServicePrincipalId, TenantId};

/// Who calls the MRS proxy, as the token says. Whether the consent still stands is the gate's to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessCaller {
    /// In which tenant.
    pub tenant: TenantId,
    /// As which service principal.
    pub service_principal: ServicePrincipalId,
    /// The application.
    pub app_id: ApplicationId,
    /// Issuer of its home authority.
    pub home_issuer: String,
    /// Its home tenant.
    pub home_tenant: TenantId,
    /// The roles granted when the token was made.
    pub roles: Vec<String>,
}

impl AccessCaller {
    /// Whether the token carries a role.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|r| r == role)
    }
}

/// What a request to the MRS proxy presents.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    /// The value after `Authorization: DPoP `.
    pub token: &'a str,
    /// The `DPoP` header.
    pub proof: &'a str,
    /// The request's method.
    pub method: &'a str,
    /// The request's absolute URL under the public name.
    pub url: &'a str,
}

impl std::fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Presented")
            .field("method", &self.method)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// Checks everything but the proof's being new.
pub(crate) fn check<'k>(
    presented: &Presented<'_>,
    keys: impl IntoIterator<Item = &'k PublicKey>,
    origin: &Origin,
    tenant: TenantId,
    now: Timestamp,
) -> Result<(AccessCaller, CheckedProof), AccessError> {
    let claims: AccessClaims = open(presented.token, TokenType::Access, keys)?;
    let bad = |claim: &'static str| AccessError::Claim { claim };
    if claims.iss != origin.issuer(tenant) {
        return Err(bad("iss"));
    }
    if claims.aud != origin.mrs_audience(tenant) {
        return Err(bad("aud"));
    }
    if claims.tid.parse() != Ok(tenant) {
        return Err(bad("tid"));
    }
    let second = now.as_second();
    if second >= claims.exp {
        return Err(AccessError::Expired);
    }
    if claims.iat > second + SKEW || claims.exp > claims.iat.saturating_add(ACCESS_LIFETIME) {
        return Err(bad("iat"));
    }
    if claims.idtyp != "app" || claims.jti.is_empty() {
        return Err(bad("idtyp or jti"));
    }
    let service_principal = claims.oid.parse().map_err(|_| bad("oid"))?;
    if claims.sub != claims.oid {
        return Err(bad("sub"));
    }
    let home_tenant = claims.home_tid.parse().map_err(|_| bad("home_tid"))?;
    if parse_issuer(&claims.home_iss).is_none_or(|(_, t)| t != home_tenant) {
        return Err(bad("home_iss"));
    }
    let caller = AccessCaller {
        tenant,
        service_principal,
        app_id: claims.azp.parse().map_err(|_| bad("azp"))?,
        home_issuer: claims.home_iss,
        home_tenant,
        roles: claims.roles,
    };
    let proof = verify_proof(
        presented.proof,
        presented.method,
        presented.url,
        Some(presented.token),
        now,
    )?;
    if proof.jkt != claims.cnf.jkt {
        return Err(AccessError::Proof(crate::error::DpopError::OtherKey));
    }
    Ok((caller, proof))
}

//! Asks a next hop whether it would take mail, without sending any.

use crate::{relay::RelayError, serve::Routing, transaction::chain};
use rehome_domain::{address::SmtpAddress, id::TenantId};

/// What a next hop answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeOutcome {
    /// Whether it would take mail for the address (2xx to RCPT from the null sender).
    pub accepted: bool,
    /// The servers of the next hop, as `host:port`.
    pub next_hop: String,
    /// The one that answered.
    pub server: String,
    /// Its reply to RCPT, or to MAIL if that was refused.
    pub reply: String,
    /// Whether it may answer otherwise later (4xx).
    pub transient: bool,
    /// Whether the server that answered is this very process.
    pub is_ourselves: bool,
    /// The tenant of this deployment that accepts the address's domain, if one does. Mail that reaches ourselves goes
    /// in a circle exactly if that is the tenant it comes from.
    pub tenant_here: Option<TenantId>,
}

/// Why a next hop could not be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The domain has no next hop.
    #[error("mail for {address} has no next hop: {cause}")]
    NoNextHop {
        /// Asked about.
        address: String,
        /// Why.
        cause: String,
        /// Whether the domain says that it takes no mail; otherwise it may be tried later.
        permanent: bool,
    },
    /// None of its servers answered.
    #[error("the next hop {next_hop} for {address} did not answer: {cause}")]
    Unreachable {
        /// Asked about.
        address: String,
        /// Its servers.
        next_hop: String,
        /// The last error.
        cause: String,
    },
    /// The state could not be read.
    #[error("the state cannot be read: {0}")]
    State(String),
}

impl Routing {
    /// Asks the next hop of an address whether it takes mail for it: MAIL FROM:<>, RCPT TO, no DATA.
    ///
    /// # Errors
    /// When there is no next hop, or it does not answer.
    pub async fn probe(&self, address: &SmtpAddress) -> Result<ProbeOutcome, ProbeError> {
        let shared = &self.shared;
        let state = |e: rehome_store::StoreError| ProbeError::State(chain(&e));
        let mut tx = shared.store.read().await.map_err(state)?;
        let tenant_here = tx.tenant_of_domain(address.domain()).await.map_err(state)?;
        drop(tx);
        let hop = shared
            .next_hops
            .of(address.domain())
            .await
            .map_err(|e| ProbeError::NoNextHop {
                address: address.to_string(),
                permanent: matches!(e, crate::next_hop::NextHopError::NullMx(_)),
                cause: e.to_string(),
            })?;
        let unreachable = |e: RelayError| ProbeError::Unreachable {
            address: address.to_string(),
            next_hop: hop.to_string(),
            cause: chain(&e),
        };
        let mut conversation = shared.caller.open(&hop).await.map_err(unreachable)?;
        let is_ourselves = conversation
            .greeting()
            .split_ascii_whitespace()
            .any(|word| word == shared.instance);
        let server = conversation.server().to_owned();
        let (mail, rcpt) = conversation
            .mail_and_rcpt(None, None, false, address)
            .await
            .map_err(unreachable)?;
        let reply = rcpt.unwrap_or(mail);
        // Nobody needs the answer to a goodbye, and a cutover waits for this one.
        tokio::spawn(conversation.quit());
        Ok(ProbeOutcome {
            accepted: reply.is_positive(),
            next_hop: hop.to_string(),
            server,
            transient: reply.is_transient(),
            reply: reply.to_string(),
            is_ourselves,
            tenant_here,
        })
    }
}

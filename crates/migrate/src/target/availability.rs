//! `Test-MigrationServerAvailability` and the check that New-MigrationEndpoint makes: token, connection, and the source's gate.

use super::{
    Target,
    partner::{MailboxRef, PartnerAddress},
};
use crate::protocol::{LOCKED, OpenAnswer, TEST_OF_AVAILABILITY};
use rehome_domain::{
    error_id::{ErrorId, Problem},
    id::{CorrelationId, TenantId},
    readiness::{Locks, pair_problems},
    recipient::Recipient,
};
use rehome_platform::LockMethod;

/// What the test found.
#[derive(Clone, Debug)]
pub struct Availability {
    /// The source tenant, once found.
    pub tenant: Option<TenantId>,
    /// Everything that is wrong; empty means success.
    pub problems: Vec<Problem>,
    /// What does not stand in the way and should be known all the same.
    pub warnings: Vec<String>,
    /// Stands in the other side's log for the last request.
    pub correlation: CorrelationId,
}

impl Target {
    /// Reaches the source with these credentials and, with a mail user, asks its gate about that mailbox.
    /// The mail user's own problems are found by the caller; here only what needs the source.
    pub async fn test_availability(
        &self,
        address: &PartnerAddress,
        mailbox: Option<&Recipient>,
        correlation: CorrelationId,
    ) -> Availability {
        let fail = |tenant, problem| Availability {
            tenant,
            problems: vec![problem],
            warnings: vec![],
            correlation,
        };
        let connected = match self.inner.partner.connect_anew(address, correlation).await {
            Ok(connected) => connected,
            Err(error) => {
                // Consent may still be missing; the tenant is found without it, and the caller prints the link.
                let tenant = match error.problem.id {
                    ErrorId::ApplicationNotConsented => self.inner.partner.find_tenant(address, correlation).await.ok(),
                    _ => None,
                };
                return fail(tenant, error.problem);
            }
        };
        let tenant = Some(connected.tenant);
        if connected.tenant == address.home_tenant {
            return fail(
                tenant,
                Problem::new(
                    ErrorId::SameTenant,
                    "The resource tenant and the accessing tenant cannot be equal.",
                    "Give -RemoteTenant the domain of the organisation whose mailboxes are to come here.",
                ),
            );
        }
        let Some(recipient) = mailbox else {
            return Availability {
                tenant,
                problems: vec![],
                warnings: vec![],
                correlation,
            };
        };
        let Some(exchange_guid) = recipient.exchange_guid() else {
            return Availability {
                tenant,
                problems: vec![],
                warnings: vec![],
                correlation,
            };
        };
        let asked = MailboxRef {
            exchange_guid,
            move_id: TEST_OF_AVAILABILITY,
            correlation,
        };
        match connected.proxy.open(asked).await {
            Err(error) => fail(tenant, error.problem),
            Ok(answer) => match super::reach::source_facts(&answer) {
                Ok(facts) => Availability {
                    tenant,
                    problems: pair_problems(recipient, &facts),
                    warnings: self.lock_warnings(&answer),
                    correlation,
                },
                Err(problem) => fail(tenant, problem),
            },
        }
    }

    fn lock_warnings(&self, source: &OpenAnswer) -> Vec<String> {
        let platforms = &self.inner.platforms;
        let here = platforms
            .default_platform()
            .and_then(|name| platforms.lock_method(name));
        // A platform that is not there is told by what needs it.
        locks(source, here.unwrap_or(LockMethod::Locked)).warnings()
    }
}

/// Which sides keep the mailbox quiet.
pub(super) fn locks(source: &OpenAnswer, here: LockMethod) -> Locks {
    Locks {
        source: source.lock_method == LOCKED,
        target: match here {
            LockMethod::Locked => true,
            LockMethod::NotLocked => false,
        },
    }
}

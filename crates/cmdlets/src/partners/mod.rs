//! Partners: applications and consents, organization relationships, migration endpoints.

mod application;
mod availability;
mod consent;
pub(crate) mod endpoint;
pub(crate) mod endpoint_imap;
mod relationship;

use crate::Cmdlet;

pub(crate) fn cmdlets() -> Vec<Cmdlet> {
    [
        application::cmdlets(),
        consent::cmdlets(),
        relationship::cmdlets(),
        endpoint::cmdlets(),
        availability::cmdlets(),
    ]
    .concat()
}

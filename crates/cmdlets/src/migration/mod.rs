//! Migration batches and users, and the source's view of what leaves.

mod batch;
mod batch_rows;
mod outbound;
mod user;

use crate::Cmdlet;

pub(crate) fn cmdlets() -> Vec<Cmdlet> {
    [batch::cmdlets(), user::cmdlets(), outbound::cmdlets()].concat()
}

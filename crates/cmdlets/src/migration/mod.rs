//! Migration batches and users, and the source's view of what leaves.

mod batch;
mod batch_rows;
mod outbound;
mod outcome;
mod receipt;
mod report;
mod undo;
mod user;

use crate::Cmdlet;

pub(crate) fn cmdlets() -> Vec<Cmdlet> {
    [
        batch::cmdlets(),
        user::cmdlets(),
        outbound::cmdlets(),
        outcome::cmdlets(),
        receipt::cmdlets(),
        report::cmdlets(),
        undo::cmdlets(),
    ]
    .concat()
}

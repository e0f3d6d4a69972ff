//! Recipients of the organisation: mailboxes, mail users, groups, domains.

mod attributes;
mod discover;
mod group;
mod import;
mod mail_user;
mod mailbox;
mod object;
mod organization;

pub(crate) use import::csv_error;

use crate::Cmdlet;

pub(crate) fn cmdlets() -> Vec<Cmdlet> {
    [
        mailbox::cmdlets(),
        import::cmdlets(),
        mail_user::cmdlets(),
        group::cmdlets(),
        organization::cmdlets(),
    ]
    .concat()
}

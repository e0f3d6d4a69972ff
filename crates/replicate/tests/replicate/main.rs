//! Two mailboxes in one process, moved through exporter, link and importer.

mod common;
mod hostile;
mod interruption;
mod moves;

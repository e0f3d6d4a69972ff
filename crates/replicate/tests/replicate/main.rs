//! Two mailboxes in one process, moved through exporter, link and importer.

#![allow(clippy::unwrap_used)] // Helpers of tests are no tests to clippy.

mod common;
mod distance;
mod hostile;
mod interruption;
mod live;
mod moves;
mod races;

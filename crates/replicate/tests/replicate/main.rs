//! Two mailboxes in one process, moved through exporter, link and importer.

#![allow(clippy::unwrap_used)] // Helpers of tests are no tests to clippy.

mod common;
mod distance;
mod folding;
mod history;
mod hostile;
mod interruption;
mod live;
mod moves;
mod notes;
mod pairs;
mod proof;
mod races;
mod renames;
#[path = "../../src/repeatable.rs"]
mod repeatable;
mod returning;
mod torture;

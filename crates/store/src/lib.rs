//! All SQL, on SQLite (PostgreSQL comes with scale); plain run-time SQL that both take.
//!
//! Never: decide anything; show a row to anyone. Every row belongs to a tenant, and every method takes
//! a tenant id (the operator's own methods, which list or make tenants, say so).
//!
//! Reading and writing go through a [`Tx`]: `store.read()` for a consistent view, `store.write()` for
//! one transaction that holds the change together with its audit record.

mod error;
mod schema;
mod tx;

mod audit;
mod columns;
mod directory_groups;
mod directory_partners;
mod directory_recipients;
#[cfg(test)]
mod directory_tests;
mod identity;
mod identity_apps;
mod migration_attempts;
mod migration_batches;
mod migration_direct;
mod migration_moves;
mod migration_receipts;
mod migration_retries;
mod migration_returns;
mod migration_source;
mod migration_sweeps;
mod migration_unlocked;
mod tenants;

pub use audit::{AuditEntry, AuditRow};
pub use directory_recipients::RecipientFilter;
pub use error::StoreError;
pub use identity::{AccountRow, SigningKeyRow};
pub use identity_apps::{Application, ApplicationGrant, ApplicationSecret, RequiredPermission, SignInAudience};
pub use migration_attempts::TargetAttempt;
pub use migration_receipts::{ReceiptRow, ReceiptSide};
pub use migration_returns::{CommitRecord, ReturnRow};
pub use migration_source::{OutboundMove, SourceAttemptRow};
pub use migration_sweeps::Sweeps;
pub use schema::{SCHEMA_STEPS, schema_of};
pub use tx::{Store, Tx};

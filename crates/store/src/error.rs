//! What can go wrong with the store.

/// Why a store operation failed. Nothing of a failed write is kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database could not be opened, read or written (disk full, locked, damaged).
    #[error("the state database failed while {doing}")]
    Database {
        /// What was tried.
        doing: &'static str,
        /// The engine's error.
        #[source]
        source: sqlx::Error,
    },
    /// A value that must be unique in the tenant (or deployment) is taken.
    #[error("{what} '{value}' is already in use")]
    Taken {
        /// Kind of value, for example `name`.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// The row was changed or its lease taken by someone else meanwhile; nothing was written.
    #[error("{what} was changed by another worker meanwhile")]
    Stale {
        /// Which row.
        what: &'static str,
    },
    /// A stored row cannot be understood: written by a newer version, or damaged.
    #[error("the stored {what} cannot be read: {why}")]
    Unreadable {
        /// Which row.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// The data folder was written by a newer version.
    #[error("the state database has schema step {found}, this program knows {known}: use the newer program")]
    NewerSchema {
        /// Found in the file.
        found: i64,
        /// Known here.
        known: i64,
    },
}

impl StoreError {
    /// Wraps an engine error with what was being done.
    pub(crate) fn while_doing(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Database { doing, source }
    }

    /// As [`Self::while_doing`], but a broken unique index becomes [`StoreError::Taken`].
    pub(crate) fn unique(doing: &'static str, what: &'static str, value: &str) -> impl FnOnce(sqlx::Error) -> Self {
        let value = value.to_owned();
        move |source| match &source {
            sqlx::Error::Database(e) if e.is_unique_violation() => Self::Taken { what, value },
            _ => Self::Database { doing, source },
        }
    }

    /// A row that cannot be understood.
    pub(crate) fn unreadable(what: &'static str, why: impl std::fmt::Display) -> Self {
        Self::Unreadable {
            what,
            why: why.to_string(),
        }
    }
}

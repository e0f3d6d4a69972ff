//! The store and its transactions.

use crate::{StoreError, schema};
use sqlx::{
    Sqlite, SqliteConnection, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{path::Path, time::Duration};

/// The state of one deployment. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    readers: SqlitePool,
    writer: SqlitePool,
}

/// One transaction. Dropping it without [`Tx::commit`] undoes it.
pub struct Tx {
    pub(crate) inner: Transaction<'static, Sqlite>,
}

impl Store {
    /// Opens (and makes, if missing) `state.sqlite` in `folder`, and brings its schema up to date.
    ///
    /// Every commit is on the disk when it returns (`synchronous = FULL`, write-ahead log).
    ///
    /// # Errors
    /// When the file cannot be opened or was written by a newer program.
    pub async fn open(folder: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(folder.join("state.sqlite"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(30));
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(Duration::from_secs(60))
            .connect_with(options.clone())
            .await
            .map_err(StoreError::while_doing("opening"))?;
        let mut connection = writer.acquire().await.map_err(StoreError::while_doing("opening"))?;
        schema::upgrade(&mut connection).await?;
        drop(connection);
        let readers = SqlitePoolOptions::new()
            .max_connections(8)
            .acquire_timeout(Duration::from_secs(60))
            .connect_with(options)
            .await
            .map_err(StoreError::while_doing("opening"))?;
        Ok(Self { readers, writer })
    }

    /// A consistent view for reading.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn read(&self) -> Result<Tx, StoreError> {
        let inner = self
            .readers
            .begin()
            .await
            .map_err(StoreError::while_doing("starting to read"))?;
        Ok(Tx { inner })
    }

    /// A transaction that may write; there is one at a time, others wait.
    ///
    /// # Errors
    /// When no writer could be had within a minute.
    pub async fn write(&self) -> Result<Tx, StoreError> {
        let inner = self
            .writer
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(StoreError::while_doing("starting to write"))?;
        Ok(Tx { inner })
    }

    /// Closes all connections; what was committed stays.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

impl Tx {
    /// Makes everything in this transaction durable. `step` names it for fault injection, `room.what`.
    ///
    /// # Errors
    /// When the disk refuses; then nothing of it is kept.
    pub async fn commit(self, step: &'static str) -> Result<(), StoreError> {
        self.inner
            .commit()
            .await
            .map_err(StoreError::while_doing("making a change durable"))?;
        rehome_fault::step(step);
        Ok(())
    }

    /// The connection, for the noun modules.
    pub(crate) fn on(&mut self) -> &mut SqliteConnection {
        &mut self.inner
    }
}

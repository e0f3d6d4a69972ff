//! Keeping receipts: parts of leaves as they come, the row, the statement.

use super::{BODY_FORMAT, CutoverTimes, ExceptionCounts, ReceiptBody, exceptions_of};
use crate::Clock;
use async_trait::async_trait;
use jiff::Timestamp;
use rehome_domain::{
    error_id::{ErrorId, Problem},
    id::{AttemptId, TenantId},
};
use rehome_identity::{Identity, statement::ReceiptStatement};
use rehome_platform::{LockMethod, Platforms};
use rehome_replicate::{
    StorageError,
    receipt::{Accounted, PartSink},
};
use rehome_store::{ReceiptRow, ReceiptSide, Store, StoreError, Tx};
use rehome_wire::{
    digest::Digest,
    receipt::{
        Part, ReceiptError, ReceiptException, ReceiptReader, Totals, exceptions_root, write_closing, write_end,
        write_opening,
    },
    uid_set::UidSet,
};
use std::collections::HashMap;

/// Longest part, unpacked: one is cut after 1 MiB, at the end of an item.
const MAX_PART: usize = 4 * 1024 * 1024;
/// How hard parts are packed: most of them are digests, which no effort makes smaller.
const PACKING: i32 = 1;
/// Packed parts that are written together, octets.
const WRITTEN_AT_ONCE: usize = 4 * 1024 * 1024;

/// Why a receipt cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptFailure {
    /// The state failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored is no receipt.
    #[error("the stored receipt of attempt {attempt} is damaged: {why}")]
    Damaged {
        /// Whose receipt.
        attempt: AttemptId,
        /// What is wrong.
        why: String,
    },
    /// It could not be signed.
    #[error("the receipt could not be signed")]
    Signing(#[from] rehome_identity::error::KeyStoreError),
}

impl From<ReceiptFailure> for Problem {
    fn from(failure: ReceiptFailure) -> Self {
        Problem::new(
            ErrorId::Unexpected,
            format!("{}.", crate::error_chain(&failure)),
            "The server's log has more under this correlation id.",
        )
    }
}

/// A packed part as stored.
pub(super) fn unpacked(attempt: AttemptId, body: &[u8]) -> Result<Vec<u8>, ReceiptFailure> {
    zstd::bulk::decompress(body, MAX_PART).map_err(|error| ReceiptFailure::Damaged {
        attempt,
        why: error.to_string(),
    })
}

/// Stores the leaves of one receipt as they come.
pub(crate) struct Parts {
    store: Store,
    tenant: TenantId,
    attempt: AttemptId,
    number: u32,
    step: &'static str,
    waiting: Vec<Vec<u8>>,
    written: u32,
}

impl Parts {
    /// Begins anew: whatever was stored under this number is removed. `step` names the writes.
    pub(crate) async fn begin(
        store: &Store,
        tenant: TenantId,
        (attempt, number): (AttemptId, u32),
        step: &'static str,
    ) -> Result<Self, StoreError> {
        let mut tx = store.write().await?;
        tx.receipt_begin(tenant, attempt, number).await?;
        tx.commit(step).await?;
        Ok(Self {
            store: store.clone(),
            tenant,
            attempt,
            number,
            step,
            waiting: Vec::new(),
            written: 0,
        })
    }

    /// Stores the row in the transaction of the last parts.
    pub(crate) async fn finish(mut self, row: &ReceiptRow) -> Result<(), StoreError> {
        let mut tx = self.store.write().await?;
        self.write(&mut tx).await?;
        tx.receipt_put(row).await?;
        tx.commit(self.step).await
    }

    async fn write(&mut self, tx: &mut Tx) -> Result<(), StoreError> {
        for body in std::mem::take(&mut self.waiting) {
            tx.receipt_part_put(self.tenant, (self.attempt, self.number, self.written), &body)
                .await?;
            self.written += 1;
        }
        Ok(())
    }
}

#[async_trait]
impl PartSink for Parts {
    async fn part(&mut self, octets: Vec<u8>) -> Result<(), StorageError> {
        let failed = |message: String| StorageError::Failed { message };
        let packed = zstd::bulk::compress(&octets, PACKING).map_err(|error| failed(error.to_string()))?;
        self.waiting.push(packed);
        if self.waiting.iter().map(Vec::len).sum::<usize>() < WRITTEN_AT_ONCE {
            return Ok(());
        }
        let write = async {
            let mut tx = self.store.write().await?;
            self.write(&mut tx).await?;
            tx.commit(self.step).await
        };
        write.await.map_err(|error| failed(crate::error_chain(&error)))
    }
}

/// The items that the additions of a receipt account for already.
pub(crate) async fn accounted(tx: &mut Tx, sections: &[ReceiptRow]) -> Result<Accounted, ReceiptFailure> {
    let mut uids: HashMap<(Vec<String>, u32), Vec<u32>> = HashMap::new();
    let mut folder = None;
    let mut note = |part: Part| match part {
        Part::Folder { path, uid_validity } => folder = Some((path, uid_validity)),
        Part::Leaf(leaf, _) => {
            if let Some(folder) = &folder {
                uids.entry(folder.clone()).or_default().push(leaf.uid);
            }
        }
        Part::Opening { .. } | Part::FolderEnd { .. } | Part::Exception(_) | Part::Section(_) | Part::End => {}
    };
    for row in sections.iter().filter(|row| row.number > 0) {
        // Alone, as if it were a receipt of its own.
        let alone = ReceiptRow {
            number: 0,
            ..row.clone()
        };
        let mut reader = ReceiptReader::new();
        let mut failure = None;
        write_section(tx, (row, 0), |octets| {
            if failure.is_none() {
                failure = reader.push(octets, &mut note).err();
            }
        })
        .await?;
        if let Some(error) = failure {
            return Err(damaged(&alone, &error));
        }
    }
    let sorted = uids.into_iter().map(|(folder, mut uids)| {
        uids.sort_unstable();
        uids.dedup();
        (folder, UidSet::from_ascending(uids))
    });
    Ok(sorted.collect())
}

pub(super) fn damaged(row: &ReceiptRow, error: &ReceiptError) -> ReceiptFailure {
    ReceiptFailure::Damaged {
        attempt: row.attempt,
        why: error.to_string(),
    }
}

/// The exceptions of a receipt, in the order in which they are written.
pub(super) fn exceptions(row: &ReceiptRow) -> Result<(Vec<ReceiptException>, Vec<Vec<u8>>), ReceiptFailure> {
    let exceptions = exceptions_of(&row.exceptions).ok_or_else(|| ReceiptFailure::Damaged {
        attempt: row.attempt,
        why: "its exceptions cannot be read".to_owned(),
    })?;
    let mut octets: Vec<Vec<u8>> = exceptions.iter().map(ReceiptException::octets).collect();
    octets.sort_unstable();
    Ok((exceptions, octets))
}

fn totals(row: &ReceiptRow, exceptions: &mut [Vec<u8>]) -> Totals {
    Totals {
        root: Digest(row.root),
        exceptions_root: exceptions_root(exceptions),
        folders: row.folders,
        items: row.items,
        octets: row.octets,
        exceptions: exceptions.len() as u64,
    }
}

/// Gives the octets of one section to `out`, under the number given.
async fn write_section(
    tx: &mut Tx,
    (row, number): (&ReceiptRow, u32),
    mut out: impl FnMut(&[u8]),
) -> Result<(), ReceiptFailure> {
    let (source, target) = match row.side {
        ReceiptSide::Source => (&row.own_statement, &row.partner_statement),
        ReceiptSide::Target => (&row.partner_statement, &row.own_statement),
    };
    let statements: Vec<&str> = [source, target]
        .into_iter()
        .filter_map(|text| text.as_deref())
        .collect();
    let mut octets = Vec::new();
    write_opening(number, &statements, &mut octets);
    out(&octets);
    let mut part = 0;
    while let Some(body) = tx.receipt_part_get(row.tenant, (row.attempt, row.number, part)).await? {
        out(&unpacked(row.attempt, &body)?);
        part += 1;
    }
    let (_, mut exceptions) = exceptions(row)?;
    let mut octets = exceptions.concat();
    write_closing(&totals(row, &mut exceptions), &mut octets);
    out(&octets);
    Ok(())
}

/// Gives the octets of a receipt to `out`, section after section, with its end.
pub(super) async fn write_receipt(
    tx: &mut Tx,
    sections: &[ReceiptRow],
    mut out: impl FnMut(&[u8]),
) -> Result<(), ReceiptFailure> {
    let mut digester = rehome_wire::digest::Digester::new();
    for row in sections {
        write_section(tx, (row, row.number), |octets| {
            digester.update(octets);
            out(octets);
        })
        .await?;
    }
    let mut end = Vec::new();
    write_end(digester.finish(), &mut end);
    out(&end);
    Ok(())
}

/// Receipts of one deployment: signed, looked up, written out. Cheap to make.
#[derive(Clone)]
pub struct Receipts {
    pub(super) store: Store,
    identity: Identity,
    platforms: Platforms,
    clock: Clock,
}

impl Receipts {
    /// Over these parts.
    #[must_use]
    pub fn new(store: Store, identity: Identity, platforms: Platforms, clock: Clock) -> Self {
        Self {
            store,
            identity,
            platforms,
            clock,
        }
    }

    /// Signs a receipt that was made and is not signed yet, and stores the statement. Returns the row as it is then.
    ///
    /// # Errors
    /// [`ReceiptFailure`].
    pub async fn sign(&self, mut row: ReceiptRow) -> Result<ReceiptRow, ReceiptFailure> {
        let Some(made) = row.made.filter(|_| row.own_statement.is_none()) else {
            return Ok(row);
        };
        let body = self.body(&row, made).await?;
        let (source, target) = match row.side {
            ReceiptSide::Source => (row.tenant, row.partner_tenant),
            ReceiptSide::Target => (row.partner_tenant, row.tenant),
        };
        let statement = ReceiptStatement {
            move_id: row.move_id,
            attempt: row.attempt,
            exchange_guid: row.exchange_guid,
            target_tenant: target,
            source_tenant: source,
            at: Timestamp::from_second(made.as_second()).unwrap_or(made),
            body: serde_json::json!(body),
        };
        let signed = self
            .identity
            .sign_receipt(row.tenant, &statement, self.clock.now())
            .await?;
        let mut tx = self.store.write().await?;
        // Someone else may have been quicker; the first statement stays.
        if let Some(stored) = tx.receipt_get(row.tenant, row.attempt, row.number).await? {
            row = stored;
        }
        if row.own_statement.is_none() {
            row.own_statement = Some(signed);
            tx.receipt_put(&row).await?;
        }
        tx.commit("receipt.signed").await?;
        Ok(row)
    }

    async fn body(&self, row: &ReceiptRow, made: Timestamp) -> Result<ReceiptBody, ReceiptFailure> {
        let mut tx = self.store.read().await?;
        let organisation = tx
            .tenant_get(row.tenant)
            .await?
            .map_or_else(|| row.tenant.to_string(), |tenant| tenant.initial_domain.to_string());
        let ms = |at: Timestamp| at.as_millisecond();
        let (platform, times) = match row.side {
            ReceiptSide::Source => {
                let attempt = tx.source_attempt_get(row.tenant, row.attempt).await?;
                let machine = attempt.as_ref().map(|row| &row.attempt);
                let committed = machine.and_then(|attempt| attempt.committed_at);
                let granted = machine.map(|attempt| attempt.granted_at);
                let times = CutoverTimes {
                    locked: granted.map(ms),
                    prepared: attempt.as_ref().and_then(|row| row.prepared_at).map(ms),
                    committed: committed.map(ms),
                    lock_milliseconds: committed
                        .zip(granted)
                        .and_then(|(end, begin)| u64::try_from(end.duration_since(begin).as_millis()).ok()),
                    ..CutoverTimes::default()
                };
                (attempt.and_then(|row| row.platform), times)
            }
            ReceiptSide::Target => {
                let attempt = tx.attempt_get(row.tenant, row.attempt).await?;
                let times = CutoverTimes {
                    begun: attempt.as_ref().map(|row| ms(row.begun)),
                    decided: attempt.as_ref().and_then(|row| row.decided).map(ms),
                    lock_milliseconds: attempt.as_ref().and_then(|row| row.lock_milliseconds),
                    ..CutoverTimes::default()
                };
                (attempt.and_then(|row| row.platform), times)
            }
        };
        drop(tx);
        let method = platform.and_then(|name| self.platforms.lock_method(&name).ok());
        let (exceptions, mut octets) = exceptions(row)?;
        Ok(ReceiptBody {
            format: BODY_FORMAT,
            side: row.side.as_str().to_owned(),
            number: row.number,
            address: row.address.clone(),
            organisation,
            root: Digest(row.root).to_string(),
            exceptions_root: exceptions_root(&mut octets).to_string(),
            folders: row.folders,
            items: row.items,
            octets: row.octets,
            exceptions: ExceptionCounts::of(&exceptions),
            // What is not known to have been locked is not said to have been.
            platform: match method {
                Some(LockMethod::Locked) => "locked",
                Some(LockMethod::NotLocked) | None => "not locked",
            }
            .to_owned(),
            made: ms(made),
            times,
            tool: format!("rehome {}", env!("CARGO_PKG_VERSION")),
        })
    }
}

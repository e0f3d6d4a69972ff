//! Looking receipts up, writing them out in chunks, and finding a message in one.

use super::{
    ReceiptBody, ReceiptFailure, Receipts,
    keep::{damaged, exceptions, write_receipt},
};
use jiff::Timestamp;
use rehome_domain::id::{AttemptId, ExchangeGuid, TenantId};
use rehome_identity::statement::ReadReceipt;
use rehome_store::ReceiptRow;
use rehome_wire::{
    digest::Digest,
    receipt::{ReceiptReader, SingleFinder, SingleProof},
};

/// A receipt in short.
#[derive(Clone, Debug)]
pub struct Summary {
    /// As stored.
    pub row: ReceiptRow,
    /// What our own statement says; none where it is not signed yet.
    pub own: Option<ReceiptBody>,
    /// What the partner's statement says.
    pub partner: Option<ReceiptBody>,
    /// The id of the key that our statement is signed with.
    pub own_key: Option<String>,
    /// That of the partner's.
    pub partner_key: Option<String>,
    /// Where we publish ours.
    pub own_keys_at: Option<String>,
    /// Where the partner publishes his.
    pub partner_keys_at: Option<String>,
    /// How many items are not on the target as they were at the source.
    pub exceptions: u64,
}

/// Some octets of a receipt's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The octets.
    pub octets: Vec<u8>,
    /// How many the file has in all.
    pub length: u64,
}

/// A message that is in a receipt.
#[derive(Clone, Debug)]
pub struct FoundMessage {
    /// When the section that holds it was made: committed, or swept.
    pub made: Timestamp,
    /// The proof, with every place of the message in the section.
    pub proof: SingleProof,
}

impl Receipts {
    /// The receipts of a tenant, newest first, what later sweeps brought behind each. All, or those of one mailbox: by the
    /// address that it had, by the id of user, attempt or mailbox.
    ///
    /// # Errors
    /// [`ReceiptFailure`].
    pub async fn list(
        &self,
        tenant: TenantId,
        identity: Option<&str>,
        guid: Option<ExchangeGuid>,
    ) -> Result<Vec<Summary>, ReceiptFailure> {
        let rows = self.store.read().await?.receipt_list(tenant).await?;
        let mut summaries = Vec::new();
        for row in rows {
            let wanted = identity.is_none_or(|identity| {
                let ids = [
                    row.address.clone(),
                    row.move_id.to_string(),
                    row.attempt.to_string(),
                    row.exchange_guid.to_string(),
                ];
                ids.iter().any(|id| id.eq_ignore_ascii_case(identity))
            });
            if wanted || guid.is_some_and(|guid| guid == row.exchange_guid) {
                summaries.push(summary(self.sign(row).await?)?);
            }
        }
        Ok(summaries)
    }

    async fn sections(&self, tenant: TenantId, attempt: AttemptId) -> Result<Vec<ReceiptRow>, ReceiptFailure> {
        let rows = self.store.read().await?.receipt_sections(tenant, attempt).await?;
        let mut signed = Vec::with_capacity(rows.len());
        for row in rows {
            signed.push(self.sign(row).await?);
        }
        Ok(signed)
    }

    /// At most `most` octets of a receipt's file, from `from` on. The file is made anew for each chunk from what is stored;
    /// no more than a chunk and a part of it is held. A sweep between two chunks may make it longer; the digest at its end
    /// shows that.
    ///
    /// # Errors
    /// [`ReceiptFailure`].
    pub async fn chunk(
        &self,
        tenant: TenantId,
        attempt: AttemptId,
        from: u64,
        most: usize,
    ) -> Result<Chunk, ReceiptFailure> {
        let sections = self.sections(tenant, attempt).await?;
        let mut tx = self.store.read().await?;
        let mut chunk = Chunk {
            octets: Vec::new(),
            length: 0,
        };
        write_receipt(&mut tx, &sections, |octets| {
            let begin = usize::try_from(from.saturating_sub(chunk.length)).unwrap_or(usize::MAX);
            chunk.length += octets.len() as u64;
            let room = most - chunk.octets.len();
            if let Some(rest) = octets.get(begin..) {
                chunk.octets.extend_from_slice(&rest[..rest.len().min(room)]);
            }
        })
        .await?;
        Ok(chunk)
    }

    /// Looks for a message in a receipt by the digest of its canonical form ([`super::digest_of_message`]). The whole
    /// receipt is checked on the way.
    ///
    /// # Errors
    /// [`ReceiptFailure`]; also when what is stored does not make the roots that were signed.
    pub async fn find(
        &self,
        tenant: TenantId,
        attempt: AttemptId,
        message: Digest,
    ) -> Result<Vec<FoundMessage>, ReceiptFailure> {
        let sections = self.sections(tenant, attempt).await?;
        let Some(first) = sections.first() else {
            return Ok(Vec::new());
        };
        let (mut reader, mut finder) = (ReceiptReader::new(), SingleFinder::new(message));
        let mut failure = None;
        let mut tx = self.store.read().await?;
        write_receipt(&mut tx, &sections, |octets| {
            if failure.is_none() {
                failure = reader.push(octets, |part| finder.part(part)).err();
            }
        })
        .await?;
        let read = failure.map_or_else(|| reader.finish(), Err);
        read.map_err(|error| damaged(first, &error))?;
        let found = finder.finish().into_iter().filter_map(|proof| {
            let made = sections.iter().find(|row| row.number == proof.number)?.made?;
            Some(FoundMessage { made, proof })
        });
        Ok(found.collect())
    }
}

fn summary(row: ReceiptRow) -> Result<Summary, ReceiptFailure> {
    let read = |text: &Option<String>| text.as_deref().and_then(|text| ReadReceipt::read(text).ok());
    let body = |read: &Option<ReadReceipt>| {
        let read = read.as_ref()?;
        serde_json::from_value(read.statement.body.clone()).ok()
    };
    let (own, partner) = (read(&row.own_statement), read(&row.partner_statement));
    let (exceptions, _) = exceptions(&row)?;
    Ok(Summary {
        own: body(&own),
        partner: body(&partner),
        own_key: own.as_ref().map(|read| read.kid.clone()),
        partner_key: partner.as_ref().map(|read| read.kid.clone()),
        own_keys_at: own.and_then(|read| read.keys_at),
        partner_keys_at: partner.and_then(|read| read.keys_at),
        exceptions: exceptions.len() as u64,
        row,
    })
}

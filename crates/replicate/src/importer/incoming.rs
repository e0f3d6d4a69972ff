//! Items on their way: octets gathered in memory or in the spool folder until an item is complete and hashed.

use super::{
    Work,
    budget::{HUGE, HeldOctets},
};
use crate::{
    error::PassError,
    ledger::Record,
    report::{self, Heading, ReportClass, ReportItem},
};
use bytes::Bytes;
use rehome_mailbox::{Body, MailboxError};
use rehome_wire::frames::ItemHeader;
use std::{path::PathBuf, sync::atomic::Ordering};
use tokio::{io::AsyncWriteExt, sync::OwnedMutexGuard};

/// No larger item is taken at all: 4 GiB, less what else may be in the spool folder.
pub(super) const MAX_ITEM: u64 = (4 * 1024 - 64) * 1024 * 1024;
/// Octets of an item in which its header is looked for.
pub(super) const HEADING_WITHIN: usize = 64 * 1024;
/// Octets set aside for an item of unknown length.
const UNKNOWN_ITEM: usize = 64 * 1024;
/// Years 0 to 9999: what every platform can write as a date.
const RECEIVED: std::ops::RangeInclusive<i64> = -62_167_219_200..=253_402_300_799;

/// A file in the spool folder; removed with this value.
pub(super) struct SpoolFile {
    path: PathBuf,
    /// Held by a very large one.
    huge: Option<OwnedMutexGuard<()>>,
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, "a spool file could not be removed");
        }
    }
}

/// An item, complete and hashed.
pub(super) struct Ready {
    pub(super) record: Record,
    pub(super) body: Body,
    pub(super) heading: Heading,
    /// Octets of the budget that it holds while it is at work.
    held: Option<HeldOctets>,
    /// Keeps the spool file for as long.
    _spool: Option<SpoolFile>,
}

/// An item on its way.
pub(super) struct Incoming {
    pub(super) header: ItemHeader,
    pub(super) heading: Heading,
    pub(super) length: u64,
    memory: Vec<u8>,
    held: Option<HeldOctets>,
    spool: Option<(tokio::fs::File, SpoolFile)>,
    /// Why it will not be used.
    refused: Option<(ReportClass, String)>,
}

/// What is applied together.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) items: Vec<Ready>,
    pub(super) reports: Vec<ReportItem>,
    pub(super) memory: usize,
    pub(super) spooled: u64,
}

impl Batch {
    pub(super) fn push(&mut self, item: Ready) {
        match &item.held {
            Some(held) => self.memory += held.count(),
            None => self.spooled += item.record.length,
        }
        self.items.push(item);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty() && self.reports.is_empty()
    }
}

/// An item that came whole, or why it is not used, with its record and what was seen of its header.
pub(super) type Complete = Result<Ready, ((ReportClass, String), Record, Heading)>;

impl Incoming {
    /// What an item of this length asks of the budget.
    pub(super) fn wants(work: &Work<'_>, length: Option<u64>) -> usize {
        let limit = work.budget.item_in_memory();
        match length {
            // Line ends may grow on the way to the canonical form.
            Some(length) => usize::try_from(length + length / 32 + 256)
                .unwrap_or(usize::MAX)
                .min(limit),
            None => UNKNOWN_ITEM.min(limit),
        }
    }

    pub(super) fn begin(header: ItemHeader, held: Option<HeldOctets>) -> Self {
        let refused = (!RECEIVED.contains(&header.received)).then(|| {
            (
                ReportClass::Bad,
                "its received time lies outside the years 0 to 9999".to_owned(),
            )
        });
        Self {
            memory: match header.length {
                Some(_) if refused.is_none() => Vec::with_capacity(held.as_ref().map_or(0, HeldOctets::count)),
                Some(_) | None => Vec::new(),
            },
            held: held.filter(|_| refused.is_none()),
            header,
            spool: None,
            length: 0,
            heading: Heading::default(),
            refused,
        }
    }

    /// Whether the next octets make it one of which only one may be in the spool folder.
    pub(super) fn becomes_huge(&self, octets: usize) -> bool {
        let over = self.length + octets as u64 > HUGE;
        over && self.spool.as_ref().is_some_and(|(_, file)| file.huge.is_none())
    }

    /// The place that such an item needs.
    pub(super) fn set_huge(&mut self, place: OwnedMutexGuard<()>) {
        if let Some((_, file)) = &mut self.spool {
            file.huge = Some(place);
        }
    }

    pub(super) async fn take(&mut self, work: &Work<'_>, octets: &Bytes) -> Result<(), PassError> {
        self.length += octets.len() as u64;
        let limit = work.item_limit();
        if self.length > limit && self.refused.is_none() {
            self.find_heading();
            self.refused = Some((ReportClass::TooLarge, too_large(limit)));
            self.spool = None;
            self.memory = Vec::new();
            self.held = None;
        }
        if self.refused.is_some() {
            return Ok(());
        }
        if self.spool.is_none() && !self.fits(work, self.memory.len() + octets.len()) {
            self.find_heading();
            let (mut file, guard) = work.spool_file().await?;
            file.write_all(&self.memory).await.map_err(spool_error)?;
            self.memory = Vec::new();
            self.held = None;
            self.spool = Some((file, guard));
        }
        match &mut self.spool {
            Some((file, _)) => file.write_all(octets).await.map_err(spool_error),
            None => {
                self.memory.extend_from_slice(octets);
                Ok(())
            }
        }
    }

    /// Whether so many octets may be in memory. More are taken only where that needs no waiting.
    fn fits(&mut self, work: &Work<'_>, octets: usize) -> bool {
        let Some(held) = &mut self.held else { return false };
        let has = held.count();
        if octets <= has {
            return true;
        }
        let limit = work.budget.item_in_memory();
        let wanted = octets.max(2 * has).min(limit);
        match work.budget.try_take(wanted - has) {
            Some(more) if octets <= limit => {
                held.add(more);
                true
            }
            Some(_) | None => false,
        }
    }

    fn find_heading(&mut self) {
        if self.heading.is_empty() {
            self.heading = report::heading(&self.memory[..self.memory.len().min(HEADING_WITHIN)]);
        }
    }

    pub(super) async fn complete(mut self, record: Record) -> Result<Complete, PassError> {
        self.find_heading();
        let Self {
            mut memory,
            mut held,
            spool,
            heading,
            refused,
            ..
        } = self;
        if let Some(reason) = refused {
            return Ok(Err((reason, record, heading)));
        }
        let (body, _spool) = match spool {
            Some((mut file, guard)) => {
                file.flush().await.map_err(spool_error)?;
                (Body::Spooled(guard.path.clone()), Some(guard))
            }
            None => {
                if memory.capacity() > 2 * memory.len() + 4096 {
                    memory.shrink_to_fit();
                }
                if let Some(held) = &mut held {
                    // What was set aside and not needed is given back.
                    held.keep(memory.len());
                }
                (Body::Memory(memory.into()), None)
            }
        };
        Ok(Ok(Ready {
            record,
            body,
            heading,
            held,
            _spool,
        }))
    }
}

impl Work<'_> {
    /// The largest item that is taken.
    pub(super) fn item_limit(&self) -> u64 {
        self.capabilities.max_item_length.unwrap_or(MAX_ITEM).min(MAX_ITEM)
    }

    async fn spool_file(&self) -> Result<(tokio::fs::File, SpoolFile), PassError> {
        tokio::fs::create_dir_all(&self.settings.spool)
            .await
            .map_err(spool_error)?;
        let number = self.spooled.fetch_add(1, Ordering::Relaxed) + 1;
        let name = format!("{}{number}", spool_prefix(self.settings.move_id));
        let path = self.settings.spool.join(name);
        let file = tokio::fs::File::create(&path).await.map_err(spool_error)?;
        Ok((file, SpoolFile { path, huge: None }))
    }

    /// Removes what an interrupted pass of this move left in the spool folder.
    pub(super) async fn clear_spool(&self) -> Result<(), PassError> {
        let mut entries = match tokio::fs::read_dir(&self.settings.spool).await {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(spool_error(error)),
        };
        let prefix = spool_prefix(self.settings.move_id);
        while let Some(entry) = entries.next_entry().await.map_err(spool_error)? {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                tokio::fs::remove_file(entry.path()).await.map_err(spool_error)?;
            }
        }
        Ok(())
    }
}

pub(super) fn too_large(limit: u64) -> String {
    format!("it is larger than {limit} octets, the most that the target takes")
}

fn spool_prefix(move_id: u128) -> String {
    format!("{move_id:032x}-")
}

fn spool_error(error: std::io::Error) -> PassError {
    PassError::Spool {
        cause: error.to_string(),
    }
}

/// The reason of a refusal for the report.
pub(super) fn refusal(error: &MailboxError) -> String {
    format!("the target refused it: {}", error.cause)
}

//! Item records, in chunks of 4096 uids.

use super::{KeywordTable, LedgerError, read_texts, write_texts};
use crate::codec::{Reader, Writer};
use rehome_wire::{
    digest::Digest,
    flags::{Flags, MAX_KEYWORDS},
};
use std::collections::BTreeMap;

/// A chunk's number is the uid shifted right by this.
pub const CHUNK_SHIFT: u32 = 12;
/// Octets of one record.
pub(super) const RECORD_LENGTH: usize = 60;

const LINE_ENDS_ONLY: u8 = 4;

/// What reading an item back from the target showed. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadBack {
    /// It was not read back yet.
    Open = 0,
    /// The target holds the digest that was sent.
    Equal = 1,
    /// The target holds something else; the report says what.
    Altered = 2,
}

/// One item that is on the target, as the source had it when last synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The uid at the source.
    pub uid: u32,
    /// Canonical length.
    pub length: u64,
    /// Canonical digest.
    pub digest: Digest,
    /// The source's flags.
    pub flags: Flags,
    /// The source's received time, whole seconds since 1970.
    pub received: i64,
    /// What reading it back showed.
    pub read_back: ReadBack,
    /// The source's raw octets differ from the canonical form in line ends.
    pub line_ends_only: bool,
}

impl Record {
    /// The number of the chunk that holds it.
    #[must_use]
    pub fn chunk(&self) -> u32 {
        self.uid >> CHUNK_SHIFT
    }
}

/// The state octet of records and of a window's items.
pub(super) fn state_octet(read_back: ReadBack, line_ends_only: bool) -> u8 {
    read_back as u8 | if line_ends_only { LINE_ENDS_ONLY } else { 0 }
}

/// The parts of a state octet.
pub(super) fn state_parts(octet: u8) -> Option<(ReadBack, bool)> {
    let read_back = match octet & !LINE_ENDS_ONLY {
        0 => ReadBack::Open,
        1 => ReadBack::Equal,
        2 => ReadBack::Altered,
        _ => return None,
    };
    Some((read_back, octet & LINE_ENDS_ONLY != 0))
}

/// The stored form of one chunk's records, which ascend. New keywords enter the table.
#[must_use]
pub fn encode_records<'r>(table: &mut KeywordTable, records: impl ExactSizeIterator<Item = &'r Record>) -> Vec<u8> {
    let mut writer = Writer::new();
    let mut overflows: Vec<(u16, Vec<String>)> = Vec::new();
    writer.count(records.len());
    for record in records {
        let low = low(record.uid);
        let mut bits = 0_u64;
        let mut overflow = Vec::new();
        for keyword in record.flags.keywords() {
            match table.bit(keyword) {
                Some(bit) => bits |= 1 << bit,
                None => overflow.push(keyword.clone()),
            }
        }
        if !overflow.is_empty() {
            overflows.push((low, overflow));
        }
        writer.u16(low);
        writer.u8(state_octet(record.read_back, record.line_ends_only));
        writer.u8(record.flags.system());
        writer.u64(bits);
        writer.u64(record.length);
        writer.i64(record.received);
        writer.digest(&record.digest);
    }
    writer.count(overflows.len());
    for (low, names) in &overflows {
        writer.u16(*low);
        write_texts(&mut writer, names);
    }
    writer.finish()
}

/// Reads the stored form of chunk number `chunk`.
///
/// # Errors
/// [`LedgerError::Damaged`].
pub fn decode_records(chunk: u32, table: &KeywordTable, octets: &[u8]) -> Result<Vec<Record>, LedgerError> {
    struct Raw {
        low: u16,
        state: u8,
        system: u8,
        bits: u64,
        length: u64,
        received: i64,
        digest: Digest,
    }
    let mut reader = Reader::new("records", octets)?;
    let count = reader.count(RECORD_LENGTH)?;
    let mut raws = Vec::with_capacity(count);
    for _ in 0..count {
        raws.push(Raw {
            low: reader.u16()?,
            state: reader.u8()?,
            system: reader.u8()?,
            bits: reader.u64()?,
            length: reader.u64()?,
            received: reader.i64()?,
            digest: reader.digest()?,
        });
    }
    let mut overflows: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for _ in 0..reader.count(6)? {
        overflows.insert(reader.u16()?, read_texts(&mut reader, MAX_KEYWORDS)?);
    }
    let mut before = None;
    let mut records = Vec::with_capacity(count);
    for raw in raws {
        if u32::from(raw.low) >> CHUNK_SHIFT != 0 || before >= Some(raw.low) {
            return Err(reader.damaged("uids do not ascend"));
        }
        before = Some(raw.low);
        let (read_back, line_ends_only) =
            state_parts(raw.state).ok_or_else(|| reader.damaged(format!("item state {}", raw.state)))?;
        let mut keywords = table
            .names_of(raw.bits)
            .ok_or_else(|| reader.damaged("a keyword bit without a name"))?;
        keywords.extend(overflows.remove(&raw.low).unwrap_or_default());
        records.push(Record {
            uid: chunk << CHUNK_SHIFT | u32::from(raw.low),
            length: raw.length,
            digest: raw.digest,
            flags: Flags::from_parts(raw.system, keywords),
            received: raw.received,
            read_back,
            line_ends_only,
        });
    }
    reader.finish()?;
    Ok(records)
}

fn low(uid: u32) -> u16 {
    (uid & ((1 << CHUNK_SHIFT) - 1)) as u16
}

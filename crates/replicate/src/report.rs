//! What is said about single items: skipped, altered, or not wholly as at the source.
//!
//! Stored form of a chunk, with the conventions of [`crate::ledger`]: a list of: uid u32, kind u8, side u8, found i64,
//! size option u64, received option i64, reason text, subject option text, held option (length u64, digest).

use crate::{
    codec::{Reader, Writer},
    ledger::LedgerError,
};
use rehome_wire::digest::Digest;

/// What is reported about an item. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReportKind {
    /// It is not on the target.
    Skipped = 1,
    /// The target holds other octets than were sent.
    Altered = 2,
    /// The target does not hold the source's flags.
    Flags = 3,
    /// The target does not hold the source's received time.
    Date = 4,
    /// The source's raw octets differ from the canonical form in line ends only.
    LineEnds = 5,
    /// The target could not keep some keywords.
    Keywords = 6,
    /// The target holds it once more: an append that was believed lost came late, and the mailbox was in use by then.
    Double = 7,
}

impl ReportKind {
    /// As administrators read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Skipped => "Skipped",
            Self::Altered => "Altered",
            Self::Flags => "Flags",
            Self::Date => "Date",
            Self::LineEnds => "LineEnds",
            Self::Keywords => "Keywords",
            Self::Double => "Double",
        }
    }
}

/// Which side is at fault. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The source.
    Source = 1,
    /// The target.
    Target = 2,
}

/// What is reported about one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportItem {
    /// The source folder's path.
    pub folder: Vec<String>,
    /// The source uid.
    pub uid: u32,
    /// What.
    pub kind: ReportKind,
    /// Why, for administrators; with the platform's own words.
    pub reason: String,
    /// At whose fault.
    pub side: Side,
    /// Length in octets, where known.
    pub size: Option<u64>,
    /// Received time, whole seconds since 1970, where known.
    pub received: Option<i64>,
    /// The subject as written in the header (RFC 2047 words undecoded), at most 200 octets, where it was seen.
    pub subject: Option<String>,
    /// What the target holds in its place: canonical length and digest, where it could be read.
    pub held: Option<(u64, Digest)>,
    /// When it was found first, whole seconds since 1970.
    pub found: i64,
}

/// Everything reported about a move.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Items by folder and uid.
    pub items: Vec<ReportItem>,
    /// Items of which the source's raw octets differ in line ends only; they are counted, not named.
    pub line_ends_only: u64,
}

impl Report {
    /// How many items are of this kind.
    #[must_use]
    pub fn count(&self, kind: ReportKind) -> u64 {
        match kind {
            ReportKind::LineEnds => self.line_ends_only,
            ReportKind::Skipped
            | ReportKind::Altered
            | ReportKind::Flags
            | ReportKind::Date
            | ReportKind::Keywords
            | ReportKind::Double => self.items.iter().filter(|item| item.kind == kind).count() as u64,
        }
    }
}

/// Puts an item into a chunk of the report. Found again, it keeps the time when it was found first, so that an
/// approval given meanwhile holds.
pub(crate) fn put(items: &mut Vec<ReportItem>, mut item: ReportItem) {
    match items.binary_search_by_key(&(item.uid, item.kind), |held| (held.uid, held.kind)) {
        Ok(at) => {
            item.found = items[at].found;
            if item.subject.is_none() {
                item.subject = items[at].subject.take();
            }
            items[at] = item;
        }
        Err(at) => items.insert(at, item),
    }
}

pub(crate) fn encode(items: &[ReportItem]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.count(items.len());
    for item in items {
        writer.u32(item.uid);
        writer.u8(item.kind as u8);
        writer.u8(item.side as u8);
        writer.i64(item.found);
        writer.option(item.size, Writer::u64);
        writer.option(item.received, Writer::i64);
        writer.text(&item.reason);
        writer.option(item.subject.as_ref(), |writer, subject| writer.text(subject));
        writer.option(item.held.as_ref(), |writer, (length, digest)| {
            writer.u64(*length);
            writer.digest(digest);
        });
    }
    writer.finish()
}

pub(crate) fn decode(folder: &[String], octets: &[u8]) -> Result<Vec<ReportItem>, LedgerError> {
    let mut reader = Reader::new("report", octets)?;
    let count = reader.count(20)?;
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        let uid = reader.u32()?;
        let kind = match reader.u8()? {
            1 => ReportKind::Skipped,
            2 => ReportKind::Altered,
            3 => ReportKind::Flags,
            4 => ReportKind::Date,
            5 => ReportKind::LineEnds,
            6 => ReportKind::Keywords,
            7 => ReportKind::Double,
            other => return Err(reader.damaged(format!("report kind {other}"))),
        };
        let side = match reader.u8()? {
            1 => Side::Source,
            2 => Side::Target,
            other => return Err(reader.damaged(format!("side {other}"))),
        };
        items.push(ReportItem {
            folder: folder.to_vec(),
            uid,
            kind,
            side,
            found: reader.i64()?,
            size: reader.option(Reader::u64)?,
            received: reader.option(Reader::i64)?,
            reason: reader.text()?,
            subject: reader.option(Reader::text)?,
            held: reader.option(|reader| Ok((reader.u64()?, reader.digest()?)))?,
        });
    }
    reader.finish()?;
    Ok(items)
}

/// The subject line in an item's first octets, for people: unfolded, at most 200 octets, other octets replaced.
pub(crate) fn subject(octets: &[u8]) -> Option<String> {
    let mut subject: Option<Vec<u8>> = None;
    for line in octets.split(|octet| *octet == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() || subject.as_ref().is_some_and(|held| held.len() > 200) {
            break;
        }
        let folded = matches!(line[0], b' ' | b'\t');
        match (&mut subject, folded) {
            (Some(held), true) => held.extend_from_slice(line),
            (Some(_), false) => break,
            (None, _) => {
                if line.len() > 8 && line[..8].eq_ignore_ascii_case(b"subject:") {
                    subject = Some(line[8..].to_vec());
                }
            }
        }
    }
    let text = String::from_utf8_lossy(&subject?).replace(char::is_control, " ");
    let text = text.trim();
    Some(text[..text.floor_char_boundary(200)].to_owned())
}

//! What is said about single items: skipped, altered, or not wholly as at the source.
//!
//! Stored form of a chunk, with the conventions of [`crate::ledger`], version 2: a list of: uid u32, kind u8, side u8,
//! found i64, size option u64, received option i64, reason text, subject option text, held option (length u64, digest),
//! class u8, sender option text, date sent option text. Version 1 ends with held; its classes are told by side and reason.

use crate::{
    codec::{Reader, Writer},
    ledger::LedgerError,
};
use rehome_wire::digest::Digest;

/// The version of chunks that have classes, senders and sent dates.
const WITH_CLASS: u8 = 2;

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

macro_rules! report_classes {
    ($($(#[$doc:meta])* $name:ident = $number:literal),+ $(,)?) => {
        /// As what an item is reported: its kind, and of a skipped one why it is not there. The numbers are stored.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ReportClass { $($(#[$doc])* $name = $number),+ }
        impl ReportClass {
            fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)+ _ => None }
            }
        }
    };
}

report_classes! {
    /// Skipped: the source cannot give it, or what it gives cannot be used.
    Bad = 1,
    /// Skipped: it is larger than what the target takes.
    TooLarge = 2,
    /// Skipped: the target refused it.
    Refused = 3,
    /// Skipped: one side says that it is there and does not give it.
    Missing = 4,
    /// As [`ReportKind::Altered`].
    Altered = 5,
    /// As [`ReportKind::Flags`].
    Flags = 6,
    /// As [`ReportKind::Date`].
    Date = 7,
    /// As [`ReportKind::LineEnds`].
    LineEnds = 8,
    /// As [`ReportKind::Keywords`].
    Keywords = 9,
    /// As [`ReportKind::Double`].
    Double = 10,
}

impl ReportClass {
    /// The class of a kind; a skipped item is taken for a bad one until more is known.
    #[must_use]
    pub const fn of(kind: ReportKind) -> Self {
        match kind {
            ReportKind::Skipped => Self::Bad,
            ReportKind::Altered => Self::Altered,
            ReportKind::Flags => Self::Flags,
            ReportKind::Date => Self::Date,
            ReportKind::LineEnds => Self::LineEnds,
            ReportKind::Keywords => Self::Keywords,
            ReportKind::Double => Self::Double,
        }
    }

    /// The class of an item in a chunk of the first version, which had none, by what its reason begins with.
    fn of_first_version(kind: ReportKind, side: Side, reason: &str) -> Self {
        let skipped = [
            ("it is larger than", Self::TooLarge),
            ("the target accepted it, but", Self::Missing),
            ("the source lists it, but", Self::Missing),
            ("the target refused it", Self::Refused),
        ];
        match (kind, side) {
            (ReportKind::Skipped, Side::Source | Side::Target) => skipped
                .into_iter()
                .find(|(begin, _)| reason.starts_with(begin))
                .map_or(Self::Bad, |(_, class)| class),
            (kind, Side::Source | Side::Target) => Self::of(kind),
        }
    }
}

/// What people know an item by: header fields as they are written (RFC 2047 words undecoded), each unfolded and at most 200
/// octets, where they were seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heading {
    /// `Subject`.
    pub subject: Option<String>,
    /// `From`, else `Sender`.
    pub sender: Option<String>,
    /// `Date`.
    pub date_sent: Option<String>,
}

impl Heading {
    /// Whether nothing was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
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
    /// As what it counts.
    pub class: ReportClass,
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
    /// The sender, in the same way.
    pub sender: Option<String>,
    /// The sent date, in the same way.
    pub date_sent: Option<String>,
    /// What the target holds in its place: canonical length and digest, where it could be read.
    pub held: Option<(u64, Digest)>,
    /// When it was found first, whole seconds since 1970.
    pub found: i64,
}

impl ReportItem {
    /// With what was seen of its header.
    #[must_use]
    pub fn headed(self, heading: Heading) -> Self {
        let Heading {
            subject,
            sender,
            date_sent,
        } = heading;
        Self {
            subject,
            sender,
            date_sent,
            ..self
        }
    }

    /// What is not known of it, but was when it was found before.
    fn fill_from(&mut self, before: &mut Self) {
        let fields = [
            (&mut self.subject, &mut before.subject),
            (&mut self.sender, &mut before.sender),
            (&mut self.date_sent, &mut before.date_sent),
        ];
        for (now, before) in fields {
            if now.is_none() {
                *now = before.take();
            }
        }
        self.size = self.size.or(before.size);
        self.received = self.received.or(before.received);
    }
}

/// A folder that has another path on the target: the target took its own for another folder's, spells it differently, or,
/// being a mailbox in use, has a folder for its special use already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherName {
    /// The source folder's path.
    pub folder: Vec<String>,
    /// Its path on the target.
    pub on_target: Vec<String>,
}

/// Everything reported about a move.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Items by folder and uid.
    pub items: Vec<ReportItem>,
    /// Items of which the source's raw octets differ in line ends only; they are counted, not named.
    pub line_ends_only: u64,
    /// Folders that have another path on the target, by their path at the source.
    pub other_names: Vec<OtherName>,
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
            item.fill_from(&mut items[at]);
            items[at] = item;
        }
        Err(at) => items.insert(at, item),
    }
}

pub(crate) fn encode(items: &[ReportItem]) -> Vec<u8> {
    let mut writer = Writer::of(WITH_CLASS);
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
        writer.u8(item.class as u8);
        writer.option(item.sender.as_ref(), |writer, sender| writer.text(sender));
        writer.option(item.date_sent.as_ref(), |writer, date| writer.text(date));
    }
    writer.finish()
}

pub(crate) fn decode(folder: &[String], octets: &[u8]) -> Result<Vec<ReportItem>, LedgerError> {
    let (mut reader, version) = Reader::up_to(WITH_CLASS, "report", octets)?;
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
        let mut item = ReportItem {
            folder: folder.to_vec(),
            uid,
            kind,
            class: ReportClass::of(kind),
            side,
            found: reader.i64()?,
            size: reader.option(Reader::u64)?,
            received: reader.option(Reader::i64)?,
            reason: reader.text()?,
            subject: reader.option(Reader::text)?,
            held: reader.option(|reader| Ok((reader.u64()?, reader.digest()?)))?,
            sender: None,
            date_sent: None,
        };
        if version < WITH_CLASS {
            item.class = ReportClass::of_first_version(kind, side, &item.reason);
        } else {
            let number = reader.u8()?;
            item.class =
                ReportClass::from_number(number).ok_or_else(|| reader.damaged(format!("report class {number}")))?;
            item.sender = reader.option(Reader::text)?;
            item.date_sent = reader.option(Reader::text)?;
        }
        items.push(item);
    }
    reader.finish()?;
    Ok(items)
}

/// Most octets of a header field that are kept.
const MAX_FIELD: usize = 200;

/// What an item's first octets say to people: each field unfolded, at most 200 octets, other octets replaced. The first
/// field of a name counts.
pub(crate) fn heading(octets: &[u8]) -> Heading {
    let mut fields: [(&[u8], Option<Vec<u8>>); 4] =
        [(b"subject", None), (b"from", None), (b"sender", None), (b"date", None)];
    let mut at: Option<usize> = None;
    for line in octets.split(|octet| *octet == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(first) = line.first() else { break };
        if matches!(first, b' ' | b'\t') {
            if let Some((_, Some(held))) = at.map(|at| &mut fields[at])
                && held.len() <= MAX_FIELD
            {
                held.extend_from_slice(line);
            }
            continue;
        }
        at = None;
        let Some(colon) = line.iter().position(|octet| *octet == b':') else {
            continue;
        };
        let name = line[..colon].trim_ascii_end();
        let field = fields
            .iter()
            .position(|(wanted, held)| held.is_none() && name.eq_ignore_ascii_case(wanted));
        if let Some(field) = field {
            fields[field].1 = Some(line[colon + 1..].to_vec());
            at = Some(field);
        }
    }
    let [subject, from, sender, date_sent] = fields.map(|(_, held)| held.map(|held| shown(&held)));
    Heading {
        subject,
        sender: from.or(sender),
        date_sent,
    }
}

fn shown(field: &[u8]) -> String {
    let text = String::from_utf8_lossy(field).replace(char::is_control, " ");
    let text = text.trim();
    text[..text.floor_char_boundary(MAX_FIELD)].to_owned()
}

//! Little-endian octets of ledger and notes: a writer that cannot fail and a reader that never trusts a length.

use crate::ledger::LedgerError;
use rehome_mailbox::{FolderPath, SpecialUse};
use rehome_wire::digest::Digest;

/// The version octet that every chunk begins with.
pub(crate) const VERSION: u8 = 1;
/// Longest text, in octets, that a chunk keeps.
pub(crate) const MAX_TEXT: usize = 4_096;
/// Most names in a path.
pub(crate) const MAX_PATH: usize = 256;

/// Writes one chunk.
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new() -> Self {
        Self::of(VERSION)
    }

    /// A chunk of another version.
    pub(crate) fn of(version: u8) -> Self {
        Self(vec![version])
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.0.push(u8::from(value));
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn digest(&mut self, digest: &Digest) {
        self.0.extend_from_slice(&digest.0);
    }

    /// How many of something follow; more than fit is a fault of the caller's bounds.
    pub(crate) fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("chunks are bounded far below 2^32 entries"));
    }

    /// A text, cut at [`MAX_TEXT`] octets.
    pub(crate) fn text(&mut self, text: &str) {
        let text = &text[..text.floor_char_boundary(MAX_TEXT)];
        self.bytes(text.as_bytes());
    }

    /// Octets, at most 65,535; callers bound them far below.
    pub(crate) fn bytes(&mut self, octets: &[u8]) {
        let octets = &octets[..octets.len().min(usize::from(u16::MAX))];
        self.u16(octets.len() as u16);
        self.0.extend_from_slice(octets);
    }

    pub(crate) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub(crate) fn path(&mut self, path: &FolderPath) {
        self.count(path.0.len());
        for name in &path.0 {
            self.text(name);
        }
    }
}

/// Reads one chunk.
pub(crate) struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Begins to read a chunk and checks its version octet.
    pub(crate) fn new(what: &'static str, octets: &'a [u8]) -> Result<Self, LedgerError> {
        Self::up_to(VERSION, what, octets).map(|(reader, _)| reader)
    }

    /// Begins to read a chunk of any version up to `newest`, which it returns.
    pub(crate) fn up_to(newest: u8, what: &'static str, octets: &'a [u8]) -> Result<(Self, u8), LedgerError> {
        let mut reader = Self { what, rest: octets };
        match reader.u8()? {
            version if (VERSION..=newest).contains(&version) => Ok((reader, version)),
            version => Err(reader.damaged(format!("version {version} is not known"))),
        }
    }

    pub(crate) fn damaged(&self, why: impl Into<String>) -> LedgerError {
        LedgerError::Damaged {
            what: self.what,
            why: why.into(),
        }
    }

    /// Checks that nothing follows.
    pub(crate) fn finish(self) -> Result<(), LedgerError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.damaged(format!("{} octets follow", self.rest.len())))
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], LedgerError> {
        match self.rest.split_at_checked(length) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(self.damaged("it ends too early")),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], LedgerError> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| self.damaged("it ends too early"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, LedgerError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn bool(&mut self) -> Result<bool, LedgerError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.damaged(format!("{other} is neither 0 nor 1"))),
        }
    }

    pub(crate) fn u16(&mut self) -> Result<u16, LedgerError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, LedgerError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, LedgerError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, LedgerError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    pub(crate) fn digest(&mut self) -> Result<Digest, LedgerError> {
        Ok(Digest(self.array()?))
    }

    /// A count of entries of at least `least` octets each, so that no count outgrows the octets behind it.
    pub(crate) fn count(&mut self, least: usize) -> Result<usize, LedgerError> {
        let count = self.u32()? as usize;
        if count.saturating_mul(least) > self.rest.len() {
            return Err(self.damaged("it announces more than it holds"));
        }
        Ok(count)
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>, LedgerError> {
        let length = usize::from(self.u16()?);
        Ok(self.take(length)?.to_vec())
    }

    pub(crate) fn text(&mut self) -> Result<String, LedgerError> {
        String::from_utf8(self.bytes()?).map_err(|_| self.damaged("a text is not UTF-8"))
    }

    pub(crate) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, LedgerError>,
    ) -> Result<Option<T>, LedgerError> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    pub(crate) fn path(&mut self) -> Result<FolderPath, LedgerError> {
        let count = self.count(2)?;
        if count == 0 || count > MAX_PATH {
            return Err(self.damaged(format!("a path of {count} names")));
        }
        Ok(FolderPath((0..count).map(|_| self.text()).collect::<Result<_, _>>()?))
    }
}

/// The stored number of a special use.
pub(crate) fn special_use_number(special_use: Option<SpecialUse>) -> u8 {
    match special_use {
        None => 0,
        Some(SpecialUse::Archive) => 1,
        Some(SpecialUse::Drafts) => 2,
        Some(SpecialUse::Junk) => 3,
        Some(SpecialUse::Sent) => 4,
        Some(SpecialUse::Trash) => 5,
    }
}

/// The special use with this stored number.
pub(crate) fn special_use(number: u8) -> Option<Option<SpecialUse>> {
    Some(match number {
        0 => None,
        1 => Some(SpecialUse::Archive),
        2 => Some(SpecialUse::Drafts),
        3 => Some(SpecialUse::Junk),
        4 => Some(SpecialUse::Sent),
        5 => Some(SpecialUse::Trash),
        _ => return None,
    })
}

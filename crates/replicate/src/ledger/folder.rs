//! Folders of the ledger, by number.

use super::{FOLDERS_SHIFT, LedgerError, read_texts, write_texts};
use crate::codec::{Reader, Writer, special_use, special_use_number};
use rehome_mailbox::{ChangeToken, FolderPath, FolderRef, FolderStatus, SpecialUse};

/// Most keywords of a folder's table.
pub const MAX_TABLE: usize = 64;

const SUBSCRIBED: u8 = 1;
const GIVEN_UIDS: u8 = 2;
/// More follows behind *synced*.
const WITH_TARGET: u8 = 4;
/// In version 2 alone.
const OTHER_NAME: u8 = 8;
/// Written only where a folder has another name, so that who does not know of that does not take it for misplaced.
const VERSION_WITH_OTHER_NAMES: u8 = 2;

/// Where a folder stands on the target. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FolderState {
    /// It is about to be created there, or was.
    Creating = 1,
    /// It is there.
    Active = 2,
    /// Its validity was reset at the source: its items wait in the same target folder to be paired by digest or removed.
    Retired = 3,
    /// It is gone at the source and about to be removed on the target, or was.
    Removing = 4,
}

/// A folder's numbers at the last listing of which every effect was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    /// The source's UIDNEXT.
    pub uid_next: u32,
    /// Items at the source.
    pub exists: u32,
    /// The source's HIGHESTMODSEQ.
    pub highest_mod_seq: Option<u64>,
    /// The source's token.
    pub token: Option<Vec<u8>>,
}

/// What the target's folder was when uids, flags and dates of everything in it were last compared with the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Its numbers then.
    pub status: FolderStatus,
    /// The target's token of then: a listing since it shows whatever differs.
    pub token: ChangeToken,
}

/// Whether the target gives back what it was given, as reading back showed. The numbers are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Octets {
    /// Nothing was read back yet.
    #[default]
    Unknown = 0,
    /// It does.
    Kept = 1,
    /// It rewrites messages: an item of a window is known by its place, not by its digest.
    Rewritten = 2,
}

/// One folder of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderEntry {
    /// Its number, never used again.
    pub number: u32,
    /// Where it stands.
    pub state: FolderState,
    /// The path at the source.
    pub source_path: FolderPath,
    /// The path on the target.
    pub target_path: FolderPath,
    /// UIDVALIDITY at the source.
    pub source_validity: u32,
    /// UIDVALIDITY on the target; 0 while creating.
    pub target_validity: u32,
    /// Target uids are source uids.
    pub given_uids: bool,
    /// Its special use at the source.
    pub special_use: Option<SpecialUse>,
    /// Whether the user subscribes to it.
    pub subscribed: bool,
    /// Names of the keyword bits in its records.
    pub keywords: KeywordTable,
    /// The last listing that was applied wholly.
    pub synced: Option<Synced>,
    /// Records may be there that were not read back yet.
    pub unread: bool,
    /// What reading back showed last.
    pub octets: Octets,
    /// Items in its report as skipped.
    pub skipped: u32,
    /// Entries of its report.
    pub reported: u32,
    /// The target's folder when it was last found to be as the ledger says, with no exception but skipped items.
    pub verified: Option<Verified>,
    /// MAILBOXID at the source.
    pub source_mailbox_id: Option<String>,
    /// Where the target's folder is being renamed to.
    pub renaming_to: Option<FolderPath>,
    /// Its path on the target is another one than at the source because the target had no place for that.
    pub other_name: bool,
}

impl FolderEntry {
    /// The target's folder, in the validity that its map is of.
    #[must_use]
    pub fn on_target(&self) -> FolderRef<'_> {
        FolderRef::new(&self.target_path, self.target_validity)
    }
}

/// Keywords of a folder, in the order of their bits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeywordTable(Vec<String>);

impl KeywordTable {
    /// The names in the order of their bits.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// The keyword's bit, adding it where there is place; none when the table is full. ASCII case does not count.
    pub fn bit(&mut self, keyword: &str) -> Option<u32> {
        let found = self.0.iter().position(|name| name.eq_ignore_ascii_case(keyword));
        let at = found.unwrap_or(self.0.len());
        if at == MAX_TABLE {
            return None;
        }
        if found.is_none() {
            self.0.push(keyword.to_owned());
        }
        Some(at as u32)
    }

    /// The names of the bits set in `bits`; none where a bit has no name.
    #[must_use]
    pub fn names_of(&self, bits: u64) -> Option<Vec<String>> {
        (0..u64::BITS)
            .filter(|bit| bits >> bit & 1 == 1)
            .map(|bit| self.0.get(bit as usize).cloned())
            .collect()
    }
}

pub(super) fn encode_folders(next_number: u32, entries: &[&FolderEntry]) -> Vec<u8> {
    let mut writer = if entries.iter().any(|entry| entry.other_name) {
        Writer::of(VERSION_WITH_OTHER_NAMES)
    } else {
        Writer::new()
    };
    writer.u32(next_number);
    writer.count(entries.len());
    for entry in entries {
        writer.u32(entry.number);
        writer.u8(entry.state as u8);
        let attributes = [
            (entry.subscribed, SUBSCRIBED),
            (entry.given_uids, GIVEN_UIDS),
            (entry.other_name, OTHER_NAME),
        ];
        let set = attributes.iter().filter(|(set, _)| *set).map(|(_, bit)| bit);
        writer.u8(WITH_TARGET | set.sum::<u8>());
        writer.u8(special_use_number(entry.special_use));
        writer.u32(entry.source_validity);
        writer.u32(entry.target_validity);
        writer.path(&entry.source_path);
        writer.path(&entry.target_path);
        write_texts(&mut writer, entry.keywords.names());
        writer.option(entry.synced.as_ref(), |writer, synced| {
            writer.u32(synced.uid_next);
            writer.u32(synced.exists);
            writer.option(synced.highest_mod_seq, Writer::u64);
            writer.option(synced.token.as_ref(), |writer, token| writer.bytes(token));
        });
        write_target(&mut writer, entry);
    }
    writer.finish()
}

pub(super) fn decode_folders(octets: &[u8]) -> Result<(u32, Vec<FolderEntry>), LedgerError> {
    let (mut reader, _) = Reader::up_to(VERSION_WITH_OTHER_NAMES, "folders", octets)?;
    let next_number = reader.u32()?;
    let count = reader.count(30)?;
    if count > 1 << FOLDERS_SHIFT {
        return Err(reader.damaged(format!("{count} folders in one chunk")));
    }
    let entries = (0..count)
        .map(|_| decode_folder(&mut reader))
        .collect::<Result<_, _>>()?;
    reader.finish()?;
    Ok((next_number, entries))
}

fn decode_folder(reader: &mut Reader<'_>) -> Result<FolderEntry, LedgerError> {
    let number = reader.u32()?;
    let state = match reader.u8()? {
        1 => FolderState::Creating,
        2 => FolderState::Active,
        3 => FolderState::Retired,
        4 => FolderState::Removing,
        other => return Err(reader.damaged(format!("folder state {other}"))),
    };
    let attributes = reader.u8()?;
    let special_use_octet = reader.u8()?;
    let special_use =
        special_use(special_use_octet).ok_or_else(|| reader.damaged(format!("special use {special_use_octet}")))?;
    let mut entry = FolderEntry {
        number,
        state,
        source_validity: reader.u32()?,
        target_validity: reader.u32()?,
        given_uids: attributes & GIVEN_UIDS != 0,
        special_use,
        subscribed: attributes & SUBSCRIBED != 0,
        source_path: reader.path()?,
        target_path: reader.path()?,
        keywords: KeywordTable(read_texts(reader, MAX_TABLE)?),
        synced: reader.option(|reader| {
            Ok(Synced {
                uid_next: reader.u32()?,
                exists: reader.u32()?,
                highest_mod_seq: reader.option(Reader::u64)?,
                token: reader.option(Reader::bytes)?,
            })
        })?,
        unread: false,
        octets: Octets::Unknown,
        skipped: 0,
        reported: 0,
        verified: None,
        source_mailbox_id: None,
        renaming_to: None,
        other_name: attributes & OTHER_NAME != 0,
    };
    if attributes & WITH_TARGET != 0 {
        read_target(reader, &mut entry)?;
    }
    Ok(entry)
}

fn write_target(writer: &mut Writer, entry: &FolderEntry) {
    writer.bool(entry.unread);
    writer.u8(entry.octets as u8);
    writer.u32(entry.skipped);
    writer.u32(entry.reported);
    writer.option(entry.verified.as_ref(), |writer, Verified { status, token }| {
        writer.u32(status.uid_validity);
        writer.u32(status.uid_next);
        writer.u32(status.exists);
        writer.option(status.highest_mod_seq, Writer::u64);
        writer.bytes(&token.0);
    });
    writer.option(entry.source_mailbox_id.as_ref(), |writer, id| writer.text(id));
    writer.option(entry.renaming_to.as_ref(), Writer::path);
}

fn read_target(reader: &mut Reader<'_>, entry: &mut FolderEntry) -> Result<(), LedgerError> {
    entry.unread = reader.bool()?;
    entry.octets = match reader.u8()? {
        0 => Octets::Unknown,
        1 => Octets::Kept,
        2 => Octets::Rewritten,
        other => return Err(reader.damaged(format!("octets {other}"))),
    };
    entry.skipped = reader.u32()?;
    entry.reported = reader.u32()?;
    entry.verified = reader.option(|reader| {
        let status = FolderStatus {
            uid_validity: reader.u32()?,
            uid_next: reader.u32()?,
            exists: reader.u32()?,
            highest_mod_seq: reader.option(Reader::u64)?,
        };
        let token = ChangeToken(reader.bytes()?);
        Ok(Verified { status, token })
    })?;
    entry.source_mailbox_id = reader.option(Reader::text)?;
    entry.renaming_to = reader.option(Reader::path)?;
    Ok(())
}

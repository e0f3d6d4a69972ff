//! The items of a receipt, and how each is written.

use super::{RECEIPT_MAGIC, VERSION};
use crate::{
    digest::Digest,
    flags::Flags,
    proof::{Leaf, TreeHasher, flag_octets, hash_of_leaf_octets, write_leaf},
    uid_set::{definite_array, infallible},
};
use minicbor::{Decoder, Encoder, decode::Error as CborError};

/// Longest reason of an exception, octets; longer ones are cut before they are signed.
pub const MAX_REASON: usize = 500;
/// Most names in a path, most flags of an item.
const MAX_NAMES: u64 = 1_024;
/// The words of an exception's kind.
const KINDS: [&str; 4] = ["skipped", "altered", "flags", "date"];

/// One item as it was moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptLeaf {
    /// The uid at the source.
    pub uid: u32,
    /// Canonical length in octets.
    pub length: u64,
    /// Digest of the canonical form.
    pub digest: Digest,
    /// The source's flags.
    pub flags: Flags,
    /// Received time, whole seconds since 1970-01-01 UTC.
    pub received: i64,
}

impl ReceiptLeaf {
    /// The octets of the leaf, as [`crate::proof::leaf_octets`] makes them.
    pub fn octets(&self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(128);
        let leaf = Leaf {
            uid: self.uid,
            length: self.length,
            digest: self.digest,
            flags: &self.flags,
            received: self.received,
        };
        write_leaf(&leaf, &flag_octets(&self.flags), &mut octets);
        octets
    }

    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, CborError> {
        expect_array(decoder, 5)?;
        Ok(Self {
            uid: decoder.u32()?,
            length: decoder.u64()?,
            digest: digest(decoder)?,
            flags: Flags::from_names(names(decoder)?),
            received: decoder.i64()?,
        })
    }
}

/// One item that was not on the target as it was at the source when the move was completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptException {
    /// The source folder's path.
    pub path: Vec<String>,
    /// The source uid.
    pub uid: u32,
    /// `skipped`, `altered`, `flags` or `date`.
    pub kind: String,
    /// Canonical length of what the target holds, where that matters and is known; so for the following.
    pub held_length: Option<u64>,
    /// Its digest.
    pub held_digest: Option<Digest>,
    /// The flags that the target holds.
    pub held_flags: Option<Vec<String>>,
    /// The received time that the target holds.
    pub held_received: Option<i64>,
    /// Why, as the target said it; at most [`MAX_REASON`] octets.
    pub reason: Option<String>,
}

impl ReceiptException {
    /// The octets of the exception: an array of eight, null for what is not known.
    pub fn octets(&self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(128);
        let mut encoder = Encoder::new(&mut octets);
        infallible(encoder.array(8));
        write_names(&mut encoder, &self.path);
        infallible(encoder.u32(self.uid).and_then(|encoder| encoder.str(&self.kind)));
        infallible(match self.held_length {
            Some(length) => encoder.u64(length),
            None => encoder.null(),
        });
        infallible(match &self.held_digest {
            Some(digest) => encoder.bytes(&digest.0),
            None => encoder.null(),
        });
        match &self.held_flags {
            Some(flags) => write_names(&mut encoder, flags),
            None => drop(infallible(encoder.null())),
        }
        infallible(match self.held_received {
            Some(received) => encoder.i64(received),
            None => encoder.null(),
        });
        infallible(match &self.reason {
            Some(reason) => encoder.str(reason),
            None => encoder.null(),
        });
        octets
    }

    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, CborError> {
        expect_array(decoder, 8)?;
        let (path, uid, kind) = (names(decoder)?, decoder.u32()?, decoder.str()?.to_owned());
        if !KINDS.contains(&kind.as_str()) {
            return Err(CborError::message("a kind of exception that is not known"));
        }
        Ok(Self {
            path,
            uid,
            kind,
            held_length: option(decoder, |decoder| decoder.u64())?,
            held_digest: option(decoder, digest)?,
            held_flags: option(decoder, names)?,
            held_received: option(decoder, |decoder| decoder.i64())?,
            reason: option(decoder, |decoder| Ok(decoder.str()?.to_owned()))?,
        })
    }
}

/// The root over exceptions, given as octets in any order: they are sorted by their octets first.
pub fn exceptions_root(exceptions: &mut [Vec<u8>]) -> Digest {
    exceptions.sort_unstable();
    let mut tree = TreeHasher::new();
    for octets in exceptions {
        tree.push(hash_of_leaf_octets(octets));
    }
    tree.root()
}

/// What a section holds in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// The mailbox root over its folders.
    pub root: Digest,
    /// The root over its exceptions.
    pub exceptions_root: Digest,
    /// Folders.
    pub folders: u64,
    /// Leaves.
    pub items: u64,
    /// Canonical octets of the leaves.
    pub octets: u64,
    /// Exceptions.
    pub exceptions: u64,
}

/// Appends a section's first item: its number (0 is the receipt itself, others are what came later) and its statements.
pub fn write_opening(number: u32, statements: &[&str], out: &mut Vec<u8>) {
    write_opening_of(RECEIPT_MAGIC, number, statements, out);
}

pub(super) fn write_opening_of(magic: &str, number: u32, statements: &[&str], out: &mut Vec<u8>) {
    let mut encoder = Encoder::new(out);
    infallible(encoder.array(4).and_then(|encoder| {
        encoder
            .str(magic)?
            .u8(VERSION)?
            .u32(number)?
            .array(statements.len() as u64)
    }));
    for statement in statements {
        infallible(encoder.str(statement));
    }
}

pub(super) fn decode_opening(decoder: &mut Decoder<'_>, magic: &str) -> Result<(u32, Vec<String>), CborError> {
    expect_array(decoder, 4)?;
    if decoder.str()? != magic {
        return Err(CborError::message(format!("it does not begin with \"{magic}\"")));
    }
    let version = decoder.u8()?;
    if version != VERSION {
        return Err(CborError::message(format!(
            "its version is {version}; this program reads version {VERSION}"
        )));
    }
    let number = decoder.u32()?;
    let count = definite_array(decoder)?;
    if count > super::MAX_STATEMENTS as u64 {
        return Err(CborError::message("too many statements"));
    }
    let mut statements = Vec::new();
    for _ in 0..count {
        let statement = decoder.str()?;
        if statement.len() > super::MAX_STATEMENT {
            return Err(CborError::message("a statement is too long"));
        }
        statements.push(statement.to_owned());
    }
    Ok((number, statements))
}

/// Appends what comes before a folder's leaves. Folders stand in the order of these octets.
pub fn write_folder_head(path: &[String], uid_validity: u32, out: &mut Vec<u8>) {
    let mut encoder = Encoder::new(out);
    infallible(encoder.array(2));
    write_names(&mut encoder, path);
    infallible(encoder.u32(uid_validity));
}

pub(super) fn decode_folder_head(decoder: &mut Decoder<'_>) -> Result<(Vec<String>, u32), CborError> {
    expect_array(decoder, 2)?;
    Ok((names(decoder)?, decoder.u32()?))
}

/// Appends what comes after a folder's leaves.
pub fn write_folder_end(count: u64, root: Digest, out: &mut Vec<u8>) {
    infallible(
        Encoder::new(out)
            .array(2)
            .and_then(|encoder| encoder.u64(count)?.bytes(&root.0)),
    );
}

pub(super) fn decode_folder_end(decoder: &mut Decoder<'_>) -> Result<(u64, Digest), CborError> {
    expect_array(decoder, 2)?;
    Ok((decoder.u64()?, digest(decoder)?))
}

/// Appends a section's last item.
pub fn write_closing(totals: &Totals, out: &mut Vec<u8>) {
    infallible(Encoder::new(out).array(6).and_then(|encoder| {
        encoder
            .bytes(&totals.root.0)?
            .bytes(&totals.exceptions_root.0)?
            .u64(totals.folders)?
            .u64(totals.items)?
            .u64(totals.octets)?
            .u64(totals.exceptions)
    }));
}

pub(super) fn decode_closing(decoder: &mut Decoder<'_>) -> Result<Totals, CborError> {
    expect_array(decoder, 6)?;
    Ok(Totals {
        root: digest(decoder)?,
        exceptions_root: digest(decoder)?,
        folders: decoder.u64()?,
        items: decoder.u64()?,
        octets: decoder.u64()?,
        exceptions: decoder.u64()?,
    })
}

/// Appends the last item of a file: the digest of all octets before it.
pub fn write_end(before: Digest, out: &mut Vec<u8>) {
    infallible(Encoder::new(out).array(1).and_then(|encoder| encoder.bytes(&before.0)));
}

pub(super) fn decode_end(decoder: &mut Decoder<'_>) -> Result<Digest, CborError> {
    expect_array(decoder, 1)?;
    digest(decoder)
}

pub(super) fn write_names(encoder: &mut Encoder<&mut Vec<u8>>, names: &[String]) {
    infallible(encoder.array(names.len() as u64));
    for name in names {
        infallible(encoder.str(name));
    }
}

pub(super) fn names(decoder: &mut Decoder<'_>) -> Result<Vec<String>, CborError> {
    let count = definite_array(decoder)?;
    if count > MAX_NAMES {
        return Err(CborError::message("too many names"));
    }
    (0..count).map(|_| Ok(decoder.str()?.to_owned())).collect()
}

pub(super) fn digest(decoder: &mut Decoder<'_>) -> Result<Digest, CborError> {
    let octets = decoder.bytes()?;
    let octets = octets
        .try_into()
        .map_err(|_| CborError::message("a digest has 32 octets"))?;
    Ok(Digest(octets))
}

pub(super) fn expect_array(decoder: &mut Decoder<'_>, length: u64) -> Result<(), CborError> {
    if definite_array(decoder)? == length {
        Ok(())
    } else {
        Err(CborError::message(format!("an array of {length} must stand here")))
    }
}

fn option<'b, T>(
    decoder: &mut Decoder<'b>,
    read: impl FnOnce(&mut Decoder<'b>) -> Result<T, CborError>,
) -> Result<Option<T>, CborError> {
    if decoder.datatype()? == minicbor::data::Type::Null {
        decoder.null()?;
        return Ok(None);
    }
    read(decoder).map(Some)
}

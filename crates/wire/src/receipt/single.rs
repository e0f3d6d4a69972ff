//! The proof of a single message: its leaf, the way to the mailbox root, the exceptions and the statements.

use super::{
    MAX_ITEM, ReceiptError, ReceiptException, ReceiptLeaf, SINGLE_MAGIC, exceptions_root,
    items::{decode_end, decode_opening, digest, expect_array, names, write_end, write_names, write_opening_of},
};
use crate::{
    digest::Digest,
    inclusion::{InclusionProof, MAX_PATH},
    proof::{TopLeaf, hash_of_leaf_octets, top_leaf_octets},
    uid_set::{definite_array, infallible},
};
use minicbor::{Decoder, Encoder, decode::Error as CborError};

/// Longest proof of a single message, octets: the exceptions of a whole mailbox are in it.
pub const MAX_SINGLE: usize = 64 * 1024 * 1024;

/// One place where the message was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SingleEntry {
    /// The item as it was moved.
    pub leaf: ReceiptLeaf,
    /// The folder's path at the source.
    pub path: Vec<String>,
    /// The folder's UIDVALIDITY there.
    pub uid_validity: u32,
    /// The leaf in its folder.
    pub in_folder: InclusionProof,
    /// The folder in the mailbox.
    pub in_mailbox: InclusionProof,
}

impl SingleEntry {
    /// The mailbox root that this entry leads to. None when a path does not fit.
    pub fn root(&self) -> Option<Digest> {
        let folder_root = self.in_folder.root(hash_of_leaf_octets(&self.leaf.octets()))?;
        let top = top_leaf_octets(&TopLeaf {
            path: &self.path,
            uid_validity: self.uid_validity,
            count: self.in_folder.count,
            root: folder_root,
        });
        self.in_mailbox.root(hash_of_leaf_octets(&top))
    }

    fn write(&self, out: &mut Vec<u8>) {
        infallible(Encoder::new(&mut *out).array(9));
        out.extend_from_slice(&self.leaf.octets());
        let mut encoder = Encoder::new(out);
        write_names(&mut encoder, &self.path);
        infallible(encoder.u32(self.uid_validity));
        for proof in [&self.in_folder, &self.in_mailbox] {
            infallible(
                encoder
                    .u64(proof.index)
                    .and_then(|encoder| encoder.u64(proof.count)?.array(proof.path.len() as u64)),
            );
            for digest in &proof.path {
                infallible(encoder.bytes(&digest.0));
            }
        }
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self, CborError> {
        fn way(decoder: &mut Decoder<'_>) -> Result<InclusionProof, CborError> {
            let (index, count, length) = (decoder.u64()?, decoder.u64()?, definite_array(decoder)?);
            if length > MAX_PATH as u64 {
                return Err(CborError::message("a path is too long"));
            }
            let path = (0..length).map(|_| digest(decoder)).collect::<Result<_, _>>()?;
            Ok(InclusionProof { index, count, path })
        }
        expect_array(decoder, 9)?;
        Ok(Self {
            leaf: ReceiptLeaf::decode(decoder)?,
            path: names(decoder)?,
            uid_validity: decoder.u32()?,
            in_folder: way(decoder)?,
            in_mailbox: way(decoder)?,
        })
    }
}

/// The proof that a message is in one section of a receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SingleProof {
    /// The section's number: 0 is the receipt itself.
    pub number: u32,
    /// The section's statements.
    pub statements: Vec<String>,
    /// Every place of the message that is shown; one at least.
    pub entries: Vec<SingleEntry>,
    /// All exceptions of the section: whether the target held the message otherwise is among them.
    pub exceptions: Vec<ReceiptException>,
}

impl SingleProof {
    /// The file.
    pub fn octets(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let statements: Vec<&str> = self.statements.iter().map(String::as_str).collect();
        write_opening_of(SINGLE_MAGIC, self.number, &statements, &mut out);
        for entry in &self.entries {
            entry.write(&mut out);
        }
        let mut exceptions: Vec<Vec<u8>> = self.exceptions.iter().map(ReceiptException::octets).collect();
        exceptions.sort_unstable();
        for exception in exceptions {
            out.extend_from_slice(&exception);
        }
        let digest = Digest::of(&out);
        write_end(digest, &mut out);
        out
    }

    /// Reads a file, in which nothing may be written otherwise than [`Self::octets`] writes it.
    ///
    /// # Errors
    /// [`ReceiptError`].
    pub fn read(octets: &[u8]) -> Result<Self, ReceiptError> {
        let mut decoder = Decoder::new(octets);
        let malformed = |at: usize, why: String| ReceiptError::Malformed { at: at as u64, why };
        if octets.len() > MAX_SINGLE {
            return Err(malformed(0, format!("it is longer than {MAX_SINGLE} octets")));
        }
        let read = Self::decode(&mut decoder);
        let at = decoder.position();
        let (proof, digest, end) = match read {
            Ok(read) => read,
            Err(error) if error.is_end_of_input() => return Err(ReceiptError::Truncated { at: at as u64 }),
            Err(error) => return Err(malformed(at, error.to_string())),
        };
        if digest != Digest::of(&octets[..end]) {
            return Err(malformed(
                end,
                "the digest at the end is not that of what is before it".to_owned(),
            ));
        }
        if proof.entries.is_empty() || proof.octets() != octets {
            return Err(malformed(0, "it is not written in its one form".to_owned()));
        }
        Ok(proof)
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<(Self, Digest, usize), CborError> {
        let (number, statements) = decode_opening(decoder, SINGLE_MAGIC)?;
        let mut proof = Self {
            number,
            statements,
            entries: Vec::new(),
            exceptions: Vec::new(),
        };
        loop {
            let at = decoder.position();
            let length = definite_array(&mut decoder.clone())?;
            match length {
                9 if proof.exceptions.is_empty() => proof.entries.push(SingleEntry::decode(decoder)?),
                8 => proof.exceptions.push(ReceiptException::decode(decoder)?),
                _ => return Ok((proof, decode_end(decoder)?, at)),
            }
            if decoder.position() - at > MAX_ITEM {
                return Err(CborError::message("an item is too long"));
            }
        }
    }

    /// The mailbox root that all entries lead to, and how many folders the mailbox has by them.
    ///
    /// # Errors
    /// [`ReceiptError::Differs`] when an entry's path does not fit, or two lead to different roots.
    pub fn root(&self) -> Result<(Digest, u64), ReceiptError> {
        let mut found: Option<(Digest, u64)> = None;
        for entry in &self.entries {
            let here = entry.root().map(|root| (root, entry.in_mailbox.count));
            if here.is_none() || found.is_some() && found != here {
                return Err(ReceiptError::Differs {
                    what: format!("the way of uid {} to the root", entry.leaf.uid),
                });
            }
            found = here;
        }
        found.ok_or_else(|| ReceiptError::Differs {
            what: "a proof without a message".to_owned(),
        })
    }

    /// The root over the exceptions.
    pub fn exceptions_root(&self) -> Digest {
        let mut octets: Vec<Vec<u8>> = self.exceptions.iter().map(ReceiptException::octets).collect();
        exceptions_root(&mut octets)
    }
}

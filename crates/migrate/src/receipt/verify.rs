//! Checking a receipt with nothing but the file and keys: what anyone can do, later, elsewhere.

use super::{BODY_FORMAT, ReceiptBody};
use rehome_domain::id::TenantId;
use rehome_identity::{
    receipt_keys::{SignedBy, TrustedKeys},
    statement::{ReadReceipt, ReceiptStatement},
};
use rehome_replicate::receipt::Expected;
use rehome_wire::{
    flags::Flags,
    receipt::{Part, ReceiptError, ReceiptException, ReceiptReader, SingleProof, Totals},
};
use std::{collections::HashMap, io::Read};

/// Octets read at once.
const PIECE: usize = 256 * 1024;

/// Why a file proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It cannot be read.
    #[error("the file cannot be read")]
    Read(#[source] std::io::Error),
    /// It is damaged or altered, or no receipt.
    #[error("the file is damaged, altered, or no receipt: {0}")]
    File(#[from] ReceiptError),
    /// A statement is none, or does not fit the file or the other statements.
    #[error("statement {place} of section {number}: {why}")]
    Statement {
        /// The section.
        number: u32,
        /// Which of its statements, counted from 1.
        place: usize,
        /// What is wrong.
        why: String,
    },
    /// A section has no statement, or the wrong ones.
    #[error("section {number} has {why}")]
    Section {
        /// The section.
        number: u32,
        /// What is wrong.
        why: &'static str,
    },
}

/// One statement that fits the file.
#[derive(Clone, Debug)]
pub struct StatementVerdict {
    /// What is stated, and about which move.
    pub statement: ReceiptStatement,
    /// Its claim `receipt`, read.
    pub body: ReceiptBody,
    /// The issuer that it names.
    pub issuer: String,
    /// The key that it names.
    pub kid: String,
    /// Where its issuer publishes its keys, as it says.
    pub keys_at: Option<String>,
    /// Whether a trusted key signed it. Never [`SignedBy::Forged`]: that is an error.
    pub signature: SignedBy,
}

/// One section that is as its items make it.
#[derive(Clone, Debug)]
pub struct SectionVerdict {
    /// 0 for the receipt, 1 and above for what later sweeps brought.
    pub number: u32,
    /// Recomputed from its items.
    pub totals: Totals,
    /// Its statements: the source's before the target's.
    pub statements: Vec<StatementVerdict>,
}

/// A receipt that holds.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Its sections, in order.
    pub sections: Vec<SectionVerdict>,
}

impl Verdict {
    /// Whether a trusted key was there for every signature.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        let mut statements = self.sections.iter().flat_map(|section| &section.statements);
        statements.all(|statement| statement.signature == SignedBy::Trusted)
    }
}

/// A proof of a single message that holds.
#[derive(Clone, Debug)]
pub struct SingleVerdict {
    /// The proof.
    pub proof: SingleProof,
    /// The section that it is from.
    pub section: SectionVerdict,
}

/// Whether a file that begins so is the proof of a single message, not a receipt.
#[must_use]
pub fn is_single(beginning: &[u8]) -> bool {
    // An array of four, and a text of twenty octets.
    beginning.starts_with(&[0x84, 0x74])
}

/// Checks a receipt: every root and count is recomputed, every statement compared with them and with the others, every
/// signature judged by `trusted`. `each` sees every part as it is read, before it is known whether the file holds.
///
/// # Errors
/// [`VerifyError`]: the file proves nothing.
pub fn verify(file: &mut dyn Read, trusted: &TrustedKeys, each: &mut dyn FnMut(&Part)) -> Result<Verdict, VerifyError> {
    let mut reader = ReceiptReader::new();
    let mut found: Vec<(u32, Vec<String>, Option<Totals>)> = Vec::new();
    let mut piece = vec![0; PIECE];
    loop {
        let length = file.read(&mut piece).map_err(VerifyError::Read)?;
        if length == 0 {
            break;
        }
        reader.push(&piece[..length], |part| {
            each(&part);
            match part {
                Part::Opening { number, statements } => found.push((number, statements, None)),
                Part::Section(totals) => {
                    if let Some((.., held)) = found.last_mut() {
                        *held = Some(totals);
                    }
                }
                Part::Folder { .. } | Part::Leaf(..) | Part::FolderEnd { .. } | Part::Exception(_) | Part::End => {}
            }
        })?;
    }
    reader.finish()?;
    let mut sections: Vec<SectionVerdict> = Vec::new();
    for (number, statements, totals) in found {
        let Some(totals) = totals else { continue };
        let first = sections.first().and_then(|section| section.statements.first());
        let first = first.map(|verdict| verdict.statement.clone());
        let statements = judge(number, &statements, trusted, first.as_ref(), |body| fits(body, &totals))?;
        sections.push(SectionVerdict {
            number,
            totals,
            statements,
        });
    }
    Ok(Verdict { sections })
}

/// Checks the proof of a single message: the way from its leaf to the signed root, and the statements.
///
/// # Errors
/// [`VerifyError`]: the file proves nothing.
pub fn verify_single(octets: &[u8], trusted: &TrustedKeys) -> Result<SingleVerdict, VerifyError> {
    let proof = SingleProof::read(octets)?;
    let ((root, folders), exceptions_root) = (proof.root()?, proof.exceptions_root());
    let exceptions = proof.exceptions.len() as u64;
    let fits = |body: &ReceiptBody| {
        let right = body.root == root.to_string()
            && body.exceptions_root == exceptions_root.to_string()
            && body.folders == folders
            && body.exceptions.all() == exceptions;
        right
            .then_some(())
            .ok_or("its roots and counts are not those that the proof leads to")
    };
    let statements = judge(proof.number, &proof.statements, trusted, None, fits)?;
    // `judge` refuses a section without a statement.
    let body = &statements[0].body;
    let totals = Totals {
        root,
        exceptions_root,
        folders,
        items: body.items,
        octets: body.octets,
        exceptions,
    };
    let section = SectionVerdict {
        number: proof.number,
        totals,
        statements,
    };
    Ok(SingleVerdict { proof, section })
}

fn fits(body: &ReceiptBody, totals: &Totals) -> Result<(), &'static str> {
    let right = body.root == totals.root.to_string()
        && body.exceptions_root == totals.exceptions_root.to_string()
        && (body.folders, body.items, body.octets) == (totals.folders, totals.items, totals.octets)
        && body.exceptions.all() == totals.exceptions;
    right
        .then_some(())
        .ok_or("its roots and counts are not those of the file")
}

/// The statements of one section, judged and compared with each other and with `first`, one of the receipt itself.
fn judge(
    number: u32,
    texts: &[String],
    trusted: &TrustedKeys,
    first: Option<&ReceiptStatement>,
    fits: impl Fn(&ReceiptBody) -> Result<(), &'static str>,
) -> Result<Vec<StatementVerdict>, VerifyError> {
    let mut verdicts: Vec<StatementVerdict> = Vec::new();
    for (at, text) in texts.iter().enumerate() {
        let wrong = |why: String| VerifyError::Statement {
            number,
            place: at + 1,
            why,
        };
        let read = ReadReceipt::read(text).map_err(|error| wrong(crate::error_chain(&error)))?;
        let body: ReceiptBody = serde_json::from_value(read.statement.body.clone())
            .map_err(|error| wrong(format!("what it says cannot be read: {error}")))?;
        if body.format != BODY_FORMAT {
            return Err(wrong(format!(
                "its format is {}; this program reads {BODY_FORMAT}",
                body.format
            )));
        }
        fits(&body).map_err(|why| wrong(why.to_owned()))?;
        if body.number != number {
            return Err(wrong(format!("it is about section {}", body.number)));
        }
        let signer = match body.side.as_str() {
            "source" => read.statement.source_tenant,
            "target" => read.statement.target_tenant,
            other => return Err(wrong(format!("'{other}' is no side of a move"))),
        };
        if !is_issuer_of(&read.issuer, signer) {
            return Err(wrong(format!("{} is not the issuer of tenant {signer}", read.issuer)));
        }
        let before = verdicts.first().map(|verdict| &verdict.statement).or(first);
        if before.is_some_and(|before| !about_the_same(before, &read.statement)) {
            return Err(wrong("it is about another move than the others".to_owned()));
        }
        let signature = trusted.judge(text, &read);
        if signature == SignedBy::Forged {
            return Err(wrong(format!("its signature is not that of key {}", read.kid)));
        }
        verdicts.push(StatementVerdict {
            statement: read.statement,
            body,
            issuer: read.issuer,
            kid: read.kid,
            keys_at: read.keys_at,
            signature,
        });
    }
    let sides: Vec<&str> = verdicts.iter().map(|verdict| verdict.body.side.as_str()).collect();
    let why = match (number, sides.as_slice()) {
        (0, ["source", "target"] | ["source"] | ["target"]) | (1.., ["target"]) => return Ok(verdicts),
        (_, []) => "no statement",
        (0, _) => "other statements than the source's and then the target's",
        (1.., _) => "another statement than the target's",
    };
    Err(VerifyError::Section { number, why })
}

/// Whether an issuer's name is that of this tenant at some authority: `https://{name}/{tenant}/v2.0`.
fn is_issuer_of(issuer: &str, tenant: TenantId) -> bool {
    issuer.starts_with("https://") && issuer.ends_with(&format!("/{tenant}/v2.0"))
}

fn about_the_same(one: &ReceiptStatement, other: &ReceiptStatement) -> bool {
    (
        one.move_id,
        one.attempt,
        one.exchange_guid,
        one.source_tenant,
        one.target_tenant,
    ) == (
        other.move_id,
        other.attempt,
        other.exchange_guid,
        other.source_tenant,
        other.target_tenant,
    )
}

/// What a mailbox should hold by a receipt: its leaves, but for what the exceptions say that the target held otherwise.
/// One entry for each item is held.
#[derive(Debug, Default)]
pub struct Contents {
    /// The items, in the receipt's order.
    pub items: Vec<Expected>,
    path: Vec<String>,
    /// The first item of the section.
    section: usize,
    /// The section's items, once an exception asks for one.
    places: HashMap<(Vec<String>, u32), usize>,
}

impl Contents {
    /// Takes the next part.
    pub fn part(&mut self, part: &Part) {
        match part {
            Part::Opening { .. } => {
                self.section = self.items.len();
                self.places.clear();
            }
            Part::Folder { path, .. } => self.path.clone_from(path),
            Part::Leaf(leaf, _) => self.items.push(Expected {
                path: self.path.clone(),
                uid: leaf.uid,
                digest: Some(leaf.digest),
                flags: leaf.flags.clone(),
                received: leaf.received,
            }),
            Part::Exception(exception) => self.exception(exception),
            Part::FolderEnd { .. } | Part::Section(_) | Part::End => {}
        }
    }

    fn exception(&mut self, exception: &ReceiptException) {
        if self.places.is_empty() {
            let section = self.items.iter().enumerate().skip(self.section);
            self.places = section.map(|(at, item)| ((item.path.clone(), item.uid), at)).collect();
        }
        let place = self.places.get(&(exception.path.clone(), exception.uid));
        // Skipped items have no leaf.
        let Some(item) = place.and_then(|at| self.items.get_mut(*at)) else {
            return;
        };
        match exception.kind.as_str() {
            "altered" => item.digest = exception.held_digest,
            "flags" => item.flags = Flags::from_names(exception.held_flags.iter().flatten()),
            "date" => item.received = exception.held_received.unwrap_or(item.received),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rehome_wire::{digest::Digest, receipt::ReceiptLeaf};

    #[test]
    fn what_the_target_held_otherwise_is_expected_so() {
        let mut contents = Contents::default();
        let opening = |number| Part::Opening {
            number,
            statements: Vec::new(),
        };
        let folder = Part::Folder {
            path: vec!["INBOX".into()],
            uid_validity: 1,
        };
        let leaf = |uid: u32| {
            let leaf = ReceiptLeaf {
                uid,
                length: 1,
                digest: Digest::of(b"sent"),
                flags: Flags::default(),
                received: 5,
            };
            Part::Leaf(leaf, Digest::of(b""))
        };
        let exception = |uid, kind: &str| {
            Part::Exception(ReceiptException {
                path: vec!["INBOX".into()],
                uid,
                kind: kind.into(),
                held_length: None,
                held_digest: Some(Digest::of(b"held")),
                held_flags: Some(vec!["\\seen".into()]),
                held_received: Some(9),
                reason: None,
            })
        };
        let parts = [
            opening(0),
            folder.clone(),
            leaf(1),
            leaf(2),
            leaf(3),
            exception(1, "altered"),
            exception(2, "flags"),
            exception(3, "date"),
            exception(7, "skipped"),
            opening(1),
            folder,
            leaf(1),
        ];
        parts.iter().for_each(|part| contents.part(part));
        let shown: Vec<_> = contents
            .items
            .iter()
            .map(|item| {
                (
                    item.digest == Some(Digest::of(b"held")),
                    item.flags.is_empty(),
                    item.received,
                )
            })
            .collect();
        assert_eq!(
            shown,
            [(true, true, 5), (false, false, 5), (false, true, 9), (false, true, 5)]
        );
    }

    #[test]
    fn an_issuer_is_its_tenants() {
        let tenant = TenantId::from_u128(7);
        let right = format!("https://mail.contoso.example/{tenant}/v2.0");
        assert!(is_issuer_of(&right, tenant));
        assert!(!is_issuer_of(&right, TenantId::from_u128(8)));
        assert!(!is_issuer_of(
            &format!("http://mail.contoso.example/{tenant}/v2.0"),
            tenant
        ));
    }
}

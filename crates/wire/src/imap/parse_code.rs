//! Reads status responses and their codes.

use super::MAX_TEXT;
use super::capability::Capabilities;
use super::code::{Code, MetadataRefusal};
use super::cursor::Cursor;
use super::parse_fetch::{read_flags, read_object_id};
use super::response::{Answer, Condition};
use super::set::{parse_ordered, parse_set};

/// Longest name of an unknown code, in octets.
const MAX_NAME: usize = 64;
/// Longest URL in a code, in octets.
const MAX_ARGUMENT: usize = 1000;

/// Reads what stands behind OK, NO, BAD, BYE or PREAUTH.
pub(super) fn parse_answer(condition: Condition, cursor: &mut Cursor<'_>) -> Answer {
    let start = cursor.place();
    let code = match cursor.take(b'[') {
        true => parse_code(cursor),
        false => None,
    };
    if code.is_none() {
        cursor.go_to(start);
    }
    Answer {
        condition,
        code,
        text: bounded(cursor.rest().trim_ascii(), MAX_TEXT),
    }
}

/// Text of at most `most` octets; what is no UTF-8 is replaced.
fn bounded(octets: &[u8], most: usize) -> String {
    let mut text = String::from_utf8_lossy(&octets[..octets.len().min(most)]).into_owned();
    text.truncate(text.floor_char_boundary(most));
    text
}

fn ends_name(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t' | b'(' | b']')
}

/// Reads a code behind its bracket, with the closing one. None where there is none.
fn parse_code(cursor: &mut Cursor<'_>) -> Option<Code> {
    let name = cursor.until(ends_name);
    if name.is_empty() {
        return None;
    }
    let name = bounded(name, MAX_NAME).to_ascii_uppercase();
    let arguments = cursor.place();
    if let Some(code) = with_arguments(&name, cursor)
        && cursor.take(b']')
    {
        return Some(code);
    }
    cursor.go_to(arguments);
    let found = cursor.rest();
    let length = end_of_code(found)?;
    cursor.go_to(arguments + length + 1);
    Some(without_arguments(&name).unwrap_or_else(|| Code::Other {
        name,
        arguments: bounded(found[..length].trim_ascii(), MAX_TEXT),
    }))
}

/// The closing bracket outside quotes, or else the first one.
fn end_of_code(octets: &[u8]) -> Option<usize> {
    let mut quoted = false;
    octets
        .iter()
        .position(|octet| {
            quoted ^= *octet == b'"';
            !quoted && *octet == b']'
        })
        .or_else(|| octets.iter().position(|octet| *octet == b']'))
}

/// Codes whose arguments mean something here.
fn with_arguments(name: &str, cursor: &mut Cursor<'_>) -> Option<Code> {
    Some(match name {
        "APPENDUID" => Code::AppendUid {
            uid_validity: cursor.number32()?,
            uids: parse_ordered(cursor.until(ends_name))?,
        },
        "CAPABILITY" => Code::Capability(Box::new(parse_capabilities(cursor))),
        "COPYUID" => Code::CopyUid {
            uid_validity: cursor.number32()?,
            from: parse_ordered(cursor.until(ends_name))?,
            to: parse_ordered(cursor.until(ends_name))?,
        },
        "HIGHESTMODSEQ" => Code::HighestModSeq(cursor.number()?),
        "MAILBOXID" => Code::MailboxId(read_object_id(cursor)??),
        "METADATA" => Code::Metadata(metadata_refusal(cursor)?),
        "MODIFIED" => Code::Modified(parse_set(cursor.until(ends_name))?),
        "PERMANENTFLAGS" => {
            let mut new_keywords = false;
            let (flags, _) = read_flags(cursor, |name| new_keywords |= name == "\\*")?;
            Code::PermanentFlags { flags, new_keywords }
        }
        "REFERRAL" => Code::Referral(bounded(cursor.until(|octet| octet == b']'), MAX_ARGUMENT)),
        "UIDNEXT" => Code::UidNext(cursor.number32()?),
        "UIDVALIDITY" => Code::UidValidity(cursor.number32()?),
        "UNSEEN" => Code::Unseen(cursor.number32()?),
        _ => return None,
    })
}

fn metadata_refusal(cursor: &mut Cursor<'_>) -> Option<MetadataRefusal> {
    let word = cursor.until(ends_name).to_ascii_uppercase();
    Some(match word.as_slice() {
        b"LONGENTRIES" => MetadataRefusal::LongEntries(cursor.number()?),
        b"MAXSIZE" => MetadataRefusal::MaxSize(cursor.number()?),
        b"TOOMANY" => MetadataRefusal::TooMany,
        b"NOPRIVATE" => MetadataRefusal::NoPrivate,
        _ => return None,
    })
}

/// Codes that say all by their name; arguments do not change it.
fn without_arguments(name: &str) -> Option<Code> {
    Some(match name {
        "ALERT" => Code::Alert,
        "ALREADYEXISTS" => Code::AlreadyExists,
        "AUTHENTICATIONFAILED" => Code::AuthenticationFailed,
        "AUTHORIZATIONFAILED" => Code::AuthorizationFailed,
        "BADCHARSET" => Code::BadCharset,
        "CANNOT" => Code::Cannot,
        "CLIENTBUG" => Code::ClientBug,
        "CLOSED" => Code::Closed,
        "COMPRESSIONACTIVE" => Code::CompressionActive,
        "CONTACTADMIN" => Code::ContactAdmin,
        "CORRUPTION" => Code::Corruption,
        "EXPIRED" => Code::Expired,
        "EXPUNGEISSUED" => Code::ExpungeIssued,
        "HASCHILDREN" => Code::HasChildren,
        "INUSE" => Code::InUse,
        "LIMIT" => Code::Limit,
        "NOMODSEQ" => Code::NoModSeq,
        "NONEXISTENT" => Code::NonExistent,
        "NOPERM" => Code::NoPerm,
        "NOTSAVED" => Code::NotSaved,
        "OVERQUOTA" => Code::OverQuota,
        "PARSE" => Code::Parse,
        "PRIVACYREQUIRED" => Code::PrivacyRequired,
        "READ-ONLY" => Code::ReadOnly,
        "READ-WRITE" => Code::ReadWrite,
        "SERVERBUG" => Code::ServerBug,
        "THROTTLED" => Code::Throttled,
        "TOOBIG" => Code::TooBig,
        "TRYCREATE" => Code::TryCreate,
        "UIDNOTSTICKY" => Code::UidNotSticky,
        "UNAVAILABLE" => Code::Unavailable,
        "UNKNOWN-CTE" => Code::UnknownCte,
        "USEATTR" => Code::UseAttr,
        _ => return None,
    })
}

/// Words up to the end or the closing bracket.
pub(super) fn parse_capabilities(cursor: &mut Cursor<'_>) -> Capabilities {
    Capabilities::from_names(std::iter::from_fn(|| {
        let word = cursor.until(|octet| matches!(octet, b' ' | b'\t' | b']'));
        match word.is_empty() {
            true => None,
            false => Some(std::str::from_utf8(word).unwrap_or_default()),
        }
    }))
}

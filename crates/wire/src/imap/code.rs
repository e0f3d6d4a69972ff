//! Response codes: what stands in brackets before an answer's text.

use super::Capabilities;
use super::set::OrderedUids;
use crate::flags::Flags;
use crate::uid_set::UidSet;

/// A response code (RFC 9051 §7.1, RFC 5530, RFC 4315, RFC 7162 and others).
#[derive(Clone, Debug, PartialEq)]
pub enum Code {
    /// ALERT: the text must be shown to a person.
    Alert,
    /// ALREADYEXISTS: the folder is there.
    AlreadyExists,
    /// APPENDUID: where the messages of an APPEND went (RFC 9051 §7.1).
    AppendUid {
        /// UIDVALIDITY of the folder.
        uid_validity: u32,
        /// Their uids, in the order of the messages.
        uids: OrderedUids,
    },
    /// AUTHENTICATIONFAILED: the credentials are wrong, or the server will not say what is.
    AuthenticationFailed,
    /// AUTHORIZATIONFAILED: signed in, but not allowed to act for the other user.
    AuthorizationFailed,
    /// BADCHARSET.
    BadCharset,
    /// CANNOT: it can never work on this server (a keyword or name that it does not take).
    Cannot,
    /// CAPABILITY.
    Capability(Box<Capabilities>),
    /// CLIENTBUG.
    ClientBug,
    /// CLOSED: what follows is about the folder newly selected (RFC 9051 §7.1).
    Closed,
    /// COMPRESSIONACTIVE (RFC 4978 §3).
    CompressionActive,
    /// CONTACTADMIN: a person must act.
    ContactAdmin,
    /// COPYUID: where messages were copied or moved to.
    CopyUid {
        /// UIDVALIDITY of the target folder.
        uid_validity: u32,
        /// Uids in the source, in the order in which `to` names their copies.
        from: OrderedUids,
        /// Uids in the target.
        to: OrderedUids,
    },
    /// CORRUPTION: the server's own store is damaged.
    Corruption,
    /// EXPIRED: the credentials have run out.
    Expired,
    /// EXPUNGEISSUED: messages are gone that another session removed.
    ExpungeIssued,
    /// HASCHILDREN: the folder cannot be removed.
    HasChildren,
    /// HIGHESTMODSEQ of the selected folder.
    HighestModSeq(u64),
    /// INUSE: busy, try again later.
    InUse,
    /// LIMIT: a limit of the implementation.
    Limit,
    /// MAILBOXID (RFC 8474 §4).
    MailboxId(String),
    /// METADATA refused, or cut (RFC 5464 §4.2.1, §4.3).
    Metadata(MetadataRefusal),
    /// MODIFIED: these messages changed since UNCHANGEDSINCE and were left alone (uids after UID STORE).
    Modified(UidSet),
    /// NOMODSEQ: the folder keeps no mod-sequences.
    NoModSeq,
    /// NONEXISTENT: the folder is not there.
    NonExistent,
    /// NOPERM: not allowed.
    NoPerm,
    /// NOTSAVED: a search result was not kept.
    NotSaved,
    /// OVERQUOTA.
    OverQuota,
    /// PARSE: a message could not be read.
    Parse,
    /// PERMANENTFLAGS of the selected folder.
    PermanentFlags {
        /// Flags and keywords that can be changed for good.
        flags: Flags,
        /// `\*`: new keywords can be made.
        new_keywords: bool,
    },
    /// PRIVACYREQUIRED: not without TLS.
    PrivacyRequired,
    /// READ-ONLY.
    ReadOnly,
    /// READ-WRITE.
    ReadWrite,
    /// REFERRAL (RFC 2221, RFC 2193): the server's URL, at most 1000 octets. Not to be followed unasked.
    Referral(String),
    /// SERVERBUG.
    ServerBug,
    /// THROTTLED: too fast; see [`Answer::back_off_seconds`](super::Answer::back_off_seconds).
    Throttled,
    /// TOOBIG: the message is too large (RFC 4469 §4.2, RFC 7889).
    TooBig,
    /// TRYCREATE: the target folder is not there and can be made.
    TryCreate,
    /// UIDNEXT of the selected folder.
    UidNext(u32),
    /// UIDNOTSTICKY: uids of the selected folder do not last.
    UidNotSticky,
    /// UIDVALIDITY of the selected folder; 0 is no validity, though some servers say it.
    UidValidity(u32),
    /// UNAVAILABLE: a part of the server is down for now.
    Unavailable,
    /// UNKNOWN-CTE: the server cannot decode the part.
    UnknownCte,
    /// UNSEEN: number of the first unseen message.
    Unseen(u32),
    /// USEATTR: the special use cannot be given (RFC 6154 §3).
    UseAttr,
    /// Another code, or one of these with arguments that cannot be read.
    Other {
        /// The name in upper case, at most 64 octets.
        name: String,
        /// What stands behind it, at most [`MAX_TEXT`](super::MAX_TEXT) octets.
        arguments: String,
    },
}

/// What the code METADATA says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataRefusal {
    /// LONGENTRIES: values were left out; the longest has this many octets.
    LongEntries(u64),
    /// MAXSIZE: a value may have at most this many octets.
    MaxSize(u64),
    /// TOOMANY: no more entries can be kept.
    TooMany,
    /// NOPRIVATE: private entries cannot be kept.
    NoPrivate,
}

impl Code {
    /// The code's name, in upper case.
    pub fn name(&self) -> &str {
        match self {
            Self::Alert => "ALERT",
            Self::AlreadyExists => "ALREADYEXISTS",
            Self::AppendUid { .. } => "APPENDUID",
            Self::AuthenticationFailed => "AUTHENTICATIONFAILED",
            Self::AuthorizationFailed => "AUTHORIZATIONFAILED",
            Self::BadCharset => "BADCHARSET",
            Self::Cannot => "CANNOT",
            Self::Capability(_) => "CAPABILITY",
            Self::ClientBug => "CLIENTBUG",
            Self::Closed => "CLOSED",
            Self::CompressionActive => "COMPRESSIONACTIVE",
            Self::ContactAdmin => "CONTACTADMIN",
            Self::CopyUid { .. } => "COPYUID",
            Self::Corruption => "CORRUPTION",
            Self::Expired => "EXPIRED",
            Self::ExpungeIssued => "EXPUNGEISSUED",
            Self::HasChildren => "HASCHILDREN",
            Self::HighestModSeq(_) => "HIGHESTMODSEQ",
            Self::InUse => "INUSE",
            Self::Limit => "LIMIT",
            Self::MailboxId(_) => "MAILBOXID",
            Self::Metadata(_) => "METADATA",
            Self::Modified(_) => "MODIFIED",
            Self::NoModSeq => "NOMODSEQ",
            Self::NonExistent => "NONEXISTENT",
            Self::NoPerm => "NOPERM",
            Self::NotSaved => "NOTSAVED",
            Self::OverQuota => "OVERQUOTA",
            Self::Parse => "PARSE",
            Self::PermanentFlags { .. } => "PERMANENTFLAGS",
            Self::PrivacyRequired => "PRIVACYREQUIRED",
            Self::ReadOnly => "READ-ONLY",
            Self::ReadWrite => "READ-WRITE",
            Self::Referral(_) => "REFERRAL",
            Self::ServerBug => "SERVERBUG",
            Self::Throttled => "THROTTLED",
            Self::TooBig => "TOOBIG",
            Self::TryCreate => "TRYCREATE",
            Self::UidNext(_) => "UIDNEXT",
            Self::UidNotSticky => "UIDNOTSTICKY",
            Self::UidValidity(_) => "UIDVALIDITY",
            Self::Unavailable => "UNAVAILABLE",
            Self::UnknownCte => "UNKNOWN-CTE",
            Self::Unseen(_) => "UNSEEN",
            Self::UseAttr => "USEATTR",
            Self::Other { name, .. } => name,
        }
    }
}

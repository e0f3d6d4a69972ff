//! What a server says.

use bytes::Bytes;

use super::Capabilities;
use super::client::Tag;
use super::code::Code;
use super::name::MailboxName;
use crate::flags::Flags;
use crate::uid_set::UidSet;

/// What the server said. Responses come in the order of the wire; a body comes before the [`Fetch`] it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The first line of the connection: `Ok`, `PreAuth` or `Bye`.
    Greeting(Answer),
    /// AUTHENTICATE goes on: the server's challenge, decoded from base64 (as it came where it is none). Answer with
    /// [`Client::respond`](super::Client::respond) or [`Client::cancel`](super::Client::cancel).
    Challenge {
        /// The AUTHENTICATE.
        tag: Tag,
        /// The challenge, often empty.
        octets: Vec<u8>,
    },
    /// A command is done: `Ok`, `No` or `Bad`.
    Tagged(Tag, Answer),
    /// An answer to nothing in particular: `Ok`, `No`, `Bad` or `Bye`. Much of SELECT comes this way, in codes.
    Untagged(Answer),
    /// CAPABILITY.
    Capability(Box<Capabilities>),
    /// ENABLED (RFC 9051 §7.2.1): names in upper case.
    Enabled(Vec<String>),
    /// LIST.
    List(Box<Listed>),
    /// LSUB.
    Lsub(Box<Listed>),
    /// STATUS.
    Status(Box<MailboxStatus>),
    /// FLAGS: those that the folder knows.
    Flags(Flags),
    /// EXISTS: how many messages the selected folder holds.
    Exists(u32),
    /// RECENT.
    Recent(u32),
    /// EXPUNGE: this message number is gone and those above it count one less.
    Expunge(u32),
    /// VANISHED (RFC 7162 §3.2.10).
    Vanished {
        /// `(EARLIER)`: they went before this session; message numbers do not change by it.
        earlier: bool,
        /// Uids that are gone. They may name uids that never were.
        uids: UidSet,
    },
    /// A body begins.
    BodyStart(BodyStart),
    /// Octets of the body, at most [`BODY_STEP`](super::BODY_STEP), never none; slices of what was fed.
    BodyOctets(Bytes),
    /// The body is whole: as many octets came as were announced.
    BodyEnd,
    /// FETCH, after the bodies that came in it.
    Fetch(Fetch),
    /// SEARCH (RFC 3501 §7.2.5): uids, as the question was UID SEARCH.
    Search {
        /// What was found.
        uids: UidSet,
        /// The highest MODSEQ of what was found (RFC 7162 §3.1.5).
        mod_seq: Option<u64>,
    },
    /// ESEARCH (RFC 9051 §7.3.4).
    ESearch(ESearch),
    /// NAMESPACE.
    Namespace(Namespaces),
    /// ID (RFC 2971): names in lower case with their values; values that are NIL are left out.
    Id(Vec<(String, String)>),
    /// QUOTA (RFC 9208).
    Quota(Quota),
    /// QUOTAROOT (RFC 9208).
    QuotaRoot {
        /// The folder.
        mailbox: MailboxName,
        /// Names of its quota roots.
        roots: Vec<String>,
    },
    /// ACL (RFC 4314 §3.6).
    Acl(Acl),
    /// MYRIGHTS (RFC 4314 §3.8).
    MyRights {
        /// The folder.
        mailbox: MailboxName,
        /// One letter for each right.
        rights: String,
    },
    /// METADATA (RFC 5464).
    Metadata(Metadata),
    /// A response that is known by name and could not be read: what it would have said is missing. Where the name is
    /// LIST or FETCH nothing may be concluded from what did not come.
    Malformed {
        /// The response's name in upper case.
        name: &'static str,
        /// The beginning of the line, at most 200 octets, for the log.
        line: String,
    },
    /// A response of a name that is not known here; ignore it.
    Unknown {
        /// The beginning of the line, at most 200 octets, for the log.
        line: String,
    },
}

/// How a status response begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// OK: done, or only information.
    Ok,
    /// NO: refused, or a warning.
    No,
    /// BAD: not understood, or out of place.
    Bad,
    /// PREAUTH: signed in already (greeting only).
    PreAuth,
    /// BYE: the server closes.
    Bye,
}

/// A status response (RFC 9051 §7.1).
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// How it begins.
    pub condition: Condition,
    /// The code in brackets.
    pub code: Option<Code>,
    /// The text for people, without the code, at most [`MAX_TEXT`](super::MAX_TEXT) octets; it may be empty.
    pub text: String,
}

impl Answer {
    /// Whether it says OK.
    pub fn is_ok(&self) -> bool {
        self.condition == Condition::Ok
    }

    /// How long the server asks to be left alone, in milliseconds rounded up to seconds: the text
    /// `Suggested Backoff Time: 299961 milliseconds` of some large services. At most a day.
    pub fn back_off_seconds(&self) -> Option<u32> {
        const BEFORE: &str = "backoff time:";
        let text = self.text.to_ascii_lowercase();
        let rest = text[text.find(BEFORE)? + BEFORE.len()..].trim_start();
        let digits = rest.len() - rest.trim_start_matches(|octet: char| octet.is_ascii_digit()).len();
        let milliseconds: u64 = rest[..digits].parse().ok()?;
        u32::try_from(milliseconds.div_ceil(1000).min(86_400)).ok()
    }
}

impl std::fmt::Display for Answer {
    /// For people: `NO [OVERQUOTA] text`.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self.condition {
            Condition::Ok => "OK",
            Condition::No => "NO",
            Condition::Bad => "BAD",
            Condition::PreAuth => "PREAUTH",
            Condition::Bye => "BYE",
        })?;
        if let Some(code) = &self.code {
            write!(formatter, " [{}]", code.name())?;
        }
        match self.text.is_empty() {
            true => Ok(()),
            false => write!(formatter, " {}", self.text),
        }
    }
}

/// A body begins to arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyStart {
    /// The message, where the server named its uid before the body and not too far before; else it is in the
    /// [`Fetch`] that follows, so both are to be looked at.
    pub uid: Option<u32>,
    /// Which part of the message.
    pub section: Section,
    /// How many octets follow in [`Event::BodyOctets`].
    pub length: u64,
}

/// Which part of a message a body is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// What stands in the brackets, at most 200 octets; empty for the whole message.
    pub part: String,
    /// The octet at which a partial fetch begins, `<n>` behind the brackets.
    pub origin: Option<u64>,
    /// BINARY rather than BODY: decoded by the server, so not the message's octets.
    pub binary: bool,
}

impl Section {
    /// `BODY[]`, all of it.
    pub fn is_whole(&self) -> bool {
        self.part.is_empty() && self.origin.is_none() && !self.binary
    }
}

/// What a FETCH response says of one message. What is none was not in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fetch {
    /// The message number. It means nothing once an EXPUNGE may be under way: go by [`uid`](Self::uid).
    pub number: u32,
    /// UID. None in unsolicited flag news of servers without CONDSTORE: no conclusion then.
    pub uid: Option<u32>,
    /// FLAGS, without `\Recent`.
    pub flags: Option<Flags>,
    /// Names in FLAGS that cannot be kept (unknown ones with a backslash, too long, too many).
    pub flags_dropped: Vec<String>,
    /// INTERNALDATE, in seconds since 1970.
    pub internal_date: Option<i64>,
    /// RFC822.SIZE.
    pub size: Option<u64>,
    /// MODSEQ.
    pub mod_seq: Option<u64>,
    /// EMAILID (RFC 8474).
    pub email_id: Option<String>,
    /// X-GUID (Dovecot).
    pub guid: Option<String>,
    /// The bodies, in the order in which they came.
    pub body: FetchedBody,
    /// False when something in the response could not be read; what is none may then be unread rather than absent.
    pub complete: bool,
}

/// Whether a FETCH response carried a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FetchedBody {
    /// No body was named.
    #[default]
    Absent,
    /// A body was named and its value was NIL: the server has no octets for it.
    Nil,
    /// Octets were handed over in the events before, if only zero of them.
    Octets,
}

/// LIST and LSUB (RFC 9051 §7.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The attributes in the first parentheses.
    pub attributes: ListAttributes,
    /// The hierarchy separator; none where the namespace is flat.
    pub delimiter: Option<char>,
    /// The full name.
    pub name: MailboxName,
    /// CHILDINFO (RFC 9051 §6.3.9.6): it is listed because children match SUBSCRIBED.
    pub child_info: bool,
    /// OLDNAME (RFC 9051 §7.3.1): it was renamed from this.
    pub old_name: Option<MailboxName>,
}

/// An attribute of LIST (RFC 9051 §7.3.1, RFC 8457).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ListAttribute {
    /// `\NonExistent`; implies `\NoSelect`.
    NonExistent,
    /// `\NoSelect`
    NoSelect,
    /// `\NoInferiors`
    NoInferiors,
    /// `\HasChildren`
    HasChildren,
    /// `\HasNoChildren`
    HasNoChildren,
    /// `\Marked`
    Marked,
    /// `\Unmarked`
    Unmarked,
    /// `\Subscribed`
    Subscribed,
    /// `\Remote`
    Remote,
    /// `\All`
    All,
    /// `\Archive`
    Archive,
    /// `\Drafts`
    Drafts,
    /// `\Flagged`
    Flagged,
    /// `\Junk`
    Junk,
    /// `\Sent`
    Sent,
    /// `\Trash`
    Trash,
    /// `\Important`
    Important,
}

impl ListAttribute {
    /// All that are known.
    pub const ALL: [Self; 17] = [
        Self::NonExistent,
        Self::NoSelect,
        Self::NoInferiors,
        Self::HasChildren,
        Self::HasNoChildren,
        Self::Marked,
        Self::Unmarked,
        Self::Subscribed,
        Self::Remote,
        Self::All,
        Self::Archive,
        Self::Drafts,
        Self::Flagged,
        Self::Junk,
        Self::Sent,
        Self::Trash,
        Self::Important,
    ];

    /// Its spelling, with the backslash.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NonExistent => "\\NonExistent",
            Self::NoSelect => "\\NoSelect",
            Self::NoInferiors => "\\NoInferiors",
            Self::HasChildren => "\\HasChildren",
            Self::HasNoChildren => "\\HasNoChildren",
            Self::Marked => "\\Marked",
            Self::Unmarked => "\\Unmarked",
            Self::Subscribed => "\\Subscribed",
            Self::Remote => "\\Remote",
            Self::All => "\\All",
            Self::Archive => "\\Archive",
            Self::Drafts => "\\Drafts",
            Self::Flagged => "\\Flagged",
            Self::Junk => "\\Junk",
            Self::Sent => "\\Sent",
            Self::Trash => "\\Trash",
            Self::Important => "\\Important",
        }
    }
}

/// A set of [`ListAttribute`]s; unknown ones are left out.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct ListAttributes(u32);

impl ListAttributes {
    /// Adds one.
    pub fn insert(&mut self, attribute: ListAttribute) {
        self.0 |= 1 << attribute as u8;
    }

    /// Whether it is there.
    pub fn contains(self, attribute: ListAttribute) -> bool {
        self.0 & (1 << attribute as u8) != 0
    }

    /// Whether the folder can be selected: neither `\NoSelect` nor `\NonExistent`.
    pub fn is_selectable(self) -> bool {
        !self.contains(ListAttribute::NoSelect) && !self.contains(ListAttribute::NonExistent)
    }

    /// Those that are there, in the order of [`ListAttribute::ALL`].
    pub fn iter(self) -> impl Iterator<Item = ListAttribute> {
        ListAttribute::ALL
            .into_iter()
            .filter(move |attribute| self.contains(*attribute))
    }
}

impl FromIterator<ListAttribute> for ListAttributes {
    fn from_iter<I: IntoIterator<Item = ListAttribute>>(attributes: I) -> Self {
        let mut set = Self::default();
        attributes.into_iter().for_each(|attribute| set.insert(attribute));
        set
    }
}

impl std::fmt::Debug for ListAttributes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_set().entries(self.iter()).finish()
    }
}

/// STATUS (RFC 9051 §7.3.2). What is none was not in it, or had a value that cannot be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailboxStatus {
    /// The folder.
    pub name: MailboxName,
    /// MESSAGES.
    pub messages: Option<u32>,
    /// UIDNEXT.
    pub uid_next: Option<u32>,
    /// UIDVALIDITY; 0 is no validity, though some servers say it.
    pub uid_validity: Option<u32>,
    /// UNSEEN.
    pub unseen: Option<u32>,
    /// HIGHESTMODSEQ; 0 where the folder keeps none (RFC 7162 §3.1.2.2).
    pub highest_mod_seq: Option<u64>,
    /// MAILBOXID (RFC 8474).
    pub mailbox_id: Option<String>,
    /// X-GUID (Dovecot): as MAILBOXID.
    pub guid: Option<String>,
    /// SIZE: the octets of all messages (RFC 8438).
    pub size: Option<u64>,
    /// DELETED: messages with `\Deleted` (RFC 9208 §4.1.4).
    pub deleted: Option<u32>,
    /// APPENDLIMIT of this folder (RFC 7889); none where NIL or absent.
    pub append_limit: Option<u64>,
}

/// ESEARCH (RFC 9051 §7.3.4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ESearch {
    /// The command it answers, where the server says so.
    pub tag: Option<Tag>,
    /// ALL; absent also when nothing was found.
    pub all: Option<UidSet>,
    /// COUNT.
    pub count: Option<u32>,
    /// MIN.
    pub min: Option<u32>,
    /// MAX.
    pub max: Option<u32>,
    /// MODSEQ.
    pub mod_seq: Option<u64>,
}

/// One namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// What all its names begin with, separator included.
    pub prefix: MailboxName,
    /// Its hierarchy separator.
    pub delimiter: Option<char>,
}

/// NAMESPACE (RFC 9051 §6.3.10).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// The user's own.
    pub personal: Vec<Namespace>,
    /// Those of other users.
    pub other_users: Vec<Namespace>,
    /// Shared ones.
    pub shared: Vec<Namespace>,
}

/// QUOTA (RFC 9208 §4.2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The quota root.
    pub root: String,
    /// Its resources.
    pub resources: Vec<QuotaResource>,
}

impl Quota {
    /// What is used and what may be used in octets: the resource STORAGE, which counts in units of 1024.
    pub fn storage_octets(&self) -> Option<(u64, u64)> {
        let storage = self
            .resources
            .iter()
            .find(|resource| resource.name.eq_ignore_ascii_case("STORAGE"))?;
        Some((storage.used.saturating_mul(1024), storage.limit.saturating_mul(1024)))
    }
}

/// One resource of a quota root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaResource {
    /// STORAGE (in units of 1024 octets), MESSAGE, MAILBOX or another.
    pub name: String,
    /// What is used.
    pub used: u64,
    /// What may be used.
    pub limit: u64,
}

/// ACL (RFC 4314 §3.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    /// The folder.
    pub mailbox: MailboxName,
    /// Identifier and rights, one letter each; an identifier with `-` in front takes rights away.
    pub entries: Vec<(String, String)>,
}

/// METADATA (RFC 5464 §4.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The folder; empty for the server's own.
    pub mailbox: MailboxName,
    /// Entry names with their values. None is NIL, or a change that is told without the value (`named_only`).
    pub entries: Vec<(String, Option<Bytes>)>,
    /// Unsolicited: only the names of entries that changed.
    pub named_only: bool,
}

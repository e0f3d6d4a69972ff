//! The parts that commands are made of.

use super::set::{write_number, write_set};
use crate::flags::Flags;
use crate::uid_set::UidSet;

/// Which messages a command names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uids<'a> {
    /// These. The set must not be empty: IMAP has no empty set and the server would answer BAD.
    Set(&'a UidSet),
    /// From this uid on, `n:*`. Of a folder with messages below only, the server names the last one.
    From(u32),
}

impl<'a> From<&'a UidSet> for Uids<'a> {
    fn from(set: &'a UidSet) -> Self {
        Self::Set(set)
    }
}

impl Uids<'_> {
    pub(super) fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Set(set) => write_set(set, out),
            Self::From(uid) => {
                write_number(u64::from(uid.max(1)), out);
                out.extend_from_slice(b":*");
            }
        }
    }
}

/// What STATUS asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StatusItems {
    /// MESSAGES.
    pub messages: bool,
    /// UIDNEXT.
    pub uid_next: bool,
    /// UIDVALIDITY.
    pub uid_validity: bool,
    /// UNSEEN.
    pub unseen: bool,
    /// HIGHESTMODSEQ (CONDSTORE).
    pub highest_mod_seq: bool,
    /// MAILBOXID (OBJECTID). Cyrus 3.6.1 answers it rightly only if it is asked for alone; with any other item it
    /// sends octets of its memory, which may even break the response (read as no identifier where they do not).
    pub mailbox_id: bool,
    /// X-GUID (Dovecot).
    pub guid: bool,
    /// SIZE (STATUS=SIZE or IMAP4rev2).
    pub size: bool,
    /// DELETED (IMAP4rev2 or QUOTA=RES-STORAGE).
    pub deleted: bool,
    /// APPENDLIMIT (RFC 7889).
    pub append_limit: bool,
}

impl StatusItems {
    /// MESSAGES, UIDNEXT and UIDVALIDITY: what every server has.
    pub const BASIC: Self = Self {
        messages: true,
        uid_next: true,
        uid_validity: true,
        unseen: false,
        highest_mod_seq: false,
        mailbox_id: false,
        guid: false,
        size: false,
        deleted: false,
        append_limit: false,
    };

    /// Writes `(MESSAGES UIDNEXT)`.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        let items = [
            (self.messages, "MESSAGES"),
            (self.uid_next, "UIDNEXT"),
            (self.uid_validity, "UIDVALIDITY"),
            (self.unseen, "UNSEEN"),
            (self.highest_mod_seq, "HIGHESTMODSEQ"),
            (self.mailbox_id, "MAILBOXID"),
            (self.guid, "X-GUID"),
            (self.size, "SIZE"),
            (self.deleted, "DELETED"),
            (self.append_limit, "APPENDLIMIT"),
        ];
        write_names(&items, out);
    }
}

/// Writes the chosen names in parentheses.
pub(super) fn write_names(items: &[(bool, &str)], out: &mut Vec<u8>) {
    let chosen: Vec<&str> = items
        .iter()
        .filter(|(chosen, _)| *chosen)
        .map(|(_, name)| *name)
        .collect();
    out.push(b'(');
    out.extend_from_slice(chosen.join(" ").as_bytes());
    out.push(b')');
}

/// Which folders LIST looks at (LIST-EXTENDED).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SubscribedOnly {
    /// All.
    #[default]
    No,
    /// Subscribed ones, also those that are not there: `(SUBSCRIBED)`.
    Yes,
    /// Those, and names above them: `(SUBSCRIBED RECURSIVEMATCH)`.
    WithParents,
}

/// What LIST returns with the names. All but the default needs LIST-EXTENDED, `special_use` needs SPECIAL-USE and
/// `status` needs LIST-STATUS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ListOptions {
    /// Which folders.
    pub only: SubscribedOnly,
    /// `\Subscribed` on those that are.
    pub subscribed: bool,
    /// `\HasChildren` and `\HasNoChildren`.
    pub children: bool,
    /// Special uses.
    pub special_use: bool,
    /// A STATUS response for each.
    pub status: Option<StatusItems>,
}

impl ListOptions {
    /// Writes what stands behind the patterns, with a blank before it, or nothing.
    pub(super) fn write_return(self, out: &mut Vec<u8>) {
        let options = [
            (self.subscribed, "SUBSCRIBED"),
            (self.children, "CHILDREN"),
            (self.special_use, "SPECIAL-USE"),
        ];
        let mut words: Vec<Vec<u8>> = options
            .iter()
            .filter(|(chosen, _)| *chosen)
            .map(|(_, name)| name.as_bytes().to_vec())
            .collect();
        if let Some(items) = self.status {
            let mut word = b"STATUS ".to_vec();
            items.write(&mut word);
            words.push(word);
        }
        if !words.is_empty() {
            out.extend_from_slice(b" RETURN (");
            out.extend_from_slice(&words.join(&b' '));
            out.push(b')');
        }
    }
}

/// Whether a folder is opened for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SelectMode {
    /// SELECT.
    ReadWrite,
    /// EXAMINE: nothing changes, `\Recent` neither.
    ReadOnly,
}

/// What SELECT asks for besides (RFC 7162).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sync<'a> {
    /// Nothing.
    #[default]
    None,
    /// `(CONDSTORE)`: mod-sequences are kept and told.
    CondStore,
    /// `(QRESYNC …)`, after ENABLE QRESYNC: what changed and vanished since.
    QResync {
        /// The UIDVALIDITY last seen, not 0.
        uid_validity: u32,
        /// The HIGHESTMODSEQ last seen, not 0.
        mod_seq: u64,
        /// Uids known, which limits what is told as vanished; not empty. Mind the command's length.
        known: Option<&'a UidSet>,
    },
}

/// Octets that FETCH asks for, always by `.PEEK`, so that `\Seen` stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BodyRequest {
    /// `BODY.PEEK[]`: all of the message.
    Whole,
    /// `BODY.PEEK[]<from.count>`: this stretch of it, shorter at its end.
    Stretch {
        /// First octet.
        from: u64,
        /// How many at most, not 0.
        count: u64,
    },
    /// `BODY.PEEK[HEADER]`.
    Header,
    /// `BODY.PEEK[HEADER.FIELDS (…)]`: these fields, at least one.
    HeaderFields(&'static [&'static str]),
}

/// What FETCH asks for; the uid always comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FetchItems {
    /// FLAGS.
    pub flags: bool,
    /// INTERNALDATE.
    pub internal_date: bool,
    /// RFC822.SIZE.
    pub size: bool,
    /// MODSEQ (CONDSTORE).
    pub mod_seq: bool,
    /// EMAILID (OBJECTID).
    pub email_id: bool,
    /// X-GUID (Dovecot).
    pub guid: bool,
    /// A body.
    pub body: Option<BodyRequest>,
}

impl FetchItems {
    /// Writes `(UID FLAGS …)`.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        let body = self.body.map(|body| match body {
            BodyRequest::Whole => "BODY.PEEK[]".to_owned(),
            BodyRequest::Stretch { from, count } => format!("BODY.PEEK[]<{from}.{}>", count.max(1)),
            BodyRequest::Header => "BODY.PEEK[HEADER]".to_owned(),
            BodyRequest::HeaderFields(fields) => format!("BODY.PEEK[HEADER.FIELDS ({})]", fields.join(" ")),
        });
        let items = [
            (true, "UID"),
            (self.flags, "FLAGS"),
            (self.internal_date, "INTERNALDATE"),
            (self.size, "RFC822.SIZE"),
            (self.mod_seq, "MODSEQ"),
            (self.email_id, "EMAILID"),
            (self.guid, "X-GUID"),
            (body.is_some(), body.as_deref().unwrap_or_default()),
        ];
        write_names(&items, out);
    }
}

/// Which of the named messages FETCH answers (RFC 7162).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FetchChanges {
    /// All.
    #[default]
    All,
    /// Those changed since this mod-sequence (CONDSTORE).
    Since(u64),
    /// Those, and a VANISHED (EARLIER) for those gone since (QRESYNC, enabled).
    SinceWithVanished(u64),
}

/// One condition of SEARCH; several must all hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchKey<'a> {
    /// ALL.
    All,
    /// UID.
    Uids(Uids<'a>),
    /// DELETED: has `\Deleted`.
    Deleted,
    /// UNDELETED.
    Undeleted,
    /// MODSEQ: this one or a higher (CONDSTORE).
    ModSeq(u64),
    /// SMALLER: fewer octets than this.
    Smaller(u64),
    /// LARGER: more octets than this.
    Larger(u64),
}

impl SearchKey<'_> {
    pub(super) fn write(self, out: &mut Vec<u8>) {
        let (name, number) = match self {
            Self::All => ("ALL", None),
            Self::Deleted => ("DELETED", None),
            Self::Undeleted => ("UNDELETED", None),
            Self::ModSeq(mod_seq) => ("MODSEQ ", Some(mod_seq)),
            Self::Smaller(octets) => ("SMALLER ", Some(octets)),
            Self::Larger(octets) => ("LARGER ", Some(octets)),
            Self::Uids(uids) => {
                out.extend_from_slice(b"UID ");
                return uids.write(out);
            }
        };
        out.extend_from_slice(name.as_bytes());
        if let Some(number) = number {
            write_number(number, out);
        }
    }
}

/// What an extended SEARCH returns (ESEARCH); answered by [`Event::ESearch`](super::Event::ESearch).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SearchReturn {
    /// ALL: the uids as a set.
    pub all: bool,
    /// COUNT.
    pub count: bool,
    /// MIN.
    pub min: bool,
    /// MAX.
    pub max: bool,
}

/// What STORE does with the flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreMode {
    /// `+FLAGS.SILENT`: sets them.
    Add,
    /// `-FLAGS.SILENT`: clears them.
    Remove,
    /// `FLAGS.SILENT`: sets exactly these.
    Replace,
}

/// In which form APPEND sends a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AppendForm {
    /// `{n}`: may not hold NUL by the grammar, though some servers take it.
    #[default]
    Literal,
    /// `~{n}` (BINARY, RFC 3516): any octet.
    Literal8,
    /// `UTF8 (~{n}` … `)` (RFC 6855 §4): a message with UTF-8 in its header, after ENABLE UTF8=ACCEPT.
    Utf8,
}

/// One message of an APPEND.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendItem<'a> {
    /// Its flags and keywords.
    pub flags: &'a Flags,
    /// INTERNALDATE in seconds since 1970; none lets the server take now.
    pub internal_date: Option<i64>,
    /// The caller's name for its octets, given back in [`Output::Body`](super::Output::Body).
    pub body: u64,
    /// How many octets it has, not 0: an empty literal means "cancelled" (RFC 3502 §3).
    pub length: u64,
    /// How it is sent.
    pub form: AppendForm,
}

//! What can be asked of a server.

use secrecy::{ExposeSecret, SecretString};

use super::client::Tag;
use super::date::format_date_time;
use super::name::{MailboxName, NameEncoding};
use super::output::{Literals, OutputQueue, Piece};
use super::request::{
    AppendForm, AppendItem, FetchChanges, FetchItems, ListOptions, SearchKey, SearchReturn, SelectMode, StatusItems,
    StoreMode, SubscribedOnly, Sync, Uids, write_names,
};
use super::response::ListAttribute;
use super::sasl::Response;
use super::set::{write_number, write_set};
use crate::flags::Flags;
use crate::uid_set::UidSet;

/// Longest string that is sent between quotes; a longer one goes as a literal.
const MAX_QUOTED: usize = 1000;

/// A command, to be given to [`Client::send`](super::Client::send). It is written out only there, because names and
/// literals depend on what was enabled. Which capability it needs is the caller's care.
pub struct Command {
    name: &'static str,
    kind: Kind,
    parts: Vec<Part>,
}

/// What a command does to the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing; others may follow at once.
    Plain,
    /// Others wait until it is answered.
    Alone,
    /// A dialogue follows; others wait.
    Authenticate,
    /// TLS begins behind the agreement; others wait.
    StartTls,
    /// Compression begins behind the agreement; others wait.
    Compress,
}

enum Part {
    /// Written as it is.
    Text(Vec<u8>),
    Name(MailboxName),
    String(Vec<u8>),
    /// A string that is secret.
    Secret(SecretString),
    /// Written as it is, and secret.
    Bare(SecretString),
    Body {
        id: u64,
        length: u64,
        form: AppendForm,
    },
}

impl std::fmt::Debug for Command {
    /// The name only: the rest may hold secrets.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Command({})", self.name)
    }
}

impl Command {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            kind: Kind::Plain,
            parts: vec![Part::Text(name.as_bytes().to_vec())],
        }
    }

    fn of_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// The command's name as it is sent, such as `UID FETCH`; for logs.
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    fn text(mut self, text: &str) -> Self {
        self.buffer().extend_from_slice(text.as_bytes());
        self
    }

    fn written(mut self, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        write(self.buffer());
        self
    }

    /// The text at the end, for more to be written to it.
    fn buffer(&mut self) -> &mut Vec<u8> {
        if !matches!(self.parts.last(), Some(Part::Text(_))) {
            self.parts.push(Part::Text(Vec::new()));
        }
        match self.parts.last_mut() {
            Some(Part::Text(text)) => text,
            Some(_) | None => unreachable!("a text was pushed just now"),
        }
    }

    /// A blank and a folder's name.
    fn mailbox(self, name: &MailboxName) -> Self {
        let mut command = self.text(" ");
        command.parts.push(Part::Name(name.clone()));
        command
    }

    /// A blank and a string.
    fn string(self, octets: &[u8]) -> Self {
        let mut command = self.text(" ");
        command.parts.push(Part::String(octets.to_vec()));
        command
    }

    /// CAPABILITY; answered by `Capability`.
    pub fn capability() -> Self {
        Self::new("CAPABILITY")
    }

    /// NOOP.
    pub fn noop() -> Self {
        Self::new("NOOP")
    }

    /// LOGOUT; the server says BYE and closes.
    pub fn logout() -> Self {
        Self::new("LOGOUT").of_kind(Kind::Alone)
    }

    /// ID (RFC 2971) with fields such as `name` and `version`, at most 30; answered by `Id`.
    pub fn id(fields: &[(&str, &str)]) -> Self {
        if fields.is_empty() {
            return Self::new("ID").text(" NIL");
        }
        let mut command = Self::new("ID").text(" (");
        for (place, (name, value)) in fields.iter().take(30).enumerate() {
            if place > 0 {
                command = command.text(" ");
            }
            command.parts.push(Part::String(name.as_bytes().to_vec()));
            command = command.string(value.as_bytes());
        }
        command.text(")")
    }

    /// STARTTLS. After its OK the client stands still until [`Client::tls_started`](super::Client::tls_started).
    pub fn start_tls() -> Self {
        Self::new("STARTTLS").of_kind(Kind::StartTls)
    }

    /// LOGIN: the password travels as it is, so only under TLS.
    pub fn login(user: &str, password: &SecretString) -> Self {
        let mut command = Self::new("LOGIN")
            .of_kind(Kind::Alone)
            .string(user.as_bytes())
            .text(" ");
        command.parts.push(Part::Secret(password.clone()));
        command
    }

    /// AUTHENTICATE with a mechanism's name and, where the server has SASL-IR, its initial response. Without one the
    /// initial response is the answer to the first, empty challenge.
    pub fn authenticate(mechanism: &str, initial: Option<&Response>) -> Self {
        let mut command = Self::new("AUTHENTICATE")
            .of_kind(Kind::Authenticate)
            .text(" ")
            .text(mechanism);
        if let Some(initial) = initial {
            command = command.text(" ");
            command.parts.push(Part::Bare(match initial.is_empty() {
                true => SecretString::from("="),
                false => initial.to_base64(),
            }));
        }
        command
    }

    /// UNAUTHENTICATE (RFC 8437): the connection is as before signing in.
    pub fn unauthenticate() -> Self {
        Self::new("UNAUTHENTICATE").of_kind(Kind::Alone)
    }

    /// ENABLE (RFC 5161), answered by `Enabled`, from which on names travel as UTF-8 where it says IMAP4rev2 or
    /// UTF8=ACCEPT.
    pub fn enable(names: &[&str]) -> Self {
        let changes_names = names
            .iter()
            .any(|name| name.eq_ignore_ascii_case("IMAP4rev2") || name.eq_ignore_ascii_case("UTF8=ACCEPT"));
        let kind = if changes_names { Kind::Alone } else { Kind::Plain };
        Self::new("ENABLE").of_kind(kind).text(" ").text(&names.join(" "))
    }

    /// COMPRESS DEFLATE (RFC 4978). After its OK the client stands still until
    /// [`Client::compression_started`](super::Client::compression_started).
    pub fn compress() -> Self {
        Self::new("COMPRESS").of_kind(Kind::Compress).text(" DEFLATE")
    }

    /// NAMESPACE; answered by `Namespace`.
    pub fn namespace() -> Self {
        Self::new("NAMESPACE")
    }

    /// LIST; answered by `List` for each folder (and `Status`, where asked for). In patterns `*` stands for anything
    /// and `%` for anything within one level. With default options and one pattern it is what every server knows.
    pub fn list(reference: &MailboxName, patterns: &[&str], options: &ListOptions) -> Self {
        let mut command = Self::new("LIST");
        command = match options.only {
            SubscribedOnly::No => command,
            SubscribedOnly::Yes => command.text(" (SUBSCRIBED)"),
            SubscribedOnly::WithParents => command.text(" (SUBSCRIBED RECURSIVEMATCH)"),
        };
        command = command.mailbox(reference).text(" ");
        let several = patterns.len() > 1;
        command = command.text(if several { "(" } else { "" });
        for (place, pattern) in patterns.iter().enumerate() {
            command = command.text(if place > 0 { " " } else { "" });
            command.parts.push(Part::Name(MailboxName::new(*pattern)));
        }
        command
            .text(if several { ")" } else { "" })
            .written(|out| options.write_return(out))
    }

    /// LSUB (RFC 3501 §6.3.9): subscribed folders; answered by `Lsub` for each.
    pub fn lsub(reference: &MailboxName, pattern: &str) -> Self {
        Self::new("LSUB").mailbox(reference).mailbox(&MailboxName::new(pattern))
    }

    /// STATUS of a folder that is not selected; answered by `Status`.
    pub fn status(name: &MailboxName, items: StatusItems) -> Self {
        Self::new("STATUS")
            .mailbox(name)
            .text(" ")
            .written(|out| items.write(out))
    }

    /// SELECT or EXAMINE; answered by `Exists`, `Flags` and untagged codes.
    pub fn select(name: &MailboxName, mode: SelectMode, sync: Sync<'_>) -> Self {
        let command = Self::new(match mode {
            SelectMode::ReadWrite => "SELECT",
            SelectMode::ReadOnly => "EXAMINE",
        })
        .mailbox(name);
        match sync {
            Sync::None => command,
            Sync::CondStore => command.text(" (CONDSTORE)"),
            Sync::QResync {
                uid_validity,
                mod_seq,
                known,
            } => command
                .text(&format!(" (QRESYNC ({uid_validity} {mod_seq}"))
                .written(|out| {
                    if let Some(known) = known.filter(|known| !known.is_empty()) {
                        out.push(b' ');
                        write_set(known, out);
                    }
                    out.extend_from_slice(b"))");
                }),
        }
    }

    /// UNSELECT: no folder is selected any more and nothing is removed.
    pub fn unselect() -> Self {
        Self::new("UNSELECT")
    }

    /// CLOSE: as UNSELECT, but messages with `\Deleted` are removed where the folder was opened by SELECT.
    pub fn close() -> Self {
        Self::new("CLOSE")
    }

    /// CREATE, with special uses where the server has CREATE-SPECIAL-USE (RFC 6154 §3).
    pub fn create(name: &MailboxName, uses: &[ListAttribute]) -> Self {
        let command = Self::new("CREATE").mailbox(name);
        if uses.is_empty() {
            return command;
        }
        let uses: Vec<&str> = uses.iter().map(|attribute| attribute.name()).collect();
        command.text(&format!(" (USE ({}))", uses.join(" ")))
    }

    /// RENAME. Of INBOX it moves the messages and leaves the folder (RFC 9051 §6.3.6).
    pub fn rename(from: &MailboxName, to: &MailboxName) -> Self {
        Self::new("RENAME").mailbox(from).mailbox(to)
    }

    /// DELETE.
    pub fn delete(name: &MailboxName) -> Self {
        Self::new("DELETE").mailbox(name)
    }

    /// SUBSCRIBE.
    pub fn subscribe(name: &MailboxName) -> Self {
        Self::new("SUBSCRIBE").mailbox(name)
    }

    /// UNSUBSCRIBE.
    pub fn unsubscribe(name: &MailboxName) -> Self {
        Self::new("UNSUBSCRIBE").mailbox(name)
    }

    /// UID FETCH; answered by `Fetch` for each message that is there.
    pub fn uid_fetch<'a>(uids: impl Into<Uids<'a>>, items: &FetchItems, changes: FetchChanges) -> Self {
        let command = Self::new("UID FETCH").written(|out| {
            out.push(b' ');
            uids.into().write(out);
            out.push(b' ');
            items.write(out);
        });
        match changes {
            FetchChanges::All => command,
            FetchChanges::Since(mod_seq) => command.text(&format!(" (CHANGEDSINCE {mod_seq})")),
            FetchChanges::SinceWithVanished(mod_seq) => command.text(&format!(" (CHANGEDSINCE {mod_seq} VANISHED)")),
        }
    }

    /// UID SEARCH for what meets all of the keys (at least one). Without `returning` it is answered by `Search`; a
    /// server on which IMAP4rev2 was enabled answers by `ESearch` in any case.
    pub fn uid_search(keys: &[SearchKey<'_>], returning: Option<SearchReturn>) -> Self {
        Self::new("UID SEARCH").written(|out| {
            if let Some(returning) = returning {
                out.extend_from_slice(b" RETURN ");
                let names = [
                    (returning.all, "ALL"),
                    (returning.count, "COUNT"),
                    (returning.min, "MIN"),
                    (returning.max, "MAX"),
                ];
                write_names(&names, out);
            }
            for key in keys {
                out.push(b' ');
                key.write(out);
            }
        })
    }

    /// UID STORE, silent. With `unchanged_since` (CONDSTORE) messages that changed later are left alone and named by
    /// the code MODIFIED.
    pub fn uid_store<'a>(
        uids: impl Into<Uids<'a>>,
        mode: StoreMode,
        flags: &Flags,
        unchanged_since: Option<u64>,
    ) -> Self {
        Self::new("UID STORE").written(|out| {
            out.push(b' ');
            uids.into().write(out);
            if let Some(mod_seq) = unchanged_since {
                out.extend_from_slice(b" (UNCHANGEDSINCE ");
                write_number(mod_seq, out);
                out.push(b')');
            }
            out.extend_from_slice(match mode {
                StoreMode::Add => b" +FLAGS.SILENT ",
                StoreMode::Remove => b" -FLAGS.SILENT ",
                StoreMode::Replace => b" FLAGS.SILENT ",
            });
            write_flags(flags, out);
        })
    }

    /// UID COPY; the code COPYUID names the copies where the server has UIDPLUS.
    pub fn uid_copy<'a>(uids: impl Into<Uids<'a>>, to: &MailboxName) -> Self {
        Self::new("UID COPY")
            .text(" ")
            .written(|out| uids.into().write(out))
            .mailbox(to)
    }

    /// UID MOVE (RFC 6851); the code COPYUID comes untagged.
    pub fn uid_move<'a>(uids: impl Into<Uids<'a>>, to: &MailboxName) -> Self {
        Self::new("UID MOVE")
            .text(" ")
            .written(|out| uids.into().write(out))
            .mailbox(to)
    }

    /// UID EXPUNGE (UIDPLUS): removes those of the messages that have `\Deleted`.
    pub fn uid_expunge(uids: &UidSet) -> Self {
        Self::new("UID EXPUNGE").text(" ").written(|out| write_set(uids, out))
    }

    /// EXPUNGE: removes all messages that have `\Deleted`, whoever set it.
    pub fn expunge() -> Self {
        Self::new("EXPUNGE")
    }

    /// APPEND of one message, or of several where the server has MULTIAPPEND. The code APPENDUID names them where the
    /// server has UIDPLUS. The messages' octets are asked for by [`Output::Body`](super::Output::Body).
    pub fn append(to: &MailboxName, items: &[AppendItem<'_>]) -> Self {
        let mut command = Self::new("APPEND").mailbox(to);
        for item in items {
            command = command.written(|out| {
                out.push(b' ');
                if !item.flags.is_empty() {
                    write_flags(item.flags, out);
                    out.push(b' ');
                }
                if let Some(seconds) = item.internal_date {
                    out.push(b'"');
                    out.extend_from_slice(format_date_time(seconds).as_bytes());
                    out.extend_from_slice(b"\" ");
                }
                if item.form == AppendForm::Utf8 {
                    out.extend_from_slice(b"UTF8 (");
                }
            });
            command.parts.push(Part::Body {
                id: item.body,
                length: item.length,
                form: item.form,
            });
            if item.form == AppendForm::Utf8 {
                command = command.text(")");
            }
        }
        command
    }

    /// GETQUOTAROOT (RFC 9208); answered by `QuotaRoot` and `Quota`.
    pub fn get_quota_root(name: &MailboxName) -> Self {
        Self::new("GETQUOTAROOT").mailbox(name)
    }

    /// GETACL (RFC 4314); answered by `Acl`.
    pub fn get_acl(name: &MailboxName) -> Self {
        Self::new("GETACL").mailbox(name)
    }

    /// SETACL: gives the identifier exactly these rights, or more or fewer with `+` or `-` in front.
    pub fn set_acl(name: &MailboxName, identifier: &str, rights: &str) -> Self {
        Self::new("SETACL")
            .mailbox(name)
            .string(identifier.as_bytes())
            .string(rights.as_bytes())
    }

    /// DELETEACL: takes the identifier's entry away.
    pub fn delete_acl(name: &MailboxName, identifier: &str) -> Self {
        Self::new("DELETEACL").mailbox(name).string(identifier.as_bytes())
    }

    /// MYRIGHTS (RFC 4314); answered by `MyRights`.
    pub fn my_rights(name: &MailboxName) -> Self {
        Self::new("MYRIGHTS").mailbox(name)
    }

    /// GETMETADATA (RFC 5464) of entries (at least one) such as `/private/comment` and all below them, with values of
    /// at most `max_size` octets; an empty name is the server. Answered by `Metadata`.
    pub fn get_metadata(name: &MailboxName, entries: &[&str], max_size: u32) -> Self {
        let mut command = Self::new("GETMETADATA")
            .text(&format!(" (MAXSIZE {max_size} DEPTH infinity)"))
            .mailbox(name)
            .text(" (");
        for (place, entry) in entries.iter().enumerate() {
            command = command.text(if place > 0 { " " } else { "" });
            command.parts.push(Part::String(entry.as_bytes().to_vec()));
        }
        command.text(")")
    }

    /// SETMETADATA: none removes the entry. A value with NUL goes as literal8.
    pub fn set_metadata(name: &MailboxName, entries: &[(&str, Option<&[u8]>)]) -> Self {
        let mut command = Self::new("SETMETADATA").mailbox(name).text(" (");
        for (place, (entry, value)) in entries.iter().enumerate() {
            command = command.text(if place > 0 { " " } else { "" });
            command.parts.push(Part::String(entry.as_bytes().to_vec()));
            command = match value {
                Some(value) => command.string(value),
                None => command.text(" NIL"),
            };
        }
        command.text(")")
    }

    /// Writes the command with its tag to the queue.
    pub(super) fn encode(self, tag: Tag, literals: Literals, names: NameEncoding, queue: &mut OutputQueue) {
        let mut encoder = Encoder {
            tag,
            literals,
            names,
            queue,
            waits: false,
        };
        encoder.queue.write(format!("{tag} ").as_bytes());
        for part in &self.parts {
            encoder.part(part);
        }
        encoder.queue.write(b"\r\n");
        if encoder.waits {
            encoder.queue.push(Piece::End(tag));
        }
        if self.kind != Kind::Plain {
            queue.push(Piece::Hold(tag));
        }
    }
}

/// Writes `(\Seen work)`. A [`Flags`] holds nothing that could end the list.
fn write_flags(flags: &Flags, out: &mut Vec<u8>) {
    out.push(b'(');
    out.extend_from_slice(flags.names().join(" ").as_bytes());
    out.push(b')');
}

struct Encoder<'a> {
    tag: Tag,
    literals: Literals,
    names: NameEncoding,
    queue: &'a mut OutputQueue,
    /// Whether the command waits somewhere.
    waits: bool,
}

impl Encoder<'_> {
    fn part(&mut self, part: &Part) {
        match part {
            Part::Text(text) => self.queue.write(text),
            Part::Name(name) => {
                let octets = name.to_wire(self.names);
                self.string(&octets);
            }
            Part::String(octets) => self.string(octets),
            Part::Secret(secret) => self.string(secret.expose_secret().as_bytes()),
            Part::Bare(secret) => self.queue.write(secret.expose_secret().as_bytes()),
            Part::Body { id, length, form } => {
                self.literal_header(*length, *form != AppendForm::Literal);
                self.queue.push(Piece::Body {
                    id: *id,
                    length: *length,
                });
            }
        }
    }

    /// An atom where nobody could read it otherwise, else between quotes, else a literal.
    fn string(&mut self, octets: &[u8]) {
        if is_plain(octets) {
            return self.queue.write(octets);
        }
        let utf8 = self.names == NameEncoding::Utf8 && std::str::from_utf8(octets).is_ok();
        let quotable = |octet: &u8| matches!(octet, b' '..=b'~') || (utf8 && *octet >= 0x80);
        if octets.len() > MAX_QUOTED || !octets.iter().all(quotable) {
            self.literal_header(octets.len() as u64, octets.contains(&0));
            return self.queue.write(octets);
        }
        let mut quoted = Vec::with_capacity(octets.len() + 2);
        quoted.push(b'"');
        for octet in octets {
            if matches!(octet, b'"' | b'\\') {
                quoted.push(b'\\');
            }
            quoted.push(*octet);
        }
        quoted.push(b'"');
        self.queue.write(&quoted);
    }

    fn literal_header(&mut self, length: u64, literal8: bool) {
        let free = self.literals.is_free(length);
        let tilde = if literal8 { "~" } else { "" };
        let plus = if free { "+" } else { "" };
        self.queue.write(format!("{tilde}{{{length}{plus}}}\r\n").as_bytes());
        if !free {
            self.waits = true;
            self.queue.push(Piece::Wait(self.tag));
        }
    }
}

/// Whether it can stand without quotes on every server.
fn is_plain(octets: &[u8]) -> bool {
    let plain = |octet: &u8| octet.is_ascii_alphanumeric() || b"-_./:@$=+,".contains(octet);
    !octets.is_empty() && octets.len() <= MAX_QUOTED && !octets.eq_ignore_ascii_case(b"NIL") && octets.iter().all(plain)
}

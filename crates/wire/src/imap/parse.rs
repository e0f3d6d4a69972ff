//! Reads whole responses.

use std::borrow::Cow;
use std::collections::VecDeque;

use bytes::Bytes;

use super::client::Tag;
use super::cursor::{Cursor, Value, into_text};
use super::name::{MailboxName, NameEncoding};
use super::parse_code::{parse_answer, parse_capabilities};
use super::parse_fetch::{MAX_ID, parse_fetch, read_flags, read_object_id};
use super::response::{
    Acl, Answer, Condition, ESearch, Event, ListAttribute, ListAttributes, Listed, MailboxStatus, Metadata, Namespace,
    Namespaces, Quota, QuotaResource,
};
use super::set::parse_set;
use super::splitter::Line;
use super::{MAX_ENTRIES, MAX_SET_RANGES};
use crate::uid_set::UidSet;

/// Longest name of a response, in octets.
const MAX_NAME: usize = 16;

/// What a line is.
pub(super) enum Parsed<'a> {
    /// Nothing at all.
    Empty,
    Event(Event),
    /// `+` with its text.
    Continue(&'a [u8]),
    Tagged(Tag, Answer),
    /// A tag that no command of ours can have, or no status behind it.
    UnknownTag,
}

/// Reads one response. Bodies that came between quotes go to `bodies` and belong before the event.
pub(super) fn parse_line<'a>(line: &'a Line, names: NameEncoding, bodies: &mut VecDeque<Event>) -> Parsed<'a> {
    let mut cursor = Cursor::new(line);
    match cursor.peek() {
        None => Parsed::Empty,
        Some(b'*') => {
            cursor.take(b'*');
            Parsed::Event(untagged(line, cursor, names, bodies))
        }
        Some(b'+') => {
            cursor.take(b'+');
            Parsed::Continue(cursor.rest().trim_ascii())
        }
        Some(_) => tagged(cursor),
    }
}

fn tagged(mut cursor: Cursor<'_>) -> Parsed<'_> {
    let tag = parse_tag(cursor.word());
    let condition = condition(cursor.word())
        .filter(|condition| matches!(condition, Condition::Ok | Condition::No | Condition::Bad));
    match (tag, condition) {
        (Some(tag), Some(condition)) => Parsed::Tagged(tag, parse_answer(condition, &mut cursor)),
        _ => Parsed::UnknownTag,
    }
}

fn parse_tag(word: &[u8]) -> Option<Tag> {
    let digits = word.strip_prefix(b"A").or_else(|| word.strip_prefix(b"a"))?;
    let plain = digits.len() <= 10 && digits.iter().all(u8::is_ascii_digit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| plain)?;
    digits.parse().ok().map(Tag)
}

fn condition(word: &[u8]) -> Option<Condition> {
    let all = [
        ("OK", Condition::Ok),
        ("NO", Condition::No),
        ("BAD", Condition::Bad),
        ("BYE", Condition::Bye),
        ("PREAUTH", Condition::PreAuth),
    ];
    all.into_iter()
        .find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes()))
        .map(|(_, condition)| condition)
}

fn untagged(line: &Line, mut cursor: Cursor<'_>, names: NameEncoding, bodies: &mut VecDeque<Event>) -> Event {
    if cursor.peek().is_some_and(|octet| octet.is_ascii_digit()) {
        return numbered(line, cursor, bodies);
    }
    let word = cursor.word();
    let mut upper = [0; MAX_NAME];
    let Some(upper) = upper.get_mut(..word.len()) else {
        return unknown(line);
    };
    upper.copy_from_slice(word);
    upper.make_ascii_uppercase();
    if let Some(condition) = condition(upper) {
        return Event::Untagged(parse_answer(condition, &mut cursor));
    }
    let (name, event) = match &*upper {
        b"CAPABILITY" => (
            "CAPABILITY",
            Some(Event::Capability(Box::new(parse_capabilities(&mut cursor)))),
        ),
        b"ENABLED" => ("ENABLED", Some(Event::Enabled(enabled(&mut cursor)))),
        b"LIST" => ("LIST", listed(&mut cursor, names).map(Box::new).map(Event::List)),
        b"LSUB" => ("LSUB", listed(&mut cursor, names).map(Box::new).map(Event::Lsub)),
        b"STATUS" => ("STATUS", status(&mut cursor, names).map(Box::new).map(Event::Status)),
        b"FLAGS" => (
            "FLAGS",
            read_flags(&mut cursor, |_| {}).map(|(flags, _)| Event::Flags(flags)),
        ),
        b"VANISHED" => ("VANISHED", vanished(&mut cursor)),
        b"SEARCH" => ("SEARCH", search(&mut cursor)),
        b"ESEARCH" => ("ESEARCH", esearch(&mut cursor).map(Event::ESearch)),
        b"NAMESPACE" => ("NAMESPACE", namespaces(&mut cursor, names).map(Event::Namespace)),
        b"ID" => ("ID", identification(&mut cursor).map(Event::Id)),
        b"QUOTA" => ("QUOTA", quota(&mut cursor).map(Event::Quota)),
        b"QUOTAROOT" => ("QUOTAROOT", quota_root(&mut cursor, names)),
        b"ACL" => ("ACL", acl(&mut cursor, names).map(Event::Acl)),
        b"MYRIGHTS" => ("MYRIGHTS", my_rights(&mut cursor, names)),
        b"METADATA" => ("METADATA", metadata(line, &mut cursor, names).map(Event::Metadata)),
        _ => return unknown(line),
    };
    event.unwrap_or_else(|| malformed(line, name))
}

fn unknown(line: &Line) -> Event {
    Event::Unknown { line: line.beginning() }
}

fn malformed(line: &Line, name: &'static str) -> Event {
    Event::Malformed {
        name,
        line: line.beginning(),
    }
}

/// `* 12 EXISTS` and the like.
fn numbered(line: &Line, mut cursor: Cursor<'_>, bodies: &mut VecDeque<Event>) -> Event {
    let number = Cursor::over(cursor.word(), &[]).number32();
    let word = cursor.until(|octet| matches!(octet, b' ' | b'\t' | b'('));
    let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    let (name, event) = if is("FETCH") {
        let fetch = number.and_then(|number| parse_fetch(number, cursor, line, bodies));
        ("FETCH", fetch.map(Event::Fetch))
    } else if is("EXISTS") {
        ("EXISTS", number.map(Event::Exists))
    } else if is("EXPUNGE") {
        ("EXPUNGE", number.map(Event::Expunge))
    } else if is("RECENT") {
        ("RECENT", number.map(Event::Recent))
    } else {
        return unknown(line);
    };
    event.unwrap_or_else(|| malformed(line, name))
}

fn enabled(cursor: &mut Cursor<'_>) -> Vec<String> {
    std::iter::from_fn(|| Some(cursor.word()).filter(|word| !word.is_empty()))
        .take(MAX_ENTRIES)
        .map(|word| String::from_utf8_lossy(word).to_ascii_uppercase())
        .collect()
}

/// Reads `( item … )` by `item`, at most [`MAX_ENTRIES`] of them.
fn list<'a, T>(cursor: &mut Cursor<'a>, mut item: impl FnMut(&mut Cursor<'a>) -> Option<T>) -> Option<Vec<T>> {
    if !cursor.take(b'(') {
        return None;
    }
    let mut items = Vec::new();
    while !cursor.take(b')') {
        if items.len() == MAX_ENTRIES {
            return None;
        }
        items.push(item(cursor)?);
    }
    Some(items)
}

fn mailbox(cursor: &mut Cursor<'_>, names: NameEncoding) -> Option<MailboxName> {
    Some(MailboxName::from_wire(&cursor.astring()?, names))
}

/// A separator: one character between quotes, or NIL.
fn delimiter(cursor: &mut Cursor<'_>) -> Option<Option<char>> {
    match cursor.value()? {
        Value::Nil => Some(None),
        value => {
            let text = into_text(value.octets()?);
            let mut characters = text.chars();
            match (characters.next(), characters.next()) {
                (delimiter, None) => Some(delimiter),
                (_, Some(_)) => None,
            }
        }
    }
}

fn listed(cursor: &mut Cursor<'_>, names: NameEncoding) -> Option<Listed> {
    let attributes = list(cursor, |cursor| Some(cursor.word()).filter(|word| !word.is_empty()))?;
    let attributes: ListAttributes = attributes
        .into_iter()
        .filter_map(|word| {
            ListAttribute::ALL
                .into_iter()
                .find(|known| known.name().as_bytes().eq_ignore_ascii_case(word))
        })
        .collect();
    let delimiter = delimiter(cursor)?;
    let name = mailbox(cursor, names)?;
    let mut listed = Listed {
        attributes,
        delimiter,
        name,
        child_info: false,
        old_name: None,
    };
    match cursor.peek() {
        None => return Some(listed),
        Some(b'(') => cursor.take(b'('),
        // A name with blanks that is not quoted would be cut here.
        Some(_) => return None,
    };
    while !cursor.take(b')') {
        let tag = cursor.astring()?;
        if tag.eq_ignore_ascii_case(b"OLDNAME") {
            listed.old_name = list(cursor, |cursor| mailbox(cursor, names))?.into_iter().next();
        } else {
            listed.child_info |= tag.eq_ignore_ascii_case(b"CHILDINFO");
            cursor.skip_value().then_some(())?;
        }
    }
    Some(listed)
}

fn status(cursor: &mut Cursor<'_>, names: NameEncoding) -> Option<MailboxStatus> {
    let mut status = MailboxStatus {
        name: mailbox(cursor, names)?,
        ..MailboxStatus::default()
    };
    if !cursor.take(b'(') {
        return None;
    }
    while !cursor.take(b')') {
        let word = cursor.word();
        if word.is_empty() {
            return None;
        }
        if word.eq_ignore_ascii_case(b"MAILBOXID") {
            status.mailbox_id = read_object_id(cursor)?;
            continue;
        }
        let value = cursor.place();
        status_item(word, cursor, &mut status);
        cursor.go_to(value);
        cursor.skip_value().then_some(())?;
    }
    Some(status)
}

fn status_item(word: &[u8], cursor: &mut Cursor<'_>, status: &mut MailboxStatus) {
    let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    if is("MESSAGES") {
        status.messages = cursor.number32();
    } else if is("UIDNEXT") {
        status.uid_next = cursor.number32();
    } else if is("UIDVALIDITY") {
        status.uid_validity = cursor.number32();
    } else if is("UNSEEN") {
        status.unseen = cursor.number32();
    } else if is("HIGHESTMODSEQ") {
        status.highest_mod_seq = cursor.number();
    } else if is("SIZE") {
        status.size = cursor.number();
    } else if is("DELETED") {
        status.deleted = cursor.number32();
    } else if is("APPENDLIMIT") {
        status.append_limit = cursor.number();
    } else if is("X-GUID") {
        status.guid = cursor.text().filter(|id| id.len() <= MAX_ID);
    }
}

fn vanished(cursor: &mut Cursor<'_>) -> Option<Event> {
    let mut earlier = false;
    if cursor.peek() == Some(b'(') {
        for word in list(cursor, |cursor| Some(cursor.word()).filter(|word| !word.is_empty()))? {
            earlier |= word.eq_ignore_ascii_case(b"EARLIER");
        }
    }
    let uids = parse_set(cursor.word())?;
    Some(Event::Vanished { earlier, uids })
}

fn search(cursor: &mut Cursor<'_>) -> Option<Event> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    let mut mod_seq = None;
    loop {
        match cursor.peek() {
            None => break,
            Some(b'(') => {
                cursor.take(b'(');
                let is_mod_seq = cursor.word().eq_ignore_ascii_case(b"MODSEQ");
                mod_seq = Some(cursor.number().filter(|_| is_mod_seq && cursor.take(b')'))?);
            }
            Some(_) => {
                let uid = cursor.number32().filter(|uid| *uid > 0)?;
                let full = ranges.len() == MAX_SET_RANGES;
                match ranges.last_mut() {
                    Some((_, end)) if end.checked_add(1) == Some(uid) => *end = uid,
                    Some(_) | None if full => return None,
                    Some(_) | None => ranges.push((uid, uid)),
                }
            }
        }
    }
    let uids = UidSet::from_ranges(ranges);
    Some(Event::Search { uids, mod_seq })
}

fn esearch(cursor: &mut Cursor<'_>) -> Option<ESearch> {
    let mut found = ESearch::default();
    if cursor.peek() == Some(b'(') {
        let words = list(cursor, Cursor::astring)?;
        if let [name, tag] = words.as_slice()
            && name.eq_ignore_ascii_case(b"TAG")
        {
            found.tag = parse_tag(tag);
        }
    }
    while cursor.peek().is_some() {
        let word = cursor.word();
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        if is("UID") {
            continue;
        } else if is("ALL") {
            found.all = Some(parse_set(cursor.word())?);
        } else if is("COUNT") {
            found.count = Some(cursor.number32()?);
        } else if is("MIN") {
            found.min = Some(cursor.number32()?);
        } else if is("MAX") {
            found.max = Some(cursor.number32()?);
        } else if is("MODSEQ") {
            found.mod_seq = Some(cursor.number()?);
        } else if word.is_empty() || !cursor.skip_value() {
            return None;
        }
    }
    Some(found)
}

fn namespaces(cursor: &mut Cursor<'_>, names: NameEncoding) -> Option<Namespaces> {
    let mut class = || {
        if cursor.peek()? != b'(' {
            return (cursor.value()? == Value::Nil).then(Vec::new);
        }
        list(cursor, |cursor| {
            if !cursor.take(b'(') {
                return None;
            }
            let prefix = mailbox(cursor, names)?;
            let delimiter = delimiter(cursor)?;
            while !cursor.take(b')') {
                cursor.skip_value().then_some(())?;
            }
            Some(Namespace { prefix, delimiter })
        })
    };
    Some(Namespaces {
        personal: class()?,
        other_users: class()?,
        shared: class()?,
    })
}

fn identification(cursor: &mut Cursor<'_>) -> Option<Vec<(String, String)>> {
    if cursor.peek() != Some(b'(') {
        return (cursor.value()? == Value::Nil).then(Vec::new);
    }
    let fields = list(cursor, |cursor| {
        let name = cursor.text()?.to_ascii_lowercase();
        let value = match cursor.value()? {
            Value::Nil | Value::Body | Value::Dropped => None,
            value => value.octets().map(into_text),
        };
        Some((name, value))
    })?;
    Some(
        fields
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect(),
    )
}

fn quota(cursor: &mut Cursor<'_>) -> Option<Quota> {
    let root = cursor.text()?;
    let resources = list(cursor, |cursor| {
        Some(QuotaResource {
            name: cursor.text()?,
            used: cursor.number()?,
            limit: cursor.number()?,
        })
    })?;
    Some(Quota { root, resources })
}

/// Reads strings up to the end, at most [`MAX_ENTRIES`].
fn texts(cursor: &mut Cursor<'_>) -> Option<Vec<String>> {
    let mut texts = Vec::new();
    while cursor.peek().is_some() {
        if texts.len() == MAX_ENTRIES {
            return None;
        }
        texts.push(cursor.text()?);
    }
    Some(texts)
}

fn quota_root(cursor: &mut Cursor<'_>, names: NameEncoding) -> Option<Event> {
    let mailbox = mailbox(cursor, names)?;
    let roots = texts(cursor)?;
    Some(Event::QuotaRoot { mailbox, roots })
}

fn acl(cursor: &mut Cursor<'_>, names: NameEncoding) -> Option<Acl> {
    let mailbox = mailbox(cursor, names)?;
    let mut entries = Vec::new();
    while cursor.peek().is_some() {
        if entries.len() == MAX_ENTRIES {
            return None;
        }
        entries.push((cursor.text()?, cursor.text()?));
    }
    Some(Acl { mailbox, entries })
}

fn my_rights(cursor: &mut Cursor<'_>, names: NameEncoding) -> Option<Event> {
    let mailbox = mailbox(cursor, names)?;
    let rights = cursor.text()?;
    Some(Event::MyRights { mailbox, rights })
}

fn metadata(line: &Line, cursor: &mut Cursor<'_>, names: NameEncoding) -> Option<Metadata> {
    let mailbox = mailbox(cursor, names)?;
    if cursor.peek() != Some(b'(') {
        let entries = texts(cursor)?.into_iter().map(|name| (name, None)).collect();
        return Some(Metadata {
            mailbox,
            entries,
            named_only: true,
        });
    }
    let entries = list(cursor, |cursor| {
        let name = cursor.text()?;
        let value = match cursor.value()? {
            Value::String(Cow::Borrowed(octets)) | Value::Atom(octets) => Some(line.octets.slice_ref(octets)),
            Value::String(Cow::Owned(octets)) => Some(Bytes::from(octets)),
            Value::Nil | Value::Body | Value::Dropped => None,
        };
        Some((name, value))
    })?;
    Some(Metadata {
        mailbox,
        entries,
        named_only: false,
    })
}

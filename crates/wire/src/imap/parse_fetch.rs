//! Reads FETCH, the response of which there are millions.

use std::borrow::Cow;
use std::collections::VecDeque;

use bytes::Bytes;

use super::BODY_STEP;
use super::cursor::{Cursor, Value, into_text};
use super::date::parse_date_time;
use super::response::{BodyStart, Event, Fetch, FetchedBody, Section};
use super::splitter::{Line, LiteralAt};
use crate::flags::Flags;

/// Longest identifier that is kept, in octets (RFC 8474 §7: 255).
pub(super) const MAX_ID: usize = 255;

/// Reads what stands behind `FETCH`. None where it is no list at all. Bodies that came as strings go to `bodies`, in
/// the form of those that came as literals.
pub(super) fn parse_fetch(
    number: u32,
    mut cursor: Cursor<'_>,
    line: &Line,
    bodies: &mut VecDeque<Event>,
) -> Option<Fetch> {
    let mut fetch = Fetch {
        number,
        ..Fetch::default()
    };
    if !cursor.take(b'(') {
        return None;
    }
    fetch.complete = read_items(&mut cursor, &mut fetch, Some((line, bodies)));
    Some(fetch)
}

/// The uid, if it stands in the response before the body that begins at its end.
pub(super) fn uid_before_body(line: &[u8], literals: &[LiteralAt]) -> Option<u32> {
    let mut cursor = Cursor::over(line, literals);
    cursor.until(|octet| octet == b'(');
    cursor.take(b'(');
    let mut fetch = Fetch::default();
    read_items(&mut cursor, &mut fetch, None);
    fetch.uid
}

type Bodies<'a> = Option<(&'a Line, &'a mut VecDeque<Event>)>;

/// Reads items up to the parenthesis; false where something could not be read.
fn read_items(cursor: &mut Cursor<'_>, fetch: &mut Fetch, mut bodies: Bodies<'_>) -> bool {
    let mut whole = true;
    loop {
        match cursor.peek() {
            None => return false,
            Some(b')') => return whole,
            Some(_) => {}
        }
        let name = cursor.until(|octet| matches!(octet, b' ' | b'\t' | b'(' | b')' | b'['));
        let value = cursor.place();
        if read_item(name, cursor, fetch, &mut bodies).is_none() {
            whole = false;
            cursor.go_to(value);
            // Where a section has no end, nothing behind it can be told apart.
            if name.is_empty() || cursor.rest().first() == Some(&b'[') || !cursor.skip_value() {
                return false;
            }
        }
    }
}

/// Reads one item's value; none where it cannot be. NIL leaves the item absent.
fn read_item(name: &[u8], cursor: &mut Cursor<'_>, fetch: &mut Fetch, bodies: &mut Bodies<'_>) -> Option<()> {
    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    if is("UID") {
        fetch.uid = Some(cursor.number32().filter(|uid| *uid > 0)?);
    } else if is("FLAGS") {
        let (flags, dropped) = read_flags(cursor, |_| {})?;
        fetch.flags = Some(flags);
        fetch.flags_dropped = dropped;
    } else if is("RFC822.SIZE") {
        fetch.size = Some(cursor.number()?);
    } else if is("INTERNALDATE") {
        if let Some(date) = read_nillable(cursor)? {
            fetch.internal_date = Some(parse_date_time(&date)?);
        }
    } else if is("MODSEQ") {
        fetch.mod_seq = read_number_in_parentheses(cursor)?;
    } else if is("EMAILID") {
        fetch.email_id = read_object_id(cursor)?;
    } else if is("X-GUID") {
        fetch.guid = read_nillable(cursor)?.filter(|id| id.len() <= MAX_ID).map(into_text);
    } else if cursor.rest().first() == Some(&b'[') {
        let section = read_section(is("BINARY"), cursor)?;
        match is("BODY") || is("BINARY") {
            true => read_body(section, cursor, fetch, bodies)?,
            false => return cursor.skip_value().then_some(()),
        }
    } else {
        return cursor.skip_value().then_some(());
    }
    Some(())
}

/// A string, or none within for NIL.
fn read_nillable<'a>(cursor: &mut Cursor<'a>) -> Option<Option<Cow<'a, [u8]>>> {
    match cursor.value()? {
        Value::Nil => Some(None),
        value => value.octets().map(Some),
    }
}

/// `(number)`, as MODSEQ has it, or without parentheses; none within for NIL.
fn read_number_in_parentheses(cursor: &mut Cursor<'_>) -> Option<Option<u64>> {
    if cursor.take(b'(') {
        let value = cursor.number()?;
        return cursor.take(b')').then_some(Some(value));
    }
    let place = cursor.place();
    if cursor.value()? == Value::Nil {
        return Some(None);
    }
    cursor.go_to(place);
    cursor.number().map(Some)
}

/// `(id)` (RFC 8474 §7 objectid) or NIL; none within where what stands there is no identifier. It is not read as a
/// value, because one server puts octets of its memory there (Cyrus 3.6), quotes among them.
pub(super) fn read_object_id(cursor: &mut Cursor<'_>) -> Option<Option<String>> {
    if !cursor.take(b'(') {
        let word = cursor.word();
        return (!word.is_empty()).then_some(None);
    }
    let id = cursor.until(|octet| octet == b')').trim_ascii();
    let valid = |octet: &u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
    let is_id = !id.is_empty() && id.len() <= MAX_ID && id.iter().all(valid);
    let id = is_id.then(|| String::from_utf8_lossy(id).into_owned());
    cursor.take(b')').then_some(id)
}

/// A list of flags, and those that cannot be kept. `seen` is shown every name.
pub(super) fn read_flags(cursor: &mut Cursor<'_>, mut seen: impl FnMut(&str)) -> Option<(Flags, Vec<String>)> {
    if !cursor.take(b'(') {
        return None;
    }
    let mut ended = false;
    let names = std::iter::from_fn(|| {
        let name = match cursor.peek()? {
            b')' => {
                ended = cursor.take(b')');
                return None;
            }
            b'"' | b'{' => cursor.value()?.octets()?,
            // Keywords of real servers hold what the grammar forbids, parentheses that open among them.
            _ => Cow::Borrowed(cursor.until(|octet| matches!(octet, b' ' | b'\t' | b')'))),
        };
        let name = match name {
            Cow::Borrowed(name) => String::from_utf8_lossy(name),
            Cow::Owned(name) => Cow::Owned(into_text(Cow::Owned(name))),
        };
        seen(&name);
        Some(name)
    });
    let flags = Flags::from_names_reporting(names);
    ended.then_some(flags)
}

/// `[HEADER.FIELDS (SUBJECT)]<0>`.
fn read_section(binary: bool, cursor: &mut Cursor<'_>) -> Option<Section> {
    cursor.take(b'[');
    let start = cursor.place();
    let rest = cursor.rest();
    let mut quoted = false;
    let length = rest.iter().position(|octet| {
        quoted ^= *octet == b'"';
        !quoted && *octet == b']'
    })?;
    cursor.go_to(start + length + 1);
    let mut origin = None;
    if cursor.rest().first() == Some(&b'<') {
        cursor.take(b'<');
        let digits = cursor.until(|octet| octet == b'>');
        origin = Some(std::str::from_utf8(digits).ok()?.parse().ok()?);
        cursor.take(b'>').then_some(())?;
    }
    Some(Section::new(&rest[..length], origin, binary))
}

fn read_body(section: Section, cursor: &mut Cursor<'_>, fetch: &mut Fetch, bodies: &mut Bodies<'_>) -> Option<()> {
    match cursor.value()? {
        Value::Nil if fetch.body == FetchedBody::Absent => fetch.body = FetchedBody::Nil,
        Value::Nil => {}
        Value::Body => fetch.body = FetchedBody::Octets,
        Value::String(octets) => {
            fetch.body = FetchedBody::Octets;
            if let Some((line, events)) = bodies {
                hand_over(octets, section, fetch.uid, line, events);
            }
        }
        Value::Dropped | Value::Atom(_) => return None,
    }
    Some(())
}

/// A body between quotes becomes the events of one that was streamed.
fn hand_over(octets: Cow<'_, [u8]>, section: Section, uid: Option<u32>, line: &Line, events: &mut VecDeque<Event>) {
    let mut left = match octets {
        Cow::Borrowed(octets) => line.octets.slice_ref(octets),
        Cow::Owned(octets) => Bytes::from(octets),
    };
    let length = left.len() as u64;
    events.push_back(Event::BodyStart(BodyStart { uid, section, length }));
    while !left.is_empty() {
        let step = left.len().min(BODY_STEP);
        events.push_back(Event::BodyOctets(left.split_to(step)));
    }
    events.push_back(Event::BodyEnd);
}

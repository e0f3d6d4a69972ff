//! Cuts the server's stream into responses, and their bodies into pieces.
//!
//! A response is a line that goes on behind each literal. Literals that are bodies of FETCH are handed on as they come
//! and leave only a mark in the line; the others are put into it, except that very long ones are dropped.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::client::ProtocolError;
use super::parse_fetch::uid_before_body;
use super::response::{BodyStart, Section};
use super::{BODY_STEP, MAX_LITERAL, MAX_LITERALS, MAX_RESPONSE, MAX_SET_RESPONSE, MAX_STRING};

/// How much of a line goes into errors and logs, in octets.
const BEGINNING: usize = 200;
/// Most digits of a literal's length; 64 bits need 20.
const MAX_DIGITS: usize = 40;
/// How far back the name of a body's section is looked for, in octets.
const MAX_SECTION: usize = 8192;
/// How long the part of a line before a body may be for the uid to be looked for in it, in octets.
const MAX_UID_SEARCH: usize = 4096;

/// What the stream is cut into.
#[derive(Debug)]
pub(super) enum Frame {
    Line(Line),
    BodyStart(BodyStart),
    BodyOctets(Bytes),
    BodyEnd,
}

/// One response without its line end and without its bodies.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) octets: Bytes,
    /// The literals in it, ascending. Behind the `}` of one that is inside its octets follow at once, without CR LF.
    pub(super) literals: Vec<LiteralAt>,
}

impl Line {
    /// The first octets, to be shown.
    pub(super) fn beginning(&self) -> String {
        let shown = &self.octets[..self.octets.len().min(BEGINNING)];
        String::from_utf8_lossy(shown).into_owned()
    }
}

/// A literal of a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct LiteralAt {
    /// The place in the line behind the `}`.
    pub(super) at: usize,
    pub(super) kind: LiteralKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LiteralKind {
    /// This many octets of it follow in the line.
    Inside(usize),
    /// It was handed on as a body.
    Body,
    /// It was too long for a string and dropped.
    Dropped,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Text,
    /// Octets that are still to go into the line.
    Inside(u64),
    /// Octets that are still to be handed on.
    Body(u64),
    /// Octets that are still to be dropped.
    Drop(u64),
}

#[derive(Default)]
pub(super) struct Splitter {
    input: VecDeque<Bytes>,
    /// Octets in `input`.
    waiting: usize,
    /// The beginning of a response that is not whole yet.
    line: BytesMut,
    literals: Vec<LiteralAt>,
    /// Where in `line` the text behind the last literal begins.
    text: usize,
    state: State,
}

impl Splitter {
    pub(super) fn feed(&mut self, octets: Bytes) {
        if !octets.is_empty() {
            self.waiting += octets.len();
            self.input.push_back(octets);
        }
    }

    /// Octets that belong to no response or piece of a body that was given out.
    pub(super) fn buffered(&self) -> usize {
        self.waiting + self.line.len()
    }

    /// Takes out what was fed and not looked at.
    pub(super) fn take_rest(&mut self) -> Bytes {
        self.waiting = 0;
        let mut input = std::mem::take(&mut self.input);
        if input.len() == 1 {
            return input.pop_front().unwrap_or_default();
        }
        let mut rest = BytesMut::with_capacity(input.iter().map(Bytes::len).sum());
        input.iter().for_each(|octets| rest.extend_from_slice(octets));
        rest.freeze()
    }

    pub(super) fn next(&mut self) -> Result<Option<Frame>, ProtocolError> {
        loop {
            match self.state {
                State::Text => {
                    let Some(segment) = self.take_segment()? else {
                        return Ok(None);
                    };
                    if let Some(frame) = self.end_of_segment(segment)? {
                        return Ok(Some(frame));
                    }
                }
                State::Inside(0) | State::Drop(0) => self.state = State::Text,
                State::Body(0) => {
                    self.state = State::Text;
                    return Ok(Some(Frame::BodyEnd));
                }
                State::Inside(left) => {
                    let Some(octets) = self.take_input(left) else {
                        return Ok(None);
                    };
                    self.line.extend_from_slice(&octets);
                    self.state = State::Inside(left - octets.len() as u64);
                }
                State::Body(left) => {
                    let Some(octets) = self.take_input(left.min(BODY_STEP as u64)) else {
                        return Ok(None);
                    };
                    self.state = State::Body(left - octets.len() as u64);
                    return Ok(Some(Frame::BodyOctets(octets)));
                }
                State::Drop(left) => {
                    let Some(octets) = self.take_input(left) else {
                        return Ok(None);
                    };
                    self.state = State::Drop(left - octets.len() as u64);
                }
            }
        }
    }

    /// At most `most` octets (not 0) of one piece of the input.
    fn take_input(&mut self, most: u64) -> Option<Bytes> {
        let front = self.input.front_mut()?;
        let length = usize::try_from(most).unwrap_or(usize::MAX).min(front.len());
        let octets = if length == front.len() {
            self.input.pop_front()?
        } else {
            front.split_to(length)
        };
        self.waiting -= octets.len();
        Some(octets)
    }

    /// The next stretch of text up to a line end, which is taken off; what has none yet goes into `line`.
    fn take_segment(&mut self) -> Result<Option<Bytes>, ProtocolError> {
        while let Some(front) = self.input.front() {
            let end = memchr::memchr(b'\n', front);
            let length = end.map_or(front.len(), |end| end + 1);
            let Some(mut octets) = self.take_input(length as u64) else {
                break;
            };
            self.check_length(&octets)?;
            if end.is_some() {
                octets.truncate(length - 1);
                return Ok(Some(octets));
            }
            self.line.extend_from_slice(&octets);
        }
        Ok(None)
    }

    fn check_length(&self, more: &[u8]) -> Result<(), ProtocolError> {
        let length = self.line.len() + more.len();
        if length <= MAX_RESPONSE {
            return Ok(());
        }
        let limit = limit_for(if self.line.is_empty() { more } else { &self.line });
        match length > limit {
            true => Err(ProtocolError::ResponseTooLong { limit }),
            false => Ok(()),
        }
    }

    /// A line end was met: the response is whole, or goes on with a literal.
    fn end_of_segment(&mut self, mut segment: Bytes) -> Result<Option<Frame>, ProtocolError> {
        if self.line.is_empty() {
            if segment.last() == Some(&b'\r') {
                segment.truncate(segment.len() - 1);
            }
            if segment.last() != Some(&b'}') || segment.first() != Some(&b'*') {
                return Ok(Some(Frame::Line(Line {
                    octets: segment,
                    literals: Vec::new(),
                })));
            }
        }
        self.line.extend_from_slice(&segment);
        let text = &self.line[self.text..];
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let header = match can_have_literals(&self.line) {
            true => literal_header(text)?,
            false => None,
        };
        let end = self.text + text.len();
        self.line.truncate(end);
        match header {
            Some((open, length)) => self.begin_literal(self.text + open, length),
            None => {
                self.text = 0;
                Ok(Some(Frame::Line(Line {
                    octets: self.line.split().freeze(),
                    literals: std::mem::take(&mut self.literals),
                })))
            }
        }
    }

    /// Decides what becomes of a literal whose header is at the end of the line.
    fn begin_literal(&mut self, open: usize, length: u64) -> Result<Option<Frame>, ProtocolError> {
        if self.literals.len() >= MAX_LITERALS {
            return Err(ProtocolError::TooManyLiterals { limit: MAX_LITERALS });
        }
        let at = self.line.len();
        let section = match is_fetch(&self.line) {
            true => section_before(&self.line[..open]),
            false => None,
        };
        if let Some(section) = section {
            let uid = match open <= MAX_UID_SEARCH {
                true => uid_before_body(&self.line[..open], &self.literals),
                false => None,
            };
            self.text = at;
            self.push_literal(at, LiteralKind::Body);
            self.state = State::Body(length);
            return Ok(Some(Frame::BodyStart(BodyStart { uid, section, length })));
        }
        let fits = length <= MAX_STRING && at as u64 + length <= limit_for(&self.line) as u64;
        match usize::try_from(length).ok().filter(|_| fits) {
            Some(inside) => {
                self.text = at + inside;
                self.push_literal(at, LiteralKind::Inside(inside));
                self.state = State::Inside(length);
            }
            None => {
                self.text = at;
                self.push_literal(at, LiteralKind::Dropped);
                self.state = State::Drop(length);
            }
        }
        Ok(None)
    }

    fn push_literal(&mut self, at: usize, kind: LiteralKind) {
        self.literals.push(LiteralAt { at, kind });
    }
}

/// Sets of uids may be long; everything else is not.
fn limit_for(line: &[u8]) -> usize {
    let is_set = ["* SEARCH ", "* ESEARCH ", "* VANISHED "]
        .iter()
        .any(|name| starts_with_ignore_case(line, name));
    if is_set { MAX_SET_RESPONSE } else { MAX_RESPONSE }
}

fn starts_with_ignore_case(line: &[u8], name: &str) -> bool {
    line.get(..name.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
}

/// Only untagged data has literals: the text of a status response may end like one and is none.
fn can_have_literals(line: &[u8]) -> bool {
    let Some(rest) = line.strip_prefix(b"*") else {
        return false;
    };
    let name = rest.trim_ascii_start();
    let name = &name[..name.iter().position(u8::is_ascii_whitespace).unwrap_or(name.len())];
    !["OK", "NO", "BAD", "BYE", "PREAUTH"]
        .iter()
        .any(|status| name.eq_ignore_ascii_case(status.as_bytes()))
}

/// `{n}` or `{n+}` at the end of the line: the place of the brace and n.
fn literal_header(line: &[u8]) -> Result<Option<(usize, u64)>, ProtocolError> {
    let Some(before) = line.strip_suffix(b"}") else {
        return Ok(None);
    };
    let inner = before
        .iter()
        .rev()
        .take_while(|octet| octet.is_ascii_digit() || matches!(octet, b'+' | b'-'))
        .count();
    let Some((open, inner)) = before
        .len()
        .checked_sub(inner + 1)
        .filter(|open| before[*open] == b'{')
        .map(|open| (open, &before[open + 1..]))
    else {
        return Ok(None);
    };
    let digits = inner.strip_suffix(b"+").unwrap_or(inner);
    let digits = if digits.len() <= MAX_DIGITS { digits } else { b"" };
    std::str::from_utf8(digits)
        .ok()
        .filter(|digits| digits.bytes().all(|octet| octet.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .filter(|length| *length <= MAX_LITERAL)
        .map(|length| Some((open, length)))
        .ok_or_else(|| {
            let shown = &inner[..inner.len().min(40)];
            ProtocolError::LiteralLength(String::from_utf8_lossy(shown).into_owned())
        })
}

/// `* 12 FETCH` at the beginning.
fn is_fetch(line: &[u8]) -> bool {
    let Some(rest) = line.strip_prefix(b"*") else {
        return false;
    };
    let rest = rest.trim_ascii_start();
    let digits = rest.iter().take_while(|octet| octet.is_ascii_digit()).count();
    digits > 0 && starts_with_ignore_case(rest[digits..].trim_ascii_start(), "FETCH")
}

/// The section whose value begins where the text ends: `BODY[]`, `BODY[1]<0>`, `BINARY[]`, then maybe `~`.
fn section_before(text: &[u8]) -> Option<Section> {
    let text = text.strip_suffix(b"~").unwrap_or(text).trim_ascii_end();
    let text = &text[text.len().saturating_sub(MAX_SECTION)..];
    let (text, origin) = match text.strip_suffix(b">") {
        Some(inner) => {
            let open = inner.iter().rposition(|octet| *octet == b'<')?;
            let origin = std::str::from_utf8(&inner[open + 1..]).ok()?.parse().ok()?;
            (&inner[..open], Some(origin))
        }
        None => (text, None),
    };
    let inner = text.strip_suffix(b"]")?;
    let open = inner.iter().rposition(|octet| *octet == b'[')?;
    let (name, part) = (&inner[..open], &inner[open + 1..]);
    let (binary, before) = match (
        strip_suffix_ignore_case(name, "BODY"),
        strip_suffix_ignore_case(name, "BINARY"),
    ) {
        (Some(before), _) => (false, before),
        (None, Some(before)) => (true, before),
        (None, None) => return None,
    };
    if !matches!(before.last(), Some(b' ' | b'(')) {
        return None;
    }
    Some(Section::new(part, origin, binary))
}

fn strip_suffix_ignore_case<'a>(text: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let at = text.len().checked_sub(name.len())?;
    text[at..].eq_ignore_ascii_case(name.as_bytes()).then(|| &text[..at])
}

impl Section {
    pub(super) fn new(part: &[u8], origin: Option<u64>, binary: bool) -> Self {
        let shown = &part[..part.len().min(BEGINNING)];
        Self {
            part: String::from_utf8_lossy(shown).into_owned(),
            origin,
            binary,
        }
    }
}

//! Reads tokens out of one response, generously.

use std::borrow::Cow;

use super::splitter::{Line, LiteralAt, LiteralKind};

/// Longest `{n+}`, in octets; leading zeros may make it longer than 64 bits need.
const MAX_HEADER: usize = 64;

/// A place in a response.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    octets: &'a [u8],
    at: usize,
    literals: &'a [LiteralAt],
}

/// A value of IMAP that is no list.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// NIL.
    Nil,
    /// A number or a word.
    Atom(&'a [u8]),
    /// A string, between quotes or a literal.
    String(Cow<'a, [u8]>),
    /// A literal that was handed on as a body.
    Body,
    /// A literal that was too long.
    Dropped,
}

impl<'a> Value<'a> {
    /// The octets of an atom or a string.
    pub(super) fn octets(self) -> Option<Cow<'a, [u8]>> {
        match self {
            Self::Atom(octets) => Some(Cow::Borrowed(octets)),
            Self::String(octets) => Some(octets),
            Self::Nil | Self::Body | Self::Dropped => None,
        }
    }
}

/// What ends a word.
fn ends_word(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t' | b'(' | b')')
}

impl<'a> Cursor<'a> {
    pub(super) fn new(line: &'a Line) -> Self {
        Self::over(&line.octets, &line.literals)
    }

    pub(super) fn over(octets: &'a [u8], literals: &'a [LiteralAt]) -> Self {
        Self {
            octets,
            at: 0,
            literals,
        }
    }

    pub(super) fn place(&self) -> usize {
        self.at
    }

    pub(super) fn go_to(&mut self, place: usize) {
        self.at = place.min(self.octets.len());
    }

    /// Everything from here on.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.octets[self.at..]
    }

    pub(super) fn skip_blanks(&mut self) {
        while matches!(self.octets.get(self.at), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    /// The next octet that is no blank, not taken.
    pub(super) fn peek(&mut self) -> Option<u8> {
        self.skip_blanks();
        self.octets.get(self.at).copied()
    }

    /// Takes this octet, after blanks, if it is next.
    pub(super) fn take(&mut self, octet: u8) -> bool {
        let found = self.peek() == Some(octet);
        self.at += usize::from(found);
        found
    }

    /// Octets, after blanks, up to one for which `ends` is true; maybe none.
    pub(super) fn until(&mut self, ends: impl Fn(u8) -> bool) -> &'a [u8] {
        self.skip_blanks();
        let rest = self.rest();
        let length = rest.iter().position(|octet| ends(*octet)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// A word: up to a blank or a parenthesis; maybe none.
    pub(super) fn word(&mut self) -> &'a [u8] {
        self.until(ends_word)
    }

    /// A number without sign.
    pub(super) fn number(&mut self) -> Option<u64> {
        self.skip_blanks();
        let start = self.at;
        let mut number: u64 = 0;
        while let Some(digit @ b'0'..=b'9') = self.octets.get(self.at) {
            number = number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
            self.at += 1;
        }
        let ended = self
            .octets
            .get(self.at)
            .is_none_or(|octet| ends_word(*octet) || *octet == b']');
        (self.at > start && ended).then_some(number)
    }

    /// A number that fits 32 bits.
    pub(super) fn number32(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    /// A value that is no list; none at the end, at a parenthesis and where a string has no end.
    pub(super) fn value(&mut self) -> Option<Value<'a>> {
        match self.peek()? {
            b'"' => self.quoted().map(Value::String),
            b'{' => self.literal(),
            b'~' if self.octets.get(self.at + 1) == Some(&b'{') => {
                self.at += 1;
                self.literal()
            }
            _ => {
                let word = self.word();
                match word {
                    b"" => None,
                    _ if word.eq_ignore_ascii_case(b"NIL") => Some(Value::Nil),
                    _ => Some(Value::Atom(word)),
                }
            }
        }
    }

    /// A string or an atom, as octets.
    pub(super) fn astring(&mut self) -> Option<Cow<'a, [u8]>> {
        // A folder or a user may be called NIL where none can be absent.
        let start = self.at;
        match self.value()? {
            Value::Nil => Some(Cow::Borrowed(self.octets[start..self.at].trim_ascii_start())),
            value => value.octets(),
        }
    }

    /// A string or an atom that is text; octets that are no UTF-8 are replaced.
    pub(super) fn text(&mut self) -> Option<String> {
        self.astring().map(into_text)
    }

    /// Passes over one value, lists with all inside them; false where there is none or it has no end.
    pub(super) fn skip_value(&mut self) -> bool {
        let mut depth = 0usize;
        loop {
            match self.peek() {
                None => return false,
                Some(b'(') => {
                    self.at += 1;
                    depth += 1;
                }
                Some(b')') if depth == 0 => return false,
                Some(b')') => {
                    self.at += 1;
                    depth -= 1;
                }
                Some(_) => {
                    if self.value().is_none() {
                        return false;
                    }
                }
            }
            if depth == 0 {
                return true;
            }
        }
    }

    fn quoted(&mut self) -> Option<Cow<'a, [u8]>> {
        let start = self.at + 1;
        let rest = self.octets.get(start..)?;
        let end = rest.iter().position(|octet| matches!(octet, b'"' | b'\\'))?;
        if rest[end] == b'"' {
            self.at = start + end + 1;
            return Some(Cow::Borrowed(&rest[..end]));
        }
        let mut unescaped = rest[..end].to_vec();
        let mut octets = rest[end..].iter().enumerate();
        while let Some((place, octet)) = octets.next() {
            match octet {
                b'"' => {
                    self.at = start + end + place + 1;
                    return Some(Cow::Owned(unescaped));
                }
                b'\\' => unescaped.push(*octets.next()?.1),
                other => unescaped.push(*other),
            }
        }
        None
    }

    /// `{n}` at this place, if the splitter saw a literal there; else the brace belongs to a word.
    fn literal(&mut self) -> Option<Value<'a>> {
        let header = self.rest().iter().take(MAX_HEADER);
        let close = header
            .enumerate()
            .find(|(_, octet)| **octet == b'}')
            .map(|(length, _)| self.at + length + 1);
        let found = close.and_then(|close| {
            let index = self.literals.binary_search_by_key(&close, |literal| literal.at).ok()?;
            Some(self.literals[index])
        });
        let Some(LiteralAt { at, kind }) = found else {
            let word = self.word();
            return (!word.is_empty()).then_some(Value::Atom(word));
        };
        self.at = at;
        match kind {
            LiteralKind::Body => Some(Value::Body),
            LiteralKind::Dropped => Some(Value::Dropped),
            LiteralKind::Inside(length) => {
                let octets = self.octets.get(at..at + length)?;
                self.at += length;
                Some(Value::String(Cow::Borrowed(octets)))
            }
        }
    }
}

/// Text of octets; what is no UTF-8 is replaced.
pub(super) fn into_text(octets: Cow<'_, [u8]>) -> String {
    match String::from_utf8(octets.into_owned()) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    }
}

//! Replies: their parts, how they are written and how they are read.

use bytes::BytesMut;

/// Longest line of a reply that is read, in octets; RFC 5321 §4.5.3.1.5 allows 512.
const MAX_LINE: usize = 2048;
/// Most lines of a reply.
const MAX_LINES: usize = 100;
/// Longest line of text that is written, in octets, so that the whole line stays below 512.
const MAX_WRITTEN: usize = 480;
/// Most lines that are written.
const MAX_WRITTEN_LINES: usize = 20;

/// A reply of an SMTP or LMTP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The code of three digits, 200 to 599.
    pub code: u16,
    /// The enhanced status code (RFC 3463), such as `4.5.3`, where there is one.
    pub enhanced: Option<String>,
    /// The text for people, without the enhanced code; the lines of a longer reply are separated by LF.
    pub text: String,
}

/// How octets fail to be a reply.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReplyError {
    /// A line has no code of three digits, or no blank or hyphen behind it.
    #[error("the server's reply is not one: {0:?}")]
    Malformed(String),
    /// The lines of one reply have different codes.
    #[error("the lines of the server's reply have the codes {first} and {other}")]
    Codes {
        /// Code of the first line.
        first: u16,
        /// The code that differs.
        other: u16,
    },
    /// A line or the whole reply is too long.
    #[error("the server's reply is longer than allowed")]
    TooLong,
}

impl Reply {
    /// A reply with an enhanced status code; an empty one means none.
    pub fn new(code: u16, enhanced: &str, text: impl Into<String>) -> Self {
        Self {
            code,
            enhanced: (!enhanced.is_empty()).then(|| enhanced.to_owned()),
            text: text.into(),
        }
    }

    /// Whether the server agrees, finally (2xx) or so far (3xx).
    pub fn is_positive(&self) -> bool {
        (200..400).contains(&self.code)
    }

    /// Whether the same may succeed later (4xx).
    pub fn is_transient(&self) -> bool {
        (400..500).contains(&self.code)
    }

    /// Whether the same will never succeed (5xx).
    pub fn is_permanent(&self) -> bool {
        (500..600).contains(&self.code)
    }

    /// Appends the reply's lines to `out`. What may not stand in a reply without SMTPUTF8 becomes `?`, longer lines are
    /// cut, and further ones left out.
    pub(super) fn write(&self, out: &mut BytesMut) {
        let mut lines: Vec<&str> = self.text.lines().take(MAX_WRITTEN_LINES).collect();
        if lines.is_empty() {
            lines.push("");
        }
        let last = lines.len() - 1;
        for (at, line) in lines.into_iter().enumerate() {
            let hyphen = if at == last { ' ' } else { '-' };
            let mut text = format!("{}{hyphen}", self.code);
            if let Some(enhanced) = &self.enhanced {
                text.push_str(enhanced);
                text.push(' ');
            }
            text.extend(line.chars().take(MAX_WRITTEN).map(|character| match character {
                ' '..='~' => character,
                '\t' => ' ',
                _ => '?',
            }));
            out.extend_from_slice(text.trim_end().as_bytes());
            if text.trim_end().len() == 3 {
                out.extend_from_slice(&text.as_bytes()[3..4]);
            }
            out.extend_from_slice(b"\r\n");
        }
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.code)?;
        if let Some(enhanced) = &self.enhanced {
            write!(formatter, " {enhanced}")?;
        }
        for line in self.text.lines() {
            write!(formatter, " {line}")?;
        }
        Ok(())
    }
}

/// Reads replies from octets that arrive in pieces.
#[derive(Debug, Default)]
pub(super) struct ReplyReader {
    buffer: BytesMut,
    code: Option<u16>,
    lines: Vec<String>,
}

impl ReplyReader {
    pub(super) fn push(&mut self, octets: &[u8]) {
        self.buffer.extend_from_slice(octets);
    }

    /// Octets or lines that belong to no complete reply yet.
    pub(super) fn is_idle(&self) -> bool {
        self.buffer.is_empty() && self.lines.is_empty()
    }

    /// Whether something waits that may be a reply with this first line's code.
    pub(super) fn begins_with(&self, code: &str) -> bool {
        self.lines.is_empty() && self.buffer.starts_with(code.as_bytes())
    }

    /// The next complete reply.
    pub(super) fn next(&mut self) -> Result<Option<Reply>, ReplyError> {
        loop {
            let end = match self.buffer.iter().position(|octet| *octet == b'\n') {
                Some(end) if end < MAX_LINE => end,
                None if self.buffer.len() < MAX_LINE => return Ok(None),
                Some(_) | None => return Err(ReplyError::TooLong),
            };
            let line = self.buffer.split_to(end + 1);
            let (code, last, text) = parse_line(&line)?;
            let first = *self.code.get_or_insert(code);
            if first != code {
                return Err(ReplyError::Codes { first, other: code });
            }
            if self.lines.len() == MAX_LINES {
                return Err(ReplyError::TooLong);
            }
            self.lines.push(text);
            if last {
                self.code = None;
                return Ok(Some(assemble(code, std::mem::take(&mut self.lines))));
            }
        }
    }
}

/// Code, whether it is the last line, and text of one line.
fn parse_line(line: &[u8]) -> Result<(u16, bool, String), ReplyError> {
    let line = line.trim_ascii_end();
    let malformed = || ReplyError::Malformed(printable(&line[..line.len().min(80)]));
    let digits = line.get(..3).ok_or_else(malformed)?;
    if !matches!(digits[0], b'2'..=b'5') || !digits.iter().all(u8::is_ascii_digit) {
        return Err(malformed());
    }
    let code = digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    match line.get(3) {
        None => Ok((code, true, String::new())),
        Some(b' ') => Ok((code, true, printable(&line[4..]))),
        Some(b'-') => Ok((code, false, printable(&line[4..]))),
        Some(_) => Err(malformed()),
    }
}

fn printable(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets)
        .chars()
        .map(|character| match character.is_control() {
            true => '?',
            false => character,
        })
        .collect()
}

/// Joins lines and takes the enhanced code off each, where its class is that of the reply (RFC 2034 §4).
fn assemble(code: u16, mut lines: Vec<String>) -> Reply {
    let enhanced = lines
        .first()
        .and_then(|line| line.split(' ').next())
        .filter(|word| is_enhanced(word, code))
        .map(str::to_owned);
    if let Some(enhanced) = &enhanced {
        for line in &mut lines {
            if let Some(rest) = line.strip_prefix(enhanced.as_str()) {
                *line = rest.trim_start().to_owned();
            }
        }
    }
    Reply {
        code,
        enhanced,
        text: lines.join("\n"),
    }
}

fn is_enhanced(word: &str, code: u16) -> bool {
    let mut parts = word.split('.');
    let class = parts.next() == Some((code / 100).to_string().as_str());
    let number = |part: Option<&str>| {
        part.is_some_and(|part| (1..=3).contains(&part.len()) && part.bytes().all(|octet| octet.is_ascii_digit()))
    };
    class && number(parts.next()) && number(parts.next()) && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(octets: &[u8]) -> Result<Option<Reply>, ReplyError> {
        let mut reader = ReplyReader::default();
        for octet in octets {
            reader.push(&[*octet]);
        }
        reader.next()
    }

    fn written(reply: &Reply) -> String {
        let mut out = BytesMut::new();
        reply.write(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn reading() {
        let good: &[(&str, Reply)] = &[
            ("250 OK\r\n", Reply::new(250, "", "OK")),
            ("250\r\n", Reply::new(250, "", "")),
            ("250 2.1.5 fine\n", Reply::new(250, "2.1.5", "fine")),
            ("550 2.1.5 odd\r\n", Reply::new(550, "", "2.1.5 odd")),
            ("451 4.3.0\r\n", Reply::new(451, "4.3.0", "")),
            (
                "550-5.1.1 no such\r\n550 5.1.1 user\r\n",
                Reply::new(550, "5.1.1", "no such\nuser"),
            ),
        ];
        for (octets, reply) in good {
            assert_eq!(read(octets.as_bytes()), Ok(Some(reply.clone())), "{octets}");
        }
        for octets in ["25\r\n", "650 a\r\n", "2x0 a\r\n", "250+a\r\n", "hello\r\n", "\r\n"] {
            assert!(
                matches!(read(octets.as_bytes()), Err(ReplyError::Malformed(_))),
                "{octets}"
            );
        }
        assert_eq!(
            read(b"250-a\r\n550 b\r\n"),
            Err(ReplyError::Codes { first: 250, other: 550 })
        );
        assert_eq!(read("250-a\r\n".repeat(101).as_bytes()), Err(ReplyError::TooLong));
        assert_eq!(read(&[b'2'; 3000]), Err(ReplyError::TooLong));
        assert_eq!(read(b"250-a\r\n250"), Ok(None));
    }

    #[test]
    fn writing() {
        assert_eq!(written(&Reply::new(354, "", "Go on")), "354 Go on\r\n");
        assert_eq!(written(&Reply::new(250, "", "")), "250 \r\n");
        assert_eq!(
            written(&Reply::new(550, "5.1.1", "Nö\r\n250 injected\0")),
            "550-5.1.1 N?\r\n550 5.1.1 250 injected?\r\n"
        );
        assert!(written(&Reply::new(550, "5.1.1", "x".repeat(2000))).len() < 512);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(code in 200u16..600, lines in prop::collection::vec("[!-~][ -~]{0,40}[!-~]", 1..5)) {
            let enhanced = format!("{}.1.7", code / 100);
            let reply = Reply::new(code, &enhanced, lines.join("\n"));
            prop_assert_eq!(read(written(&reply).as_bytes()), Ok(Some(reply)));
        }

        #[test]
        fn never_panics_on_foreign_octets(octets in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = read(&octets);
        }
    }
}

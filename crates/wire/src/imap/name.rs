//! Names of folders: Unicode here, modified UTF-7 or UTF-8 on the wire.

use std::borrow::Cow;

/// How names travel on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NameEncoding {
    /// Modified UTF-7 (RFC 3501 §5.1.3), where nothing else was enabled.
    #[default]
    ModifiedUtf7,
    /// UTF-8, after ENABLE of IMAP4rev2 (RFC 9051 §5.1) or UTF8=ACCEPT (RFC 6855 §3).
    Utf8,
}

/// A folder's full name, as Unicode.
///
/// A name that came from a server and does not decode keeps its octets as well and is sent back by them, so that the
/// folder can be worked on; [`text`](Self::text) is then only something to show.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MailboxName {
    text: String,
    raw: Option<Box<[u8]>>,
}

impl MailboxName {
    /// A name of our own choice.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            raw: None,
        }
    }

    /// A name as a server sent it. What does not decode, or would not be encoded to the same octets again, stays raw.
    pub fn from_wire(octets: &[u8], encoding: NameEncoding) -> Self {
        let decoded = match encoding {
            NameEncoding::ModifiedUtf7 => decode(octets),
            NameEncoding::Utf8 => String::from_utf8(octets.to_vec()).ok(),
        };
        match decoded {
            Some(text) => Self { text, raw: None },
            None => Self {
                text: String::from_utf8_lossy(octets).into_owned(),
                raw: Some(octets.into()),
            },
        }
    }

    /// The name in Unicode; for a raw name its octets as far as they are UTF-8.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// True where the octets did not decode, so that the text may not be the name.
    pub fn is_raw(&self) -> bool {
        self.raw.is_some()
    }

    /// Whether it is the inbox, which has this name in any case (RFC 9051 §5.1).
    pub fn is_inbox(&self) -> bool {
        self.text.eq_ignore_ascii_case("INBOX")
    }

    /// The octets that name the folder to the server.
    pub fn to_wire(&self, encoding: NameEncoding) -> Cow<'_, [u8]> {
        match (&self.raw, encoding) {
            (Some(raw), _) => Cow::Borrowed(raw),
            (None, NameEncoding::Utf8) => Cow::Borrowed(self.text.as_bytes()),
            (None, NameEncoding::ModifiedUtf7) => encode(&self.text),
        }
    }
}

impl From<&str> for MailboxName {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl std::fmt::Display for MailboxName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.text)
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,";

fn stands_for_itself(character: char) -> bool {
    matches!(character, ' '..='~') && character != '&'
}

fn encode(text: &str) -> Cow<'_, [u8]> {
    if text.chars().all(stands_for_itself) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut out = Vec::with_capacity(text.len() * 2);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if stands_for_itself(character) {
            out.push(character as u8);
        } else if character == '&' {
            out.extend_from_slice(b"&-");
        } else {
            let mut units = Vec::new();
            let mut next = Some(character);
            while let Some(shifted) = next {
                units.extend_from_slice(shifted.encode_utf16(&mut [0; 2]));
                next = characters.next_if(|&following| following != '&' && !stands_for_itself(following));
            }
            encode_run(&units, &mut out);
        }
    }
    Cow::Owned(out)
}

/// One shifted run: `&`, UTF-16 in base64 with `,` for `/` and without padding, `-`.
fn encode_run(units: &[u16], out: &mut Vec<u8>) {
    out.push(b'&');
    let (mut bits, mut held) = (0u32, 0u32);
    for unit in units {
        bits = bits << 16 | u32::from(*unit);
        held += 16;
        while held >= 6 {
            held -= 6;
            out.push(ALPHABET[(bits >> held & 63) as usize]);
        }
    }
    if held > 0 {
        out.push(ALPHABET[(bits << (6 - held) & 63) as usize]);
    }
    out.push(b'-');
}

/// None where the octets are not what [`encode`] writes.
fn decode(octets: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(octets.len());
    let mut rest = octets;
    while let Some((&octet, after)) = rest.split_first() {
        rest = after;
        match octet {
            b'&' => {
                let end = rest.iter().position(|octet| *octet == b'-')?;
                match end {
                    0 => text.push('&'),
                    _ => decode_run(&rest[..end], &mut text)?,
                }
                rest = &rest[end + 1..];
            }
            b' '..=b'~' => text.push(char::from(octet)),
            _ => return None,
        }
    }
    // Runs that could be shorter, or stand side by side, would come back as another name.
    (encode(&text) == octets).then_some(text)
}

fn decode_run(run: &[u8], text: &mut String) -> Option<()> {
    let (mut bits, mut held) = (0u32, 0u32);
    let mut units = Vec::with_capacity(run.len() * 6 / 16);
    for octet in run {
        let value = match octet {
            b'A'..=b'Z' => octet - b'A',
            b'a'..=b'z' => octet - b'a' + 26,
            b'0'..=b'9' => octet - b'0' + 52,
            b'+' => 62,
            b',' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 16 {
            held -= 16;
            units.push((bits >> held & 0xffff) as u16);
        }
    }
    for character in char::decode_utf16(units) {
        text.push(character.ok()?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_names() {
        let rows: &[(&str, &str)] = &[
            ("INBOX", "INBOX"),
            ("Entwürfe", "Entw&APw-rfe"),
            ("Q&A", "Q&-A"),
            ("A&B", "A&-B"),
            ("\u{1f4e7}", "&2D3c5w-"),
            ("&", "&-"),
            ("~peter/mail/台北/日本語", "~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
            ("📬", "&2D3c7A-"),
            ("a\tb", "a&AAk-b"),
            ("ü&ü", "&APw-&-&APw-"),
            ("", ""),
        ];
        for (text, wire) in rows {
            let name = MailboxName::new(*text);
            assert_eq!(name.to_wire(NameEncoding::ModifiedUtf7), wire.as_bytes(), "{text}");
            assert_eq!(
                MailboxName::from_wire(wire.as_bytes(), NameEncoding::ModifiedUtf7),
                name
            );
            assert_eq!(name.to_wire(NameEncoding::Utf8), text.as_bytes());
            assert_eq!(MailboxName::from_wire(text.as_bytes(), NameEncoding::Utf8), name);
        }
    }

    #[test]
    fn what_does_not_decode_stays_raw() {
        let rows: &[&[u8]] = &[
            b"R&D",
            b"&",
            b"a&b",
            b"&-&",
            b"&AB-",
            b"&AP/-",
            b"&APz-",
            b"\xc3\xa4",
            b"a&b-c&",
            b"&AGE-",
            b"&APw-&APw-",
            b"&APx-",
            b"&2D0-",
            b"&A!!-",
            b"&A-",
            b"Entw\xc3\xbcrfe",
            b"caf\xe9",
            b"a\x01b",
        ];
        for octets in rows {
            let name = MailboxName::from_wire(octets, NameEncoding::ModifiedUtf7);
            assert!(name.is_raw(), "{octets:?}");
            assert_eq!(name.to_wire(NameEncoding::ModifiedUtf7), *octets);
            assert_eq!(name.to_wire(NameEncoding::Utf8), *octets);
        }
        assert!(MailboxName::from_wire(b"\xff", NameEncoding::Utf8).is_raw());
        assert!(!MailboxName::from_wire(b"R&D", NameEncoding::Utf8).is_raw());
        let shown = MailboxName::from_wire("Entwürfe".as_bytes(), NameEncoding::ModifiedUtf7);
        assert_eq!(shown.text(), "Entwürfe");
        assert!(MailboxName::from_wire(b"iNbOx", NameEncoding::Utf8).is_inbox());
    }

    proptest! {
        #[test]
        fn every_name_comes_back(text in "\\PC{0,20}|[\\x00-\\x7f\u{fff}-\u{1ffff}&-]{0,20}") {
            let name = MailboxName::new(text);
            let wire = name.to_wire(NameEncoding::ModifiedUtf7).into_owned();
            prop_assert!(wire.iter().all(|octet| (b' '..=b'~').contains(octet)));
            prop_assert_eq!(MailboxName::from_wire(&wire, NameEncoding::ModifiedUtf7), name);
        }

        #[test]
        fn every_octets_come_back(octets in "[&A-Da-d,+\\-]{0,16}|[\\x00-\u{ff}]{0,12}") {
            let name = MailboxName::from_wire(octets.as_bytes(), NameEncoding::ModifiedUtf7);
            prop_assert_eq!(name.to_wire(NameEncoding::ModifiedUtf7), octets.as_bytes());
        }
    }
}

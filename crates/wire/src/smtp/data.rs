//! The transparent form of a message after DATA (RFC 5321 §4.5.2): dot-stuffing and its reversal.

use bytes::BytesMut;

/// Where the reader stands in the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// At the beginning of a line.
    Start,
    /// Behind a dot at the beginning of a line.
    Dot,
    /// Behind such a dot and a CR.
    DotCr,
    /// Inside a line.
    Inside,
    /// Inside a line, behind a CR.
    Cr,
}

/// Takes dots off and finds the end of the message.
#[derive(Debug)]
pub(super) struct DataReader {
    place: Place,
    bare_line_end: bool,
}

impl DataReader {
    pub(super) fn new() -> Self {
        Self {
            place: Place::Start,
            bare_line_end: false,
        }
    }

    /// True once a CR or an LF stood alone: from there on nothing is given out, and the message is to be refused.
    pub(super) fn has_bare_line_end(&self) -> bool {
        self.bare_line_end
    }

    /// Takes octets up to the end of the message, if that is among them; appends the message's octets to `out`. Returns
    /// how many octets were taken, and whether the message ended.
    pub(super) fn read(&mut self, octets: &[u8], out: &mut BytesMut) -> (usize, bool) {
        let mut at = 0;
        while let Some(&octet) = octets.get(at) {
            match (self.place, octet) {
                (Place::Start, b'.') => self.place = Place::Dot,
                (Place::Dot, b'\r') => self.place = Place::DotCr,
                (Place::DotCr, b'\n') => return (at + 1, true),
                (Place::DotCr, _) => {
                    // The dot was stuffing and the CR stands alone.
                    self.bare_line_end = true;
                    self.place = Place::Cr;
                    continue;
                }
                (Place::Start | Place::Inside, b'\r') => self.place = Place::Cr,
                (Place::Cr, b'\n') => {
                    self.give(b"\r\n", out);
                    self.place = Place::Start;
                }
                (Place::Cr, b'\r') => self.bare_line_end = true,
                (Place::Start | Place::Dot | Place::Inside, b'\n') => {
                    self.bare_line_end = true;
                    self.place = Place::Inside;
                }
                (Place::Cr, _) => {
                    self.bare_line_end = true;
                    self.place = Place::Inside;
                }
                (Place::Start | Place::Dot | Place::Inside, _) => {
                    let run = octets[at..]
                        .iter()
                        .position(|octet| matches!(octet, b'\r' | b'\n'))
                        .unwrap_or(octets.len() - at);
                    self.give(&octets[at..at + run], out);
                    self.place = Place::Inside;
                    at += run;
                    continue;
                }
            }
            at += 1;
        }
        (at, false)
    }

    fn give(&self, octets: &[u8], out: &mut BytesMut) {
        if !self.bare_line_end {
            out.extend_from_slice(octets);
        }
    }
}

/// A CR without an LF in a message that is to be sent.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("a message with a CR that no LF follows cannot be sent")]
pub(super) struct LoneCr;

/// Puts dots on and makes every line end CR LF.
#[derive(Debug)]
pub(super) struct DataWriter {
    place: Place,
}

impl DataWriter {
    pub(super) fn new() -> Self {
        Self { place: Place::Start }
    }

    pub(super) fn write(&mut self, octets: &[u8], out: &mut BytesMut) -> Result<(), LoneCr> {
        let mut rest = octets;
        while let Some(&octet) = rest.first() {
            let taken = match octet {
                b'\n' => {
                    out.extend_from_slice(b"\r\n");
                    self.place = Place::Start;
                    1
                }
                _ if self.place == Place::Cr => return Err(LoneCr),
                b'\r' => {
                    // Held back, so that an LF alone and a CR LF are written alike.
                    self.place = Place::Cr;
                    1
                }
                _ => {
                    if octet == b'.' && self.place == Place::Start {
                        out.extend_from_slice(b".");
                    }
                    let run = rest
                        .iter()
                        .position(|octet| matches!(octet, b'\r' | b'\n'))
                        .unwrap_or(rest.len());
                    out.extend_from_slice(&rest[..run]);
                    self.place = Place::Inside;
                    run
                }
            };
            rest = &rest[taken..];
        }
        Ok(())
    }

    /// Ends the message; a last line without an end gets one, since SMTP cannot carry it otherwise.
    pub(super) fn finish(self, out: &mut BytesMut) {
        if self.place != Place::Start {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The message, whether it had a bare line end, and what was left behind its end; none if it did not end.
    fn read(octets: &[u8], piece: usize) -> Option<(Vec<u8>, bool, Vec<u8>)> {
        let mut reader = DataReader::new();
        let mut out = BytesMut::new();
        let mut at = 0;
        while at < octets.len() {
            let end = (at + piece).min(octets.len());
            let (taken, ended) = reader.read(&octets[at..end], &mut out);
            at += taken;
            if ended {
                let rest = octets[at..].to_vec();
                return Some((out.to_vec(), reader.has_bare_line_end(), rest));
            }
        }
        None
    }

    fn write(octets: &[u8]) -> Result<Vec<u8>, LoneCr> {
        let mut writer = DataWriter::new();
        let mut out = BytesMut::new();
        writer.write(octets, &mut out)?;
        writer.finish(&mut out);
        Ok(out.to_vec())
    }

    #[test]
    fn reading() {
        let rows: &[(&[u8], &[u8])] = &[
            (b".\r\n", b""),
            (b"a\r\n.\r\n", b"a\r\n"),
            (b"..\r\n.\r\n", b".\r\n"),
            (b".a\r\n..b\r\n.\r\n", b"a\r\n.b\r\n"),
            (b"\r\n\r\n.\r\n", b"\r\n\r\n"),
            (b"a.\r\n.\r\n", b"a.\r\n"),
            (b"\0\xff\r\n.\r\n", b"\0\xff\r\n"),
        ];
        for (octets, message) in rows {
            for piece in 1..=octets.len() {
                let expected = Some((message.to_vec(), false, vec![]));
                assert_eq!(read(octets, piece), expected, "{octets:?} by {piece}");
            }
        }
        assert_eq!(
            read(b"a\r\n.\r\nQUIT\r\n", 99),
            Some((b"a\r\n".to_vec(), false, b"QUIT\r\n".to_vec()))
        );
    }

    /// Forms that some server somewhere has taken for the end of a message.
    #[test]
    fn no_other_end_of_data() {
        for end in [
            "\n.\n",
            "\n.\r\n",
            "\r\n.\n",
            "\r.\r",
            "\r\n.\r",
            "\r.\r\n",
            "\r\n.\r\r\n",
            "\n\n.\r\n",
            "\r\r\n.\n",
        ] {
            let octets = format!("a{end}MAIL FROM:<hidden@contoso.example>\r\n.\r\n");
            for piece in [1, 2, 3, 200] {
                let (message, bare, rest) = read(octets.as_bytes(), piece).unwrap();
                assert!(bare, "{end:?}");
                assert!(rest.is_empty(), "{end:?}");
                assert!(!message.windows(4).any(|word| word == b"MAIL"), "{end:?}");
            }
        }
    }

    #[test]
    fn writing() {
        let rows: &[(&[u8], &[u8])] = &[
            (b"", b".\r\n"),
            (b"a", b"a\r\n.\r\n"),
            (b"a\n.b\r\n..\n", b"a\r\n..b\r\n...\r\n.\r\n"),
            (b".", b"..\r\n.\r\n"),
            (b"a\r", b"a\r\n.\r\n"),
        ];
        for (message, octets) in rows {
            assert_eq!(write(message).as_deref(), Ok(*octets), "{message:?}");
        }
        for message in [&b"a\rb"[..], b"\r\r\n", b"\r."] {
            assert_eq!(write(message), Err(LoneCr));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            lines in prop::collection::vec(prop::collection::vec(prop_oneof![Just(b'.'), any::<u8>()], 0..6), 0..8),
            piece in 1usize..9,
        ) {
            let message: Vec<u8> = lines
                .iter()
                .flat_map(|line| line.iter().copied().filter(|o| !matches!(o, b'\r' | b'\n')).chain(*b"\r\n"))
                .collect();
            let mut octets = write(&message).unwrap();
            octets.extend(b"QUIT");
            prop_assert_eq!(read(&octets, piece), Some((message, false, b"QUIT".to_vec())));
        }

        #[test]
        fn nothing_but_the_one_end_ends(octets in prop::collection::vec(prop_oneof![Just(b'.'), Just(b'\r'), Just(b'\n'), Just(b'a')], 0..40), piece in 1usize..5) {
            let mut lines = b"\r\n".to_vec();
            lines.extend(&octets);
            let end = lines.windows(5).position(|five| five == b"\r\n.\r\n");
            let found = read(&octets, piece);
            prop_assert_eq!(found.as_ref().map(|(_, _, rest)| octets.len() - rest.len()), end.map(|end| end + 3));
            if let Some((message, false, _)) = found {
                prop_assert_eq!(crate::canonical::canonical(&message), message);
            }
        }
    }
}

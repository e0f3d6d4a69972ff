//! Modified UTF-7, in which folder names stand on disk and in IMAP (RFC 3501 §5.1.3).

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,";

fn is_direct(character: char) -> bool {
    (' '..='~').contains(&character)
}

/// Encodes a name. Printable ASCII stands for itself, `&` as `&-`, all else as base64 of UTF-16.
pub(super) fn encode(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut shifted: Vec<u16> = Vec::new();
    for character in name.chars() {
        if is_direct(character) {
            flush(&mut shifted, &mut out);
            out.push(character);
            if character == '&' {
                out.push('-');
            }
        } else {
            let mut units = [0; 2];
            shifted.extend_from_slice(character.encode_utf16(&mut units));
        }
    }
    flush(&mut shifted, &mut out);
    out
}

fn flush(shifted: &mut Vec<u16>, out: &mut String) {
    if shifted.is_empty() {
        return;
    }
    out.push('&');
    let mut held: u32 = 0;
    let mut bits = 0;
    for unit in shifted.drain(..) {
        held = (held << 16) | u32::from(unit);
        bits += 16;
        while bits >= 6 {
            bits -= 6;
            out.push(digit(held >> bits));
        }
    }
    if bits > 0 {
        out.push(digit(held << (6 - bits)));
    }
    out.push('-');
}

fn digit(value: u32) -> char {
    char::from(DIGITS[(value & 63) as usize])
}

/// Decodes a name; none where it is not modified UTF-7. Spellings that [`encode`] would not choose may pass:
/// whoever needs exactly one spelling encodes again and compares.
pub(super) fn decode(raw: &[u8]) -> Option<String> {
    let mut out = String::with_capacity(raw.len());
    let mut at = 0;
    while let Some(&octet) = raw.get(at) {
        at += 1;
        if octet != b'&' {
            let character = char::from(octet);
            if !is_direct(character) {
                return None;
            }
            out.push(character);
            continue;
        }
        let length = raw[at..].iter().position(|octet| *octet == b'-')?;
        let shifted = &raw[at..at + length];
        at += length + 1;
        if shifted.is_empty() {
            out.push('&');
        } else {
            decode_shifted(shifted, &mut out)?;
        }
    }
    Some(out)
}

fn decode_shifted(shifted: &[u8], out: &mut String) -> Option<()> {
    let mut units = Vec::with_capacity(shifted.len());
    let mut held: u32 = 0;
    let mut bits = 0;
    for octet in shifted {
        let value = DIGITS.iter().position(|digit| digit == octet)?;
        held = (held << 6) | u32::try_from(value).ok()?;
        bits += 6;
        if bits >= 16 {
            bits -= 16;
            units.push(u16::try_from((held >> bits) & 0xffff).ok()?);
        }
    }
    if bits >= 6 || held & ((1 << bits) - 1) != 0 {
        return None;
    }
    out.push_str(&String::from_utf16(&units).ok()?);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_names() {
        let rows = [
            ("INBOX", "INBOX"),
            ("~peter/mail/台北/日本語", "~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
            ("A&B", "A&-B"),
            ("Entwürfe", "Entw&APw-rfe"),
            ("\u{1f4e7}", "&2D3c5w-"),
            ("a\tb", "a&AAk-b"),
        ];
        for (name, encoded) in rows {
            assert_eq!(encode(name), encoded);
            assert_eq!(decode(encoded.as_bytes()).as_deref(), Some(name));
        }
    }

    #[test]
    fn refuses_what_is_not_modified_utf7() {
        for raw in [&b"a&b"[..], b"&-&", b"&AB-", b"&2D0-", b"\xc3\xa4", b"&AP/-", b"&APz-"] {
            assert_eq!(decode(raw), None, "{raw:?}");
        }
    }

    proptest! {
        #[test]
        fn every_name_comes_back(name in any::<String>()) {
            let encoded = encode(&name);
            prop_assert!(encoded.bytes().all(|octet| (0x20..0x7f).contains(&octet)));
            prop_assert_eq!(decode(encoded.as_bytes()), Some(name));
        }
    }
}

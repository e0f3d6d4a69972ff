//! Paths of MAIL and RCPT (RFC 5321 §4.1.2).

use super::Reply;

const MAX_LOCAL_PART: usize = 64;
const MAX_DOMAIN: usize = 255;

/// Why an argument of MAIL or RCPT is not a path.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum AddressError {
    /// Characters outside ASCII: they need SMTPUTF8, which is not spoken.
    #[error("addresses outside ASCII are not supported")]
    NotAscii,
    /// Not of the form `<local-part@domain>`.
    #[error("an address is written <local-part@domain>")]
    Syntax,
}

impl AddressError {
    /// The reply that tells the client, for a sender or a recipient.
    pub(super) fn reply(self, is_sender: bool) -> Reply {
        match self {
            Self::NotAscii => Reply::new(553, "5.6.7", self.to_string()),
            Self::Syntax if is_sender => Reply::new(501, "5.1.7", self.to_string()),
            Self::Syntax => Reply::new(501, "5.1.3", self.to_string()),
        }
    }
}

/// Reads `<local-part@domain>` or `<>` at the beginning of `text`; the address without brackets, none for the null
/// sender, and what follows. A source route is dropped, as RFC 5321 appendix C allows.
pub fn parse_sender(text: &str) -> Result<(Option<String>, &str), AddressError> {
    let (path, rest) = bracketed(text)?;
    match path {
        "" => Ok((None, rest)),
        path => Ok((Some(mailbox(path)?), rest)),
    }
}

/// Reads `<local-part@domain>` or `<Postmaster>` at the beginning of `text`; the address without brackets, and what
/// follows.
pub fn parse_recipient(text: &str) -> Result<(String, &str), AddressError> {
    let (path, rest) = bracketed(text)?;
    if path.eq_ignore_ascii_case("postmaster") {
        return Ok((path.to_owned(), rest));
    }
    Ok((mailbox(path)?, rest))
}

/// Whether a text may be sent between the brackets of MAIL or RCPT.
pub(super) fn is_address(text: &str) -> bool {
    text.eq_ignore_ascii_case("postmaster") || mailbox(text).is_ok_and(|address| address == text)
}

/// The content of the angle brackets, and what follows them. A `>` may stand inside a quoted local part.
fn bracketed(text: &str) -> Result<(&str, &str), AddressError> {
    if !text.is_ascii() {
        return Err(AddressError::NotAscii);
    }
    let inner = text.strip_prefix('<').ok_or(AddressError::Syntax)?;
    let mut quoted = false;
    let mut escaped = false;
    for (at, octet) in inner.bytes().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Ok((&inner[..at], &inner[at + 1..])),
            _ => {}
        }
    }
    Err(AddressError::Syntax)
}

fn mailbox(path: &str) -> Result<String, AddressError> {
    if !path.is_ascii() {
        return Err(AddressError::NotAscii);
    }
    let path = match path.strip_prefix('@') {
        Some(route) => route.split_once(':').ok_or(AddressError::Syntax)?.1,
        None => path,
    };
    let (local, domain) = path.rsplit_once('@').ok_or(AddressError::Syntax)?;
    if is_local_part(local) && is_domain(domain) {
        Ok(path.to_owned())
    } else {
        Err(AddressError::Syntax)
    }
}

fn is_local_part(local: &str) -> bool {
    if local.is_empty() || local.len() > MAX_LOCAL_PART {
        return false;
    }
    let quoted = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match quoted {
        Some(content) => is_quoted_content(content),
        None => local
            .split('.')
            .all(|atom| !atom.is_empty() && atom.bytes().all(is_atom_octet)),
    }
}

fn is_quoted_content(content: &str) -> bool {
    let mut octets = content.bytes();
    while let Some(octet) = octets.next() {
        let fine = match octet {
            b'\\' => octets.next().is_some_and(|next| (b' '..=b'~').contains(&next)),
            b'"' => false,
            other => (b' '..=b'~').contains(&other),
        };
        if !fine {
            return false;
        }
    }
    true
}

fn is_atom_octet(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&octet)
}

fn is_domain(domain: &str) -> bool {
    if domain.is_empty() || domain.len() > MAX_DOMAIN {
        return false;
    }
    match domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(literal) => {
            !literal.is_empty()
                && literal
                    .bytes()
                    .all(|octet| octet.is_ascii_alphanumeric() || b".:-".contains(&octet))
        }
        // The underscore is outside the standard, and in use.
        None => domain.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|octet| octet.is_ascii_alphanumeric() || b"-_".contains(&octet))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn recipients() {
        let good = [
            ("<a@b.example>", "a@b.example", ""),
            ("<a.b+c@b.example> X=1", "a.b+c@b.example", " X=1"),
            ("<@x.example,@y.example:a@b>", "a@b", ""),
            ("<\"a b>\\\"@\"@b.example>", "\"a b>\\\"@\"@b.example", ""),
            ("<a@[192.0.2.1]>", "a@[192.0.2.1]", ""),
            ("<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]", ""),
            ("<PostMaster>", "PostMaster", ""),
        ];
        for (text, address, rest) in good {
            assert_eq!(parse_recipient(text), Ok((address.to_owned(), rest)), "{text}");
        }
        let local = format!("<{}@b>", "a".repeat(65));
        let domain = format!("<a@{}>", "a".repeat(256));
        let bad = [
            "",
            "a@b",
            "<>",
            "<a>",
            "<a@>",
            "<@b>",
            "<a..b@c>",
            "<.a@c>",
            "<a b@c>",
            "<a@b",
            "<a@-b>",
            "<a@b..c>",
            "<a@b c>",
            "<\"a@b>",
            "<\"a\"b\"@c>",
            "<a@[]>",
            "<a\u{1}@b>",
            "<@x.example>",
            &local,
            &domain,
        ];
        for text in bad {
            assert_eq!(parse_recipient(text), Err(AddressError::Syntax), "{text}");
        }
        assert_eq!(parse_recipient("<ä@b.example>"), Err(AddressError::NotAscii));
    }

    #[test]
    fn senders() {
        assert_eq!(parse_sender("<> SIZE=1"), Ok((None, " SIZE=1")));
        assert_eq!(parse_sender("<a@b>"), Ok((Some("a@b".into()), "")));
        assert_eq!(parse_sender("<postmaster>"), Err(AddressError::Syntax));
        assert_eq!(parse_sender("<a@ü.example>"), Err(AddressError::NotAscii));
    }

    proptest! {
        #[test]
        fn what_is_read_may_be_sent(text in "<[ -~]{0,20}@[ -~]{0,20}>") {
            if let Ok((address, _)) = parse_recipient(&text) {
                prop_assert!(is_address(&address));
            }
        }
    }
}

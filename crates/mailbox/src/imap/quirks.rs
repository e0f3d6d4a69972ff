//! What servers do that no capability says. Each with its reason; whatever is not here is as the standards say.

use super::connection::Connection;
use rehome_wire::flags::Flags;

/// Longest keyword that any server is asked to keep by name alone, in octets; longer ones are tried on servers that
/// are not known.
const DOVECOT_KEYWORD: usize = 50;

/// Which server it is, as far as it matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    Dovecot,
    Cyrus,
    Gmail,
    Exchange,
    #[default]
    Other,
}

/// How one server deviates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Quirks {
    pub(super) kind: Kind,
}

impl Quirks {
    /// From what the server says of itself, in this order: ID, capabilities, greeting.
    pub(super) fn of(connection: &Connection) -> Self {
        let name = connection.id.iter().find(|(field, _)| field == "name");
        let name = name.map_or("", |(_, value)| value).to_ascii_lowercase();
        let greeting = connection.greeting.to_ascii_lowercase();
        let says = |word: &str| name.contains(word) || greeting.contains(word);
        let kind = if connection.capabilities.gmail {
            Kind::Gmail
        } else if says("dovecot") {
            Kind::Dovecot
        } else if says("cyrus") {
            Kind::Cyrus
        } else if says("microsoft exchange") || greeting.contains("outlook.com") || name.contains("microsoft") {
            Kind::Exchange
        } else {
            Kind::Other
        };
        Self { kind }
    }

    /// The name for people.
    pub(super) fn name(self) -> &'static str {
        match self.kind {
            Kind::Dovecot => "Dovecot",
            Kind::Cyrus => "Cyrus",
            Kind::Gmail => "Gmail",
            Kind::Exchange => "Exchange",
            Kind::Other => "unknown",
        }
    }

    /// Most items of one append that are worth handing over together.
    pub(super) fn append_batch(self) -> usize {
        match self.kind {
            // One refused message costs a whole MULTIAPPEND; 50 is where the gain from longer ones ends.
            Kind::Dovecot | Kind::Cyrus | Kind::Other => 50,
            // Neither has MULTIAPPEND, and both throttle by commands in flight.
            Kind::Gmail | Kind::Exchange => 20,
        }
    }

    /// Whether SEARCH names every message. Exchange leaves out some, so that what is there is asked by FETCH.
    pub(super) fn search_is_whole(self) -> bool {
        match self.kind {
            Kind::Dovecot | Kind::Cyrus | Kind::Gmail | Kind::Other => true,
            Kind::Exchange => false,
        }
    }

    /// Whether MAILBOXID must be asked alone: Cyrus 3.6 answers octets of freed memory for it where it has the other
    /// numbers at hand already.
    pub(super) fn mailbox_id_alone(self) -> bool {
        match self.kind {
            Kind::Cyrus => true,
            Kind::Dovecot | Kind::Gmail | Kind::Exchange | Kind::Other => false,
        }
    }

    /// Whether the server takes the keyword. One that it does not take fails the whole STORE or APPEND, so that it is
    /// left out and named before.
    pub(super) fn takes_keyword(self, keyword: &str) -> bool {
        let atom = !keyword.is_empty()
            && keyword
                .bytes()
                .all(|octet| (b'!'..=b'~').contains(&octet) && !b"(){%*\"\\]".contains(&octet));
        atom && match self.kind {
            Kind::Dovecot => keyword.len() <= DOVECOT_KEYWORD,
            Kind::Cyrus | Kind::Gmail | Kind::Exchange | Kind::Other => true,
        }
    }

    /// Whether a message may be refused where others are not, so that it goes alone and cannot take a batch with it.
    pub(super) fn is_doubtful(self, octets: &[u8]) -> bool {
        match self.kind {
            // Cyrus wants a header that is one ("Message contains invalid header").
            Kind::Cyrus => has_nul(octets) || !has_regular_header(octets),
            Kind::Dovecot => false,
            Kind::Gmail | Kind::Exchange | Kind::Other => has_nul(octets) || !has_regular_header(octets),
        }
    }
}

pub(super) fn has_nul(octets: &[u8]) -> bool {
    octets.contains(&0)
}

/// Whether every line up to the first empty one is a field or goes on with one. Only the first 64 KiB are looked at.
fn has_regular_header(octets: &[u8]) -> bool {
    const LOOKED_AT: usize = 64 * 1024;
    let mut rest = &octets[..octets.len().min(LOOKED_AT)];
    let whole = rest.len() == octets.len();
    let mut first = true;
    loop {
        let Some(end) = rest.iter().position(|octet| *octet == b'\n') else {
            return !first && !whole || rest.is_empty();
        };
        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
        match line.first() {
            None => return true,
            Some(b' ' | b'\t') if !first => {}
            Some(_) if first && line.starts_with(b"From ") => {}
            Some(_) if !is_field(line) => return false,
            Some(_) => {}
        }
        first = false;
        rest = &rest[end + 1..];
    }
}

fn is_field(line: &[u8]) -> bool {
    let name = line.iter().position(|octet| *octet == b':').map(|colon| &line[..colon]);
    name.is_some_and(|name| !name.is_empty() && name.iter().all(|octet| (b'!'..=b'~').contains(octet)))
}

/// Flags that the server takes, and the keywords that it does not.
pub(super) fn split_keywords(flags: &Flags, takes: impl Fn(&str) -> bool) -> (Flags, Vec<String>) {
    let (kept, dropped): (Vec<String>, Vec<String>) =
        flags.keywords().iter().cloned().partition(|keyword| takes(keyword));
    if dropped.is_empty() {
        return (flags.clone(), dropped);
    }
    (Flags::from_parts(flags.system(), kept), dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_cyrus_refuses_go_alone() {
        let cyrus = Quirks { kind: Kind::Cyrus };
        let rows: [(&[u8], bool); 14] = [
            (b"Subject: x\r\n\r\nbody", false),
            (b"Subject: x\r\n", false),
            (b"\r\nbody", false),
            (b"\r\n", false),
            (b"From x\r\nSubject: y\r\n\r\n", false),
            (b"Subject: a\r\n folded\r\n\r\n", false),
            (b"no header at all", true),
            (b"Subject: t", true),
            (b"Subject: t\r\nno colon\r\n\r\n", true),
            (b"Subject : t\r\n\r\n", true),
            (b">From x\r\n\r\n", true),
            (b"\tfolded first\r\n\r\n", true),
            (b"Subject: x\r\n\r\nnul \0", true),
            (b"", false),
        ];
        for (octets, alone) in rows {
            assert_eq!(cyrus.is_doubtful(octets), alone, "{}", String::from_utf8_lossy(octets));
            assert!(!Quirks { kind: Kind::Dovecot }.is_doubtful(octets));
        }
        let long = [b"X: ".to_vec(), vec![b'y'; 100_000], b"\r\n\r\n".to_vec()].concat();
        assert!(cyrus.is_doubtful(&long), "what was not seen whole goes alone");
    }

    #[test]
    fn keywords_that_fail_a_command_are_left_out() {
        let dovecot = Quirks { kind: Kind::Dovecot };
        let other = Quirks::default();
        let long = "x".repeat(51);
        for (keyword, by_dovecot, by_others) in [
            ("$Forwarded", true, true),
            ("a'b", true, true),
            ("[x", true, true),
            ("[Gmail]", false, false),
            ("gr\u{fc}n", false, false),
            (long.as_str(), false, true),
        ] {
            assert_eq!(dovecot.takes_keyword(keyword), by_dovecot, "{keyword}");
            assert_eq!(other.takes_keyword(keyword), by_others, "{keyword}");
        }
        let flags = Flags::from_names(["\\Seen", "a]", "work"]);
        let (kept, dropped) = split_keywords(&flags, |keyword| dovecot.takes_keyword(keyword));
        assert_eq!(
            (kept, dropped),
            (Flags::from_names(["\\Seen", "work"]), vec!["a]".to_owned()])
        );
    }
}

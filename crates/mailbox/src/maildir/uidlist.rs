//! Dovecot's `dovecot-uidlist`, version 3: which file has which uid.
//!
//! First line `3 V<uidvalidity> N<uidnext> G<guid>`, then `uid [fields] :base name`, ascending. The base name is the
//! file's name up to its flags, `,S=` and `,W=` included: Dovecot ignores a line that names less, and throws the whole
//! list away when uids do not ascend. N may lag behind the last line. Fields and lines that are not known here are
//! kept. A last line without line feed was cut by a crash and is left out.

use crate::Uid;
use std::collections::{BTreeMap, HashMap};

/// The file's name.
pub(super) const FILE: &str = "dovecot-uidlist";

/// A list as read, or to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Uidlist {
    /// UIDVALIDITY, never 0.
    pub(super) uid_validity: u32,
    /// UIDNEXT, above every uid listed.
    pub(super) uid_next: u32,
    /// The other fields of the first line, separated by blanks.
    header_fields: Vec<u8>,
    /// Ascending by uid.
    entries: Vec<UidEntry>,
    /// Lines that are not understood, by the uid that they follow.
    foreign: BTreeMap<Uid, Vec<Vec<u8>>>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UidEntry {
    /// The uid.
    pub(super) uid: Uid,
    /// Fields between uid and name, as they stand.
    fields: Vec<u8>,
    /// The file's name as listed.
    name: Vec<u8>,
}

impl UidEntry {
    /// The file's base name: its name up to the flags.
    pub(super) fn base(&self) -> &[u8] {
        base_of(&self.name)
    }
}

/// The part of a file name that stays when flags change.
pub(super) fn base_of(name: &[u8]) -> &[u8] {
    let end = name.iter().position(|octet| *octet == b':').unwrap_or(name.len());
    &name[..end]
}

/// Why a list cannot be used; Dovecot throws such a list away too.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum UidlistError {
    #[error("the first line is not that of a version 3 list")]
    Header,
    #[error("uids do not ascend at uid {0}")]
    Order(Uid),
}

impl Uidlist {
    /// An empty list.
    pub(super) fn new(uid_validity: u32, uid_next: u32) -> Self {
        let guid = uuid::Uuid::new_v4().simple();
        Self {
            uid_validity,
            uid_next,
            header_fields: format!("G{guid}").into_bytes(),
            entries: Vec::new(),
            foreign: BTreeMap::new(),
        }
    }

    /// Reads a list.
    pub(super) fn parse(octets: &[u8]) -> Result<Self, UidlistError> {
        let whole = octets.iter().rposition(|octet| *octet == b'\n').map_or(0, |at| at + 1);
        let mut lines = octets[..whole].split(|octet| *octet == b'\n');
        let mut list = parse_header(lines.next().unwrap_or_default()).ok_or(UidlistError::Header)?;
        let mut last = 0;
        for line in lines {
            match parse_line(line) {
                Some(entry) if entry.uid > last => {
                    last = entry.uid;
                    list.entries.push(entry);
                }
                Some(entry) => return Err(UidlistError::Order(entry.uid)),
                None if line.is_empty() => {}
                None => list.foreign.entry(last).or_default().push(line.to_vec()),
            }
        }
        list.uid_next = list.uid_next.max(last.saturating_add(1));
        Ok(list)
    }

    /// Writes the list.
    pub(super) fn render(&self) -> Vec<u8> {
        let mut out = format!("3 V{} N{}", self.uid_validity, self.uid_next).into_bytes();
        if !self.header_fields.is_empty() {
            out.push(b' ');
            out.extend_from_slice(&self.header_fields);
        }
        out.push(b'\n');
        let mut foreign = self.foreign.iter().peekable();
        for entry in &self.entries {
            while let Some((_, lines)) = foreign.next_if(|(after, _)| **after < entry.uid) {
                push_lines(lines, &mut out);
            }
            out.extend_from_slice(entry.uid.to_string().as_bytes());
            if !entry.fields.is_empty() {
                out.push(b' ');
                out.extend_from_slice(&entry.fields);
            }
            out.extend_from_slice(b" :");
            out.extend_from_slice(&entry.name);
            out.push(b'\n');
        }
        for (_, lines) in foreign {
            push_lines(lines, &mut out);
        }
        out
    }

    /// All lines, ascending by uid.
    pub(super) fn entries(&self) -> &[UidEntry] {
        &self.entries
    }

    /// Uids by base name; of two lines with one name the later counts, as for Dovecot.
    pub(super) fn by_base(&self) -> HashMap<&[u8], Uid> {
        self.entries.iter().map(|entry| (entry.base(), entry.uid)).collect()
    }

    /// The line of a uid.
    pub(super) fn get(&self, uid: Uid) -> Option<&UidEntry> {
        self.position(uid).ok().map(|at| &self.entries[at])
    }

    /// Gives the next uid to a base name; none when there are no more.
    pub(super) fn assign(&mut self, base: &[u8]) -> Option<Uid> {
        let uid = self.uid_next;
        self.uid_next = uid.checked_add(1)?;
        self.entries.push(UidEntry {
            uid,
            fields: Vec::new(),
            name: base.to_vec(),
        });
        Some(uid)
    }

    /// Gives a certain uid to a base name; false when that uid is taken or cannot be given.
    pub(super) fn assign_given(&mut self, uid: Uid, base: &[u8]) -> bool {
        let Some(after) = uid.checked_add(1).filter(|_| uid != 0) else {
            return false;
        };
        let Err(at) = self.position(uid) else {
            return false;
        };
        self.entries.insert(
            at,
            UidEntry {
                uid,
                fields: Vec::new(),
                name: base.to_vec(),
            },
        );
        self.uid_next = self.uid_next.max(after);
        true
    }

    /// Drops lines; UIDNEXT stays.
    pub(super) fn forget(&mut self, gone: impl Fn(Uid) -> bool) {
        self.entries.retain(|entry| !gone(entry.uid));
    }

    fn position(&self, uid: Uid) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&uid, |entry| entry.uid)
    }
}

fn push_lines(lines: &[Vec<u8>], out: &mut Vec<u8>) {
    for line in lines {
        out.extend_from_slice(line);
        out.push(b'\n');
    }
}

fn number(octets: &[u8]) -> Option<u32> {
    std::str::from_utf8(octets).ok()?.parse().ok()
}

fn parse_header(line: &[u8]) -> Option<Uidlist> {
    let mut fields = line.split(|octet| *octet == b' ').filter(|field| !field.is_empty());
    if fields.next() != Some(b"3") {
        return None;
    }
    let (mut uid_validity, mut uid_next, mut others) = (0, 1, Vec::new());
    for field in fields {
        match field[0] {
            b'V' => uid_validity = number(&field[1..])?,
            b'N' => uid_next = number(&field[1..])?,
            _ => others.push(field),
        }
    }
    (uid_validity != 0).then(|| Uidlist {
        uid_validity,
        uid_next: uid_next.max(1),
        header_fields: others.join(&b' '),
        entries: Vec::new(),
        foreign: BTreeMap::new(),
    })
}

fn parse_line(line: &[u8]) -> Option<UidEntry> {
    let colon = line.windows(2).position(|pair| pair == b" :")?;
    let mut parts = line[..colon].splitn(2, |octet| *octet == b' ');
    let uid = number(parts.next()?).filter(|uid| *uid != 0 && *uid != Uid::MAX)?;
    let fields = parts.next().unwrap_or_default().to_vec();
    let name = line[colon + 2..].to_vec();
    (!name.is_empty()).then_some(UidEntry { uid, fields, name })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SAMPLE: &[u8] = b"3 V1400000001 N90001 G00112233445566778899aabbccddeeff X9\n\
        5 W120 S118 :1700000000.M1P2.host,S=118,W=120\n\
        # what a later version wrote\n\
        7 G0123 Qfoo :b\n\
        90002 :c:2,S\n";

    #[test]
    fn a_sample_is_kept_to_the_octet() {
        let list = Uidlist::parse(SAMPLE).unwrap();
        assert_eq!(list.uid_validity, 1_400_000_001);
        assert_eq!(list.uid_next, 90_003, "N may lag behind");
        assert_eq!(list.get(90_002).unwrap().base(), b"c");
        let rendered = list.render();
        assert_eq!(
            rendered,
            String::from_utf8_lossy(SAMPLE).replace("N90001", "N90003").into_bytes()
        );
    }

    #[test]
    fn uids_are_given_ascending_and_never_twice() {
        let mut list = Uidlist::parse(SAMPLE).unwrap();
        assert_eq!(list.assign(b"d"), Some(90_003));
        assert!(list.assign_given(6, b"e"));
        assert!(!list.assign_given(6, b"f"));
        assert!(!list.assign_given(0, b"f"));
        assert!(list.assign_given(100_000, b"g"));
        list.forget(|uid| uid == 100_000);
        assert_eq!(list.assign(b"h"), Some(100_001));
        let again = Uidlist::parse(&list.render()).unwrap();
        assert_eq!(again, list);
        assert_eq!(again.by_base()[&b"e"[..]], 6);
    }

    #[test]
    fn broken_lists() {
        assert_eq!(Uidlist::parse(b""), Err(UidlistError::Header));
        assert_eq!(Uidlist::parse(b"3 V0 N1\n"), Err(UidlistError::Header));
        assert_eq!(Uidlist::parse(b"1 5 6\n"), Err(UidlistError::Header));
        assert_eq!(
            Uidlist::parse(b"3 V5 N9"),
            Err(UidlistError::Header),
            "cut in the first line"
        );
        assert_eq!(Uidlist::parse(b"3 V5 N9\n3 :a\n2 :b\n"), Err(UidlistError::Order(2)));
        assert_eq!(Uidlist::parse(b"3 V5 N9\n3 :a\n4 :cut").unwrap().entries().len(), 1);
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(b"abc,=.SW0:-\xff".to_vec()), 1..12)
    }

    proptest! {
        #[test]
        fn what_is_rendered_is_read(
            validity in 1u32.., next in 1u32..1_000_000,
            lines in prop::collection::btree_map(1u32..1_000_000, (prop::option::of("[A-Z][a-z0-9]{0,5}( [A-Z]x)?"), text()), 0..20),
            foreign in prop::collection::vec("[#a-z][a-z ]{0,9}", 0..3),
        ) {
            let mut octets = format!("3 V{validity} N{next} Gabc\n").into_bytes();
            for (uid, (fields, name)) in &lines {
                octets.extend_from_slice(uid.to_string().as_bytes());
                if let Some(fields) = fields {
                    octets.extend_from_slice(format!(" {fields}").as_bytes());
                }
                octets.extend_from_slice(b" :");
                octets.extend_from_slice(name);
                octets.push(b'\n');
            }
            for line in &foreign {
                octets.extend_from_slice(line.as_bytes());
                octets.push(b'\n');
            }
            let list = Uidlist::parse(&octets).unwrap();
            prop_assert_eq!(list.entries().len(), lines.len());
            let rendered = list.render();
            prop_assert_eq!(Uidlist::parse(&rendered).unwrap(), list);
            let body = |octets: &[u8]| octets[octets.iter().position(|octet| *octet == b'\n').unwrap()..].to_vec();
            prop_assert_eq!(body(&rendered), body(&octets));
        }

        #[test]
        fn nothing_panics(octets in prop::collection::vec(prop::sample::select(b"3 VNG019:\n\xff".to_vec()), 0..60)) {
            if let Ok(list) = Uidlist::parse(&octets) {
                prop_assert_eq!(Uidlist::parse(&list.render()).unwrap(), list);
            }
        }
    }
}

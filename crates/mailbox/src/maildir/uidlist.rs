//! Dovecot's `dovecot-uidlist`, version 3: which file has which uid.
//!
//! First line `3 V<uidvalidity> N<uidnext> G<guid>`, then `uid [fields] :base name`, ascending. The base name is the
//! file's name up to its flags, `,S=` and `,W=` included: Dovecot ignores a line that names less, and throws the whole
//! list away when uids do not ascend. N may lag behind the last line: new lines are added at the end, as Dovecot does
//! it, and all else is a new file. Fields and lines that are not known here are kept. A last line without line feed was
//! cut by a crash and is left out.
//!
//! A list is held as its text with the places of the lines, about 110 octets for an item that we wrote.

use super::item_name::stem_of;
use crate::Uid;
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::sync::OnceLock;

/// The file's name.
pub(super) const FILE: &str = "dovecot-uidlist";

/// A list as read, or to be written.
#[derive(Clone, Debug)]
pub(super) struct Uidlist {
    /// UIDVALIDITY, never 0.
    pub(super) uid_validity: u32,
    /// UIDNEXT, above every uid listed.
    uid_next: u32,
    /// The other fields of the first line, separated by blanks.
    header_fields: Vec<u8>,
    /// What the lines' places are in; in no order.
    text: Vec<u8>,
    /// Ascending by uid.
    lines: Vec<Line>,
    /// Lines that are not understood, by the uid that they follow.
    foreign: BTreeMap<Uid, Vec<Vec<u8>>>,
    /// Made when first asked for.
    index: OnceLock<Index>,
    /// What of it is not in the file yet.
    unwritten: Unwritten,
}

/// One line, as places in the text.
#[derive(Clone, Copy, Debug)]
struct Line {
    uid: Uid,
    start: u32,
    /// Where the file's name begins.
    name: u32,
    end: u32,
}

/// One line's uid and file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UidEntry<'a> {
    pub(super) uid: Uid,
    /// The file's base name: its name up to the flags.
    pub(super) base: &'a [u8],
}

/// Where to find a base name: by a hash of what stands before its first comma, which is the stem of names that we
/// gave.
#[derive(Clone, Debug, Default)]
struct Index {
    hasher: RandomState,
    /// The last uid of each hash.
    last: HashMap<u64, Uid>,
    /// The uid before, of the same hash.
    before: HashMap<Uid, Uid>,
}

/// What must be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unwritten {
    /// Nothing.
    Nothing,
    /// Lines after this many.
    LinesAfter(usize),
    /// All.
    Whole,
}

/// The part of a file name that stays when flags change.
pub(super) fn base_of(name: &[u8]) -> &[u8] {
    let end = name.iter().position(|octet| *octet == b':').unwrap_or(name.len());
    &name[..end]
}

/// How many octets of a list are whole lines.
pub(super) fn whole_length(octets: &[u8]) -> usize {
    octets.iter().rposition(|octet| *octet == b'\n').map_or(0, |at| at + 1)
}

/// Why a list cannot be used; Dovecot throws such a list away too.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum UidlistError {
    #[error("the first line is not that of a version 3 list")]
    Header,
    #[error("uids do not ascend at uid {0}")]
    Order(Uid),
    #[error("the list is too large")]
    Size,
}

impl Index {
    fn hash(&self, base: &[u8]) -> u64 {
        let end = base.iter().position(|octet| *octet == b',').unwrap_or(base.len());
        self.hasher.hash_one(&base[..end])
    }

    fn add(&mut self, entry: UidEntry<'_>) {
        if let Some(before) = self.last.insert(self.hash(entry.base), entry.uid) {
            self.before.insert(entry.uid, before);
        }
    }

    /// Uids whose names may begin like this one, the last first.
    fn candidates(&self, base: &[u8]) -> impl Iterator<Item = Uid> {
        let last = self.last.get(&self.hash(base)).copied();
        std::iter::successors(last, |uid| self.before.get(uid).copied())
    }
}

impl Uidlist {
    /// An empty list.
    pub(super) fn new(uid_validity: u32, uid_next: u32) -> Self {
        let guid = uuid::Uuid::new_v4().simple();
        Self::with_header(uid_validity, uid_next, format!("G{guid}").into_bytes())
    }

    fn with_header(uid_validity: u32, uid_next: u32, header_fields: Vec<u8>) -> Self {
        Self {
            uid_validity,
            uid_next,
            header_fields,
            text: Vec::new(),
            lines: Vec::new(),
            foreign: BTreeMap::new(),
            index: OnceLock::new(),
            unwritten: Unwritten::Whole,
        }
    }

    /// Reads a list.
    pub(super) fn parse(octets: &[u8]) -> Result<Self, UidlistError> {
        let octets = &octets[..whole_length(octets)];
        let (mut list, body) = parse_header(octets).ok_or(UidlistError::Header)?;
        list.text = octets[body..].to_vec();
        let (mut start, mut last) = (0, 0);
        while let Some(length) = list.text[start..].iter().position(|octet| *octet == b'\n') {
            let line = &list.text[start..start + length];
            match parse_line(line) {
                Some((uid, _)) if uid <= last => return Err(UidlistError::Order(uid)),
                Some((uid, name)) => {
                    last = uid;
                    let at = |at: usize| u32::try_from(start + at).map_err(|_| UidlistError::Size);
                    let (start, name, end) = (at(0)?, at(name)?, at(length)?);
                    list.lines.push(Line { uid, start, name, end });
                }
                None if line.is_empty() => {}
                None => list.foreign.entry(last).or_default().push(line.to_vec()),
            }
            start += length + 1;
        }
        list.uid_next = list.uid_next.max(last.saturating_add(1));
        list.unwritten = Unwritten::Nothing;
        Ok(list)
    }

    /// The list as a new file.
    pub(super) fn render(&self) -> Vec<u8> {
        let mut out = format!("3 V{} N{}", self.uid_validity, self.uid_next).into_bytes();
        out.reserve(self.text.len() + self.lines.len() + 64);
        if !self.header_fields.is_empty() {
            out.push(b' ');
            out.extend_from_slice(&self.header_fields);
        }
        out.push(b'\n');
        let mut foreign = self.foreign.iter().peekable();
        for line in &self.lines {
            while let Some((_, lines)) = foreign.next_if(|(after, _)| **after < line.uid) {
                push_lines(lines, &mut out);
            }
            self.push_line(line, &mut out);
        }
        for (_, lines) in foreign {
            push_lines(lines, &mut out);
        }
        out
    }

    /// The lines after the first `count`, as they are added to the file.
    pub(super) fn render_after(&self, count: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for line in &self.lines[count..] {
            self.push_line(line, &mut out);
        }
        out
    }

    fn push_line(&self, line: &Line, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.text[line.start as usize..line.end as usize]);
        out.push(b'\n');
    }

    /// What must be written.
    pub(super) fn unwritten(&self) -> Unwritten {
        self.unwritten
    }

    /// Notes that all is written.
    pub(super) fn set_written(&mut self) {
        self.unwritten = Unwritten::Nothing;
    }

    /// UIDNEXT, above every uid listed.
    pub(super) fn uid_next(&self) -> u32 {
        self.uid_next
    }

    /// Raises UIDNEXT; a lower one changes nothing.
    pub(super) fn raise_uid_next(&mut self, uid_next: u32) {
        if uid_next > self.uid_next {
            self.uid_next = uid_next;
            self.unwritten = Unwritten::Whole;
        }
    }

    /// How many lines there are.
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Memory that it takes, octets, about.
    pub(super) fn weight(&self) -> usize {
        let index = if self.index.get().is_some() { 32 } else { 0 };
        self.text.capacity() + self.lines.len() * (size_of::<Line>() + index)
    }

    /// All lines, ascending by uid.
    pub(super) fn entries(&self) -> impl Iterator<Item = UidEntry<'_>> {
        self.lines.iter().map(|line| self.entry(line))
    }

    fn entry(&self, line: &Line) -> UidEntry<'_> {
        UidEntry {
            uid: line.uid,
            base: base_of(&self.text[line.name as usize..line.end as usize]),
        }
    }

    fn index(&self) -> &Index {
        self.index.get_or_init(|| {
            let mut index = Index::default();
            index.last.reserve(self.lines.len());
            for entry in self.entries() {
                index.add(entry);
            }
            index
        })
    }

    /// The uid of a base name; of two lines with one name the later counts, as for Dovecot.
    pub(super) fn uid_of(&self, base: &[u8]) -> Option<Uid> {
        self.index().candidates(base).find(|uid| self.base(*uid) == Some(base))
    }

    /// The uid of a name that we gave, whatever lengths it shows.
    pub(super) fn uid_of_stem(&self, stem: &[u8]) -> Option<Uid> {
        let mut candidates = self.index().candidates(stem);
        candidates.find(|uid| self.base(*uid).and_then(stem_of) == Some(stem))
    }

    /// The base name of a uid.
    pub(super) fn base(&self, uid: Uid) -> Option<&[u8]> {
        self.position(uid).ok().map(|at| self.entry(&self.lines[at]).base)
    }

    /// Gives the next uid to a base name; none when there are no more.
    pub(super) fn assign(&mut self, base: &[u8]) -> Option<Uid> {
        let uid = self.uid_next;
        self.assign_given(uid, base).then_some(uid)
    }

    /// Gives a certain uid to a base name; false when that uid is taken or cannot be given.
    pub(super) fn assign_given(&mut self, uid: Uid, base: &[u8]) -> bool {
        let Some(after) = uid.checked_add(1).filter(|_| uid != 0) else {
            return false;
        };
        let Err(at) = self.position(uid) else {
            return false;
        };
        let number = format!("{uid} :");
        let text_end = self.text.len();
        let ends = [0, number.len(), number.len() + base.len()].map(|length| u32::try_from(text_end + length));
        let [Ok(start), Ok(name), Ok(end)] = ends else {
            return false;
        };
        self.text.extend_from_slice(number.as_bytes());
        self.text.extend_from_slice(base);
        self.unwritten = match self.unwritten {
            Unwritten::Nothing if at == self.lines.len() => Unwritten::LinesAfter(at),
            Unwritten::LinesAfter(count) if at == self.lines.len() => Unwritten::LinesAfter(count),
            Unwritten::Nothing | Unwritten::LinesAfter(_) | Unwritten::Whole => Unwritten::Whole,
        };
        if at < self.lines.len() {
            // The index holds later uids before earlier ones.
            self.index.take();
        }
        self.lines.insert(at, Line { uid, start, name, end });
        if let Some(index) = self.index.get_mut() {
            index.add(UidEntry { uid, base });
        }
        self.uid_next = self.uid_next.max(after);
        true
    }

    /// Drops lines; UIDNEXT stays.
    pub(super) fn forget(&mut self, gone: impl Fn(Uid) -> bool) {
        let before = self.lines.len();
        self.lines.retain(|line| !gone(line.uid));
        if self.lines.len() < before {
            self.unwritten = Unwritten::Whole;
            self.index.take();
        }
    }

    fn position(&self, uid: Uid) -> Result<usize, usize> {
        match self.lines.last() {
            Some(last) if last.uid >= uid => self.lines.binary_search_by_key(&uid, |line| line.uid),
            Some(_) | None => Err(self.lines.len()),
        }
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

/// The first line, and where the others begin.
fn parse_header(octets: &[u8]) -> Option<(Uidlist, usize)> {
    let end = octets.iter().position(|octet| *octet == b'\n')?;
    let mut fields = octets[..end]
        .split(|octet| *octet == b' ')
        .filter(|field| !field.is_empty());
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
    let list = Uidlist::with_header(uid_validity, uid_next.max(1), others.join(&b' '));
    (uid_validity != 0).then_some((list, end + 1))
}

/// A line's uid, and where in it the file's name begins.
fn parse_line(line: &[u8]) -> Option<(Uid, usize)> {
    let colon = line.windows(2).position(|pair| pair == b" :")?;
    let uid = line[..colon].split(|octet| *octet == b' ').next()?;
    let uid = number(uid).filter(|uid| *uid != 0 && *uid != Uid::MAX)?;
    (line.len() > colon + 2).then_some((uid, colon + 2))
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
        assert_eq!(list.uid_next(), 90_003, "N may lag behind");
        assert_eq!(list.base(90_002).unwrap(), b"c");
        assert_eq!(list.uid_of(b"1700000000.M1P2.host,S=118,W=120"), Some(5));
        assert_eq!(list.uid_of(b"1700000000.M1P2.host"), None, "a name is known as a whole");
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
        assert_eq!(again.render(), list.render());
        assert_eq!(
            (list.uid_of(b"e"), again.uid_of(b"e"), again.uid_of(b"g")),
            (Some(6), Some(6), None)
        );
    }

    #[test]
    fn only_new_lines_are_added() {
        let mut list = Uidlist::parse(SAMPLE).unwrap();
        assert_eq!((list.uid_of(b"d"), list.unwritten()), (None, Unwritten::Nothing));
        list.assign(b"d");
        list.assign_given(100_000, b"e");
        assert_eq!(list.unwritten(), Unwritten::LinesAfter(3));
        let added = [SAMPLE, &list.render_after(3)].concat();
        assert_eq!(Uidlist::parse(&added).unwrap().render(), list.render());
        assert_eq!((list.uid_of(b"d"), list.uid_of(b"e")), (Some(90_003), Some(100_000)));
        list.set_written();
        list.raise_uid_next(5);
        assert_eq!(list.unwritten(), Unwritten::Nothing);
        assert!(list.assign_given(8, b"in between"));
        assert_eq!(list.unwritten(), Unwritten::Whole);
        list.set_written();
        list.forget(|uid| uid == 8);
        assert_eq!(list.unwritten(), Unwritten::Whole, "UIDNEXT must not be lost");
    }

    #[test]
    fn of_two_lines_with_one_name_the_later_counts() {
        let mut list = Uidlist::parse(b"3 V5 N9\n2 :a,S=1\n3 :a,S=2\n4 :a,S=1\n").unwrap();
        assert_eq!((list.uid_of(b"a,S=1"), list.uid_of(b"a,S=2")), (Some(4), Some(3)));
        assert!(list.assign_given(1, b"a,S=1"));
        assert_eq!(list.uid_of(b"a,S=1"), Some(4));
        list.assign(b"1.R0.rehome,S=1,W=1");
        assert_eq!(
            (list.uid_of_stem(b"1.R0.rehome"), list.uid_of_stem(b"a")),
            (Some(9), None)
        );
    }

    #[test]
    fn broken_lists() {
        assert_eq!(Uidlist::parse(b"").unwrap_err(), UidlistError::Header);
        assert_eq!(Uidlist::parse(b"3 V0 N1\n").unwrap_err(), UidlistError::Header);
        assert_eq!(Uidlist::parse(b"1 5 6\n").unwrap_err(), UidlistError::Header);
        assert_eq!(
            Uidlist::parse(b"3 V5 N9").unwrap_err(),
            UidlistError::Header,
            "cut in the first line"
        );
        assert_eq!(
            Uidlist::parse(b"3 V5 N9\n3 :a\n2 :b\n").unwrap_err(),
            UidlistError::Order(2)
        );
        assert_eq!(Uidlist::parse(b"3 V5 N9\n3 :a\n4 :cut").unwrap().len(), 1);
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
            prop_assert_eq!(list.len(), lines.len());
            let rendered = list.render();
            prop_assert_eq!(Uidlist::parse(&rendered).unwrap().render(), rendered.clone());
            for (uid, (_, name)) in &lines {
                prop_assert_eq!(list.base(*uid), Some(base_of(name)));
                let last = lines.iter().rfind(|(_, (_, other))| base_of(other) == base_of(name));
                prop_assert_eq!(list.uid_of(base_of(name)), last.map(|(uid, _)| *uid));
            }
            let body = |octets: &[u8]| octets[octets.iter().position(|octet| *octet == b'\n').unwrap()..].to_vec();
            prop_assert_eq!(body(&rendered), body(&octets));
        }

        #[test]
        fn nothing_panics(octets in prop::collection::vec(prop::sample::select(b"3 VNG019:\n\xff".to_vec()), 0..60)) {
            if let Ok(list) = Uidlist::parse(&octets) {
                prop_assert_eq!(Uidlist::parse(&list.render()).unwrap().render(), list.render());
            }
        }
    }
}

//! Dovecot's `dovecot-keywords`: which letter of a file name is which keyword.
//!
//! Lines `index name`; index 0 to 25 are the letters a to z. What is beyond that lives only in Dovecot's indexes.

use rehome_wire::flags::Flags;

/// The file's name.
pub(super) const FILE: &str = "dovecot-keywords";
/// How many keywords a folder's file names can show.
const MAX: usize = 26;
/// Longest keyword that Dovecot takes, in octets.
const MAX_LENGTH: usize = 50;

/// The keywords of a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Keywords {
    names: [Option<String>; MAX],
    /// Lines that are not understood, kept.
    foreign: Vec<Vec<u8>>,
    /// Letters that foreign lines take.
    foreign_letters: [bool; MAX],
}

/// Letters for the keywords of some flags.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Assigned {
    /// Letters, in no order.
    pub(super) letters: Vec<u8>,
    /// Keywords that cannot be kept, as spelt.
    pub(super) dropped: Vec<String>,
    /// Whether a letter was newly taken, so that the file must be written.
    pub(super) changed: bool,
}

impl Keywords {
    /// Reads the file; what is not understood is kept.
    pub(super) fn parse(octets: &[u8]) -> Self {
        let mut keywords = Self::default();
        for line in octets.split(|octet| *octet == b'\n').filter(|line| !line.is_empty()) {
            let text = std::str::from_utf8(line).ok();
            let known = text.and_then(|text| text.split_once(' ')).and_then(|(index, name)| {
                let index: usize = index.parse().ok().filter(|index| *index < MAX)?;
                (!name.is_empty() && keywords.names[index].is_none()).then_some((index, name))
            });
            match known {
                Some((index, name)) => keywords.names[index] = Some(name.to_owned()),
                None => keywords.keep_foreign(line),
            }
        }
        keywords
    }

    fn keep_foreign(&mut self, line: &[u8]) {
        let digits = line.iter().take_while(|octet| octet.is_ascii_digit()).count();
        let index = std::str::from_utf8(&line[..digits])
            .ok()
            .and_then(|text| text.parse::<usize>().ok());
        if let Some(taken) = index.and_then(|index| self.foreign_letters.get_mut(index)) {
            *taken = true;
        }
        self.foreign.push(line.to_vec());
    }

    /// Writes the file.
    pub(super) fn render(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (index, name) in self.names.iter().enumerate() {
            if let Some(name) = name {
                out.extend_from_slice(format!("{index} {name}\n").as_bytes());
            }
        }
        for line in &self.foreign {
            out.extend_from_slice(line);
            out.push(b'\n');
        }
        out
    }

    /// The keyword of a letter a to z.
    pub(super) fn name(&self, letter: u8) -> Option<&str> {
        let index = usize::from(letter.checked_sub(b'a')?);
        self.names.get(index)?.as_deref()
    }

    /// Letters for the keywords of `flags`, taking free ones for new names. A letter that a file name uses although no
    /// keyword has it (`in_use`) is not free: that file would get the keyword.
    pub(super) fn assign(&mut self, flags: &Flags, in_use: &dyn Fn(u8) -> bool) -> Assigned {
        let mut assigned = Assigned::default();
        for keyword in flags.keywords() {
            let known = self
                .names
                .iter()
                .position(|name| name.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(keyword)));
            let index = match known {
                Some(index) => Some(index),
                None if is_servable(keyword) => {
                    let free = self.free(in_use);
                    if let Some(index) = free {
                        self.names[index] = Some(keyword.clone());
                        assigned.changed = true;
                    }
                    free
                }
                None => None,
            };
            match index.and_then(letter_of) {
                Some(letter) => assigned.letters.push(letter),
                None => assigned.dropped.push(keyword.clone()),
            }
        }
        assigned
    }

    /// Whether every keyword of `flags` has a letter already.
    pub(super) fn know(&self, flags: &Flags) -> bool {
        let has = |keyword: &String| {
            self.names
                .iter()
                .flatten()
                .any(|name| name.eq_ignore_ascii_case(keyword))
        };
        flags.keywords().iter().all(has)
    }

    fn free(&self, in_use: &dyn Fn(u8) -> bool) -> Option<usize> {
        (0..MAX).find(|index| {
            self.names[*index].is_none()
                && !self.foreign_letters[*index]
                && letter_of(*index).is_some_and(|letter| !in_use(letter))
        })
    }
}

fn letter_of(index: usize) -> Option<u8> {
    b'a'.checked_add(u8::try_from(index).ok()?)
}

/// Whether Dovecot serves a keyword of this name: an ASCII atom of at most 50 octets.
fn is_servable(keyword: &str) -> bool {
    let refused = |octet: u8| !octet.is_ascii_graphic() || b"(){%*\"\\]".contains(&octet);
    keyword.len() <= MAX_LENGTH && !keyword.is_empty() && !keyword.bytes().any(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_keep_their_letter_and_spelling() {
        let mut keywords = Keywords::parse(b"0 $Forwarded\n2 Work\nodd line\n1 \xff\n30 far\n");
        let flags = Flags::from_names(["WORK", "$forwarded", "new", "nä", "[Gmail]"]);
        let assigned = keywords.assign(&flags, &|letter| letter == b'd');
        assert_eq!(assigned.letters, b"aec");
        assert_eq!(assigned.dropped, ["[Gmail]", "nä"]);
        assert!(assigned.changed);
        assert_eq!(
            keywords.render(),
            b"0 $Forwarded\n2 Work\n4 new\nodd line\n1 \xff\n30 far\n"
        );
        assert!(!keywords.assign(&flags, &|_| false).changed);
        assert_eq!(keywords.name(b'c'), Some("Work"));
        assert_eq!(keywords.name(b'1'), None);
    }

    #[test]
    fn twenty_six_and_no_more() {
        let mut keywords = Keywords::default();
        let names: Vec<String> = (0..30).map(|number| format!("key{number:02}")).collect();
        let assigned = keywords.assign(&Flags::from_names(&names), &|_| false);
        assert_eq!(assigned.letters.len(), 26);
        assert_eq!(assigned.dropped, names[26..]);
        assert_eq!(Keywords::parse(&keywords.render()), keywords);
    }
}

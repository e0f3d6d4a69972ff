//! Flags of an item: IMAP's system flags and keywords (RFC 3501 §2.3.2).

/// Most keywords that one item keeps.
pub const MAX_KEYWORDS: usize = 64;
/// Longest keyword, in octets.
pub const MAX_KEYWORD_LENGTH: usize = 255;

/// A system flag that travels. `\Recent` belongs to a session and is not one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum SystemFlag {
    /// `\Seen`: the message has been read.
    Seen = 1,
    /// `\Answered`: the message has been answered.
    Answered = 2,
    /// `\Flagged`: the message is marked for attention.
    Flagged = 4,
    /// `\Deleted`: the message is marked for removal.
    Deleted = 8,
    /// `\Draft`: the message is not finished.
    Draft = 16,
}

impl SystemFlag {
    /// All system flags, in the order of their bits.
    pub const ALL: [Self; 5] = [Self::Seen, Self::Answered, Self::Flagged, Self::Deleted, Self::Draft];

    /// The bit in [`Flags::system`]; these numbers are stored and never change.
    pub const fn bit(self) -> u8 {
        self as u8
    }

    /// IMAP's spelling, with the backslash.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Seen => "\\Seen",
            Self::Answered => "\\Answered",
            Self::Flagged => "\\Flagged",
            Self::Deleted => "\\Deleted",
            Self::Draft => "\\Draft",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|flag| flag.name().eq_ignore_ascii_case(name))
    }
}

/// The flags of one item.
///
/// Keywords keep their spelling, are unique without regard to ASCII case and stand in the order of their lower-case
/// form; equality disregards case too, as IMAP does.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    system: u8,
    keywords: Vec<String>,
}

impl Flags {
    /// Flags from their IMAP names. `\Recent`, unknown names with a backslash and what exceeds the limits are dropped;
    /// use [`from_names_reporting`](Self::from_names_reporting) where that must be said.
    pub fn from_names<I>(names: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        Self::from_names_reporting(names).0
    }

    /// Flags from their IMAP names, and the names that were dropped: unknown ones with a backslash, keywords that IMAP
    /// could not carry, that are longer than [`MAX_KEYWORD_LENGTH`] (cut in the report), or beyond [`MAX_KEYWORDS`].
    /// `\Recent` is dropped without a word. The report has at most [`MAX_KEYWORDS`] names.
    pub fn from_names_reporting<I>(names: I) -> (Self, Vec<String>)
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let mut flags = Self::default();
        let mut dropped = Vec::new();
        for name in names {
            let name = name.as_ref();
            if let Some(flag) = SystemFlag::from_name(name) {
                flags.insert(flag);
            } else if !name.eq_ignore_ascii_case("\\Recent")
                && !flags.insert_keyword(name)
                && dropped.len() < MAX_KEYWORDS
            {
                dropped.push(cut(name).to_owned());
            }
        }
        (flags, dropped)
    }

    /// Flags from their stored parts. Unknown bits and keywords beyond the limits are dropped.
    pub fn from_parts(system: u8, keywords: Vec<String>) -> Self {
        let mut flags = Self::default();
        for flag in SystemFlag::ALL {
            if system & flag.bit() != 0 {
                flags.insert(flag);
            }
        }
        for keyword in &keywords {
            flags.insert_keyword(keyword);
        }
        flags
    }

    /// IMAP names: system flags first, in the order of their bits, then keywords as spelt.
    pub fn names(&self) -> Vec<String> {
        self.system_names()
            .map(str::to_owned)
            .chain(self.keywords.iter().cloned())
            .collect()
    }

    /// The names in lower case (ASCII), sorted by octets: the form that leaves of the proof hold.
    pub fn canonical_names(&self) -> Vec<String> {
        let mut names = self.names();
        for name in &mut names {
            name.make_ascii_lowercase();
        }
        names.sort_unstable();
        names
    }

    /// The system flags as the sum of [`SystemFlag::bit`].
    pub fn system(&self) -> u8 {
        self.system
    }

    /// The keywords as spelt, ordered by their lower-case form.
    pub fn keywords(&self) -> &[String] {
        &self.keywords
    }

    /// True when no flag is set.
    pub fn is_empty(&self) -> bool {
        self.system == 0 && self.keywords.is_empty()
    }

    /// Sets a system flag.
    pub fn insert(&mut self, flag: SystemFlag) {
        self.system |= flag.bit();
    }

    /// Clears a system flag.
    pub fn remove(&mut self, flag: SystemFlag) {
        self.system &= !flag.bit();
    }

    /// Whether a system flag is set.
    pub fn contains(&self, flag: SystemFlag) -> bool {
        self.system & flag.bit() != 0
    }

    fn system_names(&self) -> impl Iterator<Item = &'static str> + '_ {
        SystemFlag::ALL
            .into_iter()
            .filter(|flag| self.contains(*flag))
            .map(SystemFlag::name)
    }

    /// False when the keyword cannot be kept. Of two spellings of one keyword the first stays.
    fn insert_keyword(&mut self, keyword: &str) -> bool {
        if !is_keyword(keyword) {
            return false;
        }
        let key = keyword.to_ascii_lowercase();
        match self
            .keywords
            .binary_search_by(|held| held.to_ascii_lowercase().cmp(&key))
        {
            Ok(_) => true,
            Err(_) if self.keywords.len() >= MAX_KEYWORDS => false,
            Err(at) => {
                self.keywords.insert(at, keyword.to_owned());
                true
            }
        }
    }
}

impl PartialEq for Flags {
    fn eq(&self, other: &Self) -> bool {
        self.system == other.system
            && self.keywords.len() == other.keywords.len()
            && self
                .keywords
                .iter()
                .zip(&other.keywords)
                .all(|(one, two)| one.eq_ignore_ascii_case(two))
    }
}

impl Eq for Flags {}

/// Whether IMAP could carry the name as a keyword: an atom, generous about `]` and 8-bit characters that servers let
/// through, strict about everything that would end the atom or the list around it.
fn is_keyword(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_KEYWORD_LENGTH
        && !name.chars().any(|character| {
            character.is_control() || matches!(character, ' ' | '(' | ')' | '{' | '%' | '*' | '"' | '\\')
        })
}

fn cut(name: &str) -> &str {
    &name[..name.floor_char_boundary(MAX_KEYWORD_LENGTH)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_in_and_out() {
        let flags = Flags::from_names(["$Work", "\\SEEN", "\\Recent", "apple", "\\Draft", "APPLE"]);
        assert_eq!(flags.names(), ["\\Seen", "\\Draft", "$Work", "apple"]);
        assert_eq!(flags.canonical_names(), ["$work", "\\draft", "\\seen", "apple"]);
        assert_eq!(flags.system(), 17);
        assert!(flags.contains(SystemFlag::Seen) && !flags.contains(SystemFlag::Deleted));
        assert_eq!(flags, Flags::from_names(["Apple", "$WORK", "\\draft", "\\seen"]));
        assert_ne!(flags, Flags::from_names(["Apple", "$WORK", "\\draft"]));
    }

    #[test]
    fn what_is_dropped_is_reported() {
        let long = "é".repeat(200);
        let (flags, dropped) = Flags::from_names_reporting(["\\Foo", "a b", "", "x\r\n", long.as_str(), "\\recent"]);
        assert!(flags.is_empty());
        assert_eq!(dropped, ["\\Foo", "a b", "", "x\r\n", "é".repeat(127).as_str()]);

        let many: Vec<String> = (0..200).map(|number| format!("k{number:03}")).collect();
        let (flags, dropped) = Flags::from_names_reporting(&many);
        assert_eq!(flags.keywords(), &many[..64]);
        assert_eq!(dropped, &many[64..128]);
    }

    #[test]
    fn system_flags_come_and_go() {
        let mut flags = Flags::default();
        for flag in SystemFlag::ALL {
            flags.insert(flag);
            assert!(flags.contains(flag));
        }
        assert_eq!(flags.system(), 31);
        flags.remove(SystemFlag::Flagged);
        assert_eq!(flags.system(), 27);
        assert_eq!(Flags::from_parts(0xff, vec![]).system(), 31, "unknown bits are dropped");
    }

    proptest! {
        #[test]
        fn parts_and_names_keep_everything(names in prop::collection::vec("[a-cA-C$]{1,3}|\\\\Seen|\\\\flagged", 0..20)) {
            let flags = Flags::from_names(&names);
            let again = Flags::from_names(flags.names());
            prop_assert_eq!(again.names(), flags.names());
            let parts = Flags::from_parts(flags.system(), flags.keywords().to_vec());
            prop_assert_eq!(parts.names(), flags.names());
            let mut reversed = names.clone();
            reversed.reverse();
            prop_assert_eq!(Flags::from_names(&reversed), flags);
        }
    }
}

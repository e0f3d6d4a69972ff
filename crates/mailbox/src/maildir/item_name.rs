//! Names of message files: the unique base and the flags after `:2,`.

use super::keywords::Keywords;
use super::uidlist::base_of;
use crate::ItemKey;
use rehome_wire::flags::{Flags, SystemFlag};

/// System flags and their letters, in the order in which letters stand. `P` (passed) has no IMAP flag and is kept.
const LETTERS: [(u8, SystemFlag); 5] = [
    (b'D', SystemFlag::Draft),
    (b'F', SystemFlag::Flagged),
    (b'R', SystemFlag::Answered),
    (b'S', SystemFlag::Seen),
    (b'T', SystemFlag::Deleted),
];

/// The letters after `:2,` and what follows them after a comma.
fn info_of(name: &[u8]) -> (&[u8], &[u8]) {
    let info = name[base_of(name).len()..].strip_prefix(b":2,").unwrap_or_default();
    let end = info.iter().position(|octet| *octet == b',').unwrap_or(info.len());
    info.split_at(end)
}

/// The keyword letters (a to z) of a name.
pub(super) fn keyword_letters(name: &[u8]) -> impl Iterator<Item = u8> + '_ {
    info_of(name).0.iter().copied().filter(u8::is_ascii_lowercase)
}

/// The flags that a name shows. Letters without a name in `dovecot-keywords` show nothing.
pub(super) fn flags_of(name: &[u8], keywords: &Keywords) -> Flags {
    let letters = info_of(name).0;
    let system = LETTERS
        .iter()
        .filter(|(letter, _)| letters.contains(letter))
        .fold(0, |bits, (_, flag)| bits | flag.bit());
    let named = keyword_letters(name)
        .filter_map(|letter| keywords.name(letter))
        .map(str::to_owned)
        .collect();
    Flags::from_parts(system, named)
}

/// The name of the same file with exactly these flags; letters that show no IMAP flag (`P`) and what follows a comma
/// stay. `keyword_letters` come from [`Keywords`].
pub(super) fn with_flags(name: &[u8], flags: &Flags, keyword_letters: &[u8]) -> Vec<u8> {
    let (old, rest) = info_of(name);
    let is_flag = |letter: &u8| LETTERS.iter().any(|(known, _)| known == letter);
    let mut letters: Vec<u8> = old
        .iter()
        .copied()
        .filter(|letter| letter.is_ascii_uppercase() && !is_flag(letter))
        .collect();
    letters.extend(
        LETTERS
            .iter()
            .filter(|(_, flag)| flags.contains(*flag))
            .map(|(letter, _)| *letter),
    );
    letters.extend_from_slice(keyword_letters);
    letters.sort_unstable();
    letters.dedup();
    [base_of(name), b":2,", &letters, rest].concat()
}

/// Whether a file is of the form `base:2,…` with any letter that flags would change.
pub(super) fn has_info(name: &[u8]) -> bool {
    name[base_of(name).len()..].starts_with(b":2,")
}

/// The beginning of a migrated item's base name. It depends on nothing but the item, so that writing one twice yields
/// one file.
pub(super) fn stem(key: &ItemKey, received: i64) -> Vec<u8> {
    let ItemKey {
        move_id,
        folder,
        source_validity,
        source_uid,
    } = key;
    format!("{received}.R{move_id:032x}F{folder}V{source_validity}U{source_uid}.rehome").into_bytes()
}

/// The stem of a base name, where it is one of ours: what stands before `,S=`.
pub(super) fn stem_of(base: &[u8]) -> Option<&[u8]> {
    let end = base.iter().position(|octet| *octet == b',').unwrap_or(base.len());
    base[..end].ends_with(b".rehome").then_some(&base[..end])
}

/// A base name: stem, octets in the file, octets with every line end as CR LF.
pub(super) fn base(stem: &[u8], size: u64, virtual_size: u64) -> Vec<u8> {
    [stem, format!(",S={size},W={virtual_size}").as_bytes()].concat()
}

/// The order in which files without uid get theirs: by the time at the beginning of the name, then by name.
pub(super) fn arrival(base: &[u8]) -> (u64, &[u8]) {
    let digits = base.iter().take_while(|octet| octet.is_ascii_digit()).count();
    let time = std::str::from_utf8(&base[..digits])
        .ok()
        .and_then(|text| text.parse().ok());
    (time.unwrap_or(0), base)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keywords() -> Keywords {
        Keywords::parse(b"0 $Forwarded\n1 work\n25 last\n")
    }

    #[test]
    fn flags_of_names() {
        let rows: &[(&[u8], &[&str])] = &[
            (b"a", &[]),
            (b"a:2,", &[]),
            (b"a:1,S", &[]),
            (
                b"a:2,DFRST",
                &["\\Draft", "\\Flagged", "\\Answered", "\\Seen", "\\Deleted"],
            ),
            (b"a:2,PSabz", &["\\Seen", "$Forwarded", "work", "last"]),
            (b"a:2,Sc,other", &["\\Seen"]),
        ];
        for (name, names) in rows {
            assert_eq!(
                flags_of(name, &keywords()),
                Flags::from_names(names.iter()),
                "{}",
                String::from_utf8_lossy(name)
            );
        }
    }

    #[test]
    fn setting_flags_keeps_what_is_not_ours() {
        let seen = Flags::from_names(["\\Seen"]);
        assert_eq!(with_flags(b"a,S=3", &seen, b""), b"a,S=3:2,S");
        assert_eq!(with_flags(b"a:2,FPTc,x", &seen, b"b"), b"a:2,PSb,x");
        assert_eq!(with_flags(b"a:2,S", &Flags::default(), b""), b"a:2,");
        assert_eq!(with_flags(b"a:1,x", &seen, b""), b"a:2,S");
    }

    #[test]
    fn a_migrated_item_has_one_name() {
        let key = ItemKey {
            move_id: 0xabc,
            folder: 3,
            source_validity: 9,
            source_uid: 77,
        };
        let made = base(&stem(&key, -5), 10, 12);
        assert_eq!(made, b"-5.R00000000000000000000000000000abcF3V9U77.rehome,S=10,W=12");
        assert_eq!(stem_of(&made), Some(&stem(&key, -5)[..]));
        assert_eq!(stem_of(b"1.M2.host,S=1"), None);
        assert!(made.len() < 200);
    }

    proptest! {
        #[test]
        fn flags_come_back(system in 0u8..32, letters in prop::collection::btree_set(prop::sample::select(vec![b'a', b'b', b'z']), 0..4)) {
            let keywords = keywords();
            let named = letters.iter().map(|letter| keywords.name(*letter).unwrap().to_owned()).collect();
            let flags = Flags::from_parts(system, named);
            let letters: Vec<u8> = letters.into_iter().collect();
            let name = with_flags(b"1.x,S=1:2,PFz", &flags, &letters);
            prop_assert_eq!(flags_of(&name, &keywords), flags.clone());
            prop_assert_eq!(with_flags(&name, &flags, &letters), name.clone());
            prop_assert_eq!(base_of(&name), b"1.x,S=1");
        }
    }
}

//! Entrances for the fuzz targets alone: a Maildir's files and names, which anyone may have written.

use super::{
    item_name::{flags_of, has_info, with_flags},
    keywords::Keywords,
    names::{directory_of, path_of},
    uidlist::{Uidlist, base_of},
};

/// Reads a `dovecot-uidlist`, writes it, and reads that.
///
/// # Panics
/// When the two differ, or uids do not ascend below UIDNEXT.
pub fn uidlist(octets: &[u8]) {
    let Ok(list) = Uidlist::parse(octets) else {
        return;
    };
    let written = list.render();
    let again = Uidlist::parse(&written).expect("what was written is read");
    assert_eq!(again.render(), written);
    assert!(list.entries().eq(again.entries()), "no line is lost");
    assert_eq!(list.uid_validity, again.uid_validity);
    let mut last = 0;
    for entry in list.entries() {
        assert!(entry.uid > last && (entry.uid < list.uid_next() || entry.uid == u32::MAX));
        assert_eq!(list.base(entry.uid), Some(entry.base));
        last = entry.uid;
    }
}

/// Reads a `dovecot-keywords`, writes it, and reads that.
///
/// # Panics
/// When the two differ.
pub fn keywords(octets: &[u8]) {
    let keywords = Keywords::parse(octets);
    assert_eq!(Keywords::parse(&keywords.render()), keywords);
}

/// Reads flags from a file's name, and writes them into it.
///
/// # Panics
/// When they are others then, or the file has another base name.
pub fn item_name(octets: &[u8]) {
    let keywords = Keywords::parse(b"0 $Forwarded\n1 work\n");
    let flags = flags_of(octets, &keywords);
    let letters: Vec<u8> = (b'a'..=b'b')
        .filter(|letter| {
            keywords
                .name(*letter)
                .is_some_and(|name| flags.keywords().iter().any(|held| held == name))
        })
        .collect();
    let named = with_flags(octets, &flags, &letters);
    assert!(has_info(&named));
    assert_eq!(flags_of(&named, &keywords), flags);
    assert_eq!(base_of(&named), base_of(octets));
}

/// The folder of a directory's name, and the directory of that folder.
///
/// # Panics
/// When a folder's directory lies elsewhere than directly below the root, or is another folder's.
pub fn directory(octets: &[u8]) {
    let Some(path) = path_of(octets, None) else {
        return;
    };
    let place = directory_of(&path).expect("a folder has names");
    assert!(!place.directory.contains(&b'/') && !place.directory.contains(&0) && place.directory.len() <= 255);
    assert!(place.directory != b".." && place.directory.starts_with(b"."));
    assert_eq!(path_of(&place.directory, place.full.as_deref()), Some(path));
}

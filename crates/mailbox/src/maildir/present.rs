//! Which files a folder has, by uid, in a few octets each: a file's name is its base name, which the uid list has, and
//! what follows it, of which few are different.

use super::folder::Sub;
use super::item_name::keyword_letters;
use crate::Uid;
use std::collections::HashMap;

/// The files of a folder.
#[derive(Clone, Debug, Default)]
pub(super) struct Present {
    /// Ascending by uid.
    files: Vec<Place>,
    infos: Infos,
}

/// One file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) uid: Uid,
    pub(super) sub: Sub,
    /// Which of [`Present::infos`] follows the base name.
    pub(super) info: u32,
}

/// What follows base names (`:2,S`), each once.
#[derive(Clone, Debug, Default)]
struct Infos {
    texts: Vec<Box<[u8]>>,
    numbers: HashMap<Box<[u8]>, u32>,
}

impl Infos {
    fn number(&mut self, info: &[u8]) -> u32 {
        if let Some(number) = self.numbers.get(info) {
            return *number;
        }
        // A folder has fewer files than there are numbers.
        let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        self.texts.push(info.into());
        self.numbers.insert(info.into(), number);
        number
    }
}

impl Present {
    /// The files in no order; none where two have one uid.
    pub(super) fn gather<'a>(files: impl Iterator<Item = (Uid, Sub, &'a [u8])>) -> Option<Self> {
        let mut present = Self::default();
        for (uid, sub, info) in files {
            let info = present.infos.number(info);
            present.files.push(Place { uid, sub, info });
        }
        present.files.sort_unstable_by_key(|place| place.uid);
        let doubled = present.files.windows(2).any(|pair| pair[0].uid == pair[1].uid);
        (!doubled).then_some(present)
    }

    /// How many files there are.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// The files, ascending by uid.
    pub(super) fn files(&self) -> &[Place] {
        &self.files
    }

    /// What follows base names, by number.
    pub(super) fn infos(&self) -> &[Box<[u8]>] {
        &self.infos.texts
    }

    /// Where the file of a uid is, and what follows its base name.
    pub(super) fn get(&self, uid: Uid) -> Option<(Sub, &[u8])> {
        let place = self.files[self.position(uid).ok()?];
        Some((place.sub, self.infos.texts.get(place.info as usize)?))
    }

    /// Notes where a file is now.
    pub(super) fn put(&mut self, uid: Uid, sub: Sub, info: &[u8]) {
        let info = self.infos.number(info);
        let place = Place { uid, sub, info };
        match self.position(uid) {
            Ok(at) => self.files[at] = place,
            Err(at) => self.files.insert(at, place),
        }
    }

    /// Notes that files are gone.
    pub(super) fn forget(&mut self, gone: impl Fn(Uid) -> bool) {
        self.files.retain(|place| !gone(place.uid));
    }

    /// Whether a file name uses a keyword's letter. True also for letters that were used until short ago.
    pub(super) fn uses_letter(&self, letter: u8) -> bool {
        let mut infos = self.infos.texts.iter();
        infos.any(|info| keyword_letters(info).any(|used| used == letter))
    }

    /// Memory that it takes, octets, about.
    pub(super) fn weight(&self) -> usize {
        self.files.capacity() * size_of::<Place>() + self.infos.texts.len() * 128
    }

    fn position(&self, uid: Uid) -> Result<usize, usize> {
        match self.files.last() {
            Some(last) if last.uid >= uid => self.files.binary_search_by_key(&uid, |place| place.uid),
            Some(_) | None => Err(self.files.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_by_uid() {
        let files: [(Uid, Sub, &[u8]); 3] = [(7, Sub::Cur, b":2,S"), (2, Sub::New, b""), (5, Sub::Cur, b":2,S")];
        let mut present = Present::gather(files.into_iter()).unwrap();
        assert_eq!(present.get(7), Some((Sub::Cur, &b":2,S"[..])));
        assert_eq!((present.get(2), present.get(3)), (Some((Sub::New, &b""[..])), None));
        present.put(3, Sub::Cur, b":2,Sa");
        present.put(9, Sub::Cur, b":2,");
        present.put(2, Sub::Cur, b":2,");
        present.forget(|uid| uid == 7);
        let uids: Vec<Uid> = present.files().iter().map(|place| place.uid).collect();
        assert_eq!((uids, present.infos().len()), (vec![2, 3, 5, 9], 4));
        assert_eq!(present.get(2), Some((Sub::Cur, &b":2,"[..])));
        assert!(present.uses_letter(b'a') && !present.uses_letter(b'b'));
        let twice: [(Uid, Sub, &[u8]); 2] = [(2, Sub::New, b""), (2, Sub::Cur, b":2,")];
        assert!(Present::gather(twice.into_iter()).is_none());
    }
}

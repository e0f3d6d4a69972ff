//! Reading a receipt: item by item, every order, count and root checked.

use super::{
    MAX_ITEM, RECEIPT_MAGIC, ReceiptError, ReceiptException, ReceiptLeaf, Totals, VERSION,
    items::{
        decode_closing, decode_end, decode_folder_end, decode_folder_head, decode_opening, write_closing, write_end,
        write_folder_end, write_folder_head, write_opening,
    },
};
use crate::{
    digest::{Digest, Digester},
    proof::{TopLeaf, TreeHasher, hash_of_leaf_octets, top_leaf_octets},
};
use minicbor::{Decoder, decode::Error as CborError};

/// What was read next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A section begins.
    Opening {
        /// 0 is the receipt itself; 1 and above are what was brought later, in order.
        number: u32,
        /// The signed statements about it.
        statements: Vec<String>,
    },
    /// A folder begins.
    Folder {
        /// The names of its path at the source.
        path: Vec<String>,
        /// Its UIDVALIDITY there.
        uid_validity: u32,
    },
    /// An item of the folder, with the hash of its leaf.
    Leaf(ReceiptLeaf, Digest),
    /// The folder's items were all there, and make this root.
    FolderEnd {
        /// How many there are.
        count: u64,
        /// The root over them.
        root: Digest,
    },
    /// An exception.
    Exception(ReceiptException),
    /// The section was whole.
    Section(Totals),
    /// The file was whole.
    End,
}

/// Where the reader stands.
#[derive(Clone, Debug)]
enum State {
    /// Before a section, or before the end.
    Between,
    /// Between two folders.
    Folders,
    /// In a folder: its path, its UIDVALIDITY, the uid read last, its leaves.
    Folder(Vec<String>, u32, Option<u32>, TreeHasher),
    /// Behind the first exception.
    Exceptions,
    Ended,
}

/// Reads folders, exceptions and closing of one section.
#[derive(Clone, Debug)]
struct SectionReader {
    state: State,
    head: Vec<u8>,
    exception: Vec<u8>,
    top: TreeHasher,
    exceptions: TreeHasher,
    items: u64,
    octets: u64,
}

/// Reads a receipt from octets that arrive in any pieces. Of what was read nothing is kept.
#[derive(Debug)]
pub struct ReceiptReader {
    octets: Vec<u8>,
    /// Octets of the buffer that were read.
    read: usize,
    /// Octets before the buffer.
    before: u64,
    digester: Digester,
    section: SectionReader,
    next_number: u32,
}

/// An item read from the front of octets, with its length.
type Read<T> = Result<Option<(T, usize)>, String>;

/// Reads one item and requires that it was written as `write` writes it. None when the octets end within it.
fn strict<T>(
    octets: &[u8],
    decode: impl FnOnce(&mut Decoder<'_>) -> Result<T, CborError>,
    write: impl FnOnce(&T, &mut Vec<u8>),
) -> Read<T> {
    let mut decoder = Decoder::new(octets);
    let item = match decode(&mut decoder) {
        Ok(item) => item,
        Err(error) if error.is_end_of_input() && octets.len() < MAX_ITEM => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let length = decoder.position();
    let mut written = Vec::with_capacity(length);
    write(&item, &mut written);
    if written == octets[..length] {
        Ok(Some((item, length)))
    } else {
        Err("an item is not written in its one form".to_owned())
    }
}

/// The length of the array at the front; none when there is no octet yet.
fn array_length(octets: &[u8]) -> Option<u8> {
    octets.first().map(|octet| octet.wrapping_sub(0x80))
}

impl Default for SectionReader {
    fn default() -> Self {
        Self {
            state: State::Between,
            head: Vec::new(),
            exception: Vec::new(),
            top: TreeHasher::new(),
            exceptions: TreeHasher::new(),
            items: 0,
            octets: 0,
        }
    }
}

impl SectionReader {
    /// A reader at the first folder of a section, behind its opening.
    fn begin() -> Self {
        Self {
            state: State::Folders,
            ..Self::default()
        }
    }

    /// The next part at the front of `octets`, with its length.
    fn next(&mut self, octets: &[u8]) -> Read<Part> {
        let Some(length) = array_length(octets) else {
            return Ok(None);
        };
        match (std::mem::replace(&mut self.state, State::Ended), length) {
            (State::Folders, 2) => self.folder(octets),
            (State::Folder(path, validity, last, tree), 5) => self.leaf(octets, (path, validity, last, tree)),
            (State::Folder(path, validity, last, tree), 2) => self.folder_end(octets, (path, validity, last, tree)),
            (state @ (State::Folders | State::Exceptions), 8) => self.exception(octets, state),
            (state @ (State::Folders | State::Exceptions), 6) => self.closing(octets, state),
            (State::Between | State::Folders | State::Folder(..) | State::Exceptions | State::Ended, _) => {
                Err("another item must stand here".to_owned())
            }
        }
    }

    fn folder(&mut self, octets: &[u8]) -> Read<Part> {
        let write = |head: &(Vec<String>, u32), out: &mut Vec<u8>| write_folder_head(&head.0, head.1, out);
        let Some(((path, uid_validity), length)) = strict(octets, decode_folder_head, write)? else {
            self.state = State::Folders;
            return Ok(None);
        };
        if self.top.count() > 0 && octets[..length] <= self.head[..] {
            return Err("folders are not in their order".to_owned());
        }
        self.head = octets[..length].to_vec();
        self.state = State::Folder(path.clone(), uid_validity, None, TreeHasher::new());
        Ok(Some((Part::Folder { path, uid_validity }, length)))
    }

    fn leaf(&mut self, octets: &[u8], folder: (Vec<String>, u32, Option<u32>, TreeHasher)) -> Read<Part> {
        let (path, validity, last, mut tree) = folder;
        let write = |leaf: &ReceiptLeaf, out: &mut Vec<u8>| out.extend_from_slice(&leaf.octets());
        let Some((leaf, length)) = strict(octets, ReceiptLeaf::decode, write)? else {
            self.state = State::Folder(path, validity, last, tree);
            return Ok(None);
        };
        if last.is_some_and(|last| last >= leaf.uid) {
            return Err("the uids of a folder do not ascend".to_owned());
        }
        let hash = hash_of_leaf_octets(&octets[..length]);
        tree.push(hash);
        self.items += 1;
        self.octets = self
            .octets
            .checked_add(leaf.length)
            .ok_or("the lengths are too large")?;
        self.state = State::Folder(path, validity, Some(leaf.uid), tree);
        Ok(Some((Part::Leaf(leaf, hash), length)))
    }

    fn folder_end(&mut self, octets: &[u8], folder: (Vec<String>, u32, Option<u32>, TreeHasher)) -> Read<Part> {
        let (path, validity, last, tree) = folder;
        let write = |end: &(u64, Digest), out: &mut Vec<u8>| write_folder_end(end.0, end.1, out);
        let Some(((count, root), length)) = strict(octets, decode_folder_end, write)? else {
            self.state = State::Folder(path, validity, last, tree);
            return Ok(None);
        };
        if (count, root) != (tree.count(), tree.root()) {
            return Err(format!(
                "the root or count of folder {} is not what its items make",
                path.join("/")
            ));
        }
        let top = TopLeaf {
            path: &path,
            uid_validity: validity,
            count,
            root,
        };
        self.top.push(hash_of_leaf_octets(&top_leaf_octets(&top)));
        self.state = State::Folders;
        Ok(Some((Part::FolderEnd { count, root }, length)))
    }

    fn exception(&mut self, octets: &[u8], state: State) -> Read<Part> {
        let write = |exception: &ReceiptException, out: &mut Vec<u8>| out.extend_from_slice(&exception.octets());
        let Some((exception, length)) = strict(octets, ReceiptException::decode, write)? else {
            self.state = state;
            return Ok(None);
        };
        if self.exceptions.count() > 0 && octets[..length] <= self.exception[..] {
            return Err("exceptions are not in their order".to_owned());
        }
        self.exception = octets[..length].to_vec();
        self.exceptions.push(hash_of_leaf_octets(&self.exception));
        self.state = State::Exceptions;
        Ok(Some((Part::Exception(exception), length)))
    }

    fn closing(&mut self, octets: &[u8], state: State) -> Read<Part> {
        let Some((totals, length)) = strict(octets, decode_closing, write_closing)? else {
            self.state = state;
            return Ok(None);
        };
        if totals != self.totals() {
            return Err("the roots or counts of the section are not what its folders make".to_owned());
        }
        self.state = State::Between;
        Ok(Some((Part::Section(totals), length)))
    }

    /// What was read so far makes this.
    fn totals(&self) -> Totals {
        Totals {
            root: self.top.root(),
            exceptions_root: self.exceptions.root(),
            folders: self.top.count(),
            items: self.items,
            octets: self.octets,
            exceptions: self.exceptions.count(),
        }
    }
}

impl Default for ReceiptReader {
    fn default() -> Self {
        Self {
            octets: Vec::new(),
            read: 0,
            before: 0,
            digester: Digester::new(),
            section: SectionReader::default(),
            next_number: 0,
        }
    }
}

impl ReceiptReader {
    /// A reader at the first octet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next octets of the file and gives every part that they complete.
    ///
    /// # Errors
    /// [`ReceiptError`]; nothing more may be read then.
    pub fn push(&mut self, octets: &[u8], mut part: impl FnMut(Part)) -> Result<(), ReceiptError> {
        self.octets.drain(..self.read);
        self.before += self.read as u64;
        self.read = 0;
        self.octets.extend_from_slice(octets);
        loop {
            let found = self.next().map_err(|why| ReceiptError::Malformed {
                at: self.before + self.read as u64,
                why,
            })?;
            let Some((found, length)) = found else { return Ok(()) };
            self.digester.update(&self.octets[self.read..self.read + length]);
            self.read += length;
            part(found);
        }
    }

    fn next(&mut self) -> Read<Part> {
        let octets = &self.octets[self.read..];
        match (&self.section.state, array_length(octets)) {
            (State::Between, Some(1)) if self.next_number > 0 => {
                let write = |digest: &Digest, out: &mut Vec<u8>| write_end(*digest, out);
                let Some((digest, length)) = strict(octets, decode_end, write)? else {
                    return Ok(None);
                };
                if digest != self.digester.clone().finish() {
                    return Err("the digest at the end is not that of what is before it".to_owned());
                }
                self.section.state = State::Ended;
                Ok(Some((Part::End, length)))
            }
            (State::Between, Some(4)) => {
                let write = |opening: &(u32, Vec<String>), out: &mut Vec<u8>| {
                    let statements: Vec<&str> = opening.1.iter().map(String::as_str).collect();
                    write_opening(opening.0, &statements, out);
                };
                let decode = |decoder: &mut Decoder<'_>| decode_opening(decoder, RECEIPT_MAGIC);
                let Some(((number, statements), length)) = strict(octets, decode, write)? else {
                    return Ok(None);
                };
                if number != self.next_number {
                    return Err(format!("section {number} stands where {} must", self.next_number));
                }
                self.next_number += 1;
                self.section = SectionReader::begin();
                Ok(Some((Part::Opening { number, statements }, length)))
            }
            (State::Between, Some(_)) => Err(format!(
                "this is no receipt of version {VERSION}, or something stands between its sections"
            )),
            (State::Ended, Some(_)) => Err("something stands behind the end".to_owned()),
            (_, None) => Ok(None),
            (State::Folders | State::Folder(..) | State::Exceptions, Some(_)) => self.section.next(octets),
        }
    }

    /// Ends reading.
    ///
    /// # Errors
    /// [`ReceiptError::Truncated`] when the end was not read.
    pub fn finish(self) -> Result<(), ReceiptError> {
        if matches!(self.section.state, State::Ended) && self.read == self.octets.len() {
            Ok(())
        } else {
            Err(ReceiptError::Truncated {
                at: self.before + self.octets.len() as u64,
            })
        }
    }
}

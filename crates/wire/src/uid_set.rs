//! Sets of uids as ascending, disjoint ranges.

use minicbor::data::Type;
use minicbor::decode::Error as CborError;
use minicbor::{Decoder, Encoder};

/// Most ranges that a set from outside may have.
pub const MAX_RANGES: usize = 100_000;

/// A set of uids, held as ascending ranges that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct UidSet(Vec<(u32, u32)>);

/// Why octets are not a set of uids.
#[derive(Debug, thiserror::Error)]
pub enum UidSetError {
    /// The octets are not CBOR of the right shape.
    #[error("the set of uids is not an array of pairs")]
    Cbor(#[source] CborError),
    /// The set has more ranges than the reader takes.
    #[error("the set of uids has {found} ranges, at most {limit} are allowed")]
    TooManyRanges {
        /// Ranges announced.
        found: u64,
        /// The limit that applied.
        limit: usize,
    },
    /// A range is empty, holds uid 0, or does not come after the one before it.
    #[error("the range {from}:{to} is empty, holds 0 or is out of order")]
    Range {
        /// First uid of the range.
        from: u32,
        /// Last uid of the range.
        to: u32,
    },
    /// Octets follow the set.
    #[error("{0} octets follow the set of uids")]
    Trailing(usize),
}

impl UidSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// A set from uids in ascending order, in linear time. Uids out of order are put in their place, at a cost.
    pub fn from_ascending(uids: impl IntoIterator<Item = u32>) -> Self {
        let mut set = Self::new();
        for uid in uids {
            set.insert(uid);
        }
        set
    }

    /// A set from ranges (first and last uid each, neither 0) in any order, which may overlap; those that are the wrong
    /// way round or hold uid 0 are left out.
    pub fn from_ranges(mut ranges: Vec<(u32, u32)>) -> Self {
        ranges.retain(|&(from, to)| 0 < from && from <= to);
        if !ranges.is_sorted() {
            ranges.sort_unstable();
        }
        ranges.dedup_by(|next, held| {
            let joins = next.0 <= held.1.saturating_add(1);
            if joins {
                held.1 = held.1.max(next.1);
            }
            joins
        });
        Self(ranges)
    }

    /// The uids in ascending order. A set from outside may hold four thousand million: bound [`len`](Self::len) first.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().flat_map(|&(from, to)| from..=to)
    }

    /// The ranges, first and last uid each, ascending, never touching.
    pub fn ranges(&self) -> &[(u32, u32)] {
        &self.0
    }

    /// How many uids the set holds.
    pub fn len(&self) -> usize {
        self.0.iter().map(|&(from, to)| (to - from) as usize + 1).sum()
    }

    /// True when the set holds no uid.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the set holds `uid`.
    pub fn contains(&self, uid: u32) -> bool {
        let after = self.0.partition_point(|&(from, _)| from <= uid);
        after > 0 && uid <= self.0[after - 1].1
    }

    /// Adds a uid; false when it was there already.
    pub fn insert(&mut self, uid: u32) -> bool {
        let after = self.0.partition_point(|&(from, _)| from <= uid);
        if after > 0 && uid <= self.0[after - 1].1 {
            return false;
        }
        let joins_before = after > 0 && self.0[after - 1].1 + 1 == uid;
        let joins_after = self
            .0
            .get(after)
            .is_some_and(|&(from, _)| uid.checked_add(1) == Some(from));
        match (joins_before, joins_after) {
            (true, true) => {
                self.0[after - 1].1 = self.0[after].1;
                self.0.remove(after);
            }
            (true, false) => self.0[after - 1].1 = uid,
            (false, true) => self.0[after].0 = uid,
            (false, false) => self.0.insert(after, (uid, uid)),
        }
        true
    }

    /// The set as CBOR: an array of `[from, to]` pairs.
    pub fn to_cbor(&self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(8 + self.0.len() * 11);
        encode_ranges(&self.0, &mut octets);
        octets
    }

    /// Reads what [`to_cbor`](Self::to_cbor) writes, with at most [`MAX_RANGES`] ranges and nothing behind them.
    pub fn from_cbor(octets: &[u8]) -> Result<Self, UidSetError> {
        let mut decoder = Decoder::new(octets);
        let set = Self::decode(&mut decoder, MAX_RANGES)?;
        match octets.len() - decoder.position() {
            0 => Ok(set),
            left => Err(UidSetError::Trailing(left)),
        }
    }

    /// Reads a set at the decoder's place, with at most `limit` ranges.
    pub(crate) fn decode(decoder: &mut Decoder<'_>, limit: usize) -> Result<Self, UidSetError> {
        let count = definite_array(decoder).map_err(UidSetError::Cbor)?;
        if count > limit as u64 {
            return Err(UidSetError::TooManyRanges { found: count, limit });
        }
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for _ in 0..count {
            let (from, to) = decode_pair(decoder).map_err(UidSetError::Cbor)?;
            let last = ranges.last_mut();
            let floor = last.as_ref().map_or(0, |&&mut (_, end)| end);
            if from <= floor || to < from {
                return Err(UidSetError::Range { from, to });
            }
            match last {
                Some((_, end)) if *end + 1 == from => *end = to,
                Some(_) | None => ranges.push((from, to)),
            }
        }
        Ok(Self(ranges))
    }
}

impl FromIterator<u32> for UidSet {
    fn from_iter<I: IntoIterator<Item = u32>>(uids: I) -> Self {
        Self::from_ascending(uids)
    }
}

/// Writes ranges as an array of pairs.
pub(crate) fn encode_ranges(ranges: &[(u32, u32)], octets: &mut Vec<u8>) {
    let mut encoder = Encoder::new(octets);
    infallible(encoder.array(ranges.len() as u64));
    for &(from, to) in ranges {
        infallible(encoder.array(2).and_then(|encoder| encoder.u32(from)?.u32(to)));
    }
}

/// Unwraps the result of writing into memory, which has no way to fail.
pub(crate) fn infallible<T>(result: Result<T, minicbor::encode::Error<std::convert::Infallible>>) -> T {
    result.expect("writing CBOR into memory cannot fail")
}

/// The length of an array that says it.
pub(crate) fn definite_array(decoder: &mut Decoder<'_>) -> Result<u64, CborError> {
    decoder
        .array()?
        .ok_or_else(|| CborError::type_mismatch(Type::ArrayIndef))
}

fn decode_pair(decoder: &mut Decoder<'_>) -> Result<(u32, u32), CborError> {
    match definite_array(decoder)? {
        2 => Ok((decoder.u32()?, decoder.u32()?)),
        _ => Err(CborError::message("a range is a pair")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn known_octets() {
        let set = UidSet::from_ascending([1, 2, 3, 7, 500]);
        assert_eq!(set.ranges(), [(1, 3), (7, 7), (500, 500)]);
        assert_eq!(set.len(), 5);
        let octets = [0x83, 0x82, 1, 3, 0x82, 7, 7, 0x82, 0x19, 1, 0xf4, 0x19, 1, 0xf4];
        assert_eq!(set.to_cbor(), octets);
        assert_eq!(UidSet::from_cbor(&octets).unwrap(), set);
    }

    #[test]
    fn touching_ranges_are_joined_and_the_highest_uid_fits() {
        let octets = [0x82, 0x82, 1, 2, 0x82, 3, 4];
        assert_eq!(UidSet::from_cbor(&octets).unwrap().ranges(), [(1, 4)]);
        let mut set = UidSet::from_ascending([u32::MAX]);
        assert!(set.insert(u32::MAX - 1) && !set.insert(u32::MAX));
        assert_eq!(set.ranges(), [(u32::MAX - 1, u32::MAX)]);
        assert!(UidSet::from_cbor(&set.to_cbor()).is_ok());
    }

    #[test]
    fn bad_octets_are_refused() {
        let rows: &[&[u8]] = &[
            b"",
            b"\xa0",
            b"\x9f\xff",
            b"\x81\x82\x00\x01",
            b"\x81\x82\x02\x01",
            b"\x82\x82\x05\x06\x82\x06\x07",
            b"\x81\x83\x01\x02\x03",
            b"\x81\x82\x01",
            b"\x80\x00",
            b"\x9a\x00\x01\x86\xa1",
            b"\x81\x82\x01\x1b\x00\x00\x00\x01\x00\x00\x00\x00",
        ];
        for octets in rows {
            assert!(UidSet::from_cbor(octets).is_err(), "{octets:x?}");
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_tree_set(uids in prop::collection::vec(1u32..60, 0..80)) {
            let expected: BTreeSet<u32> = uids.iter().copied().collect();
            let set: UidSet = uids.iter().copied().collect();
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), expected.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.len(), expected.len());
            for uid in 0..62 {
                prop_assert_eq!(set.contains(uid), expected.contains(&uid));
            }
            for pair in set.ranges().windows(2) {
                prop_assert!(pair[0].1 + 1 < pair[1].0);
            }
            prop_assert_eq!(UidSet::from_cbor(&set.to_cbor()).unwrap(), set);
        }

        #[test]
        fn ranges_in_any_order_make_the_set(ranges in prop::collection::vec((0u32..60, 0u32..60), 0..20)) {
            let expected: UidSet = ranges
                .iter()
                .filter(|(from, _)| *from > 0)
                .flat_map(|&(from, to)| from..=to)
                .collect();
            prop_assert_eq!(UidSet::from_ranges(ranges), expected);
        }

        #[test]
        fn never_panics_on_foreign_octets(octets in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = UidSet::from_cbor(&octets);
        }
    }
}

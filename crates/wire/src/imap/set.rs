//! Sets of uids as IMAP writes them.

use super::MAX_SET_RANGES;
use crate::uid_set::UidSet;

/// Uids in the order in which a server named them, as ranges: the answer to several messages at once, where the
/// place says which uid is whose (RFC 9051 §7.1, APPENDUID and COPYUID).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrderedUids(Vec<(u32, u32)>);

impl OrderedUids {
    /// How many uids there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|&(from, to)| (to - from) as usize + 1).sum()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The uids in their order. The server says how many: compare [`len`](Self::len) with what was asked first.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().flat_map(|&(from, to)| from..=to)
    }
}

/// Reads `1:3,7,10:8`; a range counts upwards whichever end comes first (RFC 9051 §9 seq-range). None where it is no
/// set, has `*` or 0, or more than [`MAX_SET_RANGES`] ranges.
pub(super) fn parse_ordered(octets: &[u8]) -> Option<OrderedUids> {
    parse_ranges(octets).map(OrderedUids)
}

/// Reads a set whose order does not matter.
pub(super) fn parse_set(octets: &[u8]) -> Option<UidSet> {
    parse_ranges(octets).map(UidSet::from_ranges)
}

fn parse_ranges(octets: &[u8]) -> Option<Vec<(u32, u32)>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    loop {
        let first = parse_uid(octets, &mut at)?;
        let second = match octets.get(at) {
            Some(b':') => {
                at += 1;
                parse_uid(octets, &mut at)?
            }
            _ => first,
        };
        if ranges.len() == MAX_SET_RANGES {
            return None;
        }
        ranges.push((first.min(second), first.max(second)));
        match octets.get(at) {
            None => return Some(ranges),
            Some(b',') => at += 1,
            Some(_) => return None,
        }
    }
}

fn parse_uid(octets: &[u8], at: &mut usize) -> Option<u32> {
    let mut uid: u32 = 0;
    while let Some(digit @ b'0'..=b'9') = octets.get(*at) {
        uid = uid.checked_mul(10)?.checked_add(u32::from(digit - b'0'))?;
        *at += 1;
    }
    (uid > 0).then_some(uid)
}

/// Appends the set as IMAP writes it; nothing for the empty set.
pub(super) fn write_set(set: &UidSet, out: &mut Vec<u8>) {
    for (place, range) in set.ranges().iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write_range(*range, out);
    }
}

fn write_range((from, to): (u32, u32), out: &mut Vec<u8>) {
    write_number(u64::from(from), out);
    if from != to {
        out.push(b':');
        write_number(u64::from(to), out);
    }
}

pub(super) fn write_number(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(number.to_string().as_bytes());
}

/// Splits a set into ascending pieces that hold at most `uids` uids and, written in a command, take at most `octets`
/// octets; a piece always holds at least one uid.
pub fn chunks(set: &UidSet, octets: usize, uids: usize) -> impl Iterator<Item = UidSet> + '_ {
    let mut ranges = set.ranges().iter().copied();
    let mut carried: Option<(u32, u32)> = None;
    let uids = uids.max(1);
    std::iter::from_fn(move || {
        let mut piece = Vec::new();
        let (mut room, mut length) = (uids, 0);
        let mut written = Vec::new();
        while let Some((from, to)) = carried.take().or_else(|| ranges.next()) {
            let last = to.min(from.saturating_add(u32::try_from(room - 1).unwrap_or(u32::MAX)));
            written.clear();
            write_range((from, last), &mut written);
            if !piece.is_empty() && length + 1 + written.len() > octets {
                carried = Some((from, to));
                break;
            }
            length += written.len() + usize::from(!piece.is_empty());
            piece.push((from, last));
            room -= (last - from) as usize + 1;
            if last < to {
                carried = Some((last + 1, to));
            }
            if room == 0 {
                break;
            }
        }
        (!piece.is_empty()).then(|| UidSet::from_ranges(piece))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sets_in_and_out() {
        let set = parse_set(b"7,1:3,10:9,2,4294967295").unwrap();
        assert_eq!(set.ranges(), [(1, 3), (7, 7), (9, 10), (u32::MAX, u32::MAX)]);
        let mut out = Vec::new();
        write_set(&set, &mut out);
        assert_eq!(out, b"1:3,7,9:10,4294967295");
        let ordered = parse_ordered(b"7,1:3,10:9").unwrap();
        assert_eq!(ordered.iter().collect::<Vec<_>>(), [7, 1, 2, 3, 9, 10]);
        assert_eq!(ordered.len(), 6);
        for wrong in [
            "",
            ",",
            "1,",
            "1:",
            ":1",
            "0",
            "1:0",
            "*",
            "1:*",
            "4294967296",
            "1 2",
            "-1",
            "x",
        ] {
            assert_eq!(parse_set(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn too_many_ranges_are_refused() {
        let text = vec!["1"; MAX_SET_RANGES].join(",");
        assert!(parse_set(text.as_bytes()).is_some());
        assert!(parse_set((text + ",1").as_bytes()).is_none());
    }

    #[test]
    fn the_whole_space_is_split_without_being_counted_out() {
        let all = parse_set(b"1:4294967295").unwrap();
        let pieces: Vec<_> = chunks(&all, 8000, 1 << 31)
            .map(|piece| piece.ranges().to_vec())
            .collect();
        assert_eq!(pieces, [[(1, 1 << 31)], [((1 << 31) + 1, u32::MAX)]]);
    }

    proptest! {
        #[test]
        fn pieces_keep_their_bounds_and_miss_nothing(
            uids in prop::collection::vec(1u32..2000, 0..200), octets in 0usize..40, most in 0usize..30,
        ) {
            let set: UidSet = uids.into_iter().collect();
            let mut all = Vec::new();
            for piece in chunks(&set, octets, most) {
                prop_assert!(!piece.is_empty() && piece.len() <= most.max(1));
                let mut written = Vec::new();
                write_set(&piece, &mut written);
                prop_assert!(written.len() <= octets || piece.ranges().len() == 1);
                prop_assert_eq!(&parse_set(&written).unwrap(), &piece);
                all.extend(piece.iter());
            }
            prop_assert_eq!(all, set.iter().collect::<Vec<_>>());
        }
    }
}

//! The canonical form of a message: the octets that travel, are digested and are appended.
//!
//! The rule has one sentence. Each maximal run of CR directly before an LF, and the lack of one, becomes exactly one
//! CR; a run of CR at the very end is dropped; every other octet, lone CR and NUL included, stays; no LF is added at
//! the end.

use bytes::{Buf, Bytes, BytesMut};

const CR: u8 = b'\r';
const LF: u8 = b'\n';

/// How many octets one call of [`Canonicalizer::push_some`] gives out at most, in octets (a CR LF that crosses the
/// border is still given whole, so one more is possible).
pub const OUTPUT_STEP: usize = 64 * 1024;

/// A shorter canonical beginning is not worth a piece of its own.
const SHARED_RUN: usize = 16 * 1024;

/// What is known about a message once all of it has passed through a [`Canonicalizer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CanonicalReport {
    /// Length of the canonical form, in octets.
    pub length: u64,
    /// True when the octets that came in differ from the canonical form ("line ends only").
    pub altered: bool,
}

/// Turns a stream of octets into its canonical form, whatever the pieces in which it arrives.
///
/// Memory is constant: a run of CR is held as a number, since what becomes of it is known only at the octet after it.
#[derive(Debug, Default)]
pub struct Canonicalizer {
    /// CRs read last whose fate is open.
    pending: u64,
    /// CRs known to stay that were not given out yet because a step was full.
    owed: u64,
    length: u64,
    altered: bool,
}

impl Canonicalizer {
    /// A canonicalizer at the beginning of a message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes all of `octets` and appends what is settled to `out`.
    ///
    /// `out` grows by at most twice the length of `octets`, and, when the first octets settle that a run of CR held
    /// from earlier calls stays, by that run. Whoever reads items that an adversary may have made, and has not
    /// bounded their length, uses [`push_some`](Self::push_some) instead.
    pub fn push(&mut self, octets: &[u8], out: &mut BytesMut) {
        let mut rest = octets;
        while !rest.is_empty() {
            let taken = self.push_some(rest, out);
            rest = &rest[taken..];
        }
    }

    /// Takes a part of `octets`, appends at most about [`OUTPUT_STEP`] octets to `out` and returns how many octets
    /// were taken. The caller empties `out` and calls again with the rest.
    ///
    /// Zero is returned only for empty input or when a whole step went into a held run of CR; calling again goes on.
    pub fn push_some(&mut self, octets: &[u8], out: &mut BytesMut) -> usize {
        let before = out.len();
        let end = before + OUTPUT_STEP;
        let mut at = 0;
        self.pay(end, out);
        while at < octets.len() && out.len() < end && self.owed == 0 {
            let rest = &octets[at..];
            match rest[0] {
                CR => {
                    let run = rest.iter().take_while(|octet| **octet == CR).count();
                    self.pending += run as u64;
                    at += run;
                }
                LF => {
                    self.altered |= self.pending != 1;
                    self.pending = 0;
                    out.extend_from_slice(b"\r\n");
                    at += 1;
                }
                _ if self.pending > 0 => {
                    self.owed = std::mem::take(&mut self.pending);
                    self.pay(end, out);
                }
                _ => {
                    let room = rest.len().min(end - out.len());
                    let run = memchr::memchr2(CR, LF, &rest[..room]).unwrap_or(room);
                    out.extend_from_slice(&rest[..run]);
                    at += run;
                }
            }
        }
        self.length += (out.len() - before) as u64;
        at
    }

    /// Takes octets off the front of `octets` and returns their canonical form: the same memory where it is canonical
    /// already, which is found at the memory's speed. At most about [`OUTPUT_STEP`] octets, or all of `octets`.
    ///
    /// The caller calls again until `octets` is empty. Nothing is returned for octets whose fate is still open.
    pub fn take(&mut self, octets: &mut Bytes) -> Bytes {
        if self.owed == 0 && self.pending == 1 && octets.first() == Some(&LF) {
            octets.advance(1);
            self.pending = 0;
            self.length += 2;
            return Bytes::from_static(b"\r\n");
        }
        if self.owed == 0 && self.pending == 0 {
            let good = canonical_prefix(octets);
            let run = trailing_run(&octets[..good]);
            let all = good == octets.len();
            if all || good >= SHARED_RUN {
                let shared = octets.split_to(good - run);
                if all {
                    self.pending = run as u64;
                    octets.clear();
                }
                self.length += shared.len() as u64;
                return shared;
            }
        }
        let mut out = BytesMut::with_capacity(octets.len().min(OUTPUT_STEP) + octets.len() / 32 + 2);
        let taken = self.push_some(octets, &mut out);
        octets.advance(taken);
        out.freeze()
    }

    /// Ends the message: a run of CR at the very end is dropped.
    pub fn finish(mut self, out: &mut BytesMut) -> CanonicalReport {
        let before = out.len();
        // Non-empty only for a caller that stopped in the middle of a step.
        self.pay(usize::MAX, out);
        CanonicalReport {
            length: self.length + (out.len() - before) as u64,
            altered: self.altered || self.pending > 0,
        }
    }

    /// Gives out CRs that are known to stay, up to the length `end` of `out`.
    fn pay(&mut self, end: usize, out: &mut BytesMut) {
        let room = end.saturating_sub(out.len());
        let count = usize::try_from(self.owed).unwrap_or(usize::MAX).min(room);
        out.resize(out.len() + count, CR);
        self.owed -= count as u64;
    }
}

/// How many of the first octets are canonical as they are: up to the line end that is not, its CRs not counted. A run of
/// CR at the end counts.
fn canonical_prefix(octets: &[u8]) -> usize {
    for end in memchr::memchr_iter(LF, octets) {
        let good = end > 0 && octets[end - 1] == CR && (end < 2 || octets[end - 2] != CR);
        if !good {
            return end - trailing_run(&octets[..end]);
        }
    }
    octets.len()
}

/// How many CRs are at the end.
fn trailing_run(octets: &[u8]) -> usize {
    octets.iter().rev().take_while(|octet| **octet == CR).count()
}

/// The canonical form of a whole message.
pub fn canonical(octets: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::with_capacity(octets.len() + octets.len() / 32);
    let mut canonicalizer = Canonicalizer::new();
    canonicalizer.push(octets, &mut out);
    canonicalizer.finish(&mut out);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Written from the sentence at the top of this file, without any thought of streams.
    fn naive(octets: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut at = 0;
        while at < octets.len() {
            let run = octets[at..].iter().take_while(|o| **o == CR).count();
            match octets.get(at + run) {
                None => break,
                Some(&LF) => {
                    out.extend_from_slice(b"\r\n");
                    at += run + 1;
                }
                Some(&other) => {
                    out.extend(std::iter::repeat_n(CR, run));
                    out.push(other);
                    at += run + 1;
                }
            }
        }
        out
    }

    #[test]
    fn table() {
        let rows: &[(&[u8], &[u8])] = &[
            (b"", b""),
            (b"a", b"a"),
            (b"a\n", b"a\r\n"),
            (b"a\r\n", b"a\r\n"),
            (b"a\r\r\r\nb", b"a\r\nb"),
            (b"\n\n", b"\r\n\r\n"),
            (b"a\rb", b"a\rb"),
            (b"a\r\rb\r", b"a\r\rb"),
            (b"\r\r", b""),
            (b"\0\r\0\n", b"\0\r\0\r\n"),
            (b"\xff\xfe\n", b"\xff\xfe\r\n"),
        ];
        for (raw, expected) in rows {
            assert_eq!(canonical(raw), *expected, "{raw:?}");
        }
    }

    #[test]
    fn a_long_run_of_cr_is_given_out_in_steps() {
        let block = vec![CR; 1 << 20];
        let mut canonicalizer = Canonicalizer::new();
        let mut out = BytesMut::new();
        for _ in 0..32 {
            canonicalizer.push(&block, &mut out);
        }
        assert!(out.is_empty(), "a run is held as a number");
        let mut given: u64 = 0;
        let mut rest: &[u8] = b"x";
        while !rest.is_empty() {
            let taken = canonicalizer.push_some(rest, &mut out);
            rest = &rest[taken..];
            assert!(out.len() <= OUTPUT_STEP + 1);
            given += out.len() as u64;
            out.clear();
        }
        let report = canonicalizer.finish(&mut out);
        assert!(out.is_empty());
        assert_eq!(given, (1 << 25) + 1);
        assert_eq!(
            report,
            CanonicalReport {
                length: given,
                altered: false
            }
        );
    }

    fn octets() -> impl Strategy<Value = Vec<u8>> {
        let octet = prop_oneof![3 => Just(CR), 3 => Just(LF), 2 => Just(b'.'), 1 => Just(0u8), 2 => any::<u8>()];
        prop::collection::vec(octet, 0..200)
    }

    /// Takes octets in pieces of these lengths.
    fn taken(raw: &[u8], cuts: impl IntoIterator<Item = usize>) -> (Vec<u8>, CanonicalReport) {
        let (mut canonicalizer, mut out) = (Canonicalizer::new(), BytesMut::new());
        let mut rest = Bytes::copy_from_slice(raw);
        for cut in cuts {
            let mut piece = rest.split_to(cut.min(rest.len()));
            while !piece.is_empty() {
                out.extend_from_slice(&canonicalizer.take(&mut piece));
            }
        }
        let report = canonicalizer.finish(&mut out);
        (out.to_vec(), report)
    }

    #[test]
    fn what_is_canonical_is_not_copied() {
        let line = b"a line of a message, with its end\r\n".repeat(1_000);
        let mut octets = Bytes::from(line.clone());
        let place = octets.as_ptr();
        let mut canonicalizer = Canonicalizer::new();
        let shared = canonicalizer.take(&mut octets);
        assert!(octets.is_empty());
        assert_eq!((shared.as_ptr(), shared.len()), (place, line.len()));
        // A long canonical beginning is shared, and what follows the odd line end is made anew.
        let mut odd = line.clone();
        odd.extend_from_slice(b"\r\r\nmore\nand more\r");
        for cut in [1, 100, 35_000, line.len() + 1, line.len() + 2, usize::MAX] {
            let (out, report) = taken(&odd, [cut, usize::MAX]);
            assert_eq!(out, canonical(&odd), "{cut}");
            assert!(report.altered);
        }
    }

    proptest! {
        #[test]
        fn equals_the_naive_reference(raw in octets()) {
            prop_assert_eq!(canonical(&raw), naive(&raw));
        }

        #[test]
        fn is_idempotent(raw in octets()) {
            let once = canonical(&raw);
            prop_assert_eq!(canonical(&once), once);
        }

        #[test]
        fn does_not_depend_on_the_pieces(raw in octets(), cuts in prop::collection::vec(1usize..9, 0..64)) {
            let mut canonicalizer = Canonicalizer::new();
            let mut out = BytesMut::new();
            let mut rest: &[u8] = &raw;
            for cut in cuts {
                let (piece, later) = rest.split_at(cut.min(rest.len()));
                canonicalizer.push(piece, &mut out);
                rest = later;
            }
            canonicalizer.push(rest, &mut out);
            let report = canonicalizer.finish(&mut out);
            prop_assert_eq!(&out[..], &canonical(&raw)[..]);
            prop_assert_eq!(report.length, out.len() as u64);
            prop_assert_eq!(report.altered, raw[..] != out[..]);
        }

        #[test]
        fn shared_pieces_are_the_same(raw in octets(), cuts in prop::collection::vec(1usize..9, 0..64)) {
            let (out, report) = taken(&raw, cuts.into_iter().chain([usize::MAX]));
            prop_assert_eq!(&out[..], &canonical(&raw)[..]);
            prop_assert_eq!(report.length, out.len() as u64);
            prop_assert_eq!(report.altered, raw[..] != out[..]);
        }
    }
}

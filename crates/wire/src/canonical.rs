//! The canonical form of a message: the octets that travel, are digested and are appended.
//!
//! The rule has one sentence. Each maximal run of CR directly before an LF, and the lack of one, becomes exactly one
//! CR; a run of CR at the very end is dropped; every other octet, lone CR and NUL included, stays; no LF is added at
//! the end.

use bytes::BytesMut;

const CR: u8 = b'\r';
const LF: u8 = b'\n';

/// How many octets one call of [`Canonicalizer::push_some`] gives out at most, in octets (a CR LF that crosses the
/// border is still given whole, so one more is possible).
pub const OUTPUT_STEP: usize = 64 * 1024;

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
                    let run = rest[..room]
                        .iter()
                        .position(|octet| matches!(*octet, CR | LF))
                        .unwrap_or(room);
                    out.extend_from_slice(&rest[..run]);
                    at += run;
                }
            }
        }
        self.length += (out.len() - before) as u64;
        at
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
    }
}

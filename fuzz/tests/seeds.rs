//! Every target over its seeds and over mutations of them, on stable Rust.
//!
//! The mutations are the same in each run unless `REHOME_FUZZ_SEED` says otherwise; a failure prints target, seed file
//! and number, and the input as a Rust literal.

use rehome_fuzz::{TARGETS, Target};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

const MUTATIONS: u32 = 2000;

/// Numbers that look random (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Octets that mean something to some parser.
const TELLING: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\0",
    b"{0}\r\n",
    b"{4294967296}\r\n",
    b"~{1}\r\n",
    b"\"",
    b"\\",
    b")",
    b"(",
    b"&",
    b"&-",
    b"=",
    b"%2f",
    b"..",
    b"/",
    b"\xff",
    b"\x80",
    b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff",
    b"18446744073709551615",
    b"-1",
    b":",
    b",",
    b"{\"a\":",
    b"null",
    b".\r\n",
    b"* 1 FETCH (UID 1 BODY[] ",
];

fn mutated(seed: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut octets = seed.to_vec();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(octets.len() + 1);
        match numbers.below(6) {
            0 if at < octets.len() => octets[at] ^= 1 << numbers.below(8),
            1 => octets.truncate(at),
            2 => {
                let telling = TELLING[numbers.below(TELLING.len())];
                octets.splice(at..at, telling.iter().copied());
            }
            3 => {
                let end = (at + numbers.below(16)).min(octets.len());
                octets.drain(at..end);
            }
            4 => {
                let end = (at + numbers.below(64)).min(octets.len());
                let piece = octets[at..end].to_vec();
                let to = numbers.below(octets.len() + 1);
                octets.splice(to..to, piece);
            }
            _ => {
                let value = numbers.below(256) as u8;
                octets.insert(at, value);
            }
        }
    }
    octets
}

fn seeds_of(target: Target) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target.name);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a seed").path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} has no seed", target.name);
    files
}

fn holds(target: Target, input: &[u8], what: &str) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
        panic!("{}, {what}: b\"{}\"", target.name, input.escape_ascii());
    }
}

#[test]
fn every_target_holds_its_promises() {
    let begin = std::env::var("REHOME_FUZZ_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1);
    for target in TARGETS.iter().copied() {
        holds(target, b"", "nothing");
        for file in seeds_of(target) {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            let seed = std::fs::read(&file).unwrap();
            holds(target, &seed, &name);
            let mut numbers = Numbers(begin);
            for number in 0..MUTATIONS {
                holds(
                    target,
                    &mutated(&seed, &mut numbers),
                    &format!("{name}, mutation {number} from {begin}"),
                );
            }
        }
    }
}

/// A promise that is broken is seen: this target believes that no input holds a 7.
#[test]
fn a_broken_promise_is_found() {
    let target = Target {
        name: "planted",
        run: |octets| assert!(!octets.contains(&b'7')),
    };
    let mut numbers = Numbers(1);
    let found =
        (0..10_000).any(|_| catch_unwind(AssertUnwindSafe(|| (target.run)(&mutated(b"5555", &mut numbers)))).is_err());
    assert!(found);
}

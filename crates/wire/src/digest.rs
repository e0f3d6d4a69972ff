//! Digests: BLAKE3, 32 octets. The digest of an item is that of its canonical form.

use std::fmt;

/// A BLAKE3 digest of 32 octets.
#[derive(Copy, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(
    /// The octets, in the order in which BLAKE3 gives them.
    pub [u8; 32],
);

impl Digest {
    /// The digest of `octets`.
    pub fn of(octets: &[u8]) -> Self {
        Self(*blake3::hash(octets).as_bytes())
    }
}

impl fmt::Display for Digest {
    /// 64 hexadecimal digits in lower case.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A text that is not 64 hexadecimal digits.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a digest is written as 64 hexadecimal digits")]
pub struct ParseDigestError;

impl std::str::FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        blake3::Hash::from_hex(text)
            .map(|hash| Self(*hash.as_bytes()))
            .map_err(|_| ParseDigestError)
    }
}

/// Digests octets that arrive in pieces.
#[derive(Clone, Default)]
pub struct Digester {
    hasher: blake3::Hasher,
}

impl Digester {
    /// A digester that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next octets.
    pub fn update(&mut self, octets: &[u8]) {
        self.hasher.update(octets);
    }

    /// The digest of all octets taken.
    pub fn finish(self) -> Digest {
        Digest(*self.hasher.finalize().as_bytes())
    }
}

impl fmt::Debug for Digester {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Digester({} octets)", self.hasher.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published digest of the empty input.
    const EMPTY: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

    #[test]
    fn known_answer_and_text_form() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse(), Ok(Digest::of(b"")));
        assert_eq!("af13".parse::<Digest>(), Err(ParseDigestError));
    }

    #[test]
    fn pieces_make_the_same_digest() {
        let mut digester = Digester::new();
        digester.update(b"one ");
        digester.update(b"message");
        assert_eq!(digester.finish(), Digest::of(b"one message"));
    }
}

//! SCRAM (RFC 5802, RFC 7677): the password never travels, and the server proves that it knows it.

use std::num::NonZeroU32;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::MAX_TEXT;
use super::sasl::{Credentials, Response, SaslError, sasl_name};

/// Fewest rounds that are taken: with fewer, who overhears the dialogue could try passwords cheaply.
const MIN_ITERATIONS: u32 = 1000;
/// Most rounds that are worked through for a server; they cost about a second.
const MAX_ITERATIONS: u32 = 2_000_000;
/// Shortest nonce of ours, in characters.
const MIN_NONCE: usize = 24;
/// Longest message of the server, in octets.
const MAX_MESSAGE: usize = 4096;

/// The hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Sha1,
    Sha256,
}

impl Hash {
    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
        }
    }

    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
        }
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
        }
    }

    fn sign(self, key: &[u8], message: &[u8]) -> hmac::Tag {
        hmac::sign(&hmac::Key::new(self.hmac(), key), message)
    }
}

enum Step {
    /// Waits for the salt.
    First,
    /// Waits for the server's signature, which must be this.
    Final(Vec<u8>),
    Proven,
}

/// One dialogue.
pub(super) struct Scram {
    hash: Hash,
    name: &'static str,
    /// `n,a=…,`: no channel binding, and whom to act for.
    header: String,
    /// The first message behind the header.
    first: String,
    nonce: String,
    password: SecretString,
    step: Step,
}

impl Scram {
    pub(super) fn new(
        hash: Hash,
        name: &'static str,
        credentials: &Credentials,
        nonce: &str,
    ) -> Result<Self, SaslError> {
        let usable = nonce.len() >= MIN_NONCE && nonce.bytes().all(|octet| octet.is_ascii_graphic() && octet != b',');
        if !usable {
            return Err(SaslError::Forbidden {
                mechanism: name,
                what: "the nonce",
            });
        }
        let header = match &credentials.acting_for {
            Some(acting_for) => format!("n,a={},", sasl_name(acting_for)),
            None => "n,,".to_owned(),
        };
        Ok(Self {
            hash,
            name,
            header,
            first: format!("n={},r={nonce}", sasl_name(&credentials.user)),
            nonce: nonce.to_owned(),
            password: credentials.secret.clone(),
            step: Step::First,
        })
    }

    /// The client's first message.
    pub(super) fn first(&self) -> Response {
        Response::new(format!("{}{}", self.header, self.first).into_bytes())
    }

    /// Whether the server's signature was right.
    pub(super) fn is_proven(&self) -> bool {
        matches!(self.step, Step::Proven)
    }

    pub(super) fn challenge(&mut self, octets: &[u8]) -> Result<Response, SaslError> {
        let message = std::str::from_utf8(octets)
            .ok()
            .filter(|message| message.len() <= MAX_MESSAGE)
            .ok_or(self.wrong("it is no text, or too long"))?;
        if let Some(error) = message.strip_prefix("e=") {
            let shown = &error[..error.floor_char_boundary(MAX_TEXT)];
            return Err(SaslError::Refused(shown.to_owned()));
        }
        match &self.step {
            Step::First => self.take_salt(message),
            Step::Final(expected) => {
                let signature = message
                    .strip_prefix("v=")
                    .and_then(|rest| STANDARD.decode(rest.split(',').next().unwrap_or_default()).ok())
                    .ok_or(self.wrong("it has no signature"))?;
                constant_time::verify_slices_are_equal(&signature, expected).map_err(|_| SaslError::ServerNotProven)?;
                self.step = Step::Proven;
                Ok(Response::new(Vec::new()))
            }
            Step::Proven => Err(SaslError::TooManySteps(self.name)),
        }
    }

    fn wrong(&self, why: &'static str) -> SaslError {
        SaslError::Challenge {
            mechanism: self.name,
            why,
        }
    }

    /// Answers `r=nonce,s=salt,i=rounds` by the proof.
    fn take_salt(&mut self, message: &str) -> Result<Response, SaslError> {
        let mut parts = message.split(',');
        let mut part = |name: &str| parts.next().and_then(|part| part.strip_prefix(name));
        let (Some(nonce), Some(salt), Some(rounds)) = (part("r="), part("s="), part("i=")) else {
            return Err(self.wrong("nonce, salt or rounds are missing"));
        };
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(self.wrong("its nonce does not continue ours"));
        }
        let salt = STANDARD.decode(salt).map_err(|_| self.wrong("its salt is no base64"))?;
        let rounds = rounds
            .parse()
            .ok()
            .filter(|rounds| (MIN_ITERATIONS..=MAX_ITERATIONS).contains(rounds))
            .and_then(NonZeroU32::new)
            .ok_or(self.wrong("its number of rounds is none, too low or too high"))?;

        let length = self.hash.digest().output_len();
        let mut salted = Zeroizing::new(vec![0; length]);
        let password = self.password.expose_secret().as_bytes();
        pbkdf2::derive(self.hash.pbkdf2(), rounds, &salt, password, &mut salted);
        let without_proof = format!("c={},r={nonce}", STANDARD.encode(&self.header));
        let signed = format!("{},{message},{without_proof}", self.first);

        let client_key = self.hash.sign(&salted, b"Client Key");
        let stored_key = digest::digest(self.hash.digest(), client_key.as_ref());
        let signature = self.hash.sign(stored_key.as_ref(), signed.as_bytes());
        let proof: Vec<u8> = client_key
            .as_ref()
            .iter()
            .zip(signature.as_ref())
            .map(|(key, signature)| key ^ signature)
            .collect();
        let server_key = self.hash.sign(&salted, b"Server Key");
        let expected = self.hash.sign(server_key.as_ref(), signed.as_bytes());
        self.step = Step::Final(expected.as_ref().to_vec());
        Ok(Response::new(
            format!("{without_proof},p={}", STANDARD.encode(proof)).into_bytes(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(hash: Hash, nonce: &str, acting_for: Option<&str>) -> Scram {
        let credentials = Credentials {
            user: "user".to_owned(),
            acting_for: acting_for.map(str::to_owned),
            secret: SecretString::from("pencil"),
            server: None,
        };
        let mut scram = Scram::new(hash, "SCRAM", &credentials, &"x".repeat(MIN_NONCE)).unwrap();
        // The examples of the documents have shorter nonces than are taken from callers.
        scram.first = scram.first.replace(&scram.nonce, nonce);
        scram.nonce = nonce.to_owned();
        scram
    }

    const SALT_1: &[u8] = b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096";

    #[test]
    fn the_example_of_rfc_5802() {
        let mut scram = start(Hash::Sha1, "fyko+d2lbbFgONRv9qkxdawL", None);
        assert_eq!(scram.first().octets(), b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL");
        assert_eq!(
            scram.challenge(SALT_1).unwrap().octets(),
            b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts="
        );
        assert!(!scram.is_proven());
        assert!(scram.challenge(b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=").unwrap().is_empty());
        assert!(scram.is_proven());
        assert_eq!(scram.challenge(b""), Err(SaslError::TooManySteps("SCRAM")));
    }

    #[test]
    fn the_example_of_rfc_7677() {
        let mut scram = start(Hash::Sha256, "rOprNGfwEbeRWgbNEkqO", None);
        let salt = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        assert_eq!(
            scram.challenge(salt).unwrap().octets(),
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        let proof = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert!(scram.challenge(proof).unwrap().is_empty() && scram.is_proven());
    }

    #[test]
    fn a_server_that_does_not_know_the_password() {
        let mut scram = start(Hash::Sha1, "fyko+d2lbbFgONRv9qkxdawL", None);
        scram.challenge(SALT_1).unwrap();
        let wrong = scram.challenge(b"v=rmF9pqV8S7suAoZWja4dJRkFsKU=");
        assert_eq!(wrong, Err(SaslError::ServerNotProven));
        assert!(!scram.is_proven());
        assert!(matches!(scram.challenge(b"v="), Err(SaslError::ServerNotProven)));
        assert!(matches!(scram.challenge(b"x"), Err(SaslError::Challenge { .. })));
        let refused = SaslError::Refused("invalid-proof".to_owned());
        assert_eq!(scram.challenge(b"e=invalid-proof"), Err(refused));
    }

    #[test]
    fn messages_that_are_none() {
        let rows: &[&[u8]] = &[
            b"",
            b"\xff",
            b"m=ext,r=abcdx,s=QSXCR+Q6sek8bf92,i=4096",
            b"r=abcd,s=QSXCR+Q6sek8bf92,i=4096",
            b"r=abxyz,s=QSXCR+Q6sek8bf92,i=4096",
            b"r=abcdx,s=!,i=4096",
            b"r=abcdx,s=QSXCR+Q6sek8bf92,i=1",
            b"r=abcdx,s=QSXCR+Q6sek8bf92,i=2000001",
            b"r=abcdx,s=QSXCR+Q6sek8bf92,i=x",
            b"r=abcdx,s=QSXCR+Q6sek8bf92",
        ];
        for message in rows {
            let mut scram = start(Hash::Sha256, "abcd", None);
            let found = scram.challenge(message);
            assert!(
                matches!(found, Err(SaslError::Challenge { .. })),
                "{message:?}: {found:?}"
            );
        }
    }

    #[test]
    fn acting_for_others_is_in_the_header() {
        let scram = start(Hash::Sha1, "abcd", Some("a=b,c"));
        assert_eq!(scram.first().octets(), b"n,a=a=3Db=2Cc,n=user,r=abcd");
    }
}

//! Demonstrating proof of possession (RFC 9449): the mover's key, proofs, and the memory against replay.

use crate::{
    clock::SKEW,
    error::DpopError,
    jws::{CryptographyFailed, SigningKey, TokenType, Unverified, sha256_text},
};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, PoisonError},
};
use url::Url;
use uuid::Uuid;

/// How long a proof's id is remembered, in seconds. Longer than twice the tolerance of `iat`.
const REMEMBERED: i64 = 300;
/// How many ids are remembered; beyond it proofs are refused, never forgotten.
const CAPACITY: usize = 200_000;

/// The key to which a mover's access tokens are bound.
#[derive(Debug)]
pub struct DpopKey(SigningKey);

#[derive(Serialize, Deserialize)]
struct Claims {
    htm: String,
    htu: String,
    iat: i64,
    jti: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ath: Option<String>,
}

impl DpopKey {
    /// A new key; one lives as long as the process.
    ///
    /// # Errors
    /// When the random source fails.
    pub fn generate() -> Result<Self, CryptographyFailed> {
        SigningKey::generate().map(Self)
    }

    /// RFC 7638 thumbprint: `cnf.jkt` of tokens bound to it.
    #[must_use]
    pub fn thumbprint(&self) -> &str {
        self.0.public().kid()
    }

    /// A proof for one request: method, URL (query and fragment are left out), and the access token that it
    /// accompanies (none at the token endpoint). `jti` is new for each request.
    ///
    /// # Errors
    /// When signing fails.
    pub fn proof(
        &self,
        method: &str,
        url: &str,
        access_token: Option<&SecretString>,
        now: Timestamp,
        jti: Uuid,
    ) -> Result<String, CryptographyFailed> {
        let htu = url.split(['?', '#']).next().unwrap_or(url);
        self.0.sign_proof(&Claims {
            htm: method.to_owned(),
            htu: htu.to_owned(),
            iat: now.as_second(),
            jti: jti.to_string(),
            ath: access_token.map(|t| sha256_text(t.expose_secret().as_bytes())),
        })
    }
}

/// A proof whose signature and claims are right; not yet remembered.
#[derive(Debug)]
pub(crate) struct CheckedProof {
    /// Thumbprint of the key that made it.
    pub(crate) jkt: String,
    id: [u8; 32],
}

fn same_url(a: &str, b: &str) -> bool {
    let form = |text: &str| {
        Url::parse(text)
            .ok()
            .map(|u| (u.origin().ascii_serialization(), u.path().to_owned()))
    };
    form(a).is_some_and(|a| form(b) == Some(a))
}

/// Checks a proof's signature and claims; the caller remembers it once the rest of the request is right.
pub(crate) fn verify_proof(
    proof: &str,
    method: &str,
    url: &str,
    access_token: Option<&str>,
    now: Timestamp,
) -> Result<CheckedProof, DpopError> {
    let unverified = Unverified::parse(proof, TokenType::DpopProof)?;
    let key = unverified.carried_key()?;
    let claims: Claims = unverified.verify(&key)?;
    if claims.htm != method {
        return Err(DpopError::OtherMethod);
    }
    if !same_url(&claims.htu, url) {
        return Err(DpopError::OtherUrl {
            expected: url.split(['?', '#']).next().unwrap_or(url).to_owned(),
        });
    }
    if (i128::from(claims.iat) - i128::from(now.as_second())).abs() > i128::from(SKEW) {
        return Err(DpopError::NotNow);
    }
    if claims.jti.is_empty() || claims.jti.len() > 200 {
        return Err(DpopError::BadId);
    }
    let expected = access_token.map(|t| sha256_text(t.as_bytes()));
    if claims.ath != expected {
        return Err(DpopError::OtherToken);
    }
    let jkt = key.kid().to_owned();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, format!("{jkt}\0{}", claims.jti).as_bytes());
    let mut id = [0; 32];
    id.copy_from_slice(digest.as_ref());
    Ok(CheckedProof { jkt, id })
}

/// Ids of proofs seen in the last five minutes.
#[derive(Debug)]
pub struct ProofMemory {
    inner: Mutex<Remembered>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Remembered {
    seen: HashSet<[u8; 32]>,
    order: VecDeque<(i64, [u8; 32])>,
}

impl Default for ProofMemory {
    fn default() -> Self {
        Self::with_capacity(CAPACITY)
    }
}

impl ProofMemory {
    fn with_capacity(capacity: usize) -> Self {
        Self {
            inner: Mutex::default(),
            capacity,
        }
    }

    /// Remembers a proof, or says that it was seen before or that there is no room.
    pub(crate) fn remember(&self, proof: &CheckedProof, now: Timestamp) -> Result<(), DpopError> {
        let now = now.as_second();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((at, id)) = inner.order.front().copied() {
            if at + REMEMBERED > now {
                break;
            }
            inner.order.pop_front();
            inner.seen.remove(&id);
        }
        if inner.seen.contains(&proof.id) {
            return Err(DpopError::Replayed);
        }
        if inner.seen.len() >= self.capacity {
            return Err(DpopError::MemoryFull);
        }
        inner.seen.insert(proof.id);
        inner.order.push_back((now, proof.id));
        Ok(())
    }
}

/// Checks a proof wholly and remembers it. Returns the thumbprint of the key that made it.
///
/// # Errors
/// [`DpopError`], naming what is wrong.
pub fn check_proof(
    proof: &str,
    method: &str,
    url: &str,
    access_token: Option<&str>,
    expected_jkt: Option<&str>,
    now: Timestamp,
    memory: &ProofMemory,
) -> Result<String, DpopError> {
    let checked = verify_proof(proof, method, url, access_token, now)?;
    if expected_jkt.is_some_and(|jkt| jkt != checked.jkt) {
        return Err(DpopError::OtherKey);
    }
    memory.remember(&checked, now)?;
    Ok(checked.jkt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyset::tests::at;
    use proptest::prelude::*;

    const URL: &str = "https://mail.contoso.example/mrs/x/open";

    fn proof(key: &DpopKey, token: Option<&str>, jti: u128) -> String {
        key.proof(
            "POST",
            &format!("{URL}?a=1"),
            token.map(SecretString::from).as_ref(),
            at(0),
            Uuid::from_u128(jti),
        )
        .unwrap()
    }

    #[test]
    fn each_claim_is_checked() {
        let key = DpopKey::generate().unwrap();
        let good = proof(&key, Some("t"), 1);
        let check = |proof: &str, method: &str, url: &str, token: Option<&str>, jkt: Option<&str>, second: i64| {
            check_proof(proof, method, url, token, jkt, at(second), &ProofMemory::default())
        };
        assert_eq!(
            check(&good, "POST", URL, Some("t"), Some(key.thumbprint()), 0).unwrap(),
            key.thumbprint()
        );
        assert!(check(&good, "POST", &format!("{URL}?b=2"), Some("t"), None, 120).is_ok());
        assert!(
            check(
                &good,
                "POST",
                "https://MAIL.contoso.example:443/mrs/x/open",
                Some("t"),
                None,
                -120
            )
            .is_ok()
        );
        let other = DpopKey::generate().unwrap();
        let table = [
            (check(&good, "GET", URL, Some("t"), None, 0), DpopError::OtherMethod),
            (
                check(
                    &good,
                    "POST",
                    "https://mail.contoso.example/mrs/x/read",
                    Some("t"),
                    None,
                    0,
                ),
                DpopError::OtherUrl {
                    expected: "https://mail.contoso.example/mrs/x/read".into(),
                },
            ),
            (
                check(
                    &good,
                    "POST",
                    "http://mail.contoso.example/mrs/x/open",
                    Some("t"),
                    None,
                    0,
                ),
                DpopError::OtherUrl {
                    expected: "http://mail.contoso.example/mrs/x/open".into(),
                },
            ),
            (check(&good, "POST", URL, Some("u"), None, 0), DpopError::OtherToken),
            (check(&good, "POST", URL, None, None, 0), DpopError::OtherToken),
            (
                check(&proof(&key, None, 2), "POST", URL, Some("t"), None, 0),
                DpopError::OtherToken,
            ),
            (check(&good, "POST", URL, Some("t"), None, 121), DpopError::NotNow),
            (check(&good, "POST", URL, Some("t"), None, -121), DpopError::NotNow),
            (
                check(&good, "POST", URL, Some("t"), Some(other.thumbprint()), 0),
                DpopError::OtherKey,
            ),
        ];
        for (got, expected) in table {
            assert_eq!(got.unwrap_err(), expected);
        }
    }

    #[test]
    fn memory_is_bounded_and_forgets_in_time() {
        let key = DpopKey::generate().unwrap();
        let memory = ProofMemory::with_capacity(3);
        let seen = |jti: u128| verify_proof(&proof(&key, None, jti), "POST", URL, None, at(0)).unwrap();
        for jti in 0..3 {
            memory.remember(&seen(jti), at(0)).unwrap();
        }
        assert_eq!(memory.remember(&seen(0), at(299)), Err(DpopError::Replayed));
        assert_eq!(memory.remember(&seen(9), at(299)), Err(DpopError::MemoryFull));
        assert_eq!(memory.remember(&seen(9), at(300)), Ok(()));
        assert_eq!(memory.inner.lock().unwrap().order.len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// Within the time that a proof is good it is never accepted twice, whatever comes between.
        #[test]
        fn never_twice(steps in proptest::collection::vec((0u128..6, 0i64..40), 1..30)) {
            let key = DpopKey::generate().unwrap();
            let memory = ProofMemory::default();
            let proofs: Vec<String> = (0..6).map(|jti| proof(&key, None, jti)).collect();
            let (mut second, mut accepted) = (-120, HashSet::new());
            for (jti, wait) in steps {
                second += wait;
                let proof = &proofs[usize::try_from(jti).unwrap()];
                if check_proof(proof, "POST", URL, None, None, at(second), &memory).is_ok() {
                    prop_assert!(second <= 120);
                    prop_assert!(accepted.insert(jti));
                }
            }
        }
    }
}

//! The keys that whoever checks a receipt has decided to trust: key documents as organisations publish them, or
//! fingerprints that he was told.

use crate::{
    jws::{Jwk, PublicKey, TokenType, Unverified},
    keyset::{MAX_KEYS, PublishedPurpose},
    statement::ReadReceipt,
};
use serde::Deserialize;
use std::collections::BTreeSet;

/// Why a key document or fingerprint cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// It is no document of keys.
    #[error("it is no key document: {0}")]
    Document(String),
    /// It holds no key for statements.
    #[error("it holds no statement key with its issuer")]
    NoStatementKey,
    /// It is no fingerprint.
    #[error("a fingerprint is the RFC 7638 thumbprint of a key: 43 letters, digits, '-' or '_'")]
    Fingerprint,
}

/// How a statement's signature was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignedBy {
    /// A trusted key of its issuer signed it.
    Trusted,
    /// No key that is trusted is the one that it names: nothing is proven.
    NotTrusted,
    /// It names a trusted key, which did not sign it.
    Forged,
}

/// Trusted statement keys.
#[derive(Clone, Debug, Default)]
pub struct TrustedKeys {
    keys: Vec<(String, PublicKey)>,
    fingerprints: BTreeSet<String>,
}

#[derive(Deserialize)]
struct DocumentKey {
    #[serde(flatten)]
    jwk: Jwk,
    kid: String,
    #[serde(default)]
    issuer: Option<String>,
    rehome_purpose: PublishedPurpose,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    iss: Option<String>,
    keys: Vec<DocumentKey>,
}

impl TrustedKeys {
    /// Trusts the statement keys of a key document: the JSON that a tenant publishes at its `jwks_uri`, or its signed form
    /// (`rehome-keys+jwt`). Trust comes from where the caller got it; a signature in it is not checked, since it is made
    /// with a key of the document itself.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn add_document(&mut self, text: &str) -> Result<(), TrustError> {
        let text = text.trim();
        let bad = |why: String| TrustError::Document(why);
        let document: Document = if text.starts_with('{') {
            serde_json::from_str(text).map_err(|error| bad(error.to_string()))?
        } else {
            let unverified = Unverified::parse(text, TokenType::KeySet).map_err(|error| bad(error.to_string()))?;
            unverified.claims().map_err(|error| bad(error.to_string()))?
        };
        if document.keys.len() > MAX_KEYS {
            return Err(bad(format!("it holds more than {MAX_KEYS} keys")));
        }
        let before = self.keys.len();
        for key in document.keys {
            let public = PublicKey::from_jwk(&key.jwk).map_err(|error| bad(error.to_string()))?;
            if public.kid() != key.kid {
                return Err(bad("a key id is not its key's thumbprint".to_owned()));
            }
            let issuer = key.issuer.or_else(|| document.iss.clone());
            if let (PublishedPurpose::Statement, Some(issuer)) = (key.rehome_purpose, issuer) {
                self.keys.push((issuer, public));
            }
        }
        if self.keys.len() == before {
            return Err(TrustError::NoStatementKey);
        }
        Ok(())
    }

    /// Trusts the key with this fingerprint, whoever says it is his.
    ///
    /// # Errors
    /// [`TrustError::Fingerprint`].
    pub fn add_fingerprint(&mut self, text: &str) -> Result<(), TrustError> {
        let text = text.trim();
        let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if text.len() != 43 || !text.chars().all(letters) {
            return Err(TrustError::Fingerprint);
        }
        self.fingerprints.insert(text.to_owned());
        Ok(())
    }

    /// Whether nothing is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.fingerprints.is_empty()
    }

    /// Judges the signature of `text`, from which `read` was read.
    #[must_use]
    pub fn judge(&self, text: &str, read: &ReadReceipt) -> SignedBy {
        let known = self
            .keys
            .iter()
            .find(|(issuer, key)| *issuer == read.issuer && key.kid() == read.kid)
            .map(|(_, key)| key);
        let told = read.carried_key().filter(|key| self.fingerprints.contains(key.kid()));
        match known.or(told) {
            None => SignedBy::NotTrusted,
            Some(key) if ReadReceipt::is_signed_by(text, key).is_ok() => SignedBy::Trusted,
            Some(_) => SignedBy::Forged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        keyset::{
            jwks, sign_key_set,
            tests::{TENANT, at, keys, origin},
        },
        statement::tests::receipt,
    };

    #[test]
    fn documents_and_fingerprints_are_trusted_and_nothing_else() {
        let (ours, others) = (keys(1), keys(1));
        let (issuer, keys_at) = (origin().issuer(TENANT), origin().keys(TENANT));
        let text = receipt().sign(&ours.statement, (&issuer, &keys_at), at(0)).unwrap();
        let read = ReadReceipt::read(&text).unwrap();
        let nothing = TrustedKeys::default();
        assert!(nothing.is_empty());
        assert_eq!(nothing.judge(&text, &read), SignedBy::NotTrusted);
        let documents = [
            jwks(&ours, &issuer).to_string(),
            sign_key_set(&ours, &origin(), TENANT, vec![], at(0)).unwrap(),
        ];
        for document in documents {
            let mut trusted = TrustedKeys::default();
            trusted.add_document(&document).unwrap();
            assert_eq!(trusted.judge(&text, &read), SignedBy::Trusted);
            let cut = &text[..text.rfind('.').unwrap()];
            let forged = format!("{cut}.{}", "A".repeat(86));
            assert_eq!(
                trusted.judge(&forged, &ReadReceipt::read(&forged).unwrap()),
                SignedBy::Forged
            );
        }
        let mut trusted = TrustedKeys::default();
        trusted.add_fingerprint(ours.statement.public().kid()).unwrap();
        assert_eq!(trusted.judge(&text, &read), SignedBy::Trusted);
        // Keys of others, the same key under another issuer's name, and a token key that signs a receipt.
        for document in [jwks(&others, &issuer), jwks(&ours, "https://evil.example/1/v2.0")] {
            let mut trusted = TrustedKeys::default();
            trusted.add_document(&document.to_string()).unwrap();
            assert_eq!(trusted.judge(&text, &read), SignedBy::NotTrusted);
        }
        let by_token = receipt().sign(&ours.token, (&issuer, &keys_at), at(0)).unwrap();
        let mut trusted = TrustedKeys::default();
        trusted.add_document(&jwks(&ours, &issuer).to_string()).unwrap();
        assert_eq!(
            trusted.judge(&by_token, &ReadReceipt::read(&by_token).unwrap()),
            SignedBy::NotTrusted
        );
    }

    #[test]
    fn what_is_no_document_is_refused() {
        let mut trusted = TrustedKeys::default();
        for text in ["", "{}", "x.y.z", "{\"keys\":[]}", "{\"keys\":[{\"kid\":\"1\"}]}"] {
            assert!(trusted.add_document(text).is_err(), "{text}");
        }
        for text in ["", "abc", &"!".repeat(43)] {
            assert_eq!(trusted.add_fingerprint(text), Err(TrustError::Fingerprint));
        }
        assert!(trusted.is_empty());
    }
}

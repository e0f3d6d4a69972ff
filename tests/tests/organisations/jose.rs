//! Keys, signed tokens and proofs of possession, written from RFC 7515, 7517, 7638 and 9449 and not from our own code.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// A P-256 key of our own.
pub struct Key(EcdsaKeyPair);

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock is right");
    i64::try_from(since.as_secs()).expect("it fits")
}

fn sha256(octets: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, octets))
}

impl Key {
    /// A new one.
    pub fn generate() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key is made"))
    }

    /// The public part (RFC 7518 section 6.2.1).
    pub fn jwk(&self) -> Value {
        let point = self.0.public_key().as_ref();
        json!({ "kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..]) })
    }

    /// Its thumbprint (RFC 7638).
    pub fn thumbprint(&self) -> String {
        let jwk = self.jwk();
        let part = |name: &str| jwk[name].as_str().unwrap_or_default().to_owned();
        sha256(
            format!(
                r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#,
                part("x"),
                part("y")
            )
            .as_bytes(),
        )
    }

    /// A compact JWS with ES256.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", encode(header), encode(claims));
        let signature = self
            .0
            .sign(&SystemRandom::new(), input.as_bytes())
            .expect("it is signed");
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    /// A token of a type, with this key's thumbprint as key id.
    pub fn token(&self, kind: &str, claims: &Value) -> String {
        self.sign(
            &json!({ "typ": kind, "alg": "ES256", "kid": self.thumbprint() }),
            claims,
        )
    }

    /// A proof for one request (RFC 9449 section 4.2).
    pub fn proof(&self, method: &str, url: &str, access_token: Option<&str>) -> String {
        let mut claims = json!({ "htm": method, "htu": url, "iat": now(), "jti": uuid::Uuid::new_v4().to_string() });
        if let Some(token) = access_token {
            claims["ath"] = sha256(token.as_bytes()).into();
        }
        self.sign(
            &json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk() }),
            &claims,
        )
    }
}

/// What a token says, not verified.
pub fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap_or_default();
    URL_SAFE_NO_PAD
        .decode(part)
        .ok()
        .and_then(|octets| serde_json::from_slice(&octets).ok())
        .unwrap_or(Value::Null)
}

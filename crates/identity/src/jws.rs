//! Compact JWS (RFC 7515) with P-256 keys and ES256 alone (RFC 7518 §3.4).
//!
//! The algorithm is fixed by the key and never by the token; the type is checked (RFC 8725 §3.11);
//! a critical header is refused (RFC 7515 §4.1.11). Times in claims are checked by the callers with
//! the time that they are given, which is why no JWT library with a clock of its own is used here.

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

/// Longest token accepted, in octets.
pub const MAX_TOKEN: usize = 16 * 1024;
/// Longest signed document (app description, key set, receipt) accepted, in octets.
pub const MAX_DOCUMENT: usize = 256 * 1024;

/// Every kind of token; each is accepted at one door only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenType {
    /// Access token (RFC 9068's type), at the MRS proxy.
    Access,
    /// An administrator's session, at the cmdlet surfaces and the console.
    Admin,
    /// Client assertion (RFC 7523), at the partner's token endpoint.
    ClientAssertion,
    /// Proof of possession (RFC 9449), beside an access token.
    DpopProof,
    /// Application description, at consent.
    AppDescription,
    /// Published key set, when keys change.
    KeySet,
    /// Statement of an attempt's outcome.
    Outcome,
    /// Receipt of a finished move.
    Receipt,
}

impl TokenType {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Access,
        Self::Admin,
        Self::ClientAssertion,
        Self::DpopProof,
        Self::AppDescription,
        Self::KeySet,
        Self::Outcome,
        Self::Receipt,
    ];

    /// The `typ` header.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Access => "at+jwt",
            Self::Admin => "admin+jwt",
            Self::ClientAssertion => "client-assertion+jwt",
            Self::DpopProof => "dpop+jwt",
            Self::AppDescription => "rehome-app+jwt",
            Self::KeySet => "rehome-keys+jwt",
            Self::Outcome => "rehome-outcome+jwt",
            Self::Receipt => "rehome-receipt+jwt",
        }
    }

    /// Longest form accepted, in octets.
    fn limit(self) -> usize {
        match self {
            Self::Access | Self::Admin | Self::ClientAssertion | Self::DpopProof | Self::Outcome => MAX_TOKEN,
            Self::AppDescription | Self::KeySet | Self::Receipt => MAX_DOCUMENT,
        }
    }
}

/// Why a token is not accepted. No variant holds the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    /// Over the limit of its kind.
    #[error("the token is longer than {0} octets")]
    TooLong(usize),
    /// Not three base64url parts, or header or claims are not the JSON expected.
    #[error("the token is malformed: {0}")]
    Malformed(String),
    /// Another kind of token.
    #[error("the token is of type '{found}', expected '{expected}'")]
    WrongType {
        /// The kind that this door takes.
        expected: &'static str,
        /// What the token says, at most 64 characters.
        found: String,
    },
    /// Its header names another algorithm than ES256, or a critical extension.
    #[error("the token's header is not allowed: {0}")]
    Header(&'static str),
    /// Signed with a key that is not known.
    #[error("the token is signed with key '{kid}', which is not known here")]
    UnknownKey {
        /// The key id it names, at most 64 characters.
        kid: String,
    },
    /// The signature is not that key's.
    #[error("the token's signature is wrong")]
    BadSignature,
}

/// The system's random source or the signing operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system's cryptography failed (random source or signing)")]
pub struct CryptographyFailed;

/// A P-256 public key in JWK form (RFC 7517, RFC 7518 §6.2.1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Jwk {
    /// `EC`.
    pub kty: String,
    /// `P-256`.
    pub crv: String,
    /// base64url, 32 octets.
    pub x: String,
    /// base64url, 32 octets.
    pub y: String,
    /// The private part, which nobody may send.
    #[serde(default, skip_serializing)]
    d: Option<serde::de::IgnoredAny>,
}

/// Why octets are not a P-256 public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a P-256 public key")]
pub struct NotAKey;

/// A public key, known to be a point of P-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    point: Vec<u8>,
    kid: String,
}

impl PublicKey {
    /// From the uncompressed point, 65 octets.
    ///
    /// # Errors
    /// When it is no point of the curve.
    pub fn from_point(point: &[u8]) -> Result<Self, NotAKey> {
        if point.len() != 65 || point[0] != 4 {
            return Err(NotAKey);
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .parse()
            .map_err(|_| NotAKey)?;
        let mut key = Self {
            point: point.to_vec(),
            kid: String::new(),
        };
        let jwk = key.jwk();
        // RFC 7638 §3: required members only, in this order, without blanks.
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, jwk.x, jwk.y);
        key.kid = sha256_text(canonical.as_bytes());
        Ok(key)
    }

    /// From a JWK without a private part.
    ///
    /// # Errors
    /// When it is another kind of key or no point of the curve.
    pub fn from_jwk(jwk: &Jwk) -> Result<Self, NotAKey> {
        if jwk.kty != "EC" || jwk.crv != "P-256" || jwk.d.is_some() {
            return Err(NotAKey);
        }
        let mut point = vec![4];
        for part in [&jwk.x, &jwk.y] {
            let octets = URL_SAFE_NO_PAD.decode(part).map_err(|_| NotAKey)?;
            if octets.len() != 32 {
                return Err(NotAKey);
            }
            point.extend_from_slice(&octets);
        }
        Self::from_point(&point)
    }

    /// RFC 7638 thumbprint (SHA-256, base64url); our key id.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The uncompressed point, 65 octets.
    #[must_use]
    pub fn point(&self) -> &[u8] {
        &self.point
    }

    /// The JWK form.
    #[must_use]
    pub fn jwk(&self) -> Jwk {
        Jwk {
            kty: "EC".into(),
            crv: "P-256".into(),
            x: URL_SAFE_NO_PAD.encode(&self.point[1..33]),
            y: URL_SAFE_NO_PAD.encode(&self.point[33..65]),
            d: None,
        }
    }
}

/// A private signing key. Never shown, wiped when dropped (by the provider).
pub struct SigningKey {
    pair: EcdsaKeyPair,
    public: PublicKey,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.public.kid)
            .finish_non_exhaustive()
    }
}

impl SigningKey {
    /// A new key.
    ///
    /// # Errors
    /// When the system's random source fails.
    pub fn generate() -> Result<Self, CryptographyFailed> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| CryptographyFailed)?;
        Self::with(pair)
    }

    /// From PKCS#8 (RFC 5208).
    ///
    /// # Errors
    /// When it is no P-256 key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, CryptographyFailed> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map_err(|_| CryptographyFailed)?;
        Self::with(pair)
    }

    fn with(pair: EcdsaKeyPair) -> Result<Self, CryptographyFailed> {
        let public = PublicKey::from_point(pair.public_key().as_ref()).map_err(|_| CryptographyFailed)?;
        Ok(Self { pair, public })
    }

    /// As PKCS#8, to be sealed.
    ///
    /// # Errors
    /// When the provider refuses.
    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, CryptographyFailed> {
        let document = self.pair.to_pkcs8v1().map_err(|_| CryptographyFailed)?;
        Ok(Zeroizing::new(document.as_ref().to_vec()))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs claims as a token of this kind, naming the key by id.
    ///
    /// # Errors
    /// When the signing operation fails.
    pub fn sign<C: Serialize>(&self, kind: TokenType, claims: &C) -> Result<String, CryptographyFailed> {
        let header = serde_json::json!({ "alg": "ES256", "typ": kind.as_str(), "kid": self.public.kid });
        self.sign_with(&header, claims)
    }

    /// Signs a proof of possession, which carries its public key (RFC 9449 §4.2).
    pub(crate) fn sign_proof<C: Serialize>(&self, claims: &C) -> Result<String, CryptographyFailed> {
        let header = serde_json::json!({
            "alg": "ES256", "typ": TokenType::DpopProof.as_str(), "jwk": self.public.jwk()
        });
        self.sign_with(&header, claims)
    }

    fn sign_with<C: Serialize>(&self, header: &serde_json::Value, claims: &C) -> Result<String, CryptographyFailed> {
        let claims = serde_json::to_vec(claims).map_err(|_| CryptographyFailed)?;
        let message = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(claims)
        );
        let signature = self
            .pair
            .sign(&SystemRandom::new(), message.as_bytes())
            .map_err(|_| CryptographyFailed)?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    typ: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    jwk: Option<Jwk>,
    #[serde(default)]
    crit: Option<serde::de::IgnoredAny>,
}

/// A token taken apart, its signature not checked yet.
pub(crate) struct Unverified<'a> {
    message: &'a str,
    signature: Vec<u8>,
    payload: Vec<u8>,
    header: Header,
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

fn part(text: &str, what: &str) -> Result<Vec<u8>, JwsError> {
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| JwsError::Malformed(format!("its {what} is not base64url")))
}

impl<'a> Unverified<'a> {
    /// Takes a token of the kind expected apart.
    pub(crate) fn parse(token: &'a str, kind: TokenType) -> Result<Self, JwsError> {
        if token.len() > kind.limit() {
            return Err(JwsError::TooLong(kind.limit()));
        }
        let parts: Vec<&str> = token.split('.').collect();
        let [header, payload, signature] = parts[..] else {
            return Err(JwsError::Malformed("it does not have three parts".into()));
        };
        let message = &token[..header.len() + 1 + payload.len()];
        let header: Header = serde_json::from_slice(&part(header, "header")?)
            .map_err(|e| JwsError::Malformed(format!("its header: {e}")))?;
        if header.typ != kind.as_str() {
            return Err(JwsError::WrongType {
                expected: kind.as_str(),
                found: short(&header.typ),
            });
        }
        if header.alg != "ES256" {
            return Err(JwsError::Header("the algorithm must be ES256"));
        }
        if header.crit.is_some() {
            return Err(JwsError::Header("critical extensions are not known here"));
        }
        Ok(Self {
            message,
            signature: part(signature, "signature")?,
            payload: part(payload, "claims")?,
            header,
        })
    }

    /// The id of the key it says it is signed with.
    pub(crate) fn kid(&self) -> Result<&str, JwsError> {
        self.header
            .kid
            .as_deref()
            .ok_or(JwsError::Header("the key id is missing"))
    }

    /// The key that it carries (proofs only).
    pub(crate) fn carried_key(&self) -> Result<PublicKey, JwsError> {
        let jwk = self
            .header
            .jwk
            .as_ref()
            .ok_or(JwsError::Header("the public key (jwk) is missing"))?;
        PublicKey::from_jwk(jwk).map_err(|_| JwsError::Header("its jwk must be a P-256 public key"))
    }

    /// The claims, nothing proven.
    pub(crate) fn claims<C: DeserializeOwned>(&self) -> Result<C, JwsError> {
        serde_json::from_slice(&self.payload).map_err(|e| JwsError::Malformed(format!("its claims: {e}")))
    }

    /// The claims, once the signature is this key's.
    pub(crate) fn verify<C: DeserializeOwned>(&self, key: &PublicKey) -> Result<C, JwsError> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key.point)
            .verify(self.message.as_bytes(), &self.signature)
            .map_err(|_| JwsError::BadSignature)?;
        self.claims()
    }
}

/// The claims of a token of this kind that one of `keys` signed.
///
/// # Errors
/// When it is too long, malformed, of another kind, or signed by none of them.
pub fn open<'k, C: DeserializeOwned>(
    token: &str,
    kind: TokenType,
    keys: impl IntoIterator<Item = &'k PublicKey>,
) -> Result<C, JwsError> {
    let unverified = Unverified::parse(token, kind)?;
    let kid = unverified.kid()?;
    let key = keys
        .into_iter()
        .find(|k| k.kid() == kid)
        .ok_or_else(|| JwsError::UnknownKey { kid: short(kid) })?;
    unverified.verify(key)
}

/// SHA-256 in base64url.
pub(crate) fn sha256_text(octets: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, octets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Claims {
        sub: String,
    }

    fn claims() -> Claims {
        Claims { sub: "app".into() }
    }

    fn raw(key: &SigningKey, header: serde_json::Value) -> String {
        key.sign_with(&header, &claims()).unwrap()
    }

    #[test]
    fn rfc7638_thumbprint_and_jwk_round_trip() {
        // The P-256 key of RFC 7517 appendix A.1.
        let jwk: Jwk = serde_json::from_value(serde_json::json!({
            "kty": "EC", "crv": "P-256", "use": "enc", "kid": "1",
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"
        }))
        .unwrap();
        let key = PublicKey::from_jwk(&jwk).unwrap();
        assert_eq!(key.kid(), "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s");
        assert_eq!(PublicKey::from_jwk(&key.jwk()).unwrap(), key);
        let mut with_private = serde_json::to_value(key.jwk()).unwrap();
        with_private["d"] = "AA".into();
        assert!(PublicKey::from_jwk(&serde_json::from_value(with_private).unwrap()).is_err());
        let mut off_curve = key.point().to_vec();
        off_curve[64] ^= 1;
        assert!(PublicKey::from_point(&off_curve).is_err());
    }

    #[test]
    fn only_the_right_key_kind_and_header() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let good = key.sign(TokenType::Access, &claims()).unwrap();
        assert_eq!(
            open::<Claims>(&good, TokenType::Access, [key.public()]).unwrap(),
            claims()
        );
        assert!(matches!(
            open::<Claims>(&good, TokenType::Access, [other.public()]),
            Err(JwsError::UnknownKey { .. })
        ));
        let kid = key.public().kid();
        let table = [
            (serde_json::json!({"alg":"none","typ":"at+jwt","kid":kid}), "algorithm"),
            (serde_json::json!({"alg":"HS256","typ":"at+jwt","kid":kid}), "algorithm"),
            (serde_json::json!({"alg":"ES256","typ":"JWT","kid":kid}), "type"),
            (serde_json::json!({"alg":"ES256","kid":kid}), "type"),
            (serde_json::json!({"alg":"ES256","typ":"at+jwt"}), "key id"),
            (
                serde_json::json!({"alg":"ES256","typ":"at+jwt","kid":kid,"crit":["b64"]}),
                "critical",
            ),
        ];
        for (header, why) in table {
            let error = open::<Claims>(&raw(&key, header), TokenType::Access, [key.public()]).unwrap_err();
            assert!(error.to_string().contains(why), "{error} should be about {why}");
        }
        // A key id that lies about which key signed.
        let lie = raw(&other, serde_json::json!({"alg":"ES256","typ":"at+jwt","kid":kid}));
        assert_eq!(
            open::<Claims>(&lie, TokenType::Access, [key.public()]),
            Err(JwsError::BadSignature)
        );
        let long = format!("{}{}", good, "A".repeat(MAX_TOKEN));
        assert_eq!(
            open::<Claims>(&long, TokenType::Access, [key.public()]),
            Err(JwsError::TooLong(MAX_TOKEN))
        );
    }

    #[test]
    fn nothing_private_is_shown() {
        let key = SigningKey::generate().unwrap();
        let again = SigningKey::from_pkcs8(&key.to_pkcs8().unwrap()).unwrap();
        assert_eq!(again.public(), key.public());
        assert_eq!(
            format!("{key:?}"),
            format!("SigningKey {{ kid: {:?}, .. }}", key.public().kid())
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_changed_character_is_noticed(position in 0usize..10_000, to in "[A-Za-z0-9_.-]") {
            let key = SigningKey::generate().unwrap();
            let good = key.sign(TokenType::Access, &claims()).unwrap();
            let at = position % good.len();
            let changed = format!("{}{}{}", &good[..at], to, &good[at + 1..]);
            prop_assume!(changed != good);
            prop_assert!(open::<Claims>(&changed, TokenType::Access, [key.public()]).is_err());
        }

        #[test]
        fn garbage_never_panics(text in ".{0,300}") {
            let key = SigningKey::generate().unwrap();
            for kind in TokenType::ALL {
                prop_assert!(open::<Claims>(&text, kind, [key.public()]).is_err());
            }
        }
    }
}

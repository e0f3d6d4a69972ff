//! A tenant's own signing keys, its published key set, and the check of a partner's against the pinned keys.

use crate::{
    authority::{Origin, PartnerAuthority},
    clock::{SKEW, after},
    error::{KeySetError, KeyStoreError},
    jws::{self, Jwk, PublicKey, SigningKey, TokenType},
    seal::SealKey,
};
use jiff::Timestamp;
use rehome_domain::{
    address::DomainName,
    consent::{KeyPurpose, PinnedKey, PinnedKeys},
    id::TenantId,
};
use rehome_store::SigningKeyRow;
use serde::{Deserialize, Serialize};

/// Most keys that a published set may hold.
pub const MAX_KEYS: usize = 64;
/// Most domains that a key set may name.
const MAX_DOMAINS: usize = 5_000;
/// How long a signed key set may be used, in seconds.
const KEY_SET_LIFETIME: i64 = 86_400;

/// A tenant's keys, opened.
#[derive(Debug)]
pub(crate) struct TenantKeys {
    pub(crate) sequence: u64,
    pub(crate) token: SigningKey,
    pub(crate) statement: SigningKey,
    /// All that is published, retired ones too.
    pub(crate) published: Vec<(PublicKey, KeyPurpose)>,
}

impl TenantKeys {
    /// The keys whose signatures on tokens of our own are accepted.
    pub(crate) fn token_keys(&self) -> impl Iterator<Item = &PublicKey> {
        self.published
            .iter()
            .filter(|(_, p)| *p == KeyPurpose::Token)
            .map(|(k, _)| k)
    }
}

fn seal_purpose(purpose: KeyPurpose, kid: &str) -> String {
    match purpose {
        KeyPurpose::Token => format!("signing-key:token:{kid}"),
        KeyPurpose::Statement => format!("signing-key:statement:{kid}"),
    }
}

/// A new key of this purpose, sealed for the store.
pub(crate) fn new_key_row(
    seal: &SealKey,
    tenant: TenantId,
    purpose: KeyPurpose,
    now: Timestamp,
) -> Result<SigningKeyRow, KeyStoreError> {
    let key = SigningKey::generate()?;
    let kid = key.public().kid().to_owned();
    let sealed_private = seal.seal(tenant, &seal_purpose(purpose, &kid), &key.to_pkcs8()?)?;
    Ok(SigningKeyRow {
        public: key.public().point().to_vec(),
        kid,
        purpose,
        sealed_private,
        created: now,
        retired: None,
    })
}

/// Opens a tenant's stored keys: of each purpose the newest that is not retired signs. `None` when it has none yet.
pub(crate) fn open_keys(
    seal: &SealKey,
    tenant: TenantId,
    sequence: u64,
    rows: &[SigningKeyRow],
) -> Result<Option<TenantKeys>, KeyStoreError> {
    let open = |purpose: KeyPurpose| -> Result<Option<SigningKey>, KeyStoreError> {
        let Some(row) = rows.iter().rev().find(|r| r.purpose == purpose && r.retired.is_none()) else {
            return Ok(None);
        };
        let pkcs8 = seal.unseal(tenant, &seal_purpose(purpose, &row.kid), &row.sealed_private)?;
        let key = SigningKey::from_pkcs8(&pkcs8).map_err(|_| KeyStoreError::Damaged)?;
        if key.public().kid() != row.kid {
            Err(KeyStoreError::Damaged)
        } else {
            Ok(Some(key))
        }
    };
    let (Some(token), Some(statement)) = (open(KeyPurpose::Token)?, open(KeyPurpose::Statement)?) else {
        return Ok(None);
    };
    let published = rows
        .iter()
        .map(|r| {
            Ok((
                PublicKey::from_point(&r.public).map_err(|_| KeyStoreError::Damaged)?,
                r.purpose,
            ))
        })
        .collect::<Result<_, KeyStoreError>>()?;
    Ok(Some(TenantKeys {
        sequence,
        token,
        statement,
        published,
    }))
}

/// A key as published: a JWK with its id and what it may sign.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PublishedKey {
    /// The public key.
    #[serde(flatten)]
    pub jwk: Jwk,
    /// Its thumbprint.
    pub kid: String,
    /// `token` or `statement`.
    pub rehome_purpose: PublishedPurpose,
}

/// [`KeyPurpose`] as published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PublishedPurpose {
    /// Tokens, assertions, app descriptions, key sets.
    Token,
    /// Outcome statements and receipts.
    Statement,
}

impl From<KeyPurpose> for PublishedPurpose {
    fn from(purpose: KeyPurpose) -> Self {
        match purpose {
            KeyPurpose::Token => Self::Token,
            KeyPurpose::Statement => Self::Statement,
        }
    }
}

impl From<PublishedPurpose> for KeyPurpose {
    fn from(purpose: PublishedPurpose) -> Self {
        match purpose {
            PublishedPurpose::Token => Self::Token,
            PublishedPurpose::Statement => Self::Statement,
        }
    }
}

/// The published form of a tenant's keys.
pub(crate) fn publish(keys: &TenantKeys) -> Vec<PublishedKey> {
    keys.published
        .iter()
        .map(|(key, purpose)| PublishedKey {
            jwk: key.jwk(),
            kid: key.kid().to_owned(),
            rehome_purpose: (*purpose).into(),
        })
        .collect()
}

/// The JWKS document (RFC 7517 §5) of a tenant.
pub(crate) fn jwks(keys: &TenantKeys, issuer: &str) -> serde_json::Value {
    let entries: Vec<_> = publish(keys)
        .into_iter()
        .map(|k| {
            serde_json::json!({
                "kty": k.jwk.kty, "crv": k.jwk.crv, "x": k.jwk.x, "y": k.jwk.y, "kid": k.kid,
                "use": "sig", "alg": "ES256", "issuer": issuer, "rehome_purpose": k.rehome_purpose,
            })
        })
        .collect();
    serde_json::json!({ "keys": entries })
}

/// Reads published keys: at least one for tokens, no more than [`MAX_KEYS`], each id its key's thumbprint.
pub(crate) fn read_published(sequence: u64, keys: &[PublishedKey]) -> Result<PinnedKeys, String> {
    if keys.is_empty() || keys.len() > MAX_KEYS {
        return Err(format!("it lists {} keys, expected 1 to {MAX_KEYS}", keys.len()));
    }
    let mut out: Vec<PinnedKey> = Vec::new();
    for key in keys {
        let public = PublicKey::from_jwk(&key.jwk).map_err(|e| e.to_string())?;
        if public.kid() != key.kid || out.iter().any(|k| k.kid == key.kid) {
            return Err("a key id is not its key's thumbprint, or stands twice".into());
        }
        out.push(PinnedKey {
            kid: key.kid.clone(),
            purpose: key.rehome_purpose.into(),
            public: public.point().to_vec(),
        });
    }
    Ok(PinnedKeys { sequence, keys: out })
}

/// The pinned keys of one purpose, ready to check signatures.
pub(crate) fn pinned_for(pinned: &PinnedKeys, purpose: KeyPurpose) -> Vec<PublicKey> {
    // A pinned key was a point when it was pinned; one that is none any more signs nothing.
    pinned
        .keys
        .iter()
        .filter(|k| k.purpose == purpose)
        .filter_map(|k| PublicKey::from_point(&k.public).ok())
        .collect()
}

#[derive(Serialize, Deserialize)]
struct KeySetClaims {
    iss: String,
    sequence: u64,
    keys: Vec<PublishedKey>,
    /// What a partner needs to let mailboxes go back to the tenant.
    #[serde(default)]
    home_domains: Vec<String>,
    #[serde(default)]
    rehome_outcome_endpoint: Option<String>,
    iat: i64,
    exp: i64,
}

/// Signs the tenant's key set, with its domains and outcome address, with its current token key.
pub(crate) fn sign_key_set(
    keys: &TenantKeys,
    origin: &Origin,
    tenant: TenantId,
    home_domains: Vec<String>,
    now: Timestamp,
) -> Result<String, jws::CryptographyFailed> {
    let claims = KeySetClaims {
        iss: origin.issuer(tenant),
        sequence: keys.sequence,
        keys: publish(keys),
        home_domains,
        rehome_outcome_endpoint: Some(origin.outcome_endpoint(tenant)),
        iat: now.as_second(),
        exp: after(now, KEY_SET_LIFETIME).as_second(),
    };
    keys.token.sign(TokenType::KeySet, &claims)
}

/// What a tenant says of itself, as read from its own server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantDescription {
    /// Its domains.
    pub home_domains: Vec<String>,
    /// Where the outcome of an attempt can be asked.
    pub outcome_endpoint: String,
    /// Its keys, to be pinned.
    pub keys: PinnedKeys,
    /// The key that signed this: where others are pinned already, it must be one of them.
    pub signer: String,
}

/// Reads the key set of a partner whose authority was found and checked: what is pinned when mailboxes came from there,
/// so that he may take them back. It must be signed by a token key that it lists itself.
///
/// # Errors
/// [`KeySetError`]; also where it names no domain or no outcome address at the authority's own server.
pub fn read_tenant_description(
    authority: &PartnerAuthority,
    document: &str,
    now: Timestamp,
) -> Result<TenantDescription, KeySetError> {
    let bad = |why: &str| KeySetError::Token(jws::JwsError::Malformed(why.to_owned()));
    let unverified = jws::Unverified::parse(document, TokenType::KeySet)?;
    let kid = unverified.kid()?;
    let listed: KeySetClaims = unverified.claims()?;
    let signer = listed
        .keys
        .iter()
        .find(|key| key.kid == kid && key.rehome_purpose == PublishedPurpose::Token)
        .and_then(|key| PublicKey::from_jwk(&key.jwk).ok())
        .filter(|key| key.kid() == kid)
        .ok_or_else(|| bad("it is signed by a key that it does not list for tokens"))?;
    let claims: KeySetClaims = unverified.verify(&signer)?;
    if claims.iss != authority.issuer {
        return Err(KeySetError::WrongIssuer {
            expected: authority.issuer.clone(),
        });
    }
    if claims.iat > now.as_second() + SKEW || now.as_second() >= claims.exp {
        return Err(KeySetError::NotNow);
    }
    let outcome_endpoint = claims
        .rehome_outcome_endpoint
        .filter(|url| url.len() <= 500 && authority.origin.holds(url))
        .ok_or_else(|| bad("it names no outcome address at its own server"))?;
    if claims.home_domains.is_empty() || claims.home_domains.len() > MAX_DOMAINS {
        return Err(bad("it names no domain, or too many"));
    }
    let domains = claims
        .home_domains
        .iter()
        .map(|d| d.parse::<DomainName>().map(|d| d.to_string()));
    Ok(TenantDescription {
        home_domains: domains
            .collect::<Result<_, _>>()
            .map_err(|_| bad("one of its domains is not a domain name"))?,
        outcome_endpoint,
        keys: read_published(claims.sequence, &claims.keys).map_err(|why| bad(&why))?,
        signer: kid.to_owned(),
    })
}

/// What to pin after a partner published a new key set: accepted only when a pinned token key signed it and its
/// number grew. Pinned statement keys stay for ever.
///
/// # Errors
/// [`KeySetError::NotPinned`] when another key signed it: work stops until consent is renewed.
pub fn check_key_set(
    pinned: &PinnedKeys,
    issuer: &str,
    document: &str,
    now: Timestamp,
) -> Result<PinnedKeys, KeySetError> {
    let signers = pinned_for(pinned, KeyPurpose::Token);
    let claims: KeySetClaims = jws::open(document, TokenType::KeySet, &signers).map_err(|e| match e {
        jws::JwsError::UnknownKey { kid } => KeySetError::NotPinned {
            issuer: issuer.to_owned(),
            kid,
        },
        other => KeySetError::Token(other),
    })?;
    if claims.iss != issuer {
        return Err(KeySetError::WrongIssuer {
            expected: issuer.to_owned(),
        });
    }
    if claims.iat > now.as_second() + SKEW || now.as_second() >= claims.exp {
        return Err(KeySetError::NotNow);
    }
    if claims.sequence <= pinned.sequence {
        return Err(KeySetError::SequenceDidNotGrow {
            pinned: pinned.sequence,
            found: claims.sequence,
        });
    }
    let mut fresh = read_published(claims.sequence, &claims.keys)
        .map_err(|why| KeySetError::Token(jws::JwsError::Malformed(why)))?;
    for old in pinned.keys.iter().filter(|k| k.purpose == KeyPurpose::Statement) {
        match fresh.keys.iter().find(|k| k.kid == old.kid) {
            None => fresh.keys.push(old.clone()),
            Some(found) if found.purpose == KeyPurpose::Statement => {}
            Some(_) => {
                let why = "it turns a statement key into a token key".to_owned();
                return Err(KeySetError::Token(jws::JwsError::Malformed(why)));
            }
        }
    }
    if !fresh.keys.iter().any(|k| k.purpose == KeyPurpose::Token) {
        return Err(KeySetError::Token(jws::JwsError::Malformed(
            "it holds no token key".into(),
        )));
    }
    Ok(fresh)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::seal::test_key;

    pub(crate) const TENANT: TenantId = TenantId::from_u128(0xc0);

    pub(crate) fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    pub(crate) fn origin() -> Origin {
        "mail.contoso.example".parse().unwrap()
    }

    pub(crate) fn keys(sequence: u64) -> TenantKeys {
        let rows =
            [KeyPurpose::Token, KeyPurpose::Statement].map(|p| new_key_row(&test_key(), TENANT, p, at(0)).unwrap());
        open_keys(&test_key(), TENANT, sequence, &rows).unwrap().unwrap()
    }

    pub(crate) fn pin(keys: &TenantKeys) -> PinnedKeys {
        read_published(keys.sequence, &publish(keys)).unwrap()
    }

    #[test]
    fn sealed_keys_open_only_where_they_belong() {
        let row = new_key_row(&test_key(), TENANT, KeyPurpose::Token, at(0)).unwrap();
        let mut as_statement = row.clone();
        as_statement.purpose = KeyPurpose::Statement;
        assert!(matches!(
            open_keys(&test_key(), TENANT, 1, &[row.clone(), as_statement]),
            Err(KeyStoreError::Seal(_))
        ));
        assert!(
            open_keys(&test_key(), TENANT, 1, std::slice::from_ref(&row))
                .unwrap()
                .is_none(),
            "no statement key yet"
        );
        let statement = new_key_row(&test_key(), TENANT, KeyPurpose::Statement, at(0)).unwrap();
        assert!(open_keys(&test_key(), TenantId::from_u128(9), 1, &[row, statement]).is_err());
    }

    #[test]
    fn a_new_set_needs_a_pinned_signature_and_a_higher_number() {
        let old = keys(3);
        let pinned = pin(&old);
        let issuer = origin().issuer(TENANT);
        // The successor: a new token key is published beside the old one, which still signs.
        let fresh = keys(0);
        let successor = TenantKeys {
            sequence: 4,
            published: old.published.iter().chain(fresh.published.iter()).cloned().collect(),
            token: old.token,
            statement: old.statement,
        };
        let signed = sign_key_set(&successor, &origin(), TENANT, vec![], at(0)).unwrap();
        let taken = check_key_set(&pinned, &issuer, &signed, at(10)).unwrap();
        assert_eq!((taken.sequence, taken.keys.len()), (4, 4));
        // Replayed: the number does not grow any more.
        assert!(matches!(
            check_key_set(&taken, &issuer, &signed, at(10)),
            Err(KeySetError::SequenceDidNotGrow { pinned: 4, found: 4 })
        ));
        assert!(matches!(
            check_key_set(&pinned, &issuer, &signed, at(86_400)),
            Err(KeySetError::NotNow)
        ));
        assert!(matches!(
            check_key_set(&pinned, &issuer, &signed, at(-121)),
            Err(KeySetError::NotNow)
        ));
        assert!(matches!(
            check_key_set(&pinned, "https://evil.example", &signed, at(0)),
            Err(KeySetError::WrongIssuer { .. })
        ));
        // Signed by a stranger.
        let stranger = sign_key_set(&keys(9), &origin(), TENANT, vec![], at(0)).unwrap();
        let error = check_key_set(&pinned, &issuer, &stranger, at(0)).unwrap_err();
        assert!(matches!(error, KeySetError::NotPinned { .. }));
        assert_eq!(error.error_id().as_str(), "KeyNotPinnedException");
        // A set that lost the statement key: the pinned one stays.
        let lost = TenantKeys {
            sequence: 5,
            published: successor
                .published
                .iter()
                .filter(|(_, p)| *p == KeyPurpose::Token)
                .cloned()
                .collect(),
            token: successor.token,
            statement: successor.statement,
        };
        let signed = sign_key_set(&lost, &origin(), TENANT, vec![], at(0)).unwrap();
        let taken = check_key_set(&pinned, &issuer, &signed, at(0)).unwrap();
        assert!(
            taken
                .keys
                .contains(pinned.keys.iter().find(|k| k.purpose == KeyPurpose::Statement).unwrap())
        );
    }

    #[test]
    fn what_a_tenant_says_of_itself() {
        use crate::authority::{check_discovery, discovery_document};
        let authority = |origin: &Origin| {
            check_discovery(origin, discovery_document(origin, TENANT).to_string().as_bytes()).unwrap()
        };
        let (here, own) = (authority(&origin()), keys(3));
        let domains = || vec!["contoso.example".to_owned()];
        let signed = sign_key_set(&own, &origin(), TENANT, domains(), at(0)).unwrap();
        let found = read_tenant_description(&here, &signed, at(1)).unwrap();
        assert_eq!((found.home_domains, found.keys), (domains(), pin(&own)));
        assert_eq!(found.outcome_endpoint, origin().outcome_endpoint(TENANT));
        assert!(matches!(
            read_tenant_description(&here, &signed, at(KEY_SET_LIFETIME)),
            Err(KeySetError::NotNow)
        ));
        let elsewhere: Origin = "mail.fabrikam.example".parse().unwrap();
        assert!(matches!(
            read_tenant_description(&authority(&elsewhere), &signed, at(1)),
            Err(KeySetError::WrongIssuer { .. })
        ));
        // An earlier version's set names no domain.
        let bare = sign_key_set(&own, &origin(), TENANT, vec![], at(0)).unwrap();
        assert!(read_tenant_description(&here, &bare, at(1)).is_err());
        // Signed by a key that the set does not list.
        let claims = KeySetClaims {
            iss: here.issuer.clone(),
            sequence: 3,
            keys: publish(&own),
            home_domains: domains(),
            rehome_outcome_endpoint: Some(origin().outcome_endpoint(TENANT)),
            iat: at(0).as_second(),
            exp: at(60).as_second(),
        };
        let forged = keys(3).token.sign(TokenType::KeySet, &claims).unwrap();
        assert!(read_tenant_description(&here, &forged, at(1)).is_err());
        let astray = KeySetClaims {
            rehome_outcome_endpoint: Some(elsewhere.outcome_endpoint(TENANT)),
            ..claims
        };
        let astray = own.token.sign(TokenType::KeySet, &astray).unwrap();
        assert!(read_tenant_description(&here, &astray, at(1)).is_err());
    }
}

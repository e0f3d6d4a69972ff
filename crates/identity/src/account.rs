//! Administrators: one-time codes, tokens, who is calling.

use crate::{
    authority::Origin,
    clock::{SKEW, after},
    error::AdminTokenError,
    jws::{CryptographyFailed, PublicKey, SigningKey, TokenType, open},
};
use aws_lc_rs::{
    digest::{SHA256, digest},
    rand,
};
use jiff::Timestamp;
use rehome_domain::id::{AccountId, TenantId};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use uuid::Uuid;
use zeroize::Zeroizing;

/// The role group that may do everything; its last member cannot be removed.
pub const ORGANIZATION_MANAGEMENT: &str = "Organization Management";
/// The role for consent, app registrations and secrets; Organization Management has it.
pub const APPLICATION_ADMINISTRATION: &str = "Application Administration";
/// Shortest password, in characters.
pub const MINIMUM_PASSWORD_LENGTH: usize = 12;
/// Longest password, in octets.
const MAXIMUM_PASSWORD_LENGTH: usize = 1000;
/// Life of an administrator's token, in seconds.
pub(crate) const ADMIN_LIFETIME: i64 = 8 * 3600;
/// Life of a one-time sign-in code, in seconds.
pub(crate) const CODE_LIFETIME: i64 = 24 * 3600;

/// An administrator whose token was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminCaller {
    /// In which tenant.
    pub tenant: TenantId,
    /// The account.
    pub account: AccountId,
    /// Its sign-in name.
    pub name: String,
    /// Its role groups as they are now.
    pub role_groups: Vec<String>,
}

impl AdminCaller {
    /// Whether the caller is in a role group.
    #[must_use]
    pub fn is_member_of(&self, role_group: &str) -> bool {
        self.role_groups.iter().any(|g| g.eq_ignore_ascii_case(role_group))
    }
}

/// A session just begun.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// The `admin+jwt`: bearer token of the REST surface and the CLI, session of the console.
    pub token: SecretString,
    /// Who.
    pub caller: AdminCaller,
    /// When it ends.
    pub expires: Timestamp,
}

/// Whether a password may be set.
pub(crate) fn password_is_allowed(password: &SecretString) -> bool {
    let text = password.expose_secret();
    text.chars().count() >= MINIMUM_PASSWORD_LENGTH && text.len() <= MAXIMUM_PASSWORD_LENGTH
}

/// Whether a text can be a sign-in name: `name@domain`.
pub(crate) fn is_sign_in_name(name: &str) -> bool {
    name.parse::<rehome_domain::address::SmtpAddress>().is_ok()
}

const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";

/// A new one-time code: 24 letters and digits that are not mistaken for each other, 120 random bits.
pub(crate) fn new_code() -> Result<SecretString, CryptographyFailed> {
    let mut octets = Zeroizing::new([0u8; 24]);
    rand::fill(octets.as_mut()).map_err(|_| CryptographyFailed)?;
    let mut text = Zeroizing::new(String::new());
    for (n, octet) in octets.iter().enumerate() {
        if n > 0 && n % 6 == 0 {
            text.push('-');
        }
        text.push(char::from(ALPHABET[usize::from(octet % 32)]));
    }
    Ok(SecretString::from(text.as_str()))
}

/// How a code is stored. Case, blanks and hyphens do not matter. A plain hash suffices for 120 random bits.
pub(crate) fn code_hash(code: &SecretString) -> Vec<u8> {
    let plain: Zeroizing<String> = Zeroizing::new(
        code.expose_secret()
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .map(|c| c.to_ascii_uppercase())
            .collect(),
    );
    digest(&SHA256, plain.as_bytes()).as_ref().to_vec()
}

/// Whether `presented` is the open code.
pub(crate) fn code_matches(code: Option<&(Vec<u8>, Timestamp)>, presented: &SecretString, now: Timestamp) -> bool {
    let presented = code_hash(presented);
    code.is_some_and(|(hash, end)| bool::from(hash.ct_eq(&presented)) && now < *end)
}

#[derive(Debug, Serialize, Deserialize)]
struct AdminClaims {
    iss: String,
    aud: String,
    tid: String,
    oid: String,
    sub: String,
    groups: Vec<String>,
    jti: String,
    iat: i64,
    exp: i64,
}

/// Signs an administrator's token.
pub(crate) fn sign_admin(
    key: &SigningKey,
    origin: &Origin,
    caller: &AdminCaller,
    now: Timestamp,
) -> Result<(SecretString, Timestamp), CryptographyFailed> {
    let expires = after(now, ADMIN_LIFETIME);
    let claims = AdminClaims {
        iss: origin.issuer(caller.tenant),
        aud: origin.admin_audience(caller.tenant),
        tid: caller.tenant.to_string(),
        oid: caller.account.to_string(),
        sub: caller.name.clone(),
        groups: caller.role_groups.clone(),
        jti: Uuid::new_v4().to_string(),
        iat: now.as_second(),
        exp: expires.as_second(),
    };
    Ok((key.sign(TokenType::Admin, &claims)?.into(), expires))
}

/// What an administrator's token says, for this tenant and time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CheckedAdmin {
    pub(crate) account: AccountId,
    pub(crate) issued: i64,
}

/// Checks an administrator's token but for the account's present state.
pub(crate) fn check_admin<'k>(
    token: &str,
    keys: impl IntoIterator<Item = &'k PublicKey>,
    origin: &Origin,
    tenant: TenantId,
    now: Timestamp,
) -> Result<CheckedAdmin, AdminTokenError> {
    let claims: AdminClaims = open(token, TokenType::Admin, keys)?;
    let bad = |claim: &'static str| AdminTokenError::Claim { claim };
    if claims.iss != origin.issuer(tenant) {
        return Err(bad("iss"));
    }
    if claims.aud != origin.admin_audience(tenant) {
        return Err(bad("aud"));
    }
    if claims.tid.parse() != Ok(tenant) {
        return Err(bad("tid"));
    }
    let second = now.as_second();
    if second >= claims.exp {
        return Err(AdminTokenError::Ended);
    }
    if claims.iat > second + SKEW || claims.exp > claims.iat.saturating_add(ADMIN_LIFETIME) {
        return Err(bad("iat"));
    }
    Ok(CheckedAdmin {
        account: claims.oid.parse().map_err(|_| bad("oid"))?,
        issued: claims.iat,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyset::tests::at;

    #[test]
    fn codes() {
        let code = new_code().unwrap();
        let text = code.expose_secret().to_owned();
        assert_eq!(text.len(), 27);
        let stored = (code_hash(&code), at(100));
        for (typed, second, good) in [
            (text.clone(), 0, true),
            (text.to_lowercase().replace('-', " "), 99, true),
            (text.clone(), 100, false),
            (text[1..].to_owned(), 0, false),
            (String::new(), 0, false),
        ] {
            assert_eq!(code_matches(Some(&stored), &typed.into(), at(second)), good);
        }
        assert!(!code_matches(None, &"".into(), at(0)));
        assert_ne!(new_code().unwrap().expose_secret(), text);
    }

    #[test]
    fn passwords_and_names() {
        assert!(!password_is_allowed(&"eleven char".into()));
        assert!(password_is_allowed(&"twelve chars".into()));
        assert!(!password_is_allowed(&"x".repeat(1001).into()));
        assert!(is_sign_in_name("admin@contoso.example"));
        assert!(!is_sign_in_name("admin"));
    }
}

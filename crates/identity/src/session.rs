//! The console's session: a cookie that holds the administrator's token, and the guard against forged forms.

use aws_lc_rs::{hmac, rand::SystemRandom};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};

use crate::{account::ADMIN_LIFETIME, jws::CryptographyFailed};

/// The cookie's name; the prefix makes browsers insist on Secure, Path=/ and no Domain.
pub const SESSION_COOKIE: &str = "__Host-rehome";

/// The `Set-Cookie` value that begins a session. Not to be logged.
#[must_use]
pub fn session_cookie(token: &SecretString) -> String {
    format!(
        "{SESSION_COOKIE}={}; Path=/; Max-Age={ADMIN_LIFETIME}; HttpOnly; Secure; SameSite=Lax",
        token.expose_secret()
    )
}

/// The `Set-Cookie` value that ends it.
#[must_use]
pub fn session_cookie_ended() -> String {
    format!("{SESSION_COOKIE}=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax")
}

/// The session's token in a `Cookie` header.
#[must_use]
pub fn session_from_cookies(header: &str) -> Option<SecretString> {
    header
        .split(';')
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, value)| *name == SESSION_COOKIE && !value.is_empty())
        .map(|(_, value)| SecretString::from(value))
}

/// Makes and checks anti-forgery values with a key of this process.
pub(crate) struct CsrfKey(hmac::Key);

impl std::fmt::Debug for CsrfKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CsrfKey(..)")
    }
}

impl CsrfKey {
    pub(crate) fn generate() -> Result<Self, CryptographyFailed> {
        hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map(Self)
            .map_err(|_| CryptographyFailed)
    }

    pub(crate) fn make(&self, session: &SecretString) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.0, session.expose_secret().as_bytes()))
    }

    pub(crate) fn check(&self, session: &SecretString, value: &str) -> bool {
        URL_SAFE_NO_PAD
            .decode(value)
            .is_ok_and(|tag| hmac::verify(&self.0, session.expose_secret().as_bytes(), &tag).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies() {
        let token = SecretString::from("a.b.c");
        let set = session_cookie(&token);
        for part in ["HttpOnly", "Secure", "SameSite=Lax", "Path=/"] {
            assert!(set.contains(part) && session_cookie_ended().contains(part));
        }
        let sent = format!("x=1; {}; y=2", set.split(';').next().unwrap());
        assert_eq!(session_from_cookies(&sent).unwrap().expose_secret(), "a.b.c");
        for nothing in ["", "x=1", "__Host-rehome=", "__Host-rehome"] {
            assert!(session_from_cookies(nothing).is_none());
        }
    }

    #[test]
    fn forged_forms() {
        let (key, other) = (CsrfKey::generate().unwrap(), CsrfKey::generate().unwrap());
        let (one, two) = (SecretString::from("one"), SecretString::from("two"));
        let value = key.make(&one);
        assert!(key.check(&one, &value));
        for (key, session, value) in [
            (&key, &two, value.as_str()),
            (&other, &one, &value),
            (&key, &one, ""),
            (&key, &one, "AA"),
        ] {
            assert!(!key.check(session, value));
        }
    }
}

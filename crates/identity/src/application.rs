//! Application registrations and their secrets: the rules, without the store.

use crate::{error::ApplicationError, jws::CryptographyFailed};
use aws_lc_rs::{
    digest::{SHA256, digest},
    rand,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use rehome_domain::consent::{EXCHANGE_ONLINE_APP_ID, ROLE_MAILBOX_MIGRATION};
use rehome_store::{ApplicationSecret, RequiredPermission};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use url::{Host, Url};
use uuid::Uuid;
use zeroize::Zeroizing;

/// App id of the resource Microsoft Graph.
pub const MICROSOFT_GRAPH_APP_ID: Uuid = Uuid::from_u128(0x00000003_0000_0000_c000_000000000000);
/// Display name under which the resource is searched.
pub const EXCHANGE_ONLINE_NAME: &str = "Office 365 Exchange Online";
/// Most redirect URIs of an application.
pub const MAX_REDIRECT_URIS: usize = 256;
/// Longest redirect URI, in characters.
pub const MAX_REDIRECT_URI: usize = 256;
/// Secrets that an application may have at once.
pub const MAX_SECRETS: usize = 20;
/// Longest life of a secret, in days (24 months).
pub const MAX_SECRET_DAYS: u32 = 731;
/// Life of a secret when none is given, in days (6 months).
pub const DEFAULT_SECRET_DAYS: u32 = 183;

/// The delegated permission that a new application has.
#[must_use]
pub fn user_read() -> RequiredPermission {
    RequiredPermission {
        resource_app_id: MICROSOFT_GRAPH_APP_ID,
        name: "User.Read".into(),
        application: false,
    }
}

/// The application permission that a mover needs.
#[must_use]
pub fn mailbox_migration() -> RequiredPermission {
    RequiredPermission {
        resource_app_id: EXCHANGE_ONLINE_APP_ID.0,
        name: ROLE_MAILBOX_MIGRATION.into(),
        application: true,
    }
}

/// What is wrong with a redirect URI, if anything: https except for localhost, at most 256 characters,
/// none of `! $ ' ( ) , ;`, no fragment, no user.
#[must_use]
pub fn redirect_uri_fault(uri: &str) -> Option<&'static str> {
    if uri.chars().count() > MAX_REDIRECT_URI {
        return Some("it is longer than 256 characters");
    }
    if uri.contains(['!', '$', '\'', '(', ')', ',', ';', '\\', '"', '<', '>'])
        || uri.chars().any(|c| c.is_control() || c == ' ')
    {
        return Some("it holds a character that is not allowed");
    }
    let Ok(url) = Url::parse(uri) else {
        return Some("it is not an absolute URI");
    };
    let localhost = matches!(url.host(), Some(Host::Domain("localhost")));
    match url.scheme() {
        "https" if url.host().is_some() => {}
        "http" if localhost => {}
        _ => return Some("it must begin with https:// (http:// for localhost only)"),
    }
    if url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Some("it must not hold a fragment, a user or a password");
    }
    None
}

/// Checks what an administrator gives for an application.
///
/// # Errors
/// The first fault.
pub fn check_application(
    name: &str,
    redirect_uris: &[String],
    permissions: &[RequiredPermission],
) -> Result<(), ApplicationError> {
    if name.trim().is_empty() || name.chars().count() > 120 || name.chars().any(char::is_control) {
        return Err(ApplicationError::BadName);
    }
    if redirect_uris.len() > MAX_REDIRECT_URIS {
        return Err(ApplicationError::TooManyRedirectUris);
    }
    for uri in redirect_uris {
        if let Some(why) = redirect_uri_fault(uri) {
            return Err(ApplicationError::BadRedirectUri {
                uri: uri.chars().take(256).collect(),
                why,
            });
        }
    }
    for permission in permissions {
        let known = *permission == mailbox_migration() || *permission == user_read();
        if !known {
            return Err(ApplicationError::UnknownPermission {
                name: permission.name.chars().take(64).collect(),
            });
        }
    }
    Ok(())
}

/// 256 random bits in base64url: a new secret's value.
pub(crate) fn new_secret_value() -> Result<SecretString, CryptographyFailed> {
    let mut octets = Zeroizing::new([0u8; 32]);
    rand::fill(octets.as_mut()).map_err(|_| CryptographyFailed)?;
    Ok(SecretString::from(URL_SAFE_NO_PAD.encode(octets.as_ref())))
}

/// How a secret is stored. A plain hash suffices for 256 random bits.
pub(crate) fn secret_hash(value: &SecretString) -> Vec<u8> {
    digest(&SHA256, value.expose_secret().as_bytes()).as_ref().to_vec()
}

/// What a presented secret is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SecretCheck {
    /// One that is valid now.
    Valid,
    /// One that has ended; with its id.
    Expired(Uuid),
    /// None of them (or one that is not valid yet).
    Wrong,
}

/// Compares a presented secret with all stored ones, in time that does not depend on where they differ.
pub(crate) fn check_secret(stored: &[ApplicationSecret], presented: &SecretString, now: Timestamp) -> SecretCheck {
    let presented = secret_hash(presented);
    let mut found = SecretCheck::Wrong;
    for secret in stored {
        if bool::from(secret.hash.ct_eq(&presented)) && secret.start <= now {
            found = match found {
                SecretCheck::Valid => SecretCheck::Valid,
                SecretCheck::Expired(_) | SecretCheck::Wrong if now < secret.end => SecretCheck::Valid,
                SecretCheck::Expired(_) | SecretCheck::Wrong => SecretCheck::Expired(secret.key_id),
            };
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyset::tests::at;

    #[test]
    fn redirect_uris() {
        let long = format!("https://a.example/{}", "x".repeat(300));
        for (uri, good) in [
            ("https://office.com", true),
            ("https://contoso.example/Back?x=1", true),
            ("http://localhost:8080/back", true),
            ("http://contoso.example/", false),
            ("ftp://contoso.example/", false),
            ("javascript:alert(1)", false),
            ("/relative", false),
            ("https://a.example/#f", false),
            ("https://u:p@a.example/", false),
            ("https://a.example/(x)", false),
            ("https://a.example/a b", false),
            ("https://a.example/\n", false),
            (&long, false),
            ("", false),
        ] {
            assert_eq!(redirect_uri_fault(uri).is_none(), good, "{uri}");
        }
    }

    #[test]
    fn secrets_rotate() {
        let (one, two) = (new_secret_value().unwrap(), new_secret_value().unwrap());
        assert_eq!(one.expose_secret().len(), 43);
        let row = |value: &SecretString, id: u128, start: i64, end: i64| ApplicationSecret {
            key_id: Uuid::from_u128(id),
            display_name: String::new(),
            hint: value.expose_secret()[..3].to_owned(),
            hash: secret_hash(value),
            start: at(start),
            end: at(end),
        };
        let stored = [row(&one, 1, 0, 100), row(&two, 2, 50, 200)];
        for (value, when, expected) in [
            (&one, 0, SecretCheck::Valid),
            (&one, 99, SecretCheck::Valid),
            (&one, 100, SecretCheck::Expired(Uuid::from_u128(1))),
            (&two, 49, SecretCheck::Wrong),
            (&two, 50, SecretCheck::Valid),
            (&two, 150, SecretCheck::Valid),
            (&"other".into(), 60, SecretCheck::Wrong),
            (&"".into(), 60, SecretCheck::Wrong),
        ] {
            assert_eq!(check_secret(&stored, value, at(when)), expected, "at {when}");
        }
        assert!(!format!("{:?}", stored[0]).contains(&stored[0].hint));
    }

    #[test]
    fn unknown_permissions_are_refused() {
        let mut strange = mailbox_migration();
        strange.name = "full_access_as_app".into();
        assert!(check_application("a", &[], &[user_read(), mailbox_migration()]).is_ok());
        assert!(matches!(
            check_application("a", &[], &[strange]),
            Err(ApplicationError::UnknownPermission { .. })
        ));
        assert!(matches!(
            check_application(" ", &[], &[]),
            Err(ApplicationError::BadName)
        ));
    }
}

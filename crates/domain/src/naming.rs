//! Names, aliases and lists of proxy addresses of recipients: what is allowed, what is made when nothing is given.

use crate::address::{DomainName, ProxyAddress, SmtpAddress};
use std::collections::HashSet;

/// Longest Name and Alias, characters.
pub const MAX_NAME: usize = 64;
/// Longest DisplayName, characters.
pub const MAX_DISPLAY_NAME: usize = 256;

/// Why a name, an alias or a list of addresses cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamingError {
    /// Empty, too long, or with control characters.
    #[error("{what} '{value}' cannot be used: 1 to {limit} characters, none of them a control character")]
    Text {
        /// Which property.
        what: &'static str,
        /// As given.
        value: String,
        /// Most characters.
        limit: usize,
    },
    /// A character that an alias may not hold, or a dot in the wrong place.
    #[error(
        "the Alias '{0}' cannot be used: letters, digits and !#%*+-/=?^_~$&'`{{}}| are allowed, and dots between them, 64 characters in all"
    )]
    Alias(String),
    /// More than one `SMTP:`.
    #[error("more than one primary address is given: {0} and {1} both begin with SMTP:")]
    TwoPrimaries(String, String),
    /// None left that mail can go to.
    #[error("a recipient needs an SMTP address")]
    NoSmtp,
    /// The primary address taken away and none put in its place.
    #[error(
        "{0} is the primary address: add another with SMTP: in the same command, or change it with -WindowsEmailAddress first"
    )]
    PrimaryRemoved(String),
}

/// Checks a Name (`what` says which) or DisplayName and returns it trimmed.
///
/// # Errors
/// [`NamingError::Text`].
pub fn checked_text(what: &'static str, value: &str, limit: usize) -> Result<String, NamingError> {
    let trimmed = value.trim();
    if trimmed.is_empty() || trimmed.chars().count() > limit || trimmed.chars().any(char::is_control) {
        return Err(NamingError::Text {
            what,
            value: value.chars().take(limit).collect(),
            limit,
        });
    }
    Ok(trimmed.to_owned())
}

fn alias_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#%*+-/=?^_~$&'`{}|".contains(c) || ('\u{a1}'..='\u{ff}').contains(&c)
}

/// Checks an alias.
///
/// # Errors
/// [`NamingError::Alias`].
pub fn checked_alias(alias: &str) -> Result<String, NamingError> {
    let parts_good = alias
        .split('.')
        .all(|part| !part.is_empty() && part.chars().all(alias_character));
    if parts_good && alias.chars().count() <= MAX_NAME {
        Ok(alias.to_owned())
    } else {
        Err(NamingError::Alias(alias.to_owned()))
    }
}

/// The alias of an object for which none was given: the part of its sign-in name before the `@`, otherwise its Name
/// without blanks and with `?` for what an alias may not hold.
#[must_use]
pub fn default_alias(sign_in_name: Option<&SmtpAddress>, name: &str) -> String {
    if let Some(alias) = sign_in_name.and_then(|n| checked_alias(n.local()).ok()) {
        return alias;
    }
    let alias: String = name
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| if alias_character(c) || c == '.' { c } else { '?' })
        .take(MAX_NAME)
        .collect();
    checked_alias(&alias).unwrap_or_else(|_| alias.replace('.', "?"))
}

/// The address made from an alias: ASCII only, umlauts written out, everything else `_`.
#[must_use]
pub fn address_from_alias(alias: &str, domain: &DomainName) -> Option<SmtpAddress> {
    let mut local = String::new();
    for c in alias.chars() {
        match c {
            'ä' | 'æ' => local.push_str("ae"),
            'ö' | 'ø' => local.push_str("oe"),
            'ü' => local.push_str("ue"),
            'Ä' | 'Æ' => local.push_str("Ae"),
            'Ö' | 'Ø' => local.push_str("Oe"),
            'Ü' => local.push_str("Ue"),
            'ß' => local.push_str("ss"),
            c if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+' | '\'') => local.push(c),
            _ => local.push('_'),
        }
    }
    format!("{local}@{domain}").parse().ok()
}

fn demoted(address: ProxyAddress) -> ProxyAddress {
    match address {
        ProxyAddress::Primary(a) => ProxyAddress::Smtp(a),
        other @ (ProxyAddress::Smtp(_) | ProxyAddress::X500(_) | ProxyAddress::X400(_)) => other,
    }
}

fn primaries(list: &[ProxyAddress]) -> impl Iterator<Item = &ProxyAddress> {
    list.iter().filter(|a| matches!(a, ProxyAddress::Primary(_)))
}

/// `EmailAddresses` as a whole new list: the `SMTP:` entry is primary, without one the first SMTP entry; doubles count once.
///
/// # Errors
/// [`NamingError::TwoPrimaries`], [`NamingError::NoSmtp`].
pub fn replaced_addresses(list: Vec<ProxyAddress>) -> Result<Vec<ProxyAddress>, NamingError> {
    {
        let mut primaries = primaries(&list);
        if let (Some(first), Some(second)) = (primaries.next(), primaries.find(|_| true))
            && first.key() != second.key()
        {
            return Err(NamingError::TwoPrimaries(first.to_string(), second.to_string()));
        }
    }
    let primary = primaries(&list)
        .next()
        .or_else(|| list.iter().find(|a| a.smtp().is_some()))
        .and_then(ProxyAddress::smtp)
        .cloned()
        .ok_or(NamingError::NoSmtp)?;
    Ok(with_primary(list, &primary))
}

/// The list with `primary` as its primary address, in first place; the one before stays as a further address.
#[must_use]
pub fn with_primary(list: Vec<ProxyAddress>, primary: &SmtpAddress) -> Vec<ProxyAddress> {
    let first = ProxyAddress::Primary(primary.clone());
    let mut seen = HashSet::from([first.key()]);
    let mut out = vec![first];
    out.extend(list.into_iter().map(demoted).filter(|a| seen.insert(a.key())));
    out
}

/// `EmailAddresses` edited by `@{Add=…; Remove=…}`. An added `SMTP:` becomes primary. Returns also those that were to be
/// removed and are not there.
///
/// # Errors
/// [`NamingError::TwoPrimaries`], [`NamingError::PrimaryRemoved`].
pub fn edited_addresses(
    current: &[ProxyAddress],
    add: &[ProxyAddress],
    remove: &[ProxyAddress],
) -> Result<(Vec<ProxyAddress>, Vec<ProxyAddress>), NamingError> {
    let mut list = current.to_vec();
    let missing = remove
        .iter()
        .filter(|r| !current.iter().any(|c| c.key() == r.key()))
        .cloned()
        .collect();
    list.retain(|c| !remove.iter().any(|r| r.key() == c.key()));
    let mut new = primaries(add);
    let primary = new.next();
    if let (Some(first), Some(second)) = (primary, new.next()) {
        return Err(NamingError::TwoPrimaries(first.to_string(), second.to_string()));
    }
    list.extend(add.iter().cloned().map(demoted));
    let primary = primary
        .or_else(|| primaries(&list).next())
        .and_then(ProxyAddress::smtp)
        .cloned();
    match primary {
        Some(primary) => Ok((with_primary(list, &primary), missing)),
        None => Err(NamingError::PrimaryRemoved(
            primaries(current).next().map(ToString::to_string).unwrap_or_default(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(texts: &[&str]) -> Vec<ProxyAddress> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    fn texts(list: &[ProxyAddress]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn aliases() {
        for good in ["anna", "a.b", "o'neil", "röntgen", "a+b/c=d?"] {
            assert!(checked_alias(good).is_ok(), "{good}");
        }
        let long = "a".repeat(65);
        for bad in ["", ".a", "a.", "a..b", "a b", "a@b", "a,b", "日本", &long] {
            assert!(checked_alias(bad).is_err(), "{bad}");
        }
        let address = "Anna.B@contoso.example".parse().unwrap();
        assert_eq!(default_alias(Some(&address), "x"), "Anna.B");
        assert_eq!(default_alias(None, "Anna B, Müller"), "AnnaB?Müller");
        assert_eq!(default_alias(None, "A. B."), "A?B?");
        let domain = "contoso.example".parse().unwrap();
        assert_eq!(
            address_from_alias("Röntgen?X", &domain).unwrap().to_string(),
            "Roentgen_X@contoso.example"
        );
    }

    #[test]
    fn names() {
        assert_eq!(checked_text("Name", " a ", 64), Ok("a".to_owned()));
        for bad in ["", " ", "a\nb", &"a".repeat(65)] {
            assert!(checked_text("Name", bad, 64).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn replacing() {
        for (given, expected) in [
            (
                &["a@x.example", "b@x.example"][..],
                &["SMTP:a@x.example", "smtp:b@x.example"][..],
            ),
            (
                &["smtp:a@x.example", "SMTP:b@x.example", "x500:/o=a"],
                &["SMTP:b@x.example", "smtp:a@x.example", "x500:/o=a"],
            ),
            (
                &["x500:/o=a", "a@x.example", "A@X.example", "X500:/O=A"],
                &["SMTP:a@x.example", "x500:/o=a"],
            ),
            (&["smtp:a@x.example", "SMTP:a@x.example"], &["SMTP:a@x.example"]),
        ] {
            assert_eq!(texts(&replaced_addresses(list(given)).unwrap()), expected, "{given:?}");
        }
        assert_eq!(replaced_addresses(list(&["x500:/o=a"])), Err(NamingError::NoSmtp));
        assert!(matches!(
            replaced_addresses(list(&["SMTP:a@b", "SMTP:c@d"])),
            Err(NamingError::TwoPrimaries(..))
        ));
    }

    #[test]
    fn editing() {
        let current = list(&["SMTP:a@x.example", "smtp:b@x.example", "x500:/o=old"]);
        for (add, remove, expected, missing) in [
            (
                &["x500:/o=new"][..],
                &[][..],
                &["SMTP:a@x.example", "smtp:b@x.example", "x500:/o=old", "x500:/o=new"][..],
                &[][..],
            ),
            (
                &["SMTP:c@x.example"],
                &[],
                &[
                    "SMTP:c@x.example",
                    "smtp:a@x.example",
                    "smtp:b@x.example",
                    "x500:/o=old",
                ],
                &[],
            ),
            (
                &["SMTP:c@x.example"],
                &["a@x.example"],
                &["SMTP:c@x.example", "smtp:b@x.example", "x500:/o=old"],
                &[],
            ),
            (
                &["SMTP:b@x.example"],
                &["X500:/O=OLD"],
                &["SMTP:b@x.example", "smtp:a@x.example"],
                &[],
            ),
            (&[], &["SMTP:b@x.example"], &["SMTP:a@x.example", "x500:/o=old"], &[]),
            (
                &["a@x.example"],
                &["z@x.example"],
                &["SMTP:a@x.example", "smtp:b@x.example", "x500:/o=old"],
                &["smtp:z@x.example"],
            ),
        ] {
            let (found, gone) = edited_addresses(&current, &list(add), &list(remove)).unwrap();
            assert_eq!(
                (texts(&found), texts(&gone)),
                (
                    expected.iter().map(|t| (*t).to_owned()).collect(),
                    missing.iter().map(|t| (*t).to_owned()).collect()
                ),
                "{add:?} {remove:?}"
            );
        }
        let refused = edited_addresses(&current, &list(&["c@x.example"]), &list(&["a@x.example"]));
        assert_eq!(refused, Err(NamingError::PrimaryRemoved("SMTP:a@x.example".into())));
        assert!(matches!(
            edited_addresses(&current, &list(&["SMTP:c@d", "SMTP:e@f"]), &[]),
            Err(NamingError::TwoPrimaries(..))
        ));
    }
}

//! Lists of a mail server's accounts, as administrators have them: one name a line, a passwd-file, or what a server's own
//! tool prints. Judged line by line.

use crate::address::{DomainName, SmtpAddress};
use std::collections::BTreeSet;

/// Longest line, octets.
const MAX_LINE: usize = 2048;

/// One account of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedAccount {
    /// The line, from 1.
    pub line: usize,
    /// The account's name.
    pub account: String,
    /// The address that it gets, or why it gets none.
    pub address: Result<SmtpAddress, String>,
}

/// Why a list cannot be used as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserListError {
    /// It is not text.
    #[error("the list is not UTF-8 text")]
    NotText,
    /// There is nobody in it.
    #[error("the list names no account")]
    Empty,
    /// It is too long.
    #[error("the list names more than {0} accounts")]
    TooLong(usize),
}

/// Reads a list. Blank lines and lines that begin with `#` are passed over. Of a line with colons the first field is the
/// account (a passwd-file); of any other the first word is, and a second one, if there is one, is its address. An account
/// without an address of its own has the address of the same name, in `domain` where it has no domain.
///
/// # Errors
/// When the list as a whole cannot be used.
pub fn read(octets: &[u8], domain: &DomainName, most: usize) -> Result<Vec<ListedAccount>, UserListError> {
    let octets = octets.strip_prefix(b"\xef\xbb\xbf").unwrap_or(octets);
    let text = std::str::from_utf8(octets).map_err(|_| UserListError::NotText)?;
    let mut accounts = Vec::new();
    let mut seen = (BTreeSet::new(), BTreeSet::new());
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if accounts.len() == most {
            return Err(UserListError::TooLong(most));
        }
        let mut listed = one(number + 1, line, domain);
        if listed.address.is_ok() && !seen.0.insert(listed.account.to_lowercase()) {
            listed.address = Err("The list names this account twice.".to_owned());
        }
        if let Ok(address) = &listed.address
            && !seen.1.insert(address.key())
        {
            listed.address = Err(format!("The list names the address {address} twice."));
        }
        accounts.push(listed);
    }
    if accounts.is_empty() {
        return Err(UserListError::Empty);
    }
    Ok(accounts)
}

fn one(line_number: usize, line: &str, domain: &DomainName) -> ListedAccount {
    let refused = |account: &str, why: String| ListedAccount {
        line: line_number,
        account: account.chars().take(100).collect(),
        address: Err(why),
    };
    if line.len() > MAX_LINE {
        return refused(line, format!("Line {line_number} is longer than {MAX_LINE} octets."));
    }
    let mut words = line.split_whitespace();
    let (account, address, more) = match line.split_once(':') {
        Some((account, _)) => (account.trim(), None, None),
        None => (words.next().unwrap_or_default(), words.next(), words.next()),
    };
    if account.is_empty() || account.contains(char::is_whitespace) || more.is_some() {
        let why =
            format!("Line {line_number} is neither an account, an account with its address, nor of a passwd-file.");
        return refused(account, why);
    }
    ListedAccount {
        line: line_number,
        account: account.to_owned(),
        address: address_of(address.unwrap_or(account), domain),
    }
}

/// The address that a name stands for: itself where it has a domain, else the one in `domain`.
///
/// # Errors
/// A sentence, when it is no address.
pub fn address_of(name: &str, domain: &DomainName) -> Result<SmtpAddress, String> {
    let text = if name.contains('@') {
        name.to_owned()
    } else {
        format!("{name}@{domain}")
    };
    text.parse().map_err(|error| format!("{error}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Vec<(usize, String, Option<String>)> {
        let listed = read(text.as_bytes(), &"contoso.example".parse().unwrap(), 10).unwrap();
        listed
            .into_iter()
            .map(|l| (l.line, l.account, l.address.ok().map(|a| a.to_string())))
            .collect()
    }

    #[test]
    fn every_kind_of_list() {
        for (text, account, address) in [
            ("press", "press", "press@contoso.example"),
            ("\u{feff}press\r\n", "press", "press@contoso.example"),
            (
                "press@fabrikam.example",
                "press@fabrikam.example",
                "press@fabrikam.example",
            ),
            ("u0017 press@contoso.example", "u0017", "press@contoso.example"),
            ("u0017\tpress", "u0017", "press@contoso.example"),
            (
                "press:{SHA512-CRYPT}$6$x:1000:1000::/home/press::",
                "press",
                "press@contoso.example",
            ),
            (
                "press@contoso.example:{PLAIN}a b c::",
                "press@contoso.example",
                "press@contoso.example",
            ),
        ] {
            assert_eq!(
                rows(text),
                [(1, account.to_owned(), Some(address.to_owned()))],
                "{text}"
            );
        }
        let shown = rows("# users\n\npress\n  orders  \n");
        assert_eq!(shown.iter().map(|row| row.0).collect::<Vec<_>>(), [3, 4]);
    }

    #[test]
    fn what_is_refused_is_named() {
        let long = "x".repeat(MAX_LINE + 1);
        for line in [
            "a b@c.example d",
            ":x",
            "a b:c",
            "pr\u{e9}ss ..@",
            "a@b@c",
            long.as_str(),
        ] {
            let shown = rows(line);
            assert_eq!(shown.len(), 1);
            assert_eq!(shown[0].2, None, "{line}");
        }
        let twice = rows("press\nPress\norders press@contoso.example\n");
        assert_eq!(twice.iter().filter(|row| row.2.is_none()).count(), 2);
        let domain = "contoso.example".parse().unwrap();
        assert_eq!(read(b"\xff", &domain, 10), Err(UserListError::NotText));
        assert_eq!(read(b"# x\n\n", &domain, 10), Err(UserListError::Empty));
        assert_eq!(read(b"a\nb\n", &domain, 1), Err(UserListError::TooLong(1)));
    }
}

//! Lists and hashtables as PowerShell writes them, inside one word of a command line.

use crate::MAX_LIST;
use std::{iter::Peekable, str::Chars};

type Scanner<'a> = Peekable<Chars<'a>>;

fn skip_blanks(scanner: &mut Scanner<'_>) {
    while scanner.next_if(|c| c.is_whitespace()).is_some() {}
}

/// One value: quoted with `'` or `"` (doubled inside), or bare up to a divider.
fn value(scanner: &mut Scanner<'_>, dividers: &[char]) -> Result<String, String> {
    skip_blanks(scanner);
    let Some(quote) = scanner.next_if(|c| matches!(c, '\'' | '"')) else {
        let mut bare = String::new();
        while let Some(c) = scanner.next_if(|c| !dividers.contains(c)) {
            bare.push(c);
        }
        let bare = bare.trim().to_owned();
        return if bare.is_empty() {
            Err("a value is missing between the commas".to_owned())
        } else {
            Ok(bare)
        };
    };
    let mut text = String::new();
    loop {
        match scanner.next() {
            Some(c) if c == quote && scanner.next_if_eq(&quote).is_some() => text.push(quote),
            Some(c) if c == quote => break,
            Some(c) => text.push(c),
            None => return Err(format!("the closing {quote} is missing")),
        }
    }
    skip_blanks(scanner);
    match scanner.peek() {
        None => Ok(text),
        Some(c) if dividers.contains(c) => Ok(text),
        Some(c) => Err(format!("'{c}' after the closing {quote} is not expected")),
    }
}

fn values(scanner: &mut Scanner<'_>, dividers: &[char]) -> Result<Vec<String>, String> {
    let mut list = vec![value(scanner, dividers)?];
    while scanner.next_if_eq(&',').is_some() {
        if list.len() == MAX_LIST {
            return Err(format!("more than {MAX_LIST} values"));
        }
        list.push(value(scanner, dividers)?);
    }
    Ok(list)
}

/// Reads `a,b`, `"a, b",c` or `@("a","b")`; `@()` is empty.
pub(crate) fn list(text: &str) -> Result<Vec<String>, String> {
    let trimmed = text.trim();
    let inner = trimmed.strip_prefix("@(").and_then(|t| t.strip_suffix(')'));
    if inner.is_some_and(|i| i.trim().is_empty()) {
        return Ok(Vec::new());
    }
    let mut scanner = inner.unwrap_or(trimmed).chars().peekable();
    let list = values(&mut scanner, &[','])?;
    debug_assert!(scanner.peek().is_none());
    Ok(list)
}

/// Whether a word is written as a hashtable.
pub(crate) fn is_table(text: &str) -> bool {
    text.trim_start().starts_with("@{")
}

/// Reads `@{Add="a","b"; Remove="c"}`.
pub(crate) fn table(text: &str) -> Result<Vec<(String, Vec<String>)>, String> {
    let inner = text
        .trim()
        .strip_prefix("@{")
        .and_then(|t| t.strip_suffix('}'))
        .ok_or_else(|| {
            "a hashtable is written '@{Add=\"a\",\"b\"; Remove=\"c\"}', in single quotes for the shell".to_owned()
        })?;
    let mut scanner = inner.chars().peekable();
    let mut entries = Vec::new();
    loop {
        while scanner.next_if(|c| c.is_whitespace() || *c == ';').is_some() {}
        if scanner.peek().is_none() {
            return Ok(entries);
        }
        let mut key = String::new();
        while let Some(c) = scanner.next_if(|c| !matches!(c, '=' | ';')) {
            key.push(c);
        }
        let key = key.trim().trim_matches(['"', '\'']).to_owned();
        if scanner.next_if_eq(&'=').is_none() {
            return Err(format!("'{key}' has no value: write {key}=\"…\""));
        }
        skip_blanks(&mut scanner);
        let array = scanner.next_if_eq(&'@').is_some();
        if array && scanner.next_if_eq(&'(').is_none() {
            return Err("'@' begins an array: @(\"a\",\"b\")".to_owned());
        }
        let list = values(&mut scanner, if array { &[',', ')'] } else { &[',', ';'] })?;
        if array && scanner.next_if_eq(&')').is_none() {
            return Err("the closing ) is missing".to_owned());
        }
        entries.push((key, list));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        for (text, expected) in [
            ("a", &["a"][..]),
            ("a,b", &["a", "b"]),
            (" a , b ", &["a", "b"]),
            ("\"a,b\",'c''d'", &["a,b", "c'd"]),
            ("@(\"a\",\"b\")", &["a", "b"]),
            ("@()", &[]),
            ("o'neil@contoso.example,x", &["o'neil@contoso.example", "x"]),
            (
                "SMTP:a@b.example,x500:/o=First (X)/ou=y/cn=Recipients/cn=z",
                &["SMTP:a@b.example", "x500:/o=First (X)/ou=y/cn=Recipients/cn=z"],
            ),
        ] {
            assert_eq!(list(text).unwrap(), expected, "{text}");
        }
        for text in ["", "a,,b", "a,", "\"a", "\"a\"b"] {
            assert!(list(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tables() {
        for (text, expected) in [
            ("@{Add=\"x500:/o=a\"}", vec![("Add", vec!["x500:/o=a"])]),
            (
                "@{Add=\"a\"; Remove=\"y\",\"z\"}",
                vec![("Add", vec!["a"]), ("Remove", vec!["y", "z"])],
            ),
            (
                "@{add=a,b;remove=c}",
                vec![("add", vec!["a", "b"]), ("remove", vec!["c"])],
            ),
            ("@{ Add = @('a', 'b') }", vec![("Add", vec!["a", "b"])]),
            ("@{}", vec![]),
        ] {
            let found = table(text).unwrap();
            let found: Vec<(&str, Vec<&str>)> = found
                .iter()
                .map(|(k, v)| (k.as_str(), v.iter().map(String::as_str).collect()))
                .collect();
            assert_eq!(found, expected, "{text}");
        }
        for text in [
            "@{Add}",
            "@{Add=}",
            "@{Add=\"a\"",
            "@{Add=@a}",
            "{Add=a}",
            "@{Add=@('a'}",
        ] {
            assert!(table(text).is_err(), "{text}");
        }
    }
}

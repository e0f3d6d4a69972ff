//! `--name value` pairs.

use crate::imap::Account;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

/// The pairs of one command line.
pub(crate) struct Arguments(HashMap<String, String>);

impl Arguments {
    /// Takes pairs; fails on anything else.
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> io::Result<Self> {
        let mut pairs = HashMap::new();
        while let Some(word) = words.next() {
            let name = word
                .strip_prefix("--")
                .ok_or_else(|| io::Error::other(format!("'{word}' is not --name")))?;
            let value = words
                .next()
                .ok_or_else(|| io::Error::other(format!("--{name} lacks a value")))?;
            pairs.insert(name.to_owned(), value);
        }
        Ok(Self(pairs))
    }

    /// The value, if given.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The value; fails when it is missing.
    pub(crate) fn needed(&self, name: &str) -> io::Result<&str> {
        self.text(name)
            .ok_or_else(|| io::Error::other(format!("--{name} is missing")))
    }

    /// The value as a path; fails when it is missing.
    pub(crate) fn path(&self, name: &str) -> io::Result<PathBuf> {
        self.needed(name).map(PathBuf::from)
    }

    /// The value as a number, or what stands for a missing one; fails on anything else.
    pub(crate) fn number<T: FromStr>(&self, name: &str, otherwise: T) -> io::Result<T> {
        self.text(name).map_or(Ok(otherwise), |text| {
            text.parse()
                .map_err(|_| io::Error::other(format!("--{name}: '{text}' is not a number in range")))
        })
    }

    /// The account at `--{server}`, with `--{prefix}user`, `--{prefix}login` (the name to sign in with, when it is
    /// another one) and the password in the file `--password-file`.
    pub(crate) fn account(&self, server: &str, prefix: &str) -> io::Result<Account> {
        let user = self.needed(&format!("{prefix}user"))?;
        let password = std::fs::read_to_string(self.path("password-file")?)?;
        Ok(Account {
            server: self.needed(server)?.to_owned(),
            user: user.to_owned(),
            password: password.trim_end().to_owned(),
        })
    }
}

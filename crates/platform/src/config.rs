//! What the operator says of a platform (configuration `[platform.NAME]`).

use rehome_domain::{
    address::SmtpAddress,
    id::{ExchangeGuid, TenantId},
};
use rehome_mailbox::imap::ServerSettings;
use std::{path::PathBuf, str::FromStr, time::Duration};

/// Settings of one platform.
#[derive(Clone, Debug)]
pub enum PlatformConfig {
    /// Maildir++ folders below one root on this machine.
    Maildir {
        /// Absolute path of the folder that holds the mailboxes. It is never made: a disk that is not mounted must not
        /// look like an empty platform.
        root: PathBuf,
    },
    /// Accounts of an IMAP server.
    Imap(Box<ImapConfig>),
}

/// An IMAP server as a platform.
#[derive(Clone, Debug)]
pub struct ImapConfig {
    /// How it is reached and signed in to.
    pub server: ServerSettings,
    /// Which account a mailbox gets that is made or moved here.
    pub account: AccountTemplate,
    /// How accounts are kept quiet during a cutover.
    pub access: AccessConfig,
}

/// How a platform keeps a mailbox quiet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessConfig {
    /// It cannot.
    None,
    /// By a program of the administrator's.
    Command(AccessCommand),
}

/// A program that denies and allows access to accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessCommand {
    /// The program by its absolute path, and what it is given before verb and account; never empty.
    pub program: Vec<String>,
    /// How long one call may take.
    pub call_within: Duration,
    /// How long the last session may take to end.
    pub drain_within: Duration,
}

/// Whether a cutover finds a mailbox quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMethod {
    /// Sign-in is refused and sessions have ended.
    Locked,
    /// Whoever else serves the mailbox goes on.
    NotLocked,
}

/// A mailbox that is about to be made or to move here.
#[derive(Clone, Copy, Debug)]
pub struct NewMailbox<'a> {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its recipient's alias.
    pub alias: &'a str,
    /// Its recipient's primary address.
    pub primary: &'a SmtpAddress,
    /// Identity of its contents.
    pub exchange_guid: ExchangeGuid,
}

/// A template of account names, such as `{primary}` or `{alias}@{domain}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountTemplate {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Fixed(String),
    Primary,
    Alias,
    Domain,
}

/// A text that is no template of account names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a template of account names: use {{primary}}, {{alias}} and {{domain}} between other characters, {{primary}} or {{alias}} at least once"
)]
pub struct AccountTemplateError(String);

impl AccountTemplate {
    /// The account of a mailbox, in lower case: servers that tell upper from lower case in account names are few, and
    /// two spellings of one account would be two mailboxes.
    #[must_use]
    pub fn account(&self, new: &NewMailbox<'_>) -> String {
        let name: String = self
            .parts
            .iter()
            .map(|part| match part {
                Part::Fixed(text) => text.clone(),
                Part::Primary => new.primary.to_string(),
                Part::Alias => new.alias.to_owned(),
                Part::Domain => new.primary.domain().to_string(),
            })
            .collect();
        name.to_lowercase()
    }

    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for AccountTemplate {
    type Err = AccountTemplateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || AccountTemplateError(text.to_owned());
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let Some(open) = rest.find('{') else {
                parts.push(Part::Fixed(rest.to_owned()));
                break;
            };
            if open > 0 {
                parts.push(Part::Fixed(rest[..open].to_owned()));
            }
            let (name, after) = rest[open + 1..].split_once('}').ok_or_else(bad)?;
            parts.push(match name {
                "primary" => Part::Primary,
                "alias" => Part::Alias,
                "domain" => Part::Domain,
                _ => return Err(bad()),
            });
            rest = after;
        }
        let names_someone = parts.iter().any(|part| matches!(part, Part::Primary | Part::Alias));
        let clean = parts.iter().all(|part| match part {
            Part::Fixed(fixed) => {
                !fixed.contains(['{', '}']) && !fixed.contains(|c: char| c.is_control() || c.is_whitespace())
            }
            Part::Primary | Part::Alias | Part::Domain => true,
        });
        if names_someone && clean && text.len() <= 200 {
            Ok(Self {
                text: text.to_owned(),
                parts,
            })
        } else {
            Err(bad())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_of_accounts() {
        let primary = "Front.Desk@Fabrikam.example".parse().unwrap();
        let new = NewMailbox {
            tenant: TenantId::from_u128(1),
            alias: "Reception",
            primary: &primary,
            exchange_guid: ExchangeGuid::from_u128(2),
        };
        for (template, account) in [
            ("{primary}", "front.desk@fabrikam.example"),
            ("{alias}", "reception"),
            ("{alias}@{domain}", "reception@fabrikam.example"),
            ("mail-{alias}", "mail-reception"),
            ("{domain}/{alias}", "fabrikam.example/reception"),
        ] {
            let read: AccountTemplate = template.parse().unwrap();
            assert_eq!(read.account(&new), account, "{template}");
            assert_eq!(read.as_str(), template);
        }
        for bad in [
            "",
            "everyone",
            "{domain}",
            "{alias",
            "alias}",
            "{Alias}",
            "{alias} x",
            "{alias}}",
            "{{alias}}",
        ] {
            assert!(bad.parse::<AccountTemplate>().is_err(), "{bad}");
        }
    }
}

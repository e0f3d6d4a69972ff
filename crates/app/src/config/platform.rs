//! `[platform.NAME]`: keys that depend on the driver and on each other, read into what the driver needs.

use super::{
    reader::{ExampleTable, Nested, Reader, Setting, settings},
    values::{AccessMethod, Driver, HostName, ImapSecurity, ImapSignIn, Mechanism, Separator, Text, TokenUrl, Whole},
};
use rehome_domain::endpoint::is_this_machine;
use rehome_platform::{AccountTemplate, OAuthMechanism, Security};
use std::{net::IpAddr, path::PathBuf};
use toml::{Spanned, de::DeValue};

settings! {
    /// One platform as it stands in the file.
    Keys {
        /// What serves its mailboxes: Maildir folders on this machine, or accounts of an IMAP server.
        driver: Driver, like "\"maildir\"";
        /// maildir: folder that holds the mailboxes. It must be there: a disk that is not mounted must not look like an
        /// empty platform.
        root: Option<PathBuf>, like "\"/srv/mail\"";
        /// imap: the server's name, which its certificate must have, or its address. `[connections] override` may lead
        /// elsewhere.
        host: Option<ImapHost>, like "\"imap.contoso.example\"";
        /// imap: its port; left out, 993 with security "tls" and 143 otherwise.
        port: Option<Whole<1, 65_535>>, like "993";
        /// imap: how the connection is protected; left out, "tls". "none" is taken for this machine itself only.
        security: Option<ImapSecurity>, like "\"tls\"";
        /// imap, required: how to sign in for the accounts. "master": as account, separator, user, with the master's
        /// password, as Dovecot's master users do. "authzid": as user, who acts for the account by SASL, as Cyrus'
        /// administrators do. "oauth": as the account, with access tokens from `[platform.NAME.oauth]`.
        sign_in: Option<ImapSignIn>, like "\"master\"";
        /// imap, master and authzid: who signs in.
        user: Option<Text>, like "\"rehome\"";
        /// imap, master and authzid: file with the password and nothing else, readable by its owner alone. A systemd
        /// credential may be group-readable.
        password_file: Option<PathBuf>, like "\"/etc/rehome/imap.password\"";
        /// imap, master: what stands between account and user; left out, "*". Accounts with it in their name cannot be
        /// used.
        separator: Option<Separator>, like "\"*\"";
        /// imap: most connections at once, over all accounts; left out, 8.
        connections: Option<Whole<1, 1000>>, like "8";
        /// imap: most connections at once for one account; left out, 4.
        connections_per_account: Option<Whole<1, 32>>, like "4";
        /// imap: whether the connection is compressed where the server offers it; left out, false.
        compress: Option<bool>, like "false";
        /// imap: the account of a mailbox that is made or moved here, in lower case; left out, "{primary}". The account
        /// must be there already.
        account: Option<AccountTemplate>, like "\"{primary}\"";
        /// imap, oauth: the client whose access tokens open the accounts.
        oauth: Option<OAuth>, like "";
        /// imap: how users are kept out of their accounts during a cutover and while a mailbox is filled. Left out, they
        /// are not, and a cutover waits until an administrator has accepted that.
        access: Option<Access>, like "";
    }
}

settings! {
    /// A client of an authority.
    OAuth {
        /// Where its access tokens come from (OAuth 2.0 client credentials).
        token_url: TokenUrl, like "\"https://login.microsoftonline.com/TENANT/oauth2/v2.0/token\"";
        /// The client's id.
        client_id: Text, like "\"00000000-0000-0000-0000-000000000000\"";
        /// File with its secret and nothing else, readable by its owner alone.
        client_secret_file: PathBuf, like "\"/etc/rehome/imap.secret\"";
        /// What is asked for.
        scope: Option<Text>, like "\"https://outlook.office365.com/.default\"";
        /// What carries the token: "offered" is OAUTHBEARER where the server has it, else XOAUTH2.
        mechanism: Mechanism = Mechanism::Offered, like "\"offered\"";
    }
}

settings! {
    /// How users are kept out.
    Access {
        /// By a program, or not at all.
        method: AccessMethod, like "\"command\"";
        /// The program by its absolute path, and what it is given before a verb (deny, allow, kick, sessions) and the
        /// account.
        command: Vec<Text>, like "[\"/usr/lib/rehome/access/dovecot-passwd-file\", \"--passwd-file\", \"/etc/dovecot/users\"]";
        /// Seconds that one call of it may take.
        command_seconds: Whole<1, 60> = Whole::of(20), like "20";
        /// Seconds in which the last session of a user must end, or the cutover is given up.
        drain_seconds: Whole<1, 90> = Whole::of(60), like "60";
    }
}

/// A server's name or address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImapHost(pub(crate) String);

impl Setting for ImapHost {
    fn kind() -> String {
        "a host name or an address".to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        match value.get_ref().as_str() {
            Some(text) if text.parse::<IpAddr>().is_ok() || text.eq_ignore_ascii_case("localhost") => {
                Some(Self(text.to_lowercase()))
            }
            Some(_) | None => HostName::read(value, reader).map(|name| Self(name.0)),
        }
    }

    fn shown(&self) -> Option<String> {
        HostName(self.0.clone()).shown()
    }
}

/// One platform.
#[derive(Clone, Debug)]
pub(crate) struct Platform {
    /// What serves its mailboxes.
    pub(crate) driver: PlatformDriver,
}

/// A driver with its settings.
#[derive(Clone, Debug)]
pub(crate) enum PlatformDriver {
    /// Maildirs below a root.
    Maildir {
        /// The root.
        root: PathBuf,
    },
    /// Accounts of a server.
    Imap(Box<PlatformImap>),
}

/// An IMAP server.
#[derive(Clone, Debug)]
pub(crate) struct PlatformImap {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) security: Security,
    pub(crate) sign_in: PlatformSignIn,
    pub(crate) connections: usize,
    pub(crate) connections_per_account: usize,
    pub(crate) compress: bool,
    pub(crate) account: AccountTemplate,
    /// None: users are not kept out.
    pub(crate) access: Option<PlatformAccess>,
}

/// As whom is signed in.
#[derive(Clone, Debug)]
pub(crate) enum PlatformSignIn {
    Master {
        user: String,
        password_file: PathBuf,
        separator: char,
    },
    Authzid {
        user: String,
        password_file: PathBuf,
    },
    OAuth {
        token_url: url::Url,
        client_id: String,
        client_secret_file: PathBuf,
        scope: Option<String>,
        mechanism: OAuthMechanism,
    },
}

/// The program that keeps users out.
#[derive(Clone, Debug)]
pub(crate) struct PlatformAccess {
    pub(crate) command: Vec<String>,
    pub(crate) command_seconds: u64,
    pub(crate) drain_seconds: u64,
}

impl Setting for Platform {
    fn kind() -> String {
        Keys::kind()
    }

    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        let keys = Keys::read(value, reader)?;
        match keys.check() {
            Ok(driver) => Some(Self { driver }),
            Err(text) => reader.mistake(Some(value.span().start), text),
        }
    }

    fn shown(&self) -> Option<String> {
        None
    }

    fn nested() -> Option<Nested> {
        Keys::nested().map(|nested| Nested {
            examples: vec![
                ExampleTable {
                    name: "mail",
                    keys: &["driver", "root"],
                    values: &[],
                },
                ExampleTable {
                    name: "dovecot",
                    keys: &[
                        "driver",
                        "host",
                        "port",
                        "security",
                        "sign_in",
                        "user",
                        "password_file",
                        "separator",
                        "connections",
                        "connections_per_account",
                        "compress",
                        "account",
                        "access",
                    ],
                    values: &[("driver", "\"imap\"")],
                },
                ExampleTable {
                    name: "exchange-online",
                    keys: &["driver", "host", "sign_in", "oauth"],
                    values: &[
                        ("driver", "\"imap\""),
                        ("host", "\"outlook.office365.com\""),
                        ("sign_in", "\"oauth\""),
                    ],
                },
            ],
            ..nested
        })
    }
}

fn required<T>(value: Option<T>, name: &str, why: &str) -> Result<T, String> {
    value.ok_or_else(|| format!("the key '{name}' is missing; {why} needs it"))
}

/// The first of the keys that is given though it means nothing here.
fn foreign(given: &[(&str, bool)], why: &str) -> Result<(), String> {
    match given.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(format!("the key '{name}' means nothing with {why}")),
        None => Ok(()),
    }
}

impl Keys {
    fn check(self) -> Result<PlatformDriver, String> {
        match self.driver {
            Driver::Maildir => {
                let imap_only = [
                    ("host", self.host.is_some()),
                    ("port", self.port.is_some()),
                    ("security", self.security.is_some()),
                    ("sign_in", self.sign_in.is_some()),
                    ("user", self.user.is_some()),
                    ("password_file", self.password_file.is_some()),
                    ("separator", self.separator.is_some()),
                    ("connections", self.connections.is_some()),
                    ("connections_per_account", self.connections_per_account.is_some()),
                    ("compress", self.compress.is_some()),
                    ("account", self.account.is_some()),
                    ("oauth", self.oauth.is_some()),
                    ("access", self.access.is_some()),
                ];
                foreign(&imap_only, "driver \"maildir\"")?;
                let root = required(self.root, "root", "driver \"maildir\"")?;
                Ok(PlatformDriver::Maildir { root })
            }
            Driver::Imap => Ok(PlatformDriver::Imap(Box::new(self.imap()?))),
        }
    }

    fn imap(self) -> Result<PlatformImap, String> {
        const WHY: &str = "driver \"imap\"";
        foreign(&[("root", self.root.is_some())], WHY)?;
        let host = required(self.host.clone(), "host", WHY)?.0;
        let security = match self.security.unwrap_or(ImapSecurity::Tls) {
            ImapSecurity::Tls => Security::Tls,
            ImapSecurity::StartTls => Security::StartTls,
            ImapSecurity::None if is_this_machine(&host) => Security::Plain,
            ImapSecurity::None => {
                return Err(format!(
                    "security = \"none\" would send passwords and mail to {host} for all to read; it is taken for loopback addresses and localhost only"
                ));
            }
        };
        let usual = if security == Security::Tls { 993 } else { 143 };
        let port = self
            .port
            .map_or(usual, |port| u16::try_from(port.get()).unwrap_or(usual));
        let account = self.account.clone();
        let connections = self.connections.map_or(8, Whole::size);
        let connections_per_account = self.connections_per_account.map_or(4, Whole::size).min(connections);
        let compress = self.compress.unwrap_or(false);
        let access = self.access.clone().map(Access::check).transpose()?.flatten();
        Ok(PlatformImap {
            host,
            port,
            security,
            sign_in: self.sign_in()?,
            connections,
            connections_per_account,
            compress,
            account: match account {
                Some(account) => account,
                None => "{primary}"
                    .parse()
                    .map_err(|error: rehome_platform::AccountTemplateError| error.to_string())?,
            },
            access,
        })
    }

    fn sign_in(self) -> Result<PlatformSignIn, String> {
        let passwords = |why: &str| {
            foreign(&[("oauth", self.oauth.is_some())], why)?;
            let user = required(self.user.clone(), "user", why)?.0;
            Ok::<_, String>((user, required(self.password_file.clone(), "password_file", why)?))
        };
        match required(self.sign_in, "sign_in", "driver \"imap\"")? {
            ImapSignIn::Master => {
                let (user, password_file) = passwords("sign_in \"master\"")?;
                Ok(PlatformSignIn::Master {
                    user,
                    password_file,
                    separator: self.separator.map_or('*', |separator| separator.0),
                })
            }
            ImapSignIn::Authzid => {
                let why = "sign_in \"authzid\"";
                foreign(&[("separator", self.separator.is_some())], why)?;
                let (user, password_file) = passwords(why)?;
                Ok(PlatformSignIn::Authzid { user, password_file })
            }
            ImapSignIn::OAuth => {
                let why = "sign_in \"oauth\"";
                let others = [
                    ("user", self.user.is_some()),
                    ("password_file", self.password_file.is_some()),
                    ("separator", self.separator.is_some()),
                ];
                foreign(&others, why)?;
                let oauth = required(self.oauth, "oauth", why)?;
                Ok(PlatformSignIn::OAuth {
                    token_url: oauth.token_url.0,
                    client_id: oauth.client_id.0,
                    client_secret_file: oauth.client_secret_file,
                    scope: oauth.scope.map(|scope| scope.0),
                    mechanism: match oauth.mechanism {
                        Mechanism::Offered => OAuthMechanism::Offered,
                        Mechanism::XOAuth2 => OAuthMechanism::XOAuth2,
                        Mechanism::OAuthBearer => OAuthMechanism::OAuthBearer,
                    },
                })
            }
        }
    }
}

impl Access {
    fn check(self) -> Result<Option<PlatformAccess>, String> {
        let command: Vec<String> = self.command.into_iter().map(|word| word.0).collect();
        match (self.method, command.first()) {
            (AccessMethod::None, None) => Ok(None),
            (AccessMethod::None, Some(_)) => Err("[access] command means nothing with method \"none\"".to_owned()),
            (AccessMethod::Command, None) => Err("[access] method \"command\" needs a command".to_owned()),
            (AccessMethod::Command, Some(program)) if !program.starts_with('/') => Err(format!(
                "[access] command: the program '{program}' is not named by its absolute path"
            )),
            (AccessMethod::Command, Some(_)) => Ok(Some(PlatformAccess {
                command,
                command_seconds: self.command_seconds.get(),
                drain_seconds: self.drain_seconds.get(),
            })),
        }
    }
}

//! The kinds of values that settings have.

use super::reader::{Nested, Reader, Setting};
use rehome_domain::address::DomainName;
use rehome_identity::authority::Origin;
use rehome_platform::AccountTemplate;
use rehome_routing::{Route as NextHop, TlsPolicy};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};
use toml::{Spanned, de::DeValue};

/// A kind of value that is written as a text.
pub(crate) trait FromText: Sized {
    /// What is allowed, with an example.
    const KIND: &'static str;
    /// Reads it; the error says what is wrong, without full stop.
    fn from_text(text: &str, reader: &Reader<'_>) -> Result<Self, String>;
    /// As text.
    fn to_text(&self) -> String;
}

macro_rules! text_settings {
    ($($kind:ty),+) => { $(
        impl Setting for $kind {
            fn kind() -> String {
                <Self as FromText>::KIND.to_owned()
            }
            fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
                let Some(text) = value.get_ref().as_str() else { return reader.unfit::<_, Self>(value) };
                match Self::from_text(text, reader) {
                    Ok(read) => Some(read),
                    Err(why) => reader.mistake(Some(value.span().start), why),
                }
            }
            fn shown(&self) -> Option<String> {
                Some(quoted(&self.to_text()))
            }
        }
    )+ };
}
text_settings!(
    PathBuf,
    SocketAddr,
    Origin,
    HostName,
    LogFormat,
    LogLevel,
    Driver,
    ImapSecurity,
    ImapSignIn,
    Mechanism,
    AccessMethod,
    AccountTemplate,
    Separator,
    TokenUrl,
    Text,
    ReadBack,
    TlsPolicy,
    PlatformName,
    NextHopName
);

/// A text as TOML spells it.
pub(crate) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl FromText for PathBuf {
    const KIND: &'static str = "a path (a relative one starts at this file's folder)";
    fn from_text(text: &str, reader: &Reader<'_>) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the path is empty".to_owned());
        }
        Ok(reader.path(text))
    }
    fn to_text(&self) -> String {
        self.display().to_string()
    }
}

impl FromText for SocketAddr {
    const KIND: &'static str = "an address with a port, such as \"127.0.0.1:8443\" or \"[::1]:8443\"";
    fn from_text(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        text.parse().map_err(|_| format!("'{text}' is not {}", Self::KIND))
    }
    fn to_text(&self) -> String {
        self.to_string()
    }
}

impl FromText for Origin {
    const KIND: &'static str = "a host name, with a port unless it is 443, such as \"mail.contoso.example\"";
    fn from_text(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        if text.contains("://") {
            return Err(format!("'{text}' is not {}", Self::KIND));
        }
        text.parse::<Self>().map_err(|error| error.to_string())
    }
    fn to_text(&self) -> String {
        self.as_str().trim_start_matches("https://").to_owned()
    }
}

/// `host:port` as others name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostAndPort(pub(crate) String);

impl FromText for HostAndPort {
    const KIND: &'static str = "host:port, such as \"outlook.office.com:443\"";
    fn from_text(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not {}", Self::KIND);
        let (_, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        port.parse::<u16>().map_err(|_| wrong())?;
        let origin: Origin = text.parse().map_err(|_| wrong())?;
        Ok(Self(origin.host_and_port()))
    }
    fn to_text(&self) -> String {
        self.0.clone()
    }
}

/// A host's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostName(pub(crate) String);

impl FromText for HostName {
    const KIND: &'static str = "a host name, such as \"mx.contoso.example\"";
    fn from_text(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        text.parse::<DomainName>()
            .map(|name| Self(name.as_str().to_owned()))
            .map_err(|_| format!("'{text}' is not {}", Self::KIND))
    }
    fn to_text(&self) -> String {
        self.0.clone()
    }
}

impl FromText for DomainName {
    const KIND: &'static str = "a domain, such as \"fabrikam.example\"";
    fn from_text(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        text.parse::<Self>().map_err(|error| error.to_string())
    }
    fn to_text(&self) -> String {
        self.as_str().to_owned()
    }
}

/// A platform's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PlatformName(pub(crate) String);

impl FromText for PlatformName {
    const KIND: &'static str = "a platform's name: lower-case letters, digits and hyphens, at most 32";
    fn from_text(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        let fits = (1..=32).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("'{text}' is not {}", Self::KIND))
        }
    }
    fn to_text(&self) -> String {
        self.0.clone()
    }
}

impl FromText for AccountTemplate {
    const KIND: &'static str = "a template with {primary}, {alias} and {domain}, such as \"{alias}@{domain}\"";
    fn from_text(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        text.parse::<Self>().map_err(|error| error.to_string())
    }
    fn to_text(&self) -> String {
        self.as_str().to_owned()
    }
}

/// What stands between account and master at sign-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Separator(pub(crate) char);

impl FromText for Separator {
    const KIND: &'static str = "one character, neither letter nor digit, such as \"*\"";
    fn from_text(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        let mut characters = text.chars();
        match (characters.next(), characters.next()) {
            (Some(only), None) if only.is_ascii_punctuation() => Ok(Self(only)),
            (Some(_) | None, _) => Err(format!("'{text}' is not {}", Self::KIND)),
        }
    }
    fn to_text(&self) -> String {
        self.0.to_string()
    }
}

/// Where access tokens come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenUrl(pub(crate) url::Url);

impl FromText for TokenUrl {
    const KIND: &'static str = "an https URL, such as \"https://login.microsoftonline.com/TENANT/oauth2/v2.0/token\"";
    fn from_text(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not {}", Self::KIND);
        let url = url::Url::parse(text).map_err(|_| wrong())?;
        // The same rule as for every server that is called: https, or http to this machine itself.
        rehome_remote::client::Origin::of(&url).map_err(|error| error.to_string())?;
        if url.fragment().is_some() {
            Err(wrong())
        } else {
            Ok(Self(url))
        }
    }
    fn to_text(&self) -> String {
        self.0.to_string()
    }
}

/// A text that is not empty and has no control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text(pub(crate) String);

impl FromText for Text {
    const KIND: &'static str = "a text";
    fn from_text(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        if text.is_empty() || text.len() > 1024 || text.chars().any(char::is_control) {
            return Err("the text is empty, longer than 1024 octets, or holds control characters".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
    fn to_text(&self) -> String {
        self.0.clone()
    }
}

/// Where mail for a domain goes: `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NextHopName(pub(crate) String);

impl FromText for NextHopName {
    const KIND: &'static str = "host:port, such as \"mx.fabrikam.example:25\"";
    fn from_text(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        NextHop::parse(text, TlsPolicy::None).map_err(|error| error.to_string())?;
        Ok(Self(text.to_owned()))
    }
    fn to_text(&self) -> String {
        self.0.clone()
    }
}

/// A value that is one of a few words.
macro_rules! word_setting {
    ($(#[doc = $doc:literal])+ $name:ident $kind:literal { $($(#[doc = $each:literal])+ $variant:ident = $word:literal),+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name { $($(#[doc = $each])+ $variant),+ }
        word_setting!(@text $name $kind { $($variant = $word),+ });
    };
    (@text $name:ident $kind:literal { $($variant:ident = $word:literal),+ }) => {
        impl FromText for $name {
            const KIND: &'static str = $kind;
            fn from_text(text: &str, _: &Reader<'_>) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("'{text}' is not allowed here; allowed: {}", Self::KIND)),
                }
            }
            fn to_text(&self) -> String {
                match self { $(Self::$variant => $word.to_owned()),+ }
            }
        }
    };
}

word_setting! {
    /// How the operator's log is written.
    LogFormat "\"text\" or \"json\"" {
        /// Lines for people.
        Text = "text",
        /// One JSON object a line.
        Json = "json"
    }
}
word_setting! {
    /// How much the operator's log says.
    LogLevel "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"" {
        /// Failures only.
        Error = "error",
        /// What may need a look, too.
        Warn = "warn",
        /// What happens.
        Info = "info",
        /// What helps to find a fault.
        Debug = "debug",
        /// Everything.
        Trace = "trace"
    }
}
word_setting! {
    /// Which driver serves a platform's mailboxes.
    Driver "\"maildir\" or \"imap\"" {
        /// Maildir++ folders on this machine.
        Maildir = "maildir",
        /// Accounts of an IMAP server.
        Imap = "imap"
    }
}
word_setting! {
    /// How the connection to an IMAP server is protected.
    ImapSecurity "\"tls\", \"starttls\" or \"none\"" {
        /// TLS from the first octet.
        Tls = "tls",
        /// STARTTLS, always.
        StartTls = "starttls",
        /// None.
        None = "none"
    }
}
word_setting! {
    /// How one signs in to an IMAP server for its accounts.
    ImapSignIn "\"master\", \"authzid\" or \"oauth\"" {
        /// As account, separator, master.
        Master = "master",
        /// As an administrator who acts for the account.
        Authzid = "authzid",
        /// With access tokens of a client.
        OAuth = "oauth"
    }
}
word_setting! {
    /// What carries an access token.
    Mechanism "\"offered\", \"xoauth2\" or \"oauthbearer\"" {
        /// What the server offers.
        Offered = "offered",
        /// XOAUTH2.
        XOAuth2 = "xoauth2",
        /// OAUTHBEARER.
        OAuthBearer = "oauthbearer"
    }
}
word_setting! {
    /// How users are kept out of their accounts.
    AccessMethod "\"command\" or \"none\"" {
        /// By a program.
        Command = "command",
        /// They are not.
        None = "none"
    }
}
word_setting! {
    /// Whether appended items are read back.
    ReadBack "\"on\" or \"off\"" {
        /// They are.
        On = "on",
        /// They are not; for measuring only.
        Off = "off"
    }
}
word_setting!(@text TlsPolicy "\"none\", \"opportunistic\" or \"required\"" {
    None = "none",
    Opportunistic = "opportunistic",
    Required = "required"
});

impl Setting for bool {
    fn kind() -> String {
        "true or false".to_owned()
    }
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        value.get_ref().as_bool().or_else(|| reader.unfit::<_, Self>(value))
    }
    fn shown(&self) -> Option<String> {
        Some(self.to_string())
    }
}

/// A whole number between two bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Whole<const LEAST: u64, const MOST: u64>(u64);

impl<const LEAST: u64, const MOST: u64> Whole<LEAST, MOST> {
    /// A default; out of bounds it is brought into them.
    pub(crate) const fn of(value: u64) -> Self {
        Self(if value < LEAST {
            LEAST
        } else if value > MOST {
            MOST
        } else {
            value
        })
    }

    /// The number.
    pub(crate) fn get(self) -> u64 {
        self.0
    }

    /// The number where 32 bits are enough.
    pub(crate) fn get32(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }

    /// The number as a size in memory.
    pub(crate) fn size(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// The number as seconds, minutes, hours or days are counted.
    pub(crate) fn signed(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

impl<const LEAST: u64, const MOST: u64> Setting for Whole<LEAST, MOST> {
    fn kind() -> String {
        format!("a whole number from {LEAST} to {MOST}")
    }
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(integer) = value.get_ref().as_integer() else {
            return reader.unfit::<_, Self>(value);
        };
        match u64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if (LEAST..=MOST).contains(&number) => Some(Self(number)),
            Ok(_) | Err(_) => reader.mistake(
                Some(value.span().start),
                format!("{} is not {}", integer.as_str(), Self::kind()),
            ),
        }
    }
    fn shown(&self) -> Option<String> {
        Some(self.0.to_string())
    }
}

impl<S: Setting> Setting for Option<S> {
    fn kind() -> String {
        S::kind()
    }
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        S::read(value, reader).map(Some)
    }
    fn absent() -> Option<Self> {
        Some(None)
    }
    fn shown(&self) -> Option<String> {
        self.as_ref().and_then(S::shown)
    }
    fn nested() -> Option<Nested> {
        S::nested()
    }
}

impl<S: Setting> Setting for Vec<S> {
    fn kind() -> String {
        format!("a list; each: {}", S::kind())
    }
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(array) = value.get_ref().as_array() else {
            return reader.unfit::<_, Self>(value);
        };
        // Not `collect::<Option<_>>`, which would end at the first mistake.
        let read: Vec<Option<S>> = array.iter().map(|one| S::read(one, reader)).collect();
        read.into_iter().collect()
    }
    fn absent() -> Option<Self> {
        Some(Self::new())
    }
    fn shown(&self) -> Option<String> {
        Some(format!(
            "[{}]",
            self.iter().filter_map(S::shown).collect::<Vec<_>>().join(", ")
        ))
    }
}

impl<K: FromText + Ord, S: Setting> Setting for BTreeMap<K, S> {
    fn kind() -> String {
        format!("a table; on the left {}, on the right {}", K::KIND, S::kind())
    }
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(table) = value.get_ref().as_table() else {
            return reader.unfit::<_, Self>(value);
        };
        let mut read = Vec::new();
        for (key, value) in table {
            let name = match K::from_text(key.get_ref(), reader) {
                Ok(name) => Some(name),
                Err(why) => reader.mistake(Some(key.span().start), why),
            };
            read.push(name.zip(S::read(value, reader)));
        }
        read.into_iter().collect()
    }
    fn absent() -> Option<Self> {
        Some(Self::new())
    }
    fn shown(&self) -> Option<String> {
        Some("{}".to_owned())
    }
    fn nested() -> Option<Nested> {
        S::nested().map(|nested| Nested {
            named: Some(K::KIND),
            ..nested
        })
    }
}

/// Whether a path lies in a folder, as far as their spelling tells.
pub(crate) fn is_inside(path: &Path, folder: &Path) -> bool {
    let real = |p: &Path| p.canonicalize().unwrap_or_else(|_| p.to_owned());
    let parent = path.parent().map(real);
    parent.is_some_and(|parent| parent.starts_with(real(folder)))
}

//! Values of parameters and results, and their JSON form.

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value as Json;
use uuid::Uuid;

/// What stands in place of a secret.
const BLANK: &str = "********";

/// A user name with its password (PSCredential).
#[derive(Clone, Debug)]
pub struct Credential {
    /// The user name; for a migration endpoint the application id.
    pub user_name: String,
    /// The password or client secret; never shown.
    pub password: SecretString,
}

impl Credential {
    /// Reads the text of a credentials file: `{"UserName": …, "Password": …}`, or the user name on the first line and
    /// the secret on the second.
    ///
    /// # Errors
    /// In words, without quoting the text, when it is neither.
    pub fn from_text(text: &str) -> Result<Self, String> {
        let expected = "expected the user name on the first line and the secret on the second, or {\"UserName\": …, \"Password\": …}";
        let text = text.trim_start_matches('\u{feff}');
        let (user_name, password) = if text.trim_start().starts_with('{') {
            let json: Json = serde_json::from_str(text).map_err(|_| format!("this is not JSON: {expected}"))?;
            let part = |name: &str| json.get(name).and_then(Json::as_str).map(str::to_owned);
            (part("UserName"), part("Password"))
        } else {
            let mut lines = text.lines().map(|l| l.trim().to_owned()).filter(|l| !l.is_empty());
            (lines.next(), lines.next())
        };
        match (user_name, password) {
            (Some(user_name), Some(password)) if !user_name.is_empty() && !password.is_empty() => Ok(Self {
                user_name,
                password: password.into(),
            }),
            _ => Err(format!("the user name or the secret is missing: {expected}")),
        }
    }
}

/// A value of a parameter or of a property.
#[derive(Clone, Debug)]
pub enum Value {
    /// `$null`.
    Null,
    /// True or false; a switch that is given is true.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Text; also the word `Unlimited` and values of enumerations.
    Text(String),
    /// Text that is never shown (SecureString).
    Secret(SecretString),
    /// A user name with its secret (PSCredential).
    Credential(Credential),
    /// The contents of a file (Byte[]).
    Octets(Vec<u8>),
    /// A GUID.
    Guid(Uuid),
    /// A point in time.
    DateTime(Timestamp),
    /// A length of time.
    TimeSpan(SignedDuration),
    /// Several values.
    List(Vec<Value>),
    /// A hashtable, such as `@{Add="a"; Remove="b"}`; keys as spelt in the declaration.
    Table(Vec<(String, Value)>),
    /// An object with properties in a fixed order.
    Object(Object),
}

/// What becomes of secrets in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// Kept: only for sending to the server that needs them.
    Keep,
    /// Replaced by asterisks: for output, logs and audit.
    Blank,
}

impl Value {
    /// The JSON form: GUID and time as text, octets in base64, a credential as `{"UserName", "Password"}`.
    #[must_use]
    pub fn to_json(&self, secrets: Secrets) -> Json {
        let secret = |s: &SecretString| match secrets {
            Secrets::Keep => Json::from(s.expose_secret()),
            Secrets::Blank => Json::from(BLANK),
        };
        match self {
            Self::Null => Json::Null,
            Self::Bool(b) => Json::from(*b),
            Self::Int(n) => Json::from(*n),
            Self::Text(t) => Json::from(t.as_str()),
            Self::Secret(s) => secret(s),
            Self::Credential(c) => {
                serde_json::json!({ "UserName": c.user_name, "Password": secret(&c.password) })
            }
            Self::Octets(o) => Json::from(STANDARD.encode(o)),
            Self::Guid(g) => Json::from(g.hyphenated().to_string()),
            Self::DateTime(t) => Json::from(t.to_string()),
            Self::TimeSpan(d) => Json::from(crate::time_span_text(*d)),
            Self::List(l) => l.iter().map(|v| v.to_json(secrets)).collect(),
            Self::Table(t) => t.iter().map(|(k, v)| (k.clone(), v.to_json(secrets))).collect(),
            Self::Object(o) => o.to_json(secrets),
        }
    }

    /// The text of a list's element, GUID, number or text; none for what has no one text.
    #[must_use]
    pub fn as_text(&self) -> Option<String> {
        match self {
            Self::Text(t) => Some(t.clone()),
            Self::Int(n) => Some(n.to_string()),
            Self::Guid(g) => Some(g.hyphenated().to_string()),
            Self::DateTime(t) => Some(t.to_string()),
            Self::TimeSpan(d) => Some(crate::time_span_text(*d)),
            Self::Bool(b) => Some(if *b { "True" } else { "False" }.to_owned()),
            Self::Null
            | Self::Secret(_)
            | Self::Credential(_)
            | Self::Octets(_)
            | Self::List(_)
            | Self::Table(_)
            | Self::Object(_) => None,
        }
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}
impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}
impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}
impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}
impl From<u64> for Value {
    /// Numbers beyond `i64::MAX` become it; no count or size here comes near.
    fn from(value: u64) -> Self {
        Self::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}
impl From<Uuid> for Value {
    fn from(value: Uuid) -> Self {
        Self::Guid(value)
    }
}
impl From<Timestamp> for Value {
    fn from(value: Timestamp) -> Self {
        Self::DateTime(value)
    }
}
impl From<Object> for Value {
    fn from(value: Object) -> Self {
        Self::Object(value)
    }
}
impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}
impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(value: Vec<T>) -> Self {
        Self::List(value.into_iter().map(Into::into).collect())
    }
}

/// An object: properties in the order in which they are shown.
#[derive(Clone, Debug, Default)]
pub struct Object(Vec<(String, Value)>);

impl Object {
    /// An object without properties.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The object with one more property at its end.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.push((name.to_owned(), value.into()));
        self
    }

    /// The property of this name, case ignored.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v)
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v))
    }

    /// The JSON form, see [`Value::to_json`].
    #[must_use]
    pub fn to_json(&self, secrets: Secrets) -> Json {
        self.0.iter().map(|(k, v)| (k.clone(), v.to_json(secrets))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_blanked_by_type_wherever_they_are() {
        let credential = || Credential {
            user_name: "app".into(),
            password: "s3cret".to_owned().into(),
        };
        let object = Object::new()
            .with("Name", "n")
            .with("Password", Value::Secret("s3cret".to_owned().into()))
            .with("Deep", Value::List(vec![Value::Credential(credential())]))
            .with(
                "Table",
                Value::Table(vec![("Add".into(), Value::Secret("s3cret".to_owned().into()))]),
            );
        assert!(!object.to_json(Secrets::Blank).to_string().contains("s3cret"));
        assert_eq!(object.to_json(Secrets::Keep).to_string().matches("s3cret").count(), 3);
        assert!(!format!("{object:?}").contains("s3cret"));
    }

    #[test]
    fn credentials_files() {
        for good in [
            "app\nsecret\n",
            "\u{feff}app\r\n\r\nsecret",
            r#"{"UserName":"app","Password":"secret"}"#,
        ] {
            let c = Credential::from_text(good).unwrap();
            assert_eq!(
                (c.user_name.as_str(), c.password.expose_secret()),
                ("app", "secret"),
                "{good}"
            );
        }
        for bad in ["", "app", "{\"UserName\":\"hidden-secret\"}", "{hidden-secret"] {
            let error = Credential::from_text(bad).unwrap_err();
            assert!(!error.contains("hidden-secret"), "{error}");
        }
    }
}

//! Parameters bound to a declaration, and the rules that words and JSON share: names, sets, types.

use crate::{
    Credential, Declaration, MAX_LIST, MAX_TEXT, Parameter, ParameterType, Secrets, Value, literal, parse_date_time,
    parse_time_span,
};
use jiff::Timestamp;
use secrecy::SecretString;
use uuid::Uuid;

/// Why arguments do not bind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// No parameter has this name.
    #[error("A parameter cannot be found that matches parameter name '{0}'.")]
    UnknownParameter(String),
    /// The beginning of more than one name.
    #[error("Parameter cannot be processed because the parameter name '{name}' is ambiguous. Possible matches include: {}.", matches.join(" "))]
    AmbiguousParameter {
        /// As given.
        name: String,
        /// The names that begin so, with dash.
        matches: Vec<String>,
    },
    /// Given twice.
    #[error("Cannot bind parameter because parameter '{0}' is specified more than once.")]
    Repeated(String),
    /// A name without its value at the end or before the next name.
    #[error(
        "Missing an argument for parameter '{name}'. Specify a parameter of type '{kind}' and try again. (A variable that your shell does not know leaves nothing behind.)"
    )]
    MissingArgument {
        /// The parameter.
        name: String,
        /// Its type.
        kind: &'static str,
    },
    /// Mandatory parameters that were not given.
    #[error("Cannot process command because of one or more missing mandatory parameters: {}.", .0.join(" "))]
    MissingMandatory(Vec<String>),
    /// The parameters given belong to no one set.
    #[error("Parameter set cannot be resolved using the specified named parameters.")]
    SetUnresolved,
    /// A value without a name that no parameter takes.
    #[error("A positional parameter cannot be found that accepts argument '{0}'.")]
    NoPosition(String),
    /// `-Enabled:` with nothing after the colon.
    #[error(
        "-{0}: has no value: your shell removed $true (or $false). Write -{0}:true or -{0}:false, or put it in single quotes: '-{0}:$true'."
    )]
    ShellRemoved(String),
    /// A secret as an argument.
    #[error(
        "-{parameter} takes no value here, because other users of this machine can read a command line: {instead}."
    )]
    SecretAsArgument {
        /// The parameter.
        parameter: String,
        /// What to do.
        instead: &'static str,
    },
    /// A value that its parameter cannot take.
    #[error("Cannot bind parameter '{parameter}': {why}.")]
    BadValue {
        /// The parameter.
        parameter: String,
        /// Why, without a full stop.
        why: String,
    },
}

impl BindError {
    pub(crate) fn bad(parameter: &Parameter, why: impl Into<String>) -> Self {
        Self::BadValue {
            parameter: parameter.name.clone(),
            why: why.into().trim_end_matches('.').to_owned(),
        }
    }

    /// The parameter it is about, if it is one.
    #[must_use]
    pub fn parameter(&self) -> Option<&str> {
        match self {
            Self::UnknownParameter(name)
            | Self::AmbiguousParameter { name, .. }
            | Self::Repeated(name)
            | Self::MissingArgument { name, .. }
            | Self::ShellRemoved(name)
            | Self::SecretAsArgument { parameter: name, .. }
            | Self::BadValue { parameter: name, .. } => Some(name),
            Self::MissingMandatory(names) => names.first().map(String::as_str),
            Self::SetUnresolved | Self::NoPosition(_) => None,
        }
    }
}

/// Values that fit a declaration, each under its parameter's full name, in the declaration's order.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    set: String,
    values: Vec<(String, Value)>,
}

impl Parameters {
    /// The parameter set they fit; empty when the declaration names none.
    #[must_use]
    pub fn set(&self) -> &str {
        &self.set
    }

    /// Whether the parameter was given, `$null` included.
    #[must_use]
    pub fn given(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The value given.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    /// The text given; none for `$null` or nothing.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Value::Text(t)) => Some(t),
            _ => None,
        }
    }

    /// True or false as given.
    #[must_use]
    pub fn bool(&self, name: &str) -> Option<bool> {
        match self.get(name) {
            Some(Value::Bool(b)) => Some(*b),
            _ => None,
        }
    }

    /// Whether a switch is on.
    #[must_use]
    pub fn switch(&self, name: &str) -> bool {
        self.bool(name) == Some(true)
    }

    /// The number given.
    #[must_use]
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.get(name) {
            Some(Value::Int(n)) => Some(*n),
            _ => None,
        }
    }

    /// The GUID given.
    #[must_use]
    pub fn guid(&self, name: &str) -> Option<Uuid> {
        match self.get(name) {
            Some(Value::Guid(g)) => Some(*g),
            _ => None,
        }
    }

    /// The time given.
    #[must_use]
    pub fn date_time(&self, name: &str) -> Option<Timestamp> {
        match self.get(name) {
            Some(Value::DateTime(t)) => Some(*t),
            _ => None,
        }
    }

    /// The file's contents given.
    #[must_use]
    pub fn octets(&self, name: &str) -> Option<&[u8]> {
        match self.get(name) {
            Some(Value::Octets(o)) => Some(o),
            _ => None,
        }
    }

    /// The credential given.
    #[must_use]
    pub fn credential(&self, name: &str) -> Option<&Credential> {
        match self.get(name) {
            Some(Value::Credential(c)) => Some(c),
            _ => None,
        }
    }

    /// The secret given.
    #[must_use]
    pub fn secret(&self, name: &str) -> Option<&SecretString> {
        match self.get(name) {
            Some(Value::Secret(s)) => Some(s),
            _ => None,
        }
    }

    /// The texts of a list; none when it was not given or is a hashtable. `$null` is an empty list.
    #[must_use]
    pub fn list(&self, name: &str) -> Option<Vec<String>> {
        match self.get(name) {
            Some(Value::List(l)) => Some(l.iter().filter_map(Value::as_text).collect()),
            Some(Value::Null) => Some(Vec::new()),
            _ => None,
        }
    }

    /// `Add` and `Remove` of a hashtable.
    #[must_use]
    pub fn edits(&self, name: &str) -> Option<(Vec<String>, Vec<String>)> {
        let Some(Value::Table(table)) = self.get(name) else {
            return None;
        };
        let part = |key: &str| {
            let lists = table.iter().filter(|(k, _)| k == key).map(|(_, v)| v);
            lists
                .flat_map(|v| match v {
                    Value::List(l) => l.iter().filter_map(Value::as_text).collect(),
                    other => Vec::from_iter(other.as_text()),
                })
                .collect()
        };
        Some((part("Add"), part("Remove")))
    }

    /// Names and values in the declaration's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(n, v)| (n.as_str(), v))
    }

    /// The JSON object that [`bind_json`](crate::bind_json) reads.
    #[must_use]
    pub fn to_json(&self, secrets: Secrets) -> serde_json::Value {
        self.values
            .iter()
            .map(|(n, v)| (n.clone(), v.to_json(secrets)))
            .collect()
    }

    /// The JSON object for the audit log: secrets blanked, contents of files given as their size.
    #[must_use]
    pub fn to_audit_json(&self) -> serde_json::Value {
        let short = |v: &Value| match v {
            Value::Octets(o) => serde_json::Value::from(format!("{} octets", o.len())),
            other => other.to_json(Secrets::Blank),
        };
        self.values.iter().map(|(n, v)| (n.clone(), short(v))).collect()
    }
}

/// The parameter a name means: exact, alias, or the beginning of one name only.
pub(crate) fn named<'d>(
    declaration: &'d Declaration,
    name: &str,
    abbreviated: bool,
) -> Result<&'d Parameter, BindError> {
    if let Some(exact) = declaration.parameter(name) {
        return Ok(exact);
    }
    let begins = |n: &str| n.get(..name.len()).is_some_and(|head| head.eq_ignore_ascii_case(name));
    let found: Vec<&Parameter> = if abbreviated && !name.is_empty() {
        declaration
            .parameters
            .iter()
            .filter(|p| begins(&p.name) || p.aliases.iter().any(|a| begins(a)))
            .collect()
    } else {
        Vec::new()
    };
    match found.as_slice() {
        [] => Err(BindError::UnknownParameter(name.to_owned())),
        [one] => Ok(one),
        many => Err(BindError::AmbiguousParameter {
            name: name.to_owned(),
            matches: many.iter().map(|p| format!("-{}", p.name)).collect(),
        }),
    }
}

/// Finds the set that the given parameters fit and puts them in order.
pub(crate) fn resolve(declaration: &Declaration, mut given: Vec<(&Parameter, Value)>) -> Result<Parameters, BindError> {
    let sets = declaration.sets();
    let fitting: Vec<&String> = sets.iter().filter(|s| given.iter().all(|(p, _)| p.is_in(s))).collect();
    if fitting.is_empty() {
        return Err(BindError::SetUnresolved);
    }
    let missing = |set: &str| -> Vec<String> {
        let needed = declaration.parameters.iter().filter(|p| p.mandatory && p.is_in(set));
        needed
            .filter(|p| !given.iter().any(|(g, _)| g.name == p.name))
            .map(|p| p.name.clone())
            .collect()
    };
    let is_default = |s: &str| declaration.default_set.as_deref() == Some(s);
    let complete: Vec<&&String> = fitting.iter().filter(|s| missing(s).is_empty()).collect();
    let set = match complete.as_slice() {
        [one] => (**one).clone(),
        [] => {
            let nearest = fitting
                .iter()
                .find(|s| is_default(s))
                .or(fitting.first().filter(|_| fitting.len() == 1));
            return Err(match nearest {
                Some(set) => BindError::MissingMandatory(missing(set)),
                None => BindError::SetUnresolved,
            });
        }
        many => match many.iter().find(|s| is_default(s)) {
            Some(set) => (**set).clone(),
            None => return Err(BindError::SetUnresolved),
        },
    };
    let order = |name: &str| declaration.parameters.iter().position(|p| p.name == name);
    given.sort_by_key(|(p, _)| order(&p.name));
    Ok(Parameters {
        set,
        values: given.into_iter().map(|(p, v)| (p.name.clone(), v)).collect(),
    })
}

/// `$true`, `true`, `1` and their opposites.
pub(crate) fn truth(text: &str) -> Option<bool> {
    match text.trim().trim_start_matches('$').to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

pub(crate) fn is_null(text: &str) -> bool {
    text.trim().eq_ignore_ascii_case("$null")
}

/// `$null`, where the parameter takes it.
pub(crate) fn null_for(parameter: &Parameter) -> Result<Value, BindError> {
    if parameter.nullable {
        Ok(Value::Null)
    } else {
        Err(BindError::bad(parameter, "Cannot bind argument because it is null"))
    }
}

/// One text as a parameter's value. Types that hold secrets, files or booleans are read elsewhere.
pub(crate) fn scalar(parameter: &Parameter, text: &str) -> Result<Value, BindError> {
    let bad = |why: String| BindError::bad(parameter, why);
    if text.len() > MAX_TEXT {
        return Err(bad(format!("longer than {MAX_TEXT} octets")));
    }
    if text.contains('\0') {
        return Err(bad("it contains a NUL character".to_owned()));
    }
    let blank_refused = parameter.mandatory || parameter.kind == ParameterType::Identity;
    match parameter.kind {
        ParameterType::Text | ParameterType::Identity => {
            if blank_refused && text.trim().is_empty() {
                return Err(bad("Cannot bind argument because it is an empty string".to_owned()));
            }
            allowed(parameter, text).map(Value::Text)
        }
        ParameterType::Switch | ParameterType::Boolean => truth(text)
            .map(Value::Bool)
            .ok_or_else(|| bad(format!("'{text}' is neither $true nor $false"))),
        ParameterType::Integer => {
            let number = text
                .trim()
                .parse::<i32>()
                .map_err(|_| bad(format!("'{text}' is not a whole number")))?;
            Ok(Value::Int(i64::from(number)))
        }
        ParameterType::Unlimited if text.trim().eq_ignore_ascii_case("unlimited") => {
            Ok(Value::Text("Unlimited".into()))
        }
        ParameterType::Unlimited => text
            .trim()
            .parse::<u32>()
            .map(|n| Value::Int(i64::from(n)))
            .map_err(|_| bad(format!("'{text}' is neither a whole number from 0 on nor Unlimited"))),
        ParameterType::Guid => Uuid::parse_str(text.trim())
            .map(Value::Guid)
            .map_err(|_| bad(format!("'{text}' is not a GUID"))),
        ParameterType::DateTime => parse_date_time(text)
            .map(Value::DateTime)
            .map_err(|e| bad(e.to_string())),
        ParameterType::TimeSpan => parse_time_span(text)
            .map(Value::TimeSpan)
            .map_err(|e| bad(e.to_string())),
        ParameterType::List | ParameterType::Flags if literal::is_table(text) => Err(bad(
            "a list replaces the present one; a hashtable with Add and Remove is not taken here".to_owned(),
        )),
        ParameterType::List | ParameterType::EditableList | ParameterType::Flags => {
            texts(parameter, literal::list(text).map_err(bad)?)
        }
        ParameterType::Secret | ParameterType::Credential | ParameterType::Octets => {
            Err(bad(format!("a value of type {} is expected", parameter.kind.as_str())))
        }
    }
}

/// A list of texts, each checked.
pub(crate) fn texts(parameter: &Parameter, list: Vec<String>) -> Result<Value, BindError> {
    if list.len() > MAX_LIST {
        return Err(BindError::bad(parameter, format!("more than {MAX_LIST} values")));
    }
    if let Some(long) = list.iter().find(|t| t.len() > MAX_TEXT || t.contains('\0')) {
        let why = if long.contains('\0') {
            "a value contains a NUL character"
        } else {
            "a value is too long"
        };
        return Err(BindError::bad(parameter, why));
    }
    // Flags may also come as one text, "Inbound, RemoteOutbound".
    let list: Vec<String> = if parameter.kind == ParameterType::Flags {
        list.iter()
            .flat_map(|t| t.split(','))
            .map(|t| t.trim().to_owned())
            .filter(|t| !t.is_empty())
            .collect()
    } else {
        list
    };
    let checked: Result<Vec<Value>, BindError> = list.iter().map(|t| allowed(parameter, t).map(Value::Text)).collect();
    checked.map(Value::List)
}

/// The allowed value that a text means, in its declared spelling.
fn allowed(parameter: &Parameter, text: &str) -> Result<String, BindError> {
    if parameter.allowed_values.is_empty() {
        return Ok(text.to_owned());
    }
    parameter
        .allowed_values
        .iter()
        .find(|a| a.eq_ignore_ascii_case(text.trim()))
        .cloned()
        .ok_or_else(|| {
            BindError::bad(
                parameter,
                format!("'{text}' is not one of {}", parameter.allowed_values.join(", ")),
            )
        })
}

/// A hashtable that edits a list.
pub(crate) fn edit_table(parameter: &Parameter, entries: Vec<(String, Vec<String>)>) -> Result<Value, BindError> {
    if entries.is_empty() {
        return Err(BindError::bad(parameter, "the hashtable is empty: use Add or Remove"));
    }
    let mut table: Vec<(String, Value)> = Vec::new();
    for (key, list) in entries {
        let key = ["Add", "Remove"]
            .into_iter()
            .find(|k| k.eq_ignore_ascii_case(&key))
            .ok_or_else(|| {
                BindError::bad(
                    parameter,
                    format!("'{key}' is not a key of this hashtable: use Add and Remove"),
                )
            })?;
        if table.iter().any(|(k, _)| k == key) {
            return Err(BindError::bad(
                parameter,
                format!("{key} appears twice in the hashtable"),
            ));
        }
        table.push((key.to_owned(), texts(parameter, list)?));
    }
    Ok(Value::Table(table))
}

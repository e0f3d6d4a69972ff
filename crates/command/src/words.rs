//! Binding the words of a command line, after the shell has split them.

use crate::{
    BindError, Credential, Declaration, MAX_OCTETS, Parameter, ParameterType, Parameters, Value,
    bind::{edit_table, is_null, named, null_for, resolve, scalar, truth},
    literal,
};
use secrecy::SecretString;

/// Where a command line gets what does not stand in its words. Errors are in words, without full stop.
pub trait Inputs {
    /// A user name with its secret: from the file named by `--credentials-file`, or asked for without echo.
    /// `user_name` is what the other arguments suggest as user name.
    ///
    /// # Errors
    /// When there is no file and no one to ask.
    fn credential(&mut self, parameter: &str, user_name: Option<&str>) -> Result<Credential, String>;

    /// A secret, asked for without echo.
    ///
    /// # Errors
    /// When there is no one to ask.
    fn secret(&mut self, parameter: &str) -> Result<SecretString, String>;

    /// The contents of a file, or of standard input for `-`.
    ///
    /// # Errors
    /// When it cannot be read or is too large.
    fn octets(&mut self, name: &str) -> Result<Vec<u8>, String>;
}

/// One word, as far as it can be told without a declaration.
enum Word<'a> {
    /// `-Name` or `-Name:value`.
    Name(&'a str, Option<&'a str>),
    /// Anything else.
    Value(&'a str),
}

fn classify(word: &str) -> Word<'_> {
    let Some(rest) = word.strip_prefix('-') else {
        return Word::Value(word);
    };
    if !rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '-') {
        return Word::Value(word);
    }
    match rest.split_once(':') {
        Some((name, value)) => Word::Name(name, Some(value)),
        None => Word::Name(rest, None),
    }
}

/// Binds the words after the cmdlet's name.
///
/// Names are case-insensitive and may be cut to a beginning that no other name has. A word that ends in a comma is
/// continued by the next one, so that `a, b` is a list. Files are read, secrets asked for, only when everything else
/// is right.
///
/// # Errors
/// [`BindError`], in the texts that PowerShell's users know.
pub fn bind_words(
    declaration: &Declaration,
    words: &[String],
    inputs: &mut dyn Inputs,
) -> Result<Parameters, BindError> {
    let mut given: Vec<(&Parameter, Pending)> = Vec::new();
    let mut unnamed: Vec<String> = Vec::new();
    let mut rest = words.iter().map(String::as_str).peekable();
    while let Some(word) = rest.next() {
        match classify(word) {
            Word::Value(value) => unnamed.push(continued(value, &mut rest)),
            Word::Name(name, attached) => {
                let parameter = named(declaration, name, true)?;
                if given.iter().any(|(p, _)| p.name == parameter.name) {
                    return Err(BindError::Repeated(parameter.name.clone()));
                }
                let pending = argument(parameter, attached, &mut rest)?;
                given.push((parameter, pending));
            }
        }
    }
    for value in unnamed {
        let parameter = next_position(declaration, &given).ok_or_else(|| BindError::NoPosition(value.clone()))?;
        given.push((parameter, Pending::of_text(parameter, &value)?));
    }
    let settled: Vec<(&Parameter, Value)> = given
        .iter()
        .map(|(p, v)| (*p, v.ready().unwrap_or(Value::Null)))
        .collect();
    resolve(declaration, settled)?;
    let mut complete: Vec<(&Parameter, Value)> = Vec::with_capacity(given.len());
    let known: Vec<(String, String)> = given
        .iter()
        .filter_map(|(p, v)| Some((p.name.clone(), v.ready()?.as_text()?)))
        .collect();
    for (parameter, pending) in given {
        let suggestion = known
            .iter()
            .find(|(name, _)| parameter.user_name_from.as_deref() == Some(name));
        let value = pending.fetch(parameter, inputs, suggestion.map(|(_, text)| text.as_str()))?;
        complete.push((parameter, value));
    }
    resolve(declaration, complete)
}

/// A value that is known, or still to be fetched.
enum Pending {
    Ready(Value),
    Credential,
    Secret,
    Octets(String),
}

impl Pending {
    fn of_text(parameter: &Parameter, text: &str) -> Result<Self, BindError> {
        if is_null(text) {
            return null_for(parameter).map(Self::Ready);
        }
        match parameter.kind {
            ParameterType::Secret | ParameterType::Credential => Err(secret_as_argument(parameter)),
            ParameterType::Octets if text.trim().is_empty() => {
                Err(BindError::bad(parameter, "the name of a file is missing"))
            }
            ParameterType::Octets => Ok(Self::Octets(text.to_owned())),
            ParameterType::EditableList if literal::is_table(text) => {
                let entries = literal::table(text).map_err(|why| BindError::bad(parameter, why))?;
                edit_table(parameter, entries).map(Self::Ready)
            }
            ParameterType::Switch
            | ParameterType::Boolean
            | ParameterType::Integer
            | ParameterType::Unlimited
            | ParameterType::Text
            | ParameterType::Identity
            | ParameterType::Guid
            | ParameterType::DateTime
            | ParameterType::TimeSpan
            | ParameterType::List
            | ParameterType::EditableList
            | ParameterType::Flags => scalar(parameter, text).map(Self::Ready),
        }
    }

    fn ready(&self) -> Option<Value> {
        match self {
            Self::Ready(value) => Some(value.clone()),
            Self::Credential | Self::Secret | Self::Octets(_) => None,
        }
    }

    fn fetch(
        self,
        parameter: &Parameter,
        inputs: &mut dyn Inputs,
        user_name: Option<&str>,
    ) -> Result<Value, BindError> {
        let value = match self {
            Self::Ready(value) => Ok(value),
            Self::Credential => inputs.credential(&parameter.name, user_name).map(Value::Credential),
            Self::Secret => inputs.secret(&parameter.name).map(Value::Secret),
            Self::Octets(name) => inputs.octets(&name).and_then(|octets| {
                if octets.len() > MAX_OCTETS {
                    return Err(format!("'{name}' is larger than {MAX_OCTETS} octets"));
                }
                Ok(Value::Octets(octets))
            }),
        };
        value.map_err(|why| BindError::bad(parameter, why))
    }
}

fn secret_as_argument(parameter: &Parameter) -> BindError {
    BindError::SecretAsArgument {
        parameter: parameter.name.clone(),
        instead: if parameter.kind == ParameterType::Credential {
            "give it alone to be asked, or with --credentials-file FILE (- for standard input)"
        } else {
            "give it alone to be asked"
        },
    }
}

/// A value and what follows its comma.
fn continued<'a>(first: &str, rest: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> String {
    let mut text = first.to_owned();
    while text.ends_with(',') {
        let Some(next) = rest.next_if(|w| matches!(classify(w), Word::Value(_))) else {
            break;
        };
        text.push(' ');
        text.push_str(next);
    }
    text
}

/// The value of a named parameter: attached by a colon, or the next word.
fn argument<'a>(
    parameter: &Parameter,
    attached: Option<&str>,
    rest: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>,
) -> Result<Pending, BindError> {
    let is_truth = matches!(parameter.kind, ParameterType::Switch | ParameterType::Boolean);
    let is_secret = matches!(parameter.kind, ParameterType::Secret | ParameterType::Credential);
    if let Some(text) = attached {
        if is_secret {
            return Err(secret_as_argument(parameter));
        }
        return match text {
            "" if is_truth => Err(BindError::ShellRemoved(parameter.name.clone())),
            "" => Err(missing(parameter)),
            _ => Pending::of_text(parameter, &continued(text, rest)),
        };
    }
    let value_follows = rest.peek().is_some_and(|w| matches!(classify(w), Word::Value(_)));
    match parameter.kind {
        ParameterType::Switch => match rest.peek().and_then(|w| truth(w).filter(|_| !matches!(*w, "0" | "1"))) {
            Some(value) => Err(BindError::NoPosition(if value { "True" } else { "False" }.to_owned())),
            None => Ok(Pending::Ready(Value::Bool(true))),
        },
        ParameterType::Boolean => match rest.peek().copied() {
            Some("") => Err(BindError::ShellRemoved(parameter.name.clone())),
            Some(word) if value_follows && truth(word).is_some() => {
                rest.next();
                scalar(parameter, word).map(Pending::Ready)
            }
            Some(_) | None => Ok(Pending::Ready(Value::Bool(true))),
        },
        ParameterType::Secret | ParameterType::Credential if value_follows => Err(secret_as_argument(parameter)),
        ParameterType::Secret => Ok(Pending::Secret),
        ParameterType::Credential => Ok(Pending::Credential),
        ParameterType::Octets if rest.next_if_eq(&"-").is_some() => Ok(Pending::Octets("-".to_owned())),
        ParameterType::Octets
        | ParameterType::Integer
        | ParameterType::Unlimited
        | ParameterType::Text
        | ParameterType::Identity
        | ParameterType::Guid
        | ParameterType::DateTime
        | ParameterType::TimeSpan
        | ParameterType::List
        | ParameterType::EditableList
        | ParameterType::Flags => match rest.next_if(|_| value_follows) {
            Some(word) => {
                let text = continued(word, rest);
                Pending::of_text(parameter, &text)
            }
            None => Err(missing(parameter)),
        },
    }
}

fn missing(parameter: &Parameter) -> BindError {
    BindError::MissingArgument {
        name: parameter.name.clone(),
        kind: parameter.kind.as_str(),
    }
}

/// The parameter that takes the next value without a name.
fn next_position<'d>(declaration: &'d Declaration, given: &[(&Parameter, Pending)]) -> Option<&'d Parameter> {
    let sets = declaration.sets();
    let possible: Vec<&String> = sets.iter().filter(|s| given.iter().all(|(p, _)| p.is_in(s))).collect();
    declaration
        .parameters
        .iter()
        .filter(|p| p.position.is_some() && !given.iter().any(|(g, _)| g.name == p.name))
        .filter(|p| possible.iter().any(|s| p.is_in(s)))
        .min_by_key(|p| p.position)
}

#[cfg(test)]
mod tests;

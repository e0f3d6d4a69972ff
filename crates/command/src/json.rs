//! Binding a JSON object, as it comes over HTTP.

use crate::{
    BindError, Credential, Declaration, MAX_OCTETS, MAX_TEXT, Parameter, ParameterType, Parameters, Value,
    bind::{edit_table, named, null_for, resolve, scalar, texts},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value as Json};

/// Binds an object whose members are parameters. Names are whole, case does not matter.
///
/// # Errors
/// [`BindError`]; never quotes a secret.
pub fn bind_json(declaration: &Declaration, object: &Map<String, Json>) -> Result<Parameters, BindError> {
    let mut given: Vec<(&Parameter, Value)> = Vec::with_capacity(object.len());
    for (name, json) in object {
        let parameter = named(declaration, name, false)?;
        if given.iter().any(|(p, _)| p.name == parameter.name) {
            return Err(BindError::Repeated(parameter.name.clone()));
        }
        given.push((parameter, value(parameter, json)?));
    }
    resolve(declaration, given)
}

fn value(parameter: &Parameter, json: &Json) -> Result<Value, BindError> {
    let kind = parameter.kind;
    let expected = || BindError::bad(parameter, format!("a value of type {} is expected", kind.as_str()));
    if json.is_null() {
        return null_for(parameter);
    }
    match kind {
        ParameterType::Switch | ParameterType::Boolean => match json {
            Json::Bool(b) => Ok(Value::Bool(*b)),
            Json::String(s) => scalar(parameter, s),
            _ => Err(expected()),
        },
        ParameterType::Secret => {
            let text = json
                .as_str()
                .filter(|s| !s.is_empty() && s.len() <= MAX_TEXT)
                .ok_or_else(expected)?;
            Ok(Value::Secret(text.to_owned().into()))
        }
        ParameterType::Credential => {
            let part = |name: &str| {
                let text = json.get(name).and_then(Json::as_str);
                text.filter(|s| !s.is_empty() && s.len() <= MAX_TEXT).map(str::to_owned)
            };
            match (part("UserName"), part("Password")) {
                (Some(user_name), Some(password)) => Ok(Value::Credential(Credential {
                    user_name,
                    password: password.into(),
                })),
                _ => Err(BindError::bad(
                    parameter,
                    "a credential is {\"UserName\": …, \"Password\": …}, neither of them empty",
                )),
            }
        }
        ParameterType::Octets => {
            let text = json.as_str().ok_or_else(expected)?;
            if text.len() / 4 * 3 > MAX_OCTETS {
                return Err(BindError::bad(parameter, format!("larger than {MAX_OCTETS} octets")));
            }
            STANDARD
                .decode(text)
                .map(Value::Octets)
                .map_err(|_| BindError::bad(parameter, "it is not base64"))
        }
        ParameterType::List | ParameterType::EditableList | ParameterType::Flags => match json {
            Json::Object(table) if kind == ParameterType::EditableList => {
                let mut entries = Vec::new();
                for (key, value) in table.iter().filter(|(k, _)| !k.starts_with('@')) {
                    entries.push((key.clone(), text_list(value).ok_or_else(expected)?));
                }
                edit_table(parameter, entries)
            }
            other => texts(parameter, text_list(other).ok_or_else(expected)?),
        },
        ParameterType::Integer | ParameterType::Unlimited => match json {
            Json::Number(n) => scalar(parameter, &n.to_string()),
            Json::String(s) => scalar(parameter, s),
            _ => Err(expected()),
        },
        ParameterType::Text
        | ParameterType::Identity
        | ParameterType::Guid
        | ParameterType::DateTime
        | ParameterType::TimeSpan => match json {
            Json::String(s) => scalar(parameter, s),
            Json::Number(n) if kind == ParameterType::Text => scalar(parameter, &n.to_string()),
            _ => Err(expected()),
        },
    }
}

/// A text, or an array of texts.
fn text_list(json: &Json) -> Option<Vec<String>> {
    let text = |v: &Json| match v {
        Json::String(s) => Some(s.clone()),
        Json::Number(n) => Some(n.to_string()),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    };
    match json {
        Json::Array(items) => items.iter().map(text).collect(),
        other => text(other).map(|t| vec![t]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Effect, Secrets};
    use serde_json::json;

    fn declaration() -> Declaration {
        use ParameterType as T;
        Declaration::new("Set", "Thing", Effect::Change, &["Role"], "s").parameters([
            Parameter::new("Identity", T::Identity, "h").mandatory().position(1),
            Parameter::new("Enabled", T::Boolean, "h"),
            Parameter::new("Force", T::Switch, "h"),
            Parameter::new("Count", T::Integer, "h"),
            Parameter::new("Limit", T::Unlimited, "h"),
            Parameter::new("Guid", T::Guid, "h").nullable(),
            Parameter::new("When", T::DateTime, "h"),
            Parameter::new("File", T::Octets, "h"),
            Parameter::new("Credentials", T::Credential, "h"),
            Parameter::new("Password", T::Secret, "h"),
            Parameter::new("Addresses", T::EditableList, "h").nullable(),
            Parameter::new("Kind", T::Text, "h").allowed(&["Alpha", "Beta"]),
        ])
    }

    #[test]
    fn what_binds_comes_back_as_it_went() {
        let rows = [
            (json!({"Identity": "a"}), None),
            (
                json!({"identity": "a", "ENABLED": "$true"}),
                Some(json!({"Identity": "a", "Enabled": true})),
            ),
            (
                json!({"Identity": "a", "Force": false, "Count": "7"}),
                Some(json!({"Identity": "a", "Force": false, "Count": 7})),
            ),
            (
                json!({"Identity": "a", "Limit": "UNLIMITED"}),
                Some(json!({"Identity": "a", "Limit": "Unlimited"})),
            ),
            (json!({"Identity": "a", "Limit": 20}), None),
            (json!({"Identity": "a", "Guid": null}), None),
            (
                json!({"Identity": "a", "When": "2026-05-06"}),
                Some(json!({"Identity": "a", "When": "2026-05-06T00:00:00Z"})),
            ),
            (json!({"Identity": "a", "File": "YQ=="}), None),
            (
                json!({"Identity": "a", "Credentials": {"UserName": "u", "Password": "p"}}),
                None,
            ),
            (json!({"Identity": "a", "Password": "p"}), None),
            (
                json!({"Identity": "a", "Addresses": "x"}),
                Some(json!({"Identity": "a", "Addresses": ["x"]})),
            ),
            (
                json!({"Identity": "a", "Addresses": {"@odata.type": "#x", "add": "x"}}),
                Some(json!({"Identity": "a", "Addresses": {"Add": ["x"]}})),
            ),
            (json!({"Identity": "a", "Addresses": null}), None),
            (
                json!({"Identity": "a", "Kind": "beta"}),
                Some(json!({"Identity": "a", "Kind": "Beta"})),
            ),
        ];
        for (given, expected) in rows {
            let bound = bind_json(&declaration(), given.as_object().unwrap()).unwrap();
            assert_eq!(
                bound.to_json(Secrets::Keep),
                expected.unwrap_or(given.clone()),
                "{given}"
            );
            let again = bind_json(&declaration(), bound.to_json(Secrets::Keep).as_object().unwrap()).unwrap();
            assert_eq!(again.to_json(Secrets::Keep), bound.to_json(Secrets::Keep), "{given}");
        }
    }

    #[test]
    fn what_does_not_bind() {
        for (given, expected) in [
            (json!({}), "missing mandatory parameters: Identity"),
            (json!({"Identity": null}), "it is null"),
            (json!({"Identity": " "}), "empty string"),
            (json!({"Identity": ["a", "b"]}), "type Identity"),
            (json!({"Identity": "a\u{0}"}), "NUL"),
            (json!({"Ident": "a"}), "parameter name 'Ident'"),
            (json!({"Identity": "a", "identity": "b"}), "more than once"),
            (json!({"Identity": "a", "Guid": "x"}), "not a GUID"),
            (json!({"Identity": "a", "When": "5/6/2026"}), "ambiguous"),
            (json!({"Identity": "a", "Kind": "Gamma"}), "one of Alpha, Beta"),
            (json!({"Identity": "a", "Enabled": 1}), "type Boolean"),
            (json!({"Identity": "a", "File": "???"}), "not base64"),
            (json!({"Identity": "a", "Credentials": "geheim"}), "UserName"),
            (json!({"Identity": "a", "Password": {"geheim": 1}}), "type SecureString"),
            (
                json!({"Identity": "a", "Addresses": {"Replace": ["x"]}}),
                "use Add and Remove",
            ),
            (json!({"Identity": "a", "Addresses": {}}), "empty"),
            (json!({"Identity": "a", "Count": 3_000_000_000_i64}), "whole number"),
            (json!({"Identity": "a", "Limit": -1}), "whole number"),
        ] {
            let error = bind_json(&declaration(), given.as_object().unwrap())
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{given}: {error}");
            assert!(!error.contains("geheim"), "{error}");
        }
    }

    #[test]
    fn audit_form_hides_secrets_and_contents() {
        let given = json!({"Identity": "a", "File": "YWJj", "Password": "geheim", "Credentials": {"UserName": "u", "Password": "geheim"}});
        let bound = bind_json(&declaration(), given.as_object().unwrap()).unwrap();
        assert_eq!(
            bound.to_audit_json(),
            json!({"Identity": "a", "File": "3 octets", "Credentials": {"UserName": "u", "Password": "********"}, "Password": "********"})
        );
    }
}

use super::*;
use crate::{Effect, Secrets};
use serde_json::{Value as Json, json};

/// Answers what a terminal would.
struct Terminal {
    asked: Vec<String>,
}

impl Inputs for Terminal {
    fn credential(&mut self, parameter: &str, user_name: Option<&str>) -> Result<Credential, String> {
        self.asked.push(parameter.to_owned());
        Ok(Credential {
            user_name: user_name.unwrap_or("typed").to_owned(),
            password: "geheim".to_owned().into(),
        })
    }

    fn secret(&mut self, parameter: &str) -> Result<SecretString, String> {
        self.asked.push(parameter.to_owned());
        Ok("geheim".to_owned().into())
    }

    fn octets(&mut self, name: &str) -> Result<Vec<u8>, String> {
        match name {
            "-" => Ok(b"stdin".to_vec()),
            "batch.csv" => Ok(b"abc".to_vec()),
            other => Err(format!("'{other}' cannot be read: no such file")),
        }
    }
}

fn declaration() -> Declaration {
    use ParameterType as T;
    Declaration::new("Set", "Thing", Effect::Change, &["Role"], "s").parameters([
        Parameter::new("Identity", T::Identity, "h").mandatory().position(1),
        Parameter::new("Enabled", T::Boolean, "h"),
        Parameter::new("Force", T::Switch, "h"),
        Parameter::new("Count", T::Integer, "h").position(2),
        Parameter::new("ApplicationId", T::Text, "h").nullable().alias("AppId"),
        Parameter::new("When", T::DateTime, "h"),
        Parameter::new("Interval", T::TimeSpan, "h"),
        Parameter::new("MaxMigrations", T::Unlimited, "h"),
        Parameter::new("MaxSyncs", T::Unlimited, "h"),
        Parameter::new("CSVData", T::Octets, "h"),
        Parameter::new("Credentials", T::Credential, "h").user_name_from("ApplicationId"),
        Parameter::new("Password", T::Secret, "h"),
        Parameter::new("EmailAddresses", T::EditableList, "h"),
        Parameter::new("DomainNames", T::List, "h"),
        Parameter::new("Capability", T::Flags, "h").allowed(&["Inbound", "RemoteOutbound"]),
    ])
}

fn bind(words: &[&str]) -> Result<Json, BindError> {
    let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
    let mut terminal = Terminal { asked: Vec::new() };
    let bound = bind_words(&declaration(), &words, &mut terminal).map(|p| p.to_json(Secrets::Keep));
    assert!(
        bound.is_ok() || terminal.asked.is_empty(),
        "asked for a secret in vain: {words:?}"
    );
    bound
}

#[test]
fn what_binds() {
    for (words, expected) in [
        (&["-Identity", "a"][..], json!({"Identity": "a"})),
        (&["a"], json!({"Identity": "a"})),
        (&["a", "7"], json!({"Identity": "a", "Count": 7})),
        (&["-5"], json!({"Identity": "-5"})),
        (&["7", "-Identity", "a"], json!({"Identity": "a", "Count": 7})),
        (&["-identity:a:b"], json!({"Identity": "a:b"})),
        (&["-id", "a"], json!({"Identity": "a"})),
        (&["a", "-Enabled"], json!({"Identity": "a", "Enabled": true})),
        (&["a", "-Enabled:true"], json!({"Identity": "a", "Enabled": true})),
        (&["a", "-Enabled:$FALSE"], json!({"Identity": "a", "Enabled": false})),
        (&["-Enabled", "$true", "a"], json!({"Identity": "a", "Enabled": true})),
        (&["-Enabled", "false", "a"], json!({"Identity": "a", "Enabled": false})),
        (&["-Enabled", "a"], json!({"Identity": "a", "Enabled": true})),
        (&["a", "-Force"], json!({"Identity": "a", "Force": true})),
        (&["a", "-Force:$false"], json!({"Identity": "a", "Force": false})),
        (&["-Force", "a"], json!({"Identity": "a", "Force": true})),
        (&["a", "-AppId", "x"], json!({"Identity": "a", "ApplicationId": "x"})),
        (
            &["a", "-ApplicationId", "$null"],
            json!({"Identity": "a", "ApplicationId": null}),
        ),
        (
            &["a", "-MaxM", "unlimited", "-MaxS", "5"],
            json!({"Identity": "a", "MaxMigrations": "Unlimited", "MaxSyncs": 5}),
        ),
        (
            &["a", "-When", "5/31/2026 4:30 PM"],
            json!({"Identity": "a", "When": "2026-05-31T16:30:00Z"}),
        ),
        (
            &["a", "-Interval", "1.00:00:00"],
            json!({"Identity": "a", "Interval": "1.00:00:00"}),
        ),
        (
            &["a", "-CSVData", "batch.csv"],
            json!({"Identity": "a", "CSVData": "YWJj"}),
        ),
        (
            &["a", "-CSVData", "-", "-Force"],
            json!({"Identity": "a", "Force": true, "CSVData": "c3RkaW4="}),
        ),
        (
            &["a", "-EmailAddress", "x,y"],
            json!({"Identity": "a", "EmailAddresses": ["x", "y"]}),
        ),
        (
            &["a", "-EmailAddress", "x,", "y", "-Force"],
            json!({"Identity": "a", "Force": true, "EmailAddresses": ["x", "y"]}),
        ),
        (
            &[
                "a",
                "-EmailAddress",
                "@{Add=\"x500:/o=c/ou=d/cn=Recipients/cn=e\"; remove=\"y\",\"z\"}",
            ],
            json!({"Identity": "a", "EmailAddresses": {"Add": ["x500:/o=c/ou=d/cn=Recipients/cn=e"], "Remove": ["y", "z"]}}),
        ),
        (
            &["a", "-Capability", "inbound, remoteOutbound"],
            json!({"Identity": "a", "Capability": ["Inbound", "RemoteOutbound"]}),
        ),
        (
            &["a", "-Capability", "\"Inbound, RemoteOutbound\""],
            json!({"Identity": "a", "Capability": ["Inbound", "RemoteOutbound"]}),
        ),
        (
            &["a", "-Credentials"],
            json!({"Identity": "a", "Credentials": {"UserName": "typed", "Password": "geheim"}}),
        ),
        (
            &["a", "-Credentials", "-ApplicationId", "app"],
            json!({"Identity": "a", "ApplicationId": "app", "Credentials": {"UserName": "app", "Password": "geheim"}}),
        ),
        (&["a", "-Password"], json!({"Identity": "a", "Password": "geheim"})),
    ] {
        assert_eq!(bind(words), Ok(expected), "{words:?}");
    }
}

#[test]
fn what_does_not_bind() {
    for (words, expected) in [
        (
            &[][..],
            "Cannot process command because of one or more missing mandatory parameters: Identity.",
        ),
        (&["-Credentials"], "missing mandatory parameters: Identity"),
        (
            &["a", "-Nonsense", "b"],
            "A parameter cannot be found that matches parameter name 'Nonsense'.",
        ),
        (&["a", "--json"], "parameter name '-json'"),
        (
            &["a", "-Max", "5"],
            "'Max' is ambiguous. Possible matches include: -MaxMigrations -MaxSyncs.",
        ),
        (
            &["a", "-Identity", "b", "-id", "c"],
            "'Identity' is specified more than once",
        ),
        (
            &["a", "7", "c"],
            "A positional parameter cannot be found that accepts argument 'c'.",
        ),
        (
            &["a", "-Force", "$true"],
            "A positional parameter cannot be found that accepts argument 'True'.",
        ),
        (&["a", "-Force", "false"], "accepts argument 'False'"),
        (&["a", "-Enabled:"], "your shell removed $true"),
        (&["a", "-Enabled", ""], "your shell removed $true"),
        (&["a", "-Force:"], "your shell removed $true"),
        (&["a", "-Enabled:maybe"], "neither $true nor $false"),
        (
            &["a", "-ApplicationId"],
            "Missing an argument for parameter 'ApplicationId'. Specify a parameter of type 'String'",
        ),
        (&["a", "-ApplicationId:"], "Missing an argument"),
        (&["a", "-ApplicationId", "-Force"], "Missing an argument"),
        (&["-Identity", ""], "empty string"),
        (&["-Identity", "$null"], "it is null"),
        (&["a", "-When", "5/6/2026"], "ambiguous: write 2026-05-06 or 2026-06-05"),
        (&["a", "-When", "$null"], "it is null"),
        (&["a", "-Interval", "24"], "not a length of time"),
        (&["a", "-MaxMigrations", "many"], "nor Unlimited"),
        (&["a", "-CSVData", "nosuch.csv"], "'nosuch.csv' cannot be read"),
        (&["a", "-Credentials", "geheim"], "-Credentials takes no value here"),
        (&["a", "-Credentials:geheim"], "--credentials-file"),
        (&["a", "-Password", "geheim"], "takes no value here"),
        (&["a", "-EmailAddresses", "@{Add=\"x\""], "hashtable is written"),
        (&["a", "-EmailAddresses", "@{Replace=\"x\"}"], "use Add and Remove"),
        (&["a", "-DomainNames", "@{Add=\"x\"}"], "not taken here"),
        (
            &["a", "-Capability", "Inbound,Sideways"],
            "'Sideways' is not one of Inbound, RemoteOutbound",
        ),
    ] {
        let error = bind(words).unwrap_err().to_string();
        assert!(error.contains(expected), "{words:?}: {error}");
        assert!(!error.contains("geheim"), "{error}");
    }
}

#[test]
fn parameter_sets() {
    use ParameterType as T;
    let sets = |default: Option<&str>| {
        let declaration = Declaration::new("Get", "Thing", Effect::Read, &["Role"], "s").parameters([
            Parameter::new("Identity", T::Identity, "h")
                .position(1)
                .sets(&["Identity"]),
            Parameter::new("BatchId", T::Text, "h").sets(&["Status"]),
            Parameter::new("MailboxGuid", T::Guid, "h").mandatory().sets(&["Guid"]),
            Parameter::new("ResultSize", T::Unlimited, "h"),
        ]);
        match default {
            Some(set) => declaration.default_set(set),
            None => declaration,
        }
    };
    let bind = |default: Option<&str>, words: &[&str]| {
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        let bound = bind_words(&sets(default), &words, &mut Terminal { asked: Vec::new() });
        bound.map(|p| p.set().to_owned()).map_err(|e| e.to_string())
    };
    let unresolved = Err("Parameter set cannot be resolved using the specified named parameters.".to_owned());
    assert_eq!(bind(Some("Identity"), &[]), Ok("Identity".to_owned()));
    assert_eq!(bind(None, &[]), unresolved);
    assert_eq!(bind(Some("Identity"), &["x"]), Ok("Identity".to_owned()));
    assert_eq!(
        bind(Some("Identity"), &["-ResultSize", "5", "-BatchId", "b"]),
        Ok("Status".to_owned())
    );
    assert_eq!(bind(Some("Identity"), &["-Identity", "x", "-BatchId", "b"]), unresolved);
    assert_eq!(
        bind(Some("Identity"), &["x", "-BatchId", "b"]),
        Err("A positional parameter cannot be found that accepts argument 'x'.".to_owned())
    );
    assert_eq!(bind(Some("Guid"), &[]), unresolved);
}

//! What a cmdlet is called, takes and returns. Serialised as it is: this is the JSON form.

use serde::{Deserialize, Serialize};

/// Whether running a cmdlet changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Only reads.
    Read,
    /// Changes something; can be undone by another cmdlet.
    Change,
    /// Removes something for good.
    Destroy,
}

/// The type of a parameter: what text it takes and which [`Value`](crate::Value) it becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ParameterType {
    /// `-Switch`, `-Switch:$false`; a Bool.
    #[serde(rename = "SwitchParameter")]
    Switch,
    /// `-Param $true`; a Bool.
    Boolean,
    /// A whole number of 32 bits; an Int.
    #[serde(rename = "Int32")]
    Integer,
    /// A whole number from 0 on, or the word Unlimited; an Int or the Text `Unlimited`.
    Unlimited,
    /// Text.
    #[serde(rename = "String")]
    Text,
    /// What names one object; never blank or null. Text.
    Identity,
    /// Text that is never an argument on a command line; a Secret.
    #[serde(rename = "SecureString")]
    Secret,
    /// A user name with its secret, never an argument on a command line; a Credential.
    #[serde(rename = "PSCredential")]
    Credential,
    /// On a command line the name of a file, or `-`; in JSON base64. Octets.
    #[serde(rename = "Byte[]")]
    Octets,
    /// A GUID.
    Guid,
    /// A point in time, UTC where no zone is given.
    DateTime,
    /// A length of time.
    TimeSpan,
    /// Several texts; a List of Text.
    #[serde(rename = "MultiValuedProperty")]
    List,
    /// Several texts, or a hashtable that edits them: a List of Text, or a Table of `Add` and `Remove`, Lists of Text.
    #[serde(rename = "EditableMultiValuedProperty")]
    EditableList,
    /// Several of the allowed values; a List of Text.
    Flags,
}

impl ParameterType {
    /// The name printed in help and errors.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Switch => "SwitchParameter",
            Self::Boolean => "Boolean",
            Self::Integer => "Int32",
            Self::Unlimited => "Unlimited",
            Self::Text => "String",
            Self::Identity => "Identity",
            Self::Secret => "SecureString",
            Self::Credential => "PSCredential",
            Self::Octets => "Byte[]",
            Self::Guid => "Guid",
            Self::DateTime => "DateTime",
            Self::TimeSpan => "TimeSpan",
            Self::List | Self::EditableList => "MultiValuedProperty",
            Self::Flags => "Flags",
        }
    }
}

/// One parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Parameter {
    /// Its name, without the dash.
    pub name: String,
    /// Other names it answers to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// What it takes.
    #[serde(rename = "Type")]
    pub kind: ParameterType,
    /// Whether each of its sets needs it.
    #[serde(default)]
    pub mandatory: bool,
    /// Its place among arguments without a name, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u8>,
    /// The parameter sets it belongs to; none means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<String>,
    /// Whether it takes a value from the pipeline.
    #[serde(default)]
    pub pipeline: bool,
    /// The values it takes, if they are a closed set; case does not matter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_values: Vec<String>,
    /// Whether `$null` is a value (it clears the property).
    #[serde(default)]
    pub nullable: bool,
    /// For a credential: the parameter whose value is its user name unless another is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_name_from: Option<String>,
    /// One or two sentences.
    pub help: String,
    /// Roles that a caller needs for this parameter, where they differ from the cmdlet's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
}

impl Parameter {
    /// An optional named parameter of every set.
    #[must_use]
    pub fn new(name: &str, kind: ParameterType, help: &str) -> Self {
        Self {
            name: name.to_owned(),
            aliases: Vec::new(),
            kind,
            mandatory: false,
            position: None,
            sets: Vec::new(),
            pipeline: false,
            allowed_values: Vec::new(),
            nullable: false,
            user_name_from: None,
            help: help.to_owned(),
            roles: Vec::new(),
        }
    }

    /// Needed in each of its sets.
    #[must_use]
    pub fn mandatory(mut self) -> Self {
        self.mandatory = true;
        self
    }

    /// May be given without its name, at this place (from 1).
    #[must_use]
    pub fn position(mut self, position: u8) -> Self {
        self.position = Some(position);
        self
    }

    /// Belongs to these sets only.
    #[must_use]
    pub fn sets(mut self, sets: &[&str]) -> Self {
        self.sets = sets.iter().map(|s| (*s).to_owned()).collect();
        self
    }

    /// Takes values from the pipeline.
    #[must_use]
    pub fn pipeline(mut self) -> Self {
        self.pipeline = true;
        self
    }

    /// Takes one of these values only.
    #[must_use]
    pub fn allowed(mut self, values: &[&str]) -> Self {
        self.allowed_values = values.iter().map(|s| (*s).to_owned()).collect();
        self
    }

    /// Takes `$null`.
    #[must_use]
    pub fn nullable(mut self) -> Self {
        self.nullable = true;
        self
    }

    /// A credential whose user name is, unless told otherwise, the value of that parameter.
    #[must_use]
    pub fn user_name_from(mut self, parameter: &str) -> Self {
        self.user_name_from = Some(parameter.to_owned());
        self
    }

    /// Answers to this name too.
    #[must_use]
    pub fn alias(mut self, name: &str) -> Self {
        self.aliases.push(name.to_owned());
        self
    }

    /// Needs one of these roles instead of the cmdlet's.
    #[must_use]
    pub fn roles(mut self, roles: &[&str]) -> Self {
        self.roles = roles.iter().map(|s| (*s).to_owned()).collect();
        self
    }

    /// Whether the name or an alias is `name`, case ignored.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name) || self.aliases.iter().any(|a| a.eq_ignore_ascii_case(name))
    }

    /// Whether it belongs to the set.
    #[must_use]
    pub fn is_in(&self, set: &str) -> bool {
        self.sets.is_empty() || self.sets.iter().any(|s| s == set)
    }
}

/// One property of the objects that a cmdlet returns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Property {
    /// Its name.
    pub name: String,
    /// Whether a table shows it without being asked.
    #[serde(default)]
    pub default_column: bool,
    /// What it says.
    pub help: String,
}

impl Property {
    /// A property that a table shows.
    #[must_use]
    pub fn column(name: &str, help: &str) -> Self {
        Self {
            name: name.to_owned(),
            default_column: true,
            help: help.to_owned(),
        }
    }

    /// A property that a table shows if `columns` names it.
    #[must_use]
    pub fn among(columns: &[&str], name: &str, help: &str) -> Self {
        if columns.contains(&name) {
            Self::column(name, help)
        } else {
            Self::new(name, help)
        }
    }

    /// A property that only a list or JSON shows.
    #[must_use]
    pub fn new(name: &str, help: &str) -> Self {
        Self {
            name: name.to_owned(),
            default_column: false,
            help: help.to_owned(),
        }
    }
}

/// An example of use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Example {
    /// The command as typed after the program's name.
    pub command: String,
    /// What it does.
    pub explanation: String,
}

/// What a cmdlet is called, takes and returns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Declaration {
    /// First half of its name.
    pub verb: String,
    /// Second half of its name.
    pub noun: String,
    /// One line.
    pub synopsis: String,
    /// What an administrator needs to know before using it.
    pub description: String,
    /// Whether it changes something.
    pub effect: Effect,
    /// A caller needs one of these roles.
    pub roles: Vec<String>,
    /// The set taken when several fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_set: Option<String>,
    /// In the order in which help lists them.
    pub parameters: Vec<Parameter>,
    /// Properties of what it returns.
    pub output: Vec<Property>,
    /// Examples.
    pub examples: Vec<Example>,
}

impl Declaration {
    /// A cmdlet without parameters or output.
    #[must_use]
    pub fn new(verb: &str, noun: &str, effect: Effect, roles: &[&str], synopsis: &str) -> Self {
        Self {
            verb: verb.to_owned(),
            noun: noun.to_owned(),
            synopsis: synopsis.to_owned(),
            description: String::new(),
            effect,
            roles: roles.iter().map(|s| (*s).to_owned()).collect(),
            default_set: None,
            parameters: Vec::new(),
            output: Vec::new(),
            examples: Vec::new(),
        }
    }

    /// With a description; paragraphs are divided by newlines.
    #[must_use]
    pub fn description(mut self, text: &str) -> Self {
        text.clone_into(&mut self.description);
        self
    }

    /// With these parameters.
    #[must_use]
    pub fn parameters(mut self, parameters: impl IntoIterator<Item = Parameter>) -> Self {
        self.parameters.extend(parameters);
        self
    }

    /// With the set that is taken when several fit.
    #[must_use]
    pub fn default_set(mut self, set: &str) -> Self {
        self.default_set = Some(set.to_owned());
        self
    }

    /// With these output properties.
    #[must_use]
    pub fn output(mut self, properties: impl IntoIterator<Item = Property>) -> Self {
        self.output.extend(properties);
        self
    }

    /// With an example.
    #[must_use]
    pub fn example(mut self, command: &str, explanation: &str) -> Self {
        self.examples.push(Example {
            command: command.to_owned(),
            explanation: explanation.to_owned(),
        });
        self
    }

    /// `Verb-Noun`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}-{}", self.verb, self.noun)
    }

    /// The parameter that is called so, by name or alias, case ignored.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|p| p.is_called(name))
    }

    /// The names of its parameter sets in order of first mention; one unnamed set when none is named.
    #[must_use]
    pub fn sets(&self) -> Vec<String> {
        let mut sets: Vec<String> = Vec::new();
        for set in self.parameters.iter().flat_map(|p| &p.sets) {
            if !sets.contains(set) {
                sets.push(set.clone());
            }
        }
        if sets.is_empty() {
            sets.push(String::new());
        }
        sets
    }
}

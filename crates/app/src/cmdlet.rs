//! Cmdlets as subcommands: words are bound here, run there, and what comes back is shown.

use crate::{
    ask::CommandLine,
    catalogue,
    failure::Failure,
    output::{self, Form},
    print,
    profile::{Profile, Profiles},
    session::answered,
    text::harmless,
    wait,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use rehome_command::{Declaration, ParameterType, Parameters, Secrets, bind_words};
use rehome_remote::client::{AdminClient, Invoked};
use serde_json::Value as Json;
use std::{fs, io::Write, path::Path};

/// Switches of the command line itself, which no cmdlet has: they begin with two hyphens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Switches {
    /// `--profile`.
    profile: Option<String>,
    /// `--json`.
    json: bool,
    /// `--list`.
    list: bool,
    /// `--wait`.
    wait: bool,
    /// `--credentials-file`.
    credentials_file: Option<String>,
    /// `--out`.
    out: Option<String>,
    /// `--help` or `-?`.
    help: bool,
}

impl Switches {
    /// Those that stand before the cmdlet's name.
    pub(crate) fn new(profile: Option<String>, json: bool) -> Self {
        Self {
            profile,
            json,
            ..Self::default()
        }
    }

    fn form(&self) -> Form {
        match (self.json, self.list) {
            (true, _) => Form::Json,
            (false, true) => Form::List,
            (false, false) => Form::Usual,
        }
    }

    /// Takes the switches out of the words.
    fn split(mut self, words: &[String]) -> Result<(Self, Vec<String>), Failure> {
        let mut rest = Vec::new();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if word == "-?" {
                self.help = true;
                continue;
            }
            let Some(switch) = word.strip_prefix("--").filter(|s| !s.is_empty()) else {
                rest.push(word.clone());
                continue;
            };
            let (name, attached) = match switch.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (switch, None),
            };
            let mut value = || {
                let value = attached.clone().or_else(|| words.next().cloned());
                value
                    .filter(|v| !v.is_empty())
                    .ok_or_else(|| Failure::usage(format!("--{name} needs a value")))
            };
            match name {
                "profile" => self.profile = Some(value()?),
                "credentials-file" => self.credentials_file = Some(value()?),
                "out" => self.out = Some(value()?),
                _ if attached.is_some() => return Err(unknown_switch(word)),
                "json" => self.json = true,
                "list" => self.list = true,
                "wait" => self.wait = true,
                "help" => self.help = true,
                _ => return Err(unknown_switch(word)),
            }
        }
        Ok((self, rest))
    }
}

fn unknown_switch(word: &str) -> Failure {
    Failure::usage(format!("'{word}' is not a switch of the command line")).advice(
        "Switches: --profile NAME, --json, --list, --wait, --credentials-file FILE, --out FILE, --help. A cmdlet's parameters begin with one hyphen.",
    )
}

/// Runs the cmdlet that the first word names.
///
/// # Errors
/// When it is not understood, refused, or fails.
pub(crate) async fn run(words: &[String], switches: Switches) -> Result<(), Failure> {
    let Some((name, words)) = words.split_first() else {
        return Err(Failure::usage("no command was given"));
    };
    let declaration = catalogue::find(name)?;
    let (switches, words) = switches.split(words)?;
    if switches.help {
        print::out(&catalogue::help(declaration));
        return Ok(());
    }
    let parameters = bind(declaration, words, &switches)?;
    let profile = Profiles::of_environment()?.choose(switches.profile.as_deref())?;
    let goal = match (switches.wait, wait::goal_of(&declaration.name())) {
        (false, _) => None,
        (true, Some(_)) if declaration.parameter("AutoStart").is_some() && !parameters.switch("AutoStart") => {
            return Err(
                Failure::usage("there is nothing to wait for: the batch does not start by itself")
                    .advice("Add -AutoStart."),
            );
        }
        (true, Some(goal)) => Some(goal),
        (true, None) => {
            return Err(Failure::usage(format!(
                "{} has nothing to wait for",
                declaration.name()
            )));
        }
    };
    if switches.out.is_some() && !gives_a_file(declaration) {
        return Err(Failure::usage(format!("{} gives no file", declaration.name())));
    }
    let session = AdminSession::new(profile)?;
    let sent = parameters.to_json(Secrets::Keep);
    let mut invoked = session.invoke(&declaration.name(), sent.clone()).await?;
    if let Some(out) = &switches.out {
        write_file(&session, (declaration, sent), &mut invoked, Path::new(out)).await?;
    }
    warn(&invoked.warnings);
    let form = match switches.form() {
        Form::Usual if is_report(declaration) && invoked.value.len() == 1 => Form::List,
        form => form,
    };
    print::out(&output::render(&invoked.value, &declaration.output, form));
    match goal {
        Some(goal) => wait::wait(&session, goal, &parameters, &invoked.value).await,
        None => Ok(()),
    }
}

/// Whether a cmdlet gives octets for a file, in parts where they are many.
pub(crate) fn gives_a_file(declaration: &Declaration) -> bool {
    declaration.output.iter().any(|property| property.name == "FileData")
}

/// Writes the octets of the one object into a new file, asking for further parts as long as there are any. The octets go
/// out of the object, which is shown after.
async fn write_file(
    session: &AdminSession,
    (declaration, mut sent): (&Declaration, Json),
    invoked: &mut Invoked,
    path: &Path,
) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::while_doing(&path.display().to_string(), &error);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(failed)?;
    let [object] = invoked.value.as_mut_slice() else {
        return Err(Failure::failed("the answer is not one object"));
    };
    let mut next = part_of(object, &mut file).map_err(failed)?;
    while let Some(part) = next {
        if let Some(parameters) = sent.as_object_mut() {
            parameters.insert("Part".to_owned(), part);
        }
        let mut more = session.invoke(&declaration.name(), sent.clone()).await?;
        let [object] = more.value.as_mut_slice() else {
            return Err(Failure::failed("the answer is not one object"));
        };
        next = part_of(object, &mut file).map_err(failed)?;
    }
    file.sync_all().map_err(failed)
}

/// Writes an object's octets, takes them out of it, and says which part comes next.
fn part_of(object: &mut Json, file: &mut fs::File) -> std::io::Result<Option<Json>> {
    let Some(members) = object.as_object_mut() else {
        return Ok(None);
    };
    let data = members.remove("FileData");
    let data = data.as_ref().and_then(Json::as_str).unwrap_or_default();
    let octets = STANDARD.decode(data).map_err(std::io::Error::other)?;
    file.write_all(&octets)?;
    Ok(members.remove("NextPart").filter(|next| !next.is_null()))
}

/// Whether one object of this cmdlet is read from top to bottom rather than across.
fn is_report(declaration: &Declaration) -> bool {
    declaration.verb == "Test" || declaration.noun.ends_with("Statistics")
}

/// `--credentials-file` alone stands for the one credential that the cmdlet takes.
fn bind(declaration: &Declaration, mut words: Vec<String>, switches: &Switches) -> Result<Parameters, Failure> {
    if switches.credentials_file.is_some() {
        let mut credentials = declaration
            .parameters
            .iter()
            .filter(|p| p.kind == ParameterType::Credential);
        let Some(credential) = credentials.next() else {
            return Err(Failure::usage(format!("{} takes no credentials", declaration.name())));
        };
        let named = |word: &String| word.strip_prefix('-').is_some_and(|name| credential.is_called(name));
        if !words.iter().any(named) {
            words.push(format!("-{}", credential.name));
        }
    }
    let mut inputs = CommandLine {
        credentials_file: switches.credentials_file.clone(),
    };
    bind_words(declaration, &words, &mut inputs).map_err(|error| Failure {
        id: "ParameterBindingException".to_owned(),
        ..Failure::usage(error.to_string()).advice(format!("rehome help {}", declaration.name()))
    })
}

/// Warnings go to standard error, whatever the form of the data.
fn warn(warnings: &[String]) {
    for warning in warnings {
        let lines: Vec<String> = warning.lines().map(harmless).collect();
        print::say(&format!("WARNING: {}\n", lines.join("\n         ")));
    }
}

/// A profile with its client.
pub(crate) struct AdminSession {
    profile: Profile,
    client: AdminClient,
}

impl AdminSession {
    fn new(profile: Profile) -> Result<Self, Failure> {
        let client = profile.client()?;
        Ok(Self { profile, client })
    }

    /// Runs a cmdlet.
    ///
    /// # Errors
    /// When it is refused or the server cannot be asked.
    pub(crate) async fn invoke(&self, cmdlet: &str, parameters: Json) -> Result<Invoked, Failure> {
        let invoked = self.client.invoke(&self.profile.token, cmdlet, parameters).await;
        invoked.map_err(|error| answered(error, &self.profile))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn switches_are_told_from_parameters() {
        let (switches, rest) = Switches::default()
            .split(&words(
                "-Name a --json -Enabled:true --profile=source --credentials-file f --wait",
            ))
            .unwrap();
        assert_eq!(rest, words("-Name a -Enabled:true"));
        assert!(switches.json && switches.wait && !switches.list);
        assert_eq!(
            (switches.profile.as_deref(), switches.credentials_file.as_deref()),
            (Some("source"), Some("f"))
        );
        for bad in ["--jsn", "--profile", "--json=yes"] {
            assert_eq!(
                Switches::default().split(&words(bad)).unwrap_err().exit,
                crate::failure::Exit::Usage,
                "{bad}"
            );
        }
    }

    #[test]
    fn a_credentials_file_names_the_one_credential() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.json");
        std::fs::write(
            &file,
            r#"{"UserName":"11111111-1111-1111-1111-111111111111","Password":"s3cret"}"#,
        )
        .unwrap();
        let declaration = catalogue::find("New-MigrationEndpoint").unwrap();
        let switches = Switches {
            credentials_file: Some(file.display().to_string()),
            ..Switches::default()
        };
        let given = "-Name e -ExchangeRemoteMove -RemoteServer s.example -RemoteTenant contoso.example \
                     -ApplicationId 11111111-1111-1111-1111-111111111111";
        let bound = bind(declaration, words(given), &switches).unwrap();
        assert!(bound.credential("Credentials").is_some());
        let refused = bind(
            declaration,
            words(&format!("{given} -Credentials s3cret")),
            &Switches::default(),
        )
        .unwrap_err();
        assert!(!refused.to_text().contains("s3cret"));
    }
}

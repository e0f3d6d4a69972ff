//! An administrator at his terminal: commands as subprocesses, as he would type them; and the same over REST for what a
//! test asks a hundred times.

use crate::deployment::{Deployment, binary};
use crate::https::{Client, Response};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// Why a command failed, as the terminal says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandFailure {
    /// The exit code.
    pub exit: i32,
    /// The error id; empty where there is none.
    pub id: String,
    /// What happened.
    pub message: String,
    /// What to do.
    pub advice: String,
    /// Stands in both sides' logs.
    pub correlation: String,
}

/// What a command gave.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its objects.
    pub objects: Vec<Value>,
    /// What it said on standard error: warnings among it.
    pub said: String,
}

/// A signed-in administrator of one tenant.
#[derive(Clone)]
pub struct Administrator {
    /// The tenant's first domain; also the profile's name.
    pub domain: String,
    /// The tenant's GUID.
    pub tenant: String,
    /// `host:port` of its server.
    pub server: String,
    home: PathBuf,
    client: Client,
}

impl Administrator {
    /// The administrator of a tenant, not signed in yet.
    pub fn new(deployment: &Deployment, domain: &str, tenant: &str) -> Self {
        Self {
            domain: domain.to_owned(),
            tenant: tenant.to_owned(),
            server: deployment.name(),
            home: deployment.path("admin"),
            client: Client::new(&deployment.authority(), deployment.address()),
        }
    }

    /// An HTTPS client that knows the server.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Signs in; with a one-time code a new password is set.
    pub fn sign_in(&self, password: &str, new_password: Option<&str>) {
        let mut credentials = json!({ "UserName": format!("admin@{}", self.domain), "Password": password });
        if let Some(new) = new_password {
            credentials["NewPassword"] = new.into();
        }
        let file = self.file("sign-in.json", &credentials.to_string());
        let authority = self.home.join("../tls/ca.pem").display().to_string();
        let arguments = [
            "login",
            "--server",
            &self.server,
            "--tenant",
            &self.domain,
            "--ca",
            &authority,
            "--credentials-file",
            &file,
        ];
        if let Err(failure) = self.run(&arguments) {
            panic!("sign-in to {}: {failure:?}", self.domain);
        }
    }

    /// Writes a file for a command to read; returns its name.
    pub fn file(&self, name: &str, content: &str) -> String {
        let path = self.home.join(format!("{}-{name}", self.domain));
        std::fs::write(&path, content).expect("a file is written");
        path.display().to_string()
    }

    /// The session's token, as it stands in the profile.
    pub fn token(&self) -> String {
        let profile =
            std::fs::read(self.home.join(format!("profiles/{}.json", self.domain))).expect("the profile is there");
        let profile: Value = serde_json::from_slice(&profile).expect("the profile is JSON");
        profile["token"].as_str().expect("it has a token").to_owned()
    }

    /// The command as a subprocess, with `--json`; no terminal, nothing on standard input.
    pub fn execute(&self, arguments: &[&str]) -> Output {
        Command::new(binary())
            .args(["--profile", &self.domain])
            .args(arguments)
            .arg("--json")
            .env("REHOME_HOME", &self.home)
            .stdin(Stdio::null())
            .output()
            .expect("the binary runs")
    }

    /// Runs one command line.
    ///
    /// # Errors
    /// When it ends with another code than 0.
    pub fn run(&self, arguments: &[&str]) -> Result<Answer, CommandFailure> {
        let output = self.execute(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            return Err(failure(&output, &said));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let objects = match text.trim() {
            "" => Vec::new(),
            text => match serde_json::from_str(text) {
                Ok(Value::Array(objects)) => objects,
                Ok(one) => vec![one],
                Err(error) => panic!("{arguments:?} printed no JSON ({error}): {text}"),
            },
        };
        Ok(Answer { objects, said })
    }

    /// Runs one command line that must succeed; returns its objects.
    pub fn does(&self, arguments: &[&str]) -> Vec<Value> {
        match self.run(arguments) {
            Ok(answer) => answer.objects,
            Err(failure) => panic!("{}: {arguments:?}: {failure:?}", self.domain),
        }
    }

    /// Runs one command line that must be refused with this id.
    pub fn is_refused(&self, id: &str, arguments: &[&str]) -> CommandFailure {
        match self.run(arguments) {
            Ok(answer) => panic!("{}: {arguments:?} was not refused: {answer:?}", self.domain),
            Err(failure) => {
                assert_eq!(failure.id, id, "{arguments:?}: {failure:?}");
                failure
            }
        }
    }

    /// The same command over REST.
    pub fn invoke(&self, cmdlet: &str, parameters: &Value) -> Response {
        let body = json!({ "CmdletInput": { "CmdletName": cmdlet, "Parameters": parameters } });
        let bearer = format!("Bearer {}", self.token());
        let path = format!("/adminapi/beta/{}/InvokeCommand", self.tenant);
        self.client.post_json(&path, &[("authorization", &bearer)], &body)
    }

    /// Asks over REST; returns the objects.
    pub fn asks(&self, cmdlet: &str, parameters: &Value) -> Vec<Value> {
        let response = self.invoke(cmdlet, parameters);
        assert_eq!(response.status, 200, "{cmdlet} {parameters}: {}", response.text());
        response.json()["value"].as_array().cloned().unwrap_or_default()
    }
}

fn failure(output: &Output, said: &str) -> CommandFailure {
    let whole = std::iter::once(said).chain(said.lines().rev());
    let error = whole
        .filter_map(|text| serde_json::from_str::<Value>(text).ok())
        .find_map(|value| value.get("error").cloned());
    let error = error.unwrap_or_else(|| json!({ "message": said }));
    let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    CommandFailure {
        exit: output.status.code().unwrap_or(-1),
        id: text("id"),
        message: text("message"),
        advice: text("advice"),
        correlation: text("correlation_id"),
    }
}

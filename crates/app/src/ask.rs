//! Asking the person at the terminal, and reading what stands in files instead.

use crate::failure::Failure;
use rehome_command::{Credential, Inputs, MAX_OCTETS};
use secrecy::SecretString;
use std::{
    fs::File,
    io::{self, IsTerminal, Read, Write},
};

/// Longest credentials file, octets.
const MAX_CREDENTIALS: u64 = 64 * 1024;

/// Whether there is someone to ask.
pub(crate) fn someone_is_there() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks for a line that is not secret.
///
/// # Errors
/// In words, when there is no one to ask.
pub(crate) fn line(prompt: &str) -> Result<String, String> {
    if !someone_is_there() {
        return Err("there is no terminal to ask on".to_owned());
    }
    let mut stderr = io::stderr().lock();
    let asked = write!(stderr, "{prompt}: ").and_then(|()| stderr.flush());
    let mut answer = String::new();
    asked
        .and_then(|()| io::stdin().read_line(&mut answer))
        .map_err(|error| error.to_string())?;
    Ok(answer.trim().to_owned())
}

/// Asks for a secret without echo.
///
/// # Errors
/// In words, when there is no one to ask.
pub(crate) fn secret(prompt: &str) -> Result<SecretString, String> {
    if !someone_is_there() {
        return Err("there is no terminal to ask on".to_owned());
    }
    rpassword::prompt_password(format!("{prompt}: "))
        .map(SecretString::from)
        .map_err(|error| error.to_string())
}

/// Asks yes or no; anything but yes is no.
///
/// # Errors
/// When there is no one to ask.
pub(crate) fn yes(question: &str) -> Result<bool, Failure> {
    let answer = line(&format!("{question} [y/N]"))
        .map_err(|why| Failure::usage(why).advice("Answer with --yes or --cancel."))?;
    Ok(matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Reads a file, or standard input for `-`, up to a limit.
fn bounded(name: &str, most: u64) -> Result<Vec<u8>, String> {
    let unreadable = |error: io::Error| format!("'{name}' cannot be read: {error}");
    let source: Box<dyn Read> = if name == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(name).map_err(unreadable)?)
    };
    let mut octets = Vec::new();
    source.take(most + 1).read_to_end(&mut octets).map_err(unreadable)?;
    if octets.len() as u64 > most {
        return Err(format!("'{name}' is larger than {most} octets"));
    }
    Ok(octets)
}

/// Reads a credentials file's text.
///
/// # Errors
/// In words, without quoting it.
pub(crate) fn credentials_text(name: &str) -> Result<SecretString, String> {
    let octets = bounded(name, MAX_CREDENTIALS)?;
    String::from_utf8(octets)
        .map(SecretString::from)
        .map_err(|_| format!("'{name}' is not UTF-8 text"))
}

/// What a cmdlet's words do not hold.
pub(crate) struct CommandLine {
    /// `--credentials-file`.
    pub(crate) credentials_file: Option<String>,
}

impl Inputs for CommandLine {
    fn credential(&mut self, parameter: &str, user_name: Option<&str>) -> Result<Credential, String> {
        use secrecy::ExposeSecret;
        if let Some(file) = &self.credentials_file {
            return Credential::from_text(credentials_text(file)?.expose_secret());
        }
        let without = |why: String| format!("{why}; give --credentials-file FILE (- for standard input)");
        let user_name = match user_name {
            Some(name) => name.to_owned(),
            None => line(&format!("{parameter}, user name")).map_err(without)?,
        };
        let password = secret(&format!("{parameter}, secret for {user_name}")).map_err(without)?;
        Ok(Credential { user_name, password })
    }

    fn secret(&mut self, parameter: &str) -> Result<SecretString, String> {
        secret(parameter)
    }

    fn octets(&mut self, name: &str) -> Result<Vec<u8>, String> {
        bounded(name, MAX_OCTETS as u64)
    }
}

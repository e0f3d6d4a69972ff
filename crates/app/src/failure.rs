//! How a command fails: exit code, and what is said on standard error.

use crate::text::harmless;
use rehome_remote::client::{AdminError, AdminRefusal};
use serde_json::{Value as Json, json};

/// Exit codes, as `rehome --help` documents them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The command was understood, and refused or failed.
    Failed = 1,
    /// The command was not understood: nothing was done.
    Usage = 2,
    /// A receipt does not verify: it is damaged, altered, forged, or no receipt.
    Refuted = 3,
    /// A receipt is consistent, but not every signature could be checked.
    Unsigned = 4,
    /// A receipt verifies, and the mailbox does not hold what it says.
    Differs = 5,
}

/// A command that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The process's exit code.
    pub(crate) exit: Exit,
    /// The error id; empty where there is none.
    pub(crate) id: String,
    /// What happened.
    pub(crate) message: String,
    /// What to do; may be empty.
    pub(crate) advice: String,
    /// Stands in the server's log; may be empty.
    pub(crate) correlation_id: String,
}

impl Failure {
    /// Refused or failed.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Failed,
            id: String::new(),
            message: message.into(),
            advice: String::new(),
            correlation_id: String::new(),
        }
    }

    /// Not understood.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Usage,
            ..Self::failed(message)
        }
    }

    /// With what to do.
    pub(crate) fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }

    /// An error with all its causes.
    pub(crate) fn of(error: &dyn std::error::Error) -> Self {
        Self::failed(chain(error))
    }

    /// An error while something was done.
    pub(crate) fn while_doing(doing: &str, error: &dyn std::error::Error) -> Self {
        Self::failed(format!("{doing}: {}", chain(error)))
    }

    /// The form for machines.
    pub(crate) fn to_json(&self) -> Json {
        json!({ "error": {
            "id": self.id, "message": self.message, "advice": self.advice, "correlation_id": self.correlation_id,
        }})
    }

    /// The form for people.
    pub(crate) fn to_text(&self) -> String {
        let id = if self.id.is_empty() {
            String::new()
        } else {
            format!("{}: ", self.id)
        };
        let lines = self.message.lines().map(harmless).collect::<Vec<_>>().join("\n");
        let mut text = format!("rehome: {}{lines}\n", harmless(&id));
        for line in self.advice.lines().filter(|l| !l.trim().is_empty()) {
            text.push_str(&format!("  {}\n", harmless(line)));
        }
        if !self.correlation_id.is_empty() {
            text.push_str(&format!(
                "  correlation id {} (in the server's log)\n",
                harmless(&self.correlation_id)
            ));
        }
        text
    }

    fn refused(refusal: AdminRefusal) -> Self {
        Self {
            exit: Exit::Failed,
            id: refusal.id,
            message: refusal.message,
            advice: refusal.advice,
            correlation_id: refusal.correlation_id,
        }
    }
}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::Refused(refusal) | AdminError::NotSignedIn(refusal) => Self::refused(refusal),
            AdminError::Transport(_) | AdminError::NotAnAnswer { .. } | AdminError::OtherPlace { .. } => {
                Self::of(&error)
            }
        }
    }
}

/// An error with all its causes in one line; a cause that the text before it repeats is left out.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

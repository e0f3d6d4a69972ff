//! Runs the administrator's program that denies and allows access to accounts.
//!
//! It is called as `PROGRAM ARGUMENT… VERB ACCOUNT`, without a shell and with a clean environment:
//!
//! ```text
//! deny      nobody but us signs in from now on; done already is success
//! allow     the account's user may sign in again; done already is success
//! kick      ends the sessions that there are; none is success
//! sessions  prints one line for each session that there is
//! ```
//!
//! Exit code 0 is success, 67 (EX_NOUSER) says that there is no such account, any other that it failed.

use crate::config::AccessCommand;
use std::{io, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
};

/// What a program may print before the rest is passed over, octets.
const OUTPUT: usize = 64 * 1024;
/// How much of that goes into the log, characters.
const LOGGED: usize = 1000;
/// Positive answers to sign-ins may live so long in the server's caches.
const CACHED: Duration = Duration::from_secs(2);
/// Pauses between two questions for sessions: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// The exit code for an account that is not there (sysexits' EX_NOUSER).
const NO_USER: i32 = 67;

/// Why access could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The program cannot be run.
    #[error("the access program {program} cannot be run")]
    Start {
        /// The program.
        program: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// It did not end in time.
    #[error("the access program did not end '{verb}' for '{account}' within {seconds} s")]
    TimedOut {
        /// What it was to do.
        verb: &'static str,
        /// For whom.
        account: String,
        /// The limit.
        seconds: u64,
    },
    /// It failed.
    #[error("the access program failed to '{verb}' '{account}' ({status}): {said}")]
    Failed {
        /// What it was to do.
        verb: &'static str,
        /// For whom.
        account: String,
        /// How it ended.
        status: String,
        /// What it said on standard error, shortened.
        said: String,
    },
    /// It knows no such account.
    #[error("the access program knows no account '{account}': {said}")]
    NoAccount {
        /// The account.
        account: String,
        /// What it said on standard error, shortened.
        said: String,
    },
    /// Sessions did not end.
    #[error("{sessions} sessions of '{account}' have not ended within {seconds} s")]
    InUse {
        /// The account.
        account: String,
        /// How many were left.
        sessions: usize,
        /// The limit.
        seconds: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Deny,
    Allow,
    Kick,
    Sessions,
}

impl Verb {
    fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
            Self::Kick => "kick",
            Self::Sessions => "sessions",
        }
    }
}

impl AccessCommand {
    /// Refuses sign-in to everyone but us.
    pub(crate) async fn deny(&self, account: &str) -> Result<(), AccessError> {
        self.run(Verb::Deny, account).await.map(drop)
    }

    /// Lets the account's user sign in again.
    pub(crate) async fn allow(&self, account: &str) -> Result<(), AccessError> {
        self.run(Verb::Allow, account).await.map(drop)
    }

    /// After [`deny`](Self::deny): waits out caches of sign-ins, ends the sessions, and returns when none is left. Only a
    /// process that has ended does nothing more to a mailbox: what was sent to it before it was told to end, it still
    /// does.
    pub(crate) async fn drain(&self, account: &str) -> Result<(), AccessError> {
        tokio::time::sleep(CACHED).await;
        let waited = async {
            self.run(Verb::Kick, account).await?;
            let mut pause = PAUSES.0;
            loop {
                let left = self.sessions(account).await?;
                if left == 0 {
                    return Ok(());
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
                // A sign-in that was under way when access was denied may have come after the first time.
                self.run(Verb::Kick, account).await?;
            }
        };
        match tokio::time::timeout(self.drain_within, waited).await {
            Ok(done) => done,
            Err(_) => Err(AccessError::InUse {
                account: account.to_owned(),
                sessions: self.sessions(account).await.unwrap_or(1).max(1),
                seconds: self.drain_within.as_secs(),
            }),
        }
    }

    async fn sessions(&self, account: &str) -> Result<usize, AccessError> {
        let printed = self.run(Verb::Sessions, account).await?;
        Ok(printed.lines().filter(|line| !line.trim().is_empty()).count())
    }

    /// Runs the program; returns what it printed.
    async fn run(&self, verb: Verb, account: &str) -> Result<String, AccessError> {
        let (program, arguments) = self.program.split_first().map_or(("", &[][..]), |(p, a)| (p, a));
        let start = |source| AccessError::Start {
            program: program.to_owned(),
            source,
        };
        let mut child = Command::new(program)
            .args(arguments)
            .arg(verb.as_str())
            .arg(account)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LANG", "C")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own, so that what it has started ends with it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(start)?;
        let group = Group(child.id());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let work = async { tokio::join!(child.wait(), bounded(stdout), bounded(stderr)) };
        let (status, printed, said) =
            tokio::time::timeout(self.call_within, work)
                .await
                .map_err(|_| AccessError::TimedOut {
                    verb: verb.as_str(),
                    account: account.to_owned(),
                    seconds: self.call_within.as_secs(),
                })?;
        group.has_ended();
        let status = status.map_err(start)?;
        let said = for_the_log(&said);
        if status.success() {
            match verb {
                Verb::Deny | Verb::Allow | Verb::Kick => {
                    tracing::info!(verb = verb.as_str(), account, said, "access program")
                }
                Verb::Sessions => tracing::debug!(verb = verb.as_str(), account, printed, "access program"),
            }
            return Ok(printed);
        }
        tracing::warn!(verb = verb.as_str(), account, %status, said, "the access program failed");
        Err(if status.code() == Some(NO_USER) {
            AccessError::NoAccount {
                account: account.to_owned(),
                said,
            }
        } else {
            AccessError::Failed {
                verb: verb.as_str(),
                account: account.to_owned(),
                status: status.to_string(),
                said,
            }
        })
    }
}

/// The process group of a program; ended with all in it when the program is not waited for to its end.
struct Group(Option<u32>);

impl Group {
    fn has_ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let group = self
            .0
            .and_then(|id| i32::try_from(id).ok())
            .and_then(rustix::process::Pid::from_raw);
        if let Some(group) = group
            && let Err(error) = rustix::process::kill_process_group(group, rustix::process::Signal::KILL)
        {
            tracing::debug!(%error, "an access program has ended by itself");
        }
    }
}

/// What a program prints, its beginning kept; it is read to the end so that the program never waits for us.
async fn bounded(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut pipe) = pipe else {
        return String::new();
    };
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        let room = OUTPUT.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// One line, without control characters.
fn for_the_log(said: &str) -> String {
    let text: String = said
        .trim()
        .chars()
        .take(LOGGED)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.is_empty() {
        "it said nothing".to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests;

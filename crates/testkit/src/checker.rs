//! What is in a mail account, and what differs between two, said by a foreign program (`servers/imapcheck.py`, Python's
//! standard library), and mail accounts filled with odd things (`servers/imapfill.py`).

use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// How to get at a mail account on loopback.
#[derive(Clone)]
pub struct Account {
    port: u16,
    security: &'static str,
    authority: Option<PathBuf>,
    method: &'static str,
    user: String,
    authorize_as: Option<String>,
    secret: String,
}

impl Account {
    /// By `LOGIN`, without TLS. A master of Dovecot signs in as `user*master`.
    #[must_use]
    pub fn login(port: u16, user: &str, password: &str) -> Self {
        Self {
            port,
            security: "none",
            authority: None,
            method: "login",
            user: user.to_owned(),
            authorize_as: None,
            secret: password.to_owned(),
        }
    }

    /// By SASL PLAIN, for the mail of `whose`.
    #[must_use]
    pub fn plain(port: u16, whose: &str, user: &str, password: &str) -> Self {
        Self {
            method: "plain",
            authorize_as: Some(whose.to_owned()),
            ..Self::login(port, user, password)
        }
    }

    /// By OAUTHBEARER.
    #[must_use]
    pub fn bearer(port: u16, user: &str, token: &str) -> Self {
        Self {
            method: "oauthbearer",
            ..Self::login(port, user, token)
        }
    }

    /// By XOAUTH2.
    #[must_use]
    pub fn xoauth2(port: u16, user: &str, token: &str) -> Self {
        Self {
            method: "xoauth2",
            ..Self::login(port, user, token)
        }
    }

    /// With TLS from the start, trusting the authority in a PEM file.
    #[must_use]
    pub fn over_tls(mut self, authority: &Path) -> Self {
        self.security = "tls";
        self.authority = Some(authority.to_owned());
        self
    }

    /// With STARTTLS, trusting the authority in a PEM file.
    #[must_use]
    pub fn over_starttls(self, authority: &Path) -> Self {
        Self {
            security: "starttls",
            ..self.over_tls(authority)
        }
    }

    fn file(&self) -> tempfile::NamedTempFile {
        let described = json!({
            "port": self.port,
            "security": self.security,
            "authority": self.authority,
            "method": self.method,
            "user": self.user,
            "authorize_as": self.authorize_as,
            "secret": self.secret,
        });
        temporary(".json", &described.to_string())
    }
}

/// The kinds of differences.
const KINDS: [&str; 9] = [
    "lost",
    "duplicated",
    "altered",
    "foreign",
    "flags_wrong",
    "dates_wrong",
    "folders_wrong",
    "subscriptions_wrong",
    "special_use_wrong",
];

/// What differs between two accounts.
#[derive(Debug)]
pub struct Differences(Value);

impl Differences {
    /// The differences of a kind, each a JSON object with the folder's path; the kinds are `lost`, `duplicated`,
    /// `altered`, `foreign`, `flags_wrong`, `dates_wrong`, `folders_wrong`, `subscriptions_wrong`, `special_use_wrong`.
    ///
    /// # Panics
    /// When there is no such kind.
    #[must_use]
    pub fn of_kind(&self, kind: &str) -> &[Value] {
        self.0[kind].as_array().expect("this is a kind of difference")
    }

    /// Panics with the text of all differences unless there is none but of the given kinds.
    ///
    /// # Panics
    /// When there is one.
    pub fn only(&self, kinds: &[&str]) {
        let unexpected = KINDS
            .iter()
            .filter(|kind| !kinds.contains(kind))
            .any(|kind| !self.of_kind(kind).is_empty());
        assert!(!unexpected, "the accounts differ: {:#}", self.0);
    }

    /// Panics with the text of all differences unless there is none.
    ///
    /// # Panics
    /// When there is one.
    pub fn none(&self) {
        self.only(&[]);
    }
}

/// The lines of an account's dump as JSON objects: folders, each before its messages.
///
/// # Panics
/// When the account cannot be read.
#[must_use]
pub fn dump(account: &Account) -> Vec<Value> {
    let file = account.file();
    lines(&dumped(&file))
}

/// What differs between two accounts.
///
/// # Panics
/// When one cannot be read.
#[must_use]
pub fn compare(source: &Account, target: &Account) -> Differences {
    compare_lines(&dump(source), &dump(target), &[])
}

/// What differs between two dumps. `names` has the paths of source folders that are called otherwise at the target, and
/// the paths there.
///
/// # Panics
/// When a dump is none.
#[must_use]
pub fn compare_lines(source: &[Value], target: &[Value], names: &[(&[&str], &[&str])]) -> Differences {
    let [source, target] = [source, target].map(|lines| {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        temporary(".jsonl", &text)
    });
    let names = temporary(".json", &json!(names).to_string());
    let output = script("imapcheck.py")
        .arg("compare")
        .arg(source.path())
        .arg(target.path())
        .arg("--names")
        .arg(names.path())
        .output()
        .expect("python3 is installed");
    assert!(
        matches!(output.status.code(), Some(0 | 1)),
        "imapcheck.py: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Differences(serde_json::from_slice(&output.stdout).expect("the differences are JSON"))
}

/// Fills an account with odd and ordinary mail, folders, flags and dates, always the same for a seed, and returns the
/// lines about what the server refused. `is_tame` leaves out what Dovecot or Cyrus refuses or alters.
///
/// # Panics
/// When the account cannot be filled.
#[must_use]
pub fn fill(account: &Account, seed: u32, ordinary: u32, is_tame: bool) -> Vec<Value> {
    let file = account.file();
    let mut command = script("imapfill.py");
    command
        .arg(file.path())
        .args(["--seed", &seed.to_string(), "--messages", &ordinary.to_string()]);
    if is_tame {
        command.arg("--tame");
    }
    let mut lines = lines(&run(&mut command));
    let last = lines.pop().expect("a last line says how much was stored");
    assert!(last["stored"].as_u64() > Some(u64::from(ordinary)), "mail was stored");
    lines
}

fn dumped(account: &tempfile::NamedTempFile) -> Output {
    run(script("imapcheck.py").arg("dump").arg(account.path()))
}

fn run(command: &mut Command) -> Output {
    let output = command.output().expect("python3 is installed");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn script(name: &str) -> Command {
    let mut command = Command::new("python3");
    // No compiled copies beside the sources.
    command
        .arg("-B")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("servers").join(name))
        .stdin(Stdio::null());
    command
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect()
}

fn temporary(suffix: &str, text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new()
        .suffix(suffix)
        .tempfile()
        .expect("a file is made");
    file.write_all(text.as_bytes()).expect("it is written");
    file
}

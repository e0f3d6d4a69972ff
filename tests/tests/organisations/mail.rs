//! Mailboxes of the source, and the judge of what became of them. Both are Python programs that share no code with the engine.

use crate::deployment::{Deployment, project};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A mailbox with the account of what must be in it.
#[derive(Clone, Debug)]
pub struct Mailbox {
    /// Its name, alias and local part.
    pub name: String,
    manifest: PathBuf,
    journal: PathBuf,
}

fn tool(arguments: &[&str]) {
    let output = Command::new("python3")
        .arg(project().join("tests/tools/mailboxes.py"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("python3 is installed");
    assert!(
        output.status.success(),
        "mailboxes.py {arguments:?}:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Writes Maildirs below the deployment's platform, each with the account of what is in it.
pub fn write(deployment: &Deployment, names: &[&str], seed: u32) -> Vec<Mailbox> {
    let folder = deployment.path("manifests");
    std::fs::create_dir_all(&folder).expect("a folder is made");
    let (out, manifests, seed) = (
        deployment.path("").display().to_string(),
        folder.display().to_string(),
        seed.to_string(),
    );
    let mut arguments = vec!["write", "--out", &out, "--manifests", &manifests, "--seed", &seed];
    arguments.extend(names);
    tool(&arguments);
    names
        .iter()
        .map(|name| Mailbox {
            name: (*name).to_owned(),
            manifest: folder.join(format!("{name}.json")),
            journal: folder.join(format!("{name}.jsonl")),
        })
        .collect()
}

impl Mailbox {
    /// Messages arrive, flags change, one message goes, all behind the server's back as an IMAP server would do it.
    pub fn changes(&self, source: &Deployment, seed: u32) {
        let text = |path: &Path| path.display().to_string();
        tool(&[
            "change",
            &text(&self.manifest),
            &text(&self.journal),
            &text(&source.path("mail")),
            &seed.to_string(),
        ]);
    }

    /// One message of so many octets arrives.
    pub fn gets_large(&self, source: &Deployment, octets: usize) {
        let text = |path: &Path| path.display().to_string();
        tool(&[
            "large",
            &text(&self.manifest),
            &text(&self.journal),
            &text(&source.path("mail")),
            &octets.to_string(),
        ]);
    }

    /// So many messages arrive, and flags of so many change, in the Maildir where the mailbox is now.
    pub fn lives_on(&self, maildir: &Path, deliver: usize, flag: usize, seed: u32) {
        let text = |path: &Path| path.display().to_string();
        tool(&[
            "live",
            &text(&self.manifest),
            &text(&self.journal),
            &text(maildir),
            &seed.to_string(),
            "--deliver",
            &deliver.to_string(),
            "--flag",
            &flag.to_string(),
        ]);
    }

    /// A message comes by SMTP to `recipient`; it is sent again while the server says "later". `routed`: by the old address,
    /// after the cutover.
    pub fn gets_mail(&self, smtp_port: u16, recipient: &str, routed: bool) {
        let (manifest, journal) = (self.manifest.display().to_string(), self.journal.display().to_string());
        let server = format!("127.0.0.1:{smtp_port}");
        let mut arguments = vec!["send", &manifest, &journal, &server, recipient];
        if routed {
            arguments.push("--routed");
        }
        tool(&arguments);
    }

    /// Compares a Maildir with the account: octets, folders, flags, dates; nothing missing, nothing twice, nothing else.
    pub fn must_be(&self, maildir: &Path) -> Value {
        let mut command = Command::new("python3");
        command
            .arg(project().join("demo/check.py"))
            .arg(&self.manifest)
            .arg("--journal")
            .arg(&self.journal);
        let output = command
            .arg(format!("{}={}", self.name, maildir.display()))
            .output()
            .expect("python3 is installed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{} is not what it was:\n{text}{}",
            self.name,
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_str(&text).expect("the checker prints JSON")
    }
}

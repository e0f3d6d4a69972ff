//! `rehome receipt`: what anyone can do with a receipt, the published keys and nothing else.

use crate::{
    ask::credentials_text,
    failure::{Exit, Failure},
    output::Form,
    print,
    text::harmless,
};
use jiff::{SignedDuration, Timestamp};
use rehome_command::Credential;
use rehome_domain::id::CorrelationId;
use rehome_identity::receipt_keys::{SignedBy, TrustedKeys};
use rehome_mailbox::{
    Mailbox, MailboxError,
    imap::{ImapServer, Security, ServerSettings, SignIn},
    maildir::MaildirMailbox,
};
use rehome_migrate::receipt::{
    Comparison, Contents, Difference, Digest, SectionVerdict, SingleEntry, SingleFinder, SingleProof, SingleVerdict,
    StatementVerdict, VerifyError, compare, digest_of_message, is_single, verify, verify_single,
};
use rehome_remote::{
    client::{ConnectorSettings, Fetcher, HttpsConnector},
    tls,
};
use secrecy::ExposeSecret;
use serde_json::{Value as Json, json};
use std::{
    fs::File,
    io::{self, BufReader, Read, Seek},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Longest key document, octets.
const MAX_KEYS: u64 = 256 * 1024;
/// Longest proof of one message, octets.
const MAX_SINGLE: u64 = 64 * 1024 * 1024;

/// What can be done.
#[derive(clap::Subcommand)]
pub(crate) enum ReceiptTask {
    /// Checks a receipt, or the proof of a single message: every root is recomputed, every signature checked. With a mailbox,
    /// every item is looked for there.
    ///
    /// Exit codes: 0 it holds and every signature in it is by a trusted key; 3 it does not verify; 4 it is consistent, but
    /// not every signature was checked, for want of a trusted key; 5 it holds, and the mailbox lacks items or holds them
    /// changed.
    Verify(Verify),
    /// Prints the digest by which receipts know a message; how its lines end does not matter.
    Digest {
        /// The file with the message; - for standard input.
        file: String,
    },
}

/// `rehome receipt verify`.
#[derive(clap::Args)]
pub(crate) struct Verify {
    /// The file that Export-MigrationReceipt gave.
    file: PathBuf,
    /// Key document of an organisation whose statements are trusted: the file, or the https address at which it is published
    /// (SourceKeysAt and TargetKeysAt of the receipt; ask the organisation itself for it). May be repeated.
    #[arg(long, value_name = "FILE|URL")]
    keys: Vec<String>,
    /// Fingerprint of a key whose statements are trusted, as the organisation told it. May be repeated.
    #[arg(long, value_name = "KEY-ID")]
    fingerprint: Vec<String>,
    /// PEM file of a private authority that the certificates of those addresses and of the IMAP server come from.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Says whether this message is in it. - for standard input.
    #[arg(long, value_name = "FILE")]
    message: Option<String>,
    /// Compares with this Maildir, which is read as a mail server reads it: new files in it are given uids.
    #[arg(long, value_name = "FOLDER", conflicts_with = "imap")]
    maildir: Option<PathBuf>,
    /// Compares with the mailbox on this IMAP server (port 993 if not given).
    #[arg(long, value_name = "HOST[:PORT]", requires = "credentials_file")]
    imap: Option<String>,
    /// The mailbox's user and password: {"UserName", "Password"} as JSON, or two lines; - for standard input.
    #[arg(long, value_name = "FILE", requires = "imap")]
    credentials_file: Option<String>,
    /// The connection is turned to TLS by STARTTLS (port 143 if not given).
    #[arg(long, requires = "imap", conflicts_with = "plain")]
    starttls: bool,
    /// The connection is not protected; for this machine only.
    #[arg(long, requires = "imap")]
    plain: bool,
}

/// Does what is asked.
///
/// # Errors
/// With the exit code that says why.
pub(crate) async fn run(task: ReceiptTask, form: Form) -> Result<(), Failure> {
    match task {
        ReceiptTask::Digest { file } => {
            print::out(&format!("{}\n", digest(&file)?));
            Ok(())
        }
        ReceiptTask::Verify(task) => task.run(form).await,
    }
}

fn digest(name: &str) -> Result<Digest, Failure> {
    let failed = |error: io::Error| Failure::while_doing(name, &error);
    if name == "-" {
        return digest_of_message(&mut io::stdin().lock()).map_err(failed);
    }
    digest_of_message(&mut File::open(name).map_err(failed)?).map_err(failed)
}

fn refuted(error: &VerifyError) -> Failure {
    let exit = match error {
        VerifyError::Read(_) => Exit::Failed,
        VerifyError::File(_) | VerifyError::Statement { .. } | VerifyError::Section { .. } => Exit::Refuted,
    };
    Failure {
        exit,
        ..Failure::of(error)
    }
}

/// What was found, for people and for machines.
struct Findings {
    text: String,
    json: Json,
    is_signed: bool,
    holds: bool,
}

impl Verify {
    async fn run(self, form: Form) -> Result<(), Failure> {
        let trusted = self.trusted().await?;
        let wanted = self.message.as_deref().map(digest).transpose()?;
        let failed = |error: io::Error| Failure::while_doing(&self.file.display().to_string(), &error);
        let mut file = File::open(&self.file).map_err(failed)?;
        let mut beginning = Vec::new();
        Read::by_ref(&mut file)
            .take(2)
            .read_to_end(&mut beginning)
            .map_err(failed)?;
        file.rewind().map_err(failed)?;
        let findings = if is_single(&beginning) {
            if self.maildir.is_some() || self.imap.is_some() {
                return Err(Failure::usage(
                    "the proof of a single message is not compared with a mailbox; a whole receipt is",
                ));
            }
            let mut octets = Vec::new();
            file.take(MAX_SINGLE + 1).read_to_end(&mut octets).map_err(failed)?;
            let verdict = verify_single(&octets, &trusted).map_err(|error| refuted(&error))?;
            single(&verdict, wanted)
        } else {
            self.whole(file, &trusted, wanted).await?
        };
        if form == Form::Json {
            print::out(&format!("{:#}\n", findings.json));
        } else {
            print::out(&findings.text);
        }
        if !findings.holds {
            let text = "the receipt verifies, and what was looked for is not as it says";
            return Err(with(Exit::Differs, Failure::failed(text)));
        }
        if !findings.is_signed {
            let failure = Failure::failed("consistent, but not every signature was checked: nothing says yet that the organisations signed it")
                .advice("Give each organisation's key document with --keys, or a fingerprint that it told you with --fingerprint.");
            return Err(with(Exit::Unsigned, failure));
        }
        Ok(())
    }

    async fn trusted(&self) -> Result<TrustedKeys, Failure> {
        let mut trusted = TrustedKeys::default();
        for name in &self.keys {
            let text = if name.starts_with("https://") {
                let fetcher = Fetcher::new(HttpsConnector::new(self.connecting()?));
                let fetched = fetcher.signed_document(name, CorrelationId(uuid::Uuid::new_v4())).await;
                fetched.map_err(|error| Failure::of(&error))?
            } else {
                let mut text = String::new();
                let read = File::open(name).and_then(|file| file.take(MAX_KEYS).read_to_string(&mut text));
                read.map_err(|error| Failure::while_doing(name, &error))?;
                text
            };
            trusted
                .add_document(&text)
                .map_err(|error| Failure::while_doing(name, &error))?;
        }
        for fingerprint in &self.fingerprint {
            trusted
                .add_fingerprint(fingerprint)
                .map_err(|error| Failure::usage(format!("--fingerprint {fingerprint}: {error}")))?;
        }
        Ok(trusted)
    }

    fn connecting(&self) -> Result<ConnectorSettings, Failure> {
        let mut settings = ConnectorSettings::new(self.tls()?);
        // Whoever runs this names the address himself.
        settings.allow_private_addresses = true;
        Ok(settings)
    }

    fn tls(&self) -> Result<Arc<rustls::ClientConfig>, Failure> {
        let roots: Vec<PathBuf> = self.ca.iter().cloned().collect();
        tls::client_config(&roots).map_err(|error| Failure::of(&error))
    }

    async fn whole(&self, file: File, trusted: &TrustedKeys, wanted: Option<Digest>) -> Result<Findings, Failure> {
        let mut contents = (self.maildir.is_some() || self.imap.is_some()).then(Contents::default);
        let mut finder = wanted.map(SingleFinder::new);
        let verdict = verify(&mut BufReader::new(file), trusted, &mut |part| {
            if let Some(contents) = &mut contents {
                contents.part(part);
            }
            if let Some(finder) = &mut finder {
                finder.part(part.clone());
            }
        });
        let verdict = verdict.map_err(|error| refuted(&error))?;
        let mut findings = Findings {
            text: String::new(),
            json: json!({ "sections": verdict.sections.iter().map(section_json).collect::<Vec<_>>() }),
            is_signed: verdict.is_signed(),
            holds: true,
        };
        for section in &verdict.sections {
            write_section(section, &mut findings.text);
        }
        if let (Some(digest), Some(finder)) = (wanted, finder) {
            let mut shown = Vec::new();
            for proof in &finder.finish() {
                for entry in &proof.entries {
                    findings.entry(entry, proof, &mut shown);
                }
            }
            findings.message(digest, !shown.is_empty(), "in this receipt");
            findings.json["messages"] = shown.into();
        }
        if let (Some(mailbox), Some(contents)) = (self.mailbox().await?, contents) {
            let compared = compare(&*mailbox, &contents.items).await;
            let compared = compared.map_err(|error| Failure::while_doing("the mailbox", &error))?;
            findings.compared(&compared);
        }
        Ok(findings)
    }

    async fn mailbox(&self) -> Result<Option<Box<dyn Mailbox>>, Failure> {
        let failed = |error: MailboxError| Failure::of(&error);
        if let Some(path) = &self.maildir {
            return Ok(Some(Box::new(
                MaildirMailbox::open(Path::new(path)).await.map_err(failed)?,
            )));
        }
        let (Some(server), Some(file)) = (&self.imap, &self.credentials_file) else {
            return Ok(None);
        };
        let text = credentials_text(file).map_err(Failure::usage)?;
        let credential = Credential::from_text(text.expose_secret()).map_err(Failure::usage)?;
        let (security, usual) = match (self.starttls, self.plain) {
            (true, _) => (Security::StartTls, 143),
            (false, true) => (Security::Plain, 143),
            (false, false) => (Security::Tls, 993),
        };
        let (host, port) = host_and_port(server, usual)?;
        let mut tls = self.tls()?.as_ref().clone();
        // The protocols offered there are HTTP's.
        tls.alpn_protocols.clear();
        let settings = ServerSettings::new(&host, port, security, Arc::new(tls), SignIn::Password);
        let mailbox = ImapServer::new(settings).mailbox(&credential.user_name, Some(credential.password));
        Ok(Some(Box::new(mailbox)))
    }
}

fn with(exit: Exit, failure: Failure) -> Failure {
    Failure { exit, ..failure }
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`.
fn host_and_port(text: &str, usual: u16) -> Result<(String, u16), Failure> {
    let bad = || Failure::usage(format!("'{text}' is not HOST or HOST:PORT"));
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().map_err(|_| bad())?),
        Some(_) | None => (text, usual),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        Err(bad())
    } else {
        Ok((host.to_owned(), port))
    }
}

fn time(milliseconds: i64) -> String {
    Timestamp::from_millisecond(milliseconds).map_or_else(|_| milliseconds.to_string(), |at| at.to_string())
}

fn seconds(at: i64) -> String {
    Timestamp::from_second(at).map_or_else(|_| at.to_string(), |at| at.to_string())
}

fn signature_text(statement: &StatementVerdict) -> String {
    match statement.signature {
        SignedBy::Trusted => format!("signature good, key {}", statement.kid),
        SignedBy::NotTrusted | SignedBy::Forged => format!(
            "signature NOT CHECKED: key {} is not among the trusted ones{}",
            statement.kid,
            statement.keys_at.as_ref().map_or_else(String::new, |at| format!(
                "; it says that its keys are published at {}",
                harmless(at)
            ))
        ),
    }
}

/// What a section shows, for people.
fn write_section(section: &SectionVerdict, out: &mut String) {
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    let statement = &section.statements[0];
    if section.number == 0 {
        let about = &statement.statement;
        line(format!("Receipt of the mailbox {}", about.exchange_guid));
        line(format!(
            "  moved from tenant {} to tenant {}",
            about.source_tenant, about.target_tenant
        ));
        line(format!("  move {}, attempt {}", about.move_id, about.attempt));
    } else {
        line(format!("Addition {}: what a later sweep brought", section.number));
    }
    let totals = &section.totals;
    line(format!(
        "  {} items in {} folders, {} octets; every folder's root recomputed, mailbox root {}",
        totals.items, totals.folders, totals.octets, totals.root
    ));
    let counts = statement.body.exceptions;
    line(format!(
        "  {} exceptions: {} left behind, {} with other octets, {} with other flags, {} with another received time",
        totals.exceptions, counts.skipped, counts.altered, counts.flags, counts.date
    ));
    for side in ["source", "target"] {
        let found = section.statements.iter().find(|statement| statement.body.side == side);
        match found {
            Some(statement) => {
                let body = &statement.body;
                line(format!(
                    "  {side}: {} as {}, platform {}, made {} by {}",
                    harmless(&body.organisation),
                    harmless(&body.address),
                    harmless(&body.platform),
                    time(body.made),
                    harmless(&body.tool)
                ));
                if let Some(milliseconds) = body.times.lock_milliseconds {
                    let locked = body
                        .times
                        .locked
                        .map_or_else(String::new, |at| format!(", from {}", time(at)));
                    let length = SignedDuration::from_millis(i64::try_from(milliseconds).unwrap_or(i64::MAX));
                    line(format!("    locked for {length:#}{locked}"));
                }
                line(format!("    {}", signature_text(statement)));
            }
            None if section.number == 0 => line(format!("  {side}: NO STATEMENT; the other side alone has signed")),
            None => {}
        }
    }
}

fn section_json(section: &SectionVerdict) -> Json {
    let statements: Vec<Json> = section
        .statements
        .iter()
        .map(|statement| {
            json!({
                "issuer": statement.issuer, "key_id": statement.kid, "keys_at": statement.keys_at,
                "signature": match statement.signature {
                    SignedBy::Trusted => "good",
                    SignedBy::NotTrusted | SignedBy::Forged => "not checked",
                },
                "says": statement.body,
            })
        })
        .collect();
    let about = section.statements.first().map(|statement| &statement.statement);
    let totals = &section.totals;
    json!({
        "number": section.number, "root": totals.root.to_string(), "exceptions_root": totals.exceptions_root.to_string(),
        "folders": totals.folders, "items": totals.items, "octets": totals.octets, "exceptions": totals.exceptions,
        "move": about.map(|about| about.move_id.to_string()), "attempt": about.map(|about| about.attempt.to_string()),
        "mailbox": about.map(|about| about.exchange_guid.to_string()),
        "source_tenant": about.map(|about| about.source_tenant.to_string()),
        "target_tenant": about.map(|about| about.target_tenant.to_string()),
        "statements": statements,
    })
}

/// What the proof of one message shows.
fn single(verdict: &SingleVerdict, wanted: Option<Digest>) -> Findings {
    let mut findings = Findings {
        text: String::new(),
        json: json!({ "sections": [section_json(&verdict.section)] }),
        is_signed: verdict
            .section
            .statements
            .iter()
            .all(|s| s.signature == SignedBy::Trusted),
        holds: true,
    };
    write_section(&verdict.section, &mut findings.text);
    let mut shown = Vec::new();
    for entry in &verdict.proof.entries {
        findings.entry(entry, &verdict.proof, &mut shown);
    }
    findings.json["messages"] = shown.into();
    if let Some(digest) = wanted {
        let found = verdict.proof.entries.iter().any(|entry| entry.leaf.digest == digest);
        findings.message(digest, found, "what this proves");
    }
    findings
}

impl Findings {
    fn entry(&mut self, entry: &SingleEntry, proof: &SingleProof, shown: &mut Vec<Json>) {
        let leaf = &entry.leaf;
        let exceptions = proof.exceptions.iter();
        let exceptions: Vec<String> = exceptions
            .filter(|exception| exception.path == entry.path && exception.uid == leaf.uid)
            .map(|exception| {
                format!(
                    "{}: {}",
                    exception.kind,
                    exception.reason.as_deref().unwrap_or_default()
                )
            })
            .collect();
        let flags = leaf.flags.canonical_names();
        self.text.push_str(&format!(
            "Message {}\n  in folder {}, uid {}, {} octets, received {}, flags ({})\n",
            leaf.digest,
            harmless(&entry.path.join("/")),
            leaf.uid,
            leaf.length,
            seconds(leaf.received),
            harmless(&flags.join(" "))
        ));
        for exception in &exceptions {
            self.text.push_str(&format!("  exception: {}\n", harmless(exception)));
        }
        shown.push(json!({
            "digest": leaf.digest.to_string(), "folder": entry.path, "uid": leaf.uid, "length": leaf.length,
            "received": seconds(leaf.received), "flags": flags, "exceptions": exceptions,
        }));
    }

    fn message(&mut self, digest: Digest, found: bool, place: &str) {
        self.holds &= found;
        let is = if found { "is" } else { "is NOT" };
        self.text.push_str(&format!("The message {digest} {is} {place}\n"));
        self.json["message"] = json!({ "digest": digest.to_string(), "found": found });
    }

    fn compared(&mut self, compared: &Comparison) {
        self.holds &= compared.holds_everything();
        self.text.push_str(&format!(
            "The mailbox now: {} items as they were moved, {} changed since, {} missing, {} added since, {} that cannot be compared\n",
            compared.equal, compared.changed, compared.missing, compared.added, compared.not_comparable
        ));
        let mut named = Vec::new();
        for difference in &compared.named {
            let (word, path, uid, how) = match difference {
                Difference::Missing { path, uid } => ("missing", path, uid, ""),
                Difference::Changed { path, uid, how } => ("changed", path, uid, how.as_str()),
                Difference::Added { path, uid } => ("added", path, uid, ""),
            };
            let folder = harmless(&path.join("/"));
            self.text
                .push_str(format!("  {word:<8} {folder} {uid} {}", harmless(how)).trim_end());
            self.text.push('\n');
            named.push(json!({ "difference": word, "folder": path, "uid": uid, "how": how }));
        }
        let all = compared.changed + compared.missing + compared.added;
        if all > compared.named.len() as u64 {
            self.text
                .push_str(&format!("  and {} more\n", all - compared.named.len() as u64));
        }
        self.json["mailbox"] = json!({
            "equal": compared.equal, "changed": compared.changed, "missing": compared.missing, "added": compared.added,
            "not_comparable": compared.not_comparable, "differences": named,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        let table = [
            ("mail.contoso.example", ("mail.contoso.example", 993)),
            ("127.0.0.1:1143", ("127.0.0.1", 1143)),
            ("[::1]:1143", ("::1", 1143)),
            ("[::1]", ("::1", 993)),
        ];
        for (text, (host, port)) in table {
            assert_eq!(host_and_port(text, 993).unwrap(), (host.to_owned(), port), "{text}");
        }
        for bad in ["", ":1", "host:x"] {
            assert!(host_and_port(bad, 993).is_err(), "{bad}");
        }
    }
}

//! What a Dovecot of a test can and may.

use super::{Dovecot, MAIL_USER, PASSWORD, Ports, User, passwd_file, program};
use crate::certificate::Certificate;
use crate::fill;
use crate::own::{self, identity, is_root};
use crate::process::free_port;
use crate::token::Signer;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

/// What Dovecot 2.3 claims after sign-in by itself. Options add to it.
const CAPABILITIES: &str = "IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE SORT SORT=DISPLAY THREAD=REFERENCES \
     THREAD=REFS THREAD=ORDEREDSUBJECT MULTIAPPEND URL-PARTIAL CATENATE UNSELECT CHILDREN NAMESPACE UIDPLUS \
     LIST-EXTENDED I18NLEVEL=1 CONDSTORE QRESYNC ESEARCH ESORT SEARCHRES WITHIN CONTEXT=SEARCH LIST-STATUS BINARY MOVE \
     SNIPPET=FUZZY PREVIEW=FUZZY PREVIEW STATUS=SIZE SAVEDATE LITERAL+ NOTIFY";
/// Who signs tokens.
const ISSUER: &str = "https://login.example/";

/// How mail lies on the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Maildir++: `mail_root/USER`.
    Maildir,
    /// Dovecot's own, many messages in a file: `mail_root/USER`.
    Mdbox,
}

/// When Dovecot waits for the disk (`mail_fsync`).
#[derive(Clone, Copy)]
pub enum Fsync {
    /// Where it would lose mail otherwise: what Dovecot does by itself.
    Optimized,
    /// After everything.
    Always,
    /// Never.
    Never,
}

/// Whom tokens are about.
#[derive(Clone)]
pub enum Subject {
    /// The user whose mail is asked for.
    User,
    /// An application of this name, which may ask for the mail of any user, as with client credentials.
    Application(String),
}

/// See [`Dovecot::builder`].
#[must_use]
pub struct Builder {
    mail_root: PathBuf,
    users: BTreeMap<String, User>,
    masters: Vec<(String, String)>,
    anybody: bool,
    tls: bool,
    compress: bool,
    acl: bool,
    lmtp: bool,
    special_use: bool,
    quota: Option<u64>,
    subject: Option<Subject>,
    format: Format,
    fsync: Fsync,
    prefix: String,
    separator: char,
    disabled: Vec<String>,
    more: String,
}

impl Builder {
    pub(super) fn new(mail_root: &Path) -> Self {
        Self {
            mail_root: mail_root.to_owned(),
            users: BTreeMap::new(),
            masters: Vec::new(),
            anybody: false,
            tls: false,
            compress: false,
            acl: false,
            lmtp: false,
            special_use: false,
            quota: None,
            subject: None,
            format: Format::Maildir,
            fsync: Fsync::Optimized,
            prefix: String::new(),
            separator: '/',
            disabled: Vec::new(),
            more: String::new(),
        }
    }

    /// Users with their passwords, in a passwd-file that can be changed later.
    pub fn users<'a>(mut self, users: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        for (name, password) in users {
            let user = User {
                password: password.to_owned(),
                is_denied: false,
            };
            self.users.insert(name.to_owned(), user);
        }
        self
    }

    /// Lets any name in with [`PASSWORD`], besides the [`users`](Self::users). A denied user gets in by that one too.
    pub fn anybody(mut self) -> Self {
        self.anybody = true;
        self
    }

    /// One who may sign in for any user: `user*name`, or PLAIN with an authorization identity.
    pub fn master(mut self, name: &str, password: &str) -> Self {
        self.masters.push((name.to_owned(), password.to_owned()));
        self
    }

    /// STARTTLS and a port with TLS, by a certificate for loopback ([`Dovecot::authority`]).
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// OAUTHBEARER and XOAUTH2, with tokens by [`Dovecot::token`].
    pub fn bearer_tokens(mut self, subject: Subject) -> Self {
        self.subject = Some(subject);
        self
    }

    /// COMPRESS=DEFLATE.
    pub fn compress(mut self) -> Self {
        self.compress = true;
        self
    }

    /// Access lists (RFC 4314). Masters keep the rights of the user whose mail it is.
    pub fn acl(mut self) -> Self {
        self.acl = true;
        self
    }

    /// A port for LMTP.
    pub fn lmtp(mut self) -> Self {
        self.lmtp = true;
        self
    }

    /// Special use for Drafts, Sent, Junk, Trash and Archive, once somebody creates these folders.
    pub fn special_use(mut self) -> Self {
        self.special_use = true;
        self
    }

    /// At most this many KiB for each user.
    pub fn quota_kib(mut self, limit: u64) -> Self {
        self.quota = Some(limit);
        self
    }

    /// How mail lies on the disk.
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// When it waits for the disk.
    pub fn fsync(mut self, fsync: Fsync) -> Self {
        self.fsync = fsync;
        self
    }

    /// Prefix and separator of the users' namespace, such as `INBOX.` and `.`; otherwise none and `/`.
    pub fn namespace(mut self, prefix: &str, separator: char) -> Self {
        prefix.clone_into(&mut self.prefix);
        self.separator = separator;
        self
    }

    /// Claims capabilities no more, such as `QRESYNC` or `LITERAL+`. They would still work: this is for programs that use
    /// only what is claimed.
    pub fn disabled_capabilities(mut self, names: &[&str]) -> Self {
        self.disabled.extend(names.iter().map(|name| (*name).to_owned()));
        self
    }

    /// More lines of configuration.
    pub fn more(mut self, lines: &str) -> Self {
        self.more.push_str(lines);
        self.more.push('\n');
        self
    }

    /// Starts it and waits until it greets.
    ///
    /// # Panics
    /// When it is not installed, or does not come up.
    #[must_use]
    pub fn start(self) -> Dovecot {
        let folder = own::shared_folder("dovecot");
        let ports = Ports {
            imap: free_port(),
            imaps: if self.tls { free_port() } else { 0 },
            lmtp: if self.lmtp { free_port() } else { 0 },
        };
        for name in ["run", "state", "home"] {
            std::fs::create_dir(folder.path().join(name)).expect("a folder is made");
        }
        let signer = self
            .subject
            .clone()
            .map(|subject| (Arc::new(Signer::new(ISSUER)), subject));
        self.write_files(folder.path(), signer.as_ref().map(|(signer, _)| signer.as_ref()));
        let configuration = folder.path().join("dovecot.conf");
        std::fs::write(&configuration, self.configuration(folder.path(), ports)).expect("the configuration is written");
        let owner = format!("{MAIL_USER}:{MAIL_USER}");
        own::give(&folder.path().join("home"), &owner);
        own::give(&self.mail_root, &owner);
        let process = Command::new(program())
            .arg("-F")
            .arg("-c")
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("dovecot is installed (or named in REHOME_WITHOUT)");
        let mut dovecot = Dovecot {
            process,
            ports,
            folder,
            mail_root: self.mail_root,
            users: Mutex::new(self.users),
            signer,
        };
        dovecot.wait_until_ready();
        dovecot
    }

    fn write_files(&self, folder: &Path, signer: Option<&Signer>) {
        own::write_whole(&folder.join("users"), &passwd_file(&self.users));
        let masters: String = self
            .masters
            .iter()
            .map(|(name, password)| format!("{name}:{{PLAIN}}{password}\n"))
            .collect();
        own::write_whole(&folder.join("masters"), &masters);
        if self.tls {
            let made = Certificate::for_loopback();
            own::write_whole(&folder.join("authority.pem"), &made.authority);
            own::write_whole(&folder.join("certificate.pem"), &made.certificate);
            own::write_whole(&folder.join("key.pem"), &made.key);
        }
        if let (Some(signer), Some(subject)) = (signer, &self.subject) {
            // Dovecot takes both folders for the claims azp and kid, which our tokens have not.
            let keys = folder.join("keys/default/ES256");
            std::fs::create_dir_all(&keys).expect("folders are made");
            own::write_whole(&keys.join("default"), &signer.public_key());
            // The same format is applied to the user's name and to the claim: a constant makes any two equal.
            let validated = match subject {
                Subject::User => "username_format = %u".to_owned(),
                Subject::Application(name) => {
                    format!("username_format = anyone\nactive_attribute = sub\nactive_value = {name}")
                }
            };
            own::write_whole(
                &folder.join("oauth2.conf"),
                &format!(
                    "introspection_mode = local\nlocal_validation_key_dict = fs:posix:prefix={}/keys/\n\
                     username_attribute = sub\n{validated}\nissuers = {}\n",
                    folder.display(),
                    signer.issuer()
                ),
            );
        }
    }

    fn configuration(&self, folder: &Path, ports: Ports) -> String {
        // Dovecot refuses to do anything for a user as root; the packages have made other users.
        let [login, internal, group, uid, gid] = if is_root() {
            ["dovenull", "dovecot", "dovecot", MAIL_USER, MAIL_USER].map(str::to_owned)
        } else {
            ["-un", "-un", "-gn", "-u", "-g"].map(identity)
        };
        let format = match self.format {
            Format::Maildir => "maildir",
            Format::Mdbox => "mdbox",
        };
        let fsync = match self.fsync {
            Fsync::Optimized => "optimized",
            Fsync::Always => "always",
            Fsync::Never => "never",
        };
        let (plugins, imap_plugins) = self.plugins();
        let mut mechanisms = "plain login scram-sha-1 scram-sha-256".to_owned();
        if self.subject.is_some() {
            mechanisms.push_str(" oauthbearer xoauth2");
        }
        fill::fill(
            fill::DOVECOT,
            &[
                ("FOLDER", &folder.display().to_string()),
                ("LOGIN_USER", &login),
                ("INTERNAL_USER", &internal),
                ("INTERNAL_GROUP", &group),
                ("MAIL_UID", &uid),
                ("MAIL_GID", &gid),
                ("PROTOCOLS", if self.lmtp { "imap lmtp" } else { "imap" }),
                ("IMAP_PORT", &ports.imap.to_string()),
                ("IMAPS_PORT", &ports.imaps.to_string()),
                ("SSL", if self.tls { "yes" } else { "no" }),
                ("MECHANISMS", &mechanisms),
                ("MAIL_LOCATION", &format!("{format}:{}/%u", self.mail_root.display())),
                ("MAIL_FSYNC", fsync),
                ("PREFIX", &self.prefix),
                ("SEPARATOR", &self.separator.to_string()),
                ("MAILBOXES", if self.special_use { SPECIAL_USE } else { "" }),
                ("MAIL_PLUGINS", &plugins.join(" ")),
                ("IMAP_PLUGINS", &imap_plugins.join(" ")),
                ("MORE", &self.more_lines(folder, ports, [&uid, &gid])),
            ],
        )
    }

    /// Plugins of all programs, and of IMAP alone.
    fn plugins(&self) -> (Vec<&'static str>, Vec<&'static str>) {
        let choices = [
            (self.compress, "zlib", "imap_zlib"),
            (self.acl, "acl", "imap_acl"),
            (self.quota.is_some(), "quota", "imap_quota"),
        ];
        let chosen = choices.iter().filter(|(is_chosen, _, _)| *is_chosen);
        chosen.map(|(_, plugin, imap_plugin)| (*plugin, *imap_plugin)).unzip()
    }

    fn more_lines(&self, folder: &Path, ports: Ports, [uid, gid]: [&str; 2]) -> String {
        let folder = folder.display();
        let mut more = String::new();
        let mut add = |lines: std::fmt::Arguments<'_>| writeln!(more, "{lines}").expect("text grows");
        if self.anybody {
            add(format_args!(
                "passdb {{\n  driver = static\n  args = password={PASSWORD}\n}}\n\
                 userdb {{\n  driver = static\n  args = uid={uid} gid={gid} home={folder}/home/%u allow_all_users=yes\n}}"
            ));
        }
        if self.tls {
            add(format_args!(
                "ssl_cert = <{folder}/certificate.pem\nssl_key = <{folder}/key.pem"
            ));
        }
        if self.subject.is_some() {
            add(format_args!(
                "passdb {{\n  driver = oauth2\n  mechanisms = oauthbearer xoauth2\n  args = {folder}/oauth2.conf\n}}"
            ));
        }
        if self.acl {
            add(format_args!("plugin {{\n  acl = vfile\n  acl_user = %u\n}}"));
        }
        if let Some(limit) = self.quota {
            let kind = match self.format {
                Format::Maildir => "maildir",
                Format::Mdbox => "count",
            };
            add(format_args!(
                "plugin {{\n  quota = {kind}:Quota of the user\n  quota_rule = *:storage={limit}K\n  quota_vsizes = yes\n}}"
            ));
        }
        if self.lmtp {
            let name = if self.users.keys().any(|name| name.contains('@')) {
                "%u"
            } else {
                "%n"
            };
            add(format_args!(
                "service lmtp {{\n  inet_listener lmtp {{\n    address = 127.0.0.1\n    port = {}\n  }}\n}}\n\
                 protocol lmtp {{\n  auth_username_format = {name}\n  postmaster_address = postmaster@localhost\n}}",
                ports.lmtp
            ));
        }
        if !self.disabled.is_empty() {
            add(format_args!(
                "protocol imap {{\n  imap_capability = {}\n}}",
                self.capabilities().join(" ")
            ));
        }
        more.push_str(&self.more);
        more
    }

    /// What it claims when it must not claim everything: Dovecot then adds nothing by itself.
    fn capabilities(&self) -> Vec<&str> {
        let choices = [
            (self.special_use, "SPECIAL-USE"),
            (self.compress, "COMPRESS=DEFLATE"),
            (self.quota.is_some(), "QUOTA"),
            (self.acl, "ACL"),
            (self.acl, "RIGHTS=texk"),
        ];
        CAPABILITIES
            .split(' ')
            .chain(
                choices
                    .iter()
                    .filter(|(is_chosen, _)| *is_chosen)
                    .map(|(_, name)| *name),
            )
            .filter(|name| !self.disabled.iter().any(|disabled| disabled.eq_ignore_ascii_case(name)))
            .collect()
    }
}

/// Lines of the namespace.
const SPECIAL_USE: &str = "mailbox Drafts {
    special_use = \\Drafts
  }
  mailbox Sent {
    special_use = \\Sent
  }
  mailbox Junk {
    special_use = \\Junk
  }
  mailbox Trash {
    special_use = \\Trash
  }
  mailbox Archive {
    special_use = \\Archive
  }";

//! A Dovecot of our own: private configuration, folders and port, running as whoever runs the test.

mod builder;

pub use builder::{Builder, Format, Fsync, Subject};

use crate::own;
use crate::process::PATIENCE;
use crate::token::Signer;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The password of every user of a Dovecot that has any ([`Builder::anybody`]).
pub const PASSWORD: &str = "correct-horse";
/// Who owns mail when the test runs as root, whom Dovecot would not let read any.
const MAIL_USER: &str = "mail";
/// A password that no one has.
const LOCKED: &str = "{CRYPT}!";

/// A running Dovecot. Stopped on drop; its log is printed if the test is failing then.
///
/// Sign-ins that fail are answered at once, and never delay later ones (its penalty is off). No `libeatmydata`: what it
/// says is on the disk is there, unless [`Fsync::Never`] was asked for.
pub struct Dovecot {
    process: Child,
    ports: Ports,
    folder: tempfile::TempDir,
    mail_root: PathBuf,
    users: Mutex<BTreeMap<String, User>>,
    signer: Option<(Arc<Signer>, Subject)>,
}

/// Where it listens on 127.0.0.1.
#[derive(Clone, Copy)]
struct Ports {
    imap: u16,
    /// 0 without TLS.
    imaps: u16,
    /// 0 without LMTP.
    lmtp: u16,
}

/// One of the users that have passwords of their own.
struct User {
    password: String,
    is_denied: bool,
}

impl Dovecot {
    /// Starts a Dovecot that serves the Maildir `mail_root/USER` to any USER with [`PASSWORD`], IMAP without TLS on
    /// loopback, hierarchy separator `/`. Panics if it is not installed or does not come up.
    #[must_use]
    pub fn start(mail_root: &Path) -> Self {
        Self::start_with(mail_root, "")
    }

    /// As [`start`](Self::start), with more lines of configuration.
    #[must_use]
    pub fn start_with(mail_root: &Path, more: &str) -> Self {
        Self::builder(mail_root).anybody().more(more).start()
    }

    /// A Dovecot that nobody may sign in to yet, with mail below `mail_root`.
    pub fn builder(mail_root: &Path) -> Builder {
        Builder::new(mail_root)
    }

    /// Its IMAP port on 127.0.0.1; STARTTLS is offered there if it has TLS.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.ports.imap
    }

    /// Its port of IMAP with TLS from the start.
    ///
    /// # Panics
    /// When it was started without [`Builder::tls`].
    #[must_use]
    pub fn tls_port(&self) -> u16 {
        assert!(self.ports.imaps != 0, "this Dovecot has no TLS");
        self.ports.imaps
    }

    /// Its LMTP port. Mail for `NAME@any.example` goes to user NAME, unless users are named by whole addresses.
    ///
    /// # Panics
    /// When it was started without [`Builder::lmtp`].
    #[must_use]
    pub fn lmtp_port(&self) -> u16 {
        assert!(self.ports.lmtp != 0, "this Dovecot has no LMTP");
        self.ports.lmtp
    }

    /// The file with the authority that signed its certificate, PEM; there if it has TLS.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// Its configuration file, for `doveadm -c`.
    #[must_use]
    pub fn configuration(&self) -> PathBuf {
        self.folder.path().join("dovecot.conf")
    }

    /// Its passwd-file of users: lines `NAME:{PLAIN}PASSWORD::::::`. Dovecot looks at it once a second at most. Where a
    /// program of the test changes it (by rename), nothing here that changes users may be called.
    #[must_use]
    pub fn users_file(&self) -> PathBuf {
        self.folder.path().join("users")
    }

    /// What it logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Lets Dovecot read and change what was written below the mail root since the start. Needed only when the test
    /// runs as root: then mail is given to another user, as which Dovecot serves it.
    pub fn share_mail(&self) {
        own::give(&self.mail_root, &format!("{MAIL_USER}:{MAIL_USER}"));
    }

    /// Adds a user, or gives one another password. Up to a second may pass before Dovecot sees it.
    ///
    /// # Panics
    /// When the name or the password has a colon or a line end.
    pub fn set_user(&self, name: &str, password: &str) {
        assert!(
            !format!("{name}{password}").contains([':', '\n']),
            "a passwd-file can hold this"
        );
        self.change_users(|users| {
            let user = User {
                password: password.to_owned(),
                is_denied: false,
            };
            users.insert(name.to_owned(), user);
        });
    }

    /// Removes a user, for whom then no master can sign in either. Up to a second may pass before Dovecot sees it.
    pub fn remove_user(&self, name: &str) {
        self.change_users(|users| {
            users.remove(name);
        });
    }

    /// Locks a user's password: no sign-in by it any more, while masters still sign in for him. Sessions go on until
    /// [`kick`](Self::kick). Up to a second may pass before Dovecot sees it.
    ///
    /// # Panics
    /// When there is no such user.
    pub fn deny(&self, name: &str) {
        self.change_users(|users| users.get_mut(name).expect("the user is there").is_denied = true);
    }

    /// The opposite of [`deny`](Self::deny).
    ///
    /// # Panics
    /// When there is no such user.
    pub fn permit(&self, name: &str) {
        self.change_users(|users| users.get_mut(name).expect("the user is there").is_denied = false);
    }

    /// Asks a user's sessions to end. That is no barrier: one may still carry out what was sent before; it has ended
    /// when [`sessions`](Self::sessions) does not name it any more.
    pub fn kick(&self, user: &str) {
        // It fails where no one is signed in.
        let _ = self.try_doveadm(&["kick", user]);
    }

    /// Process ids of a user's sessions, one each.
    #[must_use]
    pub fn sessions(&self, user: &str) -> Vec<u32> {
        let listed = self.doveadm(&["-f", "tab", "who", "-1", user]);
        let mut lines = listed.lines().map(|line| line.split('\t'));
        let place = lines
            .next()
            .and_then(|mut head| head.position(|name| name == "pid"))
            .expect("doveadm names what it lists");
        lines
            .map(|mut line| line.nth(place).and_then(|pid| pid.parse().ok()).expect("a process id"))
            .collect()
    }

    /// Runs `doveadm` on this Dovecot and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn doveadm(&self, arguments: &[&str]) -> String {
        let output = self.try_doveadm(arguments);
        assert!(
            output.status.success(),
            "doveadm {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs `doveadm` on this Dovecot.
    ///
    /// # Panics
    /// When it is not installed.
    #[must_use]
    pub fn try_doveadm(&self, arguments: &[&str]) -> Output {
        Command::new("doveadm")
            .arg("-c")
            .arg(self.configuration())
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("doveadm is installed")
    }

    /// A token with which this Dovecot lets `user` in by OAUTHBEARER and XOAUTH2 for an hour.
    ///
    /// # Panics
    /// When it was started without [`Builder::bearer_tokens`].
    #[must_use]
    pub fn token(&self, user: &str) -> String {
        let (signer, subject) = self.signer.as_ref().expect("this Dovecot takes tokens");
        let subject = match subject {
            Subject::User => user,
            Subject::Application(name) => name,
        };
        signer.token(subject, Duration::from_secs(3600))
    }

    /// Who signs the tokens that it takes.
    ///
    /// # Panics
    /// When it was started without [`Builder::bearer_tokens`].
    #[must_use]
    pub fn signer(&self) -> Arc<Signer> {
        Arc::clone(&self.signer.as_ref().expect("this Dovecot takes tokens").0)
    }

    fn change_users(&self, change: impl FnOnce(&mut BTreeMap<String, User>)) {
        let mut users = self.users.lock().expect("no test failed while it changed users");
        change(&mut users);
        own::write_whole(&self.users_file(), &passwd_file(&users));
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("dovecot.log")
    }

    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !greets(self.ports.imap) {
            let ended = self.process.try_wait().expect("the process can be asked");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "dovecot does not come up:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        // SIGTERM, so that its own processes end too.
        let asked = Command::new("kill").arg(self.process.id().to_string()).status();
        let deadline = Instant::now() + PATIENCE;
        while asked.as_ref().is_ok_and(std::process::ExitStatus::success)
            && Instant::now() < deadline
            && matches!(self.process.try_wait(), Ok(None))
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        // Both fail harmlessly when it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("log of dovecot:\n{}", self.log());
        }
    }
}

fn program() -> &'static str {
    // Debian puts it where an ordinary user's PATH does not look.
    if Path::new("/usr/sbin/dovecot").exists() {
        "/usr/sbin/dovecot"
    } else {
        "dovecot"
    }
}

fn passwd_file(users: &BTreeMap<String, User>) -> String {
    users
        .iter()
        .map(|(name, user)| {
            let password = if user.is_denied {
                LOCKED.to_owned()
            } else {
                format!("{{PLAIN}}{}", user.password)
            };
            format!("{name}:{password}::::::\n")
        })
        .collect()
}

pub(crate) fn greets(port: u16) -> bool {
    let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return false;
    };
    let mut greeting = String::new();
    let read = stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| BufReader::new(stream).read_line(&mut greeting));
    read.is_ok() && greeting.starts_with("* OK")
}

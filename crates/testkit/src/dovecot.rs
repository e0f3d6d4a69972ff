//! A Dovecot of our own: private configuration, folders and port, running as whoever runs the test.

use std::fs::Permissions;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The password of every user.
pub const PASSWORD: &str = "correct-horse";
/// Who owns mail when the test runs as root, whom Dovecot would not let read any.
const MAIL_USER: &str = "mail";
/// How long a start or a stop may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running Dovecot. Stopped on drop; its log is printed if the test is failing then.
pub struct Dovecot {
    process: Child,
    port: u16,
    folder: tempfile::TempDir,
    mail_root: PathBuf,
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
        let folder = tempfile::Builder::new()
            .prefix("dovecot")
            .tempdir()
            .expect("a temporary folder is made");
        // The login processes are another user when we are root.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("it is opened to others");
        let port = free_port();
        let config = folder.path().join("dovecot.conf");
        std::fs::write(&config, configuration(folder.path(), mail_root, port, more))
            .expect("the configuration is written");
        for name in ["run", "state", "home"] {
            std::fs::create_dir(folder.path().join(name)).expect("a folder is made");
        }
        give(&folder.path().join("home"));
        give(mail_root);
        let process = Command::new(program())
            .arg("-F")
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("dovecot is installed (or named in REHOME_WITHOUT)");
        let mut dovecot = Self {
            process,
            port,
            folder,
            mail_root: mail_root.to_owned(),
        };
        dovecot.wait_until_ready();
        dovecot
    }

    /// Its IMAP port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Lets Dovecot read and change what was written below the mail root since the start. Needed only when the test
    /// runs as root: then mail is given to another user, as which Dovecot serves it.
    pub fn share_mail(&self) {
        give(&self.mail_root);
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("dovecot.log")
    }

    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !greets(self.port) {
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

fn is_root() -> bool {
    identity("-u") == "0"
}

/// Gives a folder with all in it to the user that Dovecot reads mail as, where that is not us.
fn give(folder: &Path) {
    if is_root() {
        let given = Command::new("chown")
            .arg("-R")
            .arg(format!("{MAIL_USER}:{MAIL_USER}"))
            .arg(folder)
            .status();
        assert!(
            given.is_ok_and(|status| status.success()),
            "{} is given to {MAIL_USER}",
            folder.display()
        );
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it has an address").port()
}

fn greets(port: u16) -> bool {
    let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return false;
    };
    let mut greeting = String::new();
    let read = stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| BufReader::new(stream).read_line(&mut greeting));
    read.is_ok() && greeting.starts_with("* OK")
}

fn identity(option: &str) -> String {
    let output = Command::new("id").arg(option).output().expect("id runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn configuration(folder: &Path, mail_root: &Path, port: u16, more: &str) -> String {
    let (folder, mail_root) = (folder.display(), mail_root.display());
    // Dovecot refuses to do anything for a user as root; the packages have made other users.
    let (login, internal, group, uid, gid) = if is_root() {
        let [login, internal, group, mail] = ["dovenull", "dovecot", "dovecot", MAIL_USER].map(str::to_owned);
        (login, internal, group, mail.clone(), mail)
    } else {
        (
            identity("-un"),
            identity("-un"),
            identity("-gn"),
            identity("-u"),
            identity("-g"),
        )
    };
    format!(
        r#"base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/dovecot.log
default_login_user = {login}
default_internal_user = {internal}
default_internal_group = {group}
protocols = imap
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain
first_valid_uid = 0
first_valid_gid = 0
mail_location = maildir:{mail_root}/%u
passdb {{
  driver = static
  args = password={PASSWORD}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={folder}/home/%u allow_all_users=yes
}}
namespace inbox {{
  inbox = yes
  separator = /
}}
service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
{more}
"#
    )
}

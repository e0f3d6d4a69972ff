//! A Cyrus of our own: private configuration, folders and port.
//!
//! As root it runs as user `cyrus`, whom the package makes; otherwise as whoever runs the test. It writes with its own
//! syncs: no `libeatmydata`.

use crate::certificate::Certificate;
use crate::imap::Session;
use crate::process::{PATIENCE, free_port, last_lines};
use crate::{fill, own, wait};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The administrator, who may do anything to all mailboxes and sign in for anybody.
pub const ADMIN: &str = "cyrus";
/// Her password.
pub const ADMIN_PASSWORD: &str = "battery-staple";
/// Where `scripts/install-deps` unpacks what Debian's `cyrus-imapd` has, which excludes Dovecot as a package.
const UNPACKED: &str = "/opt/rehome-cyrus/usr/lib/cyrus/bin/imapd";
/// Where it is if the package is installed.
const INSTALLED: &str = "/usr/lib/cyrus/bin/imapd";
/// The realm of its users.
const REALM: &str = "localhost";
/// User and group of the packages.
const OWNER: &str = "cyrus:mail";

/// What becomes of octets above 127 in headers.
#[derive(Clone, Copy)]
pub enum EightBit {
    /// They are kept (`munge8bit: no`).
    Kept,
    /// Each silently becomes an `X`: what Cyrus does by itself.
    Replaced,
    /// Such a message is refused (`reject8bit: yes`).
    Refused,
}

/// See [`Cyrus::builder`].
#[must_use]
pub struct Builder {
    users: Vec<(String, String)>,
    proxies: Vec<(String, String)>,
    eight_bit: EightBit,
    dots: bool,
    tls: bool,
    side_service: bool,
    more: String,
}

/// A running Cyrus. Stopped on drop; what it printed is shown if the test is failing then.
pub struct Cyrus {
    process: Child,
    port: u16,
    tls_port: u16,
    side_port: u16,
    folder: tempfile::TempDir,
}

impl Builder {
    /// Users with their passwords and an INBOX each.
    pub fn users<'a>(mut self, users: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let users = users.into_iter();
        self.users
            .extend(users.map(|(name, password)| (name.to_owned(), password.to_owned())));
        self
    }

    /// One without a mailbox who may sign in for any user by PLAIN with an authorization identity, and has that user's
    /// rights then.
    pub fn proxy(mut self, name: &str, password: &str) -> Self {
        self.proxies.push((name.to_owned(), password.to_owned()));
        self
    }

    /// What becomes of octets above 127 in headers; otherwise they are kept.
    pub fn eight_bit(mut self, choice: EightBit) -> Self {
        self.eight_bit = choice;
        self
    }

    /// Names as in old times: all folders below `INBOX.`, separator `.`. Otherwise beside INBOX, separator `/`.
    pub fn dots(mut self) -> Self {
        self.dots = true;
        self
    }

    /// STARTTLS and a port with TLS, by a certificate for loopback ([`Cyrus::authority`]).
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// IMAP on one more port ([`Cyrus::side_port`]) as a service of the name `rehome`, with TLS from the start if there is
    /// TLS. Cyrus can deny users the services `imap` and `imaps` and leave them this one.
    pub fn side_service(mut self) -> Self {
        self.side_service = true;
        self
    }

    /// More lines of `imapd.conf`.
    pub fn more(mut self, lines: &str) -> Self {
        self.more.push_str(lines);
        self.more.push('\n');
        self
    }

    /// Starts it, waits until it greets, and makes the users' mailboxes.
    ///
    /// # Panics
    /// When it is not installed, or does not come up.
    #[must_use]
    pub fn start(self) -> Cyrus {
        let folder = own::shared_folder("cyrus");
        let [port, tls_port, side_port] =
            [true, self.tls, self.side_service].map(|is_wanted| if is_wanted { free_port() } else { 0 });
        let path = folder.path();
        for name in ["db", "log", "proc", "socket", "user", "quota", "msg", "sync", "lock"] {
            std::fs::create_dir_all(path.join("config").join(name)).expect("a folder is made");
        }
        for name in ["spool", "sieve"] {
            std::fs::create_dir(path.join(name)).expect("a folder is made");
        }
        let admins = [(ADMIN.to_owned(), ADMIN_PASSWORD.to_owned())];
        for (name, password) in self.users.iter().chain(&self.proxies).chain(&admins) {
            set_password(path, name, password);
        }
        self.configure(path, [port, tls_port, side_port]);
        own::give(path, OWNER);
        let log = File::create(path.join("master.log")).expect("a log is made");
        let process = Command::new("/usr/lib/cyrus/bin/master")
            .arg("-D")
            .arg("-C")
            .arg(path.join("imapd.conf"))
            .arg("-M")
            .arg(path.join("cyrus.conf"))
            .arg("-p")
            .arg(path.join("master.pid"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("cyrus is installed (or named in REHOME_WITHOUT)");
        let mut cyrus = Cyrus {
            process,
            port,
            tls_port,
            side_port,
            folder,
        };
        cyrus.wait_until_ready();
        let mut admin = cyrus.admin();
        for (name, _) in &self.users {
            admin.ok(&format!("CREATE {}", cyrus.mailbox(name, "")));
        }
        cyrus
    }

    fn configure(&self, folder: &Path, [port, tls_port, side_port]: [u16; 3]) {
        let imapd = if Path::new(UNPACKED).exists() {
            UNPACKED
        } else {
            INSTALLED
        };
        let imapd_conf = folder.join("imapd.conf").display().to_string();
        let service = |name: &str, port: u16, option: &str| {
            format!(
                "{name} cmd=\"{imapd} -C {imapd_conf}{option}\" listen=\"127.0.0.1:{port}\" proto=\"tcp4\" prefork=0 \
                 maxchild=200\n"
            )
        };
        let mut services = String::new();
        if self.tls {
            services.push_str(&service("imaps", tls_port, " -s"));
        }
        if self.side_service {
            services.push_str(&service("rehome", side_port, if self.tls { " -s" } else { "" }));
        }
        let mut more = self.more.clone();
        if self.tls {
            let made = Certificate::for_loopback();
            for (name, text) in [
                ("authority.pem", made.authority),
                ("certificate.pem", made.certificate),
                ("key.pem", made.key),
            ] {
                own::write_whole(&folder.join(name), &text);
            }
            let folder = folder.display();
            more.push_str(&format!(
                "tls_server_cert: {folder}/certificate.pem\ntls_server_key: {folder}/key.pem\n"
            ));
        }
        // Cyrus takes no empty list.
        let proxies: Vec<&str> = std::iter::once(ADMIN)
            .chain(self.proxies.iter().map(|(name, _)| name.as_str()))
            .collect();
        let (munge, reject) = match self.eight_bit {
            EightBit::Kept => ("no", "no"),
            EightBit::Replaced => ("yes", "no"),
            EightBit::Refused => ("no", "yes"),
        };
        let user = if own::is_root() {
            "cyrus".to_owned()
        } else {
            own::identity("-un")
        };
        let modern = if self.dots { "no" } else { "yes" };
        let text = fill::fill(
            fill::CYRUS_IMAPD,
            &[
                ("FOLDER", &folder.display().to_string()),
                ("CYRUS_USER", &user),
                ("ADMINS", ADMIN),
                ("PROXIES", &proxies.join(" ")),
                ("ALTNAMESPACE", modern),
                ("UNIXHIERARCHYSEP", modern),
                ("MUNGE8BIT", munge),
                ("REJECT8BIT", reject),
                ("MORE", &more),
            ],
        );
        own::write_whole(&folder.join("imapd.conf"), &text);
        let text = fill::fill(
            fill::CYRUS,
            &[
                ("IMAPD", imapd),
                ("IMAPD_CONF", &imapd_conf),
                ("IMAP_PORT", &port.to_string()),
                ("MORE", &services),
            ],
        );
        own::write_whole(&folder.join("cyrus.conf"), &text);
    }
}

impl Cyrus {
    /// A Cyrus with nobody but [`ADMIN`].
    pub fn builder() -> Builder {
        Builder {
            users: Vec::new(),
            proxies: Vec::new(),
            eight_bit: EightBit::Kept,
            dots: false,
            tls: false,
            side_service: false,
            more: String::new(),
        }
    }

    /// Its IMAP port on 127.0.0.1; STARTTLS is offered there if it has TLS.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its port of IMAP with TLS from the start.
    ///
    /// # Panics
    /// When it was started without [`Builder::tls`].
    #[must_use]
    pub fn tls_port(&self) -> u16 {
        assert!(self.tls_port != 0, "this Cyrus has no TLS");
        self.tls_port
    }

    /// The port of the service `rehome`.
    ///
    /// # Panics
    /// When it was started without [`Builder::side_service`].
    #[must_use]
    pub fn side_port(&self) -> u16 {
        assert!(self.side_port != 0, "this Cyrus has no side service");
        self.side_port
    }

    /// The file with the authority that signed its certificate, PEM; there if it has TLS.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// Its `imapd.conf`, for programs of the package (`-C`).
    #[must_use]
    pub fn configuration(&self) -> PathBuf {
        self.folder.path().join("imapd.conf")
    }

    /// A session of [`ADMIN`].
    ///
    /// # Panics
    /// When the server refuses.
    #[must_use]
    pub fn admin(&self) -> Session {
        let mut session = Session::connect(self.port);
        let answer = session.plain("", ADMIN, ADMIN_PASSWORD);
        assert!(answer.is_ok(), "the administrator signs in: {}", answer.status);
        session
    }

    /// The administrator's name of a user's INBOX, or of the folder `path` below it: `user/NAME` or `user.NAME`.
    #[must_use]
    pub fn mailbox(&self, user: &str, path: &str) -> String {
        let text = std::fs::read_to_string(self.configuration()).unwrap_or_default();
        let separator = if text.contains("unixhierarchysep: no") {
            "."
        } else {
            "/"
        };
        let below = if path.is_empty() {
            String::new()
        } else {
            format!("{separator}{path}")
        };
        format!("user{separator}{user}{below}")
    }

    /// Adds a user with an INBOX.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn create_user(&self, name: &str, password: &str) {
        self.set_password(name, password);
        self.admin().ok(&format!("CREATE {}", self.mailbox(name, "")));
    }

    /// Gives somebody another password, or lets one who was [denied](Self::deny) in again.
    ///
    /// # Panics
    /// When `saslpasswd2` fails.
    pub fn set_password(&self, name: &str, password: &str) {
        set_password(self.folder.path(), name, password);
    }

    /// Takes a user's password away. Proxies and the administrator still sign in for him, and his sessions go on.
    ///
    /// # Panics
    /// When `saslpasswd2` fails.
    pub fn deny(&self, name: &str) {
        let done = saslpasswd2(self.folder.path(), &["-d"], name).status();
        assert!(
            done.is_ok_and(|status| status.success()),
            "{name} has no password any more"
        );
    }

    /// Sets the rights (RFC 4314) of `who` to a user's folder, INBOX where `path` is empty; no rights where `rights` is
    /// empty. An owner always keeps `lkxca`; `p` of `anyone` is what delivery needs.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn set_acl(&self, user: &str, path: &str, who: &str, rights: &str) {
        let rights = if rights.is_empty() { "\"\"" } else { rights };
        self.admin()
            .ok(&format!("SETACL \"{}\" {who} {rights}", self.mailbox(user, path)));
    }

    /// Limits a user's storage.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn set_quota_kib(&self, user: &str, limit: u64) {
        self.admin()
            .ok(&format!("SETQUOTA {} (STORAGE {limit})", self.mailbox(user, "")));
    }

    /// Runs lines in `cyradm` as the administrator and returns what it printed.
    ///
    /// # Panics
    /// When it is not installed or fails.
    #[must_use]
    pub fn cyradm(&self, lines: &str) -> String {
        let mut process = Command::new("cyradm")
            .args([
                "--user",
                ADMIN,
                "--auth",
                "PLAIN",
                "--notls",
                "--password",
                ADMIN_PASSWORD,
            ])
            .args(["--port", &self.port.to_string(), "127.0.0.1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cyradm is installed");
        let mut input = process.stdin.take().expect("its input is ours");
        input.write_all(lines.as_bytes()).expect("cyradm reads");
        drop(input);
        let output = process.wait_with_output().expect("cyradm ends");
        assert!(
            output.status.success(),
            "cyradm: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Process ids of a user's sessions, those of a proxy for him among them.
    #[must_use]
    pub fn sessions(&self, user: &str) -> Vec<u32> {
        let entries = std::fs::read_dir(self.folder.path().join("config/proc")).expect("a folder is read");
        entries
            .flatten()
            .filter(|entry| {
                // Service, client, user, mailbox, command, separated by TAB.
                let text = std::fs::read(entry.path()).unwrap_or_default();
                String::from_utf8_lossy(&text).split('\t').nth(2) == Some(user)
            })
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect()
    }

    /// Asks a user's sessions to end. As with Dovecot that is no barrier.
    pub fn kick(&self, user: &str) {
        for process in self.sessions(user) {
            // It may have ended by itself.
            let _ = Command::new("kill")
                .arg(process.to_string())
                .stderr(Stdio::null())
                .status();
        }
    }

    /// The last lines of what its processes printed. (They log to the system's log.)
    #[must_use]
    pub fn log(&self) -> String {
        last_lines(&self.folder.path().join("master.log"), "")
    }

    fn wait_until_ready(&mut self) {
        let port = self.port;
        wait::until("cyrus greets", PATIENCE, || {
            let ended = self.process.try_wait().expect("the process can be asked");
            assert!(ended.is_none(), "cyrus ended with {ended:?}:\n{}", self.log());
            super::dovecot::greets(port).then_some(()).ok_or_else(|| self.log())
        });
    }

    fn signal(&self, name: &str) {
        // It fails harmlessly when all have ended.
        let _ = Command::new("kill")
            .args([&format!("-{name}"), "--", &format!("-{}", self.process.id())])
            .stderr(Stdio::null())
            .status();
    }
}

impl Drop for Cyrus {
    fn drop(&mut self) {
        self.signal("TERM");
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && matches!(self.process.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.signal("KILL");
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("log of cyrus:\n{}", self.log());
        }
    }
}

fn saslpasswd2(folder: &Path, options: &[&str], name: &str) -> Command {
    let program = if Path::new("/usr/sbin/saslpasswd2").exists() {
        "/usr/sbin/saslpasswd2"
    } else {
        "saslpasswd2"
    };
    let mut command = Command::new(program);
    command
        .arg("-f")
        .arg(folder.join("sasldb2"))
        .args(options)
        .args(["-u", REALM, name]);
    command
}

fn set_password(folder: &Path, name: &str, password: &str) {
    let mut process = saslpasswd2(folder, &["-c", "-p"], name)
        .stdin(Stdio::piped())
        .spawn()
        .expect("saslpasswd2 is installed");
    let mut input = process.stdin.take().expect("its input is ours");
    input.write_all(password.as_bytes()).expect("saslpasswd2 reads");
    drop(input);
    let done = process.wait().expect("saslpasswd2 ends");
    assert!(done.success(), "{name} has a password");
}

//! One organisation's server: its folder, its configuration, its process.

use crate::administrator::Administrator;
use rehome_testkit::process::{PATIENCE, Server, free_port};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The password of every administrator after his first sign-in.
pub const PASSWORD: &str = "correct-horse-battery-staple";

/// The project's folder.
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package lies in the project")
        .to_owned()
}

/// The binary under test.
pub fn binary() -> PathBuf {
    let binary = std::env::var_os("REHOME_BIN").map_or_else(|| project().join("target/debug/rehome"), PathBuf::from);
    assert!(
        binary.is_file(),
        "{} is not there; build it first: cargo build -p rehome-app --features fault-injection (make test does it)",
        binary.display()
    );
    binary
}

/// What a configuration file says beside the usual.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Authorities of partners.
    pub extra_roots: Vec<PathBuf>,
    /// Where sockets to a name really go.
    pub overrides: BTreeMap<String, SocketAddr>,
    /// Domain → port of its mail server on this machine.
    pub routes: BTreeMap<String, u16>,
    /// Lines of `[cutover]`.
    pub cutover: Vec<String>,
    /// Lines of `[replication]`.
    pub replication: Vec<String>,
    /// Lines before the first table.
    pub top: Vec<String>,
    /// Lines of `[platform.mail]` and tables below it; without any it is Maildirs in the deployment's folder.
    pub platform: Vec<String>,
}

/// One `rehome serve` with all that belongs to it. Killed on drop.
pub struct Deployment {
    // First, so that it is dropped while its log is still there.
    server: Option<Server>,
    name: String,
    folder: tempfile::TempDir,
    /// HTTPS port.
    pub port: u16,
    /// SMTP port.
    pub smtp_port: u16,
    /// What its configuration says; takes effect at the next [`Deployment::configure`] and start.
    pub settings: Settings,
}

impl Deployment {
    /// A deployment with certificate, key and free ports, not configured and not started.
    pub fn new(name: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix(&format!("rehome-{name}-"))
            .tempdir()
            .expect("a temporary folder is made");
        let mut deployment = Self {
            name: name.to_owned(),
            folder,
            port: free_port(),
            smtp_port: free_port(),
            settings: Settings::default(),
            server: None,
        };
        for name in ["mail", "data", "admin"] {
            std::fs::create_dir(deployment.path(name)).expect("a folder is made");
        }
        let path = |name: &str| deployment.path(name).display().to_string();
        deployment.operator(&["certificate", "new", "--name", "localhost", "--out", &path("tls")]);
        deployment.operator(&["key", "new", "--out", &path("seal.key")]);
        deployment.settings.cutover.push("ask_outcome_seconds = 1".to_owned());
        deployment
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `host:port` by which everyone knows it.
    pub fn name(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// Where its HTTPS listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Its certificate authority.
    pub fn authority(&self) -> PathBuf {
        self.path("tls/ca.pem")
    }

    /// Everything it logged.
    pub fn log(&self) -> String {
        std::fs::read(self.path("log"))
            .map(|octets| String::from_utf8_lossy(&octets).into_owned())
            .unwrap_or_default()
    }

    /// Writes the configuration file.
    pub fn configure(&self) {
        let quote = |text: &dyn std::fmt::Display| json!(text.to_string()).to_string();
        let path = |name: &str| quote(&self.path(name).display());
        let settings = &self.settings;
        let roots: Vec<String> = settings.extra_roots.iter().map(|root| quote(&root.display())).collect();
        let overrides: Vec<String> = settings
            .overrides
            .iter()
            .map(|(name, to)| format!("{} = {}", quote(name), quote(to)))
            .collect();
        let platform = if settings.platform.is_empty() {
            format!("driver = \"maildir\"\nroot = {}", path("mail"))
        } else {
            settings.platform.join("\n")
        };
        let mut text = settings.top.join("\n");
        text.push_str(&format!(
            r#"
data_folder = {data}
listen = "127.0.0.1:{port}"
public_name = {name}
key_file = {key}
[tls]
certificate = {certificate}
key = {leaf_key}
extra_roots = [{roots}]
[connections]
override = {{ {overrides} }}
allow_private_addresses = true
[platform.mail]
{platform}
[cutover]
{cutover}
[replication]
{replication}
[mailflow]
smtp_listen = "127.0.0.1:{smtp}"
[mailflow.routes]
"#,
            data = path("data"),
            port = self.port,
            name = quote(&self.name()),
            key = path("seal.key"),
            certificate = path("tls/leaf.pem"),
            leaf_key = path("tls/leaf.key"),
            roots = roots.join(", "),
            overrides = overrides.join(", "),
            platform = platform,
            cutover = settings.cutover.join("\n"),
            replication = settings.replication.join("\n"),
            smtp = self.smtp_port,
        ));
        for (domain, port) in &settings.routes {
            text.push_str(&format!(
                "{} = {{ next_hop = \"127.0.0.1:{port}\", tls = \"none\" }}\n",
                quote(domain)
            ));
        }
        std::fs::write(self.path("config.toml"), text).expect("the configuration is written");
    }

    /// A command on the machine itself; returns its standard output.
    pub fn operator(&self, arguments: &[&str]) -> String {
        let output = Command::new(binary())
            .args(arguments)
            .current_dir(self.folder.path())
            .output()
            .expect("the binary runs");
        assert!(
            output.status.success(),
            "rehome {arguments:?} ended with {}:\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Makes a tenant and signs its administrator in. The server must run.
    pub fn tenant(&self, domain: &str) -> Administrator {
        let config = self.path("config.toml").display().to_string();
        let admin = format!("admin@{domain}");
        let answer = self.operator(&[
            "tenant", "new", domain, "--admin", &admin, "--config", &config, "--json",
        ]);
        let answer: Value = serde_json::from_str(&answer).expect("tenant new prints JSON");
        let one = if answer.is_array() { &answer[0] } else { &answer };
        let text = |name: &str| {
            one[name]
                .as_str()
                .unwrap_or_else(|| panic!("no {name} in {answer}"))
                .to_owned()
        };
        let administrator = Administrator::new(self, domain, &text("tenant_id"));
        administrator.sign_in(&text("code"), Some(PASSWORD));
        administrator
    }

    /// Starts the server and waits until it listens.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// As [`Deployment::start`], with these environment variables.
    pub fn start_with(&mut self, environment: &[(&str, &str)]) {
        let mut command = Command::new(binary());
        command.envs(environment.iter().copied());
        self.launch(command);
    }

    /// As [`Deployment::start`], on a disk that takes no file of more than `octets`.
    pub fn start_with_small_disk(&mut self, octets: u64) {
        // The limit counts blocks of 512 octets; beyond it a write fails instead of ending the process.
        let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", octets / 512);
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).arg(binary());
        self.launch(command);
    }

    fn launch(&mut self, mut command: Command) {
        command
            .arg("serve")
            .arg("--config")
            .arg(self.path("config.toml"))
            .current_dir(self.folder.path());
        let mut server =
            Server::start(&self.name, &mut command, &self.path("log")).without_lines("answered status=200");
        for port in [self.port, self.smtp_port] {
            server.listens(SocketAddr::from(([127, 0, 0, 1], port)));
        }
        self.server = Some(server);
    }

    /// Starts the server so that it dies without cleaning up right after the `count`th durable step of this name.
    pub fn start_to_die_at(&mut self, step: &str, count: u32) {
        let program = std::fs::read(binary()).expect("the binary can be read");
        let can_die = program
            .windows(b"REHOME_FAULT_NAME".len())
            .any(|octets| octets == b"REHOME_FAULT_NAME");
        assert!(
            can_die,
            "{} was built without fault-injection: make test builds it with it",
            binary().display()
        );
        self.start_with(&[("REHOME_FAULT_NAME", step), ("REHOME_FAULT_COUNT", &count.to_string())]);
    }

    fn server(&mut self) -> &mut Server {
        self.server.as_mut().expect("the server was started")
    }

    /// Waits until the server has died by itself.
    pub fn dies(&mut self, bound: Duration) {
        self.server().ends(bound);
        self.server = None;
    }

    /// Whether the server runs.
    pub fn is_running(&mut self) -> bool {
        self.server.as_mut().is_some_and(Server::is_running)
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill();
        }
    }

    /// SIGTERM; the server must end in order.
    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let status = server.stop();
            assert!(status.success(), "{} stopped with {status}", self.name);
        }
    }

    /// SIGKILL, then a start as usual.
    pub fn restart(&mut self) {
        self.kill();
        self.start();
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if std::env::var_os("REHOME_TESTS_KEEP").is_some() {
            self.folder.disable_cleanup(true);
            eprintln!("kept: {}", self.folder.path().display());
        }
    }
}

/// How long a server may take for something that it does by itself.
pub const LONG: Duration = PATIENCE;

#[test]
fn configuration_mistakes_name_file_line_and_what_is_allowed() {
    let deployment = Deployment::new("mistakes");
    deployment.configure();
    let file = deployment.path("config.toml");
    let good = std::fs::read_to_string(&file).expect("it was written");
    for (text, wanted) in [
        (good.replace("[tls]", "colour = 1\n[tls]"), "colour"),
        (good.replace("driver = \"maildir\"", "driver = \"mbox\""), "maildir"),
        (
            good.replace("ask_outcome_seconds = 1", "ask_outcome_seconds = 0"),
            "3600",
        ),
    ] {
        std::fs::write(&file, &text).expect("it is written");
        let output = Command::new(binary())
            .arg("serve")
            .arg("--config")
            .arg(&file)
            .output()
            .expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = 1 + text
            .lines()
            .position(|line| !good.lines().any(|other| other == line))
            .expect("one line differs");
        assert!(!output.status.success());
        assert!(
            said.contains(wanted) && said.contains(&format!("config.toml:{line}")),
            "wanted {wanted} and line {line}:\n{said}"
        );
    }
}

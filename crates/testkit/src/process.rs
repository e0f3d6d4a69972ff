//! Server processes of a test: started with a log file, stopped on drop, their log shown when the test fails.

use crate::wait;
use std::collections::hash_map::RandomState;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// How long a start or a stop may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How much of a log is shown.
const SHOWN_LINES: usize = 40;

/// A port that nobody listens on. It is not in the range from which systems take ports of outgoing connections, so
/// that none of those takes it before its server does.
///
/// # Panics
/// When no port is free.
#[must_use]
pub fn free_port() -> u16 {
    for _ in 0..1000 {
        let random = RandomState::new().build_hasher().finish();
        let port = 10_000 + u16::try_from(random % 22_000).unwrap_or(0);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port was found");
}

/// A running server process.
pub struct Server {
    name: String,
    process: Child,
    log: PathBuf,
    noise: String,
}

impl Server {
    /// Starts `command`; everything it writes is appended to `log`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Self {
        let mut file = appended(log);
        writeln!(file, "-- start of {name}").expect("a log can be written");
        let process = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a file can be shared"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        Self {
            name: name.to_owned(),
            process,
            log: log.to_owned(),
            noise: String::new(),
        }
    }

    /// Leaves lines with this text out where the log is shown.
    #[must_use]
    pub fn without_lines(mut self, noise: &str) -> Self {
        noise.clone_into(&mut self.noise);
        self
    }

    /// Waits until something listens at `address`.
    ///
    /// # Panics
    /// When the process ends before, or it takes too long; the log is in the text.
    pub fn listens(&mut self, address: SocketAddr) {
        wait::until(&format!("{} listens on {address}", self.name), PATIENCE, || {
            if let Some(status) = self.process.try_wait().expect("a process can be asked") {
                panic!(
                    "{} ended with {status}:\n{}",
                    self.name,
                    last_lines(&self.log, &self.noise)
                );
            }
            TcpStream::connect_timeout(&address, Duration::from_secs(1))
                .map(drop)
                .map_err(|error| error.to_string())
        });
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// When it does not within `bound`.
    pub fn ends(&mut self, bound: Duration) -> ExitStatus {
        wait::until(&format!("{} ends", self.name), bound, || {
            self.process
                .try_wait()
                .expect("a process can be asked")
                .ok_or_else(|| "it runs".to_owned())
        })
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        // Both fail harmlessly when it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Sends a signal by its name, such as `TERM`.
    ///
    /// # Panics
    /// When it cannot be sent.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.process.id().to_string())
            .status();
        assert!(
            sent.is_ok_and(|status| status.success()),
            "SIG{name} is sent to {}",
            self.name
        );
    }

    /// SIGTERM, then waits for the end and returns it.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.ends(PATIENCE)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!(
                "-- last lines of {}'s log\n{}",
                self.name,
                last_lines(&self.log, &self.noise)
            );
        }
    }
}

fn appended(log: &Path) -> File {
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(log)
        .expect("a log can be opened")
}

/// The end of a log, without lines that hold `noise`, if that is not empty.
#[must_use]
pub fn last_lines(log: &Path, noise: &str) -> String {
    let text = std::fs::read(log)
        .map(|octets| String::from_utf8_lossy(&octets).into_owned())
        .unwrap_or_default();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| noise.is_empty() || !line.contains(noise))
        .collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_started_watched_and_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut server = Server::start(
            "sleep",
            Command::new("sh").args(["-c", "echo begun; exec sleep 600"]),
            &log,
        );
        wait::until_true("the first line", PATIENCE, || last_lines(&log, "").contains("begun"));
        assert!(server.is_running());
        assert!(!server.stop().success());
        assert!(!server.is_running());
    }
}

//! A bare IMAP client for what tests do at a server themselves: exact octets, no TLS, every wait bounded.

use crate::process::PATIENCE;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

/// The longest literal that is taken.
const LITERAL: usize = 1 << 30;

/// A connection.
pub struct Session {
    stream: BufReader<TcpStream>,
    tags: u32,
}

/// What a server answered to a command.
#[derive(Debug)]
pub struct Answer {
    /// The untagged lines, each with its literals in place and without the last CR LF.
    pub untagged: Vec<Vec<u8>>,
    /// The tagged line without its tag, such as `OK [APPENDUID 1 2] Completed`.
    pub status: String,
}

impl Answer {
    /// Whether it is OK.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.status.starts_with("OK")
    }

    /// The untagged lines as text, with whatever is not UTF-8 replaced.
    #[must_use]
    pub fn text(&self) -> String {
        let lines: Vec<_> = self.untagged.iter().map(|line| String::from_utf8_lossy(line)).collect();
        lines.join("\n")
    }
}

impl Session {
    /// Connects to a port of loopback and takes the greeting.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a wait is bounded");
        stream.set_write_timeout(Some(PATIENCE)).expect("a wait is bounded");
        stream.set_nodelay(true).expect("a line is sent at once");
        let mut session = Self {
            stream: BufReader::new(stream),
            tags: 0,
        };
        let greeting = session.line().expect("a greeting comes");
        assert!(
            greeting.starts_with(b"* OK") || greeting.starts_with(b"* PREAUTH"),
            "a greeting comes: {}",
            String::from_utf8_lossy(&greeting)
        );
        session
    }

    /// Connects and signs in by `LOGIN`.
    ///
    /// # Panics
    /// When the server refuses.
    #[must_use]
    pub fn login(port: u16, user: &str, password: &str) -> Self {
        let mut session = Self::connect(port);
        session.ok(&format!("LOGIN {} {}", quoted(user), quoted(password)));
        session
    }

    /// Signs in by SASL PLAIN (RFC 4616). `authorize_as` may be empty.
    pub fn plain(&mut self, authorize_as: &str, user: &str, password: &str) -> Answer {
        self.authenticate("PLAIN", &format!("{authorize_as}\0{user}\0{password}"))
    }

    /// Signs in by OAUTHBEARER (RFC 7628).
    pub fn bearer(&mut self, user: &str, token: &str) -> Answer {
        self.authenticate("OAUTHBEARER", &format!("n,a={user},\x01auth=Bearer {token}\x01\x01"))
    }

    /// Signs in by XOAUTH2, as Google defined it.
    pub fn xoauth2(&mut self, user: &str, token: &str) -> Answer {
        self.authenticate("XOAUTH2", &format!("user={user}\x01auth=Bearer {token}\x01\x01"))
    }

    fn authenticate(&mut self, mechanism: &str, response: &str) -> Answer {
        let tag = self.send(&format!("AUTHENTICATE {mechanism}"));
        self.continued(&tag);
        self.put(format!("{}\r\n", STANDARD.encode(response)).as_bytes());
        self.answer(&tag)
    }

    /// Sends a command (without tag and CR LF) and takes its answer. A challenge is answered by an empty line.
    pub fn command(&mut self, command: &str) -> Answer {
        let tag = self.send(command);
        self.answer(&tag)
    }

    /// As [`command`](Self::command), where only OK is right.
    ///
    /// # Panics
    /// When the answer is another.
    pub fn ok(&mut self, command: &str) -> Answer {
        let answer = self.command(command);
        assert!(answer.is_ok(), "{command}: {}", answer.status);
        answer
    }

    /// Appends exactly these octets. `metadata` is what stands between mailbox and literal, such as
    /// `(\Seen) "01-Jan-2020 00:00:00 +0000"`; it may be empty.
    pub fn append(&mut self, mailbox: &str, metadata: &str, octets: &[u8]) -> Answer {
        let blank = if metadata.is_empty() { "" } else { " " };
        let tag = self.send(&format!(
            "APPEND {}{blank}{metadata} {{{}}}",
            quoted(mailbox),
            octets.len()
        ));
        if let Err(refused) = self.continuation(&tag) {
            return refused;
        }
        self.put(octets);
        self.put(b"\r\n");
        self.answer(&tag)
    }

    /// Appends many messages by one command (RFC 3502), without waiting before each: the server must offer MULTIAPPEND
    /// and LITERAL+. Each has what stands before its literal, as in [`append`](Self::append), and its octets.
    pub fn append_many<'a>(
        &mut self,
        mailbox: &str,
        messages: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Answer {
        self.tags += 1;
        let tag = format!("t{}", self.tags);
        let mut command = format!("{tag} APPEND {}", quoted(mailbox)).into_bytes();
        for (metadata, octets) in messages {
            let blank = if metadata.is_empty() { "" } else { " " };
            command.extend_from_slice(format!("{blank}{metadata} {{{}+}}\r\n", octets.len()).as_bytes());
            command.extend_from_slice(octets);
        }
        command.extend_from_slice(b"\r\n");
        self.put(&command);
        self.answer(&tag)
    }

    /// The octets of the message with this uid in the selected mailbox.
    ///
    /// # Panics
    /// When the server does not give them.
    pub fn body(&mut self, uid: u32) -> Vec<u8> {
        let answer = self.ok(&format!("UID FETCH {uid} (BODY.PEEK[])"));
        for line in &answer.untagged {
            let Some(start) = find(line, b"BODY[] ") else { continue };
            let rest = &line[start + b"BODY[] ".len()..];
            let end = find(rest, b"}\r\n").expect("a body comes as a literal");
            let size = literal(&rest[..=end]).expect("a literal has a size");
            return rest[end + 3..end + 3 + size].to_vec();
        }
        panic!("no body of {uid}: {}", answer.text());
    }

    /// Sends a command and returns its tag, without waiting.
    pub fn send(&mut self, command: &str) -> String {
        self.tags += 1;
        let tag = format!("t{}", self.tags);
        self.put(format!("{tag} {command}\r\n").as_bytes());
        tag
    }

    /// Sends octets as they are.
    ///
    /// # Panics
    /// When the connection has ended.
    pub fn put(&mut self, octets: &[u8]) {
        self.stream.get_mut().write_all(octets).expect("the server reads");
    }

    /// Reads until the server ends the session, with a BYE or without a word. Panics where it does not within the patience.
    pub fn ends(&mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("the session ends");
    }

    /// The next line with its literals, without the last CR LF; none at the end of the connection.
    #[must_use]
    pub fn line(&mut self) -> Option<Vec<u8>> {
        let mut whole = Vec::new();
        loop {
            let start = whole.len();
            let read = self.stream.read_until(b'\n', &mut whole).ok()?;
            if read == 0 {
                return None;
            }
            let Some(size) = literal(&whole[start..]) else {
                while whole.last().is_some_and(|octet| matches!(octet, b'\r' | b'\n')) {
                    whole.pop();
                }
                return Some(whole);
            };
            assert!(size <= LITERAL, "a literal has a bounded size");
            let start = whole.len();
            whole.resize(start + size, 0);
            self.stream.read_exact(&mut whole[start..]).ok()?;
        }
    }

    /// Takes lines up to the tagged one.
    ///
    /// # Panics
    /// When the connection ends before; the lines until then are in the text.
    pub fn answer(&mut self, tag: &str) -> Answer {
        let mut untagged = Vec::new();
        loop {
            let Some(line) = self.line() else {
                let seen = Answer {
                    untagged,
                    status: String::new(),
                };
                panic!("the connection ended before the answer to {tag}: {}", seen.text());
            };
            if line.starts_with(b"+") {
                self.put(b"\r\n");
            } else if let Some(status) = line.strip_prefix(format!("{tag} ").as_bytes()) {
                return Answer {
                    untagged,
                    status: String::from_utf8_lossy(status).into_owned(),
                };
            } else {
                untagged.push(line);
            }
        }
    }

    fn continued(&mut self, tag: &str) {
        if let Err(refused) = self.continuation(tag) {
            panic!("the server does not go on: {}", refused.status);
        }
    }

    fn continuation(&mut self, tag: &str) -> Result<(), Answer> {
        let mut untagged = Vec::new();
        loop {
            let line = self.line().expect("the server answers");
            if line.starts_with(b"+") {
                return Ok(());
            }
            if let Some(status) = line.strip_prefix(format!("{tag} ").as_bytes()) {
                return Err(Answer {
                    untagged,
                    status: String::from_utf8_lossy(status).into_owned(),
                });
            }
            untagged.push(line);
        }
    }
}

/// A quoted string (RFC 9051 §9).
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn find(octets: &[u8], part: &[u8]) -> Option<usize> {
    octets.windows(part.len()).position(|window| window == part)
}

/// The size of the literal that a line announces at its end.
fn literal(line: &[u8]) -> Option<usize> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let inner = line.strip_suffix(b"}")?;
    let start = inner.iter().rposition(|octet| *octet == b'{')?;
    str::from_utf8(&inner[start + 1..]).ok()?.parse().ok()
}

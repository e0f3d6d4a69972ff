//! As little IMAP as references need: commands written by hand, answers read in large pieces, nothing waited for that
//! need not be.

use crate::date;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const BUFFER: usize = 256 * 1024;
const LONGEST_LINE: usize = 1024 * 1024;
/// A server that says nothing for so long has failed; a 1.5 GB message takes a while to be stored.
const PATIENCE: Duration = Duration::from_secs(300);

/// Whom to sign in, and where.
#[derive(Clone)]
pub(crate) struct Account {
    pub(crate) server: String,
    pub(crate) user: String,
    pub(crate) password: String,
}

/// What comes next in the answer to a FETCH.
pub(crate) enum Fetched {
    /// A message whose octets follow: read them with `literal`.
    Message { flags: String, date: String, length: usize },
    /// A message without octets.
    Facts,
    /// The command is done.
    Done,
}

/// A signed-in connection.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    tags: u32,
    prefix: String,
    separator: String,
}

fn wrong(text: impl Into<String>) -> io::Error {
    io::Error::other(text.into())
}

/// A quoted string.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

impl Connection {
    /// Connects, signs in and asks for the personal namespace.
    pub(crate) fn open(account: &Account) -> io::Result<Self> {
        let stream = TcpStream::connect(&account.server)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut connection = Self {
            stream,
            buffer: vec![0; BUFFER],
            start: 0,
            end: 0,
            tags: 0,
            prefix: String::new(),
            separator: "/".to_owned(),
        };
        let greeting = connection.line()?;
        if !greeting.starts_with("* OK") {
            return Err(wrong(format!("greeting: {greeting}")));
        }
        connection.command(&format!(
            "LOGIN {} {}",
            quoted(&account.user),
            quoted(&account.password)
        ))?;
        for line in connection.command("NAMESPACE")? {
            if let Some(rest) = line.strip_prefix("* NAMESPACE ((\"")
                && let Some((prefix, rest)) = rest.split_once("\" \"")
                && let Some((separator, _)) = rest.split_once('"')
            {
                connection.prefix = prefix.to_owned();
                connection.separator = separator.to_owned();
            }
        }
        Ok(connection)
    }

    /// A folder's name as this server wants it, quoted.
    pub(crate) fn folder(&self, path: &str) -> String {
        if path == "INBOX" {
            return quoted(path);
        }
        quoted(&format!("{}{}", self.prefix, path.replace('/', &self.separator)))
    }

    /// Every folder that can be selected, with `/` between levels.
    pub(crate) fn folders(&mut self) -> io::Result<Vec<String>> {
        let mut folders = Vec::new();
        for line in self.command("LIST \"\" \"*\"")? {
            let Some(rest) = line.strip_prefix("* LIST (") else {
                continue;
            };
            let Some((attributes, rest)) = rest.split_once(") ") else {
                continue;
            };
            let attributes = attributes.to_ascii_lowercase();
            if attributes.contains("\\noselect") || attributes.contains("\\nonexistent") {
                continue;
            }
            let name = rest.split_once(' ').map_or("", |(_, name)| name).trim_matches('"');
            if name.is_empty() || name.starts_with('{') {
                return Err(wrong(format!("a folder's name that is not expected here: {line}")));
            }
            let path = name.strip_prefix(&self.prefix).unwrap_or(name);
            folders.push(path.replace(&self.separator, "/"));
        }
        folders.sort();
        Ok(folders)
    }

    /// Makes a folder unless it is there, and subscribes to it.
    pub(crate) fn create(&mut self, path: &str) -> io::Result<()> {
        let folder = self.folder(path);
        if path != "INBOX" {
            let tag = self.send_command(&format!("CREATE {folder}"))?;
            self.answer(&tag).map(|_| ()).or_else(|error| {
                let text = error.to_string().to_ascii_lowercase();
                if text.contains("exists") { Ok(()) } else { Err(error) }
            })?;
        }
        self.command(&format!("SUBSCRIBE {folder}")).map(|_| ())
    }

    /// Opens a folder for reading, or for writing; returns how many messages it holds.
    pub(crate) fn open_folder(&mut self, verb: &str, path: &str) -> io::Result<usize> {
        let lines = self.command(&format!("{verb} {}", self.folder(path)))?;
        let count = lines
            .iter()
            .find_map(|line| line.strip_prefix("* ")?.strip_suffix(" EXISTS"));
        count
            .and_then(|count| count.parse().ok())
            .ok_or_else(|| wrong(format!("{verb} {path}: no EXISTS")))
    }

    pub(crate) fn next_tag(&mut self) -> String {
        self.tags += 1;
        format!("b{}", self.tags)
    }

    /// Sends octets as they are.
    pub(crate) fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.stream.write_all(octets)
    }

    /// Sends a command without waiting; returns its tag.
    pub(crate) fn send_command(&mut self, text: &str) -> io::Result<String> {
        let tag = self.next_tag();
        self.send(format!("{tag} {text}\r\n").as_bytes())?;
        Ok(tag)
    }

    /// Sends a command and waits; returns the untagged lines, fails unless it is answered OK.
    pub(crate) fn command(&mut self, text: &str) -> io::Result<Vec<String>> {
        let tag = self.send_command(text)?;
        self.answer(&tag)
    }

    /// Reads until the tagged answer; returns the untagged lines.
    pub(crate) fn answer(&mut self, tag: &str) -> io::Result<Vec<String>> {
        let mut lines = Vec::new();
        loop {
            let line = self.line()?;
            if let Some(rest) = line.strip_prefix(tag).and_then(|rest| rest.strip_prefix(' ')) {
                return if rest.starts_with("OK") {
                    Ok(lines)
                } else {
                    Err(wrong(rest))
                };
            }
            if let Some(rest) = line.strip_prefix("* BYE") {
                return Err(wrong(format!("BYE{rest}")));
            }
            lines.push(line);
        }
    }

    /// The next message of a FETCH with this tag.
    pub(crate) fn fetched(&mut self, tag: &str) -> io::Result<Fetched> {
        loop {
            let line = self.line()?;
            if let Some(rest) = line.strip_prefix(tag).and_then(|rest| rest.strip_prefix(' ')) {
                return if rest.starts_with("OK") {
                    Ok(Fetched::Done)
                } else {
                    Err(wrong(rest))
                };
            }
            let Some((_, facts)) = line.split_once(" FETCH (") else {
                continue;
            };
            let Some(length) = facts
                .strip_suffix('}')
                .and_then(|rest| rest.rsplit_once('{')?.1.parse().ok())
            else {
                return Ok(Fetched::Facts);
            };
            let flags = after(facts, "FLAGS (").and_then(|rest| rest.split(')').next());
            let date = after(facts, "INTERNALDATE \"").and_then(|rest| rest.split('"').next());
            let (Some(flags), Some(date)) = (flags, date) else {
                return Err(wrong(format!("flags and date do not stand before the octets: {line}")));
            };
            return Ok(Fetched::Message {
                flags: flags.to_owned(),
                date: date.to_owned(),
                length,
            });
        }
    }

    /// Appends a literal's octets to `into`, and takes the rest of its line.
    pub(crate) fn literal(&mut self, length: usize, into: &mut Vec<u8>) -> io::Result<()> {
        into.reserve(length);
        let held = length.min(self.end - self.start);
        into.extend_from_slice(&self.buffer[self.start..self.start + held]);
        self.start += held;
        let missing = (length - held) as u64;
        let read = (&mut self.stream).take(missing).read_to_end(into)?;
        if read as u64 != missing {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.line().map(|_| ())
    }

    /// One line without its end.
    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        loop {
            let held = &self.buffer[self.start..self.end];
            if let Some(length) = held.iter().position(|&octet| octet == b'\n') {
                line.extend_from_slice(&held[..length]);
                self.start += length + 1;
                if line.ends_with(b"\r") {
                    line.pop();
                }
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            line.extend_from_slice(held);
            if line.len() > LONGEST_LINE {
                return Err(wrong("a line without end"));
            }
            self.start = 0;
            self.end = self.stream.read(&mut self.buffer)?;
            if self.end == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// A second handle for writing while another thread reads.
    pub(crate) fn writer(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }
}

fn after<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    text.find(mark).map(|at| &text[at + mark.len()..])
}

/// One command that appends several messages (RFC 3502), with non-synchronising literals (RFC 7888).
pub(crate) struct MultiAppend {
    pub(crate) octets: Vec<u8>,
    pub(crate) messages: usize,
}

impl MultiAppend {
    /// Begins a command in memory that a former one used.
    pub(crate) fn begin(mut octets: Vec<u8>, tag: &str, folder: &str) -> Self {
        octets.clear();
        octets.extend_from_slice(format!("{tag} APPEND {folder}").as_bytes());
        Self { octets, messages: 0 }
    }

    /// Adds what stands before a message; `length` octets must follow in `octets`.
    pub(crate) fn header(&mut self, flags: &str, date: &str, length: usize) {
        self.octets
            .extend_from_slice(format!(" ({flags}) \"{date}\" {{{length}+}}\r\n").as_bytes());
        self.messages += 1;
    }

    /// Adds a message.
    pub(crate) fn message(&mut self, flags: &str, received: i64, octets: &[u8]) {
        self.header(flags, &date::internal(received), octets.len());
        self.octets.extend_from_slice(octets);
    }

    /// Ends the command: from here on the server may commit it.
    pub(crate) fn end(&mut self) {
        self.octets.extend_from_slice(b"\r\n");
    }
}

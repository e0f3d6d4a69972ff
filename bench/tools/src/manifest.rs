//! What a mailbox must hold: a file with one line a message.

use crate::digest::{self, Digest};
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

/// What is known of one message beside its octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// System flags, lower case, sorted, without `\recent`.
    pub(crate) flags: Vec<String>,
    /// Keywords, lower case, sorted.
    pub(crate) keywords: Vec<String>,
    /// Seconds since 1970.
    pub(crate) received: i64,
}

impl Facts {
    /// From names as a server tells them.
    pub(crate) fn of<'a>(names: impl Iterator<Item = &'a str>, received: i64) -> Self {
        let (mut flags, mut keywords) = (Vec::new(), Vec::new());
        for name in names.map(str::to_ascii_lowercase).filter(|name| name != "\\recent") {
            if name.starts_with('\\') {
                flags.push(name);
            } else {
                keywords.push(name);
            }
        }
        flags.sort();
        keywords.sort();
        Self {
            flags,
            keywords,
            received,
        }
    }
}

/// One message.
pub(crate) struct Line {
    pub(crate) folder: String,
    pub(crate) digest: Digest,
    pub(crate) length: u64,
    pub(crate) message_id: String,
    pub(crate) facts: Facts,
}

/// Writes lines to a file.
pub(crate) struct Writer(BufWriter<std::fs::File>);

impl Writer {
    pub(crate) fn create(file: &Path) -> io::Result<Self> {
        Ok(Self(BufWriter::new(std::fs::File::create(file)?)))
    }

    pub(crate) fn write(&mut self, line: &Line) -> io::Result<()> {
        let names: Vec<&str> = line
            .facts
            .flags
            .iter()
            .chain(&line.facts.keywords)
            .map(String::as_str)
            .collect();
        writeln!(
            self.0,
            "{}\t{}\t{}\t{}\t{}\t{}",
            line.folder,
            digest::hexadecimal(&line.digest),
            line.length,
            line.message_id,
            line.facts.received,
            names.join(" ")
        )
    }

    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// By folder, every message.
pub(crate) fn read(file: &Path) -> io::Result<HashMap<String, Vec<Line>>> {
    let mut folders: HashMap<String, Vec<Line>> = HashMap::new();
    for text in BufReader::new(std::fs::File::open(file)?).lines() {
        let text = text?;
        let line = parse(&text).ok_or_else(|| io::Error::other(format!("not a manifest's line: {text}")))?;
        folders.entry(line.folder.clone()).or_default().push(line);
    }
    Ok(folders)
}

fn parse(text: &str) -> Option<Line> {
    let mut fields = text.split('\t');
    let folder = fields.next()?.to_owned();
    let digest = *blake3::Hash::from_hex(fields.next()?).ok()?.as_bytes();
    let length = fields.next()?.parse().ok()?;
    let message_id = fields.next()?.to_owned();
    let received = fields.next()?.parse().ok()?;
    let facts = Facts::of(fields.next()?.split_ascii_whitespace(), received);
    Some(Line {
        folder,
        digest,
        length,
        message_id,
        facts,
    })
}

/// The value of the first Message-ID in the header.
pub(crate) fn message_id(message: &[u8]) -> String {
    for line in message.split(|&octet| octet == b'\n') {
        let line = line.trim_ascii_end();
        if line.is_empty() {
            break;
        }
        if line.len() > 11 && line[..11].eq_ignore_ascii_case(b"message-id:") {
            return String::from_utf8_lossy(line[11..].trim_ascii()).replace('\t', " ");
        }
    }
    String::new()
}

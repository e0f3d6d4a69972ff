//! Compares a mailbox with a manifest: every message there once, octets, flags, keywords and dates equal.

use crate::arguments::Arguments;
use crate::digest::{self, Digest};
use crate::fill;
use crate::imap::Connection;
use crate::manifest::{self, Facts, Line};
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::Instant;

/// How many messages differ, and in what.
#[derive(Default)]
struct Tally {
    messages: u64,
    octets: u64,
    /// In the manifest and not in the mailbox.
    missing: u64,
    /// In the mailbox and not in the manifest.
    extra: u64,
    /// There by Message-ID, with other octets.
    altered: u64,
    flags: u64,
    keywords: u64,
    dates: u64,
}

/// What a folder must hold and what of it has not been seen.
struct Expected {
    lines: Vec<Option<Line>>,
    by_digest: HashMap<Digest, Vec<usize>>,
    /// Messages whose digest is not known: paired by Message-ID at the end.
    others: Vec<(String, Facts)>,
}

impl Expected {
    fn new(lines: Vec<Line>) -> Self {
        let mut by_digest: HashMap<Digest, Vec<usize>> = HashMap::new();
        for (index, line) in lines.iter().enumerate() {
            by_digest.entry(line.digest).or_default().push(index);
        }
        Self {
            lines: lines.into_iter().map(Some).collect(),
            by_digest,
            others: Vec::new(),
        }
    }

    fn seen(&mut self, message: &[u8], facts: Facts, tally: &mut Tally) {
        let (digest, length) = digest::canonical(message);
        tally.messages += 1;
        tally.octets += length;
        let Some(indexes) = self.by_digest.get_mut(&digest).filter(|indexes| !indexes.is_empty()) else {
            self.others.push((manifest::message_id(message), facts));
            return;
        };
        // Among true duplicates the one with the same facts.
        let at = indexes
            .iter()
            .position(|&index| self.lines[index].as_ref().is_some_and(|line| line.facts == facts));
        let index = indexes.swap_remove(at.unwrap_or(0));
        if let Some(line) = self.lines[index].take() {
            compare(&line.facts, &facts, tally);
        }
    }

    fn finish(mut self, tally: &mut Tally) {
        for (message_id, facts) in std::mem::take(&mut self.others) {
            let found = self
                .lines
                .iter_mut()
                .find(|line| line.as_ref().is_some_and(|line| line.message_id == message_id));
            match found.and_then(Option::take) {
                Some(line) => {
                    tally.altered += 1;
                    compare(&line.facts, &facts, tally);
                }
                None => tally.extra += 1,
            }
        }
        tally.missing += self.lines.iter().flatten().count() as u64;
    }
}

fn compare(wanted: &Facts, found: &Facts, tally: &mut Tally) {
    tally.flags += u64::from(wanted.flags != found.flags);
    tally.keywords += u64::from(wanted.keywords != found.keywords);
    tally.dates += u64::from(wanted.received != found.received);
}

/// Reads the mailbox at `--imap` or `--maildir` and compares it with `--manifest`; with `--record` it writes one of what is
/// there instead. `--drop-header NAME` leaves a field out that the tool under test adds.
pub(crate) fn run(arguments: &Arguments) -> io::Result<String> {
    if let Some(file) = arguments.text("record") {
        return fill::record(arguments, Path::new(file));
    }
    let begin = Instant::now();
    let mut expected = manifest::read(&arguments.path("manifest")?)?;
    let mut tally = Tally::default();
    let drop = arguments.text("drop-header").map(|name| format!("{name}:"));
    match arguments.text("maildir") {
        Some(root) => check_maildir(Path::new(root), &mut expected, &mut tally)?,
        None => check_imap(arguments, drop.as_deref(), &mut expected, &mut tally)?,
    }
    // What is left are folders that the mailbox does not have.
    for lines in expected.into_values() {
        tally.missing += lines.len() as u64;
    }
    let complete = tally.missing == 0 && tally.extra == 0;
    Ok(format!(
        "{{\"complete\":{complete},\"messages\":{},\"octets\":{},\"missing\":{},\"extra\":{},\"altered\":{},\"flags\":{},\
         \"keywords\":{},\"dates\":{},\"seconds\":{:.3}}}",
        tally.messages,
        tally.octets,
        tally.missing,
        tally.extra,
        tally.altered,
        tally.flags,
        tally.keywords,
        tally.dates,
        begin.elapsed().as_secs_f64()
    ))
}

fn check_imap(
    arguments: &Arguments,
    drop: Option<&str>,
    expected: &mut HashMap<String, Vec<Line>>,
    tally: &mut Tally,
) -> io::Result<()> {
    let mut connection = Connection::open(&arguments.account("imap", "")?)?;
    let mut message = Vec::new();
    for path in connection.folders()? {
        let lines = expected.remove(&path).unwrap_or_default();
        let exists = connection.open_folder("EXAMINE", &path)?;
        let mut folder = Expected::new(lines);
        if exists > 0 {
            let tag = connection.send_command("FETCH 1:* (FLAGS INTERNALDATE BODY.PEEK[])")?;
            while let Some((facts, length)) = fill::next_message(&mut connection, &tag)? {
                message.clear();
                connection.literal(length, &mut message)?;
                if let Some(name) = drop {
                    drop_field(&mut message, name);
                }
                folder.seen(&message, facts, tally);
            }
        }
        folder.finish(tally);
    }
    Ok(())
}

/// Takes the first header line that begins with the name out.
fn drop_field(message: &mut Vec<u8>, name: &str) {
    let mut at = 0;
    while at < message.len() && !message[at..].starts_with(b"\r\n") {
        let end = message[at..]
            .iter()
            .position(|&octet| octet == b'\n')
            .map_or(message.len(), |length| at + length + 1);
        if message[at..end].len() > name.len() && message[at..at + name.len()].eq_ignore_ascii_case(name.as_bytes()) {
            message.drain(at..end);
            return;
        }
        at = end;
    }
}

fn check_maildir(root: &Path, expected: &mut HashMap<String, Vec<Line>>, tally: &mut Tally) -> io::Result<()> {
    let paths: Vec<String> = expected.keys().cloned().collect();
    for path in paths {
        let place = fill::place(root, &path);
        let mut folder = Expected::new(expected.remove(&path).unwrap_or_default());
        let keywords = keywords_of(&place)?;
        for sub in ["cur", "new"] {
            let Ok(entries) = std::fs::read_dir(place.join(sub)) else {
                continue;
            };
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let letters = name.rsplit_once(":2,").map_or("", |(_, letters)| letters);
                let names = letters.chars().filter_map(|letter| match letter {
                    'T' => Some("\\Deleted"),
                    'a'..='z' => keywords.get(&letter).map(String::as_str),
                    _ => crate::mailset::FLAGS
                        .iter()
                        .find(|(_, known)| *known == letter)
                        .map(|(name, _)| *name),
                });
                let modified = entry.metadata()?.modified()?;
                let received = modified
                    .duration_since(std::time::UNIX_EPOCH)
                    .map_or(0, |since| since.as_secs() as i64);
                folder.seen(&std::fs::read(entry.path())?, Facts::of(names, received), tally);
            }
        }
        folder.finish(tally);
    }
    Ok(())
}

fn keywords_of(folder: &Path) -> io::Result<HashMap<char, String>> {
    let text = match std::fs::read_to_string(folder.join("dovecot-keywords")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    Ok(lines
        .filter_map(|(index, name)| Some(((b'a' + index.parse::<u8>().ok()?) as char, name.to_owned())))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(octets: &[u8], message_id: &str, names: &str) -> Line {
        let (digest, length) = digest::canonical(octets);
        Line {
            folder: "INBOX".to_owned(),
            digest,
            length,
            message_id: message_id.to_owned(),
            facts: Facts::of(names.split_ascii_whitespace(), 1),
        }
    }

    #[test]
    fn every_difference_is_counted() {
        let one = b"Message-ID: <1>\r\n\r\none\r\n";
        let other = b"Message-ID: <2>\r\n\r\ntwo\r\n";
        let mut folder = Expected::new(vec![
            line(one, "<1>", "\\Seen"),
            line(one, "<1>", ""),
            line(other, "<2>", "Word"),
            line(b"x", "", ""),
        ]);
        let mut tally = Tally::default();
        let seen = |names: &str, received| Facts::of(names.split_ascii_whitespace(), received);
        folder.seen(one, seen("", 1), &mut tally);
        folder.seen(one, seen("\\Seen \\Recent", 2), &mut tally);
        folder.seen(b"Message-ID: <2>\r\n\r\nTWO\r\n", seen("", 1), &mut tally);
        folder.seen(b"Message-ID: <3>\r\n\r\n", seen("", 1), &mut tally);
        folder.finish(&mut tally);
        assert_eq!(
            (tally.messages, tally.missing, tally.extra, tally.altered),
            (4, 1, 1, 1)
        );
        assert_eq!((tally.flags, tally.keywords, tally.dates), (0, 1, 1));
    }

    #[test]
    fn a_field_is_left_out() {
        let mut message = b"From: a\r\nX-TUID: abc\r\n\r\nX-TUID: body\r\n".to_vec();
        drop_field(&mut message, "X-TUID:");
        assert_eq!(message, b"From: a\r\n\r\nX-TUID: body\r\n");
        drop_field(&mut message, "X-TUID:");
        assert_eq!(message, b"From: a\r\n\r\nX-TUID: body\r\n");
    }
}

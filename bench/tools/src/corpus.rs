//! Real messages to vary.

use crate::digest::canonical_form;
use std::io;
use std::path::Path;

/// A real message in parts.
pub(crate) struct Real {
    /// Header fields to keep as they are, with line ends.
    pub(crate) fields: Vec<u8>,
    /// MIME fields: they move into a part when an attachment is added.
    pub(crate) mime: Vec<u8>,
    /// The value of Subject, unfolded.
    pub(crate) subject: Vec<u8>,
    /// Everything after the empty line.
    pub(crate) body: Vec<u8>,
}

/// Fields that are made anew, or that tools and servers treat as theirs.
const DROPPED: [&str; 9] = [
    "message-id",
    "date",
    "content-length",
    "lines",
    "status",
    "x-status",
    "x-keywords",
    "x-uid",
    "x-tuid",
];
const MIME: [&str; 4] = [
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "content-disposition",
];

/// Reads every file below the folder, in the order of their names.
pub(crate) fn load(folder: &Path) -> io::Result<Vec<Real>> {
    let mut files = Vec::new();
    gather(folder, &mut files)?;
    files.sort();
    let mut messages = Vec::with_capacity(files.len());
    for file in &files {
        messages.push(parse(&std::fs::read(file)?));
    }
    if messages.is_empty() {
        return Err(io::Error::other(format!("{}: no messages", folder.display())));
    }
    Ok(messages)
}

fn gather(folder: &Path, files: &mut Vec<std::path::PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            gather(&entry.path(), files)?;
        } else if entry
            .path()
            .extension()
            .is_some_and(|extension| extension == "txt" || extension == "eml")
        {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// Takes a message apart. NUL and lone CR are left out, and header lines that are no fields: here all tools and servers
/// must be able to carry everything, what they cannot carry is the tests' matter.
fn parse(octets: &[u8]) -> Real {
    let octets = match octets.strip_prefix(b"From ") {
        Some(rest) => rest
            .iter()
            .position(|&octet| octet == b'\n')
            .map_or(&b""[..], |end| &rest[end + 1..]),
        None => octets,
    };
    let form = canonical_form(octets);
    let mut clean = Vec::with_capacity(form.len() + 2);
    for (index, &octet) in form.iter().enumerate() {
        let lone = octet == b'\r' && form.get(index + 1) != Some(&b'\n');
        if octet != 0 && !lone {
            clean.push(octet);
        }
    }
    if !clean.ends_with(b"\r\n") {
        clean.extend_from_slice(b"\r\n");
    }
    let mut real = Real {
        fields: Vec::new(),
        mime: Vec::new(),
        subject: Vec::new(),
        body: Vec::new(),
    };
    let mut rest = &clean[..];
    while !rest.is_empty() {
        if let Some(body) = rest.strip_prefix(b"\r\n") {
            real.body = body.to_vec();
            break;
        }
        let end = field_end(rest);
        let (field, after) = rest.split_at(end);
        keep(&mut real, field);
        rest = after;
    }
    if real.body.is_empty() {
        real.body = b"(no text)\r\n".to_vec();
    }
    real
}

/// Where the field that begins here ends, with its continuation lines.
fn field_end(octets: &[u8]) -> usize {
    let mut end = 0;
    loop {
        let line = octets[end..].iter().position(|&octet| octet == b'\n');
        end = line.map_or(octets.len(), |line| end + line + 1);
        if !matches!(octets.get(end), Some(b' ' | b'\t')) {
            return end;
        }
    }
}

fn keep(real: &mut Real, field: &[u8]) {
    let Some(colon) = field.iter().position(|&octet| octet == b':') else {
        return;
    };
    let name = &field[..colon];
    if name.is_empty() || !name.iter().all(|octet| octet.is_ascii_graphic()) {
        return;
    }
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    if DROPPED.contains(&name.as_str()) {
        return;
    }
    if name == "subject" {
        let value: Vec<u8> = field[colon + 1..]
            .iter()
            .filter(|&&octet| octet != b'\r' && octet != b'\n')
            .copied()
            .collect();
        real.subject = value.trim_ascii().to_vec();
    } else if MIME.contains(&name.as_str()) {
        real.mime.extend_from_slice(field);
    } else {
        real.fields.extend_from_slice(field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_in_parts() {
        let real = parse(b"From x@y Mon\nFrom: a@contoso.example\nbad line\n more\nSubject: one\n two\nContent-Type: text/plain\nDate: x\n\nbo\0dy\nend");
        assert_eq!(real.fields, b"From: a@contoso.example\r\n");
        assert_eq!(real.subject, b"one two");
        assert_eq!(real.mime, b"Content-Type: text/plain\r\n");
        assert_eq!(real.body, b"body\r\nend\r\n");
    }
}

//! Makes a source, and changes it later.

use crate::arguments::Arguments;
use crate::digest;
use crate::imap::{Connection, Fetched, MultiAppend};
use crate::mailset::{FLAGS, Item, KEYWORDS, Mailset};
use crate::manifest::{self, Facts, Line};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

const AT_ONCE: usize = 50;

/// Makes the set in a Maildir tree or over IMAP, and its manifest.
pub(crate) fn run(arguments: &Arguments) -> io::Result<String> {
    let set = Mailset::from(arguments)?;
    let mut manifest = manifest::Writer::create(&arguments.path("manifest")?)?;
    let mut octets = 0;
    let mut largest = 0;
    let mut note = |item: &Item, message: &[u8]| {
        let (digest, length) = digest::canonical(message);
        octets += length;
        largest = largest.max(length);
        manifest.write(&Line {
            folder: set.folders[item.folder].clone(),
            digest,
            length,
            message_id: manifest::message_id(message),
            facts: Facts::of(Mailset::names(item).into_iter(), item.received),
        })
    };
    match arguments.text("maildir") {
        Some(root) => fill_maildir(&set, Path::new(root), &mut note)?,
        None => fill_imap(&set, arguments, &mut note)?,
    }
    manifest.finish()?;
    let messages = set.items.len();
    Ok(format!(
        "{{\"messages\":{messages},\"octets\":{octets},\"mean\":{},\"largest\":{largest},\"folders\":{}}}",
        octets / (messages.max(1) as u64),
        set.folders.len()
    ))
}

type Note<'a> = &'a mut dyn FnMut(&Item, &[u8]) -> io::Result<()>;

/// A folder's place in a Maildir++ tree.
pub(crate) fn place(root: &Path, path: &str) -> PathBuf {
    if path == "INBOX" {
        root.to_owned()
    } else {
        root.join(format!(".{}", path.replace('/', ".")))
    }
}

fn fill_maildir(set: &Mailset, root: &Path, note: Note<'_>) -> io::Result<()> {
    let keywords: String = KEYWORDS
        .iter()
        .enumerate()
        .map(|(index, name)| format!("{index} {name}\n"))
        .collect();
    for path in &set.folders {
        let folder = place(root, path);
        for sub in ["tmp", "new", "cur"] {
            fs::create_dir_all(folder.join(sub))?;
        }
        fs::write(folder.join("dovecot-keywords"), &keywords)?;
        if path != "INBOX" {
            fs::write(folder.join("maildirfolder"), "")?;
        }
    }
    let subscriptions: String = set
        .folders
        .iter()
        .map(|path| format!("{}\n", path.replace('/', ".")))
        .collect();
    fs::write(root.join("subscriptions"), subscriptions)?;
    for (index, item) in set.items.iter().enumerate() {
        let message = set.message(item);
        note(item, &message)?;
        let on_disk: Vec<u8> = message.iter().filter(|&&octet| octet != b'\r').copied().collect();
        let letters: String = FLAGS
            .iter()
            .enumerate()
            .filter(|(bit, _)| item.flags >> bit & 1 == 1)
            .map(|(_, (_, letter))| *letter)
            .chain(
                (0..8)
                    .filter(|bit| item.keywords >> bit & 1 == 1)
                    .map(|bit| (b'a' + bit) as char),
            )
            .collect();
        let name = format!(
            "{}.M{index:07}P1.bench,S={},W={}:2,{letters}",
            item.received,
            on_disk.len(),
            message.len()
        );
        let path = place(root, &set.folders[item.folder]).join("cur").join(name);
        fs::write(&path, &on_disk)?;
        fs::File::options()
            .write(true)
            .open(&path)?
            .set_modified(UNIX_EPOCH + Duration::from_secs(item.received.unsigned_abs()))?;
    }
    Ok(())
}

fn fill_imap(set: &Mailset, arguments: &Arguments, note: Note<'_>) -> io::Result<()> {
    let mut connection = Connection::open(&arguments.account("imap", "")?)?;
    for path in &set.folders {
        connection.create(path)?;
    }
    let mut memory = Vec::new();
    let mut tags = Vec::new();
    for of_folder in set.items.chunk_by(|one, other| one.folder == other.folder) {
        for batch in of_folder.chunks(AT_ONCE) {
            let tag = connection.next_tag();
            let folder = connection.folder(&set.folders[batch[0].folder]);
            let mut command = MultiAppend::begin(memory, &tag, &folder);
            for item in batch {
                let message = set.message(item);
                note(item, &message)?;
                command.message(&Mailset::names(item).join(" "), item.received, &message);
            }
            command.end();
            connection.send(&command.octets)?;
            tags.push(tag);
            memory = command.octets;
        }
    }
    for tag in tags {
        connection.answer(&tag)?;
    }
    Ok(())
}

/// Changes a mailbox over IMAP, spread over its folders: `--flags N` messages get `\Flagged` and a keyword
/// (lose both with `--unset 1`), the last `--deletions N`
/// go away, `--additions N` small ones come (of the set that is described as for `fill`).
pub(crate) fn change(arguments: &Arguments) -> io::Result<String> {
    let mut connection = Connection::open(&arguments.account("imap", "")?)?;
    let flags: usize = arguments.number("flags", 0)?;
    let deletions: usize = arguments.number("deletions", 0)?;
    let additions: usize = arguments.number("additions", 0)?;
    let sign = if arguments.number("unset", 0)? == 0 { '+' } else { '-' };
    let folders = connection.folders()?;
    let mut counts = Vec::new();
    for path in &folders {
        counts.push(connection.open_folder("EXAMINE", path)?);
    }
    // The largest folders take the changes, so that no folder loses a tenth of what it holds.
    let mut order: Vec<usize> = (0..folders.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(counts[index]));
    order.truncate(4);
    let mut done = (0, 0, 0);
    for (turn, &index) in order.iter().enumerate() {
        let share = |total: usize| total / order.len() + usize::from(turn < total % order.len());
        let exists = connection.open_folder("SELECT", &folders[index])?;
        let flagged = share(flags).min(exists / 2);
        if flagged > 0 {
            connection.command(&format!("STORE 1:{flagged} {sign}FLAGS.SILENT (\\Flagged changed)"))?;
        }
        let removed = share(deletions).min(exists / 2);
        if removed > 0 {
            connection.command(&format!(
                "STORE {}:{exists} +FLAGS.SILENT (\\Deleted)",
                exists - removed + 1
            ))?;
            connection.command("EXPUNGE")?;
        }
        let tag = connection.next_tag();
        let folder = connection.folder(&folders[index]);
        let mut command = MultiAppend::begin(Vec::new(), &tag, &folder);
        let added = share(additions);
        if added > 0 {
            let set = Mailset::from(arguments)?;
            for item in set.items.iter().skip(turn * added).take(added) {
                command.message(&Mailset::names(item).join(" "), item.received, &set.message(item));
            }
            command.end();
            connection.send(&command.octets)?;
            connection.answer(&tag)?;
        }
        done = (done.0 + flagged, done.1 + removed, done.2 + command.messages);
    }
    Ok(format!(
        "{{\"flags\":{},\"deletions\":{},\"additions\":{}}}",
        done.0, done.1, done.2
    ))
}

/// Writes the manifest of a mailbox as it is now.
pub(crate) fn record(arguments: &Arguments, manifest: &Path) -> io::Result<String> {
    let mut connection = Connection::open(&arguments.account("imap", "")?)?;
    let mut writer = manifest::Writer::create(manifest)?;
    let (mut messages, mut octets) = (0, 0);
    for path in connection.folders()? {
        if connection.open_folder("EXAMINE", &path)? == 0 {
            continue;
        }
        let tag = connection.send_command("FETCH 1:* (FLAGS INTERNALDATE BODY.PEEK[])")?;
        let mut message = Vec::new();
        while let Some((facts, length)) = next_message(&mut connection, &tag)? {
            message.clear();
            connection.literal(length, &mut message)?;
            let (digest, length) = digest::canonical(&message);
            messages += 1;
            octets += length;
            writer.write(&Line {
                folder: path.clone(),
                digest,
                length,
                message_id: manifest::message_id(&message),
                facts,
            })?;
        }
    }
    writer.finish()?;
    Ok(format!("{{\"messages\":{messages},\"octets\":{octets}}}"))
}

/// What is known of the next message of a FETCH, and its length; None when there is no other.
pub(crate) fn next_message(connection: &mut Connection, tag: &str) -> io::Result<Option<(Facts, usize)>> {
    loop {
        match connection.fetched(tag)? {
            Fetched::Message { flags, date, length } => {
                let received = crate::date::parse_internal(&date)
                    .ok_or_else(|| io::Error::other(format!("not a date: {date}")))?;
                return Ok(Some((Facts::of(flags.split_ascii_whitespace(), received), length)));
            }
            Fetched::Facts => {}
            Fetched::Done => return Ok(None),
        }
    }
}

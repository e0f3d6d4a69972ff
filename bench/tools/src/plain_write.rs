//! How fast a disk takes a Maildir: the same files written with the same durability as Rehome promises, and nothing
//! else. Each file: written in `tmp`, dated, synced, renamed into `cur`; each batch: the folder synced once.

use crate::arguments::Arguments;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Instant, SystemTime};

struct Message {
    name: std::ffi::OsString,
    modified: SystemTime,
    octets: Vec<u8>,
}

struct Folder {
    place: PathBuf,
    messages: Vec<Message>,
    /// Names of the letters in the messages' file names.
    keywords: Option<Vec<u8>>,
}

/// Writes the Maildir at `--from` to `--to` on `--writers` threads, folders divided among them; files are read before
/// the time counts. `--sync none` leaves the syncs out.
pub(crate) fn run(arguments: &Arguments) -> io::Result<String> {
    let (from, to) = (arguments.path("from")?, arguments.path("to")?);
    let writers: usize = arguments.number("writers", 1)?;
    let batch: usize = arguments.number("batch", 100)?;
    let durable = arguments.text("sync") != Some("none");
    let mut folders = Vec::new();
    for entry in fs::read_dir(&from)? {
        let name = entry?.file_name();
        if name.as_encoded_bytes().starts_with(b".") && from.join(&name).join("cur").is_dir() {
            folders.push(load(&from.join(&name), to.join(&name))?);
        }
    }
    folders.push(load(&from, to)?);
    folders.sort_by_key(|folder| std::cmp::Reverse(folder.messages.len()));
    let messages: usize = folders.iter().map(|folder| folder.messages.len()).sum();
    let octets: usize = folders
        .iter()
        .flat_map(|folder| &folder.messages)
        .map(|message| message.octets.len())
        .sum();
    let begin = Instant::now();
    let next = std::sync::atomic::AtomicUsize::new(0);
    thread::scope(|scope| {
        let running: Vec<_> = (0..writers)
            .map(|_| {
                scope.spawn(|| {
                    while let Some(folder) = folders.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                        write(folder, batch, durable)?;
                    }
                    io::Result::Ok(())
                })
            })
            .collect();
        running
            .into_iter()
            .try_for_each(|one| one.join().map_err(|_| io::Error::other("a writer failed"))?)
    })?;
    Ok(format!(
        "{{\"messages\":{messages},\"octets\":{octets},\"seconds\":{:.4}}}",
        begin.elapsed().as_secs_f64()
    ))
}

fn load(from: &Path, place: PathBuf) -> io::Result<Folder> {
    let mut messages = Vec::new();
    for entry in fs::read_dir(from.join("cur"))? {
        let entry = entry?;
        messages.push(Message {
            name: entry.file_name(),
            modified: entry.metadata()?.modified()?,
            octets: fs::read(entry.path())?,
        });
    }
    messages.sort_by(|one, other| one.name.cmp(&other.name));
    let keywords = fs::read(from.join("dovecot-keywords")).ok();
    Ok(Folder {
        place,
        messages,
        keywords,
    })
}

fn write(folder: &Folder, batch: usize, durable: bool) -> io::Result<()> {
    if let Some(keywords) = &folder.keywords {
        fs::create_dir_all(&folder.place)?;
        fs::write(folder.place.join("dovecot-keywords"), keywords)?;
    }
    let (temporary, current) = (folder.place.join("tmp"), folder.place.join("cur"));
    for place in [&temporary, &current, &folder.place.join("new")] {
        fs::create_dir_all(place)?;
    }
    let handle = File::open(&current)?;
    for messages in folder.messages.chunks(batch) {
        for message in messages {
            let mut file = File::create_new(temporary.join(&message.name))?;
            file.write_all(&message.octets)?;
            file.set_modified(message.modified)?;
            if durable {
                file.sync_all()?;
            }
        }
        for message in messages {
            fs::rename(temporary.join(&message.name), current.join(&message.name))?;
        }
        if durable {
            handle.sync_all()?;
        }
    }
    Ok(())
}

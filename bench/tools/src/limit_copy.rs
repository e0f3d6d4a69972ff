//! How fast two servers can copy: pipelined FETCHes read into MULTIAPPENDs that are sent without waiting for answers.
//! No digests, no ledger, no intents, nothing read back: what is lost when it breaks, nobody knows.

use crate::arguments::Arguments;
use crate::imap::{Account, Connection, Fetched, MultiAppend};
use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Instant;

/// A command ends at so many octets, however few messages it has.
const COMMAND_OCTETS: usize = 8 * 1024 * 1024;
/// Commands read and not yet sent, per connection.
const AHEAD: usize = 4;

/// Copies every folder of `--from` into `--to`, folders divided among `--connections`.
pub(crate) fn run(arguments: &Arguments) -> io::Result<String> {
    let source = arguments.account("from", "from-")?;
    let target = arguments.account("to", "to-")?;
    let connections: usize = arguments.number("connections", 1)?;
    let at_once: usize = arguments.number("batch", 50)?;
    let begin = Instant::now();
    let shares = divide(&source, connections)?;
    let results = thread::scope(|scope| {
        let running: Vec<_> = shares
            .iter()
            .map(|paths| scope.spawn(|| copy(&source, &target, paths, at_once)))
            .collect();
        running
            .into_iter()
            .map(|one| {
                one.join()
                    .map_err(|_| io::Error::other("a connection's thread failed"))?
            })
            .collect::<io::Result<Vec<_>>>()
    })?;
    let (messages, octets) = results
        .iter()
        .fold((0, 0), |(messages, octets), one| (messages + one.0, octets + one.1));
    Ok(format!(
        "{{\"messages\":{messages},\"octets\":{octets},\"seconds\":{:.4}}}",
        begin.elapsed().as_secs_f64()
    ))
}

/// Folders for each connection: the largest first, each to the one with the least so far.
fn divide(source: &Account, connections: usize) -> io::Result<Vec<Vec<String>>> {
    let mut connection = Connection::open(source)?;
    let paths = connection.folders()?;
    let mut tags = Vec::new();
    for path in &paths {
        let folder = connection.folder(path);
        tags.push(connection.send_command(&format!("STATUS {folder} (MESSAGES)"))?);
    }
    let mut sized = Vec::new();
    for (path, tag) in paths.into_iter().zip(tags) {
        let lines = connection.answer(&tag)?;
        let count = lines.iter().find_map(|line| {
            line.rsplit_once("(MESSAGES ")?
                .1
                .strip_suffix(')')?
                .trim()
                .parse::<usize>()
                .ok()
        });
        sized.push((count.unwrap_or(0), path));
    }
    sized.sort_by(|one, other| other.cmp(one));
    let mut shares = vec![(0, Vec::new()); connections.max(1)];
    for (count, path) in sized {
        if let Some(least) = shares.iter_mut().min_by_key(|share| share.0) {
            least.0 += count;
            least.1.push(path);
        }
    }
    Ok(shares
        .into_iter()
        .map(|share| share.1)
        .filter(|paths| !paths.is_empty())
        .collect())
}

/// Copies folders on one connection to each side; returns messages and octets.
fn copy(source: &Account, target: &Account, paths: &[String], at_once: usize) -> io::Result<(usize, usize)> {
    let mut reading = Connection::open(source)?;
    let mut writing = Connection::open(target)?;
    let folders: Vec<String> = paths.iter().map(|path| writing.folder(path)).collect();
    let mut tags = Vec::new();
    for folder in folders.iter().filter(|folder| *folder != "\"INBOX\"") {
        tags.push(writing.send_command(&format!("CREATE {folder}"))?);
        tags.push(writing.send_command(&format!("SUBSCRIBE {folder}"))?);
    }
    for tag in tags {
        // A folder that is there already is as good.
        let _exists = writing.answer(&tag);
    }
    let output = writing.writer()?;
    let (full, filled) = sync_channel(AHEAD);
    let (empty, emptied) = channel();
    thread::scope(|scope| {
        let sending = scope.spawn(move || send(output, &filled, &empty));
        let mut batches = Batches {
            at_once,
            full,
            emptied,
            tags: Vec::new(),
            counts: (0, 0),
        };
        for (path, folder) in paths.iter().zip(&folders) {
            batches.folder(&mut reading, &mut writing, path, folder)?;
        }
        let Batches { tags, counts, full, .. } = batches;
        drop(full);
        for tag in tags {
            writing.answer(&tag)?;
        }
        sending
            .join()
            .map_err(|_| io::Error::other("the sending thread failed"))??;
        Ok(counts)
    })
}

fn send(mut output: TcpStream, filled: &Receiver<Vec<u8>>, empty: &Sender<Vec<u8>>) -> io::Result<()> {
    for octets in filled {
        output.write_all(&octets)?;
        // The reader may be done and gone.
        let _ = empty.send(octets);
    }
    Ok(())
}

/// What one connection has under way.
struct Batches {
    at_once: usize,
    full: SyncSender<Vec<u8>>,
    emptied: Receiver<Vec<u8>>,
    tags: Vec<String>,
    counts: (usize, usize),
}

impl Batches {
    fn folder(
        &mut self,
        reading: &mut Connection,
        writing: &mut Connection,
        path: &str,
        folder: &str,
    ) -> io::Result<()> {
        let exists = reading.open_folder("EXAMINE", path)?;
        // All batches are asked for at once; the server stops of itself when nobody reads.
        let mut fetches = Vec::new();
        for first in (1..=exists).step_by(self.at_once) {
            let last = (first + self.at_once - 1).min(exists);
            fetches.push(reading.send_command(&format!("FETCH {first}:{last} (FLAGS INTERNALDATE BODY.PEEK[])"))?);
        }
        for fetch in fetches {
            let mut command = self.begin(writing, folder);
            while let Fetched::Message { flags, date, length } = reading.fetched(&fetch)? {
                if command.octets.len() > COMMAND_OCTETS {
                    self.send(command)?;
                    command = self.begin(writing, folder);
                }
                let flags: Vec<&str> = flags
                    .split_ascii_whitespace()
                    .filter(|flag| *flag != "\\Recent")
                    .collect();
                command.header(&flags.join(" "), &date, length);
                reading.literal(length, &mut command.octets)?;
                self.counts.1 += length;
            }
            self.send(command)?;
        }
        Ok(())
    }

    fn begin(&mut self, writing: &mut Connection, folder: &str) -> MultiAppend {
        let tag = writing.next_tag();
        let command = MultiAppend::begin(self.emptied.try_recv().unwrap_or_default(), &tag, folder);
        self.tags.push(tag);
        command
    }

    fn send(&mut self, mut command: MultiAppend) -> io::Result<()> {
        if command.messages == 0 {
            self.tags.pop();
            return Ok(());
        }
        self.counts.0 += command.messages;
        command.end();
        self.full
            .send(command.octets)
            .map_err(|_| io::Error::other("the target's connection broke"))
    }
}

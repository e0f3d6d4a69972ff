//! How fast a server takes mail: MULTIAPPENDs made beforehand, sent without ever waiting for an answer.

use crate::arguments::Arguments;
use crate::imap::{Connection, MultiAppend};
use crate::mailset::Mailset;
use std::io::{self, Write};
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

/// What one connection will send.
struct Stream {
    connection: Connection,
    commands: Vec<(String, Vec<u8>)>,
}

/// Writes the set into as many folders as there are connections.
pub(crate) fn run(arguments: &Arguments) -> io::Result<String> {
    let connections: usize = arguments.number("connections", 1)?;
    let at_once: usize = arguments.number("batch", 50)?;
    let account = arguments.account("imap", "")?;
    let set = Mailset::from(arguments)?;
    let share = set.items.len().div_ceil(connections);
    let mut streams = Vec::new();
    for (index, items) in set.items.chunks(share).enumerate() {
        let mut connection = Connection::open(&account)?;
        let path = format!("limit-{index}");
        connection.create(&path)?;
        connection.open_folder("SELECT", &path)?;
        let folder = connection.folder(&path);
        let mut commands = Vec::new();
        for batch in items.chunks(at_once) {
            let tag = connection.next_tag();
            let mut command = MultiAppend::begin(Vec::new(), &tag, &folder);
            for item in batch {
                command.message(&Mailset::names(item).join(" "), item.received, &set.message(item));
            }
            command.end();
            commands.push((tag, command.octets));
        }
        streams.push(Stream { connection, commands });
    }
    let octets: usize = streams
        .iter()
        .flat_map(|stream| &stream.commands)
        .map(|(_, octets)| octets.len())
        .sum();
    // Starting from one barrier, so that making the mail is not measured.
    let barrier = Barrier::new(streams.len() + 1);
    let seconds = thread::scope(|scope| {
        let running: Vec<_> = streams
            .into_iter()
            .map(|stream| scope.spawn(|| send(stream, &barrier)))
            .collect();
        barrier.wait();
        let begin = Instant::now();
        for one in running {
            one.join()
                .map_err(|_| io::Error::other("a connection's thread failed"))??;
        }
        io::Result::Ok(begin.elapsed().as_secs_f64())
    })?;
    Ok(format!(
        "{{\"messages\":{},\"octets\":{octets},\"seconds\":{seconds:.4}}}",
        set.items.len()
    ))
}

fn send(mut stream: Stream, barrier: &Barrier) -> io::Result<()> {
    let mut writer = stream.connection.writer()?;
    let (tags, commands): (Vec<String>, Vec<Vec<u8>>) = stream.commands.into_iter().unzip();
    barrier.wait();
    thread::scope(|scope| {
        let sending = scope.spawn(move || commands.iter().try_for_each(|octets| writer.write_all(octets)));
        for tag in tags {
            stream.connection.answer(&tag)?;
        }
        sending
            .join()
            .map_err(|_| io::Error::other("the sending thread failed"))?
    })
}

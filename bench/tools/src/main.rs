//! What the benchmark needs beside real tools: mail sets, references that show where the limits lie, a line with
//! latency, and a checker. It shares no code with Rehome.
//!
//! Every subcommand takes `--name value` pairs and prints one line of JSON on standard output.

mod arguments;
mod check;
mod corpus;
mod date;
mod delay;
mod digest;
mod fill;
mod imap;
mod limit_copy;
mod limit_write;
mod mailset;
mod manifest;
mod plain_write;
mod random;

use arguments::Arguments;
use std::io;
use std::process::ExitCode;

const HELP: &str = "\
rehome-bench SUBCOMMAND --name value ...

fill         makes a mail set in a Maildir tree (--maildir DIR) or over IMAP (--imap HOST:PORT), and its manifest
limit-write  a stream of MULTIAPPENDs made beforehand, written on --connections, one folder each
limit-copy   a bare pipelined copier from IMAP to IMAP on --connections, folders divided among them
plain-write  writes the files of a Maildir again, with each file and each batch's folder synced
delay        a TCP line with --one-way-ms of latency in each direction and a large window
check        compares a mailbox (--imap or --maildir) with a manifest
change       sets flags, deletes and adds messages over IMAP

Mail sets: --set S|M|L|SIZES --size N --folders N --seed N --corpus DIR (SIZES: --octets N,N,...)
Accounts:  --imap HOST:PORT --user NAME --password-file FILE (limit-copy: --from, --from-user, --to, --to-user)
";

fn run() -> io::Result<String> {
    let mut words = std::env::args().skip(1);
    let subcommand = words.next().unwrap_or_default();
    let arguments = Arguments::parse(words)?;
    match subcommand.as_str() {
        "fill" => fill::run(&arguments),
        "limit-write" => limit_write::run(&arguments),
        "limit-copy" => limit_copy::run(&arguments),
        "plain-write" => plain_write::run(&arguments),
        "delay" => delay::run(&arguments),
        "check" => check::run(&arguments),
        "change" => fill::change(&arguments),
        _ => Err(io::Error::other(HELP)),
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(result) => {
            println!("{result}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

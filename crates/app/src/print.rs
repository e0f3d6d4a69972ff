//! Writing to standard output and standard error.

use std::io::{self, Write};

/// Writes to standard output. A reader that has gone away has seen enough: the process ends with success.
pub(crate) fn out(text: &str) {
    let mut stream = io::stdout().lock();
    match stream.write_all(text.as_bytes()).and_then(|()| stream.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            say(&format!("rehome: standard output cannot be written: {error}\n"));
            std::process::exit(1);
        }
    }
}

/// Writes to standard error; where that is gone there is no one left to tell.
pub(crate) fn say(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

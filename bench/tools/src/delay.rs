//! A line with latency: octets pass unchanged, each a fixed time after it came, with a window larger than any product of
//! bandwidth and latency here. No loss, no slow start, no cap: it flatters streams that send much at once.

use crate::arguments::Arguments;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const PIECE: usize = 128 * 1024;

/// What went over the line.
#[derive(Default)]
struct Counters {
    connections: AtomicU64,
    to_server: AtomicU64,
    to_client: AtomicU64,
    /// How often, over all connections, the client spoke after the server had: round trips that somebody waited for.
    turns: AtomicU64,
}

/// What is under way in one direction.
struct Pipe {
    state: Mutex<Waiting>,
    changed: Condvar,
    window: usize,
}

#[derive(Default)]
struct Waiting {
    pieces: VecDeque<(Instant, Vec<u8>)>,
    octets: usize,
    ended: bool,
    broken: bool,
}

impl Pipe {
    fn new(window: usize) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            window,
        }
    }

    /// Adds a piece that is due at that instant, an empty one at the end; waits while the window is full.
    fn put(&self, due: Instant, piece: Vec<u8>) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self
            .changed
            .wait_while(state, |state| state.octets > self.window && !state.broken)
            .unwrap_or_else(PoisonError::into_inner);
        state.ended |= piece.is_empty();
        state.octets += piece.len();
        state.pieces.push_back((due, piece));
        self.changed.notify_all();
        !state.broken
    }

    fn take(&self) -> (Instant, Vec<u8>) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self
            .changed
            .wait_while(state, |state| state.pieces.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        let piece = state.pieces.pop_front().unwrap_or_else(|| (Instant::now(), Vec::new()));
        state.octets -= piece.1.len();
        self.changed.notify_all();
        piece
    }

    fn give_up(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.broken = true;
        self.changed.notify_all();
    }
}

/// Listens at `--listen` (port 0: any), passes on to `--to`, until the process is ended. The first line it prints names its
/// ports; whoever connects to the second gets the counters as a line of JSON.
pub(crate) fn run(arguments: &Arguments) -> io::Result<String> {
    let listener = TcpListener::bind(arguments.text("listen").unwrap_or("127.0.0.1:0"))?;
    let figures = TcpListener::bind("127.0.0.1:0")?;
    let to = arguments.needed("to")?.to_owned();
    let one_way = Duration::from_micros(arguments.number("one-way-us", 25_000)?);
    let window = arguments.number("window", 64 * 1024 * 1024)?;
    println!(
        "{{\"port\":{},\"figures_port\":{}}}",
        listener.local_addr()?.port(),
        figures.local_addr()?.port()
    );
    let counters = Arc::new(Counters::default());
    let shown = Arc::clone(&counters);
    thread::spawn(move || {
        for asking in figures.incoming().flatten() {
            // Whoever asks and goes away does not matter.
            let _ = tell(asking, &shown);
        }
    });
    for client in listener.incoming() {
        let (client, to, counters) = (client?, to.clone(), Arc::clone(&counters));
        thread::spawn(move || {
            if let Err(error) = serve(&client, &to, one_way, window, &counters) {
                eprintln!("{to}: {error}");
            }
        });
    }
    Ok(String::new())
}

fn tell(mut asking: TcpStream, counters: &Counters) -> io::Result<()> {
    let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    writeln!(
        asking,
        "{{\"connections\":{},\"to_server\":{},\"to_client\":{},\"turns\":{}}}",
        value(&counters.connections),
        value(&counters.to_server),
        value(&counters.to_client),
        value(&counters.turns)
    )
}

fn serve(client: &TcpStream, to: &str, one_way: Duration, window: usize, counters: &Arc<Counters>) -> io::Result<()> {
    let server = TcpStream::connect(to)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    counters.connections.fetch_add(1, Ordering::Relaxed);
    let (forth, back) = (Pipe::new(window), Pipe::new(window));
    // A handshake takes a round trip before the client may speak; the server's greeting is one way behind it.
    let opened = Instant::now();
    let server_spoke = AtomicU64::new(1);
    thread::scope(|scope| {
        scope.spawn(|| {
            receive(client, &forth, |octets| {
                counters.to_server.fetch_add(octets, Ordering::Relaxed);
                counters
                    .turns
                    .fetch_add(server_spoke.swap(0, Ordering::Relaxed), Ordering::Relaxed);
                Instant::now().max(opened + one_way * 2) + one_way
            });
        });
        scope.spawn(|| {
            receive(&server, &back, |octets| {
                counters.to_client.fetch_add(octets, Ordering::Relaxed);
                server_spoke.store(1, Ordering::Relaxed);
                Instant::now().max(opened + one_way) + one_way
            });
        });
        scope.spawn(|| deliver(&forth, &server));
        deliver(&back, client);
    });
    Ok(())
}

fn receive(mut from: &TcpStream, pipe: &Pipe, due: impl Fn(u64) -> Instant) {
    let mut buffer = vec![0; PIECE];
    loop {
        // A broken connection ends as a closed one does.
        let count = from.read(&mut buffer).unwrap_or(0);
        if count == 0 {
            pipe.put(due(0), Vec::new());
            return;
        }
        if !pipe.put(due(count as u64), buffer[..count].to_vec()) {
            // Nobody takes it any more; the other side is told by the end of this one.
            let _ = from.shutdown(Shutdown::Both);
            return;
        }
    }
}

fn deliver(pipe: &Pipe, mut to: &TcpStream) {
    loop {
        let (due, piece) = pipe.take();
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if piece.is_empty() {
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
        if to.write_all(&piece).is_err() {
            pipe.give_up();
            let _ = to.shutdown(Shutdown::Both);
            return;
        }
    }
}

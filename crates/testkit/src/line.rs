//! A TCP line between two servers that counts, can be cut in the middle, and can be mended.

use crate::meter::Meter;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// A line from a port of its own to a server.
pub struct Line {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    /// Where new connections go.
    to: Mutex<SocketAddr>,
    meter: Meter,
    /// Octets from the server to the client so far.
    octets: AtomicU64,
    /// The line is cut when this many octets have come from the server.
    cut_at: AtomicU64,
    /// How often it was cut.
    cuts: AtomicUsize,
    open: Mutex<Vec<TcpStream>>,
}

impl State {
    fn cut(&self) {
        for socket in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // A socket that is gone already is cut, too.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Line {
    /// A whole line to the server at `to`; `to` may change hands or be down for a while.
    ///
    /// # Panics
    /// When no port can be had.
    #[must_use]
    pub fn to(to: SocketAddr) -> Self {
        Self::measured(to, &Meter::default())
    }

    /// As [`to`](Self::to), counting into `meter`.
    ///
    /// # Panics
    /// When no port can be had.
    #[must_use]
    pub fn measured(to: SocketAddr, meter: &Meter) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        let state = Arc::new(State {
            to: Mutex::new(to),
            meter: meter.clone(),
            octets: AtomicU64::new(0),
            cut_at: AtomicU64::new(u64::MAX),
            cuts: AtomicUsize::new(0),
            open: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        // It lives as long as the test's process; tests are short.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                thread::spawn(move || carry(&client, &state));
            }
        });
        Self { address, state }
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port where clients connect, on loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Leads to another server from now on, and ends the connections to the former one.
    pub fn lead_to(&self, to: SocketAddr) {
        *self.state.to.lock().unwrap_or_else(PoisonError::into_inner) = to;
        self.state.cut();
    }

    /// Octets that came from the server so far.
    #[must_use]
    pub fn octets(&self) -> u64 {
        self.state.octets.load(Ordering::SeqCst)
    }

    /// Cuts every connection, once, when `octets` more have come from the server.
    pub fn cut_after(&self, octets: u64) {
        self.state
            .cut_at
            .store(self.octets().saturating_add(octets), Ordering::SeqCst);
    }

    /// How often it was cut.
    #[must_use]
    pub fn cuts(&self) -> usize {
        self.state.cuts.load(Ordering::SeqCst)
    }
}

fn carry(client: &TcpStream, state: &Arc<State>) {
    let to = *state.to.lock().unwrap_or_else(PoisonError::into_inner);
    state.meter.opens();
    let Ok(server) = TcpStream::connect(to) else { return };
    // What one end sends at once goes on at once; a socket without that option is slower and no worse.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let clone = |socket: &TcpStream| socket.try_clone().ok();
    let (Some(client_in), Some(server_in)) = (clone(client), clone(&server)) else {
        return;
    };
    state
        .open
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .extend([clone(client), clone(&server)].into_iter().flatten());
    // Noted before it is passed on: an answer must not be noted before its question.
    let (up, down) = (state.meter.clone(), state.meter.clone());
    let upstream = thread::spawn(move || copy(client_in, server_in, |octets| up.to_server(octets), |_| {}));
    let counting = Arc::clone(state);
    if let (Some(from), Some(into)) = (clone(&server), clone(client)) {
        let passed = |count| {
            let octets = counting.octets.fetch_add(count, Ordering::SeqCst) + count;
            let at = counting.cut_at.load(Ordering::SeqCst);
            let ours = octets >= at
                && counting
                    .cut_at
                    .compare_exchange(at, u64::MAX, Ordering::SeqCst, Ordering::SeqCst)
                    .is_ok();
            if ours {
                counting.cuts.fetch_add(1, Ordering::SeqCst);
                counting.cut();
            }
        };
        copy(from, into, |octets| down.to_client(octets), passed);
    }
    // Whichever direction ended first, the other one ends with the sockets.
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
    let _ = upstream.join();
}

fn copy(mut from: TcpStream, mut into: TcpStream, came: impl Fn(&[u8]), mut passed: impl FnMut(u64)) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        came(&buffer[..count]);
        if into.write_all(&buffer[..count]).is_err() {
            break;
        }
        passed(count as u64);
    }
    let _ = (from.shutdown(Shutdown::Read), into.shutdown(Shutdown::Write));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_and_cuts_once() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = server.local_addr().unwrap();
        thread::spawn(move || {
            for mut client in server.incoming().flatten() {
                thread::spawn(move || while client.write_all(&[b'x'; 1000]).is_ok() {});
            }
        });
        let line = Line::to(to);
        line.cut_after(10_000);
        let mut first = TcpStream::connect(line.address()).unwrap();
        let mut octets = Vec::new();
        // A cut connection ends, with an error or without.
        let _ = first.read_to_end(&mut octets);
        assert!(octets.len() >= 1000 && line.octets() >= 10_000);
        assert_eq!(line.cuts(), 1);
        let mut second = TcpStream::connect(line.address()).unwrap();
        second.read_exact(&mut [0; 50_000]).unwrap();
        assert_eq!(line.cuts(), 1);
    }

    /// A server that answers each octet with the same one.
    fn echo(octet: u8) -> SocketAddr {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        thread::spawn(move || {
            for mut client in server.incoming().flatten() {
                while client.read_exact(&mut [0]).is_ok() && client.write_all(&[octet]).is_ok() {}
            }
        });
        address
    }

    #[test]
    fn it_counts_round_trips_and_leads_elsewhere() {
        let meter = Meter::default();
        let line = Line::measured(echo(b'a'), &meter);
        let ask = |client: &mut TcpStream| {
            let mut answer = [0];
            client.write_all(b"x").and_then(|()| client.read_exact(&mut answer))?;
            Ok::<u8, std::io::Error>(answer[0])
        };
        let begin = std::time::Instant::now();
        let mut client = TcpStream::connect(line.address()).unwrap();
        for _ in 0..3 {
            assert_eq!(ask(&mut client).unwrap(), b'a');
        }
        let figures = meter.since(begin);
        assert_eq!((figures.round_trips, figures.octets, figures.connections), (4, 6, 1));
        line.lead_to(echo(b'b'));
        assert!(ask(&mut client).is_err(), "the old connection has ended");
        let mut client = TcpStream::connect(line.address()).unwrap();
        assert_eq!(ask(&mut client).unwrap(), b'b');
    }
}

//! What goes over lines, in the order in which it goes: octets, and how often somebody waited for an answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A TLS record that holds nothing but a PING of HTTP/2 (RFC 9113 §6.7, RFC 8446 §5.2): frame of 17 octets, its kind, the
/// tag of the cipher and the head of the record. No request and no answer is so short.
const PING: usize = 17 + 1 + 16 + 5;

/// Counts what goes over one line or several together. Clones count into the same.
#[derive(Clone, Default)]
pub struct Meter(Arc<Mutex<Vec<Passed>>>);

/// Something that passed.
#[derive(Clone, Copy, Debug)]
struct Passed {
    at: Instant,
    what: What,
    octets: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// A connection was opened, which takes a round trip of its own.
    Opened,
    ToServer,
    ToClient,
    /// What nobody waits for the answer of: one end assures itself that the other is there, or says goodbye.
    Aside,
}

/// What went over the lines of a [`Meter`] in a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// How often clients spoke after servers had, over all connections together; a connection that is opened counts as
    /// well. Of round trips that follow one another there are at most as many: each begins after the answer to the one
    /// before has passed here.
    pub round_trips: usize,
    /// Octets both ways, framing and encryption included.
    pub octets: u64,
    /// Connections opened.
    pub connections: usize,
    /// Pings of HTTP/2 and the answers to them, and QUITs of mail: no round trips that anybody waits for.
    pub asides: usize,
}

impl Meter {
    fn passed(&self) -> MutexGuard<'_, Vec<Passed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, what: What, octets: u64) {
        // Under the lock, so that the order of times is the order of entries.
        let mut passed = self.passed();
        passed.push(Passed {
            at: Instant::now(),
            what,
            octets,
        });
    }

    /// A connection is opened.
    pub(crate) fn opens(&self) {
        self.note(What::Opened, 0);
    }

    /// A client's octets are about to be passed on.
    pub(crate) fn to_server(&self, octets: &[u8]) {
        self.note(kind(What::ToServer, octets), octets.len() as u64);
    }

    /// A server's octets are about to be passed on.
    pub(crate) fn to_client(&self, octets: &[u8]) {
        self.note(kind(What::ToClient, octets), octets.len() as u64);
    }

    /// What passed from then until now.
    #[must_use]
    pub fn since(&self, begin: Instant) -> Figures {
        self.between(begin, Instant::now())
    }

    /// What passed from `begin` to `end`.
    #[must_use]
    pub fn between(&self, begin: Instant, end: Instant) -> Figures {
        let passed = self.passed();
        figures(passed.iter().filter(|one| begin <= one.at && one.at <= end))
    }
}

fn kind(otherwise: What, octets: &[u8]) -> What {
    let is_ping = octets.len() == PING && octets.starts_with(&[23, 3, 3, 0, (PING - 5) as u8]);
    if is_ping || octets == b"QUIT\r\n" {
        What::Aside
    } else {
        otherwise
    }
}

fn figures<'a>(passed: impl Iterator<Item = &'a Passed>) -> Figures {
    let mut figures = Figures::default();
    let mut client_spoke = false;
    for one in passed {
        figures.octets += one.octets;
        match one.what {
            What::Opened => {
                figures.connections += 1;
                figures.round_trips += usize::from(!client_spoke);
                client_spoke = false;
            }
            What::ToServer => {
                figures.round_trips += usize::from(!client_spoke);
                client_spoke = true;
            }
            What::ToClient => client_spoke = false,
            What::Aside => figures.asides += 1,
        }
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(whats: &[What]) -> Figures {
        let at = Instant::now();
        let passed: Vec<_> = whats.iter().map(|&what| Passed { at, what, octets: 10 }).collect();
        figures(passed.iter())
    }

    #[test]
    fn a_round_trip_begins_when_a_client_speaks_after_a_server() {
        use What::{Aside, Opened, ToClient, ToServer};
        let table: [(&[What], usize); 8] = [
            (&[], 0),
            (&[ToClient], 0),
            (&[ToServer, ToServer, ToClient, ToClient], 1),
            (&[ToServer, ToClient, ToServer, ToClient], 2),
            // The second of two requests at once has its answer first.
            (&[ToServer, ToServer, ToClient, ToServer, ToClient], 2),
            // The connection and the greeting are one, the first command is the next.
            (&[Opened, ToClient, ToServer, ToClient], 2),
            (&[Opened, Opened, ToServer, ToClient], 3),
            (&[Aside, Aside, ToServer, Aside, ToClient, Aside, Aside], 1),
        ];
        for (whats, round_trips) in table {
            let figures = counted(whats);
            assert_eq!(figures.round_trips, round_trips, "{whats:?}");
            assert_eq!(figures.octets, 10 * whats.len() as u64);
        }
        assert_eq!(counted(&[Aside, Opened, Aside]).asides, 2);
    }

    #[test]
    fn pings_and_goodbyes_are_known() {
        let mut record = vec![0; PING];
        record[..5].copy_from_slice(&[23, 3, 3, 0, 34]);
        assert_eq!(kind(What::ToServer, &record), What::Aside);
        assert_eq!(kind(What::ToServer, b"QUIT\r\n"), What::Aside);
        assert_eq!(
            kind(What::ToServer, &[record.clone(), record.clone()].concat()),
            What::ToServer
        );
        record[0] = 22;
        assert_eq!(kind(What::ToServer, &record), What::ToServer);
    }
}

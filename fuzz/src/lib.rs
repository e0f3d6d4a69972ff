//! One function for every parser of octets from outside, each with what must be true of any input.
//!
//! `make fuzz` gives them to a fuzzer; the test `seeds` runs them over `seeds/` and over mutations of those. A target
//! panics when a promise is broken; what a parser refuses is no finding. An input that once broke a promise goes to
//! `seeds/` under a name that says what it showed.

mod identity;
mod imap;
mod mail;
mod text;
mod wire;

/// A parser with its promises.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its folder below `seeds/`.
    pub name: &'static str,
    /// Gives it one input.
    pub run: fn(&[u8]),
}

/// All targets, by name.
pub const TARGETS: &[Target] = &[
    Target {
        name: "canonical",
        run: wire::canonical_form,
    },
    Target {
        name: "command-values",
        run: text::command_values,
    },
    Target {
        name: "csv",
        run: text::csv,
    },
    Target {
        name: "documents",
        run: identity::documents,
    },
    Target {
        name: "frames",
        run: wire::frames,
    },
    Target {
        name: "imap-answers",
        run: imap::answers,
    },
    Target {
        name: "imap-parts",
        run: imap::parts,
    },
    Target {
        name: "ledger",
        run: mail::ledger,
    },
    Target {
        name: "maildir",
        run: mail::maildir,
    },
    Target {
        name: "names",
        run: text::names,
    },
    Target {
        name: "receipt",
        run: wire::receipt,
    },
    Target {
        name: "smtp-client",
        run: mail::smtp_client,
    },
    Target {
        name: "smtp-server",
        run: mail::smtp_server,
    },
    Target {
        name: "streams",
        run: wire::compressed,
    },
    Target {
        name: "tokens",
        run: identity::tokens,
    },
    Target {
        name: "uid-set",
        run: wire::uid_set,
    },
    Target {
        name: "verbs",
        run: identity::verbs,
    },
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().copied().find(|target| target.name == name)
}

/// The input in pieces whose lengths come from its own octets, so that the fuzzer chooses where it is cut.
fn pieces(octets: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut rest = octets;
    let mut choice = octets.len();
    while !rest.is_empty() {
        choice = choice.wrapping_mul(31).wrapping_add(usize::from(rest[rest.len() / 2]));
        let (piece, after) = rest.split_at((choice % 61 + 1).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}
